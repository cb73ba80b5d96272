//! Somebody's own program as a policy, spoken to over standard input and output.
//!
//! The line protocol stands in `docs/agents.md`. An agent process plays one episode at a time and is then handed to the
//! next one, so there are as many processes as threads. Scores can only be independent of threads and order if the agent
//! forgets an episode at `reset`; the seed it is given there depends on the episode alone.

mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use worldbench_env::raster::{Filter, RESOLUTIONS};
use worldbench_env::{Camera, DomainRef, Look, Spec};

pub use self::process::kill_all;

use self::process::Agent;
use super::planner::failed;
use crate::{EpisodeContext, EpisodePolicy, EvalError, Observation, Policy};

/// Version of the line protocol.
pub const PROTOCOL: u64 = 1;
/// How long an answer may take unless the user says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest name of an agent, characters.
const LONGEST_NAME: usize = 60;
/// An action this many times beyond the bounds is taken for a mistake in units.
const ABSURD: f32 = 100.0;

/// What an agent may ask to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Input {
    /// RGB frames.
    Pixels,
    /// The agent's own position and velocity.
    Proprio,
    /// The whole state, the block's pose included: a privileged input, noted in the row.
    State,
}

/// An agent's answer to `hello`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    #[serde(rename = "type")]
    kind: String,
    protocol: u64,
    #[serde(default)]
    name: String,
    #[serde(default = "Hello::resolution")]
    resolution: usize,
    #[serde(default = "Hello::inputs")]
    inputs: Vec<Input>,
}

impl Hello {
    fn resolution() -> usize {
        224
    }

    fn inputs() -> Vec<Input> {
        vec![Input::Pixels]
    }

    fn check(&self) -> Result<(), String> {
        if self.kind != "hello" || self.protocol != PROTOCOL {
            return Err(format!(
                "it answered `hello` with type `{}` and protocol {}; this worldbench speaks protocol {PROTOCOL}",
                self.kind, self.protocol
            ));
        }
        if !RESOLUTIONS.contains(&self.resolution) {
            return Err(format!(
                "it asked for frames of {} pixels; `resolution` must lie in {RESOLUTIONS:?}",
                self.resolution
            ));
        }
        match self.inputs.is_empty() {
            true => Err("it asked for no `inputs`; give at least one of pixels, proprio, state".into()),
            false => Ok(()),
        }
    }
}

/// An agent's answer to `step`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acted {
    #[serde(rename = "type")]
    kind: String,
    step: usize,
    action: Vec<f64>,
}

/// A program that acts.
pub struct External {
    pool: Arc<Pool>,
    hello: Hello,
}

/// Processes that wait for an episode, and how to start another.
struct Pool {
    command: String,
    timeout: Duration,
    env: DomainRef,
    idle: Mutex<Vec<Agent>>,
}

impl External {
    /// Starts the program `command` (split into words as a shell does, but run without one) and greets it; it will play
    /// `env`.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer the greeting within `timeout` as the protocol wants.
    pub fn start(command: &str, timeout: Duration, env: DomainRef) -> Result<Self, EvalError> {
        let pool = Arc::new(Pool { command: command.into(), timeout, env, idle: Mutex::default() });
        let (agent, hello) = pool.spawn().map_err(|message| failed(NAME, 0, message))?;
        pool.put(agent);
        Ok(Self { pool, hello })
    }

    /// What the agent calls itself, as one short line; empty when it does not say.
    #[must_use]
    pub fn agent_name(&self) -> &str {
        &self.hello.name
    }

    /// The command.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.pool.command
    }

    /// What a reader should know about its inputs.
    #[must_use]
    pub fn note(&self) -> String {
        let names: Vec<String> = self
            .hello
            .inputs
            .iter()
            .map(|input| match input {
                Input::Pixels => format!("{} px frames", self.hello.resolution),
                Input::Proprio => "proprioception".into(),
                Input::State => "the true state (privileged)".into(),
            })
            .collect();
        format!("the agent sees {}", names.join(" and "))
    }
}

/// Name of the policy.
const NAME: &str = "external";

