//! A Clothing1M of a few small images.

use image::{ImageFormat, Rgb, RgbImage};
use pipeline_stages::formats::{ImageShape, Storage};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NAMES: &str = "T-Shirt\nShirt\nKnitwear\nChiffon\nSweater\nHoodie\nWindbreaker\nJacket\n\
                     Down Coat\nSuit\nShawl\nDress\nVest\nUnderwear\n";

fn jpeg(value: u8) -> Vec<u8> {
    let image = RgbImage::from_pixel(8 + u32::from(value) % 3, 8, Rgb([value, 0, 255]));
    encoded(image, ImageFormat::Jpeg)
}

const TEXTS: [(&str, &str); 6] = [
    ("category_names_eng.txt", NAMES),
    ("noisy_train_key_list.txt", "images/0/00/1,1.jpg\nimages/9/99/2,2.jpg\nimages/0/00/3,3.jpg\n"),
    ("clean_val_key_list.txt", "images/1/10/4,4.jpg\n"),
    ("clean_test_key_list.txt", "images/0/00/3,3.jpg\nimages/1/10/5,5.jpg\n"),
    // The third image has both labels, and they differ.
    (
        "noisy_label_kv.txt",
        "images/9/99/2,2.jpg 13\nimages/0/00/1,1.jpg 0\nimages/0/00/3,3.jpg 5\n",
    ),
    ("clean_label_kv.txt", "images/0/00/3,3.jpg 6\nimages/1/10/4,4.jpg 7\nimages/1/10/5,5.jpg 8\n"),
];
const IMAGES: [(&str, u8); 5] = [
    ("images/0/00/1,1.jpg", 10),
    ("images/9/99/2,2.jpg", 20),
    ("images/0/00/3,3.jpg", 30),
    ("images/1/10/4,4.jpg", 40),
    ("images/1/10/5,5.jpg", 50),
];

fn clothing() -> Fixture {
    let test = Fixture::new();
    for (name, text) in TEXTS {
        test.write(&format!("source/annotations/{name}"), text);
    }
    for (path, value) in IMAGES {
        test.write(&format!("source/{path}"), jpeg(value));
    }
    test
}

fn parameters() -> Value {
    json!({"format": "clothing1m"})
}

#[test]
fn noisy_samples_train_and_clean_ones_validate_and_test() {
    let mut test = clothing();
    let source = test.folder().join("source");
    let written = run(&mut test, parameters(), &[&source]).unwrap();
    assert_eq!(written.train.labels, [0, 13, 5, 7], "noisy ones, then those of clean_val");
    assert_eq!(written.test.labels, [6, 8]);
    for (samples, values) in [(&written.train, &[10, 20, 30, 40][..]), (&written.test, &[30, 50])] {
        for (index, &value) in values.iter().enumerate() {
            assert_eq!(samples.encoded(index), Some(jpeg(value).as_slice()));
        }
    }
    let info = written.info;
    assert_eq!((info.storage, info.image), (Storage::Encoded, ImageShape::ENCODED));
    assert_eq!((info.train_samples, info.validation_samples, info.test_samples), (4, 1, 2));
    assert_eq!((info.classes.len(), info.classes[8].as_str()), (14, "Down Coat"));
    assert!((info.channel_mean[2] - 1.0).abs() < 0.02, "all are blue: {:?}", info.channel_mean);
    assert!(info.channel_mean[0] < 0.15, "{:?}", info.channel_mean);
}

#[test]
fn its_own_split_holds_clean_val_out() {
    let mut test = clothing();
    let source = test.folder().join("source");
    let data = output(&mut test, parameters(), &[&source], None).unwrap();
    let from = ("data", ArtifactType::Dataset, data.as_path());
    let (split, metrics) =
        test.run_on("split", json!({"by": "dataset"}), &[from], 0, None).unwrap();
    let split = pipeline_stages::formats::SplitIndices::read(&split).unwrap();
    assert_eq!((split.train, split.validation), (vec![0, 1, 2], vec![3]));
    assert_eq!(metrics["validation-samples"], 1.0);
}

#[test]
fn limits_leave_those_for_validation() {
    let mut test = clothing();
    let source = test.folder().join("source");
    let limits = json!({"format": "clothing1m", "train-limit": 1, "test-limit": 1});
    let written = run(&mut test, limits, &[&source]).unwrap();
    assert_eq!((written.train.labels, written.test.labels), (vec![0, 7], vec![6]));
    assert_eq!(written.info.validation_samples, 1);
}

#[test]
fn threads_do_not_change_the_bytes() {
    let mut test = clothing();
    let source = test.folder().join("source");
    let mut bytes_with =
        |threads| bytes(&output(&mut test, parameters(), &[&source], threads).unwrap());
    assert_eq!(bytes_with(Some(1)), bytes_with(Some(3)));
}

