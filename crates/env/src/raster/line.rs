//! Thick and anti-aliased lines on the canvas.

use super::canvas::{Canvas, Pixel, Point};

/// Pixels a thick line covers before and after the ideal coordinate; together four.
const BAND: (i32, i32) = (1, 2);

/// Half the width of an outline.
const HALF_WIDTH: i32 = 2;

impl<const N: usize> Canvas<N> {
    /// One edge of an outline: a four-pixel line, a band polygon and a round end at `q`. The round end at `p` is left to
    /// the edge that ends there.
    pub fn thick_edge(&mut self, p: Point, q: Point, colour: Pixel) {
        self.thick_line(p, q, colour);
        // The offset takes absolute values, so for edges falling to the right the "band" is only a sliver along the
        // line. That is how the observations were made.
        let (ox, oy) = (f64::from((q.y - p.y).abs()), f64::from((q.x - p.x).abs()));
        if p == q {
            return;
        }
        let k = f64::from(HALF_WIDTH) / (ox * ox + oy * oy).sqrt();
        let o = Point::round([ox * k, oy * k]);
        let corner = |c: Point, sign: i32| Point { x: c.x + sign * o.x, y: c.y + sign * o.y };
        self.polygon(&[corner(p, -1), corner(p, 1), corner(q, 1), corner(q, -1)], colour);
        self.round_end(q, colour);
    }

    /// The round end of an outline at `p`.
    pub fn round_end(&mut self, p: Point, colour: Pixel) {
        self.disc(p, HALF_WIDTH, colour);
    }

    /// A Bresenham line whose every pixel is widened to four, along rows for steep lines and along columns otherwise.
    fn thick_line(&mut self, p: Point, q: Point, colour: Pixel) {
        let (dx, dy) = ((q.x - p.x).abs(), (q.y - p.y).abs());
        let (sx, sy) = (if p.x < q.x { 1 } else { -1 }, if p.y < q.y { 1 } else { -1 });
        let steep = dx <= dy;
        // The error term stays that of the whole line even when the start is moved to the border.
        let mut err = (if dx > dy { dx } else { -dy }) / 2;
        let Some(mut at) = clipped_start(p, q, N) else { return };
        let mut run = at;
        loop {
            let current = at;
            let e = err;
            if e > -dx {
                err -= dy;
                at.x += sx;
            }
            if e < dy {
                err += dx;
                at.y += sy;
            }
            let arrived = if steep { current.y == q.y } else { current.x == q.x };
            let done = arrived || leaves(at, (sx, sy), Self::LAST);
            if steep {
                self.span4(current.y, current.x - BAND.0, colour);
            } else if done || at.y != current.y {
                // Columns of one ideal row are painted together, as four rows.
                let (x0, x1) = (run.x.min(current.x), run.x.max(current.x));
                for y in current.y - BAND.0..=current.y + BAND.1 {
                    self.span(y, x0, x1, colour);
                }
                run = at;
            }
            if done {
                return;
            }
        }
    }

    /// An anti-aliased line of one pixel width between grid points, blended onto what is there.
    pub fn antialiased_line(&mut self, p: Point, q: Point, colour: [u8; 3]) {
        if p == q {
            return self.blend(p.x, p.y, colour, 1.0);
        }
        let steep = (q.x - p.x).abs() < (q.y - p.y).abs();
        let swap = |p: Point| if steep { Point { x: p.y, y: p.x } } else { p };
        let (mut p, mut q) = (swap(p), swap(q));
        if p.x > q.x {
            std::mem::swap(&mut p, &mut q);
        }
        let mut put = |x: i32, y: i32, weight: f32| {
            let at = swap(Point { x, y });
            self.blend(at.x, at.y, colour, weight);
        };
        put(p.x, p.y, 1.0);
        put(q.x, q.y, 1.0);
        let gradient = (q.y - p.y) as f32 / (q.x - p.x) as f32;
        // One row is added while accumulating: the f32 sum rounds differently without it.
        let mut y = (p.y + 1) as f32;
        for x in p.x + 1..q.x {
            y += gradient;
            let row = y.floor();
            let fraction = y - row;
            put(x, row as i32 - 1, 1.0 - fraction);
            if fraction > 0.0 {
                put(x, row as i32, fraction);
            }
        }
    }
}

/// Whether a point that moves in direction `step` can no longer reach the canvas with its band.
fn leaves(at: Point, step: (i32, i32), last: i32) -> bool {
    let gone = |v: i32, step: i32| if step > 0 { v - BAND.0 > last } else { v + BAND.1 < 0 };
    gone(at.x, step.0) || gone(at.y, step.1)
}

/// The first point of the segment with both coordinates in `0..=size` (the far border is one too large), moved
/// by a displacement rounded half away from zero.
fn clipped_start(p: Point, q: Point, size: usize) -> Option<Point> {
    let (dx, dy) = (f64::from(q.x - p.x), f64::from(q.y - p.y));
    let (mut enter, mut exit) = (0.0_f64, 1.0_f64);
    for (start, delta) in [(p.x, dx), (p.y, dy)] {
        let (low, high) = (f64::from(-start), f64::from(size as i32 - start));
        if delta == 0.0 {
            if low > 0.0 || high < 0.0 {
                return None;
            }
            continue;
        }
        let (near, far) = if delta > 0.0 { (low / delta, high / delta) } else { (high / delta, low / delta) };
        enter = enter.max(near);
        exit = exit.min(far);
    }
    let at = |start: i32, delta: f64| start + (enter * delta).round() as i32;
    (enter <= exit).then(|| Point { x: at(p.x, dx), y: at(p.y, dy) })
}
