//! Latent dynamics of the compact models: a residual MLP whose blocks are modulated by the action (FiLM,
//! arXiv 1709.07871). One frame of history: `s' = s + f(s, a)`.

use super::linear::{self, LayerNormTape};
use super::params::{Linear, ParamTable};

/// One residual block: LayerNorm, FiLM by the action, Linear, GELU, Linear.
#[derive(Clone, Debug)]
pub struct Block {
    /// Action embedding to (scale, shift).
    pub film: Linear,
    /// First dense layer.
    pub up: Linear,
    /// Second dense layer, added to the residual stream.
    pub down: Linear,
}

/// The predictor's layers.
#[derive(Clone, Debug)]
pub struct Predictor {
    /// Action block to embedding.
    pub action: Linear,
    /// State to residual stream.
    pub input: Linear,
    /// Residual blocks.
    pub blocks: Vec<Block>,
    /// Residual stream to state change.
    pub output: Linear,
}

/// What the backward pass needs of one forward call over `rows` states.
pub struct Tape {
    state: Vec<f32>,
    action: Vec<f32>,
    action_pre: Vec<f32>,
    action_embedding: Vec<f32>,
    blocks: Vec<BlockTape>,
    last: LayerNormTape,
    /// Predicted next state, [rows, S].
    pub next: Vec<f32>,
}

struct BlockTape {
    norm: LayerNormTape,
    film: Vec<f32>,
    modulated: Vec<f32>,
    pre: Vec<f32>,
    post: Vec<f32>,
}

impl Predictor {
    /// Declares the layers: state width `state`, action input width `action`, residual width `width`.
    pub fn declare(table: &mut ParamTable, state: usize, action: usize, width: usize, depth: usize) -> Self {
        let embedding = width / 2;
        let blocks = (0..depth)
            .map(|i| Block {
                film: Linear::declare(
                    table,
                    &format!("predictor.blocks.{i}.film"),
                    embedding,
                    2 * width,
                    0.5,
                ),
                up: Linear::declare(table, &format!("predictor.blocks.{i}.up"), width, width, 1.4),
                down: Linear::declare(table, &format!("predictor.blocks.{i}.down"), width, width, 0.5),
            })
            .collect();
        Self {
            action: Linear::declare(table, "predictor.action", action, embedding, 1.4),
            input: Linear::declare(table, "predictor.input", state, width, 1.0),
            blocks,
            output: Linear::declare(table, "predictor.output", width, state, 0.1),
        }
    }

    /// Predicts the next state of every row and keeps what [`Predictor::backward`] needs.
    #[must_use]
    pub fn forward(&self, params: &[f32], state: Vec<f32>, action: Vec<f32>) -> Tape {
        let action_pre = linear::forward(params, &self.action, &action);
        let action_embedding = linear::gelu(&action_pre);
        let mut stream = linear::forward(params, &self.input, &state); // [rows, W]
        let width = self.input.outputs;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let norm = LayerNormTape::forward(&stream, width);
            let film = linear::forward(params, &block.film, &action_embedding); // [rows, 2W]
            let mut modulated = norm.normalised.clone();
            for (row, film) in modulated.chunks_exact_mut(width).zip(film.chunks_exact(2 * width)) {
                let (scale, shift) = film.split_at(width);
                for ((v, s), t) in row.iter_mut().zip(scale).zip(shift) {
                    *v = *v * (1.0 + s) + t;
                }
            }
            let pre = linear::forward(params, &block.up, &modulated);
            let post = linear::gelu(&pre);
            let change = linear::forward(params, &block.down, &post);
            stream.iter_mut().zip(&change).for_each(|(s, c)| *s += c);
            blocks.push(BlockTape { norm, film, modulated, pre, post });
        }
        let last = LayerNormTape::forward(&stream, width);
        let mut next = linear::forward(params, &self.output, &last.normalised);
        next.iter_mut().zip(&state).for_each(|(n, s)| *n += s);
        Tape { state, action, action_pre, action_embedding, blocks, last, next }
    }

    /// Adds the gradients of all weights to `grads` and returns the gradient of the input state.
    #[must_use]
    pub fn backward(&self, params: &[f32], tape: &Tape, grad_next: &[f32], grads: &mut [f32]) -> Vec<f32> {
        let width = self.input.outputs;
        let d_norm = linear::backward(params, &self.output, &tape.last.normalised, grad_next, grads);
        let mut d_stream = tape.last.backward(&d_norm);
        let mut d_embedding = vec![0.0; tape.action_embedding.len()];
        for (block, tape_block) in self.blocks.iter().zip(&tape.blocks).rev() {
            let d_post = linear::backward(params, &block.down, &tape_block.post, &d_stream, grads);
            let d_post = linear::gelu_backward(&tape_block.pre, &d_post);
            let mut d_mod = linear::backward(params, &block.up, &tape_block.modulated, &d_post, grads);
            let mut d_film = vec![0.0; tape_block.film.len()];
            let rows = d_mod.chunks_exact_mut(width).zip(d_film.chunks_exact_mut(2 * width));
            let saved =
                tape_block.norm.normalised.chunks_exact(width).zip(tape_block.film.chunks_exact(2 * width));
            for ((d_row, d_film), (u, film)) in rows.zip(saved) {
                let (d_scale, d_shift) = d_film.split_at_mut(width);
                d_shift.copy_from_slice(d_row);
                for (((d, ds), u), s) in d_row.iter_mut().zip(d_scale).zip(u).zip(film) {
                    *ds = *d * u;
                    *d *= 1.0 + s;
                }
            }
            let d_norm = tape_block.norm.backward(&d_mod);
            d_stream.iter_mut().zip(&d_norm).for_each(|(a, b)| *a += b);
            let d = linear::backward(params, &block.film, &tape.action_embedding, &d_film, grads);
            d_embedding.iter_mut().zip(&d).for_each(|(a, b)| *a += b);
        }
        let d_embedding = linear::gelu_backward(&tape.action_pre, &d_embedding);
        linear::backward_weights(&self.action, &tape.action, &d_embedding, grads);
        let mut d_state = linear::backward(params, &self.input, &tape.state, &d_stream, grads);
        d_state.iter_mut().zip(grad_next).for_each(|(d, g)| *d += g);
        d_state
    }
}
