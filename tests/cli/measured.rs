//! What a program of the user's measured: from its `metrics.json` to every place that shows it.

use insta::assert_snapshot;
use serde_json::json;

use crate::support::Sandbox;

#[test]
fn nan_infinities_nested_numbers_and_notes() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "scores"

[stages.score]
kind = "command"
output = "metrics"
shell = """
echo '{"accuracy": 0.91, "auc": NaN, "loss": {"test": Infinity, "train": -Infinity}, "model": "r18"}' > "$PIPELINE_OUTPUT/metrics.json"
"""
"#,
    );
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 0
    --- stderr
          score (command) runs: no earlier run
          score: metrics.json: left out 'model' (a string); a metric is a number
    done  score in [time]
    --- stdout

    stage  result  time  metrics
    score  ran  [time]  accuracy 0.9100, auc NaN, loss/test Infinity

    scores: 1 ran in [time]
    ");
    assert_snapshot!(project.pipeline("metrics experiment.toml").printed(), @r"
    score  accuracy    0.9100
           auc         NaN
           loss/test   Infinity
           loss/train  -Infinity
    ");
    let expected =
        json!({"accuracy": 0.91, "auc": "NaN", "loss/test": "Infinity", "loss/train": "-Infinity"});
    assert_eq!(project.pipeline("metrics experiment.toml --json").json()["score"], expected);
    // Read from its record.
    assert_eq!(project.pipeline("run experiment.toml").success(), "score fresh");
    // The same NaN is not a difference.
    let again = project.pipeline("verify experiment.toml --rerun score --json");
    assert_eq!(again.json()["result"], "reproduced", "{again}");
}

#[test]
fn only_broken_json_fails() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "scores"

[stages.score]
kind = "command"
output = "metrics"
shell = """echo '{"accuracy": ' > "$PIPELINE_OUTPUT/metrics.json" """
"#,
    );
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains(": metrics.json is not JSON: it ends too early\n"), "{ended}");
}
