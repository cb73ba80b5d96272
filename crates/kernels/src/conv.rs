//! Convolutions of channels-last images and their gradients, without unfolding.
//!
//! A kernel row over a channels-last image is one run of values, so every patch is `kernel` runs that are read
//! where they lie. Three products over such runs make up a layer:
//!
//! * the output: over the runs of a patch, for every place of the kernel;
//! * the weight gradient: over all places, for every value of a patch;
//! * the input gradient: the transposed kernel over the output's gradient. A stride of `s` takes the pixels in
//!   `s * s` phases, each of which meets the same weights everywhere.
//!
//! What a run reads beyond the image lies in a border of zeros, which the caller keeps (see [`Grid`]). Every
//! element is one chain of fused multiply-adds in a fixed order, as in [`crate::gemm`].

mod product;

use product::{Finish, Loop, Nest, Strips, Terms};
use std::cell::RefCell;
use std::ops::Range;

/// A channels-last image `[height, width, channels]` inside a border of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Values of a pixel.
    pub channels: usize,
    /// Pixels of zeros on each side.
    pub border: usize,
}

impl Grid {
    /// Values with the border.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        (self.height + 2 * self.border) * self.pitch()
    }

    /// Where the pixels of row `y` lie, without the border.
    pub fn row(&self, y: usize) -> Range<usize> {
        let start = (y + self.border) * self.pitch() + self.border * self.channels;
        start..start + self.width * self.channels
    }

    /// Distance between rows.
    fn pitch(&self) -> usize {
        (self.width + 2 * self.border) * self.channels
    }

    fn check(&self, name: &str, data: &[f32]) {
        assert_eq!(
            data.len(),
            self.len(),
            "{name}: {} values where {self:?} takes {}",
            data.len(),
            self.len()
        );
    }
}

/// Geometry of a convolution with a square kernel over one image `[height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Rows of the image.
    pub height: usize,
    /// Columns of the image.
    pub width: usize,
    /// Channels of the image.
    pub channels: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Side of the kernel, at least the stride.
    pub kernel: usize,
    /// Step between patches, at least 1.
    pub stride: usize,
    /// Zeros around the image.
    pub pad: usize,
}

/// Weights of a [`Conv2d`], packed for its output.
#[derive(Clone, Debug, Default)]
pub struct Weights(Strips);

/// Weights of a [`Conv2d`], packed for its input gradient.
#[derive(Clone, Debug, Default)]
pub struct Transposed(Vec<Phase>);

/// Input pixels `(y, x)` modulo the stride, and the kernel that the output's gradient meets there.
#[derive(Clone, Debug)]
struct Phase {
    y: usize,
    x: usize,
    rows: Taps,
    columns: Taps,
    weights: Strips,
}

/// Kernel places that reach the pixels of a phase, along one axis: `count` outputs from `first` on, relative to
/// the pixel's number within its phase.
#[derive(Clone, Copy, Debug)]
struct Taps {
    first: isize,
    count: usize,
}

thread_local! {
    /// The packed gradient of an output.
    static PACKED: RefCell<Strips> = RefCell::default();
}

impl Conv2d {
    /// The input as [`Self::forward`] and [`Self::backward_weights`] read it.
    pub fn input(&self) -> Grid {
        let Self { height, width, channels, .. } = *self;
        Grid { height, width, channels, border: self.pad }
    }

    /// The output, with the border that [`Self::backward_input`] reads in its gradient.
    pub fn output(&self) -> Grid {
        let places = |n: usize| (n + 2 * self.pad + self.stride).saturating_sub(self.kernel) / self.stride;
        let reach = (self.kernel - 1).saturating_sub(self.pad).max(self.stride - 1 + self.pad) / self.stride;
        let (height, width) = (places(self.height), places(self.width));
        Grid { height, width, channels: self.outputs, border: reach }
    }

    /// Values that one output reads.
    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    fn check_weights(&self, weight: &[f32]) {
        let need = self.patch() * self.outputs;
        assert_eq!(weight.len(), need, "weight: {} values where {self:?} takes {need}", weight.len());
    }

    /// Packs `weight` `[kernel, kernel, channels, outputs]`.
    ///
    /// # Panics
    /// If `weight` does not fit the geometry.
    pub fn pack(&self, weight: &[f32]) -> Weights {
        self.check_weights(weight);
        let mut strips = Strips::default();
        strips.pack(self.patch(), self.outputs, weight.chunks_exact(self.outputs));
        Weights(strips)
    }

