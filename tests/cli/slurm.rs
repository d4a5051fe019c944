//! Stages as jobs of a real Slurm of two nodes, which `cargo xtask test-slurm` starts. Without it, these stories are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::manifests::{TRAINING, data_set_line};
use crate::support::{MANIFEST, Running, Sandbox, eventually, fake_learn, names, skipped};

mod document;

/// How long a story may take: Slurm plans once in a second, and its jobs wait for each other.
const LIMIT: Duration = Duration::from_secs(180);

/// The folder of the Slurm for tests.
fn slurm() -> Option<PathBuf> {
    let folder = std::env::var_os("PIPELINE_TEST_SLURM").map(PathBuf::from);
    if folder.is_none() {
        skipped("there is no Slurm: `cargo xtask test-slurm` starts one");
    }
    folder
}

/// A project whose stages that learn can run there, each in 40 steps of 50 ms.
fn project(slurm: &Path, more: &str) -> Sandbox {
    dressed(Sandbox::new(&format!("{TRAINING}{more}")), slurm)
}

fn dressed(project: Sandbox, slurm: &Path) -> Sandbox {
    let project = project.with_fake_learn("slow");
    let journal = project.path("journal");
    let setup = format!(
        "export FAKE_LEARN=slow FAKE_LEARN_STEPS=$(cat {}) FAKE_LEARN_JOURNAL={}",
        project.path("steps").display(),
        journal.display()
    );
    let executor = format!(
        "[executors.slurm]\nkind = \"slurm\"\noptions = [\"--mem=50M\"]\nsetup = \"{setup}\"\n"
    );
    project.write(MANIFEST, format!("{}\n{executor}", project.read(MANIFEST)));
    project.write("steps", "40");
    project.set("SLURM_CONF", slurm.join("slurm.conf").to_string_lossy())
}

const RUN: &str = "run experiment.toml simclr --executor slurm";

/// Asks Slurm for something.
fn ask(command: &str) -> Output {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).output().expect("Slurm is installed")
}

/// Starts a job that was put back into the queue, and would wait there for two minutes.
fn start_again(job: &str) {
    // A node starts no job in the second in which it was told to end it.
    std::thread::sleep(Duration::from_secs(2));
    ask(&format!("scontrol update jobid={job} starttime=now"));
}

fn steps(project: &Sandbox) -> usize {
    project.read("journal").lines().filter(|line| line.contains("step")).count()
}

fn works(project: &Sandbox) {
    eventually("a step", || steps(project) > 1);
}

/// The number of the job that a run said it has.
fn job(run: &Running) -> String {
    run.wait_for(" is job ");
    let said = run.said();
    let after = said.split(" is job ").nth(1).expect("it was said");
    after.split_whitespace().next().expect("a number").to_owned()
}

/// Waits until a run has said this, for longer than in other stories.
fn wait_for(run: &Running, text: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        // Before its words are read: what it said last is among them.
        let goes_on = run.is_running() && Instant::now() < deadline;
        let said = run.said();
        if said.contains(text) {
            return;
        }
        assert!(goes_on, "waited for '{text}':\n{said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first node, which is down until this is dropped.
struct Down;

impl Down {
    /// The machine of the node is gone, with its daemon and all that it ran for a job of a project.
    fn node(slurm: &Path, project: &Sandbox, job: &str) -> Self {
        let down = Self::daemons(slurm, project, job);
        processes_of_job(project).into_iter().for_each(kill);
        down
    }

    /// The same, and what it ran stays.
    fn daemons(slurm: &Path, project: &Sandbox, job: &str) -> Self {
        kill_daemon(slurm);
        let step = format!("slurmstepd: [{job}.");
        // Who watches the job, before the job.
        let watching = processes(|line| line.starts_with(&step));
        watching.iter().copied().for_each(kill);
        let is_watched = |pid: &i32| watching.contains(&parent(*pid));
        eventually("its end", || !processes_of_job(project).iter().any(is_watched));
        ask("scontrol update nodename=n1 state=down reason=test");
        Self
    }
}

/// Kills the daemon of the first node, and nothing that it has started.
fn kill_daemon(slurm: &Path) {
    let daemon = fs::read_to_string(slurm.join("run/slurmd.n1.pid")).expect("its number");
    kill(daemon.trim().parse().expect("a number"));
}

fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("not zero"), signal).expect("we are root");
}

/// The processes of the jobs of a project, without those that learn.
fn processes_of_job(project: &Sandbox) -> Vec<i32> {
    let folder = project.folder().display().to_string();
    processes(|line| line.contains("__job") && line.contains(&folder))
}

/// The parent of a process.
fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.unwrap_or(1)
}

/// The processes with such a command line.
fn processes(is_meant: impl Fn(&str) -> bool) -> Vec<i32> {
    let pids = names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok());
    let line = |pid: &i32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    pids.filter(|pid| is_meant(&line(pid))).collect()
}

