//! The whole training step against finite differences, and inference against training.

use worldbench_core::Stream;
use worldbench_plan::{Context, Objective, Shape, WorldModel};

use super::*;

fn config(sigreg: bool) -> CompactConfig {
    let none = Weights {
        teacher_forcing: 1.0,
        rollout: 1.0,
        std: 0.0,
        std_t: 0.0,
        cov: 0.0,
        temporal: 0.0,
        sigreg: 0.0,
        idm: 0.1,
    };
    let weights = if sigreg {
        Weights { sigreg: 0.09, ..none }
    } else {
        Weights { std: 18.0, std_t: 0.7, cov: 12.0, temporal: 1.0, ..none }
    };
    CompactConfig {
        encoder: EncoderConfig {
            resolution: 16,
            patch: 4,
            kernel: 3,
            widths: vec![4, 5, 6],
            strides: vec![2, 1],
            readout: if sigreg { Readout::Flatten } else { Readout::Keypoints },
            hidden: if sigreg { 10 } else { 0 },
            latent: 6,
        },
        width: 12,
        depth: 2,
        action_block: 2,
        proprio: true,
        previous_action: true,
        position_weight: 1.0,
        projections: 16,
        weights,
    }
}

fn batch(config: &CompactConfig, windows: usize, steps: usize) -> Batch<'static> {
    let mut stream = Stream::new(11, "compact test", &[]);
    let bytes = config.encoder.resolution.pow(2) * 3;
    let mut actions = vec![0.0; (steps - 1) * windows * config.block_dim()];
    let mut proprio = vec![0.0; steps * windows * PROPRIO];
    stream.fill_normal(&mut actions);
    stream.fill_normal(&mut proprio);
    let frames: Vec<u8> = (0..steps * windows * bytes).map(|_| (255.0 * stream.f64()) as u8).collect();
    let frames = frames.leak().chunks_exact(bytes).collect();
    Batch { frames, actions, proprio, windows, steps }
}

/// Parameters away from the special values (zeros, ones) that they start with.
fn params(net: &CompactNet) -> Vec<f32> {
    let mut params = net.table.init(5);
    let mut noise = vec![0.0; params.len()];
    Stream::new(6, "compact test", &[]).fill_normal(&mut noise);
    params.iter_mut().zip(noise).for_each(|(p, n)| *p += 0.1 * n);
    params
}

fn gradients(net: &CompactNet, params: &[f32], batch: &Batch, workers: usize) -> (Metrics, Vec<f32>) {
    let mut running = vec![0.0; 2 * net.config.encoder.normed()];
    let mut grads = vec![0.0; params.len()];
    let mut stream = Stream::new(2, "directions", &[]);
    let workers = Workers::new(workers).unwrap();
    let metrics = net.step(params, &mut running, batch, &mut stream, &workers, &mut grads);
    (metrics, grads)
}

/// Compares the gradient with central differences along random directions: through all values of every tensor,
/// and through four of them.
fn check_gradient(sigreg: bool) {
    let net = CompactNet::new(&config(sigreg));
    let batch = batch(&net.config, 7, 4);
    let params = params(&net);
    let (_, grads) = gradients(&net, &params, &batch, 1);
    let loss = |params: &[f32]| f64::from(gradients(&net, params, &batch, 1).0.loss);
    for (i, tensor) in net.table.params().iter().enumerate() {
        let len = tensor.range.len();
        for handful in [false, true] {
            let mut stream = Stream::new(3, "direction", &[i as u64, u64::from(handful)]);
            let mut direction = vec![0.0f32; len];
            stream.fill_normal(&mut direction);
            if handful && len > 4 {
                let kept: Vec<usize> = (0..4).map(|_| stream.below(len as u64) as usize).collect();
                direction
                    .iter_mut()
                    .enumerate()
                    .filter(|(j, _)| !kept.contains(j))
                    .for_each(|(_, d)| *d = 0.0);
            }
            let norm = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
            let step = 2e-3f32;
            let moved = |sign: f32| {
                let mut moved = params.clone();
                let slice = &mut moved[tensor.range.clone()];
                slice.iter_mut().zip(&direction).for_each(|(p, d)| *p += sign * step * d / norm);
                moved
            };
            let numeric = (loss(&moved(1.0)) - loss(&moved(-1.0))) / (2.0 * f64::from(step));
            let slice = &grads[tensor.range.clone()];
            let analytic: f64 = slice.iter().zip(&direction).map(|(g, d)| f64::from(g * d / norm)).sum();
            let error = (numeric - analytic).abs();
            assert!(
                error < 2e-3 + 0.02 * analytic.abs(),
                "{}: {analytic}, numerically {numeric}",
                tensor.name
            );
        }
    }
}

