//! `train`: a classifier on (noisy) labels, by one of the methods.

use pipeline_stages::kinds;
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::training::recipe::Recipe;
use crate::training::supervised_trainer::SupervisedTrainer;
use crate::training::training_data::TrainingData;
use crate::{Body, device, methods};

impl Body for kinds::Train {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let recipe = Recipe::of(self);
        let data = TrainingData::read(self, "init", context, device)?;
        let mut trainer = SupervisedTrainer::new(&recipe, context, &data, methods::of)?;
        trainer.run(self)?;
        trainer.write_model(self)?;
        trainer.write_curves()
    }
}
