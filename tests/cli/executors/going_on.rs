//! What jobs go on with, and what those of a detached run submit.

use std::fs;

use insta::assert_snapshot;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::{EXECUTOR, RUN, jobs, process, project, steps, submitted, works};
use crate::support::{MANIFEST, Sandbox, eventually, names};

#[test]
fn a_detached_run_leaves_what_it_has_submitted() {
    let project = project("");
    project.write("hold", "");
    let ended = project.pipeline(&format!("{RUN} train --detach"));
    assert_snapshot!(ended, @r"
    status 0
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          simclr is job 1 of fake
    left  simclr, which goes on elsewhere
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    simclr  left  goes on elsewhere
    train  following  after simclr

    training: 1 ran, 1 left, 1 following in [time]; what was left goes on elsewhere, and the same command comes back to it
    ");
    // It waits, and is left again.
    assert_eq!(
        project.pipeline(&format!("{RUN} train --detach")).success(),
        "data fresh, simclr left, train following"
    );
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert_eq!(
        project.pipeline(&format!("{RUN} train")).success(),
        "data fresh, simclr fresh, train fresh"
    );
    assert_eq!(submitted(&project), 1, "it went on");
    let history: Value =
        serde_json::from_str(&project.pipeline("history --json").stdout).expect("JSON");
    let runs = history.as_array().expect("a list").iter().map(|run| {
        (run["state"].as_str().expect("a word"), run["run"].as_str().expect("its name"))
    });
    let runs: Vec<_> = runs.collect();
    let states: Vec<_> = runs.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, ["complete", "detached", "detached"]);
    let shown = project.pipeline(&format!("history show {}", runs[2].1)).stdout;
    let first = format!("{}, detached", runs[2].1);
    assert!(shown.lines().next().is_some_and(|line| line.ends_with(&first)), "{shown}");
    assert!(shown.contains("1 ran, 1 left of 3"), "{shown}");
    assert!(shown.contains("went on elsewhere"), "{shown}");
}

#[test]
fn a_job_goes_on_although_nobody_follows_it() {
    let project = project("slow");
    let run = project.start(RUN);
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    // What it goes on with was written down before.
    project.edit("kind = \"evaluate\"", "kind = \"evaluated\"");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    project.edit("kind = \"evaluated\"", "kind = \"evaluate\"");
    let fresh = "data fresh, simclr fresh, train fresh, evaluate fresh";
    assert_eq!(project.pipeline(RUN).success(), fresh);
    assert_eq!((submitted(&project), jobs(&project)), (1, Vec::new()));
}

/// Lets the pretraining make two trainings ready, each with an evaluation.
fn two_trainings(project: &Sandbox) {
    let text = project.read(MANIFEST);
    let trained = &text[text.find("[stages.train]").expect("it is there")..];
    let trained = &trained[..trained.find("[executors").expect("it follows")];
    let other = trained.replace("[stages.train]", "[stages.train-5]\nseed = 5");
    let other = other.replace("[stages.evaluate]", "[stages.evaluate-5]");
    let other = other.replace("model = \"train\"", "model = \"train-5\"");
    project.write(MANIFEST, format!("{text}\n{other}"));
}

#[test]
fn the_jobs_of_a_detached_run_submit_what_they_make_ready_and_the_next_run_pushes_it() {
    let share = tempfile::tempdir().expect("a folder");
    let remote = format!("file://{}", share.path().display());
    let project = project("").set("PIPELINE_REMOTE", remote);
    two_trainings(&project);
    let text = project.read(MANIFEST);
    project.write(MANIFEST, format!("[cache]\npush = \"always\"\n{text}"));
    project.write("hold", "");
    let ended = project.pipeline(&format!("{RUN} --detach"));
    assert!(ended.success().contains("simclr left, train following"), "{ended}");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the ends of the jobs", || {
        (1..=3).all(|job| project.read(&format!("queue/{job}/status")) == "0\n")
    });
    let ended = project.pipeline(RUN);
    assert!(ended.success().split(", ").all(|one| one.ends_with(" fresh")), "{ended}");
    assert_eq!((submitted(&project), jobs(&project)), (3, Vec::new()));
    assert_eq!(ended.stderr, "");
    let pushed = project.pipeline("push experiment.toml");
    assert!(pushed.printed().starts_with("0 pushed (0 B)"), "{pushed}");
}

