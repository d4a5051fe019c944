//! Tar archives: each entry, by its type, into the destination.
//!
//! Does not depend on compression, nor on what can be written where.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use anyhow::{Context as _, bail, ensure};
use tar::{Archive, Entry, EntryType};

use super::destination::{Destination, Permission};

/// The most bytes between the content of one file and the next: headers, long names, PAX records.
/// They are read into memory, so a small compressed archive could otherwise claim all of it.
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// Unpacks all entries, then reads on to the end, so that a checksum of the compression is checked.
pub(super) fn unpack(reader: impl Read, destination: &mut Destination) -> anyhow::Result<()> {
    let meter = Rc::new(Meter::default());
    let mut archive = Archive::new(Metered { reader, meter: Rc::clone(&meter) });
    let mut entries = archive.entries().context("cannot read it")?;
    loop {
        meter.header_bytes_left.set(Some(MOST_HEADER_BYTES));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.context("a header is damaged, or the archive is cut off")?;
        meter.header_bytes_left.set(None);
        unpack_entry(&mut entry, destination)?;
        match entry.header().entry_type() {
            EntryType::GNUSparse => destination.skip_sparse(&mut entry)?,
            _ => destination.skip(&mut entry)?,
        }
    }
    if meter.ended.get() {
        destination.note("the tar archive has no end mark: if files are missing, it was cut off");
    }
    meter.header_bytes_left.set(None);
    destination.skip(&mut archive.into_inner())
}

fn unpack_entry(entry: &mut Entry<impl Read>, destination: &mut Destination) -> anyhow::Result<()> {
    let name = entry.path_bytes().into_owned();
    let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
    refuse_pax_sparse(entry, &shown)?;
    match entry.header().entry_type() {
        // Before POSIX, a folder was a file whose name ended in a slash.
        EntryType::Regular | EntryType::Directory if name.ends_with(b"/") => {
            destination.folder(&name)
        }
        EntryType::Directory => destination.folder(&name),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mode = entry
                .header()
                .mode()
                .with_context(|| format!("the mode of '{shown}' is damaged"))?;
            destination.file(&name, Permission::of_mode(mode), entry)
        }
        EntryType::Symlink => destination.symbolic_link(&name, &link_target(entry, &shown)?),
        EntryType::Link => destination.hard_link(&name, &link_target(entry, &shown)?),
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            bail!("refused '{shown}': it is a device file or a pipe, not data")
        }
        EntryType::XGlobalHeader => Ok(()),
        other => bail!(
            "'{shown}' is of a type ('{}') that cannot be unpacked",
            char::from(other.as_byte()).escape_debug()
        ),
    }
}

fn link_target(entry: &Entry<impl Read>, shown: &str) -> anyhow::Result<Vec<u8>> {
    let target =
        entry.link_name_bytes().with_context(|| format!("the link '{shown}' has no target"))?;
    Ok(target.into_owned())
}

/// A sparse file in this form would be unpacked as its map and its pieces, under a generated name.
fn refuse_pax_sparse(entry: &mut Entry<impl Read>, shown: &str) -> anyhow::Result<()> {
    let Some(extensions) = entry.pax_extensions().context("a PAX header is damaged")? else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension.context("a PAX header is damaged")?;
        ensure!(
            !extension.key_bytes().starts_with(b"GNU.sparse."),
            "'{shown}' is a sparse file in PAX form, which cannot be unpacked: pack it without --sparse"
        );
    }
    Ok(())
}

/// The state of the bytes that the tar reader reads.
#[derive(Default)]
struct Meter {
    /// While a header is read: how many more bytes it can have.
    header_bytes_left: Cell<Option<u64>>,
    /// Whether the archive ended where a header should have been.
    ended: Cell<bool>,
}

struct Metered<R> {
    reader: R,
    meter: Rc<Meter>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let Some(left) = self.meter.header_bytes_left.get() else { return Ok(read) };
        if read == 0 && !buffer.is_empty() {
            self.meter.ended.set(true);
        }
        let Some(left) = left.checked_sub(read as u64) else {
            return Err(std::io::Error::other(format!(
                "a header of more than {MOST_HEADER_BYTES} bytes"
            )));
        };
        self.meter.header_bytes_left.set(Some(left));
        Ok(read)
    }
}
