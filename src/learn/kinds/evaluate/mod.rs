//! `evaluate`: a classifier on the test set, and its losses on the training samples.
//!
//! What is measured is beside: [`calibration`], [`classification`], [`noise_detection`]. Every prediction is in
//! `predictions.safetensors`, so that anything else can be measured later, without the network.

mod calibration;
mod classification;
mod noise_detection;
#[cfg(test)]
mod reference;

use std::path::Path;

use anyhow::ensure;
use pipeline_stages::formats::{
    DatasetInfo, Evaluations, Judged, Labels, ModelInfo, Part, Predictions, PredictionsWriter,
    SampleSplit, Samples, SplitIndices, check_labels, weights_file, write_metrics,
};
use pipeline_stages::kinds::Evaluate;
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Device, Kind, Tensor};

use self::classification::{ClassificationMetrics, Scores, list, losses_of};
use self::noise_detection::area_under_curve;
use crate::data::image_store::ImageStore;
use crate::data::preprocess::Preprocess;
use crate::network::weights;
use crate::network::{Classifier, Mode, mean_prediction};
use crate::{Body, device};

impl Body for Evaluate {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, Precision::F32)?;
        context.ran_on(device::ran_on(device));
        let evaluation = Evaluation::new(self, context, device)?;
        let mut file = evaluation.predictions_file()?;
        let measured = evaluation.of_test_set(&mut file)?;
        let classes = &evaluation.model.classes;
        let mut metrics = measured.metrics(classes);
        metrics.extend(evaluation.of_training_labels(&mut file)?);
        file.finish()?;
        metrics.extend(chosen_on_the_way(&Evaluations::read(context.input("model")?)?));

        debug_assert!(metrics.keys().all(|name| Self::METRICS.has(name)), "{metrics:?}");
        write_metrics(&context.output, &metrics)?;
        measured.write_confusion(classes, &context.output.join("confusion.csv"))?;
        measured.reliability.write(&context.output.join("reliability.csv"))?;
        Ok(metrics)
    }
}

/// The figures that choose among the evaluations during training: by validation, and by the test set.
fn chosen_on_the_way(evaluations: &Evaluations) -> Metrics {
    let by_validation = evaluations.best_validation().and_then(|row| row.test_accuracy);
    let by_test = evaluations.best_test().and_then(|row| row.test_accuracy);
    let named = [
        (Evaluate::AT_BEST_VALIDATION, by_validation),
        ("best-test-accuracy-chosen-on-test", by_test),
    ];
    named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A model and what it is evaluated on, checked against each other.
struct Evaluation<'a> {
    context: &'a Context,
    model: ModelInfo,
    networks: Vec<Classifier>,
    preprocess: Preprocess,
    batch_size: usize,
    test: ImageStore,
    training: Option<LabelledTraining>,
}

/// The training samples, with labels that may be wrong.
struct LabelledTraining {
    images: ImageStore,
    labels: Labels,
    /// Which of them count.
    indices: Vec<u32>,
}

impl<'a> Evaluation<'a> {
    fn new(parameters: &Evaluate, context: &'a Context, device: Device) -> anyhow::Result<Self> {
        let (model_folder, data) = (context.input("model")?, context.input("data")?);
        let model = ModelInfo::read(model_folder)?;
        let dataset = DatasetInfo::read(data)?;
        let test = Samples::open_any(data, Part::Test)?;
        check_fit(&model, &dataset, &test)?;
        let preprocess = Preprocess::of_model(&model)?;
        let store = |samples| preprocess.store(samples, device, |note| context.note(note));
        let batch_size = parameters.batch_size.map(usize::try_from).transpose()?;
        Ok(Self {
            context,
            networks: load(model_folder, &model, device)?,
            test: store(test)?,
            training: LabelledTraining::read(context, data, model.classes.len(), store)?,
            batch_size: batch_size.unwrap_or_else(|| preprocess.evaluation_batch()),
            preprocess,
            model,
        })
    }

    fn test_count(&self) -> usize {
        self.test.samples().labels.len()
    }

    fn predictions_file(&self) -> anyhow::Result<PredictionsWriter> {
        let training = self.training.as_ref().map(|training| training.indices.len());
        let (output, classes) = (&self.context.output, self.model.classes.len());
        PredictionsWriter::create(output, classes, self.test_count(), training)
    }

