//! Parts of an evaluation, run anywhere and joined again.
//!
//! Part `i` of `N` runs the pairs whose index leaves the remainder `i - 1` when divided by `N`: parts are equally hard
//! on average, and no part needs to know of another. A part is a result directory with `part.json` in place of
//! `summary.json`. An episode depends on its pair and the seed alone, so the joined parts are the unsharded result.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::results::{ResultDir, SUMMARY_FILE, read_json, result_below};
use crate::runner::{EPISODES_FILE, RunKey, difference, read_episodes, write_atomic, write_episodes};
use crate::{EpisodeOutcome, EvalError, RowResult, Score};

/// What marks the directory of a finished part.
pub const PART_FILE: &str = "part.json";

/// Part `index` of `count`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether this part runs pair `pair`.
    #[must_use]
    pub fn holds(self, pair: usize) -> bool {
        pair % self.count == self.index - 1
    }

    /// The number of parts.
    #[must_use]
    pub fn count(self) -> usize {
        self.count
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no part; write i/N with 1 <= i <= N, e.g. 2/4");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let shard = Self { index: number(index)?, count: number(count)? };
        if shard.index == 0 || shard.index > shard.count { Err(wrong()) } else { Ok(shard) }
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// What a part's directory says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which part it is.
    pub shard: Shard,
    /// Pairs of the whole evaluation.
    pub total: usize,
    /// The row of the whole evaluation, with the score of this part.
    pub row: RowResult,
}

impl Part {
    /// Writes `part.json` into `dir`: the part is finished.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), EvalError> {
        let path = dir.join(PART_FILE);
        let text = serde_json::to_string_pretty(self).map_err(|e| EvalError::io(&path)(e.into()))?;
        write_atomic(&path, (text + "\n").as_bytes())
    }
}

/// A part with its episodes.
struct Read {
    dir: PathBuf,
    part: Part,
    key: RunKey,
    outcomes: Vec<EpisodeOutcome>,
}

impl Read {
    fn load(dir: &Path) -> Result<Self, EvalError> {
        let path = dir.join(PART_FILE);
        if !path.is_file() {
            let message = match dir.join(EPISODES_FILE).is_file() {
                true if dir.join(SUMMARY_FILE).is_file() => "holds a whole evaluation, not a part of one",
                true => "holds an unfinished part; give its command again, it goes on where it stopped",
                false => {
                    "is no part: there is no part.json in it; parts are made by `eval --shard i/N --out DIR`"
                }
            };
            return Err(refuse(dir, message));
        }
        let part: Part = read_json(&path)?;
        let (key, mut outcomes) = read_episodes(&dir.join(EPISODES_FILE))?;
        outcomes.retain(|outcome| outcome.index < part.total);
        Ok(Self { dir: dir.into(), part, key, outcomes })
    }

    /// Every pair of the part once, and no other.
    fn check(&self) -> Result<(), EvalError> {
        let shard = self.part.shard;
        let mine: Vec<usize> = self.outcomes.iter().map(|outcome| outcome.index).collect();
        if let Some(index) = mine.iter().find(|&&index| !shard.holds(index)) {
            return Err(refuse(
                &self.dir,
                &format!(
                    "holds episode {index}, which is not of part {shard}; make it again in a directory of its own"
                ),
            ));
        }
        match (0..self.part.total).find(|&index| shard.holds(index) && !mine.contains(&index)) {
            Some(index) => {
                Err(refuse(&self.dir, &format!("lacks episode {index} of part {shard}; run the part again")))
            }
            None => Ok(()),
        }
    }

    /// Refuses a part of another evaluation, naming what differs.
    fn same_evaluation(&self, first: &Self) -> Result<(), EvalError> {
        let number = |n: usize| n.to_string();
        let more = [
            ("number of parts", number(first.part.shard.count), number(self.part.shard.count)),
            ("number of episodes", number(first.part.total), number(self.part.total)),
        ];
        let differs = difference(&first.key, &self.key)
            .or_else(|| more.into_iter().find(|(_, there, here)| there != here));
        match differs {
            Some((field, there, here)) => Err(refuse(
                &self.dir,
                &format!(
                    "is a part of another evaluation than {} ({field}: there `{there}`, here `{here}`)",
                    first.dir.display()
                ),
            )),
            None => Ok(()),
        }
    }
}

fn refuse(dir: &Path, message: &str) -> EvalError {
    EvalError::Part { dir: dir.display().to_string(), message: message.into() }
}

