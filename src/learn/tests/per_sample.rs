//! What is kept of single samples, against what is measured of all of them: the predictions of `evaluate`, the losses of
//! `train`, the views of `pretrain-simclr`.

use std::path::Path;
use std::process::Command;

use crate::fixture::{
    SAMPLES, SHAPE, divided_training, learn_stage, meta_training, pretraining, request, stage,
    training, truncated_training, with_input, write_inputs, write_inputs_of,
};
use pipeline_stages::KindConfig;
use pipeline_stages::formats::{
    CurveTable, Labels, PREDICTIONS_FILE, Part, Predictions, SAMPLE_LOSSES_FILE, SampleLosses,
    Samples,
};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;
use serde_json::{Value, json};

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
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: python3 with the packages safetensors and numpy is not installed\n",
        );
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

/// A training with another parameter.
fn with(stage: &KindConfig, name: &str, value: Value) -> KindConfig {
    let mut changed = serde_json::to_value(stage).unwrap();
    changed["parameters"][name] = value;
    serde_json::from_value(changed).unwrap()
}

#[test]
fn sample_losses_are_those_of_the_curves() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    for (name, plain) in [("finetune", training("flip")), ("meta", meta_training(&json!({})))] {
        run(folder.path(), &plain, &format!("{name}-plain"), None);
        run(folder.path(), &with(&plain, "sample-losses", json!(true)), name, None);
        let [plain, recorded] =
            [format!("{name}-plain"), name.to_owned()].map(|name| folder.path().join(name));
        assert_eq!(SampleLosses::read(&plain).unwrap(), None);
        let file = |model: &Path, name: &str| std::fs::read(model.join(name)).unwrap();
        for name in ["weights.safetensors", "curves.csv", "evaluations.csv"] {
            assert!(file(&plain, name) == file(&recorded, name), "{name} changed");
        }
        let found = SampleLosses::read(&recorded).unwrap().unwrap();
        let labels = Labels::read(&folder.path().join("labels")).unwrap();
        assert_eq!(found.index, (0..40).collect::<Vec<_>>());
        assert_eq!(
            (&found.given[..], &found.clean[..]),
            (&labels.labels[..40], &labels.clean[..40])
        );

        let curves = CurveTable::read(&recorded.join("curves.csv")).unwrap();
        let epochs = curves.column("train-loss").unwrap();
        assert_eq!(found.epochs(), epochs.len());
        let row_mean = |row: &[f32], chosen: &dyn Fn(usize) -> bool| {
            let chosen = row.iter().enumerate().filter(|(sample, _)| chosen(*sample));
            mean(&chosen.map(|(_, &value)| f64::from(value)).collect::<Vec<_>>())
        };
        for (row, loss) in found.losses.chunks(40).zip(&epochs) {
            assert!((row_mean(row, &|_| true) - loss).abs() < 1e-6, "{row:?} {loss}");
        }
        assert_eq!(found.weights.is_some(), name == "meta");
        let clean = |sample: usize| found.given[sample] == found.clean[sample];
        for (epoch, row) in found.weights.iter().flat_map(|weights| weights.chunks(40)).enumerate()
        {
            let measured = |column: &str| curves.column(column).unwrap()[epoch];
            assert!((row_mean(row, &clean) - measured("weight-clean")).abs() < 1e-6);
            let corrupted = row_mean(row, &|sample| !clean(sample));
            assert!((corrupted - measured("weight-corrupted")).abs() < 1e-6);
            assert!((row_mean(row, &|_| true) - measured("weight")).abs() < 1e-6);
        }
    }
}

#[test]
fn weights_of_a_truncated_loss_are_who_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    run(folder.path(), &with(&truncated_training(), "sample-losses", json!(true)), "model", None);
    let model = folder.path().join("model");
    let found = SampleLosses::read(&model).unwrap().unwrap();
    let kept = CurveTable::read(&model.join("curves.csv")).unwrap().column("kept").unwrap();
    assert_eq!(kept[0], 1.0);
    assert!(kept[1..].iter().all(|share| (0.01..0.99).contains(share)), "{kept:?}");
    for (weights, kept) in found.weights.unwrap().chunks(40).zip(kept) {
        assert!(weights.iter().all(|weight| [0.0, 1.0].contains(weight)));
        let count = weights.iter().filter(|weight| **weight == 1.0).count();
        assert_eq!(count as f64 / 40.0, kept);
    }
}

#[test]
fn samples_are_divided_after_the_first_epochs() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    run(folder.path(), &divided_training(), "model", None);
    let curves = CurveTable::read(&folder.path().join("model/curves.csv")).unwrap();
    for name in ["labelled-loss", "unlabelled-loss", "labelled", "labelled-clean"] {
        let column = curves.column(name).unwrap();
        assert!(column[0].is_nan() && column[1..].iter().all(|value| value.is_finite()), "{name}");
    }
    let labelled = curves.column("labelled").unwrap();
    assert!(labelled[1..].iter().all(|share| (0.05..=0.95).contains(share)), "{labelled:?}");
}

