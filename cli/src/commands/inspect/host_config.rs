//! What was asked of a container, as Docker's `HostConfig` words it: each field of Docker's is there, in Docker's order;
//! those that onggi has no use for have the value that means nothing.

use onggi_engine::containers::ContainerDetails;
use onggi_engine::network::HostAddress;
use onggi_engine::run::{
    DEFAULT_PIDS, Device, DeviceRate, Ipc, Link, MountKind, MountSource, Mounted, Restart, RunRequest,
    Sharing, Tmpfs, Ulimit, UserNamespace,
};
use onggi_runtime::{Defaults, default_spec};
use serde_json::{Map, Value, json};

use crate::commands::network::of_container;

/// Docker's size of `/dev/shm`.
const SHM_SIZE: u64 = 64 << 20;

/// The object.
pub(super) fn value(details: &ContainerDetails) -> Value {
    let record = &details.record;
    let request = &record.request;
    let (resources, security) = (&request.resources, &request.security);
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.into(), value);
    let list = |values: Vec<Value>| if values.is_empty() { Value::Null } else { Value::Array(values) };
    let texts = |texts: &[String]| if texts.is_empty() { Value::Null } else { json!(texts) };

    put(
        "Binds",
        list(request.mounts.iter().filter_map(|mount| mount.short.clone().map(Value::from)).collect()),
    );
    put(
        "ContainerIDFile",
        json!(request.id_file.as_deref().map(|p| p.to_string_lossy()).unwrap_or_default()),
    );
    put("LogConfig", json!({ "Type": request.log.driver.name(), "Config": request.log.options }));
    put("NetworkMode", json!(of_container::mode(&request.network)));
    put("PortBindings", of_container::port_bindings(&request.publishing));
    put("RestartPolicy", restart(request.restart));
    put("AutoRemove", json!(request.remove));
    put("VolumeDriver", json!(""));
    put("VolumesFrom", list(request.volumes_from.iter().map(|from| json!(from.to_string())).collect()));
    let console = request.terminal.map_or([0, 0], |size| [size.rows, size.columns]);
    put("ConsoleSize", json!(console));
    if !request.notes.annotations.is_empty() {
        put("Annotations", json!(request.notes.annotations));
    }
    put("CapAdd", texts(&security.cap_add));
    put("CapDrop", texts(&security.cap_drop));
    put("CgroupnsMode", json!(sharing(&request.namespaces.cgroup, "private")));
    put("Dns", json!(request.resolver.servers));
    put("DnsOptions", json!(request.resolver.options));
    put("DnsSearch", json!(request.resolver.search));
    let host = |(name, address): &(String, HostAddress)| json!(format!("{name}:{address}"));
    put("ExtraHosts", list(request.resolver.hosts.iter().map(host).collect()));
    put("GroupAdd", texts(&request.group_add));
    put("IpcMode", json!(ipc(&request.namespaces.ipc)));
    put("Cgroup", json!(""));
    let link = |link: &Link| json!(format!("{}:{}", link.container, link.alias));
    put("Links", list(request.resolver.links.iter().map(link).collect()));
    put("OomScoreAdj", json!(resources.oom_score_adj.unwrap_or_default()));
    put("PidMode", json!(sharing(&request.namespaces.pid, "")));
    put("Privileged", json!(security.privileged));
    put("PublishAllPorts", json!(request.publishing.all));
    put("ReadonlyRootfs", json!(request.read_only));
    put("SecurityOpt", texts(&security.options));
    if !request.tmpfs.is_empty() {
        let short = request.tmpfs.iter().filter_map(|t| Some((t.target.clone(), json!(t.short.as_deref()?))));
        let short: Map<String, Value> = short.collect();
        if !short.is_empty() {
            put("Tmpfs", Value::Object(short));
        }
    }
    put("UTSMode", json!(sharing(&request.namespaces.uts, "")));
    let user = match (request.namespaces.user, request.namespaces.keep_id) {
        (Some(UserNamespace::Host), _) => "host",
        (_, Some(_)) => "keep-id",
        _ => "",
    };
    put("UsernsMode", json!(user));
    put("ShmSize", json!(resources.shm_size.unwrap_or(SHM_SIZE)));
    if !request.sysctls.is_empty() {
        let pairs = request.sysctls.iter().map(|(key, value)| (key.clone(), json!(value)));
        put("Sysctls", Value::Object(pairs.collect()));
    }
    put("Runtime", json!("onggi"));
    put("Isolation", json!(""));
    put("CpuShares", json!(resources.cpu_shares.unwrap_or_default()));
    put("Memory", json!(resources.memory.unwrap_or_default()));
    put("NanoCpus", json!(resources.nano_cpus.unwrap_or_default()));
    put("CgroupParent", json!(resources.cgroup_parent.as_deref().unwrap_or_default()));
    put("BlkioWeight", json!(resources.blkio_weight.unwrap_or_default()));
    put("BlkioWeightDevice", rates(&resources.blkio_weight_device, "Weight"));
    put("BlkioDeviceReadBps", rates(&resources.read_bps, "Rate"));
    put("BlkioDeviceWriteBps", rates(&resources.write_bps, "Rate"));
    put("BlkioDeviceReadIOps", rates(&resources.read_iops, "Rate"));
    put("BlkioDeviceWriteIOps", rates(&resources.write_iops, "Rate"));
    put("CpuPeriod", json!(resources.cpu_period.unwrap_or_default()));
    put("CpuQuota", json!(resources.cpu_quota.unwrap_or_default()));
    put("CpuRealtimePeriod", json!(resources.cpu_rt_period.unwrap_or_default()));
    put("CpuRealtimeRuntime", json!(resources.cpu_rt_runtime.unwrap_or_default()));
    put("CpusetCpus", json!(resources.cpuset_cpus.as_deref().unwrap_or_default()));
    put("CpusetMems", json!(resources.cpuset_mems.as_deref().unwrap_or_default()));
    put("Devices", json!(request.devices.iter().map(device).collect::<Vec<_>>()));
    put(
        "DeviceCgroupRules",
        list(security.device_rules.iter().map(|rule| json!(device_rule(rule))).collect()),
    );
    let named = (!request.named_devices.is_empty()).then(|| {
        let names = &request.named_devices;
        json!({ "Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null })
    });
    let gpus = request.gpus.iter().map(|gpus| {
        json!({
            "Driver": "",
            "Count": gpus.count,
            "DeviceIDs": Some(&gpus.devices).filter(|list| !list.is_empty()),
            "Capabilities": [["gpu"]],
            "Options": {},
        })
    });
    let requests: Vec<Value> = gpus.chain(named).collect();
    put("DeviceRequests", if requests.is_empty() { Value::Null } else { requests.into() });
    put("MemoryReservation", json!(resources.memory_reservation.unwrap_or_default()));
    put("MemorySwap", json!(resources.memory_swap.unwrap_or_default()));
    put("MemorySwappiness", resources.memory_swappiness.map_or(Value::Null, Value::from));
    put("OomKillDisable", json!(resources.oom_kill_disable));
    put("PidsLimit", json!(resources.pids_limit.unwrap_or(DEFAULT_PIDS)));
    put("Ulimits", json!(resources.ulimits.iter().map(ulimit).collect::<Vec<_>>()));
    put("CpuCount", json!(0));
    put("CpuPercent", json!(0));
    put("IOMaximumIOps", json!(0));
    put("IOMaximumBandwidth", json!(0));
    let long: Vec<Value> = mounts(request);
    if !long.is_empty() {
        put("Mounts", Value::Array(long));
    }
    let defaults = default_spec(&Defaults::default());
    let linux = defaults.linux().as_ref();
    put("MaskedPaths", hidden(request, linux.and_then(|linux| linux.masked_paths().as_deref())));
    put("ReadonlyPaths", hidden(request, linux.and_then(|linux| linux.readonly_paths().as_deref())));
    if request.init {
        put("Init", json!(true));
    }
    Value::Object(object)
}

fn restart(policy: Restart) -> Value {
    let (name, count) = match policy {
        Restart::No => ("no", 0),
        Restart::OnFailure(count) => ("on-failure", count.unwrap_or_default()),
        Restart::Always => ("always", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
    };
    json!({ "Name": name, "MaximumRetryCount": count })
}

fn sharing(sharing: &Sharing, private: &str) -> String {
    match sharing {
        Sharing::Private => private.into(),
        Sharing::Host => "host".into(),
        Sharing::Container(other) => format!("container:{other}"),
    }
}

fn ipc(ipc: &Ipc) -> String {
    match ipc {
        Ipc::Private => "private".into(),
        Ipc::Shareable => "shareable".into(),
        Ipc::None => "none".into(),
        Ipc::Host => "host".into(),
        Ipc::Container(other) => format!("container:{other}"),
    }
}

fn rates(rates: &[DeviceRate], number: &str) -> Value {
    rates.iter().map(|rate| json!({ "Path": rate.path, number: rate.rate })).collect()
}

fn device(device: &Device) -> Value {
    json!({
        "PathOnHost": device.source,
        "PathInContainer": device.target,
        "CgroupPermissions": device.access,
    })
}

/// As it was given: the specification's -1 is Docker's `*`.
fn device_rule(rule: &impl ToString) -> String {
    rule.to_string().replace("-1", "*")
}

fn ulimit(limit: &Ulimit) -> Value {
    // What has no limit is -1 to Docker.
    let number = |number: u64| i64::try_from(number).unwrap_or(-1);
    json!({ "Name": limit.name, "Hard": number(limit.hard), "Soft": number(limit.soft) })
}

/// What `--mount` asked for.
fn mounts(request: &RunRequest) -> Vec<Value> {
    let mounted = request.mounts.iter().filter(|mount| mount.short.is_none()).map(mount);
    let tmpfs = request
        .tmpfs
        .iter()
        .filter(|tmpfs| tmpfs.short.is_none())
        .map(|tmpfs: &Tmpfs| json!({ "Type": "tmpfs", "Target": tmpfs.target }));
    mounted.chain(tmpfs).collect()
}

fn mount(mount: &Mounted) -> Value {
    let (kind, source) = match &mount.source {
        MountSource::Bind { path, .. } => (MountKind::Bind, Some(path.to_string_lossy().into_owned())),
        MountSource::Volume { name, .. } => (MountKind::Volume, name.clone()),
        MountSource::Image { image, .. } => (MountKind::Image, Some(image.clone())),
    };
    let mut object = Map::new();
    object.insert("Type".into(), json!(kind.as_str()));
    if let Some(source) = source {
        object.insert("Source".into(), json!(source));
    }
    object.insert("Target".into(), json!(mount.target));
    if mount.read_only {
        object.insert("ReadOnly".into(), json!(true));
    }
    Value::Object(object)
}

fn hidden(request: &RunRequest, paths: Option<&[String]>) -> Value {
    let shown = request.security.privileged || request.security.all_system_paths;
    if shown { Value::Null } else { json!(paths) }
}
