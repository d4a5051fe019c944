//! One stage by itself: its kind, its parameters, what its ports name.
//!
//! Does not depend on the other stages.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use pipeline_stages::kind::{Problem, Why, WithoutEffect};
use pipeline_stages::parameter::{Condition, Field};
use pipeline_stages::point::Point;
use pipeline_stages::text::in_short;
use pipeline_stages::{
    ArtifactType, Cores, KINDS, KindConfig, KindInfo, Port, PortShape, kind_info,
};
use serde::de::value::MapDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::declaration::{Connection, Stage, StageFile};
use super::execution::{STAGE_EXECUTION_KEYS, StageExecution, kind_mistake, read_for_one};
use super::hint::{did_you_mean, listed, nearest};
use super::include::Included;
use super::matrix::{Instance, no_axis};
use super::places::ValuePlaces;
use super::ports::{Ports, Wire};
use super::secrets::has_password;
use super::settings::Settings;
use super::values::{
    NO_MATRIX, Value, about, not_a_table, nul_mistake, range_mistake, text, type_mistake,
    whole_number, with_nul,
};
use crate::diagnostic::{MOST_SHOWN, Mistake, Sources, Span};
use crate::stage_name::{StageName, check_name};

/// The keys that every stage may have, beside its ports and parameters.
pub(super) const COMMON_KEYS: [&str; 3] = ["kind", "seed", "execution"];

/// A stage as far as it could be read.
pub(super) struct Draft<'t> {
    /// The name as it is written, valid or not; that of an instance has its point.
    pub(super) text: &'t str,
    /// The name of the stage in the manifest, which several instances may have.
    pub(super) template: &'t str,
    /// The name; `None` if it is not a valid one.
    pub(super) name: Option<StageName>,
    /// Where the name is.
    pub(super) span: Span,
    /// The type of its output; `None` if a mistake leaves that open.
    pub(super) output: Option<ArtifactType>,
    /// What its ports name.
    pub(super) wires: Vec<Wire<'t>>,
    /// The ports that it needs and does not name.
    pub(super) missing: Vec<&'static Port>,
    stage: Option<KindConfig>,
    seed: Option<u64>,
    execution: StageExecution,
    places: ValuePlaces,
    /// Mistakes about the points of the instances that it takes together.
    pub(super) about_points: Vec<Mistake>,
}

impl Draft<'_> {
    /// The relative paths that are from a `[defaults.KIND]` in another folder than the stage. A stage looks for its paths beside its own
    /// file: there, another file may have the same name.
    pub(super) fn foreign_paths(&self, folder: &Path, included: &[Included]) -> Vec<Mistake> {
        let (Some(stage), Some(first)) = (&self.stage, included.first()) else { return Vec::new() };
        let folder_of = |span: &Span| match included.iter().find(|file| file.has(span)) {
            Some(file) => Some(file.folder.as_path()),
            // What is not in the manifest either is on the command line.
            None => Some(folder).filter(|_| span.start < first.start),
        };
        let real = |folder: &Path| folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let Some(own) = folder_of(&self.span) else { return Vec::new() };
        let paths = stage.outside_paths();
        let relative = paths.iter().filter(|outside| !outside.path.starts_with('/'));
        let mut foreign: BTreeMap<&str, (Span, Vec<String>)> = BTreeMap::new();
        for outside in relative {
            let span = self.places.find(outside.parameter, None);
            if folder_of(&span).is_some_and(|there| there != own && real(there) != real(own)) {
                let (_, paths) = foreign.entry(outside.parameter).or_insert((span, Vec::new()));
                paths.push(format!("'{}'", outside.path));
            }
        }
        let foreign = foreign.into_values().map(|(span, paths)| {
            let title = format!(
                "the stage '{}' is in another folder than this value, and would look for {} there",
                self.template,
                in_short(paths, 3)
            );
            let help = "write an absolute path, or move the value to the stage: there, a path is relative to its file";
            Mistake::at(span, title).help(help)
        });
        foreign.collect()
    }

    /// The stage, if nothing is wrong with it and its wires lead to stages.
    pub(super) fn finish(
        self,
        experiment_seed: u64,
        included: &[Included],
        sources: &Sources,
    ) -> Option<Stage> {
        let file = included.iter().find(|file| file.has(&self.span));
        let file = file.map(|Included { name, folder, .. }| StageFile {
            name: name.clone(),
            folder: folder.clone(),
        });
        let mut inputs = BTreeMap::<_, Vec<Connection>>::new();
        for wire in self.wires {
            inputs.entry(wire.port.name()).or_default().push(wire.connection()?);
        }
        // All instances of a stage are in an order of their own: that of an axis can change no result.
        for connections in inputs.values_mut() {
            let are_one = |one: &Connection, other: &Connection| {
                one.among_all && other.among_all && one.name == other.name
            };
            for all in connections.chunk_by_mut(are_one) {
                all.sort_by(|one, other| one.from.cmp(&other.from));
            }
        }
        Some(Stage {
            name: self.name?,
            stage: self.stage?,
            inputs,
            seed: self.seed.unwrap_or(experiment_seed),
            uses_clean_labels: false,
            execution: self.execution,
            line: sources.line(&self.span),
            file,
            places: self.places,
        })
    }
}

