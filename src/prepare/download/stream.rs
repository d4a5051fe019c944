//! One HTTP request on a thread of its own, so that a stalled server can delay neither Ctrl-C nor the
//! time-out.
//!
//! Does not depend on files.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use pipeline_stages::worker::Context;
use ureq::Agent;
use ureq::http::HeaderMap;

use super::retry::DownloadFailure;
use crate::proxy::EnvProxy;

/// Bytes per message.
const CHUNK: usize = 64 << 10;

/// Messages that can wait for the disk: at most a megabyte.
const WAITING: usize = 16;

/// How often a request to stop is checked for.
const POLL: Duration = Duration::from_millis(50);

/// The status and headers of a response.
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The target of a redirect. Like curl, for any status in the 300s.
    pub(super) fn redirect(&self) -> Option<&[u8]> {
        let elsewhere = matches!(self.status, 300..=303 | 305..=399);
        self.headers.get("location").filter(|_| elsewhere).map(|location| location.as_bytes())
    }
}

enum StreamMessage {
    Head(Box<Head>),
    Bytes(Vec<u8>),
    End,
    Failed(ureq::Error),
}

/// A response while it arrives.
pub(super) struct Stream {
    messages: Receiver<StreamMessage>,
    stall: Duration,
    proxy: Option<EnvProxy>,
}

impl Stream {
    /// Sends a request. The thread behind it ends by itself when the stream is dropped.
    pub(super) fn start(
        agent: &Agent,
        url: String,
        proxy: Option<EnvProxy>,
        headers: Vec<(&'static str, String)>,
        stall: Duration,
    ) -> Result<Self, DownloadFailure> {
        let (sender, messages) = sync_channel(WAITING);
        let (agent, through) = (agent.clone(), proxy.clone());
        let request = move || {
            let last = receive(&agent, &url, through, headers, &sender)
                .err()
                .unwrap_or(StreamMessage::End);
            // An error means that the stream was dropped.
            let _ = sender.send(last);
        };
        match std::thread::Builder::new().name("download".into()).spawn(request) {
            Ok(_detached) => Ok(Self { messages, stall, proxy }),
            Err(error) => Err(DownloadFailure::Ours(
                anyhow::Error::new(error).context("cannot start a thread"),
            )),
        }
    }

    /// The status and headers.
    pub(super) fn head(&self, context: &Context) -> Result<Head, DownloadFailure> {
        let through = match &self.proxy {
            Some(proxy) => format!(" through the proxy {}", proxy.address()),
            None => String::new(),
        };
        match self.next(context, &format!("no complete response header{through}"))? {
            StreamMessage::Head(head) => Ok(*head),
            StreamMessage::Failed(error) => Err(self.describe_start(error)),
            StreamMessage::Bytes(_) | StreamMessage::End => {
                Err(DownloadFailure::passing("the connection was closed"))
            }
        }
    }

    /// What a failure before the response means.
    fn describe_start(&self, error: ureq::Error) -> DownloadFailure {
        match self.proxy.as_ref().and_then(|proxy| proxy.failure(&error)) {
            Some(failure) if failure.is_lasting => DownloadFailure::lasting(failure.reason),
            Some(failure) => DownloadFailure::passing(failure.reason),
            None => describe(error),
        }
    }

    /// The next bytes of the body, or `None` at its end.
    ///
    /// # Errors
    /// When the connection is closed or stalls; when the stage is asked to stop.
    pub(super) fn bytes(&self, context: &Context) -> Result<Option<Vec<u8>>, DownloadFailure> {
        match self.next(context, "no data received")? {
            StreamMessage::Bytes(bytes) => Ok(Some(bytes)),
            StreamMessage::Failed(error) => Err(describe(error)),
            StreamMessage::Head(_) | StreamMessage::End => Ok(None),
        }
    }

    /// What comes next. `missing`: the failure if it does not come in time.
    fn next(&self, context: &Context, missing: &str) -> Result<StreamMessage, DownloadFailure> {
        let started = Instant::now();
        loop {
            context.stop_point()?;
            match self.messages.recv_timeout(POLL.min(self.stall)) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(DownloadFailure::passing("the connection was closed"));
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() >= self.stall => {
                    let seconds = self.stall.as_secs();
                    return Err(DownloadFailure::passing(format!("{missing} for {seconds} s")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Sends everything but the last message, which it returns if it is a failure.
fn receive(
    agent: &Agent,
    url: &str,
    proxy: Option<EnvProxy>,
    headers: Vec<(&'static str, String)>,
    sender: &SyncSender<StreamMessage>,
) -> Result<(), StreamMessage> {
    let mut request = agent.get(url).config().proxy(proxy.map(|proxy| proxy.proxy())).build();
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.call().map_err(StreamMessage::Failed)?;
    let (parts, body) = response.into_parts();
    let head = Head { status: parts.status.as_u16(), headers: parts.headers };
    sender.send(StreamMessage::Head(Box::new(head))).map_err(|_| StreamMessage::End)?;
    let mut reader = body.into_reader();
    loop {
        let mut bytes = vec![0; CHUNK];
        let read = reader.read(&mut bytes).map_err(|error| StreamMessage::Failed(error.into()))?;
        if read == 0 {
            return Ok(());
        }
        bytes.truncate(read);
        sender.send(StreamMessage::Bytes(bytes)).map_err(|_| StreamMessage::End)?;
    }
}

fn describe(error: ureq::Error) -> DownloadFailure {
    use std::io::ErrorKind;
    match error {
        // An invalid certificate: another try does not help.
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            DownloadFailure::lasting(format!("no secure connection: {error}"))
        }
        ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DownloadFailure::passing("the server closed the connection too early")
        }
        ureq::Error::Io(error) => {
            DownloadFailure::passing(format!("the connection failed: {error}"))
        }
        ureq::Error::Timeout(what) => {
            DownloadFailure::passing(format!("the connection timed out ({what})"))
        }
        ureq::Error::HostNotFound => {
            DownloadFailure::passing("the host was not found, or the network is not available")
        }
        ureq::Error::ConnectionFailed => DownloadFailure::passing("the connection failed"),
        ureq::Error::Protocol(_) => DownloadFailure::passing(
            "the response cannot be read: it is not valid HTTP/1.1, or has too many headers",
        ),
        ureq::Error::BodyStalled => DownloadFailure::passing("the response does not continue"),
        ureq::Error::LargeResponseHeader(_, most) => DownloadFailure::lasting(format!(
            "the headers of the response have more than {most} bytes"
        )),
        ureq::Error::Http(_) => {
            DownloadFailure::lasting("the request cannot be sent: its URL or a header is not valid")
        }
        error => DownloadFailure::lasting(error.to_string()),
    }
}
