//! A remote that goes away while a run goes on, and comes back, or does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::fake_store::{Answer, Store, ends_soon};
use crate::support::{Sandbox, eventually, walk};

/// A store that is there, or not.
fn store() -> (Store, Arc<AtomicBool>) {
    let is_away = Arc::new(AtomicBool::new(false));
    let is_away_now = Arc::clone(&is_away);
    let store = Store::start(move |_| match is_away_now.load(Ordering::Relaxed) {
        true => Answer::Gone,
        false => Answer::Plain,
    });
    (store, is_away)
}

/// Somebody who asks a store again soon, and has a stage before which the others wait.
fn user(store: &Store) -> Sandbox {
    waiting(store.user())
}

/// The same, of somebody who uses it in another way.
fn waiting(user: Sandbox) -> Sandbox {
    let user = user.set("PIPELINE_REMOTE_PAUSE", "10");
    let go = user.path("go").display().to_string();
    let first = "[stages.first]\nkind = \"command\"\nshell = 'echo 1 > \"$PIPELINE_OUTPUT/1\"'\n";
    user.edit("[stages.data]", &format!("{first}[stages.data]"));
    user.edit("seq 1 60000", &format!("until [ -e {go} ]; do sleep 0.01; done; seq 1 60000"));
    user
}

/// How many records a store has.
fn records(store: &Store) -> usize {
    let all = walk(&store.folder.path().join("records"));
    all.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")).count()
}

#[test]
fn what_is_made_during_an_outage_is_pushed_after_it_and_what_comes_then_is_found() {
    let (store, is_away) = store();
    store.fill();
    let bob = user(&store);
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    is_away.store(true, Ordering::Relaxed);
    let running = bob.start("run experiment.toml --jobs 2 --progress plain");
    running.wait_for("is not used: the connection failed");
    running.wait_for("done  first");
    is_away.store(false, Ordering::Relaxed);
    running.wait_for("is used again");
    eventually("what was made meanwhile", || records(&store) == 3);
    bob.write("go", "");
    let ended = running.wait();
    ended.success();
    assert!(ended.stdout.contains("paper: 1 remote, 2 ran"), "{ended}");
    assert_eq!(ended.stderr.matches("warning").count(), 1, "{ended}");
    assert_eq!(records(&store), 4, "{ended}");
}

#[test]
fn a_remote_that_goes_away_is_said_once_and_what_could_not_be_sent_at_the_end() {
    let (store, is_away) = store();
    let bob = user(&store);
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let end = bob.path("end").display().to_string();
    bob.edit("wc -l", &format!("until [ -e {end} ]; do sleep 0.01; done; wc -l"));
    let running = bob.start("run experiment.toml --jobs 2 --progress plain");
    running.wait_for("done  first");
    is_away.store(true, Ordering::Relaxed);
    bob.write("go", "");
    running.wait_for("the run goes on without the remote s3://lab");
    bob.write("end", "");
    let ended = running.wait();
    ended.success();
    assert!(ended.stdout.contains("paper: 3 ran"), "{ended}");
    let said = |text: &str| ended.stderr.matches(text).count();
    assert_eq!(said("the run goes on without the remote s3://lab"), 1, "{ended}");
    assert_eq!(said("is used again") + said("waits, and is tried again later"), 0, "{ended}");
    assert_eq!(said("not pushed to s3://lab"), 1, "{ended}");
    assert_eq!(said("`pipeline push experiment.toml` sends what is missing there"), 1, "{ended}");
    is_away.store(false, Ordering::Relaxed);
    // The next run sends it, although it has nothing to do.
    let again = bob.pipeline("run experiment.toml");
    assert!(again.stdout.contains("paper: 3 fresh"), "{again}");
    assert_eq!(again.stderr.matches("warning").count(), 0, "{again}");
    let pushed = bob.pipeline("push experiment.toml");
    assert!(pushed.printed().starts_with("0 pushed (0 B)"), "{pushed}");
    // After that, nobody is asked.
    is_away.store(true, Ordering::Relaxed);
    let again = bob.pipeline("run experiment.toml");
    assert_eq!(again.stderr.matches("warning").count(), 0, "{again}");
}

#[test]
fn a_stage_whose_result_is_out_of_reach_says_so_and_runs() {
    let (store, is_away) = store();
    store.fill();
    let bob = store.user();
    bob.pipeline("run experiment.toml").success();
    bob.edit("wc -l", "wc -c");
    is_away.store(true, Ordering::Relaxed);
    let ran = bob.pipeline("run experiment.toml");
    ran.success();
    let why = "data (command) runs: its artifact is only on the remote, which is away";
    assert!(ran.stderr.contains(why), "{ran}");
    assert!(ran.stdout.contains("paper: 2 ran"), "{ran}");
    // The reason is in its record.
    let shown = bob.pipeline("why experiment.toml data");
    assert!(shown.stdout.contains("only on the remote, which is away"), "{shown}");
}

#[test]
fn a_folder_that_a_server_did_not_make_at_first_is_made_when_it_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let store = Store::start(move |request| {
        let is_it = request.method == "MKCOL" && request.name == "artifacts/";
        match is_it && asked.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Answer::Status(423, "not now"),
            false => Answer::WebDav,
        }
    });
    let bob = waiting(store.reader());
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let running = bob.start("run experiment.toml --jobs 2 --progress plain");
    eventually("it is pushed later", || records(&store) == 1);
    bob.write("go", "");
    let ended = running.wait();
    ended.success();
    assert_eq!(records(&store), 3, "{ended}");
}

#[test]
fn who_stops_a_run_during_an_outage_is_told_both() {
    let (store, is_away) = store();
    let bob = user(&store);
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    is_away.store(true, Ordering::Relaxed);
    let running = bob.start("run experiment.toml --jobs 2 --progress plain");
    running.wait_for("done  first");
    let said = ends_soon(running, Signal::INT);
    let both = "1 result was not pushed to s3://lab";
    assert!(said.contains(both), "{said}");
    assert!(said.contains("it was stopped, and before that: the connection failed"), "{said}");
}
