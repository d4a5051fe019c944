//! Which prefix is chosen, and the message if none fits.

use pipeline_stages::kinds::architecture::{Architecture, EncoderArchitecture, Transformer};
use pipeline_stages::state_dict::{self, ElementType};

use super::layers::Selection;
use crate::checkpoint::{Element, Entry, Leaf, Tensor};

/// The names of an encoder with a prefix.
fn encoder(architecture: impl Into<EncoderArchitecture>, prefix: &str) -> Vec<Entry<'static>> {
    let specs = state_dict::encoder(architecture, 3).into_iter();
    specs
        .map(|spec| {
            let element = match spec.element {
                ElementType::F32 => Element::F32,
                ElementType::I64 => Element::I64,
            };
            entry(&format!("{prefix}{}", spec.name), element, &spec.shape)
        })
        .collect()
}

fn entry(name: &str, element: Element, shape: &[usize]) -> Entry<'static> {
    let tensor = Tensor::without_numbers(element, shape.to_vec());
    Entry { name: name.to_owned(), leaf: Leaf::Tensor(tensor) }
}

fn float(name: &str, shape: &[usize]) -> Entry<'static> {
    entry(name, Element::F32, shape)
}

fn find(
    entries: &[Entry<'_>],
    architecture: impl Into<EncoderArchitecture>,
    prefix: Option<&str>,
) -> Result<String, String> {
    let found = Selection::find(entries, architecture.into(), prefix);
    found.map(|selection| selection.prefix).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(
    entries: &[Entry<'_>],
    architecture: impl Into<EncoderArchitecture>,
    parts: &[&str],
) {
    let problem = find(entries, architecture, None).unwrap_err();
    for part in parts {
        assert!(problem.contains(part), "'{part}' is not in: {problem}");
    }
}

#[test]
fn any_prefix_is_recognised() {
    for prefix in [
        "",
        "module.",
        "convnet.",
        "encode_layer.convnet.",
        "encoder.",
        "backbone.",
        "state_dict.module.encoder_q.",
        "somebody.wrote.this.",
    ] {
        let mut entries = encoder(Architecture::Resnet18, prefix);
        entries.push(float(&format!("{prefix}fc.weight"), &[10, 512]));
        entries.push(float("projection.fc1.weight", &[512, 512]));
        assert_eq!(find(&entries, Architecture::Resnet18, None).unwrap(), prefix);
    }
}

#[test]
fn of_several_encoders_the_preferred_or_the_given_one_is_chosen() {
    let both = |one: &str, other: &str| {
        let mut entries = encoder(Architecture::Resnet8, one);
        entries.extend(encoder(Architecture::Resnet8, other));
        entries
    };
    let moco = both("state_dict.module.encoder_q.", "state_dict.module.encoder_k.");
    for (given, expected) in [
        (None, "state_dict.module.encoder_q."),
        (Some("encoder_k"), "state_dict.module.encoder_k."),
        (Some("module.encoder_k."), "state_dict.module.encoder_k."),
        (Some("state_dict.module.encoder_k"), "state_dict.module.encoder_k."),
    ] {
        assert_eq!(find(&moco, Architecture::Resnet8, given).unwrap(), expected);
    }
    let unknown = both("state_dict.student.", "state_dict.teacher.");
    assert_refused(
        &unknown,
        Architecture::Resnet8,
        &["several encoders", "'state_dict.student', 'state_dict.teacher'"],
    );
    let part_of_a_name = find(&moco, Architecture::Resnet8, Some("k")).unwrap_err();
    assert!(part_of_a_name.contains("the file has no 'k.conv1.weight'"), "{part_of_a_name}");
    let bare = both("state_dict.", "state_dict.ema.");
    assert_eq!(find(&bare, Architecture::Resnet8, Some("")).unwrap(), "state_dict.");
}

#[test]
fn a_file_of_a_thousand_stems_is_not_searched() {
    let stem = |index| float(&format!("{index}.conv1.weight"), &[16, 3, 3, 3]);
    let entries: Vec<_> = (0..1_000).map(stem).collect();
    assert_refused(&entries, Architecture::Resnet8, &["1000 tensors in the file are called"]);
}

#[test]
fn a_missing_layer_is_named() {
    let mut entries = encoder(Architecture::Resnet18, "module.");
    entries.retain(|entry| entry.name != "module.layer3.1.conv2.weight");
    assert_refused(
        &entries,
        Architecture::Resnet18,
        &[
            "under the prefix 'module' is not a resnet18",
            "it has no 'module.layer3.1.conv2.weight'",
        ],
    );
    let mut entries = encoder(Architecture::Resnet18, "");
    entries.retain(|entry| !entry.name.starts_with("layer4"));
    assert_refused(&entries, Architecture::Resnet18, &["without a prefix", "and 21 more"]);
}

#[test]
fn counters_may_be_missing() {
    let mut entries = encoder(Architecture::Resnet32, "");
    entries.retain(|entry| !entry.name.ends_with("num_batches_tracked"));
    let selection = Selection::find(&entries, Architecture::Resnet32.into(), None).unwrap();
    assert_eq!(selection.layers.iter().filter(|layer| layer.found.is_none()).count(), 31);
}

#[test]
fn another_stem_suggests_the_other_architecture() {
    let large = encoder(Architecture::Resnet50At224, "");
    assert_refused(
        &large,
        Architecture::Resnet50,
        &[
            "'conv1.weight' has the shape [64, 3, 7, 7], but must have [64, 3, 3, 3]",
            "architecture = \"resnet50-224\" would fit",
        ],
    );
    let small = encoder(Architecture::Resnet18, "");
    assert_refused(&small, Architecture::Resnet18At224, &["architecture = \"resnet18\" would fit"]);
}

/// Every name of a ResNet-18 is also in a ResNet-50, and in a ResNet-34 with the same shape.
#[test]
fn a_part_of_a_deeper_network_is_refused() {
    let other = encoder(Architecture::PreactResnet18, "module.");
    let words =
        ["'module.layer2.0.downsample.0.weight'", "architecture = \"preact-resnet18\" would fit"];
    assert_refused(&other, Architecture::Resnet18, &words);
    let deep = encoder(Architecture::Resnet50, "");
    assert_refused(&deep, Architecture::Resnet18, &["architecture = \"resnet50\" would fit"]);
    let deep = encoder(Architecture::Resnet34, "");
    assert_refused(&deep, Architecture::Resnet18, &["architecture = \"resnet34\" would fit"]);
    let deep = encoder(Architecture::Resnet32, "");
    assert_refused(
        &deep,
        Architecture::Resnet8,
        &["it also has 'layer1.1.bn1.bias'", "architecture = \"resnet32\" would fit"],
    );
    let mut projections = encoder(Architecture::Resnet8, "");
    projections.push(float("layer2.0.downsample.0.weight", &[32, 16, 1, 1]));
    assert_refused(
        &projections,
        Architecture::Resnet8,
        &["it also has 'layer2.0.downsample.0.weight'"],
    );
}

#[test]
fn architectures_with_the_same_tensors_are_both_suggested() {
    let entries = encoder(Architecture::Resnet8, "");
    assert_refused(
        &entries,
        Architecture::Resnet18,
        &["architecture = \"resnet8-fast\" or architecture = \"resnet8\" would fit"],
    );
}

#[test]
fn other_tensors_are_named() {
    assert_refused(&[], Architecture::Resnet18, &["it has no tensors"]);
    let other = [float("features.0.weight", &[64, 3, 3, 3]), float("features.0.bias", &[64])];
    assert_refused(
        &other,
        Architecture::Resnet18,
        &[
            "no tensor in it is called 'conv1.weight'",
            "it has 'features.0.bias', 'features.0.weight'",
        ],
    );
    let block_alone = [float("layer1.0.conv1.weight", &[64, 64, 3, 3])];
    assert_refused(&block_alone, Architecture::Resnet18, &["no tensor in it is called"]);
}

#[test]
fn types_and_damage_are_named() {
    let with = |leaf: Leaf<'static>| {
        let mut entries = encoder(Architecture::Resnet8, "");
        entries[0].leaf = leaf;
        entries
    };
    let integers = Leaf::Tensor(Tensor::without_numbers(Element::I64, vec![16, 3, 3, 3]));
    let words = ["'conv1.weight' has elements of the type i64"];
    assert_refused(&with(integers), Architecture::Resnet8, &words);
    let words = ["'conv1.weight' is a tensor without its parts"];
    let damaged = Leaf::Damaged("a tensor without its parts".to_owned());
    assert_refused(&with(damaged), Architecture::Resnet8, &words);
}

#[test]
fn grey_images_have_one_channel() {
    let mut entries = encoder(Architecture::Resnet8, "");
    entries[0] = float("conv1.weight", &[16, 1, 3, 3]);
    let selection = Selection::find(&entries, Architecture::Resnet8.into(), None).unwrap();
    assert_eq!(selection.channels, 1);
    entries[0] = float("conv1.weight", &[16, 4, 3, 3]);
    assert_refused(&entries, Architecture::Resnet8, &["must have [16, 3, 3, 3]"]);
}

#[test]
fn vision_transformers_are_found_behind_any_prefix_without_what_is_not_of_an_encoder() {
    for (prefix, transformer) in
        ["", "module.", "state_dict.model.", "teacher.backbone."].iter().zip(Transformer::ALL)
    {
        let mut entries = encoder(*transformer, prefix);
        let wanted = entries.len();
        for (name, shape) in [
            ("head.weight", &[1000, 384][..]),
            ("head_dist.bias", &[1000]),
            ("mask_token", &[1, 384]),
        ] {
            entries.push(float(&format!("{prefix}{name}"), shape));
        }
        let selection = Selection::find(&entries, (*transformer).into(), None).unwrap();
        assert_eq!((selection.prefix.as_str(), selection.channels), (*prefix, 3));
        assert_eq!(selection.layers.len(), wanted);
        assert!(selection.layers.iter().all(|layer| layer.found.is_some()));
    }
}

#[test]
fn another_vision_transformer_is_refused_with_the_one_that_would_fit() {
    let wide = encoder(Transformer::VitSmall, "");
    assert_refused(
        &wide,
        Transformer::VitTiny,
        &[
            "the encoder without a prefix is not a vit_tiny_patch16_224",
            "'cls_token' has the shape [1, 1, 384], but must have [1, 1, 192]",
            "; architecture = \"vit_small_patch16_224\" would fit",
        ],
    );
    let scaled = encoder(Transformer::Dinov2Small, "");
    let words = ["'blocks.0.ls1.gamma'", "architecture = \"vit_small_patch14_dinov2\" would fit"];
    assert_refused(&scaled, Transformer::VitSmall, &words);
    let plain = encoder(Transformer::VitBase, "");
    let words = ["it has no 'blocks.0.ls1.gamma'", "\"vit_base_patch16_224\" would fit"];
    assert_refused(&plain, Transformer::Dinov2Base, &words);
}

#[test]
fn what_a_vision_transformer_lacks_or_has_too_much_is_named() {
    let mut shallow = encoder(Transformer::VitTiny, "");
    shallow.retain(|entry| !entry.name.starts_with("blocks.11."));
    assert_refused(
        &shallow,
        Transformer::VitTiny,
        &["it has no 'blocks.11.norm1.weight'", "8 more"],
    );
    for (name, shape) in [
        ("blocks.12.norm1.weight", &[192][..]),
        ("register_tokens", &[1, 4, 192]),
        ("dist_token", &[1, 1, 192]),
        ("blocks.0.attn.q_norm.weight", &[64]),
    ] {
        let mut entries = encoder(Transformer::VitTiny, "");
        entries.push(float(name, shape));
        assert_refused(&entries, Transformer::VitTiny, &[&format!("it also has '{name}'")]);
    }
    let mut finer = encoder(Transformer::VitTiny, "");
    finer[1] = float("pos_embed", &[1, 577, 192]);
    let words = ["'pos_embed' has the shape [1, 577, 192], but must have [1, 197, 192]"];
    assert_refused(&finer, Transformer::VitTiny, &words);
}

#[test]
fn an_encoder_of_the_other_kind_is_suggested() {
    assert_refused(
        &encoder(Transformer::Dinov2Small, "backbone."),
        Architecture::Resnet50At224,
        &[
            "no encoder with torchvision's names: no tensor in it is called 'conv1.weight'",
            "; architecture = \"vit_small_patch14_dinov2\" would fit",
        ],
    );
    assert_refused(
        &encoder(Architecture::Resnet18, ""),
        Transformer::VitTiny,
        &[
            "no encoder with timm's names: no tensor in it is called 'patch_embed.proj.weight'",
            "; architecture = \"resnet18\" would fit",
        ],
    );
}
