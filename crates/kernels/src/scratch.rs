//! Buffers that return to their thread's pool, so that a training step asks the system for no memory.

use crate::buffer::Buffer;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Most buffers that a thread keeps: what has waited longest goes first.
const KEPT: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// A cache-line aligned slice of f32 that goes to the pool of the thread that drops it.
#[derive(Debug, Default)]
pub struct Scratch(Buffer);

impl Scratch {
    /// `n` values left by earlier use: for what will be overwritten.
    pub fn stale(n: usize) -> Self {
        let kept = POOL.with_borrow_mut(|pool| {
            let at = pool.iter().rposition(|buffer| buffer.len() == n)?;
            Some(pool.remove(at))
        });
        Self(kept.unwrap_or_else(|| Buffer::zeros(n)))
    }

    /// `n` zeros.
    pub fn zeros(n: usize) -> Self {
        let mut scratch = Self::stale(n);
        scratch.fill(0.0);
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no pool any more: the buffer is freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() == KEPT {
                pool.remove(0);
            }
            pool.push(buffer);
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_serves_the_next_of_its_length() {
        let mut first = Scratch::zeros(37);
        first.fill(2.0);
        let (place, other) = (first.as_ptr(), Scratch::stale(38));
        drop(first);
        assert_eq!(Scratch::stale(37).as_ptr(), place);
        assert_eq!(Scratch::stale(37)[..], [2.0; 37]);
        assert_eq!(Scratch::zeros(37)[..], [0.0; 37]);
        assert_eq!(other.len(), 38);
    }

    #[test]
    fn a_thread_keeps_a_bounded_number() {
        drop((0..2 * KEPT).map(Scratch::stale).collect::<Vec<_>>());
        assert_eq!(POOL.with_borrow(Vec::len), KEPT);
    }
}
