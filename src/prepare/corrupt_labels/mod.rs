//! The body of `corrupt-labels`: label noise, number for number that of the reference protocol.
//!
//! One generator, NumPy's legacy one, draws first the matrix and then one label per sample to
//! corrupt, in the order of the split. Knows no images.

mod matrix;
mod numpy;
mod pairs;

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{DatasetInfo, Labels, NoiseReport, Part, Samples, SplitIndices};
use pipeline_stages::kinds::{CorruptLabels, Noise};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::Body;
use matrix::NoiseMatrix;
use numpy::LegacyRandom;
use pairs::asymmetric_pairs;

impl Body for CorruptLabels {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let data = context.input("data")?;
        let classes = DatasetInfo::read(data)?.classes;
        let clean = Samples::open_any(data, Part::Train)?.labels;
        let order = match context.optional_input("split") {
            Some(split) => SplitIndices::read(&split.path)?.train,
            None => (0..clean.len() as i64).collect(),
        };
        let order = checked_order(&order, clean.len())?;

        let (labels, report) = corrupt(self, &clean, classes, &order, context.seed)?;
        Labels { labels, clean }.write(&context.output)?;
        report.write(&context.output)?;
        Ok(Metrics::from([
            ("noise-rate".to_owned(), report.realised_rate),
            ("samples".to_owned(), report.samples as f64),
        ]))
    }
}

/// The matrix over these classes.
fn noise_matrix(
    stage: &CorruptLabels,
    classes: &[String],
    random: &mut LegacyRandom,
) -> anyhow::Result<NoiseMatrix> {
    let count = classes.len();
    match stage.noise {
        Noise::Symmetric => Ok(NoiseMatrix::symmetric(count, stage.rate)),
        Noise::Flip => NoiseMatrix::flip(count, stage.rate, random),
        Noise::Flip2 => NoiseMatrix::flip2(count, stage.rate, random),
        Noise::Asymmetric => {
            let pairs = asymmetric_pairs(classes, &stage.pairs)?;
            NoiseMatrix::asymmetric(count, stage.rate, &pairs)
        }
    }
}

/// New labels for the samples of `order`, drawn in that order; the others keep their clean one.
fn corrupt(
    stage: &CorruptLabels,
    clean: &[i64],
    classes: Vec<String>,
    order: &[usize],
    seed: u64,
) -> anyhow::Result<(Vec<i64>, NoiseReport)> {
    let clean_classes = class_indices(clean, classes.len())?;
    let mut random = LegacyRandom::new(seed)?;
    let matrix = noise_matrix(stage, &classes, &mut random)?;
    let distributions = matrix.distributions();

    let mut noisy_classes = clean_classes.clone();
    for &sample in order {
        noisy_classes[sample] = random.weighted(&distributions[clean_classes[sample]]);
    }
    let transitions = || order.iter().map(|&sample| (clean_classes[sample], noisy_classes[sample]));
    let corrupted = transitions().filter(|(clean, noisy)| clean != noisy).count();
    let report = NoiseReport {
        noise: stage.noise.name().to_owned(),
        requested_rate: stage.rate,
        realised_rate: corrupted as f64 / order.len().max(1) as f64,
        samples: order.len(),
        corrupted,
        requested_matrix: matrix.rows,
        realised_matrix: NoiseMatrix::realised(classes.len(), transitions()).rows,
        classes,
    };
    let labels = noisy_classes.into_iter().map(|class| class as i64).collect();
    Ok((labels, report))
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

/// The samples to corrupt, each at most once.
fn checked_order(order: &[i64], samples: usize) -> anyhow::Result<Vec<usize>> {
    let mut seen = vec![false; samples];
    let check = |&index: &i64| {
        let slot = usize::try_from(index).ok().filter(|&index| index < samples).with_context(|| {
            format!("the split names sample {index}, but the data set has {samples}: it is a split of another data set")
        })?;
        ensure!(!seen[slot], "the split names sample {index} twice");
        seen[slot] = true;
        Ok(slot)
    };
    order.iter().map(check).collect()
}

#[cfg(test)]
mod tests;
