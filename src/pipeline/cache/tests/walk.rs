//! Every operation of a cache, with every fault before each of its changes: afterwards the cache has the old state or the new one,
//! nothing that had been committed is lost, and the same operation comes to its end.

use std::os::unix::fs::symlink;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use super::*;
use crate::cache::disk::faults::{Dice, without_flags};
use crate::cache::pins::read_pins;
use crate::cache::stat::Stat;

/// How often a power cut is tried at each change. Twice, all is as it was when it was synced, or as it is now.
const THROWS: u64 = 5;

/// Something that changes a cache.
struct Operation {
    name: &'static str,
    /// What there is before.
    before: fn(&Cache),
    act: fn(&Cache) -> anyhow::Result<()>,
    /// The stages whose results may go.
    may_go: &'static [&'static str],
    /// Whether it has come to its end.
    is_done: fn(&Cache) -> bool,
    /// Whether what it did stays, once it has returned.
    lasts: bool,
    /// What holds once it has returned.
    stays: fn(&Cache) -> bool,
    /// Whether the cache is what it must be, in between, too.
    is_sound: fn(&Cache) -> bool,
}

const A: &[Content<'_>] = &[("data", "aaaa"), ("folder/inner/file", "1")];
const B: &[Content<'_>] = &[("data", "bbbb")];

fn key(stage: &str) -> StageKey {
    StageKey::of(&parts(stage, &[]))
}

fn has(cache: &Cache, stage: &str) -> bool {
    cache.usable(&key(stage)).is_some()
}

fn make_a(cache: &Cache) {
    make(cache, "a", &[], A).expect("a result");
}

/// The artifact of `a`, and a result that was made from it.
fn read_a(cache: &Cache) -> (Digest, StageKey) {
    make_a(cache);
    let digest = digest_of_a();
    (digest, make(cache, "reader", &[digest], B).expect("a result").key)
}

fn digest_of_a() -> Digest {
    /// Once, and without a fault.
    static DIGEST: LazyLock<Digest> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        write_files(folder.path(), A).expect("writable");
        Listing::of(folder.path()).expect("readable").digest()
    });
    *DIGEST
}

/// The key of what was made from the artifact of `a`.
fn reader() -> StageKey {
    StageKey::of(&parts("reader", &[digest_of_a()]))
}

/// What was made from a damaged artifact counts only as long as that is in its place, where the next check finds it.
fn nothing_counts_without_its_damaged_input(cache: &Cache) -> bool {
    cache.usable(&reader()).is_none() || !is_away(cache)
}

/// Whether the damaged artifact of `a` has left.
fn is_away(cache: &Cache) -> bool {
    store::is_intact(cache.layout(), &digest_of_a()).expect("readable")
        || !cache.has_artifact(&digest_of_a())
}

fn always(_: &Cache) -> bool {
    true
}

fn begin_a(cache: &Cache) -> anyhow::Result<Box<Incoming>> {
    let mut record = Record::for_test("a", parts("a", &[]), digest_of_a());
    record.output.extent = Extent { files: 2, bytes: 5 };
    let Reception::Ready(incoming) = cache.receive(&record)? else { bail!("it is here") };
    Ok(incoming)
}

/// Receives the result of `a`.
pub(super) fn receive_a(cache: &Cache) -> anyhow::Result<()> {
    let incoming = begin_a(cache)?;
    if !incoming.is_sound_here() {
        ["folder", "folder/inner"]
            .iter()
            .try_for_each(|path| incoming.create_folder(Path::new(path)))?;
        for (path, text) in A {
            incoming.create_file(Path::new(path), false)?.write(text.as_bytes())?;
        }
    }
    match incoming.adopt()? {
        Adopted::Counts(_) => Ok(()),
        Adopted::OtherBytes => bail!("it has other bytes"),
    }
}

