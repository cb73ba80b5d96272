//! Environments as values, for code that learns only at run time which one it works with.
//!
//! [`Environment`] is compiled once for each simulator; [`Domain`] is the same behind a name. Data files, protocols and
//! learned policies hold plain numbers: a state as [`crate::Spec::state`] names them, the scene as a [`Scene`], what a frame
//! shows as a [`Look`]. What is hot (physics, whole rollouts, drawing) stays inside one call and is dispatched statically.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock};

use crate::environment::{Action, Anchor, Environment, Errors, Spec};
use crate::error::EnvError;
use crate::push_t::PushT;
use crate::raster::{Filter, RasterError, Render};
use crate::render_state::Marks;
use crate::two_room::TwoRoom;
use crate::variation::{Sampling, Variation};

/// Values of some factors, by name: what differs from a default scene.
pub type Changes = BTreeMap<String, Vec<f64>>;

/// Values of all factors of a domain, one factor after the other in the order of its table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene(Vec<f64>);

impl Scene {
    /// The values of `factors`.
    #[must_use]
    pub fn of<F: Variation>(factors: &F) -> Self {
        Self((0..F::FACTORS.len()).flat_map(|index| factors.get(index)).collect())
    }

    /// The factors with these values; factors beyond the values have their default.
    #[must_use]
    pub fn factors<F: Variation>(&self) -> F {
        let mut factors = F::default();
        let mut rest = &self.0[..];
        for (index, factor) in F::FACTORS.iter().enumerate() {
            let Some((values, after)) = rest.split_at_checked(factor.len) else { break };
            let mut padded = [0.0; 3];
            padded[..factor.len].copy_from_slice(values);
            factors.assign(index, padded);
            rest = after;
        }
        factors
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

/// What a frame shows besides the scene: a render state of any environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// The numbers that [`Spec::look`] names.
    pub values: Vec<f64>,
    /// Contact marks; none where the environment draws none.
    pub marks: Marks,
}

/// A render state that can be written down as plain numbers and read back without loss.
pub trait Appearance: Clone + PartialEq + fmt::Debug + Send + Sync {
    /// The numbers.
    fn look(&self) -> Look;

