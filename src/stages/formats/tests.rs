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
        channel_deviation: vec![1.0 / 3.0],
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
        requested_rate: 0.8,
        realised_rate: 0.1 + 0.2,
        samples: 3,
        corrupted: 1,
        classes: vec!["a".into()],
        requested_matrix: vec![vec![0.2, 0.8]],
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
fn damaged_files_are_named() {
    let folder = folder();
    let path = folder.path().join("split.safetensors");
    let error = |path: &std::path::Path| {
        let error = format!("{:#}", SplitIndices::read(folder.path()).unwrap_err());
        assert!(error.contains(&path.display().to_string()), "{error}");
        error
    };
    assert!(error(&path).contains("can't open"));
    SplitIndices { train: vec![1, 2], validation: vec![3] }.write(folder.path()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 7, 8, 20, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(error(&path).contains("is no whole safetensors file"));
    }
    let one_byte = ("train", Dtype::U8, vec![1], vec![7].into());
    write_tensors(&path, &[one_byte], &[]).unwrap();
    assert!(
        error(&path).contains("'train' is U8 with the shape [1]; expected I64 with 1 dimensions")
    );
    write_tensors(&path, &[], &[]).unwrap();
    assert!(error(&path).contains("has no tensor 'train'"));

    std::fs::write(folder.path().join("dataset.json"), "{").unwrap();
    let error = DatasetInfo::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("dataset.json: EOF while parsing"), "{error}");
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
