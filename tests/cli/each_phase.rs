//! A connection to a real server that is cut at each of its turns: once, or from then on. What is left counts as a whole, or not at all,
//! and the next call completes it.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::{Ended, Sandbox, say};
use crate::turns::{Cut, Cuts, Turns};

/// How many calls are made at once: most of the time they wait before they try again.
const AT_ONCE: usize = 12;

/// A large file that cannot be compressed, one that can, and small ones; always the same bytes.
const MANIFEST: &str = r#"
[experiment]
name = "phases"

[stages.data]
kind = "command"
shell = '''
cd "$PIPELINE_OUTPUT"
cp "NOISE" noise
seq 1 30000 > numbers
seq 1 9000 > some
echo 1 > 1
'''

[stages.count]
kind = "command"
shell = 'wc -l < "$PIPELINE_INPUT_DATA/numbers" > "$PIPELINE_OUTPUT/count"'
inputs = { data = "data" }
"#;

/// A server, and who uses it.
pub struct Site<'s> {
    /// A host and its port.
    pub server: String,
    /// The address of a place of the server that listens there.
    pub address: &'s (dyn Fn(&str, &str) -> String + Sync),
    /// Somebody with this manifest.
    pub user: &'s (dyn Fn(&str) -> Sandbox + Sync),
    /// How many bytes the large file has.
    pub bytes: u64,
}

/// A call that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Two results, to a place that has none.
    Push,
    /// Two results, into a cache that has none.
    Pull,
    /// A stage that is not there, into such a cache: it needs what is there.
    Run,
}

/// A call that is cut at each of its turns.
struct Walk {
    call: Call,
    cut: Cut,
    is_lasting: bool,
    /// The turn that is next, and whether one was beyond the last.
    next: AtomicUsize,
    is_over: AtomicBool,
}

/// What is the same for all calls.
struct Walked<'s> {
    site: &'s Site<'s>,
    manifest: String,
    /// Who has made the results.
    ann: Sandbox,
    digests: [String; 2],
}

/// Where all results are.
const WHOLE: &str = "phases-whole";

/// Cuts each of these calls at each of its turns.
pub fn what_is_cut_at_any_turn_counts_as_a_whole_or_not_at_all(
    site: &Site<'_>,
    calls: &[(Call, Cut, bool)],
) {
    let began = Instant::now();
    let folder = tempfile::tempdir().expect("a folder");
    let noise = folder.path().join("noise");
    let random = File::open("/dev/urandom").expect("the system has it");
    io::copy(&mut random.take(site.bytes), &mut File::create(&noise).expect("ours")).expect("room");
    let manifest = MANIFEST.replace("NOISE", &noise.display().to_string());
    let ann = (site.user)(&manifest);
    ann.pipeline("run experiment.toml").success();
    let digests = ["data", "count"].map(|stage| ann.digest(stage));
    let walked = Walked { site, manifest, ann, digests };
    walked.call(&walked.ann, "push", &site.server, WHOLE).success();
    let walks: Vec<Walk> = calls
        .iter()
        .map(|&(call, cut, is_lasting)| {
            let (next, is_over) = (AtomicUsize::new(1), AtomicBool::new(false));
            Walk { call, cut, is_lasting, next, is_over }
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| walks.iter().for_each(|walk| walked.walk(walk)));
        }
    });
    let mut turns = 0;
    for Walk { call, cut, is_lasting, next, .. } in walks {
        let of_walk = next.into_inner();
        assert!(of_walk > 3, "{call:?} is cut somewhere");
        say(&format!("{call:?}, {cut:?}, lasting: {is_lasting}: about {of_walk} turns"));
        turns += of_walk;
    }
    say(&format!("about {turns} turns in {:.1?}", began.elapsed()));
}