impl Drop for Down {
    fn drop(&mut self) {
        ask("slurmd -N n1");
        ask("scontrol update nodename=n1 state=resume");
    }
}

/// Waits for longer than other stories.
fn wait(run: Running) -> crate::support::Ended {
    let deadline = Instant::now() + LIMIT;
    while run.is_running() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    run.wait()
}

#[test]
fn a_sweep_gives_the_same_as_here() {
    let Some(slurm) = slurm() else { return };
    let manifest = sweep(60, "true");
    let there = dressed(Sandbox::new(&manifest), &slurm);
    let nodes = there.path("nodes").display().to_string();
    there.edit("setup = \"", &format!("setup = \"echo $SLURMD_NODENAME >> {nodes}; "));
    let here = Sandbox::new(&manifest.replace("executor = \"slurm\"", "executor = \"local\""));
    let run = wait(there.start("run experiment.toml"));
    assert!(run.status.success(), "{run}");
    here.pipeline("run experiment.toml").success();
    assert_eq!(names(&there.cache("store")), names(&here.cache("store")));
    assert_eq!(names(&there.cache("store")).len(), 60);
    assert_eq!(names(&there.cache("jobs")), [""; 0]);
    let jobs = jobs(&run.stderr);
    assert_eq!(jobs.len(), 60);
    assert_eq!(arrays(&jobs).len(), 1, "{jobs:?}");
    let nodes = there.read("nodes");
    let all: BTreeSet<&str> = nodes.lines().collect();
    assert_eq!((nodes.lines().count(), all), (60, BTreeSet::from(["n1", "n2"])), "both did some");
}

/// A manifest with so many instances of a stage, each of which does this first, with its number as `$0`.
fn sweep(count: usize, first: &str) -> String {
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    format!(
        "[experiment]\nname = \"sweep\"\n[matrix]\nn = [{}]\n[stages.draw]\nkind = \"command\"\nrun = [\"sh\", \"-c\", '{first}; echo $0 > \"$PIPELINE_OUTPUT/a\"', \"${{n}}\"]\nexecution = {{ executor = \"slurm\" }}\n",
        numbers.join(", ")
    )
}

/// The stages with their jobs, as a run said them.
fn jobs(said: &str) -> BTreeMap<String, String> {
    let lines = said.lines().filter_map(|line| line.trim().split_once(" is job "));
    lines.map(|(stage, job)| (stage.to_owned(), job.replace(" of slurm", ""))).collect()
}

/// The arrays that these jobs are tasks of.
fn arrays(jobs: &BTreeMap<String, String>) -> BTreeSet<&str> {
    jobs.values().map(|job| job.split_once('_').expect("a task").0).collect()
}

#[test]
fn no_more_tasks_of_an_array_run_at_once_than_an_executor_takes() {
    let Some(slurm) = slurm() else { return };
    let count = "touch run.$0; ls run.* | wc -l >> counts; sleep 1; rm run.$0";
    let project = Sandbox::new("");
    let first = format!("cd {}; {count}", project.folder().display());
    project.write(MANIFEST, sweep(7, &first));
    let project = dressed(project, &slurm);
    project.edit("kind = \"slurm\"", "kind = \"slurm\"\nmax-jobs = 2");
    let run = project.start("run experiment.toml");
    wait_for(&run, "draw@n=6 is job");
    let queue = ask("squeue --noheader --name=draw --format=%i");
    let queue = String::from_utf8_lossy(&queue.stdout).into_owned();
    assert!(queue.contains("%2]"), "{queue}");
    let ended = wait(run);
    assert!(ended.status.success(), "{ended}");
    let counts = project.read("counts");
    assert_eq!(counts.lines().count(), 7);
    assert!(counts.lines().all(|at_once| ["1", "2"].contains(&at_once)), "{counts}");
}

#[test]
fn tasks_of_an_array_end_each_in_its_own_way() {
    let Some(slurm) = slurm() else { return };
    let project = Sandbox::new("");
    let again = project.path("again").display().to_string();
    let first = format!("case $0 in 1) exit 3 ;; 2 | 3) [ -e {again} ] || sleep 600 ;; esac");
    project.write(MANIFEST, sweep(4, &first));
    let project = dressed(project, &slurm);
    let run = project.start("run experiment.toml --keep-going");
    wait_for(&run, "draw@n=2 (command) runs");
    wait_for(&run, "draw@n=3 (command) runs");
    let jobs = jobs(&run.said());
    assert_eq!(arrays(&jobs).len(), 1);
    let (cancelled, requeued) = (&jobs["draw@n=2"], &jobs["draw@n=3"]);
    // Those that run have names and keys of their own.
    let start = format!("{cancelled}_draw@n=2_pipeline ");
    eventually("its name and its key in the queue", || {
        let said = ask("squeue --noheader --states=RUNNING --array --format=%i_%j_%k");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let of_it = said.lines().find_map(|line| line.strip_prefix(&start));
        let key = of_it.and_then(|comment| comment.split(' ').next());
        key.is_some_and(|key| names(&project.cache("jobs")).contains(&key.to_owned()))
    });
    ask(&format!("scancel {cancelled}"));
    ask(&format!("scontrol requeue {requeued}"));
    wait_for(&run, &format!("its job {requeued} was put back into the queue"));
    project.write("again", "");
    start_again(requeued);
    let ended = wait(run);
    let results = "draw@n=0 ran, draw@n=1 failed, draw@n=2 failed, draw@n=3 ran";
    assert_eq!(ended.results(), results, "{ended}");
    assert!(ended.stderr.contains(&format!("its job {cancelled} was cancelled")), "{ended}");
    assert!(ended.stderr.contains("ended with exit status 3"), "{ended}");
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
}

