//! Clothing1M (Xiao et al., "Learning From Massive Noisy Labeled Data for Image Classification", CVPR 2015):
//! a million photographs of clothes with labels from the surrounding text, some of them checked by people.
//!
//! Lists have the images of each part, one path per line; other files have the labels, one "path label" per line.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::formats::{DatasetInfo, ImageShape, Part, SamplesWriter, Storage};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::text::shortened;
use pipeline_stages::worker::Context;

use super::cifar::read_names;
use super::classes::class_names;
use super::encoded::{EncodedImages, ImageFiles, sampled_statistics};
use super::source::{SourceFolders, read_whole};
use super::work::{sample_limit, thread_pool};

const CLASSES: usize = 14;
/// The largest of the text files has about 60 million bytes.
const MOST_TEXT_BYTES: u64 = 1 << 28;

/// Advice for people who do not have the files.
pub(super) const WHERE_FROM: &str = "Clothing1M is available from its authors on request (see \
     https://github.com/Cysu/noisy_label): put the lists and label files into one folder and unpack the \
     images next to them, as images/0 to images/9";

/// Writes both parts: noisy samples, then those for validation; clean samples for testing.
pub(super) fn write(
    stage: &Dataset,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<DatasetInfo> {
    let names = read_names(&find(source, "category_names_eng.txt")?, CLASSES)?;
    let classes = class_names(stage, CLASSES, || names)?;
    let read = |part: &str, kind: &str, limit| {
        context.stop_point()?;
        LabelledList::read(source, part, kind, limit)
    };
    let train = read("noisy_train", "noisy", sample_limit(stage, Part::Train))?;
    let validation = read("clean_val", "clean", usize::MAX)?;
    let test = read("clean_test", "clean", sample_limit(stage, Part::Test))?;
    let root = images_root(source)?;

    thread_pool(context)?.install(|| {
        let total = train.labels.len() + validation.labels.len() + test.labels.len();
        let mut images = EncodedImages::new(total, context);
        let mut train_part = SamplesWriter::encoded(&context.output, Part::Train)?;
        for list in [&train, &validation] {
            list.with_files(&root, |files| images.append(files, &mut train_part))?;
        }
        let mut test_part = SamplesWriter::encoded(&context.output, Part::Test)?;
        test.with_files(&root, |files| images.append(files, &mut test_part))?;
        images.finish(WHERE_FROM)?;
        let statistics = train.with_files(&root, |files| sampled_statistics(files, context))?;
        let info = DatasetInfo {
            format: stage.format.name().to_owned(),
            classes,
            storage: Storage::Encoded,
            image: ImageShape::ENCODED,
            train_samples: train_part.samples(),
            validation_samples: validation.labels.len(),
            test_samples: test_part.samples(),
            channel_mean: statistics.mean,
            channel_std: statistics.std,
        };
        train_part.finish()?;
        test_part.finish()?;
        Ok(info)
    })
}

fn find(source: &SourceFolders, name: &str) -> anyhow::Result<PathBuf> {
    source
        .find_optional(&[name])?
        .ok_or_else(|| anyhow!("{name} is missing in {}; {WHERE_FROM}", source.in_words()))
}

/// The folder that the paths in the lists are relative to.
fn images_root(source: &SourceFolders) -> anyhow::Result<PathBuf> {
    let mut with_images = source.folders().iter().filter(|folder| folder.join("images").is_dir());
    let root = with_images.next().with_context(|| {
        format!("the folder 'images' is missing in {}; {WHERE_FROM}", source.in_words())
    })?;
    if let Some(other) = with_images.next() {
        bail!("which of the two is it: {}/images or {}/images?", root.display(), other.display());
    }
    Ok(root.clone())
}

/// The images of a part, in the order of their list.
struct LabelledList {
    text: String,
    /// Where each path is in the text.
    keys: Vec<(u32, u32)>,
    labels: Vec<i64>,
}

impl LabelledList {
    /// Reads the list of a part and the labels of its images, the first `limit` of them.
    fn read(source: &SourceFolders, part: &str, kind: &str, limit: usize) -> anyhow::Result<Self> {
        let list_path = find(source, &format!("{part}_key_list.txt"))?;
        let labels_path = find(source, &format!("{kind}_label_kv.txt"))?;
        let (text, labels) = (read_text(&list_path)?, read_text(&labels_path)?);
        Self::parse(text, &labels, [&list_path, &labels_path], limit)
    }

    /// From the text of a list and of the labels, which are in these files.
    fn parse(
        text: String,
        labels: &str,
        [list_path, labels_path]: [&Path; 2],
        limit: usize,
    ) -> anyhow::Result<Self> {
        let label_of = labels_by_key(labels, labels_path)?;
        let (mut keys, mut labels) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let key = line.trim();
            if key.is_empty() {
                continue;
            }
            if keys.len() == limit {
                break;
            }
            ensure!(
                Path::new(key).components().all(|part| matches!(part, Component::Normal(_))),
                "{}:{number}: '{}' is outside the folder of the images",
                list_path.display(),
                shortened(key)
            );
            let label = label_of.get(key).with_context(|| {
                format!(
                    "{}:{number}: '{}' has no label in {}",
                    list_path.display(),
                    shortened(key),
                    labels_path.display()
                )
            })?;
            let start = key.as_ptr() as usize - text.as_ptr() as usize;
            keys.push((u32::try_from(start)?, u32::try_from(start + key.len())?));
            labels.push(*label);
        }
        ensure!(!keys.is_empty(), "{} does not list any images", list_path.display());
        Ok(Self { text, keys, labels })
    }

    fn with_files<T>(&self, root: &Path, take: impl FnOnce(&ImageFiles<'_>) -> T) -> T {
        let path = |index: usize| {
            let place = self.keys.get(index).map(|&(start, end)| start as usize..end as usize);
            root.join(place.and_then(|place| self.text.get(place)).unwrap_or_default())
        };
        take(&ImageFiles { path: &path, labels: &self.labels })
    }
}

/// Whether a text lists images, and another one has their labels. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn are_lists(text: &str, labels: &str) -> bool {
    let paths = ["list", "labels"].map(Path::new);
    let list = LabelledList::parse(text.to_owned(), labels, paths, usize::MAX);
    let Ok(list) = list else { return false };
    let root = Path::new("/root");
    list.with_files(root, |files| {
        for (index, label) in files.labels.iter().enumerate() {
            let path = (files.path)(index);
            let below = path.strip_prefix(root).expect("below the folder of the images");
            assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
            assert!(below.components().next().is_some() && (0..CLASSES as i64).contains(label));
        }
    });
    true
}

/// From lines of "path label".
fn labels_by_key<'text>(text: &'text str, path: &Path) -> anyhow::Result<HashMap<&'text str, i64>> {
    let mut labels = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let entry = line.trim().rsplit_once(char::is_whitespace);
        let entry = entry.and_then(|(key, label)| Some((key.trim_end(), label.parse().ok()?)));
        let Some((key, label)) = entry.filter(|(_, label)| (0..CLASSES as i64).contains(label))
        else {
            bail!(
                "{}:{number}: expected a path and a label from 0 to {}, found '{}'",
                path.display(),
                CLASSES - 1,
                shortened(line)
            );
        };
        labels.insert(key, label);
    }
    Ok(labels)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read_whole(path, MOST_TEXT_BYTES)?)
        .map_err(|_| anyhow!("{} is not text (UTF-8)", path.display()))
}
