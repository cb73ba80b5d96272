//! Comparison of image preprocessing and DINOv2 with the numbers of torchvision, Pillow and `transformers`.
//!
//! Each check takes as many inputs `in.{j}` as its fixture holds: the copy in the repository has one, to stay small.

use std::path::Path;

use burn::tensor::Device;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Array, BTreeMap, Error, Fixture, Item, json};
use crate::encoders::{Dinov2, Dinov2Config, Positions};
use crate::preprocess::{Image, normalise_and_resize, pillow_bilinear};
use crate::state_dict::{StateDict, Tensor, hash_values};

impl Fixture {
    /// The numbers j of the inputs `in.{j}{suffix}`, of which there must be one.
    fn inputs(&self, suffix: &str) -> Result<Vec<usize>, Error> {
        let number = |key: &String| key.strip_prefix("in.")?.strip_suffix(suffix)?.parse().ok();
        let found: Vec<usize> = self.arrays.keys().filter_map(number).collect();
        let missing = || self.missing(format!("in.0{suffix}"));
        if found.is_empty() { Err(missing()) } else { Ok(found) }
    }

    fn compare_if_there(&mut self, name: &str, found: &[f32]) -> Result<(), Error> {
        if self.arrays.contains_key(name) { self.compare(name, found) } else { Ok(()) }
    }
}

pub(super) fn preprocessing(directory: &Path, device: &Device) -> Result<Vec<Item>, Error> {
    let mut fixture = Fixture::open(directory, "image_preprocess", device)?;
    for j in fixture.inputs(".frame_hwc_u8")? {
        let frame = fixture.array(&format!("in.{j}.frame_hwc_u8"))?;
        let size = (frame.shape[0], frame.shape[1]);
        let bytes: Vec<u8> = frame.values.iter().map(|&v| v as u8).collect();
        let image = normalise_and_resize(&bytes, size, 224);
        let name = |what: &str| format!("out.{j}.{what}");
        let shape = [3, image.height, image.width].map(|n| n as f32);
        fixture.compare(&name("shape"), &shape)?;
        let grid = sample(&image, fixture.array(&format!("aux.{j}.grid_y"))?, {
            fixture.array(&format!("aux.{j}.grid_x"))?
        });
        fixture.compare(&name("grid16"), &grid)?;
        let (means, deviations) = moments(&image);
        fixture.compare(&name("channel_mean"), &means)?;
        fixture.compare(&name("channel_std_population"), &deviations)?;
        fixture.compare_if_there(&name("full"), &image.values)?;
        let resized: Vec<f32> =
            pillow_bilinear(&bytes, size, (224, 224)).into_iter().map(f32::from).collect();
        fixture.compare_if_there(&name("pil_bilinear_224_u8"), &resized)?;
    }
    Ok(fixture.items)
}

/// The image at some rows and columns, `[3, rows, columns]`; NaN outside.
fn sample(image: &Image, rows: &Array, columns: &Array) -> Vec<f32> {
    let mut out = Vec::new();
    for channel in image.values.chunks_exact(image.height * image.width) {
        for &y in &rows.values {
            let row = channel.chunks_exact(image.width).nth(y as usize).unwrap_or_default();
            out.extend(columns.values.iter().map(|&x| row.get(x as usize).copied().unwrap_or(f32::NAN)));
        }
    }
    out
}

/// Mean and population standard deviation of each channel.
fn moments(image: &Image) -> (Vec<f32>, Vec<f32>) {
    let moments = |channel: &[f32]| {
        let count = channel.len() as f64;
        let mean = channel.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = channel.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
        (mean as f32, variance.sqrt() as f32)
    };
    image.values.chunks_exact(image.height * image.width).map(moments).unzip()
}

/// A small random model at every input size of the fixture.
pub(super) fn dinov2_tiny(directory: &Path, device: &Device) -> Result<Vec<Item>, Error> {
    let mut fixture = Fixture::open(directory, "dinov2_tiny_io", device)?;
    let folder = directory.join("dinov2_tiny");
    let config = Dinov2Config::read(&folder.join("config.json"))?;
    let weights = StateDict::read(&folder.join("model.safetensors"))?;
    let model = Dinov2::new("dinov2_tiny", config, (224, Positions::Size), weights)?;
    for j in fixture.inputs(".u8")? {
        let input = fixture.array(&format!("in.{j}.u8"))?;
        let images: Vec<f32> = input.values.iter().map(|&v| ((v - 127.5) / 64.0) as f32).collect();
        let tokens = model.forward_normalised(&images, (input.shape[2], input.shape[3]))?;
        fixture.compare(&format!("out.{j}.last_hidden_state"), &tokens)?;
    }
    Ok(fixture.items)
}

