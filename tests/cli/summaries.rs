//! Summaries of a sweep: tables, new seeds, failed points.

use insta::assert_snapshot;

use crate::support::{Ended, Sandbox};

const SWEEP: &str = r#"
[experiment]
name = "sweep"

[matrix]
rate = [0.2, 0.5]
seed = [1, 2, 3]

[matrix.init]
scratch = { base = 50 }
simclr = { base = 70 }

[stages.score]
kind = "command"
output = "metrics"
environment = { RATE = "${rate}", SEED = "${seed}", BASE = "${init.base}" }
shell = '''
if [ "$RATE$SEED$BASE" = 0.5250 ] && [ -e fail ]; then exit 3; fi
awk -v r="$RATE" -v s="$SEED" -v b="$BASE" 'BEGIN { printf "{\"accuracy\": %.4f}\n", (b - 30*r + s*s)/100 }' > "$PIPELINE_OUTPUT/metrics.json"
'''

[stages.summary]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["seed"]
rows = ["init"]
columns = ["rate"]
versus = { init = "scratch" }
scale = 100

[stages.at-half]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["seed"]
rows = ["init"]
where = { rate = 0.5 }
allow-missing = true
"#;

fn table(project: &Sandbox, stage: &str) -> String {
    let path = project.cache("latest/sweep").join(stage).join("table.md");
    std::fs::read_to_string(path).expect("a table")
}

/// The tables of summaries that a run shows, below the table of the stages.
fn shown(ended: &Ended) -> &str {
    let below = ended.stdout.split_once("\nsummary: ").map(|(_, tables)| tables);
    let tables = below.and_then(|below| below.rsplit_once("\n\nsweep: "));
    tables.unwrap_or_else(|| panic!("{ended}")).0
}

