//! `cargo xtask soak`: the tests that go by chance, again and again, with new seeds each time: three stories of the command line, the
//! model that runs everything again (`tests/cli/model.rs`), sixteen processes with kills (`tests/cli/crowd.rs`) and jobs of a scheduler
//! with kills (`tests/cli/executors/chance.rs`); and a cache with a fault at any change (`cache/tests/chance.rs`).

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo::{self, built};
use crate::checkout::Checkout;

/// The tests: how cargo builds them, what their program is called, and which of its tests they are.
const TESTS: [(&[&str], &str, &[&str]); 2] = [
    (&["--test", "cli"], "cli", &["model::", "crowd::", "executors::chance::"]),
    (&["--lib"], "pipeline", &["cache::tests::chance::"]),
];

/// How many rounds of each there are before the time is looked at again.
const ROUNDS: u64 = 5;

/// How many seconds a story waits for anything: it may be beside other work, at the lowest priority.
const PATIENCE: u64 = 1800;

/// For how long, and where it begins.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Options {
    /// For how long; what has begun then comes to its end
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// The first seed; each round has one of its own [default: the seconds since 1970]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Repeats the tests until the time is over or one fails.
///
/// # Errors
/// When the build or a test fails.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    let programs = TESTS.map(|(target, name, tests)| {
        let mut build = Command::new(cargo::program());
        build
            .args(["test", "-p", "pipeline", "--no-run"])
            .args(target)
            .current_dir(checkout.root());
        let found = built(build)?.into_iter().find(|(found, _)| found == name);
        let (_, program) = found.with_context(|| format!("cargo built no test called {name}"))?;
        Ok((program, tests))
    });
    let programs: Vec<(PathBuf, _)> = programs.into_iter().collect::<Result<_>>()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let first = options.seed.unwrap_or(now);
    let (began, mut figures) = (Instant::now(), Figures::default());
    for seed in (first..).step_by(ROUNDS as usize) {
        for (program, tests) in &programs {
            let output = Command::new(program)
                .args(*tests)
                .arg("--nocapture")
                .env("PIPELINE_SEED", seed.to_string())
                .env("PIPELINE_ROUNDS", ROUNDS.to_string())
                .env("PIPELINE_PATIENCE", PATIENCE.to_string())
                .current_dir(checkout.root())
                .stderr(Stdio::inherit())
                .output()
                .context("the tests do not start")?;
            let text = String::from_utf8_lossy(&output.stdout);
            figures.add(&text);
            ensure!(
                output.status.success(),
                "{text}\nit failed ({}) after {}; again: cargo xtask soak --seed {seed} --minutes 0",
                output.status,
                figures.shown(began.elapsed())
            );
        }
        println!("seed {seed}: {}", figures.shown(began.elapsed()));
        if began.elapsed() >= Duration::from_secs(options.minutes * 60) {
            break;
        }
    }
    Ok(())
}

/// What was counted, by name, in the order in which the names came.
#[derive(Debug, Default)]
struct Figures(Vec<(String, u64)>);

impl Figures {
    /// Adds what the tests have printed: lines with `figures: rounds 5, killed 7`.
    fn add(&mut self, text: &str) {
        let lines = text.lines().filter_map(|line| Some(line.split_once("figures: ")?.1));
        for figure in lines.flat_map(|line| line.split(", ")) {
            let Some((name, number)) = figure.rsplit_once(' ') else { continue };
            let number = number.parse().unwrap_or(0);
            match self.0.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum += number,
                None => self.0.push((name.to_owned(), number)),
            }
        }
        // Two tests at once end in any order.
        self.0.sort();
    }

    fn shown(&self, time: Duration) -> String {
        let figures = self.0.iter().map(|(name, number)| format!("{name} {number}"));
        format!("{} min, {}", time.as_secs() / 60, figures.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_added_up() {
        let mut figures = Figures::default();
        figures
            .add("running 2 tests\nfigures: a rounds 5, a killed 7\ntest b ... figures: b killed 3\nok\n");
        figures.add("figures: b killed 4\nfigures: a rounds 5, a killed 0\n");
        assert_eq!(
            figures.shown(Duration::from_secs(125)),
            "2 min, a killed 7, a rounds 10, b killed 7"
        );
    }
}
