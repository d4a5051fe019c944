use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use pipeline_stages::message::Event;

use super::super::super::executor::JobReport;
use super::super::super::handle::Waker;
use super::super::super::job::{JobEnd, JobEvent};
use super::super::super::spec::JobSpec;
use super::super::hold::{JobReporter, Wish};
use super::super::knowledge::{LATEST, SOONEST};
use super::super::scheduler::{Arrays, JobState, Submission, Tasks, Trouble};
use super::*;
use crate::manifest::{CommandTemplates, ExecutorSettings, SchedulerSettings};

/// Takes all jobs. While it cancels some, another one becomes unwanted.
#[derive(Default)]
struct Slow {
    other: Wish,
    cancelled: Arc<Mutex<Vec<Vec<String>>>>,
    submitted: Mutex<usize>,
}

impl Scheduler for Slow {
    fn submit(&self, _job: &Submission<'_>) -> Result<String, Trouble> {
        let mut submitted = self.submitted.lock().expect("one thread");
        *submitted += 1;
        Ok(submitted.to_string())
    }

    fn states(&self, ids: &[String], _stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        Ok(ids.iter().map(|id| (id.clone(), JobState::Queued(None))).collect())
    }

    fn cancel(&self, ids: &[String]) -> Result<(), Trouble> {
        self.cancelled.lock().expect("one thread").push(ids.to_vec());
        self.other.want(Wish::CANCEL);
        Ok(())
    }
}

/// The thread of an executor that has these stages before it, each with a wish, and whom it reports to.
fn desk(
    scheduler: impl Scheduler + 'static,
    most: Option<u32>,
    folder: &Path,
    stages: &[&str],
) -> (Desk, Vec<(Wish, Receiver<JobReport>)>) {
    let manifest = folder.join("experiment.toml");
    let stage = |name: &str| {
        format!("[stages.{name}]\nkind = \"command\"\nrun = [\"{name}\", \"${{n}}\"]\n")
    };
    let text = format!(
        "[experiment]\nname = \"x\"\n[matrix]\nn = [1, 2, 3, 4, 5]\n{}{}",
        stage("a"),
        stage("b")
    );
    std::fs::write(&manifest, text).expect("ours");
    let place = folder.join("cache");
    let cache = Cache::open(&place).expect("a cache");
    cache.prepare().expect("writable");
    let followed = stages.iter().map(|name| {
        let spec = crate::testing::job(&manifest, &place, name).expect("a job");
        let spec: JobSpec = serde_json::from_value(spec).expect("a job");
        let (sender, reports) = channel();
        let reporter = JobReporter { sender, waker: Waker::new(|| {}) };
        let wish = Wish::default();
        (FollowedJob::new(spec, reporter, wish.clone()), (wish, reports))
    });
    let (jobs, followers) = followed.unzip();
    let [submit, state, cancel] = ["submit", "state", "cancel"].map(str::to_owned);
    let settings = ExecutorSettings {
        max_jobs: most,
        path: None,
        setup: None,
        scheduler: SchedulerSettings::Command(CommandTemplates { submit, state, cancel }),
    };
    let desk = Desk {
        terms: Terms { name: "test".to_owned(), settings, leaves: Arc::default(), only_new: false },
        cache: Arc::new(cache),
        scheduler: Arc::new(scheduler),
        knowledge: Knowledge::new(),
        question: None,
        over: Arc::default(),
        jobs,
        width: Width::Wide,
        most: usize::MAX,
    };
    (desk, followers)
}

/// Makes what may be made, and submits it.
fn turn(desk: &mut Desk) {
    let mut room = desk.room();
    for place in 0..desk.jobs.len() {
        assert!(!desk.step(place, &mut room));
    }
    desk.submit();
}

