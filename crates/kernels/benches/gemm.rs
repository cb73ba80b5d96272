//! Products and attention at the sizes of the world models, one thread.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use worldbench_kernels::Buffer;
use worldbench_kernels::attention::{Attention, Mask};
use worldbench_kernels::gemm::{Activation, Epilogue, PackedMatrix, gemm};
use worldbench_kernels::ops::layer_norm;

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    for (m, k, n) in [(900, 192, 3072), (900, 1024, 192), (900, 192, 2048), (900, 2048, 192)] {
        let w: Vec<f32> = (0..k * n).map(|i| (i % 89) as f32 / 89.0 - 0.5).collect();
        let (a, bias, mut c) = (Buffer::zeros(m * k), vec![0.1; n], Buffer::zeros(m * n));
        let b = PackedMatrix::from_in_out(&w, k, n);
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        for activation in [Activation::Identity, Activation::Gelu] {
            group.bench_function(format!("{m}x{k}x{n} {activation:?}"), |bench| {
                let epilogue = Epilogue::bias(&bias).activate(activation);
                bench.iter(|| gemm(m, &a, k, &b, &mut c, n, epilogue));
            });
        }
    }
}

fn rows(criterion: &mut Criterion) {
    for (batch, tokens, heads, mask) in [(300, 3, 16, Mask::Causal(1)), (8, 257, 6, Mask::Full)] {
        let width = heads * 64;
        let rows = batch * tokens;
        let (qkv, mut out) = (Buffer::zeros(rows * 3 * width), Buffer::zeros(rows * width));
        let shape = Attention { batch, queries: tokens, keys: tokens, heads, dim: 64, scale: 0.125, mask };
        criterion.bench_function(&format!("attention {batch} x {tokens} x {heads}"), |bench| {
            let (q, k, v) = (&qkv[..], &qkv[width..], &qkv[2 * width..]);
            bench.iter(|| shape.forward(q, 3 * width, k, v, 3 * width, &mut out, width));
        });
    }
    let (x, mut y) = (Buffer::zeros(900 * 192), Buffer::zeros(900 * 192));
    criterion.bench_function("layer norm 900 x 192", |bench| {
        bench.iter(|| layer_norm(&x, 192, 1e-5, None, &mut y));
    });
}

criterion_group!(benches, products, rows);
criterion_main!(benches);
