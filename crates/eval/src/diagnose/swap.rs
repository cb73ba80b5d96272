//! Planning with one part of the model replaced by the truth.
//!
//! Dynamics: the learned model or the simulator. Cost: distance in latent space or distance of states. Where the
//! simulator meets the latent cost, the candidates' last frames are rendered and encoded; where learned dynamics
//! meet the state cost, the predicted latents are read by the [`Probe`]. Solver, horizon and noise are the same in
//! all four cells, so differences tell model error from cost error, and what is missing in the last cell
//! (truth and truth) is the planner's.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_env::{EnvError, PROPRIO, Simulation};
use worldbench_plan::{
    Context, Cost, CostError, History, LatentModel, Mpc, Objective, PlanConfig, Shape, Solver,
};

use super::Probe;
use crate::policies::planner::{ACTION, Eyes, Seen, failed};
use crate::{EpisodeContext, EpisodePolicy, EvalError, Observation, Policy};

/// Where a part of the planner comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// From the checkpoint: learned dynamics, latent cost.
    Learned,
    /// From the simulator: true dynamics, distance of true states.
    True,
}

/// A model, a probe of its latents, and how plans are made.
#[derive(Clone)]
pub struct Subject {
    /// The model.
    pub model: Arc<dyn LatentModel>,
    /// Reads whole latents.
    pub probe: Arc<Probe>,
    /// The solver.
    pub solver: Arc<dyn Solver>,
    /// Horizon, replanning and history, in blocks.
    pub plan: PlanConfig,
    /// Which predicted steps count.
    pub objective: Objective,
}

/// One cell of the swap as a policy.
#[derive(Clone)]
pub struct Swap {
    /// What plans.
    pub subject: Subject,
    /// Source of the dynamics.
    pub dynamics: Part,
    /// Source of the cost.
    pub cost: Part,
}

impl Policy for Swap {
    fn name(&self) -> String {
        format!("dynamics {:?}, cost {:?}", self.dynamics, self.cost).to_lowercase()
    }

    fn settings(&self) -> String {
        format!("{:?} {:?} {:?}", self.subject.solver, self.subject.plan, self.subject.objective)
    }

    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        let fail = |message: String| failed(&self.name(), context.index, message);
        let problem = Problem::new(&self.subject, &context).map_err(fail)?;
        Ok(Box::new(Episode {
            swap: self.clone(),
            index: context.index,
            mpc: Mpc::new(self.subject.plan.clone(), ACTION).map_err(|e| fail(e.to_string()))?,
            history: History::new(&self.subject.plan),
            problem,
            queue: Vec::new(),
            last: None,
            left: context.budget,
            stream: context.stream,
        }))
    }
}

/// One episode's goal and its copy of the environment, kept in step with the real one.
pub(super) struct Problem {
    pub env: Box<dyn Simulation>,
    eyes: Eyes,
    goal: Vec<f64>,
    goal_frame: Vec<u8>,
    goal_latent: Vec<f32>,
}

impl Problem {
    pub fn new(subject: &Subject, context: &EpisodeContext) -> Result<Self, String> {
        let env = context.env.domain();
        let mut eyes = Eyes::new(subject.model.as_ref(), env, &context.goal.factors)?;
        let goal_frame = eyes.frame(&context.goal.render_state)?;
        let goal = context.goal.state.clone();
        let goal_latent = subject
            .model
            .latents(std::slice::from_ref(&goal_frame), &[env.spec().proprioception(&goal)])
            .map_err(|e| e.to_string())?;
        Ok(Self { env: context.env.clone(), eyes, goal, goal_frame, goal_latent })
    }

    /// Hands the frames of what was seen to `then`, as a planning context.
    pub fn with_context<R>(
        &mut self,
        seen: &[&Seen],
        actions: &[f32],
        then: impl FnOnce(&mut Self, &Context) -> Result<R, String>,
    ) -> Result<R, String> {
        let frames: Vec<Vec<u8>> = seen.iter().map(|(s, _)| self.eyes.frame(s)).collect::<Result<_, _>>()?;
        let proprio_seen: Vec<[f64; PROPRIO]> = seen.iter().map(|(_, p)| *p).collect();
        let goal_frame = self.goal_frame.clone();
        let goal_proprio = self.proprio(&self.goal);
        let context = Context {
            frames: &frames,
            proprio: &proprio_seen,
            actions,
            goal_frame: &goal_frame,
            goal_proprio,
        };
        then(self, &context)
    }

    /// Distances of the true states after each of the `candidates` `[S, H, D]`.
    ///
    /// # Errors
    /// When the goal does not fit the environment.
    pub fn true_distances(
        &self,
        model: &dyn LatentModel,
        shape: Shape,
        candidates: &[f32],
    ) -> Result<Vec<f64>, EnvError> {
        let last = |plan: &[f32]| {
            let mut env = self.env.clone();
            plan.chunks_exact(shape.dim).for_each(|block| run(model, env.as_mut(), block));
            self.distance(&env.state())
        };
        candidates.chunks_exact(shape.len()).map(last).collect()
    }

    /// What a planner on the true simulator minimises, between `state` and the goal.
    fn distance(&self, state: &[f64]) -> Result<f64, EnvError> {
        self.env.domain().cost(&self.env.scene(), state, &self.goal)
    }