#[test]
fn a_job_that_becomes_unwanted_while_others_are_cancelled_is_cancelled_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Slow::default();
    let (cancelled, other) = (Arc::clone(&scheduler.cancelled), scheduler.other.clone());
    let (mut desk, mut followers) = desk(scheduler, None, folder.path(), &["a@n=1", "b@n=1"]);
    followers[1].0 = other.clone();
    desk.jobs[1].wish = other;
    turn(&mut desk);
    followers[0].0.want(Wish::CANCEL);
    desk.cancel();
    desk.cancel();
    assert_eq!(*cancelled.lock().expect("one thread"), [["1"], ["2"]]);
    for (_, reports) in followers {
        assert!(matches!(reports.try_iter().last(), Some(JobReport::End(JobEnd::Stopped))));
    }
}

#[test]
fn whoever_submits_new_jobs_alone_leaves_one_that_another_process_submits_and_tries_it_where_that_fails()
 {
    for is_taken in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut desk, followers) = desk(Slow::default(), None, folder.path(), &["a@n=1"]);
        desk.terms.only_new = true;
        let (cache, key) = (Arc::clone(&desk.cache), desk.jobs[0].key());
        let makes = cache.lock_job(&key).expect("writable").expect("nobody has it");
        turn(&mut desk);
        let made = cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable");
        let made = made.expect("the first");
        // Whoever has made it may submit it only now, or fail.
        turn(&mut desk);
        if is_taken {
            made.set_submitted(b"{}").expect("writable");
            assert!(desk.step(0, &mut desk.room()));
            assert!(matches!(followers[0].1.try_iter().last(), Some(JobReport::End(JobEnd::Left))));
        } else {
            made.remove().expect("writable");
            drop(makes);
            turn(&mut desk);
            assert_eq!(ids(&desk), ["1"]);
        }
    }
}

/// What was submitted: the stage, of an array the first one, and its tasks.
type Taken = Vec<(String, Option<Tasks>)>;

/// Takes arrays, and remembers what it has taken.
#[derive(Default)]
struct Arraying {
    taken: Arc<Mutex<Taken>>,
    /// It refuses what is larger.
    widest: Option<usize>,
}

impl Scheduler for Arraying {
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble> {
        let count = job.tasks.map_or(1, |tasks| tasks.count);
        if self.widest.is_some_and(|widest| count > widest) {
            return Err(Trouble::Refused("Invalid job array specification".to_owned()));
        }
        let mut taken = self.taken.lock().expect("one thread");
        taken.push((job.stage.name.to_string(), job.tasks));
        Ok(taken.len().to_string())
    }

    fn states(&self, _ids: &[String], _stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        Ok(HashMap::new())
    }

    fn cancel(&self, _ids: &[String]) -> Result<(), Trouble> {
        Ok(())
    }

    fn arrays(&self) -> Option<Arrays> {
        Some(Arrays { most: 4, index: "INDEX", rename: "true" })
    }
}

const SWEEP: [&str; 7] = ["a@n=1", "a@n=2", "b@n=1", "a@n=3", "a@n=4", "a@n=5", "b@n=2"];

fn one(name: &str) -> (String, Option<Tasks>) {
    (name.to_owned(), None)
}

fn several(name: &str, count: usize, at_once: Option<usize>) -> (String, Option<Tasks>) {
    (name.to_owned(), Some(Tasks { count, at_once }))
}

#[test]
fn instances_of_a_stage_go_as_arrays() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Arraying::default();
    let taken = Arc::clone(&scheduler.taken);
    let (mut desk, _followers) = desk(scheduler, None, folder.path(), &SWEEP);
    turn(&mut desk);
    let expected = [several("a@n=1", 4, None), one("a@n=5"), several("b@n=1", 2, None)];
    assert_eq!(*taken.lock().expect("one thread"), expected);
    let ids: Vec<_> = desk.jobs.iter().filter_map(FollowedJob::id).collect();
    assert_eq!(ids, ["1_0", "1_1", "3_0", "1_2", "1_3", "2", "3_1"]);
}

