//! DINOv2 (Oquab et al. 2023), the frozen encoder of DINO-WM (Zhou et al. 2024): a vision transformer in
//! evaluation mode, `x += s1 * attention(norm1(x)); x += s2 * mlp(norm2(x))` with a learned scale per channel.
//!
//! Keys are those of the published `transformers` weights. The layer is that of [`crate::planning`]; the scales are
//! folded into the linear layers before them. Patch tokens are taken after the final norm, without the class token.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_kernels::par_rows_mut;

use super::positions::{Positions, interpolate};
use super::{EncoderName, Error, FrozenEncoder, Pool, check_frames};
use crate::planning::encoder::{EncoderScratch, Frame, Layer, Pixel, embed, frame_value};
use crate::planning::weights::{Dense, Norm, Reader};
use crate::state_dict::{StateDict, Tensor};

const EPS: f32 = 1e-6;

/// Sizes of a DINOv2, under the names of its `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dinov2Config {
    /// Width D of tokens.
    #[serde(rename = "hidden_size")]
    pub hidden: usize,
    /// Transformer layers.
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    /// Attention heads, a divisor of the width.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Width of the hidden layer over D.
    pub mlp_ratio: usize,
    /// Side of a patch in pixels.
    #[serde(rename = "patch_size")]
    pub patch: usize,
    /// Side in pixels of the images that the position table was learned on.
    #[serde(rename = "image_size")]
    pub image: usize,
    /// Whether the hidden layer is gated, as in the giant model, which is not supported.
    #[serde(default, rename = "use_swiglu_ffn")]
    pub gated: bool,
}

impl Dinov2Config {
    const fn of(hidden: usize, layers: usize, heads: usize) -> Self {
        Self { hidden, layers, heads, mlp_ratio: 4, patch: 14, image: 518, gated: false }
    }

    /// 22 million parameters, D = 384.
    #[must_use]
    pub const fn small() -> Self {
        Self::of(384, 12, 6)
    }

    /// 86 million parameters, D = 768.
    #[must_use]
    pub const fn base() -> Self {
        Self::of(768, 12, 12)
    }

    /// 304 million parameters, D = 1024.
    #[must_use]
    pub const fn large() -> Self {
        Self::of(1024, 24, 16)
    }

    /// 1.1 million parameters, D = 128: the sizes that `worldbench pretrain` trains by default.
    #[must_use]
    pub const fn built_in() -> Self {
        Self { patch: 16, image: 64, ..Self::of(128, 5, 4) }
    }

