//! TensorBoard's event files: one of what a stage measures while it runs, and one of its result, which appears when it is
//! complete. Results that were made again with the same key are in folders of their own: TensorBoard merges the files of a
//! folder.
//!
//! ```text
//! DIR/<experiment>/<stage>/<key>/events.out.tfevents.<seconds>.<process>.pipeline
//! DIR/<experiment>/<stage>/<key>/events.out.tfevents.<seconds>.result-<artifact>.pipeline
//! DIR/<experiment>/<stage>/<key>-2/...
//! ```
//!
//! A file is a row of records: the length of the data (u64, little-endian), its checksum, the data, its checksum; the
//! checksums are masked CRC-32C (tensorflow/core/lib/io/record_writer.h). The data is a message `Event` of protocol
//! buffers (tensorflow/core/util/event.proto).

#![allow(clippy::disallowed_methods, reason = "it writes outside of the cache")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::result::{StageResult, is_tracked};
use super::tracker::{NotSent, Scene, Sent, Tracker};
use crate::cache::Cache;
use crate::digest::Digest;
use crate::events::{Outcome, RunEvent};
use crate::key::StageKey;
use crate::progress::Reporter;
use crate::stage_name::StageName;
use crate::visible::note;

/// How the names of a result's metrics begin.
const RESULT: &str = "result/";
/// What the name of a result's file has before its artifact. It sorts after the process: TensorBoard reads in this order.
const OF_RESULT: &str = ".result-";

/// Writes what stages measure.
pub(crate) struct TensorBoard {
    folder: PathBuf,
    cache: Arc<Cache>,
    /// The stages that run.
    open: HashMap<StageName, Stage>,
    /// What went wrong first.
    failure: Option<String>,
}

struct Stage {
    folder: PathBuf,
    /// Of what it measures, once it has measured something.
    file: Option<File>,
    /// Whether its result is written even if it measures nothing on its way.
    is_tracked: bool,
}

impl TensorBoard {
    /// That of the manifest, if it has one.
    pub(super) fn of(scene: &Scene<'_>) -> Option<Box<dyn Tracker>> {
        let folder = scene.tracking.tensorboard.as_ref()?.join(scene.experiment);
        let cache = Arc::clone(scene.cache);
        Some(Box::new(Self { folder, cache, open: HashMap::new(), failure: None }))
    }

    /// The folders of a key, in the order in which they are used. They are made with their first file.
    fn folders_of(&self, stage: &StageName, key: &StageKey) -> impl Iterator<Item = PathBuf> {
        let folder = self.folder.join(stage.as_str());
        let key = key.to_string()[..12].to_owned();
        (1_u64..).map(move |number| match number {
            1 => folder.join(&key),
            number => folder.join(format!("{key}-{number}")),
        })
    }

    /// The first folder of a key that does not have a result.
    fn free_folder_of(&self, stage: &StageName, key: &StageKey) -> PathBuf {
        let mut folders = self.folders_of(stage, key);
        folders.find(|folder| results_in(folder).is_empty()).unwrap_or_default()
    }

    /// Whether there is a file of this result.
    fn has(&self, result: &StageResult) -> bool {
        let folders = self.folders_of(&result.stage, &result.record.key).map(|it| results_in(&it));
        let name = name_of(&result.record.output.digest);
        folders.take_while(|names| !names.is_empty()).any(|names| names.contains(&name))
    }

    fn keep<T>(&mut self, folder: &Path, written: io::Result<T>) {
        if let Err(error) = written {
            let folder = folder.display();
            self.failure.get_or_insert_with(|| format!("cannot write to {folder}: {error}"));
        }
    }

    /// A stage has a result, perhaps of another process.
    fn result(&mut self, stage: &StageName, open: &Stage, key: &StageKey) {
        let Some(record) = self.cache.usable(key) else { return };
        let folder = self.cache.artifact(&record.output.digest);
        let result = StageResult { stage: stage.clone(), record, folder, commit: None };
        // Another process may have written it.
        if !results_in(&open.folder).contains(&name_of(&result.record.output.digest)) {
            self.keep(&open.folder, write_result(&open.folder, &result));
        }
    }
}

impl Tracker for TensorBoard {
    fn name(&self) -> String {
        format!("TensorBoard in {}", self.folder.display())
    }

    fn reporter(self: Box<Self>) -> Box<dyn Reporter> {
        self
    }

    fn send(&mut self, result: &StageResult) -> Result<Sent, NotSent> {
        if self.has(result) {
            return Ok(Sent::Before);
        }
        let folder = self.free_folder_of(&result.stage, &result.record.key);
        let written = write_result(&folder, result);
        written.map(|()| Sent::Now { left_out: Vec::new() }).map_err(|error| NotSent {
            reason: format!("cannot write to {}: {error}", folder.display()),
            is_for_all: false,
        })
    }
}

/// The part of a file's name that shows whose result is in it.
fn name_of(artifact: &Digest) -> String {
    artifact.to_string()[..12].to_owned()
}

