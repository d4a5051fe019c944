//! What a network needs under one name.

/// A tensor of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// As in `layer1.0.conv1.weight`.
    pub name: String,
    /// The length of each dimension; none for a scalar.
    pub shape: Vec<usize>,
    pub element: ElementType,
}

/// The type of the elements of a tensor of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// Weights and running statistics.
    F32,
    /// Counters: `num_batches_tracked`.
    I64,
}