#[test]
fn a_run_that_is_killed_comes_back_to_the_tasks_of_its_array() {
    let Some(slurm) = slurm() else { return };
    let project = Sandbox::new("");
    let first = format!("echo $0 >> {}/runs; sleep 8", project.folder().display());
    project.write(MANIFEST, sweep(4, &first));
    let project = dressed(project, &slurm);
    // Before it is written which job it is, and after that.
    let mut command = project.command("run experiment.toml");
    command.env("PATH", with_deadly_sbatch(&project));
    let killed = project.start_command(command).wait();
    assert_eq!(killed.code(), None, "{killed}");
    let run = project.start("run experiment.toml");
    wait_for(&run, "draw@n=3 is job");
    run.signal(Signal::KILL);
    let first = jobs(&run.wait().stderr);
    let run = project.start("run experiment.toml");
    wait_for(&run, "draw@n=2 (command) runs");
    run.signal(Signal::INT);
    run.wait_for("again within 3 s");
    let left = run.wait();
    assert!(left.results().contains("left"), "{left}");
    let ended = wait(project.start("run experiment.toml"));
    assert!(ended.status.success(), "{ended}");
    assert_eq!((jobs(&left.stderr), arrays(&first).len()), (first, 1));
    let mut runs: Vec<String> = project.read("runs").lines().map(str::to_owned).collect();
    runs.sort_unstable();
    assert_eq!(runs, ["0", "1", "2", "3"], "each once");
}

#[test]
fn ctrl_c_twice_cancels_the_tasks_of_an_array() {
    let Some(slurm) = slurm() else { return };
    let project = dressed(Sandbox::new(&sweep(3, "sleep 60")), &slurm);
    let run = project.start("run experiment.toml");
    wait_for(&run, "draw@n=1 (command) runs");
    run.signal(Signal::INT);
    run.wait_for("again within 3 s");
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.results(), "draw@n=0 stopped, draw@n=1 stopped, draw@n=2 stopped");
    let jobs = jobs(&ended.stderr);
    let array = arrays(&jobs).into_iter().next().expect("one").to_owned();
    eventually("the end of the jobs", || {
        let left = ask(&format!("squeue --noheader --jobs={array} --format=%T"));
        left.stdout.is_empty()
    });
}

#[test]
fn a_task_of_an_array_that_nobody_follows_is_cancelled_and_then_the_others() {
    let Some(slurm) = slurm() else { return };
    let project = dressed(Sandbox::new(&sweep(3, "sleep 60")), &slurm)
        .set("PIPELINE_CANCEL_PATIENCE", "60000");
    let left = project.pipeline("run experiment.toml --detach");
    left.success();
    let jobs = jobs(&left.stderr);
    let array = arrays(&jobs).into_iter().next().expect("one").to_owned();
    let queue = || {
        let listed = ask(&format!("squeue --noheader --array --jobs={array} --format=%i"));
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        listed.lines().map(|line| line.trim().to_owned()).collect::<BTreeSet<_>>()
    };
    let id = |stage: &str| jobs[stage].clone();
    assert_eq!(queue(), BTreeSet::from(["draw@n=0", "draw@n=1", "draw@n=2"].map(id)));
    let said = project.pipeline("cancel experiment.toml draw@n=1").printed();
    assert_eq!(said, format!("draw@n=1: its job {} of slurm was cancelled\n", id("draw@n=1")));
    eventually("its end", || queue() == BTreeSet::from(["draw@n=0", "draw@n=2"].map(id)));
    let others = project.pipeline("cancel experiment.toml");
    assert_eq!(others.printed().lines().count(), 2, "{others}");
    eventually("their end", || queue().is_empty());
    let left = names(&project.cache("jobs"));
    assert!(left.iter().all(|name| name.starts_with("left-")), "no job: {left:?}");
}

