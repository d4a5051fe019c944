//! A manifest: read, checked, and every mistake shown.

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let scratch = Scratch::new();
    let path = scratch.write("pipeline.toml", bytes);
    let read = pipeline::fuzzing::read_manifest(&path);
    if let Err(mistakes) = &read {
        assert!(!mistakes.contains("it is a bug in `pipeline`"), "{mistakes}");
    }
    read.is_ok()
}
