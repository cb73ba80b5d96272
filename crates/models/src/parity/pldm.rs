//! Comparison of PLDM and LeWM with the numbers of the PyTorch reference.
//!
//! On `pldm.safetensors`, `pldm.tol.json` and `lr_schedules.json`: outputs, planning rollouts and their gradients, every
//! loss term and gradient, batch-norm buffers, optimiser steps and schedules.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use worldbench_nn::optim::{AdamW, AdamWConfig, clip_factor, global_norm};
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::predictor::PredictorConfig;
use worldbench_nn::schedule::Schedule;
use worldbench_nn::vit::VitConfig;
use worldbench_nn::{Params, Pass};

use super::{Error, Fixture, Item, json};
use crate::jepa::{JepaConfig, goal_cost};
use crate::lewm::{Lewm, LewmConfig};
use crate::losses::{mse, sigreg, vcreg};
use crate::pldm::{Pldm, PldmConfig, PldmLoss};

#[derive(Deserialize)]
struct ScheduleFixture {
    total_steps: u64,
    base_lr: f64,
    step: Vec<u64>,
    linear_warmup_cosine_lr: Vec<f64>,
    plain_cosine_lr_no_warmup: Vec<f64>,
}

/// Runs all checks of PLDM and LeWM.
pub(super) fn check(directory: &Path, device: &Device) -> Result<Vec<Item>, Error> {
    let mut check = Fixture::open(directory, "pldm", device)?;
    let params = check.load(small().init(0), |_| false)?;
    check.evaluation(&params)?;
    check.planning(&params, 1)?;
    check.planning(&params, 3)?;
    check.training(&params)?;
    check.terms()?;
    check.inverse_dynamics(&params)?;
    check.lewm()?;
    check.adamw_step(&params)?;
    check.optimiser("opt")?;
    check.optimiser("opt_tiny")?;
    schedules(&directory.join("lr_schedules.json"), &mut check.items)?;
    Ok(check.items)
}

/// The sizes of the fixture's model.
fn small() -> PldmConfig {
    let encoder = VitConfig { image: 56, patch: 14, hidden: 48, layers: 2, heads: 3, mlp: 192 };
    let predictor =
        PredictorConfig { frames: 3, width: 48, depth: 2, heads: 2, head_width: 8, mlp: 64, dropout: 0.0 };
    let network =
        JepaConfig { encoder, predictor, projector_hidden: 64, action: 10, smoothed: 10, action_hidden: 192 };
    PldmConfig { network, idm_hidden: 40, loss: PldmLoss::default() }
}

impl Fixture {
    fn frames(&self) -> Result<Tensor<5>, Error> {
        Ok((self.tensor::<5>("in.frames_u8")? - 127.5) / 64.0)
    }

    fn bind(&self, params: &Params) -> Result<(Pldm, worldbench_nn::Leaves), Error> {
        Ok(params.bind(&self.device, |scope| Pldm::build(scope, &small()))?)
    }

    fn evaluation(&mut self, params: &Params) -> Result<(), Error> {
        let (model, _) = self.bind(params)?;
        let (network, mut pass) = (&model.network, Pass::eval());
        let frames = self.frames()?;
        let emb = network.encode(frames.clone(), &mut pass);
        let act = network.embed_actions(self.tensor("in.action")?);
        self.compare_tensor("out.eval.cls", network.class_tokens(frames.flatten(0, 1)))?;
        self.compare_tensor("out.eval.emb", emb.clone())?;
        self.compare_tensor("out.eval.act_emb", act.clone())?;
        for steps in 1..=3 {
            let part = |x: &Tensor<3>| x.clone().narrow(1, 0, steps);
            let predicted = network.predict(part(&emb), part(&act), &mut pass);
            self.compare_tensor(&format!("out.eval.predict_T{steps}"), predicted)?;
        }
        let quiet = self.tensor("in.small_variance.emb")?;
        let predicted = network.predict(quiet, act.narrow(1, 0, 3), &mut pass);
        self.compare_tensor("out.eval.predict_small_variance", predicted)
    }

