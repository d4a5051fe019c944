//! The protocol SFTP, version 3 (draft-ietf-secsh-filexfer-02), with the extensions of OpenSSH for links and flushing.

use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::super::transport::SILENCE;
use super::broken::{Broken, Problem};
use super::in_time::InTime;
use super::packet::{self, Attributes, Fields, HAS_MODE, Packet, Reply, is_end, status};
use crate::remote_address::SshAddress;

/// The most bytes of a packet, and of a part of a file in one.
const MOST_PACKET_BYTES: u32 = 1 << 20;
const PART_BYTES: usize = 32 << 10;

/// How long `ssh` may take to say why it has ended, and to connect, with an agent that asks somebody.
const PATIENCE: Duration = Duration::from_secs(2);
const GREETING: Duration = Duration::from_secs(60);
/// How long the server may take to flush a file of no size, which can wait for others, and the slowest that it may flush one, in bytes a second.
const FLUSHING: Duration = Duration::from_secs(60);
const SLOWEST_DISK: u64 = 8 << 20;

/// The most that is kept of what `ssh` says.
const MOST_WORDS: u64 = 64 << 10;

const VERSION: u32 = 3;
const HARDLINK: &str = "hardlink@openssh.com";
const FSYNC: &str = "fsync@openssh.com";

/// A connection to a server.
pub(super) struct Sftp {
    /// The program that connects. `None` where its place is taken by replies that are known.
    child: Option<Child>,
    /// Its end lets the thread end that has started it.
    _in_use: Sender<()>,
    to: Option<BufWriter<InTime>>,
    from: BufReader<InTime>,
    /// How long an answer may take.
    longest: Duration,
    /// All that `ssh` has said, once it has ended.
    said: Receiver<String>,
    /// Of several connections of this process, which one it is.
    number: u64,
    next: u32,
    extensions: Vec<String>,
}

/// An open file or folder of the server, on one connection.
#[derive(Debug)]
pub(super) struct Handle {
    connection: u64,
    name: Vec<u8>,
}

/// Something in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedEntry {
    pub(super) name: String,
    pub(super) is_folder: bool,
    pub(super) bytes: u64,
}

impl Sftp {
    /// Connects to the host of an address by a program that is called as `ssh` is.
    pub(super) fn connect(program: &OsStr, address: &SshAddress) -> Result<Self, Broken> {
        let mut command = Command::new(program);
        // Nobody is there who could answer a question.
        command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
        command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        command.args([
            "-o",
            "ForwardX11=no",
            "-o",
            "ForwardAgent=no",
            "-o",
            "ClearAllForwardings=yes",
        ]);
        if let Some(port) = address.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &address.user {
            command.args(["-l", user]);
        }
        command.args(["-s", "--", &address.host, "sftp"]);
        Self::start(command, GREETING)
    }

