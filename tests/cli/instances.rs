//! What the commands that only look show of many instances of a stage: at a glance, and in full.

use std::fs;

use insta::assert_snapshot;

use crate::support::{Ended, Sandbox, names, walk};

/// Twelve trainings with one evaluation each, whose metrics are numbers in its name.
const MANY: &str = r#"
[experiment]
name = "many"

[matrix]
rate = [0.1, 0.5, 0.9]
seed = [1, 2]
init = ["scratch", "simclr"]

[stages.words]
kind = "command"
shell = 'echo some words > "$PIPELINE_OUTPUT/text"; echo read; printf "the words"'

[stages.train]
kind = "command"
environment = { RATE = "${rate}", SEED = "${seed}", INIT = "${init}" }
files = ["note"]
shell = 'echo "${INIT} ${RATE} ${SEED}" >&2; echo "${INIT} ${RATE}" > "$PIPELINE_OUTPUT/weights"'

[stages.evaluate]
kind = "command"
inputs = { model = "train", words = "words" }
environment = { RATE = "${rate}", SEED = "${seed}" }
output = "metrics"
shell = 'echo "{\"accuracy\": ${RATE}, \"loss\": ${SEED}}" > "$PIPELINE_OUTPUT/metrics.json"'
"#;

/// All stages have run but those with a rate of 0.5.
fn project() -> Sandbox {
    let project = Sandbox::new(MANY);
    project.write("note", "1");
    project.pipeline("run experiment.toml evaluate@rate=0.1 evaluate@rate=0.9").success();
    project
}

