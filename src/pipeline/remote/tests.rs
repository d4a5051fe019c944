//! Two caches and a remote in memory: what is transferred, and what a remote that breaks off, lies or misses something does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::name::Name;
use super::pull::{NotPulled, Puller, StoredFiles};
use super::push::{Pushed, Pusher, What};
use super::shared::SharedCache;
use super::transport::{Content, ContentTotals, FailureKind, Put, Remote, RemoteFailure};
use crate::cache::{Cache, ExecutionFacts, Lookup, Record, Watch};
use crate::key::{KeyPart, StageKey};
use crate::reason::Reason;
use crate::signing::{Signer, Signing};
use crate::trust::Trust;

/// A remote in memory, which breaks off at one of its operations.
#[derive(Default)]
pub(super) struct Memory {
    contents: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Names that were read or written.
    pub(super) journal: Mutex<Vec<String>>,
    operations: AtomicU64,
    /// From this operation on, nothing works.
    ends_at: Option<u64>,
    /// How an operation on a name fails.
    fails: Mutex<Option<Fails>>,
}

type Fails = fn(&str, &Name) -> Option<RemoteFailure>;

impl Memory {
    fn operate(&self, what: &str, name: &Name) -> Result<(), RemoteFailure> {
        self.journal.lock().expect("ours").push(format!("{what} {name}"));
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        if self.ends_at.is_some_and(|end| operation >= end) {
            return Err(RemoteFailure::away("the cable is cut"));
        }
        let fails = *self.fails.lock().expect("ours");
        fails.and_then(|fails| fails(what, name)).map_or(Ok(()), Err)
    }

    pub(super) fn fail(&self, fails: Option<Fails>) {
        *self.fails.lock().expect("ours") = fails;
    }

    fn remove(&self, folder: &str) {
        self.contents.lock().expect("ours").retain(|name, _| !name.starts_with(folder));
    }

    /// How many contents were read or written since the last call, by what is done and the folder of the name.
    pub(super) fn counts(&self) -> String {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for line in self.journal.lock().expect("ours").drain(..) {
            let what = line.split('/').next().unwrap_or_default();
            if !what.starts_with("size") {
                *counts.entry(what.to_owned()).or_default() += 1;
            }
        }
        let counts: Vec<String> =
            counts.into_iter().map(|(what, count)| format!("{what} {count}")).collect();
        counts.join(", ")
    }
}

impl Remote for Memory {
    fn get(
        &self,
        name: &Name,
        from: u64,
        _: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        self.operate("get", name)?;
        let bytes = self.contents.lock().expect("ours").get(name.as_str()).cloned();
        Ok(bytes.map(|bytes| -> Box<dyn Read> {
            Box::new(io::Cursor::new(bytes[from as usize..].to_vec()))
        }))
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        self.operate("put", name)?;
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes).expect("readable");
        let mut contents = self.contents.lock().expect("ours");
        match contents.contains_key(name.as_str()) {
            true => Ok(Put::Existed),
            false => {
                contents.insert(name.as_str().to_owned(), bytes);
                Ok(Put::New)
            }
        }
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        self.operate("size", name)?;
        Ok(self.contents.lock().expect("ours").get(name.as_str()).map(|bytes| bytes.len() as u64))
    }

    fn count(&self, _: &str) -> Result<ContentTotals, RemoteFailure> {
        Ok(ContentTotals::default())
    }
}

impl Remote for Arc<Memory> {
    fn get(
        &self,
        name: &Name,
        from: u64,
        expected: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        (**self).get(name, from, expected)
    }

    fn put(&self, name: &Name, content: &Content<'_>) -> Result<Put, RemoteFailure> {
        (**self).put(name, content)
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        (**self).size(name)
    }

    fn count(&self, folder: &str) -> Result<ContentTotals, RemoteFailure> {
        (**self).count(folder)
    }
}

/// What one process sees of a remote.
fn shared(remote: &Arc<Memory>) -> SharedCache {
    shared_by(remote, Signing::default())
}

/// The same of somebody who signs, or trusts some.
fn shared_by(remote: &Arc<Memory>, signing: Signing) -> SharedCache {
    SharedCache::over(Box::new(Arc::clone(remote)), signing, Duration::MAX)
}

/// Waits until a remote that has failed would be asked again: a few times as long as it took to fail.
fn wait_for_pause(shared: &SharedCache) {
    while shared.trouble().is_some() {
        std::thread::yield_now();
    }
}

/// A record as it is in the cache of whoever has pulled it.
fn received(record: &Record) -> Record {
    Record { made_here: false, ..record.clone() }
}

/// A cache in a folder of its own.
pub(super) fn cache() -> (TempDir, Cache) {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(&folder.path().join("cache")).expect("a cache");
    cache.prepare().expect("writable");
    (folder, cache)
}

