//! Jobs that run elsewhere: a folder for each key, which says what the job is to do before it is submitted.
//!
//! ```text
//! jobs/<key>/
//!   spec.json     what it is to do; the folder appears with it, in one step, so that nobody submits twice
//!   pins          what it uses, as in pins/: it waits for hours, and no process lives that could pin it
//!   script        what the scheduler starts
//!   handed-over   as what the scheduler was asked to take it, before it was asked
//!   submitted     the id that the scheduler gave it
//!   waits         that it is back in the queue, or why the scheduler holds it, where somebody who follows it has heard that
//!   events        what the job reports, a line each; its end is the last one
//!   cancelled     that a person wants its end, and that it still worked then
//!   ended         that it does not go on
//!   output        what its script printed
//! ```
//!
//! Beside them is `left-<digest>`, what jobs have in common: once for all of them, as there may be thousands.
//!
//! The folder goes when somebody who followed the job has seen its end; if nobody comes, some days after it. Does not depend on what is in these files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::layout::Bucket;
use super::lock::Lock;
use super::opened::Cache;
use super::own_pin::Pinned;
use super::stat::Stat;
use super::{disk, durable, store};
use crate::digest::{Digest, FieldHasher};
use crate::key::StageKey;

/// How the names begin of what jobs have in common.
pub(super) const LEFT: &str = "left-";

/// How much is read of the end of a journal at first: most lines are shorter.
const TAIL: u64 = 4096;

/// The folder of a job.
#[derive(Debug, Clone)]
pub(crate) struct JobFolder {
    place: PathBuf,
}

/// What distinguishes the file of what a job is to do from that of another job, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpecStamp(Stat);

/// What a job reports, written by the job.
#[derive(Debug)]
pub(crate) struct JobJournal {
    file: File,
}

impl Cache {
    /// The keys of all jobs that nobody has seen the end of.
    pub(crate) fn job_keys(&self) -> impl Iterator<Item = StageKey> {
        self.keys_in(Bucket::Jobs)
    }

    /// The job of a key, where there is one.
    pub(crate) fn job(&self, key: &StageKey) -> Option<JobFolder> {
        Some(self.job_place(key)).filter(|folder| may_exist(&folder.spec()))
    }

    /// Where the job of a key is, or would be.
    pub(crate) fn job_place(&self, key: &StageKey) -> JobFolder {
        JobFolder { place: self.layout.job(key) }
    }

    /// The right to make and to submit the job of a key, or `None` where somebody else has it right now.
    pub(crate) fn lock_job(&self, key: &StageKey) -> anyhow::Result<Option<Lock>> {
        Lock::try_take(&self.layout.lock(&format!("job-{key}")))
    }

    /// Whether somebody has that right.
    pub(crate) fn is_job_locked(&self, key: &StageKey) -> bool {
        Lock::is_taken(&self.layout.lock(&format!("job-{key}")))
    }

    /// Makes the job of a key, with what it is to do and what must stay for it. `None` where there is one. For whoever has the lock of
    /// the job.
    pub(crate) fn begin_job(
        &self,
        key: &StageKey,
        spec: &[u8],
        pins: impl Iterator<Item = Pinned>,
    ) -> anyhow::Result<Option<JobFolder>> {
        let place = self.layout.job(key);
        let jobs = self.layout.bucket(Bucket::Jobs);
        let new =
            durable::free_name(&jobs, &format!("{}{key}-{}", durable::NEW, std::process::id()))?;
        durable::create_folder(&new)?;
        let folder = JobFolder { place: new.clone() };
        let pins: String = pins.map(Pinned::line).collect();
        durable::write_file(&new.join("pins"), pins.as_bytes())?;
        durable::write_file(&folder.spec(), spec)?;
        // One without a spec says nothing, and nobody would ever follow it: it was removed by half.
        let old = JobFolder { place: place.clone() };
        if folder_exists(&place) && !may_exist(&old.spec()) {
            old.remove()?;
        }
        // No folder takes the place of one that is not empty.
        let moved = disk::rename(new.as_path(), place.as_path());
        if moved.is_err() {
            let _ = durable::remove_tree(&new);
        }
        match moved {
            Ok(()) => {
                durable::sync_folder(&jobs).with_context(|| cannot_write(&place))?;
                Ok(Some(JobFolder { place }))
            }
            Err(_) if folder_exists(&place) => Ok(None),
            Err(error) => Err(error).with_context(|| cannot_write(&place)),
        }
    }
}

