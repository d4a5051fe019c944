//! Requests to this process to stop or to pause: which signals are one is decided here, and nowhere else.
//!
//! One thread hears them, and passes each to whoever began to listen last. Before the first one listens, signals do what they always
//! do. After the last one, and where it does not take a request, that is obeyed at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGSTOP, SIGTERM, SIGTSTP};
use signal_hook::iterator::{Handle, Signals};

use crate::{machine, screen};

/// What a shell reports for a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Two signals within this time are one request to stop: `timeout`, for one, signals the program, and then its
/// whole group.
const ECHO: Duration = Duration::from_millis(250);
/// How often somebody who waits looks for a request.
const POLL: Duration = Duration::from_millis(50);

/// Under nohup, and in a shell without job control, these stay ignored.
const OPTIONAL: [i32; 2] = [SIGHUP, SIGTSTP];

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// By this signal.
    Stop(i32),
    Pause,
}

impl Request {
    /// Does it, regardless of what this process is doing: what is half done is left as by a crash.
    fn obey(self) {
        match self {
            Self::Stop(_) => {
                screen::leave_page();
                std::process::exit(INTERRUPTED.into())
            }
            Self::Pause => drop(can_be_continued().then(|| signal_hook::low_level::raise(SIGSTOP))),
        }
    }
}

/// Whoever listens: returns whether it takes the request.
type Take = Box<dyn FnMut(Request) -> bool + Send>;

/// Who listens, each with a number; and what adds signals, once there is the thread that hears them.
struct State {
    listeners: Vec<(u64, Take)>,
    number: u64,
    handle: Option<Handle>,
}

static STATE: Mutex<State> = Mutex::new(State { listeners: Vec::new(), number: 0, handle: None });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM, SIGHUP and these others are requests to this process, until it ends. SIGTSTP is one to pause.
pub(crate) fn hear(others: &[i32]) -> anyhow::Result<()> {
    hear_unless_ignored(&OPTIONAL, others)
}

/// The same; of these, those that this process was started without stay ignored.
fn hear_unless_ignored(optional: &[i32], others: &[i32]) -> anyhow::Result<()> {
    let mut state = state();
    let handle = match state.handle.take() {
        Some(handle) => handle,
        None => start()?,
    };
    let is_heard = |signal: &&i32| !optional.contains(signal) || !is_ignored(**signal);
    let mut wanted = [SIGINT, SIGTERM, SIGHUP].iter().chain(others).filter(is_heard);
    let added = wanted.try_for_each(|signal| handle.add_signal(*signal));
    state.handle = Some(handle);
    added.context("cannot listen to signals")
}

/// Starts the thread.
fn start() -> anyhow::Result<Handle> {
    let mut signals = Signals::new([0; 0]).context("cannot listen to signals")?;
    let handle = signals.handle();
    machine::spawn("signals", move || {
        let mut last: Option<Instant> = None;
        for signal in &mut signals {
            let request = match signal {
                SIGTSTP => Request::Pause,
                _ if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < ECHO) => {
                    continue;
                }
                signal => Request::Stop(signal),
            };
            let is_taken = state().listeners.last_mut().is_some_and(|(_, take)| take(request));
            if !is_taken {
                request.obey();
            }
        }
    })?;
    Ok(handle)
}

/// Listens until it is dropped.
pub(crate) struct Listener(u64);

impl Listener {
    /// From now on `take` gets the requests, also by these other signals. It must not wait for anything.
    pub(crate) fn start(
        others: &[i32],
        take: impl FnMut(Request) -> bool + Send + 'static,
    ) -> anyhow::Result<Self> {
        hear(others)?;
        Ok(Self::new(Box::new(take)))
    }

    fn new(take: Take) -> Self {
        let mut state = state();
        state.number += 1;
        let number = state.number;
        state.listeners.push((number, take));
        Self(number)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        state().listeners.retain(|(number, _)| *number != self.0);
    }
}

/// Whether somebody has asked to stop, for whoever looks now and then. Whoever asks twice does not wait for that.
pub(crate) struct StopFlag {
    asked: Arc<AtomicBool>,
    _listener: Listener,
}

impl StopFlag {
    /// Beside others in the background of a script, Ctrl-C is not for this process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        hear_unless_ignored(&[SIGINT, SIGHUP], &[])?;
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        let take = move |request| request != Request::Pause && !flag.swap(true, Ordering::Relaxed);
        Ok(Self { asked, _listener: Listener::new(Box::new(take)) })
    }

    /// It is set once somebody has asked.
    pub(crate) fn asked(&self) -> &AtomicBool {
        &self.asked
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits for so long, or until `is_over` or a request. Returns whether there was a request.
    pub(crate) fn wait(&self, time: Duration, mut is_over: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.is_asked() {
                return true;
            }
            if left.is_zero() || is_over() {
                return false;
            }
            std::thread::sleep(left.min(POLL));
        }
    }
}

/// Whether somebody could continue this process after a pause: its parent belongs to its session. The system itself stops no other
/// process at Ctrl-Z. In a container the number of the parent can be zero, and that of the session: they are outside of it.
pub(crate) fn can_be_continued() -> bool {
    // SAFETY: these calls only return numbers.
    let (parent, own) = unsafe { (libc::getppid(), libc::getsid(0)) };
    // For the process zero, it would be that of whoever asks.
    // SAFETY: as above.
    let of_parent = if parent == 0 { 0 } else { unsafe { libc::getsid(parent) } };
    of_parent == own
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with no new action the call only writes the present one, to memory that is ours.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
