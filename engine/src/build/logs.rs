//! Logs of builds: what each step said, kept.
//!
//! ```text
//!   cache/build/logs/<time>-<random>/steps.json   name, outcome and seconds of each step
//!   cache/build/logs/<time>-<random>/<step>.log   what it said
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Engine;
use crate::containers::random;
use crate::error::{Error, Result};

/// How many builds are kept.
const KEPT: usize = 50;

/// A step in the log of a build.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoggedStep {
    /// As shown while it was built.
    pub name: String,
    /// `done`, `cached`, `failed` or `canceled`.
    pub outcome: String,
    /// How long it took.
    pub seconds: f64,
}

/// The logs of one build.
#[derive(Debug)]
pub struct BuildLogs {
    dir: PathBuf,
    steps: Vec<LoggedStep>,
}

impl Engine {
    /// Begins the logs of a build.
    pub fn new_build_logs(&self) -> Result<BuildLogs> {
        let parent = self.logs_dir()?;
        let mut old = names(&parent)?;
        let surplus = (old.len() + 1).saturating_sub(KEPT);
        for name in old.drain(..surplus) {
            let _ = fs::remove_dir_all(parent.join(name));
        }
        let id = u32::from_le_bytes(random()?);
        let dir = parent.join(format!("{}-{id:08x}", jiff::Timestamp::now().as_second()));
        fs::create_dir(&dir).map_err(|source| Error::Write { path: dir.clone(), source })?;
        Ok(BuildLogs { dir, steps: Vec::new() })
    }

    fn logs_dir(&self) -> Result<PathBuf> {
        Ok(onggi_build::cache::Cache::of(self.store()?)?.dir().join("logs"))
    }

    /// The builds that have logs, the youngest last.
    pub fn logged_builds(&self) -> Result<Vec<String>> {
        names(&self.logs_dir()?)
    }

    /// The steps of a build (the last one if `None`), with what each said.
    pub fn build_logs(&self, build: Option<&str>) -> Result<Vec<(LoggedStep, Vec<u8>)>> {
        let parent = self.logs_dir()?;
        let all = names(&parent)?;
        let found = match build {
            None => all.last(),
            Some(wanted) => {
                all.iter().rev().find(|name| name.as_str() == wanted || name.ends_with(&format!("-{wanted}")))
            }
        };
        let Some(name) = found else {
            return Err(Error::NoBuild { name: build.unwrap_or("the last one").into() });
        };
        let dir = parent.join(name);
        let path = dir.join("steps.json");
        let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
        let steps: Vec<LoggedStep> = serde_json::from_slice(&bytes).unwrap_or_default();
        let read = |(number, step): (usize, LoggedStep)| {
            let log = fs::read(dir.join(format!("{number}.log"))).unwrap_or_default();
            (step, log)
        };
        Ok(steps.into_iter().enumerate().map(read).collect())
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::Read { path: dir.into(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl BuildLogs {
    /// Its name.
    pub fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Adds what a step said.
    pub fn output(&self, step: usize, bytes: &[u8]) {
        // A log that cannot be written must not end a build.
        let path = self.dir.join(format!("{step}.log"));
        let file = File::options().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(bytes));
    }

    /// A step is over.
    pub fn step(&mut self, step: usize, logged: LoggedStep) {
        if self.steps.len() <= step {
            self.steps.resize_with(step + 1, LoggedStep::default);
        }
        self.steps[step] = logged;
    }

    /// The build is over.
    pub fn finish(&self) {
        let bytes = serde_json::to_vec(&self.steps).unwrap_or_default();
        let _ = fs::write(self.dir.join("steps.json"), bytes);
    }
}
