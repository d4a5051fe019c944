//! The noise matrices: rows are the true class, columns the new label.
//!
//! The formulas are those of "Contrastive Learning Improves Model Robustness Under Label Noise"
//! (arXiv 2104.08984), which follows Meta-Weight-Net's protocol. Does not depend on class names.

use anyhow::{Context as _, bail};

use crate::numpy_random::{Cumulative, LegacyRandom};

/// A row-stochastic matrix over K classes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NoiseMatrix {
    /// K rows of K probabilities.
    pub(super) rows: Vec<Vec<f64>>,
}

impl NoiseMatrix {
    /// `on_diagonal` on the diagonal, zero elsewhere.
    fn diagonal(classes: usize, on_diagonal: f64) -> Self {
        let row = |label| {
            let mut row = vec![0.0; classes];
            row[label] = on_diagonal;
            row
        };
        Self { rows: (0..classes).map(row).collect() }
    }

    /// rate/K everywhere plus 1 - rate on the diagonal.
    pub(super) fn symmetric(classes: usize, rate: f64) -> Self {
        let mut matrix = Self::diagonal(classes, 1.0 - rate);
        let everywhere = rate * (1.0 / classes as f64);
        for entry in matrix.rows.iter_mut().flatten() {
            *entry += everywhere;
        }
        matrix
    }

    /// 1 - rate on the diagonal, rate on one other class, drawn row by row.
    ///
    /// # Errors
    /// With fewer than two classes.
    pub(super) fn flip(
        classes: usize,
        rate: f64,
        random: &mut LegacyRandom,
    ) -> anyhow::Result<Self> {
        let mut matrix = Self::diagonal(classes, 1.0 - rate);
        for (label, row) in matrix.rows.iter_mut().enumerate() {
            let target = random
                .one_of(&others(classes, label))
                .context("noise = \"flip\" needs a data set of at least two classes")?;
            row[target] = rate;
        }
        Ok(matrix)
    }

    /// 1 - rate on the diagonal, rate/2 on each of two other classes, drawn row by row.
    ///
    /// # Errors
    /// With fewer than three classes.
    pub(super) fn flip2(
        classes: usize,
        rate: f64,
        random: &mut LegacyRandom,
    ) -> anyhow::Result<Self> {
        let mut matrix = Self::diagonal(classes, 1.0 - rate);
        for (label, row) in matrix.rows.iter_mut().enumerate() {
            let targets = random
                .two_of(&others(classes, label))
                .context("noise = \"flip2\" needs a data set of at least three classes")?;
            for target in targets {
                row[target] = rate / 2.0;
            }
        }
        Ok(matrix)
    }

    /// For each pair, 1 - rate on the source's diagonal and rate on its target; all other classes stay clean.
    ///
    /// # Errors
    /// When a label is not one of the classes.
    pub(super) fn asymmetric(
        classes: usize,
        rate: f64,
        pairs: &[(usize, usize)],
    ) -> anyhow::Result<Self> {
        let mut matrix = Self::diagonal(classes, 1.0);
        for &(source, target) in pairs {
            match matrix.rows.get_mut(source) {
                Some(row) if target < classes && target != source => {
                    row[source] = 1.0 - rate;
                    row[target] = rate;
                }
                _ => bail!("no pair of labels among {classes} classes: {source} -> {target}"),
            }
        }
        Ok(matrix)
    }

    /// The same rows for these classes; all others stay clean.
    pub(super) fn only_for(self, classes: &[usize]) -> Self {
        let mut matrix = Self::diagonal(self.rows.len(), 1.0);
        for (class, row) in
            self.rows.into_iter().enumerate().filter(|(class, _)| classes.contains(class))
        {
            matrix.rows[class] = row;
        }
        matrix
    }

    /// Each row, ready to draw from.
    pub(super) fn distributions(&self) -> Vec<Cumulative> {
        self.rows.iter().map(|row| Cumulative::new(row)).collect()
    }
}

fn others(classes: usize, label: usize) -> Vec<usize> {
    (0..classes).filter(|&other| other != label).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: u32) -> LegacyRandom {
        LegacyRandom::new(seed.into()).unwrap()
    }

    #[test]
    fn symmetric_noise_may_hit_the_true_class() {
        let matrix = NoiseMatrix::symmetric(4, 0.8);
        assert!((matrix.rows[1][1] - 0.4).abs() < 1e-12);
        assert!((matrix.rows[1][0] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn asymmetric_rows_leave_other_classes_clean() {
        let matrix = NoiseMatrix::asymmetric(3, 0.4, &[(0, 2)]).unwrap();
        assert_eq!(matrix.rows, [[0.6, 0.0, 0.4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
        for pair in [(0, 3), (3, 0), (1, 1)] {
            assert!(NoiseMatrix::asymmetric(3, 0.4, &[pair]).is_err(), "{pair:?}");
        }
    }

    #[test]
    fn classes_that_are_not_chosen_stay_clean() {
        let matrix = NoiseMatrix::symmetric(3, 0.6).only_for(&[2, 0]);
        let full = NoiseMatrix::symmetric(3, 0.6);
        assert_eq!(matrix.rows, [full.rows[0].clone(), vec![0.0, 1.0, 0.0], full.rows[2].clone()]);
    }

    #[test]
    fn too_few_classes() {
        let error = NoiseMatrix::flip(1, 0.5, &mut random(1)).unwrap_err().to_string();
        assert!(error.contains("at least two classes"), "{error}");
        let error = NoiseMatrix::flip2(2, 0.5, &mut random(1)).unwrap_err().to_string();
        assert!(error.contains("at least three classes"), "{error}");
    }

    proptest! {
        #[test]
        fn rows_sum_to_one(classes in 3_usize..40, rate in 0.0..=1.0_f64, seed: u32) {
            let matrices = [
                (NoiseMatrix::symmetric(classes, rate), classes),
                (NoiseMatrix::flip(classes, rate, &mut random(seed)).unwrap(), 2),
                (NoiseMatrix::flip2(classes, rate, &mut random(seed)).unwrap(), 3),
            ];
            for (matrix, most) in matrices {
                for row in matrix.rows {
                    prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                    prop_assert!(row.iter().filter(|&&entry| entry > 0.0).count() <= most);
                }
            }
        }
    }
}
