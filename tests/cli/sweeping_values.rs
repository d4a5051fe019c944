//! A part of a sweep, and one that is made on the command line.

use insta::assert_snapshot;

use crate::support::Sandbox;

const TABLE: &str = r#"
include = ["stages.toml"]

[experiment]
name = "table"

[matrix]
rate = [0.1, 0.9]
seed = [1, 2]

[stages.table]
kind = "command"
inputs = { scores = "score@*" }
run = ["cp", "{inputs.scores}/instances.json", "{output}/all.json"]

[stages.per-rate]
kind = "command"
inputs = { scores = "score@seed=*" }
run = ["cp", "{inputs.scores}/instances.json", "{output}/all.json"]
"#;

const STAGES: &str = r#"
[stages.words]
kind = "command"
run = ["cp", "words.txt", "{output}"]
files = ["words.txt"]

[stages.score]
kind = "command"
inputs = { words = "words" }
environment = { RATE = "${rate}", SEED = "${seed}" }
shell = 'echo "{\"score\": $RATE$SEED}" > "$PIPELINE_OUTPUT/metrics.json"'
output = "metrics"
"#;

fn table() -> Sandbox {
    let project = Sandbox::new(TABLE);
    project.write("stages.toml", STAGES);
    project.write("words.txt", "some words");
    project
}

