//! `sandbox` of `command`: programs are kept from what their stage does not declare, or are watched for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use insta::assert_snapshot;

use crate::support::{Ended, Sandbox, names, skipped};

/// A stage with this line for a shell, and more lines of its table.
fn stage(line: &str, more: &str) -> String {
    format!(
        "[experiment]\nname = \"boxed\"\n\n[defaults.command]\nsandbox = \"on\"\n\n\
         [stages.words]\nkind = \"command\"\nshell = '''{line}'''\n{more}\n"
    )
}

fn project(line: &str, more: &str) -> Sandbox {
    let project = Sandbox::new(&stage(line, more));
    project.write("secret.txt", "secret\n");
    project.write("known.txt", "known\n");
    project
}

/// A run. `None`, with a loud line, where this system cannot do what the story is about.
fn run(project: &Sandbox, arguments: &str) -> Option<Ended> {
    let ended = project.pipeline(&format!("run experiment.toml {arguments}"));
    let said = ended.to_string();
    for (sign, what) in [
        ("needs Landlock", "this kernel does not have Landlock, so no sandbox was tried"),
        (
            "does not see anything here",
            "this system has no seccomp notification, so nothing was observed",
        ),
        ("cannot be named here", "this system has no seccomp notification, so nothing was named"),
    ] {
        if said.contains(sign) {
            skipped(what);
            return None;
        }
    }
    Some(ended)
}

fn said(project: &Sandbox) -> String {
    fs::read_to_string(project.artifact("words").join("said")).expect("the program wrote it")
}

#[test]
fn an_undeclared_read_fails_with_the_line_that_declares_it() {
    let project =
        project("cat known.txt secret.txt > $PIPELINE_OUTPUT/said", "files = [\"known.txt\"]");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: 'sh -c cat known.txt secret.txt > $PIPELINE_OUTPUT/said' ended with exit status 1
          the sandbox refused what the stage does not declare: read secret.txt
          what the result depends on: files = ["known.txt", "secret.txt"]
          what it had written is kept in [project]/cache/failed/[digest]
          the last lines of its log:
          | cat: secret.txt: Permission denied
          | sandbox: undeclared read [project]/secret.txt
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
    project.edit("[\"known.txt\"]", "[\"known.txt\", \"secret.txt\"]");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(said(&project), "known\nsecret\n");
}

#[test]
fn a_write_elsewhere_fails_and_may_be_allowed() {
    let project = project("echo hello > out.txt", "");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: 'sh -c echo hello > out.txt' ended with exit status 2
          the sandbox refused what the stage does not declare: write out.txt
          what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["out.txt"]
          which allows only what exists before the program starts: make out.txt, or let the program write to $PIPELINE_OUTPUT or $TMPDIR
          the last lines of its log:
          | sh: 1: cannot create out.txt: Permission denied
          | sandbox: undeclared write [project]/out.txt
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
    assert!(!project.path("out.txt").exists());
    project.write("out.txt", "");
    project.edit("sandbox = \"on\"", "sandbox = \"on\"\nsandbox-write = [\"out.txt\"]");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(project.read("out.txt"), "hello\n");
}

/// Takes the line for `sandbox-write` from a message into the manifest, in place of the one that is there.
fn follow(project: &Sandbox, ended: &Ended) {
    let (_, advised) = ended.stderr.split_once("sandbox-write = ").unwrap_or_else(|| {
        panic!("a line is advised: {ended}");
    });
    let advised = advised.lines().next().expect("the line");
    let manifest = project.read("experiment.toml");
    let followed = manifest.lines().map(|line| match line.starts_with("sandbox-write") {
        true => format!("sandbox-write = {advised}\n"),
        false => format!("{line}\n"),
    });
    project.write("experiment.toml", followed.collect::<String>());
}