/// Reads one stage.
pub(super) fn read<'t>(
    instance: &'t Instance<'_, '_>,
    settings: Settings<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Draft<'t> {
    let Instance { name: text, template, span, value, defaults, lists } = instance;
    let (value, span) = (value.as_ref(), span.clone());
    let name = check_name(template).and_then(|()| text.parse::<StageName>());
    let name = name.map_err(|reason| mistakes.push(name_mistake(template, &span, &reason))).ok();
    let mut draft = Draft {
        text,
        template,
        name,
        places: ValuePlaces::new(span.clone(), value.get_ref().as_table()),
        span,
        output: None,
        wires: Vec::new(),
        missing: Vec::new(),
        stage: None,
        seed: None,
        execution: settings.execution.clone(),
        about_points: Vec::new(),
    };
    let DeValue::Table(table) = value.get_ref() else {
        let help = format!("a stage is a table: [stages.{template}] and, below it, kind = \"...\"");
        mistakes.push(not_a_table(template, value).help(help));
        return draft;
    };
    if let Some(value) = table.get("execution") {
        draft.execution = read_for_one(value, settings.execution, mistakes);
    }
    let Some(kind) = read_kind(&draft, table, mistakes) else { return draft };
    draft.seed = read_seed(kind, table, mistakes);
    mistakes.extend(table.get("execution").and_then(|value| kind_mistake(kind, value)));
    let unknown = unknown_keys(kind, table, mistakes);
    let ports = Ports::read(kind, table, lists, mistakes);
    draft.wires = ports.wires;
    draft.missing = ports.missing;
    // Those whose name is only misspelt are reported already.
    draft.missing.retain(|port| !unknown.meant.contains(port.name().as_str()));
    draft.output = fixed_output(kind);
    let right = parameter_mistakes(kind, &draft.span, table, &unknown, mistakes);
    let mut left_out = Vec::new();
    draft.stage = read_parameters(kind, table, &left_out);
    while let Some(more) = without_effect(draft.stage.as_ref(), defaults, &left_out) {
        left_out.extend(more);
        draft.stage = read_parameters(kind, table, &left_out);
    }
    let is_many = draft.stage.as_ref().is_none_or(|stage| stage.cores() == Cores::Many);
    if let Some(value) = table.get("execution").filter(|_| !is_many) {
        draft.execution.take_for_threads(value);
    }
    let points = points(&draft, lists);
    let axes = match &mut draft.stage {
        Some(stage) => correct_axes(stage, table, &draft.places, settings.axes),
        None => Axes::default(),
    };
    if let Some(stage) = &mut draft.stage {
        stage.place_axes(settings.swept, &points);
    }
    // A rule over several parameters is of little use where one of them is wrong or misspelt.
    if let Some(stage) = draft.stage.as_ref().filter(|_| right && unknown.is_none) {
        let found = mistakes.len();
        let is_other = |mistake: &Mistake| !axes.mistakes.iter().any(|axis| axis.is_at(mistake));
        let broken = rule_mistakes(stage, &draft.places, table, settings);
        mistakes.extend(broken.into_iter().filter(is_other));
        if axes.are_known {
            draft.about_points = point_mistakes(stage, &points, &draft.places);
            draft.about_points.retain(is_other);
        }
        let mut passwords = Vec::new();
        table.iter().for_each(|(_, value)| refuse_passwords(value, &mut passwords));
        // The kind's own rules know where a login belongs.
        let refused = mistakes.split_off(found);
        passwords.retain(|password| !refused.iter().any(|mistake| mistake.is_at(password)));
        mistakes.extend(refused.into_iter().chain(passwords));
        mistakes.extend(effect_mistakes(stage, table, defaults));
        draft.output = Some(stage.output());
    }
    mistakes.extend(axes.mistakes);
    draft
}

