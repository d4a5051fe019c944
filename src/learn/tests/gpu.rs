//! What every kind does on a GPU, beside what it does on the CPU: for machines that have one. On others these tests say so
//! and pass.

mod fixture;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fixture::{
    FEATURES, SAMPLES, SHAPE, TRAIN, divided_training, learn_stage, meta_training, pretraining,
    probe, purification, request, stage, supervised_pretraining, training, truncated_training,
    with_input, write_features, write_inputs, write_vision_transformer,
};
use pipeline_learn::methods::finetune::Finetune;
use pipeline_learn::network::{Classifier, Mode, weights};
use pipeline_learn::training::batch::Batch;
use pipeline_learn::training::captured_step;
use pipeline_learn::training::loss::SampleLoss;
use pipeline_learn::training::method::{Learner, Setup, StepOutput, TrainingMethod};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::supervised_trainer::SupervisedTrainer;
use pipeline_learn::training::training_data::TrainingData;
use pipeline_stages::formats::{
    CurveTable, Evaluations, FeatureFile, InputCrop, Labels, ModelInfo, Part, Predictions,
    SampleLosses, TensorFile, WEIGHTS_FILE,
};
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::message::{Device, Event, Execution, Metrics, Request};
use pipeline_stages::worker::{Context, Stopped};
use pipeline_stages::{KindConfig, LearnStage};
use serde_json::json;
use tch::{Kind, Tensor};

/// Whether TF32 is allowed is one setting for the whole process: a test at a time.
static ONE_TEST: Mutex<()> = Mutex::new(());

/// The GPU, for one test alone.
fn gpu() -> Option<(Device, MutexGuard<'static, ()>)> {
    let alone = ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner);
    let execution =
        Execution { threads: Some(2), checkpoint_seconds: 3600, ..Execution::default() };
    match pipeline_learn::device::prepare(&execution, Precision::F32) {
        Ok(tch::Device::Cuda(_)) => Some((Device::Cuda(0), alone)),
        _ => {
            eprintln!("there is no GPU that libtorch can use: nothing is tested");
            None
        }
    }
}

/// Runs a stage on a device, and goes on as often as it is stopped: after this many reports each time.
fn run(
    folder: &Path,
    stage: &KindConfig,
    output: &str,
    device: Device,
    stops: Option<usize>,
) -> Metrics {
    let mut request = request(folder, stage, output);
    request.execution.device = device;
    loop {
        let context = match stops {
            Some(reports) => Context::for_test_that_stops(request.clone(), reports),
            None => Context::for_test(request.clone()),
        };
        match pipeline_learn::run(learn_stage(&request), &context) {
            Ok(metrics) => return metrics,
            Err(error) if error.is::<Stopped>() => {}
            Err(error) => panic!("{output}: {error:#}"),
        }
    }
}

#[track_caller]
fn assert_alike(one: &Metrics, other: &Metrics, tolerance: f64, what: &str) {
    assert!(one.keys().eq(other.keys()), "{what}: {one:?}, {other:?}");
    for (name, value) in one.iter().filter(|(name, _)| name.contains("loss")) {
        let difference = (other[name] - value).abs() / value.abs().max(0.1);
        assert!(difference < tolerance, "{what}, {name}: {value}, {}", other[name]);
    }
}

fn stages() -> Vec<(&'static str, KindConfig)> {
    vec![
        ("simclr", pretraining("lars")),
        ("supervised", supervised_pretraining()),
        ("train", training("crop-flip")),
        (
            "resized",
            meta_training(&json!({
                "method": "finetune", "augmentation": "random-resized-crop", "image-size": 12,
            })),
        ),
        ("meta-weight-net", meta_training(&json!({}))),
        ("elr", meta_training(&json!({"method": "elr"}))),
        ("co-teaching", meta_training(&json!({"method": "co-teaching"}))),
        ("mixup", meta_training(&json!({"method": "finetune", "mixup": 0.4}))),
        (
            "jensen-shannon",
            meta_training(&json!({"method": "finetune", "loss": "jensen-shannon", "views": 2})),
        ),
        (
            "forward-correction",
            meta_training(&json!({"method": "forward-correction", "estimation-epochs": 1})),
        ),
        ("dividemix", divided_training()),
        ("elr-plus", meta_training(&json!({"method": "elr-plus", "regularization-ramp-up": 0.5}))),
        ("truncated-loss", truncated_training()),
        ("sop", meta_training(&json!({"method": "sop", "consistency": 0.9}))),
    ]
}

