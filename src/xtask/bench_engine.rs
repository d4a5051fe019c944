//! `cargo xtask bench-engine`: the same work as a `build.ninja`, a `Snakefile`, a `dvc.yaml` and a manifest of ours, side by side.
//!
//! The work: a large source, one stage that reads its beginning, and chains of three stages that copy a small file, each with a seed of its
//! own. Times are of whole processes.

mod measuring;
mod rest;

use crate::cargo::Cargo;
use crate::checkout::Checkout;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use measuring::{make_writable, median, run_quietly};

/// The stages of a chain.
const LINKS: usize = 3;

/// With more stages than this, a first run takes too long to be timed several times unasked.
const MOST_STAGES_OFTEN: usize = 3001;

/// What is measured.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Options {
    /// How many stages there are, about: 1 and a multiple of 3
    #[arg(long, default_value_t = 301)]
    stages: usize,
    /// How often each run is timed that finds little to do
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often the first run is timed, each time in a new folder [default: 3 with up to 3,001 stages, else 1]
    #[arg(long, value_name = "N")]
    first_rounds: Option<usize>,
    /// The programs; those that take seconds are left out of large numbers of stages this way
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "ninja,pipeline,pipeline-lazy,snakemake,dvc"
    )]
    engines: Vec<Engine>,
    /// The size of the source, in megabytes
    #[arg(long, default_value_t = 200)]
    source: u64,
    /// Measures the rest instead: `--version`, plans of up to 100,001 instances, hashing beside b3sum, an artifact of a million files
    #[arg(long, conflicts_with_all = ["stages", "engines", "source", "first_rounds"])]
    rest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Ninja,
    Pipeline,
    /// With `--durability=lazy`.
    PipelineLazy,
    Snakemake,
    Dvc,
}

/// A folder with the work for one engine.
struct Bench<'a> {
    engine: Engine,
    folder: PathBuf,
    /// The folder of the peers' programs.
    peers: &'a Path,
    pipeline: &'a Path,
}

/// What one engine took.
struct Times {
    engine: Engine,
    first: Vec<Duration>,
    nothing: Vec<Duration>,
    one_changed: Vec<Duration>,
}

