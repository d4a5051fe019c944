//! Coverage-guided fuzzing of the targets in `tests/fuzz`, with libFuzzer, on a stable compiler.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cargo::{self, built};
use crate::checkout::Checkout;

/// The target that stands for all of them.
const ALL: &str = "all";

/// What libFuzzer needs in the programs, and checks that a release build leaves out.
const FLAGS: [&str; 10] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
    "-Cdebuginfo=line-tables-only",
];

/// Bounds of one input: its size, and the memory of the whole process, which is the last resort: each target has a bound of its
/// own.
const BOUNDS: [&str; 2] = ["-max_len=16384", "-rss_limit_mb=4096"];

/// The seconds of a processor that one input may take. While inputs are sought, libFuzzer goes by the clock: see [`Fuzzer::is_slow`].
const SECONDS: u64 = 20;

/// What files are called that libFuzzer writes of inputs that took long by the clock.
const LONG: [&str; 2] = ["timeout-", "slow-unit-"];

/// Of those that the fuzzer made, the most inputs of a target that are kept in the repository, and their most bytes:
/// each, and all together.
const MOST_KEPT: usize = 40;
const MOST_KEPT_BYTES: [u64; 2] = [4 << 10, 8 << 10];

/// What is fuzzed, and for how long.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Options {
    /// What is fuzzed; 'all' for one after the other. Without it, the targets are listed
    target: Option<String>,
    /// For how long, each target
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How many processes at a time; they share what they find
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Read one input instead, such as one that failed
    #[arg(long, value_name = "FILE", conflicts_with = "minimize")]
    input: Option<PathBuf>,
    /// Replace the fuzzer's inputs in the repository by those few that reach the most of all that were found
    #[arg(long)]
    minimize: bool,
}

/// Does what the options ask for.
///
/// # Errors
/// When a target does not exist, the build fails, or an input fails.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    let targets = targets(checkout)?;
    let Some(name) = &options.target else {
        println!("{}", targets.join("\n"));
        return Ok(());
    };
    let chosen: Vec<&String> =
        targets.iter().filter(|target| *target == name || name == ALL).collect();
    ensure!(
        !chosen.is_empty(),
        "'{name}' is not a target; these are: {} and {ALL}",
        targets.join(", ")
    );
    // The fuzzer runs elsewhere than this process.
    let input = options.input.as_deref().map(fs::canonicalize).transpose();
    let input = input.context("the input cannot be found")?;
    let program = build(checkout)?;
    let fuzzers = chosen.iter().map(|target| Fuzzer { checkout, program: &program, target });
    if let Some(input) = input {
        return fuzzers.into_iter().try_for_each(|fuzzer| fuzzer.read(&input));
    }
    if options.minimize {
        return fuzzers.into_iter().try_for_each(|fuzzer| fuzzer.minimize());
    }
    println!("{}", Figures::HEADER);
    let mut failed = Vec::new();
    for fuzzer in fuzzers {
        let figures = fuzzer.fuzz(options)?;
        println!("{}", figures.line(fuzzer.target));
        if !figures.failed.is_empty() {
            failed.push(fuzzer.target);
        }
        for input in figures.failed {
            eprintln!(
                "  failed: {}\n  again:  cargo xtask fuzz {} --input {}",
                input.display(),
                fuzzer.target,
                input.display()
            );
        }
    }
    ensure!(failed.is_empty(), "inputs failed: see target/fuzz/logs/");
    Ok(())
}

/// The targets: each has a folder with inputs.
fn targets(checkout: &Checkout) -> Result<Vec<String>> {
    let folder = checkout.root().join("tests/fuzz/corpus");
    let mut names = Vec::new();
    for path in files(&folder)? {
        names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// The entries of a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().and_then(|entries| {
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut paths = entries.with_context(|| format!("cannot list {}", folder.display()))?;
    paths.sort_unstable();
    Ok(paths)
}

/// Builds the program of all targets.
fn build(checkout: &Checkout) -> Result<PathBuf> {
    let mut command = Command::new(cargo::program());
    // A target of its own, so that build scripts and macros are not counted.
    command
        .args(["build", "--release", "--target", "host-tuple", "--target-dir", "target/fuzz"])
        .args(["-p", "pipeline-fuzz", "--features", "libfuzzer"])
        // Most of its code is not read from here, and takes minutes to optimise.
        .args(["--config", "profile.release.package.pipeline.opt-level=1"])
        .current_dir(checkout.root())
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let programs = built(command)?;
    let fuzzer = programs.into_iter().find(|(name, _)| name == "fuzz");
    Ok(fuzzer.context("cargo built no program called fuzz")?.1)
}

/// One target, and the program that runs it.
struct Fuzzer<'run> {
    checkout: &'run Checkout,
    program: &'run Path,
    target: &'run str,
}

