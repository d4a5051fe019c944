//! A cache that something else changed: what is missing or damaged costs work, never the run.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use insta::assert_snapshot;

use crate::manifests::WORDS;
use crate::support::{Sandbox, names, walk};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

/// A project that has run.
fn project() -> Sandbox {
    let project = Sandbox::new(WORDS);
    project.pipeline("run experiment.toml").success();
    project
}

#[test]
fn an_artifact_that_is_gone_is_made_again() {
    let project = project();
    let artifact = project.artifact("count");
    project.unprotect(&artifact);
    fs::remove_dir_all(&artifact).expect("it is ours");
    assert_snapshot!(project.pipeline("plan experiment.toml").printed(), @r"
    words   fresh
    count   dirty    its artifact [digest] is gone from the cache or damaged
    report  waiting  on count
    other   fresh

    words: 1 would run, 1 more if what they read changes, 2 are fresh
    ");
    // What is made again is the same, so nothing after it runs.
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          count (command) runs: its artifact [digest] is gone from the cache or damaged
    done  count in [time], with the same output as before
    --- stdout

    stage  result  time  metrics
    words  fresh
    count  ran  [time]
    report  fresh  words 6
    other  fresh

    words: 3 fresh, 1 ran in [time]
    "#);
}

#[test]
fn all_artifacts_can_be_deleted() {
    let project = project();
    project.unprotect(&project.cache("store"));
    fs::remove_dir_all(project.cache("store")).expect("it is ours");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count ran, report ran, other ran");
}

#[test]
fn a_truncated_file_is_found_by_the_stage_that_needs_it() {
    let project = project();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be").expect("it is ours");
    project.edit("wc -w", "wc -c");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 0
    --- stderr
          count: what was made from the damaged artifact [digest] no longer counts: words/count, words/report; if you know that the damage came later, `pipeline verify --restore` brings it back
          count: the artifact [digest] is damaged; it was moved to quarantine/ and its stage runs again
          words (command) runs: its artifact [digest] is gone from the cache or damaged
    done  words in [time], with the same output as before
          count (command) runs: shell: "echo count >> ran; wc -w < \"$PIPELINE_INPUT_WORDS/text\" | tr -d \" \" > \"$PIPELINE_OUTPUT/number\"" -> "echo count >> ran; wc -c < \"$PIPELINE_INPUT_WORDS/text\" | tr -d \" \" > \"$PIPELINE_OUTPUT/number\""
    done  count in [time]
          report (command) runs: the content of input 'inputs.count' changed, through stage 'count'
    done  report in [time]
    --- stdout

    stage  result  time  metrics
    words  ran  [time]
    count  ran  [time]
    report  ran  [time]  words 19
    other  fresh

    words: 1 fresh, 3 ran in [time]
    "#);
    assert_eq!(project.quarantined().len(), 1);
    let text = fs::read_to_string(project.artifact("words").join("text")).expect("it is back");
    assert_eq!(text, "to be or not to be\n");
}

#[test]
fn a_missing_file_is_found_by_the_stage_that_needs_it() {
    let project = project();
    let artifact = project.artifact("count");
    project.unprotect(&artifact);
    fs::remove_file(artifact.join("number")).expect("it is ours");
    project.edit("\\\"words\\\"", "\\\"count\\\"");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words fresh, count ran, report ran, other fresh");
}

#[test]
fn several_readers_of_a_damaged_artifact_wait_for_it() {
    let reader = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\ninputs = {{ words = \"words\" }}\nshell = 'echo {name} >> ran'\n"
        )
    };
    let readers: String = ["a", "b", "c", "d", "e"].map(reader).concat();
    let words = "[stages.words]\nkind = \"command\"\nshell = 'echo words >> ran; echo text > \"$PIPELINE_OUTPUT/text\"'\n";
    for jobs in 1..=3 {
        let project = Sandbox::new(&format!("[experiment]\nname = \"readers\"\n{words}{readers}"));
        project.pipeline("run experiment.toml words").success();
        let artifact = project.artifact("words");
        project.unprotect(&artifact);
        fs::write(artifact.join("text"), "").expect("it is ours");
        let ended = project.pipeline(&format!("run experiment.toml --jobs {jobs}"));
        assert_eq!(ended.success(), "words ran, a ran, b ran, c ran, d ran, e ran", "{ended}");
        assert_eq!(project.quarantined().len(), 1);
        let ran = project.read("ran");
        let mut ran: Vec<&str> = ran.lines().collect();
        ran.sort_unstable();
        assert_eq!(ran, ["a", "b", "c", "d", "e", "words", "words"]);
    }
}

#[test]
fn damaged_bytes_are_replaced_when_the_stage_runs_again() {
    let project = project();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be or not to bE\n").expect("it is ours");
    fs::remove_dir_all(project.cache("records")).expect("ours");
    project.pipeline("run experiment.toml words").success();
    assert_eq!(project.artifact("words"), artifact);
    let text = fs::read_to_string(artifact.join("text")).expect("readable");
    assert_eq!(text, "to be or not to be\n");
    assert_eq!(project.quarantined().len(), 1);
}

#[test]
fn a_damaged_record_is_none() {
    for damage in ["", "{}", "{\"key\":", "no JSON at all \u{0}"] {
        let project = project();
        for record in walk(&project.cache("records")) {
            if record.is_file() {
                fs::write(&record, damage).expect("it is ours");
            }
        }
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success().matches(" ran").count(), 4, "{ended}");
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success().matches(" fresh").count(), 4, "{ended}");
    }
}

