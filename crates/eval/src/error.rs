use std::path::Path;

/// Why an evaluation could not be run or reported.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file could not be read or written.
    #[error("{path}: {source}; check that the path exists and may be read and written")]
    Io {
        /// File in question.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A protocol that is not known or not valid.
    #[error("protocol {name}: {message}")]
    Protocol {
        /// Name or path as given.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A manifest that is not valid.
    #[error("manifest {name}: {message}")]
    Manifest {
        /// Name or path as given.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// Finished episodes in the resume directory belong to another run.
    #[error(
        "{path} holds episodes of another run ({field}: there `{found}`, here `{wanted}`); \
         give another directory or remove the file"
    )]
    ResumeMismatch {
        /// The episode file.
        path: String,
        /// Which part of the key differs.
        field: &'static str,
        /// Value in the file.
        found: String,
        /// Value of this run.
        wanted: String,
    },
    /// A part of an evaluation that cannot be joined with the others.
    #[error("{dir} {message}")]
    Part {
        /// Directory of the part.
        dir: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// Results that cannot be read or compared.
    #[error("{dir}: {message}")]
    Results {
        /// Directory or file.
        dir: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// An episode file that is damaged before its last line.
    #[error("{path}, line {line}: {message}; remove the file to start over")]
    ResumeCorrupt {
        /// The episode file.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// A policy that could not start or act.
    #[error("policy {policy}, episode {episode}: {message}")]
    Policy {
        /// Name of the policy.
        policy: String,
        /// Index of the pair in the manifest.
        episode: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// The environment refused a state.
    #[error(transparent)]
    Environment(#[from] worldbench_env::EnvError),
    /// Options that make no sense.
    #[error("{0}")]
    Options(String),
    /// A picture that could not be encoded.
    #[error("cannot encode the picture: {0}")]
    Picture(String),
}

impl EvalError {
    /// Wraps an I/O error with the path it concerns.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}
