//! Whether a rerun reproduced its record: the same bytes, or metrics within a tolerance.
//!
//! Pure: both results come in; nothing is read or run here.

use pipeline_stages::message::Metrics;
use pipeline_stages::metrics::{MetricsFile, Number};
use serde::{Serialize, Serializer};

use crate::difference::Difference;

/// Where a metric is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MetricSource {
    /// The worker reported it at its end: it is in the record.
    Record,
    /// It is in the file `metrics.json` of the artifact.
    File,
}

/// One metric, before and now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MetricPair {
    /// Where it is written.
    pub(crate) source: MetricSource,
    pub(crate) name: String,
    /// Its value in the record; `None` where it is new.
    #[serde(serialize_with = "number")]
    pub(crate) recorded: Option<f64>,
    /// Its value now; `None` where it is missing.
    #[serde(serialize_with = "number")]
    pub(crate) rerun: Option<f64>,
}

/// The metrics of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RunMetrics {
    /// Those that the worker reported.
    pub(crate) reported: Metrics,
    /// The numbers in `metrics.json` of the artifact.
    pub(crate) file: Metrics,
}

/// How a rerun compares with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RerunVerdict {
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
    /// How far apart the two are; `None` where one of them is missing. For the same value it is 0, also if that is
    /// NaN or infinite.
    pub(crate) fn distance(&self) -> Option<f64> {
        let (recorded, rerun) = self.recorded.zip(self.rerun)?;
        Some(if same(recorded, rerun) { 0.0 } else { (rerun - recorded).abs() })
    }
}

fn same(one: f64, other: f64) -> bool {
    one == other || one.is_nan() && other.is_nan()
}

/// Every metric, once. Those of the file are left out where the record has the same.
pub(crate) fn pairs(recorded: &RunMetrics, rerun: &RunMetrics) -> Vec<MetricPair> {
    let reported = pairs_of(MetricSource::Record, &recorded.reported, &rerun.reported);
    let mut file = pairs_of(MetricSource::File, &recorded.file, &rerun.file);
    file.retain(|pair| {
        let equal = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => same(one, other),
            _ => one == other,
        };
        !reported.iter().any(|other| {
            other.name == pair.name
                && equal(other.recorded, pair.recorded)
                && equal(other.rerun, pair.rerun)
        })
    });
    reported.into_iter().chain(file).collect()
}

fn pairs_of(source: MetricSource, recorded: &Metrics, rerun: &Metrics) -> Vec<MetricPair> {
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

/// Compares two results. A tolerance is for metrics: it does not apply where there are none, or where one
/// is on one side only.
pub(crate) fn verdict(
    same_bytes: bool,
    metrics: &[MetricPair],
    tolerance: Option<f64>,
) -> RerunVerdict {
    let within = |tolerance: f64| {
        let close = |pair: &MetricPair| pair.distance().is_some_and(|far| far <= tolerance);
        !metrics.is_empty() && metrics.iter().all(close)
    };
    match tolerance {
        _ if same_bytes => RerunVerdict::Reproduced,
        Some(tolerance) if within(tolerance) => RerunVerdict::WithinTolerance,
        _ => RerunVerdict::Different,
    }
}

/// The numbers in the text of a `metrics.json`, as [`MetricsFile`] reads them. What is not JSON has none.
pub(crate) fn numbers(text: &[u8]) -> Metrics {
    MetricsFile::read(text).unwrap_or_default().metrics
}

/// What differs between two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// How they compare.
    pub(crate) result: RerunVerdict,
    /// The files that differ; `None` where the recorded artifact can no longer be compared with.
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

    fn reported(values: &[(&str, f64)]) -> RunMetrics {
        RunMetrics { reported: metrics(values), file: Metrics::new() }
    }

    const INFINITE: f64 = f64::INFINITY;

    #[test]
    fn verdict_by_bytes_metrics_and_tolerance() {
        let cases = [
            (true, &[("a", 0.5)][..], &[("a", 0.9)][..], None, RerunVerdict::Reproduced),
            (false, &[("a", 0.5)], &[("a", 0.5)], None, RerunVerdict::Different),
            (false, &[("a", 0.5)], &[("a", 0.5)], Some(0.0), RerunVerdict::WithinTolerance),
            (false, &[("a", 0.5)], &[("a", 0.504)], Some(0.005), RerunVerdict::WithinTolerance),
            (false, &[("a", 0.5)], &[("a", 0.506)], Some(0.005), RerunVerdict::Different),
            (false, &[("a", 0.5)], &[("a", 0.494)], Some(0.005), RerunVerdict::Different),
            (false, &[], &[], Some(1.0), RerunVerdict::Different),
            (false, &[("a", 0.5)], &[("a", 0.5), ("b", 0.0)], Some(1.0), RerunVerdict::Different),
            (false, &[("a", 0.5), ("b", 0.0)], &[("a", 0.5)], Some(1.0), RerunVerdict::Different),
            (false, &[("a", 0.5)], &[("a", f64::NAN)], Some(1.0), RerunVerdict::Different),
            (
                false,
                &[("a", f64::NAN)],
                &[("a", f64::NAN)],
                Some(0.0),
                RerunVerdict::WithinTolerance,
            ),
            (
                false,
                &[("a", INFINITE)],
                &[("a", INFINITE)],
                Some(0.0),
                RerunVerdict::WithinTolerance,
            ),
            (false, &[("a", INFINITE)], &[("a", -INFINITE)], Some(1.0), RerunVerdict::Different),
        ];
        for (same, recorded, rerun, tolerance, expected) in cases {
            let pairs = pairs(&reported(recorded), &reported(rerun));
            assert_eq!(verdict(same, &pairs, tolerance), expected, "{recorded:?} {rerun:?}");
        }
    }

    #[test]
    fn a_metric_in_both_places_is_reported_once() {
        let both = |value| RunMetrics {
            reported: metrics(&[("a", value)]),
            file: metrics(&[("a", value), ("b", 1.0)]),
        };
        let names = |pairs: Vec<MetricPair>| {
            pairs.into_iter().map(|pair| (pair.source, pair.name)).collect::<Vec<_>>()
        };
        assert_eq!(
            names(pairs(&both(0.5), &both(0.6))),
            [(MetricSource::Record, "a".to_owned()), (MetricSource::File, "b".to_owned())]
        );
        assert_eq!(names(pairs(&both(f64::NAN), &both(f64::NAN))).len(), 2);
        // Where the two places disagree, both are listed.
        let other = RunMetrics { reported: metrics(&[("a", 0.5)]), file: metrics(&[("a", 0.7)]) };
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
            let (one, other) = (reported(&[("a", one)]), reported(&[("a", other)]));
            let there = verdict(false, &pairs(&one, &other), Some(tolerance));
            prop_assert_eq!(there, verdict(false, &pairs(&other, &one), Some(tolerance)));
            prop_assert_eq!(verdict(false, &pairs(&one, &one), Some(tolerance)), RerunVerdict::WithinTolerance);
        }
    }
}
