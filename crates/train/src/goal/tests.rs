//! Policies train, resume to the bit, and load with nothing but their own directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use worldbench_core::Stream;
use worldbench_data::{Batch, Split, Store, Window};

use super::batch::Moments;
use super::{Eyes, GoalEncoder, GoalLearner, Objective, Phases, TrainedEncoder};
use crate::trainer::tests::{TINY, store};
use crate::{Learner, Model, ModelConfig, TrainConfig, TrainError, Trainer, checkpoint};

const PRESETS: [&str; 5] = [
    include_str!("../../../../configs/train/gcbc-compact.toml"),
    include_str!("../../../../configs/train/iq-learn-compact.toml"),
    include_str!("../../../../configs/train/iq-learn-bc-compact.toml"),
    include_str!("../../../../configs/train/gciql-compact.toml"),
    include_str!("../../../../configs/train/gcivl-compact.toml"),
];

const FULL: [&str; 4] = [
    include_str!("../../../../configs/train/gcbc-full.toml"),
    include_str!("../../../../configs/train/iq-learn-full.toml"),
    include_str!("../../../../configs/train/gciql-full.toml"),
    include_str!("../../../../configs/train/gcivl-full.toml"),
];

struct Bench {
    directory: tempfile::TempDir,
    store: Arc<Store>,
}

