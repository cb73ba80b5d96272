//! Goal-conditioned policies of stable-worldmodel: networks, losses and gradients of GCBC, GCIQL, GCIVL and HILP in both
//! phases, and the moving average.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use worldbench_nn::goal_predictor::GoalPredictorConfig;
use worldbench_nn::optim::ema;
use worldbench_nn::params::to_vec;
use worldbench_nn::{Leaves, Params, Scope};

use super::{Error, Fixture, Item};
use crate::gcbc::{Gcbc, GcbcConfig};
use crate::gciql::{Gciql, GciqlConfig};
use crate::gcivl::{Gcivl, GcivlConfig};
use crate::goal::objective::{ActorLoss, advantage_weights, expectile_loss};
use crate::goal::{ACTOR, Bounds, CRITIC, GoalNetConfig, GoalSizes, Transitions, VALUE};
use crate::hilp::{Hilp, HilpConfig};
use crate::losses::Terms;

/// Name of the fixture.
pub(super) const FILE: &str = "gcrl";

/// Frames of the history.
const FRAMES: usize = 3;

/// Runs all checks of goal-conditioned policies.
pub(super) fn check(directory: &Path, device: &Device) -> Result<Vec<Item>, Error> {
    let mut check = Fixture::open(directory, FILE, device)?;
    networks(&mut check)?;
    masks(&mut check)?;
    expectiles(&mut check)?;
    gcbc(&mut check)?;
    gciql(&mut check)?;
    gcivl(&mut check)?;
    hilp(&mut check)?;
    moving_average(&mut check)?;
    Ok(check.items)
}

/// The sizes of the fixture's networks.
fn sizes() -> GoalSizes {
    GoalSizes { frames: FRAMES, patches: 16, width: 32, goal_width: 32, action: 2 }
}

fn network() -> GoalNetConfig {
    GoalNetConfig::Tokens(GoalPredictorConfig { depth: 6, heads: 2, head_width: 8, mlp: 48, q_hidden: 40 })
}

fn gciql_config() -> GciqlConfig {
    GciqlConfig { learn_std: true, ..GciqlConfig::reference(network()) }
}

fn gcivl_config() -> GcivlConfig {
    GcivlConfig { learn_std: true, ..GcivlConfig::reference(network()) }
}

fn hilp_config() -> HilpConfig {
    HilpConfig { network: network(), embedding: 12, learn_std: true, ..HilpConfig::default() }
}

/// What the fixture calls the networks whose keys start so; `metric` stands in for the value.
struct Names {
    value: &'static str,
    suffix: &'static str,
}

const STUDENT: Names = Names { value: "value", suffix: "" };
const TEACHER: Names = Names { value: "value", suffix: "_teacher" };
const METRIC: Names = Names { value: "metric", suffix: "" };
const METRIC_TEACHER: Names = Names { value: "metric", suffix: "_teacher" };

impl Names {
    /// The fixture's name of `key`.
    fn of(&self, key: &str) -> String {
        let rename = |prefix: &str, name: &str, suffix: &str| {
            let rest = key.strip_prefix(prefix)?.strip_prefix('.')?;
            Some(format!("{name}{suffix}.{rest}"))
        };
        rename(ACTOR, "actor", "")
            .or_else(|| rename(VALUE, self.value, self.suffix))
            .or_else(|| rename(CRITIC, "critic", self.suffix))
            .unwrap_or_else(|| key.to_owned())
    }
}

impl Fixture {
    /// The parameters with the fixture's weights; those without (log standard deviations) stay.
    fn named(&self, mut params: Params, names: &Names) -> Result<Params, Error> {
        let keys: Vec<String> = params.entries().iter().map(|e| e.key.clone()).collect();
        for key in keys.iter().filter(|key| key.contains('.')) {
            let values = self.array(&names.of(key))?.f32();
            match params.get_mut(key).filter(|target| target.len() == values.len()) {
                Some(target) => target.copy_from_slice(&values),
                None => return Err(self.missing(format!("{} of another shape", names.of(key)))),
            }
        }
        Ok(params)
    }

