//! What every way to correct labels finds.

/// A label that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// The class.
    pub label: i64,
    /// How sure it is, from 0 to 1.
    pub confidence: f32,
}
