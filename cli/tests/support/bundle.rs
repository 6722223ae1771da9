//! Bundles for `onggi oci`, made of busybox alone.
#![allow(dead_code, reason = "each test file uses a part")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use onggi_testkit::needs;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with `config.json`, `rootfs/` and the state of its containers.
pub(crate) struct Bundle(TempDir);

/// A bundle of busybox that runs `args`; `None` (a skip) where that can't be.
pub(crate) fn bundle(args: &[&str]) -> Option<Bundle> {
    if needs::root().is_missing() || needs::programs(&["busybox"]).is_missing() {
        return None;
    }
    let folder = tempfile::Builder::new().prefix("onggi-oci.").tempdir_in("/var/tmp").unwrap();
    let bundle = Bundle(folder);
    let bin = bundle.path().join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(needs::find_program("busybox").unwrap(), bin.join("busybox")).unwrap();
    let list = Command::new(bin.join("busybox")).arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", bin.join(name)).unwrap();
    }
    assert!(bundle.oci(&["spec", "--bundle", bundle.path().to_str().unwrap()]).status.success());
    bundle.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["root"]["readonly"] = json!(false);
    });
    Some(bundle)
}

impl Bundle {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path().join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }

    pub(crate) fn oci(&self, arguments: &[&str]) -> Output {
        self.oci_with(arguments, &[])
    }

    /// With further variables in its environment.
    pub(crate) fn oci_with(&self, arguments: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onggi"));
        command
            .envs(env.iter().copied())
            .arg("oci")
            .arg("--root")
            .arg(self.state())
            .args(arguments)
            .current_dir(self.path());
        // Into files: a container that inherits a pipe would keep it open.
        let (out, err) = (self.path().join("out"), self.path().join("err"));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
        let status = command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).status().unwrap();
        Output { status, stdout: std::fs::read(out).unwrap(), stderr: std::fs::read(err).unwrap() }
    }

    #[track_caller]
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.oci(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], code: i32, words: &str) -> String {
        let output = self.oci(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{words:?} not in {text}");
        text.into_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, status: &str) {
        for _ in 0..100 {
            if self.status(id) == status {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{id} never became {status}");
    }

    pub(crate) fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.succeeds(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}
