//! An environment of your own: record it, look at it, and score policies in it. `cargo run --release --example 05_custom_env`
//!
//! The environment is in `field/mod.rs`. All that is left to do is to make it known by its name.

mod field;

use std::path::PathBuf;

use field::Field;
use worldbench_core::Stream;
use worldbench_data::{FrameSpec, Kind, Store, StoreWriter, record};
use worldbench_env::raster::Filter;
use worldbench_env::{Environment, domain};
use worldbench_eval::policies::Oracle;
use worldbench_eval::{Baseline, EvalOptions, Manifest, Pair, Policy, Protocol, evaluate, gif::write_gif};

/// Rules for the environment; the pairs are made below.
const RULES: &str = "name = 'field'\nenvironment = 'field'\ngoal_offset = 10\nbudget = 20\nsuccess = 'field-disc'\n\
                     [selection]\nseed = 0\nepisodes = 8\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out: PathBuf = std::env::args_os().nth(1).unwrap_or_else(|| "field".into()).into();
    std::fs::create_dir_all(&out)?;
    let env = domain::domain::<Field>();
    domain::register(env);

    // Random walks, kept as states: frames are drawn on demand.
    let path = out.join("field.wbs");
    let mut writer = StoreWriter::create(&path, env)?;
    for seed in 0..20 {
        let mut stream = Stream::new(seed, "example", &[]);
        let mut field = Field::build(&Default::default());
        field.set_state(&[stream.uniform(2.0, 62.0), stream.uniform(2.0, 62.0)])?;
        let (kind, mut action) = ((Kind::Random, seed, seed), [0.0; 2]);
        let walk = record(&mut field, kind, 30, |_, step| {
            if step % 10 == 0 {
                action = [0; 2].map(|_| stream.uniform(-1.0, 1.0) as f32);
            }
            Some(action)
        });
        writer.append(&walk)?;
    }
    let store = Store::open(&path)?;
    let frame = store.frame(0, 5, FrameSpec { resolution: 64, filter: Filter::Area })?;
    println!("{} episodes of {:?}; a frame has {} bytes", store.len(), store.env(), frame.len());

    // Pairs of start and goal 10 steps apart from other walks, and two policies scored on them.
    let protocol = Protocol::parse("example", RULES, "field")?;
    let drawn = protocol.select_from(&store, "field.wbs")?;
    let apart = |p: &&Pair| (p.start[0] - p.goal[0]).hypot(p.start[1] - p.goal[1]) > 6.0;
    let manifest = Manifest { pairs: drawn.pairs.iter().filter(apart).cloned().collect(), ..drawn };
    let policies: [&dyn Policy; 3] = [&Baseline::Random, &Baseline::Replay, &Oracle::default()];
    for policy in policies {
        let evaluation = evaluate(&protocol, &manifest, policy, &EvalOptions::default())?;
        println!("{}: {}", policy.name(), evaluation.score.all.text());
        write_gif(&out.join(policy.name()).with_extension("gif"), env, &evaluation.outcomes[0])?;
    }
    Ok(())
}
