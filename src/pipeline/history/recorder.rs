//! Writes what a run does, from its events.
//!
//! Only for people: where the cache cannot be written, the run reports that elsewhere.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use pipeline_stages::message::Hello;
use pipeline_stages::url::blanked;

use super::git::Question;
use super::line::{Ended, Header, Line, Planned, PlannedStage, Text};
use crate::cache::{Cache, Document, Journal, Owner, now};
use crate::events::{Outcome, RunEvent};
use crate::format;
use crate::key::StageKey;
use crate::manifest::Manifest;
use crate::progress::Reporter;
use crate::shell;
use crate::stage_name::StageName;

/// The environment variable that limits the devices a process sees.
const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// What a run was asked to do.
pub(crate) struct Asked {
    experiment: String,
    manifest: PathBuf,
    folder: PathBuf,
    /// The manifest and the files that it includes.
    files: Vec<PathBuf>,
    words: Vec<String>,
    texts: Vec<Text>,
    stages: Vec<(StageName, &'static str)>,
}

impl Asked {
    /// To run these stages of a manifest, each with its kind. `words` is what selects them, as it was typed.
    pub(crate) fn new(
        manifest: &Manifest,
        stages: Vec<(StageName, &'static str)>,
        words: &[String],
    ) -> Self {
        let files = manifest.sources.files();
        let texts = files.map(|(file, text)| Text { file: file.to_owned(), text: text.into() });
        let options = manifest.sources.options().map(|given| match given.split_once(' ') {
            Some((option, value)) => format!("{option} {}", shell::quoted(value)),
            None => given.into_owned(),
        });
        let words = words.iter().map(|word| blanked(word).into_owned());
        Self {
            experiment: manifest.experiment.name.clone(),
            manifest: manifest.path.clone(),
            folder: manifest.folder.clone(),
            files: manifest.files.clone(),
            words: options.chain(words).collect(),
            texts: texts.collect(),
            stages,
        }
    }
}

/// Writes what a run does.
pub(crate) struct Recorder {
    cache: Arc<Cache>,
    asked: Asked,
    since: Owner,
    /// The keys of the stages: of their results, or those under which they started.
    keys: HashMap<StageName, StageKey>,
    journal: Recording,
    git: Option<Question>,
    /// Lines that need not be written at once.
    pending: Vec<u8>,
    is_news: bool,
    stopped: bool,
}

/// Whether something is recorded.
enum Recording {
    /// Nothing has happened yet.
    Nothing,
    Writing(Journal),
    /// The cache cannot be written.
    Unwritable,
}

impl Recorder {
    pub(crate) fn new(cache: Arc<Cache>, asked: Asked) -> Self {
        Self {
            cache,
            asked,
            since: Owner::this_process(),
            keys: HashMap::new(),
            journal: Recording::Nothing,
            git: None,
            pending: Vec::new(),
            is_news: false,
            stopped: false,
        }
    }

    /// Writes how the run began, before the first stage starts.
    fn begin(&mut self) {
        if !matches!(self.journal, Recording::Nothing) {
            return;
        }
        self.git = Some(Question::ask(self.asked.files.clone()));
        self.journal = match self.first_line() {
            Ok(journal) => Recording::Writing(journal),
            Err(_) => Recording::Unwritable,
        };
    }

    fn first_line(&self) -> anyhow::Result<Journal> {
        let Asked { experiment, manifest, folder, words, texts, stages, .. } = &self.asked;
        let planned = stages.iter().map(|(stage, kind)| PlannedStage {
            stage: stage.clone(),
            kind: (*kind).to_owned(),
            key: self.keys.get(stage).copied(),
        });
        let planned = Planned { stages: planned.collect() };
        let keep = |kind, text: Vec<u8>| self.cache.keep_document(kind, &text);
        let header = Header {
            by: Hello::of("pipeline"),
            experiment: experiment.clone(),
            manifest: manifest.clone(),
            folder: folder.clone(),
            asked: words.clone(),
            texts: keep(Document::Manifest, serde_json::to_vec(texts)?)?,
            plan: keep(Document::Plan, serde_json::to_vec(&planned)?)?,
            owner: self.since.clone(),
            visible_devices: std::env::var(VISIBLE_DEVICES).ok(),
        };
        let [year, month, day, hour, minute, second] = format::utc(self.since.since);
        let stem = format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}");
        let line = line(&Line::Begin(Box::new(header)))?;
        self.cache.begin_journal(experiment, &stem, &line)
    }

