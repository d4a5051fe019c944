//! One stage, on a thread of its own: claim its key, run its worker, commit.
//!
//! Prints nothing.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline_stages::WorkerProgram;
use pipeline_stages::message::{self, Event, RanOn};
use pipeline_stages::worker::{DISK_IS_FULL, io_error_kind, with_disk_advice};
use serde::{Deserialize, Serialize};

use super::advance::Advance;
use super::handle::Wanted;
use super::reads::{Reads, Touched};
use super::spec::JobSpec;
use crate::cache::{
    Cache, Claim, Committed, ExecutionFacts, InputFolder, KnownResult, Lock, Lookup, NotCommitted,
    Owner, Record, StatIndex, Withdrawn, forget_file,
};
use crate::digest::Digest;
use crate::events::{RunEvent, Setup};
use crate::key::StageKey;
use crate::launcher::Launcher;
use crate::manifest::{Failing, Stage};
use crate::reason::Reason;
use crate::usage::Usage;
use crate::worker;

/// How often a process that waits for another one looks whether it is done.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The body of a job, and what it works with.
pub(crate) struct Job<'a> {
    /// What is to be done.
    pub(crate) spec: &'a JobSpec,
    pub(crate) cache: &'a Cache,
    /// How its worker is started.
    pub(crate) launcher: &'a dyn Launcher,
    /// The memory of files outside the cache.
    pub(crate) index: &'a StatIndex,
    /// What is wanted of it.
    pub(crate) wanted: &'a Wanted,
    /// How long it waits for another process that has its key.
    pub(crate) patience: Duration,
}

/// What a job reports on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JobEvent {
    /// The scheduler of an executor has it in its queue.
    Queued { executor: String, job: String },
    /// Another process has the lock of its key.
    Waits,
    /// Its worker starts.
    Starts {
        /// Why.
        why: Reason,
        /// Whether there is a checkpoint of an interrupted run.
        resumes: bool,
        /// Whose worker that is, where it is not one of this run.
        #[serde(skip)]
        owner: Option<Owner>,
    },
    /// Its worker says something.
    Worker(Event),
    /// What is left takes next to nothing of the machine: it waits for the disk.
    GivesBack,
    /// An artifact was found damaged.
    Damage {
        artifact: Digest,
        /// What no longer counts, because it was made from it.
        withdrawn: Vec<Withdrawn>,
    },
}

impl JobEvent {
    /// What happened, for reporters, where it is for them.
    pub(crate) fn for_reporters(self, stage: &Stage, key: StageKey) -> Option<RunEvent> {
        let (declaration, info) = (stage, stage.stage.info());
        let (kind, stage) = (info.name, declaration.name.clone());
        Some(match self {
            Self::Queued { executor, job } => RunEvent::Queued { stage, executor, job },
            Self::Waits => RunEvent::Wait { stage },
            Self::Starts { why, resumes, owner } => {
                let setup = Setup {
                    output: declaration.stage.output(),
                    seed: info.seeded.then_some(declaration.seed),
                    parameters: declaration.stage.key_parameters(),
                };
                RunEvent::Start { stage, kind, key, why, resumes, owner, setup }
            }
            Self::Worker(Event::Progress(progress)) => RunEvent::Progress { stage, progress },
            Self::Worker(Event::Measured(measured)) => RunEvent::Measured { stage, measured },
            Self::Worker(Event::Note { text } | Event::Limitation { text }) => {
                RunEvent::Note { stage, text }
            }
            Self::Worker(_) | Self::GivesBack => return None,
            Self::Damage { artifact, withdrawn } => {
                RunEvent::Note { stage, text: withdrawn_note(&artifact, &withdrawn)? }
            }
        })
    }
}

/// Says what was withdrawn, in a line; nothing where nothing was.
pub(crate) fn withdrawn_note(artifact: &Digest, withdrawn: &[Withdrawn]) -> Option<String> {
    let names: Vec<_> = withdrawn.iter().map(|one| one.record.name()).collect();
    let text = || {
        format!(
            "what was made from the damaged artifact {} no longer counts: {}; if you know that the damage came later, \
             `pipeline verify --restore` brings it back",
            artifact.short(),
            names.join(", ")
        )
    };
    (!names.is_empty()).then(text)
}

