//! Networks through the binary, on a host of the test's own: a network namespace, held by a process, in
//! which the command runs.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onggi_testkit::needs;
use support::{Done, Onggi, busybox_archive, until};

/// A store and a host that is nobody else's.
struct Host {
    onggi: Onggi,
    holder: Child,
}

impl Host {
    fn new() -> Option<Self> {
        let programs = needs::programs(&["unshare", "nsenter", "ip", "nft", "busybox"]);
        if needs::root().is_missing() || programs.is_missing() {
            return None;
        }
        let onggi = Onggi::new();
        let archive = busybox_archive(onggi.folder(), "busybox:1")?;
        onggi.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let host = Self { onggi, holder };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", host.holder.id());
        until("the namespace exists", || std::fs::read_link(&theirs).is_ok_and(|name| name != own));
        host.sh("ip link set lo up");
        Some(host)
    }

    /// The command, on this host.
    fn command(&self, words: &str) -> Command {
        let inner = self.onggi.command(words.split_whitespace());
        self.inside(&inner)
    }

    fn inside(&self, inner: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg(inner.get_program());
        command.args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env_remove("ONGGI_NETWORK").stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        Done::of(&mut self.command(words)).ok()
    }

    #[track_caller]
    fn fails(&self, words: &str) -> String {
        let done = Done::of(&mut self.command(words));
        done.assert_failed_in_words();
        done.stderr
    }

    /// What a container's shell prints.
    #[track_caller]
    fn says(&self, flags: &str, script: &str) -> String {
        let words = format!("run --rm {flags} busybox:1 sh -c");
        let inner = self.onggi.command(words.split_whitespace().chain([script]));
        Done::of(&mut self.inside(&inner)).ok()
    }

