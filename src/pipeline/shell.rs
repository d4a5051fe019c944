//! Words of a command line, as somebody would type them in a shell.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The word, in quotes where a shell would not take it as it is.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_@%+=:,./-".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// The same for a path. One that is not UTF-8 is printed by the shell itself, so that text can hold it: `"$(printf %b '/caf\0351')"`.
pub(crate) fn quoted_path(path: &Path) -> Cow<'_, str> {
    let octal = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' => {
            char::from(*byte).to_string()
        }
        byte => format!("\\0{byte:03o}"),
    };
    let bytes = path.as_os_str().as_bytes();
    path.to_str().map_or_else(
        || format!("\"$(printf %b '{}')\"", bytes.iter().map(octal).collect::<String>()).into(),
        quoted,
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_finds_any_path() {
        for path in [
            &b"/a/b c"[..],
            b"it's",
            b"/caf\xe9/1",
            b"\xff'\"$(x)`\\0\n%s -*~/\x01",
            b"gr\xc3\xb6\xdfe",
        ] {
            let command = format!("printf %s {}", quoted_path(Path::new(OsStr::from_bytes(path))));
            let said = Command::new("sh").args(["-c", &command]).output().expect("a shell");
            assert_eq!(said.stdout, path, "{command}");
        }
    }

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