#[test]
fn a_sweep_ends_in_a_table_and_a_new_seed_runs_only_what_is_new() {
    let project = Sandbox::new(SWEEP);
    let ended = project.pipeline("run experiment.toml");
    ended.success();
    assert_snapshot!(shown(&ended), @r"
    accuracy
      init     rate = 0.2     rate = 0.5
      scratch  48.7 ± 10.0    39.7 ± 10.0
      simclr   68.7 ± 10.0 *  59.7 ± 10.0 *
      Mean of accuracy (%) over seed ± half of its 95 % t-interval; n = 3. * marks the best.

    summary: accuracy: difference from init = scratch
      init    rate = 0.2   rate = 0.5
      simclr  +20.0 ± 0.0  +20.0 ± 0.0
      Mean paired difference of accuracy (%) over seed from init = scratch ± half of its 95 % t-interval; pairs = 3.

    at-half: accuracy
      init     value
      scratch  0.397 ± 0.100
      simclr   0.597 ± 0.100 *
      Mean of accuracy over seed ± half of its 95 % t-interval; n = 3. Only rate = 0.5. * marks the best.
    ");
    let fresh = project.pipeline("run experiment.toml");
    assert_eq!(shown(&fresh), shown(&ended));
    assert_snapshot!(fresh.success(), @"score 12:, summary fresh, at-half fresh");
    let scores = project.pipeline("run experiment.toml score");
    assert!(
        scores
            .stdout
            .ends_with("\n`pipeline metrics experiment.toml score` shows what was measured\n"),
        "{scores}"
    );
    assert_snapshot!(table(&project, "summary"), @r#"
    ## accuracy

    | init    |      rate = 0.2 |      rate = 0.5 |
    | ------- | --------------: | --------------: |
    | scratch |     48.7 ± 10.0 |     39.7 ± 10.0 |
    | simclr  | **68.7** ± 10.0 | **59.7** ± 10.0 |

    Mean of accuracy (%) over seed ± half of its 95 % t-interval; n = 3.

    ## accuracy: difference from init = scratch

    | init   |  rate = 0.2 |  rate = 0.5 |
    | ------ | ----------: | ----------: |
    | simclr | +20.0 ± 0.0 | +20.0 ± 0.0 |

    Mean paired difference of accuracy (%) over seed from init = scratch ± half of its 95 % t-interval; pairs = 3.
    "#);
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(0));
    let more = "--set matrix.seed=[1,2,3,4]";
    assert_snapshot!(project.pipeline(&format!("plan experiment.toml {more}")).printed(), @r#"
    score    16: 12 fresh, 4 to run
    summary  waiting  on 4 of score; 4 instances of input 'of' are new
    at-half  waiting  on score@init=scratch,rate=0.5,seed=4, score@init=simclr,rate=0.5,seed=4; 2 instances of input 'of' are new

    sweep: 6 would run, 12 are fresh
    "#);
    // One seed less: only the summaries.
    assert_snapshot!(project.pipeline("run experiment.toml --set matrix.seed=[3,2]").success(), @r#"score 8:, summary ran, at-half ran"#);
    // Other values of an axis in another order: the same table.
    let digest = project.digest("summary");
    project.edit("seed = [1, 2, 3]", "seed = [3, 1, 2]");
    project.pipeline("run experiment.toml").success();
    assert_eq!(project.digest("summary"), digest);
    // It is the same input, so nothing ran for the order of an axis.
    project.edit("seed = [3, 1, 2]", "seed = [2, 3, 1]");
    assert_eq!(project.pipeline("plan experiment.toml --exit-code").code(), Some(0));
    // An axis that only this call has is a row of the table.
    let swept = "--sweep stages.score.environment.EXTRA=1,2";
    assert_snapshot!(project.pipeline(&format!("run experiment.toml {swept} summary")).success(), @r#"score 24:, summary ran"#);
    assert_snapshot!(table(&project, "summary").lines().nth(2).unwrap_or_default(), @r#"| init    | EXTRA |      rate = 0.2 |      rate = 0.5 |"#);
}

#[test]
fn a_failed_point_stops_a_summary_unless_it_may_be_missing() {
    let project = Sandbox::new(SWEEP);
    project.write("fail", "");
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(table(&project, "at-half"), @r#"
    ## accuracy

    | init    |                           value |
    | ------- | ------------------------------: |
    | scratch | 0.400 ± 0.508 (n = 2, 1 failed) |
    | simclr  |       **0.597** ± 0.100 (n = 3) |

    Mean of accuracy over seed ± half of its 95 % t-interval.
    Only rate = 0.5.
    Failed, and not in the numbers: init=scratch,rate=0.5,seed=2.
    "#);
    assert!(!project.cache("latest/sweep/summary").exists(), "{ended}");
    // It fails again; the table of the others is there already.
    let ended = project.pipeline("run experiment.toml");
    assert!(ended.stdout.contains("at-half") && ended.stdout.contains("fresh"), "{ended}");
    // All commands know that result.
    assert_snapshot!(project.pipeline("path experiment.toml at-half"), @r#"
    status 0
    --- stderr
    'at-half' waits on score@init=scratch,rate=0.5,seed=2; its result is without what has failed
    --- stdout
    [project]/cache/store/[digest]
    "#);
    assert_snapshot!(project.pipeline("metrics experiment.toml at-half").printed(), @r#"
    at-half  best-mean    0.5967
             failed-runs  1
             groups       2
             runs         5

    at-half: accuracy
      init     value
      scratch  0.400 ± 0.508 (n = 2, 1 failed)
      simclr   0.597 ± 0.100 (n = 3) *
      Mean of accuracy over seed ± half of its 95 % t-interval. Only rate = 0.5. Failed, and not in the numbers: init=scratch,rate=0.5,seed=2. * marks the best.
    "#);
    assert_snapshot!(project.pipeline("results experiment.toml at-half").printed(), @r#"
    at-half
      runs  failed-runs  best-mean  key           current
      5     1            0.5967     [digest]  yes

    `--all` shows more metrics
    "#);
    assert_snapshot!(project.pipeline("why experiment.toml at-half").printed(), @r#"
    at-half has a result without score@init=scratch,rate=0.5,seed=2, and will run if they succeed
    score@init=scratch,rate=0.5,seed=2 will run because:
      no earlier run
    "#);
    std::fs::remove_file(project.path("fail")).expect("it exists");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("why experiment.toml at-half").printed(), @r#"
    at-half is fresh: artifact [digest], made just now
    it ran then because:
      input 'of@init=scratch,rate=0.5,seed=2' had failed before
    "#);
}

#[test]
fn a_result_that_is_made_again_is_not_missing() {
    let project = Sandbox::new(SWEEP);
    project.write("fail", "");
    let _ = project.pipeline("run experiment.toml --keep-going");
    let damaged = project.artifact("score@init=scratch,rate=0.5,seed=1");
    project.unprotect(&damaged);
    std::fs::write(damaged.join("new"), "").expect("ours");
    project.edit("allow-missing = true", "allow-missing = true\nscale = 100");
    let ended = project.pipeline("run experiment.toml --keep-going --jobs 2");
    assert!(ended.stderr.contains("it was moved to quarantine/"), "{ended}");
    assert!(ended.stdout.contains("runs 5, failed-runs 1"), "{ended}");
}

#[test]
fn a_mistake_before_a_summary_is_not_one_of_its_axes() {
    const CHAIN: &str = r#"
[experiment]
name = "chain"

[matrix]
rate = [0.2, 0.5]

[stages.base]
kind = "command"
environment = { RATE = "${rate}" }
shell = "true"

[stages.score]
kind = "command"
inputs = { base = "base" }
shell = "true"
output = "metrics"

[stages.summary]
kind = "summarize"
of = "score"
metric = "accuracy"
columns = ["rate"]
"#;
    for (from, to, mistakes) in [
        ("base = \"base\"", "base = \"bese\"", "1 mistake"),
        ("inputs =", "input =", "1 mistake"),
        ("RATE = \"${rate}\"", "RATE = \"${rat}\"", "1 mistake"),
        ("columns = [\"rate\"]", "columns = [\"rat\"]", "1 mistake"),
        ("metric = \"accuracy\"", "metrik = \"accuracy\"", "1 mistake"),
    ] {
        let project = Sandbox::new(CHAIN);
        project.edit(from, to);
        let ended = project.pipeline("plan experiment.toml");
        let last = format!("error: {mistakes} in experiment.toml; nothing was run\n");
        assert!(ended.stderr.ends_with(&last), "{to}\n{ended}");
    }
}

#[test]
fn every_axis_of_a_summary_has_a_place() {
    let project = Sandbox::new(SWEEP);
    project.edit("columns = [\"rate\"]", "columns = [\"rat\"]");
    project.edit("where = { rate = 0.5 }", "where = { rate = 0.7 }");
    assert_snapshot!(project.pipeline("plan experiment.toml").stderr, @r#"
    error: there is no axis 'rat', did you mean 'rate'?
      --> experiment.toml:28:12
       |
    28 | columns = ["rat"]
       |            ^^^^^

    error: the axis 'rate' does not have the value '0.7'
      --> experiment.toml:38:18
       |
    38 | where = { rate = 0.7 }
       |                  ^^^
       |
       = help: its values are 0.2 and 0.5

    error: 2 mistakes in experiment.toml; nothing was run
    "#);
    let project = Sandbox::new(SWEEP);
    project.edit("where = { rate = 0.5 }", "columns = [\"seed\"]");
    project.edit("of = \"score\"\nmetric = \"accuracy\"\nover = [\"seed\"]\nrows = [\"init\"]\ncolumns = [\"rate\"]", "of = \"score@rate=0.5\"\nmetric = \"accuracy\"");
    assert_snapshot!(project.pipeline("plan experiment.toml").stderr, @r#"
    error: this port takes all instances of 'score'
      --> experiment.toml:24:6
       |
    24 | of = "score@rate=0.5"
       |      ^^^^^^^^^^^^^^^^
       |
       = help: write "score", and where = { AXIS = VALUE } for some of them

    error: differences are between rows or columns: list 'init' in 'rows' or 'columns'
      --> experiment.toml:26:10
       |
    26 | versus = { init = "scratch" }
       |          ^^^^^^^^^^^^^^^^^^^^
       |
       = help: versus: The baseline of the differences: `{ init = "scratch" }`. Its axes are among `rows` and `columns`.

    error: the instances have an axis 'rate' (0.2, 0.5), which has no place here: list it in 'over' for the mean over its values, in 'rows' or 'columns' to show each, or choose one by where = { rate = 0.2 }
      --> experiment.toml:31:6
       |
    31 | of = "score"
       |      ^^^^^^^

    error: the axis 'seed' is also in 'over': it can have only one place
      --> experiment.toml:35:12
       |
    35 | columns = ["seed"]
       |            ^^^^^^
       |
       = help: columns: The axes whose values are the columns of the table. The last one is the x-axis of the plot.

    error: 4 mistakes in experiment.toml; nothing was run
    "#);
}
