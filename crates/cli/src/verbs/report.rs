//! `worldbench report`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use worldbench_eval::html::write_html;
use worldbench_eval::report::write_markdown;
use worldbench_eval::{Provenance, ResultDir, RowResult};

use crate::output::{Outcome, command_line, make_parent, print};

/// Write the benchmark page of some results: .html to look at, .md in the mission's layout
///
/// The HTML page is one file that loads nothing: tables, success bars with intervals, floor and ceiling, training curves,
/// planning costs, every episode as an animation, cost and provenance.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worldbench report benchmarks -o report.html
  worldbench report runs/bench-quick results/mine -o report.html
  worldbench report benchmarks -o report.md")]
pub struct Args {
    /// Result directories (`eval --out`), output folders of `bench`, or directories above them
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Page to write; its ending says which kind
    #[arg(short, long, value_name = "FILE.html|FILE.md")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let kind = args.output.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if !["html", "md"].contains(&kind) {
        bail!("--output {}: the name must end in .html or .md", args.output.display());
    }
    let mut results: Vec<ResultDir> = Vec::new();
    for run in &args.runs {
        for found in ResultDir::find(run)? {
            match results.iter().find(|known| known.same_as(&found)) {
                Some(known) if known.path == found.path => {}
                Some(known) => print(format!(
                    "{} holds the same episodes as {}; shown once",
                    found.path.display(),
                    known.path.display()
                ))?,
                None => results.push(found),
            }
        }
    }
    // Stable: the seeds of a row keep the order of their directories.
    results.sort_by_key(|result| (result.row.environment.clone(), result.row.system, result.row.label()));
    make_parent(&args.output)?;
    match kind {
        "html" => write_html(&args.output, &results, &Provenance::here(&command_line(), 1))?,
        _ => {
            let base = args.output.parent().unwrap_or(Path::new(""));
            let rows = results.iter().map(|result| {
                let kept = result.checkpoint.as_ref().map(|path| relative(path, base)).transpose()?;
                let checkpoint = kept.or_else(|| result.row.checkpoint.clone());
                Ok(RowResult { checkpoint, ..result.row.clone() })
            });
            let rows = rows.collect::<Result<Vec<RowResult>>>()?;
            let trainings: Vec<_> = results.iter().map(|result| result.training.clone()).collect();
            write_markdown(&args.output, &rows, &trainings, &[])?;
        }
    }
    let size = std::fs::metadata(&args.output).map_or(0, |file| file.len());
    print(format!("wrote {} ({} rows, {} kB)", args.output.display(), results.len(), size / 1000))?;
    Ok(Outcome::Done)
}

/// How a page in `base` links to `path`.
fn relative(path: &Path, base: &Path) -> Result<String> {
    let here = std::env::current_dir()?;
    let (path, base) = (here.join(path), here.join(base));
    let shared = path.components().zip(base.components()).take_while(|(a, b)| a == b).count();
    let up = base.components().skip(shared).map(|_| "..");
    let parts =
        up.map(Path::new).chain(path.components().skip(shared).map(|part| Path::new(part.as_os_str())));
    Ok(parts.collect::<PathBuf>().display().to_string())
}
