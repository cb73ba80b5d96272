use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{Baseline, EpisodePolicy};

fn protocol() -> Protocol {
    Protocol::find("held-out", "push_t").unwrap()
}

fn push_t() -> DomainRef {
    worldbench_env::domain::find("push_t").unwrap()
}

/// Pairs whose goals come from rolling out 25 recorded actions; the agent passes the block on some of them.
fn manifest(n: u64) -> Manifest {
    let pairs = (0..n).map(|i| {
        let mut stream = Stream::new(5, "runner test", &[i]);
        let start = [stream.uniform(100.0, 400.0), stream.uniform(100.0, 400.0), 250.0, 250.0, 0.5, 0.0, 0.0];
        let actions: Vec<[f32; 2]> =
            (0..25).map(|_| std::array::from_fn(|_| stream.uniform(-0.6, 0.9) as f32)).collect();
        let scene = push_t().scene(&Default::default()).unwrap();
        let mut env = reset(push_t(), &scene, &start, &start).unwrap();
        for action in &actions {
            env.step(*action);
        }
        Pair::new(push_t(), start, env.state(), actions, i, "test").unwrap()
    });
    Manifest {
        environment: "push_t".into(),
        split: "test".into(),
        made_by: "test".into(),
        pairs: pairs.collect(),
    }
}

fn run(policy: &dyn Policy, options: &EvalOptions) -> Evaluation {
    evaluate(&protocol(), &manifest(12), policy, options).unwrap()
}

#[test]
fn threads_change_nothing() {
    let one = run(&Baseline::Random, &EvalOptions { threads: 1, seed: 3, ..Default::default() });
    let two = run(&Baseline::Random, &EvalOptions { threads: 2, seed: 3, ..Default::default() });
    assert_eq!(one, two);
    let other = run(&Baseline::Random, &EvalOptions { threads: 2, seed: 4, ..Default::default() });
    assert_ne!(one.outcomes, other.outcomes);
    let episode = &one.outcomes[7];
    assert_eq!((episode.index, episode.distances.len()), (7, episode.steps + 1));
    assert_eq!((episode.states.len(), episode.actions.len()), (episode.steps + 1, episode.steps));
}

#[test]
fn replay_reaches_the_goals_and_stops_there() {
    let replay = run(&Baseline::Replay, &EvalOptions::default());
    assert_eq!(replay.score.all.successes, 12);
    let manifest = manifest(12);
    for (outcome, pair) in replay.outcomes.iter().zip(&manifest.pairs) {
        assert!(outcome.steps <= 25 && outcome.success, "{}", outcome.steps);
        assert_eq!(outcome.actions, pair.actions[..outcome.steps]);
        assert!(*outcome.distances.last().unwrap() < 20.0);
    }
    let still = run(&Baseline::NoOp, &EvalOptions::default());
    for outcome in still.outcomes.iter().filter(|o| !o.success) {
        assert_eq!(outcome.steps, 50);
    }
    assert!(still.outcomes.iter().flat_map(|o| &o.actions).all(|a| *a == [0.0; 2]));
}

#[test]
fn a_start_at_the_goal_counts_after_one_step() {
    let mut manifest = manifest(1);
    let start = manifest.pairs[0].start.clone();
    manifest.pairs[0] = Pair::new(push_t(), start.clone(), start, vec![[0.0; 2]; 25], 0, "test").unwrap();
    let outcome =
        &evaluate(&protocol(), &manifest, &Baseline::NoOp, &EvalOptions::default()).unwrap().outcomes[0];
    assert_eq!((outcome.success, outcome.steps), (true, 1));
}

/// Counts the episodes it begins.
struct Counting(AtomicUsize, &'static str);

impl Policy for Counting {
    fn name(&self) -> String {
        self.1.into()
    }
    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Baseline::Random.begin(context)
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Counting(AtomicUsize::new(0), "counting");
    let whole = run(&policy, &EvalOptions::default());
    let kept = EvalOptions { resume_dir: Some(dir.path()), ..Default::default() };
    run(&policy, &EvalOptions { limit: Some(5), ..kept });
    // A kill tears the last line.
    let path = dir.path().join(EPISODES_FILE);
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 100]).unwrap();
    policy.0.store(0, Ordering::Relaxed);
    assert_eq!(run(&policy, &EvalOptions { threads: 2, ..kept }), whole);
    assert_eq!(policy.0.swap(0, Ordering::Relaxed), 12 - 4);
    let calls = AtomicUsize::new(0);
    let count = |_: &Progress| {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(run(&policy, &EvalOptions { progress: Some(&count), ..kept }), whole);
    assert_eq!((policy.0.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn episodes_of_another_run_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kept = EvalOptions { resume_dir: Some(dir.path()), limit: Some(2), ..Default::default() };
    run(&Counting(AtomicUsize::new(0), "a"), &kept);
    let fails = |policy: &'static str, options: &EvalOptions| {
        let policy = Counting(AtomicUsize::new(0), policy);
        evaluate(&protocol(), &manifest(12), &policy, options).unwrap_err().to_string()
    };
    assert!(fails("b", &kept).contains("policy: there `a`, here `b`"));
    assert!(fails("a", &EvalOptions { seed: 1, ..kept }).contains("seed"));
    let path = dir.path().join(EPISODES_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"index\"", "\"indx\"", 1)).unwrap();
    assert!(fails("a", &kept).contains("line 2"));
}

#[test]
fn manifests_that_do_not_fit_are_refused() {
    let fails = |change: fn(&mut Manifest)| {
        let mut manifest = manifest(2);
        change(&mut manifest);
        let options = EvalOptions::default();
        evaluate(&protocol(), &manifest, &Baseline::NoOp, &options).unwrap_err().to_string()
    };
    assert!(fails(|m| m.pairs.clear()).contains("no pairs"));
    assert!(fails(|m| m.environment = "two_room".into()).contains("two_room"));
    assert!(fails(|m| m.pairs.iter_mut().for_each(|p| p.actions.truncate(3))).contains("3 steps"));
}

#[test]
fn the_recorded_actions_solve_the_committed_pairs() {
    for env in worldbench_env::environment::ALL {
        for protocol in Protocol::names().filter_map(|name| Protocol::find(name, env.name).ok()) {
            for manifest in protocol.manifests().unwrap() {
                let replay =
                    evaluate(&protocol, &manifest, &Baseline::Replay, &EvalOptions::default()).unwrap();
                let rate = replay.score.all;
                assert!(
                    rate.rate >= 0.99,
                    "{} {} {}: {}",
                    env.name,
                    protocol.name,
                    manifest.split,
                    rate.text()
                );
            }
        }
    }
}