    /// Reads a `config.json` as published beside the weights.
    ///
    /// # Errors
    /// The file is missing or is not a DINOv2's.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |problem: String| Error::Config(format!("{}: {problem}", path.display()));
        let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))
    }

    /// Random weights of the right shapes, to measure speed with.
    #[must_use]
    pub fn random(&self, seed: u64) -> StateDict {
        let tensor = |(key, shape): (String, Vec<usize>)| {
            let mut stream = Stream::new(seed, &key, &[]);
            let values = (0..shape.iter().product()).map(|_| stream.uniform(-0.05, 0.05) as f32).collect();
            (key, Tensor { shape, values })
        };
        StateDict::new("random weights", self.keys().into_iter().map(tensor).collect())
    }

    fn check(&self) -> Result<(), Error> {
        let problem = if self.gated {
            "gated hidden layers (DINOv2 giant) are not supported; take small, base or large"
        } else if self.patch == 0 || self.heads == 0 || !self.hidden.is_multiple_of(self.heads) {
            "no patch or head fits"
        } else if self.layers == 0 || self.mlp_ratio == 0 || self.image < self.patch {
            "a layer, a hidden layer and a patch are needed"
        } else {
            return Ok(());
        };
        Err(Error::Config(format!("{problem}: {self:?}")))
    }

    /// Patches along a side of the position table.
    fn table_side(&self) -> usize {
        self.image / self.patch
    }

    /// Every key with its shape.
    fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let (d, tall, patch) = (self.hidden, self.hidden * self.mlp_ratio, self.patch);
        let mut keys = Vec::new();
        let mut add = |key: String, shape: &[usize]| keys.push((key, shape.to_vec()));
        add("embeddings.cls_token".into(), &[1, 1, d]);
        add("embeddings.position_embeddings".into(), &[1, 1 + self.table_side().pow(2), d]);
        add("embeddings.patch_embeddings.projection.weight".into(), &[d, 3, patch, patch]);
        add("embeddings.patch_embeddings.projection.bias".into(), &[d]);
        for layer in (0..self.layers).map(|i| format!("encoder.layer.{i}")) {
            for norm in ["norm1", "norm2"] {
                add(format!("{layer}.{norm}.weight"), &[d]);
                add(format!("{layer}.{norm}.bias"), &[d]);
            }
            for (dense, inputs, outputs) in [
                ("attention.attention.query", d, d),
                ("attention.attention.key", d, d),
                ("attention.attention.value", d, d),
                ("attention.output.dense", d, d),
                ("mlp.fc1", d, tall),
                ("mlp.fc2", tall, d),
            ] {
                add(format!("{layer}.{dense}.weight"), &[outputs, inputs]);
                add(format!("{layer}.{dense}.bias"), &[outputs]);
            }
            for scale in ["layer_scale1", "layer_scale2"] {
                add(format!("{layer}.{scale}.lambda1"), &[d]);
            }
        }
        add("layernorm.weight".into(), &[d]);
        add("layernorm.bias".into(), &[d]);
        keys
    }

    fn layer(&self, reader: Reader, i: usize) -> Result<Layer, Error> {
        let (d, tall, key) = (self.hidden, self.hidden * self.mlp_ratio, format!("encoder.layer.{i}"));
        let norm = |name: &str| Norm::new(reader, &format!("{key}.{name}"), d, EPS);
        let scale = |name: &str| reader.get(&format!("{key}.{name}.lambda1"), d);
        let output = format!("{key}.attention.output.dense");
        Ok(Layer {
            heads: self.heads,
            before: norm("norm1")?,
            qkv: Dense::joint(reader, &format!("{key}.attention.attention"), ["query", "key", "value"], d)?,
            output: Dense::scaled(reader, &output, d, d, scale("layer_scale1")?)?,
            after: norm("norm2")?,
            expand: Dense::new(reader, &format!("{key}.mlp.fc1"), d, tall)?,
            contract: Dense::scaled(reader, &format!("{key}.mlp.fc2"), tall, d, scale("layer_scale2")?)?,
        })
    }
}

/// Interpolated position tables by rows and columns of the grid.
type Tables = HashMap<(usize, usize), Arc<Vec<f32>>>;

/// A DINOv2 made ready for inference.
#[derive(Debug)]
pub struct Dinov2 {
    name: String,
    config: Dinov2Config,
    positions: Positions,
    /// Side of the frames that [`FrozenEncoder::encode`] takes.
    side: usize,
    class: Vec<f32>,
    /// The learned position table `[1 + M * M, D]`.
    table: Vec<f32>,
    patches: Dense,
    layers: Vec<Layer>,
    norm: Norm,
    report: String,
    fingerprint: String,
    /// Class token and interpolated positions `[1 + P, D]` by rows and columns of patches.
    tables: Mutex<Tables>,
    pool: Pool<EncoderScratch>,
}

impl Dinov2 {
    /// Packs the weights of a DINOv2, or of a model that holds one under any prefix, for frames of `side` pixels.
    ///
    /// # Errors
    /// The weights do not fit; every missing, misshapen and unexpected key is named. `side` is not a multiple of the
    /// patch.
    pub fn new(
        name: &str,
        config: Dinov2Config,
        (side, positions): (usize, Positions),
        weights: StateDict,
    ) -> Result<Self, Error> {
        config.check()?;
        if side == 0 || !side.is_multiple_of(config.patch) {
            let near = (side / config.patch).max(1) * config.patch;
            let problem = format!("frames of {side} pixels are no whole patches of {}", config.patch);
            return Err(Error::Config(format!("{problem}; take {near}")));
        }
        let weights = weights.part("embeddings.cls_token");
        let report = weights.check(&config.keys(), |key| key == "embeddings.mask_token")?;
        let (reader, d) = (Reader(&weights), config.hidden);
        let layers = (0..config.layers).map(|i| config.layer(reader, i));
        let patches = "embeddings.patch_embeddings.projection";
        let table = 1 + config.table_side().pow(2);
        Ok(Self {
            name: name.to_owned(),
            config,
            positions,
            side,
            class: reader.get("embeddings.cls_token", d)?.to_vec(),
            table: reader.get("embeddings.position_embeddings", table * d)?.to_vec(),
            patches: Dense::new(reader, patches, 3 * config.patch * config.patch, d)?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: Norm::new(reader, "layernorm", d, EPS)?,
            report,
            fingerprint: weights.digest(&format!("dinov2 {config:?} {positions:?} {side}")),
            tables: Mutex::default(),
            pool: Pool::default(),
        })
    }

