//! Whole summaries, from metrics.json to the files.

use std::collections::BTreeMap;
use std::path::Path;

use insta::assert_snapshot;
use pipeline_stages::message::{Execution, Input, Metrics, PROTOCOL, Request};
use pipeline_stages::point::Point;
use pipeline_stages::worker::Context;
use pipeline_stages::{ArtifactType, KindConfig};
use serde_json::{Value, json};

use crate::fixture::notes;

/// The runs of a matrix, and a folder for what is made of them.
struct Test {
    root: tempfile::TempDir,
    inputs: Vec<Input>,
    missing: Vec<Point>,
    outputs: usize,
    notes: Vec<String>,
}

impl Test {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, inputs: Vec::new(), missing: Vec::new(), outputs: 0, notes: Vec::new() }
    }

    /// A run at these points, with this `metrics.json`.
    fn run_at(&mut self, points: &[&str], metrics: &str) {
        let path = self.root.path().join(format!("run-{}", self.inputs.len()));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("metrics.json"), metrics).unwrap();
        let points = points.iter().map(|point| point.parse().unwrap()).collect();
        self.inputs.push(Input { points, ..Input::new(None, path, ArtifactType::Metrics) });
    }

    fn accuracy_at(&mut self, point: &str, value: f64) {
        self.run_at(&[point], &json!({"test-accuracy": value}).to_string());
    }

    fn missing_at(&mut self, point: &str) {
        self.missing.push(point.parse().unwrap());
    }

    /// Summarizes, after the checks that a plan would do.
    fn summarize(&mut self, parameters: Value) -> Result<(Files, Metrics), String> {
        let stage = KindConfig::read("summarize", parameters).unwrap().unwrap();
        let points = self.inputs.iter().flat_map(|input| &input.points).chain(&self.missing);
        assert_eq!(stage.check(&["of"]), []);
        assert_eq!(stage.check_points(&points.cloned().collect::<Vec<_>>()), []);
        let KindConfig::Prepare(body) = &stage else { unreachable!("a kind without torch") };
        self.outputs += 1;
        let output = self.root.path().join(format!("output-{}", self.outputs));
        std::fs::create_dir(&output).unwrap();
        let context = Context::for_test(Request {
            protocol: PROTOCOL,
            stage: stage.clone(),
            seed: 0,
            inputs: BTreeMap::from([("of".to_owned(), self.inputs.clone())]),
            missing: BTreeMap::from([("of".to_owned(), self.missing.clone())]),
            output: output.clone(),
            checkpoint: self.root.path().to_owned(),
            folder: self.root.path().to_owned(),
            execution: Execution::default(),
        });
        let result = crate::run(body, &context);
        self.notes = notes(&context);
        let metrics = result.map_err(|error| format!("{error:#}"))?;
        Ok((Files::read(&output), metrics))
    }
}

/// The files of a summary.
#[derive(Debug, PartialEq)]
struct Files(BTreeMap<String, String>);

impl Files {
    fn read(folder: &Path) -> Self {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let file = |path: std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        };
        Self(entries.map(file).collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.0.keys()))
    }
}

/// Three methods from two starts at four rates, with three seeds each; numbers by a formula.
fn grid() -> Test {
    let mut test = Test::new();
    for (place, method) in ["ce", "lq-0.66", "mwnet"].into_iter().enumerate() {
        for (start, init) in ["scratch", "simclr"].into_iter().enumerate() {
            for rate in ["0.2", "0.5", "0.8", "0.9"] {
                for seed in 0..3 {
                    let noise: f64 = rate.parse().unwrap();
                    let (place, start, draw) = (place as f64, start as f64, f64::from(seed));
                    let value = 0.92
                        - 0.45 * noise.powi(3) * (1.0 - 0.6 * start)
                        - 0.02 * place * (1.0 - noise)
                        + 0.006 * (draw - 1.0) * (1.0 + place * noise);
                    let encoder = if init == "simclr" { "encoder=r18," } else { "" };
                    let point =
                        format!("{encoder}init={init},method={method},rate={rate},seed={seed}");
                    test.accuracy_at(&point, (value * 1e4).round() / 1e4);
                }
            }
        }
    }
    test
}

