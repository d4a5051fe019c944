//! Methods of training: the gradients of the first step, twenty steps, and what they keep of every sample.

use std::sync::{LazyLock, PoisonError};

use pipeline_learn::data::mixing::Mixing;
use pipeline_learn::methods::elr::Elr;
use pipeline_learn::methods::finetune::Finetune;
use pipeline_learn::methods::forward_correction::ForwardCorrection;
use pipeline_learn::methods::sop::Sop;
use pipeline_learn::methods::truncated_loss::TruncatedLoss;
use pipeline_learn::training::batch::{Batch, MixingTensors};
use pipeline_learn::training::loss::SampleLoss;
use pipeline_learn::training::method::{Setup, TrainingMethod};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::training_loop::{RunLength, StepPosition};
use pipeline_stages::kinds::{Loss, Train};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::formula::{assert_close, fill, fill_state, flat, numbers};
use crate::{METHODS, THREADS};

const BATCH: i64 = 64;
const BATCHES: i64 = 4;
const CLASSES: i64 = 10;
/// What is kept of every eighth sample is in the file.
const SHOWN: i64 = 8;

/// All samples train.
static TRAIN: LazyLock<Vec<u32>> = LazyLock::new(|| (0..(BATCH * BATCHES) as u32).collect());

/// What a method is shown.
#[derive(Clone, Copy)]
struct Shown {
    /// Each sample once more.
    two_views: bool,
    /// The images are to be mixed.
    mixed: bool,
}

const IMAGES: Shown = Shown { two_views: false, mixed: false };
const TWO_VIEWS: Shown = Shown { two_views: true, mixed: false };
const MIXED: Shown = Shown { two_views: false, mixed: true };

/// How the batch of a step is mixed in the script.
fn mixing(step: i64) -> MixingTensors {
    let stream = step % BATCHES;
    let share = flat(&fill(&[BATCHES], 3100, 0.5, 1.0))[stream as usize];
    let partners = (0..BATCH).map(|row| (row * 7 + 3 + stream) % BATCH).collect();
    MixingTensors::new(&Mixing { share, partners }, Device::Cpu).expect("it fits")
}

/// The batch of a step as the script has it.
fn batch(step: i64) -> Batch {
    let stream = step % BATCHES;
    let images = |first: i64| fill(&[BATCH, 3, 16, 16], (first + stream) as usize, 0.0, 1.0);
    let labels: Vec<i64> = (0..BATCH).map(|index| (index * 3 + stream) % CLASSES).collect();
    let labels = Tensor::from_slice(&labels);
    Batch {
        images: images(2000),
        other_views: vec![images(2100)],
        clean_labels: labels.shallow_clone(),
        labels,
        samples: Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)) + BATCH * stream,
        mixing: None,
    }
}

fn parameters(method: &str, changes: &Value) -> Train {
    let mut parameters = json!({
        "method": method, "architecture": "resnet8", "weight-decay": 0.0, "momentum": 0.9,
    });
    let changes = changes.as_object().expect("a table").clone();
    parameters.as_object_mut().expect("a table").extend(changes);
    serde_json::from_value(parameters).expect("they are right")
}

fn setup(recipe: &Recipe) -> Setup<'_> {
    let setup = Setup::new(recipe, 3, CLASSES as usize, 0, Device::Cpu);
    Setup { samples: TRAIN.len(), train: &TRAIN, ..setup }
}

/// What the method measures of all samples, which come in the order of their batches.
fn measure_all(method: &impl TrainingMethod) -> Tensor {
    let _no_gradients = tch::no_grad_guard();
    let measured = (0..BATCHES).map(|step| method.measure(&batch(step)).expect("it works"));
    Tensor::cat(&measured.collect::<Vec<_>>(), 0)
}

