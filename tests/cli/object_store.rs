//! A cache that others share, in a real object store: `cargo xtask test-remotes` starts one for these.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::process::Signal;

use crate::cutter::Cutter;
use crate::support::{Ended, MANIFEST, Sandbox, eventually, walk};

/// One large file that cannot be compressed and takes several parts, one that can, and small ones.
pub const PAPER: &str = r#"
[experiment]
name = "paper"

[stages.data]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
head -c 70000000 /dev/urandom > noise
seq 1 60000 > numbers
for number in 1 2 3; do echo $number > $number; done
'''

[stages.count]
kind = "command"
shell = 'wc -l < "$PIPELINE_INPUT_DATA/numbers" > "$PIPELINE_OUTPUT/count"'
inputs = { data = "data" }
"#;

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

/// How a call ended that must succeed.
pub fn succeeded(ended: Ended) -> Ended {
    ended.success();
    ended
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
    // Of what both have, only what is new is sent.
    bob.edit("seq 1 60000", "seq 1 60001");
    let ran = succeeded(bob.pipeline("run experiment.toml")).stdout;
    assert!(ran.contains("2 ran"), "{ran}");
}

/// Eight users push the same at once, and one wins; another user gets what that one has sent.
pub fn one_of_eight_pushes_wins(user: impl Fn() -> Sandbox, another: &Sandbox) {
    let users: Vec<Sandbox> = (0..8).map(|_| user()).collect();
    users.iter().for_each(|user| drop(user.pipeline("run experiment.toml data").success()));
    let running: Vec<_> =
        users.iter().map(|user| user.start("push experiment.toml data")).collect();
    let pushed: Vec<String> = running.into_iter().map(|one| succeeded(one.wait()).stdout).collect();
    let winners: Vec<usize> = (0..8).filter(|&at| pushed[at].starts_with("1 pushed")).collect();
    assert_eq!(winners.len(), 1, "{pushed:?}");
    another.pipeline("pull experiment.toml data").success();
    assert_eq!(another.digest("data"), users[winners[0]].digest("data"));
    another.pipeline("verify experiment.toml data").success();
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
    // Nothing of it is kept, either.
    for sandbox in [&ann, &reader, &wrong] {
        for file in walk(&sandbox.cache("")).into_iter().filter(|path| path.is_file()) {
            let bytes = fs::read(&file).expect("readable");
            let has = |text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
            assert!(!has(b"s-secret") && !has(b"X-Amz"), "{}", file.display());
        }
    }
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn ten_thousand_small_files_are_few_requests() {
    let many = PAPER
        .replace("head -c 70000000 /dev/urandom > noise", "seq 1 10000 | split -l 1 -a 4 - file-");
    let cutter = Cutter::start(&server(), i64::MAX);
    let ann = user_at(&cutter.address(), &many, "small", "writer");
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml").success();
    let connections = cutter.connections.load(Ordering::Relaxed);
    assert!(connections < 40, "{connections}");
    let bob = user(&many, "small");
    let began = Instant::now();
    bob.pipeline("pull experiment.toml").success();
    println!("10,000 files pulled in {:?}", began.elapsed());
    assert_eq!(bob.digest("data"), ann.digest("data"));
}

#[test]
#[ignore = "needs an object store: cargo xtask test-remotes"]
fn a_connection_that_is_cut_anywhere_is_made_again_or_is_a_warning() {
    let ann = user(PAPER, "cut");
    ann.pipeline("run experiment.toml").success();
    // Once in the middle of a body, whose reading and writing continue.
    for bytes in [10_000_000, 40_000_000] {
        let cutter = Cutter::start(&server(), bytes);
        let ann_cut = ann.command("push experiment.toml");
        let mut command = ann_cut;
        command.env(
            "PIPELINE_REMOTE",
            format!("s3://pipeline/cut-{bytes}?endpoint={}", cutter.address()),
        );
        ann.start_command(command).wait().success();
        assert!(cutter.left.load(Ordering::Relaxed) < 0, "it was cut");
        let cutter = Cutter::start(&server(), bytes);
        let bob = user_at(&cutter.address(), PAPER, &format!("cut-{bytes}"), "writer");
        bob.pipeline("pull experiment.toml").success();
        assert!(cutter.left.load(Ordering::Relaxed) < 0, "it was cut");
        assert_eq!(bob.digest("data"), ann.digest("data"));
    }
    // Nobody is there at all.
    let address = Cutter::start(&server(), 0).address();
    let bob = user_at(&address, PAPER, "cut", "writer");
    let ran = succeeded(bob.pipeline("run experiment.toml"));
    assert!(ran.stderr.contains("is not used: "), "{ran}");
}
