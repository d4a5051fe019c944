//! A program that is kept from what its stage does not declare, or is watched for it.
//!
//! Rules and observation are for a thread and what it starts. So the program is started by a thread of its own, which ends
//! with that: the worker itself stays as it was. No program runs twice, and no privilege is needed.

mod advice;
mod calls;
mod enforce;
mod interpreter;
mod notify;
mod observer;
mod places;
mod policy;
mod same_file;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use pipeline_stages::kinds::{Command, SandboxMode};
use pipeline_stages::worker::{Context, Stopped};

use super::absolute::absolute;
use advice::Manifest;
use observer::Seen;
use places::Declared;
use policy::Use;

/// A sandbox for one program.
pub(super) struct Sandbox {
    enforces: bool,
    declared: Declared,
    manifest: Manifest,
    /// The program's folder for temporary files. Removed with this.
    _temporary: Option<tempfile::TempDir>,
    observer: Mutex<Observer>,
    /// Set when the program and all that it started have ended.
    end: Arc<AtomicBool>,
}

/// Who watches the program.
enum Observer {
    NotStarted,
    Watches(JoinHandle<Seen>),
    /// Why nobody can.
    Blind(String),
}

impl Sandbox {
    /// The sandbox of a stage; `None` if it does not have one. Gives the program a folder for temporary files, in `environment`.
    /// `inputs` are the folders that it gets.
    pub(super) fn of(
        command: &Command,
        context: &Context,
        inputs: Vec<PathBuf>,
        environment: &mut BTreeMap<OsString, OsString>,
    ) -> anyhow::Result<Option<Self>> {
        if command.sandbox == SandboxMode::Off {
            return Ok(None);
        }
        let folder = absolute(&context.folder)?;
        let variable = |environment: &BTreeMap<OsString, OsString>, name: &str| {
            environment.get(OsStr::new(name)).filter(|value| !value.is_empty()).cloned()
        };
        let home = variable(environment, "HOME").map(PathBuf::from);
        let temporary = if command.environment.contains_key("TMPDIR") {
            None
        } else {
            let base =
                variable(environment, "TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
            // Short: the path of a socket in it must not be longer than 107 bytes.
            let made = tempfile::Builder::new().prefix("pipeline-").tempdir_in(folder.join(&base));
            Some(made.with_context(|| {
                format!("cannot make a folder for temporary files in {} (TMPDIR)", base.display())
            })?)
        };
        if let Some(temporary) = &temporary {
            environment.insert("TMPDIR".into(), temporary.path().into());
        }
        let list = |name: &str| -> Vec<PathBuf> {
            let value = variable(environment, name).unwrap_or_default();
            std::env::split_paths(&value).map(|entry| folder.join(entry)).collect()
        };
        let placed = |path: &String| match (path.strip_prefix('~'), &home) {
            (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
            _ => folder.join(path),
        };
        let read: Vec<_> = command.sandbox_read.iter().map(placed).collect();
        let mut write: Vec<_> = command.sandbox_write.iter().map(placed).collect();
        for missing in read.iter().chain(&write).filter(|path| !path.exists()) {
            context.note(format!(
                "sandbox: {} does not exist, so it is not among what the program may use",
                missing.display()
            ));
        }
        let mut own = vec![
            ("$PIPELINE_OUTPUT", absolute(&context.output)?),
            ("$PIPELINE_CHECKPOINT", absolute(&context.checkpoint)?),
        ];
        own.extend(variable(environment, "TMPDIR").map(|path| ("$TMPDIR", folder.join(path))));
        write.extend(own.iter().map(|(_, path)| path.clone()));
        // `> /dev/stderr` opens the log again.
        write.extend(Path::new("/proc/self/fd/2").read_link().ok().filter(|log| log.is_absolute()));
        let outside = pipeline_stages::kind::Rules::outside_paths(command);
        let declared = Declared {
            inputs,
            files: outside.iter().map(|outside| folder.join(&outside.path)).collect(),
            read,
            write,
            search_path: list("PATH"),
            library_path: list("LD_LIBRARY_PATH"),
            home: home.clone(),
            folder: folder.clone(),
        };
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let manifest = Manifest {
            store: store(&context.output),
            home: home.map(real),
            folder: real(folder),
            own: own.into_iter().map(|(name, path)| (name, real(path))).collect(),
            files: command.files.clone(),
            sandbox_read: command.sandbox_read.clone(),
            sandbox_write: command.sandbox_write.clone(),
        };
        Ok(Some(Self {
            enforces: command.sandbox == SandboxMode::On,
            declared,
            manifest,
            _temporary: temporary,
            observer: Mutex::new(Observer::NotStarted),
            end: Arc::default(),
        }))
    }

    /// Starts the program: the file at this path.
    ///
    /// # Errors
    /// When there cannot be a sandbox. That the program cannot be started is the inner error.
    pub(super) fn spawn(
        &self,
        path: &Path,
        program: &mut Process,
    ) -> anyhow::Result<std::io::Result<Child>> {
        let policy = Arc::new(places::policy(&self.declared, path));
        let rules = self.enforces.then(|| enforce::ruleset(&policy)).transpose()?;
        // The kernel reports the calls of a thread that starts threads, too: the observer must not be one of these. And until it
        // has the listener, nothing may need it: this channel does not allocate.
        let (hand_over, take_over) = sync_channel(1);
        let (end, enforces) = (Arc::clone(&self.end), self.enforces);
        let watch = move || match take_over.recv() {
            Ok(listener) => observer::watch(&listener, &policy, enforces, &end),
            Err(_) => Seen::default(),
        };
        let starting = "cannot start a thread for the sandbox";
        let watcher = std::thread::Builder::new().spawn(watch).context(starting)?;
        let start = || {
            rustix::thread::set_no_new_privs(true).context("cannot start the sandbox")?;
            rules.map(enforce::restrict).transpose()?;
            let blind = match notify::observe_this_thread(&calls::numbers()) {
                Ok(listener) => hand_over.send(listener).err().map(|_| "no observer".to_owned()),
                Err(error) => Some(why_blind(&error)),
            };
            drop(hand_over);
            anyhow::Ok((program.spawn(), blind))
        };
        let started = std::thread::scope(|scope| {
            let starter = std::thread::Builder::new().spawn_scoped(scope, start);
            let starter = starter.context(starting)?;
            starter.join().unwrap_or_else(|_| Err(anyhow!("cannot start the sandbox")))
        });
        let (child, blind) = started?;
        *self.observer() = match blind {
            Some(why) => Observer::Blind(why),
            None => Observer::Watches(watcher),
        };
        Ok(child)
    }

    /// Says what the program did that its stage does not declare: as a part of its failure, or else as notes.
    pub(super) fn explain<T>(
        &self,
        result: anyhow::Result<T>,
        context: &Context,
    ) -> anyhow::Result<T> {
        self.end.store(true, Ordering::Relaxed);
        let observer = std::mem::replace(&mut *self.observer(), Observer::NotStarted);
        let mut seen = match observer {
            Observer::NotStarted => return result,
            Observer::Watches(watcher) => watcher.join().unwrap_or_default(),
            Observer::Blind(why) => return self.explain_blind(result, &why, context),
        };
        if seen.unreadable > 0 {
            context.limitation(
                "sandbox: some paths could not be read from the program (is ptrace restricted here?), so not all that is undeclared is named",
            );
        }
        // A hard link that may not be made matters where the program fails for it: others copy then. What it brings in is a read, too.
        if !self.enforces || result.is_ok() {
            seen.undeclared.retain(|(usage, _)| *usage != Use::Link);
        }
        if seen.undeclared.is_empty() || result.as_ref().is_err_and(|error| error.is::<Stopped>()) {
            return result;
        }
        for (usage, path) in &seen.undeclared {
            let verb = match usage {
                Use::Read | Use::List => "read",
                Use::Link => "link",
                Use::Write | Use::Name => "write",
            };
            context.log(&format!("sandbox: undeclared {verb} {}", path.display()));
        }
        let sentences = advice::sentences(&seen.undeclared, seen.more, &self.manifest);
        match (self.enforces, result) {
            (true, Err(error)) => Err(anyhow!(
                "{error:#}\nthe sandbox refused what the stage does not declare: {}",
                sentences.join("\n")
            )),
            (enforces, result) => {
                let what = match enforces {
                    true => {
                        "the sandbox refused what the stage does not declare, and the program went on without"
                    }
                    false => "the stage does not declare all that it does",
                };
                context.note(format!("{what}: {}", sentences.join("; ")));
                result
            }
        }
    }

    /// The same where nobody could watch.
    fn explain_blind<T>(
        &self,
        result: anyhow::Result<T>,
        why: &str,
        context: &Context,
    ) -> anyhow::Result<T> {
        match result {
            Err(error) if self.enforces && !error.is::<Stopped>() => Err(anyhow!(
                "{error:#}\nwhat the sandbox refused, if anything, cannot be named here: {why}"
            )),
            result => {
                if !self.enforces {
                    context.limitation(format!(
                        "sandbox = \"warn\" does not see anything here: {why}"
                    ));
                }
                result
            }
        }
    }

    fn observer(&self) -> std::sync::MutexGuard<'_, Observer> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the system calls of a program cannot be observed, in words.
fn why_blind(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "its system calls are observed by another process already, such as another sandbox around this one".to_owned(),
        Some(libc::ENOSYS | libc::EINVAL) => {
            "this system does not have seccomp's user notification (Linux 5.5 and newer)".to_owned()
        }
        _ => format!("the system does not allow its system calls to be observed ({error})"),
    }
}

/// The folder of all artifacts, for advice: beside the one that the output of a stage is in.
fn store(output: &Path) -> Option<PathBuf> {
    output
        .ancestors()
        .map(|above| above.join("store"))
        .find(|store| store.is_dir())?
        .canonicalize()
        .ok()
}
