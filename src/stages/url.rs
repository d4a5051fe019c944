//! URLs: what is secret in them, what a `file:` URL names, and where a redirect leads.
//!
//! Pure. Reads URLs as curl and browsers do, which accept more than the RFCs: spaces and letters beyond ASCII are
//! encoded.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// What must be encoded in a request. `%` is not: the URL is encoded already.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Where the user info of a URL is: the user name and the password, without the `@`.
pub fn user_info(url: &str) -> Option<Range<usize>> {
    let start = match url.split_once("://") {
        Some((scheme, _)) => scheme.len() + 3,
        None if url.starts_with("file:") => return None,
        None => 0,
    };
    let rest = &url[start..];
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let end = authority.rfind('@').or_else(|| {
        // A password with a '/' in it ends the authority too early: what is left is not a host with a port.
        let (_, port) = authority.rsplit_once(':')?;
        let is_port = port.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port { None } else { rest.rfind('@') }
    })?;
    Some(start..start + end)
}

/// A URL for messages: without its user info.
pub fn masked(url: &str) -> Cow<'_, str> {
    match user_info(url) {
        Some(secret) => format!("{}***{}", &url[..secret.start], &url[secret.end..]).into(),
        None => url.into(),
    }
}

/// A text with the user info of every URL in it replaced by as many bytes, for showing a place in it.
pub fn blanked(text: &str) -> Cow<'_, str> {
    let mut blanked = Cow::Borrowed(text);
    // Where the part ends that can be one URL, and the last `@` in it: looked for once, however many `://` it has.
    let (mut end, mut last_at) = (0, None);
    let mut done = 0;
    for (colon, _) in text.match_indices("://") {
        if colon >= end {
            // The URL may be invalid because it has a space.
            end = text[colon..].find(['"', '\n']).map_or(text.len(), |length| colon + length);
            last_at = text[colon..end].rfind('@').map(|at| colon + at);
        }
        let Some(at) = last_at.filter(|&at| at > colon && colon >= done) else { continue };
        if let Some(secret) = user_info(&text[colon..=at]) {
            done = colon + secret.end;
            let stars = "*".repeat(secret.len());
            blanked.to_mut().replace_range(colon + secret.start..done, &stars);
        }
    }
    blanked
}

/// What a `file:` URL names (RFC 8089).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUrl {
    /// A path, decoded: `%20` is a space. A `%` without two hexadecimal digits is a `%`; `?` and `#` are not special.
    Path(String),
    /// A path on another machine.
    Elsewhere(String),
    /// An invalid path: not UTF-8, or with a zero byte.
    Unusable,
}

impl FileUrl {
    /// Reads one; `None` for a URL of another scheme.
    pub fn read(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("file") {
            return None;
        }
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(rest) => match rest.split_at(rest.find('/').unwrap_or(rest.len())) {
                ("" | "localhost", path) => path,
                (host, _) => return Some(Self::Elsewhere(host.to_owned())),
            },
        };
        Some(match percent_decode_str(path).decode_utf8() {
            Ok(path) if !path.contains('\0') => Self::Path(path.into_owned()),
            _ => Self::Unusable,
        })
    }
}

/// A URL on the web, encoded as a request needs it. Without user info and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl {
    encrypted: bool,
    host: String,
    port: Option<u16>,
    /// The path, which starts with a `/`, and the query.
    target: String,
}

impl WebUrl {
    /// Reads one.
    pub fn read(url: &str) -> Result<Self, String> {
        Self::read_encoded(&percent_encode(url.as_bytes(), ENCODED).to_string())
    }

    fn read_encoded(url: &str) -> Result<Self, String> {
        let encrypted = match scheme(url).map(str::to_ascii_lowercase).as_deref() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it does not start with https:// or http://".to_owned()),
        };
        let (_, rest) = url.split_once(':').unwrap_or_default();
        let rest = rest.strip_prefix("//").ok_or("its scheme is not followed by '://'")?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let host_and_port = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = match host_and_port.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (host_and_port, ""),
        };
        check_host(host)?;
        let port = match port {
            "" => None,
            port => Some(port.parse().map_err(|_| "its port is not a number up to 65535")?),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            encrypted,
            host: host.to_ascii_lowercase(),
            port,
            target: format!("{slash}{target}"),
        })
    }

    /// Where a `Location` header leads from here (RFC 3986, section 5.2).
    ///
    /// # Errors
    /// When the target cannot be fetched, with what is wrong.
    pub fn redirect(&self, location: &[u8]) -> Result<Self, String> {
        let location = percent_encode(location.trim_ascii(), ENCODED).to_string();
        if scheme(&location).is_some() {
            return Self::read_encoded(&location);
        }
        if location.starts_with("//") {
            let scheme = if self.encrypted { "https" } else { "http" };
            return Self::read_encoded(&format!("{scheme}:{location}"));
        }
        let location = location.split('#').next().unwrap_or_default();
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match location.bytes().next() {
            None => self.target.clone(),
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            Some(_) => {
                format!("{}/{location}", path.rsplit_once('/').map_or("", |(above, _)| above))
            }
        };
        Ok(Self { target: without_dots(&target), ..self.clone() })
    }

    /// Whether it is an `https:` URL.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The host, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What is asked for at the host: the path, which starts with a `/`, and the query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether what is meant for `origin` may be sent here: it is the same host and port, or the encrypted one of the
    /// same host.
    pub fn is_of(&self, origin: &Self) -> bool {
        let port = |url: &Self| url.port.unwrap_or(if url.encrypted { 443 } else { 80 });
        let same = self.encrypted == origin.encrypted && port(self) == port(origin);
        let upgraded =
            self.encrypted && !origin.encrypted && (port(origin), port(self)) == (80, 443);
        self.host == origin.host && (same || upgraded)
    }
}

