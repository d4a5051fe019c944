//! `summarize`: the results of all instances of a stage in one table, with intervals.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::evaluate::Evaluate;
use crate::clean_labels::CleanLabels;
use crate::form::Form;
use crate::kind::{AxisVisitor, OutsidePath, Problem, Rules};
use crate::known::KnownInputs;
use crate::metric_name::is_share;
use crate::parameter::{AxisValue, AxisValues, OneOrMany, POSITIVE};
use crate::point::{Point, canonical};
use crate::text::in_short;

choices! {
    /// Which values of a metric are better.
    pub enum Better {
        /// By the words in its name: `higher` for accuracy, auc, precision, recall and f1, `lower` for loss, error, ece, nll and perplexity, otherwise `none`.
        Auto,
        /// Higher values.
        Higher,
        /// Lower values.
        Lower,
        /// Not known: no value is bold.
        None,
    }
}

kind! {
    /// Summarizes the metrics of all instances of a stage: mean, interval, differences, tables and plots.
    ///
    /// The points of the instances are grouped by `rows` and `columns`; a group has one value of the metric per run. Instances that are one
    /// run, because they have the same key, count once in a group. Every axis must be in `over`, `rows` or `columns`, or have a single value in `where`.
    ///
    /// Per group: the number of runs `n`, their mean, sample standard deviation (n - 1), smallest and largest value, and the 95 % interval of the
    /// mean by Student's t distribution, which exists from two runs on. With `versus` also the paired differences from the
    /// baseline: a run is compared with those runs of the baseline that agree with it in every axis that both have, or with their mean, if
    /// there are several; runs that are compared with the same ones are one pair, with their mean. A value that is NaN or infinite makes its group's mean so; it is listed, never dropped. Points that do not exist are blank.
    ///
    /// It writes
    ///
    /// - `summary.csv` and `summary.json`: one row or entry per group, not scaled or rounded;
    /// - `runs.csv`: one row per point, with the values behind the groups. Points with the same `run` are one run;
    /// - `table.md` and `table.tex` (LaTeX, with the package booktabs), pivoted: mean ± half of the interval. The best mean of each
    ///   column is bold, or of the row if there is only one. † marks what used clean labels, and differences from what did. After `versus`, a
    ///   second table has the differences;
    /// - `plot.svg`: lines with bands where the last of `columns` has at least three values, all numbers; otherwise bars with
    ///   whiskers. With several metrics one per metric, `plot-METRIC.svg`;
    /// - `metrics.json`: `runs`, `groups`, `failed-runs` where some have failed, and of the first metric `best-mean`, if it is known what is better.
    Summarize = "summarize", version 8, seeded false, output Metrics;
    ports {
        /// The stage whose instances are summarized.
        of: Instances[Metrics];
    }
    parameters {
        /// The metric, as in `metrics.json`, or a list of metrics. Each has tables and a plot of its own.
        metric: OneOrMany;
        /// The axes over which the mean is taken: `["seed"]`.
        over: Vec<String> = Vec::new();
        /// The axes whose values are the rows of the table, and the lines of the plot.
        rows: Vec<String> = Vec::new();
        /// The axes whose values are the columns of the table. The last one is the x-axis of the plot.
        columns: Vec<String> = Vec::new();
        /// Only the instances with these values count: `{ rate = [0.8, 0.9], init = "simclr" }`. An axis with one value here needs no other place.
        /// An instance that does not have one of these axes does not count.
        r#where: BTreeMap<String, AxisValues> = BTreeMap::new();
        /// The baseline of the differences: `{ init = "scratch" }`. Its axes are among `rows` and `columns`.
        versus: BTreeMap<String, AxisValue> = BTreeMap::new();
        /// Whether to go on without the instances that have failed, once all others have ended (`pipeline run --keep-going`). They are marked in the tables and plots, and listed.
        allow_missing: bool = false;
        /// Points whose results used labels that are known to be right: `["method=mine"]` for all that have this value. The tables mark them with †. Those of which the
        /// manifest says so are added: where `train` (Meta-Weight-Net with samples held out, `transition = "known"`, `select-best = "validation"` by clean labels) or
        /// `purify-labels` (`uses-clean`) is on the way to them, or one of these that takes labels of which a split has held some out, without a split.
        clean_labels: Vec<String> = Vec::new();
        /// The same for the metric `test-accuracy-at-best-validation` alone, of which the step is chosen by samples held out: points at which these are judged by labels that
        /// are known to be right. Those of which the manifest says so are added: where a `train` on the way to them does that, with `validation-labels`.
        clean_validation: Vec<String> = Vec::new();
        /// A CSV file with published values to show beside these, relative to the manifest. Its columns are axes, and the metrics in their own unit;
        /// an axis that is not a column has any value.
        reference: Option<String> = None;
        /// Which values are better: those that are bold.
        better: Better = Better::Auto;
        /// The order of the values of an axis: `{ method = ["ce", "mwnet"] }`. All others come after these: numbers ascending, then texts in alphabetical order.
        order: BTreeMap<String, AxisValues> = BTreeMap::new();
        /// The factor by which values are multiplied in tables and plots: 100 for percent, which is written at metrics with accuracy, auc, precision, recall, f1, error or ece in their name; others have "× 100".
        scale: f64 = 1.0, in POSITIVE;
        /// How many decimals the tables show. Without it: 3, and one less for each power of ten in `scale`; 1 for percent. Values that would all be shown as zero have an exponent.
        decimals: Option<u32> = None, in 0.0..=12.0;
        /// The title of the tables and plots.
        title: Option<String> = None;
    }
    execution {}
    headline ["runs", "failed-runs", "best-mean"]
}

