//! What a policy sees of the rows of a store: frozen features, cached where they fit, and proprioception.

use std::sync::{Arc, Mutex, PoisonError};

use worldbench_data::features::Features;
use worldbench_data::{FrameSource, Moment, Store};
use worldbench_models::encoders::FrozenEncoder;
use worldbench_models::planning::ProprioStatistics;
use worldbench_models::policy::observation;

use crate::TrainError;
use crate::frozen::{self, Encoding};

/// Makes the observations of any row.
pub(super) struct Observations {
    store: Arc<Store>,
    encoder: Arc<dyn FrozenEncoder>,
    /// None where it would be too large.
    features: Option<Features>,
    frames: Mutex<FrameSource>,
    proprio: Option<ProprioStatistics>,
}

impl Observations {
    /// Opens or makes the feature cache of every row, unless it would exceed `cache_gb`.
    pub fn new(
        store: &Arc<Store>,
        encoder: Arc<dyn FrozenEncoder>,
        proprio: Option<ProprioStatistics>,
        cache_gb: f64,
        progress: Encoding,
    ) -> Result<Self, TrainError> {
        let features = frozen::cache(encoder.as_ref(), store, 1, cache_gb, progress)?;
        let frames = Mutex::new(FrameSource::new(frozen::frame(encoder.as_ref())));
        Ok(Self { store: Arc::clone(store), encoder, features, frames, proprio })
    }

    /// Observations `[N, P, D]` of `moments`.
    pub fn read(&self, moments: &[Moment]) -> Result<Vec<f32>, TrainError> {
        let (patches, size) = (self.encoder.tokens(), self.encoder.tokens() * self.encoder.width());
        let tokens = self.tokens(moments, size)?;
        let mut out = Vec::with_capacity(tokens.len() + moments.len() * patches * 4);
        for (moment, tokens) in moments.iter().zip(tokens.chunks_exact(size)) {
            let state = self.store.view(moment.episode as usize)?.state(moment.row as usize);
            let raw = self.store.env().spec().proprioception(&state);
            observation(tokens, patches, self.proprio.as_ref().map(|p| (p, &raw)), &mut out);
        }
        Ok(out)
    }

    fn tokens(&self, moments: &[Moment], size: usize) -> Result<Vec<f32>, TrainError> {
        let mut out = vec![0.0; moments.len() * size];
        if let Some(features) = &self.features {
            for (moment, out) in moments.iter().zip(out.chunks_exact_mut(size)) {
                features.read(moment.episode as usize, moment.row as usize, out)?;
            }
            return Ok(out);
        }
        let bytes = self.encoder.image_size().pow(2) * 3;
        let mut pixels = vec![0; moments.len() * bytes];
        let mut source = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        for (moment, pixels) in moments.iter().zip(pixels.chunks_exact_mut(bytes)) {
            let episode = moment.episode as usize;
            source.write(episode, &self.store.view(episode)?, moment.row as usize, pixels)?;
        }
        self.encoder.encode(&pixels.chunks_exact(bytes).collect::<Vec<_>>(), &mut out)?;
        Ok(out)
    }
}
