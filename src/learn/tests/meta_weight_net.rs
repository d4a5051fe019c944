//! Meta-Weight-Net: its meta-gradient and its steps against PyTorch's graph of a graph and against our own, and what
//! a training by it writes and refuses.
//!
//! `tests/reference/meta_weight_net/make_vectors.py` makes the numbers; inputs come from the same formula there.

use crate::fixture::{learn_stage, meta_training, request, write_inputs};
use crate::formula::{fill, fill_state, flat, numbers};
use pipeline_learn::data::mixing::Mixing;
use pipeline_learn::methods::meta_weight_net::MetaWeightNet;
use pipeline_learn::network::{Classifier, Mode, NetworkState};
use pipeline_learn::training::batch::{Batch, MixingTensors};
use pipeline_learn::training::loss::SampleLoss;
use pipeline_learn::training::method::{Setup, StepOutput, TrainingMethod};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::training_loop::{RunLength, StepPosition};
use pipeline_stages::formats::SplitIndices;
use pipeline_stages::kinds::Train;
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::message::{Metrics, Request};
use pipeline_stages::worker::Context;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn labels(count: i64, stride: i64, first: i64) -> Tensor {
    Tensor::from_slice(&(0..count).map(|index| (index * stride + first) % 10).collect::<Vec<_>>())
}

/// A batch with these images.
fn labelled(images: Tensor, labels: Tensor, clean_labels: Tensor) -> Batch {
    let samples = Tensor::arange(labels.size()[0], (Kind::Int64, Device::Cpu));
    Batch { images, other_views: Vec::new(), labels, clean_labels, samples, mixing: None }
}

/// The batch of one step and its meta batch, as the script has them.
fn batch(step: i64, stream: usize) -> [Batch; 2] {
    let images = fill(&[12, 3, 8, 8], stream, 0.0, 1.0);
    let meta_images = fill(&[8, 3, 8, 8], stream + 1000, 0.0, 1.0);
    [
        labelled(images, labels(12, 3, step), labels(12, 9, step)),
        // The labels that it is given are wrong.
        labelled(meta_images, labels(8, 7, step + 1), labels(8, 7, step)),
    ]
}

/// How the script mixes the batch of a step.
fn mixing(step: i64) -> MixingTensors {
    let share = flat(&fill(&[3], 3100, 0.5, 1.0))[step as usize];
    let partners = (0..12).map(|row| (row * 5 + 2 + step) % 12).collect();
    MixingTensors::new(&Mixing { share, partners }, Device::Cpu).expect("it fits")
}

/// The method, with the numbers of the script.
struct Trial {
    method: MetaWeightNet,
    loss: SampleLoss,
}

impl Trial {
    fn new(changes: &Value, precision: Precision) -> Self {
        Self::of(Architecture::Resnet8, changes, precision)
    }

    fn of(architecture: Architecture, changes: &Value, precision: Precision) -> Self {
        let mut parameters = json!({
            "method": "meta-weight-net", "meta-hidden": 8,
            "meta-learning-rate": 0.5, "q": 0.66, "weight-decay": 1e-3,
        });
        let changes = changes.as_object().expect("a table").clone();
        parameters.as_object_mut().expect("a table").extend(changes);
        let parameters: Train = serde_json::from_value(parameters).expect("they are right");
        let parameters = Train { architecture, precision, ..parameters };
        let recipe = Recipe::of(&parameters);
        let setup = Setup::new(&recipe, 3, 10, 0, Device::Cpu);
        let mut setup = Setup { validation: &[0], ..setup };
        let method = MetaWeightNet::new(&mut setup).expect("builds");
        fill_state(method.learners()[0].network.state(), 0);
        fill_state(method.weighting().state(), 500);
        Self { method, loss: SampleLoss::of(&parameters) }
    }

    fn network(&self) -> &Classifier {
        &self.method.learners()[0].network
    }

    fn step(&mut self, step: i64, [batch, meta]: [Batch; 2]) -> StepOutput {
        let length = RunLength { steps: 20, steps_per_epoch: 20 };
        let at = StepPosition::usual(step as u64, length);
        self.method.begin_step(0.02 * (step % 3 + 1) as f64, at).unwrap();
        self.method.compute(&batch, &[meta]).expect("it works")
    }

