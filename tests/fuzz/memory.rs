//! An allocator with a limit: a reader that takes more memory than it may ends the process where it does that.
//!
//! The limit on the whole process that libFuzzer has is too coarse: most bounds are below what the fuzzer itself takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with a count.
struct Limited;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Bytes that are allocated, of all threads.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// The most of them.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Runs `work`, which must not take more than these bytes in addition to what is taken already. Only one at a time.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    MOST.store(TAKEN.load(Relaxed).saturating_add(bytes), Relaxed);
    let result = work();
    MOST.store(usize::MAX, Relaxed);
    result
}

fn take(bytes: usize) {
    let taken = TAKEN.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    let most = MOST.load(Relaxed);
    if taken > most {
        MOST.store(usize::MAX, Relaxed);
        eprintln!("more memory than allowed: {taken} bytes of {most}, with the last {bytes}");
        // An allocator must not unwind.
        std::process::abort();
    }
}

fn give(bytes: usize) {
    TAKEN.fetch_sub(bytes, Relaxed);
}

// SAFETY: each call is the system's; counting does not allocate.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The system moves large blocks without a copy.
        take(size.saturating_sub(layout.size()));
        give(layout.size().saturating_sub(size));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}
