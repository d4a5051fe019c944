//! What is wrong is said once, where it is: what only follows from it is left out, and no other mistake is.

use insta::assert_snapshot;

use super::{shown, shown_after_head};

/// A sweep, and a summary of it.
const SWEEP: &str = r#"
[experiment]
name = "x"
seed = "${seed}"
[matrix]
rate = [0.1, 0.2]
seed = [1, 2, 3]
[stages.data]
kind = "dataset"
format = "idx"
path = "d"
[stages.noisy]
kind = "corrupt-labels"
data = "data"
noise = "symmetric"
rate = "${rate}"
[stages.train]
kind = "train"
data = "data"
labels = "noisy"
epochs = 30
[stages.evaluate]
kind = "evaluate"
model = "train"
data = "data"
[stages.table]
kind = "summarize"
of = "evaluate"
metric = "test-accuracy"
over = ["seed"]
rows = ["rate"]
versus = { rate = 0.1 }
"#;

/// The first lines of the mistakes of [`SWEEP`] with these changes, each with its place.
fn titles(changes: &[(&str, &str)]) -> String {
    let changed = changes.iter().fold(SWEEP.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    let shown = shown(&changed);
    let lines = shown.lines().filter_map(|line| match line.strip_prefix("error: ") {
        Some(title) => (!title.ends_with("nothing was run")).then_some(title),
        None => line.trim_start().strip_prefix("--> x.toml:"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_axis_of_no_matrix_is_not_a_brace() {
    let help = "values of a matrix are put in where the manifest has [matrix]";
    for (argument, axis) in [
        ("${rate}", Some("rate")),
        ("--rate=${m.rate}", Some("m")),
        ("${output}/${rate}", Some("rate")),
        ("${output}/{rate}", None),
        ("${{x}} {rate}", None),
        ("${\"a\": 1}", None),
    ] {
        let run = format!("[stages.a]\nkind = \"command\"\nrun = [\"echo\", '{argument}']\n");
        let shown = shown_after_head(&run);
        let expected = axis.map(|axis| format!("error: there is no axis '{axis}': "));
        let expected = expected.unwrap_or(format!("error: the argument '{argument}' of 'run'"));
        assert!(shown.starts_with(&expected), "{argument}: {shown}");
        assert_eq!(shown.contains(help), axis.is_some(), "{argument}: {shown}");
        assert!(shown.contains("error: 1 mistake in"), "{argument}: {shown}");
    }
}

#[test]
fn a_brace_where_axes_are_replaced_is_one() {
    let stage = "[stages.a]\nkind = \"command\"\nrun = [\"echo\", '$${rate}']\n[stages.data]";
    assert_snapshot!(titles(&[("[stages.data]", stage)]), @r##"
    the argument '${rate}' of 'run' has {rate}: the placeholders are {output}, and {inputs.NAME} for each input; write '{{' for a brace
    10:16
    "##);
}

#[test]
fn all_instances_of_a_wrong_stage_are_one_mistake() {
    assert_snapshot!(titles(&[("of = \"evaluate\"", "of = \"noisy\"")]), @r##"
    'noisy' produces labels, but 'of' takes metrics
    28:6
    "##);
    let (of, axes) = (("of = \"evaluate\"", "of = \"noisy\""), ("rows = [\"rate\"]\n", ""));
    assert_snapshot!(titles(&[of, axes]), @r##"
    'noisy' produces labels, but 'of' takes metrics
    28:6
    differences are between rows or columns: list 'rate' in 'rows' or 'columns'
    31:10
    "##);
    assert_snapshot!(titles(&[("of = \"evaluate\"", "of = \"evaluat\"")]), @r##"
    there is no stage 'evaluat', did you mean 'evaluate'?
    28:6
    "##);
    let alone = shown_after_head(
        "[stages.table]\nkind = \"summarize\"\nof = \"dat\"\nmetric = \"a\"\nover = [\"seed\"]\n",
    );
    assert!(alone.contains("there is no stage 'dat'") && alone.contains("1 mistake"), "{alone}");
}

#[test]
fn some_instances_of_another_type_are_one_mistake_with_their_points() {
    let kinds =
        "[matrix.k]\na = { output = \"metrics\" }\nb = { output = \"labels\" }\n[stages.data]";
    let stage = "[stages.of]\nkind = \"command\"\nrun = [\"echo\", \"${k}${seed}\"]\noutput = \"${k.output}\"\n[stages.table]";
    let changes = [
        ("[stages.data]", kinds),
        ("[stages.table]", stage),
        ("of = \"evaluate\"", "of = \"of\""),
        ("rows = [\"rate\"]\nversus = { rate = 0.1 }", "rows = [\"k\"]"),
    ];
    let changed = changes.iter().fold(SWEEP.to_owned(), |text, (from, to)| text.replace(from, to));
    let shown = shown(&changed);
    assert!(shown.contains("error: 'of' produces labels, but 'of' takes metrics\n"), "{shown}");
    assert!(shown.contains("at k=b,seed=1, and at 2 other points\n"), "{shown}");
    assert!(shown.contains("error: 1 mistake in"), "{shown}");
}

#[test]
fn a_misspelt_table_is_read_as_the_one_that_was_meant() {
    for (from, to) in [
        ("[matrix]", "[matirx]"),
        ("[experiment]", "[experimant]"),
        ("[stages.train]", "[stage.train]"),
        ("[stages.train]", "[train]"),
    ] {
        let shown = titles(&[(from, to)]);
        assert!(shown.starts_with("unknown table '") && shown.lines().count() == 2, "{shown}");
    }
    // What is wrong in it is found all the same.
    let seeds = ("seed = [1, 2, 3]", "seed = 3");
    assert_snapshot!(titles(&[("[matrix]", "[matirx]"), seeds]), @r##"
    unknown table 'matirx', did you mean 'matrix'?
    5:2
    the axis 'seed' is a list of values, but this is a whole number
    7:8
    "##);
    assert_snapshot!(titles(&[("[stages.train]", "[stage.train]"), ("epochs", "epoch")]), @r##"
    unknown table 'stage', did you mean 'stages'?
    17:2
    unknown key 'epoch', did you mean 'epochs'?
    21:1
    "##);
    assert_snapshot!(titles(&[("[stages.train]", "[train]"), ("\"train\"\ndata", "\"trian\"\ndata")]), @r##"
    unknown table 'train', did you mean 'stages.train'?
    17:2
    unknown kind 'trian', did you mean 'train'?
    18:8
    there is no stage 'trian', did you mean 'train'?
    24:9
    "##);
}

#[test]
fn axes_of_no_matrix_are_found_whatever_else_is_wrong() {
    let names = [
        ("over = [\"seed\"]", "over = [\"sed\"]"),
        ("rows = [\"rate\"]", "rows = [\"rte\"]"),
        ("epochs", "epoch"),
    ];
    assert_snapshot!(titles(&names), @r##"
    unknown key 'epoch', did you mean 'epochs'?
    21:1
    there is no axis 'sed', did you mean 'seed'?
    30:9
    there is no axis 'rte', did you mean 'rate'?
    31:9
    "##);
    assert_snapshot!(titles(&names[1..2]), @r##"
    there is no axis 'rte', did you mean 'rate'?
    31:9
    "##);
    let tables = (
        "versus = { rate = 0.1 }",
        "versus = { rat = 0.1 }\nwhere = { ratee = [0.1, 0.2] }\norder = { sed = [1] }\nclean-labels = [\"rae=0.1\"]",
    );
    assert_snapshot!(titles(&[tables]), @r##"
    there is no axis 'rat', did you mean 'rate'?
    32:12
    there is no axis 'ratee', did you mean 'rate'?
    33:11
    there is no axis 'sed', did you mean 'seed'?
    34:11
    there is no axis 'rae', did you mean 'rate'?
    35:17
    "##);
    // Where it is not known which one is meant, neither is what has no place.
    assert_snapshot!(titles(&[names[1], ("\"rte\"", "\"method\"")]), @r##"
    there is no axis 'method'
    31:9
    differences are between rows or columns: list 'rate' in 'rows' or 'columns'
    32:10
    "##);
    // What has an axis too many or too few is found beside it.
    assert_snapshot!(titles(&[names[1], ("over = [\"seed\"]\n", "")]), @r##"
    the instances have an axis 'seed' (1, 2, 3), which has no place here: list it in 'over' for the mean over its values, in 'rows' or 'columns' to show each, or choose one by where = { seed = 1 }
    28:6
    there is no axis 'rte', did you mean 'rate'?
    30:9
    "##);
}

#[test]
fn a_value_of_the_matrix_is_shown_where_it_stands() {
    let changed = SWEEP.replace("seed = [1, 2, 3]", "seed = [1, \"b\", 3]");
    assert_snapshot!(shown(&changed), @r##"
    error: 'seed' must be a whole number, but is text
     --> x.toml:4:8
      |
    4 | seed = "${seed}"
      |        ^^^^^^^^^
    ...
    7 | seed = [1, "b", 3]
      |            --- its value here
      |
      = help: at rate=0.1,seed=b, and at 3 other points

    error: 1 mistake in x.toml; nothing was run
    "##);
    let fields = "[matrix.m]\na = { rate = 0.1, noise = \"symmetric\" }\nb = { rate = 1.5, noise = \"symetric\" }\n[stages.data]";
    let noisy = [
        ("[stages.data]", fields),
        (
            "noise = \"symmetric\"\nrate = \"${rate}\"",
            "noise = \"${m.noise}\"\nrate = \"${m.rate}\"",
        ),
        ("rate = [0.1, 0.2]\n", ""),
        ("rows = [\"rate\"]\nversus = { rate = 0.1 }", "rows = [\"m\"]"),
    ];
    let changed =
        noisy.iter().fold(SWEEP.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
    assert_snapshot!(shown(&changed), @r##"
    error: 'symetric' is not a value of 'noise', did you mean 'symmetric'?
      --> x.toml:17:9
       |
     9 | b = { rate = 1.5, noise = "symetric" }
       |                           ---------- its value here
    ...
    17 | noise = "${m.noise}"
       |         ^^^^^^^^^^^^
       |
       = help: symmetric: rate/K everywhere plus 1 - rate on the diagonal: the true class is among the targets.
       = help: 'noise' is one of symmetric, flip, flip2, pairflip, asymmetric, matrix, instance, human and file
       = help: at m=b,seed=1, and at 2 other points

    error: 'rate' must be at least 0 and at most 1, but is 1.5
      --> x.toml:18:8
       |
     9 | b = { rate = 1.5, noise = "symetric" }
       |              --- its value here
    ...
    18 | rate = "${m.rate}"
       |        ^^^^^^^^^^^
       |
       = help: rate: The noise rate. It must be given.
       = help: at m=b,seed=1, and at 2 other points

    error: 2 mistakes in x.toml; nothing was run
    "##);
}
