//! Stages that do anything in their folders, and damage between runs: no wrong result is ever fresh after
//! `verify`, and nothing outside the cache changes.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::support::{Sandbox, names, walk};

/// What a stage does beside its work.
#[derive(Debug, Clone, Copy)]
enum Mischief {
    None,
    LinkOutside,
    HardLinkOutside,
    CopyOfLinks,
    NothingReadable,
    EverythingWritable,
    OutputIsALink,
    OutputIsAnother,
    OutputIsGone,
    WorkIsALink,
    MovesWhatIsReadAwayAndBack,
    WritesIntoItsInput,
    RemovesFromItsInput,
    AddsToItsInput,
    TouchesItsInput,
}

const MISCHIEF: [Mischief; 15] = [
    Mischief::None,
    Mischief::LinkOutside,
    Mischief::HardLinkOutside,
    Mischief::CopyOfLinks,
    Mischief::NothingReadable,
    Mischief::EverythingWritable,
    Mischief::OutputIsALink,
    Mischief::OutputIsAnother,
    Mischief::OutputIsGone,
    Mischief::WorkIsALink,
    Mischief::MovesWhatIsReadAwayAndBack,
    Mischief::WritesIntoItsInput,
    Mischief::RemovesFromItsInput,
    Mischief::AddsToItsInput,
    Mischief::TouchesItsInput,
];

impl Mischief {
    fn script(self) -> &'static str {
        match self {
            Self::None => "",
            Self::LinkOutside => {
                "ln -s \"$PWD/mine\" \"$O/link\"; ln -s \"$PWD/mine/a\" \"$O/file\""
            }
            Self::HardLinkOutside => "ln mine/a \"$O/hard\"",
            Self::CopyOfLinks => {
                "mkdir \"$O/d\"; cp -al mine/. \"$O/d\"; ln \"$O/d/a\" \"$O/again\""
            }
            Self::NothingReadable => "mkdir \"$O/d\"; chmod 000 \"$O/d\"",
            Self::EverythingWritable => {
                "mkdir \"$O/d\"; echo 1 > \"$O/d/f\"; chmod -R a+rwX \"$O\""
            }
            Self::OutputIsALink => "rm -r \"$O\"; ln -s \"$PWD/mine\" \"$O\"",
            Self::OutputIsAnother => {
                "mv \"$O\" \"$O.old\"; mkdir \"$O\"; cp \"$O.old/value\" \"$O\""
            }
            Self::OutputIsGone => "rm -r \"$O\"",
            Self::WorkIsALink => {
                "W=$(dirname \"$O\"); mv \"$W\" \"$W.away\"; ln -s \"$PWD/mine\" \"$W\""
            }
            Self::MovesWhatIsReadAwayAndBack => {
                "mv said/word said/kept; echo wrong > said/word; cat said/word > \"$O/value\"; mv said/kept said/word"
            }
            Self::WritesIntoItsInput => {
                "for i in $I; do chmod u+w \"$i/value\" && echo x >> \"$i/value\"; done"
            }
            Self::RemovesFromItsInput => {
                "for i in $I; do chmod u+w \"$i\" && rm -f \"$i/value\"; done"
            }
            Self::AddsToItsInput => {
                "for i in $I; do chmod u+w \"$i\" && echo x > \"$i/more\"; done"
            }
            Self::TouchesItsInput => "for i in $I; do touch \"$i/value\" 2> /dev/null; done; true",
        }
    }
}

/// What happens to a file of the cache between two runs.
#[derive(Debug, Clone, Copy)]
enum Damage {
    OtherByte,
    Cut,
    Removed,
    Added,
    FolderRemoved,
    FolderIsALink,
    RecordByte,
    RecordRemoved,
    WorkIsALink,
    CheckpointIsALink,
    LockIsALink,
}

