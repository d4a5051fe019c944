//! What an artifact holds, file by file: the digest of an artifact is the digest of its listing. The same for files and
//! folders outside the cache.
//!
//! So a listing proves itself, and one that was kept shows which files of a damaged artifact changed, or which of a
//! folder outside. Does not depend on the store.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use pipeline_stages::path_text;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, EntryKind, Extent, path_bytes};
use super::file_digest::{Watch, digest_open_file};
use super::folder::Folder;
use super::{disk, durable, parallel};
use crate::difference::{Difference, How};
use crate::digest::{Digest, FieldHasher};

/// A larger file is not a listing, in bytes: that of some ten million files.
const LARGEST: u64 = 2 << 30;

const DOMAIN: &str = "pipeline 2026-11 artifact tree";

/// All that is below a folder, sorted by the bytes of the paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Listing(Vec<Line>);

/// One file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The path below the top; empty for a top that is not a folder.
    #[serde(with = "path_text")]
    pub(super) path: PathBuf,
    /// Outside the cache, where what a link leads to counts: the text of the link that leads here.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path_text::optional")]
    pub(super) through: Option<PathBuf>,
    #[serde(flatten)]
    pub(super) kind: EntryKind,
    /// The digest of a file's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Digest>,
}

impl Listing {
    /// Lists a folder and hashes every file in it.
    pub(crate) fn of(top: &Path) -> anyhow::Result<Self> {
        Self::watched(top, &Watch::default())
    }

    /// The same, with somebody who watches.
    pub(crate) fn watched(top: &Path, watch: &Watch) -> anyhow::Result<Self> {
        let folder = Folder::open(top).with_context(|| format!("cannot list {}", top.display()))?;
        Self::of_open(&folder, watch)
    }

    /// The same for a folder that is open.
    fn of_open(folder: &Folder, watch: &Watch) -> anyhow::Result<Self> {
        Self::of_entries(folder, folder.entries()?, watch)
    }

    /// The same where its entries are known.
    pub(super) fn of_entries(
        folder: &Folder,
        entries: Vec<Entry>,
        watch: &Watch,
    ) -> anyhow::Result<Self> {
        let digest = |path: &Path| {
            let digest = || digest_open_file(folder.open_below(path)?, watch);
            digest().with_context(|| format!("cannot read {}", folder.path().join(path).display()))
        };
        let is_file = |entry: &&Entry| matches!(entry.kind, EntryKind::File { .. });
        let files: Vec<&Path> = entries.iter().filter(is_file).map(|entry| &*entry.path).collect();
        let mut digests = parallel::try_for_each(&files, |path| digest(path))?.into_iter();
        Self::with_digests(entries, |path| digests.next().map_or_else(|| digest(path), Ok))
    }

    /// The listing of these entries. `digest_of` computes the digest of the bytes of a file.
    ///
    /// # Errors
    /// The first one of `digest_of`.
    pub(crate) fn with_digests(
        entries: Vec<Entry>,
        mut digest_of: impl FnMut(&Path) -> anyhow::Result<Digest>,
    ) -> anyhow::Result<Self> {
        let lines = entries.into_iter().map(|Entry { path, kind, .. }| {
            let content = match kind {
                EntryKind::File { .. } => Some(digest_of(&path)?),
                EntryKind::Folder | EntryKind::Link { .. } => None,
            };
            Ok(Line { path, through: None, kind, content })
        });
        Ok(Self(lines.collect::<anyhow::Result<_>>()?))
    }

    /// The listing of these lines, sorted here.
    pub(super) fn of_lines(mut lines: Vec<Line>) -> Self {
        lines.sort_by(|a, b| path_bytes(&a.path).cmp(path_bytes(&b.path)));
        Self(lines)
    }

