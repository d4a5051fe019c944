//! The tables beside the stages.
//!
//! Their keys are those of the lists that the reader checks them against; what is here are descriptions and values.

use pipeline_stages::message::Device;
use serde_json::{Map, Value, json};

use super::super::envelope::{EXPERIMENT_KEYS, SERVER_PATTERN, TRACKERS};
use super::super::execution::{
    ATTEMPTS_KEYS, DEVICE_PATTERN, EXECUTION_KEYS, Failing, LARGEST_PRIORITY, MOST_ATTEMPTS,
    MOST_CORES, MOST_GPUS, SIZE_PATTERN, STAGE_EXECUTION_KEYS, TIME_PATTERN, WHOLE_GPU,
};
use super::super::executors::{COMMAND, EXECUTOR_KEYS, EXECUTOR_KINDS, LOCAL};
use super::super::lints::{LINT_KEYS, Lint};
use super::super::resources::NOT_RESOURCES;
use super::super::sharing::{CACHE_KEYS, PUSH_WORDS};
use super::definitions::definition;
use super::value::{described, integer, object, templated, templated_text, without_template};
use crate::remote_address::ADDRESS_PATTERN;
use crate::stage_name::{EXPERIMENT_NAME_PATTERN, LONGEST, NAME_PATTERN, VALUE_PATTERN};

/// A value on an axis.
const SCALAR: [&str; 3] = ["number", "boolean", "string"];

/// A table of a manifest, or its list of files. What is unknown here is accepted as it is, and a test finds it.
pub(super) fn table(name: &str) -> Value {
    match name {
        "include" => text_list(
            "Other files with [stages], [defaults] and include, relative to this one.",
            json!({ "type": "string", "minLength": 1 }),
        ),
        "experiment" => {
            described(closed(&EXPERIMENT_KEYS, experiment, &["name"]), "What the stages are for.")
        }
        "execution" => execution(false),
        "executors" => executors(),
        "cache" => {
            described(closed(&CACHE_KEYS, cache, &[]), "The cache that others share. In no key.")
        }
        "tracking" => described(
            closed(&TRACKERS, tracker, &[]),
            "Where else to show what a run measures. In no key.",
        ),
        "lint" => described(closed(&LINT_KEYS, lint, &[]), "Which warnings are silenced."),
        "matrix" => matrix(),
        _ => json!({}),
    }
}

/// How stages are run: the table of a manifest, or of a stage.
pub(super) fn execution(in_a_stage: bool) -> Value {
    let key = |name: &str| execution_key(name, in_a_stage);
    match in_a_stage {
        true => described(
            templated(closed(&STAGE_EXECUTION_KEYS, key, &[])),
            "How it is run, instead of [execution]. None of it can change the result.",
        ),
        false => described(
            closed(&EXECUTION_KEYS, key, &[]),
            "How stages are run. None of it can change a result.",
        ),
    }
}

/// `with = ["AXIS"]`.
pub(super) fn with() -> Value {
    text_list(
        "Axes of the matrix whose points have fields: all of them become values of the stage.",
        json!({ "type": "string" }),
    )
}

/// A table with these keys.
fn closed(keys: &[&str], schema: impl Fn(&str) -> Value, required: &[&str]) -> Map<String, Value> {
    let properties = keys.iter().map(|&key| (key.to_owned(), schema(key)));
    let mut table = object(json!({
        "type": "object",
        "properties": Map::from_iter(properties),
        "additionalProperties": false,
    }));
    if !required.is_empty() {
        table.insert("required".into(), json!(required));
    }
    table
}

fn cache(key: &str) -> Value {
    match key {
        "remote" => form(
            "Where it is: file:///mnt/share/cache, s3://bucket/prefix, ssh://host/path, https://host/path. By default that of the user, if there is one.",
            ADDRESS_PATTERN,
        ),
        "push" => json!({
            "description": "Which results are sent there when they were made: never, always, or those of these kinds and stages. By default never.",
            "anyOf": [
                { "enum": PUSH_WORDS },
                { "type": "array", "items": { "type": "string", "minLength": 1 } },
            ],
        }),
        _ => json!({}),
    }
}

fn experiment(key: &str) -> Value {
    match key {
        "name" => {
            let about = "Its name, which names the links under cache/latest/.";
            let mut schema = form(about, EXPERIMENT_NAME_PATTERN);
            schema["maxLength"] = LONGEST.into();
            schema
        }
        "about" => text("What it is about, for people.", 0),
        "seed" => described(
            templated(integer(0, u64::MAX, None)),
            "The seed of every random draw of stages that do not have their own. By default 0.",
        ),
        _ => json!({}),
    }
}

