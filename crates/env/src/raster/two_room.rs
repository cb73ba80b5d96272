//! The Two-Room renderer: wall, doors and border are the static scene, the dots are drawn for each frame.

use worldbench_core::Frame;

use super::canvas::{Pixel, pack};
use super::resize::Filter;
use super::screen::Screen;
use super::{RasterError, Render};
use crate::two_room::{Axis, CENTRE, Factors, RenderState, SIZE};

type Canvas = super::canvas::Canvas<SIZE>;

/// First and last row (and column) of the four border lines.
const BORDER: [[i32; 2]; 2] = [[10, 13], [210, 213]];
const LAST: i32 = SIZE as i32 - 1;

/// Draws Two-Room observations of one scene as the reference environment does, at 224 x 224 pixel for pixel.
///
/// A renderer owns its canvas: use one (or a clone) for each thread. Rendering allocates nothing.
#[derive(Clone, Debug)]
pub struct TwoRoomRenderer {
    factors: Factors,
    /// Over background, doors, wall and border.
    screen: Screen<SIZE>,
}

impl Render for TwoRoomRenderer {
    type Factors = Factors;
    type State = RenderState;

    fn new(factors: &Factors, resolution: usize, filter: Filter) -> Result<Self, RasterError> {
        let screen = Screen::new(static_scene(factors), resolution, filter)?;
        Ok(Self { factors: *factors, screen })
    }

    fn resolution(&self) -> usize {
        self.screen.resolution()
    }

    fn view(&mut self, state: &RenderState) -> &[u8] {
        self.draw(state);
        self.screen.develop()
    }
}

impl TwoRoomRenderer {
    /// Draws `state` as a new frame of the full 224 x 224 canvas.
    pub fn canvas(&mut self, state: &RenderState) -> Frame {
        self.draw(state);
        self.screen.canvas_frame()
    }

    fn draw(&mut self, state: &RenderState) {
        let f = &self.factors;
        let (canvas, _) = self.screen.begin();
        if f.render_target {
            canvas.dot(state.target, f.target_radius, f.target_color);
        }
        canvas.dot(state.agent, f.agent_radius, f.agent_color);
    }
}

/// Background, doors, wall and border lines, each over the one before. The border takes the wall's colour, as in the
/// reference; the factor `wall.border_color` shows nowhere.
fn static_scene(factors: &Factors) -> Canvas {
    let mut canvas = Canvas::new(pack(factors.background_color));
    let half = factors.half_thickness();
    let band = [CENTRE - half, CENTRE + half];
    let mut paint = |along: [i32; 2], across: [i32; 2], colour: Pixel| {
        let (rows, columns) = match factors.wall_axis {
            Axis::Vertical => (along, across),
            Axis::Horizontal => (across, along),
        };
        fill(&mut canvas, rows, columns, colour);
    };
    let (wall, door) = (pack(factors.wall_color), pack(factors.door_color));
    paint([0, LAST], band, wall);
    for (centre, extent) in factors.doors() {
        paint([centre - extent, centre + extent], band, door);
    }
    for line in BORDER {
        fill(&mut canvas, line, [0, LAST], wall);
        fill(&mut canvas, [0, LAST], line, wall);
    }
    canvas
}

fn fill(canvas: &mut Canvas, rows: [i32; 2], columns: [i32; 2], colour: Pixel) {
    for y in rows[0]..=rows[1] {
        canvas.span(y, columns[0], columns[1], colour);
    }
}
