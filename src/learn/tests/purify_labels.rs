//! Labels corrected by features: what they are found from, and that every stage takes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use pipeline_stages::KindConfig;
use pipeline_stages::formats::{Labels, NoiseReport, Purification, SplitIndices, TensorFile};
use pipeline_stages::message::{Event, Metrics, Request};
use pipeline_stages::worker::{Context, Stopped};
use serde_json::{Value, json};

use crate::fixture::{
    SAMPLES, TRAIN, learn_stage, purification, request, stage, training, with_input,
    write_features, write_inputs,
};

/// Every way to find labels.
fn ways() -> [Value; 4] {
    [
        json!({}),
        json!({"method": "adaptive-nearest-neighbours", "k-min": 3, "k-max": 9}),
        json!({"method": "linear"}),
        json!({"method": "linear", "uses-clean": true}),
    ]
}

fn run(request: &Request) -> anyhow::Result<Metrics> {
    pipeline_learn::run(learn_stage(request), &Context::for_test(request.clone()))
}

/// The artifacts of the fixture, and `features` that tell its three classes apart: each class has a direction of its own.
fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let labels = Labels::read(&folder.path().join("labels")).unwrap().clean;
    write_features(folder.path(), &labels, feature);
    folder
}

/// A direction of its own for each class of the fixture.
fn feature(sample: usize, place: usize) -> f32 {
    let of_class = if sample % 3 == place { 1.0 } else { 0.0 };
    of_class + ((sample * 7 + place * 3) % 11) as f32 / 110.0
}

fn of_features(folder: &Path, stage: &KindConfig, output: &str) -> Request {
    with_input(request(folder, stage, output), "features", &folder.join("features"))
}

