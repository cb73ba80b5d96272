//! Narrow phase: closest features of two convex cores and the contacts they make.
//!
//! The cores are a circle's centre, a segment's line and a polygon's outline; radii come in afterwards. The
//! distance is found on the Minkowski difference with GJK (Gilbert, Johnson & Keerthi 1988) and, when the cores
//! overlap, EPA (van den Bergen 2001), in the variant and order of operations of Chipmunk2D.

use super::vec::{
    Aabb, TINY, add, clamp01, cross, dot, lerp, max, min, neg, normalize, perp, rperp, scale, sub,
};
use crate::geometry::Vec2;

const MAX_ROUNDS: usize = 30;
/// A Minkowski difference of two rectangles has at most 8 corners; near-collinear ones may add a few.
const MAX_HULL: usize = 24;

/// A convex core that answers support queries.
pub trait Core: Copy {
    /// Index of the point farthest in direction `d`, with the engine's tie rule.
    fn support(&self, d: Vec2) -> u8;
    /// The point with the given index (taken modulo the number of points).
    fn point(&self, index: u8) -> Vec2;
}

/// A circle's centre.
#[derive(Clone, Copy)]
pub struct Point(pub Vec2);

impl Core for Point {
    #[inline(always)]
    fn support(&self, _: Vec2) -> u8 {
        0
    }
    #[inline(always)]
    fn point(&self, _: u8) -> Vec2 {
        self.0
    }
}

/// A segment's line from its first to its second end.
#[derive(Clone, Copy)]
pub struct Line(pub [Vec2; 2]);

impl Core for Line {
    #[inline(always)]
    fn support(&self, d: Vec2) -> u8 {
        u8::from(dot(self.0[0], d) <= dot(self.0[1], d))
    }
    #[inline(always)]
    fn point(&self, index: u8) -> Vec2 {
        self.0[usize::from(index & 1)]
    }
}

/// A rectangle's outline.
#[derive(Clone, Copy)]
pub struct Outline<'a>(pub &'a [Vec2; 4]);

impl Core for Outline<'_> {
    #[inline(always)]
    fn support(&self, d: Vec2) -> u8 {
        let mut best = dot(self.0[0], d);
        let mut index = 0;
        for i in 1..4u8 {
            let value = dot(self.0[usize::from(i)], d);
            if value > best {
                best = value;
                index = i;
            }
        }
        index
    }
    #[inline(always)]
    fn point(&self, index: u8) -> Vec2 {
        self.0[usize::from(index & 3)]
    }
}

/// A point of the Minkowski difference: `m = b - a`.
#[derive(Clone, Copy)]
struct Difference {
    a: Vec2,
    b: Vec2,
    m: Vec2,
    id: u16,
}

impl Difference {
    #[inline(always)]
    fn of<A: Core, B: Core>(a: &A, b: &B, index_a: u8, index_b: u8) -> Self {
        let (pa, pb) = (a.point(index_a), b.point(index_b));
        Self { a: pa, b: pb, m: sub(pb, pa), id: u16::from(index_a) << 8 | u16::from(index_b) }
    }

    #[inline(always)]
    fn support<A: Core, B: Core>(a: &A, b: &B, d: Vec2) -> Self {
        Self::of(a, b, a.support(neg(d)), b.support(d))
    }
}

/// Closest points of two cores; `d < 0` is penetration.
pub struct Closest {
    pub a: Vec2,
    pub b: Vec2,
    /// Unit normal from A to B.
    pub n: Vec2,
    pub d: f64,
    /// Indices of the final edge, the next step's starting guess.
    pub id: u32,
}

#[inline(always)]
fn left(a: Vec2, b: Vec2, c: Vec2) -> bool {
    (b[1] - a[1]) * (a[0] + b[0] - 2.0 * c[0]) > (b[0] - a[0]) * (a[1] + b[1] - 2.0 * c[1])
}

#[inline(always)]
fn closest_t(a: Vec2, b: Vec2) -> f64 {
    let delta = sub(b, a);
    let squared = dot(delta, delta);
    if squared == 0.0 { 0.0 } else { -min(max(dot(delta, add(a, b)) / squared, -1.0), 1.0) }
}

#[inline(always)]
fn mix(a: Vec2, b: Vec2, t: f64) -> Vec2 {
    let h = 0.5 * t;
    add(scale(a, 0.5 - h), scale(b, 0.5 + h))
}

#[inline(always)]
fn squared_distance(u: Vec2, v: Vec2) -> f64 {
    let c = mix(u, v, closest_t(u, v));
    dot(c, c)
}

#[inline(always)]
fn edge(v0: &Difference, v1: &Difference) -> Closest {
    let t = closest_t(v0.m, v1.m);
    let c = mix(v0.m, v1.m, t);
    let (a, b) = (mix(v0.a, v1.a, t), mix(v0.b, v1.b, t));
    let id = u32::from(v0.id) << 16 | u32::from(v1.id);
    let n = normalize(rperp(sub(v1.m, v0.m)));
    let d = dot(n, c);
    if d <= 0.0 || (-1.0 < t && t < 1.0) {
        return Closest { a, b, n, d, id };
    }
    let length = dot(c, c).sqrt();
    Closest { a, b, n: scale(c, 1.0 / (length + TINY)), d: length, id }
}

