//! For tests: archives written byte by byte, so that they can be malicious.

use std::io::Write as _;

/// An entry of a tar archive.
#[derive(Clone)]
pub(super) struct TarEntry<'a> {
    pub(super) name: &'a [u8],
    /// The type flag: `b'0'` for a file, `b'5'` for a folder, `b'2'` for a symbolic link.
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) target: &'a [u8],
    pub(super) content: &'a [u8],
}

impl<'a> TarEntry<'a> {
    pub(super) fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self { name: name.as_bytes(), kind: b'0', mode: 0o644, target: b"", content }
    }

    pub(super) fn folder(name: &'a str) -> Self {
        Self { name: name.as_bytes(), kind: b'5', mode: 0o755, target: b"", content: b"" }
    }

    pub(super) fn symbolic_link(name: &'a str, target: &'a str) -> Self {
        Self {
            name: name.as_bytes(),
            kind: b'2',
            mode: 0o777,
            target: target.as_bytes(),
            content: b"",
        }
    }

    pub(super) fn hard_link(name: &'a str, target: &'a str) -> Self {
        Self { kind: b'1', ..Self::symbolic_link(name, target) }
    }

    /// The header (POSIX.1-1988, ustar) and the content, both in blocks of 512 bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, format!("{:011o}", self.content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, self.target);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend(self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// A tar archive with its end mark.
pub(super) fn tar(entries: &[TarEntry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(TarEntry::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

/// An entry of a zip archive, stored without compression.
#[derive(Clone)]
pub(super) struct ZipEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) mode: u32,
    pub(super) content: &'a [u8],
    /// The general purpose flags; bit 0 is set if the entry is encrypted.
    pub(super) flags: u16,
    /// The compression method; 0 for none.
    pub(super) method: u16,
    /// Shares the local entry of another one.
    pub(super) same_as: Option<usize>,
}

impl<'a> ZipEntry<'a> {
    pub(super) fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self { name: name.as_bytes(), mode: 0o100_644, content, flags: 0, method: 0, same_as: None }
    }

    pub(super) fn symbolic_link(name: &'a str, target: &'a str) -> Self {
        Self { mode: 0o120_777, ..Self::file(name, target.as_bytes()) }
    }
}

/// A zip archive (PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16).
pub(super) fn zip(entries: &[ZipEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offsets: Vec<u32> = Vec::new();
    for entry in entries {
        if let Some(other) = entry.same_as {
            offsets.push(offsets[other]);
            continue;
        }
        offsets.push(bytes.len() as u32);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(common_fields(entry));
        bytes.extend([0; 2]);
        bytes.extend(entry.name);
        bytes.extend(entry.content);
    }
    let directory = bytes.len();
    for (entry, offset) in entries.iter().zip(&offsets) {
        bytes.extend(b"PK\x01\x02");
        bytes.extend([20, 3]);
        bytes.extend(common_fields(entry));
        bytes.extend([0; 8]);
        bytes.extend((entry.mode << 16).to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(entry.name);
    }
    let (count, length) = (entries.len() as u16, (bytes.len() - directory) as u32);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend((directory as u32).to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// From the version to the length of the name.
fn common_fields(entry: &ZipEntry) -> Vec<u8> {
    let mut checksum = flate2::Crc::new();
    checksum.update(entry.content);
    let size = entry.content.len() as u32;
    let mut bytes = vec![20, 0];
    bytes.extend(entry.flags.to_le_bytes());
    bytes.extend(entry.method.to_le_bytes());
    bytes.extend([0, 0, 0x21, 0]);
    bytes.extend(checksum.sum().to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend((entry.name.len() as u16).to_le_bytes());
    bytes
}

/// Bytes that compression does not make smaller (Marsaglia's xorshift).
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 2_463_534_242_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(super) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not fail")
}

pub(super) fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory does not fail")
}
