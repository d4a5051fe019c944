//! One job that is followed: made or found, submitted once, and heard until its end.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::super::job::{JobEnd, JobEvent};
use super::super::spec::{JobSpec, Place};
use super::line::{JobEnding, JobLine};
use super::scheduler::{Cause, Ended, JobState, Scheduler, Submission, Trouble};
use super::{Knowledge, Reporter, SOONEST, Terms, Wish, refused, script};
use crate::cache::{Cache, JobFolder, Lock, Pinned, Record};
use crate::key::StageKey;
use crate::manifest::Failing;
use crate::reason::Reason;
use crate::{format, worker};

/// After the first wish to stop, a second one cancels jobs for this long.
const GRACE: Duration = Duration::from_secs(3);
/// What a job wrote last can come this much later than the end that its scheduler reports: file systems of other machines
/// remember for a while what was not there.
const LATE: Duration = Duration::from_secs(90);
/// The longest pause before a scheduler that is away is asked again to take a job.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many lines of its output a message has of a job that said nothing else.
const OUTPUT_LINES: usize = 10;

/// A job that is followed.
pub(super) struct Followed {
    spec: JobSpec,
    pub(super) reporter: Reporter,
    pub(super) wish: Wish,
    left: Option<Instant>,
    at: At,
}

/// How far it is.
enum At {
    /// It must be made, or found.
    Begin {
        /// Whether somebody was told that another process works on its key.
        waits: bool,
    },
    /// It is made, and its scheduler did not take it yet.
    Made {
        folder: JobFolder,
        next: Instant,
        pause: Duration,
    },
    Submitted(Box<Submitted>),
}

/// A job that its scheduler has taken.
struct Submitted {
    folder: JobFolder,
    /// `None` where nobody knows: whoever submitted it was killed before that was written.
    id: Option<String>,
    /// How much of its journal was read.
    read: u64,
    /// Where it runs: how often the scheduler had answered when that was heard. An older answer may say that it waits.
    runs_since: Option<u64>,
    /// Whether it was seen to wait or to work since it is followed: what had ended before is not news.
    was_seen: bool,
    /// How its process ended last.
    ending: Option<JobEnding>,
    /// The number of the answer that said first that it is gone, and when that was.
    gone: Option<(u64, Instant)>,
    /// How often the scheduler had answered when it was submitted: no older answer is about it.
    since: u64,
    /// Since when it is known that there is a record.
    recorded: Option<Instant>,
}

/// What is remembered of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueuedJob {
    pub(crate) executor: String,
    /// What the scheduler calls it.
    pub(crate) job: String,
    /// When it took it: seconds since 1970, UTC.
    pub(crate) since: u64,
}

impl QueuedJob {
    /// The job of a folder, where a scheduler has taken it.
    fn submitted(folder: &JobFolder) -> Option<Self> {
        serde_json::from_slice(&folder.submitted()?).ok()
    }

    /// The same, where it has not begun, or was interrupted and is to go on.
    pub(crate) fn of(folder: &JobFolder) -> Option<Self> {
        let lines = folder.events(0).ok()?;
        let last = lines.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let waits = last.is_none_or(|line| {
            let stopped = serde_json::from_slice(line);
            matches!(stopped, Ok(JobLine::Ends(JobEnding::Stopped { .. })))
        });
        Self::submitted(folder).filter(|_| waits)
    }

    /// In one line, after the name of the stage.
    pub(crate) fn line(&self) -> String {
        let Self { executor, job, since } = self;
        format!("is queued as job {job} of {executor}, submitted {}", format::ago(*since))
    }
}

impl Followed {
    pub(super) fn new(spec: JobSpec, reporter: Reporter, wish: Wish) -> Self {
        Self { spec, reporter, wish, left: None, at: At::Begin { waits: false } }
    }

    /// Its id, once it has one.
    pub(super) fn id(&self) -> Option<String> {
        match &self.at {
            At::Submitted(job) => job.id.clone(),
            At::Begin { .. } | At::Made { .. } => None,
        }
    }

