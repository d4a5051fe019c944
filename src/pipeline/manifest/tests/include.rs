//! Files that a manifest includes.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use super::super::{Manifest, parse, read};
use crate::diagnostic::Colour;
use crate::graph::Graph;
use crate::key::{self, InputResult, StageKey};

const BASE: &str = "\
[defaults.command]
output = \"metrics\"

[stages.raw]
kind = \"command\"
run = [\"cat\", \"words.txt\"]
files = [\"words.txt\"]
";

const MAIN: &str = "\
include = [\"shared/base.toml\"]

[experiment]
name = \"x\"

[stages.words]
kind = \"command\"
run = [\"wc\"]
inputs = { raw = \"raw\" }
";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }
    folder
}

fn right(folder: &Path) -> (Manifest, Graph) {
    read(&folder.join("main.toml"), &[])
        .unwrap_or_else(|mistakes| panic!("{}", mistakes.render(Colour::Never)))
}

fn shown(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let mistakes = read(&folder.path().join("main.toml"), &[]).expect_err("mistakes");
    mistakes.render(Colour::Never).replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn stages_and_defaults_come_from_the_file_and_paths_are_relative_to_it() {
    let folder = folder(&[("main.toml", MAIN), ("shared/base.toml", BASE)]);
    let (manifest, graph) = right(folder.path());
    let raw = manifest.stage(&"raw".parse().expect("a name")).expect("a stage");
    assert_eq!(manifest.folder_of(raw), folder.path().join("shared"));
    let words = manifest.stage(&"words".parse().expect("a name")).expect("a stage");
    assert_eq!(manifest.folder_of(words), folder.path());
    assert_eq!(words.stage.output().name(), "metrics");
    assert_eq!(graph.order().map(|name| name.as_str()).collect::<Vec<_>>(), ["raw", "words"]);
    assert_eq!(
        (raw.line, raw.file.as_ref().map(|file| file.name.ends_with("shared/base.toml"))),
        (4, Some(true))
    );
}

#[test]
fn a_relative_path_is_not_a_default_for_a_stage_in_another_folder() {
    const RAW: &str = "[stages.raw]\nkind = \"command\"\nrun = [\"a\"]\n";
    let with = |default: &str| {
        [
            ("main.toml", MAIN.to_owned()),
            ("shared/base.toml", format!("{RAW}[defaults.command]\n{default}\n")),
        ]
    };
    let files = with("files = [\"words.txt\", \"other.txt\"]");
    assert_snapshot!(shown(&files.each_ref().map(|(name, text)| (*name, text.as_str()))), @r#"
    error: the stage 'words' is in another folder than this value, and would look for 'words.txt', 'other.txt' there
     --> shared/base.toml:5:9
      |
    5 | files = ["words.txt", "other.txt"]
      |         ^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: write an absolute path, or move the value to the stage: there, a path is relative to its file

    error: 1 mistake in main.toml; nothing was run
    "#);
    let many: Vec<_> = (0..60).map(|number| format!("\"{number}.txt\"")).collect();
    let files = with(&format!("files = [{}]", many.join(", ")));
    let found = shown(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    assert!(found.contains("look for '0.txt', '1.txt', '2.txt' and 57 more there\n"), "{found}");
    // Escapes hide it, and it is found.
    let files = with("files = [\"w\\u006frds.txt\"]");
    let found = shown(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    assert!(found.contains("would look for 'words.txt' there"), "{found}");
    // What is absolute, no path, or has the same text as one.
    for (default, main) in [
        ("files = [\"/words.txt\"]", MAIN.to_owned()),
        (
            "environment = { RATIO = \"0.5\", WORDS = \"words.txt\" }",
            format!("{MAIN}files = [\"words.txt\", \".\"]\n"),
        ),
        // The same folder by another name.
        ("files = [\"words.txt\"]", MAIN.replace("shared/base", "shared/../base")),
    ] {
        let base = format!("{RAW}[defaults.command]\n{default}\n");
        let folder =
            folder(&[("main.toml", &main), ("shared/base.toml", &base), ("base.toml", &base)]);
        right(folder.path());
    }
}

#[test]
fn the_key_of_a_stage_does_not_know_its_file() {
    let together = BASE.to_owned() + &MAIN.replace("include = [\"shared/base.toml\"]\n", "");
    let keys = |files: &[(&str, &str)]| {
        let folder = folder(files);
        let (manifest, _) = right(folder.path());
        let key = |stage| StageKey::of(&key::parts(stage, &[], |_| InputResult::Unknown));
        let mut keys: Vec<_> =
            manifest.stages.iter().map(|stage| (stage.name.clone(), key(stage))).collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&[("main.toml", MAIN), ("shared/base.toml", BASE)]),
        keys(&[("main.toml", &together)])
    );
}

#[test]
fn a_file_that_is_included_twice_counts_once() {
    let main = MAIN.replace(
        "[\"shared/base.toml\"]",
        "[\"a.toml\", \"b.toml\", \"shared/../shared/base.toml\"]",
    );
    let folder = folder(&[
        ("main.toml", &main),
        ("a.toml", "include = [\"shared/base.toml\"]"),
        ("b.toml", "include = [\"shared/base.toml\"]\n[defaults.command]\ntimeout = 1"),
        ("shared/base.toml", BASE),
    ]);
    let mistakes = read(&folder.path().join("main.toml"), &[]).expect_err("one in b.toml");
    let text = mistakes.render(Colour::Never);
    assert!(text.contains("unknown key 'timeout'") && text.contains("b.toml:3:1"), "{text}");
    assert!(text.contains("1 mistake in"), "{text}");
}

#[test]
fn a_matrix_reaches_into_included_files() {
    let main = "include = [\"b.toml\"]\n[experiment]\nname = \"x\"\n[matrix]\nrate = [1, 2]\n";
    let b = "[stages.a]\nkind = \"command\"\nrun = [\"echo\", \"${rate}\"]\n";
    let folder = folder(&[("main.toml", main), ("b.toml", b)]);
    assert_eq!(right(folder.path()).1.order().count(), 2);
}

#[test]
fn nul_in_the_name_of_an_include() {
    assert_snapshot!(shown(&[("main.toml", &MAIN.replace("shared/base.toml", "a\\u0000.toml"))]), @r#"
    error: 'include' has a NUL character
     --> main.toml:1:12
      |
    1 | include = ["a\u0000.toml"]
      |            ^^^^^^^^^^^^^^
      |
      = help: no program, path or URL can have one: remove it, or read the value from a file

    error: 1 mistake in main.toml; nothing was run
    "#);
}

#[test]
fn what_is_wrong_with_an_include() {
    assert_snapshot!(shown(&[("main.toml", &MAIN.replace("shared/base.toml", "bas.toml"))]), @r#"
    error: cannot read bas.toml: No such file or directory (os error 2)
     --> main.toml:1:12
      |
    1 | include = ["bas.toml"]
      |            ^^^^^^^^^^
      |
      = help: the path is relative to the file that includes it

    error: 1 mistake in main.toml; nothing was run
    "#);
    assert_snapshot!(shown(&[("main.toml", &MAIN.replace("[\"shared/base.toml\"]", "\"b.toml\""))]), @r#"
    error: 'include' is a list of files
     --> main.toml:1:11
      |
    1 | include = "b.toml"
      |           ^^^^^^^^
      |
      = help: write include = ["base.toml"], before the first table

    error: 1 mistake in main.toml; nothing was run
    "#);
    assert_snapshot!(shown(&[
        ("main.toml", &MAIN.replace("shared/base.toml", "a.toml")),
        ("a.toml", "include = [\"b.toml\"]"),
        ("b.toml", "\ninclude = [\"./a.toml\"]"),
    ]), @r#"
    error: files include each other: a.toml -> b.toml -> ./a.toml
     --> b.toml:2:12
      |
    2 | include = ["./a.toml"]
      |            ^^^^^^^^^^
      |
      = help: drop one of these

    error: 1 mistake in main.toml; nothing was run
    "#);
    let twice = BASE.replace("[stages.raw]", "[stages.words]") + "[experiment]\nname = \"y\"\n";
    assert_snapshot!(shown(&[("main.toml", MAIN), ("shared/base.toml", &twice)]), @r#"
    error: 'words' is defined twice
     --> main.toml:6:9
      |
    6 | [stages.words]
      |         ^^^^^
      |
     ::: shared/base.toml:4:9
      |
    4 | [stages.words]
      |         ----- here too
      |
      = help: remove one of them, or rename it

    error: there is no stage 'raw'
     --> main.toml:9:18
      |
    9 | inputs = { raw = "raw" }
      |                  ^^^^^
      |
      = help: no stage here fits (kinds that would: download, unpack, dataset, split, replace-images, corrupt-labels, import-weights, command, summarize, pretrain-simclr, pretrain-supervised, features, purify-labels, train, evaluate, probe)

    error: an included file cannot have the table 'experiment'
     --> shared/base.toml:8:2
      |
    8 | [experiment]
      |  ^^^^^^^^^^
      |
      = help: it has [stages.NAME], [defaults.KIND] and include = [...]

    error: 3 mistakes in main.toml; nothing was run
    "#);
    let broken = BASE.replace("kind = \"command\"", "kind = command")
        + "\n[stages.more]\nkind = \"spilt\"\n";
    assert_snapshot!(shown(&[("main.toml", MAIN), ("shared/base.toml", &broken)]), @r#"
    error: text must be in quotes
     --> shared/base.toml:5:8
      |
    5 | kind = command
      |        ^^^^^^^
      |
      = help: write "command"

    error: unknown kind 'spilt', did you mean 'split'?
      --> shared/base.toml:10:8
       |
    10 | kind = "spilt"
       |        ^^^^^^^
       |
       = help: `pipeline kinds` describes them all

    error: 2 mistakes in main.toml; nothing was run
    "#);
    let wrong = BASE.replace("files =", "filse =");
    assert_snapshot!(shown(&[("main.toml", MAIN), ("shared/base.toml", &wrong)]), @r#"
    error: unknown key 'filse', did you mean 'files'?
     --> shared/base.toml:7:1
      |
    7 | filse = ["words.txt"]
      | ^^^^^
      |
      = help: files: The files and folders of yours that it reads (its script, its configuration), relative to the manifest.

    error: 1 mistake in main.toml; nothing was run
    "#);
}

#[test]
fn a_relative_path_in_a_named_point_is_not_for_a_stage_in_another_folder() {
    let main = format!("{MAIN}[matrix.m]\na = {{ files = [\"w.txt\"] }}\n");
    let base = BASE.replace("files = [\"words.txt\"]", "with = [\"m\"]");
    assert_snapshot!(shown(&[("main.toml", &main), ("shared/base.toml", &base)]), @r#"
    error: the stage 'raw' is in another folder than this value, and would look for 'w.txt' there
      --> main.toml:11:15
       |
    11 | a = { files = ["w.txt"] }
       |               ^^^^^^^^^
       |
       = help: write an absolute path, or move the value to the stage: there, a path is relative to its file
       = help: at m=a

    error: 1 mistake in main.toml; nothing was run
    "#);
}

#[test]
fn values_of_a_matrix_without_one() {
    let text = r#"
[experiment]
name = "x"
[stages.data]
kind = "dataset"
format = "idx"
path = "x"
[stages.noisy]
kind = "corrupt-labels"
data = "data"
rate = "${rate}"
[stages.train]
kind = "train"
data = "data"
architecture = "resnet8"
init = "${init.weights}"
with = ["method"]
"#;
    let mistakes = parse(Path::new("x.toml"), text, &[]).expect_err("mistakes");
    assert_snapshot!(mistakes.render(Colour::Never), @r#"
    error: 'rate' must be a number, but is text
      --> x.toml:11:8
       |
    11 | rate = "${rate}"
       |        ^^^^^^^^^
       |
       = help: values of a matrix are put in where the manifest has [matrix], into stages, [defaults.KIND] and the seed of the experiment; a file that it includes is not run by itself
       = help: rate: The noise rate. It must be given.

    error: there is no stage '${init.weights}'
      --> x.toml:16:8
       |
    16 | init = "${init.weights}"
       |        ^^^^^^^^^^^^^^^^^
       |
       = help: values of a matrix are put in where the manifest has [matrix], into stages, [defaults.KIND] and the seed of the experiment; a file that it includes is not run by itself

    error: unknown key 'with'
      --> x.toml:17:1
       |
    17 | with = ["method"]
       | ^^^^
       |
       = help: values of a matrix are put in where the manifest has [matrix], into stages, [defaults.KIND] and the seed of the experiment; a file that it includes is not run by itself

    error: 3 mistakes in x.toml; nothing was run
    "#);
}

#[test]
fn a_long_chain_of_files_is_a_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in 0..3000 {
        let text = format!("include = [\"{}.toml\"]\n", file + 1);
        fs::write(folder.path().join(format!("{file}.toml")), text).expect("writable");
    }
    fs::write(
        folder.path().join("main.toml"),
        "include = [\"0.toml\", \"/dev/zero\"]\n[experiment]\nname = \"x\"\n",
    )
    .expect("writable");
    let mistakes = read(&folder.path().join("main.toml"), &[]).expect_err("mistakes");
    let shown = mistakes.render(Colour::Never);
    assert!(shown.contains("files include each other more than 64 deep"), "{shown}");
    assert!(shown.contains("cannot read /dev/zero: it is not a regular file"), "{shown}");
}
