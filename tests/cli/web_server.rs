//! A cache that others share, in a folder of a real nginx: `cargo xtask test-remotes` starts one for these.
//!
//! It has one folder by several addresses: `dav` takes files by WebDAV from whoever has a token, `mirror` sends the same files to everybody.

use std::path::Path;

use rustix::process::Signal;

use crate::cutter::Cutter;
use crate::each_phase::{Call, Site, what_is_cut_at_any_turn_counts_as_a_whole_or_not_at_all};
use crate::remote_stories::{
    PAPER, a_file_of_4_gb_arrives, a_pull_that_is_killed_is_continued, many_files_are_few_requests,
    nothing_is_kept_of, one_of_eight_pushes_wins, push_to, succeeded, what_is_cut_is_continued,
    what_is_wrong_there_is_made_here,
};
use crate::support::{MANIFEST, Sandbox, eventually};
use crate::turns::Cut;

const WRITER: &str = "writers-token";
const READER: &str = "readers-token";

/// The address of the server.
fn server() -> String {
    std::env::var("PIPELINE_TEST_WEB").expect("cargo xtask test-remotes sets PIPELINE_TEST_WEB")
}

/// A user of an address, with a token.
fn user_at(manifest: &str, address: String, token: &str) -> Sandbox {
    Sandbox::new(manifest).set("PIPELINE_REMOTE", address).set("PIPELINE_TOKEN_127_0_0_1", token)
}