/// Receives the result of `a`, the first file of it as a large one is: what has arrived of it is continued, if it is what it should be.
fn receive_a_and_keep(cache: &Cache) -> anyhow::Result<()> {
    let (incoming, [(large, content), (small, text)]) = (begin_a(cache)?, A) else { bail!("two") };
    ["folder", "folder/inner"]
        .iter()
        .try_for_each(|path| incoming.create_folder(Path::new(path)))?;
    incoming.create_file(Path::new(small), false)?.write(text.as_bytes())?;
    let mut kept = incoming.keep("large", false)?;
    let mut arrived = String::new();
    if let Some((mut file, _)) = kept.earlier() {
        let _ = std::io::Read::read_to_string(&mut file, &mut arrived);
    }
    if !content.starts_with(&arrived) {
        kept.forget();
        (kept, arrived) = (incoming.keep("large", false)?, String::new());
    }
    kept.file.write(arrived.as_bytes())?;
    kept.forget_earlier();
    kept.file.write(&content.as_bytes()[arrived.len()..])?;
    incoming.place(&kept, Path::new(large), false)?;
    match incoming.adopt()? {
        Adopted::Counts(_) => Ok(()),
        Adopted::OtherBytes => bail!("it has other bytes"),
    }
}

fn some_links() -> Links {
    ["x", "y", "z"].map(|name| (name.to_owned(), digest_of_a())).into()
}

fn some_digest(text: &str) -> Digest {
    crate::digest::FieldHasher::new("test").text(text).finish()
}

/// What is known of the file that says the version, as if it had been written long ago.
fn old_stat(cache: &Cache) -> Stat {
    let metadata = fs::metadata(cache.layout().version()).expect("a cache has a version");
    Stat { modified_nanoseconds: 1, changed_nanoseconds: 1, ..Stat::of(&metadata) }
}

fn pinned(cache: &Cache) -> Vec<Pinned> {
    let pins = read_pins(cache.layout(), false).expect("readable");
    pins.into_iter().flat_map(|pin| pin.pinned).collect()
}

fn a_is_pinned(cache: &Cache) -> bool {
    pinned(cache).iter().any(|pin| [Pinned::Key(key("a")), Pinned::Everything].contains(pin))
}

fn begin_job(cache: &Cache) -> anyhow::Result<Option<JobFolder>> {
    cache.begin_job(&key("a"), b"{}", [Pinned::Key(key("a"))].into_iter())
}

/// Whoever finds a job finds all that it is to do, and what it uses is pinned.
fn a_job_is_whole_and_pins(cache: &Cache) -> bool {
    let Some(job) = cache.job(&key("a")) else { return true };
    fs::read(job.spec()).is_ok_and(|spec| spec == b"{}") && a_is_pinned(cache)
}

fn remote_record() -> Record {
    Record::for_test("a", parts("a", &[]), digest_of_a())
}

fn put_checkpoint(cache: &Cache, stage: &str) {
    let folder = cache.layout().checkpoint(&key(stage));
    write_files(&folder, &[("0/state", "1"), ("0.lock", "")]).expect("writable");
}

/// The content of the outputs of reruns that were kept.
fn kept_reruns(cache: &Cache) -> Vec<Digest> {
    let outputs = disk::entries(&cache.layout().bucket(Bucket::Reruns)).expect("readable");
    let listing = |output: &fs::DirEntry| Listing::of(&output.path()).expect("readable");
    outputs.iter().map(|output| listing(output).digest()).collect()
}

/// The name under which `left` is kept.
fn left() -> Digest {
    crate::digest::FieldHasher::new("left to jobs").bytes(b"left").finish()
}

const COMMIT: Operation = Operation {
    name: "commit",
    before: |_| {},
    act: |cache| make(cache, "a", &[], A).map(drop),
    may_go: &[],
    is_done: |cache| has(cache, "a"),
    lasts: true,
    stays: always,
    is_sound: always,
};

