//! Goal-conditioned policies in evaluation mode, on kernels: what [`crate::goal`] computes on Burn while it trains.
//!
//! One context at a time on the calling thread: an action depends neither on other episodes nor on threads. Only the newest
//! frame's output is computed.

mod mlp;
mod tokens;

use std::sync::Arc;

use worldbench_kernels::ops;
use worldbench_nn::Params;
use worldbench_nn::goal_predictor::Pooling;
use worldbench_plan::{ActionNormaliser, CostError, GoalPolicy};

use crate::encoders::FrozenEncoder;
use crate::goal::{ACTOR, Bounds, CRITIC, GoalNetConfig, GoalSizes, VALUE};
use crate::planning::weights::Reader;
use crate::planning::{Error, ProprioStatistics, check_len};
use mlp::PackedMlp;
use tokens::{PackedPredictor, PackedQ};

/// Where a policy's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// It has learned none.
    None,
    /// The mean of so many value networks.
    Value(usize),
    /// The least of so many critics at the policy's own action.
    Critic(usize),
}

/// What the networks of a policy are.
#[derive(Clone, Debug)]
pub struct PolicySpec {
    /// The kind of network.
    pub network: GoalNetConfig,
    /// Its sizes.
    pub sizes: GoalSizes,
    /// Bounds of the normalised actions, where the actor gives a squashed Gaussian (means, then log deviations).
    pub squashed: Option<Bounds>,
    /// The value.
    pub value: ValueSource,
}

#[derive(Debug)]
enum Net {
    Mlp(PackedMlp),
    Tokens(Box<PackedPredictor>),
}

#[derive(Debug)]
enum Critic {
    Mlp(PackedMlp),
    Tokens(Box<PackedQ>),
}

/// Actor and value made ready for inference.
#[derive(Debug)]
pub struct PolicyNets {
    spec: PolicySpec,
    actor: Net,
    values: Vec<Net>,
    critics: Vec<Critic>,
}

/// Keys of an ensemble's members: the plain prefix for a single one.
fn members(key: &str, heads: usize) -> Vec<String> {
    if heads == 1 { vec![key.to_owned()] } else { (0..heads).map(|i| format!("{key}.{i}")).collect() }
}

impl PolicySpec {
    fn flat(&self) -> usize {
        self.sizes.patches * (self.sizes.width + self.sizes.goal_width)
    }

    fn net(&self, reader: Reader, key: &str, outputs: usize, pooling: Pooling) -> Result<Net, Error> {
        Ok(match &self.network {
            GoalNetConfig::Mlp(c) => Net::Mlp(PackedMlp::new(reader, key, [self.flat(), outputs], *c)?),
            GoalNetConfig::Tokens(c) => {
                let net = PackedPredictor::new(reader, key, &self.sizes, outputs, (c, pooling))?;
                Net::Tokens(Box::new(net))
            }
        })
    }

    fn critic(&self, reader: Reader, key: &str) -> Result<Critic, Error> {
        Ok(match &self.network {
            GoalNetConfig::Mlp(c) => {
                let inputs = self.flat() + self.sizes.action;
                Critic::Mlp(PackedMlp::new(reader, key, [inputs, 1], *c)?)
            }
            GoalNetConfig::Tokens(c) => Critic::Tokens(Box::new(PackedQ::new(reader, key, &self.sizes, c)?)),
        })
    }
}

impl PolicyNets {
    /// Packs the networks of `spec`; other parameters are ignored.
    ///
    /// # Errors
    /// A parameter is missing or has another size.
    pub fn new(spec: PolicySpec, params: &Params) -> Result<Self, Error> {
        let reader = Reader(params);
        let outputs = spec.sizes.action * if spec.squashed.is_some() { 2 } else { 1 };
        let (values, critics) = match spec.value {
            ValueSource::None => (0, 0),
            ValueSource::Value(heads) => (heads, 0),
            ValueSource::Critic(heads) => (0, heads),
        };
        let keys = |key, heads| if heads == 0 { vec![] } else { members(key, heads) };
        let values = keys(VALUE, values).into_iter().map(|key| spec.net(reader, &key, 1, Pooling::Mean));
        let critics = keys(CRITIC, critics).into_iter().map(|key| spec.critic(reader, &key));
        Ok(Self {
            actor: spec.net(reader, ACTOR, outputs, Pooling::Attention)?,
            values: values.collect::<Result<_, _>>()?,
            critics: critics.collect::<Result<_, _>>()?,
            spec,
        })
    }

    fn check(&self, obs: &[f32], goal: &[f32]) -> Result<(), Error> {
        let GoalSizes { frames, patches, width, goal_width, .. } = self.spec.sizes;
        let each = patches * width;
        let count = obs.len() / each;
        if count == 0 || count > frames || !obs.len().is_multiple_of(each) {
            let expected = format!("1 to {frames} observations of {patches} x {width}");
            return Err(Error::Length { what: "the context", got: obs.len(), expected });
        }
        check_len("the goal", goal.len(), patches * goal_width, "[P, D]")
    }

    /// Normalised actions `[A]` at the newest of the observations `[T, P * D]` for `goal` `[P * D]`: the policy's mode.
    ///
    /// # Errors
    /// An input has another length.
    pub fn act(&self, obs: &[f32], goal: &[f32]) -> Result<Vec<f32>, Error> {
        self.check(obs, goal)?;
        let mut out = self.forward(&self.actor, obs, goal);
        if let Some(Bounds { low, high }) = &self.spec.squashed {
            let mut squashed = vec![0.0; self.spec.sizes.action];
            ops::tanh(&out[..squashed.len()], &mut squashed);
            let bounds = low.iter().zip(high);
            squashed.iter_mut().zip(bounds).for_each(|(a, (l, h))| *a = *a * ((h - l) / 2.0) + (h + l) / 2.0);
            out = squashed;
        }
        Ok(out)
    }

