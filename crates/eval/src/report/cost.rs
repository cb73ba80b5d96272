//! What the learned rows cost.

use super::{environment_link, plain, push, sorted};
use crate::provenance::{Machine, Training};
use crate::{RowResult, seeds::SeedGroup};

/// What a reader of the costs should know.
pub(crate) const COST_NOTE: &str = "Times are those of the clock, whatever else the machine did meanwhile, and memory is the \
     most that the process held meanwhile. A policy that sees with another model's encoder shows its own \
     training alone; the encoder's stands in that model's row.";

/// One line for each learned row; training times are those of every seed that is known.
pub(super) fn section(
    out: &mut String,
    rows: &[RowResult],
    trainings: &[Option<Training>],
    groups: &[SeedGroup],
) {
    let training = |i: &usize| trainings.get(*i).and_then(Option::as_ref);
    let known: Vec<(&SeedGroup, Vec<&Training>)> = sorted(rows, groups)
        .into_iter()
        .map(|group| (group, group.rows.iter().filter_map(training).collect()))
        .filter(|(_, own): &(_, Vec<_>)| !own.is_empty())
        .collect();
    if known.is_empty() {
        return;
    }
    push(
        out,
        format_args!(
            "\n## Cost\n\n{COST_NOTE}\n\n\
             | Row | Environment | Parameters | Training, each seed | Steps x batch | Memory in training | Trained on |\n\
             |---|---|---|---|---|---|---|\n"
        ),
    );
    for (group, own) in known {
        let (row, first) = (&rows[group.rows[0]], own[0]);
        let times: Vec<String> = own.iter().map(|training| duration(training.seconds)).collect();
        let memory = own.iter().filter_map(|training| training.peak_memory).max();
        let memory = memory.map_or("not recorded".into(), |bytes| format!("{} MB", bytes / 1_000_000));
        push(
            out,
            format_args!(
                "| {} | {} | {} | {} | {} x {} | {memory} | {} |\n",
                plain(&group.label),
                environment_link(&row.environment),
                first.parameters,
                times.join(", "),
                first.steps,
                first.batch,
                first.machine.as_ref().map_or("not recorded".into(), machine),
            ),
        );
    }
}

/// `45 s`, `31 min`, `2.2 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn machine(machine: &Machine) -> String {
    let name = if machine.processor.is_empty() { &machine.arch } else { &machine.processor };
    plain(&format!("{name}, {} cores", machine.cores))
}
