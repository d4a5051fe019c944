//! Reads what runs did.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::git::Commit;
use super::line::{Ended, Header, Line, Planned, PlannedStage, Text};
use crate::cache::{Cache, Document};
use crate::digest::Digest;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// What a run did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Run {
    /// Its name: when it began.
    pub(crate) run: String,
    pub(crate) state: RunState,
    #[serde(flatten)]
    pub(crate) header: Header,
    pub(crate) git: Option<Commit>,
    /// Seconds from beginning to end, where it came to an end.
    pub(crate) seconds: Option<f64>,
    /// The stages that started, or of which something became known, in that order.
    pub(crate) stages: Vec<RunStage>,
}

/// A stage of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RunStage {
    pub(crate) stage: StageName,
    pub(crate) key: Option<StageKey>,
    /// When it started: seconds since 1970, UTC.
    pub(crate) started: Option<u64>,
    /// Why the attempts before the last one failed, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed_attempts: Vec<String>,
    /// How it ended. `None` while it runs, or when the run was killed.
    #[serde(flatten)]
    pub(crate) ended: Option<Ended>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunState {
    Running,
    /// Its process was killed, or its machine crashed.
    Killed,
    Stopped,
    /// It left what was not complete to its jobs.
    Detached,
    Failed,
    Complete,
}

impl RunState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::Detached => "detached",
            Self::Failed => "failed",
            Self::Complete => "complete",
        }
    }
}

/// The files of a manifest, by name.
pub(crate) type Texts = Vec<(String, String)>;

impl Run {
    /// Reads the record of a run. `None` where it is missing, or its first line cannot be read.
    pub(crate) fn read(cache: &Cache, experiment: &str, id: &str) -> Option<Self> {
        let (text, is_running) = cache.run(experiment, id).ok()?;
        Self::parse(id, &text, is_running)
    }

    pub(crate) fn parse(id: &str, text: &[u8], is_running: bool) -> Option<Self> {
        let mut lines = text.split(|byte| *byte == b'\n');
        let Line::Begin(header) = serde_json::from_slice(lines.next()?).ok()? else { return None };
        let state = if is_running { RunState::Running } else { RunState::Killed };
        let (run, stages) = (id.to_owned(), Vec::new());
        let mut found = Self { run, state, header: *header, git: None, seconds: None, stages };
        let mut places: HashMap<StageName, usize> = HashMap::new();
        for line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
            match line {
                Line::Begin(_) => {}
                Line::Git(commit) => found.git = Some(commit),
                // Another attempt, another job in the place of one that had failed before, or again with another input.
                Line::Start { stage, key, .. }
                    if places.get(&stage).is_some_and(|&place| {
                        let RunStage { ended, failed_attempts, .. } = &found.stages[place];
                        ended.is_none() || !failed_attempts.is_empty()
                    }) =>
                {
                    if let Some(&place) = places.get(&stage)
                        && found.stages[place].ended.is_none()
                    {
                        found.stages[place].key = Some(key);
                    }
                }
                Line::Start { stage, key, at } => {
                    places.insert(stage.clone(), found.stages.len());
                    let (key, started, failed_attempts) = (Some(key), Some(at), Vec::new());
                    let ended = None;
                    found.stages.push(RunStage { stage, key, started, failed_attempts, ended });
                }
                Line::Attempt { stage, why, .. } => {
                    if let Some(&place) = places.get(&stage) {
                        found.stages[place].failed_attempts.push(why);
                    }
                }
                Line::End { stage, key, ended, .. } => match places.get(&stage) {
                    Some(&place) => {
                        found.stages[place].key = key.or(found.stages[place].key);
                        found.stages[place].ended = Some(ended);
                    }
                    None => {
                        places.insert(stage.clone(), found.stages.len());
                        let (started, ended, failed_attempts) = (None, Some(ended), Vec::new());
                        found.stages.push(RunStage { stage, key, started, failed_attempts, ended });
                    }
                },
                Line::Done { seconds, complete, stopped, detached, .. } => {
                    found.seconds = Some(seconds);
                    found.state = match (complete, detached, stopped) {
                        (true, _, _) => RunState::Complete,
                        (false, true, _) => RunState::Detached,
                        (false, false, true) => RunState::Stopped,
                        (false, false, false) => RunState::Failed,
                    };
                }
            }
        }
        Some(found)
    }

    /// Whether its process still adds to its record.
    pub(crate) fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// Whether all that was asked for has a result.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == RunState::Complete
    }

    /// Whether it had ended, and not just now, at a moment: seconds since 1970, UTC.
    pub(crate) fn is_before(&self, moment: u64) -> bool {
        let end = self.seconds.map(|seconds| self.header.owner.since as f64 + seconds);
        end.is_some_and(|end| end + 2.0 < moment as f64)
    }

    /// How many of its stages ended in which way.
    pub(crate) fn count(&self, is_wanted: impl Fn(&RunStage) -> bool) -> usize {
        self.stages.iter().filter(|stage| is_wanted(stage)).count()
    }

    /// The texts of its manifest. `None` where they are lost.
    pub(crate) fn texts(&self, cache: &Cache) -> Option<Texts> {
        let text = cache.document(Document::Manifest, &self.header.texts)?;
        let texts: Vec<Text> = serde_json::from_slice(&text).ok()?;
        Some(texts.into_iter().map(|Text { file, text }| (file, text)).collect())
    }

    /// The number of stages that were asked for, with all they need.
    pub(crate) fn planned(&self, cache: &Cache) -> Option<usize> {
        Some(planned(cache, &self.header.plan)?.len())
    }
}

