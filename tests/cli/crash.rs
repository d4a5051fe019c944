//! Killed at any moment, interrupted, asked to stop: what is left, and how the next run goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use pipeline::testing;
use rustix::process::{Pid, Signal};

use crate::manifests::{TRAINING, data_set_line};
use crate::support::{Sandbox, eventually, is_alive, names, walk};

const STEPS: usize = 20;

/// Runs the training in a sandbox of its own, undisturbed, and returns the digest of the model.
fn undisturbed_model() -> String {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.digest("train")
}

/// The process of the last worker that wrote to the journal.
fn worker(project: &Sandbox) -> u32 {
    let journal = project.read("journal");
    let mut pids = journal.lines().filter_map(|line| line.strip_prefix("pid "));
    pids.next_back().and_then(|pid| pid.parse().ok()).expect("a worker that said who it is")
}

fn steps(project: &Sandbox) -> usize {
    project.read("journal").lines().filter(|line| line.starts_with("step ")).count()
}

/// A project with the data and the pre-training; training has not begun.
fn before_training() -> Sandbox {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml simclr").success();
    project.write("journal", "");
    project.with_fake_learn("slow")
}

/// What must hold in a cache that nobody works in.
fn assert_sound(project: &Sandbox, cache: &str) {
    let cache = project.path(cache);
    assert_eq!(names(&cache.join("tmp")), [""; 0], "no work is left over");
    for name in names(&cache.join("store")) {
        let artifact = cache.join("store").join(&name);
        let digest = testing::digest(&artifact).expect("a readable artifact");
        assert_eq!(digest, name, "an artifact has the digest of its name");
        for path in walk(&artifact).into_iter().chain([artifact]) {
            let metadata = path.metadata().expect("readable");
            assert!(metadata.permissions().readonly(), "{} is read-only", path.display());
        }
    }
}

#[test]
fn training_goes_on_after_the_orchestrator_was_killed() {
    let project = before_training();
    let run = project.start("run experiment.toml");
    project.wait_for_line("journal", "step 3");
    run.signal(Signal::KILL);
    let ended = run.wait();
    assert_eq!(ended.code(), None, "{ended}");
    let worker = worker(&project);
    eventually("the worker leaves too", || !is_alive(worker));
    let before = steps(&project);
    assert!(before < STEPS, "it left in the middle");

    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 0
    --- stderr
          train (train) continues from its checkpoint: no earlier run
    done  train in [time] for its last [share]
          evaluate (evaluate) runs: no earlier run
    done  evaluate in [time]
    --- stdout

    stage  result  time  metrics
    data  fresh
    simclr  fresh  loss 0.5000
    train  ran  [time] (last [share])  validation-accuracy 0.5000
    evaluate  ran  [time]  test-accuracy 0.5000, test-loss 0.5000

    training: 2 fresh, 2 ran in [time]
    ");
    // Those of the training, once each, and those of the evaluation.
    assert_eq!(steps(&project), STEPS + STEPS);
    assert_eq!(project.digest("train"), undisturbed_model());
    assert_sound(&project, "cache");
}

/// Trainings at three rates with two seeds each, and a table of what they reach.
const SWEEP: &str = concat!(
    r#"
[experiment]
name = "sweep"
seed = "${seed}"

[matrix]
rate = [0.01, 0.02, 0.03]
seed = [1, 2]

[stages.data]
kind = "command"
shell = '"#,
    data_set_line!(),
    r#"'
output = "dataset"

[stages.train]
kind = "train"
data = "data"
architecture = "resnet8"
learning-rate = "${rate}"

[stages.score]
kind = "command"
inputs = { model = "train" }
output = "metrics"
shell = """
sleep 0.1
cat "$PIPELINE_INPUT_MODEL"/* | cksum | awk '{ printf "{\\"accuracy\\": 0.%d}", $1 }' > "$PIPELINE_OUTPUT/metrics.json"
"""

[stages.table]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["seed"]
rows = ["rate"]
"#
);

