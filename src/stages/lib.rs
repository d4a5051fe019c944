//! The contract that the orchestrator and the workers share.
//!
//! Per stage kind: its parameters, its ports, the type of its output and its version
//! ([`kinds`]); the formats of the artifacts on disk ([`formats`]); the messages between the
//! orchestrator and a worker ([`message`]); and the worker's side of that protocol
//! ([`worker`]).
//!
//! Does not depend on TOML, the cache, torch or a stage body.

#[macro_use]
mod declare;

mod artifact;
pub mod checkpoint;
pub mod cifar_classes;
pub mod clean_labels;
pub mod form;
pub mod formats;
pub mod image_file;
pub mod kind;
pub mod kinds;
pub mod known;
pub mod left_out;
pub mod links;
pub mod matrix_file;
pub mod message;
pub mod metric_name;
pub mod metrics;
pub mod parameter;
pub mod path_text;
pub mod point;
pub mod proc_stat;
pub mod state_dict;
pub mod text;
pub mod text_file;
pub mod url;
pub mod worker;

pub use artifact::ArtifactType;
pub use kind::{Cores, Kind, KindInfo, Port, PortShape, Problem, WorkerProgram};
pub use kinds::{KINDS, KindConfig, LearnStage, PrepareStage, kind_info};
