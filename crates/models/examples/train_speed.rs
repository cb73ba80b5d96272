//! Times training steps of the full-size PLDM on the CPU: `cargo run --release -p worldbench-models --example
//! train_speed [windows] [steps]`. One window is 4 frames of 224x224; prints windows and frames per second, and the
//! encoder alone on 16 images, the figure that tensor libraries are compared by.

use std::time::Instant;

use worldbench_core::Stream;
use worldbench_models::pldm::{Pldm, PldmConfig};
use worldbench_nn::params::from_vec;
use worldbench_nn::vit::{Vit, VitConfig};
use worldbench_nn::{Error, Params, Pass};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn normal(seed: u64, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new(seed, "train-speed", &[]).fill_normal(&mut values);
    values
}

fn encoder(steps: usize) -> Result<(), Error> {
    let device = worldbench_nn::device("cpu")?;
    let params = Params::init(0, |scope| Vit::new(scope, "encoder", VitConfig::tiny()));
    let images = normal(1, 16 * 3 * 224 * 224);
    for step in 0..steps {
        let start = Instant::now();
        let (model, leaves) = params.bind(&device, |scope| Vit::new(scope, "encoder", VitConfig::tiny()))?;
        let loss = model.forward(from_vec(images.clone(), [16, 3, 224, 224], &device)).powi_scalar(2).mean();
        let forward = start.elapsed().as_secs_f64();
        leaves.gradients(&loss)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "encoder step {step}: {seconds:.2} s (forward {forward:.2}), {:.1} images/s",
            16.0 / seconds
        );
    }
    Ok(())
}

fn pldm(windows: usize, steps: usize) -> Result<(), Error> {
    let device = worldbench_nn::device("cpu")?;
    let config = PldmConfig::full(10);
    let params = config.init(0);
    let (frames, actions) = (normal(2, windows * 4 * 3 * 224 * 224), normal(3, windows * 40));
    for step in 0..steps {
        let start = Instant::now();
        let (model, leaves) = params.bind(&device, |scope| Pldm::build(scope, &config))?;
        let mut pass = Pass::train(0, step as u64, 0);
        let frames = from_vec(frames.clone(), [windows, 4, 3, 224, 224], &device);
        let terms = model.loss(frames, from_vec(actions.clone(), [windows, 4, 10], &device), &mut pass);
        leaves.gradients(&terms.total)?;
        let seconds = start.elapsed().as_secs_f64();
        let windows = windows as f64;
        let (per_window, per_frame) = (windows / seconds, 4.0 * windows / seconds);
        println!("PLDM step {step}: {seconds:.2} s, {per_window:.2} windows/s, {per_frame:.1} frames/s");
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let windows = numbers.next().unwrap_or(4);
    let steps = numbers.next().unwrap_or(3);
    encoder(steps)?;
    pldm(windows, steps)
}
