//! `pipeline cancel`: ends the jobs of stages, in the queues of their schedulers or while they run.

use std::collections::HashMap;
use std::process::ExitCode;

use super::output::{note, print};
use super::project::Project;
use crate::cli::StageArguments;
use crate::execute;
use crate::key::StageKey;
use crate::plan::PlanState;
use crate::stage_name::StageName;

pub(crate) fn run(arguments: &StageArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let chosen = project.choose(&arguments.manifest.stages())?;
    let plan = project.plan(&project.with_inputs(&chosen));
    let mut keys: Vec<StageKey> = Vec::new();
    let mut names: HashMap<StageKey, &StageName> = HashMap::new();
    for name in chosen {
        let Some(key) = plan.state(name).and_then(PlanState::key) else { continue };
        // Stages that do the same have one job.
        names.entry(key).or_insert_with(|| {
            keys.push(key);
            name
        });
    }
    let ends = execute::cancel(&project.cache, &project.executors, &keys);
    for (key, end) in &ends {
        match end {
            Ok(what) => print(&format!("{}: {what}\n", names[key]))?,
            Err(why) => note(&format!("{}: {why}", names[key])),
        }
    }
    if ends.is_empty() {
        note(
            "none of these stages has a job, as they are now (jobs for other values: `pipeline status` has the command)",
        );
    }
    let is_done = ends.iter().all(|(_, end)| end.is_ok());
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