fn confidences(artifact: &Path) -> Vec<f32> {
    let file = TensorFile::open(&artifact.join("labels.safetensors")).unwrap();
    let (bytes, _) = file.view("confidence", safetensors::Dtype::F32, 1).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn every_way_finds_the_labels_of_well_told_classes() {
    let folder = inputs();
    let given = Labels::read(&folder.path().join("labels")).unwrap();
    for (number, way) in ways().iter().enumerate() {
        let output = format!("way-{number}");
        let metrics = run(&of_features(folder.path(), &purification(way), &output)).unwrap();
        let artifact = folder.path().join(output);
        let found = Labels::read(&artifact).unwrap();
        assert_eq!(found.clean, given.clean);
        assert_eq!(found.labels[TRAIN], given.clean[TRAIN], "{way}");
        // Not the clean ones: this split's samples kept those that they were given.
        assert_eq!(found.labels[TRAIN.end..], given.labels[TRAIN.end..], "{way}");

        let wrong = TRAIN.filter(|&sample| given.labels[sample] != given.clean[sample]).count();
        let uses_clean = way["uses-clean"] == true;
        let expected = [
            ("samples", 40.0),
            ("changed-labels", wrong as f64),
            ("clean-samples-used", if uses_clean { 8.0 } else { 0.0 }),
            ("label-accuracy-before", 1.0 - wrong as f64 / 40.0),
            ("label-accuracy-after", 1.0),
        ];
        for (name, value) in expected {
            assert_eq!(metrics[name], value, "{way} {name}");
        }
        let confidence = confidences(&artifact);
        assert!(confidence.iter().all(|value| (0.0..=1.0).contains(value)), "{way} {confidence:?}");
        assert!(confidence[TRAIN.end..].iter().all(|value| *value == 1.0), "{way}");
        let mean = confidence[TRAIN].iter().map(|value| f64::from(*value)).sum::<f64>() / 40.0;
        assert!((metrics["mean-confidence"] - mean).abs() < 1e-9, "{way}");
        assert_eq!(NoiseReport::read(&artifact).unwrap().corrupted, 0);
        let said = Purification::read(&artifact).unwrap();
        assert_eq!((said.uses_clean, said.changed_labels), (uses_clean, wrong));
    }
}

#[test]
fn clean_labels_of_samples_that_train_change_nothing_but_what_is_reported() {
    let folder = inputs();
    let given = Labels::read(&folder.path().join("labels")).unwrap();
    let found = |name: &str| -> Vec<(Vec<i64>, Vec<f32>)> {
        let of_way = |(number, way): (usize, &Value)| {
            let output = format!("{name}-{number}");
            run(&of_features(folder.path(), &purification(way), &output)).unwrap();
            let artifact = folder.path().join(output);
            (Labels::read(&artifact).unwrap().labels, confidences(&artifact))
        };
        ways().iter().enumerate().map(of_way).collect()
    };
    let before = found("before");
    let mut clean = given.clean.clone();
    clean[TRAIN].iter_mut().for_each(|label| *label = (*label + 1) % 3);
    write_features(folder.path(), &clean, feature);
    Labels { clean, ..given }.write(&folder.path().join("labels")).unwrap();
    assert!(before == found("after"));
}

#[test]
fn purified_labels_are_taken_where_labels_are() {
    let folder = inputs();
    run(&of_features(folder.path(), &purification(&json!({})), "purified")).unwrap();
    let purified = folder.path().join("purified");
    let trained =
        with_input(request(folder.path(), &training("none"), "model"), "labels", &purified);
    run(&trained).unwrap();
    let evaluate = stage(json!({"kind": "evaluate", "parameters": {}}));
    let request = with_input(request(folder.path(), &evaluate, "evaluation"), "labels", &purified);
    let metrics = run(&with_input(request, "model", &folder.path().join("model"))).unwrap();
    // No label is wrong any more, so there is nothing to detect.
    assert!(!metrics.contains_key("noise-detection-auc"), "{metrics:?}");
    // Of purified labels, too.
    let again = of_features(folder.path(), &purification(&json!({})), "again");
    let metrics = run(&with_input(again, "labels", &purified)).unwrap();
    assert_eq!(metrics["changed-labels"], 0.0);
}

#[test]
fn without_labels_those_of_the_data_set_are_corrected() {
    let folder = inputs();
    let mut request = of_features(folder.path(), &purification(&json!({})), "purified");
    request.inputs.remove("labels");
    request.inputs.remove("split");
    let metrics = run(&request).unwrap();
    assert_eq!(metrics["samples"], 48.0);
    assert!(!metrics.contains_key("label-accuracy-after"), "{metrics:?}");
}

#[test]
fn a_note_says_where_all_others_can_vote() {
    let folder = inputs();
    for (most, is_noted) in [(39, false), (40, true)] {
        let way = json!({"method": "adaptive-nearest-neighbours", "k-min": 3, "k-max": most});
        let request = of_features(folder.path(), &purification(&way), &format!("most-{most}"));
        let context = Context::for_test(request.clone());
        pipeline_learn::run(learn_stage(&request), &context).unwrap();
        let noted = context.kept_events().into_iter().any(|event| {
            matches!(event, Event::Note { text } if text.contains("40 samples train, not more than k-max (40)"))
        });
        assert_eq!(noted, is_noted, "{most}");
    }
}

/// Nearest neighbours are found block after block, of which this few samples have one; what learns from clean ones stops between its steps.
#[test]
fn a_pass_that_is_stopped_leaves_nothing_and_the_next_one_ends_as_one_that_was_not() {
    let folder = inputs();
    let files = |artifact: &Path| {
        let read =
            |path: PathBuf| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap());
        let entries = std::fs::read_dir(artifact).unwrap();
        entries.map(|entry| read(entry.unwrap().path())).collect::<BTreeMap<_, _>>()
    };
    for (name, way, after_steps) in [
        ("neighbours", json!({}), None),
        ("clean", json!({"method": "linear", "uses-clean": true}), Some(3)),
    ] {
        let [whole, stopped] = ["whole", "stopped"].map(|output| {
            of_features(folder.path(), &purification(&way), &format!("{name}-{output}"))
        });
        run(&whole).unwrap();
        let context = match after_steps {
            Some(reports) => Context::for_test_that_stops(stopped.clone(), reports),
            None => Context::for_test(stopped.clone()),
        };
        context.stop_flag().store(after_steps.is_none(), Ordering::Relaxed);
        let error = pipeline_learn::run(learn_stage(&stopped), &context).unwrap_err();
        assert!(error.is::<Stopped>(), "{name}: {error:#}");
        assert!(files(&stopped.output).is_empty(), "{name}");
        run(&stopped).unwrap();
        assert!(files(&whole.output).len() > 1, "{name}");
        assert!(files(&whole.output) == files(&stopped.output), "{name}");
    }
}

#[test]
fn what_cannot_be_purified() {
    let folder = inputs();
    let refused = |way: Value| {
        let request = of_features(folder.path(), &purification(&way), "refused");
        format!("{:#}", run(&request).unwrap_err())
    };
    let split = |train: Vec<i64>, validation: Vec<i64>| {
        SplitIndices { train, validation }.write(&folder.path().join("split")).unwrap();
    };
    split(vec![3], vec![4]);
    assert!(refused(json!({})).contains("fewer than two train"));
    split((0..8).collect(), vec![8]);
    let error = refused(json!({}));
    assert!(error.contains("k = 7, but 8 samples train: all others would vote"), "{error}");
    let error = refused(json!({"method": "adaptive-nearest-neighbours", "k-min": 9}));
    assert!(error.contains("k-min = 9, but 8 samples train"), "{error}");
    split(vec![3, 5], vec![]);
    let error = refused(json!({"method": "linear", "uses-clean": true}));
    assert!(error.contains("holds out no samples"), "{error}");
    write_features(folder.path(), &[0; SAMPLES], feature);
    let error = refused(json!({}));
    assert!(error.contains("the labels are those of another data set"), "{error}");
}
