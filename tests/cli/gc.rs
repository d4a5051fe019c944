//! Cleaning: what goes and what stays, beside runs, after kills, for room, and by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;
use pipeline::testing;
use rustix::process::Signal;

use crate::support::{Ended, MANIFEST, Sandbox, eventually, names, skipped, walk};

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

#[test]
fn for_room_what_was_used_longest_ago_goes() {
    let project = Sandbox::new(&NUMBERS.replace("100000", "1000000"));
    for size in [3_000_000, 2_000_000, 1_000_000] {
        run_with(&project, size);
        // Times of runs are in seconds.
        std::thread::sleep(Duration::from_millis(1100));
    }
    let has = |size: &str| has_data(&project, size);
    // All but the oldest fit. Its data were used until the next run began, after its index.
    assert_snapshot!(shown(&project.pipeline("gc --max-size 4MB")), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  1  [size]
    indexes  1  [size]

    [project]/cache: [size] removed, [size] left
    ");
    assert_eq!(["3000000", "2000000", "1000000"].map(has), [false, true, true]);
    // The latest run is needed, whatever room it takes.
    let ended = project.pipeline("gc --max-size 0.5MB --dry-run");
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(shown(&project.pipeline("gc --max-size 0.5MB")), @r"
    status 1
    --- stdout
    what  number  size
    artifacts of command  3  [size]
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    that is more than [size]: nothing else can go, and `pipeline cache size` shows what it is
    ");
    assert_eq!(store(&project), 2);
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"data fresh, size fresh");
    assert_snapshot!(project.pipeline("gc --max-size 20G"), @r"
    status 2
    --- stderr
    error: invalid value '20G' for '--max-size <SIZE>': '20G' may be 20 GB or 20 GiB: write one of them

    For more information, try '--help'.
    ");
}

#[test]
fn a_cache_with_a_limit_cleans_itself_once_a_day() {
    let project = Sandbox::new(&NUMBERS.replace("100000", "1000000"));
    assert_snapshot!(project.pipeline("cache limit 3MB"), @r"
    status 2
    --- stderr
    error: there is no cache in [project]/cache
    ");
    run_with(&project, 2_000_000);
    assert_snapshot!(project.pipeline("cache limit").printed(), @"[project]/cache: no limit");
    assert_snapshot!(project.pipeline("cache limit 3MB").printed(), @"[project]/cache: at most 3.0 MB (from [project]/cache/limit)");
    assert_snapshot!(project.pipeline("cache limit").printed(), @"[project]/cache: at most 3.0 MB (from [project]/cache/limit)");
    std::thread::sleep(Duration::from_millis(1100));
    let run = |project: &Sandbox, size: u32| {
        let set = format!("stages.data.environment.SIZE=\"{size}\"");
        let ended = project.pipeline(&format!("run experiment.toml --set {set}"));
        assert_eq!(ended.success(), "data ran, size ran");
        let lines = ended.stderr.lines().filter(|line| line.starts_with("cache: "));
        project.filter(&without_sizes(&lines.collect::<Vec<_>>().join("\n")))
    };
    assert_snapshot!(run(&project, 1_000_000), @"cache: [size] of what was used longest ago removed, [size] left of at most [size]");
    // Not again today, although it takes too much again.
    assert_snapshot!(run(&project, 2_900_000), @"");
    let yesterday = |project: &Sandbox| {
        let mark =
            fs::File::options().write(true).open(project.cache("locks/limit")).expect("a lock");
        let long_ago = SystemTime::now() - Duration::from_secs(25 * 3600);
        mark.set_modified(long_ago).expect("ours");
    };
    yesterday(&project);
    // A run that has nothing to do does not look.
    project
        .pipeline("run experiment.toml --set stages.data.environment.SIZE=\"2900000\"")
        .success();
    assert!(has_data(&project, "1000000") && has_data(&project, "2900000"));
    assert_snapshot!(run(&project, 3_100_000), @"cache: [size] of what was used longest ago removed, [size] left of at most [size]: it is needed, `pipeline cache size` shows what it is");
    assert_eq!(store(&project), 2);
    // A run never fails for it.
    project.write("cache/limit", "much\n");
    yesterday(&project);
    assert_snapshot!(run(&project, 10_000), @"cache: not cleaned: [project]/cache/limit is not a number of bytes: `pipeline cache limit SIZE` sets it");
    assert_snapshot!(project.pipeline("cache limit none").printed(), @"[project]/cache: no limit");
    yesterday(&project);
    assert_snapshot!(run(&project, 20_000), @"");
    // That of the user is for caches without their own.
    fs::remove_file(project.cache("limit")).expect("ours");
    project.write("config/pipeline/config.toml", "cache-limit = \"1.5 MB\"\n");
    let config = project.path("config").to_string_lossy().into_owned();
    let project = project.set("XDG_CONFIG_HOME", config);
    assert_snapshot!(project.pipeline("cache limit").printed(), @"[project]/cache: at most 1.5 MB (from [project]/config/pipeline/config.toml)");
    yesterday(&project);
    let ended = project.pipeline("run experiment.toml");
    assert_snapshot!(shown(&ended), @r#"
    status 0
    --- stderr
          data (command) runs: environment: {"SIZE":"20000"} -> {"SIZE":"1000000"}
    done  data in [time]
          size (command) runs: the content of input 'inputs.data' changed, through stage 'data'
    done  size in [time]
    cache: [size] of what was used longest ago removed, [size] left of at most [size]
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    size  ran  [time]  bytes 1,000,000

    numbers: 2 ran in [time]
    "#);
}

#[test]
fn what_takes_room_is_shown() {
    let numbers = NUMBERS.replace("echo data", "echo noise >&2; echo data");
    let project = Sandbox::new(&numbers);
    project.write("other.toml", numbers.replace("numbers", "others").replace("bytes", "length"));
    project.pipeline("run experiment.toml").success();
    project.pipeline("run other.toml").success();
    assert_snapshot!(shown(&project.pipeline("cache size")), @r"
    status 0
    --- stdout
    experiment  what  number  size
    (several)  command  1  [size]
    (several)  logs  1  [size]
    numbers  command  1  [size]
    others  command  1  [size]
                indexes  2  [size]
                history  [size]
                other  [size]

    (several): what several of numbers, others use; it is counted once
    [project]/cache: [size]
    ");
    let json = project.pipeline("cache size --json").json();
    let contents = json["contents"].as_array().expect("a list");
    let sum: u64 = contents.iter().filter_map(|row| row["bytes"].as_u64()).sum();
    assert_eq!(Some(sum), json["bytes"].as_u64());
    let is_shared = |row: &&serde_json::Value| {
        let experiments = row["experiments"].as_array();
        row["what"] == "artifacts" && experiments.is_some_and(|all| all.len() == 2)
    };
    let shared = contents.iter().find(is_shared).expect("the data are of both");
    assert_eq!((&shared["kind"], &shared["number"]), (&"command".into(), &1.into()));
    assert!(shared["bytes"].as_u64() > Some(100_000));
    assert_eq!(json["limit"], serde_json::Value::Null);
    // As allocated: a hole takes no room.
    let hole = fs::File::create(project.cache("logs/hole")).expect("writable");
    hole.set_len(1 << 40).expect("a hole");
    let again = project.pipeline("cache size --json").json();
    assert!(again["bytes"].as_u64() < Some(1 << 30));
    assert_snapshot!(project.pipeline("cache size --cache nothing"), @r"
    status 2
    --- stderr
    error: there is no cache in [project]/nothing
    ");
}

/// A stage that reads `data` and ends when there is a file `go`.
const SLOW: &str = r#"
[stages.slow]
kind = "command"
inputs = { data = "data" }
shell = 'echo slow >> ran; until test -e go; do sleep 0.01; done; wc -c < "$PIPELINE_INPUT_DATA/zeros" > "$PIPELINE_OUTPUT/a"'

[stages.after]
kind = "command"
inputs = { slow = "slow", data = "data" }
shell = 'cat "$PIPELINE_INPUT_SLOW/a" > "$PIPELINE_OUTPUT/a"; wc -c < "$PIPELINE_INPUT_DATA/zeros" >> "$PIPELINE_OUTPUT/a"'
"#;

#[test]
fn what_a_run_in_progress_uses_stays() {
    let project = Sandbox::new(&format!("{NUMBERS}{SLOW}"));
    run_with_go(&project);
    project.edit("until test", "true; until test");
    let run = project.start("run experiment.toml");
    eventually("it runs", || project.read("ran").matches("slow").count() == 2);
    assert_eq!(names(&project.cache("pins")).len(), 1);
    // It has written what it names by then.
    eventually("it is recorded", || {
        let runs = names(&project.cache("history/runs/numbers"));
        runs.iter().filter(|name| !name.starts_with(".new-")).count() == 2
    });
    forget_history(&project);
    // Only what the run has pinned is needed now.
    let ended = project.pipeline("gc --keep-days 0");
    assert_snapshot!(without_owner(&shown(&ended)), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  1  [size]

    kept, as it is needed:
      5 items, [size]: [process] uses it

    [project]/cache: [size] removed, [size] left
    ");
    project.write("go", "");
    let ended = run.wait();
    assert_eq!(ended.success(), "data fresh, size fresh, slow ran, after ran", "{ended}");
    assert_eq!(names(&project.cache("pins")), [""; 0]);
    assert_eq!(project.pipeline("verify --all").code(), Some(0));
    assert_eq!(
        project.pipeline("run experiment.toml").success(),
        "data fresh, size fresh, slow fresh, after fresh"
    );
}

#[test]
fn what_a_stage_reads_is_pinned_by_its_bytes() {
    let stage = |name: &str, rest: &str| format!("[stages.{name}]\nkind = \"command\"\n{rest}\n");
    let first = "environment = { A = \"1\" }\nshell = 'echo $A | wc -c > \"$PIPELINE_OUTPUT/a\"'";
    let data = "inputs = { a = \"first\" }\nshell = 'date > \"$PIPELINE_OUTPUT/a\"'";
    let slow = "inputs = { a = \"data\" }\nshell = 'echo slow >> ran; until test -e go; do sleep 0.01; done; cp \"$PIPELINE_INPUT_A/a\" \"$PIPELINE_OUTPUT/a\"'";
    let stages = [stage("first", first), stage("data", data), stage("slow", slow)].concat();
    let project = Sandbox::new(&format!("[experiment]\nname = \"x\"\n{stages}"));
    run_with_go(&project);
    let digest = project.digest("data");
    // What it reads is found fresh when the run works already.
    project.edit("A = \"1\"", "A = \"2\"");
    project.edit("until test", "true; until test");
    let run = project.start("run experiment.toml");
    eventually("it runs", || project.read("ran").matches("slow").count() == 2);
    let pins = names(&project.cache("pins"));
    let pin = fs::read_to_string(project.cache(&format!("pins/{}", pins[0]))).expect("text");
    project.write("go", "");
    assert_eq!(run.wait().success(), "first ran, data fresh, slow ran");
    // With `--force`, another run may give its key another artifact meanwhile.
    assert!(pin.contains(&format!("artifact {digest}\n")), "{pin}");
}

#[test]
fn what_a_job_works_on_stays() {
    let waiting = "[experiment]\nname = \"x\"\n[stages.slow]\nkind = \"command\"\nshell = 'echo 1 > \"$PIPELINE_CHECKPOINT/half\"; echo slow >> ran; until test -e go; do sleep 0.01; done; cp \"$PIPELINE_CHECKPOINT/half\" \"$PIPELINE_OUTPUT\"'\n";
    let project = Sandbox::new(waiting);
    let spec = testing::job(&project.path(MANIFEST), &project.path("cache"), "slow");
    project.write("spec.json", spec.expect("a stage without inputs").to_string());
    let job = project.start("__job spec.json");
    project.wait_for_line("ran", "slow");
    let ended = project.pipeline("gc --keep-days 0");
    assert_snapshot!(without_owner(&shown(&ended)), @r"
    status 0
    --- stdout
    kept, as it is needed:
      3 items, [size]: [process] uses it

    [project]/cache: nothing to remove; it takes [size]
    ");
    project.write("go", "");
    let ended = job.wait();
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(names(&project.cache("pins")), [""; 0]);
    assert_eq!(project.pipeline("run experiment.toml").success(), "slow fresh");
}

/// The first run, which does not wait, and another one whose results are old.
fn run_with_go(project: &Sandbox) {
    project.write("go", "");
    project.pipeline("run experiment.toml").success();
    fs::remove_file(project.path("go")).expect("ours");
}

/// Blanks who uses something.
fn without_owner(text: &str) -> String {
    let line = |line: &str| match (line.find("process "), line.find(" uses it")) {
        (Some(start), Some(end)) => format!("{}[process]{}\n", &line[..start], &line[end..]),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn what_goes_between_a_plan_and_its_pin_is_made_again() {
    let stages = (0..60).map(|number| {
        format!("[stages.s{number}]\nkind = \"command\"\nshell = 'echo s{number} >> ran; echo {number} > \"$PIPELINE_OUTPUT/a\"'\n")
    });
    let last = "[stages.last]\nkind = \"command\"\ninputs = { a = \"s0\", b = \"s59\" }\nshell = 'cat \"$PIPELINE_INPUT_A/a\" \"$PIPELINE_INPUT_B/a\" > \"$PIPELINE_OUTPUT/a\"'\n";
    let project =
        Sandbox::new(&format!("[experiment]\nname = \"x\"\n{}{last}", stages.collect::<String>()));
    project.pipeline("run experiment.toml").success();
    project.edit("/a\" > \"$PIPELINE_OUTPUT/a\"'\n", "/a\" | cat > \"$PIPELINE_OUTPUT/a\"'\n");
    forget_history(&project);
    // It says which stages are fresh, before it pins them; nobody reads that, and so it waits.
    let mut command = project.command("run experiment.toml --progress json");
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut output = run.stdout.take().expect("a pipe");
    let pipe = output.as_raw_fd();
    // SAFETY: fcntl on a descriptor that is open.
    let room = unsafe { libc::fcntl(pipe, libc::F_SETPIPE_SZ, 4096) };
    if room != 4096 {
        skipped("the system has no small pipes");
    }
    let held = || {
        let mut held: libc::c_int = 0;
        // SAFETY: FIONREAD writes one integer.
        unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut held) };
        held
    };
    eventually("it waits", || held() > 3000);
    // It has remembered by now what the first ones had last.
    eventually("it writes nothing", || {
        let _ = fs::remove_dir_all(project.cache("heads"));
        std::thread::sleep(Duration::from_millis(100));
        !project.cache("heads").exists()
    });
    assert_eq!(project.pipeline("gc --keep-days 0").code(), Some(0));
    assert!(store(&project) < 30, "what it has found is not pinned");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("text");
    assert!(run.wait().expect("it ends").success(), "{text}");
    // It was noticed before a stage started.
    assert!(!text.contains("is gone"), "{text}");
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(0));
    assert_eq!(project.read("ran").lines().filter(|line| *line == "s0").count(), 2);
    assert_eq!(store(&project), 61);
    let made = fs::read_to_string(project.artifact("last").join("a")).expect("readable");
    assert_eq!(made, "0\n59\n");
    assert_eq!(project.pipeline("verify --all").code(), Some(0));
}

#[test]
fn killed_at_any_moment_nothing_needed_is_lost() {
    let many = "[stages.many]\nkind = \"command\"\nenvironment = { A = \"1\" }\nshell = 'cd \"$PIPELINE_OUTPUT\"; for i in $(seq 300); do mkdir $i; echo $A > $i/file; done'\n";
    let project = Sandbox::new(&format!("{NUMBERS}{many}"));
    project.pipeline("run experiment.toml").success();
    for round in 0..12 {
        let set = format!("run experiment.toml --set stages.many.environment.A=\"{round}\"");
        project.pipeline(&set).success();
        project.pipeline("run experiment.toml").success();
        let gc = project.start("gc --keep-days 0");
        std::thread::sleep(Duration::from_millis(3 * round));
        // Interrupted, too, it may come to its end before.
        let signal = if round % 2 == 0 { Signal::KILL } else { Signal::INT };
        gc.signal(signal);
        gc.wait();
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success(), "data fresh, size fresh, many fresh", "round {round}: {ended}");
        let ended = project.pipeline("verify --all");
        assert_eq!(ended.code(), Some(0), "round {round}: {ended}");
    }
    let ended = project.pipeline("gc --keep-days 0");
    assert_eq!(ended.code(), Some(0), "{ended}");
    // An artifact whose record had left when its cleaning was killed waits for an hour, as it may be one that is being recorded.
    assert!(store(&project) >= 3);
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}

#[test]
fn runs_do_not_notice_that_others_clean() {
    let project = Sandbox::new(NUMBERS);
    run_with(&project, 1);
    // Of one manifest, each run leaves the results of the others to whoever cleans.
    let runs = |first: u32| {
        for round in 0..12 {
            let size = first + round % 3;
            let set = format!("stages.data.environment.SIZE=\"{size}\"");
            let ended = project.pipeline(&format!("run experiment.toml --set {set}"));
            assert_eq!(ended.code(), Some(0), "{ended}");
            let is_lost = ended.stderr.contains("is gone") || ended.stderr.contains("damaged");
            assert!(!is_lost, "{ended}");
        }
    };
    std::thread::scope(|scope| {
        let all = [1, 2, 3].map(|first| scope.spawn(move || runs(first)));
        let is_over = || all.iter().all(std::thread::ScopedJoinHandle::is_finished);
        while !is_over() {
            let ended = project.pipeline("gc --keep-days 0");
            assert_eq!(ended.code(), Some(0), "{ended}");
        }
    });
    assert_eq!(project.pipeline("verify --all").code(), Some(0));
}

#[test]
fn two_clean_at_once() {
    let project = Sandbox::new(NUMBERS);
    for size in [1000, 2000, 3000, 4000] {
        run_with(&project, size);
    }
    let all = [0, 1, 2, 3].map(|_| project.start("gc --keep-days 0"));
    for ended in all.map(crate::support::Running::wait) {
        let is_second =
            ended.code() == Some(2) && ended.stderr.contains("cleans this cache already");
        assert!(ended.code() == Some(0) || is_second, "{ended}");
    }
    assert_eq!(store(&project), 2);
}

#[test]
fn a_cache_that_cannot_be_written_is_left_alone() {
    let project = Sandbox::of_an_ordinary_user(NUMBERS);
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    let folders = |mode: u32| {
        for folder in ["locks", "store", "records", "tmp", ""] {
            fs::set_permissions(project.cache(folder), fs::Permissions::from_mode(mode))
                .expect("ours");
        }
    };
    folders(0o555);
    let before = everything(&project);
    let (look, ended) =
        (project.pipeline("gc --keep-days 0 -n"), project.pipeline("gc --keep-days 0"));
    let is_same = everything(&project) == before;
    folders(0o755);
    assert_snapshot!(shown(&look), @r"
    status 0
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] would be removed, [size] left
    ");
    assert_snapshot!(ended, @r"
    status 2
    --- stderr
    error: cannot open the lock [project]/cache/locks/gc: Permission denied (os error 13)
    the cache cannot be written: fix its permissions, or use another cache with --cache
    ");
    assert!(is_same);
    // Its owner can, although artifacts are read-only.
    assert_eq!(project.pipeline("gc --keep-days 0").code(), Some(0));
    assert_eq!(store(&project), 2);
}

#[test]
fn a_result_whose_artifact_cannot_leave_stays_as_a_whole() {
    let project = Sandbox::of_an_ordinary_user(NUMBERS);
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    let set = |mode: u32| {
        fs::set_permissions(project.cache("store"), fs::Permissions::from_mode(mode))
            .expect("ours");
    };
    set(0o555);
    let ended = project.pipeline("gc --keep-days 0");
    set(0o755);
    assert_snapshot!(shown(&ended), @r"
    status 1
    --- stderr
    not removed: 2 items that belong to another user, or are in folders that you cannot write
    --- stdout
    what  number  size
    indexes  2  [size]

    kept, as it is needed:
      2 items, [size]: the latest run of [project]/experiment.toml (numbers)

    [project]/cache: [size] removed, [size] left
    ");
    assert_eq!(store(&project), 4);
    assert!(has_data(&project, "300000"), "its record stays, too");
}

const GROUP: u32 = 54_321;
const ONE: u32 = 54_322;
const OTHER: u32 = 54_323;

/// A stage whose artifact has a folder.
const FOLDER: &str = "[experiment]\nname = \"x\"\n[stages.folder]\nkind = \"command\"\nenvironment = { A = \"1\" }\nshell = 'mkdir \"$PIPELINE_OUTPUT/d\"; echo $A > \"$PIPELINE_OUTPUT/d/o\"'\n";

/// Root plays two members of a group who share a cache. `None` for whoever is not root.
fn of_a_group() -> Option<Sandbox> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can play two users");
        return None;
    }
    let project = Sandbox::of_an_ordinary_user(FOLDER);
    fs::create_dir(project.cache("")).expect("writable");
    std::os::unix::fs::chown(project.cache(""), None, Some(GROUP)).expect("root may chown");
    fs::set_permissions(project.cache(""), fs::Permissions::from_mode(0o2770)).expect("ours");
    for folder in [project.folder().parent().expect("a folder"), &project.folder()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("root");
    }
    Some(project)
}

fn run_as(project: &Sandbox, user: u32, arguments: &str) -> Ended {
    let mut command = project.command(arguments);
    command.uid(user).gid(GROUP);
    project.start_command(command).wait()
}

#[test]
fn whoever_pins_first_pins_for_the_group() {
    let Some(project) = of_a_group() else { return };
    let run = "run experiment.toml --set stages.folder.environment.A";
    assert_eq!(run_as(&project, ONE, "run experiment.toml").code(), Some(0));
    // An earlier version left none, and this does not make the folders of a cache.
    fs::remove_dir_all(project.cache("pins")).expect("root");
    let ended = run_as(&project, ONE, "verify experiment.toml");
    assert_eq!(ended.code(), Some(0), "{ended}");
    let mode = fs::metadata(project.cache("pins")).expect("it pinned").mode();
    assert_eq!(mode & 0o2770, 0o2770, "{mode:o}");
    let ended = run_as(&project, OTHER, &format!("{run}=\"2\""));
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[test]
fn a_member_of_a_group_cleans_for_all() {
    let Some(project) = of_a_group() else { return };
    let start = |user: u32, arguments: &str| run_as(&project, user, arguments);
    for number in [1, 2, 3] {
        let set = format!("--set stages.folder.environment.A=\"{number}\"");
        assert_eq!(start(ONE, &format!("run experiment.toml {set}")).code(), Some(0));
    }
    assert_eq!(store(&project), 3);
    let ended = start(OTHER, "gc --keep-days 0");
    assert_snapshot!(shown(&ended).replace(&own_number(&ended), "[n]"), @r"
    status 1
    --- stderr
    not removed: folders of 2 items, which belong to another user: they are in [project]/cache/tmp until the next run of that user
    --- stdout
    what  number  size
    artifacts of command  2  [size]
    indexes  3  [size]

    kept, as it is needed:
      1 item, [size]: the latest run of [project]/experiment.toml (x)

    [project]/cache: [size] removed, [size] left
    ");
    assert_eq!(store(&project), 1);
    // What the other one could not remove, its owner does.
    assert_eq!(names(&project.cache("tmp")).len(), 1);
    assert_eq!(start(ONE, "run experiment.toml").code(), Some(0));
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}

#[test]
fn what_only_another_member_can_empty_makes_no_room() {
    let Some(project) = of_a_group() else { return };
    for number in [1, 2, 3] {
        let set = format!("--set stages.folder.environment.A=\"{number}\"");
        assert_eq!(run_as(&project, ONE, &format!("run experiment.toml {set}")).code(), Some(0));
    }
    let ended = run_as(&project, OTHER, "gc --max-size 1B");
    assert_eq!(ended.code(), Some(1), "{ended}");
    // Moved away, it would take as much room, and tomorrow something else would go.
    assert_eq!((store(&project), names(&project.cache("tmp")).len()), (3, 0), "{ended}");
    run_as(&project, ONE, "gc --max-size 1B");
    assert_eq!((store(&project), names(&project.cache("tmp")).len()), (1, 0));
}

/// The number of the trash, where something of it is named.
fn own_number(ended: &Ended) -> String {
    let name = ended.stderr.split("/tmp/").nth(1).unwrap_or_default();
    let name = name.split('/').next().unwrap_or_default();
    if name.is_empty() { "no trash".to_owned() } else { name.to_owned() }
}

#[test]
fn a_bucket_on_another_file_system_is_cleaned() {
    let elsewhere = match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => folder,
        Err(_) => return skipped("there is no other file system"),
    };
    let project = Sandbox::new(NUMBERS);
    let device = |path: &Path| fs::metadata(path).expect("a folder").dev();
    if device(elsewhere.path()) == device(&project.folder()) {
        return skipped("there is no other file system");
    }
    fs::create_dir(project.cache("")).expect("writable");
    std::os::unix::fs::symlink(elsewhere.path(), project.cache("tmp")).expect("writable");
    run_with(&project, 300_000);
    run_with(&project, 100_000);
    assert_eq!(project.pipeline("gc --keep-days 0").code(), Some(0));
    assert_eq!(store(&project), 2);
    let left =
        walk(&project.cache("")).into_iter().filter(|path| path.to_string_lossy().contains("gone"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0].map(PathBuf::from));
    assert_eq!(project.pipeline("run experiment.toml").success(), "data fresh, size fresh");
}