fn grid_parameters() -> Value {
    json!({
        "metric": "test-accuracy", "over": ["seed", "encoder"], "rows": ["method", "init"], "columns": ["rate"],
        "versus": {"init": "scratch"}, "scale": 100, "title": "Fashion-MNIST, symmetric noise"
    })
}

#[test]
fn a_grid_as_tables() {
    let (files, metrics) = grid().summarize(grid_parameters()).unwrap();
    assert_snapshot!(files.text("table.md"));
    assert_snapshot!(files.text("table.tex"));
    assert_eq!(metrics.get("runs"), Some(&72.0));
    assert_eq!(metrics.get("groups"), Some(&24.0));
    let names: Vec<_> = files.0.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "metrics.json",
            "plot.svg",
            "runs.csv",
            "summary.csv",
            "summary.json",
            "table.md",
            "table.tex"
        ]
    );
}

#[test]
fn what_used_clean_labels_is_marked() {
    let mut test = Test::new();
    for (method, value) in [("ce", 0.5), ("mwnet", 0.7)] {
        for (seed, more) in [("1", 0.0), ("2", 0.1)] {
            test.accuracy_at(&format!("method={method},rate=0.9,seed={seed}"), value + more);
        }
    }
    let parameters = |marked: Value| {
        json!({
            "metric": "test-accuracy", "over": ["seed"], "rows": ["method"], "columns": ["rate"], "scale": 100,
            "versus": {"method": "ce"}, "clean-labels": marked
        })
    };
    let (files, _) = test.summarize(parameters(json!(["method=mwnet,rate=0.90"]))).unwrap();
    assert_snapshot!(files.text("table.md"), @r"
    ## test-accuracy

    | method |        rate = 0.9 |
    | ------ | ----------------: |
    | ce     |       55.0 ± 63.5 |
    | mwnet  | **75.0** ± 63.5 † |

    Mean of test-accuracy (%) over seed ± half of its 95 % t-interval; n = 2.
    † Learned from labels known to be right, or was chosen by them.

    ## test-accuracy: difference from method = ce

    | method |    rate = 0.9 |
    | ------ | ------------: |
    | mwnet  | +20.0 ± 0.0 † |

    Mean paired difference of test-accuracy (%) over seed from method = ce ± half of its 95 % t-interval; pairs = 2.
    † One of the two learned from labels known to be right, or was chosen by them.
    ");
    assert!(files.text("table.tex").contains("\\mathbf{75.0} \\pm 63.5$ $^\\dagger$ \\\\"));
    let (plain, _) = test.summarize(parameters(json!([]))).unwrap();
    let rows = |files: &Files| -> Vec<String> {
        files.text("summary.csv").lines().map(str::to_owned).collect()
    };
    let marks = ["clean-labels", "false", "true"];
    let marked = rows(&plain).into_iter().zip(marks).map(|(row, mark)| format!("{row},{mark}"));
    assert_eq!(rows(&files), marked.collect::<Vec<_>>());
    let groups = |files: &Files| {
        let json: Value = serde_json::from_str(files.text("summary.json")).unwrap();
        json["metrics"][0]["groups"].clone()
    };
    assert_eq!(groups(&files)[1]["clean-labels"], true);
    assert_eq!(groups(&files)[0], groups(&plain)[0]);
    let mut from_marked = parameters(json!(["method=mwnet"]));
    from_marked["versus"]["method"] = json!("mwnet");
    let (files, _) = test.summarize(from_marked).unwrap();
    let table = files.text("table.md");
    assert!(table.contains("| ce     |       55.0 ± 63.5 |"), "{table}");
    assert!(table.contains("| ce     | -20.0 ± 0.0 † |"), "{table}");
}

#[test]
fn plots_mark_the_series_and_the_places_that_used_clean_labels() {
    let texts = |rows: &str, columns: &str, clean: &str| -> Vec<String> {
        let mut test = Test::new();
        for method in ["ce", "mwnet"] {
            for rate in ["0.2", "0.5", "0.9"] {
                test.accuracy_at(&format!("method={method},rate={rate},seed=1"), 0.5);
            }
        }
        let parameters = json!({
            "metric": "test-accuracy", "over": ["seed"], "rows": [rows], "columns": [columns], "clean-labels": [clean],
        });
        let files = test.summarize(parameters).unwrap().0;
        let svg = files.text("plot.svg");
        let texts = svg.split("</text>").filter_map(|part| part.rsplit('>').next());
        let marked = texts.filter(|text| text.contains('†')).map(str::to_owned).collect();
        // What is shown where the pointer is.
        assert_eq!(svg.matches(" †</title>").count(), if clean.contains(',') { 1 } else { 3 });
        marked
    };
    let note = "† learned from labels known to be right, or chosen by them";
    assert_eq!(texts("method", "rate", "method=mwnet"), ["mwnet †", note]);
    assert_eq!(texts("method", "rate", "method=mwnet,rate=0.9"), ["mwnet †", note]);
    assert_eq!(texts("rate", "method", "method=mwnet"), ["mwnet †", note]);
    assert_eq!(texts("rate", "method", "method=mwnet,rate=0.9"), ["0.9 †", note]);
}

/// A failed point, a NaN, a blank cell, a published value, one run at several points.
fn ragged() -> (Test, Value) {
    let mut test = Test::new();
    for (point, value) in [
        ("method=a_b,rate=0.5,seed=1", "0.9"),
        ("method=a_b,rate=0.5,seed=2", "0.8"),
        ("method=a_b,rate=0.9,seed=1", "NaN"),
        ("method=a_b,rate=0.9,seed=2", "0.4"),
        ("method=10,rate=0.5,seed=1", "0.7"),
        ("method=9,rate=0.9,seed=1", "0.3"),
    ] {
        test.run_at(
            &[point],
            &format!("{{\"test-accuracy\": {value}, \"test\": {{\"loss\": 1}}}}"),
        );
    }
    test.run_at(
        &["method=10,rate=0.9,seed=1", "method=10,rate=0.9,seed=2", "method=10,rate=1,seed=1"],
        "{\"test-accuracy\": 0.25, \"test\": {\"loss\": 2}}",
    );
    test.missing_at("method=9,rate=0.5,seed=1");
    test.missing_at("method=9,rate=0.9,seed=2");
    let published = "rate,method,test-accuracy\n0.50,a_b,0.91\n,9,0.5\n0.9,\"9\",0.35\n";
    std::fs::write(test.root.path().join("paper.csv"), published).unwrap();
    let parameters = json!({
        "metric": "test-accuracy", "over": ["seed"], "rows": ["method"], "columns": ["rate"], "allow-missing": true,
        "reference": "paper.csv", "versus": {"method": "10"}
    });
    (test, parameters)
}

#[test]
fn what_is_missing_strange_or_published_is_shown() {
    let (mut test, parameters) = ragged();
    let (files, _) = test.summarize(parameters).unwrap();
    assert_snapshot!(files.text("table.md"));
    assert_snapshot!(files.text("table.tex"));
    assert_snapshot!(files.text("summary.csv"));
    assert_snapshot!(files.text("runs.csv"));
    assert_snapshot!(files.text("summary.json"));
    assert_eq!(
        test.notes,
        [
            "the points method=10,rate=0.9,seed=1 and method=10,rate=0.9,seed=2 count once, as they have the same key and so are \
             one run; if what they read was computed apart and is equal by chance, let their stage use the axis: SEED = \
             \"${seed}\" in the `environment` of a command",
            "reference: 1 of 3 rows have no group here, in line 3: the first is rate = nothing, method = 9"
        ]
    );
}

#[test]
fn what_is_not_finite_is_never_the_best_and_hides_no_best() {
    const NONE: (&[&str], Option<f64>) = (&[], None);
    for (metric, values, (bold, best)) in [
        ("accuracy", &["0.5", "NaN", "0.25"][..], (&["0.500"][..], Some(0.5))),
        ("accuracy", &["NaN", "0.25"], (&["0.250"], Some(0.25))),
        ("accuracy", &["0.25", "NaN", "Infinity"], (&["0.250"], Some(0.25))),
        ("accuracy", &["0.25", "NaN", "0.25"], (&["0.250", "0.250"], Some(0.25))),
        ("loss", &["NaN", "2", "4"], (&["2.000"], Some(2.0))),
        ("loss", &["4", "NaN"], (&["4.000"], Some(4.0))),
        ("loss", &["-Infinity", "4"], (&["4.000"], Some(4.0))),
        ("accuracy", &["NaN", "NaN"], NONE),
        // It is compared with no other.
        ("accuracy", &["0.25"], (&[], Some(0.25))),
    ] {
        for axes in ["rows", "columns"] {
            let mut test = Test::new();
            for (method, value) in values.iter().enumerate() {
                let metrics = format!("{{\"{metric}\": {value}}}");
                test.run_at(&[&format!("method={method},seed=1")], &metrics);
            }
            let parameters = json!({"metric": metric, "over": ["seed"], axes: ["method"]});
            let (files, headline) = test.summarize(parameters).unwrap();
            let found: Vec<&str> = files.text("table.md").split("**").skip(1).step_by(2).collect();
            assert_eq!(found, bold, "{metric} {values:?}, {axes}");
            assert_eq!(headline.get("best-mean").copied(), best, "{metric} {values:?}");
        }
    }
}

#[test]
fn one_run_at_several_rows_is_no_news() {
    let mut test = Test::new();
    let metrics = "{\"test-accuracy\": 0.25}";
    test.run_at(&["method=ce,seed=1", "method=mine,seed=1"], metrics);
    test.run_at(&["method=ce,seed=2", "method=mine,seed=2"], metrics);
    let parameters = json!({"metric": "test-accuracy", "over": ["seed"], "rows": ["method"]});
    test.summarize(parameters.clone()).unwrap();
    assert_eq!(test.notes, [""; 0]);
    test.run_at(&["method=a,my-seed=1", "method=a,my-seed=2", "method=a,my-seed=3"], metrics);
    test.run_at(&["method=b,my-seed=1", "method=b,my-seed=2"], metrics);
    let over = json!({"metric": "test-accuracy", "over": ["seed", "my-seed"], "rows": ["method"]});
    test.summarize(over).unwrap();
    let note = &test.notes[0];
    assert!(note.contains("and so do those of 1 other run"), "{note}");
    assert!(note.contains("MY_SEED = \"${my-seed}\""), "{note}");
}

#[test]
fn the_order_of_the_inputs_changes_no_byte() {
    let (mut test, parameters) = ragged();
    let (files, _) = test.summarize(parameters.clone()).unwrap();
    for turn in 0..test.inputs.len() {
        test.inputs.rotate_left(1);
        test.missing.reverse();
        for input in &mut test.inputs {
            input.points.reverse();
        }
        assert_eq!(test.summarize(parameters.clone()).unwrap().0, files, "{turn}");
    }
    test.inputs.reverse();
    assert_eq!(test.summarize(parameters).unwrap().0, files);
}

#[test]
fn one_stage_without_a_matrix() {
    let mut test = Test::new();
    test.run_at(&[], "{\"loss\": 0.5, \"a/b\": 2}");
    let (files, metrics) = test.summarize(json!({"metric": ["loss", "a/b"]})).unwrap();
    assert_snapshot!(files.text("table.md"));
    assert_snapshot!(files.text("table.tex"));
    assert!(
        files.text("plot-loss.svg").starts_with("<svg")
            && files.text("plot-a-b.svg").starts_with("<svg")
    );
    assert_eq!(metrics.get("best-mean"), Some(&0.5));
}

#[test]
fn several_column_axes_have_a_header_each() {
    let parameters = json!({
        "metric": "test-accuracy", "over": ["seed", "encoder"], "rows": ["method"], "columns": ["init", "rate"],
        "where": {"rate": [0.5, 0.9]}, "order": {"method": ["mwnet"], "init": ["simclr"]}
    });
    let (files, _) = grid().summarize(parameters).unwrap();
    assert_snapshot!(files.text("table.md"));
    assert_snapshot!(files.text("table.tex"));
}

#[test]
fn a_metric_that_a_run_does_not_have() {
    let mut test = grid();
    let of = |metric: &str| json!({"metric": metric, "over": ["seed", "encoder", "init", "method", "rate"]});
    let error = test.summarize(of("test-acuracy")).unwrap_err();
    assert_eq!(
        error,
        "the instance at init=scratch,method=ce,rate=0.2,seed=0 has no metric 'test-acuracy'; did you mean \
         'test-accuracy'? Its metrics are test-accuracy"
    );
    let error = test.summarize(of("x")).unwrap_err();
    assert!(error.ends_with("has no metric 'x'. Its metrics are test-accuracy"), "{error}");
    for (text, expected) in [
        ("{", "metrics.json is not JSON"),
        ("{}", "has no metric 'x': its metrics.json has no number"),
        (
            r#"{"x": "0.5"}"#,
            "has no metric 'x': in its metrics.json, it is a string, and a metric is a number",
        ),
        (r#"{"y": 1, "x": 0, "x": null}"#, "it is null, and a metric is a number"),
        (
            r#"{"y": 1, "x": {"x": "0.5"}}"#,
            "has no metric 'x'; did you mean 'y'? Its metrics are y",
        ),
    ] {
        std::fs::write(test.inputs[0].path.join("metrics.json"), text).unwrap();
        let error = test.summarize(of("x")).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn values_are_shown_as_they_are_written() {
    let mut test = Test::new();
    for (place, fold) in ["10", "02", "1e1x", "01"].into_iter().enumerate() {
        test.accuracy_at(&format!("fold={fold},seed=1"), 0.5 + place as f64);
    }
    std::fs::write(test.root.path().join("paper.csv"), "fold,test-accuracy\n02,0.25\n").unwrap();
    let (files, _) = test
        .summarize(json!({
            "metric": "test-accuracy", "rows": ["fold"], "over": ["seed"], "reference": "paper.csv",
            "order": {"fold": ["2"]}
        }))
        .unwrap();
    let firsts = |name: &str, column: usize| -> Vec<String> {
        let lines = files.text(name).lines().skip(1);
        lines.map(|line| line.split(',').nth(column).unwrap().to_owned()).collect()
    };
    assert_eq!(firsts("summary.csv", 1), ["02", "01", "10", "1e1x"]);
    assert_eq!(firsts("runs.csv", 1), ["01", "02", "10", "1e1x"]);
    assert_eq!(test.notes, [""; 0]);
}

#[test]
fn mistakes_in_a_reference_have_a_line() {
    let mut test = grid();
    let mut parameters = grid_parameters();
    parameters["reference"] = json!("paper.csv");
    for (text, wrong) in [
        ("", "line 1: the file is empty"),
        (
            "method,test-accuracy\nce,x\n",
            "line 2: 'x' is not a number: write 0.943, without a unit",
        ),
        ("method,test-accuracy\n\nce,0.1,2\n", "line 3: it has 3 fields, but the first line has 2"),
        (
            "methd,test-accuracy\n",
            "line 1: 'methd' is not a column here: the columns are method, init, rate, test-accuracy",
        ),
        ("method,rate\n", "line 1: no column has the name of a metric: 'test-accuracy'"),
        ("method,method,test-accuracy\n", "line 1: the column 'method' occurs twice"),
        (
            "rate,test-accuracy\n0.5,1\n0.50,2\n",
            "line 3: the same values on the axes as in line 2: drop one of them",
        ),
        (
            "method,test-accuracy\n\"ce,0.1\n",
            "line 2: a quote is not closed, or is in the middle of a field",
        ),
        (
            "rate,test-accuracy\n0.5,0.9\n0.9,91.6\n",
            "line 3: 'test-accuracy' is from 0 to 1 here, but 91.6 is published: if that is in percent, write 0.916 (scale = 100 \
             shows percent)",
        ),
    ] {
        std::fs::write(test.root.path().join("paper.csv"), text).unwrap();
        let error = test.summarize(parameters.clone()).unwrap_err();
        assert!(error.ends_with(&format!("paper.csv, {wrong}")), "{error}");
    }
}

#[test]
fn large_values_of_other_shares_in_a_reference_are_a_note() {
    for (own, noted) in [("0.5", true), ("50", false)] {
        for metric in ["test-auc", "test-accuracy"] {
            let mut test = Test::new();
            test.run_at(&["rate=0.5,seed=1"], &format!("{{\"{metric}\": {own}}}"));
            let reference = format!("rate,{metric}\n0.5,91.5\n");
            std::fs::write(test.root.path().join("paper.csv"), reference).unwrap();
            let parameters = json!({
                "metric": metric, "rows": ["rate"], "over": ["seed"], "reference": "paper.csv"
            });
            let result = test.summarize(parameters);
            // An accuracy is an error, above.
            assert_eq!(result.is_err(), noted && metric == "test-accuracy");
            let Ok((files, _)) = result else { continue };
            assert_eq!(test.notes.iter().any(|note| note.contains("write 0.915")), noted);
            assert!(files.text("summary.csv").contains(",91.5\n"));
        }
    }
}

#[test]
fn values_that_are_no_percentages_in_a_reference_are_as_they_are() {
    for (metric, published) in [("accuracy-gain", "-0.01"), ("test-loss", "1.8")] {
        let mut test = Test::new();
        test.run_at(&["rate=0.5,seed=1"], &format!("{{\"{metric}\": 0.5}}"));
        std::fs::write(
            test.root.path().join("paper.csv"),
            format!("rate,{metric}\n0.5,{published}\n"),
        )
        .unwrap();
        let parameters = json!({
            "metric": metric, "rows": ["rate"], "over": ["seed"], "reference": "paper.csv"
        });
        test.summarize(parameters).unwrap();
        assert!(!test.notes.iter().any(|note| note.contains("percent")), "{:?}", test.notes);
    }
}

#[test]
fn nothing_but_failures_is_an_error() {
    let mut test = Test::new();
    test.missing_at("seed=1");
    let error = test
        .summarize(json!({"metric": "m", "over": ["seed"], "allow-missing": true}))
        .unwrap_err();
    assert_eq!(error, "there is no run to summarize: all 1 instances have failed");
}

#[test]
fn a_thousand_runs_take_linear_time() {
    let mut test = Test::new();
    for seed in 0..250 {
        for (method, gain) in [("a", 0.0), ("b", 0.1), ("c", 0.2), ("d", 0.3)] {
            test.accuracy_at(&format!("method={method},rate=0.{},seed={seed}", 1 + seed % 5), gain);
        }
    }
    let start = std::time::Instant::now();
    let parameters = json!({
        "metric": "test-accuracy", "over": ["seed"], "rows": ["method"], "columns": ["rate"], "versus": {"method": "a"}
    });
    test.summarize(parameters).unwrap();
    let took = start.elapsed();
    // It takes a tenth of a second of a processor; reading 1,000 files takes longer on a busy machine.
    assert!(took.as_secs() < 20, "{took:?}");
}

/// Whether a text is XML whose elements are closed in order.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut parser = svg::read(svg).unwrap();
    for event in &mut parser {
        match event {
            svg::parser::Event::Tag(name, svg::node::element::tag::Type::Start, _) => {
                open.push(name)
            }
            svg::parser::Event::Tag(name, svg::node::element::tag::Type::End, _) => {
                assert_eq!(open.pop(), Some(name));
            }
            svg::parser::Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn plots_are_well_formed_and_have_every_value() {
    let (mut test, parameters) = ragged();
    let lines = test.summarize(parameters).unwrap().0;
    assert_well_formed(lines.text("plot.svg"));
    assert!(lines.text("plot.svg").contains("failed, or not a finite number"));
    let mut parameters = grid_parameters();
    parameters["title"] = json!("a <b> & \"c\" \u{1}");
    let lines = grid().summarize(parameters.clone()).unwrap().0;
    let svg = lines.text("plot.svg");
    assert_well_formed(svg);
    assert!(svg.contains("a &lt;b&gt; &amp; \"c\"") && !svg.contains('\u{1}'));
    assert_eq!(svg.matches("<title>").count(), 1 + 24);
    parameters["rows"] = json!(["rate"]);
    parameters["columns"] = json!(["method", "init"]);
    let bars = grid().summarize(parameters).unwrap().0;
    assert_well_formed(bars.text("plot.svg"));
    assert_eq!(bars.text("plot.svg").matches("<rect").count(), 24 + 4);
}

/// Writes the plots to look at: `PLOTS=FOLDER cargo test -p pipeline-prepare summarize`.
#[test]
fn pictures_to_look_at() {
    let Some(folder) = std::env::var_os("PLOTS") else { return };
    let folder = Path::new(&folder);
    let write = |name: &str, files: &Files| {
        std::fs::write(folder.join(name), files.text("plot.svg")).unwrap();
    };
    let mut parameters = grid_parameters();
    write("lines.svg", &grid().summarize(parameters.clone()).unwrap().0);
    let (mut test, ragged_parameters) = ragged();
    write("ragged.svg", &test.summarize(ragged_parameters).unwrap().0);
    parameters["columns"] = json!(["method", "init"]);
    parameters["rows"] = json!(["rate"]);
    let mut test = grid();
    let published = "rate,method,init,test-accuracy\n0.8,ce,scratch,0.65\n0.9,ce,scratch,0.55\n";
    std::fs::write(test.root.path().join("paper.csv"), published).unwrap();
    parameters["reference"] = json!("paper.csv");
    write("bars.svg", &test.summarize(parameters.clone()).unwrap().0);
    parameters["columns"] = json!(["init", "rate"]);
    parameters["rows"] = json!(["method"]);
    write("reference.svg", &test.summarize(parameters.clone()).unwrap().0);
    let few = json!({"metric": "test-accuracy", "over": ["seed", "encoder", "rate"], "rows": ["method"], "columns": ["init"], "scale": 100});
    write("few.svg", &grid().summarize(few).unwrap().0);
    let single = json!({"metric": "test-accuracy", "over": ["seed", "encoder", "rate"], "columns": ["method", "init"]});
    write("single.svg", &grid().summarize(single).unwrap().0);
    let mut marked = grid_parameters();
    marked["clean-labels"] = json!(["method=mwnet"]);
    write("marked-lines.svg", &grid().summarize(marked.clone()).unwrap().0);
    marked["columns"] = json!(["method", "init"]);
    marked["rows"] = json!(["rate"]);
    write("marked-bars.svg", &grid().summarize(marked).unwrap().0);
}

/// So that a change of the output without a new version fails.
#[test]
fn the_version_changes_with_the_output() {
    use sha2::Digest as _;
    let mut test = grid();
    // Runs that are compared with the same ones.
    for seed in 0..3 {
        let point = format!("encoder=r34,init=simclr,method=ce,rate=0.9,seed={seed}");
        test.accuracy_at(&point, 0.7 + 0.01 * f64::from(seed));
    }
    // A column of two, of which one is not a number.
    for (init, value) in [("scratch", "0.5"), ("simclr", "NaN")] {
        let point = format!("init={init},method=ce,rate=0.95,seed=0");
        test.run_at(&[&point], &format!("{{\"test-accuracy\": {value}}}"));
    }
    let (files, _) = test.summarize(grid_parameters()).unwrap();
    let mut hash = sha2::Sha256::new();
    for (name, text) in &files.0 {
        hash.update(name);
        hash.update(text);
    }
    let hash: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let version = <pipeline_stages::kinds::Summarize as pipeline_stages::Kind>::VERSION;
    assert_snapshot!(format!("version {version}: {hash}"));
}
