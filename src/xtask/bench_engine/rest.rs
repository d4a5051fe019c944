//! What is measured of `pipeline` alone, or beside `b3sum`: the start, plans of large matrices, hashing, an artifact of very many files.

use super::measuring::{make_writable, median, run_quietly};
use crate::cargo::Cargo;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The instances of the plans, beside the one stage that all of them read.
const INSTANCES: [usize; 4] = [10_000, 25_000, 50_000, 100_000];
/// The bytes of the large file.
const LARGE: usize = 2_000_000_000;
/// How many small files are hashed, and the bytes of each.
const SMALL_FILES: usize = 100_000;
const SMALL: usize = 1_000;
/// The files of the artifact.
const FILES: usize = 1_000_000;

/// Measures in a new folder, and prints a table. `b3sum` is installed into `tools` once.
pub(super) fn run(
    cargo: &Cargo,
    pipeline: &Path,
    folder: &Path,
    tools: &Path,
    rounds: usize,
) -> Result<()> {
    if folder.exists() {
        make_writable(folder)?;
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let tools_text = tools.to_str().context("the path of this checkout is not text")?;
    if !tools.join("bin/b3sum").exists() {
        cargo.run(&["install", "b3sum", "--quiet", "--root", tools_text])?;
    }
    println!("| what | |\n| --- | --- |");
    let mut version = Command::new(pipeline);
    let time = in_turns(&mut [version.arg("--version")], rounds)?[0];
    println!("| `--version` | {} |", in_words(time));
    plans(pipeline, folder, rounds)?;
    hashing(pipeline, &tools.join("bin/b3sum"), folder, rounds)?;
    many_files(pipeline, folder, rounds)
}

/// The medians of these commands, which take turns.
fn in_turns(commands: &mut [&mut Command], rounds: usize) -> Result<Vec<Duration>> {
    let mut times = vec![Vec::new(); commands.len()];
    for _ in 0..rounds {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            times.push(time(command)?);
        }
    }
    Ok(times.iter_mut().map(|times| median(times)).collect())
}

fn time(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    run_quietly(command)?;
    Ok(begin.elapsed())
}

fn in_words(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1000.0),
        seconds => format!("{seconds:.2} s"),
    }
}

/// A command of `pipeline` about a manifest with this text, in a new folder.
fn about(pipeline: &Path, folder: &Path, text: &str, command: &str) -> Result<Command> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("pipeline.toml"), text)?;
    let mut program = Command::new(pipeline);
    program.current_dir(folder).args([command, "--cache", "cache"]);
    Ok(program)
}

/// Plans of an empty cache: each looks at everything again, as it writes nothing.
fn plans(pipeline: &Path, folder: &Path, rounds: usize) -> Result<()> {
    for (what, manifest) in
        [("commands", commands as fn(usize) -> String), ("trainings", trainings)]
    {
        for instances in INSTANCES {
            let folder = folder.join(format!("plan-{what}-{instances}"));
            fs::create_dir_all(folder.join("images"))?;
            let mut plan = about(pipeline, &folder, &manifest(instances), "plan")?;
            let time = in_words(in_turns(&mut [&mut plan], rounds)?[0]);
            let megabytes = peak_memory(&mut plan)? / 1_000_000;
            println!("| plan of {instances} {what} | {time}, {megabytes} MB |");
        }
    }
    Ok(())
}

/// Commands that all read what one more command makes.
fn commands(instances: usize) -> String {
    let (tens, ones): (Vec<_>, Vec<_>) = ((0..instances / 100).collect(), (0..100).collect());
    format!(
        "[experiment]\nname = \"plan\"\n\n[matrix]\na = {tens:?}\nb = {ones:?}\n\n\
         [stages.first]\nkind = \"command\"\nrun = [\"true\"]\n\n\
         [stages.each]\nkind = \"command\"\ninputs = {{ before = \"first\" }}\nrun = [\"echo\", \"${{a}}\", \"${{b}}\"]\n"
    )
}

/// Trainings on corrupted labels: for each seed a split, and for each of three rates the labels, the training and its evaluation.
fn trainings(instances: usize) -> String {
    let seeds: Vec<_> = (0..instances / 10).collect();
    format!(
        "[experiment]\nname = \"plan\"\nseed = \"${{seed}}\"\n\n[matrix]\nrate = [0.2, 0.5, 0.8]\nseed = {seeds:?}\n\n\
         [stages.images]\nkind = \"dataset\"\nformat = \"idx\"\npath = \"images\"\n\n\
         [stages.split]\nkind = \"split\"\ndata = \"images\"\nholdout = 100\n\n\
         [stages.noisy]\nkind = \"corrupt-labels\"\ndata = \"images\"\nsplit = \"split\"\nrate = \"${{rate}}\"\n\n\
         [stages.train]\nkind = \"train\"\ndata = \"images\"\nsplit = \"split\"\nlabels = \"noisy\"\n\n\
         [stages.evaluate]\nkind = \"evaluate\"\nmodel = \"train\"\ndata = \"images\"\n"
    )
}

