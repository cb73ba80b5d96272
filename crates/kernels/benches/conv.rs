//! Rate of a convolution's three products on one thread, each by its best run, beside the machine's limit:
//! `cargo bench -p worldbench-kernels --bench conv`.

use std::time::Instant;
use worldbench_kernels::conv::Conv2d;
use worldbench_kernels::{Buffer, peak_flops};

/// Side, channels, outputs, kernel, stride, pad.
const SHAPES: [[usize; 6]; 9] = [
    [64, 3, 16, 2, 2, 0],
    [32, 16, 32, 3, 2, 1],
    [16, 32, 48, 3, 1, 1],
    [16, 48, 32, 3, 1, 1],
    [64, 3, 32, 4, 4, 0],
    [16, 32, 32, 3, 1, 1],
    [16, 32, 64, 3, 1, 1],
    [16, 64, 32, 3, 1, 1],
    [8, 96, 192, 3, 2, 1],
];

fn filled(n: usize) -> Buffer {
    let mut buffer = Buffer::zeros(n);
    buffer.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 97) as f32 / 97.0 - 0.5);
    buffer
}

fn best(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        (0..4).for_each(|_| run());
        start.elapsed().as_secs_f64() / 4.0
    };
    (0..300).map(time).fold(f64::INFINITY, f64::min)
}

fn main() {
    let peak =
        (0..20).map(|_| peak_flops(worldbench_kernels::gemm::Precision::F32, 1, 500_000)).fold(0.0, f64::max);
    println!("limit {:.0} GFLOP/s", peak / 1e9);
    for [side, channels, outputs, kernel, stride, pad] in SHAPES {
        let conv = Conv2d { height: side, width: side, channels, outputs, kernel, stride, pad };
        let grid = conv.output();
        let terms = kernel * kernel * channels * outputs;
        let operations = (2 * grid.height * grid.width * terms) as f64;
        let (x, dy, mut dx) =
            (filled(conv.input().len()), filled(grid.len()), filled(side * side * channels));
        let (weight, bias, mut dw) = (filled(terms), filled(outputs), filled(terms));
        let mut y = filled(grid.height * grid.width * outputs);
        let (packed, turned) = (conv.pack(&weight), conv.transpose(&weight));
        let seconds = [
            best(|| conv.forward(&packed, &bias, &x, &mut y)),
            best(|| conv.backward_weights(&x, &dy, &mut dw)),
            best(|| conv.backward_input(&turned, &dy, &mut dx)),
        ];
        let [forward, weights, input] = seconds.map(|s| operations / s / 1e9);
        println!(
            "{side} x {side} x {channels} -> {outputs}, kernel {kernel}, stride {stride}: \
             output {forward:.0}, weight gradient {weights:.0}, input gradient {input:.0} GFLOP/s"
        );
    }
}