/// The axes that the parameters of a stage name.
struct Axes {
    /// Those that do not exist.
    mistakes: Vec<Mistake>,
    /// Whether it is known which ones are meant by these.
    are_known: bool,
}

impl Default for Axes {
    fn default() -> Self {
        Self { mistakes: Vec::new(), are_known: true }
    }
}

/// Reports the axes that the matrix does not have, regardless of the points of the stage's inputs, and puts the one that was probably meant in
/// the place of each.
fn correct_axes(
    stage: &mut KindConfig,
    table: &DeTable<'_>,
    places: &ValuePlaces,
    names: &[&str],
) -> Axes {
    let mut axes = Axes::default();
    if names.is_empty() {
        return axes;
    }
    stage.each_axis(&mut |field, item, name| {
        if names.contains(&name) {
            return None;
        }
        let key = table.get(field).and_then(|value| value.get_ref().as_table());
        let key = key.and_then(|table| table.get_key_value(name)).map(|(key, _)| key.span());
        let place = key.unwrap_or_else(|| places.find(field, item));
        axes.mistakes.push(no_axis(name, place, names));
        let meant = nearest(name, names.iter().copied());
        axes.are_known &= meant.is_some();
        meant.map(str::to_owned)
    });
    axes
}

/// Refuses a text with a password in a URL: what a manifest says is kept in keys, records and logs.
fn refuse_passwords(value: &Value<'_>, mistakes: &mut Vec<Mistake>) {
    match value.get_ref() {
        DeValue::String(text) if has_password(text) => mistakes.push(
            Mistake::at(value.span(), "a URL with a password would be kept in keys, records and logs").help(
                "let the program take it from its environment or from a file that is not in the manifest",
            ),
        ),
        DeValue::Array(items) => items.iter().for_each(|item| refuse_passwords(item, mistakes)),
        DeValue::Table(items) => items.iter().for_each(|(_, item)| refuse_passwords(item, mistakes)),
        _ => {}
    }
}

fn name_mistake(text: &str, span: &Span, reason: &str) -> Mistake {
    Mistake::at(span.clone(), format!("{text:?} cannot be the name of a stage: {reason}"))
}

fn read_kind(
    draft: &Draft<'_>,
    table: &DeTable<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<&'static KindInfo> {
    let kinds = || KINDS.iter().map(|kind| kind.name);
    let Some(value) = table.get("kind") else {
        let misspelt = table.keys().find(|key| nearest(key.as_ref(), ["kind"]).is_some());
        mistakes.push(match misspelt {
            Some(key) => {
                let given = key.get_ref();
                Mistake::at(key.span(), format!("unknown key '{given}', did you mean 'kind'?"))
            }
            None => Mistake::at(
                draft.span.clone(),
                format!("stage '{}' does not have a kind", draft.text),
            )
            .help(format!("add a line kind = \"...\", with one of {}", listed(kinds(), "and"))),
        });
        return None;
    };
    let name = text("kind", value).map_err(|mistake| mistakes.push(mistake)).ok()?;
    let kind = kind_info(name);
    if kind.is_none() {
        let title = format!("unknown kind '{name}'");
        mistakes.push(match did_you_mean(name, kinds()) {
            Some(hint) => Mistake::at(value.span(), format!("{title}, {hint}"))
                .help("`pipeline kinds` describes them all"),
            None => Mistake::at(value.span(), title)
                .help(format!("the kinds are {}", listed(kinds(), "and"))),
        });
    }
    kind
}

