//! Tests of `unpack`: archives of every format, and malicious ones that try to write outside the folder.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use pipeline_stages::message::{Event, Metrics};
use pipeline_stages::worker::{Context, Stopped, with_disk_advice};
use pipeline_stages::{ArtifactType, PrepareStage};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::archive_builder::{self, TarEntry, ZipEntry, tar, xz, zip, zstandard};
use super::destination::{Destination, Permission};
use crate::fixture::{Fixture, notes, paths_below, stage};
use crate::samples::gzip;

fn archive(name: &str, bytes: &[u8]) -> Fixture {
    Fixture::new().with_input("archive", None, ArtifactType::File, &[(name, bytes)])
}

fn unpack(bytes: &[u8], parameters: Value) -> (Fixture, Result<Metrics, String>) {
    let fixture = archive("a.archive", bytes);
    let result = fixture.run("unpack", &parameters);
    (fixture, result)
}

fn error_of(bytes: &[u8], parameters: Value) -> String {
    unpack(bytes, parameters).1.expect_err("it is refused")
}

/// Two files, one of them a program, and a folder.
fn small_tar() -> Vec<u8> {
    tar(&[
        TarEntry::folder("data/"),
        TarEntry::file("data/a.txt", b"hello"),
        TarEntry { mode: 0o4755, ..TarEntry::file("./data/deep/run", b"#!") },
    ])
}

fn small_zip() -> Vec<u8> {
    zip(&[
        ZipEntry { mode: 0o040_755, ..ZipEntry::file("data/", b"") },
        ZipEntry::file("data/a.txt", b"hello"),
        ZipEntry { mode: 0o104_755, ..ZipEntry::file("data/deep/run", b"#!") },
    ])
}

#[test]
fn every_format_is_detected_by_its_first_bytes() {
    let formats = [
        ("zip", small_zip()),
        ("tar", small_tar()),
        ("tar-gz", gzip(&small_tar())),
        ("tar-xz", xz(&small_tar())),
        ("tar-zst", zstandard(&small_tar())),
    ];
    for (format, bytes) in formats {
        for given in ["auto", format] {
            let (fixture, result) = unpack(&bytes, json!({"format": given}));
            let expected = Metrics::from([("bytes".to_owned(), 7.0), ("files".to_owned(), 2.0)]);
            assert_eq!(result, Ok(expected), "{format} as {given}");
            assert_eq!(
                fixture.output_paths(),
                ["data/", "data/a.txt", "data/deep/", "data/deep/run"]
            );
            let text = std::fs::read(fixture.output().join("data/a.txt"));
            assert_eq!(text.ok().as_deref(), Some(&b"hello"[..]));
            let mode = |path: &str| {
                fixture.output().join(path).metadata().expect("it exists").permissions().mode()
                    & 0o7777
            };
            assert_eq!(mode("data/a.txt") & 0o111, 0);
            assert_ne!(mode("data/deep/run") & 0o100, 0);
            assert_eq!(mode("data/deep/run") & 0o7000, 0, "no set-user-id");
        }
    }
}

#[test]
fn concatenated_compressed_parts_are_unpacked_as_one() {
    let bytes = small_tar();
    let (first, second) = bytes.split_at(700);
    for compress in [gzip, xz, zstandard] {
        let (_fixture, result) = unpack(&[compress(first), compress(second)].concat(), json!({}));
        assert_eq!(result.map(|metrics| metrics["files"]), Ok(2.0));
    }
}

