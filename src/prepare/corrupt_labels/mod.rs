//! The body of `corrupt-labels`: label noise, number for number that of the reference protocol.
//!
//! One generator, NumPy's legacy one, draws first the matrix and then one label per sample to
//! corrupt, in the order of the split. Or nothing is drawn, and the labels are human, or from a file. Does not depend on images, but for
//! [`instance`].

mod human;
mod instance;
mod label_file;
mod matrix;
mod pairs;

use std::path::Path;

use anyhow::{Context as _, bail};
use pipeline_stages::formats::{DatasetInfo, Labels, NoiseReport, Part, Samples};
use pipeline_stages::kinds::{CorruptLabels, Noise};
use pipeline_stages::matrix_file;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::body::Body;
use crate::numpy_random::LegacyRandom;
use crate::training_order;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use label_file::are_labels;
use matrix::NoiseMatrix;
use pairs::{asymmetric_pairs, label_of, next_classes};

impl Body for CorruptLabels {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let data = context.input("data")?;
        let DatasetInfo { classes, validation_samples, .. } = DatasetInfo::read(data)?;
        let clean = Samples::open_any(data, Part::Train)?.labels;
        let order = training_order::read(context, clean.len(), validation_samples)?;

        let clean_classes = class_indices(&clean, classes.len())?;
        let corrupted = match self.noise {
            Noise::Human => human_labels(self, context, &clean_classes, &order, classes.len())?,
            Noise::File => {
                let from = label_file::Wanted {
                    data,
                    order: &order,
                    classes: &classes,
                    clean: &clean_classes,
                };
                labels_of_a_file(self, context, &from)?
            }
            Noise::Instance => {
                instance_dependent(self, context, &clean_classes, &order, classes.len())?
            }
            _ => drawn(self, &context.folder, &clean_classes, &classes, &order, context.seed)?,
        };
        let report = corrupted.report(self, &clean_classes, &order, classes);
        let labels = corrupted.classes.iter().map(|&class| class as i64).collect();
        Labels { labels, clean }.write(&context.output)?;
        report.write(&context.output)?;
        let mut metrics = Metrics::of_counts([("samples", report.samples)]);
        metrics.insert("noise-rate".to_owned(), report.realised_rate);
        Ok(metrics)
    }
}

/// New labels.
struct Corrupted {
    /// The class of every sample; the clean one for those that were not to be corrupted.
    classes: Vec<usize>,
    /// What they were drawn from.
    matrix: Option<NoiseMatrix>,
}

/// The matrix over these classes. Files are in `folder`.
fn noise_matrix(
    stage: &CorruptLabels,
    folder: &Path,
    classes: &[String],
    random: &mut LegacyRandom,
) -> anyhow::Result<NoiseMatrix> {
    let count = classes.len();
    let rate = || stage.rate.context("the stage has no 'rate'");
    let matrix = match stage.noise {
        Noise::Symmetric => NoiseMatrix::symmetric(count, rate()?),
        Noise::Flip => NoiseMatrix::flip(count, rate()?, random)?,
        Noise::Flip2 => NoiseMatrix::flip2(count, rate()?, random)?,
        Noise::Pairflip => NoiseMatrix::asymmetric(count, rate()?, &next_classes(count))
            .context("noise = \"pairflip\" needs a data set of at least two classes")?,
        Noise::Asymmetric => {
            let pairs = asymmetric_pairs(classes, &stage.pairs)?;
            NoiseMatrix::asymmetric(count, rate()?, &pairs)?
        }
        Noise::Matrix => {
            let path = stage.matrix.as_ref().context("the stage has no 'matrix'")?;
            NoiseMatrix { rows: matrix_file::read(&folder.join(path), count)? }
        }
        Noise::Instance | Noise::Human | Noise::File => {
            bail!("this noise does not come from a matrix")
        }
    };
    let Some(names) = &stage.classes else { return Ok(matrix) };
    let chosen = names.iter().map(|name| label_of(classes, name));
    Ok(matrix.only_for(&chosen.collect::<anyhow::Result<Vec<_>>>().context("in 'classes'")?))
}

