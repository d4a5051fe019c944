//! Cleaning: what goes and what stays, beside runs, after kills, for room, and by itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use insta::assert_snapshot;

use crate::support::{Ended, Sandbox, names, walk};

mod beside_runs;
mod places;
mod room;

/// Data of some size, and a number that is made from it.
const NUMBERS: &str = r#"
[experiment]
name = "numbers"

[stages.data]
kind = "command"
environment = { SIZE = "100000" }
shell = 'echo data >> ran; head -c "$SIZE" /dev/zero > "$PIPELINE_OUTPUT/zeros"'

[stages.size]
kind = "command"
inputs = { data = "data" }
output = "metrics"
shell = 'echo size >> ran; echo "{\"bytes\": $(wc -c < "$PIPELINE_INPUT_DATA/zeros")}" > "$PIPELINE_OUTPUT/metrics.json"'
"#;

/// Runs the manifest with data of another size.
fn run_with(project: &Sandbox, size: u32) {
    let set = format!("stages.data.environment.SIZE=\"{size}\"");
    project.pipeline(&format!("run experiment.toml --set {set}")).success();
}

/// Whether there is a result with data of this size.
fn has_data(project: &Sandbox, size: &str) -> bool {
    project.pipeline("results experiment.toml data --csv").stdout.contains(size)
}

/// The text with sizes on the disk blanked, which differ between file systems.
fn without_sizes(text: &str) -> String {
    let is_number = |word: &str| {
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    let is_unit =
        |word: &str| matches!(word.trim_end_matches([',', ':', ';']), "B" | "kB" | "MB" | "GB");
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut shown: Vec<String> = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let before = place.checked_sub(1).and_then(|before| words.get(before));
            if is_unit(word) && before.is_some_and(|before| is_number(before)) {
                let end = word.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
                shown.pop();
                shown.push(format!("[size]{end}"));
            } else {
                shown.push((*word).to_owned());
            }
        }
        let text = shown.join(" ");
        let margin = text.len() - text.trim_start().len();
        let cells = text.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        format!("{}{}\n", &text[..margin], cells.collect::<Vec<_>>().join("  "))
    };
    text.lines().map(line).collect()
}

/// JSON with the same blanked.
fn without_bytes(json: &str) -> String {
    let line = |line: &str| match line.split_once("bytes\": ") {
        Some((before, bytes)) => {
            let end = bytes.trim_start_matches(|letter: char| letter.is_ascii_digit());
            format!("{before}bytes\": [bytes]{end}\n")
        }
        None => format!("{line}\n"),
    };
    json.lines().map(line).collect()
}

fn shown(ended: &Ended) -> String {
    without_sizes(&ended.to_string())
}

/// All that is in the cache: names, bytes, modes and times.
fn everything(project: &Sandbox) -> BTreeMap<PathBuf, (u32, u64, i64, i64, Vec<u8>)> {
    let all = walk(&project.cache("")).into_iter().map(|path| {
        let metadata = fs::symlink_metadata(&path).expect("nobody removes it");
        let bytes =
            if metadata.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
        let times = (metadata.mtime(), metadata.ctime_nsec());
        (path, (metadata.mode(), metadata.ino(), times.0, times.1, bytes))
    });
    all.collect()
}

/// Lets only what a process uses now be needed: no run is known.
fn forget_history(project: &Sandbox) {
    for folder in ["history", "heads"] {
        fs::remove_dir_all(project.cache(folder)).expect("anybody may");
    }
}

fn store(project: &Sandbox) -> usize {
    names(&project.cache("store")).len()
}

