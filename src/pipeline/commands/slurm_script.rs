//! `pipeline slurm-script`: what would be submitted to Slurm for a stage.

use std::io::Write;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail};

use super::output::print;
use super::project::Project;
use crate::cli::SlurmScriptArguments;
use crate::execute;
use crate::manifest::{LOCAL, SchedulerSettings, unknown_executor};
use crate::plan::PlanState;

pub(crate) fn run(arguments: &SlurmScriptArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let [pattern] =
        arguments.manifest.stages().try_into().map_err(|_| {
            anyhow::anyhow!("name one stage: `pipeline slurm-script MANIFEST STAGE`")
        })?;
    let name = project.find(&pattern)?;
    let stage = project.manifest.stage(name).context("it was just found")?;
    let typed = project.executor(arguments.executor.as_deref())?;
    let executor = stage.execution.executor.clone().or(typed).filter(|name| name != LOCAL);
    let Some(executor) = executor else {
        bail!("'{name}' runs here: it says no executor, and neither does --executor");
    };
    let Some(settings) = project.executors.get(&executor) else {
        let (title, help) = unknown_executor(&executor, &project.executors);
        bail!("{title}; {help}");
    };
    if !matches!(settings.scheduler, SchedulerSettings::Slurm(_)) {
        bail!("the executor '{executor}' is not one of Slurm");
    }
    let plan = project.plan(&project.with_inputs(&[name]));
    let Some(key) = plan.state(name).and_then(PlanState::key) else {
        bail!("the key of '{name}' is not known before its inputs have results: run these first");
    };
    let mut script = execute::slurm_script(&project.cache, stage, &executor, settings, &key)?;
    if !arguments.test {
        print(&script.with_options()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut child = script
        .command
        .arg("--test-only")
        .stdin(Stdio::piped())
        .spawn()
        .context("sbatch does not start")?;
    child.stdin.take().context("a pipe")?.write_all(script.plain().as_bytes())?;
    // It has said what is wrong, or when the job would start.
    let status = child.wait().context("cannot wait for sbatch")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