#[test]
fn a_single_gzip_file_loses_its_extension() {
    for (name, expected) in [
        ("train.idx.gz", "train.idx"),
        ("A.GZ", "A"),
        ("a.tgz", "a.tar"),
        ("a.bin", "a.bin"),
        (".gz", ".gz"),
    ] {
        let fixture = archive(name, &gzip(b"numbers"));
        let result = fixture.run("unpack", &json!({}));
        assert_eq!(result.map(|metrics| metrics["bytes"]), Ok(7.0));
        assert_eq!(fixture.output_paths(), [expected]);
    }
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let outside = ["../escaped", "/tmp/escaped", "data/../../escaped", "data/..", "./../escaped"];
    for name in outside {
        let bad_tar = tar(&[TarEntry::file("good", b"1"), TarEntry::file(name, b"2")]);
        let bad_zip = zip(&[ZipEntry::file("good", b"1"), ZipEntry::file(name, b"2")]);
        for bytes in [&bad_tar, &bad_zip, &gzip(&bad_tar)] {
            let (fixture, result) = unpack(bytes, json!({}));
            let error = result.expect_err("it is refused");
            assert!(
                error.contains("cannot unpack 'a.archive'")
                    && error.contains(&format!("refused '{name}'")),
                "{error}"
            );
            assert!(error.contains("after 1 file and 1 byte)"), "{error}");
            assert_eq!(fixture.output_paths(), ["good"]);
            assert!(!fixture.root().join("escaped").exists());
        }
    }
    for name in ["..\\escaped", "C:\\escaped", "c:/escaped", "\\escaped", "a\\..\\..\\escaped"] {
        let error = error_of(&zip(&[ZipEntry::file(name, b"2")]), json!({}));
        assert!(error.contains("would leave") || error.contains("could leave"), "{name}: {error}");
    }
    let error = error_of(&tar(&[TarEntry::file("top/../../x", b"1")]), json!({"strip": 2}));
    assert!(error.contains("refused"), "strip does not hide it: {error}");
}

#[test]
fn backslashes_in_a_zip_separate_folders() {
    let (fixture, result) = unpack(&zip(&[ZipEntry::file("data\\a.txt", b"1")]), json!({}));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(fixture.output_paths(), ["data/", "data/a.txt"]);
}

