//! `pipeline compare`: two results beside each other.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{anyhow, bail, ensure};
use serde_json::{Value, json};

use super::metrics::NOTHING;
use super::output::{print, print_json};
use super::project::Project;
use super::recorded::{AllRecorded, Recorded, Setting, shown};
use crate::cli::{CompareArguments, SHORTEST_KEY};
use crate::format;
use crate::key::StageKey;
use crate::stage_name::StageName;
use crate::table;

pub(crate) fn run(arguments: &CompareArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let named = arguments.manifest.stages();
    let [one, other] = named.as_slice() else {
        bail!(
            "name two results: `pipeline compare MANIFEST A B`, each a stage, an instance or a key"
        );
    };
    let every: Vec<&StageName> = project.graph.order().collect();
    let plan = project.plan(&project.with_inputs(&every));
    let mut all = AllRecorded::read(&project, &plan)?;
    let (one, other) = (find(&project, &mut all, one)?, find(&project, &mut all, other)?);
    if arguments.json {
        print_json(&to_json(&one, &other))?;
    } else {
        print(&to_text(&one, &other, arguments.all))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The result of a key, or the newest one of a stage.
fn find(project: &Project, all: &mut AllRecorded, text: &str) -> anyhow::Result<Recorded> {
    let is_hexadecimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_key = is_hexadecimal && text.len() >= SHORTEST_KEY;
    let begins = |key: &StageKey| is_key && key.to_string().starts_with(text);
    let found = all.names().filter(|(name, key)| name.as_str() == text || begins(key));
    let found: Vec<_> = found.map(|(name, key)| (name.clone(), *key)).collect();
    let first = found.first().cloned();
    if let Some((_, key)) = first.as_ref().filter(|(_, key)| begins(key)) {
        let is_one = found.iter().all(|(_, other)| other == key);
        ensure!(is_one, "'{text}' is the beginning of several keys: write more of it");
    }
    let first = match first {
        Some(first) => Some(first),
        // A pattern that means one stage; a name that nothing has is reported with those that are near.
        None => {
            let name = project.find(text).map_err(|error| match (is_hexadecimal, is_key) {
                (_, true) => anyhow!("no recorded result has a key that begins with '{text}'"),
                (true, false) => anyhow!(
                    "{error}\nif '{text}' is the beginning of a key, write more of it: at least {SHORTEST_KEY} digits"
                ),
                (false, false) => error,
            })?;
            let named = all.names().find(|(other, _)| *other == name);
            named.map(|(name, key)| (name.clone(), *key))
        }
    };
    let Some((name, key)) = first else { bail!("'{text}' does not have a result yet") };
    let results = all.results(|other| *other == name).into_iter();
    let mut results = results.filter(|result| result.record.key == key);
    match results.next() {
        Some(result) => Ok(result),
        None => bail!("the record of '{text}' is gone"),
    }
}

/// A name for a parameter that both have: that of the stage is left out where the two are of different stages.
fn settings(result: &Recorded) -> impl Iterator<Item = (Setting, &Value)> {
    let own = result.name.template();
    result.settings().iter().map(move |(setting, value)| {
        let stage = if setting.stage == own { String::new() } else { setting.stage.clone() };
        (Setting { stage, name: setting.name.clone() }, value)
    })
}

fn label(setting: &Setting) -> String {
    if setting.stage.is_empty() { setting.name.clone() } else { setting.to_string() }
}

fn get<'r>(result: &'r Recorded, setting: &Setting) -> Option<&'r Value> {
    settings(result).find(|(other, _)| other == setting).map(|(_, value)| value)
}

fn to_text(one: &Recorded, other: &Recorded, all: bool) -> String {
    let cell = |value: Option<&Value>| value.map_or(NOTHING.to_owned(), shown);
    let names: BTreeSet<Setting> =
        settings(one).chain(settings(other)).map(|(setting, _)| setting).collect();
    let row =
        |head: &str, cell: fn(&Recorded) -> String| vec![head.to_owned(), cell(one), cell(other)];
    let mut rows = vec![
        row("", |result| result.name.to_string()),
        row("key", |result| result.record.key.short()),
        row("made", |result| format::ago(result.record.finished)),
    ];
    let heads = rows.len();
    for setting in &names {
        let (left, right) = (get(one, setting), get(other, setting));
        if all || left != right {
            rows.push(vec![label(setting), cell(left), cell(right)]);
        }
    }
    let mut text = table::beside(&rows);
    if rows.len() == heads {
        text.push_str("every parameter is the same\n");
    }
    let metrics = metrics(one, other);
    if !metrics.is_empty() {
        let mut rows = vec![["metric", "", "", "difference"].map(str::to_owned).to_vec()];
        let number = |value: Option<f64>| value.map_or(NOTHING.to_owned(), format::metric);
        for (name, left, right) in metrics {
            let difference = left.zip(right).map(|(left, right)| signed(right - left));
            let difference = difference.unwrap_or_default();
            rows.push(vec![name.to_owned(), number(left), number(right), difference]);
        }
        text.push_str(&format!("\n{}", table::plain(&rows)));
    }
    text
}

/// A difference, with its sign.
fn signed(difference: f64) -> String {
    let sign = if difference > 0.0 { "+" } else { "" };
    format!("{sign}{}", format::metric(difference))
}

/// The metrics that either has.
fn metrics<'r>(one: &'r Recorded, other: &'r Recorded) -> Vec<(&'r str, Option<f64>, Option<f64>)> {
    let (left, right) = (&one.record.metrics, &other.record.metrics);
    let names: BTreeSet<&str> = left.keys().chain(right.keys()).map(String::as_str).collect();
    let pair = |name: &'r str| (name, left.get(name).copied(), right.get(name).copied());
    names.into_iter().map(pair).collect()
}

fn to_json(one: &Recorded, other: &Recorded) -> Value {
    let side = |result: &Recorded| {
        let settings = settings(result).map(|(setting, value)| (label(&setting), value.clone()));
        json!({
            "stage": result.name,
            "key": result.record.key,
            "artifact": result.record.output.digest,
            "finished": result.record.finished,
            "parameters": settings.collect::<serde_json::Map<_, _>>(),
            "metrics": result.record.metrics,
        })
    };
    let differences = metrics(one, other).into_iter().filter_map(|(name, left, right)| {
        let difference = right? - left?;
        Some((name.to_owned(), json!(pipeline_stages::metrics::Number(difference))))
    });
    json!({
        "a": side(one),
        "b": side(other),
        "differences": differences.collect::<serde_json::Map<_, _>>(),
    })
}
