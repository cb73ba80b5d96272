//! The benchmark page as Markdown.
//!
//! One section per system in a fixed order, whether it has been run or not, so that the page always says what is
//! missing. It is made from the rows alone and can be written again after every one of them.

mod cost;

use std::{collections::BTreeSet, fmt::Write, path::Path};

use worldbench_env::{Subset, domain, environment::ALL};

pub(crate) use cost::COST_NOTE;

use crate::{
    EvalError, RowResult, System,
    provenance::Training,
    rows::{hard_label, seconds, seeds_text, tail},
    sections::{FURTHER, INVERSE_Q, INVERSE_Q_ABOUT, MAIN, Section},
    seeds::{self, SeedGroup},
};

/// What every section says of the budget.
pub(crate) fn budget_note(rows: &[RowResult]) -> String {
    let fixed = "The budget is fixed at 50 environment steps, unlike the unlimited budget of the original paper: numbers on \
                 this page and in the paper are not comparable.";
    let exception = " Rows of the protocol `unlimited` are the exception: they replan until they succeed or ten plans are \
                     used up.";
    let unlimited = rows.iter().any(|row| row.protocol == "unlimited");
    format!("{fixed}{}", if unlimited { exception } else { "" })
}

/// What stands between these two is written anew with every row; the rest of a page is its author's.
const BEGIN: &str = "<!-- From here `worldbench report` writes this page. -->";
const END: &str = "<!-- To here. -->";
/// How a new page begins.
const HEAD: &str = "# Baseline\n\nOverview & benchmarking of baseline world models\n\n";

/// The page made from `rows` and the trainings behind them, where those are known, one for each; `notes` go on top
/// (machine, data, date of the run ...).
#[must_use]
pub fn markdown(rows: &[RowResult], trainings: &[Option<Training>], notes: &[String]) -> String {
    page(HEAD, &tables(rows, trainings, notes), "\n")
}

/// The tables between their marks, with the text before and after them.
fn page(before: &str, tables: &str, after: &str) -> String {
    format!("{before}{BEGIN}\n{tables}\n{END}{after}")
}

fn tables(rows: &[RowResult], trainings: &[Option<Training>], notes: &[String]) -> String {
    let mut out = String::new();
    for note in notes {
        push(&mut out, format_args!("\n{note}\n"));
    }
    let groups = seeds::group(rows);
    overview(&mut out, rows, &groups);
    for section in MAIN {
        section_text(&mut out, section, rows, &groups, "##");
    }
    push(&mut out, format_args!("\n## Inverse Q-Learning\n\n{INVERSE_Q_ABOUT}\n"));
    for section in INVERSE_Q {
        section_text(&mut out, section, rows, &groups, "###");
    }
    for section in FURTHER {
        section_text(&mut out, section, rows, &groups, "##");
    }
    seed_section(&mut out, rows, &groups);
    cost::section(&mut out, rows, trainings, &groups);
    reference_section(&mut out, rows);
    commands(&mut out, rows, &groups);
    out
}

/// Writes the page, as [`markdown`] makes it, to `path` in one rename. What an author wrote around the tables of a page that is there already stays.
///
/// # Errors
/// When the file cannot be written, or holds a page whose tables cannot be told from the author's text.
pub fn write_markdown(
    path: &Path,
    rows: &[RowResult],
    trainings: &[Option<Training>],
    notes: &[String],
) -> Result<(), EvalError> {
    let mut tables = tables(rows, trainings, notes);
    // Elsewhere than in the repository there are no pages of the environments to link to, and no kept checkpoints.
    let base = path.parent().unwrap_or(Path::new(""));
    for env in ALL.iter().filter(|env| page_beside(base, env.name).is_none()) {
        tables = tables.replace(&environment_link(env.name), env.title);
    }
    for checkpoint in rows.iter().filter_map(|row| row.checkpoint.as_ref()) {
        if !base.join(checkpoint).exists() {
            tables = tables.replace(&checkpoint_link(checkpoint), &plain(checkpoint));
        }
    }
    let page = if path.exists() {
        let old = std::fs::read_to_string(path).map_err(EvalError::io(path))?;
        let around = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = around.ok_or_else(|| unmarked(path))?;
        page(before, &tables, after)
    } else {
        page(HEAD, &tables, "\n")
    };
    crate::runner::write_atomic(path, page.as_bytes())
}

fn unmarked(path: &Path) -> EvalError {
    let message = format!(
        "exists and has no lines `{BEGIN}` and `{END}`, between which the tables go; move it away or name another file"
    );
    EvalError::Results { dir: path.display().to_string(), message }
}

/// Appends formatted text; writing to a string cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments) {
    let _ = out.write_fmt(text);
}

