//! Checkpoints of the reference made into ours.
//!
//! The reference stores weights alone: the statistics that normalise actions and proprioception are recomputed from the
//! data set at evaluation. So an import needs the data the model was trained on, fits them once, and writes a checkpoint
//! directory that needs nothing else. A frozen encoder that lies in the same file (`backbone.*`) is kept beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use worldbench_data::{Split, Store};
use worldbench_models::dino_wm::reference_key;
use worldbench_models::state_dict::{self, StateDict};

use crate::checkpoint::{self, Tensor, Tensors, write_atomic};
use crate::{Learner, ModelConfig, TrainConfig, TrainError, learner};

/// File of a checkpoint's own frozen encoder.
pub const ENCODER: &str = "encoder.safetensors";

/// Reads the weights in `file` (safetensors, or PyTorch without executing pickles) as a model of `config`, fits its
/// statistics on `store`, and writes a checkpoint to `out`. Returns a key report such as `303/303 tensors`.
///
/// # Errors
/// Names every missing, unexpected and misshapen key, or the file that cannot be read or written.
pub fn import(
    config: &TrainConfig,
    file: &Path,
    store: &Arc<Store>,
    out: &Path,
) -> Result<String, TrainError> {
    let problem = |e: state_dict::Error| TrainError::Checkpoint { path: file.into(), problem: e.to_string() };
    let weights = StateDict::read(file).map_err(problem)?;
    let (mut model, mut backbone) = (Tensors::new(), BTreeMap::new());
    for (key, tensor) in weights.tensors() {
        let Some(key) = reference_key(key) else { continue };
        if key.starts_with("backbone.") {
            backbone.insert(key, tensor);
        } else {
            model.insert(key, (tensor.shape.clone(), tensor.values.clone()));
        }
    }
    std::fs::create_dir_all(out).map_err(TrainError::io(out))?;
    let mut config = config.clone();
    let keeps_encoder = !backbone.is_empty();
    if let ModelConfig::DinoWm(dino) = &mut config.model {
        dino.cache_gb = 0.0;
        if keeps_encoder {
            write_backbone(&out.join(ENCODER), &backbone)?;
            dino.encoder.weights = Some(out.join(ENCODER));
        }
    }
    let split = Split::by_source(store, 0.0, config.seed);
    let mut learner = learner(&config, store, &split)?;
    // What the published file leaves out (training heads) keeps its fresh values.
    for tensor in learner.tensors().iter().filter(|tensor| !learner.exported(&tensor.key)) {
        model.insert(tensor.key.clone(), (tensor.shape.clone(), tensor.values.to_vec()));
    }
    let report = learner.restore(model)?;
    write(learner.as_ref(), store, keeps_encoder, out)?;
    Ok(report)
}

fn write_backbone(path: &Path, tensors: &BTreeMap<String, &state_dict::Tensor>) -> Result<(), TrainError> {
    let tensor = |(key, t): (&String, &&state_dict::Tensor)| (key.clone(), t.shape.clone(), t.values.clone());
    let owned: Vec<_> = tensors.iter().map(tensor).collect();
    let views: Vec<Tensor> = owned
        .iter()
        .map(|(key, shape, values)| Tensor { key: key.clone(), shape: shape.clone(), values, integer: false })
        .collect();
    checkpoint::write_tensors(path, &views, 0)
}

/// Writes what evaluation needs of `learner`; a kept encoder is named relative to the directory.
fn write(learner: &dyn Learner, store: &Store, keeps_encoder: bool, out: &Path) -> Result<(), TrainError> {
    let mut config = crate::name_environment(learner.config(), store.env());
    if keeps_encoder && let Some(encoder) = config.get_mut("model").and_then(|m| m.get_mut("encoder")) {
        encoder["weights"] = toml::Value::String(ENCODER.into());
    }
    let tensors: Vec<Tensor> =
        learner.tensors().into_iter().filter(|tensor| learner.exported(&tensor.key)).collect();
    checkpoint::write_tensors(&out.join("model.safetensors"), &tensors, 0)?;
    write_atomic(&out.join("config.toml"), config.to_string().as_bytes())
}

