//! What is told about containers: `inspect`, `ps`, `top`, `stats` and `events`.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use support::Onggi;

const IMAGE: &str = "busybox:test";

/// A store with busybox, and root's authority; `None` is a counted skip.
fn setup() -> Option<Onggi> {
    Onggi::with_busybox(IMAGE)
}

/// A container that runs until it is dropped.
struct Running<'a> {
    onggi: &'a Onggi,
    name: &'static str,
    child: Child,
}

impl<'a> Running<'a> {
    fn start(onggi: &'a Onggi, name: &'static str, flags: &[&str], script: &str) -> Self {
        let args = [&["run", "--name", name], flags, &[IMAGE, "sh", "-c", script]].concat();
        let child = onggi.command(args).stdout(Stdio::null()).spawn().expect("it starts");
        let running = Self { onggi, name, child };
        let start = Instant::now();
        while onggi.output(["exec", name, "true"]).code != Some(0) {
            assert!(start.elapsed() < Duration::from_secs(30), "{name} takes too long");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.onggi.output(["rm", "-f", self.name]);
        let _ = self.child.wait();
    }
}

#[test]
fn inspect_says_in_dockers_fields_what_was_asked() {
    let Some(onggi) = setup() else { return };
    let asked = [
        "create",
        "--name",
        "box",
        "-e",
        "A=1",
        "-l",
        "k=v",
        "-w",
        "/tmp",
        "-u",
        "5:6",
        "-h",
        "host",
        "-m",
        "64m",
        "--cpus",
        "1.5",
        "--pids-limit",
        "7",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "CHOWN",
        "-v",
        "/etc:/e:ro",
        "--tmpfs",
        "/t:size=1m",
        "--restart",
        "on-failure:3",
        "--ulimit",
        "nofile=10:20",
        "--init",
        "--read-only",
        "--security-opt",
        "seccomp=unconfined",
        "--log-opt",
        "max-size=1m",
        "--stop-signal",
        "SIGINT",
        "--health-cmd",
        "true",
        "--health-interval",
        "5s",
        "--dns",
        "1.1.1.1",
        "--add-host",
        "a:1.2.3.4",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "-it",
        IMAGE,
        "echo",
        "x",
    ];
    let id = onggi.ok(asked);
    let get = |format: &str| onggi.ok(["inspect", "-f", format, "box"]);
    for (format, want) in [
        ("{{.Id}}", id.as_str()),
        ("{{.Name}} {{.Path}} {{.Args}} {{.State.Status}} {{.State.Running}}", "/box echo [x] created false"),
        ("{{.State.StartedAt}} {{.RestartCount}} {{.Platform}}", "0001-01-01T00:00:00Z 0 linux"),
        ("{{.Config.User}} {{.Config.WorkingDir}} {{.Config.Hostname}}", "5:6 /tmp host"),
        (
            "{{json .Config.Cmd}} {{.Config.Labels}} {{.Config.Image}}",
            "[\"echo\",\"x\"] map[k:v] busybox:test",
        ),
        ("{{.Config.Tty}} {{.Config.OpenStdin}} {{.Config.StopSignal}}", "true true SIGINT"),
        ("{{json .Config.Healthcheck}}", "{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":5000000000}"),
        (
            "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}",
            "67108864 1500000000 7",
        ),
        ("{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}}", "[NET_ADMIN] [CHOWN]"),
        ("{{.HostConfig.Binds}} {{.HostConfig.Tmpfs}}", "[/etc:/e:ro] map[/t:size=1m]"),
        ("{{json .HostConfig.RestartPolicy}}", "{\"Name\":\"on-failure\",\"MaximumRetryCount\":3}"),
        ("{{json .HostConfig.Ulimits}}", "[{\"Name\":\"nofile\",\"Hard\":20,\"Soft\":10}]"),
        (
            "{{.HostConfig.Init}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}}",
            "true true [seccomp=unconfined]",
        ),
        ("{{json .HostConfig.LogConfig}}", "{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"1m\"}}"),
        (
            "{{.HostConfig.Dns}} {{.HostConfig.ExtraHosts}} {{.HostConfig.Sysctls}}",
            "[1.1.1.1] [a:1.2.3.4] map[net.ipv4.ip_forward:1]",
        ),
        ("{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}", "bind /etc /e false"),
        (
            "{{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}} {{.HostConfig.AutoRemove}}",
            "67108864 private false",
        ),
    ] {
        assert_eq!(get(format), want, "{format}");
    }
    assert!(get("{{.LogPath}}").ends_with(&format!("{id}/{id}-json.log")));
    assert!(get("{{json .Config.Env}}").starts_with("[\"A=1\""));
    // Both ways of asking give the same; types are told apart; what is not there is an error beside what is.
    assert_eq!(onggi.ok(["container", "inspect", "box"]), onggi.ok(["inspect", "box"]));
    assert_eq!(onggi.ok(["inspect", "--type", "image", "-f", "{{.Os}}", IMAGE]), "linux");
    onggi.fails(["inspect", "--type", "image", "box"]);
    let done = onggi.fails(["inspect", "nobody", "box"]);
    assert!(done.stderr.contains("nobody") && done.stdout.contains(&id), "{}", done.stderr);
    let size = onggi.ok(["inspect", "-s", "-f", "{{.SizeRootFs}} {{.SizeRw}}", "box"]);
    let sizes: Vec<u64> = size.split(' ').map(|number| number.parse().expect("a number")).collect();
    assert!(sizes[0] > 1_000_000 && sizes[1] < 100_000, "{size}");
}

#[test]
fn ps_shows_what_is_asked_for() {
    let Some(onggi) = setup() else { return };
    onggi.ok(["create", "--name", "made", "-l", "tier=web", "-v", "data:/data", IMAGE, "true"]);
    let failed = onggi.output(["run", "--name", "failed", "-l", "tier=db", IMAGE, "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, Some(3));
    let line = onggi.ok(["ps", "-a", "--no-trunc", "-f", "name=failed", "--format", "{{.Command}}"]);
    assert_eq!(line, "\"sh -c 'exit 3'\"");
    onggi.ok(["run", "--name", "good", "-l", "tier=db", "-l", "x", IMAGE, "true"]);
    let live = Running::start(&onggi, "live", &["--network", "host"], "sleep 300");
    let names = |filters: &[&str]| -> String {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        for filter in filters {
            args.extend(["-f", filter]);
        }
        onggi.ok(args).replace('\n', " ")
    };
    for (filters, want) in [
        (&[][..], "live good failed made"),
        (&["status=running"], "live"),
        (&["status=created", "status=exited"], "good failed made"),
        (&["exited=3"], "failed"),
        (&["label=tier=db"], "good failed"),
        (&["label=tier=db", "label=x"], "good"),
        (&["name=^/?ma"], "made"),
        (&["name=o", "name=fail"], "good failed"),
        (&["before=good"], "failed made"),
        (&["since=failed"], "live good"),
        (&["volume=data"], "made"),
        (&["volume=/data"], "made"),
        (&["network=host"], "live"),
        (&["health=none", "status=running"], "live"),
        (&["health=healthy"], ""),
        (&["ancestor=busybox:test", "status=running"], "live"),
        (&["ancestor=busybox"], ""),
        (&["is-task=true"], ""),
    ] {
        assert_eq!(names(filters), want, "{filters:?}");
    }
    let id = onggi.ok(["ps", "-q", "--no-trunc"]);
    assert_eq!(names(&[&format!("id={}", &id[..9])]), "live");
    assert_eq!(
        onggi.ok(["ps", "--format", "{{.Names}} {{.State}} {{.Networks}} {{.Platform}}"]),
        "live running host linux"
    );
    assert_eq!(onggi.ok(["ps", "-l", "--format", "{{.Names}}"]), "live");
    assert_eq!(onggi.ok(["ps", "-n", "2", "--format", "{{.Names}}"]), "live\ngood");
    assert_eq!(
        onggi.ok(["ps", "-a", "-f", "name=made", "--format", "{{.Mounts}} {{.LocalVolumes}} {{.Status}}"]),
        "data 1 Created"
    );
    let sizes = onggi.ok(["ps", "-as", "-f", "name=good"]);
    assert!(
        sizes.lines().next().is_some_and(|line| line.ends_with("SIZE")) && sizes.contains("(virtual "),
        "{sizes}"
    );
    for bad in ["status=asleep", "exited=x", "color=red", "name=(", "publish=x", "before=nobody"] {
        onggi.fails(["ps", "-f", bad]);
    }
    drop(live);
}

#[test]
fn processes_and_counters_of_a_running_container_are_shown() {
    let Some(onggi) = setup() else { return };
    if needs::programs(&["ps"]).is_missing() {
        return;
    }
    let live = Running::start(&onggi, "live", &["-m", "64m"], "sleep 301 & while :; do :; done");
    let top = onggi.ok(["top", live.name]);
    assert!(top.lines().next().is_some_and(|line| line.contains("PID") && line.ends_with("CMD")), "{top}");
    assert!(top.contains("sleep 301") && !top.contains("onggi"), "{top}");
    let own = onggi.ok(["top", live.name, "-o", "pid,comm"]);
    assert_eq!(own.lines().count(), 3, "{own}");
    onggi.fails(["top", live.name, "-o", "comm"]);
    let format = "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}|{{.NetIO}}";
    let stats = onggi.ok(["stats", "--no-stream", "--format", format]);
    let fields: Vec<&str> = stats.split('|').collect();
    let cpu: f64 = fields[1].trim_end_matches('%').parse().expect("a number");
    // One loop that never waits, on a machine that others use too.
    assert!((5.0..140.0).contains(&cpu), "{stats}");
    assert_eq!((fields[0], fields[3]), ("live", "2"), "{stats}");
    assert!(fields[2].ends_with("/ 64MiB"), "{stats}");
    let table = onggi.ok(["stats", "--no-stream", "-a"]);
    let heading =
        table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|h| !h.is_empty());
    let want =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert!(heading.eq(want), "{table}");
    drop(live);
    onggi.fails(["top", "live"]);
    onggi.fails(["stats", "--no-stream", "live"]);
}

#[test]
fn events_are_told_as_they_happen_and_afterwards() {
    let Some(onggi) = setup() else { return };
    let mut watching =
        onggi.command(["events", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]);
    let mut child = watching.stdout(Stdio::piped()).spawn().expect("it starts");
    let output = child.stdout.take().expect("a pipe");
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    // Until it watches, what happens is the past.
    std::thread::sleep(Duration::from_millis(700));
    onggi.ok(["volume", "create", "data"]);
    onggi.ok(["create", "--name", "made", IMAGE, "true"]);
    let failed =
        onggi.output(["run", "--name", "failed", "-l", "k=v", IMAGE, "sh", "-c", "sleep 0.3; exit 3"]);
    assert_eq!(failed.code, Some(3));
    onggi.ok(["tag", IMAGE, "other:1"]);
    onggi.ok(["rm", "made"]);
    onggi.ok(["rmi", "other:1"]);
    let mut seen = Vec::new();
    let want = [
        "volume create ",
        "container create made",
        "container create failed",
        "container start failed",
        "container die failed",
        "image tag other:1",
        "container destroy made",
        "image untag other:1",
    ];
    let start = Instant::now();
    while !want
        .iter()
        .all(|want| seen.iter().any(|line: &String| line.trim_end().starts_with(want.trim_end())))
    {
        if let Ok(line) = lines.recv_timeout(Duration::from_millis(200)) {
            seen.push(line);
        }
        assert!(start.elapsed() < Duration::from_secs(30), "only {seen:#?}");
    }
    child.kill().expect("it is killed");
    let _ = child.wait();
    let _ = reader.join();
    let past = |filters: &[&str]| {
        let args =
            [&["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"], filters].concat();
        onggi.ok(args).replace('\n', " ")
    };
    assert_eq!(past(&["-f", "container=failed"]), "create attach start die");
    // Also of what is gone, and of what one command did in one go.
    assert_eq!(past(&["-f", "container=made"]), "create destroy");
    assert_eq!(past(&["-f", "type=image"]), "load tag untag");
    onggi.ok(["run", "--rm", "--name", "brief", IMAGE, "true"]);
    assert_eq!(past(&["-f", "container=brief"]), "create attach start die destroy");
    onggi.ok(["run", "-d", "--name", "long", IMAGE, "sleep", "600"]);
    onggi.ok(["rename", "long", "renamed"]);
    onggi.ok(["stop", "-t", "0", "renamed"]);
    assert_eq!(past(&["-f", "container=renamed"]), "rename kill kill die stop");
    // What is done with a container from outside.
    onggi.ok(["run", "-d", "--name", "used", IMAGE, "sleep", "600"]);
    assert_eq!(onggi.output(["exec", "used", "sh", "-c", "exit 4"]).code, Some(4));
    let file = onggi.folder().join("file");
    std::fs::write(&file, "text").expect("a file");
    onggi.ok(["cp".as_ref(), file.as_os_str(), "used:/file".as_ref()]);
    onggi.ok(["cp".as_ref(), "used:/file".as_ref(), file.as_os_str()]);
    onggi.ok(["export".as_ref(), "-o".as_ref(), file.as_os_str(), "used".as_ref()]);
    onggi.ok(["commit", "used", "made:1"]);
    onggi.ok(["top", "used"]);
    let told = onggi.ok([
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--format",
        "{{.Action}}",
        "-f",
        "container=used",
    ]);
    let told: Vec<&str> = told.lines().skip(2).collect();
    assert_eq!(
        told,
        [
            "exec_create: sh -c exit 4",
            "exec_start: sh -c exit 4",
            "exec_die",
            "extract-to-dir",
            "archive-path",
            "export",
            "commit",
            "top"
        ]
    );
    assert_eq!(past(&["-f", "container=used", "-f", "event=exec_start"]), "exec_start: sh -c exit 4");
    let template = "{{.Actor.Attributes.exitCode}} {{len .Actor.Attributes.execID}}";
    let args = ["events", "--since", "1h", "--until", "0s", "-f", "event=exec_die", "--format", template];
    assert_eq!(onggi.ok(args), "4 64");
    onggi.ok(["rm", "-f", "used"]);
    assert_eq!(past(&["-f", "event=die", "-f", "label=k=v"]), "die");
    assert_eq!(past(&["-f", "type=volume"]), "create");
    let json = onggi.ok(["events", "--since", "1h", "--until", "0s", "--format", "json", "-f", "event=die"]);
    for part in [
        "\"status\":\"die\"",
        "\"from\":\"busybox:test\"",
        "\"Type\":\"container\"",
        "\"exitCode\":\"3\"",
        "\"timeNano\":",
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
    onggi.fails(["events", "-f", "color=red"]);
}