/// How a job ended.
pub(crate) enum JobEnd {
    /// Another process ran the same key meanwhile.
    Reused(Box<KnownResult>),
    Ran {
        result: Box<KnownResult>,
        /// From its start to the end of its commit, without the wait for what an interrupted run left running.
        seconds: f64,
        /// The part of its work that these are of, where it continued from a checkpoint.
        part: Option<f64>,
    },
    /// Another process works on its key, and this one does not wait.
    Held,
    /// It was asked to stop.
    Stopped,
    /// It goes on elsewhere, and nobody waits for it any more.
    Left,
    /// Something is known now that decides whether it must run: it did not start.
    LookAgain,
    Failed {
        /// Why.
        message: String,
        /// The last lines of its log.
        log: Vec<String>,
        /// How, for whoever may try again.
        failing: Failing,
    },
    /// An input was damaged, and is out of the way now, or it is gone: the stage that made it must run again.
    LostInput { artifact: Digest, was_damaged: bool },
}

impl JobEnd {
    /// It ran, and this was recorded.
    pub(crate) fn ran(record: Record) -> Self {
        let (seconds, part) = (record.seconds, record.usage.part);
        Self::Ran { result: Box::new(record.into()), seconds, part }
    }

    /// A failure without the lines of a log.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), log: Vec::new(), failing: Failing::Failure }
    }
}

/// What a worker reported at its end.
struct Finished {
    metrics: message::Metrics,
    ran_on: Option<RanOn>,
    usage: Usage,
}

