//! DINOv2's position table at another resolution: bicubic interpolation as PyTorch does it, without antialiasing.
//!
//! Cubic convolution (Keys 1981) with a = -0.75. The library of the published weights gives PyTorch the size of the
//! result; the older hub code gives it a scale, `(n + 0.1) / M`, and so samples slightly other places.

use serde::{Deserialize, Serialize};

/// How the position table meets another resolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Step `M / n` between samples, as in `transformers`.
    #[default]
    Size,
    /// Step `M / (n + 0.1)`, as in the hub code that the original DINO-WM loads.
    Scale,
}

impl Positions {
    fn step(self, table: usize, wanted: usize) -> f64 {
        let offset = if self == Self::Scale { 0.1 } else { 0.0 };
        table as f64 / (wanted as f64 + offset)
    }
}

const A: f64 = -0.75;

/// Weight of a tap at distance `d`.
fn cubic(d: f64) -> f64 {
    let d = d.abs();
    if d <= 1.0 {
        ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A
    } else {
        0.0
    }
}

/// The four taps of each of `wanted` samples along an axis of `table` places; places beyond the ends are the ends.
fn taps(table: usize, wanted: usize, step: f64) -> Vec<[(usize, f64); 4]> {
    let sample = |i: usize| {
        let source = (i as f64 + 0.5) * step - 0.5;
        let floor = source.floor();
        [-1.0, 0.0, 1.0, 2.0].map(|k| {
            let place = (floor + k).clamp(0.0, (table - 1) as f64) as usize;
            (place, cubic(source - floor - k))
        })
    };
    (0..wanted).map(sample).collect()
}

/// The table `[M, M, D]` at `rows x columns` places, `[rows * columns, D]`; sums in f64.
pub(super) fn interpolate(
    table: &[f32],
    (side, width): (usize, usize),
    (rows, columns): (usize, usize),
    positions: Positions,
) -> Vec<f32> {
    if (rows, columns) == (side, side) {
        return table.to_vec();
    }
    let across = taps(side, columns, positions.step(side, columns));
    let mut out = Vec::with_capacity(rows * columns * width);
    let mut sums = vec![0.0; width];
    for down in taps(side, rows, positions.step(side, rows)) {
        for across in &across {
            sums.fill(0.0);
            for ((y, wy), (x, wx)) in down.iter().flat_map(|&d| across.iter().map(move |&a| (d, a))) {
                let place = &table[(y * side + x) * width..][..width];
                sums.iter_mut().zip(place).for_each(|(sum, &v)| *sum += wy * wx * f64::from(v));
            }
            out.extend(sums.iter().map(|&sum| sum as f32));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<f32> {
        (0..37 * 37)
            .map(|n| ((0.3 * (n / 37) as f64).sin() + 0.01 * (n / 37 * (n % 37)) as f64) as f32)
            .collect()
    }

    /// Values computed with PyTorch.
    #[test]
    fn both_ways_meet_pytorch() {
        let found = |n: usize, positions| interpolate(&table(), (37, 1), (n, n), positions);
        let (size, scale) = (found(16, Positions::Size), found(14, Positions::Scale));
        for (found, expected) in [
            (size[0], 0.172431),
            (size[15], 0.368718),
            (size[7 * 16 + 8], 2.277293),
            (size[15 * 16], -0.733223),
            (size[255], 11.625242),
            (scale[0], 0.227520),
            (scale[7 * 14 + 8], 3.689702),
            (scale[195], 11.312421),
        ] {
            assert!((found - expected).abs() < 2e-6 * (1.0 + expected.abs()), "{found} against {expected}");
        }
    }

    #[test]
    fn the_own_resolution_is_left_alone() {
        for positions in [Positions::Size, Positions::Scale] {
            assert_eq!(interpolate(&table(), (37, 1), (37, 37), positions), table());
        }
    }
}
