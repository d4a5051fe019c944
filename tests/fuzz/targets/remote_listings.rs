//! What a remote says of an artifact.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::fuzzing::read_remote_listing(bytes)
}
