//! Mistakes in manifests and on the command line. How each one is said is tested beside the reader.

use insta::assert_snapshot;

use crate::support::Sandbox;

#[test]
fn all_mistakes_are_shown_at_once_and_nothing_runs() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "mistakes"

[stages.fine]
kind = "command"
shell = 'echo fine >> ran'

[stages.train]
kind = "train"
data = "fine"
epoch = 3

[stages.a]
kind = "command"
inputs = { b = "b" }
run = ["true"]

[stages.b]
kind = "command"
inputs = { a = "a" }
run = ["true"]

[stages.noisy]
kind = "corrupt-label"
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: 'fine' produces directory, but 'data' takes dataset
      --> experiment.toml:11:8
       |
    11 | data = "fine"
       |        ^^^^^^
       |
       = help: no stage here fits (kinds that would: dataset, replace-images)
       = help: The data set.

    error: unknown key 'epoch', did you mean 'epochs'?
      --> experiment.toml:12:1
       |
    12 | epoch = 3
       | ^^^^^
       |
       = help: epochs: Passes over the training samples. By default 120.

    error: cycle: a -> b -> a
      --> experiment.toml:16:16
       |
    16 | inputs = { b = "b" }
       |                ^^^ 'a' reads 'b'
    ...
    21 | inputs = { a = "a" }
       |                --- 'b' reads 'a'
       |
       = help: connect one of these ports to another stage, or drop it

    error: unknown kind 'corrupt-label', did you mean 'corrupt-labels'?
      --> experiment.toml:25:8
       |
    25 | kind = "corrupt-label"
       |        ^^^^^^^^^^^^^^^
       |
       = help: `pipeline kinds` describes them all

    error: 4 mistakes in experiment.toml; nothing was run
    "#);
    assert_eq!(project.read("ran"), "");
    assert!(!project.path("cache").exists(), "nothing was written");
    for command in ["plan", "graph", "status", "metrics"] {
        assert_eq!(project.pipeline(&format!("{command} experiment.toml")).code(), Some(2));
    }
}

