//! The NumPy generators that reference environments and data sets were seeded with.
//!
//! Only for reproducing other people's seeds; our own randomness comes from [`crate::Stream`].

const PCG_MULTIPLIER: u128 = 47_026_247_687_942_121_848_144_207_491_837_523_525;

/// `numpy.random.SeedSequence(seed).generate_state(4, uint64)`.
#[must_use]
pub fn seed_sequence(seed: u64) -> [u64; 4] {
    // Entropy is the seed's little-endian 32-bit words; two always suffice for a u64.
    let words = [seed as u32, (seed >> 32) as u32];
    let mut hash_const = 0x43b0_d7e5u32;
    let mut hash = |mut value: u32| {
        value ^= hash_const;
        hash_const = hash_const.wrapping_mul(0x931e_8875);
        value = value.wrapping_mul(hash_const);
        value ^ (value >> 16)
    };
    let mix = |x: u32, y: u32| {
        let r = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
        r ^ (r >> 16)
    };
    let mut pool = [0u32; 4];
    for (i, slot) in pool.iter_mut().enumerate() {
        *slot = hash(words.get(i).copied().unwrap_or(0));
    }
    for src in 0..4 {
        for dst in 0..4 {
            if src != dst {
                pool[dst] = mix(pool[dst], hash(pool[src]));
            }
        }
    }
    let mut out_const = 0x8b51_f9ddu32;
    let mut out = [0u32; 8];
    for (i, word) in out.iter_mut().enumerate() {
        let mut value = pool[i % 4] ^ out_const;
        out_const = out_const.wrapping_mul(0x58f3_8ded);
        value = value.wrapping_mul(out_const);
        *word = value ^ (value >> 16);
    }
    std::array::from_fn(|i| u64::from(out[2 * i]) | u64::from(out[2 * i + 1]) << 32)
}

/// `numpy.random.default_rng(seed)`: PCG64 (XSL-RR 128/64).
#[derive(Clone, Debug)]
pub struct Pcg64 {
    state: u128,
    increment: u128,
    /// High half of the last u64, kept for the next 32-bit request.
    half: Option<u32>,
}

