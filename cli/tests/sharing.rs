//! Namespaces of containers that run, shared with others: by root and by an ordinary user.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use onggi_testkit::needs;
use support::user::User;
use support::{Done, Onggi, busybox_archive};

const IMAGE: &str = "localhost/busybox:test";

/// Runs the command as somebody, with a store that has the image.
type Run<'a> = &'a dyn Fn(&[&str]) -> Done;

fn as_root(test: impl Fn(Run<'_>)) {
    let Some(onggi) = Onggi::with_busybox(IMAGE) else { return };
    test(&|args| onggi.output(args));
    assert_eq!(onggi.ok(["ps", "-aq"]), "");
    onggi.assert_store_is_clean();
}

fn as_user(subordinate_ids: bool, test: impl Fn(Run<'_>)) {
    let Some(user) = User::new(subordinate_ids) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(archive) = busybox_archive(scratch.path(), IMAGE) else { return };
    let copy = user.copy(&archive, "busybox.tar");
    user.output(["load", "-i", &copy.to_string_lossy()]).ok();
    test(&|args| user.output(args));
    assert_eq!(user.output(["ps", "-aq"]).ok(), "");
}

/// A container that runs until it is removed.
struct Donor<'a>(Run<'a>, &'static str);

impl<'a> Donor<'a> {
    #[track_caller]
    fn start(onggi: Run<'a>, name: &'static str, flags: &[&str]) -> Self {
        onggi(&[&["run", "-d", "--name", name], flags, &[IMAGE, "sleep", "1000"]].concat()).ok();
        Self(onggi, name)
    }

    #[track_caller]
    fn says(&self, script: &str) -> String {
        (self.0)(&["exec", self.1, "sh", "-c", script]).ok()
    }
}

impl Drop for Donor<'_> {
    fn drop(&mut self) {
        (self.0)(&["rm", "-f", self.1]);
    }
}

fn all_kinds(onggi: Run<'_>) {
    let donor = Donor::start(onggi, "donor", &["--ipc=shareable", "--hostname=donors"]);
    let says = |flags: &[&str], script: &str| {
        onggi(&[&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat()).ok()
    };
    // Each namespace is the other's, and no other one but that of users.
    let links = "for kind in user pid ipc net uts mnt; do readlink /proc/self/ns/$kind; done";
    let of_donor: Vec<String> = donor.says(links).lines().map(Into::into).collect();
    for (flag, shared) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let own = says(&[flag, "container:donor"], links);
        let same: Vec<&str> = own.lines().filter(|link| of_donor.iter().any(|other| other == link)).collect();
        let kinds: Vec<&str> = same.iter().filter_map(|link| link.split(':').next()).collect();
        assert_eq!(kinds, ["user", shared], "{flag}: {own}");
    }
    // What that means: processes, memory, names.
    let seen = says(&["--pid=container:donor"], "ps -o args | grep -c '[s]leep 1000'; kill -0 1 && echo may");
    assert_eq!(seen, "1\nmay");
    says(&["--ipc=container:donor"], "echo from the other > /dev/shm/note");
    assert_eq!(donor.says("cat /dev/shm/note; rm /dev/shm/note"), "from the other");
    assert_eq!(says(&["--network=container:donor"], "hostname; cat /etc/hostname"), "donors\ndonors");
    // All at once, in the background, and a further process in it.
    onggi(&[
        "run",
        "-d",
        "--name",
        "guest",
        "--pid=container:donor",
        "--ipc=container:donor",
        "--network=container:donor",
        IMAGE,
        "sleep",
        "500",
    ])
    .ok();
    let inside =
        onggi(&["exec", "guest", "sh", "-c", "ps -o args | grep -c '[s]leep'; test -d /dev/shm && echo yes"]);
    assert_eq!(inside.ok(), "2\nyes");
    // Files of the image belong to the same root.
    let owners = onggi(&["exec", "guest", "stat", "-c", "%u %g", "/bin/busybox", "/etc/hosts"]).ok();
    assert_eq!(owners, "0 0\n0 0");
    // The end of the other's first process is that of all in its pid namespace.
    drop(donor);
    assert_eq!(onggi(&["wait", "guest"]).ok(), "137");
    let again = onggi(&["start", "guest"]);
    assert!(again.code == Some(1) && again.stderr.contains("donor"), "{}", again.stderr);
    let donor = Donor::start(onggi, "donor", &["--ipc=shareable"]);
    onggi(&["start", "guest"]).ok();
    drop(donor);
    onggi(&["rm", "-f", "guest"]).ok();
}

#[test]
fn root_shares_namespaces_of_a_container() {
    as_root(all_kinds);
}

#[test]
fn an_ordinary_user_shares_namespaces_of_a_container() {
    as_user(true, all_kinds);
}

#[test]
fn an_ordinary_user_with_one_id_shares_namespaces_of_a_container() {
    as_user(false, all_kinds);
}

#[test]
fn what_cannot_be_shared_is_refused_by_name() {
    as_root(|onggi| {
        let refuses = |flags: &[&str], words: &str| {
            let done = onggi(&[&["run", "--rm"], flags, &[IMAGE, "true"]].concat());
            assert_eq!(done.code, Some(125), "{flags:?}: {}", done.stderr);
            assert!(done.stderr.contains(words), "{flags:?}: {}", done.stderr);
        };
        let _donor = Donor::start(onggi, "donor", &[]);
        let _other = Donor::start(onggi, "other", &["--ipc=shareable"]);
        let _host = Donor::start(onggi, "host", &["--userns=host", "--ipc=shareable"]);
        refuses(&["--pid=container:nobody"], "No such container: nobody");
        refuses(&["--ipc=container:donor"], "non-shareable IPC");
        refuses(&["--pid=container:donor", "--ipc=container:other"], "different IDs");
        refuses(&["--pid=container:donor", "--userns=private"], "--userns");
        refuses(&["--network=container:donor", "--hostname=x"], "hostname and the network mode");
        refuses(&["--network=container:donor", "--dns=1.1.1.1"], "dns and the network mode");
        refuses(&["--network=container:donor", "-p", "80:80"], "port publishing");
        onggi(&["create", "--name", "idle", IMAGE, "true"]).ok();
        refuses(&["--network=container:idle"], "not running");
        onggi(&["rm", "idle"]).ok();
        // With the host's IDs there is authority over all of them, and such a container's guests have them too.
        let script = "cat /proc/self/uid_map | tr -s ' '; ps -o args | grep -c '[s]leep 1000'";
        let host_ids = onggi(&[
            "run",
            "--rm",
            "--userns=host",
            "--pid=container:donor",
            "--ipc=container:other",
            IMAGE,
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(host_ids.ok(), " 0 0 4294967295\n1");
        let guest = onggi(&["run", "--rm", "--pid=container:host", IMAGE, "sh", "-c", script]);
        assert_eq!(guest.ok(), " 0 0 4294967295\n1");
    });
}

/// The range of IDs stays taken as long as anybody has it.
#[test]
fn a_guest_keeps_the_ids_of_its_donor() {
    if needs::root().is_missing() {
        return;
    }
    as_root(|onggi| {
        let range = |name: &str| onggi(&["exec", name, "cat", "/proc/self/uid_map"]).ok();
        let donor = Donor::start(onggi, "donor", &["--ipc=shareable"]);
        let guest_flags = ["--network=container:donor", "--ipc=container:donor"];
        let guest = Donor::start(onggi, "guest", &guest_flags);
        let shared = range("guest");
        assert_eq!(shared, range("donor"));
        drop(donor);
        // The guest lives on with its network and memory.
        assert_eq!(
            guest.says("ip link show lo | grep -c UP; echo x > /dev/shm/x && echo written"),
            "1\nwritten"
        );
        for name in ["one", "two"] {
            let other = Donor::start(onggi, name, &[]);
            assert_ne!(range(name), shared);
            drop(other);
        }
    });
}
