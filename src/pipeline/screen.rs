//! The terminal: how large it is, and a page on it that is drawn again in place.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use terminal_size::{Height, Width, terminal_size_of};

use crate::{visible, width};

/// A second page, so that what is on the terminal comes back afterwards; lines that are too long are not continued.
const OPEN: &str = "\u{1b}[?1049h\u{1b}[?7l\u{1b}[?25l";
const CLOSE: &str = "\u{1b}[?25h\u{1b}[?7h\u{1b}[?1049l";
/// To the first place, and what is left of an earlier page below.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

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

/// Whether there is a page now.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// A page on standard output, which is a terminal. What was there before comes back when it is dropped.
pub(crate) struct Page(());

impl Page {
    pub(crate) fn open() -> io::Result<Self> {
        let page = Self(());
        IS_OPEN.store(true, Ordering::Relaxed);
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
        if IS_OPEN.swap(false, Ordering::Relaxed) {
            let _ = write(CLOSE);
        }
    }
}

/// What was there before comes back, regardless of what another thread is writing: this process ends. Not where the terminal takes nothing now.
pub(crate) fn leave_page() {
    let mut output = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the one that it looks at, and writes to, is ours.
    let mut takes_text = || unsafe { libc::poll(&raw mut output, 1, 0) } == 1;
    if IS_OPEN.swap(false, Ordering::Relaxed) && takes_text() {
        let _ = rustix::io::write(io::stdout(), CLOSE.as_bytes());
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
