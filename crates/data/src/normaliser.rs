use serde::{Deserialize, Serialize};

use crate::{episode::ACTION_DIM, error::Result, store::Store};

/// How a column is brought to a common scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormaliserKind {
    /// `(x - mean) / max(std, 1e-8)` with the population standard deviation.
    Zscore,
    /// The 1st and 99th percentile go to -1 and 1; values outside are clipped.
    Percentile,
    /// Unchanged.
    None,
}

/// A per-column affine map, fitted on data and stored with the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normaliser {
    /// How the map was fitted.
    pub kind: NormaliserKind,
    /// Subtracted first; one value a column.
    pub offset: Vec<f64>,
    /// Divided by afterwards; one positive value a column.
    pub scale: Vec<f64>,
}

const MIN_SCALE: f64 = 1e-8;

impl Normaliser {
    /// The identity on `dim` columns.
    #[must_use]
    pub fn none(dim: usize) -> Self {
        Self { kind: NormaliserKind::None, offset: vec![0.0; dim], scale: vec![1.0; dim] }
    }

    /// Fits on `rows`; rows with a NaN are left out. Without any row the result is the identity.
    #[must_use]
    pub fn fit<const D: usize>(kind: NormaliserKind, rows: impl IntoIterator<Item = [f64; D]>) -> Self {
        Self::fit_rows(kind, D, rows)
    }

    fn fit_rows<R: AsRef<[f64]>>(
        kind: NormaliserKind,
        dim: usize,
        rows: impl IntoIterator<Item = R>,
    ) -> Self {
        let rows: Vec<R> = rows.into_iter().filter(|r| r.as_ref().iter().all(|v| !v.is_nan())).collect();
        if rows.is_empty() || kind == NormaliserKind::None {
            return Self { kind, ..Self::none(dim) };
        }
        let columns = (0..dim).map(|d| rows.iter().map(|row| row.as_ref()[d]).collect::<Vec<f64>>());
        let (offset, scale) = columns.map(|column| fit_column(kind, column)).unzip();
        Self { kind, offset, scale }
    }

    /// Fits on the actions of the given episodes.
    ///
    /// # Errors
    /// When an episode does not exist.
    pub fn fit_actions(kind: NormaliserKind, store: &Store, episodes: &[usize]) -> Result<Self> {
        let mut rows: Vec<[f64; ACTION_DIM]> = Vec::new();
        for &index in episodes {
            let view = store.view(index)?;
            rows.extend((0..view.len()).map(|t| view.action(t).map(f64::from)));
        }
        Ok(Self::fit(kind, rows))
    }

    /// Fits on the observed states of the given episodes.
    ///
    /// # Errors
    /// When an episode does not exist.
    pub fn fit_states(kind: NormaliserKind, store: &Store, episodes: &[usize]) -> Result<Self> {
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for &index in episodes {
            let view = store.view(index)?;
            rows.extend((0..view.len()).map(|t| view.state(t)));
        }
        Ok(Self::fit_rows(kind, store.env().spec().state.len(), rows))
    }

    /// Number of columns.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.offset.len()
    }

    /// Normalises one value of `column`, computed in f64 and rounded once.
    #[must_use]
    pub fn forward(&self, column: usize, value: f64) -> f32 {
        let z = (value - self.offset[column]) / self.scale[column];
        (if self.kind == NormaliserKind::Percentile { z.clamp(-1.0, 1.0) } else { z }) as f32
    }

    /// Undoes [`Normaliser::forward`], but for clipping.
    #[must_use]
    pub fn inverse(&self, column: usize, value: f32) -> f64 {
        f64::from(value) * self.scale[column] + self.offset[column]
    }

    /// Normalises `values` in place: whole rows, `[.., dim]` (an action block repeats the columns).
    pub fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_mut(self.dim().max(1)) {
            for (column, value) in row.iter_mut().enumerate() {
                *value = self.forward(column, f64::from(*value));
            }
        }
    }

    /// Undoes [`Normaliser::apply`] in place.
    pub fn invert(&self, values: &mut [f32]) {
        for row in values.chunks_mut(self.dim().max(1)) {
            for (column, value) in row.iter_mut().enumerate() {
                *value = self.inverse(column, *value) as f32;
            }
        }
    }
}

fn fit_column(kind: NormaliserKind, mut column: Vec<f64>) -> (f64, f64) {
    let n = column.len() as f64;
    if kind == NormaliserKind::Percentile {
        column.sort_by(f64::total_cmp);
        let (low, high) = (quantile(&column, 0.01), quantile(&column, 0.99));
        return ((low + high) / 2.0, ((high - low) / 2.0).max(MIN_SCALE));
    }
    let mean = column.iter().sum::<f64>() / n;
    let variance = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt().max(MIN_SCALE))
}

/// Quantile of a sorted, non-empty column with linear interpolation.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zscore_ignores_nan_rows_and_inverts() {
        let rows = [[1.0, 5.0], [3.0, 5.0], [f64::NAN, 7.0]];
        let normaliser = Normaliser::fit(NormaliserKind::Zscore, rows);
        assert_eq!((normaliser.offset.as_slice(), normaliser.scale[0]), (&[2.0, 5.0][..], 1.0));
        let mut values = [1.0, 5.0, 3.0, 5.0];
        normaliser.apply(&mut values);
        assert_eq!(values, [-1.0, 0.0, 1.0, 0.0]);
        normaliser.invert(&mut values);
        assert_eq!(values, [1.0, 5.0, 3.0, 5.0]);
    }

    #[test]
    fn percentile_clips_and_empty_is_identity() {
        let rows = (0..=100).map(|v| [f64::from(v)]);
        let normaliser = Normaliser::fit(NormaliserKind::Percentile, rows);
        assert_eq!([normaliser.forward(0, 1.0), normaliser.forward(0, 99.0)], [-1.0, 1.0]);
        assert_eq!([normaliser.forward(0, -50.0), normaliser.forward(0, 500.0)], [-1.0, 1.0]);
        assert_eq!(Normaliser::fit(NormaliserKind::Zscore, [[f64::NAN]]).forward(0, 3.0), 3.0);
    }

    #[test]
    fn a_stored_normaliser_is_read_back_exactly() {
        let normaliser = Normaliser::fit(NormaliserKind::Zscore, [[0.1], [0.7], [0.35]]);
        let json = serde_json::to_string(&normaliser).unwrap();
        assert_eq!(serde_json::from_str::<Normaliser>(&json).unwrap(), normaliser);
    }
}
