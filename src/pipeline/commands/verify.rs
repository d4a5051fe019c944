//! `pipeline verify`: whether artifacts still match their digests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pipeline_stages::path_text::PathText;
use serde_json::{Value, json};

use super::checking::with_meter;
use super::output::{note, print, print_json};
use super::project::{Project, check_exists, open_cache};
use super::{verify_rerun, verify_restore};
use crate::cache::{Bucket, Cache, Check, Checked, Damage, Unreadable, Verdict, Withdrawn};
use crate::cli::{ManifestArguments, VerifyArguments};
use crate::digest::Digest;
use crate::format;
use crate::instances::names_in_words;
use crate::plan::{Plan, PlanState};
use crate::reason::Reason;
use crate::remote::SharedCache;
use crate::stage_name::StageName;
use crate::table;

/// How many files of one artifact are named.
const FILES_NAMED: usize = 8;

pub(crate) fn run(arguments: &VerifyArguments) -> anyhow::Result<ExitCode> {
    let manifest = &arguments.manifest;
    let stages = manifest.stages();
    let takes_stages = !arguments.all && !arguments.restore && arguments.rerun.is_none();
    if let Some(stage) = stages.first().filter(|_| !takes_stages) {
        bail!(
            "'{stage}' cannot be named here: --all, --restore and --rerun do not take other stages"
        );
    }
    if let Some(stage) = &arguments.rerun {
        return verify_rerun::run(manifest, stage, arguments);
    }
    if manifest.named().is_none() && !takes_stages {
        let folder = std::env::current_dir().context("no current folder")?;
        let cache = open_cache(manifest.with.cache.as_deref(), &folder)?;
        check_exists(&cache)?;
        cache.pin_everything(note);
        if arguments.restore {
            return verify_restore::run(&cache, None, arguments.json);
        }
        return check(&cache, everything(&cache), None, arguments.json);
    }
    let project = Project::open(manifest)?;
    project.cache.pin_everything(note);
    if arguments.restore {
        let experiment = Some(project.manifest.experiment.name.as_str());
        let experiment = experiment.filter(|_| !arguments.all);
        return verify_restore::run(&project.cache, experiment, arguments.json);
    }
    let selection = match arguments.all {
        true => {
            check_exists(&project.cache)?;
            everything(&project.cache)
        }
        false => {
            let chosen = project.choose(&stages)?;
            let plan = project.plan(&project.with_inputs(&chosen));
            fresh(&project, &chosen, &plan, manifest)
        }
    };
    check(&project.cache, selection, project.shared.as_deref(), arguments.json)
}

/// What is to be checked.
struct Selection {
    /// For the last line.
    subject: String,
    /// Artifacts, each with the stages that produced it.
    artifacts: Vec<(Digest, Vec<String>)>,
    /// Whether those that are intact are listed too.
    list_intact: bool,
    /// Files in the place of records that are damaged.
    damaged_records: Vec<PathBuf>,
    /// Records, and folders of such, that cannot be read.
    unread: Vec<PathBuf>,
    /// Further lines of the report.
    remarks: Vec<String>,
    /// How to make again what is damaged or missing.
    remedy: String,
}

