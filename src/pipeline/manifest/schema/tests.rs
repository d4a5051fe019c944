//! The schema accepts what the reader accepts, and refuses what one text shows to be wrong.

mod forms;

use std::path::Path;
use std::sync::LazyLock;

use pipeline_stages::Port;
use serde_json::{Value, json};

use super::super::tests::{GOOD, HEAD};
use super::super::values::{range_mistake, type_mistake};
use super::super::{is_manifest, parse};
use super::*;

fn toml(text: &str) -> Value {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What is wrong with a manifest.
pub(in super::super) fn refused(text: &str) -> Option<String> {
    refused_value(&toml(text))
}

fn refused_value(manifest: &Value) -> Option<String> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(json_schema);
    validator::check(&SCHEMA, &SCHEMA, manifest).err()
}

/// The text between two marks of a page, several times.
fn blocks<'p>(page: &'p str, start: &'p str, end: &'p str) -> impl Iterator<Item = &'p str> {
    page.split(start).skip(1).filter_map(move |rest| rest.split_once(end).map(|(block, _)| block))
}

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    paths.map(|path| (path.display().to_string(), read(&path))).collect()
}

#[test]
fn the_schema_in_the_docs_is_what_is_printed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.schema.json");
    let schema = format!("{:#}\n", json_schema());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        #[allow(clippy::disallowed_methods, reason = "it is not in a cache")]
        std::fs::write(path, &schema).expect("the docs can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == schema,
        "docs/manifest.schema.json is out of date: UPDATE_DOCS=1 cargo test --lib schema"
    );
}

#[test]
fn every_manifest_of_the_project_is_right() {
    let mut seen = 0;
    for (path, text) in files("pipelines").into_iter().chain(files("pipelines/paper")) {
        if !is_manifest(Path::new(&path)) {
            continue;
        }
        assert_eq!(refused(&text), None, "{path}");
        assert!(text.starts_with("#:schema "), "{path} names its schema in the first line");
        seen += 1;
    }
    assert!(seen > 10);
    assert_eq!(refused(GOOD), None);
}

#[test]
fn every_example_in_the_docs_is_right() {
    let mut seen = 0;
    for (path, page) in files("docs").into_iter().chain(files(".")) {
        if !path.ends_with(".md") {
            continue;
        }
        for block in blocks(&page, "```toml\n", "```") {
            // Lines of some stage.
            if !block.contains("\n[") && !block.starts_with('[') && !block.contains("include") {
                continue;
            }
            // Some begin within [experiment].
            let mut manifest = match block.starts_with("seed") {
                true => toml(&format!("[experiment]\nname = 'x'\n{block}")),
                false => toml(block),
            };
            let Value::Object(tables) = &mut manifest else { unreachable!("a file is a table") };
            // The settings of a user.
            if tables.contains_key("cache") || tables.contains_key("jobs") {
                continue;
            }
            // The rest of a part is elsewhere.
            if !tables.contains_key("experiment") || !tables.contains_key("stages") {
                tables.entry("experiment").or_insert(json!({ "name": "x" }));
                tables.entry("include").or_insert(json!([]));
            }
            assert_eq!(refused_value(&manifest), None, "{path}:\n{block}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn everything_is_described() {
    fn look(root: &Value, schema: &Value, path: &str, missing: &mut Vec<String>) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let target = schema["$ref"].as_str().and_then(|target| root.pointer(&target[1..]));
            let schema = target
                .or(schema
                    .pointer("/allOf/0")
                    .and_then(|one| root.pointer(&one["$ref"].as_str().expect("a reference")[1..])))
                .unwrap_or(schema);
            // The kind of a stage is described once for all kinds.
            let is_kind = key == "kind" && schema == &json!(true);
            if !is_kind && schema["description"].as_str().is_none_or(str::is_empty) {
                missing.push(path.clone());
            }
            look(root, schema, &path, missing);
            look(root, &schema["else"], &path, missing);
        }
    }
    let schema = json_schema();
    let mut missing = Vec::new();
    look(&schema, &schema, "", &mut missing);
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        look(&schema, definition, name, &mut missing);
        look(&schema, &definition["else"], name, &mut missing);
    }
    assert_eq!(missing, Vec::<String>::new(), "a key that is read has a description in the schema");
}

