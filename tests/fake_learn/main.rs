//! A worker for the learning kinds that needs no libtorch: it speaks the real protocol, and computes a
//! chain of hashes where the real one trains.
//!
//! Like a training it is deterministic, takes steps, writes a checkpoint after each and goes on from one.
//! What else it does is in the environment: `FAKE_LEARN` (see [`Behaviour`]), `FAKE_LEARN_STEPS`, and
//! `FAKE_LEARN_JOURNAL`, a file to which it appends its process id and each step that it really did.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use pipeline_stages::message::{Event, Hello, Metrics, Progress, RanOn, Unit};
use pipeline_stages::worker::{Context, Stopped, serve};
use pipeline_stages::{ArtifactType, KindConfig};

const PROGRAM: &str = "pipeline-learn";
const STEPS: u64 = 20;
/// Threads that it says it has where nobody says how many.
const THREADS: u32 = 4;
const SLOW_STEP: Duration = Duration::from_millis(50);

/// What the worker does, by the value of `FAKE_LEARN`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// Not set: all steps at once.
    Prompt,
    /// `slow`: 50 ms a step.
    Slow,
    /// `stubborn`: as slow, and deaf to requests to stop.
    Stubborn,
    /// `other-version`: says hello as another build.
    OtherVersion,
    /// `garbage`: sends something that is not a hello.
    Garbage,
    /// `mute`: leaves before it says anything.
    Mute,
    /// `die`: ends by a signal of its own making in the middle of its work.
    Die,
    /// `other-kinds`: says that it is another build of the same version.
    OtherKinds,
    /// `not-a-number`: does its work, and measured NaN.
    NotANumber,
    /// `silent-exit`: leaves with success, but says no result.
    SilentExit,
    /// `panic`: panics.
    Panic,
    /// `flood`: prints megabytes that are no events, then does its work.
    Flood,
    /// `drift`: produces another result than it should, and metrics that are 0.003 higher.
    Drift,
    /// `gpu`: says that it runs on the first GPU that it sees, has a folder of the name of this in `FAKE_LEARN_GPUS` while it runs, and
    /// waits until as many were there at once as `FAKE_LEARN_TOGETHER` says.
    Gpu,
    /// `out-of-memory`: in the middle of its work there is not enough memory of the GPU, unless it has a checkpoint; then it
    /// fails where `FAKE_LEARN_BESIDE`, a file, exists.
    OutOfMemory,
    /// `by-threads`: its result depends on its count of threads, as the last bits of real sums do.
    ByThreads,
}

impl Behaviour {
    fn from_environment() -> anyhow::Result<Self> {
        Ok(match std::env::var("FAKE_LEARN").unwrap_or_default().as_str() {
            "" => Self::Prompt,
            "slow" => Self::Slow,
            "stubborn" => Self::Stubborn,
            "other-version" => Self::OtherVersion,
            "other-kinds" => Self::OtherKinds,
            "not-a-number" => Self::NotANumber,
            "garbage" => Self::Garbage,
            "mute" => Self::Mute,
            "die" => Self::Die,
            "silent-exit" => Self::SilentExit,
            "panic" => Self::Panic,
            "flood" => Self::Flood,
            "drift" => Self::Drift,
            "gpu" => Self::Gpu,
            "out-of-memory" => Self::OutOfMemory,
            "by-threads" => Self::ByThreads,
            other => anyhow::bail!("FAKE_LEARN={other} is not a behaviour of this worker"),
        })
    }
}

