//! One scan: all of its blocks must be in its data, between restart marks if it has any.

use super::bits::{Bits, HuffmanTable};
use super::damage::{BAD_HEADER, CUT_OFF, Damage};

const TOO_FAR: Damage = "it is damaged: a block with too many coefficients";
const LEFT_OVER: Damage = "it is damaged: more data than it has blocks";
const HOLE: Damage = "it is damaged: a hole of zeros in its data";
const NO_RESTART: Damage = "it is damaged: a restart mark is missing";
/// Zeros that some cameras write after a scan.
const MOST_PADDING: usize = 3;
/// A block with this many coefficients is never all zero bits: the coefficients would all be the same.
const MANY_COEFFICIENTS: u32 = 32;
/// The largest difference in 8-bit images has this many bits.
const MOST_DC_BITS: u8 = 11;

/// A colour channel.
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks of an MCU, across and down.
    sampling: [usize; 2],
    /// MCUs of the image, across and down.
    mcus: [usize; 2],
    /// Blocks of the channel, across and down, without those that only fill MCUs.
    blocks: [usize; 2],
    /// Of a progressive image: which coefficients of each block are not zero.
    nonzero: Vec<u64>,
    /// Whether there was a scan of it.
    pub(super) seen: bool,
}

impl Component {
    pub(super) fn new(
        id: u8,
        sampling: [usize; 2],
        mcus: [usize; 2],
        blocks: [usize; 2],
        progressive: bool,
    ) -> Self {
        let all = mcus.iter().product::<usize>() * sampling.iter().product::<usize>();
        let nonzero = vec![0; if progressive { all } else { 0 }];
        Self { id, sampling, mcus, blocks, nonzero, seen: false }
    }
}

/// A channel in a scan, and the tables that it uses.
pub(super) struct ScanComponent<'t> {
    pub(super) component: usize,
    pub(super) dc: Option<&'t HuffmanTable>,
    pub(super) ac: Option<&'t HuffmanTable>,
}

/// What a scan has of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All of it.
    Sequential,
    /// Of a progressive image: its mean, or another bit of it.
    Dc { refines: bool },
    /// Of a progressive image: some other coefficients, or another bit of them.
    Ac { start: u32, end: u32, refines: bool },
}

/// The content of a scan header.
pub(super) struct Scan<'t> {
    pub(super) parts: Vec<ScanComponent<'t>>,
    pub(super) kind: Kind,
}

impl Scan<'_> {
    /// Reads the scan's data and returns what follows.
    ///
    /// # Errors
    /// When there is too little or too much, or it cannot be what an encoder wrote.
    pub(super) fn check<'file>(
        &self,
        components: &mut [Component],
        restart_interval: usize,
        data: &'file [u8],
    ) -> Result<&'file [u8], Damage> {
        let first = self.parts.first().and_then(|part| components.get(part.component));
        let first = first.ok_or(BAD_HEADER)?;
        let interleaved = self.parts.len() > 1;
        let [across, down] = if interleaved { first.mcus } else { first.blocks };
        let mut piece = Piece::new(data);
        for mcu in 0..across * down {
            if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
                let restarts = (mcu / restart_interval - 1) % 8;
                let mark = [0xff, 0xd0 + restarts as u8];
                piece = Piece::new(piece.end()?.strip_prefix(&mark).ok_or(NO_RESTART)?);
            }
            let (x, y) = (mcu % across, mcu / across);
            for part in &self.parts {
                let component = components.get_mut(part.component).ok_or(BAD_HEADER)?;
                let [wide, high] = if interleaved { component.sampling } else { [1, 1] };
                let stride = component.mcus[0] * component.sampling[0];
                for (row, column) in (0..high).flat_map(|row| (0..wide).map(move |it| (row, it))) {
                    let block = (y * high + row) * stride + x * wide + column;
                    let nonzero = component.nonzero.get_mut(block);
                    piece.check_block(self.kind, part, nonzero)?;
                }
            }
        }
        let has_mean = !matches!(self.kind, Kind::Ac { .. });
        for part in &self.parts {
            if let Some(component) = components.get_mut(part.component) {
                component.seen |= has_mean;
            }
        }
        piece.end()
    }
}

/// The data from the start of a scan or a restart mark.
struct Piece<'file> {
    whole: &'file [u8],
    bits: Bits<'file>,
    /// How many of the next blocks have no more coefficients in an AC scan.
    empty_blocks: u32,
}

impl<'file> Piece<'file> {
    fn new(whole: &'file [u8]) -> Self {
        Self { whole, bits: Bits::new(whole), empty_blocks: 0 }
    }