/// Measures, and prints a table.
///
/// # Errors
/// If a peer cannot be installed, or an engine fails or does other work than it should.
pub fn run(checkout: &Checkout, cargo: &Cargo, options: &Options) -> Result<()> {
    let chains = options.stages.saturating_sub(1) / LINKS;
    let stages = 1 + chains * LINKS;
    let few = if stages <= MOST_STAGES_OFTEN { 3 } else { 1 };
    let first_rounds = options.first_rounds.unwrap_or(few);
    ensure!(chains > 0 && options.rounds.min(first_rounds) > 0, "there is nothing to measure");
    cargo.run(&["build", "--release", "-p", "pipeline"])?;
    let top = checkout.root().join("target/bench-engine");
    let pipeline = checkout.root().join("target/release/pipeline");
    if options.rest {
        let tools = top.join("tools");
        return rest::run(cargo, &pipeline, &top.join("rest"), &tools, options.rounds);
    }
    let peers = installed_peers(&top.join("peers"), &options.engines)?;
    let work = top.join("work");
    let old = set_aside(&work)?;
    let engines = options.engines.iter();
    let mut times: Vec<Times> = engines.clone().map(|&engine| Times::none(engine)).collect();
    let mut benches = Vec::new();
    // In turns: the machine may become slower or faster meanwhile. Nothing is removed between them: see `set_aside`.
    for round in 0..first_rounds {
        let folder = work.join(round.to_string());
        let new = engines.clone().map(|&engine| {
            let folder = folder.join(engine.name());
            Bench { engine, folder, peers: &peers, pipeline: &pipeline }
        });
        benches = new.collect::<Vec<_>>();
        benches.iter().try_for_each(|bench| bench.prepare(chains, options.source))?;
        for (bench, times) in benches.iter().zip(&mut times) {
            let (first, said) = bench.time()?;
            bench.check(chains, &seed(chains), &said, stages)?;
            eprintln!("{}: first run {:.1} s", bench.engine.name(), first.as_secs_f64());
            times.first.push(first);
        }
    }
    for round in 0..options.rounds {
        for (bench, times) in benches.iter().zip(&mut times) {
            times.nothing.push(bench.time()?.0);
            let text = format!("changed {round}\n");
            fs::write(bench.folder.join(format!("seeds/{chains}")), &text)?;
            let (one_changed, said) = bench.time()?;
            bench.check(chains, &text, &said, LINKS)?;
            times.one_changed.push(one_changed);
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    println!("{}", table(&mut times, stages));
    for folder in old {
        make_writable(&folder)?;
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Gives the folder of an earlier measurement another name, and returns what is to be removed after this one. Where ext4 has no journal,
/// it does not use what was removed within the last minutes, and looks at all of it for each new file: a first run takes twice as long.
fn set_aside(work: &Path) -> Result<Vec<PathBuf>> {
    let aside = (0..).map(|number: u32| work.with_extension(format!("old-{number}")));
    let mut old = Vec::new();
    for place in aside {
        let is_free = !place.exists();
        if is_free && !work.exists() {
            break;
        }
        if is_free {
            fs::rename(work, &place)?;
        }
        old.push(place);
    }
    Ok(old)
}

/// The folder of the peers' programs, which are installed once.
fn installed_peers(place: &Path, engines: &[Engine]) -> Result<PathBuf> {
    let programs = place.join("bin");
    let missing = engines.iter().filter_map(|engine| engine.package());
    let missing: Vec<&str> = missing.filter(|package| !programs.join(package).exists()).collect();
    if !missing.is_empty() {
        run_quietly(Command::new("python3").args(["-m", "venv"]).arg(place))?;
        let mut pip = Command::new(programs.join("pip"));
        run_quietly(pip.args(["install", "--quiet"]).args(missing))?;
    }
    Ok(programs)
}

/// The content of the seed of a chain, at first.
fn seed(chain: usize) -> String {
    format!("seed {chain}\n")
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Ninja => "ninja",
            Self::Pipeline => "pipeline",
            Self::PipelineLazy => "pipeline-lazy",
            Self::Snakemake => "snakemake",
            Self::Dvc => "dvc",
        }
    }

    /// What it is called on PyPI, where it is a peer; its program has the same name.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Ninja | Self::Snakemake | Self::Dvc => Some(self.name()),
            Self::Pipeline | Self::PipelineLazy => None,
        }
    }

    /// The name of its file, and what is in it.
    fn file(self, chains: usize) -> (&'static str, String) {
        match self {
            Self::Ninja => ("build.ninja", build_ninja(chains)),
            Self::Pipeline | Self::PipelineLazy => ("pipeline.toml", manifest(chains)),
            Self::Snakemake => ("Snakefile", snakefile(chains)),
            Self::Dvc => ("dvc.yaml", dvc_yaml(chains)),
        }
    }
}

impl Times {
    fn none(engine: Engine) -> Self {
        Self { engine, first: Vec::new(), nothing: Vec::new(), one_changed: Vec::new() }
    }
}

