//! What the worker of a stage took: time of the processor, memory, bytes.
//!
//! Does not depend on what the worker does, or on how it is talked to.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use pipeline_stages::message::Used;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::format;

/// What a stage took. What is not known is left out, also of records from before it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Usage {
    /// Seconds of the processor, of all its threads and of what it started and waited for together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_seconds: Option<f64>,
    /// The most memory that it had at once, in bytes: that of all its processes together where it ran long enough to be looked
    /// at, else that of its largest process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory: Option<u64>,
    /// The most memory of a GPU that it had at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_memory: Option<u64>,
    /// The bytes of its inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_in: Option<u64>,
    /// The part of its work, from 0 to 1, that all of this is of, and its seconds, where it continued from a checkpoint; 0 where it
    /// does not say how far it was.
    #[serde(rename = "share", default, skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<f64>,
}

/// From a smaller part than this, the time of a whole run cannot be told: too much of it is the start.
const LEAST_PART: f64 = 0.1;

impl Usage {
    /// What a worker took: by what the system counted of its process, by how much memory its processes had together when that was
    /// looked at, and by what it reported itself.
    pub(crate) fn of(counted: &Counted, together: Option<u64>, reported: Used) -> Self {
        // A process counts what the one had that it was forked from: up to that, its own report is nearer.
        let largest = Some(counted.memory).filter(|memory| *memory > counted.parent_memory);
        let memory = largest.max(together).max(reported.memory).or(Some(counted.memory));
        Self {
            cpu_seconds: Some(counted.cpu_seconds),
            peak_memory: memory,
            gpu_memory: reported.gpu_memory,
            bytes_in: None,
            part: None,
        }
    }

    /// How long a whole run would have taken that took so many seconds; `None` where that cannot be told.
    pub(crate) fn whole(&self, seconds: f64) -> Option<f64> {
        match self.part {
            None => Some(seconds),
            Some(part) => (part >= LEAST_PART).then(|| seconds / part),
        }
    }

    /// That of two runs: times and bytes together, and the larger memory.
    pub(crate) fn with(self, other: &Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        let cpu = self.cpu_seconds.into_iter().chain(other.cpu_seconds);
        Self {
            cpu_seconds: cpu.reduce(|one, other| one + other),
            peak_memory: self.peak_memory.max(other.peak_memory),
            gpu_memory: self.gpu_memory.max(other.gpu_memory),
            bytes_in: sum(self.bytes_in, other.bytes_in),
            part: None,
        }
    }

    /// `, cpu 3 h 07 min, memory 2.6 GB, read 163 GB`; empty where nothing is known. Begins with ` for its last 25 %` where it
    /// continued from a checkpoint.
    pub(crate) fn in_words(&self) -> String {
        let part =
            part_in_words(self.part).map_or(String::new(), |part| format!(" for its {part}"));
        let cells = HEADS.into_iter().zip(self.cells()).filter(|(_, cell)| !cell.is_empty());
        part + &cells.map(|(head, cell)| format!(", {head} {cell}")).collect::<String>()
    }

    /// The time of the processor, the memory (`2.6 GB, GPU 11 GB`) and the bytes that were read, as people read them; empty
    /// where unknown.
    pub(crate) fn cells(&self) -> [String; 3] {
        let gpu = self.gpu_memory.map(|bytes| format!("GPU {}", format::bytes(bytes)));
        let memory = self.peak_memory.map(format::bytes).into_iter().chain(gpu);
        [
            self.cpu_seconds.map(format::seconds).unwrap_or_default(),
            memory.collect::<Vec<_>>().join(", "),
            self.bytes_in.map(format::bytes).unwrap_or_default(),
        ]
    }
}

/// `last 25 %`: what a run that continued from a checkpoint did of its work. `None` of a whole run.
fn part_in_words(part: Option<f64>) -> Option<String> {
    Some(match part? {
        0.0 => "last part".to_owned(),
        part => format!("last {:.0} %", (part * 100.0).max(1.0)),
    })
}

/// How long this part of a run took, in a sentence: `5.6 s for its last 25 %`.
pub(crate) fn time_in_words(seconds: f64, part: Option<f64>) -> String {
    let time = format::seconds(seconds);
    part_in_words(part).map_or_else(|| time.clone(), |part| format!("{time} for its {part}"))
}

/// The same in a table: `5.6 s (last 25 %)`.
pub(crate) fn time_cell(seconds: f64, part: Option<f64>) -> String {
    let time = format::seconds(seconds);
    part_in_words(part).map_or_else(|| time.clone(), |part| format!("{time} ({part})"))
}

