//! Metrics: numbers under flat names, and how they are written as JSON and read from a program's file.
//!
//! JSON has no NaN and no infinities. Here they are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, so that
//! every JSON that is written can be read by any program, and no value is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use serde::de::{Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Numbers that a stage reports, under flat names.
///
/// Counts are integers in JSON, and integers that are read stay integers; otherwise they are numbers like the others.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Entry>", into = "BTreeMap<String, Entry>")]
pub struct Metrics {
    values: BTreeMap<String, f64>,
    /// The names of those that are counts.
    counts: BTreeSet<String>,
}

impl Metrics {
    /// No numbers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts alone.
    pub fn of_counts<const N: usize>(entries: [(&str, usize); N]) -> Self {
        let mut metrics = Self::new();
        for (name, count) in entries {
            metrics.insert_count(name, count as u64);
        }
        metrics
    }

    /// Adds a number of things.
    pub fn insert_count(&mut self, name: &str, count: u64) {
        self.values.insert(name.to_owned(), count as f64);
        self.counts.insert(name.to_owned());
    }
}

impl PartialEq for Metrics {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl Deref for Metrics {
    type Target = BTreeMap<String, f64>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl DerefMut for Metrics {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.values
    }
}

impl<const N: usize> From<[(String, f64); N]> for Metrics {
    fn from(entries: [(String, f64); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl FromIterator<(String, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(entries: I) -> Self {
        Self { values: entries.into_iter().collect(), counts: BTreeSet::new() }
    }
}

impl IntoIterator for Metrics {
    type Item = (String, f64);
    type IntoIter = std::collections::btree_map::IntoIter<String, f64>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.into_iter()
    }
}

impl<'a> IntoIterator for &'a Metrics {
    type Item = (&'a String, &'a f64);
    type IntoIter = std::collections::btree_map::Iter<'a, String, f64>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.iter()
    }
}

/// A value of [`Metrics`] in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Count(i64),
    Number(Number),
}

/// The largest count that is exact as a float, 2^53.
const LARGEST_COUNT: f64 = 9_007_199_254_740_992.0;

fn is_count(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() <= LARGEST_COUNT
}

impl From<BTreeMap<String, Entry>> for Metrics {
    fn from(entries: BTreeMap<String, Entry>) -> Self {
        let mut metrics = Self::new();
        for (name, entry) in entries {
            let value = match entry {
                Entry::Count(count) => {
                    metrics.counts.insert(name.clone());
                    count as f64
                }
                Entry::Number(Number(value)) => value,
            };
            metrics.values.insert(name, value);
        }
        metrics
    }
}

impl From<Metrics> for BTreeMap<String, Entry> {
    fn from(metrics: Metrics) -> Self {
        let Metrics { values, counts } = metrics;
        let entry = |(name, value): (String, f64)| {
            // A count whose value was replaced by another number is none any more.
            let entry = match counts.contains(&name) && is_count(value) {
                true => Entry::Count(value as i64),
                false => Entry::Number(Number(value)),
            };
            (name, entry)
        };
        values.into_iter().map(entry).collect()
    }
}

/// A number that may be NaN or infinite, in JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(pub f64);

const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const MINUS_INFINITY: &str = "-Infinity";

impl Number {
    /// The name of a value that is not finite.
    pub fn name(self) -> Option<&'static str> {
        match self.0 {
            value if value.is_finite() => None,
            value if value.is_nan() => Some(NAN),
            value => Some(if value > 0.0 { INFINITY } else { MINUS_INFINITY }),
        }
    }

    /// The value with this name.
    fn named(name: &str) -> Option<f64> {
        match name {
            NAN => Some(f64::NAN),
            INFINITY => Some(f64::INFINITY),
            MINUS_INFINITY => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Name(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(Self(value)),
            Written::Name(name) => Self::named(&name)
                .map(Self)
                .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&name), &"a number")),
        }
    }
}

/// For fields: `#[serde(with = "number")]`.
pub(crate) mod number {
    use super::{Deserialize, Deserializer, Number, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Number(*value).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Number::deserialize(deserializer).map(|Number(value)| value)
    }
}

