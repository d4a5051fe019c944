//! Stages that run elsewhere, as jobs of a scheduler that is asked by commands: here, a fake one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use insta::assert_snapshot;
use rustix::process::Pid;

use crate::manifests::TRAINING;
use crate::support::{MANIFEST, Sandbox, eventually, names, pipeline};

mod accounts;
mod asking;
mod attaching;
mod cancelling;
mod chance;
mod ending;
mod examples;
mod going_on;
mod imitated;
mod locks;

/// A scheduler: jobs wait in its queue while there is a file `hold`.
const SCHEDULER: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
queue=$here/queue
verb=$1
shift
case $verb in
submit)
    mkdir -p "$queue"
    id=1
    until mkdir "$queue/$id" 2> /dev/null; do id=$((id + 1)); done
    echo PEND > "$queue/$id/state"
    setsid sh -c '
        while [ -e "$0/hold" ] && [ -d "$0" ]; do sleep 0.02; done
        [ "$(cat "$1/state")" = EXIT ] && exit
        echo RUN > "$1/state"
        "$2" & echo $! > "$1/pid"
        wait $!
        echo $? > "$1/status"
        echo EXIT > "$1/state"
    ' "$here" "$queue/$id" "$1" > /dev/null 2>&1 &
    echo "Job <$id> is submitted to the queue <normal>."
    ;;
state)
    echo "$@" >> "$here/asked"
    [ -e "$here/away" ] && exit 1
    [ -e "$here/mute" ] && exit 0
    for id; do [ -e "$queue/$id/state" ] && echo "$id $(cat "$queue/$id/state")"; done
    true
    ;;
cancel)
    for id; do
        echo EXIT > "$queue/$id/state"
        [ -e "$queue/$id/pid" ] && kill "$(cat "$queue/$id/pid")"
        echo "$id" >> "$here/cancelled"
    done
    true
    ;;
esac
"#;

const EXECUTOR: &str = r#"
[executors.fake]
kind = "command"
submit = "./sched submit {script}"
state = "./sched state {ids}"
cancel = "./sched cancel {ids}"
"#;

/// A training whose stages that learn can run on the scheduler.
fn project(behaviour: &str) -> Sandbox {
    let project = Sandbox::new(&format!("{TRAINING}{EXECUTOR}")).with_fake_learn(behaviour);
    // Three seconds for one that is slow: long enough to be killed, also beside other work.
    let project = project.set("FAKE_LEARN_STEPS", "60");
    project.write_program("sched", SCHEDULER);
    project
}

const RUN: &str = "run experiment.toml --executor fake";

/// How many jobs were submitted.
fn submitted(project: &Sandbox) -> usize {
    names(&project.path("queue")).len()
}

/// The keys of the jobs whose ends nobody has seen.
fn jobs(project: &Sandbox) -> Vec<String> {
    let names = names(&project.cache("jobs")).into_iter();
    names.filter(|name| !name.starts_with("left-")).collect()
}

/// The process of a job, once it runs.
fn process(project: &Sandbox, job: usize) -> Pid {
    let pid = || project.read(&format!("queue/{job}/pid")).trim().parse::<i32>().ok();
    eventually("a running job", || pid().is_some());
    Pid::from_raw(pid().expect("it was there")).expect("a number")
}

/// The first process that learns.
fn worker(project: &Sandbox) -> Pid {
    let journal = project.read("journal");
    let worker = journal.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
    Pid::from_raw(worker.expect("its number")).expect("not zero")
}

/// The steps that were really done.
fn steps(project: &Sandbox) -> usize {
    project.read("journal").lines().filter(|line| line.contains("step")).count()
}

/// Waits until the stage that learns works.
fn works(project: &Sandbox) {
    eventually("a step", || steps(project) > 1);
}