/// Also those that a power cut may undo or tear, although they have returned: after it, what a lazy run made is looked at first, and
/// what was made again only to be compared does not count.
fn without_power_cuts() -> Vec<Operation> {
    let mut operations = operations();
    operations.extend([
        Operation {
            name: "a lazy run",
            act: |cache| {
                let lazy = cache.lazily().context("each start has a name")?;
                for (stage, files) in [("a", A), ("b", B)] {
                    if !has(&lazy, stage) {
                        make(&lazy, stage, &[], files)?;
                    }
                }
                lazy.flush()
            },
            is_done: |cache| has(cache, "a") && has(cache, "b"),
            ..COMMIT
        },
        Operation {
            name: "a rerun is kept",
            before: make_a,
            act: |cache| {
                let scratch = cache.scratch(&key("a"))?.context("nobody else has it")?;
                write_files(&scratch.output(), B)?;
                cache.keep_rerun(&scratch, &key("a")).map(drop)
            },
            is_done: |cache| !kept_reruns(cache).is_empty(),
            // It is there as a whole, or not at all.
            is_sound: |cache| {
                let folder = tempfile::tempdir().expect("a folder");
                write_files(folder.path(), B).expect("writable");
                let whole = Listing::of(folder.path()).expect("readable").digest();
                kept_reruns(cache).iter().all(|kept| *kept == whole)
            },
            ..COMMIT
        },
    ]);
    operations
}

