//! `pipeline verify --restore`: withdrawn records count again.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{print, print_json};
use crate::cache::{Cache, Restored, Withdrawn};
use crate::table;

/// Restores the withdrawn records of one experiment, or of all.
pub(crate) fn run(
    cache: &Cache,
    experiment: Option<&str>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let wanted = |withdrawn: &Withdrawn| {
        experiment.is_none_or(|experiment| withdrawn.record.experiment == experiment)
    };
    let mut rows = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for Withdrawn { record, .. } in cache.all_withdrawn()?.into_iter().filter(wanted) {
        let restored = cache.restore(&record.key)?;
        let (result, words) = match restored {
            Restored::CountsAgain => ("restored", "it counts again"),
            Restored::Replaced => ("replaced", "its stage ran again: the newer result counts"),
            Restored::ArtifactGone => ("gone", "its artifact is gone"),
        };
        rows.push(vec![record.name(), result.to_owned(), words.to_owned()]);
        values.push(json!({ "key": record.key, "stage": record.name(), "result": result }));
    }
    match (as_json, rows.is_empty()) {
        (true, _) => print_json(&json!({ "records": values }))?,
        (false, true) => print("no record was withdrawn\n")?,
        (false, false) => print(&table::plain(&rows))?,
    }
    Ok(ExitCode::SUCCESS)
}
