//! Stages as they are written: what they are as each kind, and which axes their values use.

use std::collections::{HashMap, HashSet};

use pipeline_stages::parameter::ParameterType;
use pipeline_stages::{KindInfo, PortShape, kind_info};
use toml::de::{DeTable, DeValue};

use super::super::values::Value;
use super::defaults::{Defaults, Key};
use super::placeholder::{Node, Used, each_text};
use super::points::{Axes, AxisSet, Points};
use crate::diagnostic::{Mistake, Span};

/// A stage as it is written.
pub(super) struct Template<'t, 'i> {
    pub(super) name: &'t str,
    pub(super) span: Span,
    pub(super) value: &'t Value<'i>,
    /// Its kind, where that depends on the point.
    pub(super) kind: Option<Node<'t, 'i>>,
    /// What it is as each kind; only one where its kind does not depend on the point.
    pub(super) variants: Vec<Variant<'t, 'i>>,
}

/// A stage as a stage of one kind.
pub(super) struct Variant<'t, 'i> {
    pub(super) kind: Option<&'static KindInfo>,
    /// Its own values, then those of its kind and of the experiment.
    pub(super) entries: Vec<Entry<'t, 'i>>,
    /// The axes whose fields are its parameters.
    pub(super) with: Vec<usize>,
    /// The names of its ports, and how many artifacts each takes.
    pub(super) ports: Vec<(String, PortShape)>,
}

pub(super) struct Entry<'t, 'i> {
    pub(super) key: &'t Key<'i>,
    pub(super) node: Node<'t, 'i>,
    pub(super) origin: Origin,
    /// The axes that its value adds to the stage.
    pub(super) axes: AxisSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Stage,
    Kind,
    Experiment,
}

/// What the text of a stage depends on.
pub(super) struct Reader<'a, 't, 'i> {
    pub(super) axes: &'a Axes<'t, 'i>,
    pub(super) points: &'a Points,
    pub(super) defaults: &'a Defaults<'t, 'i>,
    /// The seed of the experiment, where it depends on the matrix.
    pub(super) seed: Option<(&'t Key<'i>, &'t Value<'i>)>,
    pub(super) used: Used<'t>,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl<'t, 'i> Reader<'_, 't, 'i> {
    pub(super) fn template(
        &mut self,
        name: &'t str,
        span: Span,
        value: &'t Value<'i>,
    ) -> Template<'t, 'i> {
        let mut template = Template { name, span, value, kind: None, variants: Vec::new() };
        let table = value.get_ref().as_table();
        let kind = table.and_then(|table| table.get("kind"));
        let node =
            kind.map(|kind| Node::read(kind, true, self.axes, &mut self.used, self.mistakes));
        match node {
            Some(node) if node.axes() != 0 => {
                let mut seen = HashSet::new();
                for &point in &self.axes.project(self.points, node.axes()).first {
                    let kind = kind_at(&node, self.axes, self.points.get(point as usize));
                    if seen.insert(kind.map(|kind| kind.name)) {
                        template.variants.extend(table.map(|table| self.variant(kind, table)));
                    }
                }
                template.kind = Some(node);
            }
            _ => {
                let kind = kind.and_then(|kind| kind.get_ref().as_str()).and_then(kind_info);
                let variant = match table {
                    Some(table) => self.variant(kind, table),
                    None => {
                        Variant { kind, entries: Vec::new(), with: Vec::new(), ports: Vec::new() }
                    }
                };
                template.variants.push(variant);
            }
        }
        template
    }

    fn variant(
        &mut self,
        kind: Option<&'static KindInfo>,
        table: &'t DeTable<'i>,
    ) -> Variant<'t, 'i> {
        let ports =
            kind.map(|kind| (kind.ports)().iter().map(|port| (port.name(), port.shape)).collect());
        let (entries, with, ports) = (Vec::new(), Vec::new(), ports.unwrap_or_default());
        let mut variant = Variant { kind, entries, with, ports };
        let defaults = kind.and_then(|kind| self.defaults.get(kind.name)).into_iter().flatten();
        let own = table.iter().map(|(key, value)| (key, value, Origin::Stage));
        let of_kind = defaults.map(|(key, value)| (*key, *value, Origin::Kind));
        let of_experiment = self.seed.filter(|_| kind.is_some_and(|kind| kind.seeded));
        let of_experiment = of_experiment.map(|(key, value)| (key, value, Origin::Experiment));
        let mut seen = HashSet::new();
        for (key, value, origin) in own.chain(of_kind).chain(of_experiment) {
            let name: &str = key.as_ref();
            // Where a stage's own seed is left out, that of the experiment counts.
            if !seen.insert(name) && origin != Origin::Experiment {
                continue;
            }
            if name == "with" {
                variant.with = read_with(value, self.axes, &mut self.used, self.mistakes);
                continue;
            }
            // What `${...}` is in a shell, is the shell's.
            let is_shell = name == "shell" && kind.is_some_and(|kind| kind.name == "command");
            let is_text = name == "kind" || takes_text(kind, name);
            let node = match is_shell {
                true => Node::Plain(value),
                false => Node::read(value, is_text, self.axes, &mut self.used, self.mistakes),
            };
            let axes = if name == "execution" { 0 } else { node.axes() };
            variant.entries.push(Entry { key, node, origin, axes });
        }
        variant.report_twice(self.axes, self.mistakes);
        variant
    }
}

