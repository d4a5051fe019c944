//! What is known of a stage without a look into its artifact: the manifest, the plan and its last record.

use std::collections::BTreeMap;

use pipeline_stages::ArtifactType;
use pipeline_stages::message::{Metrics, RanOn};
use serde::Serialize;
use serde_json::{Map, Value};

use super::subject::Subject;
use crate::activity::{Activities, Activity, FailedRun};
use crate::cache::Record;
use crate::digest::Digest;
use crate::key::{KeyPart, StageKey};
use crate::manifest::Stage;
use crate::plan::PlanState;
use crate::progress::{Interrupted, Running};
use crate::stage_name::StageName;
use crate::state_words::{ShownState, state_reason};
use crate::usage::Usage;

/// What is known of a stage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct StageReport {
    pub(crate) stage: StageName,
    /// Its name in the manifest.
    pub(crate) template: String,
    /// Its value on each axis.
    pub(crate) point: BTreeMap<String, String>,
    pub(crate) kind: &'static str,
    /// The version of the kind's results.
    pub(crate) kind_version: u32,
    pub(crate) output: ArtifactType,
    pub(crate) state: &'static str,
    /// The same, or what goes on beyond it: running, interrupted, failed. As `status` shows it.
    pub(crate) status: &'static str,
    /// Why it must run, or cannot; empty if it is fresh.
    pub(crate) why: String,
    /// Where it is in its file.
    pub(crate) line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    pub(crate) inputs: Vec<InputReport>,
    /// The seed, where it draws random numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// The parameters that enter the key, with defaults filled in.
    pub(crate) parameters: Map<String, Value>,
    /// Whether its result follows from labels that are known to be right.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) uses_clean_labels: bool,
    /// The key, where it is known already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<StageKey>,
    /// What any process does for it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) running: Option<Box<Running>>,
    /// How its last run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<FailedRun>,
    /// How its last run was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interrupted: Option<InterruptedReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_run: Option<RunReport>,
}

/// A run that was stopped or killed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct InterruptedReport {
    /// The last sign of life: seconds since 1970, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// How far it was: `epoch 9/20, 45 %`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<String>,
    /// Whether the next run continues from there, or from a little earlier.
    has_checkpoint: bool,
}

impl InterruptedReport {
    fn of(known: Option<Box<Interrupted>>) -> Self {
        match known {
            Some(known) => Self {
                at: Some(known.at),
                reached: Some(known.reached()).filter(|reached| !reached.is_empty()),
                host: Some(known.owner.host),
                has_checkpoint: known.has_checkpoint,
            },
            // Only its checkpoint is known.
            None => Self { at: None, host: None, reached: None, has_checkpoint: true },
        }
    }
}

/// What a stage reads.
#[derive(Debug, Serialize)]
pub(crate) struct InputReport {
    port: String,
    from: StageName,
}

/// The last run of a stage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RunReport {
    /// Whether its result is that of the stage as it is now.
    pub(crate) is_current: bool,
    pub(crate) key: StageKey,
    /// The version of its kind then.
    kind_version: Option<u32>,
    seed: Option<u64>,
    /// Why it ran.
    reason: String,
    /// When it ended: seconds since 1970, UTC.
    finished: u64,
    seconds: f64,
    host: String,
    ran_on: Option<RanOn>,
    usage: Usage,
    /// The version of the program.
    version: String,
    pub(crate) artifact: Digest,
    path: String,
    files: u64,
    bytes: u64,
    pub(crate) metrics: Metrics,
    /// The artifacts that it read, by port.
    #[serde(skip)]
    pub(crate) inputs: BTreeMap<String, Digest>,
}

impl StageReport {
    /// What is known of a stage in this state.
    pub(crate) fn of(
        subject: &Subject<'_>,
        activities: &Activities<'_>,
        declaration: &Stage,
        state: &PlanState,
    ) -> Self {
        let Stage { name, stage, .. } = declaration;
        let info = stage.info();
        let activity = activities.of(state);
        let status = ShownState::of(state, activity.as_ref()).name();
        let (running, failed, interrupted) = match activity {
            Some(Activity::Running(running)) => (Some(running), None, None),
            Some(Activity::Failed(failed)) => (None, Some(failed), None),
            Some(Activity::Interrupted(known)) => (None, None, Some(InterruptedReport::of(known))),
            Some(Activity::Queued(_)) | None => (None, None, None),
        };
        let inputs = declaration.connections().map(|(port, connection)| InputReport {
            port: connection.name.as_deref().unwrap_or(port).to_owned(),
            from: connection.from.clone(),
        });
        Self {
            stage: name.clone(),
            template: name.template().to_owned(),
            point: name.point().map(|(axis, value)| (axis.to_owned(), value.to_owned())).collect(),
            kind: info.name,
            kind_version: info.version,
            output: stage.output(),
            state: ShownState::planned(state).name(),
            status,
            why: state_reason(state),
            line: declaration.line,
            file: declaration.file.as_ref().map(|file| file.name.clone()),
            inputs: inputs.collect(),
            seed: info.seeded.then_some(declaration.seed),
            parameters: stage.key_parameters(),
            uses_clean_labels: declaration.uses_clean_labels,
            key: state.key(),
            running,
            failed,
            interrupted,
            last_run: last_run(subject, name, state),
        }
    }
}

/// A stage's own result, or an older one that no longer counts.
fn last_run(subject: &Subject<'_>, name: &StageName, state: &PlanState) -> Option<RunReport> {
    let (is_current, record) = match state.result() {
        Some(record) => (true, record.clone()),
        None => {
            let experiment = &subject.manifest.experiment.name;
            (false, subject.cache.last_record(experiment, name.as_str())?)
        }
    };
    let path = subject.cache.artifact(&record.output.digest).display().to_string();
    let Record {
        key,
        parts,
        reason,
        finished,
        seconds,
        host,
        ran_on,
        usage,
        version,
        output,
        metrics,
        ..
    } = record;
    let kind_version = parts.iter().find_map(|part| match part {
        KeyPart::Kind { version, .. } => Some(*version),
        _ => None,
    });
    let seed = parts.iter().find_map(|part| match part {
        KeyPart::Seed { seed } => Some(*seed),
        _ => None,
    });
    let inputs = parts.iter().filter_map(|part| match part {
        KeyPart::Input { port, digest, .. } => Some((port.clone(), *digest)),
        _ => None,
    });
    let inputs = inputs.collect();
    Some(RunReport {
        is_current,
        key,
        kind_version,
        seed,
        reason: reason.to_string(),
        finished,
        seconds,
        host,
        ran_on,
        usage,
        version,
        artifact: output.digest,
        path,
        files: output.extent.files,
        bytes: output.extent.bytes,
        metrics,
        inputs,
    })
}
