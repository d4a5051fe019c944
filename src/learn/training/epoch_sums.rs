//! Sums over an epoch, kept where the network computes, so that no step waits for a GPU.

use std::collections::BTreeMap;

use anyhow::ensure;
use tch::{Device, Kind, Tensor};

/// Named sums over the samples so far.
#[derive(Debug)]
pub struct EpochSums {
    names: Vec<&'static str>,
    /// Whether clean labels are known, beside those that are trained on.
    clean_known: bool,
    /// float64, one a name.
    sums: Tensor,
}

impl EpochSums {
    /// Sums of nothing.
    ///
    /// # Errors
    /// When libtorch cannot make the tensor.
    pub fn new(
        names: Vec<&'static str>,
        clean_known: bool,
        device: Device,
    ) -> anyhow::Result<Self> {
        let sums = Tensor::f_zeros([names.len() as i64], (Kind::Double, device))?;
        Ok(Self { names, clean_known, sums })
    }

    /// Adds a scalar to each.
    ///
    /// # Errors
    /// When the names are others.
    pub fn add(&mut self, values: &BTreeMap<&str, Tensor>) -> anyhow::Result<()> {
        let _no_gradients = tch::no_grad_guard();
        let named = self.names.iter().filter_map(|name| values.get(name));
        let doubles = named.map(|value| value.f_to_kind(Kind::Double));
        let doubles = doubles.collect::<Result<Vec<_>, _>>()?;
        ensure!(
            [values.len(), self.names.len()] == [doubles.len(); 2],
            "a step adds to {:?}, but the sums are {:?}",
            values.keys(),
            self.names
        );
        let _ = self.sums.f_add_(&Tensor::f_stack(&doubles, 0)?)?;
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
        let values = self.names.iter().copied().zip(values).collect();
        Ok(Sums { values, clean_known: self.clean_known })
    }

    /// What a checkpoint holds of it.
    pub fn state_tensor(&self) -> (String, &Tensor) {
        ("sums".to_owned(), &self.sums)
    }
}

/// Sums that were read.
#[derive(Debug, Clone)]
pub struct Sums {
    values: BTreeMap<&'static str, f64>,
    clean_known: bool,
}

impl Sums {
    /// A sum; NaN if there is none of that name.
    pub fn get(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(f64::NAN)
    }

    /// A sum over another one: a mean. NaN where nothing was counted.
    pub fn mean(&self, name: &str, count: &str) -> f64 {
        self.get(name) / self.get(count)
    }

    /// The same of what depends on clean labels. NaN where these are not known.
    pub fn mean_of_clean(&self, name: &str, count: &str) -> f64 {
        if self.clean_known { self.mean(name, count) } else { f64::NAN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_means() {
        for clean_known in [true, false] {
            let names = vec!["samples", "loss"];
            let mut sums = EpochSums::new(names, clean_known, Device::Cpu).unwrap();
            for loss in [0.5f32, 1.0] {
                let step = [("loss", Tensor::from(loss)), ("samples", Tensor::from(2i64))];
                sums.add(&step.into()).unwrap();
            }
            let read = sums.read().unwrap();
            assert_eq!((read.get("samples"), read.get("loss")), (4.0, 1.5));
            assert_eq!(read.mean("loss", "samples"), 0.375);
            let of_clean = read.mean_of_clean("loss", "samples");
            assert_eq!((of_clean == 0.375, of_clean.is_nan()), (clean_known, !clean_known));
            assert!(read.get("other").is_nan());
            sums.clear().unwrap();
            assert_eq!(sums.read().unwrap().get("samples"), 0.0);
        }
    }

    #[test]
    fn a_step_adds_to_every_sum_and_to_no_other() {
        let mut sums = EpochSums::new(vec!["samples", "loss"], false, Device::Cpu).unwrap();
        for names in [&["samples"][..], &["samples", "lost"], &["samples", "loss", "lost"]] {
            let step = names.iter().map(|name| (*name, Tensor::from(1i64))).collect();
            let error = sums.add(&step).unwrap_err().to_string();
            assert!(error.contains("the sums are [\"samples\", \"loss\"]"), "{error}");
        }
        assert_eq!(sums.read().unwrap().get("samples"), 0.0);
    }
}
