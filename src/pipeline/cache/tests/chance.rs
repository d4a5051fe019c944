//! Stages that run, lazily or not, damage, checks, cleaning, and at any change a fault: by chance, and the same for the same seed.
//!
//! Afterwards, and once everything has been checked, only right results count, and nothing is lost but what was damaged.
//! `PIPELINE_FAULTS=10000` looks at that many faults, `PIPELINE_SEED=7` at others.

use std::collections::BTreeSet;

use super::*;
use crate::cache::disk::faults::Dice;

/// How many faults there are in the suite.
const FAULTS: u64 = 400;

/// The seeds of histories that begin at one `PIPELINE_SEED`, so that the next one has others.
const HISTORIES: u64 = 10_000;

/// The stages, each with those that it reads. `twin` writes what `a` writes.
const STAGES: [(&str, &[&str]); 7] = [
    ("a", &[]),
    ("b", &["a"]),
    ("c", &["a"]),
    ("d", &["b", "c"]),
    ("twin", &[]),
    ("e", &["twin"]),
    ("f", &["e", "d"]),
];

/// What a stage writes that read this.
fn output(stage: &str, inputs: &[String]) -> String {
    let stage = if stage == "twin" { "a" } else { stage };
    let input = inputs.join("+");
    Digest::from(blake3::hash(format!("{stage}({input})").as_bytes())).to_string()
}

/// What a stage must have written.
fn truth(stage: &str) -> String {
    let (_, inputs) = STAGES.iter().find(|(name, _)| *name == stage).expect("a stage");
    output(stage, &inputs.iter().map(|input| truth(input)).collect::<Vec<_>>())
}

fn data(folder: &Path) -> std::io::Result<String> {
    fs::read_to_string(folder.join("folder/data"))
}

/// The result of a stage that counts, if its inputs have results that do.
fn result(cache: &Cache, stage: &str) -> Option<(StageKey, Vec<Digest>, Option<Record>)> {
    let (_, inputs) = STAGES.iter().find(|(name, _)| *name == stage)?;
    let inputs = inputs.iter().map(|input| Some(result(cache, input)?.2?.output.digest));
    let inputs = inputs.collect::<Option<Vec<_>>>()?;
    let key = StageKey::of(&parts(stage, &inputs));
    Some((key, inputs, cache.usable(&key)))
}

/// A stage and all that it is made from.
fn with_inputs(stage: &str) -> Vec<&'static str> {
    let (stage, inputs) = STAGES.iter().find(|(name, _)| *name == stage).expect("a stage");
    let before = inputs.iter().flat_map(|input| with_inputs(input));
    before.chain([*stage]).collect()
}

/// Runs a stage, if its inputs have results. As a run does it: what another one did not flush is checked first. And as a job does
/// it: inputs that look damaged go first.
fn run(cache: &Cache, stage: &str, again: bool) -> anyhow::Result<()> {
    for input in with_inputs(stage).iter().filter(|input| **input != stage) {
        if let Some((key, _, Some(record))) = result(cache, input)
            && !cache.lasts(&record)
            && !matches!(cache.claim(&key)?, Lookup::Hit(_))
        {
            return Ok(());
        }
    }
    let Some((key, inputs, _)) = result(cache, stage) else { return Ok(()) };
    let lookup = if again { cache.claim_again(&key)? } else { cache.claim(&key)? };
    let Lookup::Claim(claim) = lookup else { return Ok(()) };
    for input in &inputs {
        let holds = |record: &Record| record.output.digest == *input;
        let (records, _) = cache.records();
        if let Some(record) = records.iter().find(|record| holds(record))
            && cache.quarantine_if_damaged(&record.output)?.is_some()
        {
            return Ok(());
        }
    }
    let record = commit(cache, claim, stage, &inputs, |to, folders| {
        let texts = folders.iter().map(|folder| data(folder)).collect::<Result<Vec<_>, _>>()?;
        write_files(to, &[("folder/data", &output(stage, &texts))])
    })?;
    cache.set_head("test", stage, &record.key)?;
    cache.set_link("test", stage, &record.output.digest)
}

/// What happens to a cache.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Run {
        stage: &'static str,
        again: bool,
    },
    /// A stage runs without waiting for the disk, and its run comes to the flush or not.
    RunLazily {
        stage: &'static str,
        again: bool,
        flush: bool,
    },
    /// A stage fails, and leaves a checkpoint or not.
    Fail {
        stage: &'static str,
        checkpoint: bool,
    },
    Verify,
    /// Everything goes but what this stage and those before it have.
    Clean {
        but: &'static str,
    },
    Links,
    /// A run begins, and sweeps.
    Prepare,
}

