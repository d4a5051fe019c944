//! A summary for programs: `summary.csv`, `summary.json` and `runs.csv`.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_stages::kinds::Summarize;
use pipeline_stages::metrics::Number;
use pipeline_stages::point::Point;
use serde::Serialize;
use serde_json::{Map, Value};

use super::axes::{Label, number};
use super::groups::Group;
use super::runs::Run;
use super::statistics::Statistics;
use crate::csv;

/// The groups of a metric.
pub(super) struct OfMetric<'a> {
    pub name: &'a str,
    pub higher_is_better: Option<bool>,
    pub groups: Vec<Group>,
}

/// A group as a line of `summary.csv`, after its metric and axes.
const COLUMNS: [&str; 15] = [
    "n",
    "failed",
    "not-finite",
    "mean",
    "std",
    "low",
    "high",
    "min",
    "max",
    "pairs",
    "difference",
    "difference-std",
    "difference-low",
    "difference-high",
    "reference",
];

/// One row per metric and group. Where a group used clean labels, the last column says which ones did.
pub(super) fn summary_csv(summarize: &Summarize, metrics: &[OfMetric<'_>]) -> String {
    let axes = || summarize.rows.iter().chain(&summarize.columns).map(String::as_str);
    let is_marked = metrics.iter().flat_map(|it| &it.groups).any(|group| group.uses_clean_labels);
    let last = is_marked.then_some("clean-labels");
    let mut text = csv::line(["metric"].into_iter().chain(axes()).chain(COLUMNS).chain(last));
    for metric in metrics {
        for group in &metric.groups {
            let label = group.row.iter().chain(&group.column);
            let label = label.map(|value| value.clone().unwrap_or_default());
            let clean = is_marked.then(|| group.uses_clean_labels.to_string());
            let fields = fields(group).into_iter().chain(clean);
            let fields = [metric.name.to_owned()].into_iter().chain(label).chain(fields);
            text.push_str(&csv::line(fields));
        }
    }
    text
}

fn fields(group: &Group) -> Vec<String> {
    let text = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let spread = |it: Option<Statistics>| {
        let interval = it.and_then(|it| it.interval);
        [
            text(it.map(|it| it.mean)),
            text(it.and_then(|it| it.std)),
            text(interval.map(|(low, _)| low)),
            text(interval.map(|(_, high)| high)),
        ]
    };
    let values = group.statistics;
    let mut fields = vec![
        values.map_or(0, |it| it.n).to_string(),
        group.failed.to_string(),
        values.map_or(0, |it| it.not_finite).to_string(),
    ];
    fields.extend(spread(values));
    fields.extend([text(values.map(|it| it.min)), text(values.map(|it| it.max))]);
    fields.push(group.versus.map_or(String::new(), |it| it.pairs().to_string()));
    fields.extend(spread(group.versus.and_then(|it| it.statistics)));
    fields.push(text(group.reference));
    fields
}

/// One row per point of each run, then the points of the failed.
pub(super) fn runs_csv(summarize: &Summarize, runs: &[Run], failed: &[Point]) -> String {
    let points = runs.iter().flat_map(|run| &run.points).chain(failed);
    let axes: BTreeSet<&str> = points.flat_map(Point::iter).map(|(axis, _)| axis).collect();
    let values_at = |point: &Point| -> Vec<String> {
        axes.iter().map(|axis| point.get(axis).unwrap_or_default().to_owned()).collect()
    };
    let metrics = summarize.metric.0.iter().map(String::as_str);
    let mut text = csv::line(["run"].into_iter().chain(axes.iter().copied()).chain(metrics));
    for (index, run) in runs.iter().enumerate() {
        for point in &run.points {
            let values = run.values.iter().map(f64::to_string);
            let fields =
                [(index + 1).to_string()].into_iter().chain(values_at(point)).chain(values);
            text.push_str(&csv::line(fields));
        }
    }
    for point in failed {
        let values = summarize.metric.0.iter().map(|_| String::new());
        text.push_str(&csv::line(
            [String::new()].into_iter().chain(values_at(point)).chain(values),
        ));
    }
    text
}

/// What is in `summary.json`. NaN and infinities are texts, as in `metrics.json`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SummaryFile<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    over: &'a [String],
    rows: &'a [String],
    columns: &'a [String],
    r#where: BTreeMap<&'a str, Vec<Value>>,
    versus: BTreeMap<&'a str, Value>,
    runs: usize,
    failed: &'a [Point],
    metrics: Vec<MetricEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetricEntry<'a> {
    metric: &'a str,
    better: Option<&'static str>,
    groups: Vec<GroupEntry>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct GroupEntry {
    at: Map<String, Value>,
    n: usize,
    failed: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    clean_labels: bool,
    not_finite: usize,
    #[serde(flatten)]
    values: Spread,
    min: Option<Number>,
    max: Option<Number>,
    versus: Option<VersusEntry>,
    reference: Option<Number>,
}

#[derive(Serialize)]
struct VersusEntry {
    pairs: usize,
    #[serde(flatten)]
    differences: Spread,
}

#[derive(Serialize)]
struct Spread {
    mean: Option<Number>,
    std: Option<Number>,
    interval: Option<[f64; 2]>,
}

impl Spread {
    fn of(statistics: Option<Statistics>) -> Self {
        let interval = statistics.and_then(|it| it.interval);
        Self {
            mean: statistics.map(|it| Number(it.mean)),
            std: statistics.and_then(|it| it.std).map(Number),
            interval: interval.map(|(low, high)| [low, high]),
        }
    }
}

impl<'a> SummaryFile<'a> {
    pub(super) fn of(
        summarize: &'a Summarize,
        metrics: &[OfMetric<'a>],
        runs: &[Run],
        failed: &'a [Point],
    ) -> Self {
        let metric = |metric: &OfMetric<'a>| MetricEntry {
            metric: metric.name,
            better: metric.higher_is_better.map(|higher| if higher { "higher" } else { "lower" }),
            groups: metric.groups.iter().map(|it| group_entry(summarize, it)).collect(),
        };
        let chosen = summarize.r#where.iter();
        Self {
            title: summarize.title.as_deref(),
            over: &summarize.over,
            rows: &summarize.rows,
            columns: &summarize.columns,
            r#where: chosen
                .map(|(axis, values)| {
                    (axis.as_str(), values.0.iter().map(|it| typed(it.as_str())).collect())
                })
                .collect(),
            versus: summarize
                .versus
                .iter()
                .map(|(axis, it)| (axis.as_str(), typed(it.as_str())))
                .collect(),
            runs: runs.len(),
            failed,
            metrics: metrics.iter().map(metric).collect(),
        }
    }
}

fn group_entry(summarize: &Summarize, group: &Group) -> GroupEntry {
    let at = |axes: &[String], label: &Label| -> Vec<(String, Value)> {
        let values = axes.iter().cloned().zip(label);
        values.map(|(axis, value)| (axis, value.as_deref().map_or(Value::Null, typed))).collect()
    };
    let (rows, columns) = (at(&summarize.rows, &group.row), at(&summarize.columns, &group.column));
    GroupEntry {
        at: rows.into_iter().chain(columns).collect(),
        n: group.statistics.map_or(0, |it| it.n),
        failed: group.failed,
        clean_labels: group.uses_clean_labels,
        not_finite: group.statistics.map_or(0, |it| it.not_finite),
        values: Spread::of(group.statistics),
        min: group.statistics.map(|it| Number(it.min)),
        max: group.statistics.map(|it| Number(it.max)),
        versus: group
            .versus
            .map(|it| VersusEntry { pairs: it.pairs(), differences: Spread::of(it.statistics) }),
        reference: group.reference.map(Number),
    }
}

/// A value of an axis: a number, `true`, `false` or a text.
fn typed(value: &str) -> Value {
    match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match value.parse::<i64>() {
            Ok(whole) => whole.into(),
            // More digits than a number has would be lost.
            Err(_) if value.bytes().all(|byte| byte.is_ascii_digit()) => value.into(),
            Err(_) => number(value).map_or_else(|| value.into(), Value::from),
        },
    }
}