pub(super) fn planned(cache: &Cache, digest: &Digest) -> Option<Vec<PlannedStage>> {
    let text = cache.document(Document::Plan, digest)?;
    Some(serde_json::from_slice::<Planned>(&text).ok()?.stages)
}

/// The names that stages of an experiment had in its runs, each with its key: each pair once, that of the newest run first.
/// Only stages whose name `is_wanted`, and at most the newest `most` runs.
pub(crate) fn names_and_keys(
    cache: &Cache,
    experiment: &str,
    most: usize,
    is_wanted: impl Fn(&StageName) -> bool,
) -> anyhow::Result<Vec<(StageName, StageKey)>> {
    let (mut found, mut places) = (Vec::new(), BTreeMap::new());
    let mut plans = std::collections::BTreeSet::new();
    for id in cache.runs(experiment)?.iter().take(most) {
        let Some(run) = Run::read(cache, experiment, id) else { continue };
        let own = run.stages.into_iter().map(|stage| (stage.stage, stage.key));
        let planned = match plans.insert(run.header.plan) {
            true => planned(cache, &run.header.plan).unwrap_or_default(),
            false => Vec::new(),
        };
        let planned = planned.into_iter().map(|stage| (stage.stage, stage.key));
        for (stage, key) in own.chain(planned) {
            let Some(key) = key.filter(|_| is_wanted(&stage)) else { continue };
            places.entry((key, stage)).or_insert_with_key(|(key, stage)| {
                found.push((stage.clone(), *key));
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPart;

    fn header() -> String {
        let digest = crate::digest::FieldHasher::new("test").finish();
        let header = Header {
            by: pipeline_stages::message::Hello::of("pipeline"),
            experiment: "test".to_owned(),
            manifest: "a.toml".into(),
            folder: "/".into(),
            asked: Vec::new(),
            texts: digest,
            plan: digest,
            owner: crate::cache::Owner::this_process(),
            visible_devices: None,
        };
        serde_json::to_string(&Line::Begin(Box::new(header))).expect("plain data")
    }

    #[test]
    fn attempts_are_of_one_stage() {
        let key = StageKey::of(&[]);
        let start = format!("{{\"line\":\"start\",\"stage\":\"a\",\"key\":\"{key}\",\"at\":1}}");
        let attempt = |number: u32| {
            format!(
                "{{\"line\":\"attempt\",\"stage\":\"a\",\"at\":1,\"attempt\":{number},\"of\":3,\"why\":\"no {number}\"}}"
            )
        };
        let (second, third) = (attempt(2), attempt(3));
        let end = "{\"line\":\"end\",\"stage\":\"a\",\"key\":null,\"at\":2,\"outcome\":\"ran\",\"seconds\":1.0}";
        let lines = [&header(), &start, &second, &start, &third, &start, end];
        let run = Run::parse("x", lines.join("\n").as_bytes(), false).expect("a run");
        assert_eq!(run.stages.len(), 1);
        assert_eq!(run.stages[0].failed_attempts, ["no 2", "no 3"]);
        assert!(matches!(run.stages[0].ended, Some(Ended::Ran { .. })));
    }

    #[test]
    fn the_end_of_a_record_of_any_build_can_be_read() {
        let header = header();
        for (end, state) in [
            ("true,\"stopped\":false", RunState::Complete),
            ("false,\"stopped\":false", RunState::Failed),
            ("false,\"stopped\":true", RunState::Stopped),
            ("false,\"stopped\":true,\"detached\":true", RunState::Detached),
        ] {
            let done = format!("{{\"line\":\"done\",\"at\":2,\"seconds\":1.0,\"complete\":{end}}}");
            let run = Run::parse("x", format!("{header}\n{done}\n").as_bytes(), false);
            assert_eq!(run.expect("a run").state, state, "{done}");
            assert_eq!(line_again(&done), done);
        }
    }

    #[test]
    fn a_stage_that_starts_again_before_it_has_ended_is_counted_once() {
        let keys = [&[][..], &[KeyPart::Seed { seed: 7 }]].map(StageKey::of);
        let start = |key: &StageKey| {
            format!("{{\"line\":\"start\",\"stage\":\"a\",\"key\":\"{key}\",\"at\":1}}\n")
        };
        let end = "{\"line\":\"end\",\"stage\":\"a\",\"at\":2,\"outcome\":\"ran\",\"seconds\":1.0}\n";
        let text = format!("{}\n{}{}{end}", header(), start(&keys[0]), start(&keys[1]));
        let run = Run::parse("x", text.as_bytes(), false).expect("a run");
        let stages = run.stages.iter().map(|stage| (stage.key, stage.ended.is_some()));
        assert_eq!(stages.collect::<Vec<_>>(), [(Some(keys[1]), true)]);
        // One that had a result, and runs again, is in there twice.
        let text = format!("{text}{}", start(&keys[0]));
        let run = Run::parse("x", text.as_bytes(), false).expect("a run");
        assert_eq!((run.stages.len(), run.count(|stage| stage.ended.is_none())), (2, 1));
    }

    fn line_again(text: &str) -> String {
        let line: Line = serde_json::from_str(text).expect("a line");
        serde_json::to_string(&line).expect("plain data")
    }

    #[test]
    fn every_beginning_of_a_record_can_be_read() {
        let key = StageKey::of(&[]);
        let rest = format!(
            "\n{{\"line\":\"start\",\"stage\":\"a\",\"key\":\"{key}\",\"at\":1}}\n\
             {{\"line\":\"of a newer version\"}}\n\
             {{\"line\":\"end\",\"stage\":\"a\",\"key\":\"{key}\",\"at\":2,\"outcome\":\"ran\",\"seconds\":1.0}}\n\
             {{\"line\":\"done\",\"at\":2,\"seconds\":1.0,\"complete\":true,\"stopped\":false}}\n"
        );
        let header = header();
        for end in 0..=rest.len() {
            let text = format!("{header}{}", &rest[..end]);
            let run = Run::parse("x", text.as_bytes(), false).expect("a run");
            let started = end > rest.find("\"at\":1}").map_or(0, |at| at + 6);
            assert_eq!(run.stages.len(), usize::from(started), "{text}");
            let is_done = end >= rest.len() - 1;
            assert_eq!(run.state == RunState::Complete, is_done, "{text}");
        }
        assert!(Run::parse("x", &header.as_bytes()[..header.len() - 1], false).is_none());
        let run = Run::parse("x", header.as_bytes(), true).expect("a run");
        assert_eq!(run.state, RunState::Running);
    }
}
