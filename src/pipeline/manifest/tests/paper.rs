//! The manifests of the paper expand to what its protocol says.
//!
//! Ghosh and Lan, "Contrastive Learning Improves Model Robustness Under Label Noise" (2021), section 3 and its code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pipeline_stages::Kind;
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{
    Augmentation, CorruptLabels, Keep, Loss, Method, Noise, Normalise, Optimizer,
    PretrainOptimizer, PretrainSimclr, PretrainSupervised, Probe, Sampling, Schedule, Split, Train,
    ValidationTransform,
};
use serde::de::DeserializeOwned;

use super::super::{Manifest, Stage, read};
use super::matrix::keys_of;
use crate::graph::Graph;
use crate::key::StageKey;

/// Those on CIFAR, with how many trainings they have.
const CIFAR: [(&str, usize); 4] =
    [("cifar10.toml", 250), ("cifar100.toml", 250), ("table1.toml", 300), ("grid.toml", 420)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/paper")
}

fn manifest(file: &str) -> (Manifest, Graph) {
    read(&folder().join(file), &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The instances of one kind, with their parameters.
fn of_kind<P: Kind + DeserializeOwned>(manifest: &Manifest) -> Vec<(&Stage, P)> {
    let stages = manifest.stages.iter().filter(|stage| stage.stage.info().name == P::NAME);
    let typed = stages.map(|stage| {
        let mut config = serde_json::to_value(&stage.stage).expect("it becomes JSON");
        let parameters = config["parameters"].take();
        (stage, serde_json::from_value(parameters).expect("its parameters"))
    });
    let typed: Vec<_> = typed.collect();
    assert!(!typed.is_empty(), "no {} in {}", P::NAME, manifest.path.display());
    typed
}

/// The value of an instance on an axis.
fn value<'a>(stage: &'a Stage, axis: &str) -> &'a str {
    let mut point = stage.name.point();
    point
        .find(|(name, _)| *name == axis)
        .unwrap_or_else(|| panic!("{} has no {axis}", stage.name))
        .1
}

/// The name of the stage in the file behind a port.
fn input<'a>(stage: &'a Stage, port: &str) -> &'a str {
    stage.inputs.get(port).map_or("", |connections| connections[0].from.template())
}

#[test]
fn classifiers_of_cifar_are_trained_as_in_the_paper() {
    for (file, count) in CIFAR {
        let (manifest, _) = manifest(file);
        let trainings = of_kind::<Train>(&manifest);
        assert_eq!(trainings.len(), count, "{file}");
        for (stage, train) in &trainings {
            let name = &stage.name;
            assert_eq!(train.architecture, Architecture::Resnet50, "{name}");
            // 49,000 images: 490 updates an epoch, 58,800 in all.
            assert_eq!(
                (train.epochs, train.batch_size, train.evaluate_every),
                (120, 100, Some(245))
            );
            assert_eq!((train.optimizer, train.momentum), (Optimizer::Sgd, 0.9), "{name}");
            assert_eq!((train.learning_rate, train.weight_decay), (0.01, 1e-4), "{name}");
            assert_eq!((train.schedule, train.warmup), (Schedule::WarmupCosine, 0.01), "{name}");
            assert_eq!(train.augmentation, Augmentation::Flip, "{name}");
            assert_eq!(train.normalise, Normalise::Auto, "{name}");
            assert_eq!(train.precision, Precision::F32, "{name}");
            for port in ["data", "split"] {
                assert_eq!(input(stage, port), port, "{name}");
            }
            assert_eq!(input(stage, "labels"), "noisy", "{name}");
            let encoder = match value(stage, "encoder") {
                "imagenet32" => "imagenet32-encoder",
                other => other,
            };
            assert_eq!(input(stage, "init"), encoder, "{name}");
            let (method, loss, q) = match value(stage, "method") {
                "ce" => (Method::Finetune, Loss::CrossEntropy, None),
                "lq-0.5" => (Method::Finetune, Loss::GeneralizedCrossEntropy, Some(0.5)),
                "lq" | "lq-0.66" => (Method::Finetune, Loss::GeneralizedCrossEntropy, Some(0.66)),
                "mae" => (Method::Finetune, Loss::Mae, None),
                "mwnet" => (Method::MetaWeightNet, Loss::CrossEntropy, None),
                other => panic!("{other}"),
            };
            assert_eq!((train.method, train.loss), (method, loss), "{name}");
            assert!(q.is_none_or(|q| train.q == q), "{name}");
            assert_eq!((train.meta_learning_rate, train.meta_weight_decay), (1e-3, 1e-4), "{name}");
            assert_eq!(train.inner_learning_rate, 0.1, "{name}");
            assert_eq!(value(stage, "seed"), stage.seed.to_string(), "{name}");
            assert!((220..=224).contains(&stage.seed), "{name}");
        }
        for (stage, noisy) in of_kind::<CorruptLabels>(&manifest) {
            assert_eq!(noisy.noise, Noise::Symmetric, "{file}");
            let rate = stage.stage.key_parameters()["rate"].as_f64();
            assert_eq!(rate, value(stage, "rate").parse().ok(), "{file}");
        }
        for (_, split) in of_kind::<Split>(&manifest) {
            assert_eq!(split.random_holdout(), 1000, "{file}");
        }
    }
}

