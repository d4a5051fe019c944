//! A mirror on the web: the request, and what the response means for the partial file.
//!
//! The rules of ranges are those of RFC 9110, sections 13.1.5 (If-Range) and 14 (Range).

use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

use pipeline_stages::kinds::Download;
use pipeline_stages::message::VERSION;
use pipeline_stages::url::{WebUrl, masked};
use pipeline_stages::worker::Context;
use ureq::Agent;

use super::partial::{Partial, Version};
use super::retry::{DownloadFailure, LONGEST_WAIT, retry_after};
use super::stream::{Head, Stream};
use crate::certificates;
use crate::credentials::Credentials;
use crate::proxy;

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 10;

/// An HTTP client.
pub(super) struct Client {
    agent: Agent,
    stall: Duration,
    least: LeastSpeed,
    credentials: Credentials,
    variable: Variable,
}

/// The environment, where proxies are named.
pub(super) type Variable = Box<dyn Fn(&str) -> Option<OsString>>;

/// The least speed of a transfer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeastSpeed {
    /// In bytes a second; 0 for any.
    pub(super) limit: u64,
    /// The time over which it is measured.
    pub(super) time: Duration,
}

impl LeastSpeed {
    /// Whether this many bytes in this time are fast enough.
    pub(super) fn is_reached(&self, bytes: u64, time: Duration) -> bool {
        bytes as f64 >= self.limit as f64 * time.as_secs_f64()
    }
}

/// What the response means for the partial file.
enum Answer {
    /// The body is the whole file.
    Whole(Version),
    /// The body is the missing rest.
    Rest,
    /// The partial file cannot be continued.
    StartOver,
}

impl Client {
    /// A client that closes a connection that is silent for longer than the stage allows, or too slow.
    ///
    /// # Errors
    /// When the certificates that `SSL_CERT_FILE` names cannot be read.
    pub(super) fn new(
        stage: &Download,
        credentials: Credentials,
        variable: Variable,
    ) -> anyhow::Result<Self> {
        let stall = Duration::from_secs(stage.timeout_seconds);
        // The stream watches the time. These only make its thread end eventually.
        let timeout =
            Some(stall.saturating_add(Duration::from_secs(5)).min(Duration::from_secs(86_400)));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed in this file, as curl does.
            .max_redirects(0)
            .user_agent(format!("pipeline/{VERSION}"))
            .accept_encoding("identity")
            .tls_config(certificates::tls_config()?)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .build();
        let least = LeastSpeed {
            limit: stage.speed_limit,
            time: Duration::from_secs(stage.speed_time_seconds),
        };
        Ok(Self { agent: config.into(), stall, least, credentials, variable })
    }

    /// The least speed of its transfers.
    pub(super) fn least_speed(&self) -> LeastSpeed {
        self.least
    }

