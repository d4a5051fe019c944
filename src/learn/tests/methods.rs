//! What the trainer offers to every method: several learners, numbers of every sample, several views, other samples beside
//! those that are trained on; all of it restored when a training is resumed.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use pipeline_learn::data::batches::{SampleSet, StepSamples};
use pipeline_learn::device;
use pipeline_learn::network::{Mode, NetworkState, mean_prediction};
use pipeline_learn::training::batch::{Batch, StepBatch};
use pipeline_learn::training::loss::SampleLoss;
use pipeline_learn::training::method::{Learner, Setup, StepOutput, TrainingMethod};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::supervised_trainer::SupervisedTrainer;
use pipeline_learn::training::training_data::TrainingData;
use pipeline_learn::training::training_loop::{BatchSource as _, RunLength, StepPosition};
use pipeline_stages::formats::{Evaluations, ImageShape, Part, weights_file, write_samples};
use pipeline_stages::kinds::Method;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::message::Request;
use pipeline_stages::worker::{Context, Stopped};
use pipeline_stages::{KindConfig, LearnStage};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::averaging::Averaging;
use crate::fixture::{
    SHAPE, learn_stage, meta_training, pretraining, request, stage, training, with_input,
    write_inputs,
};

/// Learns the labels and the mean prediction of every sample, as ELR and its like do. The model is the
/// network and its average over the steps.
struct EveryHook {
    learner: Learner,
    average: NetworkState,
    /// float [N,K].
    targets: Tensor,
    /// The share of the samples whose loss was below the mean when the epoch began: float [1].
    easy: Tensor,
    seen: Rc<RefCell<Seen>>,
}

/// What the method was given.
#[derive(Default)]
struct Seen {
    /// Steps whose two views are the same.
    same_views: usize,
    /// The samples of the other set, step by step.
    others: Vec<Vec<i64>>,
    /// The epochs that began, and what was measured before: how many samples, and the share.
    begun: Vec<(u32, i64, Vec<f32>)>,
    /// The targets of the method.
    targets: Option<Tensor>,
    /// Whether it was stopped.
    stopped: bool,
}

