//! For tests: the vectors in `tests/reference/`, which NumPy and PyTorch wrote.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// The path of a file in `tests/reference/`.
pub(crate) fn reference_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference").join(name)
}

/// The SHA-256, in hexadecimal, of numbers as little-endian 64-bit integers: `sha256(array.tobytes())` in NumPy.
pub(crate) fn digest(numbers: &[i64]) -> String {
    let mut hash = Sha256::new();
    for number in numbers {
        hash.update(number.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
