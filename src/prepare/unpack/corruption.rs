//! For tests: unpacking any bytes neither panics nor writes outside the folder.

use pipeline_stages::ArtifactType;
use proptest::prelude::*;
use serde_json::json;

use super::archive_builder::{TarEntry, ZipEntry, tar, xz, zip, zstandard};
use crate::fixture::{Fixture, paths_below};
use crate::samples::gzip;

const FORMATS: [&str; 7] = ["auto", "zip", "tar", "tar-gz", "tar-xz", "tar-zst", "gz"];

/// A valid archive with every type of entry, in the format of this number.
fn sample(format: usize) -> Vec<u8> {
    let tar = tar(&[
        TarEntry::folder("d/"),
        TarEntry::file("d/a", b"hello"),
        TarEntry::symbolic_link("d/link", "../d/a"),
        TarEntry::hard_link("b", "d/a"),
    ]);
    let zip = zip(&[ZipEntry::file("d/a", b"hello"), ZipEntry::symbolic_link("d/link", "../d/a")]);
    match FORMATS[format] {
        "zip" => zip,
        "tar" | "auto" => tar,
        "tar-xz" => xz(&tar),
        "tar-zst" => zstandard(&tar),
        "gz" => gzip(b"hello"),
        _ => gzip(&tar),
    }
}

/// Unpacks, and asserts that nothing changed outside the output folder and no link in it leads out.
fn unpack_safely(format: usize, bytes: &[u8]) {
    let fixture =
        Fixture::new().with_input("archive", None, ArtifactType::File, &[("a.archive", bytes)]);
    let parameters = json!({"format": FORMATS[format], "max-bytes": 1_000_000, "max-files": 100});
    let around = || {
        let outside = |path: &String| !path.starts_with("output/") || path == "output/";
        paths_below(fixture.root()).into_iter().filter(outside).collect::<Vec<_>>()
    };
    let before = around();
    let result = fixture.run("unpack", &parameters);
    assert_eq!(around(), before);
    let root = fixture.output().canonicalize().expect("it exists");
    for path in fixture.output_paths() {
        if let Ok(real) = fixture.output().join(&path).canonicalize() {
            assert!(real.starts_with(&root), "{path} leads to {}", real.display());
        }
    }
    drop(result);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_bytes_do_no_harm(format in 0..FORMATS.len(), bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        unpack_safely(format, &bytes);
    }

    #[test]
    fn mutated_archives_do_no_harm(
        format in 0..FORMATS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample(format);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        unpack_safely(format, &bytes);
    }

    #[test]
    fn random_names_and_links_do_no_harm(entries in proptest::collection::vec(
        ("(\\.\\.|\\.|a|b|c|/){1,8}", prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'5')],
         "(\\.\\.|\\.|a|b|c|/){0,8}"), 1..8))
    {
        let entries: Vec<_> = entries.iter().map(|(name, kind, target)| TarEntry {
            name: name.as_bytes(), kind: *kind, mode: 0o644, target: target.as_bytes(), content: b"",
        }).collect();
        unpack_safely(2, &tar(&entries));
    }
}