    /// Its end, once its scheduler was asked to end it.
    pub(super) fn cancelled(&mut self, cancelled: &Result<(), Trouble>) -> JobEnd {
        let (folder, id) = match &self.at {
            At::Begin { .. } => return JobEnd::Stopped,
            At::Made { folder, .. } => (folder, None),
            At::Submitted(job) => (&job.folder, job.id.as_deref()),
        };
        match (cancelled, id) {
            (Ok(()), Some(_)) | (_, None) => {
                folder.remove();
                JobEnd::Stopped
            }
            (Err(trouble), Some(id)) => {
                self.reporter
                    .note(format!("its job {id} could not be cancelled: {}", trouble.words()));
                JobEnd::Left
            }
        }
    }

    /// Goes on as far as that is possible now. Returns its end.
    pub(super) fn step(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        scheduler: &dyn Scheduler,
        knowledge: &mut Knowledge,
    ) -> Option<JobEnd> {
        let leaves = self.wish.get() == Wish::LEAVE;
        let step = match &self.at {
            At::Begin { .. } if leaves => return Some(JobEnd::Stopped),
            At::Begin { .. } => self.begin(terms, cache, scheduler, knowledge),
            At::Made { .. } => self.submit(terms, cache, scheduler, knowledge),
            At::Submitted(_) => Ok(self.follow(terms, cache, knowledge)),
        };
        let end = step.unwrap_or_else(|error| Some(JobEnd::failed(format!("{error:#}"))));
        let was_seen = matches!(&self.at, At::Submitted(job) if job.was_seen);
        match end {
            None if terms.detach && was_seen => Some(JobEnd::Left),
            None if leaves => {
                let since = *self.left.get_or_insert_with(Instant::now);
                (since.elapsed() >= GRACE).then_some(JobEnd::Left)
            }
            end => end,
        }
    }

    fn key(&self) -> StageKey {
        self.spec.work.key
    }

    /// A result that counts, where it is not another one that is asked for.
    fn record(&self, cache: &Cache) -> Option<Record> {
        (self.spec.work.reason != Reason::Forced).then(|| cache.usable(&self.key())).flatten()
    }

    /// Makes its folder, or finds it.
    fn begin(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        scheduler: &dyn Scheduler,
        knowledge: &mut Knowledge,
    ) -> anyhow::Result<Option<JobEnd>> {
        let key = self.key();
        if let Some(folder) = cache.job(&key) {
            return self.attach(terms, cache, scheduler, &folder);
        }
        // A job would only find that out in its allocation.
        if Lock::is_taken(&cache.layout().lock(&key.to_string())) {
            if let At::Begin { waits } = &mut self.at
                && !std::mem::replace(waits, true)
            {
                self.reporter.event(JobEvent::Waits);
            }
            return Ok(None);
        }
        if let Some(record) = self.record(cache) {
            return Ok(Some(JobEnd::Reused(Box::new(record.into()))));
        }
        let Some(_lock) = cache.lock_job(&key)? else { return Ok(None) };
        self.spec.place = Some(Place::new(&terms.name, scheduler.requeue()));
        let spec = serde_json::to_vec(&self.spec)?;
        let inputs = self.spec.inputs.iter().map(|(_, _, stored)| Pinned::Artifact(stored.digest));
        let Some(folder) = cache.begin_job(&key, &spec, inputs.chain([Pinned::Key(key)]))? else {
            return Ok(None);
        };
        self.at = At::Made { folder, next: Instant::now(), pause: Duration::from_secs(1) };
        self.submit_locked(terms, scheduler, knowledge)
    }

