//! What can be wrong with a matrix, its templates, references and defaults.

use std::path::Path;

use insta::assert_snapshot;

use super::super::{right, shown, shown_with};
use super::{NOISE, command, commands};
use crate::manifest::parse;

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
        ("rate = \"1-3\"", "write [1, 2, 3]"),
        ("rate = \"0 .. 2\"", "write [0, 1, 2]"),
        ("rate = \"1 to 3\"", "write [1, 2, 3]"),
        ("rate = \"0.1-0.5\"", "an axis lists each of its numbers: [0.1, …, 0.5]"),
        ("rate = \"1:100\"", "an axis lists each of its numbers: [1, …, 100]"),
        ("rate = \"a-3\"", "write [\"a-3\"]"),
        ("rate = \"1e-3\"", "write [1e-3]"),
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
      = help: 'loss' is a key of train
      = help: 'command' has the port inputs, and the parameters run, shell, environment, files, ignore, outputs, output, pass-environment, sandbox, sandbox-read, sandbox-write
      = help: at m=ce

    error: unknown key 'loss'
     --> x.toml:7:8
      |
    7 | lq = { loss = 2, q = 3, l = [1] }
      |        ^^^^
      |
      = help: 'loss' is a key of train
      = help: 'command' has the port inputs, and the parameters run, shell, environment, files, ignore, outputs, output, pass-environment, sandbox, sandbox-read, sandbox-write
      = help: at m=lq

    error: unknown key 'q'
     --> x.toml:7:18
      |
    7 | lq = { loss = 2, q = 3, l = [1] }
      |                  ^
      |
      = help: 'q' is a key of train
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
    assert_snapshot!(shown_with(NOISE, &["matrix.rate=[0.5,2,3]", "stages.train.epoch=3"]), @r##"
    error: 'rate' must be at least 0 and at most 1, but is 2
      --> x.toml:48:8
       |
    48 | rate = "${rate}"
       |        ^^^^^^^^^
       |
      :::
       | --set matrix.rate=[0.5,2,3]
       |                        - its value here
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
    "##);
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
            "'output' must be one of file, directory, dataset, split, labels, weights, model, features and metrics, but is a whole number",
        ),
    ] {
        match parse(Path::new("x.toml"), &format!("{head}{what}\n"), &[]) {
            Ok(_) => assert_eq!(title, "", "{what}"),
            Err(mistakes) => assert_eq!(mistakes.list()[0].title(), title, "{what}"),
        }
    }
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
    assert_snapshot!(title(&commands("m = [1, 2]\n[[matrix.excludes]]\nm = 1", &stage)), @"'excludes' is a list of tables, did you mean 'exclude'?");
    let field = "r = [1]\n[matrix.m]\np = { arg = \"${r}\" }";
    let used = command("a", "\"${m.arg}${r}\"", "");
    assert_snapshot!(title(&commands(field, &used)), @r#"'${' in a field of a point is not replaced"#);
    let twice = format!("{stage}{}", command("b", "\"x\"", "inputs = { a = \"a@m=1,m=2\" }"));
    assert_snapshot!(title(&commands("m = [1, 2]", &twice)), @r#"'a@m=1,m=2' is not the name of an instance"#);
}
