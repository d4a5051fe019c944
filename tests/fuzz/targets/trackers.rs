//! The answers of MLflow.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::testing::read_tracker_answer(bytes)
}
