//! CIFAR and ImageNet32 in files that NumPy and Python wrote: `tests/reference/data/`.

use std::collections::BTreeMap;

use pipeline_stages::formats::read_json;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::statistics::channel_statistics;
use super::*;
use crate::reference::reference_path;
use crate::samples::zipped;

const PIXELS: usize = 3072;

/// What the script wrote about one file.
#[derive(Clone, Deserialize)]
struct Content {
    sha256: String,
    labels: Vec<i64>,
}

#[derive(Deserialize)]
struct Expected {
    cifar10: BTreeMap<String, Content>,
    cifar100: BTreeMap<String, Content>,
    imagenet32: BTreeMap<String, Content>,
}

fn expected() -> Expected {
    read_json(&reference_path("data/expected.json")).unwrap()
}

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(reference_path("data").join(path)).unwrap()
}

/// Checks that a part has the images of these files, one after the other.
#[track_caller]
fn check(samples: &Samples, files: &[&Content]) {
    let labels: Vec<i64> = files.iter().flat_map(|file| file.labels.clone()).collect();
    assert_eq!(samples.labels, labels);
    let mut rest = samples.pixels();
    for file in files {
        let pixels;
        (pixels, rest) = rest.split_at(file.labels.len() * PIXELS);
        let digest = Sha256::digest(pixels);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, file.sha256);
    }
    assert!(rest.is_empty());
}

/// CIFAR-10's files: batches 3 to 5 are copies of the second.
fn cifar10_files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("data_batch_1".to_owned(), fixture("cifar10/data_batch_1"))];
    files.extend(
        (2..=5).map(|number| (format!("data_batch_{number}"), fixture("cifar10/data_batch_2"))),
    );
    for name in ["test_batch", "batches.meta"] {
        files.push((name.to_owned(), fixture(&format!("cifar10/{name}"))));
    }
    files
}

fn cifar100_files() -> Vec<(String, Vec<u8>)> {
    ["train", "test", "meta"]
        .map(|name| (name.to_owned(), fixture(&format!("cifar100/{name}"))))
        .into()
}

/// ImageNet32's files: batches 3 to 10 are copies of the second.
fn imagenet32_files(folder: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
    let batch =
        |number: usize| fixture(&format!("{folder}/train_data_batch_{}{ending}", number.min(2)));
    let mut files: Vec<_> = (1..=10)
        .map(|number| (format!("train_data_batch_{number}{ending}"), batch(number)))
        .collect();
    files.push((format!("val_data{ending}"), fixture(&format!("{folder}/val_data{ending}"))));
    files
}

fn write(test: &Fixture, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        test.write(&format!("source/folder/{name}"), content);
    }
}

fn run_on(files: &[(String, Vec<u8>)], parameters: Value) -> anyhow::Result<Written> {
    let mut test = Fixture::new();
    write(&test, files);
    let source = test.folder().join("source");
    run(&mut test, parameters, &[&source])
}

