//! `download`: one file from the web or from this machine, checked.

use serde_json::{Map, Value};

use crate::form::Form;
use crate::kind::{Cores, OutsidePath, Problem, Rules, WithoutEffect};
use crate::parameter::OneOrMany;
use crate::url::{self, FileUrl, WebUrl};

kind! {
    /// Fetches one file and checks it.
    ///
    /// The mirrors in `url` are tried in order: `https:`, `http:`, or `file:` with a path relative
    /// to the manifest. If the stage has a checksum, the mirrors do not enter the key: the same
    /// content from elsewhere is the same artifact. In a `file:` URL, `%20` is a space and `%25` is `%`. A user
    /// name and a password come from `~/.netrc` or the environment, never from a URL.
    ///
    /// A proxy comes from the environment: `HTTPS_PROXY` for `https:`, `HTTP_PROXY` for `http:`, else
    /// `ALL_PROXY`; `NO_PROXY` lists hosts without one. The proxy must allow CONNECT, also for `http:`.
    Download = "download", version 1, seeded false, output File;
    ports {}
    parameters {
        /// Where to get it: one URL, or several that are tried in order.
        url: OneOrMany;
        /// The file's name in the artifact. By default the last part of the first URL.
        name: Option<String> = None;
        /// The BLAKE3 checksum, in hexadecimal.
        blake3: Option<String> = None;
        /// The SHA-256 checksum, in hexadecimal.
        sha256: Option<String> = None;
        /// The MD5 checksum, in hexadecimal. Guards against accidents only.
        md5: Option<String> = None;
        /// Accept any content, without a checksum. The stage runs again when a `file:` mirror appears, disappears or
        /// changes its content; a file from the web is not downloaded again.
        unverified: bool = false;
    }
    execution {
        /// Shown if no mirror has the file: where to ask for it, where to put it.
        instructions: Option<String> = None;
        /// How often in a row each mirror is tried again after a temporary failure: no
        /// connection, a time-out, status 429 or 5xx, an interrupted transfer.
        retries: u32 = 4, in crate::parameter::NOT_NEGATIVE;
        /// Seconds to wait for a connection, for the start of a response and for the next byte.
        timeout_seconds: u64 = 60, in crate::parameter::AT_LEAST_ONE;
        /// The least speed, in bytes a second: a transfer that is slower over `speed-time-seconds` is stopped and
        /// tried again. 0 for any speed.
        speed_limit: u64 = 1000;
        /// The seconds over which the speed is measured.
        speed_time_seconds: u64 = 30, in crate::parameter::AT_LEAST_ONE;
        /// The most bytes that the file may have.
        max_bytes: u64 = 1 << 40, in crate::parameter::AT_LEAST_ONE;
    }
    headline []
}

/// The longest name of a file (NAME_MAX), on almost every filesystem.
const MOST_NAME_BYTES: usize = 255;

impl Download {
    /// The name of the file in the artifact.
    pub fn file_name(&self) -> String {
        let from_url = || {
            let url = self.url.0.first().map_or("", String::as_str);
            if let Some(path) = Self::local_path(url) {
                return path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
            }
            let path = url.split(['?', '#']).next().unwrap_or("");
            path.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or("").to_owned()
        };
        self.name.clone().unwrap_or_else(from_url)
    }

    /// The path that a `file:` URL names. `None` for a URL of another scheme.
    pub fn local_path(url: &str) -> Option<String> {
        match FileUrl::read(url)? {
            FileUrl::Path(path) => Some(path),
            FileUrl::Elsewhere(_) | FileUrl::Unusable => None,
        }
    }

