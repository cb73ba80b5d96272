//! A run that is killed and resumed ends with the bits of one that is not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use worldbench_data::{Split, Store};

use super::Trainer;
use crate::{CompactLearner, Learner, TrainConfig, TrainError, checkpoint, compact};

const TINY: &str = "
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
    encoder = { resolution = 32, widths = [4, 6, 8], hidden = 12, latent = 6 }
    weights = { teacher_forcing = 1.0, rollout = 1.0, std = 18.0, std_t = 0.7, cov = 12.0, temporal = 1.0, \
                sigreg = 0.1, idm = 0.1 }
";

struct Bench {
    directory: tempfile::TempDir,
    config: TrainConfig,
    store: Arc<Store>,
}

impl Bench {
    fn new() -> Self {
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
        Self {
            directory,
            config: toml::from_str(TINY).unwrap(),
            store: Arc::new(Store::open(&path).unwrap()),
        }
    }

    /// Trains in `run` until step `stop`; returns the step it began at.
    fn train(&self, run: &str, stop: u64) -> Result<u64, TrainError> {
        self.train_with(&self.config, run, stop)
    }

    fn train_with(&self, config: &TrainConfig, run: &str, stop: u64) -> Result<u64, TrainError> {
        let split = Split::by_source(&self.store, config.validation, config.seed);
        let mut learner = CompactLearner::new(config, &self.store, &split)?;
        let spec = compact::window_spec(config);
        let run = self.path(run);
        let mut trainer = Trainer::open(config, &run, Arc::clone(&self.store), split, spec, &mut learner)?;
        let begun = trainer.step();
        trainer.run(&mut learner, &mut |now| now.step < stop)?;
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
