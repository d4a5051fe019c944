//! A process group, and those that its members started and moved out of it.
//!
//! Does not depend on what the processes are.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use pipeline_stages::proc_stat::ProcStat;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How often descendants are looked for that were started meanwhile: some cannot be stopped, as those of another user, and may start
/// others without an end.
const MOST_LOOKS: usize = 20;

/// Stops a process group and every descendant of its leader that has a group of its own.
pub(crate) fn stop(leader: Pid) {
    reach(leader);
}

/// Continues them.
pub(crate) fn resume(leader: Pid) {
    // While all are stopped: what is started later goes on anyway.
    let others = others(leader, &HashSet::new());
    let _ = kill_process_group(leader, Signal::CONT);
    send(&others, Signal::CONT);
}

/// Ends a process group and every descendant of its leader that has a group of its own.
pub(crate) fn kill(leader: Pid) {
    // Stopped first: a descendant whose parent is gone could not be found.
    send(&reach(leader), Signal::KILL);
    kill_group(leader);
}

/// Ends a process group whose leader has ended: nobody descends from it any more.
pub(crate) fn kill_group(leader: Pid) {
    let _ = kill_process_group(leader, Signal::KILL);
}

/// Stops them, by the signal that no program can handle, so that no new descendant appears meanwhile. Returns those beside the group.
fn reach(leader: Pid) -> HashSet<Pid> {
    let _ = kill_process_group(leader, Signal::STOP);
    let mut reached = HashSet::new();
    // Whoever was not stopped yet could start another one while the list was read.
    for _ in 0..MOST_LOOKS {
        let found = others(leader, &reached);
        if found.is_empty() {
            break;
        }
        send(&found, Signal::STOP);
        reached.extend(found);
    }
    reached
}

fn send(processes: &HashSet<Pid>, signal: Signal) {
    for process in processes {
        let _ = kill_process(*process, signal);
    }
}

/// The descendants of a leader that have left its group, but for those that were reached.
fn others(leader: Pid, reached: &HashSet<Pid>) -> HashSet<Pid> {
    let all: HashMap<Pid, ProcStat> = ProcStat::all().collect();
    let is_other = |(pid, process): &(&Pid, &ProcStat)| {
        process.group != Some(leader) && !reached.contains(pid) && descends(**pid, leader, &all)
    };
    all.iter().filter(is_other).map(|(pid, _)| *pid).collect()
}

/// The most processes that memory is added up of.
const MOST_ADDED: usize = 4096;

/// The memory of a process and of all that descend from it, in bytes: what each has to itself, and the largest part that
/// it may share with others. `None` where there is no `/proc`, or no such process.
pub(crate) fn memory(leader: Pid) -> Option<u64> {
    let mut processes = vec![leader.as_raw_nonzero().get()];
    let (mut own, mut shared, mut place) = (0, None, 0);
    while let Some(pid) = processes.get(place).filter(|_| place < MOST_ADDED) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        if let Some((alone, with_others)) = pages(&process) {
            own += alone;
            shared = shared.max(Some(with_others));
        }
        // Each thread has the processes that it started.
        for thread in std::fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            let children =
                children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
            processes.extend(children);
        }
        place += 1;
    }
    (own + shared?).checked_mul(rustix::param::page_size() as u64)
}

/// How many pages of a process are in memory: those that only it can have, and those of files and of memory that is shared.
/// Nothing of one that has ended.
fn pages(process: &Path) -> Option<(u64, u64)> {
    // proc_pid_statm(5).
    let text = std::fs::read_to_string(process.join("statm")).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((resident.saturating_sub(shared), shared)).filter(|_| resident > 0)
}

fn descends(mut process: Pid, ancestor: Pid, all: &HashMap<Pid, ProcStat>) -> bool {
    // The list was not read in one moment: a number that was used again could close a circle.
    for _ in 0..all.len() {
        match all.get(&process).and_then(|found| found.parent) {
            Some(parent) if parent == ancestor => return true,
            Some(parent) => process = parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn to_continue_what_starts_others_without_an_end_comes_to_an_end() {
        let script = "while :; do setsid sleep 0.1 & done";
        let mut shell =
            Command::new("sh").args(["-c", script]).process_group(0).spawn().expect("a shell");
        let pid = Pid::from_child(&shell);
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for _ in 0..100 {
                resume(pid);
            }
            sender.send(())
        });
        let is_over = receiver.recv_timeout(Duration::from_secs(60));
        kill(pid);
        shell.wait().expect("it ends");
        is_over.expect("each looks once");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_of_what_a_process_started_counts() {
        // The shell keeps a text of 30 MB in a child of its own.
        let script =
            "sh -c 'text=$(head -c 30000000 /dev/zero | tr \\\\0 x); echo; read line'; true";
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let pid = Pid::from_child(&shell);
        let all = memory(pid).expect("it runs");
        assert!((30_000_000..300_000_000).contains(&all), "{all}");
        let own = pages(Path::new(&format!("/proc/{}", shell.id()))).expect("it runs");
        assert!(own.0 * 4096 < 20_000_000, "the shell itself: {own:?}");
        shell.stdin.take().expect("piped").write_all(b"\n").expect("it reads");
        assert!(shell.wait().expect("it ends").success());
        assert_eq!(memory(pid), None);
    }
}