fn numbers<T: tch::kind::Element>(tensor: &Tensor) -> Vec<T>
where
    Vec<T>: TryFrom<Tensor>,
    <Vec<T> as TryFrom<Tensor>>::Error: std::fmt::Debug,
{
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

impl TrainingMethod for EveryHook {
    fn learners(&self) -> Vec<&Learner> {
        vec![&self.learner]
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        vec![&mut self.learner]
    }

    fn networks(&self) -> Vec<&NetworkState> {
        vec![self.learner.network.state(), &self.average]
    }

    fn logits(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let network = &self.learner.network;
        let states = self.networks().into_iter();
        let logits =
            states.map(|state| network.forward_with(state.values(), images, Mode::Evaluate));
        mean_prediction(&logits.collect::<anyhow::Result<Vec<_>>>()?)
    }

    fn measures(&self, epoch: u32) -> bool {
        epoch > 0
    }

    fn measure(&self, batch: &Batch) -> anyhow::Result<Tensor> {
        let logits = self.learner.network.forward(&batch.images, Mode::Evaluate)?;
        SampleLoss::CrossEntropy.of_samples(&logits, &batch.labels)
    }

    fn begin_epoch(&mut self, epoch: u32, measured: Option<&Tensor>) -> anyhow::Result<()> {
        let Some(losses) = measured else { return Ok(()) };
        let easy = losses.lt_tensor(&losses.mean(Kind::Float)).to_kind(Kind::Float);
        self.easy.copy_(&easy.mean_dim([0i64].as_slice(), true, Kind::Float));
        let share = numbers(&self.easy);
        self.seen.borrow_mut().begun.push((epoch, losses.size()[0], share));
        Ok(())
    }

    /// As many steps as there are easy samples for, so that an epoch that is asked for again must find the same share.
    fn select(&self, epoch: u32, usual: Vec<Vec<u32>>) -> anyhow::Result<Vec<StepSamples>> {
        let steps = match epoch {
            0 => usual.len(),
            _ => (numbers::<f32>(&self.easy)[0] * usual.len() as f32).ceil() as usize,
        };
        let steps = usual.into_iter().take(steps).map(|indices| StepSamples {
            others: vec![SampleSet::from(vec![epoch, indices[0]])],
            ..SampleSet::of_views(indices, 2).into()
        });
        Ok(steps.collect())
    }

    fn compute(&mut self, batch: &Batch, others: &[Batch]) -> anyhow::Result<StepOutput> {
        let Learner { network, optimizer } = &mut self.learner;
        let mut seen = self.seen.borrow_mut();
        let [other_view] = &batch.other_views[..] else { panic!("two views were asked for") };
        let [other] = others else { panic!("one other set was asked for") };
        seen.same_views += usize::from(batch.images == *other_view);
        seen.others.push(numbers(&other.samples));
        let logits = network.forward(&batch.images, Mode::Train)?;
        let now = logits.detach().softmax(1, Kind::Float);
        let old = self.targets.index_select(0, &batch.samples);
        let targets = old * 0.7 + now * 0.3;
        let _ = self.targets.index_copy_(0, &batch.samples, &targets);
        let towards = (targets * logits.log_softmax(1, Kind::Float)).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Float,
        );
        let losses = SampleLoss::CrossEntropy.of_samples(&logits, &batch.labels)? - towards;
        optimizer.backward(&losses.mean(Kind::Float))?;
        optimizer.step()?;
        let _no_gradients = tch::no_grad_guard();
        for (mean, now) in self.average.tensors().iter().zip(network.state().tensors()) {
            let step = (&now.tensor - &mean.tensor) * 0.5;
            let _ = mean.tensor.shallow_clone().f_add_(&step.to_kind(mean.tensor.kind()))?;
        }
        Ok(StepOutput {
            losses: losses.detach(),
            logits: logits.detach(),
            weights: None,
            extra: [].into(),
        })
    }
}

/// Two networks that learn side by side.
struct Pair([Learner; 2]);

impl TrainingMethod for Pair {
    fn learners(&self) -> Vec<&Learner> {
        self.0.iter().collect()
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        self.0.iter_mut().collect()
    }

    fn compute(&mut self, batch: &Batch, _others: &[Batch]) -> anyhow::Result<StepOutput> {
        let outputs = self.0.iter_mut().map(|Learner { network, optimizer }| {
            let logits = network.forward(&batch.images, Mode::Train)?;
            let losses = SampleLoss::CrossEntropy.of_samples(&logits, &batch.labels)?;
            optimizer.backward(&losses.mean(Kind::Float))?;
            optimizer.step()?;
            let (losses, logits) = (losses.detach(), logits.detach());
            Ok(StepOutput { losses, logits, weights: None, extra: [].into() })
        });
        Ok(outputs.collect::<anyhow::Result<Vec<_>>>()?.remove(0))
    }
}

