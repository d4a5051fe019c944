//! The index of a run with nothing to do: it saves time, and never hides that something changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::{Sandbox, eventually, names, walk};

const MANIFEST: &str = r#"
include = ["more.toml"]

[experiment]
name = "indexed"

[stages.first]
kind = "command"
shell = 'cat notes > "$PIPELINE_OUTPUT/text"'
files = ["notes"]

[stages.second]
kind = "command"
inputs = { first = "first" }
shell = 'wc -c < "$PIPELINE_INPUT_FIRST/text" > "$PIPELINE_OUTPUT/text"'
"#;

const MORE: &str = r#"
[stages.third]
kind = "command"
shell = 'echo 3 > "$PIPELINE_OUTPUT/text"'
"#;

const FRESH: &str = "first fresh, second fresh, third fresh";

/// A project whose last run left an index.
fn project() -> Sandbox {
    let project = Sandbox::new(MANIFEST);
    project.write("more.toml", MORE);
    project.write("notes", "some\n");
    // Old enough for its digest to be remembered.
    let old = SystemTime::now() - Duration::from_secs(3600);
    let notes = fs::File::options().write(true).open(project.path("notes")).expect("ours");
    notes.set_modified(old).expect("ours");
    assert_eq!(run(&project), "first ran, second ran, third ran");
    project
}

fn run(project: &Sandbox) -> String {
    project.pipeline("run experiment.toml").success()
}

fn indexes(project: &Sandbox) -> Vec<PathBuf> {
    let found = walk(&project.cache("indexes"));
    found.into_iter().filter(|path| path.is_file()).collect()
}

/// The one file below a folder of the cache whose content has this text.
fn file_with(project: &Sandbox, bucket: &str, text: &str) -> PathBuf {
    let has = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|content| content.contains(text));
    walk(&project.cache(bucket)).into_iter().find(has).expect("it exists")
}

#[test]
fn a_run_leaves_an_index_which_the_next_one_uses() {
    let project = project();
    let [index] = indexes(&project).try_into().expect("one");
    let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).expect("there");
    let before = written(&index);
    assert_eq!(run(&project), FRESH);
    // What it read from there it did not write again.
    assert_eq!(written(&index), before);
    // Other words are another question.
    project.pipeline("run experiment.toml third").success();
    project.pipeline("run experiment.toml --set experiment.seed=2").success();
    assert_eq!(indexes(&project).len(), 3);
}

#[test]
fn an_index_that_is_lost_or_damaged_is_none() {
    let project = project();
    let [index] = indexes(&project).try_into().expect("one");
    let whole = fs::read(&index).expect("readable");
    for place in [0, 30, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&index, &damaged).expect("ours");
        assert_eq!(run(&project), FRESH, "byte {place}");
        assert_eq!(fs::read(&index).expect("readable").len(), whole.len(), "it is made again");
    }
    fs::remove_dir_all(project.cache("indexes")).expect("ours");
    assert_eq!(run(&project), FRESH);
    // Of an earlier state: it does not say that its results exist.
    fs::remove_dir_all(project.cache("records")).expect("ours");
    assert_eq!(run(&project), "first ran, second ran, third ran");
}

#[test]
fn whatever_changes_is_seen() {
    type Change = fn(&Sandbox);
    let changes: [(&str, Change, &str); 9] = [
        (
            "a file that a stage reads",
            |project| project.write("notes", "more words\n"),
            "first ran, second ran, third fresh",
        ),
        (
            "the manifest",
            |project| project.edit("wc -c", "wc -l"),
            "first fresh, second ran, third fresh",
        ),
        (
            "what it includes",
            |project| project.write("more.toml", MORE.replace("echo 3", "echo 4")),
            "first fresh, second fresh, third ran",
        ),
        (
            "a record is gone",
            |project| fs::remove_file(file_with(project, "records", "\"third\"")).expect("ours"),
            "first fresh, second fresh, third ran",
        ),
        (
            "a record is other bytes",
            |project| fs::write(file_with(project, "records", "\"third\""), "{}").expect("ours"),
            "first fresh, second fresh, third ran",
        ),
        (
            "an artifact is gone",
            |project| {
                let text = file_with(project, "store", "3\n");
                let artifact = text.parent().expect("a folder");
                // Only root moves a folder that is read-only.
                project.unprotect(artifact);
                fs::rename(artifact, project.path("away")).expect("ours");
            },
            "first fresh, second fresh, third ran",
        ),
        ("a file is gone", |project| fs::remove_file(project.path("notes")).expect("ours"), ""),
        (
            "the head is gone",
            |project| fs::remove_file(project.cache("heads/indexed/third")).expect("ours"),
            FRESH,
        ),
        (
            "the link is gone",
            |project| fs::remove_file(project.cache("latest/indexed/third")).expect("ours"),
            FRESH,
        ),
    ];
    for (what, change, expected) in changes {
        let project = project();
        assert_eq!(run(&project), FRESH, "before: {what}");
        change(&project);
        let ended = project.pipeline("run experiment.toml");
        match expected {
            "" => assert_eq!(ended.code(), Some(2), "{what}: {ended}"),
            expected => {
                assert_eq!(ended.success(), expected, "{what}");
                assert!(project.cache("heads/indexed/third").exists(), "{what}");
                assert!(project.cache("latest/indexed/third").exists(), "{what}");
                assert_eq!(run(&project), FRESH, "after: {what}");
            }
        }
    }
}

