//! Frames of the Push-T renderer at the resolutions in use.

// `criterion_group!` generates a public function without docs.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use worldbench_env::raster::{Filter, Render, Renderer};
use worldbench_env::{Factors, RenderState};

fn render(c: &mut Criterion) {
    for (filter, resolution) in
        [(Filter::Linear, 224), (Filter::Linear, 64), (Filter::Area, 64), (Filter::Area, 128)]
    {
        let Ok(mut renderer) = Renderer::new(&Factors::default(), resolution, filter) else { return };
        let mut out = vec![0; resolution * resolution * 3];
        let mut state =
            RenderState { agent: [200.0, 330.0], block_cog: [240.0, 220.0], ..RenderState::default() };
        c.bench_function(&format!("push_t/{filter:?}/{resolution}"), |b| {
            b.iter(|| {
                state.block_angle += 0.1;
                renderer.render(&state, &mut out)
            });
        });
    }
}

criterion_group!(benches, render);
criterion_main!(benches);
