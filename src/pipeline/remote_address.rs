//! Where a remote is: `file:///mnt/share/cache`, `s3://bucket/prefix`, `ssh://host/path`, `https://host/path`. Pure.

use std::fmt;
use std::path::{Component, PathBuf};

use pipeline_prepare::proxy::is_this_machine;
use pipeline_stages::url::{FileUrl, WebUrl, user_info};

/// Where a remote is. Without any secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A folder that several machines have.
    Folder(PathBuf),
    /// A bucket of an object store, or a part of one.
    S3(S3Address),
    /// A folder of another machine.
    Ssh(SshAddress),
    /// A folder of a server on the web.
    Web(WebAddress),
}

/// A folder of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshAddress {
    /// Who logs in there, where `ssh` does not know it. Not a secret.
    pub(crate) user: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// The folder, absolute.
    pub(crate) path: String,
}

/// A folder of a server on the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebAddress {
    /// The folder.
    pub(crate) url: WebUrl,
    /// Whether somebody has said that everybody on the way may read and change what is sent.
    pub(crate) may_be_unencrypted: bool,
}

/// What says so in an address.
const UNENCRYPTED: &str = "unencrypted=allowed";

/// A bucket of an object store, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Address {
    pub(crate) bucket: String,
    /// What all names in it begin with. Without slashes at its ends; it may be empty.
    pub(crate) prefix: String,
    /// The address of a server that is not Amazon's.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    /// The profile of the user who asks.
    pub(crate) profile: Option<String>,
}

/// What [`Address::read`] accepts has this form.
pub(crate) const ADDRESS_PATTERN: &str =
    "^(file:.|s3://[A-Za-z0-9._-]+([/?]|$)|ssh://[^/]+/.|https?://[^/?#@]+([/?]|$))";

impl Address {
    /// What one looks like.
    pub(crate) const HELP: &str = "write remote = \"file:///mnt/share/cache\", \"s3://bucket/prefix\", \"ssh://host/path\" or \"https://host/path\"";

    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it: a password may be anywhere in it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let is_ssh = text.starts_with("ssh://");
        if user_info(text).is_some_and(|user| !is_ssh || text[user].contains(':')) {
            return Err("it cannot have a user name or a password".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("it has a control character".to_owned());
        }
        match text.split_once(':') {
            Some(("file", _)) => folder(text),
            Some(("s3", rest)) => s3(rest).map(Self::S3),
            Some(("ssh", rest)) => ssh(rest).map(Self::Ssh),
            Some(("http" | "https", _)) => web(text).map(Self::Web),
            _ => Err("it does not begin with file://, s3://, ssh:// or https://".to_owned()),
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

fn ssh(rest: &str) -> Result<SshAddress, String> {
    let rest = rest.strip_prefix("//").ok_or("a host follows ssh://")?;
    let (place, path) =
        rest.split_once('/').ok_or("a folder follows the host: ssh://host/folder")?;
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, place),
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
    if port == Some(None) {
        return Err("its port is not a number from 1 to 65535".to_owned());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // What begins with a hyphen would be an option of ssh.
    let is_name = |text: &str, others: &str| {
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || others.contains(letter);
        !text.is_empty() && !text.starts_with('-') && text.chars().all(is_letter)
    };
    if !is_name(host, ".-_:%") || !user.is_none_or(|user| is_name(user, ".-_")) {
        return Err("a host or a user has letters, digits and . - _".to_owned());
    }
    if path.is_empty() || path.split('/').any(|part| part == "..") {
        return Err("its folder is absolute, and without ..".to_owned());
    }
    Ok(SshAddress {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port: port.flatten(),
        path: format!("/{}", path.trim_end_matches('/')),
    })
}

fn web(text: &str) -> Result<WebAddress, String> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    let may_be_unencrypted = query == UNENCRYPTED;
    if !may_be_unencrypted && !query.is_empty() {
        return Err(format!("after ? it can have {UNENCRYPTED}"));
    }
    let url = WebUrl::read(place.trim_end_matches('/'))?;
    if url.target().split('/').any(|part| matches!(part, "." | "..")) || place.contains('#') {
        return Err("its folder is a plain path, without .. and #".to_owned());
    }
    let address = WebAddress { url, may_be_unencrypted };
    match address.may_be_used(&address.url) {
        true => Ok(address),
        false => Err(format!(
            "what comes by http:// can be read and changed by everybody on the way: write https://, or ?{UNENCRYPTED} after it"
        )),
    }
}

impl WebAddress {
    /// Whether something may come from here: encrypted, from this machine, or as somebody has said that it need not be.
    pub(crate) fn may_be_used(&self, url: &WebUrl) -> bool {
        url.is_encrypted() || is_this_machine(url.host()) || self.may_be_unencrypted
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.to_string().trim_end_matches('/'))?;
        if self.may_be_unencrypted { write!(f, "?{UNENCRYPTED}") } else { Ok(()) }
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
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
            Self::Ssh(address) => address.fmt(f),
            Self::Web(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_and_has_no_secrets() {
        for (text, same) in [
            ("s3://lab", "s3://lab"),
            ("s3://lab/a/b/", "s3://lab/a/b"),
            (
                "s3://lab?region=x&endpoint=http://h:9000/",
                "s3://lab?endpoint=http://h:9000&region=x",
            ),
            ("s3://lab/a?profile=me", "s3://lab/a?profile=me"),
            ("ssh://lab/srv/cache/", "ssh://lab/srv/cache"),
            ("ssh://ann@lab.example.org:2222/srv", "ssh://ann@lab.example.org:2222/srv"),
            ("ssh://[::1]:22/srv", "ssh://[::1]:22/srv"),
            ("https://Lab.example.org/a/b/", "https://lab.example.org/a/b"),
            ("https://lab:8443", "https://lab:8443"),
            ("http://127.0.0.1:80/a b", "http://127.0.0.1:80/a%20b"),
            ("http://lab/a?unencrypted=allowed", "http://lab/a?unencrypted=allowed"),
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
            ("ssh://ann:s3cret@lab/x", "user name or a password"),
            ("ssh://-oProxyCommand=x/y", "a host or a user has"),
            ("ssh://-a@lab/x", "a host or a user has"),
            ("ssh://lab", "a folder follows"),
            ("ssh://lab/", "its folder is absolute"),
            ("ssh://lab/a/../b", "without .."),
            ("ssh://lab:0/x", "its port"),
            ("http://lab.localhost/a", "can be read and changed by everybody on the way"),
            ("http://lab/a", "can be read and changed by everybody on the way"),
            ("https://lab/a?token=s3cret", "after ? it can have unencrypted=allowed"),
            ("https://lab/a/../b", "without .."),
            ("https://lab/a#b", "without .. and #"),
            ("https:///a", "does not name a host"),
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
            ("/mnt/share", Err("does not begin with file://, s3://, ssh:// or https://")),
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