#[test]
fn what_verify_takes_away_is_made_again() {
    let project = project();
    assert_eq!(run(&project), FRESH);
    let artifact = project.artifact("third");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "4\n").expect("ours");
    assert_eq!(run(&project), FRESH, "a run with nothing to do reads no artifact");
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(1));
    assert_eq!(run(&project), "first fresh, second fresh, third ran");
}

#[test]
fn another_path_to_an_included_file_may_lead_elsewhere_later() {
    let project = project();
    std::os::unix::fs::symlink("more.toml", project.path("alias.toml")).expect("ours");
    project.edit("[\"more.toml\"]", "[\"more.toml\", \"alias.toml\"]");
    assert_eq!(run(&project), FRESH);
    fs::remove_file(project.path("alias.toml")).expect("ours");
    project.write("alias.toml", MORE.replace("third", "fourth").replace("echo 3", "echo 4"));
    assert_eq!(run(&project), "first fresh, second fresh, third fresh, fourth ran");
}

#[test]
fn what_is_asked_otherwise_is_found_out_again() {
    let project = project();
    assert_eq!(run(&project), FRESH);
    assert_eq!(
        project.pipeline("run experiment.toml --set stages.first.shell=\"false\"").code(),
        Some(1)
    );
    let project = project.set("PIPELINE_DEVICE", "nonsense");
    assert_eq!(project.pipeline("run experiment.toml").code(), Some(2));
}

#[test]
fn a_warning_is_shown_each_time() {
    let project = Sandbox::new(&format!(
        "{MANIFEST}\n[stages.fourth]\nkind = \"command\"\nrun = [\"cp\", \"notes\", \"{{output}}\"]\n"
    ));
    project.write("more.toml", MORE);
    project.write("notes", "some\n");
    for _ in 0..3 {
        let ended = project.pipeline("run experiment.toml");
        assert!(ended.to_string().contains("warning"), "{ended}");
    }
}

const SWEEP: &str = r#"
include = ["scores/score.toml"]

[experiment]
name = "swept"

[matrix]
rate = [0.2, 0.4, 0.6]

[stages.source]
kind = "command"
run = ["sh", "-c", "echo source > {output}/text"]

[stages.train]
kind = "command"
inputs = { source = "source" }
files = ["rates/${rate}"]
run = ["sh", "-c", "cat {inputs.source}/text rates/${rate} > {output}/text"]

[stages.evaluate]
kind = "command"
inputs = { train = "train" }
run = ["sh", "-c", "grep -v secret {inputs.train}/text > {output}/text"]

[stages.left]
kind = "command"
inputs = { source = "source" }
files = ["notes"]
run = ["sh", "-c", "grep -v broken notes > {output}/text"]

[stages.right]
kind = "command"
inputs = { left = "left", source = "source" }
run = ["sh", "-c", "head -n 1 {inputs.left}/text > {output}/text"]

[stages.alone]
kind = "command"
run = ["sh", "-c", "date +%N > {output}/text"]

[stages.reader]
kind = "command"
inputs = { alone = "alone" }
files = ["notes"]
run = ["sh", "-c", "cat {inputs.alone}/text notes > {output}/text"]

[stages.other-reader]
kind = "command"
inputs = { alone = "alone" }
run = ["sh", "-c", "cat {inputs.alone}/text > {output}/text"]
"#;

