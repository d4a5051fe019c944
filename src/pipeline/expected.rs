//! How long stages may take and how much memory, from recorded runs of like stages.
//!
//! Pure: whoever plans adds the records that it reads anyway. What one stage costs does not depend on how many there are.

use std::collections::HashMap;

use crate::cache::Record;
use crate::digest::{Digest, FieldHasher};
use crate::key::{self, InputResult, KeyPart};
use crate::manifest::Stage;
use crate::stage_name::StageName;

/// The kind that runs any program: two stages of it have nothing in common.
const ANY_PROGRAM: &str = "command";

/// The parameter that the time of a training is proportional to.
const EPOCHS: &str = "epochs";

/// What recorded runs took.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    same: HashMap<Digest, Vec<f64>>,
    own: HashMap<StageName, f64>,
    stage: HashMap<String, Vec<f64>>,
    kind: HashMap<String, Vec<f64>>,
    memory: Memories,
}

/// The most memory that a run had at once, in bytes, where it is known: of the machine, and of a GPU.
pub(crate) type PeakMemory = [Option<u64>; 2];

/// The most memory of all runs of a stage in the manifest, and of a kind.
#[derive(Debug, Default)]
struct Memories {
    stage: HashMap<String, PeakMemory>,
    kind: HashMap<String, PeakMemory>,
}

/// How long stages may take: the median of the most similar runs.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// By kind and parameters: other seeds, and other content of inputs.
    same: HashMap<Digest, f64>,
    /// By stage: its own last run, with other parameters. This and what follows is for one epoch, where there are epochs.
    own: HashMap<StageName, f64>,
    /// By stage in the manifest: its other instances.
    stage: HashMap<String, f64>,
    /// By kind.
    kind: HashMap<String, f64>,
    memory: Memories,
}

impl Runs {
    /// Adds the last run of a stage.
    pub(crate) fn add(&mut self, stage: &StageName, record: &Record) {
        let work = Workload::of(&record.parts);
        let memory = [record.usage.peak_memory, record.usage.gpu_memory];
        keep_larger(&mut self.memory.stage, stage.template(), memory);
        if work.kind != ANY_PROGRAM {
            keep_larger(&mut self.memory.kind, work.kind, memory);
        }
        let Some(whole) = record.usage.whole(record.seconds) else { return };
        let seconds = whole / work.epochs;
        self.same.entry(work.parameters).or_default().push(whole);
        self.own.insert(stage.clone(), seconds);
        push(&mut self.stage, stage.template(), seconds);
        if work.kind != ANY_PROGRAM {
            push(&mut self.kind, work.kind, seconds);
        }
    }

    /// Whether a run of a stage in the manifest was added, at any point.
    pub(crate) fn has(&self, template: &str) -> bool {
        self.stage.contains_key(template)
    }

    /// The medians.
    pub(crate) fn expected(self) -> Expected {
        Expected {
            same: medians(self.same),
            own: self.own,
            stage: medians(self.stage),
            kind: medians(self.kind),
            memory: self.memory,
        }
    }
}

impl Expected {
    /// The seconds that a stage may take; `None` where no run is like it.
    pub(crate) fn of(&self, stage: &Stage) -> Option<f64> {
        // Every run is in there: without one there is nothing to compare with.
        if self.same.is_empty() {
            return None;
        }
        let parts = key::parts(stage, &[], |_| InputResult::Unknown);
        let work = Workload::of(&parts);
        let like = || {
            let own = self.own.get(&stage.name);
            let seconds = own
                .or_else(|| self.stage.get(stage.name.template()))
                .or_else(|| self.kind.get(work.kind))?;
            Some(seconds * work.epochs)
        };
        self.same.get(&work.parameters).copied().or_else(like)
    }

    /// The most memory that runs of a stage had, at any point, or else those of its kind. With other parameters it may be more.
    pub(crate) fn memory(&self, stage: &Stage) -> PeakMemory {
        let Memories { stage: of_stage, kind } = &self.memory;
        let known = of_stage.get(stage.name.template());
        known.or_else(|| kind.get(stage.stage.info().name)).copied().unwrap_or_default()
    }
}

