//! How much memory and work a pickle can cause.

/// How much a pickle may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PickleLimits {
    /// The most instructions, and therefore references between values.
    pub instructions: usize,
    /// The most values. Each takes at most 150 bytes in addition to its references.
    pub values: usize,
    /// The most marks that are open at once: how deep unfinished containers are nested.
    pub marks: usize,
}

impl Default for PickleLimits {
    fn default() -> Self {
        Self { instructions: 32 << 20, values: 4 << 20, marks: 10_000 }
    }
}
