//! Files of PyTorch and safetensors are read exactly; damaged and hostile files are errors.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use proptest::prelude::*;
use serde_json::Value as Json;

use super::{CheckpointFile, CheckpointFormat, CheckpointLimits, Element, Leaf, Values};
use crate::fuzzing::read_tensors;
use crate::reference::reference_path;
use crate::samples::zipped;

/// The files that are small enough to be damaged byte by byte.
const SMALL: &[&str] = &[
    "types.pt",
    "types-legacy.pt",
    "types.safetensors",
    "layouts.pt",
    "layouts-legacy.pth",
    "lightning.ckpt",
    "human.pt",
    "arrays-2.pkl",
    "arrays-4.pkl",
];

fn file(name: &str) -> Vec<u8> {
    std::fs::read(reference_path("import/checkpoints").join(name)).unwrap()
}

fn expected() -> BTreeMap<String, BTreeMap<String, Json>> {
    serde_json::from_slice(&file("expected.json")).unwrap()
}

fn number(json: &Json) -> f64 {
    match json {
        Json::String(text) => text.parse().unwrap(),
        number => number.as_f64().unwrap(),
    }
}

/// The element type as PyTorch calls it.
fn torch_name(element: Element) -> String {
    match element {
        Element::Bool => "bool".to_owned(),
        Element::Bf16 => "bfloat16".to_owned(),
        other => other
            .name()
            .replace('u', "uint")
            .replace('i', "int")
            .replace("uintnt", "uint")
            .replace('f', "float"),
    }
}

#[test]
fn every_type_and_layout_is_read_exactly() {
    for (name, tensors) in expected() {
        let bytes = file(&name);
        let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
        let contents = checkpoint.contents().unwrap();
        let entries = contents.entries().unwrap();
        assert_eq!(entries.len(), tensors.len(), "{name}");
        for entry in entries {
            let wanted = &tensors[&entry.name];
            let Leaf::Tensor(tensor) = &entry.leaf else { panic!("{name}: {entry:?}") };
            assert_eq!(torch_name(tensor.element), wanted["type"].as_str().unwrap());
            assert_eq!(serde_json::json!(tensor.shape), wanted["shape"], "{name}: {}", entry.name);
            let wanted: Vec<f64> =
                wanted["values"].as_array().unwrap().iter().map(number).collect();
            let found: Vec<f64> = match contents.values(tensor).unwrap() {
                Values::Floats(floats) => floats.into_iter().map(f64::from).collect(),
                Values::Integers(integers) => integers.into_iter().map(|it| it as f64).collect(),
            };
            assert_eq!(found, wanted, "{name}: {}", entry.name);
        }
    }
}

#[test]
fn the_format_is_detected_from_the_content() {
    for (name, format) in [
        ("types.pt", CheckpointFormat::TorchZip),
        ("simclr.pth.tar", CheckpointFormat::TorchZip),
        ("types-legacy.pt", CheckpointFormat::TorchLegacy),
        ("types.safetensors", CheckpointFormat::Safetensors),
        ("arrays-2.pkl", CheckpointFormat::Pickle),
    ] {
        let bytes = file(name);
        assert_eq!(
            CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap().format(),
            format
        );
    }
}

#[test]
fn other_values_are_named_and_not_read() {
    let opaque = |name: &str| -> BTreeMap<String, String> {
        let bytes = file(name);
        let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
        let contents = checkpoint.contents().unwrap();
        let entries = contents.entries().unwrap().into_iter();
        entries
            .filter_map(|entry| match entry.leaf {
                Leaf::Opaque(what) => Some((entry.name, what)),
                _ => None,
            })
            .collect()
    };
    let simclr = opaque("simclr.pth.tar");
    assert_eq!(simclr["hparams"], "an object of argparse.Namespace");
    assert_eq!(simclr["iter"], "the integer 48000");
    assert_eq!(simclr["opt_state_dict.param_groups"], "a list of 1");
    let lightning = opaque("lightning.ckpt");
    assert_eq!(lightning["hyper_parameters.lr"], "the float 0.1");
}

/// The error of a file that must not be opened, down to its names.
fn problem(bytes: &[u8]) -> String {
    let open = || -> anyhow::Result<()> {
        let checkpoint = CheckpointFile::open(bytes, &CheckpointLimits::default())?;
        let contents = checkpoint.contents()?;
        contents.entries().map(drop)
    };
    format!("{:#}", open().unwrap_err())
}