    /// A container that answers on port 80 with the address of whoever asks, until it is dropped.
    fn serve(&self, name: &str, flags: &str) -> Server<'_> {
        const SERVER: &str = "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /w/cgi-bin/me; \
            chmod +x /w/cgi-bin/me; exec httpd -f -p 0.0.0.0:80 -h /w";
        let words = format!("run --rm --init --name {name} {flags} busybox:1 sh -c");
        let inner = self.onggi.command(words.split_whitespace().chain([SERVER]));
        let child = self.inside(&inner).stderr(Stdio::piped()).spawn().unwrap();
        let server = Server { host: self, name: name.into(), child };
        until("the server runs", || {
            let words = ["exec", name, "wget", "-qO-", "127.0.0.1/cgi-bin/me"];
            Done::of(&mut self.inside(&self.onggi.command(words))).code == Some(0)
        });
        server
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let mut inner = Command::new("sh");
        inner.args(["-c", script]).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Done::of(&mut self.inside(&inner)).ok()
    }

    /// What the server at this place says; empty if it can't be reached.
    fn ask(&self, place: &str) -> String {
        self.sh(&format!("timeout 2 busybox wget -qO- http://{place}/cgi-bin/me 2>/dev/null || true"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

struct Server<'a> {
    host: &'a Host,
    name: String,
    child: Child,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = Done::of(&mut self.host.command(&format!("rm -f {}", self.name)));
        let _ = self.child.wait();
    }
}

/// Nothing of any container is left in files, in the table, or among interfaces.
#[track_caller]
fn assert_nothing_left(host: &Host) {
    let networks = host.onggi.runroot().join("networks");
    let files = host.sh(&format!("find {} -not -type d -not -name lock", networks.display()));
    assert_eq!(files, "");
    let table = host.sh("nft list table inet onggi");
    assert!(!table.contains("tcp ."), "{table}");
    until("the interfaces are gone", || !host.sh("ip -br link").contains("\nov"));
    host.ok("system check");
}

#[test]
fn a_published_port_is_reached_on_loopback_and_nowhere_else() {
    let Some(host) = Host::new() else { return };
    let server = host.serve("web", "-p 8080:80 -p 0.0.0.0:8081:80");
    assert_eq!(host.ask("127.0.0.1:8080"), "10.88.0.1");
    assert_eq!(host.ask("127.0.0.1:8081"), "10.88.0.1");
    assert_eq!(host.ask("10.88.0.1:8080"), "");
    assert_eq!(host.ok("port web 80"), "0.0.0.0:8081\n127.0.0.1:8080");
    assert_eq!(host.ok("ps --format {{.Ports}}"), "0.0.0.0:8081->80/tcp, 127.0.0.1:8080->80/tcp");
    let error = host.fails("run --rm -p 8080:80 busybox:1 true");
    assert!(error.contains("8080/tcp of 127.0.0.1 is already in use by container web"), "{error}");
    // A peer from elsewhere keeps his address; a neighbour has no way to what isn't published.
    host.sh("ip link add e0 type veth peer name e1; ip link set e0 up; ip addr add 192.0.2.1/24 dev e0");
    let peer = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
    let mut peer = Host { onggi: Onggi::new(), holder: peer };
    let own = std::fs::read_link(format!("/proc/{}/ns/net", host.holder.id())).unwrap();
    let theirs = format!("/proc/{}/ns/net", peer.holder.id());
    let first = std::fs::read_link("/proc/self/ns/net").unwrap();
    until("the peer exists", || std::fs::read_link(&theirs).is_ok_and(|name| name != own && name != first));
    host.sh(&format!("ip link set e1 netns {}", peer.holder.id()));
    peer.sh("ip link set e1 up; ip addr add 192.0.2.2/24 dev e1; ip route add 10.88.0.0/16 via 192.0.2.1");
    assert_eq!(peer.ask("192.0.2.1:8081"), "192.0.2.2");
    assert_eq!(peer.ask("192.0.2.1:8080"), "");
    assert_eq!(peer.ask("10.88.0.2:80"), "");
    let _ = peer.holder.kill();
    drop(server);
    assert_nothing_left(&host);
}

#[test]
fn containers_of_a_network_find_each_other_by_name() {
    let Some(host) = Host::new() else { return };
    host.ok("network create --label kind=test web");
    host.ok("network create --internal --subnet 10.77.0.0/24 --gateway 10.77.0.9 back");
    let error = host.fails("network create --subnet 10.77.0.128/25 other");
    assert!(error.contains("overlaps 10.77.0.0/24 of network back"), "{error}");
    let db = host.serve("db", "--network name=web,alias=base,ip=10.89.0.40 --network back");
    let me = host.says(
        "--network web --ip 10.89.0.50",
        "for n in db base db.web; do wget -qO- http://$n/cgi-bin/me; done",
    );
    assert_eq!(me, "10.89.0.50\n10.89.0.50\n10.89.0.50");
    let short = host.ok("inspect --format {{.Config.Hostname}} db");
    assert!(host.says("--network web", &format!("nslookup {short}")).contains("10.89.0.40"));
    let reverse = host.says("--network web", "nslookup 10.89.0.40");
    assert!(reverse.contains("name = db.web"), "{reverse}");
    // By TCP too; and another network hears nothing.
    assert_eq!(host.says("--network back", "cat /etc/resolv.conf | grep -c 127.0.0.11"), "1");
    let unknown =
        host.says("--network back", "nslookup base 2>&1; nslookup example.com 2>&1; ip route; true");
    assert!(
        unknown.contains("can't find base")
            && unknown.contains("NXDOMAIN")
            && !unknown.contains("default via"),
        "{unknown}"
    );
    assert_eq!(host.says("", "nslookup db 127.0.0.11 >/dev/null 2>&1 || echo none"), "none");
    // Connected and disconnected while it runs.
    let client = host.serve("client", "");
    host.ok("network connect --alias late web client");
    let heard = host.sh(&format!("{} exec client wget -qO- http://db/cgi-bin/me", env(&host)));
    assert!(heard.starts_with("10.89.0."), "{heard}");
    assert!(host.says("--network web", "nslookup late").contains("10.89.0."));
    assert!(host.fails("network connect web client").contains("already connected"));
    assert!(host.fails("network rm web").contains("active endpoints"));
    host.ok("network disconnect web client");
    assert!(host.says("--network web", "nslookup late 2>&1; true").contains("can't find"));
    assert_eq!(host.ok("network ls --filter label=kind=test --format {{.Name}}"), "web");
    drop((db, client));
    host.ok("network rm web back");
    assert!(host.fails("network rm bridge").contains("pre-defined"));
    assert_nothing_left(&host);
}

/// The environment and the name of the command, for a shell.
fn env(host: &Host) -> String {
    let command = host.onggi.command([""; 0]);
    let set = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    let set: String = set.map(|(name, value)| format!("{name}='{value}' ")).collect();
    format!("{set}{}", Path::new(command.get_program()).display())
}

/// What a port of the container `v6` says to UDP and TCP, a megabyte at once and a half-closed connection.
const ECHO: &str = r#"
import socket, sys, threading
def tcp():
    listener = socket.create_server(("0.0.0.0", 7))
    while True:
        one, _ = listener.accept()
        data = b""
        while chunk := one.recv(65536): data += chunk
        one.sendall(data[::-1]); one.close()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", 7))
threading.Thread(target=tcp, daemon=True).start()
print("ready", flush=True)
while True:
    data, who = udp.recvfrom(65536)
    udp.sendto(data.upper(), who)
"#;
const SPEAK: &str = r#"
import os, socket
udp = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]
for number, one in enumerate(udp):
    one.settimeout(10); one.connect(("::1", 8007)); one.send(b"client %d" % number)
