//! Requests to a server on the web: with the login of its host and of no other, tried again where that helps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeline_prepare::credentials::Credentials;
use pipeline_prepare::proxy::is_this_machine;
use pipeline_stages::url::{WebUrl, masked};
use ureq::Body;
use ureq::http::{HeaderValue, Response};

use super::super::http::{Answer, Headers, MOST_TRIES, Server, Tries, is_passing, wait_of};
use super::super::transport::RemoteFailure;
use crate::remote_address::WebAddress;

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 5;

/// Sends requests.
pub(super) struct Client {
    address: WebAddress,
    /// The address of the folder, without a slash at its end.
    folder: String,
    logins: Mutex<Logins>,
    /// That of the address, and those where it redirects to.
    servers: Mutex<HashMap<String, Arc<Server>>>,
    /// Whether something was read: then what may not be read does not exist.
    has_read: AtomicBool,
}

/// The logins of this user.
struct Logins {
    logins: Credentials,
    /// Why those of a file are not known.
    note: Option<String>,
}

impl Logins {
    /// As they are now.
    fn read() -> Self {
        let (logins, note) = Credentials::of_the_user(|name| std::env::var_os(name));
        Self { logins, note }
    }
}

/// Who must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// The server, or one that it redirects to.
    Anybody,
    /// The server itself.
    It,
}

impl Client {
    /// A client of this folder, with the logins of this user.
    pub(super) fn new(address: WebAddress) -> Self {
        let logins = Mutex::new(Logins::read());
        let folder = address.url.to_string().trim_end_matches('/').to_owned();
        let (servers, has_read) = (Mutex::default(), AtomicBool::new(false));
        Self { address, folder, logins, servers, has_read }
    }

