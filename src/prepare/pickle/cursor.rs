//! Reads bytes sequentially, never beyond the end.
//!
//! Does not depend on instructions.

/// A place in the bytes of a pickle.
pub(super) struct Cursor<'data> {
    data: &'data [u8],
    offset: usize,
}

impl<'data> Cursor<'data> {
    pub(super) fn new(data: &'data [u8]) -> Self {
        Self { data, offset: 0 }
    }

    /// The number of bytes read.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.data.len() - self.offset
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'data [u8], String> {
        let rest = self.data.get(self.offset..).unwrap_or_default();
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| {
            format!("it ends too early: {count} bytes should follow, but {} are left", rest.len())
        })?;
        self.offset += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| "it ends too early".to_owned())
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    /// A 32-bit count that Python writes as a signed integer.
    pub(super) fn signed_count(&mut self) -> Result<u64, String> {
        let count = i32::from_le_bytes(self.array()?);
        u64::try_from(count).map_err(|_| format!("a length of {count} bytes"))
    }

    /// The bytes up to a line feed, without it.
    pub(super) fn line(&mut self) -> Result<&'data [u8], String> {
        let rest = self.data.get(self.offset..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or("it ends within a line of text")?;
        self.offset += length + 1;
        Ok(rest.get(..length).unwrap_or_default())
    }
}