/// `path` as seen from a checkpoint `directory`: a relative path that exists there wins.
pub(crate) fn beside(directory: &Path, path: &Path) -> PathBuf {
    let inside = directory.join(path);
    if path.is_relative() && inside.exists() { inside } else { path.to_path_buf() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DinoWmTraining;
    use crate::trainer::tests::store;

    fn config(weights: Option<PathBuf>) -> TrainConfig {
        let text = include_str!("../../../configs/train/dino-wm-compact.toml");
        let mut config: TrainConfig = toml::from_str(text).unwrap();
        let ModelConfig::DinoWm(model) = &mut config.model else { panic!("preset of DINO-WM") };
        model.encoder.weights = weights;
        model.decoder = None;
        model.cache_gb = 0.0;
        config
    }

    fn dino(config: &TrainConfig) -> &DinoWmTraining {
        let ModelConfig::DinoWm(model) = &config.model else { panic!("preset of DINO-WM") };
        model
    }

    #[test]
    fn an_imported_checkpoint_needs_nothing_else() {
        let (guard, store) = store();
        let store = Arc::new(store);
        let params = dino(&config(None)).init(7);
        // The reference's file: predictor, masks and backbone in one.
        let mut tensors = Vec::new();
        for entry in params.entries() {
            tensors.push((entry.key.clone(), entry.shape.clone(), params.get(&entry.key).unwrap().to_vec()));
        }
        tensors.push(("predictor.transformer.layers.0.0.bias".into(), vec![1, 1, 2, 2], vec![1.0; 4]));
        let asset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/assets/push_t_vit.safetensors");
        for (key, tensor) in StateDict::read(&asset).unwrap().tensors() {
            tensors.push((format!("backbone.{key}"), tensor.shape.clone(), tensor.values.clone()));
        }
        let views: Vec<Tensor> = tensors
            .iter()
            .map(|(key, shape, values)| Tensor {
                key: key.clone(),
                shape: shape.clone(),
                values,
                integer: false,
            })
            .collect();
        let file = guard.path().join("weights_epoch_1.safetensors");
        checkpoint::write_tensors(&file, &views, 0).unwrap();
        let out = guard.path().join("imported");
        let report = import(&config(None), &file, &store, &out).unwrap();
        assert_eq!(report, format!("{0}/{0} tensors", params.entries().len()));
        // Moved, and without the source, it still loads.
        std::fs::remove_file(&file).unwrap();
        let moved = guard.path().join("moved");
        std::fs::rename(&out, &moved).unwrap();
        let loaded = crate::load(&moved).unwrap();
        assert_eq!((loaded.method, loaded.report), (config(None).method, report));
        // Another encoder under the same name is refused.
        let mut other = BTreeMap::new();
        let mut broken = StateDict::read(&asset).unwrap().tensors().clone();
        broken.get_mut("layernorm.bias").unwrap().values[0] += 1.0;
        other.extend(broken.iter().map(|(key, tensor)| (key.clone(), tensor)));
        write_backbone(&moved.join(ENCODER), &other).unwrap();
        assert!(crate::load(&moved).err().unwrap().to_string().contains("SHA-256"));
    }

    #[test]
    fn half_precision_is_smaller_and_loads() {
        let (guard, store) = store();
        let store = Arc::new(store);
        let learner = learner(&config(None), &store, &Split::by_source(&store, 0.0, 0)).unwrap();
        let directory = guard.path().join("whole");
        std::fs::create_dir_all(&directory).unwrap();
        write(learner.as_ref(), &store, false, &directory).unwrap();
        let weights = directory.join("model.safetensors");
        let whole = std::fs::metadata(&weights).unwrap().len();
        let half = checkpoint::write_half(&weights, &weights).unwrap();
        assert!(half < whole * 6 / 10, "{half} of {whole}");
        crate::load(&directory).unwrap();
        let (tensors, _) = checkpoint::read_tensors(&weights).unwrap();
        for tensor in learner.tensors() {
            let found = &tensors[&tensor.key].1;
            let near = found.iter().zip(tensor.values).all(|(a, b)| (a - b).abs() <= b.abs() / 1024.0 + 1e-7);
            assert!(near, "{}", tensor.key);
        }
    }
}
