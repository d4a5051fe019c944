//! What enters a stage key. One walk makes the list of [`KeyPart`]s; [`StageKey::of`] hashes that list
//! and [`change`] explains how two lists differ, so the explanation cannot differ from the key.
//!
//! In the key: the schema, the kind and its version, every parameter that can change the result (with
//! defaults filled in), the seed where the kind draws random numbers, and the digest of the content of
//! every input. Not in the key: names of stages and experiments, paths, times, hosts, devices, and the
//! order of tables in the manifest. An input counts by its content, not by the key of the stage that
//! made it: this makes early cutoff possible.
//!
//! Does no I/O, and does not depend on the cache.

pub(crate) mod change;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use pipeline_stages::KindConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, FieldHasher};
use crate::manifest::{Connection, Stage};
use crate::stage_name::StageName;

/// Bumped when the encoding of a key changes: every stage runs again then.
pub(crate) const SCHEMA: u32 = 1;

const DOMAIN: &str = "pipeline 2026-11 stage key";

/// The name of a result: the hash of all that may change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct StageKey(Digest);

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for StageKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

/// One thing that may change the result of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename_all = "kebab-case")]
pub(crate) enum KeyPart {
    /// How keys are encoded.
    Schema {
        version: u32,
    },
    Kind {
        name: String,
        /// The version of its results.
        version: u32,
    },
    /// The seed of its random draws.
    Seed {
        seed: u64,
    },
    Parameter {
        name: String,
        value: Value,
    },
    /// The content of an input.
    Input {
        /// The port, with the name or the number of the input where the port takes several.
        port: String,
        /// The stage that it comes from. For the explanation only: not hashed.
        from: StageName,
        digest: Digest,
    },
    /// An instance of a stage of which all are read, and which failed: the stage runs without it.
    Missing {
        /// The port, with the point of the instance.
        port: String,
    },
    /// The content of a file or folder outside the cache.
    Outside {
        /// Its place in the list of the stage's outside paths.
        index: usize,
        /// The path in the manifest. For the explanation only: not hashed.
        path: String,
        digest: Digest,
    },
}

/// A file or folder outside the cache that a stage reads, and the digest of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutsideDigest {
    /// The path in the manifest.
    pub(crate) path: String,
    pub(crate) digest: Digest,
}

/// What is known of the result of a stage that another one reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputResult {
    /// Nothing yet.
    Unknown,
    /// There is none, and the stage that reads it runs without it.
    Missing,
    /// This one.
    Made {
        /// What it was made of.
        key: StageKey,
        /// Its content.
        digest: Digest,
    },
}

/// The parts of a stage's key. `result_of` returns what is known of the result of a stage. Inputs of which
/// nothing is known are left out, so that the known ones can be compared before all are known.
pub(crate) fn parts(
    declaration: &Stage,
    outside: &[OutsideDigest],
    result_of: impl Fn(&StageName) -> InputResult,
) -> Vec<KeyPart> {
    let stage: &KindConfig = &declaration.stage;
    let info = stage.info();
    let mut parts = vec![
        KeyPart::Schema { version: SCHEMA },
        KeyPart::Kind { name: info.name.to_owned(), version: stage.version() },
    ];
    if info.seeded {
        parts.push(KeyPart::Seed { seed: declaration.seed });
    }
    for (name, value) in stage.key_parameters() {
        parts.push(KeyPart::Parameter { name, value });
    }
    let key_of = |from: &StageName| match result_of(from) {
        InputResult::Made { key, .. } => Some(key),
        InputResult::Missing | InputResult::Unknown => None,
    };
    for KeyInput { port, from, .. } in inputs(declaration, key_of) {
        let from = &from[0].from;
        match result_of(from) {
            InputResult::Made { digest, .. } => {
                parts.push(KeyPart::Input { port, from: from.clone(), digest });
            }
            InputResult::Missing => parts.push(KeyPart::Missing { port }),
            InputResult::Unknown => {}
        }
    }
    for (index, OutsideDigest { path, digest }) in outside.iter().enumerate() {
        parts.push(KeyPart::Outside { index, path: path.clone(), digest: *digest });
    }
    parts
}

/// What a stage reads as one input.
pub(crate) struct KeyInput<'m> {
    /// The port.
    pub(crate) at: &'m str,
    /// The port, with the name or the number of the input where the port takes several, and with its points where it
    /// takes all instances of a stage.
    pub(crate) port: String,
    /// The stages behind it: several where instances have one key, and so are one run.
    pub(crate) from: Vec<&'m Connection>,
}

