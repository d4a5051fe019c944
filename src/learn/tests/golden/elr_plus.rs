//! ELR+: the gradients of the first step and twenty steps of both networks, their averages, and what they are kept at.

use std::sync::{LazyLock, PoisonError};

use pipeline_learn::data::mixing::Mixing;
use pipeline_learn::methods::elr_plus::ElrPlus;
use pipeline_learn::network::NetworkState;
use pipeline_learn::training::batch::{Batch, MixingTensors};
use pipeline_learn::training::method::{Setup, TrainingMethod};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::training_loop::{RunLength, StepPosition};
use pipeline_stages::kinds::Train;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::THREADS;
use crate::formula::{assert_close, fill, fill_state, flat, numbers};

const BATCH: i64 = 64;
const BATCHES: i64 = 4;
const CLASSES: i64 = 10;
/// What is kept of every eighth sample is in the file.
const SHOWN: i64 = 8;

static ELR_PLUS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/elr_plus.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

/// The batch of a step as the script has it.
fn batch(step: i64) -> Batch {
    let stream = step % BATCHES;
    let labels: Vec<i64> = (0..BATCH).map(|row| (row * 3 + stream) % CLASSES).collect();
    let labels = Tensor::from_slice(&labels);
    let share = flat(&fill(&[BATCHES], 3100, 0.5, 1.0))[stream as usize];
    let partners = (0..BATCH).map(|row| (row * 7 + 3 + stream) % BATCH).collect();
    let mixing = MixingTensors::new(&Mixing { share, partners }, Device::Cpu);
    Batch {
        images: fill(&[BATCH, 3, 16, 16], (2000 + stream) as usize, 0.0, 1.0),
        other_views: Vec::new(),
        clean_labels: labels.shallow_clone(),
        labels,
        samples: Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)) + BATCH * stream,
        mixing: Some(mixing.expect("it fits")),
    }
}

/// The weight of the last layer.
fn last_weight(state: &NetworkState) -> Vec<f64> {
    let weight = state.tensors().iter().find(|named| named.name == "fc.weight");
    flat(&weight.expect("a classifier").tensor)
}

#[test]
fn elr_plus_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let parameters: Train = serde_json::from_value(json!({
        "method": "elr-plus", "architecture": "resnet8", "weight-decay": 0.0, "momentum": 0.9,
        "average-momentum": 0.9, "average-ramp-up": 0.5, "regularization-ramp-up": 0.4,
    }))
    .expect("they are right");
    let recipe = Recipe::of(&parameters);
    assert_eq!(recipe.mixup(), Some(1.0));
    let samples = (BATCH * BATCHES) as usize;
    let setup = Setup::new(&recipe, 3, CLASSES as usize, 0, Device::Cpu);
    let mut setup = Setup { samples, ..setup };
    let mut method = ElrPlus::new(&mut setup).expect("builds");
    for ((learner, average), first_stream) in
        method.learners().into_iter().zip(method.averages()).zip([0, 500])
    {
        fill_state(learner.network.state(), first_stream);
        fill_state(average, first_stream);
    }
    let length = RunLength { steps: 20, steps_per_epoch: BATCHES as u64 };
    for (step, expected) in (0..20).zip(ELR_PLUS["losses"].as_array().expect("a list")) {
        method.begin_step(0.005, StepPosition::usual(step as u64, length)).expect("it works");
        let output = method.compute(&batch(step), &[]).expect("it works");
        let sums = output.extra.values().map(|sum| sum / BATCH as f64);
        let found: Vec<f64> = sums.flat_map(|mean| flat(&mean)).collect();
        // As for plain training: float32 leaves float64 slowly.
        let tolerance = if step < 5 { 1e-5 } else { 1e-4 };
        assert_close(&found, &numbers(expected), tolerance, &format!("losses, step {step}"));
        if step > 0 {
            continue;
        }
        // The gradients of the last layer are the momentum after the first step.
        let gradients = ELR_PLUS["gradients"].as_array().expect("a list");
        for (learner, gradients) in method.learners().into_iter().zip(gradients) {
            let state = learner.optimizer.state_tensors();
            for (name, gradient) in gradients.as_object().expect("a table") {
                let name = format!("optimizer.momentum.fc.{name}");
                let (_, found) = state.iter().find(|(other, _)| *other == name).expect(&name);
                assert_close(&flat(found), &numbers(gradient), 1e-5, &name);
            }
        }
    }
    let list = |name: &str| ELR_PLUS[name].as_array().expect("a list").clone();
    for (average, expected) in method.averages().into_iter().zip(list("averages")) {
        assert_close(&last_weight(average), &numbers(&expected), 1e-4, "averages");
    }
    for (targets, expected) in method.targets().into_iter().zip(list("targets")) {
        let some = flat(&targets.slice(0, 0, BATCH * BATCHES, SHOWN));
        // Predictions of single samples: PyTorch's own float32 leaves its float64 by 3e-4.
        assert_close(&some, &numbers(&expected), 1e-3, "targets");
    }
}