print([one.recv(100) for one in udp])
sent = os.urandom(1 << 20)
both = [socket.create_connection(("::1", 8007), timeout=30) for _ in range(2)]
for one in both:
    one.sendall(sent); one.shutdown(socket.SHUT_WR)
for one in both:
    got = b""
    while chunk := one.recv(65536): got += chunk
    print(got[::-1] == sent)
"#;

#[test]
fn the_loopback_address_of_ipv6_is_published_on_too() {
    let Some(host) = Host::new() else { return };
    if needs::programs(&["python3"]).is_missing() {
        return;
    }
    let server = host.serve("v6", "-p [::1]:8080:80 -p [::1]:8007:7/tcp -p [::1]:8007:7/udp -p 8080:80");
    assert_eq!(host.ask("[::1]:8080"), "10.88.0.1");
    assert_eq!(host.ask("127.0.0.1:8080"), "10.88.0.1");
    assert_eq!(host.ok("port v6 80"), "127.0.0.1:8080\n[::1]:8080");
    let error = host.fails("run --rm -p [::1]:8080:80 busybox:1 true");
    assert!(error.contains("8080/tcp of ::1 is already in use by container v6"), "{error}");
    let pid = host.ok("inspect --format {{.State.Pid}} v6");
    let mut echo = Command::new("nsenter");
    echo.args(["-t", &pid, "--net", "python3", "-c", ECHO]).stdout(Stdio::piped());
    let mut echo = echo.spawn().unwrap();
    std::io::Read::read_exact(echo.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let said = host.sh(&format!("python3 -c '{SPEAK}'"));
    assert_eq!(said, "[b'CLIENT 0', b'CLIENT 1']\nTrue\nTrue");
    host.ok("system check");
    echo.kill().unwrap();
    echo.wait().unwrap();
    // A container that leaves the network is not reached any more, and the relay ends with it.
    host.ok("network disconnect bridge v6");
    assert_eq!(host.ask("[::1]:8080"), "");
    drop(server);
    host.ok("run --rm -p [::1]:8080:80 busybox:1 true");
    assert_nothing_left(&host);
}

#[test]
fn what_others_break_is_found_and_mended() {
    let Some(host) = Host::new() else { return };
    let server = host.serve("web", "-p 8080:80");
    host.ok("system check");
    host.sh("nft flush ruleset");
    assert_eq!(host.ask("10.88.0.2:80"), "10.88.0.1");
    let done = Done::of(&mut host.command("system check"));
    assert!(done.code == Some(1) && done.stdout.contains("is missing"), "{}", done.stdout);
    assert!(host.ok("system check --repair").contains("mended"));
    assert_eq!(host.ask("127.0.0.1:8080"), "10.88.0.1");
    host.sh("nft flush map inet onggi ports4");
    assert!(host.ok("system check --repair").contains("1 elements"));
    assert_eq!(host.ask("127.0.0.1:8080"), "10.88.0.1");
    // Without a word to anybody, the next container mends it too.
    host.sh("nft flush ruleset");
    host.says("", "true");
    assert_eq!(host.ask("127.0.0.1:8080"), "10.88.0.1");
    // A firewall of the host is named.
    host.sh("nft 'add table ip fw; add chain ip fw forward { type filter hook forward priority 0; policy drop; }'");
    assert!(Done::of(&mut host.command("system check")).stderr.contains("ip fw forward"));
    drop(server);
    assert_nothing_left(&host);
}

#[test]
fn a_killed_command_leaves_no_address_and_no_port() {
    let Some(host) = Host::new() else { return };
    let mut server =
        host.command("run --rm -p 8080:80 -p [::1]:8080:80 busybox:1 sleep 600").spawn().unwrap();
    until("it runs", || host.ok("ps --format {{.State}}") == "running");
    server.kill().unwrap();
    server.wait().unwrap();
    until("the port is free again", || {
        Done::of(&mut host.command("run --rm -p 8080:80 busybox:1 true")).code == Some(0)
    });
    host.ok("ps -a");
    assert_nothing_left(&host);
}

#[test]
fn wishes_that_cannot_be_are_refused_by_name() {
    let Some(host) = Host::new() else { return };
    for (words, part) in [
        ("run --rm --network nowhere busybox:1 true", "network nowhere not found"),
        ("run --rm --ip 10.1.2.3 busybox:1 true", "no address of a host in 10.88.0.0/16"),
        ("run --rm --ip 10.88.0.1 busybox:1 true", "gateway"),
        ("run --rm -p [fd00::1]:80:80 busybox:1 true", "network has none (network create --ipv6)"),
        ("run --rm -p 80:80/icmp busybox:1 true", "tcp, udp or sctp"),
        ("run --rm --network host -p 80:80 busybox:1 true", "--publish"),
        ("run --rm --network-alias x busybox:1 true", "user-defined"),
        ("run --rm --mac-address 01:00:00:00:00:01 busybox:1 true", "01:00:00:00:00:01"),
        ("network create --driver macvlan x", "macvlan"),
        ("network create -o nothing=1 x", "nothing"),
        ("network create --gateway 10.1.1.1 x", "--subnet"),
        ("network create bridge", "pre-defined"),
        ("network create a/b", "a/b"),
        ("network connect nowhere nobody", "nobody"),
    ] {
        let error = host.fails(words);
        assert!(error.contains(part), "{words}: {error}");
    }
    assert_eq!(
        host.says(
            "--mac-address 02:00:00:00:00:09 --ip 10.88.0.77",
            "cat /sys/class/net/eth0/address; hostname -i"
        ),
        "02:00:00:00:00:09\n10.88.0.77"
    );
    assert!(
        host.says(
            "--add-host me:host-gateway --dns 192.0.2.9 --dns-search x.y",
            "cat /etc/hosts /etc/resolv.conf"
        )
        .contains("10.88.0.1\tme\nnameserver 192.0.2.9\nsearch x.y")
    );
}

/// Answers for `example.test`: by UDP that `big` is too long, by TCP everything.
const UPSTREAM: &str = r#"
import socket, struct, threading
def answer(query, whole):
    name = query[12:query.index(0, 12)]
    big = b"big" in name
    if big and not whole:
        return query[:2] + b"\x83\x80" + query[4:6] + b"\0\0\0\0\0\0" + query[12:]
    count = 90 if big else 1
    record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x4d"
    end = query.index(0, 12) + 5
    return query[:2] + b"\x81\x80\0\x01" + struct.pack(">H", count) + b"\0\0\0\0" + query[12:end] + record * count
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.53", 53))
tcp = socket.socket(); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); tcp.bind(("127.0.0.53", 53)); tcp.listen()
def by_tcp():
    while True:
        peer, _ = tcp.accept()
        length = struct.unpack(">H", peer.recv(2))[0]
        reply = answer(peer.recv(length), True)
        peer.sendall(struct.pack(">H", len(reply)) + reply); peer.close()
