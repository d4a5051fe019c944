//! `ssh://host/path`: a folder of another machine, through the system's `ssh`: keys, agents, jump hosts and `~/.ssh/config` are its
//! business.
//!
//! One connection with the subsystem `sftp` serves all threads; a request of one of them does not wait for a file of another. A
//! content gets its name in one step: by another name of the same file, which the server refuses where the name is taken.

mod broken;
mod in_time;
mod packet;
mod sftp;

use std::ffi::OsString;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::name::{NEW, Name, new_name};
use super::transport::{Content, ContentTotals, Put, Remote, RemoteFailure};
use crate::remote_address::SshAddress;
use broken::{Broken, Problem};
use sftp::{Handle, Sftp};

/// How much is read or written before another thread has its turn.
const TURN_BYTES: usize = 1 << 20;

/// The environment variable that names another program in place of `ssh`: for tests.
const PROGRAM: &str = "PIPELINE_SSH";

/// A folder of another machine.
pub(super) struct Ssh {
    address: SshAddress,
    program: OsString,
    line: Mutex<Line>,
}

/// What leads to the other machine.
#[derive(Default)]
struct Line {
    connection: Option<Sftp>,
    /// When the last try to connect failed, or a request had no answer in time, and why.
    failed: Option<(Instant, String)>,
}

