//! What every learning kind measures in a tiny run, bound to its version: numbers that change without a new version are
//! an error, for a cache would go on serving the old ones.
//!
//! Last bits differ between processors, and so may a sample on a border; both are within the tolerances. With a
//! new version or a new run, `UPDATE_RESULTS=1 cargo test -p pipeline-learn --test golden results` writes the new numbers.

#[path = "../fixture/mod.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use fixture::{
    divided_training, features, learn_stage, meta_training, pretraining, probe, purification,
    request, stage, supervised_pretraining, training, truncated_training, with_input, write_inputs,
};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;
use pipeline_stages::{KINDS, KindConfig, WorkerProgram, kind_info};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::THREADS;

/// What the runs of a kind measured.
#[derive(Serialize, Deserialize)]
struct Results {
    version: u32,
    runs: BTreeMap<String, Metrics>,
}

/// A tiny run.
struct Run {
    name: &'static str,
    stage: KindConfig,
    /// A port, and the earlier run whose artifact it takes.
    input: Option<[&'static str; 2]>,
}

/// Every run, each after those whose artifacts it takes.
fn runs() -> Vec<Run> {
    let robust = stage(json!({"kind": "train", "parameters": {
        "architecture": "resnet8", "epochs": 2, "batch-size": 16, "loss": "generalized-cross-entropy",
        "optimizer": "adam", "learning-rate": 1e-3, "schedule": "linear", "augmentation": "crop-flip",
    }}));
    let balanced = stage(json!({"kind": "train", "parameters": {
        "architecture": "resnet8-fast", "epochs": 2, "batch-size": 9, "augmentation": "resize-crop-flip",
        "image-size": 12, "sampling": "class-balanced", "samples-per-epoch": 30, "schedule": "step",
        "step-every": 4,
    }}));
    let evaluate = stage(json!({"kind": "evaluate", "parameters": {}}));
    let run = |name, stage, input| Run { name, stage, input };
    let encoder = Some(["weights", "simclr-adam"]);
    let of_features = Some(["features", "features"]);
    vec![
        run("simclr-lars", pretraining("lars"), None),
        run("simclr-adam", pretraining("adam"), None),
        run("supervised", supervised_pretraining(), None),
        run("from-scratch", training("flip"), None),
        run("from-simclr", training("none"), Some(["init", "simclr-adam"])),
        run("robust", robust, None),
        run("meta-weight-net", meta_training(&json!({})), None),
        run(
            "symmetric",
            meta_training(&json!({
                "method": "finetune", "loss": "symmetric-cross-entropy",
            })),
            None,
        ),
        run(
            "forward-correction",
            meta_training(&json!({
                "method": "forward-correction", "estimation-epochs": 1,
            })),
            None,
        ),
        run("elr", meta_training(&json!({"method": "elr"})), None),
        run("sop", meta_training(&json!({"method": "sop"})), None),
        run("co-teaching", meta_training(&json!({"method": "co-teaching"})), None),
        run("mixup", meta_training(&json!({"method": "finetune", "mixup": 0.4})), None),
        run("meta-weight-net-mixup", meta_training(&json!({"mixup": 0.4})), None),
        run("elr-mixup", meta_training(&json!({"method": "elr", "mixup": 0.4})), None),
        run("sop-mixup", meta_training(&json!({"method": "sop", "mixup": 0.4})), None),
        run(
            "co-teaching-mixup",
            meta_training(&json!({"method": "co-teaching", "mixup": 0.4})),
            None,
        ),
        run("dividemix", divided_training(), None),
        run(
            "elr-plus",
            meta_training(&json!({"method": "elr-plus", "regularization-ramp-up": 0.5})),
            None,
        ),
        run("truncated-loss", truncated_training(), None),
        run("mean-of-epochs", meta_training(&json!({"select-best": "average"})), None),
        run("class-balanced", balanced, None),
        run("evaluation", evaluate, Some(["model", "from-scratch"])),
        run("linear-probe", probe("linear", "crop-flip"), encoder),
        run("frozen-probe", probe("linear", "none"), encoder),
        run("neighbours", probe("knn", "none"), encoder),
        run("features", features(), encoder),
        run("nearest", purification(&json!({})), of_features),
        run(
            "adaptive",
            purification(&json!({"method": "adaptive-nearest-neighbours", "k-min": 3, "k-max": 9})),
            of_features,
        ),
        run("linear", purification(&json!({"method": "linear"})), of_features),
        run(
            "linear-with-clean",
            purification(&json!({"method": "linear", "uses-clean": true, "steps": 50})),
            of_features,
        ),
        run("probe-of-features", probe("linear", "none"), of_features),
        run("neighbours-by-features", probe("knn", "none"), of_features),
    ]
}

fn measure(folder: &Path) -> BTreeMap<String, Results> {
    let mut measured = BTreeMap::new();
    for Run { name, stage, input } in runs() {
        let mut request = request(folder, &stage, name);
        if let Some([port, run]) = input {
            request = with_input(request, port, &folder.join(run));
        }
        let context = Context::for_test(request.clone());
        let metrics = pipeline_learn::run(learn_stage(&request), &context);
        let metrics = metrics.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let kind = stage.info();
        let empty = || Results { version: kind.version, runs: BTreeMap::new() };
        let results: &mut Results = measured.entry(kind.name.to_owned()).or_insert_with(empty);
        results.runs.insert(name.to_owned(), metrics);
    }
    measured
}

/// How far a number may be from the stored one.
fn tolerance(metric: &str, stored: f64) -> f64 {
    if metric.ends_with("-step") {
        // The place of a maximum: another one may win by a sample.
        f64::INFINITY
    } else if metric == "changed-labels" {
        // Two of 40 samples.
        2.0
    } else if metric.contains("loss") {
        3e-3 * stored.abs().max(0.1)
    } else {
        // Two of 40 samples and a little.
        0.06
    }
}

/// What differs between the runs of a kind, in words.
fn differences(stored: &Results, found: &Results) -> Vec<String> {
    let mut differences = Vec::new();
    for (run, metrics) in &found.runs {
        let Some(known) = stored.runs.get(run) else {
            if !updates() {
                differences.push(format!("{run} is new"));
            }
            continue;
        };
        if !known.keys().eq(metrics.keys()) {
            differences.push(format!("{run} has other metrics: {known:?}, now {metrics:?}"));
        }
        for (name, value) in metrics {
            let stored = known.get(name).copied().unwrap_or(*value);
            if (value - stored).abs() > tolerance(name, stored) {
                differences.push(format!("{run}: {name} was {stored}, now {value}"));
            }
        }
    }
    differences
}

/// Whether the numbers of new versions and of new runs are to be written.
fn updates() -> bool {
    std::env::var_os("UPDATE_RESULTS").is_some()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/results.json")
}

#[test]
fn results_change_only_with_a_version() {
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let measured = measure(folder.path());
    drop(alone);
    for kind in KINDS.iter().filter(|kind| kind.worker == WorkerProgram::Learn) {
        assert!(measured.contains_key(kind.name), "'{}' has no run here", kind.name);
    }
    let text = std::fs::read_to_string(file()).unwrap_or_else(|_| "{}".to_owned());
    let stored: BTreeMap<String, Results> = serde_json::from_str(&text).expect("it is JSON");
    let mut problems = Vec::new();
    for (kind, found) in &measured {
        let known = stored.get(kind);
        let bumped = known.is_none_or(|known| known.version != found.version);
        if bumped && !updates() {
            problems.push(format!("'{kind}' has the new version {}", found.version));
        } else if !bumped {
            let differences = known.map(|known| differences(known, found)).unwrap_or_default();
            problems.extend(differences.into_iter().map(|text| format!("'{kind}', {text}")));
        }
    }
    assert!(
        problems.is_empty(),
        "{}\nResults that change need a new version of their kind, and then UPDATE_RESULTS=1",
        problems.join("\n")
    );
    if updates() {
        let kept = measured.into_iter().map(|(kind, found)| {
            let version = kind_info(&kind).map(|kind| kind.version);
            let same = stored.get(&kind).filter(|known| Some(known.version) == version);
            let mut runs = found.runs;
            runs.extend(same.map_or_else(BTreeMap::new, |known| known.runs.clone()));
            (kind, Results { version: found.version, runs })
        });
        let kept: BTreeMap<String, Results> = kept.collect();
        let text = serde_json::to_string_pretty(&kept).expect("plain data");
        std::fs::write(file(), text + "\n").expect("the file is written");
    }
}
