//! What is done for a key now: a file in the cache, written by one reporter of the run, read by `status` of any process.
//! The file of a stage that was stopped, or whose run was killed, stays: it says how far the stage was. A stage that ends after a
//! moment has none: nobody could read it.
//!
//! Only for people: nothing depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_stages::message::{Metrics, Progress};
use serde::{Deserialize, Serialize};

use super::course::Course;
use super::rate::Rate;
use super::reporter::Reporter;
use crate::cache::{LARGEST_TEXT, Layout, Lock, Owner, forget_file, read_file, write_disposable};
use crate::events::{Outcome, RunEvent};
use crate::format;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// A stage that has run for so long gets a file.
const MOMENT: Duration = Duration::from_millis(100);
/// A file is written at most this often.
const INTERVAL: Duration = Duration::from_secs(1);
/// A file is written at least this often, as a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// After this time without a sign of life, a process of another machine counts as gone. The clock of a file server may be ahead by as much.
const SILENCE: Duration = Duration::from_secs(300);

/// What is done for a key now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Running {
    /// Who does it, where, and since when.
    pub(crate) owner: Owner,
    /// What the stage is called there.
    pub(crate) stage: StageName,
    /// The experiment there.
    pub(crate) experiment: String,
    /// Its progress, if it reports any.
    pub(crate) progress: Option<Progress>,
    /// What was measured last under each name.
    pub(crate) measured: Metrics,
    /// How much is done in a second, in the unit of its progress.
    pub(crate) rate: Option<f64>,
    /// Whether it was stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stopped: bool,
}

/// What was done for a key when its process was stopped or killed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Interrupted {
    /// Who did it, and where.
    pub(crate) owner: Owner,
    /// The last sign of life: seconds since 1970, UTC.
    pub(crate) at: u64,
    /// How far it was.
    pub(crate) progress: Option<Progress>,
    /// Whether the next run continues from there, or from a little earlier.
    pub(crate) has_checkpoint: bool,
}

impl Interrupted {
    /// In one line: `was interrupted 3 min ago at epoch 9/20, 45 % (process 4711 on lab2); the next run continues from its
    /// checkpoint`.
    pub(crate) fn line(&self) -> String {
        let reached = self.reached();
        let at = if reached.is_empty() { "" } else { " at " };
        let next = match self.has_checkpoint {
            true => "the next run continues from its checkpoint",
            false => "the next run begins again",
        };
        let ago = format::ago(self.at);
        format!("was interrupted {ago}{at}{reached} ({}); {next}", self.owner)
    }

    /// How far it was: `epoch 9/20, 45 %`. Empty where nobody knows.
    pub(crate) fn reached(&self) -> String {
        let course = Course { progress: self.progress.clone(), ..Course::default() };
        let parts = [course.values(), course.percent()].into_iter().flatten();
        parts.collect::<Vec<String>>().join(", ")
    }
}

impl Running {
    /// What is done for a key, or was done when it was interrupted. `None` if there was nothing.
    pub(crate) fn look(layout: &Layout, key: &StageKey) -> Option<Result<Self, Interrupted>> {
        let path = layout.running(key);
        let running: Self = serde_json::from_slice(&read_file(&path, LARGEST_TEXT).ok()?).ok()?;
        let written = std::fs::metadata(&path).ok()?.modified().ok()?;
        // Not by its number, which could be that of another process now, or of one in another container.
        let has_lock = || Lock::is_taken(&layout.lock(&key.to_string()));
        let is_elsewhere = running.owner.host != Owner::this_process().host;
        // The locks of another machine are not seen everywhere.
        let is_alive = has_lock() || is_elsewhere && is_recent(written, SystemTime::now());
        if is_alive && !running.stopped {
            return Some(Ok(running));
        }
        let Self { owner, progress, .. } = running;
        let at = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Some(Err(Interrupted { owner, at, progress, has_checkpoint: false }))
    }

    /// In one line: `is running: 81 %, epoch 3/20, loss 4.21, 2,007 images/s, 2 min 05 s left; started 3 min ago (process
    /// 4711 on lab2)`.
    pub(crate) fn line(&self) -> String {
        let started = format::ago(self.owner.since);
        let course = Course {
            progress: self.progress.clone(),
            measured: self.measured.clone(),
            rate: Rate::Known(self.rate),
        };
        let parts = [course.percent(), course.values(), course.speed(), course.left()];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => format!("is running; started {started} ({})", self.owner),
            false => {
                format!("is running: {}; started {started} ({})", parts.join(", "), self.owner)
            }
        }
    }
}

/// Whether a sign of life counts, by a clock that is another one than that of this machine.
fn is_recent(written: SystemTime, now: SystemTime) -> bool {
    let apart = now.duration_since(written).unwrap_or_else(|ahead| ahead.duration());
    apart < SILENCE
}

/// Writes a file for each stage that runs.
pub(crate) struct RunningFiles {
    layout: Layout,
    experiment: String,
    stages: BTreeMap<StageName, RunningStage>,
    /// Those that run elsewhere: their jobs write their files.
    elsewhere: BTreeSet<StageName>,
    /// Whether each stage has its file from its start on.
    at_once: bool,
}

struct RunningStage {
    key: StageKey,
    owner: Owner,
    course: Course,
    started: Instant,
    written: Option<Instant>,
    changed: bool,
    /// Whether it waits for another attempt.
    waits: bool,
}