    fn planning(&mut self, params: &Params, context: usize) -> Result<(), Error> {
        let (model, _) = self.bind(params)?;
        let emb = model.network.encode(self.frames()?, &mut Pass::eval()); // [6, 4, D]
        let candidates = self.tensor::<4>("in.plan.candidates")?.require_grad(); // [E, S, H, A]
        let [envs, samples, horizon, action] = candidates.dims();
        let rows = envs * samples;
        let repeat = |x: Tensor<3>| {
            let [_, steps, width] = x.dims();
            let wide = x.unsqueeze_dim::<4>(1).expand([envs, samples, steps, width]);
            wide.reshape([rows, steps, width])
        };
        let start = repeat(emb.clone().narrow(0, 0, envs).narrow(1, 0, context));
        let goal = emb.narrow(0, 2, envs).narrow(1, 3, 1); // [E, 1, D]
        let mut actions = candidates.clone().reshape([rows, horizon, action]);
        if context > 1 {
            let history = repeat(self.tensor(&format!("in.plan.ctx{context}.action_history"))?);
            actions = Tensor::cat(vec![history, actions], 1);
        }
        let path = model.network.rollout(start, actions);
        let cost = goal_cost(path.clone(), repeat(goal.clone()), context, false);
        let mut gradients = cost.clone().sum().backward();
        let slope = candidates.grad_remove(&mut gradients).map_or_else(|| Ok(vec![]), to_vec)?;
        let name = |what: &str| format!("out.plan.ctx{context}.{what}");
        self.compare_tensor(&name("predicted_emb"), path)?;
        self.compare_tensor(&name("goal_emb"), goal)?;
        self.compare_tensor(&name("cost"), cost)?;
        self.compare(&name("cost_sum_grad_candidates"), &slope)
    }

