//! What every kind does on a GPU, beside what it does on the CPU: for machines that have one. On others these tests say so
//! and pass.

mod fixture;

use std::path::Path;

use fixture::{
    learn_stage, meta_training, pretraining, request, supervised_pretraining, training, with_input,
    write_inputs,
};
use pipeline_stages::KindConfig;
use pipeline_stages::formats::{InputCrop, ModelInfo};
use pipeline_stages::message::{Device, Execution, Metrics, Request};
use pipeline_stages::worker::{Context, Stopped};
use serde_json::json;

fn gpu() -> Option<Device> {
    let execution =
        Execution { threads: Some(2), checkpoint_seconds: 3600, ..Execution::default() };
    match pipeline_learn::device::prepare(&execution) {
        Ok(tch::Device::Cuda(_)) => Some(Device::Cuda(0)),
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
    ]
}

#[test]
fn a_record_says_which_gpu_it_was() {
    let Some(_) = gpu() else { return };
    let ran_on = pipeline_learn::device::ran_on(tch::Device::Cuda(0));
    eprintln!("the GPU is: {ran_on}");
    assert_eq!((ran_on.device, ran_on.threads), (Device::Cuda(0), None));
    assert!(ran_on.name.is_some_and(|name| name.len() > 3));
}

#[test]
fn a_run_on_a_gpu_says_how_much_of_its_memory_it_took() {
    const LARGE: i64 = 300 << 20;
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let mut request = request(folder.path(), &training("crop-flip"), "output");
    request.execution.device = gpu;
    let context = Context::for_test(request.clone());
    // Freed again before the stage runs: what counts is the most that there was.
    drop(tch::Tensor::zeros([LARGE], (tch::Kind::Uint8, tch::Device::Cuda(0))));
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
    let Some(gpu) = gpu() else { return };
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
    let Some(gpu) = gpu() else { return };
    for (name, stage) in stages() {
        let folder = tempfile::tempdir().expect("a folder");
        write_inputs(folder.path());
        let [cpu, gpu] = [("cpu", Device::Cpu), ("gpu", gpu)]
            .map(|(output, device)| run(folder.path(), &stage, output, device, None));
        assert_alike(&cpu, &gpu, 0.05, name);
    }
}

#[test]
fn bfloat16_on_a_gpu_is_near() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    for method in ["finetune", "meta-weight-net"] {
        let [exact, near] = ["f32", "bf16"].map(|precision| {
            let stage = meta_training(&json!({"method": method, "precision": precision}));
            run(folder.path(), &stage, &format!("{method}-{precision}"), gpu, None)
        });
        assert_alike(&exact, &near, 0.1, method);
    }
}

#[test]
fn a_run_on_a_gpu_that_was_stopped_ends_as_one_that_was_not() {
    let Some(gpu) = gpu() else { return };
    for (name, stage) in stages() {
        let folder = tempfile::tempdir().expect("a folder");
        write_inputs(folder.path());
        let [whole, stopped] = [("whole", None), ("stopped", Some(1))]
            .map(|(output, stops)| run(folder.path(), &stage, output, gpu, stops));
        assert_alike(&whole, &stopped, 0.02, name);
    }
}