#[test]
fn the_jobs_of_a_detached_run_submit_what_they_make_ready() {
    let Some(slurm) = slurm() else { return };
    let more = "\n[stages.other]\nkind = \"train\"\nseed = 5\ndata = \"data\"\ninit = \"simclr\"\narchitecture = \"resnet8\"\n";
    let project = project(&slurm, more);
    let all = "run experiment.toml --executor slurm";
    let left = project.pipeline(&format!("{all} --detach"));
    assert!(left.success().contains("simclr left"), "{left}");
    let is_there =
        |name: &str| names(&project.cache("heads/training")).iter().any(|one| one == name);
    let deadline = Instant::now() + LIMIT;
    while !(is_there("evaluate") && is_there("other")) {
        assert!(Instant::now() < deadline, "the jobs have ended");
        std::thread::sleep(Duration::from_millis(200));
    }
    let ended = wait(project.start(all));
    assert!(ended.success().split(", ").all(|one| one.ends_with(" fresh")), "{ended}");
    let left = names(&project.cache("jobs"));
    assert!(left.iter().all(|name| name.starts_with("left-")), "no job: {left:?}");
    assert_eq!(steps(&project), 4 * 40, "each once");
}

#[test]
fn the_last_task_of_an_array_goes_on_with_what_waits_for_all_of_them() {
    let Some(slurm) = slurm() else { return };
    let project = Sandbox::new("");
    let (made, go) = (project.path("made"), project.path("go"));
    let made = made.display();
    // None ends before the run has left.
    let draw = format!("until test -e {}; do sleep 0.1; done", go.display());
    let count = "grep -o path \"$PIPELINE_INPUT_DRAWS/instances.json\" | wc -l";
    let table = format!(
        "[stages.table]\nkind = \"command\"\ninputs = {{ draws = \"draw@*\" }}\nshell = 'echo table >> {made}; {count} > \"$PIPELINE_OUTPUT/a\"'\nexecution = {{ executor = \"slurm\" }}\n"
    );
    project.write(MANIFEST, format!("{}{table}", sweep(4, &draw)));
    let project = dressed(project, &slurm);
    let left = project.pipeline("run experiment.toml --detach");
    assert!(left.success().ends_with("draw@n=3 left, table following"), "{left}");
    assert_eq!(arrays(&jobs(&left.stderr)).len(), 1, "{left}");
    project.write("go", "");
    let is_there = || names(&project.cache("heads/sweep")).iter().any(|name| name == "table");
    let deadline = Instant::now() + LIMIT;
    while !is_there() {
        assert!(Instant::now() < deadline, "the table is made");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = wait(project.start("run experiment.toml"));
    assert!(ended.success().split(", ").all(|one| one.ends_with(" fresh")), "{ended}");
    let table = fs::read_to_string(project.artifact("table").join("a")).expect("it was made");
    assert_eq!((&*table, &*project.read("made")), ("4\n", "table\n"), "once");
}

#[test]
fn a_job_that_is_preempted_goes_on_and_is_started_once() {
    let Some(slurm) = slurm() else { return };
    for (more, said) in [
        ("", "was put back into the queue"),
        (", \"--no-requeue\"", "which was interrupted, and whose checkpoint has advanced,"),
    ] {
        let project = project(&slurm, "");
        let options = format!("options = [\"--mem=4000M\", \"--nodelist=n1\"{more}]");
        project.edit("options = [\"--mem=50M\"]", &options);
        project.write("steps", "100");
        let run = project.start(RUN);
        let first = job(&run);
        works(&project);
        preempt();
        wait_for(&run, said);
        start_again(&first);
        let ended = wait(run);
        assert_eq!(ended.success(), "data ran, simclr ran");
        assert_eq!(steps(&project), 100, "no step was done twice: {ended}");
        let is_new = jobs(&ended.stderr)["simclr"] != first;
        assert_eq!(is_new, !more.is_empty(), "{ended}");
    }
}

#[test]
fn what_a_job_went_on_with_when_it_was_preempted_gets_a_job_of_its_own() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    let options = "options = [\"--mem=4000M\", \"--nodelist=n1\"]";
    project.edit("options = [\"--mem=50M\"]", options);
    project.write("steps", "100");
    let run = project.start("run experiment.toml train --executor slurm");
    let first = job(&run);
    wait_for(&run, "train (train) runs");
    preempt();
    wait_for(&run, "a job that went on after another stage is replaced by a new one");
    let ended = wait(run);
    assert_eq!(ended.success(), "data ran, simclr ran, train ran");
    assert_eq!(steps(&project), 200, "no step was done twice: {ended}");
    assert_ne!(jobs(&ended.stderr)["train"], first);
}

/// Takes the first node away from what runs there.
fn preempt() {
    let taken = ask(
        "sbatch --parsable --partition=urgent --mem=4000M --nodelist=n1 --output=/dev/null --wrap=true",
    );
    assert!(taken.status.success(), "{taken:?}");
}

#[test]
fn a_job_that_takes_more_memory_than_it_has_says_so() {
    let Some(slurm) = slurm() else { return };
    if !slurm.join("cgroup.conf").exists() {
        return skipped("this Slurm does not limit memory: it has no groups of processes");
    }
    // A line without an end is all in memory.
    let project = dressed(Sandbox::new(&sweep(1, "exec tail -n 1 /dev/zero")), &slurm);
    let attempts = "executor = \"slurm\", attempts = { count = 2, on = [\"out-of-memory\"] } }";
    project.edit("executor = \"slurm\" }", attempts);
    let ended = wait(project.start("run experiment.toml"));
    assert_eq!(ended.code(), Some(1), "{ended}");
    for said in ["out of memory", "this was attempt 2 of 2"] {
        assert!(ended.stderr.contains(said), "{said}: {ended}");
    }
}

