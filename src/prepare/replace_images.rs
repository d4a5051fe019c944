//! The body of `replace-images`: pixels of another data set under the labels of this one.
//!
//! NumPy's legacy generator draws which samples are replaced, then which images replace them.

use anyhow::{Context as _, ensure};
use pipeline_stages::formats::{DatasetInfo, Part, Samples};
use pipeline_stages::kinds::ReplaceImages;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::body::Body;
use crate::dataset::{RawDataset, RawSamples};
use crate::numpy_random::LegacyRandom;
use crate::training_order;

impl Body for ReplaceImages {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let data = context.input("data")?;
        let info = DatasetInfo::read(data)?;
        let [train, test] = [Part::Train, Part::Test].map(|part| Samples::open(data, part));
        let (train, test) = (train?, test?);
        let outside = Samples::open(context.input("outside")?, Part::Train)?;
        ensure!(
            outside.image == train.image,
            "the images of 'outside' have the shape {}, and those of 'data' {}: they can replace only images of their shape",
            shape(&outside),
            shape(&train)
        );
        let order = training_order::read(context, train.labels.len(), info.validation_samples)?;
        let pairs = draw(&order, outside.labels.len(), self.rate, context.seed)?;

        let size = train.image.bytes();
        let mut pixels = train.pixels().to_vec();
        for &(index, other) in &pairs {
            let image = &outside.pixels()[other * size..][..size];
            pixels[index * size..][..size].copy_from_slice(image);
        }
        let whole =
            |samples: &Samples, pixels| RawSamples { pixels, labels: samples.labels.clone() };
        let replaced = RawDataset {
            classes: info.classes,
            image: train.image,
            train: whole(&train, pixels),
            validation_samples: info.validation_samples,
            test: whole(&test, test.pixels().to_vec()),
        };
        let info = replaced.write(&info.format, context)?;
        info.write(&context.output)?;
        write_list(&pairs, context)?;
        Ok(Metrics::of_counts([
            ("replaced", pairs.len()),
            ("train-samples", info.train_samples),
            ("test-samples", info.test_samples),
            ("classes", info.classes.len()),
        ]))
    }
}

fn shape(samples: &Samples) -> String {
    let image = samples.image;
    format!("{}x{}x{}", image.channels, image.height, image.width)
}

/// Which samples of `order` are replaced, each with the index of its new image among `outside`.
fn draw(
    order: &[usize],
    outside: usize,
    rate: f64,
    seed: u64,
) -> anyhow::Result<Vec<(usize, usize)>> {
    let mut random = LegacyRandom::new(seed)?;
    let count = (rate * order.len() as f64).round() as usize;
    let replaced = random.some_of(order, count).context("a rate is at most 1")?;
    let others: Vec<usize> = (0..outside).collect();
    let others = random.some_of(&others, count).with_context(|| {
        format!(
            "{count} images are to be replaced, but the data set at 'outside' has {outside} training images: \
             choose a smaller rate or a larger data set"
        )
    })?;
    Ok(replaced.into_iter().zip(others).collect())
}

