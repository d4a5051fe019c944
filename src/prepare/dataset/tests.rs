mod bad_files;
mod cifar;
mod clothing1m;
mod idx;
mod image_folder;
mod python_archives;

use std::path::{Path, PathBuf};

use pipeline_stages::ArtifactType;
use pipeline_stages::formats::{DatasetInfo, Part, Samples};
use serde_json::Value;

use crate::fixture::Fixture;
use crate::samples::{encoded, gzip};

/// What a stage wrote.
struct Written {
    info: DatasetInfo,
    train: Samples,
    test: Samples,
}

/// Runs a `dataset` stage on folders.
fn run(test: &mut Fixture, parameters: Value, sources: &[&Path]) -> anyhow::Result<Written> {
    let output = output(test, parameters, sources, None)?;
    Ok(Written {
        info: DatasetInfo::read(&output)?,
        train: Samples::open_any(&output, Part::Train)?,
        test: Samples::open_any(&output, Part::Test)?,
    })
}

fn output(
    test: &mut Fixture,
    parameters: Value,
    sources: &[&Path],
    threads: Option<u32>,
) -> anyhow::Result<PathBuf> {
    let inputs: Vec<_> =
        sources.iter().map(|&folder| ("source", ArtifactType::Directory, folder)).collect();
    Ok(test.run_on("dataset", parameters, &inputs, 0, threads)?.0)
}

/// The message of a stage that must fail.
fn error(test: &mut Fixture, parameters: Value) -> String {
    let source = test.folder().join("source");
    match run(test, parameters, &[&source]) {
        Ok(_) => panic!("the stage succeeded"),
        Err(error) => format!("{error:#}"),
    }
}

/// Every byte of an artifact.
fn bytes(output: &Path) -> Vec<Vec<u8>> {
    ["train.safetensors", "test.safetensors", "dataset.json"]
        .map(|file| std::fs::read(output.join(file)).unwrap())
        .into()
}

/// An idx file of bytes.
fn idx_file(lengths: &[u32], items: &[u8]) -> Vec<u8> {
    let header = [0, 0, 8, lengths.len() as u8];
    header
        .into_iter()
        .chain(lengths.iter().flat_map(|length| length.to_be_bytes()))
        .chain(items.iter().copied())
        .collect()
}

/// Three training and two test images of 2x3 pixels, as four idx files.
fn idx_files() -> [(&'static str, Vec<u8>); 4] {
    [
        ("train-images-idx3-ubyte", idx_file(&[3, 2, 3], &(0..18).collect::<Vec<_>>())),
        ("train-labels-idx1-ubyte", idx_file(&[3], &[2, 0, 1])),
        ("t10k-images-idx3-ubyte", idx_file(&[2, 2, 3], &(100..112).collect::<Vec<_>>())),
        ("t10k-labels-idx1-ubyte", idx_file(&[2], &[1, 1])),
    ]
}
