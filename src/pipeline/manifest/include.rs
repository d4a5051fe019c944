//! `include = ["base.toml"]`: the other files of a manifest, each once.
//!
//! Reads files. Does not depend on the rest of a manifest.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::values::{Value, nul_mistake};
use super::{file, secrets};
use crate::diagnostic::{Mistake, Origin, Sources, Span};

/// A file that a manifest includes, directly or not.
pub(super) struct Included {
    pub(super) text: String,
    /// The position of the text in the sources.
    pub(super) start: usize,
    /// Its name, as it is shown.
    pub(super) name: String,
    /// Absolute.
    pub(super) path: PathBuf,
    /// Its folder: what relative paths in it are relative to. Absolute.
    pub(super) folder: PathBuf,
}

impl Included {
    /// Whether a place is in this file.
    pub(super) fn has(&self, span: &Span) -> bool {
        (self.start..=self.start + self.text.len()).contains(&span.start)
    }
}

/// How many files may include each other one after the other: reading them is recursive.
const DEEPEST: usize = 64;

const FORM: &str = "write include = [\"base.toml\"], before the first table";

/// All files that the text at `path` includes, in the order in which they are first named; and the other paths, absolute, that lead
/// to one of them now.
pub(super) fn read(
    path: &Path,
    text: &str,
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) -> (Vec<Included>, Vec<PathBuf>) {
    let (found, named, seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut reader = Reader { sources, mistakes, found, named, seen };
    let chain = vec![(identity(path), path.display().to_string())];
    reader.follow(path, text, 0, &chain);
    let (found, mut others) = (reader.found, reader.named);
    others.retain(|other| found.iter().all(|one| one.path != *other));
    (found, others)
}

/// The files that the text at `path` includes, directly or not, also those that cannot be read. Absolute.
pub(super) fn named(path: &Path, text: &str) -> Vec<PathBuf> {
    let (mut sources, mut mistakes) = (Sources::new(""), Vec::new());
    let (found, seen) = (Vec::new(), HashSet::new());
    let (sources, mistakes) = (&mut sources, &mut mistakes);
    let mut reader = Reader { sources, mistakes, found, named: Vec::new(), seen };
    reader.follow(path, text, 0, &[(identity(path), String::new())]);
    reader.named
}

struct Reader<'a> {
    sources: &'a mut Sources,
    mistakes: &'a mut Vec<Mistake>,
    found: Vec<Included>,
    /// Where all of them are, also those that cannot be read.
    named: Vec<PathBuf>,
    /// The files that are included already.
    seen: HashSet<PathBuf>,
}

/// Files that include each other: what each is, and its name.
type Chain = [(PathBuf, String)];

impl Reader<'_> {
    /// Reads what the text at `path` includes. Its own place in the sources begins at `start`.
    fn follow(&mut self, path: &Path, text: &str, start: usize, chain: &Chain) {
        // Parsing twice is for those that have it.
        if !text.contains("include") {
            return;
        }
        let (root, _) = DeTable::parse_recoverable(text);
        let Some(value) = root.get_ref().get("include") else { return };
        let at = |value: &Value<'_>| value.span().start + start..value.span().end + start;
        let DeValue::Array(items) = value.get_ref() else {
            let title = "'include' is a list of files";
            return self.mistakes.push(Mistake::at(at(value), title).help(FORM));
        };
        for item in items {
            match item.get_ref().as_str() {
                Some(name) if name.contains('\0') => {
                    self.mistakes.push(nul_mistake("include", at(item)));
                }
                Some(name) if !name.is_empty() => self.file(path, name, &at(item), chain),
                _ => {
                    let title = "'include' is a list of files";
                    self.mistakes.push(Mistake::at(at(item), title).help(FORM));
                }
            }
        }
    }

    /// Reads a file that the one at `path` includes.
    fn file(&mut self, path: &Path, name: &str, span: &Span, chain: &Chain) {
        let path = path.parent().unwrap_or(Path::new("")).join(name);
        let shown = path.display().to_string();
        let identity = identity(&path);
        if let Some(first) = chain.iter().position(|(other, _)| *other == identity) {
            let names = chain[first..].iter().map(|(_, name)| name.as_str());
            let names: Vec<_> = names.chain([shown.as_str()]).collect();
            let title = format!("files include each other: {}", names.join(" -> "));
            return self.mistakes.push(Mistake::at(span.clone(), title).help("drop one of these"));
        }
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        self.named.push(absolute.clone());
        if !self.seen.insert(identity.clone()) {
            return;
        }
        if chain.len() > DEEPEST {
            let title = format!("files include each other more than {DEEPEST} deep");
            return self
                .mistakes
                .push(Mistake::at(span.clone(), title).help("include this one from the manifest"));
        }
        let wrong = |title: String| Mistake::at(span.clone(), title);
        let text = match file::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                let title = format!("{shown} is not UTF-8 text");
                return self.mistakes.push(wrong(title).help("save it as UTF-8"));
            }
            Err(error) => {
                let help = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        "the path is relative to the file that includes it"
                    }
                    _ => "",
                };
                let title = format!("cannot read {shown}: {error}");
                return self.mistakes.push(wrong(title).help(help));
            }
        };
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        let start = self.sources.add(Origin::File(shown.clone()), &*text);
        self.sources.hide(secrets::hidden(&text));
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let place = self.found.len();
        self.found.push(Included {
            text: String::new(),
            start,
            name: shown.clone(),
            path: absolute,
            folder,
        });
        let mut chain = chain.to_vec();
        chain.push((identity, shown));
        self.follow(&path, &text, start, &chain);
        self.found[place].text = text;
    }
}

/// What two names of a file have in common.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
