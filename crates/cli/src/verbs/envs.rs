//! `worldbench envs` and `worldbench fovs`.

use anyhow::Result;
use serde_json::json;
use worldbench_env::{
    Shape,
    push_t::{SUCCESS_ANGLE, SUCCESS_DISTANCE},
    variation::FACTORS,
};

use crate::{
    config::unknown,
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
#[command(after_help = "Example:\n  worldbench fovs push_t")]
pub struct FovsArgs {
    /// Name of the environment; see `envs`
    #[arg(default_value = "push_t")]
    env: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn envs(args: &EnvsArgs) -> Result<Outcome> {
    let shapes: Vec<&str> = Shape::ALL.iter().map(|shape| shape.name()).collect();
    let (pixels, degrees) = (SUCCESS_DISTANCE, SUCCESS_ANGLE.to_degrees());
    if args.json {
        print_json(&json!([{
            "name": "push_t", "state": 7, "action": 2, "shapes": shapes, "factors": FACTORS.len(),
            "success_distance_px": pixels, "success_angle_degrees": degrees,
        }]))?;
    } else {
        print("push_t  push a block to a pose with a disc; state 7, action 2 (relative, 1 = 100 px)")?;
        print(format!("        shapes {}; {} factors of variation", shapes.join(", "), FACTORS.len()))?;
        print(format!("        success within {pixels:.0} px and {degrees:.0} degrees"))?;
    }
    Ok(Outcome::Done)
}

pub fn fovs(args: &FovsArgs) -> Result<Outcome> {
    if args.env != "push_t" {
        return Err(unknown("environment", &args.env, ["push_t"].into_iter()));
    }
    if args.json {
        print_json(&FACTORS)?;
        return Ok(Outcome::Done);
    }
    let rows: Vec<[String; 5]> = FACTORS
        .iter()
        .map(|f| {
            let sampled = if f.sampled_by_default { "yes" } else { "" };
            let (low, high) = (short(f.low), short(f.high));
            [f.name.into(), f.len.to_string(), format!("{low} to {high}"), sampled.into(), f.what.into()]
        })
        .collect();
    print(table(["factor", "values", "range", "sampled", "what"], &rows))?;
    Ok(Outcome::Done)
}

/// At most four decimals.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
