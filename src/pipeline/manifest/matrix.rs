//! The matrix: stages with `${axis}` in them, into instances with names of their own.
//!
//! One pass between the document and the stages, which puts `[defaults.KIND]` into them too. Nothing after it
//! knows axes, except as part of a stage's name. Takes time in proportion to the points and the instances.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pipeline_stages::parameter::ParameterType;
use pipeline_stages::{KINDS, KindInfo, Port, kind_info};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hint::{did_you_mean, listed};
use super::once::Once;
use super::points::{self, Axes, AxisSet, Points, Projection};
use super::template::{Node, Text, Used, each_text};
use super::values::{Value, not_a_table};
use crate::diagnostic::{Mistake, Sources, Span};
use crate::graph::Cycle;
use crate::stage_name::LONGEST_INSTANCE;

/// A key of a table.
type Key<'i> = Spanned<Cow<'i, str>>;

/// A stage at a point of the matrix, or one that does not depend on it.
pub(super) struct Instance<'t, 'i> {
    /// Its name: `train@method=ce,rate=0.9`.
    pub(super) name: Cow<'t, str>,
    /// The name of the stage in the manifest.
    pub(super) template: &'t str,
    /// Where that is.
    pub(super) span: Span,
    /// What it is at this point.
    pub(super) value: Cow<'t, Value<'i>>,
    /// The keys of it that are from `[defaults.KIND]`.
    pub(super) defaults: Vec<&'t str>,
}

/// All instances of a manifest.
pub(super) struct Expanded<'t, 'i> {
    /// By stage in the file's order, then by point.
    pub(super) instances: Vec<Instance<'t, 'i>>,
    /// Which places are reported already.
    pub(super) once: Once,
    /// The axes that no stage uses, with their places.
    pub(super) unused: Vec<(String, Span)>,
}

/// Whether the seed of the experiment depends on the matrix. Then it is one of its stages, and no number here.
pub(super) fn has_seed_template(root: &DeTable<'_>) -> bool {
    seed_template(root).is_some()
}

fn seed_template<'t, 'i>(root: &'t DeTable<'i>) -> Option<(&'t Key<'i>, &'t Value<'i>)> {
    root.get("matrix")?;
    let experiment = root.get("experiment")?.get_ref().as_table()?;
    let (key, value) = experiment.get_key_value("seed")?;
    value.get_ref().as_str().filter(|text| text.contains("${")).map(|_| (key, value))
}

