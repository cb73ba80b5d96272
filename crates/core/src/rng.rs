//! Keyed, counter-based random streams.
//!
//! There is no global generator in worldbench. Whoever needs randomness names it:
//! `Stream::new(seed, "cem", &[episode, iteration, sample])`. A stream's values depend on its key alone, so
//! results do not change with thread count, batch size or the order in which work is done.
//!
//! The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the
//! 64-bit key is a hash of (seed, purpose, keys), the counter is the position in the stream.

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * u64::from(M0);
        let b = u64::from(counter[2]) * u64::from(M1);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(W0), key[1].wrapping_add(W1)];
    }
    counter
}

/// SplitMix64 finaliser: a bijection that spreads every input bit over the output.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A random stream whose values are a function of its key and position only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
    /// Number of 128-bit blocks consumed.
    block: u64,
    buffer: [u32; 4],
    /// Words of `buffer` not yet handed out.
    left: u8,
}

impl Stream {
    /// Opens the stream named by `seed`, `purpose` (what the numbers are for) and `keys` (for whom).
    #[must_use]
    pub fn new(seed: u64, purpose: &str, keys: &[u64]) -> Self {
        let mut key = mix(seed);
        for byte in purpose.bytes() {
            key = mix(key ^ u64::from(byte));
        }
        for &k in keys {
            key = mix(key.rotate_left(17) ^ mix(k));
        }
        Self { key, block: 0, buffer: [0; 4], left: 0 }
    }

    /// A stream that shares this one's key plus `keys`; independent of how far `self` has been read.
    #[must_use]
    pub fn child(&self, keys: &[u64]) -> Self {
        Self::new(self.key, "child", keys)
    }

    /// A stable 64-bit value drawn from the key alone, for seeding generators of other kinds.
    #[must_use]
    pub fn seed(&self) -> u64 {
        mix(self.key)
    }

    /// Next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.left == 0 {
            let key = [self.key as u32, (self.key >> 32) as u32];
            self.buffer = philox([self.block as u32, (self.block >> 32) as u32, 0, 0], key);
            self.block += 1;
            self.left = 4;
        }
        self.left -= 1;
        self.buffer[usize::from(3 - self.left)]
    }

    /// Next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in `[0, 1)` with 53 random bits.
    pub fn f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[lo, hi)`.
    pub fn uniform(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.f64()
    }

    /// Uniform integer in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Widening multiply with rejection (Lemire 2019): unbiased.
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Standard normal value (Box-Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        self.normal_pair().0
    }

    fn normal_pair(&mut self) -> (f64, f64) {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.f64()).sin_cos();
        (radius * cos, radius * sin)
    }

    /// Fills `out` with standard normal values.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let (a, b) = self.normal_pair();
            pair[0] = a as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = b as f32;
            }
        }
    }

    /// Shuffles `items` in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_known_answer() {
        // Known-answer vectors of the Random123 distribution, philox4x32-10.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn streams_depend_on_every_part_of_the_key() {
        let first = |seed, purpose, keys: &[u64]| Stream::new(seed, purpose, keys).next_u64();
        let base = first(1, "cem", &[2, 3]);
        assert_eq!(base, first(1, "cem", &[2, 3]));
        for other in [
            first(2, "cem", &[2, 3]),
            first(1, "mppi", &[2, 3]),
            first(1, "cem", &[3, 2]),
            first(1, "cem", &[2]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn normals_have_unit_moments() {
        let mut values = vec![0.0f32; 100_001];
        Stream::new(7, "test", &[]).fill_normal(&mut values);
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn below_is_in_range_and_covers_it() {
        let mut stream = Stream::new(3, "below", &[]);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[stream.below(7) as usize] = true;
        }
        assert!(seen.iter().all(|&s| s));
        assert_eq!(stream.below(0), 0);
    }
}
