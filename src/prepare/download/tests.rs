//! Tests of `download` with a real server on this machine.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pipeline_stages::PrepareStage;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::{Context, Stopped};
use serde_json::{Value, json};

use super::Downloader;
use super::http::{Client, Variable};
use super::server::{Reply, Request, Server};
use crate::credentials::Credentials;
use crate::fixture::{Fixture, notes, stage};

/// A file that takes several messages.
fn content() -> Vec<u8> {
    (0..200_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn blake3_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The result of a stage of this kind.
struct Run {
    result: anyhow::Result<Metrics>,
    /// The pauses that it requested, in seconds.
    pauses: Vec<u64>,
    notes: Vec<String>,
}

impl Run {
    fn error(&self) -> String {
        format!("{:#}", self.result.as_ref().expect_err("the stage fails"))
    }
}

/// Runs the stage without pauses, in the given context.
fn run_in(context: &Context, parameters: &Value) -> Run {
    run_as(|_| None, context, parameters)
}

/// The same with variables of the environment.
fn run_as(variable: fn(&str) -> Option<OsString>, context: &Context, parameters: &Value) -> Run {
    run_with(variable, Box::new(variable), context, parameters)
}

/// The same with variables that name logins, and those that name proxies.
fn run_with(
    logins: fn(&str) -> Option<OsString>,
    proxies: Variable,
    context: &Context,
    parameters: &Value,
) -> Run {
    let PrepareStage::Download(download) = stage("download", parameters) else {
        unreachable!("the kind is download")
    };
    let pauses = RefCell::new(Vec::new());
    let pause = |context: &Context, time: Duration| {
        pauses.borrow_mut().push(time.as_secs());
        context.stop_point()
    };
    let (credentials, _) = Credentials::of_the_user(logins);
    let client = Client::new(&download, credentials, proxies).expect("a client");
    let result = Downloader { stage: &download, context, client, pause: &pause }.run();
    Run { result, pauses: pauses.take(), notes: notes(context) }
}

fn run(fixture: &Fixture, parameters: &Value) -> Run {
    run_in(&fixture.context("download", parameters), parameters)
}

/// Asserts that the file is the only one, and that nothing is left of the transfer.
fn assert_came(fixture: &Fixture, run: &Run, name: &str, bytes: &[u8]) {
    let metrics = run.result.as_ref().expect("the stage succeeds");
    assert_eq!(metrics, &Metrics::from([("bytes".to_owned(), bytes.len() as f64)]));
    assert_eq!(fixture.output_paths(), [name]);
    assert!(
        std::fs::read(fixture.output().join(name)).expect("the file") == bytes,
        "the bytes differ"
    );
    assert!(crate::fixture::paths_below(&fixture.checkpoint()).is_empty());
}

/// A server with ranges and a strong validator. `first` changes the reply to the first request.
fn server_with_ranges(first: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |number, request| {
        let file = content();
        let same = request.headers.get("if-range").is_none_or(|validator| validator == "\"v1\"");
        let reply = match request.range_start().filter(|_| same) {
            Some(start) => Reply::rest(&file, start),
            None => Reply::new(200, &file),
        };
        let reply = reply.header("ETag", "\"v1\"");
        if number == 0 { first(reply) } else { reply }
    })
}

#[test]
fn a_file_comes_from_the_web() {
    let server = Server::start(|_, _| Reply::new(200, &content()));
    let fixture = Fixture::new();
    let file = content();
    let parameters =
        json!({"url": server.url("/data/a.bin?key=1"), "blake3": blake3_of(&file).to_uppercase()});
    let run = run(&fixture, &parameters);
    assert_came(&fixture, &run, "a.bin", &file);
    let request = server.requests().remove(0);
    assert_eq!(request.path, "/data/a.bin?key=1");
    assert_eq!(
        request.headers["user-agent"],
        format!("pipeline/{}", pipeline_stages::message::VERSION)
    );
    assert_eq!(request.headers["accept-encoding"], "identity");
}

#[test]
fn every_checksum_that_is_given_is_checked() {
    let fixture = Fixture::new();
    std::fs::write(fixture.folder().join("a.txt"), "abc").expect("a file");
    let good = json!({
        "url": "file:a.txt",
        "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        "sha256": "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
        "md5": "900150983cd24fb0d6963f7d28e17f72",
    });
    assert_came(&fixture, &run(&fixture, &good), "a.txt", b"abc");
    for algorithm in ["blake3", "sha256", "md5"] {
        let fixture = Fixture::new();
        std::fs::write(fixture.folder().join("a.txt"), "abc").expect("a file");
        let mut bad = good.clone();
        let right = good[algorithm].as_str().expect("text").to_lowercase();
        let wrong = right.replace(|digit: char| digit.is_ascii_hexdigit(), "0");
        bad[algorithm] = wrong.as_str().into();
        let error = run(&fixture, &bad).error();
        assert!(
            error.contains(&format!("wrong {algorithm}: expected {wrong}, got {right} (3 bytes)")),
            "{error}"
        );
        assert!(fixture.output_paths().is_empty(), "nothing is kept");
        assert!(crate::fixture::paths_below(&fixture.checkpoint()).is_empty(), "nothing is kept");
    }
}

#[test]
fn an_interrupted_transfer_is_continued() {
    let server = server_with_ranges(|reply| reply.cut_after(70_000));
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "blake3": blake3_of(&content())}));
    assert_came(&fixture, &run, "a", &content());
    assert_eq!(run.pauses, [1]);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range_start(), Some(70_000));
    assert_eq!(requests[1].headers["if-range"], "\"v1\"");
    assert!(
        run.notes[0].contains("(after 70000 of 200000 bytes); trying again in 1 s"),
        "{:?}",
        run.notes
    );
}

