//! The vision transformer (Dosovitskiy et al. 2021) in evaluation mode, one frame at a time per thread.

use std::ops::Deref;

use worldbench_kernels::Buffer;
use worldbench_kernels::attention::{Attention, Mask};
use worldbench_kernels::gemm::Activation;
use worldbench_nn::vit::VitConfig;

use super::Error;
use super::weights::{Dense, Norm, PAD, Reader};

/// Mean of ImageNet's red, green and blue on a scale of 0 to 1.
pub const IMAGE_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's red, green and blue on a scale of 0 to 1.
pub const IMAGE_STD: [f32; 3] = [0.229, 0.224, 0.225];

const EPS: f32 = 1e-12;

/// Channel, row, column.
pub(super) type Pixel = (usize, usize, usize);

/// The values of one frame of a given side.
pub(super) struct Frame<'a, P> {
    pub values: &'a [P],
    pub side: usize,
}

impl<P> Deref for Frame<'_, P> {
    type Target = [P];

    fn deref(&self) -> &[P] {
        self.values
    }
}

/// Normalised value of a frame `[R, R, 3]`.
pub(super) fn frame_value(frame: &Frame<'_, u8>, (c, y, x): Pixel) -> f32 {
    (f32::from(frame[(y * frame.side + x) * 3 + c]) / 255.0 - IMAGE_MEAN[c]) / IMAGE_STD[c]
}

#[derive(Clone, Debug)]
struct Layer {
    before: Norm,
    qkv: Dense,
    output: Dense,
    after: Norm,
    expand: Dense,
    contract: Dense,
}

impl Layer {
    fn new(reader: Reader, key: &str, c: &VitConfig) -> Result<Self, Error> {
        let width = c.hidden;
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in ["query", "key", "value"] {
            let part = format!("{key}.attention.attention.{part}");
            weight.extend_from_slice(reader.get(&format!("{part}.weight"), width * width)?);
            bias.extend_from_slice(reader.get(&format!("{part}.bias"), width)?);
        }
        Ok(Self {
            before: Norm::new(reader, &format!("{key}.layernorm_before"), width, EPS)?,
            qkv: Dense::from_parts(&weight, Some(bias), width, 3 * width),
            output: Dense::new(reader, &format!("{key}.attention.output.dense"), width, width)?,
            after: Norm::new(reader, &format!("{key}.layernorm_after"), width, EPS)?,
            expand: Dense::new(reader, &format!("{key}.intermediate.dense"), width, c.mlp)?,
            contract: Dense::new(reader, &format!("{key}.output.dense"), c.mlp, width)?,
        })
    }

    fn len(&self) -> usize {
        let dense = [&self.qkv, &self.output, &self.expand, &self.contract];
        dense.iter().map(|d| d.len()).sum::<usize>() + self.before.len() + self.after.len()
    }

    /// Advances the first `going` of all tokens in `x` `[tokens, D]`; the others serve as keys and values.
    fn forward(&self, c: &VitConfig, going: usize, s: &mut EncoderScratch) {
        let (width, tokens) = (c.hidden, s.x.len() / c.hidden);
        let (wide, tall) = (3 * width + PAD, c.mlp + PAD);
        let norm = s.norm.reserve(tokens * width);
        let qkv = s.qkv.reserve(tokens * wide);
        let mixed = s.mixed.reserve(tokens * width);
        let hidden = s.hidden.reserve(tokens * tall);
        self.before.apply(&s.x, norm);
        self.qkv.run(tokens, (norm, width), (qkv, wide), self.qkv.epilogue(Activation::Identity));
        let dim = width / c.heads;
        let (heads, scale) = (c.heads, 1.0 / (dim as f32).sqrt());
        let attention =
            Attention { batch: 1, queries: going, keys: tokens, heads, dim, scale, mask: Mask::Full };
        attention.forward(qkv, wide, &qkv[width..], &qkv[2 * width..], wide, mixed, width);
        let x = &mut s.x[..going * width];
        self.output.run(going, (mixed, width), (x, width), self.output.epilogue(Activation::Identity).add());
        let norm = &mut norm[..going * width];
        self.after.apply(x, norm);
        self.expand.run(going, (norm, width), (hidden, tall), self.expand.epilogue(Activation::Gelu));
        let residual = self.contract.epilogue(Activation::Identity).add();
        self.contract.run(going, (hidden, tall), (x, width), residual);
    }
}

