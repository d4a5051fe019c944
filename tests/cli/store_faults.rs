//! An object store that hangs, refuses, is full or knows nobody any more, before a real folder of results.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::fake_store::{Answer, Store, ends_soon};
use crate::support::Sandbox;

#[test]
fn a_run_whose_input_never_arrives_can_be_stopped() {
    let store = Store::start(|request| match request.name.starts_with("artifacts/") {
        true => Answer::Never,
        false => Answer::Plain,
    });
    store.fill();
    let bob = store.user();
    bob.edit("wc -l", "wc -c");
    let running = bob.start("run experiment.toml --progress plain");
    running.wait_for("brings an input from s3://lab");
    ends_soon(running, Signal::INT);
    // What it knows of the remote is still known.
    let status = bob.pipeline("status experiment.toml").printed();
    assert!(status.contains("data  command  remote"), "{status}");
}

#[test]
fn a_run_whose_result_is_never_taken_can_be_stopped() {
    let store = Store::start(|request| match request.method.as_str() {
        "PUT" => Answer::Never,
        _ => Answer::Plain,
    });
    let ann = store.user();
    ann.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let running = ann.start("run experiment.toml --progress plain");
    running.wait_for("Ctrl-C leaves the rest to");
    let said = ends_soon(running, Signal::INT);
    assert!(said.contains("2 results were not pushed to s3://lab"), "{said}");
    assert!(said.contains("`pipeline push experiment.toml` sends what is missing"), "{said}");
}

#[test]
fn a_run_says_what_it_waits_for_before_it_begins() {
    let store = Store::start(|_| Answer::Never);
    let bob = store.user();
    let running = bob.start("run experiment.toml");
    running.wait_for("asking s3://lab");
    ends_soon(running, Signal::INT);
}

/// Lets credentials be what a program prints, with another key each time, which notes that it was asked.
fn with_program(user: Sandbox) -> Sandbox {
    let program = user.path("credentials.sh").display().to_string();
    user.write("aws-config", format!("[default]\ncredential_process = sh {program}\n"));
    user.write(
        "credentials.sh",
        r#"echo >> asked
printf '{"Version": 1, "AccessKeyId": "key%d", "SecretAccessKey": "s3cret"}' $(wc -l < asked)
"#,
    );
    user.set("AWS_CONFIG_FILE", "aws-config").set("AWS_SHARED_CREDENTIALS_FILE", "aws-credentials")
}

#[test]
fn credentials_that_expire_meanwhile_are_renewed() {
    let expired = |is_head: bool| match is_head {
        // As Amazon answers a HEAD: without a body.
        true => Answer::Status(400, ""),
        false => Answer::Status(400, "<Error><Code>ExpiredToken</Code></Error>"),
    };
    // As SeaweedFS says it of what is written.
    let denied = |is_head: bool| match is_head {
        true => Answer::Plain,
        false => Answer::Status(403, "<Error><Code>AccessDenied</Code></Error>"),
    };
    let answers: [fn(bool) -> Answer; 2] = [expired, denied];
    for answer in answers {
        let store = Store::start(move |request| {
            let is_old = request.query.contains("X-Amz-Credential=key1%2F");
            match is_old && !request.name.starts_with("VERSION") {
                true => answer(request.method == "HEAD"),
                false => Answer::Plain,
            }
        });
        let ann = with_program(store.visitor());
        ann.pipeline("run experiment.toml").success();
        fs::remove_file(ann.path("asked")).expect("it was asked");
        let pushed = ann.pipeline("push experiment.toml");
        pushed.success();
        assert!(pushed.stdout.starts_with("2 pushed"), "{pushed}");
        // However many threads saw it at the same time.
        assert_eq!(ann.read("asked").lines().count(), 2);
    }
}

#[test]
fn credentials_that_another_program_renews_are_read_again() {
    // One of a file that the run has read before its stage ends, and no request of it is signed with the new one before.
    let store = Store::start(|request| {
        let is_old = request.query.contains("X-Amz-Credential=old%2F");
        match is_old && request.name.starts_with("packs/") {
            true => Answer::Status(403, "<Error><Code>InvalidAccessKeyId</Code></Error>"),
            false => Answer::Plain,
        }
    });
    let ann = store.visitor().set("AWS_SHARED_CREDENTIALS_FILE", "aws-credentials");
    let credentials = |key: &str| {
        let text = format!("aws_access_key_id = {key}\naws_secret_access_key = s3cret\n");
        ann.write("aws-credentials", format!("[default]\n{text}"));
    };
    credentials("old");
    ann.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let go = ann.path("go").display().to_string();
    let few = format!("until [ -e {go} ]; do sleep 0.01; done; echo 1 > $PIPELINE_OUTPUT/few; seq");
    ann.edit("seq", &few);
    let running = ann.start("run experiment.toml --progress plain");
    running.wait_for("data (command) runs");
    credentials("new");
    ann.write("go", "");
    let ended = running.wait();
    ended.success();
    assert!(!ended.stderr.contains("warning"), "{ended}");
    credentials("old");
    let pushed = ann.pipeline("push experiment.toml");
    assert!(pushed.stdout.starts_with("0 pushed"), "{pushed}");
}

#[test]
fn a_store_that_is_full_is_still_read() {
    let store = Store::start(|request| match request.method.as_str() {
        "PUT" => Answer::Status(507, "<Error><Code>InsufficientStorage</Code></Error>"),
        _ => Answer::Plain,
    });
    store.fill();
    let bob = store.user();
    bob.edit("wc -l", "wc -c");
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let ran = bob.pipeline("run experiment.toml");
    let shown = ran.printed();
    assert!(shown.contains("paper: 1 remote, 1 ran"), "{ran}");
    assert!(ran.stderr.contains("1 result was not pushed"), "{ran}");
    assert!(ran.stderr.contains("InsufficientStorage, status 507"), "{ran}");
}

