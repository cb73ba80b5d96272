use super::*;
use crate::policies::{Policy, Random};
use crate::{ResetOptions, VecEnv};

/// What an environment does behind its name is what it does by itself, to the bit.
fn same<E: Environment + 'static>() {
    let domain = find(E::SPEC.name).unwrap();
    let sampling = Sampling::all();
    for seed in 0..4 {
        let options = ResetOptions { sampling: sampling.clone(), ..ResetOptions::default() };
        let mut env = E::build(&E::Factors::default());
        env.reset(seed, &options).unwrap();
        let factors = env.factors().clone();
        let scene = Scene::of(&factors);
        assert_eq!(scene.factors::<E::Factors>(), factors);
        let json = domain.write_scene(&scene).unwrap();
        assert_eq!(domain.read_scene(serde_json::from_str(&json).unwrap()).unwrap(), scene);

        let (start, goal) = (env.state(), env.goal_state());
        let mut live = domain.build(&scene);
        let mut env = E::build(&factors);
        env.set_state(start.as_ref()).unwrap();
        env.set_goal_state(goal.as_ref()).unwrap();
        live.set_state(start.as_ref()).unwrap();
        live.set_goal_state(goal.as_ref()).unwrap();
        let mut camera = domain.camera(&domain.visible(&scene), 48, Filter::Area).unwrap();
        let mut renderer = E::Renderer::new(&factors, 48, Filter::Area).unwrap();
        let (mut play, mut shot) = (Random::new(seed, 0), vec![0; 48 * 48 * 3]);
        for step in 0..30 {
            let action = play.act(&env, step);
            let ahead = live.costs(&[action], false);
            env.step(action);
            live.step(action);
            assert_eq!(live.state(), env.state().as_ref());
            assert_eq!(live.success(), env.success());
            let (state, goal) = (live.state(), live.goal_state());
            assert_eq!(ahead, [domain.cost(&scene, &state, &goal).unwrap()]);
            assert_eq!(E::RenderState::of_look(&live.look()), env.render_state());
            camera.shoot(&live.look(), &mut shot).unwrap();
            assert!(shot == renderer.view(&env.render_state()), "{} seed {seed}", E::SPEC.name);
            assert!(domain.cost(&scene, &goal, &goal).unwrap() < 1.0);
        }
    }
}

#[test]
fn domains_do_what_their_environments_do() {
    same::<PushT>();
    same::<TwoRoom>();
}

#[test]
fn costs_below_one_mean_success() {
    fn check<E: Environment + 'static>() {
        let mut envs = VecEnv::new(E::build(&E::Factors::default()), 300, 2).unwrap();
        envs.reset(0, &ResetOptions::default()).unwrap();
        let solved = envs.map(|i, env| {
            // Goals near the state, so that both answers are common.
            let mut goal = env.state().as_ref().to_vec();
            goal[0] += (i % 30) as f64;
            let inside = goal.iter().take(2).all(|v| (20.0..200.0).contains(v));
            if !inside || env.set_goal_state(&goal).is_err() {
                return None;
            }
            let cost = E::cost(env.factors(), &env.state(), &env.goal_state());
            assert!(cost >= 1.0 || env.success(), "{cost} {:?}", env.state());
            Some(env.success())
        });
        let known: Vec<bool> = solved.into_iter().flatten().collect();
        assert!(known.contains(&true) && known.contains(&false));
    }
    check::<PushT>();
    check::<TwoRoom>();
}

#[test]
fn wrong_states_and_factors_are_refused() {
    let room = find("two_room").unwrap();
    let scene = room.scene(&Changes::new()).unwrap();
    let message = room.cost(&scene, &[1.0; 3], &[1.0; 2]).unwrap_err().to_string();
    assert!(message.contains("Two-Room") && message.contains("2 values"), "{message}");
    let changes = |name: &str| Changes::from([(name.to_string(), vec![9.0])]);
    assert!(room.scene(&changes("agent.raduis")).unwrap_err().to_string().contains("agent.radius"));
    assert_ne!(room.scene(&changes("agent.radius")).unwrap(), scene);
    assert!(find("three_room").is_none());
}
