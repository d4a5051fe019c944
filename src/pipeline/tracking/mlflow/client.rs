//! Requests to an MLflow server over its REST API, and what their failures mean.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeline_prepare::certificates::tls_config;
use pipeline_prepare::proxy::{EnvProxy, proxy_for};
use pipeline_stages::message::VERSION;
use pipeline_stages::url::{WebUrl, masked};
use serde_json::Value;
use ureq::http::{HeaderValue, Response};
use ureq::{Agent, Body, RequestExt};

/// How long a connection may take, and a whole request.
const CONNECT: Duration = Duration::from_secs(3);
pub(super) const REQUEST: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read.
const MOST_BYTES: u64 = 8 << 20;
/// The most letters of a server's message that are shown.
pub(super) const LONGEST_MESSAGE: usize = 300;

/// The environment variables that MLflow's own client reads.
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";

/// Sends requests.
pub(super) struct Client {
    agent: Agent,
    /// The address, without a slash at its end.
    address: String,
    proxy: Option<EnvProxy>,
    /// The header that says who asks. Never shown.
    login: Option<HeaderValue>,
    /// What a user who was denied access should look at.
    hint: String,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestFailure {
    pub(super) kind: RequestFailureKind,
    /// In words.
    pub(super) reason: String,
    /// MLflow's name for it: `RESOURCE_ALREADY_EXISTS`.
    pub(super) code: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFailureKind {
    /// The server does not answer. Another try may succeed.
    Unreachable,
    /// The server has no time for it. Another try may succeed.
    Busy,
    /// The server failed. Another try may succeed, or this request always fails.
    Faulty,
    /// What is sent is wrong for this server.
    Content,
    /// This request is wrong for this server.
    Lasting,
    /// Every request will fail.
    ForAll,
}

impl RequestFailure {
    /// Whether other requests to the server may succeed now.
    pub(super) fn is_of_one_request(&self) -> bool {
        match self.kind {
            RequestFailureKind::Busy
            | RequestFailureKind::Faulty
            | RequestFailureKind::Content
            | RequestFailureKind::Lasting => true,
            RequestFailureKind::Unreachable | RequestFailureKind::ForAll => false,
        }
    }

    pub(super) fn new(kind: RequestFailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), code: String::new() }
    }
}

impl Client {
    /// A client of this server, with the login of the environment.
    pub(super) fn new(server: &WebUrl) -> Result<Self, RequestFailure> {
        let for_all = |reason: String| RequestFailure::new(RequestFailureKind::ForAll, reason);
        let tls = tls_config().map_err(|error| for_all(format!("{error:#}")))?;
        let proxy = proxy_for(server).map_err(|error| for_all(format!("{error:#}")))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect of a POST would become a GET, and could lead a password elsewhere.
            .max_redirects(0)
            .user_agent(format!("pipeline/{VERSION}"))
            .tls_config(tls)
            .proxy(proxy.as_ref().map(EnvProxy::proxy))
            .timeout_connect(Some(CONNECT))
            .build();
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let (login, hint) = login(variable).map_err(for_all)?;
        let address = server.to_string().trim_end_matches('/').to_owned();
        Ok(Self { agent: config.into(), address, proxy, login, hint })
    }

    /// Reads something.
    pub(super) fn get(
        &self,
        path: &str,
        query: (&str, &str),
        limit: Duration,
    ) -> Result<Value, RequestFailure> {
        let request = self.agent.get(self.url(path)).query(query.0, query.1);
        let request = match &self.login {
            Some(login) => request.header("authorization", login),
            None => request,
        };
        let response = request.config().timeout_global(Some(limit)).build().call();
        self.answer(response)
    }

    /// Sends an object, and returns what the server answers.
    pub(super) fn post(
        &self,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, RequestFailure> {
        let request = ureq::http::Request::post(self.url(path))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes());
        self.send(request, limit)
    }

    /// Stores a file.
    pub(super) fn put(
        &self,
        path: &str,
        bytes: Vec<u8>,
        limit: Duration,
    ) -> Result<(), RequestFailure> {
        let request = ureq::http::Request::put(self.url(path))
            .header("content-type", "application/octet-stream")
            // A server that fails before it has read a file closes the connection: the next request must not use it.
            .header("connection", "close")
            .body(bytes);
        self.send(request, limit).map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/2.0/{path}", self.address)
    }

    fn send(
        &self,
        request: ureq::http::Result<ureq::http::Request<Vec<u8>>>,
        limit: Duration,
    ) -> Result<Value, RequestFailure> {
        let mut request = request
            .map_err(|error| RequestFailure::new(RequestFailureKind::Lasting, error.to_string()))?;
        if let Some(login) = &self.login {
            request.headers_mut().insert("authorization", login.clone());
        }
        let request = request.with_agent(&self.agent).configure().timeout_global(Some(limit));
        self.answer(request.run())
    }

