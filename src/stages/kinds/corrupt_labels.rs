//! `corrupt-labels`: label noise, drawn as the reference protocol draws it.

use std::collections::BTreeMap;

use super::class_names;
use crate::kind::{LARGEST_NUMPY_SEED, OutsidePath, Problem, Rules, WithoutEffect};
use crate::known::{Images, Known, KnownInputs};
use crate::text::no_such_class;

choices! {
    /// The shape of the noise matrix (rows: the true class), or another source of labels.
    pub enum Noise {
        /// rate/K everywhere plus 1 - rate on the diagonal: the true class is among the targets.
        Symmetric,
        /// 1 - rate on the diagonal, rate on one other class, drawn for each row.
        Flip,
        /// 1 - rate on the diagonal, rate/2 on each of two other classes, drawn for each row.
        Flip2,
        /// 1 - rate on the diagonal, rate on the next class; the next of the last class is the first (Co-teaching, Han et al. 2018).
        Pairflip,
        /// 1 - rate on the diagonal, rate on the class that this one is mistaken for: built-in pairs for CIFAR-10 and CIFAR-100, or `pairs`.
        Asymmetric,
        /// The probabilities in a file of your own, `matrix`.
        Matrix,
        /// No matrix: part-dependent noise (Xia et al. 2020). The pixels of a sample, projected at random for its class, say which other classes are likely for it, and a flip rate of its own says how likely all of them are together. Flip rates are normal around `rate` with standard deviation 0.1, truncated to [0, 1], so that their mean is 0.13 at rate 0.1, 0.21 at 0.2, 0.87 at 0.9 and 0.92 at 1. It would be 0.08 at 0, which is a mistake. Needs pixels.
        Instance,
        /// No matrix: human labels of the images of CIFAR-10 or CIFAR-100 (CIFAR-10N, CIFAR-100N), from the port `human`, which must be connected.
        Human,
        /// No matrix: labels of your own, from a CSV file: either `path` or the port `source`.
        File,
    }
}

impl Noise {
    /// Whether the labels are drawn at random; otherwise they are read.
    fn is_drawn(self) -> bool {
        !matches!(self, Noise::Human | Noise::File)
    }
}

choices! {
    /// Which human labels to take.
    pub enum HumanLabels {
        /// CIFAR-10N: the majority of three people (9 % wrong).
        Aggregate,
        /// CIFAR-10N: a wrong label, if one of the three people chose one (40 % wrong).
        Worse,
        /// CIFAR-10N: the first person (17 % wrong).
        Random1,
        /// CIFAR-10N: the second person (18 % wrong).
        Random2,
        /// CIFAR-10N: the third person (18 % wrong).
        Random3,
        /// CIFAR-100N: the one person (40 % wrong).
        Noisy,
    }
}

