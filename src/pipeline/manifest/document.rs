//! The text of a manifest, and the values of `--set`, as one tree with spans.
//!
//! Does not depend on what a manifest must have.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::brackets::Unclosed;
use super::include::Included;
use super::overrides::{Override, shifted};
use super::syntax::{Fault, Faults};
use super::unquoted::{foreign, unquoted};
use super::values::{Value, not_a_table};
use crate::diagnostic::{MOST_SHOWN, Mistake, Sources, Span};

/// What an included file has.
pub(super) const INCLUDED_TABLES: [&str; 3] = ["include", "stages", "defaults"];

/// A manifest as a tree.
pub(super) struct Document<'i> {
    /// The tree, with the overrides in it.
    pub(super) root: DeTable<'i>,
    /// The values in whose place there are others from an override.
    pub(super) replaced: Vec<Value<'i>>,
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

/// The tree of `text`, with the stages and defaults of the `included` files and with `overrides` put into it. `None` if
/// too much of a text is not TOML.
pub(super) fn parse<'i>(
    text: &'i str,
    included: &'i [Included],
    overrides: &'i [Override],
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<Document<'i>> {
    let Parsed { mut root, mut whole, mut broken } = parse_text(text, 0, mistakes);
    for Included { text, start, .. } in included {
        let parsed = parse_text(text, *start, mistakes);
        whole &= parsed.whole;
        broken.extend(parsed.broken);
        if parsed.whole {
            merge(&mut root, parsed.root, mistakes);
        }
    }
    let mut replaced = Vec::new();
    for (place, given) in overrides.iter().enumerate() {
        let start = given.add_to(sources);
        if whole {
            let is_shown = mistakes.len() < MOST_SHOWN;
            match given.apply(&mut root, start, &overrides[..place], is_shown) {
                Ok(old) => replaced.extend(old),
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }
    whole.then_some(Document { root, replaced, broken: Places::new(broken) })
}

/// A text as a tree.
struct Parsed<'i> {
    root: DeTable<'i>,
    /// Whether nothing of it is missing.
    whole: bool,
    /// Where the tree only guesses.
    broken: Vec<Span>,
}

/// The tree of a text whose place in the sources begins at `start`.
fn parse_text<'i>(text: &'i str, start: usize, mistakes: &mut Vec<Mistake>) -> Parsed<'i> {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if text.contains("\r\n") {
        root.get_mut().iter_mut().for_each(|(_, value)| with_plain_lines(value, text));
    }
    let mut errors = typed(&errors, text);
    // Where lines end in it, nothing after the first one is read as it is meant.
    if let Some(first) = errors.iter().position(|error| error.fault == Fault::CarriageReturn) {
        errors.truncate(first + 1);
    }
    let unclosed = if errors.is_empty() { None } else { Unclosed::find(text) };
    // After any other error, parts of the tree are missing, and mistakes about the rest would be wrong.
    let is_local =
        |error: &SyntaxError| error.fault == Fault::Duplicate || error.fault.is_of_one_value();
    let whole = unclosed.is_none() && errors.iter().all(is_local);
    let mut found = Vec::new();
    if let Some(unclosed) = unclosed {
        errors.retain(|error| !unclosed.hides(&error.span, error.fault == Fault::Text));
        // Text without its last quote takes the bracket with it.
        let is_why =
            |error: &SyntaxError| error.fault == Fault::Text && unclosed.holds(&error.span);
        if !errors.iter().any(is_why) {
            found.push(unclosed.mistake());
        }
    }
    let broken = broken_places(&errors, text);
    match errors.first().and_then(|first| other_language(first, text)) {
        Some(mistake) => found = vec![mistake],
        None => {
            let mistakes = errors.iter().filter(|error| !follows_colon(error, &errors, text));
            found.extend(mistakes.filter_map(|error| syntax_mistake(error, text, &broken.tables)));
        }
    }
    mistakes.extend(found.into_iter().map(|mistake| mistake.moved(start)));
    let moved = |place: Span| place.start + start..place.end + start;
    let root = match start {
        0 => root.into_inner(),
        _ => match shifted(Spanned::new(0..0, DeValue::Table(root.into_inner())), start)
            .into_inner()
        {
            DeValue::Table(root) => root,
            _ => unreachable!("it is the table that it was"),
        },
    };
    Parsed { root, whole, broken: broken.all.0.into_iter().map(moved).collect() }
}