threading.Thread(target=by_tcp, daemon=True).start()
print(flush=True)
while True:
    query, peer = udp.recvfrom(4096)
    udp.sendto(answer(query, False), peer)
"#;

/// Asks the resolver for an address of NAME by TCP: code, flag of truncation, number of answers.
const ASK: &str = r#"
import socket, struct, sys
name, how = sys.argv[1:3]
query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0" + b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0\0\x01\0\x01"
if how == "tcp":
    s = socket.create_connection(("127.0.0.11", 53), 10)
    s.sendall(struct.pack(">H", len(query)) + query)
    file = s.makefile("rb")
    reply = file.read(struct.unpack(">H", file.read(2))[0])
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
    s.sendto(query, ("127.0.0.11", 53)); reply = s.recv(4096)
assert reply[:2] == query[:2]
print(reply[3] & 15, reply[2] >> 1 & 1, struct.unpack(">H", reply[6:8])[0])
"#;

#[test]
fn names_are_answered_by_tcp_and_asked_for_outside() {
    let Some(host) = Host::new() else { return };
    if needs::programs(&["python3"]).is_missing() {
        return;
    }
    let mut upstream = Command::new("python3");
    let mut upstream = host.inside(upstream.args(["-c", UPSTREAM]));
    let mut upstream =
        upstream.env("PATH", std::env::var_os("PATH").unwrap()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(upstream.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    host.ok("network create --ipv6 --subnet 10.78.0.0/24 --subnet fd00:78::/64 web");
    let db =
        host.serve("db", "--network web --dns 127.0.0.53 --dns-search example.test --dns-option ndots:1");
    let ask = |name: &str, how: &str| {
        let pid = host.ok("inspect --format {{.State.Pid}} db");
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "--net", "python3", "-c", ASK, name, how]);
        Done::of(&mut command).ok()
    };
    assert_eq!((ask("db", "udp"), ask("db", "tcp")), ("0 0 1".into(), "0 0 1".into()));
    assert_eq!(
        (ask("a.example.test", "udp"), ask("a.example.test", "tcp")),
        ("0 0 1".into(), "0 0 1".into())
    );
    // What is too long for UDP says so, and comes by TCP.
    assert_eq!(
        (ask("big.example.test", "udp"), ask("big.example.test", "tcp")),
        ("0 1 0".into(), "0 0 90".into())
    );
    // By the search domain, from the C library.
    let seen = host
        .sh(&format!("{} exec db sh -c 'cat /etc/resolv.conf; ping -c1 -W1 outside 2>&1; true'", env(&host)));
    assert!(seen.contains("search example.test") && seen.contains("outside (192.0.2.77)"), "{seen}");
    // Both versions of IP, by name.
    let seen = host.says("--network web", "nslookup db; ping -6 -c1 -W2 db");
    assert!(
        seen.contains("10.78.0.2") && seen.contains("fd00:78::2") && seen.contains(" 0% packet loss"),
        "{seen}"
    );
    // Port 53 on all addresses is the container's own.
    let pid = host.ok("inspect --format {{.State.Pid}} db");
    let bind = "import socket; u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 53)); \
        t = socket.socket(); t.bind(('', 53)); t.listen()";
    Done::of(Command::new("nsenter").args(["-t", &pid, "--net", "python3", "-c", bind])).ok();
    // A new name counts at once.
    host.ok("rename db base");
    assert_eq!(
        host.says(
            "--network web",
            "nslookup db >/dev/null 2>&1 || echo gone; nslookup base | grep -c 10.78.0.2"
        ),
        "gone\n1"
    );
    host.ok("rename base db");
    drop(db);
    upstream.kill().unwrap();
    upstream.wait().unwrap();
    assert_nothing_left(&host);
}

