use serde::{Deserialize, Serialize};
use worldbench_env::{DomainRef, Look, Scene};

use crate::error::{DataError, Result};

/// Values in an action: x, y in the environment's units ([`worldbench_env::Spec::action`]).
pub const ACTION_DIM: usize = 2;

/// Who acted in an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The built-in expert.
    Expert,
    /// A recorded episode replayed with noise on its actions.
    NoisyReplay,
    /// Play that nobody aims at a goal, such as the reference's weak policy.
    Weak,
    /// Uniform random actions.
    Random,
    /// A planner, on the true simulator or on a learned model.
    Planner,
    /// A human demonstration.
    Human,
    /// Anything else, such as foreign pixel data.
    Other,
}

impl Kind {
    /// Every kind; its place is its number in exported files, so new kinds go to the end.
    pub const ALL: [Self; 7] =
        [Self::Expert, Self::NoisyReplay, Self::Weak, Self::Random, Self::Planner, Self::Human, Self::Other];

    /// The name used in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expert => "expert",
            Self::NoisyReplay => "noisy-replay",
            Self::Weak => "weak",
            Self::Random => "random",
            Self::Planner => "planner",
            Self::Human => "human",
            Self::Other => "other",
        }
    }
}

/// What is stored of an episode beside its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeInfo {
    /// The environment.
    pub env: DomainRef,
    /// Who acted.
    pub kind: Kind,
    /// Identity of the source episode. All replays of one episode share it, so that a split can keep them on
    /// one side; an episode that is nobody's replay carries a number of its own.
    pub source: u64,
    /// Seed that made the episode.
    pub seed: u64,
    /// Value of every variation factor; constant over the episode.
    pub factors: Scene,
}

/// One time step: what was observed, what the frame shows, and the action taken from here.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Observed state, laid out as [`worldbench_env::Spec::state`] says.
    pub state: Vec<f64>,
    /// What the frame is a function of, beside the factors.
    pub render: Look,
    /// Action executed in this row, leading to the next; NaN in the last row.
    pub action: [f32; ACTION_DIM],
}

/// Frames of foreign data that no simulator can render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// `rows * height * width * 3` bytes, RGB, row-major.
    pub data: Vec<u8>,
}

/// An episode of k steps: k + 1 rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Everything but the rows.
    pub info: EpisodeInfo,
    /// Rows in time order; at least one.
    pub rows: Vec<Row>,
    /// Stored frames; `None` where frames are rendered from the rows.
    pub pixels: Option<Pixels>,
}

impl Episode {
    /// Checks what the store relies on.
    ///
    /// # Errors
    /// When there is no row, a number is not finite, an action other than the last is NaN, or the pixel
    /// column has another length than the rows.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(DataError::Episode(message));
        if self.rows.is_empty() {
            return bad("it has no rows; record at least the reset row".into());
        }
        let spec = self.info.env.spec();
        for (t, row) in self.rows.iter().enumerate() {
            if (row.state.len(), row.render.values.len()) != (spec.state.len(), spec.look.len()) {
                return bad(format!("row {t} does not hold the numbers of a {} state", spec.title));
            }
            if !row.state.iter().all(|v| v.is_finite()) {
                return bad(format!("the state in row {t} is not finite: {:?}", row.state));
            }
            let last = t + 1 == self.rows.len();
            if !last && !row.action.iter().all(|v| v.is_finite()) {
                return bad(format!("the action in row {t} is not finite; only the last row has none"));
            }
        }
        if let Some(pixels) = &self.pixels {
            let expected = self.rows.len() * pixels.height * pixels.width * 3;
            if pixels.data.len() != expected {
                return bad(format!("the pixel column has {} bytes, expected {expected}", pixels.data.len()));
            }
        }
        Ok(())
    }
}
