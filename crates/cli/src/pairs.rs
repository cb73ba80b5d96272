//! Which pairs a policy is run on: a protocol, its split, or the data set that it draws from.

use std::path::PathBuf;

use anyhow::{Result, bail};
use worldbench_data::Store;
use worldbench_env::{DomainRef, domain};
use worldbench_eval::{Manifest, Protocol, protocol};

/// Flags that choose the pairs.
#[derive(Debug, clap::Args)]
pub struct PairArgs {
    /// Environment (see `envs`) [default: the checkpoint's, else push_t]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Name of a protocol (see `protocol list`), or the path of a protocol file
    #[arg(long, value_name = "NAME|PATH", default_value = protocol::DEFAULT)]
    pub protocol: String,
    /// Pairs to run: `dev` for tuning, `test` once, for the number that is published [default: dev]
    #[arg(long, value_enum)]
    pub split: Option<Split>,
    /// Store that the pairs are drawn from, for protocols that draw them (swm-v1), in place of their frozen ones
    #[arg(long, value_name = "STORE")]
    pub data: Option<PathBuf>,
}

/// The two frozen sets of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Split {
    /// Pairs for tuning
    Dev,
    /// Pairs for published numbers
    Test,
}

impl From<Split> for protocol::Split {
    fn from(split: Split) -> Self {
        match split {
            Split::Dev => Self::Dev,
            Split::Test => Self::Test,
        }
    }
}

impl PairArgs {
    /// The environment: the one that a checkpoint was trained on, if there is one.
    pub fn environment(&self, trained_on: Option<&str>) -> Result<DomainRef> {
        let named = self.env.as_deref().map(crate::config::domain).transpose()?;
        match (named, trained_on) {
            (Some(env), Some(trained)) if env.spec().name != trained => {
                bail!("the checkpoint was trained on {trained}, not on {}; leave --env out", env.spec().name)
            }
            (Some(env), _) => Ok(env),
            (None, Some(trained)) => crate::config::domain(trained),
            (None, None) => Ok(domain::all()[0]),
        }
    }

    /// The protocol and its pairs; see [`PairArgs::environment`].
    pub fn resolve(&self, trained_on: Option<&str>) -> Result<(Protocol, Manifest)> {
        let protocol = Protocol::find(&self.protocol, self.environment(trained_on)?.spec().name)?;
        let manifest = match &self.data {
            Some(_) if protocol.selection.is_none() => {
                bail!("protocol {} runs its own frozen pairs; leave --data out", protocol.name)
            }
            Some(path) => protocol.select_from(&Store::open(path)?, &path.display().to_string())?,
            None => protocol.manifest(self.split.unwrap_or(Split::Dev).into())?,
        };
        protocol.check(&manifest)?;
        Ok((protocol, manifest))
    }
}
