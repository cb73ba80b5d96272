//! Convolution as a product: patches of a channels-last image as rows.

/// Geometry of a convolution over `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// Height and width of the kernel.
    pub kernel: (usize, usize),
    /// Step between patches, at least 1.
    pub stride: usize,
    /// Zeros around the image.
    pub pad: usize,
}

impl Conv {
    /// Height and width of the output.
    pub fn output(&self) -> (usize, usize) {
        let stride = self.stride.max(1);
        // Places for a kernel of k in n padded pixels: none where it does not fit.
        let places = |n: usize, k: usize| (n + 2 * self.pad + stride).saturating_sub(k) / stride;
        (places(self.height, self.kernel.0), places(self.width, self.kernel.1))
    }

    /// Rows and columns of the patch matrix: `batch * ho * wo` and `kh * kw * channels`.
    pub fn patches(&self) -> (usize, usize) {
        let (ho, wo) = self.output();
        (self.batch * ho * wo, self.kernel.0 * self.kernel.1 * self.channels)
    }

    /// Calls `f` with the patch offset, the image offset and the length of every run of pixels inside the
    /// image, in the order of the patches; without an image offset for what lies in the padding.
    #[inline(always)]
    fn runs(&self, mut f: impl FnMut(usize, Option<usize>, usize)) {
        let ((ho, wo), (kh, kw), c) = (self.output(), self.kernel, self.channels);
        let mut at = 0;
        for (b, y) in (0..self.batch).flat_map(|b| (0..ho).map(move |y| (b, y))) {
            for x in 0..wo {
                // The kernel's columns that lie inside the image.
                let left = x * self.stride;
                let first = self.pad.saturating_sub(left).min(kw);
                let last = (self.width + self.pad).saturating_sub(left).clamp(first, kw);
                for i in 0..kh {
                    let row = (y * self.stride + i).wrapping_sub(self.pad);
                    if row >= self.height || first == last {
                        f(at, None, kw * c);
                    } else {
                        let column = left + first - self.pad;
                        let pixel = ((b * self.height + row) * self.width + column) * c;
                        f(at, None, first * c);
                        f(at + first * c, Some(pixel), (last - first) * c);
                        f(at + last * c, None, (kw - last) * c);
                    }
                    at += kw * c;
                }
            }
        }
    }

    fn check(&self, image: usize, patches: usize) {
        let need = self.batch * self.height * self.width * self.channels;
        assert_eq!(image, need, "image: {image} values where {self:?} takes {need}");
        let (rows, columns) = self.patches();
        assert_eq!(
            patches,
            rows * columns,
            "patches: {patches} values where {self:?} takes [{rows}, {columns}]"
        );
    }
}

/// Writes the patches of `input` `[batch, height, width, channels]` as rows of `out`
/// `[batch * ho * wo, kh * kw * channels]`; padding gives 0.
///
/// # Panics
/// If a slice does not fit the geometry.
pub fn im2col_nhwc(conv: &Conv, input: &[f32], out: &mut [f32]) {
    conv.check(input.len(), out.len());
    conv.runs(|at, pixel, n| match pixel {
        Some(pixel) => out[at..at + n].copy_from_slice(&input[pixel..pixel + n]),
        None => out[at..at + n].fill(0.0),
    });
}

/// The adjoint of [`im2col_nhwc`]: every pixel of `out` becomes the sum, in the order of the patches, of its
/// places in `patches`.
///
/// # Panics
/// If a slice does not fit the geometry.
pub fn col2im_nhwc(conv: &Conv, patches: &[f32], out: &mut [f32]) {
    conv.check(out.len(), patches.len());
    out.fill(0.0);
    conv.runs(|at, pixel, n| {
        if let Some(pixel) = pixel {
            for (y, x) in out[pixel..pixel + n].iter_mut().zip(&patches[at..at + n]) {
                *y += x;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::values;

    #[test]
    fn patches_follow_the_definition_and_have_their_adjoint() {
        for (kernel, stride, pad) in
            [((3, 3), 1, 1), ((4, 2), 2, 0), ((3, 3), 2, 1), ((5, 5), 3, 2), ((9, 9), 1, 0)]
        {
            let conv = Conv { batch: 2, height: 7, width: 6, channels: 3, kernel, stride, pad };
            let (rows, columns) = conv.patches();
            let (x, p) = (values(1, 2 * 7 * 6 * 3), values(2, rows * columns));
            let (mut out, mut back) = (vec![f32::NAN; rows * columns], vec![0.0; x.len()]);
            im2col_nhwc(&conv, &x, &mut out);
            col2im_nhwc(&conv, &p, &mut back);
            let (ho, wo) = conv.output();
            for (at, &got) in out.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let (b, y, xo) = (row / (ho * wo), row / wo % ho, row % wo);
                let (i, j, c) = (column / (kernel.1 * 3), column / 3 % kernel.1, column % 3);
                let (r, q) = (y * stride + i, xo * stride + j);
                let inside = r >= pad && r < 7 + pad && q >= pad && q < 6 + pad;
                let expected = if inside { x[((b * 7 + r - pad) * 6 + q - pad) * 3 + c] } else { 0.0 };
                assert_eq!(got, expected);
            }
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            assert!((dot(&out, &p) - dot(&x, &back)).abs() < 1e-4);
        }
    }
}