/// What is in a `metrics.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsFile {
    /// Its numbers. A number within objects is named by its path: `test/accuracy`.
    pub metrics: Metrics,
    /// What else it contains, in words: `'model' (a string)`.
    pub left_out: Vec<String>,
    /// What the file is, in words, if it is not an object.
    pub instead: Option<&'static str>,
}

/// What is said of a name that occurs again.
const TWICE: &str = "it occurs more than once; the last one counts";

/// The deepest nesting that is read: that of `serde_json`.
const DEEPEST: usize = 127;

impl MetricsFile {
    /// Parses a file. Accepts NaN, infinities and numbers that are too large, as Python writes them. Of several values
    /// with the same name, the last one counts.
    ///
    /// # Errors
    /// With what the file is: `is not JSON (line 1, column 7)`.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        if text.trim_ascii().is_empty() {
            return Err("is not JSON: it is empty".to_owned());
        }
        if depth(text) > DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST} levels"));
        }
        let mut file = Self::default();
        match serde_json::from_slice(&standard_json(text)).map_err(|error| problem(text, &error))? {
            Tree::Object(entries) => file.take(None, entries),
            other => file.instead = Some(other.what()),
        }
        file.left_out.sort_unstable();
        file.left_out.dedup();
        Ok(file)
    }

    /// What is under a name that is not a metric: `a string`.
    pub fn instead_of(&self, name: &str) -> Option<&str> {
        let beginning = format!("'{name}' (");
        let all = self.left_out.iter();
        all.filter_map(|entry| entry.strip_prefix(&beginning)?.strip_suffix(')'))
            .find(|what| *what != TWICE)
    }

    fn take(&mut self, parent: Option<&str>, entries: Vec<(String, Tree)>) {
        let mut known = BTreeSet::new();
        // From the end, as the last one counts.
        for (key, value) in entries.into_iter().rev() {
            let name = parent.map_or_else(|| key.clone(), |parent| format!("{parent}/{key}"));
            let is_new = known.insert(key);
            let number = match value {
                Tree::Object(entries) if is_new => {
                    self.take(Some(&name), entries);
                    continue;
                }
                Tree::Count(count) => Some(count as f64),
                Tree::Number(number) => Some(number),
                Tree::Text(ref text) => Number::named(text),
                _ => None,
            };
            match number {
                _ if !is_new || (number.is_some() && self.metrics.contains_key(&name)) => {
                    self.left_out.push(format!("'{name}' ({TWICE})"));
                }
                None => self.left_out.push(format!("'{name}' ({})", value.what())),
                Some(number) => {
                    if matches!(value, Tree::Count(_)) {
                        self.metrics.counts.insert(name.clone());
                    }
                    self.metrics.insert(name, number);
                }
            }
        }
    }
}

