//! The text of a manifest without the tables of stages that are not wanted: reading these would take most of the time.
//!
//! For texts that were read as a whole before. Knows the tokens of TOML; does not depend on what is in a table.

use std::collections::HashSet;

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// The text with blanks in the place of `[stages.NAME]`, and of the tables in it, for each stage that is not one of `templates`. All
/// other places are what they were.
pub(super) fn only(text: &str, templates: &HashSet<&str>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let (mut depth, mut begins_line) = (0_usize, true);
    let mut unwanted_from = None;
    for token in Source::new(text).lex() {
        let start = token.span().start();
        let is_header = begins_line && token.kind() == TokenKind::LeftSquareBracket;
        if is_header || token.kind() == TokenKind::Eof {
            if let Some(from) = unwanted_from.take() {
                bytes[from..start].fill(b' ');
            }
            let stage = text.get(start..).and_then(stage_of);
            unwanted_from = stage.is_some_and(|stage| !templates.contains(stage)).then_some(start);
        }
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        begins_line = match token.kind() {
            // Within a list there is a list.
            TokenKind::Newline => depth == 0,
            TokenKind::Whitespace => begins_line,
            _ => false,
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// The stage that a table belongs to whose header this text begins with. `None` also where its name has quotes.
fn stage_of(text: &str) -> Option<&str> {
    let tokens = Source::new(text).lex();
    let mut tokens = tokens.filter(|token| token.kind() != TokenKind::Whitespace).peekable();
    while tokens.next_if(|token| token.kind() == TokenKind::LeftSquareBracket).is_some() {}
    let mut take = |kind| {
        let token = tokens.next_if(|token| token.kind() == kind)?;
        text.get(token.span().start()..token.span().end())
    };
    take(TokenKind::Atom).filter(|name| *name == "stages")?;
    take(TokenKind::Dot)?;
    take(TokenKind::Atom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
include = ["more.toml"]
stages.early.kind = "command"

[stages]
dotted.kind = "command"

  [ stages . a ] # the first
kind = "command"
run = [
  "echo",
[stages.b]
]
more = """
[stages.c]
"""

[stages.a.execution]
cpus = 2

[[stages.b.points]]
x = { y = [
  [1]
] }

[stages."a b"]
kind = 'command'

[stages.ü]
kind = "ü"

[matrix]
stages = ["a"]
"#;

    /// The lines that are left.
    fn lines(text: &str, templates: &[&str]) -> Vec<String> {
        let left = only(text, &templates.iter().copied().collect());
        assert_eq!(left.len(), text.len());
        left.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn the_tables_of_other_stages_are_blank() {
        let always = |line: &&str| !line.is_empty();
        let outside = [
            "include = [\"more.toml\"]",
            "stages.early.kind = \"command\"",
            "[stages]",
            "dotted.kind = \"command\"",
        ];
        let end = ["[stages.\"a b\"]", "kind = 'command'", "[matrix]", "stages = [\"a\"]"];
        assert_eq!(lines(TEXT, &["x"]), [&outside[..], &end].concat());
        let all: Vec<&str> = TEXT.lines().map(str::trim).filter(always).collect();
        assert_eq!(lines(TEXT, &["a", "b", "ü"]), all);
        let of_b = ["[[stages.b.points]]", "x = { y = [", "[1]", "] }"];
        assert_eq!(lines(TEXT, &["b"]), [&outside[..], &of_b, &end].concat());
        assert_eq!(only("", &HashSet::new()), "");
    }

    #[test]
    fn what_is_left_of_the_examples_is_what_they_say_of_it() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
        let mut seen = 0;
        for entry in std::fs::read_dir(examples).expect("a folder").flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("readable");
            let whole: toml::Table = text.parse().expect("TOML");
            let stages = whole["stages"].as_table().expect("stages");
            for name in stages.keys() {
                let mut expected = whole.clone();
                let kept = stages.iter().filter(|(other, _)| *other == name);
                let kept: toml::Table =
                    kept.map(|(one, value)| (one.clone(), value.clone())).collect();
                expected.insert("stages".to_owned(), kept.into());
                let part = only(&text, &HashSet::from([name.as_str()]));
                assert_eq!(part.parse::<toml::Table>().as_ref(), Ok(&expected), "{path:?} {name}");
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} stages");
    }
}
