//! What the scripts in `tests/reference` and the tests here share: numbers by a formula, and comparisons.

// Every test uses its part.
#![allow(dead_code)]

use pipeline_learn::network::NetworkState;
use serde_json::Value;
use tch::{Kind, Tensor};

/// The formula `fill` of the script.
pub fn fill(shape: &[i64], stream: usize, low: f64, high: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = (0..count)
        .map(|index| {
            let phase = 12.9898 * (index as f64 + 1.0) + 78.233 * (stream as f64 + 1.0);
            let scaled = phase.sin() * 43758.5453;
            (low + (high - low) * (scaled - scaled.floor())) as f32
        })
        .collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// Sets every tensor, in the order of the state dict; the first one by this stream.
pub fn fill_state(state: &NetworkState, first_stream: usize) {
    let _no_gradients = tch::no_grad_guard();
    for (index, named) in state.tensors().iter().enumerate() {
        let (name, shape, stream) = (&named.name, named.tensor.size(), first_stream + index);
        let values = if name.ends_with("num_batches_tracked") {
            continue;
        } else if name.starts_with("weighting.") || name == "cls_token" || name == "pos_embed" {
            fill(&shape, stream, -1.0, 1.0)
        } else if shape.len() > 1 {
            let bound = (6.0 / shape[1..].iter().product::<i64>() as f64).sqrt();
            fill(&shape, stream, -bound, bound)
        } else if name.ends_with("running_var") || name.ends_with("weight") {
            fill(&shape, stream, 0.5, 1.5)
        } else {
            fill(&shape, stream, -0.2, 0.2)
        };
        named.tensor.shallow_clone().copy_(&values);
    }
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}

/// The numbers of a tensor.
pub fn flat(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).flatten(0, -1)).expect("one dimension")
}

/// Within `tolerance` of the largest number there is.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |largest, number| largest.max(number.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(error < tolerance, "{what} [{index}]: {found}, expected {expected}");
    }
}

/// A list of texts.
pub fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("a text")).collect()
}
