//! The Push-T renderer.

use worldbench_core::Frame;

use super::canvas::{CANVAS_SIZE, Canvas, Columns, Pixel, Point, pack, unpack};
use super::resize::{Filter, Resampler};
use super::{RESOLUTIONS, RasterError};
use crate::geometry::{self, Geometry, Vec2};
use crate::render_state::RenderState;
use crate::variation::Factors;

const WALL_COLOUR: [u8; 3] = [211; 3];
const MARK_COLOUR: [u8; 3] = [231, 76, 60];

/// End points of the wall segments, on the canvas.
const WALLS: [[(i32, i32); 2]; 4] =
    [[(5, 506), (5, 5)], [(5, 5), (506, 5)], [(506, 5), (506, 506)], [(5, 506), (506, 506)]];

/// Set in the pixels of the static scene that belong to a wall.
const WALL_FLAG: Pixel = 1 << 31;

/// Columns (and rows) before and after which a wall may lie.
const INSIDE: std::ops::Range<usize> = 10..500;

/// Width of the rim of a disc.
const RIM: f64 = 4.0;

/// Outline and fill colour of a body.
#[derive(Clone, Copy, Debug)]
struct Paint {
    line: Pixel,
    fill: Pixel,
}

impl Paint {
    fn new(colour: [u8; 3]) -> Self {
        let light = |c: u8| (1.2 * f32::from(c)).min(255.0).round_ties_even() as u8;
        Self { line: pack(colour), fill: pack(colour.map(light)) }
    }
}

#[derive(Clone, Copy, Debug)]
enum Outline {
    Rectangle([Vec2; 4]),
    Disc(f64),
}

/// One shape of the scene, in the frame of its body.
#[derive(Clone, Copy, Debug)]
struct Part {
    is_agent: bool,
    outline: Outline,
}

/// Draws Push-T observations of one scene, byte for byte as the reference environment does.
///
/// A renderer owns its canvas: use one (or a clone) for each thread. Rendering allocates nothing.
#[derive(Clone, Debug)]
pub struct Renderer {
    resolution: usize,
    /// In drawing order.
    parts: Vec<Part>,
    agent: Paint,
    block: Paint,
    block_cog: Vec2,
    /// Background, goal overlay and walls.
    base: Canvas,
    canvas: Canvas,
    resampler: Resampler,
    base_frame: Vec<u8>,
    frame: Vec<u8>,
    /// Columns in which `frame` differs from `base_frame`, for each row.
    written: Vec<Columns>,
}

impl Renderer {
    /// A renderer of the scene `factors` with square frames of `resolution` pixels.
    ///
    /// # Errors
    /// [`RasterError::Resolution`] unless the resolution lies in 16 to 512.
    pub fn new(factors: &Factors, resolution: usize, filter: Filter) -> Result<Self, RasterError> {
        if !RESOLUTIONS.contains(&resolution) {
            return Err(RasterError::Resolution(resolution));
        }
        let block = Geometry::new(factors.block_shape, factors.block_scale);
        let base = static_scene(factors, &block);
        let mut resampler = Resampler::new(resolution, filter);
        let mut base_frame = vec![0; resolution * resolution * 3];
        let mut written = vec![Columns::EMPTY; resolution];
        let everything = [Columns { start: 0, end: CANVAS_SIZE as u16 }; CANVAS_SIZE];
        resampler.run(&base, &everything, &mut base_frame, &mut written);
        written.fill(Columns::EMPTY);
        Ok(Self {
            resolution,
            parts: drawing_order(factors, &block),
            agent: Paint::new(factors.agent_color),
            block: Paint::new(factors.block_color),
            block_cog: block.cog,
            canvas: base.clone(),
            base,
            resampler,
            frame: base_frame.clone(),
            base_frame,
            written,
        })
    }

    /// Side of the frames in pixels.
    #[must_use]
    pub fn resolution(&self) -> usize {
        self.resolution
    }

    /// Draws `state` into `out`, RGB bytes `[resolution, resolution, 3]`.
    ///
    /// # Errors
    /// [`RasterError::Buffer`] if `out` has another length.
    pub fn render(&mut self, state: &RenderState, out: &mut [u8]) -> Result<(), RasterError> {
        if out.len() != self.frame.len() {
            return Err(RasterError::Buffer { len: out.len(), resolution: self.resolution });
        }
        out.copy_from_slice(self.view(state));
        Ok(())
    }

    /// Draws `state` and lends the frame, RGB bytes `[resolution, resolution, 3]`.
    pub fn view(&mut self, state: &RenderState) -> &[u8] {
        self.draw(state);
        let width = self.resolution * 3;
        let rows = self.frame.chunks_exact_mut(width).zip(self.base_frame.chunks_exact(width));
        for ((frame, base), written) in rows.zip(&self.written) {
            if !written.is_empty() {
                let bytes = usize::from(written.start) * 3..usize::from(written.end) * 3;
                frame[bytes.clone()].copy_from_slice(&base[bytes]);
            }
        }
        self.resampler.run(&self.canvas, self.canvas.dirty(), &mut self.frame, &mut self.written);
        &self.frame
    }

