//! How a parameter describes itself: its type, its choices, its number for range checks.
//!
//! The checks of a manifest, its messages and what `pipeline kinds` prints all derive from this.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::point::{canonical, shortest};

/// A parameter of a kind, as declared.
#[derive(Debug, Clone)]
pub struct Field {
    /// The name in a manifest (kebab-case).
    pub name: String,
    /// The doc comment of the parameter.
    pub about: &'static str,
    /// What values it takes.
    pub value_type: ParameterType,
    /// The value if the manifest does not set it; `None` for a parameter that must be given.
    pub default: Option<Value>,
    /// The numbers that are accepted.
    pub range: Option<Range>,
    /// Whether the value can change the result, and so enters the stage key.
    pub role: Role,
    /// What must hold for the value to have an effect: all of it. Empty for a parameter that always has one.
    pub only_if: Vec<Condition>,
}

impl Field {
    /// Whether the value can change the result of a stage with these parameters.
    pub(crate) fn has_effect(&self, parameters: &Map<String, Value>) -> bool {
        self.role == Role::Result
            && self.only_if.iter().all(|condition| condition.holds(parameters))
    }
}

/// The type of a parameter's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterType {
    /// A whole number from 0.
    Integer {
        /// The largest one.
        largest: u64,
    },
    /// A number, with or without a fraction.
    Number,
    /// `true` or `false`.
    Bool,
    /// Any text.
    Text,
    /// A value on an axis of a matrix: a number, `true`, `false` or a text.
    AxisValue,
    /// One of a fixed set of names.
    Choice(&'static [Choice]),
    /// A list of values of one type.
    List(Box<Self>),
    /// A table of names to values of one type.
    Table(Box<Self>),
    /// One value of a type, or a list of them.
    OneOrMany(Box<Self>),
}

impl ParameterType {
    /// The fixed set of values, of the parameter itself or of its items. Empty if there is none.
    pub fn choices(&self) -> &'static [Choice] {
        match self {
            Self::Integer { .. } | Self::Number | Self::Bool | Self::Text | Self::AxisValue => &[],
            Self::Choice(choices) => choices,
            Self::List(item) | Self::Table(item) | Self::OneOrMany(item) => item.choices(),
        }
    }
}

impl fmt::Display for ParameterType {
    /// As `pipeline kinds` shows it. The choices are listed below the parameter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer { .. } => f.write_str("integer"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("true or false"),
            Self::Text => f.write_str("text"),
            Self::AxisValue => f.write_str("value"),
            Self::Choice(_) => f.write_str("one of"),
            Self::List(item) => write!(f, "list of {item}"),
            Self::Table(item) => write!(f, "table of {item}"),
            Self::OneOrMany(item) => write!(f, "{item} or list of {item}"),
        }
    }
}

/// The values that another parameter must have for a parameter to have an effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The name of the other parameter in a manifest.
    pub parameter: String,
    /// The values, one of which it must have.
    pub values: Vec<Value>,
}

impl Condition {
    /// Whether it holds for these parameters.
    pub fn holds(&self, parameters: &Map<String, Value>) -> bool {
        parameters.get(&self.parameter).is_some_and(|value| self.values.contains(value))
    }

    /// Conditions in words, as in a manifest: `a = "x" and b = "y"`.
    pub fn all_in_words(conditions: &[Self]) -> String {
        conditions.iter().map(Self::to_string).collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<_> = self.values.iter().map(Value::to_string).collect();
        let values = match values.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => values.concat(),
        };
        write!(f, "{} = {values}", self.parameter)
    }
}

/// Whether a parameter can change what a stage produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It can: it enters the stage key.
    Result,
    /// It cannot (retries, time-outs, limits): it stays out of the key.
    Execution,
}

/// One of the values of a parameter with a fixed set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The name in a manifest.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
}

/// The numbers that a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub low: Bound<f64>,
    pub high: Bound<f64>,
}

impl Range {
    /// A range from a range of Rust or from a pair of bounds.
    ///
    /// ```
    /// use pipeline_stages::parameter::Range;
    /// assert!(Range::new(0.0..=1.0).contains(0.0));
    /// assert!(!Range::new(0.0..1.0).contains(1.0));
    /// assert_eq!(Range::new(0.0..=1.0).to_string(), "at least 0 and at most 1");
    /// ```
    pub fn new(bounds: impl std::ops::RangeBounds<f64>) -> Self {
        Self { low: bounds.start_bound().cloned(), high: bounds.end_bound().cloned() }
    }

    /// Whether `number` is within the range. NaN never is.
    pub fn contains(&self, number: f64) -> bool {
        std::ops::RangeBounds::contains(&(self.low, self.high), &number) && !number.is_nan()
    }
}

/// Numbers above zero.
pub(crate) const POSITIVE: (Bound<f64>, Bound<f64>) =
    (Bound::Excluded(0.0), Bound::Excluded(f64::INFINITY));
