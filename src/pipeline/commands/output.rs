//! What commands print: results to standard output, remarks to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::anyhow;

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
    print_raw_while_read(bytes).map(drop)
}

/// The same. Returns whether somebody still reads it.
pub(crate) fn print_raw_while_read(bytes: &[u8]) -> anyhow::Result<bool> {
    if !std::io::stdout().is_terminal() {
        return print_exact(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
        Some(line) => visible::without_colours(line.trim_end_matches('\r')) + "\n",
        None => visible::without_colours(line),
    });
    print_while_read(&lines.collect::<String>())
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
