//! RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) with the profile Process Run Crate 0.5
//! (https://w3id.org/ro/wfrun/process/0.5): a `CreateAction` for each stage. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_stages::metrics::Number;
use pipeline_stages::url::blanked;
use serde_json::{Value, json};

use crate::cache::Record;
use crate::digest::Digest;
use crate::format;
use crate::key::KeyPart;
use crate::stage_name::StageName;

/// The file that describes a crate.
pub(super) const METADATA: &str = "ro-crate-metadata.json";
/// The folder of the manifest and the files that it includes.
const MANIFESTS: &str = "manifest";
/// The folder of the artifacts.
const ARTIFACTS: &str = "artifacts";
const CONTEXT: &str = "https://w3id.org/ro/crate/1.1/context";
/// A term of Process Run Crate that the context does not have.
const ENVIRONMENT: &str = "https://w3id.org/ro/terms/workflow-run#environment";
const PROFILE: &str = "https://w3id.org/ro/wfrun/process/0.5";

/// A result that is exported.
pub(crate) struct Exported {
    pub(crate) stage: StageName,
    pub(crate) record: Record,
    /// The files of its artifact, each with its size, where it is copied: paths from the artifact.
    pub(crate) files: Option<Vec<(String, u64)>>,
}

/// What a crate is about.
pub(crate) struct Crate {
    pub(crate) experiment: String,
    pub(crate) about: Option<String>,
    /// The licence of the results, as the user names it.
    pub(crate) licence: Option<String>,
    /// The command that made it.
    pub(crate) command: String,
    /// When it was made: seconds since 1970, UTC.
    pub(crate) made: u64,
    /// The manifest, and the files that it includes: names and texts.
    pub(crate) manifests: Vec<(String, String)>,
    pub(crate) results: Vec<Exported>,
}

impl Crate {
    /// Where the files of manifests are in the crate, each with its text.
    pub(super) fn manifest_files(&self) -> Vec<(String, &str)> {
        let mut taken = BTreeSet::new();
        let files = self.manifests.iter().map(|(name, text)| {
            let name = name.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("file");
            let mut free = name.to_owned();
            let mut number = 2;
            // Two folders may have files of the same name.
            while !taken.insert(free.clone()) {
                free = format!("{number}-{name}");
                number += 1;
            }
            (format!("{MANIFESTS}/{free}"), text.as_str())
        });
        files.collect()
    }

    /// The results whose artifacts are copied, each with its place in the crate: the first one, where several have the same artifact.
    pub(super) fn copied(&self) -> Vec<(&Exported, String)> {
        let mut taken = BTreeSet::new();
        let results = self.results.iter().filter(|result| result.files.is_some());
        let results = results.filter(|result| taken.insert(result.record.output.digest));
        results.map(|result| (result, format!("{ARTIFACTS}/{}", result.stage))).collect()
    }

    /// The names of the stages that have the same `what`, in words.
    fn stages<T: Ord>(&self, what: impl Fn(&Record) -> T) -> BTreeMap<T, String> {
        let mut names: BTreeMap<T, Vec<&str>> = BTreeMap::new();
        for result in &self.results {
            names.entry(what(&result.record)).or_default().push(result.stage.as_str());
        }
        names.into_iter().map(|(what, names)| (what, names.join(", "))).collect()
    }

    /// The text of the file that describes the crate.
    pub(super) fn metadata(&self) -> String {
        let graph = Graph::of(self);
        let all =
            json!({"@context": [CONTEXT, {"environment": ENVIRONMENT}], "@graph": graph.all()});
        format!("{all:#}\n")
    }
}

/// What is described, each thing once, in its order.
#[derive(Default)]
struct Graph {
    entities: Vec<Value>,
    /// Where each is, by its id.
    places: BTreeMap<String, usize>,
    /// What is in the crate as files and folders.
    parts: Vec<Value>,
    actions: Vec<Value>,
}

impl Graph {
    fn of(described: &Crate) -> Self {
        let mut graph = Self::default();
        for (id, text) in described.manifest_files() {
            let id = encoded(&id);
            graph.add_part(
                &id,
                json!({"@type": "File", "name": "The manifest, as it was when this was written",
                    "encodingFormat": "application/toml", "contentSize": text.len().to_string()}),
            );
        }
        let copied = described.copied().into_iter();
        let places: BTreeMap<Digest, String> = copied
            .map(|(result, place)| (result.record.output.digest, format!("{}/", encoded(&place))))
            .collect();
        let makers = described.stages(|record| record.output.digest);
        let copied = described.copied().into_iter().map(|(result, _)| result);
        for result in copied.chain(&described.results) {
            let stages = &makers[&result.record.output.digest];
            graph.add_artifact(result, stages, &places);
        }
        let runs = described.stages(|record| record.key);
        for result in &described.results {
            graph.add_action(&result.record, &runs[&result.record.key], &places);
        }
        graph.add_root(described);
        graph
    }

