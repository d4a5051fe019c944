//! What fuzzing needs beside the program itself: the readers of bytes from elsewhere, one call each. Only with the feature `fuzzing`.

use std::fs::File;
use std::path::Path;

use anyhow::bail;
use pipeline_stages::message::{Event, Request};

use crate::cache::{Listing, Record, is_stat_index};
use crate::diagnostic::Colour;
use crate::execute::{are_job_files, survives};
use crate::history::Run;
use crate::key::StageKey;
use crate::manifest;
use crate::plan_index::is_plan_index;
use crate::remote::{are_replies, is_answer, is_for_s3, is_header, is_index};
use crate::tracking;
use crate::worker::is_hello;

/// Reads a manifest and what it includes.
///
/// # Errors
/// With its mistakes, as they are shown.
pub fn read_manifest(path: &Path) -> Result<(), String> {
    manifest::read(path, &[]).map(drop).map_err(|mistakes| mistakes.render(Colour::Always))
}

/// Reads the bytes of a record; whether it is a whole one of its key.
pub fn read_record(bytes: &[u8]) -> bool {
    Record::parse(bytes).is_some_and(|record| StageKey::of(&record.parts) == record.key)
}

/// Reads the bytes of the record of a run; whether it has a beginning.
pub fn read_run(bytes: &[u8]) -> bool {
    Run::parse("20261127-120000", bytes, false).is_some()
}

/// Reads the bytes of a listing, and compares it with itself and with an empty one; whether it is one.
pub fn read_listing(bytes: &[u8]) -> bool {
    let Ok(listing) = serde_json::from_slice::<Listing>(bytes) else { return false };
    let _ = (listing.digest(), listing.extent());
    assert!(listing.differences(&listing).is_empty());
    let empty = Listing::with_digests(Vec::new(), |_| bail!("there is no file"));
    empty.is_ok_and(|empty| {
        listing.differences(&empty).len() + empty.differences(&listing).len() > 0
    })
}

/// Reads what a remote says of an artifact, uncompressed; whether it is that of one.
pub fn read_remote_listing(bytes: &[u8]) -> bool {
    is_index(bytes)
}

/// Reads an answer of an object store, as each that it can be; whether it is one of them.
pub fn read_store_answer(bytes: &[u8]) -> bool {
    is_answer(&String::from_utf8_lossy(bytes))
}

/// Reads a file of profiles, and the same as what a program has printed; whether it has credentials or settings.
pub fn read_store_profiles(bytes: &[u8]) -> bool {
    is_for_s3(bytes)
}

/// Reads the value of a header of an answer, as each that is read; whether it is one of them.
pub fn read_header(bytes: &[u8]) -> bool {
    is_header(&String::from_utf8_lossy(bytes))
}

/// Reads an answer of a tracker; whether it has what was asked for.
pub fn read_tracker_answer(bytes: &[u8]) -> bool {
    tracking::is_answer(&String::from_utf8_lossy(bytes))
}

/// Uses a remote whose server of SFTP sends all this, whatever it is asked; whether everything was done.
pub fn read_sftp(replies: File) -> bool {
    are_replies(replies)
}

/// Reads what is behind the checksum of an index of plans, or of one of digests by stat; whether it is that.
pub fn read_cache_index(bytes: &[u8]) -> bool {
    is_plan_index(bytes) || std::str::from_utf8(bytes).is_ok_and(is_stat_index)
}

/// Reads what an orchestrator and a worker tell each other, a message a line; whether there is one.
pub fn read_messages(bytes: &[u8]) -> bool {
    let is_message = |line: &[u8]| {
        let is_event = is_hello(line) | survives::<Event>(line).is_some();
        is_event || survives::<Request>(line).is_some()
    };
    bytes.split(|byte| *byte == b'\n').filter(|line| is_message(line)).count() > 0
}

/// Reads each file of a job that is in a scheduler's queue, in an empty folder for a cache; whether one of them is valid.
///
/// # Errors
/// When the folder cannot be written.
pub fn read_job_files(cache: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    are_job_files(cache, bytes)
}
