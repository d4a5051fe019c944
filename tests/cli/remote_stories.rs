//! What users of every real remote see: the stories of `object_store`, `sshd`, `ssh_server` and `web_server` have these in common.
//! A folder needs no server; what takes long of it is here.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cutter::Cutter;
use crate::support::{Ended, Running, Sandbox, eventually, say, walk};
use crate::there::{There, with_each_damage};

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

/// A large file that cannot be compressed, one that can, and small ones: always the same bytes.
const SAME: &str = r#"
[experiment]
name = "same"

[stages.data]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
seq 1 60000 > numbers
gzip -9 -n < numbers > noise
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

/// Eight users push results of one key with other bytes at once: one wins, the others learn that theirs is not there, and another user gets
/// what was sent.
pub fn one_of_eight_pushes_wins(user: impl Fn() -> Sandbox, another: &Sandbox) {
    let users: Vec<Sandbox> = (0..8).map(|_| user()).collect();
    users.iter().for_each(|user| drop(user.pipeline("run experiment.toml data").success()));
    let running: Vec<_> =
        users.iter().map(|user| user.start("push experiment.toml data")).collect();
    let pushed: Vec<Ended> = running.into_iter().map(Running::wait).collect();
    let winners: Vec<usize> =
        (0..8).filter(|&at| pushed[at].stdout.starts_with("1 pushed")).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for (at, pushed) in pushed.iter().enumerate() {
        let has_won = at == winners[0];
        assert_eq!(pushed.code(), Some(if has_won { 0 } else { 1 }), "{pushed}");
        let is_told = pushed.stderr.contains("not pushed: data has other bytes there");
        assert_eq!(is_told, !has_won, "{pushed}");
    }
    another.pipeline("pull experiment.toml data").success();
    assert_eq!(another.digest("data"), users[winners[0]].digest("data"));
    another.pipeline("verify experiment.toml data").success();
}

