//! Complete imports of files that PyTorch wrote: `tests/reference/import/make_checkpoints.py`.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use pipeline_stages::ArtifactType::{Directory, File, Weights};
use pipeline_stages::formats::{InputCrop, ModelInfo, NamedTensor, TensorFile, write_tensors};
use pipeline_stages::kinds::architecture::{Architecture, EncoderArchitecture, Transformer};
use pipeline_stages::state_dict::{self, ElementType};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::reference::reference_path;

/// A checkpoint file in a folder of its own, unpacked if it is compressed.
fn source(test: &Fixture, name: &str) -> PathBuf {
    let path = reference_path("import/checkpoints").join(name);
    let content = std::fs::read(path).unwrap();
    let content = match name.strip_suffix(".gz") {
        Some(_) => {
            let mut unpacked = Vec::new();
            GzDecoder::new(content.as_slice()).read_to_end(&mut unpacked).unwrap();
            unpacked
        }
        None => content,
    };
    let folder = format!("source-{name}");
    test.write(&format!("{folder}/{}", name.trim_end_matches(".gz")), content);
    test.folder().join(folder)
}

fn parameters(changes: &Value) -> Value {
    let mut parameters = json!({"architecture": "resnet8", "normalise": "none"});
    for (name, value) in changes.as_object().unwrap() {
        parameters[name] = value.clone();
    }
    parameters
}

/// Imports a checkpoint of the references.
fn import(test: &mut Fixture, name: &str, changes: &Value) -> anyhow::Result<PathBuf> {
    let folder = source(test, name);
    let from = [("source", Directory, folder.as_path())];
    test.run_on("import-weights", parameters(changes), &from, 0, None).map(|(output, _)| output)
}

/// The error of an import, without the temporary folder in it.
fn problem(test: &mut Fixture, name: &str, changes: &Value) -> String {
    format!("{:#}", import(test, name, changes).unwrap_err())
}

fn report(output: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(output.join("import.json")).unwrap()).unwrap()
}

/// Compares every number with what `make_checkpoints.py` filled the network with.
#[track_caller]
fn assert_counted(output: &Path, with_counters: bool) {
    let file = TensorFile::open(&output.join("weights.safetensors")).unwrap();
    let tensors = file.tensors().unwrap();
    let specs = state_dict::encoder(Architecture::Resnet8, 3);
    assert_eq!(tensors.len(), specs.len());
    for (place, spec) in specs.iter().enumerate() {
        let view = tensors.tensor(&spec.name).unwrap();
        assert_eq!(view.shape(), spec.shape, "{}", spec.name);
        let expected: Vec<u8> = match spec.element {
            ElementType::I64 => {
                (if with_counters { place as i64 } else { 0 }).to_le_bytes().to_vec()
            }
            ElementType::F32 => (0..spec.shape.iter().product())
                .flat_map(|index: usize| (place as f32 + (index % 7) as f32 / 32.0).to_le_bytes())
                .collect(),
        };
        assert!(view.data() == expected, "{}", spec.name);
    }
}

#[test]
fn the_encoder_comes_out_of_every_kind_of_checkpoint() {
    let mut test = Fixture::new();
    for (name, format, prefix) in [
        ("simclr.pth.tar", "torch-zip", "state_dict.convnet."),
        ("imagenet32.pth.tar", "torch-zip", "state_dict.encode_layer.convnet."),
        ("half.bin", "torch-zip", "model."),
        ("moco.pth.tar", "torch-zip", "state_dict.module.encoder_q."),
        ("flat.pt", "torch-zip", ""),
        ("parallel.pth.tar.gz", "torch-legacy", "state_dict.module."),
        ("backbone.safetensors.gz", "safetensors", "backbone."),
    ] {
        let output = import(&mut test, name, &json!({})).unwrap();
        assert_counted(&output, !name.starts_with("parallel"));
        let report = report(&output);
        assert_eq!((&report["format"], &report["prefix"]), (&json!(format), &json!(prefix)));
    }
}

