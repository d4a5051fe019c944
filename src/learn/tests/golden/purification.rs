//! Labels that features suggest, as NumPy and PyTorch find them.

use std::sync::PoisonError;

use pipeline_learn::kinds::purify_labels::found::Found;
use pipeline_learn::kinds::purify_labels::linear::{CleanSamples, Regression, largest};
use pipeline_learn::kinds::purify_labels::neighbours::Neighbours;
use pipeline_learn::kinds::purify_labels::votes::{Sizes, adaptive, most_frequent, sizes};
use serde_json::Value;
use tch::Tensor;

use crate::THREADS;
use crate::formula::{assert_close, fill, flat, numbers};

const CLASSES: usize = 4;
const SAMPLES: i64 = 60;
const CLEAN: i64 = 16;
const K: u64 = 9;
const RANGE: Sizes = Sizes { least: 3, most: 11 };

fn expected() -> Value {
    let text = include_str!("../../../../tests/reference/learn/purification.json");
    serde_json::from_str(text).expect("the vectors are JSON")
}

/// Noise, with one feature larger: that of the class.
fn features(count: i64, stream: usize) -> Tensor {
    let features = fill(&[count, 6], stream, 0.0, 1.0);
    for sample in 0..count {
        let _ = features.get(sample).get(sample % CLASSES as i64).f_add_scalar_(0.75).expect("one");
    }
    features
}

/// A third is wrong.
fn labels() -> Vec<i64> {
    let classes = CLASSES as i64;
    let label = |index| if index % 3 == 0 { index + 1 + index / 3 } else { index };
    (0..SAMPLES).map(|index| label(index) % classes).collect()
}

fn neighbours(k: u64) -> Neighbours {
    Neighbours::find(&features(SAMPLES, 90), k, |_| Ok(())).expect("there are neighbours")
}

#[track_caller]
fn assert_found(found: &[Found], expected: &Value) {
    let labels: Vec<f64> = found.iter().map(|found| found.label as f64).collect();
    assert_eq!(labels, numbers(&expected["labels"]));
    let shares: Vec<f64> = found.iter().map(|found| f64::from(found.confidence())).collect();
    assert_close(&shares, &numbers(&expected["shares"]), 1e-6, "shares");
}

#[test]
fn neighbours_vote_as_in_numpy() {
    let expected = expected();
    let nearest: Vec<Vec<u32>> = neighbours(K).iter().map(<[u32]>::to_vec).collect();
    let known: Vec<Vec<u32>> =
        serde_json::from_value(expected["neighbours"].clone()).expect("lists");
    assert_eq!(nearest, known);
    assert_found(&most_frequent(&neighbours(K), &labels(), CLASSES), &expected["most_frequent"]);
}

#[test]
fn wann_is_that_of_numpy() {
    let expected = expected();
    let neighbours = neighbours(RANGE.most as u64);
    let found = sizes(&neighbours, &labels(), CLASSES, RANGE);
    let found: Vec<f64> = found.into_iter().map(|size| size as f64).collect();
    assert_eq!(found, numbers(&expected["sizes"]));
    assert_found(&adaptive(&neighbours, &labels(), CLASSES, RANGE), &expected["adaptive"]);
}

#[test]
fn all_others_are_the_most_neighbours() {
    let all = neighbours(1000);
    assert!(all.iter().all(|nearest| nearest.len() == SAMPLES as usize - 1));
    for (sample, nearest) in all.iter().enumerate() {
        let mut others = nearest.to_vec();
        others.sort_unstable();
        let expected = (0..SAMPLES as u32).filter(|&other| other != sample as u32);
        assert_eq!(others, expected.collect::<Vec<_>>());
    }
    let range = Sizes { least: 1, most: 5000 };
    assert_eq!(adaptive(&all, &labels(), CLASSES, range).len(), SAMPLES as usize);
}

#[test]
fn regressions_are_those_of_numpy_and_pytorch() {
    let alone = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let (expected, features) = (expected(), features(SAMPLES, 90));
    let regression = Regression::new(&features, 1e-2).expect("it is regular");
    let labels = Tensor::from_slice(&labels());
    let without = regression.without_itself(&labels, CLASSES as i64).expect("it predicts");
    assert_close(&flat(&without), &numbers(&expected["without_itself"]), 1e-6, "without itself");

    let clean = CleanSamples {
        features: self::features(CLEAN, 91),
        labels: Tensor::from_slice(&(0..CLEAN).map(|index| index % 4).collect::<Vec<_>>()),
    };
    let fitted = regression.fitted_to(&clean, &labels, CLASSES as i64, 30, 0.01, |_| Ok(()));
    let fitted = fitted.expect("the labels move");
    assert_close(&flat(&fitted), &numbers(&expected["fitted"]), 1e-4, "fitted to clean samples");
    drop(alone);
}

#[test]
fn the_largest_value_is_that_of_the_label() {
    let values = Tensor::from_slice2(&[[0.25, 0.5, 0.5], [-0.5, -0.25, -1.0], [1.5, 0.0, 0.0]]);
    let found = largest(&values).expect("a matrix");
    let expected = [(1, 0.5), (1, -0.25), (0, 1.5)];
    assert_eq!(found, expected.map(|(label, value)| Found { label, value }));
}

#[test]
fn the_same_features_teach_nothing() {
    let error = Regression::new(&Tensor::ones([3, 2], tch::kind::FLOAT_CPU), 1e-3).err();
    assert!(error.expect("an error").to_string().contains("the same features"));
}