/// What a stage reads. `key_of` returns the key of a stage's result, where it is known.
pub(crate) fn inputs<'m>(
    declaration: &'m Stage,
    key_of: impl Fn(&StageName) -> Option<StageKey>,
) -> Vec<KeyInput<'m>> {
    let mut inputs: Vec<KeyInput<'m>> = Vec::new();
    for (at, connections) in &declaration.inputs {
        let mut runs: HashMap<(Option<&str>, StageKey), usize> = HashMap::new();
        for (index, connection) in connections.iter().enumerate() {
            let name = connection.name.as_deref();
            let port = match name {
                Some(name) => format!("{at}.{name}"),
                None if connections.len() > 1 && !connection.among_all => format!("{at}[{index}]"),
                None => at.clone(),
            };
            if !connection.among_all {
                inputs.push(KeyInput { at, port, from: vec![connection] });
                continue;
            }
            let place = inputs.len();
            let place = key_of(&connection.from)
                .map_or(place, |key| *runs.entry((name, key)).or_insert(place));
            let point = connection.point();
            match inputs.get_mut(place) {
                Some(input) => {
                    input.port.push_str(&format!(";{point}"));
                    input.from.push(connection);
                }
                None => {
                    let port = format!("{port}@{point}");
                    inputs.push(KeyInput { at, port, from: vec![connection] });
                }
            }
        }
    }
    inputs
}

/// The inputs that are one because they are one run, each by itself.
pub(crate) fn single_ports(port: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let (name, points) = port.split_once('@').unwrap_or((port, ""));
    let is_one = !points.contains(';');
    let each = move |point| match is_one {
        true => Cow::Borrowed(port),
        false => Cow::Owned(format!("{name}@{point}")),
    };
    points.split(';').map(each)
}

impl StageKey {
    /// The first digits: enough to distinguish keys by eye.
    pub(crate) fn short(&self) -> String {
        self.0.short()
    }

    /// Which of 256 parts of all keys it is in: its first two digits.
    pub(crate) fn shard(&self) -> u8 {
        self.0.as_bytes()[0]
    }

    /// The key that these parts make.
    pub(crate) fn of(parts: &[KeyPart]) -> Self {
        let mut hasher = FieldHasher::new(DOMAIN);
        for part in parts {
            match part {
                KeyPart::Schema { version } => hasher.text("schema").number((*version).into()),
                KeyPart::Kind { name, version } => {
                    hasher.text("kind").text(name).number((*version).into())
                }
                KeyPart::Seed { seed } => hasher.text("seed").number(*seed),
                KeyPart::Parameter { name, value } => {
                    hash_value(hasher.text("parameter").text(name), value)
                }
                KeyPart::Input { port, from: _, digest } => {
                    hasher.text("input").text(port).digest(digest)
                }
                KeyPart::Missing { port } => hasher.text("missing").text(port),
                KeyPart::Outside { index, path: _, digest } => {
                    hasher.text("outside").number(*index as u64).digest(digest)
                }
            };
        }
        Self(hasher.finish())
    }
}