    /// What follows: a marker, or the end of the file.
    fn end(&self) -> Result<&'file [u8], Damage> {
        if self.empty_blocks > 0 {
            return Err(LEFT_OVER);
        }
        let rest = self.bits.after(self.whole);
        let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
        let rest = rest.get(zeros.min(MOST_PADDING)..).unwrap_or_default();
        match rest {
            [] => Err(CUT_OFF),
            [0xff, next, ..] if *next != 0 => {
                let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
                Ok(rest.get(fill - 1..).unwrap_or_default())
            }
            [0xff] => Err(CUT_OFF),
            _ => Err(LEFT_OVER),
        }
    }

    fn check_block(
        &mut self,
        kind: Kind,
        part: &ScanComponent<'_>,
        nonzero: Option<&mut u64>,
    ) -> Result<(), Damage> {
        let dc = || part.dc.ok_or(BAD_HEADER);
        let ac = || part.ac.ok_or(BAD_HEADER);
        match kind {
            Kind::Sequential => {
                self.bits.any_one = false;
                self.difference(dc()?)?;
                let found = self.coefficients(ac()?, 1, 63, Runs::End)?;
                self.refuse_hole(found)
            }
            Kind::Dc { refines: false } => self.difference(dc()?),
            Kind::Dc { refines: true } => self.bits.skip(1),
            Kind::Ac { start, end, refines: false } => {
                if self.empty_blocks > 0 {
                    self.empty_blocks -= 1;
                    return Ok(());
                }
                self.bits.any_one = false;
                let found = self.coefficients(ac()?, start, end, Runs::OfBlocks)?;
                *nonzero.ok_or(BAD_HEADER)? |= found;
                self.refuse_hole(found)
            }
            Kind::Ac { start, end, refines: true } => {
                self.refinement(ac()?, start, end, nonzero.ok_or(BAD_HEADER)?)
            }
        }
    }

    fn refuse_hole(&self, found: u64) -> Result<(), Damage> {
        let hole = !self.bits.any_one && found.count_ones() >= MANY_COEFFICIENTS;
        if hole { Err(HOLE) } else { Ok(()) }
    }

    fn difference(&mut self, table: &HuffmanTable) -> Result<(), Damage> {
        let size = self.bits.symbol(table)?;
        if size > MOST_DC_BITS {
            return Err("it is damaged: a difference between blocks that is too large");
        }
        self.bits.skip(size.into())
    }

    /// Coefficients from `start` to `end`; returns which ones are not zero.
    fn coefficients(
        &mut self,
        table: &HuffmanTable,
        start: u32,
        end: u32,
        runs: Runs,
    ) -> Result<u64, Damage> {
        let (mut place, mut found) = (start, 0_u64);
        while place <= end {
            let symbol = self.bits.symbol(table)?;
            let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, size) {
                (15, 0) => place += 16,
                (_, 0) => {
                    if runs == Runs::OfBlocks {
                        self.empty_blocks = (1 << zeros) + self.bits.take(zeros)? - 1;
                    }
                    break;
                }
                _ => {
                    place += zeros;
                    if place > end {
                        return Err(TOO_FAR);
                    }
                    self.bits.skip(size)?;
                    found |= 1 << place;
                    place += 1;
                }
            }
        }
        Ok(found)
    }

    /// Another bit of the coefficients from `start` to `end`, and new ones that were zero until now.
    fn refinement(
        &mut self,
        table: &HuffmanTable,
        start: u32,
        end: u32,
        nonzero: &mut u64,
    ) -> Result<(), Damage> {
        let (mut place, mut found) = (start, 0_u64);
        self.bits.any_one = false;
        while place <= end && self.empty_blocks == 0 {
            let symbol = self.bits.symbol(table)?;
            let (mut zeros, size) = (u32::from(symbol >> 4), symbol & 15);
            match (zeros, size) {
                (15, 0) => {}
                (_, 0) => {
                    self.empty_blocks = (1 << zeros) + self.bits.take(zeros)?;
                    break;
                }
                _ => self.bits.skip(1)?,
            }
            // Skips this many zeros, and refines the other coefficients in between.
            let mut to_refine = 0;
            while place <= end {
                if *nonzero >> place & 1 == 1 {
                    to_refine += 1;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                place += 1;
            }
            self.bits.skip(to_refine)?;
            if size > 0 {
                if place > end {
                    return Err(TOO_FAR);
                }
                found |= 1 << place;
            }
            place += 1;
        }
        self.refuse_hole(found)?;
        if self.empty_blocks > 0 {
            self.empty_blocks -= 1;
            if place <= end {
                let rest = (u64::MAX >> (63 - end)) & (u64::MAX << place);
                self.bits.skip((*nonzero & rest).count_ones())?;
            }
        }
        *nonzero |= found;
        Ok(())
    }
}

/// The meaning of an end of a block's coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// The block ends.
    End,
    /// The block ends, and some blocks after it have no coefficients.
    OfBlocks,
}
