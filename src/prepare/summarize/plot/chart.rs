//! What a plot shows, before it has places and colours.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_stages::kinds::Summarize;

use super::super::axes::{Label, Order, number};
use super::super::format::Format;
use super::super::groups::Group;

/// The values of a group on the axes of the series, and on those of the horizontal axis.
type Places = fn(&Group) -> (Label, Label);

/// What follows the name of what used clean labels, as in tables.
const MARK: &str = " †";

/// How many values an axis has at least that makes lines.
const LEAST_FOR_LINES: usize = 3;

/// What a plot shows. All numbers are scaled.
pub(super) struct Chart {
    pub title: String,
    /// The name of the vertical axis.
    pub vertical: String,
    pub horizontal: Horizontal,
    /// The axes that tell the series apart.
    pub legend: String,
    pub series: Vec<Series>,
    /// Whether something in it used clean labels: names of series and labels of places say what.
    pub uses_clean_labels: bool,
}

/// What the horizontal axis is.
pub(super) enum Horizontal {
    /// Values of an axis, ascending.
    Numbers { axis: String, values: Vec<(f64, String)> },
    /// Labels, each of one or more lines.
    Categories { axes: String, labels: Vec<Vec<String>> },
}

/// A line, or the bars of one colour.
pub(super) struct Series {
    pub name: String,
    /// In the order of the horizontal axis.
    pub marks: Vec<Mark>,
    /// Whether one of them used clean labels, and not all that are at its place.
    pub uses_clean_labels: bool,
}

impl Series {
    /// Its name in the legend.
    pub(super) fn entry(&self) -> String {
        format!("{}{}", self.name, if self.uses_clean_labels { MARK } else { "" })
    }
}

/// A group in a plot.
pub(super) struct Mark {
    /// The place on the horizontal axis, from 0.
    pub place: usize,
    /// `None` where all runs have failed, or the mean is not finite.
    pub mean: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub reference: Option<f64>,
    /// In words: `84.3 ± 1.2 (n = 3)`.
    pub words: String,
}

impl Mark {
    /// All numbers that the vertical axis must cover.
    fn numbers(&self) -> impl Iterator<Item = f64> {
        let (low, high) = self.interval.unzip();
        [self.mean, low, high, self.reference].into_iter().flatten()
    }
}

impl Chart {
    pub(super) fn of(
        summarize: &Summarize,
        metric: &str,
        title: &str,
        groups: &[Group],
        order: &Order,
    ) -> Self {
        let format = Format::of_groups(summarize, groups);
        let (rows, columns) = (summarize.rows.as_slice(), summarize.columns.as_slice());
        let numbers = x_values(columns, groups);
        // The axes of the series and of the places, and a group's values on them.
        let (series_axes, place_axes, of_group): (Vec<String>, Vec<String>, Places) =
            match (&numbers, columns) {
                (Some(_), [others @ .., last]) => {
                    ([rows, others].concat(), vec![last.clone()], |group| {
                        let (last, others) = group.column.split_last().expect("there is a column");
                        ([&group.row[..], others].concat(), vec![last.clone()])
                    })
                }
                (_, []) => (Vec::new(), rows.to_vec(), |group| (Vec::new(), group.row.clone())),
                _ => (rows.to_vec(), columns.to_vec(), |group| {
                    (group.row.clone(), group.column.clone())
                }),
            };
        let rank = |axes: &[String], label: &Label| order.rank(axes, label);
        let labels: BTreeMap<_, _> =
            groups.iter().map(|it| of_group(it).1).map(|it| (rank(&place_axes, &it), it)).collect();
        let places: BTreeMap<_, _> =
            labels.keys().cloned().enumerate().map(|(place, rank)| (rank, place)).collect();
        let place_of = |group: &Group| places[&rank(&place_axes, &of_group(group).1)];
        let clean_places = match &numbers {
            Some(_) => BTreeSet::new(),
            None => clean_places(groups, place_of),
        };
        let mut series: BTreeMap<_, Series> = BTreeMap::new();
        for group in groups {
            let (own, place) = (of_group(group).0, place_of(group));
            let name = || Series {
                name: lines(&series_axes, &own).join(", "),
                marks: Vec::new(),
                uses_clean_labels: false,
            };
            let series = series.entry(rank(&series_axes, &own)).or_insert_with(name);
            series.uses_clean_labels |= is_marked(group) && !clean_places.contains(&place);
            series.marks.push(mark(group, place, format));
        }
        let mut series: Vec<_> = series.into_values().collect();
        series.iter_mut().for_each(|series| series.marks.sort_by_key(|mark| mark.place));
        let label = |(place, label)| {
            let mut lines = lines(&place_axes, label);
            if let Some(last) = lines.last_mut().filter(|_| clean_places.contains(&place)) {
                last.push_str(MARK);
            }
            lines
        };
        let horizontal = match numbers {
            Some(values) => Horizontal::Numbers { axis: place_axes.concat(), values },
            None => Horizontal::Categories {
                axes: place_axes.join(", "),
                labels: labels.values().enumerate().map(label).collect(),
            },
        };
        Self {
            title: title.to_owned(),
            vertical: format.name(metric),
            horizontal,
            legend: series_axes.join(", "),
            series,
            uses_clean_labels: groups.iter().any(is_marked),
        }
    }

