//! Layered configuration: defaults, then a TOML preset or file, then `--set key=value`.
//!
//! A key that the configuration's type does not have is an error that names the nearest key, so a typo can never train
//! a different model in silence. Keys that are optional, or belong to another `kind`, are not among the defaults: the
//! type itself is asked whether it takes them, and must deny unknown fields.

use std::num::IntErrorKind;

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}; give the path of a TOML file")]
    Read {
        /// Path as given.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// File, preset or `--set` text.
        origin: String,
        /// The parser's message with line and column.
        message: String,
    },
    /// A key nobody reads.
    #[error("{origin}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// File, preset or `--set` text.
        origin: String,
        /// Dotted key.
        key: String,
        /// What to write instead.
        hint: String,
    },
    /// A value of the wrong type or outside its range.
    #[error("{origin}: {message}")]
    Value {
        /// File, preset or `--set` text.
        origin: String,
        /// Which key and why.
        message: String,
    },
}

/// A configuration being put together, layer by layer.
#[derive(Clone, Debug)]
pub struct Layers {
    table: Table,
    /// What was laid on the defaults, with its origin.
    laid: Vec<(String, Table)>,
    /// The table read as the configuration's type and written down again, with the defaults of what was left out.
    complete: fn(Table) -> Result<Table, toml::de::Error>,
}

impl Layers {
    /// Starts from the defaults; their type says which keys are legal.
    ///
    /// # Errors
    /// When `T` has no TOML form.
    pub fn new<T: Serialize + DeserializeOwned>(defaults: &T) -> Result<Self, ConfigError> {
        let table = Table::try_from(defaults)
            .map_err(|e| ConfigError::Value { origin: "defaults".into(), message: e.to_string() })?;
        let complete = |table: Table| {
            let typed: T = table.try_into()?;
            Table::try_from(typed).map_err(serde::de::Error::custom)
        };
        Ok(Self { table, laid: Vec::new(), complete })
    }

    /// Lays the TOML `text` on top; `origin` names it in errors.
    ///
    /// # Errors
    /// On a syntax error, an unknown key or a change of type.
    pub fn text(mut self, origin: &str, text: &str) -> Result<Self, ConfigError> {
        let layer: Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
            origin: origin.into(),
            message: e.to_string(),
        })?;
        self.laid.push((origin.into(), layer.clone()));
        let mut doubts = Doubts::default();
        merge(&mut self.table, layer, "", &mut doubts);
        match (self.complete)(self.table.clone()) {
            Ok(complete) if doubts.switched => self.table = complete,
            Ok(_) => {}
            Err(error) => {
                let (unknown, message) = (self.unknown_key(&error), reason(&error));
                if let Some(unknown) = unknown {
                    return Err(unknown);
                }
                let no_kind = doubts.switched && message.contains("unknown variant");
                if let Some(message) = doubts.retyped.or(no_kind.then_some(message)) {
                    return Err(ConfigError::Value { origin: origin.into(), message });
                }
                // Incomplete as yet, such as a `kind` whose other keys follow; `resolve` has the last word.
            }
        }
        Ok(self)
    }

    /// Lays the TOML file at `path` on top.
    ///
    /// # Errors
    /// When it cannot be read, and as [`Layers::text`].
    pub fn file(self, path: &std::path::Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        self.text(&shown, &text)
    }

    /// Lays `a.b=value` on top. The value is TOML; a bare word is taken as a string.
    ///
    /// # Errors
    /// As [`Layers::text`], and when there is no `=`.
    pub fn set(self, assignment: &str) -> Result<Self, ConfigError> {
        let origin = format!("--set {assignment}");
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(ConfigError::Value {
                origin,
                message: "write it as key=value, e.g. train.steps=1000".into(),
            });
        };
        let (key, value) = (key.trim(), value.trim());
        let parsed = format!("{key} = {value}");
        if parsed.parse::<Table>().is_ok() {
            return self.text(&origin, &parsed);
        }
        if let Err(e) = value.parse::<i64>()
            && matches!(e.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow)
        {
            let message = format!("`{key}`: a whole number lies in {} to {}", i64::MIN, i64::MAX);
            return Err(ConfigError::Value { origin, message });
        }
        self.text(&origin, &format!("{key} = {}", Value::String(value.into())))
    }

    /// Lays every assignment on top, as [`Layers::set`]. Each `kind` comes first, outer ones before inner ones: it brings
    /// the defaults that the others are laid on, in whatever order they were written.
    ///
    /// # Errors
    /// As [`Layers::set`].
    pub fn set_all(self, assignments: &[String]) -> Result<Self, ConfigError> {
        let depth = |assignment: &&String| match assignment.split('=').next().map_or("", str::trim) {
            key if key == "kind" || key.ends_with(".kind") => key.matches('.').count(),
            _ => usize::MAX,
        };
        let mut ordered: Vec<&String> = assignments.iter().collect();
        ordered.sort_by_key(depth);
        ordered.into_iter().try_fold(self, |layers, assignment| layers.set(assignment))
    }

    /// The typed result.
    ///
    /// # Errors
    /// When a value does not fit its key's type.
    pub fn resolve<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.table.clone().try_into().map_err(|e: toml::de::Error| {
            let value = ConfigError::Value { origin: self.origin(&e).into(), message: reason(&e) };
            self.unknown_key(&e).unwrap_or(value)
        })
    }

    /// Which layer wrote the value that `error` is about; the last one where that cannot be told.
    fn origin(&self, error: &toml::de::Error) -> &str {
        let text = error.to_string();
        let key = text.rsplit_once("in `").and_then(|(_, rest)| rest.split_once('`')).map(|(key, _)| key);
        let wrote = |layer: &Table| key.is_some_and(|key| holds(layer, key));
        let found = self.laid.iter().rev().find(|(_, layer)| wrote(layer)).or(self.laid.last());
        found.map_or("defaults", |(origin, _)| origin)
    }

    /// The error of a key that `error` calls unknown, if it was laid on the defaults.
    fn unknown_key(&self, error: &toml::de::Error) -> Option<ConfigError> {
        let (_, rest) = error.message().split_once("unknown field `")?;
        let (key, rest) = rest.split_once('`')?;
        let found = self.laid.iter().rev().find_map(|(origin, layer)| Some((origin, place(layer, key)?)));
        let (origin, prefix) = found?;
        let mut known: Vec<&str> =
            rest.lines().next().unwrap_or_default().split('`').skip(1).step_by(2).collect();
        // The type does not list the key that chooses among its kinds; it is in the table.
        let there = table_at(&self.table, &prefix).into_iter().flat_map(Table::keys);
        let unlisted: Vec<&str> =
            there.map(String::as_str).filter(|name| *name != key && !known.contains(name)).collect();
        known.extend(unlisted);
        let hint = match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{prefix}{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        Some(ConfigError::UnknownKey { origin: origin.clone(), key: format!("{prefix}{key}"), hint })
    }

    /// The resolved configuration as TOML, for run directories and `config show`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.table.to_string()
    }
}

