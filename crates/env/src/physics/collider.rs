//! Collision shapes: walls, circles and rectangles with their boxes and facing edges.

use super::body::Body;
use super::narrow::{Core, Edge, Outline};
use super::vec::{self, Aabb, dot, normalize, rperp, scale, sub};
use super::{AGENT, STATIC};
use crate::geometry::Vec2;

const WALL_RADIUS: f64 = 2.0;
/// Ends of the four walls.
pub const WALLS: [[Vec2; 2]; 4] = [
    [[5.0, 506.0], [5.0, 5.0]],
    [[5.0, 5.0], [506.0, 5.0]],
    [[506.0, 5.0], [506.0, 506.0]],
    [[5.0, 506.0], [506.0, 506.0]],
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Circle,
    Segment,
    Polygon,
}

/// A collision shape: ids 0 to 3 are the walls, then the agent's shapes, then the block's.
#[derive(Clone, Copy)]
pub struct Collider {
    pub kind: Kind,
    pub body: u8,
    pub radius: f64,
    /// Body-frame vertices and outward normals (normal i belongs to the edge from vertex i-1 to i).
    local: [Vec2; 4],
    normals: [Vec2; 4],
    /// World vertices; a circle's centre is the first, a segment's ends are the first two.
    pub world: [Vec2; 4],
    pub bb: Aabb,
}

impl Collider {
    pub fn polygon(body: usize, local: [Vec2; 4]) -> Self {
        let normals = std::array::from_fn(|i| normalize(rperp(sub(local[i], local[(i + 3) % 4]))));
        let bb = Aabb::EMPTY;
        Self { kind: Kind::Polygon, body: body as u8, radius: 0.0, local, normals, world: local, bb }
    }

    pub fn circle(radius: f64) -> Self {
        Self { kind: Kind::Circle, radius, ..Self::polygon(AGENT, [[0.0; 2]; 4]) }
    }

    pub fn wall([a, b]: [Vec2; 2]) -> Self {
        let direction = scale(sub(b, a), 1.0 / (dot(sub(b, a), sub(b, a)).sqrt() + vec::TINY));
        let mut wall = Self::polygon(STATIC, [a, b, a, b]);
        wall.kind = Kind::Segment;
        wall.radius = WALL_RADIUS;
        wall.normals = [rperp(direction); 4];
        wall.bound();
        wall
    }

    /// Recomputes world vertices and box from the body's transform.
    pub fn place(&mut self, body: &Body) {
        let (c, n, [tx, ty]) = (body.cos, body.sin, body.origin);
        if self.kind == Kind::Circle {
            self.world[0] = [tx, ty];
            let r = self.radius;
            self.bb = Aabb { l: tx - r, b: ty - r, r: tx + r, t: ty + r };
            return;
        }
        for (world, q) in self.world.iter_mut().zip(&self.local) {
            *world = [c * q[0] + (-n) * q[1] + tx, n * q[0] + c * q[1] + ty];
        }
        self.bound();
    }

    fn bound(&mut self) {
        let [v0, rest @ ..] = &self.world;
        let (mut l, mut b, mut r, mut t) = (v0[0], v0[1], v0[0], v0[1]);
        for v in rest {
            l = vec::min(l, v[0]);
            r = vec::max(r, v[0]);
            b = vec::min(b, v[1]);
            t = vec::max(t, v[1]);
        }
        let radius = self.radius;
        self.bb = Aabb { l: l - radius, b: b - radius, r: r + radius, t: t + radius };
    }

    /// The polygon's edge that faces direction `u`.
    pub fn polygon_edge(&self, body: &Body, u: Vec2) -> Edge {
        let i = usize::from(Outline(&self.world).support(u));
        let (before, after) = ((i + 3) % 4, (i + 1) % 4);
        let (c, n) = (body.cos, body.sin);
        let facing = |k: usize| {
            let q = self.normals[k];
            dot(u, [c * q[0] + (-n) * q[1], n * q[0] + c * q[1]])
        };
        let [first, second] = if facing(i) > facing(after) { [before, i] } else { [i, after] };
        let points = [self.world[first], self.world[second]];
        Edge { points, index: [first as u8, second as u8], radius: self.radius }
    }

    /// The wall's two ends in the order that faces direction `u`.
    pub fn segment_edge(&self, u: Vec2) -> Edge {
        let (a, b) = (self.world[0], self.world[1]);
        if dot(self.normals[0], u) > 0.0 {
            Edge { points: [a, b], index: [0, 1], radius: self.radius }
        } else {
            Edge { points: [b, a], index: [1, 0], radius: self.radius }
        }
    }
}