#[test]
fn encoders_are_trained_as_published() {
    for (file, _) in CIFAR {
        let (manifest, _) = manifest(file);
        for (stage, simclr) in of_kind::<PretrainSimclr>(&manifest) {
            assert_eq!((simclr.epochs, simclr.batch_size), (1000, 1024), "{file}");
            assert_eq!((simclr.learning_rate, simclr.weight_decay), (4.0, 1e-6), "{file}");
            assert_eq!((simclr.optimizer, simclr.temperature), (PretrainOptimizer::Lars, 0.5));
            assert_eq!(stage.seed, 220, "other seeds share the encoder");
            assert!(stage.name.point().all(|(axis, _)| axis == "data"), "{}", stage.name);
        }
    }
    for file in ["cifar10.toml", "cifar100.toml", "imagenet32.toml", "table1.toml", "grid.toml"] {
        let (manifest, _) = manifest(file);
        let encoders = of_kind::<PretrainSupervised>(&manifest);
        let [(stage, encoder)] = &encoders[..] else { panic!("{file}: one encoder for all") };
        assert_eq!((encoder.updates, encoder.batch_size), (500_500, 256), "{file}");
        assert_eq!((encoder.learning_rate, encoder.weight_decay), (0.02, 1e-3), "{file}");
        assert_eq!((encoder.step_every, encoder.step_factor), (100_000, 0.5), "{file}");
        assert_eq!((encoder.stop_after, encoder.stop_drop), (50_000, 0.1), "{file}");
        assert_eq!(
            (encoder.augmentation, encoder.normalise),
            (Augmentation::Flip, Normalise::Imagenet)
        );
        assert_eq!((encoder.schedule, encoder.keep), (Schedule::Step, Keep::BestOnTest));
        assert_eq!(stage.seed, 220, "other seeds share the encoder");
    }
}

#[test]
fn probes_are_as_long_as_those_that_were_published() {
    for file in ["cifar10.toml", "cifar100.toml"] {
        let (manifest, _) = manifest(file);
        for (_, probe) in of_kind::<Probe>(&manifest) {
            let updates = u64::from(probe.epochs) * 50_000u64.div_ceil(probe.batch_size);
            assert!((80_000..80_000 + 49).contains(&updates), "{file}: {updates}");
            assert_eq!((probe.learning_rate, probe.weight_decay), (0.1, 1e-4), "{file}");
        }
    }
}

#[test]
fn clothing1m_is_trained_as_in_the_paper() {
    let (manifest, _) = manifest("clothing1m.toml");
    let trainings = of_kind::<Train>(&manifest);
    assert_eq!(trainings.len(), 10);
    for (stage, train) in trainings {
        let name = &stage.name;
        assert_eq!(train.architecture, Architecture::Resnet50At224, "{name}");
        // 4,000 updates an epoch, 240,000 in all.
        assert_eq!((train.epochs, train.batch_size), (60, 32), "{name}");
        assert_eq!(train.evaluate_every, Some(500), "{name}");
        assert_eq!(train.validation_transform, ValidationTransform::Training, "{name}");
        let learns_weights = value(stage, "method") == "mwnet";
        assert_eq!(train.method == Method::MetaWeightNet, learns_weights, "{name}");
        assert_eq!(train.sampling, Sampling::ClassBalanced, "{name}");
        assert_eq!(train.samples_per_epoch, Some(128_000), "{name}");
        assert_eq!((train.learning_rate, train.weight_decay), (1e-3, 1e-3), "{name}");
        assert_eq!(
            (train.schedule, train.step_every, train.step_factor),
            (Schedule::Step, 40_000, 0.5)
        );
        let expected = match input(stage, "init") {
            "simclr" => Augmentation::RandomResizedCrop,
            "imagenet" => Augmentation::ResizeCropFlip,
            other => panic!("{other}"),
        };
        assert_eq!((train.augmentation, train.image_size), (expected, Some(224)), "{name}");
        assert_eq!(input(stage, "init"), value(stage, "encoder"), "{name}");
    }
}

