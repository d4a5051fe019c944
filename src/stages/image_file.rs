//! Image files in memory: which formats are read, how large an image may be, and how one becomes pixels.
//!
//! For stages that make a data set or decode its images. Does not depend on a format of data sets.

mod webp;

use std::cell::Cell;
use std::fmt;
use std::io::{Cursor, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFileFormat {
    /// Baseline and progressive, with Huffman coding.
    Jpeg,
    /// With any depth and colour type.
    Png,
    /// Lossy and lossless; of an animation, the first image.
    Webp,
}

impl ImageFileFormat {
    /// The extensions of such files, in lower case.
    pub const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

    /// By the first bytes of a file: wrong extensions are common.
    pub(crate) fn of(file: &[u8]) -> Option<Self> {
        match file {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ => None,
        }
    }

    fn decoder(self) -> ImageFormat {
        match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::Webp => ImageFormat::WebP,
        }
    }
}

/// Why a file cannot be used as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProblem {
    /// It has no bytes.
    Empty,
    /// Its first bytes are those of another format.
    OtherFormat,
    /// Its header claims zero pixels, or more than allowed.
    Size {
        /// As in the header.
        width: u32,
        /// As in the header.
        height: u32,
    },
    /// It ends too early.
    CutOff,
    /// Its content is invalid.
    Damaged,
    /// It uses a feature of its format that is not supported.
    Unsupported,
}

impl fmt::Display for ImageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty"),
            Self::OtherFormat => {
                f.write_str("it is not a JPEG, PNG or WebP file, going by its first bytes")
            }
            Self::Size { width, height } => {
                write!(f, "its header claims {width}x{height} pixels, which is too large to decode")
            }
            Self::CutOff => f.write_str("it is cut off"),
            Self::Damaged => f.write_str("it is damaged"),
            Self::Unsupported => f.write_str(
                "it is of a kind that is not supported, such as a JPEG with arithmetic coding: save it again with \
                 another program",
            ),
        }
    }
}

impl std::error::Error for ImageProblem {}

impl From<ImageError> for ImageProblem {
    // The messages of the library are for programmers.
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Unsupported(_) => Self::Unsupported,
            ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => Self::CutOff,
            _ => Self::Damaged,
        }
    }
}

/// An image whose header was read.
pub struct ImageFile<'f> {
    /// By its first bytes.
    pub format: ImageFileFormat,
    /// Pixels from left to right, before it is rotated.
    pub width: u32,
    /// Pixels from top to bottom, before it is rotated.
    pub height: u32,
    file: &'f [u8],
    decoder: Box<dyn ImageDecoder + 'f>,
}

impl<'f> ImageFile<'f> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// When it is not an image of a known format, or its header is damaged.
    pub fn open(file: &'f [u8]) -> Result<Self, ImageProblem> {
        if file.is_empty() {
            return Err(ImageProblem::Empty);
        }
        let format = ImageFileFormat::of(file).ok_or(ImageProblem::OtherFormat)?;
        let reader = ImageReader::with_format(Cursor::new(file), format.decoder());
        let decoder: Box<dyn ImageDecoder + 'f> = caught(|| Ok(Box::new(reader.into_decoder()?)))?;
        let (width, height) = decoder.dimensions();
        let opened = Self { format, width, height, file, decoder };
        let is_webp = format == ImageFileFormat::Webp;
        if is_webp && !webp::frames_fit(file, opened.pixels()) {
            return Err(ImageProblem::Damaged);
        }
        Ok(opened)
    }

    /// How many pixels the header claims.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Whether it has no colours.
    pub fn is_grey(&self) -> bool {
        !self.decoder.color_type().has_color()
    }

    /// How many bytes the pixels take once decoded.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoder.total_bytes()
    }

    /// Checks that it has pixels, and no more than `most`.
    pub fn check_size(&self, most: u64) -> Result<(), ImageProblem> {
        let Self { width, height, .. } = *self;
        let fits = (1..=most).contains(&self.pixels());
        if fits { Ok(()) } else { Err(ImageProblem::Size { width, height }) }
    }

    /// The pixels as they are stored, and how to rotate them (from the EXIF data).
    pub fn decode(mut self) -> Result<(DynamicImage, Orientation), ImageProblem> {
        let orientation = match self.format {
            ImageFileFormat::Webp => webp::orientation(self.file),
            ImageFileFormat::Jpeg | ImageFileFormat::Png => {
                caught(|| Ok(self.decoder.orientation()?))?
            }
        };
        let image = caught(|| Ok(DynamicImage::from_decoder(self.decoder)?))?;
        Ok((image, orientation))
    }
}

std::thread_local! {
    /// Whether a panic in this thread would be that of a decoder.
    static DECODES: Cell<bool> = const { Cell::new(false) };
}

/// From then on, nothing is said about panics of decoders, and nothing is done: a trace of calls alone takes more memory than an image.
static QUIET: Once = Once::new();

/// What a decoder makes of a file. It is a library's, and one that it panics about is damaged.
fn caught<T>(decode: impl FnOnce() -> Result<T, ImageProblem>) -> Result<T, ImageProblem> {
    QUIET.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !DECODES.get() {
                others(panic);
            }
        }));
    });
    DECODES.set(true);
    // Whatever it has left in a wrong state is dropped.
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode));
    DECODES.set(false);
    decoded.unwrap_or(Err(ImageProblem::Damaged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_about_which_a_decoder_panics_is_damaged() {
        let found = "../../tests/fuzz/found/images/frames-that-differ.jpg";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(found);
        let file = std::fs::read(path).unwrap();
        let decoded = ImageFile::open(&file).and_then(ImageFile::decode);
        assert_eq!(decoded.unwrap_err(), ImageProblem::Damaged);
    }
}