    /// Starts what connects, and may take so long for that.
    pub(super) fn start(mut command: Command, longest: Duration) -> Result<Self, Broken> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let unreachable = Broken::Unreachable;
        let cannot = |error: io::Error| unreachable(format!("ssh does not start: {error}"));
        end_with_thread(&mut command);
        let ((starter, started), (sender, said)) = (channel(), channel());
        let (in_use, used) = channel::<()>();
        let listen = move || {
            let mut child = command.spawn();
            let words = child.as_mut().ok().and_then(|child| child.stderr.take());
            let _ = starter.send(child);
            let Some(words) = words else { return };
            let mut words = BufReader::new(words);
            let mut text = Vec::new();
            let _ = words.by_ref().take(MOST_WORDS).read_to_end(&mut text);
            let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
            // It must not wait for somebody to read the rest.
            let _ = io::copy(&mut words, &mut io::sink());
            let _ = used.recv();
        };
        let thread = std::thread::Builder::new().name("ssh".to_owned()).spawn(listen);
        thread.map_err(|error| unreachable(format!("cannot start a thread: {error}")))?;
        let started = started.recv().map_err(io::Error::other).flatten();
        let mut child = started.map_err(cannot)?;
        let missing = || unreachable("ssh does not have a standard output".to_owned());
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = child.stdout.take().ok_or_else(missing)?;
        let sftp = Self::over(Some(child), in_use, to, from, longest, said);
        let mut sftp = sftp.map_err(cannot)?;
        match sftp.greet() {
            Ok(()) => Ok(sftp),
            Err(Broken::Connection(why)) => Err(unreachable(sftp.last_words(&why))),
            Err(other) => Err(other),
        }
    }

    /// A connection of which nothing was heard yet, over these ends of a program.
    fn over(
        child: Option<Child>,
        in_use: Sender<()>,
        to: impl Into<OwnedFd>,
        from: impl Into<OwnedFd>,
        longest: Duration,
        said: Receiver<String>,
    ) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            child,
            _in_use: in_use,
            to: Some(BufWriter::with_capacity(1 << 18, InTime::told(to)?)),
            from: BufReader::with_capacity(1 << 18, InTime::said(from)),
            longest,
            said,
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            next: 0,
            extensions: Vec::new(),
        })
    }

    fn greet(&mut self) -> Result<(), Broken> {
        let sent =
            self.send(Packet(vec![packet::INIT]).number(VERSION)).and_then(|()| self.flush());
        // Whatever has ended without reading may have said why.
        let bytes = self.packet()?;
        sent?;
        let mut fields = Fields(&bytes);
        if fields.take(1)? != [packet::VERSION] || fields.number()? < VERSION {
            return Err(Broken::useless("it does not speak SFTP 3"));
        }
        while !fields.0.is_empty() {
            let (name, _) = (fields.text()?, fields.bytes()?);
            self.extensions.push(name);
        }
        self.longest = SILENCE;
        Ok(())
    }

    /// Why a connection is of no use any more, with the last line that `ssh` said.
    pub(super) fn last_words(mut self, why: &io::Error) -> String {
        self.to = None;
        let began = Instant::now();
        while why.kind() != io::ErrorKind::TimedOut
            && began.elapsed() < PATIENCE
            && self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end();
        // What it started may still hold the other end.
        why_lost(why, &self.said.recv_timeout(PATIENCE).unwrap_or_default())
    }

    /// Ends the program that connects.
    fn end(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn send(&mut self, packet: Packet) -> Result<(), Broken> {
        let closed = || Broken::useless("it is closed");
        let to = self.to.as_mut().ok_or_else(closed)?;
        to.get_mut().allow(SILENCE);
        to.write_all(&(packet.0.len() as u32).to_be_bytes())?;
        Ok(to.write_all(&packet.0)?)
    }

    fn flush(&mut self) -> Result<(), Broken> {
        Ok(self.to.as_mut().map_or(Ok(()), Write::flush)?)
    }

    fn packet(&mut self) -> Result<Vec<u8>, Broken> {
        let mut length = [0; 4];
        self.from.get_mut().allow(self.longest);
        self.from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if !(1..=MOST_PACKET_BYTES).contains(&length) {
            return Err(Broken::useless("it does not speak SFTP"));
        }
        let mut bytes = vec![0; length as usize];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn reply(&mut self) -> Result<Reply, Broken> {
        let bytes = self.packet()?;
        let mut fields = Fields(&bytes);
        let kind = fields.take(1)?[0];
        let id = fields.number()?;
        Ok(Reply { kind, id, body: fields.0.to_vec() })
    }

    fn id(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Sends a request, and returns the body of the answer, which must be of this type.
    fn ask(
        &mut self,
        kind: u8,
        fields: impl FnOnce(Packet) -> Packet,
        expected: u8,
    ) -> Result<Vec<u8>, Broken> {
        let id = self.id();
        self.send(fields(Packet::new(kind, id)))?;
        self.flush()?;
        let Reply { kind, id: of, body } = self.reply()?;
        if of != id {
            return Err(Broken::other());
        }
        if kind == packet::STATUS {
            status(&body)?;
        }
        match kind == expected {
            true => Ok(body),
            false => Err(Broken::other()),
        }
    }

    fn handle(
        &mut self,
        kind: u8,
        fields: impl FnOnce(Packet) -> Packet,
    ) -> Result<Handle, Broken> {
        let body = self.ask(kind, fields, packet::HANDLE)?;
        Ok(Handle { connection: self.number, name: Fields(&body).bytes()?.to_vec() })
    }

    fn own<'h>(&self, handle: &'h Handle) -> Result<&'h [u8], Broken> {
        match handle.connection == self.number {
            true => Ok(&handle.name),
            false => Err(Broken::Stale),
        }
    }

    /// Opens a file to read it.
    pub(super) fn open(&mut self, path: &str) -> Result<Handle, Broken> {
        self.handle(packet::OPEN, |packet| packet.text(path).number(packet::READ_ONLY).number(0))
    }

    /// Makes a file that does not exist.
    pub(super) fn create(&mut self, path: &str) -> Result<Handle, Broken> {
        self.handle(packet::OPEN, |packet| packet.text(path).number(packet::WRITE_NEW).number(0))
    }

    pub(super) fn close(&mut self, handle: &Handle) -> Result<(), Broken> {
        let name = self.own(handle)?;
        self.ask(packet::CLOSE, |packet| packet.bytes(name), packet::STATUS).map(drop)
    }

    /// Reads at most so many bytes, rounded up to whole parts. None at the end.
    pub(super) fn read(
        &mut self,
        handle: &Handle,
        at: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, Broken> {
        let name = self.own(handle)?;
        let parts = bytes.div_ceil(PART_BYTES);
        let first = self.next.wrapping_add(1);
        for part in 0..parts {
            let (id, at) = (self.id(), at + (part * PART_BYTES) as u64);
            let packet = Packet::new(packet::READ, id).bytes(name).long(at);
            self.send(packet.number(PART_BYTES as u32))?;
        }
        self.flush()?;
        let mut found: Vec<Option<Vec<u8>>> = vec![None; parts];
        let mut refused = None;
        for _ in 0..parts {
            let Reply { kind, id, body } = self.reply()?;
            let place = found.get_mut(id.wrapping_sub(first) as usize).ok_or_else(Broken::other)?;
            match kind {
                packet::DATA => {
                    let part = Fields(&body).bytes()?;
                    if part.len() > PART_BYTES {
                        return Err(Broken::useless("it sends more than it was asked for"));
                    }
                    *place = Some(part.to_vec());
                }
                packet::STATUS if is_end(&body) => *place = Some(Vec::new()),
                packet::STATUS => refused = status(&body).err().or(refused),
                _ => return Err(Broken::other()),
            }
        }
        let mut read = Vec::new();
        for part in found {
            let Some(part) = part else { break };
            let is_short = part.len() < PART_BYTES;
            read.extend(part);
            if is_short {
                break;
            }
        }
        match refused.filter(|_| read.is_empty()) {
            Some(broken) => Err(broken),
            None => Ok(read),
        }
    }

    /// Writes bytes at a place of a file.
    pub(super) fn write(&mut self, handle: &Handle, at: u64, bytes: &[u8]) -> Result<(), Broken> {
        let name = self.own(handle)?;
        let mut sent = 0;
        for (part, bytes) in bytes.chunks(PART_BYTES).enumerate() {
            let (id, at) = (self.id(), at + (part * PART_BYTES) as u64);
            self.send(Packet::new(packet::WRITE, id).bytes(name).long(at).bytes(bytes))?;
            sent += 1;
        }
        self.flush()?;
        let mut done = Ok(());
        for _ in 0..sent {
            let Reply { kind: packet::STATUS, body, .. } = self.reply()? else {
                return Err(Broken::other());
            };
            done = done.and(status(&body));
        }
        done
    }

    /// Closes a file to which so many bytes were written, once it is on the disk, as far as the server can do that.
    pub(super) fn close_written(&mut self, handle: &Handle, bytes: u64) -> Result<(), Broken> {
        let name = self.own(handle)?;
        self.longest = FLUSHING + Duration::from_secs(bytes / SLOWEST_DISK);
        let fields = |packet: Packet| packet.text(FSYNC).bytes(name);
        let flushed = match self.has(FSYNC) {
            true => self.ask(packet::EXTENDED, fields, packet::STATUS).map(drop),
            false => Ok(()),
        };
        let closed = match flushed {
            // Nothing is asked of it any more.
            Err(Broken::Connection(_)) => flushed,
            _ => flushed.and(self.close(handle)),
        };
        self.longest = SILENCE;
        closed
    }

    fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|other| other == extension)
    }

    /// Gives a file another name, unless something has it.
    pub(super) fn link(&mut self, old: &str, new: &str) -> Result<(), Broken> {
        if self.has(HARDLINK) {
            let fields = |packet: Packet| packet.text(HARDLINK).text(old).text(new);
            match self.ask(packet::EXTENDED, fields, packet::STATUS) {
                // On that file system a file may have one name only, or the name is taken.
                Err(Broken::Refused(..)) => {}
                other => return other.map(drop),
            }
        }
        // Version 3 of the protocol does not replace what has the name.
        self.ask(packet::RENAME, |packet| packet.text(old).text(new), packet::STATUS).map(drop)
    }

    pub(super) fn remove(&mut self, path: &str) -> Result<(), Broken> {
        self.ask(packet::REMOVE, |packet| packet.text(path), packet::STATUS).map(drop)
    }

    fn attributes(&mut self, path: &str) -> Result<Attributes, Broken> {
        let body = self.ask(packet::STAT, |packet| packet.text(path), packet::ATTRS)?;
        Fields(&body).attributes()
    }

    /// How many bytes a file has.
    pub(super) fn stat(&mut self, path: &str) -> Result<u64, Broken> {
        self.attributes(path).map(|attributes| attributes.bytes)
    }

    /// Makes a folder below another one, and those between. A new one has the permissions of the one above it.
    pub(super) fn make_folders(&mut self, top: &str, folder: &str) -> Result<(), Broken> {
        match self.attributes(folder) {
            Err(Broken::Refused(Problem::Missing, _)) => {}
            other => return other.map(drop),
        }
        let above = folder.rsplit_once('/').map_or("", |(above, _)| above);
        if folder.len() > top.len() {
            self.make_folders(top, above)?;
        }
        let mode = self.attributes(above)?.mode & 0o7777;
        let fields = |packet: Packet| packet.text(folder).number(HAS_MODE).number(mode);
        match self.ask(packet::MKDIR, fields, packet::STATUS) {
            Ok(_) => {
                // The umask of the server took some.
                let _ = self.ask(packet::SETSTAT, fields, packet::STATUS);
                Ok(())
            }
            // Somebody else was faster.
            Err(Broken::Refused(..)) => self.attributes(folder).map(drop),
            Err(broken) => Err(broken),
        }
    }

    /// What is in a folder.
    pub(super) fn list(&mut self, folder: &str) -> Result<Vec<ListedEntry>, Broken> {
        let handle = self.handle(packet::OPENDIR, |packet| packet.text(folder))?;
        let mut entries = Vec::new();
        loop {
            let id = self.id();
            self.send(Packet::new(packet::READDIR, id).bytes(&handle.name))?;
            self.flush()?;
            let Reply { kind, id: of, body } = self.reply()?;
            if of != id || !matches!(kind, packet::NAME | packet::STATUS) {
                return Err(Broken::other());
            }
            if kind != packet::NAME {
                let closed = self.close(&handle);
                return if is_end(&body) {
                    closed.map(|()| entries)
                } else {
                    status(&body).map(|()| entries)
                };
            }
            let mut fields = Fields(&body);
            let count = fields.number()?;
            // The end, as for OpenSSH's client: a server could go on like this for ever.
            if count == 0 {
                return self.close(&handle).map(|()| entries);
            }
            for _ in 0..count {
                let (name, _, attributes) = (fields.text()?, fields.bytes()?, fields.attributes()?);
                let is_folder = attributes.mode & packet::MODE_KIND == packet::MODE_FOLDER;
                if name != "." && name != ".." {
                    entries.push(ListedEntry { name, is_folder, bytes: attributes.bytes });
                }
            }
        }
    }
}

