//! `pipeline cache`: what takes room in a cache, and how much it may take.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use pipeline_stages::path_text::PathText;
use pipeline_stages::text::in_short;
use serde_json::{Value, json};

use super::output::{print, print_json};
use super::{gc, settings};
use crate::cache::{Cache, Contents, EarlierLook, What};
use crate::cli::{CacheArguments, CacheCommand, CacheLimitArguments, CacheSizeArguments};
use crate::execute::with_advice;
use crate::format;
use crate::history::UsesOfRuns;
use crate::table;

/// Most experiments that are named as users of the same.
const MOST_NAMED: usize = 8;

/// What stands for the experiments of what several use.
const SEVERAL: &str = "(several)";

pub(crate) fn run(arguments: &CacheArguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        CacheCommand::Size(arguments) => size(arguments),
        CacheCommand::Limit(arguments) => limit(arguments),
    }
}

/// How much room things of one kind take.
#[derive(Default)]
struct Sum {
    number: u64,
    bytes: u64,
}

/// The experiments that use something, what it is, and the kind of the stage that made it.
type Group = (BTreeSet<String>, What, String);

fn size(arguments: &CacheSizeArguments) -> anyhow::Result<ExitCode> {
    let cache = gc::existing(&arguments.cache)?;
    let mut runs = UsesOfRuns::default();
    let uses = runs.look(&cache)?;
    let contents = EarlierLook::default().look(&cache, &uses.documents)?;
    let by_key = runs.experiments();
    let mut groups: BTreeMap<Group, Sum> = BTreeMap::new();
    for item in &contents.items {
        let made = item.made_by.iter().map(|(_, experiment)| experiment.clone());
        let used = item.keys.iter().filter_map(|key| by_key.get(key)).flatten();
        let experiments: BTreeSet<String> = made.chain(used.map(|&name| name.to_owned())).collect();
        let kind = item.made_by.as_ref().map_or("", |(kind, _)| kind);
        let mut add = |what, kind: &str, experiments: BTreeSet<String>, bytes| {
            let sum = groups.entry((experiments, what, kind.to_owned())).or_default();
            sum.number += 1;
            sum.bytes += bytes;
        };
        if item.log_bytes > 0 {
            add(What::Log, "", BTreeSet::clone(&experiments), item.log_bytes);
        }
        add(item.what, kind, experiments, item.bytes - item.log_bytes);
    }
    let limit = gc::limit(&cache, settings::config()?.cache_limit)?.map(|(bytes, _)| bytes);
    match arguments.json {
        true => print_json(&to_json(&cache, &contents, &groups, limit))?,
        false => print(&to_text(&cache, &contents, groups, limit))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(
    cache: &Cache,
    contents: &Contents,
    groups: &BTreeMap<Group, Sum>,
    limit: Option<u64>,
) -> Value {
    let groups = groups.iter().map(|((experiments, what, kind), sum)| {
        json!({
            "experiments": experiments,
            "what": what.name(),
            "kind": (!kind.is_empty()).then_some(kind),
            "number": sum.number,
            "bytes": sum.bytes,
        })
    });
    let rest = contents.rest.iter().map(|(name, bytes)| {
        json!({ "experiments": [], "what": name, "kind": null, "number": null, "bytes": bytes })
    });
    json!({
        "cache": PathText(cache.layout().root()),
        "bytes": contents.bytes(),
        "limit": limit,
        "is-complete": !contents.is_partial,
        "contents": groups.chain(rest).collect::<Vec<_>>(),
    })
}

fn to_text(
    cache: &Cache,
    contents: &Contents,
    groups: BTreeMap<Group, Sum>,
    limit: Option<u64>,
) -> String {
    let mut several: BTreeSet<String> = BTreeSet::new();
    let mut experiments: BTreeMap<String, BTreeMap<String, Sum>> = BTreeMap::new();
    for ((names, what, kind), sum) in groups {
        let experiment = match names.len() {
            0 => String::new(),
            1 => names.into_iter().next().unwrap_or_default(),
            _ => {
                several.extend(names);
                SEVERAL.to_owned()
            }
        };
        let what = match what {
            What::Artifact if kind.is_empty() => "artifacts without a record".to_owned(),
            What::Artifact => kind,
            other => other.name().to_owned(),
        };
        let row = experiments.entry(experiment).or_default().entry(what).or_default();
        row.number += sum.number;
        row.bytes += sum.bytes;
    }
    let bytes_of = |rows: &BTreeMap<String, Sum>| rows.values().map(|sum| sum.bytes).sum::<u64>();
    let mut experiments: Vec<_> = experiments.into_iter().collect();
    // The largest first; what belongs to no experiment last.
    experiments.sort_by_key(|(name, rows)| (name.is_empty(), u64::MAX - bytes_of(rows)));
    let mut table = vec![["experiment", "what", "number", "size"].map(str::to_owned).to_vec()];
    for (experiment, rows) in experiments {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(_, sum)| u64::MAX - sum.bytes);
        for (what, sum) in rows {
            let number = format::count(sum.number);
            table.push(vec![experiment.clone(), what, number, format::bytes(sum.bytes)]);
        }
    }
    for (name, bytes) in &contents.rest {
        let cells = ["", name, ""].map(str::to_owned).into_iter();
        table.push(cells.chain([format::bytes(*bytes)]).collect());
    }
    let mut text = format!("{}\n", table::plain(&table));
    if !several.is_empty() {
        let names = in_short(several, MOST_NAMED);
        text.push_str(&format!("{SEVERAL}: what several of {names} use; it is counted once\n"));
    }
    if contents.is_partial {
        text.push_str("part of it cannot be read, and is not counted\n");
    }
    let limit = limit.map_or(String::new(), |limit| format!(" of {}", format::bytes(limit)));
    let total = format::bytes(contents.bytes());
    text.push_str(&format!("{}: {total}{limit}\n", cache.layout().root().display()));
    text
}

fn limit(arguments: &CacheLimitArguments) -> anyhow::Result<ExitCode> {
    let cache = gc::existing(&arguments.cache)?;
    if let Some(limit) = arguments.limit {
        cache.set_limit(limit).map_err(with_advice)?;
    }
    let limit = gc::limit(&cache, settings::config()?.cache_limit)?;
    print(&match limit {
        None => format!("{}: no limit\n", cache.layout().root().display()),
        Some((bytes, place)) => format!(
            "{}: at most {} (from {})\n",
            cache.layout().root().display(),
            format::bytes(bytes),
            place.display()
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