/// Ends the lines of each text on several lines as if all lines of the file ended in a newline alone, so that a checkout on another system
/// has the same values. What an escape stands for stays.
fn with_plain_lines(value: &mut Value<'_>, text: &str) {
    let span = value.span();
    match value.get_mut() {
        DeValue::Array(items) => items.iter_mut().for_each(|item| with_plain_lines(item, text)),
        DeValue::Table(table) => {
            table.iter_mut().for_each(|(_, value)| with_plain_lines(value, text));
        }
        DeValue::String(given) if given.contains("\r\n") => {
            let written = text.get(span).unwrap_or_default().replace("\r\n", "\n");
            if let Ok(read) = DeValue::parse(&written)
                && let DeValue::String(read) = read.into_inner()
            {
                *given = Cow::Owned(read.into_owned());
            }
        }
        _ => {}
    }
}

/// Puts the tree of an included file into that of the manifest.
fn merge<'i>(root: &mut DeTable<'i>, included: DeTable<'i>, mistakes: &mut Vec<Mistake>) {
    for (key, value) in included {
        match (key.get_ref().as_ref(), value.get_ref()) {
            (name, _) if !INCLUDED_TABLES.contains(&name) => {
                let what = if value.get_ref().is_table() { "table" } else { "key" };
                let title = format!("an included file cannot have the {what} '{name}'");
                mistakes.push(
                    Mistake::at(key.span(), title)
                        .help("it has [stages.NAME], [defaults.KIND] and include = [...]"),
                );
            }
            ("include", _) => {}
            (name, DeValue::Table(_)) => {
                let depth = if name == "stages" { 1 } else { 2 };
                merge_value(root, key, value, depth, mistakes);
            }
            (name, _) => mistakes.push(not_a_table(name, &value)),
        }
    }
}

/// Puts a value under a key; that of a table of this `depth` is put into the one that exists.
fn merge_value<'i>(
    table: &mut DeTable<'i>,
    key: Spanned<Cow<'i, str>>,
    value: Value<'i>,
    depth: usize,
    mistakes: &mut Vec<Mistake>,
) {
    let name: &str = key.as_ref();
    let Some((first, _)) = table.get_key_value(name) else {
        table.insert(key, value);
        return;
    };
    let first = first.span();
    let there = table.get_mut(name).map(Spanned::get_mut);
    match (depth, there, value) {
        (1.., Some(DeValue::Table(there)), value) if value.get_ref().is_table() => {
            if let DeValue::Table(new) = value.into_inner() {
                for (key, value) in new {
                    merge_value(there, key, value, depth - 1, mistakes);
                }
            }
        }
        _ => {
            let title = format!("'{name}' is defined twice");
            let mistake = Mistake::at(first, title).help("remove one of them, or rename it");
            mistakes.push(mistake.related(key.span(), "here too"));
        }
    }
}

/// Where the tree only guesses.
struct Broken {
    /// Tables that are defined twice: the keys of the second are then put into the first.
    tables: Places,
    /// These, and values that are not TOML.
    all: Places,
}

/// An error of the TOML parser.
struct SyntaxError {
    span: Span,
    fault: Fault,
}

fn typed(errors: &[toml::de::Error], text: &str) -> Vec<SyntaxError> {
    if errors.is_empty() {
        return Vec::new();
    }
    let mut faults = Faults::of(text);
    let typed = errors.iter().map(|error| SyntaxError {
        span: error.span().unwrap_or(text.len()..text.len()),
        fault: faults.next_at(error.span()),
    });
    typed.collect()
}