/// A user of a place on this server.
fn user(manifest: &str, place: &str) -> Sandbox {
    user_at(manifest, format!("{}/{place}", server()), WRITER)
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn a_second_user_gets_the_whole_table_and_every_byte() {
    let ann = user(PAPER, "dav/table");
    ann.pipeline("run experiment.toml").success();
    let missing = ann.pipeline("push experiment.toml");
    missing.success();
    assert!(missing.stdout.starts_with("2 pushed (70 MB) to http://127.0.0.1:"), "{missing}");
    let again = succeeded(ann.pipeline("push experiment.toml")).stdout;
    assert!(again.starts_with("0 pushed (0 B)"), "{again}");
    // Without a login, from the same folder.
    let bob = user(PAPER, "mirror/table").set("PIPELINE_TOKEN_127_0_0_1", "");
    let ran = succeeded(bob.pipeline("run experiment.toml"));
    assert!(ran.stdout.contains("paper: 2 remote in"), "{ran}");
    assert_eq!(bob.digest("data"), ann.digest("data"), "it is brought");
    bob.pipeline("verify experiment.toml").success();
    bob.edit("seq 1 60000", "seq 1 60001");
    bob.pipeline("run experiment.toml").success();
    let pushed = bob.pipeline("push experiment.toml");
    assert!(pushed.stderr.contains("the server takes no files: it can only be read"), "{pushed}");
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn it_is_the_same_by_an_encrypted_connection() {
    let address = std::env::var("PIPELINE_TEST_WEB_ENCRYPTED").expect("the same sets it");
    let certificate = std::env::var("PIPELINE_TEST_WEB_CERTIFICATE").expect("the same sets it");
    let user = |place: &str| {
        user_at(PAPER, format!("{address}/{place}"), WRITER).set("SSL_CERT_FILE", &certificate)
    };
    let ann = user("dav/encrypted");
    ann.pipeline("run experiment.toml").success();
    let pushed = succeeded(ann.pipeline("push experiment.toml")).stdout;
    assert!(pushed.starts_with("2 pushed (70 MB) to https://127.0.0.1:"), "{pushed}");
    let bob = user("mirror/encrypted");
    bob.pipeline("pull experiment.toml").success();
    assert_eq!(bob.digest("data"), ann.digest("data"));
    let stranger = user_at(PAPER, format!("{address}/mirror/encrypted"), WRITER);
    let ran = succeeded(stranger.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("is not used: no secure connection"), "{ran}");
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn folders_are_made_and_files_without_moving_them_are_taken() {
    for place in ["folders", "put"] {
        let ann = user(PAPER, place);
        ann.pipeline("run experiment.toml").success();
        let pushed = succeeded(ann.pipeline("push experiment.toml")).stdout;
        assert!(pushed.starts_with("2 pushed"), "{place}: {pushed}");
        let bob = user(PAPER, place);
        bob.pipeline("pull experiment.toml").success();
        assert_eq!(bob.digest("data"), ann.digest("data"), "{place}");
    }
    let ann = user(PAPER, "folders/missing");
    ann.pipeline("run experiment.toml").success();
    let pushed = ann.pipeline("push experiment.toml");
    assert!(pushed.stderr.contains("the folder does not exist: make it"), "{pushed}");
    let ann = user(PAPER, "small");
    ann.pipeline("run experiment.toml").success();
    let pushed = ann.pipeline("push experiment.toml");
    let words = "the server does not take a file of 70000000 bytes (status 413";
    assert!(pushed.stderr.contains(words), "{pushed}");
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn of_eight_pushes_at_once_one_wins() {
    one_of_eight_pushes_wins(|| user(PAPER, "dav/race"), &user(PAPER, "mirror/race"));
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn a_push_that_is_killed_leaves_nothing_that_counts_and_the_next_completes_it() {
    let ann = user(PAPER, "dav/killed");
    ann.pipeline("run experiment.toml").success();
    let cutter = Cutter::start(&server(), i64::MAX);
    let mut command = ann.command("push experiment.toml");
    command.env("PIPELINE_REMOTE", format!("{}/dav/killed", cutter.address()));
    let running = ann.start_command(command);
    eventually("half of it has arrived", || cutter.passed() > 40_000_000);
    running.signal(Signal::KILL);
    running.wait();
    let bob = user(PAPER, "mirror/killed");
    let pulled = bob.pipeline("pull experiment.toml");
    assert_eq!(pulled.code(), Some(1), "{pulled}");
    ann.pipeline("push experiment.toml").success();
    bob.pipeline("pull experiment.toml").success();
    assert_eq!(bob.digest("data"), ann.digest("data"));
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn who_may_not_write_or_read_is_told_so_and_runs_on() {
    let ann = user(PAPER, "dav/rights");
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml count").success();
    let reader = user_at(PAPER, format!("{}/dav/rights", server()), READER);
    reader.pipeline("pull experiment.toml").success();
    reader.edit("seq 1 60000", "seq 1 60001");
    reader.write(MANIFEST, format!("[cache]\npush = \"always\"\n{}", reader.read(MANIFEST)));
    let ran = succeeded(reader.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("nothing may be written there (status 403"), "{ran}");
    let stranger = user_at(PAPER, format!("{}/dav/rights", server()), "0ther");
    let planned = succeeded(stranger.pipeline("plan experiment.toml --remote"));
    assert!(planned.stderr.contains("access denied (status 401"), "{planned}");
    // Of a file of logins, a name and a password: "ann:s3cret".
    let of_file = stranger.set("PIPELINE_TOKEN_127_0_0_1", "").set("NETRC", "logins");
    of_file.write("logins", "machine 127.0.0.1 login ann password s3cret\n");
    let ran = succeeded(of_file.pipeline("run experiment.toml"));
    assert!(ran.stdout.contains("paper: 2 remote in"), "{ran}");
    for ended in [&ran, &planned] {
        for secret in ["0ther", "s3cret", "-token"] {
            assert!(!ended.to_string().contains(secret), "{ended}");
        }
    }
    nothing_is_kept_of(&["-token", "s3cret"], &[&ann, &reader, &of_file]);
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn what_is_wrong_there_is_made_again() {
    let folder = std::env::var("PIPELINE_TEST_WEB_FOLDER").expect("the same sets it");
    let folder = Path::new(&folder).join("wrong");
    what_is_wrong_there_is_made_here(&folder, |manifest| user(manifest, "dav/wrong"));
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn ten_thousand_small_files_are_few_requests() {
    let user = |place: &'static str| {
        move |server: &str, manifest: &str| user_at(manifest, format!("{server}/{place}"), WRITER)
    };
    many_files_are_few_requests(&server(), user("dav/many"), user("mirror/many"));
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn a_connection_that_is_cut_anywhere_is_made_again_or_is_a_warning() {
    let user = |folder: &'static str| {
        move |server: &str, place: &str| {
            user_at(PAPER, format!("{server}/{folder}/{place}"), WRITER)
        }
    };
    what_is_cut_is_continued(&server(), user("dav"), user("mirror"));
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn a_connection_that_is_cut_at_any_request_or_answer_leaves_nothing_half_that_counts() {
    let site = Site {
        server: server().trim_start_matches("http://").to_owned(),
        address: &|server, place| format!("http://{server}/dav/{place}"),
        user: &|manifest| user(manifest, "dav/whole"),
        bytes: 3_000_000,
    };
    let calls = [
        (Call::Push, Cut::Answer, true),
        (Call::Push, Cut::Request, false),
        (Call::Push, Cut::Answer, false),
        (Call::Pull, Cut::HalfAnswer, true),
        (Call::Pull, Cut::Request, false),
        (Call::Pull, Cut::HalfAnswer, false),
        (Call::Run, Cut::Request, true),
        (Call::Run, Cut::HalfAnswer, false),
    ];
    what_is_cut_at_any_turn_counts_as_a_whole_or_not_at_all(&site, &calls);
}

#[test]
#[ignore = "needs nginx: cargo xtask test-remotes"]
fn a_pull_that_is_killed_is_continued_where_it_was() {
    let address = |server: &str| format!("{server}/mirror/killed-pull");
    a_pull_that_is_killed_is_continued(
        &server(),
        |manifest| user(manifest, "dav/killed-pull"),
        address,
    );
}

#[test]
#[ignore = "needs nginx and 13 GB of room: cargo xtask test-remotes --large"]
fn a_file_of_4_gb_whose_push_was_killed_arrives() {
    let user = |manifest: &str| user(manifest, "dav/large");
    let push = |user: &Sandbox| push_to(&server(), user, |server| format!("{server}/dav/large"));
    a_file_of_4_gb_arrives("nginx", user, push);
}