fn operations() -> Vec<Operation> {
    let commit = COMMIT;
    vec![
        Operation {
            name: "what was not flushed before a restart is looked at, and counts",
            before: |cache| {
                let lazy = cache.lazily().expect("each start has a name");
                make(&lazy, "a", &[], A).expect("a result");
            },
            act: |cache| match cache.after_restart("another").claim(&key("a"))? {
                Lookup::Hit(_) => Ok(()),
                Lookup::Claim(_) | Lookup::Busy => bail!("it is whole"),
            },
            is_done: |cache| cache.usable(&key("a")).is_some_and(|record| record.lazy.is_none()),
            ..commit
        },
        Operation {
            name: "what is left to jobs is kept",
            act: |cache| cache.keep_left(b"left").map(drop),
            is_done: |cache| cache.left(&left()).is_ok_and(|content| content == b"left"),
            ..commit
        },
        Operation {
            name: "the cache is made",
            before: |cache| durable::remove_tree(cache.layout().root()).expect("writable"),
            act: |cache| cache.prepare(),
            is_done: |cache| {
                let mut folders = cache.layout().folders();
                cache.layout().version().exists() && folders.all(|folder| folder.is_dir())
            },
            lasts: true,
            ..commit
        },
        Operation {
            name: "a commit of many files",
            act: |cache| {
                let names: Vec<String> = (0..300).map(|number| format!("{number}")).collect();
                let files: Vec<_> = names.iter().map(|name| (name.as_str(), "text")).collect();
                make(cache, "a", &[], &files).map(drop)
            },
            ..commit
        },
        Operation {
            name: "a commit of what the store has",
            before: |cache| drop(make(cache, "same", &[], A)),
            ..commit
        },
        Operation {
            name: "a commit of a file that has another name, and of a link",
            act: |cache| {
                let claim = claimed(cache, &key("a"))?;
                super::commit(cache, claim, "a", &[], |output, _| {
                    write_files(output, B)?;
                    fs::hard_link(output.join("data"), output.join("other"))?;
                    Ok(symlink("data", output.join("link"))?)
                })
                .map(drop)
            },
            ..commit
        },
        Operation {
            name: "a commit after a checkpoint and a failure",
            before: |cache| {
                let claim = claimed(cache, &key("a")).expect("a claim");
                write_files(&claim.output(), B).expect("writable");
                claim.keep_failed().expect("writable");
                put_checkpoint(cache, "a");
            },
            ..commit
        },
        Operation {
            name: "another commit of a key",
            before: make_a,
            act: |cache| {
                let Lookup::Claim(claim) = cache.claim_again(&key("a"))? else { bail!("no claim") };
                super::commit(cache, claim, "a", &[], |output, _| write_files(output, B)).map(drop)
            },
            is_done: |cache| {
                let record = cache.usable(&key("a"));
                record.is_some_and(|record| record.output.digest != digest_of_a())
            },
            ..commit
        },
        Operation {
            name: "a commit in the place of what is damaged",
            before: |cache| damage(cache, &read_a(cache).0, "data", "AAAA"),
            act: |cache| make(cache, "same", &[], A).map(drop),
            is_done: |cache| has(cache, "same") && is_away(cache),
            is_sound: nothing_counts_without_its_damaged_input,
            ..commit
        },
        Operation {
            name: "an input is found damaged",
            before: |cache| damage(cache, &read_a(cache).0, "data", "shorter or longer"),
            act: |cache| {
                if let Some(record) = cache.usable(&key("a")) {
                    cache.quarantine_if_damaged(&record.output)?;
                }
                Ok(())
            },
            is_done: is_away,
            lasts: false,
            stays: |cache| cache.usable(&reader()).is_none(),
            is_sound: nothing_counts_without_its_damaged_input,
            ..commit
        },
        Operation {
            name: "verify finds damage",
            before: |cache| damage(cache, &read_a(cache).0, "data", "AAAA"),
            act: verify,
            is_done: is_away,
            lasts: false,
            stays: |cache| cache.usable(&reader()).is_none(),
            is_sound: nothing_counts_without_its_damaged_input,
            ..commit
        },
        Operation {
            name: "verify finds a damaged record",
            before: |cache| {
                make_a(cache);
                fs::write(cache.layout().record(&key("a")), "{").expect("writable");
            },
            act: verify,
            is_done: |cache| cache.read_record(&key("a")).err() == Some(Unreadable::Missing),
            lasts: false,
            ..commit
        },
        Operation {
            name: "a withdrawn record is restored",
            before: |cache| {
                let (digest, _) = read_a(cache);
                cache.withdraw_made_from(&[digest]).expect("writable");
            },
            act: |cache| match cache.restore(&reader())? {
                Restored::ArtifactGone => bail!("there is nothing to restore"),
                Restored::CountsAgain | Restored::Replaced => Ok(()),
            },
            stays: always,
            is_done: |cache| cache.usable(&reader()).is_some(),
            // Not even the power cut loses it.
            is_sound: |cache| {
                cache.usable(&reader()).is_some() || cache.withdrawn(&reader()).is_some()
            },
            ..commit
        },
        Operation {
            name: "a failure is kept",
            act: |cache| {
                let claim = claimed(cache, &key("a"))?;
                write_files(&claim.output(), A)?;
                claim.keep_failed().map(drop)
            },
            is_done: |cache| cache.layout().failed(&key("a")).join("data").exists(),
            lasts: false,
            ..commit
        },
        Operation {
            name: "a checkpoint that must not be used is removed",
            before: |cache| put_checkpoint(cache, "a"),
            act: |cache| claimed(cache, &key("a"))?.remove_checkpoint(),
            is_done: |cache| !cache.holds_checkpoint(&key("a")),
            ..commit
        },
        Operation {
            name: "a stage has another record",
            before: make_a,
            act: |cache| {
                let record = cache.usable(&key("a")).context("it was made")?;
                cache.set_head("test", "a", &record.key).map(drop)
            },
            is_done: |cache| cache.head("test", "a") == Some(key("a")),
            ..commit
        },
        Operation {
            name: "links are swapped",
            before: |cache| {
                make_a(cache);
                let digest = digest_of_a();
                let old = [("x".to_owned(), digest), ("old".to_owned(), digest)].into();
                cache.set_links("test", &old).expect("writable");
            },
            act: |cache| cache.set_links("test", &some_links()),
            is_done: |cache| cache.links("test") == some_links(),
            lasts: false,
            ..commit
        },
        Operation {
            name: "links are replaced one by one",
            before: |cache| {
                make_a(cache);
                fs::create_dir(cache.layout().links("test")).expect("writable");
                fs::write(cache.layout().links("test").join("mine"), "mine").expect("writable");
            },
            act: |cache| cache.set_links("test", &some_links()),
            is_done: |cache| cache.links("test") == some_links(),
            lasts: false,
            stays: always,
            is_sound: |cache| cache.layout().links("test").join("mine").exists(),
            ..commit
        },
        Operation {
            name: "cleaning",
            before: cleaning::put_what_goes_and_what_stays,
            act: |cache| cleaning::clean(cache, cleaning::KEPT),
            may_go: &["old", "older"],
            is_done: cleaning::is_clean,
            lasts: false,
            // What is made from the same bytes again finds all of them.
            stays: |cache| !has(cache, "old") && !has(cache, "older"),
            is_sound: cleaning::is_sound,
        },
        Operation {
            name: "a link is set",
            before: make_a,
            act: |cache| cache.set_link("test", "a", &digest_of_a()),
            is_done: |cache| cache.links("test").contains_key("a"),
            lasts: false,
            ..commit
        },
        Operation {
            name: "the sweep",
            before: |cache| {
                make_a(cache);
                put_checkpoint(cache, "a");
                let layout = cache.layout();
                // Of earlier versions, and of this one.
                for place in ["/1-0/output", "-1-0-5/output"] {
                    let place = layout.work(&format!("{}{place}", key("a")));
                    fs::create_dir_all(place).expect("writable");
                }
                fs::write(layout.root().join(".new-1"), "half").expect("writable");
            },
            act: |cache| {
                // It is due, and so is this.
                fs::write(cache.layout().lock("sweep"), "")?;
                let new =
                    fs::File::options().write(true).open(cache.layout().root().join(".new-1"));
                let long_ago = SystemTime::now() - Duration::from_secs(7200);
                new.map_or(Ok(()), |new| new.set_modified(long_ago))?;
                sweep::sweep(cache);
                Ok(())
            },
            is_done: |cache| {
                let has_work = fs::read_dir(cache.layout().bucket(Bucket::Tmp))
                    .is_ok_and(|mut listing| listing.next().is_some());
                !has_work
                    && !cache.holds_checkpoint(&key("a"))
                    && !cache.layout().root().join(".new-1").exists()
            },
            lasts: false,
            ..commit
        },
        Operation {
            name: "the history of a run",
            act: |cache| {
                let digest = cache.keep_document(Document::Plan, b"the plan")?;
                let first = format!("{digest}\n");
                let mut journal = cache.begin_journal("test", "run", first.as_bytes())?;
                journal.add(b"the end\n")?;
                Ok(journal.sync()?)
            },
            is_done: |cache| {
                let runs = cache.runs("test").expect("readable");
                let texts = runs.iter().filter_map(|run| Some(cache.run("test", run).ok()?.0));
                let texts: Vec<_> = texts.collect();
                texts.iter().any(|text| {
                    let text = String::from_utf8_lossy(text);
                    text.lines().next().is_some_and(|digest| {
                        let digest = digest.parse().expect("a first line is whole");
                        cache.document(Document::Plan, &digest).is_some()
                            && text.ends_with("the end\n")
                    })
                })
            },
            ..commit
        },
        Operation {
            name: "an index is kept beside many",
            before: |cache| {
                for number in 0..70 {
                    let index = cache.layout().index(&some_digest(&number.to_string()));
                    durable::write_disposable(&index, b"old").expect("writable");
                }
            },
            act: |cache| cache.keep_index(&some_digest("new"), b"an index"),
            is_done: |cache| {
                let others = fs::read_dir(cache.layout().bucket(Bucket::Indexes));
                let names = others.into_iter().flatten().flatten().map(|entry| entry.file_name());
                let is_whole = |name: &std::ffi::OsString| !name.to_string_lossy().starts_with('.');
                let new = fs::read(cache.layout().index(&some_digest("new")));
                new.is_ok_and(|text| text == b"an index") && names.filter(is_whole).count() <= 64
            },
            lasts: false,
            ..commit
        },
        Operation {
            name: "the stat index is written",
            act: |cache| {
                let index = StatIndex::at(cache.layout().stat_index());
                index.digest(&cache.layout().version(), &old_stat(cache))?;
                index.write()
            },
            is_done: |cache| {
                let index = StatIndex::at(cache.layout().stat_index());
                let known = index.digest(Path::new("nowhere"), &old_stat(cache)).ok();
                let version = fs::read(cache.layout().version()).expect("readable");
                known.is_some_and(|digest| digest == blake3::hash(&version).into())
            },
            lasts: false,
            ..commit
        },
        Operation {
            name: "something is pinned",
            act: |cache| cache.pin([Pinned::Key(key("a"))], |_| {}),
            // A line of which only a half was written may mean everything.
            is_done: a_is_pinned,
            // No longer than its process.
            lasts: false,
            ..commit
        },
        Operation {
            name: "nothing is pinned any more",
            before: |cache| cache.pin([Pinned::Everything], |_| {}).expect("writable"),
            act: |cache| {
                cache.unpin();
                Ok(())
            },
            is_done: |cache| pinned(cache).is_empty(),
            ..commit
        },
        Operation {
            name: "a limit is set",
            before: |cache| cache.set_limit(Limit::None).expect("writable"),
            act: |cache| cache.set_limit(Limit::Bytes(5)),
            is_done: |cache| cache.limit().ok().flatten() == Some(Limit::Bytes(5)),
            is_sound: |cache| cache.limit().is_ok_and(|limit| limit.is_some()),
            ..commit
        },
        Operation {
            name: "a job is made",
            act: |cache| begin_job(cache).map(drop),
            is_done: |cache| cache.job(&key("a")).is_some(),
            is_sound: a_job_is_whole_and_pins,
            ..commit
        },
        Operation {
            name: "a job is submitted, and reports its end",
            before: |cache| drop(begin_job(cache).expect("writable")),
            act: |cache| {
                let job = cache.job_place(&key("a"));
                job.write_script("true\n")?;
                job.set_submitted(b"7")?;
                job.journal()?.add(b"the end\n")?;
                job.set_ended()
            },
            is_done: |cache| {
                let job = cache.job_place(&key("a"));
                let events = job.events(0).unwrap_or_default();
                job.submitted().ok().flatten().is_some_and(|id| id == b"7")
                    && events.ends_with(b"the end\n")
                    && job.ended().exists()
            },
            // What the job reports is for whoever follows it.
            lasts: false,
            is_sound: a_job_is_whole_and_pins,
            ..commit
        },
        Operation {
            name: "a job is removed",
            before: |cache| drop(begin_job(cache).expect("writable")),
            act: |cache| cache.job_place(&key("a")).remove(),
            is_done: |cache| cache.job(&key("a")).is_none(),
            lasts: false,
            is_sound: a_job_is_whole_and_pins,
            ..commit
        },
        Operation {
            name: "what a remote has is kept",
            act: |cache| {
                cache.keep_remote_record(&some_digest("remote"), &remote_record());
                Ok(())
            },
            is_done: |cache| {
                let found = cache.remote_record(&some_digest("remote"), &key("a"));
                found == Some(remote_record())
            },
            lasts: false,
            ..commit
        },
        Operation {
            name: "what a remote had is forgotten",
            before: |cache| cache.keep_remote_record(&some_digest("remote"), &remote_record()),
            act: |cache| {
                cache.forget_remote_record(&some_digest("remote"), &key("a"));
                Ok(())
            },
            is_done: |cache| cache.remote_record(&some_digest("remote"), &key("a")).is_none(),
            lasts: false,
            ..commit
        },
        Operation { name: "a result from elsewhere", act: receive_a, ..commit },
        Operation {
            name: "a result from elsewhere of which some has arrived",
            before: |cache| {
                let incoming = begin_a(cache).expect("it is not here");
                let kept = incoming.keep("large", false).expect("writable");
                kept.file.write(b"aa").expect("writable");
            },
            act: receive_a_and_keep,
            ..commit
        },
        Operation {
            name: "a result from elsewhere whose artifact is here",
            before: |cache| drop(make(cache, "other", &[], A).expect("a result")),
            act: receive_a,
            ..commit
        },
        commit,
    ]
}

