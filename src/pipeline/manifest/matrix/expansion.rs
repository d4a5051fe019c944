//! From the stages as they are written to their instances: what references lead to, and which axes an instance has.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pipeline_stages::PortShape;
use toml::Spanned;
use toml::de::DeValue;

use super::super::hint::{did_you_mean, listed};
use super::super::values::{Value, beginnings};
use super::instance::Instance;
use super::once::Once;
use super::placeholder::{Text, each_text};
use super::points::{Axes, AxisSet, Placeholders, Points, Projection, scalar_text};
use super::reference::{Pin, Reference, Wrong};
use super::templates::{Template, Variant};
use crate::diagnostic::{Mistake, Span};
use crate::graph::Cycle;
use crate::stage_name::LONGEST_INSTANCE;

/// All instances of a manifest.
pub(in crate::manifest) struct Expanded<'t, 'i> {
    /// By stage in the file's order, then by point.
    pub(in crate::manifest) instances: Vec<Instance<'t, 'i>>,
    /// Which places are reported already.
    pub(in crate::manifest) once: Once,
    /// The axes that no stage uses, with their places.
    pub(in crate::manifest) unused: Vec<(String, Span)>,
    /// Where `${...}` is replaced, and what it can be there.
    pub(in crate::manifest) placeholders: Placeholders,
    /// The axes. `None` without a matrix.
    pub(in crate::manifest) axes: Option<Axes<'t, 'i>>,
}

/// All templates, and what their references lead to.
pub(super) struct Expansion<'t, 'i> {
    axes: Axes<'t, 'i>,
    points: Points,
    templates: Vec<Template<'t, 'i>>,
    by_name: HashMap<&'t str, usize>,
    /// Per template, the axes that it can depend on, itself or through its inputs.
    possible: Vec<AxisSet>,
    /// Per template, the points as far as these axes tell them apart.
    projections: Vec<Rc<Projection>>,
    /// Per template and set of axes, the places of its points by their rank on these axes.
    by_rank: RefCell<HashMap<(usize, AxisSet), Rc<Ranks>>>,
}

/// The places of points, by their rank.
type Ranks = HashMap<u64, Vec<usize>>;