#[test]
fn what_one_text_shows_to_be_wrong_is_refused() {
    for kind in KINDS {
        let mut stage = toml(GOOD)["stages"].as_object().expect("stages").clone();
        stage.retain(|_, stage| stage["kind"] == kind.name);
        let (name, stage) = stage.into_iter().next().expect("the good manifest has every kind");
        let manifest = |stage: Value| json!({ "experiment": { "name": "x" }, "stages": { name.clone(): stage } });
        assert_eq!(refused_value(&manifest(stage.clone())), None);
        let known = (kind.ports)().iter().map(Port::name);
        let known = known.chain((kind.fields)().iter().map(|field| field.name.clone()));
        for key in known.collect::<Vec<_>>() {
            let misspelt = format!("{key}x");
            let mut wrong = stage.clone();
            wrong[misspelt.as_str()] = json!("${x}");
            let error = refused_value(&manifest(wrong)).unwrap_or_default();
            assert!(error.contains(&format!("{misspelt}: ")), "{}: {error}", kind.name);
            let mut wrong = manifest(stage.clone());
            wrong["defaults"] = json!({ kind.name: { misspelt: "${x}" } });
            assert!(refused_value(&wrong).is_some(), "{}: {key}", kind.name);
            let mut right = manifest(stage.clone());
            right["defaults"] = json!({ kind.name: { key.clone(): stage.get(&key).cloned().unwrap_or(json!("${x}")) } });
            // A default is not a stage, so nothing is required of it.
            let named = ["inputs", "source"].contains(&key.as_str());
            assert!(named || refused_value(&right).is_none(), "{}: {key}", kind.name);
        }
        for port in (kind.ports)().iter().filter(|port| port.required()) {
            let mut without = stage.clone();
            without.as_object_mut().expect("a stage").remove(&port.name());
            let mut manifest = manifest(without.clone());
            let error = refused_value(&manifest).unwrap_or_default();
            assert!(error.contains("required"), "{}: {error}", kind.name);
            // What may be elsewhere is not missed.
            manifest["include"] = json!(["other.toml"]);
            assert_eq!(refused_value(&manifest), None);
            manifest.as_object_mut().expect("a manifest").remove("include");
            manifest["defaults"] = json!({ kind.name: {} });
            assert_eq!(refused_value(&manifest), None);
        }
        let mut wrong = manifest(stage.clone());
        wrong["stages"][&name]["seed"] = json!(3);
        assert_eq!(refused_value(&wrong).is_none(), kind.seeded, "{}", kind.name);
    }
    for (wrong, word) in [
        ("[stages.a]\nkind = 'tarin'\n", "enum"),
        ("[stages.a]\nepochs = 3\n", "required"),
        ("[defaults.tarin]\n", "tarin"),
        ("[defaults.train]\nkind = 'train'\n", "kind"),
        ("[experimnt]\nname = 'x'\n", "experimnt"),
        ("[execution]\nthreads = '${x}'\n", "threads"),
        ("[execution]\nthreads = 1025\n", "threads"),
        ("[execution]\ncpus = 1025\n", "cpus"),
        ("[execution]\ngpus = [1024]\n", "gpus"),
        ("[execution]\ngpus = [0, 1, 0]\n", "gpus"),
        ("[lint]\nallow = ['all']\n", "allow"),
        ("[tracking]\nwandb = 'x'\n", "wandb"),
        ("[matrix]\nrate = 3\n", "rate"),
        ("[matrix]\nrate = [[3]]\n", "rate"),
    ] {
        let error = refused(&format!("{HEAD}{wrong}")).unwrap_or_default();
        assert!(error.contains(word), "{wrong}: {error}");
        let read = parse(Path::new("x.toml"), &format!("{HEAD}{wrong}"), &[]);
        assert!(read.is_err(), "{wrong}");
    }
    for (text, is_right) in [
        ("[experiment]\nname = 'x'\n", false),
        ("[stages.a]\nkind = 'split'\n", true),
        ("[matrix]\na = [1]\n[stages.a]\nkind = 'split'\n", false),
    ] {
        assert_eq!(refused(text).is_none(), is_right, "{text}");
    }
}