/// The artifacts whose results are in a folder.
fn results_in(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let artifact = |name: String| {
        let (_, rest) = name.split_once(OF_RESULT)?;
        Some(rest.strip_suffix(".pipeline")?.to_owned())
    };
    files.filter_map(|file| artifact(file.file_name().into_string().ok()?)).collect()
}

/// Writes a result: its curves, and its metrics. The file appears when it is complete, and has the same content whenever it is
/// written.
fn write_result(folder: &Path, result: &StageResult) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // The end of that second, as for MLflow: after what was measured in it.
    let finished = result.record.finished as f64 + 0.999;
    let mut bytes = version(finished);
    for series in result.series() {
        for (step, value) in series.points {
            bytes.extend(record(&scalar(finished, step, &series.name, value)));
        }
    }
    for (name, value) in &result.record.metrics {
        bytes.extend(record(&scalar(finished, 0, &format!("{RESULT}{name}"), *value)));
    }
    // TensorBoard does not read a file of such a name.
    let part = folder.join(format!(".result.{}", std::process::id()));
    fs::write(&part, bytes)?;
    let artifact = name_of(&result.record.output.digest);
    let name = format!("events.out.tfevents.{}{OF_RESULT}{artifact}.pipeline", now() as u64);
    fs::rename(part, folder.join(name))
}

impl Reporter for TensorBoard {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Start { stage, key, setup, .. } => {
                let folder = self.free_folder_of(stage, key);
                let is_tracked = is_tracked(setup.output);
                self.open.insert(stage.clone(), Stage { folder, file: None, is_tracked });
            }
            RunEvent::Measured { stage, measured } => {
                let Some(mut open) = self.open.remove(stage) else { return };
                let written = open.write(measured.step, &measured.name, measured.value);
                self.keep(&open.folder, written);
                self.open.insert(stage.clone(), open);
            }
            RunEvent::End { stage, outcome, key, .. } => {
                let Some(open) = self.open.remove(stage) else { return };
                if let (Outcome::Ran { .. } | Outcome::Fresh { .. }, Some(key)) = (outcome, key)
                    && open.is_tracked
                {
                    self.result(stage, &open, key);
                }
            }
            RunEvent::Done { .. } => {
                if let Some(failure) = self.failure.take() {
                    note(&format!("warning: TensorBoard: {failure}"));
                }
            }
            _ => {}
        }
    }
}

impl Stage {
    fn write(&mut self, step: u64, name: &str, value: f64) -> io::Result<()> {
        self.is_tracked = true;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.folder)?),
        };
        file.write_all(&record(&scalar(now(), step, name, value)))
    }
}

/// A new file in the folder.
fn create(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let seconds = now() as u64;
    let name = format!("events.out.tfevents.{seconds}.{}.pipeline", std::process::id());
    let mut file = File::options().create(true).append(true).open(folder.join(name))?;
    file.write_all(&version(now()))?;
    Ok(file)
}

/// The first record of a file: which version of the format it has.
fn version(time: f64) -> Vec<u8> {
    record(&event(time, 0, &field_of_bytes(3, b"brain.Event:2")))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// `Event { summary: Summary { value: [Value { tag, simple_value }] } }`.
fn scalar(time: f64, step: u64, tag: &str, value: f64) -> Vec<u8> {
    let mut inner = field_of_bytes(1, tag.as_bytes());
    // A 32-bit field.
    inner.push(2 << 3 | 5);
    inner.extend((value as f32).to_le_bytes());
    event(time, step, &field_of_bytes(5, &field_of_bytes(1, &inner)))
}

/// `Event { wall_time, step, ... }`, with the field that says what happened.
fn event(time: f64, step: u64, what: &[u8]) -> Vec<u8> {
    // A 64-bit field, and a number of variable length.
    let mut event = vec![1 << 3 | 1];
    event.extend(time.to_le_bytes());
    event.push(2 << 3);
    event.extend(varint(step));
    event.extend(what);
    event
}

fn field_of_bytes(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(bytes.len() as u64));
    field.extend(bytes);
    field
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length));
    record.extend(data);
    record.extend(masked(data));
    record
}

fn masked(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_variable_length() {
        for (number, bytes) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0x80, 1]),
            (300, vec![0xac, 2]),
            (u64::MAX, [vec![0xff; 9], vec![1]].concat()),
        ] {
            assert_eq!(varint(number), bytes);
        }
    }

    /// The first record of a file, as TensorFlow writes it; the checksums are those of tensorboard's `masked_crc32c`.
    #[test]
    fn a_record_has_the_checksums_of_tensorflow() {
        let time = [0x09, 0, 0, 0x80, 0x4a, 0x7a, 0x4a, 0xd6, 0x41];
        let data = [&time[..], &field_of_bytes(3, b"brain.Event:2")].concat();
        let length = 24_u64.to_le_bytes();
        let expected =
            [&length[..], &[0xa3, 0x7f, 0x4b, 0x22], &data, &[0x64, 0x13, 0x99, 0x24]].concat();
        assert_eq!(record(&data), expected);
    }
}
