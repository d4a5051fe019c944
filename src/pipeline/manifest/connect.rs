//! The edges between stages: every port leads to a stage that is there and fits, and none in a circle.

use std::collections::{HashMap, HashSet};

use pipeline_stages::{KINDS, Port};

use super::hint::{did_you_mean, listed};
use super::ports::Wire;
use super::stage::Draft;
use crate::diagnostic::Mistake;
use crate::graph::{Cycle, Graph};
use crate::stage_name::StageName;

/// Reports every wire that leads nowhere, to a stage that does not fit, or in a circle. Gives the graph,
/// if there is one.
pub(super) fn check(drafts: &[Draft<'_>], mistakes: &mut Vec<Mistake>) -> Option<Graph> {
    let by_name: HashMap<_, _> = drafts.iter().map(|draft| (draft.text, draft)).collect();
    let mut edges = Vec::new();
    for draft in drafts {
        let missing = draft.missing.iter();
        mistakes.extend(missing.map(|port| missing_port(draft, port, drafts)));
        for wire in &draft.wires {
            match by_name.get(wire.text) {
                None => mistakes.push(missing_stage(draft, wire, drafts)),
                Some(from) if from.text == draft.text => mistakes.push(own_input(draft, wire)),
                Some(from) => match misfit(draft, wire, from, drafts) {
                    // Not an edge: a circle through it would go with it.
                    Some(mistake) => mistakes.push(mistake),
                    None => edges.extend(from.name.clone().zip(draft.name.clone())),
                },
            }
        }
    }
    let names = drafts.iter().filter_map(|draft| draft.name.clone());
    Graph::new(names, edges)
        .map_err(|cycles| {
            mistakes.extend(cycles.iter().map(|cycle| cycle_mistake(cycle, &by_name)))
        })
        .ok()
}

fn missing_port(draft: &Draft<'_>, port: &Port, drafts: &[Draft<'_>]) -> Mistake {
    let name = port.name();
    Mistake::at(draft.span.clone(), format!("stage '{}' needs the port '{name}'", draft.text))
        .help(format!("add a line {name} = \"...\"; {}", fitting(draft, port, drafts)))
}

fn missing_stage(draft: &Draft<'_>, wire: &Wire<'_>, drafts: &[Draft<'_>]) -> Mistake {
    let others = || drafts.iter().map(|other| other.text).filter(|other| *other != draft.text);
    let title = format!("there is no stage '{}'", wire.text);
    if let Some(hint) = did_you_mean(wire.text, others()) {
        return Mistake::at(wire.span.clone(), format!("{title}, {hint}"));
    }
    Mistake::at(wire.span.clone(), title).help(fitting(draft, wire.port, drafts))
}

fn own_input(draft: &Draft<'_>, wire: &Wire<'_>) -> Mistake {
    let title = format!("stage '{}' can't be its own '{}'", draft.text, wire.port.name());
    Mistake::at(wire.span.clone(), title)
        .help("name a stage whose artifact is there before this one runs")
}

/// The mistake of a stage that gives what the port does not take.
fn misfit(
    draft: &Draft<'_>,
    wire: &Wire<'_>,
    from: &Draft<'_>,
    drafts: &[Draft<'_>],
) -> Option<Mistake> {
    let gives = from.output.filter(|output| !wire.port.takes(*output))?;
    let title = format!(
        "'{}' gives {gives}, but '{}' takes {}; {}",
        from.text,
        wire.port.name(),
        listed(wire.port.accepts.iter().map(|artifact| artifact.name()), "or"),
        fitting(draft, wire.port, drafts),
    );
    Some(
        Mistake::at(wire.span.clone(), title)
            .help(wire.port.about.split_whitespace().collect::<Vec<_>>().join(" ")),
    )
}

/// The stages that could be connected to the port, or the kinds of such stages.
fn fitting(draft: &Draft<'_>, port: &Port, drafts: &[Draft<'_>]) -> String {
    let later = readers(draft, drafts);
    let fits = |other: &&Draft<'_>| {
        !later.contains(other.text) && other.output.is_some_and(|output| port.takes(output))
    };
    let stages: Vec<_> = drafts.iter().filter(fits).map(|other| other.text).collect();
    if !stages.is_empty() {
        return format!("stages that fit: {}", stages.join(", "));
    }
    let kinds = KINDS.iter().filter(|kind| port.takes(kind.output)).map(|kind| kind.name);
    format!("no stage here fits (kinds that would: {})", kinds.collect::<Vec<_>>().join(", "))
}

/// The stage and all that read it, directly or not: to connect it to one of them would make a circle.
fn readers<'t>(draft: &Draft<'t>, drafts: &[Draft<'t>]) -> HashSet<&'t str> {
    let mut readers = HashSet::from([draft.text]);
    loop {
        let reads = |other: &&Draft<'_>| other.wires.iter().any(|wire| readers.contains(wire.text));
        let more: Vec<_> = drafts.iter().filter(reads).map(|other| other.text).collect();
        let before = readers.len();
        readers.extend(more);
        if readers.len() == before {
            return readers;
        }
    }
}

/// One mistake for the circle, with every wire of it shown.
fn cycle_mistake(cycle: &Cycle, by_name: &HashMap<&str, &Draft<'_>>) -> Mistake {
    let wire = |from: &StageName, to: &StageName| {
        let wires = &by_name.get(to.as_str())?.wires;
        wires.iter().find(|wire| wire.text == from.as_str())
    };
    let next = cycle.0.iter().cycle().skip(1);
    let wires = cycle.0.iter().zip(next).filter_map(|(from, to)| {
        Some((wire(from, to)?.span.clone(), format!("'{to}' reads '{from}'")))
    });
    let mut places: Vec<_> = wires.collect();
    places.sort_by_key(|(span, _)| span.start);
    let mut places = places.into_iter();
    let title = format!("cycle: {cycle}");
    let mistake = match places.next() {
        Some((span, label)) => Mistake::at(span, title).label(label),
        None => Mistake::general(title),
    };
    places
        .fold(mistake, |mistake, (span, label)| mistake.related(span, label))
        .help("connect one of these ports to another stage, or drop it")
}
