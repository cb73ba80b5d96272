//! Goals for goal-conditioned learning: which later (or other) row of the data a transition is asked to reach.
//!
//! The kind of goal is drawn first, then the goal: any row of the split, a row a geometric or a uniform number of steps ahead
//! in the same episode, or the current row itself. Every sample has a stream of its own, keyed by its number, so goals
//! depend neither on threads nor on a restart. The reference's workers share one generator state and its goals may come from
//! the held-out part; neither is repeated here.

use serde::{Deserialize, Serialize};
use worldbench_core::Stream;

use crate::error::{DataError, Result};
use crate::store::Store;

/// A row of a store. Two rows are the same moment exactly when they are equal, whatever their frames show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// Episode index in the store.
    pub episode: u32,
    /// Row.
    pub row: u32,
}

/// Where goals come from. The four probabilities sum to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GoalSampling {
    /// Probability of any row of the split.
    pub random: f64,
    /// Probability of a row `k` steps ahead, `k` geometric with mean `1 / (1 - gamma)`.
    pub geometric: f64,
    /// Probability of a row ahead, each distance from `nearest` to `farthest` alike.
    pub uniform: f64,
    /// Probability of the current row.
    pub current: f64,
    /// Of the geometric distance, in (0, 1).
    pub gamma: f64,
    /// Least distance of a uniform goal in steps, at least 1; less where the episode ends before.
    pub nearest: usize,
    /// Greatest distance of geometric and uniform goals in steps; 0 reaches to the episode's end.
    pub farthest: usize,
}

impl Default for GoalSampling {
    /// Any later row of the episode.
    fn default() -> Self {
        let (random, geometric, uniform, current) = (0.0, 0.0, 1.0, 0.0);
        Self { random, geometric, uniform, current, gamma: 0.99, nearest: 1, farthest: 0 }
    }
}

impl GoalSampling {
    /// Checks every setting; `name` is the key of this table in messages.
    ///
    /// # Errors
    /// Names the setting and what it may be.
    pub fn check(&self, name: &str) -> Result<()> {
        let fail = |message: String| Err(DataError::Invalid(format!("{name}: {message}")));
        let kinds = [self.random, self.geometric, self.uniform, self.current];
        let sum = kinds.iter().sum::<f64>();
        if kinds.iter().any(|p| !(0.0..=1.0).contains(p)) || (sum - 1.0).abs() > 1e-9 {
            return fail(format!("random, geometric, uniform and current must sum to 1, not {sum}"));
        }
        if !(self.gamma > 0.0 && self.gamma < 1.0) {
            return fail(format!("gamma = {} must lie between 0 and 1", self.gamma));
        }
        if self.nearest == 0 || (self.farthest > 0 && self.farthest < self.nearest) {
            let (nearest, farthest) = (self.nearest, self.farthest);
            return fail(format!(
                "nearest = {nearest} must be at least 1 and at most farthest = {farthest}, which 0 leaves open"
            ));
        }
        Ok(())
    }
}

/// Draws goals from the rows of one side of a split.
#[derive(Clone, Debug)]
pub struct GoalSampler {
    sampling: GoalSampling,
    /// Episodes of the split and the number of rows up to and with each.
    episodes: Vec<(u32, u64)>,
    rows: Vec<u32>,
    seed: u64,
    purpose: String,
}

impl GoalSampler {
    /// Goals out of `episodes` of `store`, from streams named by `seed` and `purpose`.
    ///
    /// # Errors
    /// When a setting makes no sense, an episode does not exist, or there is none.
    pub fn new(
        sampling: &GoalSampling,
        store: &Store,
        episodes: &[usize],
        seed: u64,
        purpose: &str,
    ) -> Result<Self> {
        sampling.check(purpose)?;
        let mut total = 0;
        let mut found = Vec::with_capacity(episodes.len());
        for &episode in episodes {
            total += store.view(episode)?.len() as u64;
            let number = u32::try_from(episode)
                .map_err(|_| DataError::Invalid(format!("episode {episode} exceeds 32 bits")))?;
            found.push((number, total));
        }
        let rows = store.views().map(|view| view.len() as u32).collect();
        if found.is_empty() {
            return Err(DataError::Invalid(format!("{purpose}: the split holds no episode; collect more")));
        }
        let (sampling, purpose) = (sampling.clone(), purpose.to_owned());
        Ok(Self { sampling, episodes: found, rows, seed, purpose })
    }

