//! Writes the fresh weights of one architecture as an artifact, to try them in other programs:
//!
//! ```text
//! cargo run -p pipeline-learn --example write_weights -- resnet18 /tmp/resnet18
//! python3 tests/reference/import/load_into_torchvision.py /tmp/resnet18
//! ```

use std::path::PathBuf;

use anyhow::Context as _;
use pipeline_learn::network::weights;
use pipeline_learn::network::{Classifier, feature_count};
use pipeline_stages::formats::{ImageShape, ModelInfo, WEIGHTS_FILE};
use pipeline_stages::kinds::architecture::Architecture;
use tch::Device;

const CLASSES: usize = 10;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: write_weights ARCHITECTURE FOLDER";
    let name = arguments.next().context(usage)?;
    let folder = PathBuf::from(arguments.next().context(usage)?);
    let mut all = Architecture::ALL.iter().copied();
    let architecture = all.find(|architecture| architecture.name() == name).context(usage)?;
    let side = if name.ends_with("-224") { 224 } else { 32 };

    std::fs::create_dir_all(&folder)?;
    let network = Classifier::new(architecture, 3, CLASSES, 0, Device::Cpu)?;
    weights::write(&folder.join(WEIGHTS_FILE), "model", network.state().tensors())?;
    ModelInfo {
        architecture: name,
        input: ImageShape { channels: 3, height: side, width: side },
        input_crop: None,
        features: usize::try_from(feature_count(architecture))?,
        further_networks: 0,
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        input_mean: vec![0.0; 3],
        input_std: vec![1.0; 3],
        training: serde_json::json!({ "kind": "none" }),
    }
    .write(&folder)
}
