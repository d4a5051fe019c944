//! One job that is followed: made or found, submitted once, and heard until its end.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::job::{JobEnd, JobEvent};
use super::super::spec::{JobPlace, JobSpec};
use super::handed_over::HandedOver;
use super::hold::{JobReporter, Wish};
use super::knowledge::{Knowledge, SOONEST};
use super::last_words::{last_lines, last_words, setup_has_failed, write_failure};
use super::line::JobEnding;
use super::scheduler::{Cause, Ended, JobState, Scheduler, Trouble};
use super::submitted::{QueuedJob, Submitted};
use super::terms::Terms;
use crate::cache::{Cache, JobFolder, LARGEST_TEXT, Lock, Record, read_file};
use crate::key::StageKey;
use crate::manifest::{Failing, Stage};
use crate::reason::Reason;

/// After the first wish to stop, a second one cancels jobs for this long.
const GRACE: Duration = Duration::from_secs(3);
/// What a job wrote last can come this much later than the end that its scheduler reports: file systems of other machines
/// remember for a while what was not there.
const LATE: Duration = Duration::from_secs(90);
/// So soon after it has seen the end of a job, a run makes the next one, if it makes one.
const SUCCESSION: Duration = Duration::from_secs(5);
/// Why a job cannot be cancelled whose receipt nobody has.
const UNKNOWN: &str = "nobody knows its id";

/// A job that is followed.
pub(super) struct FollowedJob {
    spec: JobSpec,
    pub(super) reporter: JobReporter,
    pub(super) wish: Wish,
    left: Option<Instant>,
    at: At,
}

/// How far it is.
enum At {
    /// It must be made, or found.
    Begin {
        /// Whether somebody was told why it waits.
        waits: bool,
    },
    /// It is made, and its scheduler did not take it yet.
    Made {
        folder: JobFolder,
    },
    Submitted(Box<Submitted>),
}

/// What became of a job that was made, and that this run does not submit.
enum GivenUp {
    /// Its folder is gone.
    Removed,
    /// Its scheduler may have it: nobody has the answer.
    MayBeThere,
    /// Another run has submitted it meanwhile, and follows it.
    Submitted,
    /// Another run has the right to submit it right now.
    Busy,
}

impl FollowedJob {
    pub(super) fn new(spec: JobSpec, reporter: JobReporter, wish: Wish) -> Self {
        Self { spec, reporter, wish, left: None, at: At::Begin { waits: false } }
    }

    /// Whether somebody wants it to end.
    pub(super) fn is_unwanted(&self) -> bool {
        self.wish.get() == Wish::CANCEL
    }

    /// Its id, once it has one.
    pub(super) fn id(&self) -> Option<String> {
        match &self.at {
            At::Submitted(job) => job.id.clone(),
            At::Begin { .. } | At::Made { .. } => None,
        }
    }

    /// Whether its scheduler has to know it, as far as it has not said itself that it was stopped.
    pub(super) fn is_expected(&self) -> bool {
        matches!(&self.at, At::Submitted(job) if job.id.is_some() && !job.is_over)
    }

    /// Its end, once its scheduler was asked to end it; `trouble` is why it may go on.
    pub(super) fn cancelled(&mut self, cache: &Cache, trouble: Option<&Trouble>) -> JobEnd {
        // It may have come to its end before, and nobody have heard that.
        if let At::Submitted(job) = &self.at
            && let Some(record) = self.recorded(cache, &job.folder)
        {
            let _ = self.finish(cache, &job.folder);
            return JobEnd::ran(record);
        }
        let (folder, why) = match (&self.at, trouble) {
            (At::Begin { .. }, _) => return JobEnd::Stopped,
            (At::Made { folder, .. }, _) => match self.give_up(cache, folder) {
                // Where it stays, the next run submits it.
                Ok(GivenUp::Removed) | Err(_) => return JobEnd::Stopped,
                Ok(GivenUp::Submitted | GivenUp::Busy) => return JobEnd::Left,
                Ok(GivenUp::MayBeThere) => return self.may_be_there(),
            },
            (At::Submitted(job), _) if job.id.is_none() => (&job.folder, Some(UNKNOWN.to_owned())),
            (At::Submitted(job), trouble) => {
                (&job.folder, trouble.map(|trouble| trouble.words().to_owned()))
            }
        };
        if let Some(why) = why {
            self.reporter.note(format!("{} could not be cancelled: {why}", self.called()));
            return JobEnd::Left;
        }
        // Where it stays, the next run sees that it has ended.
        let _ = self.finish(cache, folder);
        JobEnd::Stopped
    }