/// The columns of `summary.csv` and `runs.csv` beside the axes: an axis cannot have one of these names.
const RESERVED: &[&str] = &[
    "metric",
    "n",
    "failed",
    "not-finite",
    "mean",
    "std",
    "low",
    "high",
    "min",
    "max",
    "pairs",
    "difference",
    "difference-std",
    "difference-low",
    "difference-high",
    "reference",
    "clean-labels",
    "run",
];

/// How many names a message names.
const SHOWN: usize = 20;

impl Summarize {
    /// Whether `where` selects the instance at a point.
    pub fn selects(&self, point: &Point) -> bool {
        let mut conditions = self.r#where.iter();
        conditions.all(|(axis, values)| point.get(axis).is_some_and(|value| values.contain(value)))
    }

    /// The points whose values of a metric follow from clean labels. What is not a point is a mistake ([`Rules::check`]).
    pub fn clean_points(&self, metric: &str) -> Vec<Point> {
        let judged =
            self.clean_validation.iter().filter(|_| metric == Evaluate::AT_BEST_VALIDATION);
        self.clean_labels.iter().chain(judged).filter_map(|point| point.parse().ok()).collect()
    }

    /// How many decimals the tables show.
    pub fn shown_decimals(&self) -> usize {
        let by_scale = || (3.0 - self.scale.log10().floor()).clamp(0.0, 12.0);
        self.decimals.map_or_else(|| by_scale() as usize, |decimals| decimals as usize)
    }

