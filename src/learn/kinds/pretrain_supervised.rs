//! `pretrain-supervised`: an encoder from a classification of other images (ImageNet32 in the reference).
//!
//! Fine-tuning from scratch, counted in updates; it ends early when the test accuracy falls, and the best of it on the test set
//! is kept. The artifact's
//! `weights.safetensors` is the encoder alone, so that it loads strictly; its classifier is beside it.

use pipeline_stages::kinds::{
    Keep, PretrainSupervised, Sampling, ValidationLabels, ValidationTransform,
};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use crate::methods::finetune::Finetune;
use crate::training::decay;
use crate::training::loss::SampleLoss;
use crate::training::method::{Method, Setup};
use crate::training::optimizer::Rule;
use crate::training::recipe::{Chosen, DataRecipe, EarlyEnd, Length, Recipe};
use crate::training::schedule::Schedule;
use crate::training::supervised_trainer::SupervisedTrainer;
use crate::training::training_data::TrainingData;
use crate::{Body, device};

impl Body for PretrainSupervised {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        let recipe = recipe(self);
        let data = TrainingData::read(&recipe.data, context, device)?;
        let method = |setup: &mut Setup<'_>| Ok(Box::new(Finetune::new(setup)?) as Box<dyn Method>);
        let mut trainer = SupervisedTrainer::new(&recipe, context, &data, method)?;
        trainer.run(self)?;
        trainer.write_encoder(self)?;
        let mut metrics = trainer.write_curves()?;
        metrics.extend(trainer.curves().test_metrics());
        Ok(metrics)
    }
}

fn recipe(parameters: &PretrainSupervised) -> Recipe {
    Recipe {
        architecture: parameters.architecture,
        data: DataRecipe {
            init_port: "init",
            batch_size: parameters.batch_size,
            sampling: Sampling::Uniform,
            samples_per_epoch: None,
            augmentation: parameters.augmentation,
            image_size: None,
            normalise: parameters.normalise,
            validation_transform: ValidationTransform::Plain,
            validation_labels: ValidationLabels::Clean,
            track_test: true,
        },
        loss: SampleLoss::CrossEntropy,
        views: 1,
        mixup: None,
        length: Length::Steps(parameters.updates),
        rule: Rule::Sgd { momentum: 0.9 },
        weight_decay: parameters.weight_decay,
        decays: decay::all,
        learning_rate: parameters.learning_rate,
        schedule: Schedule::of(
            parameters.schedule,
            parameters.warmup,
            parameters.step_every,
            parameters.step_factor,
        ),
        precision: parameters.precision,
        evaluate_every: parameters.evaluate_every,
        sample_losses: false,
        early_end: Some(EarlyEnd { after: parameters.stop_after, drop: parameters.stop_drop }),
        chosen: match parameters.keep {
            Keep::Last => Chosen::Last,
            Keep::BestOnTest => Chosen::BestOnTest,
        },
    }
}
