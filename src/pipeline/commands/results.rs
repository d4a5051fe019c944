//! `pipeline results`: every recorded result of stages, under whatever parameters.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::bail;
use pipeline_stages::metrics::Number;
use pipeline_stages::path_text::PathText;
use pipeline_stages::point::canonical;
use pipeline_stages::text::in_short;
use serde_json::{Value, json};

use super::hint::{MOST_LISTED, did_you_mean};
use super::metrics::{NOTHING, columns};
use super::output::{note, print, print_json, print_raw};
use super::project::Project;
use super::recorded::{AllRecorded, Recorded, Setting, shown};
use crate::cache::Record;
use crate::cli::ResultsArguments;
use crate::format;
use crate::manifest;
use crate::pattern::Pattern;
use crate::table;
use crate::usage::{self, Usage};

pub(crate) fn run(arguments: &ResultsArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let patterns = arguments.manifest.stages();
    let chosen = project.choose(&patterns)?;
    let plan = project.plan(&project.with_inputs(&chosen));
    let templates: BTreeSet<&str> = chosen.iter().map(|name| name.template()).collect();
    // Instances of earlier runs count too, which the manifest does not have now.
    let read: Vec<Pattern<'_>> = patterns.iter().map(|text| Pattern::read(text)).collect();
    let only = format!("*@{}", arguments.manifest.with.only.join(","));
    let only = Some(Pattern::read(&only)).filter(|_| !arguments.manifest.with.only.is_empty());
    let mut results = AllRecorded::read(&project, &plan)?.results(|name| {
        templates.contains(name.template())
            && (read.is_empty() || read.iter().any(|pattern| pattern.has(name)))
            && only.as_ref().is_none_or(|only| only.has(name))
    });
    if results.is_empty() {
        note("no result of these stages is recorded");
    } else {
        let conditions = arguments.conditions.iter().flat_map(|all| all.0.clone());
        select(&mut results, &conditions.collect::<Vec<_>>())?;
        if results.is_empty() {
            note("no result has these values");
        }
    }
    if patterns.is_empty() && !results.is_empty() {
        results.retain(|result| !result.record.metrics.is_empty());
        if results.is_empty() {
            let these = if arguments.conditions.is_empty() { "" } else { " with these values" };
            note(&format!(
                "no result{these} has metrics; name a stage to see its results without them"
            ));
        }
    }
    // In the order of the manifest.
    let places = project.graph.order().map(|name| name.template()).enumerate();
    let mut order: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, template) in places {
        order.entry(template).or_insert(place);
    }
    sort(&mut results, &order, arguments)?;
    let format = &arguments.format;
    if format.json {
        print_json(&to_json(&project, &results))?;
    } else if format.csv {
        print_raw(to_csv(&results, arguments.usage).as_bytes())?;
    } else {
        let mut blocks = Vec::new();
        let mut rest = results.as_slice();
        while let Some(first) = rest.first() {
            let template = first.name.template();
            let end = rest.iter().take_while(|one| one.name.template() == template).count();
            let (block, others) = rest.split_at(end);
            blocks.push(to_text(&project, template, block, arguments));
            rest = others;
        }
        print(&blocks.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps the results with these values. The same name twice means either value.
fn select(results: &mut Vec<Recorded>, conditions: &[(String, String)]) -> anyhow::Result<()> {
    for (name, _) in conditions {
        if !results.is_empty() && results.iter().all(|result| values(result, name).is_empty()) {
            let mut names = BTreeSet::new();
            for result in results.iter() {
                names.extend(result.name.point().map(|(axis, _)| axis.to_owned()));
                names.extend(result.settings().keys().map(Setting::to_string));
            }
            let hint = did_you_mean(name, names.iter().map(String::as_str));
            bail!("no result has a parameter or an axis '{name}'; {hint}");
        }
    }
    results.retain(|result| {
        conditions.iter().all(|(name, _)| {
            let there = values(result, name);
            let wanted = conditions.iter().filter(|(other, _)| other == name);
            wanted.into_iter().any(|(_, value)| there.contains(&canonical(value).into_owned()))
        })
    });
    Ok(())
}

/// The values of a parameter or an axis; several where stages have one of the same name.
fn values(result: &Recorded, name: &str) -> Vec<String> {
    let axes = result.name.point().filter(|(axis, _)| *axis == name);
    let axes = axes.map(|(_, value)| canonical(value).into_owned());
    let settings = result.settings().iter().filter(|(setting, _)| setting.is_called(name));
    axes.chain(settings.map(|(_, value)| canonical(&shown(value)).into_owned())).collect()
}

/// Sorts by the stages' order in the manifest, then by what was asked for, or by all that differs.
fn sort(
    results: &mut Vec<Recorded>,
    order: &BTreeMap<&str, usize>,
    arguments: &ResultsArguments,
) -> anyhow::Result<()> {
    let place = |result: &Recorded| order.get(result.name.template()).copied();
    results.sort_by_key(place);
    let Some(by) = &arguments.sort else {
        sort_by_columns(results);
        return Ok(());
    };
    let value = |result: &Recorded| {
        let metric = result.record.metrics.get(by).map(|value| value.to_string());
        metric.or_else(|| values(result, by).into_iter().next())
    };
    if !results.is_empty() && results.iter().all(|result| value(result).is_none()) {
        let metrics = results.iter().flat_map(|result| result.record.metrics.keys());
        let mut names: Vec<String> =
            differing(results).into_iter().map(|column| column.head).collect();
        names.extend(metrics.collect::<BTreeSet<_>>().into_iter().cloned());
        if names.is_empty() {
            bail!("no result has '{by}'");
        }
        let near = manifest::did_you_mean(by, names.iter().map(String::as_str));
        let hint = near.unwrap_or_else(|| format!("there are: {}", in_short(&names, MOST_LISTED)));
        bail!("no result has '{by}'; {hint}");
    }
    // What is not a number is neither the largest nor the smallest.
    let ranked = |result: &Recorded| {
        value(result).filter(|value| !value.parse::<f64>().is_ok_and(f64::is_nan))
    };
    results.sort_by(|one, other| {
        let values = match (ranked(one), ranked(other)) {
            (Some(one), Some(other)) if arguments.reverse => compare(&one, &other),
            (Some(one), Some(other)) => compare(&other, &one),
            // What does not have it comes last.
            (one, other) => other.is_some().cmp(&one.is_some()),
        };
        place(one).cmp(&place(other)).then(values)
    });
    Ok(())
}

/// Sorts the results of each stage by what differs between them.
fn sort_by_columns(results: &mut Vec<Recorded>) {
    let mut rest = std::mem::take(results);
    while let Some(first) = rest.first() {
        let template = first.name.template().to_owned();
        let end = rest.iter().take_while(|one| one.name.template() == template).count();
        let others = rest.split_off(end);
        let columns = differing(&rest);
        let cells =
            |place: usize| columns.iter().map(move |column: &Column| column.cells[place].clone());
        let mut rows: Vec<(Vec<Option<String>>, Recorded)> = rest
            .into_iter()
            .enumerate()
            .map(|(place, one)| (cells(place).collect(), one))
            .collect();
        rows.sort_by(|(one, _), (other, _)| {
            let pairs = one.iter().zip(other).map(|(one, other)| match (one, other) {
                (Some(one), Some(other)) => compare(one, other),
                (one, other) => one.is_some().cmp(&other.is_some()),
            });
            pairs.fold(Ordering::Equal, Ordering::then)
        });
        results.extend(rows.into_iter().map(|(_, one)| one));
        rest = others;
    }
}

/// Numbers as numbers, everything else as text. What is not a number comes below all numbers.
fn compare(one: &str, other: &str) -> Ordering {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| !number.is_nan());
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => one.cmp(other),
    }
}

