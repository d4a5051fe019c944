//! The sentences under a table: what its numbers are, and what is missing.

use pipeline_stages::kinds::Summarize;
use pipeline_stages::point::Point;
use pipeline_stages::text::in_short;

use super::format::{Format, one_line};
use super::pivot::{Pivot, Shown};
use super::runs::Run;

/// How many points a note names.
const SHOWN: usize = 50;

/// What is behind a table.
pub(super) struct Behind<'a> {
    pub summarize: &'a Summarize,
    /// The number of the metric.
    pub metric: usize,
    pub runs: &'a [Run],
    pub failed: &'a [Point],
}

impl Behind<'_> {
    pub(super) fn metric(&self) -> &str {
        &self.summarize.metric.0[self.metric]
    }

    /// The sentences.
    pub(super) fn notes(&self, pivot: &Pivot, shown: Shown) -> Vec<String> {
        let summarize = self.summarize;
        let name = Format::of(summarize).name(self.metric());
        let over = match summarize.over.as_slice() {
            [] => String::new(),
            axes => format!(" over {}", axes.join(", ")),
        };
        let (what, counted) = match shown {
            Shown::Values => (format!("Mean of {name}{over}"), "n"),
            Shown::Differences => (
                format!("Mean paired difference of {name}{over} from {}", baseline(summarize)),
                "pairs",
            ),
        };
        let has_interval = pivot.cells.iter().flatten().flatten().any(|cell| cell.half.is_some());
        let interval = if has_interval { " ± half of its 95 % t-interval" } else { "" };
        let n = match pivot.n {
            Some(1) if !has_interval => format!("; {counted} = 1, so there is no interval"),
            Some(n) => format!("; {counted} = {n}"),
            None if shown == Shown::Differences => "; n is the number of pairs".to_owned(),
            None => String::new(),
        };
        let mut notes = vec![format!("{what}{interval}{n}.")];
        let mut cells = pivot.cells.iter().flatten().flatten();
        if cells.any(|cell| cell.uses_clean_labels && cell.mean.is_some()) {
            let who = match shown {
                Shown::Values => "Learned",
                Shown::Differences => "One of the two learned",
            };
            notes.push(format!("† {who} from labels known to be right, or was chosen by them."));
        }
        if !summarize.r#where.is_empty() {
            let conditions = summarize.r#where.iter().map(|(axis, values)| {
                let values: Vec<_> = values.0.iter().map(|value| value.as_str()).collect();
                format!("{axis} = {}", values.join(" or "))
            });
            notes.push(format!("Only {}.", conditions.collect::<Vec<_>>().join(", ")));
        }
        if shown == Shown::Differences {
            match pivot.alone {
                0 => {}
                1 => notes.push("1 run is not in it: no run of the baseline agrees with it in all other axes.".to_owned()),
                alone => notes.push(format!(
                    "{alone} runs are not in it: no run of the baseline agrees with them in all other axes."
                )),
            }
            return notes;
        }
        let mut cells = pivot.cells.iter().flatten().flatten();
        if let Some(reference) =
            summarize.reference.as_ref().filter(|_| cells.any(|cell| cell.reference.is_some()))
        {
            let file =
                std::path::Path::new(reference).file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("In brackets: the published value ({}).", one_line(&file)));
        }
        let strange = self.runs.iter().filter(|run| !run.values[self.metric].is_finite());
        let strange: Vec<_> =
            strange.filter_map(|run| run.points.first()).map(Point::to_string).collect();
        if !strange.is_empty() {
            notes.push(format!("Not a finite number at: {}.", in_short(strange, SHOWN)));
        }
        if !self.failed.is_empty() {
            let points = self.failed.iter().map(Point::to_string);
            notes.push(format!("Failed, and not in the numbers: {}.", in_short(points, SHOWN)));
        }
        notes
    }

    /// The title of a table.
    pub(super) fn title(&self, shown: Shown) -> String {
        let metric = one_line(self.metric());
        let title = self.summarize.title.as_deref().map(one_line).filter(|title| !title.is_empty());
        let title = match title {
            Some(title) if self.summarize.metric.0.len() > 1 => format!("{title}: {metric}"),
            Some(title) => title,
            None => metric,
        };
        match shown {
            Shown::Values => title,
            Shown::Differences => format!("{title}: difference from {}", baseline(self.summarize)),
        }
    }
}

fn baseline(summarize: &Summarize) -> String {
    let values = summarize.versus.iter().map(|(axis, value)| format!("{axis} = {value}"));
    values.collect::<Vec<_>>().join(", ")
}