/// Closest points of cores `a` and `b`; `id` is last step's answer for this pair, or 0.
#[inline]
pub fn closest<A: Core, B: Core>(a: &A, b: &B, box_a: &Aabb, box_b: &Aabb, id: u32) -> Closest {
    let (mut v0, mut v1);
    if id == 0 {
        let q = perp(sub(box_a.centre(), box_b.centre()));
        v0 = Difference::support(a, b, q);
        v1 = Difference::support(a, b, neg(q));
    } else {
        let [a0, b0, a1, b1] = id.to_be_bytes();
        v0 = Difference::of(a, b, a0, b0);
        v1 = Difference::of(a, b, a1, b1);
    }
    for _ in 0..MAX_ROUNDS {
        if left(v1.m, v0.m, [0.0; 2]) {
            std::mem::swap(&mut v0, &mut v1);
        }
        let t = closest_t(v0.m, v1.m);
        let n = if -1.0 < t && t < 1.0 { perp(sub(v1.m, v0.m)) } else { neg(mix(v0.m, v1.m, t)) };
        let p = Difference::support(a, b, n);
        if left(p.m, v0.m, [0.0; 2]) && left(v1.m, p.m, [0.0; 2]) {
            return penetration(a, b, [v0, p, v1]);
        }
        if dot(p.m, n) <= max(dot(v0.m, n), dot(v1.m, n)) {
            return edge(&v0, &v1);
        }
        if squared_distance(v0.m, p.m) < squared_distance(p.m, v1.m) {
            v1 = p;
        } else {
            v0 = p;
        }
    }
    edge(&v0, &v1)
}

/// Overlapping cores: grows the hull towards the nearest edge of the Minkowski difference.
#[cold]
fn penetration<A: Core, B: Core>(a: &A, b: &B, start: [Difference; 3]) -> Closest {
    let mut hull = [start[0]; MAX_HULL];
    hull[1] = start[1];
    hull[2] = start[2];
    let mut count = 3;
    let mut round = 1;
    loop {
        let (mut nearest, mut least) = (0, f64::INFINITY);
        let mut i = count - 1;
        for j in 0..count {
            let d = squared_distance(hull[i].m, hull[j].m);
            if d < least {
                least = d;
                nearest = i;
            }
            i = j;
        }
        let (v0, v1) = (hull[nearest], hull[(nearest + 1) % count]);
        let p = Difference::support(a, b, perp(sub(v1.m, v0.m)));
        let duplicate = p.id == v0.id || p.id == v1.id;
        if duplicate || !left(v0.m, v1.m, p.m) || round == MAX_ROUNDS || count + 1 == MAX_HULL {
            return edge(&v0, &v1);
        }
        let old = hull;
        hull[0] = p;
        let mut kept = 1;
        for k in 0..count {
            let index = (nearest + 1 + k) % count;
            let next = if k + 1 < count { old[(index + 1) % count].m } else { p.m };
            if left(hull[kept - 1].m, next, old[index].m) {
                hull[kept] = old[index];
                kept += 1;
            }
        }
        count = kept;
        round += 1;
    }
}

/// One contact: a point on each shape and the feature key that matches it with the step before.
#[derive(Clone, Copy)]
pub struct Hit {
    pub p1: Vec2,
    pub p2: Vec2,
    /// Vertex index on A and on B.
    pub key: [u8; 2],
}

/// Contacts of one pair of shapes.
pub struct Manifold {
    pub n: Vec2,
    pub hits: [Hit; 2],
    pub len: usize,
    pub id: u32,
}

impl Manifold {
    fn new(n: Vec2, id: u32) -> Self {
        Self { n, hits: [Hit { p1: [0.0; 2], p2: [0.0; 2], key: [0; 2] }; 2], len: 0, id }
    }

    fn push(&mut self, p1: Vec2, p2: Vec2, key: [u8; 2]) {
        self.hits[self.len] = Hit { p1, p2, key };
        self.len += 1;
    }
}

/// A support edge: two points, their vertex indices, the shape's radius.
#[derive(Clone, Copy)]
pub struct Edge {
    pub points: [Vec2; 2],
    pub index: [u8; 2],
    pub radius: f64,
}

/// Circle of radius `r` against a polygon.
#[inline]
pub fn circle_polygon(centre: Vec2, r: f64, outline: &[Vec2; 4], boxes: (&Aabb, &Aabb), id: u32) -> Manifold {
    let near = closest(&Point(centre), &Outline(outline), boxes.0, boxes.1, id);
    let mut manifold = Manifold::new(near.n, near.id);
    if near.d <= r {
        manifold.push(add(near.a, scale(near.n, r)), near.b, [0; 2]);
    }
    manifold
}

/// Clips the two support edges against each other and emits up to two contacts.
pub fn clip(e1: &Edge, e2: &Edge, n: Vec2, id: u32) -> Manifold {
    let mut manifold = Manifold::new(n, id);
    let (a1, b1) = (cross(e1.points[0], n), cross(e1.points[1], n));
    let (a2, b2) = (cross(e2.points[0], n), cross(e2.points[1], n));
    let (k1, k2) = (1.0 / (b1 - a1 + TINY), 1.0 / (b2 - a2 + TINY));
    let mut emit = |f1: f64, f2: f64, key: [u8; 2]| {
        let p1 = add(scale(n, e1.radius), lerp(e1.points[0], e1.points[1], clamp01(f1)));
        let p2 = add(scale(n, -e2.radius), lerp(e2.points[0], e2.points[1], clamp01(f2)));
        if dot(sub(p2, p1), n) <= 0.0 {
            manifold.push(p1, p2, key);
        }
    };
    emit((b2 - a1) * k1, (a1 - a2) * k2, [e1.index[0], e2.index[1]]);
    emit((a2 - a1) * k1, (b1 - a2) * k2, [e1.index[1], e2.index[0]]);
    manifold
}
