//! Inference on kernels against the networks that are trained.

use worldbench_core::Stream;
use worldbench_nn::goal_predictor::GoalPredictorConfig;
use worldbench_nn::mlp::MlpConfig;
use worldbench_nn::params::{from_vec, to_vec};
use worldbench_nn::{Params, Scope};

use super::*;
use crate::goal::{GoalCritic, GoalNet};
use crate::iq_learn::Policy;

const HEADS: usize = 2;
const CONTEXT: usize = 2;

fn networks() -> [(GoalNetConfig, GoalSizes); 2] {
    let mlp = GoalNetConfig::Mlp(MlpConfig { hidden: 16, layers: 2, layer_norm: true });
    let tokens = GoalPredictorConfig { depth: 4, heads: 2, head_width: 4, mlp: 16, q_hidden: 8 };
    let tokens = GoalNetConfig::Tokens(tokens);
    let sizes = GoalSizes { frames: 3, patches: 4, width: 8, goal_width: 8, action: 4 };
    [(mlp, sizes), (tokens, sizes)]
}

fn normal(name: &str, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    Stream::new(3, name, &[]).fill_normal(&mut values);
    values
}

fn near(a: &[f32], b: &[f32]) {
    assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-5), "{a:?} {b:?}");
}

#[test]
fn kernels_compute_what_was_trained() {
    let device = worldbench_nn::device("cpu").unwrap().inner();
    for (network, sizes) in networks() {
        let build = |scope: &mut Scope| {
            let actor = GoalNet::actor(scope, &network, &sizes, 2 * sizes.action);
            let value = GoalNet::value(scope, &network, &sizes, HEADS);
            (actor, value, GoalCritic::build(scope, &network, &sizes, HEADS))
        };
        let params = Params::init(1, build);
        let ((actor, value, critic), _) = params.bind(&device, build).unwrap();
        let each = sizes.patches * sizes.width;
        let (obs, goal) = (normal("obs", CONTEXT * each), normal("goal", each));
        let tokens = from_vec(obs.clone(), [1, CONTEXT, sizes.patches, sizes.width], &device);
        let goals = from_vec(goal.clone(), [1, sizes.patches, sizes.width], &device);
        let newest = |values: Vec<f32>| values[values.len() / CONTEXT..].to_vec();
        let bounds = Bounds { low: vec![-2.0; sizes.action], high: vec![3.0; sizes.action] };
        let spec =
            PolicySpec { network, sizes, squashed: Some(bounds.clone()), value: ValueSource::Critic(HEADS) };
        let nets = PolicyNets::new(spec.clone(), &params).unwrap();
        let mode = Policy::of(&actor.forward(&tokens, &goals)).mode(&bounds);
        let action = nets.act(&obs, &goal).unwrap();
        near(&action, &newest(to_vec(mode.clone()).unwrap()));
        let q = newest(to_vec(critic.forward(&tokens, &goals, &mode)).unwrap());
        near(&[nets.value(&obs, &goal).unwrap().unwrap()], &[q[0].min(q[1])]);
        let nets = PolicyNets::new(PolicySpec { value: ValueSource::Value(HEADS), ..spec }, &params).unwrap();
        let v = newest(to_vec(value.forward(&tokens, &goals)).unwrap());
        near(&[nets.value(&obs, &goal).unwrap().unwrap()], &[(v[0] + v[1]) / 2.0]);
        assert!(nets.act(&obs[1..], &goal).unwrap_err().to_string().contains("1 to 3 observations"));
        assert!(nets.act(&obs, &goal[1..]).unwrap_err().to_string().contains("the goal"));
    }
}

#[test]
fn proprioception_stands_behind_every_token() {
    let statistics = [[1.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 1.0]];
    let mut out = Vec::new();
    observation(&[1.0, 2.0, 3.0, 4.0], 2, Some((&statistics, &[5.0, 6.0, 7.0, 8.0])), &mut out);
    assert_eq!(out, [1.0, 2.0, 2.0, 6.0, 7.0, 8.0, 3.0, 4.0, 2.0, 6.0, 7.0, 8.0]);
}