/// A column: its head, and a cell for each result.
struct Column {
    head: String,
    cells: Vec<Option<String>>,
}

/// The axes and parameters that differ. Of several with the same name and the same values, one. The parameters of a stage that
/// only some results have differ if they do among these; that the others lack it is shown, unless it follows from an axis.
fn differing(results: &[Recorded]) -> Vec<Column> {
    let names: BTreeSet<&str> =
        results.iter().flat_map(|result| result.name.point().map(|(axis, _)| axis)).collect();
    let axes = names.into_iter().map(|axis| {
        let value = |result: &Recorded| {
            let mut point = result.name.point();
            point.find(|(name, _)| *name == axis).map(|(_, value)| value.to_owned())
        };
        let cells = results.iter().map(value).collect();
        (axis.to_ascii_lowercase(), false, Column { head: axis.to_owned(), cells })
    });
    let axes: Vec<_> = axes.filter(|(.., column)| !is_same(&column.cells)).collect();
    let settings: BTreeSet<&Setting> =
        results.iter().flat_map(|result| result.settings().keys()).collect();
    let stages: BTreeSet<&str> = settings.iter().map(|setting| &*setting.stage).collect();
    // For each stage, which results have it, and whether the axes alone say that.
    let stages = stages.into_iter().map(|stage| {
        let has =
            |result: &Recorded| result.settings().keys().any(|setting| setting.stage == stage);
        let has: Vec<bool> = results.iter().map(has).collect();
        let mut by_point = BTreeMap::new();
        let follows = has.iter().enumerate().all(|(place, has)| {
            let point: Vec<_> = axes.iter().map(|(.., column)| &column.cells[place]).collect();
            by_point.entry(point).or_insert(has) == &has
        });
        (stage, (has, follows))
    });
    let stages: BTreeMap<&str, (Vec<bool>, bool)> = stages.collect();
    let settings = settings.into_iter().filter_map(|setting| {
        let value = |result: &Recorded| result.settings().get(setting).map(shown);
        let cells: Vec<_> = results.iter().map(value).collect();
        let (has, follows) = stages.get(setting.stage.as_str())?;
        let present = cells.iter().zip(has).filter(|(_, has)| **has).map(|(cell, _)| cell.clone());
        let is_kind_of_some = setting.name == "kind" && !follows && has.contains(&false);
        if is_same(&present.collect::<Vec<_>>()) && !is_kind_of_some {
            return None;
        }
        let last = setting.name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        Some((last, setting.is_entry(), Column { head: setting.to_string(), cells }))
    });
    let settings: Vec<_> = settings.collect();
    let mut found: Vec<(String, Column)> =
        axes.into_iter().map(|(name, _, column)| (name, column)).collect();
    let axes_shown = found.len();
    for (name, is_entry, column) in settings {
        let (axes, others) = found.split_at_mut(axes_shown);
        // `environment = { RATE = "${rate}" }` is the axis under another name.
        let of_axis = axes.iter_mut().find(|(axis, shown)| match *axis == name {
            true => shown.agrees_with(&column),
            false => is_entry && shown.cells == column.cells,
        });
        if let Some((_, axis)) = of_axis {
            // Results from before the axis existed have the value of the parameter.
            axis.cells = column.cells;
            continue;
        }
        let is_shown =
            others.iter().any(|(other, shown)| *other == name && shown.cells == column.cells);
        if !is_shown && !follows_from(axes, &column) {
            found.push((name, column));
        }
    }
    found.into_iter().map(|(_, column)| column).collect()
}