impl Bench<'_> {
    fn prepare(&self, chains: usize, megabytes: u64) -> Result<()> {
        fs::create_dir_all(self.folder.join("out"))?;
        File::create(self.folder.join("source"))?.set_len(megabytes * 1_000_000)?;
        fs::create_dir(self.folder.join("seeds"))?;
        for chain in 1..=chains {
            fs::write(self.folder.join(format!("seeds/{chain}")), seed(chain))?;
        }
        let (name, text) = self.engine.file(chains);
        fs::write(self.folder.join(name), text)?;
        if self.engine == Engine::Dvc {
            self.dvc(&["init", "--no-scm", "--quiet"])?;
            self.dvc(&["config", "core.analytics", "false"])?;
        }
        Ok(())
    }

    fn dvc(&self, arguments: &[&str]) -> Result<()> {
        run_quietly(self.peer("dvc").args(arguments)).map(|_| ())
    }

    fn peer(&self, program: &str) -> Command {
        let mut command = Command::new(self.peers.join(program));
        command.current_dir(&self.folder);
        command
    }

    /// Runs everything that is to run: how long it took, and what it printed.
    fn time(&self) -> Result<(Duration, String)> {
        let mut command = match self.engine {
            Engine::Ninja => self.peer("ninja"),
            Engine::Pipeline | Engine::PipelineLazy => {
                let mut command = Command::new(self.pipeline);
                command.current_dir(&self.folder).args(["run", "--cache", "cache"]);
                let is_lazy = self.engine == Engine::PipelineLazy;
                command.args(is_lazy.then_some("--durability=lazy"));
                command
            }
            Engine::Snakemake => {
                let mut command = self.peer("snakemake");
                command.args(["--cores", "all", "--quiet"]);
                command
            }
            Engine::Dvc => {
                let mut command = self.peer("dvc");
                command.args(["repro", "--quiet"]);
                command
            }
        };
        let begin = Instant::now();
        let said = run_quietly(&mut command)?;
        Ok((begin.elapsed(), said))
    }

    /// Checks the end of the last chain: the beginning of the source, and its seed; and how many stages ran, where that
    /// is `said`: stages that do the same as another one do not run here.
    fn check(&self, chain: usize, seed: &str, said: &str, ran: usize) -> Result<()> {
        let path = match self.engine {
            Engine::Pipeline | Engine::PipelineLazy => {
                let last = said.lines().last().unwrap_or_default().replace(',', "");
                let expected = format!(" {ran} ran ");
                ensure!(last.contains(&expected), "not '{expected}', but '{last}'");
                format!("cache/latest/engine/c{chain}/c")
            }
            _ => format!("out/c{chain}"),
        };
        let bytes = fs::read(self.folder.join(&path))?;
        if !bytes.ends_with(seed.as_bytes()) || bytes.len() != BEGINNING + seed.len() {
            bail!("{path} of {} is not what it should be", self.engine.name());
        }
        Ok(())
    }
}

/// How much of the source is read.
const BEGINNING: usize = 1000;

fn build_ninja(chains: usize) -> String {
    let mut text = format!(
        "rule first\n  command = head -c {BEGINNING} $in > $out\nrule copy\n  command = cat $in > $out\n\
         build out/first: first source\n"
    );
    for chain in 1..=chains {
        let _ = write!(
            text,
            "build out/a{chain}: copy out/first seeds/{chain}\nbuild out/b{chain}: copy out/a{chain}\nbuild out/c{chain}: copy out/b{chain}\n"
        );
    }
    text
}

/// Each link has a file of its own name: two with the same bytes would be one artifact, and the next link one stage.
fn manifest(chains: usize) -> String {
    let mut text = format!(
        "[experiment]\nname = \"engine\"\n\n[stages.first]\nkind = \"command\"\nfiles = [\"source\"]\n\
         run = [\"sh\", \"-c\", \"head -c {BEGINNING} source > {{output}}/first\"]\n"
    );
    for chain in 1..=chains {
        let _ = write!(
            text,
            "\n[stages.a{chain}]\nkind = \"command\"\ninputs = {{ before = \"first\" }}\nfiles = [\"seeds/{chain}\"]\n\
             run = [\"sh\", \"-c\", \"cat {{inputs.before}}/first seeds/{chain} > {{output}}/a\"]\n"
        );
        for (link, before) in [("b", "a"), ("c", "b")] {
            let _ = write!(
                text,
                "\n[stages.{link}{chain}]\nkind = \"command\"\ninputs = {{ before = \"{before}{chain}\" }}\n\
                 run = [\"sh\", \"-c\", \"cat {{inputs.before}}/{before} > {{output}}/{link}\"]\n"
            );
        }
    }
    text
}

fn snakefile(chains: usize) -> String {
    let mut text = format!(
        "rule all:\n    input: expand(\"out/c{{n}}\", n=range(1, {}))\n\
         rule first:\n    input: \"source\"\n    output: \"out/first\"\n    shell: \"head -c {BEGINNING} {{input}} > {{output}}\"\n",
        chains + 1
    );
    for (link, before) in
        [("a", "\"out/first\", \"seeds/{n}\""), ("b", "\"out/a{n}\""), ("c", "\"out/b{n}\"")]
    {
        let _ = write!(
            text,
            "rule {link}:\n    input: {before}\n    output: \"out/{link}{{n}}\"\n    shell: \"cat {{input}} > {{output}}\"\n"
        );
    }
    text
}