/// 1,440 combinations there, of which its rules for symmetric noise leave 420.
#[test]
fn the_grid_is_that_of_the_reference_scheduler() {
    let (manifest, _) = manifest("grid.toml");
    let trainings = of_kind::<Train>(&manifest);
    let names: BTreeSet<_> = trainings.iter().map(|(stage, _)| &stage.name).collect();
    assert_eq!((trainings.len(), names.len()), (420, 420));
    let count = |axes: &[&str]| {
        let mut counts: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        for (stage, _) in &trainings {
            *counts.entry(axes.iter().map(|axis| value(stage, axis)).collect()).or_default() += 1;
        }
        counts
    };
    let groups = count(&["encoder", "data", "seed"]);
    assert_eq!(groups.len(), 2 * 2 * 5);
    assert!(groups.values().all(|count| *count == 21), "{groups:?}");
    let methods: Vec<_> =
        count(&["method"]).into_iter().map(|(key, count)| (key[0], count)).collect();
    assert_eq!(methods, [("ce", 120), ("lq-0.5", 100), ("lq-0.66", 100), ("mwnet", 100)]);
    let rates = count(&["rate"]).into_iter().map(|(key, count)| (key[0], count));
    let rates: Vec<_> = rates.collect();
    assert_eq!(
        rates,
        [("0", 20), ("0.2", 80), ("0.5", 80), ("0.8", 80), ("0.9", 80), ("0.95", 80)]
    );
}

#[test]
fn manifests_share_the_trainings_that_they_have_in_common() {
    let trainings = |file: &str| -> BTreeSet<StageKey> {
        let (manifest, graph) = manifest(file);
        let keys = keys_of(&manifest, &graph);
        keys.into_iter()
            .filter(|(name, _)| name.template() == "train")
            .map(|(_, key)| key)
            .collect()
    };
    let (grid, table) = (trainings("grid.toml"), trainings("table1.toml"));
    assert!(table.is_subset(&grid));
    for file in ["cifar10.toml", "cifar100.toml"] {
        // All but the mean absolute error; and half of the table.
        let here = trainings(file);
        assert_eq!(here.intersection(&grid).count(), 200, "{file}");
        assert_eq!(here.intersection(&table).count(), 150, "{file}");
    }
}

/// Two files have the numbers: for people, and for programs.
#[test]
fn published_numbers_are_of_points_of_the_table() {
    let csv = fs::read_to_string(folder().join("table1.csv")).expect("it exists");
    let (header, rows) = csv.split_once('\n').expect("a header");
    assert_eq!(header, "data,encoder,method,rate,test-accuracy");
    let mut published = BTreeMap::new();
    for row in rows.lines() {
        let (point, accuracy) = row.rsplit_once(',').expect("fields");
        let accuracy: f64 = accuracy.parse().expect("a number");
        assert!(published.insert(point.to_owned(), accuracy).is_none(), "{row}");
    }

    let (manifest, _) = manifest("table1.toml");
    let of_table = of_kind::<Train>(&manifest).into_iter().map(|(stage, _)| {
        ["data", "encoder", "method", "rate"].map(|axis| value(stage, axis)).join(",")
    });
    assert_eq!(of_table.collect::<BTreeSet<_>>(), published.keys().cloned().collect());

    for data in ["cifar10", "cifar100"] {
        let text =
            fs::read_to_string(folder().join(data).with_extension("toml")).expect("it exists");
        let mut found = 0;
        for line in text.lines() {
            let Some(line) = line.strip_prefix("#   ") else { continue };
            let method = match line.get(..25).map(str::trim_end) {
                Some("cross-entropy") => "ce",
                Some("generalized cross-entropy") => "lq",
                Some("Meta-Weight-Net") => "mwnet",
                _ => continue,
            };
            let mut words = line[25..].split_whitespace();
            let encoder = words.next().expect("an encoder").to_lowercase();
            for (rate, percent) in ["0.2", "0.5", "0.8", "0.9", "0.95"].into_iter().zip(words) {
                let percent: f64 = percent.parse().expect("a number");
                let there = published[&format!("{data},{encoder},{method},{rate}")];
                assert!((percent - 100.0 * there).abs() < 1e-9, "{data}: {line}");
                found += 1;
            }
        }
        assert_eq!(found, 30, "{data}");
    }
}
