//! What a policy sees of the rows of a store: features, cached where the encoder is frozen and they fit, and
//! proprioception.

use std::sync::{Arc, Mutex, PoisonError};

use worldbench_data::features::Features;
use worldbench_data::{FrameSource, Moment, Store};
use worldbench_models::encoders::FrozenEncoder;
use worldbench_models::planning::ProprioStatistics;
use worldbench_models::policy::observation;

use super::batch::Moments;
use crate::TrainError;
use crate::frozen::{self, Encoding};

/// Observations, or their gradients.
pub(super) struct Observed {
    /// `[B, T + 1, P, D]`
    pub windows: Vec<f32>,
    /// `[B, P, D]`
    pub actor: Vec<f32>,
    /// `[B, P, D]`
    pub value: Vec<f32>,
}

/// Makes the observations of any row.
pub(super) struct Observations {
    store: Arc<Store>,
    frames: Mutex<FrameSource>,
    /// Bytes of a frame.
    bytes: usize,
    proprio: Option<ProprioStatistics>,
    /// None where it would be too large, or changes from step to step.
    features: Option<Features>,
}

impl Observations {
    /// With `encoder`, frozen, the feature cache of every row is opened or made, unless it would exceed `cache_gb`.
    pub fn new(
        store: &Arc<Store>,
        encoder: &dyn FrozenEncoder,
        proprio: Option<ProprioStatistics>,
        cache: Option<(f64, Encoding)>,
    ) -> Result<Self, TrainError> {
        let features = match cache {
            Some((cache_gb, progress)) => frozen::cache(encoder, store, 1, cache_gb, progress)?,
            None => None,
        };
        let frames = Mutex::new(FrameSource::new(frozen::frame(encoder)));
        let bytes = encoder.image_size().pow(2) * 3;
        Ok(Self { store: Arc::clone(store), frames, bytes, proprio, features })
    }

    /// Observations of a batch through `encoder`, frozen for now.
    pub fn read(&self, encoder: &dyn FrozenEncoder, moments: &Moments) -> Result<Observed, TrainError> {
        let (patches, size) = (encoder.tokens(), encoder.tokens() * encoder.width());
        let read = |moments: &[Moment]| {
            let mut tokens = vec![0.0; moments.len() * size];
            match &self.features {
                Some(features) => {
                    for (moment, out) in moments.iter().zip(tokens.chunks_exact_mut(size)) {
                        features.read(moment.episode as usize, moment.row as usize, out)?;
                    }
                }
                None => encoder.encode(&self.split(&self.pixels(moments)?), &mut tokens)?,
            }
            self.join(moments, &tokens, patches)
        };
        Ok(Observed {
            windows: read(&moments.windows)?,
            actor: read(&moments.actor)?,
            value: read(&moments.value)?,
        })
    }

    /// Frames `[N, R, R, 3]` of `moments`.
    pub fn pixels(&self, moments: &[Moment]) -> Result<Vec<u8>, TrainError> {
        let mut pixels = vec![0; moments.len() * self.bytes];
        let mut source = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        for (moment, pixels) in moments.iter().zip(pixels.chunks_exact_mut(self.bytes)) {
            let episode = moment.episode as usize;
            source.write(episode, &self.store.view(episode)?, moment.row as usize, pixels)?;
        }
        Ok(pixels)
    }

    /// The frames one by one.
    pub fn split<'a>(&self, pixels: &'a [u8]) -> Vec<&'a [u8]> {
        pixels.chunks_exact(self.bytes).collect()
    }

    /// Observations `[N, P, D]` out of `tokens` and the proprioception of `moments`.
    pub fn join(&self, moments: &[Moment], tokens: &[f32], patches: usize) -> Result<Vec<f32>, TrainError> {
        let mut out = Vec::with_capacity(tokens.len() + moments.len() * patches * 4);
        for (moment, tokens) in moments.iter().zip(tokens.chunks_exact(tokens.len() / moments.len().max(1))) {
            let state = self.store.view(moment.episode as usize)?.state(moment.row as usize);
            let raw = self.store.env().spec().proprioception(&state);
            observation(tokens, patches, self.proprio.as_ref().map(|p| (p, &raw)), &mut out);
        }
        Ok(out)
    }
}
