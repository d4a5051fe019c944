//! `probe`: how good the features of an encoder are.

use super::architecture::EncoderArchitecture;
use super::features::encoder_problems;
use super::precision::Precision;
use super::train::{Augmentation, Normalise, image_problems};
use crate::clean_labels::CleanLabels;
use crate::form::Form;
use crate::kind::{Kind, Problem, Rules};
use crate::known::{Images, Known, KnownInputs, KnownMetrics, differing};
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
    /// computed once, in one pass that starts again when it is interrupted; or a stage `features` has computed them, for many
    /// probes, and the probe takes seconds.
    Probe = "probe", version 4, seeded true, output Metrics;
    ports {
        /// The encoder; of a model of two networks that of the first. Without it: `features` takes its place.
        weights: Optional[Weights, Model];
        /// What the encoder made of the images. Then nothing is augmented, and the images are not read.
        features: Optional[Features];
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
        /// The side in pixels of the images that the encoder sees. Without it: the data set's own; for encoded images and for vision transformers 224. Not with `features`, whose stage has it.
        image_size: Option<u32> = None, in 1.0..=4096.0;
        /// The precision of the encoder's matrix products and convolutions. With `features` it stays at its default, as their stage has it.
        precision: Precision = Precision::F32;
    }
    only if (classifier: [ProbeClassifier::Linear]) {
        /// Passes over the training samples.
        epochs: u32 = 100, in AT_LEAST_ONE;
        /// The first learning rate.
        learning_rate: f64 = 0.1, in POSITIVE;
        /// Weight decay, of the bias too.
        weight_decay: f64 = 1e-4, in NOT_NEGATIVE;
        /// How a training image is changed before each use. With `features` in place of `weights` it must be `none`.
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

impl Probe {
    /// All that it may write.
    pub const fn metrics(&self) -> KnownMetrics {
        let names: &[_] = match self.classifier {
            ProbeClassifier::Linear => {
                &["linear-accuracy", "linear-top5-accuracy", "linear-validation-accuracy"]
            }
            ProbeClassifier::Knn => {
                &["knn-accuracy", "knn-top5-accuracy", "knn-validation-accuracy"]
            }
        };
        KnownMetrics { kind: <Self as Kind>::NAME, names }
    }
}

impl Rules for Probe {
    fn forms() -> &'static [Form] {
        &[Form::Either(&["weights"], "features")]
    }

    fn knows(&self, _inputs: &KnownInputs) -> Known {
        Known { metrics: Some(self.metrics()), ..Known::default() }
    }

    fn version(&self) -> Option<u32> {
        self.precision.newer_than(4)
    }

    fn clean_labels(&self, inputs: &KnownInputs) -> CleanLabels {
        match inputs.learns_from_held_out() {
            true => CleanLabels::Decide,
            false => CleanLabels::Unused,
        }
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let (data, features) = (inputs.at("data"), inputs.at("features"));
        let mut problems = match self.classifier {
            ProbeClassifier::Linear => image_problems(&data, Normalise::Auto, self.augmentation),
            ProbeClassifier::Knn => Vec::new(),
        };
        problems.extend(encoder_problems(inputs, self.image_size));
        let usual_side =
            inputs.at("weights").architecture.and_then(EncoderArchitecture::usual_side);
        let is_pixels = data.images != Some(Images::Encoded);
        if self.moves() && is_pixels && self.image_size.is_none() && usual_side.is_some() {
            problems.push(Problem::new(
                "augmentation",
                "'crop-flip' (the default) moves small images by 4 pixels, and a vision transformer sees them resized to 224: use \
                 \"random-resized-crop\" or \"resize-crop-flip\", or \"none\" to see every image alike",
            ));
        }
        if let Some((of_features, own)) = differing(features.classes, data.classes) {
            let message = format!(
                "the features are of a data set with {of_features} classes, but this one has {own}"
            );
            problems.push(Problem::new("features", message));
        }
        problems
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        match ["weights", "features"].map(|port| connected.contains(&port)) {
            [true, false] => {}
            [false, true] => return self.problems_with_features(),
            [false, false] => {
                let message =
                    "a stage of the kind 'probe' needs 'weights', an encoder, or 'features'";
                return vec![Problem::new("weights", message)];
            }
            [true, true] => {
                let message = "'features' takes the place of 'weights': connect one of them";
                return vec![Problem::new("features", message)];
            }
        }
        if self.moves() && self.image_size.is_some() {
            return vec![Problem::new(
                "augmentation",
                "'crop-flip' (the default) moves small images by 4 pixels: with 'image-size', use \
                 \"random-resized-crop\" or \"resize-crop-flip\", or \"none\" to see every image alike",
            )];
        }
        Vec::new()
    }
}

impl Probe {
    /// Whether training images are moved by a few pixels.
    fn moves(&self) -> bool {
        self.classifier == ProbeClassifier::Linear && self.augmentation == Augmentation::CropFlip
    }

    /// Of parameters that say what an encoder sees, and how it computes.
    fn problems_with_features(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: &str| problems.push(Problem::new(field, message));
        if self.classifier == ProbeClassifier::Linear && self.augmentation != Augmentation::None {
            problem(
                "augmentation",
                "'features' are of images as they are: augmentation = \"none\", or connect 'weights'",
            );
        }
        if self.image_size.is_some() {
            problem(
                "image-size",
                "'image-size' is a parameter of the stage 'features' is connected to",
            );
        }
        if self.precision != Precision::F32 {
            problem(
                "precision",
                "'precision' is a parameter of the stage 'features' is connected to",
            );
        }
        problems
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
            serde_json::from_value::<Probe>(parameters).unwrap().check(&["weights"]).len()
        };
        assert_eq!(problems(json!({})), 0);
        assert_eq!(problems(json!({"image-size": 224})), 1);
        assert_eq!(problems(json!({"image-size": 224, "augmentation": "none"})), 0);
        assert_eq!(problems(json!({"image-size": 224, "classifier": "knn"})), 0);
    }

    #[test]
    fn features_take_the_place_of_an_encoder_and_its_parameters() {
        let problems = |parameters: Value, connected: &[&str]| -> Vec<String> {
            let probe = serde_json::from_value::<Probe>(parameters).unwrap();
            probe.check(connected).into_iter().map(|problem| problem.field).collect()
        };
        assert_eq!(problems(json!({}), &[]), ["weights"]);
        assert_eq!(problems(json!({}), &["weights", "features"]), ["features"]);
        assert_eq!(problems(json!({}), &["features"]), ["augmentation"]);
        assert!(problems(json!({"augmentation": "none"}), &["features"]).is_empty());
        let knn = json!({"classifier": "knn", "image-size": 8, "precision": "bf16"});
        assert_eq!(problems(knn, &["features"]), ["image-size", "precision"]);
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