#[test]
fn files_of_other_formats_are_named() {
    let tar = [&[b'a'; 257][..], b"ustar", &[0; 300]].concat();
    for (bytes, words) in [
        (&b""[..], "the file is empty"),
        (b"\x1f\x8b\x08\x00", "it is a gzip file"),
        (b"\xfd7zXZ\x00", "it is an xz file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (&tar, "tar archive"),
        (b"hello", "not a PyTorch file, a pickle or a safetensors file"),
        (b"\x80\x02K\x01.", "it contains the integer 1, not a dictionary"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{}", "not a complete safetensors file"),
        (b"PK\x03\x04 and no more", "damaged, cut off, or not a zip archive"),
    ] {
        let problem = problem(bytes);
        assert!(problem.contains(words), "{words}: {problem}");
    }
    let module = problem(&file("module.pth"));
    assert!(module.contains("an object of torch.nn.modules.linear.Linear"), "{module}");
    assert!(module.contains("save the state_dict()"), "{module}");
}

/// The entries of a zip archive.
fn unzipped(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        entries.push((entry.name().unwrap().into_owned(), content));
    }
    entries
}

/// A pickle of `{'t': tensor}` in protocol 0, the tensor with these parts.
fn tensor_pickle(storage_count: &str, offset: &str, shape: &str, strides: &str) -> Vec<u8> {
    let storage = format!("(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{storage_count}\ntQ");
    let parts = format!("({storage}I{offset}\n({shape}t({strides}tI00\nNt");
    format!("(S't'\nctorch._utils\n_rebuild_tensor_v2\n{parts}Rd.").into_bytes()
}

/// The problem of the tensor of such a file, whose storage has 6 floats.
fn tensor_problem(count: &str, offset: &str, shape: &str, strides: &str) -> Option<String> {
    let pickle = tensor_pickle(count, offset, shape, strides);
    let bytes = zipped(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 24])], false);
    let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
    let contents = checkpoint.contents().unwrap();
    let entries = contents.entries().unwrap();
    match &entries[0].leaf {
        Leaf::Tensor(tensor) => contents.values(tensor).err().map(|error| format!("{error:#}")),
        Leaf::Damaged(problem) => Some(problem.clone()),
        Leaf::Opaque(what) => panic!("{what}"),
    }
}

#[test]
fn a_tensor_stays_within_its_storage() {
    assert_eq!(tensor_problem("6", "0", "I2\nI3\n", "I3\nI1\n"), None);
    assert_eq!(tensor_problem("6", "5", "I1\nI1\n", "I9\nI9\n"), None);
    assert_eq!(tensor_problem("6", "99", "I0\nI3\n", "I3\nI1\n"), None);
    let most = i64::MAX.to_string();
    let nothing = format!("I{most}\nI{most}\nI0\n");
    assert_eq!(tensor_problem("6", "0", &nothing, "I1\nI1\nI1\n"), None);
    let many = "I1\n".repeat(65);
    for (count, offset, shape, strides, words) in [
        ("6", "1", "I2\nI3\n", "I3\nI1\n", "is outside its storage of 6 elements"),
        ("6", "0", "I2\nI3\n", "I4\nI1\n", "is outside its storage of 6 elements"),
        ("6", &most, "I1\n", "I1\n", "is outside its storage"),
        ("6", "0", &format!("I{most}\nI{most}\n"), "I1\nI1\n", "its elements overlap"),
        ("6", "0", &format!("I{most}\n"), &format!("I{most}\n"), "is outside its storage"),
        ("6", "0", &many, &many, "a tensor of 65 dimensions"),
        ("6", "0", "I99\n", "I0\n", "its elements overlap"),
        ("6", "0", "I2\nI2\n", "I1\nI1\n", "its elements overlap"),
        ("6", "-1", "I2\n", "I1\n", "offset is negative"),
        ("6", "0", "I-2\n", "I1\n", "sizes are negative"),
        ("6", "5", "I2\n", "I-1\n", "strides are negative"),
        ("6", "0", "I2\nI3\n", "I1\n", "the numbers of strides and dimensions differ"),
        ("7", "0", "I2\nI3\n", "I3\nI1\n", "storage '0' should have 28 bytes, but has 24"),
        (&most, "0", "I2\n", "I1\n", "more bytes than is possible"),
        ("-6", "0", "I2\n", "I1\n", "whose size is negative"),
    ] {
        let problem = tensor_problem(count, offset, shape, strides).unwrap();
        assert!(problem.contains(words), "{words}: {problem}");
    }
}

#[test]
fn incomplete_archives_are_refused() {
    let pickle = tensor_pickle("6", "0", "I6\n", "I1\n");
    for (entries, words) in [
        (vec![("a/data.txt", &pickle[..])], "has no '<name>/data.pkl', but 'a/data.txt'"),
        (
            vec![("a/data.pkl", &pickle), ("b/data.pkl", &pickle)],
            "both 'a/data.pkl' and 'b/data.pkl'",
        ),
        (vec![("a/data.pkl", &pickle), ("a/byteorder", b"big")], "a big-endian machine"),
    ] {
        let problem = problem(&zipped(&entries, false));
        assert!(problem.contains(words), "{words}: {problem}");
    }
    let mut twice = zipped(&[("a/data.pkl", &pickle), ("a/data.pkx", &pickle)], false);
    for place in 0..twice.len() {
        if twice[place..].starts_with(b"a/data.pkx") {
            twice[place + 9] = b'l';
        }
    }
    assert_eq!(problem(&twice), "'a/data.pkl' occurs twice in the archive");
    let bytes = zipped(&[("a/data.pkl", &pickle)], false);
    let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
    let contents = checkpoint.contents().unwrap();
    let Leaf::Tensor(tensor) = &contents.entries().unwrap()[0].leaf else { panic!() };
    let missing = contents.values(tensor).unwrap_err().to_string();
    assert_eq!(missing, "the archive has no 'data/0'");
}