const DAMAGE: [Damage; 11] = [
    Damage::OtherByte,
    Damage::Cut,
    Damage::Removed,
    Damage::Added,
    Damage::FolderRemoved,
    Damage::FolderIsALink,
    Damage::RecordByte,
    Damage::RecordRemoved,
    Damage::WorkIsALink,
    Damage::CheckpointIsALink,
    Damage::LockIsALink,
];

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Each stage adds its own word to the values of those that it reads: a chain with one fork.
fn inputs(stage: usize) -> &'static [usize] {
    [&[][..], &[0], &[1], &[0, 1]][stage]
}

fn manifest(words: &[String], mischief: &[Mischief]) -> String {
    let stage = |number: usize| {
        let name = NAMES[number];
        let from = inputs(number).iter().map(|&input| NAMES[input]);
        let ports = from.clone().map(|input| format!("{input} = \"{input}\"")).collect::<Vec<_>>();
        let paths = from.map(|input| format!("$PIPELINE_INPUT_{}", input.to_uppercase()));
        let paths = paths.collect::<Vec<_>>().join(" ");
        format!(
            "[stages.{name}]\nkind = \"command\"\nfiles = [\"said\"]\ninputs = {{ {} }}\nshell = '''\nO=$PIPELINE_OUTPUT; I=\"{paths}\"\n\
             for i in $I; do cat \"$i/value\" >> \"$O/value\" || exit 1; done\necho {} >> \"$O/value\"\n{}\n'''\n",
            ports.join(", "),
            words[number],
            mischief[number].script(),
        )
    };
    let stages: String = (0..NAMES.len()).map(stage).collect();
    format!("[experiment]\nname = \"hostile\"\n{stages}")
}

/// What the value of a stage must be.
fn expected(words: &[String], stage: usize) -> String {
    let before: String = inputs(stage).iter().map(|&input| expected(words, input)).collect();
    format!("{before}{}\n", words[stage])
}

fn damage(project: &Sandbox, damage: Damage, which: usize) {
    let pick = |paths: Vec<PathBuf>| -> Option<PathBuf> {
        (!paths.is_empty()).then(|| paths[which % paths.len()].clone())
    };
    let files = |bucket: &str| {
        let all = walk(&project.cache(bucket)).into_iter();
        all.filter(|path| path.symlink_metadata().is_ok_and(|one| one.is_file())).collect()
    };
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).expect("readable");
        if let Some(byte) = bytes.get_mut(which % 97) {
            *byte ^= 4;
        }
        unprotect(path);
        fs::write(path, bytes).expect("ours");
    };
    // In the place of something of a key.
    let link = |bucket: &str, target: &str| {
        let keys = names(&project.cache("locks")).into_iter().filter(|name| name.len() == 64);
        let keys = keys.map(|key| project.cache(bucket).join(key)).collect();
        pick(keys).iter().for_each(|place| {
            let _ = fs::remove_dir_all(place);
            let _ = fs::remove_file(place);
            symlink(project.path(target), place).expect("writable");
        });
    };
    match damage {
        Damage::WorkIsALink => link("tmp", "mine"),
        Damage::CheckpointIsALink => link("partial", "mine"),
        Damage::LockIsALink => link("locks", "mine/a"),
        Damage::RecordByte => pick(files("records")).iter().for_each(|path| flip(path)),
        Damage::RecordRemoved => {
            pick(files("records")).iter().for_each(|path| fs::remove_file(path).expect("ours"));
        }
        Damage::OtherByte => pick(files("store")).iter().for_each(|path| flip(path)),
        Damage::Cut => pick(files("store")).iter().for_each(|path| {
            unprotect(path);
            fs::write(path, "").expect("ours");
        }),
        Damage::Removed => pick(files("store")).iter().for_each(|path| {
            unprotect(path);
            fs::remove_file(path).expect("ours");
        }),
        Damage::Added => pick(files("store")).iter().for_each(|path| {
            unprotect(path);
            fs::write(path.with_file_name("added"), "").expect("ours");
        }),
        Damage::FolderRemoved | Damage::FolderIsALink => {
            let store = project.cache("store");
            let names = fs::read_dir(store).into_iter().flatten().flatten();
            let mut folders: Vec<PathBuf> = names.map(|entry| entry.path()).collect();
            folders.sort();
            for folder in pick(folders).iter().filter(|folder| !folder.is_symlink()) {
                project.unprotect(folder);
                fs::remove_dir_all(folder).expect("ours");
                if matches!(damage, Damage::FolderIsALink) {
                    symlink(project.path("mine"), folder).expect("writable");
                }
            }
        }
    }
}

