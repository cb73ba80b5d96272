//! A learned world model with a planner as a policy: model-predictive control in latent space.
//!
//! It sees pixels rendered from the observation and, if the model asks for them, the agent's position and velocity.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;
use worldbench_env::raster::Filter;
use worldbench_env::{Camera, DomainRef, Look, PROPRIO, Scene};
use worldbench_plan::{Context, History, Mpc, Objective, PlanConfig, Solver, SolverConfig, WorldModel};

use crate::{EpisodeContext, EpisodePolicy, EvalError, Observation, Policy};

/// Width of an environment action.
pub(crate) const ACTION: usize = 2;

/// Everything about planning that a configuration file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannerConfig {
    /// The solver.
    pub solver: SolverConfig,
    /// Horizon, replanning and history, in blocks.
    pub plan: PlanConfig,
    /// What candidate plans are scored by.
    pub objective: Objective,
}

impl PlannerConfig {
    /// Puts a planner together.
    ///
    /// # Errors
    /// Names the key of the solver, the plan or the objective that is out of range.
    pub fn build(
        &self,
        name: String,
        checkpoint: String,
        model: Arc<dyn WorldModel>,
    ) -> Result<Planner, worldbench_plan::PlanError> {
        let solver = self.solver()?;
        Ok(Planner { name, checkpoint, model, solver, plan: self.plan.clone(), objective: self.objective })
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// As [`PlannerConfig::build`].
    pub fn check(&self) -> Result<(), worldbench_plan::PlanError> {
        self.solver().map(|_| ())
    }

    fn solver(&self) -> Result<Arc<dyn Solver>, worldbench_plan::PlanError> {
        self.plan.validate()?;
        self.objective.validate()?;
        Ok(Arc::from(self.solver.build()?))
    }
}

/// A world model, a solver and how they are used.
pub struct Planner {
    /// Short name for tables, e.g. `pldm-mppi`.
    pub name: String,
    /// Hash of the weights.
    pub checkpoint: String,
    /// The model.
    pub model: Arc<dyn WorldModel>,
    /// The solver.
    pub solver: Arc<dyn Solver>,
    /// Horizon, replanning and history, in blocks.
    pub plan: PlanConfig,
    /// What candidate plans are scored by.
    pub objective: Objective,
}

impl Policy for Planner {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn checkpoint(&self) -> String {
        self.checkpoint.clone()
    }

    fn settings(&self) -> String {
        format!("{:?} {:?} {:?}", self.solver, self.plan, self.objective)
    }

    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        let fail = |message: String| failed(&self.name, context.index, message);
        self.plan.check_block(self.model.action_block()).map_err(|e| fail(e.to_string()))?;
        let (goal, env) = (context.goal, context.env.domain());
        let mut eyes = Eyes::new(self.model.as_ref(), env, &goal.factors).map_err(fail)?;
        Ok(Box::new(Episode {
            name: self.name.clone(),
            index: context.index,
            model: Arc::clone(&self.model),
            solver: Arc::clone(&self.solver),
            objective: self.objective,
            goal_frame: eyes.frame(&goal.render_state).map_err(fail)?,
            goal_proprio: env.spec().proprioception(&goal.state),
            env,
            history: History::new(&self.plan),
            mpc: Mpc::new(self.plan.clone(), ACTION).map_err(|e| fail(e.to_string()))?,
            eyes,
            queue: Vec::new(),
            last_action: None,
            left: context.budget,
            stream: context.stream,
            seconds: 0.0,
            costs: Vec::new(),
        }))
    }
}

pub(crate) fn failed(policy: &str, episode: usize, message: String) -> EvalError {
    EvalError::Policy { policy: policy.into(), episode, message }
}

/// Renders what the model looks at.
pub(crate) struct Eyes {
    camera: Box<dyn Camera>,
    bytes: usize,
}

impl Eyes {
    pub(crate) fn new(
        model: &(impl WorldModel + ?Sized),
        env: DomainRef,
        factors: &Scene,
    ) -> Result<Self, String> {
        Self::of(model.resolution(), model.area_filter(), env, factors)
    }

