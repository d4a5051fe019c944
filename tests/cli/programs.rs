//! docs/programs.md: what it says of JSON and exit statuses is what there is.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::documents::document;
use crate::support::Sandbox;

const MANIFEST: &str = r#"
[experiment]
name = "programs"

[matrix]
x = [1, 2]

[stages.make]
kind = "command"
shell = 'echo "$X" > "$PIPELINE_OUTPUT/x"; test "$X" = 1'
environment = { X = "${x}" }

[stages.score]
kind = "command"
inputs = { of = "make" }
shell = 'echo "{\"x\": 1}" > "$PIPELINE_OUTPUT/metrics.json"'
output = "metrics"
"#;

/// What has names of its own below it, or those of another page.
const OF_OTHERS: [&str; 8] =
    ["metrics", "parameters", "axes", "usage", "last-run", "failed", "interrupted", "ran-on"];

fn fields(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(fields_of) => {
            for (name, value) in fields_of {
                found.insert(name.clone());
                if !OF_OTHERS.contains(&name.as_str()) {
                    fields(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
        _ => {}
    }
}

#[test]
fn every_field_is_documented_and_exit_statuses_are_right() {
    let (text, project) = (document("programs.md"), Sandbox::new(MANIFEST));
    let status = |command: &str| project.pipeline(command).code();
    assert_eq!(status("plan experiment.toml --exit-code"), Some(1));
    let run = project.pipeline("run experiment.toml --keep-going --progress json");
    assert_eq!(run.code(), Some(1), "{run}");
    assert_eq!(status("run nothing.toml"), Some(2));
    assert_eq!(status("path experiment.toml score@x=2"), Some(2));
    let mut found = BTreeSet::new();
    for line in run.stdout.lines() {
        let event: Value = serde_json::from_str(line).expect("an object a line");
        found.extend(
            ["event", "outcome"].iter().filter_map(|it| Some(event.get(*it)?.as_str()?.to_owned())),
        );
        fields(&event, &mut found);
    }
    for command in ["plan", "status", "results", "plan --set matrix.x=[3]"] {
        let json = project.pipeline(&format!("{command} experiment.toml --json")).json();
        for stage in json["stages"].as_array().into_iter().flatten() {
            found.extend(stage["state"].as_str().map(str::to_owned));
            found.extend(stage["why"]["reason"].as_str().map(str::to_owned));
        }
        fields(&json, &mut found);
    }
    for name in ["begin", "skipped", "dirty", "never-ran", "because", "complete", "clean-labels"] {
        assert!(found.contains(name), "{name} is in none of {found:?}");
    }
    let unknown: Vec<_> =
        found.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    project.write("experiment.toml", MANIFEST.replace("x = [1, 2]", "x = [1]"));
    assert_eq!(status("run experiment.toml"), Some(0));
    assert_eq!(status("plan experiment.toml --exit-code"), Some(0));
}

#[test]
fn every_command_with_json_is_named() {
    let (text, project) = (document("programs.md"), Sandbox::new(MANIFEST));
    let (_, named) = text.split_once("`--json` of ").expect("the commands");
    let named = named.split_once("`--format json`").expect("their end").0;
    let mut named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
    let help = project.pipeline("--help").stdout;
    let (_, commands) = help.split_once("Commands:\n").expect("a list");
    let commands = commands.split("\n\n").next().unwrap_or_default().lines();
    let names = commands.filter_map(|line| line.split_whitespace().next());
    let mut with_json = Vec::new();
    for name in names.filter(|name| *name != "help") {
        let nested = match name {
            "cache" => vec!["cache size".to_owned(), "cache limit".to_owned()],
            "remote" => vec!["remote status".to_owned()],
            name => vec![name.to_owned()],
        };
        for name in nested {
            if project.pipeline(&format!("{name} --help")).stdout.contains("--json") {
                with_json.push(name);
            }
        }
    }
    named.sort_unstable();
    with_json.sort_unstable();
    assert_eq!(with_json, named);
}
