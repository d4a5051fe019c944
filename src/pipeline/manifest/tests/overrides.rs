//! What `--set` does, and what is shown about it.

use insta::assert_snapshot;

use super::shown_of_set;

#[test]
fn wrong_values() {
    assert_snapshot!(shown_of_set(&["stages.train.epochs=0", "stages.train.loss=ma", "stages.train.warmup = fast"]), @r#"
    error: 'epochs' must be at least 1, but is 0
     |
     | --set stages.train.epochs=0
     |                           ^
     |
     = help: epochs: Passes over the training samples. By default 120.

    error: 'ma' is not a value of 'loss', did you mean 'mae'?
     |
     | --set stages.train.loss=ma
     |                         ^^
     |
     = help: mae: The mean absolute error to the one-hot label: 2 (1 - p_y).
     = help: 'loss' is one of cross-entropy, generalized-cross-entropy, mae, symmetric-cross-entropy, nce-rce, label-smoothing, soft-bootstrapping, hard-bootstrapping and jensen-shannon

    error: 'warmup' must be a number, but is text
     |
     | --set stages.train.warmup = fast
     |                             ^^^^
     |
     = help: warmup: The share of the steps in which the learning rate rises linearly. By default 0.01.

    error: 3 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn unknown_keys() {
    assert_snapshot!(shown_of_set(&["stages.train.epoch=3", "experiment.foo=3", "executoin.device=cpu"]), @r##"
    error: unknown key 'epoch', did you mean 'epochs'?
     |
     | --set stages.train.epoch=3
     |                    ^^^^^
     |
     = help: epochs: Passes over the training samples. By default 120.

    error: unknown key 'foo' in 'experiment'
     |
     | --set experiment.foo=3
     |                  ^^^
     |
     = help: 'experiment' has name, about and seed

    error: unknown table 'executoin', did you mean 'execution'?
     |
     | --set executoin.device=cpu
     |       ^^^^^^^^^

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn unknown_stage() {
    assert_snapshot!(shown_of_set(&["stages.trian.epochs=3", "stages.xyzzy.epochs=3"]), @r##"
    error: there is no stage 'trian', did you mean 'train'?
     |
     | --set stages.trian.epochs=3
     |              ^^^^^

    error: there is no stage 'xyzzy'
     |
     | --set stages.xyzzy.epochs=3
     |              ^^^^^
     |
     = help: the stages are data, make and train

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn too_short() {
    assert_snapshot!(shown_of_set(&["seed=3", "stages.train=3", "stages=3"]), @r##"
    error: --set needs the path to one value
     |
     | --set seed=3
     |       ^^^^
     |
     = help: set stages.NAME.KEY=VALUE, defaults.KIND.KEY=VALUE, matrix.AXIS=[VALUES], experiment.KEY=VALUE, execution.KEY=VALUE, tracking.KEY=VALUE or lint.allow=[NAMES]

    error: --set changes one value, not the whole stage 'train'
     |
     | --set stages.train=3
     |              ^^^^^
     |
     = help: set stages.NAME.KEY=VALUE, defaults.KIND.KEY=VALUE, matrix.AXIS=[VALUES], experiment.KEY=VALUE, execution.KEY=VALUE, tracking.KEY=VALUE or lint.allow=[NAMES]

    error: --set needs the path to one value
     |
     | --set stages=3
     |       ^^^^^^
     |
     = help: set stages.NAME.KEY=VALUE, defaults.KIND.KEY=VALUE, matrix.AXIS=[VALUES], experiment.KEY=VALUE, execution.KEY=VALUE, tracking.KEY=VALUE or lint.allow=[NAMES]

    error: 3 mistakes in x.toml; nothing was run
    "##);
    let swept = |text: &str| {
        let sweep = crate::manifest::Override::sweep(text).expect("a sweep");
        super::super::parse(
            std::path::Path::new("x.toml"),
            "[experiment]\nname = \"x\"\n[stages.train]\nkind = \"command\"\nshell = \"true\"\n",
            &[sweep],
        )
        .expect_err("a mistake")
        .to_string()
    };
    for (text, title) in [
        ("seed=1,2", "--sweep needs the path to one value"),
        ("stages.train=1,2", "--sweep changes one value, not the whole stage 'train'"),
    ] {
        let shown = swept(text);
        assert!(
            shown.contains(title) && shown.contains("= help: sweep over stages.NAME"),
            "{shown}"
        );
    }
}

#[test]
fn a_part_of_a_path_is_completed() {
    for (given, meant) in [
        ("train.epochs=3", "stages.train.epochs"),
        ("train.execution.cpus=3", "stages.train.execution.cpus"),
        ("shell=false", "stages.train.shell"),
        ("name=y", "experiment.name"),
    ] {
        let text =
            "[experiment]\nname = \"x\"\n[stages.train]\nkind = \"command\"\nshell = \"true\"\n";
        let set = [given.parse().expect("a path")];
        let mistakes = super::super::parse(std::path::Path::new("x.toml"), text, &set);
        let shown = mistakes.expect_err("a mistake").to_string();
        let title =
            format!("error: --set needs the whole path to a value, did you mean '{meant}'?\n");
        assert!(shown.starts_with(&title), "{shown}");
    }
    // A stage may be called as a table that this manifest does not have.
    let text =
        "[experiment]\nname = \"x\"\n[stages.execution]\nkind = \"command\"\nshell = \"true\"\n";
    let set = ["execution.threads=2".parse().expect("a path")];
    super::super::parse(std::path::Path::new("x.toml"), text, &set).expect("a table of a manifest");
}

#[test]
fn inside_a_value() {
    assert_snapshot!(shown_of_set(&["stages.train.data.x=1"]), @r##"
    error: 'data' is text, so nothing can be set in it
     |
     | --set stages.train.data.x=1
     |                    ^^^^
     |
     = help: set the whole value

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn wrong_stages() {
    assert_snapshot!(shown_of_set(&["stages.train.data=train", "stages.train.labels=data", "stages.train.init=nowhere"]), @r##"
    error: stage 'train' cannot be its own 'data'
     |
     | --set stages.train.data=train
     |                         ^^^^^
     |
     = help: name a stage whose artifact exists before this one runs

    error: 'data' produces dataset, but 'labels' takes labels
     |
     | --set stages.train.labels=data
     |                           ^^^^
     |
     = help: no stage here fits (kinds that would: corrupt-labels, purify-labels)
     = help: The labels to train on. Without it: the data set's own.

    error: there is no stage 'nowhere'
     |
     | --set stages.train.init=nowhere
     |                         ^^^^^^^
     |
     = help: stages that fit: make

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn cycle_through_an_override() {
    assert_snapshot!(shown_of_set(&["stages.make.inputs.model=train", "stages.train.init=make"]), @r##"
    error: cycle: train -> make -> train
     |
     | --set stages.make.inputs.model=train
     |                                ^^^^^ 'make' reads 'train'
     |
    :::
     | --set stages.train.init=make
     |                         ---- 'train' reads 'make'
     |
     = help: connect one of these ports to another stage, or drop it

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn execution() {
    assert_snapshot!(shown_of_set(&["execution.device=gpu", "stages.train.execution.threads=none"]), @r##"
    error: 'gpu' is not a device
     |
     | --set execution.device=gpu
     |                        ^^^
     |
     = help: auto, cpu or cuda:N (cuda:0 is the first GPU)

    error: 'threads' must be a whole number, but is text
     |
     | --set stages.train.execution.threads=none
     |                                      ^^^^

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn lists_and_tables_keep_their_places() {
    assert_snapshot!(shown_of_set(&["stages.data.classes=[\"a\", 3]", "stages.data.source=[\"train\", \"nowhere\"]"]), @r#"
    error: 'classes' must be a list of text, but this item is a whole number
     |
     | --set stages.data.classes=["a", 3]
     |                                 ^
     |
     = help: in quotes: "3"
     = help: classes: The names of the classes, in the order of their labels. By default those of the files or the format, or "0", "1", ...; for `image-folder` its folders, in this order instead of by name.

    error: 'train' produces model, but 'source' takes directory or file
     |
     | --set stages.data.source=["train", "nowhere"]
     |                           ^^^^^^^
     |
     = help: no stage here fits (kinds that would: download, unpack, command)
     = help: The files of the data set, in one artifact or in several.

    error: there is no stage 'nowhere'
     |
     | --set stages.data.source=["train", "nowhere"]
     |                                    ^^^^^^^^^
     |
     = help: no stage here fits (kinds that would: download, unpack, command)

    error: 3 mistakes in x.toml; nothing was run
    "#);
}
