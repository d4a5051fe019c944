//! The list, the table or the text that is opened and not closed.
//!
//! A TOML parser takes what follows as a part of it, and finds a mistake on every line to the end of the
//! file. This finds where it must have ended. Knows the tokens of TOML; does not depend on the manifest.

use toml_parser::Source;
use toml_parser::lexer::{Token, TokenKind};

use crate::diagnostic::{Mistake, Span};

/// What is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[`
    List,
    /// `{`
    Table,
    /// `"""` or `'''`
    Text,
}

/// Something that is opened and not closed.
pub(super) struct Unclosed {
    kind: Kind,
    /// What opens it.
    start: Span,
    /// Where it must have ended. What a parser reports from here on only follows from it.
    end: usize,
}

impl Unclosed {
    /// The first one of the text.
    pub(super) fn find(text: &str) -> Option<Self> {
        let tokens: Vec<Token> = Source::new(text).lex().collect();
        let mut open: Vec<(Kind, Span)> = Vec::new();
        let (mut end, mut first_of_line, mut in_header) = (0, true, false);
        for (place, token) in tokens.iter().enumerate() {
            let span = token.span().start()..token.span().end();
            let rest = &tokens[place..];
            let goes_on = first_of_line
                && (is_header(rest, text)
                    || matches!(open.last(), Some((Kind::List, _))) && is_key(rest));
            if goes_on && !open.is_empty() {
                break;
            }
            match token.kind() {
                TokenKind::Newline => (first_of_line, in_header) = (true, false),
                TokenKind::Whitespace | TokenKind::Comment | TokenKind::Eof => {}
                TokenKind::MlBasicString | TokenKind::MlLiteralString
                    if !ends(text.get(span.clone())?) =>
                {
                    let end = span.start;
                    return Some(Self { kind: Kind::Text, start: end..end + 3, end });
                }
                kind => {
                    match kind {
                        TokenKind::LeftSquareBracket if open.is_empty() && first_of_line => {
                            in_header = true;
                        }
                        TokenKind::LeftSquareBracket if !in_header => {
                            open.push((Kind::List, span.clone()));
                        }
                        TokenKind::LeftCurlyBracket => open.push((Kind::Table, span.clone())),
                        TokenKind::RightSquareBracket => {
                            open.pop_if(|(kind, _)| *kind == Kind::List);
                        }
                        TokenKind::RightCurlyBracket => {
                            open.pop_if(|(kind, _)| *kind == Kind::Table);
                        }
                        _ => {}
                    }
                    (end, first_of_line) = (span.end, false);
                }
            }
        }
        open.pop().map(|(kind, start)| Self { kind, start, end })
    }

    /// Whether a mistake of a parser, at this place, only follows from this one.
    pub(super) fn hides(&self, span: &Span, is_of_text: bool) -> bool {
        // One line's text without its quotes ends where the list must have ended.
        span.start > self.end || span.start == self.end && !is_of_text
    }

    /// Whether something at this place can be why it does not end.
    pub(super) fn holds(&self, span: &Span) -> bool {
        self.start.start <= span.start && span.start <= self.end
    }

    pub(super) fn mistake(self) -> Mistake {
        let Self { kind, start, end } = self;
        match kind {
            Kind::List => Mistake::at(end..end, "the list is not closed")
                .related(start, "it starts here")
                .help("it ends with ']': [\"a\", \"b\"]"),
            Kind::Table => {
                Mistake::at(start, "the table is not closed").help("it ends with '}': { a = 1 }")
            }
            Kind::Text => Mistake::at(start, "this text is not closed")
                .help("it ends with the three quotes that it starts with"),
        }
    }
}

/// Whether a text of several lines ends with the quotes that it starts with.
fn ends(text: &str) -> bool {
    let (quotes, rest) = text.split_at_checked(3).unwrap_or((text, ""));
    rest.ends_with(quotes)
}

/// Whether the tokens start with `key =`, which nothing in a list does.
fn is_key(tokens: &[Token]) -> bool {
    after_key(tokens).is_some_and(|rest| starts_with(rest, TokenKind::Equals))
}

/// Whether the tokens are the line `[stages.train]`, and not a list in a list.
fn is_header(tokens: &[Token], text: &str) -> bool {
    let twice = |tokens, kind| match after(tokens, kind) {
        Some(rest) => after(rest, kind).or(Some(rest)),
        None => None,
    };
    let Some(name) = twice(tokens, TokenKind::LeftSquareBracket).map(after_space) else {
        return false;
    };
    let is_value = |name: &str| {
        matches!(name, "true" | "false" | "inf" | "nan")
            || !name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
    };
    let first = name.first().filter(|token| token.kind() == TokenKind::Atom);
    let first = first.and_then(|token| text.get(token.span().start()..token.span().end()));
    if first.is_none_or(is_value) {
        return false;
    }
    let rest = after_key(name).and_then(|rest| twice(rest, TokenKind::RightSquareBracket));
    let ends_line = |token: &Token| {
        matches!(token.kind(), TokenKind::Newline | TokenKind::Comment | TokenKind::Eof)
    };
    rest.is_some_and(|rest| after_space(rest).first().is_none_or(ends_line))
}

/// What follows a key, which may have several parts.
fn after_key(mut tokens: &[Token]) -> Option<&[Token]> {
    loop {
        let is_part = |token: &Token| {
            matches!(
                token.kind(),
                TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString
            )
        };
        let (_, rest) = tokens.split_first().filter(|(token, _)| is_part(token))?;
        let rest = after_space(rest);
        match after(rest, TokenKind::Dot) {
            Some(more) => tokens = after_space(more),
            None => return Some(rest),
        }
    }
}

fn after_space(tokens: &[Token]) -> &[Token] {
    after(tokens, TokenKind::Whitespace).unwrap_or(tokens)
}

fn after(tokens: &[Token], kind: TokenKind) -> Option<&[Token]> {
    starts_with(tokens, kind).then(|| &tokens[1..])
}

fn starts_with(tokens: &[Token], kind: TokenKind) -> bool {
    tokens.first().is_some_and(|token| token.kind() == kind)
}