const SCORE: &str = r#"
[stages.score]
kind = "command"
files = ["table"]
run = ["sh", "-c", "cat table > {output}/text"]
"#;

/// A project of thirteen stages whose last run left an index.
fn sweep() -> Sandbox {
    let project = Sandbox::new(SWEEP);
    project.write("scores/score.toml", SCORE);
    for (file, text) in [
        ("rates/0.2", "few\n"),
        ("rates/0.4", "some\n"),
        ("rates/0.6", "many\n"),
        ("notes", "a note\n"),
        ("scores/table", "1 2 3\n"),
    ] {
        project.write(file, text);
    }
    assert!(run(&project).ends_with("score ran"));
    project
}

/// What is the same for every way to run a stage.
fn events(project: &Sandbox) -> Vec<String> {
    let printed = project.pipeline("run experiment.toml --progress json").printed();
    let mut events: Vec<String> = printed.lines().map(str::to_owned).collect();
    events.sort();
    events
}

/// What people find in the cache by names.
fn named(project: &Sandbox) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for bucket in ["heads/swept", "latest/swept"] {
        for path in walk(&project.cache(bucket)) {
            let content = match fs::read_link(&path) {
                Ok(target) => target.display().to_string(),
                Err(_) => fs::read_to_string(&path).unwrap_or_default(),
            };
            if path.is_symlink() || path.is_file() {
                let name = path.strip_prefix(project.cache(bucket)).expect("below it").to_owned();
                found.push((name, content));
            }
        }
    }
    found
}

/// Whatever changes outside the cache, a run with an index does and reports what one without it does.
#[test]
fn a_part_runs_as_if_all_had_been_looked_at() {
    type Change = fn(&Sandbox);
    let changes: [(&str, Change); 6] = [
        ("one instance", |project| project.write("rates/0.4", "others\n")),
        ("what makes no difference later", |project| project.write("rates/0.6", "many\nsecret\n")),
        ("two instances", |project| {
            project.write("rates/0.2", "fewer\n");
            project.write("rates/0.6", "more\n");
        }),
        ("a file of an included manifest", |project| project.write("scores/table", "4 5\n")),
        ("a file of two stages", |project| project.write("notes", "two\nnotes\n")),
        ("a file that is missing", |project| {
            fs::remove_file(project.path("rates/0.2")).expect("ours");
        }),
    ];
    for (what, change) in changes {
        let [with, without] = [sweep(), sweep()];
        change(&with);
        change(&without);
        fs::remove_dir_all(without.cache("indexes")).expect("ours");
        let [found, expected] = [&with, &without].map(|project| {
            let ended = project.pipeline("run experiment.toml --jobs 1");
            let later = project.pipeline("run experiment.toml --jobs 1");
            (ended.to_string(), later.to_string(), names_of(&named(project)))
        });
        assert_eq!(found, expected, "{what}");
    }
}

