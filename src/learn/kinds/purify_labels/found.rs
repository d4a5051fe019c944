//! What every way to correct labels finds.

/// A label that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The class.
    pub label: i64,
    /// How sure it is, from 0 to 1.
    pub confidence: f32,
}

/// The places of those with the largest confidence: `share` of them, to the nearest number; of equal ones the first.
pub fn surest(found: &[Found], share: f64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..found.len()).collect();
    places.sort_by(|&one, &other| found[other].confidence.total_cmp(&found[one].confidence));
    places.truncate((share * found.len() as f64).round() as usize);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_have_the_largest_confidence_and_of_equal_ones_the_first() {
        let found =
            [0.5, 0.9, 0.0, 0.9, 1.0].map(|confidence| Found { label: 0, confidence }).to_vec();
        assert_eq!(surest(&found, 1.0), [4, 1, 3, 0, 2]);
        assert_eq!(surest(&found, 0.4), [4, 1]);
        assert_eq!(surest(&found, 0.05), [0; 0]);
    }
}
