//! The orchestrator and its command line.

pub mod diagnostic;
pub mod graph;
pub mod manifest;

/// The command line.
pub fn main() -> std::process::ExitCode {
    pipeline_prepare::serve()
}
