//! Results that are pushed at once, each after those that it was made from: these may turn out to be damaged.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::cache::Record;
use crate::digest::Digest;

/// Which results wait for which, and which were done.
pub(super) struct PushOrder {
    inputs: Vec<Vec<usize>>,
    done: Mutex<Vec<bool>>,
    changed: Condvar,
}

impl PushOrder {
    /// That of results of which each comes after those that it was made from.
    pub(super) fn of<'r>(records: impl Iterator<Item = &'r Record>) -> Self {
        let mut makers: HashMap<Digest, Vec<usize>> = HashMap::new();
        let inputs = records.enumerate().map(|(place, record)| {
            let inputs = record.inputs().filter_map(|input| makers.get(input)).flatten();
            let inputs = inputs.copied().collect();
            makers.entry(record.output.digest).or_default().push(place);
            inputs
        });
        let inputs: Vec<Vec<usize>> = inputs.collect();
        let done = Mutex::new(vec![false; inputs.len()]);
        Self { inputs, done, changed: Condvar::new() }
    }

    /// Does something for the result of a place, once that was done for those that it was made from. Whoever takes places takes them
    /// in their order, so that these are done by somebody.
    pub(super) fn after_inputs<T>(&self, place: usize, act: impl FnOnce() -> T) -> T {
        let waits = |done: &mut Vec<bool>| self.inputs[place].iter().any(|input| !done[*input]);
        let all_done = self.changed.wait_while(self.lock(), waits);
        drop(all_done.unwrap_or_else(PoisonError::into_inner));
        let _done = Done { order: self, place };
        act()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a place was done, also where that panics: nobody waits for ever.
struct Done<'a> {
    order: &'a PushOrder,
    place: usize,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.order.lock()[self.place] = true;
        self.order.changed.notify_all();
    }
}