    /// Gradients of one loss under `{prefix}{fixture's key}`; a fixture without any (a reduced one) is passed over.
    fn compare_named(
        &mut self,
        prefix: &str,
        params: &Params,
        names: &Names,
        flat: &[f32],
    ) -> Result<(), Error> {
        if !self.arrays.keys().any(|key| key.starts_with(prefix)) {
            return Ok(());
        }
        for entry in params.entries() {
            let name = format!("{prefix}{}", names.of(&entry.key));
            let gradient = &flat[entry.range.clone()];
            if self.arrays.contains_key(&name) {
                self.compare(&name, gradient)?;
            } else {
                // No entry: the loss does not reach the parameter.
                let max_error = gradient.iter().fold(0.0, |max, g| f64::from(g.abs()).max(max));
                self.items.push(Item { name: format!("{name} (none)"), max_error, tolerance: 0.0 });
            }
        }
        Ok(())
    }

    fn token_frames(&self, key: &str) -> Result<Tensor<4>, Error> {
        let rows = self.tensor::<3>(key)?;
        let ([batch, rows_per, width], patches) = (rows.dims(), sizes().patches);
        Ok(rows.reshape([batch, rows_per / patches, patches, width]))
    }

    /// The batch, with goals of value and actor alike.
    fn transitions(&self, reached: &str) -> Result<Transitions, Error> {
        let tokens = self.tensor::<4>("in.batch.tokens")?;
        let goal = self.goal()?;
        Ok(Transitions {
            obs: tokens.clone().narrow(1, 0, FRAMES),
            next: tokens.narrow(1, 1, FRAMES),
            actions: self.tensor::<3>("in.batch.action")?.narrow(1, 0, FRAMES),
            value_goal: goal.clone(),
            reached: self.tensor(reached)?,
            actor_goal: goal,
        })
    }

    fn goal(&self) -> Result<Tensor<3>, Error> {
        let goal = self.tensor::<4>("in.batch.goal_tokens")?;
        let [batch, _, patches, width] = goal.dims();
        Ok(goal.reshape([batch, patches, width]))
    }

    /// The terms called `names` under `prefix`.
    fn compare_some(&mut self, prefix: &str, terms: &Terms, names: &[&str]) -> Result<(), Error> {
        for (name, value) in terms.metrics()?.into_iter().filter(|(name, _)| names.contains(name)) {
            self.compare(&format!("{prefix}{name}"), &[value as f32])?;
        }
        Ok(())
    }

    fn learner<M>(&self, params: &Params, build: impl Fn(&mut Scope) -> M) -> Result<(M, Leaves, M), Error> {
        let (model, leaves) = params.bind(&self.device, &build)?;
        Ok((model, leaves, params.bind_frozen(&self.device, &build)?))
    }

    /// Weights, values and means of the actor phase.
    fn compare_actor(
        &mut self,
        method: &str,
        means: Tensor<3>,
        [value, next_value]: [Tensor<3>; 2],
        alpha: f64,
    ) -> Result<(), Error> {
        let [batch, frames, _] = value.dims();
        let advantage = (next_value.clone() - value.clone()).reshape([batch, frames]);
        let name = |what: &str| format!("out.{method}_actor.{what}");
        self.compare_tensor(&name("weight"), advantage_weights(advantage, alpha))?;
        self.compare_tensor(&name("value"), value)?;
        self.compare_tensor(&name("next_value"), next_value)?;
        self.compare_tensor(&name("action_mean"), means)
    }
}

fn networks(check: &mut Fixture) -> Result<(), Error> {
    let (config, hilp) = (gciql_config(), hilp_config());
    let params = check.named(config.init(&sizes(), 0), &STUDENT)?;
    let net = params.bind_frozen(&check.device, |s| Gciql::build(s, &sizes(), &config))?;
    let params = check.named(hilp.init(&sizes(), 0), &METRIC)?;
    let metric = params.bind_frozen(&check.device, |s| Hilp::build(s, &sizes(), &hilp))?;
    for name in ["net_T3", "net_T2", "net_T1", "small_variance"] {
        for part in ["actor", "value", "critic", "metric"] {
            let single = name == "small_variance";
            let input = |what: &str| {
                if single { format!("in.{name}.{part}.{what}") } else { format!("in.{name}.{what}") }
            };
            let (obs, goal) = (check.token_frames(&input("obs"))?, check.tensor::<3>(&input("goal"))?);
            let found = match part {
                "actor" => net.actor.forward(&obs, &goal),
                "value" => net.value.forward(&obs, &goal),
                "metric" => metric.value.forward(&obs, &goal),
                _ => {
                    let actions = if single { "in.net_T3.action".to_owned() } else { input("action") };
                    net.critic.forward(&obs, &goal, &check.tensor(&actions)?)
                }
            };
            check.compare_tensor(&format!("out.{name}.{part}"), found)?;
        }
    }
    let same = check.token_frames("in.metric_same.obs")?;
    let goal = check.tensor("in.metric_same.obs")?;
    check.compare_tensor("out.metric_same", metric.value.forward(&same, &goal))
}

