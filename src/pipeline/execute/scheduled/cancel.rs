//! Jobs that a person wants to end, whoever has submitted them and whether or not a run follows them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::cancelled::Cancelled;
use super::line::JobEnding;
use super::schedulers::scheduler;
use super::submitted::QueuedJob;
use crate::cache::{Cache, JobFolder, Lock};
use crate::key::StageKey;
use crate::manifest::Executors;

/// How many jobs are cancelled at once: each has an open file meanwhile, its lock.
const AT_ONCE: usize = 200;

/// How long the jobs that work are waited for: they write their checkpoints.
const LONGEST: Duration = Duration::from_secs(3);
/// The environment variable that sets another time for that, in milliseconds: for tests.
const PATIENCE: &str = "PIPELINE_CANCEL_PATIENCE";
/// How often it looks whether they still do.
const LOOK: Duration = Duration::from_millis(50);

/// A job that a scheduler may have.
struct Job {
    key: StageKey,
    folder: JobFolder,
    /// What its scheduler calls it.
    id: String,
    /// Whoever has this submits it, or has seen its end.
    _lock: Lock,
}

/// Cancels the jobs of these keys, in the queue or while they run. Returns those that there are, each with what became of it in words; as an
/// error where it may go on. Takes as long as its scheduler takes to answer.
pub(crate) fn cancel(
    cache: &Cache,
    executors: &Executors,
    keys: &[StageKey],
) -> Vec<(StageKey, Result<String, String>)> {
    keys.chunks(AT_ONCE).flat_map(|keys| cancel_some(cache, executors, keys)).collect()
}

fn cancel_some(
    cache: &Cache,
    executors: &Executors,
    keys: &[StageKey],
) -> Vec<(StageKey, Result<String, String>)> {
    let (mut of_executors, mut ends) = (BTreeMap::<String, Vec<Job>>::new(), Vec::new());
    for &key in keys {
        match find(cache, key) {
            Ok(None) => {}
            Ok(Some((executor, job))) => of_executors.entry(executor).or_default().push(job),
            Err(why) => ends.push((key, Err(why))),
        }
    }
    for (name, jobs) in of_executors {
        let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
        let settings = executors.get(&name);
        let cancelled = settings.map(|settings| Cancelled::ask(&*scheduler(settings), &ids));
        let deadline = Instant::now() + patience();
        ends.extend(jobs.into_iter().map(|Job { key, folder, id, .. }| {
            let what = format!("its job {id} of {name}");
            let end = match cancelled.as_ref().map(|cancelled| cancelled.trouble(&id)) {
                None => Err(format!("{what} stays, as this manifest does not have that executor")),
                Some(Some(trouble)) => {
                    Err(format!("{what} could not be cancelled: {}", trouble.words()))
                }
                // A run that follows it would take it for work that somebody else has taken over, and wait to begin it again.
                Some(None) if works_until(cache, &key, deadline) => match folder.set_cancelled() {
                    Ok(()) => {
                        Ok(format!("{what} was asked to end, and still writes its checkpoint"))
                    }
                    Err(error) => Err(format!("{what} was asked to end; {error:#}")),
                },
                Some(None) if has_ended(&folder) => Ok(format!("{what} had ended before")),
                Some(None) => match folder.remove() {
                    Ok(()) => Ok(format!("{what} was cancelled")),
                    Err(error) => Err(format!("{what} was cancelled; {error:#}")),
                },
            };
            (key, end)
        }));
    }
    ends
}

/// How long jobs are waited for.
fn patience() -> Duration {
    let set = std::env::var_os(PATIENCE);
    let set = set.as_deref().and_then(OsStr::to_str).and_then(|text| text.parse().ok());
    set.map_or(LONGEST, |milliseconds: u32| Duration::from_millis(milliseconds.into()))
}

/// Whether somebody works on a key, also at this time.
fn works_until(cache: &Cache, key: &StageKey, deadline: Instant) -> bool {
    let lock = cache.layout().lock(&key.to_string());
    loop {
        let works = Lock::is_taken(&lock);
        if !works || Instant::now() >= deadline {
            return works;
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether it has ended by itself: whoever runs its stage next sees that.
fn has_ended(folder: &JobFolder) -> bool {
    JobEnding::last(folder).is_some_and(|ending| ending.is_final())
}

/// Whether no scheduler has it: whoever made it was killed before it was handed over, or has not done that yet.
fn is_nowhere(folder: &JobFolder) -> bool {
    !folder.was_submitted() && !folder.has_begun() && matches!(folder.handed_over(), Ok(None))
}

/// The job of a key that has not ended, with the name of its executor.
///
/// # Errors
/// Why it is not cancelled, in words.
fn find(cache: &Cache, key: StageKey) -> Result<Option<(String, Job)>, String> {
    if cache.job(&key).is_none() {
        return Ok(None);
    }
    let lock = cache.lock_job(&key).map_err(|error| format!("{error:#}"))?;
    let lock = lock.ok_or("another process submits its job, or sees its end: try again")?;
    let Some(folder) = cache.job(&key) else { return Ok(None) };
    if has_ended(&folder) {
        return Ok(None);
    }
    match QueuedJob::submitted(&folder) {
        Ok(Some(QueuedJob { executor, job, .. })) if !folder.is_own() => {
            Err(format!("its job {job} of {executor} is of another account, and stays"))
        }
        Ok(Some(QueuedJob { executor, job, .. })) => {
            Ok(Some((executor, Job { key, folder, id: job, _lock: lock })))
        }
        Err(error) => {
            let place = folder.place().display();
            Err(format!(
                "cannot read which job it is in {place}: {error}: if its job is gone, remove that folder"
            ))
        }
        Ok(None) if is_nowhere(&folder) => Ok(None),
        Ok(None) => {
            Err("nobody knows the id of its job, which may be in the queue: the next run of \
                     the stage finds out"
                .to_owned())
        }
    }
}
