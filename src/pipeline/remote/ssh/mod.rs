//! `ssh://host/path`: a folder of another machine, through the system's `ssh`: keys, agents, jump hosts and `~/.ssh/config` are its
//! business.
//!
//! One connection with the subsystem `sftp` serves all threads; a request of one of them does not wait for a file of another. A
//! content gets its name in one step: by another name of the same file, which the server refuses where the name is taken.

mod in_time;
mod sftp;

use std::ffi::OsString;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::name::{NEW, Name, new_name};
use super::transport::{Content, ContentTotals, Failure, Put, Remote};
use crate::remote_address::SshAddress;
use sftp::{Broken, Handle, Problem, Sftp};

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
    fn again<T>(&self, act: impl Fn(&Self) -> Result<T, Broken>) -> Result<T, Failure> {
        let done = match act(self) {
            Err(Broken::Connection(_) | Broken::Stale) => act(self),
            done => done,
        };
        done.map_err(|broken| self.failure(broken))
    }

    fn failure(&self, broken: Broken) -> Failure {
        let host = &self.address.host;
        match broken {
            Broken::Connection(error) => self.failure(Broken::Unreachable(error.to_string())),
            Broken::Unreachable(why) => {
                Failure::away(format!("the connection to {host} failed: {why}"))
            }
            Broken::Stale => Failure::away(format!("the connection to {host} was lost meanwhile")),
            Broken::Refused(Problem::Missing, _) => Failure::away(format!(
                "the folder {} of {host} does not exist: make it if it is a new one",
                self.address.path
            )),
            Broken::Refused(Problem::Denied, why) => {
                Failure::refused(format!("{host} does not allow it: {why}")).lasting()
            }
            Broken::Refused(Problem::Other, why) => {
                Failure::refused(format!("{host} refused it: {why}"))
            }
            Broken::Here(error) => Failure::refused(format!("cannot read what is sent: {error}")),
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
    fn get(&self, name: &Name, from: u64, _: u64) -> Result<Option<Box<dyn Read + '_>>, Failure> {
        let path = self.path(name.as_str());
        let handle = self.again(|ssh| ssh.optional(ssh.with(|sftp| sftp.open(&path))))?;
        Ok(handle.map(|handle| -> Box<dyn Read + '_> {
            Box::new(OpenFile { ssh: self, handle, at: from, block: Vec::new(), next: 0 })
        }))
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, Failure> {
        self.again(|ssh| ssh.put_once(name, content))
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, Failure> {
        let path = self.path(name.as_str());
        self.again(|ssh| ssh.optional(ssh.with(|sftp| sftp.stat(&path))))
    }

    fn count(&self, folder: &str) -> Result<ContentTotals, Failure> {
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
                        totals.bytes += entry.bytes;
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

#[cfg(test)]
mod tests {
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
