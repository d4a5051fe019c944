//! What is written to MLflow: names that it takes, values within its limits, requests of bounded size. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The most entries of a request (MAX_METRICS_PER_BATCH and MAX_PARAMS_TAGS_PER_BATCH in mlflow/utils/validation.py).
const MOST_METRICS: usize = 1000;
const MOST_WORDS: usize = 100;
/// The most bytes of the entries of a request; MLflow refuses a request of more than 1,000,000.
const MOST_BYTES: usize = 800_000;
/// The longest names and values.
const LONGEST_NAME: usize = 250;
const LONGEST_PARAMETER: usize = 6000;
const LONGEST_TAG: usize = 5000;

/// A number that was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metric {
    /// As [`name`] makes it.
    pub(super) name: String,
    pub(super) step: u64,
    pub(super) value: f64,
    /// Milliseconds since 1970, UTC.
    pub(super) at: u64,
}

/// Names with their values, as tags or parameters.
pub(super) type Words = BTreeMap<String, String>;

/// A name that MLflow takes: of letters, digits, `_`, `-`, `.`, `:`, spaces, and `/` between parts that are not empty. Others
/// become `_`.
pub(super) fn name(text: &str) -> String {
    let letter = |letter: char| match letter {
        letter if letter.is_alphanumeric() || "_-.: ".contains(letter) => letter,
        _ => '_',
    };
    let parts = text.split('/').map(|part| match part {
        "" | "." | ".." => "_".to_owned(),
        part => part.chars().map(letter).collect(),
    });
    let name = parts.collect::<Vec<_>>().join("/");
    // What is cut off must not end with a slash.
    shortened(&name, LONGEST_NAME).trim_end_matches('/').to_owned()
}

/// The beginning of a text: at most this many bytes.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// A number in JSON, which does not have all of them.
fn number(value: f64) -> Value {
    if value.is_finite() {
        return json!(value);
    }
    let word = match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    json!(word)
}

/// The requests that add all this to a run.
pub(super) fn log_batches(
    run: &str,
    parameters: &Words,
    tags: &Words,
    metrics: &[Metric],
) -> Vec<Value> {
    let metrics = metrics.iter().map(|Metric { name, step, value, at }| {
        json!({"key": name, "value": number(*value), "timestamp": at, "step": step})
    });
    let lists = [
        ("params", MOST_WORDS, words(parameters, LONGEST_PARAMETER)),
        ("tags", MOST_WORDS, words(tags, LONGEST_TAG)),
        ("metrics", MOST_METRICS, metrics.collect()),
    ];
    let mut requests = Vec::new();
    for (list, most, entries) in lists {
        for chunk in chunks(entries, most) {
            requests.push(json!({"run_id": run, list: chunk}));
        }
    }
    requests
}

fn words(words: &Words, longest: usize) -> Vec<Value> {
    let entry = |(key, value): (&String, &String)| json!({"key": name(key), "value": shortened(value, longest)});
    words.iter().map(entry).collect()
}

/// The entries in their order, as many at once as fit in a request.
fn chunks(entries: Vec<Value>, most: usize) -> Vec<Vec<Value>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let length = entry.to_string().len() + 1;
        if !chunk.is_empty() && (chunk.len() == most || bytes + length > MOST_BYTES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += length;
        chunk.push(entry);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// The request that makes a run.
pub(super) fn create_run(experiment: &str, name: &str, start: u64, tags: &Words) -> Value {
    json!({
        "experiment_id": experiment,
        "run_name": name,
        "start_time": start,
        "tags": words(tags, LONGEST_TAG),
    })
}

/// The request that finds the runs with this value of a tag, the newest first.
pub(super) fn search(experiment: &str, tag: &str, value: &str) -> Value {
    json!({
        "experiment_ids": [experiment],
        "filter": format!("tags.`{tag}` = '{value}'"),
        "order_by": ["attributes.start_time DESC"],
        "max_results": 20,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_what_mlflow_takes() {
        for (text, expected) in [
            ("test-accuracy/scratch", "test-accuracy/scratch"),
            ("Größe: 1.5 m", "Größe: 1.5 m"),
            ("a@b=c,d", "a_b_c_d"),
            ("/a//b/../", "_/a/_/b/_/_"),
            (".", "_"),
            ("", "_"),
            ("a\n\u{1b}[31m", "a___31m"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
        assert_eq!(name(&"ä".repeat(200)).len(), 250);
        assert_eq!(name(&format!("{}/b", "a".repeat(249))).len(), 249);
    }

    #[test]
    fn what_json_cannot_say_is_a_word() {
        let metric = |value| Metric { name: "loss".to_owned(), step: 3, value, at: 1000 };
        let metrics = [0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(metric);
        let requests = log_batches("r", &Words::new(), &Words::new(), &metrics);
        let values: Vec<String> = requests[0]["metrics"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["value"].to_string())
            .collect();
        assert_eq!(values, ["0.5", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""]);
        assert_eq!(
            requests[0]["metrics"][0],
            json!({"key": "loss", "value": 0.5, "timestamp": 1000, "step": 3})
        );
    }

    #[test]
    fn requests_keep_the_limits_of_the_server() {
        let metric = |step| Metric { name: "n".repeat(250), step, value: 1.0, at: 1 };
        let metrics: Vec<_> = (0..2500).map(metric).collect();
        let parameters: Words =
            (0..250).map(|number| (format!("p{number}"), "\u{1}".repeat(9000))).collect();
        let tags = Words::from([("tag".to_owned(), "x".repeat(9000))]);
        let requests = log_batches("r", &parameters, &tags, &metrics);
        let count = |list: &str| {
            let lists = requests.iter().filter_map(|request| request.get(list)?.as_array());
            lists.map(|list| list.len()).collect::<Vec<_>>()
        };
        assert_eq!(count("metrics"), [1000, 1000, 500]);
        assert_eq!(count("params").iter().sum::<usize>(), 250);
        assert_eq!(count("tags"), [1]);
        for request in &requests {
            assert!(request.to_string().len() < 1_000_000);
        }
        assert!(log_batches("r", &Words::new(), &Words::new(), &[]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_text_becomes_a_name_that_is_taken(text in any::<String>(), made in "[./a]*") {
            for text in [text, made] {
                let name = name(&text);
                prop_assert!(!name.is_empty() && name.len() <= 250);
                prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(&super::name(&name), &name);
            }
        }
    }
}
