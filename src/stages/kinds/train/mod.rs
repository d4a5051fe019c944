//! `train`: a classifier on (noisy) labels.

mod choices;
mod problems;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use self::choices::{
    Augmentation, InnerRate, Loss, MetaLoss, MetaSamples, Method, Normalise, Optimizer, Sampling,
    Schedule, SelectBest, Transition, ValidationLabels, ValidationTransform,
};
use super::architecture::Architecture;
use super::precision::Precision;
use crate::clean_labels::CleanLabels;
use crate::kind::{OutsidePath, Problem, Rules};
use crate::known::{Images, Known, KnownInputs, differing};
use crate::parameter::{AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, POSITIVE};

kind! {
    /// Trains a classifier, from scratch or from pre-trained weights.
    ///
    /// The model is that of the last step, as in the reference protocol, if `select-best` does not choose another one. `co-teaching`, `dividemix` and
    /// `elr-plus` train two networks: `evaluate` uses the mean of their predictions; what takes an encoder from a model (`init`, `features`, `probe`) uses the first one.
    ///
    /// `pipeline kinds train sop` has what belongs to one method or loss.
    ///
    /// # Output
    ///
    /// Curves and metrics are of the whole training in any case, but for one: with `select-best = "average"`, `validation-accuracy` and
    /// `validation-loss` among the metrics are of the mean, evaluated once after the last step, so that they can be compared with those of
    /// `"last"`; `evaluations.csv` and `best-validation-accuracy` are of the networks on the way, and the latter is that of the model
    /// with `"validation"`. Accuracies are fractions from 0 to 1. `curves.csv` has a row per epoch: the loss, the training accuracy against the labels trained on
    /// and against the clean ones, NaN where it is not known, and the learning rate of the last step. `evaluations.csv` has the validation and
    /// the test accuracy during training, and the mean cross-entropy of both; what is of the test set is not used to choose anything.
    ///
    /// `weights.safetensors` has the network, and `model.json` says what it takes. The second one of two networks is in `weights-2.safetensors`.
    ///
    /// Meta-Weight-Net adds four columns to `curves.csv`, and the numbers of the last epoch to the metrics: `meta-loss`,
    /// the mean loss on the meta samples after the look-ahead; `weight`, the mean weight of all samples; `weight-clean` and `weight-corrupted`, the mean weight from 0 to 1 of the samples
    /// whose label is right and of those whose label is wrong, if `labels` are connected. `weight-curve.csv` has the weight that the net learned for losses from 0
    /// to three times that of guessing. Every step draws a new meta batch from all meta samples and augments it like training images.
    ///
    /// `forward-correction` adds a column `corrected-loss` to `curves.csv` and to the metrics: the mean of what the network descends. `transition.csv` has its matrix, a row
    /// per clean class, a column per given label.
    ///
    /// `elr` adds a column `regularizer` to `curves.csv` and to the metrics: the mean of ln(1 - <p, t>) with the predictions p and the targets t,
    /// before it is multiplied by `regularization`. `sop` adds `corrected-loss`, the mean cross-entropy of the corrected predictions, and `squared-error`, the mean
    /// of what its v descend; `train-loss` is the cross-entropy of the network's own predictions under the given labels. `co-teaching` adds `loss-1` and `loss-2`, the mean
    /// losses of the two networks, of which `train-loss` is the mean; `chosen`, the share of the samples that each learned from; and `chosen-clean`, the share of
    /// those whose label is right, if `labels` are connected. `truncated-loss` adds `kept`, the share of the samples that the network learned from, and `kept-clean`, the
    /// share of those whose label is right, if `labels` are connected; `train-loss` is of all samples.
    ///
    /// `dividemix` adds, for the epochs after the first ones, `labelled-loss` and `unlabelled-loss`, the mean losses on the samples that a network takes as rightly labelled and on
    /// the others, of which the second one is multiplied by `unlabelled-weight`; `labelled`, the share of the former; and `labelled-clean`, the share of those whose label is
    /// right, if `labels` are connected. All four are means over both networks. `train-loss` is then the cross-entropy of those that the first network takes as rightly
    /// labelled, by its mean prediction of two views, not mixed, before it learns from them; and so are `train-accuracy` and `sample-losses`.
    ///
    /// `elr-plus` adds `loss-1`, `loss-2`, `regularizer-1` and `regularizer-2`, the same numbers of both networks, of whose losses `train-loss` is the mean.
    ///
    /// Where images are mixed (`mixup`), losses are those of the mixed images, and `train-accuracy` is against the label of the larger part of an image; not so
    /// with `dividemix` and `co-teaching`.
    ///
    /// With `sample-losses = true`, `sample-losses.safetensors` has, for the N samples that train and E epochs,
    ///
    /// - `index`, i64 `[N]`: the place of the sample in the training part of the data set, from 0; ascending;
    /// - `label-given` and `label-clean`, i64 `[N]`: the label that it was trained on, and that of the data set;
    /// - `losses`, f32 `[E,N]`: its loss under the given label, by the `loss` of the stage, in the forward pass in which it was
    ///   trained on: of the augmented image, by the network before that step, with the statistics of the batch; of two networks that learn from it the mean; of mixed images as `sample-losses` says;
    /// - `weights`, f32 `[E,N]`, with Meta-Weight-Net: the weight from 0 to 1 that the net gave to it in that step,
    ///   before shares of the batch are made of the weights; with `truncated-loss` 1 if the network learned from it, else 0.
    ///
    /// Of a sample that an epoch visited several times it is the mean; NaN of one that it did not visit.
    Train = "train", version 6, seeded true, output Model;
    ports {
        /// The data set.
        data: One[Dataset];
        /// The labels to train on. Without it: the data set's own.
        labels: Optional[Labels];
        /// Which samples train and which validate. Without it: all train.
        split: Optional[Split];
        /// The encoder to start from; of a model of two networks that of the first. Without it: from scratch.
        init: Optional[Weights, Model];
    }
    parameters {
        /// How the classifier is trained.
        method: Method = Method::Finetune;
        /// The encoder.
        architecture: Architecture = Architecture::Resnet18;
        /// The loss of a sample.
        ///
        /// `sop`, `forward-correction` and `dividemix` have a loss of their own: without this parameter, or with its default. `truncated-loss` needs
        /// `"generalized-cross-entropy"`, with `q = 0.7` as in its paper.
        loss: Loss = Loss::CrossEntropy;
        /// Passes over the training samples.
        epochs: u32 = 120, in AT_LEAST_ONE;
        /// Samples per step.
        ///
        /// All of them, if there are fewer. One sample left over at the end of an epoch joins the step before it. `dividemix`, once it divides them, takes this many with and as
        /// many without labels for each network, in two views: eight times as many images. Its authors have twice as many samples in a step of the first epochs.
        batch_size: u64 = 100, in AT_LEAST_ONE;
        /// Which training samples an epoch has.
        sampling: Sampling = Sampling::Uniform;
        /// How many samples an epoch has. Without it: as many as train. Does not go with `dividemix`.
        samples_per_epoch: Option<u64> = None, in AT_LEAST_ONE;
        /// The optimizer.
        optimizer: Optimizer = Optimizer::Sgd;
        /// The peak learning rate.
        learning_rate: f64 = 0.01, in POSITIVE;
        /// Weight decay; not on parameters with `bn` in their name.
        weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// How the learning rate goes over the steps.
        schedule: Schedule = Schedule::WarmupCosine;
        /// How a training image is changed before each use. Not `none` where views of an image are compared: with `consistency` above 0 or `views` above 1.
        augmentation: Augmentation = Augmentation::Flip;
        /// MixUp: each image of a step is mixed with another one, and the loss is that of both labels, each with the share of its image. The shares of a step are
        /// from Beta(`mixup`, `mixup`); the paper has 1 for CIFAR and up to 32 under label noise. With 0, no image is mixed; any other value is at least 0.001.
        /// Without it: 0; with `dividemix` 4 and with `elr-plus` 1, as in their papers.
        ///
        /// What a method knows of single samples stays of single images: `elr`, `sop` and `co-teaching` then see each batch a second time, not mixed, for their targets,
        /// for what is wrong with a label, and to choose samples, of which `co-teaching` mixes those that it chose.
        mixup: Option<f64> = None, in 0.0..=1e3;
        /// The side in pixels of the images that the network sees. Without it: the data set's own; for encoded images 224.
        image_size: Option<u32> = None, in 1.0..=4096.0;
        /// How pixels are scaled.
        normalise: Normalise = Normalise::Auto;
        /// The precision of the network's matrix products and convolutions.
        precision: Precision = Precision::F32;
        /// Steps between two evaluations on the samples held out and on the test set. Without it: once an epoch. The last step always has one.
        evaluate_every: Option<u64> = None, in AT_LEAST_ONE;
        /// How the samples held out are shown to an evaluation during training.
        validation_transform: ValidationTransform = ValidationTransform::Plain;
        /// Which labels the samples held out are judged by, in evaluations during training.
        ///
        /// `corrupt-labels` and `purify-labels` with a `split` leave the samples that it holds out as they are, so that `given` is `clean`, and is marked so in tables. For wrong
        /// labels among them, as in practice, connect no `split` to `corrupt-labels`: it then corrupts all training samples, and the `split` of this stage holds some of these out.
        validation_labels: ValidationLabels = ValidationLabels::Clean;
        /// Which networks become the model. Not by the test set.
        select_best: SelectBest = SelectBest::Last;
        /// Whether the test set is also evaluated during training, for the curves and for `evaluate`.
        track_test: bool = true;
        /// Whether the loss of every training sample in every epoch is kept, in `sample-losses.safetensors`.
        ///
        /// Where images are mixed (`mixup`), it is the loss of the mixed image by both of its labels; with `meta-weight-net` that by its own label, of both images that it is a
        /// part of, by its shares; with `co-teaching` and `dividemix` that by its own label, of the image not mixed.
        ///
        /// It takes 4 bytes per sample and epoch of memory, of every checkpoint and of the artifact; twice that with Meta-Weight-Net and `truncated-loss`.
        sample_losses: bool = false;
    }
    only if (select_best: [SelectBest::Average]) {
        /// How many epochs, the last ones, the mean is of: all of them, if there are fewer. It differs from the last step if the learning rate is still large:
        /// with `schedule = "constant"`, as in the paper, or early in the others.
        average_epochs: u32 = 10, in AT_LEAST_ONE;
    }
    only if (loss: [Loss::GeneralizedCrossEntropy]) {
        /// The q of the generalized cross-entropy; towards 0 it becomes cross-entropy, at 1 half the mean absolute error.
        q: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1.0));
    }
    only if (loss: [Loss::SymmetricCrossEntropy]) {
        /// The weight of the cross-entropy: alpha of the paper, which has 0.1 for CIFAR-10 and 6 for CIFAR-100.
        forward_weight: f64 = 0.1, in NOT_NEGATIVE;
        /// The weight of the reverse cross-entropy: beta of the paper, which has 1 for CIFAR-10 and 0.1 for CIFAR-100.
        reverse_weight: f64 = 1.0, in NOT_NEGATIVE;
    }
    only if (loss: [Loss::NceRce]) {
        /// The weight of the normalised cross-entropy: alpha of the paper, which has 1 for CIFAR-10 and 10 for CIFAR-100.
        active_weight: f64 = 1.0, in NOT_NEGATIVE;
        /// The weight of the reverse cross-entropy: beta of the paper, which has 1 for CIFAR-10 and 0.1 for CIFAR-100.
        passive_weight: f64 = 1.0, in NOT_NEGATIVE;
    }
    only if (loss: [Loss::LabelSmoothing]) {
        /// The share of a label that is for all classes.
        smoothing: f64 = 0.1, in BELOW_ONE;
    }
    only if (loss: [Loss::SoftBootstrapping, Loss::HardBootstrapping]) {
        /// The share of the given label: beta of the paper. Without it: 0.95 for the soft and 0.8 for the hard form, as there.
        given_share: Option<f64> = None, in (std::ops::Bound::Included(0.0), std::ops::Bound::Included(1.0));
    }
    only if (loss: [Loss::JensenShannon]) {
        /// The share of the label in the mean of label and prediction: pi_1 of the paper.
        label_share: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0));
    }
    only if (optimizer: [Optimizer::Sgd]) {
        /// The momentum of SGD.
        momentum: f64 = 0.9, in BELOW_ONE;
    }
    only if (schedule: [Schedule::WarmupCosine]) {
        /// The share of the steps in which the learning rate rises linearly.
        warmup: f64 = 0.01, in BELOW_ONE;
    }
    only if (schedule: [Schedule::Step]) {
        /// Steps between two changes of the learning rate.
        step_every: u64 = 40_000, in AT_LEAST_ONE;
        /// The factor of each change.
        step_factor: f64 = 0.5, in POSITIVE;
    }
    only if (method: [Method::MetaWeightNet]) {
        /// Samples of the meta batch, all different. Without it: as many as `batch-size`.
        ///
        /// All meta samples, if there are fewer.
        meta_batch_size: Option<u64> = None, in AT_LEAST_ONE;
        /// Where the meta samples come from.
        meta_samples: MetaSamples = MetaSamples::HeldOut;
        /// The loss on the meta samples.
        meta_loss: MetaLoss = MetaLoss::CrossEntropy;
        /// The optimizer of the weighting net; `sgd` has momentum 0.9 and Nesterov's correction.
        meta_optimizer: Optimizer = Optimizer::Sgd;
        /// The learning rate of the weighting net.
        meta_learning_rate: f64 = 1e-3, in POSITIVE;
        /// The weight decay of the weighting net.
        meta_weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// Hidden units of the weighting net.
        meta_hidden: u64 = 100, in AT_LEAST_ONE;
        /// The learning rate of the look-ahead step.
        inner_rate: InnerRate = InnerRate::Constant;
        /// Whether the weights of a batch are scaled to sum to 1 instead of being divided by its size.
        normalise_weights: bool = false;
    }
    only if (method: [Method::MetaWeightNet], inner_rate: [InnerRate::Constant]) {
        /// The learning rate of the look-ahead step.
        inner_learning_rate: f64 = 0.1, in POSITIVE;
    }
    only if (method: [Method::Finetune], loss: [Loss::JensenShannon]) {
        /// Views of a sample in a step; the divergence is that of the label and all of them. The generalized form of the paper has 2. More than 1 are not for `augmentation = "none"`.
        views: u32 = 1, in 1.0..=8.0;
    }
    only if (method: [Method::ForwardCorrection]) {
        /// Where the matrix comes from.
        transition: Transition = Transition::Estimated;
    }
    only if (method: [Method::ForwardCorrection], transition: [Transition::Estimated]) {
        /// Epochs of plain training before the matrix is estimated: fewer than `epochs`.
        estimation_epochs: u32 = 10, in AT_LEAST_ONE;
    }
    only if (method: [Method::ForwardCorrection], transition: [Transition::File]) {
        /// A text file, relative to the manifest, as `matrix` of `corrupt-labels` is: for each true class, in the order of the data set, a line with the probability of each
        /// label. It must be given.
        matrix: Option<String> = None;
    }
    only if (method: [Method::Elr, Method::ElrPlus]) {
        /// How much of a target stays when a sample comes again: beta of the paper, which has 0.7 for CIFAR-10 and 0.9 for CIFAR-100 and for asymmetric noise.
        target_momentum: f64 = 0.7, in BELOW_ONE;
        /// What the term is multiplied by: lambda of the paper, which has 3 for CIFAR-10, 7 for CIFAR-100 and 1 for asymmetric noise.
        regularization: f64 = 3.0, in NOT_NEGATIVE;
    }
    only if (method: [Method::ElrPlus]) {
        /// The share of the run in which `regularization` rises from nearly 0; 0 for none, as in the authors' code for CIFAR-10. For CIFAR-100 it
        /// rises there for 40 000 of 97 750 steps.
        regularization_ramp_up: f64 = 0.0, in 0.0..=1.0;
        /// How much of the average of a network stays in a step: gamma of the paper.
        average_momentum: f64 = 0.997, in BELOW_ONE;
        /// The share of the run in which that rises from nearly 0: in the authors' code 40 000 of 78 200 steps for CIFAR-10.
        average_ramp_up: f64 = 0.5, in 0.0..=1.0;
    }
    only if (method: [Method::Sop]) {
        /// The learning rate of the number u of a sample, which stands for what is too much at its given label.
        learning_rate_u: f64 = 1.0, in NOT_NEGATIVE;
        /// The learning rate of the numbers v of a sample, one a class; for asymmetric noise the paper has 100.
        learning_rate_v: f64 = 10.0, in NOT_NEGATIVE;
        /// The weight of the consistency of two views; above 0, a step sees two views of each sample, which `augmentation = "none"` would not
        /// tell apart. SOP+ has 0.9.
        ///
        /// Both views are made by `augmentation`. The second one of the authors' code is stronger (AutoAugment and Cutout), and so the numbers that are
        /// known of SOP+ are not those of this one.
        consistency: f64 = 0.0, in NOT_NEGATIVE;
        /// The weight of the term for equally frequent classes. SOP+ has 0.1.
        balance: f64 = 0.0, in NOT_NEGATIVE;
    }
    only if (method: [Method::CoTeaching]) {
        /// The share of each batch that a network does not learn from in the end: tau of the paper, which takes the share of wrong labels.
        forget_rate: f64 = 0.2, in BELOW_ONE;
        /// Epochs in which that share rises linearly to `forget-rate`: T_k of the paper, which takes 10.
        forget_epochs: u32 = 10, in AT_LEAST_ONE;
    }
    only if (method: [Method::TruncatedLoss]) {
        /// A sample is left out if the probability of its label is not above this: k of the paper.
        prune_below: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0));
        /// Epochs on all samples before some are left out for the first time: fewer than `epochs`.
        prune_after: u32 = 40, in AT_LEAST_ONE;
        /// Epochs between two decisions on which samples are left out. The network decides as it is then, not as it was when it was best on samples held out.
        prune_every: u32 = 10, in AT_LEAST_ONE;
    }
    only if (method: [Method::DivideMix]) {
        /// Epochs in which both networks learn from all samples, before they divide them: fewer than `epochs`. The paper has 10 for CIFAR-10 and 30 for CIFAR-100.
        warmup_epochs: u32 = 10, in AT_LEAST_ONE;
        /// What is multiplied by the entropy of a prediction and taken from the loss, in these epochs: for asymmetric noise the paper has 1.
        confidence_penalty: f64 = 0.0, in NOT_NEGATIVE;
        /// A label counts as right above this probability: tau of the paper, which has 0.6 for 90 % noise.
        clean_above: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0));
        /// How many epochs, the last ones, the losses by which samples are divided are the mean of: no more than `epochs` without `warmup-epochs`.
        /// The authors' code has 5 for 90 % noise.
        loss_epochs: u32 = 1, in AT_LEAST_ONE;
        /// The temperature by which guessed labels are sharpened: T of the paper.
        sharpening_temperature: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1.0));
        /// The weight of the loss on samples without labels: lambda_u of the paper, which has from 0 for 20 % noise to 50 for CIFAR-10 and 150 for CIFAR-100 under strong noise.
        unlabelled_weight: f64 = 25.0, in NOT_NEGATIVE;
        /// Epochs in which that weight rises linearly from 0.
        ramp_up_epochs: u32 = 16, in AT_LEAST_ONE;
        /// The weight of the term for equally frequent classes.
        class_balance: f64 = 1.0, in NOT_NEGATIVE;
    }
    execution {}
    headline ["validation-accuracy"]
}

