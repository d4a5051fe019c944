//! Cleaning: what goes and what stays, on a full disk, beside others who use the cache, and what is left of one that was killed.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::cache::cleaning::{Fate, NeededResults};

/// A moment this many days after everything in these tests: seconds since 1970, UTC.
fn long_after(days: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs() + days * 24 * 3600
}

/// What [`put_what_goes_and_what_stays`] makes and is to stay: a result, and a checkpoint.
pub(super) const KEPT: &[&str] = &["kept", "waits"];

fn key(stage: &str) -> StageKey {
    StageKey::of(&parts(stage, &[]))
}

/// Removes everything but what these keys need.
pub(super) fn clean_but(cache: &Cache, kept: &[StageKey]) -> anyhow::Result<Cleaned> {
    let mut look_up = || {
        let mut needs = NeededResults::default();
        let need = Need { why: Why::Kept, by: "a test".into() };
        kept.iter().for_each(|key| needs.add_key(*key, &need));
        Ok(Uses { needs, ..Uses::default() })
    };
    let wish = Wish { keep_days: Some(30), max_bytes: None };
    cache.clean_at(wish, &mut look_up, &AtomicBool::new(false), long_after(100))
}

/// Removes everything but what these stages, which read nothing, need.
pub(super) fn clean(cache: &Cache, kept: &[&str]) -> anyhow::Result<()> {
    // What has worked on it so far is over.
    cache.unpin();
    let kept: Vec<StageKey> = kept.iter().map(|stage| key(stage)).collect();
    let cleaned = clean_but(cache, &kept)?;
    match cleaned.left.first() {
        Some(left) => bail!("{left}"),
        None => Ok(()),
    }
}

/// `old` and `older` have all that belongs to a stage; `kept` and `twin` have one artifact.
pub(super) fn put_what_goes_and_what_stays(cache: &Cache) {
    let layout = cache.layout();
    for stage in ["old", "older", "kept", "twin"] {
        let text = if stage == "twin" { "kept" } else { stage };
        let record = make(cache, stage, &[], &[("data", text), ("folder/file", "1")]);
        let record = record.expect("a result");
        cache.set_head("test", stage, &record.key).expect("writable");
        cache.set_link("test", stage, &record.output.digest).expect("writable");
        fs::write(layout.log(&record.key), "text").expect("writable");
    }
    let failed = layout.failed(&key("failed"));
    write_files(&failed, &[("half", "1")]).expect("writable");
    write_files(&layout.checkpoint(&key("begun")), &[("0/state", "1")]).expect("writable");
    write_files(&layout.checkpoint(&key("waits")), &[("0/state", "1"), ("0.lock", "")])
        .expect("writable");
    let digest = crate::digest::FieldHasher::new("test").finish();
    let quarantine = layout.bucket(Bucket::Quarantine);
    write_files(&quarantine.join(format!("{digest}-0")), &[("data", "x")]).expect("writable");
    let rerun = layout.bucket(Bucket::Reruns).join(format!("{}-0", key("kept")));
    write_files(&rerun, &[("data", "x")]).expect("writable");
    durable::write_disposable(&layout.listing(&digest), b"{}").expect("writable");
    durable::write_disposable(&layout.running(&key("begun")), b"{}").expect("writable");
    durable::write_disposable(&layout.index(&digest), b"{}").expect("writable");
    cache.keep_document(Document::Plan, b"a plan").expect("writable");
    cache.unpin();
}

pub(super) fn is_clean(cache: &Cache) -> bool {
    let layout = cache.layout();
    let digest = crate::digest::FieldHasher::new("test").finish();
    let is_empty = |folder: PathBuf| {
        fs::read_dir(folder)
            .is_ok_and(|listing| listing.flatten().all(|entry| entry.file_name() == "records"))
    };
    let gone = [key("old"), key("older"), key("failed"), key("begun")];
    let places = gone.iter().flat_map(|key| {
        [
            layout.record(key),
            layout.log(key),
            layout.partial(key),
            layout.failed(key),
            layout.running(key),
        ]
    });
    let mut places = places.chain([layout.listing(&digest), layout.index(&digest)]);
    let heads: Vec<_> =
        cache.head_keys().expect("readable").into_iter().map(|(_, _, key)| key).collect();
    cache.artifacts().expect("readable").len() == 1
        && places.all(|place| fs::symlink_metadata(place).is_err())
        && [Bucket::Tmp, Bucket::Quarantine, Bucket::Reruns]
            .map(|one| layout.bucket(one))
            .into_iter()
            .all(is_empty)
        && fs::read_dir(layout.documents(Document::Plan)).is_ok_and(|mut all| all.next().is_none())
        && heads.iter().all(|head| !gone.contains(head))
        && heads.len() == 2
        && cache.links("test").len() == 2
}

