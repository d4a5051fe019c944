//! A server on the web that can only be read, hangs, refuses, redirects or lies, before a real folder of results.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fake_store::{Answer, Store, ends_soon};
use crate::support::{Sandbox, walk};

/// What a server that only sends files does.
fn sends_files(method: &str) -> Answer {
    match method {
        "GET" | "HEAD" => Answer::Plain,
        _ => Answer::Status(405, "only read"),
    }
}

/// Has somebody get everything.
fn gets_everything(user: &Sandbox) {
    let ran = user.pipeline("run experiment.toml");
    assert!(ran.printed().contains("paper: 2 remote in"), "{ran}");
    assert!(!ran.stderr.contains("warning"), "{ran}");
    user.pipeline("pull experiment.toml").success();
    user.pipeline("verify experiment.toml").success();
}

#[test]
fn a_mirror_is_read_and_says_at_once_that_it_takes_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let store = Store::start(move |request| {
        count.fetch_add(usize::from(request.method == "PUT"), Ordering::Relaxed);
        sends_files(&request.method)
    });
    store.fill();
    let bob = store.reader();
    gets_everything(&bob);
    let status = bob.pipeline("remote status experiment.toml");
    assert!(status.printed().contains("here and on the remote"), "{status}");
    let size = bob.pipeline("remote status experiment.toml --size");
    assert!(size.stderr.contains("has no list of its files: leave out --size"), "{size}");
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    bob.edit("seq 1 60000", "seq 1 60001");
    let ran = bob.pipeline("run experiment.toml");
    ran.success();
    assert!(ran.stderr.contains("2 results were not pushed"), "{ran}");
    assert!(
        ran.stderr.contains("the server takes no files: it can only be read (status 405"),
        "{ran}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is asked once");
}

#[test]
fn a_server_that_takes_files_without_moving_them_is_written() {
    let store = Store::start(|_| Answer::Plain);
    let ann = store.reader();
    ann.pipeline("run experiment.toml").success();
    for expected in ["2 pushed", "0 pushed"] {
        let pushed = ann.pipeline("push experiment.toml");
        pushed.success();
        assert!(pushed.stdout.starts_with(expected), "{pushed}");
    }
    let left = walk(store.folder.path());
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("/.new-")), "{left:?}");
    gets_everything(&store.reader());
}

#[test]
fn a_server_is_written_that_makes_no_folders_and_moves_to_whole_addresses_alone() {
    // Where it may not move them either, folders are made for what it takes at once.
    for moves in [true, false] {
        let store = Store::start(move |request| match request.method.as_str() {
            "MOVE" if !moves => Answer::Status(405, "not here"),
            _ => Answer::WebDav,
        });
        let ann = store.reader();
        ann.pipeline("run experiment.toml").success();
        let pushed = ann.pipeline("push experiment.toml");
        assert!(pushed.printed().starts_with("2 pushed"), "{pushed}");
        let left = walk(store.folder.path());
        assert!(!left.iter().any(|path| path.to_string_lossy().contains("/.new-")), "{left:?}");
        gets_everything(&store.reader());
    }
}

#[test]
fn a_push_that_is_not_taken_removes_what_it_has_sent() {
    let store = Store::start(|request| match request.method.as_str() {
        "PUT" if request.name.starts_with("blobs/") => Answer::Half,
        _ => Answer::WebDav,
    });
    let ann = store.reader();
    ann.pipeline("run experiment.toml").success();
    let pushed = ann.pipeline("push experiment.toml");
    assert_eq!(pushed.code(), Some(1), "{pushed}");
    assert!(pushed.stderr.contains("the connection failed"), "{pushed}");
    let left = walk(store.folder.path());
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("/.new-")), "{left:?}");
}