#[derive(Deserialize)]
struct Rule {
    salt: String,
    keys_and_shapes: BTreeMap<String, Vec<usize>>,
    checks: Vec<RuleCheck>,
    sha256_of_all_weights_sorted_by_key_le_f32: String,
    sha256_of_input_le_f32: String,
    config: Dinov2Config,
}

#[derive(Deserialize)]
struct RuleCheck {
    key: String,
    flat_index: usize,
    f32_bits: String,
}

/// Value `i` of tensor `key` in [-1, 1): SplitMix64 seeded with the FNV-1a hash of the key.
fn raw(salt: &str, key: &str) -> impl Fn(u64) -> f32 {
    let bytes = salt.bytes().chain(key.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |h: u64, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    move |i| {
        let z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        ((z >> 40) as i32 - (1 << 23)) as f32 * 2f32.powi(-23)
    }
}

/// Offset and scale of a tensor's values.
fn affine(key: &str) -> (f32, f32) {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| key.ends_with(suffix));
    let (offset, exponent) = if ends(&["lambda1"]) {
        (0.5, 2)
    } else if ends(&["norm1.weight", "norm2.weight", "layernorm.weight"]) {
        (1.0, 3)
    } else if key.starts_with("embeddings.patch_embeddings") {
        (0.0, 10)
    } else if ends(&[".bias"]) {
        (0.0, 4)
    } else if ends(&["query.weight", "key.weight"]) {
        (0.0, 3)
    } else if ends(&[".weight"]) {
        (0.0, 4)
    } else if key == INPUT {
        (0.0, -1)
    } else {
        (0.0, 7)
    };
    (offset, 2f32.powi(-exponent))
}

const INPUT: &str = "input.pixel_values";

fn by_rule(salt: &str, key: &str, count: usize) -> Vec<f32> {
    let (raw, (offset, scale)) = (raw(salt, key), affine(key));
    (0..count as u64).map(|i| offset + raw(i) * scale).collect()
}

/// The full-size model with weights made by a rule, so that nothing but the result need be stored.
pub(super) fn dinov2_small(directory: &Path, device: &Device) -> Result<Vec<Item>, Error> {
    let rule: Rule = json(&directory.join("dinov2_small_rule.json"))?;
    let mut fixture = Fixture::open(directory, "dinov2_small_rule", device)?;
    let tensor = |(key, shape): (&String, &Vec<usize>)| {
        let values = by_rule(&rule.salt, key, shape.iter().product());
        (key.clone(), Tensor { shape: shape.clone(), values })
    };
    let tensors: BTreeMap<String, Tensor> = rule.keys_and_shapes.iter().map(tensor).collect();
    let input = by_rule(&rule.salt, INPUT, 3 * 224 * 224);
    let mut exact = |name: String, same: bool| {
        fixture.items.push(Item { name, max_error: f64::from(u8::from(!same)), tolerance: 0.0 });
    };
    for check in &rule.checks {
        let values = tensors.get(&check.key).map_or(&input, |tensor| &tensor.values);
        let bits = values.get(check.flat_index).map(|value| format!("{:#010x}", value.to_bits()));
        exact(format!("rule.{}.{}", check.key, check.flat_index), bits.as_ref() == Some(&check.f32_bits));
    }
    let all = tensors.values().map(|tensor| tensor.values.as_slice());
    exact("sha256 of weights".into(), sha256(all) == rule.sha256_of_all_weights_sorted_by_key_le_f32);
    exact("sha256 of input".into(), sha256([input.as_slice()]) == rule.sha256_of_input_le_f32);
    let weights = StateDict::new("dinov2_small_rule", tensors);
    let model = Dinov2::new("dinov2_small", rule.config, (224, Positions::Size), weights)?;
    let tokens = model.forward_normalised(&input, (224, 224))?;
    let (class, patches) = tokens.split_at(rule.config.hidden);
    fixture.compare("out.cls", class)?;
    fixture.compare("out.patch_tokens", patches)?;
    Ok(fixture.items)
}

fn sha256<'a>(tensors: impl IntoIterator<Item = &'a [f32]>) -> String {
    let mut hash = Sha256::new();
    tensors.into_iter().for_each(|values| hash_values(&mut hash, values));
    format!("{:x}", hash.finalize())
}
