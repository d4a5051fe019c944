//! Signed results: who has a key, whom somebody trusts, and what then comes from a remote.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::fake_store::PAPER;
use crate::remote_stories::succeeded;
use crate::support::{MANIFEST, Sandbox};
use crate::there::{There, with_each_damage};

/// A remote, and people with keys.
pub struct Lab {
    there: Box<dyn There>,
    /// A user of it who has this manifest.
    user_of: Box<dyn Fn(&str) -> Sandbox>,
}

impl Lab {
    fn new() -> Self {
        let share = tempfile::tempdir().expect("a folder");
        let address = format!("file://{}", share.path().display());
        let user =
            move |manifest: &str| Sandbox::new(manifest).set("PIPELINE_REMOTE", address.clone());
        Self::at(share, user)
    }

    /// One with this remote, which has nothing yet.
    pub fn at(there: impl There + 'static, user_of: impl Fn(&str) -> Sandbox + 'static) -> Self {
        Self { there: Box::new(there), user_of: Box::new(user_of) }
    }

    fn user(&self) -> Sandbox {
        let user = (self.user_of)(PAPER);
        let config = user.path("config").display().to_string();
        user.set("XDG_CONFIG_HOME", config)
    }

    /// A user with a key, and its line.
    fn signer(&self) -> (Sandbox, String) {
        let user = self.user();
        let line = succeeded(user.pipeline("key new")).stdout.trim().to_owned();
        (user, line)
    }

    /// A user who trusts these keys only.
    fn who_trusts(&self, lines: &[&str]) -> Sandbox {
        let user = self.user();
        self.trusts(&user, lines);
        user
    }

    fn trusts(&self, user: &Sandbox, lines: &[&str]) {
        let keys: Vec<String> = lines.iter().map(|line| format!("\"{line} somebody\"")).collect();
        let config = format!("[cache]\ntrust = \"signed\"\nkeys = [{}]\n", keys.join(", "));
        user.write("config/pipeline/config.toml", config);
    }
}