#[test]
fn half_a_file_in_its_place_is_not_taken_for_the_file() {
    // The first request breaks off, and the next one is told that there is something.
    for folder in ["records/", "blobs/", "packs/"] {
        let (folder_of_server, halves) = (folder, AtomicUsize::new(0));
        let store = Store::start(move |request| {
            let is_one = request.method == "PUT" && request.name.starts_with(folder_of_server);
            match is_one && halves.fetch_add(1, Ordering::Relaxed) == 0 {
                true => Answer::Half,
                false => Answer::Plain,
            }
        });
        let user = || {
            let user = store.reader();
            let few = "echo few > \"$PIPELINE_OUTPUT/few\"; seq 1 60000";
            user.edit("seq 1 60000", few);
            user
        };
        let ann = user();
        ann.pipeline("run experiment.toml data").success();
        let pushed = ann.pipeline("push experiment.toml data");
        assert_eq!(pushed.code(), Some(1), "{pushed}");
        assert!(pushed.stderr.contains(" is there in part: somebody is sending it"), "{pushed}");
        // Nor later.
        let again = ann.pipeline("push experiment.toml data");
        let said = match folder {
            "records/" => " is damaged there: remove it there",
            _ => " is there in part: somebody is sending it",
        };
        assert_eq!(again.code(), Some(1), "{again}");
        assert!(again.stderr.contains(said), "{again}");
        let half = walk(store.folder.path().join(folder).as_path());
        let half = half.into_iter().find(|path| path.is_file()).expect("half of it");
        fs::remove_file(half).expect("ours");
        ann.pipeline("push experiment.toml data").success();
        let bob = user();
        bob.pipeline("pull experiment.toml data").success();
    }
}

#[test]
fn a_server_that_copies_what_it_moves_may_take_longer() {
    let store = Store::start(|request| {
        let is_last = request.destination.as_ref().is_some_and(|to| to.ends_with("/VERSION"));
        if request.method == "MOVE" && is_last {
            // Longer than a question may take.
            std::thread::sleep(Duration::from_secs(11));
        }
        Answer::WebDav
    });
    let ann = store.reader();
    ann.pipeline("run experiment.toml").success();
    let pushed = ann.pipeline("push experiment.toml");
    assert!(pushed.printed().starts_with("2 pushed"), "{pushed}");
}

#[test]
fn a_server_that_does_not_say_how_large_a_file_is_without_sending_it_is_used() {
    for status in [405, 501] {
        let store = Store::start(move |request| match request.method.as_str() {
            "HEAD" => Answer::Status(status, ""),
            _ => Answer::WebDav,
        });
        let ann = store.reader();
        ann.pipeline("run experiment.toml").success();
        for expected in ["2 pushed", "0 pushed"] {
            let pushed = ann.pipeline("push experiment.toml");
            assert!(pushed.printed().starts_with(expected), "{pushed}");
        }
        let bob = store.reader();
        let status = bob.pipeline("remote status experiment.toml");
        assert!(status.printed().contains("only on the remote"), "{status}");
        gets_everything(&bob);
    }
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let (asked, began) = (AtomicUsize::new(0), Instant::now());
    let again: Arc<OnceLock<Duration>> = Arc::default();
    let first_again = Arc::clone(&again);
    let store = Store::start(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::Later("2"),
        1 => {
            first_again.get_or_init(|| began.elapsed());
            sends_files(&request.method)
        }
        _ => sends_files(&request.method),
    });
    store.fill();
    let before = began.elapsed();
    gets_everything(&store.reader());
    let waited = *again.get().expect("it asked again") - before;
    assert!(waited >= Duration::from_secs(2), "it waited for {waited:?}");
}

#[test]
fn an_address_with_nothing_is_said() {
    let store = Store::start(|request| sends_files(&request.method));
    let bob = store.reader();
    let ran = bob.pipeline("run experiment.toml");
    ran.success();
    assert!(
        ran.stderr
            .contains("it has no VERSION: nothing was pushed there yet, or the address is wrong"),
        "{ran}"
    );
}