    /// A Merkle hash over path, kind, executable bit, size and content.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new(DOMAIN);
        for Line { path, through, kind, content } in &self.0 {
            hasher.bytes(path_bytes(path));
            if let Some(text) = through {
                hasher.text("through").bytes(path_bytes(text));
            }
            match kind {
                EntryKind::Folder => hasher.text("folder"),
                EntryKind::Link { target } => hasher.text("link").bytes(path_bytes(target)),
                EntryKind::File { executable, bytes } => {
                    let tag = if *executable { "program" } else { "file" };
                    hasher.text(tag).number(*bytes);
                    // One that was read from a damaged listing may have none: then the digest is another.
                    if let Some(content) = content {
                        hasher.digest(content);
                    }
                    &mut hasher
                }
            };
        }
        hasher.finish()
    }

    /// Each entry: its path, what it is, and the digest of a file's bytes.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Path, &EntryKind, Option<&Digest>)> {
        self.0.iter().map(|line| (&*line.path, &line.kind, line.content.as_ref()))
    }

    /// Whether a folder can be made from it, entry by entry, and nothing outside of that folder: each path is new, made of
    /// names alone, and below a folder that comes before it, and each file has a digest.
    pub(crate) fn is_of_a_folder(&self) -> bool {
        let mut folders = HashSet::from([Path::new("")]);
        let mut seen = HashSet::new();
        self.0.iter().all(|Line { path, through, kind, content }| {
            let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
            let is_below = path.parent().is_some_and(|above| folders.contains(above));
            if *kind == EntryKind::Folder {
                folders.insert(path);
            }
            let is_file = matches!(kind, EntryKind::File { .. });
            is_plain
                && is_below
                && seen.insert(path)
                && through.is_none()
                && is_file == content.is_some()
        })
    }

    /// How much it is.
    pub(crate) fn extent(&self) -> Extent {
        Extent::of(self.0.iter().map(|line| &line.kind))
    }

    /// What differs in `now`, path by path.
    pub(crate) fn differences(&self, now: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let (mut old, mut new) = (self.0.iter().peekable(), now.0.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return differences,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => path_bytes(&old.path).cmp(path_bytes(&new.path)),
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            let how = match (was, is) {
                (Some(was), Some(is)) => difference(was, is),
                (Some(_), None) => Some(How::Missing),
                _ => Some(How::Added),
            };
            let path = was.or(is).map(|line| line.path.clone());
            differences.extend(path.zip(how).map(|(path, how)| Difference { path, how }));
        }
    }

    /// Reads the listing of an artifact. `None` when there is none that is whole.
    pub(crate) fn read(path: &Path, digest: &Digest) -> Option<Self> {
        let listing: Self = serde_json::from_slice(&disk::read(path, LARGEST).ok()?).ok()?;
        (listing.digest() == *digest).then_some(listing)
    }

    /// Writes the listing, unless it is there. It is not flushed: a power cut may have left other bytes, of the same length.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self).context("a listing is plain data")?;
        if disk::read(path, text.len() as u64).is_ok_and(|there| there == text) {
            return Ok(());
        }
        durable::write_disposable(path, &text)
    }
}