/// Trains by the method, and compares it with PyTorch: the cross-entropy and what the method measures in every step, and the
/// gradients of the last layer in the first one, which are the momentum after it.
fn follows(expected: &Value, what: &str, shown: Shown, method: &mut impl TrainingMethod) {
    fill_state(method.learners()[0].network.state(), 0);
    let length = RunLength { steps: 20, steps_per_epoch: BATCHES as u64 };
    for (step, measured) in (0..20).zip(expected["losses"].as_array().expect("a list")) {
        let mut batch = batch(step);
        if !shown.two_views {
            batch.other_views.clear();
        }
        batch.mixing = shown.mixed.then(|| mixing(step));
        let at = StepPosition::usual(step as u64, length);
        if at.step_of_epoch == 0 {
            let epoch = at.epoch as u32;
            let measured = method.measures(epoch).then(|| measure_all(method));
            method.begin_epoch(epoch, measured.as_ref()).expect("it works");
        }
        method.begin_step(0.005, at).unwrap();
        let output = method.compute(&batch, &[]).expect("it works");
        let sums = output.extra.values().map(|sum| sum / BATCH as f64);
        let cross_entropy = SampleLoss::CrossEntropy.of_samples(&output.logits, &batch.labels);
        let means = [cross_entropy.expect("it fits").mean(Kind::Double)].into_iter().chain(sums);
        let mut found: Vec<f64> = means.flat_map(|mean| flat(&mean)).collect();
        if output.extra.is_empty() {
            // What the method descends is all that it measures.
            found.extend(flat(&output.losses.mean(Kind::Double)));
        }
        // As for plain training: float32 leaves float64 slowly, where a ReLU falls on the other side of zero.
        let tolerance = if step < 5 { 1e-5 } else { 1e-4 };
        assert_close(&found, &numbers(measured), tolerance, &format!("{what}, step {step}"));
        if step == 0 {
            let state = method.learners()[0].optimizer.state_tensors();
            for (name, gradient) in expected["gradients"].as_object().expect("a table") {
                let name = format!("optimizer.momentum.fc.{name}");
                let (_, found) = state.iter().find(|(other, _)| *other == name).expect(&name);
                assert_close(&flat(found), &numbers(gradient), 1e-5, &format!("{what}, {name}"));
            }
        }
    }
}

/// The trajectories of a method without and with MixUp.
fn plain_and_mixed(name: &str) -> impl Iterator<Item = (&'static Value, Shown)> {
    let mixed = format!("{name}_with_mixup");
    [(name, IMAGES), (mixed.as_str(), MIXED)]
        .map(|(name, shown)| {
            let list = METHODS[name].as_array().expect("a list").iter();
            list.map(move |one| (one, shown)).collect::<Vec<_>>()
        })
        .into_iter()
        .flatten()
}

/// What is kept of every eighth sample.
fn some(tensor: &Tensor) -> Vec<f64> {
    flat(&tensor.slice(0, 0, tensor.size()[0], SHOWN))
}

#[test]
fn robust_losses_and_their_gradients() {
    for &loss in Loss::ALL {
        let name = loss.name();
        let expected = METHODS["losses"].get(name).expect(name);
        let changes = json!({
            "loss": name, "q": 0.66, "forward-weight": 0.1, "reverse-weight": 1.5, "active-weight": 2.0,
            "passive-weight": 0.5, "smoothing": 0.1, "label-share": 0.3,
        });
        let loss = SampleLoss::of(&parameters("finetune", &changes));
        let logits = fill(&[4, 5], 7, -3.0, 3.0).set_requires_grad(true);
        let labels = Tensor::from_slice(&[0i64, 4, 2, 2]);
        let losses = loss.of_samples(&logits, &labels).expect("the shapes match");
        losses.mean(Kind::Float).backward();
        assert_close(&flat(&losses), &numbers(&expected["losses"]), 1e-6, name);
        assert_close(&flat(&logits.grad()), &numbers(&expected["gradient"]), 1e-5, name);
        let largest = flat(&losses).into_iter().fold(0.0, f64::max);
        assert!(loss.bound().is_none_or(|bound| largest <= bound), "{name}: {largest}");

        // A sample without hope, which is where a bound is reached, and one without doubt.
        let logits = Tensor::from_slice(&[-200.0f32, 0.0, 200.0]).reshape([1, 3]);
        for (label, is_lost) in [(0i64, true), (2, false)] {
            let logits = logits.copy().set_requires_grad(true);
            let value = loss.of_samples(&logits, &Tensor::from_slice(&[label])).expect("it fits");
            value.sum(Kind::Float).backward();
            assert!(flat(&logits.grad()).iter().all(|one| one.is_finite()), "{name}, {label}");
            if let Some(bound) = loss.bound() {
                let reached = if is_lost { bound } else { 0.0 };
                // The normalised cross-entropy of three classes is at most a part of its bound.
                let found = flat(&value)[0];
                assert!(
                    found.is_finite() && (found - reached).abs() < 0.5 * bound,
                    "{name}: {found}"
                );
            }
        }

        // The only class is certain, whatever the logit.
        let logits = Tensor::from_slice(&[3.0f32, -2.0]).reshape([2, 1]).set_requires_grad(true);
        let losses = loss.of_samples(&logits, &Tensor::from_slice(&[0i64, 0])).expect("it fits");
        losses.sum(Kind::Float).backward();
        let found = [flat(&losses), flat(&logits.grad())].concat();
        assert_close(&found, &[0.0; 4], 1e-3, &format!("{name}, one class"));
    }
}

