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
    /// Socket that gets a pidfd of the process
    #[arg(long)]
    pidfd_socket: Option<PathBuf>,
    /// Pass this many descriptors from 3 up
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Cover the host's root instead of pivoting away from it, for hosts that run from a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// Share the session keyring of the caller
    #[arg(long)]
    no_new_keyring: bool,
}

impl Common {
    pub fn options(&self) -> CreateOptions {
        CreateOptions {
            bundle: self.bundle.clone(),
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            preserve_fds: self.preserve_fds,
            no_new_keyring: self.no_new_keyring,
            no_pivot: self.no_pivot,
            notify_socket: std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from),
        }
    }
}

impl Create {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        runtime.create(&self.id, &self.common.options())?;
        Ok(0)
    }
}
