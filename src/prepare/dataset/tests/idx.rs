use serde_json::json;

use super::*;
use crate::samples::unpack_fashion_mnist;

#[test]
fn four_files_become_a_data_set() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        test.write(&format!("source/{name}"), content);
    }
    let source = test.folder().join("source");
    let written = run(&mut test, json!({"format": "idx"}), &[&source]).unwrap();
    assert_eq!(written.train.pixels(), (0..18).collect::<Vec<u8>>());
    assert_eq!(written.train.labels, [2, 0, 1]);
    assert_eq!(written.test.pixels(), (100..112).collect::<Vec<u8>>());
    assert_eq!(written.test.labels, [1, 1]);
    let info = written.info;
    assert_eq!(info.classes, ["0", "1", "2"]);
    assert_eq!((info.image.channels, info.image.height, info.image.width), (1, 2, 3));
    assert_eq!((info.format.as_str(), info.train_samples, info.test_samples), ("idx", 3, 2));
    assert!((info.channel_mean[0] - 8.5 / 255.0).abs() < 1e-12);
    assert_eq!(test.notes(), [""; 0]);
}

#[test]
fn files_can_be_compressed_nested_and_in_several_inputs() {
    let mut test = Fixture::new();
    let mut plain = Fixture::new();
    for (index, (name, content)) in idx_files().into_iter().enumerate() {
        plain.write(&format!("source/{name}"), &content);
        test.write(&format!("download-{index}/inner/{name}.gz"), gzip(&content));
    }
    let downloads: Vec<_> =
        (0..4).map(|index| test.folder().join(format!("download-{index}"))).collect();
    let downloads: Vec<_> = downloads.iter().map(PathBuf::as_path).collect();
    let parameters = || json!({"format": "idx", "classes": ["a", "b", "c"]});
    let packed = output(&mut test, parameters(), &downloads, None).unwrap();
    let source = plain.folder().join("source");
    let plain_output = output(&mut plain, parameters(), &[&source], None).unwrap();
    assert_eq!(bytes(&packed), bytes(&plain_output));
}

#[test]
fn a_path_outside_the_cache() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        test.write(&format!("mine/{name}"), content);
    }
    let written = run(&mut test, json!({"format": "idx", "path": "mine"}), &[]).unwrap();
    assert_eq!(written.train.labels.len(), 3);
    let missing = run(&mut test, json!({"format": "idx", "path": "none"}), &[]).err().unwrap();
    assert!(missing.to_string().ends_with("none is not a folder"), "{missing}");
}

#[test]
fn a_class_can_be_without_samples() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        test.write(&format!("source/{name}"), content);
    }
    let source = test.folder().join("source");
    let classes = ["a", "b", "c", "d"];
    let parameters = json!({"format": "idx", "classes": classes});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.info.classes, classes);
    let note =
        "no training samples of 1 of the 4 classes: 'd'; noise over all classes draws them, too";
    assert_eq!(test.notes(), [note]);
}

#[test]
fn limits_take_the_first_samples() {
    let mut test = Fixture::new();
    for (name, content) in idx_files() {
        test.write(&format!("source/{name}"), content);
    }
    let source = test.folder().join("source");
    let parameters = json!({"format": "idx", "train-limit": 2, "test-limit": 100});
    let written = run(&mut test, parameters, &[&source]).unwrap();
    assert_eq!(written.train.labels, [2, 0]);
    assert_eq!(written.train.pixels(), (0..12).collect::<Vec<u8>>());
    assert_eq!(written.test.labels, [1, 1]);
    assert_eq!(written.info.classes.len(), 3, "the classes are those of the whole files");
    assert!(test.notes()[0].ends_with("the test part has samples of '1'"), "{:?}", test.notes());
}

/// The data of the quickstart, from its archive.
#[test]
fn fashion_mnist_has_the_known_statistics() {
    let mut test = Fixture::new();
    let source = test.folder().join("source");
    unpack_fashion_mnist(&source);
    let written = run(&mut test, json!({"format": "idx"}), &[&source]).unwrap();
    assert_eq!((written.info.train_samples, written.info.test_samples), (5000, 1000));
    assert_eq!(written.info.classes.len(), 10);
    // The first labels of Fashion-MNIST, and NumPy's mean and standard deviation of these 5,000 images.
    assert_eq!(written.train.labels[..10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
    assert_eq!(written.test.labels[..10], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
    assert!((written.info.channel_mean[0] - 0.286_146_442_577_030_8).abs() < 1e-12);
    assert!((written.info.channel_std[0] - 0.354_378_500_408_822_6).abs() < 1e-12);
}