#[test]
fn what_a_job_cannot_submit_the_next_run_does() {
    let project = project("");
    two_trainings(&project);
    // Where jobs run, nobody submits.
    project.edit(
        "submit = \"./sched submit {script}\"",
        "submit = \"[ -z $SCHEDULED ] || exit 1; SCHEDULED=1 ./sched submit {script}\"",
    );
    project.write("hold", "");
    project.pipeline(&format!("{RUN} --detach")).success();
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    assert_eq!((submitted(&project), jobs(&project).len()), (1, 1));
    let ended = project.pipeline(RUN);
    assert!(ended.success().contains("simclr fresh, train ran"), "{ended}");
    assert_eq!(submitted(&project), 3);
}

#[test]
fn what_a_job_goes_on_with_takes_no_more_and_is_one_stage() {
    let project = project("");
    project.edit("kind = \"evaluate\"", "kind = \"evaluate\"\nexecution = { cpus = 2 }");
    project.pipeline(RUN).success();
    assert_eq!(submitted(&project), 2, "evaluate has other cores");
    let text = project.read(MANIFEST);
    let train = &text[text.find("[stages.train]").expect("it is there")..];
    let train = &train[..train.find("\n[").expect("more follows")];
    let other = train.replace("[stages.train]", "[stages.other]\nseed = 5");
    project.write(MANIFEST, format!("{text}\n{other}"));
    project.edit("epochs = 10", "epochs = 11");
    let ended = project.pipeline(RUN);
    assert!(ended.success().contains("other ran"), "{ended}");
    assert_eq!(submitted(&project), 2 + 4, "both that read simclr, at once");
    // There is nothing to go on with where the result is as before.
    let ended = project.pipeline(&format!("{RUN} train --force simclr"));
    assert!(ended.success().starts_with("data fresh, simclr ran"), "{ended}");
    assert!(ended.success().ends_with("train fresh"), "{ended}");
    assert_eq!(submitted(&project), 6 + 1);
}

#[test]
fn what_a_job_went_on_with_and_did_not_end_gets_a_job_of_its_own() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} train"));
    run.wait_for("train (train) runs");
    assert_eq!(submitted(&project), 1);
    let done = steps(&project);
    eventually("a step", || steps(&project) > done + 1);
    kill_process(process(&project, 1), Signal::KILL).expect("ours");
    run.wait_for("its job 1, which went on after another stage, and was ended, is replaced");
    // That one has no such excuse.
    let job = process(&project, 2);
    run.wait_for("train (train) continues from its checkpoint");
    kill_process(job, Signal::KILL).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.results(), "data ran, simclr ran, train failed", "{ended}");
    assert!(ended.stderr.contains("its job 2 ended (EXIT) without a result"), "{ended}");
}

#[test]
fn a_job_whose_time_is_up_leaves_what_it_went_on_with_to_another_one() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} train"));
    run.wait_for("train (train) runs");
    kill_process(process(&project, 1), Signal::USR1).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "data ran, simclr ran, train ran");
    assert_eq!((submitted(&project), steps(&project)), (2, 120), "no step was done twice");
}

#[test]
fn a_job_submits_what_comes_after_a_result_that_is_there() {
    let project = project("");
    project.pipeline("run experiment.toml train").success();
    project.write("hold", "");
    let ended = project.pipeline(&format!("{RUN} --detach --force simclr"));
    assert!(ended.success().starts_with("data fresh, simclr left"), "{ended}");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the end of the job", || project.read("queue/1/status") == "0\n");
    // With the same pretraining again, train has its result.
    let fresh = "data fresh, simclr fresh, train fresh, evaluate fresh";
    assert_eq!(project.pipeline(RUN).success(), fresh);
    assert_eq!((submitted(&project), jobs(&project)), (1, Vec::new()));
}

#[test]
fn no_more_jobs_than_an_executor_takes_are_left_at_once() {
    let project = project("");
    two_trainings(&project);
    project.edit("kind = \"command\"\nsubmit", "kind = \"command\"\nmax-jobs = 1\nsubmit");
    project.write("hold", "");
    let detached = || project.pipeline(&format!("{RUN} --detach")).success();
    assert!(detached().contains("simclr left, train following"));
    fs::remove_file(project.path("hold")).expect("ours");
    let ended = |job: usize| project.read(&format!("queue/{job}/status")) == "0\n";
    eventually("the ends of the jobs", || ended(1) && ended(2));
    assert_eq!(submitted(&project), 2, "one of the trainings");
    project.write("hold", "");
    let first = detached();
    assert_eq!(first.matches(" left").count(), 1, "{first}");
    assert_eq!(detached(), first, "it counts while it waits");
    assert_eq!(submitted(&project), 3);
    fs::remove_file(project.path("hold")).expect("ours");
    // Between its result and its last word, a run would leave its folder to the next one.
    ends(&project, 3);
    assert!(!project.pipeline(RUN).success().contains("skipped"));
    assert_eq!((submitted(&project), jobs(&project)), (3, Vec::new()));
}