/// The artifacts of the fresh stages, and of those that would be if their artifacts were not missing.
fn fresh(
    project: &Project,
    chosen: &[&StageName],
    plan: &Plan,
    arguments: &ManifestArguments,
) -> Selection {
    let mut artifacts: Vec<(Digest, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    let (mut without, mut elsewhere, mut damaged_records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unread, mut of_other_versions) = (Vec::new(), Vec::new());
    let states = chosen.iter().filter_map(|&name| Some((name, plan.state(name)?)));
    for (name, state) in states {
        let digest = match state {
            PlanState::Fresh(record) => record.output.digest,
            PlanState::Dirty { reason: Reason::ArtifactGone { digest }, .. } => *digest,
            PlanState::Dirty { reason: Reason::RecordDamaged, key, .. } => {
                damaged_records.push(project.cache.layout().record(key));
                continue;
            }
            PlanState::Dirty { reason: Reason::RecordInaccessible, key, .. } => {
                unread.push(project.cache.layout().record(key));
                continue;
            }
            PlanState::Dirty { reason: Reason::RecordOfOtherVersion, key, .. } => {
                of_other_versions.push(project.cache.layout().record(key));
                continue;
            }
            PlanState::Remote(_) => {
                elsewhere.push(name);
                continue;
            }
            _ => {
                without.push(name);
                continue;
            }
        };
        let place = *places.entry(digest).or_insert_with(|| {
            artifacts.push((digest, Vec::new()));
            artifacts.len() - 1
        });
        artifacts[place].1.push(name.to_string());
    }
    let remark = |names: Vec<&StageName>, why: &str| {
        let names = Some(names).filter(|names| !names.is_empty());
        names.map(|names| format!("not checked, as {why}: {}", names_in_words(names)))
    };
    let remarks = [remark(without, "not fresh"), remark(elsewhere, "only on the remote")];
    let others = of_other_versions.iter().map(|file| of_other_version(&project.cache, file));
    let remarks = remarks.into_iter().flatten().chain(others).collect();
    Selection {
        subject: project.manifest.experiment.name.clone(),
        artifacts,
        list_intact: true,
        damaged_records,
        unread,
        remarks,
        remedy: format!("`{}` makes again what is missing now", arguments.command_again("run")),
    }
}

/// Everything in the store, and everything that is recorded.
fn everything(cache: &Cache) -> Selection {
    let (records, unreadable) = cache.records();
    let of = |wanted| unreadable.iter().filter(move |(_, why)| *why == wanted);
    let damaged_records = of(Unreadable::Damaged).map(|(file, _)| file.clone()).collect();
    let mut unread: Vec<_> = of(Unreadable::Inaccessible).map(|(file, _)| file.clone()).collect();
    let remarks =
        of(Unreadable::OtherVersion).map(|(file, _)| of_other_version(cache, file)).collect();
    let stored = cache.artifacts().unwrap_or_else(|_| {
        unread.push(cache.layout().bucket(Bucket::Store));
        Vec::new()
    });
    let stored = stored.into_iter().map(|digest| (digest, Vec::new()));
    let mut artifacts: BTreeMap<Digest, Vec<String>> = stored.collect();
    for record in records {
        let names = artifacts.entry(record.output.digest).or_default();
        let name = record.name();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Selection {
        subject: cache.layout().root().display().to_string(),
        artifacts: artifacts.into_iter().collect(),
        list_intact: false,
        damaged_records,
        unread,
        remarks,
        remedy: "the next run that needs it makes again what is missing now".to_owned(),
    }
}

fn of_other_version(cache: &Cache, record: &Path) -> String {
    let record = in_cache(cache, record);
    format!("the record {record} is of another version of pipeline: not checked")
}

/// The verdict on an artifact, and the stages that produced it.
struct Row {
    digest: Digest,
    names: Vec<String>,
    verdict: Verdict,
}

fn check(
    cache: &Cache,
    mut selection: Selection,
    shared: Option<&SharedCache>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let digests = selection.artifacts.iter().map(|(digest, _)| *digest);
    let Checked { verdicts, withdrawn } = with_meter(Check::new(cache, digests));
    let rows = selection.artifacts.iter().zip(verdicts);
    let rows =
        rows.map(|((_, names), (digest, verdict))| Row { digest, names: names.clone(), verdict });
    let rows: Vec<Row> = rows.collect();
    let withdrawn = remark_withdrawn(withdrawn, &mut selection.remarks);
    if let Some(shared) = shared.filter(|_| !withdrawn.is_empty()) {
        let names = withdrawn.iter().map(|one| SharedCache::record_name(&one.record.key));
        selection.remarks.push(format!(
            "what was pushed of these is still on {}; others get it until somebody removes it there: {}",
            shared.address(),
            names.collect::<Vec<_>>().join(", ")
        ));
    }
    selection.damaged_records.retain(|file| {
        let name = in_cache(cache, file);
        selection.remarks.push(match cache.quarantine_record(file) {
            // Another process wrote it again meanwhile, or is about to.
            Ok(None) => return false,
            Ok(Some(place)) => {
                format!("the record {name} is damaged; moved to {}", in_cache(cache, &place))
            }
            Err(error) => format!("the record {name} is damaged; {error:#}"),
        });
        true
    });
    let unread = selection.unread.iter();
    let unread =
        unread.map(|path| format!("{} cannot be read: not checked", in_cache(cache, path)));
    selection.remarks.extend(unread);
    let sound =
        is_sound(&rows) && selection.damaged_records.is_empty() && selection.unread.is_empty();
    if as_json {
        print_json(&to_json(cache, &selection, &rows, &withdrawn, sound))?;
    } else {
        print(&to_text(cache, &selection, &rows, started.elapsed()))?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what no longer counts, as it was made from what is damaged.
fn remark_withdrawn(
    withdrawn: anyhow::Result<Vec<Withdrawn>>,
    remarks: &mut Vec<String>,
) -> Vec<Withdrawn> {
    match withdrawn {
        Ok(withdrawn) => {
            let lines = withdrawn.iter().map(|Withdrawn { record, reason }| {
                format!("the record of {} was withdrawn: {reason}", record.name())
            });
            remarks.extend(lines);
            if !withdrawn.is_empty() {
                remarks.push(
                    "if you know that the damage came later, `verify --restore` brings these records back"
                        .to_owned(),
                );
            }
            withdrawn
        }
        Err(error) => {
            remarks.push(format!(
                "what was made from what is damaged still counts, as the cache cannot be changed: {error:#}"
            ));
            Vec::new()
        }
    }
}

fn in_cache(cache: &Cache, path: &Path) -> String {
    path.strip_prefix(cache.layout().root()).unwrap_or(path).display().to_string()
}

fn is_sound(rows: &[Row]) -> bool {
    rows.iter().all(|row| matches!(row.verdict, Verdict::Intact(_)))
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Intact(_) => "intact",
        Verdict::Damaged(_) => "damaged",
        Verdict::Gone => "gone",
        Verdict::Unreadable(_) => "unreadable",
    }
}

fn to_text(cache: &Cache, selection: &Selection, rows: &[Row], took: Duration) -> String {
    let listed = rows
        .iter()
        .filter(|row| selection.list_intact || !matches!(row.verdict, Verdict::Intact(_)));
    let listed: Vec<&Row> = listed.collect();
    let table = table::plain(&listed.iter().map(|row| cells(cache, row)).collect::<Vec<_>>());
    let mut text = String::new();
    for (line, row) in table.lines().zip(&listed) {
        text.push_str(&format!("{line}\n"));
        for file in damaged_files(&row.verdict) {
            text.push_str(&format!("  {file}\n"));
        }
    }
    if !listed.is_empty() {
        text.push('\n');
    }
    for remark in &selection.remarks {
        text.push_str(&format!("{remark}\n"));
    }
    let bytes = rows.iter().map(|row| match row.verdict {
        Verdict::Intact(extent) => extent.bytes,
        _ => 0,
    });
    let bytes = format::bytes(bytes.sum());
    let took = format::seconds(took.as_secs_f64());
    let counts = counts(rows);
    text.push_str(&format!("{}: {counts}; {bytes} read in {took}\n", selection.subject));
    if rows.iter().any(|row| is_missing(&row.verdict)) {
        text.push_str(&format!("{}\n", selection.remedy));
    }
    text
}

/// Whether a run finds nothing in the place of the artifact, and makes it again.
fn is_missing(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Gone | Verdict::Damaged(Damage { moved: Ok(_), .. }))
}

fn counts(rows: &[Row]) -> String {
    let count = |name: &str| rows.iter().filter(|row| verdict_name(&row.verdict) == name).count();
    let names = ["intact", "damaged", "gone", "unreadable"];
    let counts = names.map(|name| (count(name), name)).into_iter();
    let parts =
        counts.filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}"));
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "nothing to check".to_owned() } else { parts.join(", ") }
}

