//! What is shown about `[experiment]`, `[execution]` and the list of stages.

use insta::assert_snapshot;

use super::{shown, shown_after_head};

#[test]
fn empty() {
    assert_snapshot!(shown(""), @r##"
    error: the manifest does not have [experiment]
     --> x.toml:1:1
      |
    1 |
      | ^
      |
      = help: start it with: [experiment] and, below it, name = "..."

    error: the manifest does not have stages
     --> x.toml:1:1
      |
    1 |
      | ^
      |
      = help: a stage starts with [stages.NAME], and its first line is kind = "..."
      = help: `pipeline kinds` lists the kinds

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn only_a_comment() {
    assert_snapshot!(shown("# nothing yet\n"), @r##"
    error: the manifest does not have [experiment]
     --> x.toml:1:1
      |
    1 | # nothing yet
      | ^
      |
      = help: start it with: [experiment] and, below it, name = "..."

    error: the manifest does not have stages
     --> x.toml:1:1
      |
    1 | # nothing yet
      | ^
      |
      = help: a stage starts with [stages.NAME], and its first line is kind = "..."
      = help: `pipeline kinds` lists the kinds

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn experiment_without_name() {
    assert_snapshot!(shown(r##"[experiment]
about = "?"
[stages.a]
kind = "download"
url = "file:a"
unverified = true
"##), @r##"
    error: the experiment does not have a name
     --> x.toml:1:1
      |
    1 | [experiment]
      | ^^^^^^^^^^^^
      |
      = help: add the line: name = "..."

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn experiment_with_misspelt_keys() {
    assert_snapshot!(shown(r##"[experiment]
naem = "x"
sed = 3
author = "me"
[stages.a]
kind = "download"
url = "file:a"
unverified = true
"##), @r##"
    error: unknown key 'naem' in 'experiment', did you mean 'name'?
     --> x.toml:2:1
      |
    2 | naem = "x"
      | ^^^^

    error: unknown key 'sed' in 'experiment', did you mean 'seed'?
     --> x.toml:3:1
      |
    3 | sed = 3
      | ^^^

    error: unknown key 'author' in 'experiment'
     --> x.toml:4:1
      |
    4 | author = "me"
      | ^^^^^^
      |
      = help: 'experiment' has name, about and seed

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn experiment_of_wrong_types() {
    assert_snapshot!(shown(r##"[experiment]
name = 3
about = []
seed = -1
[stages.a]
kind = "download"
url = "file:a"
unverified = true
"##), @r##"
    error: 'name' must be text, but is a whole number
     --> x.toml:2:8
      |
    2 | name = 3
      |        ^
      |
      = help: in quotes: name = "3"

    error: 'about' must be text, but is a list
     --> x.toml:3:9
      |
    3 | about = []
      |         ^^

    error: 'seed' must be a whole number from 0, but is -1
     --> x.toml:4:8
      |
    4 | seed = -1
      |        ^^

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn experiment_whose_name_is_not_a_file_name() {
    assert_snapshot!(shown(r##"[experiment]
name = "../x"
[stages.a]
kind = "download"
url = "file:a"
unverified = true
"##), @r##"
    error: "../x" cannot be the name of an experiment: it cannot start with '.' or '-'
     --> x.toml:2:8
      |
    2 | name = "../x"
      |        ^^^^^^
      |
      = help: a folder is named after it, so it must be a valid file name

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn experiment_that_is_not_a_table() {
    assert_snapshot!(shown(r##"experiment = "x"
stages = 3
execution = []
"##), @r##"
    error: 'experiment' must be a table, but is text
     --> x.toml:1:14
      |
    1 | experiment = "x"
      |              ^^^

    error: 'stages' must be a table, but is a whole number
     --> x.toml:2:10
      |
    2 | stages = 3
      |          ^
      |
      = help: a stage starts with [stages.NAME]

    error: 'execution' must be a table, but is a list
     --> x.toml:3:13
      |
    3 | execution = []
      |             ^^

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn stages_are_empty() {
    assert_snapshot!(shown(r##"[experiment]
name = "x"
[stages]
"##), @r##"
    error: the manifest does not have stages
     --> x.toml:3:1
      |
    3 | [stages]
      | ^^^^^^^^
      |
      = help: a stage starts with [stages.NAME], and its first line is kind = "..."
      = help: `pipeline kinds` lists the kinds

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn misspelt_tables() {
    assert_snapshot!(shown(r##"[experimnt]
name = "x"
[stage.a]
kind = "split"
[executon]
device = "cpu"
"##), @r##"
    error: unknown table 'experimnt', did you mean 'experiment'?
     --> x.toml:1:2
      |
    1 | [experimnt]
      |  ^^^^^^^^^

    error: unknown table 'stage', did you mean 'stages'?
     --> x.toml:3:2
      |
    3 | [stage.a]
      |  ^^^^^

    error: stage 'a' needs the port 'data'
     --> x.toml:3:8
      |
    3 | [stage.a]
      |        ^
      |
      = help: add a line data = "..."; no stage here fits (kinds that would: dataset, replace-images)

    error: unknown table 'executon', did you mean 'execution'?
     --> x.toml:5:2
      |
    5 | [executon]
      |  ^^^^^^^^

    error: 4 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn stage_outside_of_stages() {
    assert_snapshot!(shown(r##"[experiment]
name = "x"
[split]
kind = "split"
"##), @r##"
    error: unknown table 'split', did you mean 'stages.split'?
     --> x.toml:3:2
      |
    3 | [split]
      |  ^^^^^
      |
      = help: a stage starts with [stages.split]

    error: stage 'split' needs the port 'data'
     --> x.toml:3:2
      |
    3 | [split]
      |  ^^^^^
      |
      = help: add a line data = "..."; no stage here fits (kinds that would: dataset, replace-images)

    error: 2 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn unknown_tables() {
    assert_snapshot!(shown_after_head("[grid]\nrate = [0.2, 0.8]\n"), @r##"
    error: unknown table 'grid'
     --> x.toml:8:2
      |
    8 | [grid]
      |  ^^^^
      |
      = help: a manifest has [experiment], [execution], [executors.NAME], [cache], [tracking], [lint], [matrix], [defaults.KIND] and one [stages.NAME] for each stage

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn key_at_the_top() {
    assert_snapshot!(shown(r##"verbose = true
[experiment]
name = "x"
[stages.a]
kind = "download"
url = "file:a"
unverified = true
"##), @r##"
    error: unknown key 'verbose'
     --> x.toml:1:1
      |
    1 | verbose = true
      | ^^^^^^^
      |
      = help: a manifest has [experiment], [execution], [executors.NAME], [cache], [tracking], [lint], [matrix], [defaults.KIND] and one [stages.NAME] for each stage

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn execution_with_wrong_values() {
    assert_snapshot!(shown_after_head(r##"[execution]
device = "gpu"
threads = 0
checkpoint-seconds = -5
timeout-seconds = "10"
workers = 3
"##), @r##"
    error: 'gpu' is not a device
     --> x.toml:9:10
      |
    9 | device = "gpu"
      |          ^^^^^
      |
      = help: auto, cpu or cuda:N (cuda:0 is the first GPU)

    error: 'threads' must be at least 1, but is 0
      --> x.toml:10:11
       |
    10 | threads = 0
       |           ^

    error: 'checkpoint-seconds' must be a whole number from 0, but is -5
      --> x.toml:11:22
       |
    11 | checkpoint-seconds = -5
       |                      ^^

    error: 'timeout-seconds' must be a whole number, but is text
      --> x.toml:12:19
       |
    12 | timeout-seconds = "10"
       |                   ^^^^
       |
       = help: without quotes: timeout-seconds = 10

    error: unknown key 'workers' in 'execution'
      --> x.toml:13:1
       |
    13 | workers = 3
       | ^^^^^^^
       |
       = help: 'execution' has device, threads, checkpoint-seconds, timeout-seconds, time, attempts, cpus, gpus, memory and resources

    error: 5 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn nul_in_the_folder_of_event_files() {
    assert_snapshot!(shown_after_head("[tracking]\ntensorboard = \"runs\\u0000\"\n"), @r#"
    error: 'tensorboard' has a NUL character
     --> x.toml:9:15
      |
    9 | tensorboard = "runs\u0000"
      |               ^^^^^^^^^^^^
      |
      = help: no program, path or URL can have one: remove it, or read the value from a file

    error: 1 mistake in x.toml; nothing was run
    "#);
}

#[test]
fn too_many_threads() {
    assert_snapshot!(shown_after_head("[execution]\nthreads = 5000000000\n"), @r##"
    error: 'threads' must be at most 1024, but is 5000000000
     --> x.toml:9:11
      |
    9 | threads = 5000000000
      |           ^^^^^^^^^^

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn stage_that_is_not_a_table() {
    assert_snapshot!(shown_after_head(r##"[stages]
[stages.train]
kind = "train"
data = "data"
[stages.a]
kind="split"
data="b"
[[stages.b]]
kind = "split"
"##), @r##"
    error: 'b' must be a table, but is a list
      --> x.toml:15:1
       |
    15 | [[stages.b]]
       | ^^^^^^^^^^^^
       |
       = help: a stage is a table: [stages.b] and, below it, kind = "..."

    error: 1 mistake in x.toml; nothing was run
    "##);
}

#[test]
fn stage_with_unfit_names() {
    assert_snapshot!(shown_after_head(r##"[stages."-x"]
kind = "split"
data = "data"
[stages."a/b"]
kind = "split"
data = "data"
[stages.""]
kind = "split"
data = "data"
"##), @r##"
    error: "-x" cannot be the name of a stage: a name cannot start with '-', or it would look like an option
     --> x.toml:8:9
      |
    8 | [stages."-x"]
      |         ^^^^

    error: "a/b" cannot be the name of a stage: a name has only letters (a-z, A-Z), digits, '_' and '-'
      --> x.toml:11:9
       |
    11 | [stages."a/b"]
       |         ^^^^^

    error: "" cannot be the name of a stage: a name cannot be empty
      --> x.toml:14:9
       |
    14 | [stages.""]
       |         ^^

    error: 3 mistakes in x.toml; nothing was run
    "##);
}

#[test]
fn what_an_unfit_name_brings_with_it_is_not_a_mistake_of_its_own() {
    let head = "[experiment]\nname = \"x\"\n\n";
    let stages = "[stages.\"splät-${a}\"]\nkind = \"command\"\nshell = \"true\"\n\n[stages.b]\nkind = \"command\"\n\
        shell = \"true\"\ninputs = { x = \"splät-${a}\", y = \"splät-1\" }\n";
    for matrix in ["", "[matrix]\na = [1, 2]\n\n"] {
        let text = format!("{head}{matrix}{stages}");
        let mistakes = shown(&text);
        let first = "\"splät-${a}\" cannot be the name of a stage";
        assert!(mistakes.contains(first) && mistakes.contains("1 mistake in"), "{mistakes}");
    }
}
