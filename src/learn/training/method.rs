//! What a method of training is, and what it is made from.
//!
//! A method owns its learners (a network and what moves it) and what it keeps of every sample. [`Setup`] makes these,
//! and what it makes is in the checkpoints: tensors that a method makes elsewhere and needs in a later step are not. The trainer
//! owns time: epochs, schedule, checkpoints, evaluations, curves.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use pipeline_stages::formats::{ModelInfo, WEIGHTS_FILE};
use tch::{Device, Kind, Tensor};

use super::batch::Batch;
use super::epoch_sums::Sums;
use super::optimizer::{NetworkOptimizer, Rule};
use super::recipe::Recipe;
use super::state_tensors::StateTensors;
use super::training_loop::StepPosition;
use crate::data::batches::StepSamples;
use crate::network::{Classifier, Mode, NetworkState, mean_prediction, weights};

/// A method of training a classifier: what it learns with, and what happens in one step.
pub trait TrainingMethod {
    /// What it learns with, one or more.
    fn learners(&self) -> Vec<&Learner>;

    /// The same, in the same order.
    fn learners_mut(&mut self) -> Vec<&mut Learner>;

    /// The networks that become the model: those of the learners. What starts from the model takes the first.
    fn networks(&self) -> Vec<&NetworkState> {
        self.learners().into_iter().map(|learner| learner.network.state()).collect()
    }

    /// The logits that are evaluated: images float \[B,C,H,W\] -> float \[B,K\], in evaluation mode. Of several networks
    /// those of their mean prediction, as `evaluate` has them.
    ///
    /// # Errors
    /// When libtorch fails.
    fn logits(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let learners = self.learners().into_iter();
        let logits = learners.map(|one| one.network.forward(images, Mode::Evaluate));
        mean_prediction(&logits.collect::<anyhow::Result<Vec<_>>>()?)
    }

    /// Whether the method wants to [`measure`](TrainingMethod::measure) all samples that train before an epoch, counted from 0.
    fn measures(&self, _epoch: u32) -> bool {
        false
    }

    /// What it measures of some samples, images not augmented, without gradients: float \[B, ...\].
    ///
    /// # Errors
    /// When libtorch fails.
    fn measure(&self, _batch: &Batch) -> anyhow::Result<Tensor> {
        bail!("this method does not measure samples before an epoch")
    }

    /// Before an epoch, counted from 0; once for each, also in a training that is interrupted. `measured` has a row for each
    /// sample that trains, in the order of [`Setup::train`], where the method wanted to measure.
    ///
    /// # Errors
    /// When libtorch fails.
    fn begin_epoch(&mut self, _epoch: u32, _measured: Option<&Tensor>) -> anyhow::Result<()> {
        Ok(())
    }

    /// Which samples the steps of an epoch use, after it began. `usual` has the batches of the training samples: each sample
    /// once, or as the stage asks for. There may be more or fewer steps: time passes as fast as usual
    /// ([`StepPosition::time`]). Depends on nothing but the seed, the epoch and what [`Setup`] made: a resumed epoch
    /// asks again.
    ///
    /// # Errors
    /// When it finds no samples.
    fn select(&self, _epoch: u32, usual: Vec<Vec<u32>>) -> anyhow::Result<Vec<StepSamples>> {
        Ok(usual.into_iter().map(StepSamples::from).collect())
    }

    /// Sets what the step depends on beside its samples: the learning rate of the learners, and what else the method has. Waits for
    /// nothing.
    ///
    /// # Errors
    /// When libtorch fails.
    fn begin_step(&mut self, learning_rate: f64, at: StepPosition) -> anyhow::Result<()> {
        let mut learners = self.learners_mut().into_iter();
        learners.try_for_each(|one| one.optimizer.begin_step(learning_rate, at.steps_before))
    }

