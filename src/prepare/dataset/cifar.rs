//! The binary CIFAR-10 and CIFAR-100: records of one or two labels and 3072 pixels, red, green and blue
//! planes, each row by row.

use std::path::Path;

use anyhow::ensure;
use pipeline_stages::cifar_classes::{CIFAR10_CLASSES, cifar100_classes};
use pipeline_stages::formats::{ImageShape, Part};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::worker::Context;

use super::classes::class_names;
use super::raw::{RawDataset, RawSamples};
use super::source::{OffsetReader, SourceFolders, looks_like};
use super::work::{report_images, sample_limit};

/// The shape of CIFAR's images.
pub(super) const IMAGE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };
/// Records read at a time.
const RECORDS: u64 = 1000;

/// What differs between the two formats.
pub(super) struct CifarFormat {
    /// For each label byte of a record: its name and its number of values. The last one is the class.
    labels: &'static [(&'static str, u8)],
    train_files: &'static [&'static str],
    test_files: &'static [&'static str],
    /// Records of each train file and each test file, as published.
    records: (u64, u64),
    /// One class name per line.
    names_file: &'static str,
    /// The names if that file is missing.
    names: fn() -> Vec<&'static str>,
}

/// CIFAR-10.
pub(super) const CIFAR10: CifarFormat = CifarFormat {
    labels: &[("label", 10)],
    train_files: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test_files: &["test_batch.bin"],
    records: (10_000, 10_000),
    names_file: "batches.meta.txt",
    names: || CIFAR10_CLASSES.to_vec(),
};

/// CIFAR-100, with its fine labels.
pub(super) const CIFAR100: CifarFormat = CifarFormat {
    labels: &[("coarse label", 20), ("fine label", 100)],
    train_files: &["train.bin"],
    test_files: &["test.bin"],
    records: (50_000, 10_000),
    names_file: "fine_label_names.txt",
    names: cifar100_classes,
};

impl CifarFormat {
    fn classes(&self) -> usize {
        self.labels.last().map_or(0, |&(_, values)| values.into())
    }

    fn record_bytes(&self) -> usize {
        self.labels.len() + IMAGE.bytes()
    }
}

/// Reads the files of either format.
pub(super) fn read(
    stage: &Dataset,
    format: &CifarFormat,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<RawDataset> {
    let train_files = source.find_all(format.train_files)?;
    let test_files = source.find_all(format.test_files)?;
    let names = match source.find_optional(&[format.names_file])? {
        Some(path) => read_names(&path, format.classes())?,
        None => (format.names)().into_iter().map(str::to_owned).collect(),
    };
    let classes = class_names(stage, format.classes(), || names)?;
    let read_part = |part, files: &[std::path::PathBuf]| -> anyhow::Result<RawSamples> {
        let mut reader = PartReader {
            format,
            limit: sample_limit(stage, part),
            usual_records: match part {
                Part::Train => format.records.0,
                Part::Test => format.records.1,
            },
            context,
            samples: RawSamples { pixels: Vec::new(), labels: Vec::new() },
        };
        for path in files {
            reader.read_file(path)?;
        }
        Ok(reader.samples)
    };
    Ok(RawDataset {
        classes,
        image: IMAGE,
        train: read_part(Part::Train, &train_files)?,
        validation_samples: 0,
        test: read_part(Part::Test, &test_files)?,
    })
}

/// One part while it is read.
struct PartReader<'read> {
    format: &'read CifarFormat,
    limit: usize,
    /// How many records a file has as published.
    usual_records: u64,
    context: &'read Context,
    samples: RawSamples,
}

impl PartReader<'_> {
    /// Reads a whole file, even if the limit is reached: a damaged file is always an error.
    fn read_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let record_bytes = self.format.record_bytes();
        let mut reader = OffsetReader::open(path)?;
        loop {
            self.context.stop_point()?;
            let start = reader.offset();
            let block = reader.read_up_to(RECORDS * record_bytes as u64)?;
            if block.is_empty() && start == 0 {
                return Err(reader.error_at(0, "the file is empty"));
            }
            let records = block.chunks_exact(record_bytes);
            let rest = records.remainder().len();
            for (index, record) in records.enumerate() {
                let offset = start + (index * record_bytes) as u64;
                self.add_record(&reader, offset, record)?;
            }
            if rest > 0 {
                let message = format!(
                    "the file ends within a record, after {rest} of its {record_bytes} bytes{}",
                    looks_like(&block)
                );
                return Err(reader.error_at(reader.offset(), &message));
            }
            if block.is_empty() {
                let records = start / record_bytes as u64;
                note_unusual_length(self.context, path, records, self.usual_records);
                return Ok(());
            }
            report_images(self.context, self.samples.labels.len(), None);
        }
    }

    fn add_record(
        &mut self,
        reader: &OffsetReader,
        offset: u64,
        record: &[u8],
    ) -> anyhow::Result<()> {
        let (labels, pixels) = record.split_at(self.format.labels.len());
        for (position, (&label, &(name, values))) in
            (0..).zip(labels.iter().zip(self.format.labels))
        {
            if label >= values {
                let message = format!("expected a {name} from 0 to {}, found {label}", values - 1);
                let hint = if offset == 0 { looks_like(record) } else { "" };
                return Err(reader.error_at(offset + position, &format!("{message}{hint}")));
            }
        }
        if self.samples.labels.len() < self.limit {
            self.samples.labels.extend(labels.last().map(|&label| i64::from(label)));
            self.samples.pixels.extend_from_slice(pixels);
        }
        Ok(())
    }
}

/// Notes that a file has more or fewer images than the published one: a subset that somebody made cannot be
/// distinguished from a file that was cut off between two images.
pub(super) fn note_unusual_length(context: &Context, path: &Path, images: u64, usual: u64) {
    if images != usual {
        let path = path.display();
        context.note(format!("{path}: {images} images, but the published file has {usual}"));
    }
}

/// Whether a file has the names of three classes. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn are_names(path: &Path) -> bool {
    let names = read_names(path, 3).and_then(super::classes::distinct);
    names.is_ok_and(|names| names.iter().all(|name| name.trim() == name))
}

/// The names of the classes from a file with one per line.
pub(super) fn read_names(path: &Path, classes: usize) -> anyhow::Result<Vec<String>> {
    let bytes = OffsetReader::open(path)?.read_up_to(1 << 20)?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(
        names.len() == classes,
        "{}: expected {classes} class names, one per line, found {}",
        path.display(),
        names.len()
    );
    Ok(names)
}
