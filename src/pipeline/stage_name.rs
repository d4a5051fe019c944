//! Names that become names of files: of stages and of experiments.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name that a manifest writes, in bytes.
pub(crate) const LONGEST: usize = 100;

/// The longest name of an instance, in bytes: file systems allow 255, and others append to it.
pub(crate) const LONGEST_INSTANCE: usize = 200;

/// The name of a stage: ASCII letters, digits, `_` and `-`, not starting with `-`. That of an instance of a matrix
/// has its point after it: `train@method=ce,rate=0.9`. It becomes a file's name. Cheap to clone: a large matrix has many.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct StageName(Arc<str>);

impl StageName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the stage in the manifest: `train` of `train@rate=0.9`.
    pub(crate) fn template(&self) -> &str {
        self.0.split_once('@').map_or(&self.0, |(template, _)| template)
    }

    /// Each axis with its value: `rate` and `0.9` of `train@rate=0.9`.
    pub(crate) fn point(&self) -> impl Iterator<Item = (&str, &str)> {
        let (_, point) = self.0.split_once('@').unwrap_or_default();
        point.split(',').filter_map(|part| part.split_once('='))
    }
}

impl FromStr for StageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((template, point)) = text.split_once('@') else {
            return check_name(text).map(|()| Self(text.into()));
        };
        check_name(template)?;
        if text.len() > LONGEST_INSTANCE {
            return Err(format!("the name of an instance has at most {LONGEST_INSTANCE} letters"));
        }
        for part in point.split(',') {
            let (axis, value) = part.split_once('=').unwrap_or((part, ""));
            check_name(axis)?;
            check_value(value)?;
        }
        Ok(Self(text.into()))
    }
}

/// What [`check_name`] accepts: at most [`LONGEST`] letters.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$";

/// What [`check_value`] accepts.
pub(crate) const VALUE_PATTERN: &str = "^[A-Za-z0-9_.+-]+$";

/// What [`check_experiment_name`] accepts, and more: letters that cannot be seen, and longer names.
pub(crate) const EXPERIMENT_NAME_PATTERN: &str =
    r#"^[^ ./\\:*?"<>|-]([^/\\:*?"<>|]*[^ ./\\:*?"<>|])?$"#;

/// Why `text` cannot be a name that a manifest writes: of a stage, an axis or an input.
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if text.is_empty() {
        Err("a name cannot be empty".to_owned())
    } else if text.len() > LONGEST {
        Err(format!("a name has at most {LONGEST} letters"))
    } else if text.starts_with('-') {
        Err("a name cannot start with '-', or it would look like an option".to_owned())
    } else if text.chars().all(allowed) {
        Ok(())
    } else {
        Err("a name has only letters (a-z, A-Z), digits, '_' and '-'".to_owned())
    }
}

/// Why `text` cannot be a value in the name of an instance.
pub(crate) fn check_value(text: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.+-".contains(letter);
    if text.is_empty() {
        Err("a value cannot be empty".to_owned())
    } else if text.chars().all(allowed) {
        Ok(())
    } else {
        Err("a value has only letters (a-z, A-Z), digits, '_', '.', '+' and '-'".to_owned())
    }
}

impl TryFrom<String> for StageName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StageName> for String {
    fn from(name: StageName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for StageName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Why `text` cannot be the name of an experiment, if it cannot. More is allowed than for stages (spaces,
/// any alphabet), but it has to be a file's name on every system.
pub(crate) fn check_experiment_name(text: &str) -> Result<(), String> {
    let refused = |letter: &char| letter.is_control() || "/\\:*?\"<>|".contains(*letter);
    if text.trim().is_empty() {
        Err("it cannot be empty".to_owned())
    } else if text.len() > LONGEST {
        Err(format!("it has {} bytes, and at most {LONGEST} are allowed", text.len()))
    } else if text.starts_with(['.', '-']) {
        Err("it cannot start with '.' or '-'".to_owned())
    } else if text != text.trim() || text.ends_with('.') {
        Err("it cannot start or end with a space, nor end with '.'".to_owned())
    } else if let Some(letter) = text.chars().find(refused) {
        Err(format!("it cannot have {letter:?}"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stages() {
        let long = "a".repeat(LONGEST);
        for good in ["a", "Train_2", "pretrain-simclr", "0", "_", long.as_str()] {
            assert_eq!(good.parse::<StageName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let longer = "a".repeat(LONGEST + 1);
        for bad in
            ["", "-a", ".", "..", "a.b", "a/b", "a b", "größe", "a\0", "a\n", longer.as_str()]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
            assert!(bad.parse::<StageName>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<StageName>(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_stages_as_json() {
        let name: StageName = serde_json::from_str("\"train\"").expect("a name");
        assert_eq!(serde_json::to_string(&name).ok().as_deref(), Some("\"train\""));
        assert_eq!(format!("[{name:>7}]"), "[  train]");
    }

    #[test]
    fn names_of_instances() {
        let text = "train@init=simclr,method=lq-0.5,rate=1e-5,tag=a_b.c+d";
        let name: StageName = text.parse().expect("a name");
        assert_eq!(name.as_str(), text);
        assert_eq!(name.template(), "train");
        let point: Vec<_> = name.point().collect();
        let expected =
            [("init", "simclr"), ("method", "lq-0.5"), ("rate", "1e-5"), ("tag", "a_b.c+d")];
        assert_eq!(point, expected);
        let plain: StageName = "train".parse().expect("a name");
        assert_eq!((plain.template(), plain.point().count()), ("train", 0));
        let long = format!("train@x={}", "a".repeat(LONGEST_INSTANCE));
        for bad in [
            "@",
            "a@",
            "@x=1",
            "a@x",
            "a@x=",
            "a@=1",
            "a@x=1,",
            "a@x=1@y=2",
            "a@x=*",
            "a@x=a/b",
            &long,
        ] {
            assert!(bad.parse::<StageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_experiments() {
        for good in ["quickstart", "Noise at 80 %", "größe", "v1.2", "数据"] {
            assert_eq!(check_experiment_name(good), Ok(()), "{good:?}");
        }
        let longer = "a".repeat(LONGEST + 1);
        let bad = [
            "", "  ", ".", "..", ".x", "-x", "a/b", "a\\b", "a\0", "a\tb", " a", "a.", "a:b",
            &longer,
        ];
        for bad in bad {
            assert!(check_experiment_name(bad).is_err(), "{bad:?}");
        }
    }
}
