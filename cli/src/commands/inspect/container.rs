//! A container as `docker container inspect` shows it.

use onggi_engine::Engine;
use onggi_engine::containers::{ContainerDetails, Status};
use onggi_engine::run::{MountKind, MountPoint};
use serde_json::{Map, Value, json};

use super::host_config;
use crate::commands::network::of_container;
use crate::failure::Failure;

/// Go's moment that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The object that `docker container inspect` prints.
pub(in crate::commands) fn value(
    engine: &Engine,
    details: &ContainerDetails,
    size: bool,
) -> Result<Value, Failure> {
    let (record, dir) = (&details.record, &details.dir);
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let mut words = record.arguments.iter();
    let program = words.next().cloned().unwrap_or_default();
    let mut object = json!({
        "Id": record.id,
        "Created": record.created,
        "Path": program,
        "Args": words.collect::<Vec<_>>(),
        "State": state(details),
        "Image": record.image.id,
        "ResolvConfPath": path("resolv.conf"),
        "HostnamePath": path("hostname"),
        "HostsPath": path("hosts"),
        "LogPath": log_path(details),
        "Name": format!("/{}", record.name),
        "RestartCount": details.state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": record.request.security.apparmor.as_deref().unwrap_or_default(),
        "ExecIDs": Value::Null,
        "HostConfig": host_config::value(details),
        "GraphDriver": {
            "Data": {
                "LowerDir": Value::Null,
                "MergedDir": Value::Null,
                "UpperDir": path("upper"),
                "WorkDir": path("work"),
            },
            "Name": "overlay",
        },
        "Mounts": mounts(details),
        "Config": config(details),
        "NetworkSettings": of_container::settings(engine, details)?,
    });
    if let (true, Some(object)) = (size, object.as_object_mut()) {
        let sizes = engine.container_size(details)?;
        object.insert("SizeRw".into(), json!(sizes.own));
        object.insert("SizeRootFs".into(), json!(sizes.total));
    }
    Ok(object)
}

fn state(details: &ContainerDetails) -> Value {
    let (state, status) = (&details.state, details.status);
    let moment = |text: &Option<String>| text.clone().unwrap_or_else(|| NEVER.into());
    let runs = status.has_program() || status == Status::Restarting;
    let mut object = json!({
        "Status": status.word(),
        "Running": runs,
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": details.pid.map_or(0, |pid| pid.as_raw_nonzero().get()),
        "ExitCode": if status.has_program() { 0 } else { state.exit_code.unwrap_or_default() },
        "Error": state.error.as_deref().unwrap_or_default(),
        "StartedAt": moment(&state.started),
        "FinishedAt": moment(&state.finished),
    });
    if let (Some(health), Some(object)) = (&state.health, object.as_object_mut()) {
        let probe = |probe: &onggi_engine::containers::Probe| {
            json!({
                "Start": probe.start,
                "End": probe.end,
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            })
        };
        let health = json!({
            "Status": health.status.word(),
            "FailingStreak": health.failing_streak,
            "Log": health.log.iter().map(probe).collect::<Vec<_>>(),
        });
        object.insert("Health".into(), health);
    }
    object
}

fn log_path(details: &ContainerDetails) -> String {
    let id = &details.record.id;
    match details.record.request.log.driver.name() {
        "json-file" => details.dir.join(format!("{id}-json.log")).to_string_lossy().into_owned(),
        _ => String::new(),
    }
}

fn config(details: &ContainerDetails) -> Value {
    let record = &details.record;
    let request = &record.request;
    let config = record.effective_config();
    let names = |names: &std::collections::BTreeSet<String>| -> Map<String, Value> {
        names.iter().map(|name| (name.clone(), json!({}))).collect()
    };
    let words = |words: &Option<Vec<String>>| words.as_ref().map_or(Value::Null, |words| json!(words));
    let hostname = request.hostname.clone().unwrap_or_else(|| record.id.chars().take(12).collect());
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.into(), value);
    put("Hostname", json!(hostname));
    put("Domainname", json!(request.domainname.as_deref().unwrap_or_default()));
    put("User", json!(config.user));
    put("AttachStdin", json!(request.streams.input));
    put("AttachStdout", json!(request.streams.output));
    put("AttachStderr", json!(request.streams.error));
    let exposed: Map<String, Value> =
        of_container::exposed(details).into_iter().map(|name| (name, json!({}))).collect();
    if !exposed.is_empty() {
        put("ExposedPorts", Value::Object(exposed));
    }
    put("Tty", json!(record.has_terminal()));
    put("OpenStdin", json!(request.interactive));
    put("StdinOnce", json!(record.closes_input_once()));
    put("Env", json!(config.env));
    put("Cmd", words(&config.cmd));
    if let Some(health) = &config.healthcheck {
        put("Healthcheck", json!(health));
    }
    put("Image", json!(record.image.reference));
    put(
        "Volumes",
        if config.volumes.is_empty() { Value::Null } else { Value::Object(names(&config.volumes)) },
    );
    put("WorkingDir", json!(config.working_dir));
    put("Entrypoint", words(&config.entrypoint));
    put("OnBuild", if config.on_build.is_empty() { Value::Null } else { json!(config.on_build) });
    put("Labels", json!(config.labels));
    if let Some(signal) = &config.stop_signal {
        put("StopSignal", json!(signal));
    }
    if let Some(seconds) = config.stop_timeout {
        put("StopTimeout", json!(seconds));
    }
    if let Some(shell) = &config.shell {
        put("Shell", json!(shell));
    }
    Value::Object(object)
}

fn mounts(details: &ContainerDetails) -> Vec<Value> {
    let mut all: Vec<&MountPoint> = details.record.mounts.iter().collect();
    all.sort_by(|a, b| a.target.cmp(&b.target));
    let mount = |point: &MountPoint| {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.into(), value);
        put("Type", json!(point.kind.as_str()));
        if let Some(name) = &point.name {
            put("Name", json!(name));
        }
        put("Source", json!(point.source));
        put("Destination", json!(point.target));
        if point.kind == MountKind::Volume {
            put("Driver", json!("local"));
        }
        put("Mode", json!(point.options.join(",")));
        put("RW", json!(!point.read_only));
        let is_bind = point.kind == MountKind::Bind;
        let propagation =
            point.options.iter().find(|option| option.ends_with("shared") || option.ends_with("slave"));
        put("Propagation", json!(propagation.map_or(if is_bind { "rprivate" } else { "" }, String::as_str)));
        Value::Object(object)
    };
    all.into_iter().map(mount).collect()
}
