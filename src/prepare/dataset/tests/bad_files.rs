//! Files with wrong content: each error names the file, the offset and what was expected there.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Runs an idx stage in which one file is changed; `None` leaves it out.
fn with_changed(name: &str, content: Option<Vec<u8>>) -> String {
    let mut test = Fixture::new();
    for (other, good) in idx_files() {
        if other != name {
            test.write(&format!("source/{other}"), good);
        }
    }
    if let Some(content) = content {
        test.write(&format!("source/{name}"), content);
    }
    error(&mut test, json!({"format": "idx"}))
}

#[track_caller]
fn check(name: &str, content: Vec<u8>, expected: &str) {
    let message = with_changed(name, Some(content));
    assert!(message.contains(&format!("source/{name}")), "{message}");
    assert!(message.contains(expected), "{message}");
}

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";

#[test]
fn truncated() {
    check(
        TRAIN_IMAGES,
        idx_file(&[3, 2, 3], &[0; 17]),
        "at offset 33: the file ends here, 1 bytes too early: expected 18 bytes of pixels from offset 16",
    );
    check(
        TRAIN_LABELS,
        idx_file(&[3], &[0, 1]),
        "at offset 10: the file ends here, 1 bytes too early",
    );
    check(TRAIN_IMAGES, vec![0, 0, 8, 3, 0, 0], "at offset 6: the file ends within its header");
    check(TRAIN_LABELS, Vec::new(), "at offset 0: expected the magic number [00, 00, 08, 01]");
}

#[test]
fn truncated_after_what_a_limit_takes() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        let content =
            if name == TRAIN_IMAGES { content[..content.len() - 1].to_vec() } else { content };
        test.write(&format!("source/{name}"), content);
    }
    let message = error(&mut test, json!({"format": "idx", "train-limit": 1}));
    assert!(message.contains("at offset 33: the file ends here, 1 bytes too early"), "{message}");
}

#[test]
fn too_long() {
    check(
        TRAIN_LABELS,
        idx_file(&[3], &[0, 1, 2, 0]),
        "at offset 11: expected the end of the file, but it continues",
    );
}

#[test]
fn counts_that_disagree() {
    let message = with_changed(TRAIN_LABELS, Some(idx_file(&[2], &[0, 1])));
    assert!(message.contains("train-images-idx3-ubyte has 3 images, but "), "{message}");
    assert!(message.ends_with("train-labels-idx1-ubyte has 2 labels"), "{message}");
}

#[test]
fn a_header_that_promises_too_much_takes_no_memory() {
    let header = [
        &[0, 0, 8, 3][..],
        &3_u32.to_be_bytes(),
        &30_000_u32.to_be_bytes(),
        &30_000_u32.to_be_bytes(),
    ];
    check(
        TRAIN_IMAGES,
        header.concat(),
        "at offset 16: the file ends here, 2700000000 bytes too early",
    );
    check(TRAIN_IMAGES, idx_file(&[3, 0, 3], &[]), "at offset 8: expected the height and width");
    check(
        TRAIN_IMAGES,
        idx_file(&[3, 1 << 30, 1 << 30], &[]),
        "at offset 8: expected the height and width",
    );
    check(TRAIN_LABELS, idx_file(&[0], &[]), "at offset 4: the file has no samples");
}

#[test]
fn another_magic_number() {
    let good = idx_file(&[3, 2, 3], &[0; 18]);
    check(TRAIN_IMAGES, gzip(&good), "at offset 0: expected the magic number [00, 00, 08, 03]");
    check(TRAIN_IMAGES, gzip(&good), "it looks like a gzip file: rename it so that it ends in .gz");
    check(TRAIN_IMAGES, b"<!DOCTYPE html><html>not found".to_vec(), "it looks like a web page");
    check(TRAIN_IMAGES, b"PK\x03\x04and so on".to_vec(), "it looks like a zip archive");
    check(TRAIN_IMAGES, idx_file(&[3], &[0; 3]), "with 3 dimensions, found [00, 00, 08, 01]");
}

#[test]
fn damaged_gzip() {
    let packed = gzip(&idx_file(&[3, 2, 3], &(0..18).collect::<Vec<_>>()));
    for damaged in
        [packed[..packed.len() - 9].to_vec(), [&packed[..packed.len() - 8], &[0; 8]].concat()]
    {
        let mut test = Fixture::new();
        for (name, content) in idx_files() {
            if name != TRAIN_IMAGES {
                test.write(&format!("source/{name}"), content);
            }
        }
        test.write("source/train-images-idx3-ubyte.gz", damaged);
        let message = error(&mut test, json!({"format": "idx"}));
        assert!(message.contains("train-images-idx3-ubyte.gz: at offset "), "{message}");
        assert!(
            message.contains("(of the unpacked content): the gzip data is damaged or cut off"),
            "{message}"
        );
    }
}

#[test]
fn a_missing_file() {
    let message = with_changed(TRAIN_LABELS, None);
    let expected = "train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz or";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_file_in_two_places() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        test.write(&format!("source/{name}"), &content);
        test.write(&format!("source/copy/{name}"), &content);
    }
    let source = test.folder().join("source");
    assert!(
        run(&mut test, json!({"format": "idx"}), &[&source]).is_ok(),
        "the same bytes are not a conflict"
    );
    test.write(&format!("source/copy/{TRAIN_LABELS}"), idx_file(&[3], &[2, 0, 0]));
    let message = error(&mut test, json!({"format": "idx"}));
    assert!(message.starts_with("which of the two is it: "), "{message}");
}

#[test]
fn labels_beyond_the_given_classes() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        test.write(&format!("source/{name}"), content);
    }
    let message = error(&mut test, json!({"format": "idx", "classes": ["a", "b"]}));
    let expected = "train-labels-idx1-ubyte: at offset 8: the label of sample 0 is 2, but 'classes' names 2 classes";
    assert!(message.contains(expected), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_content_makes_a_reader_panic(content in proptest::collection::vec(any::<u8>(), 0..40), header: bool) {
        let content = if header { [&[0, 0, 8, 3], content.as_slice()].concat() } else { content };
        let message = with_changed(TRAIN_IMAGES, Some(content));
        prop_assert!(message.contains("train-images-idx3-ubyte"), "{}", message);
    }
}
