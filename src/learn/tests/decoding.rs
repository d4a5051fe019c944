//! Image files: as Pillow decodes them, and errors for what is none.
//!
//! `tests/reference/large_images/make_vectors.py` makes the files and the numbers.

use std::path::Path;

use pipeline_learn::data::augment::GaussianBlur;
use pipeline_learn::data::decode::decode;
use pipeline_stages::formats::ImageShape;
use proptest::prelude::*;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/large_images");

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(FOLDER).join(name)).unwrap()
}

fn vectors(key: &str) -> Vec<Value> {
    let all: Value = serde_json::from_slice(&file("vectors.json")).unwrap();
    all[key].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn files_decode_as_pillow_decodes_them() {
    for case in vectors("decoded") {
        let name = case["image"].as_str().unwrap();
        let (shape, pixels) = decode(&file(name)).unwrap();
        assert_eq!(serde_json::json!([shape.height, shape.width]), case["shape"], "{name}");
        assert_eq!((shape.channels, shape.bytes()), (3, pixels.len()), "{name}");
        // PNG is exact. Decoders of JPEG differ in the last bits of their transform, and in how they
        // bring colours, stored at half the size, back to the full one: much, where colours have an edge.
        let (of_pixel, of_mean) = if name.ends_with(".png") { (0.0, 1e-5) } else { (40.0, 0.6) };
        let plane = shape.height * shape.width;
        for (index, expected) in case["pixels"].as_array().unwrap().iter().enumerate() {
            for (channel, expected) in numbers(expected).into_iter().enumerate() {
                let found = f64::from(pixels[channel * plane + index * 97]);
                let what = format!("{name}, pixel {}, channel {channel}", index * 97);
                assert!((found - expected).abs() <= of_pixel, "{what}: {found} for {expected}");
            }
        }
        for (plane, expected) in pixels.chunks(plane).zip(numbers(&case["means"])) {
            let mean =
                plane.iter().map(|&value| f64::from(value)).sum::<f64>() / plane.len() as f64;
            assert!((mean - expected).abs() <= of_mean, "{name}: {mean} for {expected}");
        }
    }
}

#[test]
fn blurs_are_those_of_torchvision() {
    let (shape, pixels) = decode(&file("wide.png")).unwrap();
    let size = ImageShape { channels: 3, height: 40, width: 30 };
    let image: Vec<f32> = (0..size.bytes())
        .map(|index| {
            let (channel, y, x) = (index / 1200, index % 1200 / 30, index % 30);
            f32::from(pixels[(channel * shape.height + y) * shape.width + x]) / 255.0
        })
        .collect();
    for case in vectors("blurs") {
        let mut blurred = image.clone();
        let radius = case["radius"].as_u64().unwrap() as usize;
        GaussianBlur::new(radius, case["deviation"].as_f64().unwrap()).apply(&mut blurred, size);
        for (found, expected) in blurred.iter().step_by(37).zip(numbers(&case["values"])) {
            assert!((f64::from(*found) - expected).abs() < 2e-6, "{found} for {expected}");
        }
    }
}

#[test]
fn what_is_not_an_image_is_an_error() {
    let png = file("wide.png");
    let cases: [(&[u8], &str); 4] = [
        (b"", "the file is empty"),
        (b"GIF89a, and so on", "not a JPEG, PNG or WebP file"),
        (&png[..png.len() / 2], "cut off"),
        (&file("colour.jpg")[..30], "its header cannot be read"),
    ];
    for (bytes, expected) in cases {
        let error = format!("{:#}", decode(bytes).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

/// A PNG header that claims 60,000 x 60,000 pixels: 10 GB decoded, of some hundred bytes.
#[test]
fn a_bomb_is_refused_before_it_is_decoded() {
    let mut bomb = file("wide.png");
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let checksum = crc32(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&checksum);
    let error = format!("{:#}", decode(&bomb).unwrap_err());
    assert!(error.contains("60000x60000 pixels, which is too large"), "{error}");
}

/// The checksum of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    };
    !bytes.iter().fold(u32::MAX, step)
}

proptest! {
    #[test]
    fn damaged_files_decode_or_are_refused(
        name in 0usize..5, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..20),
        cut in any::<u16>(),
    ) {
        let names = ["colour.jpg", "progressive.jpg", "cmyk.jpg", "turned.jpg", "wide.png"];
        let mut bytes = file(names[name]);
        for (place, value) in changes {
            let place = usize::from(place) % bytes.len();
            bytes[place] = value;
        }
        bytes.truncate(1 + usize::from(cut) % (2 * bytes.len()));
        if let Ok((shape, pixels)) = decode(&bytes) {
            prop_assert_eq!(shape.bytes(), pixels.len());
        }
    }
}