#[test]
fn what_a_stage_takes_is_accepted_as_the_reader_accepts_it() {
    const COMMAND: &str = "kind = 'command'\nrun = ['x']";
    const TRAIN: &str = "kind = 'train'\ndata = 'b'";
    const DATA: &str = "[stages.b]\nkind = 'command'\nrun = ['x']\noutput = 'dataset'\n";
    const SPLIT: &str = "kind = 'split'\ndata = 'b'\nholdout = 1";
    for (stage, takes, is_right) in [
        (COMMAND, "gpus = 0", true),
        (COMMAND, "gpus = 0.25", true),
        (COMMAND, "gpus = 0.001", true),
        (COMMAND, "gpus = 0.0001", false),
        (COMMAND, "gpus = 1.0", true),
        (COMMAND, "gpus = 1024", true),
        (COMMAND, "gpus = 1.5", false),
        (COMMAND, "gpus = -1", false),
        (COMMAND, "gpus = 1025", false),
        (COMMAND, "cpus = 1024", true),
        (COMMAND, "cpus = 1025", false),
        (COMMAND, "threads = 1024", true),
        (COMMAND, "threads = 1025", false),
        (COMMAND, "resources = { a = 1, B_2 = 4294967295 }", true),
        (COMMAND, "resources = { a = 0 }", false),
        (COMMAND, "resources = { a = 4294967296 }", false),
        (COMMAND, "resources = { memory = 1 }", false),
        (COMMAND, "resources = 1", false),
        (TRAIN, "gpus = 0.5", true),
        (TRAIN, "gpus = 1", true),
        (TRAIN, "gpus = 2", false),
        (SPLIT, "gpus = 0", true),
        (SPLIT, "gpus = 0.5", false),
    ] {
        let text = format!("{HEAD}[stages.a]\n{stage}\nexecution = {{ {takes} }}\n{DATA}");
        assert_eq!(refused(&text).is_none(), is_right, "{stage}: {takes}");
        assert_eq!(parse(Path::new("x.toml"), &text, &[]).is_ok(), is_right, "{stage}: {takes}");
    }
}

#[test]
fn names_and_texts_of_a_form_are_accepted_as_the_reader_accepts_them() {
    let same = |text: &str| {
        let reads = parse(Path::new("x.toml"), text, &[]).is_ok();
        assert_eq!(refused(text).is_none(), reads, "{text}");
        reads
    };
    let right = ["a", "_", "0-A_z", "a b", "-a", "\u{e9}", "a.b", "", "a\\n", "local"].map(|name| {
        [
            same(&format!("{HEAD}[stages.\"{name}\"]\nkind = 'command'\nrun = ['x']\n")),
            same(&format!("{HEAD}[matrix]\n\"{name}\" = [1]\n")),
            same(&format!("{HEAD}[executors.\"{name}\"]\nkind = 'slurm'\n")),
            same(&format!("{HEAD}[stages.b]\nkind = 'command'\nrun = ['x']\ninputs = {{ \"{name}\" = 'data' }}\n")),
            same(&format!("{HEAD}[stages.b]\nkind = 'command'\nrun = ['x']\nexecution = {{ executor = \"{name}\" }}\n")),
            same(&format!("{HEAD}[execution]\nresources = {{ \"{name}\" = 1 }}\n")),
        ]
    });
    assert_eq!(right[0], [true; 6]);
    assert_eq!(right[3], [false; 6]);
    for (key, values) in [
        (
            "device",
            &["auto", "cpu", "cuda", "cuda:3", "cuda:+3", "gpu", "CPU", "mps", "cuda:", "cuda:-1"]
                [..],
        ),
        (
            "time",
            &["04:00:00", "1-12:00:00", "123:4:005", "4", "1:2", "1:60:00", "-1:00:00", "1:2:3 "],
        ),
        (
            "memory",
            &[
                "8 GB",
                "1.5gib",
                " .5 TB ",
                "\u{a0}5.\u{a0}kB\u{a0}",
                "7b",
                "5",
                "0 GB",
                "0.0 B",
                "8 G",
                "8 bytes",
                "-1 GB",
                "GB",
            ],
        ),
    ] {
        let mut seen = [false; 2];
        for value in values {
            let all = same(&format!("{HEAD}[execution]\n{key} = '{value}'\n"));
            let one = same(&format!(
                "{HEAD}[stages.b]\nkind = 'command'\nrun = ['x']\nexecution = {{ {key} = '{value}' }}\n"
            ));
            assert_eq!(all, one, "{key} = {value}");
            seen[usize::from(all)] = true;
        }
        assert_eq!(seen, [true; 2], "{key}");
    }
    assert!(same(&format!(
        "{HEAD}[matrix]\na = ['cpu', 'cuda']\n[stages.b]\nkind = 'command'\nrun = ['x']\nexecution = {{ device = '${{a}}' }}\n"
    )));
    assert!(same(&format!(
        "{HEAD}[matrix]\na = [1, 2]\n[stages.b]\nkind = 'command'\nrun = ['x']\nexecution.resources.b = '${{a}}'\n"
    )));
}

