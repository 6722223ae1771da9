//! `--change`: instructions of a Dockerfile that change nothing but the config.

use onggi_oci::ContainerConfig;

use crate::error::{Error, Result};

/// Applies the instructions in their order.
pub(super) fn apply(_config: &mut ContainerConfig, changes: &[String]) -> Result<()> {
    match changes.first() {
        None => Ok(()),
        Some(change) => Err(Error::flag_unsupported(format!("--change {change}"), "not yet")),
    }
}