    /// The last gradient of the weighting net, all in one.
    fn meta_gradient(&self) -> Vec<f64> {
        self.method
            .weighting()
            .state()
            .trained()
            .flat_map(|named| flat(&named.tensor.grad()))
            .collect()
    }
}

fn all(state: &NetworkState) -> Vec<f64> {
    state.trained().flat_map(|named| flat(&named.tensor)).collect()
}

/// The largest difference, relative to the largest number expected.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let differences = found.iter().zip(expected).map(|(found, expected)| {
        assert!(found.is_finite());
        (found - expected).abs()
    });
    largest(&mut { differences }) / largest(&mut expected.iter().map(|value| value.abs()))
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    let error = error(found, expected);
    assert!(error < tolerance, "{what}: {error:e}, {found:?}, expected {expected:?}");
}

/// Steps as the script does them, case by case: 1e-5 of the largest number, after twenty steps as after one. Meta-gradients of the script in 32 bits are up to
/// 4.6e-6 away from those in 64, and that does not grow from step to step.
#[test]
fn steps_follow_an_unrolled_graph_of_a_graph() {
    let text = include_str!("../../../tests/reference/meta_weight_net/vectors.json");
    let vectors: Value = serde_json::from_str(text).expect("the vectors are JSON");
    let cases = [
        ("plain", json!({})),
        ("mae", json!({"meta-loss": "mae"})),
        ("normalised", json!({"normalise-weights": true})),
        (
            "normalised-adam",
            json!({"normalise-weights": true, "meta-optimizer": "adam", "meta-learning-rate": 0.05}),
        ),
        (
            "scheduled",
            json!({"inner-rate": "scheduled", "meta-loss": "mae", "normalise-weights": true}),
        ),
        ("generalized", json!({"loss": "generalized-cross-entropy"})),
        ("bounded", json!({"loss": "mae", "meta-loss": "mae"})),
        ("mixed", json!({"mixup": 1.0})),
    ];
    assert_eq!(vectors.as_object().expect("a table").len(), cases.len());
    for (name, changes) in cases {
        let mut trial = Trial::new(&changes, Precision::F32);
        let start: Vec<Vec<f64>> =
            trial.network().state().trained().map(|named| flat(&named.tensor)).collect();
        let steps = vectors[name].as_array().expect("a list");
        assert_eq!(steps.len(), if name == "plain" { 20 } else { 3 });
        for (step, expected) in steps.iter().enumerate() {
            let stream = expected["stream"].as_u64().expect("a number") as usize;
            let mut batches = batch(step as i64, stream);
            batches[0].mixing = changes.get("mixup").map(|_| mixing(step as i64));
            let output = trial.step(step as i64, batches);
            let check = |key: &str, found: &[f64], tolerance: f64| {
                let what = format!("{name}, step {step}, {key}");
                assert_close(found, &numbers(&expected[key]), tolerance, &what);
            };
            check("gradient", &trial.meta_gradient(), 1e-5);
            let meta_loss = expected["meta_loss"].as_f64().expect("a number");
            assert_close(&flat(&output.extra["meta-loss"]), &[meta_loss], 1e-5, "the meta loss");
            if (3..steps.len() - 1).contains(&step) {
                continue;
            }
            check("phi", &all(trial.method.weighting().state()), 1e-5);
            let theta = trial.network().state().trained().zip(&start).flat_map(|(named, start)| {
                let now = flat(&named.tensor);
                [0, now.len() - 1].map(|place| now[place] - start[place])
            });
            let theta: Vec<f64> = theta.collect();
            // Rounding of numbers near 1 is large beside what a step changes.
            let largest = theta.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            check("theta", &theta, 1e-5 + 3e-7 / largest);
            let tensors = trial.network().state().tensors().iter();
            let running = tensors.filter(|named| named.name.contains("running"));
            let running: Vec<f64> = running.map(|named| flat(&named.tensor)[0]).collect();
            check("running", &running, 1e-5);
            let weights = numbers(&expected["weights"]);
            assert_weights_are_reported(&output, &weights, &batch(step as i64, stream)[0]);
        }
        for named in trial.network().state().tensors() {
            if named.name.ends_with("num_batches_tracked") {
                assert_eq!(flat(&named.tensor), [steps.len() as f64], "{name}: {}", named.name);
            }
        }
    }
}

