//! What one Push-T frame depends on besides the [`crate::variation::Factors`].
//!
//! A stored `RenderState` is enough to draw a frame again byte for byte without any simulation; that is why
//! it holds the block's centre of gravity and *raw* angle instead of the observed pose.

use crate::domain::{Appearance, Look};

/// Most contact marks one frame can show.
pub const MAX_MARKS: usize = 32;

/// Contact marks in solver order: end points `[x1, y1, x2, y2]` on the 512x512 canvas, rounded half to even.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    len: u8,
    items: [[i16; 4]; MAX_MARKS],
}

impl Marks {
    /// No marks.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, items: [[0; 4]; MAX_MARKS] }
    }

    /// Adds a mark; returns false (and drops it) when [`MAX_MARKS`] are held already.
    pub fn push(&mut self, mark: [i16; 4]) -> bool {
        let index = usize::from(self.len);
        if index == MAX_MARKS {
            return false;
        }
        self.items[index] = mark;
        self.len += 1;
        true
    }

    /// The marks in solver order.
    #[must_use]
    pub fn as_slice(&self) -> &[[i16; 4]] {
        &self.items[..usize::from(self.len)]
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Marks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl FromIterator<[i16; 4]> for Marks {
    fn from_iter<I: IntoIterator<Item = [i16; 4]>>(iter: I) -> Self {
        let mut marks = Self::new();
        for mark in iter {
            if !marks.push(mark) {
                break;
            }
        }
        marks
    }
}

/// The part of the simulator's state that a frame shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RenderState {
    /// Agent body origin, canvas pixels.
    pub agent: [f64; 2],
    /// Agent angle in radians, raw; it shows only when the agent is not a circle.
    pub agent_angle: f64,
    /// Block centre of gravity, canvas pixels (not the body origin).
    pub block_cog: [f64; 2],
    /// Block angle in radians, raw (not wrapped).
    pub block_angle: f64,
    /// Contact marks of the latest physics step.
    pub marks: Marks,
}

impl Appearance for RenderState {
    fn look(&self) -> Look {
        let [x, y] = self.agent;
        let [cog_x, cog_y] = self.block_cog;
        Look { values: vec![x, y, self.agent_angle, cog_x, cog_y, self.block_angle], marks: self.marks }
    }

    fn of_look(look: &Look) -> Self {
        let value = |i: usize| look.values.get(i).copied().unwrap_or_default();
        Self {
            agent: [value(0), value(1)],
            agent_angle: value(2),
            block_cog: [value(3), value(4)],
            block_angle: value(5),
            marks: look.marks,
        }
    }
}
