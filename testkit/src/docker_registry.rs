//! The real registry of the distribution project, as Debian packages it.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How the registry is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Plain HTTP, open to all.
    Plain,
    /// HTTPS with a certificate of an authority made for the test, and one user with a password.
    TlsWithPassword,
    /// HTTPS that only lets in who shows a certificate of the same authority.
    MutualTls,
}

/// A running registry; stopped, and its data removed, when dropped.
pub struct DockerRegistry {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl DockerRegistry {
    /// The user of a registry with a password.
    pub const USER: &str = "alice";
    /// The password.
    pub const PASSWORD: &str = "s3cret";

    /// Starts one on a free port of loopback; none if a program for it is missing (see
    /// [`needs`](crate::needs)).
    pub fn start(security: Security) -> Option<Self> {
        let needs: &[&str] = match security {
            Security::Plain => &["docker-registry"],
            Security::TlsWithPassword => &["docker-registry", "openssl", "htpasswd"],
            Security::MutualTls => &["docker-registry", "openssl"],
        };
        if crate::needs::programs(needs).is_missing() {
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory");
        let dir = directory.path();
        let protection = match security {
            Security::Plain => String::new(),
            Security::TlsWithPassword => {
                certificates(dir);
                let line = output("htpasswd", &["-Bbn", Self::USER, Self::PASSWORD], dir);
                fs::write(dir.join("htpasswd"), line).expect("a file");
                let dir = dir.display();
                format!(
                    "  tls:\n    certificate: {dir}/server.crt\n    key: {dir}/server.key\n\
                     auth:\n  htpasswd:\n    realm: test\n    path: {dir}/htpasswd\n"
                )
            }
            Security::MutualTls => {
                certificates(dir);
                let dir = dir.display();
                format!(
                    "  tls:\n    certificate: {dir}/server.crt\n    key: {dir}/server.key\n    \
                     clientcas:\n      - {dir}/ca.crt\n"
                )
            }
        };
        // Between our look for a free port and the registry's start another may take it: try again.
        for _ in 0..5 {
            let port = free_port();
            let text = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
                 storage:\n  filesystem:\n    rootdirectory: {}/data\n  delete:\n    enabled: true\n\
                 http:\n  addr: 127.0.0.1:{port}\n{protection}",
                dir.display()
            );
            let file = dir.join("config.yml");
            fs::File::create(&file).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
            let log = fs::File::create(dir.join("log")).expect("a file");
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a descriptor"))
                .stderr(log)
                .spawn()
                .expect("docker-registry starts");
            if listens(&mut child, port) {
                return Some(Self { child, port, directory });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("docker-registry does not listen: {log}");
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The authority's certificate, of a registry with TLS.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// A directory as `certs.d`, with the authority of this registry.
    pub fn certs_dir(&self) -> PathBuf {
        let certs = self.directory.path().join("certs.d");
        let host = certs.join(self.address());
        fs::create_dir_all(&host).expect("a directory");
        fs::copy(self.ca(), host.join("ca.crt")).expect("a file");
        certs
    }

    /// A directory as [`certs_dir`](Self::certs_dir), with a certificate to show besides.
    pub fn certs_dir_with_identity(&self) -> PathBuf {
        let certs = self.certs_dir();
        let host = certs.join(self.address());
        // The server's own certificate is as good as any of this authority.
        fs::copy(self.directory.path().join("server.crt"), host.join("client.cert")).expect("a file");
        fs::copy(self.directory.path().join("server.key"), host.join("client.key")).expect("a file");
        certs
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port on loopback")
        .port()
}

fn listens(child: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// `ca.crt`, and `server.crt` with `server.key` for loopback, signed by it.
fn certificates(dir: &Path) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let subject = |name: &'static str| ["-subj", name];
    let mut arguments = vec!["req", "-x509", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt"];
    arguments.extend(key.iter().chain(&subject("/CN=onggi test authority")));
    output("openssl", &arguments, dir);
    let mut arguments = vec!["req", "-keyout", "server.key", "-out", "server.csr"];
    arguments.extend(key.iter().chain(&subject("/CN=127.0.0.1")));
    output("openssl", &arguments, dir);
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("a file");
    let sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out server.crt -extfile names";
    output("openssl", &sign.split(' ').collect::<Vec<_>>(), dir);
}

fn output(program: &str, arguments: &[&str], dir: &Path) -> Vec<u8> {
    let done = Command::new(program).args(arguments).current_dir(dir).output().expect("an installed program");
    assert!(done.status.success(), "{program} failed: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}
