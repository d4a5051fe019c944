//! Text from elsewhere on a terminal: what would move the cursor, hide or reorder letters is shown escaped.
//!
//! Used where text is written for people, and in JSON, whose escapes change nothing; inside the program, text is unchanged.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Text of several lines: all but their ends and tabs is escaped.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escape(text, |letter| !matches!(letter, '\n' | '\t') && is_hidden(letter))
}

/// A name, or a cell of a table: it cannot begin a line of its own.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_hidden)
}

/// Writes such a text to standard error, as a line or several: what is said beside the output of a command, or of a run.
pub(crate) fn note(remark: &str) {
    // Where it is closed, nobody reads it.
    let _ = writeln!(io::stderr(), "{}", text(remark));
}

/// JSON that means the same, with escapes of its own.
pub(crate) fn json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        // Outside texts there are line ends and spaces only.
        if letter != '\n' && is_hidden(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// As [`text`], for a text that this program has coloured.
pub(crate) fn coloured(coloured: &str) -> String {
    let mut shown = String::new();
    let mut rest = coloured;
    while let Some(at) = rest.find("\u{1b}[") {
        let (before, sequence) = rest.split_at(at);
        let end = sequence.find(|letter: char| letter.is_ascii_alphabetic());
        let Some(end) = end.filter(|&end| sequence[end..].starts_with('m')) else { break };
        shown.push_str(&text(before));
        shown.push_str(&sequence[..=end]);
        rest = &sequence[end + 1..];
    }
    shown.push_str(&text(rest));
    shown
}

/// A line of a program's log without the sequences that colour it.
pub(crate) fn without_colours(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string()
}

/// C0 and C1 controls, and Unicode's marks, embeddings, overrides and isolates of direction, line separators, tags and
/// letters without width. Not the two joiners, which some languages need.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(letter, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escape(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if hidden(letter) {
            let _ = write!(shown, "{}", letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ "a\u{9b}": ["\u{202e}b", "\u{e0041}", "日本語\n"] });
        let shown = json(&format!("{value:#}"));
        assert!(!shown.contains(|letter| letter != '\n' && is_hidden(letter)), "{shown}");
        assert!(shown.contains("\\u202e") && shown.contains("\\udb40\\udc41"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        for (from, to) in [
            ("plain, zwölf, 日本語, می‌خواهم", "plain, zwölf, 日本語, می‌خواهم"),
            ("a\tb\nc", "a\tb\nc"),
            ("\u{1b}[2J\u{7}\r\u{8}\0\u{7f}", "\\u{1b}[2J\\u{7}\\r\\u{8}\\u{0}\\u{7f}"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            ("x\u{202e}gpj.\u{2069}", "x\\u{202e}gpj.\\u{2069}"),
            ("a\u{200b}b\u{feff}c\u{e0041}", "a\\u{200b}b\\u{feff}c\\u{e0041}"),
        ] {
            assert_eq!(text(from), to);
        }
        assert_eq!(line("a\nFAIL b"), "a\\nFAIL b");
    }

    #[test]
    fn only_colours_pass_through_a_coloured_text() {
        let red = "\u{1b}[31;1mred\u{1b}[0m";
        assert_eq!(coloured(red), red);
        assert_eq!(coloured(&format!("{red} \u{1b}[2J {red}")).matches("\\u{1b}").count(), 3);
        assert_eq!(coloured("\u{1b}[\u{1b}]0;title\u{7}"), "\\u{1b}[\\u{1b}]0;title\\u{7}");
        assert_eq!(coloured("\u{1b}["), "\\u{1b}[");
    }

    #[test]
    fn colours_of_a_program_are_left_out() {
        let line =
            without_colours("\u{1b}[1;31mError\u{1b}[0m: \u{1b}]0;title\u{7}no\u{1b}[K file");
        assert_eq!(line, "Error: no file");
    }
}
