//! The packets of SFTP, version 3: how one is made, how one is read, and what a status means.

use super::broken::{Broken, Problem};

/// Types of packets.
pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const SETSTAT: u8 = 9;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;
pub(super) const EXTENDED: u8 = 200;

/// How files are opened.
pub(super) const READ_ONLY: u32 = 0x01;
pub(super) const WRITE_NEW: u32 = 0x02 | 0x08 | 0x20;

/// Which attributes are there.
const HAS_SIZE: u32 = 0x01;
const HAS_OWNER: u32 = 0x02;
pub(super) const HAS_MODE: u32 = 0x04;
const HAS_TIMES: u32 = 0x08;

pub(super) const MODE_KIND: u32 = 0o170_000;
pub(super) const MODE_FOLDER: u32 = 0o040_000;

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    pub(super) bytes: u64,
    pub(super) mode: u32,
}

/// What a server answers with.
pub(super) struct Reply {
    pub(super) kind: u8,
    pub(super) id: u32,
    pub(super) body: Vec<u8>,
}

/// A packet that is made.
pub(super) struct Packet(pub(super) Vec<u8>);

impl Packet {
    pub(super) fn new(kind: u8, id: u32) -> Self {
        Self(vec![kind]).number(id)
    }

    pub(super) fn number(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u32).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }
}

/// A packet that is read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let cut = || Broken::useless("the server sends packets that are cut off");
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn number(&mut self) -> Result<u32, Broken> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }

    pub(super) fn long(&mut self) -> Result<u64, Broken> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().unwrap_or_default()))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let count = self.number()? as usize;
        self.take(count)
    }

    pub(super) fn text(&mut self) -> Result<String, Broken> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Broken> {
        let flags = self.number()?;
        let bytes = if flags & HAS_SIZE != 0 { self.long()? } else { 0 };
        if flags & HAS_OWNER != 0 {
            self.take(8)?;
        }
        let mode = if flags & HAS_MODE != 0 { self.number()? } else { 0 };
        if flags & HAS_TIMES != 0 {
            self.take(8)?;
        }
        Ok(Attributes { bytes, mode })
    }
}

/// Whether a status says that there is no more.
pub(super) fn is_end(body: &[u8]) -> bool {
    matches!(Fields(body).number(), Ok(1))
}

/// What a status means.
pub(super) fn status(body: &[u8]) -> Result<(), Broken> {
    let mut fields = Fields(body);
    let code = fields.number()?;
    let said = fields.text().unwrap_or_default();
    let problem = match code {
        0 => return Ok(()),
        2 => Problem::Missing,
        3 => Problem::Denied,
        _ => Problem::Other,
    };
    Err(Broken::Refused(problem, crate::visible::text(&said).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_again() {
        let packet = Packet::new(OPEN, 7).text("a/b").number(3).long(1 << 40).bytes(&[1, 2]);
        let mut fields = Fields(&packet.0);
        assert_eq!(fields.take(1).expect("a type"), [OPEN]);
        assert_eq!(fields.number().expect("an id"), 7);
        assert_eq!(fields.text().expect("a text"), "a/b");
        assert_eq!(fields.number().expect("a number"), 3);
        assert_eq!(fields.long().expect("a long number"), 1 << 40);
        assert_eq!(fields.bytes().expect("bytes"), [1, 2]);
        assert!(fields.0.is_empty());
    }

    #[test]
    fn a_packet_that_is_cut_off_anywhere_is_an_error() {
        let whole = Packet(Vec::new()).number(HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES);
        let whole = whole.long(9).long(0).number(0o100_644).long(0).0;
        let read = |bytes: &[u8]| Fields(bytes).attributes();
        let attributes = Attributes { bytes: 9, mode: 0o100_644 };
        assert_eq!(read(&whole).expect("whole"), attributes);
        for length in 0..whole.len() {
            assert!(matches!(read(&whole[..length]), Err(Broken::Connection(_))), "{length}");
        }
        // A length that leads beyond the end.
        assert!(Fields(&[0xff; 8]).bytes().is_err());
    }

    #[test]
    fn what_a_status_means() {
        let of = |code: u32| Packet(Vec::new()).number(code).text("in words").text("en").0;
        assert!(status(&of(0)).is_ok());
        assert!(is_end(&of(1)) && !is_end(&of(0)) && !is_end(b""));
        for (code, expected) in [(2, Problem::Missing), (3, Problem::Denied), (4, Problem::Other)] {
            let Err(Broken::Refused(problem, words)) = status(&of(code)) else { panic!("{code}") };
            assert_eq!((problem, words.as_str()), (expected, "in words"));
        }
        // A server need not say anything.
        let bare = Packet(Vec::new()).number(3).0;
        assert!(matches!(status(&bare), Err(Broken::Refused(Problem::Denied, _))));
    }
}
