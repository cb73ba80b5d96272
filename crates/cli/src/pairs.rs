//! Which pairs a policy is run on: a protocol, its split, or the data set that it draws from.

use std::path::PathBuf;

use anyhow::{Result, bail};
use worldbench_data::Store;
use worldbench_eval::{Manifest, Protocol, protocol};

/// Flags that choose the pairs.
#[derive(Debug, clap::Args)]
pub struct PairArgs {
    /// Name of a protocol (see `protocol list`), or the path of a protocol file
    #[arg(long, value_name = "NAME|PATH", default_value = protocol::DEFAULT)]
    pub protocol: String,
    /// Pairs to run: `dev` for tuning, `test` once, for the number that is published
    #[arg(long, value_enum, default_value_t = Split::Dev)]
    pub split: Split,
    /// Store that the pairs are drawn from, for protocols that draw them (swm-v1)
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
    /// The protocol and its pairs.
    pub fn resolve(&self) -> Result<(Protocol, Manifest)> {
        let protocol = Protocol::find(&self.protocol)?;
        let manifest = match &self.data {
            Some(_) if protocol.selection.is_none() => {
                bail!("protocol {} runs its own frozen pairs; leave --data out", protocol.name)
            }
            Some(path) => protocol.select_from(&Store::open(path)?)?,
            None => protocol.manifest(self.split.into())?,
        };
        protocol.check(&manifest)?;
        Ok((protocol, manifest))
    }
}
