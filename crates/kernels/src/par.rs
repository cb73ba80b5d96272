//! Splitting rows among rayon's threads: each thread works through its own rows without barriers.

use crate::gemm::part;
use std::ops::Range;

/// Runs `f` once per thread with that thread's share of `0..m`.
///
/// Kernels give the same bits however rows are split, so the number of threads never shows in results.
pub fn par_rows(m: usize, f: impl Fn(Range<usize>) + Sync) {
    let threads = rayon::current_num_threads().min(m);
    if threads <= 1 {
        return f(0..m);
    }
    rayon::scope(|scope| {
        for i in 1..threads {
            let f = &f;
            scope.spawn(move |_| f(part(m, threads, i)));
        }
        f(part(m, threads, 0));
    });
}

/// As [`par_rows`], with each thread's own part of `out`, rows of `stride` values; the last row may be shorter.
///
/// `f` gets the range of its rows and the slice that starts at the first of them.
///
/// # Panics
/// If `out` ends before the last row starts.
pub fn par_rows_mut(out: &mut [f32], m: usize, stride: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let threads = rayon::current_num_threads().min(m);
    if threads <= 1 {
        return f(0..m, out);
    }
    rayon::scope(|scope| {
        let (first, mut rest) = out.split_at_mut(part(m, threads, 0).len() * stride);
        for i in 1..threads {
            let rows = part(m, threads, i);
            let split = if i + 1 == threads { rest.len() } else { rows.len() * stride };
            let own;
            (own, rest) = rest.split_at_mut(split);
            let f = &f;
            scope.spawn(move |_| f(rows, own));
        }
        f(part(m, threads, 0), first);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_row_is_visited_once() {
        for m in [0, 1, 2, 3, 17] {
            let count = AtomicUsize::new(0);
            par_rows(m, |rows| {
                count.fetch_add(rows.len(), Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), m);
            let mut out = vec![0.0; m * 3];
            par_rows_mut(&mut out, m, 3, |rows, out| {
                for (row, out) in rows.zip(out.chunks_mut(3)) {
                    out.fill(row as f32 + 1.0);
                }
            });
            assert!(out.iter().enumerate().all(|(i, &x)| x == (i / 3) as f32 + 1.0));
        }
    }
}
