//! `train`: a classifier on (noisy) labels, by one of the robust methods.

use pipeline_stages::kinds::{self, Method};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::finetune::Finetune;
use crate::meta_weight_net::MetaWeightNet;
use crate::supervised::Recipe;
use crate::supervised::data::TrainingData;
use crate::supervised::fit::{Fit, RobustMethod};
use crate::supervised::meta::MetaDraw;
use crate::{Body, device, training_loop};

impl Body for kinds::Train {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let recipe = Recipe::of(self);
        let mut data = TrainingData::read(&recipe, context, device)?;
        let method: Box<dyn RobustMethod> = match self.method {
            Method::Finetune => Box::new(Finetune),
            Method::MetaWeightNet => {
                data = data.with_meta_batches(meta_draw(self)?)?;
                let (classes, seed) = (data.classes.len(), context.seed);
                Box::new(MetaWeightNet::new(self, classes, data.noisy, seed, device)?)
            }
        };
        let mut fit = Fit::new(&recipe, context, &data, method)?;
        let budget = fit.budget()?;
        training_loop::run(&mut fit, &data, budget, context, self)?;
        fit.write_model(self)?;
        fit.write_curves()
    }
}

fn meta_draw(parameters: &kinds::Train) -> anyhow::Result<MetaDraw> {
    let batch_size = parameters.meta_batch_size.unwrap_or(parameters.batch_size);
    Ok(MetaDraw { source: parameters.meta_samples, batch_size: usize::try_from(batch_size)? })
}
