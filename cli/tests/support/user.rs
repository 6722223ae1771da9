//! An ordinary user of this host: what he runs has none of root's authority.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onggi_testkit::needs;
use tempfile::TempDir;

use super::Done;

/// `nobody` of Debian.
const ID: u32 = 65_534;

/// A user with a home, a store and a copy of the binary: the folder that it is built in may be root's alone.
pub struct User {
    home: TempDir,
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
        let user = Self { home };
        user.own(&user.copy(Path::new(env!("CARGO_BIN_EXE_onggi")), "onggi"));
        user.own(user.home());
        fs::create_dir(user.home().join("run")).expect("a folder");
        user.own(&user.home().join("run"));
        let ids = if subordinate_ids { "nobody:200000:65536\n" } else { "" };
        fs::write(user.home().join("ids"), ids).expect("a file");
        Some(user)
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
            exec setpriv --reuid "$ID" --regid "$ID" --clear-groups -- "$HOME/onggi" "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", AS_USER, "sh"]).args(args).env_clear();
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