#[test]
fn a_pipe_or_an_endless_file_in_the_place_of_a_record_stops_nobody() {
    for is_pipe in [true, false] {
        let project = project();
        let records = walk(&project.cache("records")).into_iter().filter(|path| path.is_file());
        for record in records {
            replace_by_pipe_or_endless(&record, is_pipe);
        }
        for looks in ["status experiment.toml", "results experiment.toml", "gc -n", "verify --all"]
        {
            let ended = in_time(&project, looks);
            assert!(ended.code().is_some_and(|code| code != 124), "{looks}: {ended}");
        }
        let ended = in_time(&project, "run experiment.toml");
        assert_eq!(ended.success().matches(" ran").count(), 4, "{ended}");
        let ended = in_time(&project, "run experiment.toml");
        assert_eq!(ended.success().matches(" fresh").count(), 4, "{ended}");
    }
}

#[test]
fn a_pipe_or_an_endless_file_in_the_place_of_what_was_noted_stops_nobody() {
    for is_pipe in [true, false] {
        let project = Sandbox::new(READS);
        project.write("words.txt", "one two");
        let run = || in_time(&project, "run experiment.toml");
        run().success();
        let id = &names(&project.cache("history/runs/reads"))[0];
        let key = project.read("cache/heads/reads/words").trim().to_owned();
        let notes = ["indexes", "history/plans", "history/manifests"];
        let notes = notes.into_iter().flat_map(|folder| walk(&project.cache(folder)));
        let others = ["stat.idx".to_owned(), format!("running/{key}"), format!("pins/{key}")];
        let others = others.map(|file| project.cache(&file));
        fs::create_dir_all(project.cache("running")).expect("ours");
        for file in notes.chain(others) {
            replace_by_pipe_or_endless(&file, is_pipe);
        }
        let looks = ["status", "plan", "results", "history"];
        for looks in looks.map(|command| format!("{command} experiment.toml")) {
            let ended = in_time(&project, &looks);
            assert_eq!(ended.code(), Some(0), "{looks}: {ended}");
        }
        assert_eq!(in_time(&project, "gc").code(), Some(0));
        assert_eq!(run().success(), "words fresh");
        assert_eq!(run().success(), "words fresh");
        // Of a run it would not be known what it used.
        let record = project.cache(&format!("history/runs/reads/{id}"));
        replace_by_pipe_or_endless(&record, is_pipe);
        let ended = in_time(&project, "gc");
        assert_eq!(ended.code(), Some(2), "{ended}");
        assert!(ended.stderr.contains(&format!("cannot read {}", record.display())), "{ended}");
        for looks in ["history", "status experiment.toml", "results experiment.toml"] {
            let ended = in_time(&project, looks);
            assert_eq!(ended.code(), Some(0), "{looks}: {ended}");
        }
        assert_eq!(run().success(), "words fresh");
    }
}

/// A stage that reads a file outside of the cache.
const READS: &str = r#"
[experiment]
name = "reads"

[stages.words]
kind = "command"
files = ["words.txt"]
shell = 'wc -w < words.txt > "$PIPELINE_OUTPUT/count"'
"#;

/// Puts a pipe, or a file of a terabyte, in the place of a file.
fn replace_by_pipe_or_endless(path: &Path, is_pipe: bool) {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.expect("it is ours"),
    }
    match is_pipe {
        true => {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.expect("mkfifo runs").success());
        }
        false => {
            fs::File::create(path).expect("writable").set_len(1 << 40).expect("ours");
        }
    }
}

