//! What the rules of kinds, the matrix and addresses ask of texts: as the reader asks it.

use std::path::Path;

use super::super::super::parse;
use super::super::super::tests::HEAD;
use super::refused;

/// Whether the reader takes a manifest, and whether the schema does. What the reader takes, the schema must take.
fn taken(text: &str) -> (bool, bool) {
    let read = parse(Path::new("x.toml"), text, &[]);
    let refused = refused(text);
    let reads = read.is_ok();
    assert!(!reads || refused.is_none(), "{text}: {refused:?}");
    (reads, refused.is_none())
}

/// Holds that the reader and the schema both take a manifest, or both do not.
fn assert_both(text: &str, is_right: bool) {
    assert_eq!(taken(text), (is_right, is_right), "{text}");
}

#[test]
fn one_of_two_is_set() {
    const SUM: &str = "md5 = '0123456789abcdefABCDEF0123456789'";
    const OTHER: &str =
        "sha256 = '0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF'";
    const FILE: &str = "kind = 'download'\nurl = 'file:x'\n";
    let file = |lines: &[&str]| format!("{FILE}{}", lines.join("\n"));
    for (stage, is_right) in [
        ("kind = 'command'\nrun = ['x']".to_owned(), true),
        ("kind = 'command'\nshell = 'x ${HOME}'".to_owned(), true),
        ("kind = 'command'".to_owned(), false),
        ("kind = 'command'\nrun = ['x']\nshell = 'x'".to_owned(), false),
        ("kind = 'command'\nrun = []".to_owned(), false),
        (file(&[SUM]), true),
        (file(&[SUM, OTHER]), true),
        (file(&["unverified = true"]), true),
        (file(&[SUM, "unverified = false"]), true),
        (file(&[]), false),
        (file(&["unverified = false"]), false),
        (file(&[SUM, "unverified = true"]), false),
        (file(&[OTHER, "unverified = true"]), false),
        ("kind = 'dataset'\nformat = 'idx'".to_owned(), false),
        ("kind = 'dataset'\nformat = 'idx'\npath = 'x'\nsource = []".to_owned(), true),
        ("kind = 'dataset'\nformat = 'idx'\npath = 'x'\nsource = 'b'".to_owned(), false),
        ("kind = 'dataset'\nformat = 'idx'\npath = 'x'\nsource = ['b']".to_owned(), false),
        ("kind = 'dataset'\nformat = 'idx'\nsource = ['b']".to_owned(), true),
        ("kind = 'probe'\ndata = 'data'".to_owned(), false),
    ] {
        let other = "[stages.b]\nkind = 'command'\nrun = ['x']\n";
        assert_both(&format!("{HEAD}[stages.a]\n{stage}\n{other}"), is_right);
    }
}

#[test]
fn what_may_come_from_elsewhere_is_not_missed() {
    for (rest, is_right) in [
        ("[defaults.command]\nrun = ['x']\n[stages.a]\nkind = 'command'\n", true),
        ("[matrix.m]\np = { run = ['x'] }\n[stages.a]\nkind = 'command'\nwith = ['m']\n", true),
        // At each point one of them is left out.
        (
            "[matrix.m]\np = { md5 = '0123456789abcdef0123456789abcdef' }\nq = { any = true }\n[stages.a]\nkind = 'download'\nurl = 'file:x'\nmd5 = '${m.md5}'\nunverified = '${m.any}'\n",
            true,
        ),
        (
            "[matrix.m]\np = { from = 'b' }\nq = { path = 'x' }\n[stages.a]\nkind = 'dataset'\nformat = 'idx'\nsource = ['${m.from}']\npath = '${m.path}'\n[stages.b]\nkind = 'command'\nrun = ['x']\n",
            true,
        ),
        (
            "[defaults.command]\nrun = ['x']\n[stages.a]\nkind = 'command'\nshell = 'x'\nrun = ['y']\n",
            false,
        ),
    ] {
        assert_both(&format!("{HEAD}{rest}"), is_right);
    }
}