#[test]
fn a_record_says_which_gpu_it_was() {
    let Some((_, _alone)) = gpu() else { return };
    let ran_on = pipeline_learn::device::ran_on(tch::Device::Cuda(0));
    eprintln!("the GPU is: {ran_on}");
    assert_eq!((ran_on.device, ran_on.threads), (Device::Cuda(0), None));
    assert!(ran_on.name.is_some_and(|name| name.len() > 3));
}

#[test]
fn a_run_on_a_gpu_says_how_much_of_its_memory_it_took() {
    const LARGE: i64 = 300 << 20;
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let mut request = request(folder.path(), &training("crop-flip"), "output");
    request.execution.device = gpu;
    let context = Context::for_test(request.clone());
    // Freed again before the stage runs: what counts is the most that there was.
    drop(Tensor::zeros([LARGE], (Kind::Uint8, tch::Device::Cuda(0))));
    pipeline_learn::run(learn_stage(&request), &context).expect("it trains");
    let peak = context.peak_gpu_memory().expect("libtorch says how much it was");
    eprintln!("the memory of the GPU is: {peak} B");
    assert!((LARGE as u64..16 << 30).contains(&peak), "{peak} B");
}

/// Runs a stage, also where it starts from another one's encoder.
fn run_from(
    folder: &Path,
    stage: &KindConfig,
    output: &str,
    device: Device,
    encoder: &str,
) -> Metrics {
    let request = with_input(request(folder, stage, output), "init", &folder.join(encoder));
    let request = Request { execution: Execution { device, ..request.execution }, ..request };
    pipeline_learn::run(learn_stage(&request), &Context::for_test(request.clone())).expect(output)
}

#[test]
fn a_gpu_sees_the_same_crop_in_training_and_in_evaluation() {
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let resized = |augmentation: &str| {
        meta_training(&json!({
            "method": "finetune", "augmentation": augmentation, "image-size": 12,
        }))
    };
    run(folder.path(), &resized("resize-crop-flip"), "encoder", gpu, None);
    for augmentation in ["none", "flip"] {
        let [cpu, gpu] = [("cpu", Device::Cpu), ("gpu", gpu)].map(|(device_name, device)| {
            let output = format!("{augmentation}-{device_name}");
            run_from(folder.path(), &resized(augmentation), &output, device, "encoder")
        });
        assert_alike(&cpu, &gpu, 0.05, augmentation);
        let model = ModelInfo::read(&folder.path().join(format!("{augmentation}-gpu")));
        assert_eq!(model.expect("a model").input_crop, Some(InputCrop::ResizeThenCrop));
    }
}

#[test]
fn a_gpu_learns_what_the_cpu_learns() {
    let Some((gpu, _alone)) = gpu() else { return };
    for (name, stage) in stages() {
        let folder = tempfile::tempdir().expect("a folder");
        write_inputs(folder.path());
        let [cpu, gpu] = [("cpu", Device::Cpu), ("gpu", gpu)]
            .map(|(output, device)| run(folder.path(), &stage, output, device, None));
        assert_alike(&cpu, &gpu, 0.05, name);
    }
}

#[test]
fn lower_precisions_on_a_gpu_are_near() {
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    for method in ["finetune", "meta-weight-net"] {
        let [exact, tf32, bf16] = ["f32", "tf32", "bf16"].map(|precision| {
            let stage = meta_training(&json!({"method": method, "precision": precision}));
            run(folder.path(), &stage, &format!("{method}-{precision}"), gpu, None)
        });
        assert_alike(&exact, &tf32, 0.05, method);
        assert_alike(&exact, &bf16, 0.1, method);
    }
}