    /// The render state of these numbers; missing ones are 0.
    fn of_look(look: &Look) -> Self;
}

/// Draws one scene.
pub trait Camera: Send {
    /// Draws what `look` shows into `out`, RGB bytes `[resolution, resolution, 3]`.
    ///
    /// # Errors
    /// [`RasterError::Buffer`] if `out` has another length.
    fn shoot(&mut self, look: &Look, out: &mut [u8]) -> Result<(), RasterError>;
}

/// An episode in some environment: [`Environment`] over plain numbers.
pub trait Simulation: Send + Sync {
    /// The environment.
    fn domain(&self) -> DomainRef;
    /// A copy that continues bit for bit like the original.
    fn copy(&self) -> Box<dyn Simulation>;
    /// As [`Environment::set_state`].
    ///
    /// # Errors
    /// As there.
    fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError>;
    /// As [`Environment::set_goal_state`].
    ///
    /// # Errors
    /// As there.
    fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError>;
    /// One control step.
    fn step(&mut self, action: Action);
    /// The state now.
    fn state(&self) -> Vec<f64>;
    /// The goal state.
    fn goal_state(&self) -> Vec<f64>;
    /// Whether the goal is reached now.
    fn success(&self) -> bool;
    /// How far the goal is.
    fn errors(&self) -> Errors;
    /// [`Environment::cost`] after each of `actions`, executed on a copy. With `legal` it is infinite from the first step
    /// on that is not [`Environment::legal`].
    fn costs(&self, actions: &[Action], legal: bool) -> Vec<f64>;
    /// The scene.
    fn scene(&self) -> Scene;
    /// What a frame shows now besides the scene.
    fn look(&self) -> Look;
    /// The simulator itself, for policies that are made for one environment.
    fn simulator(&self) -> &dyn Any;
}

impl Clone for Box<dyn Simulation> {
    fn clone(&self) -> Self {
        self.copy()
    }
}

/// An environment behind its name.
pub trait Domain: Send + Sync {
    /// Names, bounds and factors.
    fn spec(&self) -> &'static Spec;
    /// The default scene with `changes`.
    ///
    /// # Errors
    /// On unknown factors and values out of bounds.
    fn scene(&self, changes: &Changes) -> Result<Scene, EnvError>;
    /// The scene that `seed` samples.
    ///
    /// # Errors
    /// As [`Sampling::draw`].
    fn draw(&self, seed: u64, sampling: &Sampling) -> Result<Scene, EnvError>;
    /// `scene` without what only sets where an episode starts: frames are the same.
    fn visible(&self, scene: &Scene) -> Scene;
    /// The scene as JSON.
    ///
    /// # Errors
    /// When a value has no JSON form.
    fn write_scene(&self, scene: &Scene) -> Result<String, serde_json::Error>;
    /// The scene of such JSON.
    ///
    /// # Errors
    /// When a factor is missing or of another type.
    fn read_scene(&self, json: serde_json::Value) -> Result<Scene, serde_json::Error>;
    /// An environment of this scene.
    fn build(&self, scene: &Scene) -> Box<dyn Simulation>;
    /// Draws this scene.
    ///
    /// # Errors
    /// [`RasterError::Resolution`] unless the resolution lies in 16 to 512.
    fn camera(
        &self,
        scene: &Scene,
        resolution: usize,
        filter: Filter,
    ) -> Result<Box<dyn Camera>, RasterError>;
    /// As [`Environment::errors`].
    ///
    /// # Errors
    /// When a state has the wrong number of values; so do the following.
    fn errors(&self, scene: &Scene, state: &[f64], goal: &[f64]) -> Result<Errors, EnvError>;
    /// As [`Environment::cost`].
    ///
    /// # Errors
    /// As [`Domain::errors`].
    fn cost(&self, scene: &Scene, state: &[f64], goal: &[f64]) -> Result<f64, EnvError>;
    /// As [`Environment::hard`].
    ///
    /// # Errors
    /// As [`Domain::errors`].
    fn hard(&self, scene: &Scene, start: &[f64], goal: &[f64]) -> Result<bool, EnvError>;
    /// As [`Environment::legal`].
    ///
    /// # Errors
    /// As [`Domain::errors`].
    fn legal(&self, scene: &Scene, from: &[f64], to: &[f64]) -> Result<bool, EnvError>;
    /// As [`Environment::anchor`].
    ///
    /// # Errors
    /// As [`Domain::errors`].
    fn anchor(&self, scene: &Scene, state: &[f64], goal: &[f64]) -> Result<Anchor, EnvError>;
}

/// A domain as a value that is cheap to hand around.
pub type DomainRef = &'static dyn Domain;

impl fmt::Debug for dyn Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

impl PartialEq for dyn Domain {
    fn eq(&self, other: &Self) -> bool {
        self.spec().name == other.spec().name
    }
}

/// Environments that a program has added to the built-in ones.
static REGISTERED: RwLock<Vec<DomainRef>> = RwLock::new(Vec::new());

/// All built-in domains, the one of files that name none first.
#[must_use]
pub fn all() -> [DomainRef; 2] {
    [domain::<PushT>(), domain::<TwoRoom>()]
}

/// The domain called `name`, built in or registered.
#[must_use]
pub fn find(name: &str) -> Option<DomainRef> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    all().into_iter().chain(registered.iter().copied()).find(|domain| domain.spec().name == name)
}

/// Makes an environment of your own known by its name, so that its stores, manifests and protocols can be read. A name
/// that is taken keeps its first environment.
pub fn register(domain: DomainRef) {
    if find(domain.spec().name).is_none() {
        REGISTERED.write().unwrap_or_else(PoisonError::into_inner).push(domain);
    }
}

/// The environment `E` behind its name.
#[must_use]
pub fn domain<E: Environment + 'static>() -> DomainRef {
    const { &Of::<E>(PhantomData) }
}

struct Of<E>(PhantomData<fn() -> E>);

impl<E: Environment + 'static> Of<E> {
    const SPEC: &'static Spec = &E::SPEC;

    fn state(values: &[f64]) -> Result<E::State, EnvError> {
        E::State::try_from(values).map_err(|_| EnvError::Values {
            title: E::SPEC.title,
            wanted: E::SPEC.state.len(),
            len: values.len(),
        })
    }
}