    /// Whether the rest of the step that has begun may be a replay: all that [`TrainingMethod::compute`] did for other batches of the
    /// same shapes, done again on these. So it has to be the same operations on the same tensors in each step for which this
    /// is true, and wait for nothing. What differs between steps and epochs is in tensors that [`TrainingMethod::begin_epoch`] and
    /// [`TrainingMethod::begin_step`] change in place (`fill_`, `copy_`): numbers of the host would stay what they were. The counters
    /// that batch norm has on the host are taken care of.
    fn is_replayable(&self) -> bool {
        false
    }

    /// The rest of the step: forward, loss, backward, move. `others` are the batches that [`TrainingMethod::select`] added.
    ///
    /// # Errors
    /// When libtorch fails.
    fn compute(&mut self, batch: &Batch, others: &[Batch]) -> anyhow::Result<StepOutput>;

    /// Whether its steps have a weight for every sample.
    fn has_weights(&self) -> bool {
        false
    }

    /// The names of the sums that it adds to every epoch.
    fn sums(&self) -> &'static [&'static str] {
        &[]
    }

    /// The names of the columns that it adds to the curves.
    fn columns(&self) -> &'static [&'static str] {
        self.sums()
    }

    /// The numbers in these columns, from the sums of an epoch. NaN where one is not known.
    fn row(&self, sums: &Sums) -> Vec<f64> {
        self.columns().iter().map(|name| sums.mean(name, "samples")).collect()
    }

    /// Writes files of its own into the artifact.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write(&self, _folder: &Path) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What a step adds to the curves. Nothing of it holds a graph.
pub struct StepOutput {
    /// The loss of every sample, float \[B\].
    pub losses: Tensor,
    /// float \[B,K\].
    pub logits: Tensor,
    /// The weight of every sample, float \[B\] from 0 to 1, where the method has weights.
    pub weights: Option<Tensor>,
    /// A scalar for each of [`TrainingMethod::sums`].
    pub extra: BTreeMap<&'static str, Tensor>,
}

/// What a method is made from. All that it makes here is in the checkpoints.
pub struct Setup<'a> {
    /// What is trained and how.
    pub recipe: &'a Recipe,
    /// What relative paths in parameters are relative to.
    pub folder: &'a Path,
    /// The artifact of the initial encoder.
    pub init: Option<&'a Path>,
    /// The channels of the images.
    pub channels: usize,
    /// How many classes there are.
    pub classes: usize,
    /// How many samples the training part of the data set has, whether or not they train.
    pub samples: usize,
    /// The samples that train.
    pub train: &'a [u32],
    /// The samples that are held out.
    pub validation: &'a [u32],
    /// The labels to train on, of every sample of the training part.
    pub labels: &'a [i64],
    /// The data set's own labels of the same samples.
    pub clean_labels: &'a [i64],
    /// Names all random draws.
    pub seed: u64,
    /// Where tensors go.
    pub device: Device,
    /// What was made so far; only what is below adds to it.
    pub state: StateTensors,
    /// How many learners that has.
    pub learners: u32,
    /// What people should know before the first step.
    pub notes: Vec<String>,
}

impl<'a> Setup<'a> {
    /// Before anything is made, without samples.
    pub fn new(
        recipe: &'a Recipe,
        channels: usize,
        classes: usize,
        seed: u64,
        device: Device,
    ) -> Self {
        Self {
            recipe,
            folder: Path::new(""),
            init: None,
            channels,
            classes,
            samples: 0,
            train: &[],
            validation: &[],
            labels: &[],
            clean_labels: &[],
            seed,
            device,
            state: StateTensors::default(),
            learners: 0,
            notes: Vec::new(),
        }
    }

