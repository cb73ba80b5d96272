//! The methods' networks behind one interface.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use worldbench_models::gcbc::{Gcbc, GcbcConfig};
use worldbench_models::gciql::{Gciql, GciqlConfig};
use worldbench_models::gcivl::{Gcivl, GcivlConfig};
use worldbench_models::goal::{Bounds, GoalSizes, Transitions};
use worldbench_models::iq_learn::{Demonstrations, IqLearn, IqLearnConfig};
use worldbench_models::losses::Terms;
use worldbench_nn::Scope;

use super::batch::Inputs;
use crate::TrainError;

/// A batch's share and where it is computed.
pub(super) struct Share<'a> {
    pub inputs: &'a Inputs,
    pub windows: Range<usize>,
    pub device: &'a Device,
    pub bounds: &'a Bounds,
    pub batch: Transitions,
    /// What `batch` looks at, flat, where it is to have a gradient.
    pub looks: Vec<Tensor<1>>,
}

impl<'a> Share<'a> {
    /// The part `windows`; with `leaves` what it looks at gets a gradient.
    pub fn new(
        inputs: &'a Inputs,
        windows: Range<usize>,
        device: &'a Device,
        bounds: &'a Bounds,
        leaves: bool,
    ) -> Self {
        let (batch, looks) = inputs.transitions(&windows, device, leaves);
        Self { inputs, windows, device, bounds, batch, looks }
    }

    /// The share for an actor that climbs a critic, which must not bend what it sees to please it.
    fn unseeing(&self) -> Transitions {
        let Transitions { obs, next, value_goal, actor_goal, .. } = self.batch.clone();
        let [obs, next] = [obs, next].map(Tensor::detach);
        let [value_goal, actor_goal] = [value_goal, actor_goal].map(Tensor::detach);
        Transitions { obs, next, value_goal, actor_goal, ..self.batch.clone() }
    }
}

/// Makes networks when a loss asks for them.
type Binding<'a, M> = &'a dyn Fn() -> Result<M, TrainError>;

/// The same networks three times: those that are trained, the same without leaves, and their moving average.
pub(super) struct Bound<'a, M> {
    pub online: M,
    pub frozen: Binding<'a, M>,
    pub target: Binding<'a, M>,
}

/// Losses of value and critic, and of the actor; a method without a value has the second only.
pub(super) struct Losses {
    pub value: Option<Terms>,
    pub actor: Terms,
}

/// A method's networks.
pub(super) trait Networks: Sized {
    /// Its settings.
    type Config;

    /// Declares or binds the networks.
    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &Self::Config) -> Self;

    /// Losses of a share.
    ///
    /// # Errors
    /// When networks cannot be bound.
    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError>;
}

impl Networks for Gcbc {
    type Config = GcbcConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GcbcConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        let Transitions { obs, actor_goal, actions, .. } = &share.batch;
        Ok(Losses { value: None, actor: nets.online.loss(obs, actor_goal, actions.clone()) })
    }
}

impl Networks for IqLearn {
    type Config = IqLearnConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &IqLearnConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        let (batch, noise) = share.inputs.demonstrations(share.batch.clone(), &share.windows, share.device);
        let Transitions { obs, next, actor_goal: goal, .. } = share.unseeing();
        let unseeing = Demonstrations { obs, next, goal, ..batch.clone() };
        let (online, frozen, target) = (&nets.online, (nets.frozen)()?, (nets.target)()?);
        Ok(Losses {
            value: Some(online.critic_loss(&frozen, &target, &batch, &noise, share.bounds)),
            actor: online.actor_loss(&frozen, &unseeing, &noise[0], share.bounds),
        })
    }
}

impl Networks for Gciql {
    type Config = GciqlConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GciqlConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        let frozen = (nets.frozen)()?;
        Ok(Losses {
            value: Some(nets.online.value_loss(&frozen, &(nets.target)()?, &share.batch)),
            actor: nets.online.actor_loss(&frozen, &share.unseeing(), share.bounds),
        })
    }
}

impl Networks for Gcivl {
    type Config = GcivlConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GcivlConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        Ok(Losses {
            value: Some(nets.online.value_loss(&(nets.target)()?, &share.batch)),
            actor: nets.online.actor_loss(&(nets.frozen)()?, &share.batch),
        })
    }
}
