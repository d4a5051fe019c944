//! Whether the files of a data set that another program wrote are right, and have the same.

use std::path::Path;

use anyhow::{bail, ensure};
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::dataset::{DatasetInfo, ImageShape, Part, Samples, Storage};
use super::tensors::{TensorFile, read_json};
use crate::text::{in_short, indistinct_classes, shortened};

/// The most names that a message names.
const SHOWN: usize = 20;

/// Checks a data set that another program wrote.
///
/// # Errors
/// When a file is missing or cannot be read, is wrong, or has something else than another, with what to do.
pub fn check_dataset(artifact: &Path) -> anyhow::Result<()> {
    let info = DatasetInfo::read(artifact)?;
    check_keys(artifact)?;
    check_info(&info)?;
    for (part, samples) in [(Part::Train, info.train_samples), (Part::Test, info.test_samples)] {
        check_tensors(artifact, part)?;
        check_samples(&Samples::open_any(artifact, part)?, part, &info, samples)?;
    }
    Ok(())
}

/// That there are no keys with a slip, where one that may be left out is meant.
fn check_keys(artifact: &Path) -> anyhow::Result<()> {
    let json = DatasetInfo::FILE;
    let found: Map<String, Value> = read_json(&artifact.join(json))?;
    // With a value in what is left out otherwise.
    let whole = DatasetInfo { storage: Storage::Encoded, validation_samples: 1, ..<_>::default() };
    let known = serde_json::to_value(whole)?;
    if let Some(key) = found.keys().find(|key| known.get(key).is_none()) {
        let known = in_short(known.as_object().into_iter().flat_map(Map::keys), SHOWN);
        bail!("{json} has '{}', which is none of its keys: {known}", shortened(key));
    }
    Ok(())
}

fn check_info(info: &DatasetInfo) -> anyhow::Result<()> {
    let (json, ImageShape { channels, height, width }) = (DatasetInfo::FILE, info.image);
    ensure!(
        info.storage == Storage::Encoded || ![channels, height, width].contains(&0),
        "{json}: images of {channels}x{height}x{width} have no pixels"
    );
    for (name, values) in [("channel-mean", &info.channel_mean), ("channel-std", &info.channel_std)]
    {
        let found = values.len();
        ensure!(found == channels, "{json}: '{name}' has {found} numbers for {channels} channels");
        if let Some(wrong) = values.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            bail!(
                "{json}: '{name}' has {wrong}, but is of pixels from 0 to 1, as shares of 255: divide them by 255"
            );
        }
    }
    ensure!(
        info.validation_samples < info.train_samples,
        "{json}: of train-samples = {}, validation-samples = {} leaves none to train on",
        info.train_samples,
        info.validation_samples
    );
    match indistinct_classes(&info.classes).first() {
        Some(problem) => bail!("{json}: {problem}"),
        None => Ok(()),
    }
}

/// That the tensors have the type and the dimensions that NumPy's do not have by themselves.
fn check_tensors(artifact: &Path, part: Part) -> anyhow::Result<()> {
    let file = part.file_name();
    let opened = TensorFile::open(&artifact.join(file))?;
    let tensors = opened.tensors()?;
    if let Ok(images) = tensors.tensor("images") {
        ensure!(
            images.dtype() == Dtype::U8,
            "{file}: 'images' is {:?}: write whole numbers from 0 to 255, images.astype('uint8')",
            images.dtype()
        );
        ensure!(
            images.shape().len() != 3,
            "{file}: 'images' has the shape {:?}, without channels: write images[:, None]",
            images.shape()
        );
    }
    if let Ok(labels) = tensors.tensor("labels") {
        ensure!(
            labels.dtype() == Dtype::I64,
            "{file}: 'labels' is {:?}: write labels.astype('int64')",
            labels.dtype()
        );
    }
    Ok(())
}

fn check_samples(
    found: &Samples,
    part: Part,
    info: &DatasetInfo,
    samples: usize,
) -> anyhow::Result<()> {
    let (file, json) = (part.file_name(), DatasetInfo::FILE);
    let ImageShape { channels, height, width } = info.image;
    match (found.storage(), info.storage) {
        (Storage::Pixels, Storage::Pixels) => ensure!(
            found.image == info.image,
            "{file} has images of [{}, {}, {}], but {json} has {channels}x{height}x{width}: write them as \
             [samples, channels, height, width], and in {json} the same numbers; with the channels last, \
             np.ascontiguousarray(images.transpose(0, 3, 1, 2))",
            found.image.channels,
            found.image.height,
            found.image.width
        ),
        (Storage::Encoded, Storage::Encoded) => ensure!(
            info.image == ImageShape::ENCODED,
            "{json}: the image of encoded ones has 3 channels, height 0 and width 0, as they differ in their sizes"
        ),
        (Storage::Pixels, _) => {
            bail!("{file} has 'images', but {json} has storage = \"encoded\": drop its 'storage'")
        }
        (Storage::Encoded, _) => bail!(
            "{file} has 'encoded' images, which {json} does not have: add \"storage\": \"encoded\""
        ),
    }
    let count = found.labels.len();
    ensure!(
        count == samples,
        "{file} has {count} samples, but {json} has {}-samples {samples}",
        part.name()
    );
    let is_wrong = |label: &i64| !(0..info.classes.len() as i64).contains(label);
    if let Some(sample) = found.labels.iter().position(is_wrong) {
        bail!(
            "{file}: the label of sample {sample} is {}, but {json} has {} classes, numbered from 0",
            found.labels[sample],
            info.classes.len()
        );
    }
    Ok(())
}
