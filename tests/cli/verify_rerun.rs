//! A stage that runs again in scratch, to compare.

use std::fs;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal};

use crate::manifests::{TRAINING, WORDS};
use crate::support::{Sandbox, eventually, is_alive, names, walk};

/// A training that has run.
fn trained() -> Sandbox {
    let project = Sandbox::new(TRAINING).with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    project.write("journal", "");
    project
}

/// Every file of the cache that a rerun must leave alone, with its bytes.
fn cache(project: &Sandbox) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let folders = ["store", "records", "heads", "latest", "logs", "partial", "listings", "tmp"];
    let files = folders.iter().flat_map(|folder| walk(&project.cache(folder)));
    let mut files: Vec<_> =
        files.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect();
    files.sort();
    files
}

#[test]
fn reproduced() {
    let project = trained();
    let before = cache(&project);
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r#"
    status 0
    --- stderr
          train (train) runs again in a scratch folder
    done  train in [time], with the same output as before
    --- stdout
    train: reproduced: same digest [digest]
      recorded  on cpu, 4 threads in [time]
      now  on cpu, 4 threads in [time]
    "#);
    assert_eq!(cache(&project), before, "nothing that is recorded was touched");
    assert_eq!(project.read("journal").matches("step ").count(), 20, "it really ran, from nothing");
    assert_snapshot!(project.pipeline("run experiment.toml").success(), @r#"data fresh, simclr fresh, train fresh, evaluate fresh"#);
}

#[test]
fn not_reproduced() {
    let project = trained().with_fake_learn("drift");
    let before = cache(&project);
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun evaluate"), @r#"
    status 1
    --- stderr
          evaluate (evaluate) runs again in a scratch folder
    done  evaluate in [time]
    --- stdout
    evaluate: not reproduced: digest [digest], recorded [digest]
      recorded  on cpu, 4 threads in [time]
      now  on cpu, 4 threads in [time]

    files that differ
      metrics.json  other bytes: 41 in place of 37
      result.txt  other bytes: 84 in place of 65

    metrics  recorded  now  apart
      test-accuracy  0.5  0.503  0.0030
      test-loss  0.5  0.503  0.0030
    "#);
    assert_eq!(cache(&project), before);
}

#[test]
fn within_and_out_of_tolerance() {
    let project = trained().with_fake_learn("drift");
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train --tolerance 0.005"), @r#"
    status 0
    --- stderr
          train (train) runs again in a scratch folder
    done  train in [time]
    --- stdout
    train: within tolerance: other bytes ([digest], recorded [digest]), and no metric differs by more than 0.005
      recorded  on cpu, 4 threads in [time]
      now  on cpu, 4 threads in [time]

    files that differ
      result.txt  other bytes: 84 in place of 65

    metrics  recorded  now  apart
      validation-accuracy  0.5  0.503  0.0030
    "#);
    let ended = project.pipeline("verify experiment.toml --rerun train --tolerance 0.002");
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stdout.starts_with("train: not reproduced"), "{ended}");
}

