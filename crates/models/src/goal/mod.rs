//! Goal-conditioned networks: actor, value and critic, as the reference's token transformers or as OGBench's perceptrons.
//!
//! Both kinds read observations `[B, T, P, D]` and a goal `[B, P, D]`. The transformer looks back over the T frames, the
//! perceptron takes every frame by itself, its P tokens side by side. Several heads are independent networks (an
//! ensemble). Parameter keys start with [`ACTOR`], [`VALUE`] and [`CRITIC`], as in stable-worldmodel; the members of an
//! ensemble are numbered.

pub mod objective;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use worldbench_nn::goal_predictor::{
    GoalPredictor, GoalPredictorConfig, MetricPredictor, Pooling, QPredictor, TokenSizes, metric_value,
};
use worldbench_nn::mlp::{Mlp, MlpConfig};
use worldbench_nn::{Init, Scope};

/// Prefix of the actor's keys, without the dot.
pub const ACTOR: &str = "action_predictor";
/// Prefix of the value's keys.
pub const VALUE: &str = "value_predictor";
/// Prefix of the critic's keys.
pub const CRITIC: &str = "critic_predictor";
/// Key of the logarithms of the actor's standard deviations.
pub const LOG_STDS: &str = "log_stds";

/// Factor of the variance of an actor's output weights at the start (OGBench).
const ACTOR_GAIN: f32 = 1e-2;

/// The kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum GoalNetConfig {
    /// Alternating block-causal self-attention and cross-attention to the goal's tokens.
    Tokens(GoalPredictorConfig),
    /// Perceptron over observation and goal side by side.
    Mlp(MlpConfig),
}

impl Default for GoalNetConfig {
    fn default() -> Self {
        Self::Mlp(MlpConfig::default())
    }
}

/// Sizes of what the networks read and write.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoalSizes {
    /// Longest context in frames; perceptrons take any.
    pub frames: usize,
    /// Tokens per frame P; 1 for a flat vector.
    pub patches: usize,
    /// Width D of an observation's token.
    pub width: usize,
    /// Width of a goal's token; other than `width` for perceptrons only.
    pub goal_width: usize,
    /// Numbers per action or action block A.
    pub action: usize,
}

impl GoalSizes {
    /// Flat observations and goals of `width` numbers.
    #[must_use]
    pub fn flat(width: usize, action: usize) -> Self {
        Self { frames: 1, patches: 1, width, goal_width: width, action }
    }

    /// The published size on DINOv2-small at 224 pixels: three frames of 256 tokens of width 384.
    #[must_use]
    pub fn full(action: usize) -> Self {
        Self { frames: 3, patches: 256, width: 384, goal_width: 384, action }
    }

    fn tokens(&self) -> TokenSizes {
        TokenSizes { frames: self.frames, patches: self.patches, width: self.width }
    }
}

/// Says what is wrong with a network of these sizes.
///
/// # Errors
/// A size is 0, the transformer's goals have another width than observations, or the actor's pooling layer is missing.
pub fn check(config: &GoalNetConfig, sizes: &GoalSizes) -> Result<(), String> {
    let GoalSizes { frames, patches, width, goal_width, action } = *sizes;
    if [frames, patches, width, goal_width, action].contains(&0) {
        return Err(format!("sizes of goal-conditioned networks must be at least 1, not {sizes:?}"));
    }
    match config {
        GoalNetConfig::Mlp(MlpConfig { hidden: 0, .. }) => {
            Err("network.hidden must be at least 1".to_owned())
        }
        GoalNetConfig::Mlp(_) => Ok(()),
        GoalNetConfig::Tokens(c) if [c.depth, c.heads, c.head_width, c.mlp, c.q_hidden].contains(&0) => {
            Err("network.depth, heads, head_width, mlp and q_hidden must be at least 1".to_owned())
        }
        GoalNetConfig::Tokens(_) if goal_width != width => Err(format!(
            "network.kind = \"tokens\" needs goals like observations, but their widths are {goal_width} and {width}; use \"mlp\""
        )),
        GoalNetConfig::Tokens(_) => Ok(()),
    }
}

/// Says which of the named settings is not inside its open range.
pub(crate) fn within(settings: &[(&str, f64, [f64; 2])]) -> Result<(), String> {
    match settings.iter().find(|(_, value, [low, high])| !(value > low && value < high)) {
        Some((name, value, [low, high])) => {
            Err(format!("{name} must be above {low} and below {high}, not {value}"))
        }
        None => Ok(()),
    }
}

