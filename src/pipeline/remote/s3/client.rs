//! Requests to an object store: signed, tried again where that helps, and what their failures mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pipeline_stages::url::WebUrl;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::Body;
use ureq::http::{HeaderValue, Response};

use super::super::http::{Answer, MOST_TRIES, Server, Tries, is_passing, wait_of};
use super::super::transport::RemoteFailure;
use super::credentials::{Held, Settings};
use super::redacted::redacted;
use crate::remote_address::S3Address;

/// The most bytes of an answer about parts or names.
pub(super) const MOST_ANSWER_BYTES: u64 = 16 << 20;

/// The longest that one request reads: what takes longer is continued by another one, so that a connection that is dead without
/// saying so is noticed.
pub(super) const LONGEST_READ: Duration = Duration::from_secs(60);

/// Credentials are renewed this long before they expire.
const VALID_AHEAD: Duration = Duration::from_secs(60);

/// Where a refusal does not say why, others are not asked for again for so long after the first time, and then for twice as long each time, up to the second.
const RENEWED_FOR: Duration = Duration::from_secs(10);
const RENEWED_FOR_LONGEST: Duration = Duration::from_secs(600);

/// How long a signature is valid.
const VALID: Duration = Duration::from_secs(3600);

/// The most letters of a server's message that are shown.
const LONGEST_MESSAGE: usize = 300;

/// Sends requests.
pub(super) struct Client {
    server: Server,
    bucket: Bucket,
    address: S3Address,
    /// What requests are signed with.
    held: Mutex<Held>,
    /// Whether something was read: then what may not be read does not exist.
    has_read: AtomicBool,
}

/// What a request does: not everybody who may read may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Read,
    /// Reads names. Not everybody who may read what has a known name may do that.
    List,
    Write,
}

/// How a request ended that has a meaning.
pub(super) enum Sent<T = Answer> {
    Done(T),
    /// There is nothing of this name.
    Missing,
    /// There was something of this name.
    Exists,
    /// The server does not have conditional requests.
    NoConditions,
}

/// What a failed request was.
struct Problem {
    failure: RemoteFailure,
    /// How often a request is tried that fails like this: more than once where another try may succeed.
    tries: u32,
    /// Whether other credentials are needed: `None` where the answer does not tell that from a refusal.
    is_old: Option<bool>,
    /// Whether there is nothing of the name, where other credentials do not help.
    is_missing: bool,
}

impl Client {
    /// A client of the bucket of an address, with the credentials of this user.
    pub(super) fn new(address: &S3Address) -> Result<Self, RemoteFailure> {
        let away = |error: anyhow::Error| RemoteFailure::away(format!("{error:#}"));
        let settings = Settings::of_this_user(address).map_err(|error| away(error).lasting())?;
        let (endpoint, style) = match &settings.endpoint {
            // Servers of one's own rarely have a name for each bucket.
            Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
            None => {
                // Amazon's certificate is for names with one part before its own.
                let style = match address.bucket.contains('.') {
                    true => UrlStyle::Path,
                    false => UrlStyle::VirtualHost,
                };
                (format!("https://s3.{}.amazonaws.com", settings.region), style)
            }
        };
        let url = WebUrl::read(&endpoint).map_err(|reason| {
            RemoteFailure::away(format!("the endpoint cannot be used: {reason}"))
        })?;
        let unusable =
            |_| RemoteFailure::away("the endpoint and the bucket do not make an address");
        let parsed =
            endpoint.parse().map_err(|_| RemoteFailure::away("the endpoint is not a URL"))?;
        let bucket = Bucket::new(parsed, style, address.bucket.clone(), settings.region.clone())
            .map_err(unusable)?;
        let held = Mutex::new(settings.provider.get().map_err(away)?);
        let shown = format!("{url}, bucket {}", address.bucket);
        let server = Server::new(&url, shown)?;
        let (address, has_read) = (address.clone(), AtomicBool::new(false));
        Ok(Self { server, bucket, address, held, has_read })
    }