#[test]
fn no_more_run_at_once_than_an_executor_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Arraying::default();
    let taken = Arc::clone(&scheduler.taken);
    let (mut desk, _followers) = desk(scheduler, Some(2), folder.path(), &SWEEP);
    turn(&mut desk);
    turn(&mut desk);
    // All that are ready, with a limit of their own, as nothing was there before.
    let mut expected = vec![several("a@n=1", 4, Some(2))];
    assert_eq!(*taken.lock().expect("one thread"), expected);
    // With a task less, as many wait as may run.
    desk.jobs.retain(|job| !job.id().is_some_and(|id| ["1_0", "1_1"].contains(&&*id)));
    turn(&mut desk);
    assert_eq!(*taken.lock().expect("one thread"), expected);
    desk.jobs.retain(|job| job.id().is_none_or(|id| id != "1_2"));
    turn(&mut desk);
    turn(&mut desk);
    expected.push(one("b@n=1"));
    assert_eq!(*taken.lock().expect("one thread"), expected);
    desk.jobs.retain(|job| job.id().is_none());
    turn(&mut desk);
    expected.extend([one("a@n=5"), one("b@n=2")]);
    assert_eq!(*taken.lock().expect("one thread"), expected);
}

#[test]
fn where_only_few_may_wait_no_more_wait_than_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Arraying { widest: Some(2), ..Arraying::default() };
    let taken = Arc::clone(&scheduler.taken);
    let (mut desk, _followers) = desk(scheduler, Some(2), folder.path(), &SWEEP);
    turn(&mut desk);
    turn(&mut desk);
    let mut expected = vec![several("a@n=1", 2, None)];
    assert_eq!(*taken.lock().expect("one thread"), expected);
    desk.jobs.retain(|job| job.id().is_none());
    turn(&mut desk);
    turn(&mut desk);
    expected.push(several("b@n=1", 2, None));
    assert_eq!(*taken.lock().expect("one thread"), expected);
}

#[test]
fn where_arrays_are_refused_each_goes_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Arraying { widest: Some(1), ..Arraying::default() };
    let taken = Arc::clone(&scheduler.taken);
    let (mut desk, _followers) = desk(scheduler, None, folder.path(), &["a@n=1", "a@n=2"]);
    turn(&mut desk);
    turn(&mut desk);
    assert_eq!(*taken.lock().expect("one thread"), [one("a@n=1"), one("a@n=2")]);
}

/// Has room for so many jobs, and says so.
#[derive(Default)]
struct Limited {
    room: Arc<Mutex<usize>>,
    /// The sizes of what it was asked to take.
    asked: Arc<Mutex<Vec<usize>>>,
    has_others: Arc<AtomicBool>,
    /// Whether it does not say for certain that it is full.
    is_vague: bool,
    /// It never takes jobs with such names, and says the same of them.
    never: &'static str,
}

impl Limited {
    fn full(&self) -> Trouble {
        let words = "no room".to_owned();
        if self.is_vague { Trouble::MayBeFull(words) } else { Trouble::Full(words) }
    }
}

impl Scheduler for Limited {
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble> {
        let count = job.tasks.map_or(1, |tasks| tasks.count);
        let (mut room, mut asked) =
            (self.room.lock().expect("ours"), self.asked.lock().expect("ours"));
        asked.push(count);
        if !self.never.is_empty() && job.stage.name.as_str().starts_with(self.never) {
            return Err(self.full());
        }
        *room = room.checked_sub(count).ok_or(self.full())?;
        Ok(asked.len().to_string())
    }

    fn states(&self, _ids: &[String], _stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        Ok(HashMap::new())
    }

    fn cancel(&self, _ids: &[String]) -> Result<(), Trouble> {
        Ok(())
    }

    fn arrays(&self) -> Option<Arrays> {
        Some(Arrays { most: 4, index: "INDEX", rename: "true" })
    }

    fn has_jobs(&self) -> Result<bool, Trouble> {
        Ok(self.has_others.load(Ordering::Relaxed))
    }
}

