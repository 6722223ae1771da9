//! `create`

use std::path::PathBuf;

use clap::Args;
use onggi_runtime::oci::{CreateOptions, Runtime};

use super::Outcome;

/// Make a container whose program waits for `start`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub common: Common,
    /// Id of the container
    id: String,
}

/// What `create` and `run` share.
#[derive(Debug, Args)]
pub struct Common {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Socket that gets the other side of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Pass this many descriptors from 3 up
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Don't use pivot_root (not supported: it would leave the host's root reachable)
    #[arg(long)]
    no_pivot: bool,
    /// Share the session keyring of the caller
    #[arg(long)]
    no_new_keyring: bool,
}

impl Common {
    pub fn options(&self) -> Result<CreateOptions, onggi_runtime::Error> {
        if self.no_pivot {
            return Err(onggi_runtime::Error::Unsupported {
                what: "--no-pivot".into(),
                why: "the host's root would stay reachable".into(),
            });
        }
        Ok(CreateOptions {
            bundle: self.bundle.clone(),
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            preserve_fds: self.preserve_fds,
            no_new_keyring: self.no_new_keyring,
        })
    }
}

impl Create {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.create(&self.id, &self.common.options()?)?;
        Ok(0)
    }
}