impl Happening {
    fn any(dice: &mut Dice) -> Self {
        let (stage, _) = STAGES[dice.throw(STAGES.len() as u64) as usize];
        match dice.throw(20) {
            0 => Self::Verify,
            1 => Self::Links,
            2 => Self::Prepare,
            5 => Self::Clean { but: stage },
            3 => Self::Fail { stage, checkpoint: dice.throw(2) == 0 },
            other @ 6..10 => Self::RunLazily { stage, again: other == 6, flush: other % 2 == 0 },
            other => Self::Run { stage, again: other == 4 },
        }
    }

    fn act(self, cache: &Cache) -> anyhow::Result<()> {
        match self {
            Self::Run { stage, again } => run(cache, stage, again),
            Self::RunLazily { stage, again, flush } => {
                let lazy = cache.lazily().context("each start has a name")?;
                run(&lazy, stage, again)?;
                if flush { lazy.flush() } else { Ok(()) }
            }
            Self::Fail { stage, checkpoint } => {
                let Some((key, _, None)) = result(cache, stage) else { return Ok(()) };
                let claim = claimed(cache, &key)?;
                write_files(&claim.output(), &[("folder/data", "half")])?;
                write_files(&claim.checkpoint(), &[("0/state", "half"), ("0.lock", "")])?;
                if !checkpoint {
                    claim.remove_checkpoint()?;
                }
                claim.keep_failed().map(drop)
            }
            Self::Verify => verify(cache),
            Self::Clean { but } => {
                let kept =
                    with_inputs(but).into_iter().filter_map(|stage| Some(result(cache, stage)?.0));
                let cleaned = cleaning::clean_but(cache, &kept.collect::<Vec<_>>())?;
                cleaned.left.first().map_or(Ok(()), |left| bail!("{left}"))
            }
            Self::Links => {
                let links = STAGES.iter().filter_map(|(stage, _)| {
                    let digest = result(cache, stage)?.2?.output.digest;
                    Some((stage.to_string(), digest))
                });
                cache.set_links("test", &links.collect())
            }
            Self::Prepare => cache.prepare(),
        }
    }
}

/// One cache, and what happens to it.
struct History {
    root: Root,
    dice: Dice,
    /// How often the machine has started.
    starts: u32,
    /// What must not be lost.
    promised: BTreeSet<&'static str>,
    happened: Vec<String>,
    is_damaged: bool,
    ran_lazily: bool,
}

impl History {
    fn new(first: u64, number: u64) -> Self {
        let dice = Dice::new(first.wrapping_mul(HISTORIES).wrapping_add(number));
        let root = Root::new();
        without_fault(|| root.cache());
        Self {
            root,
            dice,
            starts: 0,
            promised: BTreeSet::new(),
            happened: vec![format!("PIPELINE_SEED={first}, the history {number}")],
            is_damaged: false,
            ran_lazily: false,
        }
    }

    fn cache(&self) -> Cache {
        let cache = Cache::open(&self.root.path()).expect("a cache");
        cache.after_restart(&format!("start {}", self.starts))
    }

