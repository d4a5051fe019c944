//! A JPEG, PNG or WebP file, checked to be whole and decoded.

use pipeline_stages::image_file::ImageFile;

pub(crate) fn read(bytes: &[u8]) -> bool {
    pipeline_prepare::fuzzing::decode_image(bytes)
}

/// The pixels that the header claims, which stages wait for, with what decoders take beside them: up to three times as
/// much, and 16 MiB that the header of a part of a lossy WebP file can claim.
pub(crate) fn most_memory(bytes: &[u8]) -> usize {
    let claimed = ImageFile::open(bytes).map_or(0, |image| image.decoded_bytes());
    let claimed = usize::try_from(claimed.min(512 << 20)).unwrap_or(usize::MAX);
    4 * claimed + 2 * bytes.len() + (32 << 20)
}
