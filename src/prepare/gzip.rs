//! Decompresses gzip: members one after the other, and the zeros after the last one that tapes and block devices
//! leave.
//!
//! Does not depend on archives.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

use flate2::bufread::GzDecoder;

/// The content of a gzip file (RFC 1952) of one or several members, after which zeros can follow.
pub(crate) struct GzipReader<R> {
    /// `None` after the last member.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    /// Reads `reader` to its end.
    pub(crate) fn new(reader: R) -> Self {
        Self { member: Some(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(mut member) = self.member.take() {
            let read = member.read(buffer);
            if !matches!(read, Ok(0)) {
                self.member = Some(member);
                return read;
            }
            let mut rest = member.into_inner();
            self.member = another_follows(&mut rest)?.then(|| GzDecoder::new(rest));
        }
        Ok(0)
    }
}

/// Whether another member follows; skips zeros at the end.
fn another_follows(rest: &mut impl BufRead) -> Result<bool> {
    let mut padded = false;
    loop {
        let bytes = match rest.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        match (bytes.len(), zeros) {
            (0, _) => return Ok(false),
            (length, zeros) if zeros == length => {
                padded = true;
                rest.consume(zeros);
            }
            (_, 0) if !padded => return Ok(true),
            _ => {
                let message = "there is more data after the zeros at the end of the gzip data";
                return Err(Error::new(ErrorKind::InvalidData, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::samples::gzip;

    fn read(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        // A small buffer, so that its ends fall anywhere.
        let reader = BufReader::with_capacity(7, bytes);
        GzipReader::new(reader).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn members_are_read_one_after_the_other_and_zeros_end_them() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        for zeros in [0, 1, 6, 7, 8, 1000] {
            let bytes = [two.as_slice(), &vec![0; zeros]].concat();
            assert_eq!(read(&bytes).expect("good data"), b"one two", "{zeros} zeros");
        }
        assert_eq!(read(&gzip(b"")).expect("good data"), b"");
    }

    #[test]
    fn anything_else_is_an_error() {
        let good = gzip(b"numbers");
        let end = &good[..good.len() - 3];
        for bytes in [
            end.to_vec(),
            [good.as_slice(), b"garbage"].concat(),
            [good.as_slice(), &[0; 20], b"garbage"].concat(),
            [good.as_slice(), &[0; 20], &good].concat(),
            [good.as_slice(), &good[..5]].concat(),
            Vec::new(),
            vec![0; 20],
        ] {
            read(&bytes).expect_err("it is damaged");
        }
    }
}