#[test]
fn an_interrupted_stage_continues_in_the_next_run() {
    let server =
        server_with_ranges(|reply| reply.cut_after(70_000).then_silent(Duration::from_secs(20)));
    let fixture = Fixture::new();
    let parameters = json!({"url": server.url("/a"), "unverified": true});
    let context = fixture.context("download", &parameters);
    let stop = context.stop_flag();
    let checkpoint = fixture.checkpoint();
    let asking = std::thread::spawn(move || {
        let arrived = |path: &String| {
            path.ends_with(".part")
                && checkpoint.join(path).metadata().is_ok_and(|metadata| metadata.len() == 70_000)
        };
        while !crate::fixture::paths_below(&checkpoint).iter().any(arrived) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        Instant::now()
    });
    let first = run_in(&context, &parameters);
    let asked = asking.join().expect("it does not panic");
    assert!(first.result.expect_err("it stopped").is::<Stopped>());
    assert!(asked.elapsed() < Duration::from_secs(10), "Ctrl-C does not wait for the server");
    assert!(fixture.output_paths().is_empty());

    let second = run(&fixture, &parameters);
    assert_came(&fixture, &second, "a", &content());
    assert_eq!(server.requests()[1].range_start(), Some(70_000));
}

#[test]
fn a_file_that_changed_meanwhile_starts_over() {
    // The first version is interrupted; then the file changes.
    let server = Server::start(|number, request| {
        if number == 0 {
            return Reply::new(200, &[7; 5000]).header("ETag", "\"v1\"").cut_after(3000);
        }
        assert_eq!(request.headers["if-range"], "\"v1\"");
        Reply::new(200, &content()).header("ETag", "\"v2\"")
    });
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "unverified": true}));
    assert_came(&fixture, &run, "a", &content());
}