/// What counts in a cache.
fn usable(cache: &Cache) -> Vec<(StageKey, Digest)> {
    let (records, _) = cache.records();
    let counts = |record: &Record| cache.has_artifact(&record.output.digest);
    records
        .iter()
        .filter(|record| counts(record))
        .map(|record| (record.key, record.output.digest))
        .collect()
}

impl Operation {
    /// Acts in a new cache, with a fault after so many changes. Returns how many there were.
    fn with(&self, fault: Fault, after: u64) -> u64 {
        let root = Root::new();
        digest_of_a();
        let cache = without_fault(|| {
            let cache = root.cache();
            (self.before)(&cache);
            cache
        });
        assert!(!(self.is_done)(&cache), "{}: there is nothing to do", self.name);
        let sound: Vec<_> = usable(&cache)
            .into_iter()
            .filter(|(_, digest)| store::is_intact(cache.layout(), digest).is_ok_and(|is| is))
            .filter(|(found, _)| !self.may_go.iter().any(|stage| *found == key(stage)))
            .collect();
        let (result, mut cut) = with_fault(root.0.path(), fault, after, || (self.act)(&cache));
        let place = || format!("{}: {fault:?} after {after} changes ({result:?})", self.name);
        assert!(cut.changes > after || result.is_ok(), "{}", place());
        let must_be_done = result.is_ok() && self.lasts;
        let stays = |cache: &Cache| result.is_err() || (self.stays)(cache);
        if fault != Fault::PowerCut {
            self.check(&cache, &sound, must_be_done || cut.changes <= after, &place());
            return cut.changes;
        }
        for throw in 0..THROWS {
            let image = Root::new();
            let dice = match throw {
                0 => Dice::always(0),
                1 => Dice::always(1),
                _ => Dice::new(after.wrapping_mul(THROWS) + throw),
            };
            cut.write_image(image.0.path(), dice).expect("an image");
            let cache = Cache::open(&image.path()).unwrap_or_else(|error| {
                panic!("{}: throw {throw}: {error:#}", place());
            });
            let place = format!("{}, throw {throw}", place());
            assert!(stays(&cache), "{place}: it does not stay");
            self.check(&cache, &sound, must_be_done, &place);
        }
        cut.changes
    }