#[test]
fn links_that_leave_the_folder_are_refused() {
    let refused: [&[TarEntry]; 7] = [
        &[TarEntry::symbolic_link("link", "/etc/passwd")],
        &[TarEntry::symbolic_link("link", "../escaped")],
        &[TarEntry::symbolic_link("data/link", "../../escaped")],
        // Through another link: by their paths alone, both stay inside.
        &[
            TarEntry::symbolic_link("a/b/here", "../.."),
            TarEntry::symbolic_link("a/out", "b/here/../x"),
        ],
        &[TarEntry::symbolic_link("one", "two"), TarEntry::symbolic_link("two", "one")],
        &[TarEntry::symbolic_link("self", "self/a")],
        &[TarEntry::symbolic_link("a", "..")],
    ];
    for entries in refused {
        let mut with_file = vec![TarEntry::file("good", b"1").bytes()];
        with_file.extend(entries.iter().map(TarEntry::bytes));
        with_file.push(vec![0; 1024]);
        let (fixture, result) = unpack(&with_file.concat(), json!({}));
        let error = result.expect_err("it is refused");
        assert!(error.contains("refused the link"), "{error}");
        assert_eq!(
            fixture.output_paths().last().map(String::as_str),
            Some("good"),
            "no link was made"
        );
    }
    let error = error_of(&zip(&[ZipEntry::symbolic_link("link", "../escaped")]), json!({}));
    assert!(error.contains("refused the link 'link' to '../escaped'"), "{error}");
    let long = "a/".repeat(3000);
    let error = error_of(&zip(&[ZipEntry::symbolic_link("link", &long)]), json!({}));
    assert!(error.contains("more than 4096 bytes"), "{error}");
    for target in ["/etc/passwd", "../escaped"] {
        let error = error_of(&tar(&[TarEntry::hard_link("link", target)]), json!({}));
        assert!(error.contains("hard link 'link' leads out"), "{error}");
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let target = outside.path().to_str().expect("UTF-8");
    for entries in [
        tar(&[TarEntry::symbolic_link("door", target), TarEntry::file("door/escaped", b"1")]),
        tar(&[TarEntry::symbolic_link("door", "."), TarEntry::file("door/escaped", b"1")]),
        tar(&[TarEntry::symbolic_link("door", "escaped"), TarEntry::file("door", b"1")]),
        zip(&[ZipEntry::symbolic_link("door", "inside"), ZipEntry::file("door/escaped", b"1")]),
    ] {
        let (fixture, result) = unpack(&entries, json!({}));
        result.expect_err("it is refused");
        assert!(!fixture.output().join("escaped").exists());
        assert!(paths_below(outside.path()).is_empty());
    }
}

#[test]
fn links_within_the_folder_are_kept() {
    let bytes = tar(&[
        TarEntry::file("data/a.txt", b"hello"),
        TarEntry::symbolic_link("data/link", "a.txt"),
        TarEntry::symbolic_link("current", "data"),
        TarEntry::symbolic_link("through", "current/link"),
        TarEntry::hard_link("b.txt", "data/a.txt"),
    ]);
    let (fixture, result) = unpack(&bytes, json!({}));
    let expected = Metrics::from([("bytes".to_owned(), 5.0), ("files".to_owned(), 5.0)]);
    assert_eq!(result, Ok(expected));
    for path in ["data/link", "current/a.txt", "through", "b.txt"] {
        assert_eq!(
            std::fs::read(fixture.output().join(path)).ok().as_deref(),
            Some(&b"hello"[..]),
            "{path}"
        );
    }
    assert!(fixture.output().join("through").is_symlink());
    assert_eq!(
        fixture.output().join("b.txt").metadata().map(|metadata| metadata.nlink()).ok(),
        Some(2)
    );

    // Also one that is broken because no file can have such a name.
    let long = "x".repeat(256);
    let entries = [ZipEntry::file("a", b"1"), ZipEntry::symbolic_link("nowhere", &long)];
    let (fixture, result) = unpack(&zip(&entries), json!({}));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(fixture.output_paths(), ["a", "nowhere"]);

    let stripped = tar(&[TarEntry::file("top/a", b"1"), TarEntry::hard_link("top/b", "top/a")]);
    let (fixture, result) = unpack(&stripped, json!({"strip": 1}));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(fixture.output_paths(), ["a", "b"]);
    let error = error_of(&stripped, json!({"include": ["top/b"]}));
    assert!(error.contains("hard link to 'top/a'") && error.contains("include"), "{error}");
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [b'3', b'4', b'6'] {
        let error = error_of(&tar(&[TarEntry { kind, ..TarEntry::file("dev", b"") }]), json!({}));
        assert!(error.contains("refused 'dev': it is a device file or a pipe"), "{error}");
    }
    for mode in [0o020_666, 0o060_666, 0o010_666, 0o140_666] {
        let error = error_of(&zip(&[ZipEntry { mode, ..ZipEntry::file("dev", b"") }]), json!({}));
        assert!(error.contains("refused 'dev'"), "{error}");
    }
}

#[test]
fn names_must_be_text() {
    let bad_tar = tar(&[TarEntry { name: b"caf\xe9", ..TarEntry::file("", b"1") }]);
    let bad_zip = zip(&[ZipEntry { name: b"caf\xe9", ..ZipEntry::file("", b"1") }]);
    for bytes in [bad_tar, bad_zip] {
        let error = error_of(&bytes, json!({}));
        assert!(error.contains("is not UTF-8"), "{error}");
    }
}

#[test]
fn a_path_that_occurs_twice_is_refused() {
    for bytes in [
        tar(&[TarEntry::file("a", b"1"), TarEntry::file("./a", b"2")]),
        zip(&[ZipEntry::file("a", b"1"), ZipEntry::file("a", b"2")]),
        tar(&[TarEntry::file("a", b"1"), TarEntry::file("a", b"12")]),
        tar(&[TarEntry::file("a", b"12"), TarEntry::file("a", b"1")]),
        zip(&[ZipEntry::file("a", b"1"), ZipEntry::file("./a", b"2")]),
        tar(&[TarEntry::file("a", b"1"), TarEntry::symbolic_link("a", "b")]),
        tar(&[TarEntry::file("a", b"1"), TarEntry::hard_link("a", "a")]),
    ] {
        let error = error_of(&bytes, json!({}));
        assert!(error.contains("occurs twice in the archive"), "{error}");
    }
    let error = error_of(
        &tar(&[TarEntry::file("x/a", b"1"), TarEntry::file("y/a", b"2")]),
        json!({"strip": 1}),
    );
    assert!(error.contains("'a' occurs twice in the archive (after 'strip')"), "{error}");
    let error =
        error_of(&tar(&[TarEntry::file("a", b"1"), TarEntry::file("a/b", b"2")]), json!({}));
    assert!(error.contains("'a' is a folder and a file at once"), "{error}");
    for content in [&b"1"[..], b""] {
        let entries = [TarEntry::file("a/b", b"2"), TarEntry::file("a", content)];
        let error = error_of(&tar(&entries), json!({}));
        assert!(error.contains("'a' is a folder and a file at once"), "{error}");
    }
    let link = || TarEntry::symbolic_link("a", "c");
    for entries in [[link(), TarEntry::file("a/b", b"2")], [TarEntry::file("a/b", b"2"), link()]] {
        let error = error_of(&tar(&entries), json!({}));
        assert!(error.contains("'a' is a folder and a link at once"), "{error}");
    }
}

#[test]
fn an_archive_of_files_that_are_left_out_is_not_called_empty() {
    let archive = tar(&[TarEntry::file("__MACOSX/._a", b"1"), TarEntry::file(".DS_Store", b"2")]);
    let error = error_of(&archive, json!({}));
    assert!(
        error.contains("it does not contain a file but those of file managers (__MACOSX,"),
        "{error}"
    );
}

#[test]
fn files_that_occur_twice_in_a_zip_are_named() {
    let mut entries = vec![ZipEntry::file("unique", b"1")];
    for name in ["x/a.png", "x/b.png"] {
        entries.extend([ZipEntry::file(name, b"1"), ZipEntry::file(name, b"2")]);
    }
    let error = error_of(&zip(&entries), json!({}));
    assert!(error.contains("'x/a.png', 'x/b.png' occur twice in the archive, with"), "{error}");
}

#[test]
fn folders_and_the_same_bytes_can_occur_twice() {
    let zip_folder = || ZipEntry { mode: 0o040_755, ..ZipEntry::file("x/", b"") };
    for bytes in [
        zip(&[
            zip_folder(),
            zip_folder(),
            ZipEntry::file("x/a", b"1"),
            ZipEntry::file("x/a", b"1"),
        ]),
        zip(&[ZipEntry::file("x/a", b"1"), ZipEntry::file("./x/a", b"1")]),
        tar(&[
            TarEntry::folder("x/"),
            TarEntry::folder("x/"),
            TarEntry::file("x/a", b"1"),
            TarEntry::file("x/a", b"1"),
        ]),
    ] {
        let (fixture, result) = unpack(&bytes, json!({}));
        assert_eq!(result.expect("it unpacks")["files"], 1.0);
        assert_eq!(fixture.output_paths(), ["x/", "x/a"]);
        assert_eq!(std::fs::read(fixture.output().join("x/a")).unwrap(), b"1");
    }
}

#[test]
fn files_of_file_managers_are_left_out() {
    let names = ["a/._x.png", "__MACOSX/a/._x.png", "__MACOSX/._a", "a/.DS_Store", "a/Thumbs.db"];
    let zip_entries = names.map(|name| ZipEntry::file(name, b"junk"));
    let tar_entries = names.map(|name| TarEntry::file(name, b"junk"));
    let archives = [
        zip(&[&zip_entries[..], &[ZipEntry::file("a/x.png", b"1")]].concat()),
        tar(&[&tar_entries[..], &[TarEntry::folder("__MACOSX/"), TarEntry::file("a/x.png", b"1")]]
            .concat()),
    ];
    for bytes in &archives {
        for (strip, expected) in [(0, &["a/", "a/x.png"][..]), (1, &["x.png"])] {
            let fixture = archive("a.archive", bytes);
            let parameters = json!({"strip": strip});
            let context = fixture.context("unpack", &parameters);
            crate::run(&stage("unpack", &parameters), &context).expect("it unpacks");
            assert_eq!(fixture.output_paths(), expected);
            let notes = notes(&context);
            assert!(notes[0].starts_with("left out 5 files of file managers"), "{notes:?}");
        }
    }
    let error = error_of(&zip(&zip_entries), json!({}));
    assert!(error.contains("it does not contain a file"), "{error}");
}

#[test]
fn more_than_the_limits_is_refused() {
    let bomb = vec![0; 3_000_000];
    for bytes in
        [gzip(&tar(&[TarEntry::file("a", &bomb)])), gzip(&bomb), zip(&[ZipEntry::file("a", &bomb)])]
    {
        let (fixture, result) = unpack(&bytes, json!({"max-bytes": 1_000_000}));
        let error = result.expect_err("it is refused");
        assert!(
            error.contains("more than 1000000 bytes") && error.contains("raise max-bytes"),
            "{error}"
        );
        let written = |path: &String| {
            fixture.output().join(path).metadata().map_or(0, |metadata| metadata.len())
        };
        assert!(fixture.output_paths().iter().map(written).sum::<u64>() <= 1_000_000);
    }
    for bytes in [small_tar(), small_zip()] {
        assert_eq!(
            unpack(&bytes, json!({"max-files": 4})).1.map(|metrics| metrics["files"]),
            Ok(2.0)
        );
        let error = error_of(&bytes, json!({"max-files": 3}));
        assert!(error.contains("more than 3 files and folders"), "{error}");
    }
    // One entry, but many folders.
    let deep = format!("{}a", "d/".repeat(40));
    let error = error_of(&tar(&[TarEntry::file(&deep, b"1")]), json!({"max-files": 20}));
    assert!(error.contains("more than 20 files and folders"), "{error}");
    // Folders alone, each in the one before.
    let folders: Vec<String> = (1..30).map(|depth| "d/".repeat(depth)).collect();
    let folders: Vec<TarEntry> = folders.iter().map(|name| TarEntry::folder(name)).collect();
    let error = error_of(&tar(&folders), json!({"max-files": 20}));
    assert!(error.contains("more than 20 files and folders"), "{error}");
}

#[test]
fn the_memory_of_paths_is_limited() {
    let fixture = Fixture::new();
    let context = fixture.context("unpack", &json!({}));
    let mut destination = destination(&context, &json!({"max-files": 4_500}));
    let target = "a/".repeat(2_000);
    let mut links = (0..400).map(|number| {
        let name = format!("link{number}");
        destination.symbolic_link(name.as_bytes(), target.as_bytes())
    });
    let error = links.find_map(Result::err).expect("it is refused").to_string();
    assert!(error.contains("more than 1152000 bytes together"), "{error}");
    assert!(error.contains("raise max-files"), "{error}");
}

#[test]
fn a_request_to_stop_ends_the_making_of_links() {
    let fixture = Fixture::new();
    let context = fixture.context("unpack", &json!({}));
    let mut destination = destination(&context, &json!({}));
    destination.symbolic_link(b"link", b"nothing").expect("it fits");
    context.stop_flag().store(true, Ordering::Relaxed);
    let error = destination.finish().expect_err("it stops");
    assert!(error.is::<Stopped>(), "{error:#}");
}

#[test]
fn a_header_without_end_does_not_take_all_memory() {
    // A "long name" of 64 MiB, as GNU tar writes them.
    let name = vec![b'a'; 64 << 20];
    let bytes = tar(&[
        TarEntry { kind: b'L', ..TarEntry::file("././@LongLink", &name) },
        TarEntry::file("a", b"1"),
    ]);
    let error = error_of(&gzip(&bytes), json!({}));
    assert!(error.contains("a header of more than"), "{error}");
}

#[test]
fn overlapping_zip_entries_are_refused() {
    let bytes = zip(&[
        ZipEntry::file("a", &[0; 1000]),
        ZipEntry { same_as: Some(0), ..ZipEntry::file("b", &[0; 1000]) },
    ]);
    let error = error_of(&bytes, json!({}));
    assert!(error.contains("entries overlap"), "{error}");
}

#[test]
fn what_cannot_be_read_is_reported() {
    let encrypted = zip(&[ZipEntry { flags: 1, ..ZipEntry::file("secret", b"0123456789abcdef") }]);
    let bzip2 = zip(&[ZipEntry { method: 12, ..ZipEntry::file("a", b"1") }]);
    for (bytes, words) in [
        (encrypted, "'secret' is encrypted"),
        (bzip2, "'a' is compressed by a method (Bzip2)"),
        (Vec::new(), "the file is empty"),
        (b"7z\xbc\xaf\x27\x1c".to_vec(), "7z archive"),
        (b"BZh91AY".to_vec(), "bzip2"),
        (b"<!DOCTYPE html>".to_vec(), "web page"),
        (b"Once upon".to_vec(), "its first bytes (4f 6e 63 65 20 75 70 6f)"),
        (tar(&[]), "its first bytes"),
    ] {
        let error = error_of(&bytes, json!({}));
        assert!(error.contains(words), "{error}");
    }
    let sparse = tar(&[
        TarEntry { kind: b'x', ..TarEntry::file("pax", b"22 GNU.sparse.major=1\n") },
        TarEntry::file("a", b"1"),
    ]);
    let error = error_of(&sparse, json!({}));
    assert!(error.contains("sparse file in PAX form"), "{error}");
}

#[test]
fn an_archive_that_is_cut_off_is_named_with_how_far_it_got() {
    let big = archive_builder::noise(400_000);
    let entries = tar(&[TarEntry::file("first", b"12345"), TarEntry::file("second", &big)]);
    for bytes in [entries.clone(), gzip(&entries), xz(&entries), zstandard(&entries)] {
        let cut = &bytes[..bytes.len() - 20_000];
        let error = error_of(cut, json!({}));
        assert!(
            error.contains("cannot unpack 'a.archive' (at byte ") && error.contains("cut off"),
            "{error}"
        );
        assert!(error.contains("after 2 files and "), "{error}");
    }
    let entries = tar(&[TarEntry::file("first", b"1"), TarEntry::file("second", &big)]);
    let error = error_of(&entries[..1100], json!({}));
    assert!(error.contains("after 1 file and 1 byte)"), "{error}");
    let whole = zip(&[ZipEntry::file("a", &big)]);
    let error = error_of(&whole[..whole.len() - 100], json!({}));
    assert!(error.contains("cut off"), "{error}");
    // Even if all files were unpacked: the checksum of the compression comes last.
    for bytes in [gzip(&small_tar()), xz(&small_tar())] {
        let error = error_of(&bytes[..bytes.len() - 3], json!({}));
        assert!(error.contains("cut off"), "{error}");
    }
    let mut damaged = zip(&[ZipEntry::file("a", &big)]);
    damaged[5000] ^= 1;
    let error = error_of(&damaged, json!({}));
    assert!(error.contains("'a' is damaged"), "{error}");
}

#[test]
fn a_tar_without_its_end_mark_is_noted() {
    let bytes = TarEntry::file("a", b"1").bytes();
    let fixture = archive("a.tar", &bytes);
    let context = fixture.context("unpack", &json!({}));
    crate::run(&stage("unpack", &json!({})), &context).expect("all files are unpacked");
    assert!(notes(&context)[0].contains("no end mark"), "{:?}", notes(&context));
}

#[test]
fn strip_drops_leading_folders() {
    let bytes = tar(&[
        TarEntry::file("README", b"1"),
        TarEntry::folder("top/"),
        TarEntry::file("top/in/a", b"2"),
    ]);
    let fixture = archive("a.tar", &bytes);
    let context = fixture.context("unpack", &json!({"strip": 1}));
    crate::run(&stage("unpack", &json!({"strip": 1})), &context).expect("a file is left");
    assert_eq!(fixture.output_paths(), ["in/", "in/a"]);
    assert_eq!(notes(&context), ["left out 1 entries above the 1 stripped folders"]);
    let error = error_of(&bytes, json!({"strip": 3}));
    assert!(error.ends_with("strip = 3 leaves nothing of its 2 paths"), "{error}");
}

#[test]
fn include_takes_what_matches() {
    let bytes = small_tar();
    for (globs, expected) in [
        (json!(["data/*.txt"]), vec!["data/", "data/a.txt"]),
        (json!(["**/run"]), vec!["data/", "data/deep/", "data/deep/run"]),
        (json!(["data/deep"]), vec!["data/", "data/deep/", "data/deep/run"]),
        (json!(["data/deep/"]), vec!["data/", "data/deep/", "data/deep/run"]),
        (
            json!(["data/{a.txt,b}", "**/r?n"]),
            vec!["data/", "data/a.txt", "data/deep/", "data/deep/run"],
        ),
    ] {
        let (fixture, result) = unpack(&bytes, json!({"include": globs}));
        assert!(result.is_ok(), "{globs}: {result:?}");
        assert_eq!(fixture.output_paths(), expected, "{globs}");
    }
    let (fixture, _) = unpack(&bytes, json!({"include": ["a.txt"], "strip": 1}));
    assert_eq!(fixture.output_paths(), ["a.txt"]);
    let error = error_of(&bytes, json!({"include": ["data/a.txt", "*.txt", "nothing"]}));
    assert!(
        error.contains("matches '*.txt', 'nothing' of 'include'; found 'data', 'data/a.txt', "),
        "{error}"
    );
    let error = error_of(&bytes, json!({"include": ["a[b"]}));
    assert!(error.contains("'a[b' in 'include' is not a valid glob"), "{error}");
}

#[test]
fn nothing_to_unpack_is_an_error() {
    for (bytes, format) in
        [(tar(&[TarEntry::folder("a/")]), "auto"), (zip(&[]), "auto"), (tar(&[]), "tar")]
    {
        let error = error_of(&bytes, json!({"format": format}));
        assert!(error.ends_with("it does not contain a file"), "{error}");
    }
}

#[test]
fn the_artifact_must_be_one_file() {
    let two: &[(&str, &[u8])] = &[("a.zip", b"1"), ("b.zip", b"2")];
    for (files, words) in
        [(&two[..0], "has 0 entries: nothing"), (two, "has 2 entries: a.zip, b.zip")]
    {
        let fixture = Fixture::new().with_input("archive", None, ArtifactType::File, files);
        let error = fixture.run("unpack", &json!({})).expect_err("which one?");
        assert!(error.contains("exactly one file") && error.contains(words), "{error}");
    }
}

#[test]
fn it_reports_its_progress_and_stops_when_asked() {
    let fixture = archive("a.zip", &small_zip());
    let parameters = json!({});
    let context = fixture.context("unpack", &parameters);
    crate::run(&stage("unpack", &parameters), &context).expect("a good archive");
    let size = small_zip().len() as u64;
    let counts = |event| matches!(event, Event::Progress(progress) if progress.total == Some(size) && progress.done <= size);
    assert!(context.kept_events().into_iter().any(counts));

    let fixture = archive("a.zip", &small_zip());
    let context = fixture.context("unpack", &parameters);
    context.stop_flag().store(true, Ordering::Relaxed);
    let error = crate::run(&stage("unpack", &parameters), &context).expect_err("it stops");
    assert!(error.is::<Stopped>(), "{error:#}");
}

/// A destination for tests of its own rules.
fn destination<'a>(context: &'a Context, parameters: &Value) -> Destination<'a> {
    let PrepareStage::Unpack(unpack) = stage("unpack", parameters) else {
        unreachable!("the kind is unpack")
    };
    Destination::new(&unpack, context).expect("good globs")
}