#[test]
fn a_server_that_ignores_the_condition_is_detected() {
    for changed in ["etag", "size", "start"] {
        let server = Server::start(move |number, request| match (number, request.range_start()) {
            (0, _) => Reply::new(200, &content()).header("ETag", "\"v1\"").cut_after(3000),
            (_, Some(start)) => match changed {
                "etag" => Reply::rest(&content(), start).header("ETag", "\"v2\""),
                "size" => Reply::rest(&content()[..100_000], start),
                _ => Reply::rest(&content(), start - 1),
            },
            (_, None) => Reply::new(200, &content()).header("ETag", "\"v2\""),
        });
        let fixture = Fixture::new();
        let run = run(&fixture, &json!({"url": server.url("/a"), "unverified": true}));
        assert_came(&fixture, &run, "a", &content());
        assert_eq!(server.requests().len(), 3, "{changed}: asked again, without a range");
    }
}

#[test]
fn servers_without_ranges_start_over() {
    let server = Server::start(|number, _| {
        let reply = Reply::new(200, &content());
        if number == 0 { reply.cut_after(1000) } else { reply }
    });
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "blake3": blake3_of(&content())}));
    assert_came(&fixture, &run, "a", &content());
}

#[test]
fn a_range_that_cannot_be_satisfied_starts_over() {
    let server = Server::start(|number, request| match (number, request.range_start()) {
        (0, _) => Reply::new(200, &content()).cut_after(1000),
        (_, Some(_)) => Reply::new(416, b""),
        (_, None) => Reply::new(200, &content()),
    });
    let fixture = Fixture::new();
    let run = run(
        &fixture,
        &json!({"url": server.url("/a"), "blake3": blake3_of(&content()), "retries": 1}),
    );
    assert_came(&fixture, &run, "a", &content());
}

#[test]
fn pieces_of_two_versions_are_fetched_again_in_one() {
    // Without a validator, only the checksum shows that the file changed.
    let server = Server::start(|number, request| match (number, request.range_start()) {
        (0, _) => Reply::new(200, &vec![7; content().len()]).cut_after(1000),
        (_, Some(start)) => Reply::rest(&content(), start),
        (_, None) => Reply::new(200, &content()),
    });
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "blake3": blake3_of(&content())}));
    assert_came(&fixture, &run, "a", &content());
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn redirects_are_followed_with_the_range() {
    let server = Server::start(|number, request| match request.path.as_str() {
        "/a" => Reply::new(302, b"").header("Location", "/b/c"),
        "/b/c" => Reply::new(307, b"").header("Location", "../d"),
        _ => match request.range_start() {
            Some(start) => Reply::rest(&content(), start),
            None => Reply::new(200, &content()).cut_after(if number < 3 { 500 } else { 0 }),
        },
    });
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "blake3": blake3_of(&content())}));
    assert_came(&fixture, &run, "a", &content());
    let paths: Vec<_> =
        server.requests().into_iter().map(|request: Request| request.path).collect();
    assert_eq!(paths, ["/a", "/b/c", "/d", "/a", "/b/c", "/d"]);
}

#[test]
fn redirects_are_followed_like_in_curl() {
    for (location, expected) in [
        ("/c/my file.bin?x=a b", "/c/my%20file.bin?x=a%20b"),
        ("ü.bin", "/a/b/%C3%BC.bin"),
        ("../c", "/a/c"),
        ("?y=1", "/a/b/start?y=1"),
        ("/c#top", "/c"),
    ] {
        let server = Server::start(move |number, _| match number {
            0 => Reply::new(302, b"").header("Location", location),
            _ => Reply::new(200, b"hello"),
        });
        let fixture = Fixture::new();
        let parameters = json!({"url": server.url("/a/b/start"), "unverified": true, "name": "x"});
        assert_came(&fixture, &run(&fixture, &parameters), "x", b"hello");
        assert_eq!(server.requests()[1].path, expected, "{location}");
    }
}

