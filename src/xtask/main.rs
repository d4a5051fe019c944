//! `cargo xtask`: everything between a fresh clone and a working `pipeline`. This file has the commands and their order;
//! the work is in the other files.

mod bench_engine;
mod cargo;
mod checkout;
mod fuzz;
mod libtorch;
mod needs;
mod parts;
mod place;
mod platform;
mod remotes;
mod slurm;
mod soak;
mod stories;
#[cfg(test)]
mod testing;

use anyhow::{Context, Result};
use cargo::Cargo;
use checkout::Checkout;
use clap::{Parser, Subcommand};
use libtorch::{Libtorch, Say};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use stories::Which;

/// Set-up, build and tests of `pipeline` on a fresh machine
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand, PartialEq, Eq)]
enum Task {
    /// Install libtorch into .libtorch, once; a LIBTORCH of your own is checked and used instead
    Setup,
    /// Set up if needed, and build everything in release mode
    Build,
    /// Set up if needed, build, and run pipelines/quickstart.toml
    Quickstart,
    /// Set up if needed, check formatting and lints, and run all tests of the workspace
    Test,
    /// Run the stories of remotes that need a real server, beside one that is started for them; needs no libtorch
    TestRemotes(remotes::Options),
    /// Set up if needed, build, and time thousands of small stages beside ninja, Snakemake and DVC
    BenchEngine(bench_engine::Options),
    /// Look for inputs that a reader of files from elsewhere cannot handle; needs no libtorch
    Fuzz(fuzz::Options),
    /// Repeat the tests that go by chance, with new seeds, for an hour; needs no libtorch
    Soak(soak::Options),
    /// Install the Debian packages that some tests need; as root
    Parts,
    /// Start a Slurm of two nodes, and run the tests that need one; as root, and skipped where it is not installed
    TestSlurm(Which),
    /// Set up if needed, build, and copy the programs and libtorch to where your PATH finds them
    Install {
        /// The folder whose bin/ and lib/ take them [default: ~/.local]
        #[arg(long, value_name = "DIR")]
        prefix: Option<PathBuf>,
    },
}

/// The experiment that a newcomer sees first.
const QUICKSTART: &str = "pipelines/quickstart.toml";

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let checkout = Checkout::find()?;
    match task {
        Task::Setup => {
            Libtorch::ensure(&checkout, Say::Everything)?;
            eprintln!("Next: `cargo xtask quickstart` builds all and runs a first experiment.");
            Ok(())
        }
        Task::Build => {
            let programs = ready(&checkout)?.build_release()?;
            eprintln!("built {}", programs.pipeline.display());
            Ok(())
        }
        Task::Quickstart => {
            let programs = ready(&checkout)?.build_release()?;
            become_quickstart(&checkout, &programs.pipeline)
        }
        Task::Test => {
            let cargo = ready(&checkout)?;
            cargo.run(&["fmt", "--all", "--check"])?;
            cargo.run(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
            // What is installed: without what is for fuzzing.
            cargo.run(&["clippy", "-p", "pipeline", "--", "-D", "warnings"])?;
            cargo.test()
        }
        Task::BenchEngine(options) => bench_engine::run(&checkout, &ready(&checkout)?, &options),
        Task::TestRemotes(options) => remotes::run(&checkout, &options),
        Task::Fuzz(options) => fuzz::run(&checkout, &options),
        Task::Soak(options) => soak::run(&checkout, &options),
        Task::Parts => parts::install(),
        Task::TestSlurm(which) => slurm::test(&checkout, &which),
        Task::Install { prefix } => {
            let prefix = prefix.map_or_else(place::default_prefix, Ok)?;
            let prefix = std::path::absolute(prefix)?;
            let cargo = ready(&checkout)?;
            let programs = cargo.build_release()?;
            place::install(&prefix, &checkout, &programs, cargo.libtorch())
        }
    }
}

/// Cargo, with a libtorch to build with.
fn ready(checkout: &Checkout) -> Result<Cargo> {
    Cargo::new(checkout, Libtorch::ensure(checkout, Say::OnlyNews)?)
}

/// Becomes the experiment, so that the terminal, the signals and the exit status are its own.
fn become_quickstart(checkout: &Checkout, pipeline: &Path) -> Result<()> {
    eprintln!(
        "$ {} run {QUICKSTART}",
        pipeline.strip_prefix(checkout.root()).unwrap_or(pipeline).display()
    );
    let mut command = Command::new(pipeline);
    command.args(["run", QUICKSTART]).current_dir(checkout.root());
    Err(command.exec()).with_context(|| format!("{} does not start", pipeline.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(words: &str) -> Result<Task, clap::Error> {
        let words = std::iter::once("cargo xtask").chain(words.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| arguments.task)
    }

    #[test]
    fn every_command_is_understood() {
        for (words, expected) in [
            ("setup", Task::Setup),
            ("build", Task::Build),
            ("quickstart", Task::Quickstart),
            ("test", Task::Test),
            ("parts", Task::Parts),
            ("test-slurm", Task::TestSlurm(Which::default())),
            ("test-remotes", Task::TestRemotes(remotes::Options::default())),
            ("install", Task::Install { prefix: None }),
            (
                "install --prefix /opt/pipeline",
                Task::Install { prefix: Some("/opt/pipeline".into()) },
            ),
        ] {
            assert_eq!(task(words).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in ["", "sutup", "setup now", "install --prefix", "--release", "test-slurm a b"] {
            assert!(task(words).is_err(), "{words}");
        }
        assert!(task("tets").unwrap_err().to_string().contains("'test'"));
    }
}
