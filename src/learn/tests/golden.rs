//! The numbers of PyTorch: networks, losses, optimizers, resampling, and twenty steps of training.
//!
//! `tests/reference/learn/make_vectors.py` makes the file; inputs come from the same formula there.

use std::sync::LazyLock;

use pipeline_learn::augment::Resampler;
use pipeline_learn::loss::{SampleLoss, nt_xent};
use pipeline_learn::network::{Classifier, Mode};
use pipeline_learn::optimizer::{Optimizer, Rule};
use pipeline_stages::kinds::architecture::Architecture;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../tests/reference/learn/vectors.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

/// The formula `fill` of the script.
fn fill(shape: &[i64], stream: usize, low: f64, high: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = (0..count)
        .map(|index| {
            let phase = 12.9898 * (index as f64 + 1.0) + 78.233 * (stream as f64 + 1.0);
            let scaled = phase.sin() * 43758.5453;
            (low + (high - low) * (scaled - scaled.floor())) as f32
        })
        .collect();
    Tensor::from_slice(&values).reshape(shape)
}

fn fill_network(network: &Classifier) {
    let _no_gradients = tch::no_grad_guard();
    for (stream, named) in network.state().tensors().iter().enumerate() {
        let (name, shape) = (&named.name, named.tensor.size());
        let values = if name.ends_with("num_batches_tracked") {
            continue;
        } else if shape.len() > 1 {
            let bound = (6.0 / shape[1..].iter().product::<i64>() as f64).sqrt();
            fill(&shape, stream, -bound, bound)
        } else if name.ends_with("running_var") || name.ends_with("weight") {
            fill(&shape, stream, 0.5, 1.5)
        } else {
            fill(&shape, stream, -0.2, 0.2)
        };
        named.tensor.shallow_clone().copy_(&values);
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).flatten(0, -1)).expect("one dimension")
}

/// Within `tolerance` of the largest number there is.
#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |largest, number| largest.max(number.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(error < tolerance, "{what} [{index}]: {found}, expected {expected}");
    }
}

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

        fill_network(&network);
        let side = if architecture.name().ends_with("-224") { 64 } else { 16 };
        let images = fill(&[4, 3, side, side], 1000, 0.0, 1.0);
        let _no_gradients = tch::no_grad_guard();
        for (mode, key) in [(Mode::Evaluate, "logits_evaluate"), (Mode::Train, "logits_train")] {
            let logits = network.forward(&images, mode).expect("the shapes match");
            let what = format!("{architecture} {key}");
            assert_close(&flat(&logits), &numbers(&expected[key]), 2e-4, &what);
        }
        let by_name = |name: &str| {
            let named = state.iter().find(|named| named.name == name);
            flat(&named.expect("it is there").tensor)
        };
        let running_mean = &by_name("bn1.running_mean")[..4];
        assert_close(running_mean, &numbers(&expected["running_mean"]), 1e-5, "running mean");
        assert_eq!(by_name("bn1.num_batches_tracked"), [1.0]);
    }
}

#[test]
fn losses_and_their_gradients() {
    let cases = [
        ("cross-entropy", SampleLoss::CrossEntropy),
        ("gce-0.5", SampleLoss::GeneralizedCrossEntropy { q: 0.5 }),
        ("gce-0.66", SampleLoss::GeneralizedCrossEntropy { q: 0.66 }),
        ("mae", SampleLoss::MeanAbsoluteError),
    ];
    for (name, loss) in cases {
        let expected = &VECTORS["losses"][name];
        let logits = fill(&[4, 5], 7, -3.0, 3.0).set_requires_grad(true);
        let labels = Tensor::from_slice(&[0i64, 4, 2, 2]);
        let value = loss.mean(&logits, &labels).expect("the shapes match");
        value.backward();
        assert_close(&flat(&value), &numbers(&serde_json::json!([expected["loss"]])), 1e-6, name);
        assert_close(&flat(&logits.grad()), &numbers(&expected["gradient"]), 1e-5, name);
    }
}

#[test]
fn a_hopeless_sample_has_a_finite_gradient() {
    let logits = Tensor::from_slice(&[-200.0f32, 0.0, 200.0]).reshape([1, 3]);
    for q in [0.01, 0.5, 1.0] {
        let logits = logits.copy().set_requires_grad(true);
        let loss = SampleLoss::GeneralizedCrossEntropy { q };
        loss.mean(&logits, &Tensor::from_slice(&[0i64])).expect("the shapes match").backward();
        assert!(flat(&logits.grad()).iter().all(|value| value.is_finite()));
    }
}