/// Zero and above.
pub(crate) const NOT_NEGATIVE: (Bound<f64>, Bound<f64>) =
    (Bound::Included(0.0), Bound::Excluded(f64::INFINITY));
/// From zero, with it, to one, without it.
pub(crate) const BELOW_ONE: (Bound<f64>, Bound<f64>) = (Bound::Included(0.0), Bound::Excluded(1.0));
/// From one.
pub(crate) const AT_LEAST_ONE: (Bound<f64>, Bound<f64>) =
    (Bound::Included(1.0), Bound::Excluded(f64::INFINITY));
/// From zero to one, both included.
pub(crate) const FRACTION: (Bound<f64>, Bound<f64>) = (Bound::Included(0.0), Bound::Included(1.0));

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = match self.low {
            Bound::Included(low) => Some(format!("at least {low}")),
            Bound::Excluded(low) => Some(format!("above {low}")),
            Bound::Unbounded => None,
        };
        let high = match self.high {
            Bound::Included(high) => Some(format!("at most {high}")),
            Bound::Excluded(f64::INFINITY) => Some("finite".to_owned()),
            Bound::Excluded(high) => Some(format!("below {high}")),
            Bound::Unbounded => None,
        };
        let finite_from_below = self.low != Bound::Unbounded && high.as_deref() == Some("finite");
        match (low, high) {
            (Some(low), Some(_)) if finite_from_below => f.write_str(&low),
            (Some(low), Some(high)) => write!(f, "{low} and {high}"),
            (Some(bound), None) | (None, Some(bound)) => f.write_str(&bound),
            (None, None) => f.write_str("any number"),
        }
    }
}

/// A type that a parameter can have.
pub trait Parameter {
    /// The type of its values in a manifest.
    fn value_type() -> ParameterType;

    /// The number to compare with the parameter's range, if this is a number.
    fn number(&self) -> Option<f64> {
        None
    }
}

impl Parameter for u32 {
    fn value_type() -> ParameterType {
        ParameterType::Integer { largest: Self::MAX.into() }
    }
    fn number(&self) -> Option<f64> {
        Some(f64::from(*self))
    }
}

impl Parameter for u64 {
    fn value_type() -> ParameterType {
        ParameterType::Integer { largest: Self::MAX }
    }
    fn number(&self) -> Option<f64> {
        Some(*self as f64)
    }
}

impl Parameter for f64 {
    fn value_type() -> ParameterType {
        ParameterType::Number
    }
    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl Parameter for bool {
    fn value_type() -> ParameterType {
        ParameterType::Bool
    }
}

impl Parameter for String {
    fn value_type() -> ParameterType {
        ParameterType::Text
    }
}

impl<T: Parameter> Parameter for Option<T> {
    fn value_type() -> ParameterType {
        T::value_type()
    }
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(Parameter::number)
    }
}

impl<T: Parameter> Parameter for Vec<T> {
    fn value_type() -> ParameterType {
        ParameterType::List(Box::new(T::value_type()))
    }
}

impl<T: Parameter> Parameter for BTreeMap<String, T> {
    fn value_type() -> ParameterType {
        ParameterType::Table(Box::new(T::value_type()))
    }
}

