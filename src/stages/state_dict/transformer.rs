//! The vision transformers: one table of their sizes, and the tensors that result from it, with the names of timm's
//! `VisionTransformer`, which DINOv2's checkpoints have too.

use super::tensor::{ElementType, TensorSpec};
use crate::kinds::architecture::Transformer;

/// The weight of the patch embedding, which every one of them has.
pub const STEM: &str = "patch_embed.proj.weight";

/// The size of a vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The length of a token: how many features it produces.
    pub width: usize,
    /// How many blocks it has.
    pub depth: usize,
    /// How many heads each attention has.
    pub heads: usize,
    /// Pixels along each side of a patch.
    pub patch: usize,
    /// Pixels along each side of the images that its position embeddings are of.
    pub image_size: usize,
    /// Whether a factor per feature follows on each attention and each MLP: LayerScale (Touvron et al., 2021).
    pub layer_scale: bool,
}

impl Size {
    /// That of an architecture.
    pub fn of(transformer: Transformer) -> Self {
        let (width, heads, is_dinov2) = match transformer {
            Transformer::VitTiny => (192, 3, false),
            Transformer::VitSmall => (384, 6, false),
            Transformer::VitBase => (768, 12, false),
            Transformer::Dinov2Small => (384, 6, true),
            Transformer::Dinov2Base => (768, 12, true),
        };
        let (patch, image_size) = if is_dinov2 { (14, 518) } else { (16, 224) };
        Self { width, depth: 12, heads, patch, image_size, layer_scale: is_dinov2 }
    }

    /// Patches along each side of those images.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch
    }

    /// Hidden units of the MLP of a block.
    pub fn hidden(&self) -> usize {
        4 * self.width
    }
}

/// The tensors of an encoder for images with this many channels, in the order of timm's `state_dict`.
pub fn encoder(transformer: Transformer, image_channels: usize) -> Vec<TensorSpec> {
    let size = Size::of(transformer);
    let Size { width, depth, patch, layer_scale, .. } = size;
    let positions = size.grid() * size.grid() + 1;
    let mut tensors =
        vec![tensor("cls_token", &[1, 1, width]), tensor("pos_embed", &[1, positions, width])];
    tensors.extend(layer("patch_embed.proj", &[width, image_channels, patch, patch]));
    for block in 0..depth {
        let name = |part: &str| format!("blocks.{block}.{part}");
        tensors.extend(layer(&name("norm1"), &[width]));
        tensors.extend(layer(&name("attn.qkv"), &[3 * width, width]));
        tensors.extend(layer(&name("attn.proj"), &[width, width]));
        tensors.extend(layer_scale.then(|| tensor(&name("ls1.gamma"), &[width])));
        tensors.extend(layer(&name("norm2"), &[width]));
        tensors.extend(layer(&name("mlp.fc1"), &[size.hidden(), width]));
        tensors.extend(layer(&name("mlp.fc2"), &[width, size.hidden()]));
        tensors.extend(layer_scale.then(|| tensor(&name("ls2.gamma"), &[width])));
    }
    tensors.extend(layer("norm", &[width]));
    tensors
}

/// Whether a name is that of a layer of such an encoder, or of a larger one, not of a head or something else. DINOv2's
/// `mask_token` is for its training alone.
pub fn has_layer(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "cls_token",
        "pos_embed",
        "patch_embed",
        "blocks",
        "norm",
        "norm_pre",
        "dist_token",
        "reg_token",
        "register_tokens",
    ];
    PARTS.contains(&name.split('.').next().unwrap_or_default())
}

/// A weight of this shape and a bias, one for each output.
fn layer(name: &str, shape: &[usize]) -> [TensorSpec; 2] {
    [tensor(&format!("{name}.weight"), shape), tensor(&format!("{name}.bias"), &shape[..1])]
}

fn tensor(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), element: ElementType::F32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_parameters_is_the_published_one() {
        for (transformer, tensors, parameters) in [
            // timm's, without the classifier for 1,000 classes.
            (Transformer::VitTiny, 150, 5_717_416 - 193_000),
            (Transformer::VitSmall, 150, 22_050_664 - 385_000),
            (Transformer::VitBase, 150, 86_567_656 - 769_000),
            // DINOv2's checkpoints, without the mask token.
            (Transformer::Dinov2Small, 174, 22_056_576 - 384),
            (Transformer::Dinov2Base, 174, 86_580_480 - 768),
        ] {
            let found = encoder(transformer, 3);
            let count = found.iter().map(|spec| spec.shape.iter().product::<usize>());
            assert_eq!((found.len(), count.sum()), (tensors, parameters), "{transformer}");
        }
    }
}
