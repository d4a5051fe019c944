//! DivideMix (Li et al., "DivideMix: learning with noisy labels as semi-supervised learning", ICLR 2020, algorithm 1): two
//! networks; each finds out for the other one which labels are right, and what has a wrong one is learned from without it. From
//! an encoder of SimCLR it is C2D (Zheltonozhskii et al., "Contrast to divide", WACV 2022).
//!
//! At first both networks learn from all samples, with the penalty c on confidence: l_i is the cross-entropy, H the entropy.
//!
//! ```text
//! theta = optimizer step on mean_i (l_i - c H(p_i))
//! ```
//!
//! Before each later epoch, w_i of a network is the probability that l_i, scaled to 0 to 1 over all samples, comes from the
//! lower one of two normal distributions (`mixture`). Those with w_i > tau by the *other* network are labelled, all others are
//! not (`division`). With two views each of a batch of both, p the prediction of the network and p' that of the other one:
//!
//! ```text
//! t_i   = sharp(w_i y_i + (1 - w_i) mean of p of both views)        labelled
//! t_i   = sharp(mean of p and p' of both views)                     not labelled
//! x, t  = MixUp of all views with all views, by lambda from Beta(alpha, alpha)
//! theta = optimizer step on mean_labelled -<t, ln p>  +  lambda_u mean_others |p - t|^2 / K  +  b sum_k 1/K ln(1 / (K mean p_k))
//! ```
//!
//! sharp(q) is q^(1/T), scaled to sum to 1. With `mixup = 0`, nothing is mixed. lambda_u rises linearly from 0 after the first epochs.
//!
//! As in the authors' code, p is of passes in training mode, which move the running statistics, and p' is not. Unlike in the paper,
//! the networks learn in turn step by step, not epoch by epoch, and so both take as many steps as the one with more labelled samples
//! needs; and both see the same batches at first, which have as many samples as later ones, not twice as many. What is evaluated
//! is the mean prediction, where the authors' code adds logits. As in that code for 90 % noise, l_i can be the mean of the scaled losses of the
//! last epochs (`loss-epochs`); those of the first epochs, in which nothing is divided, are not among them.
//!
//! Measured, as in docs/results.md: 20 epochs of `resnet8-fast` on 4,500 images of Fashion-MNIST, three seeds, ± half of a 95 % interval.
//! Test accuracy at 80 % symmetric noise (lambda_u = 25, divided after 5 epochs): 75.1 ± 1.6 % from scratch and 75.8 ± 4.3 from
//! SimCLR, where cross-entropy has 57.1 ± 2.5 and 74.4 ± 6.5; at 90 % 55.0 ± 17.9 and 61.8 ± 12.8, cross-entropy 36.8 ± 11.2 and 59.4 ± 6.7;
//! at 50 % 79.5 ± 0.9 and 79.6 ± 1.1, cross-entropy 77.2 ± 1.9 and 81.0 ± 4.1. At 80 % with ten other seeds: 75.3 ± 1.0 and 75.7 ± 0.7,
//! cross-entropy 62.7 ± 1.3 and 74.5 ± 1.2.

pub mod division;
pub mod mixture;

use anyhow::{bail, ensure};
use tch::{Device, Kind, Tensor};

use self::division::{Division, Steps};
use crate::data::augment::batched::upload;
use crate::data::batches::StepSamples;
use crate::network::{Classifier, Mode, mean_prediction};
use crate::training::batch::Batch;
use crate::training::epoch_sums::Sums;
use crate::training::loss::{SampleLoss, row_sums};
use crate::training::method::{Learner, Setup, StepOutput, TrainingMethod};
use crate::training::training_loop::StepPosition;

/// The method.
#[derive(Debug)]
pub struct DivideMix {
    learners: [Learner; 2],
    /// w, float [N,2]: by the losses of each network.
    clean: Tensor,
    /// l of the last epochs, float [N,2,E], where E is above 1: of an epoch in the place of the one E epochs before it.
    history: Option<Tensor>,
    /// The share of the samples that each network learns from with their labels, float [2].
    labelled: Tensor,
    /// The samples that train.
    train: Vec<u32>,
    batch_size: usize,
    seed: u64,
    warmup_epochs: u32,
    /// c.
    confidence_penalty: f64,
    /// tau.
    clean_above: f64,
    /// T.
    temperature: f64,
    /// alpha; without it no image is mixed.
    mixup: Option<f64>,
    /// lambda_u in the end.
    unlabelled_weight: f64,
    /// Epochs in which it rises.
    ramp_up_epochs: f64,
    /// Whether the samples are divided in the next step.
    is_divided: bool,
    /// lambda_u of the next step, a scalar.
    unlabelled_weight_now: Tensor,
    /// b.
    class_balance: f64,
}