#[test]
fn a_validation_by_the_training_transform_changes_nothing_but_the_validation() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let [plain, training] = ["plain", "training"].map(|transform| {
        let stage = with(&training("crop-flip"), "validation-transform", json!(transform));
        run(folder.path(), &stage, transform, None);
        let model = folder.path().join(transform);
        let weights = std::fs::read(model.join("weights.safetensors")).unwrap();
        let table = CurveTable::read(&model.join("evaluations.csv")).unwrap();
        (weights, ["test-loss", "validation-loss"].map(|name| table.column(name).unwrap()))
    });
    let ((plain_weights, [plain_test, plain]), (weights, [test, drawn])) = (plain, training);
    assert!(plain_weights == weights && plain_test == test);
    assert_eq!(plain.len(), drawn.len());
    assert!(plain.iter().zip(&drawn).all(|(plain, drawn)| plain != drawn), "{plain:?} {drawn:?}");
}

#[test]
fn a_sample_that_an_epoch_did_not_visit_has_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = with(&training("none"), "samples-per-epoch", json!(18));
    run(folder.path(), &with(&stage, "sample-losses", json!(true)), "model", None);
    let found = SampleLosses::read(&folder.path().join("model")).unwrap().unwrap();
    for epoch in found.losses.chunks(40) {
        assert_eq!(epoch.iter().filter(|loss| loss.is_finite()).count(), 18);
        assert_eq!(epoch.iter().filter(|loss| loss.is_nan()).count(), 22);
    }
}

#[test]
fn python_reads_sample_losses() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = with(&meta_training(&json!({})), "sample-losses", json!(true));
    let metrics = run(folder.path(), &stage, "model", None);
    let script = format!(
        "import sys, numpy as np\n\
         from safetensors.numpy import load_file\n\
         found = load_file(sys.argv[1])\n\
         assert set(found) == {{'index', 'label-given', 'label-clean', 'losses', 'weights'}}, found.keys()\n\
         for name in ['losses', 'weights']:\n\
         \x20   assert found[name].dtype == np.float32 and found[name].shape == (2, 40), name\n\
         assert (found['index'] == np.arange(40)).all()\n\
         assert abs(found['losses'][-1].mean() - {}) < 1e-5\n\
         right = found['label-given'] == found['label-clean']\n\
         assert abs(found['weights'][-1, right].mean() - {}) < 1e-5\n",
        metrics["train-loss"], metrics["weight-clean"]
    );
    python(&script, &[&folder.path().join("model").join(SAMPLE_LOSSES_FILE)]);
}

#[test]
fn views_are_shown_beside_their_images() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    run(folder.path(), &pretraining("adam"), "own-size", None);
    let larger = with(&pretraining("adam"), "image-size", json!(12));
    run(folder.path(), &with(&larger, "blur", json!("always")), "resized", None);
    let open = |name: &str| image::open(folder.path().join(name).join("views.png")).unwrap();

    let sheet = open("own-size");
    // 8 rows of 3 images, 8 pixels square, with gaps of 2.
    assert_eq!((sheet.width(), sheet.height()), (3 * 10, 8 * 10));
    let sheet = sheet.as_luma8().expect("the images are grey");
    let at =
        |row: u32, column: u32, x: u32, y: u32| sheet.get_pixel(10 * column + x, 10 * row + y).0[0];
    let samples = Samples::open(&folder.path().join("data"), Part::Train).unwrap();
    let mut moved = 0;
    for row in 0..8 {
        let sample = (row as usize * SAMPLES / 8) * SHAPE.bytes();
        for place in 0..64 {
            let (x, y) = (place % 8, place / 8);
            let pixel = samples.pixels()[sample + place as usize];
            assert_eq!(at(row, 0, x, y), pixel, "sample in row {row}");
            moved += u32::from(at(row, 1, x, y) != at(row, 2, x, y));
        }
        assert_eq!((at(row, 0, 8, 0), at(row, 2, 9, 9)), (255, 255), "white between them");
    }
    assert!(moved > 100, "the views differ");
    let resized = open("resized");
    assert_eq!((resized.width(), resized.height()), (3 * 14, 8 * 14));
}

#[test]
fn views_of_any_number_of_channels_are_shown() {
    for channels in 2..=4 {
        let folder = tempfile::tempdir().unwrap();
        write_inputs_of(folder.path(), channels);
        run(folder.path(), &pretraining("adam"), "simclr", None);
        let sheet = image::open(folder.path().join("simclr").join("views.png")).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (3 * 10, 8 * 10));
        assert_eq!(sheet.as_rgb8().is_some(), channels == 3);
        let samples = Samples::open(&folder.path().join("data"), Part::Train).unwrap();
        let (bytes, colours) = (samples.image.bytes(), sheet.to_rgb8());
        for (row, place) in (0..8).flat_map(|row| (0..64).map(move |place| (row, place))) {
            // Grey where there is no colour, so the first is the first channel of all.
            let found = colours.get_pixel(place % 8, 10 * row + place / 8).0[0];
            let sample = (row as usize * SAMPLES / 8) * bytes;
            assert_eq!(found, samples.pixels()[sample + place as usize], "{channels} channels");
        }
    }
}
