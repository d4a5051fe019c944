//! Every method and every loss of `train` learns real images, and resumes exactly, and every way to correct labels corrects
//! some: the 5,000 training images of Fashion-MNIST that come with the quickstart, two fifths of whose labels are drawn again, and
//! accuracies on its 1,000 test images.

use std::io::Read as _;
use std::path::Path;

use pipeline_learn::random::{Purpose, Stream};
use pipeline_stages::formats::{
    DatasetInfo, Evaluations, ImageShape, Labels, NoiseReport, Part, SplitIndices, write_samples,
};
use pipeline_stages::kinds::{Loss, Method};
use pipeline_stages::worker::Context;
use serde_json::{Value, json};

use super::fixture::{learn_stage, request, stage, with_input, write_vision_transformer};
use super::{assert_same, run};

const CLASSES: u32 = 10;
const IMAGE: ImageShape = ImageShape { channels: 1, height: 28, width: 28 };
/// The samples that train; the others are held out.
const TRAIN: i64 = 4500;

/// Writes the artifacts `data`, `split` and `labels`.
fn write_inputs(folder: &Path) {
    let [data, split, labels] = ["data", "split", "labels"].map(|name| folder.join(name));
    for folder in [&data, &split, &labels] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let archive =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/data/fashion-mnist-6k.zip");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(archive).unwrap()).unwrap();
    // Without the header of an IDX file.
    let mut read = |name: &str, header: usize| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes.split_off(header)
    };
    let image = IMAGE;
    let [clean, test] = [(Part::Train, "train"), (Part::Test, "t10k")].map(|(part, name)| {
        let pixels = read(&format!("{name}-images-idx3-ubyte"), 16);
        let classes = read(&format!("{name}-labels-idx1-ubyte"), 8);
        let classes: Vec<i64> = classes.into_iter().map(i64::from).collect();
        write_samples(&data, part, image, &pixels, &classes).unwrap();
        classes
    });
    let info = DatasetInfo {
        format: "idx".to_owned(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        image,
        train_samples: clean.len(),
        test_samples: test.len(),
        channel_mean: vec![0.286],
        channel_std: vec![0.353],
        ..DatasetInfo::default()
    };
    info.write(&data).unwrap();
    let validation = (TRAIN..clean.len() as i64).collect();
    SplitIndices { train: (0..TRAIN).collect(), validation }.write(&split).unwrap();
    let mut stream = Stream::new(7, Purpose::Augmentation, 0, 0);
    let mut noisy = clean.clone();
    for label in &mut noisy[..TRAIN as usize] {
        if stream.bits() % 5 < 2 {
            *label = i64::from(stream.bits() % CLASSES);
        }
    }
    Labels { labels: noisy, clean }.write(&labels).unwrap();
}

/// The parameters of a training of an epoch, with changes.
fn parameters(changes: &Value) -> Value {
    let mut parameters = json!({
        "architecture": "resnet8-fast", "epochs": 1, "batch-size": 100, "learning-rate": 0.1,
        "augmentation": "none", "image-size": 14, "evaluate-every": 1_000_000,
    });
    parameters.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    parameters
}

/// Trains twice, once with a stop in the last epoch, and returns the accuracy on the test set in %.
fn accuracy(folder: &Path, changes: &Value) -> f64 {
    let parameters = parameters(changes);
    // An epoch has this many steps, or more.
    let samples = parameters["samples-per-epoch"].as_u64().unwrap_or(TRAIN as u64);
    let steps = (samples / parameters["batch-size"].as_u64().unwrap()) as usize;
    let stop_after = steps * (parameters["epochs"].as_u64().unwrap() as usize - 1) + steps / 2;
    let stage = stage(json!({"kind": "train", "parameters": parameters}));
    let [whole, stopped] = ["whole", "stopped"].map(|output| request(folder, &stage, output));
    assert!(!run(&whole, None));
    assert!(run(&stopped, Some(stop_after)), "{changes}: it was not stopped");
    assert!(!run(&stopped, None));
    assert_same(folder, "whole", "stopped");
    let evaluations = Evaluations::read(&whole.output).unwrap();
    for one in [whole, stopped] {
        std::fs::remove_dir_all(one.output).unwrap();
        std::fs::remove_dir_all(one.checkpoint).unwrap();
    }
    100.0 * evaluations.0.last().unwrap().test_accuracy.unwrap()
}

/// How much less than measured is a mistake, in points: another processor rounds differently, and 45 steps later that is a few images.
const MARGIN: f64 = 8.0;

/// Trainings and what they were measured to have, in %.
fn learn(cases: impl IntoIterator<Item = (Value, f64)>) {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    for (changes, measured) in cases {
        let accuracy = accuracy(folder.path(), &changes);
        println!("{changes}: {accuracy:.1} %");
        assert!(accuracy > measured - MARGIN, "{changes}: {accuracy:.1} %, not {measured} %");
    }
}

