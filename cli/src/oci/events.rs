//! `events`

use std::time::Duration;

use clap::Args;
use onggi_runtime::oci::{Runtime, Status};

use super::{Outcome, say};

/// Print what a container uses, again and again until it ends
#[derive(Debug, Args)]
pub struct Events {
    /// Once
    #[arg(long)]
    stats: bool,
    /// Time between two, in seconds (5, 5s or 1m)
    #[arg(long, default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Id of the container
    id: String,
}

impl Events {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        loop {
            say(runtime.statistics(&self.id)?);
            if self.stats {
                return Ok(0);
            }
            std::thread::sleep(self.interval);
            if runtime.state(&self.id)?.status == Status::Stopped {
                return Ok(0);
            }
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    match number.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds * factor)),
        _ => Err(format!("{text:?} is not a time of 1 second to a day")),
    }
}