impl Cache {
    /// Keeps what is left to jobs, once for all of them; its name. It goes some days after it was kept last, when no job has that name
    /// in its spec.
    pub(crate) fn keep_left(&self, content: &[u8]) -> anyhow::Result<Digest> {
        let name = FieldHasher::new("left to jobs").bytes(content).finish();
        durable::write_file(&self.left_place(&name), content)?;
        Ok(name)
    }

    /// What was kept under this name.
    pub(crate) fn left(&self, name: &Digest) -> anyhow::Result<Vec<u8>> {
        let place = self.left_place(name);
        let content = disk::read(&place, disk::LARGEST_TEXT);
        content.with_context(|| format!("cannot read {}", place.display()))
    }

    fn left_place(&self, name: &Digest) -> PathBuf {
        self.layout.bucket(Bucket::Jobs).join(format!("{LEFT}{name}"))
    }
}

impl JobFolder {
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// What the job is to do.
    pub(crate) fn spec(&self) -> PathBuf {
        self.place.join("spec.json")
    }

    /// Which file that is now.
    ///
    /// # Errors
    /// When the folder is gone, or cannot be read.
    pub(crate) fn spec_stamp(&self) -> io::Result<SpecStamp> {
        // Opened, as the journal is.
        let (file, _) = disk::open_file(&self.spec())?;
        Ok(SpecStamp(Stat::of(&file.metadata()?)))
    }

    /// What the scheduler starts.
    pub(crate) fn script(&self) -> PathBuf {
        self.place.join("script")
    }

    /// What the script prints.
    pub(crate) fn output(&self) -> PathBuf {
        self.place.join("output")
    }

    /// For the job, to print into.
    pub(crate) fn open_output(&self) -> anyhow::Result<File> {
        let path = self.output();
        disk::open_to_add(&path).with_context(|| cannot_write(&path))
    }

    pub(crate) fn write_script(&self, text: &str) -> anyhow::Result<()> {
        let script = self.script();
        durable::write_file(&script, text.as_bytes())?;
        let mode = if disk::is_shared(&self.place) { 0o775 } else { 0o755 };
        disk::set_mode_of_path(&script, mode).with_context(|| cannot_write(&script))
    }

    /// Remembers what the scheduler said when it took the job.
    pub(crate) fn set_submitted(&self, content: &[u8]) -> anyhow::Result<()> {
        durable::write_file(&self.place.join("submitted"), content)
    }

    /// Remembers as what the scheduler is asked to take it next, or that it did not take it.
    pub(crate) fn set_handed_over(&self, content: Option<&[u8]>) -> anyhow::Result<()> {
        self.set("handed-over", content)
    }

    /// Remembers why it waits; or that it does not, or for nothing else than any other one.
    pub(crate) fn set_waits(&self, waits: Option<&str>) -> anyhow::Result<()> {
        self.set("waits", waits.map(str::as_bytes))
    }

    /// What was remembered of that.
    pub(crate) fn waits(&self) -> Option<String> {
        disk::read_text(&self.place.join("waits")).ok()
    }

