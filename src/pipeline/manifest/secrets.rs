//! Passwords that are not recognised where text is shown: in URLs that the escapes of TOML hide
//! (`"https:\u002f\u002fann:secret@host"`), and in addresses of trackers that are not URLs (`mlflow = "ann:secret@host"`).
//!
//! A URL that is written plainly is recognised wherever text is shown. This finds the others, in any text, whether
//! or not it is TOML as a whole.

use std::borrow::Cow;
use std::ops::Range;

use pipeline_stages::url::user_info;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// The key of the address of a tracker.
const ADDRESS: &str = "mlflow";

/// What is not to be shown of a text, in order.
pub(super) fn hidden(text: &str) -> Vec<Range<usize>> {
    let mut hidden = in_quotes(text);
    for place in addresses(text) {
        hidden.retain(|other| other.start < place.start || other.end > place.end);
        hidden.push(place);
    }
    hidden.sort_by_key(|place| (place.start, place.end));
    hidden
}

/// What follows on `mlflow =` to the end of the line, where it cannot be an address without a password.
fn addresses(text: &str) -> Vec<Range<usize>> {
    // Reading the tokens of a long text takes milliseconds.
    if !text.contains(ADDRESS) {
        return Vec::new();
    }
    let source = Source::new(text);
    let (mut found, mut is_key, mut is_value, mut end) = (Vec::new(), false, false, 0);
    for token in source.lex() {
        let (start, kind) = (token.span().start(), token.kind());
        match kind {
            TokenKind::Whitespace => {}
            // In what was taken already.
            _ if start < end => {}
            TokenKind::Equals if is_key => (is_key, is_value) = (false, true),
            _ if is_value => {
                is_value = false;
                let length = text[start..].find('\n').unwrap_or(text.len() - start);
                let line = text[start..start + length].trim_end();
                if !may_be_shown(line) {
                    end = token.span().end().max(start + line.len());
                    found.push(start..end);
                }
            }
            TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString => {
                let name = &text[start..token.span().end()];
                is_key = name.trim_matches(['"', '\'']) == ADDRESS;
            }
            _ => is_key = false,
        }
    }
    found
}

/// Whether the value at the start of a line is what the address of a server looks like.
fn may_be_shown(line: &str) -> bool {
    let value = line.trim_start_matches(['"', '\'']);
    let value = value.split(['"', '\'', ' ', '\t']).next().unwrap_or_default();
    let scheme = value.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    // A user and a password in a URL are recognised where it is shown.
    matches!(&*scheme, "http" | "https") && !value.contains('?')
}

/// The texts in quotes whose value has a URL with a password that is not to be seen from outside, without
/// their quotes, in order.
fn in_quotes(text: &str) -> Vec<Range<usize>> {
    // Other quotes cannot hold what is looked for.
    if !text.contains(['\\', '\'']) && !text.contains("\"\"\"") {
        return Vec::new();
    }
    let source = Source::new(text);
    let texts = source.lex().filter_map(|token| {
        let quotes = match token.kind() {
            TokenKind::BasicString | TokenKind::LiteralString => 1,
            TokenKind::MlBasicString | TokenKind::MlLiteralString => 3,
            _ => return None,
        };
        let start = token.span().start() + quotes;
        let inner = text.get(start..token.span().end())?;
        // A text that does not end has no quotes there.
        let inner = inner.strip_suffix(&text[token.span().start()..start]).unwrap_or(inner);
        // With neither of them, what is written is what a URL is recognised in.
        if !inner.contains(['\\', '"']) {
            return None;
        }
        let mut value = Cow::Borrowed("");
        let _ = source.get(token)?.decode_scalar(&mut value, &mut ());
        let mut colons = value.match_indices("://");
        let is_secret = colons.any(|(colon, _)| user_info(&value[colon..]).is_some());
        is_secret.then(|| start..start + inner.len())
    });
    texts.collect()
}

/// Whether a text has a URL with a user name and a password in it, which a shell does not put there itself.
pub(super) fn has_password(text: &str) -> bool {
    let urls = text.split("://").skip(1);
    let user_infos = urls.filter_map(|rest| {
        let url = rest.split(|letter: char| letter.is_whitespace() || "\"'<>|".contains(letter));
        let url = url.into_iter().next()?;
        user_info(url).map(|place| &url[place])
    });
    user_infos.into_iter().any(|login| {
        login.split_once(':').is_some_and(|(_, password)| {
            !password.is_empty() && !password.starts_with(['$', '{', '%'])
        })
    })
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_password_is_not_a_variable_or_a_user() {
        for (text, expected) in [
            ("curl http://ann:s3cret@h/x", true),
            ("wget 'https://ann:s3cret@h'", true),
            ("curl http://$USER:$PASSWORD@h/x", false),
            ("curl http://ann:${PASSWORD}@h/x", false),
            ("git clone ssh://git@github.com/x", false),
            ("curl http://h:8080/x@y", false),
            ("see https://h/ and mail ann:x@y", false),
        ] {
            assert_eq!(has_password(text), expected, "{text}");
        }
    }

    #[test]
    fn an_address_that_is_not_a_url_is_hidden() {
        for (text, expected) in [
            (r#"mlflow = "u:s3cret@h""#, vec![r#""u:s3cret@h""#]),
            ("[tracking]\nmlflow=u:s3cret@h # mine\nx = 1", vec!["u:s3cret@h # mine"]),
            ("tracking = { mlflow = 'u:s3cret@h' }", vec!["'u:s3cret@h' }"]),
            ("--set tracking.mlflow=u:s3cret@h", vec!["u:s3cret@h"]),
            ("'mlflow' = [\"u:s3cret@h\"]", vec!["[\"u:s3cret@h\"]"]),
            ("mlflow = \"u:s3cret@h", vec!["\"u:s3cret@h"]),
            ("mlflow = 'http://h?token=s3cret'", vec!["'http://h?token=s3cret'"]),
            ("mlflow = \"\"\"\nu:s3cret@h\"\"\"\n", vec!["\"\"\"\nu:s3cret@h\"\"\""]),
            ("mlflow = 'http://localhost:5000' # u:x@h", vec![]),
            ("mlflow = \"HTTPS://h/\"", vec![]),
            ("a = 'mlflow'\nb = 'u:x@h'", vec![]),
        ] {
            let found: Vec<_> = hidden(text).into_iter().map(|place| &text[place]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_escapes_hide_is_found() {
        for (text, expected) in [
            (r#"a = "https:\u002f\u002fann:s3cret@h/""#, Some(r"https:\u002f\u002fann:s3cret@h/")),
            (r#"a = "https://ann:s3cret\u0040h/""#, Some(r"https://ann:s3cret\u0040h/")),
            (r#"a = ["x", "https://ann:s3\"cret@h/"]"#, Some(r#"https://ann:s3\"cret@h/"#)),
            (r#"a = 'https://ann:s3"cret@h/'"#, Some(r#"https://ann:s3"cret@h/"#)),
            (r#"a = "https:\u002f\u002fann:s3cret@h/"#, Some(r"https:\u002f\u002fann:s3cret@h/")),
            (
                "a = \"\"\"\\\nhttps:/\\u002fann:s3cret@h\"\"\"",
                Some("\\\nhttps:/\\u002fann:s3cret@h"),
            ),
            (r#"a = "C:\\data, see https://h/""#, None),
            (r#"a = "https://ann:s3cret@h/""#, None),
        ] {
            let found: Vec<_> = hidden(text).into_iter().map(|place| &text[place]).collect();
            assert_eq!(found, Vec::from_iter(expected), "{text}");
        }
    }
}