/// The logits of a batch of images of noise, and the gradient of its loss by the first convolution's weight; both flat,
/// on the CPU. The same weights and images on every device. The encoder computes in `kind`.
fn logits_and_gradient(device: Device, precision: Precision, kind: Kind) -> [Tensor; 2] {
    let execution = Execution { device, threads: Some(2), ..Execution::default() };
    let device = pipeline_learn::device::prepare(&execution, precision).expect("a device");
    let network = Classifier::new(Architecture::Resnet18, 3, 10, 1, device).expect("a network");
    for named in network.state().tensors() {
        if named.tensor.kind() == Kind::Float && !Classifier::in_head(&named.name) {
            named.tensor.shallow_clone().set_data(&named.tensor.to_kind(kind));
        }
    }
    tch::manual_seed(1);
    let images = Tensor::rand([64, 3, 32, 32], (Kind::Float, tch::Device::Cpu)).to_kind(kind);
    let images = images.to_device(device);
    let labels = Tensor::arange(64, (Kind::Int64, device)).remainder(10);
    // The last layer is zero at the start, and lets no gradient through.
    let head = network.state().tensors().iter().filter(|named| Classifier::in_head(&named.name));
    tch::no_grad(|| {
        for named in head {
            let shape = named.tensor.size();
            let count: i64 = shape.iter().product();
            let wave = Tensor::arange(count, (Kind::Float, device)).sin().view(&shape[..]) * 0.1;
            named.tensor.shallow_clone().copy_(&wave);
        }
    });
    let logits = network.forward(&images, Mode::LookAhead).expect("logits");
    let loss = SampleLoss::CrossEntropy.mean(&logits, &labels).expect("a loss");
    let weight = &network.state().tensors()[0].tensor;
    let gradient = Tensor::run_backward(&[loss], &[weight], false, false).remove(0);
    [logits.detach(), gradient].map(|tensor| tensor.to_device(tch::Device::Cpu).flatten(0, -1))
}

/// |a - b| / |b|
fn distance(one: &Tensor, other: &Tensor) -> f64 {
    ((one - other).norm() / other.norm()).double_value(&[])
}

#[test]
fn f32_on_a_gpu_is_as_exact_as_on_a_cpu_and_tf32_is_not() {
    let Some((gpu, _alone)) = gpu() else { return };
    let exact = logits_and_gradient(Device::Cpu, Precision::F32, Kind::Double);
    let results = [
        (Device::Cpu, Precision::F32),
        // Before f32, which must switch TF32 off again.
        (gpu, Precision::Tf32),
        (gpu, Precision::F32),
    ]
    .map(|(device, precision)| logits_and_gradient(device, precision, Kind::Float));
    for (index, name) in ["logits", "gradient"].into_iter().enumerate() {
        let [cpu, tf32, f32] = results.each_ref().map(|of| distance(&of[index], &exact[index]));
        eprintln!("{name}, distance from 64 bits: CPU {cpu:.1e}, GPU {f32:.1e}, TF32 {tf32:.1e}");
        // Backward through batch norms of noise, 32 bits of any kind lose a lot: on a CPU, four seeds of images have
        // logits 1.5e-5 to 1.9e-5 away, and gradients 6.5e-3 to 9.4e-3.
        assert!(f32 < 4.0 * cpu, "{name}: f32 on a GPU is {f32} away, on a CPU {cpu}");
        assert!(tf32 > 10.0 * f32, "{name}: TF32 is {tf32} away, f32 {f32}");
    }
}

#[test]
fn matrix_products_on_a_gpu_are_exact_in_tf32_too() {
    let Some((gpu, _alone)) = gpu() else { return };
    let execution = Execution { device: gpu, threads: Some(2), ..Execution::default() };
    let device = pipeline_learn::device::prepare(&execution, Precision::Tf32).expect("a device");
    tch::manual_seed(1);
    let [one, other] = [(); 2].map(|()| Tensor::rand([256, 256], (Kind::Float, tch::Device::Cpu)));
    let product = one.to_device(device).mm(&other.to_device(device)).to_device(tch::Device::Cpu);
    // TF32 would be some 1e-4 away.
    let away = distance(&product, &one.mm(&other));
    assert!(away < 1e-6, "{away}");
}

#[test]
fn accuracies_on_the_way_are_the_fractions_themselves() {
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    // With three classes and images that differ little, an evaluation a step meets many numbers of right answers.
    let changes = json!({"method": "finetune", "evaluate-every": 1, "epochs": 20});
    run(folder.path(), &meta_training(&changes), "model", gpu, None);
    let evaluations = Evaluations::read(&folder.path().join("model")).expect("evaluations");
    for row in evaluations.0 {
        let accuracy = row.test_accuracy.expect("the test set is tracked");
        let right = (accuracy * SAMPLES as f64).round();
        assert_eq!(accuracy, right / SAMPLES as f64, "{right} of {SAMPLES}");
    }
}

