//! What one step of supervised training is given.

use tch::Tensor;

use super::captured_step::StepInput;

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

impl StepInput for Batch {
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            images: change(&self.images)?,
            other_views: self
                .other_views
                .iter()
                .map(&mut *change)
                .collect::<anyhow::Result<_>>()?,
            labels: change(&self.labels)?,
            clean_labels: change(&self.clean_labels)?,
            samples: change(&self.samples)?,
        })
    }
}

/// All that one step uses.
pub struct StepBatch {
    /// The samples that are trained on.
    pub train: Batch,
    /// The samples that the method uses in other ways, in its order.
    pub others: Vec<Batch>,
}

impl StepInput for StepBatch {
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        let train = self.train.map(change)?;
        let others = self.others.iter().map(|other| other.map(change));
        Ok(Self { train, others: others.collect::<anyhow::Result<_>>()? })
    }
}
