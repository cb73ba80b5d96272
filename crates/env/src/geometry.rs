//! Shapes, centres of gravity and moments of Push-T bodies, with the reference's quirks.
//!
//! The centre of gravity is the plain mean of the parts' centroids and the moment is taken about the body
//! origin with every part counted at mass 1; both are needed for equal trajectories (they are not what a
//! textbook gives for these shapes).

/// A 2-vector `[x, y]`; y points down on screen.
pub type Vec2 = [f64; 2];

/// Most rectangles in one body.
pub const MAX_PARTS: usize = 3;

/// Body shapes of Push-T, numbered as in the variation space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Shape {
    /// Disc of radius 0.375 x scale; agents only.
    #[serde(rename = "o")]
    Circle = 0,
    /// L.
    L = 1,
    /// T, the default block.
    #[default]
    T = 2,
    /// Z.
    Z = 3,
    /// Square.
    #[serde(rename = "square")]
    Square = 4,
    /// I.
    I = 5,
    /// T with a short stem.
    #[serde(rename = "small_tee")]
    SmallTee = 6,
    /// Plus sign.
    #[serde(rename = "+")]
    Plus = 7,
}

impl Shape {
    /// All shapes in the order of their index.
    pub const ALL: [Self; 8] =
        [Self::Circle, Self::L, Self::T, Self::Z, Self::Square, Self::I, Self::SmallTee, Self::Plus];

    /// The shape with variation index 0 to 7.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Index in the variation space, 0 to 7.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name as the fixtures write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["o", "L", "T", "Z", "square", "I", "small_tee", "+"][self.index()]
    }

    /// The shape called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// Smallest turn in radians that maps the shape onto itself, as the success test counts it.
    #[must_use]
    pub fn symmetry(self) -> f64 {
        use std::f64::consts::{FRAC_PI_2, PI, TAU};
        match self {
            Self::Square | Self::Plus => FRAC_PI_2,
            Self::I | Self::Z => PI,
            _ => TAU,
        }
    }

    /// Rectangles `(x0, y0, x1, y1)` in units of the half scale, with the order of the corners that the
    /// reference lists for the moment (`SOURCE_ORDERS` index).
    fn layout(self) -> &'static [([i32; 4], usize)] {
        match self {
            Self::Circle => &[],
            Self::L => &[([0, 0, 2, 4], 1), ([0, -2, 4, 0], 0)],
            Self::T => &[([-4, 0, 4, 2], 0), ([-1, 2, 1, 8], 0)],
            Self::Z => &[([-1, 0, 3, 2], 1), ([-3, -2, 1, 0], 0)],
            Self::Square => &[([-2, -2, 2, 2], 1)],
            Self::I => &[([-1, -4, 1, 4], 1)],
            Self::SmallTee => &[([-3, 0, 3, 2], 0), ([-1, 2, 1, 4], 1)],
            Self::Plus => &[([-3, -1, 3, 1], 0), ([-1, 1, 1, 3], 0), ([-1, -3, 1, -1], 0)],
        }
    }
}

/// Corner orders over the hull `[(x0,y0), (x1,y0), (x1,y1), (x0,y1)]`: 0 is (x0,y1) (x1,y1) (x1,y0) (x0,y0),
/// 1 is (x0,y0) (x0,y1) (x1,y1) (x1,y0).
const SOURCE_ORDERS: [[usize; 4]; 2] = [[3, 2, 1, 0], [0, 3, 2, 1]];

/// Rectangles, centre of gravity and moment of one body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    parts: [[Vec2; 4]; MAX_PARTS],
    len: usize,
    /// Centre of gravity in the body frame.
    pub cog: Vec2,
    /// Moment of inertia (mass 1); infinite for the circle, whose body is kinematic.
    pub moment: f64,
    /// Radius of the circle, 0 for the others.
    pub radius: f64,
}

