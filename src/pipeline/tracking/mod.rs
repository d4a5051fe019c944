//! Where people already look: what a run measures, as reporters for trackers. A tracker that does not work never fails a
//! stage; the run says so at its end.
//!
//! Knows events; does not depend on where they come from.

mod tensorboard;

use crate::manifest::Tracking;
use crate::progress::Reporter;
use tensorboard::TensorBoard;

/// The reporters of these trackers.
pub(crate) fn reporters(tracking: &Tracking, experiment: &str) -> Vec<Box<dyn Reporter>> {
    let folder = tracking.tensorboard.as_ref();
    let tensorboard = folder
        .map(|folder| Box::new(TensorBoard::new(folder.join(experiment))) as Box<dyn Reporter>);
    tensorboard.into_iter().collect()
}