    fn checksums(&self) -> [(&'static str, &Option<String>, usize); 3] {
        [("blake3", &self.blake3, 64), ("sha256", &self.sha256, 64), ("md5", &self.md5, 32)]
    }
}

/// How a URL begins, and that a login or a space is not in one of the web: what [`url_problem`] accepts has this form.
const URL_PATTERN: &str = "^([Hh][Tt][Tt][Pp][Ss]?://[^/?#@ ]+([/?#][^ ]*)?|[Ff][Ii][Ll][Ee]:.+)$";

/// What is wrong with a URL. Never repeats a password.
fn url_problem(url: &str) -> Option<String> {
    if let Some(secret) = url::user_info(url) {
        let host = url[secret.end + 1..].split(['/', ':', '?', '#']).next().unwrap_or_default();
        let variable = Login::Password.variable(host).map_or_else(String::new, |variable| {
            format!(", or into the environment: {variable}=USER:PASSWORD")
        });
        return Some(format!(
            "a URL in a manifest cannot have a user name or a password, which would be kept in keys and records: \
             put them into ~/.netrc (machine {host} login USER password PASSWORD){variable}"
        ));
    }
    let is_local = FileUrl::read(url).is_some();
    let space = |letter: char| letter.is_control() || letter == ' ' && !is_local;
    if url.contains(space) {
        return Some(format!("{url:?} has a space or a control character: write a space as %20"));
    }
    match FileUrl::read(url) {
        None => {
            let reason = WebUrl::read(url).err()?;
            let hint =
                if url.contains("://") { "" } else { "; a file on this machine is file:PATH" };
            Some(format!("'{url}' is not a URL that can be fetched: {reason}{hint}"))
        }
        Some(FileUrl::Path(path)) if path.is_empty() => {
            Some(format!("'{url}' does not name a file"))
        }
        Some(FileUrl::Path(_)) => None,
        Some(FileUrl::Elsewhere(host)) => Some(format!(
            "'{url}' names the machine '{host}': write file:PATH for a path beside the manifest, file:///PATH for one \
             from the root"
        )),
        Some(FileUrl::Unusable) => {
            Some(format!("'{url}' names a file whose name is not UTF-8 or has a zero byte"))
        }
    }
}

/// What an environment variable can hold for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// `PIPELINE_LOGIN_<HOST>`: a user name and a password, `ann:secret`.
    Password,
    /// `PIPELINE_TOKEN_<HOST>`: a token, for `Authorization: Bearer`.
    Token,
}

impl Login {
    /// The variable for a host: `PIPELINE_TOKEN_DATA_EXAMPLE_ORG`, with two `_` for a `-`. `None` for a host whose name
    /// could be confused with another's.
    pub fn variable(self, host: &str) -> Option<String> {
        let letter = |letter: char| match letter {
            '.' => Some("_".to_owned()),
            '-' => Some("__".to_owned()),
            _ => letter.is_ascii_alphanumeric().then(|| letter.to_ascii_uppercase().to_string()),
        };
        let name: String = host.chars().map(letter).collect::<Option<_>>()?;
        let prefix = match self {
            Self::Password => "PIPELINE_LOGIN_",
            Self::Token => "PIPELINE_TOKEN_",
        };
        (!name.is_empty()).then(|| format!("{prefix}{name}"))
    }
}

