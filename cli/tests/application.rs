//! An application of parts as people run one: a database, a web server before it and a client, built here, on a network of their own,
//! talking by name, with a volume, health checks, limits, a restart after a crash, logs, a backup.

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onggi_testkit::needs;
use support::user::User;
use support::{Done, Onggi, fixture};

const PATIENCE: Duration = Duration::from_secs(60);

const DATABASE: &str = r#"FROM services:base
RUN mkdir /data && chown redis:redis /data
VOLUME /data
USER redis
EXPOSE 6379
HEALTHCHECK --interval=1s --timeout=2s --retries=10 --start-period=1s CMD redis-cli ping | grep -q PONG
CMD ["redis-server", "--dir", "/data", "--appendonly", "yes", "--bind", "0.0.0.0", "--protected-mode", "no"]
"#;

const WEB: &str = r#"FROM services:base
COPY site /srv/site
COPY <<'CONF' /etc/nginx/nginx.conf
daemon off;
error_log /dev/stderr;
pid /tmp/nginx.pid;
events {}
http {
    access_log /dev/stdout;
    server { listen 80; root /srv/site; }
}
CONF
EXPOSE 80
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=1s --timeout=2s --retries=10 CMD curl -fsS http://127.0.0.1/ >/dev/null
CMD ["nginx"]
"#;

/// A network namespace, held by a process, that stands for a host of the test's own.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        const HOLD: &str = "ip link set lo up; echo; exec sleep 600";
        let mut holder = Command::new("unshare");
        let holder = holder.args(["--net", "sh", "-c", HOLD]).stdout(Stdio::piped()).spawn();
        let mut holder = holder.expect("a namespace");
        let mut ready = [0];
        holder.stdout.take().expect("a pipe").read_exact(&mut ready).expect("a line");
        Self(holder)
    }

    fn run(&self, inner: &Command) -> Done {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(inner.get_program());
        command.args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Done::of(command.stdin(Stdio::null()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever runs it: root in a network namespace of the test, or a user.
struct Operator<'a> {
    run: &'a dyn Fn(&[&str]) -> Done,
}

impl Drop for Operator<'_> {
    /// What a test that failed has left is not to run on.
    fn drop(&mut self) {
        let all = (self.run)(&["ps", "-aq"]).stdout;
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            (self.run)(&[&["rm", "-f"], &all[..]].concat());
        }
    }
}

