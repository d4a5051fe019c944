//! What a remote can do, whatever it is, and how that fails.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::name::Name;
use super::progress::UploadProgress;

/// A place with immutable contents under names.
pub(super) trait Remote: Send + Sync {
    /// The content of a name from this byte on. `None` if there is none. `expected` is about how many bytes it has: a reader that
    /// takes much longer than that fails, and whoever reads asks again for the rest.
    fn get(
        &self,
        name: &Name,
        from: u64,
        expected: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure>;

    /// Gives a name a content, unless it has one. Whoever reads it sees all of the content, or none.
    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure>;

    /// How many bytes the content of a name has. `None` if there is none.
    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure>;

    /// Whether half of a content may have its name, of somebody whose sending broke off.
    ///
    /// # Errors
    /// When that cannot be told.
    fn may_have_halves(&self) -> Result<bool, RemoteFailure> {
        Ok(false)
    }

    /// How many contents there are below a folder of names, and how many bytes they have.
    fn count(&self, folder: &str) -> Result<ContentTotals, RemoteFailure>;
}

/// What became of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    New,
    /// The name had one.
    Existed,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ContentTotals {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// What is put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    File(Sent<'a>),
    /// Where everybody who sends a content of this name sends the same bytes.
    NamedFile(Sent<'a>),
}

/// A file that is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) file: &'a File,
    pub(super) bytes: u64,
    /// How much of it was read.
    pub(super) progress: &'a UploadProgress<'a>,
}

impl<'a> Content<'a> {
    /// How many bytes it has.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(sent) | Self::NamedFile(sent) => sent.bytes,
        }
    }

    /// Whether everybody who sends a content of this name sends the same bytes, so that one can continue what another began.
    pub(super) fn is_determined_by_its_name(&self) -> bool {
        matches!(self, Self::NamedFile(..))
    }

    /// A part of it. Several can be read at once.
    pub(super) fn part(&self, from: u64, bytes: u64) -> ContentReader<'a> {
        ContentReader {
            content: *self,
            next: from,
            end: from.saturating_add(bytes).min(self.bytes()),
        }
    }

    /// All of it.
    pub(super) fn reader(&self) -> ContentReader<'a> {
        self.part(0, self.bytes())
    }
}

/// A part of a content, to read.
pub(super) struct ContentReader<'a> {
    content: Content<'a>,
    next: u64,
    end: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let buffer = &mut buffer[..most];
        let count = match self.content {
            Content::Bytes(bytes) => (&bytes[self.next as usize..]).read(buffer)?,
            Content::File(sent) | Content::NamedFile(sent) => {
                let count = sent.file.read_at(buffer, self.next)?;
                sent.progress.add(count as u64, sent.bytes);
                count
            }
        };
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.next += count as u64;
        Ok(count)
    }
}

/// Why something on a remote failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFailure {
    pub(crate) kind: FailureKind,
    /// In words. Without any secret.
    pub(crate) reason: String,
    /// Whether time does not heal it: somebody must change something.
    pub(crate) is_lasting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// It cannot be reached, or not be used by us: nothing else will work either.
    Away,
    /// What it has is not what it should be.
    Wrong,
    /// This cannot be done; something else may.
    Refused,
}

impl RemoteFailure {
    /// Whether something else may work.
    pub(super) fn is_of_one_request(&self) -> bool {
        self.kind != FailureKind::Away
    }

    /// Whether the same may work later.
    pub(super) fn may_pass(&self) -> bool {
        self.kind == FailureKind::Away && !self.is_lasting
    }

    /// The same failure, which time does not heal.
    pub(super) fn lasting(self) -> Self {
        Self { is_lasting: true, ..self }
    }

    pub(super) fn away(reason: impl Into<String>) -> Self {
        Self { kind: FailureKind::Away, reason: reason.into(), is_lasting: false }
    }

    pub(super) fn wrong(reason: impl Into<String>) -> Self {
        Self { kind: FailureKind::Wrong, reason: reason.into(), is_lasting: false }
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self { kind: FailureKind::Refused, reason: reason.into(), is_lasting: false }
    }
}

/// There is a part of a content.
pub(super) fn in_part(name: &Name) -> RemoteFailure {
    RemoteFailure::wrong(format!(
        "{name} is there in part: somebody is sending it, or a push was cut off; then remove it there, and push again"
    ))
}

impl fmt::Display for RemoteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for RemoteFailure {}