impl Ssh {
    /// The folder of an address. No connection is made yet.
    pub(super) fn new(address: SshAddress) -> Self {
        let program = std::env::var_os(PROGRAM).filter(|name| !name.is_empty());
        let program = program.unwrap_or_else(|| "ssh".into());
        Self { address, program, line: Mutex::default() }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.address.path.trim_end_matches('/'))
    }

    /// Does something with the connection, which is made where there is none.
    fn with<T>(&self, act: impl FnOnce(&mut Sftp) -> Result<T, Broken>) -> Result<T, Broken> {
        self.with_since(Instant::now(), act)
    }

    /// The same for somebody who waits since then: what failed for somebody else meanwhile has failed for them, too.
    fn with_since<T>(
        &self,
        since: Instant,
        act: impl FnOnce(&mut Sftp) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sftp = match (line.connection.take(), &line.failed) {
            (Some(sftp), _) => sftp,
            (None, Some((failed, why))) if *failed >= since => {
                return Err(Broken::Unreachable(why.clone()));
            }
            (None, _) => Sftp::connect(&self.program, &self.address).inspect_err(|broken| {
                if let Broken::Unreachable(why) = broken {
                    line.failed = Some((Instant::now(), why.clone()));
                }
            })?,
        };
        let done = act(&mut sftp);
        match done {
            // What is left in it belongs to nobody.
            Err(Broken::Connection(why)) => {
                let words = sftp.last_words(&why);
                if why.kind() != io::ErrorKind::TimedOut {
                    return Err(Broken::Connection(io::Error::other(words)));
                }
                // Who waits next would wait for as long.
                line.failed = Some((Instant::now(), words.clone()));
                Err(Broken::Unreachable(words))
            }
            done => {
                line.connection = Some(sftp);
                done
            }
        }
    }

    /// Closes a file, unless the connection was lost that has opened it.
    fn close(&self, handle: &Handle) {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let is_connected = line.connection.is_some();
        drop(line);
        if is_connected {
            let _ = self.with(|sftp| sftp.close(handle));
        }
    }

    /// The same, once more where a connection was lost that had worked.
    fn again<T>(&self, act: impl Fn(&Self) -> Result<T, Broken>) -> Result<T, RemoteFailure> {
        let done = match act(self) {
            Err(Broken::Connection(_) | Broken::Stale) => act(self),
            done => done,
        };
        done.map_err(|broken| self.failure(broken))
    }

    fn failure(&self, broken: Broken) -> RemoteFailure {
        let host = &self.address.host;
        match broken {
            Broken::Connection(error) => self.failure(Broken::Unreachable(error.to_string())),
            Broken::Unreachable(why) => {
                RemoteFailure::away(format!("the connection to {host} failed: {why}"))
            }
            Broken::Stale => {
                RemoteFailure::away(format!("the connection to {host} was lost meanwhile"))
            }
            Broken::Refused(Problem::Missing, _) => RemoteFailure::away(format!(
                "the folder {} of {host} does not exist: make it if it is a new one",
                self.address.path
            )),
            Broken::Refused(Problem::Denied, why) => {
                RemoteFailure::refused(format!("{host} does not allow it: {why}")).lasting()
            }
            Broken::Refused(Problem::Other, why) => {
                RemoteFailure::refused(format!("{host} refused it: {why}"))
            }
            Broken::Here(error) => {
                RemoteFailure::refused(format!("cannot read what is sent: {error}"))
            }
        }
    }

    /// `None` for what is missing, if the folder itself is there.
    fn optional<T>(&self, done: Result<T, Broken>) -> Result<Option<T>, Broken> {
        match done {
            Err(Broken::Refused(Problem::Missing, why)) => {
                let top = self.with(|sftp| sftp.stat(&self.address.path));
                top.map_err(|broken| match broken {
                    Broken::Refused(problem, _) => Broken::Refused(problem, why),
                    other => other,
                })?;
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    fn put_once(&self, name: &Name, content: &Content<'_>) -> Result<Put, Broken> {
        let (path, began) = (self.path(name.as_str()), Instant::now());
        let (folder, _) = path.rsplit_once('/').unwrap_or_default();
        // A share that is not mounted there is not made.
        self.with(|sftp| sftp.stat(&self.address.path))?;
        self.with(|sftp| sftp.make_folders(&self.address.path, folder))?;
        let new = format!("{folder}/{}", new_name());
        let put = self.write_as(&new, content).and_then(|()| {
            self.with(|sftp| match sftp.link(&new, &path) {
                Ok(()) => Ok(Put::New),
                Err(Broken::Connection(why)) => Err(Broken::Connection(why)),
                Err(broken) => match sftp.stat(&path) {
                    Ok(_) => Ok(Put::Existed),
                    Err(_) => Err(broken),
                },
            })
        });
        // Where nothing has answered meanwhile, it is left.
        let _ = self.with_since(began, |sftp| sftp.remove(&new));
        put
    }

    /// Writes a file that is flushed to the disk there, as far as the server can do that.
    fn write_as(&self, path: &str, content: &Content<'_>) -> Result<(), Broken> {
        let handle = self.with(|sftp| sftp.create(path))?;
        let write = || -> Result<(), Broken> {
            let (mut reader, mut at) = (content.reader(), 0);
            let mut block = vec![0; TURN_BYTES.min(content.bytes() as usize + 1)];
            loop {
                let count = fill(&mut reader, &mut block).map_err(Broken::Here)?;
                if count == 0 {
                    return Ok(());
                }
                self.with(|sftp| sftp.write(&handle, at, &block[..count]))?;
                at += count as u64;
            }
        };
        match write() {
            Ok(()) => self.with(|sftp| sftp.close_written(&handle, content.bytes())),
            broken => {
                self.close(&handle);
                broken
            }
        }
    }
}

/// Reads until the buffer is full, or there is no more.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

impl Remote for Ssh {
    fn get(
        &self,
        name: &Name,
        from: u64,
        _: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        let path = self.path(name.as_str());
        let handle = self.again(|ssh| ssh.optional(ssh.with(|sftp| sftp.open(&path))))?;
        Ok(handle.map(|handle| -> Box<dyn Read + '_> {
            Box::new(OpenFile { ssh: self, handle, at: from, block: Vec::new(), next: 0 })
        }))
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        self.again(|ssh| ssh.put_once(name, content))
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        let path = self.path(name.as_str());
        self.again(|ssh| ssh.optional(ssh.with(|sftp| sftp.stat(&path))))
    }

    fn count(&self, folder: &str) -> Result<ContentTotals, RemoteFailure> {
        let mut totals = ContentTotals::default();
        let mut open = vec![self.path(folder)];
        while let Some(folder) = open.pop() {
            let entries = self.again(|ssh| ssh.optional(ssh.with(|sftp| sftp.list(&folder))))?;
            for entry in entries.unwrap_or_default() {
                match entry.is_folder {
                    true => open.push(format!("{folder}/{}", entry.name)),
                    false if entry.name.starts_with(NEW) => {}
                    false => {
                        totals.count += 1;
                        // However much the server says.
                        totals.bytes = totals.bytes.saturating_add(entry.bytes);
                    }
                }
            }
        }
        Ok(totals)
    }
}

/// A file of the server that is read.
struct OpenFile<'s> {
    ssh: &'s Ssh,
    handle: Handle,
    /// Where the next block begins.
    at: u64,
    block: Vec<u8>,
    /// What of the block was not returned yet.
    next: usize,
}

