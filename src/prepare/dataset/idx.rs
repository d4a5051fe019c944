//! The idx format of MNIST and its relatives: big-endian, a magic number, the lengths, then the items.
//!
//! The magic number is 0, 0, the type of the items (8: unsigned bytes) and the number of dimensions
//! (LeCun, Cortes and Burges, "The MNIST database"). The format does not have names of classes.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use pipeline_stages::formats::{ImageShape, Part};
use pipeline_stages::kinds::Dataset;
use pipeline_stages::worker::Context;

use super::classes::class_names;
use super::raw::{RawDataset, RawSamples};
use super::source::{OffsetReader, SourceFolders, looks_like};
use super::work::sample_limit;

/// The largest side of an image: a header with more is damaged.
const LONGEST_SIDE: u64 = 1 << 15;

/// Reads the four files.
pub(super) fn read(
    stage: &Dataset,
    source: &SourceFolders,
    context: &Context,
) -> anyhow::Result<RawDataset> {
    // All four files are found before the first is read.
    let (train_files, test_files) =
        (PartFiles::find(source, Part::Train)?, PartFiles::find(source, Part::Test)?);
    context.stop_point()?;
    let train = train_files.read(sample_limit(stage, Part::Train))?;
    context.stop_point()?;
    let test = test_files.read(sample_limit(stage, Part::Test))?;
    ensure!(
        train.image == test.image,
        "{} has images of {}x{} pixels, but {} has {}x{}",
        train_files.images.display(),
        train.image.height,
        train.image.width,
        test_files.images.display(),
        test.image.height,
        test.image.width
    );
    if let Some(classes) = &stage.classes {
        train.check_labels(&train_files, classes.len())?;
        test.check_labels(&test_files, classes.len())?;
    }
    // The format does not have names of classes: the highest label shows their smallest number.
    let highest = 1 + usize::from(train.highest_label().max(test.highest_label()));
    let count = stage.classes.as_ref().map_or(highest, Vec::len);
    let classes =
        class_names(stage, count, || (0..count).map(|label| label.to_string()).collect())?;
    Ok(RawDataset {
        classes,
        image: train.image,
        train: train.samples(),
        validation_samples: 0,
        test: test.samples(),
    })
}

/// The two files of a part.
struct PartFiles {
    images: PathBuf,
    labels: PathBuf,
}

impl PartFiles {
    fn find(source: &SourceFolders, part: Part) -> anyhow::Result<Self> {
        let prefix = match part {
            Part::Train => "train",
            Part::Test => "t10k",
        };
        let find = |items: &str, dimensions: u32| {
            // With a dot: some programs unpack MNIST's files under these names.
            let names = ["-", "."]
                .map(|separator| format!("{prefix}-{items}{separator}idx{dimensions}-ubyte"));
            let [dash, dot] = names;
            source.find(&[&dash, &format!("{dash}.gz"), &dot, &format!("{dot}.gz")])
        };
        Ok(Self { images: find("images", 3)?, labels: find("labels", 1)? })
    }

    fn read(&self, limit: usize) -> anyhow::Result<PartContent> {
        let mut labels_reader = OffsetReader::open(&self.labels)?;
        let [label_count] = read_header(&mut labels_reader)?;
        if label_count == 0 {
            return Err(labels_reader.error_at(4, "the file has no samples"));
        }
        let mut reader = OffsetReader::open(&self.images)?;
        let [count, height, width] = read_header(&mut reader)?;
        if ![height, width].iter().all(|side| (1..=LONGEST_SIDE).contains(side)) {
            let message =
                format!("expected the height and width of an image, found {height} and {width}");
            return Err(reader.error_at(8, &message));
        }
        ensure!(
            count == label_count,
            "{} has {count} images, but {} has {label_count} labels",
            self.images.display(),
            self.labels.display(),
        );
        let image = ImageShape { channels: 1, height: height as usize, width: width as usize };
        let kept = count.min(limit as u64);
        // Below 2^32 images of at most 2^30 bytes: no overflow.
        let pixels = reader.read_exactly(kept * height * width, "pixels")?;
        reader.skip_exactly((count - kept) * height * width, "pixels")?;
        reader.expect_end()?;
        // Compressed labels unpack to at most as many bytes as the images have, which exist.
        let labels = labels_reader.read_exactly(label_count, "labels")?;
        labels_reader.expect_end()?;
        Ok(PartContent { image, pixels, labels, kept: kept as usize })
    }
}

/// A part as it is in its files.
struct PartContent {
    image: ImageShape,
    /// Of the first `kept` images.
    pixels: Vec<u8>,
    /// Of all images.
    labels: Vec<u8>,
    kept: usize,
}

impl PartContent {
    fn highest_label(&self) -> u8 {
        self.labels.iter().copied().max().unwrap_or(0)
    }

    fn check_labels(&self, files: &PartFiles, classes: usize) -> anyhow::Result<()> {
        let Some(sample) = self.labels.iter().position(|&label| usize::from(label) >= classes)
        else {
            return Ok(());
        };
        bail!(
            "{}: at offset {}: the label of sample {sample} is {}, but 'classes' names {classes} classes",
            files.labels.display(),
            LABELS_HEADER_BYTES + sample,
            self.labels[sample],
        )
    }

    fn samples(self) -> RawSamples {
        let labels = self.labels.iter().take(self.kept).map(|&label| label.into()).collect();
        RawSamples { pixels: self.pixels, labels }
    }
}

const LABELS_HEADER_BYTES: usize = 8;

/// The lengths of the dimensions, from the header of a file of unsigned bytes.
fn read_header<const DIMENSIONS: usize>(
    reader: &mut OffsetReader,
) -> anyhow::Result<[u64; DIMENSIONS]> {
    let expected = [0, 0, 8, DIMENSIONS as u8];
    let header = reader.read_up_to(4 + 4 * DIMENSIONS as u64)?;
    if !header.starts_with(&expected) {
        let start = &header[..header.len().min(4)];
        let message = format!(
            "expected the magic number {:02x?} of an idx file of bytes with {DIMENSIONS} dimension{}, found {start:02x?}{}",
            expected,
            if DIMENSIONS == 1 { "" } else { "s" },
            looks_like(&header)
        );
        return Err(reader.error_at(0, &message));
    }
    let (lengths, _) = header[4..].as_chunks::<4>();
    <[[u8; 4]; DIMENSIONS]>::try_from(lengths)
        .map(|lengths| lengths.map(|length| u32::from_be_bytes(length).into()))
        .map_err(|_| reader.error_at(header.len() as u64, "the file ends within its header"))
}
