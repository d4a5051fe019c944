//! Networks: names, shapes, outputs, first weights, and which parameters are decayed.

use std::sync::LazyLock;

use pipeline_learn::network::{Classifier, Mode, Projector, TensorRole};
use pipeline_learn::training::decay;
use pipeline_learn::training::loss::nt_xent;
use pipeline_stages::kinds::architecture::Architecture;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::formula::{assert_close, fill, fill_state, flat, numbers, texts};
use crate::{TRAINING, VECTORS};

static TORCHVISION: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/torchvision.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

#[test]
fn networks_have_the_names_and_the_outputs_of_pytorch() {
    for &architecture in Architecture::ALL {
        let expected = &VECTORS["networks"][architecture.name()];
        let network = Classifier::new(architecture, 3, 10, 0, Device::Cpu).expect("builds");
        let state = network.state().tensors();
        let names: Vec<&str> = state.iter().map(|named| named.name.as_str()).collect();
        let shapes: Vec<Vec<i64>> = state.iter().map(|named| named.tensor.size()).collect();
        assert_eq!(serde_json::json!(names), expected["names"], "{architecture}");
        assert_eq!(serde_json::json!(shapes), expected["shapes"], "{architecture}");

        fill_state(network.state(), 0);
        let side = if architecture.name().ends_with("-224") { 64 } else { 16 };
        let images = fill(&[4, 3, side, side], 1000, 0.0, 1.0);
        for (mode, key) in [(Mode::Evaluate, "logits_evaluate"), (Mode::Train, "logits_train")] {
            let logits = network.forward(&images, mode).expect("the shapes match");
            let what = format!("{architecture} {key}");
            assert_close(&flat(&logits), &numbers(&expected[key]), 2e-4, &what);
            if mode == Mode::Train {
                logits.cross_entropy_for_logits(&Tensor::from_slice(&[3i64, 0, 9, 9])).backward();
            }
        }
        let norms: Vec<f64> =
            network.state().trained().flat_map(|named| flat(&named.tensor.grad().norm())).collect();
        // Both round to 32 bits, in another order.
        let tolerance = 10.0 * expected["gradient_error"].as_f64().expect("a number").max(1e-6);
        let what = format!("{architecture} gradients");
        assert_close(&norms, &numbers(&expected["gradient_norms"]), tolerance, &what);
        let by_name = |name: &str| {
            let named = state.iter().find(|named| named.name == name);
            flat(&named.expect("it is there").tensor)
        };
        let running_mean = &by_name("bn1.running_mean")[..4];
        assert_close(running_mean, &numbers(&expected["running_mean"]), 1e-5, "running mean");
        assert_eq!(by_name("bn1.num_batches_tracked"), [1.0]);
    }
}

/// The same as torchvision computes from the same weights by the same names.
#[test]
fn logits_are_those_of_torchvision() {
    let logits = TORCHVISION["logits"].as_object().expect("a table");
    for (name, expected) in logits {
        let network = Classifier::new(named(name), 3, 10, 0, Device::Cpu).expect("builds");
        fill_state(network.state(), 0);
        let side = if name.ends_with("-224") { 64 } else { 16 };
        let images = fill(&[4, 3, side, side], 1000, 0.0, 1.0);
        let _no_gradients = tch::no_grad_guard();
        for (mode, key) in [(Mode::Evaluate, "evaluate"), (Mode::Train, "train")] {
            let found = flat(&network.forward(&images, mode).expect("the shapes match"));
            assert_close(&found, &numbers(&expected[key]), 2e-4, &format!("{name} {key}"));
        }
    }
}

fn named(name: &str) -> Architecture {
    let mut all = Architecture::ALL.iter();
    *all.find(|architecture| architecture.name() == name).expect("an architecture")
}

/// The moments and the bounds of a layer's first weights: a mean further off than 5 of its own standard deviations has a chance
/// below one in a million. 3 and 1.8 are the kurtoses of the normal and the uniform distribution.
fn check_distribution(values: &[f64], distribution: &str, parameter: f64, what: &str) {
    let count = values.len() as f64;
    let (deviation, kurtosis) = match distribution {
        "normal" => (parameter, 3.0),
        _ => (parameter / 3f64.sqrt(), 1.8),
    };
    let moment = |power: i32| {
        values.iter().map(|value| (value / deviation).powi(power)).sum::<f64>() / count
    };
    // The variance of x^n is E x^2n - (E x^n)^2: for n = 2 kurtosis - 1, for n = 4 at most 96.
    assert!(moment(1).abs() < 5.0 / count.sqrt(), "{what}: the mean is {}", moment(1));
    let spread = 5.0 * ((kurtosis - 1.0) / count).sqrt();
    assert!((moment(2) - 1.0).abs() < spread, "{what}: the variance is {} times", moment(2));
    let spread = 5.0 * (96.0 / count).sqrt();
    assert!((moment(4) - kurtosis).abs() < spread, "{what}: the kurtosis is {}", moment(4));
    if distribution == "uniform" {
        let largest = values.iter().fold(0f64, |largest, value| largest.max(value.abs()));
        assert!(largest <= parameter * (1.0 + 1e-6), "{what}: {largest} is out of bounds");
        assert!(largest > parameter * (1.0 - 15.0 / count), "{what}: {largest} is the largest");
    }
}

