//! The manifests of the paper say what its protocol says.
//!
//! Ghosh and Lan, "Contrastive Learning Improves Model Robustness Under Label Noise" (2021), section 3 and its code.

use std::fs;
use std::path::Path;

use pipeline_stages::kind_info;
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::kinds::{
    Augmentation, Keep, Loss, Method, Normalise, Optimizer, PretrainOptimizer, PretrainSimclr,
    PretrainSupervised, Sampling, Schedule, Split, Train,
};
use serde::de::DeserializeOwned;

/// The stages of one kind, by name: their parameters, with the defaults of what is not said, and the rest of the table.
fn stages<P: DeserializeOwned>(manifest: &str, kind: &str) -> Vec<(String, P, toml::Table)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/paper").join(manifest);
    let manifest: toml::Table = fs::read_to_string(path).expect("it exists").parse().expect("TOML");
    let fields = (kind_info(kind).expect("a kind").fields)();
    let of_kind =
        manifest["stages"].as_table().expect("a table").iter().filter_map(|(name, stage)| {
            let stage = stage.as_table().expect("a table");
            (stage["kind"].as_str() == Some(kind)).then_some((name, stage))
        });
    let typed = of_kind.map(|(name, stage)| {
        let (parameters, rest) = stage
            .clone()
            .into_iter()
            .partition::<toml::Table, _>(|(key, _)| fields.iter().any(|field| field.name == *key));
        (name.clone(), toml::Value::Table(parameters).try_into().expect("parameters"), rest)
    });
    let typed: Vec<_> = typed.collect();
    assert!(!typed.is_empty(), "no {kind} in {manifest}");
    typed
}

#[test]
fn classifiers_of_cifar_are_trained_as_in_the_paper() {
    for manifest in ["cifar10.toml", "cifar100.toml"] {
        let trainings = stages::<Train>(manifest, "train");
        for (name, train, ports) in &trainings {
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
            assert_eq!(train.precision, Precision::F32, "{name}");
            for port in ["data", "labels", "split", "init"] {
                assert!(ports.contains_key(port), "{name} has no {port}");
            }
        }
        for encoder in ["simclr", "imagenet32-encoder"] {
            let with = |method, loss| {
                trainings.iter().any(|(_, train, ports)| {
                    let begins = ports["init"].as_str() == Some(encoder);
                    begins && train.method == method && train.loss == loss
                })
            };
            for loss in [Loss::CrossEntropy, Loss::GeneralizedCrossEntropy, Loss::Mae] {
                assert!(with(Method::Finetune, loss), "{manifest}: {encoder}, {loss:?}");
            }
            assert!(with(Method::MetaWeightNet, Loss::CrossEntropy), "{manifest}: {encoder}");
        }
        let (_, split, _) = &stages::<Split>(manifest, "split")[0];
        assert_eq!(split.random_holdout(), 1000, "{manifest}");
    }
}

#[test]
fn encoders_are_trained_as_published() {
    for manifest in ["cifar10.toml", "cifar100.toml"] {
        let (_, simclr, rest) = &stages::<PretrainSimclr>(manifest, "pretrain-simclr")[0];
        assert_eq!((simclr.epochs, simclr.batch_size), (1000, 1024), "{manifest}");
        assert_eq!((simclr.learning_rate, simclr.weight_decay), (4.0, 1e-6), "{manifest}");
        assert_eq!((simclr.optimizer, simclr.temperature), (PretrainOptimizer::Lars, 0.5));
        assert_eq!(rest["seed"].as_integer(), Some(220), "other seeds share the encoder");
    }
    for manifest in ["cifar10.toml", "cifar100.toml", "imagenet32.toml"] {
        let (_, encoder, rest) = &stages::<PretrainSupervised>(manifest, "pretrain-supervised")[0];
        assert_eq!((encoder.updates, encoder.batch_size), (500_000, 256), "{manifest}");
        assert_eq!((encoder.learning_rate, encoder.weight_decay), (0.02, 1e-3), "{manifest}");
        assert_eq!((encoder.step_every, encoder.step_factor), (100_000, 0.5), "{manifest}");
        assert_eq!((encoder.stop_after, encoder.stop_drop), (50_000, 0.1), "{manifest}");
        assert_eq!(
            (encoder.augmentation, encoder.normalise),
            (Augmentation::Flip, Normalise::Imagenet)
        );
        assert_eq!((encoder.schedule, encoder.keep), (Schedule::Step, Keep::BestOnTest));
        assert_eq!(rest["seed"].as_integer(), Some(220), "other seeds share the encoder");
    }
}

#[test]
fn clothing1m_is_trained_as_in_the_paper() {
    for (name, train, ports) in stages::<Train>("clothing1m.toml", "train") {
        assert_eq!(train.architecture, Architecture::Resnet50At224, "{name}");
        // 4,000 updates an epoch, 240,000 in all.
        assert_eq!((train.epochs, train.batch_size), (60, 32), "{name}");
        assert_eq!(train.sampling, Sampling::ClassBalanced, "{name}");
        assert_eq!(train.samples_per_epoch, Some(128_000), "{name}");
        assert_eq!((train.learning_rate, train.weight_decay), (1e-3, 1e-3), "{name}");
        assert_eq!(
            (train.schedule, train.step_every, train.step_factor),
            (Schedule::Step, 40_000, 0.5)
        );
        let expected = match ports["init"].as_str() {
            Some("simclr") => Augmentation::RandomResizedCrop,
            _ => Augmentation::ResizeCropFlip,
        };
        assert_eq!((train.augmentation, train.image_size), (expected, Some(224)), "{name}");
    }
}