#[test]
fn unusable_images_are_counted_and_the_first_named() {
    let mut test = clothing();
    let source = test.folder().join("source");
    std::fs::remove_file(source.join("images/9/99/2,2.jpg")).unwrap();
    test.write("source/images/1/10/4,4.jpg", "<html>");
    let message = error(&mut test, parameters());
    assert!(message.starts_with("2 of 6 images cannot be used:"), "{message}");
    assert!(message.contains("9/99/2,2.jpg: the file does not exist"), "{message}");
    assert!(message.contains("1/10/4,4.jpg: it is not a JPEG, PNG or WebP"), "{message}");
    assert!(message.contains("on request"), "{message}");
}

#[test]
fn an_image_that_only_starts_like_one_is_found_when_it_is_decoded() {
    let mut test = clothing();
    test.write("source/images/0/00/1,1.jpg", [0xff, 0xd8, 0xff, 0xe0]);
    let message = error(&mut test, parameters());
    assert!(message.contains("1 of 6 images cannot be used"), "{message}");
    assert!(message.contains("1,1.jpg: it is damaged"), "{message}");
}

/// The statistics are of training samples: images for validation and test must be checked too.
#[test]
fn an_image_that_no_training_could_decode_is_found_in_every_part() {
    let whole = jpeg(40);
    let cut_off = &whole[..whole.len() / 3];
    let mut bomb =
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    let mut checksum = flate2::Crc::new();
    checksum.update(&bomb[12..]);
    bomb.extend(checksum.sum().to_be_bytes());
    bomb.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    for (bytes, words) in
        [(cut_off, "it is damaged"), (&bomb, "its header claims 60000x60000 pixels")]
    {
        for path in ["1/10/4,4.jpg", "1/10/5,5.jpg"] {
            let mut test = clothing();
            test.write(&format!("source/images/{path}"), bytes);
            let message = error(&mut test, parameters());
            assert!(message.starts_with("1 of 6 images cannot be used:"), "{message}");
            assert!(message.contains(&format!("{path}: {words}")), "{message}");
        }
    }
}

#[test]
fn missing_files_are_named_with_where_to_request_them() {
    for (name, _) in TEXTS {
        let mut test = clothing();
        std::fs::remove_file(test.folder().join("source/annotations").join(name)).unwrap();
        let message = error(&mut test, parameters());
        assert!(message.contains(name) && message.contains("on request"), "{message}");
    }
    let mut test = clothing();
    std::fs::remove_dir_all(test.folder().join("source/images")).unwrap();
    let message = error(&mut test, parameters());
    assert!(message.contains("the folder 'images' is missing"), "{message}");
    assert!(message.contains("on request"), "{message}");
}

#[test]
fn a_missing_folder_is_named_with_where_to_request_the_data() {
    for (format, place) in [("clothing1m", "noisy_label"), ("imagenet32", "image-net.org")] {
        let mut test = Fixture::new();
        let message = match run(&mut test, json!({"format": format, "path": "not/there"}), &[]) {
            Ok(_) => panic!("the stage succeeded"),
            Err(error) => format!("{error:#}"),
        };
        assert!(message.contains("not/there is not a folder"), "{message}");
        assert!(message.contains(place), "{message}");
    }
}

#[test]
fn lists_with_other_content_are_errors() {
    for (name, text, expected) in [
        (
            "noisy_label_kv.txt",
            "images/0/00/1,1.jpg 14\n",
            "noisy_label_kv.txt:1: expected a path and a label",
        ),
        (
            "noisy_label_kv.txt",
            "\n1,1.jpg\n",
            "noisy_label_kv.txt:2: expected a path and a label from 0 to 13",
        ),
        (
            "noisy_label_kv.txt",
            "other.jpg 3\n",
            "noisy_train_key_list.txt:1: 'images/0/00/1,1.jpg' has no label",
        ),
        (
            "clean_test_key_list.txt",
            "../secret.jpg\n",
            "clean_test_key_list.txt:1: '../secret.jpg' is outside",
        ),
        ("clean_test_key_list.txt", "/etc/passwd\n", "is outside the folder"),
        ("clean_val_key_list.txt", "\n\n", "clean_val_key_list.txt does not list any images"),
        ("category_names_eng.txt", "Shirt\n", "expected 14 class names, one per line, found 1"),
    ] {
        let mut test = clothing();
        test.write(&format!("source/annotations/{name}"), text);
        let message = error(&mut test, parameters());
        assert!(message.contains(expected), "{message} should have {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn damaged_lists_make_no_reader_panic(
        which in 0_usize..6,
        at in any::<prop::sample::Index>(),
        damage in proptest::collection::vec(any::<u8>(), 1..6),
    ) {
        let mut test = clothing();
        let (name, text) = TEXTS[which];
        let mut content = text.as_bytes().to_vec();
        let at = at.index(content.len());
        for (byte, damage) in content.iter_mut().skip(at).zip(&damage) {
            *byte = *damage;
        }
        test.write(&format!("source/annotations/{name}"), content);
        let source = test.folder().join("source");
        if let Err(error) = run(&mut test, parameters(), &[&source]) {
            let message = format!("{error:#}");
            let named = message.contains(name) || message.contains("cannot be used");
            prop_assert!(named, "{}", message);
        }
    }
}
