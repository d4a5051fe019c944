//! All instances of a stage as one input: a folder with a file that lists them.

use std::path::PathBuf;

use anyhow::Context as _;
use pipeline_stages::message::Input;
use pipeline_stages::path_text::PathText;
use pipeline_stages::point::{Point, typed};
use serde::Serialize;
use serde_json::{Map, Value};

/// The file of such a folder.
const FILE: &str = "instances.json";

/// A line of the file.
#[derive(Serialize)]
struct Instance<'a> {
    /// The value on each axis.
    point: Map<String, Value>,
    /// The folder of the artifact.
    path: PathText<'a>,
}

/// Writes the folder of an input, and returns it. `inputs` have absolute paths.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(folder: PathBuf, inputs: &[(&Input, PathBuf)]) -> anyhow::Result<PathBuf> {
    let values =
        |point: &Point| point.iter().map(|(axis, value)| (axis.to_owned(), typed(value))).collect();
    let instances = inputs.iter().flat_map(|(input, path)| {
        input
            .points
            .iter()
            .map(move |point| Instance { point: values(point), path: PathText(path) })
    });
    let instances: Vec<_> = instances.collect();
    let text = serde_json::to_string_pretty(&instances)?;
    let write = || {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(FILE), text + "\n")
    };
    write().with_context(|| format!("cannot write {} in {}", FILE, folder.display()))?;
    Ok(folder)
}
