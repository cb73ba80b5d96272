//! The methods' networks behind one interface.

use std::ops::Range;

use burn::tensor::Device;
use worldbench_models::gcbc::{Gcbc, GcbcConfig};
use worldbench_models::gciql::{Gciql, GciqlConfig};
use worldbench_models::gcivl::{Gcivl, GcivlConfig};
use worldbench_models::goal::{Bounds, GoalSizes};
use worldbench_models::iq_learn::{IqLearn, IqLearnConfig};
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
        let batch = share.inputs.transitions(&share.windows, share.device);
        Ok(Losses { value: None, actor: nets.online.loss(&batch.obs, &batch.actor_goal, batch.actions) })
    }
}

impl Networks for IqLearn {
    type Config = IqLearnConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &IqLearnConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        let (batch, noise) = share.inputs.demonstrations(&share.windows, share.device);
        let (online, frozen, target) = (&nets.online, (nets.frozen)()?, (nets.target)()?);
        Ok(Losses {
            value: Some(online.critic_loss(&frozen, &target, &batch, &noise, share.bounds)),
            actor: online.actor_loss(&frozen, &batch, &noise[0], share.bounds),
        })
    }
}

impl Networks for Gciql {
    type Config = GciqlConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GciqlConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        let batch = share.inputs.transitions(&share.windows, share.device);
        let frozen = (nets.frozen)()?;
        Ok(Losses {
            value: Some(nets.online.value_loss(&frozen, &(nets.target)()?, &batch)),
            actor: nets.online.actor_loss(&frozen, &batch, share.bounds),
        })
    }
}

impl Networks for Gcivl {
    type Config = GcivlConfig;

    fn build(scope: &mut Scope, sizes: &GoalSizes, config: &GcivlConfig) -> Self {
        Self::build(scope, sizes, config)
    }

    fn losses(nets: &Bound<Self>, share: &Share) -> Result<Losses, TrainError> {
        let batch = share.inputs.transitions(&share.windows, share.device);
        Ok(Losses {
            value: Some(nets.online.value_loss(&(nets.target)()?, &batch)),
            actor: nets.online.actor_loss(&(nets.frozen)()?, &batch),
        })
    }
}
