//! Bits of entropy-coded data, and the Huffman codes in them.

use super::damage::{CUT_OFF, Damage};

/// Codes of at most this length are found in one step.
const LOOKAHEAD: u32 = 9;

const NO_CODE: Damage = "it is damaged: an unknown code in its data";

/// A Huffman table (T.81, section C).
pub(super) struct HuffmanTable {
    /// For the next bits: the length of the code that they start with, and its symbol; 0 if it is longer.
    short: Vec<(u8, u8)>,
    /// Per length: the code after the last one, shifted to 16 bits.
    ends: [u32; 17],
    /// Per length: the offset from a code to the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl HuffmanTable {
    /// From the number of codes of each length and their symbols. `None` if there are more than possible.
    pub(super) fn new(counts: [u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            short: vec![(0, 0); 1 << LOOKAHEAD],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, count) in (1_u32..).zip(counts) {
            let last = code + u32::from(count);
            if last > 1 << length {
                return None;
            }
            *table.offsets.get_mut(length as usize)? = place as i32 - code as i32;
            for code in code..last {
                if length <= LOOKAHEAD {
                    let first = (code << (LOOKAHEAD - length)) as usize;
                    let covered = 1 << (LOOKAHEAD - length);
                    table
                        .short
                        .get_mut(first..first + covered)?
                        .fill((length as u8, *symbols.get(place)?));
                }
                place += 1;
            }
            *table.ends.get_mut(length as usize)? = last << (16 - length);
            code = last << 1;
        }
        Some(table)
    }
}

/// The bits of one piece of entropy-coded data: up to a marker or the end of the file.
pub(super) struct Bits<'file> {
    rest: &'file [u8],
    /// Bits that were read; the next one is the highest.
    buffer: u64,
    available: u32,
    /// Whether a taken bit was one since this was cleared.
    pub(super) any_one: bool,
}

impl<'file> Bits<'file> {
    pub(super) fn new(rest: &'file [u8]) -> Self {
        Self { rest, buffer: 0, available: 0, any_one: false }
    }

    fn fill(&mut self) {
        while self.available <= 48 {
            let byte = match self.rest {
                [0xff, 0, behind @ ..] => {
                    self.rest = behind;
                    0xff
                }
                // A marker, or the end of the file.
                [] | [0xff, ..] => return,
                [byte, behind @ ..] => {
                    self.rest = behind;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.available);
            self.available += 8;
        }
    }

    /// Takes up to 16 bits.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Damage> {
        if count == 0 {
            return Ok(0);
        }
        if self.available < count {
            self.fill();
            if self.available < count {
                return Err(CUT_OFF);
            }
        }
        let bits = (self.buffer >> (64 - count)) as u32;
        self.buffer <<= count;
        self.available -= count;
        self.any_one |= bits != 0;
        Ok(bits)
    }

    /// Skips any number of bits.
    pub(super) fn skip(&mut self, count: u32) -> Result<(), Damage> {
        let mut left = count;
        while left > 0 {
            self.take(left.min(16))?;
            left -= left.min(16);
        }
        Ok(())
    }

    /// Takes a code and returns its symbol.
    pub(super) fn symbol(&mut self, table: &HuffmanTable) -> Result<u8, Damage> {
        if self.available < 16 {
            self.fill();
        }
        let next = (self.buffer >> 48) as u32;
        let (length, symbol) =
            table.short.get((next >> (16 - LOOKAHEAD)) as usize).copied().unwrap_or_default();
        if length > 0 {
            self.take(length.into())?;
            return Ok(symbol);
        }
        for length in LOOKAHEAD + 1..=16 {
            let end = table.ends.get(length as usize).copied().unwrap_or_default();
            if next < end {
                let code = self.take(length)?;
                let offset = table.offsets.get(length as usize).copied().unwrap_or_default();
                let place = usize::try_from(code as i32 + offset).map_err(|_| NO_CODE)?;
                return table.symbols.get(place).copied().ok_or(NO_CODE);
            }
        }
        Err(if self.available < 16 { CUT_OFF } else { NO_CODE })
    }

    /// The bytes after the last byte of which bits were taken.
    pub(super) fn after(&self, whole: &'file [u8]) -> &'file [u8] {
        // Whole bytes that were read ahead: each is one byte in the file, or two if it is 0xff.
        let mut unread = self.available / 8;
        let mut start = whole.len() - self.rest.len();
        while unread > 0 {
            start -=
                if start >= 2 && whole.get(start - 2..start) == Some(&[0xff, 0]) { 2 } else { 1 };
            unread -= 1;
        }
        whole.get(start..).unwrap_or_default()
    }
}
