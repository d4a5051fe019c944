//! What is left out of a folder outside the cache: files of editors, file managers and Python, which
//! are not content. The one list, for the digest of such a folder and for stages that read it.
//!
//! For folders outside the cache only: everything in an artifact counts.

use std::ffi::OsStr;
use std::path::Path;

use crate::kind::Problem;

/// Files of editors and other tools, left out at any depth: `*` matches any bytes, `?` one. docs/manifest.md has the
/// same list, with [`FILE_MANAGERS`].
const TOOLS: &[&str] = &[".git", ".ipynb_checkpoints", "*~", ".*.sw?"];
/// Files of file managers: left out like those, and also when an archive is unpacked.
const FILE_MANAGERS: &[&str] = &[".DS_Store", "._*", "Thumbs.db"];
/// More files of file managers. A digest counts them, but they are never data: they are left out when an archive is
/// unpacked or a data set is read.
const FILE_MANAGERS_COUNTED: &[&str] = &["__MACOSX", "desktop.ini"];

/// Python's folder of compiled modules. The folder and the modules in it do not count; other files in it do.
const PYTHON_CACHE: &str = "__pycache__";
const COMPILED_MODULE: &str = "*.pyc";

/// What is left out of a folder outside the cache.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeftOut<'a> {
    ignore: &'a [String],
}

impl<'a> LeftOut<'a> {
    /// The list, and what the `ignore` of a stage adds.
    pub fn with(ignore: &'a [String]) -> Self {
        Self { ignore }
    }

    /// Whether an entry is left out, and with it all that is in it. `path` is the path below the folder.
    pub fn leaves_out(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return false };
        let name = name.as_encoded_bytes();
        let folder = path.parent().and_then(Path::file_name);
        [TOOLS, FILE_MANAGERS].iter().any(|patterns| is_any_of(patterns, name))
            || (folder.is_some_and(|folder| folder == PYTHON_CACHE)
                && matches(COMPILED_MODULE.as_bytes(), name))
            || self.ignore.iter().any(|pattern| ignores(pattern, path))
    }

    /// Whether a folder itself does not count, but its content does.
    pub fn looks_through(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == PYTHON_CACHE)
    }
}

/// Whether a name is that of a file or folder that a file manager writes next to people's files. It is never data.
pub fn is_of_a_file_manager(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    [FILE_MANAGERS, FILE_MANAGERS_COUNTED].iter().any(|patterns| is_any_of(patterns, name))
}

fn is_any_of(patterns: &[&str], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), name))
}

/// What a pattern of `ignore` has that cannot match anything, as a regular expression: see [`problems`].
pub(crate) const NEVER_PATTERN: &str = r"(^|/)(\.|\.\.|\*\*)?(/|$)";

/// What is wrong with the patterns of `ignore`.
pub fn problems(ignore: &[String]) -> Vec<Problem> {
    let never = |(_, pattern): &(usize, &String)| {
        pattern
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == ".." || part == "**")
    };
    let message = |pattern: &String| {
        format!(
            "'{pattern}' in 'ignore' cannot match anything: write a name ('*.log'), or a path from the folder ('runs/*.log') \
             without '.', '..' and '**'; '*' stays within one name"
        )
    };
    let problem = |(item, pattern)| Problem::new("ignore", message(pattern)).with_item(item);
    ignore.iter().enumerate().filter(never).map(problem).collect()
}

/// A pattern over names or, with a `/` in it, over paths from the folder.
fn ignores(pattern: &str, path: &Path) -> bool {
    if !pattern.contains('/') {
        let name = path.file_name().unwrap_or_default();
        return matches(pattern.as_bytes(), name.as_encoded_bytes());
    }
    let (mut patterns, mut names) = (pattern.split('/'), path.iter());
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if matches(pattern.as_bytes(), name.as_encoded_bytes()) => {
            }
            _ => return false,
        }
    }
}

/// Whether a pattern with `*` and `?` matches a whole name. Bytes, because a name may not be text.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    // Where to continue when the last `*` must take one more byte.
    let mut star: Option<(usize, usize)> = None;
    while here < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, here));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[here] => {
                at += 1;
                here += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (at, here) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_editors_and_file_managers_are_left_out() {
        for (path, expected) in [
            (".DS_Store", true),
            ("a/b/.DS_Store", true),
            ("DS_Store", false),
            ("train/cat/._1.jpg", true),
            ("_1.jpg", false),
            ("Thumbs.db", true),
            ("thumbs.db.txt", false),
            (".main.py.swp", true),
            (".main.py.swo", true),
            ("main.py.swp", false),
            (".swp", false),
            (".main.py.swift", false),
            ("main.py~", true),
            ("a~b", false),
            (".ipynb_checkpoints", true),
            (".git", true),
            (".gitignore", false),
            ("__pycache__/a.cpython-312.pyc", true),
            ("a/__pycache__/a.pyc", true),
            ("__pycache__/x", false),
            ("a.pyc", false),
            ("a/b.pyc", false),
            ("", false),
        ] {
            assert_eq!(LeftOut::default().leaves_out(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn files_of_file_managers_are_known_by_their_names() {
        for (name, expected, counted) in [
            (".DS_Store", true, false),
            ("._1.jpg", true, false),
            ("Thumbs.db", true, false),
            ("__MACOSX", true, true),
            ("desktop.ini", true, true),
            ("main.py~", false, false),
            (".git", false, false),
            ("cat", false, true),
        ] {
            assert_eq!(is_of_a_file_manager(OsStr::new(name)), expected, "{name}");
            assert_eq!(!LeftOut::default().leaves_out(Path::new(name)), counted, "{name}");
        }
    }

    #[test]
    fn a_manifest_adds_names_and_paths() {
        for (pattern, path, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "deep/in/a.log", true),
            ("*.log", "a.log.txt", false),
            ("runs", "a/runs", true),
            ("runs/*.log", "runs/a.log", true),
            ("runs/*.log", "a/runs/a.log", false),
            ("runs/*.log", "runs/b/a.log", false),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyybzz", false),
            ("?", "é", false),
            ("??", "ab", true),
        ] {
            let ignore = [pattern.to_owned()];
            let left_out = LeftOut::with(&ignore).leaves_out(Path::new(path));
            assert_eq!(left_out, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_a_problem() {
        for (pattern, count) in
            [("*.log", 0), ("a/b", 0), ("", 1), ("/a", 1), ("a/", 1), ("../a", 1), ("**/a", 1)]
        {
            assert_eq!(problems(&[pattern.to_owned()]).len(), count, "{pattern}");
        }
    }
}
