//! Features that a stage has computed: probes of them are probes of their encoder.

use std::path::Path;

use pipeline_stages::formats::{FeatureFile, Part, Samples};
use pipeline_stages::message::{Metrics, Request};
use pipeline_stages::worker::{Context, Stopped};

use crate::fixture::{
    SAMPLES, SHAPE, features, learn_stage, pretraining, probe, request, with_input, write_inputs,
};

fn run(request: &Request) -> anyhow::Result<Metrics> {
    pipeline_learn::run(learn_stage(request), &Context::for_test(request.clone()))
}

/// A folder with the artifacts of the fixture, `encoder` and `features`.
fn inputs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    run(&request(folder.path(), &pretraining("adam"), "encoder")).unwrap();
    run(&of_encoder(folder.path(), "features")).unwrap();
    folder
}

fn of_encoder(folder: &Path, output: &str) -> Request {
    with_input(request(folder, &features(), output), "weights", &folder.join("encoder"))
}

#[test]
fn every_sample_has_features_also_those_held_out() {
    let folder = inputs();
    let file = FeatureFile::open(&folder.path().join("features")).unwrap();
    let (train, shape) = file.rows(Part::Train).unwrap();
    assert_eq!(shape, [SAMPLES, 64]);
    // Both parts have the same images.
    assert_eq!(train, file.rows(Part::Test).unwrap().0);
    let labels = Samples::open(&folder.path().join("data"), Part::Train).unwrap().labels;
    assert_eq!(file.labels(Part::Train).unwrap(), labels);
    assert_eq!(file.info.encoder.architecture, "resnet8-fast");
    assert_eq!(file.info.data.classes.len(), 3);
}

#[test]
fn a_probe_of_features_measures_what_one_of_the_encoder_does() {
    let folder = inputs();
    for classifier in ["linear", "knn"] {
        let measured = ["encoder", "features"].map(|from| {
            let port = if from == "encoder" { "weights" } else { "features" };
            let output = format!("{classifier}-of-{from}");
            let request = request(folder.path(), &probe(classifier, "none"), &output);
            run(&with_input(request, port, &folder.path().join(from))).unwrap()
        });
        assert_eq!(measured[0], measured[1], "{classifier}");
        assert!(measured[0].len() > 1, "{measured:?}");
    }
    let curves = ["encoder", "features"].map(|from| {
        std::fs::read(folder.path().join(format!("linear-of-{from}/curves.csv"))).unwrap()
    });
    assert_eq!(curves[0], curves[1]);
}

#[test]
fn features_of_another_data_set_are_refused() {
    let folder = inputs();
    let labels = Samples::open(&folder.path().join("data"), Part::Test).unwrap().labels;
    let others: Vec<i64> = labels.iter().map(|label| 2 - label).collect();
    let pixels = vec![0; SAMPLES * SHAPE.bytes()];
    let data = folder.path().join("data");
    pipeline_stages::formats::write_samples(&data, Part::Test, SHAPE, &pixels, &others).unwrap();
    let request = request(folder.path(), &probe("knn", "none"), "probe");
    let request = with_input(request, "features", &folder.path().join("features"));
    let error = format!("{:#}", run(&request).unwrap_err());
    assert!(error.contains("of another data set") && error.contains("'test'"), "{error}");
}

#[test]
fn features_that_are_not_finite_are_refused() {
    let folder = inputs();
    let path = folder.path().join("features/features.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let request = request(folder.path(), &probe("knn", "none"), "probe");
    let request = with_input(request, "features", &folder.path().join("features"));
    let error = format!("{:#}", run(&request).unwrap_err());
    assert!(error.contains("part 'test' are not finite"), "{error}");
}

#[test]
fn a_pass_that_is_stopped_leaves_nothing_that_counts() {
    let folder = inputs();
    let request = of_encoder(folder.path(), "stopped");
    let context = Context::for_test_that_stops(request.clone(), 2);
    let error = pipeline_learn::run(learn_stage(&request), &context).unwrap_err();
    assert!(error.is::<Stopped>(), "{error:#}");
    assert!(FeatureFile::open(&folder.path().join("stopped")).is_err());
}