/// Changes what is there for a name, with no new text for each of 100,000 instances.
fn change<T: Default>(all: &mut HashMap<String, T>, name: &str, by: impl FnOnce(&mut T)) {
    match all.get_mut(name) {
        Some(known) => by(known),
        None => by(all.entry(name.to_owned()).or_default()),
    }
}

fn push(all: &mut HashMap<String, Vec<f64>>, name: &str, seconds: f64) {
    change(all, name, |known| known.push(seconds));
}

fn keep_larger(all: &mut HashMap<String, PeakMemory>, name: &str, memory: PeakMemory) {
    change(all, name, |most| {
        most.iter_mut().zip(memory).for_each(|(most, had)| *most = had.max(*most));
    });
}

fn medians<K: std::hash::Hash + Eq>(all: HashMap<K, Vec<f64>>) -> HashMap<K, f64> {
    all.into_iter().map(|(name, seconds)| (name, median(seconds))).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    let middle = numbers.len() / 2;
    if numbers.is_empty() {
        return 0.0;
    }
    *numbers.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// What the time of a stage depends on, as far as its key has it.
struct Workload<'p> {
    kind: &'p str,
    /// The digest of the kind and of all parameters.
    parameters: Digest,
    /// 1 where the kind does not have epochs.
    epochs: f64,
}

