//! What the runs of the history used, and when: what cleaning goes by.
//!
//! Reads each run once, however often it is asked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, ensure};

use super::run::{Run, planned};
use crate::cache::{Cache, Document, Need, Uses, Why};
use crate::digest::Digest;
use crate::key::StageKey;
use crate::stage_name::StageName;

/// The runs that were read.
#[derive(Debug, Default)]
pub(crate) struct UsesOfRuns {
    /// By experiment and name, with how long the record was.
    runs: HashMap<(String, String), (u64, Rc<UsesOfRun>)>,
    /// `None` for one that is lost.
    plans: HashMap<Digest, Option<PlannedKeys>>,
}

/// The stages of a plan, each with its key, where that was known.
type PlannedKeys = Vec<(StageName, Option<StageKey>)>;

/// What a run used.
#[derive(Debug)]
struct UsesOfRun {
    /// The manifest, with its folder.
    manifest: PathBuf,
    is_running: bool,
    /// Whether it was about every stage of the manifest, and all of them have results.
    is_whole: bool,
    /// Whether nothing was changed about the manifest, as `--set` does.
    is_as_written: bool,
    began: u64,
    /// When it ended, or did something last.
    at: u64,
    /// The stages with the keys that they had.
    keys: Vec<(StageName, StageKey)>,
    /// Those without a key when it began, whatever became of them.
    without_key: Vec<StageName>,
    /// Whether these are all.
    has_plan: bool,
    documents: [Digest; 2],
}

/// What is in the place of a run.
enum ReadRun {
    Run(Rc<UsesOfRun>),
    Nothing,
    /// It is torn, or of a newer version.
    Unknown,
}

/// The runs of a manifest, from the newest one back: all of them, or those of it as it is written.
#[derive(Default)]
struct Covered {
    /// Those of which the latest result is known.
    stages: HashSet<StageName>,
    /// Whether that is all of them.
    is_whole: bool,
}

impl UsesOfRuns {
    /// What the runs of a cache used.
    ///
    /// What the latest run of a manifest used must stay. Where that was about some stages, or not all of them have results, this
    /// goes back to the latest one that was and had: for each stage, to the latest result. Where something was changed about the
    /// manifest, as `--set` does, so must what the latest run of the manifest as it is written used. So must what a stage of these runs had
    /// last, whatever they say: a clock may have been set back, or a power cut may have taken what a run added.
    ///
    /// # Errors
    /// When something of the history exists and cannot be read.
    pub(crate) fn look(&mut self, cache: &Cache) -> anyhow::Result<Uses> {
        let runs = cache.layout().all_runs();
        ensure!(
            !cache.has_no_place_for_history(),
            "cannot read {}: it is not a folder",
            runs.display()
        );
        let mut uses = Uses::default();
        let mut known = HashMap::new();
        let mut has_result = |key: &StageKey| {
            *known
                .entry(*key)
                .or_insert_with(|| fs::symlink_metadata(cache.layout().record(key)).is_ok())
        };
        let mut is_known = HashSet::new();
        let mut named: HashMap<(String, StageName), Need> = HashMap::new();
        for experiment in cache.experiments()? {
            let mut has_plans = true;
            // When the run of a manifest began that was looked at last.
            let mut began: HashMap<PathBuf, u64> = HashMap::new();
            let mut manifests: HashMap<(PathBuf, bool), Covered> = HashMap::new();
            // The newest first.
            for id in cache.runs(&experiment)? {
                let run = match self.read(cache, &experiment, &id)? {
                    ReadRun::Run(run) => run,
                    ReadRun::Nothing => continue,
                    ReadRun::Unknown => {
                        has_plans = false;
                        for all in [Document::Plan, Document::Manifest] {
                            uses.documents.extend(cache.documents(all)?);
                        }
                        continue;
                    }
                };
                // Until the next run began, runs with nothing to do may have used it.
                let next = began.insert(run.manifest.clone(), run.began);
                let used = run.at.max(next.unwrap_or_default());
                uses.documents.extend(run.documents);
                for (_, key) in &run.keys {
                    let last = uses.last.entry(*key).or_default();
                    *last = used.max(*last);
                }
                if run.is_running {
                    let by = format!("the run {id} of {experiment}").into();
                    let need = Need { why: Why::InUse, by };
                    run.keys.iter().for_each(|(_, key)| uses.needs.add_key(*key, &need));
                }
                for only_as_written in [false, true] {
                    if only_as_written && !run.is_as_written {
                        continue;
                    }
                    let place = (run.manifest.clone(), only_as_written);
                    let covered = manifests.entry(place).or_default();
                    if covered.is_whole {
                        continue;
                    }
                    has_plans &= run.has_plan || only_as_written;
                    let gone =
                        if run.manifest.exists() { "" } else { ", which does not exist here" };
                    let by = format!("{} ({experiment}){gone}", run.manifest.display()).into();
                    let need = Need { why: Why::Latest, by };
                    for stage in run.keys.iter().map(|(stage, _)| stage).chain(&run.without_key) {
                        let place = (experiment.clone(), stage.clone());
                        named.entry(place).or_insert_with(|| need.clone());
                    }
                    let is_latest =
                        |(stage, _): &&(StageName, StageKey)| !covered.stages.contains(stage);
                    let latest: Vec<_> = run.keys.iter().filter(is_latest).collect();
                    latest.iter().for_each(|(_, key)| uses.needs.add_key(*key, &need));
                    let found = latest.into_iter().filter(|(_, key)| has_result(key));
                    covered.stages.extend(found.map(|(stage, _)| stage.clone()));
                    covered.is_whole = run.is_whole;
                }
            }
            if !manifests.is_empty() && has_plans {
                is_known.insert(experiment);
            }
        }
        for (experiment, stage, key) in cache.head_keys()? {
            let stage = stage.parse::<StageName>().ok();
            let by_run = stage.and_then(|stage| named.get(&(experiment.clone(), stage)));
            if let Some(need) = by_run {
                uses.needs.add_key(key, need);
            } else if !is_known.contains(&experiment) {
                // Of an experiment without runs, what its stages had last is what its latest run used.
                let by = format!("{experiment}, which is not recorded").into();
                uses.needs.add_key(key, &Need { why: Why::Latest, by });
            }
        }
        Ok(uses)
    }

