//! A run that is killed and resumed ends with the bits of one that is not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use worldbench_data::{Split, Store};
use worldbench_models::dino_wm::DinoWmConfig;
use worldbench_models::encoders::{self, EncoderConfig, EncoderName};

use super::Trainer;
use crate::{
    CompactLearner, FullConfig, Learner, Method, ModelConfig, TrainConfig, TrainError, checkpoint, compact,
};

pub(crate) const TINY: &str = "
    method = \"pldm\"
    seed = 3
    steps = 12
    batch = 4
    frames = 4
    learning_rate = 1e-3
    weight_decay = 1e-4
    clip = 1.0
    validation = 0.4
    threads = 2
    checkpoint_minutes = 60.0
    log_every = 2
    validate_every = 3
    [model]
    width = 16
    depth = 1
    action_block = 5
    proprio = true
    previous_action = false
    position_weight = 1.0
    projections = 8
    encoder = { resolution = 32, patch = 4, kernel = 3, widths = [4, 6, 8], strides = [2, 2], readout = 'keypoints', hidden = 12, latent = 6 }
    weights = { teacher_forcing = 1.0, rollout = 1.0, std = 18.0, std_t = 0.7, cov = 12.0, temporal = 1.0, \
                sigreg = 0.1, idm = 0.1 }
";

const TINY_FULL: &str = "
    method = \"pldm\"
    seed = 3
    steps = 4
    batch = 3
    accumulate = 2
    frames = 4
    learning_rate = 1e-3
    weight_decay = 1e-3
    clip = 1.0
    validation = 0.4
    threads = 2
    checkpoint_minutes = 60.0
    log_every = 1
    validate_every = 2
    [model]
    architecture = \"full\"
    device = \"cpu\"
    action_block = 5
    idm_hidden = 12
    sigreg = 0.09
    pldm = { idm = 1.0 }
    [model.network]
    projector_hidden = 24
    action = 10
    smoothed = 10
    action_hidden = 16
    encoder = { image = 28, patch = 14, hidden = 16, layers = 2, heads = 2, mlp = 32 }
    predictor = { frames = 3, width = 16, depth = 2, heads = 2, head_width = 8, mlp = 32, dropout = 0.1 }
";

/// A small collected store in a directory that lives as long as the returned guard.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.wbs");
    let collect = worldbench_eval::CollectConfig {
        sources: 6,
        replays_per_source: 1,
        steps: [40, 50],
        play_share: 0.0,
        ..Default::default()
    };
    worldbench_eval::collect(&collect, &path, |_| ()).unwrap();
    let store = Store::open(&path).unwrap();
    (directory, store)
}

struct Bench {
    directory: tempfile::TempDir,
    config: TrainConfig,
    store: Arc<Store>,
}

impl Bench {
    fn new() -> Self {
        let (directory, store) = store();
        Self { directory, config: toml::from_str(TINY).unwrap(), store: Arc::new(store) }
    }

    /// Trains in `run` until step `stop`; returns the step it began at.
    fn train(&self, run: &str, stop: u64) -> Result<u64, TrainError> {
        self.train_with(&self.config, run, stop)
    }

    fn train_with(&self, config: &TrainConfig, run: &str, stop: u64) -> Result<u64, TrainError> {
        let split = Split::by_source(&self.store, config.validation, config.seed);
        let mut learner = crate::learner(config, &self.store, &split)?;
        let spec = config.window_spec();
        let run = self.path(run);
        let mut trainer =
            Trainer::open(config, &run, Arc::clone(&self.store), split, spec, learner.as_mut())?;
        let begun = trainer.step();
        trainer.run(learner.as_mut(), &mut |now| now.step < stop)?;
        Ok(begun)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

/// The files of a run that a resumption must reproduce.
fn files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let names =
        ["model.safetensors", "config.toml", "log.csv", "log.jsonl", "resume-12/optimizer.safetensors"];
    names.map(|name| (name.to_string(), fs::read(run.join(name)).unwrap())).into()
}

#[test]
fn a_killed_run_resumes_bit_identically() {
    let bench = Bench::new();
    assert_eq!(bench.train("whole", 99).unwrap(), 0);
    bench.train("killed", 5).unwrap();
    // What a kill leaves between two checkpoints: log rows of later steps, one of them torn.
    let log = bench.path("killed/log.csv");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().count() == 1 + 2 + 1, "{text}");
    fs::write(&log, text + "6,train,0.5\n8,tra").unwrap();
    assert_eq!(bench.train("killed", 99).unwrap(), 5);
    for (whole, killed) in files(&bench.path("whole")).iter().zip(files(&bench.path("killed"))) {
        assert!(whole == &killed, "{} differs", whole.0);
    }
    let log = fs::read_to_string(bench.path("whole/log.csv")).unwrap();
    assert!(log.starts_with("step,split,loss,"), "{log}");
    assert_eq!(log.lines().count(), 1 + 6 + 4, "{log}");
    // A finished run has nothing left to do.
    assert_eq!(bench.train("killed", 99).unwrap(), 12);
}

