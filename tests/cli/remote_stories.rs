//! What users of every real remote see: the stories of `object_store`, `sshd`, `ssh_server` and `web_server` have these in common.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cutter::Cutter;
use crate::support::{Ended, Sandbox, walk};

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

/// How a call ended that must succeed.
pub fn succeeded(ended: Ended) -> Ended {
    ended.success();
    ended
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

/// Of two users of a server, the first one pushes 10,000 small files by few connections, and the second one gets them.
pub fn many_files_are_few_requests(
    server: &str,
    writer: impl Fn(&str, &str) -> Sandbox,
    reader: impl Fn(&str, &str) -> Sandbox,
) {
    let many = many_files();
    let cutter = Cutter::start(server, i64::MAX);
    let ann = writer(&cutter.address(), &many);
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml").success();
    let connections = cutter.connections.load(Ordering::Relaxed);
    assert!(connections < 40, "{connections}");
    let bob = reader(server, &many);
    let began = Instant::now();
    bob.pipeline("pull experiment.toml").success();
    println!("10,000 files pulled in {:?}", began.elapsed());
    assert_eq!(bob.digest("data"), ann.digest("data"));
}

/// A stage that makes 10,000 small files.
pub fn many_files() -> String {
    PAPER.replace("head -c 70000000 /dev/urandom > noise", "seq 1 10000 | split -l 1 -a 4 - file-")
}

/// Of two users of a place of a server, the connections are cut once in the middle: writing and reading continue.
pub fn what_is_cut_is_continued(
    server: &str,
    writer: impl Fn(&str, &str) -> Sandbox,
    reader: impl Fn(&str, &str) -> Sandbox,
) {
    for bytes in [10_000_000, 40_000_000] {
        let place = format!("cut-{bytes}");
        let (writing, reading) = (Cutter::start(server, bytes), Cutter::start(server, bytes));
        let ann = writer(&writing.address(), &place);
        ann.pipeline("run experiment.toml").success();
        ann.pipeline("push experiment.toml").success();
        let bob = reader(&reading.address(), &place);
        bob.pipeline("pull experiment.toml").success();
        for cutter in [writing, reading] {
            assert!(cutter.left.load(Ordering::Relaxed) < 0, "it was cut");
        }
        assert_eq!(bob.digest("data"), ann.digest("data"));
    }
}

/// No file of the caches of these users has one of these texts.
pub fn nothing_is_kept_of(secrets: &[&str], users: &[&Sandbox]) {
    for user in users {
        for file in walk(&user.cache("")).into_iter().filter(|path| path.is_file()) {
            let bytes = fs::read(&file).expect("readable");
            let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!secrets.iter().any(|secret| has(secret)), "{}", file.display());
        }
    }
}
