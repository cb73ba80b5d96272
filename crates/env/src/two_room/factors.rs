//! The variation space of Two-Room.

use super::CENTRE;
use crate::variation::{Factor, Kind, Variation, factor};

/// Most doors in the wall.
pub const MAX_DOORS: usize = 3;

/// Which way the central wall runs, numbered as in the variation space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// From left to right; the rooms lie one above the other.
    Horizontal = 0,
    /// From top to bottom; the rooms lie side by side.
    #[default]
    Vertical = 1,
}

impl Axis {
    /// Index of the coordinate across the wall: 0 for x, 1 for y.
    #[must_use]
    pub fn across(self) -> usize {
        1 - self as usize
    }
}

/// Values of all factors of variation; [`Default`] is the reference's default scene.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Factors {
    /// Agent colour, RGB.
    pub agent_color: [u8; 3],
    /// Agent start position in pixels, 14 to 209.
    pub agent_position: [f32; 2],
    /// Agent radius in pixels, 7 to 14.
    pub agent_radius: f64,
    /// Pixels per unit of action, 1.75 to 10.5.
    pub agent_speed: f64,
    /// Background colour, RGB.
    pub background_color: [u8; 3],
    /// Door colour, RGB.
    pub door_color: [u8; 3],
    /// Number of doors, 1 to 3.
    pub door_number: u8,
    /// Centres of the doors along the wall in pixels, 0 to 223; the first `door_number` count.
    pub door_position: [u8; MAX_DOORS],
    /// Half the widths of the doors in pixels, 1 to 21.
    pub door_size: [u8; MAX_DOORS],
    /// Whether the target dot is drawn.
    pub render_target: bool,
    /// Target colour, RGB.
    pub target_color: [u8; 3],
    /// Target position in pixels, 14 to 209.
    pub target_position: [f32; 2],
    /// Target radius in pixels, 7 to 14; it matters only for drawing.
    pub target_radius: f64,
    /// Unused by the reference, kept for its seeding.
    pub min_steps: u8,
    /// Direction of the wall.
    pub wall_axis: Axis,
    /// Unused by the reference, kept for its seeding: the border takes the wall's colour.
    pub wall_border_color: [u8; 3],
    /// Colour of wall and border, RGB.
    pub wall_color: [u8; 3],
    /// Wall thickness in pixels, 7 to 41; an odd value acts like the even one below it.
    pub wall_thickness: u8,
}

impl Default for Factors {
    fn default() -> Self {
        Self {
            agent_color: [255, 0, 0],
            agent_position: [60.0, 112.0],
            agent_radius: 7.0,
            agent_speed: 5.0,
            background_color: [255; 3],
            door_color: [255; 3],
            door_number: 1,
            door_position: [49; MAX_DOORS],
            door_size: [14; MAX_DOORS],
            render_target: false,
            target_color: [0, 255, 0],
            target_position: [164.0, 112.0],
            target_radius: 7.0,
            min_steps: 25,
            wall_axis: Axis::Vertical,
            wall_border_color: [0; 3],
            wall_color: [0; 3],
            wall_thickness: 10,
        }
    }
}

const BYTE: [f64; 2] = [0.0, 255.0];
const RADIUS: [f64; 2] = [7.0, 14.0];
const PLACE: [f64; 2] = [14.0, 209.0];
const ALONG: [f64; 2] = [0.0, 223.0];

