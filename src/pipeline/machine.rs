//! What this machine has, as far as this process may use it: cores, threads and memory; and whether memory ran out.
//!
//! Does not depend on what it is used for.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;

/// How many cores there are for this process. Asked once: it takes several reads of files of the kernel.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let ask = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    *CORES.get_or_init(ask)
}

/// How many threads of this process may compute at once, where a limit was set.
static MOST_THREADS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// How many threads hash and look at files together: one per core, but no more than a run may take cores.
pub(crate) fn threads() -> usize {
    cores().min(MOST_THREADS.load(Ordering::Relaxed))
}

/// From now on, no more threads than this many cores are started to hash and to look at files.
pub(crate) fn limit_threads(cpus: Option<u32>) {
    let most = cpus.and_then(|cpus| usize::try_from(cpus).ok());
    MOST_THREADS.store(most.map_or(usize::MAX, |most| most.max(1)), Ordering::Relaxed);
}

/// A thread, or an error: the standard library's own `spawn` panics where there is none.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).context(
        "cannot start a thread: the limit on processes is reached (`ulimit -u`, or pids.max of a container)",
    )
}

/// How much memory there is for this process, in bytes: that of the machine, or of its control group. `None` where that cannot be
/// known.
pub(crate) fn memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(total);
    let limit = |group: &Path| -> Option<u64> {
        let files = ["memory.max", "memory.limit_in_bytes"];
        let text = files.iter().find_map(|file| std::fs::read_to_string(group.join(file)).ok())?;
        text.trim().parse().ok()
    };
    // A group has no more than those above it.
    let limits = control_group()
        .into_iter()
        .flat_map(|group| group.ancestors().take_while(|above| above.starts_with(CONTROL_GROUPS)));
    limits.filter_map(limit).chain(machine).min()
}

/// How often the system has ended a process because memory ran out: in the control group of this process, or else on the machine.
/// `None` where that cannot be known.
pub(crate) fn out_of_memory_kills() -> Option<u64> {
    let group = control_group().and_then(|group| {
        let files = ["memory.events", "memory.oom_control"];
        let events =
            files.iter().find_map(|file| std::fs::read_to_string(group.join(file)).ok())?;
        counted(&events, "oom_kill")
    });
    let machine = || counted(&std::fs::read_to_string("/proc/vmstat").ok()?, "oom_kill");
    group.or_else(machine)
}

/// Where the system shows control groups.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The folder of the control group of this process.
fn control_group() -> Option<&'static Path> {
    static GROUP: OnceLock<Option<PathBuf>> = OnceLock::new();
    let group = || group_in(&std::fs::read_to_string("/proc/self/cgroup").ok()?);
    GROUP.get_or_init(group).as_deref()
}

/// `0::/user.slice/…`: of version 2; `5:memory:/slurm/…` of version 1, which has a folder for memory.
fn group_in(text: &str) -> Option<PathBuf> {
    let of_version_1 = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(":/")?;
        let is_memory = controllers.split(',').any(|controller| controller == "memory");
        is_memory.then(|| Path::new(CONTROL_GROUPS).join("memory").join(path))
    });
    let of_version_2 = || {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        Some(Path::new(CONTROL_GROUPS).join(path))
    };
    of_version_1.or_else(of_version_2)
}

/// `MemTotal:       32768000 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number after a name, each pair on a line.
fn counted(text: &str, name: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_threads_compute_than_a_run_may_take_cores() {
        for (cpus, most) in [(Some(1), 1), (Some(0), 1), (Some(1024), cores()), (None, cores())] {
            limit_threads(cpus);
            assert_eq!(threads(), most, "{cpus:?}");
        }
    }

    #[test]
    fn what_the_system_says() {
        assert_eq!(total("MemTotal:       32768 kB\nMemFree: 1 kB\n"), Some(32768 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let events = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(counted(events, "oom_kill"), Some(2));
        assert_eq!(counted("oom_kill_x 2\n", "oom_kill"), None);
        let group = |text| group_in(text).map(|group| group.display().to_string());
        assert_eq!(group("0::/a/b\n").as_deref(), Some("/sys/fs/cgroup/a/b"));
        assert_eq!(group("5:cpu:/x\n0::/\n").as_deref(), Some("/sys/fs/cgroup/"));
        let version_1 = "5:cpu,memory:/slurm/job\n0::/a\n";
        assert_eq!(group(version_1).as_deref(), Some("/sys/fs/cgroup/memory/slurm/job"));
        assert_eq!(counted("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_memory() {
        assert!(cores() > 0);
        assert!(memory().expect("Linux says it") > 100_000_000);
    }
}
