//! How far a stage has come since it began, or continued from a checkpoint, as far as it says that.

use pipeline_stages::message::Progress;

/// How far it was when it began with what it counts now, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Advance(Option<(Progress, Progress)>);

impl Advance {
    pub(super) fn progress(&mut self, progress: &Progress) {
        let what = |progress: &Progress| (progress.unit, progress.total);
        let first = self.0.take().map(|(first, _)| first);
        let first = first.filter(|first| what(first) == what(progress));
        self.0 = Some((first.unwrap_or_else(|| progress.clone()), progress.clone()));
    }

    /// Whether it is further than when it began. One that does not say how far it is may be.
    pub(super) fn is_further(&self) -> bool {
        self.0.as_ref().is_none_or(|(first, last)| last.done > first.done)
    }

    /// The share of all its work, from 0 to 1, that is left where it began; 0 where it does not say that.
    pub(super) fn share(&self) -> f64 {
        let share = |(first, last): &(Progress, Progress)| {
            let total = last.total.filter(|total| *total > 0)?;
            Some(total.saturating_sub(first.done) as f64 / total as f64)
        };
        self.0.as_ref().and_then(share).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::message::Unit;

    use super::*;

    #[test]
    fn what_it_counts_last_is_its_work() {
        let mut advance = Advance::default();
        assert_eq!((advance.share(), advance.is_further()), (0.0, true));
        for (done, total, unit, share, is_further) in [
            // What it reads first.
            (0, Some(60), Unit::Images, 1.0, false),
            (60, Some(60), Unit::Images, 1.0, true),
            (150, Some(200), Unit::Steps, 0.25, false),
            (200, Some(200), Unit::Steps, 0.25, true),
            (7, None, Unit::Bytes, 0.0, false),
        ] {
            advance.progress(&Progress { done, total, unit, phase: None });
            assert_eq!((advance.share(), advance.is_further()), (share, is_further), "{done}");
        }
    }
}