#[test]
fn what_learns_runs_as_jobs_and_the_rest_here() {
    // How many cores its allocation has is not what a job asks for.
    let project = project("").set("NSLOTS", "1");
    let ended = project.pipeline(RUN);
    assert_eq!(ended.success(), "data ran, simclr ran, train ran, evaluate ran");
    assert_snapshot!(project.filter(&ended.stderr), @r"
          data (command) runs: no earlier run
    done  data in [time]
          simclr is job 1 of fake
          simclr (pretrain-simclr) runs on [host]: no earlier run
    done  simclr in [time]
          train is job 1 of fake
          train (train) runs on [host]: no earlier run
    done  train in [time]
          evaluate is job 1 of fake
          evaluate (evaluate) runs on [host]: no earlier run
    done  evaluate in [time]
    ");
    assert_eq!(submitted(&project), 1, "it went on with what it made ready");
    assert_eq!(names(&project.cache("jobs")), [""; 0]);
    assert_eq!(names(&project.cache("running")), [""; 0]);
    let again = project.pipeline(RUN);
    assert_eq!(again.success(), "data fresh, simclr fresh, train fresh, evaluate fresh");
    // Where a stage runs is in no key.
    assert!(project.pipeline("plan experiment.toml --exit-code").status.success());
}

#[test]
fn a_stage_says_where_it_runs() {
    let project = project("");
    project
        .edit("kind = \"evaluate\"", "kind = \"evaluate\"\nexecution = { executor = \"local\" }");
    project
        .edit("output = \"dataset\"", "output = \"dataset\"\nexecution = { executor = \"fake\" }");
    project.pipeline(RUN).success();
    assert_eq!(submitted(&project), 1, "data, and then simclr and train");
}

#[test]
fn jobs_start_the_program_in_the_folder_that_an_executor_says() {
    let project = project("");
    let (used, program) = (project.path("used"), pipeline());
    let script =
        format!("#!/bin/sh\necho used >> {}; exec {} \"$@\"", used.display(), program.display());
    project.write_program("bin/pipeline", &script);
    let path = format!("path = \"{}\"\nsubmit = ", project.path("bin").display());
    project.edit("submit = ", &path);
    assert_eq!(project.pipeline(&format!("{RUN} simclr")).success(), "data ran, simclr ran");
    assert_eq!(project.read("used"), "used\n");
}

#[test]
fn there_are_no_more_jobs_at_once_than_an_executor_takes() {
    let stages = (0..4).map(|number| {
        format!("[stages.s{number}]\nkind = \"command\"\nshell = 'mkdir busy && sleep 0.2 && rmdir busy && echo {number} > \"$PIPELINE_OUTPUT/a\"'\nexecution = {{ executor = \"fake\" }}\n")
    });
    let project = project("");
    let stages: String = stages.collect();
    project
        .write(MANIFEST, format!("[experiment]\nname = \"x\"\n{stages}{EXECUTOR}max-jobs = 1\n"));
    assert_eq!(project.pipeline("run experiment.toml").success(), "s0 ran, s1 ran, s2 ran, s3 ran");
}

#[test]
fn jobs_take_what_the_user_counts_from_their_submission_on() {
    let stage = |name: &str, more: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nshell = 'mkdir busy && sleep 0.2 && rmdir busy && echo {name} > \"$PIPELINE_OUTPUT/a\"'\n\
             execution = {{ {more}resources = {{ licence = 1 }} }}\n"
        )
    };
    let there = "executor = \"fake\", ";
    // The last one could go on in the job of the first one, which would take what it gave back to others.
    let next = stage("next", there).replace("execution", "inputs = { a = \"a\" }\nexecution");
    let stages = [stage("a", there), stage("b", there), stage("here", ""), next].concat();
    let project = project("");
    let limits = "[execution.resources]\nlicence = 1\n";
    project.write(MANIFEST, format!("[experiment]\nname = \"x\"\n{stages}{limits}{EXECUTOR}"));
    let ran = "a ran, b ran, here ran, next ran";
    assert_eq!(project.pipeline("run experiment.toml --jobs 2").success(), ran);
    assert_eq!(submitted(&project), 3);
}

/// Two stages that run at the same time, each a word on the disk.
fn two_stages() -> Sandbox {
    let project = project("");
    let stage = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nshell = 'echo {name} > \"$PIPELINE_OUTPUT/a\"'\nexecution = {{ executor = \"fake\" }}\n"
        )
    };
    let stages = format!("{}{}", stage("a"), stage("b"));
    project.write(MANIFEST, format!("[experiment]\nname = \"x\"\n{stages}{EXECUTOR}"));
    project
}

