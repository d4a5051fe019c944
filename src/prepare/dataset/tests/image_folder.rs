use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use pipeline_stages::formats::{ImageShape, Storage};
use serde_json::json;

use super::*;

/// A picture whose left half is red and whose right half is blue.
fn red_and_blue(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) }
    })
}

fn grey(value: u8) -> GrayImage {
    GrayImage::from_pixel(4, 4, image::Luma([value]))
}

fn write_animals(test: &Fixture) {
    test.write("source/train/dog/2.png", encoded(grey(20), ImageFormat::Png));
    test.write("source/train/dog/1.PNG", encoded(grey(10), ImageFormat::Png));
    test.write("source/train/cat/a.jpeg", encoded(grey(200), ImageFormat::Jpeg));
    test.write("source/train/cat/.hidden.png", "no image");
    test.write("source/train/cat/notes.txt", "no image");
    test.write("source/test/dog/b.png", encoded(grey(30), ImageFormat::Png));
}

#[test]
fn classes_and_files_are_in_the_order_of_their_names() {
    let mut test = Fixture::new();
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
fn every_sample_names_its_file() {
    for encoded in [false, true] {
        let mut test = Fixture::new();
        write_animals(&test);
        test.write("source/train/dog/below/a, \"b\".png", png(40));
        test.write("source/val/cat/v.png", png(80));
        let source = test.folder().join("source");
        let parameters = json!({"format": "image-folder", "size": 2, "encoded": encoded});
        let output = output(&mut test, parameters, &[&source], None).unwrap();
        let files = std::fs::read_to_string(output.join("files.csv")).unwrap();
        let expected = "index,split,path,class\n\
             0,train,train/cat/a.jpeg,cat\n\
             1,train,train/dog/1.PNG,dog\n\
             2,train,train/dog/2.png,dog\n\
             3,train,\"train/dog/below/a, \"\"b\"\".png\",dog\n\
             4,val,val/cat/v.png,cat\n\
             0,test,test/dog/b.png,dog\n";
        assert_eq!(files, expected);
        let labels = Samples::open_any(&output, Part::Train).unwrap().labels;
        assert_eq!(labels, [0, 1, 1, 1, 0], "in the order of the samples");
    }
}

#[test]
fn with_one_coloured_image_all_have_three_channels() {
    let mut test = Fixture::new();
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
    let mut test = Fixture::new();
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
    let mut test = Fixture::new();
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
    let mut test = Fixture::new();
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
    let mut test = Fixture::new();
    write_animals(&test);
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "size": 1, "classes": ["dog", "cat"]});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.info.classes, ["dog", "cat"]);
    assert_eq!(written.train.labels, [0, 0, 1]);
    for (classes, expected) in [
        (json!(["dog", "cats"]), "the class 'cats' does not exist; did you mean 'cat'?"),
        (json!(["dog"]), "the folder 'cat' of "),
    ] {
        let message = error(&mut test, json!({"format": "image-folder", "classes": classes}));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_undecodable_image_is_named() {
    let mut test = Fixture::new();
    write_animals(&test);
    let whole = encoded(red_and_blue(64, 64), ImageFormat::Png);
    for (content, problem) in [
        (&b"<html>"[..], "it is not a JPEG, PNG or WebP file"),
        (&[], "the file is empty"),
        (&whole[..whole.len() / 2], "it is cut off"),
    ] {
        test.write("source/train/dog/3.png", content);
        let message = error(&mut test, json!({"format": "image-folder"}));
        let expected = format!("source/train/dog/3.png: {problem}");
        assert!(message.contains(&expected), "{message}");
    }
}

/// A JPEG of the red and blue picture on its side, whose EXIF data rotates it by 90 degrees clockwise.
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
fn images_are_rotated_according_to_their_exif_data() {
    let mut test = Fixture::new();
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
    let mut test = Fixture::new();
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
fn other_files_cannot_be_kept_encoded() {
    let mut test = Fixture::new();
    write_animals(&test);
    for (name, content) in [("x.jpg", "text"), ("y.png", "")] {
        test.write(&format!("source/train/dog/{name}"), content);
    }
    let message = error(&mut test, json!({"format": "image-folder", "encoded": true}));
    assert!(message.starts_with("2 of 6 images cannot be used:"), "{message}");
    assert!(message.contains("dog/x.jpg: it is not a JPEG, PNG or WebP file"), "{message}");
    assert!(message.contains("dog/y.png: the file is empty"), "{message}");
}

#[test]
fn a_line_is_refused() {
    let mut test = Fixture::new();
    write_animals(&test);
    let line = GrayImage::from_pixel(1000, 2, image::Luma([1]));
    test.write("source/train/dog/3.png", encoded(line, ImageFormat::Png));
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("dog/3.png: 1000x2 pixels are too narrow"), "{message}");
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
    let mut test = Fixture::new();
    write_animals(&test);
    test.write("source/train/dog/3.png", claiming_size(100_000, 100_000));
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("dog/3.png: its header claims 100000x100000 pixels"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_broken_link_is_an_error() {
    let mut test = Fixture::new();
    write_animals(&test);
    let link = test.folder().join("source/train/dog/3.png");
    std::os::unix::fs::symlink("nowhere.png", link).unwrap();
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("source/train/dog/3.png: the file does not exist"), "{message}");
}

#[test]
fn missing_folders() {
    let parameters = || json!({"format": "image-folder"});
    let mut test = Fixture::new();
    test.write("source/readme.txt", "");
    let message = error(&mut test, parameters());
    assert!(message.starts_with("the folder 'train' is missing in "), "{message}");

    test.write("source/train/cat/a.png", encoded(grey(1), ImageFormat::Png));
    let message = error(&mut test, parameters());
    assert!(
        message.contains("the folder ")
            && message.contains("source/test is missing: move some images"),
        "{message}"
    );

    test.write("source/test/notes.txt", "");
    let message = error(&mut test, parameters());
    assert!(message.contains("source/test has no images"), "{message}");

    test.write("source/test/cst/a.png", encoded(grey(1), ImageFormat::Png));
    let message = error(&mut test, parameters());
    assert!(message.contains("the class 'cst' does not exist; did you mean 'cat'?"), "{message}");
}

/// The notes of a stage on the folder `source`, and what it wrote.
fn noted(test: &mut Fixture, parameters: Value) -> (Vec<String>, PathBuf) {
    let source = test.folder().join("source");
    let inputs = [("source", ArtifactType::Directory, source.as_path())];
    let output = test.run_on("dataset", parameters, &inputs, 0, None).unwrap().0;
    (test.notes().to_owned(), output)
}

fn png(value: u8) -> Vec<u8> {
    encoded(grey(value), ImageFormat::Png)
}

#[test]
fn folders_within_a_class_are_read_as_image_folder_sorts_them() {
    let mut test = Fixture::new();
    // Python sorts the folders by their whole paths: "a-b" before "a/c".
    for (path, value) in
        [("z.png", 1), ("a-b/x.png", 3), ("a/x.png", 2), ("a/c/x.png", 4), ("b/x.png", 5)]
    {
        test.write(&format!("source/train/cat/{path}"), png(value));
    }
    test.write("elsewhere/linked.png", png(6));
    test.write("source/test/cat/deep/er/t.png", png(7));
    let source = test.folder().join("source");
    std::os::unix::fs::symlink("../../../elsewhere", source.join("train/cat/c")).unwrap();
    let parameters = json!({"format": "image-folder", "size": 1});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.train.pixels(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(written.test.pixels(), [7]);

    std::os::unix::fs::symlink("..", source.join("train/cat/b/up")).unwrap();
    let message = error(&mut test, json!({"format": "image-folder"}));
    assert!(message.contains("cat/b/up is a link to a folder that contains it"), "{message}");
}

#[test]
fn empty_classes_are_named_with_the_files_in_them() {
    let mut test = Fixture::new();
    write_animals(&test);
    test.write("source/train/bird/notes.txt", "");
    test.write("source/train/fish/1.bmp", "");
    let message = error(&mut test, json!({"format": "image-folder"}));
    let expected = "2 of the 4 classes in ";
    assert!(message.starts_with(expected), "{message}");
    assert!(message.contains("'bird', 'fish'; 3 other files are not read: "), "{message}");
    assert!(message.contains("'fish/1.bmp'"), "{message}");
}

/// The digest of a folder outside the cache leaves these out, so they must not become data.
#[test]
fn outside_the_cache_what_the_digest_leaves_out_is_not_read() {
    let mut test = Fixture::new();
    for path in ["train/cat/a.png", "train/cat~/b.png", "train/cat/old~/c.png", "test/cat/d.png"] {
        test.write(&format!("source/{path}"), png(1));
    }
    test.write("source/train/__pycache__/a.pyc", "");
    let parameters = json!({"format": "image-folder", "size": 1, "path": "source"});
    let written = run(&mut test, parameters, &[]).unwrap();
    assert_eq!(written.info.classes, ["cat"]);
    assert_eq!(written.train.labels, [0]);
    // In an artifact everything counts.
    std::fs::remove_dir_all(test.folder().join("source/train/__pycache__")).unwrap();
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "size": 1});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.info.classes, ["cat", "cat~"]);
    assert_eq!(written.train.labels, [0, 0, 1]);
}

