use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_stages::ArtifactType;
use pipeline_stages::formats::{ImageShape, SplitIndices, read_json, write_samples};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::fixture::Fixture;
use crate::reference::{digest, reference_path};
use crate::samples::unpack_fashion_mnist;

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
    assert!(cases.len() >= 84);
    for case in cases {
        let clean: Vec<i64> = (0..4000).map(|sample| sample * 7 % case.classes as i64).collect();
        let order: Vec<usize> = (0..3900).map(|sample| sample * 1237 % 4000).collect();
        let classes: Vec<String> = (0..case.classes).map(|label| label.to_string()).collect();
        let pairs = match case.noise {
            Noise::Asymmetric => reference_pairs(case.classes),
            _ => BTreeMap::new(),
        };
        let rate = Some(case.rate);
        let stage = CorruptLabels {
            noise: case.noise,
            rate,
            classes: None,
            pairs,
            matrix: None,
            human_labels: None,
            path: None,
        };
        let clean_classes = class_indices(&clean, case.classes).unwrap();
        let folder = Path::new("");
        let corrupted = drawn(&stage, folder, &clean_classes, &classes, &order, case.seed).unwrap();
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
fn data(test: &Fixture, samples: usize) -> PathBuf {
    let artifact = test.folder().join("data");
    std::fs::create_dir_all(&artifact).unwrap();
    let image = ImageShape { channels: 1, height: 1, width: 1 };
    let labels: Vec<i64> = (0..samples as i64).map(|sample| sample % 10).collect();
    for part in [Part::Train, Part::Test] {
        write_samples(&artifact, part, image, &vec![0; samples], &labels).unwrap();
    }
    let info = DatasetInfo {
        format: "cifar10".into(),
        classes: pipeline_stages::cifar_classes::CIFAR10_CLASSES.map(str::to_owned).to_vec(),
        image,
        train_samples: samples,
        test_samples: samples,
        channel_mean: vec![0.0],
        channel_std: vec![0.0],
        ..DatasetInfo::default()
    };
    info.write(&artifact).unwrap();
    artifact
}

#[test]
fn held_out_samples_stay_clean() {
    let mut test = Fixture::new();
    let data = data(&test, 500);
    let data = ("data", ArtifactType::Dataset, data.as_path());
    let (split, metrics) =
        test.run_on("split", json!({"holdout": 100}), &[data], 220, None).unwrap();
    assert_eq!(metrics["train-samples"], 400.0);
    assert_eq!(metrics["validation-samples"], 100.0);
    let parameters = json!({"noise": "flip", "rate": 1.0});
    let inputs = [data, ("split", ArtifactType::Split, split.as_path())];
    let (output, metrics) = test.run_on("corrupt-labels", parameters, &inputs, 220, None).unwrap();
    assert_eq!((metrics["noise-rate"], metrics["samples"]), (1.0, 400.0));

    let labels = Labels::read(&output).unwrap();
    let split = SplitIndices::read(&split).unwrap();
    let wrong = |&sample: &i64| labels.labels[sample as usize] != labels.clean[sample as usize];
    assert!(split.train.iter().all(wrong));
    assert!(!split.validation.iter().any(wrong));
    let report = NoiseReport::read(&output).unwrap();
    assert_eq!((report.samples, report.corrupted, report.realised_rate), (400, 400, 1.0));
    assert_eq!(report.requested_matrix.unwrap(), report.realised_matrix);
    assert_eq!(report.corrupted_classes, None);
}

/// On the 5,000 training images that come with the quickstart: whatever the matrix does not name stays or never comes, and the shares of the others
/// are those of the matrix, within four standard errors.
#[test]
fn labels_of_real_images_go_where_the_matrix_says() {
    let mut test = Fixture::new();
    let source = test.folder().join("source");
    unpack_fashion_mnist(&source);
    let from = ("source", ArtifactType::Directory, source.as_path());
    let (data, _) = test.run_on("dataset", json!({"format": "idx"}), &[from], 0, None).unwrap();
    // A class of its own rate and target for each class: 0 stays, 9 becomes 2 nearly half of the time.
    let rows = (0..10).map(|class: usize| {
        let mut row = [0.0; 10];
        row[class] = 1.0 - 0.05 * class as f64;
        row[(class + 3) % 10] = 0.05 * class as f64;
        row
    });
    let own: Vec<[f64; 10]> = rows.collect();
    let text = own.iter().map(|row| row.map(|share| share.to_string()).join(",") + "\n");
    std::fs::write(test.folder().join("own.csv"), text.collect::<String>()).unwrap();
    let names = DatasetInfo::read(&data).unwrap().classes;
    let pairs = |rate: f64, is_chosen: fn(usize) -> bool| {
        move |class: usize, label: usize| match (is_chosen(class), label) {
            (false, label) => f64::from(label == class),
            (true, label) if label == class => 1.0 - rate,
            (true, label) => {
                if label == (class + 1) % 10 {
                    rate
                } else {
                    0.0
                }
            }
        }
    };
    let spread = |class: usize, label: usize| match class {
        2 | 7 => 0.08 + if label == class { 0.2 } else { 0.0 },
        _ => f64::from(label == class),
    };
    type Share<'a> = &'a dyn Fn(usize, usize) -> f64;
    let cases: [(serde_json::Value, Share); 4] = [
        (json!({"noise": "pairflip", "rate": 0.45}), &pairs(0.45, |_| true)),
        (
            json!({"noise": "pairflip", "rate": 0.3, "classes": [names[9]]}),
            &pairs(0.3, |class| class == 9),
        ),
        (json!({"noise": "symmetric", "rate": 0.8, "classes": [names[7], names[2]]}), &spread),
        (json!({"noise": "matrix", "matrix": "own.csv"}), &|class, label| own[class][label]),
    ];
    for (parameters, expected) in cases {
        let from = ("data", ArtifactType::Dataset, data.as_path());
        let (output, _) =
            test.run_on("corrupt-labels", parameters.clone(), &[from], 220, None).unwrap();
        let labels = Labels::read(&output).unwrap();
        let mut counts = [[0.0; 10]; 10];
        for (&clean, &label) in labels.clean.iter().zip(&labels.labels) {
            counts[clean as usize][label as usize] += 1.0;
        }
        for (class, row) in counts.iter().enumerate() {
            let samples: f64 = row.iter().sum();
            assert!(samples > 400.0, "{samples}");
            for (label, count) in row.iter().enumerate() {
                let (share, expected) = (count / samples, expected(class, label));
                let error = (expected * (1.0 - expected) / samples).sqrt();
                assert!(
                    (share - expected).abs() <= 4.0 * error,
                    "{parameters}: {share} of class {class} became {label}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn asymmetric_noise_on_cifar10_needs_no_pairs() {
    let mut test = Fixture::new();
    let data = data(&test, 100);
    let inputs = [("data", ArtifactType::Dataset, data.as_path())];
    let parameters = json!({"noise": "asymmetric", "rate": 1.0});
    let (output, metrics) = test.run_on("corrupt-labels", parameters, &inputs, 0, None).unwrap();
    assert_eq!((metrics["noise-rate"], metrics["samples"]), (0.5, 100.0));
    assert_eq!(Labels::read(&output).unwrap().labels[..10], [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]);
}

/// Runs on 100 samples of CIFAR-10's classes, and returns the labels and the report.
fn run_on_100(
    test: &mut Fixture,
    parameters: serde_json::Value,
) -> anyhow::Result<(Labels, NoiseReport)> {
    let data = data(test, 100);
    let inputs = [("data", ArtifactType::Dataset, data.as_path())];
    let (output, _) = test.run_on("corrupt-labels", parameters, &inputs, 1, None)?;
    Ok((Labels::read(&output)?, NoiseReport::read(&output)?))
}

#[test]
fn pairflip_goes_to_the_next_class() {
    let parameters = json!({"noise": "pairflip", "rate": 1.0});
    let (labels, report) = run_on_100(&mut Fixture::new(), parameters).unwrap();
    assert_eq!(labels.labels[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]);
    assert_eq!(report.requested_matrix.unwrap(), report.realised_matrix);
}

#[test]
fn only_the_labels_of_these_classes_are_corrupted() {
    for noise in ["symmetric", "flip", "flip2", "pairflip"] {
        let parameters = json!({"noise": noise, "rate": 1.0, "classes": ["dog", "airplane"]});
        let (labels, report) = run_on_100(&mut Fixture::new(), parameters).unwrap();
        let pairs = labels.labels.iter().zip(&labels.clean);
        let wrong: Vec<i64> =
            pairs.filter(|(label, clean)| label != clean).map(|pair| *pair.1).collect();
        assert!(wrong.iter().all(|class| [0, 5].contains(class)), "{noise}: {wrong:?}");
        assert!(wrong.contains(&0) && wrong.contains(&5), "{noise}: {wrong:?}");
        // As the data set has them: their order in the manifest is not in the key.
        assert_eq!(report.corrupted_classes.unwrap(), ["airplane", "dog"], "{noise}");
        let rows = report.requested_matrix.unwrap();
        let is_clean = |class: &usize| rows[*class][*class] == 1.0;
        assert_eq!((0..10).filter(is_clean).count(), 8, "{noise}");
    }
    let parameters = json!({"rate": 0.5, "classes": ["dogs"]});
    let error = format!("{:#}", run_on_100(&mut Fixture::new(), parameters).err().unwrap());
    assert_eq!(error, "in 'classes': the class 'dogs' does not exist; did you mean 'dog'?");
}

#[test]
fn the_matrix_of_a_file_is_drawn_from() {
    let mut test = Fixture::new();
    // From each class to the one three ahead.
    let row = |class: usize| {
        (0..10).map(|label| if label == (class + 3) % 10 { "1" } else { "0" }).collect::<Vec<_>>()
    };
    let text: Vec<String> = (0..10).map(|class| row(class).join(",")).collect();
    test.write("noise.csv", text.join("\n"));
    let parameters = json!({"noise": "matrix", "matrix": "noise.csv"});
    let (labels, report) = run_on_100(&mut test, parameters.clone()).unwrap();
    let target = |class: &i64| (class + 3) % 10;
    assert_eq!(labels.labels, labels.clean.iter().map(target).collect::<Vec<_>>());
    assert_eq!(report.requested_rate, None);
    assert_eq!(report.requested_matrix.unwrap(), report.realised_matrix);

    // The same probabilities draw the same labels.
    let symmetric: Vec<String> = NoiseMatrix::symmetric(10, 0.5)
        .rows
        .iter()
        .map(|row| row.iter().map(f64::to_string).collect::<Vec<_>>().join(" "))
        .collect();
    test.write("noise.csv", symmetric.join("\n"));
    let (from_file, _) = run_on_100(&mut test, parameters.clone()).unwrap();
    let (built_in, _) = run_on_100(&mut test, json!({"rate": 0.5})).unwrap();
    assert_eq!(from_file.labels, built_in.labels);

    let mut wrong = text.clone();
    wrong[4] = "0.5,0.5".to_owned();
    let path = test.write("noise.csv", wrong.join("\n"));
    let error = run_on_100(&mut test, parameters.clone()).err().unwrap().to_string();
    let expected = "line 5: it has 2 numbers, but the data set has 10 classes";
    assert_eq!(error, format!("{}, {expected}", path.display()));
    std::fs::remove_file(&path).unwrap();
    let error = run_on_100(&mut test, parameters).err().unwrap().to_string();
    assert_eq!(error, format!("cannot read {}", path.display()));
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let mut test = Fixture::new();
    let data = data(&test, 300);
    let inputs = [("data", ArtifactType::Dataset, data.as_path())];
    let mut run = |seed| {
        let parameters = json!({"rate": 0.8});
        let (output, _) = test.run_on("corrupt-labels", parameters, &inputs, seed, None).unwrap();
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
        let mut test = Fixture::new();
        let data = data(&test, 10);
        let split = test.folder().join("split");
        std::fs::create_dir(&split).unwrap();
        SplitIndices { train, validation: Vec::new() }.write(&split).unwrap();
        let inputs = [
            ("data", ArtifactType::Dataset, data.as_path()),
            ("split", ArtifactType::Split, split.as_path()),
        ];
        let result = test.run_on("corrupt-labels", json!({"rate": 0.5}), &inputs, 0, None);
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

#[derive(Deserialize)]
struct HumanExpected {
    human: BTreeMap<String, Vec<i64>>,
}

fn human_expected() -> BTreeMap<String, Vec<i64>> {
    read_json::<HumanExpected>(&reference_path("data/expected.json")).unwrap().human
}

/// Runs with human labels from a folder of the test.
fn run_human(
    test: &mut Fixture,
    data: &Path,
    human: &Path,
    labels: &str,
) -> anyhow::Result<PathBuf> {
    let inputs = [("data", ArtifactType::Dataset, data), ("human", ArtifactType::File, human)];
    let parameters = json!({"noise": "human", "human-labels": labels});
    Ok(test.run_on("corrupt-labels", parameters, &inputs, 0, None)?.0)
}

fn write_human(test: &Fixture, name: &str) -> PathBuf {
    let content = std::fs::read(reference_path("data").join(name)).unwrap();
    test.write(&format!("human/{name}"), content).parent().unwrap().to_owned()
}

#[test]
fn human_labels_are_those_of_their_file() {
    let mut test = Fixture::new();
    let data = data(&test, 20);
    let human = write_human(&test, "CIFAR-10_human.pt");
    write_human(&test, "CIFAR-100_human.pt");
    for (labels, key) in [
        ("aggregate", "aggre_label"),
        ("worse", "worse_label"),
        ("random1", "random_label1"),
        ("random2", "random_label2"),
        ("random3", "random_label3"),
    ] {
        let output = run_human(&mut test, &data, &human, labels).unwrap();
        let written = Labels::read(&output).unwrap();
        assert_eq!(written.labels, human_expected()[key], "{labels}");
        assert_eq!(written.clean, human_expected()["clean_label"]);
        let report = NoiseReport::read(&output).unwrap();
        let wrong = written.labels.iter().zip(&written.clean).filter(|(a, b)| a != b).count();
        assert!(wrong > 0);
        assert_eq!((report.corrupted, report.samples), (wrong, 20));
        assert_eq!((report.requested_rate, report.requested_matrix), (None, None));
        let text = std::fs::read_to_string(output.join("noise.json")).unwrap();
        assert!(text.contains(r#""noise": "human""#) && !text.contains("requested"), "{text}");
    }
}

#[test]
fn held_out_samples_keep_their_clean_label_with_human_labels() {
    let mut test = Fixture::new();
    let data = data(&test, 20);
    let human = write_human(&test, "CIFAR-10_human.pt");
    // A file that archives of macOS have next to every file.
    test.write("human/._CIFAR-10_human.pt", "\0\x05\x16\x07");
    let split = test.folder().join("split");
    std::fs::create_dir(&split).unwrap();
    SplitIndices { train: vec![4, 0, 1], validation: vec![2] }.write(&split).unwrap();
    let inputs = [
        ("data", ArtifactType::Dataset, data.as_path()),
        ("split", ArtifactType::Split, split.as_path()),
        ("human", ArtifactType::Directory, human.as_path()),
    ];
    let parameters = json!({"noise": "human", "human-labels": "aggregate"});
    let (output, metrics) = test.run_on("corrupt-labels", parameters, &inputs, 0, None).unwrap();
    assert_eq!(metrics["samples"], 3.0);
    let labels = Labels::read(&output).unwrap();
    let expected = human_expected()["aggre_label"].clone();
    for sample in 0..20 {
        let from = if [4, 0, 1].contains(&sample) { &expected } else { &labels.clean };
        assert_eq!(labels.labels[sample], from[sample], "{sample}");
    }
}

#[test]
fn labels_of_other_images_are_refused() {
    let mut test = Fixture::new();
    let human = write_human(&test, "CIFAR-10_human.pt");
    let shorter = data(&test, 19);
    let message = format!("{:#}", run_human(&mut test, &shorter, &human, "worse").unwrap_err());
    assert!(message.contains("20 images, but the data set has 19"), "{message}");

    let image = ImageShape { channels: 1, height: 1, width: 1 };
    let same_size = data(&test, 20);
    let mut labels: Vec<i64> = (0..20).map(|sample| sample % 10).collect();
    labels.swap(3, 4);
    write_samples(&same_size, Part::Train, image, &[0; 20], &labels).unwrap();
    let message = format!("{:#}", run_human(&mut test, &same_size, &human, "worse").unwrap_err());
    assert!(message.contains("differs from the data set's labels for 2 of 20"), "{message}");
    assert!(message.contains("in the original order?"), "{message}");

    let message = format!("{:#}", run_human(&mut test, &same_size, &human, "noisy").unwrap_err());
    assert!(message.contains("'noisy_label' is missing; found clean_label"), "{message}");
}

#[test]
fn other_files_in_place_of_human_labels_are_errors() {
    let good = std::fs::read(reference_path("data/CIFAR-10_human.pt")).unwrap();
    for (content, expected) in [
        (Vec::new(), "the file is empty"),
        (b"<html>".to_vec(), "it is a web page"),
        (good[..good.len() / 2].to_vec(), "in "),
    ] {
        let mut test = Fixture::new();
        let data = data(&test, 20);
        let path = test.write("human/CIFAR-10_human.pt", content);
        let result = run_human(&mut test, &data, path.parent().unwrap(), "worse");
        let message = format!("{:#}", result.unwrap_err());
        assert!(message.contains("CIFAR-10_human.pt") && message.contains(expected), "{message}");
    }
    let mut test = Fixture::new();
    let data = data(&test, 20);
    let path = test.write("human/readme.txt", "nothing");
    let result = run_human(&mut test, &data, path.parent().unwrap(), "worse");
    assert!(result.unwrap_err().to_string().contains("CIFAR-10_human.pt is missing in"));
}

#[test]
fn human_labels_that_an_archive_has_twice_are_a_conflict_only_if_they_differ() {
    let mut test = Fixture::new();
    let data = data(&test, 20);
    let content = std::fs::read(reference_path("data/CIFAR-10_human.pt")).unwrap();
    for place in ["human/a/CIFAR-10_human.pt", "human/b/CIFAR-10_human.pt"] {
        test.write(place, &content);
    }
    let human = test.folder().join("human");
    let output = run_human(&mut test, &data, &human, "worse").unwrap();
    assert_eq!(Labels::read(&output).unwrap().labels, human_expected()["worse_label"]);
    test.write("human/b/CIFAR-10_human.pt", "other");
    let error = run_human(&mut test, &data, &human, "worse").unwrap_err().to_string();
    assert!(error.starts_with("which of the two is it: "), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]

    #[test]
    fn a_damaged_file_of_labels_makes_no_reader_panic(
        at in proptest::prelude::any::<proptest::sample::Index>(),
        damage in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..6),
    ) {
        let mut test = Fixture::new();
        let data = data(&test, 20);
        let mut content = std::fs::read(reference_path("data/CIFAR-10_human.pt")).unwrap();
        let at = at.index(content.len());
        for (byte, damage) in content.iter_mut().skip(at).zip(&damage) {
            *byte = *damage;
        }
        let path = test.write("human/CIFAR-10_human.pt", content);
        if let Err(error) = run_human(&mut test, &data, path.parent().unwrap(), "worse") {
            let message = format!("{error:#}");
            proptest::prop_assert!(message.contains("CIFAR-10_human.pt"), "{}", message);
        }
    }
}

#[test]
fn labels_of_a_file_are_those_of_their_rows() {
    let mut test = Fixture::new();
    let data = data(&test, 20);
    let labels: Vec<i64> = (0..20).map(|sample| (sample * 3 + 1) % 10).collect();
    let text = labels.iter().map(|label| format!("{label}\n")).collect::<String>();
    test.write("mine/noisy.csv", &text);
    let split = test.folder().join("split");
    std::fs::create_dir(&split).unwrap();
    SplitIndices { train: (5..20).collect(), validation: (0..5).collect() }.write(&split).unwrap();
    let split = ("split", ArtifactType::Split, split.as_path());
    let data = ("data", ArtifactType::Dataset, data.as_path());
    let folder = test.folder().join("mine");
    let source = ("source", ArtifactType::Directory, folder.as_path());
    for (path, source) in [(Some("mine/noisy.csv"), None), (None, Some(source))] {
        let inputs: Vec<_> = [data, split].into_iter().chain(source).collect();
        let parameters = json!({"noise": "file", "path": path});
        let (output, metrics) =
            test.run_on("corrupt-labels", parameters, &inputs, 0, None).unwrap();
        let written = Labels::read(&output).unwrap();
        assert_eq!(written.labels[..5], written.clean[..5], "held-out samples stay clean");
        assert_eq!(written.labels[5..], labels[5..]);
        let wrong = (5..20).filter(|sample| (sample * 3 + 1) % 10 != sample % 10).count();
        assert_eq!(metrics["noise-rate"], wrong as f64 / 15.0);
    }
    test.write("mine/other.csv", "");
    let inputs = [data, split, source];
    let error = test.run_on("corrupt-labels", json!({"noise": "file"}), &inputs, 0, None);
    assert!(error.unwrap_err().to_string().contains("the file labels.csv is missing in"));
}
