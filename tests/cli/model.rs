//! A model that runs everything again, beside the real program, while anything happens to manifest, files and cache: after each
//! complete run, every stage has the result that the model has.
//!
//! `PIPELINE_SEED=7 PIPELINE_ROUNDS=1` repeats one round, but for the moments at which runs are killed; what happened is printed when
//! it fails, and the folder stays.

mod dice;
pub mod graph;
mod project;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use dice::{Dice, seeds};
use graph::{Graph, OUTSIDE};
pub use project::Project;
use rustix::process::Signal;

use crate::support::{Ended, MANIFEST, Sandbox, names, walk};

/// How many rounds there are in the suite, how often everything is run and compared in each, and how much happens between.
const ROUNDS: u64 = 8;
const COMPARISONS: usize = 3;
const HAPPENINGS: usize = 8;

/// What can be removed at any time.
const DISPOSABLE: [&str; 7] =
    ["indexes", "listings", "stat.idx", "heads", "latest", "history", "logs"];

/// After which time a run is killed, at most. Most take less.
const MOMENT: usize = 400;

/// What happened in all rounds.
#[derive(Default)]
struct Figures {
    comparisons: u64,
    commands: u64,
    killed: u64,
    damaged: u64,
}

/// A call of the program, and what it may come to.
struct Call {
    arguments: String,
    /// After how many milliseconds it is killed.
    killed_after: Option<u64>,
    /// Its exit status, if it comes to its end.
    allowed: &'static [i32],
}

/// One round: a project, and the model of it.
struct Round {
    project: Project,
    graph: Graph,
    dice: Dice,
    figures: Figures,
    /// Whether damage may be in the cache that was not looked for.
    is_damaged: bool,
    /// Whether an artifact was ever damaged or removed. `verify` reports one that is gone as long as a record has it, also one that
    /// nothing needs.
    is_gone: bool,
}