/// In between, too: what is kept is whole, and every record has its artifact.
pub(super) fn is_sound(cache: &Cache) -> bool {
    let (records, _) = cache.records();
    ["kept", "twin"].iter().all(|stage| cache.usable(&key(stage)).is_some())
        && cache.holds_checkpoint(&key("waits"))
        && records.iter().all(|record| {
            store::is_intact(cache.layout(), &record.output.digest).is_ok_and(|is| is)
        })
}

#[test]
fn a_full_disk_can_be_cleaned() {
    let root = Root::new();
    let cache = without_fault(|| {
        let cache = root.cache();
        // Its locks exist by then, and there has been a generation.
        make(&cache, "first", &[], &[("data", "first")]).expect("a result");
        clean(&cache, &[]).expect("writable");
        put_what_goes_and_what_stays(&cache);
        cache
    });
    let generation = cache.generation();
    let (result, _) = with_fault(root.0.path(), Fault::Full, 0, || clean(&cache, KEPT));
    result.expect("what is removed takes no room");
    assert!(is_clean(&cache) && is_sound(&cache));
    assert_ne!(cache.generation(), generation);
}

#[test]
fn what_is_left_of_a_killed_one_is_removed_by_the_next_run() {
    let root = Root::new();
    let cache = without_fault(|| {
        let cache = root.cache();
        put_what_goes_and_what_stays(&cache);
        cache
    });
    let tmp = cache.layout().bucket(Bucket::Tmp);
    let has_trash = || fs::read_dir(&tmp).is_ok_and(|mut tmp| tmp.next().is_some());
    let mut seen = false;
    for after in 0.. {
        let (result, cut) = with_fault(root.0.path(), Fault::Death, after, || clean(&cache, KEPT));
        seen |= has_trash();
        cache.prepare().expect("writable");
        assert!(!has_trash(), "after {after} changes");
        if cut.changes <= after {
            result.expect("no fault");
            break;
        }
    }
    assert!(seen);
}

#[test]
fn a_look_changes_nothing_and_says_the_same() {
    let root = Root::new();
    let cache = without_fault(|| {
        let cache = root.cache();
        put_what_goes_and_what_stays(&cache);
        cache
    });
    let ((), cut) = with_fault(root.0.path(), Fault::Failure, u64::MAX, || {
        let wish = Wish { keep_days: Some(0), max_bytes: None };
        let cleaned = cache.would_clean(wish, &mut || Ok(Uses::default())).expect("readable");
        assert!(cleaned.freed() > 0);
    });
    assert_eq!(cut.changes, 0);
    assert!(!is_clean(&cache));
}

#[test]
fn whoever_is_asked_to_stop_in_time_removes_nothing() {
    let root = Root::new();
    without_fault(|| {
        let cache = root.cache();
        put_what_goes_and_what_stays(&cache);
        let before = cache.artifacts().expect("readable");
        let wish = Wish { keep_days: Some(30), max_bytes: None };
        let stop = AtomicBool::new(true);
        let mut look_up = || Ok(Uses::default());
        let cleaned = cache.clean_at(wish, &mut look_up, &stop, long_after(100)).expect("readable");
        assert!(cleaned.stopped && cleaned.items.is_empty());
        assert_eq!(cache.artifacts().expect("readable"), before);
        // Where it is asked later, the next one removes what has left its place.
        let (stop, mut looks) = (AtomicBool::new(false), 0);
        let mut look_up = || {
            looks += 1;
            stop.store(looks == 2, Ordering::Relaxed);
            Ok(Uses::default())
        };
        let cleaned = cache.clean_at(wish, &mut look_up, &stop, long_after(100)).expect("writable");
        // What takes room still does not count.
        assert!(cleaned.stopped && cleaned.freed() == 0, "{cleaned:?}");
        assert!(cleaned.items.iter().any(|(_, fate)| *fate == Fate::Moved), "{cleaned:?}");
        let tmp = || fs::read_dir(cache.layout().bucket(Bucket::Tmp)).expect("a folder").count();
        assert!(cache.artifacts().expect("readable").is_empty() && tmp() == 1);
        clean(&cache, &[]).expect("writable");
        assert_eq!(tmp(), 0);
    });
}

#[test]
fn only_one_cleans_at_a_time() {
    let root = Root::new();
    let cache = without_fault(|| root.cache());
    let _other = Lock::take(&cache.layout().lock("gc")).expect("writable");
    let error = without_fault(|| clean(&cache, &[])).expect_err("somebody else cleans");
    assert!(error.to_string().contains("cleans this cache already"), "{error}");
}

