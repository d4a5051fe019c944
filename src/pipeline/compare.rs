//! Whether a rerun gave what its record says: the same bytes, or metrics within a tolerance.
//!
//! Pure: what there is comes in; nothing is read or run here.

use pipeline_stages::message::Metrics;
use pipeline_stages::metrics::{MetricsFile, Number};
use serde::{Serialize, Serializer};

use crate::difference::Difference;

/// Where a metric is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The worker told it at its end: it is in the record.
    Record,
    /// It is in the file `metrics.json` of the artifact.
    File,
}

/// One metric, before and now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MetricPair {
    /// Where it is written.
    pub(crate) source: Source,
    pub(crate) name: String,
    /// What it was; `None` where it is new.
    #[serde(serialize_with = "number")]
    pub(crate) recorded: Option<f64>,
    /// What it is; `None` where it is gone.
    #[serde(serialize_with = "number")]
    pub(crate) rerun: Option<f64>,
}

/// What a run gave, in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Measured {
    /// What the worker told.
    pub(crate) told: Metrics,
    /// The numbers in `metrics.json` of the artifact.
    pub(crate) file: Metrics,
}

/// How a rerun compares with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Likeness {
    /// The artifact has the same bytes.
    Reproduced,
    /// It has other bytes, and every metric is within the tolerance.
    WithinTolerance,
    /// It is another result.
    Different,
}

/// As JSON, which has no NaN.
fn number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(Number).serialize(serializer)
}

impl MetricPair {
    /// How far the two are apart; `None` where one of them is missing. The same value is at no distance, though
    /// it be NaN or infinite.
    pub(crate) fn distance(&self) -> Option<f64> {
        let (recorded, rerun) = self.recorded.zip(self.rerun)?;
        Some(if same(recorded, rerun) { 0.0 } else { (rerun - recorded).abs() })
    }
}

fn same(one: f64, other: f64) -> bool {
    one == other || one.is_nan() && other.is_nan()
}

/// Every metric, once. Those of the file are left out where they say what the record says already.
pub(crate) fn pairs(recorded: &Measured, rerun: &Measured) -> Vec<MetricPair> {
    let told = pairs_of(Source::Record, &recorded.told, &rerun.told);
    let mut file = pairs_of(Source::File, &recorded.file, &rerun.file);
    file.retain(|pair| {
        let said = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => same(one, other),
            _ => one == other,
        };
        !told.iter().any(|other| {
            other.name == pair.name
                && said(other.recorded, pair.recorded)
                && said(other.rerun, pair.rerun)
        })
    });
    told.into_iter().chain(file).collect()
}

fn pairs_of(source: Source, recorded: &Metrics, rerun: &Metrics) -> Vec<MetricPair> {
    let mut names: Vec<&String> = recorded.keys().chain(rerun.keys()).collect();
    names.sort();
    names.dedup();
    let pair = |name: &String| MetricPair {
        source,
        name: name.clone(),
        recorded: recorded.get(name).copied(),
        rerun: rerun.get(name).copied(),
    };
    names.into_iter().map(pair).collect()
}

/// The likeness of two results. A tolerance is for metrics: it excuses nothing where there are none, or
/// where one is on one side only.
pub(crate) fn likeness(
    same_bytes: bool,
    metrics: &[MetricPair],
    tolerance: Option<f64>,
) -> Likeness {
    let within = |tolerance: f64| {
        let close = |pair: &MetricPair| pair.distance().is_some_and(|far| far <= tolerance);
        !metrics.is_empty() && metrics.iter().all(close)
    };
    match tolerance {
        _ if same_bytes => Likeness::Reproduced,
        Some(tolerance) if within(tolerance) => Likeness::WithinTolerance,
        _ => Likeness::Different,
    }
}

/// The numbers in the text of a `metrics.json`, as [`MetricsFile`] reads them. What is not JSON has none.
pub(crate) fn numbers(text: &[u8]) -> Metrics {
    MetricsFile::read(text).unwrap_or_default().metrics
}