    /// Checks a cache in which the operation may have come to its end, and acts once more.
    fn check(&self, cache: &Cache, sound: &[(StageKey, Digest)], must_be_done: bool, place: &str) {
        assert!(!must_be_done || (self.is_done)(cache), "{place}: it is not done");
        self.check_soundness(cache, sound, place);
        without_fault(|| {
            cache.prepare().unwrap_or_else(|error| panic!("{place}: {error:#}"));
            if !(self.is_done)(cache) {
                self.again(cache).unwrap_or_else(|error| panic!("{place}: not again: {error:#}"));
            }
        });
        assert!((self.is_done)(cache), "{place}: it does not come to its end");
        self.check_soundness(cache, sound, place);
    }

    /// Acts once more. A process that another test starts at the same time has a copy of each lock until it is another program.
    fn again(&self, cache: &Cache) -> anyhow::Result<()> {
        let is_locked =
            |error: &anyhow::Error| error.to_string().ends_with("cleans this cache already");
        for _ in 0..100 {
            match (self.act)(cache) {
                Err(error) if is_locked(&error) => std::thread::sleep(Duration::from_millis(10)),
                acted => return acted,
            }
        }
        (self.act)(cache)
    }

    fn check_soundness(&self, cache: &Cache, sound: &[(StageKey, Digest)], place: &str) {
        assert!((self.is_sound)(cache), "{place}: not sound");
        let now = usable(cache);
        let (records, damaged) = cache.records();
        if !self.name.contains("damaged record") {
            assert!(damaged.is_empty(), "{place}: damaged records: {damaged:?}");
        }
        for (key, digest) in sound {
            let is_there = now.iter().any(|(other, _)| other == key);
            let why = cache.withdrawn(key).map(|withdrawn| withdrawn.reason);
            let is_withdrawn = *key == reader() && why.is_some_and(|why| !why.is_empty());
            assert!(is_there || is_withdrawn, "{place}: {} is lost", digest.short());
        }
        for record in records {
            let digest = record.output.digest;
            let is_sound = !cache.has_artifact(&digest)
                || is_damaged_before(self, &digest)
                || store::is_intact(cache.layout(), &digest).is_ok_and(|is| is);
            assert!(is_sound, "{place}: the artifact of {} is not whole", record.stage);
        }
    }
}