impl Drop for Sftp {
    fn drop(&mut self) {
        self.to = None;
        self.end();
    }
}

/// The program ends with the thread that starts it, and so with this process, however that ends: one that hangs while it connects does
/// not see that nobody is left.
#[cfg(target_os = "linux")]
fn end_with_thread(command: &mut Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    let ask = || Ok(set_parent_process_death_signal(Some(Signal::TERM))?);
    // SAFETY: between fork and exec, this is one system call, which takes only numbers.
    unsafe { command.pre_exec(ask) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_thread(_command: &mut Command) {}

/// Why a connection was lost, where `ssh` has said this. One that was given up has not ended: what was said before that is not why.
fn why_lost(why: &io::Error, said: &str) -> String {
    match (said.lines().map(str::trim).rfind(|line| !line.is_empty()), why.kind()) {
        (Some(last), io::ErrorKind::TimedOut) => format!("{why}; ssh has said: {last}"),
        (Some(last), _) => last.to_owned(),
        (None, _) => why.to_string(),
    }
}

#[cfg(any(test, feature = "fuzzing"))]
mod fuzz {
    use std::fs::File;

    use super::*;

    impl Sftp {
        /// A connection to a server that has said all this already, whatever it is asked.
        pub(in crate::remote::ssh) fn with_replies(replies: File) -> Result<Self, Broken> {
            let nowhere = File::options().write(true).open("/dev/null")?;
            let ((in_use, _), (_, said)) = (channel(), channel());
            let mut sftp = Self::over(None, in_use, nowhere, replies, SILENCE, said)?;
            sftp.greet().map(|()| sftp)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_said_to_hang_for_how_long_and_not_to_be_a_banner() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo Welcome to the lab >&2; exec sleep 600"]);
        let Err(Broken::Unreachable(why)) = Sftp::start(command, Duration::from_secs(1)) else {
            panic!("it does not answer")
        };
        assert!(why.starts_with("no answer in 1 s"), "{why}");
        let late = io::Error::new(io::ErrorKind::TimedOut, "no answer in 20 s");
        let words = "no answer in 20 s; ssh has said: Welcome to the lab";
        assert_eq!(why_lost(&late, "\r\nWelcome to the lab\r\n\r\n"), words);
        assert_eq!(why_lost(&late, "\n"), "no answer in 20 s");
        let ended = io::Error::other("it ended");
        assert_eq!(why_lost(&ended, "Welcome\nPermission denied\n"), "Permission denied");
        assert_eq!(why_lost(&ended, ""), "it ended");
    }
}