#[test]
fn a_scheduler_that_is_full_is_given_fewer_at_once_and_the_rest_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Limited { room: Arc::new(Mutex::new(3)), ..Limited::default() };
    let (room, asked) = (Arc::clone(&scheduler.room), Arc::clone(&scheduler.asked));
    let sweep = ["a@n=1", "a@n=2", "a@n=3", "a@n=4"];
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &sweep);
    for _ in 0..3 {
        turn(&mut desk);
    }
    // The fourth one has waited; nothing is asked before its time.
    assert_eq!(*asked.lock().expect("ours"), [4, 2, 2, 1, 1]);
    assert_eq!(ids(&desk).len(), 3);
    *room.lock().expect("ours") = 1;
    turn(&mut desk);
    assert_eq!(ids(&desk).len(), 3);
    desk.knowledge.has_room();
    turn(&mut desk);
    assert_eq!(ids(&desk).len(), 4);
    let said = followers.iter().flat_map(|(_, reports)| heard(reports).0);
    let said: Vec<_> = said.filter(|note| note.contains("no room")).collect();
    assert_eq!(
        said,
        ["the executor 'test' did not take it: no room; it is asked again when others have ended"]
    );
}

#[test]
fn a_limit_that_others_fill_fails_nothing_without_a_job_of_this_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Limited::default();
    let room = Arc::clone(&scheduler.room);
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &["a@n=1", "b@n=1"]);
    for _ in 0..5 {
        later(&mut desk);
    }
    let heard = followers.iter().map(|(_, reports)| heard(reports));
    let (notes, ends): (Vec<_>, Vec<_>) = heard.unzip();
    assert!(ends.iter().all(Option::is_none), "{notes:?}");
    let said = notes.iter().flatten().filter(|note| note.contains("no room"));
    assert_eq!(said.count(), 1, "{notes:?}");
    *room.lock().expect("ours") = 2;
    later(&mut desk);
    assert_eq!(ids(&desk).len(), 2);
}

#[test]
fn a_job_that_a_scheduler_without_jobs_has_refused_twice_has_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Limited { is_vague: true, ..Limited::default() };
    let asked = Arc::clone(&scheduler.asked);
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &["a@n=1", "b@n=1"]);
    // Others may have ended just before it was asked what it has.
    for refused in 1..=2 {
        later(&mut desk);
        let ends = followers.iter().filter(|(_, reports)| heard(reports).1.is_some());
        assert_eq!((asked.lock().expect("ours").len(), ends.count()), (refused, 0));
    }
    // Each has two tries, and the first one fails.
    later(&mut desk);
    later(&mut desk);
    assert_eq!(asked.lock().expect("ours").len(), 4);
    for (_, reports) in &followers {
        let (notes, end) = heard(reports);
        assert!(
            matches!(end, Some(JobEnd::Failed { message, .. }) if message.contains("no room")),
            "{notes:?}"
        );
    }
    assert!(desk.jobs.is_empty() && desk.cache.job_keys().count() == 0);
}

#[test]
fn each_job_of_a_stage_is_refused_twice_before_it_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Limited { is_vague: true, ..Limited::default() };
    let asked = Arc::clone(&scheduler.asked);
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &["a@n=1", "a@n=2"]);
    let has_ended = |place: usize| heard(&followers[place].1).1.is_some();
    let mut ends = Vec::new();
    for _ in 0..4 {
        later(&mut desk);
        ends.extend((0..2).filter(|&place| has_ended(place)));
    }
    // Both at once first; where the first one fails, the second one is asked for at once.
    assert_eq!(*asked.lock().expect("ours"), [2, 1, 1, 1, 1]);
    assert_eq!(ends, [0, 1]);
}

#[test]
fn what_may_never_be_taken_goes_behind_the_others_and_fails_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler =
        Limited { room: Arc::new(Mutex::new(2)), is_vague: true, never: "a", ..Limited::default() };
    scheduler.has_others.store(true, Ordering::Relaxed);
    let has_others = Arc::clone(&scheduler.has_others);
    let stages = ["a@n=1", "b@n=1", "b@n=2"];
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &stages);
    for _ in 0..4 {
        later(&mut desk);
    }
    assert_eq!(ids(&desk).len(), 2, "those behind it were taken");
    assert!(heard(&followers[0].1).1.is_none(), "there are others");
    has_others.store(false, Ordering::Relaxed);
    later(&mut desk);
    assert!(heard(&followers[0].1).1.is_none());
    later(&mut desk);
    assert!(matches!(heard(&followers[0].1).1, Some(JobEnd::Failed { .. })));
    assert_eq!(ids(&desk).len(), 2);
}

