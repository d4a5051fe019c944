//! The loss (and the weight) of every training sample in every epoch, as the steps measure them.
//!
//! Kept where the network computes, so that no step waits for a GPU, and with the checkpoint.

use anyhow::Context as _;
use pipeline_stages::formats::SampleLosses;
use tch::{Device, Kind, Tensor};

use super::method::StepOutput;

/// Means per sample, an epoch a row.
///
/// Sums are of float64: those of a few float32 numbers are exact, so their order, which a GPU does not fix, does not
/// change them.
struct SampleMeans {
    /// Over the visits of this epoch, float64 \[N\].
    sums: Tensor,
    /// How many visits these are, float64 \[N\].
    visits: Tensor,
    /// The epochs that are over, float32 \[E,N\]; NaN where a sample was not visited.
    epochs: Tensor,
}

impl SampleMeans {
    fn new(epochs: i64, samples: i64, device: Device) -> anyhow::Result<Self> {
        let zeros = || Tensor::f_zeros([samples], (Kind::Double, device));
        Ok(Self {
            sums: zeros()?,
            visits: zeros()?,
            epochs: Tensor::f_full([epochs, samples], f64::NAN, (Kind::Float, device))?,
        })
    }

    /// Adds a batch: samples int64 \[B\], values float \[B\]. A sample may come twice.
    fn add(&mut self, samples: &Tensor, values: &Tensor) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        let values = values.f_to_kind(Kind::Double)?;
        let _ = self.visits.f_index_add_(0, samples, &values.f_ones_like()?)?;
        let _ = self.sums.f_index_add_(0, samples, &values)?;
        Ok(())
    }

    /// The row of an epoch is complete.
    fn finish(&mut self, epoch: i64) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        // Without a visit: 0 / 0, which is NaN.
        self.epochs.f_select(0, epoch)?.f_copy_(&self.sums.f_div(&self.visits)?)?;
        let _ = self.sums.f_zero_()?;
        let _ = self.visits.f_zero_()?;
        Ok(())
    }

    fn state_tensors(&self, name: &str) -> [(String, &Tensor); 3] {
        let named = |what: &str| format!("per-sample.{name}.{what}");
        [
            (named("sums"), &self.sums),
            (named("visits"), &self.visits),
            (named("epochs"), &self.epochs),
        ]
    }

    /// Of these samples, epoch by epoch.
    fn of(&self, samples: &Tensor) -> anyhow::Result<Vec<f32>> {
        let chosen = self.epochs.f_to_device(Device::Cpu)?.f_index_select(1, samples)?;
        Ok(Vec::try_from(&chosen.f_flatten(0, -1)?)?)
    }
}

/// What is recorded of every sample.
pub struct Recorder {
    losses: SampleMeans,
    /// Where the method has weights.
    weights: Option<SampleMeans>,
}

impl Recorder {
    /// An empty record of a training: `samples` in the training part of its data set, whether or not they train.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(epochs: u32, samples: usize, weights: bool, device: Device) -> anyhow::Result<Self> {
        let (epochs, samples) = (i64::from(epochs), i64::try_from(samples)?);
        let means = || SampleMeans::new(epochs, samples, device);
        let not_enough = "recording the loss of every sample takes 4 bytes per sample and epoch";
        Ok(Self {
            losses: means().context(not_enough)?,
            weights: weights.then(means).transpose().context(not_enough)?,
        })
    }

    /// Adds what a step measured of its samples, int64 \[B\].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn add(&mut self, samples: &Tensor, output: &StepOutput) -> anyhow::Result<()> {
        self.losses.add(samples, &output.losses)?;
        if let (Some(means), Some(weights)) = (&mut self.weights, &output.weights) {
            means.add(samples, weights)?;
        }
        Ok(())
    }

    /// After the last step of an epoch, counted from 0.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn finish(&mut self, epoch: u64) -> anyhow::Result<()> {
        let epoch = i64::try_from(epoch)?;
        self.losses.finish(epoch)?;
        self.weights.as_mut().map_or(Ok(()), |weights| weights.finish(epoch))
    }

    /// What a checkpoint holds of it.
    pub fn state_tensors(&self) -> Vec<(String, &Tensor)> {
        let weights = self.weights.iter().flat_map(|weights| weights.state_tensors("weights"));
        self.losses.state_tensors("losses").into_iter().chain(weights).collect()
    }

    /// The record of the samples that train, with the labels of all samples.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn record(
        &self,
        train: &[u32],
        given: &[i64],
        clean: &[i64],
    ) -> anyhow::Result<SampleLosses> {
        let mut index: Vec<i64> = train.iter().map(|&sample| i64::from(sample)).collect();
        index.sort_unstable();
        let of = |labels: &[i64]| -> Vec<i64> {
            index.iter().filter_map(|&sample| labels.get(sample as usize).copied()).collect()
        };
        let samples = Tensor::f_from_slice(&index)?;
        Ok(SampleLosses {
            given: of(given),
            clean: of(clean),
            losses: self.losses.of(&samples)?,
            weights: self.weights.as_ref().map(|weights| weights.of(&samples)).transpose()?,
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(losses: &[f32]) -> StepOutput {
        let losses = Tensor::from_slice(losses);
        StepOutput { logits: losses.copy(), weights: Some(&losses * 0.5), losses, extra: [].into() }
    }

    #[test]
    fn visits_are_averaged_and_no_visit_is_nan() {
        let mut recorder = Recorder::new(2, 4, true, Device::Cpu).unwrap();
        recorder.add(&Tensor::from_slice(&[3i64, 1, 3]), &step(&[1.0, 2.0, 4.0])).unwrap();
        recorder.add(&Tensor::from_slice(&[3i64]), &step(&[1.0])).unwrap();
        recorder.finish(0).unwrap();
        recorder.add(&Tensor::from_slice(&[0i64]), &step(&[0.5])).unwrap();
        recorder.finish(1).unwrap();
        // Sample 2 is held out.
        let record = recorder.record(&[3, 0, 1], &[0, 1, 0, 1], &[0, 0, 0, 1]).unwrap();
        assert_eq!((record.index.as_slice(), record.epochs()), (&[0, 1, 3][..], 2));
        assert_eq!((record.given, record.clean), (vec![0, 1, 1], vec![0, 0, 1]));
        let known = |values: &[f32]| -> Vec<Option<f32>> {
            values.iter().map(|value| (!value.is_nan()).then_some(*value)).collect()
        };
        let expected = [None, Some(2.0), Some(2.0), Some(0.5), None, None];
        assert_eq!(known(&record.losses), expected);
        let halved = expected.map(|value| value.map(|value| value / 2.0));
        assert_eq!(known(&record.weights.unwrap()), halved);
    }
}
