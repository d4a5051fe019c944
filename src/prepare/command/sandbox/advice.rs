//! What a program did that its stage does not declare, in words, with the lines of the manifest that would declare it.
//!
//! Pure, but for which paths exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipeline_stages::text::in_short;

use super::policy::Use;

/// More files than this are named by their folders.
const MOST_NAMED: usize = 6;

/// What the paths of a stage are relative to, and what it declares already.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    /// Its folder, without links.
    pub(super) folder: PathBuf,
    /// The home folder, without links.
    pub(super) home: Option<PathBuf>,
    /// The folder of all artifacts, where it is known.
    pub(super) store: Option<PathBuf>,
    /// The folders that are made for the program, without links, and the variables that name them.
    pub(super) own: Vec<(&'static str, PathBuf)>,
    /// The values of the parameters with these names.
    pub(super) files: Vec<String>,
    pub(super) sandbox_read: Vec<String>,
    pub(super) sandbox_write: Vec<String>,
}

/// The sentences about what is undeclared: what it is, then the lines to add.
pub(super) fn sentences(
    undeclared: &BTreeSet<(Use, PathBuf)>,
    more: u64,
    manifest: &Manifest,
) -> Vec<String> {
    let does = |usage: Use, path: &Path| undeclared.contains(&(usage, path.to_owned()));
    let (mut read, mut link, mut write) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (usage, path) in undeclared {
        match usage {
            Use::Write | Use::Name => {
                write.insert(path.as_path());
            }
            Use::Link => link.push(path.as_path()),
            // Whoever may write a file may read it.
            _ if does(Use::Write, path) || does(Use::Name, path) => {}
            _ => read.push(path.as_path()),
        }
    }
    let only_read: Vec<_> = read.iter().copied().filter(|path| !link.contains(path)).collect();
    let mut what = Vec::new();
    for (verb, paths) in [("read", &only_read), ("link", &link), ("write", &outermost(&write))] {
        let names = manifest.folded(paths);
        if !names.is_empty() {
            what.push(format!("{verb} {}", in_short(names, MOST_NAMED)));
        }
    }
    if more > 0 {
        what.push(format!("{more} more"));
    }
    let mut sentences = vec![what.join("; ")];

    let is_artifact =
        |path: &Path| manifest.store.as_deref().is_some_and(|store| path.starts_with(store));
    let (artifacts, read): (Vec<_>, Vec<_>) = read.into_iter().partition(|path| is_artifact(path));
    let (changed, write): (Vec<_>, Vec<_>) = write.into_iter().partition(|path| is_artifact(path));
    let (own, write): (Vec<_>, Vec<_>) = write.into_iter().partition(|path| manifest.is_own(path));
    let names: Vec<_> = write.iter().copied().filter(|path| does(Use::Name, path)).collect();
    let contents = write.into_iter().filter(|path| does(Use::Write, path));
    let folders = names.iter().filter_map(|name| name.parent());
    let write = outermost(&contents.chain(folders).collect());
    let may_write = |path: &Path| write.iter().any(|above| path.starts_with(above));
    link.retain(|path| !path.parent().is_some_and(may_write));
    let is_local = |path: &Path| path.starts_with(&manifest.folder);
    let is_content =
        |path: &&Path| does(Use::Read, path) && (is_local(path) || !manifest.is_setting(path));
    let content: Vec<_> = read.iter().copied().filter(is_content).collect();
    let elsewhere: Vec<_> = read.iter().copied().filter(|path| !is_local(path)).collect();
    let line = |declared: &[String], mut new: Vec<String>| {
        new.retain(|path| !declared.contains(path));
        let is_in_new = |path: &str| {
            new.iter().any(|new| manifest.place(path).starts_with(manifest.place(new)))
        };
        let old = declared.iter().filter(|path| !is_in_new(path));
        old.chain(&new).map(|path| quoted(path)).collect::<Vec<_>>().join(", ")
    };
    if !artifacts.is_empty() {
        sentences.push("what another stage made: inputs = { NAME = \"STAGE\" }".to_owned());
    }
    if !content.is_empty() {
        let mut names = manifest.folded(&content);
        // There, a path is absolute, or below the folder of the manifest.
        for name in names.iter_mut().filter(|name| name.starts_with("~/")) {
            *name = manifest.place(name).to_string_lossy().into_owned();
        }
        let line = line(&manifest.files, names);
        sentences.push(format!("what the result depends on: files = [{line}]"));
    }
    if !elsewhere.is_empty() {
        let line = line(&manifest.sandbox_read, manifest.folded(&elsewhere));
        sentences.push(format!("what cannot change the result: sandbox-read = [{line}]"));
    }
    if !write.is_empty() {
        let line = line(&manifest.sandbox_write, manifest.folded(&write));
        sentences.push(format!(
            "what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = [{line}]"
        ));
        // The kernel allows what is there: to allow what is not, all of its folder would be.
        let missing = manifest.folded(&write).into_iter().filter(|path| !manifest.exists(path));
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            let missing = in_short(missing, MOST_NAMED);
            sentences.push(format!(
                "which allows only what exists before the program starts: make {missing}, or let the program write to $PIPELINE_OUTPUT or $TMPDIR"
            ));
        }
        if !names.is_empty() {
            sentences.push(
                "a name that is made, removed or replaced changes its folder, so that is allowed and not the file; or let the program write to $PIPELINE_OUTPUT or $TMPDIR"
                    .to_owned(),
            );
        }
        if let Some(wide) = write.iter().find(|place| manifest.folder.starts_with(place)) {
            sentences.push(format!(
                "'{}' holds the manifest and all that is beside it: better let the program write in a folder of its own, and allow that",
                manifest.written(wide)
            ));
        }
    }
    if !link.is_empty() {
        let names = in_short(manifest.folded(&link), MOST_NAMED);
        sentences.push(format!(
            "a hard link can only be made between folders that may both be written: let the program copy {names}"
        ));
    }
    let is_changed = |folder: &Path| own.iter().any(|path| folder.starts_with(path));
    for (name, _) in manifest.own.iter().filter(|(_, folder)| is_changed(folder)) {
        sentences.push(format!(
            "{name} itself must not be removed, moved or replaced: let the program do that with what is in it"
        ));
    }
    if !changed.is_empty() {
        sentences.push(
            "what another stage made is never changed: copy it to $PIPELINE_OUTPUT, and change that"
                .to_owned(),
        );
    }
    sentences
}