#[test]
fn secrets_that_a_store_repeats_are_not_shown() {
    let store = Store::start(|request| {
        let said = format!("no /{}?{} with t0k/en of s3cret", request.name, request.query);
        let said = said.replace('&', "&amp;");
        let (status, code) = match request.method.as_str() {
            "PUT" => (400, "ExpiredToken"),
            _ => (403, "AccessDenied"),
        };
        let error = format!("<Error><Code>{code}</Code><Message>{said}</Message></Error>");
        Answer::Status(status, error.leak())
    });
    let ann = store.user().set("AWS_SESSION_TOKEN", "t0k/en");
    ann.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    for command in ["plan experiment.toml --remote", "run experiment.toml", "push experiment.toml"]
    {
        let ended = ann.pipeline(command);
        let printed = ended.to_string();
        assert!(printed.contains("status 40") && printed.contains("with … of …"), "{ended}");
        assert!(printed.contains("X-Amz-Signature=…"), "{ended}");
        for secret in ["t0k", "s3cret", "X-Amz-Credential=ann"] {
            assert!(!printed.contains(secret), "{ended}");
        }
    }
}

#[test]
fn who_may_read_but_not_list_gets_what_there_is() {
    // To whom may not list, Amazon does not say that a name has nothing.
    let folder: Arc<std::sync::OnceLock<PathBuf>> = Arc::default();
    let top = Arc::clone(&folder);
    let store = Store::start(move |request| {
        let exists = top.get().is_some_and(|top| top.join(&request.name).exists());
        match exists || request.method == "PUT" {
            true => Answer::Plain,
            false if request.method == "HEAD" => Answer::Status(403, ""),
            false => Answer::Status(403, "<Error><Code>AccessDenied</Code></Error>"),
        }
    });
    folder.set(store.folder.path().to_owned()).expect("once");
    store.fill();
    let bob = with_program(store.visitor());
    bob.edit("wc -l", "wc -c");
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let started = std::time::Instant::now();
    let ran = bob.pipeline("run experiment.toml");
    let shown = ran.printed();
    assert!(shown.contains("paper: 1 remote, 1 ran"), "{ran}");
    assert!(!ran.stderr.contains("warning"), "{ran}");
    // Not again for each name that is hidden.
    let asked = bob.read("asked").lines().count() as u64;
    assert!((2..=2 + started.elapsed().as_secs() / 10).contains(&asked), "{asked}");
}

#[test]
fn credentials_that_become_unknown_are_renewed_also_right_after_names_were_hidden() {
    // The second key is asked for as names are hidden, and the third one because it is needed.
    let folder: Arc<std::sync::OnceLock<PathBuf>> = Arc::default();
    let top = Arc::clone(&folder);
    let store = Store::start(move |request| {
        let exists = top.get().is_some_and(|top| top.join(&request.name).exists());
        let mut unknown = ["key1", "key2"].iter();
        let is_unknown =
            unknown.any(|key| request.query.contains(&format!("X-Amz-Credential={key}%2F")));
        match request.method.as_str() {
            "PUT" if is_unknown => {
                Answer::Status(403, "<Error><Code>InvalidAccessKeyId</Code></Error>")
            }
            "PUT" => Answer::Plain,
            _ if exists => Answer::Plain,
            "HEAD" => Answer::Status(403, ""),
            _ => Answer::Status(403, "<Error><Code>AccessDenied</Code></Error>"),
        }
    });
    folder.set(store.folder.path().to_owned()).expect("once");
    store.fill();
    let bob = with_program(store.visitor());
    bob.edit("wc -l", "wc -c");
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let ran = bob.pipeline("run experiment.toml");
    assert!(ran.printed().contains("paper: 1 remote, 1 ran"), "{ran}");
    assert!(!ran.stderr.contains("not pushed") && !ran.stderr.contains("warning"), "{ran}");
    assert!(bob.read("asked").lines().count() >= 3, "{ran}");
}

#[test]
fn the_parts_of_an_upload_that_failed_are_removed() {
    let removed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&removed);
    let store = Store::start(move |request| match request.method.as_str() {
        "POST" => Answer::Status(
            200,
            "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <UploadId>first</UploadId></InitiateMultipartUploadResult>",
        ),
        "PUT" if request.query.contains("partNumber=") => {
            Answer::Status(403, "<Error><Code>AccessDenied</Code></Error>")
        }
        "DELETE" if request.query.contains("uploadId=first") => {
            count.fetch_add(1, Ordering::Relaxed);
            Answer::Status(204, "")
        }
        _ => Answer::Plain,
    });
    let ann = store.user();
    // Compressed, it is large enough for parts.
    ann.edit("seq 1 60000", "head -c 36000000 /dev/urandom; seq 1 6000000");
    ann.edit("shell = 'head", "shell = '{ head");
    ann.edit("seq 1 6000000 >", "seq 1 6000000; } >");
    ann.pipeline("run experiment.toml data").success();
    let pushed = ann.pipeline("push experiment.toml data");
    assert_eq!(pushed.code(), Some(1));
    assert!(pushed.stderr.contains("these credentials may not write"), "{pushed}");
    assert_eq!(removed.load(Ordering::Relaxed), 1);
}
