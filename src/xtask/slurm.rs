//! `cargo xtask test-slurm`: a Slurm of two nodes on this machine, without systemd, below a temporary folder,
//! and the stories of the command line that need one (`tests/cli/slurm.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::checkout::Checkout;
use crate::stories::{Stories, Which};

/// The Debian packages.
pub const PACKAGES: [&str; 3] = ["slurm-wlm", "slurm-wlm-basic-plugins", "munge"];
/// The programs that they have.
const PROGRAMS: [&str; 5] = ["munged", "slurmctld", "slurmd", "sbatch", "squeue"];
/// How long a daemon may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs those of the stories that need Slurm; says so where there is none.
///
/// # Errors
/// When Slurm does not start, or a story fails.
pub fn test(checkout: &Checkout, which: &Which) -> Result<()> {
    let missing = PROGRAMS.into_iter().find(|name| !is_on_path(name));
    if let Some(missing) = missing {
        eprintln!("SKIPPED: there is no {missing}; `cargo xtask parts` installs Slurm, as root");
        return Ok(());
    }
    if !geteuid().is_root() {
        eprintln!("SKIPPED: a Slurm for tests is started by root");
        return Ok(());
    }
    let stories = Stories::find(checkout, "slurm", which)?;
    ensure!(!stories.is_empty(), "no story with Slurm is called like that");
    let slurm = Slurm::start()?;
    let variables = [
        ("SLURM_CONF", slurm.folder.join("slurm.conf").into()),
        ("PIPELINE_TEST_SLURM", slurm.folder.clone().into()),
    ];
    stories.run(&variables, &["--test-threads", "1"])
}

fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A Slurm that runs until this is dropped.
struct Slurm {
    folder: PathBuf,
}

impl Slurm {
    fn start() -> Result<Self> {
        // A short path: sockets are in it.
        let folder = PathBuf::from(format!("/tmp/slurm-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let slurm = Self { folder };
        for name in ["state", "log", "munge", "run", "spool.n1", "spool.n2"] {
            fs::create_dir(slurm.folder.join(name))?;
        }
        slurm.start_munge()?;
        fs::write(slurm.folder.join("slurm.conf"), slurm.configuration())?;
        let prolog = slurm.folder.join("prolog");
        let is_allowed = slurm.folder.join("no-launch");
        fs::write(&prolog, format!("#!/bin/sh\n! [ -e {} ]\n", is_allowed.display()))?;
        set_mode(&prolog, 0o755)?;
        if limits_memory() {
            fs::write(slurm.folder.join("cgroup.conf"), "ConstrainRAMSpace=yes\n")?;
        }
        slurm.run(Command::new("slurmctld"))?;
        for node in ["n1", "n2"] {
            let mut command = Command::new("slurmd");
            command.args(["-N", node]);
            slurm.run(command)?;
        }
        slurm.wait_until_idle()?;
        Ok(slurm)
    }

    fn start_munge(&self) -> Result<()> {
        let folder = self.folder.join("munge");
        let key: Vec<u8> = fs::read("/proc/sys/kernel/random/uuid")?.repeat(4);
        fs::write(folder.join("key"), key)?;
        set_mode(&folder.join("key"), 0o600)?;
        set_mode(&folder, 0o711)?;
        let mut command = Command::new("munged");
        // Any folder of /tmp is below one that everybody may write.
        command.arg("--force");
        for (option, name) in [
            ("key-file", "key"),
            ("socket", "sock"),
            ("pid-file", "pid"),
            ("log-file", "log"),
            ("seed-file", "seed"),
        ] {
            command.arg(format!("--{option}={}", folder.join(name).display()));
        }
        self.run(command)
    }

    fn configuration(&self) -> String {
        let folder = self.folder.display();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host = host.split('.').next().unwrap_or_default();
        let tasks = if limits_memory() { "task/cgroup" } else { "task/none" };
        // Others on this machine may have one, too.
        let port = 20_000 + std::process::id() % 10_000 * 4;
        let (first, last) = (port + 1, port + 2);
        format!(
            "ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin={tasks}
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=5
MinJobAge=300
JobRequeue=1
MaxArraySize=10001
Prolog={folder}/prolog
AccountingStorageType=accounting_storage/none
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=4 RealMemory=4000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=1-00:00:00 State=UP
"
        )
    }

    fn run(&self, mut command: Command) -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        let status = command.env("SLURM_CONF", self.folder.join("slurm.conf")).status();
        let status = status.with_context(|| format!("{name} does not start"))?;
        ensure!(status.success(), "{name} failed ({status})");
        Ok(())
    }

    fn wait_until_idle(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut command = Command::new("sinfo");
            command.args(["--noheader", "--Node", "--partition=main", "--format=%T"]);
            let output = command.env("SLURM_CONF", self.folder.join("slurm.conf")).output()?;
            let states = String::from_utf8_lossy(&output.stdout).into_owned();
            if states.lines().count() == 2 && states.lines().all(|state| state == "idle") {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "the nodes of Slurm are not idle, but: {states}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Slurm {
    /// Jobs first: what they started would outlive the daemons.
    fn drop(&mut self) {
        let conf = self.folder.join("slurm.conf");
        let _ = Command::new("scancel").arg("--user=root").env("SLURM_CONF", &conf).status();
        std::thread::sleep(Duration::from_secs(1));
        for file in ["run/slurmd.n1.pid", "run/slurmd.n2.pid", "run/slurmctld.pid", "munge/pid"] {
            let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
            let pid = text.trim().parse().ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether groups of processes can be limited in their memory by whoever is root: those of version 2 belong to systemd, without which this
/// Slurm runs.
fn limits_memory() -> bool {
    Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    Ok(fs::set_permissions(path, mode)?)
}