/// The kind at a point.
fn kind_at(kind: &Node<'_, '_>, axes: &Axes<'_, '_>, point: &[u32]) -> Option<&'static KindInfo> {
    let mut found = None;
    kind.each_text(&mut |text| found = text.at(axes, point).and_then(|text| kind_info(&text)));
    found
}

impl<'t, 'i> Template<'t, 'i> {
    /// What it is at a point.
    pub(super) fn at(&self, axes: &Axes<'_, '_>, point: &[u32]) -> &Variant<'t, 'i> {
        let name = |kind: Option<&KindInfo>| kind.map(|kind| kind.name);
        let kind = self.kind.as_ref().map(|kind| name(kind_at(kind, axes, point)));
        let fits = |variant: &&Variant<'_, '_>| kind.is_none_or(|kind| name(variant.kind) == kind);
        self.variants.iter().find(fits).unwrap_or(&self.variants[0])
    }

    /// The axes that it names anywhere.
    pub(super) fn mentioned(&self) -> AxisSet {
        let kind = self.kind.as_ref().map_or(0, Node::axes);
        self.variants.iter().fold(kind, |set, variant| {
            let entries = variant.entries.iter().fold(set, |set, entry| set | entry.node.axes());
            variant.with.iter().fold(entries, |set, axis| set | 1 << axis)
        })
    }

    /// The axes that it uses itself at any point.
    pub(super) fn axes(&self) -> AxisSet {
        self.variants.iter().fold(0, |set, variant| set | variant.axes())
    }
}

