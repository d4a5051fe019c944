//! Where the jobs of an executor are: its scheduler is asked for all of them at once, and nothing waits for its answer.

use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::followed::FollowedJob;
use super::knowledge::{Answer, LATEST, LONGEST_PAUSE, Question, SOONEST};
use super::scheduler::Trouble;
use crate::machine;

/// For this time, an answer that names none of several jobs is not believed: the commands of a scheduler that is away may end
/// without a mistake, and without a word.
///
/// Not sooner where the locks of their keys are free and they have no records: so are those of jobs that wait in the queue, also of those
/// that were put back into it. What ends several jobs at once, a power cut say, often takes the scheduler away, too, and puts them back.
const DOUBT: Duration = Duration::from_secs(300);
/// After this time without an answer of a scheduler, that is worth a line.
const SILENCE: Duration = Duration::from_secs(120);

impl Desk {
    /// Hears what the scheduler answers, and asks it again when it is time for that.
    pub(super) fn ask(&mut self) {
        if let Some(question) = self.question.take() {
            match question.answer.try_recv() {
                Ok(answer) => self.hear(answer, question.is_about_several, Instant::now()),
                Err(TryRecvError::Empty) => self.question = Some(question),
                Err(TryRecvError::Disconnected) => {
                    let words = "internal error: the thread that asks it panicked".to_owned();
                    self.hear(Err(Trouble::Away(words)), false, Instant::now());
                }
            }
        }
        let ids: Vec<String> = self.jobs.iter().filter_map(FollowedJob::id).collect();
        if self.question.is_some() || ids.is_empty() || Instant::now() < self.knowledge.next {
            return;
        }
        let is_about_several = self.jobs.iter().filter(|job| job.is_expected()).count() > 1;
        let (sender, answer) = channel();
        let (scheduler, over) = (Arc::clone(&self.scheduler), Arc::clone(&self.over));
        self.knowledge.asked += 1;
        match machine::spawn("ask", move || drop(sender.send(scheduler.states(&ids, &over)))) {
            Ok(()) => self.question = Some(Question { answer, is_about_several }),
            Err(error) => self.hear(Err(Trouble::Away(error.to_string())), false, Instant::now()),
        }
    }

    /// Hears what it answers at this time.
    pub(super) fn hear(&mut self, answer: Answer, is_about_several: bool, at: Instant) {
        let knowledge = &mut self.knowledge;
        let may_be_mute = is_about_several && self.scheduler.may_be_mute();
        let is_believed =
            |silent: Option<Instant>| silent.is_some_and(|since| at.duration_since(since) >= DOUBT);
        let said = match answer {
            Ok(states) if may_be_mute && states.is_empty() && !is_believed(knowledge.silent) => {
                // It is believed one day, and not much later than that. One that has just taken jobs may not name them at once.
                let is_second = knowledge.silent.is_some();
                knowledge.was_silent(at, LATEST);
                is_second.then(|| {
                    let minutes = DOUBT.as_secs() / 60;
                    format!("its scheduler names none of its jobs, which is believed after {minutes} minutes")
                })
            }
            Ok(states) => {
                if states == knowledge.states {
                    knowledge.interval = (knowledge.interval * 5 / 4).min(LATEST);
                } else {
                    knowledge.interval = SOONEST;
                }
                knowledge.states = states;
                knowledge.answers = knowledge.asked;
                (knowledge.silent, knowledge.has_said) = (None, false);
                knowledge.next = at + knowledge.interval;
                return;
            }
            Err(trouble) => (knowledge.was_silent(at, LONGEST_PAUSE) >= SILENCE).then(|| {
                let words = trouble.words();
                format!("its scheduler does not answer, and is asked again: {words}")
            }),
        };
        if let Some(text) = said
            && !std::mem::replace(&mut knowledge.has_said, true)
        {
            self.jobs.iter().take(1).for_each(|job| job.reporter.note(text.clone()));
        }
    }
}