kind! {
    /// Corrupts training labels with a noise matrix or by what is in the images, or replaces them with human labels or your own.
    ///
    /// The draws are those of the reference protocol: NumPy's legacy generator (`seed`, `choice`),
    /// the matrix first, if it is drawn, then one draw for each training sample in the order of the split. Held-out samples stay clean.
    /// The seed must fit in 32 bits, as NumPy's does. `noise.json` has the realised matrix, and the requested one if there is one.
    ///
    /// `instance` draws as the code of its authors does, `get_instance_noisy_label`: all flip rates, the projections, then the labels; pixels count
    /// from 0 to 255. Theirs corrupts all training samples and splits them afterwards: the same labels need this stage without `split`, and a data
    /// set without validation samples of its own. That code computes in 32 bits and this one in 64, so a label may differ where its draw
    /// is near to the boundary between two classes. Of 40,000 labels that were compared, none differs; no draw was within 1e-6 of a boundary, and 17 were within 1e-4.
    ///
    /// The CSV file of `file` has a line of names, and then a row for each sample. `label` is the class, by name or, where all of them are
    /// numbers, by number from 0; where a class is called by another number than its own, all are names. Lines above and below that begin with `#` are
    /// skipped, but for one that names the columns (`# label`) where no other line does, as `np.savetxt` writes its `header`. `path` names the sample as `files.csv` of an image folder's data set does (`train/cat/1.jpg`), or `index`
    /// does, its place in the training part from 0. Other columns do not count. A file of labels alone, with or without the name `label`
    /// above them, is in the order of the training part. A sample that trains and has no row is a mistake; rows of other samples are not used.
    CorruptLabels = "corrupt-labels", version 2, seeded true, output Labels;
    ports {
        /// The data set.
        data: One[Dataset];
        /// Which samples to corrupt, in which order. Without it: all, from the first to the last.
        split: Optional[Split];
        /// For `human`: `CIFAR-10_human.pt` or `CIFAR-100_human.pt`.
        human: Optional[File, Directory];
        /// For `file`: the CSV file; in a folder with several files, `labels.csv`.
        source: Optional[File, Directory];
    }
    parameters {
        /// The shape of the noise matrix. The port `human` is only for `human`, and `source` only for `file`.
        noise: Noise = Noise::Symmetric;
    }
    only if (noise: [
        Noise::Symmetric, Noise::Flip, Noise::Flip2, Noise::Pairflip, Noise::Asymmetric, Noise::Instance,
    ]) {
        /// The noise rate. It must be given.
        rate: Option<f64> = None, in crate::parameter::FRACTION;
    }
    only if (noise: [Noise::Symmetric, Noise::Flip, Noise::Flip2, Noise::Pairflip]) {
        /// Only the labels of these classes, by name, are corrupted. By default those of all classes.
        classes: Option<Vec<String>> = None;
    }
    only if (noise: [Noise::Asymmetric]) {
        /// Which class is mistaken for which, by name. Needed on data sets other than CIFAR-10 and CIFAR-100.
        pairs: BTreeMap<String, String> = BTreeMap::new();
    }
    only if (noise: [Noise::Matrix]) {
        /// A text file, relative to the manifest: for each true class, in the order of the data set, a line with the probability of each label. Commas or spaces are between the numbers, which sum to 1. A first line of names, none of which is a number, is skipped, and so is what follows a `#`: `np.savetxt` writes such files, and the `transition.csv` of a `train` stage with `method = "forward-correction"` is one. It must be given.
        matrix: Option<String> = None;
    }
    only if (noise: [Noise::Human]) {
        /// Whose labels to take. It must be given.
        human_labels: Option<HumanLabels> = None;
    }
    only if (noise: [Noise::File]) {
        /// A CSV file of your own, relative to the manifest, instead of `source`.
        path: Option<String> = None;
    }
    execution {}
    headline ["noise-rate"]
}

impl CorruptLabels {
    /// Why noise = "instance" cannot be drawn for images of this many values (all channels) and this many classes. It
    /// projects the values to the classes with a 32-bit number for each pair, for one true class at a time: 1 GiB at most.
    pub fn instance_problem(values: u64, classes: u64) -> Option<String> {
        if classes < 2 {
            return Some(
                "noise = \"instance\" needs a data set of at least two classes".to_owned(),
            );
        }
        let fits = values.saturating_mul(classes) <= (1 << 30) / 4;
        (!fits).then(|| {
            format!(
                "noise = \"instance\" projects the {values} values of an image to {classes} classes, which takes more than \
                 1 GiB: use smaller images, such as an image-folder with a lower 'size', or fewer classes"
            )
        })
    }

    fn pair_problems(&self) -> Vec<Problem> {
        let with_itself = self.pairs.iter().filter(|(source, target)| source == target);
        with_itself
            .map(|(class, _)| Problem::new("pairs", format!("'{class}' is mistaken for itself")))
            .collect()
    }

