//! Where a remote is: `file:///mnt/share/cache`, `s3://bucket/prefix`. Pure.

use std::fmt;
use std::path::{Component, PathBuf};

use pipeline_stages::url::{FileUrl, WebUrl, user_info};

/// Where a remote is. Without any secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A folder that several machines have.
    Folder(PathBuf),
    /// A bucket of an object store, or a part of one.
    S3(S3Address),
}

/// A bucket of an object store, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Address {
    pub(super) bucket: String,
    /// What all names in it begin with. Without slashes at its ends; it may be empty.
    pub(super) prefix: String,
    /// The address of a server that is not Amazon's.
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    /// The profile of the user who asks.
    pub(super) profile: Option<String>,
}

impl Address {
    /// What one looks like.
    pub(crate) const HELP: &str =
        "write remote = \"file:///mnt/share/cache\" or \"s3://bucket/prefix\"";

    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it: a password may be anywhere in it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if user_info(text).is_some() {
            return Err("it cannot have a user name or a password".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("it has a control character".to_owned());
        }
        match text.split_once(':') {
            Some(("file", _)) => folder(text),
            Some(("s3", rest)) => s3(rest).map(Self::S3),
            _ => Err("it does not begin with file:// or s3://".to_owned()),
        }
    }
}

fn folder(text: &str) -> Result<Address, String> {
    let path = match FileUrl::read(text) {
        Some(FileUrl::Path(path)) => PathBuf::from(path),
        Some(FileUrl::Elsewhere(_)) => {
            return Err(
                "it names another machine: a path has three slashes, file:///mnt/share".to_owned()
            );
        }
        Some(FileUrl::Unusable) | None => return Err("it is not a path".to_owned()),
    };
    let is_plain =
        path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    match is_plain {
        true => Ok(Address::Folder(path)),
        false => Err("a path in it is absolute, and without ..".to_owned()),
    }
}

fn s3(rest: &str) -> Result<S3Address, String> {
    let rest = rest.strip_prefix("//").ok_or("a bucket follows s3://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_plain = |text: &str, others: &str| {
        text.chars().all(|letter| letter.is_ascii_alphanumeric() || others.contains(letter))
    };
    if bucket.is_empty() || !is_plain(bucket, ".-_") {
        return Err("the name of a bucket has letters, digits, dots and hyphens".to_owned());
    }
    let prefix = prefix.trim_matches('/').to_owned();
    let is_odd = |part: &str| matches!(part, "" | "." | "..");
    if !prefix.is_empty() && (!is_plain(&prefix, "/.-_=") || prefix.split('/').any(is_odd)) {
        return Err(
            "what follows the bucket has letters, digits and . - _ = between slashes".to_owned()
        );
    }
    let bucket = bucket.to_owned();
    let (endpoint, region, profile) = (None, None, None);
    let mut address = S3Address { bucket, prefix, endpoint, region, profile };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let field = match key {
            "endpoint" => &mut address.endpoint,
            "region" => &mut address.region,
            "profile" => &mut address.profile,
            _ => return Err("after ? it can have endpoint, region and profile".to_owned()),
        };
        if key == "endpoint" {
            if user_info(value).is_some() {
                return Err("its endpoint cannot have a user name or a password".to_owned());
            }
            WebUrl::read(value).map_err(|reason| format!("its endpoint is not a URL: {reason}"))?;
        } else if value.is_empty() || !is_plain(value, ".-_") {
            return Err(format!("its {key} has letters, digits and . - _"));
        }
        *field = Some(value.trim_end_matches('/').to_owned());
    }
    Ok(address)
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let fields =
            [("endpoint", &self.endpoint), ("region", &self.region), ("profile", &self.profile)];
        let set = fields.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        for (place, (key, value)) in set.enumerate() {
            write!(f, "{}{key}={value}", if place == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::S3(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reads_back_and_its_query_has_no_secrets() {
        for (text, same) in [
            ("s3://lab", "s3://lab"),
            ("s3://lab/a/b/", "s3://lab/a/b"),
            (
                "s3://lab?region=x&endpoint=http://h:9000/",
                "s3://lab?endpoint=http://h:9000&region=x",
            ),
            ("s3://lab/a?profile=me", "s3://lab/a?profile=me"),
        ] {
            let address = Address::read(text).expect(text);
            assert_eq!(address.to_string(), same);
            assert_eq!(Address::read(same), Ok(address));
        }
        for (text, words) in [
            ("s3:lab", "a bucket follows"),
            ("s3:///a", "the name of a bucket"),
            ("s3://la b", "the name of a bucket"),
            ("s3://lab/a/../b", "what follows the bucket"),
            ("s3://lab?key=s3cret", "endpoint, region and profile"),
            ("s3://lab?endpoint=http://ann:s3cret@h", "user name or a password"),
            ("s3://lab?endpoint=h:9000", "not a URL"),
            ("s3://lab?region=", "its region has letters"),
            ("s3://key:s3cret@lab", "user name or a password"),
        ] {
            let reason = Address::read(text).expect_err(text);
            assert!(reason.contains(words) && !reason.contains("s3cret"), "{text}: {reason}");
        }
    }

    #[test]
    fn addresses_and_what_is_wrong_with_them() {
        let folder = |path: &str| Ok(Address::Folder(path.into()));
        for (text, read) in [
            ("file:///mnt/share", folder("/mnt/share")),
            ("file:///mnt/a%20b", folder("/mnt/a b")),
            ("file://localhost/mnt", folder("/mnt")),
            ("file://host/mnt", Err("it names another machine")),
            ("file:///mnt/../x", Err("without ..")),
            ("/mnt/share", Err("does not begin with file:// or s3://")),
            ("https://ann:s3cret@host/", Err("user name or a password")),
            ("file:///a\nb", Err("a control character")),
        ] {
            match (Address::read(text), read) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{text}"),
                (Err(found), Err(words)) => {
                    assert!(found.contains(words), "{text}: {found}");
                    assert!(!found.contains("s3cret"), "{found}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