#[test]
fn a_run_on_a_gpu_that_was_stopped_ends_as_one_that_was_not() {
    let Some((gpu, _alone)) = gpu() else { return };
    for (name, stage) in stages() {
        let folder = tempfile::tempdir().expect("a folder");
        write_inputs(folder.path());
        let [whole, stopped] = [("whole", None), ("stopped", Some(1))]
            .map(|(output, stops)| run(folder.path(), &stage, output, gpu, stops));
        assert_alike(&whole, &stopped, 0.02, name);
    }
}

/// Runs a stage on an artifact of this folder, once on the CPU and once on a device, and returns both artifacts.
fn on_both(
    folder: &Path,
    stage: &KindConfig,
    name: &str,
    device: Device,
    [port, artifact]: [&str; 2],
) -> [PathBuf; 2] {
    [("cpu", Device::Cpu), ("gpu", device)].map(|(which, device)| {
        let request = request(folder, stage, &format!("{name}-{which}"));
        let mut request = with_input(request, port, &folder.join(artifact));
        request.execution.device = device;
        let result =
            pipeline_learn::run(learn_stage(&request), &Context::for_test(request.clone()));
        result.unwrap_or_else(|error| panic!("{name}-{which}: {error:#}"));
        request.output
    })
}

#[test]
fn a_vision_transformer_has_the_features_on_a_gpu_that_it_has_on_a_cpu() {
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    write_vision_transformer(folder.path(), SHAPE);
    let stage = stage(json!({"kind": "features", "parameters": {"image-size": 32}}));
    let features = on_both(folder.path(), &stage, "features", gpu, ["weights", "vit"]);
    let [cpu, gpu] = features.map(|artifact| {
        let file = FeatureFile::open(&artifact).expect("features");
        let (bytes, shape) = file.rows(Part::Train).expect("rows");
        assert_eq!(shape, [SAMPLES, 192]);
        Tensor::from_data_size(bytes, &[SAMPLES as i64, 192], Kind::Float)
    });
    let apart = distance(&gpu, &cpu);
    eprintln!("features of a vision transformer: {apart:.1e}");
    assert!(apart < 1e-4, "{apart}");
}

/// Features of classes that overlap, the same on every machine: whole numbers, and a division.
fn overlapping(sample: usize, place: usize) -> f32 {
    let number = sample * FEATURES + place + 1;
    let of_class = if sample % 3 == place { 0.5 } else { 0.0 };
    of_class + (28 * number * number % 997) as f32 / 997.0
}

/// How far apart two cosines are at least that follow each other among the `nearest` largest of a sample that trains.
fn smallest_gap(feature: fn(usize, usize) -> f32, nearest: usize) -> f64 {
    let row = |sample| (0..FEATURES).map(move |place| f64::from(feature(sample, place)));
    let product = |one, other| row(one).zip(row(other)).map(|(a, b)| a * b).sum::<f64>();
    let cosine =
        |one, other| product(one, other) / (product(one, one) * product(other, other)).sqrt();
    let gaps = TRAIN.flat_map(|sample| {
        let others = TRAIN.filter(|other| *other != sample);
        let mut cosines: Vec<f64> = others.map(|other| cosine(sample, other)).collect();
        cosines.sort_by(|one, other| other.total_cmp(one));
        cosines.truncate(nearest);
        cosines.windows(2).map(|pair| pair[0] - pair[1]).collect::<Vec<_>>()
    });
    gaps.fold(f64::INFINITY, f64::min)
}

