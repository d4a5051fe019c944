//! What every way to correct labels finds.

/// A label that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The class.
    pub label: i64,
    /// How sure it is: a share of votes, or what a regression predicts, which can be below 0 and above 1.
    pub value: f32,
}

impl Found {
    /// How sure it is, from 0 to 1.
    pub fn confidence(self) -> f32 {
        self.value.clamp(0.0, 1.0)
    }
}

/// The places of those with the largest values: `share` of them, to the nearest number; of equal ones the first. Not by the
/// confidence, which is 1 for many of them.
pub fn surest(found: &[Found], share: f64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..found.len()).collect();
    places.sort_by(|&one, &other| found[other].value.total_cmp(&found[one].value));
    places.truncate((share * found.len() as f64).round() as usize);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_have_the_largest_values_and_of_equal_ones_the_first() {
        let found =
            [1.0, 0.9, -0.5, 0.9, 1.25, -0.25].map(|value| Found { label: 0, value }).to_vec();
        assert_eq!(surest(&found, 1.0), [4, 0, 1, 3, 5, 2]);
        assert_eq!(surest(&found, 0.5), [4, 0, 1]);
        assert_eq!(surest(&found, 0.05), [0; 0]);
        let confidences: Vec<f32> = found.iter().map(|found| found.confidence()).collect();
        assert_eq!(confidences, [1.0, 0.9, 0.0, 0.9, 1.0, 0.0]);
    }
}