#[test]
fn a_sweep_that_was_killed_again_and_again_ends_in_the_same_table() {
    // More than most of the moments below are together.
    let sweep = || Sandbox::new(SWEEP).set("FAKE_LEARN_STEPS", "60");
    let undisturbed = sweep().with_fake_learn("");
    undisturbed.pipeline("run experiment.toml").success();
    let project = sweep().with_fake_learn("slow");
    // At moments that have nothing to do with what happens in a run.
    let moments = [310, 45, 720, 130, 533, 260, 901, 77, 1210, 404, 650, 188];
    let mut killed = 0;
    for moment in moments {
        let run = project.start("run experiment.toml --jobs 3");
        std::thread::sleep(Duration::from_millis(moment));
        run.signal(Signal::KILL);
        killed += usize::from(run.wait().code().is_none());
    }
    assert!(killed > 6, "{killed}: a run takes longer than most of these moments");
    let project = project.with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    assert_eq!(project.digest("table"), undisturbed.digest("table"), "the same bytes");
    assert_sound(&project, "cache");
}

#[test]
fn a_run_waits_for_the_worker_of_a_killed_one() {
    // A worker that does not notice that its orchestrator is gone goes on to write checkpoints.
    let project = before_training().with_fake_learn("stubborn");
    let run = project.start("run experiment.toml");
    project.wait_for_line("journal", "step 3");
    run.signal(Signal::KILL);
    run.wait();
    let project = project.with_fake_learn("");
    let ended = project.pipeline("run experiment.toml");
    assert_snapshot!(ended.success(), @"data fresh, simclr fresh, train ran, evaluate ran");
    assert_eq!(steps(&project), STEPS + STEPS, "no step was done twice");
    assert_eq!(project.digest("train"), undisturbed_model());
    assert_sound(&project, "cache");
}

#[test]
fn what_an_orphan_writes_gets_into_no_artifact() {
    // The first program outlives both its worker and the orchestrator. It may still write to the
    // checkpoint, so the next run waits for it.
    let project = Sandbox::new(
        r#"
[experiment]
name = "orphan"

[stages.orphan]
kind = "command"
shell = '''
if mkdir first 2> /dev/null; then
    trap '' TERM
    echo $PPID > worker
    until test -e go; do sleep 0.01; done
    echo late > "$PIPELINE_OUTPUT/late"
    touch written
else
    test -e written || touch together
    echo good > "$PIPELINE_OUTPUT/good"
fi
'''
"#,
    );
    let run = project.start("run experiment.toml");
    eventually("a worker", || project.read("worker").ends_with('\n'));
    run.signal(Signal::KILL);
    run.wait();
    let worker = project.read("worker").trim().parse().ok().and_then(Pid::from_raw);
    // Before it loses its patience with a program that will not leave.
    let _ = rustix::process::kill_process(worker.expect("a process id"), Signal::KILL);
    let second = project.start("run experiment.toml");
    second.wait_for("waits for an interrupted run of this stage");
    std::thread::sleep(Duration::from_secs(1));
    let allowed = Instant::now();
    project.write("go", "");
    let ended = second.wait();
    let own = allowed.elapsed().as_secs_f64();
    assert_eq!(ended.success(), "orphan ran");
    let shown = project.pipeline("status experiment.toml --json").json();
    let seconds = shown["stages"][0]["last-run"]["seconds"].as_f64().expect("a number");
    assert!(seconds <= own, "{seconds} s with the wait, of {own} s");
    assert_eq!(names(&project.artifact("orphan")), ["good"]);
    assert!(!project.path("together").exists());
}

#[test]
fn a_command_leaves_when_the_orchestrator_was_killed() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "endless"

[stages.endless]
kind = "command"
shell = 'echo $$ > pid; echo begun > begun; while :; do sleep 0.05; done'
"#,
    );
    let run = project.start("run experiment.toml");
    project.wait_for_line("begun", "begun");
    run.signal(Signal::KILL);
    run.wait();
    let pid = project.read("pid").trim().parse().expect("a process id");
    eventually("the program's end", || !is_alive(pid));
}