impl Walked<'_> {
    fn walk(&self, walk: &Walk) {
        while !walk.is_over.load(Ordering::Relaxed) {
            let from = walk.next.fetch_add(1, Ordering::Relaxed);
            let cuts = Cuts { cut: walk.cut, from, is_lasting: walk.is_lasting };
            let turns = Turns::start(&self.site.server, cuts);
            let server = turns.address();
            let case = format!("{:?}, {cuts:?}", walk.call);
            let is_cut = || {
                let is_cut = turns.cut() > 0;
                walk.is_over.fetch_or(!is_cut, Ordering::Relaxed);
                is_cut
            };
            match walk.call {
                Call::Push => {
                    let place =
                        format!("phases-{:?}-{}-{from}", walk.cut, u8::from(walk.is_lasting));
                    self.push(&case, &server, &place, cuts, is_cut);
                }
                Call::Pull => self.pull(&case, &server, cuts, is_cut),
                Call::Run => self.run(&case, &server, is_cut),
            }
        }
    }

    fn call(&self, user: &Sandbox, call: &str, server: &str, place: &str) -> Ended {
        let mut command = user.command(&format!("{call} experiment.toml"));
        command.env("PIPELINE_REMOTE", (self.site.address)(server, place));
        user.start_command(command).wait()
    }

    /// Whether a call that was cut has come to its end by itself. Otherwise it has said what failed.
    fn is_through(&self, case: &str, ended: &Ended, cuts: Cuts, is_cut: bool) -> bool {
        let is_through = ended.code() == Some(0);
        let may_fail = is_cut && cuts.is_lasting;
        assert!(is_through || may_fail && ended.code() == Some(1), "{case}: {ended}");
        assert!(is_through || !ended.stderr.trim().is_empty(), "{case}: {ended}");
        is_sane(case, ended);
        is_through
    }

    fn is_all_there(&self, case: &str, user: &Sandbox) {
        let digests = ["data", "count"].map(|stage| user.digest(stage));
        assert_eq!(digests, self.digests, "{case}");
    }

    fn push(&self, case: &str, server: &str, place: &str, cuts: Cuts, is_cut: impl Fn() -> bool) {
        let site = self.site;
        let ended = self.call(&self.ann, "push", server, place);
        let is_through = self.is_through(case, &ended, cuts, is_cut());
        let bob = (site.user)(&self.manifest);
        let pulled = self.call(&bob, "pull", &site.server, place);
        is_sane(case, &pulled);
        assert!(pulled.code() == Some(0) || !is_through, "{case}: {ended}{pulled}");
        if !is_through {
            let again = self.call(&self.ann, "push", &site.server, place);
            assert_eq!(again.code(), Some(0), "{case}: {ended}{again}");
            let pulled = self.call(&bob, "pull", &site.server, place);
            assert_eq!(pulled.code(), Some(0), "{case}: {ended}{pulled}");
        }
        self.is_all_there(case, &bob);
        for user in [&bob, &self.ann] {
            is_sound(case, user);
        }
    }

    fn pull(&self, case: &str, server: &str, cuts: Cuts, is_cut: impl Fn() -> bool) {
        let bob = (self.site.user)(&self.manifest);
        let ended = self.call(&bob, "pull", server, WHOLE);
        if !self.is_through(case, &ended, cuts, is_cut()) {
            is_sound(case, &bob);
            let again = self.call(&bob, "pull", &self.site.server, WHOLE);
            assert_eq!(again.code(), Some(0), "{case}: {ended}{again}");
        }
        self.is_all_there(case, &bob);
        is_sound(case, &bob);
    }

    fn run(&self, case: &str, server: &str, is_cut: impl Fn() -> bool) {
        let bob = (self.site.user)(&self.manifest.replace("wc -l", "wc -c"));
        let ended = self.call(&bob, "run", server, WHOLE);
        is_sane(case, &ended);
        let results = ended.success();
        let is_cut = is_cut();
        let is_brought = results == "data remote, count ran";
        assert!(is_brought || results == "data ran, count ran" && is_cut, "{case}: {ended}");
        assert!(is_brought || ended.stderr.contains("the remote"), "{case}: {ended}");
        assert_eq!(bob.digest("data"), self.digests[0], "{case}: {ended}");
        is_sound(case, &bob);
        let again = self.call(&bob, "run", &self.site.server, WHOLE);
        assert_eq!(again.success(), "data fresh, count fresh", "{case}: {ended}{again}");
    }
}

/// Nothing that a call said is of a mistake of the program.
fn is_sane(case: &str, ended: &Ended) {
    let is_wrong = |words: &str| ended.stderr.contains(words) || ended.stdout.contains(words);
    assert!(!is_wrong("panicked") && !is_wrong("internal error"), "{case}: {ended}");
    assert!(matches!(ended.code(), Some(0 | 1)), "{case}: {ended}");
}

/// What has arrived is whole. Of a call that was cut before anything had, there may be no cache.
fn is_sound(case: &str, user: &Sandbox) {
    let has_cache = user.cache("VERSION").exists();
    let verified = user.pipeline("verify --all");
    assert_eq!(verified.code(), Some(if has_cache { 0 } else { 2 }), "{case}: {verified}");
}
