//! Interrupted and resumed, or killed and run again: the same bytes as without.

mod fixture;
mod real_images;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use fixture::{
    divided_training, learn_stage, meta_training, pretraining, probe, request, stage,
    supervised_pretraining, training, truncated_training, with_input, write_inputs,
};
use pipeline_stages::KindConfig;
use pipeline_stages::formats::weights_file;
use pipeline_stages::message::{Event, Metrics, Request};
use pipeline_stages::worker::{Context, Stopped};
use serde_json::json;
use tch::{Kind, Tensor};

/// Runs a stage once, and asks it to stop after it reported its progress this often. Returns whether it was stopped.
fn run(request: &Request, stop_after: Option<usize>) -> bool {
    let context = match stop_after {
        Some(reports) => Context::for_test_that_stops(request.clone(), reports),
        None => Context::for_test(request.clone()),
    };
    match pipeline_learn::run(learn_stage(request), &context) {
        Ok(_) => false,
        Err(error) if error.is::<Stopped>() => true,
        Err(error) => panic!("{error:#}"),
    }
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
    assert!(!one.is_empty());
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        assert!(other[name] == *bytes, "{name} differs");
    }
}

/// Runs a stage once, and again with an interruption after every few reports of its progress.
fn stop_often(
    stage: &KindConfig,
    reports: usize,
    prepare: impl Fn(Request) -> Request,
    folder: &Path,
) {
    let [whole, stopped] =
        ["whole", "stopped"].map(|output| prepare(request(folder, stage, output)));
    assert!(!run(&whole, None));
    let mut stops = 0;
    while run(&stopped, Some(reports)) {
        stops += 1;
        assert!(stops < 100, "it never ends");
    }
    assert!(stops > 1, "it was never stopped: nothing is tested");
    assert_same(folder, "whole", "stopped");
}

#[test]
fn a_run_that_was_stopped_often_ends_as_one_that_was_not() {
    for stage in [
        pretraining("lars"),
        pretraining("adam"),
        pretraining("sgd"),
        supervised_pretraining(),
        training("crop-flip"),
        training("none"),
        meta_training(&json!({"method": "finetune", "optimizer": "adam", "learning-rate": 1e-3})),
        meta_training(&json!({"method": "finetune", "precision": "bf16"})),
        meta_training(&json!({
            "method": "finetune", "sampling": "class-balanced", "samples-per-epoch": 30,
            "augmentation": "random-resized-crop", "image-size": 12,
        })),
        meta_training(&json!({"method": "finetune", "validation-transform": "training"})),
        meta_training(&json!({"method": "finetune", "loss": "jensen-shannon", "views": 2})),
        meta_training(&json!({"method": "forward-correction", "estimation-epochs": 1})),
        meta_training(&json!({"method": "elr"})),
        meta_training(&json!({"method": "co-teaching", "forget-rate": 0.4, "forget-epochs": 2})),
        meta_training(&json!({"method": "sop", "consistency": 0.9, "balance": 0.1})),
        meta_training(&json!({
            "method": "finetune", "select-best": "validation", "validation-labels": "given",
        })),
        meta_training(&json!({"select-best": "average", "average-epochs": 2})),
        meta_training(&json!({"method": "finetune", "mixup": 0.4})),
        meta_training(&json!({"mixup": 0.4})),
        meta_training(&json!({"method": "elr", "mixup": 0.4})),
        meta_training(&json!({"method": "sop", "consistency": 0.9, "mixup": 0.4})),
        meta_training(&json!({"method": "co-teaching", "forget-rate": 0.4, "mixup": 0.4})),
        meta_training(&json!({
            "method": "co-teaching", "forget-rate": 0.4, "mixup": 0.4, "precision": "bf16",
        })),
        meta_training(&json!({"method": "sop", "consistency": 0.9, "precision": "bf16"})),
        meta_training(&json!({"method": "elr-plus", "precision": "bf16"})),
        divided_training(),
        meta_training(
            &json!({"method": "dividemix", "epochs": 4, "warmup-epochs": 1, "loss-epochs": 2}),
        ),
        meta_training(&json!({"method": "elr-plus", "regularization-ramp-up": 0.5})),
        truncated_training(),
        meta_training(&json!({"meta-optimizer": "sgd"})),
        meta_training(&json!({"meta-optimizer": "adam", "meta-samples": "training"})),
        meta_training(&json!({"sample-losses": true})),
        meta_training(&json!({
            "method": "finetune", "sample-losses": true, "sampling": "class-balanced", "samples-per-epoch": 30,
        })),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_inputs(folder.path());
        stop_often(&stage, 1, |request| request, folder.path());
    }
}

