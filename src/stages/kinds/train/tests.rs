use serde_json::json;

use super::*;
use crate::kind;

fn read(parameters: Value) -> Train {
    serde_json::from_value(parameters).unwrap()
}

#[test]
fn what_has_no_effect_is_not_in_the_key() {
    let key = |parameters| kind::key_parameters(&read(parameters));
    for parameters in [
        json!({"q": 0.7}),
        json!({"step-every": 7, "step-factor": 0.1}),
        json!({"meta-learning-rate": 1.0, "inner-learning-rate": 0.3, "normalise-weights": true}),
    ] {
        assert_eq!(key(parameters), key(json!({})));
    }
    let generalized = json!({"loss": "generalized-cross-entropy"});
    let other = json!({"loss": "generalized-cross-entropy", "q": 0.7});
    for (name, loss) in [
        ("forward-weight", "symmetric-cross-entropy"),
        ("passive-weight", "nce-rce"),
        ("smoothing", "label-smoothing"),
        ("given-share", "soft-bootstrapping"),
        ("given-share", "hard-bootstrapping"),
        ("label-share", "jensen-shannon"),
    ] {
        let key = |loss: &str| key(json!({"loss": loss, name: 0.25}));
        assert!(key(loss).contains_key(name) && !key("mae").contains_key(name), "{loss}");
    }
    assert_ne!(key(generalized), key(other));
    let meta = |changes: Value| {
        let mut parameters = json!({"method": "meta-weight-net"});
        parameters.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key(parameters)
    };
    assert_ne!(meta(json!({})), meta(json!({"meta-learning-rate": 1.0})));
    assert_ne!(meta(json!({})), meta(json!({"inner-learning-rate": 1.0})));
    assert_eq!(
        meta(json!({"inner-rate": "scheduled"})),
        meta(json!({"inner-rate": "scheduled", "inner-learning-rate": 1.0}))
    );
}

#[test]
fn each_bootstrapping_has_the_share_of_its_paper() {
    let key = |loss: &str| kind::key_parameters(&read(json!({"loss": loss})));
    for (loss, share) in [("soft-bootstrapping", 0.95), ("hard-bootstrapping", 0.8)] {
        let given = kind::key_parameters(&read(json!({"loss": loss, "given-share": share})));
        assert_eq!(key(loss)["given-share"], json!(share));
        assert_eq!(key(loss), given);
    }
    assert!(!key("mae").contains_key("given-share"));
}

#[test]
fn sample_losses_are_in_the_key_only_where_they_are_kept() {
    let key = |parameters| kind::key_parameters(&read(parameters));
    let without = key(json!({"sample-losses": false}));
    assert_eq!(without, key(json!({})));
    assert!(!without.contains_key("sample-losses"));
    assert_eq!(key(json!({"sample-losses": true}))["sample-losses"], json!(true));
}

#[test]
fn a_plain_validation_is_not_in_the_key() {
    let key =
        |transform: &str| kind::key_parameters(&read(json!({"validation-transform": transform})));
    assert_eq!(key("plain"), kind::key_parameters(&read(json!({}))));
    assert!(!key("plain").contains_key("validation-transform"));
    assert_eq!(key("training")["validation-transform"], json!("training"));
}

#[test]
fn the_choice_of_a_model_is_in_the_key_only_where_it_is_not_the_last() {
    let key = |parameters| kind::key_parameters(&read(parameters));
    let usual = json!({"select-best": "last", "validation-labels": "clean"});
    assert_eq!(key(usual), key(json!({})));
    for (name, value) in [("select-best", "validation"), ("validation-labels", "given")] {
        assert!(!key(json!({})).contains_key(name));
        assert_eq!(key(json!({name: value}))[name], json!(value));
    }
    let given = read(json!({"validation-labels": "given"}));
    assert!(given.check(&["data", "split", "labels"]).is_empty());
    let problems = given.check(&["data", "split"]);
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(problem.message.ends_with("connect 'labels', or drop 'validation-labels'"));
}

#[test]
fn only_a_mean_has_a_newer_version() {
    let version = |select: &str, precision: &str| {
        read(json!({"select-best": select, "precision": precision})).version()
    };
    for (select, versions) in [("last", [6, 7]), ("validation", [6, 7]), ("average", [7, 8])] {
        assert_eq!(["f32", "tf32"].map(|precision| version(select, precision)), versions.map(Some));
    }
}

#[test]
fn what_is_for_samples_that_are_held_out_needs_some() {
    for (name, value) in [
        ("select-best", "validation"),
        ("validation-labels", "given"),
        ("validation-transform", "training"),
    ] {
        let stage = read(json!({name: value}));
        let problems = stage.check(&["data", "labels"]);
        let [problem] = problems.as_slice() else { panic!("{name}: {problems:?}") };
        assert_eq!(problem.field, name);
        assert!(problem.message.ends_with(&format!("connect 'split', or drop '{name}'")));
        assert!(stage.check(&["data", "labels", "split"]).is_empty(), "{name}");
    }
}

