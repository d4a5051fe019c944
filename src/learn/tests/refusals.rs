//! Invalid input: an error that says what is wrong and what to do, never a panic.

use std::path::Path;

use crate::fixture::{
    SHAPE, learn_stage, pretraining, request, stage, training, with_input, write_inputs,
};
use pipeline_stages::formats::{DatasetInfo, Labels, ModelInfo, Part, SplitIndices, write_samples};
use pipeline_stages::message::{Event, Input, Metrics, Request};
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, KindConfig};
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
fn changed(kind: &str, changes: &Value) -> KindConfig {
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
fn a_batch_larger_than_the_data_set_is_the_data_set() {
    let folder = inputs();
    let run = |stage: &KindConfig, output: &str| {
        let mut request = request(folder.path(), stage, output);
        if stage.info().name == "probe" {
            request = with_input(request, "weights", &folder.path().join("encoder"));
        }
        let context = Context::for_test(request.clone());
        let result = pipeline_learn::run(learn_stage(&request), &context);
        let notes = context.kept_events().into_iter().filter_map(|event| match event {
            Event::Note { text } if text.contains("fewer than") || text.contains("not more") => {
                Some(text)
            }
            _ => None,
        });
        (result.unwrap(), notes.collect::<Vec<_>>())
    };
    let meta = json!({"method": "meta-weight-net", "batch-size": 1000});
    let noted = |notes: &[String], samples: u64, what: &str| {
        let parts = [samples.to_string(), what.to_owned(), "1000".to_owned()];
        notes.iter().any(|note| parts.iter().all(|part| note.contains(part)))
    };
    for (name, stage, samples, what) in [
        ("encoder", changed("pretrain-simclr", &json!({"batch-size": 1000})), 48, "batch-size"),
        ("train", changed("train", &json!({"batch-size": 1000})), 40, "batch-size"),
        ("meta", changed("train", &meta), 8, "meta-batch-size"),
    ] {
        let (metrics, notes) = run(&stage, name);
        assert!(metrics.values().all(|value| value.is_finite()), "{name}: {metrics:?}");
        assert!(noted(&notes, samples, what), "{name}: {notes:?}");
    }
    let probe_with = |classifier: &str, batch: u64, k: u64| {
        stage(json!({"kind": "probe", "parameters": {
            "classifier": classifier, "batch-size": batch, "epochs": 1, "k": k,
        }}))
    };
    let probe = |classifier: &str, batch: u64| probe_with(classifier, batch, 7);
    let (_, notes) = run(&probe("linear", 1000), "linear");
    assert!(noted(&notes, 40, "batch-size"), "{notes:?}");
    // Nothing is trained here: no batch is too large or too small.
    let (metrics, notes) = run(&probe("knn", 1000), "knn");
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(metrics, run(&probe("knn", 1), "knn-one-by-one").0);
    let (_, notes) = run(&probe_with("knn", 10, 1000), "knn-of-all");
    assert!(noted(&notes, 40, "more than k"), "{notes:?}");
}

#[test]
fn one_sample_more_than_the_batches_hold_trains() {
    let folder = inputs();
    for kind in ["train", "probe"] {
        // 40 samples train: the last of 3 batches would have one.
        let changes = json!({"batch-size": 13});
        let stage = match kind {
            "train" => changed(kind, &changes),
            _ => {
                run(&request(folder.path(), &pretraining("lars"), "encoder")).unwrap();
                stage(json!({"kind": kind, "parameters": {
                    "batch-size": 13, "epochs": 1, "augmentation": "flip",
                }}))
            }
        };
        let mut request = request(folder.path(), &stage, kind);
        if kind == "probe" {
            request = with_input(request, "weights", &folder.path().join("encoder"));
        }
        run(&request).unwrap();
        let curves = std::fs::read_to_string(folder.path().join(kind).join("curves.csv")).unwrap();
        assert_eq!(curves.lines().count(), 2, "{curves}");
    }
    let evaluations = folder.path().join("train/evaluations.csv");
    let evaluations = std::fs::read_to_string(evaluations).unwrap();
    assert!(evaluations.lines().last().unwrap().starts_with("3,1,"), "{evaluations}");
}

#[test]
fn one_image_alone_cannot_be_compared() {
    let folder = inputs();
    let pixels = vec![9; SHAPE.bytes()];
    write_samples(&folder.path().join("data"), Part::Train, SHAPE, &pixels, &[0]).unwrap();
    let stage = changed("pretrain-simclr", &json!({}));
    assert_refused(&request(folder.path(), &stage, "out"), &["1 training images", "at least 2"]);
}

#[test]
fn contrastive_learning_sees_no_image_that_its_data_set_sets_aside() {
    let folder = inputs();
    let data = folder.path().join("data");
    let info = DatasetInfo { validation_samples: 47, ..DatasetInfo::read(&data).unwrap() };
    info.write(&data).unwrap();
    let stage = changed("pretrain-simclr", &json!({}));
    assert_refused(&request(folder.path(), &stage, "out"), &["1 training images"]);
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
fn the_best_on_samples_held_out_where_there_are_none() {
    let folder = inputs();
    let split = SplitIndices { train: (0..48).collect(), validation: Vec::new() };
    split.write(&folder.path().join("split")).unwrap();
    let stage = changed("train", &json!({"select-best": "validation"}));
    assert_refused(&request(folder.path(), &stage, "out"), &["held out", "select-best"]);
}

#[test]
fn a_batch_without_variance() {
    let folder = inputs();
    let stage = changed("train", &json!({"batch-size": 1}));
    assert_refused(&request(folder.path(), &stage, "out"), &["one image", "set batch-size"]);
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
    let input = Input::new(None, folder.join(name), ArtifactType::Weights);
    request.inputs.insert("init".to_owned(), vec![input]);
    request
}

#[test]
fn initial_weights_are_taken_over_and_their_mismatches_named() {
    let folder = inputs();
    run(&request(folder.path(), &pretraining("lars"), "simclr")).unwrap();
    let with = |stage: &KindConfig, name: &str| {
        with_init(request(folder.path(), stage, name), folder.path(), "simclr")
    };
    run(&with(&training("none"), "fits")).unwrap();
    let info = ModelInfo::read(&folder.path().join("fits")).unwrap();
    assert_eq!((info.input_mean, info.input_std), (vec![0.0], vec![1.0]));

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
        let input = Input::new(None, path, ArtifactType::Model);
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
