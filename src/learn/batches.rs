//! Batches of images as tensors, and the order of samples in an epoch.
//!
//! For the CPU many threads prepare a batch, an image each; for a GPU all images lie on it, and tensor operations
//! prepare a batch there. Does not depend on what an augmentation does or what is trained.

use std::sync::mpsc;
use std::thread;

use pipeline_stages::formats::{ImageShape, Samples};
use pipeline_stages::kinds::Augmentation;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::augment::batched::{DeviceImages, DeviceViews, to_device};
use crate::augment::{LightChange, SizedView, View, ViewSettings};
use crate::pictures::Pictures;
use crate::random::{Purpose, Stream};

/// Images that one thread prepares one after the other.
const TOGETHER: usize = 4;

/// Images u8 [N,C,H,W], in place.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    pixels: &'a [u8],
    /// The shape of every image.
    pub shape: ImageShape,
}

impl<'a> Images<'a> {
    /// The images of one part of a data set.
    pub fn of(samples: &'a Samples) -> Self {
        Self { pixels: samples.pixels(), shape: samples.image }
    }

    /// A float tensor [B,C,H,W] of the images `indices`, each through `transform`, which is given
    /// the index, the pixels u8 [C,H,W] and the place for the result, float [C,H,W].
    ///
    /// # Errors
    /// When an index is out of range or libtorch cannot make the tensor.
    pub fn batch(
        &self,
        indices: &[u32],
        device: Device,
        transform: impl Fn(u32, &[u8], &mut [f32]) + Sync,
    ) -> anyhow::Result<Tensor> {
        let ImageShape { channels, height, width } = self.shape;
        let shape = [indices.len(), channels, height, width].map(|size| size as i64);
        let mut batch = Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?;
        let size = self.shape.bytes().max(1);
        let places = floats_of(&mut batch).par_chunks_exact_mut(size).with_min_len(TOGETHER);
        places.zip(indices).try_for_each(|(place, &index)| {
            let start = index as usize * size;
            let pixels = self.pixels.get(start..start + size);
            let pixels = pixels.ok_or_else(|| anyhow::anyhow!("there is no sample {index}"))?;
            transform(index, pixels, place);
            anyhow::Ok(())
        })?;
        to_device(&batch, device)
    }
}

/// The values of a fresh tensor, to be filled.
pub(crate) fn floats_of(tensor: &mut Tensor) -> &mut [f32] {
    assert!(
        tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "only floats in row-major order on the host are a slice"
    );
    // SAFETY: the tensor holds as many floats from there on, one after the other, and lives as long as the
    // slice, which borrows it mutably. It was just made, so nobody else has a handle to its storage.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// Images of one part of a data set, where they are augmented.
pub enum ImageSource<'a> {
    /// In the memory of the host: the CPU's threads work on them.
    Host(Images<'a>, Device),
    /// On a GPU: it works on them itself.
    Device(&'a DeviceImages),
}

impl ImageSource<'_> {
    /// The images `batch`, lightly augmented, float [B,C,H,W]. `stream` produces the random numbers of a
    /// sample; `tables` are those of [`crate::augment::Normalisation::tables`].
    ///
    /// # Errors
    /// When an index is out of range or libtorch fails.
    pub fn light(
        &self,
        batch: &[u32],
        augmentation: Augmentation,
        stream: impl Fn(u32) -> Stream + Sync,
        tables: &[[f32; 256]],
    ) -> anyhow::Result<Tensor> {
        let draw = |index| LightChange::draw(augmentation, &mut stream(index));
        match self {
            Self::Host(images, device) => images.batch(batch, *device, |index, pixels, out| {
                draw(index).apply(pixels, images.shape, tables, out);
            }),
            Self::Device(images) => {
                let changes: Vec<LightChange> = batch.iter().map(|&index| draw(index)).collect();
                images.light(batch, &changes, tables)
            }
        }
    }
}

/// Images of which views are made.
pub enum ViewSource<'a> {
    /// In the memory of the host: the CPU's threads make them.
    Host(Images<'a>, Device),
    /// On a GPU: it makes them itself.
    Device(DeviceViews),
    /// Of any size, maybe encoded: the CPU's threads make them, for whatever device.
    Resized {
        /// The images.
        pictures: Pictures<'a>,
        /// Where views go.
        device: Device,
        /// Whether views are blurred, half of the time.
        blurs: bool,
    },
}

impl ViewSource<'_> {
    /// A view of every image of `batch`, float [B,C,H,W] in [0, 1], each of the shape `shape`. `stream`
    /// produces the random numbers of a sample.
    ///
    /// # Errors
    /// When an index is out of range or libtorch fails.
    pub fn views(
        &self,
        batch: &[u32],
        shape: ImageShape,
        settings: ViewSettings,
        stream: impl Fn(u32) -> Stream + Sync,
    ) -> anyhow::Result<Tensor> {
        let draw = |index: u32| View::draw(&mut stream(index), shape, settings);
        match self {
            Self::Host(images, device) => images.batch(batch, *device, |index, pixels, out| {
                draw(index).render(pixels, shape, out);
            }),
            Self::Device(images) => {
                let views: Vec<View> = batch.par_iter().map(|&index| draw(index)).collect();
                images.render(batch, &views)
            }
            Self::Resized { pictures, device, blurs } => {
                pictures.batch(batch, shape, *device, |index, picture, out| {
                    let own = picture.shape;
                    let view = SizedView::draw(&mut stream(index), own, settings, *blurs);
                    view.render(&picture.pixels, own, shape, out);
                })
            }
        }
    }
}