#[test]
fn the_divergence_of_two_views_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = &METHODS["generalized_jensen_shannon"];
    let changes = json!({"loss": "jensen-shannon", "label-share": expected["share"], "views": 2});
    let recipe = Recipe::of(&parameters("finetune", &changes));
    let mut method = Finetune::new(&mut setup(&recipe)).expect("builds");
    assert_eq!(method.select(0, vec![vec![1, 2]]).expect("steps")[0].train.views, 2);
    follows(expected, "gjs", TWO_VIEWS, &mut method);
}

#[test]
fn mixed_images_follow_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let recipe = Recipe::of(&parameters("finetune", &json!({"mixup": 1.0})));
    assert_eq!(recipe.mixup(), Some(1.0));
    let mut method = Finetune::new(&mut setup(&recipe)).expect("builds");
    follows(&METHODS["mixup"], "mixup", MIXED, &mut method);
}

#[test]
fn forward_correction_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let parameters = parameters("forward-correction", &json!({}));
    let recipe = Recipe::of(&parameters);
    for (name, shown) in [("forward_correction", IMAGES), ("forward_correction_with_mixup", MIXED)]
    {
        let mut method = ForwardCorrection::new(&mut setup(&recipe)).expect("builds");
        let transition = fill(&[CLASSES, CLASSES], 3002, -2.0, 2.0).softmax(1, Kind::Float);
        method.transition().shallow_clone().copy_(&transition);
        follows(&METHODS[name], name, shown, &mut method);
    }
}

#[test]
fn forward_correction_with_an_estimate_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = &METHODS["estimated_forward_correction"];
    let after = expected["after"].as_f64().expect("a number") as u32;
    let parameters = parameters("forward-correction", &json!({"estimation-epochs": after}));
    let recipe = Recipe::of(&parameters);
    let mut method = ForwardCorrection::new(&mut setup(&recipe)).expect("builds");
    let identity = Tensor::eye(CLASSES, (Kind::Float, Device::Cpu));
    assert_eq!(flat(method.transition()), flat(&identity));
    follows(expected, "estimated", IMAGES, &mut method);
    // Predictions of single samples, as the targets of ELR.
    let found = flat(method.transition());
    assert_close(&found, &numbers(&expected["transition"]), 1e-3, "transition");
}

#[test]
fn a_known_matrix_is_counted_from_the_samples_that_train() {
    let parameters = parameters("forward-correction", &json!({"transition": "known"}));
    let recipe = Recipe::of(&parameters);
    let (labels, clean_labels) = (&[0, 1, 1, 2, 2], &[0, 0, 1, 0, 1]);
    // The last sample is held out, and the last class has no samples.
    let setup = Setup::new(&recipe, 3, 3, 0, Device::Cpu);
    let mut setup = Setup { labels, clean_labels, train: &[0, 1, 2, 3], ..setup };
    let method = ForwardCorrection::new(&mut setup).expect("builds");
    let third = 1.0 / 3.0;
    let expected = [third, third, third, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    assert_close(&flat(method.transition()), &expected, 1e-6, "transition");
}

#[test]
fn a_row_of_a_matrix_file_is_a_true_class() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("own.csv"), "0.75,0.25,0\n0,1,0\n0.5,0,0.5\n").expect("ours");
    let changes = json!({"transition": "file", "matrix": "own.csv"});
    let parameters = parameters("forward-correction", &changes);
    let recipe = Recipe::of(&parameters);
    let setup = Setup::new(&recipe, 3, 3, 0, Device::Cpu);
    let method = ForwardCorrection::new(&mut Setup { folder: folder.path(), ..setup });
    let expected = [0.75, 0.25, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.5];
    let method = method.expect("builds");
    assert_close(&flat(method.transition()), &expected, 1e-6, "transition");
}

