//! `events`

use std::time::{Duration, Instant};

use clap::Args;
use onggi_runtime::oci::{Runtime, Status};

use super::{Outcome, say};

/// Print what a container uses, again and again until it ends
#[derive(Debug, Args)]
pub struct Events {
    /// Once
    #[arg(long)]
    stats: bool,
    /// Time between two (100ms, 5, 5s or 1m)
    #[arg(long, default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Id of the container
    id: String,
}

impl Events {
    pub fn run(&self, runtime: &Runtime) -> Outcome {
        let mut kills = runtime.memory_kills(&self.id)?;
        loop {
            say(runtime.statistics(&self.id)?);
            if self.stats {
                return Ok(0);
            }
            let next = Instant::now() + self.interval;
            while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            {
                std::thread::sleep(left.min(LOOK));
                // It may be deleted at any time, which is the end of its events.
                match runtime.memory_kills(&self.id) {
                    Err(_) => return Ok(0),
                    Ok(now) if now > kills => {
                        kills = now;
                        // In the order in which runc writes it; an id needs no escapes.
                        say(format_args!(r#"{{"type":"oom","id":"{}"}}"#, self.id));
                    }
                    Ok(_) => {}
                }
            }
            if !matches!(runtime.state(&self.id), Ok(state) if state.status != Status::Stopped) {
                return Ok(0);
            }
        }
    }
}

/// How often the kernel's count of processes killed for want of memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The longest interval.
const DAY: Duration = Duration::from_secs(86_400);

fn interval(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let one = match unit {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_secs(60)),
        _ => None,
    };
    let time =
        one.zip(number.parse().ok()).and_then(|(one, number): (Duration, u32)| one.checked_mul(number));
    time.filter(|time| !time.is_zero() && *time <= DAY)
        .ok_or_else(|| format!("{text:?} is not a time of 1 millisecond to a day, such as 100ms, 5s or 1m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(interval("5"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("2m"), Ok(Duration::from_secs(120)));
        for bad in ["0", "", "ms", "1h", "-1s", "1441m", "4294967296", "5 s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
