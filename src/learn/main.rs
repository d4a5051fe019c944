//! The worker that needs torch.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipeline_learn::serve()
}
