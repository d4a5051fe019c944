//! Sums over an epoch, kept where the network computes, so that no step waits for a GPU.

use tch::{Device, Kind, Tensor};

/// Named sums over the samples so far.
#[derive(Debug)]
pub struct EpochSums {
    names: Vec<&'static str>,
    /// float64, one a name.
    sums: Tensor,
}

impl EpochSums {
    /// Sums of nothing.
    ///
    /// # Errors
    /// When libtorch cannot make the tensor.
    pub fn new(names: Vec<&'static str>, device: Device) -> anyhow::Result<Self> {
        let sums = Tensor::f_zeros([names.len() as i64], (Kind::Double, device))?;
        Ok(Self { names, sums })
    }

    /// Adds one scalar a name, in their order.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn add(&mut self, values: &[Tensor]) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        let doubles = values.iter().map(|value| value.f_to_kind(Kind::Double));
        let values = Tensor::f_stack(&doubles.collect::<Result<Vec<_>, _>>()?, 0)?;
        let _ = self.sums.f_add_(&values)?;
        Ok(())
    }

    /// Starts over.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        let _ = self.sums.f_zero_()?;
        Ok(())
    }

    /// The sums by name. Waits for a GPU.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn read(&self) -> anyhow::Result<Sums> {
        let values = Vec::<f64>::try_from(&self.sums.f_to_device(Device::Cpu)?)?;
        Ok(Sums(self.names.iter().copied().zip(values).collect()))
    }

    /// What a checkpoint holds of it.
    pub fn state_tensor(&self) -> (String, &Tensor) {
        ("sums".to_owned(), &self.sums)
    }
}

/// Sums that were read.
#[derive(Debug, Clone)]
pub struct Sums(Vec<(&'static str, f64)>);

impl Sums {
    /// A sum; NaN if there is none of that name.
    pub fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(other, _)| *other == name).map_or(f64::NAN, |(_, sum)| *sum)
    }

    /// A sum over another one: a mean. NaN where nothing was counted.
    pub fn mean(&self, name: &str, count: &str) -> f64 {
        self.get(name) / self.get(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_means() {
        let mut sums = EpochSums::new(vec!["samples", "loss"], Device::Cpu).unwrap();
        for loss in [0.5f32, 1.0] {
            sums.add(&[Tensor::from(2i64), Tensor::from(loss)]).unwrap();
        }
        let read = sums.read().unwrap();
        assert_eq!((read.get("samples"), read.get("loss")), (4.0, 1.5));
        assert_eq!(read.mean("loss", "samples"), 0.375);
        assert!(read.get("other").is_nan());
        sums.clear().unwrap();
        assert_eq!(sums.read().unwrap().get("samples"), 0.0);
    }
}
