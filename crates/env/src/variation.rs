//! Variation spaces: everything about a scene that is not its state, and how a seed samples it.
//!
//! Every factor has its own NumPy-compatible random stream: each group's generator draws one 31-bit seed per
//! child in alphabetical order. Sampling one factor therefore never shifts another.

use crate::error::EnvError;
use worldbench_core::numpy::Pcg64;

/// How often a value that breaks a constraint is drawn again before sampling gives up, as in the reference.
const TRIES: usize = 1000;

/// How a factor's values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Three channels, 0 to 255.
    Color,
    /// Whole numbers, each drawn by itself.
    Integers,
    /// One whole number, often an index into a list.
    Index,
    /// Values rounded to f32.
    Float32,
    /// f64 values.
    Float64,
}

/// One factor of variation.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Factor {
    /// Name, `group.factor`.
    pub name: &'static str,
    /// How it is drawn.
    pub kind: Kind,
    /// Number of values, 1 to 3.
    pub len: usize,
    /// Lower bound of every value, inclusive.
    pub low: f64,
    /// Upper bound of every value, inclusive.
    pub high: f64,
    /// Whether a reset samples it unless told otherwise.
    pub sampled_by_default: bool,
    /// What it is, with the unit.
    pub what: &'static str,
}

pub(crate) const fn factor(
    name: &'static str,
    kind: Kind,
    len: usize,
    [low, high]: [f64; 2],
    sampled_by_default: bool,
    what: &'static str,
) -> Factor {
    Factor { name, kind, len, low, high, sampled_by_default, what }
}

impl Factor {
    /// The part of the name before the dot.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Draws the next values from the factor's stream; unused ones are 0.
    fn draw(&self, rng: &mut Pcg64) -> [f64; 3] {
        let mut values = [0.0; 3];
        let count = self.high - self.low + 1.0;
        for v in &mut values[..self.len] {
            *v = match self.kind {
                Kind::Color | Kind::Integers => rng.uniform(0.0, count).floor() + self.low,
                Kind::Index => self.low + f64::from(rng.below_u32(count as u32)),
                Kind::Float32 => f64::from(rng.uniform(self.low, self.high) as f32),
                Kind::Float64 => rng.uniform(self.low, self.high),
            };
        }
        values
    }

    /// Values for storing: padded with 0, and rounded where the factor holds f32.
    fn accept(&self, values: &[f64]) -> Result<[f64; 3], String> {
        if values.len() != self.len {
            return Err(format!("needs {} value(s), got {}", self.len, values.len()));
        }
        let whole = matches!(self.kind, Kind::Color | Kind::Integers | Kind::Index);
        let mut padded = [0.0; 3];
        for (v, slot) in values.iter().zip(&mut padded) {
            if !(self.low..=self.high).contains(v) {
                return Err(format!("{v} is outside {} to {}", self.low, self.high));
            }
            if whole && v.fract() != 0.0 {
                return Err(format!("{v} is not a whole number"));
            }
            *slot = if self.kind == Kind::Float32 { f64::from(*v as f32) } else { *v };
        }
        Ok(padded)
    }
}

/// The factors of an environment: a table of names and bounds, and a value for each entry.
///
/// [`Default`] is the reference's default scene.
pub trait Variation:
    Clone + Default + PartialEq + std::fmt::Debug + Send + Sync + serde::Serialize + serde::de::DeserializeOwned
{
    /// All factors: groups and names in alphabetical order, which is also the order of seeding.
    const FACTORS: &'static [Factor];

    /// Indices of the factors that [`Variation::admissible`] tests. They are drawn after all others; as every factor
    /// has a stream of its own, nothing else about the order matters.
    const CONSTRAINED: &'static [usize] = &[];

    /// Indices of factors that only set where an episode starts, or do nothing: frames do not depend on them.
    const INVISIBLE: &'static [usize] = &[];

    /// The values of factor `index` of [`Variation::FACTORS`]; its `len` values, none when there is no such factor.
    fn get(&self, index: usize) -> Vec<f64>;

    /// Stores checked values of factor `index`; those beyond its `len` are 0.
    fn assign(&mut self, index: usize, values: [f64; 3]);

    /// Whether factor `index` fits the others.
    ///
    /// # Errors
    /// Says what it clashes with and how to avoid that.
    fn admissible(&self, _index: usize) -> Result<(), String> {
        Ok(())
    }

    /// Index of the factor called `name`.
    ///
    /// # Errors
    /// Names the nearest factor when there is none called `name`.
    fn index_of(name: &str) -> Result<usize, EnvError> {
        Self::FACTORS.iter().position(|f| f.name == name).ok_or_else(|| unknown(Self::FACTORS, name))
    }

    /// Sets the factor called `name`.
    ///
    /// # Errors
    /// On an unknown name, a wrong number of values, a value out of bounds, or a fraction where a whole number
    /// is needed. Nothing is clipped.
    fn set(&mut self, name: &str, values: &[f64]) -> Result<(), EnvError> {
        let index = Self::index_of(name)?;
        let accepted = Self::FACTORS[index].accept(values).map_err(|message| refused(name, message))?;
        self.assign(index, accepted);
        Ok(())
    }
}

