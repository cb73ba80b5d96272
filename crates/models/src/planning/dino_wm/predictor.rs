//! The block-causal transformer on frames of patch tokens, with packed keys and values per frame.

use worldbench_kernels::Buffer;
use worldbench_kernels::attention::{KeyValues, Mask};
use worldbench_kernels::gemm::{Activation, Precision};
use worldbench_nn::patch_predictor::PatchPredictorConfig;

use super::super::Error;
use super::super::weights::{Dense, Norm, PAD, Reader};

const EPS: f32 = 1e-5;
/// Rows that go through the feed-forward part at a time: their hidden activations stay near the core.
const FEED_ROWS: usize = 256;

/// What is known of the frames before a window's fresh ones.
#[derive(Clone, Copy, Debug)]
pub(super) enum Past<'a> {
    /// Nothing: the window begins with a fresh frame.
    None,
    /// All samples share these keys and values, one entry per layer.
    Shared(&'a [KeyValues]),
    /// Each sample's own, left by the window before.
    Own,
}

/// One window of `count` samples: frames `0..len`, of which `fresh..len` are computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    /// Number of samples S.
    pub count: usize,
    /// First frame to compute.
    pub fresh: usize,
    /// Number of frames T.
    pub len: usize,
    /// Where the frames before come from.
    pub past: Past<'a>,
    /// Whether keys and values are read again by a later window.
    pub keep: bool,
}

/// Buffers of [`Predictor`].
#[derive(Clone, Debug, Default)]
pub(super) struct PredictorScratch {
    /// Fresh tokens `[T - fresh, S, P, D]`.
    x: Buffer,
    norm: Buffer,
    query: Buffer,
    key_value: Buffer,
    mixed: Buffer,
    hidden: Buffer,
    /// Per layer and sample where they are kept, else one for all.
    packed: Vec<KeyValues>,
}

impl PredictorScratch {
    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let all = [&self.x, &self.norm, &self.query, &self.key_value, &self.mixed, &self.hidden];
        let values: usize = all.iter().map(|b| b.len()).sum();
        values * size_of::<f32>() + self.packed.iter().map(KeyValues::bytes).sum::<usize>()
    }
}

#[derive(Clone, Debug)]
struct Block {
    attention_norm: Norm,
    query: Dense,
    key_value: Dense,
    output: Dense,
    mlp_norm: Norm,
    expand: Dense,
    contract: Dense,
}

impl Block {
    fn new(reader: Reader, key: &str, width: usize, c: &PatchPredictorConfig) -> Result<Self, Error> {
        let inner = c.heads * c.head_width;
        let qkv = reader.get(&format!("{key}.0.to_qkv.weight"), 3 * inner * width)?;
        let (query, key_value) = qkv.split_at(inner * width);
        Ok(Self {
            attention_norm: Norm::new(reader, &format!("{key}.0.norm"), width, EPS)?,
            query: Dense::from_parts(query, None, width, inner),
            key_value: Dense::from_parts(key_value, None, width, 2 * inner),
            output: Dense::new(reader, &format!("{key}.0.to_out.0"), inner, width)?,
            mlp_norm: Norm::new(reader, &format!("{key}.1.net.0"), width, EPS)?,
            expand: Dense::new(reader, &format!("{key}.1.net.1"), width, c.mlp)?,
            contract: Dense::new(reader, &format!("{key}.1.net.4"), c.mlp, width)?,
        })
    }

    fn len(&self) -> usize {
        let dense = [&self.query, &self.key_value, &self.output, &self.expand, &self.contract];
        dense.iter().map(|d| d.len()).sum::<usize>() + self.attention_norm.len() + self.mlp_norm.len()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Predictor {
    config: PatchPredictorConfig,
    width: usize,
    positions: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    /// From the norm's output to the change of a frame.
    change: Option<Dense>,
    precision: Precision,
}

impl Predictor {
    pub fn new(reader: Reader, width: usize, c: &PatchPredictorConfig) -> Result<Self, Error> {
        let key = |i| format!("predictor.transformer.layers.{i}");
        Ok(Self {
            config: *c,
            width,
            positions: reader.get("predictor.pos_embedding", c.frames * c.patches * width)?.to_vec(),
            blocks: (0..c.depth).map(|i| Block::new(reader, &key(i), width, c)).collect::<Result<_, _>>()?,
            norm: Norm::new(reader, "predictor.transformer.norm", width, EPS)?,
            change: c.residual.then(|| Dense::new(reader, "predictor.change", width, width)).transpose()?,
            precision: Precision::F32,
        })
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::len).sum();
        blocks + self.positions.len() + self.norm.len() + self.change.as_ref().map_or(0, Dense::len)
    }

    /// Rounds the weights for products in `precision`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
        for b in &mut self.blocks {
            let dense = [&mut b.query, &mut b.key_value, &mut b.output, &mut b.expand, &mut b.contract];
            dense.into_iter().for_each(|d| d.set_precision(precision));
        }
        self.change.iter_mut().for_each(|d| d.set_precision(precision));
    }

    /// Values that a thread's buffers hold at most: in any case, and per sample.
    pub fn values(&self) -> (usize, usize) {
        let c = &self.config;
        let (rows, inner) = (c.frames * c.patches, c.heads * c.head_width);
        let packed = c.heads * KeyValues::values(c.head_width, rows);
        let norm = FEED_ROWS * self.width;
        let sample = rows * (2 * self.width + 4 * inner + 3 * PAD) + c.depth * packed;
        (norm + FEED_ROWS * (c.mlp + PAD), sample)
    }