#[test]
fn jobs_run_in_a_folder_whose_name_is_not_text() {
    let project = two_stages();
    let folder = project.folder().join(OsStr::from_bytes(b"it's nu\xe9 %d \\7"));
    fs::create_dir(&folder).expect("ours");
    for name in [MANIFEST, "sched"] {
        fs::copy(project.path(name), folder.join(name)).expect("ours");
    }
    let mut command = project.command("run experiment.toml --cache cache");
    command.current_dir(&folder);
    assert_eq!(project.start_command(command).wait().success(), "a ran, b ran");
    assert_eq!(names(&folder.join("queue")).len(), 2);
}

#[test]
fn a_stage_says_how_much_time_its_job_has() {
    let project = two_stages();
    let submit = "submit = \"./sched submit {script}\"";
    project.edit(
        submit,
        "submit = \"echo {name} {time} {minutes} >> times; ./sched submit {script}\"",
    );
    let of_b = "execution = { executor = \"fake\", time = \"1-02:00:30\" }\n[executors";
    project.edit("execution = { executor = \"fake\" }\n\n[executors", of_b);
    let ended = project.pipeline("run experiment.toml --keep-going");
    assert_eq!(ended.results(), "a failed, b ran");
    let why = "it uses {time} in 'submit', and the stage does not say its 'time' in 'execution'";
    assert!(ended.stderr.contains(why), "{ended}");
    assert_eq!(project.read("times"), "b 26:00:30 1561\n");
    // For all stages that do not say it; it is in no key.
    let ended = project.pipeline("run experiment.toml --set execution.time='00:10:00'");
    assert_eq!(ended.success(), "a ran, b fresh");
    assert!(project.read("times").ends_with("a 00:10:00 10\n"), "{}", project.read("times"));
    // Before that of the executor.
    project.write(
        MANIFEST,
        format!("{}[executors.slurm]\nkind = \"slurm\"\ntime = \"5\"\n", project.read(MANIFEST)),
    );
    let script = |stage: &str| {
        let said = project.pipeline(&format!(
            "slurm-script experiment.toml {stage} --set stages.{stage}.execution.executor='slurm'"
        ));
        let time = said.stdout.lines().find_map(|line| line.strip_prefix("#SBATCH --time="));
        time.unwrap_or_default().to_owned()
    };
    assert_eq!([script("a"), script("b")], ["5", "26:00:30"]);
}