/// Refuses an `out` that holds anything but this very result, which may be written again.
fn check_out(out: &Path, key: &RunKey, outcomes: &[EpisodeOutcome]) -> Result<(), EvalError> {
    let holds = |what: &str| Err(refuse(out, &format!("holds {what}; give another --out")));
    if out.join(PART_FILE).is_file() {
        return holds("a part");
    }
    let path = out.join(EPISODES_FILE);
    if path.is_file() {
        let (there, kept) = read_episodes(&path)?;
        if let Some((field, there, here)) = difference(&there, key) {
            return holds(&format!("another evaluation ({field}: there `{there}`, here `{here}`)"));
        }
        if kept != outcomes {
            return holds("other episodes of this evaluation than the parts");
        }
        return Ok(());
    }
    let finished = |dir: &&Path| dir.join(SUMMARY_FILE).is_file();
    if let Some(result) = out.ancestors().skip(1).find(finished) {
        return Err(refuse(out, &format!("lies in the result {}; give another --out", result.display())));
    }
    match result_below(out) {
        Some(result) => holds(&format!("another result, in {}", result.display())),
        None => Ok(()),
    }
}

/// Joins the parts in `dirs` into the result directory `out` and returns it.
///
/// # Errors
/// Names the part that is missing, unfinished, there twice, or of another evaluation, and what else `out` holds.
pub fn merge(dirs: &[PathBuf], out: &Path) -> Result<ResultDir, EvalError> {
    let parts: Vec<Read> = dirs.iter().map(|dir| Read::load(dir)).collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else {
        return Err(EvalError::Options("there are no parts to join; give their directories".into()));
    };
    for (i, part) in parts.iter().enumerate() {
        part.same_evaluation(first)?;
        if let Some(twin) = parts[..i].iter().find(|other| other.part.shard == part.part.shard) {
            let message = format!("is part {} again; so is {}", part.part.shard, twin.dir.display());
            return Err(refuse(&part.dir, &message));
        }
        part.check()?;
    }
    let count = first.part.shard.count;
    let missing: Vec<String> = (1..=count)
        .map(|index| Shard { index, count })
        .filter(|shard| parts.iter().all(|part| part.part.shard != *shard))
        .map(|shard| shard.to_string())
        .collect();
    if !missing.is_empty() {
        return Err(EvalError::Options(format!(
            "part {} is missing: give its directory, or make it with `{} --shard i/N --out DIR`",
            missing.join(", "),
            first.part.row.command
        )));
    }
    let mut outcomes: Vec<EpisodeOutcome> =
        parts.iter().flat_map(|part| part.outcomes.iter().cloned()).collect();
    outcomes.sort_by_key(|outcome| outcome.index);
    let row = RowResult { score: Score::of(&outcomes), ..first.part.row.clone() };
    check_out(out, &first.key, &outcomes)?;
    write_episodes(out, &first.key, &outcomes)?;
    row.save(&out.join(SUMMARY_FILE))?;
    ResultDir::load(out)
}

/// Directories of parts in and below each root, grouped by their path below it: `DIR/random` of every root belongs
/// together when an evaluation of several policies was split. A directory above the roots stands for them.
///
/// # Errors
/// When a root holds no part (unfinished ones count), or roots hold different ones.
pub fn find_parts(roots: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<PathBuf>)>, EvalError> {
    let mut groups: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    for root in roots.iter().flat_map(|root| opened(root)) {
        let root = root.as_path();
        let mut below = Vec::new();
        collect(root, Path::new(""), 3, &mut below);
        if below.is_empty() {
            return Err(refuse(root, "holds no part; parts are made by `eval --shard i/N --out DIR`"));
        }
        for name in below {
            let dir = root.join(&name);
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, dirs)) => dirs.push(dir),
                None => groups.push((name, vec![dir])),
            }
        }
    }
    Ok(groups)
}

/// The directories in `root` if they hold different parts, else `root`: all that was run as one part is the same part.
fn opened(root: &Path) -> Vec<PathBuf> {
    let mut below = Vec::new();
    collect(root, Path::new(""), 3, &mut below);
    let shard = |name: &PathBuf| read_json::<Part>(&root.join(name).join(PART_FILE)).ok().map(|p| p.shard);
    let mut shards = below.iter().map(shard);
    let first = shards.next();
    if shards.all(|shard| Some(shard) == first) {
        return vec![root.into()];
    }
    let mut roots: Vec<PathBuf> =
        below.iter().filter_map(|name| name.iter().next()).map(|d| root.join(d)).collect();
    roots.dedup();
    roots
}