impl std::fmt::Display for WebUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{port}{}", self.host, self.target)
    }
}

/// What is before the colon, if it is a scheme.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    let mut bytes = scheme.bytes();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    (bytes.next()?.is_ascii_alphabetic() && bytes.all(letters)).then_some(scheme)
}

fn check_host(host: &str) -> Result<(), String> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')),
    };
    match host {
        "" => Err("it does not name a host".to_owned()),
        _ if good => Ok(()),
        _ if host.contains('%') => {
            Err("its host has letters beyond ASCII: write the name in its xn-- form".to_owned())
        }
        _ => Err("its host is not valid".to_owned()),
    }
}

/// A path without `.` and `..` (RFC 3986, section 5.2.4), and its query.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            _ => kept.push(segment),
        }
        if segments.peek().is_none() && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_login_of_any_length_is_blanked_and_every_url_of_a_line() {
        let long = format!("http://ann:{}@h/x", "s".repeat(10_000));
        assert_eq!(blanked(&long), format!("http://{}@h/x", "*".repeat(10_004)));
        let two = "curl http://a:b@h/ ftp://c/d://e:f@h \"http://g:i@h\"";
        assert_eq!(blanked(two), "curl http://***@h/ ftp://c/d://***@h \"http://***@h\"");
        assert_eq!(blanked("http://h/, and mail a@b"), "http://h/, and mail a@b");
    }

    #[test]
    fn user_info_is_found_wherever_it_is() {
        for (url, shown) in [
            ("https://ann:s3cret@h/a@1.0?x=@", "https://***@h/a@1.0?x=@"),
            ("https://token@h", "https://***@h"),
            ("ftp://ann:s3@cret@h:21/a", "ftp://***@h:21/a"),
            ("http://ann:s3/cr?e#t@h/a", "http://***@h/a"),
            ("file://ann:s3cret@h/a", "file://***@h/a"),
            ("ann:s3cret@h/a", "***@h/a"),
            ("https://h:80/a@b", "https://h:80/a@b"),
            ("https://[::1]/a@b", "https://[::1]/a@b"),
            ("https://h/a@b:c", "https://h/a@b:c"),
            ("file:a@b/c:d", "file:a@b/c:d"),
            ("", ""),
        ] {
            assert_eq!(masked(url), shown, "{url}");
        }
    }

    #[test]
    fn a_shown_line_keeps_its_length() {
        for (text, shown) in [
            (
                "url = \"http://ann:s3cret@h/a\" # not http://h/a@b",
                "url = \"http://**********@h/a\" # not http://h/a@b",
            ),
            ("url = [\"https://ü:a b@h\", 'x://t@h']", "url = [\"https://******@h\", 'x://*@h']"),
            ("a = 1", "a = 1"),
        ] {
            assert_eq!(blanked(text), shown);
            assert_eq!(blanked(text).len(), text.len());
        }
    }

    #[test]
    fn file_urls() {
        let path = |path: &str| Some(FileUrl::Path(path.to_owned()));
        for (url, expected) in [
            ("file:data/a.zip", path("data/a.zip")),
            ("file:///srv/a%20b.zip", path("/srv/a b.zip")),
            ("file:/srv/a.zip", path("/srv/a.zip")),
            ("file://localhost/srv/a.zip", path("/srv/a.zip")),
            ("file:a b.zip", path("a b.zip")),
            ("file:100%.zip", path("100%.zip")),
            ("file:100%25.zip", path("100%.zip")),
            ("file:a%zz%2", path("a%zz%2")),
            ("file:%C3%BC#1?.zip", path("ü#1?.zip")),
            ("FILE:///srv/a.zip", path("/srv/a.zip")),
            ("File:data/a.zip", path("data/a.zip")),
            ("file:", path("")),
            ("file://", path("")),
            ("file://data/a.zip", Some(FileUrl::Elsewhere("data".to_owned()))),
            ("file:a%00", Some(FileUrl::Unusable)),
            ("file:%ff", Some(FileUrl::Unusable)),
            ("https://h/a", None),
        ] {
            assert_eq!(FileUrl::read(url), expected, "{url}");
        }
    }

    #[test]
    fn urls_are_encoded_as_a_request_needs_them() {
        for (url, expected) in [
            ("https://Example.org", Ok("https://example.org/")),
            ("HTTP://h:8080/a%20b?c=%zz#top", Ok("http://h:8080/a%20b?c=%zz")),
            ("http://h/ü b|c?d=\"é\"", Ok("http://h/%C3%BC%20b%7Cc?d=%22%C3%A9%22")),
            ("http://h?a", Ok("http://h/?a")),
            ("http://[::1]:80/", Ok("http://[::1]:80/")),
            ("http://ann:s3cret@h/a", Ok("http://h/a")),
            ("ftp://h/a", Err("does not start with")),
            ("https:h/a", Err("'://'")),
            ("https:x://h/a", Err("'://'")),
            ("https:///a", Err("not name a host")),
            ("http://münchen.example/a", Err("xn--")),
            ("http://h:99999/", Err("65535")),
            ("http://h$/", Err("not valid")),
        ] {
            match (WebUrl::read(url), expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read.to_string(), expected, "{url}"),
                (Err(error), Err(words)) => assert!(error.contains(words), "{url}: {error}"),
                (read, _) => panic!("{url}: {read:?}"),
            }
        }
    }

    /// The examples of RFC 3986, section 5.4, and headers of servers that violate it.
    #[test]
    fn redirects_lead_where_browsers_follow_them() {
        let base = WebUrl::read("http://a/b/c/d;p?q").expect("a URL");
        for (location, expected) in [
            ("http:g", Err("'://'")),
            ("g", Ok("http://a/b/c/g")),
            ("./g", Ok("http://a/b/c/g")),
            ("g/", Ok("http://a/b/c/g/")),
            ("/g", Ok("http://a/g")),
            ("//g", Ok("http://g/")),
            ("?y", Ok("http://a/b/c/d;p?y")),
            ("g?y", Ok("http://a/b/c/g?y")),
            ("#s", Ok("http://a/b/c/d;p?q")),
            ("g#s", Ok("http://a/b/c/g")),
            (";x", Ok("http://a/b/c/;x")),
            ("", Ok("http://a/b/c/d;p?q")),
            (".", Ok("http://a/b/c/")),
            ("..", Ok("http://a/b/")),
            ("../g", Ok("http://a/b/g")),
            ("../../../g", Ok("http://a/g")),
            ("/./g", Ok("http://a/g")),
            ("g.", Ok("http://a/b/c/g.")),
            ("./g/.", Ok("http://a/b/c/g/")),
            ("g;x=1/../y", Ok("http://a/b/c/y")),
            ("g?y/../x", Ok("http://a/b/c/g?y/../x")),
            (" /my file.bin ", Ok("http://a/my%20file.bin")),
            ("/ü.bin", Ok("http://a/%C3%BC.bin")),
            ("HTTPS://u:p@B/x", Ok("https://b/x")),
            ("file:///etc/passwd", Err("does not start with")),
            ("ftp://a/b", Err("does not start with")),
        ] {
            match (base.redirect(location.as_bytes()), expected) {
                (Ok(to), Ok(expected)) => assert_eq!(to.to_string(), expected, "{location}"),
                (Err(error), Err(words)) => assert!(error.contains(words), "{location}: {error}"),
                (to, _) => panic!("{location}: {to:?}"),
            }
        }
        assert_eq!(base.redirect(b"/\xfc").expect("Latin-1").to_string(), "http://a/%FC");
    }

    #[test]
    fn an_origin_is_a_host_a_port_and_a_scheme() {
        for (origin, url, same) in [
            ("https://h/a", "https://H:443/b", true),
            ("http://h/a", "https://h/a", true),
            ("http://h/a", "http://other/a", false),
            ("http://h/a", "http://h:8080/a", false),
            ("http://h:8080/a", "https://h/a", false),
            ("https://h/a", "http://h/a", false),
            ("https://h/a", "https://sub.h/a", false),
        ] {
            let [origin, url] = [origin, url].map(|url| WebUrl::read(url).expect("a URL"));
            assert_eq!(url.is_of(&origin), same, "{origin} {url}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), made in "[a-z:/@?#.%ü \\[\\]0-9]*") {
            for text in [text, made] {
                let _ = (masked(&text), blanked(&text), FileUrl::read(&format!("file:{text}")));
                let _ = WebUrl::read(&format!("http://{text}"));
                let _ = WebUrl::read("http://h/a").expect("a URL").redirect(text.as_bytes());
            }
        }

        /// A URL that was read and written can be read again.
        #[test]
        fn what_is_read_can_be_read_again(text in "[a-z:/@?#.%ü |0-9]*") {
            if let Ok(url) = WebUrl::read(&format!("http://{text}")) {
                prop_assert_eq!(WebUrl::read(&url.to_string()), Ok(url));
            }
        }
    }
}
