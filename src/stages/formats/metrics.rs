//! Metrics: `metrics.json` (read by [`MetricsFile`](crate::metrics::MetricsFile)), and curves as CSV.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use super::tensors::write_json;
use crate::metrics::Metrics;

/// Writes `metrics.json`.
pub fn write_metrics(artifact: &Path, metrics: &Metrics) -> anyhow::Result<()> {
    write_json(&artifact.join("metrics.json"), metrics)
}

/// A table of numbers with named columns, written as CSV.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveTable {
    columns: Vec<String>,
    rows: Vec<Vec<f64>>,
}

impl CurveTable {
    /// An empty table.
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row.
    ///
    /// # Panics
    /// When it does not have as many numbers as there are columns.
    pub fn push(&mut self, row: &[f64]) {
        assert_eq!(row.len(), self.columns.len(), "a row of a table has one number per column");
        self.rows.push(row.to_vec());
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The numbers of a column.
    pub fn column(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        let index = self.columns.iter().position(|column| column == name);
        let index = index
            .with_context(|| format!("no column '{name}' among {}", self.columns.join(", ")))?;
        Ok(self.rows.iter().filter_map(|row| row.get(index).copied()).collect())
    }

    /// Reads a table that [`CurveTable::write`] wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.lines();
        let columns = lines.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        let mut table = Self { columns, rows: Vec::new() };
        for (index, line) in lines.enumerate() {
            let row: Result<Vec<f64>, _> = line.split(',').map(str::parse).collect();
            let row = row.ok().filter(|row| row.len() == table.columns.len());
            table.rows.push(row.with_context(|| {
                format!(
                    "{}, line {}: expected {} numbers",
                    path.display(),
                    index + 2,
                    table.columns.len()
                )
            })?);
        }
        Ok(table)
    }

    /// Writes the table. Numbers read back exactly.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = self.columns.join(",");
        text.push('\n');
        for row in &self.rows {
            for (index, number) in row.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                write!(text, "{separator}{number}").context("formatting")?;
            }
            text.push('\n');
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