#[test]
fn a_wrong_checksum_is_noticed() {
    let mut bytes = file("types.pt");
    let float32: Vec<u8> = [0.0f32, -0.5, 1.0].iter().flat_map(|it| it.to_le_bytes()).collect();
    let place = bytes.windows(float32.len()).position(|window| window == float32).unwrap();
    bytes[place] ^= 1;
    let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
    let contents = checkpoint.contents().unwrap();
    let damaged = contents.entries().unwrap().into_iter().filter(|entry| match &entry.leaf {
        Leaf::Tensor(tensor) => contents.values(tensor).is_err(),
        _ => true,
    });
    assert_eq!(damaged.map(|entry| entry.name).collect::<Vec<_>>(), ["float32"]);
}

#[test]
fn the_two_sizes_of_an_uncompressed_entry_must_agree() {
    // The bytes that are read are those of the checksum: not fewer, and not the bytes after them.
    for (count, size) in [("3", 12_u32), ("6", 24), ("9", 36)] {
        let pickle = tensor_pickle(count, "0", &format!("I{count}\n"), "I1\n");
        let entries = [("a/data/0", &[0; 24][..]), ("a/data.pkl", &pickle)];
        let mut bytes = zipped(&entries, false);
        let directory = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        bytes[directory + 24..directory + 28].copy_from_slice(&size.to_le_bytes());
        let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
        let contents = checkpoint.contents().unwrap();
        let Leaf::Tensor(tensor) = &contents.entries().unwrap()[0].leaf else { panic!() };
        let read = contents.values(tensor);
        assert_eq!(read.is_ok(), size == 24, "{size}");
        if let Err(error) = read {
            assert!(format!("{error:#}").contains("its size is wrong"), "{error:#}");
        }
    }
}

#[test]
fn a_zip_bomb_is_refused_before_it_unpacks() {
    let limits = CheckpointLimits { unpacked_bytes: 1 << 20, ..CheckpointLimits::default() };
    let bomb = zipped(&[("a/data.pkl", &vec![0; 2 << 20])], true);
    assert!(bomb.len() < 10_000);
    let error = CheckpointFile::open(&bomb, &limits).map(drop).unwrap_err();
    assert!(format!("{error:#}").contains("more than the 1048576 that are allowed"), "{error:#}");
}

#[test]
fn dictionaries_that_contain_each_other_are_bounded() {
    // Each dictionary contains the previous one ten times: 10^7 names in 400 bytes.
    let mut laughs = b"\x80\x02}q\x00".to_vec();
    for level in 1..8u8 {
        laughs.extend([b'}', b'q', level, b'(']);
        (0..10).for_each(|key| laughs.extend([b'K', key, b'h', level - 1]));
        laughs.push(b'u');
    }
    laughs.push(b'.');
    assert_eq!(problem(&laughs), "it has too many names");
    // A dictionary that contains itself ends at the deepest level that is read.
    let itself = b"\x80\x02}q\x00K\x01h\x00s.";
    let checkpoint = CheckpointFile::open(itself, &CheckpointLimits::default()).unwrap();
    let contents = checkpoint.contents().unwrap();
    let entries = contents.entries().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].name, "1.1.1.1.1.1.1.1");
}

#[test]
fn the_legacy_format_is_read_up_to_its_last_byte() {
    let bytes = file("types-legacy.pt");
    for length in 1..bytes.len() {
        let opened = CheckpointFile::open(&bytes[..length], &CheckpointLimits::default());
        let whole =
            opened.is_ok_and(|checkpoint| checkpoint.format() == CheckpointFormat::TorchLegacy);
        assert!(!whole, "{length} of {} bytes", bytes.len());
    }
}

/// Reads everything in a file.
fn read_all(bytes: &[u8]) {
    let limits = CheckpointLimits {
        pickle: crate::pickle::PickleLimits { instructions: 100_000, values: 50_000, marks: 100 },
        unpacked_bytes: 1 << 20,
        entries: 1_000,
    };
    read_tensors(bytes, &limits);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_errors_or_other_numbers(
        which in 0..SMALL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = file(SMALL[which]);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(&bytes);
    }

    /// The checksums of an archive would reveal damage; here they are right.
    #[test]
    fn damaged_pickles_in_intact_archives(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        compressed: bool,
    ) {
        let mut entries = unzipped(&file("layouts.pt"));
        for (name, content) in &mut entries {
            if name.ends_with("data.pkl") {
                for (place, byte) in &changes {
                    let place = place.index(content.len());
                    content[place] = *byte;
                }
            }
        }
        let entries: Vec<(&str, &[u8])> =
            entries.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        read_all(&zipped(&entries, compressed));
    }

    #[test]
    fn arbitrary_bytes_after_any_start(
        beginning in prop::sample::select(vec![&b"PK\x03\x04"[..], b"\x80\x02", b"}", b"\x10\0\0\0\0\0\0\0{"]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        read_all(&[beginning, &rest].concat());
    }
}