#[test]
fn a_term_of_elr_plus_that_does_not_rise_is_not_in_the_key() {
    let key = |share: f64| {
        kind::key_parameters(&read(json!({"method": "elr-plus", "regularization-ramp-up": share})))
    };
    assert!(!key(0.0).contains_key("regularization-ramp-up"));
    assert_eq!(key(0.4)["regularization-ramp-up"], json!(0.4));
}

#[test]
fn losses_of_one_epoch_are_not_in_the_key() {
    let key = |epochs: u32| {
        kind::key_parameters(&read(json!({"method": "dividemix", "loss-epochs": epochs})))
    };
    assert_eq!(key(1), kind::key_parameters(&read(json!({"method": "dividemix"}))));
    assert!(!key(1).contains_key("loss-epochs"));
    assert_eq!(key(5)["loss-epochs"], json!(5));
}

#[test]
fn mixup_is_in_the_key_only_where_images_are_mixed() {
    let key = |parameters| kind::key_parameters(&read(parameters));
    assert!(!key(json!({})).contains_key("mixup"));
    assert_eq!(key(json!({"mixup": 1.0}))["mixup"], json!(1.0));
    assert_eq!(key(json!({"mixup": 0})), key(json!({})));
    for (method, alpha) in [("dividemix", 4.0), ("elr-plus", 1.0)] {
        let without = key(json!({"method": method}));
        assert!(!without.contains_key("mixup"));
        assert_eq!(key(json!({"method": method, "mixup": alpha})), without, "{method}");
        assert_eq!(key(json!({"method": method, "mixup": 2.0}))["mixup"], json!(2.0));
        assert_eq!(key(json!({"method": method, "mixup": 0}))["mixup"], json!(0.0));
    }
}

#[test]
fn images_are_mixed_by_a_number_of_some_size_or_not_at_all() {
    let check = |mixup: f64| read(json!({"mixup": mixup})).check(&[]).len();
    assert_eq!([0.0, 1e-4, 1e-3, 1e3].map(check), [0, 1, 0, 0]);
    let mixed = |method: &str, mixup: Value| {
        let Train { method, mixup, .. } = read(json!({"method": method, "mixup": mixup}));
        method.mixup(mixup)
    };
    for (method, usual) in [("finetune", None), ("dividemix", Some(4.0)), ("elr-plus", Some(1.0))] {
        assert_eq!(mixed(method, json!(0)), None, "{method}");
        assert_eq!(mixed(method, Value::Null), usual, "{method}");
        assert_eq!(mixed(method, json!(0.5)), Some(0.5), "{method}");
    }
}

#[test]
fn views_that_are_the_same_are_not_compared() {
    for (name, without, with, changes) in [
        ("consistency", 0.0, 0.9, json!({"method": "sop"})),
        ("views", 1.0, 2.0, json!({"loss": "jensen-shannon"})),
    ] {
        let check = |augmentation: &str, value: f64| {
            let mut stage = changes.clone();
            stage["augmentation"] = json!(augmentation);
            stage[name] = if name == "views" { json!(value as u32) } else { json!(value) };
            let problems = read(stage).check(&[]).into_iter();
            problems.map(|problem| problem.field).collect::<Vec<_>>()
        };
        assert_eq!(check("none", with), [name]);
        assert!(check("none", without).is_empty() && check("flip", with).is_empty(), "{name}");
    }
    // DivideMix mixes its views, each with another image.
    let divided = read(json!({"method": "dividemix", "augmentation": "none"}));
    assert!(divided.check(&[]).is_empty());
}

#[test]
fn a_meta_weight_net_needs_samples_to_learn_from() {
    let stage = read(json!({"method": "meta-weight-net"}));
    assert_eq!(stage.check(&["data"]).len(), 1);
    assert!(stage.check(&["data", "split"]).is_empty());
    let own = read(json!({"method": "meta-weight-net", "meta-samples": "training"}));
    assert!(own.check(&["data"]).is_empty());
}

