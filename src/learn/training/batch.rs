//! What one step of supervised training is given.

use tch::{Device, Tensor};

use super::captured_step::StepInput;
use crate::data::augment::batched::upload;
use crate::data::mixing::Mixing;

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
    /// With what the images are to be mixed.
    pub mixing: Option<MixingTensors>,
}

impl Batch {
    /// All views in one, the first of every sample first, each mixed if they are to be: float [VB,C,H,W].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn all_views(&self) -> anyhow::Result<Tensor> {
        let views = [&self.images].into_iter().chain(&self.other_views);
        let views = views.map(|view| self.mixed(view));
        match &views.collect::<anyhow::Result<Vec<_>>>()?[..] {
            [one] => Ok(one.shallow_clone()),
            several => Ok(Tensor::f_cat(several, 0)?),
        }
    }

    /// Rows of the samples, float [B,...], mixed as their images are, if these are to be.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn mixed(&self, rows: &Tensor) -> anyhow::Result<Tensor> {
        match &self.mixing {
            Some(mixing) => mixing.of_rows(rows),
            None => Ok(rows.shallow_clone()),
        }
    }

    /// The losses of [`Batch::all_views`], float [B]. `of` has them by the labels, int64 [B], of these samples, int64 [B]; of
    /// mixed images it is asked for those of both labels, each of which has the share of its image.
    ///
    /// # Errors
    /// Those of `of`, or when libtorch fails.
    pub fn losses(
        &self,
        of: impl Fn(&Tensor, &Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Tensor> {
        let own = of(&self.labels, &self.samples)?;
        let Some(MixingTensors { share, partners }) = &self.mixing else { return Ok(own) };
        let of_partner = |rows: &Tensor| rows.f_index_select(0, partners);
        let partners = of(&of_partner(&self.labels)?, &of_partner(&self.samples)?)?;
        Ok(partners.f_lerp_tensor(&own, share)?)
    }

    /// The same losses, counted for the samples that they are from, float [B]: each mixed image counts for both of its samples, by
    /// their shares, and so a sample's loss is that under its own label alone, of the two images that it is a part of. `of` has
    /// them by the labels, int64 [B].
    ///
    /// # Errors
    /// As [`Batch::losses`].
    pub fn losses_of_samples(
        &self,
        of: impl Fn(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Tensor> {
        let own = of(&self.labels)?;
        let Some(MixingTensors { share, partners }) = &self.mixing else { return Ok(own) };
        let of_partners = of(&self.labels.f_index_select(0, partners)?)?;
        // The row whose partner a sample is.
        let rows = partners.f_argsort(0, false)?;
        Ok(of_partners.f_index_select(0, &rows)?.f_lerp_tensor(&own, share)?)
    }

    /// Some of its rows, int64 [R]. Where images are mixed, these are with each other, in a random order still.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn rows(&self, rows: &Tensor) -> anyhow::Result<Self> {
        let of = |tensor: &Tensor| tensor.f_index_select(0, rows);
        let mixing =
            self.mixing.as_ref().map(|MixingTensors { share, partners }| -> anyhow::Result<_> {
                // They are ordered by numbers in random order.
                Ok(MixingTensors {
                    share: share.shallow_clone(),
                    partners: of(partners)?.f_argsort(0, false)?,
                })
            });
        Ok(Self {
            images: of(&self.images)?,
            other_views: self.other_views.iter().map(of).collect::<Result<_, _>>()?,
            labels: of(&self.labels)?,
            clean_labels: of(&self.clean_labels)?,
            samples: of(&self.samples)?,
            mixing: mixing.transpose()?,
        })
    }
}

/// With what rows are mixed.
#[derive(Debug)]
pub struct MixingTensors {
    /// The share of a row's own, a float without dimensions.
    pub share: Tensor,
    /// The partner of each row, int64 [B].
    pub partners: Tensor,
}

impl MixingTensors {
    /// As it was drawn.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(drawn: &Mixing, device: Device) -> anyhow::Result<Self> {
        let share = upload(&[drawn.share as f32], device)?.f_squeeze()?;
        Ok(Self { share, partners: upload(&drawn.partners, device)? })
    }

    /// Rows, float [B,...], mixed.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn of_rows(&self, rows: &Tensor) -> anyhow::Result<Tensor> {
        Ok(rows.f_index_select(0, &self.partners)?.f_lerp_tensor(rows, &self.share)?)
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
            mixing: self.mixing.as_ref().map(|mixing| mixing.map(change)).transpose()?,
        })
    }
}

impl StepInput for MixingTensors {
    fn map(
        &self,
        change: &mut dyn FnMut(&Tensor) -> anyhow::Result<Tensor>,
    ) -> anyhow::Result<Self> {
        Ok(Self { share: change(&self.share)?, partners: change(&self.partners)? })
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