#[test]
fn only_some_values_run_and_no_stage_that_needs_others() {
    let project = table();
    let plan = |only: &str| project.pipeline(&format!("plan experiment.toml {only}")).printed();
    assert_snapshot!(plan("--only rate=0.90"), @r#"
    words                  dirty    no earlier run
    score@rate=0.9,seed=1  waiting  on words; no earlier run
    score@rate=0.9,seed=2  waiting  on words; no earlier run
    per-rate@rate=0.9      waiting  on score@rate=0.9,seed=1, score@rate=0.9,seed=2; no earlier run

    table: 4 would run, 0 are fresh
    "#);
    assert_snapshot!(plan("--only rate=0.9,seed=1"), @r#"
    words                  dirty    no earlier run
    score@rate=0.9,seed=1  waiting  on words; no earlier run

    table: 2 would run, 0 are fresh
    "#);
    assert_snapshot!(plan("--only rate=0.9 --only rate=0.1 per-rate"), @r#"
    words                  dirty    no earlier run
    score@rate=0.1,seed=1  waiting  on words; no earlier run
    score@rate=0.1,seed=2  waiting  on words; no earlier run
    per-rate@rate=0.1      waiting  on score@rate=0.1,seed=1, score@rate=0.1,seed=2; no earlier run
    score@rate=0.9,seed=1  waiting  on words; no earlier run
    score@rate=0.9,seed=2  waiting  on words; no earlier run
    per-rate@rate=0.9      waiting  on score@rate=0.9,seed=1, score@rate=0.9,seed=2; no earlier run

    table: 7 would run, 0 are fresh
    "#);
    let refused = |only: &str| project.pipeline(&format!("plan experiment.toml {only}")).stderr;
    assert_snapshot!(refused("--only rat=1"), @r#"error: no stage of experiment.toml has the axis 'rat'; did you mean 'rate'?"#);
    assert_snapshot!(refused("--only rate=0.5"), @r#"error: no stage of experiment.toml has the value '0.5' of 'rate'; there are: 0.1, 0.9"#);
    assert_snapshot!(refused("--only rate=0.1 table"), @r#"error: none of these stages of experiment.toml is at rate=0.1"#);
    assert_snapshot!(refused("score@rat=0.9"), @r#"error: 'score' does not have the axis 'rat'; did you mean 'rate'?"#);
    assert_snapshot!(refused("score@seed=3"), @r#"error: 'score' does not have the value '3' of 'seed'; there are: 1, 2"#);
    project.pipeline("run experiment.toml --only rate=0.9").success();
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r#"
    words                  fresh
    score@rate=0.1,seed=1  dirty    no earlier run
    score@rate=0.1,seed=2  dirty    no earlier run
    per-rate@rate=0.1      waiting  on score@rate=0.1,seed=1, score@rate=0.1,seed=2; no earlier run
    score@rate=0.9,seed=1  fresh
    score@rate=0.9,seed=2  fresh
    table                  waiting  on score@rate=0.1,seed=1, score@rate=0.1,seed=2; no earlier run
    per-rate@rate=0.9      fresh

    table: 4 would run, 4 are fresh
    "#);
    let text = project.read("experiment.toml");
    project.write("experiment.toml", format!("{text}\n[[matrix.exclude]]\nrate = 0.1\nseed = 2\n"));
    assert_snapshot!(refused("score@rate=0.1,seed=2"), @r#"error: experiment.toml has no stage 'score@rate=0.1,seed=2': no instance of 'score' has these values together; there is, for example, score@rate=0.1,seed=1"#);
}

#[test]
fn a_pattern_whose_axes_or_values_no_stage_has() {
    let stage = |name: &str, environment: &str| {
        format!("[stages.{name}]\nkind = \"command\"\nshell = \"true\"\n{environment}\n")
    };
    let stages = [
        stage("d", ""),
        stage("a", "environment = { X = \"${rate}\" }"),
        stage("b", "environment = { X = \"${seed}\" }"),
    ];
    let project = Sandbox::new(&format!(
        "[experiment]\nname = \"x\"\n[matrix]\nrate = [1, 2]\nseed = [1, 2]\n{}",
        stages.concat()
    ));
    let refused = |stages: &str| project.pipeline(&format!("plan experiment.toml {stages}")).stderr;
    assert_snapshot!(refused("*@rate=1,seed=1"), @"error: experiment.toml has no stage '*@rate=1,seed=1': no instance of '*' has these values together; there is, for example, a@rate=1");
    assert_snapshot!(refused("a@seed=1"), @"error: 'a' does not have the axis 'seed'; its axes: rate");
    assert_snapshot!(refused("d@seed=1"), @"error: 'd' does not have the axis 'seed', or any other");
    assert_snapshot!(refused("*@sead=1"), @"error: no stage of experiment.toml has the axis 'sead'; did you mean 'seed'?");
    assert_snapshot!(refused("a@rate=3"), @"error: 'a' does not have the value '3' of 'rate'; there are: 1, 2");
    assert_snapshot!(refused("b* --only rate=1"), @"error: none of these stages of experiment.toml is at rate=1");
}

#[test]
fn a_sweep_from_the_command_line_is_an_axis_and_its_results_stay() {
    let by_hand = STAGES.replace("${rate}", "0.9").replace("${seed}", "1");
    let project = Sandbox::new(&format!("[experiment]\nname = \"one\"\n{by_hand}"));
    project.write("words.txt", "some words");
    project.pipeline("run experiment.toml").success();
    let sweep =
        "--sweep stages.score.environment.SEED=1,2 --sweep stages.score.environment.RATE=[0.5,0.9]";
    assert_snapshot!(project.pipeline(&format!("plan experiment.toml {sweep}")).printed(), @r#"
    words                  fresh
    score@RATE=0.5,SEED=1  dirty  no earlier run
    score@RATE=0.5,SEED=2  dirty  no earlier run
    score@RATE=0.9,SEED=1  fresh
    score@RATE=0.9,SEED=2  dirty  no earlier run

    one: 3 would run, 2 are fresh
    "#);
    project.pipeline(&format!("run experiment.toml {sweep} --only SEED=2")).success();
    let with_axis = format!("[matrix]\nseed = [1, 2]\nrate = [0.5, 0.9]\n{STAGES}");
    project.write("experiment.toml", format!("[experiment]\nname = \"one\"\n{with_axis}"));
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r#"
    words                  fresh
    score@rate=0.5,seed=1  dirty  no earlier run
    score@rate=0.5,seed=2  fresh
    score@rate=0.9,seed=1  fresh
    score@rate=0.9,seed=2  fresh

    one: 1 would run, 4 are fresh
    "#);
}

#[test]
fn two_sweeps_of_one_name_are_two_axes() {
    let project = Sandbox::new(
        r#"
        [experiment]
        name = "two"
        [stages.first]
        kind = "command"
        shell = "true"
        [stages.second]
        kind = "command"
        shell = "true"
        inputs = { first = "first" }
    "#,
    );
    let plan = project.pipeline(
        "plan experiment.toml --sweep stages.first.environment.X=1,2 --sweep stages.second.environment.X=3,4 --all",
    );
    assert_snapshot!(plan.printed(), @"
    first@first-environment-X=1                          dirty    no earlier run
    first@first-environment-X=2                          dirty    no earlier run
    second@first-environment-X=1,second-environment-X=3  waiting  on first@first-environment-X=1; no earlier run
    second@first-environment-X=1,second-environment-X=4  waiting  on first@first-environment-X=1; no earlier run
    second@first-environment-X=2,second-environment-X=3  waiting  on first@first-environment-X=2; no earlier run
    second@first-environment-X=2,second-environment-X=4  waiting  on first@first-environment-X=2; no earlier run

    two: 6 would run, 0 are fresh
    ");
}

#[test]
fn a_sweep_without_a_matrix_replaces_only_its_own_values() {
    let project = Sandbox::new(
        r#"
        [experiment]
        name = "plain"
        [defaults.command]
        environment = { Q = "${Q}" }
        [stages.first]
        kind = "command"
        environment = { A = "/$${x}", B = "${TMPDIR}", "${C}" = "c" }
        shell = "true"
        [stages.second]
        kind = "command"
        inputs = { first = "first" }
        shell = "true"
    "#,
    );
    project.pipeline("run experiment.toml first").success();
    let plan = |sweep: &str| project.pipeline(&format!("plan experiment.toml {sweep}")).printed();
    assert_snapshot!(plan("--sweep stages.second.environment.X=1,2"), @"
    first       fresh
    second@X=1  dirty  no earlier run
    second@X=2  dirty  no earlier run

    plain: 2 would run, 1 is fresh
    ");
    // The values of defaults can be of any depth, too.
    assert_snapshot!(plan("--sweep defaults.command.environment.Q=1,2 second"), @"
    first       fresh
    second@Q=1  dirty  no earlier run
    second@Q=2  dirty  no earlier run

    plain: 2 would run, 1 is fresh
    ");
}

#[test]
fn two_sweeps_of_one_value() {
    let project = Sandbox::new(
        "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nshell = \"true\"\n",
    );
    assert_snapshot!(project.pipeline("plan experiment.toml --sweep stages.a.environment.X=1,2 --sweep stages.a.environment.X=3").stderr, @"
    error: another sweep is over the same value
     |
     | --sweep stages.a.environment.X=3
     |                              ^
     |
     = help: write all values in one --sweep

    error: 1 mistake in experiment.toml; nothing was run
    ");
}

#[test]
fn what_is_wrong_with_a_sweep() {
    let project = table();
    let plan = |sweep: &str| project.pipeline(&format!("plan experiment.toml {sweep}")).stderr;
    assert_snapshot!(plan("--sweep matrix.rate=1,2 --sweep stages.score.environment.rate=1,2 --sweep execution.threads=1,2"), @r#"
    error: a sweep is over a value of a stage, of [defaults.KIND] or over experiment.seed
     |
     | --sweep matrix.rate=1,2
     |                ^^^^
     |
     = help: write --set 'matrix.rate=[...]'

    error: the matrix has an axis 'rate' already
     |
     | --sweep stages.score.environment.rate=1,2
     |                                  ^^^^
     |
     = help: write --set 'matrix.rate=[...]' for other values

    error: a sweep is over a value of a stage, of [defaults.KIND] or over experiment.seed
     |
     | --sweep execution.threads=1,2
     |                   ^^^^^^^

    error: 3 mistakes in experiment.toml; nothing was run
    "#);
    assert_snapshot!(plan("--sweep stages.scor.environment.X=1,2 --sweep stages.score.environment.Y=1,,2"), @r#"
    error: there is no stage 'scor', did you mean 'score'?
     |
     | --sweep stages.scor.environment.X=1,2
     |                ^^^^

    error: this cannot be a value of 'Y': a value cannot be empty
     |
     | --sweep stages.score.environment.Y=1,,2
     |                                      ^
     |
     = help: give it a name: [matrix.Y] and, below it, NAME = { ... }

    error: 2 mistakes in experiment.toml; nothing was run
    "#);
    assert_snapshot!(plan("--sweep stages.score.environment"), @r#"
    error: invalid value 'stages.score.environment' for '--sweep <PATH=VALUES>': 'stages.score.environment' has no '='; write it as stages.train.learning-rate=0.01,0.02

    For more information, try '--help'.
    "#);
}
