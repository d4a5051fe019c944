//! The nearest neighbours: the k training features of largest cosine vote, each for its label with exp(cosine / T)
//! (Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", 2018).

use pipeline_stages::kinds::Probe;
use pipeline_stages::message::Metrics;
use tch::{Kind, Tensor};

use super::measure::measure;
use crate::kinds::features::source::FeatureSource;
use crate::training::loss::unit_rows;

/// Measures the vote.
pub(super) fn run(parameters: &Probe, source: &FeatureSource<'_>) -> anyhow::Result<Metrics> {
    let data = source.data;
    let samples = data.train.len() as u64;
    if parameters.k >= samples {
        source.context.note(format!(
            "{samples} samples train, not more than k ({}): all of them vote for every image",
            parameters.k
        ));
    }
    let _no_gradients = tch::no_grad_guard();
    let voters = VotingSamples {
        features: unit_rows(&source.of_training_samples()?)?,
        labels: data.labels_of(&data.train)?,
        classes: i64::try_from(data.classes.len())?,
        k: i64::try_from(parameters.k)?,
        temperature: parameters.temperature,
    };
    measure(source, "knn", |features| voters.votes(features))
}

/// The samples that vote.
#[derive(Debug)]
pub struct VotingSamples {
    /// float [n,F], each of length 1.
    pub features: Tensor,
    /// int64 [n].
    pub labels: Tensor,
    /// How many classes there are.
    pub classes: i64,
    /// How many vote; all, where there are fewer.
    pub k: i64,
    /// What cosines are divided by.
    pub temperature: f64,
}

impl VotingSamples {
    /// Features, float [B,F] -> the votes for every class, float [B,K], in a unit of their own per row.
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn votes(&self, features: &Tensor) -> anyhow::Result<Tensor> {
        let cosines = unit_rows(features)?.f_mm(&self.features.f_transpose(0, 1)?)?;
        let (rows, all) = cosines.size2()?;
        let (nearest, neighbours) = cosines.f_topk(self.k.min(all), 1, true, true)?;
        // Relative to the nearest one, so that no small temperature makes them infinite.
        let relative = nearest.f_sub(&nearest.f_narrow(1, 0, 1)?)?;
        let weights = relative.f_div_scalar(self.temperature)?.f_exp()?;
        let labels = self.labels.f_index_select(0, &neighbours.f_flatten(0, 1)?)?;
        let votes = Tensor::f_zeros([rows, self.classes], (Kind::Float, weights.device()))?;
        Ok(votes.f_scatter_add(1, &labels.f_reshape_as(&neighbours)?, &weights)?)
    }
}
