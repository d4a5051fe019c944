//! First run, second run, one edit: what runs again, and what never does.

use insta::assert_snapshot;

use crate::manifests::{TRAINING, WORDS};
use crate::support::{MANIFEST, Sandbox};

#[test]
fn the_second_run_does_nothing() {
    let project = Sandbox::new(WORDS);
    assert_snapshot!(project.pipeline("run experiment.toml --jobs 1"), @r#"
    status 0
    --- stderr
          words (command) runs: no earlier run
    done  words in [time]
          count (command) runs: no earlier run
    done  count in [time]
          report (command) runs: no earlier run
    done  report in [time]
          other (command) runs: no earlier run
    done  other in [time]
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  ran  [time]  words 6
    other  ran  [time]

    words: 4 ran in [time]
    "#);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stdout

    stage  result  time  metrics
    words  fresh
    count  fresh
    report  fresh  words 6
    other  fresh

    words: 4 fresh in [time]
    "#);
    assert_eq!(project.read("ran").lines().count(), 4, "each ran once");
}

#[test]
fn one_edit_runs_the_stage_and_its_descendants() {
    let project = Sandbox::new(WORDS);
    project.pipeline("run experiment.toml").success();
    project.edit("or not to be", "or maybe not to be");
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 0
    --- stdout
    words   dirty    shell: "echo words >> ran; echo \"to be or not to be\" > \"$PIPELINE_OUTPUT/text\"" -> "echo words >> ran; echo \"to be or maybe not to be\" > \"$PIPELINE_OUTPUT/text\""
    count   waiting  on words
    report  waiting  on count
    other   fresh

    words: 1 would run, 2 more if what they read changes, 1 is fresh
    "#);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          words (command) runs: shell: "echo words >> ran; echo \"to be or not to be\" > \"$PIPELINE_OUTPUT/text\"" -> "echo words >> ran; echo \"to be or maybe not to be\" > \"$PIPELINE_OUTPUT/text\""
    done  words in [time]
          count (command) runs: the content of input 'inputs.words' changed, through stage 'words'
    done  count in [time]
          report (command) runs: the content of input 'inputs.count' changed, through stage 'count'
    done  report in [time]
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  ran  [time]  words 7
    other  fresh

    words: 1 fresh, 3 ran in [time]
    "#);
    assert_snapshot!(project.pipeline("why experiment.toml report"), @r"
    status 0
    --- stdout
    report is fresh: artifact [digest], made just now
    it ran then because:
      the content of input 'inputs.count' changed, through stage 'count'
        count ran because: the content of input 'inputs.words' changed, through stage 'words'
    ");
}

#[test]
fn an_output_that_is_the_same_stops_there() {
    let project = Sandbox::new(WORDS);
    project.pipeline("run experiment.toml").success();
    project.edit("to be or not to be", "six words that are not those");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r#"
    words   dirty    shell: "echo words >> ran; echo \"to be or not to be\" > \"$PIPELINE_OUTPUT/text\"" -> "echo words >> ran; echo \"six words that are not those\" > \"$PIPELINE_OUTPUT/text\""
    count   waiting  on words
    report  waiting  on count
    other   fresh

    words: 1 would run, 2 more if what they read changes, 1 is fresh
    "#);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          words (command) runs: shell: "echo words >> ran; echo \"to be or not to be\" > \"$PIPELINE_OUTPUT/text\"" -> "echo words >> ran; echo \"six words that are not those\" > \"$PIPELINE_OUTPUT/text\""
    done  words in [time]
          count (command) runs: the content of input 'inputs.words' changed, through stage 'words'
    done  count in [time], with the same output as before
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  fresh  words 6
    other  fresh

    words: 2 fresh, 2 ran in [time]
    "#);
}

#[test]
fn going_back_to_an_old_value_runs_nothing() {
    let project = Sandbox::new(WORDS);
    let first = project.pipeline("run experiment.toml").success();
    project.edit("or not to be", "or maybe not to be");
    project.pipeline("run experiment.toml").success();
    project.edit("or maybe not to be", "or not to be");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words fresh, count fresh, report fresh, other fresh");
    assert_eq!(first.matches("ran").count(), 4);
}

#[test]
fn what_cannot_change_a_result_runs_nothing() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    let text = project.read(MANIFEST);
    let (head, stages) = text.split_once("[stages.data]").expect("a first stage");
    let mut tables: Vec<String> = format!("[stages.data]{stages}")
        .split("\n\n")
        .map(|table| table.trim().to_owned())
        .collect();
    tables.reverse();
    let reordered = format!("{head}\n{}\n", tables.join("\n\n"));
    for (what, edited) in [
        ("a comment", text.replace("epochs = 10", "epochs = 10 # as in the paper")),
        ("white space", text.replace("epochs = 10", "epochs   =   10")),
        ("another writing", text.replace("learning-rate = 0.02", "learning-rate = 2e-2")),
        ("a default", text.replace("epochs = 10", "epochs = 10\ntemperature = 0.5")),
        (
            "a whole number for a real one",
            text.replace("epochs = 10", "epochs = 10\nlearning-rate = 4"),
        ),
        (
            "the device",
            text.replace(
                "epochs = 10",
                "epochs = 10\nexecution = { device = \"cpu\", threads = 1 }",
            ),
        ),
        (
            "the experiment",
            text.replace("name = \"training\"", "name = \"renamed\"\nabout = \"x\""),
        ),
        (
            "a stage",
            text.replace("[stages.train]", "[stages.fit]")
                .replace("model = \"train\"", "model = \"fit\""),
        ),
        ("the order of tables", reordered),
    ] {
        assert_ne!(text, edited, "{what} is another text");
        project.write(MANIFEST, &edited);
        let ended = project.pipeline("run experiment.toml");
        let results = ended.success();
        assert_eq!(results.matches(" fresh").count(), 4, "{what}: {ended}");
        let plan = project.pipeline("plan experiment.toml --exit-code");
        assert_eq!(plan.code(), Some(0), "{what}: {plan}");
    }
}

#[test]
fn the_learning_rate_runs_the_training_and_its_evaluation() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 0
    --- stderr
          train (train) runs: learning-rate: 0.02 -> 0.03
    done  train in [time]
          evaluate (evaluate) runs: the content of input 'model' changed, through stage 'train'
    done  evaluate in [time]
    --- stdout

    stage  result  time  metrics
    data  fresh
    simclr  fresh  loss 0.5000
    train  ran  [time]  validation-accuracy 0.5000
    evaluate  ran  [time]  test-accuracy 0.5000, test-loss 0.5000

    training: 2 fresh, 2 ran in [time]
    ");
    assert_snapshot!(project.pipeline("why experiment.toml train"), @r"
    status 0
    --- stdout
    train is fresh: artifact [digest], made just now
    it ran then because:
      learning-rate: 0.02 -> 0.03
    ");
    assert_snapshot!(project.pipeline("why experiment.toml evaluate"), @r"
    status 0
    --- stdout
    evaluate is fresh: artifact [digest], made just now
    it ran then because:
      the content of input 'model' changed, through stage 'train'
        train ran because: learning-rate: 0.02 -> 0.03
    ");
}

#[test]
fn labels_are_purified_again_from_the_features_that_there_are() {
    let purified = r#"
[stages.features]
kind = "features"
weights = "simclr"
data = "data"

[stages.purified]
kind = "purify-labels"
features = "features"
method = "nearest-neighbours"
k = 20
"#;
    let labelled =
        TRAINING.replace("init = \"simclr\"", "init = \"simclr\"\nlabels = \"purified\"");
    let project = Sandbox::new(&format!("{labelled}{purified}")).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.edit("k = 20", "k = 30");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 0
    --- stderr
          purified (purify-labels) runs: k: 20 -> 30
    done  purified in [time]
          train (train) runs: the content of input 'labels' changed, through stage 'purified'
    done  train in [time]
          evaluate (evaluate) runs: the content of input 'model' changed, through stage 'train'
    done  evaluate in [time]
    --- stdout

    stage  result  time  metrics
    data  fresh
    simclr  fresh  loss 0.5000
    features  fresh  train-samples 0.5000, test-samples 0.5000, dimension 0.5000
    purified  ran  [time]  changed-labels 0.5000, label-accuracy-before 0.5000, label-accuracy-after 0.5000, clean-samples-used 0.5000
    train  ran  [time]  validation-accuracy 0.5000
    evaluate  ran  [time]  test-accuracy 0.5000, test-loss 0.5000

    training: 3 fresh, 3 ran in [time]
    ");
}

#[test]
fn another_seed_runs_what_draws() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.edit("seed = 7", "seed = 8");
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r"
    status 0
    --- stdout
    data      fresh
    simclr    dirty    seed: 7 -> 8
    train     waiting  on simclr; seed: 7 -> 8
    evaluate  waiting  on train

    training: 2 would run, 1 more if what they read changes, 1 is fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data fresh, simclr ran, train ran, evaluate ran");
}

#[test]
fn a_value_is_replaced_for_one_call() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    let set = "run experiment.toml --set stages.train.epochs=3";
    assert_snapshot!(project.pipeline(set).success(), @"data fresh, simclr fresh, train ran, evaluate ran");
    assert_snapshot!(project.pipeline(set).success(), @"data fresh, simclr fresh, train fresh, evaluate fresh");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data fresh, simclr fresh, train fresh, evaluate fresh");
    assert_snapshot!(project.pipeline("run experiment.toml --set stages.train.epoch=3"), @r"
    status 2
    --- stderr
    error: unknown key 'epoch', did you mean 'epochs'?
     |
     | --set stages.train.epoch=3
     |                    ^^^^^
     |
     = help: epochs: Passes over the training samples. By default 120.

    error: 1 mistake in experiment.toml; nothing was run
    ");
}

#[test]
fn a_file_of_ones_own_counts_by_its_content() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "script"

[stages.script]
kind = "command"
run = ["sh", "script.sh", "{output}"]
files = ["script.sh", "settings"]
"#,
    );
    project.write("script.sh", "cat settings/* > \"$1/all\"\n");
    project.write("settings/a", "1\n");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"script ran");
    // The same bytes at a later time.
    project.write("settings/a", "1\n");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"script fresh");
    project.write("settings/b", "2\n");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r"
    script  dirty  settings changed: b added

    script: 1 would run, 0 are fresh
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"script ran");
    std::fs::remove_file(project.path("script.sh")).expect("it exists");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: cannot read [project]/script.sh: No such file or directory (os error 2)
     --> experiment.toml:8:10
      |
    8 | files = ["script.sh", "settings"]
      |          ^^^^^^^^^^^

    error: 1 mistake in experiment.toml; nothing was run
    "#);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_recorded() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "race"

