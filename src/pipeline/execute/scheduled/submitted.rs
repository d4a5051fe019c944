//! A job that its scheduler has taken: what is remembered of that, where it is, and what it says.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pipeline_stages::message::Event;
use serde::{Deserialize, Serialize};

use super::super::advance::Advance;
use super::super::job::JobEvent;
use super::super::spec::JobPlace;
use super::hold::JobReporter;
use super::knowledge::Knowledge;
use super::line::{JobEnding, JobLine};
use super::scheduler::{Ended, JobState};
use super::terms::Terms;
use crate::cache::{Cache, JobFolder, Owner, SpecStamp};
use crate::digest::Digest;
use crate::format;
use crate::key::StageKey;

/// A key that is still locked so long after the end of its job, as its scheduler says, is worth a line: what is left of jobs is killed
/// sooner.
const LOCKED: Duration = Duration::from_secs(90);

/// A job that its scheduler has taken.
pub(super) struct Submitted {
    pub(super) folder: JobFolder,
    /// The file in it of what it is to do, once that was read: there may be hundreds of jobs, and it is long.
    spec: Option<SpecStamp>,
    /// `None` where nobody knows: whoever submitted it was killed before that was written.
    pub(super) id: Option<String>,
    /// How much of its journal was read.
    read: u64,
    /// Where it runs: how often the scheduler was asked when that was heard. The answers to that may say that it waits.
    runs_since: Option<u64>,
    /// Why it waits, as that was remembered last.
    waits: Option<Waits>,
    /// Whether a person had cancelled it before it was followed: what it comes to then is not what is asked for now.
    pub(super) was_cancelled: bool,
    /// Whether it was seen to wait or to work since it is followed: what had ended before is not news.
    pub(super) was_seen: bool,
    /// The processes that have begun and have not said that they ended; the last one works, if one does.
    begun: Vec<Owner>,
    /// What was in the checkpoint that its process has begun with, and how far that has come since. `None` before the first one.
    work: Option<(Option<Digest>, Advance)>,
    /// Whether its process has started the program of its stage, whose log is its own from then on.
    pub(super) has_started: bool,
    /// How its process ended last.
    pub(super) ending: Option<JobEnding>,
    /// Whether it was stopped, and nothing says that it goes on.
    pub(super) is_over: bool,
    /// How often the scheduler was asked when it was gone first, and when that was.
    pub(super) gone: Option<(u64, Instant)>,
    /// How often the scheduler was asked when it was submitted: no answer to that is about it.
    pub(super) since: u64,
    /// Since when its scheduler does not know it any more while its key is locked, and whether that was said.
    pub(super) locked: Option<(Instant, bool)>,
    /// Since when it is known that there is a record.
    pub(super) recorded: Option<Instant>,
    /// Since when its folder is gone.
    pub(super) removed: Option<Instant>,
}

/// What is remembered of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueuedJob {
    pub(crate) executor: String,
    /// What the scheduler calls it.
    pub(crate) job: String,
    /// When it took it: seconds since 1970, UTC.
    pub(crate) since: u64,
    #[serde(flatten)]
    waits: Waits,
    /// Whether it was stopped before its time was up, and nobody has heard more: a scheduler that preempts puts it into the queue again.
    #[serde(skip)]
    was_stopped: bool,
}

/// Why a job waits, as far as that was heard.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Waits {
    /// Whether it has run before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    /// Why it waits until somebody lets it go, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// Why it waits, where it is not only that others are before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Waits {
    /// What is remembered of that.
    fn of(folder: &JobFolder) -> Option<Self> {
        let text = folder.waits()?;
        // As builds before wrote it: why it is held, or nothing where it waits again.
        let before = || Self {
            again: text.is_empty(),
            held: Some(text.clone()).filter(|why| !why.is_empty()),
            why: None,
        };
        Some(serde_json::from_str(&text).unwrap_or_else(|_| before()))
    }
}