/// What does not fit the images that a network is trained on.
pub(super) fn image_problems(
    data: &Known,
    normalise: Normalise,
    augmentation: Augmentation,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let (Normalise::Imagenet, Some(channels)) = (normalise, data.channels)
        && channels != 3
    {
        let message = format!(
            "ImageNet's statistics are of 3 channels, but the images have {channels}: \
             set normalise = \"dataset\" or \"none\""
        );
        problems.push(Problem::new("normalise", message));
    }
    if augmentation == Augmentation::CropFlip && data.images == Some(Images::Encoded) {
        problems.push(Problem::new(
            "augmentation",
            "'crop-flip' moves small images by 4 pixels, and those of this data set are encoded files \
             that are resized: use \"random-resized-crop\" or \"resize-crop-flip\", or \"none\"",
        ));
    }
    problems
}

/// With what each parameter is that a manifest does not set.
impl Default for Train {
    fn default() -> Self {
        Self::try_from(RawParameters::default()).expect("every parameter has a default")
    }
}

impl Train {
    /// The share of the given label in bootstrapping: without `given-share`, that of the paper for the loss.
    pub fn bootstrapped_share(&self) -> f64 {
        let of_paper = if self.loss == Loss::SoftBootstrapping { 0.95 } else { 0.8 };
        self.given_share.unwrap_or(of_paper)
    }
}