/// Whatever a remote that has nothing yet gets in place of what its users have pushed, a run says so and makes it again, and nothing wrong
/// counts.
pub fn what_is_wrong_there_is_made_here(there: &dyn There, user: impl Fn(&str) -> Sandbox) {
    let ann = user(SAME);
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml data").success();
    let folders = ["records", "artifacts", "packs", "blobs"];
    let of_data: Vec<String> = folders.iter().flat_map(|folder| there.names(folder)).collect();
    assert_eq!(of_data.len(), 5, "{of_data:?}");
    ann.pipeline("push experiment.toml").success();
    let another = SAME.replace("wc -l", "wc -c");
    let bob_runs = || {
        let bob = user(&another);
        let ran = bob.pipeline("run experiment.toml");
        assert_eq!(bob.digest("data"), ann.digest("data"), "{ran}");
        let count = fs::read_to_string(bob.artifact("count").join("count")).expect("it exists");
        assert_eq!(count, "348894\n", "{ran}");
        bob.pipeline("verify experiment.toml --all").success();
        assert_eq!(bob.pipeline("run experiment.toml").success(), "data fresh, count fresh");
        ran
    };
    with_each_damage(there, &of_data, |name, damage| {
        let ran = bob_runs();
        let is_harmless = damage.may_do_nothing() && ran.success() == "data remote, count ran";
        let case = format!("{name} is {}: {ran}", damage.what);
        assert!(is_harmless || ran.success() == "data ran, count ran", "{case}");
        let is_said = match (name.starts_with("records/"), damage.content.is_some()) {
            (true, true) => ran.stderr.contains("warning: ") && ran.stderr.contains(" is damaged"),
            (true, false) => ran.stderr.contains("data (command) runs: no earlier run"),
            (false, _) => ran.stderr.contains("data cannot be brought from "),
        };
        assert!(is_harmless || is_said, "{case}");
    });
    assert_eq!(bob_runs().success(), "data remote, count ran");
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

/// A pull that is killed is continued by the next one: by an address that a place of a server has for whoever asks there.
pub fn a_pull_that_is_killed_is_continued(
    server: &str,
    user: impl Fn(&str) -> Sandbox,
    address: impl Fn(&str) -> String,
) {
    const BYTES: i64 = 200_000_000;
    let large = PAPER.replace("70000000", &BYTES.to_string());
    let (ann, bob) = (user(&large), user(&large));
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml").success();
    let pull = |cutter: &Cutter| {
        let mut command = bob.command("pull experiment.toml");
        command.env("PIPELINE_REMOTE", address(&cutter.address()));
        bob.start_command(command)
    };
    let cutter = Cutter::start(server, i64::MAX);
    let running = pull(&cutter);
    eventually("more than half of it has arrived", || cutter.passed() > BYTES * 3 / 5);
    running.signal(Signal::KILL);
    running.wait();
    let cutter = Cutter::start(server, i64::MAX);
    pull(&cutter).wait().success();
    assert!(cutter.passed() < BYTES * 9 / 10, "{} bytes were read again", cutter.passed());
    assert_eq!(bob.digest("data"), ann.digest("data"));
    bob.pipeline("verify experiment.toml").success();
    assert!(walk(&bob.cache("partial")).is_empty(), "nothing is left of it");
}

/// More bytes than 32 bits can count.
pub const BYTES_OF_4_GB: i64 = 4_300_000_000;

/// How often it is looked how much of it has been sent.
const POLL: Duration = Duration::from_millis(5);

/// A push that was started, and how many bytes of it have been sent.
pub type Push = (Running, Box<dyn Fn() -> i64>);

/// A file of 4 GB of noise comes whole to another user, although the first push of it was killed in the middle. Says how long it took, and returns
/// how many bytes the second push has sent.
pub fn a_file_of_4_gb_arrives(
    remote: &str,
    user: impl Fn(&str) -> Sandbox,
    push: impl Fn(&Sandbox) -> Push,
) -> i64 {
    let large = PAPER.replace("70000000", &BYTES_OF_4_GB.to_string());
    let (ann, bob) = (user(&large), user(&large));
    ann.pipeline("run experiment.toml").success();
    let (running, sent) = push(&ann);
    while sent() < BYTES_OF_4_GB / 2 {
        assert!(running.is_running(), "it ends before it is killed: {}", running.wait());
        std::thread::sleep(POLL);
    }
    running.signal(Signal::KILL);
    running.wait();
    let killed = sent();
    assert_eq!(bob.pipeline("pull experiment.toml").code(), Some(1), "half of it does not count");
    let began = Instant::now();
    let (running, sent) = push(&ann);
    running.wait().success();
    let (pushed, sent) = (began.elapsed(), sent());
    let digest = ann.digest("data");
    // There is room for the file twice.
    drop(ann);
    let began = Instant::now();
    bob.pipeline("pull experiment.toml").success();
    let pulled = began.elapsed();
    say(&format!(
        "{BYTES_OF_4_GB} bytes by {remote}: the first push was killed after {killed}, the second one sent {sent} in {pushed:.1?}, a pull took {pulled:.1?}"
    ));
    assert_eq!(bob.digest("data"), digest);
    bob.pipeline("verify experiment.toml").success();
    sent
}

/// A push whose bytes arrive in a folder of this machine.
pub fn push_into(folder: &Path, user: &Sandbox) -> Push {
    let folder = folder.to_owned();
    let arrived = move || {
        let files = walk(&folder).into_iter().filter_map(|path| path.metadata().ok());
        files.filter(|file| file.is_file()).map(|file| file.len() as i64).sum::<i64>()
    };
    let before = arrived();
    (user.start("push experiment.toml"), Box::new(move || arrived() - before))
}

/// A push to a server, at the address that a place has on it.
pub fn push_to(server: &str, user: &Sandbox, address: impl Fn(&str) -> String) -> Push {
    let cutter = Cutter::start(server, i64::MAX);
    let mut command = user.command("push experiment.toml");
    command.env("PIPELINE_REMOTE", address(&cutter.address()));
    (user.start_command(command), Box::new(move || cutter.passed()))
}

#[test]
#[ignore = "needs 11 GB of room: cargo xtask test-remotes --large"]
fn a_file_of_4_gb_whose_push_was_killed_arrives_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("file://{}", folder.path().display());
    let user = |manifest: &str| Sandbox::new(manifest).set("PIPELINE_REMOTE", address.clone());
    a_file_of_4_gb_arrives("a folder", user, |user| push_into(folder.path(), user));
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
