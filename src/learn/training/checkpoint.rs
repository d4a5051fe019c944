//! The checkpoint of an interrupted training run: one file, whole or missing.
//!
//! ```text
//! checkpoint.bin    32 bytes   blake3 of all that follows
//!                    8 bytes   length of the header, little-endian
//!                              header: JSON, `identity`, `threads`, `began_on` and `progress`
//!                              safetensors: weights, running statistics, the optimizer's state
//! ```
//!
//! It is written beside its place, flushed to the disk and renamed. One that is damaged, or of
//! another run, is ignored. libtorch's thread count decides the last bits of a sum, so a resumed run takes
//! over the count that the run began with. Another device cannot be taken over: a run that goes on elsewhere says so,
//! in a note and in its record. Does not depend on any training method: what `progress` holds is its own affair.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::worker::Context;
use pipeline_stages::{Kind, kind};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::device;
use crate::network::bytes_of;
use crate::network::weights;

const FILE: &str = "checkpoint.bin";
const DIGEST_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct Header<P> {
    identity: serde_json::Value,
    threads: i32,
    /// The name of the device that the run began on.
    began_on: String,
    progress: P,
}

/// The checkpoints of one stage.
pub struct Checkpoints<'a> {
    context: &'a Context,
    identity: serde_json::Value,
    device: Device,
    /// The name of the device that the run began on.
    began_on: String,
    interval: Duration,
    last: Instant,
}

/// What to do between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Go on.
    Nothing,
    /// Write a checkpoint and go on.
    Checkpoint,
    /// Write a checkpoint and leave.
    Stop,
}

impl<'a> Checkpoints<'a> {
    /// The checkpoints of a run on `device` that the parameters of its key distinguish from others: a parameter that earlier builds did
    /// not have, and that is at its default, takes no checkpoint of theirs away.
    pub fn new(context: &'a Context, parameters: &impl Kind, device: Device) -> Self {
        let identity = serde_json::json!({
            "parameters": kind::key_parameters(parameters),
            "seed": context.seed,
            "version": pipeline_stages::message::VERSION,
        });
        let interval = Duration::from_secs(context.execution.checkpoint_seconds);
        let began_on = kind_of(device).to_owned();
        Self { context, identity, device, began_on, interval, last: Instant::now() }
    }

    /// What to do now, between two steps.
    pub fn due(&self) -> Due {
        if self.context.stopping() {
            Due::Stop
        } else if self.last.elapsed() >= self.interval {
            Due::Checkpoint
        } else {
            Due::Nothing
        }
    }

    /// Writes a checkpoint over the last one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save<P: Serialize>(
        &mut self,
        progress: &P,
        tensors: &[(String, &Tensor)],
    ) -> anyhow::Result<()> {
        let path = self.path();
        let threads = tch::get_num_threads();
        let (identity, began_on) = (self.identity.clone(), self.began_on.clone());
        let header = Header { identity, threads, began_on, progress };
        // Also after a failure: the next try comes when its time does.
        self.last = Instant::now();
        write(&path, &serde_json::to_vec(&header)?, tensors)
            .with_context(|| format!("cannot write the checkpoint {}", path.display()))
    }

    /// Restores what an interrupted run left: fills the tensors and returns the progress. `None` when
    /// there is nothing, or nothing usable; then no tensor is changed, and a note says why.
    ///
    /// Afterwards the threads of this process are those that the run began with, and the record knows
    /// them, and the device.
    ///
    /// # Errors
    /// When there is something that cannot be read: it may be the work of days, so it is not ignored.
    pub fn restore<P: DeserializeOwned>(
        &mut self,
        tensors: &[(String, &Tensor)],
    ) -> anyhow::Result<Option<P>> {
        let path = self.path();
        let restored = match std::fs::read(&path) {
            Ok(bytes) => self.restore_from(&bytes, tensors),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot read the checkpoint {}: fix that, or remove the file to start again from the beginning",
                        path.display()
                    )
                });
            }
        };
        let ran_on = device::ran_on(self.device);
        self.context.ran_on(if self.began_on == kind_of(self.device) {
            ran_on
        } else {
            ran_on.with_remark(format!("began on {}", self.began_on))
        });
        Ok(restored)
    }

    fn restore_from<P: DeserializeOwned>(
        &mut self,
        bytes: &[u8],
        tensors: &[(String, &Tensor)],
    ) -> Option<P> {
        let header = match read(bytes, &self.identity, tensors) {
            Ok(header) => header,
            Err(error) => {
                self.context.note(format!(
                    "the checkpoint is not used, starting from the beginning: {error:#}"
                ));
                return None;
            }
        };
        let threads = header.threads.max(1);
        if self.device == Device::Cpu && threads != tch::get_num_threads() {
            tch::set_num_threads(threads);
            self.context.note(format!(
                "continues with the {threads} threads that this run began with: its result depends on them"
            ));
        }
        let here = kind_of(self.device);
        if header.began_on != here {
            self.context.note(format!(
                "this run began on {} and continues on {here}: its result is not that of either alone",
                header.began_on
            ));
        }
        self.began_on = header.began_on;
        Some(header.progress)
    }

    fn path(&self) -> PathBuf {
        self.context.checkpoint.join(FILE)
    }
}

fn write(path: &Path, header: &[u8], tensors: &[(String, &Tensor)]) -> anyhow::Result<()> {
    let mut copies = Vec::new();
    for (name, tensor) in tensors {
        let (dtype, shape) = (weights::dtype_of(tensor)?, weights::shape_of(tensor));
        copies.push((name, dtype, shape, bytes_of(tensor)?));
    }
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &copies {
        views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?));
    }
    let payload = safetensors::serialize(views, None)?;
    let length = (header.len() as u64).to_le_bytes();

    let mut hasher = blake3::Hasher::new();
    hasher.update(&length).update(header).update(&payload);
    let beside = path.with_extension("partial");
    let mut file = File::create(&beside)?;
    for part in [hasher.finalize().as_bytes().as_slice(), &length, header, &payload] {
        file.write_all(part)?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn read<P: DeserializeOwned>(
    bytes: &[u8],
    identity: &serde_json::Value,
    tensors: &[(String, &Tensor)],
) -> anyhow::Result<Header<P>> {
    let (digest, rest) = bytes.split_at_checked(DIGEST_BYTES).context("it is truncated")?;
    ensure!(blake3::hash(rest).as_bytes() == digest, "it is damaged");
    let (length, rest) = rest.split_first_chunk::<8>().context("it is truncated")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let (header, payload) = rest.split_at_checked(length).context("it is truncated")?;
    let header: Header<serde_json::Value> = serde_json::from_slice(header)?;
    let Header { identity: found, threads, began_on, progress } = header;
    ensure!(found == *identity, "it is of another run or another version");
    let progress = serde_json::from_value(progress)?;
    let wanted: Vec<(&str, &Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    weights::fill(&SafeTensors::deserialize(payload)?, &wanted, |_| false)?;
    Ok(Header { identity: found, threads, began_on, progress })
}

/// What distinguishes devices whose results differ: all GPUs of a machine count as one.
fn kind_of(device: Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        _ => "gpu",
    }
}