/// Frames whose tokens, and on request proprioception, are the goal's, bit for bit.
fn masks(check: &mut Fixture) -> Result<(), Error> {
    let equal = |frames: Tensor<3>, goal: Tensor<3>| -> Result<Vec<f32>, Error> {
        let [batch, steps, _] = frames.dims();
        let same = frames.clone().equal(goal.expand(frames.dims())).float();
        Ok(to_vec(same.min_dim(2).reshape([batch, steps]))?)
    };
    let tokens = check.tensor::<4>("in.batch.tokens")?.narrow(1, 0, FRAMES);
    let goal = check.tensor::<4>("in.batch.goal_tokens")?;
    let pixels = equal(tokens.flatten(2, 3), goal.flatten(2, 3))?;
    let proprio = check.tensor::<3>("in.batch.proprio")?.narrow(1, 0, FRAMES);
    let proprio = equal(proprio, check.tensor("in.batch.goal_proprio")?)?;
    check.compare("out.reached_pixels_only", &pixels)?;
    let both: Vec<f32> = pixels.iter().zip(&proprio).map(|(a, b)| a * b).collect();
    check.compare("out.reached_pixels_and_proprio", &both)
}

fn expectiles(check: &mut Fixture) -> Result<(), Error> {
    for expectile in [0.7, 0.9] {
        let predicted = check.tensor::<1>("in.expectile.pred")?.require_grad();
        let residual = check.tensor::<1>("in.expectile.target")? - predicted.clone();
        let loss = expectile_loss(residual.clone(), residual, expectile);
        let name = format!("out.expectile.{expectile}");
        check.compare_tensor(&name, loss.clone())?;
        let slope = predicted.grad_remove(&mut loss.backward()).map_or_else(|| Ok(vec![]), to_vec)?;
        check.compare(&format!("{name}.grad_pred"), &slope)?;
    }
    Ok(())
}

fn gcbc(check: &mut Fixture) -> Result<(), Error> {
    let config = GcbcConfig { network: network() };
    let params = check.named(config.init(&sizes(), 0), &STUDENT)?;
    let (model, leaves) = params.bind(&check.device, |s| Gcbc::build(s, &sizes(), &config))?;
    let batch = check.transitions("out.reached_pixels_only")?;
    let goal = &batch.actor_goal;
    let terms = model.loss(&batch.obs, goal, batch.actions.clone());
    check.compare_some("out.gcbc.", &terms, &["loss"])?;
    check.compare_tensor("out.gcbc.action_mean", model.actor.forward(&batch.obs, goal))?;
    let last = batch.obs.narrow(1, FRAMES - 1, 1);
    check.compare_tensor("out.gcbc.action_mean_single_frame_2", model.actor.forward(&last, goal))?;
    check.compare_named("grad_gcbc.", &params, &STUDENT, &leaves.gradients(&terms.total)?)
}

