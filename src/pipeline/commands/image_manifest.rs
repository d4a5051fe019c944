//! A manifest for a folder of images: what is in the folder, and values that go with it.
//!
//! Does not depend on where the manifest is written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use pipeline_stages::image_file::{ImageFile, ImageFileFormat};
use pipeline_stages::left_out::is_of_a_file_manager;

/// How many images the sizes are taken from.
const MEASURED: usize = 64;
/// Images up to this side become inputs as they are; larger ones are resized to [`RESIZED`].
const SMALL: u32 = 64;
const RESIZED: u32 = 64;
/// The deepest nesting of folders in a class.
const DEEPEST: usize = 64;
/// One of so many training images validates, without a folder `val`.
const HOLDOUT_SHARE: usize = 10;
const ENDINGS: &str = ".jpg, .jpeg, .png or .webp";

/// What is in a folder of images.
pub(crate) struct ImageFolder {
    /// Those of `train`, by name.
    classes: Vec<String>,
    train: usize,
    validation: usize,
    test: usize,
    /// The median of the shorter sides in pixels.
    side: u32,
}

impl ImageFolder {
    /// Looks into `train`, `test` and `val`.
    ///
    /// # Errors
    /// When the folder does not have the form that the kind `dataset` reads, with what to do.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        ensure!(folder.is_dir(), "{} is not a folder", folder.display());
        let [train, test, val] = ["train", "test", "val"].map(|part| folder.join(part));
        for (part, what) in [(&train, "to train on"), (&test, "to evaluate on")] {
            ensure!(
                part.is_dir(),
                "the folder {} is missing: put images {what} there, in a folder for each class: {}/<class>/",
                part.display(),
                part.display()
            );
        }
        let mut classes = Vec::new();
        let mut files = Vec::new();
        for class in folders(&train)? {
            let name = class.file_name().and_then(|name| name.to_str());
            let name =
                name.with_context(|| format!("the name of {} is not UTF-8", class.display()))?;
            let images = images(&class)?;
            ensure!(
                !images.is_empty(),
                "{} has no images ({ENDINGS}): remove it, or put images there",
                class.display()
            );
            classes.push(name.to_owned());
            files.extend(images);
        }
        ensure!(
            classes.len() > 1,
            "{} has {} folders of classes, and a classifier needs two: {}/<class>/",
            train.display(),
            classes.len(),
            train.display()
        );
        let in_part = |part: &Path| -> anyhow::Result<usize> {
            let counts =
                classes.iter().map(|class| part.join(class)).filter(|class| class.is_dir());
            counts.map(|class| Ok(images(&class)?.len())).sum()
        };
        let tested = in_part(&test)?;
        ensure!(
            tested > 0,
            "{} has no images ({ENDINGS}) in folders of the classes of {}",
            test.display(),
            train.display()
        );
        Ok(Self {
            train: files.len(),
            validation: if val.is_dir() { in_part(&val)? } else { 0 },
            test: tested,
            side: median_side(&files)?,
            classes,
        })
    }

    /// What was found, for a message.
    pub(crate) fn in_words(&self) -> String {
        let Self { train, validation, test, .. } = self;
        let validation = match validation {
            0 => String::new(),
            count => format!(", {count} for validation"),
        };
        let classes = self.classes.len();
        format!("{train} training images of {classes} classes{validation}, and {test} test images")
    }

    /// The manifest. `path` is the folder as it names it.
    pub(crate) fn manifest(&self, path: &str) -> String {
        let Self { classes, train, validation, test, side } = self;
        let words = self.in_words();
        let (size, is_resized) =
            if *side <= SMALL { (*side, "") } else { (RESIZED, " They are resized.") };
        let shown: Vec<&str> = classes.iter().take(10).map(String::as_str).collect();
        let more = if classes.len() > shown.len() { ", ..." } else { "" };
        let shown = shown.join(", ");
        // A class name may have characters that would end a comment.
        let shown: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let split = match validation {
            0 => {
                let holdout = (train / HOLDOUT_SHARE).max(1);
                format!(
                    "holdout = {holdout} # of {train} training images; these validate, and keep their labels"
                )
            }
            count => format!("from = \"val-folder\" # the {count} images of val/ validate"),
        };
        let trained = if *validation > 0 { *train } else { train - (train / HOLDOUT_SHARE).max(1) };
        let batch = trained.clamp(1, 64);
        let path = toml::Value::String(path.to_owned());
        format!(
            r#"# {words}.
#
# Written by `pipeline init --data`; change whatever you like. `pipeline kinds` lists all parameters.

[experiment]
name = "images"
seed = 220

# The classes: {shown}{more}
[stages.data]
kind = "dataset"
format = "image-folder"
path = {path}
size = {size} # the shorter side of half of the images has {side} pixels or more.{is_resized}

[stages.split]
kind = "split"
data = "data"
{split}

# An encoder for two CPU cores. With a GPU: architecture = "resnet18", and epochs = 100.
[stages.train]
kind = "train"
data = "data"
split = "split"
architecture = "resnet8-fast"
epochs = 30
batch-size = {batch}
learning-rate = 0.05
augmentation = "crop-flip"

# On the {test} test images.
[stages.evaluate]
kind = "evaluate"
model = "train"
data = "data"
"#
        )
    }
}

/// The folders in a folder, by name; without hidden ones.
fn folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|entry| entry.is_dir()).collect())
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("cannot read the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && !is_of_a_file_manager(&name) {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The image files in a folder and below.
fn images(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in entries(&folder)? {
            if !entry.is_dir() {
                found.extend(has_image_ending(&entry).then_some(entry));
            } else {
                ensure!(
                    depth < DEEPEST,
                    "{}: folders are nested more than {DEEPEST} deep, or a link leads back",
                    folder.display()
                );
                open.push((entry, depth + 1));
            }
        }
    }
    Ok(found)
}

fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ImageFileFormat::EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The median of the shorter sides of some of the images, evenly spaced.
fn median_side(files: &[PathBuf]) -> anyhow::Result<u32> {
    let step = files.len().div_ceil(MEASURED).max(1);
    let mut sides = Vec::new();
    for path in files.iter().step_by(step) {
        let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let image = ImageFile::open(&file).with_context(|| path.display().to_string())?;
        sides.push(image.width.min(image.height).max(1));
    }
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied().context("there are no images")
}