#[test]
fn a_detached_run_says_what_waits_for_a_place() {
    let project = project("");
    let stages = r#"
[experiment]
name = "sweep"

[matrix]
n = [1, 2, 3, 4, 5, 6]

[stages.draw]
kind = "command"
environment = { N = "${n}" }
shell = 'echo $N > "$PIPELINE_OUTPUT/a"'
execution = { executor = "fake" }

[stages.next]
kind = "command"
inputs = { draw = "draw" }
shell = 'cp "$PIPELINE_INPUT_DRAW/a" "$PIPELINE_OUTPUT/a"'
execution = { executor = "fake" }
"#;
    project.write(MANIFEST, format!("{stages}{EXECUTOR}max-jobs = 2\n"));
    project.write("hold", "");
    let ended = project.pipeline("run experiment.toml --detach");
    assert!(ended.status.success(), "{ended}");
    assert_snapshot!(project.filter(ended.stdout.trim_start()), @r"
    stage  result  time  metrics
    draw  6: 2 left, 4 waiting
    next  6: 2 following, 4 skipped

    sweep: 2 left, 2 following, 4 waiting, 4 skipped in [time]; what was left goes on elsewhere, and the same command comes back to it
    4 wait: max-jobs of fake is 2, and no job submits them; the same command does when others have ended, and without --detach it stays until all have
    ");
    fs::remove_file(project.path("hold")).expect("ours");
    ends(&project, 1);
    ends(&project, 2);
    assert_eq!(submitted(&project), 2, "no job submits them");
    project.write("hold", "");
    let ended = project.pipeline(
        "run experiment.toml draw@n=1 draw@n=2 draw@n=3 draw@n=4 draw@n=5 --detach --all",
    );
    assert_eq!(
        ended.success(),
        "draw@n=1 fresh, draw@n=2 fresh, draw@n=3 left, draw@n=4 left, draw@n=5 waiting"
    );
    assert!(ended.stdout.contains("waiting        max-jobs of fake is 2"), "{ended}");
    assert!(
        ended.stdout.contains("\n1 waits: max-jobs of fake is 2, and no job submits it; "),
        "{ended}"
    );
    // What an earlier run has submitted does not wait for a place, whatever that is now.
    let set =
        "run experiment.toml draw@n=3 draw@n=4 draw@n=5 --detach --set executors.fake.max-jobs=1";
    let ended = project.pipeline(&format!("{set} --progress json"));
    assert!(ended.status.success(), "{ended}");
    let outcomes = ended.stdout.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let outcome = event["outcome"].as_str()?.to_owned();
        Some(format!("{} {outcome} {} {}", event["stage"], event["executor"], event["max-jobs"]))
    });
    let outcomes: Vec<String> = outcomes.collect();
    assert_snapshot!(outcomes.join("\n"), @r#"
    "draw@n=3" left null null
    "draw@n=4" left null null
    "draw@n=5" waiting "fake" 1
    "#);
    fs::remove_file(project.path("hold")).expect("ours");
    // Between its result and its last word, a run would leave its folder to the next one.
    (3..=4).for_each(|job| ends(&project, job));
    let ended = project.pipeline("run experiment.toml");
    assert_eq!(ended.success(), "draw 6:, next 6:");
    assert!(!ended.stdout.contains("wait"), "{ended}");
    assert_eq!(jobs(&project), [""; 0]);
}