#[test]
fn what_was_recorded_after_the_first_look_counts() {
    // Of a stage that had no result, and of one that had another one.
    for stage in ["new", "older"] {
        let root = Root::new();
        let cache = without_fault(|| {
            let cache = root.cache();
            put_what_goes_and_what_stays(&cache);
            cache
        });
        let digest = cache.usable(&key("old")).expect("a result").output.digest;
        let finished = long_after(99);
        let new = Record { finished, ..Record::for_test(stage, parts(stage, &[]), digest) };
        // Before the second look, somebody records that this stage made what `old` made.
        let mut looks = 0;
        let mut look_up = || -> anyhow::Result<Uses> {
            looks += 1;
            if looks == 2 {
                new.write(&cache.layout().record(&new.key))?;
            }
            Ok(Uses::default())
        };
        let wish = Wish { keep_days: Some(30), max_bytes: None };
        let stop = AtomicBool::new(false);
        cache.clean_at(wish, &mut look_up, &stop, long_after(100)).expect("writable");
        assert_eq!(cache.usable(&new.key), Some(new), "{stage}");
        assert!(cache.usable(&key("kept")).is_none());
        assert_eq!(cache.artifacts().expect("readable"), [digest], "{stage}");
    }
}

#[test]
fn the_mark_of_a_run_stays_with_what_is_certain_by_it() {
    let root = Root::new();
    without_fault(|| {
        let cache = root.cache();
        let Some(lazy) = cache.lazily() else { return };
        let marks =
            || fs::read_dir(cache.layout().bucket(Bucket::Flushed)).into_iter().flatten().count();
        make(&lazy, "kept", &[], &[("data", "kept")]).expect("a result");
        lazy.flush().expect("writable");
        clean(&cache, &["kept"]).expect("writable");
        assert_eq!(marks(), 1);
        clean(&cache, &[]).expect("writable");
        // The record was there when it was looked for.
        clean(&cache, &[]).expect("writable");
        assert_eq!(marks(), 0);
    });
}

#[test]
fn a_link_in_the_place_of_what_goes_is_removed_and_not_followed() {
    let root = Root::new();
    let cache = root.cache();
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("mine"), "mine").expect("writable");
    fs::create_dir_all(cache.layout().bucket(Bucket::Failed)).expect("writable");
    symlink(outside.path(), cache.layout().failed(&key("a"))).expect("writable");
    symlink(outside.path(), cache.artifact(&crate::digest::FieldHasher::new("x").finish()))
        .expect("writable");
    clean(&cache, &[]).expect("writable");
    assert!(fs::symlink_metadata(cache.layout().failed(&key("a"))).is_err());
    assert!(cache.artifacts().expect("readable").is_empty());
    assert!(outside.path().join("mine").exists());
}

