//! DivideMix: the gradients of the first step and twenty steps of both networks, how likely their samples are to have right
//! labels; and mixtures of two normal distributions.

use std::sync::{LazyLock, PoisonError};

use pipeline_learn::data::mixing::Mixing;
use pipeline_learn::methods::divide_mix::DivideMix;
use pipeline_learn::methods::divide_mix::mixture::probability_of_lower;
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
/// Samples of a step on each side of each network's division.
const SIDE: i64 = BATCH / 4;
/// What is kept of every eighth sample is in the file.
const SHOWN: i64 = 8;

static DIVIDE_MIX: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/divide_mix.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

/// Rows of the batch of a step as the script has it.
fn batch(step: i64, first: i64, count: i64) -> Batch {
    let stream = step % BATCHES;
    let images = |from: i64| fill(&[BATCH, 3, 16, 16], (from + stream) as usize, 0.0, 1.0);
    let labels: Vec<i64> = (first..first + count).map(|row| (row * 3 + stream) % CLASSES).collect();
    let labels = Tensor::from_slice(&labels);
    Batch {
        images: images(2000).narrow(0, first, count),
        other_views: vec![images(2100).narrow(0, first, count)],
        clean_labels: labels.shallow_clone(),
        labels,
        samples: Tensor::arange(count, (Kind::Int64, Device::Cpu)) + BATCH * stream + first,
        mixing: None,
    }
}

/// Both sides of a network's division in a step.
fn sides(step: i64, number: i64) -> [Batch; 2] {
    let (stream, first) = (step % BATCHES, 2 * SIDE * number);
    let rows = 4 * SIDE;
    let share = flat(&fill(&[2], 3200 + stream as usize, 0.5, 1.0))[number as usize];
    let partners = (0..rows).map(|row| (row * 7 + 3 + stream + number) % rows).collect();
    let mixing = MixingTensors::new(&Mixing { share, partners }, Device::Cpu).expect("it fits");
    let labelled = Batch { mixing: Some(mixing), ..batch(step, first, SIDE) };
    [labelled, batch(step, first + SIDE, SIDE)]
}

/// What the method measures of all samples.
fn measured(method: &DivideMix) -> Tensor {
    let _no_gradients = tch::no_grad_guard();
    let all = (0..BATCHES).map(|step| method.measure(&batch(step, 0, BATCH)).expect("it works"));
    Tensor::cat(&all.collect::<Vec<_>>(), 0)
}

#[test]
fn divide_mix_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let parameters: Train = serde_json::from_value(json!({
        "method": "dividemix", "architecture": "resnet8", "weight-decay": 0.0, "momentum": 0.9,
        "warmup-epochs": 1, "ramp-up-epochs": 3, "confidence-penalty": 0.5,
    }))
    .expect("they are right");
    let recipe = Recipe::of(&parameters);
    let train: Vec<u32> = (0..(BATCH * BATCHES) as u32).collect();
    let setup = Setup::new(&recipe, 3, CLASSES as usize, 0, Device::Cpu);
    let mut setup = Setup { samples: train.len(), train: &train, ..setup };
    let mut method = DivideMix::new(&mut setup).expect("builds");
    for (learner, first_stream) in method.learners().iter().zip([0, 500]) {
        fill_state(learner.network.state(), first_stream);
    }
    let length = RunLength { steps: 20, steps_per_epoch: BATCHES as u64 };
    let mut cleans = DIVIDE_MIX["clean"].as_array().expect("a list").iter();
    for (step, expected) in (0..20).zip(DIVIDE_MIX["losses"].as_array().expect("a list")) {
        let at = StepPosition::usual(step as u64, length);
        let is_divided = method.measures(at.epoch as u32);
        if is_divided && at.step_of_epoch == 0 {
            let measured = measured(&method);
            method.begin_epoch(at.epoch as u32, Some(&measured)).expect("it works");
            let clean = flat(&method.clean().slice(0, 0, BATCH * BATCHES, SHOWN));
            let expected = numbers(cleans.next().expect("one an epoch"));
            assert_close(&clean, &expected, 1e-3, &format!("clean, step {step}"));
        }
        method.begin_step(0.001, at).expect("it works");
        let found = if is_divided {
            let [labelled, unlabelled] = sides(step, 0);
            let [second, second_unlabelled] = sides(step, 1);
            let others = [unlabelled, second, second_unlabelled];
            let output = method.compute(&labelled, &others).expect("it works");
            let of_step = |name| flat(&(&output.extra[name] / &output.extra["steps"]))[0];
            vec![of_step("labelled-loss"), of_step("unlabelled-loss")]
        } else {
            let output = method.compute(&batch(step, 0, BATCH), &[]).expect("it works");
            flat(&output.losses.mean(Kind::Double))
        };
        // As for plain training: float32 leaves float64 slowly.
        let tolerance = if step < 5 { 1e-5 } else { 1e-4 };
        assert_close(&found, &numbers(expected), tolerance, &format!("losses, step {step}"));
        if step > 0 {
            continue;
        }
        // The gradients of the last layer are the momentum after the first step.
        let gradients = DIVIDE_MIX["gradients"].as_array().expect("a list");
        for (learner, gradients) in method.learners().iter().zip(gradients) {
            let state = learner.optimizer.state_tensors();
            for (name, gradient) in gradients.as_object().expect("a table") {
                let name = format!("optimizer.momentum.fc.{name}");
                let (_, found) = state.iter().find(|(other, _)| *other == name).expect(&name);
                assert_close(&flat(found), &numbers(gradient), 1e-5, &name);
            }
        }
    }
    assert!(cleans.next().is_none(), "an epoch was not measured");
}

#[test]
fn a_mixture_is_that_of_scikit_learn() {
    for (stream, expected) in DIVIDE_MIX["mixtures"].as_array().expect("a list").iter().enumerate()
    {
        let [low, high, border, wide, outlier] = numbers(&expected["parameters"])[..] else {
            panic!("five parameters")
        };
        let squares = |count: f64, stream: usize| -> Vec<f64> {
            let all = flat(&fill(&[count as i64], 5000 + stream, 0.0, 1.0));
            all.iter().map(|number| number * number).collect()
        };
        let lower = squares(low, 2 * stream).into_iter().map(|number| number * border);
        let upper = squares(high, 2 * stream + 1).into_iter().map(|number| 1.0 - number * wide);
        // What is far away of both heaps is 1, and they are as much smaller.
        let far = (outlier > 1.0).then_some(outlier);
        let all = lower.chain(upper).chain(far).map(|number| number / outlier);
        let found = probability_of_lower(&all.collect::<Vec<_>>());
        let found: Vec<f64> = found.into_iter().step_by(4).collect();
        assert_close(&found, &numbers(&expected["probabilities"]), 1e-8, "probabilities");
    }
}