#[test]
fn slurm_is_asked_for_what_a_stage_takes() {
    let project = two_stages();
    let of_b = "execution = { executor = \"slurm\", cpus = 3, memory = \"1.5 GiB\", gpus = 2 }\n[executors";
    project.edit("execution = { executor = \"fake\" }\n\n[executors", of_b);
    let slurm = "[executors.slurm]\nkind = \"slurm\"\noptions = [\"--mem=2G\"]\n";
    project.write(MANIFEST, format!("{}{slurm}", project.read(MANIFEST)));
    let options = |of: &str| {
        let said = project.pipeline(&format!("slurm-script experiment.toml {of}"));
        assert!(said.status.success(), "{said}");
        let options = said.stdout.lines().filter_map(|line| line.strip_prefix("#SBATCH --"));
        let taken = ["cpus-per-task=", "mem=", "gpus="];
        let is_about = |option: &&str| taken.iter().any(|name| option.starts_with(name));
        options.filter(is_about).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(options("b"), "cpus-per-task=3 mem=1536M gpus=2 mem=2G");
    let a = "a --set stages.a.execution.executor='slurm'";
    assert_eq!(options(a), "mem=2G");
    assert_eq!(options(&format!("{a} --set stages.a.execution.gpus=0.25")), "gpus=1 mem=2G");
}

#[test]
fn the_options_by_which_jobs_are_found_are_refused() {
    let project = two_stages();
    let slurm = r#"[executors.slurm]
kind = "slurm"
options = ["--mem=2G", "--gres", "gpu:1", "--comment=mine", "--comm", "mine", "-M", "other", "-a0-3", "--wait-all-nodes=1", "-ofile", "gpu:1"]
"#;
    project.write(MANIFEST, format!("{}{slurm}", project.read(MANIFEST)));
    let said = project.pipeline("plan experiment.toml").stderr;
    let titles: Vec<_> = said.lines().filter(|line| line.starts_with("error: '")).collect();
    assert_eq!(
        titles,
        [
            "error: '--comment=mine' of 'options': --comment is for this program alone",
            "error: '--comm' of 'options': --comment is for this program alone",
            "error: '-M' of 'options': --clusters is for this program alone",
            "error: '-a0-3' of 'options': --array is for this program alone",
            "error: '-ofile' of 'options': --output is for this program alone",
            "error: 'gpu:1' of 'options' is not an option of sbatch",
        ],
        "{said}"
    );
    assert!(said.contains("--> experiment.toml:19:43\n"), "{said}");
    assert!(said.contains("= help: a job is found by its comment; --job-name or"), "{said}");
}

#[test]
fn a_word_in_braces_that_stands_for_nothing_is_a_mistake() {
    let project = project("");
    let submit = "submit = \"./sched submit {script}\"";
    let others =
        "submit = \"./sched submit {script} | awk '{print}' | awk '{ print $1 }' > ${HOME}/{a,b}\"";
    project.edit(submit, others);
    assert!(project.pipeline("plan experiment.toml").status.success());
    project.edit(others, "submit = \"./sched submit -n {cpu} {script}\"");
    project.edit("./sched cancel {ids}", "./sched cancel {id}");
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 2
    --- stderr
    error: 'submit' of the executor 'fake' uses {cpu}, which is not known here
      --> experiment.toml:31:10
       |
    31 | submit = "./sched submit -n {cpu} {script}"
       |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: there is {script}, {name}, {key}, {cpus}, {gpus}, {memory}, {time} and {minutes}

    error: 'cancel' of the executor 'fake' uses {id}, which is not known here
      --> experiment.toml:33:10
       |
    33 | cancel = "./sched cancel {id}"
       |          ^^^^^^^^^^^^^^^^^^^^^
       |
       = help: there is {ids}

    error: 2 mistakes in experiment.toml; nothing was run
    "#);
}

#[test]
fn an_executor_that_is_not_declared_is_refused() {
    let project = project("");
    let typed = project.pipeline("run experiment.toml --executor fakes");
    assert_snapshot!(typed, @r"
    status 2
    --- stderr
    error: there is no executor 'fakes' (--executor, PIPELINE_EXECUTOR); did you mean 'fake'?
    ");
    project.edit("kind = \"evaluate\"", "kind = \"evaluate\"\nexecution = { executor = \"gpu\" }");
    // Whoever only plans may not have it: it may be in the settings of another machine.
    assert!(project.pipeline("plan experiment.toml").status.success());
    assert_snapshot!(project.pipeline("run experiment.toml"), @r#"
    status 2
    --- stderr
    error: there is no executor 'gpu'
      --> experiment.toml:26:26
       |
    26 | execution = { executor = "gpu" }
       |                          ^^^^^
       |
       = help: there are: fake

    error: 1 mistake in experiment.toml; nothing was run
    "#);
    // One that is typed is refused also where there is nothing to do.
    project.edit("\nexecution = { executor = \"gpu\" }", "");
    project.pipeline("run experiment.toml").success();
    project.pipeline("run experiment.toml").success();
    let again = project.pipeline("run experiment.toml --executor fakes");
    assert_eq!(again.to_string(), typed.to_string());
}

#[test]
fn an_executor_can_be_in_the_settings_of_the_user() {
    let project = project("").set("XDG_CONFIG_HOME", "/nowhere");
    project.edit(EXECUTOR, "");
    let folder = project.path("config");
    project.write("config/pipeline/config.toml", EXECUTOR);
    let project = project.set("XDG_CONFIG_HOME", folder.to_string_lossy());
    project.pipeline(&format!("{RUN} simclr")).success();
    assert_eq!(submitted(&project), 1);
}