#[test]
fn first_weights_are_drawn_as_torchvision_draws_them() {
    let layers = TORCHVISION["first_weights"].as_object().expect("a table");
    for (name, expected) in layers {
        let network = Projector::new(named(name), 3, 128, 7, Device::Cpu).expect("builds");
        let mut drawn = 0;
        for named in network.state().tensors() {
            let what = format!("{name} {}", named.name);
            let values = flat(&named.tensor);
            if named.tensor.dim() > 1 {
                let draw = &expected[&named.name];
                let parameter = draw[1].as_f64().expect("a number");
                check_distribution(&values, draw[0].as_str().expect("a text"), parameter, &what);
                drawn += 1;
            } else {
                let one = ["weight", "running_var"].iter().any(|end| named.name.ends_with(end));
                let constant = if one { 1.0 } else { 0.0 };
                assert!(values.iter().all(|value| *value == constant), "{what}");
            }
        }
        assert_eq!(drawn, expected.as_object().expect("a table").len(), "{name}");
    }
}

#[test]
fn a_classifier_starts_from_zero_on_the_encoder_of_a_projector() {
    let classifier = Classifier::new(Architecture::Resnet8, 3, 10, 3, Device::Cpu).expect("builds");
    let projector = Projector::new(Architecture::Resnet8, 3, 16, 3, Device::Cpu).expect("builds");
    for (one, other) in classifier.state().tensors().iter().zip(projector.state().tensors()) {
        if Classifier::in_head(&one.name) {
            assert!(flat(&one.tensor).iter().all(|value| *value == 0.0), "{}", one.name);
        } else {
            assert_eq!((&one.name, flat(&one.tensor)), (&other.name, flat(&other.tensor)));
        }
    }
}

#[test]
fn the_parameters_that_the_reference_decays_are_decayed() {
    for name in ["resnet18", "resnet34", "resnet50"] {
        let expected = &TORCHVISION["decayed"][name];
        let classifier = Classifier::new(named(name), 3, 10, 0, Device::Cpu).expect("builds");
        let projector = Projector::new(named(name), 3, 128, 0, Device::Cpu).expect("builds");
        for (state, rule, key) in [
            (classifier.state(), decay::supervised as fn(&str) -> bool, "supervised"),
            (projector.state(), decay::contrastive, "contrastive"),
        ] {
            let names = state.trained().map(|named| named.name.as_str());
            let decayed: Vec<&str> = names.filter(|name| rule(name)).collect();
            assert_eq!(decayed, texts(&expected[key]), "{name} {key}");
        }
    }
}

#[test]
fn the_projection_head_is_that_of_the_reference() {
    let expected = &TRAINING["projector"];
    let network = Projector::new(Architecture::Resnet8Fast, 3, 12, 0, Device::Cpu).expect("builds");
    let state = network.state();
    let names: Vec<&str> = state.tensors().iter().map(|named| named.name.as_str()).collect();
    let shapes: Vec<Vec<i64>> = state.tensors().iter().map(|named| named.tensor.size()).collect();
    let trained: Vec<&str> = state.trained().map(|named| named.name.as_str()).collect();
    assert_eq!(json!(names), expected["names"]);
    assert_eq!(json!(shapes), expected["shapes"]);
    assert_eq!(json!(trained), expected["trained"]);
    let fixed = state.tensors().iter().find(|named| named.name == "projection.bn2.bias");
    assert_eq!(fixed.expect("it is there").role, TensorRole::Kept);

    fill_state(state, 0);
    let images = fill(&[8, 3, 16, 16], 1000, 0.0, 1.0);
    let evaluated =
        tch::no_grad(|| network.forward(&images, Mode::Evaluate).expect("the shapes match"));
    assert_close(&flat(&evaluated), &numbers(&expected["evaluate"]), 1e-4, "evaluation mode");
    let projections = network.forward(&images, Mode::Train).expect("the shapes match");
    assert_close(&flat(&projections), &numbers(&expected["train"]), 1e-4, "training mode");
    let (loss, _) = nt_xent(&projections, 0.5).expect("a matrix");
    assert_close(&flat(&loss), &[expected["loss"].as_f64().expect("a number")], 1e-5, "the loss");
    loss.backward();
    let norms: Vec<f64> =
        state.trained().flat_map(|named| flat(&named.tensor.grad().norm())).collect();
    assert_close(&norms, &numbers(&expected["gradient_norms"]), 1e-4, "gradients");
    let kept = state.tensors().iter().find(|named| named.name == "projection.bn2.running_var");
    let kept = flat(&kept.expect("it is there").tensor);
    assert_close(&kept, &numbers(&expected["running_var"]), 1e-5, "the running variance");
}
