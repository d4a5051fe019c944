//! Vision transformers (Dosovitskiy et al., "An image is worth 16x16 words", 2021), with the names of timm's state dict;
//! DINOv2's (Oquab et al., 2023) add LayerScale (Touvron et al., "Going deeper with image transformers", 2021).
//!
//! With the patches x_1, ..., x_N of an image, the embedding E, LN the layer norm, MSA the multi-head self-attention and
//! LayerScale's factors g, which are 1 where there are none:
//!
//! ```text
//! z_0  = [x_class; x_1 E; ...; x_N E] + E_pos      (1)
//! z'_l = g MSA(LN(z_{l-1})) + z_{l-1}              (2)
//! z_l  = g MLP(LN(z'_l)) + z'_l                    (3)
//! y    = LN(z_L at the class token)                (4)
//! ```
//!
//! They are used, not trained: nothing is dropped, and all weights are those of a file.

use anyhow::ensure;
use pipeline_stages::kinds::architecture::Transformer;
use pipeline_stages::state_dict::transformer::Size;
use tch::{Kind, Tensor};

use super::layer::Linear;
use super::pass::Pass;
use super::state::{Builder, Initial, Slot, TensorRole};

/// A vision transformer.
#[derive(Debug)]
pub struct VisionTransformer {
    cls_token: Slot,
    positions: Positions,
    patch_embed: PatchEmbedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl VisionTransformer {
    /// Builds `cls_token`, `pos_embed`, `patch_embed`, `blocks`, `norm`, with values that a file must replace.
    ///
    /// # Errors
    /// When libtorch cannot make the tensors.
    pub fn new(
        builder: &mut Builder,
        transformer: Transformer,
        image_channels: i64,
    ) -> anyhow::Result<Self> {
        let size = Size::of(transformer);
        let width = size.width as i64;
        Ok(Self {
            cls_token: zero(builder, "cls_token", &[1, 1, width])?,
            positions: Positions::new(builder, &size)?,
            patch_embed: builder.within("patch_embed.proj", |builder| {
                PatchEmbedding::new(builder, image_channels, &size)
            })?,
            blocks: (0..size.depth)
                .map(|index| {
                    builder.within(format!("blocks.{index}"), |builder| Block::new(builder, &size))
                })
                .collect::<anyhow::Result<_>>()?,
            norm: LayerNorm::new(builder, "norm", width)?,
        })
    }

    /// Images [N,C,H,W] -> the class token, float [N,F].
    ///
    /// # Errors
    /// When the images have another number of channels, or do not consist of whole patches.
    pub fn forward(&self, pass: &Pass, images: &Tensor) -> anyhow::Result<Tensor> {
        let patches = self.patch_embed.forward(pass, images)?;
        let (samples, width, rows, columns) = patches.size4()?;
        let patches = patches.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let class = pass.value(self.cls_token).f_expand([samples, 1, width], false)?;
        let mut tokens = Tensor::f_cat(&[class, patches], 1)?
            .f_add(&self.positions.of(pass, [rows, columns])?)?;
        for block in &self.blocks {
            tokens = block.forward(pass, &tokens)?;
        }
        self.norm.forward(pass, &tokens.f_select(1, 0)?)
    }
}

/// The position embeddings E_pos: one of the class token, and one of each patch of a square.
#[derive(Debug)]
struct Positions {
    pos_embed: Slot,
    /// Patches along each side of the square.
    grid: i64,
}

impl Positions {
    fn new(builder: &mut Builder, size: &Size) -> anyhow::Result<Self> {
        let (grid, width) = (size.grid() as i64, size.width as i64);
        Ok(Self { pos_embed: zero(builder, "pos_embed", &[1, 1 + grid * grid, width])?, grid })
    }

    /// Those of an image with this many rows and columns of patches, float [1,1+N,D]: of another number than they were learned
    /// for they are interpolated (bicubic, antialiased), as timm's `resample_abs_pos_embed` does it. (DINOv2's own code does it
    /// without antialiasing, by a factor that is a tenth of a patch larger.)
    fn of(&self, pass: &Pass, [rows, columns]: [i64; 2]) -> anyhow::Result<Tensor> {
        let (learned, grid) = (pass.value(self.pos_embed), self.grid);
        if [rows, columns] == [grid; 2] {
            return Ok(learned.shallow_clone());
        }
        let square = learned.f_narrow(1, 1, grid * grid)?.f_reshape([1, grid, grid, -1])?;
        let square = square.f_permute([0, 3, 1, 2])?;
        let patches =
            square.f_internal_upsample_bicubic2d_aa([rows, columns], false, None, None)?;
        let patches = patches.f_flatten(2, 3)?.f_transpose(1, 2)?;
        Ok(Tensor::f_cat(&[learned.f_narrow(1, 0, 1)?, patches], 1)?)
    }
}

/// The embedding E of the patches: a convolution whose kernels do not overlap.
#[derive(Debug)]
struct PatchEmbedding {
    weight: Slot,
    bias: Slot,
    patch: i64,
}

impl PatchEmbedding {
    fn new(builder: &mut Builder, image_channels: i64, size: &Size) -> anyhow::Result<Self> {
        let (width, patch) = (size.width as i64, size.patch as i64);
        let weight = zero(builder, "weight", &[width, image_channels, patch, patch])?;
        Ok(Self { weight, bias: zero(builder, "bias", &[width])?, patch })
    }