#[test]
fn a_run_is_killed_and_slurm_goes_on() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    let run = project.start(RUN);
    let first = job(&run);
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    let run = project.start(RUN);
    assert_eq!(job(&run), first);
    assert_eq!(run.wait().success(), "data fresh, simclr ran");
    assert_eq!(steps(&project), 40);
}

/// A PATH with an `sbatch` that kills whoever called it, once Slurm has the job.
fn with_deadly_sbatch(project: &Sandbox) -> String {
    with_program(project, "sbatch", "/usr/bin/sbatch \"$@\" > /dev/null; kill -9 $PPID")
}

/// A PATH with another program of Slurm.
fn with_program(project: &Sandbox, name: &str, script: &str) -> String {
    project.write_program(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
    let path = std::env::var("PATH").expect("a path");
    format!("{}:{path}", project.path("bin").display())
}

#[test]
fn a_submission_that_nobody_wrote_down_is_found_by_its_comment() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    let mut command = project.command(RUN);
    command.env("PATH", with_deadly_sbatch(&project));
    let killed = project.start_command(command).wait();
    assert_eq!(killed.code(), None, "{killed}");
    let ended = wait(project.start(RUN));
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert_eq!(steps(&project), 40, "it ran once");
}

#[test]
fn a_controller_that_is_too_busy_to_answer_is_asked_again_and_submits_once() {
    let Some(slurm) = slurm() else { return };
    let project = dressed(Sandbox::new(&sweep(3, "true")), &slurm);
    let calls = project.path("calls").display().to_string();
    let busy =
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation";
    // The first call says that before Slurm has the array, and the second one after that.
    let script = format!(
        "echo >> {calls}; case $(wc -l < {calls}) in 1) echo '{busy}' >&2; exit 1 ;; 2) /usr/bin/sbatch \"$@\"; echo '{busy}' >&2; exit 1 ;; esac; exec /usr/bin/sbatch \"$@\""
    );
    let mut command = project.command("run experiment.toml");
    command.env("PATH", with_program(&project, "sbatch", &script));
    let ended = wait(project.start_command(command));
    assert_eq!(ended.success(), "draw@n=0 ran, draw@n=1 ran, draw@n=2 ran");
    assert_eq!(ended.stderr.matches("Socket timed out").count(), 2, "{ended}");
    assert_eq!(project.read("calls").lines().count(), 2);
}

#[test]
fn all_jobs_are_asked_for_at_once() {
    let Some(slurm) = slurm() else { return };
    let project = Sandbox::new("");
    let go = project.path("go").display().to_string();
    let first = format!("until [ -e {go} ]; do sleep 0.1; done");
    let draw = sweep(2, &first);
    let (_, stage) = draw.split_once("[stages.draw]").expect("it is there");
    let other = stage.replace("OUTPUT/a", "OUTPUT/b");
    project.write(MANIFEST, format!("{draw}[stages.other]{other}"));
    let project = dressed(project, &slurm);
    let asked = project.path("asked").display().to_string();
    let mut command = project.command("run experiment.toml");
    let script = format!("echo \"$@\" >> {asked}; exec /usr/bin/squeue \"$@\"");
    command.env("PATH", with_program(&project, "squeue", &script));
    let run = project.start_command(command);
    for stage in ["draw@n=1", "other@n=1"] {
        wait_for(&run, &format!("{stage} is job"));
    }
    let jobs = jobs(&run.said());
    let all: Vec<&str> = arrays(&jobs).into_iter().collect();
    assert_eq!(all.len(), 2);
    let line = format!("--jobs={}", all.join(","));
    eventually("a question", || project.read("asked").lines().any(|asked| asked.ends_with(&line)));
    project.write("go", "");
    assert!(wait(run).status.success());
}

#[test]
fn a_job_has_of_the_environment_only_what_is_said() {
    let Some(slurm) = slurm() else { return };
    let project = Sandbox::new("");
    project.write(MANIFEST, sweep(1, "true"));
    // As from within another job.
    let project = dressed(project, &slurm).set("SECRET", "x").set("SLURM_CPUS_PER_TASK", "7");
    let setup = format!("setup = \"env > {}; ", project.path("environment").display());
    project.edit("setup = \"", &setup);
    assert_eq!(wait(project.start("run experiment.toml")).success(), "draw@n=0 ran");
    let environment = project.read("environment");
    let has = |line: &str| environment.lines().any(|one| one.starts_with(line));
    assert!(has("PATH=") && has("SLURM_JOB_ID="), "{environment}");
    assert!(!has("SECRET=") && !has("SLURM_CPUS_PER_TASK="), "{environment}");
}