#[test]
fn labels_are_purified_on_a_gpu_as_on_a_cpu() {
    // Nine neighbours at most are asked for, and the tenth is the nearest that is left out. A cosine is rounded by some 1e-7.
    let gap = smallest_gap(overlapping, 10);
    assert!(gap > 1e-4, "a rounding could choose other neighbours: {gap:.1e}");
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let clean = Labels::read(&folder.path().join("labels")).expect("labels").clean;
    write_features(folder.path(), &clean, overlapping);
    for (name, way) in [
        ("neighbours", json!({})),
        ("adaptive", json!({"method": "adaptive-nearest-neighbours", "k-min": 3, "k-max": 9})),
        ("linear", json!({"method": "linear"})),
        ("clean", json!({"method": "linear", "uses-clean": true})),
    ] {
        let from = ["features", "features"];
        let purified = on_both(folder.path(), &purification(&way), name, gpu, from);
        let [(labels, confidences), (on_gpu, confidences_on_gpu)] = purified.map(|artifact| {
            let file = TensorFile::open(&artifact.join("labels.safetensors")).expect("labels");
            let view = file.view("confidence", safetensors::Dtype::F32, 1).expect("confidences");
            let confidences = Tensor::from_data_size(view.0, &[SAMPLES as i64], Kind::Float);
            (Labels::read(&artifact).expect("labels"), confidences)
        });
        assert_eq!(labels, on_gpu, "{name}");
        let [found, clean] = [&labels.labels, &labels.clean].map(|all| &all[TRAIN]);
        assert_ne!(found, clean, "{name}: nothing that could differ");
        let apart = distance(&confidences_on_gpu, &confidences);
        eprintln!("{name}: confidences are {apart:.1e} apart");
        assert!(apart < 1e-4, "{name}: {apart}");
    }
}

#[test]
fn a_model_is_evaluated_on_a_gpu_as_on_a_cpu() {
    let Some((gpu, _alone)) = gpu() else { return };
    for (name, trained) in [
        ("one network", training("none")),
        ("two networks", meta_training(&json!({"method": "co-teaching"}))),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        write_inputs(folder.path());
        run(folder.path(), &trained, "model", Device::Cpu, None);
        let stage = stage(json!({"kind": "evaluate", "parameters": {}}));
        let found = on_both(folder.path(), &stage, "evaluation", gpu, ["model", "model"]);
        for part in [Part::Test, Part::Train] {
            let [cpu, gpu] = found.each_ref().map(|artifact| {
                let predictions = Predictions::read(artifact, part).expect("predictions");
                Tensor::from_slice(&predictions.expect("of this part").logits)
            });
            let apart = distance(&gpu, &cpu);
            eprintln!("{name}, {part:?}: logits are {apart:.1e} apart");
            assert!(apart < 1e-4, "{name}, {part:?}: {apart}");
        }
    }
}

/// What the log says where steps are replayed.
const REPLAYED: &str = "steps are replayed as a CUDA graph";

/// A request on a GPU, with or without graphs.
fn graph_request(
    folder: &Path,
    stage: &KindConfig,
    output: &str,
    gpu: Device,
    graphs: &str,
) -> Request {
    let mut request = request(folder, stage, output);
    request.execution.device = gpu;
    let variable = (captured_step::VARIABLE.to_owned(), graphs.to_owned());
    request.execution.variables = [variable].into();
    request
}

/// Runs a stage whose steps can be replayed, to its end.
fn run_graphs(request: &Request) {
    let context = Context::for_test(request.clone());
    pipeline_learn::run(learn_stage(request), &context)
        .unwrap_or_else(|error| panic!("{}: {error:#}", request.output.display()));
    let log = context.kept_log();
    let is_on = request.execution.variables[captured_step::VARIABLE] == "on";
    assert_eq!(log.iter().any(|line| line == REPLAYED), is_on, "{log:#?}");
}

/// The encoder of an artifact, or the one that it began with: its floats in one line, and its counters.
fn encoder(artifact: Option<&Path>) -> [Tensor; 2] {
    let cpu = tch::Device::Cpu;
    let network = Classifier::new(Architecture::Resnet8Fast, SHAPE.channels, 3, 5, cpu);
    let network = network.expect("a network");
    let tensors = network.state().tensors().iter();
    let tensors = tensors.filter(|named| !Classifier::in_head(&named.name));
    if let Some(artifact) = artifact {
        let path = artifact.join(WEIGHTS_FILE);
        weights::read_into(&path, tensors.clone(), Classifier::in_head).expect("weights");
    }
    [Kind::Float, Kind::Int64].map(|kind| {
        let of_kind = tensors.clone().filter(|named| named.tensor.kind() == kind);
        let flat: Vec<Tensor> = of_kind.map(|named| named.tensor.detach().flatten(0, -1)).collect();
        Tensor::cat(&flat, 0)
    })
}

/// How far apart two encoders are that began alike, beside how far one moved; and whether they counted the same batches.
fn apart(one: &Path, other: &Path) -> (f64, bool) {
    let [[one, batches], [other, other_batches], [start, _]] =
        [Some(one), Some(other), None].map(encoder);
    (((&one - &other).norm() / (other - start).norm()).double_value(&[]), batches == other_batches)
}