#[test]
fn checkpoints_that_were_not_finished_are_ignored() {
    let bench = Bench::new();
    bench.train("whole", 99).unwrap();
    bench.train("killed", 5).unwrap();
    let run = bench.path("killed");
    for half in ["resume.tmp", "resume-9"] {
        fs::create_dir(run.join(half)).unwrap();
        fs::write(run.join(half).join("model.safetensors"), [7; 100]).unwrap();
    }
    // The files for evaluation are renewed before the checkpoint counts.
    fs::write(run.join("state.tmp"), "{").unwrap();
    fs::copy(bench.path("whole/model.safetensors"), run.join("model.safetensors")).unwrap();
    assert_eq!(bench.train("killed", 9).unwrap(), 5);
    assert_eq!(bench.train("killed", 99).unwrap(), 9);
    assert_eq!(files(&bench.path("whole")), files(&run));
    let left =
        fs::read_dir(&run).unwrap().filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir()).count();
    assert_eq!(left, 1);
}

#[test]
fn a_missing_checkpoint_is_named_and_the_older_one_is_deleted_last() {
    let bench = Bench::new();
    bench.train("killed", 5).unwrap();
    let run = bench.path("killed");
    let state = fs::read(run.join("state.json")).unwrap();
    bench.train("killed", 7).unwrap();
    assert_eq!(checkpoint::read_tensors(&run.join("resume-7/model.safetensors")).unwrap().1, 7);
    assert!(!run.join("resume-5").exists());
    fs::write(run.join("state.json"), state).unwrap();
    let error = bench.train("killed", 99).unwrap_err().to_string();
    assert!(error.contains("resume-5"), "{error}");
}

#[test]
fn another_configuration_is_refused() {
    let bench = Bench::new();
    bench.train("run", 5).unwrap();
    let other = TrainConfig { batch: 5, ..bench.config.clone() };
    let error = bench.train_with(&other, "run", 99).unwrap_err().to_string();
    assert!(error.contains("another configuration") && error.contains("--out"), "{error}");
    fs::write(bench.path("run/state.json"), "{\"step\": 5").unwrap();
    let error = bench.train("run", 99).unwrap_err().to_string();
    assert!(error.contains("state.json") && error.contains("start again"), "{error}");
}