    fn training(&mut self, params: &Params) -> Result<(), Error> {
        let (model, leaves) = self.bind(params)?;
        let mut pass = Pass::train(0, 0, 0);
        let emb = model.network.encode(self.frames()?, &mut pass);
        let terms = model.loss_of_embeddings(&emb, self.tensor("in.action")?, &mut pass);
        self.compare_terms("out.train.", &terms)?;
        self.compare_tensor("out.train.idm_pred", model.idm.forward(&emb))?;
        self.compare_tensor("out.train.emb", emb)?;
        let flat = leaves.gradients(&terms.total)?;
        self.compare_gradients("grad.", params, &flat)?;
        let mut updated = params.clone();
        pass.commit(&mut updated)?;
        let prefix = "out.train.buffer_after_forward.";
        let names: Vec<String> =
            self.arrays.keys().filter_map(|k| k.strip_prefix(prefix)).map(str::to_owned).collect();
        for key in names {
            self.compare(&format!("{prefix}{key}"), updated.get(&key).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The value of one term and its gradient with respect to `input`.
    fn term<const D: usize>(
        &mut self,
        name: &str,
        suffix: &str,
        input: &Tensor<D>,
        term: Tensor<1>,
    ) -> Result<(), Error> {
        self.compare_tensor(name, term.clone())?;
        let mut gradients = term.backward();
        let slope = input.grad_remove(&mut gradients).map_or_else(|| Ok(vec![]), to_vec)?;
        self.compare(&format!("{name}{suffix}"), &slope)
    }

    fn terms(&mut self) -> Result<(), Error> {
        type Term = fn(&Tensor<3>) -> Tensor<1>;
        let all: [(&str, Term); 6] = [
            ("std_loss", |z| vcreg::vcreg(z, vcreg::Frames::All).std),
            ("std_t_loss", |z| vcreg::vcreg(z, vcreg::Frames::All).std_t),
            ("cov_loss", |z| vcreg::vcreg(z, vcreg::Frames::All).cov),
            ("cov_t_loss", |z| vcreg::vcreg(z, vcreg::Frames::All).cov_t),
            ("temp_align_loss", vcreg::temp_align),
            ("temp_straight_loss", vcreg::temp_straight),
        ];
        for (name, term) in all {
            let z = self.tensor::<3>("in.terms.z")?.require_grad();
            self.term(&format!("out.terms.{name}"), ".grad_z", &z, term(&z))?;
        }
        let predicted = self.tensor::<3>("in.terms.a_pred")?.require_grad();
        let loss = mse(predicted.clone(), self.tensor("in.terms.a_target")?);
        self.term("out.terms.idm_loss", ".grad_a_pred", &predicted, loss)?;
        let (z, directions) = (self.tensor::<3>("in.terms.z")?.require_grad(), self.directions()?);
        let value = sigreg::sigreg(&z, &directions);
        self.compare_tensor("out.sigreg.value", value.clone())?;
        let slope = z.grad_remove(&mut value.backward()).map_or_else(|| Ok(vec![]), to_vec)?;
        self.compare("out.sigreg.grad_z", &slope)
    }

    fn directions(&self) -> Result<Tensor<2>, Error> {
        let array = self.array("in.sigreg.projection_unnormalised")?;
        let (mut values, shape) = (array.f32(), [array.shape[0], array.shape[1]]);
        sigreg::unit_columns(&mut values, shape[1]);
        Ok(from_vec(values, shape, &self.device))
    }

    fn inverse_dynamics(&mut self, params: &Params) -> Result<(), Error> {
        let (model, leaves) = self.bind(params)?;
        let predicted = model.idm.forward(&self.tensor("in.terms.z")?);
        let loss = mse(predicted.clone(), self.tensor("in.terms.a_target")?);
        self.compare_tensor("out.idm.pred", predicted)?;
        self.compare_tensor("out.idm.loss", loss.clone())?;
        self.compare_gradients("grad_idm_loss.", params, &leaves.gradients(&loss)?)
    }

    fn lewm(&mut self) -> Result<(), Error> {
        let config = LewmConfig { network: small().network, ..LewmConfig::full(10) };
        let mut params = config.init(0);
        let source = self.load(small().init(0), |_| false)?;
        let keys: Vec<String> = params.entries().iter().map(|e| e.key.clone()).collect();
        for key in &keys {
            if let (Some(target), Some(values)) = (params.get_mut(key), source.get(key)) {
                target.copy_from_slice(values);
            }
        }
        let (model, leaves) = params.bind(&self.device, |scope| Lewm::build(scope, &config))?;
        let mut pass = Pass::train(0, 0, 0);
        let emb = model.network.encode(self.frames()?, &mut pass);
        let directions = self.directions()?;
        let terms = model.loss_of_embeddings(&emb, self.tensor("in.action")?, &directions, &mut pass);
        self.compare_terms("out.lewm.", &terms)?;
        self.compare_gradients("grad_lewm.", &params, &leaves.gradients(&terms.total)?)
    }

    /// One AdamW step from the stored weights and gradients, model and inverse dynamics clipped separately.
    fn adamw_step(&mut self, params: &Params) -> Result<(), Error> {
        let mut gradients = vec![0.0; params.count()];
        for entry in params.entries() {
            if let Some(array) = self.arrays.get(&format!("grad.{}", entry.key)) {
                gradients[entry.range.clone()].copy_from_slice(&array.f32());
            }
        }
        let mut updated = params.clone();
        let idm = params.group("idm.");
        for span in [0..idm.start, idm] {
            let norm = global_norm(&gradients[span.clone()]);
            if span.start == 0 {
                self.compare("out.adamw1.grad_norm", &[norm as f32])?;
            }
            let mut adam = AdamW::new(span.len(), AdamWConfig::default());
            let scale = clip_factor(norm, 1.0);
            adam.step(&mut updated.values[span.clone()], &gradients[span], 5e-5, scale)?;
        }
        let delta: Vec<f32> = updated.values.iter().zip(&params.values).map(|(a, b)| a - b).collect();
        self.compare_gradients("delta_step1.", params, &delta)
    }

    /// Five clipped AdamW steps with a schedule of 40 on one parameter.
    fn optimiser(&mut self, name: &str) -> Result<(), Error> {
        let mut values = self.array(&format!("in.{name}.p0"))?.f32();
        let all = self.array(&format!("in.{name}.grads"))?.f32();
        let config = AdamWConfig { weight_decay: 1e-2, ..AdamWConfig::default() };
        let mut adam = AdamW::new(values.len(), config);
        let [mut p, mut m, mut v, mut rates, mut norms] = [const { Vec::<f32>::new() }; 5];
        for (step, gradients) in all.chunks(values.len()).enumerate() {
            let norm = global_norm(gradients);
            let rate = Schedule::WarmupCosine.rate(5e-3, step as u64, 40);
            adam.step(&mut values, gradients, rate, clip_factor(norm, 1.0))?;
            let (first, second, _) = adam.state();
            p.extend(&values);
            m.extend(first);
            v.extend(second);
            rates.push(rate as f32);
            norms.push(norm as f32);
        }
        for (what, found) in [("p", p), ("m", m), ("v", v), ("lr", rates), ("grad_norm", norms)] {
            self.compare(&format!("out.{name}.{what}"), &found)?;
        }
        Ok(())
    }
}

fn schedules(path: &Path, items: &mut Vec<Item>) -> Result<(), Error> {
    for fixture in json::<Vec<ScheduleFixture>>(path)? {
        let (base, total) = (fixture.base_lr, fixture.total_steps);
        for (what, schedule, expected) in [
            ("warmup_cosine", Schedule::WarmupCosine, &fixture.linear_warmup_cosine_lr),
            ("cosine", Schedule::Cosine, &fixture.plain_cosine_lr_no_warmup),
        ] {
            let error = fixture.step.iter().zip(expected);
            let error = error.map(|(&step, e)| (schedule.rate(base, step, total) - e).abs());
            let max_error = error.fold(0.0, f64::max);
            items.push(Item { name: format!("lr.{what}.{total}"), max_error, tolerance: 1e-15 });
        }
    }
    Ok(())
}