    /// The experiments whose runs used a key.
    pub(crate) fn experiments(&self) -> HashMap<StageKey, BTreeSet<&str>> {
        let mut experiments: HashMap<StageKey, BTreeSet<&str>> = HashMap::new();
        for ((experiment, _), (_, run)) in &self.runs {
            for (_, key) in &run.keys {
                experiments.entry(*key).or_default().insert(experiment);
            }
        }
        experiments
    }

    /// What a run used.
    fn read(&mut self, cache: &Cache, experiment: &str, id: &str) -> anyhow::Result<ReadRun> {
        let place = (experiment.to_owned(), id.to_owned());
        let path = cache.layout().run(experiment, id);
        let cannot_read = || format!("cannot read {}", path.display());
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ReadRun::Nothing),
            other => other.with_context(cannot_read)?.len(),
        };
        if let Some((known, run)) = self.runs.get(&place)
            && *known == length
            && !run.is_running
        {
            return Ok(ReadRun::Run(Rc::clone(run)));
        }
        let (text, is_running) = cache.run(experiment, id).with_context(cannot_read)?;
        let Some(run) = Run::parse(id, &text, is_running) else { return Ok(ReadRun::Unknown) };
        let plan = run.header.plan;
        let planned = self.plans.entry(plan).or_insert_with(|| {
            let stages = planned(cache, &plan)?.into_iter();
            Some(stages.map(|stage| (stage.stage, stage.key)).collect())
        });
        let own = run.stages.iter().filter_map(|stage| Some((stage.stage.clone(), stage.key?)));
        let in_plan = || planned.iter().flatten();
        let with_key = in_plan().filter_map(|(stage, key)| Some((stage.clone(), (*key)?)));
        let mut keys: Vec<_> = own.chain(with_key).collect();
        keys.sort_unstable();
        keys.dedup();
        let name = run.header.manifest.file_name().unwrap_or_default();
        let began = run.header.owner.since;
        let started = run.stages.iter().filter_map(|stage| stage.started);
        let used = UsesOfRun {
            manifest: run.header.folder.join(name),
            is_running: run.is_running(),
            is_whole: run.is_complete() && run.header.is_about_all(),
            is_as_written: run.header.is_as_written(),
            began,
            at: started.fold(began + run.seconds.unwrap_or_default() as u64, u64::max),
            keys,
            without_key: in_plan()
                .filter(|(_, key)| key.is_none())
                .map(|(stage, _)| stage.clone())
                .collect(),
            has_plan: planned.is_some(),
            documents: [run.header.texts, plan],
        };
        let used = Rc::new(used);
        self.runs.insert(place, (length, Rc::clone(&used)));
        Ok(ReadRun::Run(used))
    }
}

#[cfg(test)]
mod tests {
    use pipeline_stages::message::Hello;

    use super::super::line::{Ended, Header, Line, Planned, PlannedStage};
    use super::*;
    use crate::cache::{Bucket, Owner};
    use crate::key::KeyPart;

    fn key(number: u64) -> StageKey {
        StageKey::of(&[KeyPart::Seed { seed: number }])
    }

