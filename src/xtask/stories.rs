//! The stories of the command line (`tests/cli/`) that need a server: those of one file, or some of them.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo;
use crate::checkout::Checkout;

/// Which stories are meant.
#[derive(Debug, Default, Args, PartialEq, Eq)]
pub struct Which {
    /// Only those with this in their names
    filter: Option<String>,
}

/// Stories of a file.
pub struct Stories<'c> {
    checkout: &'c Checkout,
    file: &'static str,
    names: Vec<String>,
    /// How many seconds each step of them may take, where that is more than usual.
    patience: Option<u64>,
}

impl<'c> Stories<'c> {
    /// Builds the stories, and finds those of a file that are meant.
    ///
    /// # Errors
    /// When the build fails.
    pub fn find(checkout: &'c Checkout, file: &'static str, which: &Which) -> Result<Self> {
        let mut stories = Self { checkout, file, names: Vec::new(), patience: None };
        // The stories start these; cargo builds an example only where it builds all tests, and an old one is of another build.
        let mut programs = Command::new(cargo::program());
        programs.args(["build", "-p", "pipeline", "--bins", "--examples"]);
        let status = programs.current_dir(checkout.root()).status();
        let status = status.context("cargo does not start")?;
        ensure!(status.success(), "the programs of the stories were not built ({status})");
        let listing = stories.command(&["--list"]).stderr(Stdio::inherit()).output();
        let listing = listing.context("cargo does not start")?;
        ensure!(listing.status.success(), "the stories were not built ({})", listing.status);
        stories.names = listed(&String::from_utf8_lossy(&listing.stdout), file, which);
        Ok(stories)
    }

    /// Keeps those of them whose names are meant.
    pub fn retain(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.names.retain(|name| is_meant(name));
    }

    /// Lets each step of them take so many seconds.
    pub fn wait(&mut self, seconds: u64) {
        self.patience = Some(seconds);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Runs them, those too that are otherwise ignored. They find their server by variables.
    ///
    /// # Errors
    /// When one fails.
    pub fn run(&self, variables: &[(&str, OsString)], options: &[&str]) -> Result<()> {
        let mut tests = self.command(&["--exact", "--include-ignored"]);
        tests.args(options).args(&self.names);
        tests.envs(self.patience.map(|seconds| ("PIPELINE_PATIENCE", seconds.to_string())));
        tests.envs(variables.iter().map(|(name, value)| (name, value)));
        let status = tests.status().context("cargo does not start")?;
        ensure!(status.success(), "the stories of {} failed ({status})", self.file);
        Ok(())
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(cargo::program());
        command.args(["test", "-p", "pipeline", "--test", "cli", "--"]).args(options);
        command.current_dir(self.checkout.root());
        command
    }
}

/// The names of the stories of a file that are meant, in what a program of tests lists.
fn listed(listing: &str, file: &str, which: &Which) -> Vec<String> {
    let names = listing.lines().filter_map(|line| line.strip_suffix(": test"));
    let of_file = names.filter(|name| name.split("::").next() == Some(file));
    let is_meant = |name: &&str| which.filter.as_ref().is_none_or(|filter| name.contains(filter));
    of_file.filter(is_meant).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stories_of_a_file_are_found_and_some_of_them() {
        let listing = "slurm::a_job: test\nslurm::document::a_way: test\nother::slurm::a_job: test\n\n3 tests, 0 benchmarks\n";
        let found = |filter: Option<&str>| {
            listed(listing, "slurm", &Which { filter: filter.map(str::to_owned) })
        };
        assert_eq!(found(None), ["slurm::a_job", "slurm::document::a_way"]);
        assert_eq!(found(Some("document")), ["slurm::document::a_way"]);
        assert_eq!(found(Some("a_")), found(None));
        assert!(found(Some("nothing")).is_empty());
    }
}