/// How many samples are clean and corrupted, and the sums of their weights.
fn assert_weights_are_reported(output: &StepOutput, weights: &[f64], batch: &Batch) {
    let clean = flat(&batch.labels.eq_tensor(&batch.clean_labels));
    let sum = |group: f64| {
        let of_group = weights.iter().zip(&clean).filter(|(_, clean)| **clean == group);
        let weights: Vec<f64> = of_group.map(|(weight, _)| *weight).collect();
        [weights.len() as f64, weights.iter().sum()]
    };
    let names = ["clean", "clean-weight", "corrupted", "corrupted-weight"];
    let found: Vec<f64> = names.iter().flat_map(|name| flat(&output.extra[name])).collect();
    assert_close(&found, &[sum(1.0), sum(0.0)].concat(), 1e-5, "weights of clean and corrupted");
    assert!(sum(1.0)[0] != sum(0.0)[0], "nothing distinguishes the groups");
}

/// The gradient of the weighting net with the look-ahead kept in the graph: what a step must find.
fn unrolled(
    trial: &Trial,
    [batch, meta]: &[Batch; 2],
    inner_rate: f64,
    normalised: bool,
) -> Vec<f64> {
    let state = trial.network().state();
    let loss_with = |trained: &[Tensor], images: &Tensor, labels: &Tensor, loss: SampleLoss| {
        let values = state.values_with(trained).expect("as many");
        let logits = trial.network().forward_with(values, images, Mode::LookAhead);
        loss.of_samples(&logits.expect("the shapes match"), labels).expect("the shapes match")
    };
    let parameters: Vec<Tensor> =
        state.trained().map(|named| named.tensor.shallow_clone()).collect();
    let losses = loss_with(&parameters, &batch.images, &batch.labels, trial.loss);
    let weights = trial.method.weighting().forward(&losses.detach()).expect("it works");
    let whole = if normalised { weights.sum(Kind::Float) } else { Tensor::from(12f32) };
    let weighted = (weights / whole * losses).sum(Kind::Float);
    let gradients = Tensor::run_backward(&[weighted], &parameters, true, true);
    let ahead: Vec<Tensor> = parameters
        .iter()
        .zip(gradients)
        .map(|(parameter, gradient)| parameter - gradient * inner_rate)
        .collect();
    let meta_loss = loss_with(&ahead, &meta.images, &meta.clean_labels, SampleLoss::CrossEntropy);
    let phi: Vec<&Tensor> =
        trial.method.weighting().state().trained().map(|named| &named.tensor).collect();
    let gradients = Tensor::run_backward(&[meta_loss.mean(Kind::Float)], &phi, false, false);
    gradients.iter().flat_map(flat).collect()
}

#[test]
fn the_meta_gradient_is_that_of_an_unrolled_graph_whatever_the_settings() {
    for (normalised, inner_rate, loss, hidden) in [
        (false, 0.1, "cross-entropy", 3),
        (true, 0.1, "cross-entropy", 20),
        (false, 1.0, "generalized-cross-entropy", 100),
        (true, 0.01, "mae", 1),
    ] {
        let changes = json!({
            "normalise-weights": normalised, "inner-learning-rate": inner_rate, "loss": loss,
            "meta-hidden": hidden,
        });
        let mut trial = Trial::new(&changes, Precision::F32);
        for step in 0..2 {
            let batch = batch(step, 1000);
            let expected = unrolled(&trial, &batch, inner_rate, normalised);
            trial.step(step, batch);
            let what = format!("{changes}, step {step}");
            assert_close(&trial.meta_gradient(), &expected, 1e-4, &what);
        }
    }
}

