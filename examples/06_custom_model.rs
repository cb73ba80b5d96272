//! A world model of your own, planned with and scored like the built-in ones. `cargo run --release --example 06_custom_model`
//!
//! This one does not learn: it adds up actions from where the agent stands, and so walks into the wall of Two-Room when the
//! goal lies in the other room.

use std::sync::Arc;

use worldbench_eval::policies::PlannerConfig;
use worldbench_eval::protocol::{DEFAULT, Split};
use worldbench_eval::{EvalOptions, Protocol, evaluate};
use worldbench_plan::{Context, Cost, CostError, Objective, Shape, WorldModel};

/// Pixels per unit of action.
const SPEED: f64 = 5.0;

struct DeadReckoning;

impl WorldModel for DeadReckoning {
    fn resolution(&self) -> usize {
        16 // frames are rendered for every model, also for one that does not look at them
    }

    fn area_filter(&self) -> bool {
        true
    }

    fn action_block(&self) -> usize {
        5
    }

    fn max_history(&self) -> usize {
        1
    }

    fn problem<'a>(&'a self, context: &Context, _: Objective) -> Result<Box<dyn Cost + 'a>, CostError> {
        let now = context.proprio.last().copied().ok_or("the context is empty")?;
        let goal = context.goal_proprio;
        Ok(Box::new(move |shape: Shape, candidates: &[f32], costs: &mut [f32]| {
            for (plan, cost) in candidates.chunks_exact(shape.len()).zip(costs) {
                let mut at = [now[0], now[1]]; // the agent's position; its velocity follows
                for action in plan.as_chunks::<2>().0 {
                    at.iter_mut()
                        .zip(action)
                        .for_each(|(at, a)| *at += SPEED * f64::from(a.clamp(-1.0, 1.0)));
                }
                *cost = ((at[0] - goal[0]).powi(2) + (at[1] - goal[1]).powi(2)) as f32;
            }
        }))
    }

    /// Planners search in normalised actions; here these are the environment's own.
    fn decode_block(&self, block: &[f32], actions: &mut [f32]) {
        actions.copy_from_slice(block);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config: PlannerConfig = toml::from_str(include_str!("../configs/plan/cem.toml"))?;
    let planner = config.build("dead-reckoning".into(), String::new(), Arc::new(DeadReckoning))?;
    let protocol = Protocol::find(DEFAULT, "two_room")?;
    let manifest = protocol.manifest(Split::Dev)?;
    let options = EvalOptions { limit: Some(20), ..EvalOptions::default() };
    let score = evaluate(&protocol, &manifest, &planner, &options)?.score;
    println!("success {}; goal in the other room {}", score.all.text(), score.block_moved.text());
    Ok(())
}
