//! The causal adaLN transformer on tokens that lie position by position, with a cache of what attention reads.
//!
//! A window has up to three positions and asks for one or two of them, so keys and values are not computed: scores and
//! mixtures are taken of the normalised tokens themselves ([`attend_rows`]), a head's key matrix turning the query
//! and its value matrix the mixture.

use worldbench_kernels::attention::{MOST_ROWS, attend_rows};
use worldbench_kernels::gemm::{Activation, Epilogue, Precision};
use worldbench_kernels::grad::{Operand, matmul};
use worldbench_kernels::{Buffer, ops};
use worldbench_nn::predictor::PredictorConfig;

use super::Error;
use super::weights::{Dense, Norm, PAD, Reader};

const MODULATED_EPS: f32 = 1e-6;
const AFFINE_EPS: f32 = 1e-5;
/// Rows that go through the feed-forward part at a time: their hidden activations stay near the core.
const FEED_ROWS: usize = 154;

/// One window of `count` samples: positions `0..len`, of which `fresh..len` are computed and the others cached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Number of samples S.
    pub count: usize,
    /// First position to compute.
    pub fresh: usize,
    /// Number of positions T.
    pub len: usize,
    /// First action of the window among all actions.
    pub action: usize,
    /// Whether the normalised tokens are read again by a later window.
    pub keep: bool,
}

/// Buffers of [`Predictor`].
#[derive(Clone, Debug, Default)]
pub(super) struct PredictorScratch {
    /// Tokens `[T - fresh, S, D]`.
    x: Buffer,
    norm: Buffer,
    once: Buffer,
    query: Buffer,
    /// One head's queries as the tokens meet them, then its mixtures of tokens, `[rows, D + pad]`.
    turned: Buffer,
    /// Normalised tokens per layer, `[T, S, D]`.
    cache: Vec<Buffer>,
    mixed: Buffer,
    hidden: Buffer,
    /// Modulations per layer, `[actions, S, 6 * D]`.
    modulations: Vec<Buffer>,
}

impl PredictorScratch {
    pub fn len(&self) -> usize {
        let all = [&self.x, &self.norm, &self.once, &self.query, &self.turned, &self.mixed, &self.hidden];
        all.into_iter().chain(&self.cache).chain(&self.modulations).map(|b| b.len()).sum()
    }
}

#[derive(Clone, Debug)]
struct Block {
    modulation: Dense,
    attention_norm: Norm,
    query: Dense,
    /// Per head, its scaled key matrix transposed: what a query looks for among tokens.
    keys: Vec<Dense>,
    /// Per head, a mixture of tokens to its value.
    values: Vec<Dense>,
    output: Dense,
    /// Value and output in one: what attention adds to a token that sees only itself.
    alone: Dense,
    mlp_norm: Norm,
    expand: Dense,
    contract: Dense,
}

#[derive(Clone, Debug)]
pub(super) struct Predictor {
    config: PredictorConfig,
    positions: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
}

impl Block {
    fn new(reader: Reader, key: &str, c: &PredictorConfig) -> Result<Self, Error> {
        let (width, inner) = (c.width, c.heads * c.head_width);
        let qkv = reader.get(&format!("{key}.attn.to_qkv.weight"), 3 * inner * width)?;
        let (query, key_value) = qkv.split_at(inner * width);
        let (to_key, to_value) = key_value.split_at(inner * width);
        let scale = 1.0 / (c.head_width as f32).sqrt();
        let to_key: Vec<f32> = to_key.iter().map(|v| v * scale).collect();
        let size = c.head_width * width;
        let keys = to_key.chunks_exact(size).map(|head| Dense::from_in_out(head, c.head_width, width));
        let heads = to_value.chunks_exact(size);
        let values = heads.map(|head| Dense::from_parts(head, None, width, c.head_width));
        let output = reader.get(&format!("{key}.attn.to_out.0.weight"), width * inner)?;
        let bias = reader.get(&format!("{key}.attn.to_out.0.bias"), width)?.to_vec();
        let mut alone = vec![0.0; width * width];
        let (o, v) = (Operand::normal(output, inner), Operand::normal(to_value, width));
        matmul(width, inner, width, o, v, &mut alone, width, false, Epilogue::NONE);
        Ok(Self {
            alone: Dense::from_parts(&alone, Some(bias), width, width),
            modulation: Dense::new(reader, &format!("{key}.adaLN_modulation.1"), width, 6 * width)?,
            attention_norm: Norm::new(reader, &format!("{key}.attn.norm"), width, AFFINE_EPS)?,
            query: Dense::from_parts(query, None, width, inner),
            keys: keys.collect(),
            values: values.collect(),
            output: Dense::new(reader, &format!("{key}.attn.to_out.0"), inner, width)?,
            mlp_norm: Norm::new(reader, &format!("{key}.mlp.net.0"), width, AFFINE_EPS)?,
            expand: Dense::new(reader, &format!("{key}.mlp.net.1"), width, c.mlp)?,
            contract: Dense::new(reader, &format!("{key}.mlp.net.4"), c.mlp, width)?,
        })
    }

