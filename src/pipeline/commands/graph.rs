//! `pipeline graph`: the stages and their edges, for people and for other programs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::plan::{state_json, state_name, state_reason};
use super::{Project, print, print_json, print_raw};
use crate::cli::{GraphArguments, GraphFormat};
use crate::format;
use crate::manifest::Stage;
use crate::plan::{Plan, PlanState};
use crate::stage_name::StageName;

pub(crate) fn run(arguments: &GraphArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let plan = project.plan(&project.select(&[])?);
    match arguments.format {
        GraphFormat::Text => print(&text(&project, &plan))?,
        GraphFormat::Dot => print_raw(dot(&project, &plan).as_bytes())?,
        GraphFormat::Mermaid => print_raw(mermaid(&project, &plan).as_bytes())?,
        GraphFormat::Json => print_json(&json(&project, &plan))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn symbol(state: &PlanState) -> &'static str {
    match state {
        PlanState::Fresh(_) => "●",
        PlanState::Dirty { .. } => "○",
        PlanState::Waiting { .. } => "◌",
        PlanState::Blocked(_) => "⊘",
    }
}

/// Layer by layer: in each, the stages that could run side by side.
fn text(project: &Project, plan: &Plan) -> String {
    let mut rows = Vec::new();
    for (layer, names) in project.graph.layers().into_iter().enumerate() {
        for (index, name) in names.into_iter().enumerate() {
            let (Some(declaration), Some(state)) = (project.manifest.stage(name), plan.state(name))
            else {
                continue;
            };
            let number = if index == 0 { (layer + 1).to_string() } else { String::new() };
            rows.push(vec![
                number,
                format!("{} {name}", symbol(state)),
                declaration.stage.info().name.to_owned(),
                edges(declaration),
            ]);
        }
    }
    let experiment = &project.manifest.experiment;
    let mut text = experiment.name.clone();
    if let Some(about) = &experiment.about {
        let _ = write!(text, ": {about}");
    }
    let mut legend =
        "● fresh   ○ dirty: must run   ◌ waiting: runs if its inputs change".to_owned();
    for (name, state) in plan.iter() {
        if let PlanState::Blocked(_) = state {
            let _ = write!(legend, "\n⊘ blocked: {name}, {}", state_reason(state));
        }
    }
    format!("{text}\n\n{}\n{legend}\n", format::table(&rows))
}

/// What a stage reads: `← data (dataset), labels: noisy`.
fn edges(declaration: &Stage) -> String {
    let mut texts = Vec::new();
    for (port, connections) in &declaration.inputs {
        for connection in connections {
            let from = connection.from.as_str();
            let port = connection.name.as_deref().unwrap_or(port);
            texts.push(if from == port { from.to_owned() } else { format!("{port}: {from}") });
        }
    }
    if texts.is_empty() { String::new() } else { format!("← {}", texts.join(", ")) }
}

fn each_edge<'a>(project: &'a Project, mut each: impl FnMut(&'a StageName, &'a StageName, &str)) {
    for declaration in &project.manifest.stages {
        for (port, connection) in declaration.connections() {
            let label = connection.name.as_deref().unwrap_or(port);
            each(&connection.from, &declaration.name, label);
        }
    }
}

fn dot(project: &Project, plan: &Plan) -> String {
    let mut text = format!("digraph \"{}\" {{\n", project.manifest.experiment.name);
    text.push_str("  rankdir = LR;\n  node [shape = box, style = \"rounded,filled\", fontname = \"Helvetica\"];\n");
    text.push_str("  edge [fontname = \"Helvetica\", fontsize = 10, color = \"#555555\"];\n");
    for (name, state) in plan.iter() {
        let kind = project.manifest.stage(name).map_or("", |stage| stage.stage.info().name);
        let colour = match state {
            PlanState::Fresh(_) => "#d9f2d9",
            PlanState::Dirty { .. } => "#ffe0b3",
            PlanState::Waiting { .. } => "#f0f0f0",
            PlanState::Blocked(_) => "#f8d7da",
        };
        let _ = writeln!(
            text,
            "  \"{name}\" [label = \"{name}\\n{kind}\", fillcolor = \"{colour}\", tooltip = \"{}\"];",
            state_name(state)
        );
    }
    each_edge(project, |from, to, port| {
        let _ = writeln!(text, "  \"{from}\" -> \"{to}\" [label = \"{port}\"];");
    });
    text.push_str("}\n");
    text
}

/// Nodes have numbers for ids: a stage may be called `end` or `graph`, which mean something in Mermaid.
fn mermaid(project: &Project, plan: &Plan) -> String {
    let mut text = "flowchart LR\n".to_owned();
    let id = |name: &StageName| {
        format!("s{}", project.manifest.stages.position(name).unwrap_or_default())
    };
    for (name, state) in plan.iter() {
        let kind = project.manifest.stage(name).map_or("", |stage| stage.stage.info().name);
        let _ = writeln!(
            text,
            "  {}[\"{name}<br><small>{kind}</small>\"]:::{}",
            id(name),
            state_name(state)
        );
    }
    each_edge(project, |from, to, port| {
        let _ = writeln!(text, "  {} -->|{port}| {}", id(from), id(to));
    });
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