    /// Writes one of its files, or removes it.
    fn set(&self, name: &str, content: Option<&[u8]>) -> anyhow::Result<()> {
        let place = self.place.join(name);
        match content {
            Some(content) => durable::write_file(&place, content),
            None => match disk::remove_file(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| cannot_write(&place))
                }
                _ => Ok(()),
            },
        }
    }

    /// What was remembered of that. `None` where it was not handed over.
    ///
    /// # Errors
    /// When that cannot be told. As [`io::ErrorKind::InvalidData`] where what is there is not what was written.
    pub(crate) fn handed_over(&self) -> io::Result<Option<Vec<u8>>> {
        self.remembered("handed-over")
    }

    /// What was remembered of the submission. `None` where it was not submitted.
    ///
    /// # Errors
    /// As those of [`Self::handed_over`].
    pub(crate) fn submitted(&self) -> io::Result<Option<Vec<u8>>> {
        self.remembered("submitted")
    }

    /// Forgets what was remembered of the submission, and is damaged. For whoever has the lock of the job.
    pub(crate) fn forget_submitted(&self) -> anyhow::Result<()> {
        self.set("submitted", None)
    }

    /// What one of its files has.
    fn remembered(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match disk::read(&self.place.join(name), disk::LARGEST_TEXT) {
            Err(error) if store::is_absence(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether something was remembered of it, or nobody can look.
    pub(crate) fn was_submitted(&self) -> bool {
        may_exist(&self.place.join("submitted"))
    }

    /// Whether the account of this process has submitted it.
    pub(crate) fn is_own(&self) -> bool {
        let submitted = self.place.join("submitted").symlink_metadata();
        submitted.is_ok_and(|metadata| disk::is_own(&metadata))
    }

    /// What the job has reported after the first `from` bytes, in whole lines. Nothing where it has not begun.
    ///
    /// # Errors
    /// When the folder is gone, or cannot be read.
    pub(crate) fn events(&self, from: u64) -> io::Result<Vec<u8>> {
        let Some(mut file) = self.open_events()? else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(from))?;
        let mut lines = Vec::new();
        file.read_to_end(&mut lines)?;
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        lines.truncate(whole);
        Ok(lines)
    }

    /// The last whole line of that, at the cost of its length. Nothing where it has not begun.
    ///
    /// # Errors
    /// When the folder is gone, or cannot be read.
    pub(crate) fn last_event(&self) -> io::Result<Vec<u8>> {
        let Some(mut file) = self.open_events()? else { return Ok(Vec::new()) };
        let length = file.metadata()?.len();
        let mut size = TAIL;
        loop {
            let from = length.saturating_sub(size);
            file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            file.by_ref().take(length - from).read_to_end(&mut tail)?;
            let end = tail.iter().rposition(|byte| *byte == b'\n');
            tail.truncate(end.unwrap_or(0));
            let begin = tail.iter().rposition(|byte| *byte == b'\n');
            if begin.is_some() || from == 0 {
                return Ok(tail.split_off(begin.map_or(0, |before| before + 1)));
            }
            size *= 2;
        }
    }

    /// What it reports. `None` where it has not begun.
    fn open_events(&self) -> io::Result<Option<File>> {
        // Opened again each time: only then does a file system of another machine look at what is new.
        match disk::open_file(&self.events_place()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder_exists(&self.place) => {
                Ok(None)
            }
            other => other.map(|(file, _)| Some(file)),
        }
    }

    /// Whether the job has begun, here or where it ran before, or nobody can look.
    pub(crate) fn has_begun(&self) -> bool {
        may_exist(&self.events_place())
    }

    /// For the job itself, to say what it does. It goes on after what it said before it was interrupted.
    pub(crate) fn journal(&self) -> anyhow::Result<JobJournal> {
        let path = self.events_place();
        let open = || -> io::Result<JobJournal> {
            let file = disk::open_to_add(&path)?;
            let length = file.metadata()?.len();
            let mut last = [b'\n'];
            if length > 0 {
                file.read_exact_at(&mut last, length - 1)?;
            }
            let journal = JobJournal { file };
            // A process that was killed may have left a part of a line.
            if last != *b"\n" {
                journal.add(b"\n")?;
            }
            Ok(journal)
        };
        open().with_context(|| cannot_write(&path))
    }

    /// Removes it: its end was seen. For whoever has the lock of the job.
    ///
    /// # Errors
    /// When it stays, with what a person can do.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        let cannot_remove = || {
            let shown = self.place.display();
            format!("cannot remove {shown}, whose job has ended: remove it by hand")
        };
        let jobs = self.place.parent().with_context(cannot_remove)?;
        let name = self.place.file_name().unwrap_or_default().to_string_lossy();
        // In one step: whoever looks finds all of it, or nothing.
        let away = durable::free_name(jobs, &format!("{}{name}", durable::NEW))?;
        disk::rename(self.place.as_path(), away.as_path()).with_context(cannot_remove)?;
        // What is left of it under another name is in nobody's way, and is swept later.
        let _ = durable::remove_tree(&away);
        Ok(())
    }

    /// Remembers that a person has cancelled it, while it still works. For whoever has the lock of the job.
    pub(crate) fn set_cancelled(&self) -> anyhow::Result<()> {
        self.set("cancelled", Some(b""))
    }

    /// Whether a person has done that.
    pub(crate) fn was_cancelled(&self) -> bool {
        self.place.join("cancelled").exists()
    }

    /// Remembers that it does not go on.
    pub(crate) fn set_ended(&self) -> anyhow::Result<()> {
        durable::write_file(&self.ended(), b"")
    }

    /// Is there, and of that time, once it does not go on.
    pub(super) fn ended(&self) -> PathBuf {
        self.place.join("ended")
    }

    fn events_place(&self) -> PathBuf {
        self.place.join("events")
    }
}

