//! What frames of the field show, and how they are drawn.

use serde::{Deserialize, Serialize};
use worldbench_env::Look;
use worldbench_env::domain::Appearance;
use worldbench_env::raster::{Filter, RasterError, Render};
use worldbench_env::variation::{Factor, Kind, Variation};

/// What a scene is made of: the dot's colour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Factors {
    color: [u8; 3],
}

#[rustfmt::skip]
const COLOR: Factor = Factor { name: "dot.color", kind: Kind::Color, len: 3, low: 0.0, high: 255.0, sampled_by_default: false, what: "RGB" };

impl Variation for Factors {
    const FACTORS: &'static [Factor] = &[COLOR];
    fn get(&self, _: usize) -> Vec<f64> {
        self.color.map(f64::from).to_vec()
    }
    fn assign(&mut self, _: usize, values: [f64; 3]) {
        self.color = values.map(|v| v as u8);
    }
}

/// What a frame shows: where the dot is. Frames must be a function of this and of the factors.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot(pub [f64; 2]);

impl Appearance for Dot {
    fn look(&self) -> Look {
        Look { values: self.0.to_vec(), ..Look::default() }
    }
    fn of_look(look: &Look) -> Self {
        Self(std::array::from_fn(|k| look.values.get(k).copied().unwrap_or_default()))
    }
}

/// Paints a square of 4 x 4 px of the 64 x 64 canvas.
#[derive(Clone)]
pub struct Painter(Factors, usize, Vec<u8>);

impl Render for Painter {
    type Factors = Factors;
    type State = Dot;
    fn new(factors: &Factors, side: usize, _: Filter) -> Result<Self, RasterError> {
        Ok(Self(factors.clone(), side, vec![255; side * side * 3]))
    }
    fn resolution(&self) -> usize {
        self.1
    }
    fn view(&mut self, Dot(at): &Dot) -> &[u8] {
        let (side, scale) = (self.1, 64.0 / self.1 as f64);
        for (i, pixel) in self.2.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let near = |k: usize, p: usize| (p as f64 * scale - at[k]).abs() <= 2.0;
            *pixel = if near(0, i % side) && near(1, i / side) { self.0.color } else { [255; 3] };
        }
        &self.2
    }
}
