//! `pipeline remote status`: which results are in the cache, on the remote, or on both.

use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::json;

use super::output::{print_coloured, print_json};
use super::project::Project;
use crate::cli::{RemoteArguments, RemoteCommand, RemoteStatusArguments};
use crate::digest::Digest;
use crate::format;
use crate::instances::{self, Row, instances_in_words};
use crate::key::StageKey;
use crate::plan::PlanState;
use crate::remote::RemoteState;
use crate::table::Table;

/// Where a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    is_here: bool,
    there: RemoteState,
}

impl Place {
    /// Each of them, in the order in which they are counted.
    const ALL: [Self; 11] = [
        Self::new(true, RemoteState::Result),
        Self::new(true, RemoteState::OtherBytes),
        Self::new(true, RemoteState::RecordOnly),
        Self::new(true, RemoteState::Damaged),
        Self::new(true, RemoteState::NotTrusted),
        Self::new(true, RemoteState::Nothing),
        Self::new(false, RemoteState::Result),
        Self::new(false, RemoteState::RecordOnly),
        Self::new(false, RemoteState::Damaged),
        Self::new(false, RemoteState::NotTrusted),
        Self::new(false, RemoteState::Nothing),
    ];

    const fn new(is_here: bool, there: RemoteState) -> Self {
        Self { is_here, there }
    }

    /// Whether the remote has a result that counts somewhere.
    fn is_there(self) -> bool {
        matches!(
            self.there,
            RemoteState::Result | RemoteState::OtherBytes | RemoteState::RecordOnly
        )
    }

    fn name(self) -> &'static str {
        match (self.is_here, self.there) {
            (true, RemoteState::Result) => "here and on the remote",
            (true, RemoteState::OtherBytes) => "here, and on the remote with other bytes",
            (true, RemoteState::RecordOnly) => "here, and on the remote its record only",
            (true, RemoteState::Damaged) => "here, and damaged on the remote",
            (true, RemoteState::NotTrusted) => "here, and not trusted on the remote",
            (true, RemoteState::Nothing) => "only here",
            (false, RemoteState::Result | RemoteState::OtherBytes) => "only on the remote",
            (false, RemoteState::RecordOnly) => "on the remote, its record only",
            (false, RemoteState::Damaged) => "damaged on the remote",
            (false, RemoteState::NotTrusted) => "not trusted on the remote",
            (false, RemoteState::Nothing) => "without a result",
        }
    }
}

pub(crate) fn run(arguments: &RemoteArguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        RemoteCommand::Status(arguments) => status(arguments),
    }
}

fn status(arguments: &RemoteStatusArguments) -> anyhow::Result<ExitCode> {
    let RemoteStatusArguments { manifest, all, size, json } = arguments;
    let project = Project::open(manifest)?;
    let shared = project.required_remote(manifest)?;
    let chosen = project.choose(&manifest.stages())?;
    let selected = project.with_inputs(&chosen);
    project.ask_remote_to_show(&selected, manifest);
    let plan = project.plan(&selected);
    let does_not_work =
        |failure| anyhow!("the remote {} does not work: {failure}", shared.address());
    let here = |name| match plan.state(name) {
        Some(PlanState::Fresh(record)) => Some(record.output.digest),
        _ => None,
    };
    let keys =
        chosen.iter().map(|&name| Some((plan.state(name).and_then(PlanState::key)?, here(name))));
    let keys: Vec<Option<(StageKey, Option<Digest>)>> = keys.collect();
    let known: Vec<_> = keys.iter().flatten().copied().collect();
    let mut has = shared.has(&known).map_err(does_not_work)?.into_iter();
    let places: Vec<_> = chosen
        .iter()
        .zip(keys)
        .map(|(&name, key)| {
            let there = key.and_then(|_| has.next()).unwrap_or(RemoteState::Nothing);
            (name, Place::new(here(name).is_some(), there))
        })
        .collect();
    let count = if *size { Some(shared.count().map_err(does_not_work)?) } else { None };
    let address = shared.address().to_string();
    if *json {
        let stages = places.iter().map(|(name, place)| {
            json!({
                "stage": name,
                "here": place.is_here,
                "remote": place.is_there(),
                "other-bytes": place.there == RemoteState::OtherBytes,
                "record-only": place.there == RemoteState::RecordOnly,
                "damaged": place.there == RemoteState::Damaged,
                "not-trusted": place.there == RemoteState::NotTrusted,
            })
        });
        let mut value = json!({ "remote": address, "stages": stages.collect::<Vec<_>>() });
        if let Some((records, bytes)) = count {
            value["results"] = json!(records.count);
            value["bytes"] = json!(bytes);
        }
        print_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = instances::rows(places, instances::most(*all)).into_iter().map(|row| match row {
        Row::One(name, place) => vec![name.to_string(), place.name().to_owned()],
        Row::Many(template, places) => {
            let count = |wanted| places.iter().filter(|(_, place)| *place == wanted).count();
            let words = Place::ALL.map(|place| (count(place), place.name()));
            vec![template.to_owned(), instances_in_words(words)]
        }
    });
    let table = Table::new(&rows.collect::<Vec<_>>()).ends_in_words().for_output();
    let size = count.map_or(String::new(), |(records, bytes)| {
        format!(", {} results in {}", records.count, format::bytes(bytes))
    });
    print_coloured(&format!("{table}\nremote: {address}{size}\n"))?;
    Ok(ExitCode::SUCCESS)
}