#[test]
fn attempts_count_once_and_tasks_that_failed_leave_their_places_to_others() {
    let Some(slurm) = slurm() else { return };
    let project = Sandbox::new("");
    let first = format!("echo $0 >> {}/runs; exit 3", project.folder().display());
    project.write(MANIFEST, sweep(3, &first));
    let project = dressed(project, &slurm);
    project.edit("kind = \"slurm\"", "kind = \"slurm\"\nmax-jobs = 2");
    let attempts = "executor = \"slurm\", attempts = { count = 2, on = [\"failure\"] } }";
    project.edit("executor = \"slurm\" }", attempts);
    let ended = wait(project.start("run experiment.toml --keep-going"));
    assert_eq!(ended.results(), "draw@n=0 failed, draw@n=1 failed, draw@n=2 failed", "{ended}");
    let mut runs: Vec<String> = project.read("runs").lines().map(str::to_owned).collect();
    runs.sort_unstable();
    assert_eq!(runs, ["0", "0", "1", "1", "2", "2"]);
}

#[test]
fn a_job_whose_time_is_up_is_requeued_and_goes_on() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    // The job is told before its last 30 s, and up to a minute earlier.
    project.edit(
        "options = [\"--mem=50M\"]",
        "time = \"2\"\noptions = [\"--mem=50M\", \"--signal=B:USR1@30\"]",
    );
    project.write("steps", "4000");
    let run = project.start(RUN);
    let job = job(&run);
    wait_for(&run, &format!("its job {job} was put back into the queue"));
    let done = steps(&project);
    assert!((1..4000).contains(&done), "{done}");
    // It would wait for two minutes, and then as long as it takes.
    project.write("steps", (done + 5).to_string());
    start_again(&job);
    let ended = wait(run);
    assert_eq!(ended.success(), "data ran, simclr ran");
    assert_eq!(steps(&project), done + 5, "no step was done twice");
}

/// Tells a job that its time is nearly up.
fn warn(job: &str) {
    ask(&format!("scancel --batch --signal=USR1 {job}"));
}

/// The states of a job, or of the tasks of an array.
fn states(job: &str) -> BTreeSet<String> {
    let said = ask(&format!("squeue --noheader --states=all --array --jobs={job} --format=%T"));
    String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_job_that_a_task_of_an_array_has_submitted_puts_itself_back_and_not_the_task() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "\n[matrix]\nn = [0, 1]\n");
    let text = project.read(MANIFEST);
    let from = text.find("shell = ").expect("it is there");
    let to = from + text[from..].find('\n').expect("it ends");
    let line = concat!("until [ -e go ]; do sleep 0.1; done; ", data_set_line!(), "; echo $N > n");
    let waits = format!(
        "shell = '{line}'\nenvironment = {{ N = \"${{n}}\" }}\nexecution = {{ executor = \"slurm\" }}"
    );
    project.write(MANIFEST, text.replace(&text[from..to], &waits));
    // It does not fit into the task that makes it ready.
    project
        .edit("kind = \"pretrain-simclr\"", "kind = \"pretrain-simclr\"\nexecution = { cpus = 2 }");
    project.write("steps", "100");
    let all = "run experiment.toml data simclr@n=0 --executor slurm";
    let left = project.pipeline(&format!("{all} --detach"));
    assert!(left.success().starts_with("data@n=0 left, data@n=1 left"), "{left}");
    // Not before: what a task has made ready while the run was there, that would submit.
    project.write("go", "");
    let tasks = jobs(&left.stderr);
    let array = arrays(&tasks).into_iter().next().expect("one").to_owned();
    let deadline = Instant::now() + LIMIT;
    while steps(&project) < 10 || !states(&array).iter().eq(["COMPLETED"]) {
        assert!(Instant::now() < deadline, "the jobs work");
        std::thread::sleep(Duration::from_millis(50));
    }
    let receipts = names(&project.cache("jobs")).into_iter();
    let receipts = receipts.map(|key| fs::read(project.cache("jobs").join(key).join("submitted")));
    let mut jobs = receipts.filter_map(|receipt| {
        let receipt: serde_json::Value = serde_json::from_slice(&receipt.ok()?).ok()?;
        receipt["job"].as_str().map(str::to_owned)
    });
    let job = jobs.find(|job| !job.contains('_')).expect("that of the pretraining");
    warn(&job);
    eventually("its place in the queue", || states(&job).iter().eq(["PENDING"]));
    assert!(states(&array).iter().eq(["COMPLETED"]));
    start_again(&job);
    let ended = wait(project.start(all));
    assert!(ended.status.success(), "{ended}");
    assert_eq!(steps(&project), 100, "no step was done twice");
}

