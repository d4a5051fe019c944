//! The same work for many things, on several threads: most of it waits for a network.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What this returns for each of the items, in their order, on at most so many threads.
pub(crate) fn on_threads<T: Sync, R: Send>(
    items: &[T],
    most: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    let take = || {
        while let (place, Some(item)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            (place, items.get(place))
        } {
            let one = work(item);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((place, one));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..most.min(items.len()) {
            // Where the system has no thread left, the others do the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, take);
        }
        take();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, one)| one).collect()
}