/// Ranges of settings for [`within`]: between 0 and 1, and above 0.
pub(crate) const UNIT: [f64; 2] = [0.0, 1.0];
pub(crate) const POSITIVE: [f64; 2] = [0.0, f64::INFINITY];

/// Says which setting of a method with a learned value is out of range; `alpha` comes with its name.
pub(crate) fn value_settings(
    [discount, expectile, ema]: [f64; 3],
    (name, alpha): (&str, f64),
) -> Result<(), String> {
    within(&[
        ("discount", discount, UNIT),
        ("expectile", expectile, UNIT),
        ("ema", ema, UNIT),
        (name, alpha, POSITIVE),
    ])
}

/// Says so when there is no head.
pub(crate) fn some_heads(heads: usize) -> Result<(), String> {
    if heads == 0 { Err("heads must be at least 1".to_owned()) } else { Ok(()) }
}

/// `[B, T, P, D]` to `[B, T, P D]`.
fn flat(tokens: &Tensor<4>) -> Tensor<3> {
    let [batch, frames, patches, width] = tokens.dims();
    tokens.clone().reshape([batch, frames, patches * width])
}

/// Observation and goal of every frame side by side, `[B, T, P D + P G]`.
fn side_by_side(obs: &Tensor<4>, goal: &Tensor<3>) -> Tensor<3> {
    let ([batch, frames, ..], [_, patches, width]) = (obs.dims(), goal.dims());
    let goal = goal.clone().reshape([batch, 1, patches * width]).expand([batch, frames, patches * width]);
    Tensor::cat(vec![flat(obs), goal], 2)
}

fn join(outputs: impl Iterator<Item = Tensor<3>>) -> Tensor<3> {
    let mut outputs: Vec<_> = outputs.collect();
    if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::cat(outputs, 2) }
}

/// Keys of an ensemble's members: the plain prefix for a single one.
fn members(key: &str, heads: usize) -> Vec<String> {
    match heads {
        1 => vec![key.to_owned()],
        _ => (0..heads).map(|i| format!("{key}.{i}")).collect(),
    }
}

fn perceptron(
    scope: &mut Scope,
    key: &str,
    inputs: usize,
    outputs: usize,
    gain: f32,
    config: MlpConfig,
) -> Box<Mlp> {
    Box::new(Mlp::new(scope, key, [inputs, outputs], gain, config))
}

#[derive(Clone, Debug)]
enum Net {
    Tokens(Box<GoalPredictor>),
    Mlp(Box<Mlp>),
}

/// An actor or a value network, bound to a device.
#[derive(Clone, Debug)]
pub struct GoalNet(Vec<Net>);

impl GoalNet {
    /// An actor under [`ACTOR`] with `outputs` numbers per frame; a perceptron's start close to 0.
    pub fn actor(scope: &mut Scope, config: &GoalNetConfig, sizes: &GoalSizes, outputs: usize) -> Self {
        let net = Self::member(scope, ACTOR, config, sizes, outputs, Pooling::Attention, ACTOR_GAIN);
        Self(vec![net])
    }

    /// Value networks under [`VALUE`], `heads` (at least 1) independent ones.
    pub fn value(scope: &mut Scope, config: &GoalNetConfig, sizes: &GoalSizes, heads: usize) -> Self {
        let member = |key: &String| Self::member(scope, key, config, sizes, 1, Pooling::Mean, 1.0);
        Self(members(VALUE, heads).iter().map(member).collect())
    }

    fn member(
        scope: &mut Scope,
        key: &str,
        config: &GoalNetConfig,
        sizes: &GoalSizes,
        outputs: usize,
        pooling: Pooling,
        gain: f32,
    ) -> Net {
        match *config {
            GoalNetConfig::Tokens(config) => {
                let net = GoalPredictor::new(scope, key, sizes.tokens(), outputs, pooling, config);
                Net::Tokens(Box::new(net))
            }
            GoalNetConfig::Mlp(config) => {
                let inputs = sizes.patches * (sizes.width + sizes.goal_width);
                Net::Mlp(perceptron(scope, key, inputs, outputs, gain, config))
            }
        }
    }

    /// Observations `[B, T, P, D]` and goals `[B, P, D]` to `[B, T, out]`, or `[B, T, heads]` of a value.
    #[must_use]
    pub fn forward(&self, obs: &Tensor<4>, goal: &Tensor<3>) -> Tensor<3> {
        join(self.0.iter().map(|net| match net {
            Net::Tokens(net) => net.forward(obs.clone(), goal.clone()),
            Net::Mlp(net) => net.forward(side_by_side(obs, goal)),
        }))
    }
}

