//! For tests: the bytes that the data kinds write for inputs that never change.
//!
//! A stage key contains the kind's VERSION in place of its code. So a change of what a kind writes needs a
//! new VERSION, or old results would count as new ones: these tests fail until both are done.

use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use pipeline_stages::ArtifactType::{Dataset, Directory, File, Split};
use pipeline_stages::{KINDS, Kind, KindConfig, WorkerProgram, kinds};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::fixture::Fixture;
use crate::reference::reference_path;
use crate::samples::{encoded, pipelines, unpack_fashion_mnist};

/// The SHA-256 over the names and contents of an artifact's files, shortened, with the kind's version.
fn fingerprint(version: u32, artifact: &Path) -> String {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(artifact).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.file_name().unwrap().as_encoded_bytes());
        hash.update(std::fs::read(path).unwrap());
    }
    let hash: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("version {version}: {hash}")
}

#[test]
fn the_data_of_the_quickstart() {
    let mut test = Fixture::new();
    let source = test.folder().join("source");
    unpack_fashion_mnist(&source);
    let from = ("source", Directory, source.as_path());
    let (data, _) = test.run_on("dataset", json!({"format": "idx"}), &[from], 0, None).unwrap();
    let from = ("data", Dataset, data.as_path());
    let (split, _) = test.run_on("split", json!({"holdout": 500}), &[from], 220, None).unwrap();
    let from = [from, ("split", Split, split.as_path())];
    let (noisy, _) = test.run_on("corrupt-labels", json!({"rate": 0.8}), &from, 220, None).unwrap();
    let from = [from[0], ("outside", Dataset, data.as_path()), from[1]];
    let (mixed, _) = test.run_on("replace-images", json!({"rate": 0.4}), &from, 220, None).unwrap();
    let found = [
        fingerprint(kinds::Dataset::VERSION, &data),
        fingerprint(kinds::Split::VERSION, &split),
        fingerprint(kinds::ReplaceImages::VERSION, &mixed),
        fingerprint(kinds::CorruptLabels::VERSION, &noisy),
    ];
    let expected = [
        "version 3: 9dc732b09df3a509",
        "version 2: 2cba1284e59649ff",
        "version 1: 410acb185ab515b5",
        "version 2: 7aea4936fd1e480c",
    ];
    assert_eq!(found, expected, "bump the VERSION of the kind whose output changed");
}

#[test]
fn an_image_folder() {
    let mut test = Fixture::new();
    let image = RgbImage::from_fn(50, 70, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]));
    let png = encoded(image, ImageFormat::Png);
    test.write("source/train/class/a.png", &png);
    test.write("source/test/class/b.png", &png);
    let jpeg = std::fs::read(reference_path("gradient.jpg")).unwrap();
    test.write("source/train/class/c.jpg", jpeg);
    let source = test.folder().join("source");
    let from = ("source", Directory, source.as_path());
    let parameters = json!({"format": "image-folder", "size": 16});
    let stage = KindConfig::read("dataset", parameters.clone()).unwrap().unwrap();
    let (data, _) = test.run_on("dataset", parameters, &[from], 0, None).unwrap();
    let found = fingerprint(stage.version(), &data);
    assert_eq!(
        found, "version 4: b6baa5dddf107366",
        "bump the VERSION of the kind whose output changed"
    );
}

#[test]
fn an_unpacked_archive_and_an_imported_checkpoint() {
    let mut test = Fixture::new();
    let content = std::fs::read(pipelines().join("data/fashion-mnist-6k.zip")).unwrap();
    test.write("archive/fashion-mnist-6k.zip", content);
    let folder = test.folder().join("archive");
    let from = ("archive", File, folder.as_path());
    let (files, _) = test.run_on("unpack", json!({}), &[from], 0, None).unwrap();
    let checkpoint = reference_path("import/checkpoints/simclr.pth.tar");
    let parameters = json!({"path": checkpoint, "architecture": "resnet8", "normalise": "none"});
    let (weights, _) = test.run_on("import-weights", parameters, &[], 0, None).unwrap();
    let found = [
        fingerprint(kinds::Unpack::VERSION, &files),
        fingerprint(kinds::ImportWeights::VERSION, &weights),
    ];
    let expected = ["version 2: 56a12f8a1e93bbf5", "version 2: 6c09aac5b91da68a"];
    assert_eq!(found, expected, "bump the VERSION of the kind whose output changed");
}

#[test]
fn the_output_of_each_kind_is_bound_to_its_version() {
    let bound = [
        kinds::CorruptLabels::NAME,
        kinds::Dataset::NAME,
        kinds::ImportWeights::NAME,
        kinds::ReplaceImages::NAME,
        kinds::Split::NAME,
        kinds::Unpack::NAME,
        // By its own tests.
        kinds::Summarize::NAME,
    ];
    // What they write is not of this program.
    let foreign = [kinds::Command::NAME, kinds::Download::NAME];
    for kind in KINDS.iter().filter(|kind| kind.worker == WorkerProgram::Prepare) {
        assert!([&bound[..], &foreign].concat().contains(&kind.name), "{} is not bound", kind.name);
    }
}

#[test]
fn the_quickstart_names_the_checksum_of_its_archive() {
    let archive = std::fs::read(pipelines().join("data/fashion-mnist-6k.zip")).unwrap();
    let manifest = std::fs::read_to_string(pipelines().join("quickstart.toml")).unwrap();
    let line = format!("blake3 = \"{}\"", blake3::hash(&archive));
    assert!(manifest.contains(&line), "quickstart.toml needs {line}");
}
