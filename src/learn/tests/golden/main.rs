//! The numbers of PyTorch and torchvision: networks, training, images; and those of this very version.
//!
//! The scripts in `tests/reference/learn` make the files; inputs come from the same formula there.

mod co_teaching;
mod divide_mix;
mod elr_plus;
mod formula;
mod images;
mod methods;
mod networks;
mod purification;
mod results;
mod training;
mod vit;

use std::sync::{LazyLock, Mutex};

use serde_json::Value;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/vectors.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

static TRAINING: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/training.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

static METHODS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/methods.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

/// Who sets libtorch's threads, which are those of the whole process.
static THREADS: Mutex<()> = Mutex::new(());
