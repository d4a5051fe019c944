//! `pipeline watch`: again when something changes, and only then.

use std::fs;
use std::io::Write;

use rustix::process::Signal;

use crate::support::{MANIFEST, Running, Sandbox, eventually};

/// A stage that reads a folder and counts its runs.
const FOLDER: &str = r#"
[experiment]
name = "folder"

[stages.all]
kind = "command"
files = ["parts"]
shell = 'echo run >> ran; until test -e go; do sleep 0.01; done; cat parts/* > "$PIPELINE_OUTPUT/all"'
"#;

fn project() -> Sandbox {
    let project = Sandbox::new(FOLDER);
    project.write("parts/a", "a");
    project
}

/// Waits until it waits for the change number `times`.
fn wait_until_it_watches(watch: &Running, times: usize) {
    eventually("a watch", || watch.said().matches("Ctrl-C ends it").count() >= times);
}

fn runs(project: &Sandbox) -> usize {
    project.read("ran").lines().count()
}

/// As many editors save: a new file gets the name of the old one.
fn replace(project: &Sandbox, from: &str, to: &str) {
    let text = project.read(MANIFEST);
    assert!(text.contains(from), "{text}");
    project.write(".new", text.replace(from, to));
    fs::rename(project.path(".new"), project.path(MANIFEST)).expect("a new name");
}

#[test]
fn a_plan_follows_the_manifest_what_it_includes_and_what_it_reads() {
    let project = project();
    let watch = project.start("watch experiment.toml");
    wait_until_it_watches(&watch, 1);
    assert!(watch.printed().contains("all  dirty  no earlier run"), "{}", watch.printed());

    replace(&project, "echo run", "ehco run");
    watch.wait_for("experiment.toml changed");
    wait_until_it_watches(&watch, 2);
    // A mistake is shown, and does not end it.
    replace(&project, "kind =", "knid =");
    watch.wait_for("unknown key 'knid', did you mean 'kind'?");
    wait_until_it_watches(&watch, 3);
    replace(&project, "knid =", "kind =");
    wait_until_it_watches(&watch, 4);
    project.write("parts/deep/b", "b");
    watch.wait_for("parts changed");
    wait_until_it_watches(&watch, 5);

    // A file that is missing is waited for, wherever it will be.
    replace(&project, "[experiment]", "include = [\"more/b.toml\"]\n[experiment]");
    watch.wait_for("cannot read more/b.toml");
    wait_until_it_watches(&watch, 6);
    project.write("more/b.toml", "[stages.b]\nkind = \"command\"\nrun = [\"true\"]\n");
    watch.wait_for("more/b.toml changed");
    wait_until_it_watches(&watch, 7);

    // Nothing that counts.
    project.write("parts/a", "a");
    project.write("beside", "it");
    project.write("parts/.DS_Store", "x");
    let ticks = processor_time(&watch);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(processor_time(&watch) <= ticks + 2, "it waits without polling");
    assert_eq!(watch.said().matches("Ctrl-C ends it").count(), 7, "{}", watch.said());
    watch.signal(Signal::INT);
    assert_eq!(watch.wait().code(), Some(130));
    assert_eq!(runs(&project), 0);
}

#[test]
fn what_is_written_while_a_plan_is_shown_is_not_shown_half() {
    let project = project();
    let watch = project.start("watch experiment.toml");
    wait_until_it_watches(&watch, 1);
    for times in 2..5 {
        project.write("parts/other", times.to_string());
        wait_until_it_watches(&watch, times);
        // At this moment it begins to recheck.
        let mut file = fs::File::create(project.path("parts/a")).expect("writable");
        std::thread::sleep(std::time::Duration::from_millis(100));
        file.write_all(b"a").expect("writable");
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(watch.said().matches("Ctrl-C ends it").count(), 4, "{}", watch.said());
    watch.signal(Signal::INT);
    assert_eq!(watch.wait().code(), Some(130));
}

/// The time that a process has used, in ticks of the system.
fn processor_time(watch: &Running) -> u64 {
    let pid = watch.pid().as_raw_nonzero();
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[test]
fn a_run_is_not_interrupted_by_a_change_and_starts_none_by_itself() {
    let project = project();
    let watch = project.start("watch --run");
    assert!(watch.wait().stderr.contains("no manifest is named"));
    let watch = project.start("watch experiment.toml --run --progress plain");
    project.wait_for_line("ran", "run");
    // While it runs: nothing of it is lost, and the next run has it.
    replace(&project, "cat parts/*", "cat parts/* parts/*");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(runs(&project), 1);
    project.write("go", "");
    wait_until_it_watches(&watch, 2);
    assert_eq!(runs(&project), 2, "{}", watch.printed());
    assert_eq!(fs::read_to_string(project.artifact("all").join("all")).ok().as_deref(), Some("aa"));
    // What the runs wrote was nothing new.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(watch.said().matches("Ctrl-C ends it").count(), 2, "{}", watch.said());

    // Asked to end while a stage runs, it ends that in the way of a run.
    fs::remove_file(project.path("go")).expect("it exists");
    project.write("parts/b", "b");
    eventually("a third run", || runs(&project) == 3);
    watch.signal(Signal::INT);
    let ended = watch.wait();
    assert_eq!(ended.code(), Some(130));
    assert!(ended.stdout.contains("stopped"), "{ended}");
}

#[test]
fn a_link_on_the_way_to_a_file_may_be_set_to_another_folder() {
    let project =
        Sandbox::new(&FOLDER.replace("parts\"", "cur/parts\"").replace("parts/*", "cur/parts/*"));
    project.write("v1/parts/a", "one");
    project.write("v2/parts/a", "two");
    let set = |version: &str| {
        std::os::unix::fs::symlink(version, project.path(".new")).expect("a link");
        fs::rename(project.path(".new"), project.path("cur")).expect("a new name");
    };
    set("v1");
    let watch = project.start("watch experiment.toml");
    wait_until_it_watches(&watch, 1);
    set("v2");
    wait_until_it_watches(&watch, 2);
    project.write("v2/parts/a", "three");
    wait_until_it_watches(&watch, 3);
    watch.signal(Signal::INT);
    assert_eq!(watch.wait().code(), Some(130));
}

#[test]
fn what_cannot_be_watched() {
    let project = project();
    for (arguments, why) in [
        ("watch missing.toml", "cannot read missing.toml"),
        ("watch experiment.toml --run --force all", "watch does not take --force or --dry-run"),
    ] {
        let ended = project.pipeline(arguments);
        assert_eq!(ended.code(), Some(2));
        assert!(ended.stderr.contains(why), "{ended}");
    }
}