/// Samples that a step uses in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleSet {
    /// Their indices in the training part of the data set.
    pub indices: Vec<u32>,
    /// How many views each of them has, drawn independently.
    pub views: u32,
}

/// The samples of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSamples {
    /// Those that are trained on.
    pub train: SampleSet,
    /// Those that the method uses in other ways, a set for each.
    pub others: Vec<SampleSet>,
}

/// Samples with one view each.
impl From<Vec<u32>> for SampleSet {
    fn from(indices: Vec<u32>) -> Self {
        Self { indices, views: 1 }
    }
}

/// Samples that are trained on, with one view each, and no others.
impl From<Vec<u32>> for StepSamples {
    fn from(indices: Vec<u32>) -> Self {
        Self { train: indices.into(), others: Vec::new() }
    }
}

/// The samples of an epoch in its random order.
pub fn shuffled(samples: &[u32], seed: u64, epoch: u32) -> Vec<u32> {
    let mut order = samples.to_vec();
    Stream::new(seed, Purpose::SampleOrder, epoch, 0).shuffle(&mut order);
    order
}

/// How many batches an epoch has; see [`cut`].
pub fn batch_count(samples: usize, batch_size: usize) -> usize {
    let one_left = samples > batch_size && samples % batch_size == 1;
    samples.div_ceil(batch_size) - usize::from(one_left)
}

/// Cuts the order of an epoch into batches. The last one has fewer samples where they do not divide. One sample alone
/// joins the batch before it: batch norm can need more than one.
pub fn cut(order: &[u32], batch_size: usize) -> Vec<Vec<u32>> {
    let count = batch_count(order.len(), batch_size);
    let end = |batch| if batch + 1 == count { order.len() } else { (batch + 1) * batch_size };
    (0..count).map(|batch| order[batch * batch_size..end(batch)].to_vec()).collect()
}

/// Consumes what is produced, up to `depth` items of which are made ahead by a thread of their own;
/// with a depth of 0, each when it is asked for.
pub fn prefetch<T: Send, R>(
    depth: usize,
    mut produce: impl Iterator<Item = T> + Send,
    consume: impl FnOnce(&mut dyn Iterator<Item = T>) -> R,
) -> R {
    if depth == 0 {
        return consume(&mut produce);
    }
    let consumed = thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(depth);
        let produce = &mut produce;
        // It ends when the receiver is gone.
        let work = move || produce.try_for_each(|item| sender.send(item));
        if thread::Builder::new().spawn_scoped(scope, work).is_err() {
            return Err(consume);
        }
        let mut items = receiver.into_iter();
        let result = consume(&mut items);
        drop(items);
        Ok(result)
    });
    // Where the system has no thread left, each is made when it is asked for.
    consumed.unwrap_or_else(|consume| consume(&mut produce))
}

