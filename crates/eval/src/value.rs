//! Pictures of a learned value V(s, g): along a recorded episode, and over the agent's positions.

use std::path::Path;

use serde::Serialize;
use worldbench_core::Frame;
use worldbench_env::{DomainRef, Look};
use worldbench_plan::GoalPolicy;

use crate::plot::{Colour, Plot, Series, text, write_png};
use crate::policies::planner::{Eyes, failed};
use crate::runner::{goal_at, reset};
use crate::{EvalError, Pair};

/// Side of the map in the picture, px.
const MAP: usize = 300;
/// Width of the curve, px.
const CURVE: usize = 400;
/// Room above the map and beside it, px.
const MARGIN: usize = 14;
/// Colours of the least, a middle and the greatest value; lightness rises all the way.
const RAMP: [Colour; 3] = [[40, 20, 90], [200, 70, 90], [250, 235, 120]];

/// Values on one pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueReport {
    /// Index of the pair.
    pub episode: usize,
    /// V after 0, 1, ... of the recorded steps.
    pub along: Vec<f32>,
    /// The environment's distance from the goal at the same steps, px.
    pub distances: Vec<f64>,
    /// Side of the environment's canvas, px.
    pub canvas: f64,
    /// Positions along one side of the map.
    pub side: usize,
    /// V with the agent at rest in the centre of every cell of the canvas, everything else as at the start, row by row from the
    /// top left; `[side, side]`.
    pub map: Vec<f32>,
    /// Agent x, y at the start, px.
    pub start: [f64; 2],
    /// Agent x, y at the goal, px.
    pub goal: [f64; 2],
}

/// Evaluates the value of `policy` on `pair` of `domain`, number `episode`, with `side` positions along each side of the map.
///
/// # Errors
/// When the policy has learned no value or cannot read the frames.
pub fn report(
    policy: &dyn GoalPolicy,
    domain: DomainRef,
    pair: &Pair,
    episode: usize,
    side: usize,
) -> Result<ValueReport, EvalError> {
    let fail = |message: String| failed("plot value", episode, message);
    let (spec, scene) = (domain.spec(), domain.scene(&pair.factors)?);
    let goal = goal_at(domain, &scene, &pair.goal)?;
    let mut env = reset(domain, &scene, &pair.start, &pair.goal)?;
    let (resolution, area) = (policy.resolution(), policy.area_filter());
    let mut eyes = Eyes::of(resolution, area, domain, &scene).map_err(fail)?;
    let mut observe = |look: &Look, state: &[f64]| {
        let frame = eyes.frame(look)?;
        policy.observe(&frame, &spec.proprioception(state)).map_err(|e| e.to_string())
    };
    let target = observe(&goal.render_state, &goal.state).map_err(fail)?;
    let value = |seen: &[Vec<f32>]| {
        let recent = &seen[seen.len().saturating_sub(policy.history())..];
        let value = policy.value(&recent.concat(), &target).map_err(|e| e.to_string())?;
        value.ok_or_else(|| {
            "this policy has learned no value; give a checkpoint of another method".to_string()
        })
    };
    let (mut along, mut distances, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..=pair.actions.len() {
        seen.push(observe(&env.look(), &env.state()).map_err(fail)?);
        along.push(value(&seen).map_err(fail)?);
        distances.push(env.errors().distance);
        if let Some(action) = pair.actions.get(step) {
            env.step(*action);
        }
    }
    let canvas = spec.canvas as f64;
    let mut map = Vec::with_capacity(side * side);
    for cell in 0..side * side {
        let at = |i: usize| (i as f64 + 0.5) * canvas / side as f64;
        let mut state = spec.at_rest(&pair.start);
        for (&i, place) in spec.proprio.iter().zip([at(cell % side), at(cell / side)]) {
            state[i] = place;
        }
        let placed = reset(domain, &scene, &state, &pair.goal)?;
        map.push(value(&[observe(&placed.look(), &state).map_err(fail)?]).map_err(fail)?);
    }
    let place = |state: &[f64]| [0, 1].map(|k| spec.proprioception(state)[k]);
    let (start, goal) = (place(&pair.start), place(&pair.goal));
    Ok(ValueReport { episode, along, distances, canvas, side, map, start, goal })
}

impl ValueReport {
    /// Writes the curve and the map as a PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_picture(&self, path: &Path) -> Result<(), EvalError> {
        write_png(path, &self.picture())
    }

    fn picture(&self) -> Frame {
        let along: Vec<f64> = self.along.iter().map(|&v| f64::from(v)).collect();
        let ends = bounds(&along);
        let curve = Plot {
            title: format!("V(s, g) along pair {}", self.episode),
            x_label: "recorded step".into(),
            series: vec![Series::over_index("V", &along)],
            y_range: Some(ends),
            ..Plot::default()
        };
        let height = MAP + 2 * MARGIN;
        let curve = curve.render(CURVE, height);
        let mut out = Frame::new(CURVE + MAP + MARGIN, height);
        out.data.fill(255);
        for (to, from) in
            out.data.chunks_exact_mut((CURVE + MAP + MARGIN) * 3).zip(curve.data.chunks(CURVE * 3))
        {
            to[..CURVE * 3].copy_from_slice(from);
        }
        self.draw_map(&mut out);
        out
    }

    fn draw_map(&self, out: &mut Frame) {
        let map: Vec<f64> = self.map.iter().map(|&v| f64::from(v)).collect();
        let (low, high) = bounds(&map);
        let mut dot = |x: usize, y: usize, colour: Colour| {
            let at = ((y + MARGIN) * (CURVE + MAP + MARGIN) + CURVE + x) * 3;
            out.data[at..at + 3].copy_from_slice(&colour);
        };
        for (x, y) in (0..MAP * MAP).map(|i| (i % MAP, i / MAP)) {
            let cell = (y * self.side / MAP) * self.side + x * self.side / MAP;
            dot(x, y, ramp((map[cell] - low) / (high - low)));
        }
        for (place, colour) in [(self.start, [255; 3]), (self.goal, [60, 220, 90])] {
            let [x, y] =
                place.map(|v| ((v / self.canvas) * MAP as f64).clamp(4.0, MAP as f64 - 5.0) as usize);
            for i in 0..9 {
                dot(x + i - 4, y, colour);
                dot(x, y + i - 4, colour);
            }
        }
        let title = format!("V over agent positions, {low:.2} to {high:.2}");
        text(out, CURVE, 3, &title, [40; 3]);
        text(out, CURVE, MARGIN + MAP + 4, "white: start, green: goal", [40; 3]);
    }
}

