//! `pipeline verify --rerun`: whether a rerun of a stage reproduces its recorded result.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use pipeline_stages::message::RanOn;
use pipeline_stages::metrics::Number;
use pipeline_stages::path_text::PathText;
use serde_json::{Value, json};

use super::checking::with_meter;
use super::output::{note, print, print_json};
use super::project::Project;
use crate::cache::{Check, Checked, Damage, Listing, Record, Verdict, WorkFolder};
use crate::cli::{GpuNumbers, ManifestArguments, VerifyArguments};
use crate::compare::{self, Comparison, MetricPair, MetricSource, RerunVerdict, RunMetrics};
use crate::diagnostic::Mistakes;
use crate::digest::Digest;
use crate::execute::{Outputs, Rerun, RerunEnd, Share, as_recorded, set_threads};
use crate::format;
use crate::gpus::{self, Gpu, Gpus};
use crate::manifest::{Misfit, RunLimits, Stage};
use crate::plan::{Plan, PlanState};
use crate::progress::{self, Style};
use crate::signals::INTERRUPTED;
use crate::stage_name::StageName;
use crate::state_words::state_reason;
use crate::{table, usage};

pub(crate) fn run(
    manifest: &ManifestArguments,
    stage: &str,
    arguments: &VerifyArguments,
) -> anyhow::Result<ExitCode> {
    let project = Project::open_as_written(manifest)?;
    let name = project.find(stage)?;
    let inputs = project.graph.inputs(name);
    let is_read = |other: &StageName, _: &_| other == name || inputs.contains(&other);
    let plan = project.plan_here(&project.select(&[name.to_string()])?, is_read)?;
    let record = recorded(&plan, name, manifest)?;
    check_inputs(&project, &plan, name, manifest)?;
    let Some(declaration) = project.manifest.stage(name) else { bail!("no stage '{name}'") };
    let mut wanted = declaration.clone();
    set_threads(&mut wanted);
    // Before it is handed anything: what is recorded goes before what a run would give it now.
    let recorded = as_recorded(&wanted.execution.execution, record.ran_on.as_ref());
    wanted.execution.execution = recorded;
    let gpus = arguments.gpus.as_ref().map(|GpuNumbers(numbers)| numbers.clone());
    let typed = RunLimits { gpus, ..RunLimits::default() };
    let gpus = hand_out(&project, typed, &mut wanted)?;
    let rerun = Rerun {
        manifest: &project.manifest,
        cache: &project.cache,
        declaration,
        record: &record,
        execution: wanted.execution.execution,
        gpus,
    };
    let mut reporter = progress::reporter(Style::Auto);
    let (scratch, end) = rerun.run(|input| fresh(&plan, input).cloned(), &mut *reporter)?;
    match end {
        RerunEnd::Stopped => {
            if arguments.json {
                print_json(&json!({ "stage": name, "result": "stopped" }))?;
            }
            Ok(ExitCode::from(INTERRUPTED))
        }
        RerunEnd::Failed { message, log } => {
            if arguments.json {
                print_json(
                    &json!({ "stage": name, "result": "failed", "message": message, "log": log }),
                )?;
            }
            Ok(ExitCode::FAILURE)
        }
        RerunEnd::Ran(outputs) => {
            let comparison = compare(&project, &record, &scratch, &outputs, arguments.tolerance);
            let kept = keep(arguments, scratch, &project, &record)?;
            let report = RerunReport { name, record: &record, outputs: &outputs, comparison, kept };
            match arguments.json {
                true => print_json(&report.json(arguments.tolerance))?,
                false => print(&report.text(arguments.tolerance))?,
            }
            Ok(match report.comparison.result {
                RerunVerdict::Different => ExitCode::FAILURE,
                RerunVerdict::Reproduced | RerunVerdict::WithinTolerance => ExitCode::SUCCESS,
            })
        }
    }
}

/// Writes into a stage what a run would hand it. Returns its GPUs.
fn hand_out(project: &Project, typed: RunLimits, stage: &mut Stage) -> anyhow::Result<Vec<Gpu>> {
    let gpus = match Share::may_use_gpus(stage) {
        true => gpus::find(|text| note(&text)),
        false => Gpus::default(),
    };
    let (jobs, limits) = (project.jobs.map(usize::from), project.limits(typed));
    let share = Share::of_this_machine(jobs, &limits, gpus);
    share.check()?;
    share.hand_out_alone(stage).map_err(|mistake| {
        let mistake = Misfit { stage: stage.name.clone(), mistake: *mistake };
        let mistakes = Misfit::mistakes([mistake]);
        Mistakes::new(project.manifest.sources.clone(), mistakes).into()
    })
}

