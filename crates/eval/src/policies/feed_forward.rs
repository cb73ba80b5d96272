//! A learned goal-conditioned policy: one forward pass per environment step, or per few steps of an action chunk.
//!
//! It sees pixels rendered from the observation and, if the model asks for them, the agent's position and velocity.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use worldbench_env::Spec;
use worldbench_plan::GoalPolicy;

use super::planner::{ACTION, Eyes, failed};
use crate::{EpisodeContext, EpisodePolicy, EvalError, Observation, Policy};

/// How a policy is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedForwardConfig {
    /// Actions of a chunk that are executed before the policy looks again, at least 1; at most the policy's chunk.
    pub execute: usize,
}

impl Default for FeedForwardConfig {
    fn default() -> Self {
        Self { execute: 1 }
    }
}

impl FeedForwardConfig {
    /// Checks it for a policy that gives `chunk` actions in a forward pass.
    ///
    /// # Errors
    /// When more actions are to be executed, or none.
    pub fn check(&self, chunk: usize) -> Result<(), EvalError> {
        let execute = self.execute;
        if (1..=chunk).contains(&execute) {
            return Ok(());
        }
        let problem = format!("execute = {execute}: this policy gives 1 to {chunk} actions at a time");
        Err(EvalError::Options(problem))
    }
}

/// A policy network and how it is used.
pub struct FeedForward {
    name: String,
    checkpoint: String,
    model: Arc<dyn GoalPolicy>,
    config: FeedForwardConfig,
}

impl FeedForward {
    /// The policy `model`, called `name` in tables, with the hash `checkpoint` of its weights.
    ///
    /// # Errors
    /// When more actions are to be executed than a forward pass gives.
    pub fn new(
        name: String,
        checkpoint: String,
        model: Arc<dyn GoalPolicy>,
        config: FeedForwardConfig,
    ) -> Result<Self, EvalError> {
        config.check(model.chunk())?;
        Ok(Self { name, checkpoint, model, config })
    }
}

impl Policy for FeedForward {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn checkpoint(&self) -> String {
        self.checkpoint.clone()
    }

    fn settings(&self) -> String {
        format!("{:?}", self.config)
    }

    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        let fail = |message: String| failed(&self.name, context.index, message);
        let (goal, env) = (context.goal, context.env.domain());
        let (resolution, area) = (self.model.resolution(), self.model.area_filter());
        let mut eyes = Eyes::of(resolution, area, env, &goal.factors).map_err(fail)?;
        let (frame, spec) = (eyes.frame(&goal.render_state).map_err(fail)?, env.spec());
        let goal = self.model.observe(&frame, &spec.proprioception(&goal.state));
        let goal = goal.map_err(|e| fail(e.to_string()))?;
        Ok(Box::new(Episode {
            name: self.name.clone(),
            index: context.index,
            model: Arc::clone(&self.model),
            eyes,
            spec,
            goal,
            seen: VecDeque::new(),
            queue: VecDeque::new(),
            execute: self.config.execute,
        }))
    }
}

struct Episode {
    name: String,
    index: usize,
    model: Arc<dyn GoalPolicy>,
    eyes: Eyes,
    spec: &'static Spec,
    goal: Vec<f32>,
    /// The newest observations, oldest first, at most the policy's history.
    seen: VecDeque<Vec<f32>>,
    /// Actions of the present chunk that are left to execute.
    queue: VecDeque<[f32; ACTION]>,
    execute: usize,
}

impl Episode {
    fn look(&mut self, observation: &Observation) -> Result<(), String> {
        let frame = self.eyes.frame(observation.render_state)?;
        let proprio = self.spec.proprioception(observation.state);
        let seen = self.model.observe(&frame, &proprio).map_err(|e| e.to_string())?;
        if self.seen.len() == self.model.history() {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
        Ok(())
    }

    fn next(&mut self, observation: &Observation) -> Result<[f32; ACTION], String> {
        // With one frame of history nothing is looked at that no action depends on.
        if self.queue.is_empty() || self.model.history() > 1 {
            self.look(observation)?;
        }
        if self.queue.is_empty() {
            let observations = self.seen.make_contiguous().concat(); // [T, P * D]
            let actions = self.model.act(&observations, &self.goal).map_err(|e| e.to_string())?;
            self.queue.extend(actions.as_chunks::<ACTION>().0.iter().take(self.execute));
        }
        self.queue.pop_front().ok_or_else(|| "the policy gives no action".to_string())
    }
}

impl EpisodePolicy for Episode {
    fn act(&mut self, observation: &Observation) -> Result<[f32; ACTION], EvalError> {
        self.next(observation).map_err(|message| failed(&self.name, self.index, message))
    }
}

#[cfg(test)]
mod tests {
    use worldbench_plan::CostError;

    use super::*;
    use crate::protocol::{Protocol, Split};
    use crate::{EvalOptions, evaluate};

    /// Moves the agent towards the goal's agent position, by a share of what is left at the time of the look.
    struct Chaser;

    impl GoalPolicy for Chaser {
        fn resolution(&self) -> usize {
            16
        }

        fn area_filter(&self) -> bool {
            true
        }

        fn history(&self) -> usize {
            2
        }

        fn chunk(&self) -> usize {
            3
        }

        fn observe(&self, frame: &[u8], proprio: &[f64; 4]) -> Result<Vec<f32>, CostError> {
            assert_eq!(frame.len(), 16 * 16 * 3);
            Ok(proprio.iter().map(|&v| v as f32).collect())
        }

        fn act(&self, observations: &[f32], goal: &[f32]) -> Result<Vec<f32>, CostError> {
            assert!([4, 8].contains(&observations.len()));
            let last = &observations[observations.len() - 4..];
            let step = [0, 1].map(|i| 0.2 * (goal[i] - last[i]) / 100.0);
            Ok(step.repeat(3))
        }

        fn value(&self, _: &[f32], _: &[f32]) -> Result<Option<f32>, CostError> {
            Ok(None)
        }
    }

    #[test]
    fn a_chunk_is_executed_as_far_as_asked_and_threads_change_nothing() {
        let protocol = Protocol::find("held-out", "push_t").unwrap();
        let manifest = protocol.manifest(Split::Dev).unwrap();
        let run = |execute, threads| {
            let config = FeedForwardConfig { execute };
            let policy = FeedForward::new("chaser".into(), String::new(), Arc::new(Chaser), config).unwrap();
            let options = EvalOptions { threads, limit: Some(6), ..EvalOptions::default() };
            evaluate(&protocol, &manifest, &policy, &options).unwrap().outcomes
        };
        let (one, three) = (run(1, 1), run(3, 1));
        assert_eq!(one, run(1, 2));
        assert!(three[0].actions[0] == three[0].actions[2] && three[0].actions[2] != three[0].actions[3]);
        assert!(one[0].actions[0] == three[0].actions[0] && one[0].actions[1] != three[0].actions[1]);
        let config = FeedForwardConfig { execute: 4 };
        let refused = FeedForward::new("chaser".into(), String::new(), Arc::new(Chaser), config);
        assert!(refused.err().unwrap().to_string().contains("1 to 3"));
    }
}
