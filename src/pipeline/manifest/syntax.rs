//! What is wrong with a text that is not TOML, as types.
//!
//! The errors of the TOML parser are texts for programmers. They are not read: this goes through the text with the
//! parser's own steps (tokens, events, values), so it is known from the step and from what was expected there
//! which kind of fault is at a place. Does not depend on what a manifest must have.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use toml_parser::decoder::{Encoding, ScalarKind};
use toml_parser::lexer::Token;
use toml_parser::parser::{Event, EventKind, RecursionGuard, parse_document};
use toml_parser::{Expected, ParseError, Source};

use crate::diagnostic::Span;

/// How many lists and tables may be within each other, as in the TOML parser.
const DEEPEST: u32 = 80;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A key or a table that is defined twice. The tree is whole.
    Duplicate,
    /// A value that a later line uses as a table.
    ValueAsTable,
    /// Text without quotes, or a misspelt `true`.
    NoQuotes,
    /// Something that looks like a number.
    Number,
    /// Something that looks like a date or a time.
    Date,
    /// Text on one line.
    Text,
    /// Text on several lines.
    LongText,
    /// A `\` in text.
    Escape,
    /// A key without a value.
    NoValue,
    /// The header of a table.
    Header,
    /// An `=`.
    Equals,
    Key,
    /// A bracket that closes nothing.
    Opening,
    /// A list that is not closed.
    List,
    /// An inline table that is not closed.
    Table,
    /// A missing comma in a list.
    ListComma,
    /// A missing comma in an inline table.
    TableComma,
    /// A comma where there is nothing to separate.
    Comma,
    /// Lists or tables within each other, too many.
    Depth,
    /// The end of a line.
    Line,
    Comment,
    /// A carriage return without a newline.
    CarriageReturn,
}

impl Fault {
    /// Whether it is within one value, so that the rest of the tree is whole.
    pub(super) fn is_of_one_value(self) -> bool {
        matches!(self, Self::NoQuotes | Self::Number | Self::Date)
    }
}

/// The faults of a text, by their places.
pub(super) struct Faults<'i> {
    text: &'i str,
    /// In the order in which the TOML parser reports them.
    known: HashMap<(usize, usize), VecDeque<Fault>>,
    /// The events of the parser, by their places.
    events: HashMap<(usize, usize), Event>,
    /// The keys with others of the same path after them: `a` in `a.b`.
    parents: HashSet<(usize, usize)>,
}

impl<'i> Faults<'i> {
    pub(super) fn of(text: &'i str) -> Self {
        let source = Source::new(text);
        let tokens: Vec<Token> = source.lex().collect();
        let (mut events, mut errors) = (Vec::new(), Vec::new());
        parse_document(&tokens, &mut RecursionGuard::new(&mut events, DEEPEST), &mut errors);
        let mut faults = Self {
            text,
            known: HashMap::new(),
            events: events.iter().map(|event| (place(event.span()), *event)).collect(),
            parents: parents(&events),
        };
        let headers = headers(&events);
        let lines: Vec<usize> = text.match_indices('\n').map(|(end, _)| end + 1).collect();
        for error in &errors {
            let is_in_header = error.unexpected().is_some_and(|at| {
                let before = lines.partition_point(|&line| line <= at.start());
                let line = before.checked_sub(1).map_or(0, |last| lines[last]);
                let next = headers.partition_point(|&header| header < line);
                headers.get(next).is_some_and(|&header| header <= at.start())
            });
            faults.add(error, structure(error, text, is_in_header));
        }
        for event in &events {
            faults.add_decoded(&source, event);
        }
        faults
    }