    /// A classifier at its beginning, from the initial encoder where there is one, and its optimizer. Each has initial
    /// values of its own, those of [`Classifier::numbered`]: two that start from the same encoder differ in their last layers.
    ///
    /// # Errors
    /// When the initial weights do not fit, or libtorch cannot make the tensors.
    pub fn learner(&mut self) -> anyhow::Result<Learner> {
        let (Recipe { parameters, decays, .. }, number) = (self.recipe, self.learners);
        let network = Classifier::numbered(
            number,
            parameters.architecture,
            self.channels,
            self.classes,
            self.seed,
            self.device,
        )?
        .with_precision(parameters.precision);
        if let Some(init) = self.init {
            let initial = weights::architecture(&ModelInfo::read(init)?)?;
            if let Some(problem) = parameters.architecture.problem_with(initial) {
                bail!(problem);
            }
            let encoder = network.state().tensors().iter();
            let encoder = encoder.filter(|named| !Classifier::in_head(&named.name));
            weights::read_into(&init.join(WEIGHTS_FILE), encoder, Classifier::in_head)
                .context("the initial weights do not fit")?;
        }
        let (rule, decay) = (Rule::of(parameters), parameters.weight_decay);
        let optimizer = NetworkOptimizer::new(rule, decay, network.state(), *decays)?
            .with_precision(parameters.precision)?;
        self.state.add_learner(&before_names(number as usize), network.state(), &optimizer)?;
        self.learners += 1;
        Ok(Learner { network, optimizer })
    }

    /// An optimizer of all trained tensors of a state, as [`NetworkOptimizer::new`] makes it.
    ///
    /// # Errors
    /// When libtorch cannot make its tensors, or the state is in the checkpoints already.
    pub fn optimizer(
        &mut self,
        rule: Rule,
        weight_decay: f64,
        state: &NetworkState,
        decays: fn(&str) -> bool,
    ) -> anyhow::Result<NetworkOptimizer> {
        let optimizer = NetworkOptimizer::new(rule, weight_decay, state, decays)?;
        self.state.add_learner("", state, &optimizer)?;
        Ok(optimizer)
    }

    /// A copy of a network's state that goes its own way, as an average over the steps does. The network computes with it by
    /// [`Classifier::forward_with`]. `name` is that of the copy in the checkpoints.
    ///
    /// # Errors
    /// When libtorch cannot copy the tensors, or there is a copy of this name.
    pub fn copy_of(&mut self, name: &str, state: &NetworkState) -> anyhow::Result<NetworkState> {
        let copy = state.copy()?;
        self.state.add_state(&format!("copy.{name}."), &copy)?;
        Ok(copy)
    }

    /// Numbers of every sample, zero at the beginning: float \[N, ...\], a row for each sample of the training part. A
    /// method finds the rows of a batch by [`Batch::samples`], and changes them in place. A batch can have a sample twice
    /// (`sampling = "class-balanced"`): which of two values a row takes is then not defined on a GPU.
    ///
    /// # Errors
    /// As [`Setup::tensor`].
    pub fn per_sample(&mut self, name: &str, shape: &[i64]) -> anyhow::Result<Tensor> {
        let shape = [&[i64::try_from(self.samples)?], shape].concat();
        self.zeros(format!("per-sample.{name}"), &shape, Kind::Float)
    }

    /// Any other numbers that a later step or epoch needs, zero at the beginning, to be changed in place.
    ///
    /// # Errors
    /// When libtorch cannot make the tensor, or there is one of this name.
    pub fn tensor(&mut self, name: &str, shape: &[i64], kind: Kind) -> anyhow::Result<Tensor> {
        self.zeros(format!("tensor.{name}"), shape, kind)
    }

    fn zeros(&mut self, name: String, shape: &[i64], kind: Kind) -> anyhow::Result<Tensor> {
        let tensor = Tensor::f_zeros(shape, (kind, self.device))?;
        self.state.add(name, &tensor)?;
        Ok(tensor)
    }
}

/// What is before the names of the tensors of a network in a checkpoint; networks count from 0.
pub fn before_names(network: usize) -> String {
    if network == 0 { String::new() } else { format!("network-{}.", network + 1) }
}

/// A classifier and what moves its weights.
#[derive(Debug)]
pub struct Learner {
    /// The classifier.
    pub network: Classifier,
    /// What moves it.
    pub optimizer: NetworkOptimizer,
}

