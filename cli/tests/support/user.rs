//! An ordinary user of this host: what he runs has none of root's authority.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use onggi_testkit::needs;
use tempfile::TempDir;

use super::Done;

/// `nobody` of Debian.
const ID: u32 = 65_534;

/// A user with a home, a store and a copy of the binary: the folder that it is built in may be root's alone.
pub struct User {
    home: TempDir,
    host: Option<Host>,
    /// Whether this user's host has no pasta.
    without_pasta: bool,
}

/// A host of the test's own, as far as the network goes: it has a neighbour, by whom the way out leads.
///
/// ```text
///   host 192.0.2.10 ── e0 ── e1 ── 192.0.2.1 neighbour
/// ```
struct Host {
    host: Child,
    neighbour: Child,
}

impl Host {
    fn new() -> Self {
        let namespace = |script: &str| {
            let mut holder = Command::new("unshare");
            let script = format!("{script}; echo; exec sleep 600");
            let holder = holder.args(["--net", "sh", "-ec", &script]).stdout(Stdio::piped()).spawn();
            let mut holder = holder.expect("a namespace");
            let mut ready = [0];
            holder.stdout.take().expect("a pipe").read_exact(&mut ready).expect("a line");
            holder
        };
        let neighbour = namespace("ip link set lo up");
        let of_neighbour = neighbour.id();
        let host = namespace(&format!(
            "ip link set lo up; ip link add e0 type veth peer name e1 netns {of_neighbour}
             ip link set e0 up; ip addr add 192.0.2.10/24 dev e0
             nsenter --net=/proc/{of_neighbour}/ns/net ip link set e1 up
             nsenter --net=/proc/{of_neighbour}/ns/net ip addr add 192.0.2.1/24 dev e1
             ip route add default via 192.0.2.1"
        ));
        Self { host, neighbour }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.host, &mut self.neighbour] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl User {
    /// A user with 65,536 subordinate IDs, or without any. `None` is a counted skip.
    pub fn new(subordinate_ids: bool) -> Option<Self> {
        let programs = needs::programs(&["setpriv", "unshare", "newuidmap"]);
        if needs::root().is_missing() || programs.is_missing() {
            return None;
        }
        let home = tempfile::Builder::new().prefix("onggi-user.").tempdir_in("/var/tmp").expect("a folder");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let user = Self { home, host: None, without_pasta: false };
        user.own(&user.copy(Path::new(env!("CARGO_BIN_EXE_onggi")), "onggi"));
        user.own(user.home());
        fs::create_dir(user.home().join("run")).expect("a folder");
        user.own(&user.home().join("run"));
        let ids = if subordinate_ids { "nobody:200000:65536\n" } else { "" };
        fs::write(user.home().join("ids"), ids).expect("a file");
        Some(user)
    }

    /// A user with subordinate IDs on a host of the test's own, where he may have networks.
    pub fn with_networks() -> Option<Self> {
        let programs = needs::programs(&["unshare", "nsenter", "ip", "pasta", "busybox"]);
        if programs.is_missing() || !Path::new("/dev/net").exists() {
            return None;
        }
        let user = Self::new(true)?;
        Some(Self { host: Some(Host::new()), ..user })
    }

    /// The same, where slirp4netns has to do.
    pub fn with_slirp() -> Option<Self> {
        if needs::programs(&["slirp4netns"]).is_missing() {
            return None;
        }
        Self::with_networks().map(|user| Self { without_pasta: true, ..user })
    }

    /// A shell's words, run as root on his host.
    pub fn on_host(&self, script: &str) -> Done {
        let host = &self.host.as_ref().expect("a host").host;
        Self::at(host, script)
    }

    /// The same on the host of his neighbour, 192.0.2.1.
    pub fn at_neighbour(&self, script: &str) -> Done {
        let host = &self.host.as_ref().expect("a host").neighbour;
        Self::at(host, script)
    }

    fn at(host: &Child, script: &str) -> Done {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", host.id())).args(["sh", "-c", script]);
        Done::of(command.stdin(Stdio::null()))
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Puts a file into the user's home.
    pub fn copy(&self, file: &Path, name: &str) -> PathBuf {
        let copy = self.home().join(name);
        fs::copy(file, &copy).expect("a copy");
        self.own(&copy);
        copy
    }

    /// Makes a path the user's.
    pub fn own(&self, path: &Path) {
        chown(path, Some(ID), Some(ID)).expect("an owner");
    }

    /// The command, started by him; the host's subordinate IDs are his for that command alone.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        const AS_USER: &str = r#"
            mount --bind "$HOME/ids" /etc/subuid && mount --bind "$HOME/ids" /etc/subgid &&
            if [ -n "$WITH_TUN" ]; then
                mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 || exit 99
            fi &&
            for file in $HIDDEN; do mount --bind /dev/null "$file" || exit 99; done &&
            exec setpriv --reuid "$ID" --regid "$ID" --clear-groups -- "$HOME/onggi" "$@""#;
        let mut command = match &self.host {
            None => Command::new("unshare"),
            Some(host) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{}/ns/net", host.host.id())).arg("unshare");
                command
            }
        };
        command.args(["--mount", "--", "sh", "-c", AS_USER, "sh"]).args(args).env_clear();
        command.env("WITH_TUN", if self.host.is_some() { "1" } else { "" });
        let hidden = needs::find_program("pasta").filter(|_| self.without_pasta);
        command.env("HIDDEN", hidden.unwrap_or_default());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home()).env("XDG_RUNTIME_DIR", self.home().join("run"));
        command.env("ONGGI_NETWORK", "none");
        command.env("ID", ID.to_string()).stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        Done::of(&mut self.command(args))
    }
}
