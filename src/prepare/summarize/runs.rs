//! The inputs of a summary: runs with their points and values.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use pipeline_stages::kinds::Summarize;
use pipeline_stages::message::Input;
use pipeline_stages::metrics::MetricsFile;
use pipeline_stages::point::Point;
use pipeline_stages::text::in_short;
use pipeline_stages::worker::Context;

use super::axes::label;

/// How many names a message names.
const SHOWN: usize = 20;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// The points that it is the result of, in their order.
    pub points: Vec<Point>,
    /// Its value of each metric that is summarized.
    pub values: Vec<f64>,
}

/// Reads all runs, in the order of their points, and the points of those that have failed.
pub(super) fn read(
    summarize: &Summarize,
    context: &Context,
) -> anyhow::Result<(Vec<Run>, Vec<Point>)> {
    let mut runs = Vec::new();
    for input in context.inputs("of") {
        let mut points = match input.points.as_slice() {
            // A stage outside the matrix has one instance, without axes.
            [] => vec![Point::default()],
            points => points.iter().filter(|point| summarize.selects(point)).cloned().collect(),
        };
        points.sort();
        points.dedup();
        if !points.is_empty() {
            let values = values(&summarize.metric.0, input, &points)?;
            runs.push(Run { points, values });
        }
        context.stop_point()?;
    }
    // The order of the inputs is not in the key, so it must not change the result.
    runs.sort_by(|one, other| one.points.cmp(&other.points));
    let missing = context.missing("of").iter().filter(|point| summarize.selects(point));
    let mut missing: Vec<Point> = missing.cloned().collect();
    missing.sort();
    missing.dedup();
    Ok((runs, missing))
}

/// Says which points of a mean count once, as they are one run: what they read may have been computed apart, and be equal by chance.
pub(super) fn note_of_shared(summarize: &Summarize, runs: &[Run]) -> Option<String> {
    let place = |point| (label(&summarize.rows, point), label(&summarize.columns, point));
    let shared = runs.iter().filter_map(|run| {
        let mut seen = HashMap::new();
        run.points.iter().find_map(|point| Some((seen.insert(place(point), point)?, point)))
    });
    let mut shared = shared.peekable();
    let (one, other) = *shared.peek()?;
    let others = match shared.count() {
        1 => String::new(),
        2 => ", and so do those of 1 other run".to_owned(),
        all => format!(", and so do those of {} other runs", all - 1),
    };
    let axis =
        one.iter().find(|(axis, value)| other.get(axis) != Some(value)).map_or("seed", |it| it.0);
    Some(format!(
        "the points {one} and {other} count once, as they have the same key and so are one run{others}; if what they read was \
         computed apart and is equal by chance, let their stage use the axis: {} = \"${{{axis}}}\" in the `environment` of a command",
        axis.to_uppercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
    ))
}

/// The values of these metrics in an artifact.
fn values(names: &[String], input: &Input, points: &[Point]) -> anyhow::Result<Vec<f64>> {
    let whose = || match points.first().map(Point::to_string) {
        Some(point) if !point.is_empty() => format!("the instance at {point}"),
        _ => "the stage".to_owned(),
    };
    let file = read_metrics(&input.path)
        .with_context(|| format!("cannot read the metrics of {}", whose()))?;
    let value = |name: &String| match file.metrics.get(name) {
        Some(&value) => Ok(value),
        None => bail!("{} has no metric '{name}'{}", whose(), instead(name, &file)),
    };
    names.iter().map(value).collect()
}

fn read_metrics(artifact: &Path) -> anyhow::Result<MetricsFile> {
    let path = artifact.join("metrics.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    MetricsFile::read(&text).map_err(|problem| anyhow!("{} {problem}", path.display()))
}

/// What there is instead of a metric, and which one to use.
fn instead(name: &str, file: &MetricsFile) -> String {
    if let Some(what) = file.instead_of(name) {
        return format!(": in its metrics.json, it is {what}, and a metric is a number");
    }
    let metrics = &file.metrics;
    let distance =
        |other: &&String| strsim::damerau_levenshtein(&other.to_lowercase(), &name.to_lowercase());
    let nearest = metrics.keys().min_by_key(distance);
    let nearest = nearest.filter(|nearest| distance(nearest) <= name.chars().count().div_ceil(3));
    let guess = nearest.map_or(".".to_owned(), |nearest| format!("; did you mean '{nearest}'?"));
    if metrics.is_empty() {
        return ": its metrics.json has no number".to_owned();
    }
    // A metric per class would fill the message.
    let (plain, within): (Vec<_>, Vec<_>) = metrics.keys().partition(|name| !name.contains('/'));
    let shown = if plain.is_empty() { within } else { plain };
    format!("{guess} Its metrics are {}", in_short(shown, SHOWN))
}