#[test]
fn a_job_is_shown_while_it_waits_and_runs_and_when_it_is_put_back() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    let later = "options = [\"--mem=50M\", \"--begin=now+600\"]";
    project.edit("options = [\"--mem=50M\"]", later);
    project.write("steps", "200");
    let run = project.start(RUN);
    let job = job(&run);
    let status = || project.pipeline("status experiment.toml simclr").stdout;
    let queued = format!("simclr is queued as job {job} of slurm, submitted ");
    eventually("its status", || status().contains(&queued));
    let log = project.start("log experiment.toml simclr -f");
    log.wait_for(&queued);
    ask(&format!("scontrol update jobid={job} starttime=now"));
    wait_for(&run, "simclr (pretrain-simclr) runs");
    let runs = || {
        let status = status();
        let at = status.find("simclr is running: ").map(|at| status[at..].to_owned());
        at.is_some_and(|line| line.contains("; started ") && line.contains(" on "))
    };
    eventually("its status", runs);
    warn(&job);
    wait_for(&run, &format!("its job {job} was put back into the queue"));
    let back = format!("simclr is back in the queue as job {job} of slurm, submitted ");
    eventually("its status", || status().contains(&back));
    assert!(log.is_running(), "it waits again");
    start_again(&job);
    eventually("its status", runs);
    assert_eq!(wait(run).success(), "data ran, simclr ran");
    assert!(wait(log).status.success());
    assert_eq!(steps(&project), 200, "no step was done twice");
}

#[test]
fn a_job_whose_node_fails_is_requeued_by_slurm_and_started_once() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.edit("options = [\"--mem=50M\"]", "options = [\"--mem=50M\", \"--nodelist=n1\"]");
    project.write("steps", "100");
    let run = project.start(RUN);
    let number = job(&run);
    works(&project);
    let down = Down::node(&slurm, &project, &number);
    wait_for(&run, &format!("its job {number} was put back into the queue"));
    let back = format!("simclr is back in the queue as job {number} of slurm");
    let status = || project.pipeline("status experiment.toml simclr").stdout;
    eventually("its status", || status().contains(&back));
    drop(down);
    start_again(&number);
    let ended = wait(run);
    assert_eq!(ended.success(), "data ran, simclr ran");
    assert!(!ended.stderr.contains("replaced by a new one"), "{ended}");
}

#[test]
fn a_job_that_slurm_holds_as_it_could_not_be_started_says_so() {
    let Some(slurm) = slurm() else { return };
    let project = dressed(Sandbox::new(&sweep(1, "true")), &slurm);
    fs::write(slurm.join("no-launch"), "").expect("ours");
    let run = project.start("run experiment.toml");
    wait_for(&run, "is held: launch failed requeued held; `scontrol release ");
    fs::remove_file(slurm.join("no-launch")).expect("ours");
    let job = job(&run);
    let status = project.pipeline("status experiment.toml");
    assert!(status.stdout.contains(&format!("is held as job {job} of slurm")), "{status}");
    // The node is drained by that, too.
    ask("scontrol update nodename=n1,n2 state=resume");
    ask(&format!("scontrol release {job}"));
    start_again(&job);
    let ended = wait(run);
    assert!(ended.status.success(), "{ended}");
}

#[test]
fn a_job_that_is_suspended_while_slurm_starts_it_on_another_node_goes_on_alone() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.write("steps", "100");
    let run = project.start(RUN);
    let number = job(&run);
    works(&project);
    let mut suspended = processes_of_job(&project);
    let journal = project.read("journal");
    let worker = journal.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
    suspended.push(worker.expect("its number"));
    // What is stopped when nobody watches it any more would be sent SIGHUP.
    let down = Down::daemons(&slurm, &project, &number);
    suspended.iter().for_each(|pid| send(*pid, Signal::STOP));
    let done = steps(&project);
    wait_for(&run, &format!("its job {number} was put back into the queue"));
    start_again(&number);
    eventually("the end of the second one", || {
        let state = ask(&format!("squeue --noheader --states=all --jobs={number} --format=%T"));
        state.stdout == b"FAILED\n"
    });
    assert_eq!((steps(&project), run.is_running()), (done, true), "its key is held");
    suspended.iter().for_each(|pid| send(*pid, Signal::CONT));
    let ended = wait(run);
    drop(down);
    assert_eq!(ended.success(), "data ran, simclr ran");
    assert_eq!(steps(&project), 100, "no step was done twice: {ended}");
}

#[test]
fn the_daemon_of_a_node_is_killed_and_its_job_goes_on() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.edit("options = [\"--mem=50M\"]", "options = [\"--mem=50M\", \"--nodelist=n1\"]");
    project.write("steps", "200");
    let run = project.start(RUN);
    works(&project);
    kill_daemon(&slurm);
    let done = steps(&project);
    eventually("a step", || steps(&project) > done + 1);
    assert!(ask("slurmd -N n1").status.success());
    let ended = wait(run);
    assert_eq!(ended.success(), "data ran, simclr ran");
    assert!(!ended.stderr.contains("put back"), "{ended}");
    assert_eq!(steps(&project), 200, "no step was done twice");
}

