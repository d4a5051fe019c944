//! Which file is the checkpoint: the only one, or the one that `file` matches. Several with the same bytes count as one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use globset::{GlobBuilder, GlobMatcher};
use pipeline_stages::kinds::ImportWeights;
use pipeline_stages::text::in_short;
use pipeline_stages::worker::Context;

use crate::folder::{OneFile, Place, entries};

/// Names that checkpoints have. Only a hint for folders: the content decides what a file is.
const EXTENSIONS: &[&str] =
    &[".pth.tar", ".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pkl", ".pickle", ".t7"];
/// The most files that a message names.
const NAMED: usize = 10;

/// The path of the checkpoint of a stage.
///
/// # Errors
/// When none matches, or several do.
pub(super) fn checkpoint(stage: &ImportWeights, context: &Context) -> anyhow::Result<PathBuf> {
    let root = match &stage.path {
        Some(path) => context.folder.join(path),
        None => context.input("source")?.to_owned(),
    };
    if root.is_file() {
        ensure!(
            stage.file.is_none(),
            "'file' chooses a file of a folder, but {} is a file: drop 'file'",
            root.display()
        );
        return Ok(root);
    }
    ensure!(root.is_dir(), "{} is neither a file nor a folder", root.display());
    let place = if stage.path.is_some() { Place::Outside } else { Place::Artifact };
    let mut files = Vec::new();
    list(&root, place, &mut files)?;
    files.sort_unstable();
    choose(&root, files, stage.file.as_deref())
}

fn choose(root: &Path, files: Vec<PathBuf>, pattern: Option<&str>) -> anyhow::Result<PathBuf> {
    let matcher = pattern.map(Pattern::new).transpose()?;
    let wanted = |path: &&PathBuf| match &matcher {
        Some(pattern) => pattern.matches(path.strip_prefix(root).unwrap_or(path)),
        None => {
            let name = path.to_string_lossy().to_lowercase();
            EXTENSIONS.iter().any(|extension| name.ends_with(extension))
        }
    };
    let found: Vec<&PathBuf> = match files.as_slice() {
        // A downloaded file can have any name.
        [only] if matcher.is_none() => vec![only],
        files => files.iter().filter(wanted).collect(),
    };
    let all_are = |first: &Path, others: &[&PathBuf]| {
        let first = OneFile::new(first);
        others.iter().all(|other| first.has_bytes_of(other))
    };
    match (found.as_slice(), pattern) {
        ([first, others @ ..], _) if all_are(first, others) => Ok((*first).clone()),
        ([], Some(pattern)) => {
            bail!("'{pattern}' does not match any file; found {}", names(root, &files))
        }
        ([], None) => bail!(
            "no file looks like a checkpoint by its name; choose one with file = \"...\"; found {}",
            names(root, &files)
        ),
        (several, Some(pattern)) => {
            bail!("'{pattern}' matches {} files: {}", several.len(), names(root, several))
        }
        (several, None) => {
            bail!("choose one of the files with file = \"...\": {}", names(root, several))
        }
    }
}

/// A glob over names or, with a `/` in it, over paths.
struct Pattern {
    glob: GlobMatcher,
    over_paths: bool,
}

impl Pattern {
    fn new(pattern: &str) -> anyhow::Result<Self> {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.with_context(|| format!("'{pattern}' in 'file' is not a valid glob"))?;
        Ok(Self { glob: glob.compile_matcher(), over_paths: pattern.contains('/') })
    }

    fn matches(&self, path: &Path) -> bool {
        if self.over_paths {
            return self.glob.is_match(path);
        }
        path.file_name().is_some_and(|name| self.glob.is_match(Path::new(name)))
    }
}

/// Every file in a folder and those below it, hidden ones left out. Links to folders are not followed.
fn list(folder: &Path, place: Place, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for path in entries(folder, place)? {
        if path.is_dir() && !path.is_symlink() {
            list(&path, place, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Files for a message, as paths from the folder.
fn names(root: &Path, files: &[impl AsRef<Path>]) -> String {
    if files.is_empty() {
        return format!("no file in {}", root.display());
    }
    let shown = |path: &Path| format!("'{}'", path.strip_prefix(root).unwrap_or(path).display());
    in_short(files.iter().map(|path| shown(path.as_ref())), NAMED)
}