#[test]
fn a_table_that_may_lack_some_waits_for_what_was_left() {
    let project = project("");
    let stages = r#"
[experiment]
name = "sweep"

[matrix]
a = [1, 2]

[stages.score]
kind = "command"
output = "metrics"
environment = { A = "${a}" }
shell = 'echo "{\"accuracy\": $A}" > "$PIPELINE_OUTPUT/metrics.json"'
execution = { executor = "fake" }

[stages.table]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["a"]
allow-missing = true
"#;
    project.write(MANIFEST, format!("{stages}{EXECUTOR}"));
    project.pipeline("run experiment.toml score@a=1").success();
    project.write("hold", "");
    let ended = project.pipeline("run experiment.toml --detach --all");
    assert_eq!(ended.success(), "score@a=1 fresh, score@a=2 left, table skipped");
    let run = project.start("run experiment.toml --all");
    run.wait_for("score@a=2 is job 2 of fake");
    fs::remove_file(project.path("hold")).expect("ours");
    let ended = run.wait();
    assert_eq!(ended.success(), "score@a=1 fresh, score@a=2 ran, table ran");
    assert!(ended.stdout.contains("1.500"), "{ended}");
}

/// Stages of the scheduler, each of which says in the file `made` that it was made.
fn with_stages(project: &Sandbox, stages: &[(&str, &str)]) {
    let made = project.path("made").display().to_string();
    let stages = stages.iter().map(|(name, more)| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nshell = 'echo {name} >> {made}; echo {name} > \"$PIPELINE_OUTPUT/a\"'\n{more}\n"
        )
    });
    let stages: String = stages.collect();
    project.write(MANIFEST, format!("[experiment]\nname = \"x\"\n{stages}{EXECUTOR}"));
}

const THERE: &str = "execution = { executor = \"fake\" }";

/// Two stages that are jobs, and one that reads both.
fn joined(takes: &str) -> Sandbox {
    let project = project("");
    let both = format!("inputs = {{ a = \"a\", b = \"b\" }}\n{}", THERE.replace(" }", takes));
    with_stages(&project, &[("a", THERE), ("b", THERE), ("both", &both)]);
    project
}

/// Lets a stage wait for a file of its name.
fn hold(project: &Sandbox, stage: &str) {
    let waits = format!("while [ ! -e {stage}.go ] && [ -e {MANIFEST} ]; do sleep 0.02; done");
    let begins = format!("shell = 'echo {stage} >>");
    project.edit(&begins, &begins.replace("'", &format!("'{waits}; ")));
}

/// Leaves a run to its jobs, which then work.
fn leave(project: &Sandbox) {
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach").success();
    fs::remove_file(project.path("hold")).expect("ours");
}

/// Waits for the end of a job.
fn ends(project: &Sandbox, job: usize) {
    eventually("the end of a job", || !project.read(&format!("queue/{job}/status")).is_empty());
}

/// Waits until this is made and so many jobs have ended.
fn end_with(project: &Sandbox, last: &str, jobs: usize) {
    eventually("the last stage", || project.read("made").lines().any(|line| line == last));
    (1..=jobs).for_each(|job| ends(project, job));
    assert_eq!(submitted(project), jobs);
}

/// What the jobs printed whose ends nobody has seen.
fn printed_by_jobs(project: &Sandbox) -> String {
    jobs(project).iter().map(|job| project.read(&format!("cache/jobs/{job}/output"))).collect()
}

/// Each stage was made once, and nothing is left to do.
fn made_once(project: &Sandbox, stages: usize) {
    let made = project.read("made");
    let all = project.pipeline("run experiment.toml").success();
    assert_eq!(all.split(", ").filter(|one| one.ends_with(" fresh")).count(), stages, "{all}");
    assert_eq!((made.lines().count(), project.read("made")), (stages, made));
    assert_eq!(jobs(project), [""; 0]);
}

#[test]
fn the_last_of_several_jobs_goes_on_with_what_waits_for_all_of_them() {
    let project = joined(" }");
    leave(&project);
    end_with(&project, "both", 2);
    made_once(&project, 3);
}