#[test]
fn a_matrix_is_written_as_counted_by_hand_and_read_as_such() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    // Of the four samples of class 0, two keep their label, one has label 1 and one has label 2; of the two of class 1, one has label 2.
    let (clean_labels, labels) = (&[0, 0, 0, 0, 1, 1, 2], &[0, 0, 1, 2, 1, 2, 2]);
    let by_hand = [0.5, 0.25, 0.25, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0];
    let known = parameters("forward-correction", &json!({"transition": "known"}));
    let known = Recipe::of(&known);
    let setup = Setup::new(&known, 3, 3, 0, Device::Cpu);
    let mut setup = Setup { labels, clean_labels, train: &[0, 1, 2, 3, 4, 5, 6], ..setup };
    let counted = ForwardCorrection::new(&mut setup).expect("builds");
    counted.write(folder.path()).expect("it writes");
    let text = std::fs::read_to_string(folder.path().join("transition.csv")).expect("a file");
    let (names, rows) = text.split_once('\n').expect("a line of names");
    assert_eq!(names, "given-0,given-1,given-2");
    let found = rows.split([',', '\n']).filter(|field| !field.is_empty());
    let found: Vec<f64> = found.map(|field| field.parse().expect("a number")).collect();
    assert_eq!(found, by_hand);

    let changes = json!({"transition": "file", "matrix": "transition.csv"});
    let from_a_file = parameters("forward-correction", &changes);
    let from_a_file = Recipe::of(&from_a_file);
    let setup = Setup::new(&from_a_file, 3, 3, 0, Device::Cpu);
    let read = ForwardCorrection::new(&mut Setup { folder: folder.path(), ..setup });
    assert_eq!(flat(read.expect("builds").transition()), by_hand);
}

#[test]
fn a_matrix_read_from_a_file_equals_the_counted_one() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let first = |setup: &mut Setup<'_>| {
        let mut method = ForwardCorrection::new(setup).expect("builds");
        fill_state(method.learners()[0].network.state(), 0);
        let at = StepPosition::usual(0, RunLength { steps: 20, steps_per_epoch: BATCHES as u64 });
        method.begin_step(0.005, at).expect("it works");
        let batch = Batch { other_views: Vec::new(), ..batch(0) };
        let extra = method.compute(&batch, &[]).expect("it works").extra;
        (method, extra.values().flat_map(flat).collect::<Vec<_>>())
    };
    let counted = parameters("forward-correction", &json!({"transition": "known"}));
    let counted = Recipe::of(&counted);
    let clean_labels: Vec<i64> = TRAIN.iter().map(|&sample| i64::from(sample) % CLASSES).collect();
    let labels: Vec<i64> = TRAIN.iter().map(|&sample| i64::from(sample) / 5 % CLASSES).collect();
    let mut setup_of_counted =
        Setup { labels: &labels, clean_labels: &clean_labels, ..setup(&counted) };
    let (counted, expected) = first(&mut setup_of_counted);
    counted.write(folder.path()).expect("it writes");

    let changes = json!({"transition": "file", "matrix": "transition.csv"});
    let parameters = parameters("forward-correction", &changes);
    let recipe = Recipe::of(&parameters);
    let (read, found) = first(&mut Setup { folder: folder.path(), ..setup(&recipe) });
    assert_eq!(flat(read.transition()), flat(counted.transition()));
    assert_eq!(found, expected);

    let rows = "1 0 0 0 0 0 0 0 0 0\n0 0.5 0.4 0 0 0 0 0 0 0\n";
    std::fs::write(folder.path().join("transition.csv"), rows).expect("it writes");
    let mut setup = Setup { folder: folder.path(), ..setup(&recipe) };
    let wrong = ForwardCorrection::new(&mut setup).expect_err("it is not a matrix").to_string();
    assert!(wrong.contains("transition.csv, line 2: its numbers sum to 0.9, not to 1"), "{wrong}");
}

