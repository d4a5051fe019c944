//! The edges between stages: every port leads to a stage that exists and fits, and there are no cycles.
//!
//! Finding the faults takes time in proportion to the manifest. What to do about a fault is looked up in
//! the whole manifest, so only for those that are shown.

use std::collections::{HashMap, HashSet};

use pipeline_stages::{ArtifactType, KINDS, Port};

use super::hint::{did_you_mean, listed};
use super::matrix::at_points;
use super::ports::Wire;
use super::stage::Draft;
use super::values::{NO_MATRIX, beginnings, is_template};
use crate::diagnostic::{MOST_SHOWN, Mistake, Span};
use crate::graph::{Cycle, Graph};
use crate::stage_name::StageName;

/// How the stages of a manifest are connected.
pub(super) struct Checked {
    /// What is wrong with wires, each with the place of the draft that has it.
    pub(super) faults: Vec<(usize, Mistake)>,
    /// The graph, or its cycles.
    pub(super) graph: Result<Graph, Vec<Mistake>>,
}

/// A port without a stage, or with one that does not fit.
struct Fault<'d, 't> {
    /// The place of the draft.
    place: usize,
    draft: &'d Draft<'t>,
    what: What<'d, 't>,
}

enum What<'d, 't> {
    /// The stage needs this port.
    MissingPort(&'static Port),
    /// There is no stage of this name.
    MissingStage(&'d Wire<'t>),
    /// The stage reads itself.
    OwnInput(&'d Wire<'t>),
    /// The stage of this name has an output that the port does not take.
    Misfit(&'d Wire<'t>, ArtifactType),
    /// So have instances of a stage of which the port takes all: the first of them, and how many others there are.
    Misfits(&'d Wire<'t>, ArtifactType, usize),
}

/// Finds every wire to a stage that does not exist, does not fit, or is part of a cycle.
pub(super) fn check(drafts: &[Draft<'_>]) -> Checked {
    let by_name: foldhash::HashMap<_, _> = drafts.iter().map(|draft| (draft.text, draft)).collect();
    let misnamed = beginnings(drafts.iter().map(|draft| draft.template));
    let mut faults = Vec::new();
    let mut edges = Vec::new();
    for (place, draft) in drafts.iter().enumerate() {
        let mut fault = |what| faults.push(Fault { place, draft, what });
        draft.missing.iter().for_each(|port| fault(What::MissingPort(port)));
        let mut among_all: Option<(&Wire<'_>, ArtifactType, usize)> = None;
        for wire in &draft.wires {
            match by_name.get(wire.text) {
                None if misnamed.iter().any(|start| wire.text.starts_with(start)) => {}
                None => fault(What::MissingStage(wire)),
                Some(from) if from.text == draft.text => fault(What::OwnInput(wire)),
                Some(from) => match from.output.filter(|output| !wire.port.takes(*output)) {
                    // Not an edge: a cycle through it would disappear with it.
                    Some(output) if wire.among_all => match &mut among_all {
                        Some((first, _, others)) if first.span == wire.span => *others += 1,
                        last => {
                            let before = last.replace((wire, output, 0));
                            before.into_iter().for_each(|(wire, output, others)| {
                                fault(What::Misfits(wire, output, others));
                            });
                        }
                    },
                    Some(output) => fault(What::Misfit(wire, output)),
                    None => edges.extend(from.name.clone().zip(draft.name.clone())),
                },
            }
        }
        if let Some((wire, output, others)) = among_all {
            fault(What::Misfits(wire, output, others));
        }
    }
    faults.sort_by_key(|fault| fault.span().start);
    let lookup = Lookup::new(drafts);
    // Instances of a matrix have their faults at the same place, and only the first one's are shown.
    let (mut places, mut last) = (0, None);
    let mistakes = faults.iter().map(|fault| {
        let span = fault.span();
        let owner = last.filter(|(last, _)| *last == span).map_or(fault.place, |(_, owner)| owner);
        if last.is_none_or(|(last, _)| last != span) {
            last = Some((span, fault.place));
        }
        places += usize::from(owner == fault.place);
        let is_shown = owner == fault.place && places <= MOST_SHOWN;
        (fault.place, if is_shown { fault.mistake(&lookup) } else { fault.short_mistake() })
    });
    let faults = mistakes.collect();
    let names = drafts.iter().filter_map(|draft| draft.name.clone());
    let graph = Graph::new(names, edges);
    let cycle_mistakes = |cycles: Vec<Cycle>| {
        cycles.iter().map(|cycle| cycle_mistake(cycle, &by_name)).collect::<Vec<_>>()
    };
    Checked { faults, graph: graph.map_err(cycle_mistakes) }
}

impl Fault<'_, '_> {
    fn span(&self) -> &Span {
        match self.what {
            What::MissingPort(_) => &self.draft.span,
            What::MissingStage(wire)
            | What::OwnInput(wire)
            | What::Misfit(wire, _)
            | What::Misfits(wire, ..) => &wire.span,
        }
    }

    /// What is wrong, without what could be done about it.
    fn short_mistake(&self) -> Mistake {
        let stage = self.draft.text;
        let title = match self.what {
            What::MissingPort(port) => format!("stage '{stage}' needs the port '{}'", port.name()),
            What::MissingStage(wire) => format!("there is no stage '{}'", wire.text),
            What::OwnInput(wire) => {
                format!("stage '{stage}' cannot be its own '{}'", wire.port.name())
            }
            What::Misfit(wire, output) | What::Misfits(wire, output, _) => format!(
                "'{}' produces {output}, but '{}' takes {}",
                match self.what {
                    What::Misfits(..) => wire.text.split('@').next().unwrap_or(wire.text),
                    _ => wire.text,
                },
                wire.port.name(),
                listed(wire.port.accepts.iter().map(|artifact| artifact.name()), "or"),
            ),
        };
        Mistake::at(self.span().clone(), title)
    }

    /// Which instances do not fit, where others of the same stage do.
    fn points(&self) -> Option<String> {
        let What::Misfits(wire, _, others) = self.what else { return None };
        let wires = self.draft.wires.iter().filter(|other| other.span == wire.span);
        let (_, point) = wire.text.split_once('@').filter(|_| wires.count() > others + 1)?;
        Some(at_points(point, others))
    }

    fn mistake(&self, lookup: &Lookup<'_, '_>) -> Mistake {
        let mistake = self.short_mistake();
        match self.what {
            What::MissingPort(port) => {
                let fitting = lookup.fitting(self.draft, port);
                mistake.help(format!("add a line {} = \"...\"; {fitting}", port.name()))
            }
            What::MissingStage(wire) if is_template(wire.text) => mistake.help(NO_MATRIX),
            What::MissingStage(wire) => {
                let others = lookup.drafts.iter().map(|other| other.template);
                let others = others.filter(|other| *other != self.draft.template);
                match did_you_mean(wire.text, others) {
                    Some(hint) => mistake.and(&hint),
                    None => mistake.help(lookup.fitting(self.draft, wire.port)),
                }
            }
            What::OwnInput(_) => {
                mistake.help("name a stage whose artifact exists before this one runs")
            }
            What::Misfit(wire, _) | What::Misfits(wire, ..) => mistake
                .help(self.points().unwrap_or_default())
                .help(lookup.fitting(self.draft, wire.port))
                .help(wire.port.about.split_whitespace().collect::<Vec<_>>().join(" ")),
        }
    }
}

/// What is looked up in all stages, to suggest what to do about a fault.
struct Lookup<'d, 't> {
    drafts: &'d [Draft<'t>],
    /// Per name, the stages that read it.
    readers: HashMap<&'t str, Vec<&'t str>>,
}

impl<'d, 't> Lookup<'d, 't> {
    fn new(drafts: &'d [Draft<'t>]) -> Self {
        let mut readers: HashMap<_, Vec<_>> = HashMap::new();
        for draft in drafts {
            for wire in &draft.wires {
                readers.entry(wire.text).or_default().push(draft.text);
            }
        }
        Self { drafts, readers }
    }

    /// The stages that could be connected to the port, or the kinds of such stages.
    fn fitting(&self, draft: &Draft<'t>, port: &Port) -> String {
        let later = self.later(draft);
        let fits = |other: &&Draft<'_>| {
            !later.contains(other.text)
                && !other.template.is_empty()
                && other.output.is_some_and(|output| port.takes(output))
        };
        let mut stages: Vec<_> = self.drafts.iter().filter(fits).map(|one| one.template).collect();
        stages.dedup();
        if !stages.is_empty() {
            return format!("stages that fit: {}", listed(stages, "and"));
        }
        let kinds = KINDS.iter().filter(|kind| port.takes(kind.output)).map(|kind| kind.name);
        format!("no stage here fits (kinds that would: {})", kinds.collect::<Vec<_>>().join(", "))
    }

    /// The stage and all that read it, directly or not: to connect it to one of them would make a cycle.
    fn later(&self, draft: &Draft<'t>) -> HashSet<&'t str> {
        let mut later = HashSet::from([draft.text]);
        let mut waiting = vec![draft.text];
        while let Some(text) = waiting.pop() {
            let readers = self.readers.get(text).into_iter().flatten();
            waiting.extend(readers.filter(|reader| later.insert(reader)));
        }
        later
    }
}

/// One mistake for the cycle, with the wires of the stages that are shown.
fn cycle_mistake(cycle: &Cycle, by_name: &foldhash::HashMap<&str, &Draft<'_>>) -> Mistake {
    let wire = |from: &StageName, to: &StageName| {
        let wires = &by_name.get(to.as_str())?.wires;
        wires.iter().find(|wire| wire.text == from.as_str())
    };
    let wires = cycle.shown().flatten().filter_map(|(from, to)| {
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
