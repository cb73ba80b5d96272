use std::collections::BTreeMap;

use worldbench_core::Stream;

use super::*;
use crate::state_dict::Tensor;

const SIDE: usize = 42;

fn config() -> Dinov2Config {
    Dinov2Config { hidden: 32, layers: 2, heads: 2, mlp_ratio: 4, patch: 14, image: 70, gated: false }
}

/// Random weights under the published keys below `prefix`.
fn random(prefix: &str) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    let mut add = |key: &str, shape: &[usize]| {
        let mut stream = Stream::new(1, key, &[]);
        let values = (0..shape.iter().product()).map(|_| stream.uniform(-0.2, 0.2) as f32).collect();
        tensors.insert(format!("{prefix}{key}"), Tensor { shape: shape.to_vec(), values });
    };
    add("embeddings.cls_token", &[1, 1, 32]);
    add("embeddings.mask_token", &[1, 32]);
    add("embeddings.position_embeddings", &[1, 26, 32]);
    add("embeddings.patch_embeddings.projection.weight", &[32, 3, 14, 14]);
    add("embeddings.patch_embeddings.projection.bias", &[32]);
    for layer in 0..2 {
        let mut at = |key: &str, shape: &[usize]| add(&format!("encoder.layer.{layer}.{key}"), shape);
        for dense in ["attention.query", "attention.key", "attention.value", "output.dense"] {
            at(&format!("attention.{dense}.weight"), &[32, 32]);
            at(&format!("attention.{dense}.bias"), &[32]);
        }
        at("mlp.fc1.weight", &[128, 32]);
        at("mlp.fc1.bias", &[128]);
        at("mlp.fc2.weight", &[32, 128]);
        for key in ["mlp.fc2.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"] {
            at(key, &[32]);
        }
        at("layer_scale1.lambda1", &[32]);
        at("layer_scale2.lambda1", &[32]);
    }
    add("layernorm.weight", &[32]);
    add("layernorm.bias", &[32]);
    tensors
}

fn dinov2(tensors: BTreeMap<String, Tensor>) -> Result<Dinov2, Error> {
    Dinov2::new("test", config(), (SIDE, Positions::Size), StateDict::new("file.pt", tensors))
}

fn frame(seed: u64, side: usize) -> Vec<u8> {
    let mut stream = Stream::new(seed, "frame", &[]);
    (0..side * side * 3).map(|_| stream.uniform(0.0, 256.0) as u8).collect()
}

fn encode(encoder: &dyn FrozenEncoder, frames: &[Vec<u8>]) -> Vec<f32> {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let mut out = vec![f32::NAN; frames.len() * encoder.tokens() * encoder.width()];
    encoder.encode(&frames, &mut out).unwrap();
    out
}

/// Encodes `frames` together and one by one, on one thread and on four.
pub(super) fn batch_and_threads_change_no_bit(encoder: &dyn FrozenEncoder, frames: &[Vec<u8>]) {
    let with = |threads: usize, f: &(dyn Fn() -> Vec<f32> + Sync)| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    };
    let together = with(1, &|| encode(encoder, frames));
    assert!(together.iter().all(|value| value.is_finite()));
    assert_eq!(together, with(4, &|| encode(encoder, frames)));
    let apart = || frames.iter().flat_map(|frame| encode(encoder, std::slice::from_ref(frame))).collect();
    assert_eq!(together, with(4, &apart));
    let size = together.len() / frames.len();
    assert_ne!(together[..size], together[size..2 * size]);
}

#[test]
fn neither_batch_nor_threads_change_a_bit() {
    let encoder = dinov2(random("")).unwrap();
    assert_eq!((encoder.tokens(), encoder.width(), encoder.report()), (9, 32, "42/42 tensors"));
    batch_and_threads_change_no_bit(&encoder, &[1, 2, 3].map(|seed| frame(seed, SIDE)));
}

#[test]
fn frames_and_normalised_images_give_the_same_tokens() {
    let encoder = dinov2(random("")).unwrap();
    let frame = frame(1, SIDE);
    let image = crate::preprocess::normalise_and_resize(&frame, (SIDE, SIDE), SIDE);
    let all = encoder.forward_normalised(&image.values, (SIDE, SIDE)).unwrap();
    let tokens = encode(&encoder, std::slice::from_ref(&frame));
    // The resize computes the identity in f64, so at most a rounding differs.
    let error = all[32..].iter().zip(&tokens).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(all.len() == 32 + tokens.len() && error < 1e-5, "{error}");
    // A larger image in between leaves no trace in the buffers.
    encoder.forward_normalised(&vec![0.5; 3 * 70 * 98], (70, 98)).unwrap();
    assert_eq!(encode(&encoder, &[frame]), tokens);
}