fn write_list(pairs: &[(usize, usize)], context: &Context) -> anyhow::Result<()> {
    let rows = pairs.iter().map(|(index, outside)| format!("{index},{outside}\n"));
    let path = context.output.join("replaced.csv");
    let text = format!("index,outside\n{}", rows.collect::<String>());
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::Ordering;

    use pipeline_stages::ArtifactType::{Dataset, Directory, Split};
    use pipeline_stages::formats::{ImageShape, SplitIndices, write_samples};
    use pipeline_stages::worker::Stopped;
    use serde_json::json;

    use super::*;
    use crate::fixture::{Fixture, paths_below};
    use crate::samples::unpack_fashion_mnist;

    /// A data set of images of two pixels, which count from `first`.
    fn data(test: &Fixture, name: &str, samples: u8, first: u8, width: usize) -> PathBuf {
        let artifact = test.folder().join(name);
        std::fs::create_dir(&artifact).unwrap();
        let image = ImageShape { channels: 1, height: 1, width };
        let labels: Vec<i64> = (0..i64::from(samples)).map(|sample| sample % 2).collect();
        let pixels: Vec<u8> = (0..samples).flat_map(|sample| vec![first + sample; width]).collect();
        for part in [Part::Train, Part::Test] {
            write_samples(&artifact, part, image, &pixels, &labels).unwrap();
        }
        let info = DatasetInfo {
            format: "idx".into(),
            classes: vec!["a".into(), "b".into()],
            image,
            train_samples: samples.into(),
            test_samples: samples.into(),
            channel_mean: vec![0.0],
            channel_std: vec![0.0],
            ..DatasetInfo::default()
        };
        info.write(&artifact).unwrap();
        artifact
    }

    fn run(
        test: &mut Fixture,
        [data, outside]: [&Path; 2],
        split: Option<SplitIndices>,
        rate: f64,
    ) -> anyhow::Result<PathBuf> {
        let mut inputs = vec![("data", Dataset, data), ("outside", Dataset, outside)];
        let folder = test.folder().join("split");
        if let Some(split) = split {
            std::fs::create_dir(&folder).unwrap();
            split.write(&folder).unwrap();
            inputs.push(("split", Split, &folder));
        }
        Ok(test.run_on("replace-images", json!({"rate": rate}), &inputs, 7, None)?.0)
    }

    #[test]
    fn training_images_are_replaced_under_their_labels() {
        let mut test = Fixture::new();
        let (own, outside) = (data(&test, "own", 20, 0, 2), data(&test, "outside", 30, 100, 2));
        let split = SplitIndices { train: (5..20).rev().collect(), validation: (0..5).collect() };
        let output = run(&mut test, [&own, &outside], Some(split), 0.4).unwrap();
        let [before, after] = [&own, &output].map(|path| Samples::open(path, Part::Train).unwrap());
        assert_eq!(after.labels, before.labels);
        let list = std::fs::read_to_string(output.join("replaced.csv")).unwrap();
        let mut lines = list.lines();
        assert_eq!(lines.next(), Some("index,outside"));
        let mut expected = before.pixels().to_vec();
        let mut count = 0;
        for line in lines {
            let (index, other) = line.split_once(',').unwrap();
            let (index, other): (usize, u8) = (index.parse().unwrap(), other.parse().unwrap());
            assert!((5..20).contains(&index), "{index} is held out");
            assert!(expected[index * 2] < 100, "{index} is replaced twice");
            expected[index * 2..][..2].fill(100 + other);
            count += 1;
        }
        assert_eq!(count, 6);
        assert_eq!(after.pixels(), expected);
        let test_part = |path: &Path| std::fs::read(path.join("test.safetensors")).unwrap();
        assert_eq!(test_part(&output), test_part(&own));
        let info = DatasetInfo::read(&output).unwrap();
        let mean = expected.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / 40.0 / 255.0;
        assert!((info.channel_mean[0] - mean).abs() < 1e-12);
        let unchanged = DatasetInfo { channel_mean: vec![0.0], channel_std: vec![0.0], ..info };
        assert_eq!(unchanged, DatasetInfo::read(&own).unwrap());
    }

    /// On the 5,000 training images that come with the quickstart, under whose labels their negatives come: two fifths of the samples that train, and no others.
    /// Asked to stop, it writes nothing, and then what it would have written.
    #[test]
    fn real_images_are_replaced() {
        const TRAIN: usize = 4_500;
        let mut test = Fixture::new();
        let source = test.folder().join("source");
        unpack_fashion_mnist(&source);
        let from = ("source", Directory, source.as_path());
        let (own, _) = test.run_on("dataset", json!({"format": "idx"}), &[from], 0, None).unwrap();
        let before = Samples::open(&own, Part::Train).unwrap();
        let size = before.image.bytes();
        let negatives: Vec<u8> = before.pixels().iter().map(|pixel| 255 - pixel).collect();
        let outside = test.folder().join("outside");
        std::fs::create_dir(&outside).unwrap();
        write_samples(&outside, Part::Train, before.image, &negatives, &before.labels).unwrap();
        let held_out = before.labels.len() as i64 - TRAIN as i64;
        let split = SplitIndices {
            train: (held_out..before.labels.len() as i64).collect(),
            validation: (0..held_out).collect(),
        };
        let output = run(&mut test, [&own, &outside], Some(split), 0.4).unwrap();

        let after = Samples::open(&output, Part::Train).unwrap();
        assert!(after.labels == before.labels);
        let list = std::fs::read_to_string(output.join("replaced.csv")).unwrap();
        let pairs = list.lines().skip(1).map(|line| line.split_once(',').unwrap());
        let pairs: BTreeMap<usize, usize> =
            pairs.map(|(index, other)| (index.parse().unwrap(), other.parse().unwrap())).collect();
        assert_eq!(pairs.len(), TRAIN * 2 / 5);
        assert!(pairs.keys().all(|&index| index as i64 >= held_out));
        assert_eq!(BTreeSet::from_iter(pairs.values()).len(), pairs.len());
        let images = |pixels: &[u8]| pixels.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (negatives, mut expected) = (images(&negatives), images(before.pixels()));
        for (index, other) in pairs {
            expected[index].clone_from(&negatives[other]);
        }
        assert!(images(after.pixels()) == expected);

        let split = test.folder().join("split");
        let inputs =
            [("data", Dataset, &*own), ("outside", Dataset, &outside), ("split", Split, &split)];
        let (stage, context) = test.on("replace-images", json!({"rate": 0.4}), &inputs, 7, None);
        context.stop_flag().store(true, Ordering::Relaxed);
        assert!(crate::run(&stage, &context).unwrap_err().is::<Stopped>());
        assert_eq!(paths_below(&context.output), [""; 0]);
        context.stop_flag().store(false, Ordering::Relaxed);
        crate::run(&stage, &context).unwrap();
        for name in paths_below(&output) {
            let [whole, again] =
                [&output, &context.output].map(|folder| std::fs::read(folder.join(&name)).unwrap());
            assert!(whole == again, "{name}");
        }
    }

    #[test]
    fn the_draws_are_those_of_numpy() {
        // numpy.random.seed(7); choice(10, 3, replace=False); choice(8, 3, replace=False).
        let order: Vec<usize> = (0..10).collect();
        assert_eq!(draw(&order, 8, 0.3, 7).unwrap(), [(8, 1), (5, 4), (0, 5)]);
        assert_eq!(draw(&order, 8, 0.0, 7).unwrap(), []);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (samples, width, rate, words) in [
            (30, 3, 0.5, "have the shape 1x1x3, and those of 'data' 1x1x2"),
            (9, 2, 0.5, "10 images are to be replaced, but the data set at 'outside' has 9"),
        ] {
            let mut test = Fixture::new();
            let (own, outside) =
                (data(&test, "own", 20, 0, 2), data(&test, "outside", samples, 100, width));
            let error = run(&mut test, [&own, &outside], None, rate).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
