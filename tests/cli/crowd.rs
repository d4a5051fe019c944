//! Sixteen processes that run, clean and check one cache, and are killed at any moment: what is left is right.
//!
//! `PIPELINE_SEED=7 PIPELINE_ROUNDS=1` repeats a round as far as that is possible.

use rustix::process::Signal;
use std::time::Duration;

use crate::model::graph::Graph;
use crate::model::{Dice, assert_all_fresh, assert_is_true, seeds, write_files};
use crate::support::Sandbox;

/// How many processes there are at a time.
const PROCESSES: usize = 16;

/// How many there are one after the other, in the place of each.
const CALLS: usize = 6;

/// After which time a process is killed, at most.
const MOMENT: usize = 400;

/// The names of the experiments.
const EXPERIMENTS: [&str; 3] = ["one", "other", "third"];

/// A project with experiments that share stages.
struct Crowd {
    seed: u64,
    project: Sandbox,
    graphs: Vec<Graph>,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut graph = Graph::any(&mut dice);
        let project = Sandbox::new("");
        write_files(&project, &graph);
        let mut graphs = Vec::new();
        for name in EXPERIMENTS {
            project.write(&format!("{name}.toml"), graph.manifest(name));
            graphs.push(graph.clone());
            graph.edit(&mut dice);
        }
        Self { seed, project, graphs }
    }

    /// Lets sixteen processes work at a time. Returns how many were killed.
    fn work(&self) -> usize {
        std::thread::scope(|scope| {
            let dice = (0..PROCESSES as u64).map(|number| Dice::new(self.seed * 1000 + number));
            let threads = dice.map(|dice| scope.spawn(|| go_on(&self.project, dice)));
            // All begin before one is waited for.
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("what it has said")).sum()
        })
    }

    /// Runs everything, and compares every stage with what it must write.
    fn compare(&self) {
        for (name, graph) in EXPERIMENTS.into_iter().zip(&self.graphs) {
            let (manifest, run) = (format!("{name}.toml"), format!("run {name}.toml"));
            self.project.pipeline(&run).success();
            assert_is_true(&self.project, &manifest, name, graph);
            assert_all_fresh(&self.project.pipeline(&run), graph);
        }
        let ended = self.project.pipeline("verify --all");
        assert_eq!(ended.code(), Some(0), "{ended}");
    }
}

impl Drop for Crowd {
    /// When it has failed, says which it was, and keeps the folder.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folder = self.project.keep();
            eprintln!("PIPELINE_SEED={} PIPELINE_ROUNDS=1: see {}", self.seed, folder.display());
        }
    }
}

/// Any call, and the exit statuses that it may end with.
fn any_call(dice: &mut Dice) -> (String, &'static [i32]) {
    match dice.throw(8) {
        0 => ("verify --all".into(), &[0]),
        // Two do not clean at once.
        1 => ("gc --keep-days 0".into(), &[0, 2]),
        _ => {
            let name = EXPERIMENTS[dice.throw(3)];
            // Other values, so that there is always something to do and to clean.
            let values = format!("[{},{}]", 1 + dice.throw(9), 10 + dice.throw(9));
            let lazy = if dice.once_in(3) { " --durability=lazy" } else { "" };
            (format!("run {name}.toml --set matrix.x={values}{lazy}"), &[0])
        }
    }
}

/// Calls the program again and again. Returns how many were killed.
fn go_on(project: &Sandbox, mut dice: Dice) -> usize {
    let mut killed = 0;
    for _ in 0..CALLS {
        let (arguments, allowed) = any_call(&mut dice);
        let run = project.start(&arguments);
        if dice.once_in(2) {
            std::thread::sleep(Duration::from_millis(dice.moment(MOMENT)));
            run.signal(Signal::KILL);
        }
        let ended = run.wait();
        match ended.code() {
            // No run may have begun yet.
            Some(2) if ended.stderr.starts_with("error: there is no cache in ") => {}
            Some(code) => assert!(allowed.contains(&code), "{arguments}: {ended}"),
            None => killed += 1,
        }
    }
    killed
}

#[test]
fn sixteen_processes_and_kills_leave_a_right_cache() {
    let (mut rounds, mut killed) = (0, 0);
    for seed in seeds(1) {
        let crowd = Crowd::new(seed);
        killed += crowd.work();
        crowd.compare();
        rounds += 1;
    }
    let processes = rounds * PROCESSES * CALLS;
    println!("figures: crowd rounds {rounds}, crowd processes {processes}, crowd killed {killed}");
}
