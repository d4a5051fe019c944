//! `pipeline graph`: the stages and their edges, for people and for other programs.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{print_coloured, print_json, print_raw};
use super::plan::state_json;
use super::project::Project;
use super::report;
use crate::cli::{GraphArguments, GraphFormat};
use crate::drawing::{self, Drawing, Links, Node};
use crate::instances::{self, Row, names_in_words};
use crate::manifest::Stage;
use crate::plan::{Plan, PlanState};
use crate::report::ReportScope;
use crate::screen;
use crate::stage_name::StageName;
use crate::state_words::{ShownState, state_reason};
use crate::table::Table;
use crate::width;

pub(crate) fn run(arguments: &GraphArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let plan = project.plan(&project.select(&arguments.manifest.stages())?);
    let most = instances::most(arguments.all);
    match arguments.format {
        GraphFormat::Text => print_coloured(&text(&project, &plan, most))?,
        GraphFormat::Dot => print_raw(dot(&project, &plan, most).as_bytes())?,
        GraphFormat::Mermaid => print_raw(mermaid(&project, &plan, most).as_bytes())?,
        GraphFormat::Svg => print_raw(svg(&project, &plan, arguments.all).as_bytes())?,
        GraphFormat::Html => {
            let page = report::page_of(&project, &plan, &arguments.manifest, ReportScope::Graph)?;
            print_raw(page.as_bytes())?;
        }
        GraphFormat::Json => print_json(&json(&project, &plan))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Layer by layer: in each, the stages that could run side by side.
fn text(project: &Project, plan: &Plan, most: usize) -> String {
    let mut rows = Vec::new();
    for (layer, names) in project.graph.layers().into_iter().enumerate() {
        let states = names
            .into_iter()
            .filter_map(|name| Some((name, ShownState::planned(plan.state(name)?))));
        for (index, row) in instances::rows(states, most).into_iter().enumerate() {
            let number = if index == 0 { (layer + 1).to_string() } else { String::new() };
            let (name, state, counts, members) = match &row {
                Row::One(name, state) => (name.as_str(), *state, String::new(), vec![*name]),
                Row::Many(template, states) => {
                    let (members, states): (Vec<_>, Vec<_>) = states.iter().copied().unzip();
                    // Together, they have the state of the one that matters most.
                    let Some(&state) = states.iter().max() else { continue };
                    let counts = format!("{}  ", ShownState::in_words(states));
                    (*template, state, counts, members)
                }
            };
            let stages: Vec<_> =
                members.into_iter().filter_map(|name| project.manifest.stage(name)).collect();
            let kind = stages.first().map_or("", |stage| stage.stage.info().name).to_owned();
            let edges = match stages.as_slice() {
                [only] => edges_of_one(only),
                _ => edges_of_many(stages),
            };
            let row = [number, format!("{} {name}", state.symbol()), kind, counts + &edges];
            rows.push(row.to_vec());
        }
    }
    let experiment = &project.manifest.experiment;
    let mut text = experiment.name.clone();
    if let Some(about) = &experiment.about {
        let _ = write!(text, ": {about}");
    }
    let mut legend = legend(screen::of_output().map(|size| size.width));
    for (name, state) in plan.iter() {
        if let PlanState::Blocked(_) = state {
            let _ = write!(legend, "\n⊘ blocked: {name}, {}", state_reason(state));
        }
    }
    let table = Table::new(&rows).names(1).states(1).ends_in_words().for_output();
    format!("{text}\n\n{table}\n{legend}\n")
}

/// What the symbols mean: in a line, or one each where the terminal is too narrow for that.
fn legend(room: Option<usize>) -> String {
    let parts = ["● fresh", "○ dirty: must run", "◌ waiting: runs if its inputs change"];
    let line = parts.join("   ");
    let is_wide = room.is_none_or(|room| width::of(&line) <= room);
    if is_wide { line } else { parts.join("\n") }
}

/// What a stage reads, a port each: `← data, labels: noisy@rate=0.9, of: 140 of evaluate`.
fn edges_of_one(stage: &Stage) -> String {
    let mut ports: Vec<(&str, Vec<&StageName>)> = Vec::new();
    for (port, connection) in stage.connections() {
        let port = connection.name.as_deref().unwrap_or(port);
        match ports.last_mut() {
            Some((last, names)) if *last == port => names.push(&connection.from),
            _ => ports.push((port, vec![&connection.from])),
        }
    }
    edges(ports.into_iter().map(|(port, names)| (port, names_in_words(names))))
}

/// What instances of a stage read, each once: `← data, labels: noisy`.
fn edges_of_many<'p>(stages: impl IntoIterator<Item = &'p Stage>) -> String {
    let mut seen = HashSet::new();
    let connections = stages.into_iter().flat_map(Stage::connections);
    let ports = connections.map(|(port, connection)| {
        (connection.name.as_deref().unwrap_or(port), connection.from.template())
    });
    let ports = ports.filter(|edge| seen.insert(*edge));
    edges(ports.map(|(port, from)| (port, from.to_owned())))
}

fn edges<'p>(ports: impl Iterator<Item = (&'p str, String)>) -> String {
    let texts = ports.map(|(port, from)| match from == port {
        true => from,
        false => format!("{port}: {from}"),
    });
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { String::new() } else { format!("← {}", texts.join(", ")) }
}