/// One value, or a list of them, in a manifest: `url = "..."` or `url = ["...", "..."]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrManyText", into = "Vec<String>")]
pub struct OneOrMany(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text or a list of text")]
enum OneOrManyText {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrManyText> for OneOrMany {
    fn from(text: OneOrManyText) -> Self {
        match text {
            OneOrManyText::One(one) => Self(vec![one]),
            OneOrManyText::Many(many) => Self(many),
        }
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(list: OneOrMany) -> Self {
        list.0
    }
}

impl Parameter for OneOrMany {
    fn value_type() -> ParameterType {
        ParameterType::OneOrMany(Box::new(ParameterType::Text))
    }
}

/// A value on an axis of a matrix, as it is in a [`Point`](crate::point::Point). Two ways to write a number are one value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WrittenAxisValue", into = "String")]
pub struct AxisValue(String);

impl AxisValue {
    /// The value in the form in which values are compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AxisValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, a text, true or false")]
enum WrittenAxisValue {
    Bool(bool),
    Whole(i64),
    Large(u64),
    Number(f64),
    Text(String),
}

impl TryFrom<WrittenAxisValue> for AxisValue {
    type Error = String;

    fn try_from(written: WrittenAxisValue) -> Result<Self, String> {
        match written {
            WrittenAxisValue::Bool(value) => Ok(Self(value.to_string())),
            WrittenAxisValue::Whole(value) => Ok(Self(value.to_string())),
            WrittenAxisValue::Large(value) => Ok(Self(value.to_string())),
            WrittenAxisValue::Number(value) if value.is_finite() => Ok(Self(shortest(value))),
            WrittenAxisValue::Number(value) => Err(format!("{value} cannot be a value of an axis")),
            WrittenAxisValue::Text(value) => Ok(Self(canonical(&value).into_owned())),
        }
    }
}

impl From<AxisValue> for String {
    fn from(value: AxisValue) -> Self {
        value.0
    }
}

impl Parameter for AxisValue {
    fn value_type() -> ParameterType {
        ParameterType::AxisValue
    }
}

/// One value on an axis, or a list of them, in a manifest: `rate = 0.9` or `rate = [0.8, 0.9]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenAxisValues", into = "Vec<AxisValue>")]
pub struct AxisValues(pub Vec<AxisValue>);

impl AxisValues {
    /// Whether one of them is this value of a point.
    pub fn contain(&self, value: &str) -> bool {
        let value = canonical(value);
        self.0.iter().any(|one| one.as_str() == value)
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, a text, true or false, or a list of them")]
enum WrittenAxisValues {
    One(AxisValue),
    Many(Vec<AxisValue>),
}

impl From<WrittenAxisValues> for AxisValues {
    fn from(written: WrittenAxisValues) -> Self {
        match written {
            WrittenAxisValues::One(one) => Self(vec![one]),
            WrittenAxisValues::Many(many) => Self(many),
        }
    }
}

impl From<AxisValues> for Vec<AxisValue> {
    fn from(values: AxisValues) -> Self {
        values.0
    }
}

impl Parameter for AxisValues {
    fn value_type() -> ParameterType {
        ParameterType::OneOrMany(Box::new(ParameterType::AxisValue))
    }
}

/// `max_bytes` as it is written in a manifest: `max-bytes`. `r#where`, a keyword of Rust, is `where`.
pub(crate) fn kebab_case(identifier: &str) -> String {
    identifier.trim_start_matches("r#").replace('_', "-")
}

/// `CorruptLabels` as it is written in a manifest: `corrupt-labels`. Is never freed.
pub(crate) fn kebab_name(identifier: &str) -> &'static str {
    let mut name = String::new();
    for (index, letter) in identifier.chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name.leak()
}

/// The message for a value outside a fixed set.
pub(crate) fn not_a_choice(given: &str, names: &[&str]) -> String {
    format!("'{given}' is not one of {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_words() {
        for (range, words, inside, outside) in [
            (Range::new(POSITIVE), "above 0", 1e-300, 0.0),
            (Range::new(NOT_NEGATIVE), "at least 0", 0.0, -1e-300),
            (Range::new(BELOW_ONE), "at least 0 and below 1", 0.0, 1.0),
            (Range::new(AT_LEAST_ONE), "at least 1", 1.0, f64::INFINITY),
            (Range::new(FRACTION), "at least 0 and at most 1", 1.0, 1.0 + f64::EPSILON),
            (Range::new(2.0..), "at least 2", 2.0, 1.9),
            (Range::new(1.0..=4096.0), "at least 1 and at most 4096", 4096.0, 4097.0),
            (Range::new(..5.0), "below 5", -1e300, 5.0),
        ] {
            assert_eq!(range.to_string(), words);
            assert!(
                range.contains(inside) && !range.contains(outside) && !range.contains(f64::NAN),
                "{words}"
            );
        }
    }

    #[test]
    fn names_for_a_manifest() {
        assert_eq!(kebab_case("max_bytes"), "max-bytes");
        assert_eq!(kebab_case("r#where"), "where");
        assert_eq!(kebab_name("CorruptLabels"), "corrupt-labels");
        assert_eq!(kebab_name("Cifar10"), "cifar10");
    }

    #[test]
    fn one_or_many() {
        let read = |text: &str| serde_json::from_str::<OneOrMany>(text).map(|list| list.0);
        assert_eq!(read(r#""a""#).unwrap(), ["a"]);
        assert_eq!(read(r#"["a", "b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(read("3").unwrap_err().to_string(), "expected text or a list of text");
        // One canonical form, so that both spellings have the same key.
        assert_eq!(serde_json::to_string(&OneOrMany(vec!["a".into()])).unwrap(), r#"["a"]"#);
    }
    #[test]
    fn values_of_an_axis_have_one_form() {
        let read = |text: &str| serde_json::from_str::<AxisValues>(text);
        for (text, form) in [
            ("0.90", r#"["0.9"]"#),
            (r#"["0.90", 1e-5, true, -3, "lq-0.66"]"#, r#"["0.9","1e-5","true","-3","lq-0.66"]"#),
            ("18446744073709551615", r#"["18446744073709551615"]"#),
        ] {
            let values = read(text).unwrap();
            assert_eq!(serde_json::to_string(&values).unwrap(), form);
            assert_eq!(read(form).unwrap(), values);
        }
        assert!(read("0.9").unwrap().contain("0.90"));
        assert!(!read("0.9").unwrap().contain("0.8"));
        let error = read("[[1]]").unwrap_err().to_string();
        assert_eq!(error, "expected a number, a text, true or false, or a list of them");
    }
}
