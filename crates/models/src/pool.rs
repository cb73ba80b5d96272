//! Buffers that outlive a call.

use std::sync::{Mutex, PoisonError};

/// Buffers of threads that are done, for the next call: they keep their size.
#[derive(Debug, Default)]
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    /// Runs `f` with buffers of its own.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = lock().pop().unwrap_or_default();
        let result = f(&mut buffers);
        lock().push(buffers);
        result
    }

    /// Sum of `f` over all buffers that are not in use.
    pub fn sum(&self, f: impl Fn(&T) -> usize) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(f).sum()
    }
}