#[test]
fn a_login_is_sent_to_its_server_and_not_to_where_that_redirects() {
    let logins: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let seen = Arc::clone(&logins);
    let store = Store::start(move |request| {
        seen.lock().expect("no panic").push(request.login.clone());
        sends_files(&request.method)
    });
    store.fill();
    // The same machine by another name is another server.
    let there = store.address().replace("127.0.0.1", "localhost");
    let first = Store::start(move |request| match request.login.as_deref() {
        Some("Bearer t0ken") => Answer::Elsewhere(format!("{there}/{}", request.name)),
        _ => Answer::Status(401, ""),
    });
    gets_everything(&first.reader());
    let logins = std::mem::take(&mut *logins.lock().expect("no panic"));
    assert!(logins.len() > 5 && logins.iter().all(Option::is_none), "{logins:?}");
    let push = first.reader();
    push.pipeline("run experiment.toml").success();
    push.edit("seq 1 60000", "seq 1 60001");
    push.pipeline("run experiment.toml").success();
    let pushed = push.pipeline("push experiment.toml");
    assert!(pushed.stderr.contains("write the address that it really has"), "{pushed}");
}

#[test]
fn a_login_that_another_program_renews_is_read_again() {
    let store = Store::start(|request| match request.login.as_deref() {
        // Who is "ann:new".
        Some("Basic YW5uOm5ldw==") => Answer::WebDav,
        Some(_) if request.method == "GET" => Answer::WebDav,
        _ => Answer::Status(401, "who are you?"),
    });
    let ann = Sandbox::new(crate::fake_store::PAPER)
        .set("PIPELINE_REMOTE", store.address())
        .set("NETRC", "logins");
    let login = |password: &str| {
        ann.write("logins", format!("machine 127.0.0.1 login ann password {password}\n"));
    };
    login("old");
    ann.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let go = ann.path("go").display().to_string();
    ann.edit("seq", &format!("until [ -e {go} ]; do sleep 0.01; done; seq"));
    let running = ann.start("run experiment.toml --progress plain");
    running.wait_for("data (command) runs");
    login("new");
    ann.write("go", "");
    let ended = running.wait();
    ended.success();
    assert!(!ended.stderr.contains("not pushed"), "{ended}");
    let pushed = ann.pipeline("push experiment.toml");
    assert!(pushed.printed().starts_with("0 pushed"), "{pushed}");
}

#[test]
fn a_login_that_is_missing_or_wrong_is_said_and_in_nothing_that_is_kept_or_shown() {
    let store = Store::start(|request| match request.login.as_deref() {
        // "ann:s3cret".
        Some("Bearer t0ken" | "Basic YW5uOnMzY3JldA==") => Answer::Plain,
        _ => Answer::Status(401, "who are you?"),
    });
    store.fill();
    gets_everything(&store.reader());
    let of_file = Sandbox::new(crate::fake_store::PAPER)
        .set("PIPELINE_REMOTE", store.address())
        .set("NETRC", "logins");
    of_file.write("logins", "machine 127.0.0.1 login ann password s3cret\n");
    gets_everything(&of_file);
    of_file.write("logins", "machine 127.0.0.1 login ann password s3cret2\n");
    of_file.edit("seq 1 60000", "seq 1 60001");
    let wrong = of_file.pipeline("run experiment.toml");
    wrong.success();
    let words = "access denied (status 401; http://127.0.0.1:";
    assert!(wrong.stderr.contains(words), "{wrong}");
    assert!(wrong.stderr.contains("the login of 127.0.0.1 is not one of those who may"), "{wrong}");
    let nobody = store.reader().set("PIPELINE_TOKEN_127_0_0_1", "");
    let nobody = nobody.pipeline("run experiment.toml");
    nobody.success();
    assert!(nobody.stderr.contains("there is no login for 127.0.0.1 in ~/.netrc"), "{nobody}");
    for ended in [&wrong, &nobody] {
        for secret in ["s3cret", "t0ken", "YW5u"] {
            assert!(!ended.to_string().contains(secret), "{ended}");
        }
    }
    for file in walk(&of_file.cache("")).into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&file).expect("readable");
        assert!(!bytes.windows(6).any(|part| part == b"s3cret"), "{}", file.display());
    }
}

