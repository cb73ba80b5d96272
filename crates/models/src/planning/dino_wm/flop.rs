//! Arithmetic of a rollout.

use crate::dino_wm::DinoWmConfig;

/// Multiply-adds of one token in one layer.
struct Layer {
    key_value: f64,
    /// Query, output and feed-forward.
    asking: f64,
    /// Scores and mixing, per key.
    attention: f64,
    /// From the last norm to the change of a frame, once a window.
    change: f64,
    patches: f64,
}

impl Layer {
    fn new(c: &DinoWmConfig) -> Self {
        let p = &c.predictor;
        let (width, inner, mlp) = (c.width() as f64, (p.heads * p.head_width) as f64, p.mlp as f64);
        let change = if p.residual { p.patches as f64 * width * width } else { 0.0 };
        Self {
            change,
            key_value: 2.0 * width * inner,
            asking: 2.0 * width * (inner + mlp),
            attention: 2.0 * inner,
            patches: p.patches as f64,
        }
    }

    /// Frames `fresh..len`, all of which go on from frame `from`.
    fn window(&self, fresh: usize, from: usize, len: usize) -> f64 {
        let key_value = (len - fresh) as f64 * self.key_value;
        let asking = |t: usize| self.asking + self.attention * self.patches * (t + 1) as f64;
        self.patches * (key_value + (from..len).map(asking).sum::<f64>())
    }
}

/// First computed frame and number of frames of every window of a rollout.
fn windows(c: &DinoWmConfig, context: usize, horizon: usize) -> impl Iterator<Item = (usize, usize)> {
    let frames = c.predictor.frames;
    (context..context + horizon).map(move |end| {
        let len = end.min(frames);
        let grown = end > context && end <= frames;
        (if grown { len - 1 } else { (context - 1).saturating_sub(end - len) }, len)
    })
}

/// Tokens that are computed per sample from `context` frames over `horizon` blocks.
#[must_use]
pub fn tokens(c: &DinoWmConfig, context: usize, horizon: usize) -> usize {
    windows(c, context, horizon).map(|(fresh, len)| (len - fresh) * c.predictor.patches).sum()
}

/// Floating-point operations (two per multiply-add) in the matrix products that
/// [`DinoWmPlanner`](super::DinoWmPlanner) executes per sample from `context` frames over `horizon` blocks, attention
/// included.
#[must_use]
pub fn executed_flop(c: &DinoWmConfig, context: usize, horizon: usize) -> f64 {
    let (layer, depth) = (Layer::new(c), c.predictor.depth as f64);
    let one = |(fresh, len)| {
        (depth - 1.0) * layer.window(fresh, fresh, len) + layer.window(fresh, len - 1, len) + layer.change
    };
    2.0 * windows(c, context, horizon).map(one).sum::<f64>()
}

/// As [`executed_flop`], of the plain rollout, in which every frame of every window goes through the whole network.
#[must_use]
pub fn naive_flop(c: &DinoWmConfig, context: usize, horizon: usize) -> f64 {
    let (layer, depth) = (Layer::new(c), c.predictor.depth as f64);
    let one = |(_, len)| depth * layer.window(0, 0, len) + layer.change * len as f64;
    2.0 * windows(c, context, horizon).map(one).sum::<f64>()
}
