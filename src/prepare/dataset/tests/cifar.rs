use serde_json::json;

use super::*;
use pipeline_stages::cifar_classes::{CIFAR10_CLASSES, cifar100_classes};

/// A record whose red, green and blue planes start with `value`, `value + 1`, `value + 2`.
fn record(labels: &[u8], value: u8) -> Vec<u8> {
    let plane = |value| std::iter::once(value).chain(std::iter::repeat_n(0, 1023));
    let pixels = (value..value + 3).flat_map(plane);
    labels.iter().copied().chain(pixels).collect()
}

fn write_cifar10(test: &Fixture) {
    let folder = "source/cifar-10-batches-bin";
    for batch in 1..=5 {
        let content = [record(&[batch - 1], batch * 10), record(&[9], batch * 10 + 5)].concat();
        test.write(&format!("{folder}/data_batch_{batch}.bin"), content);
    }
    test.write(&format!("{folder}/test_batch.bin"), record(&[3], 200));
}

#[test]
fn cifar10_in_the_folder_of_its_archive() {
    let mut test = Fixture::new();
    write_cifar10(&test);
    let source = test.folder().join("source");
    let written = run(&mut test, json!({"format": "cifar10"}), &[&source]).unwrap();
    assert_eq!(written.train.labels, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]);
    assert_eq!(written.test.labels, [3]);
    assert_eq!(written.info.classes, CIFAR10_CLASSES);
    let pixels = written.train.pixels();
    let starts: Vec<_> = pixels.chunks_exact(1024).map(|plane| plane[0]).collect();
    assert_eq!(starts[..9], [10, 11, 12, 15, 16, 17, 20, 21, 22]);
    assert_eq!(pixels.len(), 10 * 3072);
}

#[test]
fn names_come_from_the_file_if_it_exists() {
    let mut test = Fixture::new();
    write_cifar10(&test);
    let names: Vec<_> = ('a'..='j').map(String::from).collect();
    let meta =
        test.write("source/cifar-10-batches-bin/batches.meta.txt", names.join("\n") + "\n\n");
    let source = test.folder().join("source");
    let written = run(&mut test, json!({"format": "cifar10"}), &[&source]).unwrap();
    assert_eq!(written.info.classes, names);
    std::fs::write(&meta, "airplane\nautomobile\n").unwrap();
    let message = error(&mut test, json!({"format": "cifar10"}));
    assert!(
        message.contains("batches.meta.txt: expected 10 class names, one per line, found 2"),
        "{message}"
    );
    std::fs::write(&meta, "a\nb\nc\nd\ne\nf\ng\nh\ni\na\n").unwrap();
    let message = error(&mut test, json!({"format": "cifar10"}));
    assert!(message.contains("two classes have the name 'a': name all in 'classes'"), "{message}");
    let classes: Vec<_> = (0..10).map(|class| class.to_string()).collect();
    let stage = json!({"format": "cifar10", "classes": classes});
    assert_eq!(run(&mut test, stage, &[&source]).unwrap().info.classes, classes);
}

#[test]
fn cifar100_takes_the_fine_label() {
    let mut test = Fixture::new();
    let folder = "source/cifar-100-binary";
    test.write(
        &format!("{folder}/train.bin"),
        [record(&[11, 49], 1), record(&[19, 99], 7)].concat(),
    );
    test.write(&format!("{folder}/test.bin"), record(&[0, 30], 2));
    let source = test.folder().join("source");
    let written =
        run(&mut test, json!({"format": "cifar100", "train-limit": 1}), &[&source]).unwrap();
    assert_eq!((written.train.labels, written.test.labels), (vec![49], vec![30]));
    assert_eq!(written.info.classes, cifar100_classes());
    assert_eq!(written.info.classes[30], "dolphin");

    let name = format!("{folder}/train.bin");
    test.write(&name, [record(&[19, 99], 7), record(&[20, 99], 7)].concat());
    let message = error(&mut test, json!({"format": "cifar100"}));
    assert!(
        message
            .contains("train.bin: at offset 3074: expected a coarse label from 0 to 19, found 20"),
        "{message}"
    );
    test.write(&name, [record(&[19, 99], 7), record(&[19, 100], 7)].concat());
    let message = error(&mut test, json!({"format": "cifar100"}));
    assert!(
        message
            .contains("train.bin: at offset 3075: expected a fine label from 0 to 99, found 100"),
        "{message}"
    );
}

#[test]
fn damaged_cifar10() {
    let whole = [record(&[1], 1), record(&[2], 1)].concat();
    for (content, expected) in [
        (
            whole[..6000].to_vec(),
            "at offset 6000: the file ends within a record, after 2927 of its 3073 bytes",
        ),
        (Vec::new(), "at offset 0: the file is empty"),
        (record(&[10], 0), "at offset 0: expected a label from 0 to 9, found 10"),
        (gzip(&whole), "it looks like a gzip file"),
        (b"<html>no</html>".to_vec(), "it looks like a web page"),
    ] {
        let mut test = Fixture::new();
        write_cifar10(&test);
        test.write("source/cifar-10-batches-bin/data_batch_3.bin", content);
        let message = error(&mut test, json!({"format": "cifar10"}));
        assert!(message.contains("data_batch_3.bin: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_missing_batch() {
    let mut test = Fixture::new();
    write_cifar10(&test);
    std::fs::remove_file(test.folder().join("source/cifar-10-batches-bin/data_batch_4.bin"))
        .unwrap();
    let message = error(&mut test, json!({"format": "cifar10"}));
    assert!(message.starts_with("data_batch_4.bin is missing in "), "{message}");
}
