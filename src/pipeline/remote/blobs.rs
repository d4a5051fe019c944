//! How the bytes of files are kept: compressed where that helps, as they are elsewhere.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::index::WINDOW_LOG;
use super::name::Encoding;
use crate::cache::{Bucket, Cache};
use crate::digest::Digest;

/// How much of a file is compressed to see whether that helps: at its beginning, in its middle and at its end.
const SAMPLE_BYTES: usize = 64 << 10;

/// It helps where at most so many hundredths are left.
const HELPS_BELOW: usize = 90;

/// Fast, and most of what stronger levels save.
const LEVEL: i32 = 3;

/// How much is read at once.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// How many bytes more than its content something compressed may have that cannot be made smaller: a hundredth, and these.
const MOST_OVERHEAD: u64 = 1 << 20;

/// How the bytes of a file are kept.
pub(super) fn encoding_of(file: &File, bytes: u64) -> io::Result<Encoding> {
    let mut sample = vec![0; SAMPLE_BYTES];
    let (mut read, mut left) = (0, 0);
    for part in 0..3 {
        let at = bytes.saturating_sub(SAMPLE_BYTES as u64) / 2 * part;
        let count = file.read_at(&mut sample, at)?;
        read += count;
        left += zstd::bulk::compress(&sample[..count], 1)?.len();
    }
    Ok(if left * 100 <= read * HELPS_BELOW { Encoding::Zstd } else { Encoding::Plain })
}

/// What is compressed for a remote, in a file without a name.
pub(super) struct Compressed {
    encoder: zstd::Encoder<'static, File>,
}

impl Compressed {
    /// Begins, on the disk of the cache, or else where temporary files are.
    pub(super) fn begin(cache: &Cache) -> io::Result<Self> {
        let file = tempfile::tempfile_in(cache.layout().bucket(Bucket::Tmp));
        let file = file.or_else(|_| tempfile::tempfile())?;
        Ok(Self { encoder: zstd::Encoder::new(file, LEVEL)? })
    }

    /// Adds a file, and returns the digest of its bytes.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK_BYTES.min(file.metadata()?.len() as usize + 1)];
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                return Ok(hasher.finalize().into());
            }
            hasher.update(&block[..count]);
            self.encoder.write_all(&block[..count])?;
        }
    }

    /// The file, and how many bytes it has.
    pub(super) fn finish(self) -> io::Result<(File, u64)> {
        let mut file = self.encoder.finish()?;
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok((file, bytes))
    }
}

/// The content, this many bytes, that is compressed in what a reader has.
pub(super) fn decoded<R: Read>(reader: R, bytes: u64) -> io::Result<impl Read> {
    // Blocks with nothing in them need not end.
    let reader = reader.take(bytes.saturating_add(bytes / 100 + MOST_OVERHEAD));
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(BLOCK_BYTES, reader))?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compression_makes_smaller_is_compressed() {
        let encoding = |content: &[u8]| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(content).expect("writable");
            encoding_of(&file, content.len() as u64).expect("readable")
        };
        let mut random = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        assert_eq!(encoding(&random), Encoding::Plain);
        assert_eq!(encoding(&vec![7; 1 << 20]), Encoding::Zstd);
        // A header that compresses well, before much that does not.
        random[..4096].fill(0);
        assert_eq!(encoding(&random), Encoding::Plain);
        random[..SAMPLE_BYTES].fill(0);
        assert_eq!(encoding(&random), Encoding::Zstd, "a third of what is looked at");
    }
}
