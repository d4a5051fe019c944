//! Data sets of JPEG, PNG and WebP files of any size, and pixels resized: training, pre-training, evaluation.
//!
//! The files are those of `tests/reference/large_images/`.

use std::path::Path;

use crate::fixture::{learn_stage, request, stage, with_input};
use pipeline_stages::formats::{
    DatasetInfo, Evaluations, ImageShape, InputCrop, Labels, ModelInfo, Part, SamplesWriter,
    SplitIndices, Storage,
};
use pipeline_stages::message::{Input, Metrics, Request};
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, KindConfig};
use serde_json::{Value, json};

const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/large_images");
/// Files and their classes: wide drawings and tall ones.
const FILES: [(&str, i64); 8] = [
    ("wide.png", 0),
    ("colour.jpg", 0),
    ("grey.jpg", 0),
    ("alpha.png", 0),
    ("tall.png", 1),
    ("progressive.jpg", 1),
    ("cmyk.jpg", 1),
    ("grey.png", 1),
];
const REPEATED: usize = 3;
const SAMPLES: usize = FILES.len() * REPEATED;

/// The artifacts `data` (encoded images), `split` and `labels`.
fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data", "split", "labels"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    write_data(folder.path(), |_, file| file);
    let clean: Vec<i64> = (0..SAMPLES).map(|index| FILES[index % FILES.len()].1).collect();
    let noisy = clean.iter().enumerate();
    let noisy = noisy.map(|(index, label)| if index % 5 == 0 { 1 - label } else { *label });
    Labels { labels: noisy.collect(), clean }.write(&folder.path().join("labels")).unwrap();
    let split = SplitIndices { train: (0..20).collect(), validation: (20..24).collect() };
    split.write(&folder.path().join("split")).unwrap();
    folder
}

/// Writes the data set, each file of the training part as `change` makes it.
fn write_data(folder: &Path, change: impl Fn(usize, Vec<u8>) -> Vec<u8>) {
    let data = folder.join("data");
    for part in [Part::Train, Part::Test] {
        let mut writer = SamplesWriter::encoded(&data, part).unwrap();
        for index in 0..SAMPLES {
            let (name, label) = FILES[index % FILES.len()];
            let file = std::fs::read(Path::new(IMAGES).join(name)).unwrap();
            let file = if part == Part::Train { change(index, file) } else { file };
            writer.push(&file, label).unwrap();
        }
        writer.finish().unwrap();
    }
    let info = DatasetInfo {
        format: "test".to_owned(),
        classes: ["wide", "tall"].map(str::to_owned).to_vec(),
        storage: Storage::Encoded,
        image: ImageShape::ENCODED,
        train_samples: SAMPLES,
        test_samples: SAMPLES,
        channel_mean: vec![0.5; 3],
        channel_std: vec![0.3; 3],
        ..DatasetInfo::default()
    };
    info.write(&data).unwrap();
}

fn run(request: &Request) -> anyhow::Result<Metrics> {
    pipeline_learn::run(learn_stage(request), &Context::for_test(request.clone()))
}

fn training(changes: &Value) -> KindConfig {
    let mut parameters = json!({
        "architecture": "resnet8-fast", "epochs": 2, "batch-size": 6, "image-size": 24,
        "augmentation": "random-resized-crop", "learning-rate": 0.02,
        "sampling": "class-balanced", "samples-per-epoch": 14,
    });
    for (name, value) in changes.as_object().unwrap() {
        parameters[name] = value.clone();
    }
    stage(json!({"kind": "train", "parameters": parameters}))
}

/// Evaluates the artifact `model` of the folder.
fn evaluate(folder: &Path, model: &str, output: &str) -> anyhow::Result<Metrics> {
    let stage = stage(json!({"kind": "evaluate", "parameters": {"batch-size": 7}}));
    let mut request = request(folder, &stage, output);
    let input = Input::new(None, folder.join(model), ArtifactType::Model);
    request.inputs.insert("model".to_owned(), vec![input]);
    run(&request)
}

