//! `pipeline push`: fresh results of the cache to the remote.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::metered::metered;
use super::output::{note, print, print_json};
use super::project::Project;
use super::push_order::PushOrder;
use super::remote_results::MOST_AT_ONCE;
use crate::cache::{Watch, on_threads};
use crate::cli::PushArguments;
use crate::format;
use crate::instances::names_in_words;
use crate::plan::PlanState;
use crate::remote::{NotPulled, Pushed, What};

pub(crate) fn run(arguments: &PushArguments) -> anyhow::Result<ExitCode> {
    let PushArguments { manifest, json } = arguments;
    let project = Project::open(manifest)?;
    let shared = project.required_remote(manifest)?;
    // What is sent stays meanwhile.
    project.cache.pin_everything(note);
    let selected = project.select(&manifest.stages())?;
    let plan = project.plan(&selected);
    let (mut seen, mut results, mut without) = (HashSet::new(), Vec::new(), Vec::new());
    for (name, state) in plan.iter() {
        match state {
            PlanState::Fresh(record) if seen.insert(record.key) => results.push((name, record)),
            PlanState::Fresh(_) | PlanState::Remote(_) => {}
            _ => without.push(name),
        }
    }
    if results.is_empty() && !without.is_empty() {
        bail!("none of these stages has a result: `{}` makes them", manifest.command_again("run"));
    }
    let watch = Watch::default();
    let bytes = results.iter().map(|(_, record)| record.output.extent.bytes).sum();
    let order = PushOrder::of(results.iter().map(|(_, record)| &***record));
    let places: Vec<usize> = (0..results.len()).collect();
    let pushed = metered("push", bytes, &watch, || {
        on_threads(&places, MOST_AT_ONCE, |&place| {
            let push = || shared.push(&project.cache, results[place].1, What::Result, &watch);
            order.after_inputs(place, push)
        })
    });
    let (mut new, mut existed) = (Vec::new(), 0);
    let (mut signed, mut unsigned) = (Vec::new(), Vec::new());
    let (mut other_bytes, mut failed) = (Vec::new(), Vec::new());
    for ((name, record), pushed) in results.into_iter().zip(pushed) {
        match pushed {
            Ok(Pushed::New | Pushed::Completed) => new.push((name, record.output)),
            Ok(Pushed::Signed) => signed.push(name),
            Ok(Pushed::Existed) => existed += 1,
            Ok(Pushed::Unsigned) => unsigned.push(name),
            Ok(Pushed::OtherBytes) => other_bytes.push(name),
            Err(NotPulled::There(failure)) => failed.push((name, failure.reason)),
            Err(NotPulled::Here(error)) => failed.push((name, format!("{error:#}"))),
            Err(NotPulled::Stopped) => failed.push((name, "stopped".to_owned())),
        }
    }
    let bytes: u64 = new.iter().map(|(_, stored)| stored.extent.bytes).sum();
    existed += signed.len() + unsigned.len();
    let address = shared.address();
    if *json {
        let new =
            new.iter().map(|(name, stored)| json!({ "stage": name, "artifact": stored.digest }));
        let failed = failed.iter().map(|(name, why)| json!({ "stage": name, "because": why }));
        print_json(&json!({
            "remote": address.to_string(),
            "pushed": new.collect::<Vec<_>>(),
            "bytes": bytes,
            "existed": existed,
            "signed": signed,
            "unsigned": unsigned,
            "other-bytes": other_bytes,
            "without": without,
            "failed": failed.collect::<Vec<_>>(),
        }))?;
    } else {
        show_failures(&failed);
        if !without.is_empty() {
            note(&format!("without a result, and left out: {}", names_in_words(without)));
        }
        let words = |names: &[_]| if names.len() == 1 { ("has", "its") } else { ("have", "their") };
        if !other_bytes.is_empty() {
            let (have, them) = words(&other_bytes);
            note(&format!(
                "not pushed: {} {have} other bytes there, under the same key; once {them} file in records/ is removed there, a push sends \
                 yours",
                names_in_words(other_bytes.iter().copied())
            ));
        }
        if !unsigned.is_empty() {
            let (have, them) = words(&unsigned);
            note(&format!(
                "not signed by you: {} {have} another record there; once {them} file in records/ is removed there, a push sends and \
                 signs yours",
                names_in_words(unsigned.iter().copied())
            ));
        }
        let (new, size) = (new.len(), format::bytes(bytes));
        let signed = match signed.len() {
            0 => String::new(),
            count => format!(" ({count} of them signed by you now)"),
        };
        print(&format!(
            "{new} pushed ({size}) to {address}, {existed} were there already{signed}\n"
        ))?;
    }
    let is_all_there = failed.is_empty() && other_bytes.is_empty();
    Ok(if is_all_there { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for each reason: where the remote does not work, all have the same.
fn show_failures(failed: &[(&crate::stage_name::StageName, String)]) {
    let mut shown = HashSet::new();
    for (_, why) in failed {
        if shown.insert(why) {
            let names = failed.iter().filter(|(_, other)| other == why).map(|(name, _)| *name);
            note(&format!("not pushed: {}: {why}", names_in_words(names)));
        }
    }
}
