use burn::tensor::activation;
use worldbench_nn::device;
use worldbench_nn::optim::ema;
use worldbench_nn::params::to_vec;

use super::*;
use crate::goal::tests::{close, finite_differences, number, random, small, tensor};

/// A chain of states with goals on it: action 1 leads to the right, action 0 to the left, the ends hold. The expert moves
/// towards the goal in three of four cases.
mod chain {
    pub const STATES: usize = 6;
    pub const EXPERT: f64 = 0.75;
    pub const TEMPERATURE: f64 = 0.1;
    pub const DISCOUNT: f64 = 0.95;
    pub const ALPHA: f64 = 0.5;

    pub fn next(state: usize, action: usize) -> usize {
        if action == 1 { (state + 1).min(STATES - 1) } else { state.saturating_sub(1) }
    }

    /// The action towards the goal.
    pub fn towards(state: usize, goal: usize) -> usize {
        usize::from(goal > state)
    }

    pub fn probability(state: usize, goal: usize, action: usize) -> f64 {
        if action == towards(state, goal) { EXPERT } else { 1.0 - EXPERT }
    }

    /// All (state, goal) with state other than goal.
    pub fn pairs() -> impl Iterator<Item = (usize, usize)> {
        (0..STATES * STATES).map(|i| (i / STATES, i % STATES)).filter(|(s, g)| s != g)
    }

