//! What others wrote and a terminal would obey, and terminals that go away.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::manifests::TRAINING;
use crate::support::{Sandbox, eventually};

/// A stage that measures what is in `names.json`.
const HOSTILE: &str = r#"
[experiment]
name = "hostile"

[stages.measure]
kind = "command"
shell = 'cp names.json "$PIPELINE_OUTPUT/metrics.json"'
output = "metrics"
"#;

/// A stage that fails in colours.
const COLOURED: &str = r#"
[experiment]
name = "coloured"

[stages.test]
kind = "command"
shell = """printf '\\033[31mFAILED\\033[0m test_x\\n\\033]0;title\\007\\302\\2332J\\n' >&2; exit 1"""
"#;

/// Both ends of a terminal: the one that its window reads, and the one for a program.
fn terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("it is ours");
    unlockpt(&master).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let end = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
    (master.into(), end)
}

/// A terminal of a size.
pub fn sized_terminal(columns: u16, rows: u16) -> (File, OwnedFd) {
    let (window, end) = terminal();
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&end, size).expect("a terminal has a size");
    (window, end)
}

/// What a call shows whose standard output is a terminal.
fn on_a_terminal(project: &Sandbox, arguments: &str) -> String {
    shown_on(terminal(), project, arguments)
}

fn shown_on((mut window, end): (File, OwnedFd), project: &Sandbox, arguments: &str) -> String {
    let mut command = project.command(arguments);
    let mut child = command.stdout(end).stderr(Stdio::null()).spawn().expect("it starts");
    drop(command);
    child.wait().expect("it ends");
    let mut shown = Vec::new();
    // When nobody holds its other end, a terminal ends with an error.
    let _ = window.read_to_end(&mut shown);
    String::from_utf8_lossy(&shown).replace("\r\n", "\n")
}

#[test]
fn the_nearest_manifest_is_named_where_somebody_reads_it() {
    let project = Sandbox::new("");
    project.write("pipeline.toml", TRAINING);
    let (mut window, end) = terminal();
    let mut command = project.command("status");
    let errors = end.try_clone().expect("a descriptor");
    let mut child = command.stdout(end).stderr(errors).spawn().expect("it starts");
    drop(command);
    child.wait().expect("it ends");
    let mut shown = Vec::new();
    let _ = window.read_to_end(&mut shown);
    assert!(String::from_utf8_lossy(&shown).starts_with("manifest: pipeline.toml"), "{shown:?}");
    assert_eq!(project.pipeline("status").stderr, "");
}

#[test]
fn tables_fit_to_forty_columns() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    for arguments in ["run experiment.toml", "run experiment.toml", "status experiment.toml"] {
        let shown = shown_on(sized_terminal(40, 24), &project, arguments);
        let table = shown.lines().take_while(|line| !line.starts_with("training: "));
        let table = table.take_while(|line| !line.starts_with("cache: "));
        let wide: Vec<_> = table.filter(|line| line.chars().count() > 40).collect();
        assert_eq!(wide, [""; 0], "{arguments}: {shown}");
    }
}

#[test]
fn the_first_metric_keeps_its_value_in_forty_columns() {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    let shown = shown_on(sized_terminal(40, 24), &project, "run experiment.toml");
    let line = shown.lines().find(|line| line.starts_with("evaluate ")).expect("a line");
    assert!(line.ends_with(" 0.5000") && line.contains("ran"), "{shown}");
}

#[test]
fn what_cannot_be_printed_has_nothing_to_do_with_the_cache() {
    let project = Sandbox::new(TRAINING);
    let mut command = project.command("plan experiment.toml");
    let full = File::options().write(true).open("/dev/full").expect("a device");
    let ended = command.stdout(full).output().expect("it starts");
    let words = "error: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!(String::from_utf8_lossy(&ended.stderr), words);
    assert_eq!(ended.status.code(), Some(2));
}