fn error_on(files: &[(String, Vec<u8>)], parameters: Value) -> String {
    match run_on(files, parameters) {
        Ok(_) => panic!("the stage succeeded"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn cifar10_pickled_by_python_2() {
    let contents = expected().cifar10;
    let written = run_on(&cifar10_files(), json!({"format": "cifar10-python"})).unwrap();
    let second = &contents["data_batch_2"];
    check(&written.train, &[&contents["data_batch_1"], second, second, second, second]);
    check(&written.test, &[&contents["test_batch"]]);
    assert_eq!(written.info.classes[9], "truck");
    assert_eq!(written.info.format, "cifar10-python");
}

#[test]
fn keys_that_are_bytes_are_read_from_every_protocol() {
    for protocol in 0..=5_u8 {
        let file = |name: &str| fixture(&format!("protocols/{protocol}/{name}"));
        let mut files = vec![("batches.meta".to_owned(), file("batches.meta"))];
        let names = (1..=5).map(|number| format!("data_batch_{number}"));
        for name in names.chain(["test_batch".to_owned()]) {
            files.push((name, file("batch")));
        }
        let written = run_on(&files, json!({"format": "cifar10-python"})).unwrap();
        assert_eq!(written.test.pixels(), [200 + protocol; PIXELS]);
        assert_eq!(written.test.labels, [i64::from(protocol)]);
        assert_eq!(written.info.classes[3], "cat");
        assert_eq!(written.info.classes[4], "Dammhirsch (Rotwild: Rothirschkühe)");
    }
}

#[test]
fn cifar100_has_its_fine_labels_and_the_names_of_its_file() {
    let contents = expected().cifar100;
    let written = run_on(&cifar100_files(), json!({"format": "cifar100-python"})).unwrap();
    check(&written.train, &[&contents["train"]]);
    check(&written.test, &[&contents["test"]]);
    assert_eq!((written.info.classes.len(), written.info.classes[42].as_str()), (100, "fine 42"));
}

#[test]
fn the_binary_and_the_python_archive_have_the_same_samples() {
    let read = |files: &[(String, Vec<u8>)], format: &str| {
        let mut test = Fixture::new();
        write(&test, files);
        let source = test.folder().join("source");
        bytes(&output(&mut test, json!({"format": format}), &[&source], None).unwrap())
    };
    let python = run_on(&cifar10_files(), json!({"format": "cifar10-python"})).unwrap();
    let record = |samples: &Samples, index: usize| {
        let pixels = &samples.pixels()[index * PIXELS..][..PIXELS];
        [&[samples.labels[index] as u8], pixels].concat()
    };
    let mut binary: Vec<_> = (1..=4)
        .map(|batch| (format!("data_batch_{batch}.bin"), record(&python.train, batch - 1)))
        .collect();
    let last = [record(&python.train, 4), record(&python.train, 5)].concat();
    binary.push(("data_batch_5.bin".to_owned(), last));
    binary.push(("test_batch.bin".to_owned(), record(&python.test, 0)));
    let [from_binary, from_python] =
        [read(&binary, "cifar10"), read(&cifar10_files(), "cifar10-python")];
    assert_eq!(from_binary[..2], from_python[..2], "all but dataset.json");
}

#[test]
fn limits_and_other_names() {
    let classes: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    let parameters = json!({"format": "cifar10-python", "train-limit": 3, "classes": classes});
    let written = run_on(&cifar10_files(), parameters).unwrap();
    assert_eq!(written.train.labels.len(), 3);
    assert_eq!(written.info.classes, classes);
    let mut files = cifar10_files();
    files.retain(|(name, _)| name != "batches.meta");
    let written = run_on(&files, json!({"format": "cifar10-python"})).unwrap();
    assert_eq!(written.info.classes[0], "airplane", "the usual names");
}

#[test]
fn imagenet32_as_pickles_or_archives_or_both() {
    let contents = expected().imagenet32;
    let (pickles, archives) =
        (imagenet32_files("imagenet32", ""), imagenet32_files("imagenet32-npz", ".npz"));
    let mixed: Vec<_> =
        pickles.iter().step_by(2).chain(archives.iter().skip(1).step_by(2)).cloned().collect();
    for files in [pickles, archives, mixed] {
        let written = run_on(&files, json!({"format": "imagenet32"})).unwrap();
        let mut parts = vec![&contents["train_data_batch_1"]];
        parts.extend([&contents["train_data_batch_2"]; 9]);
        check(&written.train, &parts);
        check(&written.test, &[&contents["val_data"]]);
        assert_eq!(written.train.labels[..3], [0, 999, 499], "from 0");
        assert_eq!((written.info.classes.len(), written.info.classes[999].as_str()), (1000, "999"));
        let whole = channel_statistics(written.train.pixels(), written.info.image);
        assert_eq!(written.info.channel_mean, whole.mean);
        assert_eq!(written.info.channel_std, whole.std);
    }
}

#[test]
fn archives_under_their_short_names() {
    let files: Vec<_> = imagenet32_files("imagenet32-npz", ".npz")
        .into_iter()
        .map(|(name, content)| (name.trim_start_matches("train_data_").to_owned(), content))
        .collect();
    assert_eq!(files[0].0, "batch_1.npz");
    assert_eq!(run_on(&files, json!({"format": "imagenet32"})).unwrap().train.labels.len(), 11);
}

#[test]
fn missing_batches_are_named_unless_they_are_not_needed() {
    let mut files = imagenet32_files("imagenet32", "");
    files
        .retain(|(name, _)| !["train_data_batch_2", "train_data_batch_9"].contains(&name.as_str()));
    let message = error_on(&files, json!({"format": "imagenet32"}));
    assert!(message.contains("train_data_batch_2, train_data_batch_9; put them"), "{message}");
    let within = json!({"format": "imagenet32", "train-limit": 2, "test-limit": 1});
    assert_eq!(run_on(&files, within).unwrap().train.labels, [0, 999]);
    let message = error_on(&files, json!({"format": "imagenet32", "train-limit": 3}));
    assert!(message.contains("these are missing"), "{message}");

    let nothing = [("notes.txt".to_owned(), Vec::new())];
    let message = error_on(&nothing, json!({"format": "imagenet32"}));
    assert!(message.contains("image-net.org"), "where to ask: {message}");
    files.retain(|(name, _)| name != "val_data");
    let message = error_on(&files, json!({"format": "imagenet32", "train-limit": 2}));
    assert!(
        message.contains("val_data or val_data.npz is missing in")
            && message.contains("image-net.org"),
        "{message}"
    );
}

/// An array in NumPy's own format.
fn npy(element: &str, shape: &str, content: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), content].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<_> = arrays.iter().map(|(name, content)| (*name, &content[..])).collect();
    zipped(&entries, true)
}

/// The same archive, in which `labels.np2` is called `labels.npy`.
fn with_labels_twice(mut archive: Vec<u8>) -> Vec<u8> {
    for place in 0..archive.len() {
        if archive[place..].starts_with(b"labels.np2") {
            archive[place + 9] = b'y';
        }
    }
    archive
}

#[test]
fn archives_with_other_content_are_errors() {
    let labels = || ("labels.npy", npy("<i8", "(1,)", &1_i64.to_le_bytes()));
    let data = |element, shape, bytes| ("data.npy", npy(element, shape, &vec![0; bytes]));
    for (content, expected) in [
        (b"PK, but no more".to_vec(), "is not a complete .npz file"),
        (npz(&[labels()]), "has no data.npy"),
        (
            with_labels_twice(npz(&[
                labels(),
                ("labels.np2", npy("<i8", "(1,)", &2_i64.to_le_bytes())),
                data("|u1", "(1, 3072)", PIXELS),
            ])),
            ".npz: 'labels.npy' occurs twice in the archive",
        ),
        (npz(&[data("|u1", "(1, 3072)", PIXELS)]), "has no labels.npy"),
        (npz(&[labels(), ("data.npy", b"text".to_vec())]), "data.npy: it is not an array of NumPy"),
        (
            npz(&[labels(), data("<f4", "(1, 3072)", 4 * PIXELS)]),
            "of the type '<f4', not unsigned bytes",
        ),
        (
            npz(&[labels(), data("|u1", "(2, 3072)", 2 * PIXELS)]),
            "the shape [2, 3072]; expected 1 images",
        ),
        (npz(&[labels(), data("|u1", "(1, 768)", 768)]), "the shape [1, 768]; expected 1 images"),
        (
            npz(&[labels(), data("|u1", "(1, 32, 32, 3)", PIXELS)]),
            "data.npy: it has the shape [1, 32, 32, 3]; expected 1 images of 3072 bytes, one for each label: \
             [1, 3072] or [1, 3, 32, 32]; the channels come last",
        ),
        (npz(&[labels(), data("|u1", "(1, 96, 32)", PIXELS)]), "the shape [1, 96, 32]; expected"),
        (
            npz(&[labels(), data("|u1", "(1, 3072)", PIXELS - 1)]),
            "data.npy: it ends 1 bytes too early",
        ),
        (
            npz(&[labels(), data("|u1", "(1, 3072)", PIXELS + 1)]),
            "it continues after the last image",
        ),
        (
            npz(&[("labels.npy", npy("<i8", "(1,)", &0_i64.to_le_bytes()))]),
            "the label of image 0 is 0; expected one from 1 to 1000",
        ),
        (npz(&[("labels.npy", npy("<f8", "(1,)", &[0; 8]))]), "of the type '<f8', not integers"),
        (npz(&[("labels.npy", npy("<i8", "(19999999999,)", &[]))]), "the shape [19999999999]"),
        (
            npz(&[("labels.npy", npy("<i8", "(1999999,)", &[0; 8]))]),
            "it ends 15999984 bytes too early",
        ),
    ] {
        let mut files = imagenet32_files("imagenet32-npz", ".npz");
        files[3].1 = content;
        let message = error_on(&files, json!({"format": "imagenet32"}));
        assert!(message.contains("train_data_batch_4.npz"), "{message}");
        assert!(message.contains(expected), "{message} should have {expected}");
    }
}

#[test]
fn pickles_with_other_content_are_errors() {
    let good = fixture("cifar10/data_batch_2");
    for (content, expected) in [
        (Vec::new(), "the pickle is damaged"),
        (good[..good.len() - 2].to_vec(), "the pickle is damaged"),
        (gzip(&good), "it looks like a gzip file"),
        (b"\x80\x02]q\x00.".to_vec(), "expected a dictionary with 'data', found a list of 0"),
        (
            b"\x80\x02}(U\x04dataK\x01u.".to_vec(),
            "expected a dictionary with 'labels', found one with data",
        ),
        (b"\x80\x02}(U\x04dataK\x01U\x06labels]u.".to_vec(), "'data': found the integer"),
        (b"\x80\x02}(U\x04dataK\x01U\x06labelsK\x01u.".to_vec(), "'labels': found the integer"),
        (fixture("cifar100/test"), "expected a dictionary with 'labels', found one with filenames"),
    ] {
        let mut files = cifar10_files();
        files[3].1 = content;
        let message = error_on(&files, json!({"format": "cifar10-python"}));
        assert!(message.contains("data_batch_4") && message.contains(expected), "{message}");
    }
    let mut files = cifar10_files();
    let label = files[1].1.windows(2).position(|bytes| bytes == [b'K', 4]).unwrap();
    files[1].1[label + 1] = 10;
    let message = error_on(&files, json!({"format": "cifar10-python"}));
    assert!(message.contains("data_batch_2: the label of image 0 is 10"), "{message}");
    files.truncate(2);
    let message = error_on(&files, json!({"format": "cifar10-python"}));
    assert!(message.contains("data_batch_3 is missing in"), "{message}");
}

/// The same batch, whose array has another shape of the same length in the pickle.
fn reshaped(batch: &[u8], shape: &[u8]) -> Vec<u8> {
    // Of the array of one image: the numbers 1 and 3072, as a tuple of two.
    let (before, after) = (b"K\x01M\x00\x0c\x86".as_slice(), [b"(", shape, b"t"].concat());
    let place = batch.windows(before.len()).position(|bytes| bytes == before).unwrap();
    [&batch[..place], &after, &batch[place + before.len()..]].concat()
}

#[test]
fn channels_come_first_in_a_pickle_of_four_dimensions() {
    let read = |shape: &[u8]| {
        let mut files = cifar10_files();
        for (_, content) in &mut files[1..5] {
            *content = reshaped(content, shape);
        }
        run_on(&files, json!({"format": "cifar10-python"}))
    };
    let flat = run_on(&cifar10_files(), json!({"format": "cifar10-python"})).unwrap();
    let planes = read(b"K\x01K\x03K K ").unwrap();
    assert_eq!(planes.train.pixels(), flat.train.pixels());
    for (shape, words) in [
        (
            b"K\x01K K K\x03".as_slice(),
            "[1, 32, 32, 3]; expected 1 images of 3072 bytes, one for each label: [1, 3072] or [1, 3, 32, 32]; the channels come last",
        ),
        (b"K\x01K\x60K ", "[1, 96, 32]; expected 1 images"),
    ] {
        let message = read(shape).map(drop).unwrap_err().to_string();
        assert!(
            message.contains("data_batch_2: 'data' has the shape ") && message.contains(words),
            "{message}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A damaged file is an error that names it, or by chance still valid; never a panic.
    #[test]
    fn damage_makes_no_reader_panic(
        which in 0_usize..3,
        at in any::<prop::sample::Index>(),
        damage in proptest::collection::vec(any::<u8>(), 1..6),
        cut: bool,
        near_the_start: bool,
    ) {
        let (files, format, name) = match which {
            0 => (cifar10_files(), "cifar10-python", "data_batch_2"),
            1 => (imagenet32_files("imagenet32", ""), "imagenet32", "train_data_batch_2"),
            _ => (imagenet32_files("imagenet32-npz", ".npz"), "imagenet32", "train_data_batch_2.npz"),
        };
        let mut files = files;
        let content = &mut files.iter_mut().find(|(file, _)| file == name).unwrap().1;
        // Pixels are always valid: most other bytes are near the start.
        let range = if near_the_start { content.len().min(300) } else { content.len() };
        let at = at.index(range);
        if cut {
            content.truncate(at);
        }
        for (byte, damage) in content.iter_mut().skip(at).zip(&damage) {
            *byte = *damage;
        }
        if let Err(error) = run_on(&files, json!({"format": format})) {
            let message = format!("{error:#}");
            prop_assert!(message.contains(name), "{}", message);
        }
    }
}
