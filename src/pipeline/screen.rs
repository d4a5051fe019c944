//! The terminal: how large it is, and a page on it that is drawn again in place.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use terminal_size::{Height, Width, terminal_size_of};

use crate::{visible, width};

/// A second page, so that what is on the terminal comes back afterwards; lines that are too long are not continued.
const OPEN: &str = "\u{1b}[?1049h\u{1b}[?7l\u{1b}[?25l";
const CLOSE: &str = "\u{1b}[?25h\u{1b}[?7h\u{1b}[?1049l";
/// To the first place, and what is left of an earlier page below.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

/// How often a request to end, or another size, is looked for.
const POLL: Duration = Duration::from_millis(50);

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The size of the terminal that standard output is. `None` where it is not one, or where nobody knows its size.
pub(crate) fn of_output() -> Option<Size> {
    let output = io::stdout();
    if !output.is_terminal() {
        return None;
    }
    size(output)
}

/// The size of the terminal that standard error is, or one that is usual.
pub(crate) fn of_errors() -> Size {
    size(io::stderr()).unwrap_or(Size { width: 80, height: 24 })
}

/// Whether standard error is a terminal on which something can be drawn again.
pub(crate) fn errors_can_be_drawn() -> bool {
    io::stderr().is_terminal() && can_be_drawn()
}

/// Whether standard output is a terminal on which something can be drawn again.
pub(crate) fn output_can_be_drawn() -> bool {
    io::stdout().is_terminal() && can_be_drawn()
}

fn can_be_drawn() -> bool {
    std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

fn size(terminal: impl AsFd) -> Option<Size> {
    let (Width(width), Height(height)) = terminal_size_of(terminal)?;
    // A terminal that does not know its size says 0.
    (width > 0 && height > 0).then_some(Size { width: width.into(), height: height.into() })
}

/// Requests to end, which somebody must look for while this exists.
pub(crate) struct Requests {
    asked: Arc<AtomicBool>,
    handlers: Vec<SigId>,
}

impl Requests {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let register = |signal| signal_hook::flag::register(signal, Arc::clone(&asked));
        let handlers = [SIGINT, SIGTERM, SIGHUP].into_iter().map(register);
        let handlers = handlers.collect::<io::Result<_>>().context("cannot listen for signals")?;
        Ok(Self { asked, handlers })
    }

    /// Waits for so long, or until `is_over` or a request. Returns whether there was a request.
    pub(crate) fn wait(&self, time: Duration, mut is_over: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.asked.load(Ordering::Relaxed) {
                return true;
            }
            if left.is_zero() || is_over() {
                return false;
            }
            std::thread::sleep(left.min(POLL));
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// A page on standard output, which is a terminal. What was there before comes back when it is dropped.
pub(crate) struct Page(());

impl Page {
    pub(crate) fn open() -> io::Result<Self> {
        let page = Self(());
        write(OPEN)?;
        Ok(page)
    }

    /// Draws these lines, which this program may have coloured, over the last ones. In one step, so that nothing flickers.
    pub(crate) fn draw(&self, lines: &[String], size: Size) -> io::Result<()> {
        let shown = lines.iter().take(size.height);
        let shown: Vec<String> =
            shown.map(|line| format!("{}{CLEAR_LINE}", visible::coloured(line))).collect();
        write(&format!("{HOME}{}{CLEAR_BELOW}", shown.join("\r\n")))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = write(CLOSE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A line, cut to the width of a terminal.
pub(crate) fn cut(line: &str, size: Size) -> String {
    width::cut_end(&visible::line(line), size.width)
}
