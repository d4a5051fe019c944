//! What is asked to run jobs: what schedulers have in common.
//!
//! Does not depend on what jobs do.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pipeline_stages::Cores;

use crate::cache::JobFolder;
use crate::deadline::{Deadline, Stop};
use crate::manifest::{Failing, Stage};

/// With this exit status, a command of a user says that its scheduler does not answer now: EX_TEMPFAIL of sysexits.h.
const AGAIN_LATER: i32 = 75;

/// How long a submission may take.
pub(crate) const SUBMISSION_LIMIT: Duration = Duration::from_secs(60);

/// What runs jobs.
pub(super) trait Scheduler: Send + Sync {
    /// Submits a job; its id.
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble>;

    /// What it knows of these jobs. Those that it does not know any more are left out. Whoever asks may not want to know it any more.
    fn states(&self, ids: &[String], stop: &Stop) -> Result<HashMap<String, JobState>, Trouble>;

    /// Ends jobs, and those of these ids that have ended already are no mistake.
    fn cancel(&self, ids: &[String]) -> Result<(), Trouble>;

    /// The first line of a script.
    fn interpreter(&self) -> &'static str {
        "#!/bin/sh"
    }

    /// A command of a shell with which a job puts itself back into the queue.
    fn requeue(&self) -> Option<&'static str> {
        None
    }

    /// How it takes several jobs at once, where it does.
    fn arrays(&self) -> Option<Arrays> {
        None
    }

    /// Its jobs and arrays that have not ended, with their ids by their tokens, as far as it knows these. For those that may have been
    /// submitted although nobody has their receipts.
    fn by_token(&self) -> Result<HashMap<String, String>, Trouble> {
        Ok(HashMap::new())
    }

    /// Whether it has a job of this user that has not ended, beside the one in which this process runs. Asked where it may be full.
    fn has_jobs(&self) -> Result<bool, Trouble> {
        Ok(false)
    }

    /// Whether an answer that names none of several jobs may be that of one that is away.
    fn may_be_mute(&self) -> bool {
        false
    }
}

/// How a scheduler takes several jobs at once, as the tasks of an array. The id of a task is `ID_INDEX`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrays {
    /// The most tasks.
    pub(super) most: usize,
    /// The variable in which a task finds its index, from 0.
    pub(super) index: &'static str,
    /// A command of a shell that shows a task under the name of its stage, `$pipeline_name`, and the key of its job, `$pipeline_key`,
    /// beside the token of the array, `$pipeline_array`. Nothing depends on it.
    pub(super) rename: &'static str,
}

/// A job that is to be submitted, or an array of jobs that are alike.
pub(super) struct Submission<'a> {
    /// The stage, of an array that of the first task.
    pub(super) stage: &'a Stage,
    /// Its key, as text.
    pub(super) key: String,
    /// What no other job and no other array has.
    pub(super) token: String,
    pub(super) folder: &'a JobFolder,
    /// Of an array: how many there are.
    pub(super) tasks: Option<Tasks>,
    /// The ids of other jobs: it gets none of these.
    pub(super) others: &'a [String],
    /// Stopped once nobody waits for its answer any more: it is [`Trouble::Away`] then, as it may have been taken.
    pub(super) stop: &'a Stop,
}

/// The tasks of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tasks {
    pub(super) count: usize,
    /// How many run at once, where not all may.
    pub(super) at_once: Option<usize>,
}

/// Where a job is, as its scheduler says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobState {
    /// In the queue: why, in words, where it is not only that others are before it.
    Queued(Option<String>),
    /// In the queue until somebody lets it go: why, and what to do, in words.
    Held(String),
    Running,
    Ended(Ended),
}

/// How a scheduler says that a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// In words: `was cancelled`.
    pub(super) words: String,
    /// What kind of failure that is. `None` where the scheduler does not say more than that it ended.
    pub(super) failing: Option<Failing>,
    pub(super) cause: Cause,
}

/// Whose fault an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its own, as far as that is known.
    Job,
    /// That of its machine, or of its time: it goes on, if its checkpoint has advanced.
    Machine,
    /// Somebody wanted it to end.
    Person,
}

impl Ended {
    /// By a word of the scheduler.
    pub(super) fn with_word(word: &str, failing: Option<Failing>, cause: Cause) -> Self {
        Self { words: format!("ended ({word}) without a result"), failing, cause }
    }
}

/// Why a scheduler did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It said no, in its own words.
    Refused(String),
    /// It said no, as it has as many jobs as it takes for now, of this user or of a group.
    Full(String),
    /// It said no in words that may mean that, or that it never takes this one.
    MayBeFull(String),
    /// It did not answer. What it was asked for may have been done.
    Away(String),
}

impl Trouble {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Refused(words)
            | Self::Full(words)
            | Self::MayBeFull(words)
            | Self::Away(words) => words,
        }
    }
}

/// Runs a command to its end; what it printed.
///
/// # Errors
/// `Refused` where it fails, `Away` where it has not ended in this time, or says so itself by its exit status.
pub(super) fn ask(command: Command, limit: Duration) -> Result<String, Trouble> {
    ask_until(&Stop::default(), command, limit)
}

/// The same, unless it is stopped.
///
/// # Errors
/// As before; `Away` where it was stopped.
pub(super) fn ask_until(
    stop: &Stop,
    mut command: Command,
    limit: Duration,
) -> Result<String, Trouble> {
    let name = Path::new(command.get_program()).display().to_string();
    command.stderr(Stdio::piped());
    let deadline = Deadline { limit, has_group: true, ..Deadline::default() };
    let output = deadline
        .run_until(stop, command)
        .map_err(|error| Trouble::Refused(format!("cannot start {name}: {error}")))?
        .ok_or_else(|| Trouble::Away(format!("{name} did not answer in {} s", limit.as_secs())))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    if stop.was_stopped() {
        return Err(Trouble::Away(format!("{name} was ended before it had answered")));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { printed.trim() } else { said.trim() };
    let said = if said.is_empty() { format!("{name}: {}", output.status) } else { said.to_owned() };
    Err(match output.status.code() {
        Some(AGAIN_LATER) => Trouble::Away(said),
        _ => Trouble::Refused(said),
    })
}

/// The cores that a job takes, as far as its stage says so: as many as it has threads, where it does not say it otherwise.
pub(super) fn cpus(stage: &Stage) -> Option<u32> {
    let threads = match stage.stage.cores() {
        Cores::Many => stage.execution.execution.threads,
        Cores::None | Cores::One => None,
    };
    stage.execution.takes.cpus.or(threads)
}

/// Whether a stage would have as many cores and GPUs in a job of its own as it has in that of another one, so that its result is the
/// same in both, and asks for no more memory and time. Not one that takes what only a run can count.
pub(crate) fn fits_into(stage: &Stage, other: &Stage) -> bool {
    let (takes, there) = (&stage.execution.takes, &other.execution.takes);
    let is_enough = |wanted: Option<u64>, is: Option<u64>| wanted.is_none() || wanted <= is;
    cpus(stage) == cpus(other)
        && takes.gpus.unwrap_or(0) == there.gpus.unwrap_or(0)
        && is_enough(takes.memory, there.memory)
        && takes.resources.is_empty()
        && is_enough(stage.execution.time, other.execution.time)
}

/// The time of a job as all schedulers read it: `HH:MM:SS`, with as many hours as it takes.
pub(super) fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
