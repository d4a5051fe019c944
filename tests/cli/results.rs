//! Every recorded result of a stage, and two of them beside each other.

use insta::assert_snapshot;
use serde_json::json;

use crate::manifests::TRAINING;
use crate::support::{Sandbox, walk};

/// Noise at two rates; a score that depends on it and on how long something runs.
const SCORES: &str = r#"
[experiment]
name = "scores"

[matrix]
rate = [0.5, 0.9]

[stages.noise]
kind = "command"
environment = { RATE = "${rate}" }
shell = 'echo "$RATE" > "$PIPELINE_OUTPUT/rate"'

[stages.train]
kind = "command"
inputs = { noise = "noise" }
environment = { EPOCHS = "10", SECRET = "x" }
shell = 'read rate < "$PIPELINE_INPUT_NOISE/rate"; echo "$rate $EPOCHS" > "$PIPELINE_OUTPUT/model"'

[stages.score]
kind = "command"
inputs = { model = "train" }
output = "metrics"
shell = 'read rate epochs < "$PIPELINE_INPUT_MODEL/model"; echo "{\"accuracy\": $rate, \"epochs-done\": $epochs}" > "$PIPELINE_OUTPUT/metrics.json"'
"#;

/// Ran with 10 epochs, with 3, and, renamed and edited, with 20 at one rate.
fn project() -> Sandbox {
    let project = Sandbox::new(SCORES);
    project.pipeline("run experiment.toml").success();
    project.pipeline("run experiment.toml --set stages.train.environment.EPOCHS=\"3\"").success();
    project.edit("EPOCHS = \"10\"", "EPOCHS = \"20\"");
    project.pipeline("run experiment.toml --set matrix.rate=[0.9]").success();
    project
}

/// A training that diverged is the best of none.
#[test]
fn what_is_not_a_number_is_last_from_either_end() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "scores"

[matrix]
value = ["0.5", "NaN", "0.25"]

[stages.score]
kind = "command"
output = "metrics"
environment = { VALUE = "${value}" }
shell = 'echo "{\"accuracy\": $VALUE}" > "$PIPELINE_OUTPUT/metrics.json"'
"#,
    );
    project.pipeline("run experiment.toml").success();
    for (end, expected) in
        [("", json!([0.5, 0.25, "NaN"])), ("--reverse", json!([0.25, 0.5, "NaN"]))]
    {
        let results = format!("results experiment.toml --json --sort accuracy {end}");
        let json = project.pipeline(&results).json();
        let results = json.as_array().expect("a list").iter();
        let found: Vec<_> = results.map(|result| &result["metrics"]["accuracy"]).collect();
        assert_eq!(json!(found), expected, "{end}");
    }
}

