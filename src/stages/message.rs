//! The messages between the orchestrator and a worker: one JSON object a line.
//!
//! The worker sends [`Event::Hello`] first. The orchestrator checks it, writes one [`Request`] to the
//! worker's standard input and keeps that open: its end means that the orchestrator is gone
//! (or wants the worker to stop). Standard input and output are one socket, which no other process can open; the
//! worker's standard error is its log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::artifact::ArtifactType;
use crate::kinds::KindConfig;
use crate::path_text;
use crate::point::Point;

/// Bumped with every change of a message that an older side could not read.
pub const PROTOCOL: u32 = 4;

/// The version of this build: a worker of another version is refused.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The start of the message of a failure at the end of a worker's log.
pub const LAST_WORDS: &str = "failed: ";

pub use crate::metrics::Metrics;

/// The work of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// The kind and its parameters.
    pub stage: KindConfig,
    /// The seed of every random draw.
    pub seed: u64,
    /// Per connected port (its name in a manifest), the artifacts behind it.
    pub inputs: BTreeMap<String, Vec<Input>>,
    /// Per port that takes all instances of a stage, the points whose instance has no artifact.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, Vec<Point>>,
    /// The folder to write the artifact to. It exists and is empty.
    #[serde(with = "path_text")]
    pub output: PathBuf,
    /// Where the folder for checkpoints is: see [`checkpoint`](crate::checkpoint). It exists.
    #[serde(with = "path_text")]
    pub checkpoint: PathBuf,
    /// The manifest's folder: what relative paths in parameters are relative to.
    #[serde(with = "path_text")]
    pub folder: PathBuf,
    /// How to run. Not in the key.
    pub execution: Execution,
}

/// An artifact that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name, at a port that takes a table of artifacts.
    pub name: Option<String>,
    /// Its folder, read-only.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub artifact: ArtifactType,
    /// Among all instances of a stage: the points of those that it is the artifact of. There are several where
    /// instances have one key, and so are one run. Empty for an artifact that is an input by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Point>,
}

impl Input {
    /// An artifact that is an input by itself.
    pub fn new(name: Option<String>, path: impl Into<PathBuf>, artifact: ArtifactType) -> Self {
        Self { name, path: path.into(), artifact, points: Vec::new() }
    }
}

/// How a stage is run. Not in any key, although device and threads can change the last bits of a training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Where tensors are.
    pub device: Device,
    /// Threads of a worker. `None` for as many as there are cores.
    pub threads: Option<u32>,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
    /// Variables of the environment that say which GPUs it may use: for the worker, and for the program of a `command`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            threads: None,
            checkpoint_seconds: 15,
            variables: BTreeMap::new(),
        }
    }
}

/// Where tensors are: `auto`, `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The first GPU, if one works.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(u32),
}

impl Device {
    /// How one is written.
    pub const FORMS: &str = "auto, cpu or cuda:N (cuda:0 is the first GPU)";
}

/// A text that is not a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotADevice(String);

impl std::fmt::Display for NotADevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}' is not a device: {}", self.0, Device::FORMS)
    }
}

impl std::str::FromStr for Device {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let number = |text: &str| text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => number(text).map(Self::Cuda).ok_or_else(|| NotADevice(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = NotADevice;

    fn try_from(text: String) -> Result<Self, NotADevice> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// What a stage ran on, as far as it can change the last bits of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanOn {
    /// Where tensors were. Never [`Device::Auto`].
    pub device: Device,
    /// The name of the device: `NVIDIA H100 80GB HBM3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What tells it apart from others of this name: `GPU-5d2f4e1c-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Threads, if their count matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// A remark for readers of the record: that the run started on another device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

impl RanOn {
    /// The processor, with this many threads.
    pub fn cpu(threads: u32) -> Self {
        Self { device: Device::Cpu, name: None, uuid: None, threads: Some(threads), remark: None }
    }

    /// A GPU of this number, with its name.
    pub fn gpu(number: u32, name: Option<String>) -> Self {
        Self { device: Device::Cuda(number), name, uuid: None, threads: None, remark: None }
    }

    /// The same with another remark.
    #[must_use]
    pub fn with_remark(self, remark: impl Into<String>) -> Self {
        let remark = self.remark.into_iter().chain([remark.into()]).collect::<Vec<_>>().join("; ");
        Self { remark: Some(remark), ..self }
    }
}

impl std::fmt::Display for RanOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}, ")?;
        }
        write!(f, "{}", self.device)?;
        match self.threads {
            Some(1) => f.write_str(", 1 thread")?,
            Some(threads) => write!(f, ", {threads} threads")?,
            None => {}
        }
        match &self.remark {
            Some(remark) => write!(f, " ({remark})"),
            None => Ok(()),
        }
    }
}

/// A message of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The introduction. Always first.
    Hello(Hello),
    Progress(Progress),
    /// It measured a number.
    Measured(Measured),
    /// A line worth showing while the stage runs.
    Note {
        /// The line.
        text: String,
    },
    /// What the machine cannot do for any stage: worth a line once in a run.
    Limitation {
        /// The line.
        text: String,
    },
    /// What an interrupted run left running has ended: the work of this one begins.
    Begins,
    /// The stage is done; its output folder is complete.
    Finished {
        /// What it measured. The orchestrator keeps it in the record.
        metrics: Metrics,
        /// What it ran on, if that matters.
        ran_on: Option<RanOn>,
        /// What it took.
        #[serde(default)]
        used: Used,
    },
    /// The stage failed.
    Failed {
        /// Why, for people.
        message: String,
        /// The signal that ended a program that it ran.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// It was asked to stop, wrote its checkpoint and exits.
    Stopped,
}

