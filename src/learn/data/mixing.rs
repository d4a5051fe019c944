//! With what the images of a step are mixed. Does not depend on images.

use crate::random::Stream;

/// The rows of a step, each mixed with another one: `share` of its own, and the rest of that of its partner.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixing {
    /// From 1/2 to 1, the same for all rows.
    pub share: f64,
    /// The partner of each row. Each row is the partner of one.
    pub partners: Vec<i64>,
}

impl Mixing {
    /// As MixUp draws it (Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018): a share of Beta(alpha, alpha),
    /// and partners by a random order.
    ///
    /// The larger one of the two shares is the row's own. As the order is random, that has the same distribution as either,
    /// and the label of a row is that of the larger part of its image.
    pub fn draw(stream: &mut Stream, alpha: f64, rows: usize) -> Self {
        let share = stream.symmetric_beta(alpha);
        let mut partners: Vec<i64> = (0..rows as i64).collect();
        stream.shuffle(&mut partners);
        Self { share: share.max(1.0 - share), partners }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Purpose;

    proptest! {
        #[test]
        fn every_row_is_the_partner_of_one(rows in 0usize..60, alpha in 1e-3f64..1e3, seed: u64) {
            let mut stream = Stream::new(seed, Purpose::Mixing, 0, 0);
            let Mixing { share, mut partners } = Mixing::draw(&mut stream, alpha, rows);
            prop_assert!((0.5..=1.0).contains(&share), "{}", share);
            partners.sort_unstable();
            prop_assert_eq!(partners, (0..rows as i64).collect::<Vec<_>>());
        }
    }
}
