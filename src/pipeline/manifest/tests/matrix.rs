//! The matrix and the defaults of kinds: which instances there are, what they are made of, and what can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use insta::assert_snapshot;
use proptest::prelude::*;

use super::super::{Manifest, parse};
use super::{right, shown, shown_with};
use crate::digest::Encoder;
use crate::graph::Graph;
use crate::key::{self, InputResult, StageKey};
use crate::stage_name::StageName;

/// The manifest of the documentation.
pub(super) const NOISE: &str = r#"
[experiment]
name = "noise"
seed = "${seed}"

[matrix]
rate = [0.2, 0.5, 0.8, 0.9, 0.95]
seed = [220, 221, 222, 223, 224]

[matrix.method]
ce    = { loss = "cross-entropy" }
lq    = { loss = "generalized-cross-entropy", q = 0.66 }
mwnet = { loss = "cross-entropy", method = "meta-weight-net" }

[matrix.init]
scratch = {}
simclr  = { weights = "simclr" }

[[matrix.exclude]]
rate = 0.2
method = ["lq"]

[defaults.train]
architecture = "resnet18"
epochs = 120

[stages.data]
kind = "dataset"
format = "idx"
path = "d"

[stages.simclr]
kind = "pretrain-simclr"
data = "data"
architecture = "resnet18"
seed = 220

[stages.split]
kind = "split"
data = "data"
holdout = 10

[stages.noisy]
kind = "corrupt-labels"
data = "data"
split = "split"
noise = "symmetric"
rate = "${rate}"

[stages.train]
kind   = "train"
data   = "data"
split  = "split"
labels = "noisy"
init   = "${init.weights}"
with   = ["method"]
"#;

/// A matrix over these axes, with `command` stages below.
pub(super) fn commands(matrix: &str, stages: &str) -> String {
    format!("[experiment]\nname = \"x\"\n[matrix]\n{matrix}\n{stages}")
}

/// A stage `name` that runs `run`, with more lines.
pub(super) fn command(name: &str, run: &str, more: &str) -> String {
    format!("[stages.{name}]\nkind = \"command\"\nrun = [\"echo\", {run}]\n{more}\n")
}

/// How many instances each stage has.
fn counts(manifest: &Manifest) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in &manifest.stages {
        *counts.entry(stage.name.template()).or_default() += 1;
    }
    let counts = counts.iter().map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Each stage with its inputs, a line each.