    /// The address of the folder, without a slash at its end.
    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    /// Reads. `None` where there is nothing. An answer that is not a success has one of these statuses.
    pub(super) fn read(
        &self,
        url: &WebUrl,
        others: &[u16],
        request: impl Fn(&Server, &str, Headers<'_>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Option<Answer>, RemoteFailure> {
        let answer = self.send(Asks::Anybody, url, &[], request)?;
        match answer.status() {
            200..=299 => {
                self.has_read.store(true, Ordering::Relaxed);
                Ok(Some(answer))
            }
            status if others.contains(&status) => Ok(Some(answer)),
            404 | 410 => Ok(None),
            // A server that does not show which names there are.
            403 if self.has_read.load(Ordering::Relaxed) => Ok(None),
            status @ 403 => Err(self.denied(status, "it may not be read")),
            status => Err(RemoteFailure::refused(format!(
                "the server refused it (status {status}; {})",
                self.folder
            ))),
        }
    }

    /// Changes something. Returns the answer, also where the server refuses it.
    pub(super) fn write(
        &self,
        url: &WebUrl,
        headers: Headers<'_>,
        request: impl Fn(&Server, &str, Headers<'_>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, RemoteFailure> {
        self.send(Asks::It, url, headers, request)
    }

    /// Sends a request until it has an answer that means something.
    fn send(
        &self,
        asks: Asks,
        url: &WebUrl,
        headers: Headers<'_>,
        request: impl Fn(&Server, &str, Headers<'_>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, RemoteFailure> {
        let (mut tries, mut is_renewed) = (Tries::new(), false);
        loop {
            let login = self.login(url)?;
            let ((failure, most), asked) =
                match self.follow(asks, url.clone(), headers, &request)? {
                    Ok(answer) => match answer.status() {
                        status if is_passing(status) => {
                            let folder = &self.folder;
                            let why =
                                format!("the server is not available (status {status}; {folder})");
                            ((RemoteFailure::away(why), MOST_TRIES), wait_of(&answer.0))
                        }
                        401 if !std::mem::replace(&mut is_renewed, true)
                            && self.renew(url, login.as_ref())? =>
                        {
                            continue;
                        }
                        401 => return Err(self.denied(401, "access denied")),
                        _ => return Ok(answer),
                    },
                    Err(failure) => (failure, Duration::ZERO),
                };
            if !tries.again(most, asked) {
                return Err(failure);
            }
        }
    }

    /// Sends a request once, and where it is redirected. A login is sent to the server of the address only.
    fn follow(
        &self,
        asks: Asks,
        mut url: WebUrl,
        headers: Headers<'_>,
        request: &impl Fn(&Server, &str, Headers<'_>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Result<Answer, (RemoteFailure, u32)>, RemoteFailure> {
        for _ in 0..=MOST_REDIRECTS {
            let server = self.server(&url)?;
            let mut headers = headers.to_vec();
            headers.extend(self.login(&url)?.map(|login| ("authorization", login)));
            let answer = match request(&server, &url.to_string(), &headers) {
                Ok(response) => Answer(response),
                Err(error) => return Ok(Err(server.failure(&error))),
            };
            match answer.redirect() {
                None => return Ok(Ok(answer)),
                Some(location) => url = self.next_hop(asks, &url, location)?,
            }
        }
        Err(RemoteFailure::away(format!("it redirects too often ({})", self.folder)))
    }

    fn next_hop(
        &self,
        asks: Asks,
        from: &WebUrl,
        location: &[u8],
    ) -> Result<WebUrl, RemoteFailure> {
        let shown = String::from_utf8_lossy(location).into_owned();
        // What follows is often a login for a short time.
        let shown = masked(shown.split('?').next().unwrap_or_default()).escape_debug().to_string();
        let refused = |why: &str| RemoteFailure::away(format!("it redirects to '{shown}': {why}"));
        let to = from.redirect(location).map_err(|reason| refused(&reason))?;
        let is_kept = to.is_encrypted() || !from.is_encrypted();
        match asks {
            Asks::It => Err(refused("write the address that it really has")),
            Asks::Anybody if is_kept && self.address.may_be_used(&to) => Ok(to),
            Asks::Anybody => {
                Err(refused("what comes from there could be changed by everybody on the way"))
            }
        }
    }

    fn server(&self, url: &WebUrl) -> Result<Arc<Server>, RemoteFailure> {
        let whole = url.to_string();
        let host = whole.strip_suffix(url.target()).unwrap_or(&whole).to_owned();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(&host) {
            return Ok(Arc::clone(server));
        }
        let server = Arc::new(Server::new(url, host.clone())?);
        servers.insert(host, Arc::clone(&server));
        Ok(server)
    }

    /// Reads the logins again after one for this address was refused, unless somebody has done that. Returns whether there is
    /// another one.
    fn renew(&self, url: &WebUrl, refused: Option<&HeaderValue>) -> Result<bool, RemoteFailure> {
        if self.login(url)?.as_ref() == refused {
            *self.logins() = Logins::read();
        }
        Ok(self.login(url)?.as_ref() != refused)
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The login for this address, if there is one that may be sent there.
    fn login(&self, url: &WebUrl) -> Result<Option<HeaderValue>, RemoteFailure> {
        if !url.is_of(&self.address.url) || !is_secret(url) {
            return Ok(None);
        }
        let login = self.logins().logins.header(url.host());
        let login = login.map_err(|reason| RemoteFailure::away(reason).lasting())?;
        let header = login.map(|login| {
            let mut header = HeaderValue::try_from(login).map_err(|_| {
                RemoteFailure::away("the login of the host has a letter that a request cannot have")
            })?;
            header.set_sensitive(true);
            Ok(header)
        });
        header.transpose()
    }

    /// That somebody may not do something there, and what to look at.
    pub(super) fn denied(&self, status: u16, what: &str) -> RemoteFailure {
        let (host, folder) = (self.address.url.host(), &self.folder);
        let login = self.login(&self.address.url);
        let hint = match (login, &self.logins().note) {
            _ if !is_secret(&self.address.url) => "a login is sent by https:// only".to_owned(),
            (Ok(Some(_)), _) => format!("the login of {host} is not one of those who may"),
            (_, Some(note)) => note.clone(),
            _ => format!("there is no login for {host} in ~/.netrc or the environment"),
        };
        RemoteFailure::away(format!("{what} (status {status}; {folder}): {hint}")).lasting()
    }
}

/// Whether nobody else can read what is sent there.
fn is_secret(url: &WebUrl) -> bool {
    url.is_encrypted() || is_this_machine(url.host())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_address::Address;

    fn client(address: &str) -> Client {
        match Address::read(address) {
            Ok(Address::Web(address)) => Client::new(address),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn redirects_are_followed_by_what_reads_and_never_to_where_others_listen() {
        for (address, location, expected) in [
            ("https://lab/a", "https://cdn/x?t0ken", Ok("https://cdn/x?t0ken")),
            ("https://lab/a", "/b", Ok("https://lab/b")),
            ("https://lab/a", "http://lab/b?t0ken", Err("'http://lab/b': what comes from there")),
            ("https://lab/a", "http://127.0.0.1/b", Err("what comes from there")),
            ("http://127.0.0.1/a", "http://cdn/b", Err("what comes from there")),
            ("http://127.0.0.1/a", "https://cdn/b", Ok("https://cdn/b")),
            ("http://lab/a?unencrypted=allowed", "http://cdn/b", Ok("http://cdn/b")),
            ("https://lab/a", "file:///etc/passwd", Err("does not start with")),
        ] {
            let client = client(address);
            let hop = client.next_hop(Asks::Anybody, &client.address.url, location.as_bytes());
            match (hop, expected) {
                (Ok(to), Ok(expected)) => assert_eq!(to.to_string(), expected),
                (Err(failure), Err(words)) => {
                    assert!(failure.reason.contains(words), "{failure}");
                    assert!(!failure.reason.contains("t0ken"), "{failure}");
                }
                (hop, _) => panic!("{location}: {hop:?}"),
            }
            let write = client.next_hop(Asks::It, &client.address.url, b"https://cdn/");
            assert!(write.is_err_and(|failure| failure.reason.contains("write the address")));
        }
    }
}