/// The names of the instances that a reference means.
enum Meaning<'t> {
    One(Cow<'t, str>),
    All(Vec<Cow<'t, str>>),
}

impl<'t, 'i> Expansion<'t, 'i> {
    pub(super) fn new(
        axes: Axes<'t, 'i>,
        points: Points,
        templates: Vec<Template<'t, 'i>>,
    ) -> Self {
        let names = templates.iter().enumerate();
        let by_name: HashMap<_, _> = names.map(|(place, one)| (one.name, place)).collect();
        let mut cache: HashMap<AxisSet, Rc<Projection>> = HashMap::new();
        let mut project = |set| {
            let projection = cache.entry(set).or_insert_with(|| axes.project(&points, set).into());
            Rc::clone(projection)
        };
        // The stages that each is read by, at any point, with the axes on which these do not follow it.
        let mut readers: Vec<Vec<(usize, AxisSet)>> =
            templates.iter().map(|_| Vec::new()).collect();
        for (place, template) in templates.iter().enumerate() {
            let mut link = |shape: PortShape, text: &str| {
                let reference = Reference::read(text, shape, &axes);
                if let Ok(Reference { name, own, .. }) = reference
                    && let Some(&from) = by_name.get(name)
                {
                    readers[from].push((place, own));
                }
            };
            for variant in &template.variants {
                for entry in &variant.entries {
                    let Some(shape) = variant.port(entry.key.as_ref()) else { continue };
                    entry.node.each_text(&mut |text| match text {
                        Text::Plain(text, _) => link(shape, text),
                        Text::Pieces(..) => {
                            for &point in &project(text.axes()).first {
                                let value = text.at(&axes, points.get(point as usize));
                                value.iter().for_each(|text| link(shape, text));
                            }
                        }
                    });
                }
                for &axis in &variant.with {
                    let fields =
                        axes.get(axis).values.iter().filter_map(|value| value.fields).flatten();
                    for (key, value) in fields {
                        let Some(shape) = variant.port(key.as_ref()) else { continue };
                        each_text(value, &mut |text, _| link(shape, text));
                    }
                }
            }
        }
        let mut possible: Vec<AxisSet> = templates.iter().map(Template::axes).collect();
        let mut changed: Vec<usize> = (0..templates.len()).collect();
        while let Some(from) = changed.pop() {
            for &(reader, own) in &readers[from] {
                let all = possible[reader] | possible[from] & !own;
                if all != possible[reader] {
                    possible[reader] = all;
                    changed.push(reader);
                }
            }
        }
        let projections = possible.iter().map(|&set| project(set)).collect();
        let by_rank = RefCell::default();
        Self { axes, points, templates, by_name, possible, projections, by_rank }
    }

    fn point(&self, template: usize, place: usize) -> &[u32] {
        self.points.get(self.projections[template].first[place] as usize)
    }

    /// The template that a reference is about, and the places of its points that the reference leads to from a point.
    /// Empty where they are excluded.
    fn places(&self, reference: &Reference<'_>, point: &[u32]) -> Option<(usize, Vec<usize>)> {
        let template = *self.by_name.get(reference.name)?;
        let possible = self.possible[template];
        let mut target = Cow::Borrowed(point);
        let mut joined = possible & !reference.own;
        for (axis, values) in &reference.pins {
            if let [value] = values.as_slice() {
                target.to_mut()[*axis] = *value;
                joined |= possible & 1 << axis;
            }
        }
        let projection = &self.projections[template];
        if !reference.takes_all {
            let place = projection.place(self.axes.rank(possible, &target));
            return Some((template, place.into_iter().collect()));
        }
        let mut by_rank = self.by_rank.borrow_mut();
        let ranks = by_rank.entry((template, joined)).or_insert_with(|| {
            let mut ranks = Ranks::new();
            for place in 0..projection.first.len() {
                let rank = self.axes.rank(joined, self.point(template, place));
                ranks.entry(rank).or_default().push(place);
            }
            Rc::new(ranks)
        });
        let places = ranks.get(&self.axes.rank(joined, &target)).into_iter().flatten().copied();
        let is_meant = |place: &usize| {
            let point = self.point(template, *place);
            reference.pins.iter().all(|(axis, values)| values.contains(&point[*axis]))
        };
        Some((template, places.filter(is_meant).collect()))
    }

    /// The references of a stage at a point, each with the places that it leads to.
    fn each_reference(
        &self,
        template: usize,
        place: usize,
        mut each: impl FnMut(&Reference<'_>, usize, &[usize], &Span),
    ) {
        let point = self.point(template, place);
        let stage = self.templates[template].at(&self.axes, point);
        let filter = self.filter(stage, point, &mut Vec::new());
        stage.inputs(&self.axes, point, |shape, text, span| {
            let Ok(mut reference) = Reference::read(text, shape, &self.axes) else { return };
            if shape == PortShape::Instances {
                reference.pins.extend(filter.iter().cloned());
            }
            if let Some((template, places)) = self.places(&reference, point) {
                each(&reference, template, &places, span);
            }
        });
    }

    /// Per template and point, the axes that it uses there, itself or through its inputs.
    ///
    /// # Errors
    /// The first cycle.
    pub(super) fn resolve(&self) -> Result<Vec<Vec<AxisSet>>, Mistake> {
        let lengths = self.projections.iter().map(|projection| projection.first.len());
        let mut known: Vec<Vec<Option<AxisSet>>> = lengths.map(|count| vec![None; count]).collect();
        // Not recursive: a chain of stages may be long. Depth first; with each, whether its inputs were put above it.
        let mut stack: Vec<((usize, usize), bool)> = Vec::new();
        let mut open = HashSet::new();
        let all = (0..self.templates.len()).flat_map(|template| {
            (0..self.projections[template].first.len()).map(move |place| (template, place))
        });
        for start in all {
            stack.push((start, false));
            while let Some((node, is_open)) = stack.pop() {
                let (template, place) = node;
                if known[template][place].is_some() {
                    continue;
                }
                if is_open {
                    let point = self.point(template, place);
                    let mut set =
                        self.templates[template].at(&self.axes, point).axes_at(&self.axes, point);
                    self.each_reference(template, place, |reference, target, places, _| {
                        let sets = places.iter().filter_map(|&place| known[target][place]);
                        sets.filter(|axes| reference.can_mean(*axes))
                            .for_each(|axes| set |= axes & !reference.own);
                    });
                    known[template][place] = Some(set);
                    open.remove(&node);
                    continue;
                }
                stack.push((node, true));
                open.insert(node);
                let mut cycle = None;
                self.each_reference(template, place, |_, target, places, span| {
                    for input in places.iter().map(|&place| (target, place)) {
                        if open.contains(&input) {
                            cycle.get_or_insert_with(|| (input, span.clone()));
                        } else if known[input.0][input.1].is_none() {
                            stack.push((input, false));
                        }
                    }
                });
                if let Some((first, span)) = cycle {
                    let path = stack.iter().filter(|(_, is_open)| *is_open);
                    let path: Vec<_> = path.map(|(node, _)| *node).collect();
                    return Err(self.cycle_mistake(&path, first, span));
                }
            }
        }
        let known = known.into_iter();
        Ok(known.map(|sets| sets.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    /// The mistake of stages that read each other: each on the path reads the one after it, and the last one `first`.
    fn cycle_mistake(&self, path: &[(usize, usize)], first: (usize, usize), span: Span) -> Mistake {
        let start = path.iter().position(|one| *one == first).unwrap_or(0);
        let names = path[start..].iter().rev().map(|(template, _)| self.templates[*template].name);
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

    /// The instances that a reference means at a point.
    fn meaning(
        &self,
        text: &str,
        span: &Span,
        (shape, filter): (PortShape, &[Pin]),
        point: &[u32],
        sets: &[Vec<AxisSet>],
    ) -> Result<Meaning<'t>, Mistake> {
        let wrong = |wrong| self.wrong(text, span.clone(), wrong);
        let mut reference = Reference::read(text, shape, &self.axes).map_err(wrong)?;
        if shape == PortShape::Instances {
            reference.pins.extend(filter.iter().cloned());
        }
        let Some((template, places)) = self.places(&reference, point) else {
            return Err(wrong(Wrong::NoStage(reference.name)));
        };
        let name = self.templates[template].name;
        if places.is_empty() && !reference.takes_all {
            let mut target = point.to_vec();
            reference.pins.iter().for_each(|(axis, values)| target[*axis] = values[0]);
            let words = self.axes.words(self.possible[template], &target);
            let title = format!("'{name}' does not exist at {words}");
            return Err(Mistake::at(span.clone(), title).help("the matrix excludes this point"));
        }
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for place in
            places.iter().copied().filter(|&place| reference.can_mean(sets[template][place]))
        {
            let (set, found) = (sets[template][place], self.point(template, place));
            if seen.insert((set, self.axes.rank(set, found))) {
                names.push(self.name(template, set, found));
            }
        }
        if reference.takes_all && !names.is_empty() {
            return Ok(Meaning::All(names));
        }
        if let Some(name) = names.pop() {
            return Ok(Meaning::One(name));
        }
        let used = places.iter().fold(0, |set, &place| set | sets[template][place]);
        let unused = reference.pins.iter().find(|(axis, _)| used & (1 << axis) == 0);
        Err(match unused.filter(|_| !places.is_empty()) {
            Some((axis, _)) => {
                let axis = self.axes.get(*axis).name;
                let title = format!("'{name}' does not depend on '{axis}'");
                Mistake::at(span.clone(), title).help(match shape {
                    PortShape::Instances => format!("drop '{axis}' from 'where'"),
                    _ => format!("write \"{name}\""),
                })
            }
            None => {
                let title = format!("there is no instance of '{name}' at these values");
                Mistake::at(span.clone(), title).help("the matrix excludes all of them")
            }
        })
    }

    /// At which values a stage takes all instances of another one: its parameter `where`.
    fn filter(&self, stage: &Variant<'t, 'i>, point: &[u32], found: &mut Vec<Mistake>) -> Vec<Pin> {
        if stage.ports.iter().all(|(_, shape)| *shape != PortShape::Instances) {
            return Vec::new();
        }
        let value = stage.value("where", &self.axes, point);
        let Some(table) = value.as_ref().and_then(|value| value.get_ref().as_table()) else {
            return Vec::new();
        };
        let mut pins = Vec::new();
        for (key, value) in table {
            let Some(place) = self.axes.find(key.as_ref()) else {
                found.push(self.axes.no_axis(key.as_ref(), key.span()));
                continue;
            };
            let items = match value.get_ref() {
                DeValue::Array(items) => items.iter().collect(),
                _ => vec![value],
            };
            let axis = self.axes.get(place);
            let mut digits = Vec::new();
            for item in items {
                let Some(text) = scalar_text(item.get_ref()) else { continue };
                match axis.place(&text) {
                    Some(digit) => digits.push(digit),
                    None => found.push(axis.no_value(&text, item.span())),
                }
            }
            if !digits.is_empty() {
                pins.push((place, digits));
            }
        }
        pins
    }

    fn wrong(&self, text: &str, span: Span, wrong: Wrong<'_>) -> Mistake {
        match wrong {
            Wrong::All => {
                let title =
                    format!("'{text}' means all instances, but this port does not take several");
                let help = "name one: STAGE or STAGE@AXIS=VALUE; `inputs` of a command and `of` of a summary take all";
                Mistake::at(span, title).help(help)
            }
            Wrong::Pinned => {
                let name = text.split_once('@').map_or(text, |(name, _)| name);
                let title = format!("this port takes all instances of '{name}'");
                let help =
                    format!("write \"{name}\", and where = {{ AXIS = VALUE }} for some of them");
                Mistake::at(span, title).help(help)
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
    pub(super) fn build(
        self,
        sets: &[Vec<AxisSet>],
        mut once: Once,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Expanded<'t, 'i>> {
        let mut instances: Vec<Instance<'t, 'i>> = Vec::new();
        let mut wrong = Vec::new();
        let misnamed = beginnings(self.templates.iter().map(|template| template.name));
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
                    lists: Vec::new(),
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
                    let filter = self.filter(variant, point, &mut found);
                    if !found.is_empty()
                        && let Some(value) = table.get("where")
                    {
                        wrong.push(value.span());
                    }
                    for (port, shape) in &variant.ports {
                        let Some(value) = table.get_mut(port.as_str()) else { continue };
                        let at_port = (*shape, filter.as_slice());
                        connect(value, &mut instance.lists, &mut |text, span| {
                            if misnamed.iter().any(|start| text.starts_with(start)) {
                                wrong.push(span.clone());
                                return None;
                            }
                            let meaning = self.meaning(text, span, at_port, point, sets);
                            meaning.map_err(|mistake| found.push(mistake)).ok()
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
        let placeholders = self.axes.placeholders();
        let axes = Some(self.axes);
        is_named.then_some(Expanded { instances, once, unused, placeholders, axes })
    }
}

/// Replaces every text in a value by the name of the instance that it means; where it means all, by a list of them,
/// whose place is added to `lists`.
fn connect<'t>(
    value: &mut Value<'_>,
    lists: &mut Vec<Span>,
    meaning: &mut impl FnMut(&str, &Span) -> Option<Meaning<'t>>,
) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => match meaning(text, &span) {
            Some(Meaning::One(name)) if name != *text => *text = Cow::Owned(name.into_owned()),
            Some(Meaning::All(names)) => {
                let names = names.into_iter().map(|name| Cow::Owned(name.into_owned()));
                let names = names.map(|name| Spanned::new(span.clone(), DeValue::String(name)));
                *value = Spanned::new(span.clone(), DeValue::Array(names.collect()));
                lists.push(span);
            }
            _ => {}
        },
        DeValue::Array(items) => items.iter_mut().for_each(|item| connect(item, lists, meaning)),
        DeValue::Table(table) => {
            table.iter_mut().for_each(|(_, item)| connect(item, lists, meaning));
        }
        _ => {}
    }
}
