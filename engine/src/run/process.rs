//! What runs in the container, from the image's defaults and the caller's wishes.

use onggi_oci::ContainerConfig;

use crate::error::{Error, Result};

/// The search path of images that set none (runc's and Docker's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program and its arguments.
///
/// A new entrypoint drops the image's arguments with its entrypoint, as Docker does.
pub(crate) fn arguments(
    image: &ContainerConfig,
    entrypoint: Option<&[String]>,
    command: &[String],
) -> Result<Vec<String>> {
    let defaults = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut words = match entrypoint {
        Some(words) => words.to_vec(),
        None => defaults(&image.entrypoint),
    };
    match (command.is_empty(), entrypoint) {
        (false, _) => words.extend_from_slice(command),
        (true, None) => words.extend(defaults(&image.cmd)),
        (true, Some(_)) => {}
    }
    if words.is_empty() { Err(Error::NoCommand) } else { Ok(words) }
}

/// The environment: what every container has, then the image's, then the caller's; the last of a
/// name wins and keeps the place of the first.
pub(crate) fn environment(
    image: &ContainerConfig,
    wished: &[String],
    hostname: &str,
    home: &str,
    tty: bool,
) -> Vec<String> {
    let mut all = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if tty {
        all.push("TERM=xterm".into());
    }
    all.push(format!("HOME={home}"));
    add(&mut all, &image.env);
    add(&mut all, wished);
    all
}

/// Sets variables, each in the place of the one that had its name.
pub(crate) fn add(all: &mut Vec<String>, more: &[String]) {
    for variable in more {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |other: &&mut String| other.split('=').next() == Some(name);
        match all.iter_mut().find(same) {
            Some(earlier) => earlier.clone_from(variable),
            None => all.push(variable.clone()),
        }
    }
}

/// The working directory: the caller's, else the image's, else `/`.
pub(crate) fn working_dir(image: &ContainerConfig, wished: Option<&str>) -> Result<String> {
    if let Some(dir) = wished
        && !dir.starts_with('/')
    {
        return Err(Error::WorkingDir { dir: dir.into() });
    }
    let dir = wished.unwrap_or(&image.working_dir);
    // A relative WORKDIR of an old image counts from the root.
    Ok(if dir.starts_with('/') { dir.into() } else { format!("/{dir}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(Into::into).collect()
    }

    #[test]
    fn entrypoint_and_command_combine_as_docker_does() {
        let image = ContainerConfig {
            entrypoint: Some(words("/entry -x")),
            cmd: Some(words("default")),
            ..Default::default()
        };
        let run = |entrypoint: Option<&str>, command: &str| {
            arguments(&image, entrypoint.map(words).as_deref(), &words(command)).ok().map(|w| w.join(" "))
        };
        assert_eq!(run(None, "").as_deref(), Some("/entry -x default"));
        assert_eq!(run(None, "a b").as_deref(), Some("/entry -x a b"));
        assert_eq!(run(Some("/sh"), "").as_deref(), Some("/sh"));
        assert_eq!(run(Some("/sh"), "-c x").as_deref(), Some("/sh -c x"));
        assert_eq!(run(Some(""), "ls").as_deref(), Some("ls"));
        assert_eq!(run(Some(""), ""), None);
    }

    #[test]
    fn the_last_of_a_name_wins() {
        let image = ContainerConfig { env: words("PATH=/img A=1 B=2"), ..Default::default() };
        let all = environment(&image, &words("A=3 HOME=/h EMPTY="), "box", "/root", true);
        assert_eq!(all, words("PATH=/img HOSTNAME=box TERM=xterm HOME=/h A=3 B=2 EMPTY="));
    }

    #[test]
    fn the_working_directory_is_absolute() {
        let image = ContainerConfig { working_dir: "srv".into(), ..Default::default() };
        assert_eq!(working_dir(&image, None).unwrap(), "/srv");
        assert_eq!(working_dir(&image, Some("/x")).unwrap(), "/x");
        assert!(working_dir(&image, Some("x")).is_err());
        assert_eq!(working_dir(&ContainerConfig::default(), None).unwrap(), "/");
    }
}