#[test]
fn texts_of_parameters_have_their_forms() {
    let digits = "0123456789abcdefABCDEF0123456789";
    let long = digits.repeat(2);
    let sum = format!("{long}0");
    let seen = [
        (
            "blake3",
            "kind = 'download'\nurl = 'file:x'\n",
            vec![(&*long, true), (digits, false), (&*sum, false), ("", false)],
        ),
        ("sha256", "kind = 'download'\nurl = 'file:x'\n", vec![(&*long, true), ("x", false)]),
        (
            "md5",
            "kind = 'download'\nurl = 'file:x'\n",
            vec![(digits, true), (&*long, false), ("0123456789abcdefABCDEF012345678g", false)],
        ),
        (
            "name",
            "kind = 'download'\nunverified = true\nurl = 'file:x'\n",
            vec![("a b.zip", true), (".a", true), ("", false), ("a/b", false), ("a\\b", false)],
        ),
        (
            "[outputs]",
            "kind = 'command'\nrun = ['x']\n",
            vec![
                ("a", true),
                ("./a", true),
                ("a//b/", true),
                ("a/./b", true),
                ("..a", true),
                ("a..", true),
                ("a/...", true),
                ("~", true),
                ("", false),
                ("/a", false),
                ("..", false),
                ("../a", false),
                ("a/../b", false),
                ("a/..", false),
            ],
        ),
        (
            "[ignore]",
            "kind = 'command'\nrun = ['x']\n",
            vec![
                ("*.log", true),
                ("runs/*", true),
                ("..a/b", true),
                ("***", true),
                ("", false),
                (".", false),
                ("a/../b", false),
                ("/a", false),
                ("a/", false),
                ("a//b", false),
                ("**/a", false),
            ],
        ),
        (
            "[pass-environment]",
            "kind = 'command'\nrun = ['x']\n",
            vec![
                ("HOME", true),
                ("a b", true),
                ("pipeline_x", true),
                ("", false),
                ("A=B", false),
                ("PIPELINE_X", false),
            ],
        ),
        (
            "{environment}",
            "kind = 'command'\nrun = ['x']\n",
            vec![
                ("HOME", true),
                ("", false),
                ("A=B", false),
                ("PIPELINE_", false),
                ("A_PIPELINE_", true),
            ],
        ),
        (
            "[sandbox-read]",
            "kind = 'command'\nrun = ['x']\n",
            vec![
                ("/a", true),
                ("~", true),
                ("~/a", true),
                ("a~", true),
                ("./~a", true),
                ("", false),
                ("~ann/a", false),
            ],
        ),
        ("[sandbox-write]", "kind = 'command'\nrun = ['x']\n", vec![("a", true), ("~ann", false)]),
        (
            "file",
            "kind = 'import-weights'\narchitecture = 'resnet18'\nnormalise = 'imagenet'\nsource = 'b'\n",
            vec![
                ("a/*.pt", true),
                ("..a", true),
                ("", false),
                (".", false),
                ("a/../b", false),
                ("/a", false),
            ],
        ),
        (
            "[include]",
            "kind = 'unpack'\narchive = 'b'\n",
            vec![
                ("a/**", true),
                ("..a", true),
                ("a/", true),
                ("", false),
                ("/a", false),
                ("\\a", false),
                ("a/.", false),
                ("../a", false),
            ],
        ),
    ];
    for (key, stage, texts) in seen {
        for (text, is_right) in texts {
            let name = key.trim_matches(['[', ']', '{', '}']);
            let line = match &key[..1] {
                "[" => format!("{name} = ['{text}']"),
                "{" => format!("{name} = {{ '{text}' = 'x' }}"),
                _ => format!("{name} = '{text}'"),
            };
            let other = "[stages.b]\nkind = 'command'\nrun = ['x']\noutput = 'file'\n";
            assert_both(&format!("{HEAD}[stages.a]\n{stage}{line}\n{other}"), is_right);
        }
    }
}