#[test]
fn slurm_is_restarted_and_nothing_is_lost() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.write("steps", "200");
    let run = project.start(RUN);
    works(&project);
    let pid = fs::read_to_string(slurm.join("run/slurmctld.pid")).expect("its number");
    let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("not zero");
    kill_process(pid, Signal::TERM).expect("we are root");
    std::thread::sleep(Duration::from_secs(3));
    assert!(ask("slurmctld").status.success());
    assert_eq!(wait(run).success(), "data ran, simclr ran");
    assert_eq!(steps(&project), 200);
}

#[test]
fn a_job_that_somebody_cancels_has_failed_and_a_run_cancels_its_own() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.write("steps", "400");
    let run = project.start(RUN);
    let first = job(&run);
    works(&project);
    ask(&format!("scancel {first}"));
    let ended = wait(run);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains(&format!("its job {first} was cancelled")), "{ended}");
    // Another one goes on from its checkpoint; Ctrl-C twice ends that.
    let run = project.start(RUN);
    let second = job(&run);
    run.wait_for("continues from its checkpoint");
    run.signal(Signal::INT);
    run.wait_for("again within 3 s");
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::INT);
    assert_eq!(run.wait().results(), "data fresh, simclr stopped");
    eventually("the end of the job", || {
        let state = ask(&format!("squeue --noheader --states=all --jobs={second} --format=%T"));
        String::from_utf8_lossy(&state.stdout).trim() == "CANCELLED"
    });
}

#[test]
fn a_job_that_slurm_refuses_is_refused_in_its_words() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.edit("kind = \"slurm\"", "kind = \"slurm\"\npartition = \"gpus\"");
    let ended = project.pipeline(RUN);
    assert_eq!(ended.code(), Some(1));
    assert_snapshot!(project.filter(&ended.stderr), @r"
          data (command) runs: no earlier run
    done  data in [time]
    FAIL  simclr after [time]: the executor 'slurm' did not take it: sbatch: error: invalid partition specified: gpus
          sbatch: error: Batch job submission failed: Invalid partition name specified
    ");
}

#[test]
fn what_would_be_submitted_is_shown_and_tested() {
    let Some(slurm) = slurm() else { return };
    let project = project(&slurm, "");
    project.pipeline("run experiment.toml data").success();
    let script = project.pipeline("slurm-script experiment.toml simclr --executor slurm");
    let options = script.stdout.lines().filter(|line| line.starts_with("#SBATCH"));
    let options: Vec<&str> = options.filter_map(|line| line.split(['=', ' ']).nth(1)).collect();
    assert_eq!(options.last(), Some(&"--mem"), "those of the user come last: {script}");
    assert!(script.stdout.starts_with("#!/bin/bash -l\n#SBATCH --parsable\n"), "{script}");
    let tested = project.pipeline("slurm-script experiment.toml simclr --executor slurm --test");
    assert!(tested.status.success() && tested.stderr.contains("to start at"), "{tested}");
    project.edit("kind = \"slurm\"", "kind = \"slurm\"\npartition = \"gpus\"");
    let tested = project.pipeline("slurm-script experiment.toml simclr --executor slurm --test");
    assert_eq!(tested.code(), Some(1));
    assert!(tested.stderr.contains("invalid partition specified: gpus"), "{tested}");
    let early = project.pipeline("slurm-script experiment.toml train --executor slurm");
    assert!(early.stderr.contains("is not known before its inputs have results"), "{early}");
}

#[test]
fn an_ordinary_user_submits() {
    let Some(slurm) = slurm() else { return };
    let project = dressed(Sandbox::of_an_ordinary_user(TRAINING), &slurm);
    let learn = project.path(".bin/pipeline-learn");
    assert!(learn.exists() && fake_learn().exists());
    let project = project.set("PIPELINE_LEARN", learn.to_string_lossy());
    let ended = wait(project.start(RUN));
    assert_eq!(ended.success(), "data ran, simclr ran");
}

#[test]
fn an_ordinary_user_submits_an_array_and_cancels_what_is_left_of_it() {
    let Some(slurm) = slurm() else { return };
    let manifest = sweep(3, "[ $0 = 0 ] || sleep 60");
    let project = dressed(Sandbox::of_an_ordinary_user(&manifest), &slurm);
    let run = project.start("run experiment.toml");
    for said in ["done  draw@n=0", "draw@n=1 (command) runs", "draw@n=2 (command) runs"] {
        wait_for(&run, said);
    }
    let jobs = jobs(&run.said());
    let array = arrays(&jobs).into_iter().next().expect("one").to_owned();
    let queued = |format: &str| {
        let said = ask(&format!("squeue --noheader --jobs={array} --format={format}"));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    assert_eq!(arrays(&jobs).len(), 1);
    // Of the one that is done, Slurm may hear a little later.
    eventually("two are left", || queued("%u") == "nobody\nnobody\n");
    run.signal(Signal::INT);
    run.wait_for("again within 3 s");
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.results(), "draw@n=0 ran, draw@n=1 stopped, draw@n=2 stopped", "{ended}");
    eventually("the end of the jobs", || queued("%T").is_empty());
}
