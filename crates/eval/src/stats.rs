//! Statistics of success counts.
//!
//! A score is a binomial proportion, and most of ours are near 0 or 1 on 50 to 200 episodes: there the textbook
//! interval `p ± z sqrt(p (1 - p) / n)` is far too narrow (it has width 0 at 100 %). Wilson's interval is not.

use serde::{Deserialize, Serialize};

/// Normal quantile of a two-sided 95 % interval.
const Z95: f64 = 1.959_963_984_540_054;

/// A two-sided interval for a proportion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end, in `[0, 1]`.
    pub low: f64,
    /// Upper end, in `[0, 1]`.
    pub high: f64,
}

/// Wilson's 95 % score interval (Wilson 1927) for `successes` of `n`:
/// `(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`. `[0, 1]` when `n` is 0.
#[must_use]
pub fn wilson(successes: usize, n: usize) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let count = n as f64;
    let p = successes as f64 / count;
    let z2 = Z95 * Z95;
    let centre = p + z2 / (2.0 * count);
    let half = Z95 * (p * (1.0 - p) / count + z2 / (4.0 * count * count)).sqrt();
    let scale = 1.0 + z2 / count;
    // The formula touches 0 and 1 exactly at the ends; rounding must not move it off them.
    let low = if successes == 0 { 0.0 } else { (centre - half) / scale };
    let high = if successes >= n { 1.0 } else { (centre + half) / scale };
    Interval { low: low.max(0.0), high: high.min(1.0) }
}

/// Exact two-sided McNemar test of two policies on the same pairs: the probability, if both were equally good,
/// of a split of the discordant pairs at least as uneven as (`only_a`, `only_b`).
#[must_use]
pub fn mcnemar(only_a: usize, only_b: usize) -> f64 {
    let n = only_a + only_b;
    let k = only_a.min(only_b);
    // Terms C(n, i) / 2^n by recurrence in logarithms, which cannot overflow.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for i in 1..=k {
        log_term += ((n - i + 1) as f64 / i as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_known_values() {
        // Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3; four decimals.
        for (k, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let got = wilson(k, n);
            assert!((got.low - low).abs() < 6e-5 && (got.high - high).abs() < 6e-5, "{k}/{n}: {got:?}");
        }
        // Without a success the upper end is z² / (n + z²).
        let z2 = Z95 * Z95;
        assert!((wilson(0, 10).high - z2 / (10.0 + z2)).abs() < 1e-15);
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn wilson_is_symmetric_and_holds_the_rate() {
        for n in 1..60 {
            for k in 0..=n {
                let (a, b) = (wilson(k, n), wilson(n - k, n));
                assert!((a.low + b.high - 1.0).abs() < 1e-12);
                let p = k as f64 / n as f64;
                assert!(a.low <= p && p <= a.high);
            }
        }
    }

    #[test]
    fn mcnemar_is_the_exact_binomial_test() {
        assert_eq!(mcnemar(0, 0), 1.0);
        assert!((mcnemar(0, 5) - 2.0 / 32.0).abs() < 1e-12);
        assert!((mcnemar(8, 2) - 2.0 * (1.0 + 10.0 + 45.0) / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar(3, 3), 1.0);
    }
}
