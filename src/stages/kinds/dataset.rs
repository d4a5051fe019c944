//! `dataset`: images and labels in the formats of the field, into one of our own.

use crate::kind::{Problem, Rules};
use crate::parameter::AT_LEAST_ONE;

choices! {
    /// The format of a data set's files.
    pub enum DatasetFormat {
        /// MNIST's: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-...`, also with `.gz`.
        Idx,
        /// The binary CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin`.
        Cifar10,
        /// The binary CIFAR-100: `train.bin`, `test.bin`, with the fine labels.
        Cifar100,
        /// `train/<class>/*.{jpg,jpeg,png}` and `test/<class>/...`, resized.
        ImageFolder,
    }
}

crate::kind! {
    /// Reads a data set of labelled images.
    ///
    /// Give either the port `source` or the parameter `path`.
    Dataset = "dataset", version 1, seeded false, output Dataset;
    ports {
        /// The files of the data set, in one artifact or in several.
        source: OptionalMany[Directory, File];
    }
    parameters {
        /// The format of the files.
        format: DatasetFormat;
        /// A folder of your own, relative to the manifest, instead of `source`.
        path: Option<String> = None;
        /// For `image-folder`: every image is resized so that its shorter side fits, then cropped to this many pixels square.
        size: u32 = 32, in 1.0..=4096.0;
        /// Take only the first so many training samples.
        train_limit: Option<u64> = None, in AT_LEAST_ONE;
        /// Take only the first so many test samples.
        test_limit: Option<u64> = None, in AT_LEAST_ONE;
        /// The names of the classes, in order, where the files don't have them. By default those that the format implies, or "0", "1", ...
        classes: Option<Vec<String>> = None;
    }
    execution {}
    headline ["train-samples", "test-samples", "classes"]
}

impl Rules for Dataset {
    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        match (&self.path, connected.contains(&"source")) {
            (None, false) => vec![Problem::new(
                "format",
                "this stage has no data: connect 'source' to a stage, or give the 'path' of a folder of yours",
            )],
            (Some(_), true) => {
                vec![Problem::new(
                    "path",
                    "the stage has both 'source' and 'path': drop one of them",
                )]
            }
            _ => Vec::new(),
        }
    }

    fn outside_paths(&self) -> Vec<String> {
        self.path.iter().cloned().collect()
    }

    // The folder's content is in the key; where it lies is not.
    fn key_parameters(
        &self,
        mut all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.remove("path");
        all
    }
}
