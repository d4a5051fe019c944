//! Logins: user names and passwords, or tokens, from the environment and from a netrc file.
//!
//! They are read for each request and never stored. Does not depend on how requests are sent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeline_stages::kinds::Login;

/// The largest netrc file: a larger file is something else.
const MOST_BYTES: u64 = 1 << 20;

/// The logins of the user for all hosts.
pub struct Credentials {
    variable: fn(&str) -> Option<OsString>,
    netrc: Vec<NetrcEntry>,
}

/// One machine of a netrc file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NetrcEntry {
    /// `None` for `default`, which every host matches.
    host: Option<String>,
    login: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// The logins of this process: from its environment, and from the file that `NETRC` names, otherwise `~/.netrc`.
    /// Also returns a note if that file cannot be used.
    pub fn of_the_user(variable: fn(&str) -> Option<OsString>) -> (Self, Option<String>) {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = set("NETRC");
        let may_be_missing = named.is_none();
        let Some(path) = named.or_else(|| Some(set("HOME")?.join(".netrc"))) else {
            return (Self { variable, netrc: Vec::new() }, None);
        };
        match read_netrc(&path) {
            Ok(netrc) => (Self { variable, netrc }, None),
            Err(Unreadable::Missing) if may_be_missing => {
                (Self { variable, netrc: Vec::new() }, None)
            }
            Err(error) => {
                let why = match error {
                    Unreadable::Missing => "the file does not exist".to_owned(),
                    Unreadable::Other(why) => why,
                };
                let note = format!("continues without the logins of {}: {why}", path.display());
                (Self { variable, netrc: Vec::new() }, Some(note))
            }
        }
    }

    /// The value of the `Authorization` header for a host, if it has a login.
    ///
    /// # Errors
    /// When the login in the environment is not valid. The message does not repeat it.
    pub fn header(&self, host: &str) -> Result<Option<String>, String> {
        if let Some(token) = self.of_environment(Login::Token, host)? {
            return Ok(Some(format!("Bearer {token}")));
        }
        let login = self.of_environment(Login::Password, host)?.or_else(|| {
            let fits = |entry: &&NetrcEntry| {
                entry.host.as_ref().is_none_or(|machine| machine.eq_ignore_ascii_case(host))
            };
            let entry = self.netrc.iter().find(fits)?;
            let (login, password) = (entry.login.as_deref(), entry.password.as_deref());
            login.or(password)?;
            Some(format!("{}:{}", login.unwrap_or_default(), password.unwrap_or_default()))
        });
        Ok(login.map(|login| format!("Basic {}", STANDARD.encode(login))))
    }

    /// What the environment has for a host.
    fn of_environment(&self, login: Login, host: &str) -> Result<Option<String>, String> {
        let Some(name) = login.variable(host) else { return Ok(None) };
        let Some(value) = (self.variable)(&name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let value = value.into_string().map_err(|_| format!("{name} is not UTF-8 text"))?;
        if value.contains(char::is_control) {
            return Err(format!(
                "{name} has a line break or another control character, which a login cannot have"
            ));
        }
        if matches!(login, Login::Password) && !value.contains(':') {
            return Err(format!(
                "{name} has no ':': it is a user name and a password, {name}=USER:PASSWORD"
            ));
        }
        Ok(Some(value))
    }
}

enum Unreadable {
    Missing,
    Other(String),
}

fn read_netrc(path: &Path) -> Result<Vec<NetrcEntry>, Unreadable> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Other(error.to_string()),
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(Unreadable::Other("it is not a netrc file".to_owned()));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    parse(&String::from_utf8_lossy(&text)).map_err(Unreadable::Other)
}

/// The entries of a netrc file, by curl's rules: words in any lines, `"quoted"` with `\"`, `\\`, `\n`, `\r` and `\t`
/// if they have spaces, comments after a `#` that starts a word, and macros up to an empty line.
pub(crate) fn parse(text: &str) -> Result<Vec<NetrcEntry>, String> {
    let mut entries: Vec<NetrcEntry> = Vec::new();
    let mut words = Words { rest: text };
    while let Some(word) = words.next()? {
        let mut value =
            || words.next()?.ok_or_else(|| format!("nothing follows its last '{word}'"));
        match word.to_ascii_lowercase().as_str() {
            "machine" => entries.push(NetrcEntry { host: Some(value()?), ..NetrcEntry::default() }),
            "default" => entries.push(NetrcEntry::default()),
            "macdef" => words.skip_macro(),
            "account" => drop(value()?),
            field @ ("login" | "password") => {
                let value = value()?;
                let entry = entries.last_mut().ok_or("a login is before the first machine")?;
                let place = if field == "login" { &mut entry.login } else { &mut entry.password };
                *place = Some(value);
            }
            // Not shown: it may be a part of a password.
            _ => {
                return Err(
                    "it has a word that a netrc file does not have; quote passwords with spaces"
                        .to_owned(),
                );
            }
        }
    }
    Ok(entries)
}

