//! What a container's config is once the image's and the caller's are put together: what `inspect` shows, and what an
//! image made of the container gets.

use std::time::Duration;

use onggi_oci::{ContainerConfig, Healthcheck};

use super::record::Record;
use crate::run::HealthWish;

impl Record {
    /// The image's config with the caller's wishes over it, by Docker's rules.
    pub fn effective_config(&self) -> ContainerConfig {
        let (image, request) = (&self.image.config, &self.request);
        let mut config = image.clone();
        if let Some(user) = &request.user {
            config.user.clone_from(user);
        }
        if let Some(dir) = &request.workdir {
            config.working_dir.clone_from(dir);
        }
        // The caller's come first, then what the image has besides.
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        let own = |variable: &&String| !request.env.iter().any(|other| name(other) == name(variable));
        config.env = request.env.iter().chain(image.env.iter().filter(own)).cloned().collect();
        let command = || (!request.command.is_empty()).then(|| request.command.clone());
        match &request.entrypoint {
            // A new entrypoint drops the image's arguments.
            Some(words) => {
                config.entrypoint = Some(words.clone()).filter(|words| !words.is_empty());
                config.cmd = command();
            }
            None => config.cmd = command().or(config.cmd),
        }
        config.labels = self.labels();
        if let Some(signal) = &request.notes.stop_signal {
            config.stop_signal = Some(signal.clone());
        }
        config.stop_timeout = request.notes.stop_timeout.or(config.stop_timeout);
        config.healthcheck = health(&request.health, image.healthcheck.as_ref());
        config
    }
}

fn health(wish: &HealthWish, image: Option<&Healthcheck>) -> Option<Healthcheck> {
    if wish.disabled {
        return Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
    }
    let nanoseconds = |span: Option<Duration>| span.and_then(|span| i64::try_from(span.as_nanos()).ok());
    let wished = Healthcheck {
        test: wish.command.iter().flat_map(|command| ["CMD-SHELL".to_owned(), command.clone()]).collect(),
        interval: nanoseconds(wish.interval).unwrap_or_default(),
        timeout: nanoseconds(wish.timeout).unwrap_or_default(),
        start_period: nanoseconds(wish.start_period).unwrap_or_default(),
        start_interval: nanoseconds(wish.start_interval).unwrap_or_default(),
        retries: wish.retries.map(i64::from).unwrap_or_default(),
    };
    if wished == Healthcheck::default() {
        return image.cloned();
    }
    // What the caller left open is the image's.
    let Some(image) = image else { return Some(wished) };
    let either = |wished: i64, image: i64| if wished == 0 { image } else { wished };
    Some(Healthcheck {
        test: if wished.test.is_empty() { image.test.clone() } else { wished.test },
        interval: either(wished.interval, image.interval),
        timeout: either(wished.timeout, image.timeout),
        start_period: either(wished.start_period, image.start_period),
        start_interval: either(wished.start_interval, image.start_interval),
        retries: either(wished.retries, image.retries),
    })
}
