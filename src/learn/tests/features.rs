//! Features that a stage has computed: probes of them are probes of their encoder.

use std::path::Path;

use pipeline_stages::formats::{FeatureFile, ModelInfo, Part, Samples};
use pipeline_stages::kinds::architecture::Transformer;
use pipeline_stages::message::{Metrics, Request};
use pipeline_stages::worker::{Context, Stopped};
use serde_json::json;

use crate::fixture::{
    SAMPLES, SHAPE, features, learn_stage, pretraining, probe, request, stage, training,
    with_input, write_inputs, write_vision_transformer,
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

#[test]
fn a_vision_transformer_sees_images_of_224_pixels_where_nothing_else_is_said() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    write_vision_transformer(folder.path(), SHAPE);
    let [usual, large, small] = [None, Some(224), Some(32)].map(|side| {
        let stage = stage(
            json!({"kind": "features", "parameters": {"image-size": side, "batch-size": 20}}),
        );
        let output = format!("features-{side:?}");
        let request = request(folder.path(), &stage, &output);
        run(&with_input(request, "weights", &folder.path().join("vit"))).unwrap();
        let file = FeatureFile::open(&folder.path().join(output)).unwrap();
        let (rows, shape) = file.rows(Part::Train).unwrap();
        assert_eq!(shape, [SAMPLES, 192]);
        rows.to_vec()
    });
    assert!(usual == large && usual != small);

    let probes = [("weights", "vit"), ("features", "features-None")].map(|(port, from)| {
        let request = request(folder.path(), &probe("knn", "none"), &format!("probe-of-{from}"));
        run(&with_input(request, port, &folder.path().join(from))).unwrap()
    });
    assert_eq!(probes[0], probes[1]);
}

#[test]
fn a_vision_transformer_is_not_trained_and_takes_whole_patches() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    write_vision_transformer(folder.path(), SHAPE);
    let refused = |stage, port, words: &str| {
        let request = request(folder.path(), &stage, "refused");
        let error = run(&with_input(request, port, &folder.path().join("vit"))).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    };
    refused(training("none"), "init", "vision transformers are not trained here");
    let uneven = json!({"kind": "features", "parameters": {"image-size": 100}});
    refused(stage(uneven), "weights", "set image-size to a multiple of 16");
    refused(probe("linear", "crop-flip"), "weights", "these are resized");
    let mut info = ModelInfo::read(&folder.path().join("vit")).unwrap();
    info.architecture = Transformer::Dinov2Small.to_string();
    info.write(&folder.path().join("vit")).unwrap();
    refused(
        features(),
        "weights",
        "'cls_token' is F32 with the shape [1, 1, 192], but the network needs",
    );
}