#[test]
fn what_no_manifest_has_any_more_goes() {
    let project = Sandbox::new(NUMBERS);
    run_with(&project, 300_000);
    let old = fs::canonicalize(project.cache("latest/numbers/data")).expect("a link for people");
    let old_is = |there: bool| assert_eq!(old.exists(), there);
    let results = project.pipeline("results experiment.toml size --json").json();
    let old_key = results[0]["key"].as_str().expect("a key").to_owned();
    run_with(&project, 100_000);
    let before = everything(&project);
    assert_snapshot!(shown(&project.pipeline("gc --dry-run --keep-days 0")), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] would be removed, [size] left
    ");
    assert!(everything(&project) == before, "a look changes nothing");
    // What was used lately stays.
    assert_snapshot!(shown(&project.pipeline("gc")), @r"
    status 0
    --- stdout
    [project]/cache: nothing to remove; it takes [size]
    ");
    old_is(true);
    let would = project.pipeline("gc --dry-run --keep-days 0 --json").json();
    assert_snapshot!(without_bytes(&project.filter(&format!("{would:#}"))), @r#"
    {
      "cache": "[project]/cache",
      "fits": true,
      "is-complete": true,
      "is-dry-run": true,
      "kept": [
        {
          "by": "[project]/experiment.toml (numbers)",
          "bytes": [bytes],
          "number": 2,
          "why": "latest-run"
        }
      ],
      "left-bytes": [bytes],
      "not-removed": [],
      "removed": [
        {
          "bytes": [bytes],
          "kind": "command",
          "number": 2,
          "what": "artifacts"
        },
        {
          "bytes": [bytes],
          "kind": null,
          "number": 2,
          "what": "indexes"
        }
      ],
      "removed-bytes": [bytes]
    }
    "#);
    assert_snapshot!(shown(&project.pipeline("gc --keep-days 0")), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    ");
    old_is(false);
    assert_eq!(store(&project), 2);
    // What is needed is fresh, and nothing says that something was damaged.
    assert_snapshot!(project.pipeline("status experiment.toml"), @r"
    status 0
    --- stdout
    stage  kind  state  last run  took  artifact  size
    data  command  fresh  just now  [time]  [digest]  100 kB
    size  command  fresh  just now  [time]  [digest]  18 B

    cache: [project]/cache
    ");
    assert_snapshot!(project.pipeline("verify --all"), @r"
    status 0
    --- stdout
    [project]/cache: 2 intact; 100 kB read in [time]
    ");
    assert_snapshot!(project.pipeline("results experiment.toml size").printed(), @r"
    size
      bytes    key           current
      100,000  [digest]  yes
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data fresh, size fresh");
    assert_eq!(project.read("ran"), "data\nsize\ndata\nsize\n");
    let compared = format!("compare experiment.toml size {old_key}");
    assert_snapshot!(project.pipeline(&compared), @r"
    status 2
    --- stderr
    error: no recorded result has a key that begins with '[digest]'
    ");
    // What is gone runs again.
    project.edit("100000", "300000");
    assert_snapshot!(project.pipeline("why experiment.toml"), @r#"
    status 0
    --- stdout
    data will run because:
      environment: {"SIZE":"100000"} -> {"SIZE":"300000"}

    size will run if the output of data changes
    data will run because:
      environment: {"SIZE":"100000"} -> {"SIZE":"300000"}
    "#);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data ran, size ran");
    assert_snapshot!(shown(&project.pipeline("gc --dry-run")), @r"
    status 0
    --- stdout
    [project]/cache: nothing to remove; it takes [size]
    ");
    assert_snapshot!(shown(&project.pipeline("report experiment.toml")), @r"
    status 0
    --- stdout
    report.html: 2 stages, [size]
    ");
}

#[test]
fn the_latest_results_go_only_with_the_history() {
    let project = Sandbox::new(NUMBERS);
    run_with(&project, 100_000);
    assert_snapshot!(shown(&project.pipeline("gc --keep-days 0")), @r"
    status 0
    --- stdout
    what  number  size
    indexes  1  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    ");
    // A manifest that does not exist any more.
    project.write("other.toml", NUMBERS.replace("numbers", "others").replace("100000", "200000"));
    project.pipeline("run other.toml").success();
    fs::remove_file(project.path("other.toml")).expect("ours");
    assert_snapshot!(shown(&project.pipeline("gc --keep-days 0")), @r"
    status 0
    --- stdout
    what  number  size
    indexes  1  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)
      2 items, [size]: the latest run of [project]/other.toml (others), which does not exist here

    [project]/cache: [size] removed, [size] left
    ");
    fs::remove_dir_all(project.cache("history/runs/others")).expect("anybody may");
    // What its stages had last is known still.
    assert_snapshot!(shown(&project.pipeline("gc --keep-days 0")), @r"
    status 0
    --- stdout
    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)
      2 items, [size]: the latest run of others, which is not recorded

    [project]/cache: nothing to remove; it takes [size]
    ");
    fs::remove_dir_all(project.cache("heads/others")).expect("anybody may");
    assert_snapshot!(shown(&project.pipeline("gc --keep-days 0")), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data fresh, size fresh");
    assert!(!project.cache("latest/others/data").is_symlink(), "it would lead to nothing");
}

#[test]
fn a_kept_manifest_keeps_its_results() {
    let project = Sandbox::new(NUMBERS);
    project.write("paper.toml", NUMBERS.replace("100000", "200000"));
    project.pipeline("run paper.toml").success();
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    forget_history(&project);
    let before = everything(&project);
    let gc = "gc --keep-days 0 --keep paper.toml experiment.toml";
    assert_snapshot!(shown(&project.pipeline(&format!("{gc} --dry-run"))), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  3  [size]

    kept, as it is needed:
      2 items, [size]: --keep experiment.toml
      2 items, [size]: --keep paper.toml

    [project]/cache: [size] would be removed, [size] left
    ");
    assert!(everything(&project) == before, "a look changes nothing");
    assert_snapshot!(shown(&project.pipeline(gc)), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  3  [size]

    kept, as it is needed:
      2 items, [size]: --keep experiment.toml
      2 items, [size]: --keep paper.toml

    [project]/cache: [size] removed, [size] left
    ");
    for manifest in ["paper.toml", "experiment.toml"] {
        let ended = project.pipeline(&format!("run {manifest}"));
        assert_eq!(ended.success(), "data fresh, size fresh");
    }
    assert_snapshot!(project.pipeline("gc --keep paper"), @r"
    status 2
    --- stderr
    error: 'paper' of --keep is not a manifest: a .toml file
    ");
    project.write("wrong.toml", "[stages.a]\nkind = 1\n");
    assert_eq!(project.pipeline("gc --keep-days 0 --keep wrong.toml").code(), Some(2));
    assert_eq!(store(&project), 4, "nothing was removed");
}

#[test]
fn everything_else_goes_with_age() {
    let failing = "[stages.fails]\nkind = \"command\"\nshell = 'echo half > \"$PIPELINE_OUTPUT/a\"; test -e good'\n";
    let project = Sandbox::new(&format!("{NUMBERS}{failing}"));
    assert_eq!(project.pipeline("run experiment.toml --keep-going").code(), Some(1));
    assert_eq!(names(&project.cache("failed")).len(), 1);
    // Of the latest run, it stays.
    project.pipeline("gc --keep-days 0");
    assert_eq!(names(&project.cache("failed")).len(), 1);
    // What was damaged, and a rerun.
    let artifact = project.artifact("data");
    project.unprotect(&artifact);
    fs::write(artifact.join("zeros"), "x").expect("writable");
    assert_eq!(project.pipeline("verify experiment.toml data").code(), Some(1));
    project.pipeline("run experiment.toml data size").success();
    project.pipeline("verify experiment.toml --rerun size --keep").printed();
    project.edit("test -e good", "test -e better");
    project.write("better", "");
    project.pipeline("run experiment.toml").success();
    let left = |folder: &str| {
        names(&project.cache(folder)).into_iter().filter(|name| name != "records").count()
    };
    assert_eq!(["failed", "quarantine", "reruns"].map(left), [1, 1, 1]);
    let size = project.pipeline("cache size --json").json();
    let rows = size["contents"].as_array().expect("a list");
    let of = rows.iter().find(|row| row["what"] == "reruns").map(|row| &row["experiments"]);
    assert_eq!(of, Some(&serde_json::json!(["numbers"])));
    assert_snapshot!(shown(&project.pipeline("gc")), @r"
    status 0
    --- stdout
    [project]/cache: nothing to remove; it takes [size]
    ");
    assert_snapshot!(shown(&project.pipeline("gc --keep-days 0")), @r"
    status 0
    --- stdout
    what  number  size
    checkpoints  1  [size]
    failed outputs  1  [size]
    quarantine  1  [size]
    reruns  1  [size]
    indexes  1  [size]
    logs  1  [size]

    kept, as it is needed:
      3 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    ");
    assert_eq!(["failed", "quarantine", "reruns", "partial", "tmp", "indexes"].map(left), [0; 6]);
    assert_snapshot!(project.pipeline("verify --all"), @r"
    status 0
    --- stdout
    [project]/cache: 3 intact; 100 kB read in [time]
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data fresh, size fresh, fails fresh");
}
