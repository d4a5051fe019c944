//! The learning rate of every step.
//!
//! Does not depend on any optimizer: a schedule is a function from the step to a number.

use pipeline_stages::kinds::{Schedule, Train};

/// How the learning rate goes over the steps of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LearningRateSchedule {
    /// A linear rise over the first `warmup` of the steps, then half a cosine to zero.
    WarmupCosine {
        /// The share of the steps that rise.
        warmup: f64,
    },
    /// Falls linearly to zero.
    Linear,
    /// Stays.
    Constant,
    /// Multiplied by `factor` every `every` steps.
    Step {
        /// Steps between two changes.
        every: u64,
        /// What the rate is multiplied by.
        factor: f64,
    },
}

impl LearningRateSchedule {
    /// The schedule that a stage asks for.
    pub fn of(parameters: &Train) -> Self {
        match parameters.schedule {
            Schedule::WarmupCosine => Self::WarmupCosine { warmup: parameters.warmup },
            Schedule::Linear => Self::Linear,
            Schedule::Constant => Self::Constant,
            Schedule::Step => {
                Self::Step { every: parameters.step_every, factor: parameters.step_factor }
            }
        }
    }

    /// What the peak learning rate is multiplied by at `step`, of `total` steps, counted from 0.
    ///
    /// Warm-up and cosine are those of the reference protocol: with W = floor(warmup T), step
    /// t < W gives (t+1)/(W+1), and a later one (1 + cos(pi (t-W)/(T-W))) / 2.
    pub fn factor(self, step: u64, total: u64) -> f64 {
        match self {
            Self::WarmupCosine { warmup } => {
                let rising = (warmup * total as f64).floor() as u64;
                if step < rising {
                    return (step + 1) as f64 / (rising + 1) as f64;
                }
                let falling = total.saturating_sub(rising).max(1) as f64;
                let done = (step - rising) as f64 / falling;
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Self::Linear => 1.0 - step as f64 / total.max(1) as f64,
            Self::Constant => 1.0,
            Self::Step { every, factor } => {
                factor.powi(i32::try_from(step / every.max(1)).unwrap_or(i32::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: LearningRateSchedule, total: u64, expected: &[(u64, f64)]) {
        for &(step, factor) in expected {
            let found = schedule.factor(step, total);
            assert!((found - factor).abs() < 1e-12, "step {step}: {found}, expected {factor}");
        }
    }

    #[test]
    fn warm_up_rises_to_the_peak_and_the_cosine_falls_from_it() {
        let schedule = LearningRateSchedule::WarmupCosine { warmup: 0.1 };
        let expected = [
            (0, 1.0 / 11.0),
            (9, 10.0 / 11.0),
            (10, 1.0),
            (55, 0.5),
            (99, 0.5 * (1.0 + (std::f64::consts::PI * 89.0 / 90.0).cos())),
        ];
        check(schedule, 100, &expected);
    }

    #[test]
    fn without_warm_up_the_cosine_starts_at_the_peak() {
        check(LearningRateSchedule::WarmupCosine { warmup: 0.0 }, 10, &[(0, 1.0), (5, 0.5)]);
        check(LearningRateSchedule::WarmupCosine { warmup: 0.01 }, 10, &[(0, 1.0)]);
    }

    #[test]
    fn the_other_schedules() {
        check(LearningRateSchedule::Linear, 4, &[(0, 1.0), (1, 0.75), (3, 0.25)]);
        check(LearningRateSchedule::Constant, 4, &[(0, 1.0), (3, 1.0)]);
        let step = LearningRateSchedule::Step { every: 40_000, factor: 0.5 };
        check(step, 240_000, &[(0, 1.0), (39_999, 1.0), (40_000, 0.5), (120_000, 0.125)]);
    }
}
