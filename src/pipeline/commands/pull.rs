//! `pipeline pull`: results from the remote into the cache.

use std::collections::HashSet;
use std::process::ExitCode;

use serde_json::json;

use super::output::{note, print, print_json};
use super::project::Project;
use super::remote_results::{Brought, remote_only};
use crate::cache::Record;
use crate::cli::PullArguments;
use crate::format;
use crate::instances::names_in_words;
use crate::key::StageKey;
use crate::manifest::PushPolicy;
use crate::plan::{Plan, PlanState};
use crate::remote::RemoteState;
use crate::stage_name::StageName;

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
    let mut records = remote_only(&plan, chosen.iter().copied());
    let record_only = match manifest.stages().is_empty() {
        true => take_record_only(&project, &plan, &mut records),
        false => Vec::new(),
    };
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
            "record-only": record_only,
            "without": without,
            "failed": failed.collect::<Vec<_>>(),
        }))?;
    } else {
        for (name, why) in &not {
            note(&format!("{name}: {why}"));
        }
        if !record_only.is_empty() {
            let names = names_in_words(&record_only);
            note(&format!("not pulled, as the remote has the record only: {names}"));
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

/// Takes those of the results away that are not to be on the remote as such, and of which it has the record only: what reads them has
/// a result, or none is pushed by this manifest. Returns their stages.
fn take_record_only(
    project: &Project,
    plan: &Plan,
    records: &mut Vec<(StageName, Record)>,
) -> Vec<StageName> {
    let is_finished = |name: &&StageName| plan.state(name).and_then(PlanState::finished).is_some();
    let can_lack = |name: &StageName| {
        let kind = project.manifest.stage(name).map_or("", |stage| stage.stage.info().name);
        let is_left_out =
            || matches!(project.push, PushPolicy::Some(_)) && !project.push.includes(name, kind);
        let mut readers = project.graph.consumers(name);
        readers.retain(|reader| plan.state(reader).is_some());
        readers.iter().all(is_finished) && (!readers.is_empty() || is_left_out())
    };
    let wanted: Vec<_> = records.iter().filter(|(name, _)| can_lack(name)).collect();
    let keys: Vec<_> = wanted.iter().map(|(_, record)| (record.key, None)).collect();
    // Where it does not answer, whoever brings them says why.
    let found = project.shared.as_ref().and_then(|shared| shared.has(&keys).ok());
    let found = wanted.into_iter().zip(found.into_iter().flatten());
    let lacks = found.filter(|(_, found)| *found == RemoteState::RecordOnly);
    let lacks: HashSet<StageKey> = lacks.map(|((_, record), _)| record.key).collect();
    let taken = records.extract_if(.., |(_, record)| lacks.contains(&record.key));
    taken.map(|(name, _)| name).collect()
}
