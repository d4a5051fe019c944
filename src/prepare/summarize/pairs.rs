//! The paired differences between runs and those of a baseline.
//!
//! A run is compared with the runs of the baseline that agree with it in every axis that both have, apart from those of the
//! baseline. If there are several, because the baseline has axes that the run does not have, their mean counts. In the same
//! way, the mean counts of several runs that are compared with the same ones: these share what chance did to the baseline,
//! and counted as a pair each they would make the interval too narrow.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipeline_stages::parameter::AxisValue;
use pipeline_stages::point::{Point, canonical};

use super::runs::Run;
use super::statistics::mean;

/// The values of a point on some axes.
type Projection = Vec<String>;

/// The baseline's runs by their values on some axes.
type Table = HashMap<Projection, Vec<usize>>;

/// Runs beside those of the baseline that they are compared with.
pub(super) struct Pairs {
    /// The difference of each pair: of the mean of runs that are compared with the same runs of the baseline, from the mean of
    /// these.
    pub differences: Vec<f64>,
    /// How many runs no run of the baseline agrees with.
    pub alone: usize,
    /// The runs of the baseline.
    pub baseline: BTreeSet<usize>,
}

/// The runs of a baseline, found by point.
pub(super) struct Baseline<'a> {
    versus: &'a BTreeMap<String, AxisValue>,
    runs: &'a [Run],
    /// The points of the baseline, by the axes that they have.
    by_axes: BTreeMap<Vec<String>, Vec<(usize, &'a Point)>>,
    /// For axes that points of the baseline have, and axes of other points: the runs by the axes that both have. Made when
    /// first needed: there are few combinations, so that each point is looked up and not compared with all others.
    tables: HashMap<(Vec<String>, Vec<String>), Table>,
}

impl<'a> Baseline<'a> {
    pub(super) fn new(versus: &'a BTreeMap<String, AxisValue>, runs: &'a [Run]) -> Self {
        let mut by_axes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, run) in runs.iter().enumerate() {
            for point in run.points.iter().filter(|point| is_baseline(versus, point)) {
                by_axes.entry(axes(point)).or_default().push((index, point));
            }
        }
        Self { versus, runs, by_axes, tables: HashMap::new() }
    }

    /// The runs of the baseline that these points of one run are compared with; each once.
    fn partners(&mut self, points: &[&Point]) -> Vec<usize> {
        let mut partners = Vec::new();
        for point in points {
            let own = axes(point);
            for (axes, baseline) in &self.by_axes {
                let shared: Vec<String> = (axes.iter())
                    .filter(|axis| own.contains(axis) && !self.versus.contains_key(*axis))
                    .cloned()
                    .collect();
                let wanted = projection(&shared, point);
                let table =
                    self.tables.entry((axes.clone(), shared)).or_insert_with_key(|(_, shared)| {
                        let mut table = Table::new();
                        for (index, point) in baseline {
                            table.entry(projection(shared, point)).or_default().push(*index);
                        }
                        table.values_mut().for_each(|runs| runs.dedup());
                        table
                    });
                partners.extend(table.get(&wanted).into_iter().flatten());
            }
        }
        partners.sort_unstable();
        partners.dedup();
        partners
    }

    /// The pairs of runs, each with its points.
    pub(super) fn pairs(&mut self, runs: &[(usize, Vec<&Point>)], metric: usize) -> Pairs {
        let mut pairs: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for (run, points) in runs {
            pairs.entry(self.partners(points)).or_default().push(*run);
        }
        let alone = pairs.remove(&Vec::new()).map_or(0, |runs| runs.len());
        let mean_of = |runs: &[usize]| {
            mean(&runs.iter().map(|run| self.runs[*run].values[metric]).collect::<Vec<_>>())
        };
        let differences = pairs.iter().map(|(partners, own)| mean_of(own) - mean_of(partners));
        let differences = differences.collect();
        Pairs { differences, alone, baseline: pairs.into_keys().flatten().collect() }
    }
}

/// Whether a point belongs to the baseline.
pub(super) fn is_baseline(versus: &BTreeMap<String, AxisValue>, point: &Point) -> bool {
    let mut values = versus.iter();
    values.all(|(axis, value)| point.get(axis).is_some_and(|own| canonical(own) == value.as_str()))
}

fn axes(point: &Point) -> Vec<String> {
    point.iter().map(|(axis, _)| axis.to_owned()).collect()
}

fn projection(axes: &[String], point: &Point) -> Projection {
    let value = |axis: &String| point.get(axis).map(|value| canonical(value).into_owned());
    axes.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(points: &[&str], value: f64) -> Run {
        Run {
            points: points.iter().map(|point| point.parse().unwrap()).collect(),
            values: vec![value],
        }
    }

    fn versus(axis: &str, value: &str) -> BTreeMap<String, AxisValue> {
        BTreeMap::from([(axis.to_owned(), serde_json::from_value(value.into()).unwrap())])
    }

    #[test]
    fn pairs_agree_in_the_axes_that_both_have() {
        let runs = [
            run(&["init=scratch,rate=0.5,seed=1"], 1.0),
            run(&["init=scratch,rate=0.5,seed=2"], 2.0),
            // One run for all seeds.
            run(&["init=scratch,rate=0.9,seed=1", "init=scratch,rate=0.9,seed=2"], 4.0),
        ];
        let versus = versus("init", "scratch");
        let mut baseline = Baseline::new(&versus, &runs);
        let mut value = |points: &[&str]| {
            let points: Vec<Point> = points.iter().map(|point| point.parse().unwrap()).collect();
            let partners = baseline.partners(&points.iter().collect::<Vec<_>>());
            let values: Vec<f64> = partners.iter().map(|run| runs[*run].values[0]).collect();
            (!values.is_empty()).then(|| mean(&values))
        };
        assert_eq!(value(&["encoder=a,init=simclr,rate=0.5,seed=2"]), Some(2.0));
        assert_eq!(value(&["encoder=a,init=simclr,rate=0.50,seed=1"]), Some(1.0));
        assert_eq!(value(&["encoder=a,init=simclr,rate=0.7,seed=1"]), None);
        assert_eq!(value(&["init=simclr,rate=0.5"]), Some(1.5));
        assert_eq!(value(&["init=simclr,rate=0.9"]), Some(4.0));
        assert_eq!(
            value(&["init=simclr,rate=0.9,seed=1", "init=simclr,rate=0.9,seed=2"]),
            Some(4.0)
        );
        assert_eq!(value(&["rate=0.5,seed=2"]), Some(2.0));
        assert_eq!(value(&["init=simclr,seed=1"]), Some(2.5));
    }

    #[test]
    fn runs_with_the_same_partners_are_one_pair() {
        let runs = [
            run(&["init=scratch,seed=1"], 1.0),
            run(&["init=scratch,seed=2"], 2.0),
            run(&["encoder=a,init=simclr,seed=1"], 1.5),
            run(&["encoder=b,init=simclr,seed=1"], 2.5),
            run(&["encoder=a,init=simclr,seed=2"], 5.0),
            run(&["encoder=a,init=simclr,seed=3"], 9.0),
        ];
        let versus = versus("init", "scratch");
        let own: Vec<_> =
            (2..6).map(|index: usize| (index, runs[index].points.iter().collect())).collect();
        let pairs = Baseline::new(&versus, &runs).pairs(&own, 0);
        assert_eq!((pairs.differences, pairs.alone), (vec![1.0, 3.0], 1));
        assert_eq!(pairs.baseline, [0, 1].into());
    }
}