/// Twenty steps each; of those of a training every fifth has a short batch.
fn replayed_stages() -> Vec<(&'static str, KindConfig)> {
    let with = |mut changes: serde_json::Value| {
        for (name, value) in [("epochs", json!(4)), ("sample-losses", json!(true))] {
            changes[name] = value;
        }
        meta_training(&changes)
    };
    let simclr = |optimizer: &str, rate: f64, precision: &str| {
        stage(json!({"kind": "pretrain-simclr", "parameters": {
            "architecture": "resnet8-fast", "epochs": 10, "batch-size": 20, "optimizer": optimizer,
            "learning-rate": rate, "precision": precision,
        }}))
    };
    vec![
        ("finetune", with(json!({"method": "finetune"}))),
        ("finetune-tf32", with(json!({"method": "finetune", "precision": "tf32"}))),
        ("finetune-bf16", with(json!({"method": "finetune", "precision": "bf16"}))),
        (
            "finetune-adam",
            with(json!({"method": "finetune", "optimizer": "adam", "learning-rate": 1e-3})),
        ),
        (
            "jensen-shannon",
            with(json!({"method": "finetune", "loss": "jensen-shannon", "views": 2})),
        ),
        ("meta-weight-net", with(json!({"inner-rate": "scheduled", "inner-learning-rate": 1.0}))),
        ("meta-weight-net-bf16", with(json!({"precision": "bf16"}))),
        (
            "forward-correction",
            with(json!({"method": "forward-correction", "estimation-epochs": 2})),
        ),
        ("elr", with(json!({"method": "elr"}))),
        ("sop", with(json!({"method": "sop", "consistency": 0.9, "balance": 0.1}))),
        (
            "co-teaching",
            with(json!({"method": "co-teaching", "forget-rate": 0.3, "forget-epochs": 2})),
        ),
        ("mixup", with(json!({"method": "finetune", "mixup": 0.4}))),
        ("meta-weight-net-mixup", with(json!({"mixup": 0.4}))),
        ("elr-mixup", with(json!({"method": "elr", "mixup": 0.4}))),
        ("sop-mixup", with(json!({"method": "sop", "consistency": 0.9, "mixup": 0.4}))),
        (
            "co-teaching-mixup",
            with(json!({
                "method": "co-teaching", "forget-rate": 0.3, "forget-epochs": 2, "mixup": 0.4,
            })),
        ),
        ("elr-plus", with(json!({"method": "elr-plus", "regularization-ramp-up": 0.5}))),
        // Small batches: most of them are full, whichever samples are labelled.
        (
            "dividemix",
            with(json!({
                "method": "dividemix", "warmup-epochs": 1, "ramp-up-epochs": 2, "batch-size": 2,
            })),
        ),
        (
            "truncated-loss",
            with(json!({
                "method": "truncated-loss", "loss": "generalized-cross-entropy", "q": 0.7,
                "learning-rate": 0.1, "prune-below": 0.33, "prune-after": 1, "prune-every": 1,
            })),
        ),
        ("supervised", {
            stage(json!({"kind": "pretrain-supervised", "parameters": {
                "architecture": "resnet8-fast", "updates": 20, "batch-size": 9, "normalise": "dataset",
                "keep": "last",
            }}))
        }),
        ("simclr-sgd", simclr("sgd", 0.05, "f32")),
        ("simclr-lars", simclr("lars", 0.2, "f32")),
        ("simclr-adam", simclr("adam", 1e-3, "f32")),
        ("simclr-bf16", simclr("sgd", 0.05, "bf16")),
    ]
}