#[test]
fn files_of_people_behind_a_bucket_stay() {
    let root = Root::new();
    let cache = root.cache();
    let outside = tempfile::tempdir().expect("a folder");
    let digest = crate::digest::FieldHasher::new("x").finish();
    let ours = [
        (Bucket::Quarantine, format!("{digest}-12")),
        (Bucket::Quarantine, format!("records/{}.json", key("a"))),
        (Bucket::Quarantine, format!("records/{}.json.damaged-0", key("a"))),
        (Bucket::Reruns, format!("{}-0", key("a"))),
        (Bucket::Indexes, digest.short()),
        (Bucket::Flushed, "1700000000-012345678-12".to_owned()),
        (Bucket::Failed, key("a").to_string()),
        (Bucket::Partial, key("a").to_string()),
        (Bucket::Running, key("a").to_string()),
        (Bucket::Logs, format!("ab/{}.log", key("a"))),
        (Bucket::Listings, format!("ab/{digest}.json")),
    ];
    let theirs = [
        "mine",
        "2024-01-02",
        "thesis-1",
        "0123456789ab.txt",
        "0123456789abcd",
        "a.json",
        "a.reason",
        "a.json.damaged-1",
        ".new-mine",
        "records/mine.json",
        "records/mine.json.damaged-0",
        "records/mine",
        "ab/mine.json",
        "ab/mine.log",
    ];
    for bucket in Bucket::ALL {
        let is_link = ours.iter().any(|(one, _)| *one == bucket);
        let (to, place) = (outside.path().join(bucket.name()), cache.layout().bucket(bucket));
        if is_link {
            theirs.iter().for_each(|name| write_files(&to, &[(name, "1")]).expect("writable"));
            let _ = fs::remove_dir(&place);
            symlink(&to, &place).expect("writable");
        }
    }
    let place = |(bucket, name): &(Bucket, String)| cache.layout().bucket(*bucket).join(name);
    for one in &ours {
        fs::create_dir_all(place(one).parent().expect("a folder")).expect("writable");
        fs::write(place(one), "1").expect("writable");
    }
    // What was withdrawn is remembered.
    let reason = place(&(Bucket::Quarantine, format!("records/{}.reason", key("a"))));
    fs::write(&reason, "1").expect("writable");
    clean(&cache, &[]).expect("writable");
    assert!(reason.exists());
    let left: Vec<_> = ours.iter().filter(|one| place(one).exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    for bucket in Bucket::ALL.into_iter().filter(|one| ours.iter().any(|(bucket, _)| bucket == one))
    {
        for name in theirs {
            assert!(outside.path().join(bucket.name()).join(name).exists(), "{bucket:?}: {name}");
        }
    }
}

#[test]
fn a_record_of_another_version_is_not_taken_for_a_damaged_one() {
    let root = Root::new();
    let cache = root.cache();
    let record = make(&cache, "a", &[], &[("data", "a")]).expect("a result");
    let path = cache.layout().record(&record.key);
    let text = fs::read_to_string(&path).expect("readable");
    let (_, fields) = text.split_once("\",\n").expect("a checksum");
    let write = |fields: &str, text: &str| {
        let checksum = blake3::hash(fields.as_bytes()).to_hex();
        let text = format!("{{\n  \"checksum\": \"{checksum}\",\n{text}");
        fs::write(&path, text).expect("writable");
    };
    let later = fields.replace("\"stage\": \"a\"", "\"stage\": [\"a\"]");
    let with_more = fields.replace("\"parts\": [", "\"parts\": [{\"of-tomorrow\": 1},");
    assert!(later != fields && with_more != fields, "{fields}");
    for text in [&later, &with_more] {
        write(text, text);
        let error = clean(&cache, &[]).expect_err("what it needs is not known").to_string();
        assert!(error.contains("another version"), "{error}");
        assert_eq!(cache.artifacts().expect("readable").len(), 1);
    }
    // The record of another key, in its place.
    let other = make(&cache, "b", &[], &[("data", "b")]).expect("a result");
    fs::copy(cache.layout().record(&other.key), &path).expect("writable");
    clean(&cache, &["b"]).expect("it is damaged");
    assert_eq!(cache.artifacts().expect("readable"), [other.output.digest]);
    // One whose checksum does not match does not count.
    write(fields, &later);
    clean(&cache, &[]).expect("it is damaged");
    assert!(cache.artifacts().expect("readable").is_empty());
}

/// Several use what they pin, while one cleans without an end: what is found once it is pinned stays.
#[test]
fn what_is_pinned_and_found_stays() {
    const ROUNDS: u64 = 150;
    let root = Root::new();
    without_fault(|| root.cache());
    let path = root.path();
    let (over, found, made) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let use_it = |number: u64| {
        for round in 0..ROUNDS {
            let cache = Cache::open(&path).expect("a cache");
            let stage = ["a", "b", "c"][((round + number) % 3) as usize];
            let key = key(stage);
            cache.pin([Pinned::Key(key)], |_| {}).expect("writable");
            let record = match cache.usable(&key) {
                Some(record) => {
                    found.fetch_add(1, Ordering::Relaxed);
                    record
                }
                None => {
                    let Ok(Lookup::Claim(claim)) = cache.claim(&key) else { continue };
                    // `a` and `b` have the same bytes.
                    let text = if stage == "c" { "c" } else { "a" };
                    made.fetch_add(1, Ordering::Relaxed);
                    super::commit(&cache, claim, stage, &[], |to, _| {
                        write_files(to, &[("data", text)])
                    })
                    .expect("writable")
                }
            };
            cache.pin([Pinned::Artifact(record.output.digest)], |_| {}).expect("writable");
            for _ in 0..5 {
                assert_eq!(cache.usable(&key).as_ref(), Some(&record), "{stage} in round {round}");
                let data = cache.artifact(&record.output.digest).join("data");
                assert!(fs::read(data).is_ok(), "{stage} in round {round}");
            }
        }
    };
    std::thread::scope(|scope| {
        let users: Vec<_> =
            (0..3).map(|number| scope.spawn(move || without_fault(|| use_it(number)))).collect();
        let cleaner = scope.spawn(|| {
            let cache = Cache::open(&path).expect("a cache");
            while !over.load(Ordering::Relaxed) {
                let cleaned = without_fault(|| clean_but(&cache, &[]));
                assert_eq!(cleaned.expect("writable").left, [""; 0]);
            }
        });
        let ended: Vec<_> = users.into_iter().map(|user| user.join()).collect();
        over.store(true, Ordering::Relaxed);
        cleaner.join().expect("the cleaner ends");
        ended.into_iter().for_each(|end| end.expect("what was pinned stays"));
    });
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    assert!(count(&made) > 0, "{found:?} found, {made:?} made");
}
