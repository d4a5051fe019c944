//! A cache that others share, in a real object store: `cargo xtask test-remotes` starts one for these.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::bucket::{Place, administrate, server};
use crate::cutter::Cutter;
use crate::each_phase::{Call, Site, what_is_cut_at_any_turn_counts_as_a_whole_or_not_at_all};
use crate::remote_stories::{
    BYTES_OF_4_GB, PAPER, a_file_of_4_gb_arrives, a_pull_that_is_killed_is_continued,
    many_files_are_few_requests, nothing_is_kept_of, one_of_eight_pushes_wins, push_to, succeeded,
    what_is_cut_is_continued, what_is_wrong_there_is_made_here,
};
use crate::signed::{Lab, what_is_not_signed_is_made_here};
use crate::support::{MANIFEST, Sandbox, eventually, walk};
use crate::there::There;
use crate::turns::Cut;

/// A user of a place in the store of this server, with the rights of `writer` or `reader`.
fn user_at(server: &str, manifest: &str, place: &str, who: &str) -> Sandbox {
    visitor(server, manifest, &format!("pipeline/{place}"))
        .set("AWS_ACCESS_KEY_ID", who)
        .set("AWS_SECRET_ACCESS_KEY", format!("{who}s-secret"))
}

/// Somebody without credentials.
fn visitor(server: &str, manifest: &str, place: &str) -> Sandbox {
    Sandbox::new(manifest).set("PIPELINE_REMOTE", format!("s3://{place}?endpoint={server}"))
}