#[test]
fn the_report_names_what_was_used_ignored_and_missing() {
    let mut test = Fixture::new();
    let simclr = report(&import(&mut test, "simclr.pth.tar", &json!({})).unwrap());
    let first = json!({
        "name": "conv1.weight", "from": "state_dict.convnet.conv1.weight", "type": "f32", "shape": [16, 3, 3, 3],
    });
    assert_eq!(simclr["used"][0], first);
    assert_eq!(simclr["used"].as_array().unwrap().len(), 42);
    assert_eq!(simclr["missing"], json!([]));
    let ignored: Vec<String> = simclr["ignored"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{}: {}", it["name"].as_str().unwrap(), it["what"].as_str().unwrap()))
        .collect();
    let expected = [
        "state_dict.convnet.fc.weight: f32 [2, 64]",
        "state_dict.convnet.fc.bias: f32 [2]",
        "state_dict.projection.fc1.weight: f32 [4]",
        "state_dict.projection.bn1.weight: f32 [4]",
        "state_dict.projection.bn1.running_mean: f32 [4]",
        "hparams: an object of argparse.Namespace",
        "opt_state_dict.state.0.momentum_buffer: f32 [3]",
        "opt_state_dict.param_groups: a list of 1",
        "iter: the integer 48000",
    ];
    assert_eq!(ignored, expected);
    let parallel = report(&import(&mut test, "parallel.pth.tar.gz", &json!({})).unwrap());
    assert_eq!(parallel["missing"].as_array().unwrap().len(), 7);
    assert_eq!(parallel["missing"][0], "bn1.num_batches_tracked");
    let moco = report(&import(&mut test, "moco.pth.tar", &json!({})).unwrap());
    assert_eq!(moco["other-encoders"], json!(["state_dict.module.encoder_k."]));
}

#[test]
fn the_same_checkpoint_becomes_the_same_bytes_at_any_path() {
    let mut test = Fixture::new();
    let output = import(&mut test, "simclr.pth.tar", &json!({})).unwrap();
    let path = "source-simclr.pth.tar/simclr.pth.tar";
    let other = parameters(&json!({"path": path}));
    let (other, _) = test.run_on("import-weights", other, &[], 7, None).unwrap();
    for name in ["weights.safetensors", "model.json", "import.json"] {
        let bytes = |output: &Path| std::fs::read(output.join(name)).unwrap();
        assert!(bytes(&output) == bytes(&other), "{name}");
    }
}

#[test]
fn the_model_file_describes_its_images() {
    let mut test = Fixture::new();
    let changes = json!({"architecture": "resnet8-fast", "normalise": "imagenet"});
    let output = import(&mut test, "imagenet32.pth.tar", &changes).unwrap();
    let info = ModelInfo::read(&output).unwrap();
    assert_eq!((info.architecture.as_str(), info.features), ("resnet8-fast", 64));
    assert_eq!((info.input.channels, info.input.height, info.input.width), (3, 32, 32));
    assert_eq!(info.input_mean, [0.485, 0.456, 0.406]);
    assert_eq!(info.input_std, [0.229, 0.224, 0.225]);
    let output = import(&mut test, "simclr.pth.tar", &json!({})).unwrap();
    let info = ModelInfo::read(&output).unwrap();
    assert_eq!((info.input_mean, info.input_std), (vec![0.0; 3], vec![1.0; 3]));
}

#[test]
fn a_file_of_several_is_chosen_by_its_name() {
    let mut test = Fixture::new();
    for (name, place) in [("simclr.pth.tar", "cifar10/a.pth.tar"), ("half.bin", "b.bin")] {
        let content = std::fs::read(reference_path("import/checkpoints").join(name)).unwrap();
        test.write(&format!("all/pretrained/{place}"), content);
    }
    test.write("all/config.yml", "lr: 4");
    let folder = test.folder().join("all");
    let mut run = |changes: Value| {
        let from = [("source", Directory, folder.as_path())];
        let result = test.run_on("import-weights", parameters(&changes), &from, 0, None);
        result.map(|(output, _)| report(&output)["prefix"].clone()).map_err(|e| format!("{e:#}"))
    };
    for (file, prefix) in [
        ("a.pth.tar", "state_dict.convnet."),
        ("*.tar", "state_dict.convnet."),
        ("pretrained/cifar10/*", "state_dict.convnet."),
        ("**/b.bin", "model."),
    ] {
        assert_eq!(run(json!({"file": file})).unwrap(), prefix, "{file}");
    }
    let both = "choose one of the files with file = \"...\": 'pretrained/b.bin', 'pretrained/cifar10/a.pth.tar'";
    assert_eq!(run(json!({})).unwrap_err(), both);
    let none = run(json!({"file": "c.pt"})).unwrap_err();
    assert!(none.starts_with("'c.pt' does not match any file; found 'config.yml', "), "{none}");
    let several = run(json!({"file": "*"})).unwrap_err();
    assert!(several.starts_with("'*' matches 3 files: "), "{several}");
    let no_glob = run(json!({"file": "[a"})).unwrap_err();
    assert!(no_glob.starts_with("'[a' in 'file' is not a valid glob"), "{no_glob}");
    let no_checkpoint = run(json!({"file": "config.yml"})).unwrap_err();
    assert!(no_checkpoint.ends_with("it is not a PyTorch file, a pickle or a safetensors file"));
}

#[test]
fn several_files_with_the_same_bytes_are_one() {
    let mut test = Fixture::new();
    let content = std::fs::read(reference_path("import/checkpoints/half.bin")).unwrap();
    for place in ["all/a/net.bin", "all/b/net.pt"] {
        test.write(place, &content);
    }
    let folder = test.folder().join("all");
    let from = [("source", Directory, folder.as_path())];
    for changes in [json!({}), json!({"file": "net.*"})] {
        let result = test.run_on("import-weights", parameters(&changes), &from, 0, None);
        assert_eq!(report(&result.unwrap().0)["prefix"], "model.");
    }
    // Of the same length.
    let mut other = content;
    *other.last_mut().unwrap() ^= 1;
    test.write("all/b/net.pt", other);
    let result = test.run_on("import-weights", parameters(&json!({})), &from, 0, None);
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("choose one of the files"), "{error}");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_an_error_with_the_reason() {
    let mut test = Fixture::new();
    let deeper = problem(&mut test, "simclr.pth.tar", &json!({"architecture": "resnet32"}));
    assert!(deeper.contains("it has no 'state_dict.convnet.layer1.1.conv1.weight'"), "{deeper}");
    assert!(deeper.contains("architecture = \"resnet8\" would fit"), "{deeper}");
    let prefix = problem(&mut test, "simclr.pth.tar", &json!({"prefix": "backbone"}));
    let words =
        "the file has no 'backbone.conv1.weight'; encoders have the prefix 'state_dict.convnet'";
    assert!(prefix.ends_with(words), "{prefix}");
    let module = problem(&mut test, "module.pth", &json!({}));
    assert!(module.contains("save the state_dict() of the model instead"), "{module}");
    // {'model': [<a module>], 'weight': None}, in protocol 2.
    let nested = b"\x80\x02}(X\x05\0\0\0model]cmodels\nNet\n)\x81}X\x0b\0\0\0_parameters}sbaX\x06\0\0\0weightNu.";
    let direct = b"\x80\x02}X\x05\0\0\0modelcmodels\nNet\n)\x81}X\x08\0\0\0_modules}sbs.";
    // As PyTorch before 1.6 wrote it: the first time, a class has its source with it.
    let class = b"(X\x06\0\0\0modulecmodels\nNet\nX\x01\0\0\0fX\x01\0\0\0stQ";
    let legacy = |object: &[&[u8]]| {
        let parts: [&[u8]; 5] = [
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
            b"\x80\x02M\xe9\x03.",
            b"\x80\x02}.",
            &object.concat(),
            b"\x80\x02].",
        ];
        parts.concat()
    };
    let legacy_nested =
        legacy(&[b"\x80\x02}X\x05\0\0\0model]", class, b")\x81}X\x0b\0\0\0_parameters}sbas."]);
    let legacy_direct =
        legacy(&[b"\x80\x02}X\x05\0\0\0model", class, b")\x81}X\x08\0\0\0_modules}sbs."]);
    let legacy_alone = legacy(&[b"\x80\x02", class, b")\x81}X\x08\0\0\0_modules}sb."]);
    for (content, words) in [
        (&legacy_nested[..], "a whole model is pickled in it, an object of models.Net, which only"),
        (
            &legacy_direct,
            "a whole model is pickled in it under 'model', an object of models.Net, which only",
        ),
        (&legacy_alone, "it contains an object of models.Net, not a dictionary"),
        (&nested[..], "a whole model is pickled in it, an object of models.Net, which only Python"),
        (
            direct,
            "a whole model is pickled in it under 'model', an object of models.Net, which only",
        ),
    ] {
        let folder = test.write("nested/model.pth", content).with_file_name("");
        let from = [("source", Directory, folder.as_path())];
        let result = test.run_on("import-weights", parameters(&json!({})), &from, 0, None);
        let problem = format!("{:#}", result.unwrap_err());
        assert!(problem.contains(words), "{problem}");
        assert!(problem.ends_with("save the state_dict() of the model instead"), "{problem}");
    }
    let folder = test.write("empty/model.pth", b"\x80\x02}.").with_file_name("");
    let from = [("source", Directory, folder.as_path())];
    let result = test.run_on("import-weights", parameters(&json!({})), &from, 0, None);
    let empty = format!("{:#}", result.unwrap_err());
    let words = "the file has no encoder with torchvision's names: it has no tensors";
    assert!(empty.ends_with(words), "{empty}");
    let other = problem(&mut test, "lightning.ckpt", &json!({}));
    assert!(other.contains("'state_dict.net.weight'"), "{other}");
}

/// A network of this program, whose tensors `change` can modify.
fn own_network(
    test: &Fixture,
    architecture: impl Into<EncoderArchitecture>,
    change: impl Fn(&str, &mut Vec<u8>),
) -> PathBuf {
    let folder = test.folder().join("own");
    std::fs::create_dir_all(&folder).unwrap();
    let specs = state_dict::encoder(architecture, 1);
    let tensors: Vec<NamedTensor<'_>> = specs
        .iter()
        .map(|spec| {
            let (dtype, size) = match spec.element {
                ElementType::F32 => (Dtype::F32, 4),
                ElementType::I64 => (Dtype::I64, 8),
            };
            let mut bytes = vec![0; spec.shape.iter().product::<usize>() * size];
            change(&spec.name, &mut bytes);
            (spec.name.as_str(), dtype, spec.shape.clone(), bytes.into())
        })
        .collect();
    write_tensors(&folder.join("weights.safetensors"), &tensors, &[]).unwrap();
    folder
}

#[test]
fn an_artifact_can_be_imported_too() {
    let mut test = Fixture::new();
    let folder = own_network(&test, Architecture::Resnet8, |_, _| ());
    let from = [("source", Weights, folder.as_path())];
    let (output, metrics) =
        test.run_on("import-weights", parameters(&json!({})), &from, 0, None).unwrap();
    assert_eq!(ModelInfo::read(&output).unwrap().input.channels, 1);
    // 75,290 of the network for three channels, without its classifier and two channels of its stem.
    assert_eq!(metrics["parameters"], f64::from(75_290 - 650 - 2 * 16 * 9));
    let grey = parameters(&json!({"normalise": "imagenet"}));
    let error = test.run_on("import-weights", grey, &from, 0, None).unwrap_err();
    assert!(format!("{error:#}").contains("for images of three channels"), "{error:#}");
}

#[test]
fn a_vision_transformer_is_for_inputs_as_its_source_makes_them() {
    let mut test = Fixture::new();
    let folder = own_network(&test, Transformer::VitTiny, |_, _| ());
    let from = [("source", File, folder.as_path())];
    let vit = parameters(&json!({"architecture": "vit_tiny_patch16_224", "normalise": "half"}));
    let (output, metrics) = test.run_on("import-weights", vit, &from, 0, None).unwrap();
    let info = ModelInfo::read(&output).unwrap();
    assert_eq!((info.features, info.input.height), (192, 224));
    assert_eq!(info.input_crop, Some(InputCrop::ResizeThenCropBicubic));
    assert_eq!((info.input_mean, info.input_std), (vec![0.5], vec![0.5]));
    // timm's 5,717,416, without its classifier and two channels of each patch.
    assert_eq!(metrics["parameters"], f64::from(5_717_416 - 193_000 - 2 * 16 * 16 * 192));
    let other = parameters(&json!({"architecture": "resnet18"}));
    let error = test.run_on("import-weights", other, &from, 0, None).unwrap_err();
    let words = "architecture = \"vit_tiny_patch16_224\" would fit";
    assert!(format!("{error:#}").contains(words), "{error:#}");
}

#[test]
fn infinite_numbers_and_nan_are_refused() {
    let mut test = Fixture::new();
    let folder = own_network(&test, Architecture::Resnet8, |name, bytes| {
        if name == "layer2.0.bn1.weight" {
            bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    });
    let from = [("source", File, folder.as_path())];
    let error = test.run_on("import-weights", parameters(&json!({})), &from, 0, None).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("'layer2.0.bn1.weight': 1 of its 32 values are infinite"), "{error}");
}

#[test]
fn a_wrong_path_is_named() {
    let mut test = Fixture::new();
    std::fs::create_dir(test.folder().join("empty")).unwrap();
    test.write("a.pth", b"hello");
    // A file of an editor, which the digest of the folder leaves out.
    test.write("left/a.pth~", b"hello");
    test.write("left/old~/a.pth", b"hello");
    for (changes, words) in [
        (json!({"path": "missing.pth"}), "missing.pth is neither a file nor a folder"),
        (json!({"path": "left"}), "no file looks like a checkpoint by its name"),
        (json!({"path": "left", "file": "*~"}), "'*~' does not match any file"),
        (json!({"path": "empty"}), "no file looks like a checkpoint by its name"),
        (json!({"path": "a.pth", "file": "b"}), "a.pth is a file: drop 'file'"),
        (json!({"path": "a.pth"}), "a.pth: it is not a PyTorch file"),
    ] {
        let error = test.run_on("import-weights", parameters(&changes), &[], 0, None).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}
