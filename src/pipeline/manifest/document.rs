//! The text of a manifest, and the values of `--set`, as one tree with spans.
//!
//! Does not depend on what a manifest must have.

use toml::de::DeTable;

use super::brackets::Unclosed;
use super::overrides::Override;
use crate::diagnostic::{MOST_SHOWN, Mistake, Sources, Span};

/// A manifest as a tree.
pub(super) struct Document<'i> {
    /// The tree, with the overrides in it.
    pub(super) root: DeTable<'i>,
    /// Where a value is not TOML, so that the tree has a guess in its place.
    broken: Places,
}

impl Document<'_> {
    /// Whether the mistake is about something that the tree only guesses.
    pub(super) fn is_guess(&self, mistake: &Mistake) -> bool {
        mistake.span().is_some_and(|span| self.broken.touch(span))
    }
}

/// Places in a text that do not overlap, in order.
struct Places(Vec<Span>);

impl Places {
    fn new(mut places: Vec<Span>) -> Self {
        places.sort_by_key(|place| place.start);
        places.dedup_by(|next, last| {
            let overlaps = next.start <= last.end;
            if overlaps {
                last.end = last.end.max(next.end);
            }
            overlaps
        });
        Self(places)
    }

    fn touch(&self, span: &Span) -> bool {
        let first = self.0.partition_point(|place| place.end < span.start);
        self.0.get(first).is_some_and(|place| place.start <= span.end)
    }

    fn hold(&self, span: &Span) -> bool {
        let first = self.0.partition_point(|place| place.end < span.end);
        self.0.get(first).is_some_and(|place| place.start < span.start)
    }
}

/// The tree of `text` with `overrides` put into it. `None` if too much of the text is not TOML.
pub(super) fn parse<'i>(
    text: &'i str,
    overrides: &'i [Override],
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<Document<'i>> {
    let (root, mut errors) = DeTable::parse_recoverable(text);
    let mut root = root.into_inner();
    let unclosed = if errors.is_empty() { None } else { Unclosed::find(text) };
    // After any other error, parts of the tree are missing, and mistakes about the rest would be wrong.
    let is_local = |error: &toml::de::Error| is_duplicate(error) || is_of_one_value(error);
    let whole = unclosed.is_none() && errors.iter().all(is_local);
    if let Some(unclosed) = unclosed {
        let place = |error: &toml::de::Error| error.span().unwrap_or(text.len()..text.len());
        errors.retain(|error| !unclosed.hides(&place(error), is_of_text(error)));
        // Text without its last quote takes the bracket with it.
        let is_why = |error: &toml::de::Error| is_of_text(error) && unclosed.holds(&place(error));
        if !errors.iter().any(is_why) {
            mistakes.push(unclosed.mistake());
        }
    }
    let broken = broken_places(&errors, text);
    mistakes.extend(errors.iter().filter_map(|error| syntax_mistake(error, text, &broken.tables)));
    for given in overrides {
        let start = given.add_to(sources);
        if whole {
            let is_shown = mistakes.len() < MOST_SHOWN;
            mistakes.extend(given.apply(&mut root, start, is_shown).err());
        }
    }
    whole.then_some(Document { root, broken: broken.all })
}

/// Where the tree only guesses.
struct Broken {
    /// Tables that are defined twice: the keys of the second are then put into the first.
    tables: Places,
    /// These, and values that are not TOML.
    all: Places,
}

fn broken_places(errors: &[toml::de::Error], text: &str) -> Broken {
    let (mut tables, mut values) = (Vec::new(), Vec::new());
    let headers: Vec<usize> = text.match_indices("\n[").map(|(end, _)| end).collect();
    for error in errors {
        let Some(span) = error.span() else { continue };
        if is_of_one_value(error) {
            values.push(span);
        } else if is_duplicate(error) {
            let next = headers.partition_point(|&end| end < span.end);
            let header =
                next.checked_sub(1).and_then(|last| headers.get(last)).map_or(0, |end| end + 1);
            let before = text.get(header..span.start).unwrap_or_default();
            // Not a key on a line below the header.
            if before.starts_with('[') && !before.contains('\n') {
                tables.push(span.end..headers.get(next).copied().unwrap_or(text.len()));
            }
        }
    }
    values.extend(tables.iter().cloned());
    Broken { tables: Places::new(tables), all: Places::new(values) }
}

/// Whether the error is a key that is defined twice. It leaves the tree whole.
fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// Whether the error is within one value, so that the rest of the tree is whole.
fn is_of_one_value(error: &toml::de::Error) -> bool {
    let starts =
        ["string values must be quoted", "invalid boolean", "invalid float", "invalid integer"];
    starts.iter().any(|start| error.message().starts_with(start))
}

/// Whether the error is in a text in quotes.
fn is_of_text(error: &toml::de::Error) -> bool {
    let starts = ["invalid basic string", "invalid literal string"];
    starts.iter().any(|start| error.message().starts_with(start))
}

/// The mistake in plain words. `None` if it only follows from a table that is defined twice.
fn syntax_mistake(error: &toml::de::Error, text: &str, tables: &Places) -> Option<Mistake> {
    let span = error.span().unwrap_or(text.len()..text.len());
    let there = text.get(span.clone()).unwrap_or_default();
    if is_duplicate(error) {
        let follows = tables.hold(&span);
        let mistake = Mistake::at(span, format!("'{there}' is defined twice"));
        return (!follows).then(|| mistake.help("remove one of them, or rename it"));
    }
    let (title, help) = plain_syntax(error.message(), there);
    Some(Mistake::at(span, title).help(help))
}

