//! A path in JSON: as text if it is UTF-8, otherwise as bytes. For `#[serde(with = "...")]`.
//!
//! A folder that was unpacked from an old archive can have a name that is not UTF-8, and a project in it must work too.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

/// A path in a JSON value that is put together by hand.
pub struct PathText<'a>(pub &'a Path);

impl Serialize for PathText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.0, serializer)
    }
}

/// Writes a path.
pub fn serialize<S: Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    let path = path.as_ref();
    let form = match path.to_str() {
        Some(text) => Form::Text(text.into()),
        None => Form::Bytes(path.as_os_str().as_bytes().into()),
    };
    form.serialize(serializer)
}

/// Reads what [`serialize`] wrote.
///
/// # Errors
/// When it is neither text nor a list of bytes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(match Form::deserialize(deserializer)? {
        Form::Text(text) => text.into_owned().into(),
        Form::Bytes(bytes) => OsString::from_vec(bytes.into_owned()).into(),
    })
}

/// The same for a path that may be missing.
pub mod optional {
    use super::{Deserialize, Deserializer, Path, PathBuf, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super")] PathBuf);

    /// Writes a path, or nothing.
    pub fn serialize<S: Serializer>(
        path: &Option<impl AsRef<Path>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| Wrapped(path.as_ref().to_owned())).serialize(serializer)
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(path)| path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "super")]
        path: PathBuf,
        #[serde(default, with = "super::optional")]
        other: Option<PathBuf>,
    }

    #[test]
    fn any_path_survives() {
        let latin = || PathBuf::from(OsString::from_vec(b"caf\xe9".to_vec()));
        for (path, other, json) in [
            (PathBuf::from("a/b"), None, r#"{"path":"a/b","other":null}"#),
            (latin(), Some(latin()), r#"{"path":[99,97,102,233],"other":[99,97,102,233]}"#),
        ] {
            let holder = Holder { path, other };
            let text = serde_json::to_string(&holder).unwrap();
            assert_eq!(text, json);
            assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder);
        }
        assert_eq!(serde_json::from_str::<Holder>(r#"{"path":"x"}"#).unwrap().other, None);
    }
}