    /// Names that are none of these classes.
    fn unknown_classes(&self, names: &[String]) -> Vec<Problem> {
        let unknown = |name: &&String| !names.contains(*name);
        let listed = self.classes.iter().flatten().enumerate();
        let listed = listed.filter(|(_, name)| unknown(name)).map(|(item, name)| {
            Problem::new("classes", no_such_class(name, names)).with_item(item)
        });
        let paired = self.pairs.iter().flat_map(|(source, target)| [source, target]);
        let paired = paired.filter(unknown);
        let paired = paired.map(|name| Problem::new("pairs", no_such_class(name, names)));
        listed.chain(paired).collect()
    }

    /// What each noise needs, and others must not have.
    fn source_problems(&self, connected: &[&str]) -> Vec<Problem> {
        let human = connected.contains(&"human");
        let source = connected.contains(&"source");
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: &str| problems.push(Problem::new(field, message));
        match self.noise {
            Noise::Human => {
                if !human {
                    problem(
                        "noise",
                        "noise = \"human\" needs the port 'human': connect it to a stage that produces \
                         CIFAR-10_human.pt or CIFAR-100_human.pt",
                    );
                }
                if self.human_labels.is_none() {
                    problem(
                        "human-labels",
                        "noise = \"human\" needs 'human-labels': whose to take",
                    );
                }
            }
            Noise::Matrix if self.matrix.is_none() => {
                problem(
                    "matrix",
                    "noise = \"matrix\" needs 'matrix': a file with the probabilities",
                );
            }
            Noise::Matrix => {}
            Noise::File if source && self.path.is_some() => {
                problem("path", "the stage has both 'source' and 'path': drop one of them");
            }
            Noise::File if !source && self.path.is_none() => {
                problem(
                    "noise",
                    "noise = \"file\" needs a CSV file with the labels: set 'path' to it, or connect 'source' to a stage",
                );
            }
            Noise::File => {}
            _ if self.rate.is_none() => {
                problem("rate", "a stage of the kind 'corrupt-labels' needs 'rate'");
            }
            Noise::Instance if self.rate == Some(0.0) => {
                problem(
                    "rate",
                    "noise = \"instance\" is not clean at rate = 0: flip rates are truncated at 0, and 8 % of the \
                     labels would be wrong; for clean labels take another noise, or train without 'labels'",
                );
            }
            _ => {}
        }
        if human && self.noise != Noise::Human {
            problem("human", "'human' is only for noise = \"human\"");
        }
        if source && self.noise != Noise::File {
            problem("source", "'source' is only for noise = \"file\"");
        }
        problems
    }
}