/// What is planned, for pictures and other programs: not what goes on now.
fn drawing<'p>(project: &'p Project, plan: &'p Plan, most: usize) -> Drawing<'p> {
    Drawing::of(&project.manifest, plan, most, ShownState::planned)
}

/// All instances of a stage are one node, unless `all` of them are shown.
fn svg(project: &Project, plan: &Plan, all: bool) -> String {
    let most = if all { usize::MAX } else { 1 };
    let drawing = drawing(project, plan, most);
    drawing::svg(&drawing, &project.manifest.experiment.name, Links::None)
}

fn dot(project: &Project, plan: &Plan, most: usize) -> String {
    let drawing = drawing(project, plan, most);
    let mut text = format!("digraph \"{}\" {{\n", project.manifest.experiment.name);
    text.push_str("  rankdir = LR;\n  node [shape = box, style = \"rounded,filled\", fontname = \"Helvetica\"];\n");
    text.push_str("  edge [fontname = \"Helvetica\", fontsize = 10, color = \"#555555\"];\n");
    for Node { name, kind, counts, state, .. } in &drawing.nodes {
        let colour = match state {
            ShownState::Fresh | ShownState::Remote => "#d9f2d9",
            ShownState::Dirty
            | ShownState::Interrupted
            | ShownState::Running
            | ShownState::Queued => "#ffe0b3",
            ShownState::Waiting => "#f0f0f0",
            ShownState::Blocked | ShownState::Failed => "#f8d7da",
        };
        let below = counts.as_ref().map_or(String::new(), |counts| format!("\\n{counts}"));
        let _ = writeln!(
            text,
            "  \"{name}\" [label = \"{name}\\n{kind}{below}\", fillcolor = \"{colour}\", tooltip = \"{}\"];",
            state.name()
        );
    }
    for (from, to, port) in drawing.edges {
        let (from, to) = (drawing.nodes[from].name, drawing.nodes[to].name);
        let _ = writeln!(text, "  \"{from}\" -> \"{to}\" [label = \"{port}\"];");
    }
    text.push_str("}\n");
    text
}

/// Nodes have numbers for ids: a stage may be called `end` or `graph`, which mean something in Mermaid.
fn mermaid(project: &Project, plan: &Plan, most: usize) -> String {
    let drawing = drawing(project, plan, most);
    let mut text = "flowchart LR\n".to_owned();
    for (id, Node { name, kind, counts, state, .. }) in drawing.nodes.iter().enumerate() {
        let below = counts.as_ref().map_or(String::new(), |counts| format!("<br>{counts}"));
        let _ = writeln!(
            text,
            "  s{id}[\"{name}<br><small>{kind}{below}</small>\"]:::{}",
            state.name()
        );
    }
    for (from, to, port) in drawing.edges {
        let _ = writeln!(text, "  s{from} -->|{port}| s{to}");
    }
    text.push_str("  classDef fresh fill:#d9f2d9,stroke:#4a8f4a,color:#000\n");
    text.push_str("  classDef dirty fill:#ffe0b3,stroke:#b37400,color:#000\n");
    text.push_str("  classDef waiting fill:#f0f0f0,stroke:#888888,color:#000\n");
    text.push_str("  classDef blocked fill:#f8d7da,stroke:#b02a37,color:#000\n");
    text
}

fn json(project: &Project, plan: &Plan) -> Value {
    let layers = project.graph.layers().into_iter().enumerate();
    let layers: HashMap<&StageName, usize> = layers
        .flat_map(|(layer, names)| names.into_iter().map(move |name| (name, layer)))
        .collect();
    let stages = plan.iter().filter_map(|(name, state)| {
        let declaration = project.manifest.stage(name)?;
        let inputs: Vec<Value> = declaration
            .connections()
            .map(|(port, connection)| json!({ "port": port, "name": connection.name, "from": connection.from }))
            .collect();
        let mut stage = state_json(state);
        stage["stage"] = json!(name);
        stage["kind"] = json!(declaration.stage.info().name);
        stage["output"] = json!(declaration.stage.output());
        stage["layer"] = json!(layers.get(name));
        stage["inputs"] = json!(inputs);
        Some(stage)
    });
    json!({ "experiment": project.manifest.experiment.name, "stages": stages.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_fits_to_the_terminal() {
        assert_eq!(legend(None).lines().count(), 1);
        assert_eq!(legend(Some(80)).lines().count(), 1);
        for room in 36..80 {
            assert!(legend(Some(room)).lines().all(|line| width::of(line) <= room), "{room}");
        }
    }
}
