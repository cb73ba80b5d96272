//! Everything that a preset names, looked up before the first cell starts: a typo must not come to light after an hour.

use anyhow::{Context, Result, bail};
use worldbench_eval::CollectConfig;
use worldbench_train::goal::GoalEncoder;
use worldbench_train::{ModelConfig, TrainConfig};

use super::Bench;
use super::preset::Model;
use crate::config::{COLLECT, ConfigArgs};
use crate::learned::{self, check_use};
use crate::policy::load_policy;

impl Bench {
    /// Checks all that can be known without data and trained models.
    pub fn check(&self) -> Result<()> {
        let (episodes, pairs) = (self.preset.episodes, self.manifest.pairs.len());
        if !(1..=pairs).contains(&episodes) {
            bail!("episodes = {episodes} must be 1 to {pairs}, the pairs of {}", self.manifest.split);
        }
        self.preset.references.iter().try_for_each(|name| load_policy(name).map(|_| ()))?;
        let models = &self.preset.models;
        if models.is_empty() {
            return Ok(());
        }
        self.collect_config()?;
        for (i, model) in models.iter().enumerate() {
            self.check_model(model, &models[..i]).with_context(|| format!("model {}", model.name()))?;
        }
        Ok(())
    }

    fn check_model(&self, model: &Model, earlier: &[Model]) -> Result<()> {
        let config = self.train_config(model)?;
        if let Some(name) = &model.encoder {
            let Some(source) = earlier.iter().find(|model| model.name() == *name) else {
                let known: Vec<String> = earlier.iter().map(Model::name).collect();
                bail!("encoder = \"{name}\" is no earlier model of the list; those are {}", known.join(", "));
            };
            if !matches!(self.train_config(source)?.model, ModelConfig::Compact(_)) {
                bail!("encoder = \"{name}\" is no compact PLDM or LeWM; name one");
            }
        }
        if let ModelConfig::GoalPolicy(policy) = &config.model
            && let GoalEncoder::Compact(source) = &policy.encoder
            && source.checkpoint.as_os_str().is_empty()
        {
            bail!("it has no encoder; name an earlier compact PLDM or LeWM: encoder = \"pldm-compact\"");
        }
        model.uses().into_iter().try_for_each(|planner| check_use(&config, model.used(planner)))
    }

    /// What is collected.
    pub fn collect_config(&self) -> Result<CollectConfig> {
        let preset = ConfigArgs { preset: Some(self.preset.collect.clone()), ..ConfigArgs::default() };
        let config: CollectConfig =
            preset.resolve(COLLECT).with_context(|| format!("collect = \"{}\"", self.preset.collect))?;
        config.check()?;
        if config.env != self.protocol.environment {
            let (ours, theirs) = (&self.protocol.environment, &config.env);
            bail!("bench of {ours}: collect = \"{}\" is a preset of {theirs}", self.preset.collect);
        }
        Ok(config)
    }

    /// How a model is trained.
    pub fn train_config(&self, model: &Model) -> Result<TrainConfig> {
        let encoder = model
            .encoder
            .iter()
            .map(|name| format!("model.encoder.checkpoint={}", self.checkpoint(name).display()));
        let sets: Vec<String> = model.set.iter().cloned().chain(encoder).collect();
        learned::train_config(&model.train, &sets)
    }
}
