//! What commands print: results to standard output, remarks to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::anyhow;

use crate::screen;
use crate::visible;
pub(crate) use crate::visible::note;

/// Writes text for people to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_while_read(text).map(drop)
}

/// Writes text for people that this program has coloured, where standard output has colours.
pub(crate) fn print_coloured(text: &str) -> anyhow::Result<()> {
    print_coloured_while_read(text).map(drop)
}

/// The same. Returns whether somebody still reads it.
pub(crate) fn print_coloured_while_read(text: &str) -> anyhow::Result<bool> {
    print_exact(visible::coloured(text).as_bytes())
}

/// As [`print`]. Returns whether somebody still reads it: for commands that would go on otherwise.
pub(crate) fn print_while_read(text: &str) -> anyhow::Result<bool> {
    print_exact(visible::text(text).as_bytes())
}

/// Writes what a program reads to standard output: as it is, but for a terminal. There, colours are left out, and what
/// else could act on the terminal is escaped.
pub(crate) fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() {
        return print_exact(bytes).map(drop);
    }
    let text = String::from_utf8_lossy(bytes);
    print(&each_line(&text, visible::without_colours))
}

/// A part of a log, in the same way. On a terminal, of a line that is written over again and again, as bars are, only what was written last
/// is shown. `goes_on`: whether the part goes on with the line that was shown last. Returns whether somebody still reads it.
pub(crate) fn print_log_while_read(part: &[u8], goes_on: bool) -> anyhow::Result<bool> {
    if !std::io::stdout().is_terminal() {
        return print_exact(part);
    }
    let text = String::from_utf8_lossy(part);
    let again = if screen::output_can_be_drawn() { "\r\u{1b}[K" } else { "\n" };
    if goes_on && begins_over(&text) && !print_exact(again.as_bytes())? {
        return Ok(false);
    }
    print_while_read(&each_line(&text, |line| visible::without_colours(at_last(line))))
}

/// A text with each of its lines, without its end, as this shows it.
fn each_line(text: &str, shown: impl Fn(&str) -> String) -> String {
    let lines = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
        Some(line) => shown(line.trim_end_matches('\r')) + "\n",
        None => shown(line),
    });
    lines.collect()
}

/// What is seen of a line at last that is written over.
fn at_last(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default()
}

/// Whether the first line of a text is written over what is before it.
fn begins_over(text: &str) -> bool {
    text.split_once('\n').map_or(text, |(line, _)| line.trim_end_matches('\r')).contains('\r')
}

/// Writes to standard output. It is not an error if nobody reads it any more (`| head`): returns whether somebody does.
fn print_exact(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        // Not with the error as its cause: advice for that would be about the cache.
        other => other
            .map(|()| true)
            .map_err(|error| anyhow!("cannot write to standard output: {error}")),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print_exact(visible::json(&format!("{value:#}\n")).as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_bar_the_last_state_is_shown() {
        for (part, shown, over) in [
            ("a\nb", "a\nb", false),
            ("a\r\nb\r\n", "a\nb\n", false),
            ("\r 1 %\r 2 %", " 2 %", true),
            ("1 %\r2 %\r", "2 %", true),
            ("\r 9 %\ndone\rDONE\n", " 9 %\nDONE\n", true),
            ("done\n\r 1 %", "done\n 1 %", false),
            ("", "", false),
        ] {
            let lines = each_line(part, |line| at_last(line).to_owned());
            assert_eq!((&*lines, begins_over(part)), (shown, over), "{part:?}");
        }
    }
}
