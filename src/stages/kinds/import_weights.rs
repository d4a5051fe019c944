//! `import-weights`: an encoder from a checkpoint that another program saved.

use serde_json::{Map, Value};

use super::architecture::EncoderArchitecture;
use crate::form::Form;
use crate::kind::{OutsidePath, Problem, Rules};
use crate::known::{Known, KnownInputs};

choices! {
    /// How the pixels were scaled when the checkpoint was trained.
    pub enum InputNormalisation {
        /// To [0, 1] and nothing else: SimCLR's checkpoints of the reference protocol.
        None,
        /// To [0, 1], then by ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225): torchvision's weights, and
        /// those of DINOv2, DINO and DeiT.
        Imagenet,
        /// To [-1, 1], by a mean and a standard deviation of 0.5: timm's vision transformers from Google (`augreg`).
        Half,
    }
}

impl InputNormalisation {
    /// Per channel, the mean and the standard deviation of pixels in [0, 1].
    pub fn statistics(self, channels: usize) -> (Vec<f64>, Vec<f64>) {
        match self {
            Self::None => (vec![0.0; channels], vec![1.0; channels]),
            Self::Imagenet => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            Self::Half => (vec![0.5; channels], vec![0.5; channels]),
        }
    }
}

kind! {
    /// Takes the encoder out of a checkpoint that another program saved.
    ///
    /// Reads what PyTorch saves (`.pth.tar`, `.pt`, `.pth`, `.ckpt`, `.bin`; its zip format and the one
    /// before), pickles of NumPy arrays, and safetensors; the format is detected from the content. Nothing
    /// in a file is run: objects that are not tensors are not read. The names of the layers must be
    /// torchvision's, behind any prefix; those of `preact-resnet18` are the ones of DivideMix's code, those of vision transformers the ones of
    /// timm, which DINO's, DINOv2's and DeiT's files have too. Every layer of the architecture must exist in its shape;
    /// classifiers, projection heads and the state of optimizers are left out. `import.json` in the
    /// artifact names what was used, renamed, ignored and missing.
    ///
    /// Vision transformers are for `features` and `probe`: they are not trained here.
    ///
    /// Set either the port `source` or the parameter `path`.
    ImportWeights = "import-weights", version 2, seeded false, output Weights;
    ports {
        /// The checkpoint, or a folder with it.
        source: Optional[File, Directory, Weights, Model];
    }
    parameters {
        /// The encoder in the checkpoint.
        architecture: EncoderArchitecture;
        /// How the pixels were scaled when it was trained.
        normalise: InputNormalisation;
        /// A file or a folder of your own, relative to the manifest, instead of `source`.
        path: Option<String> = None;
        /// Which file of a folder: its name, or a glob over names (`*simclr*.pth.tar`); with a `/` in it, over paths from the folder.
        /// Needed if several files could be checkpoints.
        file: Option<String> = None;
        /// The prefix of the encoder's names: `encoder_q`, `module.backbone`. Found by default;
        /// needed if the file has several encoders.
        prefix: Option<String> = None;
    }
    execution {}
    headline []
}

impl Rules for ImportWeights {
    fn forms() -> &'static [Form] {
        &[Form::Either(&["source"], "path"), Form::NotText("file", r"(^|/)(\.\.?)?(/|$)")]
    }

    fn check(&self, connected: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        match (&self.path, connected.contains(&"source")) {
            (None, false) => problems.push(Problem::new(
                "architecture",
                "this stage has no checkpoint: connect 'source' to a stage, or set 'path' to a file",
            )),
            (Some(_), true) => problems.push(Problem::new(
                "path",
                "the stage has both 'source' and 'path': drop one of them",
            )),
            _ => {}
        }
        if let Some(file) = &self.file {
            let outside = |part: &str| part.is_empty() || part == "." || part == "..";
            if file.split('/').any(outside) {
                let message = format!(
                    "'{file}' cannot match a file: write a name, or a path from the folder without '.' and '..'"
                );
                problems.push(Problem::new("file", message));
            }
        }
        problems
    }

    fn knows(&self, _inputs: &KnownInputs) -> Known {
        Known { architecture: Some(self.architecture), ..Known::default() }
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        self.path.iter().map(|path| OutsidePath::required("path", path)).collect()
    }

    // The content is in the key; its path is not.
    fn key_parameters(&self, mut all: Map<String, Value>) -> Map<String, Value> {
        all.remove("path");
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stage(mut parameters: Value) -> ImportWeights {
        parameters["architecture"] = "resnet18".into();
        parameters["normalise"] = "none".into();
        serde_json::from_value(parameters).unwrap()
    }

    #[test]
    fn the_file_has_exactly_one_place() {
        let problems = |parameters, connected: &[&str]| stage(parameters).check(connected).len();
        assert_eq!(problems(json!({}), &["source"]), 0);
        assert_eq!(problems(json!({"path": "a.pth"}), &[]), 0);
        assert_eq!(problems(json!({}), &[]), 1);
        assert_eq!(problems(json!({"path": "a.pth"}), &["source"]), 1);
    }

    #[test]
    fn a_glob_that_can_match_nothing_is_a_problem() {
        for (file, count) in [("", 1), ("/a", 1), ("../a", 1), ("a//b", 1), ("*.pt", 0), ("a/*", 0)]
        {
            assert_eq!(stage(json!({"file": file})).check(&["source"]).len(), count, "{file}");
        }
    }

    #[test]
    fn the_path_of_the_file_is_not_in_the_key() {
        let key = |parameters| crate::kind::key_parameters(&stage(parameters));
        assert_eq!(key(json!({"path": "here"})), key(json!({"path": "there"})));
        assert_ne!(key(json!({"path": "here"})), key(json!({"path": "here", "prefix": "a"})));
        assert_eq!(
            stage(json!({"path": "here"})).outside_paths(),
            [OutsidePath::required("path", "here")]
        );
    }
}