fn execution_key(key: &str, in_a_stage: bool) -> Value {
    let whole = |lowest: u64, largest: u64| match integer(lowest, largest, None) {
        schema if in_a_stage => templated(schema),
        schema => schema,
    };
    let form = |about: &str, pattern: &str| match in_a_stage {
        true => described(templated_text(object(json!({ "pattern": pattern }))), about),
        false => self::form(about, pattern),
    };
    match key {
        "device" => {
            let about = format!("Where it is computed: {}. By default auto.", Device::FORMS);
            let mut schema = form(&about, DEVICE_PATTERN);
            schema["anyOf"] = json!([{ "enum": ["auto", "cpu", "cuda"] }, true]);
            schema
        }
        "threads" => described(
            whole(1, MOST_CORES.into()),
            "The threads of a data set of image files, and of a stage that trains or evaluates; in another stage, also the cores that it takes. By default its cpus, or else all cores that the run may use, and its part of them beside a GPU.",
        ),
        "checkpoint-seconds" => {
            described(whole(0, u64::MAX), "The seconds between two checkpoints of a training.")
        }
        "timeout-seconds" => described(
            whole(1, u64::MAX),
            "The seconds after which a stage is ended and has failed. By default never.",
        ),
        "time" => form(
            "The time that its job asks for, where it runs on an executor, instead of the executor's own: \"04:00:00\", or with days \"1-12:00:00\". It means nothing here.",
            TIME_PATTERN,
        ),
        "cpus" if in_a_stage => described(
            whole(1, MOST_CORES.into()),
            "The cores that it takes, and its threads. By default one; a download takes none, and a data set of image files or a stage that trains takes all, or its part of them beside a GPU.",
        ),
        "cpus" => described(
            whole(1, MOST_CORES.into()),
            "The cores that all stages together may take. By default, and at most, those of the machine.",
        ),
        "gpus" if in_a_stage => described(
            templated(object(json!({
                "type": "number",
                "minimum": 0,
                "maximum": MOST_GPUS,
                "if": { "exclusiveMinimum": 1 },
                "then": { "type": "integer" },
                "else": {
                    "if": { "exclusiveMinimum": 0 },
                    "then": { "minimum": 1.0 / f64::from(WHOLE_GPU) },
                },
            }))),
            "The GPUs that it takes: a part of one (0.25), or a whole number. By default one for a stage that trains, where there is one.",
        ),
        "gpus" => json!({
            "description": "The numbers of the GPUs that stages may use. By default all; [] for none.",
            "type": "array",
            "items": { "type": "integer", "minimum": 0, "maximum": MOST_GPUS - 1 },
            "uniqueItems": true,
        }),
        "memory" => {
            let about = match in_a_stage {
                true => {
                    "The memory that it takes: \"8 GB\". By default it is not known, and not looked after."
                }
                false => {
                    "The memory that all stages together may take: \"32 GB\". By default, and at most, that of the machine."
                }
            };
            form(about, SIZE_PATTERN)
        }
        "resources" => {
            let about = match in_a_stage {
                true => {
                    "What it takes of resources that are counted by names of yours. A run must know how much there is of each."
                }
                false => {
                    "How much there is of resources that are counted by names of yours, for all stages together."
                }
            };
            let table = json!({
                "type": "object",
                "propertyNames": { "pattern": NAME_PATTERN, "not": { "enum": NOT_RESOURCES } },
                "additionalProperties": whole(1, u32::MAX.into()),
            });
            described(object(table), about)
        }
        "priority" => described(
            templated(object(json!({
                "type": "integer",
                "minimum": -LARGEST_PRIORITY,
                "maximum": LARGEST_PRIORITY,
            }))),
            "Stages with a higher one start first, and so does what they need. By default 0.",
        ),
        "attempts" => attempts(in_a_stage),
        "executor" => form(
            "Where it runs: the name of an executor, or local. By default here, unless --executor says otherwise.",
            NAME_PATTERN,
        ),
        _ => json!({}),
    }
}

/// `[executors.NAME]`: each kind has keys of its own.
fn executors() -> Value {
    let kinds = EXECUTOR_KINDS.map(|(kind, _)| kind);
    let rules = EXECUTOR_KINDS.map(|(kind, own)| {
        let keys: Vec<&str> = EXECUTOR_KEYS.into_iter().chain(own.iter().copied()).collect();
        let required = if kind == COMMAND { own } else { &[] };
        json!({
            "if": { "properties": { "kind": { "const": kind } } },
            "then": closed(&keys, executor_key, required),
        })
    });
    json!({
        "description": "Where stages can run, beside here. In no key.",
        "type": "object",
        "propertyNames": { "pattern": NAME_PATTERN, "not": { "const": LOCAL } },
        "additionalProperties": {
            "type": "object",
            "required": ["kind"],
            "properties": { "kind": { "enum": kinds } },
            "allOf": rules,
        },
    })
}

