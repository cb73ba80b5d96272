//! The block as a union of rectangles: where an agent can touch it, and how to walk around it.
//!
//! Works for every block shape, because all of them are axis-aligned rectangles in the body frame.

use worldbench_env::{Factors, Geometry};

/// A rigid pose: body origin (px) and angle (rad).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// Body origin, px.
    pub origin: [f64; 2],
    /// Angle, rad; clockwise on screen.
    pub angle: f64,
}

impl Pose {
    /// The block's pose in an observed state of Push-T; panics on a shorter one.
    #[must_use]
    pub fn of_block(state: &[f64]) -> Self {
        Self { origin: [state[2], state[3]], angle: state[4] }
    }

    /// World position of a body-frame point.
    #[must_use]
    pub fn apply(&self, q: [f64; 2]) -> [f64; 2] {
        let d = self.rotate(q);
        [self.origin[0] + d[0], self.origin[1] + d[1]]
    }

    /// World direction of a body-frame direction.
    #[must_use]
    pub fn rotate(&self, q: [f64; 2]) -> [f64; 2] {
        let (s, c) = self.angle.sin_cos();
        [c * q[0] - s * q[1], s * q[0] + c * q[1]]
    }

    /// Body-frame coordinates of a world point.
    #[must_use]
    pub fn invert(&self, p: [f64; 2]) -> [f64; 2] {
        let (s, c) = self.angle.sin_cos();
        let d = [p[0] - self.origin[0], p[1] - self.origin[1]];
        [c * d[0] + s * d[1], -s * d[0] + c * d[1]]
    }
}

/// Length of a vector.
#[must_use]
pub fn norm(v: [f64; 2]) -> f64 {
    v[0].hypot(v[1])
}

/// `a - b`.
#[must_use]
pub fn sub(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

/// `a + k b`.
#[must_use]
pub fn add(a: [f64; 2], k: f64, b: [f64; 2]) -> [f64; 2] {
    [a[0] + k * b[0], a[1] + k * b[1]]
}

/// Whether a point lies on the 512 x 512 picture.
#[must_use]
pub fn on_picture(p: [f64; 2]) -> bool {
    p.iter().all(|v| (0.0..512.0).contains(v))
}

/// Smallest rotation between two angles, in `[0, period / 2]`.
#[must_use]
pub fn angle_between(a: f64, b: f64, period: f64) -> f64 {
    let d = (a - b).rem_euclid(period);
    d.min(period - d)
}

/// A place on the block's edge and the outward normal there, in the body frame.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    /// Point on the edge, px.
    pub point: [f64; 2],
    /// Outward unit normal.
    pub normal: [f64; 2],
}

/// The block's outline in its body frame.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Rectangles (x0, y0, x1, y1), px.
    parts: Vec<[f64; 4]>,
    /// Rotations by this angle look the same, rad.
    symmetry: f64,
}

impl Outline {
    /// An outline of rectangles `(x0, y0, x1, y1)` in px whose appearance repeats every `symmetry` rad.
    #[must_use]
    pub fn new(parts: Vec<[f64; 4]>, symmetry: f64) -> Self {
        Self { parts, symmetry }
    }

    /// The outline of the block that `factors` describe.
    #[must_use]
    pub fn of_block(factors: &Factors) -> Self {
        let geometry = Geometry::new(factors.block_shape, factors.block_scale);
        let parts = geometry.parts().iter().map(|p| [p[0][0], p[0][1], p[2][0], p[2][1]]).collect();
        Self::new(parts, factors.block_shape.symmetry())
    }

    /// Rotations by this angle look the same, rad.
    #[must_use]
    pub fn symmetry(&self) -> f64 {
        self.symmetry
    }

