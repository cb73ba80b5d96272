//! DINO-WM's predictor, loss, gradients, rollouts and costs; the frozen encoder is replaced by given tokens.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use worldbench_nn::params::to_vec;
use worldbench_nn::patch_predictor::PatchPredictorConfig;
use worldbench_nn::{Leaves, Params, Pass};

use super::{Error, Fixture, Item};
use crate::dino_wm::{Clip, DinoWm, DinoWmConfig, is_mask};

/// Name of the fixture.
pub(super) const FILE: &str = "dinowm_predictor";

/// Runs all checks of DINO-WM.
pub(super) fn check(directory: &Path, device: &Device) -> Result<Vec<Item>, Error> {
    let mut check = Fixture::open(directory, FILE, device)?;
    let params = check.load(small().init(0), is_mask)?;
    predictor(&mut check, &params)?;
    training(&mut check, &params)?;
    planning(&mut check, &params, 1)?;
    planning(&mut check, &params, 3)?;
    Ok(check.items)
}

/// The sizes of the fixture's model.
pub(crate) fn small() -> DinoWmConfig {
    let predictor = PatchPredictorConfig {
        frames: 3,
        patches: 16,
        depth: 2,
        heads: 2,
        head_width: 8,
        mlp: 32,
        dropout: 0.0,
        residual: false,
    };
    DinoWmConfig {
        features: 24,
        proprio: 4,
        proprio_width: 4,
        action: 10,
        action_width: 4,
        predictor,
        rollout: false,
    }
}

fn bind(check: &Fixture, params: &Params) -> Result<(DinoWm, Leaves), Error> {
    Ok(params.bind(&check.device, |scope| DinoWm::build(scope, &small()))?)
}

fn predictor(check: &mut Fixture, params: &Params) -> Result<(), Error> {
    let (model, _) = bind(check, params)?;
    for name in ["predictor_T1", "predictor_T2", "predictor_T3", "predictor_small_variance"] {
        let tokens = check.tensor::<3>(&format!("in.{name}"))?;
        let ([batch, rows, width], patches) = (tokens.dims(), small().predictor.patches);
        let tokens = tokens.reshape([batch, rows / patches, patches, width]);
        check.compare_tensor(&format!("out.{name}"), model.predict(tokens, &mut Pass::eval()))?;
    }
    Ok(())
}

fn training(check: &mut Fixture, params: &Params) -> Result<(), Error> {
    let (model, leaves) = bind(check, params)?;
    let clip = Clip {
        features: check.tensor("in.train.patch_tokens")?,
        proprio: check.tensor("in.train.proprio")?,
        actions: check.tensor("in.train.action")?,
    };
    let states = model.states(clip.features.clone(), clip.proprio.clone());
    let tokens = model.tokens(states, clip.actions.clone()); // [B, T, P, D]
    let steps = tokens.dims()[1] - 1;
    let predicted = model.predict(tokens.clone().narrow(1, 0, steps), &mut Pass::eval());
    check.compare_tensor("out.train.emb", tokens)?;
    check.compare_tensor("out.train.pred_without_action", predicted.narrow(3, 0, small().state_width()))?;
    let terms = model.loss(clip, &mut Pass::train(0, 0, 0));
    check.compare_terms("out.train.", &terms)?;
    let flat = leaves.gradients(&terms.total)?;
    check.compare_gradients("grad.", params, &flat)
}

fn planning(check: &mut Fixture, params: &Params, context: usize) -> Result<(), Error> {
    let (model, _) = bind(check, params)?;
    let candidates = check.tensor::<4>("in.plan.candidates")?.require_grad(); // [E, S, H, A]
    let [envs, samples, horizon, action] = candidates.dims();
    let rows = envs * samples;
    let input = |what: &str| format!("in.plan.ctx{context}.{what}");
    let start = model.states(check.tensor(&input("patch_tokens"))?, check.tensor(&input("proprio"))?);
    let goal =
        model.states(check.tensor("in.plan.goal_patch_tokens")?, check.tensor("in.plan.goal_proprio")?);
    let spread = |x: Tensor<4>| {
        let [_, steps, patches, width] = x.dims();
        let wide = x.unsqueeze_dim::<5>(1).expand([envs, samples, steps, patches, width]);
        wide.reshape([rows, steps, patches, width])
    };
    let mut actions = candidates.clone().reshape([rows, horizon, action]);
    if context > 1 {
        let history = check.tensor::<3>(&input("action_history"))?; // [E, n - 1, A]
        let wide = history.unsqueeze_dim::<4>(1).expand([envs, samples, context - 1, action]);
        actions = Tensor::cat(vec![wide.reshape([rows, context - 1, action]), actions], 1);
    }
    let path = model.rollout(spread(start), actions);
    let cost = model.goal_cost(path.clone(), spread(goal));
    let mut gradients = cost.clone().sum().backward();
    let slope = candidates.grad_remove(&mut gradients).map_or_else(|| Ok(vec![]), to_vec)?;
    let name = |what: &str| format!("out.plan.ctx{context}.{what}");
    check.compare_tensor(&name("predicted_emb"), path)?;
    check.compare_tensor(&name("cost"), cost)?;
    check.compare(&name("cost_sum_grad_candidates"), &slope)
}
