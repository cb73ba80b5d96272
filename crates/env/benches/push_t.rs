//! Control steps of contact-rich Push-T play on one thread, without rendering.
#![allow(missing_docs)] // The macro below makes a public function without one.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use worldbench_env::perf::ContactPlay;

fn push_t(c: &mut Criterion) {
    let mut group = c.benchmark_group("push-t");
    group.throughput(Throughput::Elements(1));
    let mut play = ContactPlay::new(0);
    group.bench_function("contact play, one control step", |b| b.iter(|| play.step()));
    let env = play.env().clone();
    group.bench_function("clone", |b| b.iter(|| black_box(black_box(&env).clone())));
    group.finish();
}

criterion_group!(benches, push_t);
criterion_main!(benches);