#[test]
fn a_worker_that_is_killed_is_a_failed_stage() {
    let project = before_training();
    let run = project.start("run experiment.toml");
    project.wait_for_line("journal", "step 3");
    let pid = Pid::from_raw(worker(&project) as i32).expect("a process id");
    rustix::process::kill_process(pid, Signal::KILL).expect("it is alive");
    let ended = run.wait();
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(ended.results(), @"data fresh, simclr fresh, train failed, evaluate skipped");
    let failure: Vec<&str> = ended.stderr.lines().filter(|line| !line.contains("| step")).collect();
    assert_snapshot!(project.filter(&failure.join("\n")), @r"
          train (train) runs: no earlier run
    FAIL  train after [time]: fake-learn was killed (signal 9): by you, or because memory ran out
          the last lines of its log:
          | runs on cpu, 4 threads
    ");
    assert!(ended.stderr.contains("      | step 3\n"), "the end of its log is shown: {ended}");

    let ended = project.pipeline("run experiment.toml");
    assert_snapshot!(ended.success(), @"data fresh, simclr fresh, train ran, evaluate ran");
    assert!(ended.stderr.contains("train (train) continues from its checkpoint"), "{ended}");
    // One step may have been done twice: the one whose checkpoint was not written yet.
    assert!(steps(&project) <= STEPS + STEPS + 1);
    assert_eq!(project.digest("train"), undisturbed_model());
    // What it took is that of its last part, and the record says of how much.
    let results = project.pipeline("results experiment.toml simclr train --json").json();
    let share = |stage: usize| results[stage]["usage"]["share"].as_f64();
    assert_eq!(share(0), None, "{results}");
    assert!(share(1).is_some_and(|share| share > 0.0 && share < 1.0), "{results}");
    let train = |shown: &str| {
        let line = project.filter(shown);
        line.lines().find(|line| line.starts_with("train ")).map(str::to_owned).unwrap_or_default()
    };
    assert_snapshot!(train(&ended.stdout), @"train  ran  [time] (last [share])  validation-accuracy 0.5000");
    let status = train(&project.pipeline("status experiment.toml").stdout);
    assert!(status.contains("  [time] (last [share])  "), "{status}");
    let rerun = project.pipeline("verify experiment.toml --rerun train");
    assert_snapshot!(project.filter(rerun.stdout.split_once('\n').expect("two lines").1), @r"
      recorded  on cpu, 4 threads in [time] for its last [share]
      now  on cpu, 4 threads in [time]
    ");
}

#[test]
fn a_program_cannot_send_events_in_the_name_of_its_worker() {
    // It tries every descriptor of its worker and of the orchestrator, and ends its worker then.
    let spoof = r#"
event='{"event":"finished","metrics":{"accuracy":0.99},"device":"quantum"}'
orchestrator=$(sed 's/.*) . \([0-9]*\) .*/\1/' /proc/$PPID/stat)
test -r /proc/$PPID/fd && echo readable >> said
for process in $PPID $orchestrator; do
    for descriptor in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
        { echo "$event" > /proc/$process/fd/$descriptor; } 2> /dev/null
    done
done
echo '{"accuracy": 0.1}' > "$PIPELINE_OUTPUT/metrics.json"
"#;
    for (end, results) in [
        ("kill -9 $PPID; exit 1", "spoof failed"),
        ("exit 1", "spoof failed"),
        ("exit 0", "spoof ran"),
    ] {
        let project = Sandbox::of_an_ordinary_user(&format!(
            "[experiment]\nname = \"spoof\"\n[stages.spoof]\nkind = \"command\"\noutput = \"metrics\"\nshell = '''{spoof}{end}'''\n"
        ));
        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.results(), results, "{ended}");
        assert!(!ended.stdout.contains("0.99"), "{ended}");
        assert_eq!(project.read("said"), "", "the descriptors of the worker are closed to it");
        let metrics = project.pipeline("metrics experiment.toml");
        assert_eq!(metrics.stdout.contains("0.1000"), results == "spoof ran", "{metrics}");
    }
}

#[test]
fn asked_to_stop_a_training_keeps_its_checkpoint() {
    for (signal, name) in
        [(Signal::INT, "Ctrl-C"), (Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")]
    {
        let project = before_training();
        let run = project.start("run experiment.toml");
        project.wait_for_line("journal", "step 3");
        run.signal(signal);
        let ended = run.wait();
        if signal == Signal::INT {
            assert_snapshot!(ended, @r"
            status 130
            --- stderr
                  train (train) runs: no earlier run
                  stopping: running stages write a checkpoint and leave (again to end them at once)
            stop  train
            --- stdout

            stage  result  time  metrics
            data  fresh
            simclr  fresh  loss 0.5000
            train  stopped
            evaluate  skipped  needs train

            training: 2 fresh, 1 stopped, 1 skipped in [time]; the same command continues from here
            ");
        }
        assert_eq!(ended.code(), Some(130), "{name}: {ended}");
        assert!(steps(&project) < STEPS, "{name} stopped it in the middle");
        assert_sound(&project, "cache");

        let ended = project.pipeline("run experiment.toml");
        assert_eq!(ended.success(), "data fresh, simclr fresh, train ran, evaluate ran", "{name}");
        assert_eq!(steps(&project), STEPS + STEPS, "{name}: no step was done twice");
        assert_eq!(project.digest("train"), undisturbed_model(), "{name}");
    }
}

#[test]
fn asked_twice_a_run_ends_at_once() {
    // Thousands of steps, and a worker that hears nothing.
    let project = before_training().with_fake_learn("stubborn").set("FAKE_LEARN_STEPS", "100000");
    let run = project.start("run experiment.toml");
    project.wait_for_line("journal", "step 1");
    run.signal(Signal::INT);
    run.wait_for("stopping");
    assert!(is_alive(worker(&project)), "the first request leaves it time");
    // What follows at once is an echo of the first.
    std::thread::sleep(Duration::from_millis(400));
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.code(), Some(130), "{ended}");
    assert_snapshot!(ended.results(), @"data fresh, simclr fresh, train stopped, evaluate skipped");
    assert!(!is_alive(worker(&project)));
    assert_sound(&project, "cache");
}

#[test]
fn the_echo_of_a_signal_is_not_a_second_request() {
    let project = before_training();
    let run = project.start("run experiment.toml");
    project.wait_for_line("journal", "step 3");
    run.signal(Signal::INT);
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(130));
    let ended = project.pipeline("run experiment.toml");
    ended.success();
    assert_eq!(
        steps(&project),
        STEPS + STEPS,
        "its checkpoint was written: no step was done twice"
    );
}

#[test]
fn a_command_that_is_asked_to_stop_may_save_its_work() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "resumable"

[stages.count]
kind = "command"
shell = '''
cd "$PIPELINE_CHECKPOINT"
number=$(cat number 2>/dev/null || echo 0)
trap 'echo $number > number; exit 0' TERM
while [ $number -lt 20 ]; do number=$((number + 1)); echo $number >> "$OLDPWD/numbers"; sleep 0.05; done
echo $number > "$PIPELINE_OUTPUT/number"
'''
"#,
    );
    let run = project.start("run experiment.toml");
    project.wait_for_line("numbers", "3");
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(130));
    assert!(project.read("numbers").lines().count() < 20);
    assert_snapshot!(project.pipeline("run experiment.toml"), @r"
    status 0
    --- stderr
          count (command) continues from its checkpoint: no earlier run
    done  count in [time] for its last part
    --- stdout

    stage  result  time  metrics
    count  ran  [time] (last part)

    resumable: 1 ran in [time]
    ");
    let counted: BTreeSet<String> = project.read("numbers").lines().map(str::to_owned).collect();
    assert_eq!(counted.len(), project.read("numbers").lines().count(), "it went on");
}