    /// The credentials of this user now: another program may have renewed those of a file.
    fn credentials(&self) -> anyhow::Result<Held> {
        Settings::of_this_user(&self.address)?.provider.get()
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The signed address of a request: as secret as what it signs with, until it is invalid.
    pub(super) fn sign<'a>(&self, action: &impl S3Action<'a>) -> String {
        action.sign(VALID).into()
    }

    /// That the bucket does not exist.
    pub(super) fn no_bucket(&self) -> RemoteFailure {
        RemoteFailure::away(format!("the bucket does not exist ({})", self.server.shown()))
    }

    /// What the server said in an answer with an error whose status is of a success.
    pub(super) fn said(&self, code: &str, message: &str) -> String {
        said(code, None, message, self.current().as_ref())
    }

    /// Sends a request until it has an answer that means something.
    pub(super) fn send(
        &self,
        does: Does,
        request: impl Fn(&Self, Option<&Credentials>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Sent, RemoteFailure> {
        let (mut tries, mut is_renewed) = (Tries::new(), false);
        loop {
            let credentials = self.current();
            let mut asked = Duration::ZERO;
            let problem = match request(self, credentials.as_ref()) {
                Ok(response) => {
                    asked = wait_of(&response);
                    match self.read(response, does, credentials.as_ref()) {
                        Ok(sent) => return Ok(sent),
                        Err(problem) => problem,
                    }
                }
                Err(error) => {
                    let (failure, tries) = self.server.failure(&error);
                    Problem { failure, tries, is_old: Some(false), is_missing: false }
                }
            };
            if problem.is_old != Some(false)
                && !std::mem::replace(&mut is_renewed, true)
                && self.renew(credentials.as_ref(), problem.is_old.is_none())
            {
                continue;
            }
            if problem.is_missing {
                return Ok(Sent::Missing);
            }
            if !tries.again(problem.tries, asked) {
                return Err(problem.failure);
            }
        }
    }

    /// The same for what answers with a text: where that breaks off, the request is sent again.
    pub(super) fn send_for_text(
        &self,
        does: Does,
        request: impl Fn(&Self, Option<&Credentials>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Sent<String>, RemoteFailure> {
        let mut tries = Tries::new();
        loop {
            let answer = match self.send(does, &request)? {
                Sent::Done(answer) => answer,
                Sent::Missing => return Ok(Sent::Missing),
                Sent::Exists => return Ok(Sent::Exists),
                Sent::NoConditions => return Ok(Sent::NoConditions),
            };
            match answer.text(MOST_ANSWER_BYTES) {
                Err(failure) if !tries.again(MOST_TRIES, Duration::ZERO) => return Err(failure),
                Err(_) => {}
                Ok(text) => return Ok(Sent::Done(text)),
            }
        }
    }

    /// What a request is signed with now.
    fn current(&self) -> Option<Credentials> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |time: &SystemTime| *time <= SystemTime::now() + VALID_AHEAD;
        if held.expires.as_ref().is_some_and(is_over) {
            if let Ok(new) = self.credentials() {
                *held = new;
            }
            // Where there are none that are valid for longer, the server says what is wrong.
            held.expires = held.expires.filter(|time| !is_over(time));
        }
        held.credentials.clone()
    }

    /// Asks for other credentials than those that do not work, unless somebody has done that. Returns whether there are any.
    fn renew(&self, old: Option<&Credentials>, is_unclear: bool) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asked = is_unclear && held.renewed.is_some_and(|again| Instant::now() < again);
        if held.credentials.as_ref() == old && !is_asked {
            let pause = if is_unclear { held.pause * 2 } else { held.pause };
            if let Ok(new) = self.credentials() {
                *held = new;
            }
            // Whoever may do little is refused often, and a program that prints credentials may ask a person.
            held.pause = pause.clamp(RENEWED_FOR, RENEWED_FOR_LONGEST);
            held.renewed = Some(Instant::now() + held.pause);
        }
        held.credentials.as_ref() != old
    }

    /// What an answer means.
    fn read(
        &self,
        mut response: Response<Body>,
        does: Does,
        credentials: Option<&Credentials>,
    ) -> Result<Sent, Problem> {
        let status = response.status().as_u16();
        if matches!(status, 200..=299) {
            if does == Does::Read {
                self.has_read.store(true, Ordering::Relaxed);
            }
            return Ok(Sent::Done(Answer(response)));
        }
        let location =
            response.headers().get("location").and_then(|it| HeaderValue::to_str(it).ok());
        let redirect = location.is_some().then(|| "to another address".to_owned());
        let text = response.body_mut().with_config().limit(1 << 20).lossy_utf8(true);
        let text = text.read_to_string().unwrap_or_default();
        let (code, message) = error_of(&text).unwrap_or_default();
        match (status, code.as_str()) {
            (404, "NoSuchBucket") => {
                return Err(Problem {
                    failure: self.no_bucket(),
                    tries: 1,
                    is_old: Some(false),
                    is_missing: false,
                });
            }
            (404, _) => return Ok(Sent::Missing),
            (412, _) => return Ok(Sent::Exists),
            (501, _) => return Ok(Sent::NoConditions),
            _ => {}
        }
        let held = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let unsigned = credentials.is_none().then(|| held().why_none.clone());
        let said = said(&code, Some(status), &message, credentials);
        let situation = Situation { does, unsigned, redirect, said, shown: self.server.shown() };
        let mut problem = problem(status, &code, &situation);
        // The answer to a HEAD does not have a body, and says nothing of what is wrong. Of credentials that have expired, SeaweedFS
        // says that they may not do it.
        let is_unclear = matches!(code.as_str(), "" | "AccessDenied");
        if is_unclear && matches!(status, 400 | 401 | 403) {
            problem.is_old = None;
        }
        // To whoever may not list, a store does not say that a name has nothing.
        let is_hidden = is_unclear && status == 403;
        match is_hidden && does == Does::Read && self.has_read.load(Ordering::Relaxed) {
            true => Err(Problem { is_missing: true, ..problem }),
            false => Err(problem),
        }
    }
}

/// What is known of a request that failed.
struct Situation<'a> {
    does: Does,
    /// Why it was not signed, if it was not.
    unsigned: Option<String>,
    redirect: Option<String>,
    /// What the server said, for people.
    said: String,
    shown: &'a str,
}

/// What a server said of a request that these credentials signed, for people.
fn said(
    code: &str,
    status: Option<u16>,
    message: &str,
    credentials: Option<&Credentials>,
) -> String {
    // Of a secret that is cut off, the rest would not be found.
    let short = |words: &str| -> String {
        redacted(words, credentials).chars().take(LONGEST_MESSAGE).collect()
    };
    let status = status.map(|status| format!("status {status}"));
    let code = Some(short(code)).filter(|code| !code.is_empty());
    let is_alone = status.is_none();
    let message =
        Some(short(message)).filter(|message| (code.is_some() || is_alone) && !message.is_empty());
    let begins: Vec<String> = code.into_iter().chain(status).collect();
    let parts = [begins.join(", ")].into_iter().chain(message);
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "an error without words".to_owned() } else { parts.join(": ") }
}