impl Rules for Download {
    fn forms() -> &'static [Form] {
        const DIGITS_64: &str = "^[0-9A-Fa-f]{64}$";
        &[
            Form::NotEmpty("url"),
            Form::Text("url", URL_PATTERN),
            Form::Text("name", r"^[^/\\]+$"),
            Form::Text("blake3", DIGITS_64),
            Form::Text("sha256", DIGITS_64),
            Form::Text("md5", "^[0-9A-Fa-f]{32}$"),
            Form::Either(&["blake3", "sha256", "md5"], "unverified"),
        ]
    }

    fn cores(&self) -> Cores {
        Cores::None
    }

    fn check(&self, _connected: &[&str]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.url.0.is_empty() {
            problems.push(Problem::new("url", "'url' needs at least one URL"));
        }
        for (index, url) in self.url.0.iter().enumerate() {
            let problem = url_problem(url);
            problems.extend(problem.map(|message| Problem::new("url", message).with_item(index)));
        }
        let name = self.file_name();
        let field = if self.name.is_some() { "name" } else { "url" };
        if name.is_empty()
            || name == "."
            || name == ".."
            || name.contains(['/', '\\'])
            || name.contains(char::is_control)
        {
            let shown = name.escape_debug();
            let message = format!("'{shown}' cannot be the name of a file; set name = \"...\"");
            problems.push(Problem::new(field, message));
        } else if name.len() > MOST_NAME_BYTES {
            let message = format!(
                "the name '{name}' has {} bytes, but the name of a file has at most {MOST_NAME_BYTES}; set name = \"...\"",
                name.len()
            );
            problems.push(Problem::new(field, message));
        }
        for (algorithm, checksum, digits) in self.checksums() {
            let Some(checksum) = checksum else { continue };
            if checksum.len() != digits || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                problems.push(Problem::new(
                    algorithm,
                    format!("a {algorithm} checksum has {digits} hexadecimal digits; '{checksum}' does not"),
                ));
            }
        }
        let verified = self.checksums().iter().any(|(_, checksum, _)| checksum.is_some());
        if !verified && !self.unverified {
            problems.push(Problem::new(
                "url",
                "this file has no checksum: set blake3, sha256 or md5, or unverified = true",
            ));
        }
        if verified && self.unverified {
            problems.push(Problem::new(
                "unverified",
                "the stage has a checksum and unverified = true: drop one of them",
            ));
        }
        problems
    }

    fn without_effect(&self) -> Vec<WithoutEffect> {
        let is_local = |url: &String| FileUrl::read(url).is_some();
        if self.url.0.is_empty() || !self.url.0.iter().all(is_local) {
            return Vec::new();
        }
        let of_the_web = ["retries", "timeout-seconds", "speed-limit", "speed-time-seconds"];
        of_the_web.map(|name| WithoutEffect::with(name, "file: URLs alone")).into()
    }

    fn outside_paths(&self) -> Vec<OutsidePath> {
        if !self.unverified {
            return Vec::new();
        }
        // With several mirrors, a missing one is skipped. A file that must be requested may be missing while
        // one looks at the manifest.
        let optional = self.url.0.len() > 1 || self.instructions.is_some();
        let local = self.url.0.iter().filter_map(|url| Self::local_path(url));
        local.map(|path| OutsidePath { optional, ..OutsidePath::file("url", path) }).collect()
    }

    fn key_parameters(&self, mut all: Map<String, Value>) -> Map<String, Value> {
        all.insert("name".into(), self.file_name().into());
        for (algorithm, checksum, _) in self.checksums() {
            let canonical = checksum.as_ref().map(|text| text.to_ascii_lowercase());
            all.insert(algorithm.into(), canonical.into());
        }
        if !self.unverified {
            all.remove("url");
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download(parameters: Value) -> Download {
        serde_json::from_value(parameters).expect("valid parameters")
    }

    fn problems(parameters: Value) -> Vec<String> {
        download(parameters).check(&[]).into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn the_file_name_is_the_last_part_of_the_first_url() {
        for (url, name) in [
            ("https://example.org/data/a.zip", "a.zip"),
            ("https://example.org/a.zip?token=1/2#top", "a.zip"),
            ("file:a.zip", "a.zip"),
            ("file:../a.zip", "a.zip"),
            ("file:///srv/a%20b%25.zip", "a b%.zip"),
        ] {
            let download = download(serde_json::json!({"url": url, "unverified": true}));
            assert_eq!(download.file_name(), name, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_or_checked_is_a_problem() {
        for (parameters, word) in [
            (serde_json::json!({"url": "ftp://example.org/a", "unverified": true}), "not a URL"),
            (serde_json::json!({"url": "data/a.zip", "unverified": true}), "is file:PATH"),
            (serde_json::json!({"url": "file://data/a.zip", "unverified": true}), "'data'"),
            (serde_json::json!({"url": "file:a%00", "name": "a", "unverified": true}), "zero byte"),
            (serde_json::json!({"url": "https://example.org:x/a", "unverified": true}), "port"),
            (serde_json::json!({"url": "https://example.org/a b", "unverified": true}), "%20"),
            (
                serde_json::json!({"url": "file:", "name": "a", "unverified": true}),
                "does not name a file",
            ),
            (serde_json::json!({"url": "https://example.org/a"}), "has no checksum"),
            (serde_json::json!({"url": "https://example.org/a", "md5": "12"}), "32 hexadecimal"),
            (
                serde_json::json!({"url": "https://example.org/a", "md5": "0".repeat(32), "unverified": true}),
                "drop one",
            ),
            (
                serde_json::json!({"url": "https://example.org/..", "unverified": true}),
                "cannot be the name of a file",
            ),
            (
                serde_json::json!({"url": "file:a", "name": "a\nb", "unverified": true}),
                "'a\\nb' cannot be the name of a file",
            ),
            (
                serde_json::json!({"url": "file:a", "name": "é".repeat(128), "unverified": true}),
                "has 256 bytes",
            ),
            (serde_json::json!({"url": [], "name": "a", "unverified": true}), "at least one URL"),
        ] {
            let problems = problems(parameters.clone());
            assert_eq!(problems.len(), 1, "{parameters}: {problems:?}");
            assert!(problems[0].contains(word), "{parameters}: {problems:?}");
        }
        let fine = serde_json::json!({"url": "FILE:my data/a.zip", "unverified": true});
        assert_eq!(problems(fine), Vec::<String>::new());
        let fine = serde_json::json!({"url": "file:my data/a.zip", "md5": "0123456789abcdefABCDEF0123456789"});
        assert_eq!(problems(fine), Vec::<String>::new());
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_repeating_it() {
        for url in [
            "https://bob:s3cret@data.my-lab.org/a",
            "http://s3cret@data.my-lab.org:80/a",
            "ftp://bob:s3/cret@data.my-lab.org/a b",
            "bob:s3cret@data.my-lab.org/a",
        ] {
            let problems = problems(serde_json::json!({"url": url, "unverified": true}));
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(!problems[0].contains("s3") && !problems[0].contains("bob"), "{problems:?}");
            for hint in ["(machine data.my-lab.org login", "PIPELINE_LOGIN_DATA_MY__LAB_ORG="] {
                assert!(problems[0].contains(hint), "{problems:?}");
            }
        }
        assert_eq!(Login::Token.variable("a_b.org"), None);
    }

    #[test]
    fn with_a_checksum_the_mirrors_stay_out_of_the_key() {
        let checksum = "AB".repeat(32);
        let here = download(serde_json::json!({"url": "https://a.org/x.zip", "blake3": checksum}));
        let there = download(
            serde_json::json!({"url": ["file:x.zip", "https://b.org/y"], "blake3": checksum.to_lowercase()}),
        );
        let key = |download: &Download| crate::kind::key_parameters(download);
        assert_eq!(key(&here), key(&there));
        assert!(here.outside_paths().is_empty());

        let unverified = download(serde_json::json!({"url": "file:x.zip", "unverified": true}));
        assert!(key(&unverified).contains_key("url"));
        assert_eq!(unverified.outside_paths(), [OutsidePath::file("url", "x.zip")]);
        for other in ["https://example.org/x.zip", "file:elsewhere/x.zip"] {
            let mirrors =
                download(serde_json::json!({"url": ["file:x.zip", other], "unverified": true}));
            let paths = mirrors.outside_paths();
            assert_eq!(paths[0].path, "x.zip");
            assert!(paths.iter().all(|path| path.optional), "{other}: a mirror may be missing");
            assert_eq!(paths.len(), if other.starts_with("file:") { 2 } else { 1 });
        }
    }
}
