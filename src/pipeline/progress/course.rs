//! How far a stage is, in words.

use pipeline_stages::message::{Measured, Metrics, Progress};

use super::rate::Rate;
use crate::{format, visible};

/// What is measured of most trainings, by labels or without.
const LOSSES: [&str; 2] = ["train-loss", "loss"];

/// How far a stage is, put together from its events.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) progress: Option<Progress>,
    /// What was measured last under each name.
    pub(super) measured: Metrics,
    pub(super) rate: Rate,
}

impl Course {
    pub(super) fn progress(&mut self, progress: &Progress) {
        self.rate.update(progress.done);
        self.progress = Some(progress.clone());
    }

    pub(super) fn measured(&mut self, measured: &Measured) {
        self.measured.insert(measured.name.clone(), measured.value);
    }

    /// `81 %`, where it is known how much there is to do.
    pub(super) fn percent(&self) -> Option<String> {
        let progress = self.progress.as_ref()?;
        Some(format!("{} %", progress.done.saturating_mul(100) / progress.total?.max(1)))
    }

    /// The part of the work, and what was measured: `epoch 3/20, loss 4.21`.
    pub(super) fn values(&self) -> Option<String> {
        let phase = self.progress.as_ref().and_then(|progress| progress.phase.as_deref());
        let phase = phase.map(|phase| visible::line(phase).into_owned());
        let values = format::metrics(self.measured.iter().map(|(name, value)| (&**name, *value)));
        let parts = phase.into_iter().chain([values]).filter(|part| !part.is_empty());
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// The parts in which somebody who waits is interested most, and then the others: `2 min 05 s left`, `loss 0.43`,
    /// `512 images/s`, `epoch 3/20`, `train-accuracy 0.8731`.
    pub(super) fn by_importance(&self) -> Vec<String> {
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
    pub(super) fn speed(&self) -> Option<String> {
        let unit = self.progress.as_ref()?.unit;
        Some(format!("{}/s", format::amount(self.rate.per_second()? as u64, unit)))
    }

    /// `2 min 05 s left`.
    pub(super) fn left(&self) -> Option<String> {
        let progress = self.progress.as_ref()?;
        let left = progress.total?.saturating_sub(progress.done) as f64;
        Some(format!("{} left", format::seconds(left / self.rate.per_second()?)))
    }
}