#[test]
fn a_redirect_that_cannot_be_followed_is_not_tried_again() {
    for (location, words) in [
        ("file:///etc/passwd", "redirects to 'file:///etc/passwd', which cannot be fetched"),
        ("ftp://ann:s3cret@h/a", "'ftp://***@h/a'"),
        ("http://h:port/", "its port is not a number"),
        ("/missing", "not found (status 404)"),
    ] {
        let server = Server::start(move |_, request| match request.path.as_str() {
            "/a" => Reply::new(302, b"").header("Location", location),
            _ => Reply::new(404, b""),
        });
        let fixture = Fixture::new();
        let run = run(&fixture, &json!({"url": server.url("/a"), "unverified": true}));
        assert!(run.error().contains(words), "{}", run.error());
        assert!(run.pauses.is_empty(), "{location}");
    }
}

#[test]
fn a_login_is_sent_only_to_its_host() {
    let other = Server::start(|_, _| Reply::new(200, b"hello"));
    let elsewhere = other.url("/c");
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/a" => Reply::new(302, b"").header("Location", "/b"),
        _ => Reply::new(302, b"").header("Location", &*elsewhere),
    });
    let fixture = Fixture::new();
    let parameters = json!({"url": server.url("/a"), "unverified": true, "retries": 0});
    let variable = |name: &str| (name == "PIPELINE_LOGIN_127_0_0_1").then(|| "ann:s3cret".into());
    let context = fixture.context("download", &parameters);
    let run = run_as(variable, &context, &parameters);
    assert_came(&fixture, &run, "a", b"hello");
    for request in server.requests() {
        assert_eq!(request.headers["authorization"], "Basic YW5uOnMzY3JldA==");
    }
    assert_eq!(other.requests()[0].headers.get("authorization"), None);
    assert!(!format!("{:?}", context.kept_events()).contains("s3cret"));
}

#[test]
fn a_netrc_file_that_cannot_be_read_is_a_note() {
    let (_, note) = Credentials::of_the_user(|name| (name == "NETRC").then(|| "/no/file".into()));
    assert_eq!(
        note.as_deref(),
        Some("continues without the logins of /no/file: the file does not exist")
    );
    let (_, note) = Credentials::of_the_user(|name| (name == "HOME").then(|| "/no/home".into()));
    assert_eq!(note, None);
}

#[test]
fn a_transfer_that_is_too_slow_is_stopped() {
    let server = Server::start(|_, _| {
        Reply::new(200, &content()).cut_after(100).then_trickle(Duration::from_millis(20))
    });
    let fixture = Fixture::new();
    let parameters = |limit: u64| {
        json!({"url": server.url("/a"), "unverified": true, "retries": 0, "speed-limit": limit,
            "speed-time-seconds": 1, "timeout-seconds": 3})
    };
    let error = run(&fixture, &parameters(1000)).error();
    assert!(error.contains("too slow: ") && error.contains("speed-limit is 1000"), "{error}");
}

#[test]
fn a_few_more_bytes_do_not_count_as_progress() {
    // Each connection sends one more byte.
    let server = Server::start(|_, request| {
        let start = request.range_start().unwrap_or(0);
        let reply = match start {
            0 => Reply::new(200, &content()),
            _ => Reply::rest(&content(), start),
        };
        reply.cut_after(1)
    });
    let fixture = Fixture::new();
    let parameters =
        json!({"url": server.url("/a"), "blake3": blake3_of(&content()), "retries": 2});
    let run = run(&fixture, &parameters);
    assert_eq!(run.pauses, [1, 2]);
    assert!(run.error().ends_with("(tried 3 times)"), "{}", run.error());
}

#[test]
fn a_loop_of_redirects_ends() {
    let server = Server::start(|_, _| Reply::new(301, b"").header("Location", "/a"));
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "unverified": true}));
    assert!(run.error().contains("it redirects too often"), "{}", run.error());
    assert!(run.pauses.is_empty(), "this is permanent");
}

