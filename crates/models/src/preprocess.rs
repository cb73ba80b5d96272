//! How frames of any size become the input of an encoder (torchvision's transforms and Pillow's resize).
//!
//! Both resizes are the separable triangle filter, widened by the scale where they shrink. torchvision works on
//! normalised floats; Pillow rounds to bytes after each axis. Filter coordinates are in f64; torch computes them in
//! f32, which costs it up to 5e-5 of the result.

use std::ops::Range;

use crate::planning::{IMAGE_MEAN, IMAGE_STD};

/// Bits of Pillow's fixed-point coefficients.
const PILLOW_BITS: u32 = 22;

/// A channel-first image of normalised values.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values `[3, height, width]`.
    pub values: Vec<f32>,
}

/// The pixels under one output pixel along an axis, and their weights, which sum to 1.
struct Window {
    start: usize,
    weights: Vec<f64>,
}

impl Window {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.weights.len()
    }
}

/// Windows of the triangle filter from `from` to `to` pixels.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let window = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |j: usize| (1.0 - ((j as f64 - center + 0.5) / support).abs()).max(0.0);
        let sum: f64 = (start..end).map(weight).sum();
        Window { start, weights: (start..end).map(|j| weight(j) / sum).collect() }
    };
    (0..to).map(window).collect()
}

/// ImageNet normalisation of an RGB frame `[height, width, 3]`, then a resize of the shorter side to `side`, bilinear
/// with antialiasing; the longer side is cut down to whole pixels. A frame of that size keeps its pixels.
///
/// # Panics
/// If `frame` is not `height * width * 3` bytes, or a size is 0.
#[must_use]
pub fn normalise_and_resize(frame: &[u8], (height, width): (usize, usize), side: usize) -> Image {
    check(frame, (height, width), (side, side));
    let short = height.min(width);
    let (to_height, to_width) = (side * height / short, side * width / short);
    let mut values = Vec::with_capacity(3 * to_height * to_width);
    let (rows, columns) = (windows(height, to_height), windows(width, to_width));
    for c in 0..3 {
        let at = |y: usize, x: usize| {
            f64::from((f32::from(frame[(y * width + x) * 3 + c]) / 255.0 - IMAGE_MEAN[c]) / IMAGE_STD[c])
        };
        let sum = |y: usize, window: &Window| {
            window.range().zip(&window.weights).map(|(x, w)| w * at(y, x)).sum::<f64>()
        };
        let wide: Vec<f64> =
            (0..height).flat_map(|y| columns.iter().map(move |window| sum(y, window))).collect(); // [height, to_width]
        for window in &rows {
            let taps = || window.range().zip(&window.weights);
            values.extend(
                (0..to_width).map(|x| taps().map(|(y, w)| w * wide[y * to_width + x]).sum::<f64>() as f32),
            );
        }
    }
    Image { height: to_height, width: to_width, values }
}

/// Pillow's `BILINEAR` resize of an RGB frame `[height, width, 3]` to `to` (rows, columns).
///
/// Square frames come out equal to the byte. For others Pillow chooses the order of the axes; the rule here, columns
/// last where that leaves less work, holds for most shapes, and else costs at most 1 in a byte.
///
/// # Panics
/// If `frame` is not `height * width * 3` bytes, or a size is 0.
#[must_use]
pub fn pillow_bilinear(frame: &[u8], (height, width): (usize, usize), to: (usize, usize)) -> Vec<u8> {
    check(frame, (height, width), to);
    if to.0 < height && to.0 * width < height * to.1 {
        let tall = pillow_rows(frame, (height, width), to.0);
        pillow_columns(&tall, width, to.1)
    } else {
        let wide = pillow_columns(frame, width, to.1);
        pillow_rows(&wide, (height, to.1), to.0)
    }
}

fn check(frame: &[u8], (height, width): (usize, usize), to: (usize, usize)) {
    assert!(height * width * to.0 * to.1 > 0, "a frame without pixels");
    assert_eq!(frame.len(), height * width * 3, "bytes of a frame {height} x {width}");
}

/// Windows with Pillow's fixed-point weights; `None` where the size stays.
fn pillow_windows(from: usize, to: usize) -> Option<Vec<(usize, Vec<i64>)>> {
    let fixed = |w: &f64| (0.5 + w * f64::from(1 << PILLOW_BITS)) as i64;
    let all = || windows(from, to).into_iter();
    (from != to).then(|| all().map(|w| (w.start, w.weights.iter().map(fixed).collect())).collect())
}

