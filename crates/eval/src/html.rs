//! The benchmark page as one HTML file.
//!
//! The file holds everything: style, program and data, and loads nothing. Rust writes the data as JSON; the program in
//! `html/*.js` draws tables, charts and episodes from it alone, so that no number stands on the page twice.

mod curves;
mod mathml;
mod scene;

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::provenance::{Provenance, Training};
use crate::report::{COST_NOTE, bound, budget_note, environment_title, hard_notes, page_beside};
use crate::rows::{hard_label, tail};
use crate::sections::{FURTHER, INVERSE_Q, INVERSE_Q_ABOUT, MAIN, Section};
use crate::seeds::{self, SeedGroup};
use crate::{EpisodeOutcome, EvalError, ResultDir, RowResult, System};

use curves::{Band, Log};
use scene::Scene;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const PROGRAM: [&str; 3] =
    [include_str!("html/ui.js"), include_str!("html/episodes.js"), include_str!("html/page.js")];

/// Largest page, bytes: animations are left out, from every row alike, until it fits.
const LARGEST: usize = 15_000_000;

/// What the page shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    rows: Vec<Row<'a>>,
    groups: Vec<Value>,
    logs: Vec<Log>,
    scenes: Vec<Scene>,
    sections: Vec<Value>,
    budget_note: String,
    /// What the column of hard pairs is called.
    hard: &'static str,
    /// What the hard pairs of each environment are.
    hard_notes: Vec<String>,
    /// What a reader of the costs should know.
    cost_note: &'static str,
    made: &'a Provenance,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    system: System,
    /// Whole name.
    name: String,
    /// Without what stands in parentheses.
    short: String,
    variant: &'a str,
    details: String,
    reference: bool,
    environment: &'a str,
    environment_title: &'a str,
    /// Its page, where there is one beside the report.
    environment_page: Option<String>,
    protocol: &'a str,
    split: &'a str,
    hash: &'a str,
    n: usize,
    seed: u64,
    train_seed: Option<u64>,
    all: Value,
    moved: Value,
    mean_steps: f64,
    seconds_per_plan: f64,
    floor: Option<f64>,
    ceiling: Option<f64>,
    group: usize,
    trainings: usize,
    /// What tells the row from others of its group: `seed 1`; empty where it is the only one.
    seeds: String,
    checkpoint: Option<&'a str>,
    checkpoint_hash: Option<&'a str>,
    settings: Option<&'a str>,
    command: &'a str,
    notes: &'a [String],
    path: String,
    training: Option<&'a Training>,
    provenance: Option<&'a Provenance>,
    log: Option<usize>,
    costs: Option<Vec<Band>>,
    distances: Option<Vec<Band>>,
    episodes: Option<Episodes>,
}

/// The episodes of a row.
#[derive(Serialize)]
struct Episodes {
    list: Vec<Episode>,
}

/// One episode, with short keys because there are thousands.
#[derive(Serialize)]
struct Episode {
    /// Index of the pair.
    i: usize,
    /// Index of its scene.
    c: usize,
    /// Success.
    s: bool,
    /// One of the hard pairs, e.g. the block must move.
    m: bool,
    /// Steps taken.
    t: usize,
    /// Goal, scaled and rounded as the scene says.
    goal: Vec<i64>,
    /// For each value of the state its first number and then the differences, scaled and rounded. `[values][steps + 1]`
    states: Vec<Vec<i64>>,
    /// Distances to the goal, px.
    d: Vec<f64>,
}

/// Writes the page of `results` to `path`; `made` says by which command and program.
///
/// # Errors
/// When a training log is damaged or the file cannot be written.
pub fn write_html(path: &Path, results: &[ResultDir], made: &Provenance) -> Result<(), EvalError> {
    let base = path.parent().unwrap_or(Path::new(""));
    crate::runner::write_atomic(path, html(results, made, base)?.as_bytes())
}

/// The page of `results`, to lie in the directory `base`.
///
/// # Errors
/// When a training log is damaged.
pub fn html(results: &[ResultDir], made: &Provenance, base: &Path) -> Result<String, EvalError> {
    let mut kept = usize::MAX;
    loop {
        let page = page(results, made, kept, base)?;
        if page.len() <= LARGEST || kept == 0 {
            return Ok(page);
        }
        // Animations are nearly all of a large page.
        let most = results.iter().map(|r| r.row.score.all.n).max().unwrap_or(0);
        kept = kept.min(most) * 3 / 4;
    }
}

