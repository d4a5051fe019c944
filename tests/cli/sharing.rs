//! A cache that others share, by a folder that both have: what one has made, the other need not make.

use std::fs;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::manifests::WORDS;
use crate::support::{Ended, MANIFEST, Sandbox, names, pipeline, walk};
use crate::there::{There, with_each_damage};

/// Many small files, a large one that can be compressed and one that cannot, a folder, a program and a link.
const PAPER: &str = r#"
[experiment]
name = "paper"

[stages.data]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
mkdir few empty
for number in 1 2 3; do echo $number > few/$number; done
: > nothing
seq 1 60000 > numbers
gzip -9 -n < numbers > noise
cp noise again
echo 'echo hello' > hello
chmod +x hello
ln -s few/1 first
'''

[stages.count]
kind = "command"
shell = 'wc -l < "$PIPELINE_INPUT_DATA/numbers" > "$PIPELINE_OUTPUT/count"'
inputs = { data = "data" }

[stages.more]
kind = "command"
shell = 'echo more >> "$PIPELINE_OUTPUT/count"; cat "$PIPELINE_INPUT_COUNT/count" >> "$PIPELINE_OUTPUT/count"'
inputs = { count = "count" }
"#;

/// Two users with a cache each, and a share.
struct Lab {
    ann: Sandbox,
    bob: Sandbox,
    share: TempDir,
}

impl Lab {
    fn new(manifest: &str) -> Self {
        let share = tempfile::tempdir().expect("a folder");
        let address = format!("file://{}", share.path().display());
        let user = || Sandbox::new(manifest).set("PIPELINE_REMOTE", address.clone());
        Self { ann: user(), bob: user(), share }
    }

    /// What a call printed, without the places.
    fn shown(&self, ended: &Ended) -> String {
        ended.to_string().replace(&self.share.path().display().to_string(), "[share]")
    }
}

/// What is below a folder, with what is in each.
fn contents(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = walk(folder)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(folder).expect("below").display().to_string();
            let is = match path.symlink_metadata().expect("it exists") {
                metadata if metadata.is_symlink() => {
                    format!("-> {}", fs::read_link(&path).expect("a link").display())
                }
                metadata if metadata.is_dir() => "/".to_owned(),
                metadata => {
                    use std::os::unix::fs::PermissionsExt;
                    let bytes = fs::read(&path).expect("readable");
                    let executable = metadata.permissions().mode() & 0o100 != 0;
                    format!("{} {executable} {:?}", bytes.len(), bytes.get(..4))
                }
            };
            format!("{name} {is}")
        })
        .collect();
    all.sort();
    all
}

#[test]
fn what_one_has_pushed_another_pulls_and_need_not_run() {
    let lab = Lab::new(PAPER);
    assert_snapshot!(lab.shown(&lab.ann.pipeline("push experiment.toml")), @r"
    status 2
    --- stderr
    error: none of these stages has a result: `pipeline run experiment.toml` makes them
    ");
    lab.ann.pipeline("run experiment.toml").success();
    assert_snapshot!(lab.shown(&lab.ann.pipeline("remote status experiment.toml")), @r"
    status 0
    --- stdout
    data   only here
    count  only here
    more   only here

    remote: file://[share]
    ");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("push experiment.toml")), @r"
    status 0
    --- stdout
    3 pushed (610 kB) to file://[share], 0 were there already
    ");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("push experiment.toml")), @r"
    status 0
    --- stdout
    0 pushed (0 B) to file://[share], 3 were there already
    ");
    assert_eq!(lab.share.names("records").len(), 3);
    assert_eq!(lab.share.names("packs").len(), 3, "small files, together");
    assert_eq!(lab.share.names("blobs").len(), 2, "each content once");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("remote status experiment.toml --size")), @r"
    status 0
    --- stderr
    what the remote has is not kept, as there is no cache in [project]/cache yet: `pipeline pull experiment.toml` makes one
    --- stdout
    data   only on the remote
    count  only on the remote
    more   only on the remote

    remote: file://[share], 3 results in 64 kB
    ");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("pull experiment.toml")), @r"
    status 0
    --- stdout
    3 pulled (610 kB) from file://[share], 0 were here already
    ");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("pull experiment.toml")), @r"
    status 0
    --- stdout
    0 pulled (0 B) from file://[share], 3 were here already
    ");
    assert_eq!(contents(&lab.bob.artifact("data")), contents(&lab.ann.artifact("data")));
    assert_eq!(lab.bob.digest("more"), lab.ann.digest("more"));
    lab.bob.pipeline("verify experiment.toml").success();
    assert_snapshot!(lab.bob.pipeline("run experiment.toml"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    data  fresh
    count  fresh
    more  fresh

    paper: 3 fresh in [time]
    ");
}

#[test]
fn a_plan_asks_the_remote_only_when_it_is_told_to_and_shows_where_results_are() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    assert_snapshot!(lab.bob.pipeline("plan experiment.toml"), @r"
    status 0
    --- stdout
    data   dirty    no earlier run
    count  waiting  on data; no earlier run
    more   waiting  on count; no earlier run

    paper: 3 would run, 0 are fresh
    ");
    assert_snapshot!(lab.bob.pipeline("plan experiment.toml --remote"), @r"
    status 0
    --- stderr
    what the remote has is not kept, as there is no cache in [project]/cache yet: `pipeline pull experiment.toml` makes one
    --- stdout
    data   remote
    count  remote
    more   remote

    paper: all 3 stages are fresh (3 of them on the remote); nothing would run
    ");
    assert!(!lab.bob.cache("").exists(), "a plan makes no cache");
    let status = lab.bob.pipeline("remote status experiment.toml more");
    assert!(
        status.stderr.contains("is not kept") && status.stderr.contains("toml more` makes one"),
        "{status}"
    );
    // So nobody knows it then who does not ask, and each names what does.
    for (command, result) in [
        (
            "path experiment.toml more",
            "makes it; `pipeline pull experiment.toml more` brings what the remote has",
        ),
        ("path experiment.toml data more", "; `pipeline pull experiment.toml data more` brings"),
        (
            "metrics experiment.toml",
            "(`pipeline run experiment.toml`); `pipeline pull experiment.toml` brings",
        ),
        (
            "export experiment.toml more out",
            "makes it; `pipeline pull experiment.toml more` brings",
        ),
        ("export experiment.toml out", "makes them; `pipeline pull experiment.toml` brings"),
    ] {
        let ended = lab.bob.pipeline(command);
        assert!(ended.to_string().contains(result), "{ended}");
    }
    // Only what is asked for is brought.
    assert_snapshot!(lab.shown(&lab.bob.pipeline("pull experiment.toml more")), @r"
    status 0
    --- stdout
    1 pulled (11 B) from file://[share], 0 were here already
    ");
    assert_snapshot!(lab.bob.pipeline("plan experiment.toml"), @r"
    status 0
    --- stdout
    data   remote
    count  remote
    more   fresh

    paper: all 3 stages are fresh (2 of them on the remote); nothing would run
    ");
    assert_eq!(fs::read_dir(lab.bob.cache("store")).expect("a folder").count(), 1);
    // What is here does not need the remote.
    fs::rename(lab.share.path(), lab.share.path().with_extension("away")).expect("ours");
    assert_eq!(lab.bob.digest("more"), lab.ann.digest("more"));
    assert_snapshot!(lab.shown(&lab.bob.pipeline("plan experiment.toml --remote --force data")), @r"
    status 0
    --- stderr
    warning: the remote file://[share] is not used: the folder [share] does not exist: mount it, or make it if it is a new one
    --- stdout
    data   dirty    asked for with --force
    count  waiting  on data; no earlier run
    more   waiting  on count

    paper: 2 would run, 1 more if what they read changes, 0 are fresh
    ");
    fs::rename(lab.share.path().with_extension("away"), lab.share.path()).expect("ours");
}

#[test]
fn what_is_wrong_or_missing_on_the_remote_is_not_brought() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    for folder in ["records", "artifacts", "packs", "blobs"] {
        with_each_damage(&lab.share, &lab.share.names(folder), |name, damage| {
            let user = Sandbox::new(PAPER)
                .set("PIPELINE_REMOTE", format!("file://{}", lab.share.path().display()));
            let ended = user.pipeline("pull experiment.toml");
            match ended.status.code() {
                Some(0) if damage.may_do_nothing() => {
                    assert_eq!(user.digest("more"), lab.ann.digest("more"));
                }
                code => assert_eq!(code, Some(1), "{name} is {}: {ended}", damage.what),
            }
            let is_said = ended.stderr.contains(": the record ");
            assert_eq!(is_said, folder == "records" && damage.content.is_some(), "{ended}");
            if user.cache("VERSION").exists() {
                user.pipeline("verify experiment.toml --all").success();
            }
            // And its stage runs here, where it did not come.
            user.pipeline("run experiment.toml").success();
            if ended.status.code() == Some(1) {
                for stage in ["data", "count", "more"] {
                    assert_eq!(user.digest(stage), lab.ann.digest(stage), "{name}: {ended}");
                }
            }
            assert_eq!(fs::read_dir(user.cache("tmp")).map_or(0, Iterator::count), 0);
        });
    }
    lab.bob.pipeline("pull experiment.toml").success();
}

#[test]
fn a_result_that_did_not_come_is_brought_before_its_stage_runs_or_made_here() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    fs::remove_dir_all(lab.share.path().join("blobs")).expect("ours");
    let carl = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("file://{}", lab.share.path().display()));
    for user in [&lab.bob, &carl] {
        assert!(user.pipeline("run experiment.toml").printed().contains("3 remote"));
        let path = user.pipeline("path experiment.toml data");
        assert!(path.stderr.contains("is missing there"), "{path}");
        assert!(path.stderr.contains("`pipeline run experiment.toml data` makes it"), "{path}");
        // What has not come does not count, also where it is asked for again.
        let plan = user.pipeline("plan experiment.toml --remote");
        assert!(plan.stdout.contains("paper: 1 would run, 2 more"), "{plan}");
    }
    let ran = lab.bob.pipeline("run experiment.toml --progress plain");
    assert!(ran.stderr.contains("data cannot be brought from"), "{ran}");
    assert!(ran.printed().contains("paper: 2 remote, 1 ran in"), "{ran}");
    assert_eq!(lab.bob.digest("data"), lab.ann.digest("data"));
    // Somebody pushes it again.
    lab.ann.pipeline("push experiment.toml").success();
    let ran = carl.pipeline("run experiment.toml");
    assert!(ran.printed().contains("paper: 1 fresh, 2 remote in"), "{ran}");
    assert_eq!(carl.digest("data"), lab.ann.digest("data"));
}

#[test]
fn what_was_removed_on_the_remote_counts_no_longer_where_it_was_not_brought() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    lab.bob.pipeline("run experiment.toml").success();
    lab.bob.pipeline("pull experiment.toml data").success();
    let records = lab.share.path().join("records");
    fs::rename(&records, lab.share.path().join("kept")).expect("ours");
    assert_eq!(lab.bob.pipeline("plan experiment.toml").stdout.matches("remote\n").count(), 2);
    let path = lab.bob.pipeline("path experiment.toml count");
    assert!(path.stderr.contains("its record was removed there"), "{path}");
    for plan in ["plan experiment.toml --remote", "plan experiment.toml"] {
        let planned = lab.bob.pipeline(plan);
        assert!(planned.stdout.contains("\ncount  dirty    no earlier run"), "{planned}");
    }
    let pull = lab.bob.pipeline("pull experiment.toml");
    assert!(pull.stderr.contains("without a result, here or there: count, more"), "{pull}");
    lab.bob.pipeline("push experiment.toml").success();
    assert_eq!(lab.share.names("records").len(), 1, "what is here comes back");
    // What comes back there counts again.
    fs::remove_dir_all(&records).expect("ours");
    fs::rename(lab.share.path().join("kept"), &records).expect("ours");
    let ran = lab.bob.pipeline("run experiment.toml");
    assert!(ran.printed().contains("paper: 1 fresh, 2 remote in"), "{ran}");
    // Another record in its place counts instead of it.
    fs::remove_dir_all(&records).expect("ours");
    let carl = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("file://{}", lab.share.path().display()));
    carl.pipeline("run experiment.toml").success();
    carl.pipeline("push experiment.toml").success();
    let path = lab.bob.pipeline("path experiment.toml count");
    assert!(path.stderr.contains("another record has taken its place there"), "{path}");
    let ran = lab.bob.pipeline("run experiment.toml");
    assert!(ran.printed().contains("paper: 1 fresh, 2 remote in"), "{ran}");
    assert_eq!(lab.bob.digest("count"), carl.digest("count"));
}

#[test]
fn what_was_withdrawn_here_does_not_come_back_by_itself() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    let data = lab.ann.artifact("data");
    lab.ann.unprotect(&data);
    fs::write(data.join("numbers"), "wrong").expect("ours");
    let verified = lab.ann.pipeline("verify experiment.toml");
    let (_, places) =
        verified.stdout.split_once("somebody removes it there: ").expect("it is said");
    let places: Vec<_> = places.lines().next().expect("a line").split(", ").collect();
    assert!(places.iter().all(|name| lab.share.path().join(name).is_file()), "{verified}");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("pull experiment.toml")), @r"
    status 1
    --- stderr
    without a result, here or there: count, more
    --- stdout
    1 pulled (610 kB) from file://[share], 0 were here already
    ");
    assert_snapshot!(lab.ann.pipeline("plan experiment.toml"), @r"
    status 0
    --- stdout
    data   fresh
    count  dirty    its record was withdrawn: it was made from the artifact [digest], which is damaged
    more   waiting  on count

    paper: 1 would run, 1 more if what they read changes, 1 is fresh
    ");
    // Nor once nothing else is left of it here.
    for folder in ["history", "heads"] {
        fs::remove_dir_all(lab.ann.cache(folder)).expect("ours");
    }
    lab.ann.pipeline("gc --keep-days 0").success();
    let left = names(&lab.ann.cache("quarantine/records"));
    assert!(left.len() == 2 && left.iter().all(|name| name.ends_with(".reason")), "{left:?}");
    assert_snapshot!(lab.ann.pipeline("plan experiment.toml --remote"), @r"
    status 0
    --- stdout
    data   remote
    count  dirty    its record was withdrawn: it was made from the artifact [digest], which is damaged
    more   waiting  on count; no earlier run

    paper: 2 would run, 1 is fresh (1 of them on the remote)
    ");
    lab.ann.pipeline("run experiment.toml").success();
    assert!(names(&lab.ann.cache("quarantine/records")).is_empty());
}

#[test]
fn the_remote_is_in_the_manifest_or_the_settings_and_never_has_a_password() {
    let project = Sandbox::new(PAPER);
    assert_snapshot!(project.pipeline("pull experiment.toml"), @r#"
    status 2
    --- stderr
    error: no remote is named: write [cache] remote = "file:///mnt/share/cache" into experiment.toml or your config.toml, or set PIPELINE_REMOTE
    "#);
    let address = "file:///nowhere/share";
    project.write(MANIFEST, format!("[cache]\nremote = \"{address}\"\npush = \"always\"\n{PAPER}"));
    assert_snapshot!(project.pipeline("pull experiment.toml"), @r"
    status 1
    --- stderr
    warning: the remote file:///nowhere/share is not used: the folder /nowhere/share does not exist: mount it, or make it if it is a new one
    without a result, here or there: data, count, more
    --- stdout
    0 pulled (0 B) from file:///nowhere/share, 0 were here already
    ");
    let wrong = "[cache]\nremote = \"https://ann:s3cret@host/x\"\npush = \"sometimes\"\nremot = \"file:///x\"\n";
    project.write(MANIFEST, format!("{wrong}{PAPER}"));
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 2
    --- stderr
    error: this is not the address of a remote: it cannot have a user name or a password
     --> experiment.toml:2:10
      |
    2 | remote = ***************************
      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: write remote = "file:///mnt/share/cache", "s3://bucket/prefix", "ssh://host/path" or "https://host/path"

    error: 'push' is "never", "always", or a list of kinds and stages
     --> experiment.toml:3:8
      |
    3 | push = "sometimes"
      |        ^^^^^^^^^^^
      |
      = help: write push = "always", or push = ["train", "evaluate@rate=0.9"]

    error: unknown key 'remot' in 'cache', did you mean 'remote'?
     --> experiment.toml:4:1
      |
    4 | remot = ***********
      | ^^^^^

    error: 3 mistakes in experiment.toml; nothing was run
    "#);
    let names = "push = [\"train\", \"data\", \"c*@seed=1\", \"conut@seed=1\", \"nosuch\"]";
    project.write(MANIFEST, format!("[cache]\n{names}\n{PAPER}"));
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r#"
    status 2
    --- stderr
    error: there is no stage or kind 'conut', did you mean 'count'?
     --> experiment.toml:2:39
      |
    2 | push = ["train", "data", "c*@seed=1", "conut@seed=1", "nosuch"]
      |                                       ^^^^^^^^^^^^^^

    error: there is no stage or kind 'nosuch'
     --> experiment.toml:2:55
      |
    2 | push = ["train", "data", "c*@seed=1", "conut@seed=1", "nosuch"]
      |                                                       ^^^^^^^^
      |
      = help: the stages are data, count and more

    error: 2 mistakes in experiment.toml; nothing was run
    "#);
    let project = project.set("PIPELINE_REMOTE", "ssh://ann:s3cret@host/x");
    project.write(MANIFEST, PAPER);
    assert_snapshot!(project.pipeline("plan experiment.toml"), @r"
    status 2
    --- stderr
    error: PIPELINE_REMOTE is not the address of a remote: it cannot have a user name or a password
    ");
    let project = project.set("PIPELINE_REMOTE", "none");
    project.pipeline("plan experiment.toml").success();
}

#[test]
fn a_second_user_gets_the_whole_table_without_running_anything() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    assert_snapshot!(lab.bob.pipeline("run experiment.toml"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    data  remote
    count  remote
    more  remote

    paper: 3 remote in [time]
    ");
    assert_eq!(fs::read_dir(lab.bob.cache("store")).expect("a folder").count(), 0);
    assert_eq!(fs::read_dir(lab.bob.cache("latest/paper")).map_or(0, Iterator::count), 0);
    assert_snapshot!(lab.bob.pipeline("status experiment.toml"), @r"
    status 0
    --- stdout
    stage  kind  state  last run  took  artifact  size
    data  command  remote  just now  [time]  [digest]  610 kB
    count  command  remote  just now  [time]  [digest]  6 B
    more  command  remote  just now  [time]  [digest]  11 B

    cache: [project]/cache
    ");
    // What was found once is known without the remote.
    fs::rename(lab.share.path(), lab.share.path().with_extension("away")).expect("ours");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("run experiment.toml")), @r"
    status 0
    --- stderr
    warning: the remote file://[share] is not used: the folder [share] does not exist: mount it, or make it if it is a new one
    --- stdout

    stage  result  time  metrics
    data  remote
    count  remote
    more  remote

    paper: 3 remote in [time]
    ");
    assert_eq!(lab.bob.pipeline("plan experiment.toml").stderr, "");
    fs::rename(lab.share.path().with_extension("away"), lab.share.path()).expect("ours");
    // A stage that runs brings what it reads, and nothing else.
    lab.bob.edit("echo more", "echo even more");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("run experiment.toml --progress plain")), @r#"
    status 0
    --- stderr
          more: brings an input from file://[share] (6 B)
          more (command) runs: shell: "echo more >> \"$PIPELINE_OUTPUT/count\"; cat \"$PIPELINE_INPUT_COUNT/count\" >> \"$PIPELINE_OUTPUT/count\"" -> "echo even more >> \"$PIPELINE_OUTPUT/count\"; cat \"$PIPELINE_INPUT_COUNT/count\" >> \"$PIPELINE_OUTPUT/count\""
    done  more in [time]
    --- stdout

    stage  result  time  metrics
    data  remote
    count  remote
    more  ran  [time]

    paper: 2 remote, 1 ran in [time]
    "#);
    assert_eq!(fs::read_dir(lab.bob.cache("store")).expect("a folder").count(), 2);
    assert_eq!(
        fs::read_to_string(lab.bob.artifact("more").join("count")).expect("a file"),
        "even more\n60000\n"
    );
    // So does whoever asks for it.
    assert_eq!(lab.bob.digest("data"), lab.ann.digest("data"));
    lab.bob.pipeline("verify experiment.toml").success();
}

#[test]
fn what_a_run_makes_is_pushed_where_that_is_wanted() {
    let always = format!("[cache]\npush = \"always\"\n{PAPER}");
    let lab = Lab::new(&always);
    assert_snapshot!(lab.shown(&lab.ann.pipeline("run experiment.toml")), @r"
    status 0
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
          count (command) runs: no earlier run
    done  count in [time]
          more (command) runs: no earlier run
    done  more in [time]
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    count  ran  [time]
    more  ran  [time]

    paper: 3 ran in [time]
    ");
    assert_snapshot!(lab.bob.pipeline("run experiment.toml"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    data  remote
    count  remote
    more  remote

    paper: 3 remote in [time]
    ");
    lab.bob.pipeline("pull experiment.toml").success();
    // Of some stages the artifacts, of all the records.
    let some = format!("[cache]\npush = [\"count\"]\n{PAPER}");
    let lab = Lab::new(&some);
    lab.ann.pipeline("run experiment.toml").success();
    assert_snapshot!(lab.bob.pipeline("run experiment.toml"), @r"
    status 0
    --- stdout

    stage  result  time  metrics
    data  remote
    count  remote
    more  remote

    paper: 3 remote in [time]
    ");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("remote status experiment.toml")), @r"
    status 0
    --- stdout
    data   on the remote, its record only
    count  only on the remote
    more   on the remote, its record only

    remote: file://[share]
    ");
    // What is not sent as such is no failure of a pull of all that there is.
    for (pulled, here) in [("1 pulled (6 B)", 0), ("0 pulled (0 B)", 1)] {
        let ended = lab.bob.pipeline("pull experiment.toml");
        assert_eq!(ended.code(), Some(0), "{ended}");
        assert_eq!(ended.stderr, "not pulled, as the remote has the record only: data, more\n");
        let words =
            format!("{pulled} from file://{}, {here} were here", lab.share.path().display());
        assert!(ended.stdout.starts_with(&words), "{ended}");
    }
    assert!(lab.bob.pipeline("plan experiment.toml").stdout.contains("nothing would run"));
    assert_snapshot!(lab.shown(&lab.bob.pipeline("pull experiment.toml data count more")), @r"
    status 1
    --- stderr
    data: its artifact is missing there
    more: its artifact is missing there
    --- stdout
    0 pulled (0 B) from file://[share], 1 were here already
    ");
    let status = lab.ann.pipeline("remote status experiment.toml").stdout;
    assert!(status.starts_with("data   here, and on the remote its record only\n"), "{status}");
    // Who does not know what is sent misses only what nothing has read.
    let carl = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("file://{}", lab.share.path().display()));
    assert_snapshot!(lab.shown(&carl.pipeline("pull experiment.toml")), @r"
    status 1
    --- stderr
    more: its artifact is missing there
    not pulled, as the remote has the record only: data
    --- stdout
    1 pulled (6 B) from file://[share], 0 were here already
    ");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("push experiment.toml")), @r"
    status 0
    --- stdout
    2 pushed (610 kB) to file://[share], 1 were there already
    ");
    lab.bob.pipeline("pull experiment.toml").success();
}

#[test]
fn a_run_that_finds_nothing_to_do_pushes_what_is_not_there_and_then_asks_nobody() {
    let mut lab = Lab::new(PAPER);
    let other = tempfile::tempdir().expect("a folder");
    lab.ann.pipeline("run experiment.toml").success();
    assert_eq!(lab.share.names("records").len(), 0);
    let config = lab.ann.path("config").display().to_string();
    lab.ann = lab.ann.set("XDG_CONFIG_HOME", config);
    lab.ann.write("config/pipeline/config.toml", "[cache]\npush = \"always\"\n");
    let nothing = "paper: 3 fresh";
    let pushes = |lab: &Lab| lab.ann.pipeline("run experiment.toml").printed().contains(nothing);
    assert!(pushes(&lab));
    assert_eq!(lab.share.names("records").len(), 3);
    // What is known to be there is not looked for: it is a matter of `pipeline push`.
    let away = lab.share.path().with_extension("away");
    fs::rename(lab.share.path(), &away).expect("ours");
    assert_eq!(lab.ann.pipeline("run experiment.toml").stderr, "");
    // Another remote is another matter, also while it is away.
    lab.ann = lab.ann.set("PIPELINE_REMOTE", format!("file://{}/later", other.path().display()));
    for _ in 0..2 {
        let away = lab.ann.pipeline("run experiment.toml");
        away.success();
        assert!(away.stderr.contains("3 results were not pushed to file://"), "{away}");
    }
    fs::create_dir(other.path().join("later")).expect("ours");
    assert!(pushes(&lab));
    assert_eq!(
        walk(&other.path().join("later/records")).iter().filter(|it| it.is_file()).count(),
        3
    );
    assert_eq!(lab.ann.pipeline("run experiment.toml").stderr, "");
    fs::rename(&away, lab.share.path()).expect("ours");
}

#[test]
fn other_bytes_under_the_same_key_are_said() {
    let by_chance = PAPER.replace("echo more >>", "date +%N >>");
    let lab = Lab::new(&format!("[cache]\npush = \"always\"\n{by_chance}"));
    lab.ann.pipeline("run experiment.toml").success();
    // What is made again as it is on the remote is not something else.
    let ran = lab.bob.pipeline("run experiment.toml --force data --progress plain");
    assert!(ran.stderr.contains("done  data") && !ran.stderr.contains("other bytes"), "{ran}");
    let ran = lab.bob.pipeline("run experiment.toml --force more --progress plain");
    assert!(ran.stderr.contains(", with other bytes than before"), "{ran}");
    let warning = "warning: 1 result was not pushed, as file://";
    assert!(ran.stderr.contains(warning), "{ran}");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("push experiment.toml")), @r"
    status 1
    --- stderr
    not pushed: more has other bytes there, under the same key; once its file in records/ is removed there, a push sends yours
    --- stdout
    0 pushed (0 B) to file://[share], 2 were there already
    ");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("remote status experiment.toml")), @r"
    status 0
    --- stdout
    data   here and on the remote
    count  here and on the remote
    more   here, and on the remote with other bytes

    remote: file://[share]
    ");
}

#[test]
fn a_record_that_is_damaged_there_is_not_a_result() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    let names = lab.share.names("records");
    let of = |stage: &str| {
        let stage = format!("\"stage\": \"{stage}\"");
        let has = |name: &&String| String::from_utf8_lossy(&lab.share.get(name)).contains(&stage);
        names.iter().find(has).expect("it has a record")
    };
    let count = of("count");
    lab.share.set(count, Some(b"{}"));
    // Longer than any record.
    let data = lab.share.path().join(of("data"));
    fs::remove_file(&data).expect("ours");
    fs::File::create(&data).and_then(|file| file.set_len(1 << 30)).expect("ours");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("remote status experiment.toml")), @r"
    status 0
    --- stdout
    data   here, and damaged on the remote
    count  here, and damaged on the remote
    more   here and on the remote

    remote: file://[share]
    ");
    let carl = Sandbox::new(PAPER)
        .set("PIPELINE_REMOTE", format!("file://{}", lab.share.path().display()));
    let status = carl.pipeline("remote status experiment.toml data --json").json();
    let data = &status["stages"][0];
    assert!(data["damaged"] == true && data["remote"] == false && data["here"] == false, "{data}");
    let status = carl.pipeline("remote status experiment.toml data");
    assert!(status.stdout.starts_with("data  damaged on the remote\n"), "{status}");
}

#[test]
fn what_is_no_remote_says_what_it_is() {
    let ann = Sandbox::new(PAPER);
    ann.pipeline("run experiment.toml").success();
    let words = |place: std::path::PathBuf| {
        let user =
            Sandbox::new(PAPER).set("PIPELINE_REMOTE", format!("file://{}", place.display()));
        user.pipeline("plan experiment.toml --remote").stderr
    };
    let cache = words(ann.cache(""));
    assert!(cache.contains("is the folder of a cache of pipeline, and not a remote"), "{cache}");
    let file = words(ann.path(MANIFEST));
    assert!(file.contains("experiment.toml is not a folder\n"), "{file}");
}

#[test]
fn what_was_made_from_what_a_push_finds_damaged_is_not_sent() {
    let other =
        "\n[stages.other]\nkind = \"command\"\nshell = 'echo other > \"$PIPELINE_OUTPUT/o\"'\n";
    for (file, content) in [("few/2", Some("3\n")), ("numbers", None)] {
        let lab = Lab::new(&format!("{PAPER}{other}"));
        lab.ann.pipeline("run experiment.toml").success();
        let data = lab.ann.artifact("data");
        lab.ann.unprotect(&data);
        fs::remove_file(data.join(file)).expect("ours");
        content.iter().for_each(|text| fs::write(data.join(file), text).expect("ours"));
        let pushed = lab.ann.pipeline("push experiment.toml");
        assert_eq!(pushed.code(), Some(1), "{pushed}");
        assert!(pushed.stderr.contains("is damaged, and was not pushed"), "{pushed}");
        let words =
            "not pushed: count, more: made from the result of data, which is damaged here\n";
        assert!(pushed.stderr.contains(words), "{pushed}");
        assert_eq!(lab.share.names("records").len(), 1, "only what does not read it");
        // Once it is found to be sound again, all of it is sent.
        lab.ann.pipeline("verify experiment.toml");
        lab.ann.pipeline("run experiment.toml").success();
        lab.ann.pipeline("push experiment.toml").success();
        assert_eq!(lab.share.names("records").len(), 4);
    }
}

#[test]
fn a_run_makes_what_the_remote_lost() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    lab.bob.pipeline("run experiment.toml").success();
    fs::remove_dir_all(lab.share.path().join("packs")).expect("ours");
    lab.bob.edit("echo more", "echo even more");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("run experiment.toml --progress plain --jobs 1")), @r#"
    status 0
    --- stderr
          more: brings an input from file://[share] (6 B)
          more: the result of count cannot be brought from file://[share]: its small files are missing there; its stage runs again
          count: brings an input from file://[share] (610 kB)
          count: the result of data cannot be brought from file://[share]: its small files are missing there; its stage runs again
          data (command) runs: no earlier run
    done  data in [time]
          count (command) runs: no earlier run
    done  count in [time]
          more (command) runs: shell: "echo more >> \"$PIPELINE_OUTPUT/count\"; cat \"$PIPELINE_INPUT_COUNT/count\" >> \"$PIPELINE_OUTPUT/count\"" -> "echo even more >> \"$PIPELINE_OUTPUT/count\"; cat \"$PIPELINE_INPUT_COUNT/count\" >> \"$PIPELINE_OUTPUT/count\""
    done  more in [time]
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    count  ran  [time]
    more  ran  [time]

    paper: 3 ran in [time]
    "#);
    assert_eq!(lab.bob.digest("data"), lab.ann.digest("data"));
}

#[test]
fn a_second_user_sees_the_tables_of_summaries_and_brings_nothing_else() {
    let lab = Lab::new(
        r#"
[experiment]
name = "sweep"

[matrix]
seed = [1, 2]

[stages.score]
kind = "command"
output = "metrics"
environment = { SEED = "${seed}" }
shell = 'echo "{\"accuracy\": 0.$SEED}" > "$PIPELINE_OUTPUT/metrics.json"'

[stages.summary]
kind = "summarize"
of = "score"
metric = "accuracy"
over = ["seed"]
"#,
    );
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    let table = "\nsummary: accuracy\n";
    // Known and out of reach: a warning, and no table.
    // A program reads no tables.
    assert!(lab.bob.pipeline("run experiment.toml --progress json").status.success());
    assert_eq!(fs::read_dir(lab.bob.cache("store")).expect("a folder").count(), 0);
    let away = lab.share.path().with_extension("away");
    fs::rename(lab.share.path(), &away).expect("ours");
    let ran = lab.bob.pipeline("run experiment.toml");
    assert!(ran.printed().contains("sweep: 3 remote in"), "{ran}");
    assert!(!ran.stdout.contains(table), "{ran}");
    assert!(
        ran.stderr.contains("the result of summary was not brought from the remote: "),
        "{ran}"
    );
    fs::rename(&away, lab.share.path()).expect("ours");
    let ran = lab.bob.pipeline("run experiment.toml");
    assert!(ran.printed().contains("sweep: 3 remote in"), "{ran}");
    assert!(ran.stdout.contains(table) && ran.stderr.is_empty(), "{ran}");
    assert_eq!(fs::read_dir(lab.bob.cache("store")).expect("a folder").count(), 1);
    let again = lab.bob.pipeline("run experiment.toml");
    assert!(again.printed().contains("sweep: 1 fresh, 2 remote in"), "{again}");
    assert!(again.stdout.contains(table), "{again}");
}

#[test]
fn a_remote_that_is_away_is_a_warning_and_a_local_run() {
    let lab = Lab::new(&format!("[cache]\npush = \"always\"\n{PAPER}"));
    let away = lab.share.path().with_extension("away");
    fs::rename(lab.share.path(), &away).expect("ours");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("run experiment.toml")), @r"
    status 0
    --- stderr
    warning: the remote file://[share] is not used: the folder [share] does not exist: mount it, or make it if it is a new one
          data (command) runs: no earlier run
    done  data in [time]
          count (command) runs: no earlier run
    done  count in [time]
          more (command) runs: no earlier run
    done  more in [time]
    warning: 3 results were not pushed to file://[share]: the folder [share] does not exist: mount it, or make it if it is a new one; `pipeline push experiment.toml` sends what is missing there
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    count  ran  [time]
    more  ran  [time]

    paper: 3 ran in [time]
    ");
    assert_snapshot!(lab.shown(&lab.ann.pipeline("push experiment.toml")), @r"
    status 1
    --- stderr
    not pushed: data, count, more: the folder [share] does not exist: mount it, or make it if it is a new one
    --- stdout
    0 pushed (0 B) to file://[share], 0 were there already
    ");
    fs::rename(&away, lab.share.path()).expect("ours");
    // One of a later version.
    lab.ann.pipeline("push experiment.toml").success();
    fs::remove_file(lab.share.path().join("VERSION")).expect("ours");
    fs::write(lab.share.path().join("VERSION"), "7\n").expect("ours");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("plan experiment.toml --remote")), @r"
    status 0
    --- stderr
    warning: the remote file://[share] is not used: its layout has version '7', and this version of pipeline knows 1
    --- stdout
    data   dirty    no earlier run
    count  waiting  on data; no earlier run
    more   waiting  on count; no earlier run

    paper: 3 would run, 0 are fresh
    ");
}

#[test]
fn what_becomes_known_in_a_run_is_asked_for_then() {
    // Ann's data is the same as Bob's, which he makes himself, as it is under another key.
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    lab.bob.edit("mkdir few empty", "mkdir empty few");
    assert_snapshot!(lab.shown(&lab.bob.pipeline("run experiment.toml --progress plain")), @r"
    status 0
    --- stderr
          data (command) runs: no earlier run
    done  data in [time]
    --- stdout

    stage  result  time  metrics
    data  ran  [time]
    count  remote
    more  remote

    paper: 2 remote, 1 ran in [time]
    ");
}

#[test]
fn what_is_known_of_a_remote_survives_who_asks_for_it_while_it_is_away() {
    let lab = Lab::new(PAPER);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    lab.bob.pipeline("run experiment.toml").success();
    let away = lab.share.path().with_extension("away");
    fs::rename(lab.share.path(), &away).expect("ours");
    for command in ["path experiment.toml data", "path experiment.toml", "pull experiment.toml"] {
        let ended = lab.bob.pipeline(command);
        assert!(ended.stderr.contains("does not exist: mount it"), "{command}: {ended}");
        assert_ne!(ended.status.code(), Some(0), "{command}: {ended}");
        assert!(!ended.stdout.contains("/store/"), "{command}: {ended}");
        let status = lab.bob.pipeline("status experiment.toml").printed();
        assert_eq!(status.matches("command  remote").count(), 3, "{command}: {status}");
    }
    fs::rename(&away, lab.share.path()).expect("ours");
    lab.bob.pipeline("pull experiment.toml").success();
}

#[test]
fn a_report_and_an_export_bring_what_is_on_them_and_run_nothing() {
    let lab = Lab::new(WORDS);
    lab.ann.pipeline("run experiment.toml").success();
    lab.ann.pipeline("push experiment.toml").success();
    lab.bob.pipeline("run experiment.toml").success();
    let stored = || names(&lab.bob.cache("store")).len();
    assert_eq!(stored(), 0);
    lab.bob.pipeline("report experiment.toml").success();
    assert!(lab.bob.read("report.html").contains("words"));
    assert_eq!(stored(), 1, "the numbers, and no folder");
    lab.bob.pipeline("export experiment.toml out").success();
    assert_eq!(names(&lab.bob.path("out/artifacts")), ["report"]);
    lab.bob.pipeline("export experiment.toml words text").success();
    assert_eq!(lab.bob.read("text/text"), "to be or not to be\n");
    lab.bob.pipeline("export experiment.toml everything --all").success();
    assert_eq!(names(&lab.bob.path("everything/artifacts")), ["count", "other", "report", "words"]);
    assert!(!lab.bob.path("ran").exists(), "nothing has run");
    // What cannot be brought is said, and is not in it.
    fs::remove_dir_all(lab.share.path().join("packs")).expect("ours");
    for arguments in ["report experiment.toml", "export experiment.toml out"] {
        let carl = Sandbox::new(WORDS)
            .set("PIPELINE_REMOTE", format!("file://{}", lab.share.path().display()));
        carl.pipeline("run experiment.toml").success();
        let ended = carl.pipeline(arguments);
        let said = "warning: the result of report was not brought from the remote: its small files are missing there";
        assert!(ended.stderr.contains(said), "{arguments}: {ended}");
        assert!(!carl.path("ran").exists());
    }
}

#[test]
fn equal_files_may_be_more_than_a_process_may_have_open() {
    let many =
        "seq 1 600 | while read number; do : > empty-$number; echo same > same-$number; done";
    let lab = Lab::new(&PAPER.replace(": > nothing", many));
    lab.ann.pipeline("run experiment.toml data").success();
    lab.ann.pipeline("push experiment.toml data").success();
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -n 200; exec \"$0\" pull experiment.toml data").arg(pipeline());
    lab.bob.dress(&mut command);
    lab.bob.start_command(command).wait().success();
    assert_eq!(lab.bob.digest("data"), lab.ann.digest("data"));
}