/// A call that ends with code 124 where it takes too long.
fn in_time(project: &Sandbox, arguments: &str) -> crate::support::Ended {
    let mut command = std::process::Command::new("timeout");
    command.arg("20").arg(project.command("").get_program()).args(arguments.split(' '));
    project.dress(&mut command);
    project.start_command(command).wait()
}

#[test]
fn a_record_of_another_key_is_none() {
    let project = project();
    let records: Vec<_> =
        walk(&project.cache("records")).into_iter().filter(|path| path.is_file()).collect();
    for other in &records[1..] {
        fs::copy(&records[0], other).expect("it is ours");
    }
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success().matches(" ran").count(), 3, "{ended}");
}

#[test]
fn the_memory_of_files_outside_is_disposable() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "outside"

[stages.copy]
kind = "command"
run = ["cp", "notes", "{output}/notes"]
files = ["notes"]
"#,
    );
    project.write("notes", "x\n");
    // Old enough to be remembered.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(project.path("notes")).expect("ours");
    file.set_modified(old).expect("ours");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"copy ran");
    for damage in ["", "nonsense", "pipeline stat index 1\nnonsense\n1 2 3\n", "\u{0}\u{0}"] {
        project.write("cache/stat.idx", damage);
        assert_eq!(project.pipeline("run experiment.toml").success(), "copy fresh", "{damage:?}");
    }
    fs::remove_file(project.cache("stat.idx")).expect("it exists");
    fs::create_dir(project.cache("stat.idx")).expect("ours");
    assert_eq!(project.pipeline("run experiment.toml").success(), "copy fresh");
}

#[test]
fn links_and_heads_for_people_can_be_lost() {
    let project = project();
    fs::remove_dir_all(project.cache("latest")).expect("ours");
    fs::remove_dir_all(project.cache("heads")).expect("ours");
    fs::remove_dir_all(project.cache("logs")).expect("ours");
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success().matches(" fresh").count(), 4, "{ended}");
    let link = project.cache("latest/words/report/metrics.json");
    assert_eq!(fs::read_to_string(link).expect("the link is back"), "{\"words\": 6}\n");
    assert_snapshot!(project.pipeline("log experiment.toml report"), @r"
    status 2
    --- stderr
    error: 'report' does not have a log: it has not run yet
    ");
}

#[test]
fn a_newer_cache_is_refused() {
    let project = project();
    project.write("cache/VERSION", "7\n");
    for command in ["run", "plan", "status"] {
        let ended = project.pipeline(&format!("{command} experiment.toml"));
        assert_eq!(ended.code(), Some(2), "{ended}");
    }
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: the cache [project]/cache has layout version 7; this version of pipeline knows 2: use a newer pipeline, or another cache with --cache
    ");
    assert_eq!(project.read("cache/VERSION"), "7\n");
    assert_eq!(project.read("ran").lines().count(), 4, "nothing more ran");
}