#[test]
fn a_key_is_made_once_and_only_its_owner_can_read_it() {
    let lab = Lab::new();
    let user = lab.user();
    assert_snapshot!(user.pipeline("key show"), @r"
    status 2
    --- stderr
    error: there is no key in [project]/config/pipeline/key: `pipeline key new` makes one
    ");
    let made = succeeded(user.pipeline("key new"));
    let line = &made.stdout;
    assert!(line.starts_with("ed25519:") && line.len() == 8 + 44 + 1, "{made}");
    assert_eq!(&succeeded(user.pipeline("key show")).stdout, line);
    let file = user.path("config/pipeline/key");
    let mode = fs::metadata(&file).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let private = user.read("config/pipeline/key");
    assert!(private.starts_with("ed25519-private:") && !made.to_string().contains(&private[16..]));
    assert_snapshot!(user.pipeline("key new"), @r"
    status 2
    --- stderr
    error: there is a key in [project]/config/pipeline/key: `pipeline key show` prints its line
    ");
    assert_eq!(user.read("config/pipeline/key"), private);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
    user.pipeline("run experiment.toml").success();
    for command in ["key show", "push experiment.toml"] {
        let refused = user.pipeline(command);
        assert!(refused.stderr.contains("others can read the key"), "{refused}");
        assert!(!refused.to_string().contains(&private[16..40]), "{refused}");
    }
    assert_eq!(lab.there.names("records").len(), 0);
}

#[test]
fn who_trusts_a_key_gets_what_it_has_signed_and_runs_the_rest() {
    what_is_not_signed_is_made_here(&Lab::new());
}

/// Of a lab, users get what is signed by somebody whom they trust, and run the rest.
pub fn what_is_not_signed_is_made_here(lab: &Lab) {
    let (ann, of_ann) = lab.signer();
    let (eve, of_eve) = lab.signer();
    // One stage of each.
    ann.pipeline("run experiment.toml data").success();
    ann.pipeline("push experiment.toml data").success();
    let of_data = lab.there.names("signatures");
    assert_eq!(of_data.len(), 1);
    eve.pipeline("run experiment.toml").success();
    eve.pipeline("push experiment.toml").success();
    let ran = |user: &Sandbox| {
        let ran = user.pipeline("run experiment.toml");
        let warnings = ran.stderr.matches("is not signed by anybody whom you trust").count();
        (ran.success(), warnings)
    };
    let said = |text: &str, warnings| (text.to_owned(), warnings);
    let dave = lab.user();
    assert_eq!(ran(&dave), said("data remote, count remote", 0));
    assert_eq!(ran(&dave), said("data remote, count remote", 0));
    // From now on he believes less, also of what he knows.
    lab.trusts(&dave, &[&of_ann]);
    assert_eq!(ran(&dave), said("data remote, count ran", 1));
    assert_eq!(ran(&lab.who_trusts(&[&of_ann, &of_eve])), said("data remote, count remote", 0));
    assert_eq!(ran(&lab.who_trusts(&[&of_ann])), said("data remote, count ran", 1));
    let bob = lab.who_trusts(&[&of_eve]);
    assert_eq!(ran(&bob), said("data ran, count remote", 1));
    let status = succeeded(bob.pipeline("remote status experiment.toml")).stdout;
    assert!(status.contains("data   here, and not trusted on the remote\n"), "{status}");
    assert!(status.contains("count  only on the remote\n"), "{status}");
    let status =
        succeeded(lab.who_trusts(&[&of_eve]).pipeline("remote status experiment.toml data"));
    assert!(status.stdout.starts_with("data  not trusted on the remote\n"), "{status}");
    let plan = lab.who_trusts(&[&of_eve]).pipeline("plan experiment.toml --remote");
    assert!(plan.stderr.contains(": data: the record "), "{plan}");
    // No manifest changes whom he trusts, and neither does where the remote is named.
    let more = format!("[cache]\ntrust = \"everybody\"\n{PAPER}");
    bob.write(MANIFEST, more);
    let refused = bob.pipeline("plan experiment.toml");
    assert!(refused.stderr.contains("unknown key 'trust' in 'cache'"), "{refused}");
    bob.write(MANIFEST, PAPER);
    // Of what she has signed, the signature is damaged, that of somebody else for something else, or missing.
    with_each_damage(&*lab.there, &of_data, |name, damage| {
        let user = lab.who_trusts(&[&of_ann, &of_eve]);
        assert_eq!(ran(&user), said("data ran, count remote", 1), "{name} is {}", damage.what);
        assert_eq!(ran(&user), said("data fresh, count remote", 0));
    });
    // A record that somebody has changed: it is whole.
    for name in lab.there.names("records") {
        let text = String::from_utf8(lab.there.get(&name)).expect("text");
        let (_, rest) = text.split_once("\",\n").expect("a checksum");
        let rest = rest.replace("\"stage\": \"", "\"stage\": \"not-");
        let checksum = blake3::hash(rest.as_bytes());
        let changed = format!("{{\n  \"checksum\": \"{checksum}\",\n{rest}");
        lab.there.set(&name, Some(changed.as_bytes()));
    }
    assert_eq!(ran(&lab.user()), said("data remote, count remote", 0));
    let carol = lab.who_trusts(&[&of_ann, &of_eve]);
    assert_eq!(ran(&carol), said("data ran, count ran", 2));
}

#[test]
fn a_run_says_what_of_it_others_cannot_trust() {
    let lab = Lab::new();
    let eve = lab.user();
    eve.pipeline("run experiment.toml").success();
    eve.pipeline("push experiment.toml").success();
    let (ann, of_ann) = lab.signer();
    let config = format!("[cache]\ntrust = \"signed\"\nkeys = [\"{of_ann}\"]\npush = \"always\"\n");
    ann.write("config/pipeline/config.toml", config);
    let ran = succeeded(ann.pipeline("run experiment.toml"));
    let words = "2 results were not signed by you, as file:///";
    assert!(ran.stderr.contains(words), "{ran}");
    assert!(ran.stderr.contains("has other records there: `pipeline push"), "{ran}");
    let pushed = succeeded(ann.pipeline("push experiment.toml"));
    assert!(pushed.stderr.contains("not signed by you: data, count"), "{pushed}");
}

#[test]
fn who_has_no_home_gets_nothing_from_others() {
    let lab = Lab::new();
    let ann = lab.user();
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml").success();
    // A folder that is not absolute is none.
    let bob = lab.user().set("XDG_CONFIG_HOME", "config").set("HOME", "home");
    let refused = bob.pipeline("run experiment.toml");
    assert_eq!(refused.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("whose results of a remote count"), "{refused}");
    let bob = bob.set("PIPELINE_REMOTE", "none");
    bob.pipeline("run experiment.toml").success();
    let none = bob.pipeline("key show");
    assert!(none.stderr.contains("neither HOME nor XDG_CONFIG_HOME"), "{none}");
    // Without any variable, the system knows it. Whoever runs this may have a key there.
    let bob = bob.set("HOME", "");
    let known = bob.pipeline("key show");
    assert!(!known.stderr.contains("neither HOME"), "{known}");
}

#[test]
fn results_from_before_the_key_are_signed_when_they_are_pushed_again() {
    let lab = Lab::new();
    let ann = lab.user();
    ann.pipeline("run experiment.toml").success();
    ann.pipeline("push experiment.toml").success();
    assert_eq!(lab.there.names("signatures").len(), 0);
    let line = succeeded(ann.pipeline("key new")).stdout.trim().to_owned();
    for end in ["2 were there already (2 of them signed by you now)\n", "2 were there already\n"] {
        let again = succeeded(ann.pipeline("push experiment.toml")).stdout;
        assert!(again.starts_with("0 pushed (0 B) to ") && again.ends_with(end), "{again}");
    }
    assert_eq!(lab.there.names("signatures").len(), 2);
    let bob = lab.who_trusts(&[&line]);
    bob.pipeline("pull experiment.toml").success();
    bob.pipeline("verify experiment.toml").success();
}
