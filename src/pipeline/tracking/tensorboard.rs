//! TensorBoard's event files: one per stage that runs, written while it runs.
//!
//! ```text
//! DIR/<experiment>/<stage>/<key>/events.out.tfevents.<seconds>.<process>.pipeline
//! ```
//!
//! A file is a row of records: the length of the data (u64, little-endian), its checksum, the data, its checksum; the
//! checksums are masked CRC-32C (tensorflow/core/lib/io/record_writer.h). The data is a message `Event` of protocol
//! buffers (tensorflow/core/util/event.proto).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::result::StageResult;
use super::tracker::{NotSent, Scene, Sent, Tracker};
use crate::events::{Outcome, RunEvent};
use crate::key::StageKey;
use crate::progress::Reporter;
use crate::stage_name::StageName;

/// How the names of a result's metrics begin. They are written last.
const RESULT: &str = "result/";

/// Writes what stages measure.
pub(crate) struct TensorBoard {
    folder: PathBuf,
    /// Per stage that runs, its file, once it has measured something.
    open: HashMap<StageName, Stage>,
    /// What went wrong first.
    failure: Option<String>,
}

struct Stage {
    folder: PathBuf,
    file: Option<File>,
}

impl TensorBoard {
    /// That of the manifest, if it has one.
    pub(super) fn of(scene: &Scene<'_>) -> Option<Box<dyn Tracker>> {
        let folder = scene.tracking.tensorboard.as_ref()?.join(scene.experiment);
        Some(Box::new(Self { folder, open: HashMap::new(), failure: None }))
    }

    /// Where the files of a result are. It is made with the first one.
    fn folder_of(&self, stage: &StageName, key: &StageKey) -> PathBuf {
        self.folder.join(stage.as_str()).join(&key.to_string()[..12])
    }

    fn write(&mut self, stage: &StageName, step: u64, name: &str, value: f64) {
        let Some(open) = self.open.get_mut(stage) else { return };
        if let Err(error) = open.write(step, name, value) {
            let folder = open.folder.display();
            self.failure.get_or_insert_with(|| format!("cannot write to {folder}: {error}"));
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
        let folder = self.folder_of(&result.stage, &result.record.key);
        if result.record.metrics.is_empty() || has_result(&folder) {
            return Ok(Sent::Before);
        }
        let mut stage = Stage { folder, file: None };
        let written = stage.write_result(result);
        written.map(|()| Sent::Now { left_out: Vec::new() }).map_err(|error| NotSent {
            reason: format!("cannot write to {}: {error}", stage.folder.display()),
            is_for_all: false,
        })
    }
}

/// Whether a file in the folder has the metrics of a result: one of a run that was interrupted does not.
fn has_result(folder: &Path) -> bool {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read(file.path()).ok())
        .any(|bytes| bytes.windows(RESULT.len()).any(|window| window == RESULT.as_bytes()))
}

impl Reporter for TensorBoard {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Start { stage, key, .. } => {
                let folder = self.folder_of(stage, key);
                self.open.insert(stage.clone(), Stage { folder, file: None });
            }
            RunEvent::Measured { stage, measured } => {
                self.write(stage, measured.step, &measured.name, measured.value);
            }
            RunEvent::End { stage, outcome, .. } => {
                if let Outcome::Ran { metrics, .. } = outcome {
                    for (name, value) in metrics {
                        self.write(stage, 0, &format!("{RESULT}{name}"), *value);
                    }
                }
                self.open.remove(stage);
            }
            RunEvent::Done { .. } => {
                if let Some(failure) = self.failure.take() {
                    // Where standard error is closed, nobody reads it.
                    let _ = writeln!(io::stderr(), "warning: TensorBoard: {failure}");
                }
            }
            _ => {}
        }
    }
}

impl Stage {
    /// Writes what is known of a finished result: its curves, and its metrics.
    fn write_result(&mut self, result: &StageResult) -> io::Result<()> {
        for series in result.series() {
            for (step, value) in series.points {
                self.write(step, &series.name, value)?;
            }
        }
        for (name, value) in &result.record.metrics {
            self.write(0, &format!("{RESULT}{name}"), *value)?;
        }
        Ok(())
    }

    fn write(&mut self, step: u64, name: &str, value: f64) -> io::Result<()> {
        if self.file.is_none() {
            let mut file = create(&self.folder)?;
            // The first record says which version of the format this is.
            file.write_all(&record(&event(0, &field_of_bytes(3, b"brain.Event:2"))))?;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&record(&scalar(step, name, value)))
    }
}

/// A new file in the folder.
fn create(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let seconds = now() as u64;
    let name = format!("events.out.tfevents.{seconds}.{}.pipeline", std::process::id());
    File::options().create(true).append(true).open(folder.join(name))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// `Event { summary: Summary { value: [Value { tag, simple_value }] } }`.
fn scalar(step: u64, tag: &str, value: f64) -> Vec<u8> {
    let mut inner = field_of_bytes(1, tag.as_bytes());
    // A 32-bit field.
    inner.push(2 << 3 | 5);
    inner.extend((value as f32).to_le_bytes());
    event(step, &field_of_bytes(5, &field_of_bytes(1, &inner)))
}

/// `Event { wall_time, step, ... }`, with the field that says what happened.
fn event(step: u64, what: &[u8]) -> Vec<u8> {
    // A 64-bit field, and a number of variable length.
    let mut event = vec![1 << 3 | 1];
    event.extend(now().to_le_bytes());
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

    /// The first record of a file that TensorFlow wrote: its checksums with the file's version.
    #[test]
    fn a_record_has_the_checksums_of_tensorflow() {
        let mut data = vec![0x09, 0, 0, 0x80, 0x4a, 0x7a, 0x4a, 0xd6, 0x41, 0x10, 0];
        data.truncate(9);
        data.extend(field_of_bytes(3, b"brain.Event:2"));
        let record = record(&data);
        assert_eq!(record[..8], 24_u64.to_le_bytes());
        assert_eq!(record[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
    }
}