/// The distance of each run of a stage to the second one, which is not replayed, as the third: of the encoders, as [`apart`], and
/// of the losses of the samples, where there are any.
fn replayed_and_twice_eager(stage: &KindConfig, gpu: Device, name: &str) -> [[f64; 2]; 2] {
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let outputs = [("replayed", "on"), ("eager", "off"), ("again", "off")];
    let [replayed, eager, again] = outputs.map(|(output, graphs)| {
        run_graphs(&graph_request(folder.path(), stage, output, gpu, graphs));
        folder.path().join(output)
    });
    let losses = |folder: &Path| SampleLosses::read(folder).expect("losses");
    [replayed, again].map(|artifact| {
        let (moved_apart, counted_alike) = apart(&artifact, &eager);
        assert!(counted_alike, "{name}: other numbers of batches");
        let (Some(one), Some(other)) = (losses(&artifact), losses(&eager)) else {
            return [moved_apart, 0.0];
        };
        let [one, other] = [one, other].map(|losses| Tensor::from_slice(&losses.losses));
        let known = other.isnan().logical_not();
        assert!(bool::try_from(one.isnan().logical_not().eq_tensor(&known).all()).unwrap());
        let [one, other] = [one, other].map(|losses| losses.masked_select(&known));
        [moved_apart, distance(&one, &other)]
    })
}

/// cuDNN adds in an order that it does not fix, and a rounding can decide whether an input of a ReLU is above 0: of 60 seeds of this
/// very fine-tuning on a CPU, with one thread beside two, half ended 1.5e-6 of the way apart and one 1.1e-2. So steps are compared to the bit
/// without cuDNN, and near it with it.
fn assert_replayed_alike(stage: &KindConfig, gpu: Device, name: &str, with_cudnn: bool) {
    tch::Cuda::set_user_enabled_cudnn(with_cudnn);
    let [replayed, again] = replayed_and_twice_eager(stage, gpu, name);
    if !with_cudnn {
        eprintln!("{name}: replayed {replayed:?}, run again {again:?}");
        assert_eq!(replayed, again, "{name}");
        return;
    }
    eprintln!("{name}: replayed {replayed:.7?}, run again {again:.7?}");
    for (apart, noise) in replayed.into_iter().zip(again) {
        assert!(noise < 0.05, "{name}: {noise}");
        assert!(apart < 0.02 + 5.0 * noise, "{name}: {apart}, beside {noise}");
    }
}

#[test]
fn a_replayed_step_does_what_its_operations_do() {
    let Some((gpu, _alone)) = gpu() else { return };
    let mut failed = Vec::new();
    for (name, stage) in replayed_stages() {
        let is_f32 = !name.contains("tf32") && !name.contains("bf16");
        let ways = [("without cuDNN", false), ("with cuDNN", true)];
        for (how, with_cudnn) in ways.into_iter().filter(|(_, with_cudnn)| *with_cudnn || is_f32) {
            let name = format!("{name}, {how}");
            // A GPU is rare: one run says of every stage whether it fails.
            let compare = || assert_replayed_alike(&stage, gpu, &name, with_cudnn);
            if catch_unwind(AssertUnwindSafe(compare)).is_err() {
                failed.push(name);
            }
        }
    }
    tch::Cuda::set_user_enabled_cudnn(true);
    assert!(failed.is_empty(), "{} failed, as said above: {failed:#?}", failed.len());
}

#[test]
fn a_replayed_probe_does_what_its_operations_do() {
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    run(folder.path(), &pretraining("adam"), "encoder", gpu, None);
    for augmentation in ["none", "crop-flip"] {
        let curves = ["on", "off"].map(|graphs| {
            let output = format!("{augmentation}-{graphs}");
            let stage = probe("linear", augmentation);
            let request = graph_request(folder.path(), &stage, &output, gpu, graphs);
            run_graphs(&with_input(request, "weights", &folder.path().join("encoder")));
            let curves = CurveTable::read(&folder.path().join(output).join("curves.csv"));
            Tensor::from_slice(&curves.expect("curves").column("loss").expect("a loss"))
        });
        let differ = distance(&curves[0], &curves[1]);
        assert!(differ < 1e-3, "{augmentation}: losses differ by {differ}");
    }
}

/// Runs a stage until its steps are replayed, stops it, and runs it to its end.
fn run_stopped_while_replayed(request: &Request) {
    let context = Context::for_test(request.clone());
    let is_over = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed)
                && !context.kept_log().iter().any(|line| line == REPLAYED)
            {
                std::thread::sleep(Duration::from_micros(100));
            }
            context.stop_flag().store(true, Ordering::Relaxed);
        });
        let result = pipeline_learn::run(learn_stage(request), &context);
        is_over.store(true, Ordering::Relaxed);
        result
    });
    let error = result.expect_err("it was over before it could be stopped: nothing is tested");
    assert!(error.is::<Stopped>(), "{error:#}");
    run_graphs(request);
}