fn hash_value<'e>(hasher: &'e mut FieldHasher, value: &Value) -> &'e mut FieldHasher {
    match value {
        Value::Null => hasher.text("null"),
        Value::Bool(value) => hasher.text("bool").number((*value).into()),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => hasher.text("natural").number(number),
            (None, Some(number), _) => hasher.text("integer").bytes(&number.to_le_bytes()),
            // A zero below zero is the same number as the one above.
            (None, None, number) => {
                hasher.text("real").number((number.unwrap_or(f64::NAN) + 0.0).to_bits())
            }
        },
        Value::String(text) => hasher.text("text").text(text),
        Value::Array(items) => {
            hasher.text("list").number(items.len() as u64);
            items.iter().fold(hasher, hash_value)
        }
        Value::Object(table) => {
            hasher.text("table").number(table.len() as u64);
            let mut sorted: Vec<_> = table.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            sorted
                .into_iter()
                .fold(hasher, |hasher, (name, value)| hash_value(hasher.text(name), value))
        }
    }
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::change::{Change, changes};
    use super::*;
    use crate::manifest;

    pub(super) const BASE: &str = r#"
        [experiment]
        name = "test"
        seed = 1
        [stages.raw]
        kind = "download"
        url = "https://example.org/a.zip"
        md5 = "0123456789abcdef0123456789abcdef"
        [stages.archive]
        kind = "unpack"
        archive = "raw"
        [stages.data]
        kind = "dataset"
        format = "idx"
        source = ["archive", "raw"]
        [stages.split]
        kind = "split"
        data = "data"
        [stages.noisy]
        kind = "corrupt-labels"
        data = "data"
        rate = 0.8
        [stages.report]
        kind = "command"
        run = ["cat"]
        files = ["a.py"]
        inputs = { split = "split", noisy = "noisy" }
    "#;

    pub(super) fn digest(text: &str) -> Digest {
        FieldHasher::new("test").text(text).finish()
    }

    /// The parts of a stage, every input having the content of its own name.
    pub(super) fn parts_of(text: &str, stage: &str) -> Vec<KeyPart> {
        let (manifest, _) = manifest::parse(Path::new("test.toml"), text, &[]).expect("a manifest");
        let declaration =
            manifest.stages.iter().find(|one| one.name.as_str() == stage).expect("a stage");
        let paths = declaration.stage.outside_paths().into_iter();
        let outside: Vec<_> = paths
            .map(|outside| OutsideDigest { digest: digest(&outside.path), path: outside.path })
            .collect();
        parts(declaration, &outside, |input| {
            let key = StageKey(digest(input.as_str()));
            InputResult::Made { key, digest: digest(input.as_str()) }
        })
    }

    pub(super) fn key_of(text: &str, stage: &str) -> StageKey {
        StageKey::of(&parts_of(text, stage))
    }

    #[test]
    fn what_cannot_change_the_result_is_not_in_the_key() {
        let same = [
            ("name = \"test\"", "name = \"other\"", "noisy"),
            ("seed = 1", "seed = 1 # a comment", "noisy"),
            ("rate = 0.8", "noise = \"symmetric\"\nrate = 0.80", "noisy"),
            ("rate = 0.8", "rate = 0.8\nexecution = { threads = 1 }", "noisy"),
            ("seed = 1", "seed = 2", "data"),
            ("https://example.org", "https://mirror.example.org", "raw"),
            ("md5 = \"0123456789abcdef", "retries = 9\nmd5 = \"0123456789ABCDEF", "raw"),
            ("archive = \"raw\"", "archive = \"raw\"\nmax-files = 7", "archive"),
            (
                "split = \"split\", noisy = \"noisy\"",
                "noisy = \"noisy\", split = \"split\"",
                "report",
            ),
            ("run = [\"cat\"]", "run = [\"cat\"]\npass-environment = [\"X\"]", "report"),
        ];
        for (old, new, stage) in same {
            let edited = BASE.replace(old, new);
            assert_ne!(edited, BASE, "the edit {new:?} edits something");
            assert_eq!(key_of(&edited, stage), key_of(BASE, stage), "{new}");
        }
    }

    #[test]
    fn what_can_change_the_result_is_in_the_key_and_explained() {
        let other = [
            ("rate = 0.8", "rate = 0.5", "noisy", "rate: 0.8 -> 0.5"),
            ("seed = 1", "seed = 2", "noisy", "seed: 1 -> 2"),
            (
                "rate = 0.8",
                "rate = 0.8\nnoise = \"flip\"",
                "noisy",
                "noise: \"symmetric\" -> \"flip\"",
            ),
            ("a.zip", "b.zip", "raw", "name: \"a.zip\" -> \"b.zip\""),
            (
                "md5 = \"0",
                "md5 = \"1",
                "raw",
                "md5: \"0123456789abcdef0123456789abcdef\" -> \"1123456789abcdef0123456789abcdef\"",
            ),
            (
                "format = \"idx\"",
                "format = \"idx\"\ntrain-limit = 5000",
                "data",
                "train-limit: not given -> 5000",
            ),
            (
                "[\"archive\", \"raw\"]",
                "[\"archive\"]",
                "data",
                "input 'source' is new: stage 'archive'; input 'source[0]' was removed: stage 'archive'; \
              input 'source[1]' was removed: stage 'raw'",
            ),
            (
                "noisy = \"noisy\"",
                "noisy = \"data\"",
                "report",
                "the content of input 'inputs.noisy' changed, through stage 'data'",
            ),
            (
                "files = [\"a.py\"]",
                "files = []",
                "report",
                "files: [\"a.py\"] -> []; a.py is no longer read",
            ),
        ];
        for (old, new, stage, explanation) in other {
            let edited = BASE.replace(old, new);
            let (before, after) = (parts_of(BASE, stage), parts_of(&edited, stage));
            assert_ne!(StageKey::of(&after), StageKey::of(&before), "{new}");
            let texts: Vec<String> =
                changes(&before, &after).iter().map(Change::to_string).collect();
            assert_eq!(texts.join("; "), explanation);
        }
    }

    #[test]
    fn the_stage_behind_an_input_counts_by_its_content_alone() {
        let input = |from: &str, content: &str| KeyPart::Input {
            port: "data".into(),
            from: serde_json::from_value(from.into()).expect("a name"),
            digest: digest(content),
        };
        assert_eq!(StageKey::of(&[input("a", "x")]), StageKey::of(&[input("b", "x")]));
        assert_ne!(StageKey::of(&[input("a", "x")]), StageKey::of(&[input("a", "y")]));
    }

    /// A key that changes by accident makes every user's every stage run again: bump `SCHEMA` if you mean it.
    #[test]
    fn keys_are_the_same_in_every_build() {
        assert_eq!(
            key_of(BASE, "noisy").to_string(),
            "d0f0cd4d3823309147a176402bd851b6a1c3e95e12ef4ae704393ab517274607"
        );
    }

    pub(super) fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has no other", |number| number.is_finite())
                .prop_map(Value::from),
            "[a-c]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|table| Value::Object(table.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn different_values_have_different_keys(a in value(), b in value()) {
            let part = |value: &Value| KeyPart::Parameter { name: "x".into(), value: value.clone() };
            let same_key = StageKey::of(&[part(&a)]) == StageKey::of(&[part(&b)]);
            prop_assert_eq!(same_key, a == b);
        }

        #[test]
        fn a_key_survives_its_record(value in value()) {
            let parts = vec![KeyPart::Parameter { name: "x".into(), value }];
            let text = serde_json::to_string(&parts).expect("plain data");
            let read: Vec<KeyPart> = serde_json::from_str(&text).expect("what was written");
            prop_assert_eq!(StageKey::of(&read), StageKey::of(&parts));
        }
    }
}
