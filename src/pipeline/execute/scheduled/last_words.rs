//! What is left in words of a job that ended: what whoever followed it wrote into the log of its stage, and what that and the job itself
//! have last.

use crate::cache::{Cache, JobFolder, Lock, create_folder};
use crate::key::StageKey;
use crate::regular_file::read_end;
use crate::worker;

/// How many lines of its output a message has of a job that said nothing else.
const OUTPUT_LINES: usize = 10;

/// In how many bytes at the end of its output they are looked for.
const OUTPUT_BYTES: u64 = 1 << 20;

/// How the line ends that a script prints whose `setup` has failed: by that, the job has not begun its stage.
pub(super) const NOT_BEGUN: &str = "the stage was not begun";

/// Writes into the log of a key why its job failed, unless another process works on the key, or the log is that of a result.
pub(super) fn write_failure(cache: &Cache, key: &StageKey, message: &str) {
    let (lock, log) = (cache.layout().lock(&key.to_string()), cache.layout().log(key));
    if let Ok(Some(_lock)) = Lock::try_take(&lock)
        && cache.usable(key).is_none()
        && let Some(folder) = log.parent()
        && create_folder(folder).is_ok()
    {
        worker::write_last_words(&log, message);
    }
}

/// Why the last job of a key failed, as its log has it.
pub(super) fn last_words(cache: &Cache, key: &StageKey) -> Option<String> {
    worker::last_words(&cache.layout().log(key))
}

/// The end of the log of a stage whose job has started it, or else of what the script of the job printed.
pub(super) fn last_lines(
    cache: &Cache,
    key: &StageKey,
    folder: &JobFolder,
    has_started: bool,
) -> Vec<String> {
    // Before that, the log may be that of an earlier job.
    let log = has_started.then(|| worker::log_tail(&cache.layout().log(key)));
    log.filter(|lines| !lines.is_empty()).unwrap_or_else(|| printed(folder))
}

/// The end of what the script of a job printed.
fn printed(folder: &JobFolder) -> Vec<String> {
    let (text, _) = read_end(&folder.output(), OUTPUT_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(OUTPUT_LINES));
    last.map(|line| (*line).to_owned()).collect()
}

/// Whether that is that the `setup` of the job has failed.
pub(super) fn setup_has_failed(folder: &JobFolder) -> bool {
    printed(folder).last().is_some_and(|line| line.ends_with(NOT_BEGUN))
}
