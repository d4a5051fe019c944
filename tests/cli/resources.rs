//! What stages take of the machine: what is recorded of it, and how it is shared out.

use serde_json::Value;

use crate::support::Sandbox;

/// A stage that keeps 30 MB in a variable of a shell for a second, and one that reads what it wrote.
const MEMORY: &str = r#"
[experiment]
name = "memory"
[stages.large]
kind = "command"
shell = """
text=$(head -c 30000000 /dev/zero | tr '\\0' x)
sleep 1.2
printf %s "$text" | head -c 1000 > "$PIPELINE_OUTPUT/text"
"""
[stages.small]
kind = "command"
inputs = { large = "large" }
shell = "cp $PIPELINE_INPUT_LARGE/text $PIPELINE_OUTPUT/copy"
"#;

fn usage<'a>(status: &'a Value, stage: &str) -> &'a Value {
    let stages = status["stages"].as_array().expect("stages");
    let stage = stages.iter().find(|one| one["stage"] == stage).expect("the stage");
    &stage["last-run"]["usage"]
}

#[test]
fn a_record_has_what_its_stage_took() {
    let project = Sandbox::new(MEMORY);
    project.pipeline("run experiment.toml").success();
    let status = project.pipeline("status experiment.toml --json").json();
    let (large, small) = (usage(&status, "large"), usage(&status, "small"));
    let number = |usage: &Value, name: &str| usage[name].as_f64().expect(name);
    assert!(number(large, "cpu-seconds") > 0.0, "{large}");
    assert!(number(large, "peak-memory") > 30e6, "{large}");
    assert!((1e5..30e6).contains(&number(small, "peak-memory")), "{small}");
    assert_eq!((large["bytes-in"].as_u64(), small["bytes-in"].as_u64()), (Some(0), Some(1000)));
    assert_eq!(large["gpu-memory"], Value::Null);

    let shown = project.pipeline("status experiment.toml --usage").stdout;
    let head: Vec<_> = shown.lines().next().unwrap_or_default().split("  ").collect();
    let head: Vec<_> = head.into_iter().map(str::trim).filter(|word| !word.is_empty()).collect();
    let expected =
        ["stage", "kind", "state", "last run", "took", "cpu", "memory", "read", "artifact", "size"];
    assert_eq!(head, expected, "{shown}");
    let results = project.pipeline("results experiment.toml small --usage").stdout;
    assert!(results.contains(" read") && results.contains("1.0 kB"), "{results}");
    let results = project.pipeline("results experiment.toml small --json").json();
    assert_eq!(results[0]["usage"], *small);
    let csv = project.pipeline("results experiment.toml small --usage --csv").stdout;
    let (head, row) = csv.split_once('\n').expect("a head");
    let last = "seconds,cpu-seconds,peak-memory,gpu-memory,bytes-in,bytes-out";
    assert!(head.ends_with(last) && row.trim_end().ends_with(",,1000,1000"), "{csv}");
}
