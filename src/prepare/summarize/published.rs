//! Published values, from a CSV file of the user: axes, and the metrics in their own unit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::kinds::Summarize;
use pipeline_stages::point::canonical;
use pipeline_stages::text::{in_short, shortened};
use pipeline_stages::text_file;
use pipeline_stages::{KindConfig, PrepareStage};

use super::groups::Group;
use crate::csv;

/// How many names a message names.
const SHOWN: usize = 20;

/// A longer file is refused.
const MOST_BYTES: u64 = 16 << 20;

/// A published table.
pub(super) struct Published {
    /// The axes of the file that are rows or columns of the summary.
    axes: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    /// From 1.
    line: usize,
    /// The value on each axis; `None` for points without the axis.
    label: Vec<Option<String>>,
    /// The value of each metric of the summary. `None` where the file does not have it.
    values: Vec<Option<f64>>,
}

/// What a column of the file is.
enum Column {
    Shown,
    /// An axis that has one value in `where`.
    Fixed(String),
    /// The number of a metric.
    Metric(usize),
}

impl Published {
    /// Reads a file. Rows that `where` does not select are left out.
    ///
    /// # Errors
    /// With the file, the line and what is wrong.
    pub(super) fn read(path: &Path, summarize: &Summarize) -> anyhow::Result<Self> {
        let text = text_file::read(path, MOST_BYTES)?;
        Self::parse(&text, summarize)
            .map_err(|(line, wrong)| anyhow::anyhow!("{}, line {line}: {wrong}", path.display()))
    }

    fn parse(text: &str, summarize: &Summarize) -> Result<Self, (usize, String)> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut lines = lines.filter(|(_, line)| !line.trim().is_empty());
        let (first, header) = lines.next().ok_or((1, "the file is empty".to_owned()))?;
        let header = csv::fields(header).ok_or((first, "a quote is not closed".to_owned()))?;
        let columns = columns(&header, summarize).map_err(|wrong| (first, format!("{wrong:#}")))?;
        let shown =
            columns.iter().zip(&header).filter(|(column, _)| matches!(column, Column::Shown));
        let axes = shown.map(|(_, name)| name.clone()).collect();
        let mut rows: Vec<Row> = Vec::new();
        let mut seen = HashMap::new();
        for (line, text) in lines {
            let row = row(line, text, &columns, summarize)
                .map_err(|wrong| (line, format!("{wrong:#}")))?;
            let Some(row) = row else { continue };
            if let Some(other) = seen.insert(row.label.clone(), line) {
                return Err((
                    line,
                    format!("the same values on the axes as in line {other}: drop one of them"),
                ));
            }
            rows.push(row);
        }
        Ok(Self { axes, rows })
    }

    /// Gives each group its published value. Returns the lines that belong to no group.
    pub(super) fn assign(
        &self,
        summarize: &Summarize,
        metric: usize,
        groups: &mut [Group],
    ) -> Vec<usize> {
        let lines = self.rows.iter().map(|row| (&row.label, row));
        let by_label: HashMap<_, _> = lines.collect();
        let mut used = std::collections::HashSet::new();
        for group in groups {
            let axes = summarize
                .rows
                .iter()
                .zip(&group.row)
                .chain(summarize.columns.iter().zip(&group.column));
            let values: HashMap<_, _> = axes.collect();
            let value = |axis| values.get(axis).copied().and_then(Option::as_deref).map(canonical);
            let label: Vec<_> =
                self.axes.iter().map(|axis| value(axis).map(Cow::into_owned)).collect();
            if let Some(row) = by_label.get(&label) {
                group.reference = row.values[metric];
                used.insert(row.line);
            }
        }
        self.rows.iter().map(|row| row.line).filter(|line| !used.contains(line)).collect()
    }

    /// Its values of a metric.
    pub(super) fn values(&self, metric: usize) -> impl Iterator<Item = f64> {
        self.rows.iter().filter_map(move |row| row.values[metric])
    }
}

/// Whether a text has published values of one of two metrics, at the points of three axes. For fuzzing.
pub(crate) fn are_published(text: &str) -> bool {
    let parameters = serde_json::json!({
        "metric": ["accuracy", "loss"],
        "rows": ["method"],
        "columns": ["rate"],
        "where": {"noise": ["flip", 1]},
    });
    let stage = KindConfig::read("summarize", parameters).expect("a kind").expect("its parameters");
    let KindConfig::Prepare(PrepareStage::Summarize(stage)) = stage else { return false };
    Published::parse(text, &stage).is_ok_and(|published| {
        let values: Vec<f64> = (0..2).flat_map(|metric| published.values(metric)).collect();
        assert!(published.axes.len() <= 2 && values.iter().all(|value| value.is_finite()));
        !values.is_empty()
    })
}

fn columns(header: &[String], summarize: &Summarize) -> anyhow::Result<Vec<Column>> {
    let mut columns = Vec::new();
    for (index, name) in header.iter().enumerate() {
        ensure!(!header[..index].contains(name), "the column '{name}' occurs twice");
        let metric = summarize.metric.0.iter().position(|metric| metric == name);
        let is_shown = summarize.rows.contains(name) || summarize.columns.contains(name);
        columns.push(match metric {
            Some(metric) => Column::Metric(metric),
            None if is_shown => Column::Shown,
            None if summarize.r#where.contains_key(name) => Column::Fixed(name.clone()),
            None => {
                let axes =
                    summarize.rows.iter().chain(&summarize.columns).chain(summarize.r#where.keys());
                let known = in_short(axes.chain(&summarize.metric.0), SHOWN);
                bail!("'{}' is not a column here: the columns are {known}", shortened(name))
            }
        });
    }
    let has_metric = columns.iter().any(|column| matches!(column, Column::Metric(_)));
    ensure!(
        has_metric,
        "no column has the name of a metric: '{}'",
        summarize.metric.0.join("' or '")
    );
    Ok(columns)
}

/// A row, if `where` selects it.
fn row(
    line: usize,
    text: &str,
    columns: &[Column],
    summarize: &Summarize,
) -> anyhow::Result<Option<Row>> {
    let fields =
        csv::fields(text).context("a quote is not closed, or is in the middle of a field")?;
    let (expected, found) = (columns.len(), fields.len());
    ensure!(found == expected, "it has {found} fields, but the first line has {expected}");
    let mut row = Row { line, label: Vec::new(), values: vec![None; summarize.metric.0.len()] };
    for (column, field) in columns.iter().zip(fields) {
        match column {
            Column::Shown => row.label.push(match field.as_str() {
                "" => None,
                value => Some(canonical(value).into_owned()),
            }),
            Column::Fixed(axis) => {
                if !summarize.r#where.get(axis).is_some_and(|values| values.contain(&field)) {
                    return Ok(None);
                }
            }
            Column::Metric(_) if field.is_empty() => {}
            Column::Metric(metric) => {
                let value: Option<f64> = field.parse().ok().filter(|value: &f64| value.is_finite());
                let wrong = || {
                    format!("'{}' is not a number: write 0.943, without a unit", shortened(&field))
                };
                row.values[*metric] = Some(value.with_context(wrong)?);
            }
        }
    }
    Ok(Some(row))
}