impl Bench {
    /// A small store, and a compact world model's checkpoint in `world`.
    fn new() -> Self {
        let (directory, store) = store();
        let bench = Self { directory, store: Arc::new(store) };
        let world = TrainConfig { steps: 2, ..toml::from_str(TINY).unwrap() };
        bench.train(&world, "world", 99).unwrap();
        bench
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn train(&self, config: &TrainConfig, run: &str, stop: u64) -> Result<u64, TrainError> {
        let split = Split::by_source(&self.store, config.validation, config.seed);
        let mut learner = crate::learner(config, &self.store, &split)?;
        let (spec, run) = (config.window_spec(), self.path(run));
        let mut trainer =
            Trainer::open(config, &run, Arc::clone(&self.store), split, spec, learner.as_mut())?;
        let begun = trainer.step();
        trainer.run(learner.as_mut(), &mut |now| now.step < stop)?;
        Ok(begun)
    }

    /// A preset made small, on the encoder in `world` or the built-in one.
    fn small(&self, text: &str) -> TrainConfig {
        let narrow = text
            .replace("hidden = 512, layers = 3", "hidden = 8, layers = 1")
            .replace(
                "depth = 6, heads = 16, head_width = 64, mlp = 2048, q_hidden = 256",
                "depth = 3, heads = 2, head_width = 4, mlp = 8, q_hidden = 4",
            )
            .replace("name = \"dinov2_small\", image = 224", "name = \"built_in\", image = 112");
        let mut config: TrainConfig = toml::from_str(&narrow).unwrap();
        (config.steps, config.batch, config.validation, config.validate_every) = (4, 5, 0.4, 2);
        if let GoalEncoder::Compact(source) = &mut policy(&mut config).encoder {
            source.checkpoint = self.path("world");
        }
        config
    }
}

fn policy(config: &mut TrainConfig) -> &mut crate::GoalTraining {
    let ModelConfig::GoalPolicy(model) = &mut config.model else { panic!("preset of a policy") };
    model
}

fn same(a: &Path, b: &Path) {
    for name in [
        "model.safetensors",
        "config.toml",
        "log.csv",
        "resume-4/model.safetensors",
        "resume-4/optimizer.safetensors",
    ] {
        assert!(
            fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(),
            "{}: {name}",
            a.display()
        );
    }
}

#[test]
fn compact_policies_resume_bit_identically_and_carry_their_encoder() {
    let bench = Bench::new();
    let other = bench.path("moved-world");
    for (i, text) in PRESETS.into_iter().enumerate() {
        let mut config = bench.small(text);
        let (whole, killed) = (format!("whole-{i}"), format!("killed-{i}"));
        bench.train(&config, &whole, 99).unwrap();
        bench.train(&config, &killed, 1).unwrap();
        // The encoder may lie elsewhere when the run goes on.
        fs::rename(bench.path("world"), &other).unwrap();
        if let GoalEncoder::Compact(source) = &mut policy(&mut config).encoder {
            source.checkpoint.clone_from(&other);
        }
        assert_eq!(bench.train(&config, &killed, 99).unwrap(), 1);
        let saved = |run: &str| fs::read_to_string(bench.path(run).join("config.toml")).unwrap();
        assert!(saved(&killed).contains("moved-world"));
        fs::write(bench.path(&killed).join("config.toml"), saved(&whole)).unwrap();
        same(&bench.path(&whole), &bench.path(&killed));
        let loaded = crate::load(&bench.path(&whole)).unwrap();
        let (tensors, _) = checkpoint::read_tensors(&bench.path(&whole).join("model.safetensors")).unwrap();
        assert_eq!((loaded.method, loaded.architecture.as_str()), (config.method, "goal-policy"));
        assert_eq!(loaded.report, format!("{0}/{0} tensors", tensors.len()));
        assert!(
            tensors.contains_key("encoder.background") && !tensors.keys().any(|k| k.starts_with("target."))
        );
        let Model::Policy(acting) = loaded.model else { panic!("a policy") };
        let seen = acting.observe(&[200; 32 * 32 * 3], &[100.0, 200.0, 0.0, 0.0]).unwrap();
        let actions = acting.act(&seen, &seen).unwrap();
        assert_eq!(actions.len(), 2 * acting.chunk());
        assert!(actions.iter().all(|a| a.is_finite()));
        let learned_value = !matches!(policy(&mut config).objective, Objective::Gcbc(_));
        assert_eq!(acting.value(&seen, &seen).unwrap().is_some(), learned_value);
        fs::rename(&other, bench.path("world")).unwrap();
    }
    // Another encoder is refused when a run goes on, and the one that is missing is named.
    let config = bench.small(PRESETS[0]);
    let world = TrainConfig { steps: 2, seed: 9, ..toml::from_str(TINY).unwrap() };
    fs::remove_dir_all(bench.path("world")).unwrap();
    let error = bench.train(&config, "lost", 99).unwrap_err().to_string();
    assert!(error.contains("world") && error.contains("config.toml"), "{error}");
    bench.train(&world, "world", 99).unwrap();
    let error = bench.train(&config, "killed-0", 99).unwrap_err().to_string();
    assert!(error.contains("another encoder"), "{error}");
}

#[test]
fn full_size_policies_train_with_and_without_a_cache_in_phases() {
    let bench = Bench::new();
    for (i, text) in FULL.into_iter().enumerate() {
        let mut config = bench.small(text);
        policy(&mut config).cache_gb = if i % 2 == 0 { 0.0 } else { 8.0 };
        let (whole, killed) = (format!("whole-{i}"), format!("killed-{i}"));
        bench.train(&config, &whole, 99).unwrap();
        bench.train(&config, &killed, 1).unwrap();
        assert_eq!(bench.train(&config, &killed, 99).unwrap(), 1);
        same(&bench.path(&whole), &bench.path(&killed));
        let loaded = crate::load(&bench.path(&whole)).unwrap();
        let Model::Policy(acting) = loaded.model else { panic!("a policy") };
        assert_eq!((acting.history(), acting.chunk(), acting.resolution()), (3, 1, 112));
        if policy(&mut config).phases == Phases::TwoPhase {
            let read =
                |run: &str| checkpoint::read_tensors(&bench.path(run).join("model.safetensors")).unwrap().0;
            let half = format!("half-{i}");
            bench.train(&config, &half, 2).unwrap();
            let (half, end) = (read(&half), read(&whole));
            for (key, tensor) in &half {
                let moved = end[key] != *tensor;
                // The second phase moves nothing but the actor.
                assert!(!moved || key.starts_with("action_predictor"), "{key}");
            }
            assert!(half.keys().any(|key| end[key] != half[key]));
        }
    }
}

#[test]
fn wrong_settings_are_named() {
    let bench = Bench::new();
    let text = PRESETS[3];
    for (from, to, expected) in [
        ("kind = \"gciql\"", "kind = \"gcivl\"", "model.objective.kind"),
        ("chunk = 1", "chunk = 0", "model.chunk"),
        ("chunk = 1", "chunk = 2", "single actions"),
        ("random = 0.0", "random = 0.9", "model.value_goals"),
        ("expectile = 0.9", "expectile = 1.5", "model.objective.expectile"),
        ("heads = 2", "heads = 0", "model.objective.heads"),
        ("ema = 0.005", "ema = 0.0", "model.objective.ema"),
        ("hidden = 256", "hidden = 0", "model.objective.network.hidden"),
        ("frames = 1", "frames = 0", "frames"),
    ] {
        // The other value-learning method has other keys: only the kind is wrong then.
        let text = if to.contains("gcivl") {
            PRESETS[4].replace("method = \"gcivl\"", "method = \"gciql\"")
        } else {
            assert!(text.contains(from), "the preset has no `{from}`");
            text.replace(from, to)
        };
        let config: TrainConfig = toml::from_str(&text).unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{from}: {error}");
    }
    for (from, to, expected) in [
        ("cache_gb = 0.0", "cache_gb = 0.0\nphases = \"two-phase\"", "two-phase"),
        ("cache_gb = 0.0", "cache_gb = 0.0\nreached = \"observation\"", "model.reached"),
        ("kernel = 3", "kernel = 7", "model.encoder.size.kernel"),
    ] {
        let config: TrainConfig = toml::from_str(&TRAINED.replace(from, to)).unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    // A checkpoint takes the place of the preset's size.
    let begun = TRAINED.replace("kind = \"trained\"", "kind = \"trained\"\ncheckpoint = \"run\"");
    toml::from_str::<TrainConfig>(&begun).unwrap().check().unwrap();
    let config: TrainConfig = toml::from_str(PRESETS[0]).unwrap();
    let split = Split::by_source(&bench.store, 0.4, 0);
    let error = crate::learner(&config, &bench.store, &split).err().unwrap().to_string();
    assert!(error.contains("--set model.encoder.checkpoint=DIR"), "{error}");
    let learner = crate::learner(&bench.small(PRESETS[3]), &bench.store, &split).unwrap();
    let mut spans: Vec<_> = learner.groups(0, 9).into_iter().map(|g| g.span).collect();
    spans.sort_by_key(|span| span.start);
    assert_eq!(spans.first().map(|s| s.start), Some(0));
    assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(spans.last().map(|s| s.end), Some(learner.params().len()));
}

#[test]
fn a_frozen_encoder_of_another_environment_is_refused() {
    let bench = Bench::new();
    let collect = worldbench_eval::CollectConfig {
        env: "two_room".into(),
        sources: 4,
        replays_per_source: 1,
        play_share: 0.0,
        ..Default::default()
    };
    let path = bench.path("rooms.wbs");
    worldbench_eval::collect(&collect, &path, |_| ()).unwrap();
    let rooms = Arc::new(Store::open(&path).unwrap());
    let split = Split::by_source(&rooms, 0.4, 0);
    let mut config = bench.small(PRESETS[0]);
    let message = crate::learner(&config, &rooms, &split).err().unwrap().to_string();
    assert!(message.contains("trained on push_t") && message.contains("holds two_room"), "{message}");
    // One that learns may begin anywhere.
    let checkpoint = Some(bench.path("world"));
    policy(&mut config).encoder = GoalEncoder::Trained(TrainedEncoder { checkpoint, size: None });
    crate::learner(&config, &rooms, &split).unwrap();
    assert_eq!(config.beginnings().collect::<Vec<_>>(), [bench.path("world")]);
}

const TRAINED: &str = include_str!("../../../../configs/train/gcbc-trained-compact.toml");

/// The preset with a trained encoder made small, in two frames of context.
fn small_trained(bench: &Bench) -> TrainConfig {
    let size = "resolution = 64\npatch = 2\nkernel = 3\nwidths = [16, 32, 48, 32]\nstrides = [2, 1, 1]";
    assert!(TRAINED.contains(size));
    let small = "resolution = 32\npatch = 4\nkernel = 3\nwidths = [4, 6, 8]\nstrides = [2, 2]";
    TrainConfig { frames: 2, ..bench.small(&TRAINED.replace(size, small)) }
}

#[test]
fn an_encoder_learns_along_with_every_method() {
    let bench = Bench::new();
    let world = checkpoint::read_tensors(&bench.path("world").join("model.safetensors")).unwrap().0;
    for (i, text) in PRESETS.into_iter().chain([TRAINED]).enumerate() {
        let mut config = if text == TRAINED { small_trained(&bench) } else { bench.small(text) };
        if text != TRAINED {
            let checkpoint = Some(bench.path("world"));
            policy(&mut config).encoder = GoalEncoder::Trained(TrainedEncoder { checkpoint, size: None });
        }
        let (whole, killed) = (format!("along-{i}"), format!("along-killed-{i}"));
        bench.train(&config, &whole, 99).unwrap();
        bench.train(&config, &killed, 1).unwrap();
        assert_eq!(bench.train(&config, &killed, 99).unwrap(), 1);
        same(&bench.path(&whole), &bench.path(&killed));
        let loaded = crate::load(&bench.path(&whole)).unwrap();
        let (tensors, _) = checkpoint::read_tensors(&bench.path(&whole).join("model.safetensors")).unwrap();
        assert_eq!(loaded.report, format!("{0}/{0} tensors", tensors.len()));
        if text != TRAINED {
            for key in tensors.keys().filter(|key| key.starts_with("encoder.")) {
                // What does not move is white in the tiny store too.
                assert_eq!(tensors[key] == world[key], key == "encoder.background", "{key}");
            }
        }
        let Model::Policy(acting) = loaded.model else { panic!("a policy") };
        let seen = acting.observe(&[200; 32 * 32 * 3], &[100.0, 200.0, 0.0, 0.0]).unwrap();
        assert!(acting.act(&seen, &seen).unwrap().iter().all(|a| a.is_finite()));
    }
}

fn some_batch(store: &Store, rows: usize) -> Batch {
    let windows: Vec<_> = (0..5).map(|i| Window { episode: i % 2, start: 3 * i }).collect();
    let actions = windows.iter().flat_map(|w| {
        let view = store.view(w.episode as usize).unwrap();
        (0..rows).flat_map(move |t| view.action(w.start as usize + t)).collect::<Vec<_>>()
    });
    let actions = actions.collect();
    Batch { index: 0, frames: vec![], actions, states: vec![], proprio: vec![], missing: vec![], windows }
}

#[test]
fn the_gradient_reaches_the_frames() {
    let bench = Bench::new();
    let config = small_trained(&bench);
    let split = Split::by_source(&bench.store, config.validation, config.seed);
    let mut learner = crate::learner(&config, &bench.store, &split).unwrap();
    let batch = some_batch(&bench.store, config.window_spec().num_steps);
    let mut grads = vec![0.0; learner.params().len()];
    learner.step(&batch, 0, &mut grads).unwrap();
    let spans: Vec<_> = learner.groups(0, 9).into_iter().map(|g| g.span).collect();
    assert_eq!(spans.iter().map(ExactSizeIterator::len).sum::<usize>(), grads.len());
    for span in spans {
        let mut direction = vec![0.0f32; span.len()];
        Stream::new(1, "direction", &[span.start as u64]).fill_normal(&mut direction);
        let mut loss = |by: f32| {
            let move_by = |learner: &mut dyn Learner, by: f32| {
                let values = &mut learner.params_mut()[span.clone()];
                values.iter_mut().zip(&direction).for_each(|(v, d)| *v += by * d);
            };
            move_by(learner.as_mut(), by);
            let loss = learner.step(&batch, 0, &mut vec![0.0; grads.len()]).unwrap()[0].1;
            move_by(learner.as_mut(), -by);
            f64::from(loss)
        };
        let numeric = (loss(1e-3) - loss(-1e-3)) / 2e-3;
        let exact: f64 = grads[span.clone()].iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        assert!((numeric - exact).abs() <= 0.02 * exact.abs() + 2e-4, "{span:?}: {numeric} and {exact}");
    }
}

#[test]
fn gradients_return_the_way_that_embeddings_came() {
    let bench = Bench::new();
    for text in PRESETS {
        let mut config = TrainConfig { frames: 2, ..bench.small(text) };
        let model = policy(&mut config);
        model.encoder = policy(&mut small_trained(&bench)).encoder.clone();
        model.proprio = false;
        let split = Split::by_source(&bench.store, config.validation, config.seed);
        let model = policy(&mut config).clone();
        let mut learner = GoalLearner::new(&config, &model, &bench.store, &split, &mut |_, _| ()).unwrap();
        let batch = some_batch(&bench.store, config.window_spec().num_steps);
        let moments = Moments::draw(&batch, 2, &learner.goals.0);
        let Eyes::Trained(trained) = &learner.eyes else { panic!("a trained encoder") };
        let mut z = vec![0.0f32; trained.seen(&moments).len() * trained.config().latent];
        Stream::new(1, "z", &[]).fill_normal(&mut z);
        let observed = trained.spread(&z, &moments, |_, z| Ok(z.to_vec())).unwrap();
        let inputs = learner.inputs(&batch, &moments, observed, 0);
        let looks: Vec<f32> = inputs.looks().iter().flat_map(|(values, _)| values.to_vec()).collect();
        let mut gradient = vec![0.0f32; inputs.len()];
        Stream::new(1, "gradient", &[]).fill_normal(&mut gradient);
        let back = trained.gather(&inputs.observed_gradient(&gradient), batch.windows.len());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (there, and_back) = (dot(&looks, &gradient), dot(&z, &back));
        assert!((there - and_back).abs() < 1e-4, "{}: {there} and {and_back}", config.method.name());
        let mut grads = vec![0.0; learner.params().len()];
        learner.step(&batch, 0, &mut grads).unwrap();
    }
}
