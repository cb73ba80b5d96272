//! What an environment's episodes are drawn from: still shapes, bodies, and where in the state their poses stand.

use serde::Serialize;
use worldbench_env::geometry::Geometry;
use worldbench_env::{Changes, Factors, domain, push_t, two_room};

type Point = [f64; 2];
type Colour = [u8; 3];

/// Everything that the page needs to draw a state, in pixels of the environment's canvas.
#[derive(Debug, Serialize)]
pub(super) struct Scene {
    /// Name of the environment.
    pub environment: String,
    /// What differs from the default scene.
    #[serde(skip)]
    pub changes: Changes,
    /// Side of the canvas.
    size: f64,
    background: Colour,
    /// Distance below which the goal counts as reached, px.
    threshold: f64,
    statics: Vec<Still>,
    bodies: Vec<Body>,
    /// Numbers per unit of each recorded value of the state; later values are not recorded.
    pub scales: Vec<f64>,
    /// Values that are angles.
    turns: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Still {
    polygon: [Point; 4],
    fill: Colour,
}

#[derive(Debug, Serialize)]
struct Body {
    /// Indices of x, y and, for bodies that turn, the angle.
    pose: Vec<usize>,
    /// Of a disc; 0 for the others.
    radius: f64,
    /// Rectangles in the body's frame.
    parts: Vec<[Point; 4]>,
    fill: Colour,
    line: Colour,
}

impl Scene {
    /// The scene of an environment that differs from the default one by `changes`; none for an environment that the page
    /// cannot draw.
    pub(super) fn of(environment: &str, changes: &Changes) -> Option<Self> {
        let scene = domain::find(environment)?.scene(changes).ok()?;
        let drawn = match environment {
            name if name == push_t::SPEC.name => Self::push_t(&scene.factors::<Factors>()),
            name if name == two_room::SPEC.name => Self::two_room(&scene.factors::<two_room::Factors>()),
            _ => return None,
        };
        Some(Self { changes: changes.clone(), ..drawn })
    }

    fn push_t(factors: &Factors) -> Self {
        let body = |pose: &[usize], geometry: &Geometry, colour: Colour| Body {
            pose: pose.to_vec(),
            radius: geometry.radius,
            parts: geometry.parts().to_vec(),
            fill: colour.map(|c| (1.2 * f64::from(c)).min(255.0) as u8),
            line: colour,
        };
        let block = Geometry::new(factors.block_shape, factors.block_scale);
        let agent = Geometry::new(factors.agent_shape, factors.agent_scale);
        let wall = |x: [f64; 2], y: [f64; 2]| Still { polygon: rectangle(x, y), fill: [211; 3] };
        let (near, far, all) = ([3.0, 8.0], [504.0, 509.0], [3.0, 509.0]);
        Self {
            environment: push_t::SPEC.name.into(),
            changes: Changes::new(),
            size: push_t::SPEC.canvas as f64,
            background: factors.background_color,
            threshold: 20.0,
            statics: vec![wall(near, all), wall(far, all), wall(all, near), wall(all, far)],
            bodies: vec![
                body(&[2, 3, 4], &block, factors.block_color),
                body(&[0, 1], &agent, factors.agent_color),
            ],
            scales: vec![10.0, 10.0, 10.0, 10.0, 1_000.0],
            turns: vec![4],
        }
    }

    fn two_room(factors: &two_room::Factors) -> Self {
        let size = two_room::SIZE as f64;
        let half = f64::from(factors.half_thickness());
        let centre = f64::from(two_room::CENTRE);
        let band = [centre - half, centre + half + 1.0];
        let oriented = |along: [f64; 2], fill: Colour| match factors.wall_axis {
            two_room::Axis::Vertical => Still { polygon: rectangle(band, along), fill },
            two_room::Axis::Horizontal => Still { polygon: rectangle(along, band), fill },
        };
        let mut statics = vec![oriented([0.0, size], factors.wall_color)];
        for (middle, extent) in factors.doors() {
            let ends = [f64::from(middle - extent), f64::from(middle + extent + 1)];
            statics.push(oriented(ends, factors.door_color));
        }
        for line in [[10.0, 14.0], [210.0, 214.0]] {
            for (x, y) in [([0.0, size], line), (line, [0.0, size])] {
                statics.push(Still { polygon: rectangle(x, y), fill: factors.wall_color });
            }
        }
        let agent = Body {
            pose: vec![0, 1],
            radius: factors.agent_radius,
            parts: Vec::new(),
            fill: factors.agent_color,
            line: factors.agent_color,
        };
        Self {
            environment: two_room::SPEC.name.into(),
            changes: Changes::new(),
            size,
            background: factors.background_color,
            threshold: f64::from(two_room::SUCCESS_DISTANCE),
            statics,
            bodies: vec![agent],
            scales: vec![10.0, 10.0],
            turns: Vec::new(),
        }
    }
}

fn rectangle([x0, x1]: [f64; 2], [y0, y1]: [f64; 2]) -> [Point; 4] {
    [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_environment_has_a_scene() {
        for spec in worldbench_env::environment::ALL {
            let scene = Scene::of(spec.name, &Changes::new()).unwrap();
            assert_eq!((scene.environment.as_str(), scene.size), (spec.name, spec.canvas as f64));
            let poses = scene.bodies.iter().flat_map(|body| &body.pose);
            assert!(poses.chain(&scene.turns).all(|&i| i < scene.scales.len() && i < spec.state.len()));
        }
        assert!(Scene::of("three_room", &Changes::new()).is_none());
    }
}
