//! `pipeline export`: an experiment as a folder for others, or the artifact of one stage.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use pipeline_stages::ArtifactType;
use pipeline_stages::text::in_short;

use super::output::{note, print};
use super::project::Project;
use crate::cache::{Record, now};
use crate::cli::{ExportArguments, ExportFormat};
use crate::export::{self, Crate, Exported, Weights};
use crate::instances::names_in_words;
use crate::manifest::nearest;
use crate::plan::PlanState;
use crate::stage_name::StageName;
use crate::visible;

/// The most links that a note names.
const MOST_LINKS: usize = 5;

pub(crate) fn run(arguments: &ExportArguments) -> anyhow::Result<ExitCode> {
    let manifest = arguments.manifest();
    ensure!(
        !arguments.folder().as_os_str().is_empty(),
        "name the folder to write, after the manifest"
    );
    let project = Project::open(&manifest)?;
    project.cache.pin_everything(note);
    let weights_as = match arguments.format {
        Some(ExportFormat::RoCrate) => return export_crate(&project, arguments),
        None if !is_of_one_stage(&project, arguments) => {
            check_stage(&project, arguments)?;
            return export_crate(&project, arguments);
        }
        None | Some(ExportFormat::Files) => Weights::AsTheyAre,
        Some(ExportFormat::Torch) => Weights::StateDict,
    };
    let Some((stage, folder)) = arguments.stage_and_folder() else {
        bail!("this format is of one artifact: pipeline export [MANIFEST] STAGE DIR");
    };
    export_artifact(&project, arguments, project.find(&stage)?, folder, weights_as)
}

/// Whether the words are a stage and a folder: they could be a folder and a stage too.
fn is_of_one_stage(project: &Project, arguments: &ExportArguments) -> bool {
    let is_stage = |word: &str| project.choose(&[word.to_owned()]).is_ok();
    arguments
        .stage_and_folder()
        .is_some_and(|(stage, folder)| is_stage(&stage) && !is_stage(&folder.to_string_lossy()))
}

/// Fails where a stage and a folder are meant, and the stage is misspelt: no name that exists is near to the folder.
fn check_stage(project: &Project, arguments: &ExportArguments) -> anyhow::Result<()> {
    let Some((stage, folder)) = arguments.stage_and_folder() else { return Ok(()) };
    let templates = || project.graph.order().map(StageName::template);
    let is_near =
        |word: &str| nearest(word.split('@').next().unwrap_or(word), templates()).is_some();
    match is_near(&stage) && !is_near(&folder.to_string_lossy()) {
        true => project.find(&stage).map(drop),
        false => Ok(()),
    }
}

/// Writes the artifact of a stage.
fn export_artifact(
    project: &Project,
    arguments: &ExportArguments,
    stage: &StageName,
    folder: &Path,
    weights_as: Weights,
) -> anyhow::Result<ExitCode> {
    let plan = project.plan_here(&project.with_inputs(&[stage]), |name, _| name == stage)?;
    let Some(PlanState::Fresh(record)) = plan.state(stage) else {
        let command = |verb| arguments.manifest().command(verb, &[stage.as_str()]);
        let pull = project.or_pull(&command("pull"));
        bail!("{stage} does not have a result: `{}` makes it{pull}", command("run"));
    };
    let has_weights = matches!(record.artifact, ArtifactType::Weights | ArtifactType::Model);
    ensure!(
        weights_as == Weights::AsTheyAre || has_weights,
        "{stage} produces {}; --format torch is for weights and models",
        record.artifact
    );
    let digest = &record.output.digest;
    let left_out = export::write_artifact(&project.cache, stage, digest, folder, weights_as)?;
    note_left_out(&left_out);
    print(&format!("{}: {stage}, {}\n", folder.display(), record.artifact))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the experiment.
fn export_crate(project: &Project, arguments: &ExportArguments) -> anyhow::Result<ExitCode> {
    let (manifest, folder) = (arguments.manifest_of_crate(), arguments.folder());
    let selected = project.select(&manifest.stages())?;
    let is_copied = |record: &Record| arguments.all || is_for_people(record);
    let plan = project.plan_here(&selected, |_, record| is_copied(record))?;
    let (mut results, mut missing) = (Vec::new(), Vec::new());
    for (stage, state) in plan.iter() {
        let Some(record) = state.finished() else {
            missing.push(stage);
            continue;
        };
        let folder = project.cache.artifact(&record.output.digest);
        let files = is_copied(record).then(|| files(&folder));
        results.push(Exported { stage: stage.clone(), record: record.clone(), files });
    }
    let run = manifest.command_again("run");
    if results.is_empty() {
        let pull = project.or_pull(&manifest.command_again("pull"));
        bail!("none of these stages has a result: `{run}` makes them{pull}");
    }
    if !missing.is_empty() {
        note(&format!("without a result, and left out: {} (`{run}`)", names_in_words(missing)));
    }
    let experiment = &project.manifest.experiment;
    let files = project.manifest.sources.files();
    let described = Crate {
        experiment: experiment.name.clone(),
        about: experiment.about.clone(),
        licence: arguments.license.clone(),
        command: arguments.command(),
        made: now(),
        manifests: files.map(|(name, text)| (name.to_owned(), text.into_owned())).collect(),
        results,
    };
    note_left_out(&export::write(&described, &project.cache, folder)?);
    let copied = described.results.iter().filter(|result| result.files.is_some()).count();
    let what = match (described.results.len(), copied) {
        (1, 0) => "1 stage, without its artifact".to_owned(),
        (1, _) => "1 stage, with its artifact".to_owned(),
        (all, copied) => format!("{all} stages, the artifacts of {copied} of them"),
    };
    print(&format!("{}: {what}\n", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn note_left_out(links: &[PathBuf]) {
    if !links.is_empty() {
        let names = links.iter().map(|path| visible::line(&path.to_string_lossy()).into_owned());
        note(&format!(
            "left out, because they lead out of their artifact: {}",
            in_short(names, MOST_LINKS)
        ));
    }
}

/// Whether an artifact is what people want to have: numbers, tables and plots. Data and weights are large.
fn is_for_people(record: &Record) -> bool {
    record.artifact == ArtifactType::Metrics
}

/// The files below a folder, with their sizes. Links are not among them.
fn files(top: &Path) -> Vec<(String, u64)> {
    let (mut found, mut open) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file()
                && let Ok(path) = path.strip_prefix(top)
            {
                found.push((path.to_string_lossy().into_owned(), metadata.len()));
            }
        }
    }
    found.sort();
    found
}