    /// The goal of sample number `sample`, which stands at `current`.
    #[must_use]
    pub fn draw(&self, current: Moment, sample: u64) -> Moment {
        let s = &self.sampling;
        let mut stream = Stream::new(self.seed, &self.purpose, &[sample]);
        let kind = stream.f64();
        if kind < s.random {
            return self.any(&mut stream);
        }
        let left =
            self.rows.get(current.episode as usize).map_or(0, |rows| rows.saturating_sub(current.row + 1));
        let most = if s.farthest == 0 { left } else { left.min(s.farthest as u32) };
        let ahead = if kind < s.random + s.geometric {
            // 1 - u lies in (0, 1]: the logarithm is finite.
            let steps = ((1.0 - stream.f64()).ln() / s.gamma.ln()).floor();
            most.min((steps as u32).saturating_add(1))
        } else if kind < s.random + s.geometric + s.uniform {
            let least = most.min(s.nearest as u32);
            least + stream.below(u64::from(most - least) + 1) as u32
        } else {
            0
        };
        Moment { row: current.row + ahead, ..current }
    }

    /// Any row of the split, each alike.
    fn any(&self, stream: &mut Stream) -> Moment {
        let total = self.episodes.last().map_or(0, |(_, total)| *total);
        let number = stream.below(total);
        let at = self.episodes.partition_point(|(_, up_to)| *up_to <= number);
        let before = at.checked_sub(1).map_or(0, |i| self.episodes[i].1);
        let episode = self.episodes.get(at).map_or(0, |(episode, _)| *episode);
        Moment { episode, row: (number - before) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{episode, store};

    const HERE: Moment = Moment { episode: 2, row: 4 };

    fn only(kind: &str) -> GoalSampling {
        let mut sampling = GoalSampling { uniform: 0.0, ..GoalSampling::default() };
        let slot = match kind {
            "random" => &mut sampling.random,
            "geometric" => &mut sampling.geometric,
            "uniform" => &mut sampling.uniform,
            _ => &mut sampling.current,
        };
        *slot = 1.0;
        sampling
    }

    /// Goals of many samples at [`HERE`] in three episodes, of which the split holds the first and the last.
    fn goals(sampling: &GoalSampling) -> Vec<Moment> {
        let (_guard, store) = store(&[episode(0, 0, 7), episode(0, 1, 50), episode(0, 2, 30)]);
        let sampler = GoalSampler::new(sampling, &store, &[0, 2], 5, "goal").unwrap();
        let last = store.view(2).unwrap().len() as u32 - 1;
        let found: Vec<_> = (0..20_000).map(|sample| sampler.draw(HERE, sample)).collect();
        assert!(found.iter().all(|g| g.episode != 1 && (g.episode != 2 || g.row <= last)));
        assert_eq!(found[77], sampler.draw(HERE, 77), "a sample's goal depends on its number alone");
        found
    }

    fn share(goals: &[Moment], wanted: impl Fn(&Moment) -> bool) -> f64 {
        goals.iter().filter(|g| wanted(g)).count() as f64 / goals.len() as f64
    }

    #[test]
    fn every_kind_has_its_distribution() {
        let random = goals(&only("random"));
        let rows = |len: usize| if len == 7 { 7.0 } else { 30.0 };
        let of_first = share(&random, |g| g.episode == 0);
        assert!((of_first - rows(7) / (rows(7) + rows(30))).abs() < 0.02, "{of_first}");
        let geometric = goals(&GoalSampling { gamma: 0.8, ..only("geometric") });
        for (steps, expected) in [(1, 0.2), (2, 0.16), (3, 0.128)] {
            let found = share(&geometric, |g| g.row == HERE.row + steps);
            assert!((found - expected).abs() < 0.015, "{steps}: {found}");
        }
        let uniform = goals(&GoalSampling { nearest: 3, farthest: 12, ..only("uniform") });
        for steps in [3, 7, 12] {
            let found = share(&uniform, |g| g.row == HERE.row + steps);
            assert!((found - 0.1).abs() < 0.015, "{steps}: {found}");
        }
        assert!(uniform.iter().all(|g| (3..=12).contains(&(g.row - HERE.row))));
        assert!(goals(&only("current")).iter().all(|g| *g == HERE));
        let mixed =
            GoalSampling { random: 0.3, geometric: 0.5, uniform: 0.0, current: 0.2, ..only("current") };
        let here = share(&goals(&mixed), |g| *g == HERE);
        assert!((here - 0.2 - 0.3 / 37.0).abs() < 0.02, "{here}");
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        for (wrong, expected) in [
            (GoalSampling { random: 0.5, ..GoalSampling::default() }, "sum to 1, not 1.5"),
            (GoalSampling { gamma: 1.0, ..GoalSampling::default() }, "gamma"),
            (GoalSampling { nearest: 0, ..GoalSampling::default() }, "nearest"),
            (GoalSampling { nearest: 9, farthest: 5, ..GoalSampling::default() }, "farthest"),
        ] {
            let message = wrong.check("model.actor_goals").unwrap_err().to_string();
            assert!(message.contains("model.actor_goals") && message.contains(expected), "{message}");
        }
    }
}
