//! Showing a run: bars on a terminal, plain lines elsewhere, JSON lines on request.
//!
//! Knows events; does not depend on where they come from. Called from the main thread only.

mod bars;
mod course;
mod json;
mod meter;
mod plain;
mod rate;
mod reporter;
mod running;

use crate::events::{Outcome, RunEvent};
use crate::screen;

pub(crate) use meter::Meter;
pub(crate) use reporter::{Reporter, Reporters};
pub(crate) use running::{Interrupted, Running, RunningFiles};

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Style {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Bars.
    Bars,
    /// Plain lines on standard error.
    Plain,
    /// One JSON object per event, a line each, on standard output. Failures are on standard error, too.
    Json,
    /// Nothing but failures and the tables at the end.
    None,
}

pub(crate) fn reporter(style: Style) -> Box<dyn Reporter> {
    match style {
        Style::Auto if screen::errors_can_be_drawn() => Box::new(bars::Bars::new()),
        Style::Auto | Style::Plain => Box::new(plain::Plain::default()),
        Style::Bars => Box::new(bars::Bars::new()),
        Style::Json => Box::new(Reporters(vec![Box::new(json::JsonLines), Box::new(Failures)])),
        Style::None => Box::new(Failures),
    }
}

/// Shows failures on standard error, and nothing else: a failure is shown there in every style.
struct Failures;

impl Reporter for Failures {
    fn event(&mut self, event: &RunEvent) {
        if let RunEvent::End { outcome: Outcome::Failed { .. }, .. } = event {
            plain::print_line(event);
        }
    }
}