#[test]
fn the_contrastive_loss_and_its_gradient() {
    let expected = &VECTORS["nt_xent"];
    let views = fill(&[8, 4], 11, -1.0, 1.0).set_requires_grad(true);
    let (loss, accuracy) = nt_xent(&views, 0.5).expect("a matrix");
    loss.backward();
    let scalars = numbers(&serde_json::json!([expected["loss"], expected["accuracy"]]));
    assert_close(&[flat(&loss), flat(&accuracy)].concat(), &scalars, 1e-6, "loss, accuracy");
    assert_close(&flat(&views.grad()), &numbers(&expected["gradient"]), 1e-5, "gradient");
}

#[test]
fn five_steps_of_every_optimizer() {
    use pipeline_learn::network::{Builder, Initial, Role};
    use pipeline_learn::random::Purpose;
    let sgd = Rule::Sgd { momentum: 0.9 };
    for (name, rule) in [("sgd", sgd), ("lars", Rule::LARS), ("adam", Rule::ADAM)] {
        let mut builder = Builder::new(0, Purpose::InitialEncoder, Device::Cpu);
        let zero = Initial::Constant(0.0);
        let _ = builder.float("weight", &[2, 3], zero, Role::Trained).expect("a tensor");
        let _ = builder.float("bn.weight", &[3], zero, Role::Trained).expect("a tensor");
        let state = builder.finish();
        let tensors: Vec<&Tensor> = state.trained().map(|named| &named.tensor).collect();
        tch::no_grad(|| {
            for (index, tensor) in tensors.iter().enumerate() {
                tensor.shallow_clone().copy_(&fill(&tensor.size(), 20 + index, -1.0, 1.0));
            }
        });
        let mut optimizer =
            Optimizer::new(rule, 1e-2, &state, |name| !name.contains("bn")).expect("an optimizer");
        for step in 0..5 {
            optimizer.zero_gradients().expect("they are there");
            for (index, tensor) in tensors.iter().enumerate() {
                let gradient = fill(&tensor.size(), 30 + 2 * step + index, -1.0, 1.0);
                (*tensor * gradient).sum(Kind::Float).backward();
            }
            optimizer.step(0.1, step as u64).expect("it moves");
        }
        let expected = &VECTORS["optimizers"][name];
        for (index, tensor) in tensors.iter().enumerate() {
            assert_close(&flat(tensor), &numbers(&expected[index]), 1e-5, name);
        }
    }
}

#[test]
fn lines_are_resampled_as_torch_does() {
    for case in VECTORS["resize"].as_array().expect("a list") {
        let size = |key: &str| case[key].as_u64().expect("a number") as usize;
        let line = flat(&fill(&[size("length") as i64], 40, 0.0, 255.0));
        let mut resampler = Resampler::default();
        resampler.prepare(0, size("length"), size("outputs"));
        let found: Vec<f64> = resampler
            .outputs()
            .map(|(first, weights)| {
                let inputs = line[first..].iter().zip(weights);
                inputs.map(|(value, weight)| value * f64::from(*weight)).sum()
            })
            .collect();
        assert_close(&found, &numbers(&case["line"]), 1e-5, "a line");
    }
}

#[test]
fn twenty_steps_of_training_follow_pytorch() {
    let network = Classifier::new(Architecture::Resnet8, 3, 10, 0, Device::Cpu).expect("builds");
    fill_network(&network);
    let rule = Rule::Sgd { momentum: 0.9 };
    let mut optimizer =
        Optimizer::new(rule, 1e-3, network.state(), |name| !name.contains("bn")).expect("builds");
    let mut losses = Vec::new();
    for step in 0..20u64 {
        let images = fill(&[16, 3, 16, 16], 2000 + (step % 4) as usize, 0.0, 1.0);
        let labels: Vec<i64> = (0..16).map(|index| (index * 3 + (step % 4) as i64) % 10).collect();
        let logits = network.forward(&images, Mode::Train).expect("the shapes match");
        let labels = Tensor::from_slice(&labels);
        let loss = SampleLoss::CrossEntropy.mean(&logits, &labels).expect("the shapes match");
        optimizer.backward(&loss).expect("a scalar");
        optimizer.step(0.005, step).expect("it moves");
        losses.extend(flat(&loss));
    }
    // Kernels round differently by thread count; sooner or later a ReLU falls on the other side of
    // zero, and runs part. PyTorch differs from itself by as much.
    let expected = numbers(&VECTORS["trajectory"]);
    assert_close(&losses[..7], &expected[..7], 1e-5, "the first losses");
    assert_close(&losses, &expected, 5e-4, "all losses");
}