const STRING: (&str, &str) = (
    "this text is not closed, or has a character that is not allowed",
    "text on one line is in one pair of quotes: \"text\"",
);
const ESCAPE: (&str, &str) =
    ("a '\\' in text starts an escape sequence", "write '\\\\', or put the text in single quotes");
const VALUE: (&str, &str) =
    ("this key has no value", "write key = 3, key = \"text\" or key = true");
const NUMBER: (&str, &str) =
    ("this is not a number, and text must be in quotes", "numbers look like 3, 0.1 or 1e-4");
const HEADER: (&str, &str) =
    ("the table's header is not closed", "it ends with ']': [stages.train]");
const EQUALS: (&str, &str) =
    ("there is one '=' too many or too few", "write one line for each key: key = \"value\"");
const KEY: (&str, &str) =
    ("this is not a key", "a key has letters, digits, '-' and '_'; any other is in quotes");
const OPENING: (&str, &str) =
    ("this closes a bracket that was not opened", "drop it, or write the bracket that opens it");
const LIST_COMMA: (&str, &str) =
    ("a comma is missing in the list", "its items have commas between them: [\"a\", \"b\"]");
const TABLE_COMMA: (&str, &str) =
    ("a comma is missing in the table", "its items have commas between them: { a = 1, b = 2 }");
const COMMA: (&str, &str) = ("there is one comma too many", "drop it");
const DEEP: (&str, &str) =
    ("this is nested too deeply", "no value of a manifest needs more than a few levels");
const LINE: (&str, &str) =
    ("the line should end here", "each key has a line of its own: key = \"value\"");

/// What the messages of the parser start with, and the words that replace it: what is wrong, and what to do.
const PLAIN: &[(&str, (&str, &str))] = &[
    ("invalid float", NUMBER),
    ("invalid integer", NUMBER),
    ("invalid binary", NUMBER),
    ("invalid octal", NUMBER),
    ("invalid hexadecimal", NUMBER),
    ("invalid exponent", NUMBER),
    ("invalid fraction", NUMBER),
    ("invalid mantissa", NUMBER),
    ("integers with a radix", NUMBER),
    ("radix must be", NUMBER),
    ("unexpected leading zero", NUMBER),
    ("unexpected sign", NUMBER),
    ("redundant", NUMBER),
    ("`_` may only", NUMBER),
    ("missing value", VALUE),
    ("key with no value", VALUE),
    ("invalid value", VALUE),
    ("invalid basic string", STRING),
    ("invalid literal string", STRING),
    ("missing opening quote", STRING),
    (
        "invalid multi-line",
        (
            "this text is not closed, or has a character that is not allowed",
            "text on several lines is between triple quotes: \"\"\"text\"\"\"",
        ),
    ),
    ("invalid string", STRING),
    ("missing escaped value", ESCAPE),
    ("too few unicode", ESCAPE),
    ("invalid escape", ESCAPE),
    ("unclosed table", HEADER),
    ("unclosed array table", HEADER),
    ("unclosed array", ("the list is not closed", "it ends with ']': [\"a\", \"b\"]")),
    ("unclosed inline table", ("the table is not closed", "it ends with '}': { a = 1 }")),
    ("missing comma between array", LIST_COMMA),
    ("missing comma between key", TABLE_COMMA),
    ("extra comma", COMMA),
    ("missing assignment", EQUALS),
    ("extra assignment", EQUALS),
    ("extra `=`", EQUALS),
    ("unexpected `=`", EQUALS),
    ("missing key", KEY),
    ("invalid unquoted key", KEY),
    ("unquoted keys", KEY),
    ("keys cannot", KEY),
    ("invalid key", KEY),
    ("invalid inline table element", KEY),
    ("missing inline table opening", OPENING),
    ("missing array opening", OPENING),
    ("missing table open", OPENING),
    ("cannot recurse", DEEP),
    ("recursion limit", DEEP),
    ("unexpected", LINE),
    (
        "cannot extend",
        (
            "this is already a value, so it cannot have keys of its own",
            "write it once, as a value or as a table",
        ),
    ),
    ("invalid table", HEADER),
    (
        "invalid comment",
        ("a comment has a control character", "drop it: an editor may not show it"),
    ),
    (
        "carriage return",
        ("a carriage return without a newline", "save the file with line ends of one kind"),
    ),
    // What remains of these is a date or a time.
    (
        "invalid",
        ("this is not a number, a date or a time, and text must be in quotes", "write \"text\""),
    ),
];

/// The parser's message and what to do about it, in plain words. `there` is the text that it is about.
fn plain_syntax(message: &str, there: &str) -> (String, String) {
    let own = |(title, help): (&str, &str)| (title.to_owned(), help.to_owned());
    if message.starts_with("string values must be quoted") || message.starts_with("invalid boolean")
    {
        if there.is_empty() {
            return own(VALUE);
        }
        let quoted =
            if there.contains(['"', '\\']) { format!("'{there}'") } else { format!("{there:?}") };
        return ("text must be in quotes".to_owned(), format!("write {quoted}"));
    }
    let found = PLAIN.iter().find(|(start, _)| message.starts_with(start));
    own(found.map_or(("this is not TOML", "https://toml.io shows what is"), |(_, words)| *words))
}