    /// The fault that the TOML parser reports next at this place; `None` for one without a place.
    pub(super) fn next_at(&mut self, span: Option<Span>) -> Fault {
        // Only a key with too many parts does not have a place.
        let Some(span) = span else { return Fault::Depth };
        let span = (span.start, span.end);
        if let Some(fault) = self.known.get_mut(&span).and_then(VecDeque::pop_front) {
            return fault;
        }
        // What is right by itself is wrong where it is.
        match self.events.get(&span).map(Event::kind) {
            Some(EventKind::SimpleKey) if self.parents.contains(&span) => Fault::ValueAsTable,
            Some(EventKind::SimpleKey) => Fault::Duplicate,
            Some(EventKind::ArrayOpen | EventKind::InlineTableOpen) => Fault::Depth,
            Some(EventKind::Scalar) => Fault::Date,
            _ => Fault::Line,
        }
    }

    fn add(&mut self, error: &ParseError, fault: Fault) {
        if let Some(span) = error.unexpected() {
            let known = self.known.entry(place(span)).or_default();
            match fault {
                // The parser looks at what is between tokens first.
                Fault::Comment | Fault::CarriageReturn => known.push_front(fault),
                _ => known.push_back(fault),
            }
        }
    }

    /// Adds the faults within a key, a value or a comment.
    fn add_decoded(&mut self, source: &Source<'i>, event: &Event) {
        let Some(raw) = source.get(event) else { return };
        let mut errors: Vec<ParseError> = Vec::new();
        let mut value = Cow::Borrowed("");
        let unquoted = match event.kind() {
            EventKind::SimpleKey => {
                raw.decode_key(&mut value, &mut errors);
                Fault::Key
            }
            EventKind::Scalar => match raw.decode_scalar(&mut value, &mut errors) {
                ScalarKind::String | ScalarKind::Boolean(_) => Fault::NoQuotes,
                ScalarKind::Integer(_) | ScalarKind::Float => Fault::Number,
                ScalarKind::DateTime => Fault::Date,
            },
            EventKind::Comment => {
                raw.decode_comment(&mut errors);
                Fault::Comment
            }
            EventKind::Newline => {
                raw.decode_newline(&mut errors);
                Fault::CarriageReturn
            }
            _ => return,
        };
        for error in &errors {
            let fault = match event.encoding() {
                None => unquoted,
                Some(_) if is_of_escape(error) => Fault::Escape,
                Some(Encoding::BasicString | Encoding::LiteralString) => Fault::Text,
                Some(_) if event.kind() == EventKind::SimpleKey => Fault::Key,
                Some(_) if self.is_at_carriage_return(error) => Fault::CarriageReturn,
                Some(Encoding::MlBasicString | Encoding::MlLiteralString) => Fault::LongText,
            };
            self.add(error, fault);
        }
    }

    fn is_at_carriage_return(&self, error: &ParseError) -> bool {
        let around = |at: toml_parser::Span| {
            self.text.as_bytes().get(at.start().saturating_sub(1)..=at.start())
        };
        error.unexpected().and_then(around).is_some_and(|around| around.contains(&b'\r'))
    }
}

/// The fault that the parser finds in the order of tokens.
fn structure(error: &ParseError, text: &str, is_in_header: bool) -> Fault {
    let at = |start: usize| text.as_bytes().get(start).copied();
    let unexpected = error.unexpected().and_then(|place| at(place.start()));
    let is_in_table = error.context().is_some_and(|context| {
        context.end() == context.start() + 1 && at(context.start()) == Some(b'{')
    });
    let expected = match error.expected() {
        Some([Expected::Literal(literal), ..]) => *literal,
        Some([Expected::Description(_), Expected::Literal("]")]) => "an item",
        Some([Expected::Description("value")]) => "a value",
        Some([Expected::Description(_), ..]) => "a key",
        Some(_) => "nothing",
        // Of the guard, not of the parser.
        None => return Fault::Depth,
    };
    match (expected, unexpected) {
        ("]" | "]]" | "a key", _) if is_in_header => Fault::Header,
        ("]]", _) => Fault::Header,
        ("\n", _) => Fault::Line,
        ("=", _) if !is_in_table => Fault::NoValue,
        ("]", _) => Fault::List,
        ("}", _) => Fault::Table,
        ("[" | "{", _) => Fault::Opening,
        ("a value", Some(b',')) => Fault::Comma,
        (_, Some(b',')) if is_in_table => Fault::Comma,
        (_, Some(b'=')) => Fault::Equals,
        ("=", _) if is_in_table => Fault::Equals,
        ("a value", _) => Fault::NoValue,
        (",", _) if is_in_table => Fault::TableComma,
        (",", _) => Fault::ListComma,
        ("a key", _) => Fault::Key,
        _ => Fault::Line,
    }
}

