//! Human labels of the training images of CIFAR-10 and CIFAR-100 (Wei et al., "Learning
//! with Noisy Labels Revisited", ICLR 2022): `CIFAR-10_human.pt`, `CIFAR-100_human.pt`.
//!
//! Each is a file of `torch.save` that holds a dictionary of NumPy arrays.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::kinds::HumanLabels;

use crate::checkpoint::{self, CheckpointFile, CheckpointLimits};
use crate::folder::{Place, entries, same_bytes};
use crate::pickle::{Array, Value};

/// The published files have less than 3 million bytes of labels.
const MOST_BYTES: u64 = 1 << 26;
const CLEAN_KEY: &str = "clean_label";

/// Which file has these labels, and under which key.
fn place(which: HumanLabels) -> (&'static str, &'static str) {
    const OF_10: &str = "CIFAR-10_human.pt";
    const OF_100: &str = "CIFAR-100_human.pt";
    match which {
        HumanLabels::Aggregate => (OF_10, "aggre_label"),
        HumanLabels::Worse => (OF_10, "worse_label"),
        HumanLabels::Random1 => (OF_10, "random_label1"),
        HumanLabels::Random2 => (OF_10, "random_label2"),
        HumanLabels::Random3 => (OF_10, "random_label3"),
        HumanLabels::Noisy => (OF_100, "noisy_label"),
    }
}

/// One label for each of the data set's training samples, from the files in `artifact`.
///
/// # Errors
/// When the file is missing or damaged, or was made for other samples than those with the labels `clean`.
pub(super) fn read(
    artifact: &Path,
    which: HumanLabels,
    clean: &[usize],
    classes: usize,
) -> anyhow::Result<Vec<usize>> {
    let (name, key) = place(which);
    let path = find(artifact, name)?;
    let [own, theirs] =
        labels(&path, [CLEAN_KEY, key]).with_context(|| format!("in {}", path.display()))?;
    ensure!(
        own.len() == clean.len() && theirs.len() == clean.len(),
        "{} has labels for {} images, but the data set has {} training images: are they of the same data set, \
         and is it complete (no train-limit)?",
        path.display(),
        theirs.len(),
        clean.len()
    );
    let differs = |(own, clean): &(&i64, &usize)| usize::try_from(**own).ok() != Some(**clean);
    let different = own.iter().zip(clean).filter(differs).count();
    ensure!(
        different == 0,
        "{}: '{CLEAN_KEY}' differs from the data set's labels for {different} of {} images: are they of the \
         same data set, in the original order?",
        path.display(),
        clean.len()
    );
    let label = |(sample, &label): (usize, &i64)| {
        usize::try_from(label).ok().filter(|&label| label < classes).with_context(|| {
            format!(
                "{}: '{key}' of image {sample} is {label}, but there are {classes} classes",
                path.display()
            )
        })
    };
    theirs.iter().enumerate().map(label).collect()
}

/// The only `.pt` file in a folder or one level below; of several, the one with this name. Several of that name with the
/// same bytes count as one.
fn find(artifact: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut files = entries(artifact, Place::Artifact)?;
    let folders: Vec<PathBuf> = files.iter().filter(|path| path.is_dir()).cloned().collect();
    for folder in folders {
        files.extend(entries(&folder, Place::Artifact)?);
    }
    files.retain(|path| path.is_file() && path.extension().is_some_and(|end| end == "pt"));
    if let [only] = files.as_slice() {
        return Ok(only.clone());
    }
    let mut named = files.iter().filter(|path| path.file_name().is_some_and(|file| file == name));
    let first = named.next();
    let first = first.with_context(|| format!("{name} is missing in {}", artifact.display()))?;
    if let Some(other) = named.find(|other| !same_bytes(first, other)) {
        bail!("which of the two is it: {} or {}?", first.display(), other.display());
    }
    Ok(first.clone())
}

/// The arrays under these keys.
fn labels(path: &Path, keys: [&str; 2]) -> anyhow::Result<[Vec<i64>; 2]> {
    let file = checkpoint::map(path)?;
    let limits = CheckpointLimits { unpacked_bytes: MOST_BYTES, ..CheckpointLimits::default() };
    let checkpoint = CheckpointFile::open(&file, &limits)?;
    let pickle = checkpoint.pickle()?.context("it is not a file of torch.save")?;
    let [own, theirs] = keys.map(|key| integers(pickle.root(), key));
    Ok([own?, theirs?])
}

fn integers(root: Value<'_>, key: &str) -> anyhow::Result<Vec<i64>> {
    let value = root.get(key).ok_or_else(|| {
        let found = root.keys_in_short().unwrap_or_else(|| root.describe());
        anyhow!("'{key}' is missing; found {found}")
    })?;
    let array = Array::of(value).unwrap_or_else(|| Err(format!("found {}", value.describe())));
    let array = array.and_then(|array| array.integers());
    array.map_err(|problem| anyhow!("'{key}': {problem}"))
}
