//! One HTTP request on a thread of its own, so that a stalled server can keep neither Ctrl-C nor the
//! stall time-out from taking effect.
//!
//! Knows no files.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use pipeline_stages::worker::Context;
use ureq::Agent;
use ureq::http::HeaderMap;

use super::retry::Failure;

/// Bytes per message.
const CHUNK: usize = 64 << 10;

/// Messages that may wait for the disk: at most a megabyte.
const WAITING: usize = 16;

/// How often a request to stop is looked for.
const POLL: Duration = Duration::from_millis(50);

/// What comes before the body of a response.
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where it says that the file is instead. Like curl, whatever the status in the 300s.
    pub(super) fn redirect(&self) -> Option<&[u8]> {
        let elsewhere = matches!(self.status, 300..=303 | 305..=399);
        self.headers.get("location").filter(|_| elsewhere).map(|location| location.as_bytes())
    }
}

enum Message {
    Head(Box<Head>),
    Bytes(Vec<u8>),
    End,
    Failed(ureq::Error),
}

/// A response as it comes in.
pub(super) struct Stream {
    messages: Receiver<Message>,
    stall: Duration,
}

impl Stream {
    /// Sends a request. The thread behind it ends by itself when the stream is dropped.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(
        agent: &Agent,
        url: String,
        headers: Vec<(&'static str, String)>,
        stall: Duration,
    ) -> Result<Self, Failure> {
        let (sender, messages) = sync_channel(WAITING);
        let agent = agent.clone();
        let request = move || {
            let last = receive(&agent, &url, headers, &sender).err().unwrap_or(Message::End);
            // An error says that nobody listens any more.
            let _ = sender.send(last);
        };
        match std::thread::Builder::new().name("download".into()).spawn(request) {
            Ok(_detached) => Ok(Self { messages, stall }),
            Err(error) => {
                Err(Failure::Ours(anyhow::Error::new(error).context("can't start a thread")))
            }
        }
    }

    /// What comes before the body.
    ///
    /// # Errors
    /// When nothing comes.
    pub(super) fn head(&self, context: &Context) -> Result<Head, Failure> {
        match self.next(context)? {
            Message::Head(head) => Ok(*head),
            Message::Failed(error) => Err(describe(error)),
            Message::Bytes(_) | Message::End => Err(Failure::passing("the connection broke off")),
        }
    }

    /// The next bytes of the body, or `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks off or stalls; when the stage is asked to stop.
    pub(super) fn bytes(&self, context: &Context) -> Result<Option<Vec<u8>>, Failure> {
        match self.next(context)? {
            Message::Bytes(bytes) => Ok(Some(bytes)),
            Message::Failed(error) => Err(describe(error)),
            Message::Head(_) | Message::End => Ok(None),
        }
    }

    fn next(&self, context: &Context) -> Result<Message, Failure> {
        let started = Instant::now();
        loop {
            context.stop_point()?;
            match self.messages.recv_timeout(POLL.min(self.stall)) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::passing("the connection broke off"));
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() >= self.stall => {
                    let seconds = self.stall.as_secs();
                    return Err(Failure::passing(format!("no byte came for {seconds} s")));
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
    headers: Vec<(&'static str, String)>,
    sender: &SyncSender<Message>,
) -> Result<(), Message> {
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.call().map_err(Message::Failed)?;
    let (parts, body) = response.into_parts();
    let head = Head { status: parts.status.as_u16(), headers: parts.headers };
    sender.send(Message::Head(Box::new(head))).map_err(|_| Message::End)?;
    let mut reader = body.into_reader();
    loop {
        let mut bytes = vec![0; CHUNK];
        let read = reader.read(&mut bytes).map_err(|error| Message::Failed(error.into()))?;
        if read == 0 {
            return Ok(());
        }
        bytes.truncate(read);
        sender.send(Message::Bytes(bytes)).map_err(|_| Message::End)?;
    }
}

fn describe(error: ureq::Error) -> Failure {
    use std::io::ErrorKind;
    match error {
        // A certificate that is not good: it will not get better.
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            Failure::lasting(format!("no secure connection: {error}"))
        }
        ureq::Error::Io(error) => Failure::passing(format!("the connection failed: {error}")),
        ureq::Error::Timeout(what) => {
            Failure::passing(format!("the connection timed out ({what})"))
        }
        ureq::Error::HostNotFound => Failure::passing("there is no such host, or no network"),
        error @ (ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_)
        | ureq::Error::BodyStalled
        | ureq::Error::ConnectProxyFailed(_)) => Failure::passing(error.to_string()),
        error => Failure::lasting(error.to_string()),
    }
}
