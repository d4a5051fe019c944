//! What is written to MLflow: names that it takes, values within its limits, requests of bounded size. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::digest::FieldHasher;

/// The most entries of a request (MAX_METRICS_PER_BATCH and MAX_PARAMS_TAGS_PER_BATCH in mlflow/utils/validation.py).
const MOST_METRICS: usize = 1000;
const MOST_WORDS: usize = 100;
/// The most bytes of the entries of a request; MLflow refuses a request of more than 1,000,000.
const MOST_BYTES: usize = 800_000;
/// The longest names and values, in letters: MLflow counts code points (_validate_length_limit in the same file).
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
        letter if is_word(letter) || "_-.: ".contains(letter) => letter,
        _ => '_',
    };
    let parts = text.split('/').map(|part| match part {
        "" | "." | ".." => "_".to_owned(),
        part => part.chars().map(letter).collect(),
    });
    let name = parts.collect::<Vec<_>>().join("/");
    shortened_name(&name, LONGEST_NAME).to_owned()
}

/// Whether Python's `\w` has it, which has no accents without their letter.
fn is_word(letter: char) -> bool {
    letter.is_numeric() || letter.is_alphabetic() && unicode_ident::is_xid_start(letter)
}

/// The beginning of a name: at most this many letters.
fn shortened_name(name: &str, most: usize) -> &str {
    match shortened(name, most) {
        whole if whole.len() == name.len() => whole,
        // The last part must not be empty, `.` or `..`.
        cut => match cut.trim_end_matches(['/', '.']) {
            "" => "_",
            cut => cut,
        },
    }
}

/// The names of these texts on the server, as [`name`] makes them. Of those that would become one, each that was changed
/// ends with a hash of what it was. This does not depend on their order.
pub(super) fn names<'t>(texts: impl IntoIterator<Item = &'t str>) -> HashMap<&'t str, String> {
    let texts: BTreeSet<&str> = texts.into_iter().collect();
    let mut uses: HashMap<String, usize> = HashMap::new();
    for text in &texts {
        *uses.entry(name(text)).or_default() += 1;
    }
    let distinct = |text: &'t str| {
        let plain = name(text);
        if plain == text || uses.get(&plain) == Some(&1) {
            return (text, plain);
        }
        let hash = &FieldHasher::new("mlflow name").text(text).finish().to_string()[..8];
        (text, format!("{}-{hash}", shortened_name(&plain, LONGEST_NAME - hash.len() - 1)))
    };
    texts.into_iter().map(distinct).collect()
}

/// The beginning of a text: at most this many letters.
fn shortened(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
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
pub(super) fn words_requests(run: &str, parameters: &Words, tags: &Words) -> Vec<Value> {
    let lists =
        [("params", words(parameters, LONGEST_PARAMETER)), ("tags", words(tags, LONGEST_TAG))];
    let mut requests = Vec::new();
    for (list, mut entries) in lists {
        while !entries.is_empty() {
            let rest = entries.split_off(fitting(&entries, MOST_WORDS));
            requests.push(json!({"run_id": run, list: entries}));
            entries = rest;
        }
    }
    requests
}

/// The request that adds the first of these values to a run, and how many these are.
pub(super) fn metrics_request(run: &str, metrics: &[Metric]) -> (Value, usize) {
    let entries = metrics.iter().take(MOST_METRICS).map(|Metric { name, step, value, at }| {
        json!({"key": name, "value": number(*value), "timestamp": at, "step": step})
    });
    let mut entries: Vec<Value> = entries.collect();
    let count = fitting(&entries, MOST_METRICS);
    entries.truncate(count);
    (json!({"run_id": run, "metrics": entries}), count)
}

fn words(words: &Words, longest: usize) -> Vec<Value> {
    let names = names(words.keys().map(String::as_str));
    let entry = |(key, value): (&String, &String)| json!({"key": names[key.as_str()], "value": shortened(value, longest)});
    words.iter().map(entry).collect()
}

/// How many of these entries, from the first on, fit in a request.
fn fitting(entries: &[Value], most: usize) -> usize {
    let mut bytes = 0;
    let is_too_much = |(place, entry): (usize, &Value)| {
        bytes += entry.to_string().len() + 1;
        place > 0 && (place == most || bytes > MOST_BYTES)
    };
    entries.iter().enumerate().position(is_too_much).unwrap_or(entries.len())
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
            // Two letters of one sound, and letters with marks, in circles and for numbers.
            ("e\u{301}", "e_"),
            ("\u{928}\u{93f}\u{2160}\u{24b6}\u{bd}", "\u{928}_\u{2160}_\u{bd}"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
        assert_eq!(name(&"ä".repeat(300)).chars().count(), 250);
        assert_eq!(name(&format!("{}/b", "a".repeat(249))).len(), 249);
        assert_eq!(name(&format!("{}/..b", "a".repeat(247))).len(), 247);
        assert_eq!(name(&".".repeat(300)), "_");
    }

    #[test]
    fn names_that_would_become_one_stay_apart() {
        let long = |end: &str| format!("{}{end}", "n".repeat(250));
        let (one, two) = (long("1"), long("2"));
        let texts = ["top@1", "top_1", "top#1", "a@b", &one, &two];
        let found = names(texts);
        assert_eq!(found, names(texts.into_iter().rev()));
        assert_eq!((found["top_1"].as_str(), found["a@b"].as_str()), ("top_1", "a_b"));
        for text in ["top@1", "top#1"] {
            assert!(found[text].starts_with("top_1-"), "{found:?}");
        }
        let distinct: BTreeSet<&String> = found.values().collect();
        assert_eq!(distinct.len(), texts.len(), "{found:?}");
        for name in found.values() {
            assert!(name.len() <= 250 && super::name(name) == *name, "{name}");
        }
    }

    #[test]
    fn long_values_are_cut_by_letters() {
        let words = Words::from([("p".to_owned(), "ä".repeat(7000))]);
        let requests = words_requests("r", &words, &Words::new());
        let value = requests[0]["params"][0]["value"].as_str().expect("a text");
        assert_eq!(value.chars().count(), 6000);
    }

    #[test]
    fn what_json_cannot_say_is_a_word() {
        let metric = |value| Metric { name: "loss".to_owned(), step: 3, value, at: 1000 };
        let metrics = [0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(metric);
        let (request, count) = metrics_request("r", &metrics);
        assert_eq!(count, 4);
        let values: Vec<String> = request["metrics"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["value"].to_string())
            .collect();
        assert_eq!(values, ["0.5", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""]);
        assert_eq!(
            request["metrics"][0],
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
        let mut requests = words_requests("r", &parameters, &tags);
        let mut left = metrics.as_slice();
        while !left.is_empty() {
            let (request, count) = metrics_request("r", left);
            requests.push(request);
            left = &left[count..];
        }
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
        assert!(words_requests("r", &Words::new(), &Words::new()).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_text_becomes_a_name_that_is_taken(text in any::<String>(), made in "[./a]*") {
            for text in [text, made] {
                let name = name(&text);
                prop_assert!(!name.is_empty() && name.chars().count() <= 250);
                prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(&super::name(&name), &name);
            }
        }
    }
}