impl Column {
    /// Whether another one has the same value wherever this has one.
    fn agrees_with(&self, other: &Self) -> bool {
        let mut pairs = self.cells.iter().zip(&other.cells);
        pairs.all(|(own, other)| own.is_none() || own == other)
    }
}

/// Whether the lists in a column differ only in the values of axes, as the arguments of a program do.
fn follows_from(axes: &[(String, Column)], column: &Column) -> bool {
    let without_axes = column.cells.iter().enumerate().map(|(place, cell)| {
        let list = cell.as_ref().filter(|cell| cell.starts_with('['))?;
        let values = axes.iter().filter_map(|(_, axis)| axis.cells[place].as_ref());
        Some(values.fold(list.clone(), |list, value| list.replace(value.as_str(), "")))
    });
    let without_axes: Vec<_> = without_axes.collect();
    without_axes.iter().all(Option::is_some) && is_same(&without_axes)
}

fn is_same(cells: &[Option<String>]) -> bool {
    cells.windows(2).all(|pair| pair[0] == pair[1])
}

/// A table of the results of one stage.
fn to_text(
    project: &Project,
    template: &str,
    results: &[Recorded],
    arguments: &ResultsArguments,
) -> String {
    let mut table = differing(results);
    table.extend(clean_labels(results));
    let told_apart_by = table.len();
    let records: Vec<_> = results.iter().map(|one| (&one.name, &one.record)).collect();
    let kind = project.graph.order().find(|name| name.template() == template);
    let kind = kind.and_then(|name| project.manifest.stage(name));
    let headline = kind.map_or(&[][..], |stage| stage.stage.info().headline);
    let (metrics, left_out) = columns(headline, &records, arguments.all);
    for metric in metrics {
        let value =
            |(_, record): &(_, &Record)| record.metrics.get(metric).copied().map(format::metric);
        table.push(Column { head: metric.to_owned(), cells: records.iter().map(value).collect() });
    }
    if arguments.usage {
        let taken = results.iter().map(|one| usage_cells(&one.record)).collect::<Vec<_>>();
        for (place, head) in USAGE.iter().enumerate() {
            let cell = |row: &[String; 5]| Some(row[place].clone()).filter(|cell| !cell.is_empty());
            table
                .push(Column { head: (*head).to_owned(), cells: taken.iter().map(cell).collect() });
        }
    }
    let key = |result: &Recorded| Some(result.record.key.short());
    table.push(Column { head: "key".to_owned(), cells: results.iter().map(key).collect() });
    let now = |result: &Recorded| Some(if result.is_current { "yes" } else { "" }.to_owned());
    table.push(Column { head: "current".to_owned(), cells: results.iter().map(now).collect() });
    let mut rows = vec![table.iter().map(|column| column.head.clone()).collect::<Vec<_>>()];
    for place in 0..results.len() {
        let cell = |column: &Column| column.cells[place].clone().unwrap_or(NOTHING.to_owned());
        rows.push(table.iter().map(cell).collect());
    }
    let more = match left_out {
        true => "\n`--all` shows more metrics\n",
        false => "",
    };
    if arguments.format.markdown {
        return format!("### {template}\n\n{}", markdown(&rows));
    }
    format!("{template}\n{}{more}", table::folded(&rows, told_apart_by))
}

