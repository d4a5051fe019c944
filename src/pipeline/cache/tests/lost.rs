//! Locks that are lost while their process works, as a file server may take them away.

use super::*;

const A: &[Content<'_>] = &[("data", "aaaa")];
const B: &[Content<'_>] = &[("data", "bbbb")];

fn lose_lock(cache: &Cache, key: &StageKey) {
    disk::remove_file(&cache.layout().lock(&key.to_string())).expect("somebody has it");
}

#[test]
fn what_was_taken_over_before_its_record_is_written_is_not_recorded() {
    let root = Root::new();
    let cache = root.cache();
    // What is in the store already is not moved there: only the record is left to write.
    make(&cache, "other", &[], A).expect("a result");
    let key = StageKey::of(&parts("a", &[]));
    let claim = claimed(&cache, &key).expect("nobody works on it");
    let take_over = || {
        lose_lock(&cache, &key);
        make(&cache, "a", &[], B).expect("it has the lock now");
    };
    let write = |output: &Path, _: &[PathBuf]| write_files(output, A);
    let committed = try_commit(&cache, claim, "a", &[], write, &take_over).expect("writable");
    let failed = committed.expect_err("somebody else has the lock");
    assert!(failed.claim.is_lost().expect("readable"), "{:#}", failed.error);
    let record = cache.usable(&key).expect("it counts still");
    let data = cache.artifact(&record.output.digest).join("data");
    assert_eq!(fs::read_to_string(data).expect("readable"), "bbbb");
}

#[test]
fn the_work_of_who_has_lost_its_lock_is_moved_away_whole() {
    let root = Root::new();
    let cache = root.cache();
    let key = StageKey::of(&parts("a", &[]));
    let first = claimed(&cache, &key).expect("nobody works on it");
    let is_lost = |claim: &Claim| claim.is_lost().expect("readable");
    assert!(!is_lost(&first));
    lose_lock(&cache, &key);
    let second = claimed(&cache, &key).expect("nobody has the lock");
    assert!(is_lost(&first) && !is_lost(&second));
    assert!(first.keep_failed().expect("readable").is_none(), "nothing of it is left");
    assert!(!is_lost(&second), "that is another folder");
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_lost() {
    let root = Root::new();
    let cache = root.cache();
    let claim = claimed(&cache, &StageKey::of(&parts("a", &[]))).expect("nobody works on it");
    with_fault(&root.path(), Fault::Stale, 0, || claim.is_lost()).0.expect_err("a fault");
    assert!(!claim.is_lost().expect("readable"));
}

#[test]
fn what_is_taken_over_while_a_commit_waits_is_not_recorded() {
    let root = Root::new();
    let cache = root.cache();
    // What is in the store already stays in the folder of the work until that is cleared.
    make(&cache, "other", &[], A).expect("a result");
    let key = StageKey::of(&parts("a", &[]));
    let claim = claimed(&cache, &key).expect("nobody works on it");
    let output = claim.output();
    let withdrawal = Lock::take(&cache.layout().lock("withdrawal")).expect("nobody has it");
    std::thread::scope(|threads| {
        let taking_over = threads.spawn(|| {
            while output.exists() {
                std::thread::yield_now();
            }
            lose_lock(&cache, &key);
            let taken = claimed(&cache, &key).expect("nobody has the lock");
            drop(withdrawal);
            taken
        });
        let write = |output: &Path, _: &[PathBuf]| write_files(output, A);
        let committed = try_commit(&cache, claim, "a", &[], write, &|| ()).expect("writable");
        let failed = committed.expect_err("somebody else has the lock");
        assert!(failed.claim.is_lost().expect("readable"), "{:#}", failed.error);
        drop(taking_over.join().expect("it has it"));
    });
    assert!(cache.usable(&key).is_none());
}

#[test]
fn a_commit_that_fails_at_last_has_not_lost_its_work() {
    let root = Root::new();
    let cache = root.cache();
    let input = make(&cache, "input", &[], A).expect("a result").output.digest;
    let claim = claimed(&cache, &StageKey::of(&parts("a", &[input]))).expect("nobody works on it");
    let remove_input = || durable::remove_tree(&cache.artifact(&input)).expect("ours");
    let write = |output: &Path, _: &[PathBuf]| write_files(output, B);
    let committed = try_commit(&cache, claim, "a", &[input], write, &remove_input);
    let failed = committed.expect("writable").expect_err("its input is gone");
    assert!(!failed.claim.is_lost().expect("readable"), "{:#}", failed.error);
    drop(failed);
    let left = fs::read_dir(cache.layout().bucket(Bucket::Tmp)).expect("a folder").count();
    assert_eq!(left, 0, "nothing is left of it");
}
