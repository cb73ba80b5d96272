//! Errors of this crate; each names what was refused and what would be accepted.

/// Why an environment refused its input.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// No factor of that name.
    #[error("unknown factor of variation `{name}`; {hint}")]
    UnknownFactor {
        /// Name as given.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// A factor value outside its bounds, or of the wrong length or kind.
    #[error("factor `{name}`: {message}")]
    FactorValue {
        /// Name of the factor.
        name: String,
        /// What is wrong and what is accepted.
        message: String,
    },
    /// A state vector of the wrong length.
    #[error("{wanted}; got {len}")]
    StateLength {
        /// The values that a state of the environment has.
        wanted: &'static str,
        /// Length as given.
        len: usize,
    },
    /// A state with another number of values than the environment's.
    #[error("a {title} state has {wanted} values; got {len}")]
    Values {
        /// Title of the environment.
        title: &'static str,
        /// Values of its states.
        wanted: usize,
        /// Length as given.
        len: usize,
    },
    /// A state or action that is not a finite number.
    #[error("{what} holds a value that is not finite; give finite numbers")]
    NotFinite {
        /// Which vector.
        what: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}; give the path of an episode file")]
    Read {
        /// Path as given.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// An episode file that is not in the fixture format.
    #[error("{path}: {message}")]
    Episode {
        /// Path as given.
        path: String,
        /// Key, operation index and what is wrong.
        message: String,
    },
    /// A frame could not be drawn.
    #[error(transparent)]
    Raster(#[from] crate::raster::RasterError),
    /// A thread pool could not be started.
    #[error("cannot start a pool of {threads} threads: {message}")]
    Pool {
        /// Threads asked for.
        threads: usize,
        /// Cause.
        message: String,
    },
}
