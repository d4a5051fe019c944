//! What a server of SFTP sends. An answer without an id gets that of its request here: it depends on how many there were before.

use std::fs::File;

use crate::scratch::Scratch;

/// The bytes of a packet's length, and where its id is after them.
const LENGTH: usize = 4;
const ID: std::ops::Range<usize> = 5..9;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let scratch = Scratch::new();
    let replies = scratch.write("replies", &with_ids(bytes));
    pipeline::fuzzing::read_sftp(File::open(replies).expect("a scratch file can be read"))
}

fn with_ids(bytes: &[u8]) -> Vec<u8> {
    let mut replies = bytes.to_vec();
    let mut rest = replies.as_mut_slice();
    // The first packet has the version.
    let mut number: u32 = 0;
    while let Some(length) = rest.first_chunk::<LENGTH>() {
        let length = u32::from_be_bytes(*length) as usize;
        if let Some(id) = rest.get_mut(ID).filter(|id| number > 0 && **id == [0; 4]) {
            id.copy_from_slice(&number.to_be_bytes());
        }
        number += 1;
        rest = rest.get_mut(LENGTH.saturating_add(length)..).unwrap_or_default();
    }
    replies
}
