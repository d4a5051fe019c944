//! Colours for people: whether there are any, and which one a state has.
//!
//! What a word means is never in its colour alone.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// The option that decides, regardless of the terminal and the environment.
const OPTION: &str = "--color";

/// What the option says among these words of a command line. It is read before the command line is, as the help and
/// mistakes in the command line have colours, too.
pub(crate) fn asked(words: impl Iterator<Item = OsString>) -> clap::ColorChoice {
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    let mut asked = clap::ColorChoice::Auto;
    while let Some(word) = words.next().filter(|word| word != "--") {
        let value = match word.strip_prefix(OPTION) {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        asked = match value.as_deref() {
            Some("always") => clap::ColorChoice::Always,
            Some("never") => clap::ColorChoice::Never,
            Some("auto") => clap::ColorChoice::Auto,
            _ => asked,
        };
    }
    asked
}

/// From now on, both streams of this process have colours, or none, or those that fit to them and the environment.
pub(crate) fn choose(choice: clap::ColorChoice) {
    let choice = match choice {
        clap::ColorChoice::Auto => ColorChoice::Auto,
        clap::ColorChoice::Always => ColorChoice::Always,
        clap::ColorChoice::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// Whether standard output has colours.
pub(crate) fn is_for_output() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Whether standard error has colours.
pub(crate) fn is_for_errors() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// How a state looks, by its word or its symbol. `None` for what is not a state.
fn style(state: &str) -> Option<Style> {
    let colour = match state {
        "fresh" | "remote" | "ran" | "shared" | "complete" | "●" | "◍" => AnsiColor::Green,
        "dirty" | "to run" | "○" => AnsiColor::Yellow,
        "running" | "queued" | "left" | "following" | "detached" => AnsiColor::Cyan,
        "interrupted" | "stopped" => AnsiColor::Magenta,
        "failed" | "killed" | "blocked" | "⊘" => AnsiColor::Red,
        "waiting" | "skipped" | "◌" => return Some(Style::new().dimmed()),
        _ => return None,
    };
    Some(colour.on_default())
}

/// The states in a cell of a table, coloured: `fresh`, `ran, same bytes`, `3: 1 fresh, 2 to run`, `● train`.
pub(crate) fn states(cell: &str) -> Cow<'_, str> {
    let mut coloured = String::new();
    let mut rest = cell;
    while !rest.is_empty() {
        let end = rest.find([',', ';', ':']).map_or(rest.len(), |at| at + 1);
        let (part, after) = rest.split_at(end);
        coloured.push_str(&part_of_a_cell(part));
        rest = after;
    }
    Cow::Owned(coloured)
}

/// A count, if there is one, a state, and what ends it.
fn part_of_a_cell(part: &str) -> String {
    let text = part.trim_end_matches([',', ';', ':', ' ']);
    let start = text.len()
        - text.trim_start_matches(|letter: char| letter == ' ' || letter.is_ascii_digit()).len();
    let word = &text[start..];
    let symbol = word.chars().next().map_or("", |first| &word[..first.len_utf8()]);
    let painted = if style(word).is_some() { word } else { symbol };
    let Some(style) = style(painted) else { return part.to_owned() };
    let mut coloured = part[..start].to_owned();
    let _ = write!(coloured, "{style}{painted}{style:#}{}", &part[start + painted.len()..]);
    coloured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_coloured_and_nothing_else() {
        let shown = |cell: &str| {
            let text =
                states(cell).replace("\u{1b}[32m", "<green>").replace("\u{1b}[33m", "<yellow>");
            text.replace("\u{1b}[2m", "<dim>").replace("\u{1b}[0m", "</>")
        };
        for (cell, text) in [
            ("fresh", "<green>fresh</>"),
            ("ran, same bytes", "<green>ran</>, same bytes"),
            ("● train", "<green>●</> train"),
            (
                "140: 3 fresh, 97 to run, 40 waiting; never ran",
                "140: 3 <green>fresh</>, 97 <yellow>to run</>, 40 <dim>waiting</>; never ran",
            ),
            ("refreshed, freshly 3", "refreshed, freshly 3"),
            ("", ""),
            (",;: 7", ",;: 7"),
        ] {
            assert_eq!(shown(cell), text);
        }
    }

    #[test]
    fn the_option_is_found_wherever_it_is() {
        let asked = |line: &str| asked(line.split(' ').map(OsString::from));
        assert_eq!(asked("pipeline run"), clap::ColorChoice::Auto);
        assert_eq!(asked("pipeline --color never run"), clap::ColorChoice::Never);
        assert_eq!(asked("pipeline run --color=always --help"), clap::ColorChoice::Always);
        assert_eq!(asked("pipeline run --color"), clap::ColorChoice::Auto);
        assert_eq!(
            asked("pipeline run --colors=always -- --color always"),
            clap::ColorChoice::Auto
        );
        assert_eq!(asked("pipeline --color always --color perhaps"), clap::ColorChoice::Always);
    }
}
