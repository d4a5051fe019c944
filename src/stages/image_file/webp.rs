//! What the decoder of WebP takes from a file unchecked: the length of the EXIF data, and the size of a frame in a larger
//! file. It would allocate gigabytes for a few bytes.

use image::metadata::Orientation;

/// How to rotate the image, by the first EXIF chunk that is whole.
pub(super) fn orientation(file: &[u8]) -> Orientation {
    // The signature, then chunks: name, length, content, filled up to an even length.
    let mut rest = file.get(12..).unwrap_or_default();
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let [name @ .., a, b, c, d] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if name == *b"EXIF" {
            let content = behind.get(..length).unwrap_or_default();
            return Orientation::from_exif_chunk(content).unwrap_or(Orientation::NoTransforms);
        }
        rest = behind.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    Orientation::NoTransforms
}

/// Whether no lossy frame claims more pixels than the whole image has, wherever in the file it is.
pub(super) fn frames_fit(file: &[u8], pixels: u64) -> bool {
    // Name and length, three bytes, the mark of a key frame, width and height with two bits of scale each.
    file.windows(18).filter(|frame| frame.starts_with(b"VP8 ")).all(|frame| {
        let &[.., 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = frame else { return true };
        let [width, height] = [[w0, w1], [h0, h1]].map(|side| u16::from_le_bytes(side) & 0x3fff);
        u64::from(width) * u64::from(height) <= pixels
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file of these chunks.
    fn webp(chunks: &[(&[u8; 4], u32, &[u8])]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
        for (name, length, content) in chunks {
            file.extend(*name);
            file.extend(length.to_le_bytes());
            file.extend(*content);
        }
        file
    }

    /// EXIF data with one entry: the orientation.
    fn exif(value: u8) -> Vec<u8> {
        let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, value, 0, 0, 0];
        [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat()
    }

    #[test]
    fn the_orientation_is_read_from_whole_exif_data_only() {
        let turned = exif(6);
        let length = turned.len() as u32;
        let before: (&[u8; 4], u32, &[u8]) = (b"VP8L", 3, b"abc\0");
        for (chunks, expected) in [
            (&[(b"EXIF", length, &turned[..])][..], Orientation::Rotate90),
            (&[before, (b"EXIF", length, &turned)], Orientation::Rotate90),
            (&[(b"EXIF", length + 1, &turned)], Orientation::NoTransforms),
            (&[(b"EXIF", u32::MAX, &turned)], Orientation::NoTransforms),
            (&[(b"VP8L", u32::MAX, b""), (b"EXIF", length, &turned)], Orientation::NoTransforms),
            (&[before], Orientation::NoTransforms),
        ] {
            assert_eq!(orientation(&webp(chunks)), expected, "{chunks:?}");
        }
        assert_eq!(orientation(b"RIFF"), Orientation::NoTransforms);
    }

    #[test]
    fn a_frame_is_not_larger_than_its_image() {
        // 300 by 2 pixels, and two bits of scale.
        let frame = b"\x10\0\0\x9d\x01\x2a\x2c\x41\x02\0data";
        let file = webp(&[(b"VP8X", 10, &[0; 10]), (b"VP8 ", frame.len() as u32, frame)]);
        assert!(frames_fit(&file, 600) && !frames_fit(&file, 599));
        assert!(frames_fit(b"", 0));
    }
}
