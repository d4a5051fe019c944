//! What `/proc` says of the processes of this machine. Without `/proc`, there is none.

use rustix::process::Pid;

/// What is known of a process without asking whose it is, which takes longer.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcStat {
    /// The name of its program, as the system cuts it off.
    pub name: String,
    /// Whether it has not ended. One that nobody has waited for is still listed.
    pub is_running: bool,
    /// Who started it, or adopted it. `None` for the first process, and for those of the system.
    pub parent: Option<Pid>,
    /// Its process group. `None` for one that is just ending.
    pub group: Option<Pid>,
    /// When it started, in clock ticks since the system did.
    pub started: u64,
}

impl ProcStat {
    /// Of one process.
    pub fn read(pid: Pid) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    /// Reads a line as in proc_pid_stat(5). The name is in parentheses, and can hold spaces and parentheses itself.
    fn parse(stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<_> = after.split_ascii_whitespace().collect();
        // One that is just ending has the group -1.
        let pid =
            |place: usize| Some(Pid::from_raw(fields.get(place)?.parse::<i32>().ok()?.max(0)));
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            is_running: !matches!(*fields.first()?, "Z" | "X"),
            parent: pid(1)?,
            group: pid(2)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// All processes.
    pub fn all() -> impl Iterator<Item = (Pid, Self)> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids =
            entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter_map(|pid| Some((pid, Self::read(pid)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_hold_what_separates_fields() {
        let rest = "1 12 12 0 -1 4194560 2 0 0 0 5 6 0 0 20 0 3 0 8877 1000 9 18446744073709551615";
        for (stat, name, is_running) in [
            (format!("12 (sh) S {rest}"), "sh", true),
            (format!("12 (a) Z 7 (b) R {rest}"), "a) Z 7 (b", true),
            (format!("12 ((x y)) Z {rest}\n"), "(x y)", false),
        ] {
            let (parent, group) = (Pid::from_raw(1), Pid::from_raw(12));
            let expected =
                ProcStat { name: name.to_owned(), is_running, parent, group, started: 8877 };
            assert_eq!(ProcStat::parse(&stat), Some(expected), "{stat}");
        }
        let first = ProcStat::parse("1 (init) S 0 1 1 0 -1 4 2 0 0 0 5 6 0 0 20 0 3 0 0 1000 9");
        assert_eq!(first.map(|first| (first.parent, first.started)), Some((None, 0)));
        let ends = ProcStat::parse("9 (true) X 0 -1 -1 0 -1 4 2 0 0 0 5 6 0 0 20 0 0 0 7 0 0");
        assert_eq!(ends.map(|ends| (ends.parent, ends.group)), Some((None, None)));
        for stat in ["", "12", "12 (sh)", "12 (sh) S 1 12", "12 (sh) S one 12"] {
            assert_eq!(ProcStat::parse(stat), None, "{stat}");
        }
    }
}
