//! Through which proxy a request goes, if through any.

use std::ffi::OsString;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use pipeline_stages::url::{WebUrl, masked};
use ureq::Proxy;

/// The proxy for this address: `HTTPS_PROXY` or `HTTP_PROXY` by its scheme, else `ALL_PROXY`, each also in lower case. None
/// for this machine itself, and for the hosts of `NO_PROXY`.
///
/// # Errors
/// When the variable does not name a proxy that can be used.
pub fn proxy_for(url: &WebUrl) -> anyhow::Result<Option<Proxy>> {
    choose(url, |name| std::env::var_os(name))
}

fn choose(
    url: &WebUrl,
    variable: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Option<Proxy>> {
    let set = |name: &str| {
        let names = [name.to_owned(), name.to_ascii_lowercase()];
        let values = names.into_iter().filter_map(|name| Some((variable(&name)?, name)));
        values.into_iter().find(|(value, _)| !value.is_empty())
    };
    if is_this_machine(url.host()) {
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
    let proxy = match Proxy::new(text) {
        // Only with a feature of the crate that is not enabled.
        Ok(proxy) if proxy.protocol().to_string().starts_with("SOCKS") => {
            bail!("{name} names a SOCKS proxy ('{}'): only http:// and https:// work", masked(text))
        }
        Ok(proxy) => proxy,
        Err(_) => bail!("{name} does not name a proxy: '{}'", masked(text)),
    };
    Ok(Some(proxy))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_local_name = host == "localhost" || host.ends_with(".localhost");
    address.map_or(is_local_name, |address| address.is_loopback())
}

/// Whether an entry of `NO_PROXY` names this host, as for curl: `*` is every host, and a domain has the hosts below it.
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
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
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
    fn hosts_without_a_proxy_are_those_of_curl() {
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
        ] {
            let error = chosen("http://h/", &[("HTTP_PROXY", text)]).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }
}
