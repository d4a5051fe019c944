//! A batch of images as NumPy writes it with `savez`: a zip archive of `data.npy`, u8 [N, C*H*W] or [N,C,H,W], and `labels.npy`.
//!
//! Read sequentially, block by block: the images need not fit in memory.
//! Source of the format: NumPy's documentation, `numpy.lib.format`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::formats::ImageShape;
use pipeline_stages::text::shortened;
use zip::ZipArchive;
use zip::result::ZipError;

use super::array_shape::check_shape;
use crate::zip_error::describe;
use crate::zip_names::{RepeatedNames, occur_twice};

/// Headers of plain arrays, with three entries, are shorter.
const MOST_HEADER_BYTES: usize = 1 << 16;
/// More labels than any such file has, even all of ImageNet's: 16 MB.
const MOST_LABELS: usize = 2_000_000;
/// Images read at a time.
const BLOCK: usize = 1000;

/// An open archive.
pub(super) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens an archive.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let archive =
            ZipArchive::new(BufReader::new(file)).map_err(describe).with_context(|| {
                format!("{} is not a complete .npz file, which is a zip archive", path.display())
            })?;
        if archive.has_duplicate_names() {
            let directory = archive.central_directory_start();
            let repeated = RepeatedNames::read(&mut archive.into_inner(), directory);
            let repeated = repeated.with_context(|| format!("cannot read {}", path.display()))?.all;
            bail!("{}: {}", path.display(), occur_twice(&repeated));
        }
        Ok(Self { path: path.to_owned(), archive })
    }

    /// The labels as they are in the archive.
    ///
    /// # Errors
    /// When they are missing, cut off or not integers.
    pub(super) fn labels(&mut self) -> anyhow::Result<Vec<i64>> {
        self.with_array("labels.npy", |array, bytes| {
            let count = array.shape.iter().copied().try_fold(1, usize::checked_mul);
            let count = count.filter(|&count| count <= MOST_LABELS);
            let count =
                count.with_context(|| format!("an array of the shape {:?}", array.shape))?;
            let element = IntegerType::of(&array.element)?;
            let bytes = read_exactly(bytes, count * element.size)?;
            let integers = bytes.chunks_exact(element.size).map(|bytes| element.integer(bytes));
            integers.collect::<Option<_>>().context("an integer does not fit in 64 bits")
        })
    }

    /// Passes the pixels of `count` images, u8 [n,C,H,W], block by block to `take`, until it has
    /// enough.
    ///
    /// # Errors
    /// When they are missing, cut off, damaged or of another shape; those of `take`.
    pub(super) fn images(
        &mut self,
        count: usize,
        image: ImageShape,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<Reading>,
    ) -> anyhow::Result<()> {
        self.with_array("data.npy", |array, bytes| {
            ensure!(
                array.element.trim_start_matches('|') == "u1",
                "its elements are of the type '{}', not unsigned bytes ('|u1')",
                array.element
            );
            check_shape(&array.shape, count, image)
                .map_err(|problem| anyhow!("it has {problem}"))?;
            ensure!(!array.fortran_order, "it is stored column by column (fortran_order)");
            let mut left = count;
            while left > 0 {
                let block = read_exactly(bytes, left.min(BLOCK) * image.bytes())?;
                left -= left.min(BLOCK);
                if take(&block)? == Reading::Enough {
                    return Ok(());
                }
            }
            let rest = read_up_to(bytes, 1)?;
            ensure!(rest.is_empty(), "it continues after the last image");
            Ok(())
        })
    }

    /// Opens one of the arrays; errors name it.
    fn with_array<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&ArrayHeader, &mut dyn Read) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let place = format!("{}: {name}", self.path.display());
        let mut entry = match self.archive.by_name(name) {
            Err(ZipError::FileNotFound) => bail!("{} has no {name}", self.path.display()),
            entry => entry.map_err(describe).with_context(|| place.clone())?,
        };
        let array = ArrayHeader::read(&mut entry).with_context(|| place.clone())?;
        read(&array, &mut entry).with_context(|| place)
    }
}

/// Whether to continue reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Continue.
    More,
    /// Skip the rest.
    Enough,
}

/// The header of an array: a Python dictionary of three entries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ArrayHeader {
    /// `descr`: byte order, type and size, such as `<i8`.
    element: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl ArrayHeader {
    fn read(bytes: &mut dyn Read) -> anyhow::Result<Self> {
        let start = read_up_to(bytes, 8)?;
        let &[0x93, b'N', b'U', b'M', b'P', b'Y', version, _] = start.as_slice() else {
            bail!("it is not an array of NumPy (.npy)");
        };
        let length = match version {
            1 => usize::from(u16::from_le_bytes(array(bytes)?)),
            2 | 3 => u32::from_le_bytes(array(bytes)?) as usize,
            _ => bail!("version {version} of the format .npy is not supported"),
        };
        ensure!(length <= MOST_HEADER_BYTES, "its header has {length} bytes, which is too long");
        let text = read_exactly(bytes, length)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text)
            .with_context(|| format!("its header cannot be read: {}", shortened(text.trim())))
    }

    /// From `{'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Option<Self> {
        let after = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}'"))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let (element, _) = after("descr")?.strip_prefix('\'')?.split_once('\'')?;
        let order = after("fortran_order")?;
        let fortran_order = order.starts_with("True");
        let (shape, _) = after("shape")?.strip_prefix('(')?.split_once(')')?;
        let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
        let shape = lengths.map(|length| length.parse().ok()).collect::<Option<_>>()?;
        (fortran_order || order.starts_with("False")).then(|| Self {
            element: element.to_owned(),
            fortran_order,
            shape,
        })
    }
}