/// What a merge leaves for the type to judge.
#[derive(Default)]
struct Doubts {
    /// A table was exchanged for one of another `kind`, whose defaults are missing.
    switched: bool,
    /// The message about a value of another type than the one it replaced, should the type refuse it.
    retyped: Option<String>,
}

fn merge(base: &mut Table, layer: Table, prefix: &str, doubts: &mut Doubts) {
    // Another `kind` has other keys: the new table stands alone.
    if let (Some(old), Some(new)) = (base.get("kind"), layer.get("kind"))
        && old != new
    {
        *base = layer;
        doubts.switched = true;
        return;
    }
    for (key, value) in layer {
        let dotted = format!("{prefix}{key}");
        match (base.get_mut(&key), value) {
            (None, value) => _ = base.insert(key, value),
            (Some(Value::Table(inner)), Value::Table(new)) => {
                merge(inner, new, &format!("{dotted}."), doubts)
            }
            (Some(slot @ Value::Float(_)), Value::Integer(i)) => *slot = Value::Float(i as f64),
            (Some(slot), new) => {
                if !slot.same_type(&new) {
                    doubts.retyped = Some(retyped(&dotted, slot, &new));
                }
                *slot = new;
            }
        }
    }
}

fn retyped(key: &str, old: &Value, new: &Value) -> String {
    let (wanted, got) = (old.type_str(), new.type_str());
    let article = if wanted.starts_with(['a', 'i']) { "an" } else { "a" };
    let keys = old.as_table().map_or(String::new(), |table| {
        let keys: Vec<&str> = table.keys().map(String::as_str).collect();
        format!("; set one of its keys, such as {}", keys.join(", "))
    });
    format!("`{key}` takes {article} {wanted}, but got the {got} {new}{keys}")
}

/// Whether `table` has the dotted `key`.
fn holds(table: &Table, key: &str) -> bool {
    match key.split_once('.') {
        Some((first, rest)) => {
            table.get(first).and_then(Value::as_table).is_some_and(|inner| holds(inner, rest))
        }
        None => table.contains_key(key),
    }
}

/// Where in `table` the key lies, with a dot behind every table's name.
fn place(table: &Table, key: &str) -> Option<String> {
    let within =
        |(name, value): (&String, &Value)| Some(format!("{name}.{}", place(value.as_table()?, key)?));
    if table.contains_key(key) { Some(String::new()) } else { table.iter().find_map(within) }
}