#[test]
fn without_hard_links_copies_are_made_and_counted() {
    let fixture = Fixture::new();
    let parameters = json!({"max-bytes": 2500});
    let context = fixture.context("unpack", &parameters);
    let too_many = |_: &Path, _: &Path| Err(Errno::MLINK.into());
    let mut destination = destination(&context, &parameters).with_hard_links(too_many);
    destination.file(b"a", Permission::Executable, &mut [7; 1000].as_slice()).expect("it fits");
    destination.hard_link(b"b", b"a").expect("it fits");
    assert_eq!(std::fs::read(fixture.output().join("b")).ok(), Some(vec![7; 1000]));
    let mode = fixture.output().join("b").metadata().expect("it exists").permissions().mode();
    assert_ne!(mode & 0o100, 0, "the copy is a program, too");
    let error = destination.hard_link(b"c", b"a").expect_err("it would be 3000 bytes");
    assert!(format!("{error:#}").contains("more than 2500 bytes"), "{error:#}");
}

#[test]
fn a_hard_link_that_fails_for_another_reason_is_an_error() {
    let fixture = Fixture::new();
    let context = fixture.context("unpack", &json!({}));
    let full = |_: &Path, _: &Path| Err(Errno::NOSPC.into());
    let mut destination = destination(&context, &json!({})).with_hard_links(full);
    destination.file(b"a", Permission::ReadWrite, &mut [7; 1000].as_slice()).expect("it fits");
    let error = destination.hard_link(b"b", b"a").expect_err("the disk is full");
    assert_eq!(fixture.output_paths(), ["a"]);
    let advice = with_disk_advice(error).to_string();
    assert!(advice.contains("/b: ") && advice.contains("the disk is full"), "{advice}");
}