/// Bytes that cannot be compressed.
fn noise(name: &str, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Runs a stage that writes this.
pub(super) fn make(cache: &Cache, stage: &str, write: impl FnOnce(&Path)) -> Record {
    make_from(cache, stage, None, write)
}

/// Runs a stage that reads a result, and writes this.
fn make_from(
    cache: &Cache,
    stage: &str,
    input: Option<&Record>,
    write: impl FnOnce(&Path),
) -> Record {
    let kind = KeyPart::Kind { name: stage.to_owned(), version: 1 };
    let input = input.map(|input| KeyPart::Input {
        port: "input".to_owned(),
        from: input.stage.parse().expect("a name"),
        digest: input.output.digest,
    });
    let parts: Vec<_> = [kind].into_iter().chain(input).collect();
    let Lookup::Claim(claim) = cache.claim(&StageKey::of(&parts)).expect("writable") else {
        panic!("nobody has it");
    };
    write(&claim.output());
    let execution = ExecutionFacts {
        parts,
        stage: stage.to_owned(),
        experiment: "test".to_owned(),
        reason: Reason::NeverRan,
        artifact: pipeline_stages::ArtifactType::Directory,
        metrics: Default::default(),
        ran_on: None,
        usage: Default::default(),
    };
    let committed = claim.commit(execution, &[], &Watch::default(), &|| {});
    committed.map_err(|failed| failed.error).expect("writable").record
}

/// Two large files, one of which can be compressed, and many small ones.
pub(super) fn model(folder: &Path) {
    fs::write(folder.join("noise"), noise("common", 100_000)).expect("ours");
    fs::write(folder.join("zeros"), vec![0; 100_000]).expect("ours");
    for number in 0..100 {
        fs::write(folder.join(format!("small-{number}")), noise(&number.to_string(), number))
            .expect("ours");
    }
}

/// Changes a file of an artifact of [`model`].
fn damage(cache: &Cache, record: &Record) {
    let file = cache.artifact(&record.output.digest).join("noise");
    let mut permissions = fs::metadata(&file).expect("it exists").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&file, permissions).expect("ours");
    fs::write(&file, noise("other", 100_000)).expect("ours");
}

fn push(remote: &Memory, cache: &Cache, record: &Record) -> Result<Pushed, NotPulled> {
    Pusher { remote, cache, watch: &Watch::default(), signer: None }.push(record, What::Result)
}

fn pull(remote: &Memory, cache: &Cache, record: &Record) -> Result<Record, NotPulled> {
    let (stored, watch) = (StoredFiles::default(), Watch::default());
    Puller { remote, cache, stored: &stored, watch: &watch }.pull(record).map(|(record, _)| record)
}

#[test]
fn only_what_is_new_is_transferred() {
    let remote = Memory::default();
    let (_ann, ann) = cache();
    let first = make(&ann, "first", model);
    assert_eq!(push(&remote, &ann, &first).expect("it works"), Pushed::New);
    assert_eq!(
        remote.counts(),
        "get artifacts 1, put artifacts 1, put blobs 2, put packs 1, put records 1"
    );
    assert_eq!(push(&remote, &ann, &first).expect("it works"), Pushed::Existed);
    assert_eq!(remote.counts(), "get artifacts 1, get records 1");
    // Another artifact with the same large files, and one more.
    let second = make(&ann, "second", |folder| {
        model(folder);
        fs::write(folder.join("another"), noise("another", 70_000)).expect("ours");
    });
    push(&remote, &ann, &second).expect("it works");
    assert_eq!(
        remote.counts(),
        "get artifacts 1, put artifacts 1, put blobs 1, put packs 1, put records 1"
    );
    // The same artifact under another key.
    let third = make(&ann, "third", model);
    assert_eq!(push(&remote, &ann, &third).expect("it works"), Pushed::New);
    assert_eq!(remote.counts(), "get artifacts 1, put records 1");
    let (_bob, bob) = cache();
    pull(&remote, &bob, &first).expect("it works");
    assert_eq!(remote.counts(), "get artifacts 1, get blobs 2, get packs 1");
    assert_eq!(bob.usable(&first.key), Some(received(&first)));
    pull(&remote, &bob, &second).expect("it works");
    assert_eq!(remote.counts(), "get artifacts 1, get blobs 1, get packs 1");
    pull(&remote, &bob, &third).expect("it works");
    assert_eq!(remote.counts(), "", "the cache has the artifact");
    assert_eq!(bob.usable(&third.key), Some(received(&third)));
}

#[test]
fn what_is_damaged_here_is_neither_sent_nor_taken_for_what_another_artifact_has() {
    let remote = Memory::default();
    let (_ann, ann) = cache();
    let (first, second) = (
        make(&ann, "first", model),
        make(&ann, "second", |folder| {
            model(folder);
            fs::write(folder.join("x"), "x").expect("ours");
        }),
    );
    push(&remote, &ann, &second).expect("it works");
    let (_bob, bob) = cache();
    let first_of_bob = make(&bob, "first", model);
    damage(&ann, &first);
    damage(&bob, &first_of_bob);
    remote.remove("");
    let Err(NotPulled::Here(error)) = push(&remote, &ann, &first) else { panic!("it is damaged") };
    assert!(error.to_string().contains("is damaged, and was not pushed"), "{error:#}");
    assert!(!remote.contents.lock().expect("ours").keys().any(|name| name.starts_with("records")));
    push(&remote, &ann, &second).expect("it works");
    remote.counts();
    pull(&remote, &bob, &second).expect("it comes from the remote");
    assert_eq!(remote.counts(), "get artifacts 1, get blobs 1, get packs 1");
}

