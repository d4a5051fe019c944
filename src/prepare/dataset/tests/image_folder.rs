use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage};
use pipeline_stages::formats::{ImageShape, Storage};
use serde_json::json;

use super::*;

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture whose left half is red and whose right half is blue.
fn red_and_blue(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) }
    })
}

fn grey(value: u8) -> GrayImage {
    GrayImage::from_pixel(4, 4, image::Luma([value]))
}

fn write_animals(test: &StageTest) {
    test.write("source/train/dog/2.png", encoded(grey(20), ImageFormat::Png));
    test.write("source/train/dog/1.PNG", encoded(grey(10), ImageFormat::Png));
    test.write("source/train/cat/a.jpeg", encoded(grey(200), ImageFormat::Jpeg));
    test.write("source/train/cat/.hidden.png", "no image");
    test.write("source/train/cat/notes.txt", "no image");
    test.write("source/test/dog/b.png", encoded(grey(30), ImageFormat::Png));
}

#[test]
fn classes_and_files_are_in_the_order_of_their_names() {
    let mut test = StageTest::new();
    write_animals(&test);
    let source = test.folder().join("source");
    let written = run(&mut test, json!({"format": "image-folder", "size": 2}), &[&source]).unwrap();
    assert_eq!(written.info.classes, ["cat", "dog"]);
    assert_eq!(written.info.image.channels, 1, "all are grey");
    assert_eq!(written.train.labels, [0, 1, 1]);
    assert_eq!(written.train.pixels(), [[200; 4], [10; 4], [20; 4]].concat());
    assert_eq!((written.test.labels.as_slice(), written.test.pixels()), (&[1][..], &[30; 4][..]));
}

#[test]
fn one_coloured_image_makes_all_of_three_channels() {
    let mut test = StageTest::new();
    write_animals(&test);
    test.write("source/test/cat/c.png", encoded(red_and_blue(8, 4), ImageFormat::Png));
    let source = test.folder().join("source");
    let written = run(&mut test, json!({"format": "image-folder", "size": 4}), &[&source]).unwrap();
    assert_eq!(written.info.image.channels, 3);
    assert_eq!(written.train.pixels()[..48], [200; 48]);
    // The centre of 8x4 pixels: two red columns, two blue ones, plane by plane.
    let row = |left: u8, right: u8| [left, left, right, right];
    let planes = [row(255, 0), row(0, 0), row(0, 255)].map(|row| [row; 4].concat()).concat();
    assert_eq!(written.test.pixels()[..48], planes);
}

#[test]
fn shrinking_does_not_alias() {
    let mut test = StageTest::new();
    // Columns of black and white, one pixel wide, average to grey.
    let stripes =
        GrayImage::from_fn(64, 64, |x, _| image::Luma([if x % 2 == 0 { 0 } else { 255 }]));
    for part in ["train", "test"] {
        test.write(
            &format!("source/{part}/stripes/a.png"),
            encoded(stripes.clone(), ImageFormat::Png),
        );
    }
    let source = test.folder().join("source");
    let written = run(&mut test, json!({"format": "image-folder", "size": 8}), &[&source]).unwrap();
    assert!(written.train.pixels().iter().all(|value| (115..=140).contains(value)));
}

#[test]
fn threads_do_not_change_the_bytes() {
    let mut test = StageTest::new();
    for index in 0..40_u8 {
        for part in ["train", "test"] {
            let image = RgbImage::from_fn(20, 30, |x, y| {
                Rgb([(x as u8).wrapping_mul(index), y as u8, index])
            });
            test.write(
                &format!("source/{part}/c{}/{index}.jpg", index % 3),
                encoded(image, ImageFormat::Jpeg),
            );
        }
    }
    let source = test.folder().join("source");
    let mut bytes_with = |threads| {
        let parameters = json!({"format": "image-folder", "size": 16});
        bytes(&output(&mut test, parameters, &[&source], threads).unwrap())
    };
    assert_eq!(bytes_with(Some(1)), bytes_with(Some(4)));
}

#[test]
fn a_limit_takes_from_every_class_in_turn() {
    let mut test = StageTest::new();
    write_animals(&test);
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "size": 1, "train-limit": 2});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(
        (written.train.labels.as_slice(), written.train.pixels()),
        (&[0, 1][..], &[200, 10][..])
    );
}

