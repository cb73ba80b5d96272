//! Broad phase: the dynamic tree of fat boxes, whose shape fixes the order in which pairs are solved.
//!
//! The order matters: with any fixed order of pairs only about 65 % of contact-rich episodes follow the
//! reference for 100 steps. The static tree always has the form (((3,2),1),0), and a box that touches a leaf
//! touches all its ancestors, so querying it is a scan of the walls 3, 2, 1, 0.

use super::vec::{Aabb, max, min};
use crate::geometry::Vec2;

/// Most dynamic shapes: three parts for the agent and three for the block.
pub const MAX_LEAVES: usize = 6;
const MAX_NODES: usize = 2 * MAX_LEAVES - 1;
/// Each leaf can be paired with every other leaf and with the four walls.
const MAX_LINKS: usize = MAX_LEAVES - 1 + 4;
const NONE: u8 = u8::MAX;
/// f32 0.1 promoted to f64.
const FAT: f64 = 0.1f32 as f64;

#[derive(Clone, Copy)]
struct Node {
    bb: Aabb,
    parent: u8,
    /// Children (A, B); unused in leaves.
    child: [u8; 2],
}

/// One member's view of a tree pair.
#[derive(Clone, Copy)]
pub struct Link {
    /// Shape id of the partner.
    pub other: u8,
    /// Whether this leaf is the pair's second member, which runs the narrow phase.
    pub second: bool,
    /// Start indices of the distance loop, 0 for none.
    pub id: u32,
}

/// Tree pairs of one leaf, oldest first (they are walked from the back).
#[derive(Clone, Copy)]
struct Links {
    len: u8,
    items: [Link; MAX_LINKS],
}

impl Links {
    fn push(&mut self, link: Link) {
        self.items[usize::from(self.len)] = link;
        self.len += 1;
    }

    fn remove(&mut self, other: u8) {
        let mut kept = 0;
        for i in 0..usize::from(self.len) {
            if self.items[i].other != other {
                self.items[kept] = self.items[i];
                kept += 1;
            }
        }
        self.len = kept as u8;
    }
}

/// Binary tree over the boxes of the agent's and the block's shapes. Leaf `i` belongs to shape `4 + i`.
#[derive(Clone)]
pub struct Tree {
    nodes: [Node; MAX_NODES],
    links: [Links; MAX_LEAVES],
    stamps: [u32; MAX_LEAVES],
    /// Leaves in depth-first order, A before B.
    order: [u8; MAX_LEAVES],
    len: u8,
    root: u8,
    /// Counter shared with the static tree.
    pub stamp: u32,
}

/// Box grown by a tenth of its size, and in the direction of the motion.
fn fat(bb: &Aabb, v: Vec2) -> Aabb {
    let (x, y) = ((bb.r - bb.l) * FAT, (bb.t - bb.b) * FAT);
    let v = [v[0] * FAT, v[1] * FAT];
    Aabb { l: bb.l + min(-x, v[0]), b: bb.b + min(-y, v[1]), r: bb.r + max(x, v[0]), t: bb.t + max(y, v[1]) }
}

impl Tree {
    pub fn new(stamp: u32) -> Self {
        let link = Link { other: 0, second: false, id: 0 };
        Self {
            nodes: [Node { bb: Aabb::EMPTY, parent: NONE, child: [NONE; 2] }; MAX_NODES],
            links: [Links { len: 0, items: [link; MAX_LINKS] }; MAX_LEAVES],
            stamps: [0; MAX_LEAVES],
            order: [0; MAX_LEAVES],
            len: 0,
            root: NONE,
            stamp,
        }
    }

    /// Number of leaves.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The `k`-th leaf in depth-first order.
    #[inline]
    pub fn leaf(&self, k: usize) -> usize {
        usize::from(self.order[k])
    }

    #[inline]
    pub fn moved(&self, leaf: usize) -> bool {
        self.stamps[leaf] == self.stamp
    }

    #[inline]
    pub fn bb(&self, leaf: usize) -> &Aabb {
        &self.nodes[leaf].bb
    }

    #[inline]
    pub fn link_count(&self, leaf: usize) -> usize {
        usize::from(self.links[leaf].len)
    }

    #[inline]
    pub fn link_mut(&mut self, leaf: usize, k: usize) -> &mut Link {
        &mut self.links[leaf].items[k]
    }

    /// Adds the next leaf with the fat box of `bb`.
    pub fn add(&mut self, bb: &Aabb, v: Vec2) -> usize {
        let leaf = self.len();
        self.len += 1;
        self.nodes[leaf].bb = fat(bb, v);
        self.stamps[leaf] = self.stamp;
        // The inner node with index MAX_LEAVES + leaf - 1 is new for every leaf but the first.
        let inner = if leaf == 0 { NONE } else { (MAX_LEAVES + leaf - 1) as u8 };
        self.insert(leaf as u8, inner);
        leaf
    }

    /// Re-inserts the leaf when its fat box no longer holds `bb`.
    #[inline]
    pub fn update(&mut self, leaf: usize, bb: &Aabb, v: Vec2) {
        if self.nodes[leaf].bb.contains(bb) {
            return;
        }
        self.nodes[leaf].bb = fat(bb, v);
        let inner = self.remove(leaf as u8);
        self.insert(leaf as u8, inner);
        let links = self.links[leaf];
        for link in &links.items[..usize::from(links.len)] {
            if link.other >= 4 {
                self.links[usize::from(link.other) - 4].remove(leaf as u8 + 4);
            }
        }
        self.links[leaf].len = 0;
        self.stamps[leaf] = self.stamp;
    }

