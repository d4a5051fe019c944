//! Errors and warnings as they are shown, and the exit statuses.

use std::io::Write;
use std::process::ExitCode;

use pipeline_stages::worker::{in_words, with_disk_advice};

use super::project::Project;
use crate::colour;
use crate::diagnostic::{Colour, Mistakes, Warnings};
use crate::lint;
use crate::stage_name::StageName;
use crate::visible;

/// What was asked for cannot be done: a manifest with mistakes, a cache that cannot be read.
const CANNOT: u8 = 2;

/// Shows the warnings about these stages on standard error. Returns whether there are any.
pub(super) fn warn(project: &Project, selected: &[StageName]) -> bool {
    show_warnings(&lint::warnings(&project.manifest, selected))
}

/// Shows warnings. Returns whether there are any.
pub(super) fn show_warnings(warnings: &Warnings) -> bool {
    let text = warnings.render(colour_of_errors());
    // Where standard error is closed, nobody reads it.
    let _ = std::io::stderr().write_all(visible::coloured(&text).as_bytes());
    !text.is_empty()
}

fn colour_of_errors() -> Colour {
    if colour::is_for_errors() { Colour::Always } else { Colour::Never }
}

/// Shows an error and returns its exit status.
pub(super) fn report_error(error: anyhow::Error) -> ExitCode {
    let text = match error.downcast_ref::<Mistakes>() {
        Some(mistakes) => visible::coloured(&mistakes.render(colour_of_errors())),
        None => {
            let error = with_disk_advice(error);
            format!("error: {}\n", visible::text(&in_words(&error)))
        }
    };
    // Where standard error is closed, nobody reads it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(CANNOT)
}