impl<'t, 'i> Variant<'t, 'i> {
    /// Reports what is set by the stage and by the points of an axis, or by those of two axes.
    fn report_twice(&mut self, axes: &Axes<'_, '_>, mistakes: &mut Vec<Mistake>) {
        let mut twice = HashSet::new();
        let fields = |axis: usize| axes.get(axis).values.iter().filter_map(|value| value.fields);
        for entry in self.entries.iter().filter(|entry| entry.origin == Origin::Stage) {
            let key: &str = entry.key.as_ref();
            for &axis in &self.with {
                let place = fields(axis).find_map(|fields| fields.get_key_value(key));
                if let Some((place, _)) = place {
                    let title = format!("'{key}' is set here and by 'with'");
                    let mistake = Mistake::at(entry.key.span(), title).help("drop one of them");
                    let label = format!("a field of '{}'", axes.get(axis).name);
                    mistakes.push(mistake.related(place.span(), label));
                    twice.insert(key);
                }
            }
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for &axis in &self.with {
            for (key, _) in fields(axis).flatten() {
                let first = *seen.entry(key.as_ref()).or_insert(axis);
                if first != axis {
                    let (first, second) = (axes.get(first).name, axes.get(axis).name);
                    let title =
                        format!("'{}' is a field of '{first}' and of '{second}'", key.get_ref());
                    let help = "a stage takes both by 'with': rename one of them";
                    mistakes.push(Mistake::at(key.span(), title).help(help));
                }
            }
        }
        self.entries.retain(|entry| !twice.contains(entry.key.get_ref().as_ref()));
    }

    /// The fields that are its parameters at a point.
    fn fields<'a>(
        &'a self,
        axes: &'a Axes<'t, 'i>,
        point: &'a [u32],
    ) -> impl Iterator<Item = (&'t Key<'i>, &'t Value<'i>)> + 'a {
        let values = self.with.iter().map(|&axis| &axes.get(axis).values[point[axis] as usize]);
        values.filter_map(|value| value.fields).flatten()
    }

    /// The values that count at a point, beside the fields.
    fn entries<'a>(
        &'a self,
        axes: &'a Axes<'t, 'i>,
        point: &'a [u32],
    ) -> impl Iterator<Item = &'a Entry<'t, 'i>> + 'a {
        self.entries.iter().filter(move |entry| {
            let key = entry.key.get_ref();
            let is_field = || self.fields(axes, point).any(|(field, _)| field.get_ref() == key);
            match entry.origin {
                Origin::Stage => true,
                Origin::Kind => !is_field(),
                Origin::Experiment => !is_field() && !self.sets_itself(key, axes, point),
            }
        })
    }

    /// Whether a value of the stage or of its kind exists at a point.
    fn sets_itself(&self, key: &str, axes: &Axes<'t, 'i>, point: &[u32]) -> bool {
        self.entries.iter().any(|entry| {
            entry.origin != Origin::Experiment
                && entry.key.get_ref() == key
                && entry.node.at(axes, point, &mut Vec::new()).is_some()
        })
    }

    /// How many artifacts the port of this name takes; `None` if it is not a port.
    pub(super) fn port(&self, key: &str) -> Option<PortShape> {
        self.ports.iter().find(|(name, _)| name == key).map(|(_, shape)| *shape)
    }

    /// Its value under a key at a point.
    pub(super) fn value(&self, key: &str, axes: &Axes<'t, 'i>, point: &[u32]) -> Option<Value<'i>> {
        let field = self.fields(axes, point).find(|(field, _)| field.get_ref() == key);
        if let Some((_, value)) = field {
            return Some(value.clone());
        }
        let entry = self.entries(axes, point).find(|entry| entry.key.get_ref() == key)?;
        entry.node.at(axes, point, &mut Vec::new())
    }

    /// The axes that it uses itself at a point.
    pub(super) fn axes_at(&self, axes: &Axes<'t, 'i>, point: &[u32]) -> AxisSet {
        let with = self.with.iter().fold(0, |set, axis| set | 1 << axis);
        self.entries(axes, point).fold(with, |set, entry| set | entry.axes)
    }

    /// The axes that it uses itself at any point.
    pub(super) fn axes(&self) -> AxisSet {
        let with = self.with.iter().fold(0, |set, axis| set | 1 << axis);
        self.entries.iter().fold(with, |set, entry| set | entry.axes)
    }

    /// Calls `each` with what its ports name at a point, and the places.
    pub(super) fn inputs(
        &self,
        axes: &Axes<'t, 'i>,
        point: &[u32],
        mut each: impl FnMut(PortShape, &str, &Span),
    ) {
        for (key, value) in self.fields(axes, point) {
            if let Some(shape) = self.port(key.as_ref()) {
                each_text(value, &mut |text, span| each(shape, text, &span));
            }
        }
        for entry in self.entries(axes, point) {
            if let Some(shape) = self.port(entry.key.as_ref()) {
                entry.node.each_text(&mut |text| {
                    if let Some(value) = text.at(axes, point) {
                        each(shape, &value, text.span());
                    }
                });
            }
        }
    }

    /// Its table at a point, and the keys in it that are defaults of its kind.
    pub(super) fn table(
        &self,
        axes: &Axes<'t, 'i>,
        point: &[u32],
        mistakes: &mut Vec<Mistake>,
    ) -> (DeTable<'i>, Vec<&'t str>) {
        let mut table = DeTable::new();
        let mut defaults = Vec::new();
        for (key, value) in self.fields(axes, point) {
            table.insert(key.clone(), value.clone());
        }
        for entry in self.entries(axes, point) {
            if let Some(value) = entry.node.at(axes, point, mistakes) {
                table.insert(entry.key.clone(), value);
                if entry.origin != Origin::Stage {
                    defaults.push(entry.key.as_ref().as_ref());
                }
            }
        }
        (table, defaults)
    }
}

