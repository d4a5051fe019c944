//! A process group, and those that its members started and moved out of it.
//!
//! Does not depend on what the processes are.

use std::collections::{HashMap, HashSet};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Sends a signal to a process group and to every descendant of its leader that has a group of its own. A signal
/// that stops must be one that no program can handle, so that no new descendant appears meanwhile.
pub(crate) fn signal(leader: Pid, signal: Signal) {
    reach(leader, signal);
}

/// Ends a process group and every descendant of its leader that has a group of its own.
pub(crate) fn kill(leader: Pid) {
    // Stopped first: a descendant whose parent is gone could not be found.
    for pid in reach(leader, Signal::STOP) {
        let _ = kill_process(pid, Signal::KILL);
    }
    kill_group(leader);
}

/// Ends a process group whose leader has ended: nobody descends from it any more.
pub(crate) fn kill_group(leader: Pid) {
    let _ = kill_process_group(leader, Signal::KILL);
}

/// Sends the signal, and returns whom it was sent to beside the group.
fn reach(leader: Pid, signal: Signal) -> HashSet<Pid> {
    let _ = kill_process_group(leader, signal);
    let mut reached = HashSet::new();
    // Whoever was not stopped yet could start another one while the list was read.
    loop {
        let all: HashMap<Pid, Process> = processes().collect();
        let left_the_group = |(pid, process): (&Pid, &Process)| {
            (process.group != leader && !reached.contains(pid) && descends(*pid, leader, &all))
                .then_some(*pid)
        };
        let found: Vec<Pid> = all.iter().filter_map(left_the_group).collect();
        if found.is_empty() {
            return reached;
        }
        for pid in found {
            let _ = kill_process(pid, signal);
            reached.insert(pid);
        }
    }
}

struct Process {
    parent: Pid,
    group: Pid,
}

fn descends(mut process: Pid, ancestor: Pid, all: &HashMap<Pid, Process>) -> bool {
    // The list was not read in one moment: a number that was used again could close a circle.
    for _ in 0..all.len() {
        match all.get(&process) {
            Some(found) if found.parent == ancestor => return true,
            Some(found) => process = found.parent,
            None => return false,
        }
    }
    false
}

/// All processes, where there is a `/proc`.
fn processes() -> impl Iterator<Item = (Pid, Process)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        // proc_pid_stat(5); the second field is a name in parentheses, which can hold spaces and parentheses itself.
        let stat = std::fs::read(entry.path().join("stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
        let mut number = || Pid::from_raw(fields.next()?.parse().ok()?);
        Some((pid, Process { parent: number()?, group: number()? }))
    })
}
