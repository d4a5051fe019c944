//! Requests to a server on the web, whatever it speaks: connections and their limits of time, what fails before an answer, and what
//! is tried again.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant, SystemTime};

use pipeline_prepare::certificates::tls_config;
use pipeline_prepare::proxy::{EnvProxy, proxy_for};
use pipeline_prepare::retry_after;
use pipeline_stages::message::VERSION;
use pipeline_stages::url::WebUrl;
use ureq::http::{HeaderValue, Request, Response};
use ureq::{Agent, AsSendBody, Body, RequestExt, SendBody};

use super::transport::{ContentReader, Pace, RemoteFailure, SILENCE};

/// How long a connection may take, an answer to a question without a body, and another one.
const CONNECT: Duration = Duration::from_secs(5);
pub(super) const SHORT_ANSWER: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);

/// The slowest that a body may be whose size is known, in bytes a second, and the slowest that a server may copy a file.
const SLOWEST: u64 = 50 << 10;
const SLOWEST_COPY: u64 = 4 << 20;

/// How many connections are kept for later requests.
const MOST_IDLE: usize = 32;

/// How often a request is tried at which the server fails, or the connection; and the time before the second time, which doubles.
pub(super) const MOST_TRIES: u32 = 4;
/// The same where the server did not answer in time: each takes long.
const MOST_SLOW_TRIES: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest that a server may ask to wait before the next time.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Headers of a request.
pub(super) type Headers<'h> = &'h [(&'static str, HeaderValue)];

/// That something is stored only where nothing has the name.
pub(super) fn if_new() -> (&'static str, HeaderValue) {
    ("if-none-match", HeaderValue::from_static("*"))
}

/// A server.
pub(super) struct Server {
    agent: Agent,
    proxy: Option<EnvProxy>,
    /// Where it is, for people.
    shown: String,
}

impl Server {
    /// The one of this address. No connection is made yet.
    ///
    /// # Errors
    /// When the proxy or the certificates of the environment cannot be used.
    pub(super) fn new(url: &WebUrl, shown: String) -> Result<Self, RemoteFailure> {
        let away = |error: anyhow::Error| RemoteFailure::away(format!("{error:#}")).lasting();
        let proxy = proxy_for(url).map_err(away)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A signature is for one address, and a login for one server.
            .max_redirects(0)
            // What is kept compressed has a name that says so.
            .accept_encoding("identity")
            .allow_non_standard_methods(true)
            .user_agent(format!("pipeline/{VERSION}"))
            .tls_config(tls_config().map_err(away)?)
            .proxy(proxy.as_ref().map(EnvProxy::proxy))
            .timeout_connect(Some(CONNECT))
            .timeout_per_write(Some(ANSWER))
            .max_idle_connections(MOST_IDLE)
            .max_idle_connections_per_host(MOST_IDLE)
            .build();
        Ok(Self { agent: config.into(), proxy, shown })
    }

    /// Where it is, for people.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Reads something from this byte on, within this time.
    pub(super) fn get(
        &self,
        url: &str,
        from: u64,
        longest: Duration,
        headers: Headers<'_>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = request("GET", url, headers, ())?;
        if from > 0 {
            let range = HeaderValue::try_from(format!("bytes={from}-"));
            request.headers_mut().insert("range", range.map_err(ureq::http::Error::from)?);
        }
        let request = request.with_agent(&self.agent).configure();
        let request = request.timeout_recv_response(Some(SHORT_ANSWER));
        request.timeout_per_read(Some(SILENCE)).timeout_global(Some(longest)).run()
    }

    /// Sends a request without a content, which is answered within this time.
    pub(super) fn ask(
        &self,
        method: &str,
        url: &str,
        longest: Duration,
        headers: Headers<'_>,
    ) -> Result<Response<Body>, ureq::Error> {
        self.run(request(method, url, headers, ())?, longest)
    }

    /// Stores a content.
    pub(super) fn put(
        &self,
        url: &str,
        mut content: ContentReader<'_>,
        bytes: u64,
        headers: Headers<'_>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = request("PUT", url, headers, SendBody::from_reader(&mut content))?;
        request.headers_mut().insert("content-length", bytes.into());
        self.run(request, longest(bytes))
    }

    pub(super) fn post(
        &self,
        url: &str,
        body: &str,
        headers: Headers<'_>,
    ) -> Result<Response<Body>, ureq::Error> {
        // The server may put many parts together before it answers.
        self.run(request("POST", url, headers, body)?, ANSWER * 10)
    }

    fn run(
        &self,
        request: Request<impl AsSendBody>,
        longest: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        request.with_agent(&self.agent).configure().timeout_global(Some(longest)).run()
    }

    /// What a failure before the answer means, and how often a request is tried that fails like this. The words of the library can
    /// have the address of the request, which can be secret.
    pub(super) fn failure(&self, error: &ureq::Error) -> (RemoteFailure, u32) {
        if let Some(failure) = self.proxy.as_ref().and_then(|proxy| proxy.failure(error)) {
            let away = RemoteFailure::away(failure.reason);
            return if failure.is_lasting { (away.lasting(), 1) } else { (away, MOST_TRIES) };
        }
        let (reason, tries) = match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                (format!("no secure connection: {error}"), 1)
            }
            ureq::Error::Io(error) => (format!("the connection failed: {error}"), MOST_TRIES),
            ureq::Error::Timeout(_) => {
                ("the server did not answer in time".to_owned(), MOST_SLOW_TRIES)
            }
            ureq::Error::HostNotFound => {
                ("the host was not found, or the network is not available".to_owned(), 1)
            }
            _ => ("the request failed".to_owned(), MOST_TRIES),
        };
        (RemoteFailure::away(format!("{reason} ({})", self.shown)), tries)
    }
}