impl Pcg64 {
    /// The generator NumPy makes from an integer seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let words = seed_sequence(seed);
        let init = u128::from(words[0]) << 64 | u128::from(words[1]);
        let sequence = u128::from(words[2]) << 64 | u128::from(words[3]);
        let mut rng = Self { state: 0, increment: sequence << 1 | 1, half: None };
        rng.advance();
        rng.state = rng.state.wrapping_add(init);
        rng.advance();
        rng
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(PCG_MULTIPLIER).wrapping_add(self.increment);
    }

    /// Next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.advance();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Next 32 random bits: the low half of a fresh u64 first, then its high half.
    pub fn next_u32(&mut self) -> u32 {
        if let Some(high) = self.half.take() {
            return high;
        }
        let wide = self.next_u64();
        self.half = Some((wide >> 32) as u32);
        wide as u32
    }

    /// Uniform in `[0, 1)`.
    pub fn f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[lo, hi)`.
    pub fn uniform(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.f64()
    }

    /// Uniform integer in `0..n` by NumPy's 32-bit Lemire rule; `n` must be positive.
    pub fn below_u32(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n.max(1);
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// `choice(n, size, replace=False)`, sorted ascending. `None` when `size > n` or `n` exceeds 32 bits.
    ///
    /// NumPy takes a tail shuffle for large samples and Floyd's method otherwise; both are reproduced.
    pub fn choice_sorted(&mut self, n: usize, size: usize) -> Option<Vec<usize>> {
        if size > n || u32::try_from(n).is_err() {
            return None;
        }
        let mut bounded = |inclusive: usize| {
            // A range of one value takes no draw.
            if inclusive == 0 { 0 } else { self.below_u32(inclusive as u32 + 1) as usize }
        };
        let mut chosen = if n > 10_000 && size > n / 50 {
            let mut index: Vec<usize> = (0..n).collect();
            for i in (n - size..n).rev() {
                index.swap(i, bounded(i));
            }
            index.split_off(n - size)
        } else {
            let mut taken = std::collections::HashSet::with_capacity(size);
            (n - size..n)
                .map(|j| {
                    let v = bounded(j);
                    let pick = if taken.contains(&v) { j } else { v };
                    taken.insert(pick);
                    pick
                })
                .collect()
        };
        chosen.sort_unstable();
        Some(chosen)
    }
}

/// `numpy.random.RandomState(seed)`: the legacy Mersenne Twister.
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; 624],
    index: usize,
}

impl Mt19937 {
    /// The generator that `RandomState(seed)` makes.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, index: 624 }
    }

    /// Next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.index == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.index = 0;
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `randint(lo, hi)`, `hi` exclusive and greater than `lo`, by masked rejection.
    pub fn randint(&mut self, lo: u32, hi: u32) -> u32 {
        let range = hi - 1 - lo;
        let mask = if range == 0 { 0 } else { u32::MAX >> range.leading_zeros() };
        loop {
            let value = self.next_u32() & mask;
            if value <= range {
                return lo + value;
            }
        }
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub fn f64(&mut self) -> f64 {
        let high = f64::from(self.next_u32() >> 5);
        let low = f64::from(self.next_u32() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// The first value `randn()` returns (polar method; the pair's other value is dropped).
    pub fn randn_first(&mut self) -> f64 {
        loop {
            let x1 = 2.0 * self.f64() - 1.0;
            let x2 = 2.0 * self.f64() - 1.0;
            let r2 = x1 * x1 + x2 * x2;
            if r2 > 0.0 && r2 < 1.0 {
                return (-2.0 * r2.ln() / r2).sqrt() * x2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_reproduces_numpy_for_both_algorithms() {
        // numpy default_rng(42).choice(n, 50, replace=False), sorted.
        let head = |n| Pcg64::new(42).choice_sorted(n, 50).unwrap();
        assert_eq!(head(2000)[..8], [126, 135, 168, 174, 182, 184, 252, 328]);
        assert_eq!(head(20_000)[..5], [1275, 1358, 1715, 1780, 1841]);
        assert_eq!(head(1_000_000)[..5], [63_816, 67_919, 85_941, 89_246, 92_134]);
        let published = head(2_336_736);
        assert_eq!(
            (published[0], published[1], published[2], published[49]),
            (149_123, 158_710, 200_828, 2_279_734)
        );
    }

    #[test]
    fn choice_matches_every_stored_draw() {
        let text = include_str!("../../../tests/fixtures/models/eval_starts.json");
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        for case in json["choice"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap();
            let expected: Vec<usize> = case["sorted_indices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64().unwrap() as usize)
                .collect();
            let got =
                Pcg64::new(number("seed")).choice_sorted(number("n_valid") as usize, number("size") as usize);
            assert_eq!(got.unwrap(), expected, "seed {} n {}", number("seed"), number("n_valid"));
        }
    }

    #[test]
    fn asking_for_more_than_there_is_gives_none() {
        assert!(Pcg64::new(0).choice_sorted(3, 4).is_none());
    }

    #[test]
    fn legacy_generator_gives_the_known_initial_states() {
        for (seed, expected) in [
            (0, (222, 97, 217, 292, 3.007_999_467_721_955_3)),
            (1, (87, 285, 172, 355, -6.595_749_753_457_083)),
            (205, (372, 342, 338, 256, -3.892_590_331_126_092)),
        ] {
            let mut rng = Mt19937::new(seed);
            let agent = (rng.randint(50, 450), rng.randint(50, 450));
            let block = (rng.randint(100, 400), rng.randint(100, 400));
            let angle = rng.randn_first() * 2.0 * std::f64::consts::PI - std::f64::consts::PI;
            assert_eq!((agent.0, agent.1, block.0, block.1, angle), expected);
        }
    }
}
