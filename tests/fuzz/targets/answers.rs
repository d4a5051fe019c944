//! The answers of an object store, and headers of any server.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::fuzzing::read_store_answer(bytes) | pipeline::fuzzing::read_header(bytes)
}
