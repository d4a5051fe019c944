//! A cache that others share, in a real object store: `cargo xtask test-remotes` starts one for these.

use rustix::process::Signal;

use crate::cutter::Cutter;
use crate::remote_stories::{
    BYTES_OF_4_GB, PAPER, a_file_of_4_gb_arrives, many_files_are_few_requests, nothing_is_kept_of,
    one_of_eight_pushes_wins, push_to, succeeded, what_is_cut_is_continued,
};
use crate::support::{MANIFEST, Sandbox, eventually, walk};

/// The address of the server.
fn server() -> String {
    std::env::var("PIPELINE_TEST_S3").expect("cargo xtask test-remotes sets PIPELINE_TEST_S3")
}

/// A user of a place in the store of this server, with the rights of `writer` or `reader`.
fn user_at(server: &str, manifest: &str, place: &str, who: &str) -> Sandbox {
    Sandbox::new(manifest)
        .set("PIPELINE_REMOTE", format!("s3://pipeline/{place}?endpoint={server}"))
        .set("AWS_ACCESS_KEY_ID", who)
        .set("AWS_SECRET_ACCESS_KEY", format!("{who}s-secret"))
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
    let nobody = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("s3://pipeline/rights?endpoint={}", server()));
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
    let missing = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("s3://missing/x?endpoint={}", server()))
        .set("AWS_ACCESS_KEY_ID", "writer")
        .set("AWS_SECRET_ACCESS_KEY", "writers-secret");
    let planned = succeeded(missing.pipeline("plan experiment.toml --remote"));
    assert!(planned.stderr.contains("the bucket does not exist"), "{planned}");
    nothing_is_kept_of(&["s-secret", "X-Amz"], &[&ann, &reader, &wrong]);
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
#[ignore = "needs an object store and 9 GB of room: cargo xtask test-remotes --large"]
fn a_file_of_4_gb_whose_push_was_killed_is_continued_and_arrives() {
    let user = |manifest: &str| user(manifest, "large");
    let address = |server: &str| format!("s3://pipeline/large?endpoint={server}");
    let sent = a_file_of_4_gb_arrives("s3:", user, |user| push_to(&server(), user, address));
    assert!(sent < BYTES_OF_4_GB * 3 / 5, "{sent} bytes were sent again");
}
