//! Rigid bodies: pose, velocity and the cached transform.

use super::DT;
use super::vec::{add, scale};
use crate::geometry::{Geometry, Vec2};

/// A rigid body.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Position of the centre of gravity, pixels.
    pub p: Vec2,
    /// Raw angle, radians.
    pub angle: f64,
    /// Velocity, pixels per second.
    pub v: Vec2,
    /// Angular velocity, radians per second.
    pub w: f64,
    pub(super) bias_v: Vec2,
    pub(super) bias_w: f64,
    pub(super) inverse_mass: f64,
    pub(super) inverse_moment: f64,
    cog: Vec2,
    pub(super) cos: f64,
    pub(super) sin: f64,
    /// Body origin, the translation of the cached transform.
    pub(super) origin: Vec2,
    /// Has finite mass.
    pub(super) movable: bool,
    /// The pose was set by hand since the shapes were last placed.
    stale: bool,
}

impl Body {
    pub(super) fn new(cog: Vec2, mass: f64, moment: f64) -> Self {
        let movable = mass.is_finite();
        Self {
            p: [0.0; 2],
            angle: 0.0,
            v: [0.0; 2],
            w: 0.0,
            bias_v: [0.0; 2],
            bias_w: 0.0,
            inverse_mass: 1.0 / mass,
            inverse_moment: if movable { 1.0 / moment } else { 0.0 },
            cog,
            cos: 1.0,
            sin: 0.0,
            origin: [0.0; 2],
            movable,
            stale: true,
        }
    }

    fn place(&mut self) {
        let (c, n, cog) = (self.cos, self.sin, self.cog);
        self.origin = [self.p[0] - (cog[0] * c - cog[1] * n), self.p[1] - (cog[0] * n + cog[1] * c)];
    }

    /// Body origin (not the centre of gravity), pixels.
    #[must_use]
    pub fn origin(&self) -> Vec2 {
        self.origin
    }

    /// Puts the body origin at `position`, keeping the angle.
    pub fn set_position(&mut self, position: Vec2) {
        let (c, n, cog) = (self.cos, self.sin, self.cog);
        self.p = [c * cog[0] + (-n) * cog[1] + position[0], n * cog[0] + c * cog[1] + position[1]];
        self.place();
        self.stale = true;
    }

    /// Turns the body about its centre of gravity to `angle`; the origin moves.
    pub fn set_angle(&mut self, angle: f64) {
        self.angle = angle;
        self.cos = angle.cos();
        self.sin = angle.sin();
        self.place();
        self.stale = true;
    }

    /// Moves the pose on by one step and drops the bias velocities; returns whether it changed.
    #[inline]
    pub(super) fn advance(&mut self) -> bool {
        let still = self.v == [0.0; 2] && self.w == 0.0 && self.bias_v == [0.0; 2] && self.bias_w == 0.0;
        if still {
            return std::mem::take(&mut self.stale);
        }
        self.p = add(self.p, scale(add(self.v, self.bias_v), DT));
        let angle = self.angle + (self.w + self.bias_w) * DT;
        if angle != self.angle {
            self.angle = angle;
            self.cos = angle.cos();
            self.sin = angle.sin();
        }
        self.place();
        self.bias_v = [0.0; 2];
        self.bias_w = 0.0;
        self.stale = false;
        true
    }
}

/// Start pose and form of one body.
#[derive(Clone, Copy, Debug)]
pub struct BodySpec {
    /// Shapes and mass properties.
    pub geometry: Geometry,
    /// Position given to the body, pixels.
    pub position: Vec2,
    /// Angle given after the position, radians.
    pub angle: f64,
}

impl BodySpec {
    pub(super) fn body(&self, cog: Vec2) -> Body {
        let g = &self.geometry;
        let mass = if g.parts().is_empty() { f64::INFINITY } else { 1.0 };
        let mut body = Body::new(cog, mass, g.moment);
        // Position before angle: the reference's order, which leaves the origin off its mark.
        body.set_position(self.position);
        body.set_angle(self.angle);
        body
    }
}