    /// Finds out where a job is that somebody else has made, or an earlier run.
    fn attach(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        scheduler: &dyn Scheduler,
        folder: &JobFolder,
    ) -> anyhow::Result<Option<JobEnd>> {
        // Whoever has this submits it right now.
        let Some(_lock) = cache.lock_job(&self.key())? else { return Ok(None) };
        let Ok(spec) = JobSpec::read(&folder.spec()) else {
            // Of another build, which none of these programs would run.
            self.begin_again(folder, "the job of another build");
            return Ok(None);
        };
        let place = spec.place.unwrap_or_default();
        if place.executor != terms.name {
            let message = format!(
                "a job of the executor '{}' does the same work: use that one, or cancel the job and remove {}",
                place.executor,
                folder.spec().parent().unwrap_or(&folder.spec()).display()
            );
            return Ok(Some(JobEnd::failed(message)));
        }
        self.spec.place = Some(place.clone());
        let receipt = QueuedJob::submitted(folder).map(|submitted| submitted.job);
        let id = match receipt {
            Some(id) => Some(id),
            None => match scheduler.find(&place.token) {
                Ok(Some(id)) => {
                    folder.set_submitted(&receipt_of(terms, &id)?)?;
                    Some(id)
                }
                Ok(None) if !folder.has_begun() => {
                    let next = Instant::now();
                    let pause = Duration::from_secs(1);
                    self.at = At::Made { folder: folder.clone(), next, pause };
                    return Ok(None);
                }
                Ok(None) => None,
                // The next time.
                Err(_) => return Ok(None),
            },
        };
        self.take_up(terms, folder.clone(), id, false, 0);
        Ok(None)
    }

    /// Follows a job from its first word on.
    fn take_up(
        &mut self,
        terms: &Terms,
        folder: JobFolder,
        id: Option<String>,
        was_seen: bool,
        since: u64,
    ) {
        let job = id.clone().unwrap_or_else(|| "(of an unknown id)".to_owned());
        self.reporter.event(JobEvent::Queued { executor: terms.name.clone(), job });
        self.at = At::Submitted(Box::new(Submitted {
            folder,
            id,
            read: 0,
            runs_since: None,
            was_seen,
            ending: None,
            gone: None,
            since,
            recorded: None,
        }));
    }

    /// Gives up a job that has ended before anybody saw it: another one takes its place.
    fn begin_again(&mut self, folder: &JobFolder, what: &str) {
        folder.remove();
        self.reporter.note(format!("{what} is replaced by a new one"));
        self.at = At::Begin { waits: false };
    }

    fn submit(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        scheduler: &dyn Scheduler,
        knowledge: &mut Knowledge,
    ) -> anyhow::Result<Option<JobEnd>> {
        let At::Made { folder, next, .. } = &self.at else { return Ok(None) };
        if Instant::now() < *next {
            return Ok(None);
        }
        let Some(_lock) = cache.lock_job(&self.key())? else { return Ok(None) };
        // Another run has submitted it meanwhile, or has seen its end.
        if folder.submitted().is_some() || !folder.spec().exists() {
            self.at = At::Begin { waits: false };
            return Ok(None);
        }
        self.submit_locked(terms, scheduler, knowledge)
    }

    /// Submits it, for whoever has the right to do so.
    fn submit_locked(
        &mut self,
        terms: &Terms,
        scheduler: &dyn Scheduler,
        knowledge: &mut Knowledge,
    ) -> anyhow::Result<Option<JobEnd>> {
        let key = self.key().to_string();
        let At::Made { folder, pause, .. } = &self.at else { return Ok(None) };
        let (folder, again) = (folder.clone(), (*pause * 2).min(LONGEST_PAUSE));
        let (name, experiment) = (&self.spec.declaration.name, &self.spec.experiment);
        let lines = script(&terms.settings, name, experiment, &folder)?;
        folder.write_script(&format!("{}\n{lines}", scheduler.interpreter()))?;
        let stage = &self.spec.declaration;
        let token = self.token();
        let submitted = scheduler.submit(&Submission { stage, key, token, folder: &folder });
        match submitted {
            Ok(id) => {
                folder.set_submitted(&receipt_of(terms, &id)?)?;
                self.take_up(terms, folder, Some(id), true, knowledge.answers);
                knowledge.is_old();
                Ok(None)
            }
            Err(trouble @ Trouble::Refused(_)) => {
                folder.remove();
                Ok(Some(JobEnd::failed(refused(&terms.name, &trouble))))
            }
            // It may have been taken: then the scheduler knows its token, or the second one finds the work done.
            Err(trouble @ Trouble::Away(_)) => {
                if let Ok(Some(id)) = scheduler.find(&self.token()) {
                    folder.set_submitted(&receipt_of(terms, &id)?)?;
                    self.take_up(terms, folder, Some(id), true, knowledge.answers);
                    return Ok(None);
                }
                self.reporter
                    .note(format!("{}; it is asked again", refused(&terms.name, &trouble)));
                self.at = At::Made { folder, next: Instant::now() + again, pause: again };
                Ok(None)
            }
        }
    }