/// The page, to lie in `base`, with at most `kept` animations per row.
fn page(results: &[ResultDir], made: &Provenance, kept: usize, base: &Path) -> Result<String, EvalError> {
    let mut data = data(results, made, kept)?;
    for row in &mut data.rows {
        row.environment_page = page_beside(base, row.environment);
    }
    let json =
        serde_json::to_string(&data).map_err(|e| EvalError::Options(format!("the page's data: {e}")))?;
    // A script element ends at the first `</script`, wherever it stands.
    let json = json.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    let page = PAGE.replace("/*CSS*/", STYLE).replace("/*JS*/", &PROGRAM.concat());
    Ok(page.replace("/*DATA*/", &json))
}

fn data<'a>(results: &'a [ResultDir], made: &'a Provenance, kept: usize) -> Result<Data<'a>, EvalError> {
    let rows: Vec<RowResult> = results.iter().map(|result| result.row.clone()).collect();
    let groups = seeds::group(&rows);
    let (mut logs, mut scenes): (Vec<(&Path, Log)>, Vec<Scene>) = (Vec::new(), Vec::new());
    let mut drawn: Vec<Row> = Vec::new();
    for (i, result) in results.iter().enumerate() {
        let log = match &result.log {
            Some(dir) => Some(log_index(&mut logs, dir)?),
            None => None,
        };
        let group = groups.iter().position(|group| group.rows.contains(&i)).unwrap_or(0);
        let mut row = describe(result, &rows, group, &groups[group]);
        row.log = log;
        if let Some((key, outcomes)) = &result.episodes {
            row.checkpoint_hash = Some(key.checkpoint.as_str()).filter(|hash| !hash.is_empty());
            row.settings = Some(key.settings.as_str()).filter(|settings| !settings.is_empty());
            row.costs = curves::costs(outcomes);
            row.distances = curves::distances(outcomes);
            row.episodes =
                episodes(&mut scenes, &result.row.environment, &outcomes[..kept.min(outcomes.len())]);
        }
        drawn.push(row);
    }
    Ok(Data {
        rows: drawn,
        groups: groups.iter().map(group_json).collect(),
        logs: logs.into_iter().map(|(_, log)| log).collect(),
        scenes,
        sections: sections(),
        budget_note: budget_note(&rows),
        hard: hard_label(&rows),
        hard_notes: hard_notes(&rows),
        cost_note: COST_NOTE,
        made,
    })
}

fn describe<'a>(result: &'a ResultDir, rows: &[RowResult], group: usize, seeds: &SeedGroup) -> Row<'a> {
    let row = &result.row;
    let tag = seeds.tag(row);
    let rate = |rate: &crate::outcome::Rate| {
        json!({
            "n": rate.n, "successes": rate.successes, "rate": rate.rate,
            "low": rate.interval.low, "high": rate.interval.high, "text": rate.text(),
        })
    };
    Row {
        system: row.system,
        name: if tag.is_empty() { row.label() } else { format!("{}, {tag}", row.label()) },
        short: format!("{} {}", row.system.label(), row.planner).trim_end().into(),
        variant: &row.variant,
        details: tail(row),
        reference: row.system.is_reference(),
        environment: &row.environment,
        environment_title: environment_title(&row.environment),
        environment_page: None,
        protocol: &row.protocol,
        split: &row.split,
        hash: &row.protocol_hash,
        n: row.score.all.n,
        seed: row.seed,
        train_seed: row.train_seed,
        all: rate(&row.score.all),
        moved: rate(&row.score.block_moved),
        mean_steps: row.score.mean_steps,
        seconds_per_plan: row.score.seconds_per_plan,
        floor: bound(row, rows, System::Random),
        ceiling: bound(row, rows, System::Oracle),
        group,
        trainings: seeds.trainings,
        seeds: tag,
        checkpoint: row.checkpoint.as_deref(),
        checkpoint_hash: None,
        settings: None,
        command: &row.command,
        notes: &row.notes,
        path: result.path.display().to_string(),
        training: result.training.as_ref(),
        provenance: result.provenance.as_ref(),
        log: None,
        costs: None,
        distances: None,
        episodes: None,
    }
}

fn group_json(group: &SeedGroup) -> Value {
    json!({ "rows": group.rows, "seeds": group.seeds_text(), "text": group.all.text() })
}

fn log_index<'a>(logs: &mut Vec<(&'a Path, Log)>, dir: &'a Path) -> Result<usize, EvalError> {
    if let Some(known) = logs.iter().position(|(known, _)| *known == dir) {
        return Ok(known);
    }
    logs.push((dir, Log::read(dir)?));
    Ok(logs.len() - 1)
}