/// Loses the answers to some submissions, and says later what it has.
#[derive(Default)]
struct Losing {
    /// The submissions without an answer, the last one first: whether it takes what they are about. It answers those after them.
    loses: Mutex<Vec<bool>>,
    /// The tokens of what it has taken.
    has: Arc<Mutex<Vec<String>>>,
    /// Whether it does not say that now, and how often it was asked.
    is_away: Arc<AtomicBool>,
    asked: Arc<Mutex<usize>>,
    is_mute: bool,
}

impl Losing {
    fn of(loses: &[bool]) -> Self {
        Self { loses: Mutex::new(loses.to_vec()), ..Self::default() }
    }

    fn away() -> Trouble {
        Trouble::Away("Socket timed out".to_owned())
    }
}

impl Scheduler for Losing {
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble> {
        let loses = self.loses.lock().expect("one thread").pop();
        let mut has = self.has.lock().expect("one thread");
        if loses != Some(false) {
            has.push(job.token.clone());
        }
        if loses.is_some() { Err(Self::away()) } else { Ok(has.len().to_string()) }
    }

    fn states(&self, _ids: &[String], _stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        Ok(HashMap::new())
    }

    fn cancel(&self, _ids: &[String]) -> Result<(), Trouble> {
        Ok(())
    }

    fn arrays(&self) -> Option<Arrays> {
        Some(Arrays { most: 4, index: "INDEX", rename: "true" })
    }

    fn by_token(&self) -> Result<HashMap<String, String>, Trouble> {
        *self.asked.lock().expect("one thread") += 1;
        if self.is_away.load(Ordering::Relaxed) {
            return Err(Self::away());
        }
        let has = self.has.lock().expect("one thread");
        Ok((1..).zip(&*has).map(|(id, token)| (token.clone(), id.to_string())).collect())
    }

    fn may_be_mute(&self) -> bool {
        self.is_mute
    }
}

/// A turn after the time for which a scheduler is spared.
fn later(desk: &mut Desk) {
    desk.knowledge.spared = None;
    turn(desk);
}

fn ids(desk: &Desk) -> Vec<String> {
    desk.jobs.iter().filter_map(FollowedJob::id).collect()
}

#[test]
fn what_may_have_been_taken_is_looked_for_before_it_is_submitted_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Losing::of(&[true, false]);
    let (is_away, has) = (Arc::clone(&scheduler.is_away), Arc::clone(&scheduler.has));
    let count = || has.lock().expect("one thread").len();
    let (mut desk, _followers) = desk(scheduler, None, folder.path(), &["a@n=1", "a@n=2"]);
    turn(&mut desk);
    assert_eq!(count(), 0, "it did not take it");
    later(&mut desk);
    assert_eq!((count(), ids(&desk)), (1, Vec::new()), "it took it without a word");
    is_away.store(true, Ordering::Relaxed);
    later(&mut desk);
    assert!(desk.knowledge.takes_none());
    is_away.store(false, Ordering::Relaxed);
    later(&mut desk);
    assert_eq!((count(), ids(&desk)), (1, vec!["1_0".to_owned(), "1_1".to_owned()]));
}