/// The paths that are not within another one of them.
fn outermost<'a>(paths: &BTreeSet<&'a Path>) -> Vec<&'a Path> {
    let within_another = |path: &Path| path.ancestors().skip(1).any(|above| paths.contains(above));
    paths.iter().copied().filter(|path| !within_another(path)).collect()
}

impl Manifest {
    /// Whether a path is one of the folders that are made for the program, or above one.
    fn is_own(&self, path: &Path) -> bool {
        self.own.iter().any(|(_, folder)| folder.starts_with(path))
    }

    /// Whether a file is hidden in the home folder, or in a hidden folder there: settings and caches of programs.
    fn is_setting(&self, path: &Path) -> bool {
        let in_home = self.home.as_deref().and_then(|home| path.strip_prefix(home).ok());
        in_home
            .is_some_and(|path| path.iter().any(|name| name.as_encoded_bytes().starts_with(b".")))
    }

    /// Whether there is something at a path as it would be in the manifest.
    fn exists(&self, written: &str) -> bool {
        self.place(written).symlink_metadata().is_ok()
    }

    /// Where a path in the manifest leads.
    fn place(&self, written: &str) -> PathBuf {
        let in_home = written.strip_prefix("~/").zip(self.home.as_deref());
        in_home.map_or_else(|| self.folder.join(written), |(rest, home)| home.join(rest))
    }

    /// The paths as they would be in the manifest; the folders of many.
    fn folded(&self, paths: &[&Path]) -> Vec<String> {
        let mut paths: BTreeSet<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        while paths.len() > MOST_NAMED {
            let Some(deepest) = paths.iter().map(|path| self.depth(path)).max() else { break };
            if deepest < 2 {
                break;
            }
            let fold = |path: PathBuf| match path.parent() {
                Some(folder) if self.depth(&path) == deepest => folder.to_owned(),
                _ => path,
            };
            let folded: BTreeSet<_> = paths.into_iter().map(fold).collect();
            let within = |path: &Path| path.ancestors().skip(1).any(|above| folded.contains(above));
            paths = folded.iter().filter(|path| !within(path)).cloned().collect();
        }
        paths.iter().map(|path| self.written(path)).collect()
    }