impl DivideMix {
    /// The method at its beginning.
    ///
    /// # Errors
    /// As [`Setup::learner`], and when there are too few samples to divide.
    pub fn new(setup: &mut Setup<'_>) -> anyhow::Result<Self> {
        let parameters = &setup.recipe.parameters;
        ensure!(
            setup.train.len() >= 4,
            "{} samples train, too few to divide: DivideMix needs 4 or more",
            setup.train.len()
        );
        let scalar = (Kind::Float, setup.device);
        let loss_epochs = i64::from(parameters.loss_epochs);
        let history = (loss_epochs > 1).then(|| setup.per_sample("history", &[2, loss_epochs]));
        Ok(Self {
            learners: [setup.learner()?, setup.learner()?],
            clean: setup.per_sample("clean", &[2])?,
            history: history.transpose()?,
            labelled: setup.tensor("labelled", &[2], Kind::Float)?,
            train: setup.train.to_vec(),
            batch_size: usize::try_from(parameters.batch_size)?,
            seed: setup.seed,
            warmup_epochs: parameters.warmup_epochs,
            confidence_penalty: parameters.confidence_penalty,
            clean_above: parameters.clean_above,
            temperature: parameters.sharpening_temperature,
            mixup: parameters.method.mixup(parameters.mixup),
            unlabelled_weight: parameters.unlabelled_weight,
            ramp_up_epochs: f64::from(parameters.ramp_up_epochs),
            is_divided: false,
            unlabelled_weight_now: Tensor::f_zeros([0i64; 0].as_slice(), scalar)?,
            class_balance: parameters.class_balance,
        })
    }

    /// w, float [N,2].
    pub fn clean(&self) -> &Tensor {
        &self.clean
    }

    /// The l of the samples that train by a network before an epoch, from those of this epoch alone.
    fn averaged(&self, losses: Vec<f64>, network: i64, epoch: u32) -> anyhow::Result<Vec<f64>> {
        let Some(history) = &self.history else { return Ok(losses) };
        let (_, _, size) = history.size3()?;
        let divided_before = i64::from(epoch - self.warmup_epochs);
        let of_network = history.f_select(1, network)?;
        let train = self.train_indices()?;
        let losses = Tensor::f_from_slice(&losses)?.f_to_kind(Kind::Float)?;
        let _ = of_network.f_select(1, divided_before % size)?.f_index_copy_(
            0,
            &train,
            &losses.f_to_device(train.device())?,
        )?;
        let kept = of_network.f_index_select(0, &train)?;
        let sums = kept.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
        let means = sums.f_div_scalar(size.min(divided_before + 1))?;
        Ok(Vec::try_from(means.f_to_device(Device::Cpu)?)?)
    }

    /// Where the samples that train are among all, int64.
    fn train_indices(&self) -> anyhow::Result<Tensor> {
        let train: Vec<i64> = self.train.iter().map(|&sample| i64::from(sample)).collect();
        upload(&train, self.clean.device())
    }

    /// What each network learns from: by the w of the other one.
    fn divisions(&self) -> anyhow::Result<[Division; 2]> {
        let clean = self.clean.f_to_device(Device::Cpu)?;
        let division = |of: i64| -> anyhow::Result<Division> {
            let clean = Vec::<f64>::try_from(clean.f_select(1, of)?.f_to_kind(Kind::Double)?)?;
            let probability = |sample: u32| clean.get(sample as usize).copied().unwrap_or(0.0);
            let samples = self.train.iter().map(|&sample| (sample, probability(sample)));
            Ok(Division::new(&samples.collect::<Vec<_>>(), self.clean_above))
        };
        Ok([division(1)?, division(0)?])
    }

    /// A step of both networks on all samples of a batch.
    fn warm_up(&mut self, batch: &Batch) -> anyhow::Result<StepOutput> {
        let (mut losses, mut logits) = (Vec::new(), Vec::new());
        for learner in &mut self.learners {
            let of_one = learner.forward(&batch.images)?;
            let log_softmax = of_one.f_log_softmax(-1, Kind::Float)?;
            let entropies = row_sums(&log_softmax.f_exp()?.f_mul(&log_softmax)?)?.f_neg()?;
            let cross_entropies = SampleLoss::CrossEntropy.of_samples(&of_one, &batch.labels)?;
            let penalties = entropies.f_mul_scalar(-self.confidence_penalty)?;
            learner.optimizer.backward(&cross_entropies.f_add(&penalties)?.f_mean(Kind::Float)?)?;
            learner.optimizer.step()?;
            losses.push(cross_entropies.f_detach()?);
            logits.push(of_one.f_detach()?);
        }
        let losses = Tensor::f_stack(&losses, 0)?;
        let nothing = Tensor::f_zeros([0i64; 0].as_slice(), (Kind::Double, losses.device()))?;
        Ok(StepOutput {
            losses: losses.f_mean_dim([0i64].as_slice(), false, Kind::Float)?,
            logits: mean_prediction(&logits)?,
            weights: None,
            extra: self.sums().iter().map(|name| (*name, nothing.shallow_clone())).collect(),
        })
    }

