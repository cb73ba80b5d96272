//! The square canvas of an environment, its filled primitives and the record of what they touched.
//!
//! All primitives use integer coordinates, x to the right and y down, and are clipped to the canvas. Their exact pixel
//! sets (rounding, closing vertices, off-centre discs) are part of the observation, so they are spelled out here
//! instead of being taken from a drawing library.

/// Most vertices a filled polygon may have; every shape of the environments is made of quadrilaterals.
const MAX_VERTICES: usize = 8;

/// A pixel, `r | g << 8 | b << 16`; the highest byte is free for flags of the canvas owner.
pub(super) type Pixel = u32;

/// The low three bytes of a pixel.
pub(super) const RGB_MASK: Pixel = 0x00ff_ffff;

/// Packs 8-bit red, green and blue.
pub(super) fn pack([r, g, b]: [u8; 3]) -> Pixel {
    u32::from(r) | u32::from(g) << 8 | u32::from(b) << 16
}

/// Red, green and blue of a pixel.
pub(super) fn unpack(pixel: Pixel) -> [u8; 3] {
    let [r, g, b, _] = pixel.to_le_bytes();
    [r, g, b]
}

/// A point on the pixel grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub x: i32,
    pub y: i32,
}

impl Point {
    /// Rounds world coordinates to the grid, halves to even.
    pub fn round([x, y]: [f64; 2]) -> Self {
        // Bodies may leave the arena without limit; beyond this bound nothing can reach the canvas and the integer
        // arithmetic of the primitives must not overflow.
        const BOUND: f64 = 10_000.0;
        let round = |v: f64| v.round_ties_even().clamp(-BOUND, BOUND) as i32;
        Self { x: round(x), y: round(y) }
    }
}

/// A half-open range of columns; empty when `start >= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub start: u16,
    pub end: u16,
}

impl Columns {
    pub const EMPTY: Self = Self { start: u16::MAX, end: 0 };

    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    pub fn union(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    pub fn range(self) -> std::ops::Range<usize> {
        usize::from(self.start)..usize::from(self.end).max(usize::from(self.start))
    }
}

/// A polygon edge that is not horizontal, walked row by row in whole numbers.
#[derive(Clone, Copy, Default)]
struct Edge {
    /// Rows `start..end` cross the edge; the last row of the polygon belongs to the edges that end there.
    start: i32,
    end: i32,
    /// The column at the next row is `floor + rest / height`.
    floor: i32,
    rest: i32,
    height: i32,
    /// Change of `floor` and `rest` for one row.
    step: (i32, i32),
}

impl Edge {
    /// The edge between `p` and `q`, placed at its first row not before `first_row`.
    fn new(p: Point, q: Point, first_row: i32, last_row: i32) -> Self {
        let (p, q) = if p.y < q.y { (p, q) } else { (q, p) };
        let (height, dx) = (q.y - p.y, q.x - p.x);
        let start = p.y.max(first_row);
        let rise = (start - p.y) * dx;
        Self {
            start,
            end: q.y + i32::from(q.y == last_row),
            floor: p.x + rise.div_euclid(height),
            rest: rise.rem_euclid(height),
            height,
            step: (dx.div_euclid(height), dx.rem_euclid(height)),
        }
    }

    /// The column at the present row, truncated toward zero; goes on to the next row.
    #[inline]
    fn advance(&mut self) -> i32 {
        let column = self.floor + i32::from(self.floor < 0 && self.rest > 0);
        let rest = self.rest + self.step.1;
        let carry = rest >= self.height;
        self.floor += self.step.0 + i32::from(carry);
        self.rest = rest - if carry { self.height } else { 0 };
        column
    }
}

/// A canvas of `N` x `N` pixels (one pixel is one unit of the simulated world) and, for each row, the columns written
/// since the last [`Canvas::restore`].
#[derive(Clone, Debug)]
pub(super) struct Canvas<const N: usize> {
    pixels: Vec<Pixel>,
    dirty: Vec<Columns>,
}

impl<const N: usize> Canvas<N> {
    /// The last row and column.
    pub const LAST: i32 = N as i32 - 1;

    /// A canvas filled with one colour, nothing dirty.
    pub fn new(colour: Pixel) -> Self {
        Self { pixels: vec![colour; N * N], dirty: vec![Columns::EMPTY; N] }
    }

    /// All pixels, row-major.
    pub fn pixels(&self) -> &[Pixel] {
        &self.pixels
    }

    /// One row of pixels.
    pub fn row(&self, y: usize) -> &[Pixel] {
        &self.pixels[y * N..][..N]
    }

    /// One row of pixels for writing; does not mark anything dirty.
    pub fn row_mut(&mut self, y: usize) -> &mut [Pixel] {
        &mut self.pixels[y * N..][..N]
    }

    /// The written columns of each row.
    pub fn dirty(&self) -> &[Columns] {
        &self.dirty
    }

    /// Copies the dirty pixels back from `base` and forgets them.
    pub fn restore(&mut self, base: &Self) {
        for y in 0..N {
            let columns = std::mem::replace(&mut self.dirty[y], Columns::EMPTY);
            if !columns.is_empty() {
                let range = columns.range();
                self.row_mut(y)[range.clone()].copy_from_slice(&base.row(y)[range]);
            }
        }
    }