    /// Adds a line, with the next one that is written at once.
    fn add(&mut self, new: &Line) {
        if let Recording::Writing(_) = self.journal
            && let Ok(line) = line(new)
        {
            self.pending.extend(line);
        }
    }

    fn write(&mut self) {
        if let Some(commit) = self.git.as_mut().and_then(Question::answer) {
            self.git = None;
            self.add(&Line::Git(commit));
        }
        if let Recording::Writing(journal) = &mut self.journal
            && !self.pending.is_empty()
        {
            if journal.add(&self.pending).is_err() {
                self.journal = Recording::Unwritable;
            }
            self.pending.clear();
        }
    }

    fn end(&mut self, stage: &StageName, key: Option<StageKey>, ended: Ended) {
        let is_urgent = ended != Ended::Fresh;
        let key = key.or_else(|| self.keys.get(stage).copied());
        self.add(&Line::End { stage: stage.clone(), key, at: now(), ended });
        if is_urgent {
            self.write();
        }
    }

    fn done(&mut self, seconds: f64, complete: bool, detached: bool) {
        if self.is_news {
            self.begin();
        }
        self.cache.set_checked(&self.asked.experiment);
        if let Recording::Nothing = self.journal {
            return;
        }
        if let Some(commit) = self.git.take().and_then(|question| question.last_chance()) {
            self.add(&Line::Git(commit));
        }
        // Earlier builds know only that: it has not failed, and is not complete either.
        let stopped = self.stopped || detached;
        self.add(&Line::Done { at: now(), seconds, complete, stopped, detached });
        self.write();
        if let Recording::Writing(journal) = &self.journal {
            let _ = journal.sync();
        }
    }
}

impl Drop for Recorder {
    /// A run that cannot continue does not come to its end.
    fn drop(&mut self) {
        self.write();
    }
}

impl Reporter for Recorder {
    fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Queued { .. } => self.begin(),
            RunEvent::Start { stage, key, .. } => {
                self.begin();
                self.keys.insert(stage.clone(), *key);
                self.add(&Line::Start { stage: stage.clone(), key: *key, at: now() });
                self.write();
            }
            RunEvent::Attempt { stage, attempt, of, why, .. } => {
                let (stage, why) = (stage.clone(), blanked(why).into_owned());
                let (attempt, of) = (*attempt, *of);
                self.add(&Line::Attempt { stage, at: now(), attempt, of, why });
                self.write();
            }
            RunEvent::End { stage, key, is_news, ran_on, outcome } => {
                self.is_news |= is_news;
                self.keys.extend(key.map(|key| (stage.clone(), key)));
                let ended = match outcome {
                    Outcome::Fresh { .. } | Outcome::Remote { .. } => Ended::Fresh,
                    Outcome::Ran { seconds, .. } => {
                        Ended::Ran { seconds: *seconds, ran_on: ran_on.clone() }
                    }
                    Outcome::Failed { message, seconds, .. } => {
                        Ended::Failed { seconds: *seconds, message: blanked(message).into_owned() }
                    }
                    Outcome::Stopped => Ended::Stopped,
                    Outcome::Left => Ended::Left,
                    // It is in the plan, and no line says more about it.
                    Outcome::Following { .. } | Outcome::Waiting(_) | Outcome::Skipped { .. } => {
                        return;
                    }
                };
                self.end(stage, *key, ended);
            }
            RunEvent::Stopping { .. } => self.stopped = true,
            RunEvent::Done { seconds, complete, detached } => {
                self.done(*seconds, *complete, *detached);
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.write();
    }
}

fn line(line: &Line) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}
