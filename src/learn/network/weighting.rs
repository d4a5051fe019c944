//! The net that weighs samples (Shu et al., "Meta-Weight-Net: learning an explicit mapping for sample
//! weighting", 2019, section 3.1): V(loss) = sigmoid(W2 relu(W1 loss + b1) + b2).

use pipeline_stages::kinds::precision::Precision;
use tch::{Device, Tensor};

use super::layer::Linear;
use super::pass::{Mode, Pass};
use super::state::{Builder, NetworkState};
use crate::random::Purpose;

/// A function from the loss of a sample to its weight between 0 and 1.
#[derive(Debug)]
pub struct Weighting {
    hidden: Linear,
    output: Linear,
    state: NetworkState,
}

impl Weighting {
    /// A fresh one with this many hidden units, drawn by the seed as PyTorch draws linear layers.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(units: u64, seed: u64, device: Device) -> anyhow::Result<Self> {
        let units = i64::try_from(units)?;
        let mut builder = Builder::new(seed, Purpose::InitialWeighting, device);
        let hidden =
            builder.within("weighting.hidden", |builder| Linear::uniform(builder, [1, units]))?;
        let output =
            builder.within("weighting.output", |builder| Linear::uniform(builder, [units, 1]))?;
        Ok(Self { hidden, output, state: builder.finish() })
    }

    /// Losses, float [B] -> weights, float [B].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forward(&self, losses: &Tensor) -> anyhow::Result<Tensor> {
        let pass = Pass::new(self.state.values(), Mode::Train, Precision::F32);
        let hidden = self.hidden.forward(&pass, &losses.f_unsqueeze(1)?)?.f_relu()?;
        Ok(self.output.forward(&pass, &hidden)?.f_sigmoid()?.f_squeeze_dim(1)?)
    }

    /// `weighting.hidden` [H,1], then `weighting.output` [1,H], each with its bias.
    pub fn state(&self) -> &NetworkState {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_as_pytorch_starts_linear_layers() {
        let weighting = Weighting::new(100, 7, Device::Cpu).unwrap();
        let bounds = [1.0, 1.0, 0.1, 0.1];
        for (named, bound) in weighting.state().tensors().iter().zip(bounds) {
            let largest = named.tensor.abs().max().double_value(&[]);
            let many = named.tensor.numel() > 1;
            assert!(largest < bound && (largest > 0.9 * bound || !many), "{}", named.name);
        }
        let losses = Tensor::from_slice(&[0f32, 1.0, 10.0]);
        let weights = Vec::<f32>::try_from(weighting.forward(&losses).unwrap()).unwrap();
        assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)));
        let other = Weighting::new(100, 8, Device::Cpu).unwrap();
        assert_ne!(weights, Vec::<f32>::try_from(other.forward(&losses).unwrap()).unwrap());
    }
}