    /// `over`, `rows` and `columns` with their names.
    fn places(&self) -> [(&'static str, &[String]); 3] {
        [("over", &self.over), ("rows", &self.rows), ("columns", &self.columns)]
    }

    /// `clean-labels` and `clean-validation` with their names.
    fn marks(&self) -> [(&'static str, &[String]); 2] {
        [("clean-labels", &self.clean_labels), ("clean-validation", &self.clean_validation)]
    }

    /// The tables whose keys are axes, with their names.
    fn tables(&self) -> [(&'static str, ValuesByAxis<'_>); 3] {
        let versus = self.versus.iter().map(|(axis, value)| (axis.as_str(), vec![value]));
        [
            ("where", lists(&self.r#where)),
            ("versus", versus.collect()),
            ("order", lists(&self.order)),
        ]
    }

    fn is_shown(&self, axis: &str) -> bool {
        self.rows.iter().chain(&self.columns).any(|shown| shown == axis)
    }

    /// Axes, metrics and values that are listed twice, or nothing at all.
    fn list_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (field, axes) in self.places() {
            for (item, axis) in axes.iter().enumerate() {
                if let Some(other) = seen.insert(axis, field) {
                    let message = match other == field {
                        true => format!("'{axis}' occurs twice"),
                        false => format!(
                            "the axis '{axis}' is also in '{other}': it can have only one place"
                        ),
                    };
                    problems.push(Problem::new(field, message).with_item(item));
                }
            }
        }
        let mut metrics = BTreeSet::new();
        for (item, metric) in self.metric.0.iter().enumerate() {
            if metric.is_empty() {
                problems.push(Problem::new("metric", "a metric has a name").with_item(item));
            } else if !metrics.insert(metric) {
                problems.push(
                    Problem::new("metric", format!("'{metric}' occurs twice")).with_item(item),
                );
            }
        }
        if self.metric.0.is_empty() {
            problems.push(Problem::new("metric", "'metric' is empty: it needs at least one name"));
        }
        for (field, points) in self.marks() {
            for (item, point) in points.iter().enumerate() {
                if let Err(message) = point.parse::<Point>() {
                    problems.push(Problem::new(field, message).with_item(item));
                }
            }
        }
        for (axis, values) in &self.r#where {
            if values.0.is_empty() {
                let message = format!(
                    "'{axis}' has no value, so nothing would be selected: list some, or drop it"
                );
                problems.push(Problem::new("where", message));
            }
        }
        problems
    }

    /// Names that no point has.
    fn unknown_axes(&self, axes: &BTreeMap<&str, BTreeSet<String>>) -> Vec<Problem> {
        let message = |axis: &str| match axes.is_empty() {
            true => format!("there is no axis '{axis}': the stage has one instance, without axes"),
            false => {
                format!("there is no axis '{axis}': the axes are {}", in_short(axes.keys(), SHOWN))
            }
        };
        let mut problems = Vec::new();
        for (field, names) in self.places() {
            let unknown =
                names.iter().enumerate().filter(|(_, axis)| !axes.contains_key(axis.as_str()));
            problems.extend(
                unknown.map(|(item, axis)| Problem::new(field, message(axis)).with_item(item)),
            );
        }
        for (field, points) in self.marks() {
            for (item, text) in points.iter().enumerate() {
                let point: Point = text.parse().unwrap_or_default();
                let unknown = point.iter().filter(|(axis, _)| !axes.contains_key(axis));
                problems.extend(
                    unknown.map(|(axis, _)| Problem::new(field, message(axis)).with_item(item)),
                );
            }
        }
        for (field, table) in self.tables() {
            for (axis, values) in table {
                let Some(existing) = axes.get(axis) else {
                    problems.push(Problem::new(field, message(axis)));
                    continue;
                };
                for value in values.iter().filter(|value| !existing.contains(value.as_str())) {
                    let values = in_short(existing, SHOWN);
                    let instance = match field == "where" || self.r#where.is_empty() {
                        true => "no instance",
                        false => "no instance with the values of 'where'",
                    };
                    let message =
                        format!("{instance} has {axis} = {value}: the values are {values}");
                    problems.push(Problem::new(field, message));
                }
            }
        }
        problems
    }

    /// Axes that the selected points have, and that have no place.
    fn open_axes(&self, axes: &BTreeMap<&str, BTreeSet<String>>) -> Vec<Problem> {
        let is_open = |axis: &str| {
            let fixed = self.r#where.get(axis).is_some_and(|values| values.0.len() == 1);
            !fixed && !self.is_shown(axis) && !self.over.iter().any(|over| over == axis)
        };
        let open = axes.iter().filter(|(axis, _)| is_open(axis));
        let problem = |(axis, values): (&&str, &BTreeSet<String>)| {
            let example = values.first().map_or("", String::as_str);
            let example =
                match example.parse::<f64>().is_ok() || matches!(example, "true" | "false") {
                    true => example.to_owned(),
                    false => format!("{example:?}"),
                };
            let message = format!(
                "the instances have an axis '{axis}' ({}), which has no place here: list it in 'over' for the mean over its values, in \
                 'rows' or 'columns' to show each, or choose one by where = {{ {axis} = {example} }}",
                in_short(values, SHOWN)
            );
            Problem::new("of", message)
        };
        open.map(problem).collect()
    }
}

/// Adds the points for which clean labels do at least this much.
fn add_marks(marks: &mut Vec<String>, instances: &[(Point, CleanLabels)], least: CleanLabels) {
    let points = |is_marked: bool| {
        let chosen = instances.iter().filter(move |(_, use_)| (*use_ >= least) == is_marked);
        chosen.map(|(point, _)| point)
    };
    let (own, other) = (axes_of(points(true)), axes_of(points(false)));
    // One axis that tells them apart says it in fewer words.
    let axis = own.iter().find(|(axis, values)| {
        let shared = other.get(*axis).is_some_and(|other| !other.is_disjoint(values));
        instances.iter().all(|(point, _)| point.get(axis).is_some()) && !shared
    });
    match axis {
        Some((axis, values)) => {
            marks.extend(values.iter().map(|value| format!("{axis}={value}")));
        }
        None => marks.extend(points(true).map(Point::to_string)),
    }
    marks.sort();
    marks.dedup();
}

/// Axes, each with values.
type ValuesByAxis<'a> = Vec<(&'a str, Vec<&'a AxisValue>)>;

fn lists(table: &BTreeMap<String, AxisValues>) -> ValuesByAxis<'_> {
    table.iter().map(|(axis, values)| (axis.as_str(), values.0.iter().collect())).collect()
}