    fn answer(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<Value, RequestFailure> {
        let mut response = response.map_err(|error| self.describe_start(&error))?;
        let status = response.status().as_u16();
        if matches!(status, 300..=399) {
            let location = response.headers().get("location").map(HeaderValue::as_bytes);
            let location = String::from_utf8_lossy(location.unwrap_or_default()).into_owned();
            let reason = format!(
                "the server redirects to '{}': write the address that it really has",
                masked(&location)
            );
            return Err(RequestFailure::new(RequestFailureKind::ForAll, reason));
        }
        let body = response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true);
        let text = body.read_to_string().map_err(|error| describe(&error))?;
        read_answer(status, &text, self.login.is_some(), &self.hint)
    }

    /// What a failure before the answer means.
    fn describe_start(&self, error: &ureq::Error) -> RequestFailure {
        match self.proxy.as_ref().and_then(|proxy| proxy.failure(error)) {
            Some(failure) if failure.is_lasting => {
                RequestFailure::new(RequestFailureKind::ForAll, failure.reason)
            }
            Some(failure) => RequestFailure::new(RequestFailureKind::Unreachable, failure.reason),
            None => describe(error),
        }
    }
}

/// The header of a login, and what to look at where it is not accepted. MLflow's client, too, prefers a user name to a token.
///
/// # Errors
/// Where a header cannot have it. Does not repeat it.
fn login(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<(Option<HeaderValue>, String), String> {
    let text = |name: &str| {
        let text = variable(name).map(OsString::into_string).transpose();
        text.map_err(|_| format!("{name} is not UTF-8"))
    };
    let (text, used) = match (text(USERNAME)?, text(PASSWORD)?, text(TOKEN)?) {
        (Some(name), Some(password), _) => {
            let basic = STANDARD.encode(format!("{name}:{password}"));
            (format!("Basic {basic}"), format!("{USERNAME} and {PASSWORD}"))
        }
        (_, _, Some(token)) => (format!("Bearer {token}"), TOKEN.to_owned()),
        (Some(_), None, None) => {
            return Ok((None, format!("{USERNAME} is set, but {PASSWORD} is not")));
        }
        (None, Some(_), None) => {
            return Ok((None, format!("{PASSWORD} is set, but {USERNAME} is not")));
        }
        (None, None, None) => {
            return Ok((None, format!("it needs a login: {USERNAME} and {PASSWORD}, or {TOKEN}")));
        }
    };
    let mut header = HeaderValue::try_from(text)
        .map_err(|_| format!("{used} has a letter that a request cannot have"))?;
    header.set_sensitive(true);
    Ok((Some(header), format!("the login of {used} is not accepted")))
}

/// What an answer means.
pub(super) fn read_answer(
    status: u16,
    text: &str,
    has_login: bool,
    hint: &str,
) -> Result<Value, RequestFailure> {
    let value: Option<Value> = serde_json::from_str(text).ok().filter(Value::is_object);
    if matches!(status, 200..=299) {
        // An artifact is answered with an object, too; an empty answer is one.
        let empty = text.trim().is_empty().then(|| Value::Object(Default::default()));
        return value.or(empty).ok_or_else(|| {
            RequestFailure::new(
                RequestFailureKind::ForAll,
                "the answer is not that of MLflow: is the address right?",
            )
        });
    }
    let of_error = |name: &str| value.as_ref()?.get(name)?.as_str();
    let message = of_error("message").unwrap_or_default().lines().next().unwrap_or_default();
    let message: String = message.chars().take(LONGEST_MESSAGE).collect();
    let message = if message.is_empty() { message } else { format!(": {message}") };
    let code = of_error("error_code").unwrap_or_default().to_owned();
    let (kind, reason) = match status {
        401 => (RequestFailureKind::ForAll, format!("access denied (status 401{message}); {hint}")),
        403 => {
            let hint = match has_login {
                true => "may this user write to the experiment?",
                false => {
                    "does it need a login, or does it not know this host name (--allowed-hosts)?"
                }
            };
            (RequestFailureKind::ForAll, format!("access denied (status 403{message}); {hint}"))
        }
        404 if value.is_none() => (
            RequestFailureKind::ForAll,
            "status 404: MLflow is not at this address, or it is too old".to_owned(),
        ),
        408 | 425 | 429 | 502 | 503 | 504 => (
            RequestFailureKind::Busy,
            format!("the server is not available (status {status}{message})"),
        ),
        500..=599 => {
            (RequestFailureKind::Faulty, format!("the server failed (status {status}{message})"))
        }
        400 | 413 | 414 | 415 | 422 => (
            RequestFailureKind::Content,
            format!("the server refused it (status {status}{message})"),
        ),
        _ => (
            RequestFailureKind::Lasting,
            format!("the server refused it (status {status}{message})"),
        ),
    };
    Err(RequestFailure { kind, reason, code })
}

fn describe(error: &ureq::Error) -> RequestFailure {
    let (kind, reason) = match error {
        // An invalid certificate: another try does not help.
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            (RequestFailureKind::ForAll, format!("no secure connection: {error}"))
        }
        ureq::Error::Io(error) => {
            (RequestFailureKind::Unreachable, format!("the connection failed: {error}"))
        }
        ureq::Error::Timeout(_) => {
            (RequestFailureKind::Unreachable, "the server did not answer in time".to_owned())
        }
        ureq::Error::HostNotFound => (
            RequestFailureKind::Unreachable,
            "the host was not found, or the network is not available".to_owned(),
        ),
        error @ (ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_)
        | ureq::Error::BodyStalled) => (RequestFailureKind::Unreachable, error.to_string()),
        error => (RequestFailureKind::Lasting, error.to_string()),
    };
    RequestFailure::new(kind, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_login_is_that_of_mlflows_own_client() {
        let with = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(other, _)| *other == name);
            let login = login(|name| find(name).map(|(_, value)| OsString::from(value)));
            login.map(|(login, hint)| match login {
                Some(header) => header.to_str().unwrap_or_default().to_owned(),
                None => hint,
            })
        };
        let needed = "it needs a login: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN";
        assert_eq!(with(&[]), Ok(needed.to_owned()));
        let missing = "MLFLOW_TRACKING_USERNAME is set, but MLFLOW_TRACKING_PASSWORD is not";
        assert_eq!(with(&[(USERNAME, "ann")]), Ok(missing.to_owned()));
        let missing = "MLFLOW_TRACKING_PASSWORD is set, but MLFLOW_TRACKING_USERNAME is not";
        assert_eq!(with(&[(PASSWORD, "s3cret")]), Ok(missing.to_owned()));
        let basic = Ok("Basic YW5uOnMzY3JldA==".to_owned());
        assert_eq!(with(&[(USERNAME, "ann"), (PASSWORD, "s3cret"), (TOKEN, "t")]), basic);
        assert_eq!(with(&[(TOKEN, "t")]), Ok("Bearer t".to_owned()));
        let refused = with(&[(TOKEN, "s3cret\nX-Other: 1")]).expect_err("a line break");
        assert!(refused.contains(TOKEN) && !refused.contains("s3cret"), "{refused}");
        let broken = |name: &str| (name == TOKEN).then(|| OsString::from_vec(vec![b't', 0xff]));
        assert_eq!(login(broken).expect_err("not UTF-8"), "MLFLOW_TRACKING_TOKEN is not UTF-8");
    }

    #[test]
    fn what_answers_mean() {
        let exists = r#"{"error_code": "RESOURCE_ALREADY_EXISTS", "message": "It exists\nmore"}"#;
        for (status, text, kind, words) in [
            (400, exists, RequestFailureKind::Content, "(status 400: It exists)"),
            (404, exists, RequestFailureKind::Lasting, "status 404"),
            (405, "", RequestFailureKind::Lasting, "status 405"),
            (413, "", RequestFailureKind::Content, "status 413"),
            (404, "<html>", RequestFailureKind::ForAll, "not at this address"),
            (401, "You are not", RequestFailureKind::ForAll, "(status 401); the hint"),
            (403, "", RequestFailureKind::ForAll, "--allowed-hosts"),
            (429, "", RequestFailureKind::Busy, "status 429"),
            (503, "", RequestFailureKind::Busy, "status 503"),
            (500, "{}", RequestFailureKind::Faulty, "status 500"),
            (507, "{}", RequestFailureKind::Faulty, "status 507"),
            (200, "<html>", RequestFailureKind::ForAll, "not that of MLflow"),
        ] {
            let failure = read_answer(status, text, false, "the hint").expect_err("a failure");
            assert_eq!(failure.kind, kind, "{status} {text}: {failure:?}");
            assert!(failure.reason.contains(words), "{failure:?}");
        }
        assert_eq!(
            read_answer(400, exists, false, "").expect_err("").code,
            "RESOURCE_ALREADY_EXISTS"
        );
        assert!(
            read_answer(200, "", false, "").is_ok() && read_answer(200, "{}", false, "").is_ok()
        );
    }
}