#[test]
fn what_breaks_off_is_continued_also_by_a_server_without_parts() {
    for parts in [true, false] {
        let broken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&broken);
        let store = Store::start(move |request| {
            match request.method == "GET" && request.name.starts_with("blobs/") {
                // Each time, more of it arrives.
                true => {
                    let after = 9_000 * (1 + count.fetch_add(1, Ordering::Relaxed));
                    Answer::Broken { parts, after }
                }
                false => sends_files(&request.method),
            }
        });
        store.fill();
        gets_everything(&store.reader());
        assert!(broken.load(Ordering::Relaxed) > 1, "it breaks off");
    }
}

#[test]
fn a_server_that_hangs_is_left_when_somebody_asks_to_stop() {
    let store = Store::start(|request| match request.name.starts_with("artifacts/") {
        true => Answer::Never,
        false => sends_files(&request.method),
    });
    store.fill();
    let bob = store.reader();
    bob.edit("wc -l", "wc -c");
    let running = bob.start("run experiment.toml --progress plain");
    running.wait_for("brings an input from http://127.0.0.1");
    ends_soon(running, Signal::INT);
}

#[test]
fn a_server_that_is_full_busy_or_hides_names_is_still_read() {
    let top: Arc<OnceLock<PathBuf>> = Arc::default();
    let (folder, busy) = (Arc::clone(&top), AtomicUsize::new(0));
    let store = Store::start(move |request| {
        let exists = folder.get().is_some_and(|top| top.join(&request.name).exists());
        match request.method.as_str() {
            "PUT" => Answer::Status(507, ""),
            "GET" | "HEAD" if busy.fetch_add(1, Ordering::Relaxed) % 3 == 0 => {
                Answer::Status(503, "")
            }
            "GET" | "HEAD" if !exists => Answer::Status(403, ""),
            _ => Answer::Plain,
        }
    });
    top.set(store.folder.path().to_owned()).expect("once");
    store.fill();
    gets_everything(&store.reader());
    let bob = store.reader();
    bob.edit("wc -l", "wc -c");
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let ran = bob.pipeline("run experiment.toml");
    assert!(ran.printed().contains("paper: 1 remote, 1 ran"), "{ran}");
    assert!(ran.stderr.contains("there is no room left (status 507"), "{ran}");
}

#[test]
fn pages_in_place_of_files_are_not_results() {
    let store = Store::start(|_| {
        Answer::Status(
            200,
            "<!doctype html><title>Hello</title><p>Log in to use the network of this hotel.",
        )
    });
    let bob = store.reader();
    let ran = bob.pipeline("run experiment.toml");
    ran.success();
    assert!(ran.printed().contains("paper: 2 ran"), "{ran}");
    assert!(ran.stderr.contains("is not used: VERSION has more than 64 bytes"), "{ran}");
    // Of a remote that is one, the same.
    let store = Store::start(|request| match request.name.as_str() {
        "VERSION" => Answer::Plain,
        _ => Answer::Status(200, "<!doctype html>"),
    });
    store.fill();
    let ran = store.reader().pipeline("run experiment.toml");
    assert!(ran.stderr.contains("is damaged"), "{ran}");
    assert!(ran.printed().contains("paper: 2 ran"), "{ran}");
}

#[test]
fn nobody_there_or_no_server_of_the_web_is_a_warning() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = (stream.read(&mut [0; 1024]), stream.write_all(b"220 mail.example.org\r\n"));
        }
    });
    let none = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = none.local_addr().expect("bound").port();
    drop(none);
    for port in [port, nobody] {
        let bob = Store::reader_of(format!("http://127.0.0.1:{port}/lab"));
        let ran = bob.pipeline("run experiment.toml");
        ran.success();
        assert!(ran.stderr.contains("is not used: the "), "{ran}");
        assert!(ran.stderr.contains(&format!("(http://127.0.0.1:{port})")), "{ran}");
    }
}
