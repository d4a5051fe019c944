//! What the ports of one stage name.
//!
//! Does not check whether these stages exist.

use std::collections::HashSet;

use pipeline_stages::{KindInfo, Port, PortShape};
use toml::de::{DeTable, DeValue};

use super::declaration::Connection;
use super::values::{Value, found};
use crate::diagnostic::{Mistake, Span};
use crate::stage_name::check_name;

/// A stage that a port names.
pub(super) struct Wire<'t> {
    pub(super) port: &'static Port,
    /// The name of the artifact, at a port that takes a table of them.
    pub(super) label: Option<String>,
    /// Whether it is one of all instances of a stage.
    pub(super) among_all: bool,
    /// The name of the stage, as it is written.
    pub(super) text: &'t str,
    /// Where it is.
    pub(super) span: Span,
}

impl Wire<'_> {
    /// The connection, if the text is a stage's name.
    pub(super) fn connection(self) -> Option<Connection> {
        let from = self.text.parse().ok()?;
        Some(Connection { name: self.label, from, among_all: self.among_all })
    }
}

/// What the ports of a stage are connected to.
#[derive(Default)]
pub(super) struct Ports<'t> {
    /// What they name.
    pub(super) wires: Vec<Wire<'t>>,
    /// Those that the stage needs and does not name.
    pub(super) missing: Vec<&'static Port>,
}

impl<'t> Ports<'t> {
    /// Reads the ports of a stage of this kind. One that is missing is not a mistake yet. `lists` are the places where
    /// the matrix has put all instances of a stage.
    pub(super) fn read(
        kind: &KindInfo,
        table: &'t DeTable<'_>,
        lists: &[Span],
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut ports = Self::default();
        for port in (kind.ports)() {
            match table.get(port.name().as_str()) {
                Some(value) => ports.wires.extend(read_port(port, value, lists, mistakes)),
                None if port.required() => ports.missing.push(port),
                None => {}
            }
        }
        ports
    }
}

fn read_port<'t>(
    port: &'static Port,
    value: &'t Value<'_>,
    lists: &[Span],
    mistakes: &mut Vec<Mistake>,
) -> Vec<Wire<'t>> {
    let name = port.name();
    match (port.shape, value.get_ref()) {
        (PortShape::Named, DeValue::Table(table)) => named_wires(port, table, lists, mistakes),
        (PortShape::Instances, DeValue::Array(items)) if lists.contains(&value.span()) => {
            instance_wires(port, None, items)
        }
        // Without a matrix, a stage is its only instance.
        (PortShape::Instances, DeValue::String(_)) => {
            let wire = wire(port, None, &name, value, mistakes);
            wire.map(|wire| Wire { among_all: true, ..wire }).into_iter().collect()
        }
        (PortShape::Many | PortShape::OptionalMany, DeValue::Array(items)) => {
            if items.is_empty() && port.required() {
                let title = format!("'{name}' needs at least one stage");
                mistakes.push(Mistake::at(value.span(), title).help(shape_help(port).1));
            }
            listed_wires(port, items, mistakes)
        }
        (
            PortShape::One | PortShape::Optional | PortShape::Many | PortShape::OptionalMany,
            DeValue::String(_),
        ) => wire(port, None, &name, value, mistakes).into_iter().collect(),
        (_, other) => {
            let (takes, help) = shape_help(port);
            let title = format!("the port '{name}' takes {takes}, but this is {}", found(other));
            mistakes.push(Mistake::at(value.span(), title).help(help));
            Vec::new()
        }
    }
}

/// What a port takes, and how to write it.
fn shape_help(port: &Port) -> (&'static str, String) {
    let name = port.name();
    match port.shape {
        PortShape::One | PortShape::Optional | PortShape::Instances => {
            ("the name of a stage", format!("write {name} = \"stage\""))
        }
        PortShape::Many | PortShape::OptionalMany => (
            "the name of a stage, or a list of them",
            format!("write {name} = \"stage\" or {name} = [\"stage\", \"other\"]"),
        ),
        PortShape::Named => ("a table of stages", format!("write {name} = {{ data = \"stage\" }}")),
    }
}

fn named_wires<'t>(
    port: &'static Port,
    table: &'t DeTable<'_>,
    lists: &[Span],
    mistakes: &mut Vec<Mistake>,
) -> Vec<Wire<'t>> {
    let mut wires = Vec::new();
    for (key, value) in table {
        let label: &str = key.as_ref();
        // It is in the name of an environment variable, and in `{inputs.NAME}`.
        if let Err(reason) = check_name(label) {
            let title = format!("{label:?} cannot be the name of an input: {reason}");
            mistakes.push(Mistake::at(key.span(), title));
        }
        match value.get_ref() {
            DeValue::Array(items) if lists.contains(&value.span()) => {
                wires.extend(instance_wires(port, Some(label), items));
            }
            // Without a matrix, a stage is its only instance.
            DeValue::String(text) if text.ends_with("@*") => {
                let wire = wire(port, Some(label), label, value, mistakes);
                wires.extend(wire.map(|wire| Wire {
                    text: wire.text.trim_end_matches("@*"),
                    among_all: true,
                    ..wire
                }));
            }
            _ => wires.extend(wire(port, Some(label), label, value, mistakes)),
        }
    }
    wires
}

/// All instances of a stage.
fn instance_wires<'t>(
    port: &'static Port,
    label: Option<&str>,
    items: &'t [Value<'_>],
) -> Vec<Wire<'t>> {
    let wire = |item: &'t Value<'_>| {
        let text = item.get_ref().as_str()?;
        let label = label.map(str::to_owned);
        Some(Wire { port, label, among_all: true, text, span: item.span() })
    };
    items.iter().filter_map(wire).collect()
}

fn listed_wires<'t>(
    port: &'static Port,
    items: &'t [Value<'_>],
    mistakes: &mut Vec<Mistake>,
) -> Vec<Wire<'t>> {
    let mut wires: Vec<Wire<'_>> = Vec::new();
    let mut seen = HashSet::new();
    for item in items {
        let Some(new) = wire(port, None, &port.name(), item, mistakes) else { continue };
        if !seen.insert(new.text) {
            let title = format!("'{}' is listed twice", new.text);
            mistakes.push(Mistake::at(item.span(), title).help("drop one of them"));
        }
        wires.push(new);
    }
    wires
}

fn wire<'t>(
    port: &'static Port,
    label: Option<&str>,
    key: &str,
    value: &'t Value<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Wire<'t>> {
    let DeValue::String(text) = value.get_ref() else {
        let found = found(value.get_ref());
        let title = format!("'{key}' must be the name of a stage, but this is {found}");
        mistakes.push(Mistake::at(value.span(), title).help("names go in quotes"));
        return None;
    };
    Some(Wire { port, label: label.map(str::to_owned), among_all: false, text, span: value.span() })
}