    /// A step of one network. Returns its loss on the labelled samples and that on the others, scalars, and its mean
    /// prediction of the two views of the labelled samples, float [B,K], as it was before.
    fn learn(
        &mut self,
        number: usize,
        labelled: &Batch,
        unlabelled: &Batch,
    ) -> anyhow::Result<[Tensor; 3]> {
        let [Some(labelled_view), Some(unlabelled_view)] =
            [labelled, unlabelled].map(|side| side.other_views.first())
        else {
            bail!("both sides of a step have two views");
        };
        let labelled_views = [&labelled.images, labelled_view];
        let unlabelled_views = [&unlabelled.images, unlabelled_view];
        let (rows, other_rows) = (labelled.samples.size1()?, unlabelled.samples.size1()?);

        let [first, second] = &mut self.learners;
        let (own, other) = if number == 0 { (first, second) } else { (second, first) };
        let clean = self.clean.f_index_select(0, &labelled.samples)?;
        let clean = clean.f_select(1, 1 - number as i64)?.f_unsqueeze(1)?;
        let (targets, predictions) = tch::no_grad(|| -> anyhow::Result<_> {
            let predictions = view_mean(&own.network, Mode::Train, labelled_views)?;
            let (_, classes) = predictions.size2()?;
            let given = labelled.labels.f_one_hot(classes)?.f_to_kind(Kind::Float)?;
            let refined = sharpened(self.temperature, &predictions.f_lerp_tensor(&given, &clean)?)?;

            let of_own = view_mean(&own.network, Mode::Train, unlabelled_views)?;
            let of_other = view_mean(&other.network, Mode::Evaluate, unlabelled_views)?;
            let both = of_own.f_add(&of_other)?.f_mul_scalar(0.5)?;
            let guessed = sharpened(self.temperature, &both)?;
            let targets = [&refined, &refined, &guessed, &guessed];
            Ok((Tensor::f_cat(&targets, 0)?, predictions))
        })?;

        let targets = labelled.mixed(&targets)?;
        let images = Tensor::f_cat(&[labelled_views, unlabelled_views].concat(), 0)?;
        let logits = own.forward(&labelled.mixed(&images)?)?;
        let log_softmax = logits.f_log_softmax(-1, Kind::Float)?;
        let (all_rows, classes) = logits.size2()?;

        let on_labelled = log_softmax.f_mul(&targets)?.f_narrow(0, 0, 2 * rows)?;
        let labelled_loss = row_sums(&on_labelled)?.f_mean(Kind::Float)?.f_neg()?;
        let errors = log_softmax.f_exp()?.f_sub(&targets)?.f_narrow(0, 2 * rows, 2 * other_rows)?;
        let unlabelled_loss = errors.f_square()?.f_mean(Kind::Float)?;
        // Not of the logarithm of a mean: that of a class without any share would be infinite.
        let log_shares = log_softmax.f_logsumexp([0i64].as_slice(), false)?;
        let even = (classes as f64 / all_rows as f64).ln();
        let imbalance = log_shares.f_mean(Kind::Float)?.f_add_scalar(even)?;

        let weighted = unlabelled_loss.f_mul(&self.unlabelled_weight_now)?;
        let loss = labelled_loss.f_add(&weighted)?;
        let loss = loss.f_sub(&imbalance.f_mul_scalar(self.class_balance)?)?;
        own.optimizer.backward(&loss)?;
        own.optimizer.step()?;
        Ok([labelled_loss.f_detach()?, unlabelled_loss.f_detach()?, predictions])
    }
}

/// sharp(q) of each row, float [B,K]. A share of the largest number is raised, as all powers could be 0.
fn sharpened(temperature: f64, probabilities: &Tensor) -> anyhow::Result<Tensor> {
    let largest = probabilities.f_amax([1i64].as_slice(), true)?;
    let powers = probabilities.f_div(&largest)?.f_pow_tensor_scalar(1.0 / temperature)?;
    Ok(powers.f_div(&row_sums(&powers)?.f_unsqueeze(1)?)?)
}

