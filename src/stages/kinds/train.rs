//! `train`: a classifier on (noisy) labels.

use serde_json::{Map, Value};

use super::architecture::Architecture;
use super::precision::Precision;
use crate::clean_labels::CleanLabels;
use crate::kind::{OutsidePath, Problem, Rules};
use crate::known::{Images, Known, KnownInputs, differing};
use crate::parameter::{AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, POSITIVE};

choices! {
    /// How a classifier is trained.
    pub enum Method {
        /// Encoder and classifier together, by the loss alone.
        Finetune,
        /// Meta-Weight-Net: a small net learns the weight of a sample from its loss, so that a step on the weighted batch helps on clean samples.
        MetaWeightNet,
        /// Forward correction: the loss is that of the given labels which the predicted classes make likely, by a matrix of how often a label stands for a class.
        ForwardCorrection,
        /// Early-learning regularization: earlier predictions of the network become targets of each sample, and a term keeps the network at them.
        Elr,
        /// Sparse over-parameterization: each sample has numbers of its own that explain what is wrong with its label.
        Sop,
        /// Co-teaching: two networks, each of which learns from the samples of a batch that the other one has small losses for. The model is both: the mean of their predictions.
        CoTeaching,
        /// The truncated loss: every few epochs, samples whose label the network finds too unlikely are left out. Goes with `loss = "generalized-cross-entropy"`.
        TruncatedLoss,
        /// DivideMix: two networks, each of which says for the other one which labels are right; the other samples are learned from without labels. The model is both: the
        /// mean of their predictions. From an encoder of `pretrain-simclr` it is C2D.
        DivideMix as "dividemix",
        /// ELR+: two networks with early-learning regularization and MixUp, of which the average of each over the steps says what the other one is kept at. The model is both:
        /// the mean of their predictions.
        ElrPlus,
    }
}

choices! {
    /// The loss of a sample.
    pub enum Loss {
        /// -ln p_y.
        CrossEntropy,
        /// (1 - p_y^q) / q; truncated by `method = "truncated-loss"`.
        GeneralizedCrossEntropy,
        /// The mean absolute error to the one-hot label: 2 (1 - p_y).
        Mae,
        /// `forward-weight` times -ln p_y, and `reverse-weight` times 9.21 (1 - p_y), the cross-entropy the other way round, in which ln 0 counts as ln 1e-4.
        SymmetricCrossEntropy,
        /// `active-weight` times ln p_y / sum_k ln p_k, and `passive-weight` times 9.21 (1 - p_y).
        NceRce,
        /// The cross-entropy to a label that is shared: 1 - `smoothing` for the given class, the rest in equal parts for all classes.
        LabelSmoothing,
        /// The cross-entropy to `given-share` of the label and the rest of the network's own prediction.
        SoftBootstrapping,
        /// The cross-entropy to `given-share` of the label and the rest of the class that the network finds likeliest.
        HardBootstrapping,
        /// The divergence of Jensen and Shannon between the label and the prediction, in which the label has the share `label-share`; scaled so that it is cross-entropy towards a share of 0, and half the mean absolute error towards 1.
        JensenShannon,
    }
}

choices! {
    /// The optimizer.
    pub enum Optimizer {
        /// SGD with momentum.
        Sgd,
        /// Adam with betas 0.9 and 0.999.
        Adam,
    }
}

choices! {
    /// How the learning rate goes over the steps.
    pub enum Schedule {
        /// A linear rise over the share `warmup` of the steps, then half a cosine to zero.
        WarmupCosine,
        /// Falls linearly to zero.
        Linear,
        /// Stays.
        Constant,
        /// Multiplied by `step-factor` every `step-every` steps.
        Step,
    }
}