#[test]
fn a_run_that_was_stopped_while_steps_were_replayed_ends_as_one_that_was_not() {
    let Some((gpu, _alone)) = gpu() else { return };
    for (name, changes) in [
        ("finetune", json!({"method": "finetune", "optimizer": "adam", "learning-rate": 1e-3})),
        ("elr", json!({"method": "elr"})),
        ("sop", json!({"method": "sop"})),
        ("meta-weight-net", json!({})),
    ] {
        let mut changes = changes;
        changes["epochs"] = json!(20);
        let stage = meta_training(&changes);
        let folder = tempfile::tempdir().expect("a folder");
        write_inputs(folder.path());
        let outputs = [("whole", "on"), ("eager", "off"), ("again", "off"), ("stopped", "on")];
        let [whole, eager, again, stopped] = outputs.map(|(output, graphs)| {
            let request = graph_request(folder.path(), &stage, output, gpu, graphs);
            match output {
                "stopped" => run_stopped_while_replayed(&request),
                _ => run_graphs(&request),
            }
            folder.path().join(output)
        });
        let (noise, _) = apart(&again, &eager);
        for (what, artifact) in [("whole", whole), ("stopped", stopped)] {
            let (apart, counted_alike) = apart(&artifact, &eager);
            eprintln!("{name}, {what}: {apart:.1e} of the way apart, run again {noise:.1e}");
            assert!(apart < 0.01 + 5.0 * noise, "{name}, {what}: {apart}, beside {noise}");
            assert!(counted_alike, "{name}, {what}: other numbers of batches");
        }
    }
}

/// Fine-tuning that says that its steps can be replayed, and waits for the GPU in each.
struct Waiting(Finetune);

impl TrainingMethod for Waiting {
    fn learners(&self) -> Vec<&Learner> {
        self.0.learners()
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        self.0.learners_mut()
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn compute(&mut self, batch: &Batch, others: &[Batch]) -> anyhow::Result<StepOutput> {
        let output = self.0.compute(batch, others)?;
        let _ = output.losses.f_mean(Kind::Float)?.f_double_value(&[])?;
        Ok(output)
    }
}

#[test]
fn a_step_that_cannot_be_recorded_is_done_all_the_same() {
    let Some((gpu, _alone)) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let stage = meta_training(&json!({"method": "finetune", "epochs": 4}));
    let outputs = [("eager", "off"), ("again", "off"), ("waiting", "on")];
    let requests = outputs.map(|(output, graphs)| {
        let request = graph_request(folder.path(), &stage, output, gpu, graphs);
        if output != "waiting" {
            run_graphs(&request);
        }
        request
    });
    let [eager, again, waiting] = requests;
    let KindConfig::Learn(LearnStage::Train(parameters)) = &waiting.stage else {
        panic!("not a training")
    };
    let context = Context::for_test(waiting.clone());
    let device = pipeline_learn::device::prepare(&context.execution, Precision::F32);
    let recipe = Recipe::of(parameters);
    let data =
        TrainingData::read(parameters, "init", &context, device.expect("a GPU")).expect("data");
    let method = |setup: &mut Setup<'_>| {
        let method: Box<dyn TrainingMethod> = Box::new(Waiting(Finetune::new(setup)?));
        Ok(method)
    };
    let trainer = SupervisedTrainer::new(&recipe, &context, &data, method);
    let mut trainer = trainer.expect("a trainer");
    trainer.run(parameters).expect("it trains");
    trainer.write_model(parameters).expect("a model");

    let log = context.kept_log();
    assert!(log.iter().any(|line| line.contains("steps are not replayed")), "{log:#?}");
    let noted = |event| matches!(event, Event::Note { text } if text.contains("recorded"));
    assert!(context.kept_events().into_iter().any(noted), "nothing is noted");
    let (noise, _) = apart(&again.output, &eager.output);
    let (distance, counted_alike) = apart(&waiting.output, &eager.output);
    assert!(distance < 1e-3 + 5.0 * noise, "{distance}, beside {noise}");
    assert!(counted_alike, "other numbers of batches");
    // Another training of the same process is not harmed.
    let later = graph_request(folder.path(), &stage, "later", gpu, "on");
    run_graphs(&later);
    let (distance, _) = apart(&later.output, &eager.output);
    assert!(distance < 1e-3 + 5.0 * noise, "later: {distance}, beside {noise}");
}