    /// Records a run. `words`: what selects stages, and `failed` or `whole`; then stages with the numbers of their keys: `a=1` was
    /// fresh when it began, `a:1` ran, `a=0` had no key yet.
    fn put_run(cache: &Cache, at: u64, manifest: &str, words: &str) {
        let stages = |sign: char| {
            let pairs = words.split(' ').filter_map(move |word| word.split_once(sign));
            pairs.map(|(stage, number)| {
                let stage: StageName = stage.parse().expect("a name");
                (stage, key(number.parse().expect("a number")))
            })
        };
        let planned = stages('=').map(|(stage, key)| PlannedStage {
            stage,
            kind: "command".to_owned(),
            key: Some(key).filter(|key| *key != self::key(0)),
        });
        let planned = Planned { stages: planned.collect() };
        let keep = |kind, text: Vec<u8>| cache.keep_document(kind, &text).expect("writable");
        let json = |line: &Line| {
            let mut text = serde_json::to_vec(line).expect("plain data");
            text.push(b'\n');
            text
        };
        let asked = words.split(' ').filter(|word| word.starts_with("--") || *word == "some");
        let header = Header {
            by: Hello::of("pipeline"),
            experiment: "x".to_owned(),
            manifest: manifest.into(),
            folder: "/nowhere".into(),
            asked: asked.map(str::to_owned).collect(),
            texts: keep(Document::Manifest, b"[]".to_vec()),
            plan: keep(Document::Plan, serde_json::to_vec(&planned).expect("plain data")),
            owner: Owner { since: at, ..Owner::this_process() },
            visible_devices: None,
        };
        let first = json(&Line::Begin(Box::new(header)));
        let mut journal =
            cache.begin_journal("x", &format!("run{at:04}"), &first).expect("writable");
        for (stage, key) in stages(':') {
            let ended = Ended::Ran { seconds: 1.0, ran_on: None };
            let line = Line::End { stage, key: Some(key), at, ended };
            journal.add(&json(&line)).expect("writable");
        }
        let complete = !words.contains("failed");
        let done = Line::Done { at, seconds: 5.9, complete, stopped: false, detached: false };
        journal.add(&json(&done)).expect("writable");
    }

    #[test]
    fn what_the_latest_runs_of_each_manifest_used_is_needed() {
        let m = "m.toml";
        for (runs, results, expected) in [
            // The latest one, with what ran in it and what was fresh.
            (&[(m, "a=1 b:2"), (m, "a:3 b:4")][..], 1..9, "3 4"),
            (&[(m, "a:1 b:2"), (m, "a=1 b:3")], 1..9, "1 3"),
            // Each manifest has its own.
            (&[(m, "a:1"), ("other.toml", "a:2"), ("./m.toml", "a:3")], 1..9, "2 3"),
            // A run of some stages leaves the others what they had.
            (&[(m, "a:1 b:2"), (m, "some a:3"), (m, "some a:4")], 1..9, "2 4"),
            (&[(m, "a:1 b:2"), (m, "--only a:3")], 1..9, "2 3"),
            // What was changed for a run is not what the manifest has.
            (&[(m, "a:1 b:2"), (m, "--set-x a:3")], 1..9, "1 2 3"),
            (&[(m, "a:1 b:2"), (m, "--set-x a:3"), (m, "--set-y a:4")], 1..9, "1 2 4"),
            (&[(m, "a:1 b:2"), (m, "--set-x a:3"), (m, "a:4 b:2")], 1..9, "2 4"),
            // One that failed, too: what a stage had before is needed until it has something new.
            (&[(m, "a:1 b:2"), (m, "failed a:3 b:4")], 1..4, "2 3 4"),
            (&[(m, "a:1 b:2"), (m, "failed a:3"), (m, "failed a:4")], 1..9, "2 4"),
            // Nothing before a whole one counts, even where its results are gone.
            (&[(m, "a:1 b:2 c:3"), (m, "a:4 b:5"), (m, "some a:6")], 6..9, "5 6"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let cache = Cache::open(folder.path()).expect("a cache");
            cache.prepare().expect("writable");
            for (at, (manifest, words)) in (1..).zip(runs) {
                put_run(&cache, at * 100, manifest, words);
            }
            for number in results {
                let path = cache.layout().record(&key(number));
                fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
                fs::write(path, "").expect("writable");
            }
            let mut uses_of_runs = UsesOfRuns::default();
            for _ in 0..2 {
                let uses = uses_of_runs.look(&cache).expect("readable");
                let needed = (1..9).filter(|number| uses.needs.keys.contains_key(&key(*number)));
                let needed = needed.map(|number| number.to_string()).collect::<Vec<_>>();
                assert_eq!(needed.join(" "), expected, "{runs:?}");
            }
        }
    }

    #[test]
    fn the_last_use_is_the_end_of_the_last_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        put_run(&cache, 100, "m.toml", "a:1 b:2");
        put_run(&cache, 200, "m.toml", "a=1 b:3");
        let mut runs = UsesOfRuns::default();
        let uses = runs.look(&cache).expect("readable");
        assert_eq!(
            [1, 2, 3].map(|number| uses.last.get(&key(number)).copied()),
            // Until another run began, it was what the manifest has, also for runs with nothing to do.
            [Some(205), Some(200), Some(205)]
        );
        assert_eq!(uses.documents.len(), 3);
        assert_eq!(runs.experiments()[&key(2)], ["x"].into());
        // What an experiment had last that is not recorded, or not completely, is needed.
        cache.set_head("y", "a", &key(7)).expect("writable");
        cache.set_head("x", "c", &key(8)).expect("writable");
        let needs = |runs: &mut UsesOfRuns| runs.look(&cache).expect("readable").needs.keys;
        assert!(needs(&mut runs).contains_key(&key(7)));
        assert!(!needs(&mut runs).contains_key(&key(8)));
        fs::remove_dir_all(cache.layout().documents(Document::Plan)).expect("ours");
        assert!(needs(&mut UsesOfRuns::default()).contains_key(&key(8)));
    }

