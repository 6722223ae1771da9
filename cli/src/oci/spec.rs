//! `spec`

use std::path::PathBuf;

use clap::Args;
use onggi_runtime::Error;
use onggi_runtime::oci::bundle_spec;

use super::Outcome;

/// Write a config.json to start a bundle from
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// For a container of an ordinary user
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    pub fn run(&self) -> Outcome {
        let path = self.bundle.join("config.json");
        let step = |source| Error::Io { operation: "write", object: path.display().to_string(), source };
        let mut text = serde_json::to_vec_pretty(&bundle_spec(self.rootless)?).unwrap_or_default();
        text.push(b'\n');
        let mut file = std::fs::File::create_new(&path).map_err(step)?;
        std::io::Write::write_all(&mut file, &text).map_err(step)?;
        Ok(0)
    }
}
