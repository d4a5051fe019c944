//! Metrics: `metrics.json`, flat names to numbers, and curves as CSV.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use super::tensors::write_json;
use crate::message::Metrics;

/// Writes `metrics.json`.
///
/// # Errors
/// When it can't be written.
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

    /// The rows so far.
    pub fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    /// Writes the table. Numbers are written so that they read back as they are.
    ///
    /// # Errors
    /// When it can't be written.
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
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }
}