/// Trains by a method, until it is stopped after this many reports. Returns whether it was.
fn train_by(
    request: &Request,
    stop_after: Option<usize>,
    method: impl FnOnce(&mut Setup<'_>) -> anyhow::Result<Box<dyn TrainingMethod>>,
) -> bool {
    let KindConfig::Learn(LearnStage::Train(parameters)) = &request.stage else {
        panic!("not a training")
    };
    let context = match stop_after {
        Some(reports) => Context::for_test_that_stops(request.clone(), reports),
        None => Context::for_test(request.clone()),
    };
    let device = device::prepare(&context.execution, Precision::F32).unwrap();
    let recipe = Recipe::of(parameters);
    let data = TrainingData::read(parameters, "init", &context, device).unwrap();
    let mut trainer = SupervisedTrainer::new(&recipe, &context, &data, method).unwrap();
    match trainer.run(parameters) {
        Ok(()) => {
            trainer.write_model(parameters).unwrap();
            trainer.write_curves().unwrap();
            false
        }
        Err(error) if error.is::<Stopped>() => true,
        Err(error) => panic!("{error:#}"),
    }
}

/// Trains by [`EveryHook`], as [`train_by`]. Returns what it was given.
fn train(request: &Request, stop_after: Option<usize>) -> Seen {
    let seen = Rc::<RefCell<Seen>>::default();
    let stopped = train_by(request, stop_after, |setup| {
        let learner = setup.learner()?;
        let average = setup.copy_of("average", learner.network.state())?;
        let targets = setup.per_sample("targets", &[setup.classes as i64])?;
        let easy = setup.tensor("easy", &[1], Kind::Float)?;
        seen.borrow_mut().targets = Some(targets.shallow_clone());
        Ok(Box::new(EveryHook { learner, average, targets, easy, seen: Rc::clone(&seen) }))
    });
    Seen { stopped, ..seen.take() }
}

/// What the networks of a model are, as files.
fn networks(model: &Path) -> [Vec<u8>; 2] {
    ["weights.safetensors", "weights-2.safetensors"]
        .map(|name| std::fs::read(model.join(name)).unwrap())
}

#[test]
fn a_method_has_views_other_samples_and_numbers_of_every_sample() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = training("crop-flip");
    let whole = train(&request(folder.path(), &stage, "whole"), None);
    // 40 samples in batches of 9: five steps in the first epoch, as many as there are easy samples for in the others.
    let shares: Vec<f32> = whole.begun.iter().map(|(_, _, share)| share[0]).collect();
    let steps: Vec<usize> =
        [1.0].iter().chain(&shares).map(|share| (share * 5.0f32).ceil() as usize).collect();
    assert_eq!(whole.begun.iter().map(|(epoch, ..)| *epoch).collect::<Vec<_>>(), [1, 2]);
    assert!(whole.begun.iter().all(|(_, count, _)| *count == 40));
    assert!(steps[1] > 1 && steps[1] < 5, "{steps:?}: an epoch is not shorter");
    let epochs: Vec<i64> = whole.others.iter().map(|samples| samples[0]).collect();
    let expected = (0..3).flat_map(|epoch| vec![epoch as i64; steps[epoch]]);
    assert_eq!(epochs, expected.collect::<Vec<_>>());
    assert_eq!(whole.same_views, 0);
    // An epoch takes as much time as usual.
    let evaluations = Evaluations::read(&folder.path().join("whole")).unwrap().0;
    assert_eq!(evaluations.iter().map(|row| row.steps).collect::<Vec<_>>(), [5, 10, 15]);
    // The held-out samples have no targets.
    let targets = numbers::<f32>(whole.targets.as_ref().unwrap());
    assert!(targets[40 * 3..].iter().all(|target| *target == 0.0));

    let request = request(folder.path(), &stage, "stopped");
    let (mut others, mut processes) = (Vec::new(), 0);
    let last = loop {
        let seen = train(&request, Some(1));
        processes += 1;
        others.extend(seen.others.iter().cloned());
        if !seen.stopped {
            break seen;
        }
        assert!(processes < 100, "it never ends");
    };
    assert!(processes > 5, "it was not stopped often: nothing is tested");
    assert_eq!(others, whole.others);
    assert_eq!(numbers::<f32>(&last.targets.unwrap()), targets);
    let [one, other] = ["whole", "stopped"].map(|output| {
        let file = folder.path().join(output).join("weights.safetensors");
        std::fs::read(file).unwrap()
    });
    assert!(one == other, "the weights differ");
}

