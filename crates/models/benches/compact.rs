//! Training steps of compact models on one thread, 96 windows of 4 frames, by the best of ten:
//! `cargo bench -p worldbench-models --bench compact`.

use std::time::Instant;

use worldbench_core::Stream;
use worldbench_models::compact::{
    Batch, CompactConfig, CompactNet, EncoderConfig, PROPRIO, Readout, Weights, Workers,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WINDOWS: usize = 96;
const FRAMES: usize = 4;

fn config(patch: usize, widths: &[usize], strides: &[usize]) -> CompactConfig {
    CompactConfig {
        encoder: EncoderConfig {
            resolution: 64,
            patch,
            kernel: 3,
            widths: widths.to_vec(),
            strides: strides.to_vec(),
            readout: Readout::Keypoints,
            hidden: 256,
            latent: 32,
        },
        width: 384,
        depth: 3,
        action_block: 5,
        proprio: true,
        previous_action: false,
        position_weight: 1.0,
        projections: 256,
        weights: Weights {
            teacher_forcing: 1.0,
            rollout: 1.0,
            std: 12.0,
            std_t: 0.0,
            cov: 20.0,
            temporal: 1.0,
            sigreg: 0.0,
            idm: 0.0,
        },
    }
}

fn batch(config: &CompactConfig) -> Batch<'static> {
    let mut stream = Stream::new(1, "compact-speed", &[]);
    let mut actions = vec![0.0; (FRAMES - 1) * WINDOWS * config.block_dim()];
    let mut proprio = vec![0.0; FRAMES * WINDOWS * PROPRIO];
    stream.fill_normal(&mut actions);
    stream.fill_normal(&mut proprio);
    let bytes = config.encoder.resolution.pow(2) * 3;
    let frames: Vec<u8> = (0..FRAMES * WINDOWS * bytes).map(|_| stream.below(256) as u8).collect();
    let frames = frames.leak().chunks_exact(bytes).collect();
    Batch { frames, actions, proprio, windows: WINDOWS, steps: FRAMES }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workers = Workers::new(1)?;
    let networks = [
        ("patch 2, strided", config(2, &[16, 32, 48, 32], &[2, 1, 1])),
        ("patch 4, 16 x 16", config(4, &[32, 32, 64, 32], &[1, 1, 1])),
    ];
    for (name, config) in networks {
        let (net, batch) = (CompactNet::new(&config), batch(&config));
        let params = net.table.init(0);
        let (mut grads, mut running) = (vec![0.0; params.len()], vec![0.0; 2 * config.encoder.hidden]);
        let mut best = f64::INFINITY;
        for step in 0..10 {
            let start = Instant::now();
            let mut stream = Stream::new(0, "directions", &[step]);
            net.step(&params, &mut running, &batch, &mut stream, &workers, &mut grads);
            best = best.min(start.elapsed().as_secs_f64());
        }
        let norm = grads.iter().map(|g| g * g).sum::<f32>().sqrt();
        println!("{name}: {:.0} windows/s (gradient norm {norm})", WINDOWS as f64 / best);
    }
    Ok(())
}