/// The most memory that a command has, in bytes, by a look every few milliseconds.
fn peak_memory(command: &mut Command) -> Result<u64> {
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or_default() * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(peak)
}

/// Plans that read files, beside `b3sum`: without a cache, no digest is remembered.
fn hashing(pipeline: &Path, b3sum: &Path, folder: &Path, rounds: usize) -> Result<()> {
    let (large, small) = (folder.join("large"), folder.join("small"));
    let text = |files: &str| {
        format!(
            "[experiment]\nname = \"hashing\"\n\n[stages.read]\nkind = \"command\"\nfiles = [\"{files}\"]\nrun = [\"true\"]\n"
        )
    };
    let mut plan = about(pipeline, &large, &text("file"), "plan")?;
    let mut file = BufWriter::new(File::create(large.join("file"))?);
    let byte = |number: u32| (number.wrapping_mul(number) >> 8) as u8;
    let block: Vec<u8> = (0..1_000_000).map(byte).collect();
    (0..LARGE / block.len()).try_for_each(|_| file.write_all(&block))?;
    drop(file);
    flush()?;
    let mut peer = Command::new(b3sum);
    let times = in_turns(&mut [&mut plan, peer.arg(large.join("file"))], rounds)?;
    println!("| a file of {LARGE} bytes | {} |", beside_b3sum(&times));

    let mut plan = about(pipeline, &small, &text("files"), "plan")?;
    let files = small.join("files");
    fs::create_dir(&files)?;
    let names: Vec<String> = (0..SMALL_FILES).map(|number| number.to_string()).collect();
    for (name, bytes) in names.iter().zip(block.windows(SMALL)) {
        fs::write(files.join(name), bytes)?;
    }
    flush()?;
    let mut peer = Command::new(b3sum);
    peer.current_dir(&files).args(&names);
    let times = in_turns(&mut [&mut plan, &mut peer], rounds)?;
    println!("| {SMALL_FILES} files of {SMALL} bytes | {} |", beside_b3sum(&times));
    Ok(())
}

/// Our time and that of `b3sum`, and how many times as fast we are.
fn beside_b3sum(times: &[Duration]) -> String {
    let ratio = times[1].as_secs_f64() / times[0].as_secs_f64();
    format!("{}; `b3sum` {}; {ratio:.2} times as fast", in_words(times[0]), in_words(times[1]))
}

/// Writes what was made to the disk, which would otherwise go on beside what is measured.
fn flush() -> Result<()> {
    ensure!(Command::new("sync").status().context("cannot run sync")?.success(), "sync failed");
    Ok(())
}

/// Runs with nothing to do, once a stage has made very many files.
fn many_files(pipeline: &Path, folder: &Path, rounds: usize) -> Result<()> {
    let text = format!(
        "[experiment]\nname = \"many\"\n\n[stages.files]\nkind = \"command\"\n\
         run = [\"sh\", \"-c\", \"cd \\\"$0\\\" && seq {FILES} | xargs touch\", \"{{output}}\"]\n"
    );
    let mut run = about(pipeline, &folder.join("many"), &text, "run")?;
    let first = in_words(time(&mut run)?);
    let nothing = in_words(in_turns(&mut [&mut run], rounds)?[0]);
    println!("| an artifact of {FILES} files | made in {first}; nothing to do {nothing} |");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_take_turns_and_their_medians_are_in_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = folder.path().join("said");
        let say = |word: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "printf \"$1\" >> \"$2\"", "sh", word]).arg(&said);
            shell
        };
        let times = in_turns(&mut [&mut say("a"), &mut say("b")], 3).expect("a shell");
        assert_eq!(times.len(), 2);
        assert_eq!(fs::read_to_string(&said).expect("written"), "ababab");
        assert_eq!(in_words(Duration::from_micros(1_840)), "1.8 ms");
        assert_eq!(in_words(Duration::from_millis(1_810)), "1.81 s");
        let times = [200, 180].map(Duration::from_millis);
        assert_eq!(beside_b3sum(&times), "0.20 s; `b3sum` 0.18 s; 0.90 times as fast");
    }
}
