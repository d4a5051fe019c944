//! How often a classifier of features is right.

use pipeline_stages::formats::Part;
use pipeline_stages::message::Metrics;
use tch::{Kind, Tensor};

use crate::kinds::features::source::FeatureSource;

/// How many guesses a sample has in the second accuracy.
const TOP: i64 = 5;

/// The accuracies of a classifier of features, which returns float [B,K]: the larger, the likelier a class.
pub(super) fn measure(
    source: &FeatureSource<'_>,
    name: &str,
    classify: impl Fn(&Tensor) -> anyhow::Result<Tensor>,
) -> anyhow::Result<Metrics> {
    let data = source.data;
    let mut metrics = Metrics::new();
    for (part, samples, what) in [
        (Part::Test, &data.test, "accuracy"),
        (Part::Train, &data.validation, "validation-accuracy"),
    ] {
        if samples.is_empty() {
            continue;
        }
        let (mut first, mut among) = (0, 0);
        source.for_each_batch(part, samples, what, |features, labels| {
            let scores = classify(&features)?;
            first += hits(&scores, &labels, 1)?;
            among += hits(&scores, &labels, TOP)?;
            Ok(())
        })?;
        let share = |hits: i64| hits as f64 / samples.len() as f64;
        metrics.insert(format!("{name}-{what}"), share(first));
        if part == Part::Test && data.classes.len() as i64 > TOP {
            metrics.insert(format!("{name}-top{TOP}-accuracy"), share(among));
        }
    }
    Ok(metrics)
}

/// How many rows of `scores`, float [B,K], have their label among the `top` largest.
fn hits(scores: &Tensor, labels: &Tensor, top: i64) -> anyhow::Result<i64> {
    let (_, classes) = scores.size2()?;
    let (_, guesses) = scores.f_topk(top.min(classes), 1, true, true)?;
    let hits = guesses.f_eq_tensor(&labels.f_unsqueeze(1)?)?;
    Ok(hits.f_sum(Kind::Int64)?.f_int64_value(&[])?)
}
