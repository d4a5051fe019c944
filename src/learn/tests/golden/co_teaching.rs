//! Co-teaching: the gradients of the first step and twenty steps of both networks, with what each chose for the other.

use std::sync::{LazyLock, PoisonError};

use pipeline_learn::data::mixing::Mixing;
use pipeline_learn::methods::co_teaching::CoTeaching;
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

static CO_TEACHING: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/co_teaching.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

/// The batch of a step as the script has it.
fn batch(step: i64, first_images: i64, mixes: bool) -> Batch {
    let stream = step % BATCHES;
    let mixing = || {
        let share = flat(&fill(&[BATCHES], 3100, 0.5, 1.0))[stream as usize];
        let partners = (0..BATCH).map(|row| (row * 7 + 3 + stream) % BATCH).collect();
        MixingTensors::new(&Mixing { share, partners }, Device::Cpu).expect("it fits")
    };
    let labels: Vec<i64> = (0..BATCH).map(|index| (index * 3 + stream) % CLASSES).collect();
    let labels = Tensor::from_slice(&labels);
    Batch {
        images: fill(&[BATCH, 3, 16, 16], (first_images + stream) as usize, 0.0, 1.0),
        other_views: Vec::new(),
        mixing: mixes.then(mixing),
        clean_labels: labels.shallow_clone(),
        labels,
        samples: Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)) + BATCH * stream,
    }
}

#[test]
fn co_teaching_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    for expected in CO_TEACHING.as_array().expect("a list") {
        let parameters: Train = serde_json::from_value(json!({
            "method": "co-teaching", "architecture": "resnet8", "weight-decay": 0.0, "momentum": 0.9,
            "forget-rate": expected["forget-rate"],
            "forget-epochs": expected["forget-epochs"].as_f64().expect("a number") as u32,
        }))
        .expect("they are right");
        let first_images = expected["first-images"].as_f64().expect("a number") as i64;
        let mixes = expected["mixes"].as_bool().expect("yes or no");
        let recipe = Recipe::of(&parameters);
        let mut setup = Setup::new(&recipe, 3, CLASSES as usize, 0, Device::Cpu);
        let mut method = CoTeaching::new(&mut setup).expect("builds");
        for (learner, first_stream) in method.learners().iter().zip([0, 500]) {
            fill_state(learner.network.state(), first_stream);
        }
        let length = RunLength { steps: 20, steps_per_epoch: BATCHES as u64 };
        for (step, measured) in (0..20).zip(expected["losses"].as_array().expect("a list")) {
            method.begin_step(0.005, StepPosition::usual(step as u64, length)).unwrap();
            let batch = batch(step, first_images, mixes);
            let output = method.compute(&batch, &[]).expect("it works");
            let [first, second, chosen] =
                ["loss-1", "loss-2", "chosen"].map(|name| &output.extra[name]);
            let found = [first / BATCH as f64, second / BATCH as f64, chosen / 2.0];
            let found: Vec<f64> = found.iter().flat_map(flat).collect();
            let measured = numbers(measured);
            assert_eq!(found[2], measured[2], "how many are chosen, step {step}");
            // As for plain training: float32 leaves float64 slowly.
            let tolerance = if step < 5 { 1e-5 } else { 1e-4 };
            let what = format!("losses, step {step}");
            assert_close(&found[..2], &measured[..2], tolerance, &what);
            if step > 0 {
                continue;
            }
            // The gradients of the last layer are the momentum after the first step.
            for (learner, gradients) in
                method.learners().iter().zip(expected["gradients"].as_array().expect("a list"))
            {
                let state = learner.optimizer.state_tensors();
                for (name, gradient) in gradients.as_object().expect("a table") {
                    let name = format!("optimizer.momentum.fc.{name}");
                    let (_, found) = state.iter().find(|(other, _)| *other == name).expect(&name);
                    assert_close(&flat(found), &numbers(gradient), 1e-5, &name);
                }
            }
        }
    }
}