/// Runs a line that the sandbox refuses, then what it advises, which is enough. Returns the first message.
fn refused_then_followed(line: &str, declared: &str) -> Option<Ended> {
    let project = project(&format!("set -e; {line}"), &format!("sandbox-write = [{declared}]"));
    project.write("d/a.txt", "a\n");
    fs::create_dir(project.path("d/empty")).expect("a folder");
    let refused = run(&project, "")?;
    assert!(refused.stderr.contains("the sandbox refused what"), "{line}: {refused}");
    follow(&project, &refused);
    let ended = run(&project, "")?;
    assert_eq!(ended.success(), "words ran", "{line} after {refused}");
    Some(refused)
}

#[test]
fn who_makes_removes_or_replaces_a_name_is_advised_to_open_its_folder() {
    for (line, declared) in [
        ("rm d/a.txt", ""),
        ("mv d/a.txt d/c.txt", r#""d/a.txt""#),
        ("echo b > $PIPELINE_OUTPUT/b; mv $PIPELINE_OUTPUT/b d/a.txt", r#""d/a.txt""#),
        ("echo b > $TMPDIR/b; mv $TMPDIR/b d/a.txt", r#""d/a.txt""#),
        ("mv d/a.txt $PIPELINE_OUTPUT", r#""d/a.txt""#),
        ("sed -i s/a/b/ d/a.txt", r#""d/a.txt""#),
        ("ln d/a.txt d/hard", r#""d/a.txt""#),
        ("ln -s a.txt d/link", ""),
        ("mkdir d/new", ""),
        ("mkfifo d/new", ""),
        ("rmdir d/empty", r#""d/empty""#),
    ] {
        let Some(refused) = refused_then_followed(line, declared) else { return };
        assert!(refused.stderr.contains("sandbox-write = [\"d\"]\n"), "{line}: {refused}");
    }
    let Some(refused) = refused_then_followed("rm d/a.txt", r#""d/a.txt""#) else { return };
    assert_snapshot!(refused, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: 'sh -c set -e; rm d/a.txt' ended with exit status 1
          the sandbox refused what the stage does not declare: write d/a.txt
          what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["d"]
          a name that is made, removed or replaced changes its folder, so that is allowed and not the file; or let the program write to $PIPELINE_OUTPUT or $TMPDIR
          the last lines of its log:
          | rm: cannot remove 'd/a.txt': Permission denied
          | sandbox: undeclared write [project]/d/a.txt
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
    // Without what `mv` says: it names the output folder, whose name is never the same.
    let atomic = "echo b > $PIPELINE_OUTPUT/b; mv $PIPELINE_OUTPUT/b known.txt 2> /dev/null";
    let Some(refused) = refused_then_followed(atomic, r#""known.txt""#) else { return };
    assert_snapshot!(refused, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: 'sh -c set -e; echo b > $PIPELINE_OUTPUT/b; mv $PIPELINE_OUTPUT/b known.txt 2> /dev/null' ended with exit status 1
          the sandbox refused what the stage does not declare: write known.txt
          what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["."]
          a name that is made, removed or replaced changes its folder, so that is allowed and not the file; or let the program write to $PIPELINE_OUTPUT or $TMPDIR
          '.' holds the manifest and all that is beside it: better let the program write in a folder of its own, and allow that
          what it had written is kept in [project]/cache/failed/[digest]
          the last lines of its log:
          | sandbox: undeclared write [project]/known.txt
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
}

#[test]
fn a_name_that_could_not_be_changed_is_noted_where_the_program_goes_on() {
    let project = project(
        "rm -f known.txt; echo x > $PIPELINE_OUTPUT/said",
        "sandbox-write = [\"known.txt\"]",
    );
    let Some(ended) = run(&project, "") else { return };
    assert!(ended.stderr.contains("went on without: write known.txt; "), "{ended}");
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(project.read("known.txt"), "known\n");
}

#[test]
fn who_removes_its_own_folders_is_told_so_and_not_to_open_those_above() {
    for (line, name) in [
        ("rm -rf $PIPELINE_OUTPUT", "$PIPELINE_OUTPUT"),
        ("mv $TMPDIR $PIPELINE_OUTPUT/temporary", "$TMPDIR"),
        ("rmdir $PIPELINE_CHECKPOINT", "$PIPELINE_CHECKPOINT"),
    ] {
        let Some(ended) = run(&project(line, ""), "") else { return };
        let expected = format!(
            "the sandbox refused what the stage does not declare: write {name}\n      \
             {name} itself must not be removed, moved or replaced: let the program do that with what is in it\n"
        );
        assert!(ended.stderr.contains(&expected), "{line}: {ended}");
        assert!(!ended.stderr.contains("sandbox-write"), "{line}: {ended}");
    }
}

#[test]
fn a_hard_link_reads_what_it_is_made_to() {
    let project = project("ln secret.txt $PIPELINE_OUTPUT/said 2> /dev/null", "");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended, @r#"
    status 1
    --- stderr
          words (command) runs: no earlier run
    FAIL  words after [time]: 'sh -c ln secret.txt $PIPELINE_OUTPUT/said 2> /dev/null' ended with exit status 1
          the sandbox refused what the stage does not declare: link secret.txt
          what the result depends on: files = ["secret.txt"]
          a hard link can only be made between folders that may both be written: let the program copy secret.txt
          the last lines of its log:
          | sandbox: undeclared read [project]/secret.txt
          | sandbox: undeclared link [project]/secret.txt
    --- stdout

    stage  result  time  metrics
    words  failed  [time]

    boxed: 1 failed in [time]; `pipeline log experiment.toml words` shows the whole log
    "#);
    let Some(ended) = run(&project, "--set defaults.command.sandbox=warn") else { return };
    assert!(ended.stderr.contains("declare all that it does: read secret.txt; what"), "{ended}");
    assert!(!ended.stderr.contains("link"), "a warning is not about how it is read: {ended}");
    assert_snapshot!(ended.success(), @"words ran");
    project.edit("ln secret.txt", "cp secret.txt");
    project.edit("kind = \"command\"", "kind = \"command\"\nfiles = [\"secret.txt\"]");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"words ran");
}

#[test]
fn a_hard_link_to_what_is_declared_is_refused_and_who_copies_then_goes_on() {
    let line = "ln known.txt $PIPELINE_OUTPUT/said";
    let project = project(line, "files = [\"known.txt\"]");
    let Some(ended) = run(&project, "") else { return };
    assert!(
        ended.stderr.contains(
            "does not declare: link known.txt\n      \
             a hard link can only be made between folders that may both be written: let the program copy known.txt\n"
        ),
        "{ended}"
    );
    project.edit(line, &format!("{line} || cp known.txt $PIPELINE_OUTPUT/said"));
    let Some(ended) = run(&project, "") else { return };
    assert!(!ended.stderr.contains("sandbox"), "{ended}");
    assert_eq!(said(&project), "known\n");
}

#[test]
fn another_name_of_what_is_declared_is_not_said_to_be_refused() {
    let project = project("cat second.txt > $PIPELINE_OUTPUT/said", "files = [\"known.txt\"]");
    fs::hard_link(project.path("known.txt"), project.path("second.txt")).expect("a link");
    let Some(ended) = run(&project, "") else { return };
    assert_eq!(said(&project), "known\n");
    assert!(!ended.to_string().contains("sandbox"), "{ended}");
    let Some(ended) = run(&project, "--force words --set defaults.command.sandbox=warn") else {
        return;
    };
    assert!(ended.stderr.contains("does not declare all that it does: read second.txt"), "{ended}");
}

#[test]
fn a_socket_at_a_path_is_a_name_and_others_are_not_restricted() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|ended| ended.status.success())
    {
        return skipped("no Python, so no program made a socket");
    }
    let bind = |family: &str, address: &str| {
        format!(r#"python3 -c "import socket as s; s.socket(s.{family}).bind({address})""#)
    };
    let unix = bind("AF_UNIX", "'d/socket'");
    let Some(refused) = refused_then_followed(&unix, "") else { return };
    assert!(refused.stderr.contains("does not declare: write d/socket\n"), "{refused}");
    assert!(refused.stderr.contains("sandbox-write = [\"d\"]\n"), "{refused}");
    let others = format!(
        "{} && {} && cd $TMPDIR && {}",
        bind("AF_UNIX", r"'\0pipeline-' + str(__import__('os').getpid())"),
        bind("AF_INET", "('127.0.0.1', 0)"),
        bind("AF_UNIX", "'socket'")
    );
    let Some(ended) = run(&project(&others, ""), "") else { return };
    assert!(!ended.stderr.contains("sandbox"), "{ended}");
    assert_snapshot!(ended.success(), @"words ran");
}

#[test]
fn a_warning_names_what_is_undeclared_and_the_stage_succeeds() {
    let project = project("cat secret.txt > $PIPELINE_OUTPUT/said; echo x > out.txt", "");
    project.edit("\"on\"", "\"warn\"");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended, @r#"
    status 0
    --- stderr
          words (command) runs: no earlier run
          words: the stage does not declare all that it does: read secret.txt; write out.txt; what the result depends on: files = ["secret.txt"]; what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["out.txt"]
    done  words in [time]
    --- stdout

    stage  result  time  metrics
    words  ran  [time]

    boxed: 1 ran in [time]
    "#);
    assert_eq!(said(&project), "secret\n");
    let log = project.pipeline("log experiment.toml words").printed();
    assert!(log.contains("sandbox: undeclared read [project]/secret.txt"), "{log}");
    assert!(log.contains("sandbox: undeclared write [project]/out.txt"), "{log}");
}

#[test]
fn it_is_in_no_key_and_off_by_default() {
    let project = project("cat secret.txt > $PIPELINE_OUTPUT/said", "");
    project.edit("[defaults.command]\nsandbox = \"on\"\n", "");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @"words ran");
    for mode in ["on", "warn", "off"] {
        let set = format!("run experiment.toml --set defaults.command.sandbox={mode}");
        assert_eq!(project.pipeline(&set).success(), "words fresh");
    }
}

#[test]
fn a_program_that_goes_on_without_what_was_refused_succeeds_with_a_note() {
    let project = project("cat secret.txt || echo nothing > $PIPELINE_OUTPUT/said", "");
    let Some(ended) = run(&project, "") else { return };
    assert!(ended.stderr.contains("went on without: read secret.txt; what the result"), "{ended}");
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(said(&project), "nothing\n");
}

#[test]
fn what_a_program_starts_is_in_it_too() {
    let line = "setsid sh -c 'sh -c \"cat secret.txt; true\"; true' > $PIPELINE_OUTPUT/said 2>&1";
    let project = project(line, "");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"words ran");
    assert!(said(&project).contains("Permission denied"), "{}", said(&project));
    assert!(ended.stderr.contains("read secret.txt"), "{ended}");
}

#[test]
fn inputs_folders_and_where_their_links_lead_can_be_read() {
    let project = project(
        "cat $PIPELINE_INPUT_OTHER/a known/* > $PIPELINE_OUTPUT/said; cat link.txt",
        "files = [\"known\"]\ninputs = { other = \"other\" }\n\n\
         [stages.other]\nkind = \"command\"\nshell = 'echo other > $PIPELINE_OUTPUT/a'",
    );
    project.write("known/a.txt", "a\n");
    project.write("elsewhere/b.txt", "b\n");
    symlink("../elsewhere/b.txt", project.path("known/b.txt")).expect("a link");
    symlink("secret.txt", project.path("link.txt")).expect("a link");
    let Some(ended) = run(&project, "--set stages.words.outputs=[\"said\"]") else { return };
    assert!(
        ended.stderr.contains("refused what the stage does not declare: read secret.txt\n"),
        "{ended}"
    );
    project.edit("; cat link.txt", "");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"other fresh, words ran");
    assert_eq!(said(&project), "other\na\nb\n");
    // The artifact of a stage that is not an input.
    let path = format!("cat {}/a", project.artifact("other").display());
    project.write("experiment.toml", stage(&path, "").replace("boxed", "other"));
    let Some(ended) = run(&project, "") else { return };
    assert!(
        ended.stderr.contains("what another stage made: inputs = { NAME = \"STAGE\" }"),
        "{ended}"
    );
}

#[test]
fn paths_that_cannot_change_the_result_may_be_added() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path().canonicalize().expect("it exists");
    fs::write(home.join(".settings"), "settings\n").expect("a file");
    let project = project("cat ~/.settings secret.txt > $PIPELINE_OUTPUT/said", "");
    let project = project.set("HOME", home.to_string_lossy());
    let Some(ended) = run(&project, "") else { return };
    assert!(ended.stderr.contains("files = [\"secret.txt\"]\n"), "{ended}");
    assert!(ended.stderr.contains("sandbox-read = [\"~/.settings\"]\n"), "{ended}");
    let read = "sandbox = \"on\"\nsandbox-read = [\"~/.settings\", \"secret.txt\", \"~/none\"]";
    project.edit("sandbox = \"on\"", read);
    let Some(ended) = run(&project, "") else { return };
    assert!(ended.stderr.contains("/none does not exist, so"), "{ended}");
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(said(&project), "settings\nsecret\n");
}

#[test]
fn temporary_files_are_in_a_folder_of_its_own_that_is_removed() {
    let top = tempfile::tempdir().expect("a folder");
    fs::write(top.path().join("of-others"), "").expect("a file");
    let line = "echo x > $TMPDIR/a; mv $TMPDIR/a $PIPELINE_OUTPUT/a; echo y > $(mktemp); \
                touch $PIPELINE_CHECKPOINT/c; echo log >> /dev/stderr; ls $TMPDIR/.. || true";
    let project = project(line, "").set("TMPDIR", top.path().to_string_lossy());
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(names(top.path()), ["of-others"]);
    let log = project.pipeline("log experiment.toml words").printed();
    assert!(log.contains("cannot open directory") && !log.contains("of-others"), "{log}");
    assert!(!ended.stderr.contains("cache/logs"), "{ended}");
}

/// As an ordinary user, who has no privilege.
#[test]
fn an_ordinary_user() {
    let project = Sandbox::of_an_ordinary_user(&stage(
        "cat known.txt > $PIPELINE_OUTPUT/said; cat secret.txt",
        "files = [\"known.txt\"]",
    ));
    project.write("secret.txt", "secret\n");
    project.write("known.txt", "known\n");
    let Some(ended) = run(&project, "") else { return };
    assert!(ended.stderr.contains("does not declare: read secret.txt\n"), "{ended}");
    let Some(ended) = run(&project, "--set defaults.command.sandbox=warn") else { return };
    assert!(
        ended.stderr.contains("does not declare all that it does: read secret.txt; "),
        "{ended}"
    );
    assert_snapshot!(ended.success(), @"words ran");
}

#[test]
fn a_script_of_a_virtual_environment_finds_its_modules() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path().canonicalize().expect("it exists");
    let venv = home.join("venv");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return skipped("no Python with venv, so no virtual environment was tried");
    }
    let library =
        fs::read_dir(venv.join("lib")).expect("a folder").next().expect("one").expect("one");
    fs::write(library.path().join("site-packages/inside.py"), "word = 'inside'\n").expect("a file");
    let script = "import inside, helper, ssl, multiprocessing, tempfile\n\
                  multiprocessing.Lock(); tempfile.TemporaryFile()\n\
                  import os; open(os.environ['PIPELINE_OUTPUT'] + '/said', 'w').write(inside.word + helper.word)\n";
    let run_line =
        format!("run = [{:?}, \"main.py\"]", venv.join("bin/python").display().to_string());
    let project = project("", &format!("{run_line}\nfiles = [\"main.py\", \"helper.py\"]"));
    project.edit("shell = ''''''\n", "");
    project.write("main.py", script);
    project.write("helper.py", "word = 'beside'\n");
    project.write("other.py", "word = 'other'\n");
    let Some(ended) = run(&project, "") else { return };
    assert_snapshot!(ended.success(), @"words ran");
    assert_eq!(said(&project), "insidebeside");
    assert!(!ended.stderr.contains("sandbox"), "nothing was refused: {ended}");
    project.write("main.py", "import other\n");
    let Some(ended) = run(&project, "") else { return };
    assert!(ended.stderr.contains("read other.py\n"), "{ended}");
}