impl Pool {
    fn spawn(&self) -> Result<(Agent, Hello), String> {
        let mut agent = Agent::start(&self.command, self.timeout)?;
        let answer = agent.ask(&greeting(self.env.spec()))?;
        let mut hello: Hello = read(&answer, "hello")?;
        hello.check()?;
        hello.name = plain(&hello.name);
        Ok((agent, hello))
    }

    /// An idle process, or a new one.
    fn take(&self, expected: &Hello) -> Result<Agent, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(agent) = idle {
            return Ok(agent);
        }
        let (agent, hello) = self.spawn()?;
        match hello == *expected {
            true => Ok(agent),
            false => Err("it answered `hello` differently when it was started again".into()),
        }
    }

    fn put(&self, agent: Agent) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(agent);
    }
}

/// A name as one short line that means nothing to Markdown or HTML: it goes into tables and pages.
fn plain(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-_.,:;+()/=#@'!?%".contains(c) { c } else { ' ' };
    let words: String = name.chars().map(kept).collect();
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST_NAME).collect::<String>().trim_end().into()
}

fn greeting(spec: &Spec) -> Value {
    let named = |indices: &[usize]| indices.iter().map(|&i| spec.state[i]).collect::<Vec<_>>();
    json!({
        "type": "hello",
        "protocol": PROTOCOL,
        "environment": spec.name,
        "action": {
            "size": 2,
            "low": spec.action_bounds[0],
            "high": spec.action_bounds[1],
            "meaning": spec.action,
        },
        "proprio": named(spec.proprio),
        "state": spec.state,
    })
}

/// Reads an answer of the form `T`.
fn read<T: for<'de> Deserialize<'de>>(line: &str, to: &str) -> Result<T, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| {
        let hint = match ["NaN", "Infinity"].iter().any(|word| line.contains(word)) {
            true => "; NaN and Infinity are no JSON: the action must be finite",
            false => "; only answers may go to standard output, messages belong on standard error",
        };
        format!("its answer to `{to}` is not JSON ({e}): `{}`{hint}", shown(line))
    })?;
    if value.get("type").and_then(Value::as_str) == Some("error") {
        let message = value.get("message").and_then(Value::as_str).unwrap_or("no message");
        return Err(format!("it reports: {message}"));
    }
    serde_json::from_value(value)
        .map_err(|e| format!("its answer to `{to}` does not fit the protocol ({e}): `{}`", shown(line)))
}

/// The beginning of a line, for messages.
fn shown(line: &str) -> String {
    let short: String = line.trim_end().chars().take(120).collect();
    if short.len() < line.trim_end().len() { short + " ..." } else { short }
}

impl Policy for External {
    fn name(&self) -> String {
        NAME.into()
    }

    fn settings(&self) -> String {
        let Hello { name, resolution, inputs, .. } = &self.hello;
        format!("command {:?}, name {name:?}, resolution {resolution}, inputs {inputs:?}", self.pool.command)
    }

    fn begin(&self, context: EpisodeContext) -> Result<Box<dyn EpisodePolicy>, EvalError> {
        let index = context.index;
        let fail = |message: String| failed(NAME, index, message);
        let (env, given) = (self.pool.env.spec(), context.env.domain().spec());
        if env.name != given.name {
            return Err(fail(format!("it was greeted for {}, not for {}", env.name, given.name)));
        }
        let camera = self
            .pool
            .env
            .camera(&context.goal.factors, self.hello.resolution, Filter::Linear)
            .map_err(|e| fail(e.to_string()))?;
        let agent = self.pool.take(&self.hello).map_err(fail)?;
        let mut episode = Episode {
            pool: Arc::clone(&self.pool),
            inputs: self.hello.inputs.clone(),
            camera,
            frame: vec![0; self.hello.resolution * self.hello.resolution * 3],
            agent: Some(agent),
            index,
            step: 0,
            seconds: 0.0,
        };
        let goal = episode.sight(&context.goal.render_state, &context.goal.state).map_err(fail)?;
        // 32 bits, which every language's numbers hold.
        let seed = context.stream.seed() >> 32;
        episode.reset(context.budget, seed, goal).map_err(fail)?;
        Ok(Box::new(episode))
    }
}