#[derive(Clone, Debug)]
enum CriticNet {
    Tokens(Box<QPredictor>),
    Mlp(Box<Mlp>),
}

/// A critic Q(s, a, g), bound to a device.
#[derive(Clone, Debug)]
pub struct GoalCritic(Vec<CriticNet>);

impl GoalCritic {
    /// Critics under [`CRITIC`], `heads` (at least 1) independent ones.
    pub fn build(scope: &mut Scope, config: &GoalNetConfig, sizes: &GoalSizes, heads: usize) -> Self {
        let member = |key: &String| match *config {
            GoalNetConfig::Tokens(config) => {
                let net = QPredictor::new(scope, key, sizes.tokens(), sizes.action, config);
                CriticNet::Tokens(Box::new(net))
            }
            GoalNetConfig::Mlp(config) => {
                let inputs = sizes.patches * (sizes.width + sizes.goal_width) + sizes.action;
                CriticNet::Mlp(perceptron(scope, key, inputs, 1, 1.0, config))
            }
        };
        Self(members(CRITIC, heads).iter().map(member).collect())
    }

    /// As [`GoalNet::forward`] with actions `[B, T, A]`; `[B, T, heads]`.
    #[must_use]
    pub fn forward(&self, obs: &Tensor<4>, goal: &Tensor<3>, actions: &Tensor<3>) -> Tensor<3> {
        join(self.0.iter().map(|net| match net {
            CriticNet::Tokens(net) => net.forward(obs.clone(), goal.clone(), actions.clone()),
            CriticNet::Mlp(net) => {
                net.forward(Tensor::cat(vec![side_by_side(obs, goal), actions.clone()], 2))
            }
        }))
    }
}

#[derive(Clone, Debug)]
enum MetricNet {
    Tokens(Box<MetricPredictor>),
    Mlp(Box<Mlp>),
}

/// A value that is the negative distance of embeddings, bound to a device.
#[derive(Clone, Debug)]
pub struct GoalMetric(MetricNet);

impl GoalMetric {
    /// An embedding of `width` numbers under [`VALUE`]; goals must be like observations.
    pub fn build(scope: &mut Scope, config: &GoalNetConfig, sizes: &GoalSizes, width: usize) -> Self {
        Self(match *config {
            GoalNetConfig::Tokens(config) => {
                let net = MetricPredictor::new(scope, VALUE, sizes.tokens(), width, config);
                MetricNet::Tokens(Box::new(net))
            }
            GoalNetConfig::Mlp(config) => {
                let inputs = sizes.patches * sizes.width;
                MetricNet::Mlp(perceptron(scope, VALUE, inputs, width, 1.0, config))
            }
        })
    }

    /// As [`GoalNet::forward`] of one head.
    #[must_use]
    pub fn forward(&self, obs: &Tensor<4>, goal: &Tensor<3>) -> Tensor<3> {
        match &self.0 {
            MetricNet::Tokens(net) => net.forward(obs.clone(), goal.clone()),
            MetricNet::Mlp(net) => {
                let goal = goal.clone().unsqueeze_dim::<4>(1); // [B, 1, P, D]
                metric_value(net.forward(flat(obs)), net.forward(flat(&goal)))
            }
        }
    }
}

/// The logarithms of a policy's standard deviations, `[A]`, under [`LOG_STDS`], from 0.
pub fn log_stds(scope: &mut Scope, sizes: &GoalSizes) -> Tensor<1> {
    scope.param(LOG_STDS, [sizes.action], Init::Constant(0.0))
}

/// A batch of transitions with goals. All tensors are on one device; NaN in actions counts as 0.
#[derive(Clone, Debug)]
pub struct Transitions {
    /// Observations s, `[B, T, P, D]`.
    pub obs: Tensor<4>,
    /// Their successors s', `[B, T, P, D]`.
    pub next: Tensor<4>,
    /// The normalised actions between them, `[B, T, A]`.
    pub actions: Tensor<3>,
    /// Goals that value and critic learn about, `[B, P, D]`.
    pub value_goal: Tensor<3>,
    /// 1 where s is the value goal (same episode and step), else 0, `[B, T]`.
    pub reached: Tensor<2>,
    /// Goals that the actor learns to reach, `[B, P, D]`.
    pub actor_goal: Tensor<3>,
}

/// Bounds of the normalised actions.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Least values, A of them.
    pub low: Vec<f32>,
    /// Greatest values, each above its `low`.
    pub high: Vec<f32>,
}

#[cfg(test)]
pub(crate) mod tests;
