//! A stage and its result as trackers get them, from records and artifacts: what was measured is read where it
//! is kept, so that results of runs without a tracker can be sent later.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pipeline_stages::ArtifactType;
use pipeline_stages::formats::CurveTable;
use serde_json::Value;

use crate::cache::Record;
use crate::history::Commit;
use crate::key::KeyPart;
use crate::stage_name::StageName;

/// The files of an artifact that are curves. The series of each are named after it: `curves/loss`.
const CURVES: [&str; 2] = ["curves.csv", "evaluations.csv"];
/// The columns of a curve that count, the first one that it has: others are series over it.
const STEPS: [&str; 2] = ["step", "epoch"];
/// A larger file is neither read as a curve nor sent.
const LARGEST: u64 = 1 << 20;
/// The most files that are sent of an artifact.
const MOST_FILES: usize = 50;
/// What is small and people look at. Images for people are among it; weights are not.
const SENT: [&str; 5] = ["json", "csv", "md", "svg", "png"];
/// How deep tables in parameters are taken apart.
const DEEPEST: usize = 4;

/// A result that a tracker can be sent.
pub(crate) struct StageResult {
    pub(crate) stage: StageName,
    pub(crate) record: Record,
    /// Its artifact.
    pub(crate) folder: PathBuf,
    /// The commit of the manifest when it ran, where that is known.
    pub(crate) commit: Option<Commit>,
}

/// Numbers in the order of their steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(u64, f64)>,
}

/// Whether trackers get stages with this output even if they have measured nothing on their way: numbers, or
/// what a training makes. Of a download, nobody wants to see a run.
pub(crate) fn is_tracked(output: ArtifactType) -> bool {
    match output {
        ArtifactType::Metrics | ArtifactType::Model | ArtifactType::Weights => true,
        ArtifactType::File
        | ArtifactType::Directory
        | ArtifactType::Dataset
        | ArtifactType::Split
        | ArtifactType::Labels
        | ArtifactType::Features => false,
    }
}

impl StageResult {
    /// The kind of the stage.
    pub(super) fn kind(&self) -> &str {
        let kind = self.record.parts.iter().find_map(|part| match part {
            KeyPart::Kind { name, .. } => Some(name.as_str()),
            _ => None,
        });
        kind.unwrap_or_default()
    }

    /// The parameters that it was made with.
    pub(super) fn parameters(&self) -> BTreeMap<String, String> {
        let seed = self.record.parts.iter().find_map(|part| match part {
            KeyPart::Seed { seed } => Some(*seed),
            _ => None,
        });
        let parameters = self.record.parts.iter().filter_map(|part| match part {
            KeyPart::Parameter { name, value } => Some((name, value)),
            _ => None,
        });
        parameters_in_words(&self.stage, seed, parameters)
    }

    /// What it measured on its way, as its artifact has it. A file that is not a curve is left out.
    pub(super) fn series(&self) -> Vec<Series> {
        let mut found = Vec::new();
        for name in CURVES {
            let path = self.folder.join(name);
            if !is_small_file(&path) {
                continue;
            }
            let Ok(table) = CurveTable::read(&path) else { continue };
            let prefix = name.trim_end_matches(".csv");
            found.extend(series_of(&table, prefix));
        }
        found
    }

    /// Its files that are small and for people: each with its name.
    pub(super) fn files(&self) -> Vec<(String, PathBuf)> {
        let listing = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let files = listing.filter_map(|entry| {
            let (name, path) = (entry.file_name().into_string().ok()?, entry.path());
            let ending = Path::new(&name).extension()?.to_str()?;
            (SENT.contains(&ending) && is_small_file(&path)).then_some((name, path))
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files.truncate(MOST_FILES);
        files
    }
}

/// Whether it is a file of bounded size. Not through a link: a program may have written it.
fn is_small_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() <= LARGEST)
}

/// A series for each column but those that count.
fn series_of(table: &CurveTable, prefix: &str) -> Vec<Series> {
    let column = |name: &str| table.column(name).ok();
    let Some(steps) = STEPS.iter().find_map(|name| column(name)) else { return Vec::new() };
    let names = table.columns().iter().filter(|name| !STEPS.contains(&name.as_str()));
    let series = names.filter_map(|name| {
        let points = steps.iter().zip(column(name)?);
        // NaN is what was not measured. Trackers count steps in an i64, and refuse all values of a request with a larger one.
        let is_step = |step: f64| step >= 0.0 && step < i64::MAX as f64;
        let points = points.filter(|(step, value)| is_step(**step) && !value.is_nan());
        let points: Vec<_> = points.map(|(step, value)| (*step as u64, value)).collect();
        let name = format!("{prefix}/{name}");
        (!points.is_empty()).then_some(Series { name, points })
    });
    series.collect()
}

/// The parameters of a stage as text: a table by its entries, the seed, and the values on the axes, `axis.rate`.
pub(super) fn parameters_in_words<'v>(
    stage: &StageName,
    seed: Option<u64>,
    parameters: impl Iterator<Item = (&'v String, &'v Value)>,
) -> BTreeMap<String, String> {
    let mut words = BTreeMap::new();
    for (name, value) in parameters {
        add(&mut words, name.clone(), value, 0);
    }
    words.extend(seed.map(|seed| ("seed".to_owned(), seed.to_string())));
    words.extend(stage.point().map(|(axis, value)| (format!("axis.{axis}"), value.to_owned())));
    words
}

/// Adds a parameter. One that is not set is left out.
fn add(words: &mut BTreeMap<String, String>, name: String, value: &Value, depth: usize) {
    match value {
        Value::Null => {}
        Value::Object(table) if depth < DEEPEST => {
            for (entry, value) in table {
                add(words, format!("{name}.{entry}"), value, depth + 1);
            }
        }
        Value::String(text) => drop(words.insert(name, text.clone())),
        other => drop(words.insert(name, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_taken_apart() {
        let stage: StageName = "train@rate=0.9".parse().expect("a name");
        let parameters =
            json!({"augment": {"crop": 4, "none": null}, "method": "ce", "sizes": [1, 2]});
        let table = parameters.as_object().expect("a table");
        let words = parameters_in_words(&stage, Some(7), table.iter());
        let words: Vec<_> = words.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            words,
            ["augment.crop=4", "axis.rate=0.9", "method=ce", "seed=7", "sizes=[1,2]"]
        );
    }

    #[test]
    fn curves_are_series_over_what_counts() {
        let mut table = CurveTable::new(&["step", "epoch", "accuracy", "nothing"]);
        table.push(&[10.0, 1.0, 0.5, f64::NAN]);
        table.push(&[20.0, 2.0, f64::INFINITY, f64::NAN]);
        for step in [-1.0, 9.3e18, 9_223_372_036_854_775_808.0, 1e30, f64::INFINITY, f64::NAN] {
            table.push(&[step, 3.0, 0.75, 1.0]);
        }
        let series = series_of(&table, "evaluations");
        let points = vec![(10, 0.5), (20, f64::INFINITY)];
        assert_eq!(series, [Series { name: "evaluations/accuracy".to_owned(), points }]);
        assert!(series_of(&CurveTable::new(&["x", "y"]), "curves").is_empty());
    }
}
