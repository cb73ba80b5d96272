//! Scaling of the canvas to the observation, restricted to the dirty columns of each row.
//!
//! `Linear` reproduces OpenCV's 8-bit bilinear resize (11-bit weights, no low-pass filter), which is what the published
//! Push-T data were made with. `Area` averages all canvas pixels under an output pixel, so that a small image still
//! shows sub-pixel motion. Both use integers only.

use super::canvas::{Canvas, Columns, Pixel, RGB_MASK, unpack};

/// How the canvas is reduced to the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Point bilinear as in the reference environment.
    #[default]
    Linear,
    /// Exact box average, rounded to nearest (halves up).
    Area,
}

/// Bits of one bilinear weight.
const WEIGHT_BITS: u32 = 11;

/// Largest side of a box whose per-channel pixel sum fits 16 bits.
const MAX_PACKED_SIDE: usize = 16;

/// Two neighbouring canvas coordinates and their weights (sum 2048).
#[derive(Clone, Copy, Debug)]
struct Tap {
    index: [u16; 2],
    weight: [u32; 2],
}

#[derive(Clone, Debug)]
enum Kernel {
    Linear(Vec<Tap>),
    /// The canvas as it is.
    Copy,
    /// Boxes of `side` x `side` whole pixels, a power of two; sums of red and blue (16 bits each) and of green for each column.
    Box {
        side: usize,
        red_blue: Vec<u32>,
        green: Vec<u32>,
    },
    /// Boxes that cut pixels; weighted sums of the three channels for each column, 21 bits each.
    Weighted {
        sums: Vec<u64>,
    },
}

/// Brings a canvas to `resolution` x `resolution` RGB bytes.
#[derive(Clone, Debug)]
pub(super) struct Resampler<const N: usize> {
    resolution: usize,
    kernel: Kernel,
    /// Canvas coordinates under each output coordinate; both axes are alike.
    windows: Vec<Columns>,
    /// Output coordinates that each canvas coordinate reaches.
    reach: Vec<Columns>,
}

impl<const N: usize> Resampler<N> {
    pub fn new(resolution: usize, filter: Filter) -> Self {
        let (kernel, windows) = match filter {
            _ if resolution == N => (Kernel::Copy, (0..N).map(|k| area_window::<N>(k, N)).collect()),
            Filter::Linear => {
                let taps: Vec<Tap> = (0..resolution).map(|k| linear_tap::<N>(k, resolution)).collect();
                let window = |tap: &Tap| Columns { start: tap.index[0], end: tap.index[1] + 1 };
                let windows = taps.iter().map(window).collect::<Vec<_>>();
                (Kernel::Linear(taps), windows)
            }
            Filter::Area => {
                let windows = (0..resolution).map(|k| area_window::<N>(k, resolution)).collect();
                (area_kernel::<N>(resolution), windows)
            }
        };
        let mut reach = vec![Columns::EMPTY; N];
        for (k, window) in windows.iter().enumerate() {
            for column in &mut reach[window.range()] {
                *column = column.union(Columns { start: k as u16, end: k as u16 + 1 });
            }
        }
        Self { resolution, kernel, windows, reach }
    }

    /// Recomputes the output pixels that depend on the `dirty` canvas pixels (one range for each canvas row) and
    /// stores their columns in `written` (one range for each output row). `out`: `[resolution, resolution, 3]`.
    pub fn run(&mut self, canvas: &Canvas<N>, dirty: &[Columns], out: &mut [u8], written: &mut [Columns]) {
        let rows = out.chunks_exact_mut(self.resolution * 3).zip(written);
        for (k, (out, written)) in rows.enumerate() {
            let window = self.windows[k].range();
            let dirty = dirty[window].iter().fold(Columns::EMPTY, |all, &row| all.union(row));
            *written = if dirty.is_empty() { Columns::EMPTY } else { self.reached(dirty) };
            if !written.is_empty() {
                let range = written.range();
                self.row(canvas, k, *written, &mut out[range.start * 3..range.end * 3]);
            }
        }
    }

    /// Output columns that depend on the canvas columns `dirty`, which are not empty.
    fn reached(&self, dirty: Columns) -> Columns {
        // Point bilinear skips canvas columns, so the ends of the range may reach nothing themselves.
        self.reach[dirty.range()]
            .iter()
            .find(|r| !r.is_empty())
            .zip(self.reach[dirty.range()].iter().rfind(|r| !r.is_empty()))
            .map_or(Columns::EMPTY, |(first, last)| first.union(*last))
    }

    fn row(&mut self, canvas: &Canvas<N>, k: usize, columns: Columns, out: &mut [u8]) {
        let windows = &self.windows[columns.range()];
        match &mut self.kernel {
            Kernel::Copy => {
                let row = &canvas.row(k)[columns.range()];
                row.iter().zip(out.chunks_exact_mut(3)).for_each(|(&p, out)| out.copy_from_slice(&unpack(p)));
            }
            Kernel::Linear(taps) => linear_row(canvas, taps[k], &taps[columns.range()], out),
            Kernel::Box { side, red_blue, green } => {
                let side = *side;
                let range = columns.range().start * side..columns.range().end * side;
                let (red_blue, green) = (&mut red_blue[range.clone()], &mut green[range.clone()]);
                red_blue.fill(0);
                green.fill(0);
                for y in k * side..(k + 1) * side {
                    let row = &canvas.row(y)[range.clone()];
                    for ((rb, g), &pixel) in red_blue.iter_mut().zip(green.iter_mut()).zip(row) {
                        *rb += pixel & 0x00ff_00ff;
                        *g += pixel >> 8 & 0xff;
                    }
                }
                box_row(side, red_blue, green, out);
            }
            Kernel::Weighted { sums } => {
                let range = usize::from(windows[0].start)..usize::from(windows[windows.len() - 1].end);
                sums[range.clone()].fill(0);
                for y in self.windows[k].range() {
                    let weight = overlap::<N>(k, y, self.resolution);
                    for (sum, &pixel) in sums[range.clone()].iter_mut().zip(&canvas.row(y)[range.clone()]) {
                        *sum += u64::from(weight) * spread(pixel);
                    }
                }
                weighted_row::<N>(sums, columns, windows, self.resolution, out);
            }
        }
    }
}