impl Round {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let graph = Graph::any(&mut dice);
        Self {
            project: Project::new(Sandbox::new(""), seed),
            graph,
            dice,
            figures: Figures::default(),
            is_damaged: false,
            is_gone: false,
        }
    }

    /// Writes the manifest and the files as the model has them.
    fn write(&self) {
        self.project.write(MANIFEST, self.graph.manifest("model"));
        write_files(&self.project, &self.graph);
    }

    /// Lets something happen.
    fn go_on(&mut self) {
        let what = match self.dice.throw(20) {
            0..4 => self.graph.edit(&mut self.dice),
            4..6 => self.graph.edit_file(&mut self.dice),
            6 => self.graph.remove_file(&mut self.dice),
            7 => {
                let what = self.damage();
                self.project.remember(what);
                // What reads it may not notice.
                if !self.dice.once_in(3) {
                    self.force();
                }
                return;
            }
            8 => self.lose(),
            9 => {
                let name = DISPOSABLE[self.dice.throw(DISPOSABLE.len())];
                remove(&self.project.cache(name));
                format!("remove {name}")
            }
            10..13 => {
                let calls = (0..2 + self.dice.throw(2)).map(|_| self.any_call(true));
                let calls: Vec<_> = calls.collect();
                return self.call(calls);
            }
            _ => {
                let call = self.any_call(false);
                return self.call(vec![call]);
            }
        };
        self.project.remember(what);
        self.write();
    }

    /// Runs a stage again.
    fn force(&mut self) {
        let name = self.dice.one(&self.graph.names()).copied().expect("a stage").to_owned();
        let allowed: &[i32] = if self.graph.can_run(Some(&name)) { &[0] } else { &[1, 2] };
        let arguments = format!("run {MANIFEST} {name} --force {name}");
        self.call(vec![Call { arguments, killed_after: None, allowed }]);
    }

    /// Any call of the program, killed or not.
    fn any_call(&mut self, beside_others: bool) -> Call {
        let killed_after = self.dice.once_in(2).then(|| self.dice.moment(MOMENT));
        let names: Vec<String> = self.graph.names().into_iter().map(str::to_owned).collect();
        let some = self.dice.one(&names).cloned();
        let (mut arguments, allowed): (String, &[i32]) = match self.dice.throw(8) {
            // What is damaged is found, or it was found before.
            0 => {
                let may_find = self.is_damaged || self.is_gone || beside_others;
                ("verify --all".into(), if may_find { &[0, 1] } else { &[0] })
            }
            1 => ("gc --keep-days 0".into(), if beside_others { &[0, 2] } else { &[0] }),
            kind => {
                let some = some.filter(|_| self.dice.once_in(3));
                let stages = match &some {
                    Some(name) if kind == 2 => format!(" --force {name}"),
                    Some(name) => format!(" {name}"),
                    None => String::new(),
                };
                let needed = if kind == 2 { None } else { some.as_deref() };
                let can_run = self.graph.can_run(needed);
                let jobs = 1 + self.dice.throw(4);
                (
                    format!("run {MANIFEST}{stages} --jobs {jobs}"),
                    if can_run { &[0] } else { &[1, 2] },
                )
            }
        };
        if arguments.starts_with("run") && self.dice.once_in(3) {
            arguments.push_str(" --durability=lazy");
        }
        Call { arguments, killed_after, allowed }
    }

    /// Calls the program, several times at once where there are several.
    fn call(&mut self, calls: Vec<Call>) {
        let shown = calls.iter().map(|call| match call.killed_after {
            Some(after) => format!("{}, killed after {after} ms", call.arguments),
            None => call.arguments.clone(),
        });
        self.project.remember(shown.collect::<Vec<_>>().join(" | "));
        let started = calls.into_iter().map(|call| {
            let running = self.project.start(&call.arguments);
            std::thread::spawn(move || {
                if let Some(after) = call.killed_after {
                    std::thread::sleep(Duration::from_millis(after));
                    running.signal(Signal::KILL);
                }
                (running.wait(), call)
            })
        });
        // All begin before one is waited for.
        let started: Vec<_> = started.collect();
        for thread in started {
            let (ended, call) = thread.join().expect("it does not panic");
            self.figures.commands += 1;
            let was_killed = call.killed_after.is_some() && ended.code().is_none();
            self.figures.killed += u64::from(was_killed);
            let is_allowed = ended.code().is_some_and(|code| call.allowed.contains(&code));
            assert!(was_killed || is_allowed, "{}: {ended}", call.arguments);
        }
    }

    /// Damages a file of an artifact or a record: as many bytes as before, fewer, none, or no file any more.
    fn damage(&mut self) -> String {
        let is_record = self.dice.once_in(4);
        let folder = self.project.cache(if is_record { "records" } else { "store" });
        let mut files: Vec<PathBuf> =
            walk(&folder).into_iter().filter(|path| path.is_file()).collect();
        files.sort();
        let Some(file) = self.dice.one(&files).cloned() else { return "no damage".into() };
        let mut bytes = fs::read(&file).expect("nobody else is there");
        match self.dice.throw(4) {
            0 | 1 => bytes.iter_mut().for_each(|byte| *byte ^= 1),
            2 => bytes.truncate(bytes.len() / 2),
            _ => bytes.push(b'!'),
        }
        for ancestor in file.ancestors().take_while(|path| **path != folder) {
            self.project.unprotect(ancestor);
        }
        fs::write(&file, bytes).expect("ours");
        self.is_damaged = true;
        // It may come to the quarantine.
        self.is_gone |= !is_record;
        self.figures.damaged += 1;
        format!("damage of {}", self.shown(&file))
    }

    /// Removes an artifact or a record. Not while there may be damage: what was made from it would never be found.
    fn lose(&mut self) -> String {
        let is_record = self.dice.once_in(2);
        let folder = self.project.cache(if is_record { "records" } else { "store" });
        let all = match is_record {
            true => walk(&folder).into_iter().filter(|path| path.is_file()).collect(),
            false => names(&folder).iter().map(|name| folder.join(name)).collect::<Vec<_>>(),
        };
        let Some(gone) = self.dice.one(&all).filter(|_| !self.is_damaged) else {
            return "nothing lost".into();
        };
        self.project.unprotect(gone);
        remove(gone);
        self.is_gone |= !is_record;
        format!("remove {}", self.shown(gone))
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.project.cache("")).unwrap_or(path).display().to_string()
    }

    /// Runs everything, and compares every stage with the model.
    fn compare(&mut self) {
        self.graph.restore_files();
        self.write();
        if self.is_damaged {
            let ended = self.project.pipeline("verify --all");
            assert!(matches!(ended.code(), Some(0 | 1)), "{ended}");
            self.is_damaged = false;
        }
        let lazy = if self.dice.once_in(3) { " --durability=lazy" } else { "" };
        let run = format!("run {MANIFEST}{lazy}");
        self.project.remember(format!("compare: {run}"));
        self.project.pipeline(&run).success();
        assert_is_true(&self.project, MANIFEST, "model", &self.graph);
        let ended = self.project.pipeline("verify --all");
        let gone = |line: &str| line.contains(" intact, ") && line.contains(" gone; ");
        let is_only_gone =
            self.is_gone && ended.stdout.lines().filter(|line| gone(line)).count() == 1;
        assert!(ended.code() == Some(0) || is_only_gone, "nothing is damaged any more: {ended}");
        assert_all_fresh(&self.project.pipeline(&run), &self.graph);
        self.figures.comparisons += 1;
        self.figures.commands += 5;
        // That everything was fresh is remembered. Other files change it.
        let what = self.graph.edit_file(&mut self.dice);
        self.project.remember(format!("{what}, {run}"));
        self.write();
        self.project.pipeline(&run).success();
        assert_is_true(&self.project, MANIFEST, "model", &self.graph);
        self.figures.commands += 2;
    }
}