fn pillow_byte(sum: i64) -> u8 {
    ((sum + (1 << (PILLOW_BITS - 1))) >> PILLOW_BITS).clamp(0, 255) as u8
}

fn pillow_columns(frame: &[u8], width: usize, to: usize) -> Vec<u8> {
    let Some(windows) = pillow_windows(width, to) else { return frame.to_vec() };
    let mut out = Vec::with_capacity(frame.len() / width * to);
    for row in frame.chunks_exact(width * 3) {
        for (start, weights) in &windows {
            let pixels = row[start * 3..].chunks_exact(3).zip(weights);
            let sum = |c: usize| pixels.clone().map(|(p, w)| i64::from(p[c]) * w).sum();
            out.extend([0, 1, 2].map(|c| pillow_byte(sum(c))));
        }
    }
    out
}

fn pillow_rows(frame: &[u8], (height, width): (usize, usize), to: usize) -> Vec<u8> {
    let Some(windows) = pillow_windows(height, to) else { return frame.to_vec() };
    let pitch = width * 3;
    let mut out = Vec::with_capacity(to * pitch);
    for (start, weights) in &windows {
        let taps = weights.iter().enumerate();
        let sum = |x: usize| taps.clone().map(|(y, w)| i64::from(frame[(start + y) * pitch + x]) * w).sum();
        out.extend((0..pitch).map(|x| pillow_byte(sum(x))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame of the recorded values: byte `i` is `(37 i + i * i / 5) % 256`.
    fn frame(height: usize, width: usize) -> Vec<u8> {
        (0..height * width * 3).map(|i| ((37 * i + i * i / 5) % 256) as u8).collect()
    }

    #[test]
    fn a_frame_of_the_right_size_is_only_normalised() {
        let image = normalise_and_resize(&frame(4, 4), (4, 4), 4);
        assert_eq!((image.height, image.width), (4, 4));
        for (i, &value) in image.values.iter().enumerate() {
            let (c, pixel) = (i / 16, i % 16);
            let byte = f32::from(frame(4, 4)[pixel * 3 + c]);
            assert_eq!(value, (byte / 255.0 - IMAGE_MEAN[c]) / IMAGE_STD[c]);
        }
    }

    /// Recorded with Pillow 13: `Image.frombytes("RGB", (w, h), frame).resize((3, 3), Image.BILINEAR)`.
    #[test]
    fn pillow_is_met() {
        let recorded: [((usize, usize), [u8; 27]); 4] = [
            (
                (12, 12),
                [
                    119, 128, 122, 131, 139, 121, 153, 100, 134, 116, 126, 101, 135, 131, 113, 141, 136, 128,
                    134, 118, 108, 140, 131, 114, 140, 155, 123,
                ],
            ),
            (
                (2, 2),
                [
                    0, 37, 74, 56, 94, 132, 112, 151, 190, 115, 25, 63, 109, 84, 123, 103, 143, 183, 229, 12,
                    52, 161, 73, 114, 93, 134, 175,
                ],
            ),
            (
                (9, 6),
                [
                    130, 72, 119, 136, 101, 143, 125, 135, 104, 98, 116, 167, 123, 113, 140, 173, 150, 84,
                    119, 164, 123, 147, 136, 93, 186, 121, 112,
                ],
            ),
            (
                (6, 9),
                [
                    99, 104, 124, 147, 87, 116, 129, 127, 135, 134, 132, 106, 125, 140, 143, 137, 118, 143,
                    175, 127, 107, 105, 177, 115, 156, 161, 88,
                ],
            ),
        ];
        for (size, expected) in recorded {
            let found = pillow_bilinear(&frame(size.0, size.1), size, (3, 3));
            // Which pass Pillow takes first is known for square frames only.
            let allowed = u8::from(size.0 != size.1);
            let near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= allowed);
            assert!(near && found.len() == expected.len(), "{size:?}: {found:?} for {expected:?}");
        }
    }

    #[test]
    fn the_longer_side_is_cut_to_whole_pixels() {
        let image = normalise_and_resize(&frame(30, 26), (30, 26), 22);
        assert_eq!((image.height, image.width, image.values.len()), (25, 22, 3 * 25 * 22));
    }

    #[test]
    #[should_panic(expected = "bytes of a frame 2 x 2")]
    fn a_short_frame_is_refused() {
        let _ = normalise_and_resize(&[0; 3], (2, 2), 4);
    }
}