    /// All marks.
    pub(super) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.series.iter().flat_map(|series| &series.marks)
    }

    /// All numbers that the vertical axis must cover.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.marks().flat_map(Mark::numbers)
    }

    pub(super) fn has_references(&self) -> bool {
        self.marks().any(|mark| mark.reference.is_some())
    }

    /// Whether a mark has no mean.
    pub(super) fn has_gaps(&self) -> bool {
        self.marks().any(|mark| mark.mean.is_none())
    }

    pub(super) fn has_intervals(&self) -> bool {
        self.marks().any(|mark| mark.interval.is_some())
    }
}

/// Whether a group has a value of a run that used clean labels.
fn is_marked(group: &Group) -> bool {
    group.uses_clean_labels && group.statistics.is_some()
}

/// The places all of whose values used clean labels.
fn clean_places(groups: &[Group], place_of: impl Fn(&Group) -> usize) -> BTreeSet<usize> {
    let with_value = || groups.iter().filter(|group| group.statistics.is_some());
    let (marked, others): (Vec<&Group>, _) = with_value().partition(|group| is_marked(group));
    let places = |groups: Vec<&Group>| groups.into_iter().map(&place_of).collect::<BTreeSet<_>>();
    &places(marked) - &places(others)
}

/// The values of the last column axis, ascending, if all are numbers and there are enough of them.
fn x_values(columns: &[String], groups: &[Group]) -> Option<Vec<(f64, String)>> {
    columns.last()?;
    let values = groups.iter().map(|group| {
        let value = group.column.last()?.as_ref()?;
        Some((number(value)?, value.clone()))
    });
    let mut values: Vec<_> = values.collect::<Option<_>>()?;
    values.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    values.dedup_by(|(one, _), (other, _)| one == other);
    (values.len() >= LEAST_FOR_LINES).then_some(values)
}

fn mark(group: &Group, place: usize, format: Format) -> Mark {
    let finite = |value: f64| Some(format.scaled(value)).filter(|value| value.is_finite());
    let statistics = group.statistics;
    let interval = statistics.and_then(|it| it.interval);
    let mut words = match statistics {
        Some(it) => {
            let half = it
                .half_interval()
                .map_or(String::new(), |half| format!(" ± {}", format.value(half)));
            format!("{}{half} (n = {})", format.value(it.mean), it.n)
        }
        None => "no value".to_owned(),
    };
    if is_marked(group) {
        words.push_str(MARK);
    }
    if group.failed > 0 {
        words.push_str(&format!(", {} failed", group.failed));
    }
    if let Some(reference) = group.reference {
        words.push_str(&format!(", published: {}", format.value(reference)));
    }
    Mark {
        place,
        mean: statistics.and_then(|it| finite(it.mean)),
        interval: interval.and_then(|(low, high)| finite(low).zip(finite(high))),
        reference: group.reference.and_then(finite),
        words,
    }
}

/// A value on an axis in words: `simclr`, or `rate = 0.9`, where the value alone says nothing.
fn name(axes: &[String], label: &Label) -> Vec<String> {
    let named = axes.iter().zip(label).filter_map(|(axis, value)| {
        let value = value.as_ref()?;
        let alone = number(value).is_none() && value != "true" && value != "false";
        Some(if alone { value.clone() } else { format!("{axis} = {value}") })
    });
    named.collect()
}

/// A label in words, one for each axis: the value alone, if there is only one.
fn lines(axes: &[String], label: &Label) -> Vec<String> {
    match label.as_slice() {
        [value] => vec![value.clone().unwrap_or_default()],
        _ => name(axes, label),
    }
}