#[test]
fn something_else_that_is_called_cache_is_refused() {
    let project = project();
    project.write("cache/VERSION", "3.2-beta\n");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: [project]/cache/VERSION contains '3.2-beta', which is not a version: is this a cache of pipeline?
    ");
    project.write("cache/VERSION", "");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: [project]/cache/VERSION contains '', which is not a version: is this a cache of pipeline?
    ");
    project.write("file", "");
    assert_snapshot!(project.pipeline("run experiment.toml --cache file"), @r"
    status 2
    --- stderr
    error: cannot read the cache [project]/file: Not a directory (os error 20)
    ");
}

#[test]
fn an_output_that_was_replaced_by_a_link_leads_nowhere() {
    let project = Sandbox::new(
        "[experiment]\nname = \"link\"\n[stages.a]\nkind = \"command\"\n\
         shell = 'rmdir \"$PIPELINE_OUTPUT\"; ln -s \"$PWD/mine\" \"$PIPELINE_OUTPUT\"'\n",
    );
    project.write("mine/sub/secret", "s");
    let secret = project.path("mine/sub/secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("ours");
    let before = walk(&project.path("mine"));
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("its output folder is no longer the one"), "{ended}");
    assert_eq!(walk(&project.path("mine")), before);
    assert_eq!(mode(&secret), 0o600);
    assert_eq!(names(&project.cache("store")), [""; 0]);
    assert!(
        !project.cache("failed").exists(),
        "what is behind the link was not kept as its output"
    );
}

#[test]
fn a_sweep_removes_what_this_tool_made_and_nothing_else() {
    let project = Sandbox::new(WORDS);
    let key = "0".repeat(64);
    for file in ["scratch/others-work/file", "scratch/notes.txt", "scratch/elsewhere/file"] {
        project.write(file, "precious");
    }
    // Of the form of a key, but no lock was ever taken for it; and a link of such a name.
    project.write(&format!("scratch/{key}/file"), "precious");
    symlink(
        project.path("scratch/elsewhere"),
        project.path(&format!("scratch/{}", "1".repeat(64))),
    )
    .expect("writable");
    project.write(&format!("cache/locks/{}", "1".repeat(64)), "");
    // Cut off, by its lock.
    project.write(&format!("scratch/{}/output/file", "2".repeat(64)), "");
    project.write(&format!("cache/locks/{}", "2".repeat(64)), "");
    symlink("../scratch", project.cache("tmp")).expect("writable");
    project.pipeline("run experiment.toml").success();
    assert_eq!(
        names(&project.path("scratch")),
        [&key, &"1".repeat(64), "elsewhere", "notes.txt", "others-work"]
    );
    assert_eq!(project.read(&format!("scratch/{key}/file")), "precious");
    assert_eq!(project.read("scratch/elsewhere/file"), "precious");
}

/// The key of a stage that has not run.
fn key_of(project: &Sandbox, stage: &str) -> String {
    let plan = project.pipeline("plan experiment.toml --json").json();
    let stages = plan["stages"].as_array().expect("a list").iter();
    let found = stages.clone().find(|one| one["stage"] == stage).expect("it is planned");
    found["key"].as_str().expect("its inputs are known").to_owned()
}

#[test]
fn nothing_behind_a_link_in_the_place_of_work_is_touched() {
    let project = Sandbox::new(WORDS);
    let key = key_of(&project, "words");
    for place in ["tmp", "partial", "locks", "failed"] {
        project.write(&format!("mine/{place}/sub/file"), "precious");
        fs::create_dir_all(project.cache(place)).expect("writable");
        let target = match place {
            "locks" => project.path("mine/locks/sub/file"),
            _ => project.path("mine").join(place),
        };
        symlink(target, project.cache(place).join(&key)).expect("writable");
    }
    // Whoever has a link in the place of a lock cannot take it, and says so.
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("cannot open the lock"), "{ended}");
    fs::remove_file(project.cache("locks").join(&key)).expect("ours");
    project.pipeline("run experiment.toml").success();
    for place in ["tmp", "partial", "locks", "failed"] {
        assert_eq!(names(&project.path("mine").join(place)), ["sub"], "{place}");
        assert_eq!(project.read(&format!("mine/{place}/sub/file")), "precious", "{place}");
    }
}

#[test]
fn an_output_that_cannot_be_an_artifact_is_kept_to_look_at() {
    let project = Sandbox::new(
        "[experiment]\nname = \"pipe\"\n[stages.a]\nkind = \"command\"\n\
         shell = 'cd \"$PIPELINE_OUTPUT\"; echo work > result; mkfifo pipe'\n",
    );
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("what it had written is kept in"), "{ended}");
    let kept = names(&project.cache("failed"));
    assert_eq!(project.read(&format!("cache/failed/{}/result", kept[0])), "work\n");
}

#[test]
fn a_hard_link_in_an_output_leaves_the_other_file_alone() {
    let project = Sandbox::new(
        "[experiment]\nname = \"link\"\n[stages.a]\nkind = \"command\"\n\
         shell = 'ln mine \"$PIPELINE_OUTPUT/o\"; cd \"$PIPELINE_OUTPUT\"; ln o again; mkdir d; ln o d/o'\n",
    );
    project.write("mine", "v1");
    let mine = project.path("mine");
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o600)).expect("ours");
    project.pipeline("run experiment.toml").success();
    assert_eq!(mode(&mine), 0o600);
    project.write("mine", "v2");
    let artifact = project.artifact("a");
    for name in ["o", "again", "d/o"] {
        let file = artifact.join(name);
        assert_eq!(fs::read_to_string(&file).expect("readable"), "v1");
        assert_eq!(fs::metadata(&file).expect("there").nlink(), 1);
        // Never more readable than the output was.
        assert_eq!(mode(&file), 0o400);
    }
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(0));
}

