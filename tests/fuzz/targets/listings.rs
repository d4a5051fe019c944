//! The listing of an artifact.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::fuzzing::read_listing(bytes)
}