impl Rules for CorruptLabels {
    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        let mut problems = self.pair_problems();
        problems.extend(class_names::problems(self.classes.as_deref()));
        problems.extend(self.source_problems(connected));
        problems
    }

    fn largest_seed(&self) -> u64 {
        if self.noise.is_drawn() { LARGEST_NUMPY_SEED } else { u64::MAX }
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let unknown = inputs.at("data").class_names.map(|names| self.unknown_classes(&names));
        if let Some(unknown) = unknown.filter(|problems| !problems.is_empty()) {
            return unknown;
        }
        let needs_pairs = self.noise == Noise::Asymmetric && self.pairs.is_empty();
        if needs_pairs && inputs.at("data").has_noise_pairs == Some(false) {
            let message = "noise = \"asymmetric\" needs 'pairs' on this data set: which class is \
                           mistaken for which, such as pairs = { cat = \"dog\" } (only CIFAR-10 and \
                           CIFAR-100 have pairs of their own)";
            return vec![Problem::new("noise", message)];
        }
        if self.noise != Noise::Instance {
            return Vec::new();
        }
        let data = inputs.at("data");
        if data.images == Some(Images::Encoded) {
            let message = "noise = \"instance\" depends on pixels, and the images of this data set are encoded, of any size: \
                           use a data set of pixels, such as an image-folder with encoded = false";
            return vec![Problem::new("noise", message)];
        }
        let size = data.values().zip(data.classes);
        let problem = size.and_then(|(values, classes)| Self::instance_problem(values, classes));
        problem.map(|message| Problem::new("noise", message)).into_iter().collect()
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        let held_out_is_clean = Some(inputs.has("split"));
        Known { held_out_is_clean, split: inputs.at("split").split, ..Known::default() }
    }

    fn without_effect(&self) -> Vec<WithoutEffect> {
        let drawn = Noise::ALL.iter().copied().filter(|noise| noise.is_drawn());
        let seed = WithoutEffect::unless("seed", "noise", self.noise, &drawn.collect::<Vec<_>>());
        (!self.noise.is_drawn()).then_some(seed).into_iter().collect()
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        let file = match self.noise {
            Noise::Matrix => self.matrix.as_ref().map(|path| OutsidePath::matrix("matrix", path)),
            Noise::File => self.path.as_ref().map(|path| OutsidePath::file("path", path)),
            _ => None,
        };
        file.into_iter().collect()
    }

    // With `pairs` for any noise: keys had it before groups of parameters existed. Of a file the content is in the key,
    // not the path. The order of `classes` changes nothing.
    fn key_parameters(
        &self,
        mut all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.retain(|name, value| !value.is_null() && name != "matrix" && name != "path");
        all.entry("pairs").or_insert_with(|| serde_json::json!({}));
        if let Some(classes) = all.get_mut("classes").and_then(serde_json::Value::as_array_mut) {
            classes.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pairs_go_with_asymmetric_noise_and_change_the_class() {
        for (noise, pairs, expected) in [
            ("asymmetric", json!({"cat": "dog"}), None),
            ("asymmetric", json!({"cat": "cat"}), Some("'cat' is mistaken for itself")),
        ] {
            let parameters = json!({"noise": noise, "rate": 0.4, "pairs": pairs});
            let stage: CorruptLabels = serde_json::from_value(parameters).unwrap();
            let found = stage.check(&[]).pop().map(|problem| problem.message);
            assert_eq!(found.as_deref(), expected);
        }
    }

    #[test]
    fn each_noise_needs_its_source() {
        let human = |rate| json!({"noise": "human", "human-labels": "worse", "rate": rate});
        for (parameters, connected, expected) in [
            (json!({"rate": 0.5}), &[][..], None),
            (json!({}), &[], Some(("rate", "needs 'rate'"))),
            (json!({"noise": "instance"}), &[], Some(("rate", "needs 'rate'"))),
            (
                json!({"noise": "instance", "rate": 0.0}),
                &[],
                Some(("rate", "not clean at rate = 0")),
            ),
            (json!({"noise": "instance", "rate": 0.01}), &[], None),
            (json!({"noise": "symmetric", "rate": 0.0}), &[], None),
            (json!({"noise": "matrix", "matrix": "a.csv"}), &[], None),
            (json!({"noise": "matrix"}), &[], Some(("matrix", "needs 'matrix'"))),
            (
                json!({"noise": "matrix", "matrix": "a.csv"}),
                &["human"],
                Some(("human", "only for")),
            ),
            (human(json!(null)), &["human"], None),
            (human(json!(null)), &[], Some(("noise", "needs the port 'human'"))),
            (json!({"noise": "human"}), &["human"], Some(("human-labels", "whose to take"))),
            (json!({"rate": 0.5}), &["human"], Some(("human", "only for noise = \"human\""))),
            (json!({"noise": "file", "path": "a.csv"}), &[], None),
            (json!({"noise": "file"}), &["source"], None),
            (json!({"noise": "file"}), &[], Some(("noise", "needs a CSV file"))),
            (json!({"noise": "file", "path": "a.csv"}), &["source"], Some(("path", "both"))),
            (json!({"rate": 0.5}), &["source"], Some(("source", "only for noise = \"file\""))),
        ] {
            let stage: CorruptLabels = serde_json::from_value(parameters.clone()).unwrap();
            let problems = stage.check(connected);
            let found = problems.first().map(|problem| problem.field.as_str());
            assert_eq!(found, expected.map(|(field, _)| field), "{parameters} {problems:?}");
            if let (Some(problem), Some((_, words))) = (problems.first(), expected) {
                assert!(problem.message.contains(words), "{problem:?}");
            }
        }
    }

    #[test]
    fn the_key_has_what_the_noise_uses() {
        let stage: CorruptLabels = serde_json::from_value(json!({"rate": 0.5})).unwrap();
        let key = serde_json::Value::Object(crate::kind::key_parameters(&stage));
        assert_eq!(key, json!({"noise": "symmetric", "rate": 0.5, "pairs": {}}));
    }

    #[test]
    fn classes_are_in_the_key_and_the_path_of_a_file_is_not() {
        let stage = |parameters| serde_json::from_value::<CorruptLabels>(parameters).unwrap();
        let key = |parameters| crate::kind::key_parameters(&stage(parameters));
        let some = json!({"rate": 0.5, "classes": ["cat"]});
        assert_ne!(key(some.clone()), key(json!({"rate": 0.5, "classes": ["dog"]})));
        assert_ne!(key(some), key(json!({"rate": 0.5})));
        let both = |classes: [&str; 2]| json!({"rate": 0.5, "classes": classes});
        assert_eq!(key(both(["dog", "cat"])), key(both(["cat", "dog"])), "in any order");
        let file = |path: &str| json!({"noise": "matrix", "matrix": path});
        assert_eq!(key(file("a.csv")), key(file("b/c.txt")));
        let outside = |parameters| stage(parameters).outside_paths();
        assert_eq!(outside(file("a.csv")), [OutsidePath::matrix("matrix", "a.csv")]);
        let labels = |path: &str| json!({"noise": "file", "path": path});
        assert_eq!(key(labels("a.csv")), key(labels("b/c.csv")));
        assert_eq!(outside(labels("a.csv")), [OutsidePath::file("path", "a.csv")]);
        assert_eq!(outside(json!({"rate": 0.5, "matrix": "a.csv"})), []);
    }

    #[test]
    fn noise_that_depends_on_pixels_needs_pixels() {
        use crate::known::Known;
        let stage = |noise: &str| {
            serde_json::from_value::<CorruptLabels>(json!({"rate": 0.5, "noise": noise})).unwrap()
        };
        let data =
            |images| KnownInputs::new([("data".to_owned(), Known { images, ..Known::default() })]);
        for (noise, images, problems) in [
            ("instance", Some(Images::Encoded), 1),
            ("instance", Some(Images::Pixels), 0),
            ("instance", None, 0),
            ("symmetric", Some(Images::Encoded), 0),
        ] {
            let found = stage(noise).check_inputs(&data(images));
            assert_eq!(found.len(), problems, "{noise} {images:?}");
        }
    }

    #[test]
    fn projections_that_are_too_large_are_known_early() {
        use crate::known::{ImageSize, Known};
        let stage: CorruptLabels =
            serde_json::from_value(json!({"rate": 0.5, "noise": "instance"})).unwrap();
        let found = |channels, side, classes| {
            let image_size = Some(ImageSize { height: side, width: side });
            let data = Known { channels, image_size, classes, ..Known::default() };
            let problems = stage.check_inputs(&KnownInputs::new([("data".to_owned(), data)]));
            problems.into_iter().map(|problem| problem.message).collect::<String>()
        };
        for (channels, side, classes, words) in [
            (Some(3), 32, Some(1000), ""),
            (Some(3), 64, Some(200), ""),
            (Some(1), 4096, Some(16), ""),
            (
                Some(1),
                4096,
                Some(17),
                "the 16777216 values of an image to 17 classes, which takes more",
            ),
            (Some(3), u32::MAX, Some(u64::MAX), "more than 1 GiB: use smaller images"),
            (Some(1), 28, Some(1), "at least two classes"),
            (None, 4096, Some(1000), ""),
            (Some(3), 4096, None, ""),
        ] {
            let found = found(channels, side, classes);
            assert!(
                found.contains(words) && found.is_empty() == words.is_empty(),
                "{side}: {found}"
            );
        }
    }
}
