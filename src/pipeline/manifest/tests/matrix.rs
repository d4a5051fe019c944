//! The matrix and the defaults of kinds: which instances there are, and what they are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use insta::assert_snapshot;

use super::super::Manifest;
use super::{right, shown};
use crate::digest::FieldHasher;
use crate::graph::Graph;
use crate::key::{self, InputResult, StageKey};
use crate::stage_name::StageName;

mod drawn;
mod mistakes;

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
                let digest = FieldHasher::new("test").text(&key.to_string()).finish();
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
    assert_snapshot!(shown(&commands("seed = [1, 2]", lines)), @r##"
    error: 'holdout' must be a whole number, but is text
     --> x.toml:8:11
      |
    4 | seed = [1, 2]
      |         - its value here
    ...
    8 | holdout = "1${seed}"
      |           ^^^^^^^^^^
      |
      = help: holdout: How many training samples are held out. By default 1000.

    error: 'seed' must be a whole number, but is text
     --> x.toml:9:8
      |
    4 | seed = [1, 2]
      |         - its value here
    ...
    9 | seed = "1${seed}"
      |        ^^^^^^^^^^

    error: 2 mistakes in x.toml; nothing was run
    "##);
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