    fn of_test_set(&self, file: &mut PredictionsWriter) -> anyhow::Result<ClassificationMetrics> {
        let mut measured = ClassificationMetrics::new(self.model.classes.len());
        let indices = SampleSplit::all_train(self.test_count())?.train;
        self.predict(&self.test, &indices, 0, |batch, logits| {
            let labels = labels_of(batch, &self.test.samples().labels);
            let scores = Scores::of(logits, &labels)?;
            measured.add(&scores, &labels);
            let Scores { losses, classes, .. } = scores;
            let clean = Judged { labels, losses };
            file.push(Part::Test, &rows(batch, logits, classes, clean, None)?)?;
            Ok(Metrics::from([("test-accuracy".to_owned(), measured.accuracy())]))
        })?;
        Ok(measured)
    }

    /// How well the loss under the given label shows which labels are wrong.
    fn of_training_labels(&self, file: &mut PredictionsWriter) -> anyhow::Result<Metrics> {
        let Some(LabelledTraining { images, labels, indices }) = &self.training else {
            return Ok(Metrics::new());
        };
        let mut under_given = Vec::with_capacity(indices.len());
        self.predict(images, indices, self.test_count(), |batch, logits| {
            let (given, clean) =
                (labels_of(batch, &labels.labels), labels_of(batch, &labels.clean));
            let Scores { losses, classes, .. } = Scores::of(logits, &given)?;
            under_given.extend(&losses);
            let clean = Judged { losses: losses_of(logits, &clean)?, labels: clean };
            let given = Judged { labels: given, losses };
            file.push(Part::Train, &rows(batch, logits, classes, clean, Some(given))?)?;
            Ok(Metrics::new())
        })?;
        let wrong =
            |&index: &u32| labels.labels.get(index as usize) != labels.clean.get(index as usize);
        let corrupted: Vec<bool> = indices.iter().map(wrong).collect();
        let area = area_under_curve(&under_given, &corrupted);
        Ok(area.map(|area| ("noise-detection-auc".to_owned(), area)).into_iter().collect())
    }

    /// What the network says of samples, batch by batch: `each` takes their indices and their logits, float [B,K], and
    /// returns numbers for the progress, of which `before` samples are done already.
    fn predict(
        &self,
        images: &ImageStore,
        indices: &[u32],
        before: usize,
        mut each: impl FnMut(&[u32], &Tensor) -> anyhow::Result<Metrics>,
    ) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        let training = self.training.as_ref().map_or(0, |training| training.indices.len());
        let total = self.test_count() + training;
        let mut done = before;
        for batch in indices.chunks(self.batch_size.max(1)) {
            self.context.stop_point()?;
            let inputs = self.preprocess.plain(images, batch)?;
            let logits = self.networks.iter().map(|one| one.forward(&inputs, Mode::Evaluate));
            let logits = mean_prediction(&logits.collect::<anyhow::Result<Vec<_>>>()?)?;
            let values = each(batch, &logits)?;
            done += batch.len();
            let values = values.iter().map(|(name, value)| (name.as_str(), *value));
            self.context.measured(done as u64, values);
            self.context.progress(Progress {
                done: done as u64,
                total: Some(total as u64),
                unit: Unit::Images,
                phase: None,
            });
        }
        Ok(())
    }
}

fn labels_of(batch: &[u32], labels: &[i64]) -> Vec<i64> {
    batch.iter().filter_map(|&index| labels.get(index as usize).copied()).collect()
}

/// A batch for the file. `logits` float [B,K].
fn rows(
    batch: &[u32],
    logits: &Tensor,
    predicted: Vec<i64>,
    clean: Judged,
    given: Option<Judged>,
) -> anyhow::Result<Predictions> {
    Ok(Predictions {
        index: batch.iter().map(|&index| i64::from(index)).collect(),
        logits: list(&logits.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)?,
        predicted,
        clean,
        given,
    })
}