choices! {
    /// How a training image is changed before each use.
    pub enum Augmentation {
        /// Not at all. With `image-size` or encoded images, training sees what validation and test see: the crop of the initial encoder; from scratch, the middle 0.875 of the height and of the width, resized (bicubic) to the square.
        None,
        /// As `none`, then flipped left to right half of the time.
        Flip,
        /// Padded by 4 pixels (reflected) and cropped back at random, then flipped half of the time. For small images: not with `image-size`.
        CropFlip,
        /// A random part of 8 % to 100 % of the area, resized (bicubic) to `image-size`, flipped half of the time. Validation and test: the middle 0.875 of the height and of the width, resized (bicubic) to the square.
        RandomResizedCrop,
        /// The shorter side resized (bilinear) to 256/224 of `image-size`, cropped at random to `image-size`, flipped half of the time. Validation and test: the centre crop.
        ResizeCropFlip,
    }
}

choices! {
    /// How pixels are scaled. `model.json` records it, and evaluation does the same.
    pub enum Normalise {
        /// As the initial encoder was trained; from scratch as `dataset`.
        Auto,
        /// To [0, 1], and nothing else.
        None,
        /// To [0, 1], then by the mean and the standard deviation of the training images, per channel.
        Dataset,
        /// To [0, 1], then by the mean and the standard deviation of ImageNet's images, per channel.
        Imagenet,
    }
}

choices! {
    /// Which training samples an epoch has.
    pub enum Sampling {
        /// Each one once; with `samples-per-epoch`, this many of them.
        Uniform,
        /// As many of each class (by the labels trained on), drawn again for every epoch: `samples-per-epoch` in total.
        ClassBalanced,
    }
}

choices! {
    /// How the samples held out are shown to an evaluation during training.
    pub enum ValidationTransform {
        /// As test images are: nothing is drawn.
        Plain,
        /// As training images are, drawn again for each evaluation. The code of Ghosh and Lan (2021) does so.
        Training,
    }
}

choices! {
    /// Which labels the samples held out are judged by, in evaluations during training.
    pub enum ValidationLabels {
        /// Those of the data set.
        Clean,
        /// Those of `labels`, which are what is known in practice.
        Given,
    }
}

choices! {
    /// Which networks become the model.
    pub enum SelectBest {
        /// Those of the last step.
        Last,
        /// Those of the evaluation with the best validation accuracy; of equal ones the first.
        Validation,
        /// The mean of those after each of the last epochs (SWA, Izmailov et al., "Averaging weights leads to wider optima and better
        /// generalization", 2018): of the weights, and of the running statistics of batch norm, which the paper computes again instead.
        Average,
    }
}

choices! {
    /// The learning rate of the look-ahead step of Meta-Weight-Net.
    pub enum InnerRate {
        /// Always `inner-learning-rate`.
        Constant,
        /// That of the classifier's step.
        Scheduled,
    }
}

choices! {
    /// Where the matrix of forward correction comes from.
    pub enum Transition {
        /// Counted from the clean labels of the training samples: what nobody has in practice, for comparison.
        Known,
        /// From the network's predictions after `estimation-epochs`: for each class those of a sample that is surely of it.
        Estimated,
        /// From a file of your own, `matrix`.
        File,
    }
}

choices! {
    /// The loss on the meta samples.
    pub enum MetaLoss {
        /// -ln p_y.
        CrossEntropy,
        /// The mean absolute error, 2 (1 - p_y): robust to wrong labels.
        Mae,
    }
}

choices! {
    /// The samples that the weights of Meta-Weight-Net are learned from.
    pub enum MetaSamples {
        /// Those held out by the split, with their clean labels.
        HeldOut,
        /// The training samples with their given labels; goes with `meta-loss = "mae"`.
        Training,
    }
}