    /// [N,C,H,W] -> float [N,D,H/P,W/P].
    fn forward(&self, pass: &Pass, images: &Tensor) -> anyhow::Result<Tensor> {
        let (_, _, height, width) = images.size4()?;
        let patch = self.patch;
        ensure!(
            height % patch == 0 && width % patch == 0,
            "images of {height}x{width} pixels do not consist of patches of {patch}x{patch} pixels, which the encoder takes: \
             set image-size to a multiple of {patch}"
        );
        let (images, weight) = (pass.in_precision(images)?, pass.factor(self.weight)?);
        let bias = pass.factor(self.bias)?;
        let patches = images.f_conv2d(&weight, Some(&bias), [patch; 2], [0, 0], [1, 1], 1)?;
        Ok(patches.f_to_kind(Kind::Float)?)
    }
}

/// A block: equations (2) and (3). Tokens stay 32-bit floats, whatever the precision of products.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<Slot>,
    norm2: LayerNorm,
    mlp: [Linear; 2],
    ls2: Option<Slot>,
}

impl Block {
    fn new(builder: &mut Builder, size: &Size) -> anyhow::Result<Self> {
        let (width, hidden) = (size.width as i64, size.hidden() as i64);
        let scale = |builder: &mut Builder, name: &str| -> anyhow::Result<Option<Slot>> {
            size.layer_scale.then(|| zero(builder, name, &[width])).transpose()
        };
        Ok(Self {
            norm1: LayerNorm::new(builder, "norm1", width)?,
            attn: builder.within("attn", |builder| Attention::new(builder, size))?,
            ls1: scale(builder, "ls1.gamma")?,
            norm2: LayerNorm::new(builder, "norm2", width)?,
            mlp: [
                builder.within("mlp.fc1", |builder| Linear::zero(builder, [width, hidden]))?,
                builder.within("mlp.fc2", |builder| Linear::zero(builder, [hidden, width]))?,
            ],
            ls2: scale(builder, "ls2.gamma")?,
        })
    }

    /// float [N,T,D] -> the same.
    fn forward(&self, pass: &Pass, tokens: &Tensor) -> anyhow::Result<Tensor> {
        let attended = self.attn.forward(pass, &self.norm1.forward(pass, tokens)?)?;
        let tokens = tokens.f_add(&scaled(pass, self.ls1, attended)?)?;
        let [fc1, fc2] = &self.mlp;
        let hidden = fc1.forward(pass, &self.norm2.forward(pass, &tokens)?)?.f_gelu("none")?;
        Ok(tokens.f_add(&scaled(pass, self.ls2, fc2.forward(pass, &hidden)?)?)?)
    }
}

/// LayerScale, where there is one.
fn scaled(pass: &Pass, gamma: Option<Slot>, branch: Tensor) -> anyhow::Result<Tensor> {
    Ok(match gamma {
        Some(gamma) => branch.f_mul(pass.value(gamma))?,
        None => branch,
    })
}

/// Multi-head self-attention (appendix A of Dosovitskiy et al.).
#[derive(Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: i64,
}

impl Attention {
    fn new(builder: &mut Builder, size: &Size) -> anyhow::Result<Self> {
        let (width, heads) = (size.width as i64, size.heads as i64);
        let qkv = builder.within("qkv", |builder| Linear::zero(builder, [width, 3 * width]))?;
        let proj = builder.within("proj", |builder| Linear::zero(builder, [width, width]))?;
        Ok(Self { qkv, proj, heads })
    }

    /// [N,T,D] -> the same.
    fn forward(&self, pass: &Pass, tokens: &Tensor) -> anyhow::Result<Tensor> {
        let (samples, count, width) = tokens.size3()?;
        let shape = [samples, count, 3, self.heads, width / self.heads];
        let qkv = self.qkv.forward(pass, tokens)?.f_reshape(shape)?.f_permute([2, 0, 3, 1, 4])?;
        let [q, k, v] = [qkv.f_select(0, 0)?, qkv.f_select(0, 1)?, qkv.f_select(0, 2)?];
        let mask = None::<&Tensor>;
        let mixed =
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask, 0.0, false, None, false)?;
        self.proj.forward(pass, &mixed.f_transpose(1, 2)?.f_reshape([samples, count, width])?)
    }
}

/// Layer normalisation (Ba et al., 2016) over the features of a token, with epsilon 1e-6 as in timm and DINOv2.
#[derive(Debug)]
struct LayerNorm {
    weight: Slot,
    bias: Slot,
    width: i64,
}

impl LayerNorm {
    fn new(builder: &mut Builder, name: &str, width: i64) -> anyhow::Result<Self> {
        builder.within(name, |builder| {
            let weight = zero(builder, "weight", &[width])?;
            Ok(Self { weight, bias: zero(builder, "bias", &[width])?, width })
        })
    }

    /// float [...,D] -> the same.
    fn forward(&self, pass: &Pass, tokens: &Tensor) -> anyhow::Result<Tensor> {
        let (weight, bias) = (pass.value(self.weight), pass.value(self.bias));
        Ok(tokens.f_layer_norm([self.width], Some(weight), Some(bias), 1e-6, true)?)
    }
}

fn zero(builder: &mut Builder, name: &str, shape: &[i64]) -> anyhow::Result<Slot> {
    builder.float(name, shape, Initial::Constant(0.0), TensorRole::Kept)
}
