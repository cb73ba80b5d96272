use serde::{Deserialize, Serialize};
use worldbench_core::Stream;

use crate::store::Store;

/// A division of a store's episodes into a training and a validation part, **by source**: all replays of one
/// source episode stand on the same side, so that no validation episode has a near-copy in the training part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Training episodes, ascending.
    pub train: Vec<usize>,
    /// Validation episodes, ascending.
    pub val: Vec<usize>,
}

impl Split {
    /// Divides `store`. A source's side depends on `seed` and its own number only, so it does not change when
    /// episodes are appended; `val_fraction` of the **sources** is reached on average.
    #[must_use]
    pub fn by_source(store: &Store, val_fraction: f64, seed: u64) -> Self {
        let is_val = |source: u64| Stream::new(seed, "split", &[source]).f64() < val_fraction;
        let (val, train) = store
            .views()
            .enumerate()
            .map(|(i, view)| (i, is_val(view.info().source)))
            .partition::<Vec<_>, _>(|&(_, val)| val);
        let indices = |side: Vec<(usize, bool)>| side.into_iter().map(|(i, _)| i).collect();
        Self { train: indices(train), val: indices(val) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::{episode, store};

    #[test]
    fn replays_of_one_source_never_stand_on_both_sides() {
        let all: Vec<_> = (0..200).map(|i| episode(i, i % 50, 3)).collect();
        let (_guard, store) = store(&all);
        let split = Split::by_source(&store, 0.3, 4);
        assert_eq!(split.train.len() + split.val.len(), 200);
        let sources = |side: &[usize]| -> HashSet<u64> { side.iter().map(|&i| all[i].info.source).collect() };
        let (train, val) = (sources(&split.train), sources(&split.val));
        assert!(train.is_disjoint(&val) && (5..=25).contains(&val.len()), "{}", val.len());
        assert_ne!(Split::by_source(&store, 0.3, 5), split);
        assert!(Split::by_source(&store, 0.0, 4).val.is_empty());
        assert!(Split::by_source(&store, 1.0, 4).train.is_empty());
    }
}
