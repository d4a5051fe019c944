//! `purify-labels`: labels that the features of the samples suggest.
//!
//! How they are found is beside: [`neighbours`] and [`votes`], or [`linear`]. What they are found from is here: never a clean
//! label of a sample that trains.

pub mod found;
pub mod linear;
pub mod neighbours;
pub mod votes;

use anyhow::{bail, ensure};
use pipeline_stages::formats::{
    FeatureFile, Labels, NoiseReport, Part, Purification, PurifiedLabels, SampleSplit, SplitIndices,
};
use pipeline_stages::kind;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{Purifier, PurifyLabels};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Device, Tensor};

use self::found::{Found, surest};
use self::linear::{CleanSamples, Regression, largest};
use self::neighbours::Neighbours;
use self::votes::Sizes;
use super::features::source::{STORED, tensor};
use crate::data::augment::batched::upload;
use crate::{Body, device};

impl Body for PurifyLabels {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, Precision::F32)?;
        context.ran_on(device::ran_on(device));
        let _no_gradients = tch::no_grad_guard();
        let inputs = Inputs::read(context)?;
        let found = inputs.purify(self, context, device)?;
        let purified = inputs.with(&found, &surest(&found, self.share.unwrap_or(1.0)));
        purified.write(&context.output)?;
        let after = inputs.report(format!("purified by {}", self.method), &purified.labels.labels);
        after.write(&context.output)?;
        let changed = |&&sample: &&u32| {
            let sample = sample as usize;
            purified.labels.labels[sample] != purified.given[sample]
        };
        let uses_clean = self.needs_clean();
        let purification = Purification {
            parameters: kind::key_parameters(self).into(),
            uses_clean,
            clean_samples_used: if uses_clean { inputs.split.validation.len() } else { 0 },
            samples: found.len(),
            changed_labels: inputs.split.train.iter().filter(changed).count(),
        };
        purification.write(&context.output)?;

        let mut metrics = Metrics::of_counts([
            ("samples", purification.samples),
            ("changed-labels", purification.changed_labels),
            ("clean-samples-used", purification.clean_samples_used),
        ]);
        let confidences: f64 = found.iter().map(|found| f64::from(found.confidence())).sum();
        metrics.insert("mean-confidence".to_owned(), confidences / found.len() as f64);
        if inputs.clean_is_known {
            let before = inputs.report(String::new(), &purified.given);
            for (name, report) in [("before", &before), ("after", &after)] {
                metrics.insert(format!("label-accuracy-{name}"), 1.0 - report.realised_rate);
            }
        }
        Ok(metrics)
    }
}

/// What labels are found from, checked against each other.
struct Inputs {
    features: FeatureFile,
    labels: Labels,
    /// Whether the labels came beside clean ones.
    clean_is_known: bool,
    split: SampleSplit,
}

impl Inputs {
    fn read(context: &Context) -> anyhow::Result<Self> {
        let features = FeatureFile::open(context.input(STORED)?)?;
        let own = features.labels(Part::Train)?;
        let given = context.optional_input("labels").map(|input| Labels::read(&input.path));
        let clean_is_known = given.is_some();
        let labels = given
            .transpose()?
            .unwrap_or_else(|| Labels { labels: own.clone(), clean: own.clone() });
        labels.check(&own, features.info.data.classes.len())?;
        let split = match context.optional_input("split") {
            Some(input) => SplitIndices::read(&input.path)?.checked(own.len())?,
            None => SampleSplit::without_split(own.len(), &features.info.data)?,
        };
        ensure!(split.train.len() > 1, "samples correct each other, and fewer than two train");
        Ok(Self { features, labels, clean_is_known, split })
    }

    /// The label of every sample that trains, in the order of the split.
    fn purify(
        &self,
        stage: &PurifyLabels,
        context: &Context,
        device: Device,
    ) -> anyhow::Result<Vec<Found>> {
        let all = tensor(&self.features, Part::Train, device)?;
        let of = |samples: &[u32]| -> anyhow::Result<Tensor> {
            let rows: Vec<i64> = samples.iter().map(|&sample| i64::from(sample)).collect();
            Ok(all.f_index_select(0, &upload(&rows, device)?)?)
        };
        let features = of(&self.split.train)?;
        let labels = chosen(&self.labels.labels, &self.split.train);
        let samples = labels.len() as u64;
        if let Some(problem) = stage.neighbours_problem(samples) {
            bail!(problem.message);
        }
        let classes = self.features.info.data.classes.len();
        let between = |done: u64, total: u64, unit: Unit| -> anyhow::Result<()> {
            context.stop_point()?;
            context.progress(Progress { done, total: Some(total), unit, phase: None });
            Ok(())
        };
        let neighbours =
            |k| Neighbours::find(&features, k, |done| between(done, samples, Unit::Images));
        match stage.method {
            Purifier::NearestNeighbours => {
                Ok(votes::most_frequent(&neighbours(stage.k)?, &labels, classes))
            }
            Purifier::AdaptiveNearestNeighbours => {
                if stage.k_max >= samples {
                    context.note(format!(
                        "{samples} samples train, not more than k-max ({}): where it takes the most neighbours, all others vote",
                        stage.k_max
                    ));
                }
                let sizes = Sizes {
                    least: usize::try_from(stage.k_min)?,
                    most: usize::try_from(stage.k_max)?,
                };
                Ok(votes::adaptive(&neighbours(stage.k_max)?, &labels, classes, sizes))
            }
            Purifier::Linear => {
                let regression = Regression::new(&features, stage.ridge)?;
                let (labels, classes) = (upload(&labels, device)?, i64::try_from(classes)?);
                if !stage.uses_clean {
                    return largest(&regression.without_itself(&labels, classes)?);
                }
                let held_out = &self.split.validation;
                ensure!(!held_out.is_empty(), "uses-clean: the split holds out no samples");
                let clean = CleanSamples {
                    features: of(held_out)?,
                    labels: upload(&chosen(&self.labels.clean, held_out), device)?,
                };
                let steps = u64::from(stage.steps);
                let predicted = regression.fitted_to(
                    &clean,
                    &labels,
                    classes,
                    stage.steps,
                    stage.learning_rate,
                    |step| between(u64::from(step), steps, Unit::Steps),
                )?;
                largest(&predicted)
            }
        }
    }

    /// All labels, with those found for the samples that train, at these places of the split, and every confidence.
    fn with(&self, found: &[Found], places: &[usize]) -> PurifiedLabels {
        let given = self.labels.labels.clone();
        let mut purified = PurifiedLabels {
            labels: self.labels.clone(),
            confidence: vec![1.0; given.len()],
            given,
        };
        for (&sample, found) in self.split.train.iter().zip(found) {
            purified.confidence[sample as usize] = found.confidence();
        }
        for &place in places {
            purified.labels.labels[self.split.train[place] as usize] = found[place].label;
        }
        purified
    }

    /// How labels of the samples that train differ from the clean ones.
    fn report(&self, noise: String, labels: &[i64]) -> NoiseReport {
        let clean = chosen(&self.labels.clean, &self.split.train).into_iter();
        let now = chosen(labels, &self.split.train).into_iter();
        let transitions = clean.zip(now).map(|(clean, now)| (clean as usize, now as usize));
        NoiseReport::realised(noise, self.features.info.data.classes.clone(), transitions)
    }
}

fn chosen(labels: &[i64], samples: &[u32]) -> Vec<i64> {
    samples.iter().map(|&sample| labels[sample as usize]).collect()
}