    /// Root of an increasing function.
    fn bisect(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if f(middle) < 0.0 { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    }

    /// The optimum `Q(s, g, a)`. Where the loss is stationary, `pi = pi_E (1 - r / (2 alpha))` for every action, with
    /// `r = Q - discount V(s')` and `Q = V + temperature log pi`: per state one equation in V, given that of the successors.
    pub fn optimum() -> Vec<[f64; 2]> {
        let mut values = vec![0.0; STATES * STATES];
        let mut q = vec![[0.0; 2]; STATES * STATES];
        for _ in 0..200 {
            for (state, goal) in pairs() {
                let bootstrap = |a: usize| {
                    let next = next(state, a);
                    if next == goal { 0.0 } else { DISCOUNT * values[next * STATES + goal] }
                };
                let log_pi = |v: f64, a: usize| {
                    bisect(-200.0, 50.0, |l| {
                        let reward = v + TEMPERATURE * l - bootstrap(a);
                        l.exp() / probability(state, goal, a) - 1.0 + reward / (2.0 * ALPHA)
                    })
                };
                let v = bisect(-50.0, 50.0, |v| 1.0 - (log_pi(v, 0).exp() + log_pi(v, 1).exp()));
                let at = state * STATES + goal;
                q[at] = [0, 1].map(|a| v + TEMPERATURE * log_pi(v, a));
                values[at] = v;
            }
        }
        q
    }
}

/// Rows of the demonstrations: three with the expert's better action, one with the other, for all pairs.
fn demonstrations() -> Vec<(usize, usize, usize)> {
    let rows = chain::pairs().flat_map(|(s, g)| {
        let better = chain::towards(s, g);
        [better, better, better, 1 - better].map(|a| (s, g, a))
    });
    rows.collect()
}

/// One-hot rows, [rows, columns].
fn one_hot(indices: impl Iterator<Item = usize>, columns: usize) -> Tensor<2> {
    let indices: Vec<usize> = indices.collect();
    let mut values = vec![0.0; indices.len() * columns];
    for (row, &i) in indices.iter().enumerate() {
        values[row * columns + i] = 1.0;
    }
    tensor(&values, [indices.len(), columns])
}

/// `temperature logsumexp(q / temperature)` over the actions, `[N, A]` to `[N, 1]`.
fn soft_maximum(q: &Tensor<2>) -> Tensor<2> {
    let scaled = q.clone() / chain::TEMPERATURE;
    let top = scaled.clone().max_dim(1).detach();
    ((scaled - top.clone()).exp().sum_dim(1).log() + top) * chain::TEMPERATURE
}

/// Trains a table by the method's loss, plain gradient descent and a moving average as target.
fn learn() -> Vec<[f64; 2]> {
    let cells = chain::STATES * chain::STATES;
    let rows = demonstrations();
    let count = rows.len();
    let cell = |s: usize, g: usize| s * chain::STATES + g;
    let here = one_hot(rows.iter().map(|&(s, g, _)| cell(s, g)), cells);
    let there = one_hot(rows.iter().map(|&(s, g, a)| cell(chain::next(s, a), g)), cells);
    let action = one_hot(rows.iter().map(|&(_, _, a)| a), 2);
    let alive: Vec<f32> = rows.iter().map(|&(s, g, a)| f32::from(u8::from(chain::next(s, a) != g))).collect();
    let alive = tensor::<2>(&alive, [count, 1]);
    let (mut table, mut target) = (vec![0.0f32; cells * 2], vec![0.0f32; cells * 2]);
    for _ in 0..2500 {
        let leaf = tensor::<2>(&table, [cells, 2]).require_grad();
        let q = here.clone().matmul(leaf.clone()); // [rows, 2]
        let next = there.clone().matmul(tensor(&target, [cells, 2]));
        let bootstrap = alive.clone() * soft_maximum(&next) * chain::DISCOUNT;
        let critics = (q.clone() * action.clone()).sum_dim(1).reshape([count, 1, 1]);
        let terms = critic_loss(&critics, soft_maximum(&q), bootstrap, chain::ALPHA);
        let slope = to_vec(leaf.grad_remove(&mut terms.total.backward()).unwrap()).unwrap();
        for (value, slope) in table.iter_mut().zip(slope) {
            *value -= 0.1 * count as f32 * slope;
        }
        ema(&mut target, &table, 0.1);
    }
    table.chunks(2).map(|q| [f64::from(q[0]), f64::from(q[1])]).collect()
}

fn greedy(q: [f64; 2]) -> usize {
    usize::from(q[1] > q[0])
}

#[test]
fn on_a_chain_it_finds_the_optimum_the_expert_and_a_reward_that_asks_for_the_expert() {
    use chain::{ALPHA, DISCOUNT, STATES, TEMPERATURE, next, optimum, pairs, probability, towards};
    let (found, exact) = (learn(), optimum());
    let value = |q: [f64; 2]| {
        let top = q[0].max(q[1]);
        top + TEMPERATURE * q.map(|q| ((q - top) / TEMPERATURE).exp()).iter().sum::<f64>().ln()
    };
    let mut rewards = vec![[0.0; 2]; STATES * STATES];
    for (state, goal) in pairs() {
        let at = state * STATES + goal;
        for a in 0..2 {
            let error = (found[at][a] - exact[at][a]).abs();
            assert!(error < 1e-3, "state {state}, goal {goal}: {:?}, not {:?}", found[at], exact[at]);
            let successor = next(state, a);
            let bootstrap = if successor == goal { 0.0 } else { value(found[successor * STATES + goal]) };
            rewards[at][a] = found[at][a] - DISCOUNT * bootstrap;
            let policy = ((found[at][a] - value(found[at])) / TEMPERATURE).exp();
            let balance = probability(state, goal, a) * (1.0 - rewards[at][a] / (2.0 * ALPHA));
            assert!((policy - balance).abs() < 1e-3, "state {state}, goal {goal}: {policy}, not {balance}");
        }
        assert_eq!(greedy(found[at]), towards(state, goal), "state {state}, goal {goal}");
        let better = towards(state, goal);
        assert!(rewards[at][better] > 0.0 && rewards[at][1 - better] < 0.0, "{:?}", rewards[at]);
    }
    let along: Vec<f64> = (0..STATES - 1).map(|state| rewards[state * STATES + STATES - 1][1]).collect();
    assert!(along.is_sorted(), "the reward rises towards the goal: {along:?}");
    // The optimal policy of the recovered reward, without entropy.
    let mut best = vec![[0.0f64; 2]; STATES * STATES];
    for _ in 0..1000 {
        for (state, goal) in pairs() {
            let at = state * STATES + goal;
            best[at] = [0, 1].map(|a| {
                let to = next(state, a);
                let future = if to == goal {
                    0.0
                } else {
                    best[to * STATES + goal].into_iter().fold(f64::MIN, f64::max)
                };
                rewards[at][a] + DISCOUNT * future
            });
        }
    }
    for (state, goal) in pairs() {
        assert_eq!(greedy(best[state * STATES + goal]), towards(state, goal), "state {state}, goal {goal}");
    }
}

#[test]
fn the_objective_by_hand() {
    // Rewards {3, 1} and {-1, 0} for two heads; V less bootstrap is 2 and -1.
    let critics = tensor(&[4.0, 2.0, 1.0, 2.0], [2, 1, 2]);
    let terms = critic_loss(&critics, tensor(&[3.0, 1.0], [2, 1]), tensor(&[1.0, 2.0], [2, 1]), 0.5);
    let divergence = (9.0 + 1.0 + 1.0 + 0.0) / 4.0 / 2.0;
    close(number(&terms.total), 2.0 * (-0.75 + 0.5 + divergence));
}

#[test]
fn the_density_of_a_sample_is_that_of_the_squashed_gaussian() {
    let output = tensor(&[0.3, -0.2, 0.1, 0.4], [1, 1, 4]);
    let policy = Policy::of(&output);
    let bounds = Bounds { low: vec![-2.0, -1.0], high: vec![2.0, 3.0] };
    let noise = tensor(&[0.5, -1.5], [1, 1, 2]);
    let (action, density) = policy.sample(&noise, &bounds);
    let mut expected = 0.0;
    let actions = to_vec(action).unwrap();
    for (i, (mean, raw, noise)) in [(0.3f64, 0.1f64, 0.5f64), (-0.2, 0.4, -1.5)].into_iter().enumerate() {
        let log_std = 3.5 * raw.tanh() - 1.5;
        let u = mean + log_std.exp() * noise;
        let squashed = 2.0 * u.tanh() + [0.0, 1.0][i];
        close(actions[i], squashed as f32);
        expected += -0.5 * noise * noise - log_std - 0.5 * (2.0 * std::f64::consts::PI).ln();
        expected -= (2.0 * (1.0 - u.tanh().powi(2))).ln();
    }
    close(to_vec(density).unwrap()[0], expected as f32);
    let mode = to_vec(policy.mode(&bounds)).unwrap();
    close(mode[1], 2.0 * (-0.2f32).tanh() + 1.0);
}

#[test]
fn gradients_are_the_slopes_of_the_losses() {
    let sizes = GoalSizes::flat(4, 2);
    let config =
        IqLearnConfig { network: small(), beta_bc: 0.5, temperature: 0.2, ..IqLearnConfig::default() };
    let build = |s: &mut Scope| IqLearn::build(s, &sizes, &config);
    let device = device("cpu").unwrap();
    let params = config.init(&sizes, 1);
    let frozen = params.bind_frozen(&device, build).unwrap();
    let target = config.init(&sizes, 2).bind_frozen(&device, build).unwrap();
    let batch = Demonstrations {
        obs: random([4, 2, 1, 4], 1),
        next: random([4, 2, 1, 4], 2),
        actions: random([4, 2, 2], 3),
        goal: random([4, 1, 4], 4),
        next_reached: tensor(&[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0], [4, 2]),
    };
    let noise = [random([4, 2, 2], 5), random([4, 2, 2], 6)];
    let bounds = Bounds::symmetric(1.5, 2);
    let spans = ["critic_predictor.", "action_predictor."];
    finite_differences(&params, build, |m| m.loss(&frozen, &target, &batch, &noise, &bounds), &spans);
    // The critics' loss moves the critics alone, the actor's the actor.
    let (model, leaves) = params.bind(&device, build).unwrap();
    let critics = model.critic_loss(&frozen, &target, &batch, &noise, &bounds).total;
    let gradient = leaves.gradients(&critics).unwrap();
    assert!(gradient[params.group("action_predictor.")].iter().all(|&g| g == 0.0));
    let (model, leaves) = params.bind(&device, build).unwrap();
    let actor = model.actor_loss(&frozen, &batch, &noise[0], &bounds).total;
    let gradient = leaves.gradients(&actor).unwrap();
    assert!(gradient[params.group("critic_predictor.")].iter().all(|&g| g == 0.0));
}

#[test]
fn missing_actions_count_as_zero() {
    let sizes = GoalSizes::flat(3, 1);
    let config = IqLearnConfig { network: small(), beta_bc: 1.0, ..IqLearnConfig::default() };
    let build = |s: &mut Scope| IqLearn::build(s, &sizes, &config);
    let net = config.init(&sizes, 1).bind_frozen(&device("cpu").unwrap(), build).unwrap();
    let batch = |action: f32| Demonstrations {
        obs: random([1, 1, 1, 3], 1),
        next: random([1, 1, 1, 3], 2),
        actions: tensor(&[action], [1, 1, 1]),
        goal: random([1, 1, 3], 4),
        next_reached: tensor(&[0.0], [1, 1]),
    };
    let (noise, bounds) = ([random([1, 1, 1], 5), random([1, 1, 1], 6)], Bounds::symmetric(1.0, 1));
    let loss = |action| number(&net.loss(&net, &net, &batch(action), &noise, &bounds).total);
    assert_eq!(loss(f32::NAN), loss(0.0));
    let mode = activation::tanh(net.actor.forward(&batch(0.0).obs, &batch(0.0).goal).narrow(2, 0, 1));
    assert_eq!(
        to_vec(mode).unwrap(),
        to_vec(net.policy(&batch(0.0).obs, &batch(0.0).goal).mode(&bounds)).unwrap()
    );
}
