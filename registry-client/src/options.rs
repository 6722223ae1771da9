//! Everything a caller can set. Nothing here is read from the environment: the caller passes paths
//! and values, so that one process can hold clients of different users.

use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::Credentials;

/// Transfers (blobs up or down) at one time by one client. Docker takes 3 down and 5 up; past 6 a
/// domestic line and a registry's per-client limits gain nothing.
pub const DEFAULT_TRANSFERS: usize = 6;

/// How a [`Client`](crate::Client) behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Docker's configuration file (`$DOCKER_CONFIG/config.json`): `auths`, `credsStore`,
    /// `credHelpers`. It need not exist.
    pub docker_config: Option<PathBuf>,
    /// The file of containers-auth.json(5) (`$REGISTRY_AUTH_FILE`), asked before Docker's. It need
    /// not exist.
    pub auth_file: Option<PathBuf>,
    /// Credentials for one registry (as the user names it), asked before any file.
    pub credentials: Option<(String, Credentials)>,
    /// Directories that hold `<host[:port]>/` with `ca.crt`, `client.cert`, `client.key` and
    /// `hosts.toml`; the first that has a host's directory counts.
    pub certs_dirs: Vec<PathBuf>,
    /// Registries (`host` or `host:port`) that may be spoken to by plain HTTP, or by HTTPS with a
    /// certificate that nobody vouches for.
    pub insecure: Vec<String>,
    /// Proxies.
    pub proxy: ProxyOptions,
    /// A file of PEM certificates in place of the system's authorities (`$SSL_CERT_FILE`).
    pub ca_file: Option<PathBuf>,
    /// Blobs in transfer at one time.
    pub transfers: usize,
    /// How often and how patiently to try again.
    pub retry: RetryPolicy,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How uploads are cut.
    pub upload: UploadOptions,
    /// The `User-Agent` of every request.
    pub user_agent: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            docker_config: None,
            auth_file: None,
            credentials: None,
            certs_dirs: Vec::new(),
            insecure: Vec::new(),
            proxy: ProxyOptions::default(),
            ca_file: None,
            transfers: DEFAULT_TRANSFERS,
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            upload: UploadOptions::default(),
            user_agent: concat!("onggi/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Proxies as the environment variables of curl and Go name them. Loopback is never proxied.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// `HTTP_PROXY`: a URL, for plain HTTP.
    pub http: Option<String>,
    /// `HTTPS_PROXY`: a URL, for HTTPS (by `CONNECT`).
    pub https: Option<String>,
    /// `NO_PROXY`: hosts, domains and networks separated by commas.
    pub no_proxy: Option<String>,
}

/// How often to try again, and how long to wait before.
///
/// The wait before attempt *n* is `base · 2ⁿ`, at most `cap`, less a random part of up to a half, so
/// that many clients which failed together do not come back together. A `Retry-After` of the server
/// takes its place.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts after the first one without progress; 0 gives up at once.
    pub retries: u32,
    /// The first wait.
    pub base: Duration,
    /// The longest wait of our own choice.
    pub cap: Duration,
    /// The longest `Retry-After` that is obeyed; a longer one is an error at once.
    pub retry_after_cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 5,
            base: Duration::from_millis(300),
            cap: Duration::from_secs(10),
            retry_after_cap: Duration::from_mins(1),
        }
    }
}

/// How long to wait for a server.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, with the TLS handshake.
    pub connect: Duration,
    /// For the head of an answer once the request is sent.
    pub response: Duration,
    /// For the answer to the last request of an upload: the registry may copy and hash the blob
    /// before it answers.
    pub commit: Duration,
    /// For more bytes of a transfer, in either direction.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            response: Duration::from_mins(1),
            commit: Duration::from_mins(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// How uploads are cut.
#[derive(Clone, Copy, Debug)]
pub struct UploadOptions {
    /// The size in bytes of a chunk of an upload whose length is not known beforehand. One chunk
    /// is held in memory for each such upload, so that it can be sent again. Amazon's and Google's
    /// registries want at least 5 MiB.
    pub chunk: usize,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self { chunk: 8 << 20 }
    }
}