    fn token(&self) -> String {
        self.spec.place.as_ref().map(|place| place.token.clone()).unwrap_or_default()
    }

    /// Hears what it says, and whether its scheduler still knows it.
    fn follow(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        knowledge: &mut Knowledge,
    ) -> Option<JobEnd> {
        let key = self.key();
        let At::Submitted(job) = &mut self.at else { return None };
        if job.hear(&self.reporter, knowledge.answers) {
            knowledge.is_old();
        }
        match &job.ending {
            None | Some(JobEnding::Stopped { .. }) => {}
            Some(ending) => {
                let ending = ending.clone();
                return self.ended(cache, ending);
            }
        }
        if !job.folder.spec().exists() {
            // Another run has seen its end.
            if let Some(record) = self.record(cache) {
                return Some(JobEnd::Reused(Box::new(record.into())));
            }
            let words = worker::last_words(&cache.layout().log(&key));
            let message = words.unwrap_or("its job ended, and another run saw how".to_owned());
            return Some(JobEnd::failed(message));
        }
        let state = job.state(knowledge);
        job.show(state.as_ref(), knowledge.answers, &terms.name, &self.reporter);
        let is_known = matches!(state, Some(JobState::Queued | JobState::Running));
        let is_unasked = job.id.is_some() && knowledge.answers == job.since;
        // That it works counts for more than what a scheduler says.
        if is_known || is_unasked || Lock::is_taken(&cache.layout().lock(&key.to_string())) {
            job.gone = None;
            return None;
        }
        let (answer, since) = *job.gone.get_or_insert((knowledge.answers, Instant::now()));
        // What it wrote last may be seen here later.
        let late = if cache.is_local() { Duration::ZERO } else { LATE };
        let is_certain = match job.id {
            Some(_) => knowledge.answers > answer,
            None => since.elapsed() >= SOONEST,
        };
        if !is_certain || job.was_seen && since.elapsed() < late {
            knowledge.is_old();
            return None;
        }
        let folder = job.folder.clone();
        if let Some(record) = self.record(cache) {
            folder.remove();
            return Some(ran(record));
        }
        self.gone(match state {
            Some(JobState::Ended(ended)) => Some(ended),
            _ => None,
        })
    }

    /// What its own last word means.
    fn ended(&mut self, cache: &Cache, ending: JobEnding) -> Option<JobEnd> {
        let key = self.key();
        let At::Submitted(job) = &mut self.at else { return None };
        let was_seen = job.was_seen;
        let folder = job.folder.clone();
        match ending {
            JobEnding::Recorded { reused } => {
                let Some(record) = cache.usable(&key) else {
                    // The record can be seen here later than the word of it; or somebody has removed it since.
                    let since = *job.recorded.get_or_insert_with(Instant::now);
                    if was_seen && since.elapsed() < LATE {
                        return None;
                    }
                    self.begin_again(&folder, "a job whose result is gone");
                    return None;
                };
                folder.remove();
                Some(match reused {
                    true => JobEnd::Reused(Box::new(record.into())),
                    false => ran(record),
                })
            }
            // Whoever has it is waited for here.
            JobEnding::Held => {
                folder.remove();
                self.at = At::Begin { waits: false };
                None
            }
            JobEnding::Stopped { .. } => None,
            ending if !was_seen => {
                let what = match ending {
                    JobEnding::Failed { message, .. } => {
                        let first = message.lines().next().unwrap_or_default().to_owned();
                        format!("a job that failed meanwhile ({first})")
                    }
                    _ => "a job that ended meanwhile".to_owned(),
                };
                self.begin_again(&folder, &what);
                None
            }
            JobEnding::Failed { message, log, failing } => {
                folder.remove();
                Some(JobEnd::Failed { message, log, failing })
            }
            JobEnding::LostInput { artifact, was_damaged } => {
                folder.remove();
                Some(JobEnd::LostInput { artifact, was_damaged })
            }
        }
    }