/// To a schema these are whole numbers, and to the reader they are not.
const WHOLE_FLOATS: [&str; 2] = ["0.0", "1e300"];

/// Values of all types.
const VALUES: [&str; 22] = [
    "-1",
    "0",
    "1",
    "2",
    "4096",
    "5000",
    "4294967295",
    "4294967296",
    "0.0",
    "0.5",
    "1.5",
    "-0.5",
    "1e300",
    "true",
    "'x'",
    "'random'",
    "''",
    "[]",
    "['x']",
    "[1, 2]",
    "{}",
    "{ a = 'x' }",
];

#[test]
fn values_of_parameters_are_accepted_as_the_reader_accepts_them() {
    let schema = json_schema();
    for kind in KINDS {
        for field in (kind.fields)() {
            let own = &schema["$defs"][kind_definition(kind.name)]["properties"][&field.name];
            let accepts = |value: &str| {
                validator::check(&schema, own, &toml(&format!("v = {value}"))["v"]).is_ok()
            };
            for text in VALUES {
                let value = toml::de::DeValue::parse(text).expect("a value");
                let mistake = type_mistake(field, &value).or_else(|| range_mistake(field, &value));
                let has_form =
                    (kind.forms)().iter().any(|form| form.parameter() == Some(&field.name));
                // The rules of the kind ask for more: `forms` holds them against the reader.
                if has_form {
                    assert!(mistake.is_none() || !accepts(text), "{} = {text}", field.name);
                } else if !WHOLE_FLOATS.contains(&text) {
                    assert_eq!(
                        accepts(text),
                        mistake.is_none(),
                        "{} {} = {text}",
                        kind.name,
                        field.name
                    );
                }
            }
            for choice in field.value_type.choices() {
                let (one, list) = (format!("'{}'", choice.name), format!("['{}']", choice.name));
                assert!(accepts(&one) || accepts(&list), "{} {}", kind.name, choice.name);
            }
            assert!(accepts("'${axis.field}'"), "{} {}", kind.name, field.name);
            if let Some(default) = own.get("default") {
                assert_eq!(validator::check(&schema, own, default), Ok(()), "{}", field.name);
            }
        }
    }
}

#[test]
fn values_of_the_other_tables_are_accepted_as_the_reader_accepts_them() {
    use super::super::envelope::{EXPERIMENT_KEYS, TRACKERS};
    use super::super::execution::EXECUTION_KEYS;
    use super::super::lints::LINT_KEYS;
    let head = HEAD.replace("[experiment]\nname = \"x\"\n", "");
    let tables: [(&str, &[&str]); 4] = [
        ("experiment", &EXPERIMENT_KEYS),
        ("execution", &EXECUTION_KEYS),
        ("tracking", &TRACKERS),
        ("lint", &LINT_KEYS),
    ];
    let others = [
        "'auto'",
        "'cuda:3'",
        "'http://localhost:5000'",
        "['unused-axis']",
        "18446744073709551615",
    ];
    for (table, keys) in tables {
        for key in keys {
            for value in VALUES.into_iter().chain(others) {
                let name = if *key == "name" { "" } else { "name = 'x'\n" };
                let text = match table {
                    "experiment" => format!("[experiment]\n{name}{key} = {value}\n{head}"),
                    _ => format!("{HEAD}[{table}]\n{key} = {value}\n"),
                };
                let reads = parse(Path::new("x.toml"), &text, &[]).is_ok();
                let manifest: Value = match toml::from_str(&text) {
                    Ok(manifest) => manifest,
                    // Some readers of TOML stop at 64 bits with a sign.
                    Err(_) => continue,
                };
                let accepts = refused_value(&manifest).is_none();
                // The forms of a text are the reader's.
                let is_text = value.starts_with('\'');
                assert!(accepts || !reads, "{text}");
                assert!(reads || !accepts || is_text || WHOLE_FLOATS.contains(&value), "{text}");
            }
        }
    }
}
