//! `evaluate`: a classifier on the test set.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{
    DatasetInfo, ModelInfo, Part, Samples, WEIGHTS_FILE, write_metrics,
};
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::{Augmentation, Evaluate};
use pipeline_stages::message::{Metrics, Progress, Unit};
use pipeline_stages::worker::Context;
use tch::{Device, Kind, Tensor};

use crate::augment::{Normalisation, augmented};
use crate::batches::Images;
use crate::network::{Classifier, Mode};
use crate::random::{Purpose, Stream};
use crate::supervised::data::check_labels;
use crate::{Body, device, weights};

impl Body for Evaluate {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution)?;
        context.ran_on(device::name(device));
        let (model, data) = (context.input("model")?, context.input("data")?);
        let info = ModelInfo::read(model)?;
        let dataset = DatasetInfo::read(data)?;
        let samples = Samples::open(data, Part::Test)?;
        check_fit(&info, &dataset, &samples)?;
        let network = load(model, &info, device)?;

        let mut tally = Tally::new(info.classes.len());
        let tables = Normalisation::of_model(&info)?.tables();
        let images = Images::of(&samples);
        let indices: Vec<u32> = (0..u32::try_from(samples.labels.len())?).collect();
        let _no_gradients = tch::no_grad_guard();
        for batch in indices.chunks(self.batch_size as usize) {
            context.stop_point()?;
            let pixels = images.batch(batch, device, |index, pixels, out| {
                let mut unused = Stream::new(0, Purpose::Augmentation, 0, index);
                augmented(pixels, images.shape, Augmentation::None, &mut unused, &tables, out);
            })?;
            let logits = network.forward(&pixels, Mode::Evaluate)?;
            let first = batch.first().map_or(0, |&index| index as usize);
            tally.add(&logits, &samples.labels[first..first + batch.len()])?;
            context.progress(Progress {
                done: tally.samples,
                total: Some(indices.len() as u64),
                unit: Unit::Images,
                phase: None,
                values: Metrics::from([("accuracy".to_owned(), tally.accuracy())]),
            });
        }
        let metrics = tally.metrics(&info.classes);
        write_metrics(&context.output, &metrics)?;
        tally.write_confusion(&info.classes, &context.output.join("confusion.csv"))?;
        Ok(metrics)
    }
}

fn check_fit(info: &ModelInfo, dataset: &DatasetInfo, samples: &Samples) -> anyhow::Result<()> {
    ensure!(!samples.labels.is_empty(), "the data set has no test samples");
    ensure!(
        info.classes == dataset.classes,
        "the model knows the classes {:?}, but the data set has {:?}",
        info.classes,
        dataset.classes
    );
    ensure!(
        info.input.channels == samples.image.channels,
        "the model takes images with {} channels, but the data set has {}",
        info.input.channels,
        samples.image.channels
    );
    check_labels(&samples.labels, "test labels", samples.labels.len(), info.classes.len())
}

/// Rebuilds a classifier from its artifact.
fn load(model: &Path, info: &ModelInfo, device: Device) -> anyhow::Result<Classifier> {
    let named = |architecture: &&Architecture| architecture.name() == info.architecture;
    let architecture = *Architecture::ALL.iter().find(named).with_context(|| {
        format!("the model is a '{}', which this version does not know", info.architecture)
    })?;
    let network =
        Classifier::new(architecture, info.input.channels, info.classes.len(), 0, device)?;
    weights::read_into(&model.join(WEIGHTS_FILE), network.state().tensors(), |_| false)?;
    Ok(network)
}

/// What was counted so far.
struct Tally {
    samples: u64,
    loss_sum: f64,
    /// Rows: the true class; columns: the predicted one.
    confusion: Vec<Vec<u64>>,
}

impl Tally {
    fn new(classes: usize) -> Self {
        Self { samples: 0, loss_sum: 0.0, confusion: vec![vec![0; classes]; classes] }
    }

    fn add(&mut self, logits: &Tensor, labels: &[i64]) -> anyhow::Result<()> {
        let targets = Tensor::f_from_slice(labels)?.f_to_device(logits.device())?;
        let log_probability = logits.f_log_softmax(-1, Kind::Double)?;
        let of_label = log_probability.f_gather(1, &targets.f_unsqueeze(1)?, false)?;
        self.loss_sum -= of_label.f_sum(Kind::Double)?.f_double_value(&[])?;
        self.samples += labels.len() as u64;
        let predicted = logits.f_argmax(1, false)?.f_to_device(Device::Cpu)?;
        for (label, class) in labels.iter().zip(Vec::<i64>::try_from(&predicted)?) {
            let row = self.confusion.get_mut(*label as usize);
            if let Some(count) = row.and_then(|row| row.get_mut(class as usize)) {
                *count += 1;
            }
        }
        Ok(())
    }

    fn accuracy(&self) -> f64 {
        let right: u64 = self.confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
        right as f64 / self.samples.max(1) as f64
    }

    fn metrics(&self, classes: &[String]) -> Metrics {
        let mut metrics = Metrics::from([
            ("test-accuracy".to_owned(), self.accuracy()),
            ("test-loss".to_owned(), self.loss_sum / self.samples.max(1) as f64),
        ]);
        for ((class, name), row) in classes.iter().enumerate().zip(&self.confusion) {
            let samples: u64 = row.iter().sum();
            if samples > 0 {
                let accuracy = row[class] as f64 / samples as f64;
                metrics.insert(format!("test-accuracy/{name}"), accuracy);
            }
        }
        metrics
    }

    fn write_confusion(&self, classes: &[String], path: &Path) -> anyhow::Result<()> {
        let mut text = "true class".to_owned();
        for name in classes {
            write!(text, ",{}", quoted(name))?;
        }
        text.push('\n');
        for (name, row) in classes.iter().zip(&self.confusion) {
            text.push_str(&quoted(name));
            for count in row {
                write!(text, ",{count}")?;
            }
            text.push('\n');
        }
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }
}

/// A text as a CSV field (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