struct Episode {
    pool: Arc<Pool>,
    inputs: Vec<Input>,
    camera: Box<dyn Camera>,
    /// RGB. `[resolution, resolution, 3]`
    frame: Vec<u8>,
    /// Gone once it has failed.
    agent: Option<Agent>,
    index: usize,
    step: usize,
    seconds: f64,
}

impl Episode {
    /// What the agent asked to see of a moment.
    fn sight(&mut self, look: &Look, state: &[f64]) -> Result<Value, String> {
        let mut sight = serde_json::Map::new();
        for input in &self.inputs {
            let (key, value) = match input {
                Input::Pixels => {
                    self.camera.shoot(look, &mut self.frame).map_err(|e| e.to_string())?;
                    ("pixels", json!(STANDARD.encode(&self.frame)))
                }
                Input::Proprio => {
                    let own = self.pool.env.spec().proprio.iter().map(|&i| state[i]);
                    ("proprio", json!(own.collect::<Vec<_>>()))
                }
                Input::State => ("state", json!(state)),
            };
            sight.insert(key.into(), value);
        }
        Ok(Value::Object(sight))
    }

    /// Sends a message and reads the answer; a process that fails is given up.
    fn ask<T: for<'de> Deserialize<'de>>(&mut self, to: &str, message: &Value) -> Result<T, String> {
        let Some(mut agent) = self.agent.take() else { return Err("it has failed before".into()) };
        let answer = read(&agent.ask(message)?, to)?;
        self.agent = Some(agent);
        Ok(answer)
    }

    fn reset(&mut self, budget: usize, seed: u64, goal: Value) -> Result<(), String> {
        let message = json!({
            "type": "reset", "episode": self.index, "seed": seed, "budget": budget, "goal": goal,
        });
        let answer: Value = self.ask("reset", &message)?;
        match answer.get("type").and_then(Value::as_str) {
            Some("ready") => Ok(()),
            _ => Err(format!(
                "its answer to `reset` must be {{\"type\": \"ready\"}}, not `{}`",
                shown(&answer.to_string())
            )),
        }
    }

    fn next(&mut self, observation: &Observation) -> Result<[f32; 2], String> {
        let sight = self.sight(observation.render_state, observation.state)?;
        let message = json!({ "type": "step", "step": self.step, "observation": sight });
        let acted: Acted = self.ask("step", &message)?;
        let checked = self.check(&acted);
        if checked.is_err() {
            self.agent = None;
        }
        self.step += 1;
        checked
    }

    fn check(&self, acted: &Acted) -> Result<[f32; 2], String> {
        if acted.kind != "action" || acted.step != self.step {
            return Err(format!(
                "step {} was answered with type `{}`, step {}; answer every message once, with its own step",
                self.step, acted.kind, acted.step
            ));
        }
        let action: [f64; 2] = acted.action.as_slice().try_into().map_err(|_| {
            format!("its action at step {} has {} values, not 2", self.step, acted.action.len())
        })?;
        let action = action.map(|a| a as f32);
        let spec = self.pool.env.spec();
        let far = ABSURD * spec.action_bounds[1];
        match action.iter().find(|a| a.is_nan() || a.abs() > far) {
            Some(a) => Err(format!(
                "its action {a} at step {} is not finite or far out of bounds; 1 means: {}",
                self.step, spec.action
            )),
            None => Ok(action),
        }
    }
}

impl EpisodePolicy for Episode {
    fn act(&mut self, observation: &Observation) -> Result<[f32; 2], EvalError> {
        let begun = Instant::now();
        let action = self.next(observation).map_err(|message| failed(NAME, self.index, message));
        self.seconds += begun.elapsed().as_secs_f64();
        action
    }

    fn plan_seconds(&self) -> f64 {
        self.seconds
    }

    fn plans(&self) -> usize {
        self.step
    }
}

impl Drop for Episode {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.pool.put(agent);
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