/// Writes the files outside the cache.
pub fn write_files(project: &Sandbox, graph: &Graph) {
    for name in OUTSIDE {
        let is_there = graph.files.keys().any(|file| Path::new(file).starts_with(name));
        if !is_there {
            remove(&project.path(name));
        }
    }
    for (name, text) in &graph.files {
        // A file that is not changed keeps its time.
        if fs::read(project.path(name)).ok().as_deref() != Some(text.as_bytes()) {
            project.write(name, text);
        }
    }
}

/// Compares what each stage has with what it must write. There are no other links for people.
pub fn assert_is_true(project: &Sandbox, manifest: &str, experiment: &str, graph: &Graph) {
    let truth = graph.truth();
    let links = project.cache(&format!("latest/{experiment}"));
    // What was killed may have left links with a name for a moment, which are swept once a day.
    let links_are = names(&links).into_iter().filter(|name| !name.starts_with(".new-"));
    assert_eq!(links_are.collect::<Vec<_>>(), truth.keys().cloned().collect::<Vec<_>>());
    let listing = project.pipeline(&format!("path {manifest}"));
    assert!(listing.status.success(), "{listing}");
    let lines = listing.stdout.lines();
    let paths: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once('\t')).collect();
    for (stage, text) in &truth {
        let folder = fs::canonicalize(links.join(stage)).expect("a link that leads to an artifact");
        assert_eq!(Some(folder.as_path()), paths.get(stage.as_str()).map(Path::new), "{stage}");
        assert_eq!(names(&folder), ["data", "sub"], "{stage}");
        for file in ["data", "sub/copy"] {
            let written = fs::read_to_string(folder.join(file)).expect("readable");
            assert_eq!(&written, text, "{stage}: {file}");
        }
    }
}

/// A run in which every stage was fresh.
pub fn assert_all_fresh(ended: &Ended, graph: &Graph) {
    assert!(ended.status.success(), "{ended}");
    let summary = ended.stdout.lines().last().unwrap_or_default();
    let expected = format!(": {} fresh in ", graph.truth().len());
    assert!(summary.contains(&expected), "everything is fresh: {ended}");
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
}

#[test]
fn whatever_happens_a_run_ends_in_what_running_everything_again_would_make() {
    let (mut all, mut rounds) = (Figures::default(), 0);
    for seed in seeds(ROUNDS) {
        let mut round = Round::new(seed);
        round.compare();
        for _ in 0..COMPARISONS {
            for _ in 0..HAPPENINGS {
                round.go_on();
            }
            round.compare();
        }
        rounds += 1;
        all.comparisons += round.figures.comparisons;
        all.commands += round.figures.commands;
        all.killed += round.figures.killed;
        all.damaged += round.figures.damaged;
    }
    let Figures { comparisons, commands, killed, damaged } = all;
    println!(
        "figures: model rounds {rounds}, model comparisons {comparisons}, model commands {commands}, \
         model killed {killed}, model damaged {damaged}"
    );
}