/// What a worker took, as far as it knows that better than the process that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Used {
    /// The most memory that its own process had at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The most memory of a GPU that it had at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<u64>,
}

/// A worker's introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program: `pipeline` or `pipeline-learn`.
    pub program: String,
    /// See [`PROTOCOL`].
    pub protocol: u32,
    /// See [`VERSION`].
    pub version: String,
    /// See [`FINGERPRINT`](crate::kinds::FINGERPRINT): distinguishes builds of the same version.
    #[serde(default)]
    pub contract: String,
}

impl Hello {
    /// The introduction of this build.
    pub fn of(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            contract: crate::kinds::FINGERPRINT.to_owned(),
        }
    }
}

/// The progress of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done, in `unit`.
    pub done: u64,
    /// How much there is to do, if that is known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
    /// The part of the work that it is in: `epoch 3/20`.
    pub phase: Option<String>,
}

/// A number that a stage measured while it ran. None is dropped, even in quick succession.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// After how many steps. The stage chooses the unit, always the same one for a name.
    pub step: u64,
    /// The name: `loss`, `accuracy`.
    pub name: String,
    #[serde(with = "crate::metrics::number")]
    pub value: f64,
}

choices! {
    /// What [`Progress`] counts.
    pub enum Unit {
        /// Bytes.
        Bytes,
        /// Files.
        Files,
        /// Images.
        Images,
        /// Samples.
        Samples,
        /// Steps of an optimizer.
        Steps,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_survives_the_transfer() {
        let stage = KindConfig::read("split", json!({"holdout": 7}));
        let input = Input {
            name: None,
            path: "store/ab".into(),
            artifact: ArtifactType::Dataset,
            points: vec!["rate=0.9".parse().unwrap()],
        };
        let request = Request {
            protocol: PROTOCOL,
            stage: stage.unwrap().unwrap(),
            seed: u64::MAX,
            inputs: BTreeMap::from([("data".to_owned(), vec![input])]),
            missing: BTreeMap::new(),
            output: "tmp/1".into(),
            checkpoint: "partial/1".into(),
            folder: "/home/somebody/my experiments".into(),
            execution: Execution {
                device: Device::Cuda(3),
                threads: Some(2),
                checkpoint_seconds: 5,
                variables: [("CUDA_VISIBLE_DEVICES".to_owned(), "3".to_owned())].into(),
            },
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'), "one message a line");
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn events_survive_the_transfer() {
        let values = Metrics::from([("loss".to_owned(), 0.1 + 0.2)]);
        let progress = Progress {
            done: 3,
            total: Some(9),
            unit: Unit::Steps,
            phase: Some("epoch 1/3".into()),
        };
        let measured = Measured { step: 3, name: "loss".into(), value: f64::INFINITY };
        for event in [
            Event::Hello(Hello::of("pipeline")),
            Event::Progress(progress),
            Event::Measured(measured),
            Event::Note { text: "two\nlines".into() },
            Event::Limitation { text: "not here".into() },
            Event::Begins,
            Event::Finished {
                metrics: values,
                ran_on: Some(RanOn::cpu(2)),
                used: Used { memory: Some(1 << 40), gpu_memory: None },
            },
            Event::Failed { message: "no \"data\"".into(), signal: None },
            Event::Failed { message: "killed".into(), signal: Some(9) },
            Event::Stopped,
        ] {
            let line = serde_json::to_string(&event).unwrap();
            assert!(line.starts_with("{\"event\":\"") && !line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }

    #[test]
    fn what_a_stage_ran_on_in_words_and_in_a_record() {
        let gpu = RanOn::gpu(1, Some("NVIDIA H100 80GB HBM3".to_owned()));
        for (ran_on, words, record) in [
            (RanOn::cpu(2), "cpu, 2 threads", json!({"device": "cpu", "threads": 2})),
            (
                RanOn::cpu(1).with_remark("began on gpu"),
                "cpu, 1 thread (began on gpu)",
                json!({"device": "cpu", "threads": 1, "remark": "began on gpu"}),
            ),
            (
                RanOn::cpu(3).with_remark("one").with_remark("two"),
                "cpu, 3 threads (one; two)",
                json!({"device": "cpu", "threads": 3, "remark": "one; two"}),
            ),
            (
                gpu,
                "NVIDIA H100 80GB HBM3, cuda:1",
                json!({"device": "cuda:1", "name": "NVIDIA H100 80GB HBM3"}),
            ),
            (RanOn::gpu(0, None), "cuda:0", json!({"device": "cuda:0"})),
        ] {
            assert_eq!(ran_on.to_string(), words);
            assert_eq!(serde_json::to_value(&ran_on).unwrap(), record);
            assert_eq!(serde_json::from_value::<RanOn>(record).unwrap(), ran_on);
        }
    }

    #[test]
    fn devices_read_and_print() {
        for (text, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda:0", Device::Cuda(0)),
            ("cuda:12", Device::Cuda(12)),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(
                text.parse::<Device>().unwrap_err().to_string().contains("is not a device"),
                "{text}"
            );
        }
    }
}
