//! The orchestrator and its command line: a manifest in, a graph of cached stages out.
//!
//! ```text
//! manifest ─► graph ─► plan ─► execute ─► cache
//!    key: what a result depends on     worker: one child process      progress: what people see
//! ```
//!
//! Does not depend on torch or on the bodies of stages. `manifest`, `graph`, `key` and `plan` are pure.

// See clippy.toml. Tests make what they need.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod activity;
mod cache;
mod cli;
mod colour;
mod commands;
mod compare;
mod complete;
mod deadline;
mod diagnostic;
mod difference;
mod digest;
mod drawing;
mod events;
mod execute;
mod expected;
mod export;
mod facts;
mod file_watch;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gpus;
mod graph;
mod history;
mod instances;
mod key;
mod launcher;
mod lint;
mod machine;
mod manifest;
mod outside;
mod pattern;
mod plan;
mod plan_alike;
mod plan_index;
mod process_tree;
mod programs;
mod progress;
mod reason;
mod regular_file;
mod remote;
mod remote_address;
mod report;
mod screen;
mod shell;
mod signals;
mod signing;
mod stage_name;
mod state_words;
mod summaries;
mod table;
#[doc(hidden)]
pub mod testing;
mod tracking;
mod trust;
mod usage;
mod visible;
mod width;
mod worker;

use std::ffi::OsStr;
use std::process::ExitCode;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // Before the command line is read: a worker starts in as little time as it can.
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(launcher::WORKER_SUBCOMMAND) => pipeline_prepare::serve(),
        Some(launcher::COPIES_SUBCOMMAND) => launcher::serve_copies(pipeline_prepare::serve),
        _ => commands::main(),
    }
}
