//! Results that are not sent to a remote, as they were made from what turned out to be damaged here.

use std::collections::HashMap;

use crate::cache::{Cache, Record};
use crate::digest::Digest;
use crate::key::StageKey;

/// Results whose artifacts turned out to be damaged here when they were sent, and those that were made from them, by their artifacts.
pub(super) type SpoiledResults = HashMap<Digest, Spoiled>;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Spoiled {
    key: StageKey,
    /// When it had ended, and how long it had taken: another one that is made of the key differs.
    made: (u64, f64),
    /// The stage that made the damaged one.
    stage: String,
}

impl Spoiled {
    pub(super) fn new(record: &Record, stage: String) -> Self {
        Self { key: record.key, made: (record.finished, record.seconds), stage }
    }
}

/// The stage that made what is damaged here, where a result was made from that.
pub(super) fn spoiled_by(
    spoiled: &mut SpoiledResults,
    cache: &Cache,
    record: &Record,
) -> Option<String> {
    record.inputs().find_map(|input| {
        let Spoiled { key, made, stage } = spoiled.get(input).cloned()?;
        let again = cache
            .usable(&key)
            .filter(|now| now.output.digest == *input && (now.finished, now.seconds) != made);
        let Some(again) = again else { return Some(stage) };
        // Its artifact was sound then. It may be made from what is not.
        spoiled.remove(input);
        let stage = spoiled_by(spoiled, cache, &again)?;
        spoiled.insert(*input, Spoiled::new(&again, stage.clone()));
        Some(stage)
    })
}