/// What differs between two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// How alike they are.
    pub(crate) result: Likeness,
    /// The files that differ; `None` where the recorded artifact can't be compared with any more.
    pub(crate) files: Option<Vec<Difference>>,
    /// Every metric, whether it differs or not.
    pub(crate) metrics: Vec<MetricPair>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metrics(values: &[(&str, f64)]) -> Metrics {
        values.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
    }

    fn told(values: &[(&str, f64)]) -> Measured {
        Measured { told: metrics(values), file: Metrics::new() }
    }

    const INFINITE: f64 = f64::INFINITY;

    #[test]
    fn likeness_by_bytes_metrics_and_tolerance() {
        let cases = [
            (true, &[("a", 0.5)][..], &[("a", 0.9)][..], None, Likeness::Reproduced),
            (false, &[("a", 0.5)], &[("a", 0.5)], None, Likeness::Different),
            (false, &[("a", 0.5)], &[("a", 0.5)], Some(0.0), Likeness::WithinTolerance),
            (false, &[("a", 0.5)], &[("a", 0.504)], Some(0.005), Likeness::WithinTolerance),
            (false, &[("a", 0.5)], &[("a", 0.506)], Some(0.005), Likeness::Different),
            (false, &[("a", 0.5)], &[("a", 0.494)], Some(0.005), Likeness::Different),
            (false, &[], &[], Some(1.0), Likeness::Different),
            (false, &[("a", 0.5)], &[("a", 0.5), ("b", 0.0)], Some(1.0), Likeness::Different),
            (false, &[("a", 0.5), ("b", 0.0)], &[("a", 0.5)], Some(1.0), Likeness::Different),
            (false, &[("a", 0.5)], &[("a", f64::NAN)], Some(1.0), Likeness::Different),
            (false, &[("a", f64::NAN)], &[("a", f64::NAN)], Some(0.0), Likeness::WithinTolerance),
            (false, &[("a", INFINITE)], &[("a", INFINITE)], Some(0.0), Likeness::WithinTolerance),
            (false, &[("a", INFINITE)], &[("a", -INFINITE)], Some(1.0), Likeness::Different),
        ];
        for (same, recorded, rerun, tolerance, expected) in cases {
            let pairs = pairs(&told(recorded), &told(rerun));
            assert_eq!(likeness(same, &pairs, tolerance), expected, "{recorded:?} {rerun:?}");
        }
    }

    #[test]
    fn a_metric_that_stands_in_both_places_is_told_once() {
        let both = |value| Measured {
            told: metrics(&[("a", value)]),
            file: metrics(&[("a", value), ("b", 1.0)]),
        };
        let names = |pairs: Vec<MetricPair>| {
            pairs.into_iter().map(|pair| (pair.source, pair.name)).collect::<Vec<_>>()
        };
        assert_eq!(
            names(pairs(&both(0.5), &both(0.6))),
            [(Source::Record, "a".to_owned()), (Source::File, "b".to_owned())]
        );
        assert_eq!(names(pairs(&both(f64::NAN), &both(f64::NAN))).len(), 2);
        // Where the two places disagree, both are told.
        let other = Measured { told: metrics(&[("a", 0.5)]), file: metrics(&[("a", 0.7)]) };
        assert_eq!(names(pairs(&both(0.5), &other)).len(), 3);
    }

    #[test]
    fn numbers_of_a_file() {
        assert_eq!(
            numbers(b"{\"a\": 1, \"b\": {\"c\": 0.5}, \"d\": \"x\", \"e\": Infinity}"),
            metrics(&[("a", 1.0), ("b/c", 0.5), ("e", INFINITE)])
        );
        for text in ["", "[1]", "{", "7"] {
            assert!(numbers(text.as_bytes()).is_empty(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_of_the_two_does_not_matter(one in 0.0..1.0_f64, other in 0.0..1.0_f64, tolerance in 0.0..1.0_f64) {
            let (one, other) = (told(&[("a", one)]), told(&[("a", other)]));
            let there = likeness(false, &pairs(&one, &other), Some(tolerance));
            prop_assert_eq!(there, likeness(false, &pairs(&other, &one), Some(tolerance)));
            prop_assert_eq!(likeness(false, &pairs(&one, &one), Some(tolerance)), Likeness::WithinTolerance);
        }
    }
}