fn gciql(check: &mut Fixture) -> Result<(), Error> {
    let config = gciql_config();
    let build = |scope: &mut Scope| Gciql::build(scope, &sizes(), &config);
    let params = check.named(config.init(&sizes(), 0), &STUDENT)?;
    let (model, leaves, frozen) = check.learner(&params, build)?;
    let target = check.named(params.clone(), &TEACHER)?.bind_frozen(&check.device, build)?;
    let batch = check.transitions("out.reached_pixels_only")?;
    let terms = model.value_loss(&frozen, &target, &batch);
    check.compare_some("out.gciql.", &terms, &["loss", "value_loss", "critic_loss"])?;
    check.compare_named("grad_gciql.", &params, &STUDENT, &leaves.gradients(&terms.total)?)?;

    let (model, leaves, _) = check.learner(&params, build)?;
    let terms = model.actor_loss(&frozen, &batch, &Bounds::symmetric(1.0, sizes().action));
    check.compare_some("out.gciql_actor.", &terms, &["awr_loss"])?;
    check.compare_named("grad_gciql_actor.", &params, &STUDENT, &leaves.gradients(&terms.total)?)?;
    let Transitions { obs, next, actor_goal: goal, .. } = &batch;
    let values = [obs, next].map(|obs| frozen.value.forward(obs, goal));
    let ActorLoss::Awr { alpha } = config.actor else { return Ok(()) };
    check.compare_actor("gciql", frozen.actor.forward(obs, goal), values, alpha)
}

fn gcivl(check: &mut Fixture) -> Result<(), Error> {
    let config = gcivl_config();
    let build = |scope: &mut Scope| Gcivl::build(scope, &sizes(), &config);
    let params = check.named(config.init(&sizes(), 0), &STUDENT)?;
    let (model, leaves, frozen) = check.learner(&params, build)?;
    let target = check.named(params.clone(), &TEACHER)?.bind_frozen(&check.device, build)?;
    let batch = check.transitions("out.reached_pixels_only")?;
    let terms = model.value_loss(&target, &batch);
    check.compare_some("out.gcivl.", &terms, &["loss", "value_loss"])?;
    check.compare_named("grad_gcivl.", &params, &STUDENT, &leaves.gradients(&terms.total)?)?;

    let (model, leaves, _) = check.learner(&params, build)?;
    let terms = model.actor_loss(&frozen, &batch);
    check.compare_some("out.gcivl_actor.", &terms, &["awr_loss"])?;
    check.compare_named("grad_gcivl_actor.", &params, &STUDENT, &leaves.gradients(&terms.total)?)?;
    let Transitions { obs, next, actor_goal: goal, .. } = &batch;
    let values = [obs, next].map(|obs| frozen.value.forward(obs, goal));
    check.compare_actor("gcivl", frozen.actor.forward(obs, goal), values, config.alpha)
}

fn hilp(check: &mut Fixture) -> Result<(), Error> {
    let config = hilp_config();
    let build = |scope: &mut Scope| Hilp::build(scope, &sizes(), &config);
    let params = check.named(config.init(&sizes(), 0), &METRIC)?;
    let (model, leaves, frozen) = check.learner(&params, build)?;
    let target = check.named(params.clone(), &METRIC_TEACHER)?.bind_frozen(&check.device, build)?;
    let batch = check.transitions("out.reached_pixels_and_proprio")?;
    let terms = model.value_loss(&target, &batch);
    check.compare_some("out.hilp.", &terms, &["loss", "value_loss"])?;
    check.compare_named("grad_hilp.", &params, &METRIC, &leaves.gradients(&terms.total)?)?;

    let (model, leaves, _) = check.learner(&params, build)?;
    let terms = model.actor_loss(&frozen, &batch);
    check.compare_some("out.hilp_actor.", &terms, &["awr_loss"])?;
    check.compare_named("grad_hilp_actor.", &params, &METRIC, &leaves.gradients(&terms.total)?)?;
    let Transitions { obs, next, actor_goal: goal, .. } = &batch;
    let values = [obs, next].map(|obs| frozen.value.forward(obs, goal));
    check.compare_actor("hilp", frozen.actor.forward(obs, goal), values, config.alpha)
}

/// The target value after one and three updates towards the fixed online value.
fn moving_average(check: &mut Fixture) -> Result<(), Error> {
    let config = gcivl_config();
    let online = check.named(config.init(&sizes(), 0), &STUDENT)?;
    let mut target = check.named(online.clone(), &TEACHER)?;
    for step in 1..=3 {
        ema(&mut target.values, &online.values, config.ema);
        let prefix = format!("out.ema.after{step}");
        for entry in target.entries().iter().filter(|e| e.key.starts_with(VALUE)) {
            let name = format!("{prefix}{}", entry.key.trim_start_matches(VALUE));
            if check.arrays.contains_key(&name) {
                check.compare(&name, &target.values[entry.range.clone()])?;
            }
        }
    }
    Ok(())
}