    /// Forgets what was written, which makes the present content the clean state.
    pub fn mark_clean(&mut self) {
        self.dirty.fill(Columns::EMPTY);
    }

    /// Fills columns `x0..=x1` of row `y`.
    #[inline]
    pub fn span(&mut self, y: i32, x0: i32, x1: i32, colour: Pixel) {
        let (x0, x1) = (x0.max(0), x1.min(Self::LAST));
        if !(0..=Self::LAST).contains(&y) || x0 > x1 {
            return;
        }
        let (y, x0, x1) = (y as usize, x0 as usize, x1 as usize);
        self.touch(y, x0, x1);
        self.pixels[y * N + x0..=y * N + x1].fill(colour);
    }

    /// Fills the four columns `x..x + 4` of row `y`.
    #[inline]
    pub fn span4(&mut self, y: i32, x: i32, colour: Pixel) {
        if !(0..=Self::LAST).contains(&y) || !(0..=Self::LAST - 3).contains(&x) {
            return self.span(y, x, x + 3, colour);
        }
        let (y, x) = (y as usize, x as usize);
        self.touch(y, x, x + 3);
        self.pixels[y * N + x..][..4].copy_from_slice(&[colour; 4]);
    }

    /// Marks columns `x0..=x1` of row `y` as written.
    #[inline]
    pub fn touch(&mut self, y: usize, x0: usize, x1: usize) {
        self.dirty[y] = self.dirty[y].union(Columns { start: x0 as u16, end: x1 as u16 + 1 });
    }

    /// Mixes `colour` into one pixel with weight `weight` in [0, 1], in f32 and truncating each channel.
    pub fn blend(&mut self, x: i32, y: i32, colour: [u8; 3], weight: f32) {
        if !(0..=Self::LAST).contains(&x) || !(0..=Self::LAST).contains(&y) {
            return;
        }
        let old = unpack(self.pixels[y as usize * N + x as usize]);
        let mix = |new: u8, old: u8| (weight * f32::from(new) + (1.0 - weight) * f32::from(old)) as u8;
        self.span(y, x, x, pack(std::array::from_fn(|i| mix(colour[i], old[i]))));
    }

    /// Fills a polygon of at most eight vertices by the even-odd rule, border rows and columns included.
    pub fn polygon(&mut self, vertices: &[Point], colour: Pixel) {
        debug_assert!(vertices.len() <= MAX_VERTICES);
        let (min, max) = vertices.iter().fold((i32::MAX, i32::MIN), |(lo, hi), v| (lo.min(v.y), hi.max(v.y)));
        if min == max {
            let (x0, x1) =
                vertices.iter().fold((i32::MAX, i32::MIN), |(lo, hi), v| (lo.min(v.x), hi.max(v.x)));
            return self.span(min, x0, x1, colour);
        }
        let rows = (min.max(0), max.min(Self::LAST));
        let mut edges = [Edge::default(); MAX_VERTICES];
        let mut count = 0;
        for (&p, q) in vertices.iter().zip(vertices.iter().cycle().skip(1)) {
            if p.y != q.y {
                edges[count] = Edge::new(p, *q, rows.0, max);
                count += 1;
            }
        }
        let edges = &mut edges[..count];
        for y in rows.0..=rows.1 {
            let mut crossings = [0; MAX_VERTICES];
            let mut count = 0;
            for edge in edges.iter_mut().filter(|edge| edge.start <= y && y < edge.end) {
                crossings[count] = edge.advance();
                count += 1;
            }
            if count == 2 {
                let [a, b, ..] = crossings;
                self.span(y, a.min(b), a.max(b), colour);
                continue;
            }
            crossings[..count].sort_unstable();
            for pair in crossings[..count].chunks_exact(2) {
                self.span(y, pair[0], pair[1], colour);
            }
        }
        // The scan above leaves gaps on inner horizontal edges, where no crossing is counted on the upper side.
        for (p, q) in vertices.iter().zip(vertices.iter().cycle().skip(1)) {
            if p.y == q.y && min < p.y && p.y < max {
                self.span(p.y, p.x.min(q.x), p.x.max(q.x), colour);
            }
        }
    }

    /// Fills a disc that is `2 * radius` pixels wide: columns `x - radius .. x + radius`, so not centred on `centre`.
    pub fn disc(&mut self, centre: Point, radius: i32, colour: Pixel) {
        let (x0, y0) = (centre.x, centre.y);
        let (mut f, mut ddx, mut ddy) = (1 - radius, 0, -2 * radius);
        let (mut x, mut y) = (0, radius);
        while x < y {
            if f >= 0 {
                y -= 1;
                ddy += 2;
                f += ddy;
            }
            x += 1;
            ddx += 2;
            f += ddx + 1;
            if f >= 0 {
                self.span(y0 + y - 1, x0 - x, x0 + x - 1, colour);
                self.span(y0 - y, x0 - x, x0 + x - 1, colour);
            }
            self.span(y0 + x - 1, x0 - y, x0 + y - 1, colour);
            self.span(y0 - x, x0 - y, x0 + y - 1, colour);
        }
    }
}