impl Rules for Train {
    fn version(&self) -> Option<u32> {
        // With a mean, the metrics are of the last step in version 6, and with TF32 in 7.
        let version = if self.select_best == SelectBest::Average { 7 } else { 6 };
        Some(self.precision.newer_than(version).unwrap_or(version))
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        let is_read =
            self.method == Method::ForwardCorrection && self.transition == Transition::File;
        let path = self.matrix.as_ref().filter(|_| is_read);
        path.map(|path| OutsidePath::matrix("matrix", path)).into_iter().collect()
    }

    // Results from before a parameter existed count as those without it. Of a file the content is in the key, not the path.
    fn key_parameters(&self, mut effective: Map<String, Value>) -> Map<String, Value> {
        effective.remove("matrix");
        if !self.sample_losses {
            effective.remove("sample-losses");
        }
        if self.validation_transform == ValidationTransform::Plain {
            effective.remove("validation-transform");
        }
        if self.validation_labels == ValidationLabels::Clean {
            effective.remove("validation-labels");
        }
        if self.select_best == SelectBest::Last {
            effective.remove("select-best");
        }
        if self.regularization_ramp_up == 0.0 {
            effective.remove("regularization-ramp-up");
        }
        if self.loss_epochs == 1 {
            effective.remove("loss-epochs");
        }
        if let Some(share) = effective.get_mut("given-share") {
            *share = self.bootstrapped_share().into();
        }
        if self.method.mixup(self.mixup) == self.method.mixup(None) {
            effective.remove("mixup");
        }
        effective
    }