#[test]
fn a_falling_test_accuracy_ends_a_pre_training_also_when_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = stage(json!({"kind": "pretrain-supervised", "parameters": {
        "architecture": "resnet8-fast", "updates": 200, "batch-size": 9, "normalise": "dataset",
        "learning-rate": 0.5, "evaluate-every": 4, "stop-after": 8, "stop-drop": 0.01,
    }}));
    stop_often(&stage, 2, |request| request, folder.path());
    let encoder = folder.path().join("whole");
    let evaluations = std::fs::read_to_string(encoder.join("evaluations.csv")).unwrap();
    let last_step = evaluations.lines().last().unwrap().split(',').next().unwrap();
    let last_step: u64 = last_step.parse().unwrap();
    assert!(last_step > 8 && last_step < 200, "{evaluations}");
    // An epoch has 6 steps; the one that was not finished has its row too.
    let curves = std::fs::read_to_string(encoder.join("curves.csv")).unwrap();
    assert_eq!(curves.lines().count() as u64, 1 + last_step.div_ceil(6));

    assert!(encoder.join("classifier.safetensors").exists());
    let begun = with_input(request(folder.path(), &training("none"), "begun"), "init", &encoder);
    assert!(!run(&begun, None));
}

#[test]
fn the_best_on_the_test_set_is_kept_and_the_last_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let encoder = |updates: u64, keep: &str| {
        let stage = stage(json!({"kind": "pretrain-supervised", "parameters": {
            "architecture": "resnet8-fast", "updates": updates, "batch-size": 9, "normalise": "dataset",
            "learning-rate": 0.5, "evaluate-every": 4, "schedule": "constant", "keep": keep,
        }}));
        let output = folder.path().join(format!("{keep}-{updates}"));
        assert!(!run(&request(folder.path(), &stage, &format!("{keep}-{updates}")), None));
        output
    };
    let file = |folder: &Path| std::fs::read(folder.join("weights.safetensors")).unwrap();
    let best = encoder(60, "best-on-test");
    let evaluations = pipeline_stages::formats::Evaluations::read(&best).unwrap();
    let step = evaluations.best_test().unwrap().steps;
    assert!(step < 60, "the last one is the best: nothing is tested");
    // With a constant learning rate, a shorter run is the beginning of a longer one.
    assert!(file(&best) == file(&encoder(step, "last")));
    assert!(file(&best) != file(&encoder(60, "last")));
}

#[test]
fn the_best_on_the_samples_held_out_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let model = |epochs: u64, select: &str, labels: &str| {
        let stage = stage(json!({"kind": "train", "parameters": {
            "architecture": "resnet8-fast", "epochs": epochs, "batch-size": 9, "learning-rate": 0.5,
            "schedule": "constant", "select-best": select, "validation-labels": labels,
        }}));
        let name = format!("{select}-{labels}-{epochs}");
        assert!(!run(&request(folder.path(), &stage, &name), None));
        folder.path().join(name)
    };
    let file = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    for labels in ["clean", "given"] {
        let best = model(12, "validation", labels);
        let evaluations = pipeline_stages::formats::Evaluations::read(&best).unwrap();
        // An epoch has 5 steps.
        let epochs = evaluations.best_validation().unwrap().steps / 5;
        assert!(epochs < 12, "the last one is the best: nothing is tested");
        // With a constant learning rate, a shorter run is the beginning of a longer one.
        let [best, shorter, last] =
            [best, model(epochs, "last", labels), model(12, "last", labels)]
                .map(|model| file(&model, "weights.safetensors"));
        assert!(best == shorter && best != last);
    }
    let [clean, given] = ["clean", "given"].map(|labels| {
        let model = folder.path().join(format!("last-{labels}-12"));
        let evaluations = pipeline_stages::formats::Evaluations::read(&model).unwrap().0;
        let losses = evaluations.iter().map(|row| row.validation_loss).collect::<Vec<_>>();
        (file(&model, "weights.safetensors"), losses)
    });
    assert!(
        clean.0 == given.0 && clean.1 != given.1,
        "the labels of a validation change no training"
    );
}

