//! `--change`: instructions of a Dockerfile that change nothing but the config, read as a build reads them.

use onggi_build::dockerfile::{Diagnostic, plan};
use onggi_build::graph::{Graph, ImageSource};
use onggi_build::{Images, ResolvedImage};
use onggi_oci::{ContainerConfig, Digest, ImageConfig, Platform};

use crate::error::{Error, Result};

/// Docker's list.
const KNOWN: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Applies the instructions in their order.
pub(super) fn apply(config: &mut ContainerConfig, changes: &[String]) -> Result<()> {
    let mut text = "FROM container\n".to_owned();
    for change in changes.iter().map(|change| change.trim()).filter(|change| !change.is_empty()) {
        let name = change.split_whitespace().next().unwrap_or_default();
        if !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            let problem = format!("{name} is not a valid change: one of {} is", KNOWN.join(", "));
            return Err(Error::flag("--change", problem));
        }
        // A line of its own each: what goes on on the next line would swallow the next instruction.
        if change.contains('\n') {
            return Err(Error::flag(
                "--change",
                format!("one instruction on one line is expected: {change:?}"),
            ));
        }
        text += change;
        text.push('\n');
    }
    if text.lines().count() == 1 {
        return Ok(());
    }
    // A build gives an image without PATH one; a change of the config is not asked for that.
    let is_path = |variable: &String| variable.starts_with("PATH=");
    let without_path = !config.env.iter().any(is_path) && !text.contains("PATH");
    // What the image triggers is for builds from it.
    let triggers = std::mem::take(&mut config.on_build);
    let base = Base(config.clone());
    let failed = |error: Diagnostic| Error::flag("--change", error.to_string());
    let options = plan::Options { file: "--change".into(), ..plan::Options::default() };
    let plan = plan::plan(&text, &options, &base, &mut Graph::default()).map_err(failed)?;
    *config = plan.target.config.config;
    if without_path {
        config.env.retain(|variable| !is_path(variable));
    }
    config.on_build.splice(0..0, triggers);
    Ok(())
}

/// The only image there is: the container's.
struct Base(ContainerConfig);

impl Images for Base {
    fn resolve(&self, _image: &ImageSource, platform: &Platform) -> onggi_build::Result<ResolvedImage> {
        let config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            config: self.0.clone(),
            ..ImageConfig::default()
        };
        Ok(ResolvedImage { manifest: Digest::sha256(&config.to_bytes()), config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerConfig> {
        let mut config = ContainerConfig {
            env: vec!["A=1".into()],
            cmd: Some(vec!["sh".into()]),
            on_build: vec!["RUN x".into()],
            ..ContainerConfig::default()
        };
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let config = changed(&[
            "ENV B=\"$A two\" C=3",
            "cmd [\"run\", \"it\"]",
            "ENTRYPOINT start $A",
            "EXPOSE 80 53/udp",
            "LABEL k=\"v w\"",
            "USER 5:6",
            "WORKDIR /srv",
            "WORKDIR sub",
            "VOLUME /data",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN y",
            "HEALTHCHECK --interval=5s CMD true",
        ])
        .unwrap();
        assert_eq!(config.env, ["A=1", "B=1 two", "C=3"]);
        assert_eq!(config.cmd.unwrap(), ["run", "it"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "start $A"]);
        assert!(config.exposed_ports.contains("80/tcp") && config.exposed_ports.contains("53/udp"));
        assert_eq!((config.labels["k"].as_str(), config.user.as_str()), ("v w", "5:6"));
        assert_eq!(
            (config.working_dir.as_str(), config.stop_signal.as_deref()),
            ("/srv/sub", Some("SIGINT"))
        );
        assert!(config.volumes.contains("/data"));
        assert_eq!(config.on_build, ["RUN x", "RUN y"]);
        assert_eq!(config.healthcheck.unwrap().interval, 5_000_000_000);
    }

    #[test]
    fn what_is_no_change_of_the_config_is_refused() {
        assert_eq!(changed(&[" "]).unwrap().env, ["A=1"]);
        for bad in ["RUN x", "FROM y", "COPY a b", "ENV", "EXPOSE x", "CMD a\nRUN b", "ENV A=1 \\\nB=2"] {
            assert!(changed(&[bad]).is_err(), "{bad}");
        }
    }
}