fn fresh<'a>(plan: &'a Plan, name: &StageName) -> Option<&'a Record> {
    match plan.state(name) {
        Some(PlanState::Fresh(record)) => Some(record),
        _ => None,
    }
}

/// What is recorded of the stage as the manifest has it now.
fn recorded(plan: &Plan, name: &StageName, manifest: &ManifestArguments) -> anyhow::Result<Record> {
    let first = format!("`{}` makes it", manifest.command("run", &[name.as_str()]));
    match plan.state(name) {
        Some(PlanState::Fresh(record)) => Ok((**record).clone()),
        Some(PlanState::Waiting { on, .. }) => {
            let reasons = on.iter().map(|input| {
                let state = plan.state(input);
                format!("'{input}' ({})", state.map(state_reason).unwrap_or_default())
            });
            let reasons: Vec<String> = reasons.collect();
            bail!("the inputs of '{name}' are not fresh: {}; {first} and them", reasons.join(", "))
        }
        Some(state @ PlanState::Blocked(_)) => {
            bail!("'{name}' cannot run: {}", state_reason(state))
        }
        state => {
            let reason = state.map(state_reason).unwrap_or_default();
            bail!("'{name}' has no result to compare with: {reason}; {first}")
        }
    }
}

/// Refuses to compare where the rerun would read something other than the recorded run did.
fn check_inputs(
    project: &Project,
    plan: &Plan,
    name: &StageName,
    manifest: &ManifestArguments,
) -> anyhow::Result<()> {
    let mut producers: BTreeMap<Digest, &StageName> = BTreeMap::new();
    for input in project.graph.inputs(name) {
        if let Some(record) = fresh(plan, input) {
            producers.insert(record.output.digest, input);
        }
    }
    let Checked { verdicts, withdrawn } =
        with_meter(Check::new(&project.cache, producers.keys().copied()));
    let names: Vec<String> = withdrawn?.iter().map(|one| one.record.name()).collect();
    let withdrawn = match names.is_empty() {
        true => String::new(),
        false => format!("; what was made from it no longer counts: {}", names.join(", ")),
    };
    for (digest, verdict) in verdicts {
        let what = match verdict {
            Verdict::Intact(_) => continue,
            Verdict::Gone => "is gone".to_owned(),
            Verdict::Damaged(Damage { moved: Ok(_), .. }) => {
                "was damaged, and is in quarantine now".to_owned()
            }
            Verdict::Damaged(Damage { moved: Err(why), .. }) => format!("is damaged: {why}"),
            Verdict::Unreadable(message) => format!("cannot be read: {message}"),
        };
        let producer = producers.get(&digest).map_or("", |producer| producer.as_str());
        bail!(
            "the input '{producer}' of '{name}' {what}{withdrawn}; `{}` makes it again where it is missing",
            manifest.command("run", &[name.as_str()])
        );
    }
    Ok(())
}

fn compare(
    project: &Project,
    record: &Record,
    scratch: &WorkFolder,
    outputs: &Outputs,
    tolerance: Option<f64>,
) -> Comparison {
    let same_bytes = outputs.listing.digest() == record.output.digest;
    let artifact = project.cache.artifact(&record.output.digest);
    let numbers = |folder: &std::path::Path| {
        compare::numbers(&std::fs::read(folder.join("metrics.json")).unwrap_or_default())
    };
    let before = RunMetrics { reported: record.metrics.clone(), file: numbers(&artifact) };
    let now = RunMetrics { reported: outputs.metrics.clone(), file: numbers(&scratch.output()) };
    let metrics = compare::pairs(&before, &now);
    let files = match same_bytes {
        true => Some(Vec::new()),
        false => {
            let place = project.cache.layout().listing(&record.output.digest);
            let kept = Listing::read(&place, &record.output.digest);
            let whole = |listing: &Listing| listing.digest() == record.output.digest;
            let recorded = kept.or_else(|| Listing::of(&artifact).ok().filter(whole));
            recorded.map(|recorded| recorded.differences(&outputs.listing))
        }
    };
    Comparison { result: compare::verdict(same_bytes, &metrics, tolerance), files, metrics }
}