/// A value of JSON with all its names in the order of the file, also those that occur twice.
enum Tree {
    Null,
    Bool,
    Count(i64),
    Number(f64),
    Text(String),
    Array,
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Count(_) | Self::Number(_) => "a number",
            Self::Text(text) if Number::named(text).is_some() => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Count(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(i64::try_from(value).map_or(Tree::Number(value as f64), Tree::Count))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Number(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        while items.next_element::<Tree>()?.is_some() {}
        Ok(Tree::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            all.push(entry);
        }
        Ok(Tree::Object(all))
    }
}

/// What is wrong with a text that is not JSON, and where.
fn problem(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "is not JSON: it ends too early".to_owned();
    }
    let line = error.line();
    let own = text.split(|&byte| byte == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    format!("is not JSON (line {line}, column {})", own_column(own, error.column()))
}

/// The column in a line that is `column` in what [`standard_json`] makes of it.
fn own_column(line: &[u8], column: usize) -> usize {
    let (mut own, mut standard) = (0, 0);
    for token in tokens(line) {
        let length = not_in_json(token).map_or(token.len(), |name| name.len() + 2);
        if standard + length >= column {
            return own + (column - standard).min(token.len());
        }
        (own, standard) = (own + token.len(), standard + length);
    }
    own
}

/// How deep a text is nested, JSON or not.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens(text) {
        match token {
            b"{" | b"[" => depth += 1,
            b"}" | b"]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The text as standard JSON: numbers that JSON does not have become their names in quotes.
fn standard_json(text: &[u8]) -> Vec<u8> {
    let mut standard = Vec::with_capacity(text.len());
    for token in tokens(text) {
        match not_in_json(token) {
            Some(name) => standard.extend([b"\"", name.as_bytes(), b"\""].concat()),
            None => standard.extend(token),
        }
    }
    standard
}

/// Strings, words and numbers, and every other byte.
fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let &first = rest.first()?;
        let length = match first {
            b'"' => string_length(rest),
            _ if in_word(first) => rest.iter().take_while(|&&byte| in_word(byte)).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// The length of a string, with its quotes; up to the end of the text if it is not closed.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// The name of a number that JSON does not have, or that is too large for it.
fn not_in_json(token: &[u8]) -> Option<&'static str> {
    let token = std::str::from_utf8(token).ok()?;
    let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let value = match Number::named(token) {
        Some(value) => value,
        None if token.bytes().all(digits) => token.parse().ok()?,
        None => return None,
    };
    Number(value).name()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> MetricsFile {
        MetricsFile::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// As JSON: NaN does not equal itself.
    fn shown(metrics: &Metrics) -> String {
        serde_json::to_string(metrics).expect("it can be written")
    }

    #[test]
    fn what_json_does_not_have_is_kept() {
        for (text, metrics) in [
            (
                r#"{"a": NaN, "b": Infinity, "c": -Infinity}"#,
                r#"{"a":"NaN","b":"Infinity","c":"-Infinity"}"#,
            ),
            (r#"{"a":NaN}"#, r#"{"a":"NaN"}"#),
            (r#"{"a": "NaN", "b": "-Infinity"}"#, r#"{"a":"NaN","b":"-Infinity"}"#),
            (
                r#"{"a": 1e999, "b": -1e999, "c": 1e-999}"#,
                r#"{"a":"Infinity","b":"-Infinity","c":0.0}"#,
            ),
            (
                r#"{"NaN": 1, "say \"NaN\"": 2, "\\": NaN}"#,
                r#"{"NaN":1,"\\":"NaN","say \"NaN\"":2}"#,
            ),
            (r#"{"a": 123456789012345678901234567890}"#, r#"{"a":1.2345678901234568e+29}"#),
        ] {
            let file = read(text);
            assert_eq!(
                (shown(&file.metrics).as_str(), &*file.left_out),
                (metrics, &[][..]),
                "{text}"
            );
            let again: Metrics = serde_json::from_str(metrics).expect("it can be read");
            assert_eq!(shown(&again), metrics);
        }
    }

    #[test]
    fn counts_are_integers_and_stay_so() {
        let mut metrics = Metrics::of_counts([("samples", 1000), ("gone", 3), ("none", 0)]);
        metrics.insert("accuracy".to_owned(), 1.0);
        metrics.insert("gone".to_owned(), 0.5);
        let text = r#"{"accuracy":1.0,"gone":0.5,"none":0,"samples":1000}"#;
        assert_eq!(shown(&metrics), text);
        let again: Metrics = serde_json::from_str(text).unwrap();
        assert_eq!(shown(&again), text);
        assert_eq!(
            shown(&read(r#"{"n": {"a": 7, "b": -2, "c": 7.0}}"#).metrics),
            r#"{"n/a":7,"n/b":-2,"n/c":7.0}"#
        );
        // Larger than floats are exact.
        assert_eq!(shown(&read(r#"{"n": 9007199254740993}"#).metrics), r#"{"n":9007199254740992}"#);
        assert_eq!(
            shown(&read(r#"{"n": 90071992547409930}"#).metrics),
            r#"{"n":9.007199254740994e+16}"#
        );
        let old: Metrics = serde_json::from_str(r#"{"samples":1000.0}"#).unwrap();
        assert_eq!(old, Metrics::of_counts([("samples", 1000)]), "as records had them");
    }

    #[test]
    fn numbers_within_objects_are_named_by_their_path_and_the_rest_is_listed() {
        let file = read(
            r#"{"test": {"accuracy": 0.5, "by": {"cat": 1}}, "model": "r18", "confusion": [[1]], "n": null, "ok": true, "none": {}}"#,
        );
        let expected = [("test/accuracy".to_owned(), 0.5), ("test/by/cat".to_owned(), 1.0)];
        assert_eq!(file.metrics, Metrics::from(expected));
        assert_eq!(
            file.left_out,
            ["'confusion' (an array)", "'model' (a string)", "'n' (null)", "'ok' (true or false)"]
        );
        assert_eq!(read("[1]").instead, Some("an array"));
        assert_eq!(read("NaN").instead, Some("a number"));
        assert_eq!(read("\"NaN, or not\"").instead, Some("a string"));
        assert_eq!(read("3"), MetricsFile { instead: Some("a number"), ..MetricsFile::default() });
    }

    #[test]
    fn of_several_values_with_one_name_the_last_one_counts() {
        for (text, metrics, twice) in [
            (r#"{"a": {"b": 1}, "a/b": 2}"#, r#"{"a/b":2}"#, &["a/b"][..]),
            (r#"{"a/b": 1.5, "a": {"b": 2}}"#, r#"{"a/b":2}"#, &["a/b"]),
            (r#"{"a/b": 1, "a": {"b": 2.5}}"#, r#"{"a/b":2.5}"#, &["a/b"]),
            (r#"{"a": 1, "b": 0, "a": 2}"#, r#"{"a":2,"b":0}"#, &["a"]),
            (r#"{"a": 1, "a": 2, "a": 3}"#, r#"{"a":3}"#, &["a"]),
            (r#"{"a": {"b": 1, "b": 2}}"#, r#"{"a/b":2}"#, &["a/b"]),
            (r#"{"a": "text", "a": NaN}"#, r#"{"a":"NaN"}"#, &["a"]),
            (r#"{"a": {"b": 1}, "a": {"c": 2}}"#, r#"{"a/c":2}"#, &["a"]),
        ] {
            let file = read(text);
            assert_eq!(shown(&file.metrics), metrics, "{text}");
            let noted =
                |name: &&str| format!("'{name}' (it occurs more than once; the last one counts)");
            assert_eq!(file.left_out, twice.iter().map(noted).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
        let mut deep = r#"{"a":"#.repeat(127) + "1" + &"}".repeat(127);
        assert_eq!(read(&deep).metrics.len(), 1);
        assert_eq!(read(&nested(127)).instead, Some("an array"));
        deep = format!("{{\"a\":{deep}}}");
        for (text, expected) in [
            ("", "is not JSON: it is empty"),
            (" \n", "is not JSON: it is empty"),
            ("{\"a\": nan}", "is not JSON (line 1, column 8)"),
            ("{\"a\": 1,\n \"b\" 2}", "is not JSON (line 2, column 6)"),
            // Not the column in the text that the parser gets.
            ("{\"a\": NaN, \"b\": 1e999, c}", "is not JSON (line 1, column 24)"),
            ("{\"a\": 1", "is not JSON: it ends too early"),
            (&deep, "is nested deeper than 127 levels"),
            (&nested(100_000), "is nested deeper than 127 levels"),
        ] {
            assert_eq!(MetricsFile::read(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn only_what_is_not_json_fails() {
        for text in
            ["", "{", "{\"a\": nan}", "{\"a\": -inf}", "{\"a\": NaN", "NaN1", "{\"a", "\"\\"]
        {
            assert!(MetricsFile::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn standard_json_is_left_as_it_is(text in any::<String>(), number in any::<f64>()) {
            let value = serde_json::json!({ &text: [&text, number] });
            let written = serde_json::to_vec(&value).expect("it can be written");
            prop_assert_eq!(standard_json(&written), written);
        }

        #[test]
        fn no_text_makes_it_panic(text in r#"["\\{}:,NaInfity0-9eE+. -]*"#) {
            let _ = MetricsFile::read(text.as_bytes());
        }
    }
}