    /// Reports its end. Its log has a failure that its job does not know of, too, as it outlives the terminal.
    pub(super) fn report_end(&self, cache: &Cache, end: JobEnd) {
        let is_written = match &self.at {
            At::Submitted(job) => {
                job.removed.is_some() || matches!(job.ending, Some(JobEnding::Failed { .. }))
            }
            At::Begin { .. } | At::Made { .. } => false,
        };
        if let JobEnd::Failed { message, .. } = &end
            && !is_written
        {
            write_failure(cache, &self.key(), message);
        }
        self.reporter.end(end);
    }

    /// What it is called in messages.
    fn called(&self) -> String {
        self.id().map_or("its job".to_owned(), |id| format!("its job {id}"))
    }

    /// Removes its folder, now that its end was seen: that of this job alone, as others may have seen its end, too, and made another
    /// one. Returns `false` where somebody else has the right to do that right now.
    fn finish(&self, cache: &Cache, folder: &JobFolder) -> anyhow::Result<bool> {
        let Some(_lock) = cache.lock_job(&self.key())? else { return Ok(false) };
        self.remove(folder)?;
        Ok(true)
    }

    /// The same, for whoever has that right.
    fn remove(&self, folder: &JobFolder) -> anyhow::Result<()> {
        let place = JobPlace::of_job(&folder.spec())?;
        if place.is_some_and(|place| place.token == self.token()) {
            folder.remove()
        } else {
            Ok(())
        }
    }

    /// This run submits it no more. What its folder holds would be held for nobody, unless a scheduler was asked to take it.
    fn give_up(&self, cache: &Cache, folder: &JobFolder) -> anyhow::Result<GivenUp> {
        let Some(_lock) = cache.lock_job(&self.key())? else { return Ok(GivenUp::Busy) };
        if folder.was_submitted() {
            return Ok(GivenUp::Submitted);
        }
        if self.may_have(folder) {
            return Ok(GivenUp::MayBeThere);
        }
        self.remove(folder)?;
        Ok(GivenUp::Removed)
    }

    /// Its end where nobody knows whether its scheduler has it: its folder says so, and the next run asks.
    fn may_be_there(&self) -> JobEnd {
        let text = "its scheduler did not say whether it has taken its job: the next run finds out";
        self.reporter.note(text.to_owned());
        JobEnd::Stopped
    }

    /// The same, before an end that counts whether or not it can be removed.
    fn finish_before(&self, cache: &Cache, folder: &JobFolder, end: JobEnd) -> Option<JobEnd> {
        let is_done = self.finish(cache, folder).unwrap_or_else(|error| {
            self.reporter.note(format!("{error:#}"));
            true
        });
        is_done.then_some(end)
    }

    /// Goes on as far as that is possible now. Returns its end. `room` is how many jobs may still be made.
    pub(super) fn step(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        scheduler: &dyn Scheduler,
        knowledge: &mut Knowledge,
        room: &mut usize,
    ) -> Option<JobEnd> {
        let leaves = self.wish.get() == Wish::LEAVE;
        let step = match &self.at {
            At::Begin { .. } if leaves => return Some(JobEnd::Stopped),
            At::Made { folder } if leaves => match self.give_up(cache, folder) {
                Ok(GivenUp::Removed) | Err(_) => return Some(JobEnd::Stopped),
                Ok(GivenUp::MayBeThere) => return Some(self.may_be_there()),
                Ok(GivenUp::Submitted) => return Some(JobEnd::Left),
                Ok(GivenUp::Busy) => return None,
            },
            At::Begin { .. } => {
                self.begin(terms, cache, scheduler.requeue(), knowledge.asked, room)
            }
            // Those that are alike are submitted together.
            At::Made { .. } => Ok(None),
            At::Submitted(_) => self.follow(terms, cache, knowledge),
        };
        let end = step.unwrap_or_else(|error| Some(JobEnd::failed(format!("{error:#}"))));
        let was_seen = matches!(&self.at, At::Submitted(job) if job.was_seen);
        match end {
            // Once it has a result, it looks what that makes ready: only what it says last says that it has done so.
            None if terms.leaves.load(Ordering::Relaxed)
                && was_seen
                && (terms.only_new || self.record(cache).is_none()) =>
            {
                Some(JobEnd::Left)
            }
            None if leaves => {
                let since = *self.left.get_or_insert_with(Instant::now);
                (since.elapsed() >= GRACE).then_some(JobEnd::Left)
            }
            end => end,
        }
    }