    /// The tokens of the frame after window `w`, `[S, P, D]`, from its fresh `tokens` `[T - fresh, S, P, D]`.
    pub fn forward(&self, w: Window, tokens: &[f32], s: &mut PredictorScratch, out: &mut [f32]) {
        let newest = self.layers(w, w.len - 1, tokens, s);
        let Some(change) = &self.change else { return self.norm.apply(&s.x[newest..][..out.len()], out) };
        let norm = s.norm.reserve(out.len());
        self.norm.apply(&s.x[newest..][..out.len()], norm);
        out.copy_from_slice(&tokens[newest..][..out.len()]);
        let (rows, plain) = (out.len() / self.width, change.epilogue(Activation::Identity));
        change.run(rows, (norm, self.width), (out, self.width), plain.add());
    }

    /// Keys and values of all layers for the `frames` frames `[T, P, D]` that all samples share.
    pub fn share(&self, frames: usize, tokens: &[f32], s: &mut PredictorScratch) -> Vec<KeyValues> {
        let w = Window { count: 1, fresh: 0, len: frames, past: Past::None, keep: true };
        self.layers(w, frames, tokens, s);
        s.packed[..self.blocks.len()].to_vec()
    }

    /// Runs all layers, the last one for frames `last..` only; gives where these start in `x`.
    fn layers(&self, w: Window, last: usize, tokens: &[f32], s: &mut PredictorScratch) -> usize {
        let frame = w.count * self.config.patches * self.width;
        let slots = if self.keeps(w) { self.blocks.len() * w.count } else { 1 };
        if s.packed.len() < slots {
            s.packed.resize_with(slots, KeyValues::default);
        }
        let x = s.x.reserve(tokens.len());
        let slot = self.config.patches * self.width;
        for (i, (x, tokens)) in x.chunks_exact_mut(slot).zip(tokens.chunks_exact(slot)).enumerate() {
            let positions = &self.positions[(w.fresh + i / w.count) * slot..][..slot];
            x.iter_mut().zip(tokens).zip(positions).for_each(|((x, t), p)| *x = t + p);
        }
        for layer in 0..self.blocks.len() {
            let from = if layer + 1 == self.blocks.len() { last } else { w.fresh };
            self.attend(layer, w, from, s);
            self.feed(layer, &mut s.x[(from - w.fresh) * frame..tokens.len()], &mut s.norm, &mut s.hidden);
        }
        (last - w.fresh) * frame
    }

    /// Whether every layer and sample has keys and values of its own.
    fn keeps(&self, w: Window) -> bool {
        w.keep || matches!(w.past, Past::Own)
    }

    /// Adds the attention of frames `from..` to their tokens.
    fn attend(&self, layer: usize, w: Window, from: usize, s: &mut PredictorScratch) {
        let (block, c, width) = (&self.blocks[layer], &self.config, self.width);
        let inner = c.heads * c.head_width;
        let (row, stride) = (inner + PAD, 2 * inner + PAD);
        let frame = w.count * c.patches;
        let rows = (w.len - w.fresh) * frame;
        let norm = s.norm.reserve(rows * width);
        block.attention_norm.apply(&s.x[..rows * width], norm);
        let key_value = s.key_value.reserve(rows * stride);
        let plain = Activation::Identity;
        block.key_value.run(rows, (norm, width), (key_value, stride), block.key_value.epilogue(plain));
        let (asking, at) = ((w.len - from) * frame, (from - w.fresh) * frame * width);
        let (query, mixed) = (s.query.reserve(asking * row), s.mixed.reserve(asking * row));
        block.query.run(asking, (&norm[at..], width), (query, row), block.query.epilogue(plain));
        let scale = 1.0 / (c.head_width as f32).sqrt();
        for sample in 0..w.count {
            let packed = &mut s.packed[if self.keeps(w) { layer * w.count + sample } else { 0 }];
            match w.past {
                Past::None => packed.clear(c.heads, c.head_width, c.frames * c.patches, self.precision),
                Past::Shared(layers) => packed.copy_from(&layers[layer]),
                Past::Own => {}
            }
            for f in w.fresh..w.len {
                // Frames come in order, so a query sees all that is packed by then: no mask.
                let first = ((f - w.fresh) * w.count + sample) * c.patches;
                let key = &key_value[first * stride..];
                packed.append(c.patches, key, &key[inner..], stride);
                if f >= from {
                    let first = ((f - from) * w.count + sample) * c.patches * row;
                    let (query, mixed) = (&query[first..], &mut mixed[first..]);
                    packed.attend(c.patches, Mask::Full, scale, query, row, mixed, row);
                }
            }
        }
        block.output.run(asking, (mixed, row), (&mut s.x[at..], width), block.output.epilogue(plain).add());
    }

    /// Adds the feed-forward part to rows `[D]` of `x`.
    fn feed(&self, layer: usize, x: &mut [f32], norm: &mut Buffer, hidden: &mut Buffer) {
        let (block, width) = (&self.blocks[layer], self.width);
        let tall = block.expand.outputs() + PAD;
        for x in x.chunks_mut(FEED_ROWS * width) {
            let rows = x.len() / width;
            let norm = norm.reserve(x.len());
            block.mlp_norm.apply(x, norm);
            let hidden = hidden.reserve(rows * tall);
            block.expand.run(rows, (norm, width), (hidden, tall), block.expand.epilogue(Activation::Gelu));
            let residual = block.contract.epilogue(Activation::Identity).add();
            block.contract.run(rows, (hidden, tall), (x, width), residual);
        }
    }
}
