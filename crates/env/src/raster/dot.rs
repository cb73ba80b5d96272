//! Soft dots: a Gaussian bump blended over the canvas.
//!
//! The blend covers the whole canvas in principle, and truncation to whole grey levels makes pixels flicker between
//! 254 and 255 far from the centre, so the reach of a dot is not a matter of taste: it ends where f32 arithmetic can no
//! longer change a pixel.

use super::canvas::{Canvas, pack, unpack};

/// Weights at or below 2^-25 change nothing: `1 - w` is 1 in f32 and `255 w` is lost in truncation. In units of the
/// exponent, `25 ln 2 = 17.33`, with a margin for rounding.
const REACH: f32 = 17.5;

/// One coordinate of a dot: for each pixel the squared distance from the centre, `-distance^2 / spread`, and `e` to that.
struct Profile<const N: usize> {
    squares: [f32; N],
    exponents: [f64; N],
    bump: [f64; N],
}

impl<const N: usize> Profile<N> {
    fn new(centre: f32, spread: f32) -> Self {
        let squares = std::array::from_fn(|i| square(i as f32 - centre));
        let exponents = squares.map(|d2| -f64::from(d2) / f64::from(spread));
        Self { squares, exponents, bump: exponents.map(exp) }
    }
}

impl<const N: usize> Canvas<N> {
    /// Blends a dot of colour `colour` whose weight is a Gaussian of standard deviation `radius` around `centre`,
    /// scaled so that the nearest pixel gets weight 1; f32 arithmetic, each channel truncated. A centre so far outside
    /// that no pixel has a weight draws nothing.
    pub fn dot(&mut self, centre: [f32; 2], radius: f64, colour: [u8; 3]) {
        let spread = (2.0 * radius * radius) as f32;
        let nearest = centre.map(|c| square(c.round().clamp(0.0, Self::LAST as f32) - c));
        let closest = nearest[0] + nearest[1];
        let highest = exp((-closest / spread).into()) as f32;
        if highest.is_nan() || highest < f32::MIN_POSITIVE {
            return;
        }
        let reach = closest + REACH * spread;
        let [across, down] = centre.map(|c| Profile::<N>::new(c, spread));
        let mut weights = [0.0; N];
        for y in (0..N).filter(|&y| down.squares[y] <= reach) {
            let half = (reach - down.squares[y]).sqrt();
            let end = |x: f32| x.clamp(0.0, Self::LAST as f32) as usize;
            let columns = end((centre[0] - half).floor())..end((centre[0] + half).ceil()) + 1;
            let weights = &mut weights[columns.clone()];
            let inputs = across.squares[columns.clone()].iter().zip(&across.exponents[columns.clone()]);
            for ((weight, (d2, exponent)), bump) in
                weights.iter_mut().zip(inputs).zip(&across.bump[columns.clone()])
            {
                // The exponential of the exponent as f32 arithmetic has it is a product of two known ones, but for
                // a rest of rounding errors, for which two terms of the series suffice.
                let rounded = -(d2 + down.squares[y]) / spread;
                let rest = f64::from(rounded) - (exponent + down.exponents[y]);
                let e = bump * down.bump[y] * (1.0 + rest * (1.0 + 0.5 * rest));
                *weight = (e as f32 / highest).min(1.0);
            }
            self.blend_row(y, columns.start, weights, colour);
        }
    }

    /// Mixes `colour` into the pixels of row `y` from column `x` on, as `old (1 - w) + colour w` in f32, truncated.
    fn blend_row(&mut self, y: usize, x: usize, weights: &[f32], colour: [u8; 3]) {
        self.touch(y, x, x + weights.len() - 1);
        let colour = colour.map(f32::from);
        for (pixel, &weight) in self.row_mut(y)[x..].iter_mut().zip(weights) {
            let old = unpack(*pixel);
            let mix = |c: usize| (f32::from(old[c]) * (1.0 - weight) + colour[c] * weight) as u8;
            *pixel = pack([mix(0), mix(1), mix(2)]);
        }
    }
}

fn square(v: f32) -> f32 {
    v * v
}

/// `e^x` for `x <= 0`, to about 15 digits, so that rounding it to f32 is correct but for about one argument in ten
/// million. Written out instead of taken from the system's mathematical library: equal bits everywhere, and a loop
/// over it becomes vector code.
fn exp(x: f64) -> f64 {
    /// Adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    const LN2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    // 1 / 11!, 1 / 10!, ..., 1 / 0!
    const TAYLOR: [f64; 12] = [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    // Below this f32 has only 0; the power of two stays in range.
    let x = x.max(-150.0);
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN2[0]) - k * LN2[1];
    let mut sum = TAYLOR[0];
    for c in &TAYLOR[1..] {
        sum = sum * r + c;
    }
    f64::from_bits(sum.to_bits().wrapping_add(shifted.to_bits() << 52))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_correctly_rounded() {
        for i in 0..2_000_000 {
            let x = -f64::from(i as f32 * 5.3e-5);
            assert_eq!(exp(x) as f32, x.exp() as f32, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY) as f32, 0.0);
    }

    /// The blend over the whole canvas, straight from its definition.
    fn everywhere(base: [u8; 3], centre: [f32; 2], radius: f64, colour: [u8; 3]) -> Vec<u32> {
        let weight = |i: usize| {
            let [x, y] = [(i % 64) as f32, (i / 64) as f32];
            let d2 = (x - centre[0]) * (x - centre[0]) + (y - centre[1]) * (y - centre[1]);
            (f64::from(-d2 / (2.0 * radius * radius) as f32).exp()) as f32
        };
        let highest = (0..64 * 64).map(weight).fold(0.0, f32::max);
        let pixel = |i: usize| {
            let g = weight(i) / highest;
            pack(std::array::from_fn(|c| (f32::from(base[c]) * (1.0 - g) + f32::from(colour[c]) * g) as u8))
        };
        (0..64 * 64).map(pixel).collect()
    }

    #[test]
    fn a_dot_equals_the_blend_of_the_whole_canvas() {
        for (base, centre, radius, colour) in [
            ([255; 3], [20.3, 40.7], 7.0, [255, 0, 0]),
            ([0, 128, 255], [0.0, 63.0], 2.5, [255; 3]),
            ([9, 200, 31], [-7.25, 30.0], 3.0, [200, 9, 255]),
            ([255; 3], [31.5, 31.5], 1.0, [0; 3]),
        ] {
            let mut canvas = Canvas::<64>::new(pack(base));
            canvas.dot(centre, radius, colour);
            assert!(canvas.pixels() == everywhere(base, centre, radius, colour), "{centre:?} {radius}");
        }
    }

    #[test]
    fn centres_out_of_reach_or_not_finite_draw_nothing() {
        let empty = Canvas::<64>::new(7);
        for x in [1e6, f32::INFINITY, f32::NAN] {
            let mut canvas = empty.clone();
            canvas.dot([x, 3.0], 7.0, [255; 3]);
            assert!(canvas.pixels() == empty.pixels(), "{x}");
        }
    }
}
