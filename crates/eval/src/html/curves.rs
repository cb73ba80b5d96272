//! Curves of the page: training logs, planning costs, distances to the goal.

use std::path::Path;

use serde::Serialize;

use crate::{EpisodeOutcome, EvalError};

/// Lower quartile, median and upper quartile.
pub(super) type Band = [f64; 3];

/// Points of a training curve at most; longer logs are thinned.
const MOST_POINTS: usize = 500;

/// `log.csv` of a training run.
#[derive(Serialize)]
pub(super) struct Log {
    name: String,
    /// Metrics.
    columns: Vec<String>,
    /// Step and then the metrics; null where one was not logged.
    train: Vec<Vec<Option<f64>>>,
    validation: Vec<Vec<Option<f64>>>,
}

impl Log {
    /// Reads `dir/log.csv`.
    pub(super) fn read(dir: &Path) -> Result<Self, EvalError> {
        let path = dir.join("log.csv");
        let text = std::fs::read_to_string(&path).map_err(EvalError::io(&path))?;
        let fail = |line: usize, message: &str| EvalError::Results {
            dir: format!("{}, line {line}", path.display()),
            message: message.into(),
        };
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let Some(columns) = header.strip_prefix("step,split,") else {
            return Err(fail(1, "is no training log; it begins with `step,split,`"));
        };
        let mut log = Self {
            name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            columns: columns.split(',').map(str::to_string).collect(),
            train: Vec::new(),
            validation: Vec::new(),
        };
        for (i, line) in lines.enumerate() {
            let fields: Vec<&str> = line.split(',').collect();
            // Validation rows end with metrics that the header, made from the first training row, does not name.
            let known = log.columns.len() + 2;
            if fields.len() < known {
                // A kill may leave half a line at the end.
                if i + 2 == text.lines().count() {
                    break;
                }
                return Err(fail(i + 2, "has fewer fields than the first line"));
            }
            let number = |text: &str| text.parse::<f64>().ok().filter(|v| v.is_finite());
            let row =
                std::iter::once(fields[0]).chain(fields[2..known].iter().copied()).map(number).collect();
            if fields[1] == "train" { log.train.push(row) } else { log.validation.push(row) }
        }
        for rows in [&mut log.train, &mut log.validation] {
            let stride = rows.len().div_ceil(MOST_POINTS).max(1);
            let last = rows.len().saturating_sub(1);
            let mut indices = 0..=last;
            rows.retain(|_| indices.next().is_some_and(|i| i.is_multiple_of(stride) || i == last));
        }
        Ok(log)
    }
}

/// Cost of the best candidate by iteration, relative to the first iteration, over all plans; none when no plan has them.
pub(super) fn costs(outcomes: &[EpisodeOutcome]) -> Option<Vec<Band>> {
    let plans: Vec<&Vec<f32>> = outcomes
        .iter()
        .flat_map(|o| &o.plan_costs)
        .filter(|plan| plan.first().is_some_and(|&c| c > 0.0))
        .collect();
    let iterations = plans.iter().map(|plan| plan.len()).max().filter(|&n| n > 1)?;
    let at = |k: usize| {
        let relative = plans.iter().filter_map(|plan| Some(f64::from(*plan.get(k)? / plan[0])));
        quartiles(relative.filter(|v| v.is_finite()).collect())
    };
    Some((0..iterations).map(at).collect())
}

/// Distance to the goal by env step over all episodes, px; an episode that has ended keeps its last one.
pub(super) fn distances(outcomes: &[EpisodeOutcome]) -> Option<Vec<Band>> {
    let steps = outcomes.iter().map(|o| o.distances.len()).max().filter(|&n| n > 0)?;
    let at = |t: usize| {
        let now = outcomes.iter().filter_map(|o| o.distances.get(t).or(o.distances.last()).copied());
        quartiles(now.collect())
    };
    Some((0..steps).map(at).collect())
}

/// Quartiles by nearest rank, four significant digits; zeros for no values.
fn quartiles(mut values: Vec<f64>) -> Band {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return [0.0; 3] };
    [0.25, 0.5, 0.75].map(|q| {
        let value = values[(q * last as f64).round() as usize];
        let digits = 10f64.powi(3 - value.abs().max(1e-12).log10().floor() as i32);
        (value * digits).round() / digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_ranks() {
        assert_eq!(quartiles((1..=5).map(f64::from).collect()), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(vec![0.123_456, 0.123_456]), [0.1235; 3]);
        assert_eq!(quartiles(vec![0.0]), [0.0; 3]);
        assert_eq!(quartiles(Vec::new()), [0.0; 3]);
    }

    #[test]
    fn logs_are_read_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(dir.path().join("log.csv"), text).unwrap();
            Log::read(dir.path())
        };
        let log = read("step,split,loss,std\n50,train,0.5,\n50,val,0.6,1,7\n100,tra").unwrap();
        assert_eq!(log.columns, ["loss", "std"]);
        assert_eq!(log.train, [[Some(50.0), Some(0.5), None]]);
        assert_eq!(log.validation, [[Some(50.0), Some(0.6), Some(1.0)]]);
        let long: String = (0..2_000).map(|i| format!("{i},train,1\n")).collect();
        let log = read(&format!("step,split,loss\n{long}")).unwrap();
        assert!(log.train.len() <= MOST_POINTS + 1 && log.train.last().unwrap()[0] == Some(1_999.0));
        let message = |text: &str| read(text).err().unwrap().to_string();
        assert!(message("step,split,loss\n1,train\n2,train,3\n").contains("line 2"));
        assert!(message("a,b\n").contains("no training log"));
    }
}