/// All factors.
pub const FACTORS: [Factor; 18] = [
    factor("agent.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("agent.position", Kind::Float32, 2, PLACE, true, "start, pixels; not in the wall"),
    factor("agent.radius", Kind::Float32, 1, RADIUS, false, "pixels"),
    factor("agent.speed", Kind::Float32, 1, [1.75, 10.5], false, "pixels per unit of action"),
    factor("background.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("door.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("door.number", Kind::Index, 1, [1.0, 3.0], false, "doors in the wall"),
    factor("door.position", Kind::Integers, 3, ALONG, false, "centres along the wall, pixels"),
    factor("door.size", Kind::Integers, 3, [1.0, 21.0], false, "half widths, pixels; one must fit the agent"),
    factor("rendering.render_target", Kind::Index, 1, [0.0, 1.0], false, "1 shows the target dot"),
    factor("target.color", Kind::Color, 3, BYTE, false, "RGB"),
    factor("target.position", Kind::Float32, 2, PLACE, true, "goal, pixels; in either room"),
    factor("target.radius", Kind::Float32, 1, RADIUS, false, "pixels, of the drawn target"),
    factor("task.min_steps", Kind::Index, 1, [15.0, 114.0], false, "unused"),
    factor("wall.axis", Kind::Index, 1, [0.0, 1.0], false, "0 horizontal, 1 vertical"),
    factor("wall.border_color", Kind::Color, 3, BYTE, false, "unused"),
    factor("wall.color", Kind::Color, 3, BYTE, false, "RGB, of wall and border"),
    factor("wall.thickness", Kind::Index, 1, [7.0, 41.0], false, "pixels"),
];

const AGENT_POSITION: usize = 1;
const DOOR_SIZE: usize = 8;
pub(super) const TARGET_POSITION: usize = 11;
const MIN_STEPS: usize = 13;
const BORDER_COLOR: usize = 15;

impl Factors {
    /// Half the thickness of the wall, rounded down, pixels.
    #[must_use]
    pub fn half_thickness(&self) -> i32 {
        i32::from(self.wall_thickness / 2)
    }

    /// Centre along the wall and half width of each door there is, pixels.
    pub fn doors(&self) -> impl Iterator<Item = (i32, i32)> {
        let doors = self.door_position.into_iter().zip(self.door_size);
        doors.take(self.door_number.into()).map(|(centre, extent)| (centre.into(), extent.into()))
    }

    /// Whether an agent that stands at `place`, in or out of a door, touches the wall.
    #[must_use]
    pub fn in_the_wall(&self, place: &[f64; 2]) -> bool {
        let [low, high] = self.contact();
        (low..=high).contains(&place[self.wall_axis.across()])
    }

    /// Whether a place lies beyond the middle of the wall.
    pub(super) fn side(&self, place: &[f64; 2]) -> bool {
        place[self.wall_axis.across()] > f64::from(CENTRE)
    }

    /// Lowest and highest coordinate across the wall at which a disc of the agent's radius touches it.
    pub(super) fn contact(&self) -> [f64; 2] {
        let reach = f64::from(self.half_thickness()) + self.agent_radius;
        [f64::from(CENTRE) - reach, f64::from(CENTRE) + reach]
    }

    /// Half the width of the narrowest door that the expert and the sampling count as passable.
    pub(super) fn passable(&self) -> f64 {
        1.1 * self.agent_radius
    }
}

impl Variation for Factors {
    const FACTORS: &'static [Factor] = &FACTORS;
    const CONSTRAINED: &'static [usize] = &[AGENT_POSITION, DOOR_SIZE];
    const INVISIBLE: &'static [usize] = &[AGENT_POSITION, TARGET_POSITION, MIN_STEPS, BORDER_COLOR];

    fn get(&self, index: usize) -> Vec<f64> {
        let three = |c: [u8; 3]| c.map(f64::from).to_vec();
        let pair = |p: [f32; 2]| p.map(f64::from).to_vec();
        match index {
            0 => three(self.agent_color),
            1 => pair(self.agent_position),
            2 => vec![self.agent_radius],
            3 => vec![self.agent_speed],
            4 => three(self.background_color),
            5 => three(self.door_color),
            6 => vec![self.door_number.into()],
            7 => three(self.door_position),
            8 => three(self.door_size),
            9 => vec![f64::from(u8::from(self.render_target))],
            10 => three(self.target_color),
            11 => pair(self.target_position),
            12 => vec![self.target_radius],
            13 => vec![self.min_steps.into()],
            14 => vec![f64::from(self.wall_axis as u8)],
            15 => three(self.wall_border_color),
            16 => three(self.wall_color),
            17 => vec![self.wall_thickness.into()],
            _ => Vec::new(),
        }
    }

    fn assign(&mut self, index: usize, v: [f64; 3]) {
        let three = v.map(|v| v as u8);
        let pair = [v[0] as f32, v[1] as f32];
        match index {
            0 => self.agent_color = three,
            1 => self.agent_position = pair,
            2 => self.agent_radius = v[0],
            3 => self.agent_speed = v[0],
            4 => self.background_color = three,
            5 => self.door_color = three,
            6 => self.door_number = three[0],
            7 => self.door_position = three,
            8 => self.door_size = three,
            9 => self.render_target = v[0] != 0.0,
            10 => self.target_color = three,
            11 => self.target_position = pair,
            12 => self.target_radius = v[0],
            13 => self.min_steps = three[0],
            14 => self.wall_axis = if v[0] == 0.0 { Axis::Horizontal } else { Axis::Vertical },
            15 => self.wall_border_color = three,
            16 => self.wall_color = three,
            _ => self.wall_thickness = three[0],
        }
    }

    fn admissible(&self, index: usize) -> Result<(), String> {
        let (axis, [low, high]) = (self.wall_axis.across(), self.contact());
        let across = f64::from(self.agent_position[axis]);
        if index == AGENT_POSITION && (low..=high).contains(&across) {
            let name = ["x", "y"][axis];
            return Err(format!(
                "{name} = {across} lies in the wall, which holds {low} to {high} from the agent; sample \
                 agent.position or set it elsewhere, or change wall.axis, wall.thickness or agent.radius"
            ));
        }
        if index == DOOR_SIZE && self.doors().all(|(_, extent)| f64::from(extent) < self.passable()) {
            return Err(format!(
                "none of the {} door(s) has half the width {} that the agent needs; set a larger door.size \
                 or a smaller agent.radius",
                self.door_number,
                self.passable()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Environment, ResetOptions};
    use crate::two_room::TwoRoom;
    use crate::variation::Sampling;

    fn with(values: &[(&str, &[f64])]) -> Result<Factors, String> {
        let values = values.iter().map(|(name, v)| ((*name).to_string(), v.to_vec())).collect();
        let sampling = Sampling { sampled: Some(Vec::new()), values };
        sampling.draw::<Factors>(0).map(|drawn| drawn.factors).map_err(|e| e.to_string())
    }

    #[test]
    fn every_factor_reads_back_what_was_set() {
        for (index, f) in FACTORS.iter().enumerate() {
            let mut factors = Factors::default();
            let values = vec![f.high; f.len];
            factors.set(f.name, &values).unwrap();
            assert_eq!(factors.get(index), values, "{}", f.name);
            assert_eq!(Factors::default().get(index).len(), f.len);
        }
    }

    #[test]
    fn values_that_do_not_fit_together_are_refused() {
        let message = with(&[("wall.axis", &[0.0])]).unwrap_err();
        assert!(message.contains("agent.position") && message.contains("lies in the wall"), "{message}");
        assert!(with(&[("wall.axis", &[0.0]), ("agent.position", &[60.0, 40.0])]).is_ok());
        let message = with(&[("agent.radius", &[14.0])]).unwrap_err();
        assert!(message.contains("door.size") && message.contains("15.4"), "{message}");
        let wide = ("door.size", &[1.0, 16.0, 1.0][..]);
        assert!(with(&[("agent.radius", &[14.0]), wide]).is_err(), "the second door is not active");
        assert!(with(&[("agent.radius", &[14.0]), wide, ("door.number", &[2.0])]).is_ok());
    }

    #[test]
    fn bad_values_and_names_are_refused() {
        for (name, value) in [("wall.thickness", 42.0), ("door.number", 1.5), ("door.position", 3.0)] {
            assert!(with(&[(name, &[value])]).unwrap_err().contains(name));
        }
        assert!(with(&[("agent.raduis", &[7.0])]).unwrap_err().contains("agent.radius"));
        assert!(with(&[("doors.size", &[7.0; 3])]).unwrap_err().contains("did you mean door.size"));
    }

    fn numbers(value: &serde_json::Value) -> Vec<f64> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn seeds_match_the_reference() {
        let file = crate::testing::json("tworoom", "seeds.json");
        let mut env = TwoRoom::build(&Factors::default());
        for entry in file["default"].as_array().unwrap() {
            let state = env.reset(entry["seed"].as_u64().unwrap(), &ResetOptions::default()).unwrap();
            assert_eq!(state.to_vec(), numbers(&entry["agent"]));
            assert_eq!(env.goal_state().to_vec(), numbers(&entry["target"]));
            assert_eq!(env.observation(), numbers(&entry["obs"]));
        }
        for entry in file["all"].as_array().unwrap() {
            let drawn = Sampling::all().draw::<Factors>(entry["seed"].as_u64().unwrap()).unwrap();
            let values = entry["values"].as_object().unwrap();
            assert_eq!(values.len(), FACTORS.len());
            for (name, value) in values {
                let found = drawn.factors.get(Factors::index_of(name).unwrap());
                assert_eq!(found, numbers(value), "{name} of seed {}", entry["seed"]);
            }
        }
    }

    #[test]
    fn sampled_scenes_keep_their_constraints() {
        for seed in 0..300 {
            let f = Sampling::all().draw::<Factors>(seed).unwrap().factors;
            assert!(f.admissible(AGENT_POSITION).is_ok() && f.admissible(DOOR_SIZE).is_ok(), "seed {seed}");
        }
    }
}