kind! {
    /// Trains a classifier, from scratch or from pre-trained weights.
    ///
    /// The model is that of the last step, as in the reference protocol, if `select-best` does not choose another one;
    /// curves and metrics are of the whole training in any case. Accuracies are fractions from 0 to 1. `curves.csv` has a row per epoch: the loss, the training accuracy against the labels trained on
    /// and against the clean ones, NaN where it is not known, and the learning rate of the last step. `evaluations.csv` has the validation and
    /// the test accuracy during training, and the mean cross-entropy of both; what is of the test set is not used to choose anything.
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
    /// With `mixup`, and with `elr-plus` always, losses are those of the mixed images, and `train-accuracy` is against the label of the larger part of an image; not so
    /// with `dividemix` and `co-teaching`.
    ///
    /// With `sample-losses = true`, `sample-losses.safetensors` has, for the N samples that train and E epochs,
    ///
    /// - `index`, i64 `[N]`: the place of the sample in the training part of the data set, from 0; ascending;
    /// - `label-given` and `label-clean`, i64 `[N]`: the label that it was trained on, and that of the data set;
    /// - `losses`, f32 `[E,N]`: its loss under the given label, by the `loss` of the stage, in the forward pass in which it was
    ///   trained on: of the augmented image, by the network before that step, with the statistics of the batch; of two networks that learn from it the mean;
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
        /// The encoder to start from. Without it: from scratch.
        init: Optional[Weights, Model];
    }
    parameters {
        /// How the classifier is trained.
        method: Method = Method::Finetune;
        /// The encoder.
        architecture: Architecture = Architecture::Resnet18;
        /// The loss of a sample.
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
        /// How many samples an epoch has. Without it: as many as train.
        samples_per_epoch: Option<u64> = None, in AT_LEAST_ONE;
        /// The optimizer.
        optimizer: Optimizer = Optimizer::Sgd;
        /// The peak learning rate.
        learning_rate: f64 = 0.01, in POSITIVE;
        /// Weight decay; not on parameters with `bn` in their name.
        weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// How the learning rate goes over the steps.
        schedule: Schedule = Schedule::WarmupCosine;
        /// How a training image is changed before each use.
        augmentation: Augmentation = Augmentation::Flip;
        /// MixUp: each image of a step is mixed with another one, and the loss is that of both labels, each with the share of its image. The shares of a step are
        /// from Beta(`mixup`, `mixup`); the paper has 1 for CIFAR and up to 32 under label noise. Without it: no image is mixed;
        /// with `dividemix` 4 and with `elr-plus` 1, as in their papers.
        ///
        /// What a method knows of single samples stays of single images: `elr`, `sop` and `co-teaching` then see each batch a second time, not mixed, for their targets,
        /// for what is wrong with a label, and to choose samples, of which `co-teaching` mixes those that it chose.
        mixup: Option<f64> = None, in 1e-3..=1e3;
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
        /// The share of the given label: beta of the paper, which has 0.95 for the soft and 0.8 for the hard form.
        given_share: f64 = 0.8, in (std::ops::Bound::Included(0.0), std::ops::Bound::Included(1.0));
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
        /// Views of a sample in a step; the divergence is that of the label and all of them. The generalized form of the paper has 2.
        views: u32 = 1, in 1.0..=8.0;
    }
    only if (method: [Method::ForwardCorrection]) {
        /// Where the matrix comes from.
        transition: Transition = Transition::Estimated;
    }
    only if (method: [Method::ForwardCorrection], transition: [Transition::Estimated]) {
        /// Epochs of plain training before the matrix is estimated.
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
        /// The weight of the consistency of two views; above 0, a step sees two views of each sample. SOP+ has 0.9.
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
        /// Epochs on all samples before some are left out for the first time.
        prune_after: u32 = 40, in AT_LEAST_ONE;
        /// Epochs between two decisions on which samples are left out. The network decides as it is then, not as it was when it was best on samples held out.
        prune_every: u32 = 10, in AT_LEAST_ONE;
    }
    only if (method: [Method::DivideMix]) {
        /// Epochs in which both networks learn from all samples, before they divide them. The paper has 10 for CIFAR-10 and 30 for CIFAR-100.
        warmup_epochs: u32 = 10, in AT_LEAST_ONE;
        /// What is multiplied by the entropy of a prediction and taken from the loss, in these epochs: for asymmetric noise the paper has 1.
        confidence_penalty: f64 = 0.0, in NOT_NEGATIVE;
        /// A label counts as right above this probability: tau of the paper, which has 0.6 for 90 % noise.
        clean_above: f64 = 0.5, in (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0));
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
    data: Known,
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