impl RunningFiles {
    /// For the runs of a cache.
    pub(crate) fn new(layout: Layout) -> Self {
        let (stages, elsewhere) = (BTreeMap::new(), BTreeSet::new());
        Self { layout, experiment: String::new(), stages, elsewhere, at_once: false }
    }

    /// For a job: nothing else tells whoever watches that it goes on from one stage to the next.
    pub(crate) fn of_job(layout: Layout) -> Self {
        let mut files = Self::new(layout);
        files.at_once = true;
        files
    }

    fn write(&mut self, name: &StageName, stopped: bool) {
        let Some(stage) = self.stages.get_mut(name) else { return };
        (stage.written, stage.changed) = (Some(Instant::now()), false);
        let running = Running {
            owner: stage.owner.clone(),
            stage: name.clone(),
            experiment: self.experiment.clone(),
            progress: stage.course.progress.clone(),
            measured: stage.course.measured.clone(),
            rate: stage.course.rate.per_second(),
            stopped,
        };
        // Not needed: a cache that cannot be written is reported elsewhere.
        if let Ok(text) = serde_json::to_vec(&running) {
            let _ = write_disposable(&self.layout.running(&stage.key), &text);
        }
    }

    fn forget(&mut self, name: &StageName) {
        // Also where it has none: an interrupted run may have left one.
        if let Some(stage) = self.stages.remove(name) {
            forget_file(&self.layout.running(&stage.key));
        }
    }
}

impl Reporter for RunningFiles {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Begin { experiment, .. } => self.experiment.clone_from(experiment),
            RunEvent::Queued { stage, .. } => drop(self.elsewhere.insert(stage.clone())),
            RunEvent::Start { stage, key, .. } if !self.elsewhere.contains(stage) => {
                let owner = Owner::this_process();
                let course = Course::default();
                let (started, written, changed) = (Instant::now(), None, false);
                let waits = false;
                let new =
                    RunningStage { key: *key, owner, course, started, written, changed, waits };
                self.stages.insert(stage.clone(), new);
                // That of an interrupted run is not about this one.
                if self.at_once || self.layout.running(key).exists() {
                    self.write(stage, false);
                }
            }
            RunEvent::Progress { stage, progress } => {
                self.stages.entry(stage.clone()).and_modify(|stage| {
                    stage.course.progress(progress);
                    stage.changed = true;
                });
            }
            RunEvent::Measured { stage, measured } => {
                self.stages.entry(stage.clone()).and_modify(|stage| {
                    stage.course.measured(measured);
                    stage.changed = true;
                });
            }
            RunEvent::End { stage, outcome: Outcome::Stopped, .. } => {
                self.write(stage, true);
                self.stages.remove(stage);
            }
            // If the run ends before it, this stays.
            RunEvent::Attempt { stage, .. } => {
                self.write(stage, true);
                self.stages.entry(stage.clone()).and_modify(|stage| stage.waits = true);
            }
            RunEvent::End { stage, .. } => self.forget(stage),
            _ => {}
        }
    }

    fn tick(&mut self) {
        let is_due = |stage: &RunningStage| {
            !stage.waits
                && match stage.written {
                    None => stage.started.elapsed() >= MOMENT,
                    Some(written) if stage.changed => written.elapsed() >= INTERVAL,
                    Some(written) => written.elapsed() >= HEARTBEAT,
                }
        };
        let due = self.stages.iter().filter(|(_, stage)| is_due(stage));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.write(&name, false);
        }
    }
}

impl Drop for RunningFiles {
    fn drop(&mut self) {
        // A run that cannot continue: what still ran was interrupted.
        for name in self.stages.keys().cloned().collect::<Vec<_>>() {
            self.write(&name, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_process_of_another_machine_is_alive_by_its_lock_or_by_any_clock() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path().to_owned());
        let key = StageKey::of(&[]);
        let path = layout.running(&key);
        let lives = |host: &str, ahead: i64| {
            let running = Running {
                owner: Owner { pid: 1, host: host.to_owned(), since: 0 },
                stage: "train".parse().expect("a name"),
                experiment: "x".to_owned(),
                progress: None,
                measured: Metrics::default(),
                rate: None,
                stopped: false,
            };
            let text = serde_json::to_vec(&running).expect("plain data");
            write_disposable(&path, &text).expect("writable");
            let (now, by) = (SystemTime::now(), Duration::from_secs(ahead.unsigned_abs()));
            let time = if ahead < 0 { now - by } else { now + by };
            File::options()
                .write(true)
                .open(&path)
                .expect("ours")
                .set_modified(time)
                .expect("ours");
            Running::look(&layout, &key).expect("it is there").is_ok()
        };
        let here = Owner::this_process().host;
        let clocks = [-86_400, -310, -290, 0, 2, 290, 310, 86_400];
        let of = |host: &str| clocks.map(|ahead| lives(host, ahead));
        assert_eq!(of("node3"), [false, false, true, true, true, true, false, false]);
        assert_eq!(of(&here), [false; 8], "nobody here has its lock");
        let lock = Lock::take(&layout.lock(&key.to_string())).expect("free");
        assert_eq!([of("node3"), of(&here)], [[true; 8]; 2]);
        drop(lock);
    }
}
