//! `pipeline metrics`: what stages measured.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::output::{print, print_json};
use super::project::Project;
use crate::cache::Record;
use crate::cli::MetricsArguments;
use crate::format;
use crate::instances::{self, Row, names_in_words};
use crate::plan::Plan;
use crate::stage_name::StageName;
use crate::summaries::{self, MOST_ROWS, Tables};
use crate::table;

/// The most metrics that have a column, where the kind does not have a list of the most important ones.
const MOST_COLUMNS: usize = 6;

/// What is in a cell of a table where there is nothing to show.
pub(super) const NOTHING: &str = "-";

pub(crate) fn run(arguments: &MetricsArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    let plan = project.plan(&project.with_inputs(&chosen));
    if arguments.json {
        print_json(&to_json(&chosen, &plan))?;
    } else {
        print(&to_text(&project, &chosen, &plan, arguments))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn result<'p>(plan: &'p Plan, name: &StageName) -> Option<&'p Record> {
    plan.state(name)?.result()
}

fn to_json(chosen: &[&StageName], plan: &Plan) -> Value {
    let metrics = |name: &&StageName| Some((name.to_string(), json!(result(plan, name)?.metrics)));
    Value::Object(chosen.iter().filter_map(metrics).collect::<Map<_, _>>())
}

/// All metrics of each stage; of one with several instances, a table.
fn to_text(
    project: &Project,
    chosen: &[&StageName],
    plan: &Plan,
    arguments: &MetricsArguments,
) -> String {
    let (mut blocks, mut lines, mut is_shortened) = (Vec::new(), Vec::new(), false);
    let measured = chosen.iter().filter_map(|&name| Some((name, result(plan, name)?)));
    // Of a stage with one result, all metrics are shown.
    for row in instances::rows(measured, 1) {
        match row {
            Row::One(name, record) => {
                lines.extend(lines_of(name, record));
                let kind = project.manifest.stage(name).map(|stage| stage.stage.info().name);
                if kind.is_some_and(summaries::is_summary) {
                    blocks.push(table::plain(&std::mem::take(&mut lines)));
                    let most = if arguments.all { usize::MAX } else { MOST_ROWS };
                    let tables = Tables::read(&project.cache, [(name, record.output.digest)], most);
                    is_shortened |= !tables.shortened.is_empty();
                    blocks.push(tables.into_text());
                }
            }
            Row::Many(template, records) => {
                blocks.push(table::plain(&std::mem::take(&mut lines)));
                let kind = records.first().and_then(|(name, _)| project.manifest.stage(name));
                let headline = kind.map_or(&[][..], |stage| stage.stage.info().headline);
                let (columns, left_out) = columns(headline, &records, arguments.all);
                is_shortened |= left_out;
                if !columns.is_empty() {
                    blocks.push(table(template, &columns, &records));
                }
            }
        }
    }
    blocks.push(table::plain(&lines));
    if is_shortened {
        let all = arguments.manifest.command_again("metrics");
        blocks.push(format!("`{all} --all` shows more\n"));
    }
    let without = chosen.iter().copied().filter(|name| result(plan, name).is_none());
    let without: Vec<_> = without.collect();
    if !without.is_empty() {
        let run = arguments.manifest.command_again("run");
        let experiment = &project.manifest.experiment.name;
        let has_earlier =
            |name: &&StageName| project.cache.last_record(experiment, name.as_str()).is_some();
        let earlier = match without.iter().any(has_earlier) {
            true => {
                format!("; earlier ones: `{}`", arguments.manifest.command_again("results"))
            }
            false => String::new(),
        };
        let pull = project.or_pull(&arguments.manifest.command_again("pull"));
        let names = names_in_words(without);
        blocks.push(format!("no result yet: {names} (`{run}`){pull}{earlier}\n"));
    }
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n")
}

/// A line for each metric of a stage.
fn lines_of(name: &StageName, record: &Record) -> Vec<Vec<String>> {
    let lines = record.metrics.iter().enumerate().map(|(index, (metric, value))| {
        let stage = if index == 0 { name.to_string() } else { String::new() };
        vec![stage, metric.clone(), format::metric(*value)]
    });
    lines.collect()
}

/// The metrics that have a column, those that the kind puts in front first; and whether there are others.
pub(super) fn columns<'a>(
    headline: &[&'a str],
    records: &[(&StageName, &'a Record)],
    all: bool,
) -> (Vec<&'a str>, bool) {
    let names = records.iter().flat_map(|(_, record)| record.metrics.keys().map(String::as_str));
    let mut others: BTreeSet<&str> = names.collect();
    let mut columns: Vec<&str> =
        headline.iter().copied().filter(|name| others.remove(name)).collect();
    let more = match (all, columns.is_empty()) {
        (true, _) => others.len(),
        (false, true) => MOST_COLUMNS,
        (false, false) => 0,
    };
    columns.extend(others.iter().take(more));
    (columns, others.len() > more)
}

/// A row for each instance: its values of the axes, and its metrics.
fn table(template: &str, columns: &[&str], records: &[(&StageName, &Record)]) -> String {
    let axes: BTreeSet<&str> =
        records.iter().flat_map(|(name, _)| name.point().map(|(axis, _)| axis)).collect();
    let mut rows = vec![Vec::from_iter(axes.iter().chain(columns).map(|&name| name.to_owned()))];
    for (name, record) in records {
        let point: HashMap<&str, &str> = name.point().collect();
        let values = axes.iter().map(|axis| point.get(axis).map(|&value| value.to_owned()));
        let metrics =
            columns.iter().map(|&metric| record.metrics.get(metric).copied().map(format::metric));
        let cells = values.chain(metrics).map(|cell| cell.unwrap_or_else(|| NOTHING.to_owned()));
        rows.push(cells.collect());
    }
    format!("{template}\n{}", table::folded(&rows, axes.len()))
}
