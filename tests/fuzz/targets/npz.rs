//! A batch of ImageNet32 as NumPy's archive.

use pipeline_stages::ArtifactType;
use serde_json::json;

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let scratch = Scratch::new();
    for name in ["train_data_batch_1.npz", "val_data.npz"] {
        scratch.write(&format!("input/{name}"), bytes);
    }
    // One batch is enough. That for validation is read to its end.
    let parameters = json!({"format": "imagenet32", "train-limit": 1});
    scratch.run("dataset", "source", ArtifactType::Directory, &parameters)
}
