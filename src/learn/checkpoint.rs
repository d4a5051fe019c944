//! The checkpoint of an interrupted training run: one file, whole or not there.
//!
//! ```text
//! checkpoint.bin    32 bytes   blake3 of all that follows
//!                    8 bytes   length of the header, little-endian
//!                              header: JSON, `identity`, `threads` and `progress`
//!                              safetensors: weights, running statistics, the optimizer's state
//! ```
//!
//! It is written beside its place, flushed to the disk and renamed. One that is damaged, or of
//! another run, is ignored. libtorch's thread count decides the last bits of a sum, so a resumed run takes
//! over the count that the run began with. Knows no training method: what `progress` holds is its own affair.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pipeline_stages::worker::Context;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::network::bytes_of;
use crate::weights;

const FILE: &str = "checkpoint.bin";
const DIGEST_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct Header<P> {
    identity: serde_json::Value,
    threads: i32,
    progress: P,
}

/// The checkpoints of one stage.
pub struct Checkpoints<'a> {
    context: &'a Context,
    identity: serde_json::Value,
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
    /// The checkpoints of a run that is told from others by `identity`: its parameters.
    ///
    /// # Errors
    /// When the parameters are not plain data.
    pub fn new(context: &'a Context, parameters: &impl Serialize) -> anyhow::Result<Self> {
        let identity = serde_json::json!({
            "parameters": serde_json::to_value(parameters)?,
            "seed": context.seed,
            "version": pipeline_stages::message::VERSION,
        });
        let interval = Duration::from_secs(context.execution.checkpoint_seconds);
        Ok(Self { context, identity, interval, last: Instant::now() })
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
    /// When it can't be written.
    pub fn save<P: Serialize>(
        &mut self,
        progress: &P,
        tensors: &[(String, &Tensor)],
    ) -> anyhow::Result<()> {
        let path = self.path();
        let threads = tch::get_num_threads();
        let header = Header { identity: self.identity.clone(), threads, progress };
        write(&path, &serde_json::to_vec(&header)?, tensors)
            .with_context(|| format!("can't write the checkpoint {}", path.display()))?;
        self.last = Instant::now();
        Ok(())
    }

    /// Restores what an interrupted run left: fills the tensors and returns the progress. `None` when
    /// there is nothing, or nothing usable; then no tensor is changed, and a note says why.
    pub fn restore<P: DeserializeOwned>(&self, tensors: &[(String, &Tensor)]) -> Option<P> {
        let bytes = std::fs::read(self.path()).ok()?;
        match read(&bytes, &self.identity, tensors) {
            Ok((progress, threads)) => {
                if threads != tch::get_num_threads() {
                    tch::set_num_threads(threads);
                    self.context.note(format!(
                        "resuming with the {threads} threads that this run began with: its result depends on them"
                    ));
                }
                Some(progress)
            }
            Err(error) => {
                self.context.note(format!("the checkpoint is not used, starting anew: {error:#}"));
                None
            }
        }
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
) -> anyhow::Result<(P, i32)> {
    let (digest, rest) = bytes.split_at_checked(DIGEST_BYTES).context("it is cut off")?;
    ensure!(blake3::hash(rest).as_bytes() == digest, "it is damaged");
    let (length, rest) = rest.split_first_chunk::<8>().context("it is cut off")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let (header, payload) = rest.split_at_checked(length).context("it is cut off")?;
    let header: Header<serde_json::Value> = serde_json::from_slice(header)?;
    ensure!(header.identity == *identity, "it is of another run or another version");
    let progress = serde_json::from_value(header.progress)?;
    let wanted: Vec<(&str, &Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    weights::fill(&SafeTensors::deserialize(payload)?, &wanted, |_| false)?;
    Ok((progress, header.threads.max(1)))
}
