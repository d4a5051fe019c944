//! Which parameters of `train` do not go together.

use super::{
    Augmentation, Loss, MetaSamples, Method, Sampling, SelectBest, Train, Transition,
    ValidationLabels, ValidationTransform,
};
use crate::kind::Problem;

/// The smallest `mixup` with which images are mixed. With smaller ones nearly all shares are 0 or 1.
const SMALLEST_MIXUP: f64 = 1e-3;

impl Train {
    /// What is wrong with the parameters, given the names of the ports that are connected.
    pub(super) fn problems(&self, connected: &[&str]) -> Vec<Problem> {
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
            } else if self.loss_epochs > self.epochs - self.warmup_epochs {
                let divided = self.epochs - self.warmup_epochs;
                let message = format!(
                    "the samples are divided in {divided} epochs after 'warmup-epochs': set no more than that"
                );
                problems.push(Problem::new("loss-epochs", message));
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
                    let message = format!(
                        "no samples are held out to be evaluated: connect 'split', or drop '{name}'"
                    );
                    problems.push(Problem::new(name, message));
                }
            }
        } else if self.validation_labels == ValidationLabels::Given
            && !connected.contains(&"labels")
        {
            problems.push(Problem::new(
                "validation-labels",
                "there are no given labels beside those of the data set: connect 'labels', or drop 'validation-labels'",
            ));
        }
        if self.augmentation == Augmentation::None {
            let generalized = self.method == Method::Finetune && self.loss == Loss::JensenShannon;
            for (name, has_views, without) in [
                ("consistency", self.method == Method::Sop && self.consistency > 0.0, 0),
                ("views", generalized && self.views > 1, 1),
            ] {
                if has_views {
                    let message = format!(
                        "without augmentation, all views of an image are the same, and comparing them only takes time: \
                         set another 'augmentation', or {name} = {without}"
                    );
                    problems.push(Problem::new(name, message));
                }
            }
        }
        if let Some(alpha) = self.mixup.filter(|alpha| 0.0 < *alpha && *alpha < SMALLEST_MIXUP) {
            let message = format!(
                "{alpha} is neither 0, for images that are not mixed, nor at least {SMALLEST_MIXUP}"
            );
            problems.push(Problem::new("mixup", message));
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