#[test]
fn files_that_are_not_read_are_noted_by_name_and_number() {
    let mut test = Fixture::new();
    write_animals(&test);
    for path in ["train/cat/b.bmp", "train/cat/c.gif", "train/readme.md", "test/dog/x.tif"] {
        test.write(&format!("source/{path}"), "");
    }
    for junk in ["train/cat/.DS_Store", "train/cat/._a.jpeg", "train/cat/Thumbs.db"] {
        test.write(&format!("source/{junk}"), "");
    }
    test.write("source/extra/cat/a.png", png(1));
    test.write("source/__MACOSX/train/cat/._a.png", "");
    let (notes, _) = noted(&mut test, json!({"format": "image-folder"}));
    for expected in [
        "source/test: no images of 1 of the 2 classes: 'cat'",
        "source/train: 4 other files are not read: 'readme.md', 'cat/b.bmp', 'cat/c.gif', 'cat/notes.txt'",
        "source/test: 1 other file is not read: 'dog/x.tif'",
        "source: folders that are not read: 'extra'",
    ] {
        assert!(notes.iter().any(|note| note.contains(expected)), "{expected}: {notes:?}");
    }
    assert_eq!(notes.len(), 4, "{notes:?}");
}

#[test]
fn a_val_folder_becomes_a_split_on_request() {
    for encoded in [false, true] {
        let mut test = Fixture::new();
        write_animals(&test);
        test.write("source/val/dog/v.png", png(90));
        test.write("source/val/cat/v.png", png(80));
        let parameters = json!({"format": "image-folder", "size": 1, "encoded": encoded});
        let (notes, data) = noted(&mut test, parameters);
        let expected = "source/val: 2 images, not used for training";
        assert!(notes.iter().any(|note| note.contains(expected)), "{notes:?}");
        let info = DatasetInfo::read(&data).unwrap();
        assert_eq!((info.train_samples, info.validation_samples, info.test_samples), (5, 2, 1));
        let train = Samples::open_any(&data, Part::Train).unwrap();
        assert_eq!(train.labels, [0, 1, 1, 0, 1]);
        let mean = 230.0 / 3.0 / 255.0;
        assert!((info.channel_mean[0] - mean).abs() < 0.01, "of those that train");
        let mut split = |parameters| {
            let from = [("data", ArtifactType::Dataset, data.as_path())];
            let (split, _) = test.run_on("split", parameters, &from, 1, None)?;
            pipeline_stages::formats::SplitIndices::read(&split)
        };
        let from_folder = split(json!({"from": "val-folder"})).unwrap();
        assert_eq!((from_folder.train, from_folder.validation), (vec![0, 1, 2], vec![3, 4]));
        let drawn = split(json!({"holdout": 1})).unwrap();
        let mut all = [drawn.train, drawn.validation].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2], "a random split leaves out those of the folder");
    }
    let mut test = Fixture::new();
    write_animals(&test);
    let (_, data) = noted(&mut test, json!({"format": "image-folder"}));
    let from = [("data", ArtifactType::Dataset, data.as_path())];
    let error = test.run_on("split", json!({"from": "val-folder"}), &from, 1, None).unwrap_err();
    assert!(error.to_string().contains("no images in a folder val/"), "{error}");
}