/// Whether it is what was damaged before the operation.
fn is_damaged_before(operation: &Operation, digest: &Digest) -> bool {
    std::ptr::fn_addr_eq(
        operation.is_sound,
        nothing_counts_without_its_damaged_input as fn(&Cache) -> bool,
    ) && *digest == digest_of_a()
}

/// Walks through these operations, and returns how many faults there were.
fn walk(fault: Fault, operations: &[Operation]) -> u64 {
    let mut faults = 0;
    for operation in operations {
        let changes = operation.with(fault, u64::MAX);
        // Of hundreds that are alike, some.
        let step = if changes > 200 { 97 } else { 1 };
        for after in (0..=changes).step_by(step) {
            operation.with(fault, after);
            faults += 1;
        }
    }
    println!("{fault:?}: {faults} faults");
    faults
}

#[test]
fn any_change_can_fail() {
    assert!(walk(Fault::Failure, &without_power_cuts()) > 600);
}

#[test]
fn the_disk_can_be_full_at_any_time() {
    assert!(walk(Fault::Full, &without_power_cuts()) > 600);
}

#[test]
fn the_process_can_die_at_any_time() {
    assert!(walk(Fault::Death, &without_power_cuts()) > 600);
}

#[test]
fn the_power_can_be_cut_at_any_time() {
    assert!(walk(Fault::PowerCut, &operations()) > 600);
}