/// The instances of these stages. `None` if a mistake leaves open what they are.
pub(super) fn expand<'t, 'i>(
    root: &'t DeTable<'i>,
    stages: Vec<(&'t str, Span, &'t Value<'i>)>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<Expanded<'t, 'i>> {
    let has_matrix = root.contains_key("matrix");
    let defaults = match root.get("defaults") {
        Some(value) => read_defaults(value, has_matrix, mistakes),
        None => HashMap::new(),
    };
    let Some(matrix) = root.get("matrix") else {
        let instances = stages.into_iter().map(|stage| without_matrix(stage, &defaults));
        return Some(Expanded {
            instances: instances.collect(),
            once: Once::default(),
            unused: Vec::new(),
        });
    };
    let (axes, points) = points::read(matrix, sources, mistakes)?;
    let mut reader = Reader {
        axes: &axes,
        points: &points,
        defaults: &defaults,
        seed: seed_template(root),
        used: Used::default(),
        mistakes,
    };
    let templates = stages.into_iter();
    let templates: Vec<_> =
        templates.map(|(name, span, value)| reader.template(name, span, value)).collect();
    let used = reader.used;
    // What a text that is wrong was meant to use is not known.
    if used.wrong.is_empty() {
        unused_mistakes(&axes, &templates, &used, mistakes);
    }
    let mut once = Once::default();
    used.wrong.iter().for_each(|span| once.close(span));
    let expansion = Expansion::new(axes, points, templates);
    let sets = expansion.resolve().map_err(|cycle| mistakes.push(cycle)).ok()?;
    expansion.build(&sets, once, mistakes)
}

/// A stage with the defaults of its kind, where there is no matrix.
fn without_matrix<'t, 'i>(
    (name, span, value): (&'t str, Span, &'t Value<'i>),
    defaults: &Defaults<'t, 'i>,
) -> Instance<'t, 'i> {
    let mut instance = Instance {
        name: Cow::Borrowed(name),
        template: name,
        span,
        value: Cow::Borrowed(value),
        defaults: Vec::new(),
    };
    let Some(table) = value.get_ref().as_table() else { return instance };
    let kind = table.get("kind").and_then(|kind| kind.get_ref().as_str());
    let missing = kind.and_then(|kind| defaults.get(kind)).into_iter().flatten();
    let missing: Vec<_> =
        missing.filter(|(key, _)| !table.contains_key(key.get_ref().as_ref())).collect();
    if !missing.is_empty() {
        let mut table = table.clone();
        for (key, value) in missing {
            table.insert((*key).clone(), (*value).clone());
            instance.defaults.push(key.get_ref());
        }
        instance.value = Cow::Owned(Spanned::new(value.span(), DeValue::Table(table)));
    }
    instance
}

/// Per kind, the values of `[defaults.KIND]`.
type Defaults<'t, 'i> = HashMap<&'t str, Vec<(&'t Key<'i>, &'t Value<'i>)>>;

fn read_defaults<'t, 'i>(
    value: &'t Value<'i>,
    has_matrix: bool,
    mistakes: &mut Vec<Mistake>,
) -> Defaults<'t, 'i> {
    const FORM: &str = "start them with [defaults.KIND] and, below it, KEY = VALUE";
    let DeValue::Table(kinds) = value.get_ref() else {
        mistakes.push(not_a_table("defaults", value).help(FORM));
        return HashMap::new();
    };
    let mut defaults = HashMap::new();
    for (name, value) in kinds {
        let given: &str = name.as_ref();
        let Some(kind) = kind_info(given) else {
            let names = || KINDS.iter().map(|kind| kind.name);
            let mistake = Mistake::at(name.span(), format!("unknown kind '{given}'"));
            mistakes.push(match did_you_mean(given, names()) {
                Some(hint) => mistake.and(&hint).help(FORM),
                None => {
                    mistake.help(FORM).help(format!("the kinds are {}", listed(names(), "and")))
                }
            });
            continue;
        };
        let DeValue::Table(table) = value.get_ref() else {
            mistakes.push(not_a_table(&format!("defaults.{given}"), value).help(FORM));
            continue;
        };
        let known = table.iter().filter(|(key, _)| {
            let mistake = default_mistake(kind, key, has_matrix);
            let is_known = mistake.is_none();
            mistakes.extend(mistake);
            is_known
        });
        defaults.insert(given, known.collect());
    }
    defaults
}

/// What is wrong with the name of a default.
fn default_mistake(kind: &KindInfo, key: &Key<'_>, has_matrix: bool) -> Option<Mistake> {
    let given: &str = key.as_ref();
    let ports: Vec<_> = (kind.ports)().iter().map(Port::name).collect();
    let fields = (kind.fields)().iter().map(|field| field.name.as_str());
    let mut known: Vec<&str> = ports.iter().map(String::as_str).chain(fields).collect();
    known.push("execution");
    known.extend(kind.seeded.then_some("seed"));
    known.extend(has_matrix.then_some("with"));
    if known.contains(&given) {
        return None;
    }
    let title = format!("unknown key '{given}' in 'defaults.{}'", kind.name);
    let mistake = Mistake::at(key.span(), title);
    Some(match did_you_mean(given, known.iter().copied()) {
        Some(hint) => mistake.and(&hint),
        None => mistake.help(format!("`pipeline kinds {}` lists what it takes", kind.name)),
    })
}

/// A stage as it is written.
struct Template<'t, 'i> {
    name: &'t str,
    span: Span,
    value: &'t Value<'i>,
    /// Its kind, where that depends on the point.
    kind: Option<Node<'t, 'i>>,
    /// What it is as each kind; only one where its kind does not depend on the point.
    variants: Vec<Variant<'t, 'i>>,
}

/// A stage as a stage of one kind.
struct Variant<'t, 'i> {
    kind: Option<&'static KindInfo>,
    /// Its own values, then those of its kind and of the experiment.
    entries: Vec<Entry<'t, 'i>>,
    /// The axes whose fields are its parameters.
    with: Vec<usize>,
    ports: Vec<String>,
}

struct Entry<'t, 'i> {
    key: &'t Key<'i>,
    node: Node<'t, 'i>,
    origin: Origin,
    /// The axes that its value adds to the stage.
    axes: AxisSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Stage,
    Kind,
    Experiment,
}

/// What the text of a stage depends on.
struct Reader<'a, 't, 'i> {
    axes: &'a Axes<'t, 'i>,
    points: &'a Points,
    defaults: &'a Defaults<'t, 'i>,
    /// The seed of the experiment, where it depends on the matrix.
    seed: Option<(&'t Key<'i>, &'t Value<'i>)>,
    used: Used<'t>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'t, 'i> Reader<'_, 't, 'i> {
    fn template(&mut self, name: &'t str, span: Span, value: &'t Value<'i>) -> Template<'t, 'i> {
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
        let ports = kind.map(|kind| (kind.ports)().iter().map(Port::name).collect());
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
    fn at(&self, axes: &Axes<'_, '_>, point: &[u32]) -> &Variant<'t, 'i> {
        let name = |kind: Option<&KindInfo>| kind.map(|kind| kind.name);
        let kind = self.kind.as_ref().map(|kind| name(kind_at(kind, axes, point)));
        let fits = |variant: &&Variant<'_, '_>| kind.is_none_or(|kind| name(variant.kind) == kind);
        self.variants.iter().find(fits).unwrap_or(&self.variants[0])
    }

    /// The axes that it names anywhere.
    fn mentioned(&self) -> AxisSet {
        let kind = self.kind.as_ref().map_or(0, Node::axes);
        self.variants.iter().fold(kind, |set, variant| {
            let entries = variant.entries.iter().fold(set, |set, entry| set | entry.node.axes());
            variant.with.iter().fold(entries, |set, axis| set | 1 << axis)
        })
    }

    /// The axes that it uses itself at any point.
    fn axes(&self) -> AxisSet {
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

    fn is_port(&self, key: &str) -> bool {
        self.ports.iter().any(|port| port == key)
    }

    /// The axes that it uses itself at a point.
    fn axes_at(&self, axes: &Axes<'t, 'i>, point: &[u32]) -> AxisSet {
        let with = self.with.iter().fold(0, |set, axis| set | 1 << axis);
        self.entries(axes, point).fold(with, |set, entry| set | entry.axes)
    }

    /// The axes that it uses itself at any point.
    fn axes(&self) -> AxisSet {
        let with = self.with.iter().fold(0, |set, axis| set | 1 << axis);
        self.entries.iter().fold(with, |set, entry| set | entry.axes)
    }

    /// Calls `each` with what its ports name at a point, and the places.
    fn inputs(&self, axes: &Axes<'t, 'i>, point: &[u32], mut each: impl FnMut(&str, &Span)) {
        for (key, value) in self.fields(axes, point) {
            if self.is_port(key.as_ref()) {
                each_text(value, &mut |text, span| each(text, &span));
            }
        }
        for entry in self.entries(axes, point) {
            if self.is_port(entry.key.as_ref()) {
                entry.node.each_text(&mut |text| {
                    if let Some(value) = text.at(axes, point) {
                        each(&value, text.span());
                    }
                });
            }
        }
    }

    /// Its table at a point, and the keys in it that are defaults of its kind.
    fn table(
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
                let title = format!("'{name}' is a list of values, so they do not have fields");
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
fn unused_mistakes(
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

/// All templates, and what their references lead to.
struct Expansion<'t, 'i> {
    axes: Axes<'t, 'i>,
    points: Points,
    templates: Vec<Template<'t, 'i>>,
    by_name: HashMap<&'t str, usize>,
    /// Per template, the axes that it can depend on, itself or through its inputs.
    possible: Vec<AxisSet>,
    /// Per template, the points as far as these axes tell them apart.
    projections: Vec<Rc<Projection>>,
}

/// What a reference leads to.
struct Target<'p> {
    template: usize,
    /// The axes that the reference sets.
    pins: AxisSet,
    /// The point there.
    point: Cow<'p, [u32]>,
}

/// What is wrong with a reference.
enum Wrong<'r> {
    All,
    Form,
    NoStage(&'r str),
    NoAxis(&'r str),
    NoValue(usize, &'r str),
}

impl<'t, 'i> Expansion<'t, 'i> {
    fn new(axes: Axes<'t, 'i>, points: Points, templates: Vec<Template<'t, 'i>>) -> Self {
        let names = templates.iter().enumerate();
        let by_name: HashMap<_, _> = names.map(|(place, one)| (one.name, place)).collect();
        let mut cache: HashMap<AxisSet, Rc<Projection>> = HashMap::new();
        let mut project = |set| {
            let projection = cache.entry(set).or_insert_with(|| axes.project(&points, set).into());
            Rc::clone(projection)
        };
        // The stages that each is read by, at any point.
        let mut readers: Vec<Vec<usize>> = templates.iter().map(|_| Vec::new()).collect();
        for (place, template) in templates.iter().enumerate() {
            let mut link = |text: &str| {
                let name = text.split_once('@').map_or(text, |(name, _)| name);
                if let Some(&from) = by_name.get(name) {
                    readers[from].push(place);
                }
            };
            for variant in &template.variants {
                let ports = variant.entries.iter();
                for entry in ports.filter(|entry| variant.is_port(entry.key.as_ref())) {
                    entry.node.each_text(&mut |text| match text {
                        Text::Plain(text, _) => link(text),
                        Text::Pieces(..) => {
                            for &point in &project(text.axes()).first {
                                let value = text.at(&axes, points.get(point as usize));
                                value.iter().for_each(|text| link(text));
                            }
                        }
                    });
                }
                for &axis in &variant.with {
                    let fields =
                        axes.get(axis).values.iter().filter_map(|value| value.fields).flatten();
                    for (_, value) in fields.filter(|(key, _)| variant.is_port(key.as_ref())) {
                        each_text(value, &mut |text, _| link(text));
                    }
                }
            }
        }
        let mut possible: Vec<AxisSet> = templates.iter().map(Template::axes).collect();
        let mut changed: Vec<usize> = (0..templates.len()).collect();
        while let Some(from) = changed.pop() {
            for &reader in &readers[from] {
                let all = possible[reader] | possible[from];
                if all != possible[reader] {
                    possible[reader] = all;
                    changed.push(reader);
                }
            }
        }
        let projections = possible.iter().map(|&set| project(set)).collect();
        Self { axes, points, templates, by_name, possible, projections }
    }

    fn point(&self, template: usize, place: usize) -> &[u32] {
        self.points.get(self.projections[template].first[place] as usize)
    }

    /// What a reference leads to from a point.
    fn target<'p, 'r>(&self, text: &'r str, point: &'p [u32]) -> Result<Target<'p>, Wrong<'r>> {
        let find = |name: &'r str| self.by_name.get(name).copied().ok_or(Wrong::NoStage(name));
        let Some((name, pins)) = text.split_once('@') else {
            return Ok(Target { template: find(text)?, pins: 0, point: Cow::Borrowed(point) });
        };
        if text.contains('*') {
            return Err(Wrong::All);
        }
        let mut target = Target { template: find(name)?, pins: 0, point: Cow::Borrowed(point) };
        for pin in pins.split(',').map(str::trim) {
            let (axis, value) = pin.split_once('=').ok_or(Wrong::Form)?;
            let place = self.axes.find(axis).ok_or(Wrong::NoAxis(axis))?;
            let axis = self.axes.get(place);
            let digit = axis.place(value).ok_or(Wrong::NoValue(place, value))?;
            if target.pins & (1 << place) != 0 {
                return Err(Wrong::Form);
            }
            target.pins |= 1 << place;
            target.point.to_mut()[place] = digit;
        }
        Ok(target)
    }

    /// The place of the target's point among those of its template; `None` if it is excluded.
    fn place(&self, target: &Target<'_>) -> Option<usize> {
        let rank = self.axes.rank(self.possible[target.template], &target.point);
        self.projections[target.template].place(rank)
    }

    /// Per template and point, the axes that it uses there, itself or through its inputs.
    ///
    /// # Errors
    /// The first cycle.
    fn resolve(&self) -> Result<Vec<Vec<AxisSet>>, Mistake> {
        let lengths = self.projections.iter().map(|projection| projection.first.len());
        let mut known: Vec<Vec<Option<AxisSet>>> = lengths.map(|count| vec![None; count]).collect();
        // Not recursive: a chain of stages may be long.
        let mut stack: Vec<(usize, usize)> = Vec::new();
        let mut open = HashSet::new();
        for template in 0..self.templates.len() {
            for place in 0..known[template].len() {
                stack.push((template, place));
                open.insert((template, place));
                while let Some(&(template, place)) = stack.last() {
                    let point = self.point(template, place);
                    let stage = self.templates[template].at(&self.axes, point);
                    let mut set = stage.axes_at(&self.axes, point);
                    let mut missing = None;
                    stage.inputs(&self.axes, point, |text, span| {
                        let Ok(target) = self.target(text, point) else { return };
                        let Some(place) = self.place(&target) else { return };
                        match known[target.template][place] {
                            Some(axes) => set |= axes & !target.pins,
                            None => missing = Some((target.template, place, span.clone())),
                        }
                    });
                    match missing {
                        None => {
                            known[template][place] = Some(set);
                            open.remove(&(template, place));
                            stack.pop();
                        }
                        Some((template, place, span)) => {
                            if !open.insert((template, place)) {
                                return Err(self.cycle_mistake(&stack, (template, place), span));
                            }
                            stack.push((template, place));
                        }
                    }
                }
            }
        }
        let known = known.into_iter();
        Ok(known.map(|sets| sets.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    /// The mistake of stages that read each other: each on the stack reads the one after it, and the last one `first`.
    fn cycle_mistake(
        &self,
        stack: &[(usize, usize)],
        first: (usize, usize),
        span: Span,
    ) -> Mistake {
        let start = stack.iter().position(|one| *one == first).unwrap_or(0);
        let names = stack[start..].iter().rev().map(|(template, _)| self.templates[*template].name);
        let names: Vec<_> = names.filter_map(|name| name.parse().ok()).collect();
        let title = match names.as_slice() {
            [only] => format!("stage '{only}' cannot be its own input"),
            _ => format!("cycle: {}", Cycle(names)),
        };
        let words = self.axes.words(self.possible[first.0], self.point(first.0, first.1));
        let at = if words.is_empty() { words } else { format!("at {words}") };
        Mistake::at(span, title)
            .help("connect one of these ports to another stage, or drop it")
            .help(at)
    }

    fn name(&self, template: usize, set: AxisSet, point: &[u32]) -> Cow<'t, str> {
        let name = self.templates[template].name;
        match set {
            0 => Cow::Borrowed(name),
            _ => Cow::Owned(format!("{name}@{}", self.axes.words(set, point))),
        }
    }

    /// The name of the instance that a reference leads to from a point.
    fn instance(
        &self,
        text: &str,
        span: Span,
        point: &[u32],
        sets: &[Vec<AxisSet>],
    ) -> Result<Cow<'t, str>, Mistake> {
        let target =
            self.target(text, point).map_err(|wrong| self.wrong(text, span.clone(), wrong))?;
        let name = self.templates[target.template].name;
        let Some(place) = self.place(&target) else {
            let words = self.axes.words(self.possible[target.template], &target.point);
            let title = format!("'{name}' does not exist at {words}");
            return Err(Mistake::at(span, title).help("the matrix excludes this point"));
        };
        let set = sets[target.template][place];
        if let Some((_, axis)) =
            self.axes.iter().enumerate().find(|(axis, _)| target.pins & !set & (1 << axis) != 0)
        {
            let title = format!("'{name}' does not depend on '{}'", axis.name);
            return Err(Mistake::at(span, title).help(format!("write \"{name}\"")));
        }
        Ok(self.name(target.template, set, &target.point))
    }

    fn wrong(&self, text: &str, span: Span, wrong: Wrong<'_>) -> Mistake {
        match wrong {
            Wrong::All => {
                let title = format!("'{text}' names several instances, which is not supported yet");
                Mistake::at(span, title).help("name one: STAGE or STAGE@AXIS=VALUE")
            }
            Wrong::Form => Mistake::at(span, format!("'{text}' is not the name of an instance"))
                .help("write STAGE@AXIS=VALUE, with commas between several"),
            Wrong::NoAxis(name) => self.axes.no_axis(name, span),
            Wrong::NoValue(axis, value) => self.axes.get(axis).no_value(value, span),
            Wrong::NoStage(name) => {
                let names = || self.templates.iter().map(|template| template.name);
                let mistake = Mistake::at(span, format!("there is no stage '{name}'"));
                match did_you_mean(name, names()) {
                    Some(hint) => mistake.and(&hint),
                    None => mistake.help(format!("the stages are {}", listed(names(), "and"))),
                }
            }
        }
    }

    /// The instances, each with its values and the names of its inputs.
    fn build(
        &self,
        sets: &[Vec<AxisSet>],
        mut once: Once,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Expanded<'t, 'i>> {
        let mut instances: Vec<Instance<'t, 'i>> = Vec::new();
        let mut wrong = Vec::new();
        let mut is_named = true;
        for (number, template) in self.templates.iter().enumerate() {
            let Template { name, span, value, .. } = template;
            let mut seen = HashSet::new();
            for (place, &set) in sets[number].iter().enumerate() {
                let point = self.point(number, place);
                if !seen.insert((set, self.axes.rank(set, point))) {
                    continue;
                }
                let mut instance = Instance {
                    name: self.name(number, set, point),
                    template: name,
                    span: span.clone(),
                    value: Cow::Borrowed(*value),
                    defaults: Vec::new(),
                };
                if instance.name.len() > LONGEST_INSTANCE && set != 0 {
                    let title =
                        format!("the name of an instance has at most {LONGEST_INSTANCE} bytes");
                    mistakes.push(Mistake::at(span.clone(), title).help(format!(
                        "{} has {}; shorten the names of the stage, of axes or of points",
                        instance.name,
                        instance.name.len()
                    )));
                    is_named = false;
                    break;
                }
                if value.get_ref().is_table() {
                    let mut found = Vec::new();
                    let variant = template.at(&self.axes, point);
                    let (mut table, defaults) = variant.table(&self.axes, point, &mut found);
                    for port in &variant.ports {
                        let Some(value) = table.get_mut(port.as_str()) else { continue };
                        rename(value, &mut |text, span| {
                            let name = self.instance(text, span, point, sets);
                            name.map(Cow::into_owned).map_err(|mistake| found.push(mistake)).ok()
                        });
                    }
                    wrong.extend(found.iter().filter_map(|mistake| mistake.span().cloned()));
                    once.add(instances.len(), found, mistakes);
                    let table = DeValue::Table(table);
                    instance.value = Cow::Owned(Spanned::new(value.span(), table));
                    instance.defaults = defaults;
                }
                instances.push(instance);
            }
        }
        wrong.iter().for_each(|span| once.close(span));
        let used = self.templates.iter().fold(0, |set, template| set | template.mentioned());
        let unused = self.axes.iter().enumerate().filter(|(axis, _)| used & (1 << axis) == 0);
        let unused = unused.map(|(_, axis)| (axis.name.to_owned(), axis.span.clone())).collect();
        is_named.then_some(Expanded { instances, once, unused })
    }
}

/// Replaces every text in a value for which there is a new one.
fn rename(value: &mut Value<'_>, new: &mut impl FnMut(&str, Span) -> Option<String>) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => {
            if let Some(name) = new(text, span).filter(|name| name != text) {
                *text = Cow::Owned(name);
            }
        }
        DeValue::Array(items) => items.iter_mut().for_each(|item| rename(item, new)),
        DeValue::Table(table) => table.iter_mut().for_each(|(_, item)| rename(item, new)),
        _ => {}
    }
}