impl Operator<'_> {
    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        (self.run)(words).ok()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, words: &[&str], done: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let seen = (self.run)(words);
            if seen.code == Some(0) && done(&seen.stdout) {
                return seen.stdout;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {words:?}: {} {}", seen.stdout, seen.stderr);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn healthy(&self, name: &str) {
        let format = ["inspect", "-f", "{{.State.Health.Status}}", name];
        self.wait_for("a healthy container", &format, |status| status.trim() == "healthy");
    }

    /// The whole story.
    fn play(&self, folder: &Path, layout: &Path, limits: &[&str]) {
        self.ok(&["load", "-q", "-i", &layout.to_string_lossy()]);
        let base = self.ok(&["images", "-q"]);
        self.ok(&["tag", base.trim(), "services:base"]);
        for (name, dockerfile) in [("database", DATABASE), ("web", WEB)] {
            let context = folder.join(name);
            fs::create_dir_all(context.join("site")).expect("a folder");
            fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
            fs::write(context.join("site/index.html"), "hello from the web\n").expect("a file");
            self.ok(&["build", "-q", "-t", &format!("{name}:1"), &context.to_string_lossy()]);
        }
        self.ok(&["network", "create", "back"]);
        self.ok(&["volume", "create", "data"]);
        let database = [
            "run",
            "-d",
            "--init",
            "--name",
            "database",
            "--network",
            "back",
            "--network-alias",
            "db",
            "-v",
            "data:/data",
        ];
        self.ok(&[&database, limits, &["--restart", "on-failure", "database:1"][..]].concat());
        self.ok(&["run", "-d", "--name", "web", "--network", "back", "-p", "18080:80", "web:1"]);
        self.healthy("database");
        self.healthy("web");

        // By name, alias and published port.
        let client = |script: &str| {
            self.ok(&["run", "--rm", "--network", "back", "services:base", "sh", "-c", script])
        };
        assert_eq!(client("redis-cli -h database set greeting hello"), "OK");
        assert_eq!(
            client("redis-cli -h db get greeting; curl -fsS http://web/"),
            "hello\nhello from the web"
        );
        self.wait_for("the access log", &["logs", "web"], |log| log.contains("GET / HTTP/1.1"));

        // A crash: the policy brings it back, with its data. (A process 1 takes no such signal from inside.)
        self.ok(&[
            "exec",
            "database",
            "sh",
            "-c",
            "redis-cli config set appendfsync always; redis-cli set greeting again",
        ]);
        // The shell may die with the container that it ends.
        (self.run)(&["exec", "database", "sh", "-c", "kill -KILL 2"]);
        self.wait_for("a restart", &["inspect", "-f", "{{.RestartCount}}", "database"], |count| {
            count.trim() != "0"
        });
        let get = [
            "run",
            "--rm",
            "--network",
            "back",
            "services:base",
            "redis-cli",
            "-h",
            "database",
            "get",
            "greeting",
        ];
        self.wait_for("the value after the crash", &get, |value| value.trim() == "again");
        self.healthy("database");

        // A backup by exec and cp, and a new life from it.
        self.ok(&["exec", "database", "redis-cli", "save"]);
        let dump = folder.join("dump.rdb");
        self.ok(&["cp", "database:/data/dump.rdb", &dump.to_string_lossy()]);
        assert!(fs::read(&dump).expect("the dump").starts_with(b"REDIS"));
        self.ok(&["stop", "-t", "5", "web", "database"]);
        self.ok(&["rm", "web", "database"]);
        self.ok(&["volume", "rm", "data"]);
        let restored =
            ["create", "--name", "restored", "--network", "back", "-v", "fresh:/data", "database:1"];
        self.ok(&[&restored[..], &["redis-server", "--dir", "/data"]].concat());
        self.ok(&["cp", &dump.to_string_lossy(), "restored:/data/dump.rdb"]);
        self.ok(&["start", "restored"]);
        let get = ["exec", "restored", "redis-cli", "get", "greeting"];
        self.wait_for("the restored value", &get, |value| value.trim() == "again");
        self.ok(&["rm", "-f", "-v", "restored"]);
        self.ok(&["volume", "rm", "fresh"]);
        self.ok(&["network", "rm", "back"]);
        assert_eq!(self.ok(&["ps", "-aq"]), "");
        self.ok(&["system", "check"]);
    }
}

#[test]
fn root_runs_it() {
    if needs::root().is_missing() {
        return;
    }
    let Some(layout) = fixture("debian-services") else { return };
    if needs::programs(&["unshare", "nsenter", "ip", "nft"]).is_missing() {
        return;
    }
    let onggi = Onggi::new();
    let host = Namespace::new();
    let run = |words: &[&str]| host.run(&onggi.command(words));
    Operator { run: &run }.play(onggi.folder(), &layout, &["-m", "256m", "--pids-limit", "50"]);
}

#[test]
fn an_ordinary_user_runs_it() {
    let Some(layout) = fixture("debian-services") else { return };
    let Some(user) = User::with_networks() else { return };
    // The fixture may lie in a folder that is root's alone.
    let copy = user.home().join("services");
    Done::of(Command::new("cp").arg("-r").arg(&layout).arg(&copy)).ok();
    Done::of(Command::new("chmod").arg("-R").arg("a+rX").arg(&copy)).ok();
    let folder = user.home().join("application");
    fs::create_dir(&folder).expect("a folder");
    user.own(&folder);
    let run = |words: &[&str]| user.output(words);
    Operator { run: &run }.play(&folder, &copy, &[]);
}
