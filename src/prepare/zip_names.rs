//! Names that occur several times in a zip archive, which the library does not list.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom};

use pipeline_stages::text::in_short;

/// The most names that a message names.
const NAMED: usize = 8;

/// The names that occur several times, for messages.
#[derive(Debug, Default)]
pub(crate) struct RepeatedNames {
    /// All of them.
    pub(crate) all: BTreeSet<String>,
    /// Those of files whose sizes or checksums differ.
    pub(crate) different: BTreeSet<String>,
}

impl RepeatedNames {
    /// Reads the central directory, which starts at `directory`.
    pub(crate) fn read(reader: &mut (impl Read + Seek), directory: u64) -> std::io::Result<Self> {
        reader.seek(SeekFrom::Start(directory))?;
        let mut contents: HashMap<Vec<u8>, [u8; 12]> = HashMap::new();
        let mut repeated = Self::default();
        let mut header = [0; 46];
        // PKWARE's APPNOTE 6.3, section 4.3.12.
        while reader.read_exact(&mut header).is_ok() && header.starts_with(b"PK\x01\x02") {
            let word = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
            let mut name = Vec::new();
            reader.by_ref().take(word(28)).read_to_end(&mut name)?;
            reader.seek_relative((word(30) + word(32)).cast_signed())?;
            let mut content = [0; 12];
            content.copy_from_slice(&header[16..28]);
            // Its compressed size is not a part of the content.
            content[4..8].fill(0);
            let shown = || format!("'{}'", String::from_utf8_lossy(&name).escape_debug());
            match contents.get(&name) {
                Some(first) => {
                    if *first != content && !name.ends_with(b"/") {
                        repeated.different.insert(shown());
                    }
                    repeated.all.insert(shown());
                }
                None => drop(contents.insert(name, content)),
            }
        }
        Ok(repeated)
    }
}

/// `'a', 'b' occur twice in the archive`
pub(crate) fn occur_twice(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "two files of the archive have the same name".to_owned();
    }
    let verb = if names.len() == 1 { "occurs" } else { "occur" };
    format!("{} {verb} twice in the archive", in_short(names, NAMED))
}