#[test]
fn what_was_damaged_here_is_sent_once_it_is_made_again_and_so_is_what_is_made_from_it() {
    let remote = Arc::new(Memory::default());
    let (_ann, ann) = cache();
    let from = |stage: &str, input: &Record| {
        make_from(&ann, stage, Some(input), |folder| {
            model(folder);
            fs::write(folder.join("stage"), stage).expect("ours");
        })
    };
    let withdraw = |record: &Record| {
        assert!(ann.quarantine_if_rewritten(&record.output.digest).expect("ours").is_some());
    };
    let process = shared(&remote);
    let push = |record: &Record| {
        let record = ann.usable(&record.key).expect("it is here");
        process.push(&ann, &record, What::Result, &Watch::default())
    };
    let refused = |record: &Record| match push(record) {
        Err(NotPulled::Here(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let made_from_first = "made from the result of first, which is damaged here";
    let first = make(&ann, "first", model);
    let second = from("second", &first);
    let third = from("third", &second);
    damage(&ann, &first);
    assert!(refused(&first).contains("is damaged, and was not pushed"));
    assert_eq!(refused(&second), made_from_first);
    assert_eq!(refused(&third), made_from_first);
    // One that is made again from what is still damaged.
    damage(&ann, &second);
    withdraw(&second);
    let second = from("second", &first);
    let third = from("third", &second);
    assert_eq!([refused(&third), refused(&third)], [made_from_first; 2]);
    withdraw(&first);
    let again = make(&ann, "first", model);
    assert_eq!(again.output.digest, first.output.digest);
    let second = from("second", &again);
    let third = from("third", &second);
    for record in [&third, &second, &again] {
        assert_eq!(push(record).expect("it is sound"), Pushed::New);
    }
}

#[test]
fn a_push_or_a_pull_that_is_cut_off_anywhere_leaves_nothing_that_counts_and_the_next_completes_it()
{
    let (_ann, ann) = cache();
    let record = make(&ann, "first", model);
    let is_there = |remote: &Memory| {
        remote.contents.lock().expect("ours").contains_key(Name::record(&record.key).as_str())
    };
    let mut whole = Memory::default();
    let mut cuts = 0;
    for end in 0.. {
        let remote = Memory { ends_at: Some(end), ..Memory::default() };
        let pushed = push(&remote, &ann, &record);
        if pushed.is_ok() {
            break;
        }
        cuts += 1;
        assert!(!is_there(&remote), "cut off at {end}");
        let remote = Memory { ends_at: None, ..remote };
        assert_eq!(push(&remote, &ann, &record).expect("it works"), Pushed::New);
        assert!(is_there(&remote));
        whole = remote;
    }
    assert!(cuts >= 10, "{cuts}");
    let mut cuts = 0;
    for end in 0.. {
        let (_bob, bob) = cache();
        whole = Memory { ends_at: Some(end), operations: AtomicU64::new(0), ..whole };
        let pulled = pull(&whole, &bob, &record);
        if pulled.is_ok() {
            break;
        }
        cuts += 1;
        assert_eq!(bob.record(&record.key), None, "cut off at {end}");
        assert_eq!(bob.artifacts().expect("readable"), []);
        whole = Memory { ends_at: None, ..whole };
        pull(&whole, &bob, &record).expect("it works");
        assert_eq!(bob.usable(&record.key), Some(received(&record)));
    }
    assert_eq!(cuts, 4);
}

/// A remote whose readers break off after so many bytes, and then nothing works; notes from where the bytes of large files were read.
struct Breaking<'m> {
    memory: &'m Memory,
    bytes: Option<usize>,
    begun: Mutex<Vec<u64>>,
}

impl Breaking<'_> {
    /// From where large files were read since the last call.
    fn begun(&self) -> Vec<u64> {
        let mut begun = std::mem::take(&mut *self.begun.lock().expect("ours"));
        begun.sort_unstable();
        begun
    }
}

/// Bytes, and then an error.
struct Broken(io::Take<Box<dyn Read>>);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::ConnectionReset.into()),
            count => Ok(count),
        }
    }
}

impl Remote for Breaking<'_> {
    fn get(
        &self,
        name: &Name,
        from: u64,
        _: u64,
    ) -> Result<Option<Box<dyn Read + '_>>, RemoteFailure> {
        if !name.as_str().starts_with("blobs/") {
            return self.memory.get(name, from, 0);
        }
        let mut begun = self.begun.lock().expect("ours");
        if self.bytes.is_some() && !begun.is_empty() {
            return Err(RemoteFailure::away("the cable is cut"));
        }
        begun.push(from);
        let bytes = self.memory.contents.lock().expect("ours")[name.as_str()].clone();
        let rest = bytes.get(from as usize..);
        // As Amazon says of a part that begins at the end.
        let rest = rest.filter(|rest| !rest.is_empty() || from == 0);
        let rest = rest.ok_or_else(|| RemoteFailure::refused("status 416"))?.to_vec();
        let rest: Box<dyn Read> = Box::new(io::Cursor::new(rest));
        Ok(Some(match self.bytes {
            Some(bytes) => Box::new(Broken(rest.take(bytes as u64))),
            None => rest,
        }))
    }

    fn put(&self, _: &Name, _: &Content<'_>) -> Result<Put, RemoteFailure> {
        Err(RemoteFailure::refused("read only"))
    }

    fn size(&self, name: &Name) -> Result<Option<u64>, RemoteFailure> {
        self.memory.size(name)
    }

    fn count(&self, _: &str) -> Result<ContentTotals, RemoteFailure> {
        Ok(ContentTotals::default())
    }
}

/// The files that a pull of a record has kept.
fn kept(cache: &Cache, record: &Record) -> Vec<std::path::PathBuf> {
    let folder = fs::read_dir(cache.layout().partial(&record.key)).into_iter().flatten();
    folder.map(|entry| entry.expect("readable").path()).collect()
}