fn broken_places(errors: &[SyntaxError], text: &str) -> Broken {
    let (mut tables, mut values) = (Vec::new(), Vec::new());
    let headers: Vec<usize> = text.match_indices("\n[").map(|(end, _)| end).collect();
    for SyntaxError { span, fault } in errors {
        if fault.is_of_one_value() {
            values.push(span.clone());
        } else if *fault == Fault::Duplicate {
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

/// The mistake in plain words. `None` if it only follows from a table that is defined twice.
fn syntax_mistake(error: &SyntaxError, text: &str, tables: &Places) -> Option<Mistake> {
    let SyntaxError { span, fault } = error;
    let there = text.get(span.clone()).unwrap_or_default();
    let after = text.get(span.end..).unwrap_or_default();
    let is_behind = |dollar: usize| text.get(dollar..).is_some_and(|rest| rest.starts_with("${"));
    if span.start.checked_sub(1).is_some_and(is_behind) {
        // The rest of a value of the matrix without its quotes.
        return None;
    }
    if *fault == Fault::NoQuotes
        && there == "$"
        && let Some((name, _)) = after.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        && !name.contains('\n')
    {
        let value = format!("${{{name}}}");
        let mistake = Mistake::at(span.start..span.start + value.len(), "text must be in quotes");
        return Some(mistake.help(format!("write \"{value}\": it keeps the type of its value")));
    }
    if *fault == Fault::Duplicate {
        let follows = tables.hold(span);
        let mistake = Mistake::at(span.clone(), format!("'{there}' is defined twice"));
        return (!follows).then(|| mistake.help("remove one of them, or rename it"));
    }
    let starts_with =
        |mark: char| text.get(span.start..).is_some_and(|rest| rest.starts_with(mark));
    if matches!(fault, Fault::Key | Fault::NoValue | Fault::Equals | Fault::NoQuotes)
        && starts_with(':')
    {
        let colon = span.start..span.start + 1;
        let mistake = Mistake::at(colon, "'=' is missing between a key and its value");
        return Some(mistake.help("write key = 3, key = \"text\" or key = true"));
    }
    if *fault == Fault::NoQuotes && !there.is_empty() {
        let (title, help) = unquoted(there);
        return Some(Mistake::at(span.clone(), title).help(help));
    }
    if *fault == Fault::Number
        && let value = around(span, text)
        && let Some((title, help)) = text.get(value.clone()).and_then(foreign)
    {
        return Some(Mistake::at(value, title).help(help));
    }
    if *fault == Fault::Line && starts_with(',') {
        let rest = text.get(span.start + 1..).and_then(|rest| rest.lines().next());
        let is_last =
            rest.is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('#'));
        let help = match is_last {
            true => "remove the comma",
            false => "a list is in brackets, [1, 2], and a number has a point, 0.2",
        };
        return Some(Mistake::at(span.clone(), "the line should end here").help(help));
    }
    // The place of it can be empty.
    let has_nul = || there.contains('\0') || text.as_bytes().get(span.start) == Some(&0);
    let (title, help) = match fault {
        Fault::Text | Fault::LongText if has_nul() => (
            "this text has a NUL character, which is not allowed",
            "remove it: an editor may not show it",
        ),
        _ => words(*fault),
    };
    Some(Mistake::at(span.clone(), title).help(help))
}

/// The whole of a value that has a mistake at this place: from the sign before it to the one after it.
fn around(place: &Span, text: &str) -> Span {
    let before = text.get(..place.start).unwrap_or_default();
    let start = before.rfind(['=', '[', '{', ',', '\n']).map_or(0, |sign| sign + 1);
    let after = text.get(place.end..).unwrap_or_default();
    let end = place.end + after.find([',', ']', '}', '#', '\n']).unwrap_or(after.len());
    let value = text.get(start..end).unwrap_or_default();
    let start = start + value.len() - value.trim_start().len();
    start..start + value.trim().len()
}

/// Whether a key has no value only because a colon is before it, which is said by itself.
fn follows_colon(error: &SyntaxError, all: &[SyntaxError], text: &str) -> bool {
    let between = |other: &SyntaxError| text.get(other.span.start..error.span.start);
    let is_it = |other: &SyntaxError| {
        other.fault == Fault::Key
            && between(other)
                .is_some_and(|between| between.starts_with(':') && !between.contains('\n'))
    };
    error.fault == Fault::NoValue && all.iter().any(is_it)
}

/// The one mistake of a text that is not TOML, but another language for such files.
fn other_language(first: &SyntaxError, text: &str) -> Option<Mistake> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_yaml = |line: &str| {
        let key = line.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '));
        let is_key = |key: &str| !key.is_empty() && !key.contains([' ', '=', '"', '[']);
        line == "---" || line.starts_with("- ") || key.is_some_and(|(key, _)| is_key(key))
    };
    let language = match lines.clone().next() {
        Some(line) if line.starts_with('{') => "JSON",
        _ if lines.clone().filter(|line| is_yaml(line)).count() * 2 > lines.clone().count() => {
            "YAML"
        }
        _ => return None,
    };
    let title = format!("a manifest is TOML, and this looks like {language}");
    let help = "it has tables, [stages.train], and lines like epochs = 3; `pipeline init` writes one to start from";
    Some(Mistake::at(first.span.clone(), title).help(help))
}

/// What is wrong, and what to do.
fn words(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::Duplicate => ("this is defined twice", "remove one of them, or rename it"),
        Fault::ValueAsTable => (
            "this is already a value, so it cannot have keys of its own",
            "write it once, as a value or as a table",
        ),
        Fault::NoQuotes | Fault::NoValue => {
            ("this key has no value", "write key = 3, key = \"text\" or key = true")
        }
        Fault::Number => {
            ("this is not a number, and text must be in quotes", "numbers look like 3, 0.1 or 1e-4")
        }
        Fault::Date => {
            ("this is not a number, a date or a time, and text must be in quotes", "write \"text\"")
        }
        Fault::Text => (
            "this text is not closed, or has a character that is not allowed",
            "text on one line is in one pair of quotes: \"text\"",
        ),
        Fault::LongText => (
            "this text is not closed, or has a character that is not allowed",
            "text on several lines is between triple quotes: \"\"\"text\"\"\"",
        ),
        Fault::Escape => (
            "a '\\' in text starts an escape sequence",
            "write '\\\\', or put the text in single quotes",
        ),
        Fault::Header => ("the table's header is not closed", "it ends with ']': [stages.train]"),
        Fault::Equals => {
            ("there is one '=' too many or too few", "write one line for each key: key = \"value\"")
        }
        Fault::Key => {
            ("this is not a key", "a key has letters, digits, '-' and '_'; any other is in quotes")
        }
        Fault::Opening => (
            "this closes a bracket that was not opened",
            "drop it, or write the bracket that opens it",
        ),
        Fault::List => ("the list is not closed", "it ends with ']': [\"a\", \"b\"]"),
        Fault::Table => ("the table is not closed", "it ends with '}': { a = 1 }"),
        Fault::ListComma => {
            ("a comma is missing in the list", "its items have commas between them: [\"a\", \"b\"]")
        }
        Fault::TableComma => (
            "a comma is missing in the table",
            "its items have commas between them: { a = 1, b = 2 }",
        ),
        Fault::Comma => ("there is one comma too many", "drop it"),
        Fault::Depth => {
            ("this is nested too deeply", "no value of a manifest needs more than a few levels")
        }
        Fault::Line => {
            ("the line should end here", "each key has a line of its own: key = \"value\"")
        }
        Fault::Comment => {
            ("a comment has a control character", "drop it: an editor may not show it")
        }
        Fault::CarriageReturn => {
            ("a carriage return without a newline", "save the file with line ends of one kind")
        }
    }
}