fn section_text(out: &mut String, section: &Section, rows: &[RowResult], groups: &[SeedGroup], level: &str) {
    push(out, format_args!("\n{level} {}\n\n{}\n", section.title, section.about));
    push(
        out,
        format_args!("\n{level}# Training objective\n\n$${}$$\n\n{}\n", section.formula, section.symbols),
    );
    push(out, format_args!("\n{level}# Benchmark\n\n{}\n\n", budget_note(rows)));
    // Hard pairs and success mean something else under another protocol.
    let mixed = rows.iter().any(|row| row.protocol != rows[0].protocol);
    let own: Vec<&SeedGroup> =
        groups.iter().filter(|group| rows[group.rows[0]].system == section.system).collect();
    if own.is_empty() {
        out.push_str("No row: its cell has not been run.\n");
        return;
    }
    push(
        out,
        format_args!(
            "| Environment | Success rate [95 % interval], n | {} | Training seeds | Floor / ceiling | Checkpoint |\n\
             |---|---|---|---|---|---|\n",
            capital(hard_label(rows))
        ),
    );
    for group in own {
        let row = &rows[group.rows[0]];
        let checkpoint = match &row.checkpoint {
            Some(path) => checkpoint_link(path),
            None if row.train_seed.is_some() => "not kept".into(),
            None => "none".into(),
        };
        let protocol = if mixed { row.protocol.clone() } else { String::new() };
        let details = [tail(row), protocol].into_iter().filter(|text| !text.is_empty());
        let details: String = details.map(|text| format!(", {text}")).collect();
        push(
            out,
            format_args!(
                "| {}{} | {} | {} | {} | {} | {checkpoint} |\n",
                environment_link(&row.environment),
                plain(&details),
                row.score.all.text(),
                row.score.block_moved.text(),
                group.trainings_text(),
                bounds(row, rows),
            ),
        );
    }
}

/// Link to the environment's page: dynamics, success rule, factors.
fn environment_link(environment: &str) -> String {
    format!("[{}]({})", plain(environment_title(environment)), environment_page(environment))
}

fn checkpoint_link(path: &str) -> String {
    format!("[{}]({})", plain(path), path.replace(' ', "%20"))
}

/// The environment's page, if it lies where a report in `base` links to it.
pub(crate) fn page_beside(base: &Path, environment: &str) -> Option<String> {
    Some(environment_page(environment)).filter(|page| base.join(page).exists())
}

fn environment_page(environment: &str) -> String {
    format!("docs/envs/{environment}.md")
}

/// The environment's name in tables.
pub(crate) fn environment_title(name: &str) -> &str {
    domain::find(name).map_or(name, |env| env.spec().title)
}

/// Random floor and oracle ceiling on the same pairs.
fn bounds(row: &RowResult, rows: &[RowResult]) -> String {
    let rate = |system| {
        bound(row, rows, system)
            .map_or_else(|| "not run".to_string(), |rate| format!("{:.1} %", 100.0 * rate))
    };
    format!("{} / {}", rate(System::Random), rate(System::Oracle))
}

/// Success rate of a yardstick on the pairs of `row`.
pub(crate) fn bound(row: &RowResult, rows: &[RowResult], system: System) -> Option<f64> {
    let found = rows.iter().find(|other| other.system == system && other.comparable(row));
    found.map(|other| other.score.all.rate)
}

/// All rows in one table, yardsticks first; of rows that differ in seeds alone the first, with the mean of all.
fn overview(out: &mut String, rows: &[RowResult], groups: &[SeedGroup]) {
    if rows.is_empty() {
        out.push_str("\nNo row has been run yet.\n");
        return;
    }
    push(
        out,
        format_args!(
            "\n| Row | Environment | Success rate [95 % interval], n | {} | Training seeds | Seconds per plan | Protocol |\n\
             |---|---|---|---|---|---|---|\n",
            capital(hard_label(rows))
        ),
    );
    for group in sorted(rows, groups) {
        let row = &rows[group.rows[0]];
        push(
            out,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {}, {}, `{}` |\n",
                plain(&group.label),
                environment_link(&row.environment),
                row.score.all.text(),
                row.score.block_moved.text(),
                group.trainings_text(),
                seconds(row.score.seconds_per_plan),
                plain(&row.protocol),
                plain(&row.split),
                row.protocol_hash,
            ),
        );
    }
}

