//! References to all instances of a stage: which these are, and what can be wrong.

use insta::assert_snapshot;

use super::matrix::{command, commands, edges, keys};
use super::{right, shown};
use crate::key::{self, InputResult, StageKey};

const MATRIX: &str = "rate = [0.5, 0.9]\nseed = [1, 2]\n";

fn with_readers(readers: &[&str]) -> String {
    let train = command("train", "\"${rate}\", \"${seed}\"", "");
    commands(MATRIX, &(train + &readers.concat()))
}

#[test]
fn a_port_of_a_command_takes_all_instances_on_the_axes_that_it_closes() {
    let text = with_readers(&[
        &command("all", "\"x\"", "inputs = { scores = \"train@*\" }"),
        &command("per-rate", "\"x\"", "inputs = { scores = \"train@seed=*\" }"),
        &command(
            "best",
            "\"x\"",
            "inputs = { scores = \"train@rate=0.90,seed=*\", first = \"train@seed=1\" }",
        ),
        &command("after", "\"x\"", "inputs = { one = \"per-rate@rate=0.5\", all = \"best@*\" }"),
    ]);
    assert_snapshot!(edges(&text), @r#"
    train@rate=0.5,seed=1 <-
    train@rate=0.5,seed=2 <-
    train@rate=0.9,seed=1 <-
    train@rate=0.9,seed=2 <-
    all <- train@rate=0.5,seed=1 train@rate=0.5,seed=2 train@rate=0.9,seed=1 train@rate=0.9,seed=2
    per-rate@rate=0.5 <- train@rate=0.5,seed=1 train@rate=0.5,seed=2
    per-rate@rate=0.9 <- train@rate=0.9,seed=1 train@rate=0.9,seed=2
    best@rate=0.5 <- train@rate=0.5,seed=1 train@rate=0.9,seed=1 train@rate=0.9,seed=2
    best@rate=0.9 <- train@rate=0.9,seed=1 train@rate=0.9,seed=1 train@rate=0.9,seed=2
    after <- best@rate=0.5 best@rate=0.9 per-rate@rate=0.5
    "#);
}

#[test]
fn without_a_matrix_a_stage_is_its_only_instance() {
    let text = [
        "[experiment]\nname = \"x\"\n",
        &command("a", "\"a\"", ""),
        &command("b", "\"b\"", "inputs = { all = \"a@*\" }"),
    ]
    .concat();
    let (manifest, _) = right(&text, &[]);
    let stage = manifest.stage(&"b".parse().expect("a name")).expect("a stage");
    let (_, connection) = stage.connections().next().expect("an input");
    assert!(connection.among_all && connection.from.as_str() == "a");
}

/// The inputs in the key of `all`, if the results of the others have these keys.
fn inputs_in_key(key_of: impl Fn(&str) -> &'static str) -> Vec<String> {
    let text = with_readers(&[&command("all", "\"x\"", "inputs = { scores = \"train@*\" }")]);
    let (manifest, _) = right(&text, &[]);
    let stage = manifest.stage(&"all".parse().expect("a name")).expect("a stage");
    let keys = keys(&text);
    let any: Vec<StageKey> = keys.values().copied().collect();
    let digest = crate::digest::FieldHasher::new("test").finish();
    let parts = key::parts(stage, &[], |input| match key_of(input.as_str()) {
        "missing" => InputResult::Missing,
        "unknown" => InputResult::Unknown,
        number => {
            InputResult::Made { key: any[number.parse::<usize>().expect("a number")], digest }
        }
    });
    let ports = parts.iter().filter_map(|part| match part {
        key::KeyPart::Input { port, .. } => Some(port.clone()),
        key::KeyPart::Missing { port } => Some(format!("{port} is missing")),
        _ => None,
    });
    ports.collect()
}

#[test]
fn a_key_has_the_points_and_which_of_them_are_one_run() {
    let all = inputs_in_key(|name| match name {
        "train@rate=0.5,seed=1" => "0",
        "train@rate=0.5,seed=2" => "missing",
        "train@rate=0.9,seed=1" => "1",
        _ => "0",
    });
    let expected = [
        "inputs.scores@rate=0.5,seed=1;rate=0.9,seed=2",
        "inputs.scores@rate=0.5,seed=2 is missing",
        "inputs.scores@rate=0.9,seed=1",
    ];
    assert_eq!(all, expected);
    let single: Vec<_> = key::single_ports(expected[0]).collect();
    assert_eq!(single, ["inputs.scores@rate=0.5,seed=1", "inputs.scores@rate=0.9,seed=2"]);
    assert_eq!(key::single_ports("data").collect::<Vec<_>>(), ["data"]);
    assert!(inputs_in_key(|_| "unknown").is_empty());
}

#[test]
fn where_all_instances_cannot_be() {
    let text = with_readers(&[
        "[stages.split]\nkind = \"split\"\ndata = \"train@*\"\n",
        &command("b", "\"b\"", "inputs = { x = \"train@rate=*,rate=0.5\", y = [\"train\"] }"),
        &command("c", "\"c\"", "inputs = { x = \"plain@rate=0.5,*\" }"),
        &command("plain", "\"p\"", ""),
    ]);
    assert_snapshot!(shown(&text), @r#"
    error: 'train@*' means all instances, but this port does not take several
      --> x.toml:13:8
       |
    13 | data = "train@*"
       |        ^^^^^^^^^
       |
       = help: name one: STAGE or STAGE@AXIS=VALUE; `inputs` of a command and `of` of a summary take all

    error: 'train@rate=*,rate=0.5' is not the name of an instance
      --> x.toml:17:16
       |
    17 | inputs = { x = "train@rate=*,rate=0.5", y = ["train"] }
       |                ^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: write STAGE@AXIS=VALUE, with commas between several

    error: 'y' must be the name of a stage, but this is a list
      --> x.toml:17:45
       |
    17 | inputs = { x = "train@rate=*,rate=0.5", y = ["train"] }
       |                                             ^^^^^^^^^
       |
       = help: names go in quotes

    error: 'plain' does not depend on 'rate'
      --> x.toml:21:16
       |
    21 | inputs = { x = "plain@rate=0.5,*" }
       |                ^^^^^^^^^^^^^^^^^^
       |
       = help: write "plain"

    error: 4 mistakes in x.toml; nothing was run
    "#);
    let text = with_readers(&[&command("b", "\"b\"", "inputs = { x = \"b@*\" }")]);
    assert_snapshot!(shown(&text), @r#"
    error: stage 'b' cannot be its own input
      --> x.toml:14:16
       |
    14 | inputs = { x = "b@*" }
       |                ^^^^^
       |
       = help: connect one of these ports to another stage, or drop it

    error: 1 mistake in x.toml; nothing was run
    "#);
}

#[test]
fn a_stage_reads_twenty_thousand_instances() {
    let seeds = (0..20_000).map(|seed| seed.to_string()).collect::<Vec<_>>().join(", ");
    let text = [
        command("all", "\"x\"", "inputs = { scores = \"train@*\" }"),
        command("train", "\"${seed}\"", ""),
    ]
    .concat();
    let (manifest, _) = right(&commands(&format!("seed = [{seeds}]\n"), &text), &[]);
    let all = manifest.stage(&"all".parse().expect("a name")).expect("a stage");
    assert_eq!(all.connections().count(), 20_000);
}
