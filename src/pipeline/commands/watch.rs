//! `pipeline watch`: the plan, or a run, again whenever the manifest or something that it reads has another content.
//!
//! The system reports that something was touched; whether that counts is decided by what the plan depends on: the bytes of
//! the manifest and of what it includes, and the digests of files and folders outside of the cache. So nothing that
//! a run writes by itself starts another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use pipeline_stages::text::in_short;
use signal_hook::consts::{SIGHUP, SIGINT, SIGSTOP, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use super::errors::{INTERRUPTED, report_error};
use super::output::note;
use super::plan::{self, Shown};
use super::project::{Project, nearest_manifest};
use super::run;
use crate::cli::{ManifestArguments, RunArguments, WatchArguments};
use crate::execute::is_ignored;
use crate::facts::CacheFacts;
use crate::file_watch::{FileWatch, Targets};
use crate::manifest;

/// Most names in the line about a change.
const MOST_NAMED: usize = 3;

pub(crate) fn run(arguments: &WatchArguments) -> anyhow::Result<ExitCode> {
    let how = &arguments.how;
    ensure!(how.force.is_empty() && !how.dry_run, "watch does not take --force or --dry-run");
    let path = match how.manifest.named() {
        Some(named) => named.to_owned(),
        None => nearest_manifest(&how.manifest.stages())?,
    };
    // A name that is wrong would be waited for without an end.
    path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    let how = RunArguments { manifest: how.manifest.of(path.clone()), ..how.clone() };
    let signals = Listener::start()?;
    let mut targets = Targets::default();
    targets.paths.insert(std::path::absolute(&path).context("no current folder")?);
    let mut shown: Option<Contents> = None;
    // Those since the last thing that was shown: what began to change before a look counts, too.
    let mut watches: Vec<FileWatch> = Vec::new();
    let mut has_waited = false;
    loop {
        // First, so that nothing is missed that changes after the look. Again each time: folders may have been replaced.
        watches.push(FileWatch::on(&targets)?);
        let look = Look::take(&path, &how.manifest);
        let ignored = look.targets.ignored.clone().or_else(|| targets.ignored.clone());
        let wanted = Targets { ignored, ..look.targets };
        if wanted != targets {
            targets = wanted;
            continue;
        }
        let is_news = shown.as_ref() != Some(&look.contents);
        // What somebody writes just now is not shown half; but there may be one who always writes.
        if is_news && shown.is_some() && !has_waited && FileWatch::wait_if_changed(&watches) {
            has_waited = true;
            continue;
        }
        has_waited = false;
        watches.drain(..watches.len() - 1);
        if !is_news {
            watches.iter().try_for_each(FileWatch::wait)?;
            continue;
        }
        if let Some(shown) = &shown {
            note(&format!("\n{} changed", changed(shown, &look.contents, &targets)));
        }
        shown = Some(look.contents);
        let is_over = match arguments.run {
            true => signals.around(|| show(&how, true)),
            false => {
                show(&how, false);
                false
            }
        };
        if is_over {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        note(&format!("\nwatching {}; Ctrl-C ends it", in_words(&path, &targets)));
    }
}

/// Plans or runs.
fn show(how: &RunArguments, runs: bool) {
    let result = match runs {
        true => run::run(how),
        false => plan::show(&Shown {
            manifest: &how.manifest,
            force: &[],
            machine: &how.machine,
            remote: false,
            all: how.all,
            json: false,
            exit_code: false,
        }),
    };
    if let Err(error) = result {
        report_error(error);
    }
}

/// What a plan depends on: per file, what identifies its content.
type Contents = BTreeMap<PathBuf, Vec<Vec<u8>>>;

/// What there is at one moment.
struct Look {
    contents: Contents,
    targets: Targets,
}

impl Look {
    fn take(path: &Path, arguments: &ManifestArguments) -> Self {
        let mut contents = Contents::new();
        for (file, bytes) in manifest::files(path) {
            contents.entry(file).or_default().extend(bytes);
        }
        let mut targets = Targets::default();
        // A mistake depends on the files of the manifest alone. It is shown by whoever plans.
        let project = Project::open(arguments);
        if let Ok(project) = &project {
            let selected = project.select(&arguments.stages()).unwrap_or_default();
            let facts = CacheFacts::look(&project.cache, &project.manifest, &selected);
            for (file, content) in facts.outside_contents(&project.manifest) {
                contents.entry(file).or_default().push(content.into_bytes());
            }
            targets.ignored = Some(project.cache.layout().root().to_owned());
        }
        targets.paths = contents.keys().cloned().collect();
        Self { contents, targets }
    }
}

/// The names of what differs.
fn changed(old: &Contents, new: &Contents, targets: &Targets) -> String {
    let differs = |path: &&PathBuf| old.get(*path) != new.get(*path);
    let mut paths: Vec<&PathBuf> = old.keys().chain(new.keys()).filter(differs).collect();
    paths.sort();
    paths.dedup();
    // What a changed manifest does not read any more is not a change of its own.
    let is_watched = |path: &&PathBuf| targets.paths.contains(*path) && old.contains_key(*path);
    let own: Vec<&PathBuf> = paths.iter().copied().filter(is_watched).collect();
    let paths = if own.is_empty() { paths } else { own };
    in_short(paths.into_iter().map(|path| name(path)), MOST_NAMED)
}

/// A path as somebody in this folder would write it.
fn name(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    below.unwrap_or_else(|| path.to_owned()).display().to_string()
}

fn in_words(path: &Path, targets: &Targets) -> String {
    match targets.paths.len() - 1 {
        0 => path.display().to_string(),
        1 => format!("{} and what it reads", path.display()),
        others => format!("{} and the {others} files and folders that it reads", path.display()),
    }
}

/// Ends the program when somebody asks for it: at once while it waits or plans, and after a run has stopped in its own way.
struct Listener {
    runs: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Listener {
    fn start() -> anyhow::Result<Self> {
        let (runs, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let optional = [SIGHUP, SIGTSTP].into_iter().filter(|signal| !is_ignored(*signal));
        let wanted: Vec<_> = [SIGINT, SIGTERM].into_iter().chain(optional).collect();
        let mut signals = Signals::new(wanted).context("cannot listen to signals")?;
        let listener = Self { runs: Arc::clone(&runs), asked: Arc::clone(&asked) };
        let listen = move || {
            for signal in &mut signals {
                match (signal, runs.load(Ordering::SeqCst)) {
                    // A run stops what it has started, and then this process.
                    (SIGTSTP, true) => {}
                    (SIGTSTP, false) => drop(signal_hook::low_level::raise(SIGSTOP)),
                    (_, true) => asked.store(true, Ordering::SeqCst),
                    (_, false) => std::process::exit(INTERRUPTED.into()),
                }
            }
        };
        let started = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
        started.context("cannot start a thread")?;
        Ok(listener)
    }

    /// Does something that ends by itself when somebody asks for it. Returns whether somebody did.
    fn around(&self, work: impl FnOnce()) -> bool {
        self.runs.store(true, Ordering::SeqCst);
        work();
        self.runs.store(false, Ordering::SeqCst);
        self.asked.load(Ordering::SeqCst)
    }
}
