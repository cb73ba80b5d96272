//! Published weight files: found in the cache that all Hugging Face tools share, else downloaded into it.
//!
//! The cache is `$HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`; a file lies at
//! `models--{owner}--{model}/snapshots/{revision}/{file}`, and `refs/main` names the revision. `HF_HUB_OFFLINE=1`
//! forbids the network, `HF_TOKEN` opens gated models, `HF_ENDPOINT` names a mirror. The project's own client crate
//! brings 84 (0.4) to 232 (1.0) crates for these two requests; `ureq` and the cache's layout are 26.

use std::path::PathBuf;

/// Why a file of the hub is not at hand.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} is not at hand: {problem}; download it by hand and put it at {place}, or name a file you have as `weights`"
)]
pub struct Error {
    /// Where the file is published.
    pub url: String,
    /// Why it could not be fetched.
    pub problem: String,
    /// Where it would be found.
    pub place: String,
}

/// A file of a repository, at its newest revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Owner and name, as in `facebook/dinov2-small`.
    pub repository: &'a str,
    /// The file in it.
    pub name: &'a str,
}

impl File<'_> {
    fn folder(&self) -> String {
        format!("models--{}", self.repository.replace('/', "--"))
    }
}

/// Where to look for files, and whether they may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// The folder with `models--{owner}--{model}`.
    pub cache: PathBuf,
    /// Address of the hub.
    pub endpoint: String,
    /// Sent with requests to the hub.
    pub token: Option<String>,
    /// Whether the network is forbidden.
    pub offline: bool,
}

impl Hub {
    /// What the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Self::from_environment`], from the variables that `get` returns.
    #[must_use]
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let home = || get("HOME").or_else(|| get("USERPROFILE")).unwrap_or_else(|| ".".into());
        let default = || PathBuf::from(home()).join(".cache/huggingface");
        let hugging_face = get("HF_HOME").map_or_else(default, PathBuf::from);
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let stored = || std::fs::read_to_string(hugging_face.join("token")).ok();
        let yes = |value: String| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str());
        Self {
            cache: get("HF_HUB_CACHE").map_or_else(|| hugging_face.join("hub"), PathBuf::from),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: get("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned()),
            offline: get("HF_HUB_OFFLINE").is_some_and(yes),
        }
    }

    /// The file's path in the cache, after a download if need be.
    ///
    /// # Errors
    /// The file is not in the cache, and the network is forbidden, not compiled in, or failed. The message says what
    /// to fetch by hand and where to put it.
    pub fn locate(&self, file: File) -> Result<PathBuf, Error> {
        if let Some(path) = self.cached(file) {
            return Ok(path);
        }
        let fetched = if self.offline {
            Err("HF_HUB_OFFLINE forbids the download".to_owned())
        } else {
            self.fetch(file)
        };
        fetched.map_err(|problem| Error {
            url: self.url(file, "main"),
            problem,
            place: self.place(file, "main").display().to_string(),
        })
    }

    /// The file in the revision that `refs/main` names, in a folder `main`, or in any other revision.
    fn cached(&self, file: File) -> Option<PathBuf> {
        let folder = self.cache.join(file.folder());
        let named = std::fs::read_to_string(folder.join("refs/main")).ok();
        let listed = std::fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
        let mut others: Vec<String> =
            listed.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        others.sort();
        let revisions = named.into_iter().map(|name| name.trim().to_owned());
        let mut revisions = revisions.chain(["main".to_owned()]).chain(others);
        revisions.find_map(|revision| Some(self.place(file, &revision)).filter(|path| path.is_file()))
    }

    fn place(&self, file: File, revision: &str) -> PathBuf {
        self.cache.join(file.folder()).join("snapshots").join(revision).join(file.name)
    }

    fn url(&self, file: File, revision: &str) -> String {
        format!("{}/{}/resolve/{revision}/{}", self.endpoint, file.repository, file.name)
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(&self, _: File) -> Result<PathBuf, String> {
        Err("this build has no downloads (cargo feature `hub`)".to_owned())
    }

    #[cfg(feature = "hub")]
    fn fetch(&self, file: File) -> Result<PathBuf, String> {
        let revision = self.revision(file)?;
        let mut response = self.get(&self.url(file, &revision))?;
        let length = response.body().content_length();
        let path = self.place(file, &revision);
        write_atomically(&path, &mut response.body_mut().as_reader(), length)?;
        let named = self.cache.join(file.folder()).join("refs/main");
        write_atomically(&named, &mut revision.as_bytes(), None)?;
        Ok(path)
    }

    /// The commit that `main` stands for.
    #[cfg(feature = "hub")]
    fn revision(&self, file: File) -> Result<String, String> {
        #[derive(serde::Deserialize)]
        struct Answer {
            sha: String,
        }
        let url = format!("{}/api/models/{}/revision/main", self.endpoint, file.repository);
        let mut response = self.get(&url)?;
        let answer: Answer = serde_json::from_reader(response.body_mut().as_reader())
            .map_err(|e| format!("{url} answered nonsense ({e})"))?;
        // It becomes the name of a folder.
        let commit = !answer.sha.is_empty() && answer.sha.bytes().all(|b| b.is_ascii_hexdigit());
        if commit { Ok(answer.sha) } else { Err(format!("{url} names no commit")) }
    }

    #[cfg(feature = "hub")]
    fn get(&self, url: &str) -> Result<ureq::http::Response<ureq::Body>, String> {
        use std::time::Duration;
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .user_agent(concat!("worldbench/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let mut request = agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|e| format!("no connection ({e})"))?;
        match response.status().as_u16() {
            200 => Ok(response),
            status @ (401 | 403) => Err(format!("the hub refused it (HTTP {status}); set HF_TOKEN")),
            status => Err(format!("the hub answered HTTP {status}")),
        }
    }
}

/// Copies `from` into a file that appears under its name only when complete.
#[cfg(feature = "hub")]
fn write_atomically(
    path: &std::path::Path,
    from: &mut impl std::io::Read,
    length: Option<u64>,
) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("cannot write {} ({e})", path.display());
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(folder).map_err(fail)?;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let copied = std::fs::File::create(&partial).and_then(|mut to| {
        let copied = std::io::copy(from, &mut to)?;
        to.sync_all()?;
        Ok(copied)
    });
    let whole = match copied {
        Ok(copied) if length.is_none_or(|length| length == copied) => {
            std::fs::rename(&partial, path).map_err(fail)
        }
        Ok(copied) => Err(format!("the connection broke after {copied} of {} bytes", length.unwrap_or(0))),
        Err(error) => Err(fail(error)),
    };
    if whole.is_err() {
        // What is left of it has no use.
        std::fs::remove_file(&partial).ok();
    }
    whole
}

#[cfg(test)]
mod tests;
