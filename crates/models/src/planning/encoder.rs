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
pub(crate) type Pixel = (usize, usize, usize);

/// The values of one frame, `side` of them in a row.
pub(crate) struct Frame<'a, P> {
    pub values: &'a [P],
    pub side: usize,
}

impl<P> Deref for Frame<'_, P> {
    type Target = [P];

    fn deref(&self) -> &[P] {
        self.values
    }
}

/// Normalised value of a frame `[rows, side, 3]`.
pub(crate) fn frame_value(frame: &Frame<'_, u8>, (c, y, x): Pixel) -> f32 {
    (f32::from(frame[(y * frame.side + x) * 3 + c]) / 255.0 - IMAGE_MEAN[c]) / IMAGE_STD[c]
}

/// A pre-norm transformer layer; the order of its parts is that of the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub heads: usize,
    pub before: Norm,
    pub qkv: Dense,
    pub output: Dense,
    pub after: Norm,
    pub expand: Dense,
    pub contract: Dense,
}

impl Layer {
    fn new(reader: Reader, key: &str, c: &VitConfig) -> Result<Self, Error> {
        let width = c.hidden;
        let attention = format!("{key}.attention.attention");
        Ok(Self {
            heads: c.heads,
            before: Norm::new(reader, &format!("{key}.layernorm_before"), width, EPS)?,
            qkv: Dense::joint(reader, &attention, ["query", "key", "value"], width)?,
            output: Dense::new(reader, &format!("{key}.attention.output.dense"), width, width)?,
            after: Norm::new(reader, &format!("{key}.layernorm_after"), width, EPS)?,
            expand: Dense::new(reader, &format!("{key}.intermediate.dense"), width, c.mlp)?,
            contract: Dense::new(reader, &format!("{key}.output.dense"), c.mlp, width)?,
        })
    }

    pub fn len(&self) -> usize {
        let dense = [&self.qkv, &self.output, &self.expand, &self.contract];
        dense.iter().map(|d| d.len()).sum::<usize>() + self.before.len() + self.after.len()
    }

    /// Advances the first `going` of the `tokens` in `x` `[tokens, D]`; the others serve as keys and values.
    pub fn forward(&self, going: usize, tokens: usize, s: &mut EncoderScratch) {
        let (width, heads) = (self.qkv.inputs(), self.heads);
        let (wide, tall) = (3 * width + PAD, self.expand.outputs() + PAD);
        let norm = s.norm.reserve(tokens * width);
        let qkv = s.qkv.reserve(tokens * wide);
        let mixed = s.mixed.reserve(tokens * width);
        let hidden = s.hidden.reserve(tokens * tall);
        self.before.apply(&s.x[..tokens * width], norm);
        self.qkv.run(tokens, (norm, width), (qkv, wide), self.qkv.epilogue(Activation::Identity));
        let dim = width / heads;
        let scale = 1.0 / (dim as f32).sqrt();
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

/// Buffers of [`Layer`] and [`embed`].
#[derive(Clone, Debug, Default)]
pub(crate) struct EncoderScratch {
    patches: Buffer,
    /// The tokens `[tokens, D]`.
    pub x: Buffer,
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
        let tokens = self.positions.len() / width;
        embed(&self.patches, &self.positions, (c.patch, c.image / c.patch), value, s);
        for (i, layer) in self.layers.iter().enumerate() {
            // After the last layer only the class token is read.
            let going = if i + 1 == self.layers.len() { 1 } else { tokens };
            layer.forward(going, tokens, s);
        }
        self.norm.apply(&s.x[..width], out);
    }
}

/// Fills `x` `[1 + P, D]` with the tokens of an image: `positions` `[1 + P, D]`, whose first row holds the class
/// token, plus the projected patches of side `patch`, `columns` of them in a row.
pub(crate) fn embed(
    patches: &Dense,
    positions: &[f32],
    (patch, columns): (usize, usize),
    value: impl Fn(Pixel) -> f32,
    s: &mut EncoderScratch,
) {
    let (depth, width) = (patches.inputs(), patches.outputs());
    let count = positions.len() / width - 1;
    let unfolded = s.patches.reserve(count * depth); // [P, 3 * patch * patch]
    for (i, rows) in unfolded.chunks_exact_mut(depth).enumerate() {
        let (top, left) = (i / columns * patch, i % columns * patch);
        for (j, row) in rows.chunks_exact_mut(patch).enumerate() {
            for (x, out) in row.iter_mut().enumerate() {
                *out = value((j / patch, top + j % patch, left + x));
            }
        }
    }
    let x = s.x.reserve(positions.len());
    x.copy_from_slice(positions);
    let add = patches.epilogue(Activation::Identity).add();
    patches.run(count, (unfolded, depth), (&mut x[width..], width), add);
}
