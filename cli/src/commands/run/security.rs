//! Flags about what a container may do, and which namespaces and devices it shares with the host.

use onggi_engine::run::{Device, Gpus, Ipc, KeepId, Namespaces, Security, Sharing, UserNamespace};

use crate::failure::Failure;

/// What a container may do.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Isolation")]
#[group(skip)]
pub struct Options {
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Cgroup namespace to use: private (the default) or host
    #[arg(long, value_name = "MODE", default_value = "private", value_parser = sharing, hide_default_value = true)]
    cgroupns: Sharing,
    /// Add a host device to the container, or one by the name that its description gives it (CDI: vendor.com/class=name)
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    device: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs), by their descriptions (CDI, nvidia.com/gpu=…)
    #[arg(long, value_name = "GPUS", value_parser = super::gpus::parse)]
    gpus: Vec<Gpus>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// IPC mode to use: private or shareable (its own, the default), none (without /dev/shm), host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "private", value_parser = ipc, hide_default_value = true)]
    ipc: Ipc,
    /// PID namespace to use: private (the default), host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "private", value_parser = pid, hide_default_value = true)]
    pid: Sharing,
    /// Give extended privileges to this container: the host's user IDs, all capabilities and devices, no filter
    #[arg(long)]
    privileged: bool,
    /// Security options: seccomp=unconfined|builtin|FILE, no-new-privileges[=BOOL], apparmor=PROFILE, label=disable, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// User IDs of the container: private or auto[:size=N] (its own, at least so many; the default) or host
    #[arg(long, value_name = "MODE", value_parser = user_namespace)]
    userns: Option<UserIds>,
    /// UTS namespace to use: private (the default) or host
    #[arg(long, value_name = "MODE", default_value = "private", value_parser = sharing, hide_default_value = true)]
    uts: Sharing,
}

impl Options {
    pub fn namespaces(&self) -> Namespaces {
        Namespaces {
            user: self.userns.map(|ids| ids.namespace),
            user_ids: self.userns.and_then(|ids| ids.count),
            keep_id: self.userns.and_then(|ids| ids.keep),
            pid: self.pid.clone(),
            ipc: self.ipc.clone(),
            uts: self.uts.clone(),
            cgroup: self.cgroupns.clone(),
        }
    }

    pub fn devices(&self) -> Result<Vec<Device>, Failure> {
        let paths = self.device.iter().filter(|text| !is_name(text));
        paths.map(|text| Device::parse(text).map_err(Failure::Run)).collect()
    }

    /// Those by the names that their descriptions give them, and GPUs.
    pub fn named_devices(&self) -> (Vec<String>, Vec<Gpus>) {
        (self.device.iter().filter(|text| is_name(text)).cloned().collect(), self.gpus.clone())
    }

    pub fn into_security(self) -> Result<Security, Failure> {
        let mut security = Security {
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            ..Security::default()
        };
        for option in &self.security_opt {
            security.add_option(option).map_err(Failure::Run)?;
        }
        for rule in &self.device_cgroup_rule {
            security.device_rules.push(onggi_engine::run::parse_device_rule(rule).map_err(Failure::Run)?);
        }
        Ok(security)
    }
}

/// Whether a device is named as descriptions do: `vendor.com/class=name`.
fn is_name(text: &str) -> bool {
    let parts = text.split_once('=').and_then(|(kind, name)| Some((kind.split_once('/')?, name)));
    parts.is_some_and(|((vendor, class), name)| {
        !vendor.is_empty() && !class.is_empty() && !class.contains('/') && !name.is_empty()
    })
}

/// The container of `container:NAME`.
fn of_container(text: &str) -> Option<String> {
    text.strip_prefix("container:").filter(|name| !name.is_empty()).map(Into::into)
}

fn sharing(text: &str) -> Result<Sharing, String> {
    match text {
        "private" | "" => Ok(Sharing::Private),
        "host" => Ok(Sharing::Host),
        _ => Err("expected private or host".into()),
    }
}

fn pid(text: &str) -> Result<Sharing, String> {
    match of_container(text) {
        Some(container) => Ok(Sharing::Container(container)),
        None => sharing(text).map_err(|_| "expected private, host or container:NAME".into()),
    }
}

fn ipc(text: &str) -> Result<Ipc, String> {
    match text {
        "private" | "" => Ok(Ipc::Private),
        "shareable" => Ok(Ipc::Shareable),
        "none" => Ok(Ipc::None),
        "host" => Ok(Ipc::Host),
        other => of_container(other)
            .map(Ipc::Container)
            .ok_or_else(|| "expected private, shareable, none, host or container:NAME".into()),
    }
}

/// Whose user IDs a container gets, and how many there must be.
#[derive(Clone, Copy, Debug)]
struct UserIds {
    namespace: UserNamespace,
    count: Option<u32>,
    keep: Option<KeepId>,
}

fn user_namespace(text: &str) -> Result<UserIds, String> {
    let (mode, options) = text.split_once(':').unwrap_or((text, ""));
    let own = UserIds { namespace: UserNamespace::Private, count: None, keep: None };
    match (mode, options) {
        ("private" | "auto" | "", "") => Ok(own),
        ("auto", options) => options.split(',').try_fold(own, |own, option| match option.split_once('=') {
            Some(("size", count)) => match count.parse() {
                Ok(count) if count > 0 => Ok(UserIds { count: Some(count), ..own }),
                _ => Err(format!("size={count} is no number of IDs")),
            },
            _ => Err(format!("auto takes size=N, not {option:?}")),
        }),
        ("host", "") => Ok(UserIds { namespace: UserNamespace::Host, ..own }),
        ("keep-id", options) => Ok(UserIds { keep: Some(keep_id(options)?), ..own }),
        _ => Err("expected private, auto, auto:size=N, keep-id, keep-id:uid=N,gid=N,size=N or host".into()),
    }
}

/// `uid=N,gid=N,size=N`, as Podman's.
fn keep_id(options: &str) -> Result<KeepId, String> {
    let mut keep = KeepId::default();
    for option in options.split(',').filter(|_| !options.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number: u32 = value.parse().map_err(|_| format!("keep-id: {name}={value} is not a number"))?;
        match name {
            "uid" | "gid" if number == u32::MAX => return Err(format!("keep-id: {name}={value} is no ID")),
            "uid" => keep.uid = Some(number),
            "gid" => keep.gid = Some(number),
            "size" if number > 0 => keep.size = Some(number),
            "size" => return Err("keep-id: size=0 leaves no ID".into()),
            _ => return Err(format!("keep-id takes uid=N, gid=N and size=N, not {option:?}")),
        }
    }
    Ok(keep)
}