impl<'p> Workload<'p> {
    fn of(parts: &'p [KeyPart]) -> Self {
        let mut hasher = FieldHasher::new("pipeline 2026-11 like work");
        let (mut kind, mut epochs) = ("", 1.0);
        for part in parts {
            match part {
                KeyPart::Kind { name, .. } => {
                    hasher.text(name);
                    kind = name.as_str();
                }
                KeyPart::Parameter { name, value } => {
                    hasher.text(name).text(&value.to_string());
                    if name == EPOCHS {
                        epochs = value.as_f64().filter(|epochs| *epochs >= 1.0).unwrap_or(1.0);
                    }
                }
                KeyPart::Schema { .. }
                | KeyPart::Seed { .. }
                | KeyPart::Input { .. }
                | KeyPart::Missing { .. }
                | KeyPart::Outside { .. } => {}
            }
        }
        Self { kind, parameters: hasher.finish(), epochs }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    use crate::manifest::{self, Manifest};
    use crate::usage::Usage;

    const SWEEP: &str = r#"
        [experiment]
        name = "test"
        [matrix]
        loss = ["cross-entropy", "mae"]
        seed = [1, 2, 3]
        [stages.data]
        kind = "dataset"
        format = "idx"
        path = "data"
        [stages.simclr]
        kind = "pretrain-simclr"
        data = "data"
        [stages.train]
        kind = "train"
        data = "data"
        loss = "${loss}"
        seed = "${seed}"
        [stages.other]
        kind = "train"
        data = "data"
        loss = "generalized-cross-entropy"
        [stages.plot]
        kind = "command"
        run = ["plot"]
        [stages.page]
        kind = "command"
        run = ["page"]
    "#;

    fn manifest(text: &str) -> Manifest {
        manifest::parse(Path::new("test.toml"), text, &[]).expect("a manifest").0
    }

    /// The runs of these stages of a manifest, each with its seconds.
    fn expected(manifest: &Manifest, ran: &[(&str, f64)]) -> Expected {
        let mut runs = Runs::default();
        for (name, seconds) in ran {
            let name: StageName = name.parse().expect("a name");
            let stage = manifest.stage(&name).expect("a stage");
            let parts = key::parts(stage, &[], |_| InputResult::Unknown);
            let output = FieldHasher::new("test").finish();
            let record = Record { seconds: *seconds, ..Record::for_test("a", parts, output) };
            runs.add(&name, &record);
        }
        runs.expected()
    }

    fn of(expected: &Expected, manifest: &Manifest, name: &str) -> Option<f64> {
        expected.of(manifest.stage(&name.parse().expect("a name")).expect("a stage"))
    }

    #[test]
    fn the_most_similar_runs_count() {
        let manifest = manifest(SWEEP);
        let ran = [
            ("train@loss=cross-entropy,seed=1", 10.0),
            ("train@loss=cross-entropy,seed=2", 12.0),
            ("train@loss=mae,seed=1", 30.0),
            ("plot", 5.0),
        ];
        let expected = expected(&manifest, &ran);
        for (name, seconds) in [
            // The same parameters.
            ("train@loss=cross-entropy,seed=3", Some(12.0)),
            ("train@loss=mae,seed=3", Some(30.0)),
            // Only the kind is the same.
            ("other", Some(12.0)),
            // Another program, and a kind that never ran.
            ("page", None),
            ("simclr", None),
            ("data", None),
        ] {
            assert_eq!(of(&expected, &manifest, name), seconds, "{name}");
        }
    }

    #[test]
    fn an_edited_stage_takes_what_it_took_by_the_epoch() {
        let before = manifest(SWEEP);
        let ran = [
            ("train@loss=cross-entropy,seed=1", 10.0),
            ("train@loss=mae,seed=1", 30.0),
            ("plot", 5.0),
        ];
        let expected = expected(&before, &ran);
        // 120 by default.
        let text = SWEEP.replace("loss = \"${loss}\"", "loss = \"${loss}\"\nepochs = 60");
        let after = manifest(&text.replace("[\"plot\"]", "[\"plot\", \"-v\"]"));
        for (name, seconds) in [
            ("train@loss=cross-entropy,seed=1", Some(5.0)),
            ("train@loss=mae,seed=1", Some(15.0)),
            // The median of the stage.
            ("train@loss=cross-entropy,seed=2", Some(15.0)),
            ("other", Some(30.0)),
            ("plot", Some(5.0)),
        ] {
            assert_eq!(of(&expected, &after, name), seconds, "{name}");
        }
    }

    #[test]
    fn of_a_training_that_continued_the_whole_counts() {
        let manifest = manifest(SWEEP);
        let expected = |part| {
            let name: StageName = "train@loss=mae,seed=1".parse().expect("a name");
            let parts =
                key::parts(manifest.stage(&name).expect("a stage"), &[], |_| InputResult::Unknown);
            let usage = Usage { part, ..Usage::default() };
            let record = Record::for_test("a", parts, FieldHasher::new("test").finish());
            let mut runs = Runs::default();
            runs.add(&name, &Record { usage, seconds: 3.0, ..record });
            runs.expected()
        };
        for (part, seconds) in [(None, Some(3.0)), (Some(0.25), Some(12.0)), (Some(0.001), None)] {
            let expected = expected(part);
            for name in ["train@loss=mae,seed=1", "train@loss=mae,seed=3", "other"] {
                assert_eq!(of(&expected, &manifest, name), seconds, "{name} {part:?}");
            }
        }
    }

    #[test]
    fn the_most_memory_of_a_stage_or_else_of_its_kind() {
        let manifest = manifest(SWEEP);
        let mut runs = Runs::default();
        for (name, peak_memory, gpu_memory) in [
            ("train@loss=mae,seed=1", Some(5), None),
            ("train@loss=mae,seed=2", Some(3), Some(9)),
            ("plot", Some(70), None),
        ] {
            let name: StageName = name.parse().expect("a name");
            let stage = manifest.stage(&name).expect("a stage");
            let parts = key::parts(stage, &[], |_| InputResult::Unknown);
            let usage = Usage { peak_memory, gpu_memory, ..Usage::default() };
            let record = Record::for_test("a", parts, FieldHasher::new("test").finish());
            runs.add(&name, &Record { usage, ..record });
        }
        let expected = runs.expected();
        for (name, memory) in [
            ("train@loss=cross-entropy,seed=3", [Some(5), Some(9)]),
            ("other", [Some(5), Some(9)]),
            ("plot", [Some(70), None]),
            ("page", [None, None]),
            ("simclr", [None, None]),
        ] {
            let stage = manifest.stage(&name.parse().expect("a name")).expect("a stage");
            assert_eq!(expected.memory(stage), memory, "{name}");
        }
    }

    #[test]
    fn nothing_is_expected_without_runs() {
        let manifest = manifest(SWEEP);
        let expected = expected(&manifest, &[]);
        assert!(manifest.stages.iter().all(|stage| expected.of(stage).is_none()));
        assert_eq!(median(Vec::new()), 0.0);
    }
}