#[test]
fn a_request_to_stop_ends_a_copy() {
    let fixture = Fixture::new();
    let context = fixture.context("unpack", &json!({}));
    let too_many = |_: &Path, _: &Path| Err(Errno::MLINK.into());
    let mut destination = destination(&context, &json!({})).with_hard_links(too_many);
    let stop = context.stop_flag();
    destination.file(b"a", Permission::ReadWrite, &mut [7; 1000].as_slice()).expect("it fits");
    stop.store(true, Ordering::Relaxed);
    let error = destination.hard_link(b"b", b"a").expect_err("it stops");
    assert!(error.is::<Stopped>(), "{error:#}");
}

#[test]
fn paths_that_are_too_long_are_refused() {
    let long = "a/".repeat(3000);
    let pax = |key: &str| {
        // A record of PAX: its own length, then the key and the value (POSIX.1-2001, pax).
        let record = format!(" {key}={long}\n");
        let digits = (record.len() + 4).to_string();
        assert_eq!(digits.len(), 4);
        format!("{digits}{record}").into_bytes()
    };
    for (key, entry) in [
        ("path", TarEntry::file("short", b"1")),
        ("linkpath", TarEntry::symbolic_link("short", "b")),
        ("linkpath", TarEntry::hard_link("short", "b")),
    ] {
        let extension = pax(key);
        let header = TarEntry { kind: b'x', ..TarEntry::file("pax", &extension) };
        let error = error_of(&tar(&[header, entry]), json!({}));
        assert!(error.contains("4096") && error.len() < 500, "{error}");
    }
    for entry in [ZipEntry::file(&long, b""), ZipEntry::symbolic_link("short", &long)] {
        let error = error_of(&zip(&[entry]), json!({}));
        assert!(error.contains("4096") && error.len() < 500, "{error}");
    }
}