fn unprotect(file: &Path) {
    let folder = file.parent().expect("a folder");
    fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("ours");
    fs::set_permissions(file, Permissions::from_mode(0o644)).expect("ours");
}

/// Everything that must stay as it is: content, mode, owner and time of each file.
fn outside(project: &Sandbox) -> BTreeMap<PathBuf, (Vec<u8>, u32, u32, i64)> {
    let paths = walk(&project.path("mine")).into_iter();
    let state = |path: &Path| {
        let metadata = path.symlink_metadata().expect("it is still there");
        let content = fs::read(path).unwrap_or_default();
        (content, metadata.mode(), metadata.uid(), metadata.mtime_nsec())
    };
    paths.map(|path| (path.clone(), state(&path))).collect()
}

/// The stages that are fresh hold what they must hold. Their number.
fn assert_fresh_is_right(project: &Sandbox, words: &[String]) -> Result<usize, TestCaseError> {
    let plan = project.pipeline("plan experiment.toml --json").json();
    let mut fresh = 0;
    for (stage, name) in NAMES.into_iter().enumerate() {
        let all = plan["stages"].as_array().expect("a list");
        let state = all.iter().find(|one| one["stage"] == name).expect("every stage");
        if state["state"] != "fresh" {
            continue;
        }
        fresh += 1;
        let value = fs::read_to_string(project.artifact(name).join("value"));
        prop_assert_eq!(value.ok(), Some(expected(words, stage)), "{}", name);
    }
    Ok(fresh)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_wrong_is_fresh_after_verify_and_nothing_outside_changes(
        mischief in proptest::collection::vec(proptest::sample::select(&MISCHIEF[..]), 4),
        rounds in proptest::collection::vec(
            (proptest::collection::vec((proptest::sample::select(&DAMAGE[..]), 0..1000_usize), 1..4), 0..4_usize),
            1..4,
        ),
    ) {
        let mut words: Vec<String> = ["one", "two", "three", "four"].map(str::to_owned).to_vec();
        let project = Sandbox::new(&manifest(&words, &mischief));
        for file in ["mine/a", "mine/sub/b", "mine/value"] {
            project.write(file, "precious");
        }
        fs::set_permissions(project.path("mine/a"), Permissions::from_mode(0o600)).expect("ours");
        project.write("said/word", "right");
        let before = outside(&project);
        project.pipeline("run experiment.toml --keep-going");
        assert_fresh_is_right(&project, &words)?;
        let mut locks_open = true;
        for (damages, edited) in rounds {
            for (kind, which) in damages {
                locks_open &= !matches!(kind, Damage::LockIsALink);
                damage(&project, kind, which);
            }
            // A run that may read what is damaged, after an edit that makes it do so.
            words[edited].push('x');
            project.write("experiment.toml", manifest(&words, &mischief));
            project.pipeline("run experiment.toml --keep-going");
            project.pipeline("verify --all --cache cache");
            assert_fresh_is_right(&project, &words)?;
            project.pipeline("run experiment.toml --keep-going");
            let fresh = assert_fresh_is_right(&project, &words)?;
            if locks_open && mischief.iter().all(|one| matches!(one, Mischief::None)) {
                prop_assert_eq!(fresh, NAMES.len());
            }
            prop_assert_eq!(outside(&project), before.clone());
        }
    }
}