fn user(manifest: &str, place: &str) -> Sandbox {
    user_at(&server(), manifest, place, "writer")
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_second_user_gets_the_whole_table_and_every_byte() {
    let place = "table";
    let ann = user(PAPER, place);
    ann.pipeline("run experiment.toml").success();
    let pushed = succeeded(ann.pipeline("push experiment.toml")).stdout;
    assert!(pushed.starts_with("2 pushed (70 MB) to s3://pipeline/table?endpoint="), "{pushed}");
    let again = succeeded(ann.pipeline("push experiment.toml")).stdout;
    assert!(
        again.starts_with("0 pushed (0 B)") && again.ends_with("2 were there already\n"),
        "{again}"
    );
    let bob = user(PAPER, place);
    let ran = succeeded(bob.pipeline("run experiment.toml")).stdout;
    assert!(ran.contains("paper: 2 remote in"), "{ran}");
    assert!(!bob.cache("store").join("x").exists() && walk(&bob.cache("store")).is_empty());
    let status = bob.pipeline("remote status experiment.toml --size --json").json();
    assert_eq!(status["results"], 2);
    assert!(status["bytes"].as_u64().is_some_and(|bytes| bytes > 70_000_000), "{status}");
    assert_eq!(bob.digest("data"), ann.digest("data"), "it is brought");
    bob.pipeline("verify experiment.toml").success();
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn of_what_both_have_only_what_is_new_is_sent_and_fetched() {
    let more = format!(
        "{PAPER}\n[stages.again]\nkind = \"command\"\ninputs = {{ data = \"data\" }}\n\
         shell = 'cp \"$PIPELINE_INPUT_DATA/noise\" \"$PIPELINE_OUTPUT\"; seq 1 70000 > \"$PIPELINE_OUTPUT/more\"'\n"
    );
    let place = "common";
    let ann = user(&more, place);
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml data").success();
    let bob = user(&more, place);
    bob.pipeline("pull experiment.toml data").success();
    for (user, command, said) in
        [(&ann, "push", "1 pushed (70 MB)"), (&bob, "pull", "1 pulled (70 MB)")]
    {
        let cutter = Cutter::start(&server(), i64::MAX);
        let address = format!("s3://pipeline/{place}?endpoint={}", cutter.address());
        let mut command = user.command(&format!("{command} experiment.toml again"));
        command.env("PIPELINE_REMOTE", address);
        let ended = succeeded(user.start_command(command).wait());
        assert!(ended.stdout.starts_with(said), "{ended}");
        // Of requests and answers together: the large file that both have would be seventy times as much.
        assert!(cutter.passed() < 1_000_000, "{} bytes", cutter.passed());
    }
    assert_eq!(bob.digest("again"), ann.digest("again"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn of_eight_pushes_at_once_one_wins() {
    one_of_eight_pushes_wins(|| user(PAPER, "race"), &user(PAPER, "race"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_push_that_is_killed_is_continued() {
    const BYTES: i64 = 200_000_000;
    let large = PAPER.replace("70000000", &BYTES.to_string());
    let ann = user(&large, "killed");
    ann.pipeline("run experiment.toml").success();
    let push = |cutter: &Cutter| {
        let mut command = ann.command("push experiment.toml");
        command
            .env("PIPELINE_REMOTE", format!("s3://pipeline/killed?endpoint={}", cutter.address()));
        ann.start_command(command)
    };
    let cutter = Cutter::start(&server(), i64::MAX);
    let running = push(&cutter);
    eventually("parts that have arrived", || cutter.passed() > BYTES * 3 / 5);
    running.signal(Signal::KILL);
    running.wait();
    let cutter = Cutter::start(&server(), i64::MAX);
    push(&cutter).wait().success();
    assert!(cutter.passed() < BYTES * 9 / 10, "{} bytes were sent again", cutter.passed());
    let bob = user(&large, "killed");
    bob.pipeline("pull experiment.toml").success();
    assert_eq!(bob.digest("data"), ann.digest("data"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn who_may_not_write_or_read_is_told_so_and_runs_on() {
    let ann = user(PAPER, "rights");
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml count").success();
    let reader = user_at(&server(), PAPER, "rights", "reader");
    reader.pipeline("pull experiment.toml").success();
    reader.edit("seq 1 60000", "seq 1 60001");
    reader.write(MANIFEST, format!("[cache]\npush = \"always\"\n{}", reader.read(MANIFEST)));
    let ran = succeeded(reader.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("these credentials may not write (AccessDenied"), "{ran}");
    let stranger = user_at(&server(), PAPER, "rights", "stranger");
    let ran = succeeded(stranger.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("the credentials are not accepted (InvalidAccessKeyId"), "{ran}");
    let nobody = visitor(&server(), PAPER, "pipeline/rights");
    let ran = succeeded(nobody.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("there are no credentials"), "{ran}");
    let wrong = user(PAPER, "rights").set("AWS_SECRET_ACCESS_KEY", "0ther");
    let planned = succeeded(wrong.pipeline("plan experiment.toml --remote"));
    assert!(planned.stderr.contains("the credentials are not accepted"), "{planned}");
    for ended in [&ran, &planned] {
        for secret in ["0ther", "X-Amz", "secret"] {
            assert!(!ended.to_string().contains(secret), "{ended}");
        }
    }
    let missing = visitor(&server(), PAPER, "missing/x")
        .set("AWS_ACCESS_KEY_ID", "writer")
        .set("AWS_SECRET_ACCESS_KEY", "writers-secret");
    let planned = succeeded(missing.pipeline("plan experiment.toml --remote"));
    assert!(planned.stderr.contains("the bucket does not exist"), "{planned}");
    nothing_is_kept_of(&["s-secret", "X-Amz"], &[&ann, &reader, &wrong]);
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn what_is_wrong_in_it_is_made_again() {
    let place = Place::new("pipeline", "wrong");
    what_is_wrong_there_is_made_here(&place, |manifest| user(manifest, "wrong"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn what_is_not_signed_by_somebody_who_is_trusted_is_made_again() {
    let place = Place::new("pipeline", "signed");
    what_is_not_signed_is_made_here(&Lab::at(place, |manifest| user(manifest, "signed")));
}

/// For one story at a time: the store writes all its users with each change of one, which can lose an account that expires.
fn users() -> MutexGuard<'static, ()> {
    static USERS: Mutex<()> = Mutex::new(());
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a user of the store with the rights of a writer.
fn make_user(name: &str) {
    administrate(&format!(
        "s3.configure -user={name} -actions=Admin,Read,Write,List -access_key={name} -secret_key={name}s-secret -apply"
    ));
    let place = Place::of("pipeline", name, name, &format!("{name}s-secret"));
    eventually("a new user", || place.read("VERSION").0 == 404);
}

/// A file of credentials.
fn profile(key: &str, secret: &str) -> String {
    format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn credentials_that_have_expired_are_renewed_where_there_are_others() {
    let _users = users();
    make_user("guest");
    // The store never gets to know one that has expired before it looks.
    let account = administrate(
        "s3.serviceaccount.create -user guest -actions Admin,Read,Write,List -expiry 25s",
    );
    let field = |name: &str| {
        let value = account.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_else(|| panic!("{name} in {account}")).trim().to_owned()
    };
    let (key, secret) = (field("Access Key:"), field("Secret Key:"));
    let place = Place::of("pipeline", "expired", &key, &secret);
    let denied = "<Code>AccessDenied</Code>";
    eventually("an expired key", || {
        String::from_utf8_lossy(&place.read("VERSION").1).contains(denied)
    });
    let ann = visitor(&server(), PAPER, "pipeline/expired")
        .set("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    ann.write("credentials", profile(&key, &secret));
    let ran = succeeded(ann.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("is not used: access denied (AccessDenied"), "{ran}");
    // A program prints them first, and may say since when they are old.
    let printed = |key: &str, secret: &str, more: &str| {
        format!(r#"{{"Version": 1, "AccessKeyId": "{key}", "SecretAccessKey": "{secret}"{more}}}"#)
    };
    ann.write("new", printed("writer", "writers-secret", ""));
    let program = "cat old; echo >> asked; cp new old";
    ann.write("credentials", format!("[default]\ncredential_process = {program}\n"));
    for (since, pushed) in
        [("", "2 pushed"), (r#", "Expiration": "2026-01-02T03:04:05Z""#, "0 pushed")]
    {
        ann.write("old", printed(&key, &secret, since));
        ann.write("asked", "");
        let said = succeeded(ann.pipeline("push experiment.toml"));
        assert!(said.stdout.starts_with(pushed), "{said}");
        assert_eq!(ann.read("asked").lines().count(), 2, "{said}");
    }
    nothing_is_kept_of(&[&secret, &key, "s-secret"], &[&ann]);
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn credentials_that_are_withdrawn_while_a_run_goes_on_are_renewed_where_there_are_others() {
    let _users = users();
    make_user("leaver");
    let another = PAPER.replace("head -c", "until [ -e \"$GO\" ]; do sleep 0.01; done; head -c");
    let run = |place: &str| {
        let ann = visitor(&server(), &another, &format!("pipeline/{place}"))
            .set("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        ann.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
        ann.edit("$GO", &ann.path("go").display().to_string());
        ann.write("credentials", profile("leaver", "leavers-secret"));
        let running = ann.start("run experiment.toml --progress plain");
        running.wait_for("data (command) runs");
        (ann, running)
    };
    let ((ann, of_ann), (bob, of_bob)) = (run("leaver"), run("stranger"));
    administrate("s3.configure -user=leaver -delete -apply");
    let place = Place::of("pipeline", "leaver", "leaver", "leavers-secret");
    eventually("a user that is not known", || place.read("VERSION").0 == 403);
    ann.write("credentials", profile("writer", "writers-secret"));
    ann.write("go", "");
    let ran = succeeded(of_ann.wait());
    assert!(!ran.stderr.contains("warning"), "{ran}");
    assert!(ann.pipeline("push experiment.toml").stdout.starts_with("0 pushed"), "{ran}");
    // Nobody renews his.
    bob.write("go", "");
    let ran = succeeded(of_bob.wait());
    assert!(ran.stderr.contains("the credentials are not accepted (InvalidAccessKeyId"), "{ran}");
    assert!(ran.stderr.contains("2 results were not pushed"), "{ran}");
    bob.write("credentials", profile("writer", "writers-secret"));
    assert!(bob.pipeline("push experiment.toml").stdout.starts_with("2 pushed"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_bucket_that_is_full_is_read_and_takes_what_is_left_once_there_is_room() {
    administrate("s3.bucket.create -name full");
    let user = |manifest: &str| {
        let user = user_at(&server(), manifest, "x", "writer");
        user.set("PIPELINE_REMOTE", format!("s3://full/x?endpoint={}", server()))
    };
    let ann = user(PAPER);
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml").success();
    administrate("s3.bucket.quota -name=full -op=set -sizeMB=1");
    let place = Place::new("full", "x");
    eventually("a full bucket", || {
        administrate("lock\ns3.bucket.quota.enforce -apply\nunlock\n");
        place.write("test", b"test").0 == 500
    });
    let bob = user(&PAPER.replace("wc -l", "wc -c"));
    bob.edit("[experiment]", "[cache]\npush = \"always\"\n[experiment]");
    let ran = succeeded(bob.pipeline("run experiment.toml"));
    assert_eq!(ran.results(), "data remote, count ran", "{ran}");
    assert!(ran.stderr.contains("1 result was not pushed"), "{ran}");
    assert_eq!(bob.digest("data"), ann.digest("data"));
    // Parts are not taken, either.
    let carol = user(&PAPER.replace("seq 1 60000", "seq 1 60001"));
    carol.pipeline("run experiment.toml").success();
    let pushed = carol.pipeline("push experiment.toml");
    assert_eq!(pushed.code(), Some(1), "{pushed}");
    let records = place.names("records").len();
    administrate("s3.bucket.quota -name=full -op=remove");
    eventually("room", || place.write("test", b"test").0 == 200);
    assert_eq!(records, 2, "none of what was not taken counts");
    for (user, pushed) in [(&bob, "1 pushed"), (&carol, "2 pushed")] {
        let said = succeeded(user.pipeline("push experiment.toml"));
        assert!(said.stdout.starts_with(pushed), "{said}");
    }
    let dave = user(&carol.read(MANIFEST));
    dave.pipeline("pull experiment.toml").success();
    assert_eq!(dave.digest("data"), carol.digest("data"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn ten_thousand_small_files_are_few_requests() {
    let user_at = |server: &str, manifest: &str| user_at(server, manifest, "small", "writer");
    many_files_are_few_requests(&server(), user_at, user_at);
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_connection_that_is_cut_anywhere_is_made_again_or_is_a_warning() {
    let user_at = |server: &str, place: &str| user_at(server, PAPER, place, "writer");
    what_is_cut_is_continued(&server(), user_at, user_at);
    // Nobody is there at all.
    let address = Cutter::start(&server(), 0).address();
    let bob = user_at(&address, "cut");
    let ran = succeeded(bob.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("is not used: "), "{ran}");
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_connection_that_is_cut_at_any_request_or_answer_leaves_nothing_half_that_counts() {
    let server = server().trim_start_matches("http://").to_owned();
    let site = Site {
        server,
        address: &|server, place| format!("s3://pipeline/{place}?endpoint=http://{server}"),
        user: &|manifest| user(manifest, "whole"),
        // Three parts.
        bytes: (32 << 20) + 50_000,
    };
    let calls = [
        (Call::Push, Cut::Answer, true),
        (Call::Push, Cut::HalfAnswer, false),
        (Call::Pull, Cut::HalfAnswer, true),
        (Call::Pull, Cut::Request, false),
        (Call::Pull, Cut::Answer, false),
        (Call::Run, Cut::Request, true),
        (Call::Run, Cut::HalfAnswer, false),
    ];
    what_is_cut_at_any_turn_counts_as_a_whole_or_not_at_all(&site, &calls);
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_pull_that_is_killed_is_continued_where_it_was() {
    let address = |server: &str| format!("s3://pipeline/killed-pull?endpoint={server}");
    a_pull_that_is_killed_is_continued(
        &server(),
        |manifest| user(manifest, "killed-pull"),
        address,
    );
}

#[test]
#[ignore = "needs an object store and 9 GB of room: cargo xtask test-remotes --large"]
fn a_file_of_4_gb_whose_push_was_killed_is_continued_and_arrives() {
    let user = |manifest: &str| user(manifest, "large");
    let address = |server: &str| format!("s3://pipeline/large?endpoint={server}");
    let sent = a_file_of_4_gb_arrives("SeaweedFS", user, |user| push_to(&server(), user, address));
    assert!(sent < BYTES_OF_4_GB * 3 / 5, "{sent} bytes were sent again");
}