fn refused(name: &str, message: String) -> EnvError {
    EnvError::FactorValue { name: name.to_owned(), message }
}

fn unknown(factors: &[Factor], name: &str) -> EnvError {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let near: Vec<&str> =
        factors.iter().map(|f| f.name).filter(|f| !leaf.is_empty() && f.contains(leaf)).collect();
    let hint = if near.is_empty() {
        let all: Vec<&str> = factors.iter().map(|f| f.name).collect();
        let mut groups: Vec<&str> = factors.iter().map(Factor::group).collect();
        groups.dedup();
        format!("use `all`, a group ({}) or one of {}", groups.join(", "), all.join(", "))
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    EnvError::UnknownFactor { name: name.to_owned(), hint }
}

/// One stream per factor, seeded as the reference's nested spaces are.
fn streams(factors: &[Factor], seed: u64) -> Vec<Pcg64> {
    let mut root = Pcg64::new(seed);
    let mut group = root.clone();
    let mut last = "";
    let mut stream = |f: &Factor| {
        if f.group() != last {
            group = Pcg64::new(u64::from(root.below_u32(i32::MAX as u32)));
            last = f.group();
        }
        Pcg64::new(u64::from(group.below_u32(i32::MAX as u32)))
    };
    factors.iter().map(&mut stream).collect()
}

/// Which factors a reset samples and which it sets.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sampling {
    /// Names, groups or "all"; `None` samples the factors that the environment samples by default.
    pub sampled: Option<Vec<String>>,
    /// Explicit values; they win over sampled ones.
    pub values: Vec<(String, Vec<f64>)>,
}

/// A sampled scene, with the streams it came from.
#[derive(Clone, Debug)]
pub struct Drawn<F> {
    /// The scene.
    pub factors: F,
    streams: Vec<Pcg64>,
}

impl<F: Variation> Drawn<F> {
    /// The next values of factor `index` from its stream, without storing them.
    pub fn again(&mut self, index: usize) -> [f64; 3] {
        F::FACTORS[index].draw(&mut self.streams[index])
    }

    /// Draws factor `index` until it is admissible.
    fn sample(&mut self, index: usize) -> Result<(), EnvError> {
        let mut verdict = Ok(());
        for _ in 0..TRIES {
            let values = self.again(index);
            self.factors.assign(index, values);
            verdict = self.factors.admissible(index);
            if verdict.is_ok() {
                break;
            }
        }
        verdict.map_err(|why| refused(F::FACTORS[index].name, format!("{TRIES} draws failed: {why}")))
    }
}

impl Sampling {
    /// Samples every factor.
    #[must_use]
    pub fn all() -> Self {
        Self { sampled: Some(vec!["all".into()]), values: Vec::new() }
    }

    fn chosen<F: Variation>(&self) -> Result<Vec<bool>, EnvError> {
        let Some(names) = &self.sampled else {
            return Ok(F::FACTORS.iter().map(|f| f.sampled_by_default).collect());
        };
        let mut chosen = vec![false; F::FACTORS.len()];
        for name in names {
            let mut known = false;
            for (flag, f) in chosen.iter_mut().zip(F::FACTORS) {
                if name == "all" || name == f.name || name == f.group() {
                    *flag = true;
                    known = true;
                }
            }
            if !known {
                return Err(unknown(F::FACTORS, name));
            }
        }
        Ok(chosen)
    }

    /// The scene of `seed`: defaults, then the sampled factors, then the explicit values, all checked at the end.
    ///
    /// # Errors
    /// On unknown names, values out of bounds and values that do not fit together.
    pub fn draw<F: Variation>(&self, seed: u64) -> Result<Drawn<F>, EnvError> {
        let chosen = self.chosen::<F>()?;
        let mut drawn = Drawn { factors: F::default(), streams: streams(F::FACTORS, seed) };
        let free = (0..F::FACTORS.len()).filter(|index| !F::CONSTRAINED.contains(index));
        for index in free.chain(F::CONSTRAINED.iter().copied()).filter(|&index| chosen[index]) {
            drawn.sample(index)?;
        }
        for (name, values) in &self.values {
            drawn.factors.set(name, values)?;
        }
        for &index in F::CONSTRAINED {
            drawn.factors.admissible(index).map_err(|why| refused(F::FACTORS[index].name, why))?;
        }
        Ok(drawn)
    }
}
