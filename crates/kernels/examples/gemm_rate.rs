//! Prints the share of the machine's limit that the matrix product reaches.
//!
//! `cargo run --release -p worldbench-kernels --example gemm_rate`. Limit and products are measured in turn, each
//! by its best run, so that other work on the machine meets both alike.

use std::time::Instant;
use worldbench_kernels::gemm::{Activation, Epilogue, PackedMatrix, gemm};
use worldbench_kernels::{Buffer, instruction_set, par_rows_mut, peak_flops};

const SHAPES: [(usize, usize, usize); 5] =
    [(900, 192, 3072), (900, 1024, 192), (900, 192, 2048), (900, 2048, 192), (2056, 384, 1536)];

struct Case {
    a: Buffer,
    b: PackedMatrix,
    c: Buffer,
    bias: Vec<f32>,
}

impl Case {
    fn new((m, k, n): (usize, usize, usize)) -> Self {
        let w: Vec<f32> = (0..k * n).map(|i| (i % 89) as f32 / 89.0 - 0.5).collect();
        let mut a = Buffer::zeros(m * k);
        a.iter_mut().enumerate().for_each(|(i, a)| *a = (i % 97) as f32 / 97.0 - 0.5);
        Self { a, b: PackedMatrix::from_in_out(&w, k, n), c: Buffer::zeros(m * n), bias: vec![0.1; n] }
    }

    fn seconds(&mut self, (m, k, n): (usize, usize, usize), activation: Activation) -> f64 {
        let (a, b, epilogue) = (&self.a, &self.b, Epilogue::bias(&self.bias).activate(activation));
        let start = Instant::now();
        par_rows_mut(&mut self.c, m, n, |rows, c| {
            gemm(rows.len(), &a[rows.start * k..], k, b, c, n, epilogue);
        });
        start.elapsed().as_secs_f64()
    }
}

fn measure(threads: usize) {
    let mut peak: f64 = 0.0;
    let mut best = [[f64::INFINITY; 2]; SHAPES.len()];
    let mut cases = SHAPES.map(Case::new);
    for _ in 0..60 {
        peak = peak.max(peak_flops(worldbench_kernels::gemm::Precision::F32, threads, 500_000));
        for ((best, case), shape) in best.iter_mut().zip(&mut cases).zip(SHAPES) {
            for (best, activation) in best.iter_mut().zip([Activation::Identity, Activation::Gelu]) {
                *best = (0..3).map(|_| case.seconds(shape, activation)).fold(*best, f64::min);
            }
        }
    }
    println!("{threads} threads: limit {:.0} GFLOP/s", peak / 1e9);
    for (best, (m, k, n)) in best.iter().zip(SHAPES) {
        let [plain, gelu] = best.map(|best| 2.0 * (m * k * n) as f64 / best);
        let (share, gelu_share) = (100.0 * plain / peak, 100.0 * gelu / peak);
        println!(
            "{m} x {k} x {n}: bias {:.0} GFLOP/s ({share:.0} %), bias + GELU {:.0} ({gelu_share:.0} %)",
            plain / 1e9,
            gelu / 1e9
        );
    }
}

fn main() {
    println!("{}", instruction_set());
    for threads in [1, 2] {
        if let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            pool.install(|| measure(threads));
        }
    }
}