/// Where names are exchanged, or given without replacing what has them: a file system of another machine can do neither.
#[test]
fn a_file_system_may_not_know_every_way_to_rename() {
    let changes = |operation: &Operation| operation.with(Fault::Failure, u64::MAX);
    let is_other =
        |operation: &Operation| changes(operation) != without_flags(|| changes(operation));
    let others: Vec<Operation> = operations().into_iter().filter(is_other).collect();
    assert!(others.len() > 1, "{}", others.len());
    for fault in [Fault::Failure, Fault::Full, Fault::Death, Fault::PowerCut] {
        assert!(without_flags(|| walk(fault, &others)) > 20);
    }
}

#[test]
fn a_server_can_be_asked_twice() {
    assert!(without_flags(|| walk(Fault::AskedTwice, &operations())) > 300);
}

#[test]
fn a_server_can_do_what_it_does_not_confirm() {
    assert!(without_flags(|| walk(Fault::NoAnswer, &operations())) > 300);
}

#[test]
fn what_is_removed_can_be_open_still() {
    assert!(without_flags(|| walk(Fault::Open, &operations())) > 50);
}

#[test]
fn what_is_to_be_opened_can_be_replaced() {
    assert!(without_flags(|| walk(Fault::Stale, &operations())) > 100);
}
