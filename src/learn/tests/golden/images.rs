//! Images: resampled lines, SimCLR's views with given draws, and light augmentations.

use std::sync::LazyLock;

use pipeline_learn::data::augment::{
    Crop, FlipCrop, Jitter, Normalisation, ResampleWeights, Resizing, View,
};
use pipeline_stages::formats::ImageShape;
use serde_json::Value;

use crate::VECTORS;
use crate::formula::{assert_close, fill, flat, numbers};

static IMAGES: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../tests/reference/learn/images.json");
    serde_json::from_str(text).expect("the vectors are JSON")
});

#[test]
fn lines_are_resampled_as_torch_does() {
    for case in VECTORS["resize"].as_array().expect("a list") {
        let size = |key: &str| case[key].as_u64().expect("a number") as usize;
        let line = flat(&fill(&[size("length") as i64], 40, 0.0, 255.0));
        let resizing = Resizing::bicubic(0..size("length"), size("outputs"));
        let found: Vec<f64> = ResampleWeights::new(&resizing)
            .outputs()
            .map(|(first, weights)| {
                let inputs = line[first..].iter().zip(weights);
                inputs.map(|(value, weight)| value * f64::from(*weight)).sum()
            })
            .collect();
        assert_close(&found, &numbers(&case["line"]), 1e-5, "a line");
    }
}

/// The `image` of the script: noise, and a slope from left to right.
fn image(shape: ImageShape, stream: usize) -> Vec<u8> {
    let size = [shape.channels, shape.height, shape.width].map(|size| size as i64);
    let noise = fill(&size, stream, 0.0, 1.0);
    let slope = tch::Tensor::linspace(0.0, 1.0, size[2], tch::kind::FLOAT_CPU);
    let mixed = (noise * 0.6 + slope * 0.4) * 255.999;
    flat(&mixed).iter().map(|value| *value as u8).collect()
}

fn count(case: &Value, name: &str) -> usize {
    case[name].as_u64().expect("a count") as usize
}

fn shape_of(case: &Value) -> ImageShape {
    let [channels, height, width] = ["channels", "height", "width"].map(|name| count(case, name));
    ImageShape { channels, height, width }
}

fn jitter(step: &str, amount: f64) -> Jitter {
    let amount = amount as f32;
    match step {
        "brightness" => Jitter::Brightness(amount),
        "contrast" => Jitter::Contrast(amount),
        "saturation" => Jitter::Saturation(amount),
        _ => Jitter::Hue(amount),
    }
}

/// Within 5e-6 of torchvision's, for values in [0, 1]: a thousandth of a byte's step.
#[test]
fn views_are_those_of_torchvision() {
    for case in IMAGES["views"].as_array().expect("a list") {
        let shape = shape_of(case);
        let crop = numbers(&case["crop"]);
        let [top, left, height, width] = std::array::from_fn(|index| crop[index] as usize);
        let steps = case["jitter"].as_array().expect("a list").iter();
        let view = View {
            crop: Crop { top, left, height, width },
            flipped: case["flipped"].as_bool().expect("true or false"),
            jitter: steps
                .map(|step| {
                    jitter(step[0].as_str().expect("a text"), step[1].as_f64().expect("a number"))
                })
                .collect(),
            grey: case["grey"].as_bool().expect("true or false"),
        };
        let mut out = vec![f32::NAN; shape.bytes()];
        view.render(&image(shape, count(case, "stream")), shape, &mut out);
        let out: Vec<f64> = out.into_iter().map(f64::from).collect();
        assert_close(&out, &numbers(&case["pixels"]), 5e-6, &format!("{view:?}"));
    }
}

#[test]
fn every_step_of_the_jitter_is_that_of_torchvision() {
    let shape = ImageShape { channels: 3, height: 6, width: 6 };
    let pixels: Vec<f32> = image(shape, 80).iter().map(|&byte| f32::from(byte) / 255.0).collect();
    for case in IMAGES["steps"].as_array().expect("a list") {
        let amount = case["amount"].as_f64().expect("a number");
        let step = jitter(case["step"].as_str().expect("a text"), amount);
        let mut out = pixels.clone();
        step.apply(&mut out, 3);
        let out: Vec<f64> = out.into_iter().map(f64::from).collect();
        assert_close(&out, &numbers(&case["pixels"]), 5e-6, &format!("{step:?}"));
    }
}

/// To the bit: bytes are moved, not computed with.
#[test]
fn every_crop_after_padding_is_that_of_torch() {
    let shape = ImageShape { channels: 3, height: 8, width: 7 };
    let pixels = image(shape, 81);
    let tables = Normalisation::none(3).tables();
    for case in IMAGES["crops_after_padding"].as_array().expect("a list") {
        let case = numbers(case);
        let change = FlipCrop {
            down: case[0] as i64 - 4,
            right: case[1] as i64 - 4,
            flipped: case[2] == 1.0,
        };
        let mut out = vec![f32::NAN; shape.bytes()];
        change.apply(&pixels, shape, &tables, &mut out);
        let bytes = out.iter().map(|value| (value * 255.0).round() as u64);
        let fingerprint: u64 = (1..).zip(bytes).map(|(place, byte): (u64, u64)| place * byte).sum();
        assert_eq!(fingerprint, case[3] as u64, "{change:?}");
    }
}