impl Method {
    /// The alpha of MixUp, where images are mixed, from what `mixup` is: without it, methods that always mix have that of their paper.
    pub fn mixup(self, given: Option<f64>) -> Option<f64> {
        match self {
            Self::DivideMix => Some(given.unwrap_or(4.0)),
            Self::ElrPlus => Some(given.unwrap_or(1.0)),
            _ => given,
        }
    }
}

/// With what each parameter is that a manifest does not set.
impl Default for Train {
    fn default() -> Self {
        Self::try_from(RawParameters::default()).expect("every parameter has a default")
    }
}

impl Rules for Train {
    fn version(&self) -> Option<u32> {
        self.precision.newer_than(6)
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
        // Not of labels that a program made: of what they are nothing is known.
        let given_is_clean = inputs
            .at("labels")
            .held_out_is_clean
            .is_some_and(|is_clean| is_clean || inputs.at("split").held_out_is_clean == Some(true));
        let is_judged = inputs.has("split")
            && (self.validation_labels == ValidationLabels::Clean || given_is_clean);
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
        let mut problems = image_problems(data, self.normalise, self.augmentation);
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
        let mut problems = Vec::new();
        if self.method == Method::MetaWeightNet
            && self.meta_samples == MetaSamples::HeldOut
            && !connected.contains(&"split")
        {
            problems.push(Problem::new(
                "method",
                "Meta-Weight-Net learns from clean samples that are held out: connect 'split', or \
                 set meta-samples = \"training\" and meta-loss = \"mae\"",
            ));
        }
        if matches!(self.method, Method::Sop | Method::ForwardCorrection | Method::DivideMix)
            && self.loss != Loss::CrossEntropy
        {
            let message = format!(
                "'{}' has a loss of its own: drop 'loss', or use another method",
                self.method
            );
            problems.push(Problem::new("loss", message));
        }
        if self.method == Method::DivideMix {
            if self.warmup_epochs >= self.epochs {
                let message = format!(
                    "the training has {} epochs, so the samples are never divided: set fewer than that",
                    self.epochs
                );
                problems.push(Problem::new("warmup-epochs", message));
            }
            for (name, is_set) in [
                ("sampling", self.sampling != Sampling::Uniform),
                ("samples-per-epoch", self.samples_per_epoch.is_some()),
            ] {
                if is_set {
                    let message =
                        format!("'dividemix' divides all samples that train: drop '{name}'");
                    problems.push(Problem::new(name, message));
                }
            }
        }
        if self.method == Method::TruncatedLoss {
            if self.loss != Loss::GeneralizedCrossEntropy {
                problems.push(Problem::new(
                    "loss",
                    "'truncated-loss' truncates the generalized cross-entropy: set \
                     loss = \"generalized-cross-entropy\", with q = 0.7 as in the paper",
                ));
            }
            if self.prune_after >= self.epochs {
                let message = format!(
                    "the training has {} epochs, so no sample is ever left out: set fewer than that",
                    self.epochs
                );
                problems.push(Problem::new("prune-after", message));
            }
        }
        if self.method == Method::ForwardCorrection {
            if self.transition == Transition::Known && !connected.contains(&"labels") {
                problems.push(Problem::new(
                    "transition",
                    "the matrix is counted from given labels beside the clean ones: connect 'labels', or set \
                     transition = \"estimated\"",
                ));
            }
            if self.transition == Transition::File && self.matrix.is_none() {
                problems.push(Problem::new(
                    "transition",
                    "transition = \"file\" needs 'matrix': a file with the probabilities",
                ));
            }
            if self.transition == Transition::Estimated && self.estimation_epochs >= self.epochs {
                let message = format!(
                    "the training has {} epochs, so nothing follows on the estimate: set fewer than that",
                    self.epochs
                );
                problems.push(Problem::new("estimation-epochs", message));
            }
        }
        if !connected.contains(&"split") {
            for (name, is_set) in [
                ("select-best", self.select_best == SelectBest::Validation),
                ("validation-labels", self.validation_labels == ValidationLabels::Given),
                (
                    "validation-transform",
                    self.validation_transform == ValidationTransform::Training,
                ),
            ] {
                if is_set {
                    let message =
                        "no samples are held out to be evaluated: connect 'split', or drop it";
                    problems.push(Problem::new(name, message));
                }
            }
        } else if self.validation_labels == ValidationLabels::Given
            && !connected.contains(&"labels")
        {
            problems.push(Problem::new(
                "validation-labels",
                "there are no given labels beside those of the data set: connect 'labels', or drop it",
            ));
        }
        if self.augmentation == Augmentation::CropFlip && self.image_size.is_some() {
            problems.push(Problem::new(
                "augmentation",
                "'crop-flip' moves small images by 4 pixels: with 'image-size', use \
                 \"random-resized-crop\" or \"resize-crop-flip\"",
            ));
        }
        if self.sampling == Sampling::ClassBalanced && self.samples_per_epoch.is_none() {
            problems
                .push(Problem::new("sampling", "class-balanced epochs need 'samples-per-epoch'"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind;

    fn read(parameters: Value) -> Train {
        serde_json::from_value(parameters).unwrap()
    }

    #[test]
    fn what_has_no_effect_is_not_in_the_key() {
        let key = |parameters| kind::key_parameters(&read(parameters));
        for parameters in [
            json!({"q": 0.7}),
            json!({"step-every": 7, "step-factor": 0.1}),
            json!({"meta-learning-rate": 1.0, "inner-learning-rate": 0.3, "normalise-weights": true}),
        ] {
            assert_eq!(key(parameters), key(json!({})));
        }
        let generalized = json!({"loss": "generalized-cross-entropy"});
        let other = json!({"loss": "generalized-cross-entropy", "q": 0.7});
        for (name, loss) in [
            ("forward-weight", "symmetric-cross-entropy"),
            ("passive-weight", "nce-rce"),
            ("smoothing", "label-smoothing"),
            ("given-share", "soft-bootstrapping"),
            ("given-share", "hard-bootstrapping"),
            ("label-share", "jensen-shannon"),
        ] {
            let key = |loss: &str| key(json!({"loss": loss, name: 0.25}));
            assert!(key(loss).contains_key(name) && !key("mae").contains_key(name), "{loss}");
        }
        assert_ne!(key(generalized), key(other));
        let meta = |changes: Value| {
            let mut parameters = json!({"method": "meta-weight-net"});
            parameters.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            key(parameters)
        };
        assert_ne!(meta(json!({})), meta(json!({"meta-learning-rate": 1.0})));
        assert_ne!(meta(json!({})), meta(json!({"inner-learning-rate": 1.0})));
        assert_eq!(
            meta(json!({"inner-rate": "scheduled"})),
            meta(json!({"inner-rate": "scheduled", "inner-learning-rate": 1.0}))
        );
    }

    #[test]
    fn sample_losses_are_in_the_key_only_where_they_are_kept() {
        let key = |parameters| kind::key_parameters(&read(parameters));
        let without = key(json!({"sample-losses": false}));
        assert_eq!(without, key(json!({})));
        assert!(!without.contains_key("sample-losses"));
        assert_eq!(key(json!({"sample-losses": true}))["sample-losses"], json!(true));
    }

    #[test]
    fn a_plain_validation_is_not_in_the_key() {
        let key = |transform: &str| {
            kind::key_parameters(&read(json!({"validation-transform": transform})))
        };
        assert_eq!(key("plain"), kind::key_parameters(&read(json!({}))));
        assert!(!key("plain").contains_key("validation-transform"));
        assert_eq!(key("training")["validation-transform"], json!("training"));
    }

    #[test]
    fn the_choice_of_a_model_is_in_the_key_only_where_it_is_not_the_last() {
        let key = |parameters| kind::key_parameters(&read(parameters));
        let usual = json!({"select-best": "last", "validation-labels": "clean"});
        assert_eq!(key(usual), key(json!({})));
        for (name, value) in [("select-best", "validation"), ("validation-labels", "given")] {
            assert!(!key(json!({})).contains_key(name));
            assert_eq!(key(json!({name: value}))[name], json!(value));
        }
        let given = read(json!({"validation-labels": "given"}));
        let check = |connected: &[&str]| given.check(connected).len();
        assert_eq!([check(&["data", "split"]), check(&["data", "split", "labels"])], [1, 0]);
    }

    #[test]
    fn what_is_for_samples_that_are_held_out_needs_some() {
        for (name, value) in [
            ("select-best", "validation"),
            ("validation-labels", "given"),
            ("validation-transform", "training"),
        ] {
            let stage = read(json!({name: value}));
            let fields = stage.check(&["data", "labels"]).into_iter().map(|problem| problem.field);
            assert_eq!(fields.collect::<Vec<_>>(), [name]);
            assert!(stage.check(&["data", "labels", "split"]).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_term_of_elr_plus_that_does_not_rise_is_not_in_the_key() {
        let key = |share: f64| {
            kind::key_parameters(&read(
                json!({"method": "elr-plus", "regularization-ramp-up": share}),
            ))
        };
        assert!(!key(0.0).contains_key("regularization-ramp-up"));
        assert_eq!(key(0.4)["regularization-ramp-up"], json!(0.4));
    }

    #[test]
    fn mixup_is_in_the_key_only_where_images_are_mixed() {
        let key = |parameters| kind::key_parameters(&read(parameters));
        assert!(!key(json!({})).contains_key("mixup"));
        assert_eq!(key(json!({"mixup": 1.0}))["mixup"], json!(1.0));
        for (method, alpha) in [("dividemix", 4.0), ("elr-plus", 1.0)] {
            let without = key(json!({"method": method}));
            assert!(!without.contains_key("mixup"));
            assert_eq!(key(json!({"method": method, "mixup": alpha})), without, "{method}");
            assert_eq!(key(json!({"method": method, "mixup": 2.0}))["mixup"], json!(2.0));
        }
    }

    #[test]
    fn a_meta_weight_net_needs_samples_to_learn_from() {
        let stage = read(json!({"method": "meta-weight-net"}));
        assert_eq!(stage.check(&["data"]).len(), 1);
        assert!(stage.check(&["data", "split"]).is_empty());
        let own = read(json!({"method": "meta-weight-net", "meta-samples": "training"}));
        assert!(own.check(&["data"]).is_empty());
    }

    #[test]
    fn clean_labels_are_used_where_they_decide() {
        use CleanLabels::{Decide, Judge, Unused};

        let port = |name: &str, held_out_is_clean| {
            (name.to_owned(), Known { held_out_is_clean, ..Known::default() })
        };
        let inputs =
            |labels, split| KnownInputs::new([port("labels", labels), port("split", split)]);
        let noisy = inputs(Some(false), None);
        for (parameters, expected) in [
            (json!({}), Judge),
            (json!({"method": "meta-weight-net"}), Decide),
            (json!({"method": "meta-weight-net", "meta-samples": "training"}), Judge),
            (json!({"method": "forward-correction"}), Judge),
            (json!({"method": "forward-correction", "transition": "known"}), Decide),
            (json!({"transition": "known"}), Judge),
            (json!({"select-best": "average"}), Judge),
            (json!({"select-best": "validation"}), Decide),
            (json!({"validation-labels": "given"}), Unused),
            (json!({"select-best": "validation", "validation-labels": "given"}), Unused),
        ] {
            assert_eq!(read(parameters.clone()).clean_labels(&noisy), expected, "{parameters}");
        }
        let given = read(json!({"select-best": "validation", "validation-labels": "given"}));
        for (labels, split, expected) in [
            (Some(true), None, Decide),
            (Some(false), Some(true), Decide),
            (None, Some(true), Unused),
            (None, None, Unused),
        ] {
            let used = given.clean_labels(&inputs(labels, split));
            assert_eq!(used, expected, "labels {labels:?}, split {split:?}");
        }
        let without_split =
            |labels| read(json!({})).clean_labels(&KnownInputs::new([port("labels", labels)]));
        assert_eq!([Some(true), Some(false), None].map(without_split), [Decide, Unused, Unused]);
    }

    #[test]
    fn over_parameterization_has_a_loss_of_its_own() {
        for method in ["sop", "forward-correction", "dividemix"] {
            let check = |loss: &str| read(json!({"method": method, "loss": loss})).check(&[]).len();
            assert_eq!([check("cross-entropy"), check("mae")], [0, 1], "{method}");
        }
    }

    #[test]
    fn all_samples_are_divided_in_time() {
        let check = |changes: Value| {
            let mut stage = json!({"method": "dividemix", "epochs": 11});
            stage.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            read(stage).check(&[]).iter().map(|problem| problem.field.clone()).collect::<Vec<_>>()
        };
        assert!(check(json!({})).is_empty());
        assert_eq!(check(json!({"warmup-epochs": 11})), ["warmup-epochs"]);
        let balanced = check(json!({"sampling": "class-balanced", "samples-per-epoch": 20}));
        assert_eq!(balanced, ["sampling", "samples-per-epoch"]);
    }

    #[test]
    fn a_truncated_loss_is_bounded_and_truncated_in_time() {
        let check = |loss: &str, epochs: u32| {
            let stage = json!({"method": "truncated-loss", "loss": loss, "epochs": epochs});
            read(stage).check(&[]).len()
        };
        let loss = "generalized-cross-entropy";
        assert_eq!([check(loss, 41), check(loss, 40), check("mae", 41)], [0, 1, 1]);
    }

    #[test]
    fn a_matrix_is_counted_read_or_estimated_in_time() {
        let check = |transition: &str, epochs: u32, connected: &[&str]| {
            let stage = json!({
                "method": "forward-correction", "transition": transition, "epochs": epochs,
            });
            read(stage).check(connected).len()
        };
        assert_eq!([check("known", 5, &["labels"]), check("known", 5, &[])], [0, 1]);
        assert_eq!([check("estimated", 11, &[]), check("estimated", 10, &[])], [0, 1]);
        assert_eq!(check("file", 5, &[]), 1);
    }

    #[test]
    fn of_a_matrix_in_a_file_the_content_counts() {
        let stage = |transition: &str| {
            let stage = json!({"method": "forward-correction", "transition": transition, "matrix": "a.csv"});
            read(stage)
        };
        let from_a_file = stage("file");
        assert!(from_a_file.check(&[]).is_empty());
        assert_eq!(from_a_file.outside_paths(), [OutsidePath::matrix("matrix", "a.csv")]);
        assert_eq!(stage("estimated").outside_paths(), []);
        let given = json!({"transition": "file", "matrix": "a.csv"});
        let key = from_a_file.key_parameters(given.as_object().unwrap().clone());
        assert_eq!(Value::Object(key), json!({"transition": "file"}));
    }

    #[test]
    fn small_moves_are_for_images_of_the_data_sets_own_size() {
        let check = |stage: Value| read(stage).check(&[]).len();
        assert_eq!(check(json!({"augmentation": "crop-flip", "image-size": 64})), 1);
        assert_eq!(check(json!({"augmentation": "crop-flip"})), 0);
        assert_eq!(check(json!({"augmentation": "resize-crop-flip", "image-size": 64})), 0);
    }

    #[test]
    fn balanced_epochs_need_a_length() {
        assert_eq!(read(json!({"sampling": "class-balanced"})).check(&[]).len(), 1);
        let whole = json!({"sampling": "class-balanced", "samples-per-epoch": 128_000});
        assert!(read(whole).check(&[]).is_empty());
    }
}
