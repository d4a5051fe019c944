//! Cleaning while others use the cache, and when it is killed.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use insta::assert_snapshot;
use pipeline::testing;
use rustix::process::Signal;

use super::{NUMBERS, forget_history, run_with, shown, store};
use crate::support::{MANIFEST, Sandbox, eventually, names, skipped};

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
    wait_for_its_file(&project);
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
    wait_for_its_file(&project);
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

/// Waits until a process has said in `running/` what it works on: under a key, and not under a temporary name.
fn wait_for_its_file(project: &Sandbox) {
    let is_key = |name: &String| name.len() == 64;
    eventually("its file", || names(&project.cache("running")).iter().any(is_key));
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
fn who_waits_for_somebody_who_cleans_says_so() {
    let project = Sandbox::new(&format!("{NUMBERS}{SLOW}"));
    let running = project.start("run experiment.toml --jobs 1");
    project.wait_for_line("ran", "slow");
    // Somebody who was suspended while nobody can pin.
    let lock =
        fs::File::options().write(true).open(project.cache("locks/pins")).expect("it pinned");
    lock.lock().expect("nobody has it for long");
    project.write("cache/locks/gc", r#"{"pid": 4711, "host": "elsewhere", "since": 0}"#);
    project.write("go", "");
    let others = ["run experiment.toml", "verify --all"].map(|arguments| project.start(arguments));
    let words = "waits for process 4711 on elsewhere, which cleans this cache";
    running.wait_for(words);
    others.iter().for_each(|other| other.wait_for(words));
    drop(lock);
    for ended in others.into_iter().chain([running]).map(crate::support::Running::wait) {
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

#[test]
fn a_job_that_waits_for_somebody_who_cleans_says_so() {
    let one = "[stages.one]\nkind = \"command\"\nshell = 'echo 1 > \"$PIPELINE_OUTPUT/a\"'\n";
    let project = Sandbox::new(&format!("[experiment]\nname = \"x\"\n{one}"));
    project.pipeline("run experiment.toml").success();
    project.edit("echo 1", "echo 2");
    let spec = testing::job(&project.path(MANIFEST), &project.path("cache"), "one");
    project.write("spec.json", spec.expect("a stage without inputs").to_string());
    let lock =
        fs::File::options().write(true).open(project.cache("locks/pins")).expect("it pinned");
    lock.lock().expect("nobody has it for long");
    project.write("cache/locks/gc", r#"{"pid": 4711, "host": "elsewhere", "since": 0}"#);
    let job = project.start("__job spec.json");
    let words = "waits for process 4711 on elsewhere, which cleans this cache";
    eventually("it says so", || job.printed().contains(words));
    drop(lock);
    let ended = job.wait();
    assert_eq!(ended.code(), Some(0), "{ended}");
}