#[test]
fn the_mean_of_the_last_epochs_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let model = |epochs: u64, select: &str| {
        let stage = meta_training(&json!({
            "method": "co-teaching", "epochs": epochs, "learning-rate": 0.1, "schedule": "constant",
            "select-best": select, "average-epochs": 3,
        }));
        let name = format!("{select}-{epochs}");
        assert!(!run(&request(folder.path(), &stage, &name), None));
        folder.path().join(name)
    };
    let tensor = |model: &Path, file: &str, name: &str| {
        let tensors = Tensor::read_safetensors(model.join(file)).unwrap();
        tensors.into_iter().find(|(found, _)| found == name).unwrap().1
    };
    // With a constant learning rate, a shorter run is the beginning of a longer one.
    for (epochs, last_ones) in [(5, vec![3, 4, 5]), (2, vec![1, 2])] {
        let mean = model(epochs, "average");
        let last_ones: Vec<_> = last_ones.into_iter().map(|one| model(one, "last")).collect();
        for (network, name) in
            [(0, "fc.weight"), (0, "bn1.running_mean"), (1, "fc.weight"), (1, "bn1.running_mean")]
        {
            let file = weights_file(network);
            let [.., last] = &last_ones[..] else { panic!("there are some") };
            let ones: Vec<_> = last_ones.iter().map(|one| tensor(one, &file, name)).collect();
            let expected = Tensor::stack(&ones, 0).mean_dim(0, false, Kind::Float);
            let away = |model| (tensor(model, &file, name) - &expected).abs().max();
            let [of_mean, of_last] = [&mean, last].map(|one| away(one).double_value(&[]));
            assert!(of_mean < 1e-6 && of_last > 1e-3, "{name}: {of_mean}, {of_last}");
        }
    }
}

#[test]
fn a_mean_is_judged_itself_by_the_samples_held_out() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let metrics = |name: &str, stage: &KindConfig| {
        let mut request = request(folder.path(), stage, name);
        if name == "evaluation" {
            request = with_input(request, "model", &folder.path().join("average"));
        }
        let context = Context::for_test(request.clone());
        pipeline_learn::run(learn_stage(&request), &context).unwrap()
    };
    let train = |select: &str| {
        let stage = meta_training(&json!({
            "method": "co-teaching", "epochs": 4, "learning-rate": 0.1, "schedule": "constant",
            "select-best": select, "average-epochs": 3,
        }));
        metrics(select, &stage)
    };
    let [mean, last] = ["average", "last"].map(train);
    // The images of both parts are the same, so that the samples held out are among those of the test set.
    metrics("evaluation", &stage(json!({"kind": "evaluate", "parameters": {}})));
    let file = folder.path().join("evaluation/predictions.safetensors");
    let tensors: BTreeMap<_, _> = Tensor::read_safetensors(file).unwrap().into_iter().collect();
    let held_out = |name: &str| tensors[name].narrow(0, 40, 8);
    let loss = held_out("test.loss-clean").mean(Kind::Double).double_value(&[]);
    let right = held_out("test.predicted").eq_tensor(&held_out("test.label-clean"));
    let accuracy = right.mean(Kind::Double).double_value(&[]);
    assert!((mean["validation-loss"] - loss).abs() < 1e-6, "{mean:?}, {loss}");
    assert_eq!(mean["validation-accuracy"], accuracy);
    assert!((last["validation-loss"] - loss).abs() > 1e-3, "{last:?}: nothing is tested");
    // All else is of the training on the way.
    let others = |metrics: &Metrics| -> Vec<(String, f64)> {
        let others = metrics.iter().filter(|(name, _)| !name.starts_with("validation-"));
        others.map(|(name, value)| (name.clone(), *value)).collect()
    };
    assert_eq!(others(&mean), others(&last));
    for name in ["evaluations.csv", "curves.csv"] {
        let [one, other] = ["average", "last"]
            .map(|model| std::fs::read(folder.path().join(model).join(name)).unwrap());
        assert!(one == other, "{name} differs");
    }
}