/// What is read as a whole rarely has more bytes.
const COMMON_BYTES: u64 = 8 << 20;

/// How often in a row a content is asked for again whose reading broke off before it was fast enough.
const MOST_RESUMED: u32 = 3;

/// How long nothing may arrive of a content.
pub(super) const SILENCE: Duration = Duration::from_secs(20);

/// The slowest that a content may arrive for as long as that, in bytes a second: thirty at once do on a line of 1 Mbit/s.
pub(super) const SLOWEST: u64 = 4 << 10;

/// How fast bytes arrive.
#[derive(Default)]
pub(super) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Notes how many bytes arrived after this time.
    ///
    /// # Errors
    /// When they have arrived too slowly for too long.
    pub(super) fn note(&mut self, count: usize, waited: Duration) -> io::Result<()> {
        (self.bytes, self.waited) = (self.bytes + count as u64, self.waited + waited);
        if self.waited < SILENCE {
            return Ok(());
        }
        match std::mem::take(self).is_enough() {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it sends fewer than {SLOWEST} bytes a second"),
            )),
        }
    }

    fn is_enough(&self) -> bool {
        self.bytes as f64 >= SLOWEST as f64 * self.waited.as_secs_f64()
    }
}

/// A content that is read; where the reading breaks off, it continues from there.
pub(super) struct Download<'r> {
    remote: &'r dyn Remote,
    name: Name,
    expected: u64,
    reader: Box<dyn Read + 'r>,
    done: u64,
    /// Where and when this reader was asked for.
    began: (u64, Instant),
    resumed: u32,
    /// Why it could not be read to its end.
    pub(super) failure: Option<RemoteFailure>,
}

impl<'r> Download<'r> {
    /// Begins to read the content of a name. `None` if there is none.
    pub(super) fn open(
        remote: &'r dyn Remote,
        name: Name,
        expected: u64,
    ) -> Result<Option<Self>, RemoteFailure> {
        Self::open_from(remote, name, 0, expected)
    }

    /// The same from this byte on.
    pub(super) fn open_from(
        remote: &'r dyn Remote,
        name: Name,
        done: u64,
        expected: u64,
    ) -> Result<Option<Self>, RemoteFailure> {
        let (began, resumed, failure) = ((done, Instant::now()), 0, None);
        let reader = remote.get(&name, done, expected)?;
        let download =
            |reader| Self { remote, name, expected, reader, done, began, resumed, failure };
        Ok(reader.map(download))
    }