    /// Draws `state` as a new frame of `resolution` x `resolution`.
    pub fn frame(&mut self, state: &RenderState) -> Frame {
        let data = self.view(state).to_vec();
        Frame { width: self.resolution, height: self.resolution, data }
    }

    /// Draws `state` as a new frame of the full 512 x 512 canvas.
    pub fn canvas(&mut self, state: &RenderState) -> Frame {
        self.draw(state);
        let data = self.canvas.pixels().iter().flat_map(|&pixel| unpack(pixel)).collect();
        Frame { width: CANVAS_SIZE, height: CANVAS_SIZE, data }
    }

    /// Brings the canvas from whatever it shows to `state`.
    fn draw(&mut self, state: &RenderState) {
        self.canvas.restore(&self.base);
        let (sin, cos) = state.agent_angle.sin_cos();
        let agent = (cos, sin, state.agent[0], state.agent[1]);
        let block = geometry::transform(self.block_cog, state.block_cog, state.block_angle);
        for part in &self.parts {
            let (pose, paint) = if part.is_agent { (agent, self.agent) } else { (block, self.block) };
            match part.outline {
                Outline::Rectangle(vertices) => {
                    let vertices = vertices.map(|v| Point::round(geometry::apply(pose, v)));
                    outlined_polygon(&mut self.canvas, vertices, paint);
                }
                Outline::Disc(radius) => rimmed_disc(&mut self.canvas, state.agent, radius, paint),
            }
        }
        self.restore_walls();
        for &[x1, y1, x2, y2] in state.marks.as_slice() {
            let point = |x: i16, y: i16| Point { x: x.into(), y: y.into() };
            self.canvas.antialiased_line(point(x1, y1), point(x2, y2), MARK_COLOUR);
        }
    }

    /// Walls lie on top of the bodies: copies their pixels back where something was drawn.
    fn restore_walls(&mut self) {
        for y in 0..CANVAS_SIZE {
            let dirty = self.canvas.dirty()[y].range();
            let middle = if INSIDE.contains(&y) { INSIDE } else { CANVAS_SIZE..CANVAS_SIZE };
            if dirty.is_empty() || (middle.start <= dirty.start && dirty.end <= middle.end) {
                continue;
            }
            let before = dirty.start..dirty.end.min(middle.start);
            let after = dirty.start.max(middle.end)..dirty.end;
            for x in before.chain(after) {
                let pixel = self.base.row(y)[x];
                if pixel & WALL_FLAG != 0 {
                    self.canvas.row_mut(y)[x] = pixel;
                }
            }
        }
    }
}

/// The shapes in the order in which the reference's broad phase lists them: by shape id (agent first), but with at most
/// four dynamic shapes the first one comes last.
fn drawing_order(factors: &Factors, block: &Geometry) -> Vec<Part> {
    let agent = Geometry::new(factors.agent_shape, factors.agent_scale);
    let rectangles = |body: &Geometry, is_agent| {
        let part = move |&vertices| Part { is_agent, outline: Outline::Rectangle(vertices) };
        body.parts().iter().map(part).collect::<Vec<_>>()
    };
    let mut parts = rectangles(&agent, true);
    if agent.parts().is_empty() {
        parts.push(Part { is_agent: true, outline: Outline::Disc(agent.radius) });
    }
    parts.extend(rectangles(block, false));
    if parts.len() <= 4 {
        parts.rotate_left(1);
    }
    parts
}

/// Background, goal overlay and walls, with the wall pixels flagged.
fn static_scene(factors: &Factors, block: &Geometry) -> Canvas {
    let mut canvas = Canvas::new(pack(factors.background_color));
    if factors.render_goal {
        let (sin, cos) = factors.goal_angle.sin_cos();
        let pose = (cos, sin, factors.goal_position[0], factors.goal_position[1]);
        for part in block.parts() {
            let vertices = part.map(|v| Point::round(geometry::apply(pose, v)));
            canvas.polygon(&vertices, pack(factors.goal_color));
        }
    }
    for wall in WALLS {
        let [p, q] = wall.map(|(x, y)| Point { x, y });
        let colour = pack(WALL_COLOUR) | WALL_FLAG;
        canvas.thick_edge(p, q, colour);
        canvas.round_end(p, colour);
    }
    canvas.mark_clean();
    canvas
}

fn outlined_polygon(canvas: &mut Canvas, vertices: [Point; 4], paint: Paint) {
    canvas.polygon(&vertices, paint.fill);
    for i in 0..4 {
        canvas.thick_edge(vertices[i], vertices[(i + 1) % 4], paint.line);
    }
}

fn rimmed_disc(canvas: &mut Canvas, centre: Vec2, radius: f64, paint: Paint) {
    // Larger discs than the canvas only arise from factors far out of range; the bound keeps the integers small.
    let whole = |r: f64| r.round_ties_even().min(2.0 * CANVAS_SIZE as f64) as i32;
    let centre = Point::round(centre);
    canvas.disc(centre, whole(radius), paint.line);
    canvas.disc(centre, whole(radius - RIM), paint.fill);
}