    fn layers(&self) -> impl Iterator<Item = &Dense> {
        let single = [&self.modulation, &self.query, &self.output, &self.alone, &self.expand, &self.contract];
        single.into_iter().chain(&self.keys).chain(&self.values)
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut Dense> {
        let Self { modulation, query, keys, values, output, alone, expand, contract, .. } = self;
        [modulation, query, output, alone, expand, contract].into_iter().chain(keys).chain(values)
    }

    fn len(&self) -> usize {
        self.layers().map(Dense::len).sum::<usize>() + self.attention_norm.len() + self.mlp_norm.len()
    }
}

/// Modulated norm without affine part, then the affine norm: rows of `x` to rows of `out`. `modulation` starts at
/// the shift of the first row; the scale follows it.
fn normalise(norm: &Norm, x: &[f32], width: usize, modulation: &[f32], once: &mut Buffer, out: &mut [f32]) {
    let (eps, affine) = norm.parts();
    let (once, scale) = (once.reserve(width), &modulation[width..]);
    let eps = [MODULATED_EPS, eps];
    ops::layer_norm_modulated_affine(x, width, eps, modulation, scale, 6 * width, affine, once, out);
}

impl Predictor {
    pub fn new(reader: Reader, c: &PredictorConfig) -> Result<Self, Error> {
        if c.frames > MOST_ROWS {
            let problem = format!("has {} positions, planning takes at most {MOST_ROWS}", c.frames);
            return Err(Error::Parameter { key: "predictor.pos_embedding".into(), problem });
        }
        let blocks =
            (0..c.depth).map(|i| Block::new(reader, &format!("predictor.transformer.layers.{i}"), c));
        Ok(Self {
            config: *c,
            positions: reader.get("predictor.pos_embedding", c.frames * c.width)?.to_vec(),
            blocks: blocks.collect::<Result<_, _>>()?,
            norm: Norm::new(reader, "predictor.transformer.norm", c.width, AFFINE_EPS)?,
        })
    }

    pub fn len(&self) -> usize {
        self.blocks.iter().map(Block::len).sum::<usize>() + self.positions.len() + self.norm.len()
    }

    /// Rounds the weights for products in `precision`.
    pub fn set_precision(&mut self, precision: Precision) {
        self.blocks.iter_mut().flat_map(Block::layers_mut).for_each(|d| d.set_precision(precision));
    }

    /// Computes the modulations of all actions from their conditions `[rows, D]`.
    pub fn modulate(&self, rows: usize, conditions: &[f32], s: &mut PredictorScratch) {
        s.modulations.resize_with(self.blocks.len(), Buffer::default);
        for (block, out) in self.blocks.iter().zip(&mut s.modulations) {
            let out = out.reserve(rows * block.modulation.outputs());
            block.modulation.apply(rows, conditions, out, Activation::Identity);
        }
    }

    /// Advances one window; `states` are the latents of its fresh positions `[T - fresh, S, D]`. The newest token
    /// after the final norm goes to `out` `[S, D]`.
    pub fn forward(&self, w: Window, states: &[f32], s: &mut PredictorScratch, out: &mut [f32]) {
        let width = self.config.width;
        s.cache.resize_with(self.blocks.len(), Buffer::default);
        let x = s.x.reserve(states.len());
        let rows = x.chunks_exact_mut(width).zip(states.chunks_exact(width));
        for (i, (x, state)) in rows.enumerate() {
            let position = &self.positions[(w.fresh + i / w.count) * width..][..width];
            x.iter_mut().zip(state).zip(position).for_each(|((x, s), p)| *x = s + p);
        }
        for layer in 0..self.blocks.len() {
            // After the last layer only the newest token is read.
            let from = if layer + 1 == self.blocks.len() { w.len - 1 } else { w.fresh };
            self.attend(layer, w, from, s);
            self.feed(layer, w, from, s);
        }
        let newest = (w.len - 1 - w.fresh) * w.count * width;
        self.norm.apply(&s.x[newest..][..w.count * width], out);
    }