/// Five quick stages, each with its own output.
fn five_stages() -> String {
    let stage = |number: usize| {
        let input = match number {
            0 => String::new(),
            _ => format!("inputs = {{ before = \"s{}\" }}\n", number - 1),
        };
        format!(
            "[stages.s{number}]\nkind = \"command\"\n{input}\
             shell = 'mkdir \"$PIPELINE_OUTPUT/sub\"; echo {number} | tee \"$PIPELINE_OUTPUT/a\" > \"$PIPELINE_OUTPUT/sub/b\"'\n"
        )
    };
    format!("[experiment]\nname = \"five\"\n{}", (0..5).map(stage).collect::<String>())
}

/// Lets the next run in a cache make everything again: no record is left.
fn forget(project: &Sandbox, cache: &str) {
    let _ = std::fs::remove_dir_all(project.path(cache).join("records"));
}

#[test]
fn killed_at_any_moment_the_cache_holds_the_old_state_or_the_new_one() {
    /// Runs that were killed on their way; some end before the signal comes.
    const KILLED: u32 = 44;
    let project = Sandbox::new(&five_stages());
    let started = Instant::now();
    project.pipeline("run experiment.toml --cache undisturbed").success();
    let undisturbed = started.elapsed();
    let artifacts = names(&project.path("undisturbed/store"));
    assert_eq!(artifacts.len(), 5);

    let (mut killed, mut tried) = (0, 0);
    while killed < KILLED {
        assert!(tried < 5 * KILLED, "only {killed} of {tried} runs could be killed in time");
        // Every third run begins from nothing, the others where the last one left off.
        let cache = format!("cache-{}", tried / 3);
        forget(&project, &cache);
        let run = project.start(&format!("run experiment.toml --cache {cache}"));
        // The golden ratio spreads the moments evenly, however many there will be.
        let moment = (f64::from(tried) * 0.618_034).fract();
        std::thread::sleep(undisturbed.mul_f64(moment));
        run.signal(Signal::KILL);
        killed += u32::from(run.wait().code().is_none());
        tried += 1;
        assert_nothing_is_half_there(&project, &cache);

        let ended = project.pipeline(&format!("run experiment.toml --cache {cache}"));
        ended.success();
        assert_sound(&project, &cache);
        assert_eq!(names(&project.path(&cache).join("store")), artifacts);
        // And all of it is of use.
        let ended = project.pipeline(&format!("run experiment.toml --cache {cache}"));
        assert_eq!(ended.success().matches(" fresh").count(), 5);
    }
}

