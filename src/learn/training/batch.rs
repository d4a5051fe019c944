//! What one step of supervised training is given.

use tch::Tensor;

/// Samples as one step uses them.
pub struct Batch {
    /// The first view, float [B,C,H,W].
    pub images: Tensor,
    /// The other views, each as the first.
    pub other_views: Vec<Tensor>,
    /// The labels to train on, int64 [B].
    pub labels: Tensor,
    /// The data set's own labels, int64 [B].
    pub clean_labels: Tensor,
    /// Their places in the training part of the data set, int64 [B].
    pub samples: Tensor,
}

impl Batch {
    /// All views in one, the first of every sample first: float [VB,C,H,W].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn all_views(&self) -> anyhow::Result<Tensor> {
        if self.other_views.is_empty() {
            return Ok(self.images.shallow_clone());
        }
        let views: Vec<&Tensor> = [&self.images].into_iter().chain(&self.other_views).collect();
        Ok(Tensor::f_cat(&views, 0)?)
    }
}

/// All that one step uses.
pub struct StepBatch {
    /// The samples that are trained on.
    pub train: Batch,
    /// The samples that the method uses in other ways, in its order.
    pub others: Vec<Batch>,
}
