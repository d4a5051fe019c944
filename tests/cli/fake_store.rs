//! A server before a real folder of results, which answers some requests in another way: as an object store or a server on the web.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Running, Sandbox};

/// An experiment of two stages.
pub const PAPER: &str = r#"
[experiment]
name = "paper"

[stages.data]
kind = "command"
shell = 'seq 1 60000 > "$PIPELINE_OUTPUT/numbers"'

[stages.count]
kind = "command"
shell = 'wc -l < "$PIPELINE_INPUT_DATA/numbers" > "$PIPELINE_OUTPUT/count"'
inputs = { data = "data" }
"#;

/// How a request is answered.
pub enum Answer {
    /// As an object store does, or a server on the web that takes files.
    Plain,
    /// As Apache takes files by WebDAV: into folders that were made, and moved to whole addresses.
    WebDav,
    Status(u16, &'static str),
    /// The content is at this address.
    Elsewhere(String),
    /// With the content, also where a part is asked for, if it does not know `parts`; of which so many bytes arrive.
    Broken {
        parts: bool,
        after: usize,
    },
    /// Not now, but after so many seconds.
    Later(&'static str),
    /// With half of what is sent in its place, and no answer.
    Half,
    /// Not at all.
    Never,
    /// Not at all: the connection ends.
    Gone,
}

pub struct Request {
    pub method: String,
    /// The name below the bucket.
    pub name: String,
    pub query: String,
    /// Who asks.
    pub login: Option<String>,
    /// Where a file is moved.
    pub destination: Option<String>,
}

/// A store in a folder, which answers some requests in another way.
pub struct Store {
    pub folder: TempDir,
    port: u16,
}

impl Store {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (top, answer) = (folder.path().to_owned(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (top, answer) = (top.clone(), Arc::clone(&answer));
                // Whoever leaves ends the connection.
                std::thread::spawn(move || drop(serve(&stream, &top, &*answer)));
            }
        });
        Self { folder, port }
    }

    /// Its address on the web.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/lab", self.port)
    }

    /// Somebody who uses it by this address on the web, with a token.
    pub fn reader_of(address: String) -> Sandbox {
        Sandbox::new(PAPER).set("PIPELINE_REMOTE", address).set("PIPELINE_TOKEN_127_0_0_1", "t0ken")
    }

    /// The same, by its own address.
    pub fn reader(&self) -> Sandbox {
        Self::reader_of(self.address())
    }

    /// Somebody who uses it as an object store.
    pub fn user(&self) -> Sandbox {
        self.visitor().set("AWS_ACCESS_KEY_ID", "ann").set("AWS_SECRET_ACCESS_KEY", "s3cret")
    }

    /// The same, without credentials.
    pub fn visitor(&self) -> Sandbox {
        let address = format!("s3://lab?endpoint=http://127.0.0.1:{}", self.port);
        Sandbox::new(PAPER).set("PIPELINE_REMOTE", address)
    }

    /// Puts the results of the experiment into it, past the server.
    pub fn fill(&self) {
        let ann = Sandbox::new(PAPER)
            .set("PIPELINE_REMOTE", format!("file://{}", self.folder.path().display()));
        ann.pipeline("run experiment.toml").success();
        ann.pipeline("push experiment.toml").success();
    }
}

