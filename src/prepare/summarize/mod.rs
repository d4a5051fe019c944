//! The body of `summarize`: values of runs into groups, tables and plots.
//!
//! [`runs`] reads the inputs; [`groups`] has what is known of each group ([`statistics`], [`pairs`], [`published`]); [`long_form`],
//! [`markdown`], [`latex`] and [`plot`] write it. All but [`runs`] and [`published`] are pure.

mod axes;
mod format;
mod groups;
mod latex;
mod long_form;
mod markdown;
mod notes;
mod pairs;
mod pivot;
mod plot;
mod published;
mod runs;
mod statistics;
mod student;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{write_json, write_metrics};
use pipeline_stages::kinds::Summarize;
use pipeline_stages::message::Metrics;
use pipeline_stages::point::Point;
use pipeline_stages::worker::Context;

use crate::body::Body;
use axes::Order;
use format::higher_is_better;
use long_form::{OfMetric, SummaryFile};
use notes::Behind;
use pivot::{Pivot, Shown};
use published::Published;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use published::are_published;
use runs::Run;

impl Body for Summarize {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let (runs, failed) = runs::read(self, context)?;
        ensure!(
            !runs.is_empty(),
            "there is no run to summarize: all {} instances have failed",
            failed.len()
        );
        runs::note_of_shared(self, &runs).into_iter().for_each(|note| context.note(note));
        let published = match &self.reference {
            Some(path) => Some(Published::read(&context.folder.join(path), self)?),
            None => None,
        };
        let order = Order::of(self, runs.iter().flat_map(|run| &run.points).chain(&failed));
        let metrics = self.metric.0.iter().enumerate().map(|(index, name)| {
            let mut groups = groups::groups(self, index, &runs, &failed, &order);
            if let Some(published) = &published {
                let unused = published.assign(self, index, &mut groups);
                if index == 0 && !unused.is_empty() {
                    context.note(published.unused_in_words(&unused));
                }
                published.check_unit(name, index, &groups, context)?;
            }
            anyhow::Ok(OfMetric {
                name,
                higher_is_better: higher_is_better(self.better, name),
                groups,
            })
        });
        let metrics = metrics.collect::<anyhow::Result<Vec<_>>>()?;
        context.stop_point()?;
        let files = Files {
            summarize: self,
            order: &order,
            runs: &runs,
            failed: &failed,
            output: &context.output,
        };
        files.write(&metrics, context)?;
        let headline = headline(&metrics, &runs, &failed);
        write_metrics(&context.output, &headline)?;
        Ok(headline)
    }
}

fn headline(metrics: &[OfMetric<'_>], runs: &[Run], failed: &[Point]) -> Metrics {
    let mut headline = Metrics::of_counts([("runs", runs.len())]);
    if !failed.is_empty() {
        headline.insert_count("failed-runs", failed.len() as u64);
    }
    let Some(first) = metrics.first() else { return headline };
    headline.insert_count("groups", first.groups.len() as u64);
    let means = first.groups.iter().filter_map(|group| group.statistics).map(|it| it.mean);
    let means = means.filter(|mean| mean.is_finite());
    let best = match first.higher_is_better {
        Some(true) => means.reduce(f64::max),
        Some(false) => means.reduce(f64::min),
        None => None,
    };
    headline.extend(best.map(|best| ("best-mean".to_owned(), best)));
    headline
}

/// What the output is made from.
struct Files<'a> {
    summarize: &'a Summarize,
    order: &'a Order,
    runs: &'a [Run],
    failed: &'a [Point],
    output: &'a Path,
}

impl Files<'_> {
    fn write(&self, metrics: &[OfMetric<'_>], context: &Context) -> anyhow::Result<()> {
        let Self { summarize, runs, failed, .. } = *self;
        self.write_text("summary.csv", &long_form::summary_csv(summarize, metrics))?;
        self.write_text("runs.csv", &long_form::runs_csv(summarize, runs, failed))?;
        let file = SummaryFile::of(summarize, metrics, runs, failed);
        write_json(&self.output.join("summary.json"), &file)?;
        let (mut markdown, mut latex) = (Vec::new(), Vec::new());
        let mut plots = plot::Names::default();
        for (index, metric) in metrics.iter().enumerate() {
            let behind = Behind { summarize, metric: index, runs, failed };
            let tables: &[Shown] = match summarize.versus.is_empty() {
                true => &[Shown::Values],
                false => &[Shown::Values, Shown::Differences],
            };
            for &shown in tables {
                let pivot = Pivot::of(summarize, metric.name, &metric.groups, self.order, shown);
                let (title, notes) = (behind.title(shown), behind.notes(&pivot, shown));
                markdown.push(markdown::section(&title, &pivot, &notes));
                latex.push(latex::tabular(&title, &pivot, &notes));
            }
            let name = plots.next(metric.name, metrics.len() > 1);
            match plot::svg(&behind, &metric.groups, self.order) {
                Some(svg) => self.write_text(&name, &svg)?,
                None => context.note(format!("no {name}: more than {} groups", plot::MOST_GROUPS)),
            }
            context.stop_point()?;
        }
        self.write_text("table.md", &markdown.join("\n"))?;
        let head = "% Needs \\usepackage{booktabs}.\n";
        self.write_text("table.tex", &(head.to_owned() + &latex.join("\n")))
    }

    fn write_text(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.output.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
