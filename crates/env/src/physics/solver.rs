//! Sequential-impulse contact solver: pre-solve, warm start and ten sweeps.
//!
//! Friction and elasticity are zero in this world, so tangential impulses are zero throughout and are not kept.

use super::vec::{add, cross, dot, max, min, neg, perp, scale, sub};
use super::{Body, DT, Pair, Status};
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

#[inline(always)]
fn push_bias(body: &mut Body, r: Vec2, j: Vec2) {
    body.bias_v = add(body.bias_v, scale(j, body.inverse_mass));
    body.bias_w += body.inverse_moment * cross(r, j);
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

/// One contact of one sweep; returns whether any impulse changed.
#[inline(always)]
fn sweep_contact(contact: &mut super::Contact, n: Vec2, a: &mut Body, b: &mut Body) -> bool {
    let (r1, r2) = (contact.r1, contact.r2);
    let bias_a = add(a.bias_v, scale(perp(r1), a.bias_w));
    let bias_b = add(b.bias_v, scale(perp(r2), b.bias_w));
    let vbn = dot(sub(bias_b, bias_a), n);
    let velocity_a = add(a.v, scale(perp(r1), a.w));
    let velocity_b = add(b.v, scale(perp(r2), b.w));
    let vrn = dot(sub(velocity_b, velocity_a), n);

    let (old_bias, old) = (contact.bias_impulse, contact.impulse);
    contact.bias_impulse = max(old_bias + (contact.bias - vbn) * contact.mass, 0.0);
    contact.impulse = max(old - vrn * contact.mass, 0.0);
    let bias_j = scale(n, contact.bias_impulse - old_bias);
    let j = scale(n, contact.impulse - old);
    if a.movable {
        push_bias(a, r1, neg(bias_j));
        push(a, r1, neg(j));
    }
    push_bias(b, r2, bias_j);
    push(b, r2, j);
    contact.bias_impulse != old_bias || contact.impulse != old
}

/// The ten sweeps over the active pairs. A sweep that changes nothing is a fixed point, so the rest are skipped.
pub fn sweep(pairs: &mut [Pair], active: &[u8], bodies: &mut [Body; 3]) {
    for _ in 0..SWEEPS {
        let mut changed = false;
        for &slot in active {
            let pair = &mut pairs[usize::from(slot)];
            let n = pair.normal;
            let (ia, ib) = (usize::from(pair.bodies[0]), usize::from(pair.bodies[1]));
            let (mut a, mut b) = (bodies[ia], bodies[ib]);
            for contact in &mut pair.contacts[..usize::from(pair.len)] {
                changed |= sweep_contact(contact, n, &mut a, &mut b);
            }
            if a.movable {
                bodies[ia] = a;
            }
            bodies[ib] = b;
        }
        if !changed {
            break;
        }
    }
}
