//! How every name of the checkpoint was used: `import.json`, and a few notes for people.

use std::collections::BTreeSet;
use std::path::Path;

use pipeline_stages::formats::write_json;
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::worker::Context;
use serde::Serialize;

use super::layers::Selection;
use crate::checkpoint::{CheckpointFormat, Entry, Leaf};

const FILE: &str = "import.json";
/// The most ignored names in the file; others are only counted.
const LISTED: usize = 2_000;
/// The most ignored names in a note.
const NAMED: usize = 4;

/// `import.json`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    /// The format of the file.
    pub format: CheckpointFormat,
    /// The prefix of the encoder's names.
    pub prefix: String,
    /// The layers, and their names in the file.
    used: Vec<Used>,
    /// Counters that are missing in the file: they start at zero.
    missing: Vec<String>,
    /// What is in the file, but not in the artifact.
    ignored: Vec<Ignored>,
    /// How many more ignored names the file has.
    #[serde(skip_serializing_if = "is_zero")]
    ignored_more: usize,
    /// The prefixes of other encoders of this architecture in the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_encoders: Vec<String>,
}

/// A layer.
#[derive(Serialize)]
struct Used {
    name: String,
    /// Its name in the file.
    from: String,
    /// The type of its elements in the file.
    r#type: &'static str,
    shape: Vec<usize>,
}

/// An ignored name.
#[derive(Serialize)]
struct Ignored {
    name: String,
    /// Its value, in words.
    what: String,
}

impl Report {
    pub(super) fn new(
        format: CheckpointFormat,
        selection: &Selection<'_>,
        entries: &[Entry<'_>],
    ) -> Self {
        let mut used = Vec::new();
        let mut missing = Vec::new();
        for layer in &selection.layers {
            let name = layer.spec.name.clone();
            match &layer.found {
                Some(found) => used.push(Used {
                    name,
                    from: found.name.to_owned(),
                    r#type: found.tensor.element.name(),
                    shape: found.tensor.shape.clone(),
                }),
                None => missing.push(name),
            }
        }
        let taken: BTreeSet<&str> = used.iter().map(|layer| layer.from.as_str()).collect();
        let left_out = entries.iter().filter(|entry| !taken.contains(entry.name.as_str()));
        let ignored_more = left_out.clone().count().saturating_sub(LISTED);
        let ignored = left_out.take(LISTED).map(|entry| Ignored {
            name: entry.name.clone(),
            what: match &entry.leaf {
                Leaf::Tensor(tensor) => tensor.to_string(),
                Leaf::Damaged(what) | Leaf::Opaque(what) => what.clone(),
            },
        });
        let ignored = ignored.collect();
        let prefix = selection.prefix.clone();
        let other_encoders = selection.others.clone();
        Self { format, prefix, used, missing, ignored, ignored_more, other_encoders }
    }

    /// Writes the file of an artifact.
    pub(super) fn write(&self, artifact: &Path) -> anyhow::Result<()> {
        write_json(&artifact.join(FILE), self)
    }

    /// Notes a summary for people.
    pub(super) fn note(&self, architecture: EncoderArchitecture, context: &Context) {
        let place = match self.prefix.as_str() {
            "" => "names without a prefix".to_owned(),
            prefix => format!("names with the prefix '{prefix}'"),
        };
        context.note(format!("read {} tensors of a {architecture}, {place}", self.used.len()));
        if !self.other_encoders.is_empty() {
            context.note(format!(
                "the file has other encoders with the prefix '{}': choose one with prefix = \"...\"",
                self.other_encoders.join("', '")
            ));
        }
        if let Some(first) = self.missing.first() {
            let count = self.missing.len();
            context.note(format!(
                "{count} counters ('{first}', ...) are missing in the file: they start at 0"
            ));
        }
        let count = self.ignored.len() + self.ignored_more;
        if count > 0 {
            let shown = self.ignored.iter().take(NAMED).map(|it| format!("'{}'", it.name));
            let shown: Vec<String> = shown.collect();
            let more = if count > NAMED { ", ..." } else { "" };
            context
                .note(format!("ignored {count} entries: {}{more}; see {FILE}", shown.join(", ")));
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
