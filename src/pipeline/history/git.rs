//! What Git knows of a folder, asked in a thread of its own: in a large work tree that takes long.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;

/// How long Git may take for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the end of a run waits for it.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most of an answer that is kept.
const MOST_BYTES: usize = 4096;
/// Variables with which Git would read another repository, or would not take names of files literally.
const ENVIRONMENT: [&str; 8] = [
    "GIT_DIR",
    "GIT_COMMON_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
];

/// The commit of a work tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) commit: String,
    /// Whether a tracked file in the folder of the manifest is not as it was committed, or the manifest or a file that it includes is
    /// not, tracked or not. `None` if Git took too long.
    pub(crate) dirty: Option<bool>,
}

/// An answer that may come: first without what takes long.
pub(super) struct Question {
    answers: Receiver<Commit>,
    newest: Option<Commit>,
}

impl Question {
    /// Asks for the commit of a manifest. `files` are the manifest and those that it includes. Where the system has no thread for that, it
    /// is not known.
    pub(super) fn ask(files: Vec<PathBuf>) -> Self {
        let (answer, answers) = channel();
        let ask = move || {
            let commit = Commit::without_dirty(&files)?;
            answer.send(commit.clone()).ok()?;
            answer.send(Commit { dirty: is_dirty(&files), ..commit }).ok()
        };
        let _ = Builder::new().name("git".to_owned()).spawn(ask);
        Self { answers, newest: None }
    }

    /// The whole answer, if it came.
    pub(super) fn answer(&mut self) -> Option<Commit> {
        self.has_ended(Duration::ZERO).then(|| self.newest.take()).flatten()
    }

    /// What comes of the answer soon.
    pub(super) fn last_chance(mut self) -> Option<Commit> {
        self.has_ended(PATIENCE);
        self.newest
    }

    /// Whether the answer is whole after this time.
    fn has_ended(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(commit) => self.newest = Some(commit),
                Err(error) => return error == RecvTimeoutError::Disconnected,
            }
        }
    }
}

impl Commit {
    /// The commit of a manifest. `None` where there is no Git, or the manifest is not in a work tree with a commit.
    pub(crate) fn of(files: &[PathBuf]) -> Option<Self> {
        let commit = Self::without_dirty(files)?;
        Some(Self { dirty: is_dirty(files), ..commit })
    }

    fn without_dirty(files: &[PathBuf]) -> Option<Self> {
        let folder = files.first()?.parent()?;
        let answer = git(folder, ["rev-parse", "--verify", "HEAD"])?;
        let commit = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let is_name = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        (answer.status.success() && is_name).then_some(Self { commit, dirty: None })
    }
}

/// Whether something is not as it was committed, see [`Commit::dirty`]. Other untracked files do not count: results, notes and data.
/// They are not searched for either, which takes long where there are many.
fn is_dirty(files: &[PathBuf]) -> Option<bool> {
    let is_changed = |folder: &Path, paths: &[OsString]| {
        let words = ["status", "--porcelain", "--untracked-files=no", "--"].map(OsString::from);
        let answer = git(folder, words.iter().chain(paths))?;
        answer.status.success().then_some(!answer.stdout.is_empty())
    };
    if is_changed(files.first()?.parent()?, &[".".into()])? {
        return Some(true);
    }
    // A file may be behind links, and in another work tree.
    let mut folders = BTreeMap::<PathBuf, Vec<OsString>>::new();
    for file in files {
        let file = file.canonicalize().unwrap_or_else(|_| file.clone());
        if let (Some(folder), Some(name)) = (file.parent(), file.file_name()) {
            folders.entry(folder.to_owned()).or_default().push(name.to_owned());
        }
    }
    let mut is_known = true;
    for (folder, names) in folders {
        let words = ["ls-files", "--error-unmatch", "--"].map(OsString::from);
        let is_in_repository = || folder.ancestors().any(|above| above.join(".git").exists());
        match git(&folder, words.iter().chain(&names))?.status.code() {
            Some(0) if !is_changed(&folder, &names)? => {}
            Some(0 | 1) => return Some(true),
            _ if !is_in_repository() => return Some(true),
            // Git refuses, for example the work tree of another user.
            _ => is_known = false,
        }
    }
    is_known.then_some(false)
}

/// Asks Git, in a folder. `None` if there is no Git, or it takes too long.
fn git(folder: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Option<Output> {
    let mut command = Command::new("git");
    for name in ENVIRONMENT {
        command.env_remove(name);
    }
    command
        // A work tree of somebody else must not run programs.
        .args(["-c", "core.fsmonitor=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_OPTIONAL_LOCKS", "0")
        // Names of files are not patterns.
        .env("GIT_LITERAL_PATHSPECS", "1")
        .stderr(Stdio::null());
    let most_bytes = Some(MOST_BYTES);
    Deadline { limit: LIMIT, most_bytes, ..Deadline::default() }.run(command).ok()?
}