/// Rows over several seeds, and the learned rows that have one.
fn seed_section(out: &mut String, rows: &[RowResult], groups: &[SeedGroup]) {
    let several: Vec<_> = groups.iter().filter(|group| group.rows.len() > 1).collect();
    let single: Vec<String> = groups
        .iter()
        .filter(|group| group.one_seed())
        .map(|group| {
            plain(&format!("{} on {}", group.label, environment_title(&rows[group.rows[0]].environment)))
        })
        .collect();
    if several.is_empty() && single.is_empty() {
        return;
    }
    out.push_str("\n## Seeds\n\n");
    if !several.is_empty() {
        out.push_str("| Row | Environment | Seeds | Success of each [95 % interval], n | Mean (min to max) | Hard pairs |\n|---|---|---|---|---|---|\n");
    }
    for group in &several {
        push(
            out,
            format_args!(
                "| {} | {} | {} | {} | {} | {} |\n",
                plain(&group.label),
                environment_link(&rows[group.rows[0]].environment),
                group.seeds_text(),
                each(group, rows),
                group.all.text(),
                group.block_moved.text()
            ),
        );
    }
    if !single.is_empty() {
        push(
            out,
            format_args!(
                "\nTrained from one seed, so that the spread between trainings is not known: {}.\n",
                single.join("; ")
            ),
        );
    }
}

/// Success of every row of a group: `78.5 % [72.3, 83.6], n = 200; 76.5 % [70.2, 81.8], n = 200`.
fn each(group: &SeedGroup, rows: &[RowResult]) -> String {
    let rates = group.rows.iter().map(|&i| rows[i].score.all.text());
    rates.collect::<Vec<_>>().join("; ")
}

/// What the hard pairs of each environment of the rows are; of all environments when there are no rows.
pub(crate) fn hard_notes(rows: &[RowResult]) -> Vec<String> {
    let shown =
        ALL.iter().filter(|env| rows.is_empty() || rows.iter().any(|row| row.environment == env.name));
    let note = |env: &worldbench_env::Spec| {
        let Subset { name, about, .. } = env.hard;
        format!(
            "{}, {}: only the pairs in which {about}; the others are easily won.",
            env.title,
            capital(name)
        )
    };
    shown.map(note).collect()
}

fn reference_section(out: &mut String, rows: &[RowResult]) {
    out.push_str(
        "\n## How to read the numbers\n\n\
         * The interval is Wilson's 95 % score interval over the n episodes of the first training seed, whose checkpoint is \
         linked; *Training seeds* is the mean (smallest to largest) over all of them. Trainings of a policy on one model's encoder \
         share it, and their spread leaves out the encoder's.\n",
    );
    for note in hard_notes(rows) {
        push(out, format_args!("* {note}\n"));
    }
    out.push_str(
        "* Floor: *random*, uniform actions. Ceiling: *oracle*, planning with the true simulator and the true \
         distance on the same pairs. *No-op* does nothing; *data replay* repeats the recorded actions and shows \
         that the pairs can be solved; *weak* is the collection policy, which in Push-T sees the block's pose.\n\
         * Rows with equal protocol hash and equal n were run on the same pairs under the same rules; a smaller n is the first \
         pairs.\n",
    );
    let hashes: BTreeSet<&str> = rows.iter().map(|row| row.protocol_hash.as_str()).collect();
    if hashes.len() > 1 {
        push(
            out,
            format_args!(
                "* This page holds rows of {} protocol hashes; compare within one only.\n",
                hashes.len()
            ),
        );
    }
}

/// The command of every row; rows of one system that the same command makes share a line.
fn commands(out: &mut String, rows: &[RowResult], groups: &[SeedGroup]) {
    if rows.is_empty() {
        return;
    }
    out.push_str("\n## Commands\n\n");
    let made_alike =
        |&a: &usize, &b: &usize| rows[a].command == rows[b].command && rows[a].notes == rows[b].notes;
    for group in sorted(rows, groups) {
        for alike in group.rows.chunk_by(made_alike) {
            let row = &rows[alike[0]];
            push(
                out,
                format_args!(
                    "* {} on {} ({}): `{}`\n",
                    plain(&group.label),
                    environment_title(&row.environment),
                    seeds_text(&alike.iter().map(|&i| &rows[i]).collect::<Vec<_>>()),
                    row.command.replace('`', "'")
                ),
            );
            for note in &row.notes {
                push(out, format_args!("  * {}\n", plain(note)));
            }
        }
    }
}

/// By system, yardsticks first.
fn sorted<'a>(rows: &[RowResult], groups: &'a [SeedGroup]) -> Vec<&'a SeedGroup> {
    let mut sorted: Vec<&SeedGroup> = groups.iter().collect();
    sorted.sort_by_key(|group| rows[group.rows[0]].system);
    sorted
}

/// `Block-moved` for `block-moved`.
fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Text as it is, on one line: what Markdown reads as markup, or as the end of a table's cell, is escaped.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        // An underscore within a word is no markup.
        if "\\|`*<[$~".contains(c) || (c == '_' && !before.is_alphanumeric()) {
            out.push('\\');
        }
        out.push(if matches!(c, '\n' | '\r') { ' ' } else { c });
        before = c;
    }
    out
}

#[cfg(test)]
mod tests;