/// Which results used labels that are known to be right, where some did.
fn clean_labels(results: &[Recorded]) -> Option<Column> {
    let uses: Vec<bool> = results.iter().map(Recorded::uses_clean_labels).collect();
    let cell = |&uses: &bool| Some(if uses { "yes" } else { "" }.to_owned());
    uses.contains(&true)
        .then(|| Column { head: "clean-labels".to_owned(), cells: uses.iter().map(cell).collect() })
}

/// The columns of what a result took.
const USAGE: [&str; 5] = ["time", usage::HEADS[0], usage::HEADS[1], usage::HEADS[2], "written"];

/// The same of a record, as people read it.
fn usage_cells(record: &Record) -> [String; 5] {
    let [cpu, memory, read] = record.usage.cells();
    let written = format::bytes(record.output.extent.bytes);
    [usage::time_cell(record.seconds, record.usage.part), cpu, memory, read, written]
}

/// The columns of what a result took, for programs: seconds and bytes.
const USAGE_NUMBERS: [&str; 6] =
    ["seconds", "cpu-seconds", "peak-memory", "gpu-memory", "bytes-in", "bytes-out"];

/// The same of a record; empty where it is not known.
fn usage_numbers(record: &Record) -> [String; 6] {
    let Usage { cpu_seconds, peak_memory, gpu_memory, bytes_in, part: _ } = record.usage;
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    let cpu = cpu_seconds.map(number).unwrap_or_default();
    let written = Some(record.output.extent.bytes);
    let [memory, gpu, read, written] = [peak_memory, gpu_memory, bytes_in, written].map(bytes);
    [number(record.seconds), cpu, memory, gpu, read, written]
}

