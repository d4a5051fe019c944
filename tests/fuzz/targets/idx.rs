//! The files of MNIST. The input is the length of the labels in two bytes, the file of the labels, and that of the
//! images.

use pipeline_stages::ArtifactType;
use serde_json::json;

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (labels, images) = rest.split_at(length);
    let scratch = Scratch::new();
    for (name, content) in [("labels-idx1-ubyte", labels), ("images-idx3-ubyte", images)] {
        let ending = if content.starts_with(b"\x1f\x8b") { ".gz" } else { "" };
        for part in ["train", "t10k"] {
            scratch.write(&format!("input/{part}-{name}{ending}"), content);
        }
    }
    scratch.run("dataset", "source", ArtifactType::Directory, &json!({"format": "idx"}))
}
