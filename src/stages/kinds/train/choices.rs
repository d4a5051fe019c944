//! What the parameters of `train` are chosen from.

choices! {
    /// How a classifier is trained.
    pub enum Method {
        /// Encoder and classifier together, by the loss alone.
        Finetune,
        /// Meta-Weight-Net: a small net learns the weight of a sample from its loss, so that a step on the weighted batch helps on clean samples.
        /// Needs `split`, or `meta-samples = "training"`.
        MetaWeightNet,
        /// Forward correction: the loss is that of the given labels which the predicted classes make likely, by a matrix of how often a label stands for a class.
        /// `loss` stays at its default.
        ForwardCorrection,
        /// Early-learning regularization: earlier predictions of the network become targets of each sample, and a term keeps the network at them.
        Elr,
        /// Sparse over-parameterization: each sample has numbers of its own that explain what is wrong with its label. `loss` stays at its default.
        Sop,
        /// Co-teaching: two networks, each of which learns from the samples of a batch that the other one has small losses for. The model is both: the mean of their predictions.
        CoTeaching,
        /// The truncated loss: every few epochs, samples whose label the network finds too unlikely are left out. Needs `loss = "generalized-cross-entropy"`.
        TruncatedLoss,
        /// DivideMix: two networks, each of which says for the other one which labels are right; the other samples are learned from without labels. The model is both: the
        /// mean of their predictions. From an encoder of `pretrain-simclr` it is C2D. `loss` stays at its default. Not with
        /// `sampling = "class-balanced"` or `samples-per-epoch`, as it divides all samples that train.
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
        /// Padded by 4 pixels (reflected) and cropped back at random, then flipped half of the time. For small images: not with `image-size`, encoded images or vision transformers.
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
        /// To [0, 1], then by the mean and the standard deviation of ImageNet's images, per channel. Needs images with three channels.
        Imagenet,
    }
}

choices! {
    /// Which training samples an epoch has.
    pub enum Sampling {
        /// Each one once; with `samples-per-epoch`, this many of them.
        Uniform,
        /// As many of each class (by the labels trained on), drawn again for every epoch: `samples-per-epoch` in total, which must be given. Not with `dividemix`. Where that does not divide, the first classes have one more; where a class has too few, it has some more than once, augmented alike within an epoch.
        ClassBalanced,
    }
}

choices! {
    /// How the samples held out are shown to an evaluation during training.
    pub enum ValidationTransform {
        /// As test images are: nothing is drawn.
        Plain,
        /// As training images are, drawn again for each evaluation. The code of Ghosh and Lan (2021) does so. Needs `split`.
        Training,
    }
}

choices! {
    /// Which labels the samples held out are judged by, in evaluations during training.
    pub enum ValidationLabels {
        /// Those of the data set.
        Clean,
        /// Those of `labels`, which are what is known in practice. Needs `labels` and `split`.
        Given,
    }
}

choices! {
    /// Which networks become the model.
    pub enum SelectBest {
        /// Those of the last step.
        Last,
        /// Those of the evaluation with the best validation accuracy; of equal ones the first. Needs `split`.
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
        /// Counted from the clean labels of the training samples: what nobody has in practice, for comparison. Needs `labels`.
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
        /// Those held out by the split, with their clean labels. Needs `split`.
        HeldOut,
        /// The training samples with their given labels, wrong ones too: set `meta-loss = "mae"`, which is robust to them. With cross-entropy, the weights favour
        /// what the wrong labels say.
        Training,
    }
}

impl Method {
    /// The alpha of MixUp, where images are mixed, from what `mixup` is: without it, methods with MixUp have that of their paper.
    pub fn mixup(self, given: Option<f64>) -> Option<f64> {
        let of_paper = match self {
            Self::DivideMix => Some(4.0),
            Self::ElrPlus => Some(1.0),
            _ => None,
        };
        given.or(of_paper).filter(|alpha| *alpha > 0.0)
    }
}
