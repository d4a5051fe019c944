//! A manifest that starts from what others trained: an archive with a checkpoint of PyTorch in it.

use std::fs;
use std::path::Path;

use crate::support::Sandbox;

const MANIFEST: &str = r#"
[experiment]
name = "pretrained"

[stages.archive]
kind = "download"
url = "file:data/release.zip"
unverified = true

[stages.release]
kind = "unpack"
archive = "archive"
strip = 1

[stages.encoder]
kind = "import-weights"
source = "release"
file = "*.pth.tar"
architecture = "resnet8"
normalise = "none"

[stages.data]
kind = "dataset"
format = "cifar10"
path = "data/images"

[stages.train]
kind = "train"
data = "data"
init = "encoder"
architecture = "resnet8"
learning-rate = 0.02
"#;

/// A checkpoint that PyTorch wrote.
fn checkpoint(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/import/checkpoints");
    fs::read(folder.join(name)).expect("it is part of the project")
}

/// The checksum of zip archives (ISO 3309, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

/// A zip archive of files, stored without compression (PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16).
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut content, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let size = (bytes.len() as u32).to_le_bytes();
        let lengths = [size, size].concat();
        let checksum = crc32(bytes).to_le_bytes();
        let name_length = (name.len() as u16).to_le_bytes();
        let fields = [&[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0], &checksum[..], &lengths, &name_length];
        let fields = [&fields.concat()[..], &[0; 2]].concat();
        let start = (content.len() as u32).to_le_bytes();
        directory.extend(
            [b"PK\x01\x02\x14\x03", &fields[..], &[0; 10], &start, name.as_bytes()].concat(),
        );
        content.extend([b"PK\x03\x04", &fields[..], name.as_bytes(), bytes].concat());
    }
    let count = (files.len() as u16).to_le_bytes();
    let length = (directory.len() as u32).to_le_bytes();
    let start = (content.len() as u32).to_le_bytes();
    let end = [b"PK\x05\x06\0\0\0\0", &count[..], &count, &length, &start, &[0; 2]].concat();
    [content, directory, end].concat()
}

fn project(release: &[(&str, &[u8])]) -> Sandbox {
    let project = Sandbox::new(MANIFEST).with_fake_learn("");
    project.write("data/release.zip", zip(release));
    // Files of CIFAR-10, of one image each: a label and 32 x 32 pixels of three channels.
    for (label, name) in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ]
    .iter()
    .enumerate()
    {
        project
            .write(&format!("data/images/{name}.bin"), [&[label as u8][..], &[7; 3072]].concat());
    }
    project
}

#[test]
fn from_an_archive_to_a_training() {
    let checkpoint = checkpoint("simclr.pth.tar");
    let project = project(&[
        ("release/readme.txt", b"Trained for 1000 epochs."),
        ("release/checkpoint.pth.tar", &checkpoint),
    ]);
    project.pipeline("run experiment.toml").success();
    let encoder = project.artifact("encoder");
    let report = fs::read_to_string(encoder.join("import.json")).expect("what became of each name");
    assert!(report.contains("\"format\": \"torch-zip\""), "{report}");
    assert!(report.contains("\"prefix\": \"state_dict.convnet.\""), "{report}");
    assert!(encoder.join("weights.safetensors").is_file() && encoder.join("model.json").is_file());
    let trained = project.digest("train");
    project.pipeline("run experiment.toml").success();
    assert_eq!(project.read("journal").matches("pid").count(), 1, "nothing is trained again");

    // Another archive with the same checkpoint in it produces the same weights: nothing that reads them runs.
    project.write("data/release.zip", zip(&[("else/best.pth.tar", &checkpoint)]));
    project.pipeline("run experiment.toml").success();
    assert_eq!((project.artifact("encoder"), project.digest("train")), (encoder, trained));
    assert_eq!(project.read("journal").matches("pid").count(), 1);
}

#[test]
fn a_checkpoint_of_another_network_is_named_before_anything_is_trained() {
    let module = checkpoint("types.pt");
    let project = project(&[("release/types.pth.tar", &module)]);
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert!(!ended.status.success());
    let told = ended.to_string();
    assert!(told.contains("types.pth.tar") && told.contains("no encoder"), "{told}");
    assert_eq!(project.read("journal"), "");
}
