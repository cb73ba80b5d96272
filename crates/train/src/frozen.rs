//! Features of a frozen encoder, cached beside the data where they fit.

use worldbench_data::features::{FeatureSpec, Features, frames};
use worldbench_data::{FrameSpec, Store};
use worldbench_env::raster::Filter;
use worldbench_models::encoders::FrozenEncoder;

use crate::TrainError;

/// Told of frames that are encoded before training begins: how many are done, and how many there are.
pub type Encoding<'a> = &'a mut dyn FnMut(usize, usize);

/// Frames as `encoder` takes them.
pub(crate) fn frame(encoder: &dyn FrozenEncoder) -> FrameSpec {
    let filter = if encoder.area_filter() { Filter::Area } else { Filter::Linear };
    FrameSpec { resolution: encoder.image_size(), filter }
}

/// Opens or makes the cache of every `stride`-th row of `store`, unless it would exceed `cache_gb` gigabytes.
pub(crate) fn cache(
    encoder: &dyn FrozenEncoder,
    store: &Store,
    stride: usize,
    cache_gb: f64,
    progress: Encoding,
) -> Result<Option<Features>, TrainError> {
    let spec = FeatureSpec {
        encoder: encoder.fingerprint(),
        data: store.hash(),
        stride,
        tokens: encoder.tokens(),
        width: encoder.width(),
    };
    if spec.bytes(frames(store, stride)) as f64 > cache_gb * 1e9 {
        return Ok(None);
    }
    let mut encode =
        |frames: &[&[u8]], out: &mut [f32]| encoder.encode(frames, out).map_err(|e| e.to_string());
    let path = spec.path(store.path());
    Ok(Some(Features::open_or_make(&path, &spec, store, frame(encoder), &mut encode, progress)?))
}