#[test]
fn the_gradient_of_pldm_agrees_with_finite_differences() {
    check_gradient(false);
}

#[test]
fn the_gradient_of_lewm_agrees_with_finite_differences() {
    check_gradient(true);
}

#[test]
fn workers_share_a_batch_without_changing_its_gradient() {
    for sigreg in [false, true] {
        let net = CompactNet::new(&config(sigreg));
        let (batch, params) = (batch(&net.config, 7, 4), params(&net));
        let (one, first) = gradients(&net, &params, &batch, 1);
        let (two, second) = gradients(&net, &params, &batch, 2);
        let size = first.iter().map(|g| g * g).sum::<f32>().sqrt();
        let difference = first.iter().zip(&second).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(difference <= 1e-5 * size, "{difference} of {size}");
        assert!((one.loss - two.loss).abs() <= 1e-5 * one.loss.abs(), "{} {}", one.loss, two.loss);
    }
}

/// A model with running statistics that a few batches have moved, and the training network it was made from.
fn trained() -> (CompactNet, Vec<f32>, Vec<f32>, CompactModel) {
    let net = CompactNet::new(&config(false));
    let params = params(&net);
    let hidden = net.config.encoder.normed();
    let mut running = vec![0.0; 2 * hidden];
    running[hidden..].fill(1.0);
    let workers = Workers::new(1).unwrap();
    let mut grads = vec![0.0; params.len()];
    for step in 0..3 {
        let mut stream = Stream::new(1, "directions", &[step]);
        net.step(&params, &mut running, &batch(&net.config, 7, 4), &mut stream, &workers, &mut grads);
    }
    let mut blocks = vec![0.0; 64 * net.config.block_dim()];
    Stream::new(9, "blocks", &[]).fill_normal(&mut blocks);
    let normalisation = Normalisation {
        actions: Whitener::fit(&blocks, net.config.block_dim()),
        proprio_mean: [250.0, 260.0, 1.0, -1.0],
        proprio_std: [80.0, 90.0, 20.0, 30.0],
    };
    let model = CompactModel::new(net.clone(), &params, &running, normalisation);
    (net, params, running, model)
}

#[test]
fn inference_computes_what_training_computes() {
    let (net, params, running, model) = trained();
    let batch = batch(&net.config, 7, 4);
    let (mean, variance) = running.split_at(net.config.encoder.normed());
    let norm = BatchNorm { mean: mean.to_vec(), variance: variance.to_vec() };
    let trunk = net.encoder.trunk(&params, &batch.frames);
    let (_, z) = net.encoder.embed(&params, &trunk.dense, &norm);
    close(&model.encode(&batch.frames), &z);

    let mut state = vec![0.0; 9 * net.config.state_dim()];
    let mut inputs = vec![0.0; 9 * net.config.action_input()];
    let mut stream = Stream::new(4, "states", &[]);
    stream.fill_normal(&mut state);
    stream.fill_normal(&mut inputs);
    let tape = net.predictor.forward(&params, state.clone(), inputs.clone());
    model.predict(&mut state, &inputs, &mut Scratch::default());
    close(&state, &tape.next);
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn a_candidate_costs_the_same_alone_and_among_others() {
    let (net, _, _, model) = trained();
    let frames = batch(&net.config, 3, 2).frames;
    let seen: Vec<Vec<u8>> = frames[..2].iter().map(|frame| frame.to_vec()).collect();
    let context = Context {
        frames: &seen,
        proprio: &[[240.0, 250.0, 0.0, 0.0]; 2],
        actions: &[0.1, 0.2, -0.3, 0.4],
        goal_frame: frames[2],
        goal_proprio: [200.0, 300.0, 0.0, 0.0],
    };
    let shape = Shape { horizon: 5, dim: net.config.block_dim() };
    let mut plans = vec![0.0; 64 * shape.len()];
    Stream::new(8, "plans", &[]).fill_normal(&mut plans);
    let mut together = vec![0.0; 64];
    model.problem(&context, Objective::default()).unwrap().evaluate(shape, &plans, &mut together).unwrap();
    for (plan, expected) in plans.chunks(shape.len()).zip(&together) {
        let mut alone = [0.0];
        model.problem(&context, Objective::default()).unwrap().evaluate(shape, plan, &mut alone).unwrap();
        assert_eq!(alone[0].to_bits(), expected.to_bits());
    }
    assert!(together.iter().any(|c| c != &together[0]));
}
