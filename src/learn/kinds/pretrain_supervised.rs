//! `pretrain-supervised`: an encoder from a classification of other images (ImageNet32 in the reference).
//!
//! Fine-tuning from scratch, counted in updates; it ends early when the test accuracy falls, and the best of it on the test set
//! is kept. The artifact's
//! `weights.safetensors` is the encoder alone, so that it loads strictly; its classifier is beside it.

use pipeline_stages::kinds::{Keep, PretrainSupervised, Train};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::methods::finetune::Finetune;
use crate::training::decay;
use crate::training::method::{Method, Setup};
use crate::training::recipe::{Chosen, EarlyEnd, Length, Recipe};
use crate::training::supervised_trainer::SupervisedTrainer;
use crate::training::training_data::TrainingData;
use crate::{Body, device};

impl Body for PretrainSupervised {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let recipe = recipe(self);
        let data = TrainingData::read(&recipe.parameters, "init", context, device)?;
        let method = |setup: &mut Setup<'_>| Ok(Box::new(Finetune::new(setup)?) as Box<dyn Method>);
        let mut trainer = SupervisedTrainer::new(&recipe, context, &data, method)?;
        trainer.run(self)?;
        trainer.write_encoder(self)?;
        let mut metrics = trainer.write_curves()?;
        metrics.extend(trainer.curves().test_metrics());
        Ok(metrics)
    }
}

/// As `train` with its defaults (cross-entropy, SGD with momentum 0.9, every sample once an epoch), but for what the stage says.
fn recipe(stage: &PretrainSupervised) -> Recipe {
    let &PretrainSupervised {
        architecture,
        updates,
        batch_size,
        learning_rate,
        weight_decay,
        schedule,
        warmup,
        step_every,
        step_factor,
        augmentation,
        normalise,
        precision,
        evaluate_every,
        stop_after,
        stop_drop,
        keep,
    } = stage;
    Recipe {
        parameters: Train {
            architecture,
            batch_size,
            learning_rate,
            weight_decay,
            schedule,
            warmup,
            step_every,
            step_factor,
            augmentation,
            normalise,
            precision,
            evaluate_every,
            ..Train::default()
        },
        length: Length::Steps(updates),
        decays: decay::all,
        early_end: Some(EarlyEnd { after: stop_after, drop: stop_drop }),
        chosen: match keep {
            Keep::Last => Chosen::Last,
            Keep::BestOnTest => Chosen::BestOnTest,
        },
    }
}
