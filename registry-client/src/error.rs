//! What can go wrong between us and a registry.
//!
//! Every variant names what was being done and to what. Where the cause has a known remedy, the
//! variant stands alone, so that a caller can tell the cases apart without reading text.

use std::path::PathBuf;
use std::time::Duration;

use onggi_oci::{Digest, ErrorKind};

/// The result of talking to a registry.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of an operation on a registry, or of the configuration it needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry has no manifest of that tag or digest.
    #[error("{reference}: the registry has no such image{}", said(.message))]
    ManifestNotFound {
        /// The reference that was asked for.
        reference: String,
        /// The registry's own words; empty when it gave none.
        message: String,
    },
    /// The registry does not know the repository.
    #[error("{repository}: the registry has no such repository{}", said(.message))]
    RepositoryNotFound {
        /// The repository with its registry.
        repository: String,
        /// The registry's own words; empty when it gave none.
        message: String,
    },
    /// The repository has no blob of that digest.
    #[error("blob {digest} is not in {repository}")]
    BlobNotFound {
        /// The digest that was asked for.
        digest: String,
        /// The repository with its registry.
        repository: String,
    },
    /// The registry (or its token server) refuses.
    #[error("{host} refused to {operation} {object}{}", said(.message))]
    Denied {
        /// The host that refused.
        host: String,
        /// The operation, as a verb.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The registry's own words; empty when it gave none.
        message: String,
        /// Whether credentials were sent; if not, logging in is the remedy.
        authenticated: bool,
    },
    /// The user name and password (or the identity token) were not accepted.
    #[error("{host} did not accept the credentials{}", said(.message))]
    LoginFailed {
        /// The host that refused.
        host: String,
        /// Its own words; empty when it gave none.
        message: String,
    },
    /// The token server failed as often as we asked. The request that needs the token is not repeated
    /// for that: attempts of attempts would take minutes.
    #[error("no token for {scopes}: {source}")]
    NoToken {
        /// What the token was to allow.
        scopes: String,
        /// The last failure.
        source: Box<Error>,
    },
    /// Too many requests, and waiting as the registry asked would take too long.
    #[error("{host} allows no more requests for now{}{}", wait(.retry_after.as_ref()), said(.message))]
    RateLimited {
        /// The host.
        host: String,
        /// How long it asked us to wait, if it said.
        retry_after: Option<Duration>,
        /// Its own words; empty when it gave none.
        message: String,
    },
    /// The registry answered with an error that no other variant describes.
    #[error("{host} could not {operation} {object}: HTTP status {status}{}", said(.message))]
    Registry {
        /// The host.
        host: String,
        /// The operation, as a verb.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The HTTP status.
        status: u16,
        /// Error codes and messages from the answer; empty when it gave none.
        message: String,
    },
    /// The host name has no address.
    #[error("the host name {host} cannot be resolved: {cause}")]
    UnknownHost {
        /// The host name.
        host: String,
        /// What the resolver said.
        cause: String,
    },
    /// No connection could be made.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system said.
        cause: String,
    },
    /// The server's certificate is not signed by an authority that this machine trusts, or is not
    /// valid for this name or time.
    #[error("the certificate of {host} is not trusted: {cause}")]
    UntrustedCertificate {
        /// Host and port.
        host: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The TLS handshake failed for another reason.
    #[error("no secure connection to {host}: {cause}")]
    Tls {
        /// Host and port.
        host: String,
        /// What went wrong.
        cause: String,
    },
    /// We spoke HTTPS and the server speaks plain HTTP.
    #[error("{host} speaks plain HTTP, not HTTPS")]
    ServerSpeaksHttp {
        /// Host and port.
        host: String,
    },
    /// We spoke plain HTTP and the server wants HTTPS.
    #[error("{host} wants HTTPS, and was asked by plain HTTP")]
    ServerSpeaksHttps {
        /// Host and port.
        host: String,
    },
    /// No byte moved for the stall time-out, and trying again did not help.
    #[error("{host} stalled while we tried to {operation} {object}: nothing moved for {} s", .after.as_secs_f32())]
    Stalled {
        /// The host.
        host: String,
        /// The operation, as a verb.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// The time-out.
        after: Duration,
    },
    /// The connection broke, and trying again did not help.
    #[error("the connection to {host} broke while we tried to {operation} {object}: {cause}")]
    Interrupted {
        /// The host.
        host: String,
        /// The operation, as a verb.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// What the system said.
        cause: String,
    },
    /// Bytes do not have the digest that names them.
    #[error("{object} has the wrong content: its digest is {actual}, not {expected}")]
    DigestMismatch {
        /// What was transferred.
        object: String,
        /// The digest promised.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// A blob is not as long as its descriptor says.
    #[error("{object} has the wrong size: {actual} bytes, not {expected}")]
    SizeMismatch {
        /// What was transferred.
        object: String,
        /// The size promised, in bytes.
        expected: u64,
        /// The size that came or was announced, in bytes; for one that is too long, what came until
        /// the transfer was stopped.
        actual: u64,
    },
    /// A document larger than is ever read.
    #[error("{object} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was being read.
        object: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A manifest that is not valid, or not of the media type the registry gave it.
    #[error("the manifest of {reference} is not valid: {source}")]
    Manifest {
        /// The reference that was asked for.
        reference: String,
        /// What is wrong with it.
        source: onggi_oci::Error,
    },
    /// The server breaks the distribution protocol.
    #[error("{host} broke the protocol while we tried to {operation} {object}: {problem}")]
    Protocol {
        /// The host.
        host: String,
        /// The operation, as a verb.
        operation: &'static str,
        /// What it was done to.
        object: String,
        /// What it did.
        problem: String,
    },
    /// A name, reference or option that cannot be used for this.
    #[error("{what} {value:?} cannot be used: {problem}")]
    Invalid {
        /// The kind of value.
        what: &'static str,
        /// The value.
        value: String,
        /// Why not.
        problem: String,
    },
    /// A configuration file that cannot be understood.
    #[error("{}: {problem}", .path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that could not be read or written.
    #[error("cannot {operation} {}: {source}", .path.display())]
    File {
        /// The operation, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A credential helper failed.
    #[error("the credential helper {program} could not {operation} credentials for {server}: {problem}")]
    CredentialHelper {
        /// The program, e.g. `docker-credential-pass`.
        program: String,
        /// `get`, `store` or `erase`.
        operation: &'static str,
        /// The server it was asked about.
        server: String,
        /// What it said.
        problem: String,
    },
    /// The blob to be sent could not be read.
    #[error("cannot read {object} to send it: {source}")]
    Source {
        /// What was being sent.
        object: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The class of this failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ManifestNotFound { .. } | Self::RepositoryNotFound { .. } | Self::BlobNotFound { .. } => {
                ErrorKind::NotFound
            }
            Self::Denied { .. } | Self::LoginFailed { .. } => ErrorKind::Denied,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::TooLarge { .. } => {
                ErrorKind::Corrupt
            }
            Self::Manifest { source, .. } => source.kind(),
            Self::NoToken { source, .. } => source.kind(),
            Self::Invalid { .. } | Self::Configuration { .. } => ErrorKind::Invalid,
            Self::File { .. } | Self::Source { .. } | Self::CredentialHelper { .. } => ErrorKind::Io,
            Self::RateLimited { .. }
            | Self::Registry { .. }
            | Self::UnknownHost { .. }
            | Self::Unreachable { .. }
            | Self::UntrustedCertificate { .. }
            | Self::Tls { .. }
            | Self::ServerSpeaksHttp { .. }
            | Self::ServerSpeaksHttps { .. }
            | Self::Stalled { .. }
            | Self::Interrupted { .. }
            | Self::Protocol { .. } => ErrorKind::Remote,
        }
    }

    /// A failure of the line, not of the request: the same request may well succeed in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Stalled { .. }
            | Self::Interrupted { .. }
            | Self::Unreachable { .. }
            | Self::RateLimited { .. } => true,
            Self::Registry { status, .. } => *status >= 500 || *status == 408,
            _ => false,
        }
    }

    /// A failure after which another host that holds the same content is worth asking.
    pub(crate) fn another_host_may_help(&self) -> bool {
        !matches!(
            self,
            Self::Invalid { .. } | Self::Configuration { .. } | Self::File { .. } | Self::Source { .. }
        )
    }
}

/// `: words`, or nothing.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn wait(time: Option<&Duration>) -> String {
    time.map(|time| format!(" (asks to wait {} s)", time.as_secs())).unwrap_or_default()
}