/// As many samples of each class, drawn again for every epoch: `count` in all, in random order.
///
/// `labels` are those of all samples. The first classes have one more where `count` does not divide.
/// A class with fewer samples than its share has them more than once, as evenly as can be; a class
/// without any adds none.
pub fn class_balanced(
    samples: &[u32],
    labels: &[i64],
    classes: usize,
    count: usize,
    seed: u64,
    epoch: u32,
) -> Vec<u32> {
    let mut members = vec![Vec::new(); classes];
    for &sample in samples {
        let class = labels.get(sample as usize).and_then(|&label| usize::try_from(label).ok());
        if let Some(members) = class.and_then(|class| members.get_mut(class)) {
            members.push(sample);
        }
    }
    members.retain(|members| !members.is_empty());
    let present = members.len().max(1);
    let mut order = Vec::with_capacity(count);
    for (class, mut members) in members.into_iter().enumerate() {
        let share = count / present + usize::from(class < count % present);
        let mut stream = Stream::new(seed, Purpose::ClassBalance, epoch, class as u32);
        let mut left = share;
        while left > 0 {
            stream.shuffle(&mut members);
            let taken = left.min(members.len());
            order.extend(&members[..taken]);
            left -= taken;
        }
    }
    Stream::new(seed, Purpose::SampleOrder, epoch, 0).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_made_ahead_comes_in_order_and_can_be_left() {
        for depth in [0, 1, 3] {
            let all: Vec<u32> = prefetch(depth, 0..100, |items| items.collect());
            assert_eq!(all, (0..100).collect::<Vec<_>>());
            assert_eq!(prefetch(depth, 0.., |items| items.nth(5)), Some(5));
        }
    }

    #[test]
    fn no_batch_is_left_with_one_sample() {
        let sizes = |samples: u32, batch_size| -> Vec<usize> {
            let order: Vec<u32> = (0..samples).collect();
            let batches = cut(&order, batch_size);
            assert_eq!(batches.concat(), order);
            assert_eq!(batches.len(), batch_count(order.len(), batch_size));
            batches.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(6, 3), [3, 3]);
        assert_eq!(sizes(8, 3), [3, 3, 2]);
        assert_eq!(sizes(7, 3), [3, 4]);
        assert_eq!(sizes(3, 2), [3]);
        // Fewer samples than a batch, and batches of one where that is wanted.
        assert_eq!(sizes(5, 1000), [5]);
        assert_eq!(sizes(1, 1000), [1]);
        assert_eq!(sizes(3, 1), [1, 1, 1]);
        assert_eq!(sizes(0, 4), [0; 0]);
        assert_eq!(sizes(5, usize::MAX), [5]);
    }

    #[test]
    fn every_class_balanced_epoch_draws_again() {
        let samples: Vec<u32> = (0..100).collect();
        let labels: Vec<i64> = (0..100).map(|index| index % 2).collect();
        let epoch = |seed, epoch| -> std::collections::BTreeSet<u32> {
            class_balanced(&samples, &labels, 2, 20, seed, epoch).into_iter().collect()
        };
        assert_eq!(epoch(1, 0), epoch(1, 0));
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
        let seen: std::collections::BTreeSet<u32> = (0..30).flat_map(|one| epoch(1, one)).collect();
        assert!(seen.len() > 90, "{}", seen.len());
    }

    proptest! {
        #[test]
        fn balanced_epochs_have_every_class_alike(
            labels in proptest::collection::vec(0i64..5, 1..80), count in 1usize..200, epoch in 0u32..3,
        ) {
            let samples: Vec<u32> = (0..labels.len() as u32).collect();
            let order = class_balanced(&samples, &labels, 5, count, 7, epoch);
            prop_assert_eq!(order.len(), count);
            let mut of_class = std::collections::BTreeMap::<i64, usize>::new();
            let mut of_sample = std::collections::BTreeMap::<u32, usize>::new();
            for sample in order {
                *of_class.entry(labels[sample as usize]).or_default() += 1;
                *of_sample.entry(sample).or_default() += 1;
            }
            let present = labels.iter().collect::<std::collections::BTreeSet<_>>().len();
            for (class, taken) in of_class {
                prop_assert!(taken == count / present || taken == count / present + 1);
                let members = labels.iter().filter(|label| **label == class).count();
                let most = taken.div_ceil(members);
                let mine = of_sample.iter().filter(|(sample, _)| labels[**sample as usize] == class);
                prop_assert!(mine.into_iter().all(|(_, times)| *times <= most));
            }
        }
    }
}