    /// Value of the newest observation, see [`PolicyNets::act`].
    ///
    /// # Errors
    /// An input has another length.
    pub fn value(&self, obs: &[f32], goal: &[f32]) -> Result<Option<f32>, Error> {
        self.check(obs, goal)?;
        Ok(match self.spec.value {
            ValueSource::None => None,
            ValueSource::Value(heads) => {
                let sum = self.values.iter().map(|net| self.forward(net, obs, goal)[0]).sum::<f32>();
                Some(sum / heads as f32)
            }
            ValueSource::Critic(_) => {
                let action = self.act(obs, goal)?;
                let q = self.critics.iter().map(|critic| match critic {
                    Critic::Mlp(net) => {
                        net.forward(&[&self.side_by_side(obs, goal)[..], &action].concat())[0]
                    }
                    Critic::Tokens(net) => net.forward(obs, goal, &action)[0],
                });
                Some(q.fold(f32::INFINITY, f32::min))
            }
        })
    }

    /// A perceptron's input: the newest observation and the goal.
    fn side_by_side(&self, obs: &[f32], goal: &[f32]) -> Vec<f32> {
        let each = self.spec.sizes.patches * self.spec.sizes.width;
        [&obs[obs.len() - each..], goal].concat()
    }

    fn forward(&self, net: &Net, obs: &[f32], goal: &[f32]) -> Vec<f32> {
        match net {
            Net::Mlp(net) => net.forward(&self.side_by_side(obs, goal)),
            Net::Tokens(net) => net.forward(obs, goal),
        }
    }
}

/// A policy with its frozen encoder and the statistics of its training data.
pub struct GoalActor {
    nets: PolicyNets,
    encoder: Arc<dyn FrozenEncoder>,
    actions: ActionNormaliser,
    proprio: Option<ProprioStatistics>,
}

impl GoalActor {
    /// `proprio`: statistics of agent position and velocity, where the policy sees them.
    ///
    /// # Errors
    /// The encoder's tokens are not the policy's.
    pub fn new(
        nets: PolicyNets,
        encoder: Arc<dyn FrozenEncoder>,
        actions: ActionNormaliser,
        proprio: Option<ProprioStatistics>,
    ) -> Result<Self, Error> {
        let GoalSizes { patches, width, .. } = nets.spec.sizes;
        let (tokens, features) = (encoder.tokens(), observation_width(encoder.as_ref(), proprio.is_some()));
        if (tokens, features) != (patches, width) {
            return Err(Error::Config(format!(
                "encoder {} makes observations of {tokens} x {features} numbers, the policy was made for {patches} x {width}",
                encoder.name()
            )));
        }
        Ok(Self { nets, encoder, actions, proprio })
    }
}

/// Width of an observation's tokens: the encoder's, and with `proprio` the agent's position and velocity behind it.
#[must_use]
pub fn observation_width(encoder: &dyn FrozenEncoder, proprio: bool) -> usize {
    encoder.width() + if proprio { 4 } else { 0 }
}

/// Puts an observation `[P, D]` together: the tokens of a frame, each with the normalised proprioception behind it where
/// there is one.
pub fn observation(
    tokens: &[f32],
    patches: usize,
    proprio: Option<(&ProprioStatistics, &[f64; 4])>,
    out: &mut Vec<f32>,
) {
    let normal = proprio
        .map(|([mean, std], raw)| std::array::from_fn::<f32, 4, _>(|i| ((raw[i] - mean[i]) / std[i]) as f32));
    for token in tokens.chunks_exact(tokens.len() / patches.max(1)) {
        out.extend_from_slice(token);
        out.extend(normal.iter().flatten());
    }
}

impl GoalPolicy for GoalActor {
    fn resolution(&self) -> usize {
        self.encoder.image_size()
    }

    fn area_filter(&self) -> bool {
        self.encoder.area_filter()
    }

    fn history(&self) -> usize {
        self.nets.spec.sizes.frames
    }

    fn chunk(&self) -> usize {
        self.nets.spec.sizes.action / self.actions.dim()
    }

    fn observe(&self, frame: &[u8], proprio: &[f64; 4]) -> Result<Vec<f32>, CostError> {
        let mut tokens = vec![0.0; self.encoder.tokens() * self.encoder.width()];
        self.encoder.encode(&[frame], &mut tokens)?;
        let mut out = Vec::with_capacity(self.nets.spec.sizes.patches * self.nets.spec.sizes.width);
        observation(&tokens, self.encoder.tokens(), self.proprio.as_ref().map(|p| (p, proprio)), &mut out);
        Ok(out)
    }

    fn act(&self, observations: &[f32], goal: &[f32]) -> Result<Vec<f32>, CostError> {
        let actions = self.nets.act(observations, goal)?;
        Ok(self.actions.denormalise(&actions).into_iter().map(|a| a as f32).collect())
    }

    fn value(&self, observations: &[f32], goal: &[f32]) -> Result<Option<f32>, CostError> {
        Ok(self.nets.value(observations, goal)?)
    }
}

#[cfg(test)]
mod tests;