#[test]
fn webp_is_read() {
    let mut test = Fixture::new();
    let image = encoded(red_and_blue(8, 8), ImageFormat::WebP);
    for part in ["train", "test"] {
        test.write(&format!("source/{part}/fish/1.webp"), &image);
    }
    let source = test.folder().join("source");
    let parameters = json!({"format": "image-folder", "size": 8});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.train.pixels()[..8], [255, 255, 255, 255, 0, 0, 0, 0]);
}

#[test]
fn an_incomplete_file_is_an_error_in_every_format() {
    let photo =
        RgbImage::from_fn(40, 40, |x, y| Rgb([(x * 6) as u8, (y * 6) as u8, (x * y * 7) as u8]));
    for (format, ending) in
        [(ImageFormat::Jpeg, "jpg"), (ImageFormat::Png, "png"), (ImageFormat::WebP, "webp")]
    {
        let whole = encoded(photo.clone(), format);
        let cut =
            [1, 3, 40, whole.len() / 2, whole.len() - 10].map(|missing| whole.len() - missing);
        let mut test = Fixture::new();
        for part in ["train", "test"] {
            test.write(&format!("source/{part}/a/whole.{ending}"), &whole);
        }
        for length in cut {
            test.write(&format!("source/train/a/{length}.{ending}"), &whole[..length]);
        }
        for keep in [false, true] {
            let message = error(&mut test, json!({"format": "image-folder", "encoded": keep}));
            assert!(message.starts_with("5 of 7 images cannot be used:"), "{message}");
            for length in cut {
                assert!(
                    message.contains(&format!("train/a/{length}.{ending}: it is ")),
                    "{message}"
                );
            }
            for debug in ["Format", "Err", "{", "Static"] {
                assert!(!message.contains(debug), "{message}");
            }
        }
    }
}

#[test]
fn memory_for_images_is_bounded_regardless_of_their_headers() {
    use pipeline_stages::image_file::ImageFile;
    let taken = |width, height, side| {
        let file = claiming_size(width, height);
        super::super::image_folder::bytes_taken(&ImageFile::open(&file).unwrap(), side)
    };
    // The grey images that claim it would take a byte a pixel.
    assert_eq!(taken(400, 300, 32), Ok(2 * 120_000 + 400 * 32 * 16 + 4 * 42 * 32));
    assert!(taken(60_000, 60_000, 32).unwrap_err().contains("60000x60000 pixels"));
    assert!(taken(80_000, 800, 4096).unwrap_err().contains("too narrow"));
    for (width, height, side) in [(30_000, 17_000, 32), (80_000, 820, 512), (22_000, 22_000, 4096)]
    {
        let bytes = taken(width, height, side).unwrap();
        assert!(bytes <= 3 << 30, "{bytes}");
    }
}