/// Buffers of [`Encoder`].
#[derive(Clone, Debug, Default)]
pub(super) struct EncoderScratch {
    patches: Buffer,
    x: Buffer,
    norm: Buffer,
    qkv: Buffer,
    mixed: Buffer,
    hidden: Buffer,
}

impl EncoderScratch {
    pub fn len(&self) -> usize {
        let all = [&self.patches, &self.x, &self.norm, &self.qkv, &self.mixed, &self.hidden];
        all.iter().map(|b| b.len()).sum()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Encoder {
    config: VitConfig,
    /// Position embeddings, with the class token added to the first; `[1 + P, D]`.
    positions: Vec<f32>,
    patches: Dense,
    layers: Vec<Layer>,
    norm: Norm,
}

impl Encoder {
    pub fn new(reader: Reader, c: &VitConfig) -> Result<Self, Error> {
        if c.patch == 0 || c.heads == 0 || !c.hidden.is_multiple_of(c.heads) || c.image < c.patch {
            return Err(Error::Config(format!("no patch or head fits {c:?}")));
        }
        let (key, width, side) = ("encoder", c.hidden, c.image / c.patch);
        let tokens = side * side + 1;
        let mut positions =
            reader.get(&format!("{key}.embeddings.position_embeddings"), tokens * width)?.to_vec();
        let class = reader.get(&format!("{key}.embeddings.cls_token"), width)?;
        positions.iter_mut().zip(class).for_each(|(p, c)| *p += c);
        let patches = format!("{key}.embeddings.patch_embeddings.projection");
        let layers = (0..c.layers).map(|i| Layer::new(reader, &format!("{key}.encoder.layer.{i}"), c));
        Ok(Self {
            config: *c,
            positions,
            patches: Dense::new(reader, &patches, 3 * c.patch * c.patch, width)?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: Norm::new(reader, &format!("{key}.layernorm"), width, EPS)?,
        })
    }

    pub fn len(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::len).sum();
        layers + self.patches.len() + self.norm.len() + self.positions.len()
    }

    /// The class token `[D]` of the image whose normalised values `value` gives.
    pub fn class_token(&self, s: &mut EncoderScratch, value: impl Fn(Pixel) -> f32, out: &mut [f32]) {
        let (c, width) = (&self.config, self.config.hidden);
        let patches = self.unfold(value, &mut s.patches);
        s.x.reserve(self.positions.len()).copy_from_slice(&self.positions);
        let (count, depth) = (self.positions.len() / width - 1, self.patches.inputs());
        let add = self.patches.epilogue(Activation::Identity).add();
        self.patches.run(count, (patches, depth), (&mut s.x[width..], width), add);
        for (i, layer) in self.layers.iter().enumerate() {
            // After the last layer only the class token is read.
            let going = if i + 1 == self.layers.len() { 1 } else { count + 1 };
            layer.forward(c, going, s);
        }
        self.norm.apply(&s.x[..width], out);
    }

    /// Patches as rows `[P, 3 * patch * patch]`, channel by channel.
    fn unfold<'a>(&self, value: impl Fn(Pixel) -> f32, out: &'a mut Buffer) -> &'a [f32] {
        let (patch, side) = (self.config.patch, self.config.image / self.config.patch);
        let out = out.reserve(side * side * 3 * patch * patch);
        for (i, rows) in out.chunks_exact_mut(3 * patch * patch).enumerate() {
            let (top, left) = (i / side * patch, i % side * patch);
            for (j, row) in rows.chunks_exact_mut(patch).enumerate() {
                for (x, out) in row.iter_mut().enumerate() {
                    *out = value((j / patch, top + j % patch, left + x));
                }
            }
        }
        out
    }
}
