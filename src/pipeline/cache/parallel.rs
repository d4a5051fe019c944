//! The same work on many things, by several threads.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::machine;

/// What this returns for each of many, in their order, by as many threads as may compute at once. Each thread has a state of its own, and
/// takes one thing after the other.
pub(super) fn for_each<T: Sync, S, R: Send + Sync>(
    items: &[T],
    begin: impl Fn() -> S + Sync,
    of: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    by_threads(items, machine::threads(), begin, of)
}

/// The same by at most so many threads: for what waits for something else than this machine.
pub(crate) fn on_threads<T: Sync, R: Send + Sync>(
    items: &[T],
    most: usize,
    of: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    by_threads(items, most, || (), |(), item| of(item))
}

/// The same by at most so many threads, each with a state of its own.
pub(super) fn by_threads<T: Sync, S, R: Send + Sync>(
    items: &[T],
    most: usize,
    begin: impl Fn() -> S + Sync,
    of: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let found: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut state = begin();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(one)) = (items.get(place), found.get(place)) else { return };
            let _ = one.set(of(&mut state, item));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..most.min(items.len()) {
            // Where the system has no thread left, the others do the work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    // A thread that panics has ended this one by now.
    found.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// The same of what can fail, with one thread where there are few.
///
/// # Errors
/// One of those that it returns. The things that are left are not looked at then.
pub(super) fn try_for_each<T: Sync, R: Send + Sync>(
    items: &[T],
    of: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    const MANY: usize = 64;
    if items.len() < MANY {
        return items.iter().map(of).collect();
    }
    let has_failed = AtomicBool::new(false);
    let found = for_each(
        items,
        || (),
        |(), item| {
            let goes_on = !has_failed.load(Ordering::Relaxed);
            goes_on.then(|| of(item).inspect_err(|_| has_failed.store(true, Ordering::Relaxed)))
        },
    );
    found.into_iter().flatten().collect()
}

/// What these two return, at the same time: the first one on a thread of its own.
pub(crate) fn at_once<A: Send, B>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    let first = Mutex::new(Some(first));
    let work = || {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| unreachable!("it is done once"), |first| first())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        let second = second();
        let first = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // Where the system has no thread for it, here.
            Err(_) => work(),
        };
        (first, second)
    })
}

/// Whether this holds for all of these, by several threads: nearly all of the time is that of system calls.
pub(super) fn all_in_parallel<T: Sync>(items: &[T], holds: impl Fn(&T) -> bool + Sync) -> bool {
    /// A thread for fewer would take longer than it saves.
    const FEWEST: usize = 500;
    let part = items.len().div_ceil(machine::threads().min(4)).max(FEWEST);
    let Some((first, rest)) = items.split_at_checked(part) else {
        return items.iter().all(&holds);
    };
    std::thread::scope(|scope| {
        let started = rest.chunks(part).map(|part| {
            let thread = std::thread::Builder::new();
            (part, thread.spawn_scoped(scope, || part.iter().all(&holds)))
        });
        let started: Vec<_> = started.collect();
        let mut all_hold = first.iter().all(&holds);
        for (part, thread) in started {
            // Where the system has no thread for it, here.
            all_hold &= match thread {
                Ok(thread) => thread.join().unwrap_or(false),
                Err(_) => part.iter().all(&holds),
            };
        }
        all_hold
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_has_its_result_at_its_place() {
        for length in [0, 1, 63, 64, 1000] {
            let numbers: Vec<usize> = (0..length).collect();
            let doubled: Vec<usize> = numbers.iter().map(|number| number * 2).collect();
            assert_eq!(for_each(&numbers, || 2, |factor, number| number * *factor), doubled);
            let found = try_for_each(&numbers, |number| Ok(number * 2));
            assert_eq!(found.expect("none fails"), doubled);
            let fails = |wrong: usize| {
                try_for_each(&numbers, |number| {
                    anyhow::ensure!(*number != wrong, "the number {number}");
                    Ok(())
                })
            };
            for wrong in (0..length).step_by(31) {
                let error = fails(wrong).expect_err("one fails").to_string();
                assert_eq!(error, format!("the number {wrong}"));
            }
        }
    }

    #[test]
    fn two_things_are_done_at_once() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (sent, received) = at_once(move || sender.send(7), || receiver.recv());
        assert_eq!((sent, received), (Ok(()), Ok(7)));
    }

    #[test]
    fn all_of_many_are_asked() {
        for length in [0, 1, 499, 500, 501, 1000, 2001, 5000] {
            let numbers: Vec<usize> = (0..length).collect();
            assert!(all_in_parallel(&numbers, |number| *number < length), "{length}");
            for wrong in [0, length / 2, length.saturating_sub(1)] {
                assert_eq!(all_in_parallel(&numbers, |number| *number != wrong), length == 0);
            }
        }
    }
}