#[test]
fn axes_points_and_excludes_have_their_shapes() {
    let many = "a".repeat(100);
    for (matrix, is_right) in [
        ("a = [1, 2.5, true, 'x_.+-Y', -0.1, 1e-5]".to_owned(), true),
        ("a = ['']".to_owned(), false),
        ("a = ['x y']".to_owned(), false),
        ("a = ['x/y']".to_owned(), false),
        ("a = [1, 1]".to_owned(), false),
        ("a = [1, 1.0]".to_owned(), false),
        ("a = ['x', 'x']".to_owned(), false),
        ("a = [1, true]".to_owned(), true),
        ("a = []".to_owned(), false),
        ("a = {}".to_owned(), false),
        ("a = 1".to_owned(), false),
        ("a = { p = 1 }".to_owned(), false),
        ("a = { p = {} }".to_owned(), true),
        ("a = { '0.5' = {}, 'x+y' = {} }".to_owned(), true),
        ("a = { 'x y' = {} }".to_owned(), false),
        ("a = { '' = {} }".to_owned(), false),
        // The point `0.5` without its quotes.
        ("a = { 0.5 = {} }".to_owned(), false),
        ("a = { 0 = {} }".to_owned(), true),
        ("a = [1, 2]\nexclude = [{ a = 1 }]".to_owned(), true),
        ("a = [1, 2]\nexclude = []".to_owned(), true),
        ("a = [1, 2, 3]\nexclude = [{ a = [1, 2] }]".to_owned(), true),
        ("a = [1, 2]\nexclude = { a = 1 }".to_owned(), false),
        ("a = [1, 2]\nexclude = [{}]".to_owned(), false),
        ("a = [1, 2]\nexclude = [{ a = [] }]".to_owned(), false),
        ("a = [1, 2]\nexclude = [{ a = { x = 1 } }]".to_owned(), false),
        ("exclude = []".to_owned(), false),
        ("".to_owned(), false),
        (format!("{many} = [1]"), true),
        (format!("{many}a = [1]"), false),
    ] {
        assert_both(&format!("{HEAD}[matrix]\n{matrix}\n"), is_right);
    }
}

#[test]
fn in_fields_of_points_nothing_is_replaced() {
    for (field, is_right) in [
        ("files = ['x']", true),
        ("environment = { y = 'z' }", true),
        ("shell = 'echo ${HOME}'", true),
        ("output = '${b}'", false),
        ("files = ['${b}']", false),
        ("environment = { y = '$${b}' }", false),
        ("environment = { '${b}' = 'x' }", false),
        ("environment = { shell = '${b}' }", false),
    ] {
        let run = if field.starts_with("shell") { "" } else { "run = ['x']\n" };
        let stage = format!("[stages.b]\nkind = 'command'\nwith = ['a']\n{run}");
        assert_both(&format!("{HEAD}[matrix]\na = {{ p = {{ {field} }} }}\n{stage}"), is_right);
    }
}

#[test]
fn names_and_executors_have_their_forms() {
    let stages = &HEAD[HEAD.find("[stages").expect("stages")..];
    let (many, more) = ("é".repeat(50), "a".repeat(101));
    for (name, is_right) in [
        ("Noise at 80 %", true),
        ("größe-v1.2", true),
        ("a", true),
        (&*many, true),
        (&*more, false),
        ("", false),
        ("a/b", false),
        ("a:b", false),
        ("a?", false),
        (".a", false),
        ("-a", false),
        ("a.", false),
        (" a", false),
        ("a ", false),
        ("..", false),
    ] {
        assert_both(&format!("[experiment]\nname = '{name}'\n{stages}"), is_right);
    }
    let whole = "submit = 'bsub < {script}'\nstate = 'bjobs'\ncancel = 'bkill {ids}'";
    for (lines, is_right) in [
        (whole.to_owned(), true),
        (format!("{whole}\npath = '/x'"), true),
        (format!("{whole}\npath = 'x'"), false),
        (whole.replace("state = 'bjobs'\n", ""), false),
        (whole.replace("{script}", "job.sh"), false),
        (whole.replace("{ids}", "1"), false),
        (whole.replace("bjobs", ""), true),
    ] {
        assert_both(&format!("{HEAD}[executors.x]\nkind = 'command'\n{lines}\n"), is_right);
    }
    assert_both(&format!("{HEAD}[executors.x]\nkind = 'slurm'\npartition = ''\ntime = ''\n"), true);
}

