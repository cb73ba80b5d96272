//! The Push-T environment as it was when the human demonstrations were recorded.
//!
//! It differs from the present one in the order of construction (the block is positioned, then turned about its
//! centre of gravity, so its origin moves) and in the reward, the covered share of the goal.

use std::f64::consts::{FRAC_PI_4, PI, TAU};

use worldbench_core::numpy::Mt19937;
use worldbench_env::{
    Factors, Geometry, Marks, RenderState,
    geometry::{Vec2, apply, transform},
    physics::{BodySpec, DT, World},
};

/// Covered share of the goal that counts as full.
const FULL_COVER: f64 = 0.95;
const GOAL: (Vec2, f64) = ([256.0, 256.0], FRAC_PI_4);

/// Drawn initial pose: agent x, y; block x, y; block angle.
pub(super) fn initial_state(rng: &mut Mt19937) -> [f64; 5] {
    let agent = [rng.randint(50, 450), rng.randint(50, 450)].map(f64::from);
    let block = [rng.randint(100, 400), rng.randint(100, 400)].map(f64::from);
    [agent[0], agent[1], block[0], block[1], rng.randn_first() * 2.0 * PI - PI]
}

pub(super) struct Legacy {
    world: World,
    factors: Factors,
    block: Geometry,
    /// Corners of the goal's rectangles in the world.
    goal: Vec<[Vec2; 4]>,
}

impl Legacy {
    pub fn new(&[agent_x, agent_y, block_x, block_y, angle]: &[f64; 5]) -> Self {
        let factors =
            Factors { agent_start: [256.0, 400.0], block_start: [256.0, 300.0], ..Factors::default() };
        let agent = Geometry::new(factors.agent_shape, factors.agent_scale);
        let block = Geometry::new(factors.block_shape, factors.block_scale);
        let spec = |geometry, position| BodySpec { geometry, position, angle: 0.0 };
        let agent = spec(agent, factors.agent_start);
        let mut world = World::new(&agent, &spec(block, factors.block_start), None, 0.0);
        world.agent_mut().set_position([agent_x, agent_y]);
        world.block_mut().set_position([block_x, block_y]);
        world.block_mut().set_angle(angle);
        world.step();
        // The goal's origin, not its centre of gravity, lies on the mark: its angle is set before its position.
        let (position, angle) = GOAL;
        let goal = placed(&block, (angle.cos(), angle.sin(), position[0], position[1]));
        Self { world, factors, block, goal }
    }

    /// One control step towards an absolute target, PD law in f64.
    pub fn step(&mut self, target: Vec2) {
        for _ in 0..worldbench_env::push_t::SUBSTEPS {
            let agent = self.world.agent_mut();
            let p = agent.origin();
            for k in 0..2 {
                let acceleration = (target[k] - p[k]) * 100.0 + (0.0 - agent.v[k]) * 20.0;
                agent.v[k] += acceleration * DT;
            }
            self.world.step();
        }
    }

    pub fn agent(&self) -> Vec2 {
        self.world.agent().origin()
    }

    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    /// Share of the goal that the block covers, over [`FULL_COVER`], at most 1.
    pub fn reward(&self) -> f64 {
        let body = self.world.block();
        let here = placed(&self.block, transform(self.block.cog, body.p, body.angle));
        // The rectangles of one block only touch each other, so areas add up.
        let pairs = here.iter().flat_map(|a| self.goal.iter().map(move |b| overlap(a, b)));
        let total: f64 = self.goal.iter().map(|rectangle| area(rectangle)).sum();
        (pairs.sum::<f64>() / total / FULL_COVER).clamp(0.0, 1.0)
    }

    pub fn state(&self) -> [f64; 7] {
        let (agent, block) = (self.world.agent(), self.world.block());
        let (a, b) = (agent.origin(), block.origin());
        [a[0], a[1], b[0], b[1], block.angle.rem_euclid(TAU), agent.v[0], agent.v[1]]
    }

    pub fn render_state(&self) -> RenderState {
        let (agent, block) = (self.world.agent(), self.world.block());
        let end = |x: f64| x.round_ties_even() as i16;
        let mark = |c: worldbench_env::physics::ContactPoint| {
            let n = c.normal.map(|v| 2.0 * v);
            [end(c.a[0] - n[0]), end(c.a[1] - n[1]), end(c.b[0] + n[0]), end(c.b[1] + n[1])]
        };
        RenderState {
            agent: agent.origin(),
            agent_angle: agent.angle,
            block_cog: block.p,
            block_angle: block.angle,
            marks: self.world.contacts().map(mark).collect::<Marks>(),
        }
    }
}

fn placed(block: &Geometry, pose: (f64, f64, f64, f64)) -> Vec<[Vec2; 4]> {
    block.parts().iter().map(|part| part.map(|corner| apply(pose, corner))).collect()
}

/// Area of the intersection of two convex polygons with corners in the same sense (Sutherland-Hodgman).
fn overlap(a: &[Vec2; 4], b: &[Vec2; 4]) -> f64 {
    let mut polygon = a.to_vec();
    for i in 0..4 {
        let (p, q) = (b[i], b[(i + 1) % 4]);
        let side = |v: Vec2| (q[0] - p[0]) * (v[1] - p[1]) - (q[1] - p[1]) * (v[0] - p[0]);
        let mut kept = Vec::with_capacity(8);
        for (j, &v) in polygon.iter().enumerate() {
            let w = polygon[(j + 1) % polygon.len()];
            let (sv, sw) = (side(v), side(w));
            if sv >= 0.0 {
                kept.push(v);
            }
            if (sv >= 0.0) != (sw >= 0.0) {
                let t = sv / (sv - sw);
                kept.push([v[0] + t * (w[0] - v[0]), v[1] + t * (w[1] - v[1])]);
            }
        }
        polygon = kept;
    }
    area(&polygon)
}

/// Area of a polygon (shoelace).
fn area(polygon: &[Vec2]) -> f64 {
    let next = polygon.iter().cycle().skip(1);
    (polygon.iter().zip(next).map(|(p, q)| p[0] * q[1] - p[1] * q[0]).sum::<f64>() / 2.0).abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_states_match_the_check_values() {
        let draw = |seed| initial_state(&mut Mt19937::new(seed));
        assert_eq!(draw(0), [222.0, 97.0, 217.0, 292.0, 3.007_999_467_721_955_3]);
        assert_eq!(draw(1), [87.0, 285.0, 172.0, 355.0, -6.595_749_753_457_083]);
        assert_eq!(draw(205), [372.0, 342.0, 338.0, 256.0, -3.892_590_331_126_092]);
    }

    #[test]
    fn the_reward_is_the_covered_share() {
        let square = |x: f64, s: f64| [[x, 0.0], [x + s, 0.0], [x + s, s], [x, s]];
        assert_eq!(overlap(&square(0.0, 2.0), &square(1.0, 2.0)), 2.0);
        assert_eq!(overlap(&square(0.0, 2.0), &square(5.0, 2.0)), 0.0);
        let mut on_goal = Legacy::new(&[60.0, 60.0, 256.0, 256.0, FRAC_PI_4]);
        assert!(on_goal.reward() < 0.9, "turning last moves the origin off the mark");
        on_goal.world.block_mut().set_position([256.0, 256.0]);
        assert_eq!(on_goal.reward(), 1.0);
        assert_eq!(Legacy::new(&[60.0, 60.0, 120.0, 380.0, 0.0]).reward(), 0.0);
    }
}
