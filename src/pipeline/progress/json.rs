//! One JSON object per event, a line each, on standard output.

use std::io::Write;

use super::reporter::Reporter;
use crate::events::RunEvent;

/// Writes events as they are.
pub(crate) struct JsonLines;

impl Reporter for JsonLines {
    fn event(&mut self, event: &RunEvent) {
        if let Ok(line) = serde_json::to_string(event) {
            // Whoever read this is gone: the run continues.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }
}