#[test]
fn two_learners_differ_and_go_on_as_if_they_were_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let pretrain = request(folder.path(), &pretraining("adam"), "encoder");
    pipeline_learn::run(learn_stage(&pretrain), &Context::for_test(pretrain.clone())).unwrap();
    // The encoders that they start from are equal, and the batches that they see are too.
    let run = |output: &str, stop_after| {
        let request = request(folder.path(), &training("none"), output);
        let request = with_input(request, "init", &folder.path().join("encoder"));
        train_by(&request, stop_after, |setup| {
            Ok(Box::new(Pair([setup.learner()?, setup.learner()?])))
        })
    };
    assert!(!run("whole", None));
    let [first, second] = networks(&folder.path().join("whole"));
    assert!(first != second, "the networks are equal");
    let mut stops = 0;
    while run("stopped", Some(4)) {
        stops += 1;
        assert!(stops < 100, "it never ends");
    }
    assert!(stops > 1, "it was not stopped: nothing is tested");
    assert!(networks(&folder.path().join("stopped")) == [first, second], "the weights differ");
}

#[test]
fn the_sample_of_the_documentation_learns_and_goes_on_as_if_it_was_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let run = |output: &str, mixup: f64, stop_after| {
        // Its own name is not in the contract: it has the parameters of ELR.
        let stage = meta_training(&json!({"method": "elr", "mixup": mixup, "epochs": 6}));
        let request = request(folder.path(), &stage, output);
        train_by(&request, stop_after, |setup| Ok(Box::new(Averaging::new(setup)?)))
    };
    let [whole, mixed, stopped] =
        ["whole", "mixed", "stopped"].map(|name| folder.path().join(name));
    let weights = |model: &Path| std::fs::read(model.join(weights_file(0))).unwrap();
    assert!(!run("whole", 0.0, None));
    let mut stops = 0;
    while run("stopped", 0.0, Some(1)) {
        stops += 1;
        assert!(stops < 100, "it never ends");
    }
    assert!(stops > 1, "it was not stopped: nothing is tested");
    assert!(weights(&whole) == weights(&stopped), "the weights differ");
    assert!(!run("mixed", 0.5, None));
    assert!(weights(&whole) != weights(&mixed), "it ignores mixup");

    for model in [whole, mixed] {
        let curves = std::fs::read_to_string(model.join("curves.csv")).unwrap();
        let mut lines = curves.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let loss = lines.next().unwrap().iter().position(|name| *name == "train-loss").unwrap();
        let losses: Vec<f64> = lines.map(|row| row[loss].parse().unwrap()).collect();
        assert!(losses.len() == 6 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        assert!(losses[5] < losses[0], "it does not learn: {losses:?}");
    }
}

/// The pixels of every image of a batch.
fn rows(images: &Tensor) -> Vec<Vec<f32>> {
    (0..images.size()[0]).map(|row| numbers(&images.get(row))).collect()
}

#[test]
fn a_sample_looks_different_in_every_step_set_and_view() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let request = request(folder.path(), &training("crop-flip"), "model");
    let KindConfig::Learn(LearnStage::Train(parameters)) = &request.stage else {
        panic!("not a training")
    };
    let context = Context::for_test(request.clone());
    let data = TrainingData::read(parameters, "init", &context, tch::Device::Cpu).unwrap();
    let length = RunLength { steps: 10, steps_per_epoch: data.steps_per_epoch() };
    assert_eq!(length.steps_per_epoch, 5);
    let views = |epoch, step_of_epoch, steps_of_epoch, steps_before, come_again| {
        let at = StepPosition { steps_before, epoch, step_of_epoch, steps_of_epoch, length };
        let set = SampleSet::of_views((0..9).collect(), 2);
        let others = vec![set.clone(), set.clone()];
        let samples = StepSamples { train: set, come_again, others };
        let StepBatch { train, others } = data.prepare(at, samples).unwrap();
        let batches = std::iter::once(train).chain(others);
        let views = batches.map(|batch| [rows(&batch.images), rows(&batch.other_views[0])]);
        views.flatten().collect::<Vec<Vec<Vec<f32>>>>()
    };
    // The seventh and the eighth step of an epoch that has twice the usual number, and four of the next epoch.
    let steps = [
        views(0, 7, 10, 7, false),
        views(0, 8, 10, 8, false),
        views(1, 2, 5, 12, false),
        views(1, 3, 5, 13, false),
        views(1, 0, 5, 10, true),
        views(1, 4, 5, 14, true),
    ];
    let all: Vec<&Vec<Vec<f32>>> = steps
        .iter()
        .enumerate()
        .flat_map(|(step, views)| {
            // Those that are trained on have one look an epoch where they are to come once.
            views.iter().skip(if step == 3 { 2 } else { 0 })
        })
        .collect();
    for (place, one) in all.iter().enumerate() {
        for other in &all[..place] {
            // Images of 8x8 pixels have 162 places and mirror images: a few may be alike by chance.
            let same = one.iter().zip(*other).filter(|(one, other)| one == other).count();
            assert!(same < 3, "{same} of 9 samples look the same");
        }
    }
}