#[test]
fn results_under_all_parameters() {
    let project = project();
    assert_snapshot!(project.pipeline("results experiment.toml score").printed(), @r"
    score
      rate  train.environment.EPOCHS  accuracy  epochs-done  key           current
      0.5   3                         0.5000    3            [digest]
      0.5   10                        0.5000    10           [digest]
      0.9   3                         0.9000    3            [digest]
      0.9   10                        0.9000    10           [digest]
      0.9   20                        0.9000    20           [digest]  yes
    ");
    assert_snapshot!(project.pipeline("results experiment.toml --where rate=.90 --sort epochs-done --markdown").printed(), @r"
    ### score

    | train.environment.EPOCHS | accuracy | epochs-done | key | current |
    |---|---|---|---|---|
    | 20 | 0.9000 | 20 | [digest] | yes |
    | 10 | 0.9000 | 10 | [digest] |  |
    | 3 | 0.9000 | 3 | [digest] |  |
    ");
    let csv = project.pipeline(
        "results experiment.toml score@rate=0.9 --where EPOCHS=3 --where EPOCHS=10 --csv",
    );
    let lines = csv.stdout.lines().map(|line| {
        let mut cells: Vec<&str> = line.split(',').collect();
        // The key, and when it was made.
        (cells[2], cells[4]) = ("", "");
        cells.join(",")
    });
    assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    stage,instance,,current,,train.environment.EPOCHS,accuracy,epochs-done
    score,score@rate=0.9,,false,,3,0.9,3
    score,score@rate=0.9,,false,,10,0.9,10
    ");
    let count = |conditions: &str| {
        let json = project.pipeline(&format!("results experiment.toml --json {conditions}")).json();
        json.as_array().map(Vec::len)
    };
    assert_eq!(count("--where rate=0.9,EPOCHS=3"), Some(1));
    assert_eq!(count("--where EPOCHS=3,EPOCHS=10 --where rate=0.9"), Some(2));
    // These are no names, but parts of a value.
    assert_eq!(count("--where rate=0.9,3"), Some(0));
    assert_eq!(count("--where rate=[0.9,EPOCHS=3]"), Some(0));
    let json = project.pipeline("results experiment.toml --json --sort accuracy --reverse").json();
    assert_eq!(json.as_array().map(Vec::len), Some(5));
    assert_eq!(json[0]["metrics"]["accuracy"], 0.5);
    assert_eq!(json[4]["axes"]["rate"], 0.9);
    assert_eq!(
        json[4]["parameters"]["train.environment.EPOCHS"].as_str().map(str::is_empty),
        Some(false)
    );
    for (arguments, error) in [
        ("--where epoch=3", "error: no result has a parameter or an axis 'epoch'; "),
        ("--sort accurac", "error: no result has 'accurac'; did you mean 'accuracy'?\n"),
        (
            "--sort nope",
            "error: no result has 'nope'; there are: rate, train.environment.EPOCHS, accuracy, epochs-done\n",
        ),
        ("nothing", "error: experiment.toml has no stage 'nothing'; "),
    ] {
        let ended = project.pipeline(&format!("results experiment.toml {arguments}"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.starts_with(error), "{ended}");
    }
    // Without a history, what is current and what was last is still found.
    std::fs::remove_dir_all(project.cache("history")).expect("ours");
    let json = project.pipeline("results experiment.toml --json").json();
    assert_eq!(json.as_array().map(Vec::len), Some(2));
}

#[test]
fn results_that_used_clean_labels_are_marked() {
    let split = "[stages.split]\nkind = \"command\"\noutput = \"split\"\nshell = 'echo 1 > \"$PIPELINE_OUTPUT/split.safetensors\"'\n";
    let manifest = TRAINING.replace("init = \"simclr\"", "init = \"simclr\"\nsplit = \"split\"");
    let project = Sandbox::new(&format!("{manifest}{split}")).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    assert!(!project.pipeline("results experiment.toml").stdout.contains("clean-labels"));
    project.pipeline("run experiment.toml --set stages.train.method=\"meta-weight-net\"").success();
    let results = project.pipeline("results experiment.toml evaluate").printed();
    assert!(results.contains("clean-labels"), "{results}");
    let assert_marked = || {
        let json = project.pipeline("results experiment.toml evaluate --json").json();
        let marks = json.as_array().into_iter().flatten().map(|result| &result["clean-labels"]);
        assert_eq!(marks.collect::<Vec<_>>(), [false, true]);
    };
    assert_marked();
    // Also where it is not known any more what the encoder was made by.
    for file in walk(&project.cache("records")).into_iter().filter(|path| path.is_file()) {
        let record = std::fs::read_to_string(&file).expect("a record");
        if record.contains(r#""name": "pretrain-simclr""#) {
            std::fs::remove_file(file).expect("ours");
        }
    }
    assert_marked();
}

/// A training on labels that are corrupted but for the samples that a split holds out.
const SPLITS: &str = r#"
[experiment]
name = "splits"

[stages.data]
kind = "dataset"
format = "image-folder"
path = "photos"
size = 32

[stages.split]
kind = "split"
data = "data"
holdout = 2

[stages.other]
kind = "split"
data = "data"
holdout = 1

[stages.noisy]
kind = "corrupt-labels"
data = "data"
split = "split"
rate = 0.5

[stages.train]
kind = "train"
data = "data"
labels = "noisy"
split = "split"
architecture = "resnet8"
"#;

#[test]
fn results_of_a_training_with_another_split_than_its_labels_are_marked() {
    let project = Sandbox::new(SPLITS).with_fake_learn("");
    project.write_photos("photos", &["cat", "dog"], 4, 1);
    let marks = || {
        let results = project.pipeline("results experiment.toml train --json").json();
        let results = results.as_array().expect("a list").iter();
        results.filter(|result| result["clean-labels"] == true).count()
    };
    project.pipeline("run experiment.toml").success();
    assert_eq!(marks(), 0);
    project.pipeline("run experiment.toml --set stages.train.split=other").success();
    assert_eq!(marks(), 1);
}

#[test]
fn two_results_beside_each_other() {
    let project = project();
    assert_snapshot!(project.pipeline("compare experiment.toml score@rate=0.5 score@rate=0.9").printed(), @r"
                              score@rate=0.5  score@rate=0.9
    key                       [digest]    [digest]
    made                      just now        just now
    noise.environment.RATE    0.5             0.9
    train.environment.EPOCHS  3               20

    metric                       difference
    accuracy     0.5000  0.9000  +0.4000
    epochs-done  3       20      +17
    ");
    let json =
        project.pipeline("results experiment.toml --json --where EPOCHS=10 score@rate=0.9").json();
    let key = &json[0]["key"].as_str().expect("a key")[..10];
    assert_snapshot!(project.pipeline(&format!("compare experiment.toml {key} score@rate=0.9")).printed(), @r"
                              score@rate=0.9  score@rate=0.9
    key                       [digest]    [digest]
    made                      just now        just now
    train.environment.EPOCHS  10              20

    metric                       difference
    accuracy     0.9000  0.9000  0
    epochs-done  10      20      +10
    ");
    let compared =
        project.pipeline(&format!("compare experiment.toml {key} score@rate=0.9 --json")).json();
    assert_snapshot!(compared["differences"], @r#"{"accuracy":0.0,"epochs-done":10.0}"#);
    let all = project.pipeline(&format!("compare experiment.toml {key} {key} --all")).printed();
    assert!(all.contains("train.environment.SECRET  x  "), "{all}");
    let short = project.pipeline(&format!("compare experiment.toml {} score", &key[..5]));
    let words =
        format!("if '{}' is the beginning of a key, write more of it: at least 6", &key[..5]);
    assert!(short.code() == Some(2) && short.stderr.contains(&words), "{short}");
    let help = project.pipeline("compare --help").printed();
    assert!(help.contains("first digits: at least 6"), "{help}");
    for (arguments, error) in [
        ("score@rate=0.5", "error: name two results"),
        ("score train", "error: 'score' is 2 stages; name one of them: score@rate=0.5\n"),
        (
            "abcdef0 score@rate=0.5",
            "error: no recorded result has a key that begins with 'abcdef0'",
        ),
    ] {
        let ended = project.pipeline(&format!("compare experiment.toml {arguments}"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.starts_with(error), "{ended}");
    }
}

#[test]
fn why_compares_with_the_nearest_result() {
    let project = project();
    project.pipeline("run experiment.toml").success();
    // Nearer to what an earlier run had than to the last one.
    project.edit("EPOCHS = \"20\"", "EPOCHS = \"3\"");
    project.edit("echo \"$rate $EPOCHS\"", "echo $rate $EPOCHS");
    assert_snapshot!(project.pipeline("why experiment.toml train@rate=0.9").printed(), @r#"
    train@rate=0.9 will run because:
      environment: {"EPOCHS":"20","SECRET":"x"} -> {"EPOCHS":"3","SECRET":"x"}
      shell: "read rate < \"$PIPELINE_INPUT_NOISE/rate\"; echo \"$rate $EPOCHS\" > \"$PIPELINE_OUTPUT/model\"" -> "read rate < \"$PIPELINE_INPUT_NOISE/rate\"; echo $rate $EPOCHS > \"$PIPELINE_OUTPUT/model\""
      the nearest result is train@rate=0.9, made just now, key [digest]:
        shell: "read rate < \"$PIPELINE_INPUT_NOISE/rate\"; echo \"$rate $EPOCHS\" > \"$PIPELINE_OUTPUT/model\"" -> "read rate < \"$PIPELINE_INPUT_NOISE/rate\"; echo $rate $EPOCHS > \"$PIPELINE_OUTPUT/model\""
    "#);
    // An instance that never ran.
    project.edit("rate = [0.5, 0.9]", "rate = [0.5, 0.7, 0.9]");
    assert_snapshot!(project.pipeline("why experiment.toml noise@rate=0.7").printed(), @r#"
    noise@rate=0.7 will run because:
      no earlier run
      the nearest result is noise@rate=0.5, made just now, key [digest]:
        environment: {"RATE":"0.5"} -> {"RATE":"0.7"}
    "#);
}

#[test]
fn parameters_of_a_stage_that_only_some_results_have() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "partly"

[matrix.init]
scratch = {}
simclr = { weights = "encoder" }

[stages.encoder]
kind = "command"
shell = "echo 1 > $PIPELINE_OUTPUT/weights"

[stages.score]
kind = "command"
inputs = { encoder = "${init.weights}" }
output = "metrics"
shell = "echo '{\"accuracy\": 0.5}' > $PIPELINE_OUTPUT/metrics.json"
"#,
    );
    project.pipeline("run experiment.toml").success();
    // The axis says which results have an encoder.
    assert_snapshot!(project.pipeline("results experiment.toml score").printed(), @r#"
    score
      init     accuracy  key           current
      scratch  0.5000    [digest]  yes
      simclr   0.5000    [digest]  yes
    "#);
    project.edit("echo 1", "echo 2");
    project.pipeline("run experiment.toml").success();
    // Encoders differ.
    assert_snapshot!(project.pipeline("results experiment.toml score").printed(), @r#"
    score
      init     encoder.shell                      accuracy  key           current
      scratch  -                                  0.5000    [digest]  yes
      simclr   echo 1 > $PIPELINE_OUTPUT/weights  0.5000    [digest]
      simclr   echo 2 > $PIPELINE_OUTPUT/weights  0.5000    [digest]  yes
    "#);
    // No axis says it.
    project.edit("[matrix.init]\nscratch = {}\nsimclr = { weights = \"encoder\" }\n", "");
    project.edit("${init.weights}", "encoder");
    project.pipeline("run experiment.toml").success();
    project.edit("inputs = { encoder = \"encoder\" }\n", "");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("results experiment.toml score").printed(), @r#"
    score
      init    encoder.kind  encoder.shell                      accuracy  key           current
      -       -             -                                  0.5000    [digest]  yes
      -       command       echo 2 > $PIPELINE_OUTPUT/weights  0.5000    [digest]
      simclr  command       echo 1 > $PIPELINE_OUTPUT/weights  0.5000    [digest]
    "#);
}

#[test]
fn an_axis_and_what_it_sets_are_one_column() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "columns"

[matrix]
lr = [0.1]

[stages.score]
kind = "command"
output = "metrics"
environment = { rate = "0.2" }
run = ["sh", "-c", 'echo "{{\"accuracy\": $1}}" > {output}/metrics.json', "sh", "${lr}"]
"#,
    );
    project.pipeline("run experiment.toml").success();
    project.edit("lr = [0.1]", "lr = [0.1, 0.3]\nrate = [0.5]");
    project.edit("rate = \"0.2\"", "rate = \"${rate}\"");
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("results experiment.toml").printed(), @r"
    score
      lr   rate  accuracy  key           current
      0.1  0.2   0.1000    [digest]
      0.1  0.5   0.1000    [digest]  yes
      0.3  0.5   0.3000    [digest]  yes
    ");
}

#[test]
fn metrics_name_the_command_for_results_with_other_values() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "earlier"

[stages.score]
kind = "command"
shell = 'echo "{\"x\": $X}" > "$PIPELINE_OUTPUT/metrics.json"'
environment = { X = "1" }
output = "metrics"
"#,
    );
    let metrics =
        |set: &str| project.pipeline(&format!("metrics experiment.toml score{set}")).stdout;
    assert_eq!(metrics(""), "no result yet: score (`pipeline run experiment.toml score`)\n");
    project.pipeline("run experiment.toml").success();
    assert_eq!(metrics(""), "score  x  1\n");
    let other = metrics(" --set stages.score.environment.X=\"2\"");
    assert!(other.starts_with("no result yet: score (`pipeline run "), "{other}");
    assert!(
        other.contains("); earlier ones: `pipeline results experiment.toml score --set "),
        "{other}"
    );
}