impl QueuedJob {
    /// What is written of a submission that is just made.
    pub(super) fn receipt(terms: &Terms, id: &str) -> anyhow::Result<Vec<u8>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (executor, job) = (terms.name.clone(), id.to_owned());
        let waits = Waits::default();
        Ok(serde_json::to_vec(&Self { executor, job, since, waits, was_stopped: false })?)
    }

    /// The job of a folder, where a scheduler has taken it. `None` also where what was remembered of that is damaged.
    ///
    /// # Errors
    /// When that cannot be read now.
    pub(super) fn submitted(folder: &JobFolder) -> io::Result<Option<Self>> {
        let receipt = match folder.submitted() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            other => other?,
        };
        Ok(receipt.and_then(|receipt| serde_json::from_slice(&receipt).ok()))
    }

    /// The same, where it has not begun, or was interrupted and may go on.
    pub(crate) fn of(folder: &JobFolder) -> Option<Self> {
        let heard = Waits::of(folder);
        let (waits, stopped) = match JobEnding::last(folder) {
            Some(JobEnding::Stopped { time_up, .. }) => (true, Some(time_up)),
            Some(_) => (false, None),
            // A node that failed has not said that it ended.
            None => (!folder.has_begun() || heard.is_some(), None),
        };
        let mut job = Self::submitted(folder).ok()?.filter(|_| waits)?;
        job.was_stopped = stopped == Some(false) && heard.is_none();
        job.waits = heard.unwrap_or_default();
        job.waits.again |= stopped == Some(true);
        Some(job)
    }

    /// In one line, after the name of the stage.
    pub(crate) fn line(&self) -> String {
        let Self { executor, job, since, waits: Waits { again, held, why }, was_stopped } = self;
        let submitted = format!("as job {job} of {executor}, submitted {}", format::ago(*since));
        if *was_stopped {
            return format!("was stopped {submitted}: it is in the queue again, or was cancelled");
        }
        let how = match held {
            Some(_) => "is held",
            None if *again => "is back in the queue",
            None => "is queued",
        };
        let why = held.as_ref().or(why.as_ref()).map_or(String::new(), |why| format!(": {why}"));
        format!("{how} {submitted}{why}")
    }
}

impl Submitted {
    /// One that is followed from its first word on.
    pub(super) fn new(folder: JobFolder, id: Option<String>, was_seen: bool, since: u64) -> Self {
        Self {
            was_cancelled: folder.was_cancelled(),
            folder,
            spec: None,
            id,
            read: 0,
            runs_since: None,
            waits: None,
            was_seen,
            begun: Vec::new(),
            work: None,
            has_started: false,
            ending: None,
            is_over: false,
            gone: None,
            since,
            locked: None,
            recorded: None,
            removed: None,
        }
    }

