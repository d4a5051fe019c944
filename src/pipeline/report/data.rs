//! All that is on the page, as data.

use std::collections::BTreeSet;

use serde::Serialize;

use super::contents::{Contents, Room};
use super::runs::{self, RunLine};
use super::stage::StageReport;
use super::subject::{ReportScope, Subject};
use crate::activity::Activities;
use crate::instances::MOST_NAMES;
use crate::state_words::ShownState;

/// With more metrics of all stages together, those of single classes (`test-accuracy/cat`) are left out.
const MOST_METRICS: usize = 30_000;

/// All that is on the page. The same for the same manifest and cache.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report {
    pub(super) experiment: String,
    about: Option<String>,
    /// The version of the program that made the report.
    version: &'static str,
    manifest: String,
    command: String,
    changes: Vec<String>,
    cache: String,
    /// Whether there are only stages, without what is in their artifacts.
    only_graph: bool,
    /// The manifest and the files that it includes.
    files: Vec<File>,
    /// What was asked before, newest first.
    runs: Vec<RunLine>,
    /// How states are shown, in the order in which stages are counted.
    states: Vec<StateWords>,
    /// The most instances of a stage that are named.
    most_names: usize,
    templates: Vec<Template>,
    stages: Vec<Entry>,
}

/// How a state is shown.
#[derive(Debug, Serialize)]
struct StateWords {
    name: &'static str,
    symbol: &'static str,
    /// What follows a number of stages.
    counted: &'static str,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    text: String,
}

/// A stage as the manifest has it.
#[derive(Debug, Serialize)]
struct Template {
    name: String,
    kind: &'static str,
    axes: Vec<String>,
    /// Its most important metrics, in their order.
    headline: &'static [&'static str],
}

/// A stage, or an instance of one.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    stage: StageReport,
    #[serde(flatten)]
    contents: Contents,
}

impl Report {
    /// Reads what is known of the stages of a plan.
    ///
    /// # Errors
    /// When it cannot be known which runs there were.
    pub(crate) fn of(
        subject: &Subject<'_>,
        activities: &Activities<'_>,
        scope: ReportScope,
    ) -> anyhow::Result<Self> {
        let Subject { manifest, plan, cache, .. } = subject;
        let (mut templates, mut stages): (Vec<Template>, Vec<Entry>) = (Vec::new(), Vec::new());
        let mut room = Room::for_stages(plan.iter().count());
        for (name, state) in plan.iter() {
            let Some(declaration) = manifest.stage(name) else { continue };
            let stage = StageReport::of(subject, activities, declaration, state);
            let contents = match scope {
                ReportScope::Graph => Contents::default(),
                ReportScope::All => Contents::read(cache, &stage, &mut room),
            };
            let axes: BTreeSet<&str> = name.point().map(|(axis, _)| axis).collect();
            match templates.iter_mut().find(|template| template.name == name.template()) {
                Some(template) => {
                    let all = template.axes.iter().map(String::as_str).chain(axes);
                    let all: BTreeSet<&str> = all.collect();
                    if all.len() > template.axes.len() {
                        template.axes = all.into_iter().map(str::to_owned).collect();
                    }
                }
                None => templates.push(Template {
                    name: name.template().to_owned(),
                    kind: declaration.stage.info().name,
                    axes: axes.into_iter().map(str::to_owned).collect(),
                    headline: declaration.stage.info().headline,
                }),
            }
            stages.push(Entry { stage, contents });
        }
        leave_out_classes(&mut stages);
        let files = manifest.sources.files();
        Ok(Self {
            experiment: manifest.experiment.name.clone(),
            about: manifest.experiment.about.clone(),
            version: env!("CARGO_PKG_VERSION"),
            manifest: manifest.path.display().to_string(),
            command: subject.command.clone(),
            changes: subject.changes.clone(),
            cache: cache.layout().root().display().to_string(),
            only_graph: scope == ReportScope::Graph,
            files: files
                .map(|(name, text)| File { name: name.to_owned(), text: text.into() })
                .collect(),
            runs: match scope {
                ReportScope::Graph => Vec::new(),
                ReportScope::All => runs::newest(cache, &manifest.experiment.name)?,
            },
            states: ShownState::ALL
                .map(|state| StateWords {
                    name: state.name(),
                    symbol: state.symbol(),
                    counted: state.counted(),
                })
                .into(),
            most_names: MOST_NAMES,
            templates,
            stages,
        })
    }
}

/// Leaves out the metrics of single classes where there are too many: a thousand classes in a hundred runs.
fn leave_out_classes(stages: &mut [Entry]) {
    let counts = stages.iter().filter_map(|entry| entry.stage.last_run.as_ref());
    if counts.map(|run| run.metrics.len()).sum::<usize>() <= MOST_METRICS {
        return;
    }
    for Entry { stage, contents } in stages {
        let Some(run) = &mut stage.last_run else { continue };
        let before = run.metrics.len();
        run.metrics.retain(|name, _| !name.contains('/'));
        if run.metrics.len() < before {
            contents.note("the metrics of single classes are not shown: there are too many");
        }
    }
}
