//! `features`: what a frozen encoder makes of every image.

pub mod source;

use pipeline_stages::formats::{
    DatasetInfo, FeaturesInfo, FeaturesWriter, ModelInfo, Part, SampleSplit, Samples,
};
use pipeline_stages::kind;
use pipeline_stages::kinds::{Augmentation, Features};
use pipeline_stages::message::Metrics;
use pipeline_stages::worker::Context;

use self::source::{ENCODER, FeatureSource, shown};
use crate::network::{bytes_of, weights};
use crate::training::training_data::TrainingData;
use crate::{Body, device};

impl Body for Features {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let device = device::prepare(&context.execution, self.precision)?;
        context.ran_on(device::ran_on(device));
        let encoder = ModelInfo::read(context.input(ENCODER)?)?;
        let architecture = weights::architecture(&encoder)?;
        let batch_size = self.batch_size;
        let shown = shown(architecture, batch_size, self.image_size, Augmentation::None);
        let data = TrainingData::read(&shown, ENCODER, context, device)?;
        let source =
            FeatureSource::of_encoder(architecture, self.precision, batch_size, &data, context)?;

        let folder = context.input("data")?;
        let info = FeaturesInfo {
            dimension: usize::try_from(source.dimension())?,
            data: DatasetInfo::read(folder)?,
            encoder,
            parameters: kind::key_parameters(self).into(),
        };
        let [train, test] = [Part::Train, Part::Test]
            .map(|part| anyhow::Ok(Samples::open_any(folder, part)?.labels));
        let (train, test) = (train?, test?);
        let mut file = FeaturesWriter::create(&context.output, &info, &train, &test)?;
        for (part, labels) in [(Part::Train, &train), (Part::Test, &test)] {
            let samples = SampleSplit::all_train(labels.len())?.train;
            source.for_each_batch(part, &samples, part.name(), |features, _| {
                file.push(&bytes_of(&features)?)
            })?;
        }
        file.finish()?;
        Ok(Metrics::of_counts([
            ("train-samples", train.len()),
            ("test-samples", test.len()),
            ("dimension", info.dimension),
        ]))
    }
}