/// The episodes of a row; none when the environment cannot be drawn.
fn episodes(scenes: &mut Vec<Scene>, environment: &str, outcomes: &[EpisodeOutcome]) -> Option<Episodes> {
    let pack_one = |outcome: &EpisodeOutcome| {
        let scene = scene_index(scenes, environment, outcome)?;
        Some(pack(outcome, scene, &scenes[scene]))
    };
    Some(Episodes { list: outcomes.iter().map(pack_one).collect::<Option<_>>()? })
}

/// Index of an episode's scene.
fn scene_index(scenes: &mut Vec<Scene>, environment: &str, outcome: &EpisodeOutcome) -> Option<usize> {
    let same = |scene: &Scene| scene.environment == environment && scene.changes == outcome.factors;
    if let Some(known) = scenes.iter().position(same) {
        return Some(known);
    }
    scenes.push(Scene::of(environment, &outcome.factors)?);
    Some(scenes.len() - 1)
}

fn pack(outcome: &EpisodeOutcome, index: usize, scene: &Scene) -> Episode {
    let scaled = |value: f64, c: usize| (value * scene.scales[c]).round() as i64;
    let values = 0..scene.scales.len();
    let column = |c: usize| {
        let mut last = 0;
        let steps = outcome.states.iter().map(|state| {
            let now = scaled(state[c], c);
            now - std::mem::replace(&mut last, now)
        });
        steps.collect()
    };
    Episode {
        i: outcome.index,
        c: index,
        s: outcome.success,
        m: outcome.block_moved,
        t: outcome.steps,
        goal: values.clone().map(|c| scaled(outcome.goal[c], c)).collect(),
        states: values.map(column).collect(),
        d: outcome.distances.iter().map(|d| (10.0 * d).round() / 10.0).collect(),
    }
}

/// The sections in the order of the Markdown page.
fn sections() -> Vec<Value> {
    let inverse = INVERSE_Q.iter().enumerate().map(|(i, section)| {
        let about = if i == 0 { mathml::prose(INVERSE_Q_ABOUT) } else { String::new() };
        (section, "Inverse Q-Learning: ", about)
    });
    let plain = |section: &'static Section| (section, "", String::new());
    let all = MAIN.iter().map(plain).chain(inverse).chain(FURTHER.iter().map(plain));
    let text = |(section, prefix, before): (&Section, &str, String)| {
        json!({
            "system": section.system,
            "title": format!("{prefix}{}", section.title),
            "about": before + &mathml::prose(section.about),
            "formula": mathml::formula(section.formula, true),
            "symbols": mathml::prose(section.symbols),
        })
    };
    all.map(text).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn committed() -> Vec<ResultDir> {
        ResultDir::find(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/push_t")).unwrap()
    }

    /// The data that a page holds.
    fn embedded(page: &str) -> Value {
        let from = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let to = from + page[from..].find("</script>").unwrap();
        serde_json::from_str(&page[from..to]).unwrap()
    }

    #[test]
    fn the_page_holds_all_rows_and_their_episodes() {
        let results = committed();
        let made = Provenance::here("worldbench report benchmarks/push_t -o report.html", 1);
        let page = html(&results, &made, Path::new("")).unwrap();
        assert!(page.len() < LARGEST);
        let data = embedded(&page);
        assert_eq!(data["rows"].as_array().unwrap().len(), results.len());
        assert_eq!(data["sections"].as_array().unwrap().len(), 7);
        for (row, result) in data["rows"].as_array().unwrap().iter().zip(&results) {
            assert_eq!(row["all"]["successes"], result.row.score.all.successes, "{row}");
            let Some((_, outcomes)) = &result.episodes else { continue };
            let list = row["episodes"]["list"].as_array().unwrap();
            assert_eq!(list.len(), outcomes.len());
            // Differences add up to the recorded state again, to a tenth of a pixel.
            let (last, outcome) = (list.last().unwrap(), outcomes.last().unwrap());
            let sum: i64 = last["states"][2].as_array().unwrap().iter().filter_map(Value::as_i64).sum();
            assert!((sum as f64 / 10.0 - outcome.states.last().unwrap()[2]).abs() < 0.051);
            let trained = row["log"].is_u64() && row["training"]["parameters"].is_u64();
            assert_eq!(trained, result.row.checkpoint.is_some(), "{row}");
        }
    }

    #[test]
    fn nothing_is_loaded_and_no_text_can_leave_its_place() {
        let mut results = committed();
        results.truncate(1);
        results[0].row.notes = vec!["</script><script>alert(1)</script><!--".into()];
        let page = html(&results, &Provenance::here("x", 1), Path::new("")).unwrap();
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(embedded(&page)["rows"][0]["notes"][0], "</script><script>alert(1)</script><!--");
        for outside in ["src=\"http", "@import", "url(http", "fetch("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
