//! A pickle, with all that can be asked about its values.

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline_prepare::fuzzing::read_pickle(bytes)
}
