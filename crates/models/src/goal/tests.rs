use worldbench_core::Stream;
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::{Leaves, Params, device};

use super::objective::{ActorLoss, Gaussian, advantage_weights, awr, bellman, ddpg_bc, expectile_loss};
use super::*;
use crate::gcbc::GcbcConfig;
use crate::gciql::{self, Advantage, Bootstrap, Gciql, GciqlConfig};
use crate::gcivl::{self, Gcivl, GcivlConfig};
use crate::hilp::{Hilp, HilpConfig};
use crate::losses::Terms;

pub(crate) fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    from_vec(values.to_vec(), shape, &device("cpu").unwrap())
}

/// Reproducible normal numbers.
pub(crate) fn random<const D: usize>(shape: [usize; D], key: u64) -> Tensor<D> {
    let mut values = vec![0.0; shape.iter().product()];
    Stream::new(5, "goal", &[key]).fill_normal(&mut values);
    tensor(&values, shape)
}

pub(crate) fn number(x: &Tensor<1>) -> f32 {
    to_vec(x.clone()).unwrap()[0]
}

fn term(terms: &Terms, name: &str) -> f32 {
    number(&terms.items.iter().find(|(n, _)| *n == name).unwrap().1)
}

pub(crate) fn close(found: f32, expected: f32) {
    assert!((found - expected).abs() <= 2e-5 * expected.abs().max(1.0), "{found}, not {expected}");
}

pub(crate) fn small() -> GoalNetConfig {
    GoalNetConfig::Mlp(MlpConfig { hidden: 12, layers: 2, layer_norm: true })
}