/// Canvas position of output coordinate `k`, with weights in units of 2^-11.
fn linear_tap<const N: usize>(k: usize, resolution: usize) -> Tap {
    let position = ((k as f64 + 0.5) * (N as f64 / resolution as f64) - 0.5) as f32;
    let floor = position.floor();
    let last = N as i32 - 1;
    let (index, t) = match floor as i32 {
        i if i < 0 => (0, 0.0),
        i if i >= last => (last, 0.0),
        i => (i, position - floor),
    };
    let weight = |t: f32| (t * (1 << WEIGHT_BITS) as f32).round_ties_even() as u32;
    Tap { index: [index as u16, (index + 1).min(last) as u16], weight: [weight(1.0 - t), weight(t)] }
}

fn linear_row<const N: usize>(canvas: &Canvas<N>, y: Tap, taps: &[Tap], out: &mut [u8]) {
    let top = canvas.row(usize::from(y.index[0]));
    let bottom = canvas.row(usize::from(y.index[1]));
    for (tap, out) in taps.iter().zip(out.chunks_exact_mut(3)) {
        let [x0, x1] = tap.index.map(|x| usize::from(x) % N);
        let quad = [top[x0], top[x1], bottom[x0], bottom[x1]];
        // The weights of an axis add up to 2048 and the truncations below lose less than the final rounding gains, so
        // equal pixels give that pixel.
        let flat = quad[0] == quad[1] && quad[2] == quad[3] && quad[0] == quad[2];
        let pixel = if flat { unpack(quad[0]) } else { bilinear(quad, tap.weight, y.weight) };
        out.copy_from_slice(&pixel);
    }
}

/// The 8-bit bilinear mix, in OpenCV's order of shifts.
fn bilinear(quad: [Pixel; 4], wx: [u32; 2], wy: [u32; 2]) -> [u8; 3] {
    let quad = quad.map(unpack);
    std::array::from_fn(|c| {
        let [a, b, below_a, below_b] = quad.map(|pixel| u32::from(pixel[c]));
        let top = (wy[0] * ((wx[0] * a + wx[1] * b) >> 4)) >> 16;
        let bottom = (wy[1] * ((wx[0] * below_a + wx[1] * below_b) >> 4)) >> 16;
        ((top + bottom + 2) >> 2) as u8
    })
}

fn area_kernel<const N: usize>(resolution: usize) -> Kernel {
    let side = N / resolution;
    if N.is_multiple_of(resolution) && side.is_power_of_two() && side <= MAX_PACKED_SIDE {
        Kernel::Box { side, red_blue: vec![0; N], green: vec![0; N] }
    } else {
        Kernel::Weighted { sums: vec![0; N] }
    }
}

fn area_window<const N: usize>(k: usize, resolution: usize) -> Columns {
    let start = k * N / resolution;
    let end = ((k + 1) * N).div_ceil(resolution);
    Columns { start: start as u16, end: end as u16 }
}

/// Length of canvas pixel `x` under output pixel `k` in units of `1 / resolution`; the sum over `x` is `N`.
fn overlap<const N: usize>(k: usize, x: usize, resolution: usize) -> u32 {
    let start = (k * N).max(x * resolution);
    let end = ((k + 1) * N).min((x + 1) * resolution);
    (end - start) as u32
}

fn box_row(side: usize, red_blue: &[u32], green: &[u32], out: &mut [u8]) {
    let shift = 2 * side.ilog2();
    let mean = |sum: u32| ((sum + (1 << shift >> 1)) >> shift) as u8;
    let boxes = red_blue.chunks_exact(side).zip(green.chunks_exact(side));
    for ((red_blue, green), out) in boxes.zip(out.chunks_exact_mut(3)) {
        let red_blue: u32 = red_blue.iter().sum();
        out.copy_from_slice(&[mean(red_blue & 0xffff), mean(green.iter().sum()), mean(red_blue >> 16)]);
    }
}

/// The channels of a pixel at bits 0, 21 and 42.
fn spread(pixel: Pixel) -> u64 {
    let pixel = u64::from(pixel & RGB_MASK);
    pixel & 0xff | (pixel & 0xff00) << 13 | (pixel & 0x00ff_0000) << 26
}

fn weighted_row<const N: usize>(
    sums: &[u64],
    columns: Columns,
    windows: &[Columns],
    resolution: usize,
    out: &mut [u8],
) {
    // Constant, so that the division below is a shift or a multiplication.
    let area = (N * N) as u32;
    for ((k, window), out) in columns.range().zip(windows).zip(out.chunks_exact_mut(3)) {
        let mut total = [area / 2; 3];
        for x in window.range() {
            let weight = overlap::<N>(k, x, resolution);
            for (channel, total) in total.iter_mut().enumerate() {
                *total += weight * (sums[x] >> (21 * channel) & 0x1f_ffff) as u32;
            }
        }
        out.copy_from_slice(&total.map(|sum| (sum / area) as u8));
    }
}