    pub(super) fn key(&self) -> StageKey {
        self.spec.work.key
    }

    /// A result that counts, where it is not another one that is asked for.
    fn record(&self, cache: &Cache) -> Option<Record> {
        (!self.is_forced()).then(|| cache.usable(&self.key())).flatten()
    }

    /// The result of a job that has ended.
    fn recorded(&self, cache: &Cache, folder: &JobFolder) -> Option<Record> {
        match JobEnding::recorded(folder) {
            Some(JobEnding::Recorded { reused: false }) => cache.usable(&self.key()),
            _ => self.record(cache),
        }
    }

    /// Makes its folder, or finds it.
    fn begin(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        requeue: Option<&str>,
        asked: u64,
        room: &mut usize,
    ) -> anyhow::Result<Option<JobEnd>> {
        let key = self.key();
        if let Some(folder) = cache.job(&key) {
            // Whoever submits it right now may fail; then it is tried here.
            return match terms.only_new && folder.was_submitted() {
                true => Ok(Some(JobEnd::Left)),
                false => self.attach(terms, cache, &folder, asked),
            };
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
        if *room == 0 {
            return Ok(None);
        }
        let Some(_lock) = cache.lock_job(&key)? else { return Ok(None) };
        self.spec.place = Some(JobPlace::new(&terms.name, requeue));
        let spec = serde_json::to_vec(&self.spec)?;
        let Some(folder) = cache.begin_job(&key, &spec, self.spec.pins())? else {
            return Ok(None);
        };
        self.at = At::Made { folder };
        *room -= 1;
        Ok(None)
    }

    /// Finds out where a job is that somebody else has made, or an earlier run.
    fn attach(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        folder: &JobFolder,
        asked: u64,
    ) -> anyhow::Result<Option<JobEnd>> {
        // Whoever has this submits it right now.
        let Some(_lock) = cache.lock_job(&self.key())? else { return Ok(None) };
        let path = folder.spec();
        let text = match read_file(&path, LARGEST_TEXT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It may be queued, or run.
            Err(error) => {
                let why = format!("cannot read {}: {error}; it is tried again", path.display());
                self.wait(why);
                return Ok(None);
            }
            Ok(text) => text,
        };
        let (place, spec) = (JobPlace::in_text(&text), JobSpec::in_text(&text, &path));
        let last = JobEnding::last(folder).filter(JobEnding::is_final);
        let what = match (&spec, &last) {
            // None of these programs would run it.
            (Err(_), _) => Some("the job of another build"),
            // It would be taken for what is asked for now.
            (Ok(spec), Some(_)) if self.is_forced() && spec.work.reason != Reason::Forced => {
                Some("a job that ended before this was asked for")
            }
            (Ok(_), Some(_)) if place.executor != terms.name => {
                Some("a job of another executor that has ended")
            }
            (Ok(_), _) => None,
        };
        if let Some(what) = what {
            folder.remove()?;
            self.begin_again(what);
            return Ok(None);
        }
        if place.executor != terms.name {
            let message = format!(
                "a job of the executor '{}' does the same work: use that one, or end the job with `pipeline cancel`, which removes {}",
                place.executor,
                folder.place().display()
            );
            return Ok(Some(JobEnd::failed(message)));
        }
        self.spec.place = Some(place);
        let cannot_read = |what: &str, error: io::Error| {
            let place = folder.place().display();
            format!(
                "cannot read {what} in {place}: {error}; it is tried again: if its job is gone, remove that folder"
            )
        };
        match (QueuedJob::submitted(folder), HandedOver::of(folder, &self.token())) {
            // The answer to a question that is out already is not about it.
            (Ok(Some(receipt)), _) => {
                self.take_up(terms, folder.clone(), Some(receipt.job), false, asked);
            }
            (Err(error), _) => self.wait(cannot_read("which job it is", error)),
            (Ok(None), Err(error)) => self.wait(cannot_read("whether it was submitted", error)),
            // Its scheduler may have it, also where its receipt is damaged. That is asked for all of them together.
            (Ok(None), Ok(_)) => {
                folder.forget_submitted()?;
                self.at = At::Made { folder: folder.clone() };
            }
        }
        Ok(None)
    }

    /// What becomes of it cannot be told now, for this reason.
    fn wait(&mut self, why: String) {
        if let At::Begin { waits } = &mut self.at
            && !std::mem::replace(waits, true)
        {
            self.reporter.note(why);
        }
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
        self.at = At::Submitted(Box::new(Submitted::new(folder, id, was_seen, since)));
    }

    /// Another job takes the place of one whose folder is gone.
    fn begin_again(&mut self, what: &str) {
        self.reporter.note(format!("{what} is replaced by a new one"));
        self.at = At::Begin { waits: false };
    }

    /// Gives up a job that has ended: another one takes its place.
    fn replace(&mut self, cache: &Cache, folder: &JobFolder, what: &str) -> anyhow::Result<()> {
        if self.finish(cache, folder)? {
            self.begin_again(what);
        }
        Ok(())
    }

    /// Whether it waits for its submission.
    pub(super) fn is_made(&self) -> bool {
        matches!(self.at, At::Made { .. }) && self.wish.get() == 0
    }

    /// The array that it is a task of, or else its own id; nothing where nobody knows. `None` where no scheduler has it.
    pub(super) fn array(&self) -> Option<&str> {
        let At::Submitted(job) = &self.at else { return None };
        let id = job.id.as_deref().unwrap_or_default();
        Some(id.split_once('_').map_or(id, |(array, _)| array))
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.spec.declaration
    }

    /// Whether it waits for its submission, and somebody may have submitted it who could not write that down.
    pub(super) fn may_be_submitted(&self) -> bool {
        let At::Made { folder } = &self.at else { return false };
        self.is_made() && self.may_have(folder)
    }

    /// Whether its scheduler may have the job of a folder that has no receipt.
    fn may_have(&self, folder: &JobFolder) -> bool {
        folder.has_begun() || !matches!(HandedOver::of(folder, &self.token()), Ok(None))
    }

    /// The right to submit it, with its folder. `None` where somebody else has that, or has done it.
    pub(super) fn lock_to_submit(
        &mut self,
        cache: &Cache,
    ) -> anyhow::Result<Option<(Lock, JobFolder)>> {
        let At::Made { folder } = &self.at else { return Ok(None) };
        let folder = folder.clone();
        let Some(lock) = cache.lock_job(&self.key())? else { return Ok(None) };
        let place = JobPlace::of_job(&folder.spec())?;
        let is_ours = place.is_some_and(|place| place.token == self.token());
        // Another run has submitted it meanwhile, or has seen its end.
        if !is_ours || folder.was_submitted() {
            self.at = At::Begin { waits: false };
            return Ok(None);
        }
        Ok(Some((lock, folder)))
    }

    /// It was handed over, and nobody has its receipt: this is what its scheduler knows by tokens.
    pub(super) fn look_for(
        &mut self,
        terms: &Terms,
        folder: JobFolder,
        known: &HashMap<String, String>,
        knowledge: &Knowledge,
    ) -> anyhow::Result<()> {
        let Ok(handed) = HandedOver::of(&folder, &self.token()) else {
            // What is said of that is said where it is found.
            self.at = At::Begin { waits: false };
            return Ok(());
        };
        let id = handed.and_then(|handed| Some(handed.id(known.get(&handed.token)?)));
        if let Some(id) = &id {
            folder.set_submitted(&QueuedJob::receipt(terms, id)?)?;
        } else if !folder.has_begun() {
            // Now it can be submitted.
            return folder.set_handed_over(None);
        }
        self.take_up(terms, folder, id, false, knowledge.asked);
        Ok(())
    }

    /// Its scheduler has taken it, under this id.
    pub(super) fn was_taken(
        &mut self,
        terms: &Terms,
        folder: JobFolder,
        id: String,
        knowledge: &Knowledge,
    ) -> anyhow::Result<()> {
        folder.set_submitted(&QueuedJob::receipt(terms, &id)?)?;
        self.take_up(terms, folder, Some(id), true, knowledge.asked);
        Ok(())
    }

    pub(super) fn token(&self) -> String {
        self.spec.place.as_ref().map(|place| place.token.clone()).unwrap_or_default()
    }

    /// Whether its job went on with it in the allocation of another one.
    fn inherits(&self) -> bool {
        self.spec.place.as_ref().is_some_and(|place| place.inherits)
    }

    /// Whether another result is asked for, whatever there is.
    fn is_forced(&self) -> bool {
        self.spec.work.reason == Reason::Forced
    }

    /// Hears what it says, and whether its scheduler still knows it.
    fn follow(
        &mut self,
        terms: &Terms,
        cache: &Cache,
        knowledge: &mut Knowledge,
    ) -> anyhow::Result<Option<JobEnd>> {
        let (key, token, inherits) = (self.key(), self.token(), self.inherits());
        let At::Submitted(job) = &mut self.at else { return Ok(None) };
        match job.is_in_place(&token) {
            Ok(Some(true)) => job.removed = None,
            // Another run has seen its end, and made another one.
            Ok(Some(false)) => {
                self.at = At::Begin { waits: false };
                return Ok(None);
            }
            Ok(None) => return Ok(self.removed(cache)),
            // That is not known now.
            Err(_) => return Ok(None),
        }
        if job.hear(&self.reporter, knowledge.asked) {
            knowledge.is_old();
        }
        match &job.ending {
            // The key may be held by a second job of the same folder, which says later how it ended.
            None | Some(JobEnding::Stopped { .. } | JobEnding::Held) => {}
            Some(ending) => {
                let ending = ending.clone();
                return self.ended(cache, ending);
            }
        }
        let state = job.state(knowledge);
        let is_back = job.show(state.as_ref(), knowledge, &terms.name, &self.reporter);
        if is_back && inherits {
            // What starts again is the job before it, which has ended.
            let folder = job.folder.clone();
            self.replace(cache, &folder, "a job that went on after another stage")?;
            return Ok(None);
        }
        let is_known = !matches!(state, None | Some(JobState::Ended(_)));
        let is_unasked = job.id.is_some() && knowledge.answers <= job.since;
        // That it works counts for more than what a scheduler says.
        let works = Lock::is_taken(&cache.layout().lock(&key.to_string()));
        job.was_seen |= works;
        job.is_over = matches!(job.ending, Some(JobEnding::Stopped { .. }))
            && !works
            && !matches!(state, Some(JobState::Queued(_) | JobState::Held(_)));
        if is_known || is_unasked || works {
            job.gone = None;
            let ended = match &state {
                Some(JobState::Ended(ended)) => Some(ended),
                _ => None,
            };
            if is_known || is_unasked {
                job.locked = None;
            } else if let Some(text) = job.is_locked(&key, ended, Instant::now()) {
                self.reporter.note(text);
            }
            return Ok(None);
        }
        job.locked = None;
        let (asked, since) = *job.gone.get_or_insert((knowledge.asked, Instant::now()));
        // What it wrote last may be seen here later.
        let late = if cache.is_local() { Duration::ZERO } else { LATE };
        let is_certain = match job.id {
            Some(_) => knowledge.answers > asked,
            None => since.elapsed() >= SOONEST,
        };
        if !is_certain || job.was_seen && since.elapsed() < late {
            knowledge.is_old();
            return Ok(None);
        }
        let folder = job.folder.clone();
        if job.ending == Some(JobEnding::Held) {
            // Now nobody holds it.
            if self.finish(cache, &folder)? {
                self.at = At::Begin { waits: false };
            }
            return Ok(None);
        }
        if let Some(record) = self.record(cache) {
            return Ok(self.finish_before(cache, &folder, JobEnd::ran(record)));
        }
        let ended = match state {
            Some(JobState::Ended(ended)) => Some(ended),
            _ => None,
        };
        self.gone(cache, ended)
    }

    /// Its folder is gone: another run has seen its end.
    fn removed(&mut self, cache: &Cache) -> Option<JobEnd> {
        if let Some(record) = self.record(cache) {
            return Some(JobEnd::Reused(Box::new(record.into())));
        }
        // A run that has taken it out of the queue does its work itself.
        if Lock::is_taken(&cache.layout().lock(&self.key().to_string())) {
            self.at = At::Begin { waits: false };
            return None;
        }
        let At::Submitted(job) = &mut self.at else { return None };
        let since = *job.removed.get_or_insert_with(Instant::now);
        // Its record can be seen here later than that; and the other run may be about to make the job that takes its place.
        let late = if cache.is_local() { SUCCESSION } else { LATE };
        if since.elapsed() < late {
            return None;
        }
        let words = last_words(cache, &self.key());
        let message = words
            .unwrap_or("its job ended or was cancelled, and another process saw that".to_owned());
        Some(JobEnd::failed(message))
    }

    /// What its own last word means.
    fn ended(&mut self, cache: &Cache, ending: JobEnding) -> anyhow::Result<Option<JobEnd>> {
        let key = self.key();
        let At::Submitted(job) = &mut self.at else { return Ok(None) };
        let (was_seen, was_cancelled) = (job.was_seen, job.was_cancelled);
        let folder = job.folder.clone();
        let end = match ending {
            JobEnding::Recorded { reused } => match cache.usable(&key) {
                Some(record) if reused => JobEnd::Reused(Box::new(record.into())),
                Some(record) => JobEnd::ran(record),
                None => {
                    // The record can be seen here later than the word of it; or somebody has removed it since.
                    let since = *job.recorded.get_or_insert_with(Instant::now);
                    if !was_seen || since.elapsed() >= LATE {
                        self.replace(cache, &folder, "a job whose result is gone")?;
                    }
                    return Ok(None);
                }
            },
            JobEnding::Held | JobEnding::Stopped { .. } => return Ok(None),
            ending if !was_seen || was_cancelled => {
                let what = match ending {
                    JobEnding::Failed { message, .. } => {
                        let first = message.lines().next().unwrap_or_default().to_owned();
                        format!("a job that failed meanwhile ({first})")
                    }
                    _ => "a job that ended meanwhile".to_owned(),
                };
                self.replace(cache, &folder, &what)?;
                return Ok(None);
            }
            JobEnding::Failed { message, log, failing } => JobEnd::Failed { message, log, failing },
            JobEnding::LostInput { artifact, was_damaged } => {
                JobEnd::LostInput { artifact, was_damaged }
            }
        };
        Ok(self.finish_before(cache, &folder, end))
    }

    /// It is gone without a last word, or it was asked to stop.
    fn gone(&mut self, cache: &Cache, ended: Option<Ended>) -> anyhow::Result<Option<JobEnd>> {
        let (name, key) = (self.called(), self.key());
        let At::Submitted(job) = &mut self.at else { return Ok(None) };
        let folder = job.folder.clone();
        if !job.was_seen {
            let what = format!("{name}, which ended meanwhile without a result,");
            self.replace(cache, &folder, &what)?;
            return Ok(None);
        }
        if job.was_cancelled {
            self.replace(cache, &folder, &format!("{name}, which was cancelled before this run,"))?;
            return Ok(None);
        }
        let has_started = job.has_started;
        let (was_stopped, time_up, said) = match job.ending {
            Some(JobEnding::Stopped { time_up, advanced }) => (true, time_up, Some(advanced)),
            _ => (false, false, None),
        };
        let cause = ended.as_ref().map_or(Cause::Job, |ended| ended.cause);
        // It may have been cancelled while it waited to go on.
        let is_interrupted = match cause {
            Cause::Person => false,
            Cause::Machine => true,
            Cause::Job => time_up,
        };
        // One that was killed could not say it.
        let goes_on = if is_interrupted && said.unwrap_or_else(|| job.has_advanced(cache, &key)) {
            Some("which was interrupted, and whose checkpoint has advanced,")
        } else if self.inherits() && !was_stopped && cause != Cause::Person {
            Some("which went on after another stage, and was ended,")
        } else {
            None
        };
        if let Some(why) = goes_on {
            self.replace(cache, &folder, &format!("{name}, {why}"))?;
            return Ok(None);
        }
        let (words, failing) = match ended {
            _ if time_up && is_interrupted => (
                "had too little time: its checkpoint is not further than when it began".to_owned(),
                Failing::Timeout,
            ),
            Some(Ended { words, failing: Some(failing), .. }) => (words, failing),
            _ if was_stopped => (
                "was asked to stop: somebody cancelled it, or its time was up".to_owned(),
                Failing::Failure,
            ),
            // Whether its scheduler still remembers it says nothing of how it ended.
            ended => {
                let gone = "is gone without a result: its scheduler does not know it any more";
                let words = ended.map_or_else(|| gone.to_owned(), |ended| ended.words);
                // Another one would not begin either, or was not wanted.
                let by_itself = !folder.has_begun() || setup_has_failed(&folder);
                (words, if by_itself { Failing::Failure } else { Failing::Signal })
            }
        };
        let log = last_lines(cache, &key, &folder, has_started);
        let end = JobEnd::Failed { message: format!("{name} {words}"), log, failing };
        Ok(self.finish_before(cache, &folder, end))
    }
}
