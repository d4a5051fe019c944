//! Which samples a step uses, in which order, and with what they are mixed. Does not depend on images.

use super::mixing::Mixing;
use crate::random::{Purpose, Stream};

/// Samples that a step uses in the same way.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSet {
    /// Their indices in the training part of the data set.
    pub indices: Vec<u32>,
    /// How many views each of them has, drawn independently of each other and of those of other sets in the step.
    pub views: u32,
    /// With what their images are mixed.
    pub mixing: Option<Mixing>,
}

impl SampleSet {
    /// Samples with several views each, not mixed.
    pub fn of_views(indices: Vec<u32>, views: u32) -> Self {
        Self { indices, views, mixing: None }
    }
}

/// The samples of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSamples {
    /// Those that are trained on.
    pub train: SampleSet,
    /// Whether the method can train on these in other steps of the epoch, too. That the order of the epoch has some more than once does not count.
    pub come_again: bool,
    /// Those that the method uses in other ways, a set for each.
    pub others: Vec<SampleSet>,
}

/// Samples with one view each.
impl From<Vec<u32>> for SampleSet {
    fn from(indices: Vec<u32>) -> Self {
        Self::of_views(indices, 1)
    }
}

impl StepSamples {
    /// How many images of the data set the step sees: those of all sets, whatever the number of their views.
    pub fn images(&self) -> usize {
        std::iter::once(&self.train).chain(&self.others).map(|set| set.indices.len()).sum()
    }
}

/// Samples that are trained on, as often as the order of the epoch has them, and no others.
impl From<SampleSet> for StepSamples {
    fn from(train: SampleSet) -> Self {
        Self { train, come_again: false, others: Vec::new() }
    }
}

/// The same with one view each.
impl From<Vec<u32>> for StepSamples {
    fn from(indices: Vec<u32>) -> Self {
        SampleSet::from(indices).into()
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

/// Mixes the samples that are trained on in every step of an epoch.
pub fn mix(steps: &mut [StepSamples], alpha: f64, seed: u64, epoch: u32) {
    for (step, samples) in (0u32..).zip(steps) {
        let mut stream = Stream::new(seed, Purpose::Mixing, epoch, step);
        let rows = samples.train.indices.len();
        samples.train.mixing = Some(Mixing::draw(&mut stream, alpha, rows));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn every_step_is_mixed_in_its_own_way() {
        let mixed = |epoch| {
            let mut steps = vec![StepSamples::from((0..20).collect::<Vec<u32>>()); 50];
            mix(&mut steps, 0.4, 7, epoch);
            steps.into_iter().map(|step| step.train.mixing.unwrap()).collect::<Vec<_>>()
        };
        let all = [mixed(0), mixed(1)].concat();
        assert_eq!(mixed(0), all[..50]);
        for (place, one) in all.iter().enumerate() {
            let same = |other: &Mixing| one.share == other.share || one.partners == other.partners;
            assert!(!all[..place].iter().any(same), "{place} is as another one");
        }
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