impl LabelledTraining {
    /// `None` without labels.
    fn read(
        context: &Context,
        data: &Path,
        classes: usize,
        store: impl FnOnce(Samples) -> anyhow::Result<ImageStore>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(input) = context.optional_input("labels") else { return Ok(None) };
        let labels = Labels::read(&input.path)?;
        let samples = Samples::open_any(data, Part::Train)?;
        labels.check(&samples.labels, classes)?;
        let split = match context.optional_input("split") {
            Some(input) => SplitIndices::read(&input.path)?.checked(samples.labels.len())?,
            None => SampleSplit::without_split(samples.labels.len(), &DatasetInfo::read(data)?)?,
        };
        Ok(Some(Self { images: store(samples)?, labels, indices: split.train }))
    }
}

fn check_fit(info: &ModelInfo, dataset: &DatasetInfo, samples: &Samples) -> anyhow::Result<()> {
    ensure!(!samples.labels.is_empty(), "the data set has no test samples");
    check_classes(&info.classes, &dataset.classes)?;
    ensure!(
        info.input.channels == samples.image.channels,
        "the model takes images with {} channels, but the data set has {}",
        info.input.channels,
        samples.image.channels
    );
    check_labels(&samples.labels, "test labels", samples.labels.len(), info.classes.len())
}

/// Fails where a model and a data set do not have the same classes, with the first that differ.
fn check_classes(model: &[String], dataset: &[String]) -> anyhow::Result<()> {
    ensure!(
        model.len() == dataset.len(),
        "the model has {} classes, but the data set has {}",
        model.len(),
        dataset.len()
    );
    let other = model.iter().zip(dataset).enumerate().find(|(_, (one, other))| one != other);
    if let Some((class, (of_model, of_dataset))) = other {
        anyhow::bail!(
            "class {class} is '{of_model}' for the model, but '{of_dataset}' in the data set: \
             give it the data set that it was trained on, or one with the same classes in the same order"
        );
    }
    Ok(())
}

/// Rebuilds the networks of a classifier from its artifact.
fn load(model: &Path, info: &ModelInfo, device: Device) -> anyhow::Result<Vec<Classifier>> {
    let EncoderArchitecture::Residual(architecture) = weights::architecture(info)? else {
        anyhow::bail!(
            "the model is a {}, which is not a classifier here: its model.json is damaged",
            info.architecture
        );
    };
    let (channels, classes) = (info.input.channels, info.classes.len());
    let load = |number| {
        let network = Classifier::new(architecture, channels, classes, 0, device)?;
        let file = model.join(weights_file(number));
        weights::read_into(&file, network.state().tensors(), |_| false)?;
        Ok(network)
    };
    (0..=info.further_networks).map(load).collect()
}

#[cfg(test)]
mod tests {
    use pipeline_stages::formats::EvaluationRow;

    use super::*;

    #[test]
    fn what_was_chosen_on_the_way_has_its_own_names() {
        let row = |steps, validation_accuracy, test_accuracy| EvaluationRow {
            steps,
            validation_accuracy,
            test_accuracy,
            ..EvaluationRow::default()
        };
        let both = Evaluations(vec![
            row(1, Some(0.5), Some(0.9)),
            row(2, Some(0.7), Some(0.6)),
            row(3, Some(0.6), Some(0.8)),
        ]);
        let expected = [
            ("test-accuracy-at-best-validation".to_owned(), 0.6),
            ("best-test-accuracy-chosen-on-test".to_owned(), 0.9),
        ];
        assert_eq!(chosen_on_the_way(&both), Metrics::from(expected));
        let untracked = Evaluations(vec![row(1, Some(0.5), None)]);
        assert!(chosen_on_the_way(&untracked).is_empty());
        let no_split = Evaluations(vec![row(1, None, Some(0.5))]);
        assert_eq!(chosen_on_the_way(&no_split).len(), 1);
    }

    #[test]
    fn the_first_class_that_differs_is_named() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let error = check_classes(&names(&["a", "b"]), &names(&["a", "c"])).unwrap_err();
        assert!(error.to_string().starts_with("class 1 is 'b' for the model, but 'c'"), "{error}");
        let error = check_classes(&names(&["a"]), &vec!["x".to_owned(); 1000]).unwrap_err();
        assert_eq!(error.to_string(), "the model has 1 classes, but the data set has 1000");
    }
}
