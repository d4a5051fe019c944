//! The orchestrator and its command line.
pub fn main() -> std::process::ExitCode {
    pipeline_prepare::serve()
}
