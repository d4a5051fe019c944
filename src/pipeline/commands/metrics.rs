//! `pipeline metrics`: what the stages measured.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Project, print, print_json};
use crate::cli::ReportArguments;
use crate::format;
use crate::plan::{Plan, PlanState};

pub(crate) fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let project = Project::open(&arguments.manifest)?;
    let plan = project.plan(&project.select(&[])?);
    if arguments.json {
        print_json(&to_json(&plan))?;
    } else {
        print(&to_text(&project, &plan))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(plan: &Plan) -> Value {
    let mut all = Map::new();
    for (name, state) in plan.iter() {
        if let PlanState::Fresh(record) = state {
            all.insert(name.to_string(), json!(record.metrics));
        }
    }
    Value::Object(all)
}

fn to_text(project: &Project, plan: &Plan) -> String {
    let mut rows = Vec::new();
    let mut without = Vec::new();
    for (name, state) in plan.iter() {
        let PlanState::Fresh(record) = state else {
            without.push(name.as_str());
            continue;
        };
        for (index, (metric, value)) in record.metrics.iter().enumerate() {
            let stage = if index == 0 { name.to_string() } else { String::new() };
            rows.push(vec![stage, metric.clone(), format::metric(*value)]);
        }
    }
    let mut text = format::table(&rows);
    if !without.is_empty() {
        text.push_str(&format!(
            "\nno result yet: {} (`pipeline run {}`)\n",
            without.join(", "),
            project.manifest.path.display()
        ));
    }
    text
}
