//! The real registry: Docker's `distribution`, as Debian packages it, on loopback.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tempfile::TempDir;

use crate::needs;

/// How long the registry gets to listen; it takes 50 ms on an idle machine.
const START: Duration = Duration::from_secs(20);

/// How often another port is tried: between the choice of a free one and the
/// registry's bind, another test may take it.
const ATTEMPTS: usize = 5;

/// A registry that runs until it is dropped, with storage of its own.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    port: u16,
    folder: TempDir,
    tls: bool,
}

/// What the registry asks of its clients.
#[derive(Debug, Default, Clone)]
pub struct Setup {
    /// A name and password (HTTP Basic by htpasswd); open to all without.
    pub password: Option<(String, String)>,
    /// TLS with a certificate that [`DockerRegistry::ca`] vouches for; plain HTTP without.
    pub tls: bool,
}

impl DockerRegistry {
    /// An open registry on plain HTTP; `None` (and a counted skip) where `docker-registry` is not installed.
    ///
    /// # Panics
    /// If it is installed and doesn't start.
    pub fn start() -> Option<Self> {
        Self::with(&Setup::default())
    }

    /// A registry with this setup; `None` (and a counted skip) where a program for it is not installed.
    ///
    /// # Panics
    /// If the programs are there and the registry doesn't start.
    pub fn with(setup: &Setup) -> Option<Self> {
        let mut programs = vec!["docker-registry"];
        programs.extend(setup.password.as_ref().map(|_| "htpasswd"));
        programs.extend(setup.tls.then_some("openssl"));
        if needs::programs(&programs).is_missing() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        for _ in 0..ATTEMPTS {
            let port = free_port();
            let config = configuration(setup, folder.path(), port);
            let config_path = folder.path().join("config.yml");
            fs::write(&config_path, config).expect("the registry's configuration");
            let log = fs::File::create(folder.path().join("log")).expect("the registry's log");
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config_path)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a descriptor"))
                .stderr(log)
                .spawn()
                .expect("docker-registry starts");
            if listens(&mut child, port) {
                return Some(Self { child, port, folder, tls: setup.tls });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("docker-registry doesn't start:\n{log}");
    }

    /// `localhost:PORT`, the first part of image names.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// `http://localhost:PORT` or `https://…`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.host())
    }

    /// The certificate to trust, where the registry speaks TLS: the place of a `certs.d` `ca.crt`.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("tls.crt")
    }

    /// The folder with everything that was pushed.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// The requests that were made so far, one a line.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn listens(child: &mut Child, port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let end = Instant::now() + START;
    while Instant::now() < end {
        if child.try_wait().expect("the registry's state").is_some() {
            return false;
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

fn configuration(setup: &Setup, folder: &Path, port: u16) -> String {
    let storage = folder.join("storage");
    let mut text = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: \"{}\"}}\n  delete: {{enabled: true}}\n",
        storage.display()
    );
    let mut http = format!("http:\n  addr: \"127.0.0.1:{port}\"\n");
    if setup.tls {
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        make_certificate(&certificate, &key);
        let _ = writeln!(
            http,
            "  tls: {{certificate: \"{}\", key: \"{}\"}}",
            certificate.display(),
            key.display()
        );
    }
    text += &http;
    if let Some((name, password)) = &setup.password {
        let file = folder.join("htpasswd");
        make_password_file(&file, name, password);
        let _ = writeln!(text, "auth:\n  htpasswd: {{realm: test, path: \"{}\"}}", file.display());
    }
    text
}

fn make_certificate(certificate: &Path, key: &Path) {
    if certificate.exists() {
        return;
    }
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

fn make_password_file(file: &Path, name: &str, password: &str) {
    // -i: the password from standard input, so that it never stands in a list of processes.
    let mut child = Command::new("htpasswd")
        .args(["-B", "-n", "-i", name])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(file).expect("the password file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("htpasswd runs");
    child.stdin.take().expect("its input").write_all(password.as_bytes()).expect("the password");
    assert!(child.wait().expect("htpasswd ends").success(), "htpasswd failed");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curl(registry: &DockerRegistry, user: &str) -> String {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--cacert"]);
        command.arg(registry.ca()).args(["-u", user]).arg(format!("{}/v2/", registry.url()));
        String::from_utf8(command.output().expect("curl runs").stdout).expect("a status")
    }

    #[test]
    fn an_open_registry_answers() {
        let Some(registry) = DockerRegistry::start() else { return };
        let mut stream = TcpStream::connect(registry.host()).expect("a connection");
        stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }

    #[test]
    fn password_and_tls_are_enforced() {
        if needs::programs(&["curl"]).is_missing() {
            return;
        }
        let password = Some(("jar".to_owned(), "s3cret".to_owned()));
        let Some(registry) = DockerRegistry::with(&Setup { password, tls: true }) else { return };
        assert_eq!(curl(&registry, "jar:s3cret"), "200");
        assert_eq!(curl(&registry, "jar:wrong"), "401");
    }
}
