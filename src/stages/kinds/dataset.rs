//! `dataset`: images and labels in common formats, into the format of artifacts.

use super::class_names;
use crate::form::Form;
use crate::kind::{Cores, OutsidePath, PathForm, Problem, Rules};
use crate::known::{ImageSize, Images, Known, KnownInputs, has_noise_pairs};
use crate::parameter::AT_LEAST_ONE;

choices! {
    /// The format of a data set's files.
    pub enum DatasetFormat {
        /// MNIST's: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, also with `.gz`. Has no names of classes.
        Idx,
        /// The binary CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin`.
        Cifar10,
        /// The binary CIFAR-100: `train.bin`, `test.bin`, with the fine labels.
        Cifar100,
        /// CIFAR-10 as Python pickles: `data_batch_1` to `data_batch_5`, `test_batch`, `batches.meta`. Images are u8, `[N, 3072]` or `[N, 3, 32, 32]`, as in the two formats after it.
        Cifar10Python,
        /// CIFAR-100 as Python pickles: `train`, `test`, `meta`, with the fine labels.
        Cifar100Python,
        /// ImageNet at 32x32 pixels: `train_data_batch_1` to `train_data_batch_10` and `val_data`, each a pickle or, with `.npz`, NumPy arrays. The 50,000 of `val_data` are the test samples.
        Imagenet32,
        /// Clothing1M: the images, `noisy_train_key_list.txt`, `noisy_label_kv.txt` and so on. The noisy labels are for training, `clean_val` for validation, `clean_test` for testing. The images stay encoded.
        Clothing1m,
        /// `train/<class>/*.{jpg,jpeg,png,webp}`, also in folders below, and `test/<class>/...`, as torchvision's `ImageFolder` reads them, but turned as their EXIF data say, and without names that begin with a dot; resized. Grey if all images are grey, otherwise three channels. The images of `val/<class>/...` are kept apart, for a split with `from = "val-folder"`.
        ImageFolder,
    }
}

kind! {
    /// Reads a data set of labelled images.
    ///
    /// Set either the port `source` or the parameter `path`. The files may be in a folder of their own,
    /// as in archives, and in several inputs.
    ///
    /// The artifact of an `image-folder` has `files.csv`, a row per sample: `index`, its place in its part of the data set, from 0;
    /// `split`, which is `train`, `val` or `test`; `path`, from the folder that these are in; `class`. The samples of
    /// `val` follow on those of `train` in the training part. So a file with another name makes another data set, even in the same order.
    Dataset = "dataset", version 3, seeded false, output Dataset;
    ports {
        /// The files of the data set, in one artifact or in several.
        source: OptionalMany[Directory, File];
    }
    parameters {
        /// The format of the files.
        format: DatasetFormat;
        /// A folder of your own, relative to the manifest, instead of `source`.
        path: Option<String> = None;
        /// Take only this many training samples, from the first on; of an `image-folder`, from every class in turn. Samples that a data set sets aside for validation are added.
        train_limit: Option<u64> = None, in AT_LEAST_ONE;
        /// Take only this many test samples, from the first on; of an `image-folder`, from every class in turn.
        test_limit: Option<u64> = None, in AT_LEAST_ONE;
        /// The names of the classes, in the order of their labels. By default those of the files or the format, or "0", "1", ...; for `image-folder` its folders, in this order instead of by name.
        classes: Option<Vec<String>> = None;
    }
    only if (format: [DatasetFormat::ImageFolder]) {
        /// Keep the images as encoded files, which are decoded and resized during training. For large images, of at most 67 million pixels; each is decoded once to be checked.
        encoded: bool = false;
    }
    only if (format: [DatasetFormat::ImageFolder], encoded: [false]) {
        /// Every image is resized so that its shorter side fits, then cropped to this many pixels square.
        size: u32 = 32, in 1.0..=4096.0;
    }
    execution {}
    headline ["train-samples", "test-samples", "classes"]
}

