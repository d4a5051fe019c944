//! Showing a run: bars on a terminal, plain lines elsewhere, JSON lines on request.
//!
//! Knows events; not where they come from. Called from the main thread only.

mod bars;
mod json;
mod meter;
mod plain;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::events::{Outcome, RunEvent};

pub use meter::Meter;

/// Shows a run.
pub trait Reporter {
    /// Something happened.
    fn event(&mut self, event: &RunEvent);

    /// Some time passed.
    fn tick(&mut self) {}
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Bars.
    Bars,
    /// Plain lines on standard error.
    Plain,
    /// One JSON object per event, a line each, on standard output. Failures are on standard error, too.
    Json,
    /// Nothing but failures and the table at the end.
    None,
}

/// A reporter of this style.
pub fn reporter(style: Style) -> Box<dyn Reporter> {
    match style {
        Style::Auto if std::io::stderr().is_terminal() => Box::new(bars::Bars::new()),
        Style::Auto | Style::Plain => Box::new(plain::Plain::default()),
        Style::Bars => Box::new(bars::Bars::new()),
        Style::Json => Box::new(Reporters(vec![Box::new(json::JsonLines), Box::new(Failures)])),
        Style::None => Box::new(Failures),
    }
}

/// Several reporters at once.
pub struct Reporters(pub Vec<Box<dyn Reporter>>);

impl Reporter for Reporters {
    fn event(&mut self, event: &RunEvent) {
        self.0.iter_mut().for_each(|reporter| reporter.event(event));
    }

    fn tick(&mut self) {
        self.0.iter_mut().for_each(|reporter| reporter.tick());
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

/// Work per second since a stage started, or since it went on from a checkpoint.
#[derive(Debug)]
struct Rate {
    first: Option<(Instant, u64)>,
}

impl Rate {
    fn new() -> Self {
        Self { first: None }
    }

    /// Units per second, once there is something to tell it from.
    fn update(&mut self, done: u64) -> Option<f64> {
        let (since, start) = *self.first.get_or_insert((Instant::now(), done));
        let elapsed = since.elapsed();
        (elapsed > Duration::from_millis(200) && done > start)
            .then(|| (done - start) as f64 / elapsed.as_secs_f64())
    }
}
