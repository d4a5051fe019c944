//! Published values, from a CSV file of the user: axes, and the metrics in their own unit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use pipeline_stages::kinds::Summarize;
use pipeline_stages::metric_name::{is_accuracy, is_share};
use pipeline_stages::point::canonical;
use pipeline_stages::text::{in_short, shortened};
use pipeline_stages::text_file;
use pipeline_stages::worker::Context;

use super::groups::Group;
use crate::csv;

/// How many names a message names.
const SHOWN: usize = 20;

/// A longer file is refused.
const MOST_BYTES: u64 = 16 << 20;

/// A published table.
pub(super) struct Published {
    /// The file, for messages.
    file: String,
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
        let file = path.display().to_string();
        Self::parse(&file, &text, summarize)
            .map_err(|(line, wrong)| anyhow::anyhow!("{file}, line {line}: {wrong}"))
    }

    fn parse(file: &str, text: &str, summarize: &Summarize) -> Result<Self, (usize, String)> {
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
        Ok(Self { file: file.to_owned(), axes, rows })
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

    /// What to note of lines that belong to no group.
    pub(super) fn unused_in_words(&self, lines: &[usize]) -> String {
        let first = self.rows.iter().find(|row| lines.first() == Some(&row.line));
        let values = first.into_iter().flat_map(|row| self.axes.iter().zip(&row.label));
        let values = values.map(|(axis, value)| {
            format!("{axis} = {}", shortened(value.as_deref().unwrap_or("nothing")))
        });
        format!(
            "reference: {} of {} rows have no group here, in line {}: the first is {}",
            lines.len(),
            self.rows.len(),
            in_short(lines.iter().map(usize::to_string), SHOWN),
            in_short(values, SHOWN)
        )
    }

    /// Checks that its values of a metric have the unit of those here: fractions and percentages side by side would be wrong by
    /// a factor of 100.
    ///
    /// # Errors
    /// When one is an accuracy above 1, and those here are from 0 to 1. Of other shares, a large one is a note.
    pub(super) fn check_unit(
        &self,
        name: &str,
        metric: usize,
        groups: &[Group],
        context: &Context,
    ) -> anyhow::Result<()> {
        let mut own = groups.iter().filter_map(|group| group.statistics);
        let are_fractions =
            own.all(|it| (0.0..=1.0).contains(&it.min) && (0.0..=1.0).contains(&it.max));
        if !are_fractions {
            return Ok(());
        }
        let mut values = self.rows.iter().filter_map(|row| Some((row.line, row.values[metric]?)));
        if is_accuracy(name) {
            if let Some((line, wrong)) = values.find(|(_, value)| *value > 1.0) {
                bail!(
                    "{}, line {line}: '{name}' is from 0 to 1 here, but {wrong} is published: if that is in percent, write {} \
                     (scale = 100 shows percent)",
                    self.file,
                    of_percent(wrong)
                );
            }
        } else if is_share(name)
            && let Some((_, large)) = values.find(|(_, value)| *value > 1.5)
        {
            context.note(format!(
                "reference: '{name}' is a fraction here, but {large} is published: if that is in percent, write {} (scale = 100 shows percent)",
                of_percent(large)
            ));
        }
        Ok(())
    }
}

/// A percentage as a fraction, without the last digits of the division.
fn of_percent(value: f64) -> f64 {
    (value * 1e6).round() / 1e8
}

/// Whether a text has published values of one of two metrics, at the points of three axes. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn are_published(text: &str) -> bool {
    use pipeline_stages::{KindConfig, PrepareStage};

    let parameters = serde_json::json!({
        "metric": ["accuracy", "loss"],
        "rows": ["method"],
        "columns": ["rate"],
        "where": {"noise": ["flip", 1]},
    });
    let stage = KindConfig::read("summarize", parameters).expect("a kind").expect("its parameters");
    let KindConfig::Prepare(PrepareStage::Summarize(stage)) = stage else { return false };
    Published::parse("published.csv", text, &stage).is_ok_and(|published| {
        let values = published.rows.iter().flat_map(|row| &row.values).copied();
        let values: Vec<f64> = values.flatten().collect();
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