/// Least and greatest finite value, apart from each other.
fn bounds(values: &[f64]) -> (f64, f64) {
    let finite = values.iter().filter(|v| v.is_finite());
    let ends = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    match ends {
        (low, high) if low < high => (low, high),
        (low, _) if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    }
}

fn ramp(share: f64) -> Colour {
    let at = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 } * 2.0;
    let part = usize::from(at >= 1.0);
    let (from, to, rest) = (RAMP[part], RAMP[part + 1], at - part as f64);
    std::array::from_fn(|i| (f64::from(from[i]) * (1.0 - rest) + f64::from(to[i]) * rest) as u8)
}

#[cfg(test)]
mod tests {
    use worldbench_plan::CostError;

    use super::*;
    use crate::protocol::{Protocol, Split};

    /// V is minus the agent's distance from the goal, or nothing.
    struct Distance(bool);

    impl GoalPolicy for Distance {
        fn resolution(&self) -> usize {
            16
        }

        fn area_filter(&self) -> bool {
            true
        }

        fn history(&self) -> usize {
            1
        }

        fn chunk(&self) -> usize {
            1
        }

        fn observe(&self, _: &[u8], proprio: &[f64; 4]) -> Result<Vec<f32>, CostError> {
            Ok(proprio[..2].iter().map(|&v| v as f32).collect())
        }

        fn act(&self, _: &[f32], _: &[f32]) -> Result<Vec<f32>, CostError> {
            Ok(vec![0.0; 2])
        }

        fn value(&self, seen: &[f32], goal: &[f32]) -> Result<Option<f32>, CostError> {
            assert_eq!(seen.len(), 2);
            Ok(self.0.then(|| -(seen[0] - goal[0]).hypot(seen[1] - goal[1])))
        }
    }

    #[test]
    fn the_value_rises_along_the_recording_and_peaks_at_the_goal() {
        let protocol = Protocol::find("held-out", "push_t").unwrap();
        let (domain, manifest) = (protocol.env().unwrap(), protocol.manifest(Split::Dev).unwrap());
        let pair = &manifest.pairs[0];
        let report = report(&Distance(true), domain, pair, 0, 8).unwrap();
        assert_eq!((report.along.len(), report.map.len()), (pair.actions.len() + 1, 64));
        assert!(report.along.last().unwrap() > &-20.0, "{:?}", report.along);
        let best = (0..64).max_by(|&a, &b| report.map[a].total_cmp(&report.map[b])).unwrap();
        assert_eq!([best % 8, best / 8], [pair.goal[0], pair.goal[1]].map(|v| (v / 64.0) as usize));
        let picture = report.picture();
        assert!(
            picture.data.chunks(3).any(|p| p == RAMP[2])
                && picture.data.chunks(3).any(|p| p == [60, 220, 90])
        );
        let error = super::report(&Distance(false), domain, pair, 0, 8).unwrap_err().to_string();
        assert!(error.contains("no value"), "{error}");
    }
}