#[test]
fn the_work_can_be_on_another_file_system_than_the_store() {
    let other = tempfile::tempdir_in("/dev/shm").expect("a file system in memory");
    let project = Sandbox::new(WORDS);
    fs::create_dir_all(project.cache("")).expect("writable");
    symlink(other.path(), project.cache("tmp")).expect("writable");
    project.pipeline("run experiment.toml").success();
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(0));
    assert_eq!(names(other.path()), [""; 0]);
    assert!(names(&project.cache("store")).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn what_was_made_from_a_damaged_artifact_does_not_count_until_it_is_restored() {
    let project = project();
    let artifact = project.artifact("words");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "to be or not to bE\n").expect("it is ours");
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(1));
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r"
    status 0
    --- stdout
    words   dirty    its artifact [digest] is gone from the cache or damaged
    count   waiting  on words
    report  waiting  on count
    other   fresh

    words: 1 would run, 2 more if what they read changes, 1 is fresh
    ");
    assert_snapshot!(project.pipeline("verify experiment.toml --restore"), @r"
    status 0
    --- stdout
    words/count   restored  it counts again
    words/report  restored  it counts again
    ");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran, count fresh, report fresh, other fresh");
    assert_eq!(
        project.pipeline("verify --restore --cache cache").stdout,
        "no record was withdrawn\n"
    );
}

#[test]
fn a_changed_number_in_a_record_is_found() {
    let project = Sandbox::new(
        "[experiment]\nname = \"m\"\n[stages.a]\nkind = \"command\"\noutput = \"metrics\"\n\
         shell = 'echo \"{\\\"accuracy\\\": 0.15}\" > \"$PIPELINE_OUTPUT/metrics.json\"'\n",
    );
    for command in ["verify --all --cache cache", "verify experiment.toml"] {
        project.pipeline("run experiment.toml").success();
        let record =
            walk(&project.cache("records")).into_iter().find(|path| path.is_file()).expect("one");
        let text = fs::read_to_string(&record).expect("readable");
        let damaged = text.replace("\"accuracy\": 0.15", "\"accuracy\": 0.95");
        assert_ne!(damaged, text);
        fs::write(&record, damaged).expect("ours");
        let plan = project.pipeline("plan experiment.toml");
        assert!(plan.stdout.contains("its record is damaged"), "{plan}");
        let verify = project.pipeline(command);
        assert_eq!(verify.code(), Some(1), "{verify}");
        assert!(verify.stdout.contains("is damaged; moved to quarantine/records/"), "{verify}");
    }
    project.pipeline("run experiment.toml").success();
    assert!(project.pipeline("metrics experiment.toml").stdout.contains("0.15"));
}

#[test]
fn a_failed_stage_keeps_its_newest_output_until_it_succeeds() {
    let project = Sandbox::new(
        "[experiment]\nname = \"f\"\n[stages.a]\nkind = \"command\"\n\
         shell = 'cat text > \"$PIPELINE_OUTPUT/o\"; test -e good'\n",
    );
    project.write("text", "1");
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(1));
    project.write("text", "2");
    let ended = project.pipeline("run experiment.toml");
    assert!(ended.stderr.contains("what it had written is kept in"), "{ended}");
    let kept = names(&project.cache("failed"));
    assert_eq!(kept.len(), 1);
    assert_eq!(project.read(&format!("cache/failed/{}/o", kept[0])), "2");
    project.write("good", "");
    project.pipeline("run experiment.toml").success();
    assert_eq!(names(&project.cache("failed")), [""; 0]);
}

#[test]
fn a_cache_that_lost_its_version_is_still_one() {
    let project = project();
    project.edit("\\\"words\\\"", "\\\"count\\\"");
    fs::remove_file(project.cache("VERSION")).expect("ours");
    for bucket in
        ["quarantine", "reruns", "listings", "failed", "running", "history", "pins", "jobs"]
    {
        fs::create_dir_all(project.cache(bucket)).expect("writable");
    }
    project.pipeline("run experiment.toml").success();
    assert!(project.cache("VERSION").exists());
}

#[test]
fn a_cache_of_an_earlier_layout_is_refused_with_what_to_do() {
    let project = project();
    project.write("cache/VERSION", "1\n");
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 2
    --- stderr
    error: the cache [project]/cache has layout version 1, of an earlier pipeline; this one needs 2: use another cache with --cache, or remove this one (chmod -R u+w [project]/cache && rm -rf [project]/cache)
    ");
}