/// What must hold in a cache at every moment: what has its final name is whole.
fn assert_nothing_is_half_there(project: &Sandbox, cache: &str) {
    let cache = project.path(cache);
    for name in names(&cache.join("store")) {
        let digest = testing::digest(&cache.join("store").join(&name)).expect("readable");
        assert_eq!(digest, name, "an artifact has the digest of its name");
    }
    for path in walk(&cache.join("records")) {
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read(&path).expect("readable");
            let record: serde_json::Value = serde_json::from_slice(&text).expect("a whole record");
            let digest = record["output"]["digest"].as_str().expect("a digest");
            assert!(cache.join("store").join(digest).is_dir(), "a record has its artifact");
        }
    }
}

#[test]
fn work_that_was_cut_off_is_swept_away_by_a_later_run() {
    let project = before_training();
    let run = project.start("run experiment.toml");
    project.wait_for_line("journal", "step 3");
    run.signal(Signal::KILL);
    run.wait();
    let worker = worker(&project);
    eventually("the worker leaves too", || !is_alive(worker));
    assert_eq!(names(&project.cache("tmp")).len(), 1);
    // Nobody will come back to the same key.
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    let project = project.with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    assert_sound(&project, "cache");
}

#[test]
fn a_run_does_not_wait_for_the_dead() {
    let project = Sandbox::new(&five_stages());
    let run = project.start("run experiment.toml");
    run.wait_for("runs");
    run.signal(Signal::KILL);
    run.wait();
    let started = Instant::now();
    let ended = project.pipeline("run experiment.toml");
    ended.success();
    assert!(started.elapsed() < Duration::from_secs(20), "its locks went with it");
}

#[test]
fn why_a_stage_failed_is_known_where_its_program_ended_within_a_line() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "bars"

[stages.ends]
kind = "command"
shell = 'printf "45 percent"; exit 3'

[stages.kills-its-worker]
kind = "command"
shell = 'printf "46 percent"; kill -9 $PPID'
"#,
    );
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("      | 45 percent\n"), "{ended}");
    let log = project.pipeline("log experiment.toml ends").stdout;
    assert!(log.starts_with("45 percent\nfailed: "), "{log}");
    let status = project.pipeline("status experiment.toml").stdout;
    assert!(status.contains("exit status 3"), "{status}");
    assert!(status.contains("was killed (signal 9)"), "{status}");
}