/// Kills what has this in its command line: the programs, their supervisors and the commands.
fn kill_all(host: &Host, marker: &str) {
    let folder = host.onggi.folder().display().to_string();
    let pattern = |text: &str| format!("[{}]{}", &text[..1], &text[1..]);
    host.sh(&format!(
        "for what in '{}' '{}'; do pgrep -f -- \"$what\"; done | xargs -r kill -9; true",
        pattern(marker),
        pattern(&folder)
    ));
}

#[test]
fn everything_killed_at_once_leaves_nothing_of_networks() {
    let Some(host) = Host::new() else { return };
    host.ok("network create web");
    let marker = format!("{}.{}", 300_000, std::process::id());
    let mut seed = 4_242_u64;
    for round in 0..5 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis(seed >> 33 & 127);
        let commands: Vec<Child> = (0..3)
            .map(|number| {
                let rm = if number == 0 { "" } else { "--rm" };
                let words = format!("run -d {rm} --network web -p 0:80 busybox:1 sleep {marker}");
                host.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        std::thread::sleep(moment);
        kill_all(&host, &marker);
        for mut command in commands {
            let _ = command.kill();
            let _ = command.wait();
        }
        // What was being made at that moment goes with its parent, or is found by the second look.
        kill_all(&host, &marker);
        host.ok("ps -a");
        until("no container is left", || {
            kill_all(&host, &marker);
            let all = host.ok("ps -aq").replace('\n', " ");
            all.is_empty() || {
                let _ = Done::of(&mut host.command(&format!("rm -f {all}")));
                false
            }
        });
        let networks = host.onggi.runroot().join("networks");
        until(&format!("round {round}, after {moment:?}: files and interfaces are gone"), || {
            host.ok("ps");
            let files = host.sh(&format!("find {} -not -type d -not -name lock", networks.display()));
            files.is_empty() && !host.sh("ip -br link").contains("\nov")
        });
        assert!(!host.sh("nft list ruleset").contains("tcp ."), "round {round}, after {moment:?}");
        host.ok("system check");
    }
    host.ok("network rm web");
    assert_nothing_left(&host);
}