#[test]
fn clean_labels_are_used_where_they_decide() {
    use CleanLabels::{Decide, Judge, Unused};

    let port = |name: &str, held_out_is_clean| {
        (name.to_owned(), Known { held_out_is_clean, ..Known::default() })
    };
    let inputs = |labels, split| KnownInputs::new([port("labels", labels), port("split", split)]);
    let noisy = inputs(Some(false), None);
    for (parameters, expected) in [
        (json!({}), Judge),
        (json!({"method": "meta-weight-net"}), Decide),
        (json!({"method": "meta-weight-net", "meta-samples": "training"}), Judge),
        (json!({"method": "forward-correction"}), Judge),
        (json!({"method": "forward-correction", "transition": "known"}), Decide),
        (json!({"transition": "known"}), Judge),
        (json!({"select-best": "average"}), Judge),
        (json!({"select-best": "validation"}), Decide),
        (json!({"validation-labels": "given"}), Unused),
        (json!({"select-best": "validation", "validation-labels": "given"}), Unused),
    ] {
        assert_eq!(read(parameters.clone()).clean_labels(&noisy), expected, "{parameters}");
    }
    let given = read(json!({"select-best": "validation", "validation-labels": "given"}));
    for (labels, split, expected) in [
        (Some(true), None, Decide),
        (Some(false), Some(true), Decide),
        (None, Some(true), Unused),
        (None, None, Unused),
    ] {
        let used = given.clean_labels(&inputs(labels, split));
        assert_eq!(used, expected, "labels {labels:?}, split {split:?}");
    }
    for (split, expected) in [(None, [Unused, Unused]), (Some(true), [Judge, Decide])] {
        let own = KnownInputs::new([port("split", split)]);
        let used = ["last", "validation"]
            .map(|select| read(json!({"select-best": select})).clean_labels(&own));
        assert_eq!(used, expected, "the data set's own labels, split {split:?}");
    }
    let without_split =
        |labels| read(json!({})).clean_labels(&KnownInputs::new([port("labels", labels)]));
    assert_eq!([Some(true), Some(false), None].map(without_split), [Decide, Unused, Unused]);
}

#[test]
fn over_parameterization_has_a_loss_of_its_own() {
    for method in ["sop", "forward-correction", "dividemix"] {
        let check = |loss: &str| read(json!({"method": method, "loss": loss})).check(&[]).len();
        assert_eq!([check("cross-entropy"), check("mae")], [0, 1], "{method}");
    }
}

#[test]
fn all_samples_are_divided_in_time() {
    let check = |changes: Value| {
        let mut stage = json!({"method": "dividemix", "epochs": 11});
        stage.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        read(stage).check(&[]).iter().map(|problem| problem.field.clone()).collect::<Vec<_>>()
    };
    assert!(check(json!({})).is_empty());
    assert_eq!(check(json!({"warmup-epochs": 11})), ["warmup-epochs"]);
    assert_eq!(check(json!({"warmup-epochs": 9, "loss-epochs": 3})), ["loss-epochs"]);
    assert_eq!(check(json!({"warmup-epochs": 9, "loss-epochs": 2})), [""; 0]);
    let balanced = check(json!({"sampling": "class-balanced", "samples-per-epoch": 20}));
    assert_eq!(balanced, ["sampling", "samples-per-epoch"]);
}

#[test]
fn a_truncated_loss_is_bounded_and_truncated_in_time() {
    let check = |loss: &str, epochs: u32| {
        let stage = json!({"method": "truncated-loss", "loss": loss, "epochs": epochs});
        read(stage).check(&[]).len()
    };
    let loss = "generalized-cross-entropy";
    assert_eq!([check(loss, 41), check(loss, 40), check("mae", 41)], [0, 1, 1]);
}

#[test]
fn a_matrix_is_counted_read_or_estimated_in_time() {
    let check = |transition: &str, epochs: u32, connected: &[&str]| {
        let stage = json!({
            "method": "forward-correction", "transition": transition, "epochs": epochs,
        });
        read(stage).check(connected).len()
    };
    assert_eq!([check("known", 5, &["labels"]), check("known", 5, &[])], [0, 1]);
    assert_eq!([check("estimated", 11, &[]), check("estimated", 10, &[])], [0, 1]);
    assert_eq!(check("file", 5, &[]), 1);
}

#[test]
fn of_a_matrix_in_a_file_the_content_counts() {
    let stage = |transition: &str| {
        let stage =
            json!({"method": "forward-correction", "transition": transition, "matrix": "a.csv"});
        read(stage)
    };
    let from_a_file = stage("file");
    assert!(from_a_file.check(&[]).is_empty());
    assert_eq!(from_a_file.outside_paths(), [OutsidePath::matrix("matrix", "a.csv")]);
    assert_eq!(stage("estimated").outside_paths(), []);
    let given = json!({"transition": "file", "matrix": "a.csv"});
    let key = from_a_file.key_parameters(given.as_object().unwrap().clone());
    assert_eq!(Value::Object(key), json!({"transition": "file"}));
}

#[test]
fn small_moves_are_for_images_of_the_data_sets_own_size() {
    let check = |stage: Value| read(stage).check(&[]).len();
    assert_eq!(check(json!({"augmentation": "crop-flip", "image-size": 64})), 1);
    assert_eq!(check(json!({"augmentation": "crop-flip"})), 0);
    assert_eq!(check(json!({"augmentation": "resize-crop-flip", "image-size": 64})), 0);
}

#[test]
fn balanced_epochs_need_a_length() {
    assert_eq!(read(json!({"sampling": "class-balanced"})).check(&[]).len(), 1);
    let whole = json!({"sampling": "class-balanced", "samples-per-epoch": 128_000});
    assert!(read(whole).check(&[]).is_empty());
}