#[test]
fn a_link_that_leads_out_because_of_the_filesystem_is_refused() {
    // In the archive, 'Here' and 'here' are two names; on a filesystem that ignores case they are one.
    let bytes =
        tar(&[TarEntry::folder("deep/"), TarEntry::symbolic_link("out", "here/deep/../..")]);
    let fixture = archive("a.tar", &bytes);
    std::os::unix::fs::symlink(".", fixture.output().join("here")).expect("a link");
    let error = fixture.run("unpack", &json!({})).expect_err("it leads above the folder");
    assert!(error.contains("refused the link 'out'"), "{error}");
}

/// A sparse file in GNU tar's old form that is a single hole of this many bytes.
fn hole(name: &str, bytes: u64) -> Vec<u8> {
    let mut entry = TarEntry { kind: b'S', ..TarEntry::file(name, b"") }.bytes();
    let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
    // Offsets in the header: see "GNU tar: an archive format", struct oldgnu_header.
    put(257, b"ustar  \0");
    put(386, format!("{bytes:011o}\0").as_bytes());
    put(398, format!("{:011o}\0", 0).as_bytes());
    put(483, format!("{bytes:011o}\0").as_bytes());
    put(148, b"        ");
    let sum: u32 = entry.iter().map(|&byte| u32::from(byte)).sum();
    entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    entry
}