#[test]
fn a_scheduler_that_is_away_is_asked_less_and_less_often_and_that_is_said_once() {
    const PAUSES: [u64; 9] = [4, 8, 16, 32, 64, 128, 256, 300, 300];
    let folder = tempfile::tempdir().expect("a folder");
    let (mut desk, followers) = desk(Slow::default(), None, folder.path(), &["a@n=1", "b@n=1"]);
    turn(&mut desk);
    let away = || Err(Trouble::Away("the server is away".to_owned()));
    let mut at = Instant::now();
    for round in ['1', '2'] {
        heard(&followers[0].1);
        let notes = PAUSES.map(|pause| {
            desk.hear(away(), true, at);
            assert_eq!(desk.knowledge.next.duration_since(at).as_secs(), pause);
            at = desk.knowledge.next;
            heard(&followers[0].1).0
        });
        let said: Vec<usize> =
            (0..PAUSES.len()).filter(|place| !notes[*place].is_empty()).collect();
        // After 4, 8, 16, 32 and 64 s, two minutes without an answer are over.
        assert_eq!(said, [5], "{notes:?}");
        let words = "its scheduler does not answer, and is asked again: the server is away";
        assert_eq!(notes[5], [words]);
        assert_eq!(heard(&followers[1].1).0, [""; 0], "once for all of its jobs");
        let states = [("1".to_owned(), JobState::Queued(Some(round.to_string())))];
        desk.hear(Ok(states.into_iter().collect()), true, at);
        assert_eq!(desk.knowledge.next.duration_since(at), SOONEST, "it has something new to say");
    }
}

#[test]
fn a_scheduler_that_takes_nothing_is_spared_for_longer_each_time() {
    let mut knowledge = Knowledge::new();
    let at = Instant::now();
    for pause in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        knowledge.took_none(at);
        assert_eq!(knowledge.spared, Some(at + Duration::from_secs(pause)));
    }
}

/// What was said of a job so far, and how it ended.
fn heard(reports: &Receiver<JobReport>) -> (Vec<String>, Option<JobEnd>) {
    let (mut notes, mut end) = (Vec::new(), None);
    for report in reports.try_iter() {
        match report {
            JobReport::Event(JobEvent::Worker(Event::Note { text })) => notes.push(text),
            JobReport::Event(_) => {}
            JobReport::End(how) => end = Some(how),
        }
    }
    (notes, end)
}

#[test]
fn a_scheduler_that_cannot_say_what_it_has_is_quoted_and_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Losing::of(&[true]);
    let is_away = Arc::clone(&scheduler.is_away);
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &["a@n=1"]);
    turn(&mut desk);
    is_away.store(true, Ordering::Relaxed);
    later(&mut desk);
    let why =
        "the executor 'test' does not say whether it has it: Socket timed out; it is asked again";
    let (notes, end) = heard(&followers[0].1);
    assert_eq!(notes.last().map(String::as_str), Some(why), "{notes:?}");
    assert!(end.is_none());
    is_away.store(false, Ordering::Relaxed);
    later(&mut desk);
    assert_eq!(ids(&desk), ["1"]);
}

#[test]
fn a_job_that_may_have_been_taken_is_not_said_to_be_cancelled() {
    let folder = tempfile::tempdir().expect("a folder");
    let scheduler = Losing::of(&[true]);
    let (mut desk, followers) = desk(scheduler, None, folder.path(), &["a@n=1"]);
    turn(&mut desk);
    followers[0].0.want(Wish::CANCEL);
    desk.cancel();
    let (notes, end) = heard(&followers[0].1);
    assert!(matches!(end, Some(JobEnd::Stopped)), "{notes:?}");
    let why = "its scheduler did not say whether it has taken its job: the next run finds out";
    assert_eq!(notes.last().map(String::as_str), Some(why));
    assert_eq!(desk.cache.job_keys().count(), 1, "whoever comes back asks for it");
}

