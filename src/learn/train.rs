//! `train`: a classifier on (noisy) labels, by one of the robust methods.

use pipeline_stages::kinds::{self, Method};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::finetune::Finetune;
use crate::supervised::Recipe;
use crate::supervised::data::TrainingData;
use crate::supervised::fit::{Fit, RobustMethod};
use crate::{Body, device, training_loop};

impl Body for kinds::Train {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution)?;
        let recipe = Recipe::of(self);
        let data = TrainingData::read(&recipe, context, device)?;
        let method: Box<dyn RobustMethod> = match self.method {
            Method::Finetune => Box::new(Finetune),
            Method::MetaWeightNet => anyhow::bail!("meta-weight-net is on its way"),
        };
        let mut fit = Fit::new(&recipe, context, &data, method)?;
        let budget = fit.budget()?;
        training_loop::run(&mut fit, &data, budget, context, self)?;
        fit.write_model(self)?;
        fit.write_curves()
    }
}
