//! What the programs of a build reach: on a host of the test's own, so that bridges and programs of
//! users are nobody else's.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use support::user::User;
use support::{Done, Onggi, busybox_archive};

/// Root's store with busybox and a context. `None` is a counted skip.
fn workshop(dockerfile: &str) -> Option<Onggi> {
    if needs::root().is_missing() || needs::programs(&["unshare", "ip"]).is_missing() {
        return None;
    }
    let onggi = Onggi::with_busybox("busybox:latest")?;
    context(onggi.folder(), dockerfile);
    Some(onggi)
}

fn context(folder: &Path, dockerfile: &str) {
    fs::create_dir(folder.join("context")).expect("a folder");
    fs::write(folder.join("context/Dockerfile"), dockerfile).expect("a file");
}

/// The command on a host with loopback alone, and with a listener on the host's port 4000.
fn on_own_host(inner: &Command, network: Option<&str>) -> Command {
    const HOST: &str = "ip link set lo up; busybox nc -ll -p 4000 -e echo host & server=$!; \"$@\"; code=$?; \
        kill $server; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", HOST, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env_remove("ONGGI_NETWORK").stdin(Stdio::null());
    if let Some(network) = network {
        command.env("ONGGI_NETWORK", network);
    }
    command
}

fn build(onggi: &Onggi, words: &str, network: Option<&str>) -> Done {
    let context = onggi.folder().join("context");
    let words = ["build", "--no-cache"].into_iter().chain(words.split_whitespace());
    let inner = onggi.command(words.chain([context.to_str().expect("a path of ours")]));
    Done::of(&mut on_own_host(&inner, network))
}

#[test]
fn a_step_has_the_default_network_and_not_the_hosts() {
    let Some(onggi) = workshop(
        "FROM busybox\nRUN ip route; ls /sys/class/net | tr '\\n' ' '; readlink /proc/self/ns/net; nc -w1 127.0.0.1 4000 < /dev/null || echo refused\n\
         RUN readlink /proc/self/ns/net; (nc -l -p 80 -e echo low < /dev/null & sleep 0.2; nc 127.0.0.1 80 < /dev/null)\n\
         RUN --network=none ip addr\n",
    ) else {
        return;
    };
    let done = build(&onggi, "--progress=plain", None);
    let said = done.stderr.clone();
    done.ok();
    assert!(said.contains("default via"), "{said}");
    // What /sys shows is of this network, and not the host's.
    assert!(said.contains(" eth0 lo net:["), "{said}");
    assert!(said.contains("refused") && !said.contains(" host\n"), "{said}");
    // A program without authority over the namespace may listen where a container's root may.
    assert!(said.contains(" low\n"), "{said}");
    // Steps after each other share one; a step that wants none has another.
    let namespaces: Vec<_> = said.lines().filter_map(|line| Some(&line[line.find("net:[")?..])).collect();
    assert_eq!(namespaces.len(), 2, "{said}");
    assert_eq!(namespaces[0], namespaces[1], "{said}");
    let none = &said[said.find("RUN --network=none").expect("the third step")..];
    assert!(!none.contains("eth0"), "{none}");
    assert_eq!(nothing_held(&onggi.runroot()), Vec::<String>::new());
}

#[test]
fn steps_side_by_side_do_not_meet() {
    let Some(onggi) = workshop(
        "FROM busybox AS a\nRUN (nc -l -p 7000 -e true & sleep 1; kill %1; true); ip addr show eth0 > /a\n\
         FROM busybox AS b\nRUN sleep 0.5; nc -w1 127.0.0.1 7000 < /dev/null && echo met; ip addr show eth0 > /b\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    ) else {
        return;
    };
    let done = build(&onggi, "--progress=plain --jobs 4", None);
    let said = done.stderr.clone();
    done.ok();
    assert!(!said.lines().any(|line| line.ends_with(" met")), "{said}");
    assert_eq!(nothing_held(&onggi.runroot()), Vec::<String>::new());
}