/// Whether a parameter is made of texts, so that a number of an axis is written as one: `environment`, `run`.
fn takes_text(kind: Option<&KindInfo>, parameter: &str) -> bool {
    let field = kind.and_then(|kind| (kind.fields)().iter().find(|field| field.name == parameter));
    let mut value_type = field.map(|field| &field.value_type);
    loop {
        value_type = match value_type {
            Some(
                ParameterType::List(item)
                | ParameterType::OneOrMany(item)
                | ParameterType::Table(item),
            ) => Some(item),
            other => return matches!(other, Some(ParameterType::Text | ParameterType::Choice(_))),
        }
    }
}

/// Reads `with = ["method"]`.
fn read_with(
    value: &Value<'_>,
    axes: &Axes<'_, '_>,
    used: &mut Used<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<usize> {
    const FORM: &str = "write with = [\"AXIS\"], for all fields of its points";
    let DeValue::Array(items) = value.get_ref() else {
        let title = "'with' is a list of the names of axes";
        mistakes.push(Mistake::at(value.span(), title).help(FORM));
        used.wrong.push(value.span());
        return Vec::new();
    };
    let mut with = Vec::new();
    for item in items {
        let mistake = match item.get_ref().as_str().map(|name| (name, axes.find(name))) {
            None => Mistake::at(item.span(), "'with' is a list of the names of axes").help(FORM),
            Some((name, None)) => axes.no_axis(name, item.span()),
            Some((name, Some(axis))) if !axes.get(axis).is_named() => {
                let title = format!("'{name}' is a list of values, which do not have fields");
                let help = format!("write KEY = \"${{{name}}}\"");
                Mistake::at(item.span(), title).help(help)
            }
            Some((name, Some(axis))) if axes.get(axis).has_field("kind") => {
                let title = format!("'kind' is a field of '{name}', and cannot come by 'with'");
                let help =
                    format!("write kind = \"${{{name}.kind}}\", and the other fields by name");
                Mistake::at(item.span(), title).help(help)
            }
            Some((name, Some(axis))) if with.contains(&axis) => {
                Mistake::at(item.span(), format!("'{name}' is listed twice"))
            }
            Some((_, Some(axis))) => {
                with.push(axis);
                continue;
            }
        };
        mistakes.push(mistake);
        used.wrong.push(item.span());
    }
    with
}

/// Reports the fields that no stage uses.
pub(super) fn unused_mistakes(
    axes: &Axes<'_, '_>,
    templates: &[Template<'_, '_>],
    used: &Used<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    let variants = templates.iter().flat_map(|template| &template.variants);
    let with: HashSet<usize> = variants.flat_map(|one| one.with.iter().copied()).collect();
    for (place, axis) in axes.iter().enumerate() {
        let name = axis.name;
        if with.contains(&place) {
            continue;
        }
        let mut seen = HashSet::new();
        for (key, _) in axis.values.iter().filter_map(|value| value.fields).flatten() {
            let field: &str = key.as_ref();
            if !used.fields.contains(&(place, field)) && seen.insert(field) {
                let title = format!("no stage uses the field '{field}' of '{name}'");
                let help = format!(
                    "write \"${{{name}.{field}}}\" in a value of a stage, or with = [\"{name}\"] for all fields"
                );
                mistakes.push(Mistake::at(key.span(), title).help(help));
            }
        }
    }
}
