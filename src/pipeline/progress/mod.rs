//! Showing a run: bars on a terminal, plain lines elsewhere, JSON lines on request.
//!
//! Knows events; does not depend on where they come from. Called from the main thread only.

mod bars;
mod json;
mod meter;
mod plain;
mod running;

use std::time::{Duration, Instant};

use pipeline_stages::message::{Measured, Metrics, Progress};

use crate::events::{Outcome, RunEvent};
use crate::{format, screen, visible};

pub(crate) use meter::Meter;
pub(crate) use running::{Interrupted, Running, RunningFiles};

/// What is measured of most trainings, by labels or without.
const LOSSES: [&str; 2] = ["train-loss", "loss"];

/// Shows a run.
pub(crate) trait Reporter {
    fn event(&mut self, event: &RunEvent);

    fn tick(&mut self) {}
}

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

/// Several reporters at once.
pub(crate) struct Reporters(pub(crate) Vec<Box<dyn Reporter>>);

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

/// How far a stage is, put together from its events.
#[derive(Debug, Default)]
struct Course {
    progress: Option<Progress>,
    /// What was measured last under each name.
    measured: Metrics,
    rate: Rate,
}

impl Course {
    fn progress(&mut self, progress: &Progress) {
        self.rate.update(progress.done);
        self.progress = Some(progress.clone());
    }

    fn measured(&mut self, measured: &Measured) {
        self.measured.insert(measured.name.clone(), measured.value);
    }

    /// `81 %`, where it is known how much there is to do.
    fn percent(&self) -> Option<String> {
        let progress = self.progress.as_ref()?;
        Some(format!("{} %", progress.done.saturating_mul(100) / progress.total?.max(1)))
    }

    /// The part of the work, and what was measured: `epoch 3/20, loss 4.21`.
    fn values(&self) -> Option<String> {
        let phase = self.progress.as_ref().and_then(|progress| progress.phase.as_deref());
        let phase = phase.map(|phase| visible::line(phase).into_owned());
        let values = format::metrics(self.measured.iter().map(|(name, value)| (&**name, *value)));
        let parts = phase.into_iter().chain([values]).filter(|part| !part.is_empty());
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// The parts in which somebody who waits is interested most, and then the others: `2 min 05 s left`, `loss 0.43`,
    /// `512 images/s`, `epoch 3/20`, `train-accuracy 0.8731`.
    fn by_importance(&self) -> Vec<String> {
        let value = |name: &str| {
            let value = self.measured.get(name)?;
            Some(format::metrics([(name, *value)]))
        };
        let loss = LOSSES.into_iter().find(|name| self.measured.contains_key(*name));
        // A method that does not measure a loss of these names may measure another one.
        let other = || self.measured.keys().map(String::as_str).find(|name| name.contains("loss"));
        let loss = loss.or_else(other);
        let phase = self.progress.as_ref().and_then(|progress| progress.phase.as_deref());
        let phase = phase.map(|phase| visible::line(phase).into_owned());
        let first = [self.left(), loss.and_then(value), self.speed(), phase];
        let names = self.measured.keys().map(String::as_str).filter(|name| Some(*name) != loss);
        first.into_iter().flatten().chain(names.filter_map(value)).collect()
    }

    /// `2,007 images/s`.
    fn speed(&self) -> Option<String> {
        let unit = self.progress.as_ref()?.unit;
        Some(format!("{}/s", format::amount(self.rate.per_second()? as u64, unit)))
    }

    /// `2 min 05 s left`.
    fn left(&self) -> Option<String> {
        let progress = self.progress.as_ref()?;
        let left = progress.total?.saturating_sub(progress.done) as f64;
        Some(format!("{} left", format::seconds(left / self.rate.per_second()?)))
    }
}

/// Work per second since a stage started, or since it went on from a checkpoint.
#[derive(Debug)]
enum Rate {
    /// What was seen first and last of it.
    Seen { first: Option<(Instant, u64)>, last: Option<(Instant, u64)> },
    /// What another process saw.
    Known(Option<f64>),
}

impl Default for Rate {
    fn default() -> Self {
        Self::Seen { first: None, last: None }
    }
}

impl Rate {
    fn update(&mut self, done: u64) {
        if let Self::Seen { first, last } = self {
            *last = Some((Instant::now(), done));
            *first = first.or(*last);
        }
    }

    /// Units per second, once there is something to compute it from.
    fn per_second(&self) -> Option<f64> {
        let (first, last) = match self {
            Self::Seen { first, last } => (*first, *last),
            Self::Known(rate) => return *rate,
        };
        let ((first, start), (last, done)) = (first?, last?);
        let elapsed = last.duration_since(first);
        (elapsed > Duration::from_millis(200) && done > start)
            .then(|| (done - start) as f64 / elapsed.as_secs_f64())
    }
}
