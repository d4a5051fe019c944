//! `pipeline init --data FOLDER`: a manifest for the images in a folder.
//!
//! Looks only at the names of files. What they are is found out when the manifest runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use pipeline_stages::image_file::ImageFileFormat;
use pipeline_stages::left_out::{LeftOut, is_of_a_file_manager};
use pipeline_stages::links::last_link;

/// The deepest nesting of folders, as a data set has it.
const DEEPEST: usize = 64;

/// The layout that is wanted.
const LAYOUT: &str = "the images go into train/CLASS/ and test/CLASS/, and into val/CLASS/ where there are some for validation";

/// The folders in it.
const PARTS: [&str; 3] = ["train", "test", "val"];

/// What is in a folder of images.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageFolder {
    /// The folder, as it is written in the manifest.
    pub(super) path: String,
    /// The name of the folder.
    pub(super) name: String,
    /// Per class, how many images there are for training.
    pub(super) train: BTreeMap<String, usize>,
    /// How many there are for testing.
    pub(super) test: usize,
    /// How many there are for validation.
    pub(super) validation: usize,
}

impl ImageFolder {
    /// Looks into `folder`; the manifest will be in `manifest_folder`.
    ///
    /// # Errors
    /// When there are no folders of classes in it.
    pub(super) fn look(folder: &Path, manifest_folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        ensure!(folder.is_dir(), "{shown} is not a folder");
        if let Some((name, part)) = misspelt(folder)? {
            bail!("{shown} has {name}/, which must be {part}/, in small letters: {LAYOUT}");
        }
        let train = classes(&folder.join("train"))?;
        if train.is_empty() {
            let is_class =
                |(name, images): &(String, usize)| *images > 0 && !PARTS.contains(&name.as_str());
            let beside = match classes(folder)?.into_iter().filter(is_class).count() {
                0 => bail!("{shown} has no images in train/CLASS/: {LAYOUT}"),
                1 => "1 folder".to_owned(),
                count => format!("{count} folders"),
            };
            match (folder.join("train").is_dir(), folder.join("test").is_dir()) {
                (true, _) => {
                    bail!("{shown} has {beside} with images, but none in train/CLASS/: {LAYOUT}")
                }
                (false, true) => bail!("{shown} has {beside} with images, but no train/: {LAYOUT}"),
                (false, false) => bail!(
                    "{shown} has {beside} with images, but no train/ and test/: {LAYOUT}; set a part of each class aside for testing"
                ),
            }
        }
        if let Some((class, _)) = train.iter().find(|(_, images)| **images == 0) {
            bail!("{shown}/train/{class} has no images: remove this folder, or add some");
        }
        ensure!(
            train.len() > 1,
            "{shown}/train has one class only: there is nothing to tell apart"
        );
        let images_of = |part: &str| {
            let found = classes(&folder.join(part))?;
            if let Some(class) = found.keys().find(|class| !train.contains_key(*class)) {
                bail!("{shown}/{part}/{class} is not a class of train/: {LAYOUT}");
            }
            Ok(found.values().sum())
        };
        let test = images_of("test")?;
        ensure!(test > 0, "{shown} has no images in test/CLASS/: {LAYOUT}");
        let validation = images_of("val")?;
        let path = relative(folder, manifest_folder)?;
        let name = absolute(folder)?.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { path, name, train, test, validation })
    }

    /// How many images there are for training.
    fn train_images(&self) -> usize {
        self.train.values().sum()
    }

    /// `48 images of 2 classes for training and 8 for testing`.
    pub(super) fn in_words(&self) -> String {
        let (images, classes) = (self.train_images(), self.train.len());
        format!("{images} images of {classes} classes for training and {} for testing", self.test)
    }

    pub(super) fn manifest(&self) -> String {
        let images = self.train_images();
        let name: String = self
            .name
            .chars()
            .filter(|letter| letter.is_alphanumeric() || "-_ .".contains(*letter))
            .collect();
        let name = name.trim_matches([' ', '.', '-']);
        let name = if name.is_empty() { "images" } else { name };
        // A tenth, but not more than the 1,000 of the paper; enough to have all classes in it.
        let holdout = (images / 10).min(1000).max(self.train.len().min(images / 2)).max(1);
        let batch = (images - holdout).clamp(1, 100);
        let split = match self.validation {
            0 => format!(
                "# {holdout} training images keep their labels: they validate, and Meta-Weight-Net would learn from them.\n\
                 [stages.split]\nkind = \"split\"\ndata = \"data\"\nholdout = {holdout}\n"
            ),
            count => format!(
                "# The images of val/ ({count}) keep their labels: they validate, and Meta-Weight-Net would learn from them.\n\
                 [stages.split]\nkind = \"split\"\ndata = \"data\"\nfrom = \"val-folder\"\n"
            ),
        };
        let (classes, test) = (self.train.len(), self.test);
        let path = toml::Value::from(self.path.as_str());
        format!(
            r#"# A classifier for the images of {folder}, trained with wrong labels.
#
#     pipeline run pipeline.toml
#
# `pipeline kinds train` lists what a training can do, `pipeline kinds corrupt-labels` other kinds of noise.

[experiment]
name = "{name}"
seed = 220

# {images} images of {classes} classes for training, {test} for testing. Each is made {SIZE} pixels square: larger ones show more, and take
# longer. Photographs for a network with 224 pixels stay files: encoded = true, and architecture = "resnet18-224" below.
[stages.data]
kind = "dataset"
format = "image-folder"
path = {path}
size = {SIZE}

{split}
# Of the other labels, 40 % are drawn again from all classes. Drop `labels` from `train` to train with the labels as they are.
[stages.noisy]
kind = "corrupt-labels"
data = "data"
split = "split"
noise = "symmetric"
rate = 0.4

# A small network, for a CPU. With a GPU: architecture = "resnet18" or "resnet50", epochs = 120.
[stages.train]
kind = "train"
data = "data"
split = "split"
labels = "noisy"
architecture = "resnet8-fast"
epochs = 20
batch-size = {batch}
learning-rate = 0.05

[stages.evaluate]
kind = "evaluate"
model = "train"
data = "data"
"#,
            folder = one_line(&self.name),
        )
    }
}