fn transitions(sizes: &GoalSizes) -> Transitions {
    let GoalSizes { patches, width, goal_width, action, .. } = *sizes;
    Transitions {
        obs: random([4, 3, patches, width], 1),
        next: random([4, 3, patches, width], 2),
        actions: random([4, 3, action], 3),
        value_goal: random([4, patches, goal_width], 4),
        reached: tensor(&[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [4, 3]),
        actor_goal: random([4, patches, goal_width], 5),
    }
}

#[test]
fn the_full_transformers_have_the_published_sizes_and_keys() {
    let tokens = GoalNetConfig::Tokens(GoalPredictorConfig::default());
    let params = GciqlConfig::reference(tokens).init(&GoalSizes::full(2), 0);
    let count = |params: &Params, key: &str| params.group(&format!("{key}.")).len();
    assert_eq!(count(&params, ACTOR), 19_297_922);
    assert_eq!(count(&params, VALUE), 19_297_153);
    assert_eq!(count(&params, CRITIC), 19_461_889);
    let shape = |params: &Params, key: &str| params.entry(key).map(|e| e.shape.clone());
    for (key, expected) in [
        ("action_predictor.pos_embedding", vec![1, 768, 384]),
        ("action_predictor.pos_embedding_goal", vec![1, 256, 384]),
        ("action_predictor.transformer.layers.1.0.norm_c.weight", vec![384]),
        ("action_predictor.transformer.layers.5.0.frame_tokens", vec![1, 3, 384]),
        ("value_predictor.transformer.layers.5.0.norm_c.bias", vec![384]),
        ("value_predictor.transformer.layers.0.0.to_kv.weight", vec![2048, 384]),
        ("value_predictor.out_proj.weight", vec![1, 384]),
        ("critic_predictor.q_head.0.weight", vec![256, 386]),
        ("critic_predictor.transformer.layers.5.1.net.4.weight", vec![384, 2048]),
        ("log_stds", vec![2]),
    ] {
        assert_eq!(shape(&params, key), Some(expected), "{key}");
    }
    assert_eq!(shape(&params, "action_predictor.transformer.layers.5.0.norm_c.weight"), None);
    let hilp = HilpConfig { network: tokens, ..HilpConfig::default() }.init(&GoalSizes::full(2), 0);
    assert_eq!(count(&hilp, VALUE), 19_320_256);
    assert_eq!(shape(&hilp, "value_predictor.embed_proj.weight"), Some(vec![64, 384]));
}

#[test]
fn heads_have_keys_of_their_own_in_one_span() {
    let sizes = GoalSizes::flat(6, 2);
    let params = GciqlConfig { network: small(), ..GciqlConfig::default() }.init(&sizes, 0);
    assert!(params.entry("critic_predictor.1.norms.1.bias").is_some());
    assert!(params.entry("value_predictor.layers.0.weight").is_some());
    let one = 14 * 12 + 3 * 12 + 12 * 12 + 3 * 12 + 12 + 1;
    assert_eq!(params.group("critic_predictor.").len(), 2 * one);
    let spans = [ACTOR, VALUE, CRITIC].map(|key| params.group(&format!("{key}.")).len());
    assert_eq!(spans.iter().sum::<usize>() + 2, params.count());
    let first = params.get("critic_predictor.0.layers.0.weight").unwrap();
    assert_ne!(first, params.get("critic_predictor.1.layers.0.weight").unwrap());
}

#[test]
fn a_perceptron_takes_frames_by_themselves_and_a_transformer_looks_back() {
    let sizes = GoalSizes { frames: 3, patches: 4, width: 8, goal_width: 8, action: 2 };
    let tokens = GoalPredictorConfig { depth: 4, heads: 2, head_width: 4, mlp: 16, q_hidden: 8 };
    let batch = transitions(&sizes);
    // Frame 0 differs between the two inputs, frames 1 and 2 do not.
    let other = Tensor::cat(vec![random([4, 1, 4, 8], 9), batch.obs.clone().narrow(1, 1, 2)], 1);
    for (network, looks_back) in [(small(), false), (GoalNetConfig::Tokens(tokens), true)] {
        check(&network, &sizes).unwrap();
        let config = GcbcConfig { network };
        let mut params = config.init(&sizes, 0);
        if !looks_back {
            params.get_mut("action_predictor.out.weight").unwrap().fill(0.3);
        }
        let device = device("cpu").unwrap();
        let build = |s: &mut Scope| GoalNet::actor(s, &network, &sizes, 2);
        let net = params.bind_frozen(&device, build).unwrap();
        let run = |obs: &Tensor<4>| to_vec(net.forward(obs, &batch.actor_goal).narrow(1, 1, 2)).unwrap();
        let difference =
            run(&batch.obs).iter().zip(run(&other)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(difference > 1e-3, looks_back, "{network:?}: {difference}");
        // The first frames do not see later ones.
        let alone = to_vec(net.forward(&batch.obs.clone().narrow(1, 0, 1), &batch.actor_goal)).unwrap();
        let first = to_vec(net.forward(&batch.obs, &batch.actor_goal).narrow(1, 0, 1)).unwrap();
        assert!(alone.iter().zip(&first).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn bad_sizes_are_named() {
    let sizes = GoalSizes { goal_width: 5, ..GoalSizes::flat(6, 2) };
    check(&GoalNetConfig::default(), &sizes).unwrap();
    let tokens = GoalNetConfig::Tokens(GoalPredictorConfig::default());
    assert!(check(&tokens, &sizes).unwrap_err().contains("use \"mlp\""));
    assert!(check(&tokens, &GoalSizes::flat(0, 2)).unwrap_err().contains("at least 1"));
    let none = GoalNetConfig::Mlp(MlpConfig { hidden: 0, ..MlpConfig::default() });
    assert!(check(&none, &sizes).unwrap_err().contains("network.hidden"));
    let gciql = GciqlConfig { expectile: 1.0, ..GciqlConfig::default() };
    assert!(gciql.check(&sizes).unwrap_err().contains("expectile must be above 0 and below 1, not 1"));
    let gcivl = GcivlConfig { heads: 0, ..GcivlConfig::default() };
    assert!(gcivl.check(&sizes).unwrap_err().contains("heads"));
    assert!(HilpConfig::default().check(&sizes).unwrap_err().contains("goals like observations"));
    GciqlConfig::default().check(&sizes).unwrap();
}

#[test]
fn configurations_are_read_with_defaults_and_without_unknown_keys() {
    let read = |text: &str| serde_json::from_str::<GciqlConfig>(text);
    let config =
        read(r#"{"network": {"kind": "mlp", "hidden": 64}, "actor": {"kind": "awr", "alpha": 3.0}}"#)
            .unwrap();
    assert_eq!(config.network, GoalNetConfig::Mlp(MlpConfig { hidden: 64, ..MlpConfig::default() }));
    assert_eq!((config.actor, config.expectile), (ActorLoss::Awr { alpha: 3.0 }, 0.9));
    for bad in [
        r#"{"expectil": 0.9}"#,
        r#"{"network": {"kind": "mlp", "depth": 3}}"#,
        r#"{"network": {"kind": "cnn"}}"#,
        r#"{"actor": {"kind": "awr", "alpha": 3.0, "beta": 1.0}}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn expectile_regression_weighs_the_two_sides() {
    let (residual, by) = (tensor(&[2.0, -2.0, 1.0], [3]), tensor(&[-1.0, 1.0, 1.0], [3]));
    // By its own sign: (0.9 * 4 + 0.1 * 4 + 0.9 * 1) / 3; by another: (0.1 * 4 + 0.9 * 4 + 0.9 * 1) / 3.
    close(number(&expectile_loss(residual.clone(), residual.clone(), 0.9)), 4.9 / 3.0);
    close(number(&expectile_loss(residual.clone(), by, 0.7)), (0.3 * 4.0 + 0.7 * 4.0 + 0.7) / 3.0);
    // The minimiser of 0.9-expectile regression on 0 and 1 is 0.9.
    let slope = |at: f32| {
        let value = tensor(&[at], [1]).require_grad();
        let residual = tensor(&[0.0, 1.0], [2]) - value.clone().expand([2]);
        let mut grads = expectile_loss(residual.clone(), residual, 0.9).backward();
        to_vec(value.grad_remove(&mut grads).unwrap()).unwrap()[0]
    };
    assert!(slope(0.9).abs() < 1e-6 && slope(0.89) < 0.0 && slope(0.91) > 0.0);
}

#[test]
fn the_goal_ends_the_bellman_target() {
    let reached = tensor(&[0.0, 1.0], [1, 2]);
    let target = to_vec(bellman(&reached, tensor(&[-10.0, -10.0], [1, 2]), 0.99)).unwrap();
    close(target[0], -1.0 - 9.9);
    close(target[1], 0.0);
}

#[test]
fn advantage_weighted_regression_by_hand() {
    let policy =
        Gaussian { mean: tensor(&[0.0, 1.0, 0.0, 0.0], [2, 1, 2]), log_std: tensor(&[0.0, 0.5], [2]) };
    let actions = tensor(&[1.0, 0.0, 0.0, 2.0], [2, 1, 2]);
    let advantage = tensor(&[0.1, 5.0], [2, 1]);
    let weights = to_vec(advantage_weights(advantage.clone(), 3.0)).unwrap();
    close(weights[0], 0.3f32.exp());
    assert_eq!(weights[1], 100.0);
    let e = (-1.0f32).exp();
    let expected = (0.3f32.exp() * (0.5 + 0.5 * e + 0.5) + 100.0 * (2.0 * e + 0.5)) / 4.0;
    let terms = awr(&policy, actions.clone(), advantage, 3.0);
    close(number(&terms.total), expected);
    close(term(&terms, "action_mse"), 6.0 / 4.0);
    // Q: mean 1, mean size 2; the likelihood is summed over dimensions.
    let terms = ddpg_bc(&policy, actions, tensor(&[3.0, -1.0], [2, 1]), 0.5);
    close(term(&terms, "ddpg_loss"), -0.5);
    let nll = (0.5 + 0.5 * e + 0.5 + 2.0 * e + 0.5) / 2.0;
    close(number(&terms.total), -0.5 + 0.5 * nll);
}

#[test]
fn the_actor_climbs_the_critic_at_unit_scale() {
    let mean = tensor(&[3.0, -1.0], [2, 1, 1]).require_grad();
    let policy = Gaussian { mean: mean.clone(), log_std: tensor(&[0.0], [1]) };
    let q = (mean.clone() * 4.0).reshape([2, 1]);
    let terms = ddpg_bc(&policy, tensor(&[3.0, 0.0], [2, 1, 1]), q, 0.5);
    let slope = to_vec(mean.grad_remove(&mut terms.total.backward()).unwrap()).unwrap();
    // dQ/da = 4 over the mean size 8 of Q, and the pull to the data, each averaged over two rows.
    close(slope[0], -0.25);
    close(slope[1], -0.25 - 0.25);
}

#[test]
fn two_values_share_the_asymmetry_of_the_target_advantage() {
    let values = tensor(&[-4.0, -1.0], [1, 1, 2]);
    let (next, target) = (tensor(&[-2.0, -3.0], [1, 1, 2]), tensor(&[-2.0, -5.0], [1, 1, 2]));
    let reached = tensor(&[0.0], [1, 1]);
    // Targets -1 - 0.5 * {2, 3}; their least, -2.5, is above the mean target value, -3.5: both weights are 0.9.
    let terms = gcivl::value_loss(&values, Some(target), &next, &reached, 0.5, 0.9);
    close(number(&terms.total), 0.9 * (4.0 + 2.25));
    // By their own residuals the first is raised and the second lowered.
    let terms = gcivl::value_loss(&values, None, &next, &reached, 0.5, 0.9);
    close(number(&terms.total), 0.9 * 4.0 + 0.1 * 2.25);
    // At the goal the target is 0, and the lower target value makes the advantage positive.
    let target = tensor(&[-2.0, -5.0], [1, 1, 2]);
    let terms = gcivl::value_loss(&values, Some(target), &next, &tensor(&[1.0], [1, 1]), 0.5, 0.9);
    close(number(&terms.total), 0.9 * (16.0 + 1.0));
}

#[test]
fn critics_regress_and_the_value_follows_their_least() {
    let terms = gciql::value_loss(
        tensor(&[-3.0, -1.0], [1, 2]),
        tensor(&[-2.0, -2.0], [1, 2]),
        &tensor(&[0.0, 1.0, 2.0, 3.0], [1, 2, 2]),
        tensor(&[1.0, 1.0], [1, 2]),
        0.9,
    );
    close(term(&terms, "value_loss"), (0.9 + 0.1) / 2.0);
    close(term(&terms, "critic_loss"), (1.0 + 0.0 + 1.0 + 4.0) / 2.0);
    close(number(&terms.total), 3.5);
}

/// The gradient of `loss` in some directions against the slope of the loss.
pub(crate) fn finite_differences<M>(
    params: &Params,
    build: impl Fn(&mut Scope) -> M,
    loss: impl Fn(&M) -> Terms,
    spans: &[&str],
) {
    let device = device("cpu").unwrap();
    let value = |params: &Params| {
        let (model, _) = params.bind(&device, &build).unwrap();
        f64::from(number(&loss(&model).total))
    };
    let (model, leaves): (M, Leaves) = params.bind(&device, &build).unwrap();
    let gradient = leaves.gradients(&loss(&model).total).unwrap();
    for span in spans {
        let range = params.group(span);
        assert!(!range.is_empty(), "{span}");
        let norm = gradient[range.clone()].iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
        assert!(norm > 1e-4, "{span}: no gradient");
        // Small, because the least of two heads has kinks.
        let step = 2e-3 / norm;
        let moved = |sign: f64| {
            let mut params = params.clone();
            for i in range.clone() {
                params.values[i] += (sign * step * f64::from(gradient[i])) as f32;
            }
            value(&params)
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let error = (slope - norm * norm).abs() / (norm * norm);
        assert!(error < 0.02, "{span}: slope {slope}, gradient {}", norm * norm);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_losses() {
    let sizes = GoalSizes { frames: 3, patches: 2, width: 4, goal_width: 4, action: 2 };
    let (batch, bounds, device) = (transitions(&sizes), Bounds::symmetric(3.0, 2), device("cpu").unwrap());
    let spans = ["value_predictor.", "critic_predictor.", "action_predictor."];
    for (actor, advantage, bootstrap) in [
        (ActorLoss::Awr { alpha: 0.5 }, Advantage::Critic, Bootstrap::Online),
        (ActorLoss::Awr { alpha: 0.5 }, Advantage::Rise, Bootstrap::Target),
    ] {
        let config = GciqlConfig { network: small(), actor, advantage, bootstrap, ..GciqlConfig::default() };
        let build = |s: &mut Scope| Gciql::build(s, &sizes, &config);
        let params = config.init(&sizes, 1);
        let frozen = params.bind_frozen(&device, build).unwrap();
        let target = config.init(&sizes, 2).bind_frozen(&device, build).unwrap();
        finite_differences(&params, build, |m| m.loss(&frozen, &target, &batch, &bounds), &spans);
    }
    let config = GcivlConfig { network: small(), learn_std: true, alpha: 0.5, ..GcivlConfig::default() };
    let build = |s: &mut Scope| Gcivl::build(s, &sizes, &config);
    let params = config.init(&sizes, 1);
    let frozen = params.bind_frozen(&device, build).unwrap();
    let target = config.init(&sizes, 2).bind_frozen(&device, build).unwrap();
    let spans = ["value_predictor.", "action_predictor.", "log_stds"];
    finite_differences(&params, build, |m| m.loss(&frozen, &target, &batch), &spans);
    let config = HilpConfig { network: small(), learn_std: true, alpha: 0.5, ..HilpConfig::default() };
    let build = |s: &mut Scope| Hilp::build(s, &sizes, &config);
    let params = config.init(&sizes, 1);
    let frozen = params.bind_frozen(&device, build).unwrap();
    let target = config.init(&sizes, 2).bind_frozen(&device, build).unwrap();
    finite_differences(&params, build, |m| m.loss(&frozen, &target, &batch), &spans);
}

#[test]
fn an_actor_changes_no_value_and_constant_deviations_stay() {
    let sizes = GoalSizes::flat(4, 2);
    let (batch, bounds, device) = (transitions(&sizes), Bounds::symmetric(3.0, 2), device("cpu").unwrap());
    let config = GciqlConfig { network: small(), ..GciqlConfig::default() };
    let build = |s: &mut Scope| Gciql::build(s, &sizes, &config);
    let params = config.init(&sizes, 1);
    let (model, leaves) = params.bind(&device, build).unwrap();
    let frozen = params.bind_frozen(&device, build).unwrap();
    let gradient = leaves.gradients(&model.actor_loss(&frozen, &batch, &bounds).total).unwrap();
    for (span, touched) in [
        ("action_predictor.", true),
        ("value_predictor.", false),
        ("critic_predictor.", false),
        ("log_stds", false),
    ] {
        assert_eq!(gradient[params.group(span)].iter().any(|&g| g != 0.0), touched, "{span}");
    }
}

#[test]
fn squashing_stays_in_its_bounds_and_knows_its_slope() {
    let bounds = Bounds { low: vec![-1.0, 0.0], high: vec![3.0, 1.0] };
    let raw = tensor(&[0.0, 0.0, 20.0, -20.0, 0.3, -0.7], [1, 3, 2]);
    let squashed = to_vec(bounds.squash(raw.clone())).unwrap();
    assert_eq!(squashed[..4], [1.0, 0.5, 3.0, 0.0]);
    let slopes = to_vec(bounds.log_slope(&raw)).unwrap();
    close(slopes[0], 2f32.ln() + 0.5f32.ln());
    close(slopes[1], 2.0 * 2.0 * (2f32.ln() - 20.0));
    let slope = |u: f64, half: f64| (half * (1.0 - u.tanh().powi(2))).ln();
    close(slopes[2], (slope(0.3, 2.0) + slope(-0.7, 0.5)) as f32);
    let clipped = to_vec(bounds.clip(tensor(&[9.0, -9.0], [1, 1, 2]))).unwrap();
    assert_eq!(clipped, [3.0, 0.0]);
}