fn markdown(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| {
        let cells = row.iter().map(|cell| cell.replace('|', r"\|").replace('\n', " "));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let Some((head, rest)) = rows.split_first() else { return String::new() };
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(head) + &rule + &rest.iter().map(line).collect::<String>()
}

/// One table of all results, with all metrics.
fn to_csv(results: &[Recorded], with_usage: bool) -> String {
    let columns: Vec<_> = differing(results).into_iter().chain(clean_labels(results)).collect();
    let metrics: BTreeSet<&String> =
        results.iter().flat_map(|result| result.record.metrics.keys()).collect();
    let fixed = ["stage", "instance", "key", "current", "finished"].map(str::to_owned);
    let heads = columns.iter().map(|column| column.head.clone());
    let head = fixed.into_iter().chain(heads).chain(metrics.iter().map(|name| (*name).clone()));
    let usage = USAGE_NUMBERS.map(str::to_owned).into_iter().filter(|_| with_usage);
    let mut text = csv_line(head.chain(usage));
    for (place, result) in results.iter().enumerate() {
        let fixed = [
            result.name.template().to_owned(),
            result.name.to_string(),
            result.record.key.to_string(),
            result.is_current.to_string(),
            result.record.finished.to_string(),
        ];
        let settings = columns.iter().map(|column| column.cells[place].clone().unwrap_or_default());
        let numbers = metrics.iter().map(|name| {
            let value = result.record.metrics.get(*name).copied();
            value.map(number).unwrap_or_default()
        });
        let usage = usage_numbers(&result.record).into_iter().filter(|_| with_usage);
        text.push_str(&csv_line(fixed.into_iter().chain(settings).chain(numbers).chain(usage)));
    }
    text
}

/// A number as other programs read it.
fn number(value: f64) -> String {
    Number(value).name().map_or_else(|| value.to_string(), str::to_owned)
}

fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let quoted = cells.map(|cell| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

fn to_json(project: &Project, results: &[Recorded]) -> Value {
    let results = results.iter().map(|result| {
        let axes: BTreeMap<&str, Value> = result
            .name
            .point()
            .map(|(axis, value)| (axis, pipeline_stages::point::typed(value)))
            .collect();
        let settings: BTreeMap<String, &Value> =
            result.settings().iter().map(|(setting, value)| (setting.to_string(), value)).collect();
        json!({
            "stage": result.name,
            "key": result.record.key,
            "artifact": result.record.output.digest,
            "path": project
                .cache
                .has_artifact(&result.record.output.digest)
                .then(|| project.cache.artifact(&result.record.output.digest))
                .as_deref()
                .map(PathText),
            "current": result.is_current,
            "finished": result.record.finished,
            "axes": axes,
            "clean-labels": result.uses_clean_labels(),
            "parameters": settings,
            "metrics": result.record.metrics,
            "seconds": result.record.seconds,
            "usage": result.record.usage,
            "bytes": result.record.output.extent.bytes,
        })
    });
    results.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_number_is_compared_as_one() {
        for (one, other, expected) in [
            ("10", "9", Ordering::Greater),
            ("1e-3", "0.01", Ordering::Less),
            ("b", "a", Ordering::Greater),
            ("NaN", "0", Ordering::Less),
            ("simclr", "3", Ordering::Less),
        ] {
            assert_eq!(compare(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn cells_are_quoted_where_other_programs_need_it() {
        let cells = ["a", "b,c", "say \"x\"", ""].map(str::to_owned);
        assert_eq!(csv_line(cells.into_iter()), "a,\"b,c\",\"say \"\"x\"\"\",\n");
        let rows = [vec!["a".to_owned()], vec!["b|c".to_owned()]];
        assert_eq!(markdown(&rows), "| a |\n|---|\n| b\\|c |\n");
    }
}