    #[test]
    fn what_a_stage_of_a_run_had_last_is_needed_whatever_the_run_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        put_run(&cache, 100, "m.toml", "a:1 b:2 c=0");
        // A power cut took what a newer run had added, or the clock was set back.
        for (stage, number) in [("a", 3), ("b", 2), ("c", 4), ("other", 5)] {
            cache.set_head("x", stage, &key(number)).expect("writable");
        }
        let needed = |number: u64| {
            let needs = UsesOfRuns::default().look(&cache).expect("readable").needs;
            needs.keys.get(&key(number)).map(|need| need.by.to_string())
        };
        let by = Some("/nowhere/m.toml (x), which does not exist here".to_owned());
        assert_eq!([1, 2, 3, 4].map(needed), [&by; 4].map(Clone::clone));
        assert_eq!(needed(5), None);
    }

    #[test]
    fn a_run_that_cannot_be_read_may_have_used_anything() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        put_run(&cache, 100, "m.toml", "a:1 b:2");
        let document = cache.keep_document(Document::Plan, b"of the other").expect("writable");
        cache.set_head("x", "other", &key(3)).expect("writable");
        let look = || UsesOfRuns::default().look(&cache).expect("readable");
        assert!(!look().documents.contains(&document));
        assert!(!look().needs.keys.contains_key(&key(3)));
        for text in ["", "{\"line\":\"begin", "{\"line\":\"begin-of-tomorrow\"}\n"] {
            fs::write(cache.layout().run("x", "run0200"), text).expect("writable");
            let uses = look();
            assert!(uses.documents.contains(&document), "{text}");
            let needed = [1, 2, 3].map(|number| uses.needs.keys.contains_key(&key(number)));
            assert_eq!(needed, [true; 3], "{text}");
        }
        // What is not a run belongs to nobody.
        fs::remove_file(cache.layout().run("x", "run0200")).expect("ours");
        fs::write(cache.layout().runs(".DS_Store"), "").expect("writable");
        assert!(!look().needs.keys.contains_key(&key(3)));
    }

    #[test]
    fn a_history_that_cannot_be_read_is_not_taken_for_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        assert!(UsesOfRuns::default().look(&cache).is_ok(), "there is none yet");
        fs::create_dir_all(cache.layout().bucket(Bucket::History)).expect("ours");
        fs::write(cache.layout().all_runs(), "").expect("ours");
        let error = UsesOfRuns::default().look(&cache).expect_err("it cannot be listed");
        assert!(error.to_string().contains("cannot read"), "{error}");
        fs::remove_file(cache.layout().all_runs()).expect("ours");
        put_run(&cache, 100, "m.toml", "a:1");
        cache.set_head("x", "a", &key(1)).expect("writable");
        assert!(UsesOfRuns::default().look(&cache).is_ok());
        let layout = cache.layout();
        for place in [
            layout.runs("x"),
            layout.all_runs(),
            layout.head("x", "a"),
            layout.heads("x"),
            layout.bucket(Bucket::Heads),
        ] {
            let away = folder.path().join("away");
            fs::rename(&place, &away).expect("ours");
            // It cannot be followed, also by root.
            std::os::unix::fs::symlink(&place, &place).expect("ours");
            let error = UsesOfRuns::default().look(&cache).expect_err("it cannot be read");
            assert!(error.to_string().contains(&place.display().to_string()), "{error}");
            fs::remove_file(&place).expect("ours");
            fs::rename(&away, &place).expect("ours");
        }
    }
}
