//! Calibration: is a classifier that says 0.8 right in 80 % of such cases?
//!
//! The expected calibration error of Guo et al., "On calibration of modern neural networks" (2017),
//! equation 3: bins of equal width (m-1)/M < confidence <= m/M. Does not depend on any network.

use std::path::Path;

use pipeline_stages::formats::CurveTable;

const BINS: usize = 15;

/// One bin of confidence.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    samples: u64,
    right: u64,
    confidence_sum: f64,
}

/// Predictions, counted by their confidence.
#[derive(Debug, Clone, Default)]
pub(super) struct Reliability {
    bins: [Bin; BINS],
}

impl Reliability {
    /// Counts a prediction: the probability in \[0, 1\] of the predicted class, and whether it was right.
    pub(super) fn add(&mut self, confidence: f64, right: bool) {
        let above = (confidence * BINS as f64).ceil() as usize;
        if let Some(bin) = self.bins.get_mut(above.clamp(1, BINS) - 1) {
            bin.samples += 1;
            bin.right += u64::from(right);
            bin.confidence_sum += confidence;
        }
    }

    /// The expected calibration error. `None` of nothing.
    pub(super) fn expected_error(&self) -> Option<f64> {
        let samples: u64 = self.bins.iter().map(|bin| bin.samples).sum();
        let gap = |bin: &Bin| (bin.confidence_sum - bin.right as f64).abs();
        (samples > 0).then(|| self.bins.iter().map(gap).sum::<f64>() / samples as f64)
    }

    /// Writes a row per bin. NaN where it has no samples.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut table = CurveTable::new(&["bin", "samples", "confidence", "accuracy"]);
        for (index, bin) in self.bins.iter().enumerate() {
            let samples = bin.samples as f64;
            let (confidence, accuracy) = (bin.confidence_sum / samples, bin.right as f64 / samples);
            table.push(&[(index + 1) as f64, samples, confidence, accuracy]);
        }
        table.write(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{VECTORS, flags, numbers};
    use super::*;

    #[test]
    fn the_numbers_of_numpy() {
        let case = &VECTORS["calibration"];
        let mut reliability = Reliability::default();
        for (confidence, right) in
            numbers(&case["confidence"]).into_iter().zip(flags(&case["right"]))
        {
            reliability.add(confidence, right);
        }
        let expected = case["ece"].as_f64().unwrap();
        assert!((reliability.expected_error().unwrap() - expected).abs() < 1e-12);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reliability.csv");
        reliability.write(&path).unwrap();
        let table = CurveTable::read(&path).unwrap();
        assert_eq!(table.column("samples").unwrap(), numbers(&case["samples"]));
        // JSON has no NaN: -1 is a bin without samples.
        for name in ["confidence", "accuracy"] {
            let found = table.column(name).unwrap();
            for (found, expected) in found.into_iter().zip(numbers(&case[format!("mean_{name}")])) {
                assert!((expected < 0.0 && found.is_nan()) || (found - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_edges_belong_to_the_bin_below() {
        for (confidence, bin) in [(0.0, 0), (1.0, 14), (0.2, 2), (0.2 + 1e-9, 3), (f64::NAN, 0)] {
            let mut reliability = Reliability::default();
            reliability.add(confidence, true);
            assert_eq!(reliability.bins.iter().position(|bin| bin.samples == 1), Some(bin));
        }
        assert_eq!(Reliability::default().expected_error(), None);
    }
}