#[test]
fn a_probe_that_was_stopped_often_ends_as_one_that_was_not() {
    for augmentation in ["crop-flip", "none"] {
        let folder = tempfile::tempdir().unwrap();
        write_inputs(folder.path());
        assert!(!run(&request(folder.path(), &pretraining("adam"), "encoder"), None));
        let encoder = folder.path().join("encoder");
        let connect = |request| with_input(request, "weights", &encoder);
        // More reports than its passes without a checkpoint have: features, test, validation.
        stop_often(&probe("linear", augmentation), 12, connect, folder.path());
    }
}

#[test]
fn what_has_no_effect_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    for (q, output) in [(0.5, "one"), (0.7, "other")] {
        let parameters = json!({
            "architecture": "resnet8-fast", "epochs": 1, "batch-size": 20, "loss": "cross-entropy", "q": q,
        });
        let stage = stage(json!({"kind": "train", "parameters": parameters}));
        assert!(!run(&request(folder.path(), &stage, output), None));
    }
    assert_same(folder.path(), "one", "other");
}

/// The line of an epoch without its numbers: `epoch 1/3: train-loss, train-accuracy, images/s, s`.
fn shape(line: &str) -> String {
    let mut parts = line.split("  ");
    let epoch = parts.next().unwrap_or_default();
    let is_name = |word: &&str| word.parse::<f64>().is_err();
    let names: Vec<&str> = parts.map(|part| part.split(' ').find(is_name).unwrap()).collect();
    format!("{epoch}: {}", names.join(", "))
}

#[test]
fn the_log_of_a_training_has_its_device_and_a_line_for_each_epoch() {
    for (stage, epochs, values) in [
        (pretraining("adam"), 3, "loss, contrastive-accuracy"),
        (
            training("none"),
            3,
            "train-loss, train-accuracy, train-accuracy-clean, validation-accuracy, test-accuracy, \
             validation-loss, test-loss",
        ),
        (supervised_pretraining(), 3, "train-loss, train-accuracy, test-accuracy, test-loss"),
        (
            meta_training(&json!({})),
            2,
            "train-loss, train-accuracy, train-accuracy-clean, meta-loss, weight, weight-clean, \
             weight-corrupted, validation-accuracy, test-accuracy, validation-loss, test-loss",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_inputs(folder.path());
        let request = request(folder.path(), &stage, "out");
        let context = Context::for_test(request.clone());
        pipeline_learn::run(learn_stage(&request), &context).unwrap();
        let log = context.kept_log();
        assert_eq!(log[0], "runs on cpu, 2 threads");
        let lines: Vec<String> = log[1..].iter().map(|line| shape(line)).collect();
        let expected =
            (1..=epochs).map(|epoch| format!("epoch {epoch}/{epochs}: {values}, images/s, s"));
        assert_eq!(lines, expected.collect::<Vec<_>>());
    }
}

#[test]
fn the_log_of_a_training_that_continues_has_the_earlier_epochs() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    // An epoch has 5 steps.
    let request = request(folder.path(), &training("none"), "out");
    assert!(run(&request, Some(7)));
    let context = Context::for_test(request.clone());
    pipeline_learn::run(learn_stage(&request), &context).unwrap();
    let log: Vec<String> = context.kept_log().iter().map(|line| shape(line)).collect();
    let values = "train-loss, train-accuracy, train-accuracy-clean, validation-accuracy, test-accuracy, \
         validation-loss, test-loss";
    let expected = [
        "runs on cpu, 2 threads: ".to_owned(),
        format!("epoch 1/3: {values}"),
        "continues after step 7 of 15: ".to_owned(),
        format!("epoch 2/3: {values}, images/s, s"),
        format!("epoch 3/3: {values}, images/s, s"),
    ];
    assert_eq!(log, expected);
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = training("flip");
    run(&request(folder.path(), &stage, "whole"), None);
    let mut request = request(folder.path(), &stage, "without");
    request.execution.checkpoint_seconds = 0;
    std::fs::remove_dir(&request.checkpoint).unwrap();
    let context = Context::for_test(request.clone());
    pipeline_learn::run(learn_stage(&request), &context).unwrap();
    assert!(noted(&context, "cannot write the checkpoint"));
    assert_same(folder.path(), "whole", "without");

    context.stop_flag().store(true, Ordering::Relaxed);
    let error = pipeline_learn::run(learn_stage(&request), &context).unwrap_err();
    assert!(format!("{error:#}").contains("cannot write the checkpoint"), "{error:#}");
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_not_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let stage = training("flip");
    let request = request(folder.path(), &stage, "out");
    std::fs::create_dir(request.checkpoint.join("checkpoint.bin")).unwrap();
    let result = pipeline_learn::run(learn_stage(&request), &Context::for_test(request.clone()));
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("cannot read the checkpoint"), "{error}");
}