#[test]
fn the_next_mirror_is_tried() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/missing" => Reply::new(404, b"no"),
        "/wrong" => Reply::new(200, b"<!DOCTYPE html><p>Please log in"),
        _ => Reply::new(200, &content()),
    });
    let fixture = Fixture::new();
    let urls = [
        server.url("/missing"),
        "file:nowhere/a".into(),
        server.url("/wrong"),
        server.url("/good"),
    ];
    let run = run(&fixture, &json!({"url": urls, "blake3": blake3_of(&content())}));
    assert_came(&fixture, &run, "missing", &content());
    assert!(run.pauses.is_empty(), "all of these are permanent: {:?}", run.pauses);
    let words = ["not found (status 404)", "does not exist", "it is a web page"];
    assert_eq!(run.notes.len(), words.len(), "{:?}", run.notes);
    for (note, words) in run.notes.iter().zip(words) {
        assert!(note.contains(words), "{note}");
    }
}

#[test]
fn if_all_mirrors_fail_all_are_named() {
    let server = Server::start(|_, _| Reply::new(403, b""));
    let fixture = Fixture::new();
    let parameters = json!({"url": [server.url("/a"), "file:a"], "unverified": true,
        "instructions": "Ask the authors for the file and put it beside the manifest."});
    let error = run(&fixture, &parameters).error();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert_eq!(lines[0], "cannot download 'a' from any of 2 mirrors:");
    assert!(
        lines[1].starts_with("  http://127.0.0.1:") && lines[1].contains("(status 403)"),
        "{error}"
    );
    assert!(
        lines[2].starts_with("  file:a: /") && lines[2].ends_with("/a does not exist"),
        "{error}"
    );
    assert_eq!(lines[3], "Ask the authors for the file and put it beside the manifest.");
}

#[test]
fn temporary_failures_are_tried_again() {
    let server = Server::start(|number, _| match number {
        0 => Reply::new(500, b"oops"),
        1 => Reply::new(503, b"busy").header("Retry-After", "17"),
        _ => Reply::new(200, &content()),
    });
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "blake3": blake3_of(&content())}));
    assert_came(&fixture, &run, "a", &content());
    assert_eq!(run.pauses, [1, 17]);
}

#[test]
fn retries_are_limited() {
    let server = Server::start(|_, _| Reply::new(429, b""));
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "unverified": true, "retries": 3}));
    assert_eq!(run.pauses, [1, 2, 4]);
    assert_eq!(server.requests().len(), 4);
    assert!(
        run.error().ends_with("the server is not available (status 429) (tried 4 times)"),
        "{}",
        run.error()
    );
}

#[test]
fn a_refused_connection_is_tried_again() {
    let free_port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}/a", free_port.expect("a port that nobody listens at"));
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": url, "unverified": true, "retries": 1}));
    assert_eq!(run.pauses, [1]);
    assert!(run.error().contains("the connection failed"), "{}", run.error());
}

#[test]
fn progress_resets_the_count_of_failures() {
    // Every connection is closed after 30,000 bytes: seven of them, with two consecutive retries allowed.
    let server = Server::start(|_, request| {
        let start = request.range_start().unwrap_or(0);
        let reply = match start {
            0 => Reply::new(200, &content()),
            _ => Reply::rest(&content(), start),
        };
        reply.cut_after((content().len() - start).min(30_000))
    });
    let fixture = Fixture::new();
    let run = run(
        &fixture,
        &json!({"url": server.url("/a"), "blake3": blake3_of(&content()), "retries": 2}),
    );
    assert_came(&fixture, &run, "a", &content());
    assert_eq!(run.pauses, [1; 6]);
}

