//! Training: losses, optimizers, schedules, twenty steps of a network, probes.

use std::sync::PoisonError;

use pipeline_learn::kinds::probe::knn::VotingSamples;
use pipeline_learn::network::{Builder, Classifier, Initial, Linear, Mode, Pass, TensorRole};
use pipeline_learn::random::Purpose;
use pipeline_learn::training::decay;
use pipeline_learn::training::loss::{SampleLoss, nt_xent, unit_rows};
use pipeline_learn::training::optimizer::{NetworkOptimizer, Rule};
use pipeline_learn::training::schedule::LearningRateSchedule;
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use tch::{Device, Kind, Tensor};

use crate::formula::{assert_close, fill, fill_state, flat, numbers};
use crate::{THREADS, TRAINING, VECTORS};

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
fn a_projection_of_zeros_has_a_finite_gradient() {
    let views = fill(&[4, 3], 11, -1.0, 1.0);
    let _ = views.narrow(0, 1, 1).zero_();
    let views = views.set_requires_grad(true);
    let (loss, _) = nt_xent(&views, 0.5).expect("a matrix");
    loss.backward();
    assert!(flat(&views.grad()).iter().all(|value| value.is_finite()));
}

/// Towards q = 0 it becomes cross-entropy; 1 - p^q in float32 would be off by a percent here.
#[test]
fn a_small_q_keeps_its_digits() {
    let logits = fill(&[4, 5], 7, -3.0, 3.0);
    let labels = Tensor::from_slice(&[0i64, 4, 2, 2]);
    let q = 1e-6;
    let generalized = SampleLoss::GeneralizedCrossEntropy { q };
    let of = |loss: SampleLoss| flat(&loss.of_samples(&logits, &labels).expect("they match"));
    assert_close(&of(generalized), &of(SampleLoss::CrossEntropy), 1e-5, "q = 1e-6");
}

#[test]
fn five_steps_of_every_optimizer() {
    let sgd = Rule::Sgd { momentum: 0.9 };
    for (name, rule) in [("sgd", sgd), ("lars", Rule::LARS), ("adam", Rule::ADAM)] {
        let mut builder = Builder::new(0, Purpose::InitialEncoder, Device::Cpu);
        let zero = Initial::Constant(0.0);
        let _ = builder.float("weight", &[2, 3], zero, TensorRole::Trained).expect("a tensor");
        let _ = builder.float("bn.weight", &[3], zero, TensorRole::Trained).expect("a tensor");
        let state = builder.finish();
        let tensors: Vec<&Tensor> = state.trained().map(|named| &named.tensor).collect();
        tch::no_grad(|| {
            for (index, tensor) in tensors.iter().enumerate() {
                tensor.shallow_clone().copy_(&fill(&tensor.size(), 20 + index, -1.0, 1.0));
            }
        });
        let mut optimizer =
            NetworkOptimizer::new(rule, 1e-2, &state, decay::supervised).expect("an optimizer");
        for step in 0..5 {
            optimizer.zero_gradients().expect("they are there");
            for (index, tensor) in tensors.iter().enumerate() {
                let gradient = fill(&tensor.size(), 30 + 2 * step + index, -1.0, 1.0);
                (*tensor * gradient).sum(Kind::Float).backward();
            }
            optimizer.begin_step(0.1, step as u64).unwrap();
            optimizer.step().expect("it moves");
        }
        let expected = &VECTORS["optimizers"][name];
        for (index, tensor) in tensors.iter().enumerate() {
            assert_close(&flat(tensor), &numbers(&expected[index]), 1e-5, name);
        }
    }
}

#[test]
fn schedules_over_whole_runs() {
    for case in TRAINING["schedules"].as_array().expect("a list") {
        let number = |name: &str| case[name].as_f64().expect("a number");
        let schedule = match case["schedule"].as_str().expect("a text") {
            "warmup-cosine" => LearningRateSchedule::WarmupCosine { warmup: number("warmup") },
            "linear" => LearningRateSchedule::Linear,
            "constant" => LearningRateSchedule::Constant,
            _ => LearningRateSchedule::Step {
                every: number("every") as u64,
                factor: number("factor"),
            },
        };
        let expected = numbers(&case["rates"]);
        let steps = expected.len() as u64;
        let found: Vec<f64> = (0..steps).map(|step| schedule.factor(step, steps)).collect();
        // PyTorch's schedulers multiply their way from step to step.
        assert_close(&found, &expected, 1e-12, &format!("{schedule:?}"));
    }
}

/// The losses of twenty steps on given batches.
fn trajectory() -> Vec<f64> {
    let network = Classifier::new(Architecture::Resnet8, 3, 10, 0, Device::Cpu).expect("builds");
    fill_state(network.state(), 0);
    let rule = Rule::Sgd { momentum: 0.9 };
    let mut optimizer =
        NetworkOptimizer::new(rule, 1e-3, network.state(), decay::supervised).expect("builds");
    let batch = |stream: usize| {
        let labels: Vec<i64> = (0..64).map(|index| (index * 3 + stream as i64) % 10).collect();
        (fill(&[64, 3, 16, 16], 2000 + stream, 0.0, 1.0), Tensor::from_slice(&labels))
    };
    let batches: Vec<(Tensor, Tensor)> = (0..4).map(batch).collect();
    let mut losses = Vec::new();
    for (step, (images, labels)) in (0..20).zip(batches.iter().cycle()) {
        let logits = network.forward(images, Mode::Train).expect("the shapes match");
        let loss = SampleLoss::CrossEntropy.mean(&logits, labels).expect("the shapes match");
        optimizer.backward(&loss).expect("a scalar");
        optimizer.begin_step(0.005, step).unwrap();
        optimizer.step().expect("it moves");
        losses.extend(flat(&loss));
    }
    losses
}