    /// Transfers the missing rest of the file. `checked`: a checksum will show whether the parts belong
    /// together; without one, only the server can confirm that the file is the same.
    ///
    /// # Errors
    /// When it does not arrive completely; when the stage is asked to stop.
    pub(super) fn get(
        &self,
        url: &str,
        checked: bool,
        partial: &mut Partial,
        context: &Context,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<(), DownloadFailure> {
        if partial.is_complete() {
            return Ok(());
        }
        let origin = WebUrl::read(url).map_err(|reason| {
            DownloadFailure::lasting(format!("it cannot be fetched: {reason}"))
        })?;
        let headers = range_headers(partial.version(), partial.len(), checked);
        let asked_for_rest = !headers.is_empty();
        let (stream, head) = self.follow(&origin, &headers, context)?;
        match read_answer(&head, asked_for_rest, partial)? {
            Answer::Whole(version) => partial.start_version(version)?,
            Answer::Rest => partial.goes_on(),
            Answer::StartOver => {
                partial.start_over()?;
                return self.get(url, checked, partial, context, progress);
            }
        }
        let total = partial.version().size;
        progress(partial.len(), total);
        let (mut since, mut before) = (Instant::now(), partial.len());
        while let Some(bytes) =
            stream.bytes(context).map_err(|failure| at(failure, partial.len(), total))?
        {
            partial.append(&bytes)?;
            progress(partial.len(), total);
            if since.elapsed() >= self.least.time {
                let came = partial.len() - before;
                if !self.least.is_reached(came, since.elapsed()) {
                    return Err(at(self.too_slow(came, since.elapsed()), partial.len(), total));
                }
                (since, before) = (Instant::now(), partial.len());
            }
        }
        match total {
            Some(total) if total != partial.len() => Err(at(
                DownloadFailure::passing("the transfer was interrupted"),
                partial.len(),
                Some(total),
            )),
            _ => Ok(()),
        }
    }

    /// Sends the request and follows redirects. A login is sent only to the host of the original URL.
    fn follow(
        &self,
        origin: &WebUrl,
        headers: &[(&'static str, String)],
        context: &Context,
    ) -> Result<(Stream, Head), DownloadFailure> {
        let mut url = origin.clone();
        for _ in 0..=MOST_REDIRECTS {
            let own = match url.is_of(origin) {
                true => self.credentials.header(url.host()).map_err(DownloadFailure::lasting)?,
                false => None,
            };
            let own = own.map(|header| ("authorization", header));
            let headers = headers.iter().cloned().chain(own).collect();
            let proxy = proxy::choose(&url, &self.variable)
                .map_err(|error| DownloadFailure::lasting(format!("{error:#}")))?;
            let stream = Stream::start(&self.agent, url.to_string(), proxy, headers, self.stall)?;
            let head = stream.head(context)?;
            match head.redirect() {
                None => return Ok((stream, head)),
                Some(location) => url = next_hop(&url, location)?,
            }
        }
        Err(DownloadFailure::lasting("it redirects too often: a loop?"))
    }

    fn too_slow(&self, bytes: u64, time: Duration) -> DownloadFailure {
        let speed = (bytes as f64 / time.as_secs_f64()).round();
        let unit = if speed == 1.0 { "byte" } else { "bytes" };
        DownloadFailure::passing(format!(
            "too slow: {speed} {unit} per second over {:.0} s, but speed-limit is {}",
            time.as_secs_f64(),
            self.least.limit
        ))
    }
}

/// Where a redirect leads.
fn next_hop(from: &WebUrl, location: &[u8]) -> Result<WebUrl, DownloadFailure> {
    let shown = String::from_utf8_lossy(location).into_owned();
    let shown = masked(&shown).escape_debug().to_string();
    let to = from.redirect(location).map_err(|reason| {
        DownloadFailure::lasting(format!(
            "refused: it redirects to '{shown}', which cannot be fetched: {reason}"
        ))
    })?;
    if from.is_encrypted() && !to.is_encrypted() {
        return Err(DownloadFailure::lasting(format!(
            "refused: it redirects from https to {shown}, which anybody in between could change"
        )));
    }
    Ok(to)
}

/// Adds how far the transfer got.
fn at(failure: DownloadFailure, length: u64, total: Option<u64>) -> DownloadFailure {
    let DownloadFailure::Passing { reason, wait } = failure else { return failure };
    let total = total.map_or_else(String::new, |total| format!(" of {total}"));
    DownloadFailure::Passing { reason: format!("{reason} (after {length}{total} bytes)"), wait }
}

/// Requests the rest of a file, on condition that it is still the same. Empty without a partial file,
/// or if nothing can confirm that the rest belongs to it.
fn range_headers(version: &Version, length: u64, checked: bool) -> Vec<(&'static str, String)> {
    if length == 0 {
        return Vec::new();
    }
    let range = ("range", format!("bytes={length}-"));
    match version.etag.as_ref().or(version.last_modified.as_ref()) {
        Some(validator) => vec![range, ("if-range", validator.clone())],
        None if checked => vec![range],
        None => Vec::new(),
    }
}

fn read_answer(
    head: &Head,
    asked_for_rest: bool,
    partial: &Partial,
) -> Result<Answer, DownloadFailure> {
    match head.status {
        200 => Ok(Answer::Whole(version_of(head))),
        206 if asked_for_rest && continues(head, partial) => Ok(Answer::Rest),
        206 | 416 if asked_for_rest => Ok(Answer::StartOver),
        status => Err(describe_status(status, head.header("retry-after"))),
    }
}

fn version_of(head: &Head) -> Version {
    let text = |name| head.header(name).map(str::to_owned);
    let chunked = head.header("transfer-encoding").is_some();
    Version {
        etag: text("etag").filter(|etag| etag.starts_with('"')),
        last_modified: text("last-modified"),
        size: head.header("content-length").filter(|_| !chunked).and_then(|size| size.parse().ok()),
    }
}

/// Whether the body starts at the end of the partial file, and is of the same version.
fn continues(head: &Head, partial: &Partial) -> bool {
    let Some((start, total)) = head.header("content-range").and_then(read_content_range) else {
        return false;
    };
    let known = partial.version();
    let answered = version_of(head);
    let same = |known: &Option<String>, answered: &Option<String>| {
        known.is_none() || answered.is_none() || known == answered
    };
    start == partial.len()
        && (known.size.is_none() || total.is_none() || known.size == total)
        && same(&known.etag, &answered.etag)
        && same(&known.last_modified, &answered.last_modified)
}

/// The first byte and the size of the whole: `bytes 100-199/200`, `bytes 100-199/*`.
fn read_content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (start.parse().ok()?, end.parse::<u64>().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (start <= end).then_some((start, total))
}

fn describe_status(status: u16, header: Option<&str>) -> DownloadFailure {
    let wait = header.and_then(|header| retry_after(header, SystemTime::now()));
    match status {
        408 | 425 | 429 | 500..=599 => {
            let reason = format!("the server is not available (status {status})");
            match wait {
                Some(wait) if wait > LONGEST_WAIT => {
                    let seconds = wait.as_secs();
                    DownloadFailure::lasting(format!("{reason}, and asks to wait {seconds} s"))
                }
                wait => DownloadFailure::Passing { reason, wait },
            }
        }
        404 | 410 => DownloadFailure::lasting(format!("not found (status {status})")),
        401 | 403 => DownloadFailure::lasting(format!(
            "access denied (status {status}); if it needs a login, put one for this host into ~/.netrc or the \
             environment (`pipeline kinds download`), or get the file by hand and add its place as \"file:PATH\" to url"
        )),
        407 => DownloadFailure::lasting("a proxy on the way asks for a login (status 407)"),
        _ => DownloadFailure::lasting(format!("the server responded with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_requested_only_if_it_can_be_confirmed_to_belong() {
        let version = |etag: Option<&str>, date: Option<&str>| Version {
            etag: etag.map(str::to_owned),
            last_modified: date.map(str::to_owned),
            size: None,
        };
        let condition = |version: &Version, length, checked| {
            let headers = range_headers(version, length, checked);
            let if_range = headers.iter().find(|(name, _)| *name == "if-range");
            (
                headers.iter().any(|(name, _)| *name == "range"),
                if_range.map(|(_, value)| value.clone()),
            )
        };
        assert_eq!(condition(&version(Some("\"a\""), None), 0, true), (false, None));
        assert_eq!(
            condition(&version(Some("\"a\""), Some("d")), 5, false),
            (true, Some("\"a\"".into()))
        );
        assert_eq!(condition(&version(None, Some("d")), 5, false), (true, Some("d".into())));
        assert_eq!(condition(&version(None, None), 5, true), (true, None));
        assert_eq!(condition(&version(None, None), 5, false), (false, None));
    }

    #[test]
    fn content_ranges() {
        for (header, expected) in [
            ("bytes 100-199/200", Some((100, Some(200)))),
            ("bytes 100-199/*", Some((100, None))),
            ("bytes */200", None),
            ("bytes 5-4/200", None),
            ("bytes 0-", None),
            ("items 0-1/2", None),
            ("", None),
        ] {
            assert_eq!(read_content_range(header), expected, "{header}");
        }
    }

    #[test]
    fn a_redirect_that_leaves_https_or_the_web_is_refused() {
        for (from, to, words) in [
            ("https://a/x", "https://b", None),
            ("http://a/x", "https://b", None),
            ("http://a/x", "http://b", None),
            ("https://a/x", "y", None),
            (
                "https://a/x",
                "http://ann:s3cret@b",
                Some("from https to http://***@b, which anybody"),
            ),
            ("http://a/x", "file:///etc/passwd", Some("redirects to 'file:///etc/passwd'")),
            ("http://a/x", "http://ann:s3cret@b:x/", Some("redirects to 'http://***@b:x/'")),
        ] {
            let from = WebUrl::read(from).expect("a URL");
            let refused = match next_hop(&from, to.as_bytes()) {
                Ok(_) => None,
                Err(DownloadFailure::Lasting { reason }) => Some(reason),
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(refused.is_some(), words.is_some(), "{to}: {refused:?}");
            let reason = refused.unwrap_or_default();
            assert!(reason.contains(words.unwrap_or_default()), "{reason}");
        }
    }

    #[test]
    fn the_status_decides_whether_to_try_again() {
        for (status, header, passing) in [
            (500, None, true),
            (503, Some("10"), true),
            (429, Some("300"), true),
            (429, Some("301"), false),
            (404, None, false),
            (403, Some("1"), false),
            (304, None, false),
        ] {
            let failure = describe_status(status, header);
            assert_eq!(
                matches!(failure, DownloadFailure::Passing { .. }),
                passing,
                "{status} {header:?}"
            );
        }
    }
}