    /// It is gone without a last word, or it was asked to stop.
    fn gone(&mut self, ended: Option<Ended>) -> Option<JobEnd> {
        let At::Submitted(job) = &mut self.at else { return None };
        let folder = job.folder.clone();
        let name = job.id.as_ref().map_or("its job".to_owned(), |id| format!("its job {id}"));
        if !job.was_seen {
            self.begin_again(&folder, &format!("{name}, which ended meanwhile without a result,"));
            return None;
        }
        let (was_stopped, time_up, advanced) = match job.ending {
            Some(JobEnding::Stopped { time_up, advanced }) => (true, time_up, advanced),
            _ => (false, false, false),
        };
        let cause = ended.as_ref().map_or(Cause::Job, |ended| ended.cause);
        // It may have been cancelled while it waited to go on.
        let is_interrupted = match cause {
            Cause::Person => false,
            Cause::Machine => true,
            Cause::Job => time_up,
        };
        if is_interrupted && advanced {
            let what = format!("{name}, which was interrupted, and whose checkpoint has advanced,");
            self.begin_again(&folder, &what);
            return None;
        }
        let (words, failing) = match ended {
            _ if time_up && is_interrupted => (
                "had too little time: its checkpoint is not further than when it began".to_owned(),
                Failing::Timeout,
            ),
            Some(ended) => (ended.words, ended.failing),
            None if was_stopped => (
                "was asked to stop: somebody cancelled it, or its time was up".to_owned(),
                Failing::Signal,
            ),
            None => (
                "is gone without a result: its scheduler does not know it any more".to_owned(),
                Failing::Signal,
            ),
        };
        let log = last_lines(&folder);
        folder.remove();
        Some(JobEnd::Failed { message: format!("{name} {words}"), log, failing })
    }
}

impl Submitted {
    /// Where it is, by the last answer of the scheduler since it was submitted. `None` where that does not know it.
    fn state(&self, knowledge: &Knowledge) -> Option<JobState> {
        knowledge.states.get(self.id.as_ref()?).cloned()
    }

    /// Reports that it waits again, where it does.
    fn show(
        &mut self,
        state: Option<&JobState>,
        answers: u64,
        executor: &str,
        reporter: &Reporter,
    ) {
        match state {
            Some(JobState::Running) => {
                self.runs_since.get_or_insert(answers);
            }
            Some(JobState::Queued) if self.runs_since.is_some_and(|since| answers > since) => {
                self.runs_since = None;
                let job = self.id.clone().unwrap_or_default();
                reporter.note(format!("its job {job} was put back into the queue"));
                reporter.event(JobEvent::Queued { executor: executor.to_owned(), job });
            }
            Some(JobState::Queued) => {}
            Some(JobState::Ended(_)) | None => return,
        }
        self.was_seen = true;
    }

    /// Passes on what it says. Returns whether its process has begun or ended.
    fn hear(&mut self, reporter: &Reporter, answers: u64) -> bool {
        // Where its folder is gone, that is looked at next.
        let Ok(lines) = self.folder.events(self.read) else { return false };
        self.read += lines.len() as u64;
        let mut has_moved = false;
        for line in lines.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(JobLine::Begins { .. }) => {
                    (self.ending, self.runs_since) = (None, Some(answers));
                    has_moved = true;
                }
                Ok(JobLine::Event(event)) => reporter.event(event),
                Ok(JobLine::Ends(ending)) => {
                    self.ending = Some(ending);
                    has_moved = true;
                }
                // The part of a line of a process that was killed.
                Err(_) => {}
            }
        }
        has_moved
    }
}

fn ran(record: Record) -> JobEnd {
    JobEnd::Ran { seconds: record.seconds, result: Box::new(record.into()) }
}

fn receipt_of(terms: &Terms, id: &str) -> anyhow::Result<Vec<u8>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let receipt = QueuedJob { executor: terms.name.clone(), job: id.to_owned(), since };
    Ok(serde_json::to_vec(&receipt)?)
}

/// The end of what the script of a job printed.
fn last_lines(folder: &JobFolder) -> Vec<String> {
    let text = std::fs::read(folder.output()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(OUTPUT_LINES));
    last.map(|line| (*line).to_owned()).collect()
}
