//! Networks of an ordinary user, through the binary, on a host of the test's own.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::user::User;
use support::{WAIT, busybox_archive, until};

/// Answers on port 80 with the address of whoever asks.
const SERVER: &str = "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /w/cgi-bin/me; \
    chmod +x /w/cgi-bin/me; exec httpd -f -p 0.0.0.0:80 -h /w";

struct Host(User);

impl Host {
    fn new() -> Option<Self> {
        User::with_networks().and_then(Self::of)
    }

    fn of(user: User) -> Option<Self> {
        let archive = busybox_archive(user.home(), "busybox:1")?;
        user.own(&archive);
        user.output(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
        Some(Self(user))
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        self.0.output(words.split_whitespace()).ok()
    }

    /// What a container's shell prints.
    #[track_caller]
    fn says(&self, flags: &str, script: &str) -> String {
        let words = format!("run --rm {flags} busybox:1 sh -c");
        self.0.output(words.split_whitespace().chain([script])).ok()
    }

    #[track_caller]
    fn serve(&self, name: &str, flags: &str) {
        let words = format!("run -d --init --name {name} {flags} busybox:1 sh -c");
        self.0.output(words.split_whitespace().chain([SERVER])).ok();
        until("the server runs", || self.ask_from(name, "127.0.0.1") == "127.0.0.1");
    }

    /// What the server at this place says to a container.
    fn ask_from(&self, name: &str, place: &str) -> String {
        let url = format!("http://{place}/cgi-bin/me");
        self.0.output(["exec", name, "timeout", "2", "wget", "-qO-", &url]).stdout.trim().to_owned()
    }

    fn networks(&self) -> PathBuf {
        self.0.home().join("run/onggi/networks")
    }

    fn holder(&self) -> Option<i64> {
        let text = fs::read_to_string(self.networks().join("holder.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64()
    }

    /// Nothing of any container is left: no file, no program that connects.
    #[track_caller]
    fn assert_nothing_left(&self) {
        let left = || {
            let script = format!("find {} -not -type d -not -name '*lock'", self.networks().display());
            self.0.on_host(&script).ok()
        };
        until("the last container has given everything back", || left().is_empty());
        // Programs name the files that they were started with; the shell that asks must not find itself.
        let processes =
            self.0.on_host(&format!("pgrep -f -- '[-]-netns {}'; true", self.networks().display()));
        assert_eq!(processes.stdout.trim(), "");
        self.ok("system check");
    }
}

fn ask(run: impl Fn(&str) -> support::Done, place: &str) -> String {
    let script = format!("timeout 2 busybox wget -qO- http://{place}/cgi-bin/me 2>/dev/null; true");
    run(&script).stdout.trim().to_owned()
}

#[test]
fn containers_of_a_user_find_each_other_and_are_reached() {
    let Some(host) = Host::new() else { return };
    host.ok("network create web");
    host.ok("network create --internal --subnet 10.77.0.0/24 back");
    host.serve("db", "--network name=web,alias=base -p 8080:80 -p 0.0.0.0:8081:80");
    let me = host
        .says("--network web --ip 10.89.0.50", "for n in db base; do wget -qO- http://$n/cgi-bin/me; done");
    assert_eq!(me, "10.89.0.50\n10.89.0.50");
    // Published as asked for, and a peer from elsewhere keeps his address.
    assert_eq!(host.ok("ps --format {{.Ports}}"), "0.0.0.0:8081->80/tcp, 127.0.0.1:8080->80/tcp");
    assert_eq!(ask(|script| host.0.on_host(script), "127.0.0.1:8080"), "127.0.0.1");
    assert_eq!(ask(|script| host.0.at_neighbour(script), "192.0.2.10:8081"), "192.0.2.1");
    assert_eq!(ask(|script| host.0.at_neighbour(script), "192.0.2.10:8080"), "");
    let taken = host.0.output("run --rm --network web -p 8080:80 busybox:1 true".split_whitespace());
    assert!(
        taken.stderr.contains("8080/tcp of 127.0.0.1 is already in use by container db"),
        "{}",
        taken.stderr
    );
    // The way out leads to the neighbour, who sees the host.
    host.0.at_neighbour(&format!(
        "(cd {}; mkdir -p n/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > n/cgi-bin/me;
        chmod +x n/cgi-bin/me; busybox httpd -p 192.0.2.1:80 -h n)",
        host.0.home().display()
    ));
    assert_eq!(host.ask_from("db", "192.0.2.1"), "192.0.2.10");
    // Connected and disconnected while it runs.
    host.serve("late", "--network back");
    assert_eq!(host.ask_from("late", "192.0.2.1"), "");
    assert_eq!(host.ask_from("late", "db"), "");
    host.ok("network connect --alias again web late");
    assert!(host.ask_from("late", "db").starts_with("10.89.0."));
    assert_eq!(host.ask_from("late", "192.0.2.1"), "192.0.2.10");
    host.ok("network disconnect web late");
    assert_eq!(host.ask_from("late", "db"), "");
    // A container with a program of its own is in another user namespace.
    host.ok("run -d --name alone --network bridge busybox:1 sleep 600");
    let done = host.0.output(["network", "connect", "web", "alone"]);
    assert!(done.stderr.contains("stop it, connect it, and start it again"), "{}", done.stderr);
    host.ok("stop -t 0 alone");
    host.ok("network connect web alone");
    host.ok("start alone");
    assert!(host.ask_from("alone", "db").starts_with("10.89."));
    host.ok("rm -f db late alone");
    host.ok("network rm web back");
    host.assert_nothing_left();
}

#[test]
fn slirp4netns_does_where_there_is_no_pasta() {
    let Some(host) = User::with_slirp().and_then(Host::of) else { return };
    host.0.at_neighbour(&format!(
        "(cd {}; mkdir -p n/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > n/cgi-bin/me;
        chmod +x n/cgi-bin/me; busybox httpd -p 192.0.2.1:80 -h n)",
        host.0.home().display()
    ));
    let programs = || {
        let script = format!(
            "pgrep -fc 'slirp4netns.*[{}'; true",
            host.networks().display().to_string().replacen('/', "/]", 1)
        );
        host.0.on_host(&script).ok()
    };
    // Alone: a way out, ports, none of the host's loopback.
    host.serve("alone", "--network bridge -p 8080:80 -p 0.0.0.0:8081:80");
    assert_eq!(programs(), "1");
    assert_eq!(host.ask_from("alone", "192.0.2.1"), "192.0.2.10");
    assert_eq!(ask(|script| host.0.on_host(script), "127.0.0.1:8080"), "10.0.2.2");
    assert_eq!(ask(|script| host.0.at_neighbour(script), "192.0.2.10:8081"), "192.0.2.1");
    assert_eq!(ask(|script| host.0.at_neighbour(script), "192.0.2.10:8080"), "");
    let taken = host.0.output("run --rm --network bridge -p 8080:80 busybox:1 true".split_whitespace());
    assert!(taken.stderr.contains("already in use by container"), "{}", taken.stderr);
    let six = host.0.output("run --rm --network bridge -p [::1]:8100:80 busybox:1 true".split_whitespace());
    assert!(six.stderr.contains("slirp4netns knows TCP and UDP of IPv4"), "{}", six.stderr);
    // In a network: names, and the same.
    host.ok("network create web");
    host.serve("db", "--network name=web,alias=base -p 8090:80 -p 0.0.0.0:8091:80/tcp");
    assert_eq!(host.says("--network web --ip 10.89.0.50", "wget -qO- http://base/cgi-bin/me"), "10.89.0.50");
    assert_eq!(host.ask_from("db", "192.0.2.1"), "192.0.2.10");
    assert_eq!(ask(|script| host.0.on_host(script), "127.0.0.1:8090"), "10.0.2.2");
    assert_eq!(ask(|script| host.0.at_neighbour(script), "192.0.2.10:8091"), "192.0.2.1");
    assert_eq!(programs(), "3");
    // They end with their container, also if that ends by itself.
    host.0.output(["exec", "alone", "sh", "-c", "kill -9 -1"]);
    host.ok("wait alone");
    until("its program is gone", || programs() == "2");
    host.ok("rm -f db alone");
    host.ok("network rm web");
    assert_eq!(programs(), "0");
    host.assert_nothing_left();
}

#[test]
fn what_is_killed_is_told_and_made_anew() {
    let Some(host) = Host::new() else { return };
    host.ok("network create web");
    host.serve("db", "--network web -p 8080:80");
    assert_eq!(ask(|script| host.0.on_host(script), "127.0.0.1:8080"), "127.0.0.1");
    let kill = |pid: i64| host.0.on_host(&format!("kill -9 {pid}")).ok();
    kill(host.holder().unwrap());
    assert!(host.ok("ps --format {{.Status}}").starts_with("Up"));
    let done = host.0.output(["system", "check"]);
    assert!(done.code == Some(1) && done.stdout.contains("was killed"), "{} {}", done.stdout, done.stderr);
    // The next container makes it anew, and who lived on is there again.
    assert!(host.says("--network web", "wget -qO- http://db/cgi-bin/me").starts_with("10.89.0."));
    assert_eq!(ask(|script| host.0.on_host(script), "127.0.0.1:8080"), "127.0.0.1");
    kill(host.holder().unwrap());
    let repaired = host.ok("system check --repair");
    assert!(repaired.contains("mended"), "{repaired}");
    host.ok("system check");
    // Everything at once, as at a reboot.
    kill(host.holder().unwrap());
    let own = host.networks().parent().unwrap().display().to_string();
    host.0.on_host(&format!("pgrep -f -- '[{}]{}' | xargs kill -9; true", &own[..1], &own[1..])).ok();
    // The program outlived its supervisor: its command line names nothing of this store.
    until("nothing runs", || {
        let runs = host.ok("ps --format {{.Names}}").contains("db");
        if runs {
            host.0.output(["kill", "-s", "KILL", "db"]);
        }
        !runs
    });
    assert!(host.ok("ps -a --format {{.Status}}").starts_with("Exited"));
    host.ok("start db");
    until("the server runs again", || ask(|script| host.0.on_host(script), "127.0.0.1:8080") == "127.0.0.1");
    host.ok("rm -f db");
    host.assert_nothing_left();
}

#[test]
fn everything_of_a_user_killed_at_once_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    host.ok("network create web");
    let marker = format!("{}.{}", 400_000, std::process::id());
    let home = host.0.home().display().to_string();
    let pattern = |text: &str| format!("[{}]{}", &text[..1], &text[1..]);
    let kill_all = || {
        if let Some(holder) = host.holder() {
            host.0.on_host(&format!("kill -9 {holder}"));
        }
        let script = format!(
            "for what in '{}' '{}'; do pgrep -f -- \"$what\"; done | xargs -r kill -9; true",
            pattern(&marker),
            pattern(&home)
        );
        host.0.on_host(&script).ok();
    };
    let mut seed = 99_u64;
    for round in 0..3 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis(seed >> 33 & 255);
        let commands: Vec<_> = (0..3)
            .map(|_| {
                let words = format!("run -d --network web -p 0:80 busybox:1 sleep {marker}");
                let mut command = host.0.command(words.split_whitespace());
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        std::thread::sleep(moment);
        kill_all();
        for mut command in commands {
            let _ = command.wait();
        }
        until("no container is left", || {
            kill_all();
            let all = host.ok("ps -aq").replace('\n', " ");
            all.is_empty() || {
                host.0.output(format!("rm -f {all}").split_whitespace());
                false
            }
        });
        let script = format!("find {} -not -type d -not -name '*lock'", host.networks().display());
        let begin = Instant::now();
        loop {
            host.ok("ps");
            let left = host.0.on_host(&script).ok();
            if left.is_empty() {
                break;
            }
            assert!(begin.elapsed() < WAIT, "round {round}, after {moment:?}: {left}");
            std::thread::sleep(Duration::from_millis(100));
        }
        host.ok("system check");
    }
    host.ok("network rm web");
    host.assert_nothing_left();
}
