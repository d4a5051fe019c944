//! What Git knows of a folder, asked in a thread of its own: in a large work tree that takes long.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long Git may take for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a run waits for it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(5);
/// The most of an answer that is read.
const MOST_BYTES: u64 = 4096;

/// The commit of a work tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) commit: String,
    /// Whether a file of the folder is not as it was committed, or a manifest in it never was. `None` if Git took too long to say.
    pub(crate) dirty: Option<bool>,
}

/// An answer that may come.
pub(super) struct Question(Receiver<Option<Commit>>);

impl Question {
    /// Asks for the commit of a folder.
    pub(super) fn ask(folder: PathBuf) -> Self {
        let (answer, question) = channel();
        std::thread::spawn(move || answer.send(Commit::of(&folder)));
        Self(question)
    }

    /// The answer, if it came.
    pub(super) fn answer(&self) -> Option<Commit> {
        self.0.try_recv().ok().flatten()
    }

    /// The answer, if it comes soon.
    pub(super) fn last_chance(&self) -> Option<Commit> {
        self.0.recv_timeout(PATIENCE).ok().flatten()
    }
}

impl Commit {
    /// `None` where there is no Git, or the folder is not in a work tree with a commit.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let commit = git(folder, &["rev-parse", "--verify", "HEAD"])?.trim().to_owned();
        let is_name = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Of the files that Git does not know, only those beside the manifest that may be manifests count, whether it ignores them
        // or not: results, notes and data lie there, too. Folders are not looked into.
        let has = |arguments: &[&str]| Some(!git(folder, arguments)?.is_empty());
        let dirty = || match has(&["status", "--porcelain", "--untracked-files=no", "--", "."])? {
            true => Some(true),
            false => has(&["ls-files", "--others", "--", ":(glob)*.toml"]),
        };
        is_name.then(|| Self { commit, dirty: dirty() })
    }
}

/// What Git prints, if it succeeds in time.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    // Not a pipe: Git would wait where nobody reads a long answer.
    let mut output = tempfile::tempfile().ok()?;
    let mut child = Command::new("git")
        // A work tree of somebody else must not run programs.
        .args(["-c", "core.fsmonitor=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .stdout(output.try_clone().ok()?)
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(INTERVAL),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    output.rewind().ok()?;
    output.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}