    /// Corners of all rectangles, body frame, px.
    pub fn corners(&self) -> impl Iterator<Item = [f64; 2]> + '_ {
        self.parts.iter().flat_map(|&[x0, y0, x1, y1]| [[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    }

    /// Whether the whole block lies on the picture.
    #[must_use]
    pub fn in_view(&self, pose: &Pose) -> bool {
        self.corners().all(|c| on_picture(pose.apply(c)))
    }

    /// Mean distance of the corners between two poses, px: one number for position and angle error.
    #[must_use]
    pub fn distance(&self, a: &Pose, b: &Pose) -> f64 {
        // The nearest of the symmetric copies of `b` counts.
        let turns = ((a.angle - b.angle) / self.symmetry).round();
        let b = Pose { angle: b.angle + turns * self.symmetry, ..*b };
        let (mut sum, mut n) = (0.0, 0.0);
        for corner in self.corners() {
            sum += norm(sub(a.apply(corner), b.apply(corner)));
            n += 1.0;
        }
        sum / n
    }

    /// Distance from a world point to the block, px; 0 inside.
    #[must_use]
    pub fn clearance(&self, pose: &Pose, p: [f64; 2]) -> f64 {
        let q = pose.invert(p);
        self.parts.iter().map(|r| point_rect(q, r)).fold(f64::INFINITY, f64::min)
    }

    /// Smallest distance between the block and the segment `a`-`b` (world), px, sampled every 4 px.
    fn segment_clearance(&self, pose: &Pose, a: [f64; 2], b: [f64; 2]) -> f64 {
        let (a, b) = (pose.invert(a), pose.invert(b));
        let d = sub(b, a);
        let n = (norm(d) / 4.0).ceil().max(1.0);
        let mut nearest = f64::INFINITY;
        for i in 0..=n as usize {
            let q = add(a, i as f64 / n, d);
            for r in &self.parts {
                nearest = nearest.min(point_rect(q, r));
            }
        }
        nearest
    }

    /// The outline's point at `edge` (any integer) and `along` in `[0, 1]` of that edge.
    #[must_use]
    pub fn touch(&self, edge: u64, along: f64) -> Touch {
        let n = self.parts.len() * 4;
        let edge = (edge % n as u64) as usize;
        let [x0, y0, x1, y1] = self.parts[edge / 4];
        let (x, y) = (x0 + along * (x1 - x0), y0 + along * (y1 - y0));
        let (point, normal) = match edge % 4 {
            0 => ([x, y0], [0.0, -1.0]),
            1 => ([x1, y], [1.0, 0.0]),
            2 => ([x, y1], [0.0, 1.0]),
            _ => ([x0, y], [-1.0, 0.0]),
        };
        Touch { point, normal }
    }

    /// Shortest way from `from` to `to` that keeps `margin` px from the block where it can: the corners to pass,
    /// ending in `to`. Corners further out than `[-10, 522]` px are avoided.
    #[must_use]
    pub fn route(&self, pose: &Pose, from: [f64; 2], to: [f64; 2], margin: f64) -> Vec<[f64; 2]> {
        // An end point closer than the margin must not make its own segment infeasible.
        let ends = self.clearance(pose, from).min(self.clearance(pose, to));
        let needed = margin.min(ends - 0.5);
        if self.segment_clearance(pose, from, to) >= needed {
            return vec![to];
        }
        let mut nodes = vec![from, to];
        for &[x0, y0, x1, y1] in &self.parts {
            let m = margin * 1.05;
            for q in [[x0 - m, y0 - m], [x1 + m, y0 - m], [x1 + m, y1 + m], [x0 - m, y1 + m]] {
                let p = pose.apply(q);
                if self.clearance(pose, p) >= margin && p.iter().all(|&v| (-10.0..522.0).contains(&v)) {
                    nodes.push(p);
                }
            }
        }
        self.shortest(pose, &nodes, needed)
    }

    /// Dijkstra's algorithm over `nodes` (0 = start, 1 = target); straight to the target when there is no way.
    fn shortest(&self, pose: &Pose, nodes: &[[f64; 2]], needed: f64) -> Vec<[f64; 2]> {
        let n = nodes.len();
        let (mut cost, mut before, mut done) = (vec![f64::INFINITY; n], vec![0; n], vec![false; n]);
        cost[0] = 0.0;
        loop {
            let open = (0..n).filter(|&i| !done[i] && cost[i].is_finite());
            let Some(i) = open.min_by(|&a, &b| cost[a].total_cmp(&cost[b])) else {
                return vec![nodes[1]];
            };
            if i == 1 {
                break;
            }
            done[i] = true;
            for j in 0..n {
                let reached = cost[i] + norm(sub(nodes[i], nodes[j]));
                if !done[j] && reached < cost[j] && self.segment_clearance(pose, nodes[i], nodes[j]) >= needed
                {
                    cost[j] = reached;
                    before[j] = i;
                }
            }
        }
        let (mut way, mut at) = (vec![], 1);
        while at != 0 {
            way.push(nodes[at]);
            at = before[at];
        }
        way.reverse();
        way
    }
}

fn point_rect(q: [f64; 2], &[x0, y0, x1, y1]: &[f64; 4]) -> f64 {
    let dx = (x0 - q[0]).max(q[0] - x1).max(0.0);
    let dy = (y0 - q[1]).max(q[1] - y1).max(0.0);
    dx.hypot(dy)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn tee() -> Outline {
        Outline::of_block(&Factors::default())
    }

    const POSE: Pose = Pose { origin: [256.0, 200.0], angle: 0.7 };

    #[test]
    fn a_route_keeps_its_margin() {
        let tee = tee();
        let (from, to) = (POSE.apply([0.0, -60.0]), POSE.apply([40.0, 80.0]));
        let way = tee.route(&POSE, from, to, 22.0);
        assert!(way.len() > 1 && way.last() == Some(&to), "{way:?}");
        let mut at = from;
        for p in way {
            assert!(tee.segment_clearance(&POSE, at, p) > 20.0);
            at = p;
        }
    }

    #[test]
    fn distance_sees_position_angle_and_symmetry() {
        let tee = tee();
        let moved = Pose { origin: [259.0, 204.0], ..POSE };
        assert!((tee.distance(&POSE, &moved) - 5.0).abs() < 1e-9);
        let turned = Pose { angle: POSE.angle + TAU, ..POSE };
        assert!(tee.distance(&POSE, &turned) < 1e-9);
        assert!(tee.distance(&POSE, &Pose { angle: 1.7, ..POSE }) > 30.0);
    }

    #[test]
    fn touches_lie_on_the_outline_and_normals_point_out() {
        let tee = tee();
        for edge in 0..8 {
            let touch = tee.touch(edge, 0.3);
            assert!(tee.clearance(&POSE, POSE.apply(touch.point)) < 1e-9);
        }
        let outside = add(tee.touch(0, 0.5).point, 5.0, tee.touch(0, 0.5).normal);
        assert!((tee.clearance(&POSE, POSE.apply(outside)) - 5.0).abs() < 1e-9);
    }
}