/// The heads of [`Usage::cells`].
pub(crate) const HEADS: [&str; 3] = ["cpu", "memory", "read"];

/// What the system counted of a child that ended, and of those that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Counted {
    cpu_seconds: f64,
    /// The most that one of these processes had at once, in bytes; at least what it was forked with.
    memory: u64,
    /// The most that the process has had at once that it may have been forked from, in bytes.
    parent_memory: u64,
}

impl Counted {
    /// The same of a child that was not forked from this process, of which nothing is counted in it.
    pub(crate) fn of_its_own(self) -> Self {
        Self { parent_memory: 0, ..self }
    }
}

/// Waits for the end of a child.
pub(crate) fn wait(child: Pid) -> io::Result<(ExitStatus, Counted)> {
    let pid = child.as_raw_pid();
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    loop {
        // SAFETY: the call writes to memory that is ours. The number is that of the child, which nobody else waits for.
        if unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: every bit pattern is a `rusage`, and the call has filled it.
    let usage = unsafe { usage.assume_init() };
    let mut own = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call writes to memory that is ours, which is valid as it is.
    let own = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, own.as_mut_ptr());
        own.assume_init()
    };
    let counted = Counted {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        memory: memory(usage.ru_maxrss),
        parent_memory: memory(own.ru_maxrss),
    };
    Ok((ExitStatus::from_raw(status), counted))
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// Linux counts in kilobytes, macOS in bytes.
fn memory(most: libc::c_long) -> u64 {
    let unit = if cfg!(target_os = "linux") { 1024 } else { 1 };
    u64::try_from(most).unwrap_or(0).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn memory_is_that_of_the_worker_and_not_of_the_process_that_started_it() {
        let counted = |memory, parent_memory| Counted { cpu_seconds: 1.5, memory, parent_memory };
        for (counted, together, reported, expected) in [
            // It had more than the process that started it.
            (counted(50, 40), None, Some(8), 50),
            // What was counted is the parent's.
            (counted(40, 40), None, Some(8), 8),
            // It was not forked from that process, which only happened to have more.
            (counted(40, 90).of_its_own(), None, Some(8), 40),
            // Several processes together.
            (counted(50, 40), Some(90), Some(8), 90),
            (counted(40, 40), Some(30), Some(8), 30),
            // Nothing better is known.
            (counted(40, 40), None, None, 40),
        ] {
            let used = Used { memory: reported, gpu_memory: Some(3) };
            let usage = Usage::of(&counted, together, used);
            assert_eq!(usage.peak_memory, Some(expected), "{counted:?} {together:?} {reported:?}");
            assert_eq!((usage.cpu_seconds, usage.gpu_memory), (Some(1.5), Some(3)));
        }
    }

    #[test]
    fn a_whole_run_is_told_from_a_part_that_is_not_too_small() {
        for (part, whole, words) in [
            (None, Some(4.0), ""),
            (Some(0.25), Some(16.0), "last 25 %"),
            (Some(0.004), None, "last 1 %"),
            (Some(0.0), None, "last part"),
        ] {
            let usage = Usage { part, cpu_seconds: Some(3.0), ..Usage::default() };
            let (in_words, in_cell) = match words {
                "" => (String::new(), String::new()),
                words => (format!(" for its {words}"), format!(" ({words})")),
            };
            assert_eq!(usage.whole(4.0), whole);
            assert_eq!(usage.in_words(), format!("{in_words}, cpu 3.0 s"));
            assert_eq!(time_in_words(4.0, part), format!("4.0 s{in_words}"));
            assert_eq!(time_cell(4.0, part), format!("4.0 s{in_cell}"));
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(serde_json::to_string(&Usage::default()).expect("JSON"), "{}");
        assert_eq!(serde_json::from_str::<Usage>("{}").expect("a usage"), Usage::default());
        assert_eq!(Usage::default().cells(), [""; 3].map(str::to_owned));
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "what is tested waits for it")]
    fn what_a_child_and_its_children_took_is_counted() {
        // The child of the child works; the shell waits for it.
        let work = "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; exit 3";
        let child = Command::new("sh").args(["-c", work]).spawn().expect("a shell");
        let (status, counted) = wait(Pid::from_child(&child)).expect("it ends");
        assert_eq!(status.code(), Some(3));
        assert!(counted.cpu_seconds > 0.0, "{counted:?}");
        assert!(counted.memory > 0 && counted.parent_memory > 0, "{counted:?}");
    }
}
