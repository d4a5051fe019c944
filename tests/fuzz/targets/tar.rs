//! A tar archive, also compressed, unpacked.

use pipeline_stages::ArtifactType;
use serde_json::json;

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let is_compressed = [&b"\x1f\x8b"[..], b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    let is_compressed = is_compressed.iter().any(|beginning| bytes.starts_with(beginning));
    unpack(if is_compressed { "auto" } else { "tar" }, bytes)
}

/// Unpacks into a folder; whether the archive is valid. Nothing may change beside it, and no link in it may lead out.
pub(crate) fn unpack(format: &str, bytes: &[u8]) -> bool {
    let scratch = Scratch::new();
    scratch.write("input/a.archive", bytes);
    let limits = json!({"format": format, "max-bytes": 1_000_000, "max-files": 100});
    let unpacked = scratch.run("unpack", "archive", ArtifactType::File, &limits);
    let output = scratch.path().join("output");
    let mut around = 0;
    for path in scratch.paths() {
        if path.starts_with(&output) {
            let real = path.canonicalize();
            let leads_out = real.is_ok_and(|real| !real.starts_with(&output));
            assert!(!leads_out, "{} leads out", path.display());
        } else {
            around += 1;
        }
    }
    assert_eq!(around, 4, "the three other folders and the archive");
    unpacked
}