fn read_seed(kind: &KindInfo, table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Option<u64> {
    let value = table.get("seed")?;
    if !kind.seeded {
        let title =
            format!("'{}' does not draw random numbers, so it does not take a seed", kind.name);
        let key = table.get_key_value("seed").map_or(value.span(), |(key, _)| key.span());
        mistakes.push(Mistake::at(key, title).help("drop this line"));
        return None;
    }
    whole_number("seed", value, 0, u64::MAX).map_err(|mistake| mistakes.push(mistake)).ok()
}

/// The keys of a stage that its kind does not have.
struct Unknown {
    /// Whether there are none.
    is_none: bool,
    /// The keys that were probably meant by them.
    meant: HashSet<String>,
}

/// Reports every key that the kind does not have.
fn unknown_keys(kind: &KindInfo, table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Unknown {
    let fields = (kind.fields)();
    let is_known = |key: &str| {
        COMMON_KEYS.contains(&key)
            || fields.iter().any(|field| field.name == key)
            || (kind.ports)().iter().any(|port| port.name() == key)
    };
    let mut unknown: Vec<_> = table.keys().filter(|key| !is_known(key.get_ref())).collect();
    let mut meant = HashSet::new();
    // Most have none, and a matrix has many.
    if unknown.is_empty() {
        return Unknown { is_none: true, meant };
    }
    unknown.sort_by_key(|key| key.span().start);
    let ports: Vec<_> = (kind.ports)().iter().map(Port::name).collect();
    let parameters: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    let keys = ports.iter().map(String::as_str).chain(parameters.iter().copied());
    let keys: Vec<&str> = keys.chain(COMMON_KEYS).collect();
    for key in &unknown {
        let given: &str = key.as_ref();
        let mistake = Mistake::at(key.span(), format!("unknown key '{given}'"));
        let kinds = kinds_with(given);
        // What other kinds have is not misspelt, unless one letter tells it from a key of this one: `file` and `files`.
        let is_meant = |name: &&str| kinds.is_none() || strsim::osa_distance(name, given) <= 1;
        // What is not shown needs no hint.
        mistakes.push(if mistakes.len() >= MOST_SHOWN {
            mistake
        } else if STAGE_EXECUTION_KEYS.contains(&given) {
            Mistake::at(key.span(), format!("'{given}' belongs in the stage's 'execution'")).help(
                format!("write execution = {{ {given} = ... }}, as it cannot change the result"),
            )
        } else if let Some(name) = nearest(given, keys.iter().copied()).filter(is_meant) {
            meant.insert(name.to_owned());
            let field = fields.iter().find(|field| field.name == name);
            mistake
                .and(&format!("did you mean '{name}'?"))
                .help(field.map(about).unwrap_or_default())
        } else if let Some(kinds) = kinds {
            mistake.help(kinds).help(keys_of(kind, &ports, &parameters))
        } else if given == "with" {
            mistake.help(NO_MATRIX)
        } else {
            mistake.help(keys_of(kind, &ports, &parameters))
        });
    }
    Unknown { is_none: false, meant }
}

/// Which kinds have a key that another one does not have.
fn kinds_with(key: &str) -> Option<String> {
    let has = |kind: &&KindInfo| {
        (kind.fields)().iter().any(|field| field.name == key)
            || (kind.ports)().iter().any(|port| port.name() == key)
    };
    let kinds: Vec<_> = KINDS.iter().filter(has).map(|kind| kind.name).collect();
    (!kinds.is_empty()).then(|| format!("'{key}' is a key of {}", listed(kinds, "and")))
}

fn keys_of(kind: &KindInfo, ports: &[String], parameters: &[&str]) -> String {
    let ports = match ports {
        [] => "no ports".to_owned(),
        [port] => format!("the port {port}"),
        ports => format!("the ports {}", ports.join(", ")),
    };
    let parameters = match parameters {
        [] => "no parameters".to_owned(),
        [parameter] => format!("the parameter {parameter}"),
        parameters => format!("the parameters {}", parameters.join(", ")),
    };
    format!("'{}' has {ports}, and {parameters}", kind.name)
}

/// The defaults of the stage's kind that change nothing about it, beside those that are left out already. They count
/// as not set.
fn without_effect<'t>(
    stage: Option<&KindConfig>,
    defaults: &[&'t str],
    left_out: &[&str],
) -> Option<Vec<&'t str>> {
    let left = || defaults.iter().copied().filter(|key| !left_out.contains(key));
    let found = stage?.without_effect(&|name| left().any(|key| key == name));
    let is_found = |key: &&str| found.iter().any(|one| one.parameter == *key);
    let more: Vec<_> = left().filter(is_found).collect();
    (!more.is_empty()).then_some(more)
}

/// Reads all parameters at once, but for those that are left out. `None` where one of them is missing or wrong: [`parameter_mistakes`] reports
/// which, so what serde says about it is not needed.
fn read_parameters(kind: &KindInfo, table: &DeTable<'_>, left_out: &[&str]) -> Option<KindConfig> {
    let fields = (kind.fields)();
    let is_field =
        |key: &str| fields.iter().any(|field| field.name == key) && !left_out.contains(&key);
    let entries = table.iter().filter(|(key, _)| is_field(key.as_ref()));
    let entries = entries
        .map(|(key, value)| (key.get_ref().as_ref(), ValueDeserializer::from(value.clone())));
    KindConfig::read(kind.name, MapDeserializer::<_, toml::de::Error>::new(entries))?.ok()
}

/// Reports, parameter by parameter, what is missing, of a wrong type or out of range. Returns whether nothing
/// is.
fn parameter_mistakes(
    kind: &KindInfo,
    header: &Span,
    table: &DeTable<'_>,
    unknown: &Unknown,
    mistakes: &mut Vec<Mistake>,
) -> bool {
    let mut right = true;
    for field in (kind.fields)() {
        let mistake = match table.get(field.name.as_str()) {
            Some(value) => value_mistake(kind, field, value).or_else(|| {
                let text = with_nul(value)?;
                Some(nul_mistake(&field.name, text.span()))
            }),
            None if field.default.is_some() => None,
            None => {
                right = false;
                if unknown.meant.contains(&field.name) {
                    continue;
                }
                let title = format!("a stage of the kind '{}' needs '{}'", kind.name, field.name);
                Some(Mistake::at(header.clone(), title).help(about(field)))
            }
        };
        right &= mistake.is_none();
        mistakes.extend(mistake);
    }
    right
}

fn value_mistake(kind: &KindInfo, field: &Field, value: &Value<'_>) -> Option<Mistake> {
    match value.get_ref() {
        DeValue::String(line) if (kind.name, field.name.as_str()) == ("command", "run") => {
            Some(line_mistake(value, line))
        }
        _ => type_mistake(field, value)
            .map(|mistake| mistake.help(meaning_elsewhere(field, value).unwrap_or_default()))
            .or_else(|| range_mistake(field, value)),
    }
}

/// Which kind takes a value that this one does not, for the same parameter, and what it means there.
fn meaning_elsewhere(field: &Field, value: &Value<'_>) -> Option<String> {
    let given = value.get_ref().as_str()?;
    KINDS.iter().find_map(|kind| {
        let same = (kind.fields)().iter().find(|other| other.name == field.name)?;
        let choice = same.value_type.choices().iter().find(|choice| choice.name == given)?;
        Some(format!("'{}' takes it: {}", kind.name, choice.about))
    })
}

/// The mistake of a command that is one line of text, as in a shell.
fn line_mistake(value: &Value<'_>, line: &str) -> Mistake {
    let words: Vec<_> = line.split_whitespace().map(|word| format!("{word:?}")).collect();
    Mistake::at(value.span(), "'run' must be a list of text, but is text")
        .help(format!("without a shell: run = [{}]", words.join(", ")))
        .help(format!("with a shell: shell = {line:?}"))
}

/// The mistakes that the kind's own rules report. Each points at the value that it is about, or at the stage's name.
fn rule_mistakes(
    stage: &KindConfig,
    places: &ValuePlaces,
    table: &DeTable<'_>,
    settings: Settings<'_>,
) -> Vec<Mistake> {
    let info = stage.info();
    let mut connected = Vec::new();
    for port in (info.ports)().iter().map(Port::name) {
        // A port whose value is wrong is still one that the user means to connect.
        let is_connected = match table.get(port.as_str()).map(Spanned::get_ref) {
            Some(DeValue::Array(items)) => !items.is_empty(),
            Some(DeValue::Table(items)) => {
                let names = items.keys().map(|name| format!("{port}.{}", name.get_ref()));
                connected.extend(names);
                !items.is_empty()
            }
            other => other.is_some(),
        };
        connected.extend(is_connected.then_some(port));
    }
    let connected: Vec<_> = connected.iter().map(String::as_str).collect();
    let problems = stage.check(&connected).into_iter();
    let mistakes = problems.map(|problem| {
        let axis = || axis_in_run(table, &problem).filter(|_| !settings.replaces_axes);
        match axis() {
            Some(name) => no_matrix_mistake(&name, places.find(&problem.field, problem.item)),
            None => problem_mistake(info, problem, places),
        }
    });
    mistakes.collect()
}

/// The name that a wrong argument of `run` has as `${NAME}`, which an axis would have.
fn axis_in_run(table: &DeTable<'_>, problem: &Problem) -> Option<String> {
    let run = table.get("run").filter(|_| problem.field == "run")?.get_ref().as_array()?;
    let argument = run.get(problem.item?)?.get_ref().as_str()?;
    let mut given = argument.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let is_own = |name: &str| name == "output" || name.starts_with(['{', '"']);
    let (name, _) = given.find(|(name, _)| !is_own(name) && !name.starts_with("inputs."))?;
    let axis = name.split('.').next().unwrap_or(name);
    (!axis.is_empty()).then(|| axis.to_owned())
}

/// The mistake of an axis where there is none at all.
fn no_matrix_mistake(name: &str, place: Span) -> Mistake {
    let title = format!("there is no axis '{name}': the manifest does not have [matrix]");
    let plain = "a '${' that is meant as it is, is written '${{' here, and closed by '}}'";
    Mistake::at(place, title).help(NO_MATRIX).help(plain)
}

/// The points of all instances that a stage takes together. Empty if it does not, or a reference is wrong.
fn points(draft: &Draft<'_>, lists: &[Span]) -> Vec<Point> {
    let wires = draft.wires.iter().filter(|wire| wire.port.shape == PortShape::Instances);
    let names: Vec<StageName> = wires.filter_map(|wire| wire.text.parse().ok()).collect();
    // A reference that is wrong is reported already.
    let is_wrong = lists.is_empty() && names.iter().any(|name| name.point().next().is_some());
    let names = names.iter().filter(|_| !is_wrong);
    names.map(|name| name.point().collect()).collect()
}

/// The mistakes of a stage that takes all instances of another one, which are about their points.
fn point_mistakes(stage: &KindConfig, points: &[Point], places: &ValuePlaces) -> Vec<Mistake> {
    if points.is_empty() {
        return Vec::new();
    }
    let problems = stage.check_points(points).into_iter();
    problems.map(|problem| problem_mistake(stage.info(), problem, places)).collect()
}

pub(super) fn problem_mistake(kind: &KindInfo, problem: Problem, places: &ValuePlaces) -> Mistake {
    let field = (kind.fields)().iter().find(|field| field.name == problem.field);
    Mistake::at(places.find(&problem.field, problem.item), problem.message)
        .help(field.map(about).unwrap_or_default())
}

/// The parameters that the stage's own table sets without an effect.
fn effect_mistakes(stage: &KindConfig, table: &DeTable<'_>, defaults: &[&str]) -> Vec<Mistake> {
    let described = |conditions: &[Condition]| {
        let one = |condition: &Condition| match table.contains_key(condition.parameter.as_str()) {
            true => condition.to_string(),
            false => format!("{condition} (the default)"),
        };
        conditions.iter().map(one).collect::<Vec<_>>().join(" and ")
    };
    let is_set = |name: &str| table.contains_key(name) && !defaults.contains(&name);
    let found = stage.without_effect(&is_set).into_iter();
    found
        .filter_map(|WithoutEffect { parameter, why }| {
            let (key, _) = table.get_key_value(parameter.as_str())?;
            let (with, help) = match why {
                Why::Conditions { now, needed } => {
                    let needed = Condition::all_in_words(&needed);
                    (described(&now), format!("drop it, or set {needed}"))
                }
                Why::With(reason) => (reason.to_owned(), "drop it".to_owned()),
            };
            let title = format!("'{parameter}' has no effect with {with}");
            Some(Mistake::at(key.span(), title).help(help))
        })
        .collect()
}

/// What every stage of a kind produces; `None` if that depends on a parameter, which is one whose values are
/// artifact types.
pub(super) fn fixed_output(kind: &KindInfo) -> Option<ArtifactType> {
    let fields = (kind.fields)();
    let mut choices = fields.iter().flat_map(|field| field.value_type.choices());
    let depends = choices.any(|choice| choice.name == kind.output.name());
    (!depends).then_some(kind.output)
}
