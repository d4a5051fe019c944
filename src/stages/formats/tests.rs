//! Round trips, the same bytes for the same content, and errors that name the file.

use proptest::prelude::*;
use safetensors::Dtype;

use super::*;
use crate::message::Metrics;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn info() -> DatasetInfo {
    DatasetInfo {
        format: "idx".into(),
        classes: vec!["a".into(), "b".into()],
        image: ImageShape { channels: 1, height: 2, width: 3 },
        train_samples: 2,
        test_samples: 1,
        channel_mean: vec![0.1],
        channel_std: vec![1.0 / 3.0],
        ..DatasetInfo::default()
    }
}

#[test]
fn samples_read_back_in_place() {
    let folder = folder();
    let pixels: Vec<u8> = (0..12).collect();
    write_samples(folder.path(), Part::Train, info().image, &pixels, &[1, 0]).unwrap();
    let samples = Samples::open(folder.path(), Part::Train).unwrap();
    assert_eq!((samples.pixels(), samples.labels.as_slice()), (pixels.as_slice(), &[1, 0][..]));
    assert_eq!(samples.image, info().image);
}

#[test]
fn pixels_written_one_by_one_are_those_written_at_once() {
    let (at_once, one_by_one) = (folder(), folder());
    let pixels: Vec<u8> = (0..12).collect();
    write_samples(at_once.path(), Part::Train, info().image, &pixels, &[1, 0]).unwrap();
    let mut writer = SamplesWriter::pixels(one_by_one.path(), Part::Train, info().image).unwrap();
    writer.push(&pixels[..6], 1).unwrap();
    let error = writer.push(&pixels[..5], 1).unwrap_err().to_string();
    assert!(error.contains("an image of 5 bytes, where the shape has 6"), "{error}");
    writer.push(&pixels[6..], 0).unwrap();
    assert_eq!(writer.samples(), 2);
    writer.finish().unwrap();
    let open = |folder: &tempfile::TempDir| Samples::open(folder.path(), Part::Train).unwrap();
    let (expected, found) = (open(&at_once), open(&one_by_one));
    assert_eq!(found.pixels(), expected.pixels());
    assert!(found.encoded(0).is_none());
    assert_eq!((found.labels, found.image), (expected.labels, expected.image));
}

#[test]
fn encoded_images_read_back_by_index() {
    let folder = folder();
    let images: [&[u8]; 3] = [b"first", b"", b"the third"];
    let mut writer = SamplesWriter::encoded(folder.path(), Part::Test).unwrap();
    for (image, label) in images.into_iter().zip([4, 0, 2]) {
        writer.push(image, label).unwrap();
    }
    writer.finish().unwrap();
    let samples = Samples::open_any(folder.path(), Part::Test).unwrap();
    assert_eq!((samples.storage(), samples.image), (Storage::Encoded, ImageShape::ENCODED));
    assert_eq!(samples.labels, [4, 0, 2]);
    for (index, image) in images.into_iter().enumerate() {
        assert_eq!(samples.encoded(index), Some(image));
    }
    assert_eq!((samples.encoded(3), samples.encoded(usize::MAX)), (None, None));
    assert!(samples.pixels().is_empty());
    let error = Samples::open(folder.path(), Part::Test).err().unwrap().to_string();
    assert!(error.starts_with("the images of this data set are kept encoded"), "{error}");
}

#[test]
fn a_part_that_was_not_finished_cannot_be_read() {
    let folder = folder();
    let mut writer = SamplesWriter::encoded(folder.path(), Part::Train).unwrap();
    writer.push(b"image", 0).unwrap();
    drop(writer);
    let error = Samples::open_any(folder.path(), Part::Train).err().unwrap().to_string();
    assert!(error.contains("is not a complete safetensors file"), "{error}");
}

