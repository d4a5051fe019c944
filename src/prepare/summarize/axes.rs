//! The axes of a table: the order of their values, and the labels that a point has on some of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use pipeline_stages::kinds::Summarize;
use pipeline_stages::point::{Point, canonical};

/// The values of a point on some axes as they are written, in the order of the axes. `None` where it does not have the axis.
pub(super) type Label = Vec<Option<String>>;

/// The label of a point on some axes.
pub(super) fn label(axes: &[String], point: &Point) -> Label {
    axes.iter().map(|axis| point.get(axis).map(str::to_owned)).collect()
}

/// The values of axes in order: those in `order` first, then numbers ascending, then texts in alphabetical order; before all of them
/// the points without the axis. It does not depend on the order of the points.
pub(super) struct Order {
    ranks: HashMap<String, HashMap<String, usize>>,
}

impl Order {
    /// The order of all values of these points.
    pub(super) fn of<'a>(
        summarize: &Summarize,
        points: impl IntoIterator<Item = &'a Point>,
    ) -> Self {
        let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
        for (axis, value) in points.into_iter().flat_map(Point::iter) {
            values.entry(axis).or_default().insert(value);
        }
        let rank = |(axis, values): (&str, HashSet<&str>)| {
            let chosen = summarize.order.get(axis).map_or(&[][..], |order| &order.0);
            let place = |value: &str| {
                let value = canonical(value);
                chosen.iter().position(|one| one.as_str() == value).unwrap_or(chosen.len())
            };
            let mut values: Vec<&str> = values.into_iter().collect();
            values.sort_by_cached_key(|value| {
                let number = number(value);
                (place(value), number.is_none(), number.map(TotalOrder), *value)
            });
            let ranks = values.into_iter().enumerate();
            (axis.to_owned(), ranks.map(|(rank, value)| (value.to_owned(), rank)).collect())
        };
        Self { ranks: values.into_iter().map(rank).collect() }
    }

    /// What labels on these axes are sorted by.
    pub(super) fn rank(&self, axes: &[String], label: &Label) -> Vec<Option<usize>> {
        let rank = |(axis, value): (&String, &Option<String>)| {
            value.as_ref().and_then(|value| self.ranks.get(axis)?.get(value).copied())
        };
        axes.iter().zip(label).map(rank).collect()
    }
}

/// The value on an axis as a number.
pub(super) fn number(value: &str) -> Option<f64> {
    let looks_like_a_number = value.bytes().any(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|number: &f64| looks_like_a_number && number.is_finite())
}

struct TotalOrder(f64);

impl Ord for TotalOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for TotalOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for TotalOrder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for TotalOrder {}
