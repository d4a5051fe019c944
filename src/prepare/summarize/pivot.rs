//! A table by rows and columns, before it is Markdown or LaTeX.

use std::collections::BTreeMap;

use pipeline_stages::kinds::Summarize;

use super::axes::{Label, Order};
use super::format::{Format, higher_is_better};
use super::groups::Group;
use super::statistics::Statistics;

/// What the cells of a table show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Values,
    /// Their differences from the baseline.
    Differences,
}

/// A table.
pub(super) struct Pivot {
    pub row_axes: Vec<String>,
    pub column_axes: Vec<String>,
    pub rows: Vec<Label>,
    pub columns: Vec<Label>,
    /// By row, then by column; `None` where there is no point.
    pub cells: Vec<Vec<Option<Cell>>>,
    /// Of differences: how many runs have no run of the baseline to be compared with.
    pub alone: usize,
    /// How many runs, or pairs, each cell has, if that is the same for all that have any.
    pub n: Option<usize>,
}

/// What is in a cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// The mean, scaled and rounded. `None` without any run.
    pub mean: Option<String>,
    /// Half of the interval, scaled and rounded.
    pub half: Option<String>,
    pub n: usize,
    /// How many instances have failed.
    pub failed: usize,
    /// Whether a run behind the numbers, those of the baseline included, used clean labels.
    pub uses_clean_labels: bool,
    /// The published value, scaled and rounded.
    pub reference: Option<String>,
    /// Whether it is the best one of its column.
    pub best: bool,
    /// The mean, as it is.
    value: Option<f64>,
}

impl Pivot {
    /// The table of a metric.
    pub(super) fn of(
        summarize: &Summarize,
        metric: &str,
        groups: &[Group],
        order: &Order,
        shown: Shown,
    ) -> Self {
        let format = Format::of_groups(summarize, groups);
        // The rows and columns of the baseline itself have no differences.
        let has_cell = |group: &&Group| shown == Shown::Values || group.versus.is_some();
        let groups: Vec<&Group> = groups.iter().filter(has_cell).collect();
        let rank = |axes: &[String], label: &Label| order.rank(axes, label);
        let labels = |axes: &[String], label: fn(&Group) -> &Label| {
            let labels = groups.iter().map(|group| (rank(axes, label(group)), label(group)));
            labels.collect::<BTreeMap<_, _>>()
        };
        let (rows, columns) =
            (labels(&summarize.rows, |it| &it.row), labels(&summarize.columns, |it| &it.column));
        let place =
            |labels: &BTreeMap<Vec<Option<usize>>, &Label>| -> BTreeMap<Vec<Option<usize>>, usize> {
                labels.keys().cloned().enumerate().map(|(place, rank)| (rank, place)).collect()
            };
        let (row_places, column_places) = (place(&rows), place(&columns));
        let mut cells = vec![vec![None; columns.len()]; rows.len()];
        for group in &groups {
            let row = row_places[&rank(&summarize.rows, &group.row)];
            let column = column_places[&rank(&summarize.columns, &group.column)];
            cells[row][column] = cell(group, format, shown);
        }
        mark_best(&mut cells, higher_is_better(summarize.better, metric));
        let mut counts = cells.iter().flatten().flatten().map(|cell| cell.n).filter(|&n| n > 0);
        let n = counts.next().filter(|&first| counts.all(|n| n == first));
        Self {
            row_axes: summarize.rows.clone(),
            column_axes: summarize.columns.clone(),
            rows: rows.into_values().cloned().collect(),
            columns: columns.into_values().cloned().collect(),
            cells,
            alone: groups.iter().filter_map(|it| it.versus).map(|versus| versus.alone).sum(),
            n,
        }
    }
}

fn cell(group: &Group, format: Format, shown: Shown) -> Option<Cell> {
    let (statistics, uses_clean_labels) = match shown {
        Shown::Values => (group.statistics, group.uses_clean_labels),
        Shown::Differences => (group.versus?.statistics, group.versus?.uses_clean_labels),
    };
    let number = |value| match shown {
        Shown::Values => format.value(value),
        Shown::Differences => format.difference(value),
    };
    let values = shown == Shown::Values;
    Some(Cell {
        mean: statistics.map(|it| number(it.mean)),
        half: statistics.and_then(|it| it.half_interval()).map(|half| format.value(half)),
        n: statistics.map_or(0, |it: Statistics| it.n),
        failed: group.failed,
        uses_clean_labels,
        reference: group.reference.filter(|_| values).map(|value| format.value(value)),
        best: false,
        value: statistics.map(|it| it.mean).filter(|mean| values && mean.is_finite()),
    })
}

/// Marks the best cells of each column, or of the row if there is only one: those that are shown alike are equally good. Any finite mean
/// is better than one that is not. A cell that is compared with no other is not marked.
fn mark_best(cells: &mut [Vec<Option<Cell>>], higher: Option<bool>) {
    let Some(higher) = higher else { return };
    let columns = cells.first().map_or(0, Vec::len);
    let mut compared: Vec<Vec<&mut Cell>> = Vec::new();
    if let [row] = cells {
        compared.push(row.iter_mut().flatten().collect());
    } else {
        compared.resize_with(columns, Vec::new);
        for row in cells {
            for (column, cell) in row.iter_mut().enumerate() {
                compared[column].extend(cell);
            }
        }
    }
    for mut group in compared {
        group.retain(|cell| cell.mean.is_some());
        if group.len() < 2 {
            continue;
        }
        let better = |one: &&&mut Cell, other: &&&mut Cell| {
            let (one, other) = (one.value.unwrap_or_default(), other.value.unwrap_or_default());
            if higher { one.total_cmp(&other) } else { other.total_cmp(&one) }
        };
        let finite = group.iter().filter(|cell| cell.value.is_some());
        let Some(best) = finite.max_by(better).map(|cell| cell.mean.clone()) else { continue };
        group.into_iter().filter(|cell| cell.mean == best).for_each(|cell| cell.best = true);
    }
}