#[test]
fn classes_order_the_labels() {
    let mut test = StageTest::new();
    write_animals(&test);
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "size": 1, "classes": ["dog", "cat"]});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.info.classes, ["dog", "cat"]);
    assert_eq!(written.train.labels, [0, 0, 1]);
    for (classes, expected) in [
        (json!(["dog", "cats"]), "there is no class 'cats'; did you mean 'cat'?"),
        (json!(["dog"]), "'classes' leaves out the folder 'cat'"),
    ] {
        let message = error(&mut test, json!({"format": "image-folder", "classes": classes}));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_undecodable_image_is_named() {
    let mut test = StageTest::new();
    write_animals(&test);
    let whole = encoded(red_and_blue(64, 64), ImageFormat::Png);
    for content in [&b"<html>"[..], &[], &whole[..whole.len() / 2]] {
        test.write("source/train/dog/3.png", content);
        let message = error(&mut test, json!({"format": "image-folder"}));
        assert!(message.contains("source/train/dog/3.png can't be decoded: "), "{message}");
    }
}

/// A JPEG of the red and blue picture lying on its side, which its EXIF data says to turn by 90 degrees clockwise.
fn turned_jpeg() -> Vec<u8> {
    use image::ImageEncoder;
    const ORIENTATION: [u8; 26] = [
        b'I', b'I', 42, 0, 8, 0, 0, 0, // little-endian TIFF, its directory at 8
        1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0,
        0, // one entry: orientation, one short, 6
        0, 0, 0, 0,
    ];
    let upright = red_and_blue(16, 16);
    let lying = image::imageops::rotate270(&upright);
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.set_exif_metadata(ORIENTATION.to_vec()).unwrap();
    encoder.encode_image(&lying).unwrap();
    bytes
}

#[test]
fn images_stand_as_their_exif_data_says() {
    let mut test = StageTest::new();
    for part in ["train", "test"] {
        test.write(&format!("source/{part}/a/1.jpg"), turned_jpeg());
    }
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "size": 16});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    let red = &written.train.pixels()[..256];
    for row in red.chunks_exact(16) {
        assert!(row[..6].iter().all(|&value| value > 200), "red on the left: {row:?}");
        assert!(row[10..].iter().all(|&value| value < 60), "blue on the right: {row:?}");
    }
}

#[test]
fn encoded_images_are_the_files_themselves() {
    let mut test = StageTest::new();
    write_animals(&test);
    test.write("source/test/cat/c.png", encoded(red_and_blue(8, 4), ImageFormat::Png));
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "encoded": true});
    let written = run(&mut test, parameters.clone(), &[&source]).unwrap();
    assert_eq!(written.info.storage, Storage::Encoded);
    assert_eq!(written.info.image, ImageShape::ENCODED);
    assert_eq!((written.info.train_samples, written.info.test_samples), (3, 2));
    assert_eq!(written.info.classes, ["cat", "dog"]);
    assert_eq!(written.train.labels, [0, 1, 1]);
    for (index, file) in ["cat/a.jpeg", "dog/1.PNG", "dog/2.png"].into_iter().enumerate() {
        let bytes = std::fs::read(source.join("train").join(file)).unwrap();
        assert_eq!(written.train.encoded(index), Some(bytes.as_slice()), "{file}");
    }
    // Three images of one grey each, of as many pixels: 200, 10 and 20.
    let mean = 230.0 / 3.0 / 255.0;
    for channel in written.info.channel_mean {
        assert!((channel - mean).abs() < 0.01, "{channel}");
    }
    let mut bytes_with =
        |threads| bytes(&output(&mut test, parameters.clone(), &[&source], threads).unwrap());
    assert_eq!(bytes_with(Some(1)), bytes_with(Some(4)));
}

#[test]
fn what_is_no_image_can_not_be_kept_encoded() {
    let mut test = StageTest::new();
    write_animals(&test);
    for (name, content) in [("x.jpg", "text"), ("y.png", "")] {
        test.write(&format!("source/train/dog/{name}"), content);
    }
    let message = error(&mut test, json!({"format": "image-folder", "encoded": true}));
    assert!(message.starts_with("2 of 6 images can't be used:"), "{message}");
    assert!(message.contains("dog/x.jpg: neither JPEG nor PNG"), "{message}");
    assert!(message.contains("dog/y.png: the file is empty"), "{message}");
}

#[test]
fn a_line_is_no_image() {
    let mut test = StageTest::new();
    write_animals(&test);
    let line = GrayImage::from_pixel(1000, 2, image::Luma([1]));
    test.write("source/train/dog/3.png", encoded(line, ImageFormat::Png));
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("dog/3.png is of 1000x2 pixels: too narrow"), "{message}");
}

/// A PNG of a few bytes whose header claims another size.
fn claiming_size(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(grey(1), ImageFormat::Png);
    // The signature, then the chunk IHDR: length, name, width, height, 5 bytes more, CRC of name and content.
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    bytes
}

#[test]
fn a_small_file_that_claims_to_be_huge_is_refused_before_it_takes_memory() {
    let mut test = StageTest::new();
    write_animals(&test);
    test.write("source/train/dog/3.png", claiming_size(100_000, 100_000));
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("dog/3.png is of 100000x100000 pixels"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_not_passed_over() {
    let mut test = StageTest::new();
    write_animals(&test);
    let link = test.folder().join("source/train/dog/3.png");
    std::os::unix::fs::symlink("nowhere.png", link).unwrap();
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("source/train/dog/3.png can't be decoded"), "{message}");
}

#[test]
fn missing_folders() {
    let parameters = || json!({"format": "image-folder"});
    let mut test = StageTest::new();
    test.write("source/readme.txt", "");
    let message = error(&mut test, parameters());
    assert!(message.starts_with("there is no folder 'train' in "), "{message}");

    test.write("source/train/cat/a.png", encoded(grey(1), ImageFormat::Png));
    let message = error(&mut test, parameters());
    assert!(
        message.contains("there is no folder ")
            && message.contains("source/test: move some images"),
        "{message}"
    );

    test.write("source/test/notes.txt", "");
    let message = error(&mut test, parameters());
    assert!(message.contains("source/test has no images"), "{message}");

    test.write("source/test/cst/a.png", encoded(grey(1), ImageFormat::Png));
    let message = error(&mut test, parameters());
    assert!(message.contains("there is no class 'cst'; did you mean 'cat'?"), "{message}");
}