impl JobJournal {
    /// Adds a whole line.
    pub(crate) fn add(&self, line: &[u8]) -> io::Result<()> {
        disk::write(&self.file, line)
    }
}

/// Whether a file of a job exists, or nobody can look: where it is taken for missing, the job is submitted twice.
fn may_exist(path: &Path) -> bool {
    !path.symlink_metadata().is_err_and(|error| store::is_absence(&error))
}

fn folder_exists(place: &Path) -> bool {
    place.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

fn cannot_write(place: &Path) -> String {
    format!("cannot write {}", place.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::{Duration, SystemTime};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::pins::read_pins;
    use super::super::sweep::{sweep_jobs, sweep_new_files};
    use super::*;
    use crate::key::KeyPart;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        cache.prepare().expect("writable");
        (folder, cache)
    }

    #[test]
    fn the_job_of_a_key_is_made_once_and_pins_what_it_uses() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        let begin = || cache.begin_job(&key, b"{}", [Pinned::Key(key)].into_iter());
        let job = begin().expect("writable").expect("it is the first");
        assert!(begin().expect("writable").is_none());
        assert_eq!(cache.job_keys().collect::<Vec<_>>(), [key], "and nothing else is left");
        let pins = read_pins(cache.layout(), false).expect("readable");
        assert_eq!(pins.iter().map(|pin| &*pin.pinned).collect::<Vec<_>>(), [[Pinned::Key(key)]]);
        job.remove().expect("ours");
        assert!(
            cache.job(&key).is_none()
                && read_pins(cache.layout(), false).expect("readable").is_empty()
        );
        assert!(begin().expect("writable").is_some());
    }

    #[test]
    fn a_job_pins_where_no_process_has_pinned_anything() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        cache.begin_job(&key, b"{}", [Pinned::Key(key)].into_iter()).expect("writable");
        durable::remove_tree(&cache.layout().bucket(Bucket::Pins)).expect("ours");
        let pins = read_pins(cache.layout(), false).expect("readable");
        assert_eq!(pins.iter().map(|pin| &*pin.pinned).collect::<Vec<_>>(), [[Pinned::Key(key)]]);
    }

    #[test]
    fn the_last_line_of_a_long_journal_is_found() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        let job = cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable").expect("new");
        assert_eq!(job.last_event().expect("a folder"), b"");
        let journal = job.journal().expect("writable");
        journal.add(b"one").expect("writable");
        assert_eq!(job.last_event().expect("a file"), b"", "it is not whole");
        journal.add(b"\n").expect("writable");
        assert_eq!(job.last_event().expect("a file"), b"one");
        let around = usize::try_from(TAIL).expect("small");
        for length in [around - 2, around - 1, around, around + 1, 5 * around] {
            let line = vec![b'x'; length];
            journal.add(&[&*line, b"\n"].concat()).expect("writable");
            assert_eq!(job.last_event().expect("a file"), line);
        }
        journal.add(b"two\npart").expect("writable");
        assert_eq!(job.last_event().expect("a file"), b"two");
        job.remove().expect("ours");
        assert!(job.last_event().is_err());
    }

    #[test]
    fn a_job_whose_pins_cannot_be_read_pins_everything() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable");
        durable::forget_file(&cache.layout().job(&key).join("pins"));
        let pins = read_pins(cache.layout(), false).expect("readable");
        assert_eq!(pins[0].pinned, [Pinned::Everything]);
    }

    #[test]
    fn a_folder_without_a_spec_is_nobodys_job() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        let half = cache.layout().job(&key);
        durable::create_folder(&half).expect("writable");
        durable::write_file(&half.join("output"), b"").expect("writable");
        assert!(cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable").is_some());
    }

    #[test]
    fn a_job_that_cannot_be_removed_is_an_error() {
        let (_folder, cache) = cache();
        let job = cache.job_place(&StageKey::of(&[]));
        let error = job.remove().expect_err("there is none").to_string();
        assert!(error.contains("remove it by hand"), "{error}");
    }

    #[test]
    fn jobs_that_nobody_asks_for_are_swept_long_after_their_end() {
        let (_folder, cache) = cache();
        let keys = [1, 2, 3, 4, 5, 6].map(|version| StageKey::of(&[KeyPart::Schema { version }]));
        let jobs = keys.map(|key| {
            cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable").expect("new")
        });
        let [hours, days] = [2, 8 * 24].map(|hours| Duration::from_secs(hours * 3600));
        let set_age = |file: &Path, age| {
            let file = File::options().write(true).open(file).expect("ours");
            file.set_modified(SystemTime::now() - age).expect("ours");
        };
        // One has ended long ago, one just now, and one not at all, however old it is.
        jobs[..2].iter().for_each(|job| job.set_ended().expect("writable"));
        set_age(&jobs[0].ended(), days);
        jobs[2].set_submitted(b"{}").expect("writable");
        // One was never handed over, and of two nobody knows whether they were taken.
        jobs[4..].iter().for_each(|job| job.set_handed_over(Some(b"{}")).expect("writable"));
        for (job, age) in jobs[2..].iter().zip([days, hours, hours, days]) {
            set_age(&job.spec(), age);
        }
        let cut_off = cache.layout().bucket(Bucket::Jobs).join(format!("{}x", durable::NEW));
        durable::create_folder(&cut_off).expect("writable");
        File::open(&cut_off).expect("ours").set_modified(SystemTime::now() - days).expect("ours");
        let left = ["old", "needed", "new"];
        let left = left.map(|text| cache.keep_left(text.as_bytes()).expect("writable"));
        durable::write_file(&jobs[1].spec(), left[1].to_string().as_bytes()).expect("ours");
        left[..2].iter().for_each(|name| set_age(&cache.left_place(name), days));
        let half = cache.layout().bucket(Bucket::Jobs).join(format!("{}left", durable::NEW));
        durable::write_file(&half, b"").expect("writable");
        set_age(&half, hours);
        sweep_jobs(&cache);
        sweep_new_files(&cache);
        assert_eq!(left.map(|name| cache.left(&name).is_ok()), [false, true, true]);
        assert!(!half.exists(), "its writing was cut off");
        set_age(&cache.left_place(&left[1]), days);
        // What cannot be read may need it.
        fs::remove_file(jobs[1].spec()).expect("ours");
        std::os::unix::fs::symlink("spec.json", jobs[1].spec()).expect("ours");
        sweep_jobs(&cache);
        assert!(cache.left(&left[1]).is_ok());
        fs::remove_file(jobs[1].spec()).expect("ours");
        durable::write_file(&jobs[1].spec(), b"{}").expect("ours");
        sweep_jobs(&cache);
        assert!(cache.left(&left[1]).is_err());
        let there = jobs.each_ref().map(|job| job.spec().exists());
        assert_eq!((there, cut_off.exists()), ([false, true, true, false, true, false], false));
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_of_a_job_stops_nobody() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        let job = cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable").expect("new");
        let left = FieldHasher::new("test").finish();
        let files =
            ["waits", "handed-over", "submitted", "events"].map(|name| job.place.join(name));
        for file in files.iter().chain([&cache.left_place(&left)]) {
            mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("ours");
        }
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            let files = [job.waits().is_none(), job.handed_over().is_err()];
            let said = [job.events(0).is_err(), job.last_event().is_err()];
            say.send((files, job.submitted().is_err(), said, cache.left(&left).is_err()))
        });
        let said = said.recv_timeout(Duration::from_secs(20));
        assert_eq!(said, Ok(([true; 2], true, [true; 2], true)));
    }

    #[test]
    fn a_torn_line_does_not_take_the_next_one_with_it() {
        let (_folder, cache) = cache();
        let key = StageKey::of(&[]);
        let job = cache.begin_job(&key, b"{}", std::iter::empty()).expect("writable").expect("new");
        assert_eq!(job.events(0).expect("a folder"), b"");
        job.journal().expect("writable").add(b"one\ntw").expect("writable");
        assert_eq!(job.events(0).expect("a file"), b"one\n");
        job.journal().expect("writable").add(b"three\n").expect("writable");
        assert_eq!(job.events(4).expect("a file"), b"tw\nthree\n");
        job.remove().expect("ours");
        assert!(job.events(0).is_err());
    }
}
