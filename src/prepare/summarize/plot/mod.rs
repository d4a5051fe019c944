//! The plot of a metric as SVG: lines with bands, or bars with whiskers.
//!
//! The ground is transparent. Without style sheets, all colours can be read on white and on dark grounds; with them, they follow
//! `prefers-color-scheme`. Series differ in colour, marker and dashes, so that colours alone carry nothing.

mod bars;
mod canvas;
mod chart;
mod frame;
mod lines;
mod scale;
mod style;

use std::collections::HashSet;

use super::axes::Order;
use super::groups::Group;
use super::notes::Behind;
use super::pivot::Shown;
use chart::{Chart, Horizontal};

/// With more groups, nothing could be told apart.
pub(super) const MOST_GROUPS: usize = 600;

/// The plot; `None` if there are too many groups.
pub(super) fn svg(behind: &Behind<'_>, groups: &[Group], order: &Order) -> Option<String> {
    if groups.len() > MOST_GROUPS {
        return None;
    }
    let chart =
        Chart::of(behind.summarize, behind.metric(), &behind.title(Shown::Values), groups, order);
    let picture = match &chart.horizontal {
        Horizontal::Numbers { axis, values } => lines::draw(&chart, axis, values),
        Horizontal::Categories { .. } => bars::draw(&chart),
    };
    Some(picture)
}

/// The names of the plots of several metrics.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The name of the next file: `plot.svg`, or `plot-METRIC.svg` with a number if another one has that name.
    pub(super) fn next(&mut self, metric: &str, several: bool) -> String {
        if !several {
            return "plot.svg".to_owned();
        }
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._+-".contains(letter);
        let metric =
            metric.chars().take(100).map(|letter| if plain(letter) { letter } else { '-' });
        let name: String = metric.collect();
        let numbers = (2..).map(|number| format!("plot-{name}-{number}.svg"));
        let mut names = std::iter::once(format!("plot-{name}.svg")).chain(numbers);
        let free = names.find(|name| !self.0.contains(&name.to_lowercase()));
        let free = free.expect("there are infinitely many numbers");
        self.0.insert(free.to_lowercase());
        free
    }
}
