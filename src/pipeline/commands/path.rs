//! `pipeline path`: the paths of the artifacts of stages.

use std::process::ExitCode;

use anyhow::bail;

use super::output::{note, print_raw};
use super::project::Project;
use crate::cache::Record;
use crate::cli::{ManifestArguments, StageArguments};
use crate::instances::names_in_words;
use crate::pattern::Pattern;
use crate::plan::{Plan, PlanState};
use crate::stage_name::StageName;
use crate::state_words::state_reason;

pub(crate) fn run(arguments: &StageArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    let plan =
        project.plan_here(&project.with_inputs(&chosen), |name, _| chosen.contains(&name))?;
    if let [only] = chosen.as_slice()
        && is_asked_for_alone(only, &arguments.manifest)
    {
        return one(&project, &plan, only, &arguments.manifest);
    }
    let (mut lines, mut without, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for name in chosen {
        match plan.state(name).and_then(PlanState::result) {
            Some(record) if !project.cache.has_artifact(&record.output.digest) => {
                elsewhere.push(name);
            }
            Some(record) => {
                let path = project.cache.artifact(&record.output.digest).into_os_string();
                let name = name.as_str().as_bytes();
                lines.extend([name, b"\t", path.as_encoded_bytes(), b"\n"].concat());
            }
            None => without.push(name),
        }
    }
    print_raw(&lines)?;
    if !elsewhere.is_empty() {
        let pull = arguments.manifest.command_again("pull");
        let names = names_in_words(elsewhere);
        let text = format!("only on the remote: {names}; `{pull}` brings what is missing");
        match without.is_empty() {
            true => bail!(text),
            false => note(&text),
        }
    }
    if !without.is_empty() {
        bail!(
            "without an artifact for this manifest: {}; `{}` makes what is missing{}",
            names_in_words(without),
            arguments.manifest.command_again("run"),
            project.or_pull(&arguments.manifest.command_again("pull"))
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the arguments could mean only this stage, also if the matrix had other values.
fn is_asked_for_alone(name: &StageName, arguments: &ManifestArguments) -> bool {
    match arguments.stages().as_slice() {
        [] => name.point().next().is_none(),
        [pattern] => !pattern.contains('*') && Pattern::read(pattern).has_all_axes(name),
        _ => false,
    }
}

/// Only the path, for `$(pipeline path …)`.
fn one(
    project: &Project,
    plan: &Plan,
    name: &StageName,
    arguments: &ManifestArguments,
) -> anyhow::Result<ExitCode> {
    let state = plan.state(name);
    let is_here = |record: &&Record| project.cache.has_artifact(&record.output.digest);
    if let Some(record) = state.and_then(PlanState::result).filter(is_here) {
        let path = project.cache.artifact(&record.output.digest).into_os_string();
        print_raw(&[path.as_encoded_bytes(), b"\n"].concat())?;
        if let Some(state @ PlanState::Waiting { .. }) = state {
            note(&format!("'{name}' waits {}", state_reason(state)));
        }
        return Ok(ExitCode::SUCCESS);
    }
    match state {
        Some(PlanState::Remote(_)) => bail!(
            "the artifact of '{name}' is only on the remote; `{}` brings it",
            arguments.command("pull", &[name.as_str()])
        ),
        Some(state @ PlanState::Blocked(_)) => {
            bail!("'{name}' does not have a known artifact: {}", state_reason(state))
        }
        state => {
            let waits = matches!(state, Some(PlanState::Waiting { .. }));
            let reason = state.map(state_reason).unwrap_or_default();
            let reason = if waits { format!("it waits {reason}") } else { reason };
            bail!(
                "'{name}' does not have an artifact for this manifest: {reason}; `{}` makes it{}",
                arguments.command("run", &[name.as_str()]),
                project.or_pull(&arguments.command("pull", &[name.as_str()]))
            )
        }
    }
}