fn collect(dir: &Path, name: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if dir.join(PART_FILE).is_file() || dir.join(EPISODES_FILE).is_file() {
        found.push(name.into());
        return;
    }
    let Some(left) = depth.checked_sub(1) else { return };
    let mut below: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
        .unwrap_or_default();
    below.sort();
    for path in below {
        let name = name.join(path.file_name().unwrap_or_default());
        collect(&path, &name, left, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Protocol, Split};
    use crate::{Baseline, EvalOptions, System, evaluate};

    /// Runs part `shard` of random on the first 7 pairs of `dev`.
    fn part(root: &Path, name: &str, shard: &str, seed: u64, threads: usize) -> PathBuf {
        let dir = root.join(name);
        let protocol = Protocol::find("held-out", "push_t").unwrap();
        let manifest = protocol.manifest(Split::Dev).unwrap();
        let shard: Option<Shard> = (!shard.is_empty()).then(|| shard.parse().unwrap());
        let options = EvalOptions {
            seed,
            threads,
            limit: Some(7),
            shard,
            resume_dir: Some(&dir),
            ..EvalOptions::default()
        };
        let evaluation = evaluate(&protocol, &manifest, &Baseline::Random, &options).unwrap();
        let row = RowResult::new(System::Random, "push_t", &evaluation, "worldbench eval --policy random");
        match shard {
            Some(shard) => Part { shard, total: 7, row }.save(&dir).unwrap(),
            None => row.save(&dir.join(SUMMARY_FILE)).unwrap(),
        }
        dir
    }

    #[test]
    fn joined_parts_are_the_unsharded_result_byte_for_byte() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let whole = part(root, "whole", "", 3, 2);
        let parts = ["3/3", "1/3", "2/3"].map(|s| part(root, &s.replace('/', "-"), s, 3, 1));
        let out = root.join("joined");
        let joined = merge(&parts, &out).unwrap();
        assert_eq!(joined.row.score.all.n, 7);
        for file in [EPISODES_FILE, SUMMARY_FILE] {
            let read = |dir: &Path| std::fs::read_to_string(dir.join(file)).unwrap();
            assert_eq!(read(&out), read(&whole), "{file}");
        }
        // The directory above the parts stands for them.
        let above = root.join("parts");
        std::fs::create_dir(&above).unwrap();
        let moved = ["1-3", "2-3", "3-3"].map(|name| above.join(name));
        moved.iter().for_each(|to| std::fs::rename(root.join(to.file_name().unwrap()), to).unwrap());
        assert_eq!(find_parts(&[above]).unwrap(), [(PathBuf::new(), moved.to_vec())]);
    }

    #[test]
    fn a_joined_result_overwrites_nothing_but_itself() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let parts = ["1/2", "2/2"].map(|s| part(root, &s.replace('/', "-"), s, 0, 1));
        let other = part(root, "other", "", 1, 1);
        let fails = |out: &Path| merge(&parts, out).unwrap_err().to_string();
        let out = root.join("out");
        for _ in 0..2 {
            merge(&parts, &out).unwrap();
        }
        assert!(fails(&parts[1]).contains("2-2 holds a part"), "{}", fails(&parts[1]));
        assert!(fails(&other).contains("seed: there `1`, here `0`"), "{}", fails(&other));
        assert!(fails(root).contains("another result, in"), "{}", fails(root));
        assert!(fails(&other.join("x")).contains("lies in the result"), "{}", fails(&other.join("x")));
        let text = std::fs::read_to_string(out.join(EPISODES_FILE)).unwrap();
        let last = text.lines().last().unwrap().replace("\"index\":6", "\"index\":7");
        let more = format!("{text}{last}\n");
        std::fs::write(out.join(EPISODES_FILE), &more).unwrap();
        assert!(fails(&out).contains("other episodes"), "{}", fails(&out));
        assert_eq!(std::fs::read_to_string(out.join(EPISODES_FILE)).unwrap(), more);
    }

    #[test]
    fn wrong_sets_of_parts_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let parts = ["1/2", "2/2"].map(|s| part(root, &s.replace('/', "-"), s, 0, 1));
        let again = part(root, "again", "2/2", 0, 1);
        let other = part(root, "other", "2/2", 1, 1);
        let third = part(root, "third", "3/3", 0, 1);
        let whole = part(root, "whole", "", 0, 1);
        let fails = |dirs: &[&PathBuf]| {
            let dirs: Vec<PathBuf> = dirs.iter().map(|d| (*d).clone()).collect();
            merge(&dirs, &root.join("out")).unwrap_err().to_string()
        };
        assert!(fails(&[&parts[0]]).contains("part 2/2 is missing"));
        let twice = fails(&[&parts[0], &parts[1], &again]);
        assert!(twice.contains("again") && twice.contains("2-2"), "{twice}");
        let foreign = fails(&[&parts[0], &other]);
        assert!(foreign.contains("other") && foreign.contains("seed: there `0`, here `1`"), "{foreign}");
        assert!(fails(&[&parts[0], &third]).contains("number of parts"));
        assert!(fails(&[&parts[0], &whole]).contains("a whole evaluation"));
        assert!(fails(&[]).contains("no parts"));
        // An episode lost from a finished part.
        let path = parts[1].join(EPISODES_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(&path, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
        assert!(fails(&[&parts[0], &parts[1]]).contains("lacks episode 5"));
        std::fs::remove_file(parts[1].join(PART_FILE)).unwrap();
        assert!(fails(&[&parts[0], &parts[1]]).contains("unfinished"));
    }

    #[test]
    fn parts_are_written_i_of_n() {
        let shard: Shard = "2/3".parse().unwrap();
        assert_eq!((0..7).filter(|&i| shard.holds(i)).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(shard.to_string(), "2/3");
        for wrong in ["0/3", "4/3", "2", "a/3", "2/", "1/0"] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("i/N"), "{wrong}");
        }
    }
}
