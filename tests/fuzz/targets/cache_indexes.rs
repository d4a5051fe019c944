//! What a cache keeps for the next run: an index of its plan, and of digests by stat.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline::fuzzing::read_cache_index(bytes)
}
