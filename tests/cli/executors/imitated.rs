//! What Slurm says, by programs that print as its own do before the scheduler of these tests: what the Slurm of two nodes is not set up for.

use std::fs;

use rustix::process::{Signal, kill_process};

use super::{SCHEDULER, process, submitted};
use crate::support::{MANIFEST, Sandbox, eventually};

/// Takes as many jobs as the file `limit` says, and no array.
const SBATCH: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
for last; do :; done
full() {
    [ -e "$here/named" ] && echo "sbatch: error: $(cat "$here/named")" >&2
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)" >&2
    echo >> "$here/refused"
    exit 1
}
case "$*" in
*--test-only) printf '%s\n' "$@" > "$here/tested"; exit ;;
*--array=*) full ;;
esac
if [ -e "$here/limit" ]; then
    [ "$("$here/bin/squeue" | wc -l)" -lt "$(cat "$here/limit")" ] || full
fi
"$here/sched" submit "$last" | tr -dc '0-9\n'
"#;

/// Says of a job that has ended what is in the file `ended`, and of one that waits what is in `reason`.
const SQUEUE: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
for job in "$here"/queue/*/; do
    state=$(cat "$job/state" 2> /dev/null) || continue
    case $state in
    PEND) word=PENDING ;;
    RUN) word=RUNNING ;;
    *) case "$*" in *--states=all*) word=$(cat "$here/ended" 2> /dev/null || echo COMPLETED) ;; *) continue ;; esac ;;
    esac
    case "$*" in *--format=%A*) basename "$job"; continue ;; esac
    echo "$(basename "$job")|$word|$(cat "$here/reason" 2> /dev/null || echo None)|pipeline"
done
"#;

/// Stages of such a Slurm with these lines of a shell.
fn project(stages: &[(&str, &str)]) -> Sandbox {
    let stages = stages.iter().map(|(name, shell)| {
        format!("[stages.{name}]\nkind = \"command\"\nshell = '''{shell}\necho {name} > \"$PIPELINE_OUTPUT/a\"'''\nexecution = {{ executor = \"slurm\" }}\n")
    });
    let stages: String = stages.collect();
    let slurm = "[executors.slurm]\nkind = \"slurm\"\n";
    let project = Sandbox::new(&format!("[experiment]\nname = \"x\"\n{stages}{slurm}"));
    project.write_program("sched", SCHEDULER);
    project.write_program("bin/sbatch", SBATCH);
    project.write_program("bin/squeue", SQUEUE);
    project.write_program(
        "bin/scancel",
        "#!/bin/sh\nexec \"$(dirname \"$0\")/../sched\" cancel \"$@\"\n",
    );
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", project.path("bin").display());
    project.set("PATH", path)
}

const RUN: &str = "run experiment.toml";

#[test]
fn what_a_limit_on_jobs_does_not_let_in_goes_when_others_have_ended() {
    let stages = ["a", "b", "c", "d", "e"].map(|name| (name, "sleep 0.2"));
    for max_jobs in ["", "max-jobs = 5\n"] {
        let project = project(&stages);
        project.edit("kind = \"slurm\"\n", &format!("kind = \"slurm\"\n{max_jobs}"));
        project.write("limit", "2");
        project.write("named", "QOSMaxSubmitJobPerUserLimit");
        let ended = project.pipeline(RUN);
        assert_eq!(ended.success(), "a ran, b ran, c ran, d ran, e ran");
        let said = "asked again when others have ended";
        assert_eq!(ended.stderr.matches(said).count(), 1, "{ended}");
        assert!(
            ended.stderr.contains("did not take it: sbatch: error: QOSMaxSubmitJobPerUserLimit"),
            "{ended}"
        );
        assert_eq!(submitted(&project), 5);
    }
}

#[test]
fn what_slurm_never_takes_fails_in_its_words() {
    let project = project(&[("a", "")]);
    project.write("limit", "0");
    let refused = |times: usize| {
        let ended = project.pipeline(RUN);
        assert_eq!(ended.results(), "a failed", "{ended}");
        let why = "FAIL  a after";
        assert!(
            ended.stderr.contains(why) && ended.stderr.contains("accounting/QOS policy"),
            "{ended}"
        );
        assert!(!ended.stderr.contains("asked again"), "{ended}");
        assert_eq!(project.read("refused").lines().count(), times);
    };
    // Its words may mean both: with no job there, it is asked a second time.
    refused(2);
    project.write("named", "QOSMaxWallDurationPerJobLimit");
    refused(3);
    fs::remove_file(project.path("named")).expect("ours");
    // The job in which the run itself is does not end before that.
    project.write("queue/70/state", "RUN");
    let project = project.set("SLURM_JOB_ID", "70");
    let ended = project.pipeline(RUN);
    assert_eq!(ended.results(), "a failed", "{ended}");
}

#[test]
fn what_a_job_that_was_killed_with_its_node_has_written_counts() {
    for word in ["NODE_FAIL", "TIMEOUT"] {
        let step = r#"echo >> works; n=$(wc -l < works)
[ $n = 2 ] || echo $n > "$PIPELINE_CHECKPOINT/state"; echo >> wrote; [ $n = 3 ] || sleep 60"#;
        let project = project(&[("a", step)]);
        project.write("ended", word);
        let kill = |job: usize| {
            let process = process(&project, job);
            eventually("its checkpoint", || project.read("wrote").lines().count() == job);
            kill_process(process, Signal::KILL).expect("ours");
        };
        let run = project.start(RUN);
        kill(1);
        run.wait_for(
            "its job 1, which was interrupted, and whose checkpoint has advanced, is replaced",
        );
        // This one has not advanced.
        kill(2);
        let ended = run.wait();
        assert_eq!(ended.results(), "a failed", "{ended}");
        assert!(ended.stderr.contains("its job 2 was "), "{ended}");
        assert_eq!(project.pipeline(RUN).success(), "a ran");
    }
}

#[test]
fn what_is_printed_means_the_same_to_sbatch_as_what_is_submitted() {
    let project = project(&[("a", "")]);
    let options = "options = [\"--gres\", \"gpu:1\", \"--wckey=it's \\\"mine\\\"\"]\n";
    project.edit("kind = \"slurm\"\n", &format!("kind = \"slurm\"\n{options}"));
    let printed = project.pipeline("slurm-script experiment.toml a");
    let lines = "#SBATCH --gres gpu:1\n#SBATCH --wckey=\"it's \\\"mine\\\"\"\npipeline_job=";
    assert!(printed.printed().contains(lines), "{printed}");
    assert!(project.pipeline("slurm-script experiment.toml a --test").status.success());
    let words = "\n--requeue\n--gres\ngpu:1\n--wckey=it's \"mine\"\n--test-only\n";
    assert!(project.read("tested").ends_with(words), "{}", project.read("tested"));
}

#[test]
fn why_a_job_waits_is_shown_where_it_may_wait_for_ever() {
    let project = project(&[("a", ""), ("b", "")]);
    project.write("hold", "");
    project.write("reason", "PartitionTimeLimit");
    let run = project.start(RUN);
    run.wait_for("waits in the queue: PartitionTimeLimit");
    let status = || project.pipeline("status experiment.toml").stdout;
    for (stage, job) in [("a", 1), ("b", 2)] {
        let line = format!(
            "{stage} is queued as job {job} of slurm, submitted just now: PartitionTimeLimit\n"
        );
        eventually("the status", || status().contains(&line));
    }
    project.write("reason", "Priority");
    let line = "a is queued as job 1 of slurm, submitted just now\n";
    eventually("the status", || status().contains(line));
    fs::remove_file(project.path("hold")).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "a ran, b ran");
    assert_eq!(ended.stderr.matches("waits in the queue").count(), 1, "{ended}");
}

#[test]
fn a_job_that_was_put_back_is_said_to_be_back() {
    let project = project(&[("a", "echo >> works; until [ -e go ]; do sleep 0.05; done")]);
    let run = project.start(RUN);
    eventually("its work", || project.read("works").lines().count() == 1);
    // As a scheduler does it that preempts a job.
    project.write("hold", "");
    kill_process(process(&project, 1), Signal::KILL).expect("ours");
    eventually("the end", || project.read("queue/1/state") == "EXIT\n");
    project.write("queue/1/state", "PEND");
    run.wait_for("its job 1 was put back into the queue");
    let status = || project.pipeline("status experiment.toml").stdout;
    eventually("the status", || {
        status().contains("a is back in the queue as job 1 of slurm, submitted ")
    });
    // Nothing stays behind.
    project.write("go", "");
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(130));
}

#[test]
fn each_command_of_a_setup_counts() {
    let project = project(&[("a", "")]);
    let with = |setup: &str| {
        let text = project.read(MANIFEST);
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("setup"))
            .map(|line| format!("{line}\n"))
            .collect();
        let slurm = format!("kind = \"slurm\"\nsetup = \"{setup}\"\n");
        project.write(MANIFEST, text.replace("kind = \"slurm\"\n", &slurm));
        project.pipeline(RUN)
    };
    let module = "module() { [ $2 = cuda ]; }";
    let ended = with(&format!("{module}; module load cudda; true"));
    let why = "the setup of the executor slurm has failed with the exit status 1: the stage was not begun";
    assert!(ended.results() == "a failed" && ended.stderr.contains(why), "{ended}");
    // Whoever cancels a job has not broken its setup.
    let ended = with("kill -TERM $$");
    assert!(ended.results() == "a failed" && !ended.stderr.contains("the setup of"), "{ended}");
    project.write("of-a-cluster", "false; f() { false; true; }; f; true\n");
    // What comes before "&&" may be false, at the end as well.
    let ended = with(&format!(
        "{module}; module load cuda; . ./of-a-cluster; module load other || true; [ -e nothing ] && false"
    ));
    assert_eq!(ended.success(), "a ran");
}

#[test]
fn the_jobs_of_a_detached_run_are_cancelled() {
    let project = project(&[("a", ""), ("b", "")]);
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach").success();
    let cancelled = project.pipeline("cancel experiment.toml");
    let expected = "a: its job 1 of slurm was cancelled\nb: its job 2 of slurm was cancelled\n";
    assert_eq!(cancelled.printed(), expected, "{cancelled}");
    assert_eq!(project.read("cancelled"), "1\n2\n");
    fs::remove_file(project.path("hold")).expect("ours");
}