    /// Whether its folder is still that of the job with this token. `None` where it is gone.
    ///
    /// # Errors
    /// When that cannot be told now.
    pub(super) fn is_in_place(&mut self, token: &str) -> io::Result<Option<bool>> {
        let stamp = match self.folder.spec_stamp() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            stamp => stamp?,
        };
        if self.spec == Some(stamp) {
            return Ok(Some(true));
        }
        let place = JobPlace::of_job(&self.folder.spec())?;
        let is_same = place.map(|place| place.token == token);
        self.spec = is_same.unwrap_or_default().then_some(stamp);
        Ok(is_same)
    }

    /// Whether its checkpoint is further than when its process began.
    pub(super) fn has_advanced(&self, cache: &Cache, key: &StageKey) -> bool {
        let work = self.work.as_ref();
        work.is_some_and(|(checkpoint, advance)| {
            advance.is_further() && cache.checkpoint_digest(key) != *checkpoint
        })
    }

    /// Where it is, by the last answer of the scheduler since it was submitted. `None` where that does not know it.
    pub(super) fn state(&self, knowledge: &Knowledge) -> Option<JobState> {
        knowledge.states.get(self.id.as_ref()?).cloned()
    }

    /// Reports that it waits again or is held, where it is. Returns whether it waits again.
    pub(super) fn show(
        &mut self,
        state: Option<&JobState>,
        knowledge: &mut Knowledge,
        executor: &str,
        reporter: &JobReporter,
    ) -> bool {
        let mut is_back = false;
        let answers = knowledge.answers;
        match state {
            Some(JobState::Running) => {
                self.runs_since.get_or_insert(answers);
            }
            Some(JobState::Queued(_) | JobState::Held(_))
                if self.runs_since.is_some_and(|since| answers > since) =>
            {
                (self.runs_since, is_back) = (None, true);
                let job = self.id.clone().unwrap_or_default();
                reporter.note(format!("its job {job} was put back into the queue"));
                reporter.event(JobEvent::Queued { executor: executor.to_owned(), job });
            }
            Some(JobState::Queued(_) | JobState::Held(_)) => {}
            Some(JobState::Ended(_)) | None => return false,
        }
        self.was_seen = true;
        // An answer from before its process was heard does not say how it is now.
        let is_old = self.runs_since.is_some() && !matches!(state, Some(JobState::Running));
        if !is_old {
            self.wait(state, is_back, knowledge, reporter);
        }
        is_back
    }

    /// Remembers why it waits, in its folder for whoever looks; says that, where it is news.
    fn wait(
        &mut self,
        state: Option<&JobState>,
        is_back: bool,
        knowledge: &mut Knowledge,
        reporter: &JobReporter,
    ) {
        let again = is_back || self.waits.as_ref().is_some_and(|waits| waits.again);
        let waits = match state {
            Some(JobState::Held(why)) => Some(Waits { again, held: Some(why.clone()), why: None }),
            Some(JobState::Queued(why)) => Some(Waits { again, held: None, why: why.clone() }),
            _ => None,
        };
        // Nothing is to be remembered of one that only waits.
        let waits = waits.filter(|waits| self.waits.is_some() || *waits != Waits::default());
        if waits == self.waits {
            return;
        }
        let job = self.id.as_deref().unwrap_or_default();
        match &waits {
            Some(Waits { held: Some(why), .. }) => {
                reporter.note(format!("its job {job} is held: {why}"));
            }
            // Many may wait for the same.
            Some(Waits { why: Some(why), .. }) if knowledge.said.insert(why.clone()) => {
                reporter.note(format!("its job {job} waits in the queue: {why}"));
            }
            _ => {}
        }
        let text = waits.as_ref().and_then(|waits| serde_json::to_string(waits).ok());
        let _ = self.folder.set_waits(text.as_deref());
        self.waits = waits;
    }

    /// Its scheduler says at this time that it has ended, and its key is locked. What a person can do, once that has been so for long: the
    /// locks of a machine that is gone may stay.
    pub(super) fn is_locked(
        &mut self,
        key: &StageKey,
        ended: Option<&Ended>,
        at: Instant,
    ) -> Option<String> {
        let (since, was_said) = self.locked.get_or_insert((at, false));
        if at.duration_since(*since) < LOCKED || *was_said {
            return None;
        }
        let (id, owner) = (self.id.as_ref()?, self.begun.last()?);
        *was_said = true;
        let words =
            ended.map_or("is not known to its scheduler any more", |ended| ended.words.as_str());
        Some(format!(
            "its job {id} {words}, and its key stays locked: if {}, where it ran as process {}, has crashed and does not come back, and \
             nothing runs there any more, docs/cluster.md says under 'What it needs' how to free {key}",
            owner.host, owner.pid
        ))
    }

    /// Passes on what it says. Returns whether its process has begun or ended.
    pub(super) fn hear(&mut self, reporter: &JobReporter, asked: u64) -> bool {
        // Where its folder is gone, that is looked at next.
        let Ok(lines) = self.folder.events(self.read) else { return false };
        self.read += lines.len() as u64;
        let mut has_moved = false;
        // Of a journal that is read late, only the last one says how far it is, and from when on its speed counts.
        let mut progress = None;
        for line in lines.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(JobLine::Begins { owner, checkpoint }) => {
                    (self.ending, self.runs_since) = (None, Some(asked));
                    self.begun.push(owner);
                    self.work = Some((checkpoint, Advance::default()));
                    self.has_started = false;
                    has_moved = true;
                }
                Ok(JobLine::Event(JobEvent::Worker(Event::Progress(now)))) => {
                    self.work.iter_mut().for_each(|(_, advance)| advance.progress(&now));
                    progress = Some(now);
                }
                Ok(JobLine::Event(JobEvent::Starts { why, resumes, .. })) => {
                    (progress, self.has_started) = (None, true);
                    let owner = self.begun.last().cloned();
                    reporter.event(JobEvent::Starts { why, resumes, owner });
                }
                Ok(JobLine::Event(event)) => reporter.event(event),
                Ok(JobLine::Ends(ending)) => {
                    self.ending = Some(ending);
                    self.begun.pop();
                    has_moved = true;
                }
                // The part of a line of a process that was killed.
                Err(_) => {}
            }
        }
        let progress = progress.map(|now| JobEvent::Worker(Event::Progress(now)));
        progress.into_iter().for_each(|progress| reporter.event(progress));
        has_moved
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use pipeline_stages::message::{Progress, Unit};

    use super::super::super::executor::JobReport;
    use super::super::super::handle::Waker;
    use super::super::scheduler::Cause;
    use super::*;
    use crate::manifest::Failing;
    use crate::reason::Reason;

    fn owner(pid: u32) -> Owner {
        Owner { pid, host: format!("node{pid}"), since: u64::from(pid) }
    }

    #[test]
    fn a_journal_that_is_read_late_says_where_its_job_runs_and_how_far_it_is_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        let key = StageKey::of(&[]);
        let job = cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable").expect("new");
        let journal = job.journal().expect("writable");
        let begins = |pid| JobLine::Begins { owner: owner(pid), checkpoint: None };
        let starts = |owner| JobEvent::Starts { why: Reason::NeverRan, resumes: false, owner };
        let progress = |done| {
            let progress = Progress { done, total: Some(9), unit: Unit::Images, phase: None };
            JobEvent::Worker(Event::Progress(progress))
        };
        let note = |text: &str| JobEvent::Worker(Event::Note { text: text.to_owned() });
        let say = |line: JobLine| journal.add(&line.to_line()).expect("writable");
        let mut submitted = Submitted::new(job.clone(), None, false, 0);
        let (sender, reports) = channel();
        let reporter = JobReporter { sender, waker: Waker::new(|| {}) };
        let mut hear = || {
            submitted.hear(&reporter, 0);
            let events = reports.try_iter().map(|report| match report {
                JobReport::Event(event) => event,
                JobReport::End(_) => panic!("it has not ended"),
            });
            events.collect::<Vec<_>>()
        };
        for line in [begins(3), JobLine::Event(starts(None)), JobLine::Event(progress(1))] {
            say(line);
        }
        say(JobLine::Event(note("a note")));
        say(JobLine::Event(progress(5)));
        assert_eq!(hear(), [starts(Some(owner(3))), note("a note"), progress(5)]);
        say(JobLine::Event(progress(6)));
        // Its machine is gone, and its scheduler has started it on another one.
        say(begins(4));
        say(JobLine::Event(starts(None)));
        assert_eq!(hear(), [starts(Some(owner(4)))]);
        say(JobLine::Event(progress(7)));
        assert_eq!(hear(), [progress(7)]);
    }

    #[test]
    fn the_folder_of_a_job_may_become_that_of_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        let key = StageKey::of(&[]);
        let begin = |token: &str| {
            let spec = serde_json::json!({ "place": { "executor": "x", "token": token } });
            let job = cache.begin_job(&key, spec.to_string().as_bytes(), std::iter::empty());
            job.expect("writable").expect("new")
        };
        let job = begin("one");
        let mut submitted = Submitted::new(job.clone(), None, false, 0);
        let mut is_in_place = || submitted.is_in_place("one").expect("readable");
        assert_eq!([is_in_place(), is_in_place()], [Some(true); 2]);
        job.remove().expect("ours");
        assert_eq!(is_in_place(), None);
        let job = begin("two");
        assert_eq!([is_in_place(), is_in_place()], [Some(false); 2]);
        job.remove().expect("ours");
        begin("one");
        assert_eq!(is_in_place(), Some(true));
    }

    #[test]
    fn a_key_that_stays_locked_after_the_end_of_its_job_says_where_that_ran() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        let key = StageKey::of(&[]);
        let mut job = Submitted::new(cache.job_place(&key), Some("7".to_owned()), true, 0);
        let failed = Ended {
            words: "was lost: its node failed".to_owned(),
            failing: Some(Failing::Signal),
            cause: Cause::Machine,
        };
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        job.begun.push(owner(3));
        assert!([0, 60, 89].iter().all(|time| job.is_locked(&key, None, after(*time)).is_none()));
        let line = job.is_locked(&key, Some(&failed), after(90)).expect("it is long");
        insta::assert_snapshot!(line.replace(&key.to_string(), "[key]"), @"its job 7 was lost: its node failed, and its key stays locked: if node3, where it ran as process 3, has crashed and does not come back, and nothing runs there any more, docs/cluster.md says under 'What it needs' how to free [key]");
        assert_eq!(job.is_locked(&key, Some(&failed), after(200)), None, "once");
        // Where none of its own has begun, another process has the key.
        job.locked = None;
        job.begun.clear();
        assert!([0, 90].iter().all(|time| job.is_locked(&key, None, after(*time)).is_none()));
    }
}
