//! A checkpoint of any format. A pickle is also read as that of an archive, whose checksums no fuzzer can guess.

use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let archive = if bytes.starts_with(b"PK") { Vec::new() } else { as_archive(bytes) };
    [bytes, &archive].map(pipeline_prepare::fuzzing::read_checkpoint).contains(&true)
}

/// An archive as PyTorch's, with this pickle and two storages.
fn as_archive(pickle: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("data.pkl", pickle), ("data/0", &[1; 16]), ("data/1", &[2; 64])] {
        archive.start_file(format!("archive/{name}"), stored).expect("memory does not fail");
        archive.write_all(content).expect("memory does not fail");
    }
    archive.finish().expect("memory does not fail").into_inner()
}