    /// `y = conv(x) + bias`: `x` is the [`Self::input`] with its border, `y` the output without.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn forward(&self, weights: &Weights, bias: &[f32], x: &[f32], y: &mut [f32]) {
        let (input, output) = (self.input(), Grid { border: 0, ..self.output() });
        input.check("x", x);
        output.check("y", y);
        let pitch = input.pitch();
        let nest = Nest {
            y: Loop { count: output.height, a: self.stride * pitch, c: output.pitch() },
            x: Loop { count: output.width, a: self.stride * self.channels, c: self.outputs },
            terms: Terms { runs: self.kernel, jump: pitch, count: self.kernel * self.channels, step: 1 },
        };
        nest.run(x, &weights.0, y, Finish::Bias(bias));
    }

    /// `dw += ` the gradient of the weights: `x` is the input, `dy` the gradient of the output, both with their
    /// borders.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn backward_weights(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let (input, output) = (self.input(), self.output());
        input.check("x", x);
        output.check("dy", dy);
        self.check_weights(dw);
        let (pitch, row) = (input.pitch(), self.kernel * self.channels);
        let nest = Nest {
            y: Loop { count: self.kernel, a: pitch, c: row * self.outputs },
            x: Loop { count: row, a: 1, c: self.outputs },
            terms: Terms {
                runs: output.height,
                jump: self.stride * pitch,
                count: output.width,
                step: self.stride * self.channels,
            },
        };
        let pixels = (0..output.height).flat_map(|y| dy[output.row(y)].chunks_exact(self.outputs));
        PACKED.with_borrow_mut(|packed| {
            packed.pack(output.height * output.width, self.outputs, pixels);
            nest.run(x, packed, dw, Finish::Accumulate);
        });
    }

    /// Packs `weight` `[kernel, kernel, channels, outputs]` for [`Self::backward_input`].
    ///
    /// # Panics
    /// If `weight` does not fit the geometry, or the stride passes over pixels.
    pub fn transpose(&self, weight: &[f32]) -> Transposed {
        self.check_weights(weight);
        assert!(self.kernel >= self.stride, "{self:?} passes over pixels");
        let (c, n) = (self.channels, self.outputs);
        let places = weight.chunks_exact(c * n);
        let turned: Vec<f32> = places.flat_map(|w| (0..c * n).map(move |i| w[i % c * n + i / c])).collect(); // [k, k, N, C]
        let phases = (0..self.stride * self.stride).map(|phase| {
            let (y, x) = (phase / self.stride, phase % self.stride);
            let (rows, columns) = (self.taps(y), self.taps(x));
            let mut weights = Strips::default();
            let order = (0..rows.count).flat_map(|i| (0..columns.count).map(move |j| (i, j)));
            let blocks = order.map(|(i, j)| {
                let place = self.place(y, rows, i) * self.kernel + self.place(x, columns, j);
                &turned[place * n * c..(place + 1) * n * c]
            });
            weights.pack(rows.count * columns.count * n, c, blocks.flat_map(|w| w.chunks_exact(c)));
            Phase { y, x, rows, columns, weights }
        });
        Transposed(phases.collect())
    }

    /// Pixel `s u + phase` is read at place `i` by output `u + o` where `s o = phase + pad - i`, 0 <= i < kernel.
    fn taps(&self, phase: usize) -> Taps {
        let (s, top) = (self.stride as isize, (phase + self.pad) as isize);
        let first = (top - self.kernel as isize + s).div_euclid(s);
        Taps { first, count: (top.div_euclid(s) + 1 - first) as usize }
    }

    /// Kernel place of tap number `tap` of a phase.
    fn place(&self, phase: usize, taps: Taps, tap: usize) -> usize {
        ((phase + self.pad) as isize - self.stride as isize * (taps.first + tap as isize)) as usize
    }

    /// `dx = ` the gradient of the input, without a border: `dy` is the gradient of the output with its border.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn backward_input(&self, weights: &Transposed, dy: &[f32], dx: &mut [f32]) {
        let (input, output) = (Grid { border: 0, ..self.input() }, self.output());
        output.check("dy", dy);
        input.check("dx", dx);
        let (pitch, n) = (output.pitch(), self.outputs);
        for phase in &weights.0 {
            let count = |n: usize, phase: usize| n.saturating_sub(phase).div_ceil(self.stride);
            let (height, width) = (count(self.height, phase.y), count(self.width, phase.x));
            if height == 0 || width == 0 {
                continue;
            }
            let nest = Nest {
                y: Loop { count: height, a: pitch, c: self.stride * input.pitch() },
                x: Loop { count: width, a: n, c: self.stride * self.channels },
                terms: Terms { runs: phase.rows.count, jump: pitch, count: phase.columns.count * n, step: 1 },
            };
            let inside = |first: isize| (output.border as isize + first) as usize;
            let from = inside(phase.rows.first) * pitch + inside(phase.columns.first) * n;
            let to = input.row(phase.y).start + phase.x * self.channels;
            nest.run(&dy[from..], &phase.weights, &mut dx[to..], Finish::Store);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::{same_bits, values};

    const CASES: [Conv2d; 7] = [
        case(16, 16, 32, 48, 3, 1, 1),
        case(5, 7, 3, 20, 3, 1, 1),
        case(8, 10, 5, 33, 3, 2, 1),
        case(7, 9, 4, 64, 3, 2, 1),
        case(6, 4, 7, 16, 2, 2, 0),
        case(8, 12, 3, 40, 4, 4, 0),
        case(9, 9, 2, 3, 5, 2, 2),
    ];

    const fn case(
        height: usize,
        width: usize,
        channels: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
    ) -> Conv2d {
        Conv2d { height, width, channels, outputs, kernel, stride, pad }
    }

    /// `values` inside the grid, zeros in the border.
    fn framed(grid: Grid, values: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; grid.len()];
        for (y, row) in values.chunks_exact(grid.width * grid.channels).enumerate() {
            out[grid.row(y)].copy_from_slice(row);
        }
        out
    }

    fn inner(grid: Grid) -> usize {
        grid.height * grid.width * grid.channels
    }

    /// Calls `f` with the indices (output, input, weight) of every product of the definition.
    fn definition(conv: &Conv2d, mut f: impl FnMut(usize, usize, usize)) {
        let output = conv.output();
        let (k, c, n) = (conv.kernel, conv.channels, conv.outputs);
        for place in 0..output.height * output.width * k * k {
            let (i, j) = (place / k % k, place % k);
            let (y, x) = (place / (k * k) / output.width, place / (k * k) % output.width);
            let (row, column) = (y * conv.stride + i, x * conv.stride + j);
            let inside = |at: usize, n: usize| at >= conv.pad && at < n + conv.pad;
            if inside(row, conv.height) && inside(column, conv.width) {
                let pixel = (row - conv.pad) * conv.width + column - conv.pad;
                for (channel, out) in (0..c).flat_map(|channel| (0..n).map(move |out| (channel, out))) {
                    let weight = ((i * k + j) * c + channel) * n + out;
                    f((y * output.width + x) * n + out, pixel * c + channel, weight);
                }
            }
        }
    }

    fn close(got: &[f32], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (i, (&g, e)) in got.iter().zip(expected).enumerate() {
            assert!((f64::from(g) - e).abs() < 2e-5 * (1.0 + e.abs()), "{i}: {g} against {e}");
        }
    }

    #[test]
    fn forward_follows_the_definition() {
        for conv in CASES {
            let x = values(1, inner(conv.input()));
            let (weight, bias) = (values(2, conv.patch() * conv.outputs), values(3, conv.outputs));
            let mut expected: Vec<f64> =
                (0..inner(conv.output())).map(|i| f64::from(bias[i % conv.outputs])).collect();
            definition(&conv, |y, i, w| expected[y] += f64::from(x[i]) * f64::from(weight[w]));
            let (x, weights) = (framed(conv.input(), &x), conv.pack(&weight));
            close(
                &same_bits(|| {
                    let mut y = vec![f32::NAN; expected.len()];
                    conv.forward(&weights, &bias, &x, &mut y);
                    y
                }),
                &expected,
            );
        }
    }

    #[test]
    fn weight_gradients_follow_the_definition() {
        for conv in CASES {
            let (x, dy) = (values(1, inner(conv.input())), values(2, inner(conv.output())));
            let before = values(3, conv.patch() * conv.outputs);
            let mut expected: Vec<f64> = before.iter().map(|&w| f64::from(w)).collect();
            definition(&conv, |y, i, w| expected[w] += f64::from(x[i]) * f64::from(dy[y]));
            let (x, dy) = (framed(conv.input(), &x), framed(conv.output(), &dy));
            close(
                &same_bits(|| {
                    let mut dw = before.clone();
                    conv.backward_weights(&x, &dy, &mut dw);
                    dw
                }),
                &expected,
            );
        }
    }

    #[test]
    fn input_gradients_follow_the_definition() {
        for conv in CASES {
            let (weight, dy) = (values(1, conv.patch() * conv.outputs), values(2, inner(conv.output())));
            let mut expected = vec![0.0; inner(conv.input())];
            definition(&conv, |y, i, w| expected[i] += f64::from(weight[w]) * f64::from(dy[y]));
            let (dy, weights) = (framed(conv.output(), &dy), conv.transpose(&weight));
            close(
                &same_bits(|| {
                    let mut dx = vec![f32::NAN; expected.len()];
                    conv.backward_input(&weights, &dy, &mut dx);
                    dx
                }),
                &expected,
            );
        }
    }
}
