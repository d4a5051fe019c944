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
    assert!(failed.claim.is_lost(), "{:#}", failed.error);
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
    assert!(!first.is_lost());
    lose_lock(&cache, &key);
    let second = claimed(&cache, &key).expect("nobody has the lock");
    assert!(first.is_lost() && !second.is_lost());
    assert!(first.keep_failed().expect("readable").is_none(), "nothing of it is left");
    assert!(!second.is_lost(), "that is another folder");
}
