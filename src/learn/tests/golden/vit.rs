//! Vision transformers: the features of timm's, at the size that positions were learned for and at others.

use pipeline_learn::network::FrozenEncoder;
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::kinds::precision::Precision;
use serde_json::Value;
use tch::{Device, Kind};

use crate::formula::{assert_close, fill, fill_state, flat, numbers};

#[test]
fn features_are_those_of_timm() {
    let text = include_str!("../../../../tests/reference/learn/vit.json");
    let vectors: Value = serde_json::from_str(text).expect("the vectors are JSON");
    for (name, cases) in vectors.as_object().expect("a table") {
        let architecture = EncoderArchitecture::named(name).expect("an architecture");
        let encoder = FrozenEncoder::new(architecture, 3, Precision::F32, Device::Cpu);
        let encoder = encoder.expect("builds");
        fill_state(encoder.state(), 0);
        for case in cases.as_array().expect("a list") {
            let [height, width] = numbers(&case["image"])[..] else { panic!("two numbers") };
            let images = fill(&[2, 3, height as i64, width as i64], 1000, -1.0, 1.0);
            let features = encoder.features(&images).expect("the shapes match");
            assert_eq!(features.kind(), Kind::Float);
            let found = flat(&features.slice(1, None, None, 3));
            // Both round to 32 bits, in another order.
            let tolerance = 10.0 * case["error"].as_f64().expect("a number").max(1e-6);
            let what = format!("{name}, {height}x{width}");
            assert_close(&found, &numbers(&case["features"]), tolerance, &what);
        }
    }
}

#[test]
fn bf16_is_near_and_parts_of_patches_are_refused() {
    let architecture = EncoderArchitecture::named("vit_tiny_patch16_224").expect("it exists");
    let [single, half] = [Precision::F32, Precision::Bf16].map(|precision| {
        let encoder = FrozenEncoder::new(architecture, 3, precision, Device::Cpu).expect("builds");
        fill_state(encoder.state(), 0);
        let error = encoder.features(&fill(&[1, 3, 48, 40], 0, -1.0, 1.0)).unwrap_err().to_string();
        assert!(error.contains("48x40") && error.contains("a multiple of 16"), "{error}");
        flat(&encoder.features(&fill(&[2, 3, 64, 64], 1000, -1.0, 1.0)).expect("whole patches"))
    });
    assert_close(&half, &single, 0.05, "bf16");
    assert_ne!(half, single);
}