#[test]
fn invalid_offsets_are_refused() {
    for (offsets, expected) in [
        (vec![0, 3, 2], "the offsets are not in order"),
        (vec![1, 2, 3], "the offsets are not in order"),
        (vec![0, 1, 9], "the last image ends at 9 of 8 bytes"),
        (vec![0, -1, 2], "an offset is negative"),
        (vec![], "it is empty"),
        (vec![0, 1], "1 images, but 2 labels"),
    ] {
        let folder = folder();
        let integers = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let bytes: Vec<u8> = integers(&offsets);
        let labels: Vec<u8> = integers(&[0, 1]);
        let tensors = [
            ("encoded", Dtype::U8, vec![8], vec![0; 8].into()),
            ("labels", Dtype::I64, vec![2], labels.into()),
            ("offsets", Dtype::I64, vec![offsets.len()], bytes.into()),
        ];
        write_tensors(&folder.path().join("train.safetensors"), &tensors, &[]).unwrap();
        let error = format!("{:#}", Samples::open_any(folder.path(), Part::Train).err().unwrap());
        assert!(error.contains("train.safetensors") && error.contains(expected), "{error}");
    }
}

#[test]
fn fields_without_content_are_left_out() {
    let plain = serde_json::to_string(&info()).unwrap();
    assert!(!plain.contains("storage") && !plain.contains("validation-samples"), "{plain}");
    let info = DatasetInfo { storage: Storage::Encoded, validation_samples: 1, ..info() };
    let text = serde_json::to_string(&info).unwrap();
    assert!(text.contains(r#""storage":"encoded""#), "{text}");
    assert!(text.contains(r#""validation-samples":1"#), "{text}");
    assert_eq!(serde_json::from_str::<DatasetInfo>(&text).unwrap(), info);
}

#[test]
fn samples_of_another_shape_are_refused() {
    let folder = folder();
    let error =
        write_samples(folder.path(), Part::Test, info().image, &[0; 11], &[1, 0]).unwrap_err();
    assert!(error.to_string().contains("'images' does not have the bytes of its shape"), "{error}");
}

#[test]
fn json_reads_back() {
    let folder = folder();
    info().write(folder.path()).unwrap();
    assert_eq!(DatasetInfo::read(folder.path()).unwrap(), info());
    let report = NoiseReport {
        noise: "flip".into(),
        requested_rate: Some(0.8),
        realised_rate: 0.1 + 0.2,
        samples: 3,
        corrupted: 1,
        classes: vec!["a".into()],
        corrupted_classes: Some(vec!["a".into()]),
        requested_matrix: Some(vec![vec![0.2, 0.8]]),
        realised_matrix: vec![vec![1.0, 0.0]],
    };
    report.write(folder.path()).unwrap();
    assert_eq!(NoiseReport::read(folder.path()).unwrap(), report);
}

#[test]
fn the_bytes_of_a_tensor_file_are_fixed() {
    let folder = folder();
    let split = SplitIndices { train: vec![2, 0], validation: vec![1] };
    split.write(folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join("split.safetensors")).unwrap();
    let header = r#"{"__metadata__":{"pipeline":"{\"type\":\"split\"}"},"train":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"val":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}"#;
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (found, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    assert_eq!(std::str::from_utf8(found).unwrap().trim_end(), header);
    assert_eq!(data, [2_i64, 0, 1].map(i64::to_le_bytes).concat());
}

#[test]
fn a_tensor_file_is_that_of_the_crate_in_any_order() {
    use safetensors::tensor::TensorView;
    let folder = folder();
    let path = folder.path().join("a");
    let tensors = [
        ("b", Dtype::U8, vec![3], vec![1, 2, 3].into()),
        ("c", Dtype::F32, vec![1, 2], vec![4; 8].into()),
        ("d", Dtype::I64, vec![0], vec![].into()),
        ("a", Dtype::F32, vec![], vec![5; 4].into()),
    ];
    write_tensors(&path, &tensors, &[]).unwrap();
    let views = tensors.each_ref().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    assert_eq!(std::fs::read(&path).unwrap(), safetensors::serialize(views, None).unwrap());
    let short = ("a", Dtype::F32, vec![2], vec![0; 4].into());
    let error = write_tensors(&path, &[short], &[]).unwrap_err().to_string();
    assert_eq!(error, "'a' does not have the bytes of its shape");
}

#[test]
fn a_tensor_file_is_as_readable_as_others() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder();
    let mode = |name: &str| folder.path().join(name).metadata().unwrap().mode();
    SplitIndices { train: vec![0], validation: vec![] }.write(folder.path()).unwrap();
    std::fs::write(folder.path().join("other"), "").unwrap();
    assert_eq!(mode("split.safetensors"), mode("other"));
}

#[test]
fn damaged_files_are_named() {
    let folder = folder();
    let path = folder.path().join("split.safetensors");
    let error = |path: &std::path::Path| {
        let error = format!("{:#}", SplitIndices::read(folder.path()).unwrap_err());
        assert!(error.contains(&path.display().to_string()), "{error}");
        error
    };
    assert!(error(&path).contains("cannot open"));
    SplitIndices { train: vec![1, 2], validation: vec![3] }.write(folder.path()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 7, 8, 20, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(error(&path).contains("is not a complete safetensors file"));
    }
    let one_byte = ("train", Dtype::U8, vec![1], vec![7].into());
    write_tensors(&path, &[one_byte], &[]).unwrap();
    assert!(
        error(&path).contains("'train' is U8 with the shape [1]; expected I64 with 1 dimensions")
    );
    write_tensors(&path, &[], &[]).unwrap();
    assert!(error(&path).contains("has no tensor 'train'"));

    for (text, expected) in [
        ("{", "dataset.json is not JSON (line 1, column 1)"),
        (
            "{\n\"a\": [NaN]}",
            "dataset.json is not JSON, which has neither NaN nor Infinity (line 2",
        ),
        (
            "{\"a\": -Infinity}",
            "dataset.json is not JSON, which has neither NaN nor Infinity (line 1",
        ),
        (
            "{\"format\": 1}",
            "dataset.json does not have the values that it needs: invalid type: integer `1`, expected a string (line 1",
        ),
        (
            "{\"format\": \"a\"}",
            "dataset.json does not have the values that it needs: missing field `classes` (line 1",
        ),
    ] {
        std::fs::write(folder.path().join("dataset.json"), text).unwrap();
        let error = DatasetInfo::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn images_without_labels_are_refused() {
    let folder = folder();
    let images = ("images", Dtype::U8, vec![2, 1, 1, 1], vec![0; 2].into());
    let labels = ("labels", Dtype::I64, vec![1], vec![0; 8].into());
    write_tensors(&folder.path().join("test.safetensors"), &[images, labels], &[]).unwrap();
    let error = Samples::open(folder.path(), Part::Test).err().unwrap().to_string();
    assert!(error.ends_with("test.safetensors: 2 images, but 1 labels"), "{error}");
}

#[test]
fn metrics_and_curves() {
    let folder = folder();
    let metrics = Metrics::from([("b".into(), 0.1), ("a".into(), 1e-7)]);
    write_metrics(folder.path(), &metrics).unwrap();
    let read: Metrics = read_json(&folder.path().join("metrics.json")).unwrap();
    assert_eq!(read, metrics);

    let mut table = CurveTable::new(&["epoch", "loss"]);
    table.push(&[1.0, 0.1 + 0.2]);
    table.push(&[2.0, f64::NAN]);
    let path = folder.path().join("curves.csv");
    table.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "epoch,loss\n1,0.30000000000000004\n2,NaN\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn labels_and_splits_read_back(numbers in proptest::collection::vec(any::<i64>(), 0..50), at in 0_usize..50) {
        let folder = folder();
        let labels = Labels { labels: numbers.clone(), clean: numbers.iter().rev().copied().collect() };
        labels.write(folder.path()).unwrap();
        prop_assert_eq!(Labels::read(folder.path()).unwrap(), labels);
        let (train, validation) = numbers.split_at(at.min(numbers.len()));
        let split = SplitIndices { train: train.to_vec(), validation: validation.to_vec() };
        split.write(folder.path()).unwrap();
        prop_assert_eq!(SplitIndices::read(folder.path()).unwrap(), split);
    }

    #[test]
    fn encoded_images_of_any_length_read_back(
        images in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), any::<i64>()), 0..20)
    ) {
        let write = || {
            let folder = folder();
            let mut writer = SamplesWriter::encoded(folder.path(), Part::Train).unwrap();
            for (image, label) in &images {
                writer.push(image, *label).unwrap();
            }
            writer.finish().unwrap();
            folder
        };
        let folder = write();
        let samples = Samples::open_any(folder.path(), Part::Train).unwrap();
        prop_assert_eq!(samples.labels.len(), images.len());
        for (index, (image, label)) in images.iter().enumerate() {
            prop_assert_eq!(samples.encoded(index), Some(image.as_slice()));
            prop_assert_eq!(samples.labels[index], *label);
        }
        let bytes = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("train.safetensors")).unwrap();
        prop_assert_eq!(bytes(&folder), bytes(&write()));
    }

    #[test]
    fn the_same_content_has_the_same_bytes(labels in proptest::collection::vec(0_i64..10, 1..30)) {
        let write = || {
            let folder = folder();
            let image = ImageShape { channels: 3, height: 1, width: 1 };
            write_samples(folder.path(), Part::Train, image, &vec![7; 3 * labels.len()], &labels).unwrap();
            std::fs::read(folder.path().join("train.safetensors")).unwrap()
        };
        prop_assert_eq!(write(), write());
    }
}

#[test]
fn a_split_names_every_sample_at_most_once() {
    let split = |train: &[i64], validation: &[i64]| {
        SplitIndices { train: train.to_vec(), validation: validation.to_vec() }.checked(5)
    };
    let checked = split(&[3, 0], &[4]).unwrap();
    assert_eq!((checked.train, checked.validation), (vec![3, 0], vec![4]));
    for (train, validation, expected) in [
        (&[0, 5][..], &[1][..], "sample 5, but the data set has 5"),
        (&[0, -1], &[1], "sample -1"),
        (&[0, 2, 2], &[], "sample 2 twice"),
        (&[0, 2], &[3, 0], "sample 0 twice"),
    ] {
        let error = split(train, validation).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(SampleSplit::all_train(2).unwrap().train, [0, 1]);
}

#[test]
fn labels_belong_to_their_data_set() {
    let labels = Labels { labels: vec![0, 2, 1], clean: vec![0, 1, 1] };
    assert!(labels.check(&[0, 1, 1], 3).is_ok());
    for (own, classes, expected) in [
        (&[0, 1, 2][..], 3, "sample 2 is 1, but in the data set it is 2"),
        (&[0, 1], 3, "3 labels to train on, but 2 images"),
        (&[0, 1, 1], 2, "sample 1 of the labels to train on has the label 2"),
    ] {
        let error = labels.check(own, classes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_old_model_file_reads_and_gains_no_fields() {
    let text = r#"{"architecture":"resnet8","input":{"channels":1,"height":8,"width":8},"features":64,
        "classes":[],"input-mean":[0.0],"input-std":[1.0],"training":null}"#;
    let mut model: ModelInfo = serde_json::from_str(text).unwrap();
    assert_eq!(model.input_crop, None);
    assert!(!serde_json::to_string(&model).unwrap().contains("crop"));
    model.input_crop = Some(InputCrop::ResizeThenCrop);
    let text = serde_json::to_string(&model).unwrap();
    assert!(text.contains(r#""input-crop":"resize-then-crop""#), "{text}");
}