pub(super) fn edges(text: &str) -> String {
    let (manifest, _) = right(text, &[]);
    let mut lines = String::new();
    for stage in &manifest.stages {
        let inputs = stage.connections().map(|(_, one)| one.from.as_str());
        let inputs = inputs.collect::<Vec<_>>().join(" ");
        writeln!(lines, "{} <- {inputs}", stage.name).expect("text grows");
    }
    lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The keys of all stages, if every artifact is made of its key.
pub(super) fn keys(text: &str) -> BTreeMap<StageName, StageKey> {
    let (manifest, graph) = right(text, &[]);
    keys_of(&manifest, &graph)
}

/// The keys of all stages of this manifest, if every artifact is made of its key.
pub(super) fn keys_of(manifest: &Manifest, graph: &Graph) -> BTreeMap<StageName, StageKey> {
    let mut keys: BTreeMap<StageName, StageKey> = BTreeMap::new();
    for name in graph.order() {
        let result = |input: &StageName| match keys.get(input) {
            None => InputResult::Unknown,
            Some(key) => {
                let digest = Encoder::new("test").text(&key.to_string()).finish();
                InputResult::Made { key: *key, digest }
            }
        };
        let stage = manifest.stage(name).expect("a stage");
        let key = StageKey::of(&key::parts(stage, &[], result));
        keys.insert(name.clone(), key);
    }
    keys
}

#[test]
fn the_names_of_points_are_enough_to_keep_some() {
    let set = ["matrix.method=[\"ce\", \"mwnet\"]", "matrix.seed=[220]"];
    let (manifest, _) = right(NOISE, &set);
    assert_eq!(counts(&manifest), "data 1, noisy 5, simclr 1, split 1, train 20");
}

#[test]
fn instances_have_the_axes_that_they_use() {
    let (manifest, graph) = right(NOISE, &[]);
    assert_eq!(counts(&manifest), "data 1, noisy 25, simclr 1, split 5, train 140");
    assert_eq!(graph.order().count(), 172);
    let find = |name: &str| {
        let name = name.parse().expect("a name");
        manifest.stage(&name).unwrap_or_else(|| panic!("no {name}"))
    };
    let train = find("train@init=simclr,method=ce,rate=0.9,seed=221");
    let inputs: Vec<_> = train.connections().map(|(port, one)| (port, one.from.as_str())).collect();
    let expected = [
        ("data", "data"),
        ("init", "simclr"),
        ("labels", "noisy@rate=0.9,seed=221"),
        ("split", "split@seed=221"),
    ];
    assert_eq!(inputs, expected);
    assert_eq!(train.seed, 221);
    assert_eq!(find("simclr").seed, 220);
    let scratch = find("train@init=scratch,method=lq,rate=0.95,seed=224");
    assert!(!scratch.inputs.contains_key("init"));
    let parameters = scratch.stage.key_parameters();
    let parameter = |name: &str| parameters.get(name).map(ToString::to_string);
    assert_eq!(parameter("q").as_deref(), Some("0.66"));
    assert_eq!(parameter("epochs").as_deref(), Some("120"));
    let excluded = "train@init=scratch,method=lq,rate=0.2,seed=220".parse().expect("a name");
    assert_eq!(manifest.stage(&excluded), None);
    // All of a stage are on its line.
    let lines: BTreeSet<_> =
        manifest.stages.iter().map(|stage| (stage.name.template(), stage.line)).collect();
    assert_eq!(lines.len(), 5);
}

#[test]
fn a_key_is_that_of_the_same_stage_written_by_hand() {
    let by_hand = r#"
        [experiment]
        name = "by-hand"
        [stages.images]
        kind = "dataset"
        format = "idx"
        path = "d"
        [stages.encoder]
        kind = "pretrain-simclr"
        data = "images"
        architecture = "resnet18"
        seed = 220
        [stages.part]
        kind = "split"
        data = "images"
        holdout = 10
        seed = 223
        [stages.labels]
        kind = "corrupt-labels"
        data = "images"
        split = "part"
        noise = "symmetric"
        rate = 0.90
        seed = 223
        [stages.fit]
        kind = "train"
        data = "images"
        split = "part"
        labels = "labels"
        init = "encoder"
        loss = "generalized-cross-entropy"
        q = 0.66
        architecture = "resnet18"
        epochs = 120
        seed = 223
    "#;
    let (expanded, by_hand) = (keys(NOISE), keys(by_hand));
    for (instance, stage) in [
        ("data", "images"),
        ("simclr", "encoder"),
        ("split@seed=223", "part"),
        ("noisy@rate=0.9,seed=223", "labels"),
        ("train@init=simclr,method=lq,rate=0.9,seed=223", "fit"),
    ] {
        let name = |text: &str| text.parse::<StageName>().expect("a name");
        assert_eq!(expanded[&name(instance)], by_hand[&name(stage)], "{instance}");
    }
    let different: BTreeSet<_> = expanded.values().collect();
    assert_eq!(different.len(), expanded.len(), "no two of them are the same");
}

#[test]
fn an_axis_of_an_input_is_only_where_the_input_is() {
    let text = commands(
        "temperature = [0.1, 0.5]\n[matrix.init]\nscratch = {}\nencoder = { from = \"pre\" }\n",
        &[
            command("pre", "\"${temperature}\"", "output = \"weights\""),
            command("fit", "\"x\"", "inputs = { init = \"${init.from}\" }"),
            command("after", "\"y\"", "inputs = { fit = \"fit\" }"),
        ]
        .concat(),
    );
    assert_snapshot!(edges(&text), @r"
    pre@temperature=0.1 <-
    pre@temperature=0.5 <-
    fit@init=scratch <-
    fit@init=encoder,temperature=0.1 <- pre@temperature=0.1
    fit@init=encoder,temperature=0.5 <- pre@temperature=0.5
    after@init=scratch <- fit@init=scratch
    after@init=encoder,temperature=0.1 <- fit@init=encoder,temperature=0.1
    after@init=encoder,temperature=0.5 <- fit@init=encoder,temperature=0.5
    ");
}

#[test]
fn a_reference_joins_on_shared_axes_and_may_pin_some() {
    let text = commands(
        "rate = [0, 0.50]\nseed = [1, 2]",
        &[
            command("first", "\"${rate} ${seed}\"", ""),
            command(
                "second",
                "\"${rate}\"",
                "inputs = { clean = \"first@rate=0.0\", own = \"first\" }",
            ),
            command("third", "\"z\"", "inputs = { clean = \"first@seed=2,rate=5e-1\" }"),
            command("last", "\"z\"", "inputs = { a = \"first@rate=${rate},seed=1\" }"),
        ]
        .concat(),
    );
    assert_snapshot!(edges(&text), @r"
    first@rate=0,seed=1 <-
    first@rate=0,seed=2 <-
    first@rate=0.5,seed=1 <-
    first@rate=0.5,seed=2 <-
    second@rate=0,seed=1 <- first@rate=0,seed=1 first@rate=0,seed=1
    second@rate=0,seed=2 <- first@rate=0,seed=2 first@rate=0,seed=2
    second@rate=0.5,seed=1 <- first@rate=0,seed=1 first@rate=0.5,seed=1
    second@rate=0.5,seed=2 <- first@rate=0,seed=2 first@rate=0.5,seed=2
    third <- first@rate=0.5,seed=2
    last@rate=0 <- first@rate=0,seed=1
    last@rate=0.5 <- first@rate=0.5,seed=1
    ");
}

#[test]
fn a_stage_may_read_another_instance_of_itself() {
    let text = commands(
        "[matrix.step]\nfirst = {}\nsecond = { from = \"fit@step=first\" }\n",
        &command("fit", "\"x\"", "inputs = { init = \"${step.from}\" }"),
    );
    assert_snapshot!(edges(&text), @r"
    fit@step=first <-
    fit@step=second <- fit@step=first
    ");
}

#[test]
fn values_keep_their_types_and_are_formatted_within_texts() {
    let text = commands(
        "x = [0x10, 2.50, true, \"a.b\"]\n[matrix.m]\nlong = { run = [\"a\", \"b\"], n = 1e-7, t = \"q\" }\n",
        r#"
        [stages.a]
        kind = "command"
        run = ["echo", "${x}${x}", "$${{x}}", "$x {output}", "${m}: ${m.n} ${m.t}"]
        environment = { X = "x=${x}", PLAIN = "$$${x}" }
        [stages.b]
        kind = "command"
        run = "${m.run}"
        [stages.c]
        kind = "command"
        shell = 'echo ${x} $${x}'
        [stages.d]
        kind = "split"
        data = "e"
        holdout = "${x}"
        [stages.e]
        kind = "dataset"
        format = "idx"
        path = "d"
    "#,
    );
    let (manifest, _) = right(&text.replace(", 2.50, true, \"a.b\"", ""), &[]);
    let parameters = |name: &str| {
        let name = name.parse().expect("a name");
        let stage = manifest.stage(&name).unwrap_or_else(|| panic!("no {name}"));
        let wanted = ["run", "shell", "environment", "holdout"];
        let parameters = stage.stage.key_parameters().into_iter();
        let parameters = parameters.filter(|(name, _)| wanted.contains(&name.as_str()));
        serde_json::Value::Object(parameters.collect()).to_string()
    };
    assert_snapshot!(parameters("a@m=long,x=16"), @r#"{"environment":{"PLAIN":"$${x}","X":"x=16"},"run":["echo","1616","${{x}}","$x {output}","long: 1e-7 q"],"shell":null}"#);
    assert_snapshot!(parameters("b@m=long"), @r#"{"environment":{},"run":["a","b"],"shell":null}"#);
    assert_snapshot!(parameters("c"), @r#"{"environment":{},"run":null,"shell":"echo ${x} $${x}"}"#);
    assert_snapshot!(parameters("d@x=16"), @r#"{"holdout":16}"#);
    // Of the others, only the first is the number that `holdout` needs.
    let text = text.replace("holdout = \"${x}\"", "holdout = 3");
    let names: Vec<_> = right(&text, &[]).0.stages.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(
        names[..4],
        ["a@m=long,x=16", "a@m=long,x=2.5", "a@m=long,x=true", "a@m=long,x=a.b"]
    );
}

#[test]
fn without_a_matrix_nothing_is_replaced() {
    let text = "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nrun = [\"${{x}}\", \"$${{y}}\"]\n";
    let (manifest, _) = right(text, &[]);
    let run = manifest.stages[0].stage.key_parameters()["run"].to_string();
    assert_eq!(run, r#"["${{x}}","$${{y}}"]"#);
}

#[test]
fn a_kind_may_depend_on_the_point() {
    let text = r#"
        [experiment]
        name = "x"
        [matrix]
        rate = [1, 2]
        seed = [3, 4]
        [matrix.encoder]
        simclr = { kind = "pretrain-simclr" }
        labels = { kind = "pretrain-supervised", seed = 3 }
        [defaults.pretrain-supervised]
        batch-size = "${rate}"
        normalise = "none"
        [stages.data]
        kind = "dataset"
        format = "idx"
        path = "d"
        [stages.encoder]
        kind = "${encoder.kind}"
        data = "data"
        seed = "${encoder.seed}"
        architecture = "resnet8"
        [stages.train]
        kind = "train"
        data = "data"
        architecture = "resnet8"
        init = "encoder"
        seed = "${seed}"
    "#;
    assert_snapshot!(edges(text), @r"
    data <-
    encoder@encoder=simclr <- data
    encoder@encoder=labels,rate=1 <- data
    encoder@encoder=labels,rate=2 <- data
    train@encoder=simclr,seed=3 <- data encoder@encoder=simclr
    train@encoder=simclr,seed=4 <- data encoder@encoder=simclr
    train@encoder=labels,rate=1,seed=3 <- data encoder@encoder=labels,rate=1
    train@encoder=labels,rate=1,seed=4 <- data encoder@encoder=labels,rate=1
    train@encoder=labels,rate=2,seed=3 <- data encoder@encoder=labels,rate=2
    train@encoder=labels,rate=2,seed=4 <- data encoder@encoder=labels,rate=2
    ");
    // A seed that is left out is that of the experiment.
    let text = text.replacen("name = \"x\"", "name = \"x\"\nseed = \"${seed}\"", 1);
    let (manifest, _) = right(&text, &[]);
    let encoders = manifest.stages.iter().filter(|stage| stage.name.template() == "encoder");
    let seeds: Vec<_> = encoders.map(|stage| format!("{} {}", stage.name, stage.seed)).collect();
    assert_snapshot!(seeds.join("\n"), @r"
    encoder@encoder=simclr,seed=3 3
    encoder@encoder=simclr,seed=4 4
    encoder@encoder=labels,rate=1 3
    encoder@encoder=labels,rate=2 3
    ");
}

#[test]
fn execution_adds_no_axis() {
    let text = commands(
        "gpu = [0, 1]\nx = [1, 2]",
        &command("a", "\"${x}\"", "execution = { device = \"cuda:${gpu}\" }"),
    );
    assert_snapshot!(edges(&text), @r"
    a@x=1 <-
    a@x=2 <-
    ");
}

#[test]
fn the_matrix_can_be_changed_for_one_run() {
    let (manifest, _) = right(NOISE, &["matrix.seed=[7]", "stages.data.path=e"]);
    assert_eq!(counts(&manifest), "data 1, noisy 5, simclr 1, split 1, train 28");
    // An exclude may be about values that are not there now.
    let (manifest, _) = right(NOISE, &["matrix.seed=[7]", "matrix.rate=[0.9]"]);
    assert_eq!(counts(&manifest), "data 1, noisy 1, simclr 1, split 1, train 6");
    let (manifest, _) = right(NOISE, &["matrix.seed=[7]", "matrix.rate=[0.20]"]);
    assert_eq!(counts(&manifest), "data 1, noisy 1, simclr 1, split 1, train 4");
}

#[test]
fn defaults_are_for_the_stages_of_a_kind_that_do_not_set_them() {
    let text = r#"
        [experiment]
        name = "x"
        [defaults.train]
        data = "data"
        epochs = 7
        q = 0.5
        seed = 3
        execution = { threads = 1 }
        [defaults.evaluate]
        data = "nothing of this kind exists"
        [stages.data]
        kind = "dataset"
        format = "idx"
        path = "d"
        [stages.own]
        kind = "train"
        epochs = 9
        [stages.lq]
        kind = "train"
        loss = "generalized-cross-entropy"
    "#;
    let by_hand = r#"
        [experiment]
        name = "x"
        [stages.data]
        kind = "dataset"
        format = "idx"
        path = "d"
        [stages.own]
        kind = "train"
        data = "data"
        epochs = 9
        seed = 3
        [stages.lq]
        kind = "train"
        data = "data"
        epochs = 7
        loss = "generalized-cross-entropy"
        q = 0.5
        seed = 3
    "#;
    assert_eq!(keys(text), keys(by_hand));
    let (manifest, _) = right(text, &[]);
    assert_eq!(manifest.stages[1].execution.execution.threads, Some(1));
    let matrix =
        format!("{text}\n[matrix]\nx = [1]\n[stages.z]\nkind = \"train\"\nepochs = \"${{x}}\"");
    let with_matrix = keys(&matrix);
    for (name, key) in keys(by_hand) {
        assert_eq!(with_matrix[&name], key, "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_matrix() {
    for (what, title) in [
        ("rate = 3", "the axis 'rate' is a list of values, but this is a whole number"),
        ("rate = []", "the axis 'rate' needs at least one value"),
        ("rate = {}", "the axis 'rate' needs at least one value"),
        ("rate = [1, 1.0]", "'1' is listed twice"),
        ("rate = [\"1\", 1]", "'1' is listed twice"),
        (
            "rate = [\"a b\"]",
            "this cannot be a value of 'rate': a value has only letters (a-z, A-Z), digits, '_', '.', '+' and '-'",
        ),
        ("rate = [\"\"]", "this cannot be a value of 'rate': a value cannot be empty"),
        ("rate = [[1]]", "a value of 'rate' is a number, true, false or text, but this is a list"),
        (
            "rate = { \"a b\" = {} }",
            "\"a b\" cannot be the name of a point: a value has only letters (a-z, A-Z), digits, '_', '.', '+' and '-'",
        ),
        ("rate = { a = 1 }", "a named point is a table, but 'a' is a whole number"),
        (
            "rate = { lq-0.5 = {} }",
            "the dot makes this a field of the point 'lq-0'; in quotes, it is a part of the name",
        ),
        (
            "\"a.b\" = [1]",
            "\"a.b\" cannot be the name of an axis: a name has only letters (a-z, A-Z), digits, '_' and '-'",
        ),
        ("", "the matrix does not have axes"),
        ("rate = [1]\nexclude = 3", "'exclude' is a list of tables, but this is a whole number"),
        ("rate = [1]\nexclude = [{}]", "this excludes every point"),
        ("rate = [1]\nexclude = [3]", "an exclude is a table, but this is a whole number"),
        ("rate = [1]\nexclude = [{ rat = 1 }]", "there is no axis 'rat', did you mean 'rate'?"),
        (
            "rate = [1]\nexclude = [{ rate = [1, 2] }]",
            "the axis 'rate' does not have the value '2'",
        ),
        (
            "rate = [1]\nexclude = [{ rate = {} }]",
            "'rate' takes a value or a list of them, but this is a table",
        ),
        (
            "rate = [1]\nexclude = [{ rate = [] }]",
            "this list is empty, so the exclude leaves nothing out",
        ),
        ("rate = [1]\nexclude = [{ rate = 1.0 }]", "all points of the matrix are excluded"),
    ] {
        let text = commands(what, &command("a", "\"${rate}\"", ""));
        let shown = shown(&text);
        let titles: Vec<_> =
            shown.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        assert_eq!(titles, [title, "1 mistake in x.toml; nothing was run"], "{what}");
    }
    for (what, help) in [
        ("rate = 3", "write [3]"),
        ("rate = \"a\"", "write [\"a\"]"),
        ("rate = \"1, a,1e-3\"", "write [1, \"a\", 1e-3]"),
        ("rate = { lq-0.5 = { q = 0.5 } }", "write \"lq-0.5\""),
        ("rate.lq-0.5.q = 0.5", "write \"lq-0.5\""),
    ] {
        let shown = shown(&commands(what, &command("a", "\"${rate}\"", "")));
        assert!(shown.contains(&format!("= help: {help}\n")), "{what}: {shown}");
    }
    // Only what would be accepted is suggested.
    for value in [
        "\"a b\"",
        "\"it's\"",
        "\"[1\"",
        "\"=1\"",
        "\"1,1\"",
        "\"a,b c\"",
        "\",\"",
        "nan",
        "-inf",
        "1e400",
        "2020-01-01",
    ] {
        let shown = shown(&commands(&format!("rate = {value}"), &command("a", "\"${rate}\"", "")));
        assert!(shown.contains("is a list of values, but this is"), "{value}: {shown}");
        assert!(!shown.contains("= help"), "{value}: {shown}");
    }
    let many: Vec<_> = (0..101).map(|number| number.to_string()).collect();
    let many = many.join(", ");
    let axes = format!("a = [{many}]\nb = [{many}]\nc = [{many}]");
    let text = commands(&axes, &command("s", "\"${a} ${b} ${c}\"", ""));
    assert!(shown(&text).starts_with("error: the matrix has more than 1,000,000 points"));
}

#[test]
fn what_is_wrong_with_a_template() {
    let matrix =
        "rate = [1, 2]\n[matrix.m]\nce = { loss = 1 }\nlq = { loss = 2, q = 3, l = [1] }\n";
    let text = commands(
        matrix,
        &[
            command(
                "a",
                "\"${rat}\", \"${m.los}\", \"${rate.x}\", \"${rate\", \"${m.loss}${rate}\"",
                "",
            ),
            command("b", "\"q ${m.q}\", \"l ${m.l}\"", ""),
            command("c", "\"c\"", "with = [\"rate\", \"n\", \"m\"]"),
        ]
        .concat(),
    );
    assert_snapshot!(shown(&text), @r#"
    error: unknown key 'loss'
     --> x.toml:6:8
      |
    6 | ce = { loss = 1 }
      |        ^^^^
      |
      = help: 'command' has the port inputs, and the parameters run, shell, environment, files, ignore, outputs, output, pass-environment, sandbox, sandbox-read, sandbox-write
      = help: at m=ce

    error: unknown key 'loss'
     --> x.toml:7:8
      |
    7 | lq = { loss = 2, q = 3, l = [1] }
      |        ^^^^
      |
      = help: 'command' has the port inputs, and the parameters run, shell, environment, files, ignore, outputs, output, pass-environment, sandbox, sandbox-read, sandbox-write
      = help: at m=lq

    error: unknown key 'q'
     --> x.toml:7:18
      |
    7 | lq = { loss = 2, q = 3, l = [1] }
      |                  ^
      |
      = help: 'command' has the port inputs, and the parameters run, shell, environment, files, ignore, outputs, output, pass-environment, sandbox, sandbox-read, sandbox-write
      = help: at m=lq

    error: unknown key 'l'
     --> x.toml:7:25
      |
    7 | lq = { loss = 2, q = 3, l = [1] }
      |                         ^
      |
      = help: 'command' has the port inputs, and the parameters run, shell, environment, files, ignore, outputs, output, pass-environment, sandbox, sandbox-read, sandbox-write
      = help: at m=lq

    error: there is no axis 'rat', did you mean 'rate'?
      --> x.toml:11:16
       |
    11 | run = ["echo", "${rat}", "${m.los}", "${rate.x}", "${rate", "${m.loss}${rate}"]
       |                ^^^^^^^^
       |
       = help: a '${' that is meant as it is, is written '$${' (in 'run', '$${{' and '}}')

    error: no point of 'm' has the field 'los', did you mean 'loss'?
      --> x.toml:11:26
       |
    11 | run = ["echo", "${rat}", "${m.los}", "${rate.x}", "${rate", "${m.loss}${rate}"]
       |                          ^^^^^^^^^^

    error: 'rate' is a list of values, which do not have fields
      --> x.toml:11:38
       |
    11 | run = ["echo", "${rat}", "${m.los}", "${rate.x}", "${rate", "${m.loss}${rate}"]
       |                                      ^^^^^^^^^^^
       |
       = help: write ${rate}

    error: a '${' is not closed
      --> x.toml:11:51
       |
    11 | run = ["echo", "${rat}", "${m.los}", "${rate.x}", "${rate", "${m.loss}${rate}"]
       |                                                   ^^^^^^^^
       |
       = help: write ${AXIS} or ${AXIS.FIELD}
       = help: a '${' that is meant as it is, is written '$${' (in 'run', '$${{' and '}}')

    error: there is no 'm.q' at m=ce
      --> x.toml:15:16
       |
    15 | run = ["echo", "q ${m.q}", "l ${m.l}"]
       |                ^^^^^^^^^^
       |
       = help: give this point the field too: only a value that is nothing but ${AXIS.FIELD} is left out
       = help: at m=ce

    error: there is no 'm.l' at m=ce
      --> x.toml:15:28
       |
    15 | run = ["echo", "q ${m.q}", "l ${m.l}"]
       |                            ^^^^^^^^^^
       |
       = help: give this point the field too: only a value that is nothing but ${AXIS.FIELD} is left out
       = help: at m=ce, and at 1 other point

    error: 'rate' is a list of values, which do not have fields
      --> x.toml:20:9
       |
    20 | with = ["rate", "n", "m"]
       |         ^^^^^^
       |
       = help: write KEY = "${rate}"

    error: there is no axis 'n'
      --> x.toml:20:17
       |
    20 | with = ["rate", "n", "m"]
       |                 ^^^
       |
       = help: the axes are m and rate

    error: 12 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn what_no_stage_uses() {
    let text = commands(
        "rate = [1, 2]\n[matrix.m]\nce = { loss = 1 }\nlq = { loss = 2, q = 3 }\n",
        &command("a", "\"${m.loss}\"", ""),
    );
    assert_snapshot!(shown(&text), @r#"
    error: no stage uses the field 'q' of 'm'
     --> x.toml:7:18
      |
    7 | lq = { loss = 2, q = 3 }
      |                  ^
      |
      = help: write "${m.q}" in a value of a stage, or with = ["m"] for all fields

    error: 1 mistake in x.toml; nothing was run
    "#);
}

#[test]
fn what_the_command_line_replaces_may_have_been_the_only_use() {
    let text = commands("[matrix.m]\np = { s = \"x\" }\n", &command("d", "\"${m.s}\"", ""));
    let text = format!("{text}{}", command("a", "\"${m}\"", ""));
    right(&text, &["stages.d.run=[\"echo\"]"]);
    assert!(shown(&text.replace("${m.s}", "x")).contains("no stage uses the field 's' of 'm'"));
    // A default, too.
    let text = commands("[matrix.m]\np = { s = \"x\" }\n", &command("d", "\"d\"", ""));
    let text = format!("{text}[defaults.command.environment]\nS = \"${{m.s}}\"\n");
    right(&text, &[]);
    right(&text, &["stages.d.environment={}"]);
    // `with`, too.
    let with = "with = [\"m\"]\n";
    let text =
        commands("[matrix.m]\np = { pass-environment = [\"X\"] }\n", &command("d", "\"d\"", with));
    right(&text, &["stages.d.with=[]"]);
    // Another value is not a use, nor is a misspelt field on the command line.
    let text = commands(
        "[matrix.m]\na = { rate = \"1\" }\nb = { rat = \"2\" }\n",
        &command("d", "\"${m.rate}\"", "environment = { E = \"1\" }"),
    );
    let unused =
        |text: &str, set: &str| shown_with(text, &[set]).contains("no stage uses the field 'rat'");
    assert!(unused(&text, "stages.d.environment.E=\"2\""));
    assert!(unused(&text.replace("rat =", "rate ="), "matrix.m.c={rat=\"3\"}"));
}

#[test]
fn keys_are_not_replaced() {
    let environment = "environment = { \"${m}\" = \"${m}\" }";
    assert_snapshot!(shown(&commands("m = [1, 2]", &command("a", "\"a\"", environment))), @r#"
    error: '${' in a key is not replaced, only in a value
     --> x.toml:8:17
      |
    8 | environment = { "${m}" = "${m}" }
      |                 ^^^^^^

    error: 1 mistake in x.toml; nothing was run
    "#);
}

#[test]
fn a_text_with_an_axis_keeps_its_quotes() {
    let lines = "[stages.s]\nkind = \"split\"\ndata = \"d\"\nholdout = \"1${seed}\"\nseed = \"1${seed}\"\n[stages.d]\nkind = \"dataset\"\nformat = \"idx\"\npath = \"d\"\n";
    assert_snapshot!(shown(&commands("seed = [1, 2]", lines)), @r#"
    error: 'holdout' must be a whole number, but is text
     --> x.toml:8:11
      |
    8 | holdout = "1${seed}"
      |           ^^^^^^^^^^
      |
      = help: holdout: How many training samples are held out. By default 1000.

    error: 'seed' must be a whole number, but is text
     --> x.toml:9:8
      |
    9 | seed = "1${seed}"
      |        ^^^^^^^^^^

    error: 2 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn what_is_wrong_with_a_reference() {
    let text = commands(
        "rate = [1, 2]\nseed = [3, 4]\n[[matrix.exclude]]\nrate = 1\nseed = 3\n",
        &[
            command("a", "\"${rate} ${seed}\"", ""),
            command(
                "b",
                "\"b\"",
                "[stages.b.inputs]\nn = \"ab\"\nx = \"a@rate=*,rate=1\"\ny = \"a@rate\"\nz = \"a@rat=1\"\nv = \"a@rate=7\"\nw = \"a@rate=1\"\nu = \"c@rate=1\"",
            ),
            command("c", "\"c\"", ""),
        ]
        .concat(),
    );
    assert_snapshot!(shown(&text), @r#"
    error: there is no stage 'ab', did you mean 'a'?
      --> x.toml:18:5
       |
    18 | n = "ab"
       |     ^^^^

    error: 'a@rate=*,rate=1' is not the name of an instance
      --> x.toml:19:5
       |
    19 | x = "a@rate=*,rate=1"
       |     ^^^^^^^^^^^^^^^^^
       |
       = help: write STAGE@AXIS=VALUE, with commas between several

    error: 'a@rate' is not the name of an instance
      --> x.toml:20:5
       |
    20 | y = "a@rate"
       |     ^^^^^^^^
       |
       = help: write STAGE@AXIS=VALUE, with commas between several

    error: there is no axis 'rat', did you mean 'rate'?
      --> x.toml:21:5
       |
    21 | z = "a@rat=1"
       |     ^^^^^^^^^

    error: the axis 'rate' does not have the value '7'
      --> x.toml:22:5
       |
    22 | v = "a@rate=7"
       |     ^^^^^^^^^^
       |
       = help: its values are 1 and 2

    error: 'a' does not exist at rate=1,seed=3
      --> x.toml:23:5
       |
    23 | w = "a@rate=1"
       |     ^^^^^^^^^^
       |
       = help: the matrix excludes this point

    error: 'c' does not depend on 'rate'
      --> x.toml:24:5
       |
    24 | u = "c@rate=1"
       |     ^^^^^^^^^^
       |
       = help: write "c"

    error: 7 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn a_mistake_is_shown_once_with_its_point() {
    assert_snapshot!(shown_with(NOISE, &["matrix.rate=[0.5,2,3]", "stages.train.epoch=3"]), @r#"
    error: 'rate' must be at least 0 and at most 1, but is 2
      --> x.toml:48:8
       |
    48 | rate = "${rate}"
       |        ^^^^^^^^^
       |
       = help: rate: The noise rate. It must be given.
       = help: at rate=2,seed=220, and at 9 other points

    error: unknown key 'epoch', did you mean 'epochs'?
     |
     | --set stages.train.epoch=3
     |                    ^^^^^
     |
     = help: epochs: Passes over the training samples. By default 120.

    error: 2 mistakes in x.toml; nothing was run
    "#);
    let text = NOISE.replace("labels = \"noisy\"", "labels = \"simclr\"");
    assert_snapshot!(shown(&text), @r#"
    error: 'simclr' produces weights, but 'labels' takes labels
      --> x.toml:54:10
       |
    54 | labels = "simclr"
       |          ^^^^^^^^
       |
       = help: stages that fit: noisy
       = help: The labels to train on. Without it: the data set's own.

    error: 1 mistake in x.toml; nothing was run
    "#);
    assert_snapshot!(shown(&NOISE.replace("split  = \"split\"\n", "loss = \"mae\"\n")), @r#"
    error: Meta-Weight-Net learns from clean samples that are held out: connect 'split', or set meta-samples = "training" and meta-loss = "mae"
      --> x.toml:13:44
       |
    13 | mwnet = { loss = "cross-entropy", method = "meta-weight-net" }
       |                                            ^^^^^^^^^^^^^^^^^
       |
       = help: method: How the classifier is trained. By default "finetune".
       = help: at init=scratch,method=mwnet,rate=0.2,seed=220, and at 49 other points

    error: 'loss' is set here and by 'with'
      --> x.toml:53:1
       |
    11 | ce    = { loss = "cross-entropy" }
       |           ---- a field of 'method'
    ...
    53 | loss = "mae"
       | ^^^^
       |
       = help: drop one of them

    error: 2 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn cycles_between_stages_and_too_long_names() {
    let text = commands(
        "x = [1, 2]",
        &[
            command("a", "\"${x}\"", "inputs = { b = \"b\" }"),
            command("b", "\"b\"", "inputs = { a = \"a\" }"),
        ]
        .concat(),
    );
    assert_snapshot!(shown(&text), @r#"
    error: cycle: b -> a -> b
      --> x.toml:12:16
       |
    12 | inputs = { a = "a" }
       |                ^^^
       |
       = help: connect one of these ports to another stage, or drop it
       = help: at x=1

    error: 1 mistake in x.toml; nothing was run
    "#);
    let text = commands("x = [1, 2]", &command("a", "\"${x}\"", "inputs = { b = \"a\" }"));
    assert_snapshot!(shown(&text), @r#"
    error: stage 'a' cannot be its own input
     --> x.toml:8:16
      |
    8 | inputs = { b = "a" }
      |                ^^^
      |
      = help: connect one of these ports to another stage, or drop it
      = help: at x=1

    error: 1 mistake in x.toml; nothing was run
    "#);
    let long = "v".repeat(200);
    let text = commands(&format!("x = [\"{long}\", \"w{long}\"]"), &command("a", "\"${x}\"", ""));
    assert!(shown(&text).starts_with("error: the name of an instance has at most 200 bytes\n"));
}

#[test]
fn what_is_wrong_with_defaults() {
    let head = "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nrun = [\"a\"]\n";
    for (what, title) in [
        ("[defaults.trian]", "unknown kind 'trian', did you mean 'train'?"),
        ("[defaults]\ntrain = 3", "'defaults.train' must be a table, but is a whole number"),
        (
            "[defaults.train]\nepoch = 3",
            "unknown key 'epoch' in 'defaults.train', did you mean 'epochs'?",
        ),
        ("[defaults.train]\nkind = \"x\"", "unknown key 'kind' in 'defaults.train'"),
        ("[defaults.command]\nrun = 3", ""),
        (
            "[defaults.command]\noutput = 3",
            "'output' must be one of file, directory, dataset, split, labels, weights, model and metrics, but is a whole number",
        ),
    ] {
        match parse(Path::new("x.toml"), &format!("{head}{what}\n"), &[]) {
            Ok(_) => assert_eq!(title, "", "{what}"),
            Err(mistakes) => assert_eq!(mistakes.list()[0].title(), title, "{what}"),
        }
    }
}

/// A matrix and its stages, drawn.
#[derive(Debug, Clone)]
struct Drawn {
    /// How many values each axis has.
    axes: Vec<usize>,
    /// Excluded pairs of values: axis, value, axis, value.
    excluded: Vec<(usize, usize, usize, usize)>,
    /// Per stage: the axes that it uses, and the earlier stages that it reads.
    stages: Vec<(BTreeSet<usize>, BTreeSet<usize>)>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let stages = prop::collection::vec(
        (
            prop::collection::btree_set(0_usize..3, 0..3),
            prop::collection::btree_set(0_usize..6, 0..3),
        ),
        1..6,
    );
    let excluded = prop::collection::vec((0_usize..3, 0_usize..3, 0_usize..3, 0_usize..3), 0..3);
    (prop::collection::vec(1_usize..4, 3), excluded, stages).prop_map(|(axes, excluded, stages)| {
        let excluded = excluded.into_iter();
        let excluded = excluded.filter(|(a, x, b, y)| a != b && *x < axes[*a] && *y < axes[*b]);
        let excluded = excluded.collect();
        let stages = stages.into_iter().enumerate();
        let stages = stages.map(|(place, (used, inputs))| {
            (used, inputs.into_iter().filter(|input| *input < place).collect())
        });
        let stages = stages.collect();
        Drawn { axes, excluded, stages }
    })
}

impl Drawn {
    fn text(&self) -> String {
        let mut text = "[experiment]\nname = \"x\"\n[matrix]\n".to_owned();
        for (axis, count) in self.axes.iter().enumerate() {
            let values: Vec<_> = (0..*count).map(|value| value.to_string()).collect();
            text.push_str(&format!("x{axis} = [{}]\n", values.join(", ")));
        }
        for (a, x, b, y) in &self.excluded {
            text.push_str(&format!("[[matrix.exclude]]\nx{a} = {x}\nx{b} = [{y}]\n"));
        }
        // It uses every axis.
        text.push_str(&command("all", "\"${x0} ${x1} ${x2}\"", ""));
        for (place, (used, inputs)) in self.stages.iter().enumerate() {
            let run: Vec<_> = used.iter().map(|axis| format!("${{x{axis}}}")).collect();
            let inputs: Vec<_> =
                inputs.iter().map(|input| format!("i{input} = \"s{input}\"")).collect();
            let more = format!("inputs = {{ {} }}", inputs.join(", "));
            text.push_str(&command(&format!("s{place}"), &format!("\"{}\"", run.join(" ")), &more));
        }
        text
    }

    fn points(&self) -> Vec<[usize; 3]> {
        let mut points = Vec::new();
        for a in 0..self.axes[0] {
            for b in 0..self.axes[1] {
                for c in 0..self.axes[2] {
                    let point = [a, b, c];
                    let is_excluded =
                        self.excluded.iter().any(|&(a, x, b, y)| point[a] == x && point[b] == y);
                    if !is_excluded {
                        points.push(point);
                    }
                }
            }
        }
        points
    }

    /// The axes of a stage, itself or through its inputs.
    fn axes_of(&self, place: usize) -> BTreeSet<usize> {
        let (used, inputs) = &self.stages[place];
        let mut all = used.clone();
        inputs.iter().for_each(|&input| all.extend(self.axes_of(input)));
        all
    }

    fn name_at(&self, place: usize, point: [usize; 3]) -> String {
        let axes = self.axes_of(place);
        let parts: Vec<_> = axes.iter().map(|&axis| format!("x{axis}={}", point[axis])).collect();
        match parts.is_empty() {
            true => format!("s{place}"),
            false => format!("s{place}@{}", parts.join(",")),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// The instances are the points that are left, projected on the axes of the stage, and read what is at the same point.
    #[test]
    fn instances_are_the_projections_of_the_points(drawn in drawn()) {
        let text = drawn.text();
        let points = drawn.points();
        let Ok((manifest, _)) = parse(Path::new("x.toml"), &text, &[]) else {
            prop_assert!(points.is_empty(), "{text}");
            return Ok(());
        };
        let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for &point in &points {
            expected.insert(format!("all@x0={},x1={},x2={}", point[0], point[1], point[2]), BTreeSet::new());
            for (place, (_, inputs)) in drawn.stages.iter().enumerate() {
                let inputs = inputs.iter().map(|&input| drawn.name_at(input, point)).collect();
                expected.insert(drawn.name_at(place, point), inputs);
            }
        }
        let found: BTreeMap<String, BTreeSet<String>> = manifest.stages.iter().map(|stage| {
            let inputs = stage.connections().map(|(_, one)| one.from.to_string()).collect();
            (stage.name.to_string(), inputs)
        }).collect();
        prop_assert_eq!(manifest.stages.len(), expected.len());
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn many_instances_are_read() {
    let values: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    let values = values.join(", ");
    let text = commands(
        &format!("a = [{values}]\nb = [{values}]"),
        &[command("one", "\"${a}\"", ""), command("two", "\"${b}\"", "inputs = { one = \"one\" }")]
            .concat(),
    );
    let (manifest, _) = right(&text, &[]);
    assert_eq!(counts(&manifest), "one 100, two 10000");
}

#[test]
fn what_would_silently_be_something_else_is_a_mistake() {
    let title = |text: &str| {
        let all = parse(Path::new("x.toml"), text, &[]).expect_err("a mistake");
        all.list().iter().map(|one| one.title().to_owned()).collect::<Vec<_>>().join("; ")
    };
    let stage = command("a", "\"${m}\"", "");
    let with = "[stages.a]\nwith = [\"m\"]\n";
    let kind = "[matrix.m]\np = { kind = \"command\", run = [\"true\"] }";
    assert_snapshot!(title(&commands(kind, with)), @r#"stage 'a' does not have a kind; 'kind' is a field of 'm', and cannot come by 'with'"#);
    assert_snapshot!(title(&commands("m = [2020-01-01]", &stage)), @r#"this cannot be a value of 'm': it is a date or time"#);
    assert_snapshot!(title(&commands("m = [inf, 1]", &stage)), @r#"this cannot be a value of 'm': it is not finite"#);
    let field = "r = [1]\n[matrix.m]\np = { arg = \"${r}\" }";
    let used = command("a", "\"${m.arg}${r}\"", "");
    assert_snapshot!(title(&commands(field, &used)), @r#"'${' in a field of a point is not replaced"#);
    let twice = format!("{stage}{}", command("b", "\"x\"", "inputs = { a = \"a@m=1,m=2\" }"));
    assert_snapshot!(title(&commands("m = [1, 2]", &twice)), @r#"'a@m=1,m=2' is not the name of an instance"#);
}

#[test]
fn an_axis_that_no_stage_uses_is_known() {
    let unused = |matrix: &str, stages: &str| {
        let (manifest, _) = right(&commands(matrix, stages), &[]);
        manifest.unused_axes.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    };
    let shell = "[stages.a]\nkind = \"command\"\nshell = \"echo ${rate}\"\n";
    assert_eq!(unused("rate = [1, 2]\nseed = [1]", shell), "rate seed");
    assert_eq!(unused("rate = [1, 2]", &command("a", "\"${rate}\"", "")), "");
    let execution = command("a", "\"x\"", "execution = { threads = \"${rate}\" }");
    assert_eq!(unused("rate = [1, 2]", &execution), "");
}