fn request<B>(
    method: &str,
    url: &str,
    headers: Headers<'_>,
    body: B,
) -> Result<Request<B>, ureq::Error> {
    let mut request = Request::builder().method(method).uri(url).body(body)?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.clone());
    }
    Ok(request)
}

/// How long a request with a content of this size may take.
pub(super) fn longest(bytes: u64) -> Duration {
    ANSWER + Duration::from_secs(bytes / SLOWEST)
}

/// How long a server may take to give a content of this size another name: it may copy it.
pub(super) fn longest_copy(bytes: u64) -> Duration {
    ANSWER + Duration::from_secs(bytes / SLOWEST_COPY)
}

/// How long a server asks to wait before another try.
pub(super) fn wait_of(response: &Response<Body>) -> Duration {
    let header = response.headers().get("retry-after").and_then(|it| it.to_str().ok());
    header.and_then(|header| retry_after(header, SystemTime::now())).unwrap_or_default()
}

/// A status that another try may not have.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504)
}

/// How often a request was tried.
pub(super) struct Tries {
    count: u32,
    wait: Duration,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { count: 1, wait: FIRST_WAIT }
    }

    /// Waits before another try, also as long as the server has asked for, unless there were so many.
    pub(super) fn again(&mut self, most: u32, asked: Duration) -> bool {
        if self.count >= most {
            return false;
        }
        std::thread::sleep(self.wait.max(asked.min(LONGEST_WAIT)));
        (self.count, self.wait) = (self.count + 1, self.wait * 2);
        true
    }
}

/// What a server has answered.
pub(super) struct Answer(pub(super) Response<Body>);

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// A header, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// How many bytes follow, as far as the server says that.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// How many bytes the whole has that a part was asked of, as far as the server says that.
    pub(super) fn whole(&self) -> Option<u64> {
        range_of(self.header("content-range")?)?.1
    }

    /// Where it says that the content is.
    pub(super) fn redirect(&self) -> Option<&[u8]> {
        let is_redirect = matches!(self.status(), 301 | 302 | 303 | 307 | 308);
        let location = self.0.headers().get("location").filter(|_| is_redirect);
        location.map(HeaderValue::as_bytes)
    }

    /// Its text, of at most so many bytes.
    pub(super) fn text(mut self, most: u64) -> Result<String, RemoteFailure> {
        let body = self.0.body_mut().with_config().limit(most).lossy_utf8(true);
        body.read_to_string()
            .map_err(|error| RemoteFailure::away(format!("the answer broke off: {error}")))
    }

    /// The content from this byte on, which was asked for, also where the server sends all of it.
    ///
    /// # Errors
    /// When the server sends another part.
    pub(super) fn reader_from(self, from: u64) -> Result<Box<dyn Read>, RemoteFailure> {
        let skip = match (self.status(), self.header("content-range").and_then(range_of)) {
            (206, Some((Some(start), _))) if start != from => {
                return Err(RemoteFailure::refused(
                    "the server sends another part of it than was asked for",
                ));
            }
            (206, _) => 0,
            _ => from,
        };
        let reader = Paced { reader: self.0.into_body().into_reader(), pace: Pace::default() };
        Ok(Box::new(Skipping { reader, skip }))
    }
}

/// The first byte of a part, and how many the whole has: `bytes 100-199/200`, `bytes 100-199/*`, `bytes */200`.
fn range_of(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
    Some((start, total.parse().ok()))
}

/// Whether a text is the value of a header that is read: which part it is, when to come again, or where something is. For fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_header(text: &str) -> bool {
    let from = WebUrl::read("https://lab/folder/a?b").expect("an address");
    let to = from.redirect(text.as_bytes());
    if let Ok(to) = &to {
        assert_eq!(WebUrl::read(&to.to_string()).as_ref(), Ok(to));
    }
    range_of(text).is_some() || retry_after(text, SystemTime::now()).is_some() || to.is_ok()
}

/// A reader that fails where its bytes come too slowly.
struct Paced<R> {
    reader: R,
    pace: Pace,
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let count = self.reader.read(buffer)?;
        self.pace.note(count, began.elapsed())?;
        Ok(count)
    }
}

/// A reader without its first bytes.
struct Skipping<R> {
    reader: R,
    skip: u64,
}

impl<R: Read> Read for Skipping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let skipped = io::copy(&mut self.reader.by_ref().take(self.skip), &mut io::sink())?;
            if skipped < self.skip {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.skip = 0;
        }
        self.reader.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_already_is_left_out() {
        let mut text = String::new();
        let mut reader = Skipping { reader: &b"0123456789"[..], skip: 7 };
        reader.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "789");
        assert!(Skipping { reader: &b"0"[..], skip: 7 }.read(&mut [0]).is_err());
    }

    #[test]
    fn a_part_of_a_content_says_where_it_begins() {
        for (header, expected) in [
            ("bytes 100-199/200", Some((Some(100), Some(200)))),
            ("bytes 0-9/*", Some((Some(0), None))),
            ("bytes */200", Some((None, Some(200)))),
            ("lines 0-9/10", None),
        ] {
            assert_eq!(range_of(header), expected, "{header}");
        }
    }
}
