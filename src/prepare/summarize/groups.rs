//! The groups of a summary: the runs at one row and one column, and what is known of their values.

use std::collections::BTreeMap;

use pipeline_stages::kinds::Summarize;
use pipeline_stages::point::{Point, canonical};

use super::axes::{Label, Order, label};
use super::pairs::{Baseline, is_baseline};
use super::runs::Run;
use super::statistics::Statistics;

/// The runs at one row and one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// Its values on the axes of the rows.
    pub row: Label,
    /// Its values on the axes of the columns.
    pub column: Label,
    /// The points whose instance has failed.
    pub failed: usize,
    /// Whether a value is of a run that used clean labels.
    pub uses_clean_labels: bool,
    /// What is known of the values; `None` without runs.
    pub statistics: Option<Statistics>,
    /// The differences from the baseline; `None` for the baseline itself and where there is none.
    pub versus: Option<Differences>,
    /// The published value.
    pub reference: Option<f64>,
}

/// The paired differences of a group from the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Differences {
    /// What is known of them; `None` without pairs.
    pub statistics: Option<Statistics>,
    /// The runs that no run of the baseline agrees with.
    pub alone: usize,
    /// Whether a run of the group or of the baseline used clean labels.
    pub uses_clean_labels: bool,
}

impl Differences {
    /// How many pairs there are.
    pub(super) fn pairs(&self) -> usize {
        self.statistics.map_or(0, |statistics| statistics.n)
    }
}

/// What is at one row and one column.
struct Members<'a> {
    row: Label,
    column: Label,
    /// Each run once, with its points here.
    runs: Vec<(usize, Vec<&'a Point>)>,
    failed: usize,
    uses_clean_labels: bool,
    is_baseline: bool,
}

/// The groups of one metric, ordered by row and then by column.
pub(super) fn groups(
    summarize: &Summarize,
    metric: usize,
    runs: &[Run],
    failed: &[Point],
    order: &Order,
) -> Vec<Group> {
    let clean = summarize.clean_points(&summarize.metric.0[metric]);
    let uses_clean_labels = |point: &Point| clean.iter().any(|part| is_part(part, point));
    let mut members: BTreeMap<_, Members<'_>> = BTreeMap::new();
    let here = |point| {
        let (row, column) = (label(&summarize.rows, point), label(&summarize.columns, point));
        let key = (order.rank(&summarize.rows, &row), order.rank(&summarize.columns, &column));
        let is_baseline = !summarize.versus.is_empty() && is_baseline(&summarize.versus, point);
        let (runs, failed, uses_clean_labels) = (Vec::new(), 0, false);
        (key, Members { row, column, runs, failed, uses_clean_labels, is_baseline })
    };
    for (index, run) in runs.iter().enumerate() {
        for point in &run.points {
            let (key, empty) = here(point);
            let group = members.entry(key).or_insert(empty);
            group.uses_clean_labels |= uses_clean_labels(point);
            match group.runs.last_mut() {
                Some((last, points)) if *last == index => points.push(point),
                _ => group.runs.push((index, vec![point])),
            }
        }
    }
    for point in failed {
        let (key, empty) = here(point);
        members.entry(key).or_insert(empty).failed += 1;
    }
    let mut baseline = Baseline::new(&summarize.versus, runs);
    let group = |group: Members<'_>| {
        let values = group.runs.iter().map(|(run, _)| runs[*run].values[metric]);
        let statistics = Statistics::of(&values.collect::<Vec<_>>());
        let compared = !summarize.versus.is_empty() && !group.is_baseline;
        let versus = compared.then(|| {
            let pairs = baseline.pairs(&group.runs, metric);
            let mut points = pairs.baseline.iter().flat_map(|run| &runs[*run].points);
            let uses_clean_labels = group.uses_clean_labels || points.any(uses_clean_labels);
            let statistics = Statistics::of(&pairs.differences);
            Differences { statistics, alone: pairs.alone, uses_clean_labels }
        });
        let Members { row, column, failed, uses_clean_labels, .. } = group;
        Group { row, column, failed, uses_clean_labels, statistics, versus, reference: None }
    };
    members.into_values().map(group).collect()
}

/// Whether a point has all values of another one.
fn is_part(part: &Point, point: &Point) -> bool {
    part.iter()
        .all(|(axis, value)| point.get(axis).is_some_and(|own| canonical(own) == canonical(value)))
}
