//! `pipeline watch`: the plan, or a run, again whenever the manifest or something that it reads has another content.
//!
//! The system reports that something was touched; whether that counts is decided by what the plan depends on: the bytes of
//! the manifest and of what it includes, and the digests of files and folders outside of the cache. So nothing that
//! a run writes by itself starts another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use pipeline_stages::text::in_short;

use super::errors::report_error;
use super::output::note;
use super::plan::{self, Shown};
use super::project::{Project, nearest_manifest};
use super::run;
use crate::cli::{ManifestArguments, RunArguments, WatchArguments};
use crate::execute::RunSupervisor;
use crate::facts::CacheFacts;
use crate::file_watch::{FileWatch, Targets};
use crate::manifest;
use crate::signals::{self, INTERRUPTED};

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
    // Obeyed at once, but for a stage that runs: that is stopped first, in the way of a run.
    signals::hear(&[])?;
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
        let mut supervisor = RunSupervisor::new();
        show(&how, arguments.run.then_some(&mut supervisor));
        if supervisor.has_stopped() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        note(&format!("\nwatching {}; Ctrl-C ends it", in_words(&path, &targets)));
    }
}

/// Plans, or runs with a supervisor.
fn show(how: &RunArguments, supervisor: Option<&mut RunSupervisor>) {
    let result = match supervisor {
        Some(supervisor) => run::run_whole(how, supervisor),
        None => plan::show(&Shown {
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