#[test]
fn early_learning_regularization_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    for (expected, shown) in plain_and_mixed("elr") {
        let changes = json!({
            "target-momentum": expected["beta"], "regularization": expected["lambda"],
        });
        let parameters = parameters("elr", &changes);
        let recipe = Recipe::of(&parameters);
        let mut method = Elr::new(&mut setup(&recipe)).expect("builds");
        follows(expected, "elr", shown, &mut method);
        // Predictions of single samples: PyTorch's own float32 leaves its float64 by 3e-4.
        assert_close(&some(method.targets()), &numbers(&expected["targets"]), 1e-3, "targets");
    }
}

#[test]
fn sparse_over_parameterization_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    for (expected, shown) in plain_and_mixed("sop") {
        let [rate_u, rate_v, consistency, balance] = &numbers(&expected["parameters"])[..] else {
            panic!("four parameters")
        };
        let changes = json!({
            "learning-rate-u": rate_u, "learning-rate-v": rate_v, "consistency": consistency,
            "balance": balance,
        });
        let parameters = parameters("sop", &changes);
        let recipe = Recipe::of(&parameters);
        let mut method = Sop::new(&mut setup(&recipe)).expect("builds");
        tch::no_grad(|| {
            let [u, v] = method.per_sample().map(Tensor::shallow_clone);
            let samples = BATCH * BATCHES;
            { u }.copy_(&fill(&[samples], 3000, 0.1, 0.8));
            let largest = if shown.mixed { 0.1 } else { 0.6 };
            { v }.copy_(&fill(&[samples, CLASSES], 3001, 0.05, largest));
        });
        let shown = Shown { two_views: *consistency > 0.0, ..shown };
        follows(expected, "sop", shown, &mut method);
        let [u, v] = method.per_sample();
        assert_close(&some(u), &numbers(&expected["u"]), 1e-4, "u");
        assert_close(&some(v), &numbers(&expected["v"]), 1e-4, "v");
    }
}

#[test]
fn a_truncated_loss_follows_pytorch() {
    let _alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = METHODS["truncated"].as_array().expect("a list");
    for (expected, shown) in expected.iter().zip([IMAGES, MIXED]) {
        let after = expected["after"].as_f64().expect("a number") as u32;
        let changes = json!({
            "loss": "generalized-cross-entropy", "q": expected["q"], "prune-after": after,
            "prune-below": expected["threshold"], "prune-every": 3,
        });
        let parameters = parameters("truncated-loss", &changes);
        let recipe = Recipe::of(&parameters);
        let mut method = TruncatedLoss::new(&mut setup(&recipe)).expect("builds");
        let decisions: Vec<u32> = (0..10).filter(|&epoch| method.measures(epoch)).collect();
        assert_eq!(decisions, (after..10).step_by(3).collect::<Vec<_>>());
        follows(expected, "truncated", shown, &mut method);
        assert_eq!(some(method.weights()), numbers(&expected["weights"]));

        let none = Tensor::zeros([BATCH * BATCHES], (Kind::Float, Device::Cpu));
        let error = method.begin_epoch(5, Some(&none)).expect_err("nothing is left").to_string();
        assert!(error.contains("epoch 6") && error.contains("smaller prune-below"), "{error}");
    }
}

#[test]
fn over_parameterization_begins_with_nothing() {
    let parameters = parameters("sop", &json!({}));
    let recipe = Recipe::of(&parameters);
    let method = Sop::new(&mut setup(&recipe)).expect("builds");
    let [u, v] = method.per_sample().map(flat);
    let deviation = |numbers: &[f64]| {
        let squares: f64 = numbers.iter().map(|number| number * number).sum();
        (squares / numbers.len() as f64).sqrt()
    };
    for numbers in [&u, &v] {
        assert!((0.8e-8..1.2e-8).contains(&deviation(numbers)), "{}", deviation(numbers));
    }
    let mut all = [u, v].concat();
    all.sort_by(f64::total_cmp);
    all.dedup();
    assert_eq!(all.len() as i64, BATCH * BATCHES * (1 + CLASSES), "no two are the same");
}
