//! The rigid-body world of Push-T, bit for bit Chipmunk2D (as bundled with pymunk 7) for this scene.
//!
//! Every floating-point operation stands in the engine's literal order: nothing is fused or re-associated.
//! Work is skipped only where its result would be the same bits. The state is a few flat arrays, so that a
//! planner can clone a world and go on from there.

mod body;
mod collider;
mod narrow;
mod solver;
mod tree;
mod vec;

use crate::geometry::Vec2;
pub use body::{Body, BodySpec};
use collider::{Collider, Kind, WALLS};
use narrow::{Line, Manifold, Outline};
use tree::{MAX_LEAVES, Tree};
use vec::{add, neg, scale, sub};

/// Length of a physics step in seconds.
pub const DT: f64 = 0.01;
/// Steps for which a pair that no longer touches is remembered.
const PERSISTENCE: u32 = 3;
/// 9 agent-block, 12 agent-wall and 12 block-wall pairs.
const MAX_PAIRS: usize = 33;
/// Index of the static body, which holds the walls.
pub const STATIC: usize = 0;
/// Index of the agent.
pub const AGENT: usize = 1;
/// Index of the block.
pub const BLOCK: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    /// Touches for the first time, or again after a gap.
    First,
    /// Touched in the step before too.
    Normal,
    /// Does not touch now but is remembered.
    Cached,
}

#[derive(Clone, Copy, Debug)]
struct Contact {
    r1: Vec2,
    r2: Vec2,
    mass: f64,
    bias: f64,
    bias_impulse: f64,
    impulse: f64,
    /// Vertex indices, ordered by shape id.
    key: [u8; 2],
}

/// A pair of shapes that touches or touched lately.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Shape ids, smaller first.
    ids: [u8; 2],
    /// Bodies of A and B.
    bodies: [u8; 2],
    status: Status,
    len: u8,
    stamp: u32,
    normal: Vec2,
    contacts: [Contact; 2],
}

const NO_CONTACT: Contact = Contact {
    r1: [0.0; 2],
    r2: [0.0; 2],
    mass: 0.0,
    bias: 0.0,
    bias_impulse: 0.0,
    impulse: 0.0,
    key: [0; 2],
};
const NO_PAIR: Pair = Pair {
    ids: [0; 2],
    bodies: [0; 2],
    status: Status::First,
    len: 0,
    stamp: 0,
    normal: [0.0; 2],
    contacts: [NO_CONTACT; 2],
};

/// A contact of the latest physics step as a caller sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContactPoint {
    /// Point on the first shape, pixels.
    pub a: Vec2,
    /// Point on the second shape, pixels.
    pub b: Vec2,
    /// Unit normal from the first to the second shape.
    pub normal: Vec2,
}

/// The whole physics state: bodies, shapes, contact cache and broad-phase tree.
#[derive(Clone)]
pub struct World {
    bodies: [Body; 3],
    colliders: [Collider; 4 + MAX_LEAVES],
    tree: Tree,
    pairs: [Pair; MAX_PAIRS],
    /// Slots of `pairs` in use, one bit each.
    used: u64,
    /// Slots in solver order.
    active: [u8; MAX_PAIRS],
    active_len: u8,
    /// First shape id of the block.
    first_block: u8,
    stamp: u32,
    contact_count: u64,
    damping_per_step: f64,
}