/// Calls `visit` with each key of a table, which becomes what that returns.
fn each_key<T>(field: &'static str, table: &mut BTreeMap<String, T>, visit: &mut AxisVisitor<'_>) {
    let axes = std::mem::take(table).into_iter();
    table.extend(axes.map(|(axis, values)| (visit(field, None, &axis).unwrap_or(axis), values)));
}

/// The axes that some point has, each with its values.
fn axes_of<'a>(points: impl IntoIterator<Item = &'a Point>) -> BTreeMap<&'a str, BTreeSet<String>> {
    let mut axes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (axis, value) in points.into_iter().flat_map(Point::iter) {
        let values = axes.entry(axis).or_default();
        let value = canonical(value);
        if !values.contains(value.as_ref()) {
            values.insert(value.into_owned());
        }
    }
    axes
}

impl Rules for Summarize {
    fn forms() -> &'static [Form] {
        &[Form::NotEmpty("metric")]
    }

    // Since 1 more, plots have marks; since 2 more, only shares are in percent.
    fn version(&self) -> Option<u32> {
        let is_marked = self.marks().iter().any(|(_, points)| !points.is_empty());
        let has_others = self.scale == 100.0 && !self.metric.0.iter().all(|it| is_share(it));
        let newer = match (has_others, is_marked) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => return None,
        };
        Some(<Self as crate::kind::Kind>::VERSION + newer)
    }

    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        let mut problems = self.list_problems();
        for axis in self.versus.keys().filter(|axis| !self.is_shown(axis)) {
            let message = format!(
                "differences are between rows or columns: list '{axis}' in 'rows' or 'columns'"
            );
            problems.push(Problem::new("versus", message));
        }
        for (field, axes) in self.places() {
            for (item, axis) in axes.iter().enumerate() {
                if RESERVED.contains(&axis.as_str()) || self.metric.0.contains(axis) {
                    let message = format!(
                        "'{axis}' is also the name of a column of summary.csv or runs.csv: rename the axis"
                    );
                    problems.push(Problem::new(field, message).with_item(item));
                }
            }
        }
        problems
    }

    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let Some(known) = inputs.at("of").metrics else { return Vec::new() };
        let metrics = self.metric.0.iter().enumerate();
        let unknown = metrics.filter(|(_, metric)| !metric.is_empty() && !known.has(metric));
        let problem = |(item, metric): (usize, &String)| {
            let message =
                format!("'{}' has no metric '{metric}': its metrics are {known}", known.kind);
            Problem::new("metric", message).with_item(item)
        };
        unknown.map(problem).collect()
    }

    fn check_points(&self, points: &[Point]) -> Vec<Problem> {
        // A stage outside the matrix has one instance, without axes.
        let alone = [Point::default()];
        let points = if points.is_empty() { &alone[..] } else { points };
        let mut problems = self.unknown_axes(&axes_of(points));
        let selected: Vec<&Point> = points.iter().filter(|point| self.selects(point)).collect();
        if selected.is_empty() {
            if problems.is_empty() {
                let message = "no instance has all of these values: nothing would be summarized";
                problems.push(Problem::new("where", message));
            }
            return problems;
        }
        let axes = axes_of(selected.iter().copied());
        problems.extend(self.open_axes(&axes));
        let is_baseline = |point: &&&Point| {
            let mut values = self.versus.iter();
            values.all(|(axis, value)| {
                point.get(axis).is_some_and(|own| canonical(own) == value.as_str())
            })
        };
        let baseline = selected.iter().filter(is_baseline).count();
        if problems.is_empty() && !self.versus.is_empty() && baseline == selected.len() {
            let message =
                "every instance belongs to the baseline: there is nothing to compare it with";
            problems.push(Problem::new("versus", message));
        } else if problems.is_empty() && baseline == 0 {
            let message = "no instance that 'where' selects belongs to the baseline";
            problems.push(Problem::new("versus", message));
        }
        problems
    }

    fn each_axis(&mut self, visit: &mut AxisVisitor<'_>) {
        let places =
            [("over", &mut self.over), ("rows", &mut self.rows), ("columns", &mut self.columns)];
        for (field, axes) in places {
            for (item, axis) in axes.iter_mut().enumerate() {
                if let Some(other) = visit(field, Some(item), axis) {
                    *axis = other;
                }
            }
        }
        each_key("where", &mut self.r#where, visit);
        each_key("versus", &mut self.versus, visit);
        each_key("order", &mut self.order, visit);
        let marks = [
            ("clean-labels", &mut self.clean_labels),
            ("clean-validation", &mut self.clean_validation),
        ];
        for (field, points) in marks {
            for (item, text) in points.iter_mut().enumerate() {
                let Ok(point) = text.parse::<Point>() else { continue };
                let others = point.iter().map(|(axis, _)| visit(field, Some(item), axis));
                let others: Vec<Option<String>> = others.collect();
                // As it is written, it is in the key.
                if others.iter().all(Option::is_none) {
                    continue;
                }
                let values = point.iter().zip(&others);
                let values =
                    values.map(|((axis, value), other)| (other.as_deref().unwrap_or(axis), value));
                *text = values.collect::<Point>().to_string();
            }
        }
    }

    fn place_axes(&mut self, axes: &[&str], points: &[Point]) {
        let own = axes_of(points);
        for axis in axes.iter().filter(|axis| own.contains_key(*axis)) {
            let is_listed =
                self.places().iter().any(|(_, places)| places.iter().any(|one| one == axis));
            if !is_listed && !self.r#where.contains_key(*axis) {
                self.rows.push((*axis).to_owned());
            }
        }
    }

    fn clean_labels(&self, _inputs: &KnownInputs) -> CleanLabels {
        match self.metric.0.iter().all(|metric| self.clean_points(metric).is_empty()) {
            true => CleanLabels::Unused,
            false => CleanLabels::Decide,
        }
    }

    fn mark_clean_labels(&mut self, instances: &[(Point, CleanLabels)]) {
        add_marks(&mut self.clean_labels, instances, CleanLabels::Decide);
        if self.metric.0.iter().any(|metric| metric == Evaluate::AT_BEST_VALIDATION) {
            add_marks(&mut self.clean_validation, instances, CleanLabels::Judge);
        }
    }

    // Summaries from before they existed marked nothing.
    fn key_parameters(&self, mut effective: Map<String, Value>) -> Map<String, Value> {
        for (name, points) in self.marks() {
            if points.is_empty() {
                effective.remove(name);
            }
        }
        effective
    }

    fn allows_missing(&self) -> bool {
        self.allow_missing
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        self.reference.iter().map(|path| OutsidePath::file("reference", path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind;

    fn summary(changes: Value) -> Summarize {
        let mut parameters = json!({"metric": "test-accuracy"});
        parameters.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(parameters).unwrap()
    }

    fn points(texts: &[&str]) -> Vec<Point> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The problems of parameters at these points: the field, the item and the message.
    fn problems(changes: Value, points: &[Point]) -> Vec<String> {
        let summary = summary(changes);
        let found = summary.check(&["of"]).into_iter().chain(summary.check_points(points));
        let shown = |problem: Problem| {
            let item = problem.item.map_or(String::new(), |item| format!("[{item}]"));
            format!("{}{item}: {}", problem.field, problem.message)
        };
        found.map(shown).collect()
    }

    fn grid() -> Vec<Point> {
        points(&[
            "init=scratch,rate=0.5,seed=1",
            "init=scratch,rate=0.9,seed=1",
            "encoder=a,init=simclr,rate=0.5,seed=1",
            "encoder=b,init=simclr,rate=0.9,seed=2",
        ])
    }

    #[test]
    fn each_axis_needs_one_place() {
        let good = json!({"over": ["seed"], "rows": ["init", "encoder"], "columns": ["rate"], "versus": {"init": "scratch"}});
        assert_eq!(problems(good, &grid()), [""; 0]);
        let by_where = json!({"over": ["seed"], "rows": ["init"], "where": {"rate": "0.90"}, "order": {"init": ["simclr"]}});
        let open = problems(by_where, &grid());
        assert_eq!(
            open,
            [
                "of: the instances have an axis 'encoder' (b), which has no place here: list it in 'over' for the mean over its values, in \
              'rows' or 'columns' to show each, or choose one by where = { encoder = \"b\" }"
            ]
        );
        let list = json!({"over": ["seed"], "rows": ["init"], "where": {"rate": [0.5, 0.9], "init": "scratch"}});
        let open = problems(list, &grid());
        assert_eq!(open.len(), 1);
        assert!(open[0].contains("where = { rate = 0.5 }"), "{open:?}");
        let twice = json!({"over": ["seed", "seed"], "rows": ["init", "encoder"], "columns": ["rate", "init"]});
        assert_eq!(
            problems(twice, &grid()),
            [
                "over[1]: 'seed' occurs twice",
                "columns[1]: the axis 'init' is also in 'rows': it can have only one place"
            ]
        );
    }

    #[test]
    fn what_does_not_exist_is_reported_with_what_does() {
        let wrong = json!({
            "over": ["seed"], "rows": ["init", "encoder", "method"], "columns": ["rate"],
            "where": {"rate": [0.5, 0.7], "arch": "x"}, "versus": {"init": "none"}
        });
        assert_eq!(
            problems(wrong, &grid()),
            [
                "rows[2]: there is no axis 'method': the axes are encoder, init, rate, seed",
                "where: there is no axis 'arch': the axes are encoder, init, rate, seed",
                "where: no instance has rate = 0.7: the values are 0.5, 0.9",
                "versus: no instance with the values of 'where' has init = none: the values are scratch, simclr",
            ]
        );
        let alone = problems(json!({"over": ["seed"]}), &points(&[""]));
        assert_eq!(
            alone,
            ["over[0]: there is no axis 'seed': the stage has one instance, without axes"]
        );
        assert_eq!(problems(json!({}), &points(&[""])), [""; 0]);
        let nothing = problems(json!({"where": {"encoder": "a", "rate": 0.9, "seed": 1}}), &grid());
        assert_eq!(
            nothing,
            ["where: no instance has all of these values: nothing would be summarized"]
        );
    }

    #[test]
    fn a_baseline_is_a_row_or_column_beside_others() {
        let unseen = json!({"over": ["seed", "init", "encoder"], "rows": ["rate"], "versus": {"init": "scratch"}});
        assert_eq!(
            problems(unseen, &grid()),
            ["versus: differences are between rows or columns: list 'init' in 'rows' or 'columns'"]
        );
        let alone = |init: &str| {
            let chosen = json!({"over": ["seed", "rate"], "rows": ["init", "encoder"], "where": {"init": init}, "versus": {"init": "scratch"}});
            problems(chosen, &grid())
        };
        assert_eq!(
            alone("scratch"),
            ["versus: every instance belongs to the baseline: there is nothing to compare it with"]
        );
        assert_eq!(
            alone("simclr"),
            ["versus: no instance that 'where' selects belongs to the baseline"]
        );
    }

    #[test]
    fn names_of_columns_and_of_nothing_are_refused() {
        let found = problems(
            json!({"metric": ["a", "", "a"], "rows": ["mean", "a"], "where": {"x": []}}),
            &points(&["a=1,mean=2,x=1"]),
        );
        assert_eq!(found.len(), 6, "{found:#?}");
        assert_eq!(problems(json!({"metric": []}), &points(&[""])).len(), 1);
    }

    #[test]
    fn results_with_marks_or_factors_of_others_than_shares_are_newer() {
        let version = |parameters: Value| summary(parameters).version();
        assert_eq!(version(json!({})), None);
        for marks in ["clean-labels", "clean-validation"] {
            let newer = Some(<Summarize as crate::Kind>::VERSION + 1);
            assert_eq!(version(json!({marks: ["method=mine"]})), newer, "{marks}");
        }
        // Others than shares were in percent with this scale.
        let newest = Some(<Summarize as crate::Kind>::VERSION + 2);
        let both = ["test-accuracy", "test-loss"];
        for (parameters, expected) in [
            (json!({"scale": 100, "metric": both}), newest),
            (json!({"scale": 100, "metric": both, "clean-labels": ["method=mine"]}), newest),
            (json!({"scale": 100, "metric": "test-accuracy"}), None),
            (json!({"scale": 10, "metric": both}), None),
        ] {
            assert_eq!(version(parameters.clone()), expected, "{parameters}");
        }
    }

    #[test]
    fn marks_are_written_by_one_axis_where_that_is_enough() {
        let marks = |clean: &[&str], others: &[&str]| {
            let mut summary = summary(json!({"clean-labels": ["method=own"]}));
            let of = |texts, used| points(texts).into_iter().map(move |point| (point, used));
            let clean = of(clean, CleanLabels::Decide);
            let instances = clean.chain(of(others, CleanLabels::Judge));
            summary.mark_clean_labels(&instances.collect::<Vec<_>>());
            assert!(summary.clean_validation.is_empty(), "it is of another metric");
            summary.clean_labels.join(" ")
        };
        let clean = ["method=b,seed=1", "method=b,seed=2", "method=c,seed=1"];
        assert_eq!(marks(&clean, &["method=a,seed=1"]), "method=b method=c method=own");
        assert_eq!(
            marks(&clean, &["method=c,seed=2"]),
            "method=b,seed=1 method=b,seed=2 method=c,seed=1 method=own"
        );
        // Without the axis it cannot tell them apart.
        assert_eq!(marks(&["seed=1"], &[""]), "method=own seed=1");
        assert_eq!(marks(&[""], &[]), " method=own", "the one instance outside of a matrix");
        assert_eq!(marks(&[], &clean), "method=own");
    }

    #[test]
    fn what_is_chosen_by_validation_is_marked_where_clean_labels_judge() {
        let [judged, decided] = ["method=ce", "method=mwnet"].map(|point| point.parse().unwrap());
        let given = "method=given".parse().unwrap();
        let mut summary =
            summary(json!({"metric": ["test-accuracy", Evaluate::AT_BEST_VALIDATION]}));
        assert_eq!(summary.clean_labels(&KnownInputs::default()), CleanLabels::Unused);
        summary.mark_clean_labels(&[
            (judged, CleanLabels::Judge),
            (decided, CleanLabels::Decide),
            (given, CleanLabels::Unused),
        ]);
        assert_eq!(summary.clean_points("test-accuracy"), points(&["method=mwnet"]));
        let mut at_best = summary.clean_points(Evaluate::AT_BEST_VALIDATION);
        at_best.dedup();
        assert_eq!(at_best, points(&["method=mwnet", "method=ce", "method=mwnet"]));
        assert_eq!(summary.clean_labels(&KnownInputs::default()), CleanLabels::Decide);
        let key = kind::key_parameters(&summary);
        assert_eq!(key["clean-validation"], json!(["method=ce", "method=mwnet"]));
    }

    #[test]
    fn marked_points_have_axes_of_the_instances() {
        let marked = |points: Value| json!({"over": ["seed", "encoder"], "rows": ["init"], "columns": ["rate"], "clean-labels": points});
        assert_eq!(problems(marked(json!(["init=simclr", "rate=0.5,seed=1"])), &grid()), [""; 0]);
        let judged = json!({"over": ["seed", "encoder"], "rows": ["init"], "columns": ["rate"], "clean-validation": ["method=ce"]});
        assert_eq!(
            problems(judged, &grid()),
            [
                "clean-validation[0]: there is no axis 'method': the axes are encoder, init, rate, seed"
            ]
        );
        let wrong = problems(marked(json!(["init=simclr", "method=mwnet", "simclr"])), &grid());
        assert_eq!(
            wrong,
            [
                "clean-labels[2]: 'simclr' is not an axis with a value: AXIS=VALUE",
                "clean-labels[1]: there is no axis 'method': the axes are encoder, init, rate, seed",
            ]
        );
    }

    #[test]
    fn what_names_axes_that_exist_stays_as_it_is_written() {
        let written = json!({
            "metric": "m", "over": ["seed"], "where": { "rate": [0.9, 0.8] }, "versus": { "method": "ce" },
            "clean-labels": ["rate=0.9,method=mine"], "clean-validation": ["seed=2,rate=0.9"],
        });
        let mut summary = summary(written);
        let before = serde_json::to_value(&summary).unwrap();
        summary.each_axis(&mut |_, _, _| None);
        assert_eq!(serde_json::to_value(&summary).unwrap(), before);
        summary.each_axis(&mut |_, _, axis| (axis == "seed").then(|| "run".to_owned()));
        assert_eq!((&*summary.over[0], &*summary.clean_validation[0]), ("run", "rate=0.9,run=2"));
        assert_eq!(summary.clean_labels[0], "rate=0.9,method=mine");
    }

    #[test]
    fn all_parameters_are_in_the_key_in_one_form() {
        let key = |changes| kind::key_parameters(&summary(changes));
        assert_eq!(key(json!({"metric": ["test-accuracy"]})), key(json!({})));
        assert_eq!(key(json!({"where": {"rate": 0.9}})), key(json!({"where": {"rate": ["0.90"]}})));
        assert_ne!(key(json!({"title": "t"})), key(json!({})));
        assert_ne!(key(json!({"decimals": 2})), key(json!({})));
        for (scale, decimals) in
            [(1.0, 3), (100.0, 1), (1000.0, 0), (1e9, 0), (0.1, 4), (1e-300, 12)]
        {
            assert_eq!(summary(json!({"scale": scale})).shown_decimals(), decimals);
        }
        assert_eq!(summary(json!({"reference": "paper.csv"})).outside_paths().len(), 1);
    }
}
