//! Flags about a container's health.

use std::time::Duration;

use onggi_engine::run::{HealthWish, OnUnhealthy};

use super::values;

/// How to find out whether a container is well.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Health")]
#[group(skip)]
pub struct Options {
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    health_interval: Option<Duration>,
    /// What follows when the container becomes unhealthy: none, kill, restart or stop
    #[arg(long, value_name = "ACTION", default_value = "none", value_parser = on_unhealthy)]
    health_on_failure: OnUnhealthy,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    health_start_interval: Option<Duration>,
    /// Start period for the container to initialize before failures count (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    health_start_period: Option<Duration>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    health_timeout: Option<Duration>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_retries", "health_start_interval",
        "health_start_period", "health_timeout"])]
    no_healthcheck: bool,
}

impl Options {
    pub fn into_wish(self) -> HealthWish {
        HealthWish {
            disabled: self.no_healthcheck || self.health_cmd.as_deref() == Some("none"),
            command: self.health_cmd,
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            on_unhealthy: self.health_on_failure,
        }
    }
}

fn on_unhealthy(text: &str) -> Result<OnUnhealthy, String> {
    match text {
        "none" | "" => Ok(OnUnhealthy::None),
        "kill" => Ok(OnUnhealthy::Kill),
        "restart" => Ok(OnUnhealthy::Restart),
        "stop" => Ok(OnUnhealthy::Stop),
        _ => Err("expected none, kill, restart or stop".into()),
    }
}
