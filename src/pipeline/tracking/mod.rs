//! Where people already look: what a run measures, as reporters for trackers. A tracker that does not work never fails a
//! stage; the run says so at its end, and `pipeline track --resend` sends what did not arrive.
//!
//! Knows events, records and artifacts; does not depend on how stages are run. A tracker is one file or folder, and one
//! line in [`trackers`].

mod mlflow;
mod result;
mod tensorboard;
mod tracker;

use crate::progress::Reporter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use mlflow::is_answer;
pub(crate) use result::{StageResult, is_tracked};
pub(crate) use tracker::{Scene, Sent, Tracker};

/// The trackers of a manifest.
pub(crate) fn trackers(scene: &Scene<'_>) -> Vec<Box<dyn Tracker>> {
    let all = [tensorboard::TensorBoard::of(scene), mlflow::Mlflow::of(scene)];
    all.into_iter().flatten().collect()
}

/// What reports a run to them.
pub(crate) fn reporters(scene: &Scene<'_>) -> impl Iterator<Item = Box<dyn Reporter>> {
    trackers(scene).into_iter().map(|tracker| tracker.reporter())
}
