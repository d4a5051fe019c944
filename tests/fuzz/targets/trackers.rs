//! The answers of MLflow.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::fuzzing::read_tracker_answer(bytes)
}