fn difference(was: &Line, is: &Line) -> Option<How> {
    match (&was.kind, &is.kind) {
        _ if was.through != is.through => Some(How::Link),
        (EntryKind::Link { target: old }, EntryKind::Link { target: new }) if old != new => {
            Some(How::Link)
        }
        (
            EntryKind::File { executable: was_program, bytes: old_bytes },
            EntryKind::File { executable: is_program, bytes: new_bytes },
        ) => {
            if was.content != is.content || old_bytes != new_bytes {
                Some(How::Changed { old_bytes: *old_bytes, new_bytes: *new_bytes })
            } else {
                (was_program != is_program).then_some(How::Mode)
            }
        }
        (was, is) => (was != is).then_some(How::Kind),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn folder(files: &[(String, String)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            fs::write(top.path().join(path), content).expect("writable");
        }
        top
    }

    fn listing(top: &tempfile::TempDir) -> Listing {
        Listing::of(top.path()).expect("readable")
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(path, content).expect("writable");
        }
        top
    }

    fn digest(top: &tempfile::TempDir) -> Digest {
        listing(top).digest()
    }

    #[test]
    fn the_same_content_has_the_same_digest_wherever_it_is() {
        let files = [("a", "1"), ("b/c", "2"), ("b.d", "3")];
        let other_order = [("b.d", "3"), ("b/c", "2"), ("a", "1")];
        assert_eq!(digest(&tree(&files)), digest(&tree(&other_order)));
    }

    #[test]
    fn every_part_of_the_content_counts() {
        let base = digest(&tree(&[("a", "1"), ("b", "2")]));
        for other in [
            tree(&[("a", "1")]),
            tree(&[("a", "1"), ("b", "3")]),
            tree(&[("a", "12"), ("b", "")]),
            tree(&[("a", "2"), ("b", "1")]),
            tree(&[("a", "1"), ("c", "2")]),
            tree(&[("a", "1"), ("b/b", "2")]),
        ] {
            assert_ne!(digest(&other), base);
        }
    }

    #[test]
    fn empty_folders_links_and_the_executable_bit_count() {
        let top = tree(&[("a", "1")]);
        let plain = digest(&top);
        fs::create_dir(top.path().join("empty")).expect("writable");
        let with_folder = digest(&top);
        assert_ne!(with_folder, plain);
        std::os::unix::fs::symlink("a", top.path().join("link")).expect("writable");
        let with_link = digest(&top);
        assert_ne!(with_link, with_folder);
        fs::set_permissions(top.path().join("a"), fs::Permissions::from_mode(0o700)).expect("ours");
        let executable = digest(&top);
        assert_ne!(executable, with_link);
        // Who else may read it is not content.
        fs::set_permissions(top.path().join("a"), fs::Permissions::from_mode(0o755)).expect("ours");
        assert_eq!(digest(&top), executable);
    }

    #[test]
    fn the_extent_counts_files_and_bytes() {
        let top = tree(&[("a", "123"), ("b/c", "45")]);
        assert_eq!(listing(&top).extent(), Extent { files: 2, bytes: 5 });
    }

    #[test]
    fn every_difference_is_named() {
        let files = [("a", "1"), ("b", "22"), ("c", "3"), ("d", "4"), ("f", "6")];
        let files = files.map(|(path, content)| (path.to_owned(), content.to_owned()));
        let (old, new) = (folder(&files), folder(&files));
        let there = |name: &str| new.path().join(name);
        fs::write(there("a"), "X").expect("writable");
        fs::write(there("b"), "2").expect("writable");
        fs::remove_file(there("c")).expect("ours");
        fs::set_permissions(there("d"), fs::Permissions::from_mode(0o755)).expect("ours");
        fs::write(there("e"), "").expect("writable");
        fs::remove_file(there("f")).expect("ours");
        std::os::unix::fs::symlink("a", there("f")).expect("writable");
        let differences = listing(&old).differences(&listing(&new));
        let texts = differences.iter().map(|one| format!("{} {}", one.path.display(), one.how));
        assert_eq!(
            texts.collect::<Vec<_>>(),
            [
                "a other bytes, of the same size",
                "b other bytes: 1 in place of 2",
                "c missing",
                "d the executable bit changed",
                "e added",
                "f another type of entry: file, folder or link",
            ]
        );
    }

    #[test]
    fn a_listing_reads_back_and_a_damaged_one_is_none() {
        let top = folder(&[("a".to_owned(), "1".to_owned())]);
        fs::create_dir(top.path().join("empty")).expect("writable");
        std::os::unix::fs::symlink("a", top.path().join("link")).expect("writable");
        let listing = listing(&top);
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("listing.json");
        listing.write(&path).expect("writable");
        assert_eq!(Listing::read(&path, &listing.digest()), Some(listing.clone()));
        let text = fs::read_to_string(&path).expect("readable");
        for damage in ["", "[]", "[1]", &text.replace("\"a\"", "\"b\""), &"\0".repeat(text.len())] {
            fs::write(&path, damage).expect("writable");
            assert_eq!(Listing::read(&path, &listing.digest()), None, "{damage}");
            listing.write(&path).expect("writable");
            assert_eq!(fs::read_to_string(&path).expect("readable"), text, "{damage}");
        }
    }

    fn files() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::btree_map("[a-d]", "[xy]{0,2}", 0..4)
            .prop_map(|files| files.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn there_are_differences_exactly_when_digests_differ(old in files(), new in files()) {
            let (was, is) = (listing(&folder(&old)), listing(&folder(&new)));
            let differences = was.differences(&is);
            prop_assert_eq!(differences.is_empty(), was.digest() == is.digest());
            // Each path once, and the same paths seen from the other side.
            let back = is.differences(&was);
            let paths = |all: &[Difference]| all.iter().map(|one| one.path.clone()).collect::<Vec<_>>();
            prop_assert_eq!(paths(&differences), paths(&back));
            let named = old.iter().chain(&new).filter(|one| !(old.contains(one) && new.contains(one)));
            let named: std::collections::BTreeSet<_> = named.map(|(path, _)| PathBuf::from(path)).collect();
            prop_assert_eq!(paths(&differences), named.into_iter().collect::<Vec<_>>());
        }
    }
}