impl Fuzzer<'_> {
    /// A folder for this target below `target/fuzz`, made here.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.checkout.root().join("target/fuzz").join(name).join(self.target);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// The inputs in the repository: those that reach the most, and those that failed once, if there are any.
    fn kept(&self) -> Vec<PathBuf> {
        let folder =
            |name: &str| self.checkout.root().join("tests/fuzz").join(name).join(self.target);
        [folder("corpus"), folder("found")].into_iter().filter(|folder| folder.is_dir()).collect()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.args(BOUNDS).env("PIPELINE_FUZZ_TARGET", self.target);
        command
    }

    /// What reads one input, and is ended when that takes too much time of a processor.
    fn reader(&self, input: &Path) -> Command {
        let mut command = self.command();
        command.arg("-timeout=0").arg(input);
        limited(&command, SECONDS)
    }

    /// Reads one input, in view.
    fn read(&self, input: &Path) -> Result<()> {
        let status = self.reader(input).status().context("the fuzzer does not start")?;
        ensure!(status.success(), "{} reads it and fails ({status})", self.target);
        Ok(())
    }

    /// Whether an input fails that took long by the clock: it is read again, alone. On a busy machine, a process may not
    /// have had a core for all that time.
    fn is_slow(&self, input: &Path) -> Result<bool> {
        let output = self.reader(input).output().context("the fuzzer does not start")?;
        Ok(!output.status.success())
    }

    /// Looks for inputs that fail until the time is over.
    fn fuzz(&self, options: &Options) -> Result<Figures> {
        let (failures, began) = (self.folder("failures")?, Instant::now());
        let before = files(&failures)?;
        let mut figures = Figures::default();
        let all = options.minutes * 60;
        // A process ends with the first input that takes long. Where that is not a failure, there is time left.
        let mut goes_on = true;
        while goes_on && figures.failed.is_empty() && figures.seconds < all {
            goes_on = false;
            self.fuzz_for(all - figures.seconds, options.jobs, &failures, &mut figures)?;
            figures.seconds = began.elapsed().as_secs();
            let mut found = files(&failures)?;
            found.retain(|path| !before.contains(path));
            for path in found {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if LONG.iter().any(|start| name.starts_with(start)) && !self.is_slow(&path)? {
                    eprintln!(
                        "  {name} took long by the clock, but less than {SECONDS} s of a processor: no failure"
                    );
                    fs::remove_file(&path)?;
                    goes_on = true;
                } else {
                    figures.failed.push(path);
                }
            }
        }
        Ok(figures)
    }

    /// Looks for inputs that fail for so many seconds, in so many processes, or until one has failed in each.
    fn fuzz_for(
        &self,
        seconds: u64,
        jobs: usize,
        failures: &Path,
        figures: &mut Figures,
    ) -> Result<()> {
        let (corpus, logs) = (self.folder("corpus")?, self.folder("logs")?);
        let before = files(failures)?.len();
        let start = |job: usize| -> Result<(Child, PathBuf)> {
            let log = logs.join(format!("{job}.log"));
            let file =
                File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
            let child = self
                .command()
                .arg(format!("-timeout={SECONDS}"))
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-artifact_prefix={}/", failures.display()))
                .arg("-print_final_stats=1")
                .arg(&corpus)
                .args(self.kept())
                .stdout(file.try_clone()?)
                .stderr(file)
                .spawn()
                .context("the fuzzer does not start")?;
            Ok((child, log))
        };
        let jobs = (0..jobs.max(1)).map(start).collect::<Result<Vec<_>>>()?;
        for (mut child, log) in jobs {
            let status = child.wait()?;
            let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
            let text = String::from_utf8_lossy(&text);
            figures.add(&text);
            let failed_unseen = !status.success() && files(failures)?.len() == before;
            if failed_unseen {
                bail!("{} ended with {status}: see {}", self.target, log.display());
            }
        }
        Ok(())
    }

    /// Replaces those inputs in the repository that the fuzzer made.
    fn minimize(&self) -> Result<()> {
        let (found, fewest) = (self.folder("corpus")?, self.folder("fewest")?);
        for file in files(&fewest)? {
            fs::remove_file(file)?;
        }
        let status = self
            .command()
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .args([&fewest, &found])
            .args(self.kept())
            .status()
            .context("the fuzzer does not start")?;
        ensure!(status.success(), "{} cannot be minimized ({status})", self.target);
        let corpus = self.checkout.root().join("tests/fuzz/corpus").join(self.target);
        let (made, by_hand): (Vec<_>, Vec<_>) =
            files(&corpus)?.into_iter().partition(|path| is_made(path));
        let by_hand = by_hand.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>()?;
        for file in made {
            fs::remove_file(file)?;
        }
        // They were written in the order of what each adds.
        let mut files = files(&fewest)?;
        files.sort_by_key(|file| file.metadata().and_then(|metadata| metadata.modified()).ok());
        let [most_each, most] = MOST_KEPT_BYTES;
        let (mut count, mut bytes) = (0, 0);
        for file in files {
            let size = file.metadata()?.len();
            let fits = size <= most_each && bytes + size <= most && count < MOST_KEPT;
            if fits && !by_hand.contains(&fs::read(&file)?) {
                (count, bytes) = (count + 1, bytes + size);
                fs::copy(&file, corpus.join(file.file_name().unwrap_or_default()))?;
            }
        }
        println!("{}: {count} inputs, {bytes} bytes", self.target);
        Ok(())
    }
}

