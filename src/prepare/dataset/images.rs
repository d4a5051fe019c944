//! Image files for a data set: read, checked to be complete, decoded; unusable ones are reported together.
//!
//! Memory: regardless of what the files claim, all together stay within a [`Memory`].

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::bail;
use image::DynamicImage;
use image::metadata::Orientation;
use pipeline_stages::image_file::{ImageFile, ImageFileFormat, ImageProblem};

use super::jpeg;

/// A larger file is not an image.
pub(super) const MOST_FILE_BYTES: u64 = 1 << 28;
/// How many files an error names.
const NAMED: usize = 5;

/// The bytes of an image file, or what is wrong with it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "the file does not exist".to_owned(),
        _ => error.to_string(),
    })?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.len() > MOST_FILE_BYTES {
        return Err(format!("{} bytes are too many for an image", metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.by_ref()
        .take(MOST_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Decodes an image whose size was checked, after a check that the file is complete.
pub(super) fn decode_whole(
    file: &[u8],
    image: ImageFile<'_>,
) -> Result<(DynamicImage, Orientation), String> {
    check_whole(file, image.format)?;
    image.decode().map_err(|problem| problem.to_string())
}

/// Checks that a file is complete: decoders fill in what is missing, or do not check.
fn check_whole(file: &[u8], format: ImageFileFormat) -> Result<(), String> {
    let cut_off = || ImageProblem::CutOff.to_string();
    match format {
        ImageFileFormat::Jpeg => jpeg::check(file).map_err(str::to_owned),
        ImageFileFormat::Png => {
            // The signature, then chunks: length, name, content, checksum.
            let mut rest = file.get(8..).unwrap_or_default();
            while let Some((header, behind)) = rest.split_first_chunk::<8>() {
                let [a, b, c, d, name @ ..] = *header;
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                rest = behind.get(length.saturating_add(4)..).ok_or_else(cut_off)?;
                if name == *b"IEND" {
                    return Ok(());
                }
            }
            Err(cut_off())
        }
        ImageFileFormat::Webp => {
            let length = file.get(4..).and_then(|rest| rest.first_chunk::<4>());
            let length = length.map_or(u32::MAX, |length| u32::from_le_bytes(*length));
            if file.len() as u64 >= 8 + u64::from(length) { Ok(()) } else { Err(cut_off()) }
        }
    }
}

/// Memory that threads share: each waits until enough is available.
pub(super) struct Memory {
    total: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

impl Memory {
    /// For a stage that decodes images: 1 GiB.
    pub(super) fn for_images() -> Self {
        Self::new(1 << 30)
    }

    fn new(total: u64) -> Self {
        Self { total, free: Mutex::new(total), freed: Condvar::new() }
    }

    /// Takes this many bytes until the result is dropped. A request for more than the total waits for the total.
    pub(super) fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.total);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Taken { memory: self, bytes }
    }
}

/// A part of a [`Memory`].
pub(super) struct Taken<'m> {
    memory: &'m Memory,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.memory.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.memory.freed.notify_all();
    }
}

/// Counts images, and keeps the problems of the first unusable ones.
#[derive(Default)]
pub(super) struct Checked {
    images: usize,
    unusable: usize,
    named: Vec<String>,
}

impl Checked {
    /// How many were counted.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    /// Whether all of them are usable.
    pub(super) fn all_usable(&self) -> bool {
        self.unusable == 0
    }

    /// Counts a usable one.
    pub(super) fn usable(&mut self) {
        self.images += 1;
    }

    /// Counts an unusable one.
    pub(super) fn unusable(&mut self, path: &Path, problem: &str) {
        self.images += 1;
        self.unusable += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{}: {problem}", path.display()));
        }
    }

    /// Checks that every image is usable.
    ///
    /// # Errors
    /// With the number of unusable ones, and the first of them.
    pub(super) fn finish(self, advice: &str) -> anyhow::Result<()> {
        if self.unusable == 0 {
            return Ok(());
        }
        let more = match self.unusable - self.named.len() {
            0 => String::new(),
            more => format!("\n  and {more} more"),
        };
        bail!(
            "{} of {} images cannot be used:\n  {}{more}\n{advice}",
            self.unusable,
            self.images,
            self.named.join("\n  ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    #[test]
    fn threads_never_take_more_than_the_total() {
        let memory = Memory::new(100);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (memory, now, most) = (&memory, &now, &most);
                scope.spawn(move || {
                    for round in 0..50 {
                        let bytes = [10, 60, 100, 5_000][(thread + round) % 4];
                        let _taken = memory.take(bytes);
                        let taken = now.fetch_add(bytes.min(100), SeqCst) + bytes.min(100);
                        most.fetch_max(taken, SeqCst);
                        now.fetch_sub(bytes.min(100), SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.load(SeqCst), 100);
    }
}