#[test]
fn names_are_escaped_but_in_json() {
    let project = Sandbox::new(HOSTILE);
    // They clear the screen, turn letters round, and begin a line.
    project.write("names.json", r#"{"a\u001b[2Jb": 1, "c\u202ed": 2, "e\nFAIL  f": 3}"#);
    let ended = project.pipeline("run experiment.toml");
    assert!(ended.success() == "measure ran" && ended.stdout.contains(r"e\nFAIL  f 3"), "{ended}");
    let table = project.pipeline("metrics experiment.toml").printed();
    assert!(table.contains(r"a\u{1b}[2Jb") && !table.contains('\u{1b}'), "{table}");
    let json = project.pipeline("metrics experiment.toml --json").json();
    assert_eq!(json["measure"]["c\u{202e}d"], 2.0, "{json}");
}

#[test]
fn the_path_of_a_manifest_is_escaped() {
    let project = Sandbox::new("");
    let name = "a\u{1b}[31m\u{9b}b.toml";
    for text in ["", "[experiment]\nname = 3"] {
        project.write(name, text);
        let mut command = project.command("plan");
        command.arg(name);
        let ended = project.start_command(command).wait();
        assert!(ended.stderr.contains(r"a\u{1b}[31m\u{9b}b.toml"), "{ended}");
        assert!(!ended.stderr.contains(['\u{1b}', '\u{9b}']), "{ended}");
    }
}

#[test]
fn colours_of_a_program_are_in_its_log_only() {
    let project = Sandbox::new(COLOURED);
    let ended = project.pipeline("run experiment.toml");
    let tail = "      | FAILED test_x\n      | \\u{9b}2J\n";
    assert!(ended.stderr.ends_with(tail), "{ended}");
    let log = "\u{1b}[31mFAILED\u{1b}[0m test_x\n\u{1b}]0;title\u{7}\u{9b}2J";
    let piped = project.pipeline("log experiment.toml test").stdout;
    assert!(piped.starts_with(log), "{piped:?}");
    let shown = on_a_terminal(&project, "log experiment.toml test");
    assert!(shown.starts_with("FAILED test_x\n\\u{9b}2J"), "{shown:?}");
}

#[test]
fn of_a_bar_in_a_log_the_last_state_is_shown() {
    let project = Sandbox::new(
        "[experiment]\nname = \"bar\"\n[stages.test]\nkind = \"command\"\n\
         shell = 'printf \"\\r 1 %%\\r 2 %%\\ndone\\n\" >&2; exit 1'\n",
    );
    project.pipeline("run experiment.toml");
    let piped = project.pipeline("log experiment.toml test").stdout;
    assert!(piped.starts_with("\r 1 %\r 2 %\ndone\n"), "{piped:?}");
    let shown = on_a_terminal(&project, "log experiment.toml test");
    assert!(shown.starts_with(" 2 %\ndone\n"), "{shown:?}");
}

#[test]
fn a_failure_is_always_on_standard_error() {
    for style in ["none", "json", "plain", "bars"] {
        let project = Sandbox::new(TRAINING).set("PIPELINE_LEARN", "/nowhere/pipeline-learn");
        let ended = project.pipeline(&format!("run experiment.toml --progress {style}"));
        let told = ended.stderr.matches("PIPELINE_LEARN names /nowhere/pipeline-learn").count();
        // It was also said before anything ran, where that is shown here.
        let warned = usize::from(matches!(style, "plain" | "bars"));
        assert_eq!(ended.stderr.matches("simclr: warning: ").count(), warned, "{style}: {ended}");
        assert_eq!(told, 1 + warned, "{style}: {ended}");
        // No worker began: the log has the reason, and not what an earlier run wrote.
        let log = project.pipeline("log experiment.toml simclr").stdout;
        assert!(log.starts_with("failed: PIPELINE_LEARN names /nowhere/pipeline-learn"), "{log}");
    }
}

#[test]
fn a_terminal_that_goes_away_is_not_the_end_of_a_run() {
    let project = Sandbox::new(TRAINING).with_fake_learn("slow").set("FAKE_LEARN_STEPS", "4");
    let (window, end) = terminal();
    let mut command = project.command("run experiment.toml --progress bars");
    let mut child = command.stdout(Stdio::null()).stderr(end).spawn().expect("it starts");
    drop(command);
    eventually("a step", || project.read("journal").contains("step 1"));
    drop(window);
    assert!(child.wait().expect("it ends").success());
}

/// Instances with long names.
const INSTANCES: &str = r#"
[experiment]
name = "instances"

[matrix]
init = ["from-all-images"]
rate = [0.5, 0.9]

[stages.score]
kind = "command"
shell = "true"
environment = { INIT = "${init}", RATE = "${rate}" }
"#;

#[test]
fn colours_are_for_terminals_unless_somebody_wants_others() {
    let coloured = "\u{1b}[33mdirty\u{1b}[0m";
    let project = Sandbox::new(INSTANCES).set("TERM", "xterm");
    assert!(!project.pipeline("plan experiment.toml").stdout.contains('\u{1b}'));
    assert!(on_a_terminal(&project, "plan experiment.toml").contains(coloured));
    let never = on_a_terminal(&project, "plan experiment.toml --color never");
    assert!(!never.contains('\u{1b}'), "{never:?}");
    for command in ["plan", "status"] {
        let always = project.pipeline(&format!("{command} experiment.toml --color always"));
        assert!(always.stdout.contains(coloured), "{always}");
    }
    let graph = project.pipeline("--color=always graph experiment.toml").stdout;
    assert!(graph.contains("\u{1b}[33m○\u{1b}[0m score@"), "{graph}");
    let json = project.pipeline("status experiment.toml --json --color always").stdout;
    assert!(!json.contains('\u{1b}'), "{json}");
    assert!(project.pipeline("plan --help --color always").stdout.contains('\u{1b}'));
    assert!(!project.pipeline("plan --help").stdout.contains('\u{1b}'));

    let project = project.set("NO_COLOR", "1");
    assert!(!on_a_terminal(&project, "plan experiment.toml").contains('\u{1b}'));
    let project = Sandbox::new(INSTANCES).set("CLICOLOR_FORCE", "1");
    assert!(project.pipeline("plan experiment.toml").stdout.contains(coloured));
}

#[test]
fn tables_are_as_wide_as_the_terminal() {
    let project = Sandbox::new(INSTANCES);
    let plan = shown_on(sized_terminal(40, 24), &project, "plan experiment.toml");
    let lines: Vec<&str> = plan.lines().take(2).collect();
    assert_eq!(
        lines,
        ["score@…,rate=0.5  dirty  no earlier run", "score@…,rate=0.9  dirty  no earlier run"]
    );
    // A pipe has no width.
    let plan = project.pipeline("plan experiment.toml").stdout;
    assert!(plan.contains("score@init=from-all-images,rate=0.5  dirty"), "{plan}");
    for size in [sized_terminal(1, 1), sized_terminal(0, 0)] {
        assert!(shown_on(size, &project, "status experiment.toml").contains("dirty"));
    }
}

#[test]
fn bars_are_drawn_again_in_place_and_leave_nothing() {
    let project = Sandbox::new(TRAINING).with_fake_learn("slow").set("TERM", "xterm");
    let (mut window, end) = sized_terminal(60, 10);
    let mut command = project.command("run experiment.toml simclr");
    let mut child = command.stdout(Stdio::null()).stderr(end).spawn().expect("it starts");
    drop(command);
    assert!(child.wait().expect("it ends").success());
    let mut shown = Vec::new();
    let _ = window.read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains(" left, loss 0."), "{shown:?}");
    assert!(shown.contains("1/2 stages"), "{shown:?}");
    // Up to the first of two lines, each time.
    assert!(shown.matches("\u{1b}[1A\r").count() > 3, "{shown:?}");
    let (_, last) = shown.rsplit_once("\r\u{1b}[J").expect("they are cleared");
    assert!(last.starts_with("done  simclr in "), "{last:?}");
}

#[test]
fn a_watch_is_drawn_in_place_and_gives_the_terminal_back() {
    let project = Sandbox::new(TRAINING).with_fake_learn("slow").set("TERM", "xterm");
    let run = project.start("run experiment.toml simclr --progress none");
    project.wait_for_line("journal", "step 1");
    let shown = shown_on(sized_terminal(50, 8), &project, "status experiment.toml --watch");
    assert!(run.wait().status.success());
    let (before, after) = shown.split_once("\u{1b}[?1049l").expect("it comes back");
    assert!(before.starts_with("\u{1b}[?1049h"), "{before:?}");
    assert!(before.contains("simclr is running"), "{before:?}");
    assert!(after.contains("simclr") && after.contains("fresh"), "{after:?}");
    assert!(!after.contains("running"), "{after:?}");
}