/// Projection shortcuts, pre-activation and max-pooling have derivatives too.
#[test]
fn the_meta_gradient_is_that_of_an_unrolled_graph_in_every_architecture() {
    for (architecture, side) in [
        (Architecture::Resnet18, 8),
        (Architecture::PreactResnet18, 8),
        (Architecture::Resnet18At224, 32),
        (Architecture::Resnet8Fast, 8),
    ] {
        let mut trial = Trial::of(architecture, &json!({}), Precision::F32);
        let images = |stream| fill(&[12, 3, side, side], stream, 0.0, 1.0);
        let mut batch = batch(0, 1000);
        batch[0].images = images(1);
        batch[1] = labelled(images(2), labels(12, 7, 1), labels(12, 7, 0));
        let expected = unrolled(&trial, &batch, 0.1, false);
        trial.step(0, batch);
        assert_close(&trial.meta_gradient(), &expected, 1e-3, architecture.name());
    }
}

#[test]
fn bfloat16_is_near_to_float() {
    let changes = json!({});
    let [mut exact, mut near] =
        [Precision::F32, Precision::Bf16].map(|precision| Trial::new(&changes, precision));
    let [exact_output, near_output] =
        [&mut exact, &mut near].map(|trial| trial.step(0, batch(0, 1000)));
    assert!(error(&flat(&near_output.losses), &flat(&exact_output.losses)) < 0.02);
    assert!(
        error(&flat(&near_output.extra["meta-loss"]), &flat(&exact_output.extra["meta-loss"]))
            < 0.02
    );
    let found = error(&near.meta_gradient(), &exact.meta_gradient());
    // Eight bits, through a difference of slopes: the direction is right, the length roughly.
    assert!(found > 0.0 && found < 0.25, "{found}");
}

fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    folder
}

fn run(request: &Request) -> anyhow::Result<Metrics> {
    pipeline_learn::run(learn_stage(request), &Context::for_test(request.clone()))
}

#[test]
fn a_training_reports_the_weights_of_clean_and_corrupted_samples() {
    let folder = inputs();
    let stage = meta_training(&json!({"loss": "generalized-cross-entropy"}));
    let request = request(folder.path(), &stage, "model");
    let metrics = run(&request).unwrap();
    for name in ["weight", "weight-clean", "weight-corrupted"] {
        assert!((0.0..=1.0).contains(&metrics[name]), "{name}: {}", metrics[name]);
    }
    assert!(metrics["meta-loss"] > 0.0);
    let text = |name: &str| std::fs::read_to_string(request.output.join(name)).unwrap();
    assert!(text("curves.csv").starts_with(
        "epoch,train-loss,train-accuracy,train-accuracy-clean,learning-rate,meta-loss,weight,weight-clean,\
         weight-corrupted\n"
    ));
    let curve = text("weight-curve.csv");
    let rows: Vec<Vec<f64>> = curve
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert!(curve.starts_with("loss,weight\n"));
    // q is 0.5, so that no loss is above 2.
    assert_eq!((rows[0][0], rows[300][0], rows.len()), (0.0, 2.0, 301));
    assert!(rows.iter().all(|row| (0.0..=1.0).contains(&row[1])));
}

#[test]
fn without_clean_labels_they_cannot_be_distinguished() {
    let folder = inputs();
    let stage = meta_training(&json!({"meta-samples": "training", "meta-loss": "mae"}));
    let mut request = request(folder.path(), &stage, "model");
    for port in ["labels", "split"] {
        request.inputs.remove(port);
    }
    let metrics = run(&request).unwrap();
    assert!(metrics.contains_key("meta-loss") && !metrics.contains_key("weight-clean"));
}

#[test]
fn no_samples_for_a_meta_batch() {
    let folder = inputs();
    let message = |changes: &Value| {
        let request = request(folder.path(), &meta_training(changes), "model");
        format!("{:#}", run(&request).unwrap_err())
    };
    let split = SplitIndices { train: (0..40).collect(), validation: Vec::new() };
    split.write(&folder.path().join("split")).unwrap();
    let error = message(&json!({}));
    assert!(
        error.contains("does not hold out any samples") && error.contains("meta-samples"),
        "{error}"
    );
}