#[test]
fn a_silent_server_times_out() {
    for bytes in [0, 1000] {
        let server = Server::start(move |_, _| {
            Reply::new(200, &content()).cut_after(bytes).then_silent(Duration::from_secs(20))
        });
        let fixture = Fixture::new();
        let parameters = json!({"url": server.url("/a"), "unverified": true, "retries": 0, "timeout-seconds": 1});
        let started = Instant::now();
        let error = run(&fixture, &parameters).error();
        assert!(
            error.contains(&format!("no data received for 1 s (after {bytes} of 200000 bytes)")),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

/// The error of a download from a server that replies to one request with these bytes and then waits, or closes the
/// connection.
fn error_after(reply: Vec<u8>, wait: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/a", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(&reply)?;
        std::thread::sleep(wait);
        Ok::<_, std::io::Error>(())
    });
    let parameters = json!({"url": url, "unverified": true, "retries": 0, "timeout-seconds": 1});
    run(&Fixture::new(), &parameters).error()
}

#[test]
fn a_response_that_is_not_valid_is_described_in_plain_words() {
    let invalid = "the response cannot be read: it is not valid HTTP/1.1, or has too many headers";
    let many = (0..1000).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    for (reply, wait, expected) in [
        (b"HTTP/9.9 200 OK\r\n\r\n".to_vec(), 0, invalid),
        (format!("HTTP/1.1 200 OK\r\n{many}\r\n").into_bytes(), 0, invalid),
        (Vec::new(), 0, "the server closed the connection too early"),
        (b"HTTP/1.1 200 OK\r\nX: 1".to_vec(), 20, "no complete response header for 1 s"),
    ] {
        let error = error_after(reply, Duration::from_secs(wait));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_unverified_file_is_noted_with_its_checksum() {
    let server = Server::start(|_, _| Reply::new(200, b"<html>Log in"));
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a.zip"), "unverified": true}));
    assert_came(&fixture, &run, "a.zip", b"<html>Log in");
    assert!(
        run.notes[0].contains(&format!("blake3 = \"{}\"", blake3_of(b"<html>Log in"))),
        "{:?}",
        run.notes
    );
    assert!(run.notes[1].contains("a web page"), "{:?}", run.notes);
}

#[test]
fn a_body_of_unknown_length_is_complete() {
    let server = Server::start(|_, _| {
        Reply::new(200, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
            .header("Transfer-Encoding", "chunked")
    });
    let fixture = Fixture::new();
    let run = run(&fixture, &json!({"url": server.url("/a"), "blake3": blake3_of(b"hello world")}));
    assert_came(&fixture, &run, "a", b"hello world");
}

#[test]
fn a_local_file_is_found_next_to_the_manifest_or_by_its_full_path() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.folder().join("my data")).expect("a folder");
    let path = fixture.folder().join("my data/a.bin");
    std::fs::write(&path, content()).expect("a file");
    let full = format!("file://{}", path.display());
    for url in ["file:my data/a.bin", "file:my%20data/a.bin", &full] {
        let again = Fixture::new();
        std::fs::create_dir(again.folder().join("my data")).expect("a folder");
        std::fs::copy(&path, again.folder().join("my data/a.bin")).expect("a file");
        let run = run(&again, &json!({"url": url, "blake3": blake3_of(&content())}));
        assert_came(&again, &run, "a.bin", &content());
    }
    let error = run(&fixture, &json!({"url": "file:my data", "unverified": true})).error();
    assert!(error.ends_with("my data is not a regular file"), "{error}");
}

#[test]
fn a_pipe_is_refused() {
    let fixture = Fixture::new();
    let pipe = fixture.folder().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).expect("a pipe");
    let error = run(&fixture, &json!({"url": "file:pipe", "unverified": true})).error();
    assert!(error.ends_with("pipe is not a regular file"), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let chunked = || {
        let body = [b"30d40\r\n", content().as_slice(), b"\r\n0\r\n\r\n"].concat();
        Reply::new(200, &body).header("Transfer-Encoding", "chunked")
    };
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/chunked" => chunked(),
        _ => Reply::new(200, &content()),
    });
    let fixture = Fixture::new();
    std::fs::write(fixture.folder().join("a"), content()).expect("a file");
    for url in [server.url("/a"), server.url("/chunked"), "file:a".to_owned()] {
        let parameters = |most: u64| json!({"url": &url, "unverified": true, "max-bytes": most});
        let refused = run(&fixture, &parameters(199_999));
        let error = refused.error();
        assert!(
            error.ends_with("has more than 199999 bytes: if that is right, raise max-bytes"),
            "{error}"
        );
        assert!(refused.pauses.is_empty(), "it is permanent");
        let kept =
            |path: &String| fixture.checkpoint().join(path).metadata().map_or(0, |kept| kept.len());
        let parts = crate::fixture::paths_below(&fixture.checkpoint());
        assert_eq!(parts.iter().filter(|path| path.ends_with(".part")).map(kept).sum::<u64>(), 0);
        let again = Fixture::new();
        std::fs::write(again.folder().join("a"), content()).expect("a file");
        run(&again, &parameters(200_000)).result.expect("it is as large as it may be");
    }
}