impl Geometry {
    /// Geometry of `shape` at `scale` pixels. A scale that is not a whole number is a sampled one and is
    /// computed in f32, as the reference does.
    #[must_use]
    pub fn new(shape: Shape, scale: f64) -> Self {
        let mut parts = [[[0.0; 2]; 4]; MAX_PARTS];
        let layout = shape.layout();
        for (part, (corners, _)) in parts.iter_mut().zip(layout) {
            let [x0, y0, x1, y1] = corners.map(|halves| multiple(halves, scale));
            *part = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
        }
        let mut cog = [0.0; 2];
        let mut moment = 0.0;
        for (index, (_, order)) in layout.iter().enumerate() {
            let centroid = centroid(&parts[index]);
            cog = [cog[0] + centroid[0], cog[1] + centroid[1]];
            // The reference passes the first part's vertices for every part of T and +.
            let source = if matches!(shape, Shape::T | Shape::Plus) { 0 } else { index };
            moment += moment_about_origin(&parts[source], SOURCE_ORDERS[*order]);
        }
        if layout.is_empty() {
            moment = f64::INFINITY;
        } else {
            let count = layout.len() as f64;
            cog = [cog[0] / count, cog[1] / count];
        }
        let radius = if shape == Shape::Circle { circle_radius(scale) } else { 0.0 };
        Self { parts, len: layout.len(), cog, moment, radius }
    }

    /// The rectangles in part order, each with vertices (x0,y0) (x1,y0) (x1,y1) (x0,y1) in the body frame;
    /// empty for the circle.
    #[must_use]
    pub fn parts(&self) -> &[[Vec2; 4]] {
        &self.parts[..self.len]
    }
}

fn is_single_precision(scale: f64) -> bool {
    scale.fract() != 0.0
}

/// `halves / 2 * scale`, in the precision of the scale.
fn multiple(halves: i32, scale: f64) -> f64 {
    if is_single_precision(scale) {
        f64::from(halves as f32 * scale as f32 / 2.0)
    } else {
        f64::from(halves) * scale / 2.0
    }
}

fn circle_radius(scale: f64) -> f64 {
    if is_single_precision(scale) { f64::from(0.375f32 * scale as f32) } else { 0.375 * scale }
}

fn cross(a: Vec2, b: Vec2) -> f64 {
    a[0] * b[1] - a[1] * b[0]
}

fn dot(a: Vec2, b: Vec2) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

fn centroid(hull: &[Vec2; 4]) -> Vec2 {
    let (mut sum, mut weighted) = (0.0, [0.0; 2]);
    for i in 0..4 {
        let (v1, v2) = (hull[i], hull[(i + 1) % 4]);
        let c = cross(v1, v2);
        sum += c;
        weighted = [weighted[0] + (v1[0] + v2[0]) * c, weighted[1] + (v1[1] + v2[1]) * c];
    }
    let k = 1.0 / (3.0 * sum);
    [weighted[0] * k, weighted[1] * k]
}

fn moment_about_origin(hull: &[Vec2; 4], order: [usize; 4]) -> f64 {
    let (mut sum1, mut sum2) = (0.0, 0.0);
    for i in 0..4 {
        let (v1, v2) = (hull[order[i]], hull[order[(i + 1) % 4]]);
        let a = cross(v2, v1);
        let b = dot(v1, v1) + dot(v1, v2) + dot(v2, v2);
        sum1 += a * b;
        sum2 += a;
    }
    sum1 / (6.0 * sum2)
}

/// Transform of a body whose centre of gravity stands at `p` with angle `angle`: `(cos, sin, tx, ty)`. The
/// local point q is at `(cos*qx - sin*qy + tx, sin*qx + cos*qy + ty)`.
#[must_use]
pub fn transform(cog: Vec2, p: Vec2, angle: f64) -> (f64, f64, f64, f64) {
    let (c, n) = (angle.cos(), angle.sin());
    let tx = p[0] - (cog[0] * c - cog[1] * n);
    let ty = p[1] - (cog[0] * n + cog[1] * c);
    (c, n, tx, ty)
}

/// Applies a [`transform`] to the local point `q`.
#[must_use]
pub fn apply((c, n, tx, ty): (f64, f64, f64, f64), q: Vec2) -> Vec2 {
    [c * q[0] + (-n) * q[1] + tx, n * q[0] + c * q[1] + ty]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_t_has_the_documented_mass_properties() {
        let t = Geometry::new(Shape::T, 30.0);
        assert_eq!(t.cog, [0.0, 45.0]);
        assert_eq!(t.moment, 3000.0);
        assert_eq!(t.parts()[1], [[-15.0, 30.0], [15.0, 30.0], [15.0, 120.0], [-15.0, 120.0]]);
    }

    #[test]
    fn moments_follow_the_closed_forms() {
        let expected =
            [(Shape::L, 10.0 / 3.0), (Shape::Z, 11.0 / 6.0), (Shape::Square, 2.0 / 3.0), (Shape::Plus, 2.5)];
        for (shape, factor) in expected {
            let moment = Geometry::new(shape, 30.0).moment;
            assert!((moment - factor * 900.0).abs() < 1e-9, "{shape:?} {moment}");
        }
    }
}
