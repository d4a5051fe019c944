//! What the trainer offers to every method: numbers of every sample, several views, other samples beside those that are
//! trained on; all of it restored when a training is resumed.

use std::cell::RefCell;
use std::rc::Rc;

use pipeline_learn::data::batches::{SampleSet, StepSamples};
use pipeline_learn::device;
use pipeline_learn::network::{Mode, State};
use pipeline_learn::training::batch::Batch;
use pipeline_learn::training::method::{Learner, Method, Setup, StepOutput};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::supervised_trainer::SupervisedTrainer;
use pipeline_learn::training::training_data::TrainingData;
use pipeline_learn::training::training_loop::StepPosition;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::message::Request;
use pipeline_stages::worker::{Context, Stopped};
use pipeline_stages::{KindConfig, LearnStage};
use tch::{Kind, Tensor};

use crate::fixture::{request, training, write_inputs};

/// Learns the mean prediction of every sample over its views, as ELR and its like do.
struct Averaging {
    learner: Learner,
    /// float [N,K].
    targets: Tensor,
    seen: Rc<RefCell<Seen>>,
}

/// What the method was given.
#[derive(Default)]
struct Seen {
    /// Steps whose two views are the same.
    same_views: usize,
    /// The samples of the other set, step by step.
    others: Vec<Vec<i64>>,
    /// The targets after the last step.
    targets: Vec<f32>,
}

fn numbers<T: tch::kind::Element>(tensor: &Tensor) -> Vec<T>
where
    Vec<T>: TryFrom<Tensor>,
    <Vec<T> as TryFrom<Tensor>>::Error: std::fmt::Debug,
{
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

impl Method for Averaging {
    fn model(&self) -> &State {
        self.learner.network.state()
    }

    fn logits(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        self.learner.network.forward(images, Mode::Evaluate)
    }

    fn select(&self, epoch: u32, usual: Vec<Vec<u32>>) -> anyhow::Result<Vec<StepSamples>> {
        let steps = usual.into_iter().map(|indices| StepSamples {
            others: vec![SampleSet { indices: vec![epoch, indices[0]], views: 1 }],
            train: SampleSet { indices, views: 2 },
        });
        Ok(steps.collect())
    }

    fn begin_step(&mut self, learning_rate: f64, at: StepPosition) {
        self.learner.optimizer.begin_step(learning_rate, at.step);
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
        let losses = -(targets * logits.log_softmax(1, Kind::Float)).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Float,
        );
        optimizer.backward(&losses.mean(Kind::Float))?;
        optimizer.step()?;
        seen.targets = numbers(&self.targets);
        Ok(StepOutput {
            losses: losses.detach(),
            logits: logits.detach(),
            weights: None,
            extra: Vec::new(),
        })
    }
}

/// Trains by the method, until it is stopped after this many reports. Returns what it was given if it was not stopped.
fn train(request: &Request, stop_after: Option<usize>) -> Option<Seen> {
    let KindConfig::Learn(LearnStage::Train(parameters)) = &request.stage else {
        panic!("not a training")
    };
    let context = match stop_after {
        Some(reports) => Context::for_test_that_stops(request.clone(), reports),
        None => Context::for_test(request.clone()),
    };
    let device = device::prepare(&context.execution, Precision::F32).unwrap();
    let recipe = Recipe::of(parameters);
    let data = TrainingData::read(&recipe, &context, device).unwrap();
    let seen = Rc::<RefCell<Seen>>::default();
    let method = |setup: &mut Setup<'_>| -> anyhow::Result<Box<dyn Method>> {
        let (learner, classes) = (setup.learner()?, setup.classes as i64);
        let targets = setup.per_sample("targets", &[classes])?;
        Ok(Box::new(Averaging { learner, targets, seen: Rc::clone(&seen) }))
    };
    let mut trainer = SupervisedTrainer::new(&recipe, &context, &data, method).unwrap();
    match trainer.run(parameters) {
        Ok(()) => Some(seen.take()),
        Err(error) if error.is::<Stopped>() => None,
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn a_method_has_views_other_samples_and_numbers_of_every_sample() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = training("crop-flip");
    let whole = train(&request(folder.path(), &stage, "whole"), None).unwrap();
    // 40 samples in batches of 9, three times.
    assert_eq!((whole.others.len(), whole.same_views), (15, 0));
    assert!(whole.others.iter().enumerate().all(|(step, samples)| samples[0] == step as i64 / 5));
    // The held-out samples have no targets.
    let (trained, held_out) = whole.targets.split_at(40 * 3);
    assert!(trained.iter().all(|target| *target > 0.0) && held_out.iter().all(|one| *one == 0.0));

    let request = request(folder.path(), &stage, "stopped");
    let resumed = (0..100).find_map(|_| train(&request, Some(2))).unwrap();
    assert!(resumed.others.len() < 15, "it was never stopped: nothing is tested");
    assert_eq!(resumed.targets, whole.targets);
    assert_eq!(resumed.others[..], whole.others[15 - resumed.others.len()..]);
}
