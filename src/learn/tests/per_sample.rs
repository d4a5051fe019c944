//! What is kept of single samples, against what is measured of all of them: the predictions of `evaluate`.

use std::path::Path;
use std::process::Command;

use crate::fixture::{SAMPLES, learn_stage, request, stage, training, with_input, write_inputs};
use pipeline_stages::KindConfig;
use pipeline_stages::formats::{Labels, PREDICTIONS_FILE, Part, Predictions};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;
use serde_json::json;

fn run(folder: &Path, stage: &KindConfig, output: &str, model: Option<&str>) -> Metrics {
    let mut request = request(folder, stage, output);
    if let Some(model) = model {
        request = with_input(request, "model", &folder.join(model));
    }
    pipeline_learn::run(learn_stage(&request), &Context::for_test(request.clone())).unwrap()
}

/// A folder with a trained `model` and its evaluation `metrics`.
fn evaluated() -> (tempfile::TempDir, Metrics) {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    run(folder.path(), &training("none"), "model", None);
    let evaluate = stage(json!({"kind": "evaluate", "parameters": {"batch-size": 7}}));
    let metrics = run(folder.path(), &evaluate, "metrics", Some("model"));
    (folder, metrics)
}

/// The cross-entropy under a label, in f64.
fn loss(logits: &[f32], label: i64) -> f64 {
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    sum.ln() - f64::from(logits[label as usize])
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[test]
fn predictions_are_those_that_were_measured() {
    let (folder, metrics) = evaluated();
    let read = |part| Predictions::read(&folder.path().join("metrics"), part).unwrap().unwrap();
    let test = read(Part::Test);
    assert_eq!(test.index, (0..SAMPLES as i64).collect::<Vec<_>>());
    assert!(test.given.is_none());
    let right = test.predicted.iter().zip(&test.clean.labels).filter(|(one, other)| one == other);
    assert_eq!(right.count() as f64 / SAMPLES as f64, metrics["test-accuracy"]);
    assert!((mean(&test.clean.losses) - metrics["test-loss"]).abs() < 1e-12);

    let train = read(Part::Train);
    assert_eq!(train.index, (0..40).collect::<Vec<_>>(), "those that train");
    let labels = Labels::read(&folder.path().join("labels")).unwrap();
    let given = train.given.as_ref().unwrap();
    assert_eq!(given.labels, labels.labels[..40]);
    assert_eq!(train.clean.labels, labels.clean[..40]);
    for (judged, rows) in [(given, &train), (&train.clean, &train), (&test.clean, &test)] {
        for (index, logits) in rows.logits.chunks(3).enumerate() {
            assert!((loss(logits, judged.labels[index]) - judged.losses[index]).abs() < 1e-9);
            let best = logits[rows.predicted[index] as usize];
            assert!(logits.iter().all(|&logit| logit <= best));
        }
    }
    // A wrong label that has a larger loss than a right one: how often, of all pairs.
    let wrong = |&index: &usize| given.labels[index] != train.clean.labels[index];
    let (wrong, right): (Vec<usize>, Vec<usize>) = (0..40).partition(wrong);
    let pairs = wrong.iter().flat_map(|one| right.iter().map(move |other| (one, other)));
    let ordered = pairs.filter(|(one, other)| given.losses[**one] > given.losses[**other]).count();
    let share = ordered as f64 / (wrong.len() * right.len()) as f64;
    assert!((share - metrics["noise-detection-auc"]).abs() < 1e-12);
}

#[test]
fn predictions_have_the_same_bytes_again() {
    let bytes = || {
        let (folder, _) = evaluated();
        std::fs::read(folder.path().join("metrics").join(PREDICTIONS_FILE)).unwrap()
    };
    assert!(bytes() == bytes());
}

/// Asks the `python3` of the PATH, if it has the package `safetensors`; without it, says so and tests nothing.
fn python(script: &str, arguments: &[&Path]) {
    let python = |script: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", script]).args(arguments);
        command.output()
    };
    let installed = python("import numpy, safetensors.numpy");
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 with the packages safetensors and numpy is not installed");
        return;
    }
    let output = python(script).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn python_reads_predictions() {
    let (folder, metrics) = evaluated();
    let script = format!(
        "import sys, numpy as np\n\
         from safetensors.numpy import load_file\n\
         found = load_file(sys.argv[1])\n\
         names = ['index', 'label-clean', 'logits', 'loss-clean', 'predicted']\n\
         test = {{'test.' + name for name in names}}\n\
         train = {{'train.' + name for name in names + ['label-given', 'loss-given']}}\n\
         assert set(found) == test | train, found.keys()\n\
         logits = found['test.logits']\n\
         assert logits.dtype == np.float32 and logits.shape == ({SAMPLES}, 3), logits.shape\n\
         assert found['train.loss-given'].dtype == np.float64\n\
         predicted, labels = found['test.predicted'], found['test.label-clean']\n\
         assert predicted.dtype == np.int64 and (logits.argmax(1) == predicted).all()\n\
         assert abs((predicted == labels).mean() - {}) < 1e-12\n\
         assert abs(found['test.loss-clean'].mean() - {}) < 1e-12\n",
        metrics["test-accuracy"], metrics["test-loss"]
    );
    python(&script, &[&folder.path().join("metrics").join(PREDICTIONS_FILE)]);
}