/// New labels for the samples of `order`, drawn in that order; the others keep their clean one.
fn drawn(
    stage: &CorruptLabels,
    folder: &Path,
    clean: &[usize],
    names: &[String],
    order: &[usize],
    seed: u64,
) -> anyhow::Result<Corrupted> {
    let mut random = LegacyRandom::new(seed)?;
    let matrix = noise_matrix(stage, folder, names, &mut random)?;
    let distributions = matrix.distributions();
    let drawn = order.iter().map(|&sample| random.weighted(&distributions[clean[sample]]));
    Ok(Corrupted { classes: replaced(clean, order, drawn), matrix: Some(matrix) })
}

/// New labels for the samples of `order` that depend on their pixels; the others keep their clean one.
fn instance_dependent(
    stage: &CorruptLabels,
    context: &Context,
    clean: &[usize],
    order: &[usize],
    class_count: usize,
) -> anyhow::Result<Corrupted> {
    let rate = stage.rate.context("the stage has no 'rate'")?;
    let samples = Samples::open(context.input("data")?, Part::Train)?;
    let (pixels, size) = (samples.pixels(), samples.image.bytes());
    let images = instance::LabelledImages { pixels, size, classes: clean, class_count };
    let mut random = LegacyRandom::new(context.seed)?;
    let drawn = instance::draw(&images, order, rate, &mut random, context)?;
    Ok(Corrupted { classes: replaced(clean, order, drawn), matrix: None })
}

/// Human labels for the samples of `order`; the others keep their clean one.
fn human_labels(
    stage: &CorruptLabels,
    context: &Context,
    clean: &[usize],
    order: &[usize],
    class_count: usize,
) -> anyhow::Result<Corrupted> {
    let which = stage.human_labels.context("the stage has no 'human-labels'")?;
    let theirs = human::read(context.input("human")?, which, clean, class_count)?;
    let classes = replaced(clean, order, order.iter().map(|&sample| theirs[sample]));
    Ok(Corrupted { classes, matrix: None })
}

/// Labels of the user for the samples of `wanted`; the others keep their clean one.
fn labels_of_a_file(
    stage: &CorruptLabels,
    context: &Context,
    wanted: &label_file::Wanted<'_>,
) -> anyhow::Result<Corrupted> {
    let file = match &stage.path {
        Some(path) => context.folder.join(path),
        None => label_file::find(context.input("source")?)?,
    };
    let theirs = label_file::read(&file, wanted, context)?;
    Ok(Corrupted { classes: replaced(wanted.clean, wanted.order, theirs), matrix: None })
}

/// The clean classes, with new ones for the samples of `order`.
fn replaced(clean: &[usize], order: &[usize], new: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut classes = clean.to_vec();
    for (&sample, class) in order.iter().zip(new) {
        classes[sample] = class;
    }
    classes
}

impl Corrupted {
    fn report(
        &self,
        stage: &CorruptLabels,
        clean: &[usize],
        order: &[usize],
        names: Vec<String>,
    ) -> NoiseReport {
        let transitions = order.iter().map(|&sample| (clean[sample], self.classes[sample]));
        let chosen = |chosen: &Vec<String>| {
            names.iter().filter(|name| chosen.contains(name)).cloned().collect()
        };
        NoiseReport {
            requested_rate: stage.rate,
            requested_matrix: self.matrix.as_ref().map(|matrix| matrix.rows.clone()),
            corrupted_classes: stage.classes.as_ref().map(chosen),
            ..NoiseReport::realised(stage.noise.name().to_owned(), names, transitions)
        }
    }
}

/// Labels as indices of classes.
fn class_indices(labels: &[i64], classes: usize) -> anyhow::Result<Vec<usize>> {
    let index = |(sample, &label)| {
        usize::try_from(label).ok().filter(|&class| class < classes).with_context(|| {
            format!("sample {sample} of the data set has the label {label}, but there are {classes} classes")
        })
    };
    labels.iter().enumerate().map(index).collect()
}

#[cfg(test)]
mod tests;