fn problem(status: u16, code: &str, situation: &Situation<'_>) -> Problem {
    let Situation { does, unsigned, redirect, said, shown } = situation;
    let is_expired =
        matches!(code, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired");
    let is_unknown = matches!(
        code,
        "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "InvalidToken" | "InvalidTokenId"
    );
    let is_old = Some(is_expired || is_unknown);
    let one = |failure: RemoteFailure| Problem { failure, tries: 1, is_old, is_missing: false };
    let away = |reason: String| one(RemoteFailure::away(reason));
    let lasting = |reason: String| one(RemoteFailure::away(reason).lasting());
    match status {
        _ if is_expired => away(format!("the credentials have expired ({said}): renew them")),
        400 if code == "RequestTimeout" => Problem {
            tries: MOST_TRIES,
            ..away(format!("the connection was too slow ({said}; {shown})"))
        },
        401 | 403 if code == "RequestTimeTooSkewed" => {
            away(format!("the clock of this machine is wrong ({said})"))
        }
        400 | 401 | 403 if is_unknown => {
            lasting(format!("the credentials are not accepted ({said}; {shown})"))
        }
        401 | 403 => match unsigned {
            Some(why) => lasting(format!("access denied ({said}; {shown}): {why}")),
            None if *does == Does::Write => {
                let why = format!("these credentials may not write ({said}; {shown})");
                one(RemoteFailure::refused(why).lasting())
            }
            None => lasting(format!("access denied ({said}; {shown})")),
        },
        300..=399 => lasting(format!(
            "the bucket is elsewhere ({said}{}; {shown}): write its region or endpoint",
            redirect.as_ref().map_or(String::new(), |redirect| format!(", {redirect}"))
        )),
        _ if status == 409 || is_passing(status) => Problem {
            tries: MOST_TRIES,
            ..away(format!("the server is not available ({said}; {shown})"))
        },
        _ => one(RemoteFailure::refused(format!("the server refused it ({said}; {shown})"))),
    }
}

/// The code and the message of an error of S3, which may repeat secrets. `None` where it is something else.
pub(super) fn error_of(text: &str) -> Option<(String, String)> {
    let (_, error) = text.split_once("<Error>")?;
    let field = |tag: &str| {
        let (_, rest) = error.split_once(&format!("<{tag}>"))?;
        let (field, _) = rest.split_once(&format!("</{tag}>"))?;
        let plain = field.replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&");
        Some(plain.chars().filter(|letter| !letter.is_control()).collect())
    };
    Some((field("Code").unwrap_or_default(), field("Message").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::super::super::transport::FailureKind;
    use super::*;

    #[test]
    fn an_error_has_a_code_and_a_message() {
        let text = "<?xml?><Error><Code>NoSuchKey</Code><Message>It&apos;s\ngone</Message></Error>";
        assert_eq!(error_of(text), Some(("NoSuchKey".to_owned(), "It'sgone".to_owned())));
        assert_eq!(error_of("<Error></Error>"), Some((String::new(), String::new())));
        assert_eq!(error_of("<html>"), None);
    }

    #[test]
    fn what_failures_mean() {
        for (status, code, does, is_signed, kind, may_pass, words) in [
            (
                403,
                "AccessDenied",
                Does::Read,
                true,
                FailureKind::Away,
                false,
                "access denied (AccessDenied",
            ),
            (403, "AccessDenied", Does::Write, true, FailureKind::Refused, false, "may not write"),
            (403, "AccessDenied", Does::Write, false, FailureKind::Away, false, "no credentials"),
            (
                403,
                "SignatureDoesNotMatch",
                Does::Write,
                true,
                FailureKind::Away,
                false,
                "not accepted",
            ),
            (400, "ExpiredToken", Does::Write, true, FailureKind::Away, false, "have expired"),
            (403, "RequestTimeTooSkewed", Does::Read, true, FailureKind::Away, false, "the clock"),
            (
                301,
                "PermanentRedirect",
                Does::Read,
                true,
                FailureKind::Away,
                false,
                "region or endpoint",
            ),
            (
                503,
                "SlowDown",
                Does::Write,
                true,
                FailureKind::Away,
                true,
                "not available (SlowDown",
            ),
            (507, "", Does::Write, true, FailureKind::Refused, false, "refused it (status 507"),
            (
                400,
                "XMinioAdminBucketQuotaExceeded",
                Does::Write,
                true,
                FailureKind::Refused,
                false,
                "Quota",
            ),
        ] {
            let unsigned = (!is_signed).then(|| "there are no credentials".to_owned());
            let said = said(code, Some(status), "", None);
            let situation =
                Situation { does, unsigned, redirect: None, said, shown: "http://h/, bucket b" };
            let found = problem(status, code, &situation);
            assert_eq!(found.failure.kind, kind, "{status} {code}");
            assert_eq!(found.tries > 1, may_pass, "{status} {code}");
            let heals =
                !matches!(code, "AccessDenied" | "SignatureDoesNotMatch" | "PermanentRedirect");
            assert_eq!(found.failure.is_lasting, !heals, "{status} {code}");
            assert!(found.failure.reason.contains(words), "{}", found.failure);
            let is_old = matches!(code, "ExpiredToken" | "SignatureDoesNotMatch");
            assert_eq!(found.is_old, Some(is_old));
        }
    }
}