impl World {
    /// Builds walls, agent and block. `block_cog` overrides the block's centre of gravity and nothing else;
    /// `damping` is the fraction of velocity kept per second (0 in the reference's default).
    #[must_use]
    pub fn new(agent: &BodySpec, block: &BodySpec, block_cog: Option<Vec2>, damping: f64) -> Self {
        let bodies = [
            Body::new([0.0; 2], f64::INFINITY, f64::INFINITY),
            agent.body(agent.geometry.cog),
            block.body(block_cog.unwrap_or(block.geometry.cog)),
        ];
        let mut colliders = [Collider::wall(WALLS[0]); 4 + MAX_LEAVES];
        for (collider, wall) in colliders.iter_mut().zip(WALLS) {
            *collider = Collider::wall(wall);
        }
        let agent_parts = agent.geometry.parts();
        let mut next = 4;
        if agent_parts.is_empty() {
            colliders[next] = Collider::circle(agent.geometry.radius);
            next += 1;
        }
        for part in agent_parts {
            colliders[next] = Collider::polygon(AGENT, *part);
            next += 1;
        }
        let first_block = next as u8;
        for part in block.geometry.parts() {
            colliders[next] = Collider::polygon(BLOCK, *part);
            next += 1;
        }
        let mut world = Self {
            bodies,
            colliders,
            // The four walls have raised the shared counter before.
            tree: Tree::new(4),
            pairs: [NO_PAIR; MAX_PAIRS],
            used: 0,
            active: [0; MAX_PAIRS],
            active_len: 0,
            first_block,
            stamp: 0,
            contact_count: 0,
            damping_per_step: damping.powf(DT),
        };
        for id in 4..next {
            let body = bodies[usize::from(world.colliders[id].body)];
            world.colliders[id].place(&body);
            let leaf = world.tree.add(&world.colliders[id].bb, body.v);
            world.leaf_moved::<false>(leaf);
            world.tree.stamp += 1;
        }
        world
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Body {
        &self.bodies[AGENT]
    }

    /// The agent, to set its pose or velocity.
    pub fn agent_mut(&mut self) -> &mut Body {
        &mut self.bodies[AGENT]
    }

    /// The block.
    #[must_use]
    pub fn block(&self) -> &Body {
        &self.bodies[BLOCK]
    }

    /// The block, to set its pose.
    pub fn block_mut(&mut self) -> &mut Body {
        &mut self.bodies[BLOCK]
    }

    /// Contact points summed over all steps so far.
    #[must_use]
    pub fn contact_count(&self) -> u64 {
        self.contact_count
    }

    /// Whether anything touched in the latest step.
    #[must_use]
    pub fn touching(&self) -> bool {
        self.active_len > 0
    }

    /// Contacts of the latest step in solver order.
    pub fn contacts(&self) -> impl Iterator<Item = ContactPoint> {
        self.active[..usize::from(self.active_len)].iter().flat_map(|&slot| {
            let pair = &self.pairs[usize::from(slot)];
            let (a, b) =
                (self.bodies[usize::from(pair.bodies[0])].p, self.bodies[usize::from(pair.bodies[1])].p);
            pair.contacts[..usize::from(pair.len)].iter().map(move |contact| ContactPoint {
                a: add(a, contact.r1),
                b: add(b, contact.r2),
                normal: pair.normal,
            })
        })
    }

    /// One physics step of [`DT`] seconds.
    pub fn step(&mut self) {
        self.stamp += 1;
        for &slot in &self.active[..usize::from(self.active_len)] {
            self.pairs[usize::from(slot)].status = Status::Normal;
        }
        self.active_len = 0;
        let first_block = usize::from(self.first_block);
        let end = 4 + self.tree.len();
        if self.bodies[AGENT].advance() {
            self.place(AGENT, 4..first_block);
        }
        if self.bodies[BLOCK].advance() {
            self.place(BLOCK, first_block..end);
        }
        self.broad_phase();
        self.age_pairs();
        self.solve();
    }

    fn place(&mut self, body: usize, ids: std::ops::Range<usize>) {
        for collider in &mut self.colliders[ids] {
            collider.place(&self.bodies[body]);
        }
    }

    fn broad_phase(&mut self) {
        let count = self.tree.len();
        // Bucket order of the engine's hash table: of size 5 up to four shapes, of size 13 beyond.
        let first = usize::from(count <= 4);
        for k in 0..count {
            let leaf = (k + first) % count;
            let collider = &self.colliders[leaf + 4];
            self.tree.update(leaf, &collider.bb, self.bodies[usize::from(collider.body)].v);
        }
        for k in 0..count {
            let leaf = self.tree.leaf(k);
            if self.tree.moved(leaf) {
                self.leaf_moved::<true>(leaf);
                continue;
            }
            for index in (0..self.tree.link_count(leaf)).rev() {
                let link = *self.tree.link_mut(leaf, index);
                if link.second {
                    let id = self.collide(usize::from(link.other), leaf + 4, link.id);
                    self.tree.link_mut(leaf, index).id = id;
                }
            }
        }
        self.tree.stamp += 1;
    }

    /// Finds the partners of a leaf whose box is new. Pairs that can never touch with effect (one body, or the
    /// kinematic agent with a wall) are left out; they do not change the order of the others.
    fn leaf_moved<const COLLIDE: bool>(&mut self, leaf: usize) {
        let shape = leaf + 4;
        let body = self.colliders[shape].body;
        if self.bodies[usize::from(body)].movable {
            for wall in (0..4).rev() {
                if self.tree.bb(leaf).touches(&self.colliders[wall].bb) {
                    self.tree.record(wall as u8, shape as u8);
                    if COLLIDE {
                        self.collide(shape, wall, 0);
                    }
                }
            }
        }
        let (found, count) = self.tree.neighbours(leaf);
        for &(other, later) in &found[..count] {
            let other_shape = usize::from(other) + 4;
            if self.colliders[other_shape].body == body {
                continue;
            }
            if later {
                self.tree.record(shape as u8, other_shape as u8);
            } else {
                if self.tree.older(usize::from(other), leaf) {
                    self.tree.record(other_shape as u8, shape as u8);
                }
                if COLLIDE {
                    self.collide(shape, other_shape, 0);
                }
            }
        }
    }

    /// Narrow phase of one candidate pair; returns the start indices for the next step.
    #[inline]
    fn collide(&mut self, x: usize, y: usize, id: u32) -> u32 {
        if !self.colliders[x].bb.touches(&self.colliders[y].bb) {
            return id;
        }
        let (ia, ib) = if self.colliders[x].kind <= self.colliders[y].kind { (x, y) } else { (y, x) };
        let (a, b) = (&self.colliders[ia], &self.colliders[ib]);
        let body_b = &self.bodies[usize::from(b.body)];
        let boxes = (&a.bb, &b.bb);
        let manifold = match (a.kind, b.kind) {
            (Kind::Circle, Kind::Polygon) => {
                narrow::circle_polygon(a.world[0], a.radius, &b.world, boxes, id)
            }
            (Kind::Segment, Kind::Polygon) => {
                let ends = Line([a.world[0], a.world[1]]);
                let near = narrow::closest(&ends, &Outline(&b.world), boxes.0, boxes.1, id);
                if near.d - a.radius - b.radius > 0.0 {
                    return near.id;
                }
                let facing = b.polygon_edge(body_b, neg(near.n));
                narrow::clip(&a.segment_edge(near.n), &facing, near.n, near.id)
            }
            (Kind::Polygon, Kind::Polygon) => {
                let near = narrow::closest(&Outline(&a.world), &Outline(&b.world), boxes.0, boxes.1, id);
                if near.d - a.radius - b.radius > 0.0 {
                    return near.id;
                }
                let body_a = &self.bodies[usize::from(a.body)];
                let facing = b.polygon_edge(body_b, neg(near.n));
                narrow::clip(&a.polygon_edge(body_a, near.n), &facing, near.n, near.id)
            }
            // Circle and wall: both immovable, without effect.
            _ => return id,
        };
        if manifold.len > 0 {
            self.touch(ia, ib, &manifold);
        }
        manifold.id
    }

    /// Slot of the cached pair, or a fresh one.
    fn slot(&mut self, ids: [u8; 2]) -> usize {
        let mut rest = self.used;
        while rest != 0 {
            let slot = rest.trailing_zeros() as usize;
            if self.pairs[slot].ids == ids {
                return slot;
            }
            rest &= rest - 1;
        }
        let slot = (!self.used).trailing_zeros() as usize;
        self.used |= 1 << slot;
        let pair = &mut self.pairs[slot];
        pair.ids = ids;
        pair.len = 0;
        pair.status = Status::First;
        slot
    }

    /// Takes the contacts of a touching pair into the cache and the solver's list.
    fn touch(&mut self, ia: usize, ib: usize, manifold: &Manifold) {
        let swapped = ia > ib;
        let ids = if swapped { [ib as u8, ia as u8] } else { [ia as u8, ib as u8] };
        let slot = self.slot(ids);
        let bodies = [self.colliders[ia].body, self.colliders[ib].body];
        let (pa, pb) = (self.bodies[usize::from(bodies[0])].p, self.bodies[usize::from(bodies[1])].p);
        let pair = &mut self.pairs[slot];
        let mut contacts = [NO_CONTACT; 2];
        for (contact, hit) in contacts.iter_mut().zip(&manifold.hits[..manifold.len]) {
            let key = if swapped { [hit.key[1], hit.key[0]] } else { hit.key };
            contact.r1 = sub(hit.p1, pa);
            contact.r2 = sub(hit.p2, pb);
            contact.key = key;
            for old in &pair.contacts[..usize::from(pair.len)] {
                if old.key == key {
                    contact.impulse = old.impulse;
                }
            }
        }
        pair.contacts = contacts;
        pair.len = manifold.len as u8;
        pair.normal = manifold.n;
        pair.bodies = bodies;
        pair.stamp = self.stamp;
        if pair.status == Status::Cached {
            pair.status = Status::First;
        }
        self.active[usize::from(self.active_len)] = slot as u8;
        self.active_len += 1;
    }

    fn age_pairs(&mut self) {
        let mut rest = self.used;
        while rest != 0 {
            let slot = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let pair = &mut self.pairs[slot];
            let age = self.stamp - pair.stamp;
            if age >= 1 {
                pair.status = Status::Cached;
            }
            if age >= PERSISTENCE {
                self.used &= !(1 << slot);
            }
        }
    }

    fn solve(&mut self) {
        let active = &self.active[..usize::from(self.active_len)];
        for &slot in active {
            let pair = &mut self.pairs[usize::from(slot)];
            let [a, b] = pair.bodies.map(usize::from);
            solver::prepare(pair, &self.bodies[a], &self.bodies[b]);
            self.contact_count += u64::from(pair.len);
        }
        for body in &mut self.bodies[AGENT..] {
            if body.movable {
                // With the default damping of 0 the body keeps no momentum at all.
                body.v = add(scale(body.v, self.damping_per_step), [0.0; 2]);
                body.w = body.w * self.damping_per_step + 0.0;
            }
        }
        if active.is_empty() {
            return;
        }
        for &slot in active {
            solver::warm_start(&self.pairs[usize::from(slot)], &mut self.bodies);
        }
        solver::sweep(&mut self.pairs, active, &mut self.bodies);
    }
}
