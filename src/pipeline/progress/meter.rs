//! How far one long piece of work is that is counted in bytes: a bar on a terminal, a line from time to time elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipeline_stages::message::Unit;

use super::rate::Rate;
use crate::format;
use crate::visible::note;

/// How often a line is written where no bar can be drawn.
const INTERVAL: Duration = Duration::from_secs(10);

/// Shows how many bytes are done.
pub(crate) struct Meter {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    rate: Rate,
    last: Instant,
}

impl Meter {
    /// Nothing is done yet. `what` is the verb: what is done with the bytes.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            // The template is a constant; one that indicatif cannot read shows the plain style.
            let style =
                ProgressStyle::with_template("      {prefix:16!} {bar:28.cyan/dim} {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸─"));
            bar.with_prefix(what)
        });
        Self { what, total, bar, rate: Rate::default(), last: Instant::now() }
    }

    /// This many bytes are done.
    pub(crate) fn update(&mut self, done: u64) {
        self.rate.update(done);
        let rate = self.rate.per_second().map_or(String::new(), |rate| {
            format!(", {}/s", format::amount(rate as u64, Unit::Bytes))
        });
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            let (done, total) = (format::bytes(done), format::bytes(self.total));
            bar.set_message(format!("{done} of {total}{rate}"));
        } else if self.last.elapsed() >= INTERVAL {
            self.last = Instant::now();
            let percent = 100 * done / self.total.max(1);
            note(&format!("      {}: {percent} %{rate}", self.what));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
