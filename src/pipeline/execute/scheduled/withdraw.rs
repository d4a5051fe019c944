//! A job that waits in a queue, and whose stage runs here instead.

use super::cancelled::Cancelled;
use super::schedulers::scheduler;
use super::submitted::QueuedJob;
use crate::cache::Cache;
use crate::key::StageKey;
use crate::manifest::Executors;

/// Takes the job of a key out of the queue in which it waits: it would find nothing to do. Returns what became of it, in words, where
/// there is one. Takes as long as its scheduler takes to answer.
pub(crate) fn withdraw(cache: &Cache, executors: &Executors, key: &StageKey) -> Option<String> {
    cache.job(key)?;
    // Whoever has this submits it, or has seen its end.
    let _lock = cache.lock_job(key).ok()??;
    let folder = cache.job(key)?;
    let QueuedJob { executor, job, .. } = QueuedJob::of(&folder)?;
    let what = format!("its job {job} of {executor}");
    let Some(settings) = executors.get(&executor) else {
        return Some(format!(
            "{what} stays in the queue, as this run does not have that executor: cancel it"
        ));
    };
    let cancelled = Cancelled::ask(&*scheduler(settings), std::slice::from_ref(&job));
    if let Some(trouble) = cancelled.trouble(&job) {
        return Some(format!("{what} could not be cancelled: {}", trouble.words()));
    }
    Some(match folder.remove() {
        Ok(()) => format!("{what} was cancelled, as the stage runs here"),
        Err(error) => format!("{what} was cancelled, as the stage runs here; {error:#}"),
    })
}
