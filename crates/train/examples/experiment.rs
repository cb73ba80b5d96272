//! Scratch: train and score a compact configuration.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;
use worldbench_core::config::Layers;
use worldbench_data::{Split, Store};
use worldbench_eval::policies::Planner;
use worldbench_eval::protocol::{Protocol, Split as S};
use worldbench_eval::{EvalOptions, evaluate};
use worldbench_plan::{Objective, PlanConfig, SolverConfig};
use worldbench_train::{CompactLearner, Learner, TrainConfig, Trainer, compact};
#[global_allocator]
static G: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "collect" => {
            let mut c = worldbench_eval::CollectConfig::default();
            for kv in &args[3..] { c = Layers::new(&c).unwrap().set(kv).unwrap().resolve().unwrap(); }
            let t = std::time::Instant::now();
            worldbench_eval::collect(&c, args[2].as_ref(), |_| ()).unwrap();
            println!("collected in {:?}", t.elapsed());
        }
        "train" => {
            // train DIR STORE CONFIG k=v...
            let mut l = Layers::new(&toml::from_str::<TrainConfig>(&std::fs::read_to_string(&args[4]).unwrap()).unwrap()).unwrap();
            for kv in &args[5..] { l = l.set(kv).unwrap(); }
            let config: TrainConfig = l.resolve().unwrap();
            let store = Arc::new(Store::open(&args[3]).unwrap());
            let split = Split::by_source(&store, config.validation, config.seed);
            let mut learner = CompactLearner::new(&config, &store, &split).unwrap();
            println!("{} params", learner.params().len());
            let spec = compact::window_spec(&config);
            let mut t = Trainer::open(&config, args[2].as_ref(), store, split, spec, &mut learner).unwrap();
            let start = std::time::Instant::now();
            t.run(&mut learner, &mut |p| {
                if p.step % 200 == 0 || p.step == 20 {
                    let m: Vec<String> = p.metrics.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
                    println!("{} {:.0}s {:.0}/s {}", p.step, start.elapsed().as_secs_f64(), p.samples_per_s, m.join(" "));
                }
                true
            }).unwrap();
        }
        _ => {
            // eval DIR plan-toml solver-toml n
            let (model, _, report) = compact::load(args[2].as_ref()).unwrap();
            let mut plan: PlanConfig = PlanConfig::default();
            let mut solver = Layers::new(&SolverConfig::default()).unwrap();
            let mut objective = Objective::default();
            let mut n = 200;
            let mut threads = 0;
            for kv in &args[3..] {
                if let Some(x) = kv.strip_prefix("plan.") { plan = Layers::new(&plan).unwrap().set(x).unwrap().resolve().unwrap(); }
                else if let Some(x) = kv.strip_prefix("obj.") { objective = Layers::new(&objective).unwrap().set(x).unwrap().resolve().unwrap(); }
                else if let Some(x) = kv.strip_prefix("n=") { n = x.parse().unwrap(); }
                else if let Some(x) = kv.strip_prefix("threads=") { threads = x.parse().unwrap(); }
                else if let Some(x) = kv.strip_prefix("solver=") { solver = Layers::new(&toml::from_str::<SolverConfig>(&format!("kind=\"{x}\"")).unwrap()).unwrap(); }
                else { solver = solver.set(kv).unwrap(); }
            }
            let solver: SolverConfig = solver.resolve().unwrap();
            let policy = Planner { name: "x".into(), checkpoint: String::new(), model: Arc::new(model), solver: solver.build().unwrap().into(), plan, objective };
            let p = Protocol::find("held-out").unwrap();
            let m = p.manifest(S::Dev).unwrap();
            let t = std::time::Instant::now();
            let e = evaluate(&p, &m, &policy, &EvalOptions { seed: 0, threads, limit: Some(n), ..Default::default() }).unwrap();
            println!("{} {:?} | all {} | moved {} | {:.2} s/plan | {:?}", report, &args[2..], e.score.all.text(), e.score.block_moved.text(), e.score.seconds_per_plan, t.elapsed());
        }
    }
}
