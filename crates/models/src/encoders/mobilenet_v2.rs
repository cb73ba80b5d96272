//! MobileNetV2 1.0 (Sandler et al. 2018) as a frozen encoder: inverted residual blocks of expansion, depthwise
//! convolution and linear projection, with batch normalisation folded into the convolutions.
//!
//! Reads the keys of torchvision and timm (padding 1, ImageNet normalisation) and of a dequantised TensorFlow file
//! (`00_conv`, `01_dw`, ...: SAME padding, input x / 127.5 - 1). Tokens are the pixels of a feature map.

mod weights;

use serde::{Deserialize, Serialize};
use worldbench_kernels::conv::{Conv2d, Weights};
use worldbench_kernels::depthwise::Depthwise;
use worldbench_kernels::gemm::Activation;
use worldbench_kernels::{Buffer, par_rows_mut};

use super::{Error, FrozenEncoder, Pool, check_frames};
use crate::planning::encoder::{IMAGE_MEAN, IMAGE_STD};
use crate::planning::weights::Dense;
use crate::state_dict::StateDict;
use weights::{Convolutions, Layout};

/// Which feature map the tokens are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// The last bottleneck at stride 32: 7 x 7 tokens of 320 for 224 pixels.
    #[default]
    Coarse,
    /// The last 96-channel bottleneck at stride 16: 14 x 14 tokens of 96 for 224 pixels.
    Fine,
}

impl Grid {
    fn stride(self) -> usize {
        if self == Self::Coarse { 32 } else { 16 }
    }

    /// Blocks that run.
    fn blocks(self) -> usize {
        if self == Self::Coarse { 17 } else { 13 }
    }
}

/// Expansion, output channels and stride of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    inputs: usize,
    hidden: usize,
    outputs: usize,
    stride: usize,
    /// Stage and place in it, as timm counts.
    place: (usize, usize),
}

const STEM: usize = 32;

/// The 17 blocks.
fn blocks() -> Vec<Shape> {
    // Expansion, channels, repeats, stride of the first.
    const STAGES: [(usize, usize, usize, usize); 7] = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ];
    let mut inputs = STEM;
    let mut all = Vec::new();
    for (stage, (expansion, outputs, repeats, first)) in STAGES.into_iter().enumerate() {
        for i in 0..repeats {
            let stride = if i == 0 { first } else { 1 };
            all.push(Shape { inputs, hidden: expansion * inputs, outputs, stride, place: (stage, i) });
            inputs = outputs;
        }
    }
    all
}

#[derive(Debug)]
struct Block {
    expand: Option<Dense>,
    depthwise: Depthwise,
    /// `[3, 3, C]` and `[C]`.
    kernel: (Vec<f32>, Vec<f32>),
    project: Dense,
    residual: bool,
}

/// Feature maps of one frame, channels last.
#[derive(Debug, Default)]
struct Scratch {
    input: Buffer,
    x: Buffer,
    expanded: Buffer,
    filtered: Buffer,
}

impl Block {
    /// Turns `x` `[pixels, inputs]` into `[pixels', outputs]`.
    fn forward(&self, s: &mut Scratch) {
        let d = &self.depthwise;
        let (pixels, (rows, columns)) = (d.height * d.width, d.output());
        let places = rows * columns;
        let filtered = s.filtered.reserve(places * d.channels);
        let (weight, bias) = (&self.kernel.0, &self.kernel.1);
        if let Some(expand) = &self.expand {
            let expanded = s.expanded.reserve(pixels * d.channels);
            expand.apply(pixels, &s.x[..pixels * expand.inputs()], expanded, Activation::Relu6);
            d.forward_relu6(weight, bias, expanded, filtered);
        } else {
            d.forward_relu6(weight, bias, &s.x[..pixels * d.channels], filtered);
        }
        let epilogue = self.project.epilogue(Activation::Identity);
        let epilogue = if self.residual { epilogue.add() } else { epilogue };
        let outputs = self.project.outputs();
        let x = s.x.reserve(places * outputs);
        self.project.run(places, (filtered, d.channels), (x, outputs), epilogue);
    }
}

/// A MobileNetV2 made ready for inference.
#[derive(Debug)]
pub struct MobileNetV2 {
    side: usize,
    grid: Grid,
    layout: Layout,
    stem: Conv2d,
    stem_weights: Weights,
    stem_bias: Vec<f32>,
    blocks: Vec<Block>,
    report: String,
    fingerprint: String,
    pool: Pool<Scratch>,
}

