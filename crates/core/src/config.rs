//! Layered configuration: defaults, then a TOML preset or file, then `--set key=value`.
//!
//! A key that the defaults do not have is an error that names the nearest key, so a typo can never train a
//! different model in silence.

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
    last_origin: String,
}

impl Layers {
    /// Starts from the defaults, which also define the set of legal keys.
    ///
    /// # Errors
    /// When `T` has no TOML form.
    pub fn new<T: Serialize>(defaults: &T) -> Result<Self, ConfigError> {
        let table = Table::try_from(defaults)
            .map_err(|e| ConfigError::Value { origin: "defaults".into(), message: e.to_string() })?;
        Ok(Self { table, last_origin: "defaults".into() })
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
        merge(&mut self.table, layer, "", origin)?;
        self.last_origin = origin.into();
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
        match parsed.parse::<Table>() {
            Ok(_) => self.text(&origin, &parsed),
            Err(_) => self.text(&origin, &format!("{key} = {}", Value::String(value.into()))),
        }
    }

    /// The typed result.
    ///
    /// # Errors
    /// When a value does not fit its key's type.
    pub fn resolve<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.table.clone().try_into().map_err(|e: toml::de::Error| ConfigError::Value {
            origin: self.last_origin.clone(),
            message: e.message().to_string(),
        })
    }

    /// The resolved configuration as TOML, for run directories and `config show`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.table.to_string()
    }
}

fn merge(base: &mut Table, layer: Table, prefix: &str, origin: &str) -> Result<(), ConfigError> {
    for (key, value) in layer {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let Some(slot) = base.get_mut(&key) else {
            return Err(ConfigError::UnknownKey {
                origin: origin.into(),
                hint: hint(base, &key, prefix),
                key: dotted,
            });
        };
        match (slot, value) {
            (Value::Table(inner), Value::Table(new)) => {
                // Another `kind` has other keys: the new table stands alone and is checked when it is read.
                let switches = new.get("kind").is_some_and(|k| Some(k) != inner.get("kind"));
                if switches {
                    *inner = new;
                } else {
                    merge(inner, new, &dotted, origin)?;
                }
            }
            (slot @ Value::Float(_), Value::Integer(i)) => *slot = Value::Float(i as f64),
            (slot, new) if slot.same_type(&new) => *slot = new,
            (slot, new) => {
                let message =
                    format!("`{dotted}` takes a {}, but got the {} {new}", slot.type_str(), new.type_str());
                return Err(ConfigError::Value { origin: origin.into(), message });
            }
        }
    }
    Ok(())
}

/// Names the nearest key, or all of them when none is near.
fn hint(base: &Table, key: &str, prefix: &str) -> String {
    let place = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
    let nearest = base.keys().max_by(|a, b| strsim::jaro(a, key).total_cmp(&strsim::jaro(b, key)));
    match nearest {
        Some(near) if strsim::jaro(near, key) > 0.7 => format!("did you mean `{place}{near}`?"),
        _ => format!("known here: {}", base.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// The nearest of `known` to `name`, for "did you mean" messages; `None` when nothing is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)))
        .filter(|near| strsim::jaro(near, name) > 0.7)
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
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Optim {
        learning_rate: f64,
    }

    fn base() -> Layers {
        Layers::new(&Config { steps: 10, name: "a".into(), optim: Optim { learning_rate: 0.1 } }).unwrap()
    }

    #[test]
    fn later_layers_win() {
        let layers = base().text("p.toml", "steps = 5\n[optim]\nlearning_rate = 1").unwrap();
        let config: Config = layers.set("name=long-run").unwrap().set("steps=7").unwrap().resolve().unwrap();
        assert_eq!(config, Config { steps: 7, name: "long-run".into(), optim: Optim { learning_rate: 1.0 } });
    }

    #[test]
    fn a_typo_names_the_nearest_key() {
        let error = base().set("optim.learning_rat=3").unwrap_err().to_string();
        assert!(error.contains("`optim.learning_rat`") && error.contains("`optim.learning_rate`"), "{error}");
        let error = base().text("p.toml", "zzz = 1").unwrap_err().to_string();
        assert!(error.contains("known here: name, optim, steps"), "{error}");
    }

    #[test]
    fn wrong_types_and_shapes_are_refused() {
        let error = base().set("steps=many").unwrap_err().to_string();
        assert!(error.contains("`steps` takes a integer"), "{error}");
        assert!(base().set("steps").is_err());
        assert!(base().text("p.toml", "steps = ").unwrap_err().to_string().contains("p.toml"));
        assert!(base().set("steps=-1").unwrap().resolve::<Config>().is_err());
    }
}