#[test]
fn a_job_that_was_not_submitted_goes_with_the_run_unless_another_one_has_submitted_it() {
    for wish in [Wish::LEAVE, Wish::CANCEL] {
        let folder = tempfile::tempdir().expect("a folder");
        let stages = ["a@n=1", "b@n=1", "b@n=2"];
        let (mut desk, followers) = desk(Arraying::default(), None, folder.path(), &stages);
        let mut room = desk.room();
        for place in 0..stages.len() {
            assert!(!desk.step(place, &mut room));
        }
        let jobs: Vec<_> = desk.jobs.iter().map(FollowedJob::key).collect();
        desk.cache.job(&jobs[0]).expect("it was made").set_submitted(b"{}").expect("ours");
        let lock = desk.cache.lock_job(&jobs[1]).expect("a lock").expect("nobody has it");
        for (own, _) in &followers {
            own.want(wish);
        }
        let left = match wish {
            Wish::CANCEL => {
                desk.cancel();
                Vec::new()
            }
            _ => (0..stages.len()).filter(|&place| !desk.step(place, &mut room)).collect(),
        };
        let ends = followers.iter().map(|(_, reports)| heard(reports).1);
        let ends: Vec<_> = ends.map(|end| end.map(|end| matches!(end, JobEnd::Left))).collect();
        match wish {
            Wish::CANCEL => assert_eq!(ends, [Some(true), Some(true), Some(false)]),
            _ => assert_eq!((ends, left), (vec![Some(true), None, Some(false)], vec![1])),
        }
        drop(lock);
        let stay: Vec<_> = jobs.iter().map(|key| desk.cache.job(key).is_some()).collect();
        assert_eq!(stay, [true, true, false]);
    }
}

/// Takes arrays, and loses what was remembered of them before.
struct Forgetful;

impl Scheduler for Forgetful {
    fn submit(&self, job: &Submission<'_>) -> Result<String, Trouble> {
        job.folder.set_handed_over(None).expect("ours");
        Ok("7".to_owned())
    }

    fn states(&self, _ids: &[String], _stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        Ok(HashMap::new())
    }

    fn cancel(&self, _ids: &[String]) -> Result<(), Trouble> {
        Ok(())
    }

    fn arrays(&self) -> Option<Arrays> {
        Some(Arrays { most: 4, index: "INDEX", rename: "true" })
    }
}

#[test]
fn a_task_has_its_index_whatever_can_be_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut desk, _followers) = desk(Forgetful, None, folder.path(), &["a@n=1", "a@n=2", "b@n=1"]);
    turn(&mut desk);
    assert_eq!(ids(&desk), ["7_0", "7_1", "7"]);
}

#[test]
fn what_an_earlier_run_has_submitted_without_a_receipt_is_asked_for_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = ["a@n=1", "a@n=2", "a@n=3", "a@n=4"];
    let scheduler = Losing::of(&[true]);
    let has = Arc::clone(&scheduler.has);
    let (mut killed, followers) = desk(scheduler, Some(2), folder.path(), &sweep);
    turn(&mut killed);
    drop((killed, followers));
    let scheduler = Losing { has: Arc::clone(&has), ..Losing::default() };
    let asked = Arc::clone(&scheduler.asked);
    let (mut next, _followers) = desk(scheduler, Some(2), folder.path(), &sweep);
    turn(&mut next);
    assert_eq!(ids(&next), ["1_0", "1_1", "1_2", "1_3"]);
    let counts = (*asked.lock().expect("one thread"), has.lock().expect("one thread").len());
    assert_eq!(counts, (1, 1));
}

#[test]
fn what_was_handed_over_is_looked_for_where_what_was_remembered_of_that_is_damaged() {
    for damaged in ["", "{\"token\"", "\0\0\0"] {
        let folder = tempfile::tempdir().expect("a folder");
        let stages = ["a@n=1"];
        let scheduler = Losing::of(&[true]);
        let has = Arc::clone(&scheduler.has);
        let (mut killed, followers) = desk(scheduler, None, folder.path(), &stages);
        turn(&mut killed);
        let job = killed.cache.job(&killed.jobs[0].key()).expect("it was made");
        job.set_handed_over(Some(damaged.as_bytes())).expect("ours");
        drop((killed, followers));
        let scheduler = Losing { has: Arc::clone(&has), ..Losing::default() };
        let (mut next, _followers) = desk(scheduler, None, folder.path(), &stages);
        turn(&mut next);
        assert_eq!((ids(&next), has.lock().expect("one thread").len()), (vec!["1".to_owned()], 1));
    }
}