/// The words of a netrc file.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Result<Option<String>, String> {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                break;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, after)| after);
        }
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let (word, rest) =
                self.rest.split_at(self.rest.find(char::is_whitespace).unwrap_or(self.rest.len()));
            self.rest = rest;
            return Ok((!word.is_empty()).then(|| word.to_owned()));
        };
        let mut word = String::new();
        let mut letters = quoted.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Ok(Some(word));
                }
                '\\' => word.extend(letters.next().map(|(_, letter)| match letter {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                })),
                other => word.push(other),
            }
        }
        Err("a quote in it is not closed".to_owned())
    }

    fn skip_macro(&mut self) {
        self.rest = self.rest.split_once("\n\n").map_or("", |(_, after)| after);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn entry(host: Option<&str>, login: Option<&str>, password: Option<&str>) -> NetrcEntry {
        let text = |text: Option<&str>| text.map(str::to_owned);
        NetrcEntry { host: text(host), login: text(login), password: text(password) }
    }

    #[test]
    fn netrc_files_read_as_curl_reads_them() {
        for (text, expected) in [
            ("", vec![]),
            (
                "machine a login b password c\nmachine d\n\tlogin e\n",
                vec![entry(Some("a"), Some("b"), Some("c")), entry(Some("d"), Some("e"), None)],
            ),
            (
                "# mine\nmachine \"a\" login \"b c\" password \"d\\\"\\\\\\t\" # machine x",
                vec![entry(Some("a"), Some("b c"), Some("d\"\\\t"))],
            ),
            (
                "macdef init\nmachine x login y\n\nmachine a account z password c#d\ndefault login e",
                vec![entry(Some("a"), None, Some("c#d")), entry(None, Some("e"), None)],
            ),
            ("default login d password p", vec![entry(None, Some("d"), Some("p"))]),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["login a", "machine", "machine a login", "machine a s3cret", "machine \"a"] {
            let error = parse(text).expect_err(text);
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_first_entry_over_others() {
        let variable = |name: &str| match name {
            "PIPELINE_TOKEN_HUB_EXAMPLE_ORG" => Some("t0ken".into()),
            "PIPELINE_LOGIN_DATA_EXAMPLE_ORG" => Some("ann:s3cret".into()),
            _ => None,
        };
        let netrc = parse(
            "machine a.b login x password y machine A.b login z machine c default password p",
        );
        let credentials = Credentials { variable, netrc: netrc.expect("entries") };
        let basic = |text: &str| Some(format!("Basic {}", STANDARD.encode(text)));
        for (host, header) in [
            ("hub.example.org", Some("Bearer t0ken".to_owned())),
            ("data.example.org", basic("ann:s3cret")),
            ("a.b", basic("x:y")),
            ("c", None),
            ("other", basic(":p")),
        ] {
            assert_eq!(credentials.header(host), Ok(header), "{host}");
        }
    }

    #[test]
    fn a_login_of_the_environment_that_is_not_valid_is_named_but_not_shown() {
        let variable = |name: &str| match name {
            "PIPELINE_TOKEN_A" => Some("s3cret\n".into()),
            "PIPELINE_LOGIN_B" => Some("s3cret".into()),
            "PIPELINE_LOGIN_C" => Some("ann:s3\rcret".into()),
            "PIPELINE_TOKEN_D" => Some(OsString::from_vec(b"s3\xffcret".to_vec())),
            "PIPELINE_TOKEN_E" => Some("".into()),
            _ => None,
        };
        let credentials = Credentials { variable, netrc: Vec::new() };
        for (host, words) in [
            ("a", "PIPELINE_TOKEN_A has a line break"),
            ("b", "PIPELINE_LOGIN_B has no ':'"),
            ("c", "PIPELINE_LOGIN_C has a line break"),
            ("d", "PIPELINE_TOKEN_D is not UTF-8"),
        ] {
            let error = credentials.header(host).expect_err(host);
            assert!(error.starts_with(words) && !error.contains("s3"), "{error}");
        }
        assert_eq!(credentials.header("e"), Ok(None), "as if it were not set");
    }
}