fn dvc_yaml(chains: usize) -> String {
    let numbers: Vec<String> = (1..=chains).map(|chain| chain.to_string()).collect();
    let mut text = format!(
        "stages:\n  first:\n    cmd: head -c {BEGINNING} source > out/first\n    deps: [source]\n    outs: [out/first]\n"
    );
    for (link, before) in
        [("a", "out/first seeds/${item}"), ("b", "out/a${item}"), ("c", "out/b${item}")]
    {
        let _ = write!(
            text,
            "  {link}:\n    foreach: [{}]\n    do:\n      cmd: cat {before} > out/{link}${{item}}\n      deps: [{}]\n      outs: [\"out/{link}${{item}}\"]\n",
            numbers.join(", "),
            before.split(' ').map(|dep| format!("\"{dep}\"")).collect::<Vec<_>>().join(", ")
        );
    }
    text
}

/// The medians, and their ratios to ninja's.
fn table(times: &mut [Times], stages: usize) -> String {
    let rows: Vec<(Engine, [Duration; 3])> = times
        .iter_mut()
        .map(|one| {
            let all = [&mut one.first, &mut one.nothing, &mut one.one_changed];
            (one.engine, all.map(|times| median(times)))
        })
        .collect();
    let ninja = rows.iter().find(|(engine, _)| *engine == Engine::Ninja).map(|(_, times)| *times);
    let beyond = |first: Duration| {
        let ninja = ninja.map(|[of_ninja, ..]| of_ninja)?;
        let milliseconds = (first.as_secs_f64() - ninja.as_secs_f64()) * 1000.0 / stages as f64;
        Some(format!(", {milliseconds:+.2} ms a stage"))
    };
    let mut text = format!(
        "{stages} stages\n\n| program | first run | nothing to do | one leaf changed |\n| --- | ---: | ---: | ---: |\n"
    );
    for (engine, times) in rows {
        let cells = times.iter().enumerate().map(|(column, time)| {
            let milliseconds = time.as_secs_f64() * 1000.0;
            let ratio = ninja.map(|ninja| milliseconds / (ninja[column].as_secs_f64() * 1000.0));
            let mut cell = format!("{milliseconds:.1} ms");
            if let Some(ratio) = ratio {
                let _ = write!(cell, ", {ratio:.1}");
            }
            if column == 0 && engine != Engine::Ninja {
                cell += &beyond(*time).unwrap_or_default();
            }
            cell
        });
        let _ = writeln!(text, "| {} | {} |", engine.name(), cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stages_are_written_for_each_program() {
        assert_eq!(build_ninja(2).matches("\nbuild ").count(), 7);
        assert_eq!(manifest(2).matches("\n[stages.").count(), 7);
        assert_eq!(snakefile(2).matches("rule ").count(), 5);
        assert!(snakefile(2).contains("range(1, 3)"));
        assert_eq!(dvc_yaml(2).matches("foreach: [1, 2]").count(), 3);
    }

    #[test]
    fn what_is_measured_is_in_a_new_folder_and_what_was_is_to_be_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let work = folder.path().join("work");
        assert_eq!(set_aside(&work).expect("writable"), [""; 0].map(PathBuf::from));
        let old = ["work.old-0", "work.old-1"].map(|name| folder.path().join(name));
        for count in 1..=2 {
            fs::create_dir(&work).expect("writable");
            assert_eq!(set_aside(&work).expect("writable"), old[..count]);
            assert!(!work.exists());
        }
    }

    #[test]
    fn times_are_medians_beside_those_of_ninja() {
        let ms = Duration::from_millis;
        let times = |engine, first: u64, others: [u64; 3]| Times {
            engine,
            first: [first + 1, first, 1].map(ms).to_vec(),
            nothing: others.map(ms).to_vec(),
            one_changed: vec![ms(first)],
        };
        let mut times =
            [times(Engine::Ninja, 100, [3, 2, 9]), times(Engine::Dvc, 250, [30, 12, 60])];
        let expected = "\
7 stages

| program | first run | nothing to do | one leaf changed |
| --- | ---: | ---: | ---: |
| ninja | 100.0 ms, 1.0 | 3.0 ms, 1.0 | 100.0 ms, 1.0 |
| dvc | 250.0 ms, 2.5, +21.43 ms a stage | 30.0 ms, 10.0 | 250.0 ms, 2.5 |
";
        assert_eq!(table(&mut times, 7), expected);
    }
}