/// PyTorch's trajectory is in float64, so it is the one that float32 has to follow, whatever its rounding. What parts
/// them is a ReLU that falls on the other side of zero, and that changes the mean over a batch the less, the larger the
/// batch: with 16 images PyTorch's own float32 leaves its float64 by 1e-4, with 64 by 2e-5, on one thread or two. The
/// losses fall by a fifth meanwhile, which is 2000 times the tolerance.
#[test]
fn twenty_steps_of_training_follow_pytorch() {
    let expected = numbers(&TRAINING["trajectory"]);
    assert!(expected[0] - expected[19] > 0.4, "it learns nothing");
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = tch::get_num_threads();
    for count in [1, 2, 3] {
        tch::set_num_threads(count);
        let losses = trajectory();
        assert_close(&losses[..5], &expected[..5], 1e-5, &format!("{count} threads, first steps"));
        assert_close(&losses, &expected, 1e-4, &format!("{count} threads"));
    }
    tch::set_num_threads(threads);
}

#[test]
fn the_mean_of_networks_is_that_of_pytorch() {
    let made = [0, 500, 900].map(|first_stream| {
        let network = Classifier::new(Architecture::Resnet8, 3, 10, 0, Device::Cpu);
        let network = network.expect("it builds");
        fill_state(network.state(), first_stream);
        network
    });
    let mean = made[0].state().copy().expect("it is copied");
    for (number, network) in made.iter().enumerate() {
        mean.move_towards(network.state(), 1.0 / (number + 1) as f64).expect("it moves");
    }
    for (name, expected) in TRAINING["mean_of_networks"].as_object().expect("a table") {
        let named = mean.tensors().iter().find(|named| named.name == *name).expect(name);
        assert_close(&flat(&named.tensor), &numbers(expected), 1e-6, name);
    }
}

#[test]
fn a_linear_probe_learns_as_pytorch_does() {
    let expected = &TRAINING["linear_probe"];
    let features = fill(&[24, 6], 60, 0.0, 2.0);
    let labels = Tensor::from_slice(&(0..24).map(|index| index % 3).collect::<Vec<i64>>());
    let mut builder = Builder::new(0, Purpose::InitialEncoder, Device::Cpu);
    let layer = Linear::zero(&mut builder, [6, 3]).expect("builds");
    let state = builder.finish();
    let rule = Rule::Sgd { momentum: 0.9 };
    let mut optimizer = NetworkOptimizer::new(rule, 1e-2, &state, decay::all).expect("builds");
    let mut losses = Vec::new();
    for step in 0..30 {
        let rows = |tensor: &Tensor| tensor.narrow(0, 8 * (step % 3), 8);
        let pass = Pass::new(state.values(), Mode::Train, Precision::F32);
        let logits = layer.forward(&pass, &rows(&features)).expect("the shapes match");
        let loss = SampleLoss::CrossEntropy.mean(&logits, &rows(&labels)).expect("they match");
        optimizer.backward(&loss).expect("a scalar");
        let factor = LearningRateSchedule::Linear.factor(step as u64, 30);
        optimizer.begin_step(0.1 * factor, step as u64).unwrap();
        optimizer.step().expect("it moves");
        losses.extend(flat(&loss));
    }
    assert_close(&losses, &numbers(&expected["losses"]), 1e-5, "losses");
    for (named, key) in state.tensors().iter().zip(["weight", "bias"]) {
        assert_close(&flat(&named.tensor), &numbers(&expected[key]), 1e-5, key);
    }
}

#[test]
fn neighbours_vote_by_the_exponent_of_their_cosine() {
    let labels: Vec<i64> = (0..40).map(|index| index * 7 % 4).collect();
    for case in TRAINING["nearest_neighbours"].as_array().expect("a list") {
        let voters = VotingSamples {
            features: unit_rows(&fill(&[40, 5], 70, -1.0, 1.0)).expect("a matrix"),
            labels: Tensor::from_slice(&labels),
            classes: 4,
            k: case["k"].as_i64().expect("a number"),
            temperature: case["temperature"].as_f64().expect("a number"),
        };
        let votes = voters.votes(&fill(&[6, 5], 71, -1.0, 1.0)).expect("the shapes match");
        let shares = &votes / votes.sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
        assert_close(&flat(&shares), &numbers(&case["shares"]), 1e-5, &format!("{case}"));
    }
}

#[test]
fn more_neighbours_than_there_are_and_a_tiny_temperature() {
    let voters = VotingSamples {
        features: unit_rows(&fill(&[3, 5], 70, -1.0, 1.0)).expect("a matrix"),
        labels: Tensor::from_slice(&[0i64, 1, 1]),
        classes: 2,
        k: 200,
        temperature: 1e-4,
    };
    let votes = voters.votes(&voters.features).expect("the shapes match");
    assert_eq!(Vec::<i64>::try_from(votes.argmax(1, false)).expect("a list"), [0, 1, 1]);
    assert!(flat(&votes).iter().all(|vote| vote.is_finite()));
}
