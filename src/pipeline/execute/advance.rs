//! How far a stage has come since it began, or continued from a checkpoint, as far as it says that.

use pipeline_stages::message::Progress;

/// How far it was and is with what it counts now, and the part of what it counted before.
#[derive(Debug, Default)]
pub(super) struct Advance {
    now: Option<(Progress, Progress)>,
    before: Option<f64>,
}

impl Advance {
    pub(super) fn progress(&mut self, progress: &Progress) {
        let what = |progress: &Progress| (progress.unit, progress.total);
        let first = match self.now.take() {
            Some((first, _)) if what(&first) == what(progress) => first,
            Some((first, last)) => {
                self.before = least(self.before, part_since(&first, &last));
                progress.clone()
            }
            None => progress.clone(),
        };
        self.now = Some((first, progress.clone()));
    }

    /// Whether it is further than when it began. One that does not say how far it is may be.
    pub(super) fn is_further(&self) -> bool {
        self.now.as_ref().is_none_or(|(first, last)| last.done > first.done)
    }

    /// The part of all its work, from 0 to 1, that it did since it began; 0 where it does not say that. Of what it counts one after
    /// the other, that which it did not begin with nothing done: what it reads before and measures after its work is not continued.
    pub(super) fn part(&self) -> f64 {
        let now = self.now.as_ref().and_then(|(first, last)| part_since(first, last));
        least(self.before, now).unwrap_or(0.0)
    }
}

/// The part of all that is done now, which may be less than was planned, that was done since.
fn part_since(first: &Progress, last: &Progress) -> Option<f64> {
    last.total?;
    (last.done > first.done).then(|| (last.done - first.done) as f64 / last.done as f64)
}

fn least(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use pipeline_stages::message::Unit;

    use super::*;

    #[test]
    fn what_it_continues_is_its_work() {
        let mut advance = Advance::default();
        assert_eq!((advance.part(), advance.is_further()), (0.0, true));
        for (done, total, unit, part, is_further) in [
            // What it reads first.
            (0, Some(60), Unit::Images, 0.0, false),
            (60, Some(60), Unit::Images, 1.0, true),
            (150, Some(400), Unit::Steps, 1.0, false),
            // It ends before all of them, by its own choice.
            (200, Some(400), Unit::Steps, 0.25, true),
            // What it measures then.
            (10, Some(1000), Unit::Images, 0.25, false),
            (1000, Some(1000), Unit::Images, 0.25, true),
            (7, None, Unit::Bytes, 0.25, false),
            (9, None, Unit::Bytes, 0.25, true),
        ] {
            advance.progress(&Progress { done, total, unit, phase: None });
            assert_eq!((advance.part(), advance.is_further()), (part, is_further), "{done}");
        }
    }
}