/// The table in `table` behind `prefix`, as [`place`] gives it.
fn table_at<'a>(table: &'a Table, prefix: &str) -> Option<&'a Table> {
    prefix.split_terminator('.').try_fold(table, |table, name| table.get(name)?.as_table())
}

/// The message with the key that it is about, on one line.
fn reason(error: &toml::de::Error) -> String {
    error.to_string().lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The nearest of `known` to `name`, for "did you mean" messages; `None` when nothing is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)))
        .filter(|near| strsim::jaro_winkler(near, name) > 0.7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Config {
        steps: u64,
        name: String,
        optim: Optim,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        #[serde(default)]
        solver: Solver,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "kind", rename_all = "kebab-case")]
    enum Solver {
        Cem(Cem),
        Given(Given),
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(default, deny_unknown_fields)]
    struct Cem {
        samples: Count,
        topk: usize,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Given {
        path: String,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Count {
        Number(usize),
        Word(String),
    }

    impl Default for Solver {
        fn default() -> Self {
            Self::Given(Given { path: "x".into() })
        }
    }

    impl Default for Cem {
        fn default() -> Self {
            Self { samples: Count::Number(300), topk: 30 }
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Optim {
        learning_rate: f64,
    }

    fn config() -> Config {
        let (optim, solver) = (Optim { learning_rate: 0.1 }, Solver::default());
        Config { steps: 10, name: "a".into(), optim, from: None, solver }
    }

    fn base() -> Layers {
        Layers::new(&config()).unwrap()
    }

    fn set(assignments: &[&str]) -> Result<Config, ConfigError> {
        let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        base().set_all(&assignments)?.resolve()
    }

    #[test]
    fn later_layers_win() {
        let layers = base().text("p.toml", "steps = 5\n[optim]\nlearning_rate = 1").unwrap();
        let config: Config = layers.set("name=long-run").unwrap().set("steps=7").unwrap().resolve().unwrap();
        assert_eq!((config.steps, config.name.as_str(), config.optim.learning_rate), (7, "long-run", 1.0));
    }

    #[test]
    fn a_typo_names_the_nearest_key() {
        let error = base().set("optim.learning_rat=3").unwrap_err().to_string();
        assert!(error.contains("`optim.learning_rat`") && error.contains("`optim.learning_rate`"), "{error}");
        let error = base().text("p.toml", "zzz = 1").unwrap_err().to_string();
        assert!(error.contains("known here: steps, name, optim, from, solver"), "{error}");
    }

    #[test]
    fn wrong_types_and_shapes_are_refused() {
        let error = base().set("steps=many").unwrap_err().to_string();
        assert!(error.contains("`steps` takes an integer"), "{error}");
        assert!(base().set("steps").is_err());
        assert!(base().text("p.toml", "steps = ").unwrap_err().to_string().contains("p.toml"));
        let error = set(&["steps=-1", "name=b"]).unwrap_err().to_string();
        assert!(error.starts_with("--set steps=-1"), "{error}");
    }

    #[test]
    fn optional_keys_and_those_of_another_kind_are_taken() {
        assert_eq!(set(&["from=there"]).unwrap().from.as_deref(), Some("there"));
        let error = set(&["form=there"]).unwrap_err().to_string();
        assert!(error.contains("did you mean `from`"), "{error}");
        let cem = |samples, topk| Solver::Cem(Cem { samples, topk });
        assert_eq!(set(&["solver.kind=cem"]).unwrap().solver, cem(Count::Number(300), 30));
        // The order does not matter, and a value may be of any type that its key takes.
        let solver = set(&["solver.topk=8", "solver.samples=all", "solver.kind=cem"]).unwrap().solver;
        assert_eq!(solver, cem(Count::Word("all".into()), 8));
        for (assignments, expect) in [
            (["solver.kind=cem", "solver.topq=8"], "did you mean `solver.topk`"),
            (["solver.kind=cme", "steps=3"], "--set solver.kind=cme: unknown variant `cme`"),
            (["solver=cem", "steps=3"], "takes a table, but got the string \"cem\"; set one of its keys"),
            (["solver.path=y", "solver.topk=3"], "unknown key `solver.topk`; known here: path, kind"),
            (["solver.knid=cem", "steps=3"], "did you mean `solver.kind`"),
        ] {
            let error = set(&assignments).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn a_number_too_large_for_toml_is_told_its_range() {
        let error = set(&["steps=18446744073709551615"]).unwrap_err().to_string();
        assert!(
            error.contains("`steps`: a whole number lies in") && error.contains("to 9223372036854775807"),
            "{error}"
        );
    }
}