    /// Adds the attention of positions `from..` to their tokens.
    fn attend(&self, layer: usize, w: Window, from: usize, s: &mut PredictorScratch) {
        let (block, width) = (&self.blocks[layer], self.config.width);
        let fresh = (w.len - w.fresh) * w.count;
        let modulations = &s.modulations[layer];
        let first = (w.action + w.fresh) * w.count * 6 * width;
        let cache = s.cache[if w.keep { layer } else { 0 }].reserve(self.config.frames * w.count * width);
        let norm = &mut cache[w.fresh * w.count * width..][..fresh * width];
        let x = &s.x[..fresh * width];
        normalise(&block.attention_norm, x, width, &modulations[first..], &mut s.once, norm);
        let plain = Activation::Identity;
        let gate = |position: usize| &modulations[(w.action + position) * w.count * 6 * width + 2 * width..];
        if from == 0 {
            let gated = block.alone.epilogue(plain).gate(gate(0), 6 * width, 1);
            block.alone.run(w.count, (norm, width), (&mut s.x, width), gated);
        }
        let asking = from.max(1);
        if asking == w.len {
            return;
        }
        let (rows, row) = ((w.len - asking) * w.count, block.query.outputs() + PAD);
        let query = s.query.reserve(rows * row);
        let mixed = s.mixed.reserve(rows * row);
        let at = (asking - w.fresh) * w.count * width;
        block.query.run(rows, (&norm[at..], width), (query, row), block.query.epilogue(plain));
        let turned = s.turned.reserve(rows * (width + PAD));
        self.mix(block, (w, asking), query, cache, turned, mixed);
        let gated = block.output.epilogue(plain).gate(gate(asking), 6 * width, 1);
        block.output.run(rows, (mixed, row), (&mut s.x[at..], width), gated);
    }

    /// Mixes the values that each query of positions `from..` sees, head by head, so that a head's rows stay near the core.
    fn mix(
        &self,
        block: &Block,
        (w, from): (Window, usize),
        query: &[f32],
        cache: &[f32],
        turned: &mut [f32],
        mixed: &mut [f32],
    ) {
        let PredictorConfig { heads, head_width, width, .. } = self.config;
        let (row, stride) = (heads * head_width + PAD, width + PAD);
        let rows = (w.len - from) * w.count;
        for (head, (key, value)) in block.keys.iter().zip(&block.values).enumerate() {
            let at = head * head_width;
            key.run(rows, (&query[at..], row), (turned, stride), Epilogue::NONE);
            for (i, turned) in turned.chunks_exact_mut(w.count * stride).enumerate() {
                attend_rows([w.count, from + i + 1, width], turned, stride, cache);
            }
            value.run(rows, (turned, stride), (&mut mixed[at..], row), Epilogue::NONE);
        }
    }

    /// Adds the feed-forward part of positions `from..` to their tokens.
    fn feed(&self, layer: usize, w: Window, from: usize, s: &mut PredictorScratch) {
        let (block, width) = (&self.blocks[layer], self.config.width);
        let (rows, tall) = ((w.len - from) * w.count, block.expand.outputs() + PAD);
        let modulations = &s.modulations[layer][(w.action + from) * w.count * 6 * width..];
        let x = &mut s.x[(from - w.fresh) * w.count * width..][..rows * width];
        let (norm, hidden) = (s.norm.reserve(FEED_ROWS * width), s.hidden.reserve(FEED_ROWS * tall));
        for (i, x) in x.chunks_mut(FEED_ROWS * width).enumerate() {
            let rows = x.len() / width;
            let modulations = &modulations[i * FEED_ROWS * 6 * width..];
            let norm = &mut norm[..x.len()];
            normalise(&block.mlp_norm, x, width, &modulations[3 * width..], &mut s.once, norm);
            block.expand.run(rows, (norm, width), (hidden, tall), block.expand.epilogue(Activation::Gelu));
            let gate = &modulations[5 * width..];
            let gated = block.contract.epilogue(Activation::Identity).gate(gate, 6 * width, 1);
            block.contract.run(rows, (hidden, tall), (x, width), gated);
        }
    }
}