fn serve(
    stream: &TcpStream,
    top: &Path,
    answer: &dyn Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut length, mut from, mut login, mut destination) = (0, 0, None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let value = line.split_once(": ").map(|(_, value)| value.trim_end().to_owned());
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a number");
        }
        if line.starts_with("authorization: ") {
            login = value;
        } else if line.starts_with("destination: ") {
            destination = value;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            from = value.trim_end_matches('-').parse().expect("a number");
        }
    }
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let name = path.strip_prefix("/lab/").unwrap_or_default().to_owned();
    let request = Request { method, name, query: query.to_owned(), login, destination };
    let file: PathBuf = top.join(&request.name);
    let body: Vec<u8>;
    let (mut header, mut most) = (String::new(), usize::MAX);
    let status = match answer(&request) {
        Answer::Never => {
            // Until the other side leaves.
            while reader.read(&mut [0; 4096])? > 0 {}
            return Ok(());
        }
        Answer::Gone => return Ok(()),
        Answer::Later(seconds) => {
            header = format!("retry-after: {seconds}\r\n");
            body = Vec::new();
            429
        }
        Answer::Half => {
            let mut content = Vec::new();
            reader.take(length).read_to_end(&mut content)?;
            fs::create_dir_all(file.parent().expect("a folder"))?;
            return fs::write(&file, &content[..content.len() / 2]);
        }
        Answer::Status(status, text) => {
            std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
            body = text.as_bytes().to_vec();
            status
        }
        Answer::Elsewhere(address) => {
            header = format!("location: {address}\r\n");
            body = b"it is elsewhere".to_vec();
            302
        }
        Answer::Broken { parts, after } => {
            let content = fs::read(&file)?;
            let from = if parts { from } else { 0 };
            body = content[from..].to_vec();
            most = after;
            if from == 0 { 200 } else { 206 }
        }
        Answer::WebDav if !matches!(request.method.as_str(), "GET" | "HEAD") => {
            let mut content = Vec::new();
            reader.take(length).read_to_end(&mut content)?;
            body = Vec::new();
            web_dav(top, &request, &content)?
        }
        Answer::Plain if matches!(request.method.as_str(), "MOVE" | "MKCOL") => {
            body = Vec::new();
            405
        }
        Answer::Plain if request.method == "PUT" => {
            let mut content = Vec::new();
            reader.take(length).read_to_end(&mut content)?;
            body = Vec::new();
            fs::create_dir_all(file.parent().expect("a folder"))?;
            match fs::OpenOptions::new().write(true).create_new(true).open(&file) {
                Ok(mut file) => file.write_all(&content).map(|()| 200)?,
                Err(_) => 412,
            }
        }
        Answer::Plain | Answer::WebDav => match fs::read(&file) {
            Ok(content) => {
                body = content[from..].to_vec();
                if from == 0 { 200 } else { 206 }
            }
            Err(_) => {
                body = b"<Error><Code>NoSuchKey</Code></Error>".to_vec();
                404
            }
        },
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n{header}connection: close\r\n\r\n",
        body.len()
    )?;
    if request.method != "HEAD" {
        stream.write_all(&body[..most.min(body.len())])?;
    }
    Ok(())
}

/// What Apache does with what it is sent, and its status.
fn web_dav(top: &Path, request: &Request, content: &[u8]) -> std::io::Result<u16> {
    let file = top.join(&request.name);
    let has_folder = file.parent().is_some_and(Path::exists);
    Ok(match request.method.as_str() {
        "MKCOL" if file.exists() => 405,
        "MKCOL" if has_folder => fs::create_dir(&file).map(|()| 201)?,
        "PUT" if has_folder => fs::write(&file, content).map(|()| 201)?,
        "MKCOL" | "PUT" => 409,
        "DELETE" => fs::remove_file(&file).map(|()| 204)?,
        _ if !file.exists() => 404,
        _ => {
            let address = request.destination.as_deref().unwrap_or_default();
            let to = address.strip_prefix("http://").and_then(|whole| whole.split_once("/lab/"));
            match to.map(|(_, name)| top.join(name)) {
                None => 400,
                Some(to) if to.exists() => 412,
                Some(to) => fs::rename(&file, to).map(|()| 201)?,
            }
        }
    })
}

/// Asks a run to stop, which ends soon.
pub fn ends_soon(running: Running, signal: Signal) -> String {
    let began = Instant::now();
    running.signal(signal);
    let ended = running.wait();
    let taken = began.elapsed();
    assert!(taken < Duration::from_secs(8), "it took {taken:?}: {ended}");
    ended.stderr
}