#[test]
fn a_part_of_a_larger_model_is_the_same_encoder() {
    let alone = dinov2(random("")).unwrap();
    for prefix in ["backbone.", "backbone.backbone."] {
        let mut tensors = random(prefix);
        tensors.insert("predictor.pos_embedding".into(), Tensor { shape: vec![1], values: vec![0.0] });
        let part = dinov2(tensors).unwrap();
        assert_eq!(part.fingerprint(), alone.fingerprint(), "{prefix}");
    }
    let weights = || StateDict::new("file", random(""));
    let scaled = Dinov2::new("test", config(), (SIDE, Positions::Scale), weights()).unwrap();
    assert_ne!(scaled.fingerprint(), alone.fingerprint());
}

#[test]
fn misfits_are_named() {
    let mut tensors = random("");
    let wrong = tensors.remove("layernorm.bias").unwrap();
    tensors.insert("layernorm.beta".into(), wrong);
    tensors.insert("embeddings.cls_token".into(), Tensor { shape: vec![32], values: vec![0.0; 32] });
    let error = dinov2(tensors).unwrap_err().to_string();
    for part in ["file.pt", "40/42", "missing `layernorm.bias` [32]", "unexpected `layernorm.beta`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(error.contains("`embeddings.cls_token` is [32], the model needs [1, 1, 32]"), "{error}");
    let build = |config, side| {
        let weights = StateDict::new("file.pt", random(""));
        Dinov2::new("test", config, (side, Positions::Size), weights).unwrap_err().to_string()
    };
    assert!(build(config(), 40).contains("take 28"));
    assert!(build(Dinov2Config { gated: true, ..config() }, SIDE).contains("giant"));
    assert!(build(Dinov2Config { heads: 0, ..config() }, SIDE).contains("no patch or head fits"));
}

#[test]
fn wrong_lengths_are_named() {
    let encoder = dinov2(random("")).unwrap();
    let frame = frame(1, SIDE);
    let mut out = vec![0.0; 9 * 32];
    let error = encoder.encode(&[&frame, &frame[1..]], &mut out).unwrap_err().to_string();
    assert!(error.contains("frame 1: 5291 values") && error.contains("42 x 42"), "{error}");
    let error = encoder.encode(&[&frame, &frame], &mut out).unwrap_err().to_string();
    assert!(error.contains("288 values, expected 576, 2 frames of 9 tokens of 32"), "{error}");
    let error = encoder.forward_normalised(&[0.0; 7], (14, 14)).unwrap_err().to_string();
    assert!(error.contains("7 values, expected a multiple of 588"), "{error}");
    assert!(encoder.forward_normalised(&[], (14, 15)).unwrap_err().to_string().contains("14 x 15"));
}

#[test]
fn configurations_read_their_own_names() {
    for name in [
        EncoderName::Dinov2Small,
        EncoderName::Dinov2Base,
        EncoderName::Dinov2Large,
        EncoderName::MobileNetV2,
    ] {
        let json = format!("{{\"name\": \"{}\"}}", name.as_str());
        assert_eq!(serde_json::from_str::<EncoderConfig>(&json).unwrap(), EncoderConfig::new(name));
    }
    let error =
        serde_json::from_str::<EncoderConfig>("{\"name\": \"mobilenet_v2\", \"side\": 3}").unwrap_err();
    assert!(error.to_string().contains("side"), "{error}");
}

#[test]
fn weights_are_opened_by_path() {
    let config = EncoderConfig::new(EncoderName::Dinov2Small).with_weights("nowhere/model.safetensors");
    let error = open(&config).unwrap_err().to_string();
    assert!(error.contains("nowhere/model.safetensors") && error.contains("check the path"), "{error}");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/models/dinov2_tiny/model.safetensors");
    let error = open(&config.with_weights(tiny)).unwrap_err().to_string();
    assert!(error.contains("missing `encoder.layer.11") && error.contains("the model needs"), "{error}");
}