#[test]
fn a_job_whose_receipt_is_damaged_is_found_by_what_was_handed_over() {
    for damaged in ["", "{\"job\"", "{}"] {
        let folder = tempfile::tempdir().expect("a folder");
        let stages = ["a@n=1", "a@n=2"];
        let scheduler = Losing::default();
        let has = Arc::clone(&scheduler.has);
        let (mut killed, followers) = desk(scheduler, None, folder.path(), &stages);
        turn(&mut killed);
        for job in &killed.jobs {
            let folder = killed.cache.job(&job.key()).expect("it was made");
            folder.set_submitted(damaged.as_bytes()).expect("ours");
        }
        drop((killed, followers));
        let scheduler = Losing { has: Arc::clone(&has), ..Losing::default() };
        let (mut next, _followers) = desk(scheduler, None, folder.path(), &stages);
        turn(&mut next);
        assert_eq!(ids(&next), ["1_0", "1_1"]);
        assert_eq!(has.lock().expect("one thread").len(), 1);
    }
}

/// The scheduler is asked, and answers.
fn answer(desk: &mut Desk) {
    desk.knowledge.next = Instant::now();
    desk.ask();
    assert!(desk.question.is_some());
    while desk.question.is_some() {
        desk.ask();
    }
}

#[test]
fn only_a_scheduler_that_may_be_mute_is_doubted_when_it_knows_none_of_its_jobs() {
    for is_mute in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let scheduler = Losing { is_mute, ..Losing::default() };
        let (mut desk, _followers) = desk(scheduler, None, folder.path(), &["a@n=1", "a@n=2"]);
        turn(&mut desk);
        answer(&mut desk);
        assert_eq!(desk.knowledge.answers, u64::from(!is_mute));
        for _ in 0..10 {
            answer(&mut desk);
        }
        assert!(desk.knowledge.interval <= LATEST, "an empty answer is believed in time");
    }
}

/// Has all jobs in its queue, and says so when it is let.
#[derive(Default)]
struct Hesitant {
    submitted: Mutex<usize>,
    answers: Arc<Mutex<()>>,
}

impl Scheduler for Hesitant {
    fn submit(&self, _job: &Submission<'_>) -> Result<String, Trouble> {
        let mut submitted = self.submitted.lock().expect("one thread");
        *submitted += 1;
        Ok(submitted.to_string())
    }

    fn states(&self, ids: &[String], _stop: &Stop) -> Result<HashMap<String, JobState>, Trouble> {
        let _may = self.answers.lock().expect("nobody panics");
        Ok(ids.iter().map(|id| (id.clone(), JobState::Queued(None))).collect())
    }

    fn cancel(&self, _ids: &[String]) -> Result<(), Trouble> {
        Ok(())
    }
}

#[test]
fn an_answer_to_a_question_from_before_a_job_was_known_is_not_about_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let stages = ["a@n=1", "b@n=1"];
    let (mut killed, followers) = desk(Hesitant::default(), None, folder.path(), &stages);
    turn(&mut killed);
    drop((killed, followers));
    let scheduler = Hesitant::default();
    let answers = Arc::clone(&scheduler.answers);
    let (mut desk, _followers) = desk(scheduler, None, folder.path(), &stages);
    let later = desk.jobs.pop().expect("two");
    turn(&mut desk);
    answer(&mut desk);
    let hesitates = answers.lock().expect("nobody panics");
    desk.knowledge.next = Instant::now();
    desk.ask();
    desk.jobs.push(later);
    turn(&mut desk);
    turn(&mut desk);
    assert_eq!(ids(&desk), ["1", "2"], "both were submitted before");
    drop(hesitates);
    while desk.question.is_some() {
        desk.ask();
    }
    turn(&mut desk);
    turn(&mut desk);
    assert_eq!(ids(&desk), ["1", "2"]);
    answer(&mut desk);
    turn(&mut desk);
    assert_eq!(ids(&desk), ["1", "2"]);
    assert_eq!(desk.knowledge.states.len(), 2);
}