#[test]
fn what_has_arrived_of_a_large_file_is_continued_and_checked() {
    let (_ann, ann) = cache();
    let mut half = noise("half", 100_000);
    half.iter_mut().step_by(2).for_each(|byte| *byte = 0);
    for (stage, content) in [("plain", noise("large", 200_000)), ("zstd", half.repeat(2))] {
        let large = make(&ann, stage, |folder| {
            fs::write(folder.join("large"), &content).expect("ours");
        });
        let memory = Memory::default();
        push(&memory, &ann, &large).expect("it works");
        let sent = memory.contents.lock().expect("ours").clone();
        let (_, blob) = sent.iter().find(|(name, _)| name.starts_with("blobs/")).expect("one");
        let remote = |bytes| Breaking { memory: &memory, bytes, begun: Mutex::default() };
        let pull = |remote: &Breaking<'_>, bob: &Cache| {
            let (stored, watch) = (StoredFiles::default(), Watch::default());
            Puller { remote, cache: bob, stored: &stored, watch: &watch }.pull(&large)
        };
        let whole = remote(None);
        let cut = |bob: &Cache, bytes: usize| {
            let cut = remote(Some(bytes));
            let failed = pull(&cut, bob).expect_err("it breaks off");
            assert!(matches!(failed, NotPulled::There(failure) if failure.may_pass()));
            assert_eq!((bob.record(&large.key), kept(bob, &large).len()), (None, 1));
            cut.begun()
        };
        // Twice, and then to the end.
        let (_bob, bob) = cache();
        assert_eq!(cut(&bob, 30_000), [0]);
        assert_eq!(cut(&bob, 20_000), [30_000]);
        pull(&whole, &bob).expect("it works");
        assert_eq!((whole.begun(), kept(&bob, &large).len()), (vec![50_000], 0));
        assert!(!bob.layout().partial(&large.key).exists());
        assert_eq!(bob.usable(&large.key), Some(received(&large)));
        // All of it has arrived, and was not put in its place.
        let (_bob, bob) = cache();
        cut(&bob, 30_000);
        fs::write(&kept(&bob, &large)[0], blob).expect("ours");
        pull(&whole, &bob).expect("it works");
        assert!(whole.begun().is_empty());
        // What was kept is damaged, and has more bytes than there are.
        for damage in [10_000, blob.len() + 1] {
            let (_bob, bob) = cache();
            cut(&bob, 30_000);
            fs::write(&kept(&bob, &large)[0], noise("damaged", damage)).expect("ours");
            pull(&whole, &bob).expect("it is fetched again");
            assert_eq!(whole.begun().first(), Some(&0));
            assert_eq!(
                (bob.usable(&large.key), kept(&bob, &large).len()),
                (Some(received(&large)), 0)
            );
        }
        // What is wrong there is not kept.
        let (_bob, bob) = cache();
        cut(&bob, 30_000);
        memory.contents.lock().expect("ours").iter_mut().for_each(|(name, bytes)| {
            if name.starts_with("blobs/") {
                bytes[40_000] ^= 1;
            }
        });
        let failed = pull(&whole, &bob).expect_err("it is wrong there");
        assert!(matches!(failed, NotPulled::There(failure) if failure.kind == FailureKind::Wrong));
        assert_eq!((whole.begun(), kept(&bob, &large).len()), (vec![0, 30_000], 0));
    }
}

#[test]
fn of_a_record_that_was_pushed_alone_the_artifact_can_follow() {
    let remote = Memory::default();
    let (_ann, ann) = cache();
    let record = make(&ann, "first", model);
    let pusher = Pusher { remote: &remote, cache: &ann, watch: &Watch::default(), signer: None };
    assert_eq!(pusher.push(&record, What::Record).expect("it works"), Pushed::New);
    assert_eq!(remote.counts(), "put records 1");
    let (_bob, bob) = cache();
    let Err(NotPulled::There(failure)) = pull(&remote, &bob, &record) else {
        panic!("it is not there")
    };
    assert_eq!(failure.reason, "its artifact is missing there");
    pusher.push(&record, What::Result).expect("it works");
    pull(&remote, &bob, &record).expect("it is there");
    // Another result of the key, which is there first, counts.
    let other = make(&bob, "second", |folder| fs::write(folder.join("a"), "1").expect("ours"));
    push(&remote, &bob, &other).expect("it works");
    let own = make(&ann, "second", |folder| fs::write(folder.join("a"), "2").expect("ours"));
    remote.counts();
    assert_eq!(push(&remote, &ann, &own).expect("it works"), Pushed::OtherBytes);
    assert_eq!(remote.counts(), "get records 1");
}

