//! `onggi oci --systemd-cgroup` against a stand-in for systemd behind a real message bus, which checks every byte.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[path = "support/bundle.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use serde_json::{Value, json};
use support::{Bundle, bundle};

/// The interpreter that Debian's packages of Python modules are for.
const PYTHON: &str = "/usr/bin/python3";

/// A bus and a manager on it.
struct Systemd {
    folder: PathBuf,
    slice: String,
    tree: &'static str,
    processes: Vec<Child>,
}

impl Systemd {
    fn start(bundle: &Bundle) -> Option<Self> {
        if needs::programs(&["dbus-daemon"]).is_missing() {
            return None;
        }
        let modules = Command::new(PYTHON).args(["-c", "import dbus, gi"]).stderr(Stdio::null()).status();
        if !modules.is_ok_and(|status| status.success()) {
            let _ = needs::missing("python3-dbus and python3-gi (scripts/packages test installs them)");
            return None;
        }
        let unified = "/sys/fs/cgroup/unified";
        let tree = if Path::new(unified).is_dir() { unified } else { "/sys/fs/cgroup" };
        let folder = bundle.path().to_owned();
        let slice = format!("onggitest{}.slice", std::process::id());
        let mut systemd = Self { folder, slice, tree, processes: Vec::new() };
        let daemon = ["--session", "--nofork", "--nopidfile", &format!("--address={}", systemd.address())];
        systemd.processes.push(Command::new("dbus-daemon").args(daemon).spawn().unwrap());
        wait_for(|| systemd.folder.join("bus").exists());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/systemd.py");
        let mut manager = Command::new(PYTHON);
        manager.arg(script).arg(systemd.address()).arg(systemd.log()).arg(tree);
        systemd.processes.push(manager.spawn().unwrap());
        wait_for(|| systemd.log().exists());
        Some(systemd)
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.folder.join("bus").display())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("calls")
    }

    /// What it was asked since the last time.
    fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log()).unwrap();
        std::fs::write(self.log(), "").unwrap();
        let calls = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        calls.filter(|call| !matches!(call["call"].as_str(), Some("Subscribe" | "ready"))).collect()
    }

    fn oci(&self, bundle: &Bundle, arguments: &[&str]) -> Output {
        let arguments = [&["--systemd-cgroup"], arguments].concat();
        bundle.oci_with(&arguments, &[("DBUS_SYSTEM_BUS_ADDRESS", &self.address())])
    }

    #[track_caller]
    fn succeeds(&self, bundle: &Bundle, arguments: &[&str]) -> String {
        let output = self.oci(bundle, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, bundle: &Bundle, arguments: &[&str], words: &str) {
        let output = self.oci(bundle, arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{arguments:?}: {text}");
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for tree in trees.map(|tree| tree.path()).chain([self.tree.into()]) {
            let _ = std::fs::remove_dir(tree.join(&self.slice));
        }
    }
}

fn wait_for(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_container_lives_in_a_scope_that_systemd_made() {
    let Some(bundle) = bundle(&["sleep", "1000"]) else { return };
    let Some(systemd) = Systemd::start(&bundle) else { return };
    bundle.change(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("{}:onggi:life", systemd.slice));
        config["linux"]["resources"] =
            json!({"pids": {"limit": 33}, "cpu": {"quota": 50_000, "period": 100_000}});
    });
    let id = format!("onggi-systemd-{}", std::process::id());
    systemd.succeeds(&bundle, &["create", &id]);
    let calls = systemd.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let asked = &calls[0];
    assert_eq!(
        (&asked["unit"], &asked["mode"], &asked["others"]),
        (&json!("onggi-life.scope"), &json!("replace"), &json!(0))
    );
    let properties = &asked["properties"];
    assert_eq!(properties["Slice"], json!(systemd.slice));
    assert_eq!(properties["Description"], json!(format!("onggi container {id}")));
    assert_eq!((&properties["Delegate"], &properties["DefaultDependencies"]), (&json!(true), &json!(false)));
    assert_eq!((&properties["TasksMax"], &properties["CPUQuotaPerSecUSec"]), (&json!(33), &json!(500_000)));
    // The container is what is in the group, and nothing else.
    let group = Path::new(systemd.tree).join(&systemd.slice).join("onggi-life.scope");
    let state: Value = serde_json::from_str(&systemd.succeeds(&bundle, &["state", &id])).unwrap();
    let inside = || std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(inside().trim(), state["pid"].to_string());
    systemd.succeeds(&bundle, &["start", &id]);
    let limit = ["/sys/fs/cgroup/pids", systemd.tree].map(|tree| {
        std::fs::read_to_string(Path::new(tree).join(&systemd.slice).join("onggi-life.scope/pids.max"))
    });
    assert_eq!(limit.into_iter().find_map(Result::ok).unwrap().trim(), "33");
    systemd.succeeds(&bundle, &["exec", &id, "true"]);
    systemd.succeeds(&bundle, &["update", "--pids-limit", "44", &id]);
    let calls = systemd.calls();
    assert_eq!(
        calls,
        [
            json!({"call": "SetUnitProperties", "unit": "onggi-life.scope", "runtime": true, "properties": {"TasksMax": 44}})
        ]
    );
    // The flag is not needed to remember who made the group.
    let output = bundle.oci(&["delete", "-f", &id]);
    assert!(output.status.success(), "{output:?}");
    let calls: Vec<Value> = systemd.calls().into_iter().map(|call| call["call"].clone()).collect();
    assert_eq!(calls, [json!("StopUnit"), json!("ResetFailedUnit")]);
    assert!(!group.exists());
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let left = tree.path().join(&systemd.slice).join("onggi-life.scope");
        assert!(!left.exists(), "{}", left.display());
    }
}

#[test]
fn what_systemd_refuses_is_said_in_its_words() {
    let Some(bundle) = bundle(&["cat", "/proc/self/cgroup"]) else { return };
    let id = format!("onggi-refused-{}", std::process::id());
    bundle.change(|config| config["linux"]["cgroupsPath"] = json!("system.slice:onggi:x"));
    let nowhere = [("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/no/such/bus")];
    let output = bundle.oci_with(&["--systemd-cgroup", "run", &id], &nowhere);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("/no/such/bus") && words.contains("--systemd-cgroup"), "{words}");
    let Some(systemd) = Systemd::start(&bundle) else { return };
    let path = |name: &str| json!(format!("{}:onggi:{name}", systemd.slice));
    bundle.change(|config| config["linux"]["cgroupsPath"] = json!("/onggi/x"));
    systemd.fails(&bundle, &["run", &id], "slice:prefix:name");
    bundle.change(|config| config["linux"]["cgroupsPath"] = path("refused"));
    systemd.fails(&bundle, &["run", &id], "not here (org.freedesktop.systemd1.Denied)");
    bundle.change(|config| config["linux"]["cgroupsPath"] = path("fails"));
    systemd.fails(&bundle, &["run", &id], "ended with \"failed\"");
    systemd.calls();
    // One that failed before is forgotten and made again.
    bundle.change(|config| {
        config["linux"]["cgroupsPath"] = path("again");
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    });
    assert!(systemd.succeeds(&bundle, &["run", &id]).contains("0::/\n"));
    let calls: Vec<Value> = systemd.calls().into_iter().map(|call| call["call"].clone()).collect();
    let start = "StartTransientUnit";
    assert_eq!(
        calls,
        [start, "ResetFailedUnit", start, "StopUnit", "ResetFailedUnit"].map(|call| json!(call))
    );
    assert_eq!(std::fs::read_dir(bundle.state()).unwrap().count(), 0);
}