#[test]
fn only_what_jobs_submit_is_said_to_follow() {
    let project = joined(" }");
    // What runs here waits for the next run, and so does what reads that.
    let last = format!("inputs = {{ a = \"here\" }}\n{THERE}");
    let text = project.read(MANIFEST);
    let stage = |name: &str, more: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nshell = 'echo {name} > \"$PIPELINE_OUTPUT/a\"'\n{more}\n"
        )
    };
    let here = stage("here", "inputs = { a = \"both\" }");
    let text = text.replacen("[executors", &format!("{here}{}[executors", stage("last", &last)), 1);
    project.write(MANIFEST, text);
    project.write("hold", "");
    let detached = || project.pipeline("run experiment.toml --detach").success();
    let first = "a left, b left, both following, here skipped, last skipped";
    assert_eq!(detached(), first);
    assert_eq!(detached(), first, "also by the jobs of an earlier run");
    // Those were told of what the stage was.
    project.edit("echo both > ", "echo other > ");
    assert_eq!(detached(), "a left, b left, both skipped, here skipped, last skipped");
    project.edit("echo other > ", "echo both > ");
    assert_eq!(detached(), first);
    project.edit("a = \"a\", b = \"b\"", "a = \"b\", b = \"a\"");
    assert_eq!(detached(), "a left, b left, both skipped, here skipped, last skipped");
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn what_waits_behind_a_stage_that_takes_more_says_what_it_waits_for() {
    let project = project("");
    let takes = |licence: u32| format!("execution = {{ resources = {{ licence = {licence} }} }}");
    let job = takes(1).replace("{ res", "{ executor = \"fake\", res");
    with_stages(&project, &[("a", &job), ("b", &takes(4)), ("d", &takes(1))]);
    project.write(MANIFEST, project.read(MANIFEST) + "[execution.resources]\nlicence = 4\n");
    project.write("hold", "");
    let ended = project.pipeline("run experiment.toml --detach");
    assert_snapshot!(project.filter(ended.stdout.trim_start()), @r"
    stage  result  time  metrics
    a  left  goes on elsewhere
    b  waiting  for 4 of licence, of which a run may use 4
    d  waiting  for 1 of licence, of which a run may use 4

    x: 1 left, 2 waiting in [time]; what was left goes on elsewhere, and the same command comes back to it
    1 waits for 1 of licence, of which a run may use 4, and no job begins it; the same command does when others have ended, and without --detach it stays until all have
    1 waits for 4 of licence, of which a run may use 4, and no job begins it; the same command does when others have ended, and without --detach it stays until all have
    ");
    let events = project.pipeline("run experiment.toml --detach --progress json").stdout;
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let waiting = events.filter(|event| event["outcome"] == "waiting");
    let waiting: Vec<_> = waiting
        .map(|event| (event["stage"].clone(), event["takes"].clone(), event["there-is"].clone()))
        .collect();
    assert_eq!(waiting, [("b".into(), 4.into(), 4.into()), ("d".into(), 1.into(), 4.into())]);
    fs::remove_file(project.path("hold")).expect("ours");
}

#[test]
fn what_follows_what_follows_is_said_to_only_as_jobs_know_it() {
    let project = project("");
    let after = |input: &str, more: &str| format!("inputs = {{ a = \"{input}\" }}\n{more}{THERE}");
    let (b, c) = (after("a", "files = [\"words\"]\n"), after("b", ""));
    with_stages(&project, &[("a", THERE), ("b", &b), ("c", &c), ("d", &after("c", ""))]);
    hold(&project, "b");
    project.write("words", "one\n");
    project.write("hold", "");
    let detached = || project.pipeline("run experiment.toml --detach").success();
    let all = "a left, b following, c following, d following";
    assert_eq!(detached(), all);
    project.edit("echo c > ", "echo other > ");
    assert_eq!(detached(), "a left, b following, c skipped, d skipped");
    project.edit("echo other > ", "echo c > ");
    assert_eq!(detached(), all);
    project.write("words", "two\n");
    assert_eq!(detached(), "a left, b skipped, c skipped, d skipped");
    project.write("words", "one\n");
    fs::remove_file(project.path("hold")).expect("ours");
    eventually("the job of the second stage", || jobs(&project).len() == 2);
    // What was made since it was left is as they know it.
    assert_eq!(detached(), "a fresh, b left, c following, d following");
    project.write("b.go", "");
    end_with(&project, "d", 1);
    made_once(&project, 4);
}

#[test]
fn what_takes_resources_is_left_to_the_next_run() {
    let project = project("");
    let licence = THERE.replace(" }", ", resources = { licence = 1 } }");
    let next = format!("inputs = {{ a = \"a\" }}\n{licence}");
    let here = "execution = { resources = { licence = 1 } }";
    with_stages(&project, &[("a", &licence), ("b", &licence), ("here", here), ("next", &next)]);
    let limits = "max-jobs = 2\n[execution.resources]\nlicence = 1\n";
    project.write(MANIFEST, project.read(MANIFEST) + limits);
    project.write("hold", "");
    let ended = project.pipeline("run experiment.toml --detach");
    assert_snapshot!(project.filter(ended.stdout.trim_start()), @r"
    stage  result  time  metrics
    a  left  goes on elsewhere
    b  waiting  for 1 of licence, of which a run may use 1
    here  waiting  for 1 of licence, of which a run may use 1
    next  skipped  needs a

    x: 1 left, 2 waiting, 1 skipped in [time]; what was left goes on elsewhere, and the same command comes back to it
    2 wait for 1 of licence, of which a run may use 1, and no job begins them; the same command does when others have ended, and without --detach it stays until all have
    ");
    let events = project.pipeline("run experiment.toml --detach --progress json").stdout;
    let waiting = events.lines().filter(|line| line.contains("\"waiting\""));
    let waiting = waiting.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let waiting: Vec<_> = waiting.map(|event| event["resource"].clone()).collect();
    assert_eq!(waiting, ["licence", "licence"], "{events}");
    fs::remove_file(project.path("hold")).expect("ours");
    ends(&project, 1);
    assert_eq!((submitted(&project), project.read("made").as_str()), (1, "a\n"));
    let said = "left to the next run: 'next': it takes 'resources', which a run counts";
    assert!(printed_by_jobs(&project).contains(said), "{}", printed_by_jobs(&project));
    let ran = "a fresh, b ran, here ran, next ran";
    assert_eq!(project.pipeline("run experiment.toml").success(), ran);
    made_once(&project, 4);
    // Of what has its result already, nothing is left.
    project.write("hold", "");
    project.pipeline("run experiment.toml --detach --force a").success();
    fs::remove_file(project.path("hold")).expect("ours");
    ends(&project, 4);
    assert!(!printed_by_jobs(&project).contains("left"), "{}", printed_by_jobs(&project));
}

#[test]
fn a_job_goes_on_with_what_reads_another_stage_of_the_same_key() {
    let project = project("");
    let next = format!("inputs = {{ a = \"twin\" }}\n{THERE}");
    with_stages(&project, &[("a", THERE), ("twin", THERE), ("next", &next)]);
    project.edit("echo twin >> ", "echo a >> ");
    project.edit("echo twin > ", "echo a > ");
    leave(&project);
    end_with(&project, "next", 1);
    assert_eq!(project.read("made"), "a\nnext\n");
    let fresh = "a fresh, twin fresh, next fresh";
    assert_eq!(project.pipeline("run experiment.toml").success(), fresh);
}

#[test]
fn the_last_of_several_jobs_submits_what_does_not_fit_into_it() {
    let project = joined(", cpus = 2 }");
    leave(&project);
    end_with(&project, "both", 3);
    made_once(&project, 3);
}

#[test]
fn a_job_that_began_before_all_was_prepared_here_submits_what_waits_for_all() {
    let project = project("");
    let reads = |inputs: &str| format!("inputs = {{ {inputs} }}\n{THERE}");
    let stages = [
        ("data-a", String::new()),
        ("data-b", String::new()),
        ("a", reads("a = \"data-a\"")),
        ("b", reads("a = \"data-b\"")),
        ("both", reads("a = \"a\", b = \"b\"")),
    ];
    with_stages(&project, &stages.each_ref().map(|(name, more)| (*name, more.as_str())));
    ["data-b", "a"].iter().for_each(|stage| hold(&project, stage));
    let run = project.start("run experiment.toml --detach");
    process(&project, 1);
    project.write("data-b.go", "");
    let ended = run.wait();
    assert!(ended.success().starts_with("data-a ran, data-b ran, a left, "), "{ended}");
    ends(&project, 2);
    project.write("a.go", "");
    end_with(&project, "both", 2);
    let kept = names(&project.cache("jobs")).into_iter();
    assert_eq!(kept.filter(|name| name.starts_with("left-")).count(), 1, "once for both jobs");
    made_once(&project, 5);
}

#[test]
fn what_waits_for_a_job_and_a_stage_that_runs_here_is_begun_by_the_last_of_them() {
    for (last, of_jobs) in [("a", 1), ("here", 2)] {
        let project = project("");
        let both = format!("inputs = {{ a = \"a\", here = \"here\" }}\n{THERE}");
        with_stages(&project, &[("a", THERE), ("here", ""), ("both", &both)]);
        hold(&project, last);
        let run = project.start("run experiment.toml --detach");
        if last == "here" {
            ends(&project, 1);
        } else {
            run.wait_for("left  a");
        }
        project.write(&format!("{last}.go"), "");
        run.wait().success();
        end_with(&project, "both", of_jobs);
        made_once(&project, 3);
    }
}

#[test]
fn the_jobs_of_one_executor_submit_what_runs_on_another_one() {
    let project = project("");
    let other = THERE.replace("fake", "other");
    let both = format!("inputs = {{ a = \"a\", b = \"b\" }}\n{THERE}");
    let next = format!("inputs = {{ both = \"both\" }}\n{other}");
    let stages = [("a", THERE), ("b", other.as_str()), ("both", &both), ("next", &next)];
    with_stages(&project, &stages);
    let executor = EXECUTOR.replace("[executors.fake]", "[executors.other]");
    project.write(MANIFEST, format!("{}{executor}", project.read(MANIFEST)));
    hold(&project, "b");
    leave(&project);
    eventually("a result", || names(&project.cache("heads/x")) == ["a"]);
    project.write("b.go", "");
    // What waits for both goes to the executor that it names, and what comes after it back to the other one.
    end_with(&project, "next", 4);
    made_once(&project, 4);
}

#[test]
fn the_last_jobs_of_a_sweep_submit_its_table() {
    let project = project("");
    // What a score is made of is known when the jobs of what it reads have ended.
    let scores = r#"
[experiment]
name = "sweep"

[matrix]
a = [1, 2, 3]

[stages.draw]
kind = "command"
environment = { A = "${a}" }
shell = 'echo draw $A >> MADE; echo $A > "$PIPELINE_OUTPUT/a"'
execution = { executor = "fake" }

[stages.score]
kind = "command"
output = "metrics"
inputs = { draw = "draw" }
shell = 'A=$(cat "$PIPELINE_INPUT_DRAW/a"); echo score $A >> MADE; echo "{\"accuracy\": $A}" > "$PIPELINE_OUTPUT/metrics.json"'
execution = { executor = "fake" }

[stages.table]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["a"]
execution = { executor = "fake" }
"#;
    let scores = scores.replace("MADE", &project.path("made").display().to_string());
    project.write(MANIFEST, format!("{scores}{EXECUTOR}"));
    leave(&project);
    let is_there = || names(&project.cache("heads/sweep")).iter().any(|name| name == "table");
    eventually("the table", is_there);
    let has_ended = |job| project.read(&format!("queue/{job}/status")) == "0\n";
    eventually("the ends of the jobs", || (1..=3).all(has_ended));
    let made = project.read("made");
    let ended = project.pipeline("run experiment.toml --all");
    assert!(ended.success().split(", ").all(|one| one.ends_with(" fresh")), "{ended}");
    assert!(ended.stdout.contains("2.000"), "{ended}");
    assert_eq!((submitted(&project), made.lines().count()), (3, 6), "the last one made it");
}

#[test]
fn what_the_last_of_several_jobs_could_not_submit_the_next_run_does() {
    let submit = "submit = \"./sched submit {script}\"";
    let killed =
        "submit = \"[ -z $SCHEDULED ] || kill -9 $PPID; SCHEDULED=1 ./sched submit {script}\"";
    let not_even = killed.replace("-9 $PPID", "-9 $PPID $$");
    for (submits, jobs) in [(not_even.as_str(), 2), (killed, 3)] {
        let project = joined(", cpus = 2 }");
        project.edit(submit, submits);
        // Of two that end at once, the other one would submit what the one that is killed did not.
        hold(&project, "b");
        leave(&project);
        ends(&project, 1);
        project.write("b.go", "");
        end_with(&project, if jobs == 2 { "b" } else { "both" }, jobs);
        let ended = project.pipeline("run experiment.toml");
        assert!(ended.success().starts_with("a fresh, b fresh, both "), "{ended}");
        made_once(&project, 3);
    }
}

#[test]
fn what_waits_for_a_job_that_failed_is_not_submitted() {
    let project = joined(" }");
    project.edit("echo b > ", "[ -e good ] && echo b > ");
    leave(&project);
    (1..=2).for_each(|job| ends(&project, job));
    let statuses = [1, 2].map(|job| project.read(&format!("queue/{job}/status")));
    assert_eq!(statuses, ["0\n", "1\n"]);
    assert_eq!((submitted(&project), project.read("made").lines().count()), (2, 2));
    project.write("good", "");
    assert_eq!(project.pipeline("run experiment.toml").success(), "a fresh, b ran, both ran");
}
