//! The orchestrator and its command line: a manifest in, a graph of cached stages out.
//!
//! ```text
//! manifest ─► graph ─► plan ─► execute ─► cache
//!    key: what a result depends on     worker: one child process      progress: what people see
//! ```
//!
//! Knows no torch and no stage body. `manifest`, `graph`, `key` and `plan` are pure.

mod cli;
mod commands;

pub mod cache;
pub mod compare;
pub mod diagnostic;
pub mod difference;
pub mod digest;
pub mod events;
pub mod execute;
pub mod facts;
pub mod format;
pub mod graph;
pub mod key;
pub mod launcher;
pub mod lint;
pub mod manifest;
pub mod plan;
mod process_tree;
pub mod progress;
pub mod reason;
pub mod stage_name;
mod visible;
pub mod worker;

use std::process::ExitCode;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // Before the command line is read: a worker starts in as little time as it can.
    if std::env::args_os().nth(1).is_some_and(|first| first == launcher::WORKER_SUBCOMMAND) {
        return pipeline_prepare::serve();
    }
    commands::main()
}