/// Whether the error is about what follows a `\` in text.
fn is_of_escape(error: &ParseError) -> bool {
    // Either one of the letters that may follow it, or the digits of `\u`.
    let letter = Expected::Literal("u");
    let digits = Expected::Description("unicode hexadecimal value");
    error.expected().is_some_and(|all| all.contains(&letter) || all.contains(&digits))
}

/// Where headers start.
fn headers(events: &[Event]) -> Vec<usize> {
    let is_header = |event: &&Event| {
        matches!(event.kind(), EventKind::StdTableOpen | EventKind::ArrayTableOpen)
    };
    events.iter().filter(is_header).map(|event| event.span().start()).collect()
}

fn parents(events: &[Event]) -> HashSet<(usize, usize)> {
    let mut parents = HashSet::new();
    let mut last = None;
    for event in events {
        match event.kind() {
            EventKind::SimpleKey => last = Some(event),
            EventKind::KeySep => parents.extend(last.map(|key: &Event| place(key.span()))),
            _ => {}
        }
    }
    parents
}

fn place(span: toml_parser::Span) -> (usize, usize) {
    (span.start(), span.end())
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    /// The faults of a text, in the order in which the TOML parser reports them.
    fn faults(text: &str) -> Vec<Fault> {
        let (_, errors) = DeTable::parse_recoverable(text);
        let mut faults = Faults::of(text);
        errors.iter().map(|error| faults.next_at(error.span())).collect()
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        for (text, expected) in [
            ("a = 1\na = 2", Fault::Duplicate),
            ("[a]\n[a]", Fault::Duplicate),
            ("a = 1\na.b = 2", Fault::ValueAsTable),
            ("a = b", Fault::NoQuotes),
            ("a = tru", Fault::NoQuotes),
            ("a = 1.2.3", Fault::Number),
            ("a = 1__2", Fault::Number),
            ("a = 1979-13-27", Fault::Date),
            ("a = \"b", Fault::Text),
            ("a = \"\"\"b", Fault::LongText),
            (r#"a = "C:\data""#, Fault::Escape),
            (r#"a = "\u12""#, Fault::Escape),
            ("a = \"\"\"b\r c\"\"\"", Fault::CarriageReturn),
            ("a", Fault::NoValue),
            ("[a", Fault::Header),
            ("a == 1", Fault::Equals),
            ("a = { b == 1 }", Fault::Equals),
            ("größe = 1", Fault::Key),
            ("a = [1, 2", Fault::List),
            ("a = { b = 1", Fault::Table),
            ("a = [1 \"b\"]", Fault::ListComma),
            ("a = { b = \"1\" c = 2 }", Fault::TableComma),
            ("a = [1,, 2]", Fault::Comma),
            ("a = \"1\" b = 2", Fault::Line),
            ("a = 1 # \u{1}", Fault::Comment),
        ] {
            assert_eq!(faults(text).first(), Some(&expected), "{text}");
        }
        assert!(faults("a = ]").contains(&Fault::Opening));
        assert_eq!(faults(&format!("a = {}", "[".repeat(90))).first(), Some(&Fault::Depth));
        assert_eq!(faults("a = 1\n[b.c]\nd = [1, 2]\n"), []);
    }
}
