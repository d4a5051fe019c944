//! Files and folders outside the cache that stages read: where they are, and what is there now.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fmt, fs};

use pipeline_stages::kind::{Counts, OutsidePath, PathForm};
use pipeline_stages::left_out::LeftOut;
use pipeline_stages::matrix_file;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Listing, ReadPath, Snapshot, StatIndex, Touch};
use crate::difference::{Difference, How};
use crate::digest::{Digest, FieldHasher};
use crate::manifest::{Stage, nearest};

/// In a folder of more files than this, near names are not looked for.
const MOST_NAMES: usize = 10_000;

/// What a stage reads outside the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutsidePlaces {
    places: Vec<OutsidePlace>,
    /// What the stage leaves out of folders.
    ignore: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct OutsidePlace {
    /// As the manifest names it.
    path: String,
    /// Whether it may be missing.
    optional: bool,
    counts: Counts,
    /// What says how the manifest names it, and what it must be: only where a stage is planned.
    #[serde(skip)]
    named: Named,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Named {
    parameter: &'static str,
    form: PathForm,
}

/// What is wrong with the content of files, which have this digest. Many stages may read the same one: it is read once.
#[derive(Debug, Default)]
pub(crate) struct CheckedFiles(HashMap<(PathBuf, Digest), Option<String>>);

/// What is outside the cache at one moment. Many stages may read the same place: it is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Looked(Mutex<HashMap<WholePlace, Look>>);

/// A place, the folder that it is relative to, and what is left out there.
type WholePlace = (OutsidePlace, PathBuf, Vec<String>);

/// What is found there, once somebody has looked.
type Look = Arc<OnceLock<Result<Arc<Outside>, Unusable>>>;

/// Why a file or folder outside the cache cannot be used.
#[derive(Debug, Clone)]
pub(crate) struct Unusable {
    /// The parameter that names it.
    pub(crate) parameter: &'static str,
    /// As the manifest names it.
    pub(crate) path: String,
    pub(crate) message: String,
    /// What to do, where that is known.
    pub(crate) help: String,
}

impl std::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A file or folder outside the cache that a stage reads, at one moment.
#[derive(Debug)]
pub(crate) struct Outside {
    /// The path in the manifest.
    pub(crate) path: String,
    /// Its content. `None` for an optional one that is missing.
    content: Option<(Snapshot, Listing)>,
}

impl OutsidePlaces {
    /// Those of a stage.
    pub(crate) fn of(declaration: &Stage) -> Self {
        let paths = declaration.stage.outside_paths().into_iter();
        let places = paths.map(|OutsidePath { path, parameter, optional, form, counts }| {
            OutsidePlace { path, optional, counts, named: Named { parameter, form } }
        });
        Self { places: places.collect(), ignore: declaration.stage.ignore().to_vec() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What is there now. Relative paths are relative to `folder`.
    ///
    /// # Errors
    /// When something cannot be read, or is missing and not optional.
    pub(crate) fn look(
        &self,
        folder: &Path,
        cache: &Cache,
        index: &StatIndex,
    ) -> Result<Vec<Outside>, Unusable> {
        self.places.iter().map(|place| place.look(&self.ignore, folder, cache, index)).collect()
    }

    /// The same where others may have looked already.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) fn look_once(
        &self,
        folder: &Path,
        cache: &Cache,
        index: &StatIndex,
        looked: &Looked,
    ) -> Result<Vec<Arc<Outside>>, Unusable> {
        let look = |place: &OutsidePlace| {
            let whole = (place.clone(), folder.to_owned(), self.ignore.clone());
            let mut all = looked.0.lock().unwrap_or_else(PoisonError::into_inner);
            let look = all.entry(whole).or_default().clone();
            drop(all);
            look.get_or_init(|| place.look(&self.ignore, folder, cache, index).map(Arc::new))
                .clone()
        };
        self.places.iter().map(look).collect()
    }

    /// Refuses files without the content that they must have, where they are as [`look`](Self::look) found them.
    ///
    /// # Errors
    /// With what is wrong with the first such file.
    pub(crate) fn check_contents(
        &self,
        folder: &Path,
        found: &[Arc<Outside>],
        checked: &mut CheckedFiles,
    ) -> Result<(), Unusable> {
        let files = self.places.iter().zip(found);
        let is_matrix = |(place, outside): &(&OutsidePlace, &Arc<Outside>)| {
            place.named.form == PathForm::Matrix && outside.content.is_some()
        };
        for (place, outside) in files.filter(is_matrix) {
            let file = checked.0.entry((folder.join(&place.path), outside.digest()));
            let wrong = file.or_insert_with_key(|(path, _)| {
                matrix_file::check(path).err().map(|wrong| format!("{wrong:#}"))
            });
            if let Some(wrong) = wrong {
                return Err(place.named.unusable(&place.path, wrong.clone(), String::new()));
            }
        }
        Ok(())
    }
}

impl OutsidePlace {
    /// What is there now. `ignore` is what is left out of it, and a relative path is relative to `folder`.
    fn look(
        &self,
        ignore: &[String],
        folder: &Path,
        cache: &Cache,
        index: &StatIndex,
    ) -> Result<Outside, Unusable> {
        let Self { path, optional, counts, named } = self;
        let path = path.clone();
        // What must grow waits for memory that another thread may have.
        let mut whole = PathBuf::with_capacity(folder.as_os_str().len() + path.len() + 1);
        whole.extend([folder, Path::new(&path)]);
        if *optional && matches!(whole.try_exists(), Ok(false)) {
            return Ok(Outside { path, content: None });
        }
        named.check(&path, &whole)?;
        let left_out = LeftOut::with(ignore);
        let place = ReadPath { path: &whole, left_out, cache: cache.layout().root() };
        let content = Snapshot::of_outside(&place).and_then(|snapshot| {
            let listing = snapshot.listing(&place, *counts, index)?;
            Ok((snapshot, listing))
        });
        let content = content.map_err(|error| {
            named.unusable(&path, format!("{error:#}"), advice(folder, &path).unwrap_or_default())
        })?;
        Ok(Outside { path, content: Some(content) })
    }
}

impl Named {
    /// Refuses what is not what it must be. What cannot be read is not known here.
    fn check(&self, path: &str, whole: &Path) -> Result<(), Unusable> {
        let is_folder = || fs::metadata(whole).map(|found| found.is_dir());
        let (wanted, is) = match self.form {
            PathForm::Folder if is_folder().is_ok_and(|folder| !folder) => {
                ("a folder", "is a file")
            }
            PathForm::File | PathForm::Matrix if is_folder().is_ok_and(|folder| folder) => {
                ("a file", "is a folder")
            }
            _ => return Ok(()),
        };
        let message =
            format!("'{}' must be {wanted}, but {} {is}", self.parameter, whole.display());
        Err(self.unusable(path, message, String::new()))
    }

    fn unusable(&self, path: &str, message: String, help: String) -> Unusable {
        Unusable { parameter: self.parameter, path: path.to_owned(), message, help }
    }
}

/// How to write a path that does not exist.
fn advice(folder: &Path, path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("~/") {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let whole = home.map(|home| format!(": {}", home.join(rest).display()));
        return Some(format!(
            "'~' is not the home folder here: write the whole path{}",
            whole.unwrap_or_default()
        ));
    }
    if path.contains(['*', '?']) && fs::symlink_metadata(folder.join(path)).is_err() {
        let help = "a path is not a pattern: name each file, or a folder, which stands for all that is in it";
        return Some(help.to_owned());
    }
    near(folder, path)
}

/// A path like this one that exists: the first part of it that does not has another name in its folder.
fn near(folder: &Path, path: &str) -> Option<String> {
    let whole = folder.join(path);
    let mut ancestors: Vec<&Path> = whole.ancestors().collect();
    ancestors.reverse();
    let missing = ancestors.into_iter().find(|path| fs::symlink_metadata(path).is_err())?;
    let wrong = missing.file_name()?.to_str()?;
    let entries = fs::read_dir(missing.parent()?).ok()?.take(MOST_NAMES).flatten();
    let names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let name = nearest(wrong, names.iter().map(String::as_str))?;
    let there = missing.with_file_name(name).join(whole.strip_prefix(missing).ok()?);
    // Joined to nothing, a path ends in a slash.
    let there: PathBuf = there.components().collect();
    let shown = there.strip_prefix(folder).unwrap_or(&there);
    there.exists().then(|| format!("did you mean '{}'?", shown.display()))
}

impl Outside {
    /// The files that it is.
    pub(crate) fn listing(&self) -> Option<&Listing> {
        self.content.as_ref().map(|(_, listing)| listing)
    }

    /// How many files and folders it is.
    pub(crate) fn count(&self) -> usize {
        self.content.as_ref().map_or(0, |(snapshot, _)| snapshot.count())
    }

    pub(crate) fn digest(&self) -> Digest {
        match &self.content {
            Some((_, listing)) => listing.digest(),
            None => FieldHasher::new("pipeline 2026-11 missing outside file").finish(),
        }
    }

    /// How it was changed until `now`, also if its bytes are the old ones again.
    pub(crate) fn touch(&self, now: &Self) -> Touch {
        let whole = |how| Touch::Content(vec![Difference { path: "".into(), how }]);
        let ((was, old), (is, new)) = match (&self.content, &now.content) {
            (Some(old), Some(new)) => (old, new),
            (None, None) => return Touch::None,
            (None, Some(_)) => return whole(How::Added),
            (Some(_), None) => return whole(How::Missing),
        };
        match (was.touch(is), old.differences(new)) {
            // The bytes are compared too: within the resolution of the clock they can change without the stat.
            (_, differences) if !differences.is_empty() => Touch::Content(differences),
            (touch, _) => touch,
        }
    }

    /// Keeps the list of its files, so that a later plan can show which file changed. Nothing else is lost if that fails.
    pub(crate) fn keep(&self, cache: &Cache) {
        if let Some((_, listing)) = &self.content {
            let _ = listing.write(&cache.layout().listing(&listing.digest()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of the mirrors of an unverified download, in a folder with these files.
    fn digests(urls: &str, files: &[(&str, &str)]) -> anyhow::Result<Vec<Digest>> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        let text = format!(
            "[experiment]\nname = \"a\"\n[stages.get]\nkind = \"download\"\nurl = {urls}\nunverified = true\n"
        );
        let (manifest, _) =
            crate::manifest::parse(Path::new("test.toml"), &text, &[]).expect("a manifest");
        let cache = Cache::open(&folder.path().join("cache")).expect("a new cache");
        let index = StatIndex::at(cache.layout().stat_index());
        let places = OutsidePlaces::of(&manifest.stages[0]);
        let found = places.look(folder.path(), &cache, &index)?;
        Ok(found.iter().map(Outside::digest).collect())
    }

    #[test]
    fn a_missing_a_new_and_a_changed_mirror_have_different_digests() {
        let mirrors = r#"["file:a", "https://example.org/a"]"#;
        let of = |files: &[(&str, &str)]| digests(mirrors, files).expect("a mirror may be missing");
        let (missing, empty, full) = (of(&[]), of(&[("a", "")]), of(&[("a", "1")]));
        assert_eq!(missing.len(), 1, "only what is outside the cache and on this machine");
        assert_eq!(missing, of(&[]));
        assert!(missing != empty && empty != full && missing != full);
    }

    #[test]
    fn what_a_shell_would_replace_is_explained() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["g.py", "a*.py"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let advice = |path: &str| advice(folder.path(), path).unwrap_or_default();
        assert_eq!(advice("h.py"), "did you mean 'g.py'?");
        for pattern in ["*.py", "?.py", "src/*.py"] {
            assert!(advice(pattern).starts_with("a path is not a pattern: "), "{pattern}");
        }
        assert_eq!(advice("a*.py"), "", "it is the name of a file");
        assert!(advice("~/photos").starts_with("'~' is not the home folder here: write the whole"));
        assert_eq!(advice("a~/photos"), "");
    }

    #[test]
    fn one_of_two_local_mirrors_may_be_missing_and_an_only_one_may_not() {
        let both = r#"["file:a", "file:b"]"#;
        assert_eq!(digests(both, &[("b", "1")]).expect("the other exists").len(), 2);
        let error = digests(r#""file:a""#, &[]).expect_err("no mirror exists");
        assert!(error.to_string().contains("read "), "{error:#}");
    }

    #[test]
    fn a_place_that_many_stages_read_is_looked_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("f"), "1").expect("a file");
        let text = "[experiment]\nname = \"a\"\n\
                    [stages.a]\nkind = \"command\"\nrun = [\"a\"]\nfiles = [\"f\"]\n\
                    [stages.b]\nkind = \"command\"\nrun = [\"b\"]\nfiles = [\"g\", \"f\"]\n";
        let (manifest, _) =
            crate::manifest::parse(Path::new("test.toml"), text, &[]).expect("a manifest");
        let cache = Cache::open(&folder.path().join("cache")).expect("a new cache");
        let index = StatIndex::at(cache.layout().stat_index());
        let looked = Looked::default();
        let look = |stage: usize, looked: &Looked| {
            let places = OutsidePlaces::of(&manifest.stages[stage]);
            let found = places.look_once(folder.path(), &cache, &index, looked);
            found.map(|found| found.iter().map(|one| one.digest()).collect::<Vec<_>>())
        };
        let one = look(0, &looked).expect("it exists");
        assert!(look(1, &looked).is_err(), "'g' is missing");
        std::fs::write(folder.path().join("f"), "22").expect("a file");
        std::fs::write(folder.path().join("g"), "").expect("a file");
        assert_eq!(look(0, &looked).expect("it exists"), one);
        assert!(look(1, &looked).is_err(), "also what could not be read");
        let two = look(0, &Looked::default()).expect("it exists");
        assert_ne!(two, one);
        let both = look(1, &Looked::default()).expect("they exist");
        assert_eq!(both[1], two[0]);
    }

    #[test]
    fn a_matrix_that_many_stages_read_is_read_once_for_each_content() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |text: &str| std::fs::write(folder.path().join("m.csv"), text).expect("a file");
        let text = "[experiment]\nname = \"a\"\n\
                    [stages.data]\nkind = \"dataset\"\nformat = \"idx\"\npath = \"d\"\n\
                    [stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"data\"\nnoise = \"matrix\"\nmatrix = \"m.csv\"\n";
        let (manifest, _) =
            crate::manifest::parse(Path::new("test.toml"), text, &[]).expect("a manifest");
        let cache = Cache::open(&folder.path().join("cache")).expect("a new cache");
        let index = StatIndex::at(cache.layout().stat_index());
        let noisy = manifest.stage(&"noisy".parse().expect("a name")).expect("a stage");
        let places = OutsidePlaces::of(noisy);
        let look_again = |looked: &Looked| {
            places.look_once(folder.path(), &cache, &index, looked).expect("it exists")
        };
        let look = || look_again(&Looked::default());
        let mut checked = CheckedFiles::default();
        let mut check = |found: &[Arc<Outside>]| {
            places.check_contents(folder.path(), found, &mut checked).map_err(|error| error.message)
        };
        write("1 0\n0 1\n");
        let right = look();
        assert_eq!(check(&right), Ok(()));
        write("1 0\n0.25 0.5\n");
        assert_eq!(check(&right), Ok(()), "it was not read again");
        let wrong = check(&look()).expect_err("it has another content now");
        assert!(wrong.contains("m.csv, line 2: its numbers sum to 0.75, not to 1"), "{wrong}");
    }
}