#[test]
fn a_manifest_that_is_missing_or_cannot_be_read() {
    let project = Sandbox::new("");
    assert_snapshot!(project.pipeline("run other.toml"), @r"
    status 2
    --- stderr
    error: cannot read other.toml: No such file or directory (os error 2); `pipeline init` writes a manifest to start from
    ");
    assert_snapshot!(project.pipeline("run ."), @r"
    status 2
    --- stderr
    error: no manifest is named, and there is no pipeline.toml in [project] or above: name a .toml file, or write a manifest with `pipeline init`; '.' is taken for a stage, as it does not end in .toml
    ");
    project.write("bytes.toml", [0xff, 0xfe, 0x00]);
    assert_snapshot!(project.pipeline("run bytes.toml"), @r"
    status 2
    --- stderr
    error: this file is not UTF-8 text
     --> bytes.toml:1:1
      |
    1 | ��␀
      | ^
      |
      = help: save it as UTF-8

    error: 1 mistake in bytes.toml; nothing was run
    ");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: the manifest does not have [experiment]
     --> experiment.toml:1:1
      |
    1 |
      | ^
      |
      = help: start it with: [experiment] and, below it, name = "..."

    error: the manifest does not have stages
     --> experiment.toml:1:1
      |
    1 |
      | ^
      |
      = help: a stage starts with [stages.NAME], and its first line is kind = "..."
      = help: `pipeline kinds` lists the kinds

    error: 2 mistakes in experiment.toml; nothing was run
    "#);
}

#[test]
fn an_invalid_command_line() {
    let project = Sandbox::new("");
    for arguments in ["", "rum", "run", "run experiment.toml --jobs 0", "run x.toml --set epochs"] {
        let ended = project.pipeline(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments}: {ended}");
        assert!(!ended.stderr.is_empty() && !ended.stderr.contains("panicked"), "{ended}");
    }
}

#[test]
fn a_file_that_a_command_names_and_does_not_declare_is_a_warning() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "lint"

[stages.plot]
kind = "command"
run = ["sh", "plot.sh", "{output}/a"]
"#,
    );
    project.write("plot.sh", "echo hi > \"$1\"");
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r##"
status 0
--- stderr
warning: 'plot.sh' is not in 'files', so an edit of it reruns nothing
 --> experiment.toml:7:14
  |
7 | run = ["sh", "plot.sh", "{output}/a"]
  |              ^^^^^^^^^
  |
  = help: add it: files = ["plot.sh"]
  = help: or silence this: [lint] and, below it, allow = ["undeclared-file"]

--- stdout
plot  dirty  no earlier run

lint: 1 would run, 0 are fresh
"##);
    let ran = project.pipeline("run experiment.toml --progress none");
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert!(ran.stderr.contains("warning: 'plot.sh' is not in 'files'"), "{ran}");

    project.write(
        "experiment.toml",
        project.read("experiment.toml") + "[lint]\nallow = [\"undeclared-file\"]\n",
    );
    assert_eq!(project.pipeline("run experiment.toml").stderr.matches("warning").count(), 0);
    project.write(
        "experiment.toml",
        project.read("experiment.toml").replace("undeclared-file", "undeclared-files"),
    );
    let wrong = project.pipeline("plan experiment.toml");
    assert!(wrong.stderr.contains("no warning 'undeclared-files', did you mean"), "{wrong}");
}

/// Labels drawn from a matrix in a file, and a training that corrects by another one.
const MATRICES: &str = r#"
[experiment]
name = "matrices"

[stages.first]
kind = "command"
shell = 'echo first >> ran'

[stages.data]
kind = "dataset"
format = "image-folder"
path = "photos"
size = 32

[stages.noisy]
kind = "corrupt-labels"
data = "data"
noise = "matrix"
matrix = "noise.csv"

[stages.train]
kind = "train"
data = "data"
labels = "noisy"
method = "forward-correction"
transition = "file"
matrix = "transition.csv"
"#;

#[test]
fn matrices_in_files_are_checked_before_anything_runs() {
    let project = Sandbox::new(MATRICES).with_fake_learn("");
    project.write_photos("photos", &["cat", "dog"], 8, 4);
    let right = "0.75 0.25\n0 1\n";
    for (file, line, text, wrong) in [
        ("noise.csv", 19, "0.75 0.25\n0.25 0.5\n", "line 2: its numbers sum to 0.75, not to 1"),
        ("transition.csv", 27, "cat,dog\n0.75,0.25\n", "line 2: it ends after 1 rows, but line 2"),
    ] {
        project.write("noise.csv", right);
        project.write("transition.csv", right);
        project.write(file, text);
        let plan = project.pipeline("plan experiment.toml");
        assert!(plan.stdout.contains(&format!("blocked  line {line}: ")), "{plan}");
        assert!(plan.stdout.contains(&format!("{file}, {wrong}")), "{plan}");
        let ran = project.pipeline("run experiment.toml");
        assert_eq!(ran.code(), Some(2), "{ran}");
        assert!(ran.stderr.contains(wrong) && ran.stderr.contains("matrix = "), "{ran}");
        assert_eq!(project.read("ran"), "");
    }

    // Of how many classes the data set is, is known once it exists.
    project.write("noise.csv", "1 0 0\n0 1 0\n0 0 1\n");
    project.write("transition.csv", right);
    assert_eq!(project.pipeline("plan experiment.toml").code(), Some(0));
    project.pipeline("run experiment.toml data").success();
    for (command, code) in [("plan", 2), ("run", 1)] {
        let ended = project.pipeline(&format!("{command} experiment.toml"));
        assert_eq!(ended.code(), Some(code), "{ended}");
        let wrong = "line 1: it has 3 numbers, but the data set has 2 classes";
        assert!(ended.stderr.contains(wrong), "{ended}");
        assert_eq!(project.read("ran"), "");
    }
    project.write("noise.csv", right);
    project.pipeline("run experiment.toml noisy").success();
}

#[test]
fn a_matrix_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for() {
    let project = Sandbox::new(MATRICES).with_fake_learn("");
    project.write_photos("photos", &["cat", "dog"], 8, 4);
    project.write("transition.csv", "0.75 0.25\n0 1\n");
    let made = std::process::Command::new("mkfifo").arg(project.path("noise.csv")).status();
    assert!(made.expect("mkfifo runs").success());
    let refused = |what: &str| {
        let plan = project.pipeline("plan experiment.toml");
        assert!(plan.stdout.contains(&format!("noise.csv is {what}: it does not have")), "{plan}");
        assert_eq!(project.pipeline("run experiment.toml").code(), Some(2));
        assert_eq!(project.read("ran"), "");
    };
    refused("a named pipe");
    std::fs::remove_file(project.path("noise.csv")).expect("a pipe");
    std::os::unix::fs::symlink("/dev/zero", project.path("noise.csv")).expect("a new link");
    refused("a device");
}

#[test]
fn matrices_are_compared_with_classes_that_follow_from_parameters_before_anything_ran() {
    let text = MATRICES.replace("\"image-folder\"", "\"cifar10\"").replace("size = 32\n", "");
    let project = Sandbox::new(&text).with_fake_learn("");
    project.write("photos/data_batch_1.bin", "");
    project.write("noise.csv", "1 0 0\n0 1 0\n0 0 1\n");
    project.write("transition.csv", "1 0\n0 1\n");
    // A run says it of the stages that read them.
    for (command, status) in [("plan", 2), ("run", 1)] {
        let ended = project.pipeline(&format!("{command} experiment.toml"));
        assert_eq!(ended.code(), Some(status), "{ended}");
        for numbers in ["noise.csv, line 1: it has 3", "transition.csv, line 1: it has 2"] {
            let wrong = format!("{numbers} numbers, but the data set has 10 classes");
            assert!(ended.stderr.contains(&wrong), "{ended}");
        }
        assert_eq!(project.read("ran"), "");
    }
    // Another stage does not read them.
    project.pipeline("plan experiment.toml first").success();
}

#[test]
fn what_somebody_typed_is_answered_in_words() {
    let project = Sandbox::new(
        "[experiment]\nname = \"x\"\n[stages.a]\nkind = \"command\"\nshell = 'true'\n",
    );
    std::fs::create_dir_all(project.path("part")).expect("a folder");
    project.write("notes.md", "");
    for (arguments, words) in [
        (
            "run experiment.toml --cpus many",
            "must be a whole number from 1 to 1024, here or in PIPELINE_CPUS",
        ),
        ("run experiment.toml --cpus 0", "must be a whole number from 1 to 1024"),
        (
            "run experiment.toml part",
            "has no stage 'part'; that is not a manifest, but a folder: a manifest is a file that ends in .toml",
        ),
        (
            "run experiment.toml ./part",
            "has no stage './part'; that is not a manifest, but a folder",
        ),
        (
            "run experiment.toml /nowhere/x",
            "has no stage '/nowhere/x'; that is not a manifest; a manifest ends in .toml",
        ),
        (
            "run experiment.toml notes.md",
            "has no stage 'notes.md'; that is not a manifest; a manifest ends in .toml",
        ),
        ("diff experiment.toml a a", "'a' does not have a result yet"),
    ] {
        let ended = project.pipeline(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments}: {ended}");
        assert!(ended.stderr.contains(words), "{arguments}: {ended}");
    }
    project.write("part/pipeline.toml", "");
    let ended = project.pipeline("run experiment.toml part");
    assert!(ended.stderr.contains("but a folder: did you mean 'part/pipeline.toml'?"), "{ended}");
    // A stage that is near comes before a folder that is there.
    let project = Sandbox::new(
        "[experiment]\nname = \"x\"\n[stages.dataset]\nkind = \"command\"\nshell = 'true'\n",
    );
    std::fs::create_dir_all(project.path("data")).expect("a folder");
    for typed in ["data", "dataset/"] {
        let refused = project.pipeline(&format!("plan experiment.toml {typed}"));
        assert!(refused.stderr.contains("did you mean 'dataset'?"), "{refused}");
    }
}

#[test]
fn a_program_that_is_missing_is_said_before_anything_runs() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "programs"

[matrix]
seed = [1, 2]

[executors.far]
kind = "command"
submit = "true {script}"
state = "true"
cancel = "true {ids}"

[stages.first]
kind = "command"
shell = 'echo first >> ran'

[stages.second]
kind = "command"
run = ["tool", "${seed}"]
inputs = { first = "first" }
environment = { PATH = "bin" }

[stages.elsewhere]
kind = "command"
run = ["no-such-program"]
inputs = { second = "second@seed=1" }
execution = { executor = "far" }
"#,
    );
    let warning = "cannot find the program 'tool' in PATH, which is ";
    let stages = "second";
    let plan = project.pipeline(&format!("plan experiment.toml {stages}"));
    assert!(plan.stderr.starts_with(&format!("warning: {warning}")), "{plan}");
    assert!(plan.stderr.contains(" --> experiment.toml:20:8\n"), "{plan}");
    assert_eq!(project.pipeline("plan experiment.toml").stderr.matches("warning").count(), 1);
    let run = project.pipeline(&format!("run experiment.toml {stages} --jobs 1"));
    assert_eq!(run.code(), Some(1), "{run}");
    let said = run.stderr.find(&format!("second@seed=1: warning: {warning}"));
    assert!(said.is_some() && said < run.stderr.find("first (command) runs"), "{run}");
    assert_eq!(run.stderr.matches("warning").count(), 1, "{run}");

    project.write_program("bin/tool", "#!/bin/sh\n");
    for fresh in [0, 3] {
        let plan = project.pipeline(&format!("plan experiment.toml {stages}"));
        assert_eq!(plan.stderr, "", "{fresh}: {plan}");
        let run = project.pipeline(&format!("run experiment.toml {stages}"));
        assert!(run.code() == Some(0) && !run.stderr.contains("warning"), "{fresh}: {run}");
        // A stage with a result needs no program.
        std::fs::remove_file(project.path("bin/tool")).unwrap_or_default();
    }
}

#[test]
fn without_the_program_that_learns_it_is_said_before_anything_runs() {
    let project = Sandbox::new(MATRICES).set("PIPELINE_LEARN", "/nowhere/pipeline-learn");
    project.write_photos("photos", &["cat", "dog"], 2, 1);
    project.write("noise.csv", "1 0\n0 1\n");
    project.write("transition.csv", "1 0\n0 1\n");
    let warning = "warning: PIPELINE_LEARN names /nowhere/pipeline-learn, which is missing";
    let plan = project.pipeline("plan experiment.toml");
    assert!(plan.stderr.starts_with(warning), "{plan}");
    assert!(plan.stderr.contains("kind = \"train\""), "{plan}");
    let run = project.pipeline("run experiment.toml --jobs 1");
    let said = run.stderr.find(&format!("train: {warning}"));
    assert!(said.is_some() && said < run.stderr.find(" runs: no earlier run"), "{run}");
    assert!(run.code() == Some(1) && run.stderr.contains("FAIL  train"), "{run}");
    assert_eq!(project.pipeline("plan experiment.toml noisy").stderr, "", "it does not learn");
}