fn main() -> ExitCode {
    match Behaviour::from_environment() {
        Ok(Behaviour::OtherVersion) => {
            let hello = Hello { version: "99.0.0".to_owned(), ..Hello::of(PROGRAM) };
            println!("{}", serde_json::json!(Event::Hello(hello)));
            ExitCode::SUCCESS
        }
        Ok(Behaviour::OtherKinds) => {
            let hello = Hello { contract: "0".repeat(16), ..Hello::of(PROGRAM) };
            println!("{}", serde_json::json!(Event::Hello(hello)));
            ExitCode::SUCCESS
        }
        Ok(Behaviour::Garbage) => {
            println!("Welcome to another program!");
            ExitCode::SUCCESS
        }
        Ok(Behaviour::Mute) => {
            eprintln!("libtorch_cpu.so: cannot open shared object file");
            ExitCode::from(127)
        }
        Ok(behaviour) => serve(PROGRAM, |stage, context| run(behaviour, stage, context)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(behaviour: Behaviour, stage: &KindConfig, context: &Context) -> anyhow::Result<Metrics> {
    journal(&format!("pid {}", std::process::id()))?;
    match behaviour {
        Behaviour::Die => {
            for line in 1..=30 {
                eprintln!("line {line} of the log");
            }
            std::process::abort();
        }
        Behaviour::SilentExit => std::process::exit(0),
        Behaviour::Panic => panic!("an index was out of bounds"),
        Behaviour::Flood => flood()?,
        _ => {}
    }
    let threads = context.execution.threads.unwrap_or(THREADS);
    match behaviour {
        Behaviour::Gpu => take_gpu(context)?,
        _ => context.ran_on(RanOn::cpu(threads)),
    }
    let mut result = train(behaviour, stage, context)?.to_hex().to_string();
    match behaviour {
        Behaviour::Drift => result.push_str(" and something else"),
        Behaviour::ByThreads => result.push_str(&format!(" with {threads} threads")),
        _ => {}
    }
    fs::write(context.output.join("result.txt"), format!("{result}\n"))?;
    // Numbers that stay when a kind gets another parameter, so that the tests need not change.
    let number = match behaviour {
        Behaviour::NotANumber => f64::NAN,
        Behaviour::Drift => 0.503,
        _ => 0.5,
    };
    let metrics: Metrics =
        stage.info().headline.iter().map(|&name| (name.to_owned(), number)).collect();
    if stage.output() == ArtifactType::Metrics {
        fs::write(context.output.join("metrics.json"), serde_json::to_vec(&metrics)?)?;
    }
    Ok(metrics)
}

/// Hashes over and over. Only the number of steps and what goes in decide the result.
fn train(
    behaviour: Behaviour,
    stage: &KindConfig,
    context: &Context,
) -> anyhow::Result<blake3::Hash> {
    let steps = match std::env::var("FAKE_LEARN_STEPS") {
        Ok(text) => text.parse().context("FAKE_LEARN_STEPS is no number")?,
        Err(_) => STEPS,
    };
    let checkpoint = context.checkpoint.join("checkpoint.json");
    let (first, mut state) = match fs::read(&checkpoint) {
        Ok(bytes) => serde_json::from_slice::<(u64, String)>(&bytes)
            .map_err(anyhow::Error::from)
            .and_then(|(step, state)| Ok((step, blake3::Hash::from_hex(state)?)))
            .context("the checkpoint is damaged")?,
        Err(_) => (0, start(stage, context)?),
    };
    if behaviour == Behaviour::OutOfMemory && first > 0 {
        let beside = std::env::var_os("FAKE_LEARN_BESIDE").context("where is it?")?;
        anyhow::ensure!(!Path::new(&beside).exists(), "something runs beside this");
    }
    for step in first..steps {
        if behaviour == Behaviour::OutOfMemory && first == 0 && step == steps / 2 {
            anyhow::bail!("CUDA out of memory. Tried to allocate 2.00 GiB");
        }
        if context.stopping() && behaviour != Behaviour::Stubborn {
            return Err(Stopped.into());
        }
        if matches!(behaviour, Behaviour::Slow | Behaviour::Stubborn) {
            std::thread::sleep(SLOW_STEP);
        }
        state = blake3::hash(state.as_bytes());
        journal(&format!("step {step}"))?;
        eprintln!("step {step}");
        save(&checkpoint, &serde_json::to_vec(&(step + 1, state.to_hex().as_str()))?)?;
        context.measured(step + 1, [("loss", 1.0 / (step + 1) as f64)]);
        context.progress(Progress {
            done: step + 1,
            total: Some(steps),
            unit: Unit::Steps,
            phase: Some(format!("epoch {}/{steps}", step + 1)),
        });
    }
    Ok(state)
}

/// A hash of all that may change the result.
fn start(stage: &KindConfig, context: &Context) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(serde_json::to_string(&stage.key_parameters())?.as_bytes());
    if stage.info().seeded {
        hasher.update(&context.seed.to_le_bytes());
    }
    for port in (stage.info().ports)() {
        for input in context.inputs(&port.name()) {
            for file in files(&input.path)? {
                hasher.update(&fs::read(file)?);
            }
        }
    }
    Ok(hasher.finalize())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = listing.iter().map(fs::DirEntry::path).collect();
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// In one step: whoever is killed while writing leaves the old checkpoint.
fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    Ok(fs::rename(new, path)?)
}

fn journal(line: &str) -> anyhow::Result<()> {
    let Some(path) = std::env::var_os("FAKE_LEARN_JOURNAL") else { return Ok(()) };
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(format!("{line}\n").as_bytes())?)
}

/// Takes the GPU that it sees for as long as it works. Fails where another one has it.
fn take_gpu(context: &Context) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let folder = PathBuf::from(std::env::var_os("FAKE_LEARN_GPUS").context("where is it?")?);
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").context("no GPU was handed out")?;
    let together: usize = std::env::var("FAKE_LEARN_TOGETHER")?.parse()?;
    journal(&format!("gpu {visible}, device {}", context.execution.device))?;
    let own = folder.join(&visible);
    fs::create_dir(&own).with_context(|| format!("the GPU {visible} is taken"))?;
    let (began, met) = (std::time::Instant::now(), folder.join("met"));
    while !met.exists() {
        if fs::read_dir(&folder)?.count() >= together {
            fs::write(&met, "")?;
        }
        anyhow::ensure!(began.elapsed() < PATIENCE, "nobody else has a GPU");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(SLOW_STEP);
    fs::remove_dir(&own)?;
    context.ran_on(RanOn::gpu(0, None));
    context.gpu_memory(5_000_000_000);
    Ok(())
}

fn flood() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in 0..200_000 {
        writeln!(out, "a library counts: {line}")?;
    }
    writeln!(out, "{}", "x".repeat(8 << 20))?;
    out.write_all(&[0xff, 0xfe, b'\n'])?;
    writeln!(out, "{{\"event\": \"of another kind\"}}")?;
    Ok(())
}