/// Addresses with what the reader and what the schema says of them as the URL of a download, as a remote and as a server.
#[test]
fn addresses_begin_as_the_reader_takes_them() {
    let lines = [
        |url: &str| {
            format!("[stages.a]\nkind = 'download'\nunverified = true\nname = 'x'\nurl = '{url}'\n")
        },
        |url: &str| {
            format!(
                "[stages.a]\nkind = 'download'\nunverified = true\nname = 'x'\nurl = ['file:x', '{url}']\n"
            )
        },
        |url: &str| format!("[cache]\nremote = '{url}'\n"),
        |url: &str| format!("[tracking]\nmlflow = '{url}'\n"),
    ];
    const YES: (bool, bool) = (true, true);
    const NO: (bool, bool) = (false, false);
    // Only the reader sees these.
    const READER: (bool, bool) = (false, true);
    for (url, of_download, of_remote, of_server) in [
        ("https://example.org/a", YES, YES, YES),
        ("https://example.org", YES, YES, YES),
        ("HTTPS://example.org:443/", YES, NO, YES),
        ("http://localhost:5000", YES, YES, YES),
        ("http://[::1]:5000/a", YES, YES, YES),
        ("http://127.0.0.1:+80/", YES, YES, YES),
        ("https://h/a?b=c", YES, READER, NO),
        ("https://h/a#b", YES, READER, NO),
        ("http://h/a?unencrypted=allowed", YES, YES, NO),
        ("https://h?unencrypted=allowed", YES, YES, NO),
        ("https://h/ü", YES, YES, YES),
        ("https://h/a b", NO, YES, NO),
        ("https://ann:secret@h/a", NO, NO, NO),
        ("https://ann@h/a", NO, NO, NO),
        ("https://h/a@b", YES, YES, YES),
        ("https:///a", NO, NO, NO),
        ("https:h/a", NO, NO, NO),
        ("https:x://h/a", NO, NO, NO),
        ("https://h:99999/", READER, READER, READER),
        ("https://mün/", READER, READER, READER),
        ("ftp://h/a", NO, NO, NO),
        ("h/a", NO, NO, NO),
        ("", NO, NO, NO),
        ("${x", READER, NO, NO),
        ("file:a", YES, READER, NO),
        ("file:a b", YES, READER, NO),
        ("FILE:a", YES, NO, NO),
        ("file:/a", YES, YES, NO),
        ("file:%2Fa", YES, YES, NO),
        ("file:///a", YES, YES, NO),
        ("file://localhost/a", YES, YES, NO),
        ("file:///a/../b", YES, READER, NO),
        ("file://h/a", READER, READER, NO),
        ("file:", NO, NO, NO),
        ("s3://bucket", NO, YES, NO),
        ("s3://bucket/a/b=1?region=x", NO, YES, NO),
        ("s3://bucket?endpoint=http://h:9000", NO, YES, NO),
        ("s3://bu cket/a", NO, NO, NO),
        ("s3:bucket", NO, NO, NO),
        ("s3://bucket/a//b", NO, READER, NO),
        ("ssh://h/a", NO, YES, NO),
        ("ssh://ann@h:22/a", NO, YES, NO),
        ("ssh://h//", NO, YES, NO),
        ("ssh://h/", NO, NO, NO),
        ("ssh://h", NO, NO, NO),
        ("ssh://h/a/..", NO, READER, NO),
        ("/mnt/share", NO, NO, NO),
    ] {
        let expected = [of_download, of_download, of_remote, of_server];
        for (lines, expected) in lines.into_iter().zip(expected) {
            let text = format!("{HEAD}{}", lines(url));
            assert_eq!(taken(&text), expected, "{text}");
        }
    }
}
