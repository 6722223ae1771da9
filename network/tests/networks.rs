//! Networks in namespaces that the tests make: a thread of its own is the "host".
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use onggi_network::{
    Bridges, Definition, EndpointWish, Guest, NetworkNamespace, NetworkWish, Networks, PortWish, Protocol,
};
use onggi_sys::clone::{Namespaces, unshare};
use onggi_sys::link::loopback_up;
use onggi_testkit::needs;
use tempfile::TempDir;

/// A host of its own with a store, as long as `test` runs in it.
fn on_a_host(test: impl FnOnce(&Networks, &TempDir) + Send + 'static) {
    if needs::root().is_missing() || needs::programs(&["nft", "ip"]).is_missing() {
        return;
    }
    let thread = thread::spawn(move || {
        unshare(Namespaces::NET).unwrap();
        loopback_up().unwrap();
        let folder = TempDir::new().unwrap();
        let networks = Networks::new(&folder.path().join("root"), &folder.path().join("run"), Bridges::Here);
        test(&networks, &folder);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A namespace as a container has one.
fn namespace() -> NetworkNamespace {
    thread::spawn(|| {
        unshare(Namespaces::NET).unwrap();
        loopback_up().unwrap();
        NetworkNamespace::open("/proc/thread-self/ns/net".as_ref()).unwrap()
    })
    .join()
    .unwrap()
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn network(networks: &Networks, name: &str, change: impl FnOnce(&mut NetworkWish)) -> Definition {
    let mut wish =
        NetworkWish { name: name.into(), created: "2026-01-01T00:00:00Z".into(), ..NetworkWish::default() };
    change(&mut wish);
    networks.create(&wish).unwrap()
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn port(number: u16, protocol: Protocol) -> PortWish {
    PortWish { host_ip: None, host_ports: None, container_port: number, protocol }
}

/// Answers every connection with the address that it came from.
fn serve(inside: &NetworkNamespace, address: &str) {
    let listener = inside.inside(|| Ok(TcpListener::bind(address).unwrap())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = { stream }.write_all(peer.as_bytes());
        }
    });
}

/// What the server says; `None` if it can't be reached.
fn ask(address: (IpAddr, u16)) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_millis(1500)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn guest<'a>(id: &'a str, networks: &'a [(Definition, EndpointWish)], ports: &'a [PortWish]) -> Guest<'a> {
    Guest { id, name: id, networks, ports, default_ip: LOOPBACK }
}

#[test]
fn containers_have_addresses_ports_and_walls() {
    on_a_host(|networks, _| {
        let web = network(networks, "web", |_| {});
        let other = network(networks, "other", |_| {});
        let on_web = [(web.clone(), EndpointWish::default())];
        let on_other = [(other.clone(), EndpointWish::default())];
        let (one, two, three) = (namespace(), namespace(), namespace());
        let ports = [
            port(80, Protocol::Tcp),
            PortWish { host_ip: Some(Ipv4Addr::UNSPECIFIED.into()), ..port(80, Protocol::Tcp) },
        ];
        let first = networks.reserve(&guest("one", &on_web, &ports)).unwrap();
        networks.plug(&first, &one).unwrap();
        let second = networks.reserve(&guest("two", &on_web, &[])).unwrap();
        networks.plug(&second, &two).unwrap();
        let third = networks.reserve(&guest("three", &on_other, &[])).unwrap();
        networks.plug(&third, &three).unwrap();
        let address = first.endpoints[0].1.ipv4().unwrap();
        assert_eq!(
            (address.to_string(), second.endpoints[0].1.ipv4().unwrap().to_string()),
            ("10.89.0.2".into(), "10.89.0.3".into())
        );
        serve(&one, "0.0.0.0:80");
        let published: Vec<u16> = first.endpoints[0].1.ports.iter().map(|port| port.host_port).collect();
        let (local, wild) = (published[0], published[1]);
        let gateway = web.ranges[0].gateway;
        let elsewhere = other.ranges[0].gateway;

        // From the host, straight and by the published ports, on localhost and elsewhere.
        assert_eq!(ask((address, 80)), Some(gateway.to_string()));
        assert_eq!(ask((LOOPBACK, local)), Some(gateway.to_string()));
        assert_eq!(ask((LOOPBACK, wild)), Some(gateway.to_string()));
        assert_eq!(ask((gateway, local)), None);
        assert!(ask((gateway, wild)).is_some());
        // From a neighbour, straight and around.
        let of_two = second.endpoints[0].1.ipv4().unwrap().to_string();
        assert_eq!(two.inside(|| Ok(ask((address, 80)))).unwrap(), Some(of_two));
        // (With the module br_netfilter, bridged packets pass through the table too.)
        let filtered = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        for on in ["0", "1"].into_iter().filter(|_| std::path::Path::new(filtered).exists()) {
            std::fs::write(filtered, on).unwrap();
            assert!(two.inside(|| Ok(ask((gateway, wild)))).unwrap().is_some(), "{on}");
        }
        let hairpin = networks.reserve(&guest("again", &on_web, &[port(80, Protocol::Tcp)])).unwrap();
        let again = namespace();
        networks.plug(&hairpin, &again).unwrap();
        assert!(one.inside(|| Ok(ask((gateway, wild)))).unwrap().is_some(), "itself");
        networks.release("again").unwrap();
        // From another network only by the published port, and then with its own address.
        assert_eq!(three.inside(|| Ok(ask((address, 80)))).unwrap(), None);
        let of_three = third.endpoints[0].1.ipv4().unwrap().to_string();
        assert_eq!(three.inside(|| Ok(ask((elsewhere, wild)))).unwrap(), Some(of_three));
        // Nobody in a container gets at the host's loopback addresses.
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let secret = host.local_addr().unwrap().port();
        two.inside(|| {
            run("ip route add 127.0.0.9/32 via 10.89.0.1 2>/dev/null || true");
            assert_eq!(ask((LOOPBACK, secret)), None);
            Ok(())
        })
        .unwrap();

        // A port is somebody's.
        let wish = PortWish { host_ports: Some((local, local)), ..port(80, Protocol::Tcp) };
        let error = networks.reserve(&guest("four", &on_web, &[wish])).unwrap_err();
        assert!(error.to_string().ends_with("in use by container one"), "{error}");
        assert_eq!(networks.endpoints(&web).unwrap().len(), 2, "the failed one left nothing");

        assert_eq!(networks.check(false).unwrap(), []);
        networks.release("one").unwrap();
        assert!(!run("nft list table inet onggi").contains("tcp ."));
        assert_eq!(networks.check(false).unwrap(), []);
        assert!(networks.remove(&web).unwrap_err().to_string().contains("active endpoints (two)"));
        networks.sweep(&|_| false).unwrap();
        for one in [&web, &other] {
            networks.remove(one).unwrap();
        }
        assert_eq!(run("ip -br link | grep -c onggi || true"), "0\n");
        assert!(!run("nft list table inet onggi").contains("onggi-"));
    });
}