#[test]
fn a_trained_checkpoint_loads_for_planning() {
    let bench = Bench::new();
    bench.train("run", 99).unwrap();
    let (model, method, report) = compact::load(&bench.path("run")).unwrap();
    assert_eq!((method.name(), model.config().encoder.resolution), ("pldm", 32));
    let split = Split::by_source(&bench.store, bench.config.validation, bench.config.seed);
    let learner = CompactLearner::new(&bench.config, &bench.store, &split).unwrap();
    assert_eq!(report, format!("{0}/{0} tensors", learner.tensors().len()));
    let path = bench.path("run/config.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("latent = 6", "latent = 7")).unwrap();
    let error = compact::load(&bench.path("run")).err().unwrap().to_string();
    assert!(error.contains("encoder.head.weight") && error.contains("configuration"), "{error}");
}

#[test]
fn full_size_models_resume_bit_identically_and_load_for_planning() {
    let mut bench = Bench::new();
    for method in [Method::Pldm, Method::Lewm] {
        bench.config = TrainConfig { method, ..toml::from_str(TINY_FULL).unwrap() };
        let (whole, killed) = (format!("{}-whole", method.name()), format!("{}-killed", method.name()));
        bench.train(&whole, 99).unwrap();
        bench.train(&killed, 1).unwrap();
        assert_eq!(bench.train(&killed, 99).unwrap(), 1);
        let read = |run: &str, name: &str| fs::read(bench.path(run).join(name)).unwrap();
        for name in
            ["model.safetensors", "resume-4/model.safetensors", "resume-4/optimizer.safetensors", "log.csv"]
        {
            assert!(read(&whole, name) == read(&killed, name), "{name}");
        }
        let loaded = crate::load(&bench.path(&whole)).unwrap();
        assert_eq!((loaded.method, loaded.architecture.as_str()), (method, "full"));
        let (tensors, _) = checkpoint::read_tensors(&bench.path(&whole).join("model.safetensors")).unwrap();
        assert_eq!(loaded.report, format!("{0}/{0} tensors", tensors.len()));
        assert!(tensors.keys().all(|key| !key.starts_with("idm.")));
        // Two batches a step, each of which moves the running statistics.
        assert_eq!(tensors["projector.net.1.num_batches_tracked"], (vec![], vec![8.0]));
        let model = loaded.world(&bench.path(&whole)).unwrap();
        assert_eq!((model.resolution(), model.action_block()), (28, 5));
    }
}

/// The preset on the built-in encoder, made small.
fn tiny_dino_wm() -> TrainConfig {
    let text = include_str!("../../../../configs/train/dino-wm-compact.toml");
    let mut config = TrainConfig { steps: 4, batch: 3, validate_every: 2, ..toml::from_str(text).unwrap() };
    config.validation = 0.4;
    let ModelConfig::DinoWm(model) = &mut config.model else { panic!("preset of DINO-WM") };
    model.network.predictor.depth = 1;
    model.network.predictor.mlp = 16;
    model.network.predictor.dropout = 0.1;
    config
}

#[test]
fn dino_wm_resumes_bit_identically_with_and_without_a_feature_cache() {
    let mut bench = Bench::new();
    bench.config = tiny_dino_wm();
    bench.train("whole", 99).unwrap();
    bench.train("killed", 1).unwrap();
    assert_eq!(bench.train("killed", 99).unwrap(), 1);
    let read = |run: &str, name: &str| fs::read(bench.path(run).join(name)).unwrap();
    for name in ["model.safetensors", "resume-4/optimizer.safetensors", "log.csv"] {
        assert!(read("whole", name) == read("killed", name), "{name}");
    }
    let caches = || {
        let files = fs::read_dir(bench.directory.path()).unwrap();
        files.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("features")).count()
    };
    assert_eq!(caches(), 1);
    let loaded = crate::load(&bench.path("whole")).unwrap();
    assert_eq!((loaded.method, loaded.architecture.as_str()), (Method::DinoWm, "dino-wm"));
    let model = loaded.world(&bench.path("whole")).unwrap();
    assert_eq!((model.resolution(), model.action_block()), (64, 5));
    // Cached features are rounded to f16: the losses agree, the bits do not.
    let mut fresh = bench.config.clone();
    if let ModelConfig::DinoWm(model) = &mut fresh.model {
        model.cache_gb = 0.0;
    }
    bench.train_with(&fresh, "fresh", 99).unwrap();
    let loss = |run: &str| {
        let log = fs::read_to_string(bench.path(run).join("log.csv")).unwrap();
        log.lines().last().unwrap().split(',').nth(2).unwrap().parse::<f32>().unwrap()
    };
    assert!((loss("whole") - loss("fresh")).abs() < 1e-3 * loss("whole"));
    let mut wrong = bench.config.clone();
    if let ModelConfig::DinoWm(model) = &mut wrong.model {
        model.network.features = 95;
    }
    let error = bench.train_with(&wrong, "wrong", 99).err().unwrap().to_string();
    assert!(error.contains("model.network.features = 128"), "{error}");
}