    /// Of what must not be lost, what a power cut does not take back either: it and all that it is made from is on the disk.
    fn lasting(&self, cache: &Cache) -> BTreeSet<&'static str> {
        let lasts = |stage: &&str| {
            result(cache, stage).and_then(|found| found.2).is_some_and(|found| cache.lasts(&found))
        };
        let promised = self.promised.iter().copied();
        promised.filter(|stage| with_inputs(stage).iter().all(lasts)).collect()
    }

    /// Lets something happen, with a fault in it or not. Returns whether there was one.
    fn go_on(&mut self) -> bool {
        if self.dice.throw(6) == 0 {
            self.damage();
        }
        let happening = Happening::any(&mut self.dice);
        let fault = [Fault::Failure, Fault::Full, Fault::Death, Fault::PowerCut, Fault::PowerCut]
            [self.dice.throw(5) as usize];
        // Most have some twenty to fifty changes.
        let after = self.dice.throw(80);
        let cache = self.cache();
        let mut lasting = self.lasting(&cache);
        self.ran_lazily |= matches!(happening, Happening::RunLazily { .. });
        let (result, mut cut) =
            with_fault(self.root.0.path(), fault, after, || happening.act(&cache));
        let is_faulty = cut.changes > after;
        self.happened
            .push(format!("{happening:?} {fault:?} after {after} of {}: {result:?}", cut.changes));
        if let (Happening::Run { stage, .. } | Happening::RunLazily { stage, .. }, Ok(())) =
            (happening, &result)
        {
            self.promise(&cache, stage);
        }
        match happening {
            _ if result.is_ok() => lasting = self.lasting(&cache),
            // It may have replaced what lasts.
            Happening::RunLazily { stage: begun, .. } => {
                lasting.retain(|stage| !with_inputs(stage).contains(&begun));
            }
            _ => {}
        }
        if let Happening::Clean { but } = happening {
            let kept = with_inputs(but);
            self.promised.retain(|stage| kept.contains(stage));
        }
        if fault == Fault::PowerCut {
            let image = Root::new();
            cut.write_image(image.0.path(), self.dice).expect("an image");
            self.root = image;
            self.starts += 1;
            self.promised.retain(|stage| lasting.contains(stage));
        }
        self.check();
        is_faulty
    }

    /// What is found damaged takes with it what is right, but was made from it. Without damage, what is right stays.
    fn promise(&mut self, cache: &Cache, stage: &'static str) {
        let layout = cache.layout();
        let is_intact = |digest| store::is_intact(layout, digest).is_ok_and(|is| is);
        if is_right(cache, stage) && cache.artifacts().expect("readable").iter().all(is_intact) {
            self.promised.insert(stage);
        }
    }

    /// Damages an artifact: other bytes, with the same length or not.
    fn damage(&mut self) {
        let cache = self.cache();
        let mut artifacts = cache.artifacts().expect("readable");
        // What nobody waited for may be torn already.
        artifacts.retain(|digest| data(&cache.artifact(digest)).is_ok());
        if artifacts.is_empty() {
            return;
        }
        let digest = artifacts[self.dice.throw(artifacts.len() as u64) as usize];
        let text = if self.dice.throw(2) == 0 { "x".repeat(64) } else { "short".to_owned() };
        damage(&cache, &digest, "folder/data", &text);
        self.happened.push(format!("damage of {}", digest.short()));
        self.is_damaged = true;
        self.promised.clear();
    }

    fn check(&self) {
        let cache = self.cache();
        let (_, damaged) = cache.records();
        // A record that nobody waited for may be torn.
        assert!(self.ran_lazily || damaged.is_empty(), "{self}: {damaged:?}");
        let (records, _) = cache.records();
        for record in records.iter().filter(|one| !self.is_damaged && cache.is_certain(one)) {
            let digest = &record.output.digest;
            let is_whole = store::is_intact(cache.layout(), digest);
            assert!(is_whole.is_ok_and(|is| is), "{self}: {} is not whole", record.stage);
        }
        for stage in &self.promised {
            assert!(is_right(&cache, stage), "{self}: {stage} is lost");
        }
    }

    /// Checks everything and runs everything: then all is right.
    fn finish(&mut self) {
        let cache = self.cache();
        without_fault(|| -> anyhow::Result<()> {
            cache.prepare()?;
            verify(&cache)?;
            let (records, damaged) = cache.records();
            assert!(damaged.is_empty(), "{self}");
            for record in records.iter().filter(|record| cache.usable(&record.key).is_some()) {
                let text = data(&cache.artifact(&record.output.digest))?;
                assert_eq!(text, truth(&record.stage), "{self}: {} counts", record.stage);
            }
            for (stage, _) in STAGES {
                run(&cache, stage, false)?;
                assert!(is_right(&cache, stage), "{self}: {stage} has no right result");
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{self}: {error:#}"));
    }
}

fn is_right(cache: &Cache, stage: &str) -> bool {
    let record = result(cache, stage).and_then(|(_, _, record)| record);
    record.is_some_and(|record| {
        data(&cache.artifact(&record.output.digest)).is_ok_and(|text| text == truth(stage))
    })
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.happened.join("\n    "))
    }
}

#[test]
fn whatever_happens_only_right_results_count() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let (first, wanted) =
        (number("PIPELINE_SEED").unwrap_or(0), number("PIPELINE_FAULTS").unwrap_or(FAULTS));
    let (mut faults, mut histories) = (0, 0);
    while faults < wanted {
        let mut history = History::new(first, histories);
        for _ in 0..12 {
            faults += u64::from(history.go_on());
        }
        history.finish();
        histories += 1;
    }
    println!("figures: chance histories {histories}, chance faults {faults}");
}
