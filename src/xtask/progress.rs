//! How far a long step is: a bar on a terminal, now and then a plain line elsewhere. The only file that names
//! indicatif. Does not know what the bytes are.

use crate::needs::megabytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Seconds between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Shows how many of a known number of bytes are done.
pub struct Progress {
    what: String,
    total: u64,
    started: Instant,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Starts at zero bytes of `total`. `what` names the step: `torch 2.11.0`.
    pub fn new(what: &str, total: u64) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template =
                "  {msg} [{bar:24}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(what.to_owned());
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: Instant::now() }
        };
        Self { what: what.to_owned(), total, started: Instant::now(), shown }
    }

    /// Says how many bytes are done by now.
    pub fn set(&mut self, bytes: u64) {
        let bytes = bytes.min(self.total);
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(bytes),
            Shown::Lines { last } => {
                if last.elapsed() >= PLAIN_EVERY {
                    *last = Instant::now();
                    eprintln!(
                        "{}",
                        plain_line(&self.what, bytes, self.total, self.started.elapsed())
                    );
                }
            }
        }
    }
}

/// The bar goes away however the step ends, so that the next line starts at a clean place.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn plain_line(what: &str, bytes: u64, total: u64, elapsed: Duration) -> String {
    format!("  {what}: {} of {} after {}", megabytes(bytes), megabytes(total), seconds(elapsed))
}

/// A time for people: `0.4 s`, `12 s`, `3 min 20 s`.
pub fn seconds(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0..10 => format!("{:.1} s", elapsed.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (milliseconds, text) in
            [(0, "0.0 s"), (430, "0.4 s"), (12_900, "12 s"), (200_000, "3 min 20 s")]
        {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn a_plain_line_says_how_much_of_what() {
        let line = plain_line("torch 2.11.0", 231_000_000, 530_604_548, Duration::from_secs(20));
        assert_eq!(line, "  torch 2.11.0: 231 MB of 531 MB after 20 s");
    }
}