/// A command that is ended when it has taken so many seconds of a processor.
fn limited(command: &Command, seconds: u64) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -c 0; ulimit -S -t {seconds}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// Whether an input was made by the fuzzer, which calls it by its SHA-1.
fn is_made(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.len() == 40 && name.iter().all(u8::is_ascii_hexdigit)
}

/// What libFuzzer says at the end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    runs: u64,
    seconds: u64,
    edges: u64,
    failed: Vec<PathBuf>,
}

impl Figures {
    const HEADER: &str = "target           runs  seconds  runs/s   edges  failed";

    /// Adds the runs and the edges of one process, from its log.
    fn add(&mut self, log: &str) {
        for line in log.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // The reached edges stay known when the process ends by a failure.
                Some(word) if word.starts_with('#') => {
                    let edges = words.skip_while(|word| *word != "cov:").nth(1);
                    self.edges = self.edges.max(number(edges));
                }
                Some("stat::number_of_executed_units:") => self.runs += number(words.next()),
                _ => {}
            }
        }
    }

    fn line(&self, target: &str) -> String {
        let Self { runs, seconds, edges, failed } = self;
        let rate = runs / seconds.max(&1);
        format!("{target:<12} {runs:>8} {seconds:>8} {rate:>7} {edges:>7} {:>7}", failed.len())
    }
}

fn number(word: Option<&str>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, alone};

    #[test]
    fn time_of_a_processor_is_limited_and_not_that_of_the_clock() {
        let ends_well = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh", "an argument"]).env("KNOWN", "known");
            limited(&command, 1).status().expect("a shell").success()
        };
        assert!(ends_well("sleep 1.5"));
        assert!(ends_well("test \"$1 $KNOWN\" = 'an argument known'"));
        assert!(!ends_well("while :; do :; done"));
        assert!(!ends_well("exit 3"));
    }

    /// Stands for a program with libFuzzer: the first time, it finds one input that took long while others worked, then one
    /// that always takes long.
    const FUZZER: &str = r#"
for argument; do
    case $argument in
        -artifact_prefix=*) place=${argument#*=} ;;
        -timeout=0) alone=yes ;;
    esac
done
if [ "$alone" ]; then exec test "$(cat "$argument")" = starved; fi
echo "stat::number_of_executed_units: 5"
if [ -e "$0.again" ]; then echo slow > "${place}timeout-2"; else echo starved > "${place}timeout-1"; fi
touch "$0.again"
exit 70
"#;

    #[test]
    fn an_input_that_waited_for_a_processor_is_no_failure() {
        let _alone = alone();
        let folder = tempfile::tempdir().expect("a folder");
        let checkout = Checkout::imitate(folder.path());
        let program = folder.path().join("fuzz");
        testing::program(&program, FUZZER);
        let fuzzer = Fuzzer { checkout: &checkout, program: &program, target: "zip" };
        let options = Options { target: None, minutes: 60, jobs: 1, input: None, minimize: false };
        let figures = fuzzer.fuzz(&options).expect("it runs");
        let failures = folder.path().join("target/fuzz/failures/zip");
        assert_eq!((figures.runs, &figures.failed), (10, &vec![failures.join("timeout-2")]));
        assert_eq!(files(&failures).expect("a folder"), figures.failed);
    }

    #[test]
    fn figures_are_found_in_the_log() {
        let log = "\
#2\tINITED cov: 210 ft: 211 corp: 1/1b exec/s: 0 rss: 29Mb
#4096\tpulse  cov: 1300 ft: 2611 corp: 90/4Kb lim: 4 exec/s: 2048 rss: 31Mb
#9000\tDONE   cov: 1304 ft: 2620 corp: 92/4Kb lim: 4 exec/s: 2250 rss: 31Mb
Done 9000 runs in 4 second(s)
stat::number_of_executed_units: 9000
stat::average_exec_per_sec:     2250
";
        let mut figures = Figures::default();
        figures.add(log);
        let expected = Figures { runs: 9000, edges: 1304, ..Figures::default() };
        assert_eq!(figures, expected);
        figures.add(log);
        figures.seconds = 4;
        assert_eq!(figures.line("zip"), "zip             18000        4    4500    1304       0");
    }
}