impl Read for OpenFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.next == self.block.len() {
            let read = self.ssh.with(|sftp| sftp.read(&self.handle, self.at, TURN_BYTES));
            self.block = read.map_err(|broken| io::Error::other(self.ssh.failure(broken)))?;
            (self.next, self.at) = (0, self.at + self.block.len() as u64);
        }
        let count = (&self.block[self.next..]).read(buffer)?;
        self.next += count;
        Ok(count)
    }
}

impl Drop for OpenFile<'_> {
    fn drop(&mut self) {
        self.ssh.close(&self.handle);
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz {
    use std::fs::File;
    use std::time::Duration;

    use super::*;
    use crate::key::StageKey;

    /// Longer than a connection with known replies lasts.
    const LATER: Duration = Duration::from_secs(3600);

    impl Ssh {
        /// The folder `/srv` of a server that has said all this already, whatever it is asked. Nothing connects to it again.
        pub(super) fn with_replies(replies: File) -> Result<Self, Broken> {
            let (user, host, port) = (None, "lab".to_owned(), None);
            let ssh = Self::new(SshAddress { user, host, port, path: "/srv".to_owned() });
            let mut line = ssh.line.lock().unwrap_or_else(PoisonError::into_inner);
            line.connection = Some(Sftp::with_replies(replies)?);
            line.failed = Some((Instant::now() + LATER, "it has said everything".to_owned()));
            drop(line);
            Ok(ssh)
        }
    }

    /// Whether a server that answers with these replies, whatever it is asked, does all that a remote must do.
    pub(crate) fn are_replies(replies: File) -> bool {
        let said = replies.metadata().map_or(0, |metadata| metadata.len());
        let Ok(ssh) = Ssh::with_replies(replies) else { return false };
        let name = Name::version();
        let size = ssh.size(&name);
        let mut content = Vec::new();
        let read = ssh.get(&name, 0, 0).map(|reader| {
            reader.map(|mut reader| {
                reader.read_to_end(&mut content).map_err(|error| error.to_string())
            })
        });
        assert!(content.len() as u64 <= said);
        let put = ssh.put(&Name::record(&StageKey::of(&[])), &Content::Bytes(b"{}"));
        let count = ssh.count("records");
        assert!(count.as_ref().is_ok_and(|totals| totals.count <= said) || count.is_err());
        matches!((size, read, put, count), (Ok(Some(_)), Ok(Some(Ok(_))), Ok(_), Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn who_waits_for_a_connection_that_fails_for_somebody_else_does_not_try_it_again() {
        let (user, host, port) = (None, "lab".to_owned(), None);
        let mut ssh = Ssh::new(SshAddress { user, host, port, path: "/srv".to_owned() });
        let why = |done: Result<u64, Broken>| match done {
            Err(Broken::Unreachable(why)) => why,
            other => panic!("{other:?}"),
        };
        let since = Instant::now();
        ssh.program = "false".into();
        let first = why(ssh.with(|sftp| sftp.stat("/srv")));
        ssh.program = "/nowhere/ssh".into();
        assert_eq!(why(ssh.with_since(since, |sftp| sftp.stat("/srv"))), first);
        let later = why(ssh.with(|sftp| sftp.stat("/srv")));
        assert!(later.starts_with("ssh does not start"), "{later}");
    }

    /// A server that answers with these: the type of a packet, its id, and the rest.
    fn with_replies(replies: &[(u8, u32, Vec<u8>)]) -> Ssh {
        let mut file = tempfile::tempfile().expect("a file");
        for (kind, id, rest) in replies {
            let packet = [&[*kind][..], &id.to_be_bytes(), rest].concat();
            let length = u32::try_from(packet.len()).expect("small");
            file.write_all(&[&length.to_be_bytes()[..], &packet].concat()).expect("writable");
        }
        file.rewind().expect("a file");
        Ssh::with_replies(file).expect("it speaks SFTP")
    }

    fn number(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    fn text(text: &[u8]) -> Vec<u8> {
        [&number(u32::try_from(text.len()).expect("small"))[..], text].concat()
    }

    #[test]
    fn sizes_whose_sum_is_too_large_are_counted_all_the_same() {
        let has_size = number(1);
        let file = |name| [text(name), text(name), has_size.clone(), vec![0xff; 8]].concat();
        let ssh = with_replies(&[
            (2, 3, Vec::new()),
            (102, 1, text(b"handle")),
            (104, 2, [number(2), file(b"a"), file(b"b")].concat()),
            (101, 3, number(1)),
            (101, 4, number(0)),
        ]);
        assert_eq!(ssh.count("records"), Ok(ContentTotals { count: 2, bytes: u64::MAX }));
    }

    #[test]
    fn a_server_that_sends_more_than_it_was_asked_for_is_of_no_use() {
        let replies = |bytes| {
            let end = (3..34).map(|id| (101, id, number(1)));
            let begin = [(2, 3, Vec::new()), (102, 1, text(b"handle")), (103, 2, text(bytes))];
            let ssh = with_replies(&begin.into_iter().chain(end).collect::<Vec<_>>());
            let mut file = ssh.get(&Name::version(), 0, 0).expect("open").expect("a file");
            let mut first = vec![0; TURN_BYTES];
            file.read(&mut first).map_err(|error| error.to_string())
        };
        assert_eq!(replies(&[7; 32 << 10]), Ok(32 << 10));
        let error = replies(&[7; (32 << 10) + 1]).expect_err("too much");
        assert!(error.contains("it sends more than it was asked for"), "{error}");
    }

    #[test]
    fn what_does_not_say_whether_something_was_done_is_no_answer_to_that() {
        let (version, handle) = ((2, 3, Vec::new()), (102, 1, text(b"handle")));
        // A part of a file, of no bytes.
        let written = |kind| {
            let ssh = with_replies(&[version.clone(), handle.clone(), (kind, 2, number(0))]);
            ssh.with(|sftp| {
                let handle = sftp.create("a")?;
                sftp.write(&handle, 0, b"1")
            })
        };
        assert!(written(101).is_ok());
        assert!(matches!(written(103), Err(Broken::Connection(_))));
        let listed = |kind, id| {
            let ssh = with_replies(&[version.clone(), handle.clone(), (kind, id, number(0))]);
            ssh.with(|sftp| sftp.list("a"))
        };
        for (kind, id) in [(103, 2), (104, 3)] {
            let Err(Broken::Connection(why)) = listed(kind, id) else { panic!("{kind} {id}") };
            assert_eq!(why.to_string(), "it answers something else");
        }
    }

    #[test]
    fn a_part_of_a_list_with_nothing_in_it_is_its_end() {
        let ssh = with_replies(&[
            (2, 3, Vec::new()),
            (102, 1, text(b"handle")),
            (104, 2, number(0)),
            (101, 3, number(0)),
        ]);
        assert_eq!(ssh.count("records"), Ok(ContentTotals::default()));
    }

    #[test]
    fn what_has_no_answer_in_time_is_not_asked_again_by_those_who_wait() {
        let (user, host, port) = (None, "lab".to_owned(), None);
        let mut ssh = Ssh::new(SshAddress { user, host, port, path: "/srv".to_owned() });
        ssh.program = "/nowhere/ssh".into();
        // It says which version it has, and nothing more.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", r"printf '\0\0\0\005\002\0\0\0\003'; exec sleep 600"]);
        let sftp = Sftp::start(command, std::time::Duration::from_secs(60)).expect("it answers");
        ssh.line.lock().expect("ours").connection = Some(sftp);
        let since = Instant::now();
        let asked = std::cell::Cell::new(0);
        let failed = ssh.again(|ssh| {
            asked.set(asked.get() + 1);
            ssh.with(|_| -> Result<(), Broken> {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in 20 s").into())
            })
        });
        let failed = failed.expect_err("it hangs").reason;
        assert_eq!(failed, "the connection to lab failed: no answer in 20 s");
        assert_eq!(asked.get(), 1);
        match ssh.with_since(since, |sftp| sftp.stat("/srv")) {
            Err(Broken::Unreachable(why)) => assert_eq!(why, "no answer in 20 s"),
            other => panic!("{other:?}"),
        }
    }
}
