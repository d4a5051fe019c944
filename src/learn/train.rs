//! `train`: a classifier on (noisy) labels, by one of the methods.

use pipeline_stages::kinds;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::finetune::Finetune;
use crate::meta_weight_net::MetaWeightNet;
use crate::supervised::Recipe;
use crate::supervised::data::TrainingData;
use crate::supervised::fit::SupervisedTrainer;
use crate::supervised::method::{Method, Setup};
use crate::{Body, device};

impl Body for kinds::Train {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let recipe = Recipe::of(self);
        let data = TrainingData::read(&recipe, context, device)?;
        let method = |setup: &mut Setup<'_>| method(self, setup);
        let mut trainer = SupervisedTrainer::new(&recipe, context, &data, method)?;
        trainer.run(self)?;
        trainer.write_model(self)?;
        trainer.write_curves()
    }
}

/// The method that a stage asks for.
fn method(parameters: &kinds::Train, setup: &mut Setup<'_>) -> anyhow::Result<Box<dyn Method>> {
    Ok(match parameters.method {
        kinds::Method::Finetune => Box::new(Finetune::new(setup)?),
        kinds::Method::MetaWeightNet => Box::new(MetaWeightNet::new(parameters, setup)?),
    })
}