#[test]
fn a_pause_ends_when_the_stage_is_asked_to_stop() {
    let fixture = Fixture::new();
    let context = fixture.context("download", &json!({"url": "file:a", "unverified": true}));
    super::pause(&context, Duration::from_millis(1)).expect("it was not asked");
    context.stop_flag().store(true, Ordering::Relaxed);
    let started = Instant::now();
    super::pause(&context, Duration::from_secs(60)).expect_err("it was asked");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn the_body_itself_runs() {
    let fixture = Fixture::new();
    std::fs::write(fixture.folder().join("a"), "abc").expect("a file");
    let metrics = fixture.run("download", &json!({"url": "file:a", "unverified": true}));
    assert_eq!(metrics, Ok(Metrics::from([("bytes".to_owned(), 3.0)])));
}

/// Downloads a file of another machine through a proxy on this one.
fn run_through(proxy: &str) -> Run {
    let fixture = Fixture::new();
    let parameters = json!({"url": "http://files.invalid/a.bin", "unverified": true, "retries": 1});
    let proxy = OsString::from(proxy);
    let variable = move |name: &str| (name == "HTTP_PROXY").then(|| proxy.clone());
    run_with(|_| None, Box::new(variable), &fixture.context("download", &parameters), &parameters)
}

#[test]
fn a_failure_of_a_proxy_names_it_and_a_missing_login_is_not_tried_again() {
    let asks = Server::start(|_, _| Reply::new(407, b"who are you?"));
    let address = asks.url("").replace("http://", "");
    let run = run_through(&address);
    let words = format!("write it into HTTP_PROXY, as http://USER:PASSWORD@{address}");
    assert!(run.error().contains(&words), "{}", run.error());
    assert!(run.pauses.is_empty(), "{:?}", run.pauses);
    assert_eq!(asks.requests().len(), 1);
    assert_eq!(asks.requests()[0].path, "files.invalid:80", "plain HTTP is a tunnel, too");

    let run = run_through(&format!("http://ann:s3cret@{address}"));
    let words = format!("the proxy {address} does not accept the login in HTTP_PROXY");
    assert!(run.error().contains(&words) && !run.error().contains("s3cret"), "{}", run.error());

    // A port that was free a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr();
    let closed = closed.expect("an address");
    let run = run_through(&format!("http://ann:s3cret@{closed}"));
    let words =
        format!("the connection to the proxy {closed} (HTTP_PROXY) failed: Connection refused");
    assert!(run.error().contains(&words), "{}", run.error());
    assert_eq!(run.pauses, [1]);
    assert!(!run.notes.join(" ").contains("s3cret"), "{:?}", run.notes);

    let run = run_through("http://127.0.0.1:57o1");
    assert!(run.error().contains("the proxy in HTTP_PROXY is not a number"), "{}", run.error());
    assert!(run.pauses.is_empty(), "{:?}", run.pauses);
}
