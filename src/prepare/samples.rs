//! For tests: files in formats that several rooms read.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("memory does not fail")
}

/// A zip archive of these entries.
pub(crate) fn zipped(entries: &[(&str, &[u8])], compressed: bool) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let method = if compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    for (name, content) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The file of an image.
pub(crate) fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The folder of the manifests that come with the program.
pub(crate) fn pipelines() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../pipelines")
}

/// Unpacks the data of the quickstart: 5,000 training and 1,000 test images of Fashion-MNIST.
pub(crate) fn unpack_fashion_mnist(folder: &Path) {
    let archive = std::fs::File::open(pipelines().join("data/fashion-mnist-6k.zip")).unwrap();
    ZipArchive::new(archive).unwrap().extract(folder).unwrap();
}