/// The line of an artifact.
fn cells(cache: &Cache, row: &Row) -> Vec<String> {
    let remark = match &row.verdict {
        Verdict::Intact(extent) => format::bytes(extent.bytes),
        Verdict::Damaged(damage) => moved(cache, damage),
        Verdict::Gone => "its record exists, the artifact is missing".to_owned(),
        Verdict::Unreadable(message) => message.clone(),
    };
    let names = match row.names.is_empty() {
        true => "(no record)".to_owned(),
        false => row.names.join(", "),
    };
    vec![names, verdict_name(&row.verdict).to_owned(), row.digest.short(), remark]
}

/// What is wrong with the files of an artifact, a line each.
fn damaged_files(verdict: &Verdict) -> Vec<String> {
    let Verdict::Damaged(damage) = verdict else { return Vec::new() };
    let Some(files) = &damage.files else {
        return vec!["which of its files is damaged is not known".to_owned()];
    };
    let named = files.iter().take(FILES_NAMED);
    let mut lines: Vec<String> =
        named.map(|one| format!("{}: {}", one.path.display(), one.how)).collect();
    let more = files.len().saturating_sub(FILES_NAMED);
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

fn moved(cache: &Cache, damage: &Damage) -> String {
    match &damage.moved {
        Ok(path) => format!("moved to {}", in_cache(cache, path)),
        Err(message) => format!("left where it is: {message}"),
    }
}

fn to_json(
    cache: &Cache,
    selection: &Selection,
    rows: &[Row],
    withdrawn: &[Withdrawn],
    sound: bool,
) -> Value {
    let rows = rows.iter().map(|row| {
        let mut value = json!({
            "artifact": row.digest,
            "stages": row.names,
            "result": verdict_name(&row.verdict),
        });
        match &row.verdict {
            Verdict::Damaged(damage) => {
                value["files"] = json!(damage.files);
                value["quarantine"] = json!(damage.moved.as_deref().ok().map(PathText));
                value["left-because"] = json!(damage.moved.as_ref().err());
            }
            Verdict::Unreadable(message) => value["message"] = json!(message),
            Verdict::Intact(extent) => value["bytes"] = json!(extent.bytes),
            Verdict::Gone => {}
        }
        value
    });
    let artifacts: Vec<Value> = rows.collect();
    let withdrawn = withdrawn.iter().map(|Withdrawn { record, reason }| {
        json!({ "key": record.key, "stage": record.name(), "reason": reason })
    });
    let withdrawn: Vec<Value> = withdrawn.collect();
    json!({
        "cache": PathText(cache.layout().root()),
        "sound": sound,
        "artifacts": artifacts,
        "withdrawn": withdrawn,
        "damaged-records": selection.damaged_records,
        "remarks": selection.remarks,
    })
}
