use serde::{Deserialize, Serialize};

use crate::{
    episode::ACTION_DIM,
    error::{DataError, Result},
    store::{EpisodeView, Store},
};

/// Shape of a training clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSpec {
    /// Number of frames T.
    pub num_steps: usize,
    /// Env steps f between two frames; also the number of actions in an action block.
    pub frameskip: usize,
}

/// A clip: `num_steps * frameskip` consecutive rows of one episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Episode index in the store.
    pub episode: u32,
    /// First row.
    pub start: u32,
}

impl WindowSpec {
    /// Rows covered by a clip. The reference counts the last frame's action block in, so that it fits.
    #[must_use]
    pub fn span(&self) -> usize {
        self.num_steps * self.frameskip
    }

    /// Values in an action block.
    #[must_use]
    pub fn block_dim(&self) -> usize {
        self.frameskip * ACTION_DIM
    }

    /// All clips of the given episodes, by episode (in the given order), then start: every start in
    /// `0..=len - span`. Episodes shorter than a clip give none.
    ///
    /// # Errors
    /// When a size is 0 or an episode does not exist.
    pub fn enumerate(&self, store: &Store, episodes: &[usize]) -> Result<Vec<Window>> {
        if self.num_steps == 0 || self.frameskip == 0 {
            return Err(DataError::Invalid(format!("num_steps and frameskip must be at least 1: {self:?}")));
        }
        let mut windows = Vec::new();
        for &index in episodes {
            let starts = (store.view(index)?.len() + 1).saturating_sub(self.span());
            let episode = u32::try_from(index)
                .map_err(|_| DataError::Invalid(format!("episode {index} exceeds 32 bits")))?;
            windows.extend((0..starts as u32).map(|start| Window { episode, start }));
        }
        Ok(windows)
    }

    /// Rows of the clip's frames: every f-th row from `start` on.
    pub fn frame_rows(&self, window: Window) -> impl Iterator<Item = usize> + use<> {
        (window.start as usize..).step_by(self.frameskip).take(self.num_steps)
    }

    /// Actions of all rows of the clip, `[T, f * d]` flattened; NaN where an episode's last row has none.
    pub fn actions<'a>(
        &self,
        view: EpisodeView<'a>,
        window: Window,
    ) -> impl Iterator<Item = [f32; ACTION_DIM]> + 'a {
        let start = window.start as usize;
        (start..start + self.span()).map(move |row| view.action(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{episode, store};

    #[test]
    fn clips_cover_every_start_and_skip_short_episodes() {
        let (_guard, store) = store(&[episode(0, 0, 22), episode(0, 1, 19), episode(0, 2, 20)]);
        let spec = WindowSpec { num_steps: 4, frameskip: 5 };
        let windows = spec.enumerate(&store, &[0, 1, 2]).unwrap();
        let found: Vec<_> = windows.iter().map(|w| (w.episode, w.start)).collect();
        assert_eq!(found, [(0, 0), (0, 1), (0, 2), (2, 0)]);
        assert_eq!(spec.frame_rows(windows[1]).collect::<Vec<_>>(), [1, 6, 11, 16]);
        let view = store.view(0).unwrap();
        let actions: Vec<_> = spec.actions(view, windows[2]).collect();
        assert_eq!((actions.len(), actions[0]), (20, view.action(2)));
        assert!(actions[19][0].is_nan() && actions[..19].iter().flatten().all(|v| v.is_finite()));
        assert!(WindowSpec { num_steps: 4, frameskip: 0 }.enumerate(&store, &[0]).is_err());
        assert!(spec.enumerate(&store, &[3]).is_err());
    }
}
