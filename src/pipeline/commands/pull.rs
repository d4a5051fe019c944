//! `pipeline pull`: results from the remote into the cache.

use std::process::ExitCode;

use serde_json::json;

use super::output::{note, print, print_json};
use super::project::Project;
use super::remote_results::{Brought, remote_only};
use crate::cli::PullArguments;
use crate::format;
use crate::instances::names_in_words;
use crate::plan::PlanState;

pub(crate) fn run(arguments: &PullArguments) -> anyhow::Result<ExitCode> {
    let PullArguments { manifest, json } = arguments;
    let project = Project::open(manifest)?;
    let shared = project.required_remote(manifest)?;
    let address = shared.address().to_string();
    shared.try_again();
    let chosen = project.choose(&manifest.stages())?;
    let selected = project.with_inputs(&chosen);
    project.ask_remote_and_keep(&selected);
    let plan = project.plan(&selected);
    let is_here = |name| matches!(plan.state(name), Some(PlanState::Fresh(_)));
    let here = chosen.iter().filter(|name| is_here(name)).count();
    let without = chosen.iter().copied();
    let without: Vec<_> =
        without.filter(|name| plan.state(name).and_then(PlanState::finished).is_none()).collect();
    let records = remote_only(&plan, chosen.iter().copied());
    let Brought { results, bytes, not } = match records.is_empty() {
        true => Brought::default(),
        false => project.bring(&records)?,
    };
    if *json {
        let failed = not.iter().map(|(name, why)| json!({ "stage": name, "because": why }));
        print_json(&json!({
            "remote": address,
            "pulled": results.iter().map(|(name, digest)| json!({ "stage": name, "artifact": digest })).collect::<Vec<_>>(),
            "bytes": bytes,
            "here": here,
            "without": without,
            "failed": failed.collect::<Vec<_>>(),
        }))?;
    } else {
        for (name, why) in &not {
            note(&format!("{name}: {why}"));
        }
        if !without.is_empty() {
            note(&format!(
                "without a result, here or there: {}",
                names_in_words(without.iter().copied())
            ));
        }
        let pulled = results.len();
        let size = format::bytes(bytes);
        print(&format!("{pulled} pulled ({size}) from {address}, {here} were here already\n"))?;
    }
    let is_complete = not.is_empty() && without.is_empty();
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
