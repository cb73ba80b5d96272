//! Random still scenes of Push-T: what the built-in encoder is pretrained on.

use std::path::Path;

use worldbench_core::Stream;
use worldbench_data::{Kind, Recorder, Store, StoreWriter};
use worldbench_env::domain::domain;
use worldbench_env::variation::Sampling;
use worldbench_env::{PushT, PushTConfig};

use crate::TrainError;

/// Writes `count` scenes of one row each to a new store at `path`, or goes on with one that was begun. Scene n is a
/// function of (seed, n): one in `varied` (1 or more) varies colours, shapes and scales of everything, the rest have the
/// default look.
///
/// # Errors
/// When the store cannot be written or belongs to another seed.
pub fn write(path: &Path, count: usize, seed: u64, varied: u64) -> Result<(), TrainError> {
    let mut begun = 0;
    let mut writer = if path.exists() {
        let store = Store::open_unfinished(path)?;
        begun = store.len();
        if begun > 0 && store.view(0)?.info().seed != seed {
            let problem = format!("{} holds scenes of another seed; delete it", path.display());
            return Err(TrainError::Config(problem));
        }
        StoreWriter::resume(path)?.0
    } else {
        StoreWriter::create(path, domain::<PushT>())?
    };
    for n in begun..count {
        let env = scene(seed, n as u64, varied)?;
        writer.append(&Recorder::new(&env, Kind::Random, n as u64, seed).finish(&env))?;
    }
    Ok(())
}

fn scene(seed: u64, n: u64, varied: u64) -> Result<PushT, TrainError> {
    let fault = |e: worldbench_env::EnvError| TrainError::Config(e.to_string());
    let mut stream = Stream::new(seed, "pretrain/scene", &[n]);
    let sampling = if n.is_multiple_of(varied) { Sampling::all() } else { Sampling::default() };
    let sample = sampling.draw(stream.next_u64() >> 32).map_err(fault)?;
    let mut env = PushT::new(&sample.factors, PushTConfig::default());
    let mut within = |low: f64, high: f64| stream.uniform(low, high);
    let agent = [within(15.0, 497.0), within(15.0, 497.0)];
    let block = [within(50.0, 462.0), within(50.0, 462.0), within(0.0, std::f64::consts::TAU)];
    env.set_state(&[agent[0], agent[1], block[0], block[1], block[2]]).map_err(fault)?;
    Ok(env)
}
