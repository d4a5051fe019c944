//! `pretrain-supervised`: an encoder from a classification of other images (ImageNet32 in the reference).
//!
//! Fine-tuning from scratch, counted in updates; it ends early when the test accuracy falls, and the best of it on the test set
//! is kept. The artifact's
//! `weights.safetensors` is the encoder alone, so that it loads strictly; its classifier is beside it.

use pipeline_stages::Kind as _;
use pipeline_stages::kinds::{Keep, PretrainSupervised, Train};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;
use serde_json::Value;

use crate::methods::finetune::Finetune;
use crate::training::decay;
use crate::training::method::{Setup, TrainingMethod};
use crate::training::recipe::{Chosen, EarlyEnd, Length, Recipe};
use crate::training::supervised_trainer::SupervisedTrainer;
use crate::training::training_data::TrainingData;
use crate::{Body, device};

impl Body for PretrainSupervised {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let recipe = recipe(self);
        let data = TrainingData::read(&recipe.parameters, "init", context, device)?;
        let method =
            |setup: &mut Setup<'_>| Ok(Box::new(Finetune::new(setup)?) as Box<dyn TrainingMethod>);
        let mut trainer = SupervisedTrainer::new(&recipe, context, &data, method)?;
        trainer.run(self)?;
        trainer.write_encoder(self)?;
        let mut metrics = trainer.write_curves()?;
        metrics.extend(trainer.curves().test_metrics());
        Ok(metrics)
    }
}

/// As `train` with its defaults (cross-entropy, SGD with momentum 0.9, every sample once an epoch), but for the parameters that both
/// kinds have.
fn recipe(stage: &PretrainSupervised) -> Recipe {
    let own = serde_json::to_value(stage).expect("parameters are plain data");
    let Value::Object(mut shared) = own else { unreachable!("parameters have names") };
    shared.retain(|name, _| Train::fields().iter().any(|field| field.name == *name));
    let parameters = serde_json::from_value(shared.into());
    Recipe {
        parameters: parameters.expect("what has the same name in both kinds has the same type"),
        length: Length::Steps(stage.updates),
        decays: decay::all,
        early_end: Some(EarlyEnd { after: stage.stop_after, drop: stage.stop_drop }),
        chosen: match stage.keep {
            Keep::Last => Chosen::Last,
            Keep::BestOnTest => Chosen::BestOnTest,
        },
    }
}
