//! What a stage kind is: the traits that every kind implements, and the types for its ports.

use std::cell::LazyCell;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::artifact::ArtifactType;
use crate::clean_labels::CleanLabels;
use crate::form::Form;
use crate::known::{Known, KnownInputs};
use crate::parameter::{Condition, Field};
use crate::point::Point;

/// A stage kind, as `kind!` declares it.
pub trait Kind: Rules + Serialize + DeserializeOwned + Clone + std::fmt::Debug {
    /// The name in a manifest.
    const NAME: &'static str;
    /// Bumped when the same key parts would produce another result. Enters the key.
    const VERSION: u32;
    /// Whether the kind draws random numbers, so that the seed enters the key.
    const SEEDED: bool;
    /// The type of its output ([`Rules::output`] can change it for one stage).
    const OUTPUT: ArtifactType;
    /// The metrics that the table at the end of a run shows.
    const HEADLINE: &'static [&'static str];

    /// The doc comment of the kind.
    fn about() -> &'static str;
    /// Its inputs.
    fn ports() -> &'static [Port];
    /// Its parameters.
    fn fields() -> &'static [Field];
    /// For each of its parameters, in their order, the number if it is one and given.
    fn numbers(&self) -> Vec<Option<f64>>;
}

/// What a kind can have beyond its declaration.
pub trait Rules {
    /// What is wrong with these parameters, given what is connected: the names of ports and, of a port that
    /// takes a table, those of its artifacts too (`inputs`, `inputs.data`).
    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        Vec::new()
    }

    /// What [`Rules::check`] asks of the text of a stage, as far as a schema can say it.
    fn forms() -> &'static [Form]
    where
        Self: Sized,
    {
        &[]
    }

    /// What is wrong with these parameters, given what is known of the inputs.
    fn check_inputs(&self, _inputs: &KnownInputs) -> Vec<Problem> {
        Vec::new()
    }

    /// What is wrong with these parameters, given the points of all instances at a port of the shape
    /// [`PortShape::Instances`].
    fn check_points(&self, _points: &[Point]) -> Vec<Problem> {
        Vec::new()
    }

    /// Calls `visit` with each axis that the parameters name: the parameter, its item where that is a list, and the name, which becomes
    /// what `visit` returns.
    fn each_axis(&mut self, _visit: &mut AxisVisitor<'_>) {}

    /// Gives these axes a place, where the points have them and the parameters do not say one: axes that the manifest
    /// itself does not have, so that nobody could write it there.
    fn place_axes(&mut self, _axes: &[&str], _points: &[Point]) {}

    /// Whether the stage runs without those instances at a port of the shape [`PortShape::Instances`] that have
    /// failed, once all others have ended.
    fn allows_missing(&self) -> bool {
        false
    }

    /// How many cores its body uses, where the user does not say it. The bodies with torch use many.
    fn cores(&self) -> Cores {
        Cores::One
    }

    /// What is known of the output before it exists, given what is known of the inputs.
    fn knows(&self, _inputs: &KnownInputs) -> Known {
        Known::default()
    }

    /// What labels that are known to be right do for the output by what the stage itself does, given what is known of the inputs: tables mark it, and all that follows
    /// from it.
    fn clean_labels(&self, _inputs: &KnownInputs) -> CleanLabels {
        CleanLabels::Unused
    }

    /// What follows for the output from what clean labels do for the input at a port. That they judged a training says nothing about its model.
    fn inherits_clean_labels(&self, _port: &str, of_input: CleanLabels) -> CleanLabels {
        match of_input {
            CleanLabels::Decide => CleanLabels::Decide,
            CleanLabels::Judge | CleanLabels::Unused => CleanLabels::Unused,
        }
    }

    /// Takes in what clean labels do for the instances at a port of the shape [`PortShape::Instances`], or for what they follow from, with their points.
    fn mark_clean_labels(&mut self, _instances: &[(Point, CleanLabels)]) {}

    /// The type of the output of this stage, where it depends on the parameters.
    fn output(&self) -> Option<ArtifactType> {
        None
    }

    /// The version of the results of this stage, where it is not that of the kind: if only stages with certain
    /// parameters produce other results than before, the others keep their keys.
    fn version(&self) -> Option<u32> {
        None
    }

    /// The largest seed that its draws can begin with.
    fn largest_seed(&self) -> u64 {
        u64::MAX
    }

    /// Files and folders outside the cache that the stage reads, as the manifest names them.
    /// Their content enters the key.
    fn outside_paths(&self) -> Vec<OutsidePath> {
        Vec::new()
    }

    /// What else is left out of the folders among [`Rules::outside_paths`]: see [`crate::left_out`].
    fn ignore(&self) -> &[String] {
        &[]
    }

    /// The parameters that enter the key; `effective` are those that can change a result: without those of
    /// groups whose `only if` does not hold.
    fn key_parameters(&self, effective: Map<String, Value>) -> Map<String, Value> {
        effective
    }

    /// The parameters (and `seed`) that cannot change anything beside the others, for a reason that `only if`
    /// cannot express. They stay in the key, where they have always been.
    fn without_effect(&self) -> Vec<WithoutEffect> {
        Vec::new()
    }
}