fn noted(context: &Context, words: &str) -> bool {
    let mut events = context.kept_events().into_iter();
    events.any(|event| matches!(event, Event::Note { text } if text.contains(words)))
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
    assert!(noted(&context, "damaged"));
    assert_same(folder.path(), "whole", "damaged");
}

#[test]
fn a_parameter_without_effect_takes_no_checkpoint_away() {
    let folder = tempfile::tempdir().unwrap();
    write_inputs(folder.path());
    let request = |q: f64| {
        let parameters = json!({
            "architecture": "resnet8-fast", "epochs": 3, "batch-size": 9, "loss": "cross-entropy", "q": q,
        });
        let stage = stage(json!({"kind": "train", "parameters": parameters}));
        request(folder.path(), &stage, "out")
    };
    assert!(run(&request(0.5), Some(2)));
    let continued = request(0.7);
    assert!(continued.checkpoint.join("checkpoint.bin").exists());
    let context = Context::for_test(continued.clone());
    pipeline_learn::run(learn_stage(&continued), &context).unwrap();
    assert!(!noted(&context, "the checkpoint is not used"));
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
    let stages = [pretraining("lars"), training("crop-flip"), meta_training(&json!({}))];
    for (index, stage) in stages.iter().enumerate() {
        let [whole, killed] = ["whole", "killed"].map(|name| format!("{name}-{index}"));
        run(&request(folder.path(), stage, &whole), None);
        let mut request = request(folder.path(), stage, &killed);
        request.execution.checkpoint_seconds = 0;
        let (mut worker, _events) = spawn(&request);
        // Each worker has a folder of its own below that of the key.
        let is_written = || {
            let folders = std::fs::read_dir(&request.checkpoint).into_iter().flatten().flatten();
            folders.map(|folder| folder.path()).any(|folder| folder.join("checkpoint.bin").exists())
        };
        while !is_written() {
            assert!(worker.try_wait().unwrap().is_none(), "it left without a checkpoint");
            std::thread::sleep(Duration::from_micros(100));
        }
        worker.kill().unwrap();
        worker.wait().unwrap();
        // It is asked for one thread, keeps its two, and its record says so.
        request.execution.threads = Some(1);
        let (mut worker, events) = spawn(&request);
        let lines: Vec<String> = events.lines().map(|line| line.unwrap()).collect();
        let last = lines.last().unwrap();
        assert!(last.contains("finished") && last.contains("\"threads\":2"), "{last}");
        assert!(lines.iter().any(|line| line.contains("continues after step")), "{lines:?}");
        worker.wait().unwrap();
        assert_same(folder.path(), &whole, &killed);
    }
}
