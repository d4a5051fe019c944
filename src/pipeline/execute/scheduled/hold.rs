//! The two ends of a job that is followed: what the run wants of it, and what the run hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use pipeline_stages::message::Event;

use super::super::executor::JobReport;
use super::super::handle::{Handle, Kill, Waker};
use super::super::job::{JobEnd, JobEvent};

/// What is wanted of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish(Arc<AtomicU8>);

impl Wish {
    /// That it goes on, and nobody follows it any more.
    pub(super) const LEAVE: u8 = 1;
    /// That it ends.
    pub(super) const CANCEL: u8 = 2;

    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn want(&self, what: u8) {
        self.0.fetch_max(what, Ordering::Relaxed);
    }
}

/// A hold on a job.
pub(super) struct JobHandle {
    pub(super) reports: Receiver<JobReport>,
    pub(super) wish: Wish,
}

impl Handle<JobReport> for JobHandle {
    fn poll(&mut self) -> Option<JobReport> {
        match self.reports.try_recv() {
            Ok(report) => Some(report),
            Err(TryRecvError::Empty) => None,
            // Its end was the last one; there is nobody who could report another.
            Err(TryRecvError::Disconnected) => {
                let message = "internal error: the thread of its executor panicked";
                Some(JobReport::End(JobEnd::failed(message)))
            }
        }
    }

    fn stop(&self) {
        self.wish.want(Wish::LEAVE);
    }

    fn kill(&self, _why: Kill) {
        self.wish.want(Wish::CANCEL);
    }

    // Its processes go on without this one, mostly on another machine.

    fn suspend(&self) {}

    fn resume(&self) {}

    fn has_processes(&self) -> bool {
        false
    }

    fn look_at_memory(&self) {}

    fn memory(&self) -> Option<u64> {
        None
    }
}

/// Whom a job is reported to.
pub(super) struct JobReporter {
    pub(super) sender: Sender<JobReport>,
    pub(super) waker: Waker,
}

impl JobReporter {
    pub(super) fn event(&self, event: JobEvent) {
        let _ = self.sender.send(JobReport::Event(event));
        self.waker.wake();
    }

    pub(super) fn note(&self, text: String) {
        self.event(JobEvent::Worker(Event::Note { text }));
    }

    pub(super) fn end(&self, end: JobEnd) {
        let _ = self.sender.send(JobReport::End(end));
        self.waker.wake();
    }
}