fn names_of(named: &[(PathBuf, String)]) -> BTreeSet<PathBuf> {
    named.iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn the_events_of_a_part_are_those_of_all_stages() {
    let project = sweep();
    project.write("rates/0.4", "others\n");
    let events = events(&project);
    let ended = |outcome: &str| {
        let outcome = format!("\"outcome\":\"{outcome}\"");
        events.iter().filter(|event| event.contains(&outcome)).count()
    };
    assert_eq!((ended("fresh"), ended("ran")), (11, 2), "{events:#?}");
    assert!(events.iter().any(|event| event.contains("begin") && event.contains("\"stages\":13")));
    // The history knows all of them, with their keys.
    for plan in walk(&project.cache("history/plans")).iter().filter(|path| path.is_file()) {
        let plan: serde_json::Value =
            serde_json::from_slice(&fs::read(plan).expect("readable")).expect("JSON");
        let stages = plan["stages"].as_array().expect("a list");
        assert_eq!(stages.len(), 13);
        assert!(stages.iter().all(|stage| stage["kind"] == "command"), "{plan:#}");
    }
}

#[test]
fn what_fails_in_a_part_loses_its_link_and_no_other() {
    let project = sweep();
    let before = named(&project);
    project.write("notes", "broken\n");
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_eq!(ended.code(), Some(1), "{ended}");
    let links = |project: &Sandbox| names(&project.cache("latest/swept"));
    let lost = ["left", "right"];
    let kept = before.iter().map(|(name, _)| name.display().to_string());
    let kept: BTreeSet<String> = kept.filter(|name| !lost.contains(&name.as_str())).collect();
    assert_eq!(links(&project), kept.into_iter().collect::<Vec<_>>());
    project.write("notes", "a note\n");
    assert!(!run(&project).contains("ran"), "these results exist");
    assert_eq!(named(&project).into_iter().collect::<BTreeSet<_>>(), before.into_iter().collect());
}

#[test]
fn a_part_of_some_stages_leaves_the_links_of_all_others() {
    let project = sweep();
    let some = "run experiment.toml train evaluate score";
    project.pipeline(some).success();
    let before = named(&project);
    project.write("rates/0.4", "others\n");
    let ran = project.pipeline(some).success();
    assert!(ran.contains("evaluate@rate=0.4 ran") && ran.contains("score fresh"), "{ran}");
    assert_eq!(names_of(&named(&project)), names_of(&before));
    assert_ne!(named(&project), before);
}

/// A stage that waits for the file `go`, and others.
const WAITING: &str = r#"
[experiment]
name = "swept"

[stages.slow]
kind = "command"
files = ["notes"]
shell = 'echo begun >> ran; until test -e go; do sleep 0.01; done; cat notes > "$PIPELINE_OUTPUT/text"'

[stages.one]
kind = "command"
shell = 'echo 1 > "$PIPELINE_OUTPUT/text"'

[stages.two]
kind = "command"
shell = 'echo 2 > "$PIPELINE_OUTPUT/text"'
"#;

/// The index of a run is written after its stages have run, and says nothing of what went meanwhile.
#[test]
fn what_others_change_while_a_part_runs_is_found_out() {
    type Change = fn(&Sandbox);
    let changes: [(&str, Change, &str); 5] = [
        (
            "an artifact is gone",
            |project| {
                let artifact = project.artifact("one");
                // Only root moves a folder that is read-only.
                project.unprotect(&artifact);
                fs::rename(artifact, project.path("away")).expect("ours");
            },
            "slow fresh, one ran, two fresh",
        ),
        (
            "a head is gone",
            |project| fs::remove_file(project.cache("heads/swept/one")).expect("ours"),
            "slow fresh, one fresh, two fresh",
        ),
        (
            "a head is that of another stage",
            |project| {
                let [one, two] =
                    ["one", "two"].map(|stage| project.cache("heads/swept").join(stage));
                fs::copy(two, project.path("head")).expect("ours");
                fs::rename(project.path("head"), one).expect("ours");
            },
            "slow fresh, one fresh, two fresh",
        ),
        (
            "a link is gone",
            |project| fs::remove_file(project.cache("latest/swept/one")).expect("ours"),
            "slow fresh, one fresh, two fresh",
        ),
        (
            "a link leads elsewhere",
            |project| {
                let [one, two] =
                    ["one", "two"].map(|stage| project.cache("latest/swept").join(stage));
                fs::remove_file(&one).expect("ours");
                std::os::unix::fs::symlink(fs::read_link(two).expect("a link"), one).expect("ours");
            },
            "slow fresh, one fresh, two fresh",
        ),
    ];
    let of_one = |project: &Sandbox| -> Vec<_> {
        named(project).into_iter().filter(|(name, _)| name.ends_with("one")).collect()
    };
    for (what, change, expected) in changes {
        let project = Sandbox::new(WAITING);
        project.write("notes", "some\n");
        project.write("go", "");
        assert_eq!(run(&project), "slow ran, one ran, two ran");
        let before = of_one(&project);
        assert_eq!(before.len(), 2, "a head and a link");
        fs::remove_file(project.path("go")).expect("ours");
        fs::remove_file(project.path("ran")).expect("ours");
        project.write("notes", "others\n");
        let running = project.start("run experiment.toml");
        project.wait_for_line("ran", "begun");
        change(&project);
        project.write("go", "");
        assert_eq!(running.wait().success(), "slow ran, one fresh, two fresh", "{what}");
        assert_eq!(run(&project), expected, "{what}");
        assert_eq!(of_one(&project), before, "{what}");
        assert_eq!(run(&project), "slow fresh, one fresh, two fresh", "after: {what}");
    }
}

/// A damaged input is found when a stage of the part is about to read it. Its stage runs again, with other bytes here, and what
/// reads it beside the part must follow.
#[test]
fn an_input_of_a_part_that_is_made_again_takes_its_other_readers_along() {
    let project = sweep();
    // Made again with other bytes, and with the same ones.
    follows_a_damaged_input(&project);
    project.edit("date +%N", "echo alone");
    run(&project);
    follows_a_damaged_input(&project);
}

fn follows_a_damaged_input(project: &Sandbox) {
    let notes = damage_an_input_of_a_part(project);
    let ran = project.pipeline("run experiment.toml").success();
    assert!(ran.contains("other-reader ran") && ran.contains("score fresh"), "{ran}");
    let text =
        |stage: &str| fs::read_to_string(project.artifact(stage).join("text")).expect("there");
    assert_eq!(text("other-reader"), text("alone"));
    assert_eq!(text("reader"), text("alone") + &notes);
    assert_eq!(project.pipeline("verify experiment.toml").code(), Some(0));
}

/// Damages what `reader` and `other-reader` read, and changes what only `reader` reads outside the cache. Returns that.
fn damage_an_input_of_a_part(project: &Sandbox) -> String {
    let artifact = project.artifact("alone");
    project.unprotect(&artifact);
    fs::write(artifact.join("text"), "damaged, and longer than it was\n").expect("ours");
    let notes = project.read("notes") + "more\n";
    project.write("notes", &notes);
    notes
}

#[test]
fn a_request_to_stop_between_a_part_and_all_stages_is_heard() {
    let project = sweep();
    project.edit("[stages.other-reader]", "[stages.other-reader]\nexecution = { gpus = 1 }");
    // Only `other-reader` asks for GPUs, and so the run of all stages can be held before its first stage starts.
    let script = "#!/bin/sh\ntouch asked\nwhile [ ! -e answer ]; do sleep 0.01; done\n\
                  echo 'GPU 0: NVIDIA H100 (UUID: GPU-0-of-the-test)'\n";
    let project = project.with_nvidia_smi(script);
    run(&project);
    let before = project.digest("other-reader");
    damage_an_input_of_a_part(&project);
    let running = project.start("run experiment.toml");
    eventually("a question for GPUs", || project.path("asked").exists());
    running.signal(Signal::INT);
    // Long enough for it to be taken in.
    std::thread::sleep(Duration::from_millis(300));
    project.write("answer", "");
    let ended = running.wait();
    assert_eq!(ended.code(), Some(130), "{ended}");
    assert!(ended.results().contains("reader fresh, other-reader skipped"), "{ended}");
    assert!(run(&project).contains("other-reader ran"));
    assert_ne!(project.digest("other-reader"), before);
}

/// The stages whose records are opened meanwhile.
#[cfg(target_os = "linux")]
fn records_opened(project: &Sandbox, during: impl FnOnce()) -> BTreeSet<String> {
    use rustix::fs::inotify;

    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("a watch");
    for folder in walk(&project.cache("records")).iter().filter(|path| path.is_dir()) {
        inotify::add_watch(&watch, folder, inotify::WatchFlags::OPEN).expect("a watch");
    }
    during();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1 << 14];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let names = std::iter::from_fn(|| Some(events.next().ok()?.file_name()?.to_owned()));
    let names: BTreeSet<_> = names.collect();
    let files = walk(&project.cache("records"));
    let files = files.iter().filter(|path| path.is_file());
    let opened = files.filter(|path| {
        path.file_name().is_some_and(|name| {
            names.iter().any(|opened| opened.to_bytes() == name.as_encoded_bytes())
        })
    });
    opened.map(|path| stage_of(path)).collect()
}

/// The stage that a record names.
fn stage_of(record: &Path) -> String {
    let text = fs::read(record).expect("readable");
    let record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    record["stage"].as_str().expect("a name").to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn a_part_reads_no_record_of_a_stage_that_it_is_not_about() {
    let project = sweep();
    let opened = |change: &dyn Fn()| {
        change();
        records_opened(&project, || drop(run(&project)))
    };
    assert_eq!(opened(&|| {}), BTreeSet::new());
    // Also of other instances: how long they took.
    let rates = ["0.2", "0.4", "0.6"].into_iter();
    let part =
        rates.flat_map(|rate| [format!("train@rate={rate}"), format!("evaluate@rate={rate}")]);
    let part: BTreeSet<String> = part.chain(["source".to_owned()]).collect();
    assert_eq!(opened(&|| project.write("rates/0.4", "others\n")), part);
    // Whoever reads the manifest reads all.
    let all = opened(&|| project.edit("grep -v secret", "grep -v hidden"));
    assert!(all.contains("score") && all.contains("train@rate=0.6"), "{all:?}");
}
