//! `replace-images`: open-set noise, images of other things under the labels of a data set.

use crate::kind::{LARGEST_NUMPY_SEED, Problem, Rules};
use crate::known::{Images, Known, KnownInputs, differing};

kind! {
    /// Replaces training images with images of another data set: open-set label noise.
    ///
    /// The result is the data set with other pixels in some training samples, and takes its place in `split`, `corrupt-labels` and
    /// training. A replaced image fits no class: its label stays, and where wrong labels are counted, it counts as right.
    /// Test samples and held-out samples keep their images.
    ///
    /// The draws are those of NumPy's legacy generator: of the N samples that may be replaced, `choice(N, n, replace=False)`, then
    /// of the M training images of `outside`, `choice(M, n, replace=False)`. The seed must fit in 32 bits. `replaced.csv` has a row
    /// per replaced sample, in the order of the draw: `index`, its place in the training part; `outside`, the place of its new image in
    /// the training part of the other data set. The statistics of the channels are those of the new training images.
    ReplaceImages = "replace-images", version 1, seeded true, output Dataset;
    ports {
        /// The data set, of pixels.
        data: One[Dataset];
        /// Where the other images come from: a data set of pixels of the same shape. Its labels are not used.
        outside: One[Dataset];
        /// Which samples may be replaced: those that train. Without it: all.
        split: Optional[Split];
    }
    parameters {
        /// The share of the samples that is replaced.
        rate: f64, in crate::parameter::FRACTION;
    }
    execution {}
    headline ["replaced", "train-samples"]
}

impl Rules for ReplaceImages {
    fn check_inputs(&self, inputs: &KnownInputs) -> Vec<Problem> {
        let (data, outside) = (inputs.at("data"), inputs.at("outside"));
        let mut problems = Vec::new();
        for (port, known) in [("data", &data), ("outside", &outside)] {
            if known.images == Some(Images::Encoded) {
                let message = "the images of this data set are encoded, of any size, and only pixels can be replaced: \
                               use a data set of pixels, such as an image-folder with encoded = false";
                problems.push(Problem::new(port, message));
            }
        }
        if let Some((own, other)) = differing(data.channels, outside.channels) {
            let message = format!(
                "these images have {other} channels, and those that they replace have {own}"
            );
            problems.push(Problem::new("outside", message));
        }
        if let Some((own, other)) = differing(data.image_size, outside.image_size) {
            let message =
                format!("these images have {other} pixels, and those that they replace have {own}");
            problems.push(Problem::new("outside", message));
        }
        problems
    }

    fn largest_seed(&self) -> u64 {
        LARGEST_NUMPY_SEED
    }

    fn knows(&self, inputs: &KnownInputs) -> Known {
        inputs.at("data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::ImageSize;

    #[test]
    fn images_of_another_form_are_refused() {
        let pixels = || Known {
            channels: Some(3),
            images: Some(Images::Pixels),
            image_size: Some(ImageSize { height: 32, width: 32 }),
            ..Known::default()
        };
        let small = || Known { image_size: Some(ImageSize { height: 28, width: 28 }), ..pixels() };
        let encoded = || Known { images: Some(Images::Encoded), image_size: None, ..pixels() };
        for (data, outside, fields) in [
            (pixels(), pixels(), &[][..]),
            (pixels(), Known::default(), &[]),
            (pixels(), Known { channels: Some(1), ..pixels() }, &["outside"]),
            (pixels(), Known { channels: Some(1), ..small() }, &["outside", "outside"]),
            (encoded(), pixels(), &["data"]),
            (pixels(), encoded(), &["outside"]),
        ] {
            let inputs = [("data".to_owned(), data), ("outside".to_owned(), outside)];
            let problems = ReplaceImages { rate: 0.5 }.check_inputs(&KnownInputs::new(inputs));
            let found: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(found, fields, "{problems:?}");
        }
    }
}
