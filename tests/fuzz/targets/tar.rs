//! A tar archive, also compressed, unpacked. Those that are not compressed get the checksums of their headers here, which no
//! fuzzer can guess.

use pipeline_stages::ArtifactType;
use serde_json::json;

use crate::scratch::Scratch;

/// The bytes of a header; content is filled up to a multiple.
const BLOCK: usize = 512;
/// Where the size and the checksum are in a header (POSIX.1-1988, ustar).
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let is_compressed = [&b"\x1f\x8b"[..], b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    if is_compressed.iter().any(|beginning| bytes.starts_with(beginning)) {
        return unpack("auto", bytes);
    }
    unpack("tar", &with_checksums(bytes))
}

fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    let mut rest = archive.as_mut_slice();
    while let Some((header, behind)) = rest.split_first_chunk_mut::<BLOCK>() {
        let size = std::str::from_utf8(&header[SIZE])
            .ok()
            .and_then(|digits| usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok());
        // Zeros are the end, and have no checksum.
        if header.iter().any(|&byte| byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let content = size.unwrap_or(0).next_multiple_of(BLOCK);
        rest = behind.get_mut(content..).unwrap_or_default();
    }
    archive
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