#[test]
fn eight_pushes_at_once_leave_one_whole_result() {
    let remote = Memory::default();
    let caches: Vec<_> = (0..8)
        .map(|number| {
            let (folder, cache) = cache();
            // As a training on a GPU: other bytes each time.
            let record = make(&cache, "train", |folder| {
                model(folder);
                fs::write(folder.join("weights"), noise(&format!("w{number}"), 90_000))
                    .expect("ours");
            });
            (folder, cache, record)
        })
        .collect();
    let pushed = std::thread::scope(|scope| {
        let push = |(_, cache, record)| push(&remote, cache, record).expect("it works");
        let all: Vec<_> =
            caches.iter().map(|(a, b, c)| scope.spawn(move || push((a, b, c)))).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!(pushed.iter().filter(|pushed| **pushed == Pushed::New).count(), 1);
    let key = caches[0].2.key;
    let there = remote.contents.lock().expect("ours")[Name::record(&key).as_str()].clone();
    let there = Record::of_key(&there, &key).expect("whole");
    let (_bob, bob) = cache();
    pull(&remote, &bob, &there).expect("it is whole");
    // Whoever has a result of the key keeps it.
    let (_, ann, own) = &caches[0];
    assert_eq!(&pull(&remote, ann, &there).expect("it has one"), own);
}

#[test]
fn what_leads_out_of_an_artifact_is_refused() {
    let outside = tempfile::tempdir().expect("a folder");
    let text = outside.path().display();
    let file = |path: &str| {
        format!(
            r#"{{"path":"{path}","kind":"file","executable":false,"bytes":0,"content":"{}"}}"#,
            blake3::hash(b"").to_hex()
        )
    };
    for lines in [
        file("../out"),
        file(&format!("{text}/out")),
        file("missing/out"),
        format!(r#"{{"path":"link","kind":"link","target":"{text}"}},{}"#, file("link/out")),
        format!("{},{}", file("a"), file("a")),
        r#"{"path":"a","kind":"file","executable":false,"bytes":0}"#.to_owned(),
    ] {
        let listing: crate::cache::Listing =
            serde_json::from_str(&format!("[{lines}]")).expect("a listing");
        let (_bob, bob) = cache();
        let mut record = make(&bob, "first", |_| {});
        record.output = crate::cache::Stored { digest: listing.digest(), extent: listing.extent() };
        let index =
            super::index::Index::new(listing, BTreeMap::new()).encode().expect("plain data");
        let name = Name::index(&record.output.digest).as_str().to_owned();
        let remote = Memory { contents: Mutex::new([(name, index)].into()), ..Memory::default() };
        let (_carol, carol) = cache();
        let Err(NotPulled::There(failure)) = pull(&remote, &carol, &record) else {
            panic!("{lines} is refused");
        };
        assert!(failure.reason.contains("is that of something else"), "{failure}");
        assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 0);
    }
}

#[test]
fn what_is_compressed_ends() {
    let remote = Memory::default();
    let (_ann, ann) = cache();
    let record = make(&ann, "model", model);
    push(&remote, &ann, &record).expect("it works");
    // In front of what is right, so much that has nothing in it that it could as well have no end.
    let nothing = zstd::bulk::compress(&[], 1).expect("it works").repeat(200_000);
    for folder in ["packs/", "blobs/"] {
        let whole = remote.contents.lock().expect("ours").clone();
        for (name, bytes) in &mut *remote.contents.lock().expect("ours") {
            if name.starts_with(folder) && name.ends_with(".zst") {
                bytes.splice(0..0, nothing.iter().copied());
            }
        }
        let (_bob, bob) = cache();
        let Err(NotPulled::There(failure)) = pull(&remote, &bob, &record) else {
            panic!("{folder}")
        };
        assert!(
            failure.reason.contains(folder) && failure.reason.contains("is damaged"),
            "{failure}"
        );
        *remote.contents.lock().expect("ours") = whole;
    }
    let (_bob, bob) = cache();
    pull(&remote, &bob, &record).expect("it works");
}

#[test]
fn what_does_not_come_today_is_still_known_and_what_is_wrong_is_forgotten() {
    let remote = Arc::new(Memory::default());
    let ((_ann, ann), (_bob, bob)) = (cache(), cache());
    let record = make(&ann, "first", model);
    let (key, watch) = (record.key, Watch::default());
    shared(&remote).push(&ann, &record, What::Result, &watch).expect("it works");
    let first = shared(&remote);
    first.ask(&[key]);
    first.keep(&bob);
    let is_known_later = || shared(&remote).known(&bob, &key).is_some();
    let failures: [Fails; 2] = [
        |_, _| Some(RemoteFailure::away("the cable is cut")),
        |_, name| name.as_str().starts_with("packs").then(|| RemoteFailure::refused("not today")),
    ];
    for fails in failures {
        remote.fail(Some(fails));
        let process = shared(&remote);
        let Err(NotPulled::There(failure)) = process.pull(&bob, &record, &watch) else {
            panic!("it fails")
        };
        assert!(process.known(&bob, &key).is_some() && is_known_later());
        process.pass_over(&key, &failure);
        assert_eq!(process.is_out_of_reach(&key), failure.kind == FailureKind::Away);
        assert!(process.known(&bob, &key).is_none(), "this process goes on without it");
        assert!(is_known_later());
    }
    remote.fail(None);
    remote.remove("packs");
    let process = shared(&remote);
    let Err(NotPulled::There(failure)) = process.pull(&bob, &record, &watch) else {
        panic!("it is missing")
    };
    assert_eq!(failure.reason, "its small files are missing there");
    assert!(process.known(&bob, &key).is_none() && !is_known_later());
    // Whoever asks again finds the record, and does not believe it.
    let later = shared(&remote);
    assert!(later.ask(&[key]) && later.known(&bob, &key).is_none());
    later.keep(&bob);
    assert!(!is_known_later());
    shared(&remote).push(&ann, &record, What::Result, &watch).expect("it works");
    let found = later.incomplete(&bob, &key).expect("it is tried again");
    later.pull(&bob, &found, &watch).expect("it is there again");
    assert!(later.known(&bob, &key).is_some());
}

#[test]
fn what_is_brought_has_its_record_there() {
    let remote = Arc::new(Memory::default());
    let ((_ann, ann), (_bob, bob)) = (cache(), cache());
    let (record, watch) = (make(&ann, "first", model), Watch::default());
    shared(&remote).push(&ann, &record, What::Result, &watch).expect("it works");
    // What was pushed from a cache is known there, and is the same as on the remote.
    let known = shared(&remote).known(&ann, &record.key).expect("it was pushed");
    shared(&remote).pull(&bob, &known, &watch).expect("it is there");
    remote.remove("records");
    let (_carol, carol) = cache();
    let theirs = Record { seconds: 9.0, ..record.clone() };
    for put in [None, Some(&theirs)] {
        put.map(|put| shared(&remote).push(&ann, put, What::Record, &watch).expect("it works"));
        match shared(&remote).pull(&carol, &record, &watch) {
            Err(NotPulled::There(failure)) => assert_eq!(
                failure.reason,
                match put {
                    None => "its record was removed there",
                    Some(_) => "another record has taken its place there",
                }
            ),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_remote_that_is_full_is_still_read() {
    let remote = Arc::new(Memory::default());
    let ((_ann, ann), (_bob, bob)) = (cache(), cache());
    let theirs = make(&ann, "first", model);
    let ours = make(&bob, "second", |folder| fs::write(folder.join("a"), "1").expect("ours"));
    let watch = Watch::default();
    shared(&remote).push(&ann, &theirs, What::Result, &watch).expect("it works");
    remote.counts();
    remote.fail(Some(|what, _| (what == "put").then(|| RemoteFailure::away("it is full"))));
    let process = shared(&remote);
    for _ in 0..2 {
        let Err(NotPulled::There(failure)) = process.push(&bob, &ours, What::Result, &watch) else {
            panic!("there is no room")
        };
        assert_eq!(failure.reason, "it is full");
    }
    // And whether it can be read.
    assert_eq!(remote.counts(), "get VERSION 2, get artifacts 1, put packs 1", "tried once");
    assert_eq!(process.trouble(), None);
    process.ask(&[theirs.key]);
    assert!(process.known(&bob, &theirs.key).is_some());
    process.pull(&bob, &theirs, &watch).expect("it can be read");
}

#[test]
fn the_artifact_of_a_record_that_was_sent_alone_is_still_to_be_sent() {
    let remote = Arc::new(Memory::default());
    let (_ann, ann) = cache();
    let (record, watch) = (make(&ann, "first", model), Watch::default());
    let lacks = |what| shared(&remote).may_lack(&ann, &record, what);
    for (sent, lacks_record, lacks_result) in
        [(None, true, true), (Some(What::Record), false, true), (Some(What::Result), false, false)]
    {
        let pushed = sent.map(|what| shared(&remote).push(&ann, &record, what, &watch));
        pushed.map(|pushed| pushed.expect("it works"));
        assert_eq!((lacks(What::Record), lacks(What::Result)), (lacks_record, lacks_result));
    }
}

#[test]
fn what_a_process_has_pushed_is_known_to_later_ones_although_it_was_not_there_when_it_asked() {
    let remote = Arc::new(Memory::default());
    let (_ann, ann) = cache();
    let (record, watch) = (make(&ann, "first", model), Watch::default());
    let process = shared(&remote);
    assert!(process.ask(&[record.key]) && process.known(&ann, &record.key).is_none());
    process.push(&ann, &record, What::Result, &watch).expect("it works");
    process.keep(&ann);
    assert!(process.known(&ann, &record.key).is_some());
    assert!(shared(&remote).known(&ann, &record.key).is_some());
}

#[test]
fn while_one_finds_out_whether_a_remote_works_again_others_go_on_without_it() {
    let remote = Arc::new(Memory::default());
    let (_ann, ann) = cache();
    let records = ["first", "second"].map(|stage| make(&ann, stage, model));
    let keys = records.each_ref().map(|record| record.key);
    let process =
        SharedCache::over(Box::new(Arc::clone(&remote)), Signing::default(), Duration::ZERO);
    remote.fail(Some(|_, _| Some(RemoteFailure::away("the cable is cut"))));
    assert!(!process.ask(&keys));
    remote.counts();
    wait_for_pause(&process);
    assert!(!process.ask(&keys));
    assert_eq!(remote.counts(), "get VERSION 1", "once for all");
    remote.fail(None);
    wait_for_pause(&process);
    assert!(process.ask(&keys), "all of them");
}

#[test]
fn a_remote_that_was_away_is_asked_again_after_a_pause() {
    let remote = Arc::new(Memory::default());
    let (_ann, ann) = cache();
    let (record, watch) = (make(&ann, "first", model), Watch::default());
    for pause in [Duration::MAX, Duration::ZERO] {
        let process = SharedCache::over(Box::new(Arc::clone(&remote)), Signing::default(), pause);
        remote.fail(Some(|_, _| Some(RemoteFailure::away("the cable is cut"))));
        assert!(!process.ask(&[record.key]) && !process.has_answered(&record.key));
        let pushed = process.push(&ann, &record, What::Result, &watch);
        assert!(matches!(pushed, Err(NotPulled::There(_))), "{pushed:?}");
        assert_eq!(process.take_news().len(), 1);
        remote.fail(None);
        let works = pause.is_zero();
        if works {
            wait_for_pause(&process);
        }
        let pushed = process.push(&ann, &record, What::Result, &watch);
        assert_eq!(pushed.is_ok(), works, "{pushed:?}");
        assert_eq!(process.ask(&[record.key]), works);
        assert_eq!(process.has_answered(&record.key), works);
        assert_eq!(process.take_news().len(), usize::from(works));
    }
}

#[test]
fn a_remote_whose_version_cannot_be_read_is_not_used_and_one_without_is() {
    let remote = Arc::new(Memory::default());
    let (_ann, ann) = cache();
    let record = make(&ann, "first", model);
    let watch = Watch::default();
    shared(&remote).push(&ann, &record, What::Result, &watch).expect("it works");
    let failures: [Fails; 2] =
        [|_, _| Some(RemoteFailure::refused("denied")), |_, _| Some(RemoteFailure::wrong("long"))];
    for fails in failures {
        remote.fail(Some(fails));
        let process = shared(&remote);
        process.ask(&[record.key]);
        assert!(process.trouble().is_some(), "it is said");
    }
    remote.fail(None);
    // The server has removed what is old.
    remote.remove("VERSION");
    let (_bob, bob) = cache();
    let process = shared(&remote);
    process.ask(&[record.key]);
    assert!(process.known(&bob, &record.key).is_some());
    process.push(&ann, &record, What::Result, &watch).expect("it works");
    assert!(remote.contents.lock().expect("ours").contains_key("VERSION"), "it is there again");
}

#[test]
fn what_a_remote_has_lost_is_sent_again_and_what_is_damaged_there_is_named() {
    let remote = Memory::default();
    let (_ann, ann) = cache();
    let record = make(&ann, "first", model);
    let sent_again =
        |folder: &str| if folder == "records" { Pushed::New } else { Pushed::Completed };
    push(&remote, &ann, &record).expect("it works");
    for folder in ["packs", "blobs", "artifacts", "records"] {
        remote.remove(folder);
        assert_eq!(push(&remote, &ann, &record).expect("it works"), sent_again(folder));
        assert_eq!(push(&remote, &ann, &record).expect("it works"), Pushed::Existed);
        let (_bob, bob) = cache();
        pull(&remote, &bob, &record).expect(folder);
    }
    for (folder, end) in [("blobs", ""), ("artifacts", ".json.zst"), ("records", ".json")] {
        let is_meant =
            |name: &str| name.starts_with(folder) && (!end.is_empty() || !name.contains('.'));
        let mut damaged = String::new();
        for (name, bytes) in remote.contents.lock().expect("ours").iter_mut() {
            if is_meant(name) {
                bytes.truncate(9);
                damaged.clone_from(name);
            }
        }
        let Err(NotPulled::There(failure)) = push(&remote, &ann, &record) else {
            panic!("{folder} is damaged")
        };
        let expected = format!("{damaged} is damaged there: remove it there, and push again");
        assert_eq!(failure.reason, expected);
        remote.remove(&damaged);
        assert_eq!(push(&remote, &ann, &record).expect("it works"), sent_again(folder));
    }
}

#[test]
fn what_is_damaged_here_is_replaced_by_what_comes() {
    let remote = Memory::default();
    let (_ann, ann) = cache();
    let (first, second) = (make(&ann, "first", model), make(&ann, "second", model));
    push(&remote, &ann, &second).expect("it works");
    let (_bob, bob) = cache();
    let first_of_bob = make(&bob, "first", model);
    assert_eq!(first_of_bob.output, first.output);
    damage(&bob, &first_of_bob);
    pull(&remote, &bob, &second).expect("the remote is right");
    let noise_of_bob = bob.artifact(&second.output.digest).join("noise");
    assert_eq!(fs::read(noise_of_bob).expect("it exists"), noise("common", 100_000));
}

#[test]
fn a_name_that_cannot_be_made_here_is_the_fault_of_the_remote() {
    let empty = blake3::hash(b"").to_hex();
    let file = |path: &str| {
        format!(
            r#"{{"path":"{path}","kind":"file","executable":false,"bytes":0,"content":"{empty}"}}"#
        )
    };
    for lines in [file(&"a".repeat(300)), file("a\\u0000b")] {
        let Ok(listing) = serde_json::from_str::<crate::cache::Listing>(&format!("[{lines}]"))
        else {
            panic!("{lines} is a listing")
        };
        let (_bob, bob) = cache();
        let mut record = make(&bob, "first", |_| {});
        record.output = crate::cache::Stored { digest: listing.digest(), extent: listing.extent() };
        let index =
            super::index::Index::new(listing, BTreeMap::new()).encode().expect("plain data");
        let name = Name::index(&record.output.digest).as_str().to_owned();
        let remote = Memory { contents: Mutex::new([(name, index)].into()), ..Memory::default() };
        let (_carol, carol) = cache();
        let pulled = pull(&remote, &carol, &record);
        assert!(matches!(pulled, Err(NotPulled::There(_))), "{lines}: {pulled:?}");
    }
}

/// The signing of somebody with a key of this file, who trusts these.
fn signing(key_file: &Path, trusted: &[&Signer]) -> Signing {
    let trust = Trust::Signed(trusted.iter().map(|signer| signer.public()).collect());
    Signing { trust, key_file: Some(key_file.to_owned()) }
}

#[test]
fn a_record_counts_if_somebody_has_signed_its_bytes_and_its_key_who_is_trusted() {
    let keys = tempfile::tempdir().expect("a folder");
    let [of_ann, of_eve] = ["ann", "eve"].map(|name| keys.path().join(name));
    let [ann, eve] = [&of_ann, &of_eve].map(|file| Signer::create(file).expect("writable"));
    let remote = Arc::new(Memory::default());
    let (_cache, cache) = cache();
    let watch = Watch::default();
    let by = |signing: Signing, stage: &str| {
        let record = make(&cache, stage, model);
        shared_by(&remote, signing).push(&cache, &record, What::Result, &watch).expect("it works");
        record
    };
    let signed = by(signing(&of_ann, &[&ann]), "signed");
    let moved = by(signing(&of_ann, &[&ann]), "moved");
    let by_eve = by(signing(&of_eve, &[&ann]), "by eve");
    let unsigned = by(Signing::default(), "unsigned");
    let changed = by(signing(&of_ann, &[&ann]), "changed");
    let names = |record: &Record, signer: &Signer, bytes: &[u8]| {
        let statement = crate::signing::Statement::new(&record.key, bytes);
        Name::signature(&statement.digest(), &signer.public().id()).to_string()
    };
    {
        let mut contents = remote.contents.lock().expect("ours");
        let bytes_of = |record: &Record| received(record).text().expect("plain data");
        // Whoever can write can put any bytes anywhere: a whole record with other numbers, beside its signature and that of the
        // record before it.
        let other = Record { seconds: 9.0, ..changed.clone() };
        contents.insert(Name::record(&changed.key).to_string(), bytes_of(&other));
        let old = contents[&names(&changed, &ann, &bytes_of(&changed))].clone();
        contents.insert(names(&other, &ann, &bytes_of(&other)), old);
        let of_signed = contents[&names(&signed, &ann, &bytes_of(&signed))].clone();
        contents.insert(names(&moved, &ann, &bytes_of(&moved)), of_signed.clone());
        let of_eve = contents[&names(&by_eve, &eve, &bytes_of(&by_eve))].clone();
        contents.insert(names(&by_eve, &ann, &bytes_of(&by_eve)), of_eve);
        contents.insert(names(&unsigned, &ann, &bytes_of(&unsigned)), vec![b'A'; 4096]);
    }
    let all = [&signed, &moved, &by_eve, &unsigned, &changed].map(|record| record.key);
    let (_bob, bob) = self::cache();
    let counts = |signing: Signing| {
        let shared = shared_by(&remote, signing);
        shared.ask(&all);
        shared.keep(&bob);
        let odd = shared.take_odd();
        let is_known = all.map(|key| shared.known(&bob, &key).is_some());
        let refused = is_known.iter().filter(|is_known| !**is_known).count();
        assert_eq!(odd.len(), refused, "{odd:?}");
        assert!(
            odd.iter().all(|(_, why)| why.ends_with("is not signed by anybody whom you trust"))
        );
        is_known
    };
    // What an earlier process believed is nothing to one that believes less.
    assert_eq!(counts(Signing::default()), [true; 5]);
    assert_eq!(counts(signing(&of_ann, &[&ann])), [true, false, false, false, false]);
    assert_eq!(counts(signing(&of_ann, &[&eve])), [false, false, true, false, false]);
    assert_eq!(counts(signing(&of_ann, &[&eve, &ann])), [true, false, true, false, false]);
    // One that cannot be read is none, and why is said.
    remote.fail(Some(|_, name| {
        let is_signature = name.as_str().starts_with("signatures/");
        is_signature.then(|| RemoteFailure::refused("the disk there is broken"))
    }));
    let shared = shared_by(&remote, signing(&of_ann, &[&ann]));
    shared.ask(&[signed.key]);
    assert!(shared.known(&cache, &signed.key).is_none());
    let odd = shared.take_odd();
    assert!(odd[0].1.ends_with("anybody whom you trust (the disk there is broken)"), "{odd:?}");
    remote.fail(None);
}

#[test]
fn only_what_was_made_here_is_signed_also_where_it_is_already_there() {
    let keys = tempfile::tempdir().expect("a folder");
    let [of_ann, of_bob] = ["ann", "bob"].map(|name| keys.path().join(name));
    let [ann, bob] = [&of_ann, &of_bob].map(|file| Signer::create(file).expect("writable"));
    let remote = Arc::new(Memory::default());
    let ((_first, of_first), (_second, of_second)) = (cache(), cache());
    let record = make(&of_first, "first", model);
    let watch = Watch::default();
    shared(&remote).push(&of_first, &record, What::Result, &watch).expect("it works");
    let pulled = shared(&remote).pull(&of_second, &record, &watch).expect("it is there").0;
    let push = |cache: &Cache, record: &Record, signing: Signing| {
        shared_by(&remote, signing).push(cache, record, What::Result, &watch).expect("it works")
    };
    let is_known = |signer: &Signer| {
        let shared = shared_by(&remote, signing(Path::new("none"), &[signer]));
        shared.ask(&[record.key]);
        shared.known(&of_second, &record.key).is_some()
    };
    assert_eq!(push(&of_second, &pulled, signing(&of_bob, &[&bob])), Pushed::Existed);
    assert!(!is_known(&bob), "it is not his");
    assert!(!is_known(&ann));
    assert_eq!(push(&of_first, &record, signing(&of_ann, &[&ann])), Pushed::Signed);
    assert!(is_known(&ann));
    assert_eq!(push(&of_first, &record, signing(&of_ann, &[&ann])), Pushed::Existed);
    // A record of before there were signatures does not say where it was made, and is sent without one.
    let old = received(&make(&of_first, "old", model));
    assert_eq!(push(&of_first, &old, signing(&of_ann, &[&ann])), Pushed::New);
    let has_signature = |record: &Record| {
        let text = received(record).text().expect("plain data");
        let statement = crate::signing::Statement::new(&record.key, &text);
        let name = Name::signature(&statement.digest(), &ann.public().id()).to_string();
        remote.contents.lock().expect("ours").get(&name).cloned().map(|_| name)
    };
    assert_eq!(has_signature(&old), None);
    // What somebody else has put there under the same key is not signed, and that is said.
    let theirs = Record { seconds: 9.0, ..record.clone() };
    assert_eq!(push(&of_first, &theirs, signing(&of_ann, &[&ann])), Pushed::Unsigned);
    // A signature that was cut off is not taken for one.
    let name = has_signature(&record).expect("it was signed");
    remote.contents.lock().expect("ours").insert(name.clone(), b"AAAA".to_vec());
    let by_ann = shared_by(&remote, signing(&of_ann, &[&ann]));
    match by_ann.push(&of_first, &record, What::Result, &watch) {
        Err(NotPulled::There(failure)) => {
            assert_eq!(
                failure.reason,
                format!("{name} is damaged there: remove it there, and push again")
            );
        }
        other => panic!("{other:?}"),
    }
    // To a second remote, he sends it without a signature.
    let elsewhere = Arc::new(Memory::default());
    let sent = shared_by(&elsewhere, signing(&of_bob, &[&bob]));
    sent.push(&of_second, &pulled, What::Result, &watch).expect("it works");
    assert!(!elsewhere.contents.lock().expect("ours").keys().any(|name| name.starts_with("sig")));
}
