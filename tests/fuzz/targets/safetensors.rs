//! A safetensors file, as each artifact that has one.

use std::fs::hard_link;

use pipeline_stages::formats::{
    Labels, PREDICTIONS_FILE, Part, Predictions, SAMPLE_LOSSES_FILE, SampleLosses, Samples,
    SplitIndices,
};

use crate::scratch::Scratch;

pub(crate) fn read(bytes: &[u8]) -> bool {
    let length = bytes.len();
    // An empty file cannot be mapped.
    let scratch = Scratch::new();
    let artifact = scratch.path();
    let first = scratch.write("labels.safetensors", bytes);
    for name in ["split.safetensors", Part::Train.file_name(), PREDICTIONS_FILE, SAMPLE_LOSSES_FILE]
    {
        hard_link(&first, artifact.join(name)).expect("a scratch file can be made");
    }
    let labels = Labels::read(artifact).and_then(|labels| labels.check(&labels.clean, 10));
    let split = SplitIndices::read(artifact).and_then(|split| split.checked(split.train.len() + 1));
    let samples = Samples::open_any(artifact, Part::Train).map(|samples| {
        let encoded = (0..samples.labels.len()).filter_map(|index| samples.encoded(index));
        let bytes = samples.pixels().len() + encoded.map(<[u8]>::len).sum::<usize>();
        // They are parts of the file.
        assert!(bytes <= length);
    });
    let train = Predictions::read(artifact, Part::Train).map(|found| found.map(|it| it.samples()));
    let test = Predictions::read(artifact, Part::Test).map(|found| found.map(|it| it.samples()));
    let losses = SampleLosses::read(artifact).map(|found| found.map(|it| it.epochs()));
    let valid = [
        labels.is_ok(),
        split.is_ok(),
        samples.is_ok(),
        train.is_ok(),
        test.is_ok(),
        losses.is_ok(),
    ];
    valid.contains(&true)
}
