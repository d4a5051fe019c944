//! `probe`: how good the features of an encoder are.

use super::precision::Precision;
use super::train::{Augmentation, Normalise, image_problems};
use crate::kind::{Problem, Rules};
use crate::known::{KnownInputs, differing};
use crate::parameter::{AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE};

choices! {
    /// What classifies the features.
    pub enum ProbeClassifier {
        /// A linear layer, trained from zero by cross-entropy: SGD momentum 0.9, the learning rate falling linearly to 0.
        Linear,
        /// The nearest training samples by cosine, each voting for its label by exp(cosine / temperature).
        Knn,
    }
}

kind! {
    /// Measures an encoder: a simple classifier on its frozen features, and its accuracy on the test set.
    ///
    /// The encoder runs in evaluation mode and does not change; pixels are scaled as it was trained. The defaults
    /// are those of a common linear evaluation of SimCLR, but shorter: that one has 80,000 steps, which are 1,633 epochs of CIFAR. `metrics.json` has `linear-accuracy` or `knn-accuracy`, and
    /// `linear-top5-accuracy` or `knn-top5-accuracy` where there are more than 5 classes: fractions from 0 to 1,
    /// of the test set; with a split also `linear-validation-accuracy` or `knn-validation-accuracy`, of the samples held
    /// out. A linear probe writes `curves.csv`, one row per epoch: loss, accuracy, learning rate. Without random augmentation, the features are
    /// computed once, in one pass that starts again when it is interrupted.
    Probe = "probe", version 4, seeded true, output Metrics;
    ports {
        /// The encoder.
        weights: One[Weights, Model];
        /// The data set.
        data: One[Dataset];
        /// The labels to learn from. Without it: the data set's own.
        labels: Optional[Labels];
        /// Which samples are learned from. Without it: all training samples.
        split: Optional[Split];
    }
    parameters {
        /// What classifies the features.
        classifier: ProbeClassifier = ProbeClassifier::Linear;
        /// Samples per step; for `knn` it only changes how much memory is needed.
        ///
        /// All of them, if there are fewer. One sample left over at the end of an epoch joins the step before it.
        batch_size: u64 = 1024, in AT_LEAST_ONE;
        /// The side in pixels of the images that the encoder sees. Without it: the data set's own; for encoded images 224.
        image_size: Option<u32> = None, in 1.0..=4096.0;
        /// The precision of the encoder's matrix products and convolutions.
        precision: Precision = Precision::F32;
    }
    only if (classifier: [ProbeClassifier::Linear]) {
        /// Passes over the training samples.
        epochs: u32 = 100, in AT_LEAST_ONE;
        /// The first learning rate.
        learning_rate: f64 = 0.1, in POSITIVE;
        /// Weight decay, of the bias too.
        weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// How a training image is changed before each use.
        augmentation: Augmentation = Augmentation::CropFlip;
    }
    only if (classifier: [ProbeClassifier::Knn]) {
        /// How many neighbours vote.
        k: u64 = 200, in AT_LEAST_ONE;
        /// The temperature of the votes.
        temperature: f64 = 0.1, in POSITIVE;
    }
    execution {}
    headline ["linear-accuracy", "knn-accuracy"]
}

impl Rules for Probe {
    fn version(&self) -> Option<u32> {
        self.precision.newer_than(4)
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let (data, weights) = (inputs.at("data"), inputs.at("weights"));
        let mut problems = match self.classifier {
            ProbeClassifier::Linear => image_problems(data, Normalise::Auto, self.augmentation),
            ProbeClassifier::Knn => Vec::new(),
        };
        if let Some((of_weights, own)) = differing(weights.channels, data.channels) {
            let message = format!(
                "the encoder takes images with {of_weights} channels, but the data set has {own}"
            );
            problems.push(Problem::new("weights", message));
        }
        problems
    }

    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        let moves = self.classifier == ProbeClassifier::Linear
            && self.augmentation == Augmentation::CropFlip;
        if moves && self.image_size.is_some() {
            return vec![Problem::new(
                "augmentation",
                "'crop-flip' (the default) moves small images by 4 pixels: with 'image-size', use \
                 \"random-resized-crop\" or \"resize-crop-flip\", or \"none\" to see every image alike",
            )];
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kind;

    #[test]
    fn small_images_alone_are_moved() {
        let problems = |parameters: Value| {
            serde_json::from_value::<Probe>(parameters).unwrap().check(&[]).len()
        };
        assert_eq!(problems(json!({})), 0);
        assert_eq!(problems(json!({"image-size": 224})), 1);
        assert_eq!(problems(json!({"image-size": 224, "augmentation": "none"})), 0);
        assert_eq!(problems(json!({"image-size": 224, "classifier": "knn"})), 0);
    }

    #[test]
    fn what_has_no_effect_is_not_in_the_key() {
        let key = |parameters: Value| {
            kind::key_parameters(&serde_json::from_value::<Probe>(parameters).unwrap())
        };
        assert_eq!(key(json!({})), key(json!({"k": 5, "temperature": 1.0})));
        assert_ne!(key(json!({})), key(json!({"learning-rate": 0.2})));
        let knn = |changes: Value| {
            let mut parameters = json!({"classifier": "knn"});
            parameters.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            key(parameters)
        };
        assert_eq!(knn(json!({})), knn(json!({"epochs": 3, "augmentation": "none"})));
        assert_ne!(knn(json!({})), knn(json!({"k": 5})));
    }
}
