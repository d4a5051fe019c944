//! How much room a cache takes, and may take.

use std::fs;
use std::time::{Duration, SystemTime};

use insta::assert_snapshot;

use super::{NUMBERS, has_data, run_with, shown, store, without_sizes};
use crate::support::Sandbox;

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
    // As bytes, it would be nearly nothing.
    assert_snapshot!(project.pipeline("gc --max-size 200"), @r"
    status 2
    --- stderr
    error: invalid value '200' for '--max-size <SIZE>': '200' does not have a unit: write one, as in 200 GB

    For more information, try '--help'.
    ");
    assert_snapshot!(project.pipeline("cache limit 500"), @r"
    status 2
    --- stderr
    error: invalid value '500' for '[SIZE]': '500' does not have a unit: write one, as in 500 GB

    For more information, try '--help'.
    ");
    assert_eq!(store(&project), 2);
    assert_eq!(project.pipeline("gc --max-size 0 --dry-run").code(), Some(1));
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
    for command in ["verify --all", "verify --restore", "verify experiment.toml --all"] {
        let ended = project.pipeline(&format!("{command} --cache nothing"));
        assert_eq!(ended.code(), Some(2), "{ended}");
        let words = format!("error: there is no cache in {}\n", project.path("nothing").display());
        assert_eq!(ended.stderr, words);
    }
}