    fn proprio(&self, state: &[f64]) -> [f64; PROPRIO] {
        self.env.domain().spec().proprioception(state)
    }
}

/// Executes one normalised block.
fn run(model: &dyn LatentModel, env: &mut dyn Simulation, block: &[f32]) {
    let mut actions = vec![0.0; block.len()];
    model.decode_block(block, &mut actions);
    actions.as_chunks::<ACTION>().0.iter().for_each(|action| env.step(*action));
}

/// The cost of candidates in one cell.
pub(super) struct SwapCost<'a> {
    pub swap: &'a Swap,
    pub problem: &'a mut Problem,
    pub context: &'a Context<'a>,
}

impl Cost for SwapCost<'_> {
    fn evaluate(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        costs.fill(0.0);
        match self.swap.dynamics {
            Part::Learned => self.learned(shape, candidates, costs)?,
            Part::True => self.simulated(shape, candidates, costs)?,
        }
        self.swap.subject.objective.add_control(shape, candidates, costs);
        Ok(())
    }
}

impl SwapCost<'_> {
    fn learned(&self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        let subject = &self.swap.subject;
        let paths = subject.model.rollout(self.context, shape, candidates)?; // [S, H, L]
        let width = self.problem.goal_latent.len();
        for (path, cost) in paths.chunks_exact(shape.horizon * width).zip(costs) {
            let counted = path.chunks_exact(width).enumerate();
            for (_, latent) in counted.filter(|(h, _)| subject.objective.counts(*h, shape.horizon)) {
                *cost += match self.swap.cost {
                    Part::Learned => self.latent_cost(latent),
                    Part::True => self.state_cost(&subject.probe.decode(latent))?,
                };
            }
        }
        Ok(())
    }

    fn simulated(&mut self, shape: Shape, candidates: &[f32], costs: &mut [f32]) -> Result<(), CostError> {
        let subject = &self.swap.subject;
        let (mut frames, mut seen, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for (i, plan) in candidates.chunks_exact(shape.len()).enumerate() {
            let mut env = self.problem.env.clone();
            for (h, block) in plan.chunks_exact(shape.dim).enumerate() {
                run(subject.model.as_ref(), env.as_mut(), block);
                if !subject.objective.counts(h, shape.horizon) {
                    continue;
                }
                if self.swap.cost == Part::True {
                    costs[i] += self.state_cost(&env.state())?;
                } else {
                    frames.push(self.problem.eyes.frame(&env.look())?);
                    seen.push(self.problem.proprio(&env.state()));
                    owners.push(i);
                }
            }
        }
        if !frames.is_empty() {
            let latents = subject.model.latents(&frames, &seen)?;
            let width = self.problem.goal_latent.len();
            for (latent, owner) in latents.chunks_exact(width).zip(owners) {
                costs[owner] += self.latent_cost(latent);
            }
        }
        Ok(())
    }

    fn latent_cost(&self, latent: &[f32]) -> f32 {
        let subject = &self.swap.subject;
        subject.objective.step_cost(latent, &self.problem.goal_latent, &subject.model.parts())
    }

    fn state_cost(&self, state: &[f64]) -> Result<f32, EnvError> {
        Ok(self.problem.distance(state)? as f32)
    }
}

struct Episode {
    swap: Swap,
    index: usize,
    problem: Problem,
    mpc: Mpc,
    history: History<Seen>,
    /// Environment actions of the present block, last first.
    queue: Vec<[f32; ACTION]>,
    last: Option<[f32; ACTION]>,
    left: usize,
    stream: Stream,
}

impl Episode {
    fn plan(&mut self) -> Result<(), String> {
        let (seen, actions) = self.history.context();
        let (swap, mpc, left, stream) = (&self.swap, &mut self.mpc, self.left, &self.stream);
        self.problem.with_context(&seen, &actions, |problem, context| {
            let mut cost = SwapCost { swap, problem, context };
            mpc.plan(swap.subject.solver.as_ref(), &mut cost, left, stream).map_err(|e| e.to_string())?;
            Ok(())
        })
    }

    fn next_block(&mut self) -> Result<(), String> {
        if self.mpc.needs_plan() {
            self.plan()?;
        }
        let model = &self.swap.subject.model;
        let mut block = Vec::new();
        for _ in 0..model.action_block() {
            block.extend_from_slice(self.mpc.next_action().ok_or("the plan ends within a block")?);
        }
        let mut actions = vec![0.0; block.len()];
        model.decode_block(&block, &mut actions);
        self.queue.extend(actions.as_chunks::<ACTION>().0.iter().rev());
        Ok(())
    }
}

impl EpisodePolicy for Episode {
    fn act(&mut self, observation: &Observation) -> Result<[f32; ACTION], EvalError> {
        let seen = (observation.render_state.clone(), self.problem.proprio(observation.state));
        match self.last {
            None => self.history.start(seen),
            Some(action) => self.history.push(&action, seen),
        }
        if self.queue.is_empty() {
            self.next_block().map_err(|message| failed(&self.swap.name(), self.index, message))?;
        }
        let action = self.queue.pop().unwrap_or_default();
        self.problem.env.step(action);
        self.last = Some(action);
        self.left = self.left.saturating_sub(1);
        Ok(action)
    }

    fn plan_seconds(&self) -> f64 {
        0.0
    }

    fn plans(&self) -> usize {
        self.mpc.solves() as usize
    }
}
