use std::collections::BTreeMap;
use std::path::PathBuf;

use pipeline_stages::ArtifactType;
use pipeline_stages::formats::{ImageShape, read_json, write_samples};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::reference::{digest, reference_path};
use crate::stage_test::StageTest;

#[derive(Deserialize)]
struct Case {
    seed: u64,
    noise: Noise,
    rate: f64,
    classes: usize,
    first: Vec<i64>,
    sha256: String,
    wrong: usize,
}

/// The pairs of the script that wrote the reference numbers.
fn reference_pairs(classes: usize) -> BTreeMap<String, String> {
    let name = |label: usize| label.to_string();
    match classes {
        10 => {
            [(9, 1), (2, 0), (3, 5), (5, 3), (4, 7)].map(|(from, to)| (name(from), name(to))).into()
        }
        _ => {
            (0..classes).map(|label| (name(label), name(label / 5 * 5 + (label + 1) % 5))).collect()
        }
    }
}

#[test]
fn noisy_labels_are_those_of_numpy() {
    let cases: Vec<Case> = read_json(&reference_path("numpy_noise.json")).unwrap();
    assert!(cases.len() >= 70);
    for case in cases {
        let clean: Vec<i64> = (0..4000).map(|sample| sample * 7 % case.classes as i64).collect();
        let order: Vec<usize> = (0..3900).map(|sample| sample * 1237 % 4000).collect();
        let classes: Vec<String> = (0..case.classes).map(|label| label.to_string()).collect();
        let pairs = match case.noise {
            Noise::Asymmetric => reference_pairs(case.classes),
            _ => BTreeMap::new(),
        };
        let rate = Some(case.rate);
        let stage = CorruptLabels { noise: case.noise, rate, pairs, human_labels: None };
        let clean_classes = class_indices(&clean, case.classes).unwrap();
        let corrupted = drawn(&stage, &clean_classes, &classes, &order, case.seed).unwrap();
        let report = corrupted.report(&stage, &clean_classes, &order, classes);
        let labels: Vec<i64> = corrupted.classes.iter().map(|&class| class as i64).collect();
        let name =
            format!("{} {} of {} classes, seed {}", case.noise, case.rate, case.classes, case.seed);
        assert_eq!(labels[..case.first.len()], case.first, "{name}");
        assert_eq!(report.corrupted, case.wrong, "{name}");
        assert_eq!(digest(&labels), case.sha256, "{name}");
    }
}

/// A data set of `samples` images of one pixel, with the classes of CIFAR-10 in turn.
fn data(test: &StageTest, samples: usize) -> PathBuf {
    let artifact = test.folder().join("data");
    std::fs::create_dir_all(&artifact).unwrap();
    let image = ImageShape { channels: 1, height: 1, width: 1 };
    let labels: Vec<i64> = (0..samples as i64).map(|sample| sample % 10).collect();
    for part in [Part::Train, Part::Test] {
        write_samples(&artifact, part, image, &vec![0; samples], &labels).unwrap();
    }
    let info = DatasetInfo {
        format: "cifar10".into(),
        classes: crate::cifar_classes::CIFAR10_CLASSES.map(str::to_owned).to_vec(),
        image,
        train_samples: samples,
        test_samples: samples,
        channel_mean: vec![0.0],
        channel_deviation: vec![0.0],
        ..DatasetInfo::default()
    };
    info.write(&artifact).unwrap();
    artifact
}

#[test]
fn held_out_samples_stay_clean() {
    let mut test = StageTest::new();
    let data = data(&test, 500);
    let data = ("data", ArtifactType::Dataset, data.as_path());
    let (split, metrics) = test.run("split", json!({"holdout": 100}), &[data], 220, None).unwrap();
    assert_eq!(metrics["train-samples"], 400.0);
    assert_eq!(metrics["validation-samples"], 100.0);
    let parameters = json!({"noise": "flip", "rate": 1.0});
    let inputs = [data, ("split", ArtifactType::Split, split.as_path())];
    let (output, metrics) = test.run("corrupt-labels", parameters, &inputs, 220, None).unwrap();
    assert_eq!((metrics["noise-rate"], metrics["samples"]), (1.0, 400.0));

    let labels = Labels::read(&output).unwrap();
    let split = SplitIndices::read(&split).unwrap();
    let wrong = |&sample: &i64| labels.labels[sample as usize] != labels.clean[sample as usize];
    assert!(split.train.iter().all(wrong));
    assert!(!split.validation.iter().any(wrong));
    let report = NoiseReport::read(&output).unwrap();
    assert_eq!((report.samples, report.corrupted, report.realised_rate), (400, 400, 1.0));
    assert_eq!(report.requested_matrix.unwrap(), report.realised_matrix);
}

#[test]
fn asymmetric_noise_on_cifar10_needs_no_pairs() {
    let mut test = StageTest::new();
    let data = data(&test, 100);
    let inputs = [("data", ArtifactType::Dataset, data.as_path())];
    let parameters = json!({"noise": "asymmetric", "rate": 1.0});
    let (output, metrics) = test.run("corrupt-labels", parameters, &inputs, 0, None).unwrap();
    assert_eq!((metrics["noise-rate"], metrics["samples"]), (0.5, 100.0));
    assert_eq!(Labels::read(&output).unwrap().labels[..10], [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let mut test = StageTest::new();
    let data = data(&test, 300);
    let inputs = [("data", ArtifactType::Dataset, data.as_path())];
    let mut run = |seed| {
        let parameters = json!({"rate": 0.8});
        let (output, _) = test.run("corrupt-labels", parameters, &inputs, seed, None).unwrap();
        ["labels.safetensors", "noise.json"].map(|file| std::fs::read(output.join(file)).unwrap())
    };
    let first = run(220);
    assert_eq!(first, run(220));
    assert_ne!(first, run(221));
}

#[test]
fn a_split_of_another_data_set_is_an_error() {
    for (train, message) in [
        (vec![0, 1, 10], "names sample 10, but the data set has 10"),
        (vec![0, -1], "names sample -1"),
        (vec![3, 4, 3], "names sample 3 twice"),
    ] {
        let mut test = StageTest::new();
        let data = data(&test, 10);
        let split = test.folder().join("split");
        std::fs::create_dir(&split).unwrap();
        SplitIndices { train, validation: Vec::new() }.write(&split).unwrap();
        let inputs = [
            ("data", ArtifactType::Dataset, data.as_path()),
            ("split", ArtifactType::Split, split.as_path()),
        ];
        let result = test.run("corrupt-labels", json!({"rate": 0.5}), &inputs, 0, None);
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_label_beyond_the_classes_is_an_error() {
    for label in [2, -1] {
        let error = class_indices(&[0, label], 2).unwrap_err().to_string();
        assert!(
            error.contains(&format!("sample 1 of the data set has the label {label}")),
            "{error}"
        );
    }
}