    /// How far a path is below the folder that it is written from.
    fn depth(&self, path: &Path) -> usize {
        let base = self.bases().into_iter().find_map(|(base, _)| path.strip_prefix(base).ok());
        base.unwrap_or(path).components().count()
    }

    /// The folders that paths are written from, and how.
    fn bases(&self) -> [(&Path, &str); 3] {
        let home = self.home.as_deref().unwrap_or(&self.folder);
        [(&self.folder, ""), (home, "~/"), (Path::new("/"), "/")]
    }

    fn written(&self, path: &Path) -> String {
        if let Some((name, _)) = self.own.iter().find(|(_, folder)| folder == path) {
            return (*name).to_owned();
        }
        let relative = |(base, prefix): (&Path, &str)| {
            Some(format!("{prefix}{}", path.strip_prefix(base).ok()?.to_string_lossy()))
        };
        let written = self.bases().into_iter().find_map(relative).unwrap_or_default();
        if written.is_empty() { ".".to_owned() } else { written }
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::Use::{Link, List, Name, Read, Write};
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            folder: "/home/me/exp".into(),
            home: Some("/home/me".into()),
            store: Some("/home/me/exp/cache/store".into()),
            own: vec![("$PIPELINE_OUTPUT", "/home/me/exp/cache/tmp/a/output".into())],
            files: vec!["train.py".to_owned()],
            ..Manifest::default()
        }
    }

    fn said(undeclared: &[(Use, &str)]) -> String {
        let undeclared = undeclared.iter().map(|(usage, path)| (*usage, path.into())).collect();
        sentences(&undeclared, 0, &manifest()).join("\n")
    }

    #[test]
    fn each_file_is_named_with_the_line_that_declares_it() {
        insta::assert_snapshot!(said(&[(Read, "/home/me/exp/data \"x\".csv")]), @r#"
        read data "x".csv
        what the result depends on: files = ["train.py", "data \"x\".csv"]
        "#);
        insta::assert_snapshot!(said(&[(Read, "/home/me/.gitconfig"), (List, "/home/me/.cache")]), @r#"
        read ~/.cache, ~/.gitconfig
        what cannot change the result: sandbox-read = ["~/.cache", "~/.gitconfig"]
        "#);
        // `files` takes no '~'.
        insta::assert_snapshot!(said(&[(Read, "/home/me/x.txt")]), @r#"
        read ~/x.txt
        what the result depends on: files = ["train.py", "/home/me/x.txt"]
        what cannot change the result: sandbox-read = ["~/x.txt"]
        "#);
        insta::assert_snapshot!(said(&[(Write, "/home/me/exp/out"), (Read, "/home/me/exp/out"), (Read, "/data/x")]), @r#"
        read /data/x; write out
        what the result depends on: files = ["train.py", "/data/x"]
        what cannot change the result: sandbox-read = ["/data/x"]
        what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["out"]
        which allows only what exists before the program starts: make out, or let the program write to $PIPELINE_OUTPUT or $TMPDIR
        "#);
        insta::assert_snapshot!(said(&[(Read, "/home/me/exp/cache/store/aa/text"), (Read, "/home/me/exp/a")]), @r#"
        read a, cache/store/aa/text
        what another stage made: inputs = { NAME = "STAGE" }
        what the result depends on: files = ["train.py", "a"]
        "#);
    }

    #[test]
    fn who_changes_a_name_needs_its_folder() {
        let top = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(top.path().join("d")).expect("a folder");
        let manifest = Manifest {
            folder: top.path().to_owned(),
            home: Some("/home/me".into()),
            store: Some(top.path().join("cache/store")),
            own: vec![("$PIPELINE_OUTPUT", top.path().join("cache/tmp/a/output"))],
            sandbox_write: vec!["d/a".to_owned(), "~/x".to_owned()],
            ..Manifest::default()
        };
        let said = |undeclared: &[(Use, &str)]| {
            let at = |(usage, path): &(Use, &str)| (*usage, top.path().join(path));
            sentences(&undeclared.iter().map(at).collect(), 0, &manifest).join("\n")
        };
        insta::assert_snapshot!(said(&[(Name, "d/a"), (Write, "d/e/b"), (Read, "d/a")]), @r#"
        write d/a, d/e/b
        what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["~/x", "d"]
        a name that is made, removed or replaced changes its folder, so that is allowed and not the file; or let the program write to $PIPELINE_OUTPUT or $TMPDIR
        "#);
        insta::assert_snapshot!(said(&[(Name, "state.json")]), @r#"
        write state.json
        what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["~/x", "."]
        a name that is made, removed or replaced changes its folder, so that is allowed and not the file; or let the program write to $PIPELINE_OUTPUT or $TMPDIR
        '.' holds the manifest and all that is beside it: better let the program write in a folder of its own, and allow that
        "#);
        insta::assert_snapshot!(said(&[(Name, "cache/tmp/a/output"), (Name, "cache/tmp")]), @"
        write cache/tmp
        $PIPELINE_OUTPUT itself must not be removed, moved or replaced: let the program do that with what is in it
        ");
        insta::assert_snapshot!(said(&[(Name, "cache/store/aa/text")]), @"
        write cache/store/aa/text
        what another stage made is never changed: copy it to $PIPELINE_OUTPUT, and change that
        ");
    }

    #[test]
    fn a_hard_link_is_between_folders_that_may_be_written() {
        let link = [(Read, "/home/me/exp/d/a"), (Link, "/home/me/exp/d/a")];
        insta::assert_snapshot!(said(&link), @r#"
        link d/a
        what the result depends on: files = ["train.py", "d/a"]
        a hard link can only be made between folders that may both be written: let the program copy d/a
        "#);
        insta::assert_snapshot!(said(&link[1..]), @"
        link d/a
        a hard link can only be made between folders that may both be written: let the program copy d/a
        ");
        let both = said(&[link[0], link[1], (Name, "/home/me/exp/d/b")]);
        assert!(both.contains("sandbox-write = [\"d\"]") && !both.contains("copy"), "{both}");
    }

    #[test]
    fn what_may_be_written_exists_and_is_no_input() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        std::fs::write(folder.join("there"), "").expect("a file");
        let manifest = Manifest {
            folder: folder.to_owned(),
            store: Some(folder.join("cache/store")),
            sandbox_write: vec!["there".to_owned(), "not".to_owned()],
            ..Manifest::default()
        };
        let said = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (Write, folder.join(path))).collect();
            sentences(&paths, 0, &manifest).join("\n")
        };
        insta::assert_snapshot!(said(&["there"]), @r#"
        write there
        what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["there", "not"]
        "#);
        insta::assert_snapshot!(said(&["not"]), @r#"
        write not
        what is written elsewhere than in $PIPELINE_OUTPUT: sandbox-write = ["there", "not"]
        which allows only what exists before the program starts: make not, or let the program write to $PIPELINE_OUTPUT or $TMPDIR
        "#);
        insta::assert_snapshot!(said(&["cache/store/aa/text"]), @"
        write cache/store/aa/text
        what another stage made is never changed: copy it to $PIPELINE_OUTPUT, and change that
        ");
    }

    #[test]
    fn many_files_are_named_by_their_folders() {
        let many: Vec<_> =
            (0..50).map(|n| format!("/home/me/.local/lib/p{}/f{n}.py", n % 9)).collect();
        let many: Vec<_> = many.iter().map(|path| (Read, path.as_str())).collect();
        insta::assert_snapshot!(said(&many), @r#"
        read ~/.local/lib
        what cannot change the result: sandbox-read = ["~/.local/lib"]
        "#);
        let top: Vec<_> = (0..9).map(|n| format!("/home/me/exp/{n}")).collect();
        let top: Vec<_> = top.iter().map(|path| (Read, path.as_str())).collect();
        assert!(said(&top).starts_with("read 0, 1, 2, 3, 4, 5"), "{}", said(&top));
    }
}