#[test]
fn as_json() {
    let project = trained().with_fake_learn("drift");
    let ended = project.pipeline("verify experiment.toml --rerun train --tolerance 0.005 --json");
    assert_eq!(ended.code(), Some(0));
    let mut json = ended.json();
    for (place, name) in [
        ("recorded", "seconds"),
        ("recorded", "host"),
        ("recorded", "finished"),
        ("rerun", "seconds"),
    ] {
        json[place][name] = "[varies]".into();
    }
    assert_snapshot!(project.filter(&format!("{json:#}")), @r#"
    {
      "files": [
        {
          "how": "changed",
          "new-bytes": 84,
          "old-bytes": 65,
          "path": "result.txt"
        }
      ],
      "key": "[digest]",
      "metrics": [
        {
          "name": "validation-accuracy",
          "recorded": 0.5,
          "rerun": 0.503,
          "source": "record"
        }
      ],
      "recorded": {
        "artifact": "[digest]",
        "finished": "[varies]",
        "host": "[varies]",
        "ran-on": {
          "device": "cpu",
          "threads": 4
        },
        "seconds": "[varies]"
      },
      "rerun": {
        "artifact": "[digest]",
        "kept": null,
        "ran-on": {
          "device": "cpu",
          "threads": 4
        },
        "seconds": "[varies]"
      },
      "result": "within-tolerance",
      "stage": "train",
      "tolerance": 0.005
    }
    "#);
}

#[test]
fn what_a_command_writes_is_compared_file_by_file() {
    let project = Sandbox::new(
        r#"
[experiment]
name = "clock"

[stages.clock]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
echo same > same
date +%s%N > clock
echo "{\"runs\": $(cat "$OLDPWD/runs" 2> /dev/null | wc -l), \"fixed\": 1}" > metrics.json
echo run >> "$OLDPWD/runs"
'''
output = "metrics"
"#,
    );
    project.pipeline("run experiment.toml").success();
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun clock"), @r#"
    status 1
    --- stderr
          clock (command) runs again in a scratch folder
    done  clock in [time]
    --- stdout
    clock: not reproduced: digest [digest], recorded [digest]
      recorded  in [time]
      now  in [time]

    files that differ
      clock  other bytes, of the same size
      metrics.json  other bytes, of the same size

    metrics  recorded  now  apart
      fixed  1  1  0
      runs  0  1  1
    "#);
}

#[test]
fn the_count_of_threads_is_that_of_the_record() {
    let project = Sandbox::new(TRAINING).with_fake_learn("by-threads");
    project.pipeline("run experiment.toml --set execution.threads=3").success();
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r#"
    status 0
    --- stderr
          train (train) runs again in a scratch folder
    done  train in [time], with the same output as before
    --- stdout
    train: reproduced: same digest [digest]
      recorded  on cpu, 3 threads in [time]
      now  on cpu, 3 threads in [time]
    "#);
    let ended = project.pipeline("verify experiment.toml --rerun train --set execution.threads=2");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert_snapshot!(ended.stdout.lines().skip(1).take(2).map(|line| project.filter(line)).collect::<String>(), @r#"
    recorded  on cpu, 3 threads in [time]
    now  on cpu, 2 threads in [time]
    "#);
}

#[test]
fn inputs_that_are_not_fresh() {
    let project = trained();
    project.edit("epochs = 10", "epochs = 11");
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r#"
    status 2
    --- stderr
    error: the inputs of 'train' are not fresh: 'simclr' (epochs: 10 -> 11); `pipeline run experiment.toml train` makes it and them
    "#);
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    project.edit("epochs = 11", "epochs = 10");
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r#"
    status 2
    --- stderr
    error: 'train' has no result to compare with: learning-rate: 0.02 -> 0.03; `pipeline run experiment.toml train` makes it
    "#);
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun trian"), @r#"
    status 2
    --- stderr
    error: experiment.toml has no stage 'trian'; did you mean 'train'?
    "#);
    assert_eq!(project.read("journal"), "", "nothing ran");
}

#[test]
fn an_input_that_is_damaged() {
    let project = trained();
    let artifact = project.artifact("simclr");
    project.unprotect(&artifact);
    let text = fs::read_to_string(artifact.join("result.txt")).expect("readable");
    fs::write(artifact.join("result.txt"), text.to_uppercase()).expect("ours");
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r#"
    status 2
    --- stderr
    error: the input 'simclr' of 'train' was damaged, and is in quarantine now; what was made from it no longer counts: training/train, training/evaluate; `pipeline run experiment.toml train` makes it again where it is missing
    "#);
    assert_eq!(project.read("journal"), "", "nothing ran");
}

#[test]
fn a_rerun_that_fails() {
    let project = trained().with_fake_learn("panic");
    let before = cache(&project);
    let ended = project.pipeline("verify experiment.toml --rerun train");
    assert_eq!(ended.code(), Some(1), "{ended}");
    assert!(ended.stderr.contains("FAIL  train after"), "{ended}");
    assert_eq!(cache(&project), before);
}

#[test]
fn its_output_can_be_kept() {
    let project = trained().with_fake_learn("drift");
    let ended = project.pipeline("verify experiment.toml --rerun train --keep");
    let kept = ended.stdout.lines().last().and_then(|line| line.strip_prefix("kept in "));
    let kept = std::path::PathBuf::from(kept.expect("the last line says where"));
    let text = fs::read_to_string(kept.join("result.txt")).expect("it exists");
    assert!(text.ends_with("and something else\n"));
    // The next run that has work to do leaves it alone.
    project.edit("learning-rate = 0.02", "learning-rate = 0.03");
    let project = project.with_fake_learn("");
    project.pipeline("run experiment.toml").success();
    assert!(kept.join("result.txt").exists());
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    let project = trained().with_fake_learn("slow").set("FAKE_LEARN_STEPS", "100000");
    let before = cache(&project);
    let run = project.start("verify experiment.toml --rerun train");
    project.wait_for_line("journal", "step 3");
    run.signal(Signal::INT);
    assert_snapshot!(run.wait(), @r#"
    status 130
    --- stderr
          train (train) runs again in a scratch folder
          train: stopping (again to end it at once)
    stop  train
    "#);
    assert_eq!(cache(&project), before);
    // It begins from nothing again.
    let project = project.with_fake_learn("").set("FAKE_LEARN_STEPS", "20");
    project.write("journal", "");
    assert_eq!(project.pipeline("verify experiment.toml --rerun train").code(), Some(0));
    assert_eq!(project.read("journal").matches("step ").count(), 20);
}

#[test]
fn killed_its_leftovers_are_swept_by_the_next_run() {
    let project = trained().with_fake_learn("slow").set("FAKE_LEARN_STEPS", "100000");
    let before = cache(&project);
    let run = project.start("verify experiment.toml --rerun train");
    project.wait_for_line("journal", "step 3");
    run.signal(Signal::KILL);
    run.wait();
    let journal = project.read("journal");
    let worker = journal.lines().find_map(|line| line.strip_prefix("pid ")).expect("a worker");
    let worker: u32 = worker.parse().expect("a number");
    eventually("the worker leaves too", || !is_alive(worker));
    assert_eq!(names(&project.cache("tmp")).len(), 1);
    let project = project.with_fake_learn("").set("FAKE_LEARN_STEPS", "20");
    assert_eq!(project.pipeline("verify experiment.toml --rerun simclr").code(), Some(0));
    assert_eq!(cache(&project), before);
}

#[test]
fn two_at_once_and_a_run_beside_them() {
    let project = trained().with_fake_learn("slow").set("FAKE_LEARN_STEPS", "100000");
    let first = project.start("verify experiment.toml --rerun train");
    project.wait_for_line("journal", "step 1");
    assert_snapshot!(project.pipeline("verify experiment.toml --rerun train"), @r#"
    status 2
    --- stderr
    error: the same stage is being run again by another process: wait for its end
    "#);
    // What is fresh is fresh, and a run with work to do leaves the scratch of others alone.
    let other = WORDS.replace("name = \"words\"", "name = \"beside\"");
    project.write("other.toml", other);
    project.pipeline("run other.toml").success();
    assert_eq!(names(&project.cache("tmp")).len(), 1);
    first.signal(Signal::INT);
    assert_eq!(first.wait().code(), Some(130));
}

#[test]
fn a_worker_that_will_not_leave_is_ended_the_second_time() {
    let project = trained().with_fake_learn("stubborn").set("FAKE_LEARN_STEPS", "100000");
    let run = project.start("verify experiment.toml --rerun train");
    project.wait_for_line("journal", "step 1");
    run.signal(Signal::INT);
    run.wait_for("stopping");
    // What follows at once is an echo of the first.
    std::thread::sleep(std::time::Duration::from_millis(400));
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(130));
    let journal = project.read("journal");
    let worker = journal.lines().find_map(|line| line.strip_prefix("pid ")).expect("a worker");
    let worker = Pid::from_raw(worker.parse().expect("a number")).expect("a process id");
    assert!(!is_alive(worker.as_raw_nonzero().get().unsigned_abs()));
    assert_eq!(names(&project.cache("tmp")), [""; 0]);
}