impl Rules for Dataset {
    fn forms() -> &'static [Form] {
        &[Form::Either(&["source"], "path")]
    }

    fn cores(&self) -> Cores {
        // The others are read one file after the other.
        match self.format {
            DatasetFormat::ImageFolder | DatasetFormat::Clothing1m => Cores::Many,
            _ => Cores::One,
        }
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        let mut problems = class_names::problems(self.classes.as_deref());
        match (&self.path, connected.contains(&"source")) {
            (None, false) => problems.push(Problem::new(
                "format",
                "this stage has no data: connect 'source' to a stage, or set 'path' to a folder",
            )),
            (Some(_), true) => problems.push(Problem::new(
                "path",
                "the stage has both 'source' and 'path': drop one of them",
            )),
            _ => {}
        }
        problems
    }

    fn knows(&self, _inputs: &KnownInputs) -> Known {
        use DatasetFormat::*;
        let named = self.classes.as_ref().map(|classes| classes.len() as u64);
        let (channels, classes, samples) = match self.format {
            Idx => (Some(1), None, None),
            Cifar10 | Cifar10Python => (Some(3), Some(10), Some(50_000)),
            Cifar100 | Cifar100Python => (Some(3), Some(100), Some(50_000)),
            Imagenet32 => (Some(3), Some(1000), None),
            Clothing1m => (Some(3), Some(14), None),
            ImageFolder => (None, None, None),
        };
        // The samples that the data set sets aside for validation are added to the limit.
        let limit = self.train_limit.filter(|_| !matches!(self.format, Clothing1m | ImageFolder));
        let has_noise_pairs = match (&self.classes, self.format) {
            (Some(classes), _) => Some(has_noise_pairs(classes)),
            (None, Cifar10 | Cifar10Python | Cifar100 | Cifar100Python) => Some(true),
            (None, Idx | Imagenet32 | Clothing1m) => Some(false),
            (None, ImageFolder) => None,
        };
        let is_encoded = self.encoded || self.format == Clothing1m;
        Known {
            channels,
            images: Some(if is_encoded { Images::Encoded } else { Images::Pixels }),
            image_size: match self.format {
                Cifar10 | Cifar10Python | Cifar100 | Cifar100Python | Imagenet32 => {
                    Some(ImageSize { height: 32, width: 32 })
                }
                Idx | Clothing1m | ImageFolder => None,
            }
            .filter(|_| !is_encoded),
            classes: classes.or(named),
            class_names: self.classes.as_deref().map(Into::into),
            train_samples: match (samples, limit) {
                (Some(samples), Some(limit)) => Some(limit.min(samples)),
                (samples, limit) => samples.or(limit),
            },
            has_noise_pairs,
            ..Known::default()
        }
    }

    // Since 4, an image folder's artifact has `files.csv`, and arrays of NumPy whose channels come last are refused.
    fn version(&self) -> Option<u32> {
        use DatasetFormat::*;
        matches!(self.format, ImageFolder | Cifar10Python | Cifar100Python | Imagenet32)
            .then_some(4)
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        // One can look at a manifest before one has its data, which may have to be requested.
        let optional = matches!(self.format, DatasetFormat::Imagenet32 | DatasetFormat::Clothing1m);
        let form = PathForm::Folder;
        let paths = self.path.iter().map(|path| OutsidePath::required("path", path));
        paths.map(|path| OutsidePath { optional, form, ..path }).collect()
    }

    // The folder's content is in the key; its path is not.
    fn key_parameters(
        &self,
        mut all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.remove("path");
        if !self.encoded {
            all.remove("encoded");
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(parameters: serde_json::Value, connected: &[&str]) -> Vec<String> {
        let stage: Dataset = serde_json::from_value(parameters).unwrap();
        stage.check(connected).into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn the_files_have_exactly_one_place() {
        assert!(problems(json!({"format": "idx"}), &["source"]).is_empty());
        assert!(problems(json!({"format": "idx", "path": "mine"}), &[]).is_empty());
        assert!(problems(json!({"format": "idx"}), &[])[0].starts_with("this stage has no data"));
        let both = problems(json!({"format": "idx", "path": "mine"}), &["source"]);
        assert_eq!(both, ["the stage has both 'source' and 'path': drop one of them"]);
    }

    #[test]
    fn class_names_differ_and_are_not_empty() {
        for (classes, expected) in [
            (json!(["a", "b", "a"]), "two classes have the name 'a'"),
            (json!(["a", ""]), "a class has no name"),
            (json!([]), "'classes' is empty"),
        ] {
            let found = problems(json!({"format": "idx", "classes": classes}), &["source"]);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        }
    }

    #[test]
    fn image_folders_and_arrays_of_numpy_have_a_newer_version() {
        let version = |format: &str| {
            crate::KindConfig::read("dataset", json!({"format": format}))
                .unwrap()
                .unwrap()
                .version()
        };
        assert_eq!((version("image-folder"), version("idx"), version("clothing1m")), (4, 3, 3));
        assert_eq!(
            (version("cifar10-python"), version("imagenet32"), version("cifar10")),
            (4, 4, 3)
        );
    }

    #[test]
    fn the_key_has_what_changes_the_result() {
        let key = |parameters| {
            let stage: Dataset = serde_json::from_value(parameters).unwrap();
            crate::kind::key_parameters(&stage)
        };
        assert_eq!(
            key(json!({"format": "idx", "path": "here"})),
            key(json!({"format": "idx", "path": "there", "size": 64}))
        );
        assert_ne!(
            key(json!({"format": "image-folder", "path": "here"})),
            key(json!({"format": "image-folder", "path": "here", "size": 64}))
        );
        let encoded = json!({"format": "image-folder", "path": "here", "encoded": true});
        assert_ne!(key(json!({"format": "image-folder", "path": "here"})), key(encoded.clone()));
        let with_size =
            json!({"format": "image-folder", "path": "here", "encoded": true, "size": 64});
        assert_eq!(key(encoded), key(with_size));
        assert_ne!(
            key(json!({"format": "idx", "path": "here"})),
            key(json!({"format": "idx", "path": "here", "train-limit": 9}))
        );
    }
}