#[test]
fn the_hosts_network_needs_a_word_and_a_named_one_must_exist() {
    let dockerfile = "FROM busybox\nRUN --network=host nc 127.0.0.1 4000 < /dev/null\n";
    let Some(onggi) = workshop(dockerfile) else { return };
    let refused = build(&onggi, "", None);
    refused.assert_failed_in_words();
    assert!(refused.stderr.contains("network.host"), "{}", refused.stderr);
    assert!(build(&onggi, "--allow network.host --progress=plain", None).stderr.contains(" host\n"));

    let file = onggi.folder().join("context/Dockerfile");
    fs::write(&file, "FROM busybox\nRUN ip addr; ip route\n").expect("a file");
    let none = build(&onggi, "--progress=plain --network none", None).stderr;
    assert!(!none.contains("eth0"), "{none}");
    // The environment's word counts as it does for `run`, and the flag before it.
    let none = build(&onggi, "--progress=plain", Some("none")).stderr;
    assert!(!none.contains("eth0"), "{none}");
    onggi.ok(["network", "create", "--subnet", "10.77.3.0/24", "named"]);
    let named = build(&onggi, "--progress=plain --network named", Some("none")).stderr;
    assert!(named.contains("10.77.3."), "{named}");
    let missing = build(&onggi, "--network nowhere", None);
    missing.assert_failed_in_words();
    assert!(missing.stderr.contains("nowhere"), "{}", missing.stderr);
    let other = build(&onggi, "--network container:x", None);
    other.assert_failed_in_words();
    assert!(other.stderr.contains("container:x"), "{}", other.stderr);
}

#[test]
fn an_ordinary_users_steps_are_connected_by_a_program() {
    let Some(user) = User::new(true) else { return };
    if needs::programs(&["pasta"]).is_missing() {
        return;
    }
    if !Path::new("/dev/net/tun").exists() {
        let _ = needs::missing("/dev/net/tun");
        return;
    }
    let Some(archive) = busybox_archive(user.home(), "busybox:latest") else { return };
    user.own(&archive);
    user.output(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
    context(user.home(), "FROM busybox\nRUN ip link; ip addr\nRUN ip route\n");
    let context = user.home().join("context");
    let words = ["build", "--no-cache", "--progress=plain", context.to_str().expect("a path of ours")];
    let mut command = Command::new("unshare");
    // An address for the program to take over.
    const HOST: &str = "ip link set lo up; ip link add up0 type veth peer name up1; ip link set up1 up; ip addr add 192.0.2.7/24 dev up0; ip link set up0 up; \
        ip route add default via 192.0.2.1; mknod \"$HOME/tun\" c 10 200; chmod $TUN \"$HOME/tun\"; \
        mount --bind \"$HOME/tun\" /dev/net/tun; exec \"$@\"";
    let inner = user.command(words);
    command
        .args(["--net", "--mount", "sh", "-c", HOST, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = Done::of(command.env_remove("ONGGI_NETWORK").env("TUN", "0666").stdin(Stdio::null()));
    let said = done.stderr.clone();
    done.ok();
    assert!(said.contains("192.0.2.7") && !said.contains("up0"), "{said}");
    // Who may not make the interface has no network, and hears why.
    let done = Done::of(command.env("TUN", "0600"));
    let said = done.stderr.clone();
    done.ok();
    assert!(said.contains("no network but loopback") && !said.contains("eth0"), "{said}");
    assert_eq!(said.matches("no network but loopback").count(), 1, "{said}");
    assert_eq!(nothing_held(&user.home().join("run/onggi")), Vec::<String>::new());
}

#[test]
fn a_killed_build_keeps_no_address() {
    let Some(onggi) = workshop("FROM busybox\nRUN sleep 5\n") else { return };
    if needs::programs(&["nsenter"]).is_missing() {
        return;
    }
    let mut host = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().expect("a host");
    let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
    let theirs = format!("/proc/{}/ns/net", host.id());
    while fs::read_link(&theirs).is_ok_and(|name| name == own) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let context = onggi.folder().join("context");
    let command = || {
        let inner = onggi.command(["build", "--no-cache", context.to_str().expect("a path of ours")]);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={theirs}")).arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env_remove("ONGGI_NETWORK").stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    for _ in 0..3 {
        let mut child = command().spawn().expect("the command");
        let begun = Instant::now();
        let is_connected = || nothing_held(&onggi.runroot()).iter().any(|left| left.contains("/endpoints/"));
        while !is_connected() && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN true\n").expect("a file");
    let done = Done::of(&mut command());
    let _ = host.kill();
    let _ = host.wait();
    done.ok();
    assert_eq!(nothing_held(&onggi.runroot()), Vec::<String>::new());
}

/// Addresses, records, programs and marks that are left.
fn nothing_held(runroot: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let mut todo = vec![runroot.join("networks"), runroot.join("containers")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else if entry.file_name() != "lock" {
                left.push(entry.path().display().to_string());
            }
        }
    }
    left
}