    fn all(self) -> Vec<Value> {
        self.entities
    }

    fn is_known(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// Adds a thing, unless it is described already, and returns how others refer to it.
    fn add(&mut self, id: &str, mut entity: Value) -> Value {
        if !self.is_known(id) {
            entity["@id"] = id.into();
            self.places.insert(id.to_owned(), self.entities.len());
            self.entities.push(entity);
        }
        json!({"@id": id})
    }

    fn add_part(&mut self, id: &str, entity: Value) {
        let is_new = !self.is_known(id);
        let part = self.add(id, entity);
        if is_new {
            self.parts.push(part);
        }
    }

    /// Describes an artifact of these stages: as a folder of the crate where it is copied, else by its digest.
    fn add_artifact(&mut self, result: &Exported, stages: &str, places: &BTreeMap<Digest, String>) {
        let Exported { record, files, .. } = result;
        let digest = &record.output.digest;
        let id = artifact_id(digest, places);
        if self.is_known(&id) {
            return;
        }
        let artifact = record.artifact.name();
        let name = format!("The {artifact} of {stages}");
        let size = record.output.extent.bytes.to_string();
        let Some(files) = files.as_ref().filter(|_| places.contains_key(digest)) else {
            let count = record.output.extent.files;
            let files = if count == 1 { "file" } else { "files" };
            let about = format!("{count} {files}. Not in this crate.");
            let entity = json!({"@type": "CreativeWork", "name": name, "description": about,
                "additionalType": artifact, "identifier": identifier(digest), "size": format!("{size} bytes")});
            self.add(&id, entity);
            return;
        };
        let mut parts = Vec::new();
        for (path, bytes) in files {
            let file = format!("{id}{}", encoded(path));
            let entity = json!({"@type": "File", "name": path, "contentSize": bytes.to_string(),
                "encodingFormat": encoding(path)});
            parts.push(self.add(&file, entity));
        }
        self.parts.extend(parts.iter().cloned());
        self.add_part(
            &id,
            json!({"@type": "Dataset", "name": name, "additionalType": artifact,
                "identifier": identifier(digest), "hasPart": one_or_many(parts)}),
        );
    }

    /// Describes a run of these stages: one, where several have the same key.
    fn add_action(&mut self, record: &Record, stages: &str, places: &BTreeMap<Digest, String>) {
        let key = record.key.to_string();
        let id = format!("#run-{key}");
        if self.is_known(&id) {
            return;
        }
        let (mut objects, mut instrument) = (Vec::new(), Value::Null);
        let program = self.add(
            &format!("#pipeline-{}", encoded(&record.version)),
            json!({"@type": "SoftwareApplication", "name": "pipeline", "softwareVersion": record.version,
                "description": "Runs machine-learning experiments declared in TOML manifests."}),
        );
        for part in &record.parts {
            match part {
                KeyPart::Schema { .. } | KeyPart::Missing { .. } => {}
                KeyPart::Kind { name, version } => {
                    let id = format!("#kind-{}-{version}", encoded(name));
                    let entity = json!({"@type": "SoftwareApplication", "name": name,
                        "softwareVersion": version.to_string(), "isPartOf": program,
                        "description": "A kind of stage, and the version of its results."});
                    instrument = self.add(&id, entity);
                    self.add_owner(&id, &program);
                }
                KeyPart::Seed { seed } => objects.push(self.add_value(&key, "seed", &json!(seed))),
                KeyPart::Parameter { name, value } if !value.is_null() => {
                    objects.push(self.add_value(&key, name, value));
                }
                KeyPart::Parameter { .. } => {}
                KeyPart::Input { from, digest, .. } => {
                    let id = artifact_id(digest, places);
                    // One whose maker is not exported: its content is still known.
                    let entity = json!({"@type": "CreativeWork", "name": format!("The artifact of {from}"),
                        "identifier": identifier(digest)});
                    objects.push(self.add(&id, entity));
                }
                KeyPart::Outside { path, digest, .. } => {
                    let id = format!("#outside-{digest}");
                    let entity = json!({"@type": "CreativeWork", "name": blanked(path),
                        "identifier": identifier(digest),
                        "description": "A file or folder beside the manifest. Not in this crate."});
                    objects.push(self.add(&id, entity));
                }
            }
        }
        let mut environment = vec![self.add_value(&key, "host", &json!(record.host))];
        if let Some(ran_on) = &record.ran_on {
            environment.push(self.add_value(&key, "device", &json!(ran_on.to_string())));
        }
        let metrics = record.metrics.iter().map(|(name, value)| {
            self.add_value(&key, &format!("metric {name}"), &json!(Number(*value)))
        });
        let mut results = vec![json!({"@id": artifact_id(&record.output.digest, places)})];
        results.extend(metrics.collect::<Vec<_>>());
        let started = (record.finished as f64 - record.seconds.max(0.0)).max(0.0) as u64;
        let action = self.add(
            &id,
            json!({"@type": "CreateAction", "name": format!("Run of {stages}"),
                "description": format!("Why it ran: {}", record.reason),
                "instrument": instrument, "object": one_or_many(objects), "result": one_or_many(results),
                "startTime": iso(started), "endTime": iso(record.finished),
                "actionStatus": "http://schema.org/CompletedActionStatus",
                "environment": one_or_many(environment), "identifier": key}),
        );
        self.actions.push(action);
    }

    /// Adds a version of the program to those that have this kind of stage.
    fn add_owner(&mut self, kind: &str, program: &Value) {
        let place = self.places.get(kind);
        let Some(entity) = place.and_then(|place| self.entities.get_mut(*place)) else { return };
        let owners = &mut entity["isPartOf"];
        match owners {
            Value::Array(owners) if owners.contains(program) => {}
            Value::Array(owners) => owners.push(program.clone()),
            owner if owner == program => {}
            owner => *owner = json!([owner.take(), program]),
        }
    }

    /// A named value that a run had.
    fn add_value(&mut self, key: &str, name: &str, value: &Value) -> Value {
        let id = format!("#value-{key}-{}", encoded(name));
        let value = match value {
            Value::String(text) => json!(blanked(text)),
            Value::Array(_) | Value::Object(_) => json!(value.to_string()),
            other => other.clone(),
        };
        self.add(&id, json!({"@type": "PropertyValue", "name": name, "value": value}))
    }

    fn add_root(&mut self, described: &Crate) {
        let Crate { experiment, about, licence, command, made, .. } = described;
        let profile = self.add(
            PROFILE,
            json!({"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}),
        );
        let licence = match licence {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => self.add(
                url,
                json!({"@type": "CreativeWork", "name": url,
                    "description": "The licence of what is in this crate."}),
            ),
            Some(text) => json!(text),
            None => json!("No licence was named: ask the authors."),
        };
        let about = about.clone().unwrap_or_else(|| {
            format!("The experiment {experiment}: its manifest, its runs and their results.")
        });
        let (parts, actions) = (std::mem::take(&mut self.parts), std::mem::take(&mut self.actions));
        self.add(
            "./",
            json!({"@type": "Dataset", "name": experiment, "description": about,
                "datePublished": iso(*made), "license": licence, "conformsTo": profile,
                "hasPart": one_or_many(parts), "mentions": one_or_many(actions)}),
        );
        self.add(
            METADATA,
            json!({"@type": "CreativeWork", "about": {"@id": "./"},
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
                "description": format!("Written by `{command}`")}),
        );
    }
}

fn artifact_id(digest: &Digest, places: &BTreeMap<Digest, String>) -> String {
    places.get(digest).cloned().unwrap_or_else(|| format!("#artifact-{digest}"))
}

/// What the digest of an artifact is of: a listing of paths, sizes and contents, hashed with BLAKE3.
fn identifier(digest: &Digest) -> String {
    format!("pipeline-tree-blake3:{digest}")
}

/// A moment, as ISO 8601 writes it; with an offset, as some readers do not know `Z`.
fn iso(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = format::utc(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

/// The media type of a file, by its name.
fn encoding(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "json" => "application/json",
        "csv" => "text/csv",
        "md" => "text/markdown",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "txt" => "text/plain",
        _ => "application/octet-stream",
    }
}

/// Several values; of one, that one.
fn one_or_many(mut values: Vec<Value>) -> Value {
    match values.len() {
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

/// A path as it is in a URI.
fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-_./~=@,".contains(&byte) => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use pipeline_stages::ArtifactType;

    use super::*;
    use crate::digest::FieldHasher;

    #[test]
    fn every_reference_is_described_and_nothing_twice() {
        let digest = |text: &str| FieldHasher::new(text).finish();
        let kind = |name: &str| KeyPart::Kind { name: name.to_owned(), version: 1 };
        let input = KeyPart::Input {
            port: "data".to_owned(),
            from: "data".parse().expect("a name"),
            digest: digest("data"),
        };
        let lost = KeyPart::Input {
            port: "model".to_owned(),
            from: "lost".parse().expect("a name"),
            digest: digest("lost"),
        };
        let record = Record::for_test(
            "score@rate=0.9",
            vec![kind("evaluate"), input, lost],
            digest("score"),
        );
        let record =
            Record { artifact: ArtifactType::Metrics, version: "0.2".to_owned(), ..record };
        let other_run = Record::for_test("other", vec![kind("evaluate")], digest("score"));
        let other_run = Record { version: "0.1".to_owned(), ..other_run };
        assert_ne!(record.key, other_run.key);
        let made = Crate {
            experiment: "x".to_owned(),
            about: None,
            licence: Some("https://spdx.org/licenses/MIT".to_owned()),
            command: "pipeline export".to_owned(),
            made: 0,
            manifests: vec![
                ("a/x.toml".to_owned(), "1".to_owned()),
                ("b/x.toml".to_owned(), "2".to_owned()),
            ],
            results: vec![
                Exported {
                    stage: "data".parse().expect("a name"),
                    record: Record::for_test("data", vec![kind("download")], digest("data")),
                    files: None,
                },
                Exported {
                    stage: "score@rate=0.9".parse().expect("a name"),
                    record: record.clone(),
                    files: Some(vec![("my metrics.json".to_owned(), 7)]),
                },
                Exported {
                    stage: "same".parse().expect("a name"),
                    record,
                    files: Some(vec![("my metrics.json".to_owned(), 7)]),
                },
                Exported {
                    stage: "other".parse().expect("a name"),
                    record: other_run,
                    files: Some(vec![("my metrics.json".to_owned(), 7)]),
                },
            ],
        };
        let copied = made.copied().into_iter();
        let places: Vec<String> = copied.map(|(_, place)| place).collect();
        assert_eq!(places, ["artifacts/score@rate=0.9"], "the same bytes once");
        let text: Value = serde_json::from_str(&made.metadata()).expect("JSON");
        let graph = text["@graph"].as_array().expect("a list");
        let ids: Vec<&str> = graph.iter().filter_map(|one| one["@id"].as_str()).collect();
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), known.len(), "{ids:?}");
        for id in [
            "./",
            "manifest/x.toml",
            "manifest/2-x.toml",
            "artifacts/score@rate=0.9/my%20metrics.json",
        ] {
            assert!(known.contains(id), "{id}: {ids:?}");
        }
        fn check(value: &Value, known: &BTreeSet<&str>) {
            match value {
                Value::Array(list) => list.iter().for_each(|one| check(one, known)),
                Value::Object(table) => {
                    if let (1, Some(Value::String(id))) = (table.len(), table.get("@id")) {
                        let is_outside = id.starts_with("http");
                        assert!(is_outside || known.contains(id.as_str()), "{id} is not described");
                    }
                    table.values().for_each(|one| check(one, known));
                }
                _ => {}
            }
        }
        check(&text["@graph"], &known);
        let named = |name: &str| graph.iter().find(|one| one["name"] == name).expect(name);
        let run = named("Run of score@rate=0.9, same");
        let other = named("Run of other");
        assert_eq!(run["@type"], "CreateAction");
        assert_eq!(run["result"]["@id"], "artifacts/score@rate=0.9/");
        assert_eq!(other["result"], run["result"]);
        assert_eq!(
            named("The metrics of score@rate=0.9, same, other")["@id"],
            "artifacts/score@rate=0.9/"
        );
        let mentions = named("x")["mentions"].as_array().expect("a list");
        assert_eq!(mentions.len(), 3, "{mentions:?}");
        assert_eq!(
            named("evaluate")["isPartOf"],
            json!([{"@id": "#pipeline-0.2"}, {"@id": "#pipeline-0.1"}])
        );
        let versions = graph.iter().filter(|one| one["name"] == "pipeline");
        let versions: Vec<&str> =
            versions.filter_map(|one| one["softwareVersion"].as_str()).collect();
        assert!(versions.contains(&"0.1") && versions.contains(&"0.2"), "{versions:?}");
    }
}
