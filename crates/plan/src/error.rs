//! What can go wrong while planning.

/// Any error a [`crate::Cost`] may return.
pub type CostError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a planner, its configuration or its cost.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A configuration value is out of range.
    #[error("planner key `{key}` {problem}")]
    Config {
        /// Name of the key in the configuration.
        key: &'static str,
        /// What is wrong and what is accepted.
        problem: String,
    },
    /// An array does not have the length its shape asks for.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// Which array.
        what: &'static str,
        /// Its length.
        got: usize,
        /// What the shape asks for, in words.
        expected: String,
    },
    /// The cost of every candidate was NaN or infinite.
    #[error(
        "{solver}: all {samples} candidate costs of iteration {iteration} are NaN or infinite; \
         check the model's weights and the scale of its inputs"
    )]
    NoFiniteCost {
        /// Name of the solver.
        solver: &'static str,
        /// Iteration, from 0.
        iteration: usize,
        /// Number of candidates.
        samples: usize,
    },
    /// The cost could not be evaluated.
    #[error("the planning cost could not be evaluated: {0}")]
    Cost(#[source] CostError),
    /// A parity fixture is missing or unreadable.
    #[error("planner fixture {0}")]
    Fixture(String),
}

impl PlanError {
    /// A configuration error on `key`.
    pub(crate) fn config(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Config { key, problem: problem.into() }
    }
}
