//! Input that makes no sense: an error that says what is wrong and what to do, never a panic.

mod fixture;

use std::path::Path;

use fixture::{SHAPE, learn_stage, pretraining, request, stage, training, write_inputs};
use pipeline_stages::formats::{Labels, ModelInfo, Part, SplitIndices, write_samples};
use pipeline_stages::message::{Input, Metrics, Request};
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, Stage};
use serde_json::{Value, json};

fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    folder
}

fn run(request: &Request) -> anyhow::Result<Metrics> {
    pipeline_learn::run(learn_stage(request), &Context::for_test(request.clone()))
}

/// A training of one epoch with other parameters.
fn changed(kind: &str, changes: &Value) -> Stage {
    let mut parameters = json!({"architecture": "resnet8-fast", "epochs": 1, "batch-size": 8});
    for (name, value) in changes.as_object().unwrap() {
        parameters[name] = value.clone();
    }
    stage(json!({"kind": kind, "parameters": parameters}))
}

#[track_caller]
fn assert_refused(request: &Request, parts: &[&str]) {
    let message = format!("{:#}", run(request).unwrap_err());
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn a_batch_larger_than_the_data_set() {
    let folder = inputs();
    for (kind, samples) in [("pretrain-simclr", "48"), ("train", "40")] {
        let stage = changed(kind, &json!({"batch-size": 1000}));
        assert_refused(&request(folder.path(), &stage, "out"), &["batch-size", samples, "1000"]);
    }
}

#[test]
fn labels_out_of_range_and_labels_of_another_data_set() {
    let folder = inputs();
    let request = request(folder.path(), &training("none"), "out");
    let mut labels = Labels::read(&folder.path().join("labels")).unwrap();
    labels.labels[7] = 3;
    labels.write(&folder.path().join("labels")).unwrap();
    assert_refused(&request, &["sample 7", "label 3", "0 to 2"]);
    labels.labels.pop();
    labels.write(&folder.path().join("labels")).unwrap();
    assert_refused(&request, &["47", "48", "same data set"]);
}

#[test]
fn a_split_of_another_data_set() {
    let folder = inputs();
    let split = SplitIndices { train: (0..40).collect(), validation: vec![480] };
    split.write(&folder.path().join("split")).unwrap();
    assert_refused(&request(folder.path(), &training("none"), "out"), &["sample 480", "48"]);
}

#[test]
fn a_batch_without_variance() {
    let folder = inputs();
    let stage = changed("train", &json!({"batch-size": 1}));
    assert_refused(&request(folder.path(), &stage, "out"), &["one image", "batch-size"]);
    assert!(!folder.path().join("out/weights.safetensors").exists());
}

#[test]
fn a_training_that_diverges() {
    let folder = inputs();
    for kind in ["train", "pretrain-simclr"] {
        let changes = json!({"learning-rate": 1e38, "epochs": 5});
        let request = request(folder.path(), &changed(kind, &changes), kind);
        assert_refused(&request, &["epoch", "step", "smaller learning-rate"]);
    }
}

/// Adds the artifact `name` as the initial encoder.
fn with_init(mut request: Request, folder: &Path, name: &str) -> Request {
    let input = Input { name: None, path: folder.join(name), artifact: ArtifactType::Weights };
    request.inputs.insert("init".to_owned(), vec![input]);
    request
}

#[test]
fn initial_weights_are_taken_over_and_their_mismatches_named() {
    let folder = inputs();
    run(&request(folder.path(), &pretraining("lars"), "simclr")).unwrap();
    let with = |stage: &Stage, name: &str| {
        with_init(request(folder.path(), stage, name), folder.path(), "simclr")
    };
    run(&with(&training("none"), "fits")).unwrap();
    let info = ModelInfo::read(&folder.path().join("fits")).unwrap();
    assert_eq!((info.input_mean, info.input_deviation), (vec![0.0], vec![1.0]));

    let other = changed("train", &json!({"architecture": "resnet8"}));
    assert_refused(&with(&other, "other"), &["are of a resnet8-fast", "trains a resnet8:"]);

    // It says that it is a resnet18, but holds the layers of another network.
    let mut info = ModelInfo::read(&folder.path().join("simclr")).unwrap();
    info.architecture = "resnet18".to_owned();
    info.write(&folder.path().join("simclr")).unwrap();
    let other = changed("train", &json!({"architecture": "resnet18"}));
    assert_refused(&with(&other, "layers"), &["conv1.weight", "shape"]);
}

#[test]
fn one_class_and_images_of_one_colour_train() {
    let folder = inputs();
    let pixels = vec![9; 48 * SHAPE.bytes()];
    let labels = vec![0; 48];
    write_samples(&folder.path().join("data"), Part::Train, SHAPE, &pixels, &labels).unwrap();
    Labels { labels: labels.clone(), clean: labels }.write(&folder.path().join("labels")).unwrap();
    for stage in [changed("train", &json!({})), changed("pretrain-simclr", &json!({}))] {
        let name = stage.info().name;
        run(&request(folder.path(), &stage, name)).unwrap();
    }
}

#[test]
fn evaluation_agrees_with_itself_whatever_the_batch() {
    let folder = inputs();
    run(&request(folder.path(), &training("none"), "model")).unwrap();
    let evaluate = |batch: u64| {
        let stage = stage(json!({"kind": "evaluate", "parameters": {"batch-size": batch}}));
        let mut request = request(folder.path(), &stage, &format!("metrics-{batch}"));
        let path = folder.path().join("model");
        let input = Input { name: None, path, artifact: ArtifactType::Model };
        request.inputs.insert("model".to_owned(), vec![input]);
        run(&request).unwrap()
    };
    let (small, large) = (evaluate(7), evaluate(1000));
    assert_eq!(small["test-accuracy"], large["test-accuracy"]);
    assert!((small["test-loss"] - large["test-loss"]).abs() < 1e-5);
    let classes = ["columns", "rows", "diagonals"];
    let mean: f64 = classes.iter().map(|name| small[&format!("test-accuracy/{name}")]).sum();
    assert!((mean / 3.0 - small["test-accuracy"]).abs() < 1e-12, "the classes are of equal size");
    let confusion = std::fs::read_to_string(folder.path().join("metrics-7/confusion.csv")).unwrap();
    assert_eq!(confusion.lines().count(), 4);
}