/// The largest seed of NumPy's legacy generator.
pub const LARGEST_NUMPY_SEED: u64 = u32::MAX as u64;

/// Is called with axes that parameters name: see [`Rules::each_axis`].
pub type AxisVisitor<'v> = dyn FnMut(&'static str, Option<usize>, &str) -> Option<String> + 'v;

/// How many cores a stage uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Hardly any: it waits for other machines.
    None,
    One,
    /// As many as it may: `threads` of its request.
    Many,
}

/// A file or folder outside the cache that a stage reads. Its content enters the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsidePath {
    /// As the manifest names it: relative to the manifest's folder, or absolute.
    pub path: String,
    /// The parameter that names it, as in a manifest.
    pub parameter: &'static str,
    /// Whether the stage can be planned without it: because it does not need it, or because its body reports best
    /// what to do. If it is missing, that enters the key in place of its content. A missing path that is not
    /// optional is a mistake.
    pub optional: bool,
    /// What it must be.
    pub form: PathForm,
    /// What of it counts.
    pub counts: Counts,
}

/// What a path must lead to, where it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PathForm {
    /// A file or a folder.
    #[default]
    Any,
    /// A file.
    File,
    /// A file with a noise matrix: see [`crate::matrix_file`].
    Matrix,
    /// A folder.
    Folder,
}

/// What counts of files and folders outside the cache, in addition to names and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// Nothing: the stage's body reads nothing else, so nothing else can change its result.
    Content,
    /// Whether a file is executable, and the targets of links: a program of the user may depend on these.
    Form,
}

impl OutsidePath {
    /// A path that must exist.
    pub(crate) fn required(parameter: &'static str, path: impl Into<String>) -> Self {
        let (form, counts) = (PathForm::Any, Counts::Content);
        Self { path: path.into(), parameter, optional: false, form, counts }
    }

    /// A file that must exist.
    pub(crate) fn file(parameter: &'static str, path: impl Into<String>) -> Self {
        Self { form: PathForm::File, ..Self::required(parameter, path) }
    }

    /// A file with a noise matrix that must exist.
    pub(crate) fn matrix(parameter: &'static str, path: impl Into<String>) -> Self {
        Self { form: PathForm::Matrix, ..Self::required(parameter, path) }
    }

    /// A path that a program of the user reads. It must exist.
    pub(crate) fn of_a_program(parameter: &'static str, path: impl Into<String>) -> Self {
        Self { counts: Counts::Form, ..Self::required(parameter, path) }
    }
}

/// A named input of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// The name in Rust (snake_case); [`Port::name`] is the one in a manifest.
    pub identifier: &'static str,
    /// The doc comment of the port.
    pub about: &'static str,
    /// How many artifacts it takes.
    pub shape: PortShape,
    /// The types that it takes; empty for any.
    pub accepts: &'static [ArtifactType],
}

/// How many artifacts a port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortShape {
    /// Exactly one: `data = "stage"`.
    One,
    /// One or none.
    Optional,
    /// One or more: `source = "stage"` or `source = ["stage", "other"]`.
    Many,
    /// None, one or more, in this order.
    OptionalMany,
    /// A table of any number of them: `inputs = { name = "stage" }`.
    Named,
    /// All instances of a stage: `of = "stage"`. The parameter `where`, if the kind has one, says at which points.
    Instances,
}

impl Port {
    /// The name in a manifest.
    pub fn name(&self) -> String {
        crate::parameter::kebab_case(self.identifier)
    }

    /// Whether the port takes an artifact of this type.
    pub fn takes(&self, artifact: ArtifactType) -> bool {
        self.accepts.is_empty() || self.accepts.contains(&artifact)
    }

    /// Whether a stage is invalid without it.
    pub fn required(&self) -> bool {
        matches!(self.shape, PortShape::One | PortShape::Many | PortShape::Instances)
    }
}

/// A mistake in the parameters of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The parameter (or port) that it is about, as a manifest names it.
    pub field: String,
    /// The item that it is about, from 0, where the parameter is a list.
    pub item: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem with one parameter.
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), item: None, message: message.into() }
    }

    /// The same problem, with one item of the list.
    pub(crate) fn with_item(self, item: usize) -> Self {
        Self { item: Some(item), ..self }
    }
}

