//! The listing of an artifact.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::testing::read_listing(bytes)
}