fn keep(
    arguments: &VerifyArguments,
    scratch: WorkFolder,
    project: &Project,
    record: &Record,
) -> anyhow::Result<Option<PathBuf>> {
    arguments.keep.then(|| project.cache.keep_rerun(&scratch, &record.key)).transpose()
}

/// What is shown at the end.
struct RerunReport<'a> {
    name: &'a StageName,
    record: &'a Record,
    outputs: &'a Outputs,
    comparison: Comparison,
    kept: Option<PathBuf>,
}

impl RerunReport<'_> {
    fn text(&self, tolerance: Option<f64>) -> String {
        let Self { name, record, outputs, comparison, .. } = self;
        let digest = record.output.digest.short();
        let now = outputs.listing.digest().short();
        let mut text = match (comparison.result, tolerance) {
            (RerunVerdict::Reproduced, _) => format!("{name}: reproduced: same digest {digest}\n"),
            (RerunVerdict::WithinTolerance, Some(tolerance)) => format!(
                "{name}: within tolerance: other bytes ({now}, recorded {digest}), and no metric differs \
                 by more than {tolerance}\n"
            ),
            _ => format!("{name}: not reproduced: digest {now}, recorded {digest}\n"),
        };
        text.push_str(&table::plain(&[
            place("recorded", record.ran_on.as_ref(), record.seconds, record.usage.part),
            place("now", outputs.ran_on.as_ref(), outputs.seconds, None),
        ]));
        if comparison.result != RerunVerdict::Reproduced {
            text.push_str(&self.files());
            text.push_str(&metrics_table(&comparison.metrics));
        }
        if let Some(kept) = &self.kept {
            text.push_str(&format!("\nkept in {}\n", kept.display()));
        }
        text
    }

    fn files(&self) -> String {
        let Some(files) = &self.comparison.files else {
            return "\nthe recorded artifact is damaged or gone: `pipeline verify` shows more\n"
                .to_owned();
        };
        let rows =
            files.iter().map(|one| vec![format!("  {}", one.path.display()), one.how.to_string()]);
        format!("\nfiles that differ\n{}", table::plain(&rows.collect::<Vec<_>>()))
    }

    fn json(&self, tolerance: Option<f64>) -> Value {
        let Self { name, record, outputs, comparison, kept } = self;
        let mut value = json!(comparison);
        value["stage"] = json!(name);
        value["key"] = json!(record.key);
        value["tolerance"] = json!(tolerance);
        value["recorded"] = json!({
            "artifact": record.output.digest,
            "ran-on": record.ran_on,
            "seconds": record.seconds,
            "host": record.host,
            "finished": record.finished,
        });
        if let Some(part) = record.usage.part {
            value["recorded"]["share"] = json!(part);
        }
        value["rerun"] = json!({
            "artifact": outputs.listing.digest(),
            "ran-on": outputs.ran_on,
            "seconds": outputs.seconds,
            "kept": kept.as_deref().map(PathText),
        });
        value
    }
}

fn place(when: &str, ran_on: Option<&RanOn>, seconds: f64, part: Option<f64>) -> Vec<String> {
    let place = ran_on.map_or(String::new(), |ran_on| format!("on {ran_on} "));
    vec![format!("  {when}"), format!("{place}in {}", usage::time_in_words(seconds, part))]
}

fn metrics_table(metrics: &[MetricPair]) -> String {
    if metrics.is_empty() {
        return "\nit does not have metrics\n".to_owned();
    }
    let number = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) => Number(value).name().map_or_else(|| value.to_string(), str::to_owned),
    };
    let rows = metrics.iter().map(|pair| {
        let name = match pair.source {
            MetricSource::Record => pair.name.clone(),
            MetricSource::File => format!("metrics.json: {}", pair.name),
        };
        let apart = pair.distance().map_or("-".to_owned(), format::metric);
        vec![format!("  {name}"), number(pair.recorded), number(pair.rerun), apart]
    });
    let header = ["metrics", "recorded", "now", "apart"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    format!("\n{}", table::plain(&rows))
}
