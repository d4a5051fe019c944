//! Whether a JPEG file is complete. Decoders fill missing parts with grey and do not report them.
//!
//! Reads the file like a decoder, without computing pixels: the entropy-coded data must have every block of every
//! scan, and nothing else. Supports baseline, extended and progressive files with Huffman coding. Other files
//! (arithmetic coding, lossless) pass: the decoder refuses them.
//!
//! | file | here | Pillow, torchvision |
//! |---|---|---|
//! | cut off anywhere, including within the end mark | damaged | an error |
//! | without the end mark | damaged: more scans could be missing | an error |
//! | cut off, with an end mark after that | damaged | grey, no error |
//! | a hole of zeros | damaged | garbage, no error |
//! | anything after the end mark | complete | complete |
//! | up to three zeros, fill bytes or a restart mark between a scan and the next mark | complete | complete |
//!
//! Source: ITU-T T.81, sections B (marks), F.2 and G.2 (decoding).

mod bits;
mod damage;
mod scan;
#[cfg(test)]
mod tests;

use bits::HuffmanTable;
use damage::{BAD_HEADER, CUT_OFF, Damage, NO_MARK};
use scan::{Component, Kind, Scan, ScanComponent};

/// The most that the decoder accepts.
const MOST_SCANS: usize = 100;

/// Checks a file from its first byte to its end mark.
pub(super) fn check(file: &[u8]) -> Result<(), Damage> {
    let mut reader = Reader { rest: file.strip_prefix(&[0xff, 0xd8]).ok_or(NO_MARK)? };
    let (mut tables, mut frame) = (Tables::default(), None);
    let (mut restart_interval, mut scans) = (0, 0);
    loop {
        match reader.marker()? {
            0xd9 => break,
            0xd0..=0xd7 | 0x01 => {}
            0xc4 => tables.add(reader.segment()?)?,
            0xdb => check_quantization(reader.segment()?)?,
            0xdd => {
                let interval = reader.segment()?.first_chunk::<2>().ok_or(BAD_HEADER)?;
                restart_interval = usize::from(u16::from_be_bytes(*interval));
            }
            marker @ 0xc0..=0xc2 if frame.is_none() => {
                frame = Some(Frame::new(marker == 0xc2, reader.segment()?)?);
            }
            0xc0..=0xc2 => return Err(BAD_HEADER),
            0xc3 | 0xc5..=0xcf => return Ok(()),
            0xda => {
                scans += 1;
                if scans > MOST_SCANS {
                    return Err("it has too many scans");
                }
                let frame = frame.as_mut().ok_or(BAD_HEADER)?;
                let scan = frame.scan(reader.segment()?, &tables)?;
                reader.rest = scan.check(&mut frame.components, restart_interval, reader.rest)?;
            }
            _ => drop(reader.segment()?),
        }
    }
    let seen = |frame: &Frame| frame.components.iter().all(|component| component.seen);
    if frame.as_ref().is_some_and(seen) { Ok(()) } else { Err("a part of the image is missing") }
}

/// The rest of the file from some place.
struct Reader<'file> {
    rest: &'file [u8],
}

impl<'file> Reader<'file> {
    /// The next marker; fill bytes before it are skipped.
    fn marker(&mut self) -> Result<u8, Damage> {
        let fill = self.rest.iter().take_while(|&&byte| byte == 0xff).count();
        match self.rest.get(fill) {
            None => Err(CUT_OFF),
            Some(_) if fill == 0 => Err(NO_MARK),
            Some(0) => Err(NO_MARK),
            Some(&marker) => {
                self.rest = &self.rest[fill + 1..];
                Ok(marker)
            }
        }
    }

    /// The content of a segment, after its length.
    fn segment(&mut self) -> Result<&'file [u8], Damage> {
        let (&length, behind) = self.rest.split_first_chunk::<2>().ok_or(CUT_OFF)?;
        let length = usize::from(u16::from_be_bytes(length)).checked_sub(2).ok_or(BAD_HEADER)?;
        let (content, rest) = behind.split_at_checked(length).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(content)
    }
}

/// The current Huffman tables, by their numbers.
#[derive(Default)]
struct Tables {
    dc: [Option<HuffmanTable>; 4],
    ac: [Option<HuffmanTable>; 4],
}

