//! Points of a matrix: a value on each of some axes.
//!
//! Does not depend on kinds or manifests.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A value on each of some axes, as it is in the name of an instance: `method=ce,rate=0.9`. Empty for a stage that
/// does not depend on a matrix. Its axes are in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Point(Vec<(String, String)>);

impl Point {
    /// The value on an axis; `None` where the point does not have the axis.
    pub fn get(&self, axis: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == axis).map(|(_, value)| value)
    }

    /// Each axis with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(axis, value)| (axis.as_str(), value.as_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Point {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(values: I) -> Self {
        let values = values.into_iter();
        let mut values: Vec<_> =
            values.map(|(axis, value)| (axis.to_owned(), value.to_owned())).collect();
        values.sort();
        Self(values)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut values = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (axis, value) = part
                .split_once('=')
                .ok_or_else(|| format!("'{part}' is not an axis with a value: AXIS=VALUE"))?;
            values.push((axis, value));
        }
        Ok(values.into_iter().collect())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (axis, value)) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{axis}={value}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Point {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Point> for String {
    fn from(point: Point) -> Self {
        point.to_string()
    }
}

/// The value as it is compared with others: numbers in their shortest form.
pub fn canonical(value: &str) -> Cow<'_, str> {
    let looks_like_a_number = value.bytes().any(|byte| byte.is_ascii_digit())
        && value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if !looks_like_a_number {
        return Cow::Borrowed(value);
    }
    if let Ok(whole) = value.parse::<i128>() {
        return Cow::Owned(whole.to_string());
    }
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => Cow::Owned(shortest(number)),
        _ => Cow::Borrowed(value),
    }
}

/// The value as JSON: a number or a truth value where it is written like one. A number has its shortest form in a point, so
/// `02` and `2.50` are texts.
pub fn typed(value: &str) -> Value {
    match value {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    let number =
        (canonical(value) == value).then(|| value.parse::<serde_json::Number>().ok()).flatten();
    number.map_or_else(|| Value::String(value.to_owned()), Value::Number)
}

/// The number in its shortest form: `0.9`, `220`, `1e-5`.
pub fn shortest(number: f64) -> String {
    match number.abs() {
        // Not -0.
        0.0 => "0".to_owned(),
        1e-4..1e16 => number.to_string(),
        _ => format!("{number:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_text() {
        let point: Point = "rate=0.9,method=ce".parse().expect("a point");
        assert_eq!(point.to_string(), "method=ce,rate=0.9");
        assert_eq!((point.get("rate"), point.get("seed")), (Some("0.9"), None));
        assert_eq!("".parse::<Point>().expect("a point"), Point::default());
        assert!("rate".parse::<Point>().is_err());
        let json = serde_json::to_string(&point).expect("JSON");
        assert_eq!(serde_json::from_str::<Point>(&json).expect("the same"), point);
    }

    #[test]
    fn values_have_types() {
        for (value, expected) in [
            ("0.9", serde_json::json!(0.9)),
            ("220", serde_json::json!(220)),
            ("-1e-5", serde_json::json!(-1e-5)),
            ("true", serde_json::json!(true)),
            ("lq-0.66", serde_json::json!("lq-0.66")),
            ("1.2.3", serde_json::json!("1.2.3")),
            ("inf", serde_json::json!("inf")),
            ("02", serde_json::json!("02")),
            ("2.50", serde_json::json!("2.50")),
            ("1e3", serde_json::json!("1e3")),
        ] {
            assert_eq!(typed(value), expected, "{value}");
        }
    }

    #[test]
    fn values_are_compared_as_numbers() {
        for (one, other) in [
            ("0.90", "0.9"),
            ("1.0", "1"),
            ("1e-1", "0.1"),
            ("+7", "7"),
            ("007", "7"),
            ("-0.0", "0"),
            ("1E-5", "0.00001"),
            ("2.2e2", "220"),
        ] {
            assert_eq!(canonical(one), canonical(other));
        }
        for (value, expected) in [
            ("0.9", "0.9"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-5"),
            ("1e300", "1e300"),
            ("18446744073709551615", "18446744073709551615"),
            ("lq-0.66", "lq-0.66"),
            ("inf", "inf"),
            ("e", "e"),
            ("1.2.3", "1.2.3"),
            ("", ""),
        ] {
            assert_eq!(canonical(value), expected);
        }
    }
}