/// A type of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IntegerType {
    size: usize,
    signed: bool,
    big_endian: bool,
}

impl IntegerType {
    fn of(element: &str) -> anyhow::Result<Self> {
        let (signed, size) = match element.trim_start_matches(['<', '>', '|', '=']) {
            "i1" => (true, 1),
            "i2" => (true, 2),
            "i4" => (true, 4),
            "i8" => (true, 8),
            "u1" => (false, 1),
            "u2" => (false, 2),
            "u4" => (false, 4),
            "u8" => (false, 8),
            _ => bail!("its elements are of the type '{element}', not integers"),
        };
        Ok(Self { size, signed, big_endian: element.starts_with('>') })
    }

    /// From the bytes of one; `None` beyond what an `i64` holds.
    fn integer(self, bytes: &[u8]) -> Option<i64> {
        let mut wide = [0; 8];
        wide.iter_mut().zip(bytes).for_each(|(wide, &byte)| *wide = byte);
        if self.big_endian {
            wide.iter_mut().zip(bytes.iter().rev()).for_each(|(wide, &byte)| *wide = byte);
        }
        if !self.signed {
            return i64::try_from(u64::from_le_bytes(wide)).ok();
        }
        let unused = 64 - 8 * self.size as u32;
        Some(i64::from_le_bytes(wide) << unused >> unused)
    }
}

fn read_up_to(bytes: &mut dyn Read, count: usize) -> anyhow::Result<Vec<u8>> {
    // Grows with the bytes that exist: a header that promises too many must not take the memory.
    let mut read = Vec::with_capacity(count.min(1 << 22));
    bytes.take(count as u64).read_to_end(&mut read).context("it is damaged or cut off")?;
    Ok(read)
}

fn read_exactly(bytes: &mut dyn Read, count: usize) -> anyhow::Result<Vec<u8>> {
    let read = read_up_to(bytes, count)?;
    ensure!(read.len() == count, "it ends {} bytes too early", count - read.len());
    Ok(read)
}

fn array<const COUNT: usize>(bytes: &mut dyn Read) -> anyhow::Result<[u8; COUNT]> {
    let read = read_exactly(bytes, COUNT)?;
    read.try_into().map_err(|_| anyhow!("it ends within its header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_any_numpy_version_are_read() {
        let header = |text| ArrayHeader::parse(text);
        let expected = |element: &str, fortran_order, shape: &[usize]| {
            Some(ArrayHeader { element: element.to_owned(), fortran_order, shape: shape.to_vec() })
        };
        let usual = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 4), }";
        assert_eq!(header(usual), expected("|u1", false, &[3, 4]));
        let one = "{'shape': (7,), 'fortran_order': True,'descr':'<i8'}   \n";
        assert_eq!(header(one), expected("<i8", true, &[7]));
        let none = "{'descr': '<i8', 'fortran_order': False, 'shape': (), }";
        assert_eq!(header(none), expected("<i8", false, &[]));
        for wrong in [
            "",
            "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<i8', 'fortran_order': 0, 'shape': (3,)}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (3",
        ] {
            assert_eq!(header(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_header_does_not_fill_a_message() {
        let start = [&b"\x93NUMPY\x01\x00"[..], &60_000_u16.to_le_bytes()].concat();
        let bytes = [start, vec![b'a'; 60_000]].concat();
        let error = format!("{:#}", ArrayHeader::read(&mut bytes.as_slice()).unwrap_err());
        assert!(error.contains("its header cannot be read: aaa") && error.len() < 200, "{error}");
    }

    #[test]
    fn integers_of_any_width_and_order() {
        for (element, bytes, expected) in [
            ("<i8", &[254, 255, 255, 255, 255, 255, 255, 255][..], -2),
            (">i4", &[0, 0, 1, 2], 258),
            (">i2", &[255, 254], -2),
            ("<u2", &[255, 255], 65535),
            ("|u1", &[200], 200),
            ("|i1", &[200], -56),
            ("<u8", &[7, 1, 0, 0, 0, 0, 0, 0], 263),
        ] {
            let integer = IntegerType::of(element).unwrap().integer(bytes);
            assert_eq!(integer, Some(expected), "{element}");
        }
        assert_eq!(IntegerType::of("<u8").unwrap().integer(&[255; 8]), None);
        for element in ["<f8", "|b1", "O", ""] {
            assert!(IntegerType::of(element).is_err(), "{element}");
        }
    }
}
