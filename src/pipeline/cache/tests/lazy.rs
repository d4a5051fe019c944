//! Results that are flushed at the end of the run: a power cut costs them at most, and never makes a torn one count.

use super::*;
use crate::cache::disk::faults::Dice;

const A: &[Content<'_>] = &[("data", "aaaa"), ("folder/inner/file", "1")];
const B: &[Content<'_>] = &[("data", "bbbb")];
const AFTER: &str = "another start";

fn key(stage: &str) -> StageKey {
    StageKey::of(&parts(stage, &[]))
}

fn is_whole(cache: &Cache, record: &Record) -> bool {
    store::is_intact(cache.layout(), &record.output.digest).is_ok_and(|is| is)
}

/// Cuts the power after each change of what `act` does, and looks at what may be left then, after another start.
fn cut_everywhere(
    before: &dyn Fn(&Cache),
    act: &dyn Fn(&Cache) -> anyhow::Result<()>,
    check: &dyn Fn(&Cache, bool, &str),
) {
    let mut after = 0;
    loop {
        let root = Root::new();
        let cache = without_fault(|| {
            let cache = root.cache();
            before(&cache);
            cache
        });
        let (result, mut cut) = with_fault(root.0.path(), Fault::PowerCut, after, || act(&cache));
        for throw in 0..8 {
            let image = Root::new();
            let dice = match throw {
                0 => Dice::always(0),
                1 => Dice::always(1),
                _ => Dice::new(after.wrapping_mul(8) + throw),
            };
            cut.write_image(image.0.path(), dice).expect("an image");
            let place = format!("after {after} changes ({result:?}), throw {throw}");
            let cache = Cache::open(&image.path()).expect("a cache").after_restart(AFTER);
            check(&cache, result.is_ok(), &place);
        }
        if cut.changes <= after {
            assert!(result.is_ok() && after > 5, "{result:?}");
            return;
        }
        after += 1;
    }
}

/// Whatever is left of it: what counts is whole, and the next run comes to its end.
fn check_and_go_on(cache: &Cache, place: &str) {
    for stage in ["a", "b"] {
        if let Some(record) = cache.usable(&key(stage)) {
            assert!(is_whole(cache, &record), "{place}: {stage} counts, and is torn");
        }
    }
    without_fault(|| {
        cache.prepare().unwrap_or_else(|error| panic!("{place}: {error:#}"));
        for (stage, content) in [("a", A), ("b", B)] {
            let found =
                cache.claim(&key(stage)).unwrap_or_else(|error| panic!("{place}: {error:#}"));
            let record = match found {
                Lookup::Hit(record) => *record,
                Lookup::Busy => panic!("{place}: nobody works on it"),
                Lookup::Claim(claim) => {
                    let made =
                        commit(cache, claim, stage, &[], |output, _| write_files(output, content));
                    made.unwrap_or_else(|error| panic!("{place}: {error:#}"))
                }
            };
            assert!(is_whole(cache, &record), "{place}: {stage}");
            assert_eq!(
                cache.usable(&key(stage)).map(|found| found.key),
                Some(record.key),
                "{place}"
            );
        }
    });
}

fn lazy(cache: &Cache) -> Cache {
    cache.lazily().expect("Linux numbers its starts")
}

#[test]
fn a_power_cut_costs_work_and_never_truth() {
    if boot().is_none() {
        return;
    }
    let act = |cache: &Cache| {
        let cache = lazy(cache);
        make(&cache, "a", &[], A)?;
        make(&cache, "b", &[], B)?;
        let both = ["a", "b"].iter().all(|stage| cache.usable(&key(stage)).is_some());
        anyhow::ensure!(both, "until then they count");
        cache.flush()
    };
    cut_everywhere(&|_| (), &act, &|cache, is_flushed, place| {
        let counts = |stage| cache.usable(&key(stage)).is_some();
        assert!(!is_flushed || counts("a") && counts("b"), "{place}: it was flushed");
        check_and_go_on(cache, place);
    });
}

/// The content that a lazy run left in the store may be torn later: whoever makes the same waits for the disk.
#[test]
fn a_full_commit_of_what_a_lazy_run_left_lasts() {
    if boot().is_none() {
        return;
    }
    let act = |cache: &Cache| {
        make(&lazy(cache), "a", &[], A)?;
        make(cache, "b", &[], A).map(drop)
    };
    cut_everywhere(&|_| (), &act, &|cache, is_done, place| {
        let b = cache.usable(&key("b"));
        assert!(!is_done || b.is_some(), "{place}: it is lost");
        assert!(b.is_none_or(|record| is_whole(cache, &record)), "{place}: it is torn");
    });
}

/// Whoever finds what a lazy run left waits until it is on the disk, with its name.
#[test]
fn what_counts_for_a_full_run_lasts() {
    if boot().is_none() {
        return;
    }
    let claims = |cache: &Cache| {
        make(&lazy(cache), "a", &[], A)?;
        match cache.claim(&key("a"))? {
            Lookup::Hit(_) => Ok(()),
            Lookup::Busy | Lookup::Claim(_) => bail!("it is whole"),
        }
    };
    let receives = |cache: &Cache| {
        make(&lazy(cache), "other", &[], A)?;
        super::walk::receive_a(cache)
    };
    for act in [&claims as &dyn Fn(&Cache) -> anyhow::Result<()>, &receives] {
        cut_everywhere(&|_| (), act, &|cache, is_done, place| {
            let counts = cache.usable(&key("a")).is_some();
            assert!(!is_done || counts, "{place}: it is lost");
            check_and_go_on(cache, place);
        });
    }
}

#[test]
fn what_was_not_flushed_counts_after_a_check() {
    let Some(boot) = boot() else { return };
    let root = Root::new();
    without_fault(|| {
        let cache = root.cache();
        make(&lazy(&cache), "a", &[], A).expect("a result");
        make(&lazy(&cache), "b", &[], B).expect("a result");
        let later = cache.after_restart(AFTER);
        assert!(cache.after_restart(boot).usable(&key("a")).is_some());
        assert!(later.usable(&key("a")).is_none(), "nobody has checked it");
        let digest = later.record(&key("b")).expect("a record").output.digest;
        damage(&later, &digest, "data", "BBBB");
        let Ok(Lookup::Hit(record)) = later.claim(&key("a")) else { panic!("it is whole") };
        assert_eq!(record.lazy, None);
        assert!(later.usable(&key("a")).is_some());
        assert!(matches!(later.claim(&key("b")), Ok(Lookup::Claim(_))), "it is not");
    });
}

/// The record of a full run says that its artifact is on the disk, whoever makes that again.
#[test]
fn what_a_full_record_names_is_never_made_again_without_waiting() {
    if boot().is_none() {
        return;
    }
    let before = |cache: &Cache| {
        let record = make(cache, "a", &[], A).expect("a result");
        durable::remove_tree(&cache.artifact(&record.output.digest)).expect("ours");
        // Listings are disposable.
        durable::forget_file(&cache.layout().listing(&record.output.digest));
    };
    let same_key = |cache: &Cache| make(&lazy(cache), "a", &[], A).map(drop);
    cut_everywhere(&before, &same_key, &|cache, _, place| check_and_go_on(cache, place));
    let before = |cache: &Cache| {
        let record = make(cache, "a", &[], A).expect("a result");
        durable::remove_tree(&cache.artifact(&record.output.digest)).expect("ours");
    };
    let same_bytes = |cache: &Cache| make(&lazy(cache), "same", &[], A).map(drop);
    cut_everywhere(&before, &same_bytes, &|cache, _, place| check_and_go_on(cache, place));
}

#[test]
fn a_full_run_flushes_what_a_lazy_one_left() {
    if boot().is_none() {
        return;
    }
    let root = Root::new();
    without_fault(|| {
        let cache = root.cache();
        let killed = lazy(&cache);
        make(&killed, "a", &[], A).expect("a result");
        assert!(
            matches!(killed.claim(&key("a")), Ok(Lookup::Hit(record)) if record.lazy.is_some())
        );
        assert!(matches!(cache.claim(&key("a")), Ok(Lookup::Hit(record)) if record.lazy.is_none()));
        assert!(cache.after_restart(AFTER).usable(&key("a")).is_some());
    });
}

/// A lazy run gives a key another artifact: until that is flushed, a power cut brings back the record of the one before.
#[test]
fn what_goes_is_in_no_record_that_a_power_cut_brings_back() {
    if boot().is_none() {
        return;
    }
    let act = |cache: &Cache| {
        let lazy = lazy(cache);
        let Lookup::Claim(claim) = lazy.claim_again(&key("a"))? else {
            bail!("nobody else has it")
        };
        commit(&lazy, claim, "a", &[], |output, _| write_files(output, B))?;
        lazy.unpin();
        super::cleaning::clean(cache, &["a"])
    };
    let before = |cache: &Cache| {
        make(cache, "a", &[], A).expect("a result");
        cache.unpin();
    };
    cut_everywhere(&before, &act, &|cache, _, place| {
        let (records, _) = cache.records();
        let is_there = |record: &Record| cache.has_artifact(&record.output.digest);
        assert!(records.iter().all(is_there), "{place}: a record without its artifact");
    });
}
