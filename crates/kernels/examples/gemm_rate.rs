//! Prints the share of the machine's limit that the matrix product reaches: `cargo run --release --example gemm_rate`.

use std::time::Instant;
use worldbench_kernels::gemm::{Activation, Epilogue, PackedMatrix, gemm};
use worldbench_kernels::{instruction_set, par_rows_mut, peak_flops};

fn rate(threads: usize, m: usize, k: usize, n: usize, gelu: bool) -> f64 {
    let a: Vec<f32> = (0..m * k).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
    let w: Vec<f32> = (0..k * n).map(|i| (i % 89) as f32 / 89.0 - 0.5).collect();
    let bias = vec![0.1; n];
    let b = PackedMatrix::from_in_out(&w, k, n);
    let mut c = vec![0.0; m * n];
    let epilogue = Epilogue::bias(&bias).activate(if gelu { Activation::Gelu } else { Activation::Identity });
    let mut once = || {
        let start = Instant::now();
        par_rows_mut(&mut c, m, n, |rows, c| gemm(rows.len(), &a[rows.start * k..], k, &b, c, n, epilogue));
        start.elapsed().as_secs_f64()
    };
    let best = (0..30).map(|_| once()).fold(f64::INFINITY, f64::min);
    let _ = threads;
    2.0 * (m * k * n) as f64 / best
}

fn main() {
    println!("{}", instruction_set());
    for threads in [1, 2] {
        let peak = (0..8).map(|_| peak_flops(threads, 5_000_000)).fold(0.0, f64::max);
        println!("{threads} threads: limit {:.0} GFLOP/s", peak / 1e9);
        let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else { return };
        for (m, k, n) in
            [(900, 192, 3072), (900, 1024, 192), (900, 192, 2048), (900, 2048, 192), (2056, 384, 1536)]
        {
            for gelu in [false, true] {
                let rate = pool.install(|| rate(threads, m, k, n, gelu));
                println!("{m}x{k}x{n} gelu {gelu}: {:.0} GFLOP/s, {:.0} %", rate / 1e9, 100.0 * rate / peak);
            }
        }
    }
}
