//! docs/cluster.md: what is typed where somebody doubts the locks of other machines does what is said there.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{RUN, jobs, process, project, submitted, worker, works};
use crate::documents::{ClusterCommands, document};
use crate::support::{eventually, names};

fn shell(folder: &Path, commands: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-eu", "-c", commands]).current_dir(folder);
    command
}

fn output(folder: &Path, commands: &str) -> Output {
    shell(folder, commands).output().expect("a shell")
}

#[test]
fn two_machines_that_see_the_locks_of_each_other_are_known_by_two_commands() {
    let project = project("");
    project.pipeline("run experiment.toml data").success();
    let commands = ClusterCommands::of(&document("cluster.md")).try_locks;
    let [one, other] = &commands.lines().collect::<Vec<_>>()[..] else { panic!("{commands}") };
    let cache = project.cache("");
    let said = || String::from_utf8(output(&cache, other).stdout).expect("text");
    let mut holder = shell(&cache, one).process_group(0).spawn().expect("a shell");
    eventually("a lock", || said().is_empty());
    let group = i32::try_from(holder.id()).ok().and_then(Pid::from_raw).expect("a number");
    kill_process_group(group, Signal::KILL).expect("ours");
    holder.wait().expect("it is ours");
    eventually("its end", || said() == "free\n");
}

#[test]
fn the_key_of_a_machine_that_is_gone_is_freed_by_one_command() {
    let project = project("slow");
    let run = project.start(&format!("{RUN} simclr"));
    works(&project);
    run.signal(Signal::KILL);
    run.wait();
    let worker = worker(&project);
    kill_process(process(&project, 1), Signal::KILL).expect("ours");
    // It may be gone with its job.
    let _ = kill_process(worker, Signal::KILL);
    eventually("its end", || !project.read("queue/1/status").is_empty());
    let key = jobs(&project).remove(0);
    // As a file server of version 3 has them for a machine that has crashed.
    let checkpoints = project.cache("partial").join(&key);
    let of_checkpoints = names(&checkpoints).into_iter().filter(|name| name.ends_with(".lock"));
    let mut locks: Vec<_> = of_checkpoints.map(|name| checkpoints.join(name)).collect();
    assert_eq!(locks.len(), 1, "{locks:?}");
    locks.extend([key.clone(), format!("job-{key}")].map(|name| project.cache("locks").join(name)));
    let locks = locks.into_iter().map(|path| {
        let lock = File::options().read(true).write(true).open(&path).expect("it is there");
        eventually("its lock", || lock.try_lock().is_ok());
        lock
    });
    let locks: Vec<File> = locks.collect();
    let run = project.start(&format!("{RUN} simclr"));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(run.is_running() && submitted(&project) == 1, "it waits");
    let free = ClusterCommands::of(&document("cluster.md")).free_key.replace("KEY", &key);
    let freed = output(&project.folder(), &free);
    assert!(freed.status.success() && freed.stderr.is_empty(), "{freed:?}");
    let ended = run.wait();
    assert_eq!(ended.success(), "data fresh, simclr ran");
    assert!(ended.stderr.contains("continues from its checkpoint"), "{ended}");
    assert_eq!(submitted(&project), 2);
    drop(locks);
}
