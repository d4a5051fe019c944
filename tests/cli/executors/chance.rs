//! Whatever is killed of runs, of their jobs, of what these start, and of their scheduler: a result that is there stays, and is not made
//! again, and the next run ends in what the model makes.
//!
//! `PIPELINE_SEED=7 PIPELINE_ROUNDS=1` repeats one round, but for the moments of the kills; what happened is printed when it fails, and
//! the folder stays.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{EXECUTOR, SCHEDULER};
use crate::model::graph::Graph;
use crate::model::{Dice, Project, assert_all_fresh, assert_is_true, seeds, write_files};
use crate::support::{Ended, MANIFEST, Running, Sandbox, eventually, names, walk};

/// How many rounds there are in the suite, and how many kills in each.
const ROUNDS: u64 = 1;
const KILLS: usize = 4;

/// After which time something is killed, at most, in milliseconds.
const MOMENT: usize = 700;

/// One round: a project, and the model of it.
struct Round {
    project: Project,
    graph: Graph,
    dice: Dice,
    /// The records that were seen.
    records: BTreeMap<PathBuf, Vec<u8>>,
    /// How many processes were killed.
    killed: usize,
}

impl Round {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let graph = Graph::any(&mut dice);
        let project = Sandbox::new("");
        // By this, all are known that work for it.
        let folder = project.folder().display().to_string();
        let project = project.set("PIPELINE_TEST_CHANCE", &folder);
        project.write_program("sched", &scheduler());
        let project = Project::new(project, seed);
        Self { project, graph, dice, records: BTreeMap::new(), killed: 0 }
    }

    /// Writes the manifest and the files as the model has them: each stage is a job, takes a moment, and says in `ends` that it has come
    /// to its end.
    fn write(&self) {
        let there = "kind = \"command\"\nexecution = { executor = \"fake\" }\n";
        let manifest = self.graph.manifest("model").replace("kind = \"command\"\n", there);
        let ends = self.project.path("ends").display().to_string();
        let ends = format!("\necho \"$PIPELINE_OUTPUT\" >> {ends}\n'''\n");
        let manifest = manifest.replace("\n'''\n", &ends);
        let slow = manifest.replace("set -e\ntext=", "set -e\nsleep 0.1\ntext=");
        self.project.write(MANIFEST, format!("{slow}{EXECUTOR}"));
        write_files(&self.project, &self.graph);
    }

    /// Changes something, lets a run begin, or go on, and kills one of all processes that work for it.
    fn go_on(&mut self) {
        let what = self.graph.edit(&mut self.dice);
        self.write();
        let detach = if self.dice.once_in(2) { " --detach" } else { "" };
        let run = self.project.start(&format!("run {MANIFEST}{detach}"));
        let moment = Duration::from_millis(self.dice.moment(MOMENT));
        std::thread::sleep(moment);
        let killed = self.kill();
        self.project.remember(format!("{what}, run{detach}, killed after {moment:?}: {killed}"));
        let ended = self.wait(run);
        // A stage whose process was killed has failed.
        assert!(matches!(ended.code(), None | Some(0 | 1)), "{ended}");
    }

    /// Kills a process; which one.
    fn kill(&mut self) -> String {
        let all = self.processes();
        let Some(&pid) = self.dice.one(&all) else { return "nothing".into() };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace(['\0', '\n'], " ");
        // It may have ended just now.
        let killed = kill_process(Pid::from_raw(pid).expect("not zero"), Signal::KILL);
        self.killed += usize::from(killed.is_ok());
        line.chars().take(120).collect()
    }

    /// All that work for the project.
    fn processes(&self) -> Vec<i32> {
        let own = format!("PIPELINE_TEST_CHANCE={}\0", self.project.folder().display());
        let pids = names("/proc".as_ref()).into_iter().filter_map(|name| name.parse::<i32>().ok());
        let is_own = |pid: &i32| {
            let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&variables).contains(&own)
        };
        pids.filter(is_own).collect()
    }

    /// Waits for the end of a run, and sees each result as soon as it is there.
    fn wait(&mut self, run: Running) -> Ended {
        eventually("the end of a run", || {
            self.look();
            !run.is_running()
        });
        self.look();
        run.wait()
    }

    /// Each result that was there is there still, and is the same one: it was not made again.
    fn look(&mut self) {
        let files = walk(&self.project.cache("records")).into_iter();
        let files = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let now: BTreeMap<PathBuf, Vec<u8>> =
            files.filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect();
        for (path, record) in &self.records {
            assert_eq!(now.get(path), Some(record), "{}", path.display());
        }
        self.records = now;
    }

    /// Runs everything, and compares it with the model.
    fn compare(&mut self) {
        // A job of an earlier manifest may work still; and whoever sees one go whose process was killed says that it failed.
        eventually("the ends of all", || self.processes().is_empty());
        let run = self.project.start(&format!("run {MANIFEST}"));
        let ended = self.wait(run);
        assert!(ended.status.success(), "{ended}");
        assert_is_true(&self.project, MANIFEST, "model", &self.graph);
        let verified = self.project.pipeline("verify --all");
        assert!(verified.status.success(), "{verified}");
        assert_all_fresh(&self.project.pipeline(&format!("run {MANIFEST}")), &self.graph);
        self.look();
        // What came to its end and was not recorded was killed between the two.
        let ends = self.project.read("ends").lines().count();
        let made = self.records.len();
        assert!((made..=made + self.killed).contains(&ends), "{ends} ends, {made} results");
    }
}

/// The scheduler, which notices that what it has started a job with is gone.
fn scheduler() -> String {
    let shows = "echo \"$id $(cat \"$queue/$id/state\")\"";
    // One that nobody has buried is gone, too.
    let lives = "grep -qs 'State:.[RSDT]' \"/proc/$(cat \"$queue/$id/runner\")/status\"";
    let started = "    echo \"Job <$id>";
    assert!(SCHEDULER.contains(shows) && SCHEDULER.contains(started));
    let text = SCHEDULER.replace(shows, &format!("{{ {lives} && {shows} || echo \"$id GONE\"; }}"));
    text.replace(started, &format!("    echo $! > \"$queue/$id/runner\"\n{started}"))
}

#[test]
fn whatever_is_killed_no_result_is_lost_or_made_twice() {
    let (mut rounds, mut killed) = (0, 0);
    for seed in seeds(ROUNDS) {
        let mut round = Round::new(seed);
        (0..KILLS).for_each(|_| round.go_on());
        round.compare();
        rounds += 1;
        killed += round.killed;
    }
    println!("figures: executor rounds {rounds}, executor killed {killed}");
}