impl Job<'_> {
    /// Runs the stage, to its end.
    pub(crate) fn run(&self, report: &dyn Fn(JobEvent)) -> JobEnd {
        self.attempt(report)
            .unwrap_or_else(|error| self.failed(format!("{:#}", with_advice(error))))
    }

    fn attempt(&self, report: &dyn Fn(JobEvent)) -> anyhow::Result<JobEnd> {
        let mut claim = match self.claim(report)? {
            Lookup::Claim(claim) => claim,
            Lookup::Hit(record) => return Ok(JobEnd::Reused(Box::new((*record).into()))),
            Lookup::Busy if self.is_stopping() => return Ok(JobEnd::Stopped),
            Lookup::Busy => return Ok(JobEnd::Held),
        };
        let JobSpec { declaration, work, inputs, .. } = self.spec;
        let look = || Reads::look(self.cache, declaration, &self.spec.folder, self.index, inputs);
        let reads = look();
        let are_whole = reads.as_ref().is_ok_and(|reads| reads.have_extents_of(inputs));
        for (_, _, stored) in inputs.iter().filter(|_| !are_whole) {
            if let Some(found) = self.cache.quarantine_if_damaged(stored)? {
                let (artifact, withdrawn) = (stored.digest, found.withdrawn);
                report(JobEvent::Damage { artifact, withdrawn });
                return Ok(JobEnd::LostInput { artifact, was_damaged: found.place.is_some() });
            }
        }
        // What was looked at before may have been moved away since, and put there again.
        let reads = if are_whole { reads } else { look() }?;
        if let Some(path) = reads.other_than(&work.parts) {
            let message = format!("{path} changed before the stage started: run it again");
            return Ok(self.failed(message));
        }
        // To look at all that took a while, perhaps.
        if self.is_stopping() {
            return Ok(JobEnd::Stopped);
        }
        let request = self.spec.request(&claim.output(), &claim.checkpoint());
        let launch = self.launcher.launch(declaration.stage.info().worker, &request)?;
        let resumes = claim.resumes();
        report(JobEvent::Starts { why: work.reason.clone(), resumes, owner: None });
        let log = claim.log();
        let mut advance = Advance::default();
        let end = worker::run(launch, &request, &log, &self.wanted.worker, |event| match event {
            Event::Begins => claim.begin(),
            // The end of a process that learns may take a while, in which it still has its memory, also that of a GPU.
            Event::Finished { .. }
                if declaration.stage.info().worker == WorkerProgram::Prepare
                    && reads.are_few()
                    && claim.has_small_output() =>
            {
                report(JobEvent::GivesBack);
            }
            event => {
                if let Event::Progress(progress) = &event {
                    advance.progress(progress);
                }
                report(JobEvent::Worker(event));
            }
        });
        // Where that cannot be found out, it may not be: a commit keeps the output, and looks again.
        if claim.is_lost().unwrap_or(false) {
            return self.lost(claim, report, Claim::LOST.to_owned());
        }
        let end = end?;
        let Touched { spoilt, notes, damaged } = reads.touched();
        for (artifact, withdrawn) in damaged {
            report(JobEvent::Damage { artifact, withdrawn });
        }
        notes.into_iter().for_each(|text| report(JobEvent::Worker(Event::Note { text })));
        if let Some(why) = spoilt {
            // Once more: what it had read may have taken long to look at.
            if claim.is_lost().unwrap_or(false) {
                return self.lost(claim, report, Claim::LOST.to_owned());
            }
            let removed = claim.remove_checkpoint();
            let (first, log) = match end {
                worker::End::Failed { message, log, .. } => (Some(message), log),
                worker::End::Finished { .. } | worker::End::Stopped => (None, Vec::new()),
            };
            let mut why = format!("{why}, so the result is not recorded");
            if let Err(error) = removed {
                why.push_str(&format!("; remove its checkpoint before the next run: {error:#}"));
            }
            worker::write_last_words(&claim.log(), &why);
            let message = first.into_iter().chain([why]).collect::<Vec<_>>().join("\n");
            let (message, failing) = (with_kept_output(message, claim), Failing::Failure);
            return Ok(JobEnd::Failed { message, log, failing });
        }
        match end {
            worker::End::Finished { metrics, ran_on, usage } => {
                let usage = Usage { part: resumes.then(|| advance.part()), ..usage };
                let ended = Finished { metrics, ran_on, usage };
                let end = self.commit(claim, ended, &reads.inputs(), report)?;
                reads.keep();
                Ok(end)
            }
            worker::End::Stopped => Ok(JobEnd::Stopped),
            worker::End::Failed { mut message, log, failing } => {
                // What a program says of that is in its log, if there was room for it.
                let output = claim.output();
                let places = [&*output, self.cache.layout().root()];
                if places.into_iter().any(is_full) && !message.contains(DISK_IS_FULL) {
                    message = format!("{message}\n{DISK_IS_FULL}");
                }
                let message = with_kept_output(message, claim);
                Ok(JobEnd::Failed { message, log, failing })
            }
        }
    }

    /// Whether it was asked to stop.
    fn is_stopping(&self) -> bool {
        self.wanted.stopping.load(Ordering::Relaxed)
    }

    /// A failure that its worker does not know of: the log has the reason, too, as it outlives the terminal.
    fn failed(&self, message: String) -> JobEnd {
        worker::write_last_words(&self.cache.layout().log(&self.spec.work.key), &message);
        JobEnd::failed(message)
    }

    /// The claim to the key, after waiting for whoever has it. `Busy` where the run was stopped meanwhile, or it does not wait for longer.
    fn claim(&self, report: &dyn Fn(JobEvent)) -> anyhow::Result<Lookup> {
        let key = &self.spec.work.key;
        let look = || -> anyhow::Result<Option<Lookup>> {
            let lookup = match self.spec.work.reason {
                Reason::Forced => self.cache.claim_again(key),
                _ => self.cache.claim(key),
            };
            let lookup = lookup.inspect_err(|_| {
                // The log of an earlier run, which a claim removes.
                forget_file(&self.cache.layout().log(key));
            })?;
            Ok(Some(lookup).filter(|lookup| !matches!(lookup, Lookup::Busy)))
        };
        Ok(self.wait(report, look)?.unwrap_or(Lookup::Busy))
    }

    /// Looks at the key until nobody else works on it. `None` where the run was stopped meanwhile, or this job does not wait for longer.
    fn wait<T>(
        &self,
        report: &dyn Fn(JobEvent),
        look: impl Fn() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        // A moment's lock, such as that of somebody who looks, is not worth a line.
        let mut looks = 0_u32;
        loop {
            let found = look()?;
            if found.is_some() || self.is_stopping() || LOCK_POLL * looks >= self.patience {
                return Ok(found);
            }
            looks = looks.saturating_add(1);
            if looks == 2 {
                report(JobEvent::Waits);
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// How it ends where another process has taken its work over, as that has the lock now: it leaves alone what that one writes. Where
    /// nobody has, it fails with `message`.
    fn lost(
        &self,
        claim: Claim,
        report: &dyn Fn(JobEvent),
        message: String,
    ) -> anyhow::Result<JobEnd> {
        drop(claim);
        let key = &self.spec.work.key;
        let found = self.wait(report, || {
            // Before the record is looked for, which is written under the lock.
            let is_held = Lock::is_taken(&self.cache.layout().lock(&key.to_string()));
            let is_forced = self.spec.work.reason == Reason::Forced;
            let record = (!is_forced).then(|| self.cache.usable(key)).flatten();
            Ok((record.is_some() || !is_held).then_some(record))
        })?;
        Ok(match found {
            Some(Some(record)) => JobEnd::Reused(Box::new(record.into())),
            Some(None) if self.is_stopping() => JobEnd::Stopped,
            Some(None) => JobEnd::failed(message),
            None => JobEnd::Held,
        })
    }

    fn commit(
        &self,
        claim: Claim,
        Finished { metrics, ran_on, usage }: Finished,
        inputs: &[InputFolder],
        report: &dyn Fn(JobEvent),
    ) -> anyhow::Result<JobEnd> {
        let JobSpec { declaration, work, experiment, .. } = self.spec;
        let bytes_in = self.spec.inputs.iter().map(|(_, _, stored)| stored.extent.bytes).sum();
        let execution = ExecutionFacts {
            parts: work.parts.clone(),
            stage: declaration.name.to_string(),
            experiment: experiment.clone(),
            reason: work.reason.clone(),
            artifact: declaration.stage.output(),
            metrics,
            ran_on: self.spec.on_this_machine(ran_on),
            usage: Usage { bytes_in: Some(bytes_in), ..usage },
        };
        let hashed = || {
            report(JobEvent::GivesBack);
            // What it pins next waits for the same.
            self.cache.wait_for_cleaning(|text| {
                report(JobEvent::Worker(Event::Note { text: text.to_owned() }));
            });
        };
        let watch = &self.wanted.watch;
        let Committed { record, withdrawn } = match claim.commit(execution, inputs, watch, &hashed)
        {
            Ok(committed) => committed,
            // Its output goes with the claim.
            Err(_) if watch.is_stopped() => return Ok(JobEnd::Stopped),
            Err(failed) => {
                let NotCommitted { error, claim } = *failed;
                let message = format!("{:#}", with_advice(error));
                if claim.is_lost().unwrap_or(false) {
                    return self.lost(claim, report, message);
                }
                return Ok(self.failed(with_kept_output(message, claim)));
            }
        };
        if !withdrawn.is_empty() {
            report(JobEvent::Damage { artifact: record.output.digest, withdrawn });
        }
        // Here, where no other stage waits for it. Whoever takes the end finds out, and says it, if it was not remembered.
        let _ = self.cache.set_head(experiment, declaration.name.as_str(), &record.key);
        Ok(JobEnd::ran(record))
    }
}

/// Whether the file system of a path has no room left, for bytes or for files. One that states no limit is never full.
fn is_full(path: &Path) -> bool {
    // Less than any result takes; a program that cannot write may leave some blocks free.
    const LITTLE: u64 = 64 << 10;
    rustix::fs::statvfs(path).is_ok_and(|system| {
        // One in memory without a limit says nothing but zeros.
        system.f_blocks > 0 && system.f_bavail.saturating_mul(system.f_frsize) < LITTLE
            || system.f_files > 0 && system.f_favail == 0
    })
}

/// The message of a failure, with where the output is kept that there was.
fn with_kept_output(message: String, claim: Claim) -> String {
    match claim.keep_failed() {
        Ok(Some(place)) => format!("{message}\nwhat it had written is kept in {}", place.display()),
        Ok(None) => message,
        Err(error) => format!("{message}\nwhat it had written could not be kept: {error:#}"),
    }
}

/// An error, with what to do about those that every cache meets.
pub(crate) fn with_advice(error: anyhow::Error) -> anyhow::Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match io_error_kind(&error) {
        Some(PermissionDenied | ReadOnlyFilesystem) => anyhow::anyhow!(
            "{error:#}\nthe cache cannot be written: fix its permissions, or use another cache with --cache"
        ),
        _ => with_disk_advice(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use anyhow::Context;
    use pipeline_stages::message::{Hello, Request};

    use super::*;

    use crate::launcher::Launch;
    use crate::testing;

    /// Starts workers that write so many files and say that they have finished.
    struct Finishing {
        files: usize,
    }

    impl Launcher for Finishing {
        fn launch(&self, _: WorkerProgram, request: &Request) -> anyhow::Result<Launch> {
            const WORKER: &str =
                r#"echo "$1"; for n in $(seq "$2"); do : > "$3/$n"; done; echo "$4""#;
            let hello = serde_json::to_string(&Event::Hello(Hello::of("pipeline")))?;
            let (metrics, ran_on, used) = Default::default();
            let finished = serde_json::to_string(&Event::Finished { metrics, ran_on, used })?;
            let output = request.output.to_str().context("text")?;
            let mut command = Command::new("sh");
            command.args(["-c", WORKER, "sh", &hello, &self.files.to_string(), output, &finished]);
            Ok(Launch::of(command))
        }
    }

    /// Runs a job whose worker writes so many files, and looks at each of its events and at how it ended.
    fn run(
        files: usize,
        look: impl Fn(&Job<'_>, JobEvent),
        at_end: impl FnOnce(&Job<'_>, JobEnd),
    ) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let manifest = folder.path().join("pipeline.toml");
        let text = "[experiment]\nname = \"x\"\n[stages.x]\nkind = \"command\"\nrun = [\"x\"]\nfiles = [\"same\", \"other\"]\n";
        fs::write(&manifest, text)?;
        ["same", "other"].iter().try_for_each(|name| fs::write(folder.path().join(name), name))?;
        let cache = Cache::open(&folder.path().join("cache"))?;
        cache.prepare()?;
        let spec: JobSpec =
            serde_json::from_value(testing::job(&manifest, cache.layout().root(), "x")?)?;
        let job = Job {
            spec: &spec,
            cache: &cache,
            launcher: &Finishing { files },
            index: &StatIndex::at(cache.layout().stat_index()),
            wanted: &Wanted::default(),
            patience: Duration::ZERO,
        };
        at_end(&job, job.run(&|event| look(&job, event)));
        Ok(())
    }

    /// How often a job gives back what it took whose worker has written so many files.
    fn gives_back(files: usize) -> anyhow::Result<usize> {
        let times = Cell::new(0);
        let count =
            |_: &Job<'_>, event| times.set(times.get() + usize::from(event == JobEvent::GivesBack));
        run(files, count, |_, end| assert!(matches!(end, JobEnd::Ran { .. }), "it runs"))?;
        Ok(times.get())
    }

    #[test]
    fn what_it_took_is_given_back_when_a_small_output_is_there_and_when_it_waits_for_the_disk()
    -> anyhow::Result<()> {
        assert_eq!(gives_back(1)?, 2);
        assert_eq!(gives_back(100)?, 1, "to hash many files takes a while");
        Ok(())
    }

    #[test]
    fn why_a_result_cannot_be_recorded_is_in_the_log() -> anyhow::Result<()> {
        let block = |job: &Job<'_>, event| {
            let record = job.cache.layout().record(&job.spec.work.key);
            if event == JobEvent::GivesBack {
                fs::write(record.parent().expect("a folder"), "no folder").expect("writable");
            }
        };
        run(100, block, |job, end| {
            let JobEnd::Failed { message, .. } = end else { panic!("it cannot be recorded") };
            assert!(message.contains("cannot create the folder"), "{message}");
            let log = job.cache.layout().log(&job.spec.work.key);
            assert_eq!(worker::last_words(&log), Some(message));
        })
    }

    #[test]
    fn the_checkpoint_and_the_log_of_who_took_the_work_over_stay() -> anyhow::Result<()> {
        let other = RefCell::new(None);
        let look = |job: &Job<'_>, event| match event {
            JobEvent::Starts { .. } => {
                fs::write(job.spec.folder.join("other"), "has changed").expect("writable");
                let same = job.spec.folder.join("same");
                let look = || fs::metadata(&same).expect("it is there");
                let changed = |is: fs::Metadata| (is.ctime(), is.ctime_nsec());
                let before = changed(look());
                while changed(look()) == before {
                    fs::set_permissions(&same, look().permissions()).expect("ours");
                }
            }
            // What is said of the one, before it is said that the result is spoilt by the other.
            JobEvent::Worker(Event::Note { .. }) => {
                let key = &job.spec.work.key;
                forget_file(&job.cache.layout().lock(&key.to_string()));
                let Ok(Lookup::Claim(claim)) = job.cache.claim(key) else { panic!("it is lost") };
                fs::create_dir_all(claim.checkpoint()).expect("writable");
                fs::write(claim.log(), "of the other one").expect("writable");
                other.replace(Some(claim));
            }
            _ => {}
        };
        run(1, look, |_, end| {
            assert!(matches!(end, JobEnd::Held), "the other one works");
            let claim = other.take().expect("it was taken over");
            assert!(claim.checkpoint().exists());
            assert_eq!(fs::read_to_string(claim.log()).expect("a log"), "of the other one");
        })
    }
}