#[test]
fn a_sparse_file_that_is_left_out_is_read_only_up_to_a_limit() {
    let bytes =
        [hole("hole", 3_000_000), TarEntry::file("a", b"1").bytes(), vec![0; 1024]].concat();
    let (fixture, result) = unpack(&bytes, json!({"max-bytes": 4_000_000}));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(
        fixture.output().join("hole").metadata().map(|hole| hole.len()).ok(),
        Some(3_000_000)
    );
    let (fixture, result) = unpack(&bytes, json!({"include": ["a"]}));
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(fixture.output_paths(), ["a"]);
    let error = error_of(&bytes, json!({"include": ["a"], "max-bytes": 1_000_000}));
    assert!(error.contains("sparse files that are left out"), "{error}");
}

#[test]
fn zeros_after_a_compressed_archive_are_ignored() {
    let bytes = [gzip(&small_tar()), vec![0; 10_000]].concat();
    let (_fixture, result) = unpack(&bytes, json!({}));
    assert_eq!(result.map(|metrics| metrics["files"]), Ok(2.0));
}

#[test]
fn progress_only_grows() {
    let (first, second) = (archive_builder::noise(100_000), archive_builder::noise(300_000));
    for bytes in [
        zip(&[ZipEntry::file("a", &first), ZipEntry::file("b", &second)]),
        tar(&[TarEntry::file("a", &first), TarEntry::file("b", &second)]),
    ] {
        let fixture = archive("a.archive", &bytes);
        let context = fixture.context("unpack", &json!({}));
        crate::run(&stage("unpack", &json!({})), &context).expect("a good archive");
        let done =
            |event| if let Event::Progress(progress) = event { Some(progress.done) } else { None };
        let done: Vec<_> = context.kept_events().into_iter().filter_map(done).collect();
        assert!(done.is_sorted(), "{done:?}");
        assert!(done[0] < bytes.len() as u64 / 2, "{done:?}");
        assert!(done[done.len() - 1] > bytes.len() as u64 * 9 / 10, "{done:?}");
    }
}
