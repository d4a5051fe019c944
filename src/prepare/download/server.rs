//! For tests: an HTTP/1.1 server on this machine with scripted replies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request of a client. Header names are in lower case.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Request {
    /// The first byte that the client requests, if it requests a range.
    pub(super) fn range_start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A reply of the server.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
    then: Then,
}

/// What the server does after the bytes of a reply.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Silence(Duration),
    /// The rest, a byte at a time with this pause before each.
    Trickle(Duration),
}

impl Reply {
    /// A response with all of its body.
    pub(super) fn new(status: u16, body: &[u8]) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            sent: body.len(),
            then: Then::Close,
        }
    }

    /// The rest of a file from `start`, as a server with ranges sends it.
    pub(super) fn rest(file: &[u8], start: usize) -> Self {
        let last = file.len() - 1;
        Self::new(206, &file[start..])
            .header("Content-Range", format!("bytes {start}-{last}/{}", file.len()))
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Announces the whole body, but sends only its start.
    pub(super) fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = bytes;
        self
    }

    /// Goes silent after the bytes, with the connection open.
    pub(super) fn then_silent(mut self, time: Duration) -> Self {
        self.then = Then::Silence(time);
        self
    }

    /// Sends the rest a byte at a time.
    pub(super) fn then_trickle(mut self, pause: Duration) -> Self {
        self.then = Then::Trickle(pause);
        self
    }

    fn write(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", self.status);
        if !self.headers.iter().any(|(name, _)| *name == "Transfer-Encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        stream.write_all(&self.body[..self.sent])?;
        stream.flush()?;
        match self.then {
            Then::Close => Ok(()),
            Then::Silence(time) => {
                std::thread::sleep(time);
                Ok(())
            }
            Then::Trickle(pause) => self.body[self.sent..].iter().try_for_each(|byte| {
                std::thread::sleep(pause);
                stream.write_all(&[*byte])
            }),
        }
    }
}

/// A server that runs until the test process ends.
pub(super) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts a server; `answer` gets each request with the number of those before it.
    pub(super) fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    let number = {
                        let mut log = log.lock().expect("no panic");
                        log.push(request.clone());
                        log.len() - 1
                    };
                    // A closed connection is not a failure of the server.
                    let _ = answer(number, &request).write(&stream);
                });
            }
        });
        Self { port, requests }
    }

    /// The URL of a path on this server.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Request { path, headers })
}
