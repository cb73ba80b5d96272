//! `worldbench merge`.

use std::path::{PathBuf, absolute};

use anyhow::{Result, bail};
use worldbench_eval::provenance::Provenance;
use worldbench_eval::rows::terminal_table;
use worldbench_eval::shard::{find_parts, merge};

use crate::output::{Outcome, command_line, print, print_json};

/// Join the parts of an evaluation (`eval --shard i/N`) into exactly the result of the unsharded run
///
/// Episodes and scores are equal bit for bit; measured times are those of the parts. A part that is missing, unfinished,
/// given twice, or of another evaluation is refused by name, and so is an --out that holds anything else.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  for i in 1 2 3 4; do worldbench eval --policy random --shard $i/4 --out parts/$i; done
  worldbench merge parts --out results/random
  sbatch --array=1-8 --wrap 'worldbench eval --policy oracle --shard $SLURM_ARRAY_TASK_ID/8 --out parts/$SLURM_ARRAY_TASK_ID'")]
pub struct Args {
    /// Directories of the parts, or the one above them; where several policies or seeds were run, the directories above
    #[arg(value_name = "PART", required = true)]
    parts: Vec<PathBuf>,
    /// Where the joined result goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object per row
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let out = absolute(&args.out)?;
    if let Some(root) = args.parts.iter().find(|root| absolute(root).is_ok_and(|root| out.starts_with(root)))
    {
        let (out, root) = (args.out.display(), root.display());
        bail!("--out {out} lies in {root}, where the parts are read from; give another");
    }
    let mut rows = Vec::new();
    for (name, dirs) in find_parts(&args.parts)? {
        let out = if name.as_os_str().is_empty() { args.out.clone() } else { args.out.join(name) };
        let joined = merge(&dirs, &out)?;
        Provenance { training: joined.training, ..Provenance::here(&command_line(), 1) }.save(&out)?;
        if args.json {
            print_json(&joined.row)?;
        }
        rows.push(joined.row);
    }
    if !args.json {
        print(terminal_table(&rows).trim_end())?;
    }
    Ok(Outcome::Done)
}