#[track_caller]
fn assert_refused(result: anyhow::Result<Metrics>, parts: &[&str]) {
    let message = format!("{:#}", result.unwrap_err());
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn what_has_no_crop_of_its_own_goes_by_that_of_its_encoder() {
    let folder = inputs();
    let first = training(&json!({"augmentation": "resize-crop-flip", "epochs": 1}));
    run(&request(folder.path(), &first, "first")).unwrap();
    let from_first = |stage: &KindConfig, port, output: &str| {
        let request = request(folder.path(), stage, output);
        run(&with_input(request, port, &folder.path().join("first"))).unwrap()
    };
    for (way, crop) in [
        ("flip", InputCrop::ResizeThenCrop),
        ("none", InputCrop::ResizeThenCrop),
        ("random-resized-crop", InputCrop::CropThenResize),
    ] {
        from_first(&training(&json!({"augmentation": way, "epochs": 1})), "init", way);
        let model = ModelInfo::read(&folder.path().join(way)).unwrap();
        assert_eq!(model.input_crop, Some(crop), "{way}");
    }
    let probe = stage(json!({"kind": "probe", "parameters": {
        "epochs": 2, "batch-size": 6, "image-size": 24, "augmentation": "none",
    }}));
    assert!(from_first(&probe, "weights", "probe").contains_key("linear-accuracy"));
}

#[test]
fn a_classifier_of_encoded_images_is_evaluated_as_it_was_trained() {
    let folder = inputs();
    for (way, crop) in [
        ("random-resized-crop", InputCrop::CropThenResize),
        ("resize-crop-flip", InputCrop::ResizeThenCrop),
        ("flip", InputCrop::CropThenResize),
    ] {
        let stage = training(&json!({"augmentation": way}));
        let trained = run(&request(folder.path(), &stage, way)).unwrap();
        let model = ModelInfo::read(&folder.path().join(way)).unwrap();
        assert_eq!(model.input, ImageShape { channels: 3, height: 24, width: 24 });
        assert_eq!(model.input_crop, Some(crop));

        let metrics = evaluate(folder.path(), way, &format!("metrics-{way}")).unwrap();
        let evaluations = Evaluations::read(&folder.path().join(way)).unwrap();
        let on_the_way = *evaluations.0.last().unwrap();
        let last = on_the_way.test_accuracy.unwrap();
        assert_eq!(
            metrics["test-accuracy"], last,
            "{way}: the last evaluation saw the same images"
        );
        let difference = (on_the_way.test_loss.unwrap() - metrics["test-loss"]).abs();
        assert!(difference < 1e-5 * metrics["test-loss"], "{way}: {difference}");
        assert!(trained.contains_key("validation-accuracy"));
        for name in [
            "test-accuracy-at-best-validation",
            "best-test-accuracy-chosen-on-test",
            "test-ece",
            "noise-detection-auc",
        ] {
            let value = metrics.get(name).copied().unwrap_or(f64::NAN);
            assert!((0.0..=1.0).contains(&value), "{way}: {name} is {value}");
        }
        assert!(!metrics.contains_key("test-top5-accuracy"), "there are two classes");
        let best = metrics["best-test-accuracy-chosen-on-test"];
        assert!(best >= metrics["test-accuracy-at-best-validation"] && best >= last);
    }
    let rows = std::fs::read_to_string(folder.path().join("metrics-flip/reliability.csv")).unwrap();
    assert_eq!(rows.lines().count(), 16);
}

#[test]
fn the_same_training_makes_the_same_bytes_and_learns() {
    let folder = inputs();
    let stage = training(&json!({
        "augmentation": "flip", "epochs": 12, "sampling": "uniform", "samples-per-epoch": null,
        "track-test": false,
    }));
    let weights = ["one", "other"].map(|output| {
        run(&request(folder.path(), &stage, output)).unwrap();
        std::fs::read(folder.path().join(output).join("weights.safetensors")).unwrap()
    });
    assert!(weights[0] == weights[1]);
    let curves = std::fs::read_to_string(folder.path().join("one/curves.csv")).unwrap();
    let losses: Vec<f64> = curves
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(losses[11] < 0.8 * losses[0], "{losses:?}");
}

#[test]
fn a_file_that_is_not_an_image_is_named_by_its_index() {
    let folder = inputs();
    write_data(folder.path(), |index, file| if index == 9 { b"no image".to_vec() } else { file });
    let stage = training(&json!({"sampling": "uniform", "samples-per-epoch": null}));
    assert_refused(run(&request(folder.path(), &stage, "out")), &["image 9", "JPEG, PNG or WebP"]);
}

#[test]
fn what_does_not_go_with_encoded_images_is_refused() {
    let folder = inputs();
    let stage = training(&json!({"augmentation": "crop-flip", "image-size": null}));
    let result = run(&request(folder.path(), &stage, "out"));
    assert_refused(result, &["crop-flip", "random-resized-crop"]);

    // A model that takes images as they are, such as one of a data set of pixels.
    run(&request(folder.path(), &training(&json!({})), "model")).unwrap();
    let mut model = ModelInfo::read(&folder.path().join("model")).unwrap();
    model.input_crop = None;
    model.write(&folder.path().join("model")).unwrap();
    let result = evaluate(folder.path(), "model", "metrics");
    assert_refused(result, &["24x24", "encoded", "image-size"]);
}

#[test]
fn contrastive_pre_training_on_encoded_images_makes_an_encoder_for_them() {
    let folder = inputs();
    let stage = stage(json!({"kind": "pretrain-simclr", "parameters": {
        "architecture": "resnet8-fast", "epochs": 1, "batch-size": 8, "optimizer": "adam",
        "learning-rate": 0.001, "image-size": 64,
    }}));
    let metrics = run(&request(folder.path(), &stage, "simclr")).unwrap();
    assert!(metrics["loss"].is_finite());
    let model = ModelInfo::read(&folder.path().join("simclr")).unwrap();
    assert_eq!(model.input, ImageShape { channels: 3, height: 64, width: 64 });
    assert_eq!(model.input_crop, Some(InputCrop::CropThenResize));

    let mut request = request(folder.path(), &training(&json!({})), "tuned");
    let path = folder.path().join("simclr");
    let input = Input::new(None, path, ArtifactType::Weights);
    request.inputs.insert("init".to_owned(), vec![input]);
    run(&request).unwrap();
}

#[test]
fn pixels_are_resized_too() {
    let folder = tempfile::tempdir().unwrap();
    crate::fixture::write_inputs(folder.path());
    let stage = training(&json!({"image-size": 12}));
    run(&request(folder.path(), &stage, "model")).unwrap();
    let model = ModelInfo::read(&folder.path().join("model")).unwrap();
    assert_eq!(model.input, ImageShape { channels: 1, height: 12, width: 12 });
    assert!(evaluate(folder.path(), "model", "metrics").unwrap().contains_key("test-accuracy"));
}
