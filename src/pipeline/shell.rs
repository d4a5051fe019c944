//! Words of a command line, as somebody would type them in a shell.

use std::borrow::Cow;

/// The word, in quotes where a shell would not take it as it is.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_@%+=:,./-".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_shell_would_change_is_quoted() {
        for (word, expected) in [
            ("train@rate=0.9,seed=1", "train@rate=0.9,seed=1"),
            ("../a/pipeline.toml", "../a/pipeline.toml"),
            ("train@method=lq-*", "'train@method=lq-*'"),
            ("stages.train.epochs=[1, 2]", "'stages.train.epochs=[1, 2]'"),
            ("my folder", "'my folder'"),
            ("it's", r"'it'\''s'"),
            ("größe", "'größe'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
