//! Through which proxy a request goes, if through any.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use pipeline_stages::url::{WebUrl, masked};
use ureq::Proxy;

/// A proxy of the environment.
#[derive(Debug, Clone)]
pub struct EnvProxy {
    proxy: Proxy,
    /// The variable that names it.
    variable: String,
}

/// Why a request through a proxy failed, where that is the proxy's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyFailure {
    /// In words, with the address of the proxy.
    pub reason: String,
    /// Whether another try fails too.
    pub is_lasting: bool,
}

/// The proxy for this address: `HTTPS_PROXY` or `HTTP_PROXY` by its scheme, else `ALL_PROXY`, each also in lower case. None
/// for this machine itself, and for the hosts of `NO_PROXY`.
///
/// # Errors
/// When the variable does not name a proxy that can be used.
pub fn proxy_for(url: &WebUrl) -> anyhow::Result<Option<EnvProxy>> {
    choose(url, |name| std::env::var_os(name))
}

/// The same, with the environment as a function.
pub(crate) fn choose(
    url: &WebUrl,
    variable: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Option<EnvProxy>> {
    let set = |name: &str| {
        let names = [name.to_owned(), name.to_ascii_lowercase()];
        let values = names.into_iter().filter_map(|name| Some((variable(&name)?, name)));
        values.into_iter().find(|(value, _)| !value.is_empty())
    };
    // That these are names of this machine is enough to ask no proxy for them.
    if is_this_machine(url.host()) || url.host().ends_with(".localhost") {
        return Ok(None);
    }
    if let Some((hosts, _)) = set("NO_PROXY")
        && hosts.to_string_lossy().split([',', ' ']).any(|entry| is_of(url.host(), entry))
    {
        return Ok(None);
    }
    let by_scheme = if url.is_encrypted() { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let Some((text, name)) = set(by_scheme).or_else(|| set("ALL_PROXY")) else { return Ok(None) };
    let text = text.to_str().with_context(|| format!("{name} is not UTF-8"))?;
    EnvProxy::read(name, text).map(Some)
}

impl EnvProxy {
    fn read(variable: String, text: &str) -> anyhow::Result<Self> {
        // A password with one of these letters would end the host, and what is left of it could be shown as a host.
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        if rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@')) {
            bail!(
                "{variable} does not name a proxy: in its user name and password, write / as %2F, ? as %3F and # as %23"
            );
        }
        let proxy = match Proxy::new(text) {
            // Only with a feature of the crate that is not enabled.
            Ok(proxy) if proxy.protocol().to_string().starts_with("SOCKS") => {
                bail!(
                    "{variable} names a SOCKS proxy ('{}'): only http:// and https:// work",
                    masked(text)
                )
            }
            Ok(proxy) => proxy,
            Err(_) => bail!("{variable} does not name a proxy: '{}'", masked(text)),
        };
        // The crate takes the port of the scheme where it cannot read the port.
        let authority = proxy.uri().authority().map_or("", |authority| authority.as_str());
        let address = authority.rsplit('@').next().unwrap_or_default();
        let port = address.strip_prefix(proxy.host()).unwrap_or_default().trim_start_matches(':');
        if !port.is_empty() && !port.parse::<u16>().is_ok_and(|port| port > 0) {
            bail!(
                "the port of the proxy in {variable} is not a number from 1 to 65535: '{}'",
                masked(text)
            );
        }
        Ok(Self { proxy, variable })
    }

    /// The proxy, for a request.
    pub fn proxy(&self) -> Proxy {
        self.proxy.clone()
    }

    /// Its host and port, for messages. Without a login.
    pub fn address(&self) -> String {
        format!("{}:{}", self.proxy.host(), self.proxy.port())
    }

    /// What a failure before the response has to do with the proxy. Every connection is one to the proxy, which looks up the
    /// host of the request and connects to it.
    pub fn failure(&self, error: &ureq::Error) -> Option<ProxyFailure> {
        let address = self.address();
        let passing = |reason| Some(ProxyFailure { reason, is_lasting: false });
        match error {
            ureq::Error::Io(error) => match error.kind() {
                // An invalid certificate, of the host or of the proxy.
                ErrorKind::InvalidData => None,
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    passing(format!(
                        "the connection through the proxy {address} was closed too early"
                    ))
                }
                _ => passing(format!(
                    "the connection to the proxy {address} ({}) failed: {error}",
                    self.variable
                )),
            },
            ureq::Error::ConnectionFailed => {
                passing(format!("the connection to the proxy {address} failed"))
            }
            ureq::Error::Timeout(what) => {
                passing(format!("the connection through the proxy {address} timed out ({what})"))
            }
            ureq::Error::HostNotFound => passing(format!(
                "the proxy {address} ({}) was not found, or the network is not available",
                self.variable
            )),
            ureq::Error::ConnectProxyFailed(reason) => Some(self.refusal(reason)),
            _ => None,
        }
    }

    /// What the answer of the proxy to a request for a connection means. The crate has it as a text: `proxy server responded
    /// 407/407`.
    fn refusal(&self, reason: &str) -> ProxyFailure {
        let (address, variable) = (self.address(), &self.variable);
        let has_login = self.proxy.username().is_some();
        let status = reason.rsplit('/').next().and_then(|status| status.parse::<u16>().ok());
        let (reason, is_lasting) = match status {
            Some(407) if has_login => (
                format!("the proxy {address} does not accept the login in {variable} (status 407)"),
                true,
            ),
            Some(407) => (
                format!(
                    "the proxy {address} asks for a login (status 407): write it into {variable}, as \
                     {}://USER:PASSWORD@{address}",
                    self.proxy.uri().scheme_str().unwrap_or("http")
                ),
                true,
            ),
            Some(status) => {
                (format!("the proxy {address} refused the connection (status {status})"), false)
            }
            None => (format!("the proxy {address} refused the connection ({reason})"), false),
        };
        ProxyFailure { reason, is_lasting }
    }
}