/// The mean of what a network predicts of two views, one after the other: float [B,C,H,W] each -> float [B,K].
fn view_mean(network: &Classifier, mode: Mode, views: [&Tensor; 2]) -> anyhow::Result<Tensor> {
    let [one, other] = views.map(|images| -> anyhow::Result<_> {
        Ok(network.forward(images, mode)?.f_softmax(-1, Kind::Float)?)
    });
    Ok(one?.f_add(&other?)?.f_mul_scalar(0.5)?)
}

/// Numbers scaled so that they go from 0 to 1. Equal ones are 0.
fn scaled(numbers: &[f64]) -> Vec<f64> {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let range = numbers.iter().map(|number| number - least).fold(0.0, f64::max);
    let range = if range > 0.0 { range } else { 1.0 };
    numbers.iter().map(|number| (number - least) / range).collect()
}

impl TrainingMethod for DivideMix {
    fn learners(&self) -> Vec<&Learner> {
        self.learners.iter().collect()
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        self.learners.iter_mut().collect()
    }

    fn measures(&self, epoch: u32) -> bool {
        epoch >= self.warmup_epochs
    }

    /// l by each network, float [B,2].
    fn measure(&self, batch: &Batch) -> anyhow::Result<Tensor> {
        let losses = self.learners.iter().map(|learner| {
            let logits = learner.network.forward(&batch.images, Mode::Evaluate)?;
            SampleLoss::CrossEntropy.of_samples(&logits, &batch.labels)
        });
        Ok(Tensor::f_stack(&losses.collect::<anyhow::Result<Vec<_>>>()?, 1)?)
    }

    fn begin_epoch(&mut self, epoch: u32, measured: Option<&Tensor>) -> anyhow::Result<()> {
        let Some(losses) = measured else { return Ok(()) };
        ensure!(
            losses.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0,
            "before epoch {} a sample has a loss that is not finite, so the samples cannot be divided: training diverged; \
             try a smaller learning-rate or a longer warmup",
            epoch + 1
        );
        let losses = losses.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        let columns = [0, 1].map(|network| -> anyhow::Result<_> {
            let losses = Vec::<f64>::try_from(losses.f_select(1, network)?)?;
            let losses = self.averaged(scaled(&losses), network, epoch)?;
            let clean = mixture::probability_of_lower(&losses);
            Ok(Tensor::f_from_slice(&clean)?.f_to_kind(Kind::Float)?)
        });
        let columns = columns.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let clean = Tensor::f_stack(&columns, 1)?.f_to_device(self.clean.device())?;
        let _ = self.clean.f_index_copy_(0, &self.train_indices()?, &clean)?;
        let shares = self
            .divisions()?
            .map(|division| division.labelled.len() as f32 / self.train.len() as f32);
        self.labelled.f_copy_(&Tensor::f_from_slice(&shares)?)?;
        Ok(())
    }

    fn select(&self, epoch: u32, usual: Vec<Vec<u32>>) -> anyhow::Result<Vec<StepSamples>> {
        if epoch < self.warmup_epochs {
            return Ok(usual.into_iter().map(StepSamples::from).collect());
        }
        let Self { batch_size, seed, mixup: alpha, .. } = *self;
        Ok(Steps { batch_size, alpha, seed, epoch }.of(self.divisions()?))
    }

    fn begin_step(&mut self, learning_rate: f64, at: StepPosition) -> anyhow::Result<()> {
        self.is_divided = at.epoch >= u64::from(self.warmup_epochs);
        let epochs = at.epoch as f64 + at.step_of_epoch as f64 / at.steps_of_epoch.max(1) as f64;
        let risen = (epochs - f64::from(self.warmup_epochs)) / self.ramp_up_epochs;
        let weight = self.unlabelled_weight * risen.clamp(0.0, 1.0);
        let _ = self.unlabelled_weight_now.f_fill_(weight)?;
        let mut learners = self.learners.iter_mut();
        learners.try_for_each(|one| one.optimizer.begin_step(learning_rate, at.steps_before))
    }

    /// Not in the first epochs: the steps of one kind alone are, and the later ones take longer.
    fn is_replayable(&self) -> bool {
        self.is_divided
    }

