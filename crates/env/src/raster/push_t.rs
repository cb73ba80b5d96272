//! The Push-T renderer.

use worldbench_core::Frame;

use super::canvas::{Pixel, Point, pack};
use super::resize::Filter;
use super::screen::Screen;
use super::{RasterError, Render};
use crate::geometry::{self, Geometry, Vec2};
use crate::push_t::Factors;
use crate::render_state::RenderState;

/// Side of the canvas in pixels; one pixel is one unit of the simulated world.
pub const CANVAS_SIZE: usize = 512;

type Canvas = super::canvas::Canvas<CANVAS_SIZE>;

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
    /// In drawing order.
    parts: Vec<Part>,
    agent: Paint,
    block: Paint,
    block_cog: Vec2,
    /// Over background, goal overlay and walls.
    screen: Screen<CANVAS_SIZE>,
}

impl Render for Renderer {
    type Factors = Factors;
    type State = RenderState;

    fn new(factors: &Factors, resolution: usize, filter: Filter) -> Result<Self, RasterError> {
        let block = Geometry::new(factors.block_shape, factors.block_scale);
        Ok(Self {
            parts: drawing_order(factors, &block),
            agent: Paint::new(factors.agent_color),
            block: Paint::new(factors.block_color),
            block_cog: block.cog,
            screen: Screen::new(static_scene(factors, &block), resolution, filter)?,
        })
    }

    fn resolution(&self) -> usize {
        self.screen.resolution()
    }

    fn view(&mut self, state: &RenderState) -> &[u8] {
        self.draw(state);
        self.screen.develop()
    }
}

impl Renderer {
    /// Draws `state` as a new frame of the full 512 x 512 canvas.
    pub fn canvas(&mut self, state: &RenderState) -> Frame {
        self.draw(state);
        self.screen.canvas_frame()
    }

    /// Brings the canvas from whatever it shows to `state`.
    fn draw(&mut self, state: &RenderState) {
        let (canvas, base) = self.screen.begin();
        let (sin, cos) = state.agent_angle.sin_cos();
        let agent = (cos, sin, state.agent[0], state.agent[1]);
        let block = geometry::transform(self.block_cog, state.block_cog, state.block_angle);
        for part in &self.parts {
            let (pose, paint) = if part.is_agent { (agent, self.agent) } else { (block, self.block) };
            match part.outline {
                Outline::Rectangle(vertices) => {
                    let vertices = vertices.map(|v| Point::round(geometry::apply(pose, v)));
                    outlined_polygon(canvas, vertices, paint);
                }
                Outline::Disc(radius) => rimmed_disc(canvas, state.agent, radius, paint),
            }
        }
        restore_walls(canvas, base);
        for &[x1, y1, x2, y2] in state.marks.as_slice() {
            let point = |x: i16, y: i16| Point { x: x.into(), y: y.into() };
            canvas.antialiased_line(point(x1, y1), point(x2, y2), MARK_COLOUR);
        }
    }
}

/// Walls lie on top of the bodies: copies their pixels back where something was drawn.
fn restore_walls(canvas: &mut Canvas, base: &Canvas) {
    for y in 0..CANVAS_SIZE {
        let dirty = canvas.dirty()[y].range();
        let middle = if INSIDE.contains(&y) { INSIDE } else { CANVAS_SIZE..CANVAS_SIZE };
        if dirty.is_empty() || (middle.start <= dirty.start && dirty.end <= middle.end) {
            continue;
        }
        let before = dirty.start..dirty.end.min(middle.start);
        let after = dirty.start.max(middle.end)..dirty.end;
        for x in before.chain(after) {
            let pixel = base.row(y)[x];
            if pixel & WALL_FLAG != 0 {
                canvas.row_mut(y)[x] = pixel;
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