/// The height and width of the images of the manifest.
const SIZE: u32 = 32;

/// A folder with folders of which only the case of letters is not that of a part, with that part, which does not exist.
fn misspelt(folder: &Path) -> anyhow::Result<Option<(String, &'static str)>> {
    let missing: Vec<_> = PARTS.into_iter().filter(|part| !folder.join(part).is_dir()).collect();
    // One without folders is a class of that name.
    let has_folders = |path: &PathBuf| {
        path.is_dir() && entries(path).is_ok_and(|all| all.iter().any(|one| one.is_dir()))
    };
    let found = entries(folder)?.into_iter().filter(has_folders).find_map(|path| {
        let name = path.file_name()?.to_str()?;
        let part = missing.iter().find(|part| name.eq_ignore_ascii_case(part))?;
        Some((name.to_owned(), *part))
    });
    Ok(found)
}

/// Per class, a folder in `folder`, how many images are in it. Empty where there is no such folder.
fn classes(folder: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut classes = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(classes);
    }
    for path in entries(folder)? {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            classes.insert(name, images(&path, &mut Vec::new())?);
        }
    }
    Ok(classes)
}

/// How many images are in a folder and below it, counted as a data set lists them: links are followed, and one that leads to a
/// folder that contains it is an error. `above`: the folders that it is in, by device and number.
fn images(folder: &Path, above: &mut Vec<(u64, u64)>) -> anyhow::Result<usize> {
    let shown = folder.display();
    let metadata = folder.metadata().with_context(|| format!("cannot read {shown}"))?;
    let identity = (metadata.dev(), metadata.ino());
    ensure!(
        !above.contains(&identity),
        "{} is a link to a folder that contains it: remove the link",
        last_link(folder).display()
    );
    ensure!(above.len() < DEEPEST, "{shown}: folders are nested more than {DEEPEST} deep");
    above.push(identity);
    let mut count = 0;
    for path in entries(folder)? {
        if path.is_dir() {
            count += images(&path, above)?;
        } else {
            let ending = path.extension().and_then(|ending| ending.to_str());
            let ending = ending.unwrap_or_default().to_ascii_lowercase();
            count += usize::from(ImageFileFormat::EXTENSIONS.contains(&ending.as_str()));
        }
    }
    above.pop();
    Ok(count)
}

/// What is in a folder, but for hidden entries and what a data set leaves out.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("cannot read {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if !is_hidden
            && !is_of_a_file_manager(&name)
            && !LeftOut::default().leaves_out(name.as_ref())
        {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// The folder as it is written in a manifest in `from`: relative, where it is below that.
fn relative(folder: &Path, from: &Path) -> anyhow::Result<String> {
    let (folder, from) = (absolute(folder)?, absolute(from)?);
    let path = folder.strip_prefix(&from).unwrap_or(&folder);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{} is not UTF-8 text: rename it", path.display()))
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(path.canonicalize().or_else(|_| std::path::absolute(path))?)
}

/// A text for a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