/// Whether a host of a URL is this machine, whoever answers there. Not a name below `localhost`: some systems ask others for its address.
pub fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Whether an entry of `NO_PROXY` names this host: `*` is every host, and a domain also names the hosts below it, with or
/// without `.` or `*.` before it. Addresses are compared as text, and ranges of them (`10.0.0.0/8`) are not supported.
fn is_of(host: &str, entry: &str) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    let domain = entry.trim_start_matches('*').trim_start_matches('.');
    match domain {
        "" => entry == "*",
        _ => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let above = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
            host == domain || bare == domain || above
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, set: &[(&str, &str)]) -> Result<Option<String>, String> {
        let find = |name: &str| set.iter().find(|(other, _)| *other == name);
        let variable = |name: &str| find(name).map(|(_, value)| OsString::from(value));
        let url = WebUrl::read(url).expect("a URL");
        let proxy = choose(&url, variable).map_err(|error| error.to_string())?;
        Ok(proxy.map(|proxy| proxy.address()))
    }

    #[test]
    fn the_scheme_decides_and_this_machine_needs_none() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2"), ("ALL_PROXY", "a:3")];
        let found = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(chosen("https://h/", &both), found("s:1"));
        assert_eq!(chosen("http://h/", &both), found("p:2"));
        assert_eq!(chosen("http://h/", &both[..1]), Ok(None));
        assert_eq!(chosen("http://h/", &both[2..]), found("a:3"));
        assert_eq!(chosen("http://h/", &[("HTTP_PROXY", ""), ("http_proxy", "p:2")]), found("p:2"));
        for host in ["localhost:5000", "127.0.0.1", "127.8.0.1:80", "[::1]:5000", "a.localhost"] {
            assert_eq!(chosen(&format!("http://{host}/"), &both), Ok(None), "{host}");
            assert_eq!(chosen(&format!("https://{host}/"), &both), Ok(None), "{host}");
        }
    }

    #[test]
    fn a_domain_without_a_proxy_has_the_hosts_below_it() {
        for (list, host, is_direct) in [
            ("h", "h", true),
            ("x, H", "h", true),
            ("example.org", "a.example.org", true),
            (".example.org", "a.example.org", true),
            (".example.org", "example.org", true),
            ("*.example.org", "a.example.org", true),
            ("example.org", "an-example.org", false),
            ("*", "h", true),
            ("", "h", false),
            (",", "h", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("fe80::1", "[fe80::1]", true),
        ] {
            let found =
                chosen(&format!("http://{host}/"), &[("HTTP_PROXY", "p:1"), ("no_proxy", list)]);
            assert_eq!(found.map(|proxy| proxy.is_none()), Ok(is_direct), "{list} {host}");
        }
    }

    #[test]
    fn one_that_cannot_be_used_is_an_error_without_its_password() {
        for (text, words) in [
            ("http://ann:s3cret@", "HTTP_PROXY does not name a proxy: 'http://***@'"),
            ("ftp://ann:s3cret@h", "HTTP_PROXY does not name a proxy: 'ftp://***@h'"),
            ("socks5://ann:s3cret@h", "HTTP_PROXY names a SOCKS proxy ('socks5://***@h')"),
            ("http://127.0.0.1:99999", "port of the proxy in HTTP_PROXY is not a number"),
            ("ann:s3cret@h:57o1", "from 1 to 65535: '***@h:57o1'"),
            ("http://[::1]:0", "from 1 to 65535: 'http://[::1]:0'"),
            ("http://ann:12/s3cret@h:1", "HTTP_PROXY does not name a proxy: in its user name"),
        ] {
            let error = chosen("http://h/", &[("HTTP_PROXY", text)]).expect_err(text);
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_port_may_be_missing() {
        for (text, address) in [
            ("h", "h:80"),
            ("http://h:/", "h:80"),
            ("https://ann:s3cret@h", "h:443"),
            ("http://ann:5@[::1]:8080/", "[::1]:8080"),
        ] {
            let found = chosen("http://target/", &[("HTTP_PROXY", text)]);
            assert_eq!(found, Ok(Some(address.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_failure_names_the_proxy_and_never_its_login() {
        let with = |text: &str| EnvProxy::read("https_proxy".to_owned(), text).expect("a proxy");
        let (plain, login) = (with("http://p:3128"), with("http://ann:s3cret@p:3128"));
        let answer = |status: &str| ureq::Error::ConnectProxyFailed(status.to_owned());
        let io = |kind: ErrorKind| ureq::Error::Io(kind.into());
        for (proxy, error, words, is_lasting) in [
            (
                &plain,
                answer("proxy server responded 407/407"),
                "as http://USER:PASSWORD@p:3128",
                true,
            ),
            (&login, answer("proxy server responded 407/407"), "the login in https_proxy", true),
            (
                &login,
                answer("proxy server responded 403/403"),
                "p:3128 refused the connection (status 403)",
                false,
            ),
            (&login, answer("proxy server did not respond"), "p:3128 refused", false),
            (
                &login,
                io(ErrorKind::ConnectionRefused),
                "connection to the proxy p:3128 (https_proxy) failed: connection refused",
                false,
            ),
            (&login, io(ErrorKind::ConnectionReset), "through the proxy p:3128 was closed", false),
            (
                &login,
                ureq::Error::HostNotFound,
                "the proxy p:3128 (https_proxy) was not found",
                false,
            ),
            (&login, ureq::Error::ConnectionFailed, "the proxy p:3128 failed", false),
        ] {
            let failure = proxy.failure(&error).expect(words);
            assert!(failure.reason.contains(words), "{failure:?}");
            assert_eq!(failure.is_lasting, is_lasting, "{failure:?}");
            assert!(!failure.reason.contains("s3cret"), "{failure:?}");
        }
        assert_eq!(login.failure(&io(ErrorKind::InvalidData)), None, "a certificate");
    }
}