impl<E: Environment + 'static> Domain for Of<E> {
    fn spec(&self) -> &'static Spec {
        Self::SPEC
    }

    fn scene(&self, changes: &Changes) -> Result<Scene, EnvError> {
        let mut factors = E::Factors::default();
        for (name, values) in changes {
            factors.set(name, values)?;
        }
        Ok(Scene::of(&factors))
    }

    fn draw(&self, seed: u64, sampling: &Sampling) -> Result<Scene, EnvError> {
        Ok(Scene::of(&sampling.draw::<E::Factors>(seed)?.factors))
    }

    fn visible(&self, scene: &Scene) -> Scene {
        let (mut factors, start) = (scene.factors::<E::Factors>(), E::Factors::default());
        for &index in E::Factors::INVISIBLE {
            let mut padded = [0.0; 3];
            padded.iter_mut().zip(start.get(index)).for_each(|(slot, value)| *slot = value);
            factors.assign(index, padded);
        }
        Scene::of(&factors)
    }

    fn write_scene(&self, scene: &Scene) -> Result<String, serde_json::Error> {
        serde_json::to_string(&scene.factors::<E::Factors>())
    }

    fn read_scene(&self, json: serde_json::Value) -> Result<Scene, serde_json::Error> {
        Ok(Scene::of(&serde_json::from_value::<E::Factors>(json)?))
    }

    fn build(&self, scene: &Scene) -> Box<dyn Simulation> {
        Box::new(Live(E::build(&scene.factors())))
    }

    fn camera(
        &self,
        scene: &Scene,
        resolution: usize,
        filter: Filter,
    ) -> Result<Box<dyn Camera>, RasterError> {
        Ok(Box::new(Lens::<E>(E::Renderer::new(&scene.factors(), resolution, filter)?)))
    }

    fn errors(&self, scene: &Scene, state: &[f64], goal: &[f64]) -> Result<Errors, EnvError> {
        Ok(E::errors(&scene.factors(), &Self::state(state)?, &Self::state(goal)?))
    }

    fn cost(&self, scene: &Scene, state: &[f64], goal: &[f64]) -> Result<f64, EnvError> {
        Ok(E::cost(&scene.factors(), &Self::state(state)?, &Self::state(goal)?))
    }

    fn hard(&self, scene: &Scene, start: &[f64], goal: &[f64]) -> Result<bool, EnvError> {
        Ok(E::hard(&scene.factors(), &Self::state(start)?, &Self::state(goal)?))
    }

    fn legal(&self, scene: &Scene, from: &[f64], to: &[f64]) -> Result<bool, EnvError> {
        Ok(E::legal(&scene.factors(), &Self::state(from)?, &Self::state(to)?))
    }

    fn anchor(&self, scene: &Scene, state: &[f64], goal: &[f64]) -> Result<Anchor, EnvError> {
        Ok(E::anchor(&scene.factors(), &Self::state(state)?, &Self::state(goal)?))
    }
}

/// A renderer as a [`Camera`].
struct Lens<E: Environment>(E::Renderer);

impl<E: Environment> Camera for Lens<E> {
    fn shoot(&mut self, look: &Look, out: &mut [u8]) -> Result<(), RasterError> {
        self.0.render(&E::RenderState::of_look(look), out)
    }
}

/// An environment as a [`Simulation`].
struct Live<E>(E);

impl<E: Environment + 'static> Simulation for Live<E> {
    fn domain(&self) -> DomainRef {
        domain::<E>()
    }

    fn copy(&self) -> Box<dyn Simulation> {
        Box::new(Self(self.0.clone()))
    }

    fn set_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        self.0.set_state(state)
    }

    fn set_goal_state(&mut self, goal: &[f64]) -> Result<(), EnvError> {
        self.0.set_goal_state(goal)
    }

    fn step(&mut self, action: Action) {
        self.0.step(action);
    }

    fn state(&self) -> Vec<f64> {
        self.0.state().as_ref().to_vec()
    }

    fn goal_state(&self) -> Vec<f64> {
        self.0.goal_state().as_ref().to_vec()
    }

    fn success(&self) -> bool {
        self.0.success()
    }

    fn errors(&self) -> Errors {
        E::errors(self.0.factors(), &self.0.state(), &self.0.goal_state())
    }

    fn costs(&self, actions: &[Action], legal: bool) -> Vec<f64> {
        let (mut env, goal) = (self.0.clone(), self.0.goal_state());
        let (mut state, mut lost) = (env.state(), false);
        let cost = |&action: &Action| {
            env.step(action);
            let before = std::mem::replace(&mut state, env.state());
            lost |= legal && !E::legal(env.factors(), &before, &state);
            if lost { f64::INFINITY } else { E::cost(env.factors(), &state, &goal) }
        };
        actions.iter().map(cost).collect()
    }

    fn scene(&self) -> Scene {
        Scene::of(self.0.factors())
    }

    fn look(&self) -> Look {
        self.0.render_state().look()
    }

    fn simulator(&self) -> &dyn Any {
        &self.0
    }
}

#[cfg(test)]
mod tests;