fn executor_key(key: &str) -> Value {
    match key {
        "max-jobs" => described(
            integer(1, u32::MAX.into(), None),
            "How many of its jobs there are at once, of one run. By default as many as are ready.",
        ),
        "path" => form(
            "The folder that has both programs where jobs run, absolute. By default where they are here.",
            "^/",
        ),
        "setup" => text("Lines of a shell that each job begins with.", 0),
        "partition" => text("The partition of Slurm: --partition.", 0),
        "time" => text("How much time a job has, as sbatch takes it: 04:00:00.", 0),
        "options" => text_list(
            "More options of sbatch. They come last, and win.",
            json!({ "type": "string" }),
        ),
        "submit" => {
            form("A command that submits {script}, and prints the id of the job.", r"\{script\}")
        }
        "state" => text(
            "A command that prints a line for each job that is known: its id, and its state.",
            0,
        ),
        "cancel" => form("A command that ends the jobs {ids}.", r"\{ids\}"),
        _ => json!({}),
    }
}

fn attempts(in_a_stage: bool) -> Value {
    let count = || integer(1, MOST_ATTEMPTS.into(), None);
    let key = |name: &str| match name {
        "count" => described(count(), "The most attempts."),
        "on" => {
            let about = "After which failures. By default after all but failure: that is another exit status than 0, or a result that is not right.";
            text_list(about, json!({ "enum": Failing::ALL.map(Failing::name) }))
        }
        _ => json!({}),
    };
    let schema = object(json!({
        "if": { "type": "object" },
        "then": closed(&ATTEMPTS_KEYS, key, &["count"]),
        "else": count(),
    }));
    let about = "How often it is tried: after a signal, without memory, or when its time is up. Its checkpoint stays. By default once.";
    described(if in_a_stage { templated(schema) } else { schema }, about)
}

fn tracker(key: &str) -> Value {
    match key {
        "tensorboard" => {
            text("A folder for TensorBoard's event files, relative to the manifest.", 1)
        }
        "mlflow" => form(
            "The address of an MLflow server, such as http://localhost:5000, without a user name or a password.",
            SERVER_PATTERN,
        ),
        _ => json!({}),
    }
}

fn lint(key: &str) -> Value {
    match key {
        "allow" => {
            let mut about = "The warnings that are not shown:\n".to_owned();
            for lint in Lint::ALL {
                about.push_str(&format!("\n- `{}`: {}", lint.name(), lint.about()));
            }
            text_list(&about, json!({ "enum": Lint::ALL.map(Lint::name) }))
        }
        _ => json!({}),
    }
}

fn matrix() -> Value {
    json!({
        "description": "The axes: a stage that uses one of them, or reads from one that does, runs once for each of its values.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": NAME_PATTERN },
        "if": { "required": ["exclude"] },
        "then": { "minProperties": 2 },
        "properties": {
            "exclude": {
                "description": "Points that are left out: each is a table of axes with a value or a list of values.",
                "type": "array",
                "items": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {
                        "type": ["number", "boolean", "string", "array"],
                        "minItems": 1,
                        "items": { "type": SCALAR },
                    },
                },
            },
        },
        "additionalProperties": {
            "description": "An axis: a list of values, which \"${AXIS}\" takes, or a table of named points, whose fields \"${AXIS.FIELD}\" takes.",
            "type": ["array", "object"],
            "minItems": 1,
            "minProperties": 1,
            "uniqueItems": true,
            "items": { "type": SCALAR, "pattern": VALUE_PATTERN },
            "propertyNames": { "pattern": VALUE_PATTERN },
            "additionalProperties": { "$ref": definition("point") },
        },
    })
}

/// The fields of a named point.
pub(super) fn point() -> Value {
    let field = json!({ "$ref": definition("field") });
    json!({
        "description": "A named point: fields that \"${AXIS.FIELD}\" takes, or all of which `with` makes values of a stage.",
        "type": "object",
        "properties": { "shell": { "description": "What `${...}` is in it, is the shell's." } },
        // The name of a point with a dot in it, which is not in quotes.
        "patternProperties": { "^[0-9]+$": { "not": { "type": "object" } } },
        "additionalProperties": field,
    })
}

/// A value of a field, in which nothing is replaced.
pub(super) fn field() -> Value {
    let inner = json!({ "$ref": definition("field") });
    without_template(object(json!({
        "items": inner,
        "propertyNames": without_template(Map::new()),
        "additionalProperties": inner,
    })))
    .into()
}

/// A text that has this pattern.
fn form(about: &str, pattern: &str) -> Value {
    described(object(json!({ "type": "string", "pattern": pattern })), about)
}

fn text(about: &str, least: u64) -> Value {
    let mut schema = object(json!({ "type": "string" }));
    if least > 0 {
        schema.insert("minLength".into(), least.into());
    }
    described(schema, about)
}

fn text_list(about: &str, item: Value) -> Value {
    json!({ "description": about, "type": "array", "items": item })
}
