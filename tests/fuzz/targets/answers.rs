//! The answers of an object store.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::testing::read_store_answer(bytes)
}