    fn is_leaf(node: u8) -> bool {
        usize::from(node) < MAX_LEAVES
    }

    fn insert(&mut self, leaf: u8, inner: u8) {
        let bb = self.nodes[usize::from(leaf)].bb;
        if self.root == NONE {
            self.root = leaf;
            self.nodes[usize::from(leaf)].parent = NONE;
        } else {
            let mut at = self.root;
            while !Self::is_leaf(at) {
                let node = &mut self.nodes[usize::from(at)];
                node.bb = node.bb.merge(&bb);
                let [a, b] = node.child;
                at = if self.prefers_b(a, b, &bb) { b } else { a };
            }
            let parent = self.nodes[usize::from(at)].parent;
            let merged = bb.merge(&self.nodes[usize::from(at)].bb);
            self.nodes[usize::from(inner)] = Node { bb: merged, parent, child: [leaf, at] };
            self.nodes[usize::from(leaf)].parent = inner;
            self.nodes[usize::from(at)].parent = inner;
            self.replace(parent, at, inner);
        }
        self.reorder();
    }

    fn prefers_b(&self, a: u8, b: u8, bb: &Aabb) -> bool {
        let (a, b) = (&self.nodes[usize::from(a)].bb, &self.nodes[usize::from(b)].bb);
        let mut cost_a = b.area() + a.merge(bb).area();
        let mut cost_b = a.area() + b.merge(bb).area();
        if cost_a == cost_b {
            cost_a = a.proximity(bb);
            cost_b = b.proximity(bb);
        }
        cost_b < cost_a
    }

    /// Puts `new` in the place of `old` below `parent`.
    fn replace(&mut self, parent: u8, old: u8, new: u8) {
        if parent == NONE {
            self.root = new;
        } else {
            let child = &mut self.nodes[usize::from(parent)].child;
            child[usize::from(child[1] == old)] = new;
        }
    }

    /// Takes the leaf out and returns the inner node that became free.
    fn remove(&mut self, leaf: u8) -> u8 {
        let inner = self.nodes[usize::from(leaf)].parent;
        if inner == NONE {
            self.root = NONE;
            return NONE;
        }
        let Node { parent, child: [a, b], .. } = self.nodes[usize::from(inner)];
        let sibling = if a == leaf { b } else { a };
        self.nodes[usize::from(sibling)].parent = parent;
        self.replace(parent, inner, sibling);
        let mut at = parent;
        while at != NONE {
            let [a, b] = self.nodes[usize::from(at)].child;
            self.nodes[usize::from(at)].bb =
                self.nodes[usize::from(a)].bb.merge(&self.nodes[usize::from(b)].bb);
            at = self.nodes[usize::from(at)].parent;
        }
        inner
    }

    fn reorder(&mut self) {
        let mut order = [0; MAX_LEAVES];
        let mut found = 0;
        self.each_leaf(
            self.root,
            |_| true,
            |leaf| {
                order[found] = leaf as u8;
                found += 1;
            },
        );
        self.order = order;
    }

    /// Visits the leaves below `node` depth-first, A before B, skipping nodes that `enter` refuses.
    fn each_leaf(&self, node: u8, enter: impl Fn(&Aabb) -> bool, mut visit: impl FnMut(usize)) {
        let mut stack = [NONE; MAX_LEAVES + 1];
        stack[0] = node;
        let mut depth = 1;
        while depth > 0 {
            depth -= 1;
            let at = usize::from(stack[depth]);
            if !enter(&self.nodes[at].bb) {
                continue;
            }
            if at < MAX_LEAVES {
                visit(at);
            } else {
                let [a, b] = self.nodes[at].child;
                stack[depth] = b;
                stack[depth + 1] = a;
                depth += 2;
            }
        }
    }

    /// Leaves whose boxes touch that of `leaf`, in visiting order: `(leaf, later side)`; the count is second.
    pub fn neighbours(&self, leaf: usize) -> ([(u8, bool); MAX_LEAVES], usize) {
        let bb = self.nodes[leaf].bb;
        let mut found = [(0, false); MAX_LEAVES];
        let mut count = 0;
        let mut at = leaf as u8;
        let mut parent = self.nodes[leaf].parent;
        while parent != NONE {
            let [a, b] = self.nodes[usize::from(parent)].child;
            let later = at == a;
            self.each_leaf(
                if later { b } else { a },
                |other| bb.touches(other),
                |other| {
                    found[count] = (other as u8, later);
                    count += 1;
                },
            );
            at = parent;
            parent = self.nodes[usize::from(at)].parent;
        }
        (found, count)
    }

    /// Whether `a` was last inserted before `b`.
    pub fn older(&self, a: usize, b: usize) -> bool {
        self.stamps[a] < self.stamps[b]
    }

    /// Records the tree pair (first, second) of shape ids; walls keep no list because nothing walks it.
    pub fn record(&mut self, first: u8, second: u8) {
        if first >= 4 {
            self.links[usize::from(first) - 4].push(Link { other: second, second: false, id: 0 });
        }
        self.links[usize::from(second) - 4].push(Link { other: first, second: true, id: 0 });
    }
}