impl MobileNetV2 {
    /// Folds and packs the weights for frames of `side` pixels, a multiple of 32.
    ///
    /// # Errors
    /// The weights do not fit; every missing, misshapen and unexpected key is named. `side` is no multiple of 32.
    pub fn new(side: usize, grid: Grid, weights: StateDict) -> Result<Self, Error> {
        if side == 0 || !side.is_multiple_of(32) {
            let near = (side / 32).max(1) * 32;
            let problem = format!("MobileNetV2 takes frames of a multiple of 32 pixels, not {side}");
            return Err(Error::Config(format!("{problem}; take {near}")));
        }
        let shapes = blocks();
        let convolutions = Convolutions::new(&shapes, weights)?;
        let (layout, report) = (convolutions.layout, convolutions.report.clone());
        let (weight, stem_bias) = convolutions.folded(0);
        let mut all = convolutions.after_stem();
        let stem = Conv2d {
            height: side + 1,
            width: side + 1,
            channels: 3,
            outputs: STEM,
            kernel: 3,
            stride: 2,
            pad: 0,
        };
        let turned: Vec<f32> =
            (0..weight.len()).map(|i| weight[i % STEM * 27 + i / STEM % 3 * 9 + i / (3 * STEM)]).collect(); // [3, 3, 3 (channels), 32]
        let mut pixels = side / 2;
        let mut built = Vec::new();
        for shape in &shapes[..grid.blocks()] {
            built.push(Block::new(shape, pixels, layout, &mut all));
            pixels /= shape.stride;
        }
        Ok(Self {
            side,
            grid,
            layout,
            stem,
            stem_weights: stem.pack(&turned),
            stem_bias,
            blocks: built,
            report,
            fingerprint: convolutions.digest(&format!("mobilenet_v2 {layout:?} {grid:?} {side}")),
            pool: Pool::default(),
        })
    }

    /// How many tensors the weights gave, as in `104/104 tensors`.
    #[must_use]
    pub fn report(&self) -> &str {
        &self.report
    }

    /// Leaves the last feature map in `s.x`.
    fn forward(&self, frame: &[u8], s: &mut Scratch) {
        let (side, before) = (self.side, self.layout.before(2));
        let pitch = 3 * (side + 1);
        let input = s.input.reserve(pitch * (side + 1));
        // Only the zero row and column move, and they never change.
        for (y, row) in frame.chunks_exact(3 * side).enumerate() {
            let out = &mut input[(y + before) * pitch + 3 * before..][..3 * side];
            for (out, pixel) in out.chunks_exact_mut(3).zip(row.chunks_exact(3)) {
                for (c, (out, &byte)) in out.iter_mut().zip(pixel).enumerate() {
                    *out = self.layout.normalised(byte, c);
                }
            }
        }
        let x = s.x.reserve(side / 2 * (side / 2) * STEM);
        self.stem.forward(&self.stem_weights, &self.stem_bias, input, x);
        x.iter_mut().for_each(|x| *x = x.clamp(0.0, 6.0));
        self.blocks.iter().for_each(|block| block.forward(s));
    }
}

impl Block {
    /// The next convolutions of `all`, on a map of `pixels` a side.
    fn new(
        shape: &Shape,
        pixels: usize,
        layout: Layout,
        all: &mut impl Iterator<Item = (Vec<f32>, Vec<f32>)>,
    ) -> Self {
        let Shape { inputs, hidden, outputs, stride, .. } = *shape;
        let mut next = || all.next().unwrap_or_default();
        let mut dense = |inputs, outputs| {
            let (weight, bias) = next();
            Dense::from_parts(&weight, Some(bias), inputs, outputs)
        };
        let expand = (hidden != inputs).then(|| dense(inputs, hidden));
        let before = layout.before(stride);
        let depthwise = Depthwise { height: pixels, width: pixels, channels: hidden, stride, before };
        let (weight, bias) = next();
        let turned = (0..9 * hidden).map(|i| weight[i % hidden * 9 + i / hidden]).collect(); // [3, 3, C]
        let project = {
            let (weight, bias) = next();
            Dense::from_parts(&weight, Some(bias), hidden, outputs)
        };
        let residual = stride == 1 && inputs == outputs;
        Self { expand, depthwise, kernel: (turned, bias), project, residual }
    }
}

impl FrozenEncoder for MobileNetV2 {
    fn name(&self) -> &str {
        "mobilenet_v2"
    }

    fn image_size(&self) -> usize {
        self.side
    }

    fn tokens(&self) -> usize {
        (self.side / self.grid.stride()).pow(2)
    }

    fn width(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.project.outputs())
    }

    fn encode(&self, frames: &[&[u8]], out: &mut [f32]) -> Result<(), Error> {
        check_frames(self, frames, out)?;
        let stride = self.tokens() * self.width();
        par_rows_mut(out, frames.len(), stride, |rows, out| {
            self.pool.with(|scratch| {
                for (i, out) in rows.zip(out.chunks_exact_mut(stride)) {
                    self.forward(frames[i], scratch);
                    out.copy_from_slice(&scratch.x[..stride]);
                }
            });
        });
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