#[test]
fn a_test_set_that_is_not_evaluated_may_have_images_of_another_shape() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let shape = ImageShape { height: 5, ..SHAPE };
    let pixels = vec![0; 2 * shape.bytes()];
    write_samples(&folder.path().join("data"), Part::Test, shape, &pixels, &[0, 1]).unwrap();
    let run = |output: &str, track_test: bool| {
        let changes = json!({"method": "finetune", "track-test": track_test});
        let request = request(folder.path(), &meta_training(&changes), output);
        pipeline_learn::run(learn_stage(&request), &Context::for_test(request.clone()))
    };
    let error = run("tracked", true).unwrap_err().to_string();
    assert!(error.contains("those of this data set have 5x8"), "{error}");
    run("not-tracked", false).unwrap();
}

#[test]
fn a_model_of_two_networks_is_the_mean_of_both() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let training = request(folder.path(), &training("none"), "model");
    assert!(!train(&training, None).stopped);
    let on_the_way = Evaluations::read(&training.output).unwrap().0.pop().unwrap();
    // Half of the samples of the test set at a time.
    let evaluate = stage(json!({"kind": "evaluate", "parameters": {"batch-size": 24}}));
    let request = with_input(
        request(folder.path(), &evaluate, "metrics"),
        "model",
        &folder.path().join("model"),
    );
    let metrics = pipeline_learn::run(learn_stage(&request), &Context::for_test(request.clone()));
    let metrics = metrics.unwrap();
    assert_eq!(Some(metrics["test-accuracy"]), on_the_way.test_accuracy);

    let [first, second] = networks(&training.output);
    assert!(first != second, "the networks are equal");
    std::fs::write(training.output.join("weights-2.safetensors"), first).unwrap();
    let context = Context::for_test(request.clone());
    let same_twice = pipeline_learn::run(learn_stage(&request), &context).unwrap();
    assert_ne!(same_twice["test-loss"], metrics["test-loss"]);
}

#[test]
fn every_method_learns_something_else_from_mixed_images() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    for &method in Method::ALL {
        let weights = |mixup: Option<f64>, output: &str| {
            // DivideMix mixes images after its first epochs.
            let mut changes = json!({"method": method, "warmup-epochs": 1, "estimation-epochs": 1});
            if let Some(mixup) = mixup {
                changes["mixup"] = json!(mixup);
            }
            let stage = meta_training(&changes);
            let request = request(folder.path(), &stage, &format!("{method:?}-{output}"));
            let context = Context::for_test(request.clone());
            pipeline_learn::run(learn_stage(&request), &context).unwrap();
            std::fs::read(request.output.join(weights_file(0))).unwrap()
        };
        // Those that mix as their papers do have other shares without it.
        let (without, with) = (weights(None, "without"), weights(Some(0.5), "with"));
        assert!(without != with, "{method:?} ignores mixup");
        let unmixed = weights(Some(0.0), "unmixed");
        assert_eq!(unmixed == without, method.mixup(None).is_none(), "{method:?}");
        assert!(unmixed != with, "{method:?} mixes");
    }
}