    /// Frames of `resolution` pixels, box-averaged with `area`, else the reference's resize.
    pub(crate) fn of(resolution: usize, area: bool, env: DomainRef, factors: &Scene) -> Result<Self, String> {
        let filter = if area { Filter::Area } else { Filter::Linear };
        let camera = env.camera(factors, resolution, filter).map_err(|e| e.to_string())?;
        Ok(Self { camera, bytes: resolution * resolution * 3 })
    }

    pub(crate) fn frame(&mut self, state: &Look) -> Result<Vec<u8>, String> {
        let mut frame = vec![0; self.bytes];
        self.camera.shoot(state, &mut frame).map_err(|e| e.to_string())?;
        Ok(frame)
    }
}

/// What was seen at one step; rendered only when a plan needs it.
pub(crate) type Seen = (Look, [f64; PROPRIO]);

struct Episode {
    name: String,
    index: usize,
    model: Arc<dyn WorldModel>,
    solver: Arc<dyn Solver>,
    objective: Objective,
    goal_frame: Vec<u8>,
    goal_proprio: [f64; PROPRIO],
    env: DomainRef,
    history: History<Seen>,
    mpc: Mpc,
    eyes: Eyes,
    /// Environment actions of the present block, last first.
    queue: Vec<[f32; ACTION]>,
    last_action: Option<[f32; ACTION]>,
    left: usize,
    stream: Stream,
    seconds: f64,
    costs: Vec<Vec<f32>>,
}

impl Episode {
    fn plan(&mut self) -> Result<(), String> {
        let (seen, actions) = self.history.context();
        let proprio: Vec<[f64; PROPRIO]> = seen.iter().map(|(_, proprio)| *proprio).collect();
        let frames: Vec<Vec<u8>> =
            seen.iter().map(|(state, _)| self.eyes.frame(state)).collect::<Result<_, _>>()?;
        let context = Context {
            frames: &frames,
            proprio: &proprio,
            actions: &actions,
            goal_frame: &self.goal_frame,
            goal_proprio: self.goal_proprio,
        };
        let mut cost = self.model.problem(&context, self.objective).map_err(|e| e.to_string())?;
        let solution = self
            .mpc
            .plan(self.solver.as_ref(), cost.as_mut(), self.left, &self.stream)
            .map_err(|e| e.to_string())?;
        self.costs.push(solution.history.iter().map(|iteration| iteration.best_cost).collect());
        Ok(())
    }

    /// Decodes the next block of the plan into environment actions.
    fn next_block(&mut self) -> Result<(), String> {
        if self.mpc.needs_plan() {
            let start = Instant::now();
            self.plan()?;
            self.seconds += start.elapsed().as_secs_f64();
        }
        let steps = self.model.action_block();
        let mut block = Vec::with_capacity(steps * ACTION);
        for _ in 0..steps {
            block.extend_from_slice(self.mpc.next_action().ok_or("the plan ends within a block")?);
        }
        let mut actions = vec![0.0; steps * ACTION];
        self.model.decode_block(&block, &mut actions);
        self.queue.extend(actions.as_chunks::<ACTION>().0.iter().rev());
        Ok(())
    }
}

impl EpisodePolicy for Episode {
    fn act(&mut self, observation: &Observation) -> Result<[f32; ACTION], EvalError> {
        let proprio = self.env.spec().proprioception(observation.state);
        let seen = (observation.render_state.clone(), proprio);
        match self.last_action {
            None => self.history.start(seen),
            Some(action) => self.history.push(&action, seen),
        }
        if self.queue.is_empty() {
            self.next_block().map_err(|message| failed(&self.name, self.index, message))?;
        }
        let action = self.queue.pop().unwrap_or_default();
        self.last_action = Some(action);
        self.left = self.left.saturating_sub(1);
        Ok(action)
    }

    fn plan_seconds(&self) -> f64 {
        self.seconds
    }

    fn plans(&self) -> usize {
        self.mpc.solves() as usize
    }

    fn plan_costs(&self) -> Vec<Vec<f32>> {
        self.costs.clone()
    }
}
