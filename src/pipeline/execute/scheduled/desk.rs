//! The thread of an executor: it hears orders, submits jobs, and follows them.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::cancelled::Cancelled;
use super::followed::FollowedJob;
use super::knowledge::{Knowledge, Question};
use super::scheduler::Scheduler;
use super::terms::Terms;
use crate::cache::Cache;
use crate::deadline::Stop;

/// How often journals are read.
const TICK: Duration = Duration::from_millis(500);
/// So soon after each other come orders that belong together.
const GATHERING: Duration = Duration::from_millis(100);
/// How many journals are read then: of many jobs, each is read less often.
const JOURNALS: usize = 200;
/// How much is handed over at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// All that is ready: those that may not run yet wait in an array.
    Wide,
    /// No more than may run, once a scheduler has refused more.
    Narrow,
    /// One by one, once it has refused an array.
    One,
}

/// What the thread of an executor has before it.
pub(super) struct Desk {
    pub(super) terms: Terms,
    pub(super) cache: Arc<Cache>,
    pub(super) scheduler: Arc<dyn Scheduler>,
    pub(super) knowledge: Knowledge,
    /// What its scheduler is asked now.
    pub(super) question: Option<Question>,
    /// Ends the program that is asked, once nobody hears of jobs any more.
    pub(super) over: Arc<Stop>,
    pub(super) jobs: Vec<FollowedJob>,
    pub(super) width: Width,
    /// The most that are handed over at once, since it has said that it is full.
    pub(super) most: usize,
}

impl Desk {
    /// Until there is nobody who could give orders, or hear of jobs.
    pub(super) fn work(mut self, orders: &Receiver<FollowedJob>) {
        let mut first = 0;
        loop {
            match orders.recv_timeout(TICK) {
                Ok(job) => {
                    self.jobs.push(job);
                    self.gather(orders);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is there to hear of them.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.cancel();
            self.ask();
            let count = self.jobs.len();
            let turns = (0..count.min(JOURNALS)).map(|turn| (first + turn) % count);
            let mut room = self.room();
            let ended = turns.filter(|&place| self.step(place, &mut room));
            let mut ended: Vec<usize> = ended.collect();
            if !ended.is_empty() {
                self.knowledge.has_room();
            }
            first = if count == 0 { 0 } else { (first + JOURNALS) % count };
            ended.sort_unstable();
            ended.into_iter().rev().for_each(|place| drop(self.jobs.remove(place)));
            self.submit();
        }
    }

    /// Takes the orders that come together: what they are about is submitted together.
    fn gather(&mut self, orders: &Receiver<FollowedJob>) {
        self.jobs.extend(orders.try_iter());
        let Some(arrays) = self.scheduler.arrays() else { return };
        let few = self.jobs.len() + arrays.most;
        while self.jobs.len() < few
            && let Ok(job) = orders.recv_timeout(GATHERING)
        {
            self.jobs.push(job);
        }
    }

    /// Follows one job. Returns whether that is over.
    fn step(&mut self, place: usize, room: &mut usize) -> bool {
        let Self { terms, cache, scheduler, knowledge, jobs, .. } = self;
        let Some(job) = jobs.get_mut(place) else { return false };
        if job.is_unwanted() {
            // Together with others, next.
            return false;
        }
        let end = job.step(terms, cache, &**scheduler, knowledge, room);
        let is_over = end.is_some();
        end.into_iter().for_each(|end| job.report_end(cache, end));
        is_over
    }

    /// Ends the jobs that somebody wants to end.
    fn cancel(&mut self) {
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (mut unwanted, others): (Vec<_>, Vec<_>) = jobs.partition(FollowedJob::is_unwanted);
        self.jobs = others;
        let ids: Vec<String> = unwanted.iter().filter_map(FollowedJob::id).collect();
        let cancelled = Cancelled::ask(&*self.scheduler, &ids);
        for job in &mut unwanted {
            let trouble = job.id().and_then(|id| cancelled.trouble(&id));
            let end = job.cancelled(&self.cache, trouble);
            job.reporter.end(end);
        }
    }
}