#[test]
fn every_loss_learns() {
    learn(Loss::ALL.iter().map(|&loss| {
        let measured = match loss {
            Loss::CrossEntropy => 70.7,
            Loss::GeneralizedCrossEntropy => 54.1,
            // A guess has 10: in one epoch it does not come far.
            Loss::Mae => 22.5,
            Loss::SymmetricCrossEntropy => 61.1,
            Loss::NceRce => 48.4,
            Loss::LabelSmoothing => 69.8,
            Loss::SoftBootstrapping => 70.2,
            Loss::HardBootstrapping => 68.1,
            Loss::JensenShannon => 56.0,
        };
        (json!({"loss": loss}), measured)
    }));
}

#[test]
fn every_method_learns() {
    learn(Method::ALL.iter().map(|&method| {
        let (mut changes, measured) = match method {
            Method::Finetune => (json!({"mixup": 1.0}), 66.2),
            Method::MetaWeightNet => (json!({}), 68.5),
            Method::ForwardCorrection => (json!({"epochs": 2, "estimation-epochs": 1}), 72.7),
            Method::Elr => (json!({}), 70.0),
            Method::Sop => (json!({}), 69.4),
            Method::CoTeaching => (json!({}), 72.2),
            Method::TruncatedLoss => {
                let loss = "generalized-cross-entropy";
                (json!({"epochs": 2, "loss": loss, "prune-after": 1}), 65.1)
            }
            Method::DivideMix => (json!({"epochs": 2, "warmup-epochs": 1}), 74.1),
            Method::ElrPlus => (json!({}), 68.7),
        };
        changes["method"] = json!(method);
        (changes, measured)
    }));
}

#[test]
fn every_method_learns_mixed_images() {
    learn(
        [
            (json!({"method": "meta-weight-net"}), 65.3),
            (json!({"method": "elr"}), 67.1),
            (json!({"method": "sop"}), 66.1),
            (json!({"method": "co-teaching"}), 69.0),
        ]
        .map(|(mut changes, measured)| {
            changes["mixup"] = json!(1.0);
            (changes, measured)
        }),
    );
}

#[test]
fn two_views_and_a_larger_network_learn() {
    learn([
        (json!({"loss": "jensen-shannon", "views": 2}), 55.5),
        // SOP+.
        (json!({"method": "sop", "consistency": 0.9, "balance": 0.1}), 69.8),
        (
            json!({
                "architecture": "preact-resnet18", "image-size": 8, "batch-size": 50,
                "samples-per-epoch": 1500,
            }),
            // 49.9 here: thirty steps of a large network are further apart where another processor rounds.
            40.0,
        ),
    ]);
}

#[test]
fn features_of_a_vision_transformer_can_be_probed() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    write_vision_transformer(folder.path(), IMAGE);
    let features = stage(json!({"kind": "features", "parameters": {"image-size": 32}}));
    let features = with_input(
        request(folder.path(), &features, "features"),
        "weights",
        &folder.path().join("vit"),
    );
    assert!(!run(&features, None));
    for (classifier, measured) in [("linear", 38.0), ("knn", 44.0)] {
        let probe = stage(json!({"kind": "probe", "parameters": {
            "classifier": classifier, "epochs": 10, "batch-size": 100, "augmentation": "none", "k": 20,
        }}));
        let probe = request(folder.path(), &probe, classifier);
        let probe = with_input(probe, "features", &folder.path().join("features"));
        let metrics = pipeline_learn::run(learn_stage(&probe), &Context::for_test(probe.clone()));
        let accuracy = 100.0 * metrics.unwrap()[&format!("{classifier}-accuracy")];
        println!("{classifier}: {accuracy:.1} %");
        assert!(accuracy > measured - MARGIN, "{classifier}: {accuracy:.1} %, not {measured} %");
    }
}

#[test]
fn every_way_corrects_labels() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_inputs(folder.path());
    // An encoder that has learned from the labels which it corrects.
    let training = stage(json!({"kind": "train", "parameters": parameters(&json!({}))}));
    assert!(!run(&request(folder.path(), &training, "model"), None));
    let features = stage(json!({"kind": "features", "parameters": {"image-size": 14}}));
    let features =
        with_input(request(folder.path(), &features, "features"), "weights", &at("model"));
    assert!(!run(&features, None));
    let (before, found) = (Labels::read(&at("labels")).unwrap(), at("found"));
    let is_right = |sample: &usize| before.labels[*sample] == before.clean[*sample];
    let right_before = (0..TRAIN as usize).filter(is_right).count() as f64 / TRAIN as f64;
    for (way, measured) in [
        (json!({"method": "nearest-neighbours"}), 74.5),
        (json!({"method": "adaptive-nearest-neighbours"}), 76.4),
        (json!({"method": "linear"}), 75.2),
        (json!({"method": "linear", "share": 0.5}), 79.0),
        (json!({"method": "linear", "uses-clean": true}), 73.6),
    ] {
        let purification = stage(json!({"kind": "purify-labels", "parameters": way}));
        let purification = request(folder.path(), &purification, "found");
        assert!(!run(&with_input(purification, "features", &at("features")), None));
        let right = 100.0 * (1.0 - NoiseReport::read(&found).unwrap().realised_rate);
        println!(
            "{way}: {right:.1} % of the labels are right, {:.1} % before",
            100.0 * right_before
        );
        assert!(right > measured - MARGIN && right > 100.0 * right_before, "{way}: {right:.1} %");
        std::fs::remove_dir_all(&found).unwrap();
    }
}