[stages.copy]
kind = "command"
shell = 'cp notes "$PIPELINE_OUTPUT/notes"; echo more >> notes'
files = ["notes"]
"#,
    );
    project.write("notes", "first\n");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 1
    --- stderr
          copy (command) runs: no earlier run
    FAIL  copy after [time]: notes changed while the stage read it, so the result is not recorded
          what it had written is kept in [project]/cache/failed/[digest]
    --- stdout

    stage  result  time  metrics
    copy  failed  [time]

    race: 1 failed in [time]; `pipeline log experiment.toml copy` shows the whole log
    ");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r"
    copy  dirty  no earlier run

    race: 1 would run, 0 are fresh
    ");
}

#[test]
fn a_file_that_changes_before_its_stage_starts_is_read_as_it_is_then() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "long"

[stages.first]
kind = "command"
shell = 'echo second > notes; echo done > "$PIPELINE_OUTPUT/done"'

[stages.copy]
kind = "command"
run = ["cp", "notes", "{output}/notes"]
inputs = { first = "first" }
files = ["notes"]
"#,
    );
    project.write("notes", "first\n");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"first ran, copy ran");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"first fresh, copy fresh");
}

#[test]
fn the_mirrors_of_a_checked_file_can_change() {
    let content = "the same bytes everywhere\n";
    let project = Sandbox::new(&format!(
        r#"
[experiment]
name = "mirrors"

[stages.download]
kind = "download"
url = "file:here/file.txt"
blake3 = "{}"
"#,
        blake3::hash(content.as_bytes())
    ));
    project.write("here/file.txt", content);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"download ran");
    project.edit("\"file:here/file.txt\"", "[\"file:gone/file.txt\", \"file:there/file.txt\"]");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"download fresh");
    // In a new cache the mirrors are tried in their order.
    project.write("there/file.txt", content);
    assert_snapshot!(project.pipeline("run experiment.toml --cache new").success(), @"download ran");
    project.write("there/file.txt", "other bytes\n");
    assert_snapshot!(project.pipeline("run experiment.toml --cache newer"), @r"
    status 1
    --- stderr
          download (download) runs: no earlier run
          download: file:gone/file.txt: [project]/gone/file.txt does not exist; trying the next mirror
    FAIL  download after [time]: cannot download 'file.txt' from any of 2 mirrors:
            file:gone/file.txt: [project]/gone/file.txt does not exist
            file:there/file.txt: wrong blake3: expected [digest], got [digest] (12 bytes)
    --- stdout

    stage  result  time  metrics
    download  failed  [time]

    mirrors: 1 failed in [time]; `pipeline log experiment.toml download --cache newer` shows the whole log
    ");
}