    fn clean_labels(&self, inputs: &KnownInputs) -> CleanLabels {
        let by_method = match self.method {
            Method::MetaWeightNet => self.meta_samples == MetaSamples::HeldOut,
            Method::ForwardCorrection => self.transition == Transition::Known,
            _ => false,
        };
        let split_is_clean = inputs.at("split").held_out_is_clean == Some(true);
        // Not of labels that a program made: of what they are nothing is known.
        let labels_are_clean = inputs.at("labels").held_out_is_clean;
        let given_is_clean = labels_are_clean.is_some_and(|is_clean| is_clean || split_is_clean);
        let is_clean = match self.validation_labels {
            // Without others, those of the data set are the given ones, right or wrong.
            ValidationLabels::Clean => inputs.has("labels") || split_is_clean,
            ValidationLabels::Given => given_is_clean,
        };
        let is_judged = inputs.has("split") && is_clean;
        let is_chosen = is_judged && self.select_best == SelectBest::Validation;
        if by_method || is_chosen || inputs.learns_from_held_out() {
            CleanLabels::Decide
        } else if is_judged {
            CleanLabels::Judge
        } else {
            CleanLabels::Unused
        }
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let (data, init) = (inputs.at("data"), inputs.at("init"));
        let mut problems = image_problems(&data, self.normalise, self.augmentation);
        let other = init.architecture.and_then(|initial| self.architecture.problem_with(initial));
        problems.extend(other.map(|message| Problem::new("init", message)));
        if let Some((of_init, own)) = differing(init.channels, data.channels) {
            let message = format!(
                "the initial weights take images with {of_init} channels, but the data set has {own}"
            );
            problems.push(Problem::new("init", message));
        }
        problems
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        let Known { channels, classes, images, image_size, .. } = inputs.at("data");
        let resizes = self.image_size.is_some()
            || matches!(
                self.augmentation,
                Augmentation::RandomResizedCrop | Augmentation::ResizeCropFlip
            );
        Known {
            architecture: Some(self.architecture.into()),
            channels,
            classes,
            images: images.filter(|images| !resizes && *images == Images::Pixels),
            image_size: image_size.filter(|_| !resizes),
            ..Known::default()
        }
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        self.problems(connected)
    }
}