    fn resume(&mut self, error: &io::Error) -> Result<(), RemoteFailure> {
        let broken =
            || RemoteFailure::away(format!("the reading of {} broke off: {error}", self.name));
        let (from, since) = self.began;
        // However often it breaks off, but not with a byte each time.
        if (Pace { bytes: self.done - from, waited: since.elapsed() }).is_enough() {
            self.resumed = 0;
        }
        if self.resumed >= MOST_RESUMED {
            return Err(broken());
        }
        self.resumed += 1;
        self.began = (self.done, Instant::now());
        self.reader = self.remote.get(&self.name, self.done, self.expected)?.ok_or_else(broken)?;
        Ok(())
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(count) => {
                    self.done += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Err(failure) = self.resume(&error) {
                        self.failure = Some(failure);
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// The whole content of a name, which has at most so many bytes.
pub(super) fn get_all(
    remote: &dyn Remote,
    name: &Name,
    most: u64,
) -> Result<Option<Vec<u8>>, RemoteFailure> {
    let expected = most.min(COMMON_BYTES);
    let Some(mut download) = Download::open(remote, name.clone(), expected)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let read = download.by_ref().take(most + 1).read_to_end(&mut bytes);
    if let Err(error) = read {
        let unread = || RemoteFailure::away(format!("cannot read {name}: {error}"));
        return Err(download.failure.take().unwrap_or_else(unread));
    }
    match bytes.len() as u64 > most {
        true => Err(RemoteFailure::wrong(format!("{name} has more than {most} bytes"))),
        false => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Some bytes; each reader breaks off after three.
    struct Breaking(Mutex<u32>, u8);

    struct Broken(Vec<u8>);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            if count == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(count) }
        }
    }

    impl Remote for Breaking {
        fn get(
            &self,
            _: &Name,
            from: u64,
            _: u64,
        ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
            *self.0.lock().expect("ours") += 1;
            let bytes = (from as u8..self.1).collect::<Vec<_>>();
            Ok(Some(match bytes.len() {
                0..=3 => Box::new(io::Cursor::new(bytes)),
                _ => Box::new(Broken(bytes[..3].to_vec())),
            }))
        }
        fn put(&self, _: &Name, _: &Content<'_>) -> Result<Put, RemoteFailure> {
            Err(RemoteFailure::refused("read only"))
        }
        fn size(&self, _: &Name) -> Result<Option<u64>, RemoteFailure> {
            Ok(Some(10))
        }
        fn count(&self, _: &str) -> Result<ContentTotals, RemoteFailure> {
            Ok(ContentTotals::default())
        }
    }

    #[test]
    fn what_breaks_off_is_continued_where_it_was() {
        let remote = Breaking(Mutex::new(0), 10);
        let bytes = get_all(&remote, &Name::version(), 10).expect("it continues");
        assert_eq!(bytes, Some((0..10).collect()));
        assert_eq!(*remote.0.lock().expect("ours"), 4);
        let failure = get_all(&remote, &Name::version(), 9).expect_err("more than allowed");
        assert_eq!(failure.kind, FailureKind::Wrong);
        let remote = Breaking(Mutex::new(0), 100);
        let bytes = get_all(&remote, &Name::version(), 100).expect("however often");
        assert_eq!(bytes, Some((0..100).collect()));
    }

    /// A byte each time, after a while.
    struct Slow(Mutex<u32>);

    impl Remote for Slow {
        fn get(
            &self,
            _: &Name,
            _: u64,
            _: u64,
        ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
            *self.0.lock().expect("ours") += 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(Some(Box::new(Broken(vec![1]))))
        }
        fn put(&self, _: &Name, _: &Content<'_>) -> Result<Put, RemoteFailure> {
            Err(RemoteFailure::refused("read only"))
        }
        fn size(&self, _: &Name) -> Result<Option<u64>, RemoteFailure> {
            Ok(None)
        }
        fn count(&self, _: &str) -> Result<ContentTotals, RemoteFailure> {
            Ok(ContentTotals::default())
        }
    }

    #[test]
    fn what_breaks_off_again_and_again_before_it_was_fast_enough_is_given_up() {
        let remote = Slow(Mutex::new(0));
        let failure = get_all(&remote, &Name::version(), 64).expect_err("it has no end");
        assert_eq!(failure.kind, FailureKind::Away);
        assert_eq!(*remote.0.lock().expect("ours"), 1 + MOST_RESUMED);
    }

    #[test]
    fn bytes_that_arrive_too_slowly_for_too_long_are_a_failure() {
        let second = Duration::from_secs(1);
        let arrives = |count: usize| {
            let mut pace = Pace::default();
            (0..1000).map(|_| pace.note(count, second)).take_while(Result::is_ok).count()
        };
        assert_eq!(arrives(SLOWEST as usize), 1000);
        assert_eq!(arrives(SLOWEST as usize - 1), 19);
        // A byte each time before nothing would have arrived for too long.
        let mut pace = Pace::default();
        assert!(pace.note(1, 15 * second).is_ok());
        assert_eq!(pace.note(1, 15 * second).expect_err("slow").kind(), io::ErrorKind::TimedOut);
        // What was fast once does not help for ever.
        let mut pace = Pace::default();
        assert!(pace.note(1 << 30, SILENCE).is_ok());
        assert!(pace.note(1, SILENCE).is_err());
    }

    #[test]
    fn parts_of_a_content_are_those_of_its_bytes() {
        use std::io::Write;
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"0123456789").expect("writable");
        let total = AtomicU64::new(0);
        let progress = UploadProgress::new(&total, 20);
        let sent = Sent { file: &file, bytes: 10, progress: &progress };
        for content in
            [Content::Bytes(b"0123456789"), Content::File(sent), Content::NamedFile(sent)]
        {
            for (from, bytes, expected) in
                [(0, 10, "0123456789"), (3, 4, "3456"), (8, 9, "89"), (10, 1, "")]
            {
                let mut text = String::new();
                content.part(from, bytes).read_to_string(&mut text).expect("readable");
                assert_eq!(text, expected);
            }
        }
        let mut text = String::new();
        assert_eq!(total.load(Ordering::Relaxed), 20);
        let longer = Content::File(Sent { bytes: 11, ..sent }).reader().read_to_string(&mut text);
        assert!(longer.is_err(), "a file that is shorter than it was is not sent");
    }
}