    /// How many tensors the weights gave, as in `222/222 tensors`.
    #[must_use]
    pub fn report(&self) -> &str {
        &self.report
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &Dinov2Config {
        &self.config
    }

    /// All tokens `[B, 1 + P, D]` after the final norm, the class token first, of normalised images
    /// `[B, 3, height, width]` of any size in whole patches; patches in row-major order.
    ///
    /// # Errors
    /// The size is not a multiple of the patch, or the values are not whole images.
    pub fn forward_normalised(
        &self,
        images: &[f32],
        (height, width): (usize, usize),
    ) -> Result<Vec<f32>, Error> {
        let patch = self.config.patch;
        if height * width == 0 || !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
            let problem = format!("images of {height} x {width} are no whole patches of {patch}");
            return Err(Error::Config(format!("{problem}; resize them")));
        }
        let size = 3 * height * width;
        if images.is_empty() || !images.len().is_multiple_of(size) {
            let need = format!("a multiple of {size}, images of {height} x {width}");
            return Err(Error::Length { what: "images".into(), got: images.len(), need });
        }
        let (d, grid) = (self.config.hidden, (height / patch, width / patch));
        let (tokens, count) = (1 + grid.0 * grid.1, images.len() / size);
        let table = self.interpolated(grid);
        let mut out = vec![0.0; count * tokens * d];
        par_rows_mut(&mut out, count, tokens * d, |images_here, out| {
            self.pool.with(|scratch| {
                for (i, out) in images_here.zip(out.chunks_exact_mut(tokens * d)) {
                    let image = &images[i * size..][..size];
                    let value = |(c, y, x): Pixel| image[(c * height + y) * width + x];
                    self.forward(&table, grid.1, value, scratch);
                    self.norm.apply(&scratch.x[..tokens * d], out);
                }
            });
        });
        Ok(out)
    }

    /// Leaves the tokens `[1 + P, D]` before the final norm in `s.x`.
    fn forward(
        &self,
        positions: &[f32],
        columns: usize,
        value: impl Fn(Pixel) -> f32,
        s: &mut EncoderScratch,
    ) {
        let tokens = positions.len() / self.config.hidden;
        embed(&self.patches, positions, (self.config.patch, columns), value, s);
        self.layers.iter().for_each(|layer| layer.forward(tokens, tokens, s));
    }

    /// Class token and positions `[1 + P, D]` for `grid` (rows, columns) of patches, computed once.
    pub(crate) fn interpolated(&self, grid: (usize, usize)) -> Arc<Vec<f32>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            let (d, side) = (self.config.hidden, self.config.table_side());
            let first = self.table[..d].iter().zip(&self.class).map(|(p, c)| p + c);
            let others = interpolate(&self.table[d..], (side, d), grid, self.positions);
            Arc::new(first.chain(others).collect())
        };
        tables.entry(grid).or_insert_with(build).clone()
    }
}

impl FrozenEncoder for Dinov2 {
    fn name(&self) -> &str {
        &self.name
    }

    fn image_size(&self) -> usize {
        self.side
    }

    fn area_filter(&self) -> bool {
        self.name == EncoderName::BuiltIn.as_str()
    }

    fn tokens(&self) -> usize {
        (self.side / self.config.patch).pow(2)
    }

    fn width(&self) -> usize {
        self.config.hidden
    }

    fn encode(&self, frames: &[&[u8]], out: &mut [f32]) -> Result<(), Error> {
        check_frames(self, frames, out)?;
        let (d, columns, stride) =
            (self.width(), self.side / self.config.patch, self.tokens() * self.width());
        let table = self.interpolated((columns, columns));
        par_rows_mut(out, frames.len(), stride, |rows, out| {
            self.pool.with(|scratch| {
                for (i, out) in rows.zip(out.chunks_exact_mut(stride)) {
                    let frame = Frame { values: frames[i], side: self.side };
                    self.forward(&table, columns, |pixel| frame_value(&frame, pixel), scratch);
                    self.norm.apply(&scratch.x[d..d + stride], out);
                }
            });
        });
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
