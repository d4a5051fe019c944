//! `pipeline schema`: validators of others read it, and find what is wrong.
//!
//! Needs taplo (npm: @taplo/cli) and check-jsonschema (PyPI), in the PATH or where PIPELINE_TAPLO and
//! PIPELINE_CHECK_JSONSCHEMA say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Sandbox, skipped};

const SCHEMA: &str = "manifest.schema.json";

const BAD: &str = r#"#:schema manifest.schema.json

[experiment]
name = "bad"

[stages.data]
kind = "dataset"
format = "idxx"
path = "images"

[stages.noisy]
kind = "corrupt-labels"
data = "data"
rate = 1.5

[stages.raw]
kind = "download"
url = "ftp://example.org/a"
sha256 = "abc"

[stages.fit]
kind = "command"
run = ["x"]
shell = "x"
outputs = ["../a"]

[stages.empty]
kind = "command"
"#;

/// What the reader takes, with texts at the edges of their forms: validators have regular expressions of their own.
const ODD: &str = r#"#:schema manifest.schema.json

[experiment]
name = "größe 80 %"

[cache]
remote = "s3://bucket/a=1?endpoint=http://h:9000"

[tracking]
mlflow = "HTTP://[::1]:5000/a"

[executors.lsf]
kind = "command"
submit = "bsub < {script}"
state = ""
cancel = "bkill {ids}"

[matrix]
rate = [0.5, 1, true, "x_.+-Y", -0.1]
exclude = [{ rate = [1, true] }]

[matrix.point]
"0.5" = { sum = "0123456789abcdefABCDEF0123456789", variables = { "A B" = "x" } }
7 = { any = true, variables = { y = "z" } }

[matrix.program]
p = { shell = "echo ${HOME}" }
q = { run = ["x", "y"] }

[stages.raw]
kind = "download"
url = ["FILE:my data/a", "Https://h?a#b", "file:${point}"]
name = "a b"
md5 = "${point.sum}"
unverified = "${point.any}"

[stages.fit]
kind = "command"
run = ["x", "${rate}"]
outputs = ["./a//b", "a/...", "..a"]
ignore = ["***", "..a/b"]
sandbox-read = ["~", "~/a", "./~a"]
environment = "${point.variables}"
pass-environment = ["pipeline_x"]

[stages.other]
kind = "command"
with = ["program"]
"#;

/// The manifests of the project.
fn manifests() -> Vec<PathBuf> {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let folders = [pipelines.clone(), pipelines.join("paper")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

/// What a program says of files; `None` if it is not installed.
fn run(
    variable: &str,
    name: &str,
    arguments: &[&str],
    files: &[PathBuf],
    project: &Sandbox,
) -> Option<Output> {
    let program = std::env::var(variable).unwrap_or(name.to_owned());
    let mut command = Command::new(program);
    project.dress(&mut command);
    match command.args(arguments).args(files).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skipped(&format!("no {name}, so it did not check the manifests: {error}"));
            None
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn sandbox() -> Sandbox {
    let project = Sandbox::new("");
    let printed = project.command("schema").output().expect("it starts");
    assert!(printed.status.success());
    project.write(SCHEMA, printed.stdout);
    project.write("bad.toml", BAD);
    project.write("odd.toml", ODD);
    project
}

#[test]
fn the_schema_in_the_docs_is_what_the_program_prints() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manifest.schema.json");
    assert_eq!(sandbox().read(SCHEMA), fs::read_to_string(docs).expect("it exists"));
}

#[test]
fn what_the_validators_accept_at_the_edges_is_read() {
    let project = sandbox();
    let graph = project.command("graph").arg("odd.toml").output().expect("it starts");
    assert!(graph.status.success(), "{}", text(&graph));
}

#[test]
fn taplo_finds_mistakes_by_the_schema_that_a_manifest_names() {
    let project = sandbox();
    // Its first line leads to the schema.
    let Some(right) = run("PIPELINE_TAPLO", "taplo", &["lint"], &manifests(), &project) else {
        return;
    };
    assert!(right.status.success(), "{}", text(&right));
    let odd = [project.path("odd.toml")];
    let right = run("PIPELINE_TAPLO", "taplo", &["lint"], &odd, &project).expect("it is installed");
    assert!(right.status.success(), "{}", text(&right));
    let bad = [project.path("bad.toml")];
    let wrong = run("PIPELINE_TAPLO", "taplo", &["lint"], &bad, &project).expect("it is installed");
    let found = text(&wrong);
    assert!(!wrong.status.success(), "{found}");
    assert!(found.contains(r#""idxx" is not one of ["idx","cifar10","#), "{found}");
    assert!(found.contains("1.5 is greater than the maximum of 1"), "{found}");
    assert!(found.contains("bad.toml:14:8"), "{found}");
    for words in [
        r#""ftp://example.org/a" does not match"#,
        r#""abc" does not match "^[0-9A-Fa-f]{64}$""#,
        r#"False schema does not allow "x""#,
        r#"is not allowed for "../a""#,
        r#"{"properties":{"run":false,"shell":false}} is not allowed for"#,
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
}

#[test]
fn check_jsonschema_finds_mistakes_and_accepts_the_schema_itself() {
    let project = sandbox();
    let check = |arguments: &[&str], files: &[PathBuf]| {
        run("PIPELINE_CHECK_JSONSCHEMA", "check-jsonschema", arguments, files, &project)
    };
    let Some(itself) = check(&["--check-metaschema"], &[project.path(SCHEMA)]) else { return };
    assert!(itself.status.success(), "{}", text(&itself));
    let by_schema = ["--schemafile", SCHEMA];
    let odd = project.path("odd.toml");
    let all: Vec<_> = manifests().into_iter().chain([odd]).collect();
    let right = check(&by_schema, &all).expect("it is installed");
    assert!(right.status.success(), "{}", text(&right));
    let wrong = check(&by_schema, &[project.path("bad.toml")]).expect("it is installed");
    let found = text(&wrong);
    assert!(!wrong.status.success(), "{found}");
    assert!(
        found.contains("$.stages.data.format: 'idxx' is not one of ['idx', 'cifar10',"),
        "{found}"
    );
    for words in [
        "$.stages.noisy.rate: 1.5 is greater than the maximum of 1",
        "$.stages.raw.url: 'ftp://example.org/a' does not match",
        "$.stages.raw.sha256: 'abc' does not match '^[0-9A-Fa-f]{64}$'",
        "$.stages.fit.shell: False schema does not allow 'x'",
        "$.stages.fit.outputs[0]: '../a' should not be valid under",
        "$.stages.empty: {'kind': 'command'} should not be valid under",
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
}
