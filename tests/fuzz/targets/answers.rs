//! The answers of an object store, and headers of any server.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::testing::read_store_answer(bytes) | pipeline::testing::read_header(bytes)
}
