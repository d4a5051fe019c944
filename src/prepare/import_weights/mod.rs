//! The body of `import-weights`: the encoder of another program's checkpoint, as an artifact.
//!
//! [`locate`] finds the file, [`crate::checkpoint`] reads it, [`layers`] finds the encoder's layers
//! among its names, and [`report`] lists how each name was used.

mod layers;
#[cfg(test)]
mod layers_tests;
mod locate;
mod report;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use pipeline_stages::formats::{
    ImageShape, InputCrop, ModelInfo, NamedTensor, WEIGHTS_FILE, write_tensors,
};
use pipeline_stages::kinds::architecture::{Architecture, EncoderArchitecture};
use pipeline_stages::kinds::{ImportWeights, InputNormalisation};
use pipeline_stages::message::Metrics;
use pipeline_stages::state_dict::{ElementType, TensorSpec, feature_count, image_size};
use pipeline_stages::worker::Context;
use safetensors::Dtype;

use crate::body::Body;
use crate::checkpoint::{self, CheckpointFile, CheckpointLimits, Contents, Tensor, Values};
use layers::Selection;
use report::Report;

impl Body for ImportWeights {
    fn run(&self, context: &Context) -> anyhow::Result<Metrics> {
        let path = locate::checkpoint(self, context)?;
        import(self, &path, context).with_context(|| path.display().to_string())
    }
}

/// Writes the artifact from the checkpoint at `path`.
fn import(stage: &ImportWeights, path: &Path, context: &Context) -> anyhow::Result<Metrics> {
    let bytes = checkpoint::map(path)?;
    let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default())?;
    let contents = checkpoint.contents()?;
    let entries = contents.entries()?;
    let selection = Selection::find(&entries, stage.architecture, stage.prefix.as_deref());
    let selection = selection.map_err(|error| match contents.whole_model() {
        Some(model) => anyhow!("{error:#}; {model}"),
        None => error,
    })?;
    check_channels(stage, selection.channels)?;

    let mut tensors: Vec<NamedTensor<'_>> = Vec::new();
    for layer in &selection.layers {
        context.stop_point()?;
        let bytes = match &layer.found {
            Some(found) => layer_bytes(&contents, layer.spec.element, found.tensor)
                .with_context(|| format!("'{}'", found.name))?,
            None => 0i64.to_le_bytes().to_vec(),
        };
        let TensorSpec { name, shape, .. } = &layer.spec;
        tensors.push((name, dtype(layer.spec.element), shape.clone(), Cow::Owned(bytes)));
    }
    let metadata = [("type", "weights".to_owned())];
    write_tensors(&context.output.join(WEIGHTS_FILE), &tensors, &metadata)?;
    let report = Report::new(checkpoint.format(), &selection, &entries);
    report.write(&context.output)?;
    report.note(stage.architecture, context);
    model_info(stage, &selection, &report)?.write(&context.output)?;
    let mut metrics = Metrics::of_counts([("tensors", selection.layers.len())]);
    metrics.insert_count("parameters", parameter_count(&selection) as u64);
    Ok(metrics)
}

fn check_channels(stage: &ImportWeights, channels: usize) -> anyhow::Result<()> {
    ensure!(
        stage.normalise != InputNormalisation::Imagenet || channels == 3,
        "normalise = \"imagenet\" is for images of three channels, but this encoder takes {channels}"
    );
    Ok(())
}

fn model_info(
    stage: &ImportWeights,
    selection: &Selection<'_>,
    report: &Report,
) -> anyhow::Result<ModelInfo> {
    let size = image_size(stage.architecture);
    let (input_mean, input_std) = stage.normalise.statistics(selection.channels);
    Ok(ModelInfo {
        architecture: stage.architecture.to_string(),
        input: ImageShape { channels: selection.channels, height: size, width: size },
        input_crop: input_crop(stage),
        features: feature_count(stage.architecture),
        further_networks: 0,
        classes: Vec::new(),
        input_mean,
        input_std,
        training: serde_json::json!({
            "kind": "import-weights",
            "format": report.format,
            "prefix": report.prefix,
        }),
    })
}

/// How images of any size become inputs of a network for large images: as for ImageNet's models, SimCLR's, or vision transformers.
fn input_crop(stage: &ImportWeights) -> Option<InputCrop> {
    use Architecture::{Resnet18At224, Resnet50At224};
    match (stage.architecture, stage.normalise) {
        (EncoderArchitecture::Transformer(_), _) => Some(InputCrop::ResizeThenCropBicubic),
        (EncoderArchitecture::Residual(Resnet18At224 | Resnet50At224), normalise) => {
            Some(match normalise {
                InputNormalisation::None => InputCrop::CropThenResize,
                InputNormalisation::Imagenet | InputNormalisation::Half => {
                    InputCrop::ResizeThenCrop
                }
            })
        }
        (EncoderArchitecture::Residual(_), _) => None,
    }
}

/// The little-endian bytes of a tensor in the type that a layer has.
fn layer_bytes(
    contents: &Contents<'_, '_>,
    element: ElementType,
    tensor: &Tensor<'_>,
) -> anyhow::Result<Vec<u8>> {
    match (contents.values(tensor)?, element) {
        (Values::Floats(floats), ElementType::F32) => {
            let wrong = floats.iter().filter(|float| !float.is_finite()).count();
            ensure!(
                wrong == 0,
                "{wrong} of its {} values are infinite or NaN: the file is damaged, or its training diverged",
                floats.len()
            );
            Ok(floats.iter().flat_map(|float| float.to_le_bytes()).collect())
        }
        (Values::Integers(integers), ElementType::I64) => {
            Ok(integers.iter().flat_map(|integer| integer.to_le_bytes()).collect())
        }
        _ => bail!("it is {tensor}, but the layer has another type"),
    }
}

fn dtype(element: ElementType) -> Dtype {
    match element {
        ElementType::F32 => Dtype::F32,
        ElementType::I64 => Dtype::I64,
    }
}

/// All tensors except running statistics and counters.
fn parameter_count(selection: &Selection<'_>) -> usize {
    let specs = selection.layers.iter().map(|layer| &layer.spec);
    let trained =
        specs.filter(|spec| spec.element == ElementType::F32 && !spec.name.contains(".running_"));
    trained.map(|spec| spec.shape.iter().product::<usize>()).sum()
}