/// The program that runs the bodies of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerProgram {
    /// `pipeline` itself, under a hidden subcommand.
    Prepare,
    /// `pipeline-learn`, which loads libtorch.
    Learn,
}

/// What is known about a kind without a stage of it.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The name in a manifest.
    pub name: &'static str,
    /// What it does.
    pub about: fn() -> &'static str,
    pub version: u32,
    pub seeded: bool,
    pub output: ArtifactType,
    pub headline: &'static [&'static str],
    /// Its inputs.
    pub ports: fn() -> &'static [Port],
    /// Its parameters.
    pub fields: fn() -> &'static [Field],
    /// What its rules ask of the text of a stage.
    pub forms: fn() -> &'static [Form],
    /// Who runs it.
    pub worker: WorkerProgram,
}

impl KindInfo {
    pub(crate) const fn of<K: Kind>(worker: WorkerProgram) -> Self {
        Self {
            name: K::NAME,
            about: K::about,
            version: K::VERSION,
            seeded: K::SEEDED,
            output: K::OUTPUT,
            headline: K::HEADLINE,
            ports: K::ports,
            fields: K::fields,
            forms: K::forms,
            worker,
        }
    }
}

/// Every problem of a stage's parameters: numbers out of range, then the kind's own rules.
pub(crate) fn check<K: Kind>(parameters: &K, connected: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (Field { name, range, .. }, number) in K::fields().iter().zip(parameters.numbers()) {
        if let (Some(range), Some(number)) = (range, number)
            && !range.contains(number)
        {
            let message = format!("'{name}' must be {range}, but is {number}");
            problems.push(Problem::new(name, message));
        }
    }
    problems.extend(parameters.check(connected));
    problems
}

/// All parameters, with defaults filled in.
fn all_parameters<K: Kind>(parameters: &K) -> Map<String, Value> {
    let Ok(Value::Object(all)) = serde_json::to_value(parameters) else {
        unreachable!("the parameters of a kind are a struct of plain data");
    };
    all
}

/// The parameters that enter the key, with defaults filled in; what has no effect is left out.
pub fn key_parameters<K: Kind>(parameters: &K) -> Map<String, Value> {
    let all = all_parameters(parameters);
    let fields = K::fields().iter().filter(|field| field.has_effect(&all));
    let kept = fields.filter_map(|field| all.get_key_value(&field.name));
    parameters.key_parameters(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A parameter whose value cannot change anything about a stage, because of other parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct WithoutEffect {
    /// Its name in a manifest.
    pub parameter: String,
    /// Why.
    pub why: Why,
}

/// Why a parameter has no effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// Other parameters do not have the values that it needs.
    Conditions {
        /// What these other parameters are.
        now: Vec<Condition>,
        /// What they would have to be.
        needed: Vec<Condition>,
    },
    /// Another reason: the end of the sentence "it has no effect with ...".
    With(&'static str),
}

impl WithoutEffect {
    /// A parameter that has no effect with `reason`, in words.
    pub fn with(parameter: &str, reason: &'static str) -> Self {
        Self { parameter: parameter.to_owned(), why: Why::With(reason) }
    }

    /// A parameter that has an effect only if another one, which is `now`, is one of `needed`.
    pub fn unless<T: Serialize>(parameter: &str, other: &str, now: T, needed: &[T]) -> Self {
        let condition = |values: &[&T]| Condition {
            parameter: other.to_owned(),
            values: values
                .iter()
                .map(|value| serde_json::to_value(value).expect("a value is plain data"))
                .collect(),
        };
        let needed = vec![condition(&needed.iter().collect::<Vec<_>>())];
        let why = Why::Conditions { now: vec![condition(&[&now])], needed };
        Self { parameter: parameter.to_owned(), why }
    }
}

/// The parameters without an effect, of those that are asked for by name.
pub(crate) fn without_effect<K: Kind>(
    parameters: &K,
    asked: &dyn Fn(&str) -> bool,
) -> Vec<WithoutEffect> {
    let all = LazyCell::new(|| all_parameters(parameters));
    let mut found = Vec::new();
    let fields = K::fields().iter().filter(|field| !field.only_if.is_empty());
    for Field { name, only_if, .. } in fields.filter(|field| asked(&field.name)) {
        let needed: Vec<_> = only_if.iter().filter(|one| !one.holds(&all)).cloned().collect();
        let now = |Condition { parameter, .. }: &Condition| Condition {
            parameter: parameter.clone(),
            values: all.get(parameter).cloned().into_iter().collect(),
        };
        if !needed.is_empty() {
            let now = needed.iter().map(now).collect();
            let why = Why::Conditions { now, needed };
            found.push(WithoutEffect { parameter: name.clone(), why });
        }
    }
    found.extend(parameters.without_effect().into_iter().filter(|one| asked(&one.parameter)));
    found
}