impl Tables {
    fn add(&mut self, mut content: &[u8]) -> Result<(), Damage> {
        while let Some((&place, behind)) = content.split_first() {
            let (&counts, behind) = behind.split_first_chunk::<16>().ok_or(BAD_HEADER)?;
            let symbols = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, behind) = behind.split_at_checked(symbols).ok_or(BAD_HEADER)?;
            let tables = if place >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(usize::from(place & 15)).ok_or(BAD_HEADER)?;
            *slot = Some(HuffmanTable::new(counts, symbols).ok_or(BAD_HEADER)?);
            content = behind;
        }
        Ok(())
    }
}

/// The content of the frame header.
struct Frame {
    progressive: bool,
    components: Vec<Component>,
}

impl Frame {
    fn new(progressive: bool, content: &[u8]) -> Result<Self, Damage> {
        let &[_precision, h1, h0, w1, w0, count, ref components @ ..] = content else {
            return Err(BAD_HEADER);
        };
        let height = usize::from(u16::from_be_bytes([h1, h0]));
        let width = usize::from(u16::from_be_bytes([w1, w0]));
        let (components, rest) = components.as_chunks::<3>();
        let sampling = |&[_, both, _]: &[u8; 3]| [both >> 4, both & 15].map(usize::from);
        let in_range = |component| sampling(component).iter().all(|side| (1..=4).contains(side));
        let valid = (1..=4).contains(&count)
            && components.len() == usize::from(count)
            && rest.is_empty()
            && width * height > 0
            && components.iter().all(in_range);
        if !valid {
            return Err(BAD_HEADER);
        }
        let most = |side: usize| components.iter().map(|it| sampling(it)[side]).max().unwrap_or(1);
        let most = [most(0), most(1)];
        let mcus = [width.div_ceil(8 * most[0]), height.div_ceil(8 * most[1])];
        let component = |it: &[u8; 3]| {
            let [across, down] = sampling(it);
            let blocks =
                [(width * across).div_ceil(8 * most[0]), (height * down).div_ceil(8 * most[1])];
            Component::new(it[0], [across, down], mcus, blocks, progressive)
        };
        Ok(Self { progressive, components: components.iter().map(component).collect() })
    }

    /// The content of a scan header.
    fn scan<'t>(&self, content: &[u8], tables: &'t Tables) -> Result<Scan<'t>, Damage> {
        let (&count, behind) = content.split_first().ok_or(BAD_HEADER)?;
        let (parts, behind) = behind.split_at_checked(2 * usize::from(count)).ok_or(BAD_HEADER)?;
        let &[start, end, approximation] = behind else { return Err(BAD_HEADER) };
        let part = |&[id, numbers]: &[u8; 2]| {
            let component = self.components.iter().position(|component| component.id == id)?;
            let dc = tables.dc.get(usize::from(numbers >> 4)).and_then(Option::as_ref);
            let ac = tables.ac.get(usize::from(numbers & 15)).and_then(Option::as_ref);
            Some(ScanComponent { component, dc, ac })
        };
        let parts: Option<Vec<ScanComponent<'_>>> =
            parts.as_chunks::<2>().0.iter().map(part).collect();
        let parts = parts.filter(|parts| (1..=4).contains(&parts.len())).ok_or(BAD_HEADER)?;
        let kind = match (self.progressive, start, approximation >> 4) {
            (false, ..) => Kind::Sequential,
            (true, 0, refines) if end == 0 => Kind::Dc { refines: refines != 0 },
            (true, 1.., refines) if start <= end && end <= 63 && parts.len() == 1 => {
                Kind::Ac { start: start.into(), end: end.into(), refines: refines != 0 }
            }
            _ => return Err(BAD_HEADER),
        };
        Ok(Scan { parts, kind })
    }
}

/// A step of zero would make the whole image grey.
fn check_quantization(mut content: &[u8]) -> Result<(), Damage> {
    while let Some((&place, behind)) = content.split_first() {
        let bytes = if place >> 4 == 0 { 1 } else { 2 };
        let (steps, behind) = behind.split_at_checked(64 * bytes).ok_or(BAD_HEADER)?;
        if steps.chunks_exact(bytes).any(|step| step.iter().all(|&byte| byte == 0)) {
            return Err(BAD_HEADER);
        }
        content = behind;
    }
    Ok(())
}
