//! Models, losses, gradients, optimiser, planners and start selection against the recorded reference.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use worldbench_core::numpy::Pcg64;
use worldbench_eval::{Protocol, protocol::Selection};

use super::{Item, environment::read_json};
use crate::output::describe;

/// Subjects of the fixtures that this build lacks.
const NOT_BUILT: [&str; 0] = [];

/// All checks of networks, planners and protocols.
///
/// An unknown device is an error; a fixture that cannot be used is a miss.
pub fn check(root: &Path, device: &str) -> Result<Vec<Item>> {
    let device = worldbench_nn::device(device)?;
    let models = root.join("models");
    let mut items = Vec::new();
    for (subject, check) in worldbench_models::parity::SUBJECTS {
        let named = |i: &worldbench_models::parity::Item| {
            Item::compared(format!("{subject} {}", i.name), i.max_error, i.tolerance)
        };
        match check(&models, &device) {
            Ok(found) => items.extend(found.iter().map(named)),
            Err(error) => items.push(Item::missed(subject, error)),
        }
    }
    match worldbench_plan::parity::check(root) {
        Ok(found) => items.extend(
            found.iter().map(|i| Item::compared(format!("planners {}", i.name), i.max_error, i.tolerance)),
        ),
        Err(error) => items.push(Item::missed("planners", error)),
    }
    items.extend(
        starts(&models.join("eval_starts.json"))
            .unwrap_or_else(|e| vec![Item::missed("evaluation starts", describe(&e))]),
    );
    items.extend(NOT_BUILT.map(Item::not_built));
    Ok(items)
}

#[derive(Deserialize)]
struct Starts {
    choice: Vec<Choice>,
    bit_generator: BTreeMap<String, Generator>,
    full_procedure: Procedure,
}

#[derive(Deserialize)]
struct Choice {
    seed: u64,
    n_valid: usize,
    size: usize,
    sorted_indices: Vec<usize>,
}

#[derive(Deserialize)]
struct Generator {
    /// Decimal digits: JSON numbers do not hold 64 bits.
    first_5_u64: Vec<String>,
}

#[derive(Deserialize)]
struct Procedure {
    seed: u64,
    episode_lengths: Vec<usize>,
    goal_offset: usize,
    size: usize,
    episode: Vec<usize>,
    start_step: Vec<usize>,
}

/// NumPy's generator, its choice without replacement, and the selection of start steps, all to be equal.
fn starts(path: &Path) -> Result<Vec<Item>> {
    let file: Starts = read_json(path)?;
    ensure!(!file.choice.is_empty(), "{} lists no choice", path.display());
    let equal = |name: String, same: bool| Item::compared(name, f64::from(u8::from(!same)), 0.0);
    let mut items = Vec::new();
    for (seed, generator) in &file.bit_generator {
        let number = seed.parse().with_context(|| format!("{}: seed {seed}", path.display()))?;
        let mut pcg = Pcg64::new(number);
        let same = generator.first_5_u64.iter().all(|digits| *digits == pcg.next_u64().to_string());
        items.push(equal(format!("numpy generator, seed {seed}"), same));
    }
    for case in &file.choice {
        let drawn = Pcg64::new(case.seed).choice_sorted(case.n_valid, case.size);
        let name = format!("evaluation starts, seed {}, {} of {}", case.seed, case.size, case.n_valid);
        items.push(equal(name, drawn.as_ref() == Some(&case.sorted_indices)));
    }
    let case = &file.full_procedure;
    let protocol = Protocol {
        goal_offset: case.goal_offset,
        selection: Some(Selection { seed: case.seed, episodes: case.size }),
        ..Protocol::find("swm-v1", "push_t")?
    };
    let (episode, start): (Vec<_>, Vec<_>) =
        protocol.select_starts(&case.episode_lengths)?.into_iter().unzip();
    let same = episode == case.episode && start == case.start_step;
    items.push(equal("evaluation starts, full procedure".into(), same));
    Ok(items)
}
