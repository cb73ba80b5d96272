//! Frames per second of a frozen encoder: `encode_speed NAME [WEIGHTS] [BATCH]`, DINOv2 with random weights if none
//! are given.

use std::time::Instant;

use worldbench_models::encoders::{Dinov2Config, EncoderConfig, build, open};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "dinov2_small".into());
    let weights = arguments.next().filter(|path| path != "-");
    let batch: usize = arguments.next().map_or(Ok(8), |n| n.parse())?;
    let config: EncoderConfig =
        serde_json::from_value(serde_json::json!({ "name": name, "weights": weights }))?;
    let random = match name.as_str() {
        _ if weights.is_some() => None,
        "dinov2_small" => Some(Dinov2Config::small()),
        "dinov2_base" => Some(Dinov2Config::base()),
        "dinov2_large" => Some(Dinov2Config::large()),
        _ => None,
    };
    let encoder = match random {
        Some(sizes) => build(&config, sizes.random(0))?,
        None => open(&config)?,
    };
    let side = encoder.image_size();
    let frame: Vec<u8> = (0..side * side * 3).map(|i| (i * 31 % 251) as u8).collect();
    let frames = vec![frame.as_slice(); batch];
    let mut out = vec![0.0; batch * encoder.tokens() * encoder.width()];
    encoder.encode(&frames, &mut out)?;
    let threads = rayon::current_num_threads();
    println!("{name}: batch {batch}, {threads} threads, {} tokens of {}", encoder.tokens(), encoder.width());
    for _ in 0..3 {
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed().as_secs_f64() < 2.0 {
            encoder.encode(&frames, &mut out)?;
            rounds += 1;
        }
        println!("{:.1} frames/s", f64::from(rounds) * batch as f64 / start.elapsed().as_secs_f64());
    }
    Ok(())
}
