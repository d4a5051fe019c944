//! `pipeline report`: a page about an experiment.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::ensure;
use pipeline_stages::ArtifactType;

use super::output::{note, print, print_raw};
use super::project::Project;
use super::whole_file;
use crate::activity::Activities;
use crate::cache::now;
use crate::cli::{ManifestArguments, ReportArguments};
use crate::drawing::{self, Drawing, Links};
use crate::format;
use crate::plan::Plan;
use crate::report::{self, MOST_STAGES, Report, ReportScope, Subject};
use crate::state_words::ShownState;

/// What opens a file as a click on it does.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

pub(crate) fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let ReportArguments { manifest, output, open } = arguments;
    let is_printed = output.as_os_str() == "-";
    ensure!(!(is_printed && *open), "--open needs a file: name one with --output");
    let project = Project::open(manifest)?;
    ensure_writable(&project, output)?;
    let selected = project.select(&manifest.stages())?;
    // Data is large, and a page without its images has everything else.
    let plan = project.plan_here(&selected, |_, record| !is_data(record.artifact))?;
    let page = page_of(&project, &plan, manifest, ReportScope::All)?;
    if is_printed {
        print_raw(page.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    whole_file::write(output, page.as_bytes())?;
    let count = plan.iter().count();
    let stages = if count == 1 { "1 stage".to_owned() } else { format!("{count} stages") };
    print(&format!("{}: {stages}, {}\n", output.display(), format::bytes(page.len() as u64)))?;
    if *open {
        open_file(output);
    }
    Ok(ExitCode::SUCCESS)
}

fn is_data(artifact: ArtifactType) -> bool {
    matches!(artifact, ArtifactType::Dataset | ArtifactType::Directory | ArtifactType::File)
}

/// Refuses to write where the page would replace what it is about.
fn ensure_writable(project: &Project, output: &Path) -> anyhow::Result<()> {
    let Ok(target) = output.canonicalize() else { return Ok(()) };
    let files = project.manifest.sources.files().map(|(name, _)| Path::new(name).canonicalize());
    let root = project.cache.layout().root().canonicalize();
    let is_own = files.flatten().any(|file| file == target)
        || root.is_ok_and(|root| target.starts_with(root));
    ensure!(
        !is_own,
        "{} is a file of the manifest or of the cache: name another one with --output",
        output.display()
    );
    Ok(())
}

/// The page about the stages of a plan.
///
/// # Errors
/// When there are too many of them.
pub(super) fn page_of(
    project: &Project,
    plan: &Plan,
    arguments: &ManifestArguments,
    scope: ReportScope,
) -> anyhow::Result<String> {
    let count = plan.iter().count();
    ensure!(
        count <= MOST_STAGES,
        "{count} stages are too many for a page, which has at most {MOST_STAGES}: name some of them, or choose with --only"
    );
    let subject = Subject {
        manifest: &project.manifest,
        plan,
        cache: &project.cache,
        command: arguments.command_again("run"),
        changes: arguments.changes(),
    };
    let activities = Activities::look(&project.cache);
    let drawing = Drawing::of(&project.manifest, plan, 1, |state| {
        ShownState::of(state, activities.of(state).as_ref())
    });
    let title = format!("The stages of {}", project.manifest.experiment.name);
    let graph = drawing::svg(&drawing, &title, Links::WithinPage);
    let made = now();
    Ok(report::page(&Report::of(&subject, &activities, scope)?, &graph, made))
}

/// Opens a file, as far as the machine can. It is written already: a failure is not an error.
fn open_file(path: &Path) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut command = Command::new(OPENER);
    command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let problem = match command.status() {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    note(&format!("`{OPENER}` could not open {}: {problem}", path.display()));
}
