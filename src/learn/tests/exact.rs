//! Interrupted and resumed, or killed and run again: the same bytes as without.

mod fixture;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{learn_stage, meta_training, pretraining, request, training, write_inputs};
use pipeline_stages::message::{Event, Request};
use pipeline_stages::worker::{Context, Stopped};
use serde_json::json;

/// Runs a stage once, and asks it to stop after some events. Says whether it was stopped.
fn run(request: &Request, stop_after: Option<usize>) -> bool {
    let context = Context::for_test(request.clone());
    let (stop, done) = (context.stop_flag(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if stop_after.is_some_and(|events| context.kept_events().len() >= events) {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let result = pipeline_learn::run(learn_stage(request), &context);
        done.store(true, Ordering::Relaxed);
        match result {
            Ok(_) => false,
            Err(error) if error.is::<Stopped>() => true,
            Err(error) => panic!("{error:#}"),
        }
    })
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[track_caller]
fn assert_same(folder: &Path, one: &str, other: &str) {
    let (one, other) = (files(&folder.join(one)), files(&folder.join(other)));
    assert!(one.contains_key("weights.safetensors"));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{name} differs");
    }
}

#[test]
fn a_run_that_was_stopped_often_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stages = [
        pretraining("lars"),
        pretraining("adam"),
        pretraining("sgd"),
        training("crop-flip"),
        training("none"),
        meta_training(&json!({"meta-optimizer": "sgd"})),
        meta_training(&json!({"meta-optimizer": "adam", "meta-samples": "training"})),
    ];
    for (index, stage) in stages.iter().enumerate() {
        let [whole, stopped] = ["whole", "stopped"].map(|name| format!("{name}-{index}"));
        assert!(!run(&request(folder.path(), stage, &whole), None));
        let mut stops = 0;
        while run(&request(folder.path(), stage, &stopped), Some(1)) {
            stops += 1;
            assert!(stops < 100, "it never ends");
        }
        assert!(stops > 1, "it was never stopped: nothing is tested");
        assert_same(folder.path(), &whole, &stopped);
    }
}

#[test]
fn the_threads_that_prepare_images_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stages = [pretraining("lars"), training("crop-flip"), meta_training(&json!({}))];
    for (index, stage) in stages.iter().enumerate() {
        for threads in [1, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let request = request(folder.path(), stage, &format!("{index}-{threads}"));
            pool.install(|| run(&request, None));
        }
        assert_same(folder.path(), &format!("{index}-1"), &format!("{index}-5"));
    }
}

#[test]
fn a_resumed_run_keeps_the_thread_count_that_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = training("flip");
    run(&request(folder.path(), &stage, "whole"), None);
    let mut request = request(folder.path(), &stage, "resumed");
    assert!(run(&request, Some(2)));
    request.execution.threads = Some(1);
    assert!(!run(&request, None));
    assert_same(folder.path(), "whole", "resumed");
}

#[test]
fn a_damaged_checkpoint_is_ignored_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = training("flip");
    run(&request(folder.path(), &stage, "whole"), None);
    let request = request(folder.path(), &stage, "damaged");
    assert!(run(&request, Some(2)));
    let path = request.checkpoint.join("checkpoint.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let context = Context::for_test(request.clone());
    pipeline_learn::run(learn_stage(&request), &context).unwrap();
    let noted = context
        .kept_events()
        .into_iter()
        .any(|event| matches!(event, Event::Note { text } if text.contains("damaged")));
    assert!(noted);
    assert_same(folder.path(), "whole", "damaged");
}

/// Speaks to the real worker, which writes a checkpoint after every step.
fn spawn(request: &Request) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_pipeline-learn"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    worker.stdin.as_mut().unwrap().write_all(&line).unwrap();
    let events = BufReader::new(worker.stdout.take().unwrap());
    (worker, events)
}

#[test]
fn a_worker_that_is_killed_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    for (index, stage) in [pretraining("lars"), training("crop-flip")].iter().enumerate() {
        let [whole, killed] = ["whole", "killed"].map(|name| format!("{name}-{index}"));
        run(&request(folder.path(), stage, &whole), None);
        let mut request = request(folder.path(), stage, &killed);
        request.execution.checkpoint_seconds = 0;
        let (mut worker, events) = spawn(&request);
        let progress = events.lines().find(|line| line.as_ref().unwrap().contains("progress"));
        assert!(progress.is_some());
        worker.kill().unwrap();
        worker.wait().unwrap();
        let (mut worker, events) = spawn(&request);
        let last = events.lines().last().unwrap().unwrap();
        assert!(last.contains("finished"), "{last}");
        worker.wait().unwrap();
        assert_same(folder.path(), &whole, &killed);
    }
}
