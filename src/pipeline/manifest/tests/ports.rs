//! What is shown about ports and the stages behind them.

use insta::assert_snapshot;

use super::{shown_after_head, shown_of_train};

#[test]
fn missing_port() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "train"
[stages.b]
kind = "unpack"
"##), @r##"
    error: stage 'a' needs the port 'data'
     --> x.toml:8:9
      |
    8 | [stages.a]
      |         ^
      |
      = help: add a line data = "..."; stages that fit: data

    error: stage 'b' needs the port 'archive'
      --> x.toml:10:9
       |
    10 | [stages.b]
       |         ^
       |
       = help: add a line archive = "..."; no stage here fits (kinds that would: download)

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn misspelt_port_is_one_mistake() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "train"
date = "data"
"##), @r##"
    error: unknown key 'date', did you mean 'data'?
      --> x.toml:10:1
       |
    10 | date = "data"
       | ^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn no_such_stage_but_a_near_one() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "split"
data = "dat"
"##), @r##"
    error: there is no stage 'dat', did you mean 'data'?
      --> x.toml:10:8
       |
    10 | data = "dat"
       |        ^^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn no_such_stage_and_no_near_one() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "split"
data = "xyzzy"
"##), @r##"
    error: there is no stage 'xyzzy'
      --> x.toml:10:8
       |
    10 | data = "xyzzy"
       |        ^^^^^^^
       |
       = help: stages that fit: data

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn no_such_stage_in_a_list() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "dataset"
format = "idx"
source = ["zip", "zap"]
[stages.zip]
kind = "command"
run = ["true"]
"##), @r##"
    error: there is no stage 'zap', did you mean 'zip'?
      --> x.toml:11:18
       |
    11 | source = ["zip", "zap"]
       |                  ^^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn stage_that_does_not_fit() {
    assert_snapshot!(shown_after_head(r##"[stages.noisy]
kind = "corrupt-labels"
data = "data"
rate = 0.5
[stages.simclr]
kind = "pretrain-simclr"
data = "data"
[stages.train]
kind = "train"
data = "data"
init = "noisy"
[stages.later]
kind = "train"
data = "data"
init = "train"
"##), @r##"
    error: 'noisy' produces labels, but 'init' takes weights or model
      --> x.toml:18:8
       |
    18 | init = "noisy"
       |        ^^^^^^^
       |
       = help: stages that fit: simclr
       = help: The encoder to start from; of a model of two networks that of the first. Without it: from scratch.

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn no_stage_that_fits() {
    assert_snapshot!(shown_of_train(r##"labels = "data"
"##), @r##"
    error: 'data' produces dataset, but 'labels' takes labels
      --> x.toml:11:10
       |
    11 | labels = "data"
       |          ^^^^^^
       |
       = help: no stage here fits (kinds that would: corrupt-labels, purify-labels)
       = help: The labels to train on. Without it: the data set's own.

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn type_of_a_command_is_what_it_says() {
    assert_snapshot!(shown_of_train(r##"init = "make"
[stages.make]
kind = "command"
run = ["make"]
output = "metrics"
"##), @r#"
error: 'make' produces metrics, but 'init' takes weights or model
  --> x.toml:11:8
   |
11 | init = "make"
   |        ^^^^^^
   |
   = help: no stage here fits (kinds that would: import-weights, pretrain-simclr, pretrain-supervised, train)
   = help: The encoder to start from; of a model of two networks that of the first. Without it: from scratch.

error: 1 mistake in x.toml; nothing was run
"#);
}

#[test]
fn type_of_a_wrong_command_is_open() {
    assert_snapshot!(shown_of_train(r##"init = "make"
[stages.make]
kind = "command"
run = ["make"]
output = "modle"
"##), @r##"
    error: 'modle' is not a value of 'output', did you mean 'model'?
      --> x.toml:15:10
       |
    15 | output = "modle"
       |          ^^^^^^^
       |
       = help: model: An encoder with its classifier: `weights.safetensors`, `model.json`.
       = help: 'output' is one of file, directory, dataset, split, labels, weights, model, features and metrics

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn stage_that_names_itself() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "train"
data = "data"
init = "a"
"##), @r##"
    error: stage 'a' cannot be its own 'init'
      --> x.toml:11:8
       |
    11 | init = "a"
       |        ^^^
       |
       = help: name a stage whose artifact exists before this one runs

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn cycle() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "train"
data = "data"
init = "b"
[stages.b]
kind = "train"
data = "data"
init = "a"
"##), @r##"
    error: cycle: a -> b -> a
      --> x.toml:11:8
       |
    11 | init = "b"
       |        ^^^ 'a' reads 'b'
    ...
    15 | init = "a"
       |        --- 'b' reads 'a'
       |
       = help: connect one of these ports to another stage, or drop it

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn two_cycles_each_named_once() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "train"
data = "data"
init = "b"
[stages.b]
kind = "train"
data = "data"
init = "c"
[stages.c]
kind = "train"
data = "data"
init = "a"
[stages.d]
kind = "command"
run = ["x"]
inputs = { e = "e", a = "a" }
[stages.e]
kind = "command"
run = ["x"]
inputs.d = "d"
"##), @r##"
    error: cycle: a -> c -> b -> a
      --> x.toml:11:8
       |
    11 | init = "b"
       |        ^^^ 'a' reads 'b'
    ...
    15 | init = "c"
       |        --- 'b' reads 'c'
    ...
    19 | init = "a"
       |        --- 'c' reads 'a'
       |
       = help: connect one of these ports to another stage, or drop it

    error: cycle: d -> e -> d
      --> x.toml:23:16
       |
    23 | inputs = { e = "e", a = "a" }
       |                ^^^ 'd' reads 'e'
    ...
    27 | inputs.d = "d"
       |            --- 'e' reads 'd'
       |
       = help: connect one of these ports to another stage, or drop it

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn list_for_one_stage() {
    assert_snapshot!(shown_of_train(r##"init = ["data"]
labels = 3
split = { a = "data" }
"##), @r##"
    error: the port 'init' takes the name of a stage, but this is a list
      --> x.toml:11:8
       |
    11 | init = ["data"]
       |        ^^^^^^^^
       |
       = help: write init = "stage"

    error: the port 'labels' takes the name of a stage, but this is a whole number
      --> x.toml:12:10
       |
    12 | labels = 3
       |          ^
       |
       = help: write labels = "stage"

    error: the port 'split' takes the name of a stage, but this is a table
      --> x.toml:13:9
       |
    13 | split = { a = "data" }
       |         ^^^^^^^^^^^^^^
       |
       = help: write split = "stage"

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn wrong_lists() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "dataset"
format = "idx"
source = [3, "b", "b"]
[stages.b]
kind = "command"
run = ["true"]
[stages.c]
kind = "dataset"
format = "idx"
source = true
"##), @r##"
    error: 'source' must be the name of a stage, but this is a whole number
      --> x.toml:11:11
       |
    11 | source = [3, "b", "b"]
       |           ^
       |
       = help: names go in quotes

    error: 'b' is listed twice
      --> x.toml:11:19
       |
    11 | source = [3, "b", "b"]
       |                   ^^^
       |
       = help: drop one of them

    error: the port 'source' takes the name of a stage, or a list of them, but this is true
      --> x.toml:18:10
       |
    18 | source = true
       |          ^^^^
       |
       = help: write source = "stage" or source = ["stage", "other"]

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn wrong_tables_of_stages() {
    assert_snapshot!(shown_after_head(r##"[stages.a]
kind = "command"
run = ["true"]
inputs = ["data"]
[stages.b]
kind = "command"
run = ["true"]
inputs = { "a b" = "data", c = 3 }
"##), @r##"
    error: the port 'inputs' takes a table of stages, but this is a list
      --> x.toml:11:10
       |
    11 | inputs = ["data"]
       |          ^^^^^^^^
       |
       = help: write inputs = { data = "stage" }

    error: "a b" cannot be the name of an input: a name has only letters (a-z, A-Z), digits, '_' and '-'
      --> x.toml:15:12
       |
    15 | inputs = { "a b" = "data", c = 3 }
       |            ^^^^^

    error: 'c' must be the name of a stage, but this is a whole number
      --> x.toml:15:32
       |
    15 | inputs = { "a b" = "data", c = 3 }
       |                                ^
       |
       = help: names go in quotes

    error: 3 mistakes in x.toml; nothing was run
    "##);
}
