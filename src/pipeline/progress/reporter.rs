//! What hears the events of a run.

use crate::events::RunEvent;

/// Shows a run.
pub(crate) trait Reporter {
    fn event(&mut self, event: &RunEvent);

    fn tick(&mut self) {}
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