impl Learner {
    /// The pass of a step: images, float \[B,C,H,W\] -> logits, float \[B,K\], in training mode. In bf16 it takes fewer operations than
    /// [`Classifier::forward`], with the same results; where a step has several such passes, their gradients are added in bf16. The next
    /// one of this learner comes after the backward pass of this one and its step: it takes its place in memory.
    ///
    /// # Errors
    /// When the images have another number of channels.
    pub fn forward(&self, images: &Tensor) -> anyhow::Result<Tensor> {
        let values = self.optimizer.values(self.network.state())?;
        self.network.forward_with(values, images, Mode::Train)
    }

    /// The logits of a batch's first view not mixed, where the step mixes it: without gradients, float \[B,K\]. Of a pass beside that of the step, by
    /// the statistics of the batch, which moves nothing.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn unmixed(&self, batch: &Batch) -> anyhow::Result<Option<Tensor>> {
        let pass = || self.network.forward(&batch.images, Mode::LookAhead);
        batch.mixing.as_ref().map(|_| tch::no_grad(pass)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::kinds::Train;

    use super::*;

    fn weights(network: &NetworkState) -> Vec<f32> {
        let first = network.tensors().first().unwrap();
        Vec::try_from(first.tensor.detach().contiguous().flatten(0, -1)).unwrap()
    }

    #[test]
    fn learners_begin_apart_and_all_that_was_made_is_in_checkpoints_under_names_of_its_own() {
        let parameters: Train =
            serde_json::from_value(serde_json::json!({"architecture": "resnet8"})).unwrap();
        let recipe = Recipe::of(&parameters);
        let mut setup = Setup { samples: 4, ..Setup::new(&recipe, 3, 2, 7, Device::Cpu) };
        let (first, second) = (setup.learner().unwrap(), setup.learner().unwrap());
        let average = setup.copy_of("average", first.network.state()).unwrap();
        let targets = setup.per_sample("targets", &[2]).unwrap();
        let threshold = setup.tensor("threshold", &[], Kind::Double).unwrap();
        let alone = Classifier::new(parameters.architecture, 3, 2, 7, Device::Cpu).unwrap();
        let [one, other, copy] =
            [first.network.state(), second.network.state(), &average].map(weights);
        assert_eq!(one, weights(alone.state()));
        assert_eq!(one, copy);
        assert_ne!(one, other);
        assert_eq!(targets.size(), [4, 2]);
        assert_eq!((threshold.size(), threshold.kind()), (vec![], Kind::Double));

        let tensors = setup.state.list();
        let names: std::collections::BTreeSet<&str> =
            tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), tensors.len());
        for name in [
            "fc.bias",
            "optimizer.momentum.fc.bias",
            "network-2.fc.bias",
            "network-2.optimizer.momentum.fc.bias",
            "copy.average.fc.bias",
            "per-sample.targets",
            "tensor.threshold",
        ] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
    }

    #[test]
    fn nothing_in_the_checkpoints_has_the_name_of_another() {
        let parameters: Train =
            serde_json::from_value(serde_json::json!({"architecture": "resnet8"})).unwrap();
        let recipe = Recipe::of(&parameters);
        let mut setup = Setup { samples: 4, ..Setup::new(&recipe, 3, 2, 7, Device::Cpu) };
        let learner = setup.learner().unwrap();
        let state = learner.network.state();
        // Names of one maker are not those of another one.
        for name in ["u", "optimizer", "kept", "network-2"] {
            let _ = setup.per_sample(name, &[]).unwrap();
            let _ = setup.tensor(name, &[1], Kind::Int64).unwrap();
            let _ = setup.copy_of(name, state).unwrap();
        }
        for again in [
            setup.per_sample("u", &[2]).err(),
            setup.tensor("u", &[1], Kind::Float).err(),
            setup.copy_of("u", state).err(),
            setup.optimizer(Rule::ADAM, 0.0, state, |_| true).err(),
        ] {
            let error = again.expect("the name is taken").to_string();
            assert!(error.contains("two tensors called"), "{error}");
        }
    }
}