#[test]
fn pretraining_resumes_bit_identically_and_exports_an_encoder() {
    let (guard, config) =
        (tempfile::tempdir().unwrap(), include_str!("../../../../configs/pretrain/push_t.toml"));
    let config = TrainConfig { steps: 3, batch: 4, validation: 0.3, ..toml::from_str(config).unwrap() };
    let path = guard.path().join("scenes.wbs");
    crate::scenes::write(&path, 9, 0, 2).unwrap();
    // Continued, the scenes are those of one go.
    crate::scenes::write(&path, 30, 0, 2).unwrap();
    let again = guard.path().join("again.wbs");
    crate::scenes::write(&again, 30, 0, 2).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
    assert!(crate::scenes::write(&path, 40, 1, 2).unwrap_err().to_string().contains("another seed"));
    let bench = Bench { directory: guard, config, store: Arc::new(Store::open(&path).unwrap()) };
    bench.train("whole", 99).unwrap();
    bench.train("killed", 1).unwrap();
    bench.train("killed", 99).unwrap();
    let read = |run: &str| fs::read(bench.path(run).join("model.safetensors")).unwrap();
    assert!(read("whole") == read("killed"));
    // A run that begins with another's weights and learns next to nothing ends with them.
    let still = TrainConfig {
        init: Some(bench.path("whole")),
        steps: 1,
        learning_rate: 1e-30,
        ..bench.config.clone()
    };
    bench.train_with(&still, "still", 99).unwrap();
    let tensors = |run: &str| checkpoint::read_tensors(&bench.path(run).join("model.safetensors")).unwrap().0;
    for ((key, (_, begun)), (_, ended)) in tensors("whole").iter().zip(tensors("still").values()) {
        assert!(begun.iter().zip(ended).all(|(a, b)| (a - b).abs() < 1e-20), "{key}");
    }
    let ModelConfig::Mae(mae) = &bench.config.model else { panic!("preset of the autoencoder") };
    let file = bench.path("encoder.safetensors");
    crate::pretrain::export_encoder(mae, &bench.path("whole"), &file).unwrap();
    let encoder = EncoderConfig { image: 64, ..EncoderConfig::new(EncoderName::BuiltIn) }.with_weights(file);
    let encoder = encoders::open(&encoder).unwrap();
    assert_eq!((encoder.tokens(), encoder.width(), encoder.image_size()), (16, 128, 64));
    assert!(crate::load(&bench.path("whole")).err().unwrap().to_string().contains("known: compact"));
}

#[test]
fn the_inverse_dynamics_head_is_clipped_on_its_own() {
    let bench = Bench::new();
    let config: TrainConfig = toml::from_str(TINY_FULL).unwrap();
    let split = Split::by_source(&bench.store, config.validation, config.seed);
    let learner = crate::learner(&config, &bench.store, &split).unwrap();
    let [first, second] = &learner.groups(0, 9)[..] else { panic!("two groups") };
    let ends = (first.span.start, first.span.end, second.span.end);
    assert_eq!(ends, (0, second.span.start, learner.params().len()));
    let lewm = TrainConfig { method: Method::Lewm, ..config };
    assert_eq!(crate::learner(&lewm, &bench.store, &split).unwrap().groups(0, 9).len(), 1);
}

#[test]
fn accumulated_batches_resume_at_the_right_place_in_the_data() {
    let bench = Bench::new();
    let twice = TrainConfig { accumulate: 2, steps: 6, ..bench.config.clone() };
    bench.train_with(&twice, "whole", 99).unwrap();
    bench.train_with(&twice, "killed", 3).unwrap();
    bench.train_with(&twice, "killed", 99).unwrap();
    let read = |run: &str| fs::read(bench.path(run).join("model.safetensors")).unwrap();
    assert!(read("whole") == read("killed"));
}

#[test]
fn presets_hold_every_architecture_and_wrong_settings_are_named() {
    for text in [
        include_str!("../../../../configs/train/pldm-compact.toml"),
        include_str!("../../../../configs/train/lewm-compact.toml"),
        include_str!("../../../../configs/train/pldm-full.toml"),
        include_str!("../../../../configs/train/lewm-full.toml"),
        include_str!("../../../../configs/train/dino-wm-compact.toml"),
        include_str!("../../../../configs/train/dino-wm-full.toml"),
    ] {
        let config: TrainConfig = toml::from_str(text).unwrap();
        config.check().unwrap();
        let again: TrainConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        if let ModelConfig::Full(full) = &config.model {
            assert_eq!(full, &FullConfig::published());
        }
        if let ModelConfig::DinoWm(model) = &config.model
            && model.encoder.name == EncoderName::Dinov2Small
        {
            assert_eq!(model.network, DinoWmConfig::full(10));
        }
    }
    let wrong = |from: &str, to: &str| toml::from_str::<TrainConfig>(&TINY_FULL.replace(from, to));
    assert!(wrong("\"full\"", "\"huge\"").unwrap_err().to_string().contains("compact"));
    assert!(wrong("sigreg", "sigrek").unwrap_err().to_string().contains("sigrek"));
    for method in ["dino-wm", "mae"] {
        let error = wrong("\"pldm\"", &format!("\"{method}\"")).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(method) && error.contains("model.architecture"), "{error}");
    }
    let error = wrong("frames = 4", "frames = 1").unwrap().check().unwrap_err().to_string();
    assert!(error.contains("frames = 1 must be at least 2"), "{error}");
    let error = wrong("action = 10", "action = 12").unwrap().check().unwrap_err().to_string();
    assert!(error.contains("model.network.action"), "{error}");
    let error = wrong("frames = 4", "frames = 9").unwrap().check().unwrap_err().to_string();
    assert!(error.contains("frames"), "{error}");
}
