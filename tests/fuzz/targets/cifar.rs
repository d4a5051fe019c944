//! A file of CIFAR-100, binary or for Python. CIFAR-10 is read by the same code.

use pipeline_stages::ArtifactType;
use serde_json::json;

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    // No label is as high as the first byte of a pickle.
    let (format, ending) = match bytes {
        [0x80 | b'(', ..] => ("cifar100-python", ""),
        _ => ("cifar100", ".bin"),
    };
    let scratch = Scratch::new();
    for part in ["train", "test"] {
        scratch.write(&format!("input/{part}{ending}"), bytes);
    }
    scratch.run("dataset", "source", ArtifactType::Directory, &json!({"format": format}))
}
