//! From the stages as they are written to their instances: what references lead to, and which axes an instance has.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use toml::Spanned;
use toml::de::DeValue;

use super::super::hint::{did_you_mean, listed};
use super::super::values::Value;
use super::instance::Instance;
use super::once::Once;
use super::placeholder::{Text, each_text};
use super::points::{Axes, AxisSet, Points, Projection};
use super::templates::Template;
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
    pub(super) fn resolve(&self) -> Result<Vec<Vec<AxisSet>>, Mistake> {
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
    pub(super) fn build(
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
