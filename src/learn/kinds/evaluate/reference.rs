//! The numbers of `tests/reference/evaluate/make_vectors.py`.

use std::sync::LazyLock;

use serde_json::Value;

pub(super) static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/evaluate/vectors.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

pub(super) fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}

pub(super) fn flags(value: &Value) -> Vec<bool> {
    let list = value.as_array().expect("a list");
    list.iter().map(|flag| flag.as_bool().expect("true or false")).collect()
}