    fn compute(&mut self, batch: &Batch, others: &[Batch]) -> anyhow::Result<StepOutput> {
        let [unlabelled, second, second_unlabelled] = others else {
            return if others.is_empty() {
                self.warm_up(batch)
            } else {
                bail!("a step has three other sets of samples, or none")
            };
        };
        let [labelled_loss, unlabelled_loss, predictions] = self.learn(0, batch, unlabelled)?;
        let [second_labelled_loss, second_unlabelled_loss, _] =
            self.learn(1, second, second_unlabelled)?;

        let _no_gradients = tch::no_grad_guard();
        let number = |value: f64| {
            Tensor::f_full([0i64; 0].as_slice(), value, (Kind::Double, predictions.device()))
        };
        let right = |side: &Batch| side.labels.f_eq_tensor(&side.clean_labels)?.f_sum(Kind::Int64);
        let rows = batch.samples.size1()? + second.samples.size1()?;
        let logits = predictions.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_log()?;
        Ok(StepOutput {
            losses: SampleLoss::CrossEntropy.of_samples(&logits, &batch.labels)?,
            logits,
            weights: None,
            extra: [
                ("steps", number(2.0)?),
                ("labelled-loss", labelled_loss.f_add(&second_labelled_loss)?),
                ("unlabelled-loss", unlabelled_loss.f_add(&second_unlabelled_loss)?),
                ("labelled", self.labelled.f_sum(Kind::Double)?),
                ("rows", number(rows as f64)?),
                ("labelled-clean", right(batch)?.f_add(&right(second)?)?),
            ]
            .into(),
        })
    }

    fn sums(&self) -> &'static [&'static str] {
        &["steps", "labelled-loss", "unlabelled-loss", "labelled", "rows", "labelled-clean"]
    }

    fn columns(&self) -> &'static [&'static str] {
        &["labelled-loss", "unlabelled-loss", "labelled", "labelled-clean"]
    }

    /// Nothing is known of the first epochs.
    fn row(&self, sums: &Sums) -> Vec<f64> {
        let of_steps = ["labelled-loss", "unlabelled-loss", "labelled"];
        let clean = sums.mean_of_clean("labelled-clean", "rows");
        of_steps.iter().map(|name| sums.mean(name, "steps")).chain([clean]).collect()
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::kinds::Train;
    use serde_json::json;

    use super::*;
    use crate::training::recipe::Recipe;

    #[test]
    fn samples_are_divided_by_the_mean_of_their_losses_in_the_last_epochs() {
        let parameters: Train = serde_json::from_value(json!({
            "method": "dividemix", "architecture": "resnet8", "warmup-epochs": 2, "loss-epochs": 3,
        }))
        .unwrap();
        let recipe = Recipe::of(&parameters);
        // Two of the eight samples do not train.
        let train = [0, 1, 3, 4, 6, 7];
        let setup = Setup::new(&recipe, 3, 2, 0, Device::Cpu);
        let mut setup = Setup { samples: 8, train: &train, ..setup };
        let mut method = DivideMix::new(&mut setup).unwrap();
        let losses_of = |epoch: u32, network: u32| -> Vec<f64> {
            let of_sample = |place: u32| ((place * 7 + epoch * 5 + network * 3) % 11).into();
            (0..train.len() as u32).map(of_sample).collect()
        };
        for epoch in 2..9 {
            let measured = [0, 1].map(|network| Tensor::from_slice(&losses_of(epoch, network)));
            method.begin_epoch(epoch, Some(&Tensor::stack(&measured, 1))).unwrap();
            for network in [0, 1] {
                let last: Vec<_> = (epoch.saturating_sub(2).max(2)..=epoch)
                    .map(|epoch| scaled(&losses_of(epoch, network)))
                    .collect();
                let mean = |place: usize| {
                    last.iter().map(|losses| losses[place]).sum::<f64>() / last.len() as f64
                };
                let means: Vec<f64> = (0..train.len()).map(mean).collect();
                let expected = mixture::probability_of_lower(&means);
                for (&sample, expected) in train.iter().zip(expected) {
                    let found = method.clean.double_value(&[sample.into(), network.into()]);
                    assert!((found - expected).abs() < 1e-4, "epoch {epoch}: {found}, {expected}");
                }
            }
        }
    }

    #[test]
    fn a_small_temperature_leaves_a_distribution() {
        let mut nearly_even = vec![0.01f32; 100];
        nearly_even[7] = 0.0101;
        let probabilities = Tensor::from_slice(&nearly_even).view([1, 100]);
        let sharp = sharpened(0.01, &probabilities).unwrap();
        assert!((sharp.sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-6);
        // (0.0101 / 0.01)^100 is 2.7048 times as likely as each of the others.
        let likeliest = sharp.double_value(&[0, 7]);
        assert!((likeliest - 2.7048 / 101.7048).abs() < 1e-5, "{likeliest}");
    }
}
