//! `worldbench envs` and `worldbench fovs`.

use anyhow::Result;
use serde_json::{Value, json};
use worldbench_env::{Shape, Spec, environment::ALL, push_t, variation::Factor};

use crate::{
    config::environment,
    output::{Outcome, print, print_json, table},
};

/// List the environments
#[derive(Debug, clap::Args)]
pub struct EnvsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List an environment's factors of variation
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  worldbench fovs push_t\n  worldbench fovs two_room --json")]
pub struct FovsArgs {
    /// Name of the environment; see `envs`
    #[arg(default_value = "push_t")]
    env: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn envs(args: &EnvsArgs) -> Result<Outcome> {
    if args.json {
        print_json(&ALL.iter().map(described).collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    for spec in &ALL {
        let factors = spec.factors.len();
        print(format!("{:<10}{}", spec.name, spec.summary))?;
        print(format!("          state {}: {}", spec.state.len(), spec.state.join(", ")))?;
        print(format!("          action 2: {}", spec.action))?;
        print(format!("          success: {}", spec.success))?;
        print(format!("          {factors} factors of variation: worldbench fovs {}", spec.name))?;
    }
    Ok(Outcome::Done)
}

fn described(spec: &Spec) -> Value {
    let mut value = json!({
        "name": spec.name, "title": spec.title, "summary": spec.summary,
        "state": spec.state.len(), "state_values": spec.state, "proprio": spec.proprio,
        "action": 2, "action_meaning": spec.action, "action_bounds": spec.action_bounds,
        "success": spec.success, "canvas": spec.canvas, "factors": spec.factors.len(),
    });
    if spec.name == push_t::SPEC.name {
        let shapes: Vec<&str> = Shape::ALL.iter().map(|shape| shape.name()).collect();
        value["shapes"] = json!(shapes);
        value["success_distance_px"] = json!(push_t::SUCCESS_DISTANCE);
        value["success_angle_degrees"] = json!(push_t::SUCCESS_ANGLE.to_degrees());
    } else {
        value["success_distance_px"] = json!(worldbench_env::two_room::SUCCESS_DISTANCE);
    }
    value
}

pub fn fovs(args: &FovsArgs) -> Result<Outcome> {
    let spec = environment(&args.env)?;
    let factors = spec.factors.iter().enumerate().map(|(index, factor)| (factor, (spec.default)(index)));
    if args.json {
        let entries = factors.map(|(factor, default)| with_default(factor, &default));
        print_json(&entries.collect::<Result<Vec<_>>>()?)?;
        return Ok(Outcome::Done);
    }
    let row = |(f, default): (&Factor, Vec<f64>)| {
        let sampled = if f.sampled_by_default { "yes" } else { "" };
        let default = default.iter().map(|v| short(*v).to_string()).collect::<Vec<_>>().join(", ");
        let range = format!("{} to {}", short(f.low), short(f.high));
        [f.name.into(), f.len.to_string(), range, default, sampled.into(), f.what.into()]
    };
    let rows: Vec<[String; 6]> = factors.map(row).collect();
    print(table(["factor", "values", "range", "default", "sampled", "what"], &rows))?;
    Ok(Outcome::Done)
}

fn with_default(factor: &Factor, default: &[f64]) -> Result<Value> {
    let mut value = serde_json::to_value(factor)?;
    value["default"] = json!(default);
    Ok(value)
}

/// At most four decimals.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
