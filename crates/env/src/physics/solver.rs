//! Sequential-impulse contact solver: pre-solve, warm start and ten sweeps.
//!
//! Friction and elasticity are zero in this world, so tangential impulses are zero throughout and are not kept.

use super::vec::{add, cross, dot, max, min, neg, perp, scale, sub};
use super::{AGENT, BLOCK, Body, Contact, DT, Pair, STATIC, Status};
use crate::geometry::Vec2;

const SWEEPS: usize = 10;
/// f32 0.1 promoted to f64.
const SLOP: f64 = 0.1f32 as f64;
/// 1 - (f32 0.9)^60^dt.
const BIAS: f64 = 0.061_259_621_561_307_376;

#[inline(always)]
fn effective(body: &Body, r: Vec2, u: Vec2) -> f64 {
    let c = cross(r, u);
    body.inverse_mass + body.inverse_moment * c * c
}

/// Effective mass and bias speed of every contact, from the poses of this step.
pub fn prepare(pair: &mut Pair, a: &Body, b: &Body) {
    let n = pair.normal;
    for contact in &mut pair.contacts[..usize::from(pair.len)] {
        let (r1, r2) = (contact.r1, contact.r2);
        contact.mass = 1.0 / (effective(a, r1, n) + effective(b, r2, n));
        let distance = dot(add(sub(r2, r1), sub(b.p, a.p)), n);
        contact.bias = -BIAS * min(0.0, distance + SLOP) / DT;
        contact.bias_impulse = 0.0;
    }
}

#[inline(always)]
fn push(body: &mut Body, r: Vec2, j: Vec2) {
    body.v = add(body.v, scale(j, body.inverse_mass));
    body.w += body.inverse_moment * cross(r, j);
}

/// Re-applies last step's impulses of pairs that touched then too.
pub fn warm_start(pair: &Pair, bodies: &mut [Body; 3]) {
    if pair.status == Status::First {
        return;
    }
    let (a, b) = (usize::from(pair.bodies[0]), usize::from(pair.bodies[1]));
    for contact in &pair.contacts[..usize::from(pair.len)] {
        let j = scale(pair.normal, contact.impulse);
        if bodies[a].movable {
            push(&mut bodies[a], contact.r1, neg(j));
        }
        push(&mut bodies[b], contact.r2, j);
    }
}

/// The velocities that a sweep changes, kept apart from the body so that they stay in registers.
#[derive(Clone, Copy)]
struct Motion {
    v: Vec2,
    w: f64,
    bias_v: Vec2,
    bias_w: f64,
}

impl Motion {
    #[inline(always)]
    fn of(body: &Body) -> Self {
        Self { v: body.v, w: body.w, bias_v: body.bias_v, bias_w: body.bias_w }
    }

    #[inline(always)]
    fn store(self, body: &mut Body) {
        body.v = self.v;
        body.w = self.w;
        body.bias_v = self.bias_v;
        body.bias_w = self.bias_w;
    }

    #[inline(always)]
    fn push(&mut self, inverse: [f64; 2], r: Vec2, bias_j: Vec2, j: Vec2) {
        self.bias_v = add(self.bias_v, scale(bias_j, inverse[0]));
        self.bias_w += inverse[1] * cross(r, bias_j);
        self.v = add(self.v, scale(j, inverse[0]));
        self.w += inverse[1] * cross(r, j);
    }
}

/// One contact of one sweep; returns whether any impulse changed. `inverse` is (1/mass, 1/moment) of A and B;
/// an immovable A is not written, which would add zeros.
#[inline(always)]
fn sweep_contact<const A_MOVES: bool>(
    contact: &mut Contact,
    n: Vec2,
    a: &mut Motion,
    b: &mut Motion,
    inverse: [[f64; 2]; 2],
) -> bool {
    let (r1, r2) = (contact.r1, contact.r2);
    let (mut bias_a, mut velocity_a) = (a.bias_v, a.v);
    if A_MOVES {
        bias_a = add(bias_a, scale(perp(r1), a.bias_w));
        velocity_a = add(velocity_a, scale(perp(r1), a.w));
    }
    let bias_b = add(b.bias_v, scale(perp(r2), b.bias_w));
    let velocity_b = add(b.v, scale(perp(r2), b.w));
    let vbn = dot(sub(bias_b, bias_a), n);
    let vrn = dot(sub(velocity_b, velocity_a), n);

    let (old_bias, old) = (contact.bias_impulse, contact.impulse);
    contact.bias_impulse = max(old_bias + (contact.bias - vbn) * contact.mass, 0.0);
    contact.impulse = max(old - vrn * contact.mass, 0.0);
    let bias_j = scale(n, contact.bias_impulse - old_bias);
    let j = scale(n, contact.impulse - old);
    if A_MOVES {
        a.push(inverse[0], r1, neg(bias_j), neg(j));
    }
    b.push(inverse[1], r2, bias_j, j);
    contact.bias_impulse != old_bias || contact.impulse != old
}

/// The ten sweeps over the active pairs. A sweep that changes nothing is a fixed point, so the rest are skipped.
pub fn sweep(pairs: &mut [Pair], active: &[u8], bodies: &mut [Body; 3]) {
    if bodies[AGENT].movable {
        sweep_general(pairs, active, bodies)
    } else {
        sweep_block(pairs, active, bodies)
    }
}

/// Only the block moves: B of every pair is the block, A a wall or the kinematic agent.
fn sweep_block(pairs: &mut [Pair], active: &[u8], bodies: &mut [Body; 3]) {
    let inverse = [[0.0; 2], [bodies[BLOCK].inverse_mass, bodies[BLOCK].inverse_moment]];
    let mut fixed = [Motion::of(&bodies[STATIC]), Motion::of(&bodies[AGENT])];
    let mut block = Motion::of(&bodies[BLOCK]);
    for _ in 0..SWEEPS {
        let mut changed = false;
        for &slot in active {
            let pair = &mut pairs[usize::from(slot)];
            let n = pair.normal;
            let a = &mut fixed[usize::from(pair.bodies[0]) & 1];
            for contact in &mut pair.contacts[..usize::from(pair.len)] {
                changed |= sweep_contact::<false>(contact, n, a, &mut block, inverse);
            }
        }
        if !changed {
            break;
        }
    }
    block.store(&mut bodies[BLOCK]);
}

/// Agent and block move.
fn sweep_general(pairs: &mut [Pair], active: &[u8], bodies: &mut [Body; 3]) {
    for _ in 0..SWEEPS {
        let mut changed = false;
        for &slot in active {
            let pair = &mut pairs[usize::from(slot)];
            let n = pair.normal;
            let [ia, ib] = pair.bodies.map(usize::from);
            let (mut a, mut b) = (Motion::of(&bodies[ia]), Motion::of(&bodies[ib]));
            let inverse = [ia, ib].map(|k| [bodies[k].inverse_mass, bodies[k].inverse_moment]);
            for contact in &mut pair.contacts[..usize::from(pair.len)] {
                changed |= sweep_contact::<true>(contact, n, &mut a, &mut b, inverse);
            }
            a.store(&mut bodies[ia]);
            b.store(&mut bodies[ib]);
        }
        if !changed {
            break;
        }
    }
}