#[test]
fn stages_are_taken_by_pattern_and_none_means_all() {
    let project = project();
    for command in ["metrics", "status", "log", "path", "why", "graph", "run", "plan"] {
        let ended = project.pipeline(&format!("{command} experiment.toml words train@rate=0.7"));
        assert_eq!((ended.code(), ended.stdout.as_str()), (Some(2), ""), "{ended}");
        let expected =
            "error: 'train' does not have the value '0.7' of 'rate'; there are: 0.1, 0.5, 0.9\n";
        assert_eq!(ended.stderr, expected, "{command}");
    }
    let json = project.pipeline("status experiment.toml --json").json();
    assert_eq!(json["stages"].as_array().map(Vec::len), Some(25));
    let json = project.pipeline("status experiment.toml --json train@seed=1 words").json();
    assert_eq!(json["stages"].as_array().map(Vec::len), Some(7));
    let json = project.pipeline("metrics experiment.toml --json evaluate@rate=0.9,seed=1").json();
    assert_snapshot!(json, @r#"{"evaluate@init=scratch,rate=0.9,seed=1":{"accuracy":0.9,"loss":1},"evaluate@init=simclr,rate=0.9,seed=1":{"accuracy":0.9,"loss":1}}"#);
}

#[test]
fn status_counts_instances() {
    let project = project();
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @r"
    stage  kind  state  last run  took  artifact  size
    words  command  fresh  just now  [time]  [digest]  11 B
    train  command  12: 8 fresh, 4 to run; last run just now, [time] in all, 46 B
    evaluate  command  12: 8 fresh, 4 waiting; last run just now, [time] in all, 116 B

    cache: [project]/cache
    ");
    assert_snapshot!(project.pipeline("status experiment.toml evaluate@rate=0.1,init=simclr words").printed(), @r"
    stage  kind  state  last run  took  artifact  size
    words  command  fresh  just now  [time]  [digest]  11 B
    evaluate@init=simclr,rate=0.1,seed=1  command  fresh  just now  [time]  [digest]  29 B
    evaluate@init=simclr,rate=0.1,seed=2  command  fresh  just now  [time]  [digest]  29 B

    cache: [project]/cache
    ");
    let all = project.pipeline("status experiment.toml --all").printed();
    assert_eq!(all.lines().filter(|line| line.starts_with("train@")).count(), 12, "{all}");
    std::fs::remove_file(project.path("note")).expect("a file");
    assert_snapshot!(project.pipeline("status experiment.toml").printed(), @r"
    stage  kind  state  last run  took  artifact  size
    words  command  fresh  just now  [time]  [digest]  11 B
    train  command  12: 12 blocked; last run just now, [time] in all, 46 B
    evaluate  command  12: 12 waiting; last run just now, [time] in all, 116 B

    12 of train are blocked; the first, line 17: cannot read [project]/note: No such file or directory (os error 2)
    cache: [project]/cache
    ");
}

#[test]
fn graph_folds_instances_into_one_node() {
    let project = project();
    assert_snapshot!(project.pipeline("graph experiment.toml"), @r"
    status 0
    --- stdout
    many

    1  ● words     command
       ○ train     command  12: 8 fresh, 4 to run
    2  ◌ evaluate  command  12: 8 fresh, 4 waiting  ← model: train, words

    ● fresh   ○ dirty: must run   ◌ waiting: runs if its inputs change
    ");
    assert_snapshot!(project.pipeline("graph experiment.toml evaluate@rate=0.1,seed=1"), @r"
    status 0
    --- stdout
    many

    1  ● words                                  command
       ● train@init=scratch,rate=0.1,seed=1     command
       ● train@init=simclr,rate=0.1,seed=1      command
    2  ● evaluate@init=scratch,rate=0.1,seed=1  command  ← model: train@init=scratch,rate=0.1,seed=1, words
       ● evaluate@init=simclr,rate=0.1,seed=1   command  ← model: train@init=simclr,rate=0.1,seed=1, words

    ● fresh   ○ dirty: must run   ◌ waiting: runs if its inputs change
    ");
    assert_snapshot!(project.pipeline("graph experiment.toml --format dot"), @r##"
    status 0
    --- stdout
    digraph "many" {
      rankdir = LR;
      node [shape = box, style = "rounded,filled", fontname = "Helvetica"];
      edge [fontname = "Helvetica", fontsize = 10, color = "#555555"];
      "words" [label = "words\ncommand", fillcolor = "#d9f2d9", tooltip = "fresh"];
      "train" [label = "train\ncommand\n12: 8 fresh, 4 to run", fillcolor = "#ffe0b3", tooltip = "dirty"];
      "evaluate" [label = "evaluate\ncommand\n12: 8 fresh, 4 waiting", fillcolor = "#f0f0f0", tooltip = "waiting"];
      "train" -> "evaluate" [label = "model"];
      "words" -> "evaluate" [label = "words"];
    }
    "##);
    assert_snapshot!(project.pipeline("graph experiment.toml --format mermaid"), @r#"
    status 0
    --- stdout
    flowchart LR
      s0["words<br><small>command</small>"]:::fresh
      s1["train<br><small>command<br>12: 8 fresh, 4 to run</small>"]:::dirty
      s2["evaluate<br><small>command<br>12: 8 fresh, 4 waiting</small>"]:::waiting
      s1 -->|model| s2
      s0 -->|words| s2
      classDef fresh fill:#d9f2d9,stroke:#4a8f4a,color:#000
      classDef dirty fill:#ffe0b3,stroke:#b37400,color:#000
      classDef waiting fill:#f0f0f0,stroke:#888888,color:#000
      classDef blocked fill:#f8d7da,stroke:#b02a37,color:#000
    "#);
    let all = project.pipeline("graph experiment.toml --format dot --all").printed();
    assert_eq!(all.matches("[label = \"model\"]").count(), 12, "{all}");
    let json = project.pipeline("graph experiment.toml --format json train").json();
    assert_eq!(json["stages"].as_array().map(Vec::len), Some(12));
}

#[test]
fn metrics_are_a_table() {
    let project = project();
    assert_snapshot!(project.pipeline("metrics experiment.toml").printed(), @r"
    evaluate
      init     rate  seed  accuracy  loss
      scratch  0.1   1     0.1000    1
      scratch  0.1   2     0.1000    2
      scratch  0.9   1     0.9000    1
      scratch  0.9   2     0.9000    2
      simclr   0.1   1     0.1000    1
      simclr   0.1   2     0.1000    2
      simclr   0.9   1     0.9000    1
      simclr   0.9   2     0.9000    2

    no result yet: 4 of train, 4 of evaluate (`pipeline run experiment.toml`)
    ");
    assert_snapshot!(project.pipeline("metrics experiment.toml evaluate@rate=0.9,seed=2,init=scratch").printed(), @r"
    evaluate@init=scratch,rate=0.9,seed=2  accuracy  0.9000
                                           loss      2
    ");
    project.edit(
        "\\\"accuracy\\\"",
        "\\\"a\\\": 1, \\\"b\\\": 2, \\\"c\\\": 3, \\\"d\\\": 4, \\\"e\\\": 5, \\\"accuracy\\\"",
    );
    project.pipeline("run experiment.toml evaluate@rate=0.9").success();
    assert_snapshot!(project.pipeline("metrics experiment.toml evaluate@rate=0.9").printed(), @r"
    evaluate
      init     rate  seed  a  accuracy  b  c  d  e
      scratch  0.9   1     1  0.9000    2  3  4  5
      scratch  0.9   2     1  0.9000    2  3  4  5
      simclr   0.9   1     1  0.9000    2  3  4  5
      simclr   0.9   2     1  0.9000    2  3  4  5

    `pipeline metrics experiment.toml evaluate@rate=0.9 --all` shows more
    ");
    assert_snapshot!(project.pipeline("metrics experiment.toml evaluate@rate=0.9 --all").printed(), @r"
    evaluate
      init     rate  seed  a  accuracy  b  c  d  e  loss
      scratch  0.9   1     1  0.9000    2  3  4  5  1
      scratch  0.9   2     1  0.9000    2  3  4  5  2
      simclr   0.9   1     1  0.9000    2  3  4  5  1
      simclr   0.9   2     1  0.9000    2  3  4  5  2
    ");
}

#[test]
fn why_explains_instances_together() {
    let project = project();
    project.edit("printf \"the words\"", "printf \"other words\"");
    assert_snapshot!(project.pipeline("why experiment.toml").printed(), @r#"
    words will run because:
      shell: "echo some words > \"$PIPELINE_OUTPUT/text\"; echo read; printf \"the words\"" -> "echo some words > \"$PIPELINE_OUTPUT/text\"; echo read; printf \"other words\""

    train@init=scratch,rate=0.1,seed=1 is fresh: artifact [digest], made just now
    it ran then because:
      no earlier run
    the same is true for 7 others, from train@init=scratch,rate=0.1,seed=2 to train@init=simclr,rate=0.9,seed=2

    train@init=scratch,rate=0.5,seed=1 will run because:
      no earlier run
      the nearest result is train@init=scratch,rate=0.1,seed=1, made just now, key [digest]:
        environment: {"INIT":"scratch","RATE":"0.1","SEED":"1"} -> {"INIT":"scratch","RATE":"0.5","SEED":"1"}
    the same is true for train@init=scratch,rate=0.5,seed=2, train@init=simclr,rate=0.5,seed=1, train@init=simclr,rate=0.5,seed=2

    evaluate@init=scratch,rate=0.1,seed=1 will run if the output of words changes
    words will run because:
      shell: "echo some words > \"$PIPELINE_OUTPUT/text\"; echo read; printf \"the words\"" -> "echo some words > \"$PIPELINE_OUTPUT/text\"; echo read; printf \"other words\""
    the same is true for 7 others, from evaluate@init=scratch,rate=0.1,seed=2 to evaluate@init=simclr,rate=0.9,seed=2

    evaluate@init=scratch,rate=0.5,seed=1 will run after words, train@init=scratch,rate=0.5,seed=1, because:
      no earlier run
    words will run because:
      shell: "echo some words > \"$PIPELINE_OUTPUT/text\"; echo read; printf \"the words\"" -> "echo some words > \"$PIPELINE_OUTPUT/text\"; echo read; printf \"other words\""
    train@init=scratch,rate=0.5,seed=1 will run because:
      no earlier run
    the same is true for evaluate@init=scratch,rate=0.5,seed=2, evaluate@init=simclr,rate=0.5,seed=1, evaluate@init=simclr,rate=0.5,seed=2
    "#);
    let all = project.pipeline("why experiment.toml --all evaluate").printed();
    assert_eq!(all.matches("evaluate@").count(), 12, "{all}");
    assert!(!all.contains("the same is true"), "{all}");
}

#[test]
fn logs_have_headings_and_paths_have_names() {
    let project = project();
    assert_snapshot!(project.pipeline("log experiment.toml words train@seed=1"), @r"
    status 0
    --- stderr
    words took [time], cpu [time], memory [size], read 0 B, written 11 B
    train@init=scratch,rate=0.1,seed=1 took [time], cpu [time], memory [size], read 0 B, written 12 B
    train@init=scratch,rate=0.9,seed=1 took [time], cpu [time], memory [size], read 0 B, written 12 B
    train@init=simclr,rate=0.1,seed=1 took [time], cpu [time], memory [size], read 0 B, written 11 B
    train@init=simclr,rate=0.9,seed=1 took [time], cpu [time], memory [size], read 0 B, written 11 B
    without a log, as they have not run yet: train@init=scratch,rate=0.5,seed=1, train@init=simclr,rate=0.5,seed=1
    --- stdout
    ==> words <==
    read
    the words

    ==> train@init=scratch,rate=0.1,seed=1 <==
    scratch 0.1 1

    ==> train@init=scratch,rate=0.9,seed=1 <==
    scratch 0.9 1

    ==> train@init=simclr,rate=0.1,seed=1 <==
    simclr 0.1 1

    ==> train@init=simclr,rate=0.9,seed=1 <==
    simclr 0.9 1
    ");
    assert_snapshot!(project.pipeline("log experiment.toml train@rate=0.5"), @r"
    status 2
    --- stderr
    error: none of these has a log: they have not run yet
    ");
    assert_snapshot!(project.pipeline("log experiment.toml train@rate=0.1,seed=1,init=simclr"), @r"
    status 0
    --- stderr
    train@init=simclr,rate=0.1,seed=1 took [time], cpu [time], memory [size], read 0 B, written 11 B
    --- stdout
    simclr 0.1 1
    ");
    assert_snapshot!(project.pipeline("path experiment.toml words train@rate=0.1,seed=1"), @r"
    status 0
    --- stdout
    words	[project]/cache/store/[digest]
    train@init=scratch,rate=0.1,seed=1	[project]/cache/store/[digest]
    train@init=simclr,rate=0.1,seed=1	[project]/cache/store/[digest]
    ");
    assert_snapshot!(project.pipeline("path experiment.toml words train@seed=1 --set matrix.seed=[1,2,3]"), @r"
    status 2
    --- stderr
    error: without an artifact for this manifest: train@init=scratch,rate=0.5,seed=1, train@init=simclr,rate=0.5,seed=1; `pipeline run experiment.toml words train@seed=1 --set 'matrix.seed=[1,2,3]'` makes what is missing
    --- stdout
    words	[project]/cache/store/[digest]
    train@init=scratch,rate=0.1,seed=1	[project]/cache/store/[digest]
    train@init=scratch,rate=0.9,seed=1	[project]/cache/store/[digest]
    train@init=simclr,rate=0.1,seed=1	[project]/cache/store/[digest]
    train@init=simclr,rate=0.9,seed=1	[project]/cache/store/[digest]
    ");
}

#[test]
fn a_path_has_its_name_where_several_could_be_meant() {
    let project = project();
    let path = |stages: &str| project.pipeline(&format!("path experiment.toml {stages}")).printed();
    let named = "train@init=scratch,rate=0.1,seed=1\t";
    for stages in [
        "train@init=scratch,rate=0.1,seed=1 --only seed=1 train@rate=0.1,init=scratch,seed=1",
        "train@init=scratch,rate=0.1 --only seed=1",
        "train@init=scratch,rate=0.1 --set matrix.seed=[1]",
        "t*@init=scratch,rate=0.1,seed=1",
        "train@init=scr*,rate=0.1,seed=1",
    ] {
        assert!(path(stages).starts_with(named), "{stages}");
    }
    for stages in ["words", "train@seed=1,rate=0.10,init=scratch"] {
        assert!(path(stages).starts_with("[project]"), "{stages}");
    }
    assert!(path("word*").starts_with("words\t"));
    // All of a manifest that has one instance now.
    let one = Sandbox::new(
        "[experiment]\nname = \"one\"\nseed = 1\n[matrix]\nn = [1]\n[stages.one]\nkind = \"command\"\n\
         shell = \"echo $N > $PIPELINE_OUTPUT/n\"\nenvironment = { N = \"${n}\" }\n",
    );
    one.pipeline("run experiment.toml").success();
    assert!(one.pipeline("path experiment.toml").printed().starts_with("one@n=1\t"));
}

#[test]
fn plan_shows_how_long_it_may_take() {
    let project = project();
    let plan =
        |arguments: &str| project.pipeline(&format!("plan experiment.toml {arguments}")).printed();
    let echo = "echo \"${INIT} ${RATE} ${SEED}\"";
    project.edit(echo, &format!("sleep 0.6; {echo}"));
    project.pipeline("run experiment.toml train@rate=0.9").success();
    let seeds: Vec<u8> = (1..=40).collect();
    project.edit("seed = [1, 2]", &format!("seed = {seeds:?}"));
    let text = plan("train");
    assert!(text.contains("train  240: 4 fresh, 236 to run, at most "), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(
        last.contains("236 would run, 4 are fresh; at most ") && last.ends_with("min"),
        "{text}"
    );
    // Of other instances, where none is planned that ran.
    let text = plan("train@rate=0.5,init=scratch");
    assert!(text.contains("40 would run, 0 are fresh; at most "), "{text}");
    // Nothing is known of a new stage.
    let new = "[stages.new]\nkind = \"command\"\nrun = [\"true\"]\n\n";
    project.edit("[stages.words]", &format!("{new}[stages.words]"));
    let text = plan("new train");
    assert!(text.contains("; at most ") && text.contains(" for 236 of 237\n"), "{text}");
    let json = project.pipeline("plan experiment.toml --json new train").json();
    let stages = json["stages"].as_array().cloned().unwrap_or_default();
    let expected = stages.iter().filter(|stage| stage["expected-seconds"].is_f64());
    assert_eq!((stages.len(), expected.count()), (241, 236));
}

/// What a plan prints, with the times blanked that it expects.
fn expected(ended: &Ended) -> String {
    let text = ended.to_string();
    let lines = text.lines().map(|line| match line.split_once("at most ") {
        Some((before, _)) => format!("{before}at most [time]\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn plan_shows_how_long_it_may_take_whyever_it_runs() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "slow"
[matrix]
n = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
[stages.words]
kind = "command"
shell = 'echo words > "$PIPELINE_OUTPUT/text"'
[stages.train]
kind = "command"
inputs = { words = "words" }
environment = { N = "${n}" }
shell = 'sleep 1; echo $N > "$PIPELINE_OUTPUT/text"'
"#,
    );
    project.pipeline("run experiment.toml --jobs 12").success();
    let plan = |arguments: &str| {
        expected(&project.pipeline(&format!("plan experiment.toml --jobs 1 {arguments}")))
    };
    assert_snapshot!(plan("--force train"), @r"
    status 0
    --- stdout
    words  fresh
    train  12: 12 to run, at most [time]

    slow: 12 would run, 1 is fresh; at most [time]
    ");
    let json = project.pipeline("plan experiment.toml --force train --json").json();
    let stages = json["stages"].as_array().cloned().unwrap_or_default();
    let known = stages.iter().filter(|stage| stage["expected-seconds"].as_f64() >= Some(1.0));
    assert_eq!((known.count(), json["expected-seconds"].is_f64()), (12, true), "{json}");
    // Lost: all artifacts but that of `words`.
    let words = project.artifact("words");
    let store = project.cache("store");
    let others = names(&store).into_iter().map(|name| store.join(name));
    let others: Vec<_> = others.filter(|artifact| *artifact != words).collect();
    let moved = project.path("moved");
    fs::create_dir(&moved).expect("ours");
    for artifact in &others {
        project.unprotect(artifact);
        fs::rename(artifact, moved.join(artifact.file_name().expect("a name"))).expect("ours");
    }
    assert_snapshot!(plan("train"), @r"
    status 0
    --- stdout
    words  fresh
    train  12: 12 to run, at most [time]

    slow: 12 would run, 1 is fresh; at most [time]
    ");
    for artifact in &others {
        fs::rename(moved.join(artifact.file_name().expect("a name")), artifact).expect("ours");
    }
    // Damaged: all records but one of a training.
    let records = walk(&project.cache("records")).into_iter().filter(|path| path.is_file());
    let records = records.map(|path| (fs::read(&path).expect("ours"), path));
    let is_of_training = |text: &[u8]| String::from_utf8_lossy(text).contains("sleep 1");
    let records: Vec<_> = records.filter(|(text, _)| is_of_training(text)).collect();
    records[1..].iter().for_each(|(_, path)| fs::write(path, "{}").expect("ours"));
    assert_snapshot!(plan("train"), @r"
    status 0
    --- stdout
    words  fresh
    train  12: 1 fresh, 11 to run, at most [time]

    slow: 11 would run, 2 are fresh; at most [time]
    ");
    records[1..].iter().for_each(|(text, path)| fs::write(path, text).expect("ours"));
    // What was made from damaged bytes does not count.
    project.unprotect(&words);
    fs::write(words.join("text"), "swords\n").expect("ours");
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(1));
    project.pipeline("run experiment.toml words").success();
    assert_snapshot!(plan("train"), @r"
    status 0
    --- stdout
    words  fresh
    train  12: 12 to run, at most [time]

    slow: 12 would run, 1 is fresh; at most [time]
    ");
}
